"""Chapter 4's exercises: inputs and targets, top-p, the learning rate, and greedy generation."""

import math

import torch
from torch.nn import functional as F

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    Wrong,
    agree,
    close,
    combined,
    compare,
    finite,
    keeps_device,
    randint,
    randn,
    shown,
)

# shift_targets ------------------------------------------------------------------------------------


def check_shift_targets(shift_targets) -> Result:
    """Check `shift_targets(ids, start, block_size)`.

    It cuts x and y, (block_size,) each, out of the tokens ids (N,). y[t] is the token after x[t].
    """
    return check(
        "shift_targets",
        shift_targets,
        _shift_properties,
        "each target is the token after its input, from the first window to the last",
    )


def _right_shift(ids, start, block_size):
    """Return x and y as one tensor (2, block_size)."""
    x = [ids[start + t] for t in range(block_size)]
    y = [ids[start + t + 1] for t in range(block_size)]
    return torch.stack([torch.stack(x), torch.stack(y)])


def _stacked(answer):
    """Return the answer x, y as one tensor, (2, block_size)."""
    is_pair = isinstance(answer, (tuple, list)) and len(answer) == 2
    if not is_pair or not all(isinstance(tensor, torch.Tensor) for tensor in answer):
        raise Wrong("the function should return two tensors: return x, y")
    x, y = answer
    if y.ndim == 0:
        raise Wrong(
            "there is a target for the last position only, but every position needs one. y should "
            "have as many tokens as x"
        )
    if x.shape != y.shape:
        raise Wrong(
            f"x has shape {tuple(x.shape)}, but y has shape {tuple(y.shape)}. Every token of x "
            "needs its target: x should end at start + block_size, and y one token later"
        )
    return torch.stack([x, y.to(x.dtype)]) if x.dtype == y.dtype else torch.stack([x, y])


def _shift_cases():
    # All ids are different.
    ids = 10 * torch.arange(40) + randint(10, 40, seed=1)
    cases = []
    for N, start, block_size in (
        (3, 0, 1),
        (4, 1, 1),
        (5, 0, 2),
        (5, 2, 2),
        (6, 1, 3),
        (40, 3, 8),
        (40, 11, 2),
        (40, 31, 8),
        (40, 0, 39),
    ):
        cases.append({"ids": ids[:N], "start": start, "block_size": block_size})
    return cases


def _window(ids, start, block_size):
    return ids[start : start + block_size]


def _windows(x_shift, y_shift, extra=0):
    """Return a function that shifts x and y, and makes both longer by `extra` tokens."""

    def shifted(ids, start, block_size):
        n = block_size + extra
        x = _window(ids, start + x_shift, n)
        return torch.stack([x, _window(ids, start + y_shift, n)])

    return shifted


def _with_targets(targets):
    """Return a function with the right x. `targets(ids, start, block_size)` gives y."""

    def function(ids, start, block_size):
        x = _window(ids, start, block_size)
        return torch.stack([x, targets(ids, start, block_size)])

    return function


def _last_target(make):
    """Return a function with the right x and y, but `make(x)` gives the last target, (1,)."""

    def targets(ids, start, block_size):
        x = _window(ids, start, block_size)
        return torch.cat([x[1:], make(x)])

    return _with_targets(targets)


def _end_not_moved(ids, start, block_size):
    return torch.stack([ids[start:block_size], ids[start + 1 : block_size + 1]])


AFTER_THE_WINDOW = "Take the token that follows the window, ids[start + block_size]"
INVENTED = f"the last target is not a token of the text: it is made up. {AFTER_THE_WINDOW}"

SHIFT_MISTAKES = [
    ("x and y contain the same tokens, so the model would learn to copy. y should begin one token "
     "later",
     _windows(0, 0)),
    ("y is two tokens ahead of x. It should be one token ahead", _windows(0, 2)),
    ("y contains the token before each input. It should contain the token after it",
     _windows(0, -1)),
    ("x and y are swapped. Return x first, and then y, which begins one token later",
     _windows(1, 0)),
    ("x and y are one token too short, block_size − 1. The window needs block_size + 1 tokens",
     _windows(0, 1, extra=-1)),
    ("x and y are one token too long, block_size + 1", _windows(0, 1, extra=1)),
    ("the slices end at block_size. x should end at start + block_size, and y one token later",
     _end_not_moved),
    (f"the last target is wrong: `roll` moves the first token to the end. {AFTER_THE_WINDOW}",
     _with_targets(lambda ids, start, block_size: _window(ids, start, block_size).roll(-1))),
    (INVENTED, _last_target(lambda x: torch.full((1,), 0))),
    (INVENTED, _last_target(lambda x: torch.full((1,), -1))),
    (INVENTED, _last_target(lambda x: torch.full((1,), -100))),
    (f"the last target repeats the last input. {AFTER_THE_WINDOW}", _last_target(lambda x: x[-1:])),
    ("`start` is the number of a token, not the number of a block. The window begins at ids[start]",
     lambda ids, start, block_size: _windows(0, 1)(ids, start * block_size, block_size)),
    ("the argument `start` is ignored. The window begins at ids[start]",
     lambda ids, start, block_size: _windows(0, 1)(ids, 0, block_size)),
    ("the window begins one token too late, at start + 1. It should begin at start",
     _windows(1, 2)),
    ("the window begins one token too early, at start − 1. It should begin at start",
     _windows(-1, 0)),
    ("y is the next window, block_size tokens later. It should begin one token after x",
     lambda ids, start, block_size: _windows(0, block_size)(ids, start, block_size)),
    ("all targets are the same token, the one after the window. Each position has its own next "
     "token",
     _with_targets(lambda ids, start, block_size: ids[[start + block_size]].expand(block_size))),
    ("all targets are the same token, the second of the window. Each position has its own next "
     "token",
     _with_targets(lambda ids, start, block_size: ids[[start + 1]].expand(block_size))),
    ("x and y contain positions in the text. They should contain the tokens at these positions, "
     "ids[positions]",
     lambda ids, start, block_size: _windows(0, 1)(torch.arange(len(ids)), start, block_size)),
    ("the window ends at the end of the text. It has block_size tokens from start on",
     lambda ids, start, block_size: torch.stack([ids[start:-1], ids[start + 1 :]])),
    ("the window is always the end of the text. It begins at ids[start]",
     lambda ids, start, block_size: torch.stack([ids[-block_size - 1 : -1], ids[-block_size:]])),
    ("x is in the reverse order, and y too. Keep the order of the text",
     lambda ids, start, block_size: _windows(0, 1)(ids, start, block_size).flip(1)),
    ("x and y are the even and the odd places of one window, so they share no token. y is the "
     "same window, one token later",
     lambda ids, start, block_size: _window(ids, start, 2 * block_size).view(block_size, 2).T),
    ("y is in the reverse order",
     _with_targets(lambda ids, start, block_size: _window(ids, start + 1, block_size).flip(0))),
    ("y is x + 1, the next number in the vocabulary. It should be the next token of the text",
     _with_targets(lambda ids, start, block_size: _window(ids, start, block_size) + 1)),
    ("there is a batch axis. x and y should have the shape (block_size,)",
     lambda ids, start, block_size: _windows(0, 1)(ids, start, block_size)[:, None]),
    ("there is an axis after time. x and y should have the shape (block_size,)",
     lambda ids, start, block_size: _windows(0, 1)(ids, start, block_size)[..., None]),
]


def _shift_properties(reader: Reader):
    cases = _shift_cases()
    agree(compare(reader, _right_shift, cases, SHIFT_MISTAKES, _stacked))
    keeps_device(reader, cases, _stacked)


# top_p --------------------------------------------------------------------------------------------


def check_top_p(top_p) -> Result:
    """Check `top_p(probabilities, p)`, where 0 < p <= 1.

    It turns probabilities (B, V) into probabilities (B, V). In each row the most probable tokens
    stay: as few as reach p together. They sum to 1 again.
    """
    return check(
        "top_p",
        top_p,
        _top_p_properties,
        "in each row the fewest most probable tokens that reach p stay, in their places, and sum "
        "to 1",
    )


def _right_top_p(probabilities, p):
    result = torch.zeros_like(probabilities)
    for row, out in zip(probabilities, result, strict=True):
        total = 0.0
        for token in sorted(range(len(row)), key=lambda v: -row[v].item()):
            if total < p:
                out[token] = row[token]
                total += row[token].item()
    return result / result.sum(-1, keepdim=True)


def _top_p_cases():
    def random(B, V, p, seed, dtype=torch.float64):
        return {"probabilities": randn(B, V, seed=seed).softmax(-1).to(dtype), "p": p}

    # Multiples of 1/16 have no rounding errors, so a sum can be exactly p.
    sixteenths = torch.tensor([[2, 8, 4, 2], [1, 3, 2, 10], [5, 4, 6, 1]]) / 16
    halving = torch.tensor([[0.125, 0.5, 0.25, 0.0625, 0.0625]])
    cases = [{"probabilities": torch.tensor([[1.0]]), "p": 0.5}]
    for p in (0.4, 0.7, 0.99):
        cases.append({"probabilities": sixteenths[:1, :3].clone() * 16 / 14, "p": p})
    for p in (0.1, 0.6, 0.65, 0.9, 1.0):
        cases.append({"probabilities": sixteenths.clone()[1:].double(), "p": p})
    for p in (0.5, 0.75, 0.875):
        cases.append({"probabilities": halving.clone(), "p": p})
    return [
        *cases,
        random(1, 7, 0.8, 1),
        random(5, 9, 0.5, 2),
        random(4, 11, 0.9, 3),
        random(6, 8, 0.3, 4, torch.float32),
        random(3, 6, 0.7, 5, torch.float32),
    ]


def _mistaken_top_p(options):
    order_of, keep, put_back, normalise = options

    def top_p(probabilities, p):
        order = order_of(probabilities)
        ordered = probabilities.gather(-1, order)
        before = ordered.cumsum(-1) - ordered
        return normalise(put_back(ordered * keep(before, ordered, p), order), p)

    return top_p


def _most_probable_first(probabilities):
    return probabilities.argsort(dim=-1, descending=True, stable=True)


def _vocabulary_order(probabilities):
    order = torch.arange(probabilities.shape[-1], device=probabilities.device)
    return order.expand_as(probabilities)


# In which order the probabilities are added up.
ORDERS = {
    "": _most_probable_first,
    "the sum runs in the order of the vocabulary. Sort first, with the most probable token first":
        _vocabulary_order,
    "the least probable tokens stay. Sort with the most probable token first, descending=True":
        lambda probabilities: probabilities.argsort(-1),
    "every row is sorted like the first row. Each row has its own order":
        lambda probabilities: _most_probable_first(probabilities)[:1].expand_as(probabilities),
}


def _one_too_many(before, own, p):
    return F.pad((before < p)[..., :-1], (1, 0), value=True)


def _share_of_the_vocabulary(before, own, p):
    V = own.shape[-1]
    return torch.arange(V, device=own.device) < max(1, int(p * V))


def _share_of_the_vocabulary_with_equals(before, own, p):
    n = max(1, int(p * own.shape[-1]))
    return own >= own[..., [n - 1]]


def _one_number_for_all_rows(choose):
    """Return a `keep` with the same number of tokens in every row, which `choose` finds."""

    def keep(before, own, p):
        number = choose((before < p).sum(-1))
        return (torch.arange(own.shape[-1], device=own.device) < number).expand_as(own)

    return keep


OF_THE_VOCABULARY = "p is used as a share of the vocabulary. It is a share of the probability"
DROPPED = "the token that crosses p is dropped"
KEEP_IT = "Keep it: with this token the sum reaches p"
SUM_FIRST = "Add the probabilities up, most probable token first, and compare the sum with p"
SAME_NUMBER = "every row keeps the same number of tokens. Each row has its own number"

# Which tokens stay. `own` is a token's probability, and `before` the sum of all before it.
KEEPS = {
    "": lambda before, own, p: before < p,
    f"{DROPPED}, so the sum stays below p. {KEEP_IT}": lambda before, own, p: before + own <= p,
    f"{DROPPED}, unless it is the most probable token. {KEEP_IT}":
        lambda before, own, p: (before + own <= p) | (before == 0),
    f"{DROPPED}, even if the sum with this token is exactly p. {KEEP_IT}":
        lambda before, own, p: before + own < p,
    f"{DROPPED}, even if the sum with this token is exactly p, unless it is the most probable "
    f"token. {KEEP_IT}":
        lambda before, own, p: (before + own < p) | (before == 0),
    "if the sum is exactly p already, one more token stays. Stop as soon as the sum reaches p "
    "(before < p, not <=)":
        lambda before, own, p: before <= p,
    f"each token alone is compared with p. {SUM_FIRST}": lambda before, own, p: own >= p,
    f"each token alone is compared with 1 − p. {SUM_FIRST}": lambda before, own, p: own >= 1 - p,
    "all tokens are kept. Keep only the most probable tokens, as few as reach p together":
        lambda before, own, p: before < 2,
    "only the most probable token alone is kept. Keep all tokens up to the token that crosses p":
        lambda before, own, p: before == 0,
    "the wrong part is kept: the tokens after the one that crosses p. Keep the tokens up to it":
        lambda before, own, p: before >= p,
    "one token too many is kept. The token that crosses p is the last": _one_too_many,
    f"each token is compared with p times the largest probability (min-p). {SUM_FIRST}":
        lambda before, own, p: own >= p * own.amax(-1, keepdim=True),
    OF_THE_VOCABULARY: _share_of_the_vocabulary,
    "the marks of the tokens are moved by `roll`, so the last token's mark comes to the first. The "
    "most probable token always stays":
        lambda before, own, p: (before + own <= p).roll(1, -1),
    "tokens with more than an average probability, 1 / V, stay. Add the probabilities up, and "
    "compare the sum with p":
        lambda before, own, p: own > 1 / own.shape[-1],
    "the sum stops at 1 − p. It should reach p": lambda before, own, p: before < 1 - p,
}

SCATTER = "Put each probability back into its token's place (scatter)"

# How the sorted probabilities go back to their places.
PLACES = {
    "": lambda kept, order: torch.zeros_like(kept).scatter(-1, order, kept),
    f"the result is still sorted. {SCATTER}": lambda kept, order: kept,
    "the probabilities are in wrong places. To undo the sorting, use scatter(-1, order, …), or "
    "gather with order.argsort(-1)":
        lambda kept, order: kept.gather(-1, order),
}

DIVIDE = "Divide the probabilities that stay by their sum"

# How the probabilities that stay become a distribution.
NORMALISATIONS = {
    "": lambda kept, p: kept / kept.sum(-1, keepdim=True),
    f"the result does not sum to 1. {DIVIDE}": lambda kept, p: kept,
    f"the result is divided by p. The sum of what stays is a little more than p. {DIVIDE}":
        lambda kept, p: kept / p,
    f"a softmax of probabilities makes them more equal. {DIVIDE}":
        lambda kept, p: kept.masked_fill(kept == 0, -math.inf).softmax(-1),
    "a softmax of probabilities makes them more equal, and gives dropped tokens a probability. "
    f"{DIVIDE}":
        lambda kept, p: kept.softmax(-1),
    "the result is divided by the sum of the whole batch. Divide each row by its own sum":
        lambda kept, p: kept / kept.sum(),
    "each column sums to 1. Divide each row by its own sum":
        lambda kept, p: kept / kept.sum(0, keepdim=True),
    f"all tokens that stay have the same probability. {DIVIDE}":
        lambda kept, p: (kept > 0) / (kept > 0).sum(-1, keepdim=True),
    f"the result is divided by its largest number. {DIVIDE}":
        lambda kept, p: kept / kept.amax(-1, keepdim=True),
    "the result contains logarithms. Return probabilities":
        lambda kept, p: (kept / kept.sum(-1, keepdim=True)).log(),
    "dropped tokens are −inf, as in logits. The probability of a dropped token is 0":
        lambda kept, p: kept.masked_fill(kept == 0, -math.inf),
    f"the result tells which tokens stay. Return their probabilities. {DIVIDE}":
        lambda kept, p: kept > 0,
}


def _mask_in_sorted_order(probabilities, p):
    ordered = probabilities.sort(-1, descending=True).values
    kept = probabilities * (ordered.cumsum(-1) - ordered < p)
    return kept / kept.sum(-1, keepdim=True)


MASK_IN_SORTED_ORDER = (
    "the mask is found in sorted order, but applied in the vocabulary's order. Put the mask back "
    "into the vocabulary's order first (scatter)"
)


def _summed_over_the_batch(probabilities, p):
    ordered, order = probabilities.sort(-1, descending=True)
    kept = ordered * (ordered.cumsum(0) - ordered < p)
    result = torch.zeros_like(kept).scatter(-1, order, kept)
    return result / result.sum(-1, keepdim=True)


def _top_p_mistakes():
    yield (
        "the sum runs along the wrong axis, the batch. Add up each row, dim=-1",
        _summed_over_the_batch,
    )
    yield from combined(_mistaken_top_p, ORDERS, KEEPS, PLACES, NORMALISATIONS)
    yield MASK_IN_SORTED_ORDER, _mask_in_sorted_order
    keep = _share_of_the_vocabulary_with_equals
    yield OF_THE_VOCABULARY, _mistaken_top_p([ORDERS[""], keep, PLACES[""], NORMALISATIONS[""]])
    for choose in (torch.max, torch.min, lambda numbers: numbers[0], lambda numbers: numbers[-1]):
        options = [ORDERS[""], _one_number_for_all_rows(choose), PLACES[""], NORMALISATIONS[""]]
        yield SAME_NUMBER, _mistaken_top_p(options)


def _top_p_properties(reader: Reader):
    cases = _top_p_cases()
    trials = compare(reader, _right_top_p, cases, _top_p_mistakes())
    for trial in trials:
        finite(
            trial,
            "is no token kept, and 0 divided by 0? The most probable token always stays.",
        )
        sums = trial.got.sum(-1)
        if not close(sums, torch.ones_like(sums), 1e-5):
            row = (sums - 1).abs().argmax()
            if sums[row] == 0:
                raise Wrong(f"row {row} keeps no token. The most probable token always stays")
            raise Wrong(f"row {row} sums to {sums[row]:.4g}, not to 1. {DIVIDE}")
        _keeps_the_right_tokens(trial)
    agree(trials)
    keeps_device(reader, cases)


def _keeps_the_right_tokens(trial):
    wrong_rows = ((trial.got > 0) != (trial.expected > 0)).any(-1)
    if not wrong_rows.any():
        return
    row = wrong_rows.int().argmax()
    got, expected = (
        (tensor[row] > 0).nonzero()[:, 0].tolist() for tensor in (trial.got, trial.expected)
    )
    probabilities, p = trial.given["probabilities"], trial.given["p"]
    n_rows = len(probabilities)
    where = f" in row {row} of a batch of {n_rows} rows" if n_rows > 1 else ""
    raise Wrong(
        f"the wrong tokens are kept{where}. Of the probabilities {shown(probabilities[row])} with "
        f"p = {p} it keeps tokens {got}, but it should keep tokens {expected}"
    )


# learning_rate ------------------------------------------------------------------------------------


def check_learning_rate(learning_rate) -> Result:
    """Check `learning_rate(step, max_steps, peak, warmup)`.

    Let n = step + 1. The rate is peak · n / warmup while n <= warmup. Then it is
    peak · (1 + cos(π (n − warmup) / (max_steps − warmup))) / 2.
    """
    return check(
        "learning_rate",
        learning_rate,
        _rate_properties,
        "the rate grows in a straight line to the peak, and then falls along half a cosine wave to "
        "0 at the last step",
    )


def _right_rate(step, max_steps, peak, warmup):
    n = step + 1
    if n <= warmup:
        return torch.tensor(peak * n / warmup)
    share = (n - warmup) / (max_steps - warmup)
    return torch.tensor(peak * (1 + math.cos(math.pi * share)) / 2)


def _number(answer):
    """Return the answer as a tensor. Raise `Wrong` if it is not one number."""
    if isinstance(answer, torch.Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise Wrong(
            f"the function returns a {type(answer).__name__}, but it should return a number"
        )
    return torch.tensor(float(answer))


def _mistaken_rate(options):
    count, rise, share, fall, scale = options

    def rate(step, max_steps, peak, warmup):
        n = count(step)
        if n <= warmup and warmup:
            value = rise(n, warmup)
        else:
            value = fall(share(n, max_steps, warmup))
        return torch.tensor(float(scale(peak, value)))

    return rate


FROM_0 = (
    "the steps are counted from 0. With n = step + 1 the first rate is peak / warmup, not 0, and "
    "the last rate is 0"
)

# How steps are counted.
COUNTS = {
    "": lambda step: step + 1,
    FROM_0: lambda step: step,
    "the count is one step too large. It should be n = step + 1": lambda step: step + 2,
}

STRAIGHT_LINE = "It should be a straight line, peak · n / warmup"

# The warm-up, as a share of the peak.
RISES = {
    "": lambda n, warmup: n / warmup,
    "the warm-up is left out. At first the rate should grow in a straight line, peak · n / warmup":
        lambda n, warmup: 1.0,
    "the rate falls during the warm-up. It should grow from peak / warmup to peak":
        lambda n, warmup: 1 - n / warmup,
    f"the warm-up is curved. {STRAIGHT_LINE}":
        lambda n, warmup: (1 - math.cos(math.pi * n / warmup)) / 2,
    f"the warm-up is curved, because n / warmup is squared. {STRAIGHT_LINE}":
        lambda n, warmup: (n / warmup) ** 2,
    "the warm-up is divided by warmup + 1. If n = warmup, the rate should be the peak":
        lambda n, warmup: n / (warmup + 1),
    "the rate stays 0 until the end of the warm-up. Is there a // that cuts the decimals off? "
    f"{STRAIGHT_LINE}":
        lambda n, warmup: n // warmup,
}

# What share of the cosine is over.
SHARES = {
    "": lambda n, max_steps, warmup: (n - warmup) / (max_steps - warmup),
    "the rate jumps at the end of the warm-up. The cosine begins there, so divide n − warmup by "
    "max_steps − warmup":
        lambda n, max_steps, warmup: n / max_steps,
    "the cosine begins after the warm-up, but it is spread over max_steps. It has "
    "max_steps − warmup steps, and ends at 0":
        lambda n, max_steps, warmup: (n - warmup) / max_steps,
    "the cosine counts its steps from the beginning. Divide n − warmup by max_steps − warmup":
        lambda n, max_steps, warmup: n / (max_steps - warmup),
}

# The rate after the warm-up, as a share of the peak.
FALLS = {
    "": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "the cosine falls from 1 to −1, and so the rate falls to −peak. (1 + cos) / 2 falls from 1 to "
    "0":
        lambda share: math.cos(math.pi * share),
    "the half is missing, so the rate jumps to twice the peak. Use (1 + cos) / 2":
        lambda share: 1 + math.cos(math.pi * share),
    "the rate falls in a straight line. Use a cosine": lambda share: 1 - share,
    "the rate stays constant after the warm-up. It should fall to 0 along a cosine":
        lambda share: 1.0,
    "π is missing. The cosine goes from angle 0 to angle π":
        lambda share: (1 + math.cos(share)) / 2,
    "π is doubled. The cosine goes from angle 0 to angle π, half a wave":
        lambda share: (1 + math.cos(2 * math.pi * share)) / 2,
    "the angle is in degrees. math.cos takes radians, so use π instead of 180":
        lambda share: (1 + math.cos(180 * share)) / 2,
    "the rate is a quarter of a wave, cos(π/2 · share). Use (1 + cos(π · share)) / 2, which also "
    "ends flat":
        lambda share: math.cos(math.pi * share / 2),
    "the cosine is upside down. (1 + cos) / 2 falls, but (1 − cos) / 2 grows":
        lambda share: (1 - math.cos(math.pi * share)) / 2,
    "the rate is a sine. Use a cosine, which begins at its peak":
        lambda share: (1 + math.sin(math.pi * share)) / 2,
    "a tenth of the peak is left at the end. The rate should be 0 at the last step":
        lambda share: 0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2,
    "the rate never falls below a tenth of the peak. It should fall to 0":
        lambda share: max(0.1, (1 + math.cos(math.pi * share)) / 2),
    "the rate falls along a parabola, (1 − share)². Use a cosine": lambda share: (1 - share) ** 2,
    "the rate decays exponentially. Use a cosine": lambda share: math.exp(-share),
}

# The factor of both.
RATE_SCALES = {
    "": lambda peak, value: peak * value,
    "the result is a share between 0 and 1. It still has to be multiplied by peak":
        lambda peak, value: value,
}


def _no_warmup(step, max_steps, peak, warmup):
    return _right_rate(step, max_steps, peak, 0)


def _smaller_of_both(step, max_steps, peak, warmup):
    rise = torch.tensor(peak * (step + 1) / max(1, warmup))
    return min(rise, _right_rate(step, max_steps, peak, 0))


def _two_ways_to_count(step, max_steps, peak, warmup):
    if step == warmup:
        return torch.tensor(peak)
    in_warmup = step + 1 <= warmup
    return _right_rate(step if in_warmup else step - 1, max_steps, peak, warmup)


def _from_0_to_the_peak(step, max_steps, peak, warmup):
    if step + 1 <= warmup:
        return torch.tensor(peak * step / max(1, warmup - 1))
    return _right_rate(step, max_steps, peak, warmup)


def _peak_twice(step, max_steps, peak, warmup):
    if step + 1 <= warmup:
        return _right_rate(step, max_steps, peak, warmup)
    share = (step - warmup) / max(1, max_steps - warmup - 1)
    return torch.tensor(peak * (1 + math.cos(math.pi * share)) / 2)


def _cosine_first(step, max_steps, peak, warmup):
    """Let the cosine rise during the warm-up, and fall in a straight line after it."""
    n = step + 1
    if n <= warmup:
        return torch.tensor(peak * (1 - math.cos(math.pi * n / warmup)) / 2)
    return torch.tensor(peak * (max_steps - n) / (max_steps - warmup))


def _product_of_both(step, max_steps, peak, warmup):
    return min(1, (step + 1) / max(1, warmup)) * _right_rate(step, max_steps, peak, 0)


def _warmup_of_one_step(step, max_steps, peak, warmup):
    return _right_rate(step, max_steps, peak, max(warmup, 1))


def _from_0_if_there_is_a_warmup(step, max_steps, peak, warmup):
    return _right_rate(step - 1 if warmup else step, max_steps, peak, warmup)


RATE_MISTAKES = [
    (FROM_0, _from_0_if_there_is_a_warmup),
    ("the warm-up is left out: the rate is a cosine over all steps. At first it should grow in a "
     "straight line, peak · n / warmup",
     _no_warmup),
    ("the rate is the smaller of warm-up and cosine. The cosine should begin where the warm-up "
     "ends, and n <= warmup should decide",
     _smaller_of_both),
    ("the warm-up counts n = step + 1, but the cosine counts step. Both should count n",
     _two_ways_to_count),
    ("the warm-up begins at 0 and is divided by warmup − 1. The first rate is peak / warmup",
     _from_0_to_the_peak),
    ("the rate is the peak twice, because the cosine counts step and is divided by one step less. "
     "With n = step + 1 divide n − warmup by max_steps − warmup",
     _peak_twice),
    ("the curves are swapped. The warm-up is a straight line, and the cosine comes after it",
     _cosine_first),
    ("the warm-up multiplies the cosine. It should come before the cosine: use one of them, and "
     "let n <= warmup decide",
     _product_of_both),
    ("with warmup = 0 there is still one step of warm-up. max(warmup, 1) adds it. The cosine "
     "should begin at the first step",
     _warmup_of_one_step),
]


def _rate_properties(reader: Reader):
    cases = []
    for max_steps, peak, warmup in ((4, 1.0, 2), (12, 3.0, 5), (9, 2.0, 1), (7, 0.5, 0)):
        for step in range(max_steps):
            case = {"step": step, "max_steps": max_steps, "peak": peak, "warmup": warmup}
            cases.append(case)
    mistakes = combined(_mistaken_rate, COUNTS, RISES, SHARES, FALLS, RATE_SCALES)
    trials = compare(reader, _right_rate, cases, [*RATE_MISTAKES, *mistakes], _number)
    for trial in trials:
        finite(trial, "is something divided by 0?")
        step, max_steps, peak, warmup = trial.given.values()
        if not trial.passed and step + 1 in (warmup, max_steps):
            raise Wrong(
                f"the rate should be {'the peak' if step + 1 == warmup else '0'} at step {step} of "
                f"max_steps = {max_steps} with peak = {peak}, warmup = {warmup}, but it is "
                f"{trial.got.item():.4g}"
            )
    agree(trials)


# generate_greedy ----------------------------------------------------------------------------------


def check_generate_greedy(generate_greedy) -> Result:
    """Check `generate_greedy(model, ids, max_new_tokens, block_size)`.

    It turns tokens (B, T) into tokens (B, T + max_new_tokens). Each new token is the most probable
    one after the last block_size tokens before it.
    """
    return check(
        "generate_greedy",
        generate_greedy,
        _greedy_properties,
        "each new token is the most probable one after the last block_size tokens, and the next "
        "prediction reads it",
    )


class ToyModel:
    """Return logits (B, T, V) that depend on the position and on all tokens up to it.

    `ToyModel(13, 4, 1)` always has the same weights, so students can run the model of a message
    themselves.
    """

    def __init__(self, V, block_size, seed):
        self.arguments = V, block_size, seed
        self.block_size = block_size
        self.table = randn(V, V, seed=seed)
        self.mixing = randn(64, 64, seed=seed + 1).tril()

    def __call__(self, idx):
        if not isinstance(idx, torch.Tensor) or idx.ndim != 2 or not 1 <= idx.shape[1] <= 64:
            is_tensor = isinstance(idx, torch.Tensor)
            got = f"shape {tuple(idx.shape)}" if is_tensor else type(idx).__name__
            raise Wrong(
                f"the model was given {got}, but it reads tokens of shape (B, T) with T at least 1"
            )
        T = idx.shape[1]
        if T > self.block_size:
            raise Wrong(
                f"the model was given {T} tokens, more than block_size = {self.block_size}. Before "
                "each call, crop to the last block_size tokens, ids[:, -block_size:]"
            )
        return torch.einsum("ts,bsv->btv", self.mixing[:T, :T], self.table[idx])

    def __repr__(self):
        return f"{type(self).__name__}{self.arguments} of {type(self).__module__}"


def _last_window(ids, block_size):
    return ids[:, -block_size:]


def _best_token(logits):
    return logits[:, -1].argmax(-1)


def _right_greedy(model, ids, max_new_tokens, block_size, window=_last_window, token=_best_token):
    for _ in range(max_new_tokens):
        new = token(model(window(ids, block_size)))
        ids = torch.cat([ids, new[:, None]], dim=1)
    return ids


def _greedy_cases():
    def case(B, T, max_new_tokens, block_size, seed, V=13):
        return {
            "model": ToyModel(V, block_size, seed),
            "ids": randint(V, B, T, seed=seed),
            "max_new_tokens": max_new_tokens,
            "block_size": block_size,
        }

    return [
        case(1, 1, 1, 4, 1),
        case(1, 2, 2, 4, 2),
        case(2, 1, 0, 3, 3),
        case(1, 3, 3, 3, 4),
        case(3, 5, 9, 4, 5),
        case(2, 7, 6, 5, 6),
        case(1, 2, 12, 4, 8, V=2),
        case(4, 2, 12, 8, 7),
    ]


def _with_window(window):
    """Return the right function, except that the model reads `window(ids, block_size)`."""
    return lambda model, ids, max_new_tokens, block_size: _right_greedy(
        model, ids, max_new_tokens, block_size, window=window
    )


def _with_token(token):
    """Return the right function, except that `token(logits)` is the new token."""
    return lambda model, ids, max_new_tokens, block_size: _right_greedy(
        model, ids, max_new_tokens, block_size, token=token
    )


def _with_number(number):
    """Return the right function, except that it adds `number(max_new_tokens, T, block_size)`."""

    def generate(model, ids, max_new_tokens, block_size):
        n = number(max_new_tokens, ids.shape[1], block_size)
        return _right_greedy(model, ids, max(0, n), block_size)

    return generate


def _part_of_the_result(cut):
    """Return a function that returns only `cut(result, T, block_size)`."""

    def generate(model, ids, max_new_tokens, block_size):
        result = _right_greedy(model, ids, max_new_tokens, block_size)
        return cut(result, ids.shape[1], block_size)

    return generate


def _beginning_lost(model, ids, max_new_tokens, block_size):
    result = _right_greedy(model, ids, max_new_tokens, block_size)
    return result[:, -block_size - 1 :] if max_new_tokens else ids


def _one_token_repeated(model, ids, max_new_tokens, block_size):
    new = _right_greedy(model, ids, 1, block_size)[:, -1:]
    return torch.cat([ids] + [new] * max_new_tokens, dim=1)


def _newest_token_alone(model, ids, max_new_tokens, block_size):
    """Read the prompt first, and then only the newest token."""
    window = _last_window(ids, block_size)
    for _ in range(max_new_tokens):
        new = _best_token(model(window))[:, None]
        ids = torch.cat([ids, new], dim=1)
        window = new
    return ids


def _all_positions(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:]).argmax(-1)], dim=1)
    return ids


def _in_front(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        new = model(ids[:, -block_size:])[:, -1].argmax(-1)
        ids = torch.cat([new[:, None], ids], dim=1)
    return ids


LAST_POSITION = "The next token follows the last position, logits[:, -1]"
CROP_A_COPY = "Crop only what the model reads, and keep `ids` whole"

GREEDY_MISTAKES = [
    ("the model reads the first block_size tokens, so it soon reads the same tokens in every call. "
     "Give it the last block_size tokens, ids[:, -block_size:]",
     _with_window(lambda ids, block_size: ids[:, :block_size])),
    (f"the logits of the first position are used. {LAST_POSITION}",
     _with_token(lambda logits: logits[:, 0].argmax(-1))),
    (f"the logits of the position before the last are used. {LAST_POSITION}",
     _with_token(lambda logits: logits[:, max(-2, -logits.shape[1])].argmax(-1))),
    (f"the mean of the logits of all positions is used. {LAST_POSITION}",
     _with_token(lambda logits: logits.mean(1).argmax(-1))),
    ("the second most probable token is taken. Take the most probable one",
     _with_token(lambda logits: logits[:, -1].topk(2).indices[:, 1])),
    ("each row continues with the last row's token. Take the argmax of each row over the "
     "vocabulary, dim=-1",
     _with_token(lambda logits: logits[-1:, -1].argmax(-1).expand(len(logits)))),
    ("the logits of all rows are added up, so all rows get the same token. Take the argmax of each "
     "row",
     _with_token(lambda logits: logits[:, -1].sum(0).argmax(-1).expand(len(logits)))),
    ("the logit with the largest absolute value is taken. Take the largest logit",
     _with_token(lambda logits: logits[:, -1].abs().argmax(-1))),
    ("the largest logit of all positions decides. Only the last position predicts the next token",
     _with_token(lambda logits: logits.amax(1).argmax(-1))),
    ("the window starts anew whenever it is full, so the model forgets all at once. Give it the "
     "last block_size tokens in every call",
     _with_window(lambda ids, block_size: ids[:, (ids.shape[1] - 1) // block_size * block_size :])),
    ("the model reads the window in the reverse order. Keep the order of the text",
     _with_window(lambda ids, block_size: ids[:, -block_size:].flip(1))),
    ("the model reads the first token and the newest ones. Give it the last block_size tokens",
     _with_window(lambda ids, block_size: ids if ids.shape[1] <= block_size
                  else torch.cat([ids[:, :1], ids[:, 1:][:, -block_size + 1 :]], dim=1))),
    ("the result is the last token alone. Return the prompt and all new tokens",
     _part_of_the_result(lambda result, T, block_size: result[:, -1:])),
    ("the least probable token is taken. Use argmax, not argmin",
     _with_token(lambda logits: logits[:, -1].argmin(-1))),
    ("every row continues with the first row's token. Take the argmax of each row over the "
     "vocabulary, dim=-1",
     _with_token(lambda logits: logits[:1, -1].argmax(-1).expand(len(logits)))),
    ("the model reads the last token alone, like a bigram. Give it the last block_size tokens",
     _with_window(lambda ids, block_size: ids[:, -1:])),
    ("the model reads the newest token alone after the first call. Give it the last block_size "
     "tokens in every call",
     _newest_token_alone),
    ("the window is one token too short, block_size − 1. The model can read block_size tokens",
     _with_window(lambda ids, block_size: ids[:, -max(block_size - 1, 1) :])),
    ("the result is the new tokens alone. Return the prompt and the new tokens",
     _part_of_the_result(lambda result, T, block_size: result[:, T:])),
    (f"the beginning of the text is lost. {CROP_A_COPY}", _beginning_lost),
    (f"the beginning of the text is lost. {CROP_A_COPY}",
     _part_of_the_result(lambda result, T, block_size: result[:, -block_size:])),
    ("all new tokens are the same one. Append each new token before you predict the next, so that "
     "the model reads it",
     _one_token_repeated),
    ("there is one token too few. Add max_new_tokens tokens",
     _with_number(lambda max_new_tokens, T, block_size: max_new_tokens - 1)),
    ("there is one token too many. Add max_new_tokens tokens",
     _with_number(lambda max_new_tokens, T, block_size: max_new_tokens + 1)),
    ("the prompt is counted in max_new_tokens. Add max_new_tokens tokens to the prompt",
     _with_number(lambda max_new_tokens, T, block_size: max_new_tokens - T)),
    ("the function stops at block_size tokens. Go on, and let the model read the last block_size "
     "tokens",
     _with_number(
         lambda max_new_tokens, T, block_size: min(max_new_tokens, max(0, block_size - T)))),
    ("a token is added for every position of the window. Only the logits of the last position, "
     "[:, -1], predict the next token",
     _all_positions),
    ("the argmax is taken over the positions. Take it over the vocabulary, dim=-1",
     _with_token(lambda logits: logits.argmax(1)[:, -1])),
    ("each new token removes the first token. Keep `ids` whole, and add at the end",
     _part_of_the_result(lambda result, T, block_size: result[:, -T:])),
    ("the function stops when there are block_size tokens. Add max_new_tokens tokens",
     _with_number(lambda max_new_tokens, T, block_size: block_size - T)),
    ("each new token is added at the beginning. Add it at the end", _in_front),
    ("the result is the prompt, with nothing added",
     lambda model, ids, max_new_tokens, block_size: ids),
]


def _greedy_properties(reader: Reader):
    trials = compare(reader, _right_greedy, _greedy_cases(), GREEDY_MISTAKES)
    for trial in trials:
        prompt = trial.given["ids"]
        if not close(trial.got[:, : prompt.shape[1]], prompt):
            raise Wrong(
                "the result does not begin with the prompt. Add new tokens at its end, along dim=1"
            )
    agree(trials)
