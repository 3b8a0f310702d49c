"""Chapter 2: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


def visible(T):
    return torch.ones(T, T, dtype=torch.bool).tril()


def scores(q, k):
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def masked(raw, hidden=-math.inf):
    return raw.masked_fill(~visible(raw.shape[-1]).to(raw.device), hidden)


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
def a_large_negative_number(q, k):
    return masked(scores(q, k), -1e9).softmax(-1)


@WRONG.to("attention_weights", "after the softmax", "0 / 0")
def masked_late_and_renormalised(q, k):
    weights = scores(q, k).softmax(-1).tril()
    return weights / weights.sum(-1, keepdim=True)


@RIGHT.to("attention_weights")
def row_by_row(q, k):
    B, H, T, d = q.shape
    weights = torch.zeros(B, H, T, T, dtype=q.dtype, device=q.device)
    for t in range(T):
        of_query = k[..., :t + 1, :] @ q[..., t, :, None] / d ** 0.5
        weights[..., t, :t + 1] = of_query[..., 0].softmax(-1)
    return weights


@RIGHT.to("attention_weights")
def with_einsum(q, k):
    added = torch.full((q.shape[2],) * 2, -math.inf, dtype=q.dtype, device=q.device).triu(1)
    return (torch.einsum("bhid,bhjd->bhij", q, k) * q.size(-1) ** -0.5 + added).softmax(-1)


@WRONG.to("attention_weights", "scale", "head")
def unscaled(q, k):
    return masked(q @ k.transpose(-2, -1)).softmax(-1)


@WRONG.to("attention_weights", "all heads", "head_size")
def scaled_by_all_channels(q, k):
    return masked(q @ k.transpose(-2, -1) / math.sqrt(q.shape[1] * q.shape[-1])).softmax(-1)


@WRONG.to("attention_weights", "multipl", "divide")
def scaled_up(q, k):
    return masked(q @ k.transpose(-2, -1) * math.sqrt(q.shape[-1])).softmax(-1)


@WRONG.to("attention_weights", "square root")
def scaled_without_the_root(q, k):
    return masked(q @ k.transpose(-2, -1) / q.shape[-1]).softmax(-1)


@WRONG.to("attention_weights", "positions", "head_size")
def scaled_by_time(q, k):
    return masked(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-2])).softmax(-1)


@WRONG.to("attention_weights", "axis")
def softmax_over_queries(q, k):
    return masked(scores(q, k)).softmax(-2)


@WRONG.to("attention_weights", "after the softmax", "sum")
def masked_late(q, k):
    return scores(q, k).softmax(-1).tril()


@WRONG.to("attention_weights", "no mask")
def unmasked(q, k):
    return scores(q, k).softmax(-1)


@WRONG.to("attention_weights", "transposed")
def mask_transposed(q, k):
    return scores(q, k).masked_fill(~visible(q.shape[2]).T, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "itself")
def diagonal_hidden(q, k):
    return scores(q, k).masked_fill(~visible(q.shape[2]).tril(-1), -math.inf).softmax(-1)


@WRONG.to("attention_weights", "0", "-inf")
def masked_with_zero(q, k):
    return masked(scores(q, k), 0.0).softmax(-1)


@WRONG.to("attention_weights", "softmax")
def no_softmax(q, k):
    return masked(scores(q, k), 0.0)


@WRONG.to("attention_weights", "swapped")
def query_and_key_swapped(q, k):
    return masked(scores(k, q)).softmax(-1)


@WRONG.to("attention_weights", "-inf")
def masked_with_minus_20(q, k):
    return masked(scores(q, k), -20.0).softmax(-1)


@WRONG.to("attention_weights", "large scores")
def softmax_by_hand(q, k):
    e = masked(scores(q, k)).exp()
    return e / e.sum(-1, keepdim=True)


@WRONG.to("attention_weights", "RuntimeError", "swap the last two axes")
def all_axes_reversed(q, k):
    return masked(q @ k.T / math.sqrt(q.shape[-1])).softmax(-1)


@WRONG.to("attention_weights", "gradient")
def detached(q, k):
    return masked(scores(q, k.detach())).softmax(-1)


# split_heads --------------------------------------------------------------------------------------

@RIGHT.to("split_heads")
def with_chunks(x, n_head):
    return torch.stack(x.chunk(n_head, dim=-1), dim=1)


@RIGHT.to("split_heads")
def with_unflatten(x, n_head):
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2).contiguous()


@WRONG.to("split_heads", "transpos", "view")
def view_alone(x, n_head):
    B, T, C = x.shape
    return x.view(B, n_head, T, C // n_head)


@WRONG.to("split_heads", "neighbour")
def interleaved(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, C // n_head, n_head).permute(0, 3, 1, 2)


@WRONG.to("split_heads", "transpose", "(B, T, n_head, head_size)")
def not_transposed(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head)


@WRONG.to("split_heads", "head_size, T")
def transposed_too_far(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).permute(0, 2, 3, 1)


@WRONG.to("split_heads", "n_head", "head_size")
def head_size_and_n_head_swapped(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, C // n_head, n_head).transpose(1, 2)


@WRONG.to("split_heads", "order")
def heads_reversed(x, n_head):
    return torch.stack(x.chunk(n_head, dim=-1)[::-1], dim=1)


@WRONG.to("split_heads", "every head", "slice")
def every_head_sees_all(x, n_head):
    return x[:, None].expand(-1, n_head, -1, -1)


@WRONG.to("split_heads", "first")
def the_first_slice_for_all(x, n_head):
    return x[:, None, :, :x.shape[-1] // n_head].repeat(1, n_head, 1, 1)


@WRONG.to("split_heads", "gradient")
def copied_out(x, n_head):
    return torch.stack(x.detach().chunk(n_head, dim=-1), dim=1)


# merge_heads --------------------------------------------------------------------------------------

@RIGHT.to("merge_heads")
def with_cat(y):
    return torch.cat(list(y.unbind(1)), dim=-1)


@RIGHT.to("merge_heads")
def with_contiguous(y):
    B, H, T, d = y.shape
    return y.transpose(1, 2).contiguous().view(B, T, H * d)


@WRONG.to("merge_heads", "transpos", "position")
def reshape_alone(y):
    B, H, T, d = y.shape
    return y.reshape(B, T, H * d)


@WRONG.to("merge_heads", "channel", "side by side")
def interleaved_again(y):
    B, H, T, d = y.shape
    return y.permute(0, 2, 3, 1).reshape(B, T, H * d)


@WRONG.to("merge_heads", "average")
def averaged(y):
    return y.mean(1)


@WRONG.to("merge_heads", "add")
def added(y):
    return y.sum(1)


@WRONG.to("merge_heads", "first head")
def first_head_only(y):
    return y[:, 0]


@WRONG.to("merge_heads", "one after another", "time")
def heads_along_time(y):
    B, H, T, d = y.shape
    return y.reshape(B, H * T, d)


@WRONG.to("merge_heads", "order")
def heads_reversed_again(y):
    return torch.cat(list(y.unbind(1))[::-1], dim=-1)


@WRONG.to("merge_heads", "(B, T, C)")
def transposed_only(y):
    return y.transpose(1, 2)


@WRONG.to("merge_heads", "RuntimeError", "view")
def view_after_transpose(y):
    B, H, T, d = y.shape
    return y.transpose(1, 2).view(B, T, H * d)


@WRONG.to("merge_heads", "gradient")
def detached_heads(y):
    return F.pad(y.detach().transpose(1, 2).flatten(2), (0, 0))


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
def softmax_over_everything(q, k):
    raw = masked(scores(q, k))
    return raw.flatten(-2).softmax(-1).view_as(raw)


@WRONG.to("attention_weights", "twice")
def softmax_twice(q, k):
    return masked(scores(q, k)).softmax(-1).softmax(-1)


@WRONG.to("attention_weights", "signs")
def scores_negated(q, k):
    return masked(-scores(q, k)).softmax(-1)


@WRONG.to("attention_weights", "hides every position from itself", "first position")
def diagonal_hidden_except_the_first(q, k):
    allowed = visible(q.shape[2]).tril(-1)
    allowed[0, 0] = True
    return scores(q, k).masked_fill(~allowed, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "nearly right", ".float()")
def float32_inside(q, k):
    return masked(scores(q.float(), k.float())).softmax(-1).to(q.dtype)


@WRONG.to("attention_weights", "-inf is safe")
def a_finite_number_added(q, k):
    return (scores(q, k) + (~visible(q.shape[2])).to(q.dtype) * -1e4).softmax(-1)


@WRONG.to("attention_weights", "two calls", "random")
def dropout_inside(q, k):
    return F.dropout(masked(scores(q, k)).softmax(-1), 0.1)


@WRONG.to("attention_weights", "scale is missing", "queries")
def two_mistakes(q, k):
    return masked(q @ k.transpose(-2, -1)).softmax(-2)


@WRONG.to("attention_weights", "no weight at all")
def window_of_four(q, k):
    return masked(scores(q, k)).masked_fill(~visible(q.shape[2]).triu(-3), -math.inf).softmax(-1)


@WRONG.to("attention_weights", "position 0 gives itself no weight")
def diagonal_hidden_and_nan_to_num(q, k):
    allowed = visible(q.shape[2]).tril(-1)
    return scores(q, k).masked_fill(~allowed, -math.inf).softmax(-1).nan_to_num()


@WRONG.to("attention_weights", "shape")
def averages_already(q, k):
    return masked(scores(q, k)).softmax(-1) @ k


@WRONG.to("attention_weights", "changes its argument", "q")
def query_scaled_in_place(q, k):
    q /= math.sqrt(q.shape[-1])
    return masked(q @ k.transpose(-2, -1)).softmax(-1)


@WRONG.to("split_heads", "shape")
def heads_in_the_batch(x, n_head):
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2).reshape(B * n_head, T, C // n_head)


@WRONG.to("split_heads", "positions are mixed up")
def cut_along_the_batch(x, n_head):
    B, T, C = x.shape
    return x.reshape(n_head, B, T, C // n_head).transpose(0, 1)


@WRONG.to("split_heads", "tuple")
def a_tuple_of_heads(x, n_head):
    return x.chunk(n_head, dim=-1)


@WRONG.to("split_heads", "lost or changed")
def first_row_for_all(x, n_head):
    return x[:1].expand(len(x), -1, -1).unflatten(-1, (n_head, -1)).transpose(1, 2)


@WRONG.to("split_heads", "batch stays the first axis")
def heads_before_the_batch(x, n_head):
    return x.unflatten(-1, (n_head, -1)).permute(2, 0, 1, 3)


@WRONG.to("split_heads", "swapped")
def slices_of_n_head_channels(x, n_head):
    return torch.stack(x.split(n_head, dim=-1), dim=1)


@WRONG.to("merge_heads", "shape")
def flattened_too_far(y):
    return y.transpose(1, 2).flatten(1)


@WRONG.to("merge_heads", "largest")
def largest(y):
    return y.amax(1)


@WRONG.to("merge_heads", "shape", "(1, 1, 2)")
def batch_squeezed(y):
    return y.transpose(1, 2).flatten(2).squeeze(0)


@WRONG.to("merge_heads", "for y", "is right")
def axes_one_and_three(y):
    B, H, T, d = y.shape
    return y.transpose(1, 3).reshape(B, T, H * d)


@WRONG.to("merge_heads", "lost or changed")
def side_by_side_and_halved(y):
    return y.transpose(1, 2).flatten(2) / y.shape[1]


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
def with_torch_s_own_attention(q, k):
    values = torch.eye(q.shape[2], dtype=q.dtype).expand(*q.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(q, k, values, is_causal=True)


@RIGHT.to("attention_weights")
def by_hand_and_stable(q, k):
    seen = masked(scores(q, k))
    e = (seen - seen.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


@RIGHT.to("attention_weights")
def head_by_head(q, k):
    def one_head(q, k):
        return masked(torch.matmul(q * len(q[0]) ** -0.5, k.T)).softmax(1)

    B, H = q.shape[:2]
    return torch.stack([torch.stack([one_head(q[b, h], k[b, h]) for h in range(H)])
                        for b in range(B)])


@WRONG.to("attention_weights", "exactly 0 are hidden")
def zeros_taken_for_the_future(q, k):
    """Hide every score that is 0 after tril."""
    kept = scores(q, k).tril()
    return kept.masked_fill(kept == 0, -math.inf).softmax(-1)


@WRONG.to("attention_weights", "after the softmax", "divide the scores")
def scaled_late(q, k):
    """Divide the weights, not the scores."""
    return masked(q @ k.mT).softmax(-1) / math.sqrt(q.shape[-1])


@WRONG.to("attention_weights", "sigmoid")
def sigmoid_weights(q, k):
    """Use a sigmoid for the softmax."""
    return masked(scores(q, k)).sigmoid()


@WRONG.to("attention_weights", "exp is applied before")
def exponential_twice(q, k):
    """Take the exponential, and then the softmax."""
    return masked(scores(q, k).exp()).softmax(-1)


@WRONG.to("attention_weights", "mask of ones and zeros is added")
def mask_added(q, k):
    """Add a mask of ones and zeros."""
    return (scores(q, k) + visible(q.shape[2]).to(q.dtype)).softmax(-1)


@WRONG.to("attention_weights", "ones and zeros", "subtracted")
def one_subtracted(q, k):
    """Subtract 1 from what should be hidden."""
    return (scores(q, k) - torch.ones(q.shape[2], q.shape[2], dtype=q.dtype).triu(1)).softmax(-1)


@WRONG.to("attention_weights", "relu")
def rectified(q, k):
    """Cut negative scores off."""
    return masked(scores(q, k).relu()).softmax(-1)


@WRONG.to("attention_weights", "√n_head")
def scaled_by_the_number_of_heads(q, k):
    """Read the wrong axis of the shape."""
    return masked(q @ k.mT / math.sqrt(q.shape[1])).softmax(-1)


@WRONG.to("attention_weights", "√head_size twice")
def both_scaled(q, k):
    """Scale q and k, and so the scores twice."""
    root = q.shape[-1] ** 0.5
    return masked((q / root) @ (k / root).mT).softmax(-1)


@WRONG.to("attention_weights", "hidden scores are set to 0")
def hidden_with_a_tiny_number(q, k):
    """Write -1e-9 for -1e9."""
    return masked(scores(q, k), -1e-9).softmax(-1)


@WRONG.to("attention_weights", "over the wrong axis, the heads", "there is no mask")
def no_mask_and_softmax_over_heads(q, k):
    """Forget the mask, and take the softmax over axis 1."""
    return scores(q, k).softmax(1)


@RIGHT.to("split_heads")
def transposed_first(x, n_head):
    B, T, C = x.shape
    return x.mT.reshape(B, n_head, C // n_head, T).mT


@RIGHT.to("split_heads")
def filled_slice_by_slice(x, n_head):
    B, T, C = x.shape
    size = C // n_head
    heads = x.new_empty(B, n_head, T, size)
    for h in range(n_head):
        heads[:, h] = x[..., h * size:h * size + size]
    return heads


@RIGHT.to("split_heads")
def by_unfolding(x, n_head):
    size = x.shape[-1] // n_head
    return x.unfold(-1, size, size).movedim(2, 1)


@WRONG.to("split_heads", "one channel after the head before")
def slices_that_overlap(x, n_head):
    """Begin head h at channel h."""
    size = x.shape[-1] // n_head
    return torch.stack([x[:, :, h:h + size] for h in range(n_head)], dim=1)


@WRONG.to("split_heads", "heads are the last axis")
def stacked_at_the_end(x, n_head):
    """Stack along the last axis."""
    return torch.stack(x.chunk(n_head, dim=-1), dim=-1)


@WRONG.to("split_heads", "joined again")
def slices_joined_again(x, n_head):
    """Use cat where stack is right."""
    return torch.cat(x.chunk(n_head, dim=-1), dim=-1)


@WRONG.to("split_heads", "others are 0")
def others_set_to_0(x, n_head):
    """Mask the other heads' channels, and keep them."""
    size = x.shape[-1] // n_head
    heads = torch.zeros_like(x)[:, None].repeat(1, n_head, 1, 1)
    for h in range(n_head):
        heads[:, h, :, h * size:(h + 1) * size] = x[:, :, h * size:(h + 1) * size]
    return heads


@WRONG.to("split_heads", "all heads get the last slice")
def the_last_slice_for_all(x, n_head):
    """Overwrite all heads in each step of the loop."""
    size = x.shape[-1] // n_head
    heads = x.new_zeros(x.shape[0], n_head, x.shape[1], size)
    for h in range(n_head):
        heads[:] = x[:, None, :, h * size:(h + 1) * size]
    return heads


@WRONG.to("split_heads", "neighbouring channels")
def every_nth_channel(x, n_head):
    """Give head h the channels h, h + n_head, h + 2 n_head …"""
    return torch.stack([x[..., h::n_head] for h in range(n_head)], dim=1)


@WRONG.to("split_heads", "still has the shape (B, T, n_head, head_size)")
def stacked_on_axis_2(x, n_head):
    """Stack the heads after time."""
    return torch.stack(x.tensor_split(n_head, dim=-1), dim=2)


@RIGHT.to("merge_heads")
def filled_head_by_head(y):
    B, H, T, d = y.shape
    x = torch.empty(B, T, H * d, dtype=y.dtype)
    for h, head in enumerate(y.unbind(1)):
        x[:, :, h * d:(h + 1) * d] = head
    return x


@RIGHT.to("merge_heads")
def with_movedim(y):
    return y.movedim(1, 2).flatten(2)


@RIGHT.to("merge_heads")
def joined_by_recursion(y):
    if y.shape[1] == 1:
        return y[:, 0]
    return torch.cat([y[:, 0], joined_by_recursion(y[:, 1:])], dim=-1)


@WRONG.to("merge_heads", "channels of each head are averaged")
def channels_averaged(y):
    """Average over the wrong axis."""
    return y.mean(-1).transpose(1, 2)


@WRONG.to("merge_heads", "batch and time are one axis")
def batch_and_time_joined(y):
    """View as (-1, C)."""
    B, H, T, d = y.shape
    return y.transpose(1, 2).reshape(-1, H * d)


@WRONG.to("merge_heads", "rows of the batch are put side by side")
def a_loop_over_the_batch(y):
    """Go through axis 0 and not through axis 1."""
    return torch.cat([head for head in y], dim=-1)


@WRONG.to("merge_heads", "heads are multiplied")
def multiplied(y):
    """Multiply the heads."""
    return y.prod(dim=1)


@WRONG.to("merge_heads", "first head is repeated")
def first_head_repeated(y):
    """Read head 0 in each step of the loop."""
    return torch.cat([y[:, 0] for _ in range(y.shape[1])], dim=-1)


@WRONG.to("merge_heads", "time and channels are swapped")
def channels_before_time(y):
    """Transpose the wrong axes before the flattening."""
    return y.mT.flatten(1, 2)


@WRONG.to("merge_heads", "only the last head")
def last_head_only(y):
    """Overwrite the result in each step of the loop."""
    for head in y.unbind(1):
        x = head
    return x.clone()
