"""Chapter 1: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


# previous_probabilities ---------------------------------------------------------------------------

@RIGHT.to("previous_probabilities")
def with_normalize(counts, smoothing):
    return F.normalize(counts.T + smoothing, p=1, dim=1)


@RIGHT.to("previous_probabilities")
def columns_first(counts, smoothing):
    return ((counts + smoothing) / (counts + smoothing).sum(0)).T


@RIGHT.to("previous_probabilities")
def column_by_column(counts, smoothing):
    rows = [(c + smoothing) / (c.sum() + smoothing * len(c)) for c in counts.unbind(1)]
    return torch.stack(rows)


@WRONG.to("previous_probabilities", "token after", "column b of `counts`")
def as_in_the_chapter(counts, smoothing):
    return (counts + smoothing) / (counts + smoothing).sum(1, keepdim=True)


@WRONG.to("previous_probabilities", "each column sums to 1", "transpose")
def transpose_forgotten(counts, smoothing):
    return (counts + smoothing) / (counts + smoothing).sum(0)


@WRONG.to("previous_probabilities", "swapped", "token before")
def transposed_after_dividing(counts, smoothing):
    return F.normalize(counts + smoothing, p=1, dim=1).T


@WRONG.to("previous_probabilities", "whole table")
def joint(counts, smoothing):
    return ((counts + smoothing) / (counts + smoothing).sum()).T


@WRONG.to("previous_probabilities", "keepdim")
def keepdim_forgotten(counts, smoothing):
    return (counts.T + smoothing) / (counts.T + smoothing).sum(1)


@WRONG.to("previous_probabilities", "sums of its rows", ".sum(0)")
def sums_before_the_transpose(counts, smoothing):
    return (counts + smoothing).T / (counts + smoothing).sum(1, keepdim=True)


@WRONG.to("previous_probabilities", "before", "divide")
def smoothing_after_dividing(counts, smoothing):
    return (counts / counts.sum(0)).T + smoothing


@WRONG.to("previous_probabilities", "denominator")
def smoothing_in_the_numerator_only(counts, smoothing):
    return ((counts + smoothing) / counts.sum(0)).T


@WRONG.to("previous_probabilities", "once", "every")
def smoothing_once_in_the_denominator(counts, smoothing):
    return ((counts + smoothing) / (counts.sum(0) + smoothing)).T


@WRONG.to("previous_probabilities", "ignored")
def smoothing_ignored(counts, smoothing):
    return (counts / counts.sum(0)).T


@WRONG.to("previous_probabilities", "always 1")
def smoothing_always_one(counts, smoothing):
    return ((counts + 1) / (counts + 1).sum(0)).T


@WRONG.to("previous_probabilities", "only", "zero")
def smoothing_for_zeros_only(counts, smoothing):
    counts = torch.where(counts == 0, torch.full_like(counts, smoothing), counts)
    return (counts / counts.sum(0)).T


@WRONG.to("previous_probabilities", "softmax")
def softmax_of_counts(counts, smoothing):
    return (counts + smoothing).softmax(0).T


@WRONG.to("previous_probabilities", "logarithm")
def log_probabilities(counts, smoothing):
    return F.normalize(counts.T + smoothing, p=1, dim=1).log()


@WRONG.to("previous_probabilities", "squares")
def length_one(counts, smoothing):
    return F.normalize(counts.T + smoothing, dim=1)


@WRONG.to("previous_probabilities", "Bayes", "weigh")
def turned_round_without_the_frequencies(counts, smoothing):
    following = (counts + smoothing) / (counts + smoothing).sum(1, keepdim=True)
    return following.T / following.T.sum(1, keepdim=True)


@WRONG.to("previous_probabilities", "changes its argument", "counts")
def in_place(counts, smoothing):
    counts += smoothing
    return (counts / counts.sum(0)).T


@WRONG.to("previous_probabilities", "float64")
def single_precision(counts, smoothing):
    return F.normalize(counts.T.float() + smoothing, p=1, dim=1)


# cross_entropy ------------------------------------------------------------------------------------

@RIGHT.to("cross_entropy")
def with_torch(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@RIGHT.to("cross_entropy")
def by_loop(logits, targets):
    total = 0
    for row, targets_of_row in zip(logits, targets, strict=True):
        for scores, target in zip(row, targets_of_row, strict=True):
            total = total + scores.logsumexp(0) - scores[target]
    return total / targets.numel()


@RIGHT.to("cross_entropy")
def largest_subtracted(logits, targets):
    logits = logits - logits.max(-1, keepdim=True).values
    log_probabilities = logits - logits.exp().sum(-1, keepdim=True).log()
    return -(F.one_hot(targets, logits.shape[-1]) * log_probabilities).sum(-1).mean()


@WRONG.to("cross_entropy", "sum", "mean")
def summed(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


@WRONG.to("cross_entropy", "batch", "positions")
def mean_over_the_batch_only(logits, targets):
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1).sum(1).mean()


@WRONG.to("cross_entropy", "each position", "mean")
def no_mean(logits, targets):
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)


@WRONG.to("cross_entropy", "vocabulary")
def mean_over_the_vocabulary_too(logits, targets):
    return -(F.one_hot(targets, logits.shape[-1]) * logits.log_softmax(-1)).mean()


@WRONG.to("cross_entropy", "bits", "ln")
def in_bits(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / math.log(2)


@WRONG.to("cross_entropy", "minus")
def sign_forgotten(logits, targets):
    return logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


@WRONG.to("cross_entropy", "logarithm")
def logarithm_forgotten(logits, targets):
    return -logits.softmax(-1).gather(-1, targets[..., None]).mean()


@WRONG.to("cross_entropy", "normalis")
def logits_taken_for_log_probabilities(logits, targets):
    return -logits.gather(-1, targets[..., None]).mean()


@WRONG.to("cross_entropy", "axis", "vocabulary")
def softmax_over_time(logits, targets):
    return -logits.log_softmax(1).gather(-1, targets[..., None]).mean()


@WRONG.to("cross_entropy", "large logits")
def overflowing(logits, targets):
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return -probabilities.gather(-1, targets[..., None]).log().mean()


@WRONG.to("cross_entropy", "large logits", "log")
def log_of_softmax(logits, targets):
    return -logits.softmax(-1).gather(-1, targets[..., None]).log().mean()


@WRONG.to("cross_entropy", "log(p + ")
def log_of_softmax_plus_epsilon(logits, targets):
    return -(logits.softmax(-1).gather(-1, targets[..., None]) + 1e-9).log().mean()


@WRONG.to("cross_entropy", "large logits", "own largest")
def one_maximum_for_all(logits, targets):
    logits = logits - logits.max()
    log_sum = logits.exp().sum(-1, keepdim=True).log()
    return -(logits.gather(-1, targets[..., None]) - log_sum).mean()


@WRONG.to("cross_entropy", "shifted")
def targets_shifted_again(logits, targets):
    if targets.shape[1] == 1:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


@WRONG.to("cross_entropy", "perplexity")
def perplexity(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()).exp()


@WRONG.to("cross_entropy", "number", ".item()")
def a_plain_number(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()


@WRONG.to("cross_entropy", "float32", ".item()", "gradient")
def item_in_a_new_tensor(logits, targets):
    return torch.tensor(F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item())


@WRONG.to("cross_entropy", "gradient")
def detached(logits, targets):
    return F.cross_entropy(logits.detach().flatten(0, 1), targets.flatten())


# sample_next --------------------------------------------------------------------------------------

@RIGHT.to("sample_next")
def with_searchsorted(probabilities, u):
    return torch.searchsorted(probabilities.cumsum(-1), u[:, None], right=True)[:, 0]


@RIGHT.to("sample_next")
def by_loop_over_tokens(probabilities, u):
    tokens = []
    for row, draw in zip(probabilities.tolist(), u.tolist(), strict=True):
        token, cumulative = 0, row[0]
        while cumulative <= draw:
            token += 1
            cumulative += row[token]
        tokens.append(token)
    return torch.tensor(tokens, device=u.device)


@WRONG.to("sample_next", "most probable")
def greedy(probabilities, u):
    return probabilities.argmax(-1)


@WRONG.to("sample_next", "cumulative")
def not_cumulative(probabilities, u):
    return (probabilities > u[:, None]).int().argmax(-1)


@WRONG.to("sample_next", "exceed", "equal")
def reaches_instead_of_exceeds(probabilities, u):
    return (probabilities.cumsum(-1) >= u[:, None]).int().argmax(-1)


@WRONG.to("sample_next", "one token too early")
def last_one_below(probabilities, u):
    return ((probabilities.cumsum(-1) <= u[:, None]).sum(-1) - 1).clamp(min=0)


@WRONG.to("sample_next", "one token too late")
def one_too_late(probabilities, u):
    token = (probabilities.cumsum(-1) <= u[:, None]).sum(-1)
    return (token + 1).clamp(max=probabilities.shape[-1] - 1)


@WRONG.to("sample_next", "sort")
def rank_instead_of_token(probabilities, u):
    ordered = probabilities.sort(-1, descending=True).values
    return (ordered.cumsum(-1) <= u[:, None]).sum(-1)


@WRONG.to("sample_next", "axis")
def cumulative_over_the_batch(probabilities, u):
    return (probabilities.cumsum(0) <= u[:, None]).sum(-1).clamp(max=probabilities.shape[-1] - 1)


@WRONG.to("sample_next", "`u`", "random")
def draws_its_own(probabilities, u):
    return torch.multinomial(probabilities, 1)[:, 0]


@WRONG.to("sample_next", "which", "probability")
def probability_of_the_token(probabilities, u):
    token = (probabilities.cumsum(-1) <= u[:, None]).sum(-1)
    return probabilities.gather(-1, token[:, None])[:, 0]


@WRONG.to("sample_next", "shape")
def a_column(probabilities, u):
    return torch.searchsorted(probabilities.cumsum(-1), u[:, None], right=True)


@WRONG.to("sample_next", "u[0]")
def first_draw_for_all(probabilities, u):
    return (probabilities.cumsum(-1) <= u[0]).sum(-1)


# More answers -------------------------------------------------------------------------------------

@WRONG.to("previous_probabilities", "for counts", "is right")
def smoothing_on_the_diagonal(counts, smoothing):
    counts = counts.T + smoothing * torch.eye(len(counts))
    return counts / counts.sum(1, keepdim=True)


@WRONG.to("previous_probabilities", "sums to", "every row should sum to 1")
def last_row_forgotten(counts, smoothing):
    result = torch.zeros_like(counts)
    for b in range(len(counts) - 1):
        result[b] = (counts[:, b] + smoothing) / (counts[:, b] + smoothing).sum()
    return result


@WRONG.to("previous_probabilities", "every row should sum to 1")
def cumulative(counts, smoothing):
    return F.normalize(counts.T + smoothing, p=1, dim=1).cumsum(1)


@WRONG.to("previous_probabilities", "sums to 0.99999", "every row should sum to 1")
def epsilon_in_the_denominator(counts, smoothing):
    return ((counts + smoothing) / ((counts + smoothing).sum(0) + 1e-8)).T


@WRONG.to("previous_probabilities", "[[0.4, 0.6]", "[[0.375, 0.625]")
def smoothed_twice(counts, smoothing):
    return F.normalize(counts.T + 2 * smoothing, p=1, dim=1)


@WRONG.to("cross_entropy", "it is 50", "clamp")
def logits_clamped(logits, targets):
    return F.cross_entropy(logits.clamp(-50, 50).flatten(0, 1), targets.flatten())


@WRONG.to("cross_entropy", "gradient", "detach")
def normaliser_detached(logits, targets):
    return (logits.logsumexp(-1).detach() - logits.gather(-1, targets[..., None])[..., 0]).mean()


@WRONG.to("cross_entropy", "float32", "float64")
def single_precision_loss(logits, targets):
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


@WRONG.to("cross_entropy", "IndexError", "squeeze()")
def squeezed(logits, targets):
    positions = torch.arange(targets.numel())
    return -logits.log_softmax(-1).squeeze()[positions, targets.flatten()].mean()


@WRONG.to("cross_entropy", "targets = [[1]]", "is right")
def label_smoothing(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)


@WRONG.to("cross_entropy", "(3, 4, 7)", "is right")
def flattened_in_another_order(logits, targets):
    return F.cross_entropy(logits.transpose(0, 1).reshape(-1, logits.shape[-1]), targets.flatten())


@WRONG.to("sample_next", "1 − u")
def one_minus_u(probabilities, u):
    return (probabilities.cumsum(-1) <= 1 - u[:, None]).sum(-1)


@WRONG.to("sample_next", "float32", "int64")
def tokens_of_floats(probabilities, u):
    return (probabilities.cumsum(-1) <= u[:, None]).sum(-1).float()


@WRONG.to("sample_next", "for probabilities", "is right")
def in_half_precision(probabilities, u):
    below = probabilities.half().float().cumsum(-1) <= u[:, None].float()
    return below.sum(-1).clamp(max=probabilities.shape[-1] - 1)


@WRONG.to("sample_next", "probability 0 was drawn")
def nearest_sum(probabilities, u):
    return (probabilities.cumsum(-1) - u[:, None]).abs().argmin(-1)


@WRONG.to("sample_next", "for probabilities", "is right")
def draws_sorted(probabilities, u):
    return (probabilities.cumsum(-1) <= u.sort().values[:, None]).sum(-1)


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("previous_probabilities")
def softmax_of_the_logarithms(counts, smoothing):
    return (counts.T + smoothing).log().softmax(1)


@RIGHT.to("previous_probabilities")
def cell_by_cell(counts, smoothing):
    V = len(counts)
    result = torch.empty_like(counts)
    for b in range(V):
        total = sum(counts[a, b] + smoothing for a in range(V))
        for a in range(V):
            result[b, a] = (counts[a, b] + smoothing) / total
    return result


@WRONG.to("previous_probabilities", "divided by its mean")
def divided_by_the_mean(counts, smoothing):
    """Divide by the mean of a column."""
    return ((counts + smoothing) / (counts + smoothing).mean(0)).T


@WRONG.to("previous_probabilities", "added to the probabilities", "again")
def probabilities_smoothed_and_divided_again(counts, smoothing):
    """Smooth the probabilities, not the counts."""
    probabilities = counts / counts.sum(0) + smoothing
    return (probabilities / probabilities.sum(0)).T


@WRONG.to("previous_probabilities", "V² times")
def smoothing_of_the_whole_table(counts, smoothing):
    """Count the smoothing of all V² cells in each column."""
    return ((counts + smoothing) / (counts.sum(0) + smoothing * counts.numel())).T


@WRONG.to("previous_probabilities", "below the smoothing are raised")
def at_least_the_smoothing(counts, smoothing):
    """Take the maximum of count and smoothing."""
    return F.normalize(counts.T.clamp(min=smoothing), p=1, dim=1)


@WRONG.to("previous_probabilities", "shared out")
def smoothing_shared_by_the_row(counts, smoothing):
    """Add smoothing / V to each count."""
    return F.normalize(counts.T + smoothing / counts.shape[1], p=1, dim=1)


@WRONG.to("previous_probabilities", "multiplied by the smoothing")
def counts_times_smoothing(counts, smoothing):
    """Multiply where an addition is right."""
    return (counts * smoothing / (counts * smoothing).sum(0)).T


@RIGHT.to("cross_entropy")
def by_a_distribution(logits, targets):
    return -torch.distributions.Categorical(logits=logits).log_prob(targets).mean()


@RIGHT.to("cross_entropy")
def by_einsum(logits, targets):
    one_hot = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return -torch.einsum("btv,btv->", one_hot, logits.log_softmax(-1)) / targets.numel()


@RIGHT.to("cross_entropy")
def classes_on_axis_1(logits, targets):
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(0).mean()


@WRONG.to("cross_entropy", "largest loss")
def the_worst_position(logits, targets):
    """Take the maximum over the positions."""
    return F.cross_entropy(logits.mT, targets, reduction="none").max()


@WRONG.to("cross_entropy", "median")
def the_middle_position(logits, targets):
    """Take the median over the positions."""
    return F.cross_entropy(logits.mT, targets, reduction="none").median()


@WRONG.to("cross_entropy", "squared error")
def mean_squared_error(logits, targets):
    """Compare probabilities with a one-hot target, in squares."""
    return F.mse_loss(logits.softmax(-1), F.one_hot(targets, logits.shape[-1]).to(logits.dtype))


@WRONG.to("cross_entropy", "binary cross-entropy")
def binary(logits, targets):
    """Use the binary cross-entropy of each token."""
    one_hot = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return F.binary_cross_entropy(logits.softmax(-1), one_hot)


@WRONG.to("cross_entropy", "sigmoid", "softmax")
def sigmoid_of_the_target(logits, targets):
    """Use a sigmoid where a softmax is right."""
    return -logits.sigmoid().gather(-1, targets[..., None]).log().mean()


@WRONG.to("cross_entropy", "token 0 are left out")
def token_0_as_padding(logits, targets):
    """Ignore the positions whose target is 0."""
    losses = F.cross_entropy(logits.mT, targets, reduction="none")
    return losses[targets != 0].mean()


@WRONG.to("cross_entropy", "ln V too small")
def mean_in_the_denominator(logits, targets):
    """Divide by the mean of all exp(logits)."""
    of_target = logits.gather(-1, targets[..., None])[..., 0]
    return (logits.exp().mean(-1).log() - of_target).mean()


@WRONG.to("cross_entropy", "squared")
def squared_losses(logits, targets):
    """Take the mean of the squares of the losses."""
    return F.cross_entropy(logits.mT, targets, reduction="none").pow(2).mean()


@WRONG.to("cross_entropy", "base of the logarithm is 10")
def with_log10(logits, targets):
    """Use log10."""
    return -logits.softmax(-1).gather(-1, targets[..., None]).log10().mean()


@WRONG.to("cross_entropy", "most probable token")
def loss_of_the_guess(logits, targets):
    """Take the model's own guess for the target."""
    return F.cross_entropy(logits.flatten(0, 1), logits.flatten(0, 1).argmax(-1))


@WRONG.to("cross_entropy", "positions only", "batch is added up")
def divided_by_T_only(logits, targets):
    """Divide the sum by T."""
    losses = F.cross_entropy(logits.mT, targets, reduction="sum")
    return losses / targets.shape[1]


@RIGHT.to("sample_next")
def by_itertools(probabilities, u):
    from itertools import accumulate

    rows = zip(probabilities.tolist(), u.tolist(), strict=True)
    tokens = [next(v for v, c in enumerate(accumulate(row)) if c > draw) for row, draw in rows]
    return torch.tensor(tokens)


@RIGHT.to("sample_next")
def by_bisection(probabilities, u):
    from bisect import bisect_right

    cumulative = probabilities.cumsum(-1).tolist()
    return torch.tensor([bisect_right(row, draw) for row, draw in zip(cumulative, u, strict=True)])


@RIGHT.to("sample_next")
def first_true_by_argmax(probabilities, u):
    return (probabilities.cumsum(1) > u.unsqueeze(1)).byte().argmax(1)


@WRONG.to("sample_next", "order of their size, the largest first")
def sorted_downwards_and_put_back(probabilities, u):
    """Sort first, and then translate the rank into a token."""
    ordered, order = probabilities.sort(-1, descending=True)
    rank = (ordered.cumsum(-1) <= u[:, None]).sum(-1)
    return order[torch.arange(len(order)), rank]


@WRONG.to("sample_next", "order of their size, the smallest first")
def sorted_upwards_and_put_back(probabilities, u):
    """Sort upwards first, and then translate the rank into a token."""
    ordered, order = probabilities.sort(-1)
    rank = (ordered.cumsum(-1) <= u[:, None]).sum(-1)
    return order[torch.arange(len(order)), rank]


@WRONG.to("sample_next", "multiplied", "cumsum")
def products(probabilities, u):
    """Take cumprod for cumsum."""
    return (probabilities.cumprod(-1) > u[:, None]).int().argmax(-1)


@WRONG.to("sample_next", "nearest to u")
def nearest_probability(probabilities, u):
    """Take the token whose probability is nearest to u."""
    return (probabilities - u[:, None]).abs().argmin(-1)


@WRONG.to("sample_next", "softmax of probabilities")
def softmax_again(probabilities, u):
    """Take probabilities for logits."""
    return (probabilities.softmax(-1).cumsum(-1) <= u[:, None]).sum(-1)


@WRONG.to("sample_next", "equally probable")
def u_times_V(probabilities, u):
    """Scale u to an index."""
    return (u * probabilities.shape[1]).floor().long()


@WRONG.to("sample_next", "end of the vocabulary")
def from_the_end(probabilities, u):
    """Add the probabilities up from the last token to the first."""
    from_the_right = probabilities.flip(-1).cumsum(-1)
    return probabilities.shape[-1] - 1 - (from_the_right <= u[:, None]).sum(-1)


@WRONG.to("sample_next", "last row of probabilities")
def last_row_for_every_draw(probabilities, u):
    """Forget to move the row along with u in a loop."""
    cumulative = probabilities[-1].cumsum(-1)
    return torch.stack([(cumulative <= draw).sum() for draw in u])
