"""Chapter 2's exercises: two masks, attention for one query, and all heads of a layer."""

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
    """Check `attention_weights(q, k, window)`.

    It turns queries and keys, (B, H, T, d) each, into weights (B, H, T, T): the scores are scaled
    by √d and masked, and then the softmax runs over the last axis. A position attends to the last
    `window` positions, itself included.
    """
    return check(
        "attention_weights",
        attention_weights,
        _weight_properties,
        "the scores are divided by √head_size, only the window gets weight, every row sums to 1, "
        "and the gradients are right",
    )


def _right_weights(q, k, window):
    B, H, T, d = q.shape
    weights = torch.zeros(B, H, T, T, dtype=q.dtype, device=q.device)
    for t in range(T):
        seen = slice(max(0, t - window + 1), t + 1)
        scores = (k[:, :, seen] * q[:, :, t, None]).sum(-1) / math.sqrt(d)  # (B, H, seen)
        weights[:, :, t, seen] = scores.softmax(-1)
    return weights


def _weight_cases():
    def case(B, H, T, d, window, seed, dtype=torch.float64):
        q = 1.5 * randn(B, H, T, d, seed=seed, dtype=dtype)
        k = 1.5 * randn(B, H, T, d, seed=seed + 100, dtype=dtype)
        return {"q": q, "k": k, "window": window}

    a_key_of_zeros = torch.tensor([[[[1.0, 0.0], [0.0, 0.0], [2.0, 1.0]]]])
    return [
        case(1, 1, 1, 2, 2, 1),
        case(1, 1, 2, 1, 2, 2),
        case(1, 2, 3, 4, 2, 3),
        # A window that is longer than the text.
        case(3, 1, 5, 7, 9, 4),
        case(2, 3, 6, 5, 3, 5),
        # A key of zeros: its scores are exactly 0, and they count like all others.
        {"q": torch.ones(1, 1, 3, 2), "k": a_key_of_zeros, "window": 3},
        case(1, 1, 3, 2, 1, 7),
        case(2, 4, 7, 3, 4, 6, torch.float32),
    ]


def _mistaken_weights(options):
    choose, scale, see, finish, axis = options

    def weights(q, k, window):
        q, k = choose(q, k)
        scores = q @ k.transpose(-2, -1) * scale(*q.shape)
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
        allowed = see(ones, window)
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

# What a position may see, as a function of a table of True and the window.
WINDOWS = {
    "": lambda ones, window: ones.tril().triu(1 - window),
    "the window is missing, so each position sees the whole past. Hide the positions before the "
    "window too":
        lambda ones, window: ones.tril(),
    "the window is one position too long. The position itself counts, so it sees window - 1 "
    "positions before it":
        lambda ones, window: ones.tril().triu(-window),
    "the window is one position too short. The position itself counts, and it sees window - 1 "
    "positions before it":
        lambda ones, window: ones.tril().triu(2 - window),
    "the window reaches into the future too. It should end at the position itself":
        lambda ones, window: ones.tril(window - 1).triu(1 - window),
    "the near positions are hidden, and those before the window are not. Keep the window itself":
        lambda ones, window: ones.tril(-window),
    "the text is cut into blocks of `window` positions. Each position needs a window of its own, "
    "which ends at it":
        lambda ones, window: ones.tril() & _same_block(len(ones), window),
}


def _same_block(T, window):
    block = torch.arange(T) // window
    return block == block[:, None]


# How the scores become weights.
MASKS_AND_SOFTMAXES = {
    "": _masked_softmax,
    "there is no mask. Position i should give weight to itself and to the positions of the window "
    "before it":
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
        _allowed_by(lambda allowed: allowed | torch.ones_like(allowed).tril(1).triu(1)),
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
            softmax(scores.masked_fill(~allowed | (scores == 0), -math.inf)),
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


def _masked_late(q, k, window):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril().triu(1 - window)
    return weights / weights.sum(-1, keepdim=True)


def _scaled_after_the_softmax(q, k, window):
    d = q.shape[-1]
    return _right_weights(q * d**0.5, k, window) / d**0.5


SCALED_LATE = (
    "the weights are divided by √head_size after the softmax, so the rows do not sum to 1. Divide "
    "the scores, before the softmax"
)


def _weight_properties(reader: Reader):
    cases = _weight_cases()
    mistakes = [
        *combined(_mistaken_weights, QUERIES_AND_KEYS, SCALES, WINDOWS, MASKS_AND_SOFTMAXES, AXES),
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
    if trial.got.tril(-trial.given["window"]).any():
        raise Wrong(
            "positions before the window get weight, but it should be exactly 0. For window = "
            f"{trial.given['window']} a position sees itself and the "
            f"{trial.given['window'] - 1} positions before it"
        )
    if (trial.got < 0).any():
        raise Wrong("some weights are negative, but a softmax gives no negative weights")
    missing = (trial.got == 0) & (trial.expected > 0)
    if missing.any():
        b, h, i, j = missing.nonzero()[0].tolist()
        other = "itself" if i == j else f"position {j}, which comes before it,"
        raise Wrong(
            f"position {i} gives {other} no weight at all, for window = {trial.given['window']}. "
            "Hide only the future and what lies before the window"
        )
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
        after = reader(**{**case, "k": k})
        if not close(after[:, :, :t], before[:, :, :t]):
            raise Wrong(
                "the future leaks: when the keys from position "
                f"{t} on change, the weights of earlier positions change too"
            )


def _handles_large_scores(reader, case):
    for factor in (20.0, 2000.0):
        large = {**case, "q": factor * case["q"]}
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


# one_query ----------------------------------------------------------------------------------------


def check_one_query(one_query) -> Result:
    """Check `one_query(q, keys, values)`.

    It returns what the newest position gathers, (B, H, d), from its query, (B, H, d), and from the
    keys and values of all positions up to it, (B, H, T, d) each. No position is in its future.
    """
    return check(
        "one_query",
        one_query,
        _one_query_properties,
        "the newest position gathers from all positions, with the weights of its own query",
    )


def _right_one_query(q, keys, values):
    B, H, T, d = keys.shape
    result = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            scores = (keys[b, h] * q[b, h]).sum(-1) / math.sqrt(d)  # (T,)
            result[b, h] = (scores.softmax(0)[:, None] * values[b, h]).sum(0)
    return result


def _one_query_cases():
    def case(B, H, T, d, seed, dtype=torch.float64):
        shape = B, H, T, d
        return {
            "q": 1.5 * randn(B, H, d, seed=seed, dtype=dtype),
            "keys": 1.5 * randn(*shape, seed=seed + 100, dtype=dtype),
            "values": randn(*shape, seed=seed + 200, dtype=dtype),
        }

    return [
        case(1, 1, 1, 2, 1),
        case(1, 1, 2, 1, 2),
        case(1, 1, 3, 2, 3),
        case(1, 2, 4, 3, 4),
        case(2, 3, 5, 5, 5),
        case(3, 2, 6, 4, 6),
        case(2, 4, 7, 3, 7, torch.float32),
    ]


def _gathered(q, keys, values, scale=None, weigh=lambda scores: scores.softmax(-1)):
    """Return the result with another scale, or with other weights, (B, H, 1, T)."""
    scale = keys.shape[-1] ** -0.5 if scale is None else scale
    scores = q[:, :, None] @ keys.mT * scale  # (B, H, 1, T)
    return (weigh(scores) @ values)[:, :, 0]


def _largest_weight_only(scores):
    return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)


ONE_SEEN = (
    "only the first position is seen. A causal mask for one row allows only position 0, but the "
    "query belongs to the newest position, which sees all. No mask is needed"
)

ONE_QUERY_MISTAKES = [
    (ONE_SEEN, lambda q, keys, values: values[:, :, 0]),
    ("the result is the value of the newest position alone. It should gather from all positions",
     lambda q, keys, values: values[:, :, -1]),
    ("all positions get the same weight, whatever the query is. Use the scores of q with the keys",
     lambda q, keys, values: values.mean(2)),
    ("all weights are 1, so the values are added up. Does the softmax run over the axis with one "
     "query? It should run over the positions",
     lambda q, keys, values: values.sum(2)),
    ("the scale is missing. Divide the scores by √head_size",
     lambda q, keys, values: _gathered(q, keys, values, scale=1)),
    ("the scores are divided by head_size, or by √head_size twice. Divide them by its square root, "
     "once",
     lambda q, keys, values: _gathered(q, keys, values, scale=1 / keys.shape[-1])),
    ("the scores are multiplied by √head_size. Divide them by it",
     lambda q, keys, values: _gathered(q, keys, values, scale=keys.shape[-1] ** 0.5)),
    ("the scores are divided by √T, the number of positions. Divide them by √head_size",
     lambda q, keys, values: _gathered(q, keys, values, scale=keys.shape[2] ** -0.5)),
    ("the scores are divided by √n_head. Divide them by √head_size",
     lambda q, keys, values: _gathered(q, keys, values, scale=keys.shape[1] ** -0.5)),
    ("the softmax is missing. It turns the scores into weights that sum to 1",
     lambda q, keys, values: _gathered(q, keys, values, weigh=lambda scores: scores)),
    ("the exponentials are not divided by their sum",
     lambda q, keys, values: _gathered(q, keys, values, weigh=torch.exp)),
    ("a sigmoid takes the place of the softmax, so the weights do not sum to 1",
     lambda q, keys, values: _gathered(q, keys, values, weigh=torch.sigmoid)),
    ("the softmax is taken twice. Take it once",
     lambda q, keys, values: _gathered(
         q, keys, values, weigh=lambda scores: scores.softmax(-1).softmax(-1))),
    ("only the largest score gets weight (argmax). Use softmax, which gives every score a weight",
     lambda q, keys, values: _gathered(q, keys, values, weigh=_largest_weight_only)),
    ("the softmax runs over the wrong axis, the heads. It should run over the positions",
     lambda q, keys, values: _gathered(
         q, keys, values, weigh=lambda scores: scores.softmax(1))),
    ("the softmax runs over the wrong axis, the batch. It should run over the positions",
     lambda q, keys, values: _gathered(
         q, keys, values, weigh=lambda scores: scores.softmax(0))),
    ("the scores have the wrong sign. A larger q · k means more attention",
     lambda q, keys, values: _gathered(-q, keys, values)),
    ("keys and values are swapped. The scores come from the keys, and the values are added up",
     lambda q, keys, values: _gathered(q, values, keys)),
    ("the keys are added up, and the values are never used",
     lambda q, keys, values: _gathered(q, keys, keys)),
    ("the scores come from the values, and the keys are never used",
     lambda q, keys, values: _gathered(q, values, values)),
    ("the newest position is left out. It attends to itself too",
     lambda q, keys, values: _gathered(q, keys[:, :, :-1], values[:, :, :-1])),
    ("the first position is left out. The newest position sees all",
     lambda q, keys, values: _gathered(q, keys[:, :, 1:], values[:, :, 1:])),
    ("every row of the batch uses the query of the first one",
     lambda q, keys, values: _gathered(q[:1].expand_as(q), keys, values)),
    ("every head uses the query of the first one. Head h has a query of its own",
     lambda q, keys, values: _gathered(q[:, :1].expand_as(q), keys, values)),
    ("the result has an axis too many, for the one query. Its shape should be (B, n_head, "
     "head_size)",
     lambda q, keys, values: _gathered(q, keys, values)[:, :, None]),
    ("the result contains the weights. Multiply them by the values, and add up",
     lambda q, keys, values: (
         q[:, :, None] @ keys.mT / keys.shape[-1] ** 0.5).softmax(-1)[:, :, 0]),
    ("the result contains the weights. Multiply them by the values, and add up",
     lambda q, keys, values: (q[:, :, None] @ keys.mT / keys.shape[-1] ** 0.5).softmax(-1)),
]


def _one_query_properties(reader: Reader):
    cases = _one_query_cases()
    trials = compare(reader, _right_one_query, cases, ONE_QUERY_MISTAKES)
    for trial in trials:
        finite(trial, "is a position hidden? The newest position sees all of them.")
    agree(trials, ALIKE)
    for factor in (20.0, 2000.0):
        large = {**cases[-1], "q": factor * cases[-1]["q"]}
        for trial in compare(reader, _right_one_query, [large]):
            finite(trial, "exp overflows for large scores. Use torch.softmax.")
            if not close(trial.got, trial.expected, 1e-3):
                raise Wrong("the result is wrong for large scores. Is something clamped?")
    agree(trials)
    keeps_device(reader, cases)
    hint = "is a part of it computed from .detach() or .data?"
    same_gradients(reader, _right_one_query, cases[4], ("q", "keys", "values"), hint)


# all_heads ----------------------------------------------------------------------------------------


def check_all_heads(all_heads) -> Result:
    """Check `all_heads(x, w_query, w_key, w_value, w_out)`.

    Each head has matrices of its own: (H, C, d) for queries, keys and values, and (H, d, C) for its
    output. The result, (B, T, C), is the sum of what all heads add.
    """
    return check(
        "all_heads",
        all_heads,
        _all_heads_properties,
        "each head attends by itself, and the outputs of all heads are added up",
    )


def _right_all_heads(x, w_query, w_key, w_value, w_out):
    result = torch.zeros_like(x)
    for h in range(len(w_query)):
        q, k, v = x @ w_query[h], x @ w_key[h], x @ w_value[h]  # (B, T, d) each
        for t in range(x.shape[1]):
            scores = (k[:, : t + 1] * q[:, t, None]).sum(-1) / math.sqrt(k.shape[-1])
            gathered = (scores.softmax(-1)[..., None] * v[:, : t + 1]).sum(1)  # (B, d)
            result[:, t] = result[:, t] + gathered @ w_out[h]
    return result


def _all_heads_cases():
    def case(B, T, H, C, d, seed, dtype=torch.float64):
        case = {"x": randn(B, T, C, seed=seed, dtype=dtype)}
        for i, name in enumerate(("w_query", "w_key", "w_value")):
            case[name] = randn(H, C, d, seed=seed + 100 * (i + 1), dtype=dtype)
        return case | {"w_out": randn(H, d, C, seed=seed + 400, dtype=dtype)}

    return [
        case(1, 1, 1, 2, 1, 1),
        case(1, 2, 1, 2, 2, 2),
        case(1, 3, 2, 2, 1, 3),
        case(2, 4, 2, 6, 3, 4),
        # The heads of this layer are wider than C / n_head.
        case(2, 5, 3, 4, 2, 5),
        case(3, 4, 3, 4, 5, 6),
        case(2, 6, 4, 8, 2, 7, torch.float32),
    ]


def _heads(
    x,
    w_query,
    w_key,
    w_value,
    w_out,
    scale=lambda x, q: q.shape[-1] ** -0.5,
    weigh=_masked_softmax,
    softmax=lambda scores: scores.softmax(-1),
    join=lambda outputs: outputs.sum(1),
):
    """Return the layer's result, of which one step may be another."""
    x_of_heads = x[:, None]  # (B, 1, T, C)
    q, k, v = x_of_heads @ w_query, x_of_heads @ w_key, x_of_heads @ w_value  # (B, H, T, d)
    scores = q @ k.mT * scale(x, q)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
    return join(weigh(scores, allowed, softmax) @ v @ w_out)


def _with(**changes):
    """Return a mistaken function in which one step of `_heads` is another."""
    return lambda x, w_query, w_key, w_value, w_out: _heads(
        x, w_query, w_key, w_value, w_out, **changes
    )


def _one_head_for_all(weights, head):
    return weights[[head]].expand_as(weights)


def _weights_of_head_0(scores, allowed, softmax):
    return _masked_softmax(scores[:, :1], allowed, softmax)


ALL_HEADS_MISTAKES = [
    ("there is no mask. A position may see itself and the positions before it",
     _with(weigh=lambda scores, allowed, softmax: softmax(scores))),
    ("the mask comes after the softmax, so the weights no longer sum to 1. Hide the future before "
     "the softmax, with -inf",
     _with(weigh=lambda scores, allowed, softmax: softmax(scores) * allowed)),
    ("the mask is transposed, so positions see the future and not the past",
     _with(weigh=_allowed_by(lambda allowed: allowed.T))),
    ("hidden scores are set to 0, but exp(0) = 1 still gives them weight. Hide them with -inf, "
     "before the softmax",
     _with(weigh=lambda scores, allowed, softmax: softmax(scores * allowed))),
    ("the mask lets each position see the next one",
     _with(weigh=_allowed_by(lambda allowed: torch.ones_like(allowed).tril(1)))),
    ("the softmax is missing",
     _with(weigh=lambda scores, allowed, softmax: scores * allowed)),
    ("the softmax runs over the wrong axis, the queries. It should run over the keys",
     _with(softmax=lambda scores: scores.softmax(-2))),
    ("all positions up to the present one get the same weight, whatever the scores are",
     _with(weigh=_equal_weights)),
    ("all heads use the weights of head 0. Each head has scores of its own",
     _with(weigh=_weights_of_head_0)),
    ("the scale is missing. Divide the scores by √head_size", _with(scale=lambda x, q: 1)),
    ("the scores are divided by √C, the channels of x. Divide them by √head_size, the channels of "
     "a query",
     _with(scale=lambda x, q: x.shape[-1] ** -0.5)),
    ("the scores are divided by head_size. Divide them by its square root",
     _with(scale=lambda x, q: 1 / q.shape[-1])),
    ("the scores are divided by √T. Divide them by √head_size",
     _with(scale=lambda x, q: x.shape[1] ** -0.5)),
    ("the scores are divided by √n_head. Divide them by √head_size",
     _with(scale=lambda x, q: q.shape[1] ** -0.5)),
    ("the outputs of the heads are averaged. Add them up",
     _with(join=lambda outputs: outputs.mean(1))),
    ("the outputs of the heads are multiplied. Add them up",
     _with(join=lambda outputs: outputs.prod(1))),
    ("only the first head is in the result. Add the outputs of all heads",
     _with(join=lambda outputs: outputs[:, 0])),
    ("only the last head is in the result. Is it overwritten in each step of a loop? Add the "
     "outputs of all heads",
     _with(join=lambda outputs: outputs[:, -1])),
    ("the first head is left out, or the loop begins at 1",
     _with(join=lambda outputs: outputs[:, 1:].sum(1))),
    ("the last head is left out",
     _with(join=lambda outputs: outputs[:, :-1].sum(1))),
    ("the heads are still apart, (B, n_head, T, C). Add their outputs up",
     _with(join=lambda outputs: outputs)),
    ("the outputs of the heads are side by side. Add them up, so that C channels are left",
     _with(join=lambda outputs: outputs.transpose(1, 2).flatten(2))),
    ("x is added to the result. That is a residual connection, which belongs to chapter 3",
     lambda x, **matrices: x + _heads(x, **matrices)),
    ("each head gets the output of the head before it. All heads read the same x",
     lambda x, **matrices: _in_a_row(x, **matrices)),
    ("queries and keys are swapped. Row i should contain the scores of query i with every key",
     lambda x, w_query, w_key, w_value, w_out: _heads(x, w_key, w_query, w_value, w_out)),
    ("the keys are made with w_query, and w_key is never used",
     lambda x, w_query, w_key, w_value, w_out: _heads(x, w_query, w_query, w_value, w_out)),
    ("the queries are made with w_key, and w_query is never used",
     lambda x, w_query, w_key, w_value, w_out: _heads(x, w_key, w_key, w_value, w_out)),
    ("the values are made with w_key, and w_value is never used",
     lambda x, w_query, w_key, w_value, w_out: _heads(x, w_query, w_key, w_key, w_out)),
    ("all heads use the output matrix of head 0. Head h has w_out[h]",
     lambda x, w_query, w_key, w_value, w_out:
         _heads(x, w_query, w_key, w_value, _one_head_for_all(w_out, 0))),
    ("all heads use the values of head 0. Head h has w_value[h]",
     lambda x, w_query, w_key, w_value, w_out:
         _heads(x, w_query, w_key, _one_head_for_all(w_value, 0), w_out)),
    ("the output matrices are missing, and the values of the heads are added up",
     lambda x, w_query, w_key, w_value, w_out: _before_the_output(
         x, w_query, w_key, w_value).sum(1)),
    ("the output matrices are missing, and the values of the heads are side by side",
     lambda x, w_query, w_key, w_value, w_out: _before_the_output(
         x, w_query, w_key, w_value).transpose(1, 2).flatten(2)),
]


def _in_a_row(x, **matrices):
    for h in range(len(matrices["w_query"])):
        x = _heads(x, **{name: matrix[[h]] for name, matrix in matrices.items()})
    return x


def _before_the_output(x, w_query, w_key, w_value):
    identity = torch.eye(w_value.shape[-1], dtype=x.dtype, device=x.device)
    identities = identity.expand(len(w_value), -1, -1)
    return _heads(x, w_query, w_key, w_value, identities, join=lambda outputs: outputs)


def _all_heads_properties(reader: Reader):
    cases = _all_heads_cases()
    trials = compare(reader, _right_all_heads, cases, ALL_HEADS_MISTAKES)
    for trial in trials:
        finite(trial, "is a whole row hidden? Every position may attend to itself.")
    _no_earlier_output_changes(reader, cases[4])
    agree(trials)
    keeps_device(reader, cases)
    hint = "is a part of it computed from .detach() or .data?"
    same_gradients(reader, _right_all_heads, cases[3], tuple(cases[3]), hint)


def _no_earlier_output_changes(reader, case):
    before = reader(**case)
    for t in range(1, case["x"].shape[1]):
        x = case["x"].clone()
        x[:, t:] = 50 * randn(*x[:, t:].shape, seed=t)
        if not close(reader(**{**case, "x": x})[:, :t], before[:, :t]):
            raise Wrong(
                f"the future leaks: when x changes from position {t} on, the results of earlier "
                "positions change too"
            )
