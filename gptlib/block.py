"""The decoder block: attention, then a feed-forward layer (chapter 3).

Each part reads a normalised copy of the vectors `x` and adds its output to `x`. `x` is called the
residual stream. Because of the sums, the gradient has a direct way back through all blocks.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import CausalSelfAttention
from gptlib.checks import check_arguments, class_of_part
from gptlib.config import GPTConfig


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them. No information moves between positions."""

    @check_arguments(config=GPTConfig)
    def __init__(self, config: GPTConfig):
        super().__init__()
        hidden = config.mlp_ratio * config.n_embd           # GPT-2 uses mlp_ratio = 4
        self.fc = nn.Linear(config.n_embd, hidden, bias=config.bias)
        self.proj = nn.Linear(hidden, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)                                      # (B, T, C) -> (B, T, mlp_ratio · C)
        x = F.gelu(x)                                       # exact GELU; GPT-2 approximates it
        x = self.proj(x)                                    # back to (B, T, C)
        return self.dropout(x)


class Block(nn.Module):
    """A block with the norms before its parts, as in GPT-2 (Radford et al. 2019).

    Args:
        attention, feed_forward, norm: the classes of the parts. A variant of the GPT replaces one.
    """

    @check_arguments(
        config=GPTConfig, attention=class_of_part, feed_forward=class_of_part, norm=class_of_part
    )
    def __init__(
        self,
        config: GPTConfig,
        attention=CausalSelfAttention,
        feed_forward=FeedForward,
        norm=nn.LayerNorm,
    ):
        super().__init__()
        self.norm1 = norm(config.n_embd, bias=config.bias)
        self.attention = attention(config)
        self.norm2 = norm(config.n_embd, bias=config.bias)
        self.feed_forward = feed_forward(config)

    def forward(self, x: Tensor, cache=None, mask=None) -> Tensor:      # (B, T, C) -> (B, T, C)
        # A cache and a mask are for attention only.
        x = x + self.attention(self.norm1(x), cache, mask)
        x = x + self.feed_forward(self.norm2(x))
        return x
