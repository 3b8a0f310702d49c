"""Chapter 7's exercises: the next context, reading in windows, and the least loss on a courier."""

import math

import torch
from torch.nn import functional as F

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    Wrong,
    agree,
    combined,
    compare,
    finite,
    keeps_device,
    randint,
    randn,
    same_gradients,
)

# next_context -------------------------------------------------------------------------------------


def check_next_context(next_context) -> Result:
    """Check `next_context(hidden, n)`.

    `hidden`, (B, n + T, C), has the states at the n contexts' own positions, and then the states of
    T tokens. The tokens are split into n equal parts, in order. The result, (B, n, C), is the mean
    of each part.
    """
    return check("next_context", next_context, _context_properties,
                 "it is the mean of each part of the tokens, with the right gradient")


def _right_context(hidden, n):
    size = (hidden.shape[1] - n) // n
    means = []
    for k in range(n):
        begin = n + k * size
        means.append(sum(hidden[:, begin + i] for i in range(size)) / size)
    return torch.stack(means, dim=1)


def _context_cases():
    def case(B, T, C, n, seed, dtype=torch.float64):
        return {"hidden": randn(B, n + T, C, seed=seed, dtype=dtype), "n": n}

    return [
        {"hidden": torch.tensor([[[9.0], [1.0], [4.0]]]), "n": 1},
        {"hidden": torch.tensor([[[9.0], [7.0], [1.0], [3.0], [2.0], [8.0]]]), "n": 2},
        {"hidden": torch.tensor([[[9.0, 5.0], [1.0, 2.0], [3.0, 8.0]]]), "n": 1},
        case(2, 4, 3, 2, 0),
        case(3, 6, 2, 2, 1),
        case(1, 9, 5, 3, 2),
        case(4, 12, 3, 3, 3),
        case(2, 12, 5, 4, 4),
        case(2, 6, 4, 6, 5),
        case(3, 8, 4, 2, 9, torch.float32),
    ]


def _parts(hidden, n):
    """Return the tokens' states by part, (B, n, T / n, C)."""
    return hidden[:, n:].unflatten(1, (n, -1))


def _means(hidden, n):
    return _parts(hidden, n).mean(2)


def _means_of_chunks(tokens, n, size=None):
    """Return the means of n parts that may have different lengths."""
    parts = tokens.tensor_split(n, dim=1) if size is None else tokens.split(size, dim=1)
    return torch.stack([part.mean(1) for part in parts], dim=1)


def _means_up_to_the_end_of_each_part(hidden, n):
    size = (hidden.shape[1] - n) // n
    ends = [n + (k + 1) * size for k in range(n)]
    return torch.stack([hidden[:, n:end].mean(1) for end in ends], dim=1)


OWN_POSITIONS = ("the contexts' own positions are included. Leave out the first n positions: "
                 "hidden[:, n:]")
ONE_POSITION = ("only one position is left out before the tokens. The first n positions are the "
                "contexts' own: the tokens are hidden[:, n:]")

CONTEXT_MISTAKES = [
    (OWN_POSITIONS, lambda hidden, n: hidden.unflatten(1, (n, -1)).mean(2)),
    (OWN_POSITIONS, lambda hidden, n: _means_of_chunks(hidden, n)),
    (ONE_POSITION, lambda hidden, n: _means_of_chunks(hidden[:, 1:], n)),
    (ONE_POSITION, lambda hidden, n: _means_of_chunks(hidden[:, 1:], n, (hidden.shape[1] - 1) // n)
        [:, :n]),
    ("the last n tokens are left out, and the contexts' own positions are included. The tokens are "
     "hidden[:, n:]",
     lambda hidden, n: hidden[:, :-n].unflatten(1, (n, -1)).mean(2)),
    ("a part takes every n-th token. A part is T / n tokens in a row",
     lambda hidden, n: hidden[:, n:].unflatten(1, (-1, n)).mean(1)),
    ("the result is the mean of all tokens, once. Return the mean of each of the n parts",
     lambda hidden, n: hidden[:, n:].mean(1, keepdim=True)),
    ("the mean of all tokens is repeated n times. Each part has its own mean",
     lambda hidden, n: hidden[:, n:].mean(1, keepdim=True).expand(-1, n, -1)),
    ("a mean runs from the first token to the end of its part. It should begin with its part",
     _means_up_to_the_end_of_each_part),
    ("the parts are in the reverse order. Keep the order of the text",
     lambda hidden, n: _means(hidden, n).flip(1)),
    ("the result has sums. Divide each by the number of tokens of its part, T / n",
     lambda hidden, n: _parts(hidden, n).sum(2)),
    ("the sum of a part is divided by T, the number of all tokens. A part has T / n tokens",
     lambda hidden, n: _parts(hidden, n).sum(2) / (hidden.shape[1] - n)),
    ("the sum of a part is divided by n, the number of parts. A part has T / n tokens",
     lambda hidden, n: _parts(hidden, n).sum(2) / n),
    ("the sum of a part is divided by its number of tokens plus one. A part has T / n tokens",
     lambda hidden, n: _parts(hidden, n).sum(2) / (hidden.shape[1] // n)),
    ("the sum of a part is divided by the number of channels. A part has T / n tokens",
     lambda hidden, n: _parts(hidden, n).sum(2) / hidden.shape[-1]),
    ("the sum of a part is divided by the batch size. A part has T / n tokens",
     lambda hidden, n: _parts(hidden, n).sum(2) / len(hidden)),
    ("the result is the last token's state of each part. Take the mean of the part",
     lambda hidden, n: _parts(hidden, n)[:, :, -1]),
    ("the result is the first token's state of each part. Take the mean of the part",
     lambda hidden, n: _parts(hidden, n)[:, :, 0]),
    ("the result is the states at the contexts' own positions, which have seen no token of this "
     "window. Take the means of the tokens",
     lambda hidden, n: hidden[:, :n]),
    ("the result is the states of the last n tokens. Take the mean of each part",
     lambda hidden, n: hidden[:, -n:]),
    ("the first token of each part is left out. The mean is over the whole part",
     lambda hidden, n: _parts(hidden, n)[:, :, 1:].mean(2)),
    ("the last token of each part is left out. The mean is over the whole part",
     lambda hidden, n: _parts(hidden, n)[:, :, :-1].mean(2)),
    ("the result is the largest value of each channel. Take the mean",
     lambda hidden, n: _parts(hidden, n).amax(2)),
    ("the result is the smallest value of each channel. Take the mean",
     lambda hidden, n: _parts(hidden, n).amin(2)),
    ("the result is the median of each channel. Take the mean",
     lambda hidden, n: _parts(hidden, n).median(2).values),
    ("the mean of a part is averaged with the context's own state. Take the mean of the tokens "
     "alone",
     lambda hidden, n: (hidden[:, :n] + _means(hidden, n)) / 2),
    ("the context's own state is added to the mean. Take the mean of the tokens alone",
     lambda hidden, n: hidden[:, :n] + _means(hidden, n)),
    ("the mean runs over the texts of the batch too. Each text has its own contexts",
     lambda hidden, n: _means(hidden, n).mean(0, keepdim=True).expand(len(hidden), -1, -1)),
    ("the mean runs over the channels. Take the mean over the tokens of a part",
     lambda hidden, n: _parts(hidden, n).mean(3)),
    ("the mean runs over the parts. Take the mean over the tokens of a part",
     lambda hidden, n: _parts(hidden, n).mean(1)),
    ("the axes are in the wrong order. The order is (B, n, C)",
     lambda hidden, n: _means(hidden, n).transpose(1, 2)),
    ("the axes are in the wrong order. The order is (B, n, C)",
     lambda hidden, n: _means(hidden, n).transpose(0, 1)),
    ("an axis of length 1 is left where the tokens of a part were. The shape is (B, n, C)",
     lambda hidden, n: _parts(hidden, n).mean(2, keepdim=True)),
    ("the n contexts stand in one axis with their channels. The shape is (B, n, C)",
     lambda hidden, n: _means(hidden, n).flatten(1)),
    ("the means are divided by their norm, so they have length 1. Return the means as they are",
     lambda hidden, n: F.normalize(_means(hidden, n), dim=-1)),
]


def _context_properties(reader: Reader):
    cases = _context_cases()
    trials = compare(reader, _right_context, cases, CONTEXT_MISTAKES)
    for trial in trials:
        finite(trial, "is something divided by 0?")
    agree(trials)
    same_gradients(reader, _right_context, cases[4], ("hidden",),
                   "every token of a part should have the same share in its mean")
    keeps_device(reader, cases)


# read_in_windows ----------------------------------------------------------------------------------


def check_read_in_windows(read_in_windows) -> Result:
    """Check `read_in_windows(read, ids, W, context, k)`.

    It turns tokens (B, T) into states (B, T, C). `read(window, context)` returns the states of a
    window of at most W tokens, and the context for the next window. All of them may depend on every
    token of the window. After every k-th window the context is detached.
    """
    return check("read_in_windows", read_in_windows, _windows_properties,
                 "each window is read after the context of the window before it, and the gradient "
                 "is cut after every k-th window only")


class ToyReader:
    """Return the states (B, T, C) of a window and the next context (B, 1, C).

    Each state depends on all tokens of the window, so that a token too many changes all of them.
    `ToyReader(2, 4)` always has the same weights, so students can call the reader of a message
    themselves.
    """

    def __init__(self, W, seed, C=3):
        self.arguments = W, seed
        self.W, self.C = W, C
        self.table = randn(40, C, seed=seed)
        self.mixing = randn(64, 64, seed=seed + 1)
        self.turn = randn(C, C, seed=seed + 2)

    def __call__(self, window, context):
        self._check(window, context)
        T = window.shape[1]
        states = torch.einsum("ts,bsc->btc", self.mixing[:T, :T], self.table[window])
        states = states + torch.sin(context @ self.turn)
        # Unlike a mean of the states, so that only the reader knows the next context.
        return states, torch.tanh(states.mean(1, keepdim=True) @ self.turn)

    def _check(self, window, context):
        """Raise `Wrong` if the arguments are not a window and a context."""
        _has_axes("window", window, 2)
        _has_axes("context", context, 3)
        if context.shape[1] != 1:
            raise Wrong(f"`read` was called with a context of shape {tuple(context.shape)}. It "
                        "returns the states first, and then the next context, (B, 1, C)")
        T = window.shape[1]
        if T > self.W:
            raise Wrong(f"`read` was called with {T} tokens at once, but a window has W = {self.W} "
                        "tokens. Split the text with ids.split(W, dim=1)")
        if T == 0:
            raise Wrong("`read` was called with a window without tokens. Is there one window too "
                        "many at the end?")

    def __repr__(self):
        return f"{type(self).__name__}{self.arguments} of {type(self).__module__}"


def _has_axes(name, value, n):
    if isinstance(value, torch.Tensor) and value.ndim == n:
        return
    is_tensor = isinstance(value, torch.Tensor)
    found = f"shape {tuple(value.shape)}" if is_tensor else f"type {type(value).__name__}"
    raise Wrong(f"`read` was called with a {name} of {found}. Its arguments are tokens (B, T) "
                "first, and then a context (B, 1, C)")


def _right_reading(read, ids, W, context, k):
    states = []
    for i, begin in enumerate(range(0, ids.shape[1], W), start=1):
        h, context = read(ids[:, begin:begin + W], context)
        if i % k == 0:
            context = context.detach()
        states.append(h)
    return torch.cat(states, dim=1)


def _windows_cases():
    def case(B, T, W, seed):
        return {"read": ToyReader(W, seed), "ids": randint(40, B, T, seed=seed), "W": W,
                "context": randn(B, 1, 3, seed=seed + 3), "k": 1 + seed % 3}

    return [
        case(1, 1, 2, 0),
        case(1, 2, 2, 1),
        case(1, 3, 2, 2),
        case(1, 4, 2, 3),
        case(2, 5, 2, 4),
        case(2, 7, 3, 5),
        case(1, 9, 3, 6),
        case(3, 11, 4, 7),
        case(2, 8, 4, 8),
        case(2, 13, 4, 9),
        case(2, 6, 1, 10),
    ]


def _windows(T, W):
    """Return the (begin, end) of each window."""
    return [(begin, min(begin + W, T)) for begin in range(0, T, W)]


def _short_window_first(T, W):
    return [(max(0, begin), begin + W) for begin in range(-(-T % W), T, W)]


def _overlapping_windows(T, W):
    return [(begin, begin + W) for begin in range(max(1, T - W + 1))]


def _reading(
    windows,
    update=lambda old, new: new,
    first=lambda context: context,
    from_states=None,
):
    """Return a function that reads in windows.

    Args:
        windows: returns (begin, end) of each window, for T and W.
        update: returns the context for the next window, from the last two contexts.
        first: returns the context for the first window, from the one that is given.
        from_states: returns the next context from a window's states, in the place of `read`.
    """
    def read_in_windows(read, ids, W, context, k):
        context, states = first(context), []
        for begin, end in windows(ids.shape[1], W):
            h, new_context = read(ids[:, begin:end], context)
            context = from_states(h) if from_states else update(context, new_context)
            states.append(h)
        return torch.cat(states, dim=1)

    return read_in_windows


def _contexts_of_windows(read, ids, W, context, k):
    contexts = []
    for window in ids.split(W, dim=1):
        _, context = read(window, context)
        contexts.append(context)
    return torch.cat(contexts, dim=1)


def _last_window_moved_back(read, ids, W, context, k):
    states, T = [], ids.shape[1]
    for begin, end in _windows(T, W):
        begin = max(0, min(begin, T - W))
        h, context = read(ids[:, begin:end], context)
        states.append(h)
    n_before = sum(h.shape[1] for h in states[:-1])
    return torch.cat([*states[:-1], states[-1][:, n_before - T :]], dim=1)


def _every_other_window(read, ids, W, context, k):
    states = []
    for window in ids.split(W, dim=1)[::2]:
        h, context = read(window, context)
        states.append(h)
    return torch.cat(states, dim=1)


def _first_window_twice(read, ids, W, context, k):
    return _right_reading(read, ids, W, read(ids[:, :W], context)[1], k)


def _windows_reversed(read, ids, W, context, k):
    states = _right_reading(read, ids, W, context, k)
    return torch.cat(list(reversed(states.split(W, dim=1))), dim=1)


def _whole_windows_only(read, ids, W, context, k):
    whole = ids.shape[1] // W * W
    if whole == 0:
        return torch.zeros(len(ids), 0, context.shape[2])
    return _right_reading(read, ids[:, :whole], W, context, k)


def _filled_up(fill):
    """Return a function whose last window is filled up to W tokens with `fill(ids, n)`."""
    def read_in_windows(read, ids, W, context, k):
        T = ids.shape[1]
        longer = torch.cat([ids, fill(ids, -T % W)], dim=1)
        return _right_reading(read, longer, W, context, k)[:, :T]

    return read_in_windows


def _states_of_the_last_window(read, ids, W, context, k):
    return _right_reading(read, ids, W, context, k)[:, (ids.shape[1] - 1) // W * W:]


def _windows_below_each_other(read, ids, W, context, k):
    states = _right_reading(read, ids, W, context, k)
    return states.unflatten(1, (-1, W)).transpose(0, 1).flatten(0, 1)


def _from_the_last_window_to_the_first(read, ids, W, context, k):
    states = []
    for window in reversed(ids.split(W, dim=1)):
        h, context = read(window, context)
        states.insert(0, h)
    return torch.cat(states, dim=1)


def _after_every_kth_window(change):
    """Return a function that changes the context after every k-th window, in place of a cut."""
    def read_in_windows(read, ids, W, context, k):
        first, states = context, []
        for i, window in enumerate(ids.split(W, dim=1), start=1):
            h, context = read(window, context)
            if i % k == 0:
                context = change(first, context)
            states.append(h)
        return torch.cat(states, dim=1)

    return read_in_windows


FILLED_UP = ("the short window at the end is filled up to W tokens, but every id is a token, 0 "
             "too. Give `read` the short window as it is")

WINDOWS_MISTAKES = [
    ("every window is read after the first context. Give each window the context that the window "
     "before it returned",
     _reading(_windows, update=lambda old, new: old)),
    ("the contexts are added up. The new context should replace the old one",
     _reading(_windows, update=lambda old, new: old + new)),
    ("the next context is the last state of a window. `read` returns the next context itself",
     _reading(_windows, from_states=lambda h: h[:, -1:])),
    ("the next context is the mean of a window's states. `read` returns the next context itself",
     _reading(_windows, from_states=lambda h: h.mean(1, keepdim=True))),
    ("the next context is the first state of a window. `read` returns the next context itself",
     _reading(_windows, from_states=lambda h: h[:, :1])),
    ("the result contains the contexts. Return the states of all tokens, the first value of `read`",
     _contexts_of_windows),
    ("the last window begins earlier, so that it has W tokens, and overlaps the window before. "
     "Give `read` a shorter window at the end",
     _last_window_moved_back),
    ("only every other window is read. The next window begins W tokens later",
     _every_other_window),
    ("the first window has one token only. Begin with a window of W tokens",
     _reading(lambda T, W: [(0, 1), *((b, min(b + W, T)) for b in range(1, T, W))])),
    ("all texts are read after the context of the first text. Each text has its own context",
     _reading(_windows, first=lambda context: context[:1].expand_as(context))),
    ("all texts get the mean of their contexts. Each text has its own context",
     _reading(_windows, update=lambda old, new: new.mean(0, keepdim=True).expand_as(new))),
    ("the first window is read twice, the second time after its own context. Read each window once",
     _first_window_twice),
    ("the states of the windows are in the reverse order. Keep the order of the text",
     _windows_reversed),
    ("each context is averaged with the one before. The new context should replace the old one",
     _reading(_windows, update=lambda old, new: (old + new) / 2)),
    ("every window but the first is read after a context of zeros. Give each window the context "
     "that the window before it returned",
     _reading(_windows, update=lambda old, new: torch.zeros_like(new))),
    ("the first window is read after zeros. Give it the argument `context`",
     _reading(_windows, first=torch.zeros_like)),
    ("the short window comes first, so all borders move whenever the text grows by one token. "
     "Begin with whole windows",
     _reading(_short_window_first)),
    ("the short window at the end is left out. Its tokens need states too", _whole_windows_only),
    (FILLED_UP, _filled_up(lambda ids, n: ids.new_zeros(len(ids), n))),
    (FILLED_UP, _filled_up(lambda ids, n: ids[:, -1:].expand(-1, n))),
    (FILLED_UP, _filled_up(lambda ids, n: ids[:, :n])),
    ("only the last window's states are returned. Return the states of all T tokens: "
     "torch.cat(states, dim=1)",
     _states_of_the_last_window),
    ("only the first window is read",
     lambda read, ids, W, context, k: read(ids[:, :W], context)[0]),
    ("the tokens are read one by one, each as a window of its own. Give `read` W tokens at a time",
     lambda read, ids, W, context, k: _right_reading(read, ids, 1, context, k)),
    ("the windows have k tokens. They should have W tokens",
     lambda read, ids, W, context, k: _right_reading(read, ids, k, context, k)),
    ("the context is replaced by zeros after every k-th window. Detach it, and keep its values",
     _after_every_kth_window(lambda first, new: torch.zeros_like(new))),
    ("the argument `context` is used again after every k-th window. Detach the new context, and "
     "go on with it",
     _after_every_kth_window(lambda first, new: first)),
    ("the windows have W − 1 tokens. They should have W tokens",
     lambda read, ids, W, context, k: _right_reading(read, ids, max(1, W - 1), context, k)),
    ("the windows are read from the last to the first. A context should come from the window "
     "before",
     _from_the_last_window_to_the_first),
    ("the states of the windows are joined along the batch. Join them along time, dim=1",
     _windows_below_each_other),
    ("each window begins one token after the one before. The windows should not overlap, so begin "
     "them W tokens apart",
     _reading(_overlapping_windows)),
]


# Where the gradient is cut --------------------------------------------------------------------


class ProbedReader(ToyReader):
    """A reader whose calls can be found again in a gradient.

    Each call adds a tensor of zeros, a probe, to the context that it is given. A result depends on
    a window, by way of the gradient, if the window's probe has a gradient that is not zero.
    """

    def __init__(self, W, seed):
        super().__init__(W, seed)
        self.probes = []

    def __call__(self, window, context):
        self.probes.append(torch.zeros_like(context, requires_grad=True))
        return super().__call__(window, context + self.probes[-1])


# What is left if the gradient is cut elsewhere: for k, whether the gradient runs from window i + 1
# back to window i, counted from 0.
CUTTING_MISTAKES = [
    ("the gradient is never cut. Detach the context after every k-th window",
     lambda i, k: True),
    ("the gradient is cut at every border. Detach the context after every k-th window only",
     lambda i, k: False),
    ("the first cut comes after the first window, as if windows were counted from 0 and tested "
     "with i % k == 0. The first cut belongs after window number k",
     lambda i, k: i % k != 0),
    ("the gradient is cut after every (k + 1)-th window. Windows counted from 0 need "
     "(i + 1) % k == 0",
     lambda i, k: (i + 1) % (k + 1) != 0),
    ("the gradient is cut once only. Cut it again after each further k windows",
     lambda i, k: i + 1 != k),
    ("the first cut comes one window too late. Detach the context that window number k returns",
     lambda i, k: i == 0 or i % k != 0),
    ("the gradient crosses a border after every k-th window only, and is cut at the others. It is "
     "the other way round",
     lambda i, k: (i + 1) % k == 0),
]


def _gradient_is_cut_after_every_kth_window(reader):
    found = {}                          # by (number of windows, k): the borders that are crossed
    for T, W, k in ((5, 2, 4), (13, 2, 2), (13, 2, 3), (6, 2, 1)):
        read, n = ProbedReader(W, seed=T), -(-T // W)
        context = randn(2, 1, 3, seed=k).requires_grad_()
        states = reader(read=read, ids=randint(40, 2, T, seed=k), W=W, context=context, k=k)
        if len(read.probes) != n:
            raise Wrong(f"`read` is called {len(read.probes)} times for a text of {n} windows. "
                        "Call it once for each window")
        parts = states.split(W, dim=1)
        probes = read.probes
        if not all(_depends(part, probe) for part, probe in zip(parts, probes, strict=True)):
            raise Wrong("no gradient flows from a window's states back into this window. Detach "
                        "the context only, not the states")
        if not _depends(parts[0], context):
            raise Wrong("the gradient is cut before the first window. Detach a context only after "
                        "every k-th window")
        found[n, k] = [_depends(parts[i + 1], probes[i]) for i in range(n - 1)]
    wrong = {(n, k): borders for (n, k), borders in found.items()
             if borders != [(i + 1) % k != 0 for i in range(n - 1)]}
    if not wrong:
        return
    for sentence, crossed in CUTTING_MISTAKES:
        if all(borders == [crossed(i, k) for i in range(n - 1)]
               for (n, k), borders in found.items()):
            raise Wrong(f"the states are right, but their gradient is not: {sentence}")
    (n, k), borders = next(iter(wrong.items()))
    cuts = ", ".join(str(i + 1) for i, crossed in enumerate(borders) if not crossed) or "no window"
    right = ", ".join(str(i) for i in range(k, n, k)) or "no window"
    raise Wrong(f"the states are right, but their gradient is not: with {n} windows and k = {k} it "
                f"is cut after window {cuts}, but it should be cut after window {right}")


def _depends(result, on):
    """Return whether a gradient runs from `result` back to `on`."""
    if not result.requires_grad:
        return False
    gradient, = torch.autograd.grad(result.square().sum(), on, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient.count_nonzero())


def _windows_properties(reader: Reader):
    agree(compare(reader, _right_reading, _windows_cases(), WINDOWS_MISTAKES))
    _gradient_is_cut_after_every_kth_window(reader)


# courier_loss -------------------------------------------------------------------------------------


def check_courier_loss(courier_loss) -> Result:
    """Check `courier_loss(window, places, values, known)`.

    It returns the least loss on a courier's window, in nats per predicted token, if a share `known`
    of the readers knows the answer.
    """
    return check("courier_loss", courier_loss, _courier_properties,
                 "every reader pays for the new fact, and those who do not know the answer pay for "
                 "it too")


def _right_courier(window, places, values, known):
    nats = math.log(places) + math.log(values) + (1 - known) * math.log(values)
    return torch.tensor(nats / (window - 1))


def _number(answer):
    """Return a number as a tensor."""
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return torch.tensor(float(answer))
    if not isinstance(answer, torch.Tensor):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return a number")
    if answer.numel() != 1:
        raise Wrong(f"the function returns a tensor of shape {tuple(answer.shape)}, "
                    "but it should return one number")
    return answer.float().reshape(())


def _courier_cases():
    names = "window", "places", "values", "known"
    return [dict(zip(names, case, strict=True)) for case in (
        (8, 4, 8, 1.0),
        (8, 4, 8, 0.0),
        (8, 4, 8, 2 / 3),
        (5, 1, 8, 1.0),
        (5, 1, 8, 0.0),
        (12, 7, 3, 0.25),
        (6, 2, 16, 0.5),
        (9, 5, 2, 1.0),
        (7, 3, 6, 0.1),
        (4, 9, 5, 0.8),
    )]


def _mistaken_courier(options):
    place, fact, answer, finish = options

    def courier_loss(window, places, values, known):
        nats = place(places) + fact(values) + answer(values, known)
        return torch.tensor(float(finish(nats, window)))

    return courier_loss


# What the place of the fact costs, in nats.
PLACES = {
    "": math.log,
    "the place of the fact is forgotten. It is new too, and costs ln places": lambda places: 0,
    "the place is counted in bits. Use ln for everything": math.log2,
}

# What the fact costs.
FACTS = {
    "": math.log,
    "the fact costs ln(values − 1). Each of the `values` values is possible, so it costs ln values":
        lambda values: math.log(values - 1),
    "the fact is counted twice. It costs ln values once": lambda values: 2 * math.log(values),
    "the fact itself is forgotten. Nobody can know a new fact, so it costs ln values":
        lambda values: 0,
}

# What the answer costs.
ANSWERS = {
    "": lambda values, known: (1 - known) * math.log(values),
    "the answer is forgotten. It costs ln values for those who do not know it":
        lambda values, known: 0,
    "`known` is used as yes or no. It is a share between 0 and 1":
        lambda values, known: 0 if known else math.log(values),
    "the answer costs −ln known for those who know it. They are certain, so they pay nothing":
        lambda values, known:
            (-known * math.log(known) if known else 0) + (1 - known) * math.log(values),
    "the entropy of `known` is added. Every reader knows whether they know the answer":
        lambda values, known: (1 - known) * math.log(values) - sum(
            p * math.log(p) for p in (known, 1 - known) if p),
    "the answer costs ln((1 − known) · values). The logarithm is taken of values alone, and then "
    "multiplied by the share 1 − known":
        lambda values, known: math.log(max(1.0, (1 - known) * values)),
    "the share 1 − known is squared": lambda values, known: (1 - known) ** 2 * math.log(values),
    "the answer costs ln(values − 1) for those who do not know it. Each of the `values` values is "
    "possible":
        lambda values, known: (1 - known) * math.log(values - 1),
    "the answer costs everyone the same. Those who know it pay nothing":
        lambda values, known: math.log(values),
    "the shares are the wrong way round. The share `known` pays nothing":
        lambda values, known: known * math.log(values),
    "the loss is that of one reader who mixes knowing and guessing, −ln of a mixture. A share "
    "`known` of the readers knows the answer for certain, and the others pay ln values each":
        lambda values, known: -math.log(known + (1 - known) / values),
}

# How the nats of a window become a loss.
LOSSES = {
    "": lambda nats, window: nats / (window - 1),
    "the sum is divided by window. The question is given, so window − 1 tokens are predicted":
        lambda nats, window: nats / window,
    "the sum is divided by window + 1. The question is given, so window − 1 tokens are predicted":
        lambda nats, window: nats / (window + 1),
    "the sum is divided by 3, the number of things that cost something. Divide it by window − 1, "
    "the number of predicted tokens":
        lambda nats, window: nats / 3,
    "the sum is divided by window − 2. The answer is predicted too, known or not, so window − 1 "
    "tokens are predicted":
        lambda nats, window: nats / (window - 2),
    "the sum is always divided by 7. Divide it by window − 1, which is 7 in the example only":
        lambda nats, window: nats / 7,
    "the result is the loss of a whole window. Divide it by the number of predicted tokens":
        lambda nats, window: nats,
    "the result is in bits. For a loss in nats use math.log":
        lambda nats, window: nats / (window - 1) / math.log(2),
    "the result is in powers of ten. For a loss in nats use math.log":
        lambda nats, window: nats / (window - 1) / math.log(10),
    "the result is a perplexity. Leave out the exp":
        lambda nats, window: math.exp(nats / (window - 1)),
    "the sign is wrong. The loss of one token is −ln p, and p = 1 / n":
        lambda nats, window: -nats / (window - 1),
}


def _log_of_a_sum(window, places, values, known):
    return torch.tensor(math.log(places + values + (1 - known) * values) / (window - 1))


def _log_of_the_sum_of_the_news(window, places, values, known):
    nats = math.log(places + values) + (1 - known) * math.log(values)
    return torch.tensor(nats / (window - 1))


def _fact_known_too(window, places, values, known):
    nats = (1 - known) * (math.log(places) + 2 * math.log(values))
    return torch.tensor(nats / (window - 1))


def _either_news_or_answer(window, places, values, known):
    news = math.log(places) + math.log(values)
    return torch.tensor((known * news + (1 - known) * math.log(values)) / (window - 1))


def _answer_is_a_place(window, places, values, known):
    nats = math.log(places * values) + (1 - known) * math.log(places)
    return torch.tensor(nats / (window - 1))


def _answer_is_place_and_value(window, places, values, known):
    return torch.tensor((2 - known) * math.log(places * values) / (window - 1))


def _question_too(window, places, values, known):
    nats = 2 * math.log(places) + (2 - known) * math.log(values)
    return torch.tensor(nats / (window - 1))


def _without_a_logarithm(window, places, values, known):
    return torch.tensor((places + values + (1 - known) * values) / (window - 1))


def _product_of_logarithms(window, places, values, known):
    nats = math.log(places) * math.log(values) + (1 - known) * math.log(values)
    return torch.tensor(nats / (window - 1))


LOG_OF_A_SUM = ("the logarithm is taken of a sum. Probabilities multiply, so their logarithms add "
                "up: ln places + ln values, not ln(places + values)")

COURIER_MISTAKES = [
    *combined(_mistaken_courier, PLACES, FACTS, ANSWERS, LOSSES),
    ("those who know the answer do not pay for the new fact either. Nobody can know a new fact",
     _fact_known_too),
    ("those who do not know the answer do not pay for the new fact. Every reader pays for it",
     _either_news_or_answer),
    ("the answer costs ln places. It is a value, so it costs ln values", _answer_is_a_place),
    ("the answer costs a place and a value. It is a value alone, so it costs ln values",
     _answer_is_place_and_value),
    ("the place costs twice, as if the question were predicted too. The question is given",
     _question_too),
    ("the logarithm is missing. Choosing one of n equally probable things costs ln n",
     _without_a_logarithm),
    ("the logarithms are multiplied. Probabilities multiply, so their logarithms add up",
     _product_of_logarithms),
    (LOG_OF_A_SUM, _log_of_a_sum),
    (LOG_OF_A_SUM, _log_of_the_sum_of_the_news),
]


def _courier_properties(reader: Reader):
    trials = compare(reader, _right_courier, _courier_cases(), COURIER_MISTAKES, _number)
    for trial in trials:
        finite(trial, "is there a logarithm of 0?")
    agree(trials)
