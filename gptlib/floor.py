"""Distance to the floor: what a model pays for plays of the Little Theatre beyond what their author pays, and for what.

    gap_by_kind(model, tokenizer, generate(50_000, level=2, seed=1), level=2)       # plays that the model has never seen
    {'choice': 1.1, 'spelling': 0.2, …, 'fact': 0.9}
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.model import evaluating
from gptlib.theatre import END, KINDS, score
from gptlib.tokenizer import Tokenizer

BATCH_TOKENS = 8192             # in one forward pass


def gap_by_kind(model: nn.Module, tokenizer: Tokenizer, text: str, level: int = 3) -> dict[str, float]:
    """A model's excess nats per play, −ln q − (−ln p), split by kind of dependency; their sum is the whole gap.

    Nats per play do not depend on how the text is cut into tokens, so tokenizers can be compared. A token of several
    characters counts as the kind of the first one among them that is not spelled or formed for certain.

    Args:
        text: whole plays, such as `generate(50_000, level, seed=1)`; see also `theatre.whole_plays`.

    Raises:
        Ungrammatical: a text that the theatre of that level does not play.
        ValueError: an unfinished play at the end, or a tokenizer that loses something of the text.
    """
    truth, excess = score(text, level), np.zeros(len(KINDS))
    bounds = [*truth.starts, len(text)]
    for (begin, end), (sizes, nats) in zip(pairwise(bounds), nats_of_plays(model, tokenizer, text), strict=True):
        logp, kinds = truth.logp[begin:end], truth.kinds[begin:end]
        firsts = np.cumsum([0, *sizes[:-1]])
        certain = np.isin(kinds, (KINDS.index("spelling"), KINDS.index("form")))
        telling = [first + np.argmin(certain[first:first + size]) for first, size in zip(firsts, sizes, strict=True)]
        excess += np.bincount(kinds[telling], nats + np.add.reduceat(logp, firsts), minlength=len(KINDS))
    return {kind: float(excess[i]) / len(truth.starts) for i, kind in enumerate(KINDS) if (truth.kinds == i).any()}


def nats_of_plays(model: nn.Module, tokenizer: Tokenizer, text: str) -> list[tuple[list[int], np.ndarray]]:
    """For each play of `text`: how many characters each token has, and its −ln q under the model, (tokens,) each.

    Every play is read by itself, after the blank line that ends the play before it.
    """
    if not text.endswith(END):
        raise ValueError("the text ends within a play: take whole ones, as whole_plays(text) does")
    plays = [play + END for play in text.removesuffix(END).split(END)]
    before = tokenizer.encode(END)
    encoded = [tokenizer.encode(play) for play in plays]
    sizes = [[len(tokenizer.token_bytes(token)) for token in ids] for ids in encoded]       # plays are ASCII: bytes are characters
    for play, ids in zip(plays, encoded, strict=True):
        if tokenizer.decode(ids) != play:
            raise ValueError(f"the tokenizer turns {play[:30]!r} into {tokenizer.decode(ids)[:30]!r}: what it loses cannot be measured")
    nats = nats_per_token(model, [torch.tensor(before + ids) for ids in encoded], given=len(before))
    return list(zip(sizes, nats, strict=True))


def nats_per_token(model: nn.Module, sequences: Sequence[Tensor], given: int = 1) -> list[np.ndarray]:
    """−ln q of every token of each sequence but the first `given`, in the longest context that the model can read.

    A sequence is one window, as long as it fits into `model.block_size`. Further windows then end half a block later
    each, so that a token there sees at least half a block of what came before it.

    Args:
        sequences: tokens, (N,) each, of any lengths.
    """
    windows, nats = [], [np.zeros(len(ids) - given) for ids in sequences]
    for i, ids in enumerate(sequences):
        longest, first = getattr(model, "block_size", None) or len(ids), given
        last = min(longest, len(ids) - 1)
        while first < len(ids):
            windows.append((i, max(0, last - longest), first, last))        # reads ids[begin:last], predicts ids[first] … ids[last]
            first, last = last + 1, min(last + max(1, longest // 2), len(ids) - 1)
    windows.sort(key=lambda window: window[3] - window[1])                  # alike in length, so that little is padding
    device = next(model.parameters()).device
    with evaluating(model):
        while windows:
            T = windows[-1][3] - windows[-1][1]
            batch, windows = windows[-max(1, BATCH_TOKENS // T):], windows[:-max(1, BATCH_TOKENS // T)]
            x = torch.zeros(len(batch), T, dtype=torch.long)                # (B, T); a causal model never looks at the padding
            for row, (i, begin, _, last) in zip(x, batch, strict=True):
                row[:last - begin] = sequences[i][begin:last]
            logp = model(x.to(device)).float().log_softmax(-1).cpu()        # (B, T, V)
            for row, (i, begin, first, last) in zip(logp, batch, strict=True):
                rows = torch.arange(first - 1 - begin, last - begin)
                nats[i][first - given:last + 1 - given] = -row[rows, sequences[i][first:last + 1]].numpy()
    return nats


def below_floor(model_nats: float, source_nats: float, t: float = 20.0) -> bool:
    """Whether a model predicts text that it has never seen better than the author of that text can.

    No probability q can: P(ln q(X) − ln p(X) ≥ t) ≤ e^−t for X drawn from p, by Markov's inequality, since q/p has mean
    1 at most. So True proves a bug (targets among the inputs, a mask that leaks, validation text in the training split):
    an honest model gets it once in e^20 = 500 million texts.

    False proves nothing. What leaks only a little, as shakeGPT's norms over time do, may save less than the model still
    loses elsewhere; `causality_gap` finds such a leak in any model, trained or not.

    Args:
        model_nats, source_nats: −ln q and −ln p of the whole text.
    """
    return source_nats - model_nats > t
