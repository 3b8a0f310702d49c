"""Parts that newer GPTs use in place of GPT-2's (chapter 9). Each can be switched on alone.

- Rotary positions (Su et al. 2021): queries and keys are rotated by an angle that grows with their
  position. If a query is turned 7 times and a key 5 times, the angle between them changes only by
  2 turns. So their score depends on the distance. Position vectors are then not needed.
- QK-norm (Henry et al. 2020): queries and keys get the same length before they are compared. So
  their scores cannot grow without limit.
- ReLU² (So et al. 2021): max(0, x)² in place of GELU. It is cheaper to compute.
- RMSNorm (Zhang & Sennrich 2019): a norm that divides by the root of the mean square. Here it has
  no weights.
- Output layers that start at zero: the last layer of attention (`proj`), that of the feed-forward
  layer (also `proj`), and the head. At first each block adds nothing. The head learns in the first
  step, and the other layers as soon as the head is no longer zero.
- A bigram table: learned logits for each pair of tokens, added to those of the GPT.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import CausalSelfAttention
from gptlib.block import FeedForward
from gptlib.config import GPTConfig
from gptlib.kv_cache import KVCache, LayerCache
from gptlib.model import GPT


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate `x`, (B, n_head, T, D), by the angles of its `positions`, (B or 1, T).

    Channels i and i + D/2 are the two coordinates of a point in a plane. The point is rotated by
    position · 1000^(-2i / D) radians. The first planes turn fast, and can tell near positions
    apart. The last ones turn slowly, and can tell far ones apart. The 1000 is a choice for short
    blocks (the paper has 10,000). A rotation changes no length.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"x has {x.shape[-1]} channels, it should have an even number of them")
    half = x.shape[-1] // 2
    speed = 1000.0 ** (-torch.arange(half, device=x.device) / half)         # (D/2,)
    angle = positions[:, None, :, None] * speed                             # (B, 1, T, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class ModernAttention(CausalSelfAttention):
    """Attention with rotary positions, QK-norm, or both: first the norm, then the rotation.

    Args:
        rotary: rotate queries and keys by their positions.
        qk_norm: divide each query and key by the root of its mean square.
    """

    def __init__(self, config: GPTConfig, rotary: bool = True, qk_norm: bool = True):
        super().__init__(config)
        self.rotary, self.qk_norm = rotary, qk_norm

    def split_heads(self, qkv: Tensor) -> list[Tensor]:
        q, k, v = super().split_heads(qkv)
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        return [q, k, v]

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        q, k, v = self.split_heads(self.qkv(x))             # (B, n_head, T, head_size) each
        if self.rotary:
            if cache is not None:
                positions = cache.positions                 # (B, T)
            else:
                positions = torch.arange(x.shape[1], device=x.device)[None]
            q, k = rotate(q, positions), rotate(k, positions)
        if cache is not None:
            # The cache holds rotated keys.
            k, v = cache.append("k", k), cache.append("v", v)       # (B, n_head, S, head_size)
            mask = cache.mask
        y = F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask,
            is_causal=mask is None and cache is None,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self.merge_heads(y)


class SquaredReLU(FeedForward):
    """The feed-forward layer with max(0, x)² between its two linear layers."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc(x)).square()
        return self.dropout(self.proj(x))


def rms_norm(x: Tensor) -> Tensor:
    """Divide `x`, (…, C), by the root of the mean square of its C numbers."""
    return F.rms_norm(x, (x.shape[-1],))


class RMSNorm(nn.Module):
    """RMSNorm without weights. It takes LayerNorm's arguments and does not use them."""

    def __init__(self, n_embd: int, bias: bool = False):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x)


class ModernGPT(GPT):
    """A GPT whose output layers may start at zero, and which may have a bigram table.

    Args:
        zero_init: start every `proj` layer and the head with zeros.
        bigram_table: add learned logits for each pair of tokens.
    """

    def __init__(self, config: GPTConfig, block, norm=nn.LayerNorm, zero_init: bool = False,
                 bigram_table: bool = False):
        super().__init__(config, block=block, norm=norm)
        self.bigram = None
        if bigram_table:
            self.bigram = nn.Embedding(config.vocab_size, config.vocab_size)
            nn.init.zeros_(self.bigram.weight)
        if zero_init:
            for name, parameter in self.named_parameters():
                if name.endswith(".proj.weight") or name == "head.weight":
                    nn.init.zeros_(parameter)

    def forward(
        self, idx: Tensor, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        logits = super().forward(idx, cache, mask)          # (B, T, vocab_size)
        return logits if self.bigram is None else logits + self.bigram(idx)
