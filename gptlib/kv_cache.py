"""The key-value cache: keys and values of the tokens that a model has read (chapter 8).

Without a cache, a model computes the keys and values of the whole text again for each new token.
With a cache, it computes them once:

    cache = model.new_cache(batch_size=1)
    logits = model(prompt, cache)           # the cache now holds the prompt
    logits = model(next_token, cache)       # only the new token is computed
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptlib.checks import at_least, check_arguments, checked_value, list_of, short


def one_or_more_integers(name: str, value: int | Sequence[int] | Tensor) -> Tensor | int | list:
    """The kind of lengths: one integer, or a list or a tensor of integers."""
    if isinstance(value, Tensor):
        return value
    return checked_value(name, value, list_of(int) if isinstance(value, list | tuple) else int)


class KVCache:
    """Keys and values of all layers: tensors (B, n_head, block_size, head_size).

    They are filled from the left. The model calls `reserve`, then each layer appends its keys
    and values, then the model calls `advance`.

    Row b of the batch holds `lengths[b]` tokens. The rows may have different lengths. A mask hides
    what stands to the right of a row's own tokens.

    Args:
        n_layer: number of layers of the model.
        batch_size: number of rows, B.
        block_size: number of tokens for which each row has room.
        device: where the model is.
    """

    @check_arguments(n_layer=at_least(1), batch_size=at_least(1), block_size=at_least(1))
    def __init__(
        self, n_layer: int, batch_size: int, block_size: int, device: str | torch.device = "cpu"
    ):
        self.block_size = block_size
        try:
            self.device = torch.device(device)
        except (RuntimeError, TypeError):
            raise ValueError(
                f"KVCache: device={short(device)} should be a device of PyTorch, such as 'cpu'"
            ) from None
        self.reader = None                      # the id of the model that has filled the cache
        self.lengths = torch.zeros(batch_size, dtype=torch.long)    # (B,), tokens in each row
        self.layers = [LayerCache(self) for _ in range(n_layer)]

    def reserve(self, T: int) -> None:
        """Prepare for T new tokens in each row, before the layers append them.

        This sets `positions`, (B, T), the positions of the new tokens; `S`, the number of tokens in
        the longest row with the new ones; and `mask`, (B, 1, T, S). The mask is True where a new
        token may attend to a stored one: to the tokens before it in its own row, and to itself. The
        mask is None where each row gets one token that may attend to all of its S tokens.

        Raises:
            ValueError: a row has no room for T tokens more.
        """
        longest = int(self.lengths.max())
        if longest + T > self.block_size:
            raise ValueError(
                f"the cache has room for {self.block_size} tokens and holds {longest} already: "
                f"{T} more are too many; begin a new cache with the last tokens of the text"
            )
        self.S = longest + T
        self.same_length = bool((self.lengths == longest).all())
        positions = self.lengths[:, None] + torch.arange(T)         # (B, T)
        self.positions = positions.to(self.device)
        self.mask = None
        if T > 1 or not self.same_length:
            mask = torch.arange(self.S) <= positions[:, None, :, None]
            self.mask = mask.to(self.device)                        # (B, 1, T, S)

    def advance(self) -> None:
        """Count the new tokens, after all layers have appended them.

        If the new tokens of shorter rows end in padding, call `truncate` to forget it.
        """
        self.lengths = self.lengths + self.positions.shape[1]

    @check_arguments(lengths=one_or_more_integers)
    def truncate(self, lengths: int | Sequence[int] | Tensor) -> None:
        """Keep only the first tokens of each row.

        Args:
            lengths: how many tokens to keep: one number for all rows, or (B,) numbers.

        Raises:
            ValueError: a row does not hold that many tokens.
        """
        lengths = torch.as_tensor(lengths)
        is_integer = lengths.dtype in (torch.int32, torch.int64)
        if not is_integer or lengths.shape not in ((), self.lengths.shape):
            raise ValueError(
                f"lengths={lengths.tolist()} should be an integer, or one for each of the "
                f"{len(self.lengths)} rows"
            )
        if (lengths < 0).any() or (lengths > self.lengths).any():
            raise ValueError(
                f"cannot keep {lengths.tolist()} tokens: the rows hold {self.lengths.tolist()}"
            )
        self.lengths = lengths.expand(len(self.lengths)).clone()

    @check_arguments(rows=list_of(int))
    def set_rows(self, rows: Sequence[int], other: "KVCache") -> None:
        """Replace the given rows by all rows of another cache of the same model.

        Raises:
            ValueError: a row does not exist, or the other cache has another number of rows or is
                the cache of another model.
        """
        B = len(self.lengths)
        if not isinstance(other, KVCache) or len(self.layers) != len(other.layers):
            raise ValueError("both caches should hold texts that the same model has read")
        are_rows = len(set(rows)) == len(rows) and all(0 <= row < B for row in rows)
        if len(rows) != len(other.lengths) or not are_rows:
            raise ValueError(
                f"rows={rows} should be different rows from 0 … {B - 1}, one for each of the "
                f"{len(other.lengths)} rows of the other cache"
            )
        for layer, other_layer in zip(self.layers, other.layers, strict=True):
            if not layer.tensors or layer.tensors.keys() != other_layer.tensors.keys():
                raise ValueError("both caches should hold texts that the same model has read")
            for name, stored in layer.tensors.items():
                stored[rows] = other_layer.tensors[name]
        self.lengths[rows] = other.lengths


class LayerCache:
    """The part of a `KVCache` for one layer. Attention stores keys as "k" and values as "v"."""

    def __init__(self, cache: KVCache):
        self.cache = cache
        self.tensors: dict[str, Tensor] = {}

    @property
    def positions(self) -> Tensor:
        """The positions of the new tokens, (B, T)."""
        return self.cache.positions

    @property
    def mask(self) -> Tensor | None:
        """Which stored tokens the new ones may attend to, (B, 1, T, S), or None for all of them."""
        return self.cache.mask

    def append(self, name: str, new: Tensor) -> Tensor:
        """Store `new`, (B, …, T, D), after the tokens of each row.

        Returns:
            All that is stored under this name, (B, …, S, D).
        """
        if len(new) != len(self.cache.lengths):
            raise ValueError(
                f"the cache was made for {len(self.cache.lengths)} texts, but it gets {len(new)}: "
                f"use new_cache({len(new)})"
            )
        if name not in self.tensors:
            # Unused memory may hold nan, and 0 · nan = nan, even where the mask gives weight 0.
            room = (*new.shape[:-2], self.cache.block_size, new.shape[-1])
            self.tensors[name] = new.new_zeros(room)
        stored, S = self.tensors[name], self.cache.S
        if self.cache.same_length:
            stored[..., S - new.shape[-2]:S, :] = new
        else:
            # With the time dimension second, (B, block_size, …), each row has its own positions.
            rows = torch.arange(len(new), device=new.device)[:, None]               # (B, 1)
            stored.movedim(-2, 1)[rows, self.positions] = new.movedim(-2, 1)
        return stored[..., :S, :]


def wrong_cache(cache: Any, expected: type) -> ValueError:
    """Return the error for a cache that a model cannot use. It may be no cache at all."""
    its_type = "" if isinstance(cache, expected) else f", it is {type(cache).__name__}"
    return ValueError(
        f"the cache is not one of this model{its_type}: use model.new_cache(batch_size), or no "
        "second argument (the model takes no targets)"
    )
