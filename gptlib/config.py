"""The options of a model and of its training, and the check of a notebook's parameters.

>>> config = GPTConfig(vocab_size=65, n_layer=2)
>>> config.n_layer, config.n_embd
(2, 128)

Every option is checked when the config is made. A value that cannot work raises an error that names
the option, its value, and what would be right.

>>> GPTConfig(vocab_size=65, n_embd=100, n_head=3)
Traceback (most recent call last):
    ...
gptlib.config.ConfigError: n_embd=100 should be a multiple of n_head=3, such as 99
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

# Notebooks import `above` and `at_least` from here, together with `check_parameters`.
from gptlib.checks import above as above
from gptlib.checks import at_least as at_least
from gptlib.checks import checked_value, short


class ConfigError(ValueError):
    """An option is unknown or missing, or has a value that cannot work."""


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT."""

    vocab_size: int             # number of different tokens
    block_size: int = 64        # longest context, in tokens
    n_layer: int = 4            # number of decoder blocks
    n_head: int = 4             # attention heads in each block
    n_embd: int = 128           # channels of the residual stream
    mlp_ratio: int = 4          # the feed-forward layer has mlp_ratio * n_embd hidden channels
    dropout: float = 0.0        # probability that an activation is set to zero in training
    bias: bool = False          # whether linear layers and norms have biases
    tie_weights: bool = False   # whether the output layer uses the matrix of the token embedding
    position: Literal["learned", "sinusoidal", "none"] = "learned"      # position encoding
    init: Literal["scaled", "gpt2"] = "scaled"      # initial weights, see GPT.init_weights

    def __post_init__(self):
        check_types(self)
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "mlp_ratio"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
            require(getattr(self, name) < 2 ** 63, self, name, "below 2 ** 63")
        require(0 <= self.dropout < 1, self, "dropout", "at least 0 and below 1")
        example = max(1, self.n_embd // self.n_head) * self.n_head
        require(self.n_embd % self.n_head == 0, self, "n_embd",
                f"a multiple of n_head={self.n_head}, such as {example}")
        require(self.position != "sinusoidal" or self.n_embd % 2 == 0, self, "n_embd",
                'even, because position="sinusoidal" uses pairs of a sine and a cosine')


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: the optimizer, its learning rate, the batches, the evaluations."""

    max_steps: int = 1500           # optimizer steps
    batch_size: int = 16            # windows in each step
    learning_rate: float = 3e-3     # the highest learning rate, reached after the warm-up
    min_lr: float = 0.0             # the learning rate at the end of the decay
    warmup: int = 100               # length of the warm-up, in units of lr_unit
    lr_decay: int = 0               # where the decay ends, in units of lr_unit; 0: at the last step
    # After the warm-up, "cosine" decays along half a cosine. "wsd" stays constant, and then decays
    # in a straight line (warm-up, stable, decay; chapter 9).
    schedule: Literal["cosine", "wsd"] = "cosine"
    cooldown: float = 0.4           # "wsd": the share of the run in which the rate decays
    lr_unit: Literal["steps", "tokens"] = "steps"   # unit of warmup and lr_decay
    optimizer: Literal["adamw", "muon"] = "adamw"   # "muon": see gptlib/optimizers/muon.py
    weight_decay: float = 0.1       # weight decay of the optimizer, for matrices only
    beta1: float = 0.9              # AdamW: decay rate of the average gradient
    beta2: float = 0.99             # AdamW: decay rate of the average squared gradient
    grad_clip: float = 1.0          # largest norm of the gradient; 0: no clipping
    eval_interval: int = 250        # steps between two evaluations on the validation split
    seed: int = 1337                # determines the batches and the dropout
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # "auto": the faster one, see run.py
    compile: bool = False           # use torch.compile: a slow start, then faster steps on GPUs
    device: str = "auto"            # "auto": CUDA (or ROCm) if there is one, else MPS, else the CPU

    def __post_init__(self):
        check_types(self)
        for name in ("max_steps", "batch_size", "eval_interval"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
            require(getattr(self, name) < 2 ** 63, self, name, "below 2 ** 63")
        for name in ("warmup", "lr_decay", "min_lr", "weight_decay", "grad_clip", "seed"):
            require(getattr(self, name) >= 0, self, name, "at least 0")
        require(self.seed < 2 ** 63, self, "seed", "below 2 ** 63, the largest seed of PyTorch")
        require(self.learning_rate > 0, self, "learning_rate", "above 0")
        require(self.lr_decay == 0 or self.lr_decay > self.warmup, self, "lr_decay",
                f"above warmup={self.warmup}, or 0 for a decay to the last step")
        require(self.min_lr <= self.learning_rate, self, "min_lr",
                f"at most learning_rate={self.learning_rate}")
        require(0 < self.cooldown <= 1, self, "cooldown", "above 0 and at most 1")
        require(0 <= self.beta1 < 1, self, "beta1", "at least 0 and below 1")
        require(0 <= self.beta2 < 1, self, "beta2", "at least 0 and below 1")


# The parameters of a notebook ---------------------------------------------------------------------

def check_parameters(
    namespace: MutableMapping[str, Any], *configs: type, **kinds: Any
) -> None:
    """Check a notebook's parameters. The call stands in the cell after the parameters.

    Papermill runs a notebook with other parameters. It only warns about an unknown name, and a
    wrong type fails late in the run. This check stops the run at once.

    Args:
        namespace: the notebook's `globals()`. A float such as 1000.0 that should be an integer is
            replaced by the integer (papermill reads `1e3` as a float). An integer that should be
            a float is replaced by the float.
        configs: config classes. Each of their fields that has a default is a parameter.
        kinds: every other parameter, as a type, a tuple of choices, or a function such as
            `above(0.0)` or `at_least(1)` (see `gptlib.checks`).

    Raises:
        ConfigError: an unknown name, a missing parameter, a wrong type or an impossible value.
    """
    check_namespace(namespace, MutableMapping)
    for config in configs:
        check_config_class(config)
    for name, kind in kinds.items():
        is_kind = isinstance(kind, type | tuple | types.FunctionType | types.UnionType)
        if not is_kind and typing.get_origin(kind) is not Literal:
            raise ConfigError(
                f"the kind of {name!r} is {short(kind)}, it should be a type, a tuple of choices, "
                "or a function such as at_least(1)"
            )
    declared = dict(kinds)
    for config in configs:
        hints = typing.get_type_hints(config)
        declared |= {f.name: hints[f.name] for f in fields(config) if f.default is not MISSING}
    # Look for unknown names the first time only. Later the notebook has variables of its own.
    if "_parameters_checked" not in namespace:
        for name, value in namespace.items():
            if _may_be_parameter(name, value) and name not in declared:
                raise ConfigError(f"unknown parameter {name!r}" + did_you_mean(name, declared))
    for name, kind in declared.items():
        if name not in namespace:
            raise ConfigError(
                f"parameter {name!r} is missing: give it a value in the cell tagged 'parameters'"
            )
        namespace[name] = checked_option(name, namespace[name], kind)
    # Results in the folder "" would lie in the top folder of the course.
    out_dir = namespace["out_dir"] if "out_dir" in declared else "runs"
    if isinstance(out_dir, str) and (not out_dir.strip() or out_dir.startswith("~")):
        raise ConfigError(
            f"out_dir={out_dir!r} should name a folder, such as 'runs/mine', without ~ for your "
            "home folder"
        )
    # Check the values together. Fields that the chapter computes later are set to 1 here.
    for config in configs:
        computed = {f.name: 1 for f in fields(config) if f.default is MISSING}
        from_parameters(config, namespace, **computed)
    namespace["_parameters_checked"] = True


def from_parameters(config: type, namespace: Mapping[str, Any], **computed: Any):
    """Return a config with the values that `namespace` has under the names of its fields.

    If a name is in both, the `computed` value is used. A field that is in neither keeps its
    default.

    Raises:
        ConfigError: `config` is not the class of a config, `namespace` is not a dict, or a
            value is wrong.
    """
    check_config_class(config)
    check_namespace(namespace, Mapping)
    names = [f.name for f in fields(config) if f.name in namespace and f.name not in computed]
    return config(**{name: namespace[name] for name in names}, **computed)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name.

    >>> did_you_mean("n_heads", ["n_head", "n_layer"])
    ": did you mean 'n_head'? Known: n_head, n_layer."
    """
    known = list(known)
    similar = difflib.get_close_matches(str(name), known, 1)
    question = f": did you mean {similar[0]!r}?" if similar else "."
    return f"{question} Known: {', '.join(known)}."


def project_dir() -> Path:
    """Return the folder of the course that contains the working directory.

    Outside a copy of the course, return the working directory itself.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "gptlib").is_dir():
            return folder
    return here


# Checks -------------------------------------------------------------------------------------------

def require(holds: bool, config: Any, name: str, expected: str) -> None:
    """Raise a ConfigError about the field `name` unless the condition `holds`."""
    if not holds:
        raise ConfigError(f"{name}={short(getattr(config, name))} should be {expected}")


def check_config_class(config: type) -> None:
    """Raise a ConfigError unless `config` is a class such as GPTConfig."""
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ConfigError(f"{short(config)} should be the class of a config, such as GPTConfig")


def check_namespace(namespace: Mapping[str, Any], kind: type) -> None:
    """Raise a ConfigError unless the parameters are a dict, or something like it."""
    if not isinstance(namespace, kind):
        raise ConfigError(f"namespace={short(namespace)} should be a dict, such as globals()")


def check_types(config: Any) -> None:
    """Check the type of every field of a config. Correct a type where that loses nothing."""
    for name, kind in typing.get_type_hints(type(config)).items():
        # The config is frozen: `config.name = value` would raise an error. This call still works.
        object.__setattr__(config, name, checked_option(name, getattr(config, name), kind))


def checked_option(name: str, value: Any, kind: Any) -> Any:
    """Return `value`, converted where that loses nothing, or raise a ConfigError."""
    try:
        return checked_value(name, value, kind)
    except ValueError as error:
        hint = ""
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
            hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
        raise ConfigError(f"{error}{hint}") from None


def _may_be_parameter(name: str, value: Any) -> bool:
    """Return whether a name in a notebook's namespace may be a parameter."""
    of_ipython = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    if name.startswith("_") or name in of_ipython:
        return False
    return not (isinstance(value, types.ModuleType) or callable(value))
