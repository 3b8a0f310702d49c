"""Sampling: a model's logits become the next token, again and again (chapters 4 and 8).

At its heart, sampling is a loop of three lines:

    logits = model(idx)[:, -1]                                      # (B, V), after the last token
    token = torch.multinomial(logits.softmax(-1), num_samples=1)    # (B, 1)
    idx = torch.cat([idx, token], dim=1)

`generate` adds temperature, top-k, top-p and min-p, seeds, a key-value cache, and texts that are
longer than the model's block. `generate_text` and `stream_text` do the same for text.
"""

import codecs
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.checks import (
    at_least,
    between,
    check_arguments,
    check_vocabulary,
    checked_value,
    list_of,
    model_with_numbers,
    optional,
    tensor,
    tokens,
    trainable,
    wrong_type,
)
from gptlib.model import evaluating
from gptlib.tokenizer import Tokenizer, any_tokenizer

# top_p counts as reached from this much below it, because float32 rounds the sum 0.5 + 0.3 to a
# number that is not 0.8.
ROUNDING = 1e-6


def infinite_or_at_least_0(name: str, value: float) -> float:
    """The kind of a temperature. An infinite one makes all tokens equally likely."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    is_infinite = isinstance(value, float) and value == math.inf
    return value if is_infinite else at_least(0.0)(name, value)


def prompts_kind(name: str, value: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    """The kind of prompts: tokens (B, T), or a list of rows, (T,) each."""
    if isinstance(value, Tensor):
        return tokens("B, T")(name, value)
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        raise wrong_type(
            name, value, "a list of rows, (T,) each, or a torch.Tensor of tokens, (B, T)"
        )
    return list_of(tokens("T"))(name, value)


def logits_kind(name: str, value: Tensor) -> Tensor:
    """The kind of logits: floating-point numbers, (…, V)."""
    value = checked_value(name, value, Tensor)
    if value.is_meta:
        raise ValueError(f"{name} is on the device 'meta', where tensors have no numbers")
    if not value.is_floating_point() or value.ndim == 0 or value.shape[-1] == 0:
        raise ValueError(
            f"{name} is {value.dtype} of shape {tuple(value.shape)}, it should be floating-point "
            "numbers of shape (…, V)"
        )
    return value


def stop_kind(name: str, value: str | Sequence[str] | None) -> list[str]:
    """The kind of stop strings: one string, several, or None for no stop string."""
    if value is None:
        return []
    return list_of(str)(name, [value] if isinstance(value, str) else value)


# The kinds of the arguments that several functions below have.
SAMPLING = {
    "temperature": infinite_or_at_least_0,
    "top_k": optional(at_least(1)),
    "top_p": optional(between(0.0, 1.0)),
    "min_p": optional(between(0.0, 1.0)),
}
PROMPTS = {
    "model": model_with_numbers, "idx": prompts_kind, "max_new_tokens": at_least(0),
    "seed": optional(at_least(0)), "cache": bool,
}


@check_arguments(**PROMPTS, **SAMPLING)
def generate(
    model: nn.Module,
    idx: Tensor | Sequence[Tensor],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    cache: bool = True,
    min_p: float | None = None,
) -> Tensor | list[Tensor]:
    """Return the prompts with their new tokens: (B, T + max_new_tokens), or a list of rows.

    The arguments are those of `generate_tokens`. If `idx` is a list, so is the result.
    """
    tokens = list(
        generate_tokens(model, idx, max_new_tokens, temperature, top_k, top_p, seed, cache, min_p)
    )
    if isinstance(idx, Tensor):
        return torch.cat([idx, *(token[:, None] for token in tokens)], dim=1)
    return [
        torch.cat([prompt, *(token[row:row + 1] for token in tokens)])
        for row, prompt in enumerate(idx)
    ]


@check_arguments(**PROMPTS, **SAMPLING)
def generate_tokens(
    model: nn.Module,
    idx: Tensor | Sequence[Tensor],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    cache: bool = True,
    min_p: float | None = None,
) -> Iterator[Tensor]:
    """Yield one new token for each row of `idx`, as soon as it is drawn.

    A row depends on its own prompt and seed alone. The other rows and the cache do not change it.

    Args:
        idx: the prompts, (B, T), or a list of B prompts, (T,) each, of any lengths from 1 on. A
            model with a `block_size` reads the end of a longer text (see `Windows`).
        temperature, top_k, top_p, min_p: see `next_token_probabilities`.
        seed: row r uses its own seed, `seed + r`. It gives the same text as when it is generated
            alone with that seed. None: a new seed.
        cache: whether to store keys and values instead of computing them again for each token.

    Yields:
        (B,) tokens, `max_new_tokens` times.
    """
    windows = Windows(model, idx, max_new_tokens, cache)
    seed = np.random.SeedSequence().entropy if seed is None else seed
    generators = [np.random.default_rng(seed + row) for row in range(len(idx))]
    for _ in range(max_new_tokens):
        logits = windows.next_logits()                                              # (B, V)
        probabilities = next_token_probabilities(logits, temperature, top_k, top_p, min_p)
        token = pick(probabilities, [generator.random() for generator in generators])
        windows.append(token)
        yield token


@check_arguments(logits=logits_kind, **SAMPLING)
def next_token_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Return the distribution from which the next token is drawn.

    Args:
        logits: (…, V).
        temperature: the logits are divided by it. Below 1 the distribution becomes sharper, above
            1 flatter. 0 gives all probability to the most likely token.
        top_k: keep the k most likely tokens only.
        top_p: keep only the most likely tokens, as few as are needed to reach the probability p
            together (nucleus sampling, Holtzman et al. 2020). The token that crosses p is kept. It
            is applied after temperature and top_k.
        min_p: keep only the tokens whose probability is at least min_p times the largest one
            (Nguyen et al. 2024). It is applied last.

    Returns:
        Probabilities, (…, V). Each row sums to 1.

    Raises:
        ValueError: temperature below 0, top_k below 1, top_p or min_p outside 0 … 1, or logits
            whose largest is nan or infinite.
    """
    if not logits.amax(-1).isfinite().all():
        raise ValueError("the model's logits are not finite: has its training diverged?")
    if temperature == 0:
        likeliest = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, likeliest, 1.0)
    # Softmax does not change when all logits get smaller by the same number. With the largest at 0,
    # division by a very small temperature gives −∞ at worst, never +∞.
    logits = logits - logits.amax(-1, keepdim=True)
    logits = logits / max(temperature, torch.finfo(logits.dtype).tiny)
    if top_k is None and (top_p is None or top_p == 1):
        probabilities = logits.softmax(-1)
    else:
        probabilities = keep_most_likely(logits, top_k, top_p)
    if min_p:
        dropped = probabilities < min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(dropped, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def keep_most_likely(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Return the distribution after top-k, and then top-p. See `next_token_probabilities`."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)      # most likely first
    if top_k is not None:
        ordered[..., top_k:] = -torch.inf
    probabilities = ordered.softmax(-1)
    if top_p is not None and top_p < 1:
        # A token is dropped if the more likely tokens already reach p. The first is always kept.
        before = probabilities.cumsum(-1) - probabilities
        dropped = before >= top_p - ROUNDING
        dropped[..., 0] = False
        probabilities = probabilities.masked_fill(dropped, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter_(-1, order, probabilities)


@check_arguments(probabilities=tensor("B, V"), numbers=list_of(float))
def pick(probabilities: Tensor, numbers: Sequence[float]) -> Tensor:
    """Return one token for each row of `probabilities`, (B, V), as a tensor (B,).

    Each row has one number, 0 ≤ number < 1. Add up the probabilities from the left. The token is
    the first one where the sum is larger than the number. With uniform random numbers, this draws
    from the distribution (inverse transform sampling).

    >>> pick(torch.tensor([[0.2, 0.0, 0.8], [0.2, 0.0, 0.8]]), [0.1, 0.2])
    tensor([0, 2])
    """
    if not probabilities.shape[1]:
        raise ValueError("probabilities has no columns, it should have one for each token")
    if len(numbers) != len(probabilities) or not all(0 <= number < 1 for number in numbers):
        raise ValueError(
            f"{len(probabilities)} rows have {len(numbers)} numbers: numbers should have one for "
            "each row, at least 0 and below 1"
        )
    # On the CPU, because Apple's GPUs have no double precision.
    probabilities_on_cpu = probabilities.cpu().double()
    cumulative = probabilities_on_cpu.cumsum(-1)                            # (B, V)
    total = cumulative[:, -1:]                                              # (B, 1)
    if not 0 < total.min() <= total.max() < math.inf:
        raise ValueError("each row of probabilities should have a sum above 0, without nan")
    if probabilities_on_cpu.min() < 0:
        raise ValueError("probabilities should be at least 0, and one of them is negative")
    cumulative = cumulative / total                                         # rounding: end at 1
    numbers = torch.tensor(numbers, dtype=torch.double)[:, None]            # (B, 1)
    return (cumulative <= numbers).sum(-1).to(probabilities.device)


class Windows:
    """The tokens that a model reads for each row: the whole text, or its end when the text is long.

    A model with a `block_size` cannot read more than that many tokens. When a row is full, the
    older half of it is dropped, and the other half is read again from position 0. That happens
    once for many new tokens. If instead the window moved by one with each token, every token would
    get another position each time, and no stored keys and values could be used again.

    Args:
        prompts: (B, T), or a list of B prompts, (T,) each.
        cache: whether to use the model's key-value cache, if it has one.
    """

    @check_arguments(max_new_tokens=at_least(0))
    def __init__(
        self,
        model: nn.Module,
        prompts: Tensor | Sequence[Tensor],
        max_new_tokens: int,
        cache: bool = True,
    ):
        if not len(prompts) or not all(len(prompt) for prompt in prompts):
            raise ValueError("the prompt is empty: give at least one token to continue from")
        self.model = model
        longest = max(len(prompt) for prompt in prompts)
        self.size = getattr(model, "block_size", None) or longest + max_new_tokens
        self.n_dropped = max(1, self.size // 2)                     # tokens dropped from a full row
        # Each row is filled from the left. The model never looks at the zeros to the right.
        self.tokens = prompts[0].new_zeros(len(prompts), self.size, dtype=torch.long)
        self.lengths = []
        for row, prompt in zip(self.tokens, prompts, strict=True):
            # Cut a long prompt in the same steps as `append` does.
            excess = max(0, len(prompt) - self.size)
            start = self.n_dropped * math.ceil(excess / self.n_dropped)
            self.lengths.append(len(prompt) - start)
            row[:self.lengths[-1]] = prompt[start:]
        self.unread = list(range(len(prompts)))                     # rows to read from position 0
        self.use_cache = cache and hasattr(model, "new_cache")
        if self.use_cache and len(set(self.lengths)) > 1:
            # Not every model has a cache for rows of different lengths.
            self.use_cache = hasattr(model.new_cache(1), "set_rows")

    def next_logits(self) -> Tensor:
        """Return the logits for the token after the last token of each row, (B, V)."""
        with evaluating(self.model), torch.inference_mode():
            if not self.use_cache:
                return self.read(range(len(self.tokens)))
            if len(self.unread) == len(self.tokens):
                self.cache = self.model.new_cache(len(self.tokens))
                logits = self.read(self.unread, self.cache)
            else:
                logits = self.read_last_tokens()
            self.unread = []
            return logits

    def read(self, rows: Sequence[int], cache=None) -> Tensor:
        """Read rows from position 0. Return the logits after the last token of each."""
        lengths = torch.tensor([self.lengths[row] for row in rows])
        idx = self.tokens[rows, :lengths.max()]
        if cache is None:
            logits = self.model(idx)
        else:
            logits = self.model(idx, cache)
            if (lengths != lengths[0]).any():
                cache.truncate(lengths)                             # forget the zeros
        return logits[torch.arange(len(idx)), lengths - 1]

    def read_last_tokens(self) -> Tensor:
        """Read one new token in each row. Rows that dropped tokens are read from position 0."""
        if self.unread:
            # Empty these rows, so that there is room. Their results are replaced below.
            lengths = self.cache.lengths.clone()
            lengths[self.unread] = 0
            self.cache.truncate(lengths)
        logits = self.model(self.last[:, None], self.cache)[:, -1]
        if self.unread:
            new_cache = self.model.new_cache(len(self.unread))
            logits[self.unread] = self.read(self.unread, new_cache)
            self.cache.set_rows(self.unread, new_cache)
        return logits

    def append(self, token: Tensor) -> None:
        """Add one token, (B,), to the end of each row."""
        for row, length in enumerate(self.lengths):
            if length == self.size:
                self.tokens[row, :-self.n_dropped] = self.tokens[row, self.n_dropped:].clone()
                self.lengths[row] -= self.n_dropped
                self.unread.append(row)
        self.tokens[torch.arange(len(token)), self.lengths] = token
        self.lengths = [length + 1 for length in self.lengths]
        self.last = token.clone()               # a copy, since the caller may change its tensor


@check_arguments(model=trainable, tokenizer=any_tokenizer, prompt=str, max_new_tokens=at_least(0))
def generate_text(
    model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 500, **how
) -> str:
    """Return the continuation of `prompt`. Further arguments are those of `stream_text`."""
    return "".join(stream_text(model, tokenizer, prompt, max_new_tokens, **how))


@check_arguments(
    model=trainable, tokenizer=any_tokenizer, prompt=str, max_new_tokens=at_least(0),
    stop=stop_kind, seed=optional(at_least(0)), **SAMPLING,
)
def stream_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 500,
    stop: str | Sequence[str] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    min_p: float | None = None,
) -> Iterator[str]:
    """Yield the continuation of `prompt` in pieces, which are always whole characters.

    Args:
        stop: one or several strings. The text is cut just before the first stop string. Characters
            that may be the beginning of a stop string wait until that is decided.
    """
    check_vocabulary(model, tokenizer)
    stops = [stop] if isinstance(stop, str) else list(stop or [])
    if "" in stops:
        raise ValueError("a stop string is empty: the text would end before it began")
    device = next(model.parameters()).device
    idx = torch.tensor([tokenizer.encode(prompt)], dtype=torch.long, device=device)
    tokens = generate_tokens(
        model, idx, max_new_tokens, temperature, top_k, top_p, seed, min_p=min_p
    )
    # A token may hold a part of a character. The decoder waits until the character is complete.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    waiting = ""
    for token in tokens:
        if token.item() >= tokenizer.vocab_size:
            raise ValueError(
                f"the model has drawn token {token.item()}, but the tokenizer has only "
                f"{tokenizer.vocab_size} tokens: give the tokenizer that encoded the training text"
            )
        # One character at a time, so that stop strings do not depend on the borders of tokens.
        for character in decoder.decode(tokenizer.token_bytes(token.item())):
            waiting += character
            found = [s for s in stops if waiting.endswith(s)]
            if found:
                yield waiting[:-max(map(len, found))]
                return
        n_waiting = longest_beginning(stops, waiting)
        if len(waiting) > n_waiting:
            yield waiting[:len(waiting) - n_waiting]
            waiting = waiting[len(waiting) - n_waiting:]
    yield waiting + decoder.decode(b"", final=True)


def longest_beginning(stops: Sequence[str], text: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of a stop string."""
    lengths = [n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])]
    return max(lengths, default=0)
