"""The GPT: tokens go in, logits for the next token come out (chapter 4).

>>> model = GPT(GPTConfig(vocab_size=65))
>>> idx = torch.zeros(2, 10, dtype=torch.long)          # 2 texts of 10 tokens
>>> model(idx).shape                                    # for each position 65 logits
torch.Size([2, 10, 65])

Shapes: B texts in a batch, T tokens in a text, C = n_embd channels. `gptlib.train` trains the
model, and `gptlib.generate` samples from it.
"""

import math
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.block import Block
from gptlib.checks import check_arguments, class_of_part, tokens
from gptlib.config import GPTConfig
from gptlib.data import check_ids
from gptlib.kv_cache import KVCache, wrong_cache


class GPT(nn.Module):
    """A decoder-only transformer (Radford et al. 2019).

    Args:
        config: the shape of the model.
        block: the class of the decoder blocks. It is called with `config`.
        norm: the class of the last norm. It is called with n_embd and `bias=config.bias`.
    """

    @check_arguments(config=GPTConfig, block=class_of_part, norm=class_of_part)
    def __init__(self, config: GPTConfig, block=Block, norm=nn.LayerNorm):
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        # Adds a vector for each position. POSITIONS, below, has a class for each config.position.
        self.positions = POSITIONS[config.position](config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.n_layer))
        self.final_norm = norm(config.n_embd, bias=config.bias)
        # The output layer. With tied weights, the matrix of the token embedding is used instead.
        self.head = None
        if not config.tie_weights:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.init_weights()

    def forward(
        self, idx: Tensor, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return logits for the token after each position, (B, T, vocab_size).

        Args:
            idx: tokens, (B, T).
            cache: for faster sampling (chapter 8). It holds the tokens before `idx`, and gets `idx`
                too. See `new_cache`.
            mask: (B, 1, T, T), True where a token (third dimension) may attend to another one
                (fourth dimension). It replaces the causal mask. See `gptlib.data.document_mask`.

        Raises:
            ValueError: T is larger than block_size, an id is not in the vocabulary, the cache has
                no room, or both a cache and a mask are given.
        """
        self.check_input(idx, cache, mask)
        if cache is not None:
            return self.forward_with_cache(idx, cache)
        x = self.token_embedding(idx)                       # (B, T, C): a vector for each token
        x = self.positions(x)                               # adds a vector for each position
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask=mask)                         # (B, T, C)
        x = self.final_norm(x)
        return self.output_layer(x)                         # (B, T, vocab_size): logits

    def output_layer(self, x: Tensor) -> Tensor:
        """Return the logits, (B, T, vocab_size), for the hidden states `x`, (B, T, C)."""
        if self.head is None:
            return F.linear(x, self.token_embedding.weight)
        return self.head(x)

    def init_weights(self) -> None:
        """Draw the initial weights from normal distributions.

        Their standard deviation depends on config.init, which is "scaled" or "gpt2":

        | weights            | "scaled"  | "gpt2" | reason                                     |
        |--------------------|-----------|--------|--------------------------------------------|
        | linear layers      | 1/√fan_in | 0.02   | outputs are about as large as the inputs   |
        | embeddings         | 0.3       | 0.02   | not too small beside the blocks' outputs   |
        | output layer       | 0.02      | 0.02   | nearly equal logits: the loss starts at ln V |
        | all `proj` weights | divided by √(2 · n_layer), because so many outputs are added   |

        fan_in is the number of inputs of a layer. GPT-2's 0.02 is close to 1/√fan_in only in models
        as wide as GPT-2. With tied weights the token embedding is the output layer, and all
        embeddings get 0.02. The last row is from Radford et al. (2019), section 2.3: in each block
        attention and the feed-forward layer add their output to the residual stream. Biases start
        at 0.
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=embedding_std(self.config))
            elif isinstance(module, nn.Linear):
                std = module.in_features ** -0.5 if self.config.init == "scaled" else 0.02
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Draw the matrix of the output layer once more, with its own std.
        output_layer = self.token_embedding if self.head is None else self.head
        nn.init.normal_(output_layer.weight, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(".proj.weight"):
                parameter.data /= math.sqrt(2 * self.config.n_layer)

    def forward_with_cache(self, idx: Tensor, cache: KVCache) -> Tensor:
        """Return the same logits for new tokens `idx`, (B, T). Earlier tokens are in the cache."""
        cache.reserve(idx.shape[1])                         # makes room, finds the positions
        x = self.token_embedding(idx)
        x = self.positions(x, cache.positions)
        x = self.dropout(x)
        for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
            x = block(x, cache=layer_cache)
        cache.advance()                                     # counts the new tokens
        x = self.final_norm(x)
        return self.output_layer(x)

    def check_input(self, idx: Tensor, cache: KVCache | None, mask: Tensor | None) -> None:
        check_ids(idx, self.config.vocab_size, self.token_embedding.weight.is_meta)
        if idx.ndim != 2:
            raise ValueError(
                f"idx has the shape {tuple(idx.shape)}, it should have the shape (B, T): use "
                "idx[None] for a single text"
            )
        if idx.numel() == 0:
            raise ValueError(
                f"idx has the shape {tuple(idx.shape)}, it should hold at least one token"
            )
        if self.block_size is not None and idx.shape[1] > self.block_size:
            raise ValueError(
                f"a window of {idx.shape[1]} tokens is longer than block_size={self.block_size}: "
                f"pass the last {self.block_size}"
            )
        if cache is not None:
            self.check_cache(idx, cache)
        if mask is None:
            return
        if cache is not None:
            raise ValueError("give either a cache or a mask: a cache makes its own mask")
        B, T = idx.shape
        if not isinstance(mask, Tensor):
            raise ValueError(f"the mask is {type(mask).__name__}, it should be a torch.Tensor")
        if mask.shape != (B, 1, T, T) or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask is {mask.dtype} of shape {tuple(mask.shape)}, it should be torch.bool "
                f"of shape {(B, 1, T, T)}"
            )

    def check_cache(self, idx: Tensor, cache: KVCache) -> None:
        fits = isinstance(cache, KVCache) and len(cache.layers) == len(self.blocks)
        # A cache that another model has filled holds other keys and values.
        if fits and not torch.compiler.is_compiling():
            fits = cache.reader in (None, id(self))
        if not fits or cache.block_size > self.block_size:
            raise wrong_cache(cache, KVCache)
        if len(cache.lengths) != len(idx):
            raise ValueError(
                f"the cache was made for {len(cache.lengths)} texts, but it gets {len(idx)}: "
                f"use new_cache({len(idx)})"
            )
        if not torch.compiler.is_compiling():
            cache.reader = id(self)

    def new_cache(self, batch_size: int) -> KVCache:
        """Return an empty cache for `batch_size` texts of at most block_size tokens."""
        device = self.token_embedding.weight.device
        return KVCache(self.config.n_layer, batch_size, self.block_size, device)

    def parameter_table(self) -> dict[str, int]:
        """Return the number of parameters of each part. A tied head has none of its own."""
        norms = [norm for block in self.blocks for norm in (block.norm1, block.norm2)]
        return {
            "token embedding": count_parameters(self.token_embedding),
            "positions": count_parameters(self.positions),
            "attention": count_parameters(*(block.attention for block in self.blocks)),
            "feed-forward": count_parameters(*(block.feed_forward for block in self.blocks)),
            "norms": count_parameters(*norms, self.final_norm),
            "head": count_parameters(self.head) if self.head else 0,
            "total": count_parameters(self),
        }

    def config_dict(self) -> dict:
        """Return the config as a dict, ready for JSON."""
        return asdict(self.config)


# Positions ----------------------------------------------------------------------------------------

class LearnedPositions(nn.Module):
    """One learned vector for each position (GPT-2)."""

    @check_arguments(config=GPTConfig)
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.table = nn.Embedding(config.block_size, config.n_embd)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add to `x`, (B, T, C), the vectors of its `positions`, (B, T). None means 0 … T - 1."""
        return x + self.table(position_rows(x, positions))


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines of different wavelengths (Vaswani et al. 2017, section 3.5)."""

    @check_arguments(config=GPTConfig)
    def __init__(self, config: GPTConfig):
        super().__init__()
        # A sine wave has std 1/√2. This factor gives it the std of the token embedding.
        self.scale = math.sqrt(2) * embedding_std(config)
        position = torch.arange(config.block_size)[:, None]                     # (T, 1)
        frequency = 10_000.0 ** (-torch.arange(0, config.n_embd, 2) / config.n_embd)    # (C/2,)
        angle = position * frequency                                            # (T, C/2)
        waves = torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1)       # (T, C/2, 2)
        # A buffer moves to the GPU with the model. It need not be saved, because it is computed.
        self.register_buffer("waves", waves.flatten(1), persistent=False)       # (T, C)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add to `x`, (B, T, C), the waves at its `positions`, (B, T). None means 0 … T - 1."""
        return x + self.scale * self.waves[position_rows(x, positions)]


class NoPositions(nn.Module):
    """Add nothing. The causal mask alone gives a hint of the order (Haviv et al. 2022)."""

    @check_arguments(config=GPTConfig)
    def __init__(self, config: GPTConfig):
        super().__init__()

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        return x


POSITIONS = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "none": NoPositions,
}


def position_rows(x: Tensor, positions: Tensor | None) -> Tensor:
    """Return the positions of `x`, (B, T, C): `positions`, or 0 … T - 1 for None."""
    return torch.arange(x.shape[1], device=x.device) if positions is None else positions


def embedding_std(config: GPTConfig) -> float:
    """Return the initial standard deviation of embeddings. See `GPT.init_weights`."""
    return 0.3 if config.init == "scaled" and not config.tie_weights else 0.02


# Tools --------------------------------------------------------------------------------------------

def count_parameters(*modules: nn.Module) -> int:
    """Return the number of parameters of all `modules` together."""
    return sum(p.numel() for module in modules for p in module.parameters())


@check_arguments(model=nn.Module)
@contextmanager
def evaluating(model: nn.Module):
    """Switch off dropout and gradients inside `with evaluating(model):`.

    Afterwards each module gets its own mode back, also after an exception.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@check_arguments(model=nn.Module, idx=tokens("B, T"), position=int)
def causality_gap(model: nn.Module, idx: Tensor, position: int) -> float:
    """Return the largest change of any earlier logit when the token at `position` changes.

    A model that cannot see the future gives 0. A result above 0 proves that it can. The token at
    `position` is replaced by each token that occurs in `idx`, (B, T).
    """
    if not 1 <= position < idx.shape[1] or len(idx.unique()) < 2:
        raise ValueError(
            f"nothing to compare: position={position} should be at least 1 and below T = "
            f"{idx.shape[1]}, and idx should hold two different tokens"
        )
    gap = 0.0
    with evaluating(model):
        before = model(idx)[:, :position]
        for token in idx.unique():
            changed = idx.clone()
            changed[:, position] = token
            difference = model(changed)[:, :position] - before
            if not difference.isfinite().all():
                raise ValueError("the model's logits are not finite, so they cannot be compared")
            gap = max(gap, difference.abs().max().item())
    return gap
