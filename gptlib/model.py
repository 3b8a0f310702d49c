"""The GPT: tokens and positions in, a stack of blocks, logits for the next token out."""

import math
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import KVCache
from gptlib.block import Block
from gptlib.config import GPTConfig


def embedding_std(config: GPTConfig) -> float:
    """How strong the vectors of tokens and positions are at the start; see `GPT._init_weights`."""
    return 0.3 if config.init == "scaled" and not config.tie_weights else 0.02


class LearnedPositions(nn.Module):
    """One learned vector for each position of the window (GPT-2)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.table = nn.Embedding(config.block_size, config.n_embd)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        return x + self.table.weight[places(x, start)]


class SinusoidalPositions(nn.Module):
    """Fixed waves of geometrically growing length (Vaswani et al. 2017, section 3.5); nothing to learn."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.scale = math.sqrt(2) * embedding_std(config)      # as strong as the tokens: a wave's own std is 1/√2
        position = torch.arange(config.block_size)[:, None]
        frequency = 10_000.0 ** (-torch.arange(0, config.n_embd, 2) / config.n_embd)
        waves = torch.stack([torch.sin(position * frequency), torch.cos(position * frequency)], dim=-1)   # (T, C/2, 2)
        self.register_buffer("waves", waves.flatten(1), persistent=False)                                 # (T, C)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        return x + self.scale * self.waves[places(x, start)]


class NoPositions(nn.Module):
    """Nothing: the causal mask alone tells a position how much came before it (Haviv et al. 2022)."""

    def __init__(self, config: GPTConfig):
        super().__init__()

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        return x


def places(x: Tensor, start: int | Tensor) -> slice | Tensor:
    """The rows of a table for positions `start` and after; `start` is (B,) where the rows of `x`, (B, 1, C), differ."""
    return slice(start, start + x.shape[1]) if isinstance(start, int) else start[:, None]


POSITIONS = {"learned": LearnedPositions, "sinusoidal": SinusoidalPositions, "none": NoPositions}


class GPT(nn.Module):
    """A decoder-only transformer (Radford et al. 2019).

    >>> model = GPT(GPTConfig(vocab_size=65))
    >>> model(torch.zeros(2, 10, dtype=torch.long)).shape
    torch.Size([2, 10, 65])
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = POSITIONS[config.position](config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.head = None if config.tie_weights else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self._init_weights()

    def _init_weights(self):
        """Small random weights; what they must achieve is that signals neither fade nor grow on their way up.

        "scaled" gives a matrix the std 1/√fan_in, which keeps the size of what passes through it at any width, and
        embeddings 0.3, so that they hold their own beside what the blocks add. "gpt2" gives everything 0.02, which
        is near 1/√fan_in only in models as wide as GPT-2. In both, 2 · n_layer answers add up in the residual
        stream, so each starts smaller by the root of that number (Radford et al. 2019, section 2.3), and what
        predicts has 0.02: nearly equal logits, a first loss near ln V. Embeddings that are tied to it have 0.02 too.
        """
        scaled = self.config.init == "scaled"
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=embedding_std(self.config))
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features ** -0.5 if scaled else 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        predicting = self.token_embedding if self.head is None else self.head
        nn.init.normal_(predicting.weight, std=0.02)
        for block in self.blocks:
            for last in (block.attention.proj, block.feed_forward[2]):
                last.weight.data /= math.sqrt(2 * self.config.n_layer)

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, vocab_size) for the token after each position of `idx`, (B, T).

        Args:
            cache: what was read before `idx`, if anything was; gains `idx`.

        Raises:
            ValueError: a window longer than block_size, an id beyond the vocabulary, or more than one token for a cache
                that holds some.
        """
        start, T = (0, idx.shape[1]) if cache is None else (cache.length, idx.shape[1])
        held = 0 if cache is None else cache.longest
        if T > self.block_size:
            raise ValueError(f"a window of {T} tokens is longer than block_size={self.block_size}: pass the last {self.block_size}")
        if held and T > 1:
            raise ValueError(f"the cache holds {held} tokens already: give it one more at a time, not {T}")
        if held == self.block_size:
            raise ValueError(f"the cache is full: it holds block_size={held} tokens; begin a new one with the last of them")
        try:
            x = self.token_embedding(idx)                   # (B, T, C)
        except IndexError:
            raise ValueError(f"ids run from {idx.min()} to {idx.max()}, but the model knows 0 … {self.config.vocab_size - 1}: "
                             "was the text encoded by another tokenizer?") from None
        x = F.dropout(self.positions(x, start), self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            x = block(x) if cache is None else block(x, cache.layers[i])       # a block of the reader's own may know no cache
        if cache is not None:
            cache.length = start + T
        x = self.final_norm(x)
        return F.linear(x, self.token_embedding.weight) if self.head is None else self.head(x)

    def new_cache(self) -> KVCache:
        """An empty cache, for `forward`; it grows with the first prompt, to this model's block_size."""
        return KVCache(self.config.n_layer, self.block_size)

    def parameter_table(self) -> dict[str, int]:
        """How many parameters each part has; a tied head has none of its own."""
        count = lambda *modules: sum(p.numel() for module in modules for p in module.parameters())
        return {
            "token embedding": count(self.token_embedding),
            "positions": count(self.positions),
            "attention": count(*(block.attention for block in self.blocks)),
            "feed-forward": count(*(block.feed_forward for block in self.blocks)),
            "norms": count(self.final_norm, *(norm for block in self.blocks for norm in (block.norm1, block.norm2))),
            "head": count(self.head) if self.head else 0,
            "total": count(self),
        }

    def config_dict(self) -> dict:
        return asdict(self.config)


@contextmanager
def evaluating(model: nn.Module):
    """Dropout off and no gradients inside `with evaluating(model):`, whatever happens there; then as before."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def causality_gap(model: nn.Module, idx: Tensor, position: int) -> float:
    """How much the logits before `position` move when the token there is changed: 0 for a model that cannot see ahead.

    Args:
        idx: tokens, (B, T). Each row's token at `position` is replaced by every other token that `idx` holds.
    """
    if position < 1 or len(idx.unique()) < 2:
        raise ValueError("nothing to compare: position should be at least 1, and idx should hold two different tokens")
    gap = 0.0
    with evaluating(model):
        before = model(idx)[:, :position]
        for token in idx.unique():
            edited = idx.clone()
            edited[:, position] = token
            gap = max(gap, (model(edited)[:, :position] - before).abs().max().item())
    return gap
