"""What a model is, how it is trained, and the check that stands behind every notebook's parameters."""

import difflib
import types
import typing
from collections.abc import Mapping, MutableMapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting that cannot work. The message names it, its value and what would be right."""


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. Every field is checked when the config is made.

    >>> GPTConfig(vocab_size=65, n_embd=100, n_head=3)
    Traceback (most recent call last):
        ...
    gptlib.config.ConfigError: n_embd=100 should be a multiple of n_head=3, such as 99
    """

    vocab_size: int                     # how many different tokens there are
    block_size: int = 64                # longest context, in tokens
    n_layer: int = 4                    # decoder blocks, one after the other
    n_head: int = 4                     # attention heads in each block, side by side
    n_embd: int = 128                   # channels of the residual stream
    mlp_ratio: int = 4                  # the feed-forward layer is this many times wider than n_embd
    dropout: float = 0.0                # share of activations zeroed in training
    bias: bool = False                  # biases in linear layers and norms
    tie_weights: bool = False           # one matrix both reads tokens and predicts them
    position: Literal["learned", "sinusoidal", "none"] = "learned"
    init: Literal["scaled", "gpt2"] = "scaled"      # see GPT._init_weights
    attention: Literal["plain", "time_weighted", "toeplitz", "relative_bias"] = "plain"       # see block.ATTENTIONS
    token_shift: bool = False           # half of what attention reads comes from the position before

    def __post_init__(self):
        _check_types(self)
        _at_least(self, 1, "vocab_size", "block_size", "n_layer", "n_head", "n_embd", "mlp_ratio")
        _require(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        _require(self.n_embd % self.n_head == 0, self, "n_embd",
                 f"a multiple of n_head={self.n_head}, such as {max(1, self.n_embd // self.n_head) * self.n_head}")
        _require(self.position != "sinusoidal" or self.n_embd % 2 == 0, self, "n_embd",
                 'even, because position="sinusoidal" pairs each sine with a cosine')


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: AdamW, a warm-up, then a cosine from `learning_rate` down to `min_lr`."""

    max_steps: int = 1500
    batch_size: int = 16                # windows per step
    learning_rate: float = 3e-3
    min_lr: float = 0.0
    warmup: int = 100                   # counted in `lr_unit`
    lr_decay: int = 0                   # where the cosine ends, counted in `lr_unit`; 0: with the last step
    lr_unit: Literal["steps", "tokens"] = "steps"
    weight_decay: float = 0.1           # on matrices only, never on biases and norms
    beta1: float = 0.9
    beta2: float = 0.99                 # small batches give noisy squared gradients: average over ~100 steps
    grad_clip: float = 1.0              # largest norm of the whole gradient; 0: no clipping
    eval_interval: int = 250            # steps between two passes over the validation split
    seed: int = 1337
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"      # of the products; "auto": bfloat16 on GPUs that have it
    compile: bool = False               # torch.compile: slow to start, then faster on GPUs
    device: str = "auto"                # "auto" takes CUDA (also what ROCm reports), else MPS, else the CPU

    def __post_init__(self):
        _check_types(self)
        _at_least(self, 1, "max_steps", "batch_size", "eval_interval")
        _at_least(self, 0, "warmup", "lr_decay", "min_lr", "weight_decay", "grad_clip", "seed")
        _require(self.seed < 2 ** 63, self, "seed", "below 2 ** 63, the most that torch takes")
        _require(self.learning_rate > 0, self, "learning_rate", "above 0")
        _require(self.min_lr <= self.learning_rate, self, "min_lr", f"at most learning_rate={self.learning_rate}")
        _require(0 <= self.beta1 < 1, self, "beta1", "at least 0 and below 1")
        _require(0 <= self.beta2 < 1, self, "beta2", "at least 0 and below 1")


def check_parameters(namespace: MutableMapping[str, Any], *configs: type, **kinds: Any) -> None:
    """Check a notebook's parameters, in the cell right after the one tagged `parameters`.

    Papermill only warns of an unknown name and lets a wrong type fail late; this stops the run at once.

    Args:
        namespace: the notebook's `globals()`. Whole floats meant as integers (papermill reads `1e3` as
            1000.0) and integers meant as floats are put right in place.
        configs: config dataclasses; each of their fields that has a default is a parameter of the notebook.
        kinds: every other parameter, as a type, a tuple of choices, `above(0.0)` or `at_least(1)`.

    Raises:
        ConfigError: a name nobody declared, one that is missing, a wrong type or an impossible value.
    """
    declared = dict(kinds)
    for config in configs:
        hints = typing.get_type_hints(config)
        declared |= {f.name: hints[f.name] for f in fields(config) if f.default is not MISSING}
    if "_parameters_checked" not in namespace:      # a cell run again later finds the chapter's own names too
        for name in filter(lambda name: _may_be_parameter(name, namespace[name]), namespace):
            if name not in declared:
                raise ConfigError(f"unknown parameter {name!r}" + did_you_mean(name, declared))
    for name, kind in declared.items():
        if name not in namespace:
            raise ConfigError(f"parameter {name!r} is missing: give it a value in the cell tagged 'parameters'")
        namespace[name] = _checked(name, namespace[name], kind)
    for config in configs:                          # the values together; what the chapter computes stands at 1
        from_parameters(config, namespace, **{f.name: 1 for f in fields(config) if f.default is MISSING})
    namespace["_parameters_checked"] = True


@dataclass(frozen=True)
class _Bounded:
    least: int | float
    allowed: bool                                   # whether `least` itself will do


def at_least(least: int | float) -> _Bounded:
    """A kind of parameter: a number of the type of `least`, and no smaller."""
    return _Bounded(least, True)


def above(least: int | float) -> _Bounded:
    """A kind of parameter: a number of the type of `least`, and larger."""
    return _Bounded(least, False)


def from_parameters(config: type, namespace: Mapping[str, Any], **computed: Any):
    """A config made of the notebook's parameters that bear its fields' names, and of what the chapter `computed`."""
    return config(**{f.name: namespace[f.name] for f in fields(config) if f.name not in computed}, **computed)


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest known one, and all of them."""
    near = difflib.get_close_matches(str(name), known, 1)
    return (f": did you mean {near[0]!r}?" if near else ".") + f" Known: {', '.join(known)}."


def project_dir() -> Path:
    """The checkout of the course that holds the working directory, else the working directory itself."""
    here = Path.cwd()
    return next((d for d in (here, *here.parents) if (d / "notebooks").is_dir() and (d / "gptlib").is_dir()), here)


def _may_be_parameter(name, value):
    ipython = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    return not (name.startswith("_") or name in ipython or isinstance(value, types.ModuleType) or callable(value))


def _checked(name, value, kind):
    """`value`, put right where that loses nothing, or a ConfigError."""
    if isinstance(kind, _Bounded):
        value = _checked(name, value, type(kind.least))
        if value < kind.least or (value == kind.least and not kind.allowed):
            raise ConfigError(f"{name}={value!r} should be {'at least' if kind.allowed else 'above'} {kind.least}")
        return value
    if typing.get_origin(kind) is Literal:
        kind = typing.get_args(kind)
    if isinstance(kind, tuple):
        if value not in kind:
            raise ConfigError(f"{name}={value!r} should be one of {', '.join(map(repr, kind))}")
        return value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if isinstance(value, str) and kind in (int, float) else ""
        raise ConfigError(f"{name}={value!r} is {type(value).__name__}, it should be {kind.__name__}{hint}")
    if kind is float and not abs(value) < float("inf"):
        raise ConfigError(f"{name}={value!r} should be a finite number")
    return value


def _check_types(config):
    for name, kind in typing.get_type_hints(type(config)).items():
        object.__setattr__(config, name, _checked(name, getattr(config, name), kind))


def _require(holds, config, name, what):
    if not holds:
        raise ConfigError(f"{name}={getattr(config, name)!r} should be {what}")


def _at_least(config, least, *names):
    for name in names:
        _require(getattr(config, name) >= least, config, name, f"at least {least}")
