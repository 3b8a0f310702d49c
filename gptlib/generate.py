"""Sampling: a model's logits become the next token, again and again."""

import codecs
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.model import evaluating
from gptlib.tokenizer import Tokenizer


def next_token_probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The distribution that the next token is drawn from.

    Args:
        logits: (..., V).
        temperature: below 1 sharpens, above 1 flattens; 0 puts everything on the likeliest token.
        top_k: keep the k likeliest tokens; more than V keeps all.
        top_p: keep the fewest likeliest tokens whose probabilities reach p together, the one that crosses p
            among them (nucleus sampling, Holtzman et al. 2020). Applied after temperature and top_k.

    Returns:
        Probabilities, (..., V), each row summing to 1.

    Raises:
        ValueError: temperature below 0, top_k below 1, or top_p outside 0 … 1.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} should be 0 (greedy) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} should be at least 1, or None to keep every token")
    if top_p is not None and not 0 <= top_p <= 1:
        raise ValueError(f"top_p={top_p} should be between 0 and 1, or None to keep every token")
    highest = logits.amax(-1, keepdim=True)
    if not highest.isfinite().all():
        raise ValueError("the model's logits are not finite: has its training diverged?")
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits - highest                                   # so that a tiny temperature gives -inf, never inf
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)      # ... and one too small for its type is no 0 / 0
    if top_k is None and (top_p is None or top_p == 1):
        return (logits / temperature).softmax(-1)
    ordered, order = (logits / temperature).sort(dim=-1, descending=True, stable=True)      # likeliest first
    if top_k is not None:
        ordered[..., top_k:] = -torch.inf
    probabilities = ordered.softmax(-1)
    if top_p is not None and top_p < 1:                         # at 1, rounding must not cost the unlikeliest tokens
        before = probabilities.cumsum(-1) - probabilities       # what the likelier tokens hold already
        beyond = before >= top_p
        beyond[..., 0] = False                                  # the likeliest token always stays
        probabilities = probabilities.masked_fill(beyond, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter_(-1, order, probabilities)


def generate_tokens(model: nn.Module, idx: Tensor | Sequence[Tensor], max_new_tokens: int, temperature: float = 1.0,
                    top_k: int | None = None, top_p: float | None = None, seed: int | None = None, cache: bool = True) -> Iterator[Tensor]:
    """Yield one new token for each row of `idx`, as soon as it is drawn.

    What a row becomes depends on its own prompt and seed alone, not on its neighbours, nor on whether there is a cache.

    Args:
        idx: the prompts, (B, T), or a list of B prompts of any lengths, (T,) each; at least one token in each.
            A model with a `block_size` reads their ends, through `Windows`. Shorter rows are padded on the right,
            which a causal model does not see.
        seed: row r draws its tokens as a single prompt with `seed + r` does; None takes fresh ones.
        cache: keep keys and values, where the model can, instead of computing them again for each token.

    Yields:
        (B,) tokens, `max_new_tokens` times.
    """
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} should be at least 0")
    if seed is not None and seed < 0:
        raise ValueError(f"seed={seed} should be at least 0, or None for a fresh one")
    windows = Windows(model, idx, max_new_tokens, cache)
    seed = np.random.SeedSequence().entropy if seed is None else seed
    draws = [np.random.default_rng(seed + row) for row in range(len(idx))]
    for _ in range(max_new_tokens):
        probabilities = next_token_probabilities(windows.next_logits(), temperature, top_k, top_p)     # (B, V)
        token = pick(probabilities, [draw.random() for draw in draws])
        windows.append(token)
        yield token


def pick(probabilities: Tensor, numbers: Sequence[float]) -> Tensor:
    """For each row the first token that, with all tokens before it, holds more than the row's number, 0 ≤ number < 1.

    With uniform random numbers this draws from the distribution (inverse transform sampling).

    >>> pick(torch.tensor([[0.2, 0.0, 0.8], [0.2, 0.0, 0.8]]), [0.1, 0.2])
    tensor([0, 2])
    """
    reached = probabilities.cpu().double().cumsum(-1)                               # (B, V); Apple's GPUs have no doubles
    numbers = torch.tensor(numbers, dtype=torch.double)[:, None]
    return (reached / reached[:, -1:] <= numbers).sum(-1).to(probabilities.device)


class Windows:
    """What a model reads of each row: all of it while it fits into a block, then its last half block or more.

    With absolute positions, a window that slid along with each token would move every token to another position, and
    nothing computed for them could be used again. This one stands still until it is full; then it lets go of half a
    block, and the other half is read anew, once for many tokens.
    """

    def __init__(self, model: nn.Module, prompts: Tensor | Sequence[Tensor], max_new_tokens: int, cache: bool = True):
        if not len(prompts) or not all(len(prompt) for prompt in prompts):
            raise ValueError("the prompt is empty: give at least one token to continue from")
        self.model = model
        self.size = getattr(model, "block_size", None) or max(map(len, prompts)) + max_new_tokens
        self.hop = max(1, self.size // 2)
        self.tokens = prompts[0].new_zeros(len(prompts), self.size, dtype=torch.long)       # (B, size), each row from its left end
        self.lengths = []
        for row, prompt in zip(self.tokens, prompts, strict=True):
            dropped = self.hop * max(0, -(-(len(prompt) - self.size) // self.hop))  # as if the prompt had been generated
            self.lengths.append(len(prompt) - dropped)
            row[:self.lengths[-1]] = prompt[dropped:]
        self.unread = list(range(len(prompts)))                                     # rows to be read from their left end
        ragged = len(set(self.lengths)) > 1
        self.cached = cache and hasattr(model, "new_cache") and (not ragged or hasattr(model.new_cache(), "set_rows"))

    def next_logits(self) -> Tensor:
        """Logits for the token after the last of each row, (B, V)."""
        with evaluating(self.model), torch.inference_mode():
            if not self.cached:
                return self._read(range(len(self.tokens)))
            if len(self.unread) == len(self.tokens):
                self.cache = self.model.new_cache()
                logits = self._read(self.unread, self.cache)
            else:
                if self.unread:
                    self.cache.length[self.unread] = 0                              # any place will do: they are read again below
                logits = self.model(self.last[:, None], self.cache)[:, -1]
                if self.unread:
                    fresh = self.model.new_cache()
                    logits[self.unread] = self._read(self.unread, fresh)
                    self.cache.set_rows(self.unread, fresh)
            self.unread = []
            return logits

    def _read(self, rows: Sequence[int], cache=None) -> Tensor:
        lengths = torch.tensor([self.lengths[row] for row in rows], device=self.tokens.device)
        idx = self.tokens[rows, :lengths.max()]                                     # what is right of a shorter row is not seen by it
        logits = self.model(idx) if cache is None else self.model(idx, cache)
        if cache is not None and (lengths != lengths[0]).any():
            cache.length = lengths
        return logits[torch.arange(len(idx)), lengths - 1]

    def append(self, token: Tensor) -> None:
        """Put one token, (B,), at the end of each row."""
        for row in [row for row, length in enumerate(self.lengths) if length == self.size]:
            self.tokens[row, :-self.hop] = self.tokens[row, self.hop:].clone()
            self.lengths[row] -= self.hop
            self.unread.append(row)
        self.tokens[torch.arange(len(token)), self.lengths] = token
        self.lengths = [length + 1 for length in self.lengths]
        self.last = token.clone()                                                  # who gets the token may change it


def generate(model: nn.Module, idx: Tensor | Sequence[Tensor], max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, seed: int | None = None, cache: bool = True) -> Tensor | list[Tensor]:
    """The prompts with their new tokens: (B, T + max_new_tokens), or a list of rows where `idx` is one.

    Arguments as in `generate_tokens`.
    """
    new = list(generate_tokens(model, idx, max_new_tokens, temperature, top_k, top_p, seed, cache))
    if isinstance(idx, Tensor):
        return torch.cat([idx, *(token[:, None] for token in new)], dim=1)
    return [torch.cat([prompt, *(token[row:row + 1] for token in new)]) for row, prompt in enumerate(idx)]


def stream_text(model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 500, stop: str | Sequence[str] = (),
                temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int | None = None) -> Iterator[str]:
    """Yield the continuation of `prompt` piece by piece: whole characters only, and nothing of a stop string.

    Args:
        stop: generation ends as soon as one of these strings is complete, and leaves it out. What could still
            become one is held back until it is clear that it does not.
    """
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise ValueError("a stop string is empty: it would stop everything before it began")
    device = next(model.parameters()).device
    idx = torch.tensor([tokenizer.encode(prompt)], dtype=torch.long, device=device)
    whole_characters = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    for token in generate_tokens(model, idx, max_new_tokens, temperature, top_k, top_p, seed):
        for character in whole_characters.decode(tokenizer.token_bytes(token.item())):
            pending += character                                # one by one, so that tokens' boundaries play no part
            ended = max((len(s) for s in stops if pending.endswith(s)), default=0)
            if ended:
                yield pending[:-ended]
                return
        held = max((n for s in stops for n in range(1, len(s)) if pending.endswith(s[:n])), default=0)
        if len(pending) > held:
            yield pending[:len(pending) - held]
            pending = pending[len(pending) - held:]
    yield pending + whole_characters.decode(b"", final=True)


def generate_text(model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 500, **how) -> str:
    """The continuation of `prompt` as one string. Further arguments as in `stream_text`."""
    return "".join(stream_text(model, tokenizer, prompt, max_new_tokens, **how))
