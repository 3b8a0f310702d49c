"""The decoder block: attention lets positions talk, the feed-forward layer lets each one think."""

from torch import Tensor, nn

from gptlib.attention import CausalSelfAttention, LayerCache
from gptlib.config import GPTConfig
from gptlib.time_weighting import RelativeBiasAttention, TimeWeightedAttention, ToeplitzAttention, shift_tokens

ATTENTIONS = {"plain": CausalSelfAttention, "time_weighted": TimeWeightedAttention, "toeplitz": ToeplitzAttention,
              "relative_bias": RelativeBiasAttention}


class FeedForward(nn.Sequential):
    """The same two-layer network at every position: widen, GELU, narrow."""

    def __init__(self, config: GPTConfig):
        width = config.mlp_ratio * config.n_embd
        super().__init__(
            nn.Linear(config.n_embd, width, bias=config.bias),
            nn.GELU(),
            nn.Linear(width, config.n_embd, bias=config.bias),
            nn.Dropout(config.dropout),
        )


class Block(nn.Module):
    """Pre-norm: each part reads a normalised copy and adds its answer to the residual stream (GPT-2)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.token_shift = config.token_shift
        self.norm1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attention = ATTENTIONS[config.attention](config)
        self.norm2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:        # (B, T, C) -> (B, T, C)
        read = self.norm1(x)
        read = shift_tokens(read, cache) if self.token_shift else read
        x = x + (self.attention(read) if cache is None else self.attention(read, cache))        # a reader's own may know no cache
        return x + self.feed_forward(self.norm2(x))
