"""Attention that knows how far back it looks: time-weighting after the softmax, its control inside, and token shift.

Time-weighting multiplies the weight p[i, j] that query i gives to key j by a learned number w[i, j]. MyGPT, one of
the small GPTs that this course re-creates, holds either all of them or one for each distance:

>>> toeplitz(torch.tensor([[1.0, 0.5, 0.25]]))          # one head; weights at distance 0, 1 and 2
tensor([[[1.0000, 0.0000, 0.0000],
         [0.5000, 1.0000, 0.0000],
         [0.2500, 0.5000, 1.0000]]])
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import CausalSelfAttention, LayerCache
from gptlib.config import GPTConfig


def toeplitz(by_distance: Tensor) -> Tensor:
    """The matrix that holds by_distance[…, i - j] at […, i, j], and 0 above the diagonal.

    Constant along each diagonal is what Toeplitz means. (A circulant matrix also wraps around: its corner above the
    diagonal would hold the weights of the largest distances, for keys that lie in the future.)

    Args:
        by_distance: (…, T), the value at distance 0, 1, … T - 1.

    Returns:
        (…, T, T).
    """
    T = by_distance.shape[-1]
    windows = F.pad(by_distance.flip(-1), (0, T - 1)).unfold(-1, T, 1)      # row n begins at number n: the last query comes first
    return windows.flip(-2)


def of_queries(table: Tensor, start: int | Tensor, T: int) -> Tensor:
    """The rows of `table`, (H, S, S), that belong to T queries from position `start` on.

    Returns:
        (H, T, S); or (B, H, 1, S) where `start` is a (B,) tensor, because each row of the batch stands elsewhere.
    """
    if isinstance(start, int):
        return table[:, start:start + T]
    return table[:, start].transpose(0, 1)[:, :, None]              # (H, B, S) -> (B, H, 1, S)


class WeightedAttention(CausalSelfAttention):
    """Attention whose weights a subclass changes before the softmax (`bias`) or after it (`weight`)."""

    def bias(self, T: int) -> Tensor | None:
        """What is added to the scores, (n_head, T, T)."""
        return None

    def weight(self, T: int) -> Tensor | None:
        """What the softmax is multiplied by, (n_head, T, T)."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int | Tensor) -> Tensor:
        T, S = q.shape[2], k.shape[2]
        scores = q @ k.mT / math.sqrt(q.shape[3])                   # (B, n_head, T, S)
        if (bias := self.bias(S)) is not None:
            scores = scores + of_queries(bias, start, T)
        future = torch.ones(1, S, S, dtype=torch.bool, device=q.device).triu(1)
        p = scores.masked_fill(of_queries(future, start, T), -math.inf).softmax(-1)
        if (weight := self.weight(S)) is not None:
            p = p * of_queries(weight, start, T)
        return F.dropout(p, self.dropout, self.training) @ v


class TimeWeightedAttention(WeightedAttention):
    """One weight for each head, query and key; those of keys in the future are never used."""

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.table = nn.Parameter(torch.ones(config.n_head, config.block_size, config.block_size))

    def weight(self, T: int) -> Tensor:
        return self.table[:, :T, :T]


class ToeplitzAttention(WeightedAttention):
    """One weight for each head and distance, times a factor for each head and key; MyGPT calls this form circulant."""

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.by_distance = nn.Parameter(torch.ones(config.n_head, config.block_size))
        self.by_key = nn.Parameter(torch.ones(config.n_head, config.block_size))

    def weight(self, T: int) -> Tensor:
        return toeplitz(self.by_distance[:, :T])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int | Tensor) -> Tensor:
        factor = self.by_key[:, :k.shape[2], None]                  # (n_head, S, 1)
        return super().attend(q, k, v * factor, start)              # Σ p[i, j] a[j] v[j]: a key's factor may go with its value


class RelativeBiasAttention(WeightedAttention):
    """One number for each head and distance, added to the scores (T5, Raffel et al. 2020, but no two distances share one)."""

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.by_distance = nn.Parameter(torch.zeros(config.n_head, config.block_size))

    def bias(self, T: int) -> Tensor:
        return toeplitz(self.by_distance[:, :T])


def shift_tokens(x: Tensor, cache: LayerCache | None = None) -> Tensor:
    """The first half of each position's channels replaced by those of the position before it; zeros before the first.

    MyGPT calls it time-mixing; RWKV (Peng et al. 2023) calls it token shift, and learns how much of each channel moves.

    Args:
        x: (B, T, C).
    """
    seen, start = F.pad(x, (0, 0, 1, 0)), 0                         # (B, T + 1, C): position t lies at t + 1
    if cache is not None:
        start, seen = cache.start, F.pad(cache.append("x", x), (0, 0, 1, 0))
    T, half = x.shape[1], x.shape[2] // 2
    if isinstance(start, int):
        before = seen[:, start:start + T]
    else:
        before = seen[torch.arange(len(x), device=x.device), start][:, None]
    return torch.cat([before[..., :half], x[..., half:]], dim=-1)
