"""Causal self-attention: every position collects information from itself and from earlier positions.

Chapter 2 builds it step by step:

>>> config = GPTConfig(vocab_size=65, n_head=4, n_embd=128)
>>> attention = CausalSelfAttention(config)
>>> x = torch.randn(2, 10, 128)             # 2 texts, 10 positions, 128 channels
>>> attention(x).shape
torch.Size([2, 10, 128])
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.config import GPTConfig
from gptlib.kv_cache import LayerCache


class CausalSelfAttention(nn.Module):
    """Several attention heads. Each computes softmax(q kᵀ / √head_size + mask) v.

    This is equation 1 of Vaswani et al. (2017). The queries q, keys k and values v are computed from
    the input. head_size is n_embd / n_head. The mask in the formula is 0 where a query may see a
    key, and −∞ where the key comes after the query, so that the softmax gives it weight 0.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        # One linear layer computes the queries, keys and values of all heads.
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        # The output layer mixes the results of the heads.
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return what each position collects, (B, T, C), from `x`, (B, T, C).

        Args:
            cache: holds the keys and values of earlier tokens, and gets those of `x`.
            mask: (B, 1, T, S), True where a query may see a key, False for −∞. S is the number of
                keys. None means the causal mask.
        """
        q, k, v = self.split_heads(self.qkv(x))             # (B, n_head, T, head_size) each
        if cache is not None:
            k, v = cache.append("k", k), cache.append("v", v)       # (B, n_head, S, head_size)
        # One function of PyTorch computes the formula above. A single query is the last token. It
        # may see all keys, so it needs no mask.
        y = F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask,
            is_causal=mask is None and q.shape[2] > 1,
            dropout_p=self.dropout if self.training else 0.0,
        )                                                   # (B, n_head, T, head_size)
        return self.merge_heads(y)

    def split_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cut (B, T, 3 · C) into queries, keys and values, (B, n_head, T, head_size) each."""
        B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        qkv = qkv.view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                # (3, B, n_head, T, head_size)
        return q, k, v

    def merge_heads(self, y: Tensor) -> Tensor:
        """Put the heads' results side by side and apply the output layer: (B, T, C)."""
        y = y.transpose(1, 2).flatten(2)                    # (B, T, n_head · head_size)
        return F.dropout(self.proj(y), self.dropout, self.training)


def document_mask(documents: Tensor) -> Tensor:
    """Return the mask for windows that hold several documents, (B, 1, T, T).

    A token may attend to itself and to earlier tokens of the same document.

    Args:
        documents: for each token the index of its document, (B, T).

    >>> document_mask(torch.tensor([[0, 0, 1]])).int()
    tensor([[[[1, 0, 0],
              [1, 1, 0],
              [0, 0, 1]]]], dtype=torch.int32)
    """
    same_document = documents[:, :, None] == documents[:, None, :]      # (B, T, T)
    return same_document.tril()[:, None]
