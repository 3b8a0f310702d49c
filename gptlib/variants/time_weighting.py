"""Attention that depends on the distance between two positions, and token shift (chapter 6).

Time-weighting comes from MyGPT, one of the small GPTs that this course re-creates. It multiplies
the attention weight p[i, j] of query i and key j by a learned number w[i, j]. The products of a row
no longer sum to 1. MyGPT has two forms of w: a full table, or one number for each distance i - j
times a factor for each key j. One number for each distance makes a Toeplitz matrix:

>>> toeplitz(torch.tensor([[1.0, 0.5, 0.25]]))      # one head; weights at distance 0, 1 and 2
tensor([[[1.0000, 0.0000, 0.0000],
         [0.5000, 1.0000, 0.0000],
         [0.2500, 0.5000, 1.0000]]])
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import CausalSelfAttention
from gptlib.block import Block
from gptlib.config import GPTConfig
from gptlib.kv_cache import LayerCache


def toeplitz(by_distance: Tensor) -> Tensor:
    """Return the matrix with by_distance[…, i - j] at […, i, j], and 0 above the diagonal.

    A Toeplitz matrix is constant along each diagonal. (MyGPT calls its matrix circulant. In a
    circulant matrix each row is the row above it, moved by one place, and what leaves on the right
    comes back on the left. Here the part above the diagonal is 0 instead.)

    Args:
        by_distance: (…, T), the values at distance 0, 1, … T - 1.

    Returns:
        (…, T, T).
    """
    T = by_distance.shape[-1]
    # Put the values at distances T-1 … 2, 1, 0 into a row, followed by T-1 zeros. Every T
    # neighbours in it are a row of the matrix. For T = 3: (c, b, a), (b, a, 0), (a, 0, 0), the last
    # query first.
    padded = F.pad(by_distance.flip(-1), (0, T - 1))        # (…, 2T - 1)
    return padded.unfold(-1, T, 1).flip(-2)


def query_rows(table: Tensor, positions: Tensor) -> Tensor:
    """Return the rows of `table`, (n_head, S, S), for queries at `positions`, (B, T).

    Returns:
        (B, n_head, T, S).
    """
    return table[:, positions].transpose(0, 1)


class WeightedAttention(CausalSelfAttention):
    """Attention with a bias before the softmax, or with a weight after it.

    This class computes the formula step by step, without PyTorch's fused function. A subclass
    overrides `bias`, `weight` or `key_factor`.
    """

    def bias(self, T: int) -> Tensor | None:
        """Return what is added to the scores, (n_head, T, T), or None."""
        return None

    def weight(self, T: int) -> Tensor | None:
        """Return what the attention weights are multiplied by, (n_head, T, T), or None."""
        return None

    def key_factor(self, T: int) -> Tensor | None:
        """Return a factor for each key, (n_head, T), or None."""
        return None

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        q, k, v = self.split_heads(self.qkv(x))             # (B, n_head, T, head_size) each
        positions = None
        if cache is not None:
            k, v = cache.append("k", k), cache.append("v", v)       # (B, n_head, S, head_size)
            positions, mask = cache.positions, cache.mask           # (B, T), (B, 1, T, S)
        return self.merge_heads(self.attend(q, k, v, positions, mask))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the results of the heads, (B, n_head, T, head_size).

        Args:
            q: queries, (B, n_head, T, head_size).
            k, v: keys and values at positions 0 … S - 1, (B, n_head, S, head_size).
            positions: of the queries, (B, T). None means 0 … S - 1.
            mask: (B, 1, T, S), True where a query may see a key. None means the causal mask.
        """
        S = k.shape[2]
        bias, weight, factor = self.bias(S), self.weight(S), self.key_factor(S)
        if positions is None:
            positions = torch.arange(S, device=q.device)[None]              # (1, S)
        else:
            bias = bias if bias is None else query_rows(bias, positions)
            weight = weight if weight is None else query_rows(weight, positions)
        if mask is None:
            mask = torch.arange(S, device=q.device) <= positions[:, None, :, None]

        scores = q @ k.mT / math.sqrt(q.shape[3])                   # (B, n_head, T, S)
        if bias is not None:
            scores = scores + bias
        p = scores.masked_fill(~mask, -math.inf).softmax(-1)
        if weight is not None:
            p = p * weight
        if factor is not None:
            # Σ p[i, j] a[j] v[j]: the factor of a key may be multiplied into its value.
            v = v * factor[..., None]
        return self.dropout(p) @ v


class TimeWeightedAttention(WeightedAttention):
    """One weight for each head, query and key. Weights above the diagonal are never used."""

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.table = nn.Parameter(torch.ones(config.n_head, config.block_size, config.block_size))

    def weight(self, T: int) -> Tensor:
        return self.table[:, :T, :T]


class ToeplitzAttention(WeightedAttention):
    """One weight for each head and distance, and one factor for each head and key."""

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.by_distance = nn.Parameter(torch.ones(config.n_head, config.block_size))
        self.by_key = nn.Parameter(torch.ones(config.n_head, config.block_size))

    def weight(self, T: int) -> Tensor:
        return toeplitz(self.by_distance[:, :T])

    def key_factor(self, T: int) -> Tensor:
        return self.by_key[:, :T]


class RelativeBiasAttention(WeightedAttention):
    """One number for each head and distance, added to the scores before the softmax.

    T5 (Raffel et al. 2020) does this too, but lets large distances share a number.
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.by_distance = nn.Parameter(torch.zeros(config.n_head, config.block_size))

    def bias(self, T: int) -> Tensor:
        return toeplitz(self.by_distance[:, :T])


class ShiftedBlock(Block):
    """A block with token shift: its attention reads half of the channels from the token before.

    MyGPT calls this time-mixing. RWKV (Peng et al. 2023) calls it token shift, and learns how much
    of each channel comes from the token before.
    """

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        shifted = shift_tokens(self.norm1(x), cache, mask)
        x = x + self.attention(shifted, cache, mask)
        x = x + self.feed_forward(self.norm2(x))
        return x


def shift_tokens(
    x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
) -> Tensor:
    """Replace the first half of the channels of `x`, (B, T, C), by those of the token before.

    A token that has no token before it gets zeros. This is the first token of the text. With a
    document mask, (B, 1, T, T), it is also the first token of every document.
    """
    if cache is None:
        # One row of zeros at the beginning, and the last row removed.
        previous = F.pad(x, (0, 0, 1, -1))                          # (B, T, C)
        if mask is not None:
            may_see_previous = mask[:, 0].diagonal(-1, 1, 2)        # (B, T - 1), from token 1 on
            previous = previous * F.pad(may_see_previous.to(x.dtype), (1, 0))[..., None]
    else:
        # After one row of zeros, the token before position t stands at index t.
        stored = F.pad(cache.append("x", x), (0, 0, 1, 0))          # (B, S + 1, C)
        rows = torch.arange(len(x), device=x.device)[:, None]       # (B, 1)
        previous = stored[rows, cache.positions]                    # (B, T, C)
    half = x.shape[2] // 2
    return torch.cat([previous[..., :half], x[..., half:]], dim=-1)
