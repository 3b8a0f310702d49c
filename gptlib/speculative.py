"""Speculative decoding: a small model proposes tokens, and the large model checks them (chapter 8).

The small model, called the draft, proposes a few tokens, one after the other. The large model reads
all of them in one call. Each proposed token is accepted or replaced in such a way that the text has
exactly the distribution of the large model (Leviathan et al. 2023, Chen et al. 2023).

One token, by hand. p is the distribution of the large model, q is that of the draft:

>>> import torch
>>> p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.5, 0.3])
>>> accepted = (p / q).clamp(max=1)         # the probability to accept each token
>>> accepted
tensor([1.0000, 0.6000, 0.3333])
>>> residual(p, q)                          # a rejected token is replaced by a draw from this
tensor([1., 0., 0.])
>>> q * accepted + (1 - (q * accepted).sum()) * residual(p, q)      # together that is p
tensor([0.6000, 0.3000, 0.1000])
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.checks import at_least, check_arguments, model_with_numbers, optional, tokens
from gptlib.generate import SAMPLING, next_token_probabilities, pick
from gptlib.model import evaluating


@dataclass(frozen=True)
class SpeculativeResult:
    """A text from `generate_speculative`, and how it was made.

    Attributes:
        idx: the prompt with its new tokens, (1, T + max_new_tokens).
        accepted: for each new token whether the draft proposed it, (max_new_tokens,) booleans.
        n_drafted: how many tokens the draft has proposed.
        n_calls: how many times the large model was called.
    """

    idx: Tensor
    accepted: Tensor
    n_drafted: int
    n_calls: int


@check_arguments(
    model=model_with_numbers, draft=model_with_numbers, idx=tokens("B, T"),
    max_new_tokens=at_least(0), n_draft=at_least(0), seed=optional(at_least(0)), **SAMPLING,
)
def generate_speculative(
    model: nn.Module,
    draft: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    n_draft: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
) -> SpeculativeResult:
    """Continue one text with the distribution of `generate`, in fewer calls of the model.

    At temperature 0 the tokens are those of `generate`. At other temperatures the same seed gives
    another text than `generate`, because the random numbers are used differently.

    Args:
        model: the large model. It needs a cache with `truncate`, such as that of `GPT`.
        draft: a cheaper model with the same vocabulary, such as a bigram. It has no cache, and
            reads the window of the large model again for each token that it proposes.
        idx: the prompt, (1, T).
        n_draft: how many tokens the draft proposes at a time.
        temperature, top_k, top_p, min_p: see `next_token_probabilities`. They change the
            distributions of both models.
        seed: the same seed gives the same text. None: a new seed.
    """
    check_models(model, draft, idx)
    generator = np.random.default_rng(seed)
    window = CachedWindow(model)
    accepted, n_drafted, n_calls = [], 0, 0
    with evaluating(model), evaluating(draft), torch.inference_mode():
        while len(accepted) < max_new_tokens:
            window.move(idx)
            # The proposals have to fit into the window. One more token always comes after them.
            room = min(window.size - len(window.tokens), max_new_tokens - len(accepted) - 1)
            drafted, q = [], []
            for _ in range(min(n_draft, room)):
                read = torch.cat([window.tokens, *drafted])[None]
                logits = draft(read[:, -(getattr(draft, "block_size", None) or window.size):])
                q.append(next_token_probabilities(logits[:, -1], temperature, top_k, top_p, min_p))
                drafted.append(pick(q[-1], [generator.random()]))
            logits = window.read(drafted)                               # (n_drafted + 1, V)
            p = next_token_probabilities(logits, temperature, top_k, top_p, min_p)
            n_accepted, token = accept_or_replace(p, q, drafted, generator)
            window.keep(n_accepted)
            idx = torch.cat([idx, *(d[None] for d in drafted[:n_accepted]), token[None]], dim=1)
            accepted += [True] * n_accepted + [False]
            n_drafted += len(drafted)
            n_calls += 1
    return SpeculativeResult(idx, torch.tensor(accepted, dtype=torch.bool), n_drafted, n_calls)


def accept_or_replace(
    p: Tensor, q: Sequence[Tensor], drafted: Sequence[Tensor], generator: np.random.Generator
) -> tuple[int, Tensor]:
    """Accept proposed tokens up to the first that is rejected, and draw the token after them.

    Args:
        p: the large model's distribution at each proposed token, and after the last, (n + 1, V).
        q: the draft's distribution at each proposed token, n tensors (1, V).
        drafted: the proposed tokens, n tensors (1,).

    Returns:
        how many tokens are accepted, and the token after them, (1,). It replaces the rejected
        token. If none is rejected, it is a new one, drawn from the last row of p.
    """
    for i, token in enumerate(drafted):
        # This is true with probability min(1, p / q).
        if generator.random() * q[i][0, token] < p[i, token]:
            continue
        return i, pick(residual(p[i:i + 1], q[i]), [generator.random()])
    return len(drafted), pick(p[-1:], [generator.random()])


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Return the distribution from which a rejected token is replaced, (…, V).

    It is proportional to max(0, p − q): to the probability that the draft gives too rarely.
    """
    missing = (p - q).clamp(min=0)
    total = missing.sum(-1, keepdim=True)
    # If p = q, no token is rejected, except by a rounding error.
    return torch.where(total > 0, missing / total, p)


class CachedWindow:
    """The tokens that the model reads, as in `gptlib.generate.Windows`, for one text.

    Proposed tokens are read into the cache too. Those that were rejected are forgotten again.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.size = model.block_size
        self.start = None

    def move(self, idx: Tensor) -> None:
        """Set the window to the end of the text `idx`, (1, T)."""
        n_dropped = max(1, self.size // 2)
        excess = max(0, idx.shape[1] - self.size)
        start = n_dropped * -(-excess // n_dropped)                     # rounded up
        if start != self.start:
            # Every token has another position now, so all are read again.
            self.start, self.cache = start, self.model.new_cache(1)
        self.tokens = idx[0, start:]                                    # (T,)

    def read(self, drafted: Sequence[Tensor]) -> Tensor:
        """Return the logits after the last token and after each proposed one, (n + 1, V)."""
        n_read = int(self.cache.lengths[0])
        unread = torch.cat([self.tokens[n_read:], *drafted])[None]
        return self.model(unread, self.cache)[0, -(len(drafted) + 1):]

    def keep(self, n_accepted: int) -> None:
        """Forget the proposed tokens that were rejected."""
        self.cache.truncate(len(self.tokens) + n_accepted)


def check_models(model: nn.Module, draft: nn.Module, idx: Tensor) -> None:
    """Raise a ValueError unless the two models and the prompt fit together."""
    if not hasattr(model, "new_cache") or not hasattr(model.new_cache(1), "truncate"):
        raise ValueError(
            f"{type(model).__name__} has no key-value cache that can be truncated, so it cannot "
            "take back rejected tokens"
        )
    if idx.ndim != 2 or len(idx) != 1 or idx.shape[1] < 1:
        raise ValueError(
            f"idx has shape {tuple(idx.shape)}, it should be one text with at least one token, "
            "(1, T)"
        )
    draft_logits = draft(idx[:, -1:])
    draft_size, size = draft_logits.shape[-1], model.config.vocab_size
    if draft_logits.isnan().any():
        raise ValueError("the draft's logits have nan: has its training diverged?")
    if draft_size != size:
        raise ValueError(
            f"the draft has {draft_size} tokens in its vocabulary, and the model has {size}: both "
            "need the same tokenizer"
        )
