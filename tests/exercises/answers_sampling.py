"""Chapter 8: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


# min_p --------------------------------------------------------------------------------------------

def normalised(kept):
    return kept / kept.sum(-1, keepdim=True)


def kept_above(probabilities, limit):
    return torch.where(probabilities >= limit, probabilities, 0)


@RIGHT.to("min_p")
def with_where(probabilities, threshold):
    largest = probabilities.max(dim=-1, keepdim=True).values
    return normalised(torch.where(probabilities < threshold * largest, 0, probabilities))


@RIGHT.to("min_p")
def row_after_row(probabilities, threshold):
    rows = []
    for row in probabilities:
        row = row * (row >= threshold * row.max())
        rows.append(row / row.sum())
    return torch.stack(rows)


@RIGHT.to("min_p")
def by_shares(probabilities, threshold):
    shares = probabilities / probabilities.amax(-1, keepdim=True)
    return normalised(probabilities.masked_fill(shares < threshold, 0.0))


@RIGHT.to("min_p")
def in_sorted_order(probabilities, threshold):
    ordered, order = probabilities.sort(-1, descending=True)
    ordered = ordered * (ordered >= threshold * ordered[:, :1])
    return normalised(torch.zeros_like(ordered).scatter(-1, order, ordered))


@RIGHT.to("min_p")
def with_logits(probabilities, threshold):
    kept = probabilities >= threshold * probabilities.amax(-1, keepdim=True)
    return probabilities.log().masked_fill(~kept, -math.inf).softmax(-1)


@WRONG.to("min_p", "keeps no token")
def no_token_kept(probabilities, threshold):
    return torch.zeros_like(probabilities)


@WRONG.to("min_p", "the threshold itself")
def threshold_alone(probabilities, threshold):
    return normalised(kept_above(probabilities, threshold))


@WRONG.to("min_p", "exactly at the limit", ">=")
def strictly_above(probabilities, threshold):
    limit = threshold * probabilities.amax(-1, keepdim=True)
    return normalised(torch.where(probabilities > limit, probabilities, 0))


@WRONG.to("min_p", "whole batch", "each row")
def one_largest_for_the_batch(probabilities, threshold):
    return normalised(kept_above(probabilities, threshold * probabilities.max()))


@WRONG.to("min_p", "first row")
def largest_of_the_first_row(probabilities, threshold):
    return normalised(kept_above(probabilities, threshold * probabilities[0].max()))


@WRONG.to("min_p", "over the batch", "dim=-1")
def largest_of_each_column(probabilities, threshold):
    return normalised(kept_above(probabilities, threshold * probabilities.amax(0)))


@WRONG.to("min_p", "sum to 1", "divide")
def not_divided(probabilities, threshold):
    return kept_above(probabilities, threshold * probabilities.amax(-1, keepdim=True))


@WRONG.to("min_p", "wrong part")
def below_the_limit(probabilities, threshold):
    largest = probabilities.amax(-1, keepdim=True)
    return normalised(torch.where(probabilities < threshold * largest, probabilities, 0))


@WRONG.to("min_p", "1 − threshold")
def one_minus_threshold(probabilities, threshold):
    largest = probabilities.amax(-1, keepdim=True)
    return normalised(kept_above(probabilities, (1 - threshold) * largest))


@WRONG.to("min_p", "subtracted")
def distance_from_the_largest(probabilities, threshold):
    largest = probabilities.amax(-1, keepdim=True)
    return normalised(kept_above(probabilities, largest - threshold))


@WRONG.to("min_p", "that is top-p")
def nucleus(probabilities, threshold):
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    ordered = torch.where(ordered.cumsum(-1) - ordered < threshold, ordered, 0)
    return normalised(torch.zeros_like(ordered).scatter(-1, order, ordered))


@WRONG.to("min_p", "softmax")
def softmax_of_probabilities(probabilities, threshold):
    kept = probabilities >= threshold * probabilities.amax(-1, keepdim=True)
    return probabilities.masked_fill(~kept, -math.inf).softmax(-1)


@WRONG.to("min_p", "softmax", "dropped tokens")
def softmax_with_zeros(probabilities, threshold):
    return kept_above(probabilities, threshold * probabilities.amax(-1, keepdim=True)).softmax(-1)


@WRONG.to("min_p", "all tokens are kept")
def changes_nothing(probabilities, threshold):
    return probabilities.clone()


@WRONG.to("min_p", "only the most probable token")
def most_probable_only(probabilities, threshold):
    return F.one_hot(probabilities.argmax(-1), probabilities.shape[-1]).to(probabilities)


@WRONG.to("min_p", "mean probability")
def share_of_the_mean(probabilities, threshold):
    return normalised(kept_above(probabilities, threshold * probabilities.mean(-1, keepdim=True)))


@WRONG.to("min_p", "sorted", "place")
def left_in_sorted_order(probabilities, threshold):
    ordered = probabilities.sort(-1, descending=True).values
    return normalised(kept_above(ordered, threshold * ordered[:, :1]))


@WRONG.to("min_p", "which tokens stay")
def the_mask(probabilities, threshold):
    return probabilities >= threshold * probabilities.amax(-1, keepdim=True)


@WRONG.to("min_p", "sum of the whole batch")
def divided_by_the_sum_of_all(probabilities, threshold):
    kept = kept_above(probabilities, threshold * probabilities.amax(-1, keepdim=True))
    return kept / kept.sum()


@WRONG.to("min_p", "same probability")
def equal_shares(probabilities, threshold):
    kept = (probabilities >= threshold * probabilities.amax(-1, keepdim=True)).to(probabilities)
    return normalised(kept)


@WRONG.to("min_p", "changes its argument", "probabilities")
def in_place(probabilities, threshold):
    limit = threshold * probabilities.amax(-1, keepdim=True)
    probabilities[probabilities < limit] = 0
    return normalised(probabilities)


@WRONG.to("min_p", "threshold itself", "second mistake", "sum to 1")
def two_mistakes(probabilities, threshold):
    return kept_above(probabilities, threshold)


# accept_or_replace --------------------------------------------------------------------------------

def scaled(weights):
    total = weights.sum()
    return weights / total if total > 0 else torch.zeros_like(weights)


def from_residual(p, q):
    return scaled((p - q).clamp(min=0))


def mixed(p, token, accepted, replacement):
    result = (1 - accepted) * replacement
    result[token] += accepted
    return result


def quotient(p, q, token):
    return min(1.0, (p[token] / q[token]).item())


@RIGHT.to("accept_or_replace")
def two_cases(p, q, token):
    if p[token] >= q[token]:
        return F.one_hot(torch.tensor(token), len(p)).to(p)
    missing = torch.relu(p - q)
    accepted = p[token] / q[token]
    result = (1 - accepted) * missing / missing.sum()
    # The residual is 0 here, because p < q.
    result[token] = accepted
    return result


@RIGHT.to("accept_or_replace")
def with_a_sum_that_is_never_zero(p, q, token):
    missing = torch.maximum(p - q, torch.zeros_like(p))
    replacement = missing / missing.sum().clamp(min=torch.finfo(p.dtype).tiny)
    accepted = torch.clamp(p[token] / q[token], max=1)
    own = (torch.arange(len(p)) == token).to(p)
    return accepted * own + (1 - accepted) * replacement


@RIGHT.to("accept_or_replace")
def in_a_loop(p, q, token):
    accepted = quotient(p, q, token)
    result = torch.zeros_like(p)
    rest = sum(max(0.0, (a - b).item()) for a, b in zip(p, q, strict=True))
    for i in range(len(p)):
        if i == token:
            result[i] += accepted
        if rest and p[i] > q[i]:
            result[i] += (1 - accepted) * (p[i] - q[i]) / rest
    return result


@WRONG.to("accept_or_replace", "nan", "p = q")
def zero_by_zero(p, q, token):
    missing = (p - q).clamp(min=0)
    return mixed(p, token, quotient(p, q, token), missing / missing.sum())


@WRONG.to("accept_or_replace", "larger than 1")
def quotient_above_one(p, q, token):
    return mixed(p, token, p[token] / q[token], from_residual(p, q))


@WRONG.to("accept_or_replace", "upside down")
def inverted(p, q, token):
    return mixed(p, token, (q[token] / p[token]).clamp(max=1), from_residual(p, q))


@WRONG.to("accept_or_replace", "whatever the draft")
def accepted_with_p(p, q, token):
    return mixed(p, token, p[token], from_residual(p, q))


@WRONG.to("accept_or_replace", "accepted if p[token] >= q[token]")
def all_or_nothing(p, q, token):
    accepted = 1.0 if p[token] >= q[token] else 0.0
    return mixed(p, token, accepted, from_residual(p, q))


@WRONG.to("accept_or_replace", "every token is accepted")
def always_accepted(p, q, token):
    return F.one_hot(torch.tensor(token), len(p)).to(p)


@WRONG.to("accept_or_replace", "draw from p", "too often")
def replaced_from_p(p, q, token):
    return mixed(p, token, quotient(p, q, token), p)


@WRONG.to("accept_or_replace", "draw from the draft")
def replaced_from_q(p, q, token):
    return mixed(p, token, quotient(p, q, token), q)


@WRONG.to("accept_or_replace", "without the rejected token")
def replaced_from_the_other_tokens(p, q, token):
    others = p.clone()
    others[token] = 0
    return mixed(p, token, quotient(p, q, token), scaled(others))


@WRONG.to("accept_or_replace", "exchanged", "max(0, p − q)")
def residual_upside_down(p, q, token):
    return mixed(p, token, quotient(p, q, token), scaled((q - p).clamp(min=0)))


@WRONG.to("accept_or_replace", "|p − q|")
def residual_of_distances(p, q, token):
    return mixed(p, token, quotient(p, q, token), scaled((p - q).abs()))


@WRONG.to("accept_or_replace", "below 0")
def residual_with_negative_numbers(p, q, token):
    return mixed(p, token, quotient(p, q, token), p - q)


@WRONG.to("accept_or_replace", "not divided by its sum")
def residual_not_divided(p, q, token):
    return mixed(p, token, quotient(p, q, token), (p - q).clamp(min=0))


@WRONG.to("accept_or_replace", "softmax")
def residual_by_softmax(p, q, token):
    return mixed(p, token, quotient(p, q, token), (p - q).softmax(-1))


@WRONG.to("accept_or_replace", "weight 1", "1 − accepted")
def residual_with_full_weight(p, q, token):
    result = from_residual(p, q)
    result[token] += quotient(p, q, token)
    return result


@WRONG.to("accept_or_replace", "case that it is rejected")
def acceptance_alone(p, q, token):
    result = torch.zeros_like(p)
    result[token] = quotient(p, q, token)
    return result


@WRONG.to("accept_or_replace", "residual alone")
def residual_alone(p, q, token):
    return from_residual(p, q)


@WRONG.to("accept_or_replace", "two cases are exchanged")
def cases_exchanged(p, q, token):
    return mixed(p, token, 1 - quotient(p, q, token), from_residual(p, q))


@WRONG.to("accept_or_replace", "on average over all proposals")
def simply_p(p, q, token):
    return p.clone()


@WRONG.to("accept_or_replace", "most probable token of p")
def replaced_by_the_best(p, q, token):
    best = F.one_hot(p.argmax(), len(p)).to(p)
    return mixed(p, token, quotient(p, q, token), best)


@WRONG.to("accept_or_replace", "more probable case")
def without_chance(p, q, token):
    if quotient(p, q, token) >= 0.5:
        return F.one_hot(torch.tensor(token), len(p)).to(p)
    return from_residual(p, q)


# grouped_query_attention --------------------------------------------------------------------------

def attended(q, k, v, scale=None, hide=None, dim=-1):
    """Return attention of q, k and v with the same number of heads."""
    T = q.shape[-2]
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    future = torch.ones(T, T, dtype=torch.bool).triu(1) if hide is None else hide(T)
    return scores.masked_fill(future, -math.inf).softmax(dim) @ v


def shared(q, *tensors):
    return [x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in tensors]


@RIGHT.to("grouped_query_attention")
def with_torch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@RIGHT.to("grouped_query_attention")
def with_repeated_heads(q, k, v):
    return attended(q, *shared(q, k, v))


@RIGHT.to("grouped_query_attention")
def with_an_axis_of_groups(q, k, v):
    B, H, T, D = q.shape
    G = k.shape[1]
    y = attended(q.view(B, G, H // G, T, D), k[:, :, None], v[:, :, None])
    return y.reshape(B, H, T, D)


@RIGHT.to("grouped_query_attention")
def head_by_head(q, k, v):
    size = q.shape[1] // k.shape[1]
    heads = [attended(q[:, h], k[:, h // size], v[:, h // size]) for h in range(q.shape[1])]
    return torch.stack(heads, dim=1)


@RIGHT.to("grouped_query_attention")
def by_index_of_heads(q, k, v):
    group = torch.arange(q.shape[1]) // (q.shape[1] // k.shape[1])
    return F.scaled_dot_product_attention(q, k[:, group], v[:, group], is_causal=True)


@WRONG.to("grouped_query_attention", "modulo", "repeat_interleave")
def repeated_by_turns(q, k, v):
    n = q.shape[1] // k.shape[1]
    return attended(q, k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1))


@WRONG.to("grouped_query_attention", "modulo", "value head")
def values_repeated_by_turns(q, k, v):
    return attended(q, *shared(q, k), v.repeat(1, q.shape[1] // k.shape[1], 1, 1))


@WRONG.to("grouped_query_attention", "head 0 of keys and values")
def first_group_for_all(q, k, v):
    return attended(q, k[:, :1], v[:, :1])


@WRONG.to("grouped_query_attention", "mean of all key heads")
def mean_of_the_groups(q, k, v):
    return attended(q, k.mean(1, keepdim=True), v.mean(1, keepdim=True))


@WRONG.to("grouped_query_attention", "scale is missing")
def not_scaled(q, k, v):
    return attended(q, *shared(q, k, v), scale=1)


@WRONG.to("grouped_query_attention", "divided by D")
def divided_by_head_size(q, k, v):
    return attended(q, *shared(q, k, v), scale=1 / q.shape[-1])


@WRONG.to("grouped_query_attention", "whole width")
def scaled_by_the_width(q, k, v):
    return attended(q, *shared(q, k, v), scale=(q.shape[1] * q.shape[-1]) ** -0.5)


@WRONG.to("grouped_query_attention", "causal mask is missing")
def not_causal(q, k, v):
    return attended(q, *shared(q, k, v), hide=lambda T: torch.zeros(T, T, dtype=torch.bool))


@WRONG.to("grouped_query_attention", "cannot see itself")
def hidden_from_itself(q, k, v):
    return attended(q, *shared(q, k, v), hide=lambda T: torch.ones(T, T, dtype=torch.bool).triu())


@WRONG.to("grouped_query_attention", "hides the past")
def sees_the_future(q, k, v):
    hide = lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1)
    return attended(q, *shared(q, k, v), hide=hide)


@WRONG.to("grouped_query_attention", "over the queries")
def softmax_over_queries(q, k, v):
    return attended(q, *shared(q, k, v), dim=-2)


@WRONG.to("grouped_query_attention", "after the softmax")
def masked_after_softmax(q, k, v):
    k, v = shared(q, k, v)
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return weights.tril() @ v


@WRONG.to("grouped_query_attention", "exp(0) = 1")
def scores_set_to_zero(q, k, v):
    k, v = shared(q, k, v)
    return (q @ k.mT / math.sqrt(q.shape[-1])).tril().softmax(-1) @ v


@WRONG.to("grouped_query_attention", "queries of a group are averaged")
def queries_averaged(q, k, v):
    B, H, T, D = q.shape
    G = k.shape[1]
    return attended(q.view(B, G, H // G, T, D).mean(2), k, v)


@WRONG.to("grouped_query_attention", "leave the heads apart")
def heads_merged(q, k, v):
    return with_torch(q, k, v).transpose(1, 2).flatten(2)


@WRONG.to("grouped_query_attention", "axes of heads and positions")
def positions_first(q, k, v):
    return with_torch(q, k, v).transpose(1, 2)


@WRONG.to("grouped_query_attention", "keys are used as values")
def keys_twice(q, k, v):
    k, _ = shared(q, k, v)
    return attended(q, k, k)


@WRONG.to("grouped_query_attention", "reverse order")
def values_in_reverse_groups(q, k, v):
    return attended(q, *shared(q, k, v.flip(1)))


@WRONG.to("grouped_query_attention", "no gradient", "`k`")
def keys_detached(q, k, v):
    return attended(q, *shared(q, k.detach(), v))


@WRONG.to("grouped_query_attention", "RuntimeError")
def heads_not_matched(q, k, v):
    return attended(q, k, v)
