"""Checks of arguments, so that the bodies of functions stay free of checks.

>>> @check_arguments(width=at_least(1), title=optional(str))
... def draw_line(width, title=None):
...     return "-" * width
>>> draw_line(3.0)                  # 3.0 becomes 3, because this loses nothing
'---'
>>> draw_line(width=0)
Traceback (most recent call last):
    ...
ValueError: draw_line: width=0 should be at least 1

A kind says which values an argument may have. It is one of these:

- a type, such as int, or several types, such as str | Path
- a tuple of choices, such as ("auto", "never"), or a Literal
- a function (name, value) -> value, which returns the value or raises a ValueError. Many of the
  functions below make such functions, such as `at_least(1)` or `optional(str)`.
"""

import functools
import inspect
import math
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

# Shortens long values in errors, such as the text of a whole book.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def check_arguments(error_class: type = ValueError, /, **kinds: Any) -> Callable:
    """Return a decorator that checks arguments by name, before the function is called.

    Defaults are not checked. An argument gets its kind's type where this loses nothing: a numpy
    number becomes a Python number, and 1000.0 becomes 1000 where an integer is expected.

    Args:
        error_class: the class of the errors, a subclass of ValueError.
        kinds: the kind of each argument that is checked.
    """
    def decorate(function):
        parameters = list(inspect.signature(function).parameters)
        checks = [(parameters.index(name), name, kind) for name, kind in kinds.items()]
        # The error of a constructor begins with the name of its class.
        label = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked_function(*args, **kwargs):
            args = list(args)
            try:
                for position, name, kind in checks:
                    if position < len(args):
                        args[position] = checked_value(name, args[position], kind)
                    elif name in kwargs:
                        kwargs[name] = checked_value(name, kwargs[name], kind)
            except ValueError as error:
                raise error_class(f"{label}: {error}") from None
            try:
                return function(*args, **kwargs)
            except (MemoryError, RuntimeError, ValueError) as error:
                if not is_out_of_memory(error):
                    raise
                raise MemoryError(
                    f"{label}: the memory of this machine is too small for these arguments: choose "
                    "smaller numbers"
                ) from None

        return checked_function

    return decorate


def is_out_of_memory(error: Exception) -> bool:
    """Return whether numpy, Python or PyTorch had too little memory of the CPU."""
    # PyTorch has no class of its own for this error.
    words = "DefaultCPUAllocator|Storage size calculation|Overflow when unpacking|array is too big"
    return isinstance(error, MemoryError) or re.search(words, str(error)) is not None


def checked_value(name: str, value: Any, kind: Any) -> Any:
    """Return `value`, converted where that loses nothing.

    Raises:
        ValueError: the value does not fit its kind. The message begins with the name.
    """
    # The usual case first, because functions such as `get_batch` are called in each step.
    if type(value) is kind and kind is not float:
        return value
    if isinstance(kind, types.FunctionType):
        return kind(name, value)
    if typing.get_origin(kind) is Literal:
        kind = typing.get_args(kind)
    # A number of numpy, or a tensor that holds a single number.
    if getattr(value, "ndim", None) == 0 and (kind in (int, float, str) or type(kind) is tuple):
        value = value.item()
    if isinstance(kind, tuple):
        # The types are compared too, because True == 1 in Python.
        if not any(type(value) is type(choice) and value == choice for choice in kind):
            raise ValueError(f"{name}={short(value)} should be one of {', '.join(map(repr, kind))}")
        return value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and type(value) is int:
        return float(value)
    # In Python a bool is also an int, but True is not a number of steps.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = name_of_kind(kind)
        if type(value).__name__ == expected:
            # numpy and torch have classes of the same name, such as Generator.
            expected = f"{kind.__module__}.{expected}, not one of {type(value).__module__}"
        raise wrong_type(name, value, expected)
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name}={value!r} should be a finite number")
    return value


def wrong_type(name: str, value: Any, expected: str) -> ValueError:
    """Return the error about a value of the wrong type."""
    return ValueError(f"{name}={short(value)} is {type(value).__name__}, it should be {expected}")


def short(value: Any) -> str:
    """Return a value as one short line."""
    return " ".join(_SHORT.repr(value).split())


def name_of_kind(kind: Any) -> str:
    """Return the name of a type, or of several types.

    >>> name_of_kind(int), name_of_kind(str | dict)
    ('int', 'str or dict')
    """
    return " or ".join(part.__name__ for part in typing.get_args(kind) or [kind])


# Kinds for numbers --------------------------------------------------------------------------------

@check_arguments(limit=int | float)
def at_least(limit: int | float) -> Callable:
    """Return the kind for numbers x of the type of `limit`, with x >= limit."""
    def check(name, value):
        value = checked_value(name, value, type(limit))
        if value < limit:
            raise ValueError(f"{name}={value!r} should be at least {limit}")
        return value
    return check


@check_arguments(limit=int | float)
def above(limit: int | float) -> Callable:
    """Return the kind for numbers x of the type of `limit`, with x > limit."""
    def check(name, value):
        value = checked_value(name, value, type(limit))
        if value <= limit:
            raise ValueError(f"{name}={value!r} should be above {limit}")
        return value
    return check


@check_arguments(lowest=int | float, highest=int | float)
def between(lowest: int | float, highest: int | float) -> Callable:
    """Return the kind for numbers x of the type of the limits, with lowest <= x <= highest."""
    def check(name, value):
        value = checked_value(name, value, type(lowest))
        if not lowest <= value <= highest:
            raise ValueError(f"{name}={value!r} should be between {lowest:g} and {highest:g}")
        return value
    return check


# Kinds made of other kinds ------------------------------------------------------------------------

def optional(kind: Any) -> Callable:
    """Return the kind for None and for the values of `kind`."""
    def check(name, value):
        if value is None:
            return None
        try:
            return checked_value(name, value, kind)
        except ValueError as error:
            raise ValueError(f"{error}, or None") from None
    return check


def several(name: str, value: Any) -> Any:
    """The kind for lists and for everything else with several values. A string is one value."""
    is_single = isinstance(value, str | bytes) or getattr(value, "ndim", None) == 0
    is_single = is_single or getattr(value, "is_meta", False)
    if is_single or not hasattr(value, "__iter__"):
        raise wrong_type(name, value, "a list")
    return value


def list_of(kind: Any) -> Callable:
    """Return the kind for lists of values of `kind`. A tuple or a set becomes a list."""
    def check(name, value):
        parts = enumerate(several(name, value))
        return [checked_value(f"{name}[{i}]", part, kind) for i, part in parts]
    return check


def dict_of(key_kind: Any, value_kind: Any) -> Callable:
    """Return the kind for dicts from keys of one kind to values of another kind."""
    def check(name, value):
        value = checked_value(name, value, Mapping)
        return {
            checked_value(f"a key of {name}", key, key_kind):
            checked_value(f"{name}[{key!r}]", part, value_kind)
            for key, part in value.items()
        }
    return check


def dict_with(*keys: str) -> Callable:
    """Return the kind for dicts that have these keys."""
    def check(name, value):
        value = checked_value(name, value, Mapping)
        for key in keys:
            if key not in value:
                raise ValueError(f"{name}={short(value)} should have the key {key!r}")
        return value
    return check


# Kinds for functions, files and models ------------------------------------------------------------

def function(name: str, value: Any) -> Callable:
    """The kind for functions and for everything else that can be called."""
    if not callable(value):
        raise wrong_type(name, value, "a function")
    return value


def function_of(*arguments: str) -> Callable:
    """Return the kind for functions that can be called with these arguments, in this order."""
    def check(name, value):
        value = function(name, value)
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):
            return value            # a function written in C may have no signature
        try:
            signature.bind(*arguments)
        except TypeError:
            raise ValueError(
                f"{name} should be a function with the arguments ({', '.join(arguments)})"
            ) from None
        return value
    return check


def any_path(name: str, value: str | Path) -> str | Path:
    """The kind for the path of a file or a folder, which may be missing."""
    value = checked_value(name, value, str | Path)
    parts = Path(value).parts
    if parts[:1] == ("~",):
        raise ValueError(
            f"{name}={str(value)!r} begins with ~, which Python does not replace by your home "
            f"folder: write {str(Path.home().joinpath(*parts[1:]))!r}"
        )
    if "\0" in str(value) or not is_unicode(str(value)):
        raise ValueError(f"{name}={str(value)!r} has a character that no path may contain")
    return value


def some_path(name: str, value: str | Path) -> str | Path:
    """The kind for the path of a folder. Path("") would be the working directory."""
    if isinstance(value, str) and not value:
        raise ValueError(f"{name}='' should name a folder, such as 'runs'")
    return any_path(name, value)


def is_unicode(text: str) -> bool:
    """Return whether utf-8 can encode `text`. It cannot encode half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def class_of_part(name: str, value: Any) -> Callable:
    """The kind for the class of a part of a model, or a function that makes the part."""
    if isinstance(value, nn.Module):
        raise ValueError(f"{name} is a {type(value).__name__} already, it should be the class")
    value = function(name, value)
    if isinstance(value, type) and issubclass(value, nn.Module):
        return value

    def make_part(*args, **kwargs):
        part = value(*args, **kwargs)
        if not isinstance(part, nn.Module):
            raise ValueError(
                f"{name} returned {short(part)}, it should return a part of a model, an nn.Module"
            )
        return part

    return make_part


def existing_file(name: str, value: str | Path) -> Path:
    """The kind for the path of a file that can be read."""
    path = Path(any_path(name, value))
    # For a name that is too long, os.path answers False. pathlib would raise an OSError.
    if not os.path.isfile(path):
        raise ValueError(f"{name}={short(str(value))} should be an existing file")
    return path


def new_file(name: str, value: str | Path) -> Path:
    """The kind for the path of a file that can be written. It may exist, its folder must exist."""
    path = Path(any_path(name, value))
    is_no_file = os.path.exists(path) and not os.path.isfile(path)
    if is_no_file or not os.path.isdir(path.parent):
        raise ValueError(f"{name}={str(value)!r} should be a file in an existing folder")
    return path


def model_with_numbers(name: str, value: Any) -> nn.Module:
    """The kind for models whose weights are numbers. On the device "meta" they have none."""
    value = checked_value(name, value, nn.Module)
    if any(weight.is_meta for weight in chain(value.parameters(), value.buffers())):
        raise ValueError(
            f"{name} is on the device 'meta', where weights have no numbers: make it on the CPU"
        )
    return value


def trainable(name: str, value: Any) -> nn.Module:
    """The kind for models that have at least one parameter."""
    value = model_with_numbers(name, value)
    if next(value.parameters(), None) is None:
        raise ValueError(f"{name} is a {type(value).__name__} without parameters")
    return value


# Kinds for tensors --------------------------------------------------------------------------------

def check_vocabulary(model: nn.Module, tokenizer: Any, error_class: type = ValueError) -> None:
    """Raise an error if the tokenizer has more tokens than the model knows."""
    config = model.config_dict() if hasattr(model, "config_dict") else {}
    vocab_size = config.get("vocab_size")
    if vocab_size and tokenizer.vocab_size > vocab_size:
        raise error_class(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model knows only "
            f"vocab_size={vocab_size}: give the tokenizer that encoded the text"
        )


def tensor(shape: str) -> Callable:
    """Return the kind for tensors of a shape, such as "B, T". Equal letters mean equal sizes."""
    letters = shape.split(", ")
    written = f"({shape},)" if len(letters) == 1 else f"({shape})"

    def check(name, value):
        if not isinstance(value, Tensor):
            raise wrong_type(name, value, f"a torch.Tensor of shape {written}")
        if value.is_meta or value.is_complex():
            raise ValueError(
                f"{name} is {value.dtype} on the device {value.device.type!r}, it should hold real "
                "numbers"
            )
        sizes = dict(zip(letters, value.shape, strict=False))
        if value.ndim != len(letters) or [sizes[letter] for letter in letters] != [*value.shape]:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)}, it should have the shape {written}"
            )
        return value
    return check


def tokens(shape: str) -> Callable:
    """Return the kind for tensors of token ids. Their dtype becomes torch.int64."""
    check_shape = tensor(shape)

    def check(name, value):
        value = check_shape(name, value)
        if value.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"{name} should be torch.int64, not {value.dtype}: use {name}.long()"
            )
        return value.long()
    return check
