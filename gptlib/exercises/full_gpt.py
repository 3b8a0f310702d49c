"""Chapter 4's exercises: what a GPT is trained on, how fast it learns, and how it writes."""

import math

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import Wrong, agree, close, combined, compare, finite, keeps_device, randint, randn, shown

# shift_targets ------------------------------------------------------------------------------------------------------

def check_shift_targets(shift_targets) -> Result:
    """`shift_targets(ids, start, block_size)`: (N,) tokens -> x, y, (block_size,) each; y[t] is the token after x[t]."""
    return check("shift_targets", shift_targets, _shift_targets,
                 "each target is the token after its input, from `start` to the last window")


def _right_shift(ids, start, block_size):
    x = [ids[start + t] for t in range(block_size)]
    y = [ids[start + t + 1] for t in range(block_size)]
    return torch.stack([torch.stack(x), torch.stack(y)])                 # (2, block_size)


def _two_tensors(answer):
    if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not all(isinstance(t, torch.Tensor) for t in answer):
        raise Wrong("two tensors are wanted: return x, y")
    x, y = answer
    if y.ndim == 0:
        raise Wrong("there is a target for the last position only, and every position has one: y has as many tokens as x")
    if x.shape != y.shape:
        raise Wrong(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}: every token of x needs its target")
    return torch.stack([x, y.to(x.dtype)]) if x.dtype == y.dtype else torch.stack([x, y])


def _shift_targets(reader: Reader):
    ids = 10 * torch.arange(40) + randint(10, 40, seed=1)                # all different
    cases = [{"ids": ids[:N], "start": start, "block_size": block_size} for N, start, block_size in (
        (3, 0, 1), (4, 1, 1), (5, 0, 2), (5, 2, 2), (6, 1, 3), (40, 3, 8), (40, 11, 2), (40, 31, 8), (40, 0, 39))]
    pair = lambda a, b, n: lambda ids, start, block_size: torch.stack([ids[start + s:start + s + block_size + n] for s in (a, b)])
    window = lambda ids, start, block_size: ids[start:start + block_size]
    mistakes = [
        ("x and y hold the same tokens, so the model learns to copy: y starts one token later", pair(0, 0, 0)),
        ("y is two tokens ahead of x: one is right", pair(0, 2, 0)),
        ("y holds the token before each input: it should hold the one after", pair(0, -1, 0)),
        ("y holds the token before each input: it should hold the one after", lambda ids, start, block_size: torch.stack(
            [ids[start + 1:start + block_size + 1], window(ids, start, block_size)])),
        ("both are one token too short, block_size − 1: the window needs block_size + 1 tokens", pair(0, 1, -1)),
        ("both are one token too long, block_size + 1", pair(0, 1, 1)),
        ("the last target is wrong: `roll` brings the first token round to the end; take the token that follows the window",
         lambda ids, start, block_size: torch.stack([window(ids, start, block_size), window(ids, start, block_size).roll(-1)])),
        *(("the last target is made up: take the token that follows the window, ids[start + block_size]",
           lambda ids, start, block_size, filler=filler: torch.stack([window(ids, start, block_size), torch.cat(
               [ids[start + 1:start + block_size], torch.full((1,), filler)])])) for filler in (0, -1, -100)),
        ("the last target repeats the last input: take the token that follows the window",
         lambda ids, start, block_size: torch.stack([window(ids, start, block_size), torch.cat(
             [ids[start + 1:start + block_size], ids[start + block_size - 1:start + block_size]])])),
        ("`start` counts tokens, not the number of a block: the window begins at ids[start]",
         lambda ids, start, block_size: pair(0, 1, 0)(ids, start * block_size, block_size)),
        ("`start` is ignored: the window begins at ids[start]", lambda ids, start, block_size: pair(0, 1, 0)(ids, 0, block_size)),
        ("the window begins one token too late, at start + 1", pair(1, 2, 0)),
        ("the window begins one token too early, at start − 1", pair(-1, 0, 0)),
        ("y is the next window, a whole block later: it starts one token after x",
         lambda ids, start, block_size: pair(0, block_size, 0)(ids, start, block_size)),
        ("y is in the reverse order", lambda ids, start, block_size: torch.stack(
            [window(ids, start, block_size), ids[start + 1:start + block_size + 1].flip(0)])),
        ("y is x + 1, the next number in the vocabulary: it should be the next token of the text",
         lambda ids, start, block_size: torch.stack([window(ids, start, block_size), window(ids, start, block_size) + 1])),
        ("there is a batch axis: x and y have shape (block_size,)",
         lambda ids, start, block_size: pair(0, 1, 0)(ids, start, block_size)[:, None]),
    ]
    mistakes[3] = ("x and y are swapped: x comes first, y is the later one", mistakes[3][1])
    agree(compare(reader, _right_shift, cases, mistakes, _two_tensors))
    keeps_device(reader, cases, _two_tensors)


# top_p --------------------------------------------------------------------------------------------------------------

def check_top_p(top_p) -> Result:
    """`top_p(probabilities, p)`: (B, V), 0 < p <= 1 -> (B, V): the fewest likeliest tokens that reach p, summing to 1 again."""
    return check("top_p", top_p, _top_p, "the fewest likeliest tokens that reach p stay, in their places, and sum to 1")


def _right_top_p(probabilities, p):
    result = torch.zeros_like(probabilities)
    for row, kept in zip(probabilities, result, strict=True):
        held = 0.0
        for token in sorted(range(len(row)), key=lambda v: -row[v].item()):
            if held < p:
                kept[token] = row[token]
                held += row[token].item()
    return result / result.sum(-1, keepdim=True)


def _mistaken_top_p(options):
    sort, keep, back, share = options

    def mistaken(probabilities, p):
        order = sort(probabilities)
        ordered = probabilities.gather(-1, order)
        before = ordered.cumsum(-1) - ordered
        kept = ordered * keep(before, ordered, p)
        return share(back(kept, order), p)
    return mistaken


def _top_p(reader: Reader):
    sixteenths = torch.tensor([[2, 8, 4, 2], [1, 3, 2, 10], [5, 4, 6, 1]]) / 16
    random = lambda B, V, p, seed, dtype=torch.float64: {"probabilities": randn(B, V, seed=seed).softmax(-1).to(dtype), "p": p}
    cases = [{"probabilities": torch.tensor([[1.0]]), "p": 0.5}]
    cases += [{"probabilities": sixteenths[:1, :3].clone() * 16 / 14, "p": p} for p in (0.4, 0.7, 0.99)]
    cases += [{"probabilities": sixteenths.clone()[1:].double(), "p": p} for p in (0.1, 0.6, 0.65, 0.9, 1.0)]
    cases += [{"probabilities": torch.tensor([[0.125, 0.5, 0.25, 0.0625, 0.0625]]), "p": p} for p in (0.5, 0.75, 0.875)]
    cases += [random(1, 7, 0.8, 1), random(5, 9, 0.5, 2), random(4, 11, 0.9, 3), random(6, 8, 0.3, 4, torch.float32),
              random(3, 6, 0.7, 5, torch.float32)]
    crossing = "the token that crosses p is dropped, so less than p is left: keep it, it is what brings the sum to p"
    places = lambda kept, order: torch.zeros_like(kept).scatter(-1, order, kept)
    downwards = lambda probabilities: probabilities.argsort(dim=-1, descending=True, stable=True)
    mistakes = combined(_mistaken_top_p, {
        "": downwards,
        "the sum runs in the order of the vocabulary: sort first, likeliest token first":
            lambda probabilities: torch.arange(probabilities.shape[-1], device=probabilities.device).expand_as(probabilities),
        "it keeps the least likely tokens: sort with the likeliest first, descending=True": lambda probabilities: probabilities.argsort(-1),
        "every row is sorted as the first one is: each row has its own order":
            lambda probabilities: downwards(probabilities)[:1].expand_as(probabilities),
    }, {
        "": lambda before, own, p: before < p,
        crossing: lambda before, own, p: before + own <= p,
        crossing + " (also where the likeliest token alone is more than p)": lambda before, own, p: (before + own <= p) | (before == 0),
        crossing + ", even when it reaches p exactly": lambda before, own, p: before + own < p,
        crossing + ", even when it reaches p exactly; only the likeliest is safe":
            lambda before, own, p: (before + own < p) | (before == 0),
        "when the sum is exactly p already, one more token is kept: stop as soon as p is reached (before < p, not <=)":
            lambda before, own, p: before <= p,
        "each token is compared with p alone: add the probabilities up, likeliest first, and compare the sum":
            lambda before, own, p: own >= p,
        "each token is compared with 1 − p alone: add the probabilities up, likeliest first, and compare the sum":
            lambda before, own, p: own >= 1 - p,
        "all tokens are kept: only the likeliest that reach p together should be": lambda before, own, p: before < 2,
        "it keeps the likeliest alone: all tokens up to the one that crosses p stay": lambda before, own, p: before == 0,
        "it keeps what should go: the tokens up to the one that crosses p stay": lambda before, own, p: before >= p,
        "one token too many is kept: the one that crosses p is the last":
            lambda before, own, p: torch.nn.functional.pad((before < p)[..., :-1], (1, 0), value=True),
        "each token is compared with p times the likeliest (min-p): add the probabilities up, and compare the sum with p":
            lambda before, own, p: own >= p * own.amax(-1, keepdim=True),
        "p is taken for a share of the vocabulary: it is a share of the probability": lambda before, own, p:
            torch.arange(own.shape[-1], device=own.device) < max(1, int(p * own.shape[-1])),
        "it stops at 1 − p: the sum should reach p": lambda before, own, p: before < 1 - p,
    }, {
        "": places,
        "the result is left sorted: each probability goes back to its token's place (scatter)": lambda kept, order: kept,
        "the probabilities went to wrong places: the way back is scatter(-1, order, …), or gather with order.argsort(-1)":
            lambda kept, order: kept.gather(-1, order),
    }, {
        "": lambda kept, p: kept / kept.sum(-1, keepdim=True),
        "it does not sum to 1 any more: divide what is kept by its sum": lambda kept, p: kept,
        "it is divided by p: what is kept holds a little more than p, so divide by its sum": lambda kept, p: kept / p,
        "a softmax of probabilities flattens them: divide what is kept by its sum":
            lambda kept, p: kept.masked_fill(kept == 0, -math.inf).softmax(-1),
        "a softmax of probabilities flattens them, and wakes the dropped ones: divide what is kept by its sum":
            lambda kept, p: kept.softmax(-1),
        "it is divided by the sum of the whole batch: each row by its own": lambda kept, p: kept / kept.sum(),
        "each column sums to 1: divide each row by its own sum": lambda kept, p: kept / kept.sum(0, keepdim=True),
        "all kept tokens become equally likely: divide what is kept by its sum":
            lambda kept, p: (kept > 0) / (kept > 0).sum(-1, keepdim=True),
        "it is divided by its largest number: divide what is kept by its sum": lambda kept, p: kept / kept.amax(-1, keepdim=True),
        "these are logarithms: give probabilities": lambda kept, p: (kept / kept.sum(-1, keepdim=True)).log(),
        "dropped tokens are at −inf, which is for logits: a dropped token has probability 0":
            lambda kept, p: kept.masked_fill(kept == 0, -math.inf),
        "it tells which tokens are kept: give their probabilities, divided by their sum": lambda kept, p: kept > 0,
    })
    in_order = ("which to keep was found in sorted order, and applied in the vocabulary's: bring it back to its places first (scatter)",
                lambda probabilities, p: (kept := probabilities * ((ordered := probabilities.sort(-1, descending=True).values).cumsum(-1)
                                                                   - ordered < p)) / kept.sum(-1, keepdim=True))
    trials = compare(reader, _right_top_p, cases, [*mistakes, in_order])
    for trial in trials:
        finite(trial, "is nothing kept, and 0 divided by 0? The likeliest token always stays")
        if not close(trial.got.sum(-1), torch.ones_like(trial.got.sum(-1)), 1e-5):
            raise Wrong(f"the rows sum to {trial.got.sum(-1)[0]:.4g}, not to 1: divide what is kept by its sum")
        if ((trial.got > 0) != (trial.expected > 0)).any():
            row = ((trial.got > 0) != (trial.expected > 0)).any(-1).int().argmax()
            found, wanted = ((t[row] > 0).nonzero()[:, 0].tolist() for t in (trial.got, trial.expected))
            raise Wrong(f"the wrong tokens are kept: of probabilities {shown(trial.given['probabilities'][row])} with "
                        f"p = {trial.given['p']} it keeps tokens {found}, and {wanted} is right")
    agree(trials)
    keeps_device(reader, cases)


# learning_rate ------------------------------------------------------------------------------------------------------

def check_learning_rate(learning_rate) -> Result:
    """`learning_rate(step, max_steps, peak, warmup)`: with n = step + 1, peak · n / warmup while n <= warmup, and then
    peak · (1 + cos(π (n − warmup) / (max_steps − warmup))) / 2."""
    return check("learning_rate", learning_rate, _learning_rate, "a straight line up to the peak, half a cosine down to 0 at the last step")


def _right_rate(step, max_steps, peak, warmup):
    n = step + 1
    if n <= warmup:
        return torch.tensor(peak * n / warmup)
    return torch.tensor(peak * (1 + math.cos(math.pi * (n - warmup) / (max_steps - warmup))) / 2)


def _number(answer):
    if isinstance(answer, torch.Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise Wrong(f"it gives back a {type(answer).__name__}, and a number is wanted")
    return torch.tensor(float(answer))


def _mistaken_rate(options):
    count, rise, share, fall, scale = options

    def rate(step, max_steps, peak, warmup):
        n = count(step)
        value = rise(n, warmup) if n <= warmup and warmup else fall(share(n, max_steps, warmup))
        return torch.tensor(float(scale(peak, value)))
    return rate


def _learning_rate(reader: Reader):
    cases = [{"step": step, "max_steps": max_steps, "peak": peak, "warmup": warmup}
             for max_steps, peak, warmup in ((4, 1.0, 2), (12, 3.0, 5), (9, 2.0, 1), (7, 0.5, 0)) for step in range(max_steps)]
    mistakes = combined(_mistaken_rate, {
        "": lambda step: step + 1,
        "it counts one step too few: with n = step + 1 the first rate is peak / warmup, not 0, and the last is 0": lambda step: step,
        "it counts one step too many: n = step + 1": lambda step: step + 2,
    }, {
        "": lambda n, warmup: n / warmup,
        "the warm-up is left out: at first the rate grows in a straight line, peak · n / warmup": lambda n, warmup: 1.0,
        "the warm-up runs downwards: it should grow from peak / warmup to peak": lambda n, warmup: 1 - n / warmup,
        "the warm-up is curved: it should be a straight line, peak · n / warmup":
            lambda n, warmup: (1 - math.cos(math.pi * n / warmup)) / 2,
        "the warm-up is curved: it should be a straight line, not a square": lambda n, warmup: (n / warmup) ** 2,
        "the warm-up is divided by warmup + 1: the step with n = warmup should have the peak itself": lambda n, warmup: n / (warmup + 1),
        "the warm-up stays at 0 (is there a // that cuts the decimals off?): it should grow in a straight line, peak · n / warmup":
            lambda n, warmup: 0.0,
    }, {
        "": lambda n, end, warmup: (n - warmup) / (end - warmup),
        "the rate jumps at the end of the warm-up: the cosine begins there, so count n − warmup of max_steps − warmup steps":
            lambda n, end, warmup: n / end,
        "the cosine begins after the warm-up, but is stretched over all of max_steps: it has max_steps − warmup steps, and ends at 0":
            lambda n, end, warmup: (n - warmup) / end,
        "the cosine counts from the beginning: count n − warmup steps of max_steps − warmup": lambda n, end, warmup: n / (end - warmup),
    }, {
        "": lambda share: (1 + math.cos(math.pi * share)) / 2,
        "the cosine falls from 1 to −1, and so the rate to −peak: (1 + cos) / 2 falls from 1 to 0": lambda share: math.cos(math.pi * share),
        "the half is missing, so the rate jumps to twice the peak: (1 + cos) / 2": lambda share: 1 + math.cos(math.pi * share),
        "it falls in a straight line: use a cosine": lambda share: 1 - share,
        "it stays constant after the warm-up: it should fall to 0 along a cosine": lambda share: 1.0,
        "π is missing: the cosine goes from angle 0 to angle π": lambda share: (1 + math.cos(share)) / 2,
        "π is doubled: the cosine goes from angle 0 to angle π, half a wave": lambda share: (1 + math.cos(2 * math.pi * share)) / 2,
        "it is a quarter of a wave, cos(π/2 · share): (1 + cos(π · share)) / 2 also arrives gently":
            lambda share: math.cos(math.pi * share / 2),
        "it is upside down: (1 + cos) / 2 falls, (1 − cos) / 2 grows": lambda share: (1 - math.cos(math.pi * share)) / 2,
        "it is a sine: use a cosine, which begins at its peak": lambda share: (1 + math.sin(math.pi * share)) / 2,
        "a tenth of the peak remains: it should be 0 at the last step": lambda share: 0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2,
        "it decays exponentially: use a cosine": lambda share: math.exp(-share),
    }, {
        "": lambda peak, value: peak * value,
        "it is a share between 0 and 1: it still has to be multiplied by peak": lambda peak, value: value,
    })
    once = [("the warm-up is left out: it is a cosine over all steps; at first the rate grows in a straight line, peak · n / warmup",
             lambda step, max_steps, peak, warmup: _right_rate(step, max_steps, peak, 0)),
            ("the rate never falls: after the warm-up it follows half a cosine down to 0, it does not stay constant",
             lambda step, max_steps, peak, warmup: torch.tensor(peak * min(1, (step + 1) / max(1, warmup)))),
            ("it takes the smaller of warm-up and cosine: the cosine begins where the warm-up ends, n <= warmup decides",
             lambda step, max_steps, peak, warmup: min(torch.tensor(peak * (step + 1) / max(1, warmup)),
                                                       _right_rate(step, max_steps, peak, 0))),
            ("the warm-up counts n = step + 1, but the cosine counts step: both count n",
             lambda step, max_steps, peak, warmup: _right_rate(step - (step + 1 > warmup), max_steps, peak, warmup)
             if step != warmup else torch.tensor(peak)),
            ("the warm-up multiplies the cosine instead of coming before it: one or the other, by n <= warmup",
             lambda step, max_steps, peak, warmup: min(1, (step + 1) / max(1, warmup)) * _right_rate(step, max_steps, peak, 0))]
    trials = compare(reader, _right_rate, cases, [*once, *mistakes], _number)
    for trial in trials:
        step, max_steps, peak, warmup = trial.given.values()
        finite(trial, "is something divided by 0?")
        if not close(trial.got, trial.expected) and step + 1 in (warmup, max_steps):
            raise Wrong(f"the rate should be {'the peak' if step + 1 == warmup else '0'} at step {step} of max_steps = {max_steps} with "
                        f"peak = {peak}, warmup = {warmup}, and it is {trial.got.item():.4g}")
    agree(trials)


# generate_greedy ----------------------------------------------------------------------------------------------------

def check_generate_greedy(generate_greedy) -> Result:
    """`generate_greedy(model, ids, max_new_tokens, block_size)`: (B, T) tokens -> (B, T + max_new_tokens), each new one the
    likeliest after the last block_size tokens before it."""
    return check("generate_greedy", generate_greedy, _generate_greedy,
                 "each new token is the likeliest after the last block_size, and is read in its turn")


class ToyModel:
    """Logits (B, T, V) that depend on every token up to their position, and on where it stands."""

    def __init__(self, V, block_size, seed):
        self.block_size = block_size
        self.table, self.mixing = randn(V, V, seed=seed), randn(64, 64, seed=seed + 1).tril()

    def __call__(self, idx):
        if not isinstance(idx, torch.Tensor) or idx.ndim != 2 or not 1 <= idx.shape[1] <= 64:
            raise Wrong(f"the model was given {'shape ' + str(tuple(idx.shape)) if isinstance(idx, torch.Tensor) else type(idx).__name__}, "
                        "and it reads tokens (B, T) with T at least 1")
        if idx.shape[1] > self.block_size:
            raise Wrong(f"the model was given {idx.shape[1]} tokens, more than block_size = {self.block_size}: crop to the last "
                        "block_size, ids[:, -block_size:], before each call")
        T = idx.shape[1]
        return torch.einsum("ts,bsv->btv", self.mixing[:T, :T], self.table[idx])

    def __repr__(self):
        return "a small random model"


def _right_greedy(model, ids, max_new_tokens, block_size, window=lambda ids, n: ids[:, -n:], token=lambda logits: logits[:, -1].argmax(-1)):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, token(model(window(ids, block_size)))[:, None]], dim=1)
    return ids


def _generate_greedy(reader: Reader):
    def case(B, T, n, block_size, seed, V=13):
        return {"model": ToyModel(V, block_size, seed), "ids": randint(V, B, T, seed=seed), "max_new_tokens": n, "block_size": block_size}
    cases = [case(1, 1, 1, 4, 1), case(1, 2, 2, 4, 2), case(2, 1, 0, 3, 3), case(1, 3, 3, 3, 4), case(3, 5, 9, 4, 5), case(2, 7, 6, 5, 6),
             case(1, 2, 12, 4, 8, V=2), case(4, 2, 12, 8, 7)]
    variant = lambda **how: lambda model, ids, max_new_tokens, block_size: _right_greedy(model, ids, max_new_tokens, block_size, **how)
    right = _right_greedy

    def repeated(model, ids, max_new_tokens, block_size):
        return torch.cat([ids] + [right(model, ids, 1, block_size)[:, -1:]] * max_new_tokens, dim=1)

    def lost(model, ids, max_new_tokens, block_size):
        return right(model, ids, max_new_tokens, block_size)[:, -block_size - 1:] if max_new_tokens else ids
    mistakes = [
        ("the window holds the first block_size tokens, so it soon stands still: take the last, ids[:, -block_size:]",
         variant(window=lambda ids, n: ids[:, :n])),
        ("the logits come from the first position: the next token follows the last position, logits[:, -1]",
         variant(token=lambda logits: logits[:, 0].argmax(-1))),
        ("the logits come from the last position but one: logits[:, -1] speaks of the next token",
         variant(token=lambda logits: logits[:, max(-2, -logits.shape[1])].argmax(-1))),
        ("the logits of all positions are averaged: the next token follows the last position, logits[:, -1]",
         variant(token=lambda logits: logits.mean(1).argmax(-1))),
        ("it takes the least likely token: argmax, not argmin", variant(token=lambda logits: logits[:, -1].argmin(-1))),
        ("every row continues with the first row's token: take argmax over the vocabulary, dim=-1, for each row",
         variant(token=lambda logits: logits[:1, -1].argmax(-1).expand(len(logits)))),
        ("the model reads the last token alone, like a bigram: give it the last block_size tokens",
         variant(window=lambda ids, n: ids[:, -1:])),
        ("the window is one token too short, block_size − 1: the model can read block_size",
         variant(window=lambda ids, n: ids[:, -(n - 1):] if n > 1 else ids[:, -1:])),
        ("these are the new tokens alone: give the prompt and what follows it",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max_new_tokens, block_size)[:, ids.shape[1]:]),
        ("the beginning of the text is lost: crop what the model reads, and keep `ids` whole", lost),
        ("the beginning of the text is lost: crop what the model reads, and keep `ids` whole",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max_new_tokens, block_size)[:, -block_size:]),
        ("every new token is the same one: feed each back, so that the next is predicted from it too", repeated),
        ("there is one token too few: max_new_tokens of them are wanted",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max(0, max_new_tokens - 1), block_size)),
        ("there is one token too many: max_new_tokens of them are wanted",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max_new_tokens + 1, block_size)),
        ("max_new_tokens counts the prompt here: so many new tokens are wanted beside it",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max(0, max_new_tokens - ids.shape[1]), block_size)),
        ("it stops at block_size tokens: go on, and let the model read the last block_size of them",
         lambda model, ids, max_new_tokens, block_size: right(
             model, ids, min(max_new_tokens, max(0, block_size - ids.shape[1])), block_size)),
        ("a token is added for every position of the window: only the last position's logits, [:, -1], speak of the next token",
         _all_positions),
        ("the argmax runs over the positions: it goes over the vocabulary, dim=-1", variant(token=lambda logits: logits.argmax(1)[:, -1])),
        ("each new token pushes the first one out: keep `ids` whole, and add at the end",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max_new_tokens, block_size)[:, -ids.shape[1]:]),
        ("it writes until there are block_size tokens: max_new_tokens new ones are wanted",
         lambda model, ids, max_new_tokens, block_size: right(model, ids, max(0, block_size - ids.shape[1]), block_size)),
        ("each new token is put in front: it belongs at the end", _in_front),
        ("this is the prompt, with nothing added", lambda model, ids, max_new_tokens, block_size: ids),
    ]
    trials = compare(reader, right, cases, mistakes)
    for trial in trials:
        T = trial.given["ids"].shape[1]
        if not close(trial.got[:, :T], trial.given["ids"]):
            raise Wrong("the result does not begin with the prompt: add new tokens at its end, along dim=1")
    agree(trials)


def _all_positions(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:]).argmax(-1)], dim=1)
    return ids


def _in_front(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([model(ids[:, -block_size:])[:, -1].argmax(-1)[:, None], ids], dim=1)
    return ids
