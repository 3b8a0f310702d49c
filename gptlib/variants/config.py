"""The options of all variants in one config, so that variants can be combined."""

from dataclasses import dataclass
from typing import Literal

from gptlib.config import GPTConfig, require

# The options of chapter 9.
MODERN_PARTS = ("rotary", "qk_norm", "relu2", "rms_norm", "zero_init", "bigram_table")


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
    # The options below are for the other memories.
    memory: Literal["attention", "mean", "last", "tokens", "none"] = "attention"
    window: int = 64            # tokens in a window
    n_memory: int = 1           # vectors in a context; more than one only for memory="tokens"
    detach: bool = False        # stop the gradient between windows
    rescale: bool = False       # give a context the mean norm of the token embeddings

    # Chapter 9: parts of newer GPTs, see gptlib/variants/modern.py. For attention="plain" and
    # memory="attention" only.
    rotary: bool = False        # rotate queries and keys by their positions
    qk_norm: bool = False       # give all queries and keys the same length
    relu2: bool = False         # max(0, x)² in place of GELU
    rms_norm: bool = False      # norms without weights, which divide by the root of the mean square
    zero_init: bool = False     # output layers start at zero
    bigram_table: bool = False  # add learned logits for each pair of tokens

    def __post_init__(self):
        super().__post_init__()
        require(self.window >= 1, self, "window", "at least 1")
        require(self.n_memory >= 1, self, "n_memory", "at least 1")
        require(self.n_memory == 1 or self.memory == "tokens", self, "n_memory",
                f'1 for memory={self.memory!r}; only memory="tokens" can use more')
        for name in ("detach", "rescale"):
            require(not getattr(self, name) or self.memory != "attention", self, name,
                    "False for memory='attention', where no context passes between windows")
        for name in MODERN_PARTS:
            is_plain = self.attention == "plain" and self.memory == "attention"
            require(not getattr(self, name) or is_plain, self, name,
                    'False, unless attention="plain" and memory="attention"')
        head_size = self.n_embd // self.n_head
        require(not self.rotary or head_size % 2 == 0, self, "n_embd",
                f"an even multiple of n_head={self.n_head}, because rotary=True rotates pairs of "
                "channels")
        require(not (self.zero_init and self.tie_weights), self, "zero_init",
                "False, because tie_weights=True: the output layer is the token embedding")
        if self.memory != "attention":
            example = max(1, self.block_size // self.window) * self.window
            require(self.block_size % self.window == 0, self, "block_size",
                    f"a multiple of window={self.window}, such as {example}")
