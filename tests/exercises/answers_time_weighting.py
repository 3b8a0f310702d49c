"""Chapter 6: right and wrong answers, and words that the verdict on a wrong answer must contain."""

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


def steps_back(T):
    positions = torch.arange(T)
    return positions[:, None] - positions


# distance_matrix ----------------------------------------------------------------------------------

@RIGHT.to("distance_matrix")
def by_index(u):
    d = steps_back(u.shape[1])
    return u[:, d.clamp(min=0)] * (d >= 0)


@RIGHT.to("distance_matrix")
def by_windows(u):
    T = u.shape[1]
    return F.pad(u.flip(-1), (0, T - 1)).unfold(-1, T, 1).flip(-2)


@RIGHT.to("distance_matrix")
def by_diagonals(u):
    T = u.shape[1]
    return sum(torch.diag_embed(u[:, [d]].expand(-1, T - d), -d) for d in range(T))


@WRONG.to("distance_matrix", "wraps around", "circulant")
def circulant(u):
    return u[:, steps_back(u.shape[1]) % u.shape[1]]


@WRONG.to("distance_matrix", "wraps around")
def rolled(u):
    return torch.stack([u.flip(-1).roll(i + 1, dims=-1) for i in range(u.shape[1])], dim=1)


@WRONG.to("distance_matrix", "symmetric")
def absolute_distance(u):
    return u[:, steps_back(u.shape[1]).abs()]


@WRONG.to("distance_matrix", "future gets weights")
def clamped_alone(u):
    return u[:, steps_back(u.shape[1]).clamp(min=0)]


@WRONG.to("distance_matrix", "backwards", "u[0]")
def turned_around(u):
    T = u.shape[1]
    d = steps_back(T)
    return u[:, (T - 1 - d).clamp(max=T - 1)] * (d >= 0)


@WRONG.to("distance_matrix", "transposed")
def queries_in_columns(u):
    return by_index(u).transpose(1, 2)


@WRONG.to("distance_matrix", "distance", "key")
def by_key_alone(u):
    return u[:, None].expand(-1, u.shape[1], -1).tril()


@WRONG.to("distance_matrix", "distance", "query")
def by_query_alone(u):
    return u[:, :, None].expand(-1, -1, u.shape[1]).tril()


@WRONG.to("distance_matrix", "diagonal")
def past_alone(u):
    return by_index(u).tril(-1)


@WRONG.to("distance_matrix", "-inf")
def ready_for_a_softmax(u):
    d = steps_back(u.shape[1])
    return u[:, d.clamp(min=0)].masked_fill(d < 0, float("-inf"))


@WRONG.to("distance_matrix", "0")
def ones_in_the_future(u):
    d = steps_back(u.shape[1])
    return torch.where(d >= 0, u[:, d.clamp(min=0)], 1.0)


@WRONG.to("distance_matrix", "off by one")
def one_further(u):
    T = u.shape[1]
    d = steps_back(T)
    return u[:, (d + 1).clamp(0, T - 1)] * (d >= 0)


@WRONG.to("distance_matrix", "gradient")
def cut_off(u):
    return by_index(u.detach())


# token_shift --------------------------------------------------------------------------------------

@RIGHT.to("token_shift")
def by_cat(x):
    half = x.shape[-1] // 2
    past = torch.cat([torch.zeros_like(x[:, :1, :half]), x[:, :-1, :half]], dim=1)
    return torch.cat([past, x[..., half:]], dim=-1)


@RIGHT.to("token_shift")
def by_pad(x):
    half = x.shape[-1] // 2
    return torch.cat([F.pad(x, (0, 0, 1, -1))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "roll", "future")
def by_roll(x):
    half = x.shape[-1] // 2
    return torch.cat([x[..., :half].roll(1, dims=1), x[..., half:]], dim=-1)


@WRONG.to("token_shift", "the next one")
def from_the_next(x):
    half = x.shape[-1] // 2
    return torch.cat([F.pad(x, (0, 0, -1, 1))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "all channels")
def everything_moves(x):
    return F.pad(x, (0, 0, 1, -1))


@WRONG.to("token_shift", "second half")
def the_other_half(x):
    half = x.shape[-1] // 2
    return torch.cat([x[..., :half], F.pad(x, (0, 0, 1, -1))[..., half:]], dim=-1)


@WRONG.to("token_shift", "axis 1", "channels")
def along_the_channels(x):
    half = x.shape[-1] // 2
    return torch.cat([F.pad(x, (1, -1))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "one long text")
def along_the_flattened_batch(x):
    half = x.shape[-1] // 2
    before = F.pad(x.reshape(-1, x.shape[-1]), (0, 0, 1, -1)).reshape(x.shape)
    return torch.cat([before[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "one long text")
def rolled_along_the_flattened_batch(x):
    half = x.shape[-1] // 2
    before = x.reshape(-1, x.shape[-1]).roll(1, dims=0).reshape(x.shape)
    return torch.cat([before[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "added", "replace")
def added(x):
    half = x.shape[-1] // 2
    return torch.cat([(x + F.pad(x, (0, 0, 1, -1)))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "axis 1", "batch")
def along_the_batch(x):
    half = x.shape[-1] // 2
    return torch.cat([F.pad(x, (0, 0, 0, 0, 1, -1))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "two steps")
def two_back(x):
    half = x.shape[-1] // 2
    return torch.cat([F.pad(x, (0, 0, 2, 0))[:, :x.shape[1], :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "keeps its own")
def first_as_it_was(x):
    half = x.shape[-1] // 2
    return torch.cat([torch.cat([x[:, :1, :half], x[:, :-1, :half]], dim=1), x[..., half:]], dim=-1)


@WRONG.to("token_shift", "every other", "channel 0")
def alternating(x):
    y = x.clone()
    y[..., ::2] = F.pad(x, (0, 0, 1, -1))[..., ::2]
    return y


@WRONG.to("token_shift", "changes its argument")
def in_place(x):
    half = x.shape[-1] // 2
    x[:, 1:, :half] = x[:, :-1, :half].clone()
    x[:, 0, :half] = 0
    return x


@WRONG.to("token_shift", "nothing is shifted")
def unchanged(x):
    return x.clone()


@WRONG.to("token_shift", "shape")
def one_position_more(x):
    return F.pad(x, (0, 0, 1, 0))


@WRONG.to("token_shift", "rounds down")
def half_rounded_up(x):
    half = (x.shape[-1] + 1) // 2
    return torch.cat([F.pad(x, (0, 0, 1, -1))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "zeros of position 0 reach all")
def cascade(x):
    x, half = x.clone(), x.shape[-1] // 2
    for t in range(x.shape[1]):
        x[:, t, :half] = x[:, t - 1, :half] if t else 0
    return x


# gate ---------------------------------------------------------------------------------------------

def hidden(scores):
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))


@RIGHT.to("gate")
def difference_of_lse(scores, w):
    seen = hidden(scores)
    return ((seen + w.log()).logsumexp(-1) - seen.logsumexp(-1)).exp()


@RIGHT.to("gate")
def mean_of_w(scores, w):
    return (hidden(scores).softmax(-1) * w).sum(-1)


@WRONG.to("gate", "no mask")
def unmasked(scores, w):
    return ((scores + w.log()).logsumexp(-1) - scores.logsumexp(-1)).exp()


@WRONG.to("gate", "one divided by")
def inverted(scores, w):
    return 1 / difference_of_lse(scores, w)


@WRONG.to("gate", "exp is missing")
def logarithm(scores, w):
    return difference_of_lse(scores, w).log()


@WRONG.to("gate", "log w")
def w_added(scores, w):
    seen = hidden(scores)
    return ((seen + w).logsumexp(-1) - seen.logsumexp(-1)).exp()


@WRONG.to("gate", "divided", "difference")
def ratio_of_lse(scores, w):
    seen = hidden(scores)
    return (seen + w.log()).logsumexp(-1) / seen.logsumexp(-1)


@WRONG.to("gate", "divided by the sum")
def numerator_alone(scores, w):
    return (hidden(scores).exp() * w).sum(-1)


@WRONG.to("gate", "over the queries", "last axis")
def over_queries(scores, w):
    seen = hidden(scores)
    return ((seen + w.log()).logsumexp(0) - seen.logsumexp(0)).exp()


@WRONG.to("gate", "softmax runs over the queries")
def softmax_over_queries(scores, w):
    return (hidden(scores).softmax(0) * w).sum(-1)


@WRONG.to("gate", "no mask", "softmax runs over the queries")
def unmasked_softmax_over_queries(scores, w):
    return (scores.softmax(0) * w).sum(-1)


@WRONG.to("gate", "mask comes after the softmax")
def masked_after_the_softmax(scores, w):
    return (scores.softmax(-1).tril() * w).sum(-1)


@WRONG.to("gate", "tril", "exp(0) = 1 still counts")
def masked_with_tril(scores, w):
    return (scores.tril().softmax(-1).tril() * w).sum(-1)


@WRONG.to("gate", "geometric mean")
def geometric_mean(scores, w):
    return (hidden(scores).softmax(-1) * w.log()).sum(-1).exp()


@WRONG.to("gate", "large scores", "LSE")
def naive_sums(scores, w):
    e = hidden(scores).exp()
    return (e * w).sum(-1) / e.sum(-1)


@WRONG.to("gate", "plain mean")
def counted_alike(scores, w):
    return w.tril().sum(-1) / torch.arange(1, len(w) + 1)


@WRONG.to("gate", "1 everywhere")
def of_normalised_rows(scores, w):
    return (hidden(scores) + w.log()).softmax(-1).sum(-1)


@WRONG.to("gate", "mean of log w")
def geometric(scores, w):
    return (hidden(scores).softmax(-1) * w.log()).sum(-1)


@WRONG.to("gate", "gradient")
def without_gradients(scores, w):
    return difference_of_lse(scores.detach(), w)


@WRONG.to("gate", "shape")
def kept_axis(scores, w):
    return (hidden(scores).softmax(-1) * w).sum(-1, keepdim=True)


@WRONG.to("gate", "exp(0) = 1 still counts")
def future_of_score_0(scores, w):
    scores = scores.tril()
    return ((scores + w.log()).logsumexp(-1) - scores.logsumexp(-1)).exp()


# best_weights -------------------------------------------------------------------------------------

@RIGHT.to("best_weights")
def normal_equations(f, target):
    G = torch.einsum("ndc,nec->de", f, f)
    return torch.linalg.solve(G, torch.einsum("ndc,nc->d", f, target))


@RIGHT.to("best_weights")
def least_squares(f, target):
    rows = f.transpose(1, 2).flatten(0, 1)
    return torch.linalg.lstsq(rows, target.flatten()[:, None]).solution[:, 0]


@RIGHT.to("best_weights")
def of_means(f, target):
    G = torch.einsum("ndc,nec->de", f, f) / len(f)
    return torch.linalg.inv(G) @ (torch.einsum("ndc,nc->d", f, target) / len(f))


@WRONG.to("best_weights", "alone", "overlap")
def each_alone(f, target):
    return torch.einsum("ndc,nc->d", f, target) / f.square().sum((0, 2))


@WRONG.to("best_weights", "solved")
def products(f, target):
    return torch.einsum("ndc,nc->d", f, target)


@WRONG.to("best_weights", "multiplied")
def multiplied(f, target):
    return torch.einsum("ndc,nec->de", f, f) @ torch.einsum("ndc,nc->d", f, target)


@WRONG.to("best_weights", "one w serves all channels")
def by_channel(f, target):
    channels = range(f.shape[-1])
    return torch.stack([normal_equations(f[..., [c]], target[..., [c]]) for c in channels]).mean(0)


@WRONG.to("best_weights", "means are subtracted")
def centred(f, target):
    return normal_equations(f - f.mean(0), target - target.mean(0))


@WRONG.to("best_weights", "reshaped", "axes")
def reshaped(f, target):
    N, D, C = f.shape
    return torch.linalg.lstsq(f.reshape(N * C, D), target.reshape(N * C, 1)).solution[:, 0]


@WRONG.to("best_weights", "averaged", "summed")
def half_averaged(f, target):
    return normal_equations(f, target) / len(f)


@WRONG.to("best_weights", "ridge")
def with_ridge(f, target):
    G = torch.einsum("ndc,nec->de", f, f) + torch.eye(f.shape[1], dtype=f.dtype)
    return torch.linalg.solve(G, torch.einsum("ndc,nc->d", f, target))


@WRONG.to("best_weights", "negative")
def positive_alone(f, target):
    return normal_equations(f, target).relu()


@WRONG.to("best_weights", "sum to 1")
def normalised(f, target):
    w = normal_equations(f, target)
    return w / w.sum()


@WRONG.to("best_weights", "added up")
def channels_summed_first(f, target):
    return normal_equations(f.sum(-1, keepdim=True), target.sum(-1, keepdim=True))


@WRONG.to("best_weights", "come closer")
def a_few_steps_of_descent(f, target):
    w = torch.zeros(f.shape[1], dtype=f.dtype)
    for _ in range(20):
        error = target - torch.einsum("ndc,d->nc", f, w)
        w = w + 0.01 * torch.einsum("ndc,nc->d", f, error) / len(f)
    return w


@WRONG.to("best_weights", "shape")
def a_column(f, target):
    return torch.linalg.lstsq(f.transpose(1, 2).flatten(0, 1), target.flatten()[:, None]).solution


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("distance_matrix")
def by_growing(u):
    if u.shape[1] == 1:
        return u[:, :, None]
    smaller = by_growing(u[:, :-1])
    above = F.pad(smaller, (0, 1))
    return torch.cat([above, u.flip(-1)[:, None]], dim=1)


@RIGHT.to("distance_matrix")
def by_einsum(u):
    d = steps_back(u.shape[1])
    is_distance = (d == torch.arange(u.shape[1])[:, None, None]).to(u.dtype)
    return torch.einsum("hd,dij->hij", u, is_distance)


@RIGHT.to("distance_matrix")
def by_gather(u):
    H, T = u.shape
    index = steps_back(T).clamp(min=0).flatten().expand(H, -1)
    return u.gather(1, index).view(H, T, T).tril()


@WRONG.to("distance_matrix", "taken from the end of u")
def index_with_the_wrong_sign(u):
    """Use j - i as the index."""
    return u[:, -steps_back(u.shape[1])].tril()


@WRONG.to("distance_matrix", "weights of head 0")
def first_head_for_all(u):
    """Use u[0] for every head."""
    return by_index(u[:1]).repeat(len(u), 1, 1)


@WRONG.to("distance_matrix", "divided by its sum")
def rows_normalised(u):
    """Let each row sum to 1."""
    matrix = by_index(u)
    return matrix / matrix.sum(-1, keepdim=True)


@WRONG.to("distance_matrix", "result contains the distances")
def the_distances(u):
    """Forget to look u up."""
    return steps_back(u.shape[1]).tril().to(u.dtype).repeat(len(u), 1, 1)


@WRONG.to("distance_matrix", "heads are the last axis")
def heads_last(u):
    """Index the transposed u."""
    d = steps_back(u.shape[1])
    return u.T[d.clamp(min=0)] * (d >= 0)[..., None]


@WRONG.to("distance_matrix", "main diagonal")
def on_the_diagonal(u):
    """Use diag_embed alone."""
    return torch.diag_embed(u)


@WRONG.to("distance_matrix", "too small")
def distances_from_the_past(u):
    """Count the distance from the position before."""
    d = steps_back(u.shape[1])
    return u[:, (d - 1).clamp(min=0)].tril()


@RIGHT.to("token_shift")
def with_a_matrix(x):
    T, C = x.shape[1:]
    back = torch.eye(T, dtype=x.dtype).roll(1, dims=0)
    back[0] = 0
    first = (torch.arange(C) < C // 2).to(x.dtype)
    return torch.einsum("ts,bsc->btc", back, x) * first + x * (1 - first)


@RIGHT.to("token_shift")
def from_the_end_in_a_copy(x):
    y, half = x.clone(), x.shape[2] // 2
    for t in reversed(range(1, x.shape[1])):
        y[:, t, :half] = y[:, t - 1, :half]
    y[:, 0, :half] = 0
    return y


@RIGHT.to("token_shift")
def position_by_position(x):
    half = x.shape[-1] // 2
    before, positions = torch.zeros_like(x[:, 0]), []
    for now in x.unbind(1):
        positions.append(torch.where(torch.arange(x.shape[-1]) < half, before, now))
        before = now
    return torch.stack(positions, dim=1)


@WRONG.to("token_shift", "halves are in the wrong order")
def halves_exchanged(x):
    """Put the shifted half last."""
    half = x.shape[-1] // 2
    return torch.cat([x[..., half:], F.pad(x, (0, 0, 1, -1))[..., :half]], dim=-1)


@WRONG.to("token_shift", "too many channels")
def beside_x(x):
    """Join the shifted half and the whole x."""
    return torch.cat([F.pad(x, (0, 0, 1, -1))[..., :x.shape[-1] // 2], x], dim=-1)


@WRONG.to("token_shift", "loses all its channels")
def first_position_cleared(x):
    """Set the whole first position to 0."""
    y = by_cat(x)
    y[:, 0] = 0
    return y


@WRONG.to("token_shift", "which is the future")
def both_directions(x):
    """Shift the second half in the other direction."""
    half = x.shape[-1] // 2
    before, after = F.pad(x, (0, 0, 1, -1)), F.pad(x, (0, 0, -1, 1))
    return torch.cat([before[..., :half], after[..., half:]], dim=-1)


@WRONG.to("token_shift", "half of the positions")
def half_of_the_positions(x):
    """Cut the axis of time in two."""
    y, half = x.clone(), x.shape[1] // 2
    y[:, :half] = F.pad(x, (0, 0, 1, -1))[:, :half]
    return y


@WRONG.to("token_shift", "difference to the position before")
def differences(x):
    """Subtract the position before."""
    half = x.shape[-1] // 2
    return torch.cat([(x - F.pad(x, (0, 0, 1, -1)))[..., :half], x[..., half:]], dim=-1)


@WRONG.to("token_shift", "second half is left out")
def shifted_half_alone(x):
    """Forget the other half."""
    return F.pad(x, (0, 0, 1, -1))[..., :x.shape[-1] // 2]


@RIGHT.to("gate")
def query_by_query(scores, w):
    gates = []
    for i in range(len(scores)):
        e = torch.exp(scores[i, :i + 1] - scores[i, :i + 1].max())
        gates.append(e @ w[i, :i + 1] / e.sum())
    return torch.stack(gates)


@RIGHT.to("gate")
def by_einsum_of_the_weights(scores, w):
    bias = torch.full_like(scores, -torch.inf).triu(1)
    return torch.einsum("ij,ij->i", torch.softmax(scores + bias, dim=1), w)


@RIGHT.to("gate")
def with_log_softmax(scores, w):
    return (hidden(scores).log_softmax(-1) + w.tril().log()).logsumexp(-1).exp()


@WRONG.to("gate", "only scores of the future are large")
def maximum_of_the_whole_row(scores, w):
    """Subtract the largest score of the row, also if it is in the future."""
    e = (scores - scores.amax(-1, keepdim=True)).exp().tril()
    return (e * w).sum(-1) / e.sum(-1)


@WRONG.to("gate", "one maximum for the whole table")
def one_maximum_for_all(scores, w):
    """Subtract the largest score of the table."""
    e = (hidden(scores) - scores.max()).exp()
    return (e * w).sum(-1) / e.sum(-1)


@WRONG.to("gate", "weights of biased attention")
def under_biased_attention(scores, w):
    """Take the mean under the wrong weights."""
    return ((hidden(scores) + w.log()).softmax(-1) * w).sum(-1)


@WRONG.to("gate", "exp is applied to w", "add log w")
def w_taken_for_its_logarithm(scores, w):
    """Take exp of w."""
    return (hidden(scores).softmax(-1) * w.exp()).sum(-1)


@WRONG.to("gate", "harmonic mean")
def harmonic(scores, w):
    """Divide by w, and turn the sum around."""
    return (hidden(scores).softmax(-1) / w).sum(-1).reciprocal()


@WRONG.to("gate", "sum without w is not")
def one_sum_unmasked(scores, w):
    """Mask one of the two sums."""
    return ((hidden(scores) + w.log()).logsumexp(-1) - scores.logsumexp(-1)).exp()


@WRONG.to("gate", "w is transposed")
def w_of_the_wrong_query(scores, w):
    """Multiply by the transposed w."""
    return (hidden(scores).softmax(-1) @ w).diagonal()


@WRONG.to("gate", "√T")
def scaled_again(scores, w):
    """Scale the scores."""
    return (hidden(scores / len(scores) ** 0.5).softmax(-1) * w).sum(-1)


@RIGHT.to("best_weights")
def by_qr(f, target):
    Q, R = torch.linalg.qr(f.mT.reshape(-1, f.shape[1]))
    return torch.linalg.solve_triangular(R, Q.T @ target.reshape(-1, 1), upper=True).squeeze(1)


@RIGHT.to("best_weights")
def by_one_step_of_newton(f, target):
    w = torch.zeros(f.shape[1], dtype=f.dtype, requires_grad=True)
    with torch.enable_grad():
        error = ((w[:, None] * f).sum(1) - target).square().sum()
        gradient, = torch.autograd.grad(error, w)
    return -torch.linalg.solve(2 * torch.tensordot(f, f, ([0, 2], [0, 2])), gradient)


@RIGHT.to("best_weights")
def by_pseudoinverse(f, target):
    N, D, C = f.shape
    rows = torch.cat([f[:, :, c] for c in range(C)])
    return torch.linalg.pinv(rows) @ torch.cat([target[:, c] for c in range(C)])


@WRONG.to("best_weights", "every position gets weights of its own")
def position_by_position_and_mean(f, target):
    """Solve at each position, and average."""
    return torch.stack([torch.linalg.pinv(a.T) @ b for a, b in zip(f, target, strict=True)]).mean(0)


@WRONG.to("best_weights", "constant is fitted too")
def with_intercept(f, target):
    """Fit a constant, and leave it out of the result."""
    rows = f.mT.flatten(0, 1)
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    return torch.linalg.lstsq(rows, target.flatten()[:, None]).solution[:-1, 0]


@WRONG.to("best_weights", "one after another")
def greedy(f, target):
    """Fit each feature to what is left."""
    weights = []
    for part in f.unbind(1):
        weights.append((part * target).sum() / (part * part).sum())
        target = target - weights[-1] * part
    return torch.stack(weights)


@WRONG.to("best_weights", "sums of G's rows")
def divided_by_rows(f, target):
    """Divide where a system must be solved."""
    G = torch.einsum("ndc,nec->de", f, f)
    return torch.einsum("ndc,nc->d", f, target) / G.sum(1)


@WRONG.to("best_weights", "inverted by itself")
def inverted_by_number(f, target):
    """Write 1 / G for the inverse."""
    G = torch.einsum("ndc,nec->de", f, f)
    return (1 / G) @ torch.einsum("ndc,nc->d", f, target)


@WRONG.to("best_weights", "cosines")
def cosines(f, target):
    """Return how well each feature points to the target."""
    lengths = f.square().sum((0, 2)).sqrt() * target.norm()
    return torch.einsum("ndc,nc->d", f, target) / lengths


@WRONG.to("best_weights", "mean of target / f")
def mean_of_ratios(f, target):
    """Average target / f."""
    return (target[:, None] / f).mean((0, 2))


@WRONG.to("best_weights", "all weights are equal")
def one_weight_for_all(f, target):
    """Fit one number for the sum of the features."""
    total = f.sum(1)
    return ((total * target).sum() / (total * total).sum()).repeat(f.shape[1])
