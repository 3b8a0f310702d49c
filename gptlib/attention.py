"""Causal self-attention: a position collects information from itself and from earlier positions.

The idea, for one head of one text (chapter 2 builds it step by step):

>>> import torch
>>> q, k, v = torch.randn(3, 10, 32)            # a query, a key and a value at 10 positions
>>> simple_attention(q, k, v).shape
torch.Size([10, 32])

The module that a GPT uses has several heads, and computes q, k and v from its input:

>>> attention = CausalSelfAttention(GPTConfig(vocab_size=65, n_head=4, n_embd=128))
>>> x = torch.randn(2, 10, 128)                 # 2 texts, 10 positions, 128 channels
>>> attention(x).shape
torch.Size([2, 10, 128])
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.checks import check_arguments
from gptlib.config import GPTConfig
from gptlib.kv_cache import LayerCache


def simple_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q kᵀ / √head_size + mask) v (Vaswani et al. 2017, equation 1).

    Args:
        q: what each position looks for, (…, T, head_size).
        k: what each position offers, (…, T, head_size). A key that is similar to a query gets a
            large weight.
        v: what each position passes on, (…, T, head_size).
    """
    T, head_size = q.shape[-2:]
    scores = q @ k.mT / math.sqrt(head_size)                # (…, T, T): similarity of q[i] and k[j]
    ones = torch.ones(T, T, dtype=torch.bool, device=q.device)
    future = ones.triu(1)                                   # True where j > i
    scores = scores.masked_fill(future, -math.inf)          # the softmax turns −∞ into weight 0
    weights = scores.softmax(-1)                            # each row sums to 1
    return weights @ v                                      # (…, T, head_size): weighted means


class CausalSelfAttention(nn.Module):
    """Several attention heads side by side. Each has head_size = n_embd / n_head channels."""

    @check_arguments(config=GPTConfig)
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        # One linear layer computes the queries, keys and values of all heads.
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        # The output layer mixes the results of the heads.
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return what each position collects, (B, T, C), from `x`, (B, T, C).

        Args:
            cache: holds the keys and values of earlier tokens while a text is sampled (chapter 8).
                S is the number of its tokens. It has a mask of its own.
            mask: (B, 1, T, T), True where a query may see a key. None means the causal mask.
        """
        q, k, v = self.split_heads(self.qkv(x))             # (B, n_head, T, head_size) each
        if cache is not None:
            k, v = cache.append("k", k), cache.append("v", v)       # (B, n_head, S, head_size)
            mask = cache.mask
        # Without dropout, this computes the same as simple_attention, but faster.
        y = F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask,
            is_causal=mask is None and cache is None,
            dropout_p=self.dropout.p if self.training else 0.0,
        )                                                   # (B, n_head, T, head_size)
        return self.merge_heads(y)

    def split_heads(self, qkv: Tensor) -> list[Tensor]:
        """Cut (B, T, 3 · C) into queries, keys and values, (B, n_head, T, head_size) each."""
        B, T, _ = qkv.shape
        return [part.view(B, T, self.n_head, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1)]

    def merge_heads(self, y: Tensor) -> Tensor:
        """Put the results of the heads side by side and apply the output layer: (B, T, C)."""
        y = y.transpose(1, 2).flatten(2)                    # (B, T, n_head · head_size)
        return self.dropout(self.proj(y))
