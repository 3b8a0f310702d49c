"""From a long row of tokens to batches: split it, cut windows out of it (chapter 1).

>>> ids = torch.arange(100)
>>> train_ids, val_ids = split(ids)
>>> x, y = get_batch(train_ids, block_size=4, batch_size=2, seed=0, step=0)
>>> x
tensor([[73, 74, 75, 76],
        [54, 55, 56, 57]])
>>> y
tensor([[74, 75, 76, 77],
        [55, 56, 57, 58]])
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptlib.checks import (
    at_least,
    between,
    check_arguments,
    checked_value,
    list_of,
    tensor,
    tokens,
)


class DataError(ValueError):
    """A text cannot be used: it cannot be found or read, or it is too short."""


def tokens_or_text(name: str, value: Tensor | str) -> Tensor | str:
    """The kind of what can be split: tokens, (N,), or a text."""
    value = checked_value(name, value, Tensor | str)
    if isinstance(value, Tensor) and value.ndim != 1:
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)}, it should have the shape (N,)"
        )
    return value


def batch_kind(name: str, value: Any) -> list[Tensor]:
    """The kind of a batch: x and y, (B, T) each, and if the model needs one, a document mask."""
    if not isinstance(value, list | tuple) or len(value) not in (2, 3):
        raise ValueError(f"{name} should be a batch: a tuple (x, y) or (x, y, mask)")
    x, y, *_ = batch = list_of(Tensor)(name, value)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"{name} has x of the shape {tuple(x.shape)} and y of the shape {tuple(y.shape)}, both "
            "should have the shape (B, T)"
        )
    if x.numel() == 0:
        raise ValueError(
            f"{name} has x and y of the shape {tuple(x.shape)}, they should hold at least one token"
        )
    if y.dtype != torch.int64:
        raise ValueError(f"{name} has y of {y.dtype}, it should be torch.int64: use y.long()")
    return batch


@check_arguments(DataError, ids=tokens_or_text, val_fraction=between(0.0, 1.0))
def split(ids: Tensor | str, val_fraction: float = 0.1) -> tuple[Tensor, Tensor] | tuple[str, str]:
    """Return the beginning of `ids` for training, and its last `val_fraction` for validation.

    `ids` may be tokens, (N,), or a text.
    """
    n_train = int(len(ids) * (1 - val_fraction))
    return ids[:n_train], ids[n_train:]


@check_arguments(
    DataError, ids=tokens("N"), block_size=at_least(1), batch_size=at_least(1), seed=at_least(0),
    step=at_least(0),
)
def get_batch(
    ids: Tensor, block_size: int, batch_size: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return random windows of `ids`, and for each position the token that follows it.

    The same `seed` and `step` always give the same windows.

    Args:
        ids: tokens, (N,), with N > block_size.

    Returns:
        x and y, (batch_size, block_size) each. y[:, t] is the token after x[:, t]. They share
        memory: copy y before you change it.

    Raises:
        DataError: `ids` has too few tokens.
    """
    check_length(ids, block_size)
    generator = np.random.default_rng((seed, step))
    starts = torch.from_numpy(generator.integers(len(ids) - block_size, size=batch_size))
    # (B, 1) + (T + 1,): row b holds the positions of window b and of one more token.
    positions = starts[:, None] + torch.arange(block_size + 1)          # (B, T + 1)
    windows = ids[positions]
    return windows[:, :-1], windows[:, 1:]


@check_arguments(DataError, ids=tokens("N"), block_size=at_least(1), batch_size=at_least(1))
def fixed_windows(
    ids: Tensor, block_size: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (x, y) of windows that stand side by side.

    A target is a token that the model has to predict. Every token but the first is a target exactly
    once. The tokens after the last whole window form a shorter window, in a batch of its own.
    """
    check_length(ids, block_size)
    n = (len(ids) - 1) // block_size                                    # whole windows
    end = n * block_size
    x = ids[:end].view(n, block_size)
    y = ids[1:end + 1].view(n, block_size)
    yield from zip(x.split(batch_size), y.split(batch_size), strict=True)
    if end < len(ids) - 1:
        yield ids[None, end:-1], ids[None, end + 1:]


@check_arguments(DataError, ids=tokens("N"), block_size=at_least(1), name=str)
def check_length(ids: Tensor, block_size: int, name: str = "text") -> None:
    """Raise a DataError unless `ids` has block_size + 1 tokens: a window, and one more target."""
    if len(ids) <= block_size:
        raise DataError(
            f"the {name} has {len(ids):,} tokens, but windows of block_size={block_size} need at "
            f"least {block_size + 1:,}: take a longer text or a smaller block_size"
        )


@check_arguments(DataError, documents=tensor("B, T"))
def document_mask(documents: Tensor) -> Tensor:
    """Return an attention mask for windows that hold several documents, (B, 1, T, T).

    The mask is True where a token may attend to another one: to itself, and to earlier tokens of
    the same document. The second dimension is for the heads.

    Args:
        documents: for each token the index of its document, (B, T).

    >>> document_mask(torch.tensor([[0, 0, 1]])).int()
    tensor([[[[1, 0, 0],
              [1, 1, 0],
              [0, 0, 1]]]], dtype=torch.int32)
    """
    if (documents != documents).any():
        raise DataError("documents has nan: give the index of its document for each token")
    same_document = documents[:, :, None] == documents[:, None, :]      # (B, T, T)
    return same_document.tril()[:, None]


def check_ids(ids: Tensor, vocab_size: int, on_meta: bool = False) -> None:
    """Raise a ValueError unless all `ids` are integers from 0 to vocab_size - 1.

    Args:
        on_meta: whether the model is on the device "meta". Then the ids may be there, too.
    """
    # Inside torch.compile, and on the device "meta", tensors have no values to check.
    if torch.compiler.is_compiling():
        return
    if not isinstance(ids, Tensor):
        raise ValueError(
            f"token ids should be a torch.Tensor, not {type(ids).__name__}: use torch.tensor(ids)"
        )
    if ids.is_meta and not on_meta:
        raise ValueError("token ids are on the device 'meta', where tensors have no numbers")
    if ids.is_meta or ids.numel() == 0:
        return
    if ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"token ids should be torch.int64, not {ids.dtype}: use ids.long()")
    lowest, highest = ids.min().item(), ids.max().item()
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"token ids run from {lowest} to {highest}, but the model knows 0 … {vocab_size - 1}: "
            "was the text encoded by another tokenizer?"
        )
