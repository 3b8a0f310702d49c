"""Checks of what `gptlib.train.train` is given. They name a mistake before it costs time.

Nothing here is about learning. The file exists so that train.py shows the training alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gptlib.checks import check_vocabulary, checked_value, function_of, short, tokens
from gptlib.config import ConfigError
from gptlib.data import batch_kind, check_ids
from gptlib.tokenizer import Tokenizer


def tokens_or_function(name: str, value: Tensor | Callable) -> Tensor | Callable:
    """The kind of a training split: tokens, (N,), or a function step -> batch."""
    return checked_value(name, value, function_of("step") if callable(value) else tokens("N"))


def tokens_or_batches(name: str, value: Tensor | Sequence[tuple]) -> Tensor | Sequence[tuple]:
    """The kind of a validation split: tokens, (N,), or a list of batches."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError(f"{name}={value} should be tokens, (N,), or a list of at least one batch")
    if not isinstance(value, list | tuple):
        return tokens("N")(name, value)
    return [batch_kind(f"{name}[{i}]", batch) for i, batch in enumerate(value)]


def optimizer_function(name: str, value: Callable) -> Callable:
    """The kind of functions (model, config) -> optimizer. It is not the class itself."""
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
        raise ValueError(
            f"{name}={value.__name__} is a class, it should be a function, such as lambda model, "
            f"config: {value.__name__}(model.parameters(), lr=config.learning_rate)"
        )
    return function_of("model", "config")(name, value)


def one_number(name: str, value: Tensor | float) -> Tensor | float:
    """The kind of a loss: one number, such as a tensor of shape ()."""
    if not isinstance(value, Tensor | float | int) or getattr(value, "ndim", 0):
        raise ValueError(f"{name}={short(value)} should be one number, a tensor of shape ()")
    # A term with a gradient is checked by the norm of its gradient. Reading it here would be slow.
    is_constant = not isinstance(value, Tensor) or not value.requires_grad
    if is_constant and not math.isfinite(value):
        raise ValueError(f"{name}={value} should be a finite number")
    return value


def check_model(model: nn.Module, tokenizer: Tokenizer | None) -> None:
    """Raise a ConfigError if the model cannot be trained, or the tokenizer has too many tokens."""
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError(
            "no parameter of the model can be trained: call model.requires_grad_(True) first"
        )
    if any(buffer.dtype == torch.int8 for buffer in model.buffers()):
        raise ConfigError(
            "a model with weights of one byte cannot be trained: train the model first, then call "
            "int8_copy"
        )
    if tokenizer:
        check_vocabulary(model, tokenizer, ConfigError)


def check_block_size(model: nn.Module, block_size: int) -> None:
    """Raise a ValueError if the windows are longer than the texts that the model reads."""
    longest = getattr(model, "block_size", None)
    if isinstance(longest, int) and block_size > longest:
        raise ValueError(
            f"block_size={block_size} should be at most {longest}, the longest text that the model "
            "reads"
        )


def check_tokenizer(
    tokenizer: Tokenizer | None, train_ids: Tensor | Callable, val_ids: Tensor | Sequence[tuple]
) -> None:
    """Raise a ConfigError if the tokens of a split are not those of the tokenizer."""
    for ids in (train_ids, val_ids):
        if tokenizer and isinstance(ids, Tensor) and len(ids) and ids.max() >= tokenizer.vocab_size:
            raise ConfigError(
                f"the text has the token {ids.max()}, but the tokenizer has only "
                f"{tokenizer.vocab_size} tokens: give the tokenizer that encoded the text"
            )


def check_splits(
    model: nn.Module, train_ids: Tensor | Callable, val_ids: Tensor | Sequence[tuple]
) -> None:
    """Raise a ValueError if a split has a token that the model does not know.

    Without this check, a run would stop at the first batch that has such a token.
    """
    config = model.config_dict() if hasattr(model, "config_dict") else {}
    for ids in (train_ids, val_ids):
        if "vocab_size" in config and isinstance(ids, Tensor):
            check_ids(ids, config["vocab_size"])


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raise an error unless this is an optimizer that changes at least one weight of the model."""
    checked_value("the result of the function optimizer", optimizer, torch.optim.Optimizer)
    weights = {id(weight) for weight in model.parameters()}
    changed = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    if not weights & changed:
        raise ConfigError(
            "the function optimizer returned an optimizer of another model: give it the parameters "
            "of its argument, model.parameters()"
        )


def check_logits(logits: Tensor, x: Tensor) -> None:
    """Raise a ValueError unless `logits` are (B, T, V), for the tokens `x`, (B, T)."""
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != x.shape:
        shape = tuple(getattr(logits, "shape", ()))
        raise ValueError(
            f"the model returned a {type(logits).__name__} of shape {shape} for tokens of shape "
            f"{tuple(x.shape)}, it should return a tensor of logits, (B, T, V)"
        )
