"""The options of all variants in one config, so that variants can be combined."""

from dataclasses import dataclass
from typing import Literal

from gptlib.config import GPTConfig, require


@dataclass(frozen=True)
class VariantConfig(GPTConfig):
    """A GPTConfig with options for the variants. Their defaults describe the GPT of chapter 4.

    `gptlib.variants.build.make_model` builds the model. (The class GPT alone ignores these
    options.)

    >>> VariantConfig(vocab_size=65, block_size=100, memory="mean", window=32)
    Traceback (most recent call last):
        ...
    gptlib.config.ConfigError: block_size=100 should be a multiple of window=32, such as 96
    """

    # Chapter 6: the attention, see ATTENTIONS in gptlib/variants/build.py.
    attention: Literal["plain", "time_weighted", "toeplitz", "relative_bias"] = "plain"
    token_shift: bool = False   # attention reads half of the channels from the position before

    # Chapter 7: how far the model can see. "attention" is attention over the whole text of
    # block_size tokens. With any other memory, the model reads the text in shorter windows and
    # passes a few vectors, the context, from each window to the next. They are the mean of the
    # window's hidden states, the last of them, those of learned memory tokens, or zeros ("none").
    # The options below have no effect for "attention".
    memory: Literal["attention", "mean", "last", "tokens", "none"] = "attention"
    window: int = 64            # tokens in a window
    n_memory: int = 1           # vectors in a context; more than one only for memory="tokens"
    detach: bool = False        # stop the gradient between windows
    rescale: bool = False       # give a context the mean norm of the token embeddings

    def __post_init__(self):
        super().__post_init__()
        require(self.window >= 1, self, "window", "at least 1")
        require(self.n_memory >= 1, self, "n_memory", "at least 1")
        require(self.n_memory == 1 or self.memory == "tokens", self, "n_memory",
                f'1 for memory={self.memory!r}; only memory="tokens" can use more')
        if self.memory != "attention":
            example = max(1, self.block_size // self.window) * self.window
            require(self.block_size % self.window == 0, self, "block_size",
                    f"a multiple of window={self.window}, such as {example}")
