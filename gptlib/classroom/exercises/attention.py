"""Chapter 2's exercises: the causal mask, attention weights, and several heads."""

import math

import torch

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    ALIKE,
    Wrong,
    agree,
    close,
    combined,
    compare,
    finite,
    keeps_device,
    randn,
    same_gradients,
)

# causal_mask --------------------------------------------------------------------------------------


def check_causal_mask(causal_mask) -> Result:
    """Check `causal_mask(T)`.

    It returns booleans (T, T): True at [i, j] where position i may attend to position j.
    """
    return check(
        "causal_mask",
        causal_mask,
        _mask_properties,
        "each position sees itself and all positions before it, and no position after it",
    )


def _right_mask(T):
    return torch.tensor([[j <= i for j in range(T)] for i in range(T)])


def _ones(T):
    return torch.ones(T, T, dtype=torch.bool)


def _one_row(T):
    return torch.ones(T, dtype=torch.bool)


ONE_ROW = "the result is one row only. Each of the T positions needs a row of its own, (T, T)"
TO_BE_ADDED = (
    "the mask contains numbers to add to the scores, -inf or a large negative number for the "
    "future. Return booleans (bool): True means allowed"
)
EXTRA_AXES = "the mask has axes for batch and heads. The shape (T, T) is enough: it broadcasts"

MASK_MISTAKES = [
    ("every position sees the future and not the past. Row i belongs to the position that attends. "
     "Did you mean tril instead of triu?",
     lambda T: _ones(T).triu()),
    ("a position cannot see itself. The diagonal should be True", lambda T: _ones(T).tril(-1)),
    ("a position sees the next position, whose token it should predict. Nothing above the diagonal "
     "should be True",
     lambda T: _ones(T).tril(1)),
    ("the mask is the opposite of the right one: it is True where attention is forbidden. True "
     "should mean allowed",
     lambda T: _ones(T).triu(1)),
    ("everything is allowed. The future, j > i, should be False", _ones),
    ("nothing is allowed. Row i should be True from position 0 to position i", lambda T: ~_ones(T)),
    ("each position sees only itself. The past, j < i, is allowed too",
     lambda T: torch.eye(T).bool()),
    ("each position sees every position except itself. Only the future is forbidden",
     lambda T: ~torch.eye(T).bool()),
    (EXTRA_AXES, lambda T: _ones(T).tril()[None, None]),
    (EXTRA_AXES, lambda T: _ones(T).tril()[None]),
    (TO_BE_ADDED, lambda T: torch.zeros(T, T).masked_fill(~_ones(T).tril(), -math.inf)),
    (TO_BE_ADDED, lambda T: torch.zeros(T, T).masked_fill(~_ones(T).tril(), -1e9)),
    ("the mask hides every position from itself, except the first position. The diagonal should be "
     "True",
     lambda T: _without_the_diagonal_except_at_0(_ones(T))),
    ("the mask has one row and one column too many. Its shape should be (T, T)",
     lambda T: _ones(T + 1).tril()),
    ("the mask has one row and one column too few. Its shape should be (T, T)",
     lambda T: _ones(T - 1).tril()),
    ("each position sees only itself and the position before. The whole past, j < i, is allowed",
     lambda T: _ones(T).tril().triu(-1)),
    ("each position sees only the next position. It should see itself and all positions before it",
     lambda T: _ones(T).tril(1).triu(1)),
    ("the rows are in the reverse order. Row 0 belongs to the first position, which sees only "
     "itself",
     lambda T: _ones(T).tril().flip(0)),
    (ONE_ROW, _one_row),
    (ONE_ROW, lambda T: _one_row(T)[None]),
    ("the result contains the weights of an average. Return booleans (bool)",
     lambda T: _ones(T).tril() / torch.arange(1, T + 1)[:, None]),
]


def _mask_properties(reader: Reader):
    cases = [{"T": T} for T in (1, 2, 3, 4, 7, 12)]
    trials = compare(reader, _right_mask, cases, MASK_MISTAKES)
    for trial in trials:
        for i, row in enumerate(trial.got):
            _row_is_causal(row, i, trial.given["T"])
    agree(trials)


def _row_is_causal(row, i, T):
    future = row[i + 1 :]
    if future.any():
        j = i + 1 + future.int().argmax()
        raise Wrong(f"for T = {T} position {i} sees position {j}, which is in its future")
    if not row[i]:
        raise Wrong(f"for T = {T} position {i} cannot see itself. The diagonal should be True")
    if not row[:i].all():
        j = row.int().argmin()
        raise Wrong(f"for T = {T} position {i} cannot see position {j}, which comes before it")


# attention_weights --------------------------------------------------------------------------------


def check_attention_weights(attention_weights) -> Result:
    """Check `attention_weights(q, k)`.

    It turns queries and keys, (B, H, T, d) each, into weights (B, H, T, T): the scores are scaled
    by √d and masked, and then the softmax runs over the last axis.
    """
    return check(
        "attention_weights",
        attention_weights,
        _weight_properties,
        "the scores are divided by √head_size, the future gets no weight, every row sums to 1, and "
        "the gradients are right",
    )


def _right_weights(q, k):
    B, H, T, d = q.shape
    weights = torch.zeros(B, H, T, T, dtype=q.dtype, device=q.device)
    for t in range(T):
        scores = (k[:, :, : t + 1] * q[:, :, t, None]).sum(-1) / math.sqrt(d)  # (B, H, t + 1)
        weights[:, :, t, : t + 1] = scores.softmax(-1)
    return weights


def _weight_cases():
    def case(B, H, T, d, seed, dtype=torch.float64):
        q = 1.5 * randn(B, H, T, d, seed=seed, dtype=dtype)
        return {"q": q, "k": 1.5 * randn(B, H, T, d, seed=seed + 100, dtype=dtype)}

    return [
        case(1, 1, 1, 2, 1),
        case(1, 1, 2, 1, 2),
        case(1, 2, 3, 4, 3),
        case(3, 1, 5, 7, 4),
        case(2, 3, 6, 5, 5),
        # A key of zeros: its scores are exactly 0, and they count like all others.
        {"q": torch.ones(1, 1, 3, 2), "k": torch.tensor([[[[1.0, 0.0], [0.0, 0.0], [2.0, 1.0]]]])},
        case(2, 4, 7, 3, 6, torch.float32),
    ]


def _mistaken_weights(options):
    choose, scale, finish, axis = options

    def weights(q, k):
        q, k = choose(q, k)
        scores = q @ k.transpose(-2, -1) * scale(*q.shape)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        return finish(scores, allowed, lambda scores: scores.softmax(axis))

    return weights


def _masked_softmax(scores, allowed, softmax):
    return softmax(scores.masked_fill(~allowed, -math.inf))


def _allowed_by(change):
    """Return a `finish` with another mask, which `change` makes of the right one."""
    return lambda scores, allowed, softmax: _masked_softmax(scores, change(allowed), softmax)


def _largest_only(scores, allowed, softmax):
    best = scores.masked_fill(~allowed, -math.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(scores).scatter(-1, best, 1.0)


def _equal_weights(scores, allowed, softmax):
    return (allowed / allowed.sum(-1, keepdim=True)).to(scores).expand_as(scores)


def _without_the_diagonal_except_at_0(allowed):
    first = torch.zeros_like(allowed)
    first[0, 0] = True
    return allowed.tril(-1) | first


# What is multiplied: the sentence for a mistake, and a function of q and k.
QUERIES_AND_KEYS = {
    "": lambda q, k: (q, k),
    "q and k are swapped. Row i should contain the scores of query i with every key, q @ kᵀ":
        lambda q, k: (k, q),
    "the scores compare queries with queries, and k is never used": lambda q, k: (q, q),
    "the scores compare keys with keys, and q is never used": lambda q, k: (k, k),
    "q and k are divided by their lengths first. Use them as they are, because lengths count too":
        lambda q, k: tuple(t / t.norm(dim=-1, keepdim=True) for t in (q, k)),
}

# By what the scores are multiplied.
SCALES = {
    "": lambda B, H, T, d: d**-0.5,
    "the scale is missing. Divide the scores by √head_size, because they grow with the size of a "
    "head":
        lambda B, H, T, d: 1,
    "the scores are divided by √(n_head · head_size), the channels of all heads. Divide them by "
    "√head_size":
        lambda B, H, T, d: (H * d) ** -0.5,
    "the scores are multiplied by √head_size. Divide them by it": lambda B, H, T, d: d**0.5,
    "the scores are divided by head_size, or by √head_size twice. Divide them by its square root, "
    "once":
        lambda B, H, T, d: 1 / d,
    "the scores are divided by √T, the number of positions. Divide them by √head_size, the size of "
    "the last axis of q":
        lambda B, H, T, d: T**-0.5,
    "the scores are divided by √n_head. Divide them by √head_size, the size of the last axis of q":
        lambda B, H, T, d: H**-0.5,
    "the scores are divided by √B, the batch size. Divide them by √head_size, the size of the last "
    "axis of q":
        lambda B, H, T, d: B**-0.5,
}

# How the scores become weights.
MASKS_AND_SOFTMAXES = {
    "": _masked_softmax,
    "there is no mask. Position i should give weight to positions 0 … i only":
        lambda scores, allowed, softmax: softmax(scores),
    "the mask comes after the softmax, so the rows no longer sum to 1. Hide the future before the "
    "softmax, with -inf":
        lambda scores, allowed, softmax: softmax(scores) * allowed,
    "the mask is transposed, so positions see the future and not the past. Keep the lower triangle "
    "(tril)":
        _allowed_by(lambda allowed: allowed.T),
    "the mask hides each position from itself, so the first position sees nothing and its row is "
    "nan. A position may attend to itself":
        _allowed_by(lambda allowed: allowed.tril(-1)),
    "the mask hides each position from itself. A position may attend to itself, so the diagonal is "
    "allowed":
        lambda scores, allowed, softmax: scores.masked_fill(~allowed.tril(-1), -1e9).softmax(-1),
    "the mask lets each position see the next one. Nothing above the diagonal is allowed":
        _allowed_by(lambda allowed: torch.ones_like(allowed).tril(1)),
    "the mask hides what is allowed and shows what is forbidden. Fill where the mask is False "
    "(~mask)":
        _allowed_by(lambda allowed: ~allowed),
    "hidden scores are set to 0, but exp(0) = 1 still gives them weight. Hide them with -inf, "
    "before the softmax":
        lambda scores, allowed, softmax: softmax(scores * allowed),
    "the softmax is missing. It turns each row of scores into weights that sum to 1":
        lambda scores, allowed, softmax: scores * allowed,
    "the softmax is missing after the mask. It turns each row of scores into weights that sum to 1":
        lambda scores, allowed, softmax: scores.masked_fill(~allowed, -math.inf),
    "the result contains the scores, without mask and softmax":
        lambda scores, allowed, softmax: scores,
    "the result contains logarithms. Use softmax, not log_softmax":
        lambda scores, allowed, softmax: _masked_softmax(scores, allowed, softmax).log(),
    "the softmax is taken twice. Take it once":
        lambda scores, allowed, softmax: softmax(_masked_softmax(scores, allowed, softmax)),
    "the scores have the wrong sign. A larger q · k means more attention. Check the signs":
        lambda scores, allowed, softmax: _masked_softmax(-scores, allowed, softmax),
    "the mask hides every position from itself, except the first position. Every position may "
    "attend to itself":
        _allowed_by(_without_the_diagonal_except_at_0),
    "the exponentials are not divided by their sum":
        lambda scores, allowed, softmax: scores.exp() * allowed,
    "each row of scores is divided by its sum, without the exponential. Use softmax":
        lambda scores, allowed, softmax:
            scores * allowed / (scores * allowed).sum(-1, keepdim=True),
    "only the largest score gets weight (argmax). Use softmax, which gives every score a weight":
        _largest_only,
    "all allowed positions get the same weight, whatever q and k are": _equal_weights,
    "scores that are exactly 0 are hidden, also in the past. A score of 0 may be a right score: "
    "let the mask decide, not the score":
        lambda scores, allowed, softmax:
            softmax(scores.tril().masked_fill(scores.tril() == 0, -math.inf)),
    "a sigmoid takes the place of the softmax, so the rows do not sum to 1":
        lambda scores, allowed, softmax: scores.sigmoid() * allowed,
    "exp is applied before the softmax, which takes the exponential itself":
        lambda scores, allowed, softmax: _masked_softmax(scores.exp(), allowed, softmax),
    "a mask of ones and zeros is added to the scores (or subtracted), so the future still gets "
    "weight. Hide it with -inf":
        lambda scores, allowed, softmax: softmax(scores + allowed),
    "negative scores are cut off at 0 (relu). A negative score is a small weight, not a mistake":
        lambda scores, allowed, softmax: _masked_softmax(scores.relu(), allowed, softmax),
    "the absolute values of the scores are used. A negative score means little attention":
        lambda scores, allowed, softmax: _masked_softmax(scores.abs(), allowed, softmax),
}

# The axis of the softmax.
AXES = {
    "": -1,
    "the softmax runs over the wrong axis, the queries. The weights of each query should sum to 1 "
    "over the keys, dim=-1": -2,
    "the softmax runs over the wrong axis, the heads. The weights of each query should sum to 1 "
    "over the keys, dim=-1": 1,
    "the softmax runs over the wrong axis, the batch. The weights of each query should sum to 1 "
    "over the keys, dim=-1": 0,
}

ALL_WEIGHT_IN_THE_FUTURE = (
    "the future is hidden after the softmax (or after the largest score of the whole row was "
    "subtracted). If all the weight is in the future, nothing is left, and 0 / 0 is nan. Hide the "
    "future first, with -inf"
)


def _masked_late(q, k):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril()
    return weights / weights.sum(-1, keepdim=True)


def _scaled_after_the_softmax(q, k):
    d = q.shape[-1]
    return _right_weights(q * d**0.5, k) / d**0.5


SCALED_LATE = (
    "the weights are divided by √head_size after the softmax, so the rows do not sum to 1. Divide "
    "the scores, before the softmax"
)


def _weight_properties(reader: Reader):
    cases = _weight_cases()
    mistakes = [
        *combined(_mistaken_weights, QUERIES_AND_KEYS, SCALES, MASKS_AND_SOFTMAXES, AXES),
        (SCALED_LATE, _scaled_after_the_softmax),
    ]
    trials = compare(reader, _right_weights, cases, mistakes)
    for trial in trials:
        finite(trial, "is a whole row hidden? Every position may attend to itself.")
        _rows_are_causal_weights(trial)
    _future_keys_change_nothing(reader, cases[4])
    agree(trials, ALIKE)
    _handles_large_scores(reader, cases[-1])
    agree(trials)
    keeps_device(reader, cases)
    hint = "is a part of it computed from .detach() or .data?"
    same_gradients(reader, _right_weights, cases[4], ("q", "k"), hint)


def _rows_are_causal_weights(trial):
    future = trial.got.triu(1)
    if future.any():
        raise Wrong(
            f"the future gets weight, up to {future.abs().max():.2g}, but it should get exactly 0. "
            "Hide it with -inf, before the softmax"
        )
    if (trial.got < 0).any():
        raise Wrong("some weights are negative, but a softmax gives no negative weights")
    missing = (trial.got == 0) & (trial.expected > 0)
    if missing.any():
        b, h, i, j = missing.nonzero()[0].tolist()
        other = "itself" if i == j else f"position {j}, which comes before it,"
        raise Wrong(f"position {i} gives {other} no weight at all. Hide only the future")
    sums = trial.got.sum(-1)
    if not close(sums, torch.ones_like(sums), ALIKE):
        raise Wrong(
            "the rows do not sum to 1. The last step should be the softmax over the keys, the last "
            "axis"
        )


def _future_keys_change_nothing(reader, case):
    before, T = reader(**case), case["q"].shape[2]
    for t in range(1, T):
        k = case["k"].clone()
        k[:, :, t:] = 50 * randn(*k[:, :, t:].shape, seed=t)
        if not close(reader(q=case["q"], k=k)[:, :, :t], before[:, :, :t]):
            raise Wrong(
                "the future leaks: when the keys from position "
                f"{t} on change, the weights of earlier positions change too"
            )


def _handles_large_scores(reader, case):
    for factor in (20.0, 2000.0):
        large = {"q": factor * case["q"], "k": case["k"]}
        mistakes = [(ALL_WEIGHT_IN_THE_FUTURE, _masked_late)]
        for trial in compare(reader, _right_weights, [large], mistakes):
            finite(
                trial,
                "exp overflows for large scores. Use torch.softmax, or subtract each row's largest "
                "score first.",
            )
            if not close(trial.got, trial.expected, 1e-3):
                raise Wrong(
                    "the weights are wrong for large scores. Is something clamped? Is the future "
                    "hidden with a finite number? Only -inf is safe"
                )


# split_heads --------------------------------------------------------------------------------------


def check_split_heads(split_heads) -> Result:
    """Check `split_heads(x, n_head)`.

    It turns (B, T, C) into (B, n_head, T, C / n_head): head h gets slice h of every position.
    """
    return check(
        "split_heads",
        split_heads,
        _split_properties,
        "head h contains slice h of each position's channels",
    )


def _right_split(x, n_head):
    size = x.shape[-1] // n_head
    return torch.stack([x[:, :, h * size : (h + 1) * size] for h in range(n_head)], dim=1)


def _different_numbers(*shape, dtype=torch.float64):
    """Return a tensor in which no number occurs twice."""
    n = math.prod(shape)
    return torch.randperm(n, generator=torch.Generator().manual_seed(n)).to(dtype).view(shape) / 10


def _split_cases():
    def case(B, T, C, n_head, dtype=torch.float64):
        return {"x": _different_numbers(B, T, C, dtype=dtype), "n_head": n_head}

    return [
        case(1, 1, 2, 2),
        case(1, 2, 2, 1),
        case(1, 2, 4, 2),
        case(1, 3, 6, 3),
        case(2, 5, 6, 2),
        case(3, 4, 16, 4),
        case(2, 7, 12, 3, torch.float32),
    ]


def _head_size(x, n_head):
    return x.shape[-1] // n_head


def _the_others_0(x, n_head):
    head_of_channel = torch.arange(x.shape[-1]) // _head_size(x, n_head)
    own = head_of_channel == torch.arange(n_head)[:, None, None]  # (n_head, 1, C)
    return x[:, None] * own


def _cut(x, n_head):
    """Return x as (B, T, n_head, head_size)."""
    return x.reshape(*x.shape[:2], n_head, _head_size(x, n_head))


def _cut_otherwise(x, n_head):
    """Return x as (B, T, head_size, n_head)."""
    return x.reshape(*x.shape[:2], _head_size(x, n_head), n_head)


SPLIT_MISTAKES = [
    ("positions are mixed up: a `view` straight to (B, n_head, T, head_size) cuts along time. View "
     "as (B, T, n_head, head_size), and then transpose axes 1 and 2",
     lambda x, n_head: x.reshape(len(x), n_head, x.shape[1], _head_size(x, n_head))),
    ("neighbouring channels go to different heads. Head 0 should get the first head_size channels, "
     "so view as (…, n_head, head_size)",
     lambda x, n_head: _cut_otherwise(x, n_head).permute(0, 3, 1, 2)),
    ("the result still has the shape (B, T, n_head, head_size). Transpose axes 1 and 2, so that "
     "the heads come first",
     _cut),
    ("each head has the shape (head_size, T). Transpose only axes 1 and 2, so that head_size stays "
     "the last axis",
     lambda x, n_head: _cut(x, n_head).permute(0, 2, 3, 1)),
    ("n_head and head_size are swapped. There should be n_head slices, each of C / n_head channels",
     lambda x, n_head: _cut_otherwise(x, n_head).transpose(1, 2)),
    ("the heads are in the reverse order. Head 0 gets the first slice",
     lambda x, n_head: _right_split(x, n_head).flip(1)),
    ("every head gets all channels. Head h should get its own slice, C / n_head channels wide",
     lambda x, n_head: x[:, None].expand(-1, n_head, -1, -1)),
    ("all heads get the first slice. Head h should get slice h",
     lambda x, n_head: _right_split(x, n_head)[:, :1].expand(-1, n_head, -1, -1)),
    ("the positions are in the reverse order", lambda x, n_head: _right_split(x, n_head).flip(2)),
    ("the heads come before the batch. The batch stays the first axis",
     lambda x, n_head: _right_split(x, n_head).transpose(0, 1)),
    ("each head begins one channel after the head before it. Head h should begin at channel "
     "h · head_size",
     lambda x, n_head: torch.stack(
         [x[:, :, h : h + _head_size(x, n_head)] for h in range(n_head)], dim=1)),
    ("the heads are the last axis. The shape should be (B, n_head, T, head_size)",
     lambda x, n_head: _right_split(x, n_head).permute(0, 2, 3, 1)),
    ("the slices are joined again, so the result is x. Put them below one another in a new axis "
     "(stack)",
     lambda x, n_head: x),
    ("each head still has all C channels, of which the others are 0. A head is C / n_head wide",
     lambda x, n_head: _the_others_0(x, n_head)),
    ("all heads get the last slice. Head h should get slice h",
     lambda x, n_head: _right_split(x, n_head)[:, -1:].expand(-1, n_head, -1, -1)),
    ("the batch and the heads are one axis. The shape should be (B, n_head, T, head_size)",
     lambda x, n_head: _right_split(x, n_head).flatten(0, 1)),
    ("time is cut, and the channels are not. Cut the last axis",
     lambda x, n_head: x.reshape(len(x), n_head, -1, x.shape[-1])),
    ("each head's numbers are transposed by a view. After the split, only transpose axes 1 and 2",
     lambda x, n_head: _cut(x, n_head).permute(0, 2, 3, 1).reshape(
         len(x), n_head, x.shape[1], _head_size(x, n_head))),
]


def _split_properties(reader: Reader):
    cases = _split_cases()
    trials = compare(reader, _right_split, cases, SPLIT_MISTAKES)
    for trial in trials:
        _has_the_same_numbers(trial, "x")
    for trial in trials:
        _positions_stay_apart(trial)
    agree(trials)
    keeps_device(reader, cases)
    hint = "is a part of it copied by .detach() or .data?"
    same_gradients(reader, _right_split, cases[4], ("x",), hint)


def _sorted_numbers(x):
    return x.flatten().sort().values


def _has_the_same_numbers(trial, name):
    if not close(_sorted_numbers(trial.got), _sorted_numbers(trial.expected)):
        raise Wrong(
            f"some numbers of `{name}` are lost or changed. Each should appear in the result "
            "exactly once, unchanged"
        )


def _positions_stay_apart(trial):
    B, _, T, _ = trial.got.shape
    for b in range(B):
        for t in range(T):
            got, expected = trial.got[b, :, t], trial.expected[b, :, t]
            if not close(_sorted_numbers(got), _sorted_numbers(expected)):
                raise Wrong(
                    f"positions are mixed up: the numbers in the heads at batch {b}, position {t} "
                    f"do not all come from x[{b}, {t}]"
                )


# merge_heads --------------------------------------------------------------------------------------


def check_merge_heads(merge_heads) -> Result:
    """Check `merge_heads(y)`, the inverse of `split_heads`: (B, H, T, d) becomes (B, T, H · d)."""
    return check("merge_heads", merge_heads, _merge_properties, "it is the inverse of split_heads")


def _right_merge(y):
    return torch.cat([y[:, h] for h in range(y.shape[1])], dim=-1)


def _merged_shape(y):
    B, H, T, d = y.shape
    return B, T, H * d


SIDE_BY_SIDE = "Put the heads side by side, head_size channels after head_size channels"
ALONG_THE_CHANNELS = "Put them side by side, along the channels"

MERGE_MISTAKES = [
    ("positions are mixed up. First transpose axes 1 and 2, so that each position's heads are side "
     "by side, and then reshape",
     lambda y: y.reshape(_merged_shape(y))),
    ("the channels of different heads alternate. Each head's channels stay together, and the heads "
     "follow one another, side by side",
     lambda y: y.permute(0, 2, 3, 1).reshape(_merged_shape(y))),
    ("each head's numbers are transposed. Transpose only axes 1 and 2",
     lambda y: y.transpose(2, 3).reshape(_merged_shape(y))),
    (f"the result is the average of the heads. {SIDE_BY_SIDE}", lambda y: y.mean(1)),
    (f"the heads are added up. {SIDE_BY_SIDE}", lambda y: y.sum(1)),
    (f"the result is the largest number among the heads. {SIDE_BY_SIDE}", lambda y: y.amax(1)),
    (f"only the first head is left. {SIDE_BY_SIDE}", lambda y: y[:, 0]),
    (f"only the last head is left. {SIDE_BY_SIDE}", lambda y: y[:, -1]),
    (f"the heads follow one after another along time. {ALONG_THE_CHANNELS}",
     lambda y: y.reshape(y.shape[0], -1, y.shape[3])),
    (f"the heads alternate along time. {ALONG_THE_CHANNELS}",
     lambda y: y.transpose(1, 2).reshape(y.shape[0], -1, y.shape[3])),
    ("the heads are in the reverse order. Head 0 comes first", lambda y: _right_merge(y.flip(1))),
    ("axes 1 and 2 are transposed, and that is right. Now make one axis of n_head and head_size: "
     "(B, T, C)",
     lambda y: y.transpose(1, 2)),
    ("time and channels are swapped. The shape should be (B, T, C)",
     lambda y: _right_merge(y).transpose(1, 2)),
    ("the channels of each head are averaged. Keep all channels, and put the heads side by side",
     lambda y: y.mean(-1)),
    ("the channels of each head are averaged. Keep all channels, and put the heads side by side",
     lambda y: y.mean(-1).transpose(1, 2)),
    ("batch and time are one axis. The shape should be (B, T, C)",
     lambda y: _right_merge(y).flatten(0, 1)),
    ("the rows of the batch are put side by side, not the heads. The heads are axis 1",
     lambda y: torch.cat(list(y), dim=-1)),
    (f"the result is the smallest number among the heads. {SIDE_BY_SIDE}", lambda y: y.amin(1)),
    (f"the heads are multiplied. {SIDE_BY_SIDE}", lambda y: y.prod(1)),
    ("the first head is repeated in the place of all heads. Put head h at slice h",
     lambda y: y[:, 0].repeat(1, 1, y.shape[1])),
    ("time is flattened too. The shape should be (B, T, C)",
     lambda y: y.transpose(1, 2).flatten(1)),
]


def _merge_properties(reader: Reader):
    shapes = ((1, 1, 1, 2), (1, 2, 2, 1), (1, 2, 2, 2), (1, 3, 2, 2), (2, 2, 5, 3), (3, 4, 4, 4))
    cases = [{"y": _different_numbers(*shape)} for shape in shapes]
    cases.append({"y": _different_numbers(2, 3, 7, 4, dtype=torch.float32)})
    trials = compare(reader, _right_merge, cases, MERGE_MISTAKES)
    for trial in trials:
        _has_the_same_numbers(trial, "y")
    agree(trials)
    keeps_device(reader, cases)
    hint = "is a part of it copied by .detach() or .data?"
    same_gradients(reader, _right_merge, cases[4], ("y",), hint)
