"""Chapter 2: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


def visible(T):
    return torch.ones(T, T, dtype=torch.bool).tril()


def in_window(T, window):
    return visible(T).triu(1 - window)


def scores(q, k):
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def masked(raw, window, hidden=-math.inf):
    return raw.masked_fill(~in_window(raw.shape[-1], window).to(raw.device), hidden)


# causal_mask --------------------------------------------------------------------------------------

@RIGHT.to("causal_mask")
def by_comparison(T):
    return torch.arange(T) <= torch.arange(T)[:, None]


@RIGHT.to("causal_mask")
def by_list(T):
    return torch.tensor([[j <= i for j in range(T)] for i in range(T)])


@WRONG.to("causal_mask", "future", "tril")
def upper_triangle(T):
    return torch.ones(T, T, dtype=torch.bool).triu()


@WRONG.to("causal_mask", "itself", "diagonal")
def without_itself(T):
    return torch.ones(T, T, dtype=torch.bool).tril(-1)


@WRONG.to("causal_mask", "next", "diagonal")
def one_step_ahead(T):
    return torch.ones(T, T, dtype=torch.bool).tril(1)


@WRONG.to("causal_mask", "opposite")
def hidden_instead_of_allowed(T):
    return torch.ones(T, T, dtype=torch.bool).triu(1)


@WRONG.to("causal_mask", "bool")
def of_floats(T):
    return torch.ones(T, T).tril()


@WRONG.to("causal_mask", "-inf", "bool")
def to_be_added(T):
    return torch.zeros(T, T).masked_fill(~visible(T), -math.inf)


@WRONG.to("causal_mask", "everything")
def no_mask(T):
    return torch.ones(T, T, dtype=torch.bool)


@WRONG.to("causal_mask", "only itself")
def diagonal_only(T):
    return torch.eye(T, dtype=torch.bool)


@WRONG.to("causal_mask", "axes", "(T, T)")
def with_batch_and_heads(T):
    return visible(T)[None, None]


@WRONG.to("causal_mask", "shape")
def of_a_fixed_size(T):
    return visible(8)


@WRONG.to("causal_mask", "position 3 cannot see position 0")
def a_window(T):
    return visible(T).triu(-2)


# attention_weights --------------------------------------------------------------------------------

@RIGHT.to("attention_weights")
def a_large_negative_number(q, k, window):
    return masked(scores(q, k), window, -1e9).softmax(-1)


@WRONG.to("attention_weights", "after the softmax", "0 / 0")
def masked_late_and_renormalised(q, k, window):
    weights = scores(q, k).softmax(-1).tril().triu(1 - window)
    return weights / weights.sum(-1, keepdim=True)


@RIGHT.to("attention_weights")
def row_by_row(q, k, window):
    B, H, T, d = q.shape
    weights = torch.zeros(B, H, T, T, dtype=q.dtype, device=q.device)
    for t in range(T):
        first = max(t - window + 1, 0)
        of_query = k[..., first:t + 1, :] @ q[..., t, :, None] / d ** 0.5
        weights[..., t, first:t + 1] = of_query[..., 0].softmax(-1)
    return weights


@RIGHT.to("attention_weights")
def with_einsum(q, k, window):
    hidden = torch.full((q.shape[2],) * 2, -math.inf, dtype=q.dtype, device=q.device)
    added = hidden.triu(1) + hidden.tril(-window)
    return (torch.einsum("bhid,bhjd->bhij", q, k) * q.size(-1) ** -0.5 + added).softmax(-1)


@WRONG.to("attention_weights", "scale", "head")
def unscaled(q, k, window):
    return masked(q @ k.transpose(-2, -1), window).softmax(-1)


@WRONG.to("attention_weights", "all heads", "head_size")
def scaled_by_all_channels(q, k, window):
    return masked(q @ k.transpose(-2, -1) / math.sqrt(q.shape[1] * q.shape[-1]), window).softmax(-1)


@WRONG.to("attention_weights", "multipl", "divide")
def scaled_up(q, k, window):
    return masked(q @ k.transpose(-2, -1) * math.sqrt(q.shape[-1]), window).softmax(-1)


@WRONG.to("attention_weights", "square root")
def scaled_without_the_root(q, k, window):
    return masked(q @ k.transpose(-2, -1) / q.shape[-1], window).softmax(-1)


@WRONG.to("attention_weights", "positions", "head_size")
def scaled_by_time(q, k, window):
    return masked(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-2]), window).softmax(-1)


@WRONG.to("attention_weights", "axis")
def softmax_over_queries(q, k, window):
    return masked(scores(q, k), window).softmax(-2)


@WRONG.to("attention_weights", "after the softmax", "sum")
def masked_late(q, k, window):
    return scores(q, k).softmax(-1).tril().triu(1 - window)


@WRONG.to("attention_weights", "no mask")
def unmasked(q, k, window):
    return scores(q, k).softmax(-1)


@WRONG.to("attention_weights", "transposed")
def mask_transposed(q, k, window):
    return scores(q, k).masked_fill(~in_window(q.shape[2], window).T, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "itself")
def diagonal_hidden(q, k, window):
    return scores(q, k).masked_fill(~in_window(q.shape[2], window).tril(-1), -math.inf).softmax(-1)


@WRONG.to("attention_weights", "0", "-inf")
def masked_with_zero(q, k, window):
    return masked(scores(q, k), window, 0.0).softmax(-1)


@WRONG.to("attention_weights", "softmax")
def no_softmax(q, k, window):
    return masked(scores(q, k), window, 0.0)


@WRONG.to("attention_weights", "swapped")
def query_and_key_swapped(q, k, window):
    return masked(scores(k, q), window).softmax(-1)


@WRONG.to("attention_weights", "-inf")
def masked_with_minus_20(q, k, window):
    return masked(scores(q, k), window, -20.0).softmax(-1)


@WRONG.to("attention_weights", "large scores")
def softmax_by_hand(q, k, window):
    e = masked(scores(q, k), window).exp()
    return e / e.sum(-1, keepdim=True)


@WRONG.to("attention_weights", "RuntimeError", "swap the last two axes")
def all_axes_reversed(q, k, window):
    return masked(q @ k.T / math.sqrt(q.shape[-1]), window).softmax(-1)


@WRONG.to("attention_weights", "gradient")
def detached(q, k, window):
    return masked(scores(q, k.detach()), window).softmax(-1)


# More answers -------------------------------------------------------------------------------------

@WRONG.to("causal_mask", "position 0 sees position 1")
def mirrored(T):
    return visible(T).flip(1)


@WRONG.to("causal_mask", "int64", "bool")
def of_integers(T):
    return visible(T).long()


@WRONG.to("causal_mask", "position 1 cannot see position 0")
def first_column_hidden(T):
    mask = visible(T)
    mask[1:, 0] = False
    return mask


@WRONG.to("causal_mask", "position 0 sees position 1")
def in_blocks_of_two(T):
    block = torch.arange(T) // 2
    return block[:, None] >= block


@WRONG.to("causal_mask", "list", "torch.Tensor")
def as_lists(T):
    return [[j <= i for j in range(T)] for i in range(T)]


@WRONG.to("attention_weights", "do not sum to 1")
def softmax_over_everything(q, k, window):
    raw = masked(scores(q, k), window)
    return raw.flatten(-2).softmax(-1).view_as(raw)


@WRONG.to("attention_weights", "twice")
def softmax_twice(q, k, window):
    return masked(scores(q, k), window).softmax(-1).softmax(-1)


@WRONG.to("attention_weights", "signs")
def scores_negated(q, k, window):
    return masked(-scores(q, k), window).softmax(-1)


@WRONG.to("attention_weights", "hides every position from itself", "first position")
def diagonal_hidden_except_the_first(q, k, window):
    allowed = in_window(q.shape[2], window).tril(-1)
    allowed[0, 0] = True
    return scores(q, k).masked_fill(~allowed, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "nearly right", ".float()")
def float32_inside(q, k, window):
    return masked(scores(q.float(), k.float()), window).softmax(-1).to(q.dtype)


@WRONG.to("attention_weights", "-inf is safe")
def a_finite_number_added(q, k, window):
    return (scores(q, k) + (~in_window(q.shape[2], window)).to(q.dtype) * -1e4).softmax(-1)


@WRONG.to("attention_weights", "two calls", "random")
def dropout_inside(q, k, window):
    return F.dropout(masked(scores(q, k), window).softmax(-1), 0.1)


@WRONG.to("attention_weights", "scale is missing", "queries")
def two_mistakes(q, k, window):
    return masked(q @ k.transpose(-2, -1), window).softmax(-2)


@WRONG.to("attention_weights", "no weight at all")
def window_of_at_most_two(q, k, window):
    return masked(scores(q, k), min(window, 2)).softmax(-1)


@WRONG.to("attention_weights", "position 0 gives itself no weight")
def diagonal_hidden_and_nan_to_num(q, k, window):
    allowed = in_window(q.shape[2], window).tril(-1)
    return scores(q, k).masked_fill(~allowed, -math.inf).softmax(-1).nan_to_num()


@WRONG.to("attention_weights", "shape")
def averages_already(q, k, window):
    return masked(scores(q, k), window).softmax(-1) @ k


@WRONG.to("attention_weights", "changes its argument", "q")
def query_scaled_in_place(q, k, window):
    q /= math.sqrt(q.shape[-1])
    return masked(q @ k.transpose(-2, -1), window).softmax(-1)


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("causal_mask")
def by_two_loops(T):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        for j in range(i + 1):
            mask[i, j] = True
    return mask


@RIGHT.to("causal_mask")
def sums_of_one_hot_rows(T):
    return torch.eye(T).cumsum(1).T == 1


@RIGHT.to("causal_mask")
def from_indices(T):
    mask = torch.full((T, T), False)
    rows, columns = torch.tril_indices(T, T)
    mask[rows, columns] = True
    return mask


@WRONG.to("causal_mask", "except the first position")
def itself_hidden_except_at_0(T):
    """Hide the diagonal, and repair the first row only."""
    mask = torch.ones(T, T, dtype=torch.bool).tril(-1)
    mask[0, 0] = True
    return mask


@WRONG.to("causal_mask", "one row and one column too many")
def one_larger(T):
    """Count the positions from 0 to T."""
    return visible(T + 1)


@WRONG.to("causal_mask", "itself and the position before")
def a_band(T):
    """Allow the last two positions only."""
    return visible(T) & torch.ones(T, T).triu(-1).bool()


@WRONG.to("causal_mask", "only the next position")
def the_target_only(T):
    """Allow the position that should be predicted."""
    positions = torch.arange(T)
    return positions == positions[:, None] + 1


@WRONG.to("causal_mask", "reverse order")
def upside_down(T):
    """Count the rows from below."""
    return torch.arange(T) < T - torch.arange(T)[:, None]


@WRONG.to("causal_mask", "one row only")
def of_the_last_query(T):
    """Return the row of the last position."""
    return torch.arange(T) <= T - 1


@WRONG.to("causal_mask", "large negative number", "bool")
def minus_a_billion(T):
    """Return a mask to be added to the scores."""
    return torch.ones(T, T).triu(1) * -1e9


@RIGHT.to("attention_weights")
def with_torch_s_own_attention(q, k, window):
    values = torch.eye(q.shape[2], dtype=q.dtype).expand(*q.shape[:2], -1, -1)
    mask = in_window(q.shape[2], window)
    return F.scaled_dot_product_attention(q, k, values, attn_mask=mask)


@RIGHT.to("attention_weights")
def by_hand_and_stable(q, k, window):
    seen = masked(scores(q, k), window)
    e = (seen - seen.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@RIGHT.to("attention_weights")
def head_by_head(q, k, window):
    def one_head(q, k):
        return masked(torch.matmul(q * len(q[0]) ** -0.5, k.T), window).softmax(1)

    B, H = q.shape[:2]
    return torch.stack([torch.stack([one_head(q[b, h], k[b, h]) for h in range(H)])
                        for b in range(B)])


@WRONG.to("attention_weights", "exactly 0 are hidden")
def zeros_taken_for_the_future(q, k, window):
    """Hide every score that is 0 after tril."""
    kept = scores(q, k).tril().triu(1 - window)
    return kept.masked_fill(kept == 0, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "after the softmax", "divide the scores")
def scaled_late(q, k, window):
    """Divide the weights, not the scores."""
    return masked(q @ k.mT, window).softmax(-1) / math.sqrt(q.shape[-1])


@WRONG.to("attention_weights", "sigmoid")
def sigmoid_weights(q, k, window):
    """Use a sigmoid for the softmax."""
    return masked(scores(q, k), window).sigmoid()


@WRONG.to("attention_weights", "exp is applied before")
def exponential_twice(q, k, window):
    """Take the exponential, and then the softmax."""
    return masked(scores(q, k).exp(), window).softmax(-1)


@WRONG.to("attention_weights", "mask of ones and zeros is added")
def mask_added(q, k, window):
    """Add a mask of ones and zeros."""
    return (scores(q, k) + in_window(q.shape[2], window).to(q.dtype)).softmax(-1)


@WRONG.to("attention_weights", "ones and zeros", "subtracted")
def one_subtracted(q, k, window):
    """Subtract 1 from what should be hidden."""
    return (scores(q, k) - torch.ones(q.shape[2], q.shape[2], dtype=q.dtype).triu(1)).softmax(-1)


@WRONG.to("attention_weights", "relu")
def rectified(q, k, window):
    """Cut negative scores off."""
    return masked(scores(q, k).relu(), window).softmax(-1)


@WRONG.to("attention_weights", "√n_head")
def scaled_by_the_number_of_heads(q, k, window):
    """Read the wrong axis of the shape."""
    return masked(q @ k.mT / math.sqrt(q.shape[1]), window).softmax(-1)


@WRONG.to("attention_weights", "√head_size twice")
def both_scaled(q, k, window):
    """Scale q and k, and so the scores twice."""
    root = q.shape[-1] ** 0.5
    return masked((q / root) @ (k / root).mT, window).softmax(-1)


@WRONG.to("attention_weights", "hidden scores are set to 0")
def hidden_with_a_tiny_number(q, k, window):
    """Write -1e-9 for -1e9."""
    return masked(scores(q, k), window, -1e-9).softmax(-1)


@WRONG.to("attention_weights", "over the wrong axis, the heads", "there is no mask")
def no_mask_and_softmax_over_heads(q, k, window):
    """Forget the mask, and take the softmax over axis 1."""
    return scores(q, k).softmax(1)


# The window ---------------------------------------------------------------------------------------

@RIGHT.to("attention_weights")
def by_distance(q, k, window):
    positions = torch.arange(q.shape[2])
    distance = positions[:, None] - positions
    allowed = (distance >= 0) & (distance < window)
    return scores(q, k).masked_fill(~allowed, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "window is missing")
def window_ignored(q, k, window):
    """Use the causal mask of the chapter."""
    return masked(scores(q, k), q.shape[2]).softmax(-1)


@WRONG.to("attention_weights", "one position too long")
def window_too_long(q, k, window):
    """Forget that the position itself counts."""
    return masked(scores(q, k), window + 1).softmax(-1)


@WRONG.to("attention_weights", "one position too short")
def window_too_short(q, k, window):
    """Count the position itself twice."""
    return masked(scores(q, k), window - 1).softmax(-1)


@WRONG.to("attention_weights", "reaches into the future")
def window_on_both_sides(q, k, window):
    """Allow every position nearer than the window."""
    positions = torch.arange(q.shape[2])
    near = (positions[:, None] - positions).abs() < window
    return scores(q, k).masked_fill(~near, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "near positions are hidden")
def window_hidden(q, k, window):
    """Hide the window, and show what lies before it."""
    return scores(q, k).masked_fill(~visible(q.shape[2]).tril(-window), -math.inf).softmax(-1)


@WRONG.to("attention_weights", "blocks")
def in_blocks(q, k, window):
    """Cut the text into blocks as long as the window."""
    block = torch.arange(q.shape[2]) // window
    allowed = visible(q.shape[2]) & (block == block[:, None])
    return scores(q, k).masked_fill(~allowed, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "window is missing", "scale is missing")
def no_window_and_no_scale(q, k, window):
    """Forget both."""
    return masked(q @ k.mT, q.shape[2]).softmax(-1)


@WRONG.to("attention_weights", "before the window get weight")
def window_of_at_least_three(q, k, window):
    """Take too small windows for an error."""
    return masked(scores(q, k), max(window, 3)).softmax(-1)


# one_query ----------------------------------------------------------------------------------------

@RIGHT.to("one_query")
def one_query_with_einsum(q, keys, values):
    weights = torch.einsum("bhd,bhtd->bht", q, keys).mul(q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bht,bhtd->bhd", weights, values)


@RIGHT.to("one_query")
def one_query_with_torch(q, keys, values):
    return F.scaled_dot_product_attention(q.unsqueeze(2), keys, values).squeeze(2)


@RIGHT.to("one_query")
def one_query_by_products(q, keys, values):
    weights = ((q[:, :, None] * keys).sum(-1) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights[..., None] * values).sum(2)


@RIGHT.to("one_query")
def one_query_by_columns(q, keys, values):
    weights = (keys @ q[..., None] / q.shape[-1] ** 0.5).softmax(2)     # (B, H, T, 1)
    return (values.mT @ weights)[..., 0]


@RIGHT.to("one_query")
def one_query_by_loops(q, keys, values):
    def one(q, keys, values):
        return torch.softmax(keys @ q / len(q) ** 0.5, 0) @ values

    B, H, d = q.shape
    rows = [one(q[b, h], keys[b, h], values[b, h]) for b in range(B) for h in range(H)]
    return torch.stack(rows).view(B, H, d)


@WRONG.to("one_query", "only the first position is seen", "No mask is needed")
def one_query_and_a_causal_mask(q, keys, values):
    """Keep the mask, which has one row for one query."""
    return F.scaled_dot_product_attention(q[:, :, None], keys, values, is_causal=True)[:, :, 0]


@WRONG.to("one_query", "only the first position is seen")
def one_query_and_tril(q, keys, values):
    """Use tril on the one row of scores."""
    raw = q[:, :, None] @ keys.mT / q.shape[-1] ** 0.5
    mask = torch.ones_like(raw, dtype=torch.bool).tril()
    return (raw.masked_fill(~mask, -math.inf).softmax(-1) @ values)[:, :, 0]


@WRONG.to("one_query", "scale is missing")
def one_query_unscaled(q, keys, values):
    return ((q[:, :, None] @ keys.mT).softmax(-1) @ values)[:, :, 0]


@WRONG.to("one_query", "√T")
def one_query_scaled_by_time(q, keys, values):
    return ((q[:, :, None] @ keys.mT / keys.shape[2] ** 0.5).softmax(-1) @ values)[:, :, 0]


@WRONG.to("one_query", "√n_head")
def one_query_scaled_by_heads(q, keys, values):
    """Read the size from the wrong axis of q."""
    return ((q[:, :, None] @ keys.mT / q.shape[1] ** 0.5).softmax(-1) @ values)[:, :, 0]


@WRONG.to("one_query", "square root")
def one_query_without_the_root(q, keys, values):
    return ((q[:, :, None] @ keys.mT / q.shape[-1]).softmax(-1) @ values)[:, :, 0]


@WRONG.to("one_query", "axis", "one query")
def one_query_softmax_over_queries(q, keys, values):
    return ((q[:, :, None] @ keys.mT / q.shape[-1] ** 0.5).softmax(-2) @ values)[:, :, 0]


@WRONG.to("one_query", "softmax is missing")
def one_query_without_softmax(q, keys, values):
    return (q[:, :, None] @ keys.mT / q.shape[-1] ** 0.5 @ values)[:, :, 0]


@WRONG.to("one_query", "axis too many", "(B, n_head, head_size)")
def one_query_with_its_axis(q, keys, values):
    return F.scaled_dot_product_attention(q[:, :, None], keys, values)


@WRONG.to("one_query", "newest position is left out")
def one_query_of_the_past(q, keys, values):
    """Hide the position itself."""
    return F.scaled_dot_product_attention(
        q[:, :, None], keys[:, :, :-1], values[:, :, :-1])[:, :, 0]


@WRONG.to("one_query", "swapped")
def one_query_keys_for_values(q, keys, values):
    return F.scaled_dot_product_attention(q[:, :, None], values, keys)[:, :, 0]


@WRONG.to("one_query", "values are never used")
def one_query_of_keys(q, keys, values):
    return F.scaled_dot_product_attention(q[:, :, None], keys, keys)[:, :, 0]


@WRONG.to("one_query", "argmax")
def one_query_takes_the_best(q, keys, values):
    best = (keys @ q[..., None]).argmax(2, keepdim=True)
    return values.gather(2, best.expand(-1, -1, 1, values.shape[-1]))[:, :, 0]


@WRONG.to("one_query", "contains the weights")
def one_query_weights(q, keys, values):
    return (keys @ q[..., None] / q.shape[-1] ** 0.5).softmax(2)[..., 0]


@WRONG.to("one_query", "same weight")
def one_query_mean(q, keys, values):
    return values.mean(2)


@WRONG.to("one_query", "wrong sign")
def one_query_negated(q, keys, values):
    return F.scaled_dot_product_attention(-q[:, :, None], keys, values)[:, :, 0]


@WRONG.to("one_query", "overflows")
def one_query_softmax_by_hand(q, keys, values):
    e = (keys @ q[..., None] / q.shape[-1] ** 0.5).exp()
    return (e / e.sum(2, keepdim=True) * values).sum(2)


@WRONG.to("one_query", "gradient", "keys")
def one_query_with_detached_keys(q, keys, values):
    return F.scaled_dot_product_attention(q[:, :, None], keys.detach(), values)[:, :, 0]


@WRONG.to("one_query", "RuntimeError")
def one_query_without_an_axis(q, keys, values):
    return (q @ keys.mT / q.shape[-1] ** 0.5).softmax(-1) @ values


# all_heads ----------------------------------------------------------------------------------------

def one_head(x, w_query, w_key, w_value):
    q, k, v = x @ w_query, x @ w_key, x @ w_value
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@RIGHT.to("all_heads")
def all_heads_at_once(x, w_query, w_key, w_value, w_out):
    x = x[:, None]                                          # (B, 1, T, C)
    q, k, v = x @ w_query, x @ w_key, x @ w_value           # (B, n_head, T, head_size)
    return (masked(scores(q, k), q.shape[2]).softmax(-1) @ v @ w_out).sum(1)


@RIGHT.to("all_heads")
def all_heads_side_by_side(x, w_query, w_key, w_value, w_out):
    matrices = zip(w_query, w_key, w_value, strict=True)
    return torch.cat([one_head(x, *of_head) for of_head in matrices], -1) @ w_out.flatten(0, 1)


@RIGHT.to("all_heads")
def all_heads_with_one_matrix(x, w_query, w_key, w_value, w_out):
    H, C, d = w_query.shape
    q, k, v = ((x @ w.transpose(0, 1).reshape(C, H * d)).unflatten(-1, (H, d)).transpose(1, 2)
               for w in (w_query, w_key, w_value))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return torch.einsum("bhtd,hdc->btc", y, w_out)


@RIGHT.to("all_heads")
def all_heads_by_sum(x, w_query, w_key, w_value, w_out):
    matrices = zip(w_query, w_key, w_value, strict=True)
    return sum(one_head(x, *of_head) @ w_out[h] for h, of_head in enumerate(matrices))


def fused(q, k, v, **options):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, **options)


def causal(raw, hidden=-math.inf):
    return masked(raw, raw.shape[-1], hidden)


def in_all_heads(x, matrices, attend, join=sum):
    """Return the outputs of all heads, joined. `attend(q, k, v)` is what each head does."""
    of_heads = zip(*matrices, strict=True)
    return join([attend(x @ w_query, x @ w_key, x @ w_value) @ w_out
                 for w_query, w_key, w_value, w_out in of_heads])


@WRONG.to("all_heads", "no mask")
def all_heads_unmasked(x, *matrices):
    return in_all_heads(x, matrices, F.scaled_dot_product_attention)


@WRONG.to("all_heads", "scale is missing")
def all_heads_unscaled(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: fused(q, k, v, scale=1.0))


@WRONG.to("all_heads", "square root")
def all_heads_scaled_without_the_root(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: fused(q, k, v, scale=1 / q.shape[-1]))


@WRONG.to("all_heads", "after the softmax")
def all_heads_masked_late(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: scores(q, k).softmax(-1).tril() @ v)


@WRONG.to("all_heads", "wrong axis", "queries")
def all_heads_softmax_over_queries(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: causal(scores(q, k)).softmax(1) @ v)


@WRONG.to("all_heads", "exp(0)")
def all_heads_hidden_by_0(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: causal(scores(q, k), 0.0).softmax(-1) @ v)


@WRONG.to("all_heads", "softmax is missing")
def all_heads_without_softmax(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: scores(q, k).tril() @ v)


@WRONG.to("all_heads", "swapped")
def all_heads_queries_and_keys_swapped(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: fused(k, q, v))


@WRONG.to("all_heads", "averaged")
def all_heads_averaged(x, *matrices):
    return in_all_heads(x, matrices, fused, lambda heads: sum(heads) / len(heads))


@WRONG.to("all_heads", "only the first head")
def all_heads_first(x, *matrices):
    return in_all_heads(x, matrices, fused, lambda heads: heads[0])


@WRONG.to("all_heads", "only the last head", "overwritten")
def all_heads_last(x, *matrices):
    return in_all_heads(x, matrices, fused, lambda heads: heads[-1])


@WRONG.to("all_heads", "first head is left out")
def all_heads_from_1(x, *matrices):
    return in_all_heads(
        x, matrices, fused, lambda heads: sum(heads[1:], torch.zeros_like(heads[0])))


@WRONG.to("all_heads", "apart")
def all_heads_apart(x, *matrices):
    return in_all_heads(x, matrices, fused, lambda heads: torch.stack(heads, dim=1))


@WRONG.to("all_heads", "list", "torch.Tensor")
def all_heads_in_a_list(x, *matrices):
    return in_all_heads(x, matrices, fused, list)


@WRONG.to("all_heads", "side by side")
def all_heads_outputs_side_by_side(x, *matrices):
    return in_all_heads(x, matrices, fused, lambda heads: torch.cat(heads, -1))


@WRONG.to("all_heads", "gradient")
def all_heads_detached(x, *matrices):
    return in_all_heads(x, matrices, lambda q, k, v: fused(q, k, v.detach()))


@WRONG.to("all_heads", "√C")
def all_heads_scaled_by_channels(x, w_query, w_key, w_value, w_out):
    """Divide by the root of C, the channels of x."""
    C = x.shape[-1]
    matrices = w_query, w_key, w_value, w_out
    return in_all_heads(x, matrices, lambda q, k, v: fused(q, k, v, scale=C ** -0.5))


@WRONG.to("all_heads", "residual")
def all_heads_and_x(x, w_query, w_key, w_value, w_out):
    return x + all_heads_by_sum(x, w_query, w_key, w_value, w_out)


@WRONG.to("all_heads", "head before it", "same x")
def all_heads_in_a_row(x, w_query, w_key, w_value, w_out):
    """Use x for the result too."""
    for h in range(len(w_query)):
        x = one_head(x, w_query[h], w_key[h], w_value[h]) @ w_out[h]
    return x


@WRONG.to("all_heads", "output matrix of head 0")
def all_heads_with_one_output(x, w_query, w_key, w_value, w_out):
    return all_heads_by_sum(x, w_query, w_key, w_value, w_out[:1].expand_as(w_out))


@WRONG.to("all_heads", "w_value is never used")
def all_heads_values_by_w_key(x, w_query, w_key, w_value, w_out):
    return all_heads_by_sum(x, w_query, w_key, w_key, w_out)


@WRONG.to("all_heads", "w_key is never used")
def all_heads_keys_by_w_query(x, w_query, w_key, w_value, w_out):
    return all_heads_by_sum(x, w_query, w_query, w_value, w_out)


@WRONG.to("all_heads", "output matrices are missing")
def all_heads_without_output(x, w_query, w_key, w_value, w_out):
    matrices = zip(w_query, w_key, w_value, strict=True)
    return torch.cat([one_head(x, *of_head) for of_head in matrices], -1)


@WRONG.to("all_heads", "changes its argument", "x")
def all_heads_in_place(x, w_query, w_key, w_value, w_out):
    x += all_heads_by_sum(x, w_query, w_key, w_value, w_out)
    return x
