"""Context rolling: a GPT reads a long text window by window, and hands each window a small summary of what came before.

>>> model = RollingGPT(RollingConfig(vocab_size=65, block_size=128, window=32))
>>> model(torch.zeros(2, 100, dtype=torch.long)).shape          # three windows of 32 and a part of a fourth
torch.Size([2, 100, 65])
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.attention import KVCache
from gptlib.config import ConfigError, GPTConfig
from gptlib.model import GPT


@dataclass(frozen=True)
class RollingConfig(GPTConfig):
    """A GPTConfig whose `block_size` is the text of one training example, read in windows.

    >>> RollingConfig(vocab_size=65, block_size=100, window=32)
    Traceback (most recent call last):
        ...
    gptlib.config.ConfigError: block_size=100 should be a multiple of window=32, such as 96
    """

    window: int = 32                    # tokens read at once
    memory: Literal["mean", "last", "tokens", "none"] = "mean"      # what a window hands on, see MEMORIES
    n_memory: int = 1                   # vectors handed on; more than one only for memory="tokens"
    detach: bool = False                # stop gradients between windows
    rescale: bool = False               # give what is handed on the size of a token's embedding

    def __post_init__(self):
        super().__post_init__()
        for name in ("window", "n_memory"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} should be at least 1")
        if self.block_size % self.window:
            raise ConfigError(f"block_size={self.block_size} should be a multiple of window={self.window}, "
                              f"such as {max(1, self.block_size // self.window) * self.window}")
        if self.n_memory > 1 and self.memory != "tokens":
            raise ConfigError(f'n_memory={self.n_memory} should be 1 for memory={self.memory!r}; memory="tokens" has room for more')

    def one_window(self) -> GPTConfig:
        """The GPT that reads a single window: it has a place for each token, and for each vector handed in or written."""
        places = self.window + self.n_memory * (2 if self.memory == "tokens" else 1)
        return GPTConfig(**{f.name: getattr(self, f.name) for f in fields(GPTConfig)} | {"block_size": places})


# What a window hands on: of the final hidden states of its tokens, (B, W, C), and of its memory tokens, (B, n_memory, C).
MEMORIES = {
    "mean": lambda tokens, written: tokens.mean(1, keepdim=True),           # PicoGPT
    "last": lambda tokens, written: tokens[:, -1:],
    "tokens": lambda tokens, written: written,                              # RMT (Bulatov et al. 2022)
    "none": lambda tokens, written: torch.zeros_like(tokens[:, :1]),        # the control: no window knows of another
}


class RollingCache:
    """Where a text stands: what its window under way was handed, and what has been computed in that window.

    The places in a window are the same in every window, so the keys and values of its tokens stay right until it is
    full. A window that slid along with each token would give every token another place, and nothing could be kept.
    """

    def __init__(self):
        self.context: Tensor | None = None              # (B, n_memory, C)
        self.kv: KVCache | None = None                  # of the context and the window's tokens
        self.hidden: list[Tensor] = []                  # the final states of its tokens, (B, …, C) each


class RollingGPT(GPT):
    """A recurrent network whose cell is a transformer: (context, window) -> (logits, next context).

    The context stands in front of its window as one more vector (or a few). It is made of the final hidden states
    of the window before; the first window gets zeros, or the memory tokens as they were learned. Windows are
    counted from the beginning of the text, so their borders do not move while it grows, and it may grow for ever.
    """

    def __init__(self, config: RollingConfig):
        super().__init__(config.one_window())
        self.config = config
        self.block_size = None                      # no longest text: `generate` should not cut it, nor move the borders
        if config.memory == "tokens":
            self.memory = nn.Parameter(self.token_embedding.weight.detach().std() * torch.randn(config.n_memory, config.n_embd))

    def start(self, B: int) -> Tensor:
        """What the first window is handed, (B, n_memory, C)."""
        if self.config.memory == "tokens":
            return self.memory.expand(B, -1, -1)
        return torch.zeros(B, 1, self.config.n_embd, device=self.token_embedding.weight.device)

    def read(self, window: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden states of a window's tokens, (B, T, C), and the context for the next one, (B, n_memory, C).

        Args:
            window: tokens, (B, T), T at most W. A part of a window gives a context too, of no use to anyone.
        """
        T, n = window.shape[1], self.config.n_memory
        vectors = [context, self.token_embedding(window)]
        if self.config.memory == "tokens":
            vectors.append(self.memory.expand(len(window), -1, -1))         # at the end, from where they see all tokens
        x = self._through_the_blocks(torch.cat(vectors, dim=1))             # (B, n + T (+ n), C)
        hidden = x[:, n:n + T]                                              # nothing is predicted at the context's own place
        return hidden, self._handed_on(hidden, x[:, n + T:])

    def _through_the_blocks(self, x: Tensor, kv: KVCache | None = None) -> Tensor:
        start = 0 if kv is None else kv.length
        x = F.dropout(self.positions(x, start), self.config.dropout, self.training)
        for i, block in enumerate(self.blocks):
            x = block(x, kv and kv.layers[i])
        if kv is not None:
            kv.length = start + x.shape[1]
        return self.final_norm(x)

    def _handed_on(self, hidden: Tensor, written: Tensor) -> Tensor:
        context = MEMORIES[self.config.memory](hidden, written)
        if self.config.rescale and self.config.memory != "none":
            context = F.normalize(context, dim=-1) * self.token_embedding.weight.norm(dim=-1).mean()
        return context.detach() if self.config.detach else context

    def forward(self, idx: Tensor, cache: RollingCache | None = None, edit: Callable[[Tensor], Tensor] = lambda context: context) -> Tensor:
        """Logits (B, T, vocab_size) for the token after each position of `idx`, (B, T), of any length.

        Args:
            cache: what came before `idx`, from `new_cache()`; it gains `idx`. Without one, `idx` is the text's beginning.
            edit: changes each context on its way to the next window, so that an experiment can take it away.
        """
        if cache is None:
            context, hidden = self.start(len(idx)), []
            for window in idx.split(self.config.window, dim=1):
                h, context = self.read(window, context)
                context = edit(context)
                hidden.append(h)
        else:
            hidden = self._go_on(idx, cache)
        x = torch.cat(hidden, dim=1)                                        # (B, T, C)
        return F.linear(x, self.token_embedding.weight) if self.head is None else self.head(x)

    def _go_on(self, idx: Tensor, cache: RollingCache) -> list[Tensor]:
        """The hidden states of `idx`, (B, …, C) each: a window's first tokens all at once, later ones one by one."""
        states = []
        while idx.shape[1]:
            if cache.context is None:
                cache.context = self.start(len(idx))
            if cache.kv is None:
                cache.kv = KVCache(self.config.n_layer, self.config.one_window().block_size)
                tokens, idx = idx.tensor_split([self.config.window], dim=1)
                h = self._through_the_blocks(torch.cat([cache.context, self.token_embedding(tokens)], dim=1), cache.kv)
                h = h[:, self.config.n_memory:]
            else:
                tokens, idx = idx.tensor_split([1], dim=1)
                h = self._through_the_blocks(self.token_embedding(tokens), cache.kv)
            cache.hidden.append(h)
            states.append(h)
            if sum(part.shape[1] for part in cache.hidden) == self.config.window:
                self._close_window(cache)
        return states

    def _close_window(self, cache: RollingCache) -> None:
        hidden, written = torch.cat(cache.hidden, dim=1), []
        if self.config.memory == "tokens":
            written = [self._through_the_blocks(memory.expand(len(hidden), 1, -1), cache.kv) for memory in self.memory]
        cache.context = self._handed_on(hidden, torch.cat([hidden[:, :0], *written], dim=1))
        cache.kv, cache.hidden = None, []

    def new_cache(self) -> RollingCache:
        return RollingCache()


def with_memory(config: GPTConfig, memory: str, window: int) -> GPTConfig:
    """`config` itself for memory="attention", over the whole block; for one of MEMORIES, the same in windows that hand it on.

    >>> with_memory(GPTConfig(vocab_size=65, block_size=128), memory="mean", window=32).window
    32
    """
    return config if memory == "attention" else RollingConfig(**asdict(config), memory=memory, window=window)


def make_model(config: GPTConfig) -> GPT:
    """The model that a config describes: a RollingGPT for a RollingConfig, else a GPT."""
    return RollingGPT(config) if isinstance(config, RollingConfig) else GPT(config)


def token_losses(model: nn.Module, idx: Tensor, **how) -> Tensor:
    """The surprise at each token of `idx`, (B, T), but the first: (B, T - 1), in nats. `how` goes to the model."""
    return F.cross_entropy(model(idx[:, :-1], **how).transpose(1, 2), idx[:, 1:], reduction="none")
