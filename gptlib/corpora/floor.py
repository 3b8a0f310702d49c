"""Distance to the floor: how much worse a model predicts plays than their author does, and why.

The author of the Little Theatre (theatre.py) knows the true probability p of every character. The
mean of -ln p is the floor: no model has a lower mean loss on unseen plays. A model with the
probabilities q pays -ln q. The difference, -ln q - (-ln p), is the model's excess over the floor.
`gap_by_kind` sorts it by kind: how much of it is spelling, how much is whose turn it is, and so on.

    unseen = generate(50_000, level=2, seed=1)
    gap_by_kind(model, tokenizer, unseen, level=2)
    {'choice': 1.1, 'spelling': 0.2, …, 'fact': 0.9}        # nats per play

`below_floor` finds bugs: a model that is better than the floor has seen its targets.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.checks import at_least, check_arguments, list_of, tokens, trainable
from gptlib.corpora.theatre import END, KINDS, level_kind, score
from gptlib.model import evaluating
from gptlib.tokenizer import Tokenizer, any_tokenizer

# The most tokens of one forward pass.
BATCH_TOKENS = 8192


@check_arguments(model=trainable, tokenizer=any_tokenizer, text=str, level=level_kind)
def gap_by_kind(
    model: nn.Module, tokenizer: Tokenizer, text: str, level: int = 3
) -> dict[str, float]:
    """Return a model's excess over the floor for each kind of character, in nats per play.

    The sum over the kinds is the whole excess. Nats per play do not depend on how a text is split
    into tokens, so models with different tokenizers can be compared. A token of several characters
    belongs to the kind of its first character that is neither "spelling" nor "form". If it has
    none, it belongs to the kind of its first character.

    Args:
        text: whole plays, such as `generate(50_000, level, seed=1)`. See `theatre.whole_plays`.

    Raises:
        Ungrammatical: the text is not made of plays of that level.
        ValueError: the last play is unfinished, or the tokenizer loses a part of the text.
    """
    truth = score(text, level)
    excess = np.zeros(len(KINDS))
    bounds = pairwise([*truth.starts, len(text)])
    model_nats = nats_of_plays(model, tokenizer, text)
    for (begin, end), (sizes, nats) in zip(bounds, model_nats, strict=True):
        # The index of each token's first character, within the play.
        firsts = np.cumsum([0, *sizes[:-1]])
        token_kinds = _kinds_of_tokens(truth.kinds[begin:end], firsts, sizes)
        author_logp = np.add.reduceat(truth.logp[begin:end], firsts)
        excess += np.bincount(token_kinds, nats + author_logp, minlength=len(KINDS))
    return {
        kind: float(excess[i]) / len(truth.starts)
        for i, kind in enumerate(KINDS)
        if (truth.kinds == i).any()
    }


def _kinds_of_tokens(kinds: np.ndarray, firsts: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """Return the kind of each token, from the kinds of its characters."""
    is_certain = np.isin(kinds, (KINDS.index("spelling"), KINDS.index("form")))
    chosen = []
    for first, size in zip(firsts, sizes, strict=True):
        # argmin finds the first False. If all are True, it returns 0.
        chosen.append(first + np.argmin(is_certain[first:first + size]))
    return kinds[chosen]


@check_arguments(model=trainable, tokenizer=any_tokenizer, text=str)
def nats_of_plays(
    model: nn.Module, tokenizer: Tokenizer, text: str
) -> list[tuple[list[int], np.ndarray]]:
    """Return for each play of `text` the number of characters and the -ln q of each token.

    The model reads each play alone, after the empty line that ends the play before it.

    Returns:
        (sizes, nats) for each play: a list of ints and an array, with one entry per token.
    """
    if not text.endswith(END):
        raise ValueError(
            "the text ends within a play: take whole plays only, as whole_plays(text) does"
        )
    plays = [play + END for play in text.removesuffix(END).split(END)]
    before = tokenizer.encode(END)
    encoded = [_encode_exactly(tokenizer, play) for play in plays]
    # Plays are ASCII, so a token has as many characters as bytes.
    sizes = [[len(tokenizer.token_bytes(token)) for token in ids] for ids in encoded]
    sequences = [torch.tensor(before + ids) for ids in encoded]
    nats = nats_per_token(model, sequences, given=len(before))
    return list(zip(sizes, nats, strict=True))


def _encode_exactly(tokenizer: Tokenizer, play: str) -> list[int]:
    """Return the ids of `play`, or raise a ValueError if they decode to another text."""
    ids = tokenizer.encode(play)
    decoded = tokenizer.decode(ids)
    if decoded != play:
        raise ValueError(
            f"the tokenizer turns {play[:30]!r} into {decoded[:30]!r}: take a tokenizer that keeps "
            "every character"
        )
    return ids


class _Window(NamedTuple):
    """A part of a sequence for one row of a batch.

    The model reads the tokens begin … last - 1. Of its predictions, those of the tokens
    first … last are used. The tokens before `first` are only context.
    """

    sequence: int           # index of the sequence
    begin: int
    first: int
    last: int

    @property
    def length(self) -> int:
        """Return how many tokens the model reads."""
        return self.last - self.begin


@check_arguments(model=trainable, sequences=list_of(tokens("N")), given=at_least(1))
def nats_per_token(
    model: nn.Module, sequences: Sequence[Tensor], given: int = 1
) -> list[np.ndarray]:
    """Return -ln q of every token of each sequence, except for the first `given` tokens.

    A sequence that fits into `model.block_size` is one window. A longer one has more windows, each
    of which ends half a block later, so that its tokens still have at least half a block of
    context.

    Args:
        sequences: tokens, (N,) each. Their lengths may differ.

    Returns:
        an array of N - given numbers for each sequence.
    """
    if any(len(ids) < given for ids in sequences):
        raise ValueError(f"each of the sequences should have at least given={given} tokens")
    if given > getattr(model, "block_size", given):
        raise ValueError(f"given={given} should be at most block_size={model.block_size}")
    nats = [np.zeros(len(ids) - given) for ids in sequences]
    windows = []
    for i, ids in enumerate(sequences):
        block_size = getattr(model, "block_size", None) or len(ids)
        windows += _split_into_windows(i, len(ids), given, block_size)
    with evaluating(model):
        for batch in _batches(windows):
            for window, losses in _losses_of_batch(model, sequences, batch):
                nats[window.sequence][window.first - given:window.last + 1 - given] = losses
    return nats


def _split_into_windows(sequence: int, n: int, given: int, block_size: int) -> list[_Window]:
    """Return windows in which each of the tokens given … n - 1 is predicted once."""
    windows = []
    first = given
    last = min(block_size, n - 1)
    while first < n:
        windows.append(_Window(sequence, max(0, last - block_size), first, last))
        first = last + 1
        last = min(last + max(1, block_size // 2), n - 1)
    return windows


def _batches(windows: list[_Window]) -> list[list[_Window]]:
    """Return batches of windows of similar length, so that they need little padding."""
    windows = sorted(windows, key=lambda window: window.length)
    batches = []
    while windows:
        size = max(1, BATCH_TOKENS // windows[-1].length)
        batches.append(windows[-size:])
        windows = windows[:-size]
    return batches


def _losses_of_batch(
    model: nn.Module, sequences: Sequence[Tensor], batch: list[_Window]
) -> Iterator[tuple[_Window, np.ndarray]]:
    """Yield each window of the batch, and -ln q of the tokens that it predicts."""
    # Short rows are padded with zeros at their ends. A causal model's predictions do not see them.
    x = torch.zeros(len(batch), batch[-1].length, dtype=torch.long)         # (B, T)
    for row, window in zip(x, batch, strict=True):
        row[:window.length] = sequences[window.sequence][window.begin:window.last]
    device = next(model.parameters()).device
    logp = model(x.to(device)).float().log_softmax(-1).cpu()                # (B, T, V)
    for row, window in zip(logp, batch, strict=True):
        targets = sequences[window.sequence][window.first:window.last + 1]
        # A token is predicted at the position of the token before it.
        positions = torch.arange(window.first - 1, window.last) - window.begin
        yield window, -row[positions, targets].numpy()


@check_arguments(model_nats=float, source_nats=float, t=at_least(0.0))
def below_floor(model_nats: float, source_nats: float, t: float = 20.0) -> bool:
    """Return whether a model predicts an unseen text more than `t` nats better than its author.

    True proves a bug: the inputs contain the targets, a mask leaks, or the validation text is part
    of the training text. Proof: let X be a text drawn from the author's probabilities p. For any
    probabilities q the mean of q(X) / p(X) is at most 1. By Markov's inequality
    P(ln q(X) - ln p(X) >= t) <= exp(-t). For t = 20 a model without a bug gets True once in
    e^20 = 500 million texts.

    False proves nothing. A small leak may save less than the model still loses elsewhere. An
    example is shakeGPT, whose norms average over time. `causality_gap` in model.py finds such a
    leak in any model, trained or not.

    Args:
        model_nats: -ln q of the whole text.
        source_nats: -ln p of the whole text.
        t: how many nats better the model must be.
    """
    return source_nats - model_nats > t
