"""The decoder block: attention and a feed-forward layer, both added to the residual stream (chapter 3)."""

from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import CausalSelfAttention
from gptlib.config import GPTConfig
from gptlib.kv_cache import LayerCache


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them. No information moves between positions."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        hidden = config.mlp_ratio * config.n_embd
        self.fc = nn.Linear(config.n_embd, hidden, bias=config.bias)
        self.proj = nn.Linear(hidden, config.n_embd, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:                 # (B, T, C) -> (B, T, C)
        x = F.gelu(self.fc(x))                              # (B, T, mlp_ratio · C)
        return F.dropout(self.proj(x), self.dropout, self.training)


class Block(nn.Module):
    """Attention and feed-forward layer, each with a norm before it (GPT-2, Radford et al. 2019).

    `x`, to which both add their output, is called the residual stream.

    Args:
        attention, feed_forward: classes of the two parts. Both are called with `config`.
        norm: class of the norms. It is called with n_embd and `bias=config.bias`.
    """

    def __init__(
        self, config: GPTConfig, attention=CausalSelfAttention, feed_forward=FeedForward, norm=nn.LayerNorm
    ):
        super().__init__()
        self.norm1 = norm(config.n_embd, bias=config.bias)
        self.attention = attention(config)
        self.norm2 = norm(config.n_embd, bias=config.bias)
        self.feed_forward = feed_forward(config)

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:                                            # (B, T, C) -> (B, T, C)
        x = x + self.attention(self.norm1(x), cache, mask)
        return x + self.feed_forward(self.norm2(x))
