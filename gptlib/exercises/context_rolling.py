"""Chapter 7's exercises: what a window hands on, how a text is read in windows, and what a memory can save."""

import math

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import Wrong, agree, combined, compare, finite, keeps_device, randint, randn, same_gradients

# next_context -------------------------------------------------------------------------------------------------------

def check_next_context(next_context) -> Result:
    """`next_context(hidden)`: (B, 1 + T, C), the context's own place first -> (B, 1, C), the mean over the T tokens."""
    return check("next_context", next_context, _next_context, "the mean of the tokens' states, with its gradient, and nothing else")


def _right_context(hidden):
    return torch.stack([sum(row[1:]) / (len(row) - 1) for row in hidden])[:, None]


def _next_context(reader: Reader):
    cases = [{"hidden": torch.tensor([[[9.0, 5.0], [1.0, 2.0]]])}, {"hidden": torch.tensor([[[9.0], [1.0], [4.0]]])},
             {"hidden": torch.tensor([[[9.0, 5.0], [1.0, 2.0], [3.0, 8.0]]])}]
    cases += [{"hidden": randn(B, 1 + T, C, seed=i)} for i, (B, T, C) in enumerate(((2, 3, 4), (3, 6, 2), (1, 8, 5), (4, 5, 3)))]
    cases += [{"hidden": randn(3, 6, 4, seed=9, dtype=torch.float32)}]
    mistakes = [
        ("the context's own place is in the mean: leave place 0 out, hidden[:, 1:]", lambda hidden: hidden.mean(1, keepdim=True)),
        ("the context's own place is left out of the sum, but counted: divide by the number of tokens, T",
         lambda hidden: hidden[:, 1:].sum(1, keepdim=True) / hidden.shape[1]),
        ("it is a sum: divide by the number of tokens", lambda hidden: hidden[:, 1:].sum(1, keepdim=True)),
        ("it is a sum, the context's own place included: take the mean of the tokens", lambda hidden: hidden.sum(1, keepdim=True)),
        ("this is the last token's state: the exercise wants the mean of all", lambda hidden: hidden[:, -1:]),
        ("this is the state at the context's own place, which has seen no token of this window: average the tokens",
         lambda hidden: hidden[:, :1]),
        ("this is the first token's state alone", lambda hidden: hidden[:, 1:2]),
        ("the last token is left out: hidden[:, 1:] has them all", lambda hidden: hidden[:, 1:-1].mean(1, keepdim=True)),
        ("the last token is left out, and the context's own place is in", lambda hidden: hidden[:, :-1].mean(1, keepdim=True)),
        ("it is the largest of each channel: take the mean", lambda hidden: hidden[:, 1:].amax(1, keepdim=True)),
        ("it is the median of each channel: take the mean", lambda hidden: hidden[:, 1:].median(1, keepdim=True).values),
        ("the mean runs over the texts of the batch: each text has a context of its own",
         lambda hidden: hidden[:, 1:].mean((0, 1), keepdim=True).expand(len(hidden), 1, -1)),
        ("the mean runs over the channels: average over the tokens, dim 1",
         lambda hidden: hidden[:, 1:].mean(2, keepdim=True).transpose(1, 2)),
        ("it has no place axis: a context is read like a token, so its shape is (B, 1, C); keepdim=True keeps the axis",
         lambda hidden: hidden[:, 1:].mean(1)),
        ("the axes are in another order: (B, 1, C)", lambda hidden: hidden[:, 1:].mean(1)[None]),
        ("it is made to have length 1: give the mean as it is",
         lambda hidden: torch.nn.functional.normalize(hidden[:, 1:].mean(1, keepdim=True), dim=-1)),
    ]
    trials = compare(reader, _right_context, cases, mistakes)
    for trial in trials:
        finite(trial, "is something divided by 0?")
    agree(trials)
    same_gradients(reader, _right_context, cases[3], ("hidden",), "every token's state has the same share in it")
    keeps_device(reader, cases)


# read_in_windows ----------------------------------------------------------------------------------------------------

def check_read_in_windows(read_in_windows) -> Result:
    """`read_in_windows(read, ids, W, context)`: tokens (B, T) -> states (B, T, C). `read(window, context)` gives the states of a
    window of at most W tokens, and the context for the next one."""
    return check("read_in_windows", read_in_windows, _read_in_windows,
                 "windows from the beginning, a part of one at the end, each after the context of the one before")


class ToyReader:
    """States (B, T, C) that depend on all tokens up to their own and on the context; and the next context, (B, 1, C)."""

    def __init__(self, W, seed, C=3):
        self.W, self.C = W, C
        self.table, self.mixing, self.turn = randn(40, C, seed=seed), randn(64, 64, seed=seed + 1).tril(), randn(C, C, seed=seed + 2)

    def __call__(self, window, context):
        for name, value, axes in (("window", window, 2), ("context", context, 3)):
            if not isinstance(value, torch.Tensor) or value.ndim != axes:
                given = f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"that is a {type(value).__name__}"
                raise Wrong(f"`read` was given a {name} {given}: it takes tokens (B, T) first, then a context (B, 1, C)")
        if context.shape[1] != 1:
            raise Wrong(f"`read` was given a context of shape {tuple(context.shape)}: it gives back states first, then the next context, "
                        "(B, 1, C)")
        T = window.shape[1]
        if T > self.W:
            raise Wrong(f"`read` was given {T} tokens at once, and a window has W = {self.W}: cut the text with ids.split(W, dim=1)")
        if T == 0:
            raise Wrong("`read` was given a window without tokens: is there one too many at the end?")
        states = torch.einsum("ts,bsc->btc", self.mixing[:T, :T], self.table[window]) + torch.sin(context @ self.turn)
        return states, states.mean(1, keepdim=True)

    def __repr__(self):
        return "a small random reader"


def _right_reading(read, ids, W, context):
    states = []
    for begin in range(0, ids.shape[1], W):
        h, context = read(ids[:, begin:begin + W], context)
        states.append(h)
    return torch.cat(states, dim=1)


def _read_in_windows(reader: Reader):
    def case(B, T, W, seed):
        return {"read": ToyReader(W, seed), "ids": randint(40, B, T, seed=seed), "W": W, "context": randn(B, 1, 3, seed=seed + 3)}
    cases = [case(*shape, seed) for seed, shape in enumerate(((1, 1, 2), (1, 2, 2), (1, 3, 2), (1, 4, 2), (2, 5, 2), (2, 7, 3), (1, 9, 3),
                                                              (3, 11, 4), (2, 8, 4), (2, 13, 4), (2, 6, 1)))]

    def walk(borders, keep=lambda old, new: new, first=lambda context: context):
        def reading(read, ids, W, context):
            context, states = first(context), []
            for begin, end in borders(ids.shape[1], W):
                h, new = read(ids[:, begin:end], context)
                context = keep(context, new)
                states.append(h)
            return torch.cat(states, dim=1)
        return reading

    windows = lambda T, W: [(k, min(k + W, T)) for k in range(0, T, W)]
    remainder_first = lambda T, W: [(max(0, k), k + W) for k in range(-(-T % W), T, W)]
    mistakes = [
        ("every window is read after the first context: hand each the context that the window before gave back",
         walk(windows, keep=lambda old, new: old)),
        ("the contexts are added up: the new one takes the place of the old one", walk(windows, keep=lambda old, new: old + new)),
        ("contexts are averaged with the old ones: the new one takes the place of the old one",
         walk(windows, keep=lambda old, new: (old + new) / 2)),
        ("every window is read after a context of zeros: hand on what the window before gave back",
         walk(windows, keep=lambda old, new: torch.zeros_like(new))),
        ("the first window is read after zeros: it gets the context given", walk(windows, first=torch.zeros_like)),
        ("the part of a window comes first, so that all borders move with every new token: cut from the beginning",
         walk(remainder_first)),
        ("the part of a window at the end is left out: its tokens need states too",
         lambda read, ids, W, context: _right_reading(read, ids[:, :ids.shape[1] // W * W], W, context)),
        ("only the last window's states come back: all T are wanted, torch.cat(states, dim=1)",
         lambda read, ids, W, context: _right_reading(read, ids, W, context)[:, (ids.shape[1] - 1) // W * W:]),
        ("only the first window is read", lambda read, ids, W, context: read(ids[:, :W], context)[0]),
        ("tokens are read one by one, each as a window of its own: give `read` W of them",
         lambda read, ids, W, context: _right_reading(read, ids, 1, context)),
        ("windows have W − 1 tokens: they have W", lambda read, ids, W, context: _right_reading(read, ids, max(1, W - 1), context)),
        ("the windows are read from the last to the first: a context comes from what stands before",
         lambda read, ids, W, context: _backwards(read, ids, W, context)),
        ("windows are put one below the other: side by side, dim=1",
         lambda read, ids, W, context: _right_reading(read, ids, W, context).unflatten(1, (-1, W)).transpose(0, 1).flatten(0, 1)),
        ("each window begins one token after the one before: they stand side by side, W apart",
         walk(lambda T, W: [(k, k + W) for k in range(max(1, T - W + 1))])),
    ]
    agree(compare(reader, _right_reading, cases, mistakes))
    same_gradients(reader, _right_reading, cases[6], ("context",), "what a window writes must hear from the windows that read it")


def _backwards(read, ids, W, context):
    states = []
    for window in reversed(ids.split(W, dim=1)):
        h, context = read(window, context)
        states.insert(0, h)
    return torch.cat(states, dim=1)


# courier_loss -------------------------------------------------------------------------------------------------------

def check_courier_loss(courier_loss) -> Result:
    """`courier_loss(window, places, values, known)`: the least loss, nats per predicted token, of a courier's window whose answer
    is known to a share `known` of the readers."""
    return check("courier_loss", courier_loss, _courier_loss, "news costs everyone, an answer costs who does not know it")


def _right_courier(window, places, values, known):
    nats = math.log(places) + math.log(values) + (1 - known) * math.log(values)
    return torch.tensor(nats / (window - 1))


def _number(answer):
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return torch.tensor(float(answer))
    if isinstance(answer, torch.Tensor):
        if answer.numel() != 1:
            raise Wrong(f"one number is wanted, and it gives a tensor of shape {tuple(answer.shape)}")
        return answer.float().reshape(())
    raise Wrong(f"a number is wanted, and it gives a {type(answer).__name__}")


def _courier_loss(reader: Reader):
    cases = [dict(zip(("window", "places", "values", "known"), case, strict=True)) for case in (
        (8, 4, 8, 1.0), (8, 4, 8, 0.0), (8, 4, 8, 2 / 3), (5, 1, 8, 1.0), (5, 1, 8, 0.0), (12, 7, 3, 0.25), (6, 2, 16, 0.5),
        (9, 5, 2, 1.0))]
    build = lambda options: lambda window, places, values, known: torch.tensor(
        float(options[3](options[0](places) + options[1](values) + options[2](values, known), window)))
    log = math.log
    mistakes = [*combined(build, {
        "": lambda places: log(places),
        "the place of the fact is forgotten: where it stands is news too, ln places": lambda places: 0,
        "the place is counted in bits: use ln for all of it": lambda places: math.log2(places),
    }, {
        "": lambda values: log(values),
        "the fact itself is forgotten: nobody can know what a new fact will be, so it costs ln values": lambda values: 0,
    }, {
        "": lambda values, known: (1 - known) * log(values),
        "the answer is forgotten: it costs ln values to those who do not know it": lambda values, known: 0,
        "`known` is a share between 0 and 1, not yes or no": lambda values, known: 0 if known else log(values),
        "the answer costs everyone: those who know it pay nothing": lambda values, known: log(values),
        "it is turned round: `known` is the share that pays nothing": lambda values, known: known * log(values),
        "a share `known` of the readers knows the answer for certain: the others pay ln values each, "
        "rather than all of them −ln of a mixture": lambda values, known: -log(known + (1 - known) / values),
    }, {
        "": lambda nats, window: nats / (window - 1),
        "it is divided by window: the question is given, so window − 1 tokens are predicted": lambda nats, window: nats / window,
        "it is divided by window − 2: the answer counts as predicted, known or not": lambda nats, window: nats / (window - 2),
        "it is the loss of a whole window: divide by the tokens that are predicted": lambda nats, window: nats,
        "it is in bits: a loss in nats takes math.log": lambda nats, window: nats / (window - 1) / log(2),
        "it is in powers of ten: a loss in nats takes math.log": lambda nats, window: nats / (window - 1) / log(10),
        "it is a perplexity: leave out the exp": lambda nats, window: math.exp(nats / (window - 1)),
        "the sign is wrong: a surprise is −ln p, and p = 1 / n": lambda nats, window: -nats / (window - 1),
    }), ("chances were added instead of surprises: the logarithms add up, since the chances multiply",
         lambda window, places, values, known: torch.tensor(float(log(places + values + (1 - known) * values) / (window - 1))))]
    trials = compare(reader, _right_courier, cases, mistakes, _number)
    for trial in trials:
        finite(trial, "is there a logarithm of 0?")
    agree(trials)
