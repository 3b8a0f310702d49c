"""Chapter 2's exercises: who may look at whom, how much, and in how many ways at once."""

import math

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import ALIKE, Wrong, agree, close, combined, compare, finite, keeps_device, randn, same_gradients

# causal_mask --------------------------------------------------------------------------------------------------------

def check_causal_mask(causal_mask) -> Result:
    """`causal_mask(T)`: (T, T) of bool, True at [i, j] where position i may look at position j."""
    return check("causal_mask", causal_mask, _causal_mask, "each position sees itself and what came before, and nothing after")


def _right_mask(T):
    return torch.tensor([[j <= i for j in range(T)] for i in range(T)])


def _causal_mask(reader: Reader):
    ones = lambda T: torch.ones(T, T, dtype=torch.bool)
    added = "this mask is meant to be added to the scores, with -inf where the future is; wanted are truth values (bool), True = allowed"
    mistakes = [
        ("every position sees the future, and none its past: row i is the one who looks; did you mean tril rather than triu?",
         lambda T: ones(T).triu()),
        ("a position cannot see itself: the diagonal belongs to the mask", lambda T: ones(T).tril(-1)),
        ("a position sees the next one, which it is to predict: the mask ends at the diagonal", lambda T: ones(T).tril(1)),
        ("it is the opposite, True where attention is forbidden: True should mean allowed", lambda T: ones(T).triu(1)),
        ("everything is allowed: the future, j > i, should be False", ones),
        ("nothing is allowed: row i should be True up to and with position i", lambda T: ~ones(T)),
        ("each position sees only itself: its past, j < i, is allowed too", lambda T: torch.eye(T).bool()),
        ("each position sees everything but itself: only the future is forbidden", lambda T: ~torch.eye(T).bool()),
        ("there are axes for batch and heads: (T, T) is enough, it fits them all", lambda T: ones(T).tril()[None, None]),
        ("there are axes for batch and heads: (T, T) is enough, it fits them all", lambda T: ones(T).tril()[None]),
        (added, lambda T: torch.zeros(T, T).masked_fill(~ones(T).tril(), -math.inf)),
        ("these are weights for an average: wanted are truth values (bool)", lambda T: ones(T).tril() / torch.arange(1, T + 1)[:, None]),
    ]
    trials = compare(reader, _right_mask, [{"T": T} for T in (1, 2, 3, 4, 7, 12)], mistakes)
    for trial in trials:
        T, got = trial.given["T"], trial.got
        for i in range(T):
            if got[i, i + 1:].any():
                raise Wrong(f"for T = {T} position {i} sees position {i + 1 + got[i, i + 1:].int().argmax()}, which lies in its future")
            if not got[i, i]:
                raise Wrong(f"for T = {T} position {i} cannot see itself: the diagonal belongs to the mask")
            if not got[i, :i].all():
                raise Wrong(f"for T = {T} position {i} cannot see position {got[i].int().argmin()}, which came before it")
    agree(trials)


# attention_weights --------------------------------------------------------------------------------------------------

def check_attention_weights(attention_weights) -> Result:
    """`attention_weights(q, k)`: (B, H, T, d) twice -> (B, H, T, T): scaled by √d, masked, softmax over the last axis."""
    return check("attention_weights", attention_weights, _attention_weights,
                 "scaled by √head_size, blind to the future, every row a share of 1, with the right gradients")


def _right_weights(q, k):
    B, H, T, d = q.shape
    weights = torch.zeros(B, H, T, T, dtype=q.dtype, device=q.device)
    for t in range(T):
        scores = (k[:, :, :t + 1] * q[:, :, t, None]).sum(-1) / math.sqrt(d)             # (B, H, t+1)
        weights[:, :, t, :t + 1] = scores.softmax(-1)
    return weights


def _mistaken_weights(options):
    order, scale, finish, axis = options

    def weights(q, k):
        q, k = order(q, k)
        scores = q @ k.transpose(-2, -1) * scale(*q.shape)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        return finish(scores, allowed, lambda s: s.softmax(axis))
    return weights


def _attention_weights(reader: Reader):
    case = lambda B, H, T, d, seed, dtype=torch.float64: {
        "q": 1.5 * randn(B, H, T, d, seed=seed, dtype=dtype), "k": 1.5 * randn(B, H, T, d, seed=seed + 100, dtype=dtype)}
    cases = [case(1, 1, 1, 2, 1), case(1, 1, 2, 1, 2), case(1, 2, 3, 4, 3), case(3, 1, 5, 7, 4), case(2, 3, 6, 5, 5),
             case(2, 4, 7, 3, 6, torch.float32)]
    forbidden_hidden = lambda s, allowed, softmax: softmax(s.masked_fill(~allowed, -math.inf))
    mistakes = combined(_mistaken_weights, {
        "": lambda q, k: (q, k),
        "q and k are swapped: row i should hold the scores of query i with every key, q @ kᵀ": lambda q, k: (k, q),
        "it compares queries with queries, and k is never used": lambda q, k: (q, q),
        "it compares keys with keys, and q is never used": lambda q, k: (k, k),
        "q and k are cut to length 1 first: their lengths count too": lambda q, k: tuple(t / t.norm(dim=-1, keepdim=True) for t in (q, k)),
    }, {
        "": lambda B, H, T, d: d ** -0.5,
        "the scale is missing: divide the scores by √head_size, or they grow with the size of a head": lambda B, H, T, d: 1,
        "it is scaled by √(n_head · head_size), the channels of all heads: divide by √head_size": lambda B, H, T, d: (H * d) ** -0.5,
        "the scores are multiplied by √head_size: divide by it": lambda B, H, T, d: d ** 0.5,
        "the scores are divided by head_size itself: its square root is right": lambda B, H, T, d: 1 / d,
        "it is scaled by √T, the number of positions: divide by √head_size, the last axis of q": lambda B, H, T, d: T ** -0.5,
        "it is scaled by √n_head: divide by √head_size, the last axis of q": lambda B, H, T, d: H ** -0.5,
        "it is scaled by √B, the batch: divide by √head_size, the last axis of q": lambda B, H, T, d: B ** -0.5,
        "it is scaled twice: once by √head_size is enough": lambda B, H, T, d: 1 / d if d != 1 else 1,
    }, {
        "": forbidden_hidden,
        "there is no mask: position i should give weight to positions 0 … i only": lambda s, allowed, softmax: softmax(s),
        "the mask comes after the softmax, so the rows no longer sum to 1: hide the future before it, with -inf":
            lambda s, allowed, softmax: softmax(s) * allowed,
        "the mask is transposed, so that positions see the future and not their past: keep the lower triangle (tril)":
            lambda s, allowed, softmax: forbidden_hidden(s, allowed.T, softmax),
        "the mask hides the present, and the first position is left with nothing (nan): a position may look at itself":
            lambda s, allowed, softmax: forbidden_hidden(s, allowed.tril(-1), softmax),
        "the mask hides the present: a position may look at itself, the diagonal is allowed":
            lambda s, allowed, softmax: s.masked_fill(~allowed.tril(-1), -1e9).softmax(-1),
        "the mask lets each position see the next one: it ends at the diagonal":
            lambda s, allowed, softmax: forbidden_hidden(s, torch.ones_like(allowed).tril(1), softmax),
        "the mask hides what is allowed and shows what is not: fill where the mask is False (~mask)":
            lambda s, allowed, softmax: forbidden_hidden(s, ~allowed, softmax),
        "hidden scores are set to 0, and exp(0) = 1 is a weight like any other: hide them with -inf, before the softmax":
            lambda s, allowed, softmax: softmax(s * allowed),
        "the softmax is missing: each row of scores becomes weights that sum to 1": lambda s, allowed, softmax: s * allowed,
        "the softmax is missing: each row of scores has to become weights that sum to 1":
            lambda s, allowed, softmax: s.masked_fill(~allowed, -math.inf),
        "these are raw scores, without mask and softmax": lambda s, allowed, softmax: s,
        "these are logarithms: softmax, not log_softmax": lambda s, allowed, softmax: forbidden_hidden(s, allowed, softmax).log(),
        "the softmax is taken twice: once is enough": lambda s, allowed, softmax: softmax(forbidden_hidden(s, allowed, softmax)),
        "the signs of the scores are turned: a larger q · k means more attention":
            lambda s, allowed, softmax: forbidden_hidden(-s, allowed, softmax),
        "the mask hides the present from all but the first position: every position may look at itself":
            lambda s, allowed, softmax: forbidden_hidden(s, allowed.tril(-1) | allowed.triu().tril() & allowed[0], softmax),
        "the exponentials still have to be divided by their sum": lambda s, allowed, softmax: s.exp() * allowed,
        "each row is divided by its sum without the exponential: that is no softmax":
            lambda s, allowed, softmax: s * allowed / (s * allowed).sum(-1, keepdim=True),
        "it takes the largest score alone (argmax): softmax shares the weight out":
            lambda s, allowed, softmax: torch.zeros_like(s).scatter(-1, s.masked_fill(~allowed, -math.inf).argmax(-1, keepdim=True), 1.0),
        "past positions share the weight equally, whatever q and k are":
            lambda s, allowed, softmax: (allowed / allowed.sum(-1, keepdim=True)).to(s).expand_as(s),
    }, {
        "": -1,
        "the softmax runs over the wrong axis, the queries: each query shares 1 among the keys, dim=-1": -2,
        "the softmax runs over the wrong axis, the heads: each query shares 1 among the keys, dim=-1": 1,
        "the softmax runs over the wrong axis, the batch: each query shares 1 among the keys, dim=-1": 0,
    })
    trials = compare(reader, _right_weights, cases, mistakes)
    for trial in trials:
        finite(trial, "is a whole row hidden? Every position may look at itself")
        if trial.got.triu(1).any():
            raise Wrong(f"the future gets weight, up to {trial.got.triu(1).abs().max():.2g}, and exactly 0 is right: "
                        "hide it with -inf, before the softmax")
        if (trial.got < 0).any():
            raise Wrong("some weights are negative: a softmax gives none")
        if ((trial.got == 0) & (trial.expected > 0)).any():
            b, h, i, j = ((trial.got == 0) & (trial.expected > 0)).nonzero()[0].tolist()
            raise Wrong(f"position {i} gives {'itself' if i == j else f'position {j}, which came before it,'} no weight at all: "
                        "only the future is hidden")
        sums = trial.got.sum(-1)
        if not close(sums, torch.ones_like(sums), ALIKE):
            raise Wrong("the rows do not sum to 1: softmax over the keys, the last axis, comes last")
    _edited_future(reader, cases[4])
    agree(trials, ALIKE)
    late = ("the mask comes after the softmax: where all the weight lies in the future, nothing is left, and 0 / 0 is nan; "
            "hide the future before the softmax, with -inf",
            lambda q, k: (w := (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril()) / w.sum(-1, keepdim=True))
    for factor in (20.0, 2000.0):
        for trial in compare(reader, _right_weights, [{"q": factor * cases[5]["q"], "k": cases[5]["k"]}], [late]):
            finite(trial, "exp overflows for large scores; use torch.softmax, or subtract each row's largest score first")
            if not close(trial.got, trial.expected, 1e-3):
                raise Wrong("large scores come out wrong: is something clamped, or the future hidden with a finite number, "
                            "where -inf is safe?")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_weights, cases[4], ("q", "k"), "is part of it computed from .detach() or .data?")


def _edited_future(reader, case):
    before, T = reader(**case), case["q"].shape[2]
    for t in range(1, T):
        k = case["k"].clone()
        k[:, :, t:] = 50 * randn(*k[:, :, t:].shape, seed=t)
        if not close(reader(q=case["q"], k=k)[:, :, :t], before[:, :, :t]):
            raise Wrong(f"the future leaks: other keys from position {t} on change the weights of positions before it")


# split_heads --------------------------------------------------------------------------------------------------------

def check_split_heads(split_heads) -> Result:
    """`split_heads(x, n_head)`: (B, T, C) -> (B, n_head, T, C / n_head); head h gets the h-th slice of every position."""
    return check("split_heads", split_heads, _split_heads, "head h holds the h-th slice of each position's channels")


def _right_split(x, n_head):
    size = x.shape[-1] // n_head
    return torch.stack([x[:, :, h * size:(h + 1) * size] for h in range(n_head)], dim=1)


def _numbered(*shape, dtype=torch.float64):
    return torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(math.prod(shape))).to(dtype).view(shape) / 10


def _split_heads(reader: Reader):
    cases = [{"x": _numbered(B, T, C, dtype=dtype), "n_head": n_head} for B, T, C, n_head, dtype in (
        (1, 1, 2, 2, torch.float64), (1, 2, 2, 1, torch.float64), (1, 2, 4, 2, torch.float64), (1, 3, 6, 3, torch.float64),
        (2, 5, 6, 2, torch.float64), (3, 4, 16, 4, torch.float64), (2, 7, 12, 3, torch.float32))]
    size = lambda x, n_head: x.shape[-1] // n_head
    cut = lambda x, n_head: x.reshape(*x.shape[:2], n_head, size(x, n_head))                # (B, T, H, d)
    mistakes = [
        ("positions are mixed up: `view` straight to (B, n_head, T, head_size) cuts along time; view as (B, T, n_head, head_size), "
         "then transpose axes 1 and 2", lambda x, n_head: x.reshape(len(x), n_head, x.shape[1], size(x, n_head))),
        ("neighbouring channels go to different heads: head 0 should get the first head_size channels, "
         "so view as (…, n_head, head_size)", lambda x, n_head: x.reshape(*x.shape[:2], size(x, n_head), n_head).permute(0, 3, 1, 2)),
        ("the result is still (B, T, n_head, head_size): transpose axes 1 and 2, so that the heads come first", cut),
        ("each head came out as (head_size, T): only axes 1 and 2 change places, head_size stays last",
         lambda x, n_head: cut(x, n_head).permute(0, 2, 3, 1)),
        ("n_head and head_size are swapped: there should be n_head slices, each C / n_head wide",
         lambda x, n_head: x.reshape(*x.shape[:2], size(x, n_head), n_head).transpose(1, 2)),
        ("the heads are in the reverse order: head 0 gets the first slice", lambda x, n_head: _right_split(x, n_head).flip(1)),
        ("every head got all channels: head h gets its own slice, C / n_head wide",
         lambda x, n_head: x[:, None].expand(-1, n_head, -1, -1)),
        ("all heads got the first slice: head h gets the h-th",
         lambda x, n_head: _right_split(x, n_head)[:, :1].expand(-1, n_head, -1, -1)),
        ("time is reversed", lambda x, n_head: _right_split(x, n_head).flip(2)),
        ("heads come before the batch: the batch stays the first axis", lambda x, n_head: _right_split(x, n_head).transpose(0, 1)),
        ("time was cut, and the channels stayed whole: the last axis is the one to cut",
         lambda x, n_head: x.reshape(len(x), n_head, -1, x.shape[-1])),
        ("each head's numbers were transposed by a view: after the split only axes 1 and 2 change places",
         lambda x, n_head: cut(x, n_head).permute(0, 2, 3, 1).reshape(len(x), n_head, x.shape[1], size(x, n_head))),
    ]
    trials = compare(reader, _right_split, cases, mistakes)
    _same_numbers(trials, "x")
    for trial in trials:
        for b, t in ((b, t) for b in range(len(trial.got)) for t in range(trial.got.shape[2])):
            if not close(trial.got[b, :, t].flatten().sort().values, trial.expected[b, :, t].flatten().sort().values):
                raise Wrong(f"positions are mixed up: what the heads hold at batch {b}, position {t} does not all come from x[{b}, {t}]")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_split, cases[4], ("x",), "is part of it copied by .detach() or .data?")


def _same_numbers(trials, name):
    for trial in trials:
        if not close(trial.got.flatten().sort().values, trial.expected.flatten().sort().values):
            raise Wrong(f"some numbers of `{name}` are lost or changed: each should appear in the result once, as it was")


# merge_heads --------------------------------------------------------------------------------------------------------

def check_merge_heads(merge_heads) -> Result:
    """`merge_heads(y)`: (B, H, T, d) -> (B, T, H · d), the inverse of `split_heads`."""
    return check("merge_heads", merge_heads, _merge_heads, "it undoes split_heads, number by number")


def _right_merge(y):
    return torch.cat([y[:, h] for h in range(y.shape[1])], dim=-1)


def _merge_heads(reader: Reader):
    cases = [{"y": _numbered(*shape)} for shape in ((1, 1, 1, 2), (1, 2, 2, 1), (1, 2, 2, 2), (1, 3, 2, 2), (2, 2, 5, 3), (3, 4, 4, 4))]
    cases += [{"y": _numbered(2, 3, 7, 4, dtype=torch.float32)}]
    B_T_C = lambda y: (y.shape[0], y.shape[2], y.shape[1] * y.shape[3])
    mistakes = [
        ("positions are mixed up: transpose axes 1 and 2 first, so that each position's heads lie side by side, then reshape",
         lambda y: y.reshape(B_T_C(y))),
        ("the heads' channels alternate: each head's channels stay together, head after head, side by side",
         lambda y: y.permute(0, 2, 3, 1).reshape(B_T_C(y))),
        ("each head's numbers are transposed: only axes 1 and 2 change places", lambda y: y.transpose(2, 3).reshape(B_T_C(y))),
        ("it gives the average of the heads: put them side by side, head_size after head_size", lambda y: y.mean(1)),
        ("it adds the heads up: put them side by side, head_size after head_size", lambda y: y.sum(1)),
        ("it keeps the largest number among the heads: put all of them side by side", lambda y: y.amax(1)),
        ("only the first head is left: put all of them side by side", lambda y: y[:, 0]),
        ("only the last head is left: put all of them side by side", lambda y: y[:, -1]),
        ("the heads lie one after another along time: they belong side by side, along the channels",
         lambda y: y.reshape(y.shape[0], -1, y.shape[3])),
        ("the heads alternate along time: they belong side by side, along the channels",
         lambda y: y.transpose(1, 2).reshape(y.shape[0], -1, y.shape[3])),
        ("the heads are in the reverse order: head 0 comes first", lambda y: _right_merge(y.flip(1))),
        ("axes 1 and 2 have changed places, and now n_head and head_size have to become one axis: (B, T, C)", lambda y: y.transpose(1, 2)),
        ("time and channels have changed places: (B, T, C) is wanted", lambda y: _right_merge(y).transpose(1, 2)),
    ]
    trials = compare(reader, _right_merge, cases, mistakes)
    _same_numbers(trials, "y")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_merge, cases[4], ("y",), "is part of it copied by .detach() or .data?")
