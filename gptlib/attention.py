"""Causal self-attention: each position gathers from itself and from what came before it."""

from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.config import GPTConfig


class CausalSelfAttention(nn.Module):
    """Several heads side by side, each softmax(q kᵀ / √head_size + mask) v (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)   # (B, n_head, T, head_size) each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, T, C)                                                     # heads side by side
        return F.dropout(self.proj(y), self.dropout, self.training)
