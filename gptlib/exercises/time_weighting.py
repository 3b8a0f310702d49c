"""Chapter 6's exercises: weights by distance, a shift that must not look ahead, a gate, and the best weights in closed form."""

import math

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import ALIKE, Wrong, agree, close, combined, compare, finite, keeps_device, randn, same_gradients

# distance_matrix ----------------------------------------------------------------------------------------------------

def check_distance_matrix(distance_matrix) -> Result:
    """`distance_matrix(u)`: (H, T) -> (H, T, T), with u[h, i - j] at [h, i, j] for i >= j, and 0 for keys in the future."""
    return check("distance_matrix", distance_matrix, _distance_matrix,
                 "constant along each diagonal, distance 0 on the main one, nothing for the future, with the right gradients")


def _distances(T, device=None):
    at = torch.arange(T, device=device)
    return at[:, None] - at                                                             # [i, j] = i - j


def _right_matrix(u):
    H, T = u.shape
    matrix = torch.zeros(H, T, T, dtype=u.dtype, device=u.device)
    for i in range(T):
        for j in range(i + 1):
            matrix[:, i, j] = u[:, i - j]
    return matrix


def _mistaken_matrix(options):
    index, hide = options

    def matrix(u):
        d = _distances(u.shape[1], u.device)
        return hide(u[:, index(d, u.shape[1])], d)
    return matrix


def _distance_matrix(reader: Reader):
    cases = [{"u": 2 + randn(H, T, seed=seed, dtype=dtype)} for H, T, seed, dtype in (
        (1, 1, 1, torch.float64), (1, 2, 2, torch.float64), (1, 3, 3, torch.float64), (3, 4, 4, torch.float64), (2, 6, 5, torch.float64),
        (4, 5, 6, torch.float32))]
    mistakes = combined(_mistaken_matrix, {
        "": lambda d, T: d.clamp(min=0),
        "the numbers run backwards: at distance 0, on the diagonal, stands u[0] (MyGPT's own table is turned around, ours is not)":
            lambda d, T: (T - 1 - d).clamp(max=T - 1),
        "every row holds u from its left end: the index is the distance i - j, not the key j": lambda d, T: torch.arange(T).expand(T, T),
        "every row is one number: the index is the distance i - j, not the query i": lambda d, T: torch.arange(T)[:, None].expand(T, T),
        "it is off by one: distance 0 means the query itself, and its weight is u[0]": lambda d, T: (d + 1).clamp(0, T - 1),
        "it is off by one: one step back is distance 1, and its weight is u[1]": lambda d, T: (d - 1).clamp(min=0),
    }, {
        "": lambda m, d: m * (d >= 0),
        "the future gets weights too: 0 belongs above the diagonal, where j > i": lambda m, d: m,
        "it is transposed, with queries in columns: row i is the query, column j the key": lambda m, d: (m * (d >= 0)).mT,
        "the diagonal is 0: a query may weigh its own key, by u[0]": lambda m, d: m * (d > 0),
        "the future holds 1: keys that cannot be seen get 0": lambda m, d: torch.where(d >= 0, m, torch.ones_like(m)),
        "the future holds -inf, which is for scores before a softmax: these are weights after it, so 0":
            lambda m, d: m.masked_fill(d < 0, -math.inf),
    })
    wrapped = ("it wraps around (circulant): in the corner above the diagonal stand the weights of the largest distances, for keys in the "
               "future; 0 is right there", lambda u: u[:, _distances(u.shape[1]) % u.shape[1]])
    mirrored = ("it is symmetric: the weight of |i - j| also stands above the diagonal, where keys lie in the future and 0 is right",
                lambda u: u[:, _distances(u.shape[1]).abs()])
    negative = ("a negative index counts from the end of u: above the diagonal i - j is negative, and 0 is right there",
                lambda u: u[:, _distances(u.shape[1])])
    trials = compare(reader, _right_matrix, cases, [wrapped, mirrored, negative, *mistakes])
    for trial in trials:
        if trial.got.triu(1).any():
            raise Wrong("the future gets weights: above the diagonal, where the key j comes after the query i, 0 is right")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_matrix, cases[4], ("u",), "does each number of u reach every place where it stands?")


# token_shift --------------------------------------------------------------------------------------------------------

def check_token_shift(token_shift) -> Result:
    """`token_shift(x)`: (B, T, C), the first C // 2 channels taken from one position before, zeros before the first."""
    return check("token_shift", token_shift, _token_shift, "half of the channels come from one step back, and nothing from ahead")


def _right_shift(x):
    shifted = x.clone()
    half = x.shape[-1] // 2
    for t in range(x.shape[1]):
        shifted[:, t, :half] = x[:, t - 1, :half] if t else 0
    return shifted


def _mistaken_shift(options):
    move, part = options

    def shift(x):
        moved = move(x)
        return torch.where(part(torch.arange(x.shape[-1], device=x.device), x.shape[-1]), moved, x)
    return shift


def _cascade(x):
    shifted = x.clone()
    shifted[..., :x.shape[-1] // 2] = 0
    return shifted


def _token_shift(reader: Reader):
    cases = [{"x": randn(*shape, seed=seed, dtype=dtype)} for shape, seed, dtype in (
        ((1, 1, 2), 1, torch.float64), ((1, 2, 2), 2, torch.float64), ((1, 3, 4), 3, torch.float64), ((3, 4, 5), 4, torch.float64),
        ((2, 6, 8), 5, torch.float64), ((2, 5, 6), 6, torch.float32))]
    by = lambda n: lambda x: torch.cat([torch.zeros_like(x[:, :n]), x], dim=1)[:, :x.shape[1]]
    mistakes = combined(_mistaken_shift, {
        "": by(1),
        "the first position gets the last one's channels, its own future: `roll` wraps around, and zeros belong there":
            lambda x: x.roll(1, dims=1),
        "it looks one step ahead: position t should get what position t - 1 had":
            lambda x: torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1),
        "it looks one step ahead, and the last position gets the first one's channels": lambda x: x.roll(-1, dims=1),
        "the batch is shifted: time is axis 1": lambda x: torch.cat([torch.zeros_like(x[:1]), x[:-1]]),
        "rows of the batch are rolled: time is axis 1": lambda x: x.roll(1, dims=0),
        "channels are shifted: time is axis 1": lambda x: torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], dim=-1),
        "it is shifted by two steps: one is right": by(2),
        "the first position keeps its own channels: before it there is nothing, so zeros":
            lambda x: torch.cat([x[:, :1], x[:, :-1]], dim=1),
        "the half that should come from before is 0 everywhere": torch.zeros_like,
    }, {
        "": lambda at, C: at < C // 2,
        "all channels are shifted: the second half stays where it is": lambda at, C: at >= 0,
        "the second half is shifted: the first C // 2 channels are the ones that move": lambda at, C: at >= C // 2,
        "every other channel is shifted: the first C // 2 are the ones that move": lambda at, C: at % 2 == 0,
        "every other channel is shifted: the first C // 2 are the ones that move ": lambda at, C: at % 2 == 1,
        "nothing is shifted": lambda at, C: at < 0,
        "one channel too many is shifted where C is odd: C // 2 rounds down": lambda at, C: at < -(-C // 2),
    })
    cascade = ("each position gets what the one before has only just been given, so that zeros run through all: read from x, write into "
               "a copy, or go from the end", _cascade)
    trials = compare(reader, _right_shift, cases, [cascade, *mistakes])
    before = reader(**cases[4])
    for t in range(1, cases[4]["x"].shape[1]):
        x = cases[4]["x"].clone()
        x[:, t:] += 1
        if not close(reader(x=x)[:, :t], before[:, :t]):
            raise Wrong(f"the future leaks: another x from position {t} on changes the result before it")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_shift, cases[4], ("x",), "is part of it copied by .detach() or .data?")


# gate ---------------------------------------------------------------------------------------------------------------

def check_gate(gate) -> Result:
    """`gate(scores, w)`: (T, T) twice -> (T,), what biased attention must be multiplied by to become time-weighting."""
    return check("gate", gate, _gate, "the mean of w under each query's attention, also for large scores, with the right gradients")


def _right_gate(scores, w):
    gates = []
    for i in range(len(scores)):
        seen = scores[i, :i + 1]
        gates.append((seen.softmax(0) * w[i, :i + 1]).sum())
    return torch.stack(gates)


def _mistaken_gate(options):
    seen, ratio, axis = options

    def gate(scores, w):
        allowed = seen(scores)
        hide = lambda s: s.masked_fill(~allowed, -math.inf)
        return ratio(hide(scores), hide(scores + w.log()), hide(scores + w), axis)
    return gate


def _gate(reader: Reader):
    def case(T, seed, dtype=torch.float64):
        return {"scores": 2 * randn(T, T, seed=seed, dtype=dtype), "w": randn(T, T, seed=seed + 50, dtype=dtype).exp()}

    cases = [case(1, 1), case(2, 2), case(3, 3), case(5, 4), case(7, 5), case(4, 6, torch.float32)]
    ones = lambda scores: torch.ones_like(scores, dtype=torch.bool)
    mistakes = combined(_mistaken_gate, {
        "": lambda scores: ones(scores).tril(),
        "there is no mask: query i sees keys 0 … i, and both sums run over those alone": ones,
        "the mask is transposed, so that queries see their future: keep the lower triangle": lambda scores: ones(scores).triu(),
        "the mask hides the query's own key: the diagonal is allowed": lambda scores: ones(scores).tril(-1),
    }, {
        "": lambda s, b, wrong, axis: (b.logsumexp(axis) - s.logsumexp(axis)).exp(),
        "it is upside down: LSE(scores + log w) comes first, LSE(scores) is taken away":
            lambda s, b, wrong, axis: (s.logsumexp(axis) - b.logsumexp(axis)).exp(),
        "the last exp is missing: this is the gate's logarithm": lambda s, b, wrong, axis: b.logsumexp(axis) - s.logsumexp(axis),
        "w itself is added to the scores, where log w belongs: exp(s + log w) = w exp(s)":
            lambda s, b, wrong, axis: (wrong.logsumexp(axis) - s.logsumexp(axis)).exp(),
        "the two are divided: the ratio of two sums of exponentials is the exp of a *difference* of LSEs":
            lambda s, b, wrong, axis: b.logsumexp(axis) / s.logsumexp(axis),
        "only the weighted sum is left: it still has to be divided by the sum of exp(scores)": lambda s, b, wrong, axis: b.exp().sum(axis),
        "it is the sum of w, each key counting alike: each counts by its attention":
            lambda s, b, wrong, axis: (b - s).exp().nan_to_num(0).sum(axis),
        "it is the plain mean of w: each key counts by its attention":
            lambda s, b, wrong, axis: (b - s).exp().nan_to_num(0).sum(axis) / s.isfinite().sum(axis),
        "it is the mean of log w: the gate is the mean of w itself":
            lambda s, b, wrong, axis: (s.softmax(axis) * (b - s).nan_to_num(0)).sum(axis),
        "it is 1 everywhere: the rows of biased attention, not the gate": lambda s, b, wrong, axis: b.softmax(axis).sum(axis),
    }, {
        "": -1,
        "the sums run over the queries: each query sums over its keys, the last axis": 0,
    })
    zeros = ("the future's scores are set to 0, and exp(0) = 1 still counts: hide them with -inf",
             lambda scores, w: ((scores.tril() + w.log()).logsumexp(-1) - scores.tril().logsumexp(-1)).exp())
    trials = compare(reader, _right_gate, cases, [zeros, *mistakes])
    for trial in trials:
        finite(trial, "is the future hidden in both sums with -inf, and never subtracted from itself?")
    agree(trials, ALIKE)
    for shift in (-1000.0, 1000.0):
        given = {"scores": cases[4]["scores"] + shift, "w": cases[4]["w"]}
        for trial in compare(reader, _right_gate, [given]):
            finite(trial, "exp of large scores overflows, and of very negative ones is 0, so 0 / 0: subtract LSEs first, take exp last")
            if not close(trial.got, trial.expected, 1e-6):
                raise Wrong("scores that are all large come out wrong: is something clamped, or added for safety? "
                            "A difference of LSEs needs neither")
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_gate, cases[4], ("scores", "w"), "is part of it computed from .detach() or .data?")


# best_weights -------------------------------------------------------------------------------------------------------

def check_best_weights(best_weights) -> Result:
    """`best_weights(f, target)`: (N, D, C) and (N, C) -> (D,), the w with the least Σ‖Σ_d w_d f_d − target‖²."""
    return check("best_weights", best_weights, _best_weights, "no other weights come closer to the targets")


def _right_weights(f, target):
    N, D, C = f.shape
    G, c = torch.zeros(D, D, dtype=f.dtype, device=f.device), torch.zeros(D, dtype=f.dtype, device=f.device)
    for d in range(D):
        for e in range(D):
            G[d, e] = (f[:, d] * f[:, e]).sum()
        c[d] = (f[:, d] * target).sum()
    return torch.linalg.inv(G) @ c


def _best_weights(reader: Reader):
    def case(N, D, C, seed, dtype=torch.float64):
        """Features that overlap, so that no weight can be found alone."""
        f = randn(N, D, C, seed=seed, dtype=dtype) + 0.7 * randn(N, 1, C, seed=seed + 10, dtype=dtype)
        w = 1 + randn(D, seed=seed + 20, dtype=dtype)
        return {"f": f, "target": 0.3 + (w[:, None] * f).sum(1) + 0.5 * randn(N, C, seed=seed + 30, dtype=dtype)}

    cases = [case(3, 1, 1, 1), case(4, 2, 1, 2), case(5, 2, 3, 3), case(12, 3, 2, 4), case(30, 5, 4, 5), case(9, 3, 5, 6, torch.float32)]
    gram = lambda f: torch.einsum("ndc,nec->de", f, f)
    right = lambda f, target: torch.einsum("ndc,nc->d", f, target)
    solved = lambda G, c: torch.linalg.solve(G, c)
    one_channel = lambda f, target, i: solved(gram(f[..., [i]]), right(f[..., [i]], target[..., [i]]))
    centred = lambda t: t - t.mean(0)
    mistakes = [
        ("each distance is fitted alone, as if it were the only one: features overlap, and G's other entries say how much",
         lambda f, target: right(f, target) / gram(f).diagonal()),
        ("these are the products with the target, c: G w = c still has to be solved", right),
        ("these are the mean products with the target: G w = c still has to be solved", lambda f, target: right(f, target) / len(f)),
        ("c is multiplied by G: it should be divided, so solve G w = c", lambda f, target: gram(f) @ right(f, target)),
        ("every channel gets weights of its own, and their mean is given: one w serves all channels, so sum over them in G and in c",
         lambda f, target: torch.stack([one_channel(f, target, i) for i in range(f.shape[-1])]).mean(0)),
        ("it uses the first channel alone: sum over all channels in G and in c",
         lambda f, target: one_channel(f, target, 0)),
        ("the channels are added up before they are multiplied: Σ_c f_d f_e, not (Σ_c f_d)(Σ_c f_e)",
         lambda f, target: solved(gram(f.sum(-1, keepdim=True)), right(f.sum(-1, keepdim=True), target.sum(-1, keepdim=True)))),
        ("the means are taken away first: the weights may not shift the result, only scale its parts",
         lambda f, target: solved(gram(centred(f)), right(centred(f), centred(target)))),
        ("c is averaged over the positions and G is not: treat both alike", lambda f, target: solved(gram(f), right(f, target)) / len(f)),
        ("G is averaged over the positions and c is not: treat both alike", lambda f, target: solved(gram(f), right(f, target)) * len(f)),
        ("something is added to G's diagonal (ridge): this problem has no such penalty",
         lambda f, target: solved(gram(f) + torch.eye(f.shape[1], dtype=f.dtype), right(f, target))),
        ("something is added to G's diagonal (ridge): this problem has no such penalty ",
         lambda f, target: solved(gram(f) / len(f) + torch.eye(f.shape[1], dtype=f.dtype), right(f, target) / len(f))),
        ("they are made to sum to 1: no one asked for that, and the best weights may even be negative",
         lambda f, target: (w := _right_weights(f, target)) / w.sum()),
        ("negative weights are cut off: the best weights may well be negative", lambda f, target: _right_weights(f, target).clamp(min=0)),
        ("the signs are turned: solve G w = c, not G w = -c", lambda f, target: -_right_weights(f, target)),
        ("the order is reversed: w[d] belongs to f[:, d]", lambda f, target: _right_weights(f, target).flip(0)),
    ]
    loose = {torch.float32: 1e-3, torch.float64: 1e-7}
    trials = compare(reader, _right_weights, cases, mistakes)
    for trial in trials:
        finite(trial, "is G really a (D, D) matrix of products of features with features?")
        if close(trial.got, trial.expected, loose[trial.expected.dtype]):
            continue
        f, target = trial.given.values()
        got, best = (((w.detach()[:, None] * f).sum(1) - target).square().sum().item() for w in (trial.got, trial.expected))
        if got > best * (1 + 1e-6):
            raise Wrong(f"other weights come closer: for f {tuple(f.shape)} yours leave a squared error of {got:.4g}, "
                        f"the best leave {best:.4g}")
        agree([trial], loose[trial.expected.dtype])
    keeps_device(reader, cases)

