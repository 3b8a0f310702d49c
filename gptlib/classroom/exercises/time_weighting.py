"""Chapter 6's exercises: weights by distance, token shift, a gate, and the best weights."""

import math

import torch
from torch.nn import functional as F

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

# distance_matrix ----------------------------------------------------------------------------------


def check_distance_matrix(distance_matrix) -> Result:
    """Check `distance_matrix(u)`.

    The argument has shape (H, T). The result has shape (H, T, T), with u[h, i - j] at [h, i, j] for
    i >= j, and 0 for keys in the future.
    """
    return check("distance_matrix", distance_matrix, _distance_properties,
                 "the result is constant along each diagonal, with distance 0 on the main diagonal "
                 "and 0 for the future, and the gradients are right")


def _distances(T, device=None):
    """Return i - j for query i and key j, (T, T)."""
    positions = torch.arange(T, device=device)
    return positions[:, None] - positions


def _right_matrix(u):
    H, T = u.shape
    matrix = torch.zeros(H, T, T, dtype=u.dtype, device=u.device)
    for i in range(T):
        for j in range(i + 1):
            matrix[:, i, j] = u[:, i - j]
    return matrix


def _distance_cases():
    def case(H, T, seed, dtype=torch.float64):
        return {"u": 2 + randn(H, T, seed=seed, dtype=dtype)}

    return [
        case(1, 1, 1),
        case(1, 2, 2),
        case(1, 3, 3),
        case(3, 4, 4),
        case(2, 6, 5),
        case(4, 5, 6, torch.float32),
    ]


def _mistaken_matrix(options):
    index, hide = options

    def matrix(u):
        T = u.shape[1]
        distances = _distances(T, u.device)
        return hide(u[:, index(distances, T)], distances)

    return matrix


# The index into u, for distances d and length T.
INDICES = {
    "": lambda d, T: d.clamp(min=0),
    "u is read backwards. The diagonal, where the distance is 0, should contain u[0]. MyGPT's own "
    "table is in the opposite order":
        lambda d, T: (T - 1 - d).clamp(max=T - 1),
    "every row contains u from its beginning. The index should be the distance i - j, not the key "
    "j":
        lambda d, T: torch.arange(T).expand(T, T),
    "every row repeats one number. The index should be the distance i - j, not the query i":
        lambda d, T: torch.arange(T)[:, None].expand(T, T),
    "the index is off by one: it is too large. Distance 0 means the query's own position, with "
    "weight u[0]":
        lambda d, T: (d + 1).clamp(0, T - 1),
    "the index is off by one: it is too small. The key one step back has distance 1, with weight "
    "u[1]":
        lambda d, T: (d - 1).clamp(min=0),
}

# What becomes of the future, for weights m and distances d.
FUTURES = {
    "": lambda m, d: m * (d >= 0),
    "the future gets weights too. The values above the diagonal, where j > i, should be 0":
        lambda m, d: m,
    "the result is transposed. Row i should belong to query i, and column j to key j":
        lambda m, d: (m * (d >= 0)).mT,
    "the diagonal is 0. A query may also weight its own key, by u[0]": lambda m, d: m * (d > 0),
    "the future contains 1. Keys that the query cannot see should get 0":
        lambda m, d: torch.where(d >= 0, m, torch.ones_like(m)),
    "the future contains -inf, which belongs to scores before a softmax. These are weights after "
    "the softmax, so the future should contain 0":
        lambda m, d: m.masked_fill(d < 0, -math.inf),
}

MATRIX_MISTAKES = [
    ("each row wraps around (the matrix is circulant). Above the diagonal i - j is negative, and a "
     "negative index counts from the end of u, as % does. These keys are in the future, and 0 is "
     "right there",
     lambda u: u[:, _distances(u.shape[1])]),
    ("the matrix is symmetric. The weight of |i - j| also stands above the diagonal, where the "
     "keys are in the future and 0 is right",
     lambda u: u[:, _distances(u.shape[1]).abs()]),
    ("the weight of every distance but 0 is taken from the end of u, because j - i is negative. "
     "The index should be i - j",
     lambda u: u[:, -_distances(u.shape[1])].tril()),
    ("all heads get the weights of head 0. Row h of u belongs to head h",
     lambda u: _right_matrix(u)[:1].expand(len(u), -1, -1)),
    ("each row is divided by its sum. The matrix contains the weights of u as they are",
     lambda u: _right_matrix(u) / _right_matrix(u).sum(-1, keepdim=True)),
    ("the exponential is taken. The matrix contains the weights of u as they are",
     lambda u: u.exp()[:, _distances(u.shape[1]).clamp(min=0)].tril()),
    ("the result contains the distances. Use them as an index into u",
     lambda u: _distances(u.shape[1]).clamp(min=0).to(u).expand(len(u), -1, -1)),
    ("each weight is multiplied by its distance. The distance is an index into u only",
     lambda u: _right_matrix(u) * _distances(u.shape[1])),
    ("the heads are the last axis. The shape should be (H, T, T)",
     lambda u: _right_matrix(u).permute(1, 2, 0)),
    ("u stands on the main diagonal, and everything else is 0. Each distance has a diagonal of its "
     "own",
     lambda u: torch.diag_embed(u)),
    ("the weights of all distances up to i - j are added up. Take the weight of i - j alone",
     lambda u: _right_matrix(u.cumsum(-1))),
    ("there is an axis for the batch. The shape should be (H, T, T)",
     lambda u: _right_matrix(u)[None]),
    *combined(_mistaken_matrix, INDICES, FUTURES),
]


def _distance_properties(reader: Reader):
    cases = _distance_cases()
    trials = compare(reader, _right_matrix, cases, MATRIX_MISTAKES)
    for trial in trials:
        if trial.got.triu(1).any():
            raise Wrong("the future gets weights. Above the diagonal, where key j comes after "
                        "query i, 0 is right")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_matrix, cases[4], ("u",),
                   "does each number of u reach every place where it should be?")


# token_shift --------------------------------------------------------------------------------------


def check_token_shift(token_shift) -> Result:
    """Check `token_shift(x)`.

    It returns a new tensor (B, T, C). Its first C // 2 channels come from one position before. The
    first position gets zeros there.
    """
    return check("token_shift", token_shift, _shift_properties,
                 "half of the channels come from one step back, and nothing comes from the future")


def _right_shift(x):
    shifted = x.clone()
    half = x.shape[-1] // 2
    for t in range(x.shape[1]):
        shifted[:, t, :half] = x[:, t - 1, :half] if t else 0
    return shifted


def _shift_cases():
    def case(B, T, C, seed, dtype=torch.float64):
        return {"x": randn(B, T, C, seed=seed, dtype=dtype)}

    return [
        case(1, 1, 2, 1),
        case(1, 2, 2, 2),
        case(1, 3, 4, 3),
        case(3, 4, 5, 4),
        case(2, 6, 8, 5),
        case(2, 5, 6, 6, torch.float32),
    ]


def _mistaken_shift(options):
    move, select = options

    def shift(x):
        C = x.shape[-1]
        channels = torch.arange(C, device=x.device)
        return torch.where(select(channels, C), move(x), x)

    return shift


def _later_by(n):
    """Return a function that moves every position n steps later, with zeros at the beginning."""
    return lambda x: torch.cat([torch.zeros_like(x[:, :n]), x], dim=1)[:, :x.shape[1]]


def _later_in_the_flattened_batch(x):
    """Move all positions one step later, as if the texts of the batch were one text."""
    return F.pad(x.flatten(0, 1), (0, 0, 1, -1)).view_as(x)


def _rolled_in_the_flattened_batch(x):
    return x.flatten(0, 1).roll(1, dims=0).view_as(x)


# What the selected channels become.
MOVES = {
    "": _later_by(1),
    "the first position gets channels of the last one, which is its own future. `roll` wraps "
    "around, and zeros are right there":
        lambda x: x.roll(1, dims=1),
    "each position gets channels of the next one. Position t should get what position t - 1 had":
        lambda x: torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1),
    "each position gets channels of the next one, and the last position gets channels of the "
    "first. Position t should get what position t - 1 had":
        lambda x: x.roll(-1, dims=1),
    "the batch axis is shifted. Time is axis 1":
        lambda x: torch.cat([torch.zeros_like(x[:1]), x[:-1]]),
    "the batch axis is rolled. Time is axis 1": lambda x: x.roll(1, dims=0),
    "the channels are shifted. Time is axis 1":
        lambda x: torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], dim=-1),
    "the texts of the batch are shifted as one long text, so the first position of a text gets "
    "channels of the text before it. Each text should begin with zeros":
        _later_in_the_flattened_batch,
    "the texts of the batch are rolled as one long text, so the first position of a text gets "
    "channels of another text. Each text should begin with zeros":
        _rolled_in_the_flattened_batch,
    "the difference to the position before is taken. The channels of the position before should "
    "replace the position's own channels":
        lambda x: x - _later_by(1)(x),
    "the position before is counted in all positions before: their sum is taken. One step is right":
        lambda x: _later_by(1)(x).cumsum(1),
    "the sign of the shifted channels is wrong": lambda x: -_later_by(1)(x),
    "the first position gets ones. There is nothing before it, so zeros are right":
        lambda x: torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], dim=1),
    "the shift is two steps long. One step is right": _later_by(2),
    "the first position keeps its own channels. There is nothing before it, so zeros are right":
        lambda x: torch.cat([x[:, :1], x[:, :-1]], dim=1),
    "the half that should come from the position before is 0 everywhere. If you read from the "
    "tensor that you write into, the zeros of position 0 reach all positions: read from x instead":
        torch.zeros_like,
    "the channels of the position before are added. They should replace the position's own "
    "channels":
        lambda x: x + _later_by(1)(x),
    "the result is the mean of each position and the position before. The channels of the position "
    "before should replace the position's own channels":
        lambda x: (x + _later_by(1)(x)) / 2,
}

# Which channels are shifted: a function of their numbers and of C.
SELECTIONS = {
    "": lambda channels, C: channels < C // 2,
    "all channels are shifted. The second half should stay": lambda channels, C: channels >= 0,
    "the second half of the channels is shifted. Shift the first C // 2 channels":
        lambda channels, C: channels >= C // 2,
    "every other channel is shifted, beginning with channel 0. Shift the first C // 2 channels":
        lambda channels, C: channels % 2 == 0,
    "every other channel is shifted, beginning with channel 1. Shift the first C // 2 channels":
        lambda channels, C: channels % 2 == 1,
    "nothing is shifted": lambda channels, C: channels < 0,
    "one channel too many is shifted if C is odd. C // 2 rounds down":
        lambda channels, C: channels < -(-C // 2),
}

def _halves(x):
    """Return the shifted first half of the channels, and the second half."""
    half = x.shape[-1] // 2
    return _later_by(1)(x)[..., :half], x[..., half:]


def _first_position_all_0(x):
    return torch.cat([torch.zeros_like(x[:, :1]), _right_shift(x)[:, 1:]], dim=1)


def _both_directions(x):
    first, second = _halves(x)
    next_one = torch.cat([second[:, 1:], torch.zeros_like(second[:, :1])], dim=1)
    return torch.cat([first, next_one], dim=-1)


def _half_of_the_positions(x):
    half = x.shape[1] // 2
    return torch.cat([_later_by(1)(x)[:, :half], x[:, half:]], dim=1)


SHIFT_MISTAKES = [
    ("the halves are in the wrong order. The shifted channels stay the first half",
     lambda x: torch.cat(_halves(x)[::-1], dim=-1)),
    ("the shifted channels are put beside x, so the result has too many channels. They should "
     "replace the first half",
     lambda x: torch.cat([_halves(x)[0], x], dim=-1)),
    ("the shifted channels are put beside x, so the result has too many channels. They should "
     "replace the first half",
     lambda x: torch.cat([_later_by(1)(x), x], dim=-1)),
    ("the second half is left out. It should stay beside the shifted channels",
     lambda x: _halves(x)[0]),
    ("the first position loses all its channels. Only its first half should be 0",
     _first_position_all_0),
    ("the second half comes from the next position, which is the future. It should stay",
     _both_directions),
    ("half of the positions are shifted. Shift half of the channels at every position",
     _half_of_the_positions),
    *combined(_mistaken_shift, MOVES, SELECTIONS),
]


def _shift_properties(reader: Reader):
    cases = _shift_cases()
    trials = compare(reader, _right_shift, cases, SHIFT_MISTAKES)
    _future_has_no_effect(reader, cases[4]["x"])
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_shift, cases[4], ("x",),
                   "is a part of it copied by .detach() or .data?")


def _future_has_no_effect(reader, x):
    """Change x from each position on. The results before that position should stay the same."""
    before = reader(x=x)
    for t in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, t:] += 1
        if not close(reader(x=changed)[:, :t], before[:, :t]):
            raise Wrong(f"the future leaks: another x from position {t} on changes the result "
                        "before that position")


# gate ---------------------------------------------------------------------------------------------


def check_gate(gate) -> Result:
    """Check `gate(scores, w)`.

    Both arguments have shape (T, T). The result has shape (T,): the factors by which the outputs of
    biased attention must be multiplied to become those of time-weighting.
    """
    return check("gate", gate, _gate_properties,
                 "it is the mean of w under each query's attention, also for large scores, and the "
                 "gradients are right")


def _right_gate(scores, w):
    gates = []
    for i in range(len(scores)):
        weights = scores[i, :i + 1].softmax(0)
        gates.append((weights * w[i, :i + 1]).sum())
    return torch.stack(gates)


def _gate_cases():
    def case(T, seed, dtype=torch.float64):
        scores = 2 * randn(T, T, seed=seed, dtype=dtype)
        return {"scores": scores, "w": randn(T, T, seed=seed + 50, dtype=dtype).exp()}

    return [case(1, 1), case(2, 2), case(3, 3), case(5, 4), case(7, 5), case(4, 6, torch.float32)]


def _ones_like(scores):
    return torch.ones_like(scores, dtype=torch.bool)


def _mistaken_gate(options):
    mask, combine, axis = options

    def gate(scores, w):
        hidden = ~mask(scores)
        plain = scores.masked_fill(hidden, -math.inf)
        return combine(plain, plain + w.log(), plain + w, axis)

    return gate


# Which keys a query sees.
GATE_MASKS = {
    "": lambda scores: _ones_like(scores).tril(),
    "there is no mask. Query i sees keys 0 … i, and both sums should run over these keys only":
        _ones_like,
    "the mask is transposed, so queries see their future. Keep the lower triangle (tril)":
        lambda scores: _ones_like(scores).triu(),
    "the mask hides each query's own key. The diagonal is allowed":
        lambda scores: _ones_like(scores).tril(-1),
}

# How the gate is computed from the masked scores s, from b = s + log w, from s + w, and the axis.
GATE_FORMULAS = {
    "": lambda s, b, s_plus_w, axis: (b.logsumexp(axis) - s.logsumexp(axis)).exp(),
    "the result is one divided by the gate. Subtract LSE(scores) from LSE(scores + log w), not the "
    "other way round":
        lambda s, b, s_plus_w, axis: (s.logsumexp(axis) - b.logsumexp(axis)).exp(),
    "the result is the gate's logarithm, because the last exp is missing":
        lambda s, b, s_plus_w, axis: b.logsumexp(axis) - s.logsumexp(axis),
    "w itself is added to the scores, or exp is applied to w. Add log w, because "
    "exp(s + log w) = w exp(s)":
        lambda s, b, s_plus_w, axis: (s_plus_w.logsumexp(axis) - s.logsumexp(axis)).exp(),
    "one LSE is divided by the other. The ratio of two sums of exponentials is the exp of the "
    "*difference* of their LSEs":
        lambda s, b, s_plus_w, axis: b.logsumexp(axis) / s.logsumexp(axis),
    "the result is the weighted sum alone. It should still be divided by the sum of exp(scores)":
        lambda s, b, s_plus_w, axis: b.exp().sum(axis),
    "the result is the sum of w, in which every key counts the same. Each key should count by its "
    "attention":
        lambda s, b, s_plus_w, axis: (b - s).exp().nan_to_num(0).sum(axis),
    "the result is the plain mean of w, in which every key counts the same. Each key should count "
    "by its attention":
        lambda s, b, s_plus_w, axis:
            (b - s).exp().nan_to_num(0).sum(axis) / s.isfinite().sum(axis),
    "the result is the mean of log w. The gate is the mean of w itself":
        lambda s, b, s_plus_w, axis: (s.softmax(axis) * (b - s).nan_to_num(0)).sum(axis),
    "the result is the geometric mean of w, the exp of the mean of log w. The gate is the mean of "
    "w itself":
        lambda s, b, s_plus_w, axis: (s.softmax(axis) * (b - s).nan_to_num(0)).sum(axis).exp(),
    "the result is 1 everywhere. It is the sum of each row of biased attention, not the gate":
        lambda s, b, s_plus_w, axis: b.softmax(axis).sum(axis),
    "the softmax runs over the queries. The weights of each query should sum to 1 over its keys, "
    "along the last axis":
        lambda s, b, s_plus_w, axis: (s.softmax(0) * (b - s).exp().nan_to_num(0)).sum(-1),
}

# The axis of both sums.
GATE_AXES = {
    "": -1,
    "the sums run over the queries. Each query should sum over its keys, along the last axis": 0,
}


def _gate_with_zeros_for_the_future(w_of_the_future):
    """Return a gate whose future scores are 0, and whose future w are what the argument makes."""
    def gate(scores, w):
        return (scores.tril().softmax(-1) * w_of_the_future(w)).sum(-1)
    return gate


def _seen(scores):
    """Return the scores with -inf for the future."""
    return scores.masked_fill(~_ones_like(scores).tril(), -math.inf)


def _gate_of(formula):
    """Return a gate that is `formula(masked scores, w)`."""
    return lambda scores, w: formula(_seen(scores), w)


ZERO_SCORES = (
    "the scores of the future are set to 0 (as by `tril`), but exp(0) = 1 still counts. Hide them "
    "with -inf")

GATE_MISTAKES = [
    ("the mask comes after the softmax, so the weights no longer sum to 1 (or the sum with w is "
     "masked, but the sum without w is not). Hide the future before the softmax, or in both sums, "
     "with -inf",
     lambda scores, w: (scores.softmax(-1) * w.tril()).sum(-1)),
    (ZERO_SCORES, _gate_with_zeros_for_the_future(lambda w: w)),
    (ZERO_SCORES, _gate_with_zeros_for_the_future(torch.tril)),
    ("w is averaged with the weights of biased attention. The gate is the mean of w under the "
     "attention of the scores alone",
     _gate_of(lambda s, w: ((s + w.log()).softmax(-1) * w).sum(-1))),
    ("the result is the harmonic mean of w. The gate is the mean of w itself",
     _gate_of(lambda s, w: 1 / (s.softmax(-1) / w).sum(-1))),
    ("the result is the w of the key with the largest score. Every key counts by its attention",
     _gate_of(lambda s, w: w.gather(-1, s.argmax(-1, keepdim=True))[:, 0])),
    ("the result is the largest w that the query sees. Every key counts by its attention",
     _gate_of(lambda s, w: w.masked_fill(s.isinf(), 0).amax(-1))),
    ("the result is the w of the query's own key. Every key counts by its attention",
     lambda scores, w: w.diagonal()),
    ("the sum without w is masked, but the sum with w is not. Hide the future in both",
     lambda scores, w: ((scores + w.log()).logsumexp(-1) - _seen(scores).logsumexp(-1)).exp()),
    ("w is squared. Multiply each weight of the attention by w once",
     _gate_of(lambda s, w: (s.softmax(-1) * w.square()).sum(-1))),
    ("w is divided by the sum of its row. Use w as it is",
     _gate_of(lambda s, w: (s.softmax(-1) * w / w.tril().sum(-1, keepdim=True)).sum(-1))),
    ("the scores are divided by √T. They come as the softmax needs them",
     _gate_of(lambda s, w: ((s / len(s) ** 0.5).softmax(-1) * w).sum(-1))),
    ("w is transposed. Row i of w belongs to query i",
     _gate_of(lambda s, w: (s.softmax(-1) * w.T).sum(-1))),
    ("the result contains the weights before their sum, (T, T). Add up each row",
     _gate_of(lambda s, w: s.softmax(-1) * w)),
    *combined(_mistaken_gate, GATE_MASKS, GATE_FORMULAS, GATE_AXES),
]


def _gate_properties(reader: Reader):
    cases = _gate_cases()
    trials = compare(reader, _right_gate, cases, GATE_MISTAKES)
    for trial in trials:
        finite(trial, "is the future hidden in both sums with -inf, and never subtracted from "
                      "itself?")
    agree(trials, ALIKE)
    _large_scores_are_right(reader, cases[4])
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_gate, cases[4], ("scores", "w"),
                   "is a part of it computed from .detach() or .data?")


EXP_OF_LARGE_SCORES = ("exp of large scores is inf, and exp of very negative scores is 0, so 0 is "
                       "divided by 0. Subtract the LSEs first, and take exp last")


def _large_scores_are_right(reader, given):
    """Add ±1,000 to some scores. The gate should stay right, and finite."""
    T = len(given["scores"])
    in_two_rows = torch.zeros(T, T, dtype=torch.float64)
    in_two_rows[1], in_two_rows[2] = 1000.0, -1000.0
    in_the_future = torch.full((T, T), 1000.0, dtype=torch.float64).triu(1)
    for shift, why in (
        (-1000.0, EXP_OF_LARGE_SCORES),
        (1000.0, EXP_OF_LARGE_SCORES),
        (in_two_rows, "one row has large scores, and another has small ones. Subtract each row's "
                      "own largest score, not one maximum for the whole table"),
        (in_the_future, "only scores of the future are large here. Hide the future before you take "
                        "the largest score: it may only be one of the keys that the query sees"),
    ):
        shifted = {"scores": given["scores"] + shift, "w": given["w"]}
        for trial in compare(reader, _right_gate, [shifted]):
            finite(trial, why)
            if not close(trial.got, trial.expected, 1e-6):
                raise Wrong("the result is wrong if all scores are large. Is something clamped, or "
                            "is a small number added for safety? A difference of LSEs needs "
                            "neither")


# best_weights -------------------------------------------------------------------------------------


def check_best_weights(best_weights) -> Result:
    """Check `best_weights(f, target)`.

    The arguments have shapes (N, D, C) and (N, C). The result has shape (D,): the weights w with
    the least Σ‖Σ_d w_d f_d − target‖².
    """
    return check("best_weights", best_weights, _weights_properties,
                 "no other weights come closer to the targets")


def _right_weights(f, target):
    N, D, C = f.shape
    G = torch.zeros(D, D, dtype=f.dtype, device=f.device)
    c = torch.zeros(D, dtype=f.dtype, device=f.device)
    for d in range(D):
        for e in range(D):
            G[d, e] = (f[:, d] * f[:, e]).sum()
        c[d] = (f[:, d] * target).sum()
    return torch.linalg.inv(G) @ c


def _weights_cases():
    def case(N, D, C, seed, dtype=torch.float64):
        """Return features that are correlated, so that no weight can be found alone."""
        f = randn(N, D, C, seed=seed, dtype=dtype)
        f = f + 0.7 * randn(N, 1, C, seed=seed + 10, dtype=dtype)
        w = 1 + randn(D, seed=seed + 20, dtype=dtype)
        noise = randn(N, C, seed=seed + 30, dtype=dtype)
        return {"f": f, "target": 0.3 + (w[:, None] * f).sum(1) + 0.5 * noise}

    return [
        case(3, 1, 1, 1),
        case(4, 2, 1, 2),
        case(5, 2, 3, 3),
        case(12, 3, 2, 4),
        case(30, 5, 4, 5),
        case(9, 3, 5, 6, torch.float32),
    ]


def _gram(f):
    """Return G, the products of the features with each other, (D, D)."""
    return torch.einsum("ndc,nec->de", f, f)


def _products(f, target):
    """Return c, the products of the features with the target, (D,)."""
    return torch.einsum("ndc,nc->d", f, target)


def _solved(f, target, ridge=0.0):
    G = _gram(f) + ridge * torch.eye(f.shape[1], dtype=f.dtype)
    return torch.linalg.solve(G, _products(f, target))


def _of_one_channel(f, target, i):
    return _solved(f[..., [i]], target[..., [i]])


def _mean_over_channels(f, target):
    return torch.stack([_of_one_channel(f, target, i) for i in range(f.shape[-1])]).mean(0)


def _centred(f, target):
    return _solved(f - f.mean(0), target - target.mean(0))


def _of_summed_channels(f, target):
    return _solved(f.sum(-1, keepdim=True), target.sum(-1, keepdim=True))


def _normalised(f, target):
    w = _right_weights(f, target)
    return w / w.sum()


def _mean_over_positions(f, target):
    weights = [
        torch.linalg.pinv(f_n.T) @ target_n for f_n, target_n in zip(f, target, strict=True)
    ]
    return torch.stack(weights).mean(0)


def _with_a_constant(f, target):
    return _solved(f - f.mean((0, 2), keepdim=True), target - target.mean())


def _one_after_another(f, target):
    weights = []
    for f_d in f.unbind(1):
        weights.append((f_d * target).sum() / f_d.square().sum())
        target = target - weights[-1] * f_d
    return torch.stack(weights)


RIDGE = "something is added to G's diagonal (ridge regression). This problem has no such penalty"

WEIGHTS_MISTAKES = [
    ("each weight is fitted alone, as if its feature were the only one. The features overlap, and "
     "the other entries of G say how much",
     lambda f, target: _products(f, target) / _gram(f).diagonal()),
    ("the result is c, the products with the target. The equation G w = c still has to be solved",
     _products),
    ("the result is the mean of the products with the target. The equation G w = c still has to be "
     "solved",
     lambda f, target: _products(f, target) / len(f)),
    ("c is multiplied by G. Solve G w = c instead",
     lambda f, target: _gram(f) @ _products(f, target)),
    ("every channel gets weights of its own, and the result is their mean. One w serves all "
     "channels, so sum over the channels in G and in c",
     _mean_over_channels),
    ("only the first channel is used. Sum over all channels in G and in c",
     lambda f, target: _of_one_channel(f, target, 0)),
    ("the channels are added up before they are multiplied. Compute Σ_c f_d f_e, not "
     "(Σ_c f_d)(Σ_c f_e)",
     _of_summed_channels),
    ("f is reshaped to (N C, D) although its axes are in the order N, D, C. Swap the last two axes "
     "before you reshape",
     lambda f, target: _solved(f.reshape(len(f), -1, f.shape[1]).mT, target)),
    ("the means are subtracted first. The weights only scale the features, and no constant is "
     "added",
     _centred),
    ("c is averaged over the positions, but G is summed. Treat both in the same way",
     lambda f, target: _solved(f, target) / len(f)),
    ("G is averaged over the positions, but c is summed. Treat both in the same way",
     lambda f, target: _solved(f, target) * len(f)),
    ("every position gets weights of its own, and the result is their mean. One w serves all "
     "positions, so sum over the positions in G and in c",
     _mean_over_positions),
    ("a constant is fitted too. The weights only scale the features, and no constant is added",
     _with_a_constant),
    ("the weights are fitted one after another, each to what those before it left. The features "
     "overlap, so solve for all of them together",
     _one_after_another),
    ("c is divided by the sums of G's rows. Solve G w = c",
     lambda f, target: _products(f, target) / _gram(f).sum(1)),
    ("every number of G is inverted by itself. G's inverse is a matrix inverse",
     lambda f, target: (1 / _gram(f)) @ _products(f, target)),
    ("the result contains the cosines of the features with the target. Solve G w = c",
     lambda f, target: _products(f, target) / (
         f.square().sum((0, 2)).sqrt() * target.square().sum().sqrt())),
    ("the result is the mean of target / f. The best weights make the squared error small, so "
     "solve G w = c",
     lambda f, target: (target[:, None] / f).mean((0, 2))),
    ("all weights are equal. Each feature has its own weight",
     lambda f, target: torch.full_like(
         f[0, :, 0], (f.sum(1) * target).sum() / f.sum(1).square().sum())),
    ("the solution is divided by D, as if a mean of the features were taken. The features are "
     "added up",
     lambda f, target: _solved(f, target) / f.shape[1]),
    ("weights above 1 are cut off. The best weights may be larger",
     lambda f, target: _right_weights(f, target).clamp(0, 1)),
    (RIDGE, lambda f, target: _solved(f, target, ridge=1.0)),
    # The means of G and c with a ridge of 1 are the sums with a ridge of N.
    (RIDGE, lambda f, target: _solved(f, target, ridge=float(len(f)))),
    ("the weights are divided by their sum. They need not sum to 1, and the best weights may even "
     "be negative",
     _normalised),
    ("negative weights are set to 0. The best weights may be negative",
     lambda f, target: _right_weights(f, target).clamp(min=0)),
    ("the signs are wrong. Solve G w = c, not G w = -c",
     lambda f, target: -_right_weights(f, target)),
    ("the order is reversed. w[d] belongs to f[:, d]",
     lambda f, target: _right_weights(f, target).flip(0)),
]


def _weights_properties(reader: Reader):
    cases = _weights_cases()
    trials = compare(reader, _right_weights, cases, WEIGHTS_MISTAKES)
    for trial in trials:
        finite(trial, "is G really a (D, D) matrix of the products of features with features?")
        _is_best(trial)
    keeps_device(reader, cases)


def _is_best(trial):
    """Raise `Wrong` if other weights have a smaller squared error."""
    tolerance = 1e-3 if trial.expected.dtype == torch.float32 else 1e-7
    if close(trial.got, trial.expected, tolerance):
        return
    f, target = trial.given.values()
    error, least = _squared_error(trial.got, f, target), _squared_error(trial.expected, f, target)
    if error > least * (1 + 1e-6):
        raise Wrong(f"other weights come closer to the targets. For f {tuple(f.shape)} the squared "
                    f"error of these weights is {error:.4g}, but the least is {least:.4g}")
    agree([trial], tolerance)


def _squared_error(w, f, target):
    return ((w.detach()[:, None] * f).sum(1) - target).square().sum().item()
