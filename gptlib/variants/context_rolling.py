"""Context rolling: a GPT reads a long text in windows (chapter 7).

From each window it passes a summary, the context, to the next window.

>>> from gptlib.variants.config import VariantConfig
>>> config = VariantConfig(vocab_size=65, block_size=128, memory="mean", window=32)
>>> model = RollingGPT(config)
>>> idx = torch.zeros(2, 100, dtype=torch.long)
>>> model(idx).shape                        # three windows of 32 tokens, and 4 tokens of a fourth
torch.Size([2, 100, 65])
"""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.block import Block
from gptlib.checks import at_least, check_arguments, checked_value, function_of, optional, tokens
from gptlib.config import ConfigError, GPTConfig
from gptlib.data import check_ids
from gptlib.kv_cache import KVCache, wrong_cache
from gptlib.model import GPT
from gptlib.variants.config import VariantConfig

# How the context for the next window is made. `tokens` are the final hidden states of the window's
# W tokens, (B, W, C). `written` are those of its memory tokens, (B, n_memory, C).
MEMORIES = {
    # PicoGPT: the mean over the window.
    "mean": lambda tokens, written: tokens.mean(1, keepdim=True),
    "last": lambda tokens, written: tokens[:, -1:],
    # Recurrent Memory Transformer (Bulatov et al. 2022).
    "tokens": lambda tokens, written: written,
    # The control of an experiment: no window knows of another one.
    "none": lambda tokens, written: torch.zeros_like(tokens[:, :1]),
}


class RollingGPT(GPT):
    """A recurrent network whose cell is a GPT: (context, window) -> (logits, next context).

    The context is one vector, or a few. It stands before the tokens of its window. It is made
    from the final hidden states of the window before. The first window gets zeros, or the learned
    memory tokens. Windows begin at positions 0, W, 2W, … of the text, also while the text grows.
    The text may have any length.
    """

    @check_arguments(config=VariantConfig)
    def __init__(self, config: VariantConfig, block=Block):
        if config.memory == "attention":
            raise ConfigError(f"memory='attention' should be one of {', '.join(MEMORIES)}")
        super().__init__(window_config(config), block)
        self.config = config
        # There is no longest text. None tells `generate` not to cut it.
        self.block_size = None
        if config.memory == "tokens":
            std = self.token_embedding.weight.detach().std()
            self.memory = nn.Parameter(std * torch.randn(config.n_memory, config.n_embd))

    def forward(
        self,
        idx: Tensor,
        cache: "RollingCache | None" = None,
        mask: None = None,
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return logits (B, T, vocab_size) for the token after each position of `idx`, (B, T).

        Args:
            cache: holds the text before `idx`, and gets `idx` too. See `new_cache`.
            mask: not supported by this model.
            edit: a function that changes each context on its way to the next window. An experiment
                can remove the context this way. Not with a cache.
        """
        self.check_input(idx, cache, mask)
        if mask is not None:
            raise ValueError("context rolling has no document masks: give one document per row")
        checked_value("edit", edit, optional(function_of("context")))
        if cache is not None and edit is not None:
            raise ValueError("give either a cache or edit: with a cache, contexts are not edited")
        if cache is not None:
            return self.output_layer(self.continue_text(idx, cache))
        context, hidden = self.first_context(len(idx)), []
        for window in idx.split(self.config.window, dim=1):
            h, context = self.read_window(window, context)
            context = context if edit is None else edited(context, edit)
            hidden.append(h)
        return self.output_layer(torch.cat(hidden, dim=1))

    def first_context(self, B: int) -> Tensor:
        """Return the context of the first window, (B, n_memory, C)."""
        if self.config.memory == "tokens":
            return self.memory.expand(B, -1, -1)
        return torch.zeros(B, 1, self.config.n_embd, device=self.token_embedding.weight.device)

    def read_window(self, window: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden states of a window, (B, T, C), and the next context, (B, n_memory, C).

        Args:
            window: tokens, (B, T), T at most W. The context of an incomplete window is computed
                but never used.
            context: (B, n_memory, C), from the window before.
        """
        n, T = context.shape[1], window.shape[1]
        vectors = [context, self.token_embedding(window)]
        if self.config.memory == "tokens":
            # The same memory tokens are the first context of a text. Here they stand at the end,
            # where they see all tokens of the window.
            vectors.append(self.memory.expand(len(window), -1, -1))
        x = self.hidden_states(torch.cat(vectors, dim=1))       # (B, n + T, C), or n more
        hidden, written = x[:, n:n + T], x[:, n + T:]
        return hidden, self.next_context(hidden, written)

    def hidden_states(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Apply positions, blocks and the last norm to the vectors `x`: (B, T, C) -> (B, T, C).

        This is the middle part of `GPT.forward`. There the vectors are those of tokens only.
        """
        positions, layer_caches = None, [None] * len(self.blocks)
        if cache is not None:
            cache.reserve(x.shape[1])
            positions, layer_caches = cache.positions, cache.layers
        x = self.dropout(self.positions(x, positions))
        for block, layer_cache in zip(self.blocks, layer_caches, strict=True):
            x = block(x, cache=layer_cache)
        if cache is not None:
            cache.advance()
        return self.final_norm(x)

    def next_context(self, hidden: Tensor, written: Tensor) -> Tensor:
        """Return the context for the next window, (B, n_memory, C)."""
        context = MEMORIES[self.config.memory](hidden, written)
        if self.config.rescale and self.config.memory != "none":
            norm = self.token_embedding.weight.norm(dim=-1).mean()
            context = F.normalize(context, dim=-1) * norm
        return context.detach() if self.config.detach else context

    # Sampling with a cache ------------------------------------------------------------------------

    def continue_text(self, idx: Tensor, cache: "RollingCache") -> Tensor:
        """Return the hidden states of `idx`, (B, T, C), the continuation of the text in `cache`."""
        states = []
        while idx.shape[1]:
            room = self.config.window - cache.n_tokens
            tokens, idx = idx[:, :room], idx[:, room:]
            x = self.token_embedding(tokens)
            if cache.kv is None:
                cache.start_window(self)
                x = torch.cat([cache.context, x], dim=1)
            x = self.hidden_states(x, cache.kv)[:, -tokens.shape[1]:]
            cache.hidden.append(x)
            states.append(x)
            if cache.n_tokens == self.config.window:
                self.close_window(cache)
        return torch.cat(states, dim=1)

    def close_window(self, cache: "RollingCache") -> None:
        """Replace the full window in `cache` by the context that it gives."""
        hidden = torch.cat(cache.hidden, dim=1)
        written = hidden[:, :0]             # empty, (B, 0, C)
        if self.config.memory == "tokens":
            written = self.hidden_states(self.memory.expand(len(hidden), -1, -1), cache.kv)
        cache.context = self.next_context(hidden, written)
        cache.kv, cache.hidden = None, []

    def check_cache(self, idx: Tensor, cache: "RollingCache") -> None:
        # A cache that another model has filled holds other contexts.
        if not isinstance(cache, RollingCache) or cache.reader not in (None, id(self)):
            raise wrong_cache(cache, RollingCache)
        if len(cache.context) != len(idx):
            raise ValueError(
                f"the cache was made for {len(cache.context)} texts, but it gets {len(idx)}: "
                f"use new_cache({len(idx)})"
            )
        cache.reader = id(self)

    @check_arguments(batch_size=at_least(1))
    def new_cache(self, batch_size: int) -> "RollingCache":
        """Return an empty cache for `batch_size` texts of any length."""
        return RollingCache(self.first_context(batch_size))

    def parameter_table(self) -> dict[str, int]:
        table = super().parameter_table()
        if self.config.memory == "tokens":
            return {"memory tokens": self.memory.numel()} | table
        return table


def edited(context: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """Return edit(context). Raise a ValueError unless that is a context of the same shape."""
    new = edit(context)
    if not isinstance(new, Tensor) or new.shape != context.shape:
        found = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise ValueError(
            f"edit should return a tensor of shape {tuple(context.shape)}, like the context that "
            f"it gets, not {found}"
        )
    return new


class RollingCache:
    """The state of a text while it grows: the context and the tokens of its present window.

    The positions in a window are the same for every window. Therefore the keys and values of its
    tokens stay valid until the window is full.
    """

    def __init__(self, context: Tensor):
        self.context = context              # (B, n_memory, C)
        self.reader = None                  # the id of the model that has filled the cache
        self.kv: KVCache | None = None      # keys and values of the context and of the tokens
        self.hidden: list[Tensor] = []      # final hidden states of the tokens, (B, …, C) each

    @property
    def n_tokens(self) -> int:
        """The number of tokens in the present window."""
        return sum(part.shape[1] for part in self.hidden)

    def start_window(self, model: RollingGPT) -> None:
        size = window_config(model.config).block_size
        self.kv = KVCache(model.config.n_layer, len(self.context), size, self.context.device)


def window_config(config: VariantConfig) -> GPTConfig:
    """Return the config of the GPT that reads one window.

    Its block has a position for each token and for each vector of the context. With memory tokens
    it also has a position for each vector that the window writes.
    """
    written = config.n_memory if config.memory == "tokens" else 0
    core = {f.name: getattr(config, f.name) for f in fields(GPTConfig)}
    return GPTConfig(**core | {"block_size": config.window + config.n_memory + written})


@check_arguments(model=nn.Module, idx=tokens("B, T"))
def token_losses(model: nn.Module, idx: Tensor, **how) -> Tensor:
    """Return the loss at each token of `idx`, (B, T), except the first: (B, T - 1), in nats.

    `how` is passed to the model, such as `edit`.
    """
    if idx.shape[1] < 2:
        raise ValueError(f"idx has the shape {tuple(idx.shape)}, each row needs two tokens")
    logits = model(idx[:, :-1], **how)                      # (B, T - 1, V)
    check_ids(idx, vocab_size=logits.shape[-1])
    return F.cross_entropy(logits.transpose(1, 2), idx[:, 1:], reduction="none")
