"""Causal self-attention: each position gathers from itself and from what came before it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.config import GPTConfig


class KVCache:
    """The keys and values of the tokens that a model has read, so that each is computed once.

    Empty, it takes whole prompts; after that one token a row at a time. Rows may hold texts of different lengths:
    what lies beyond a row's own length is hidden from it.
    """

    def __init__(self, n_layer: int, block_size: int):
        self.block_size = block_size                    # tokens that it has room for
        self.length: int | Tensor = 0                   # tokens that it holds; (B,) where the rows differ
        self.layers = [LayerCache(self) for _ in range(n_layer)]

    @property
    def longest(self) -> int:
        return self.length if isinstance(self.length, int) else int(self.length.max())

    def set_rows(self, rows: Tensor, other: "KVCache") -> None:
        """Put what `other` holds into these `rows`, in place of what they held."""
        for layer, its in zip(self.layers, other.layers, strict=True):
            for name, kept in layer.kept.items():
                kept[rows] = its.kept[name]
        self.length[rows] = other.length


class LayerCache:
    """One layer's share of a `KVCache`."""

    def __init__(self, cache: KVCache):
        self.cache = cache
        self.kept: dict[str, Tensor] = {}               # (B, …, block_size, D) each

    @property
    def start(self) -> int | Tensor:
        """The position of the first new token; (B,) where the rows differ."""
        return self.cache.length

    def append(self, name: str, new: Tensor) -> Tensor:
        """Keep `new`, (B, …, T, D), and return all that is kept under this name, (B, …, S, D)."""
        T = new.shape[-2]
        if name not in self.kept:                       # zeros: what is hidden has weight 0, and 0 · nan would be nan
            self.kept[name] = new.new_zeros(*new.shape[:-2], self.cache.block_size, new.shape[-1])
        kept = self.kept[name]
        if isinstance(self.start, int):
            kept[..., self.start:self.start + T, :] = new
        else:
            kept.movedim(-2, 1)[torch.arange(len(kept)), self.start] = new.movedim(-2, 1)[:, 0]
        return kept[..., :self.cache.longest + T, :]


class CausalSelfAttention(nn.Module):
    """Several heads side by side, each softmax(q kᵀ / √head_size + mask) v (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)   # (B, n_head, T, head_size) each
        if cache is not None:
            k, v = cache.append("k", k), cache.append("v", v)                                      # (B, n_head, S, head_size)
        y = self.attend(q, k, v, 0 if cache is None else cache.start)
        y = y.transpose(1, 2).reshape(B, T, C)                                                     # heads side by side
        return F.dropout(self.proj(y), self.dropout, self.training)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int | Tensor) -> Tensor:
        """What each query gathers, (B, n_head, T, head_size). Queries stand at `start` and after, keys at 0 and after."""
        mask = None if isinstance(start, int) else reach(start, k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=q.shape[2] > 1, dropout_p=self.dropout if self.training else 0.0)


def reach(start: Tensor, n_keys: int) -> Tensor:
    """Which keys a row's one query at `start`, (B,), may see: (B, 1, 1, n_keys)."""
    return (torch.arange(n_keys, device=start.device) <= start[:, None])[:, None, None]
