"""Sampling: a model's logits become the next token, again and again."""

import codecs
from collections.abc import Iterator, Sequence

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
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits - logits.amax(-1, keepdim=True)             # so that a tiny temperature gives -inf, never inf
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)      # ... and one too small for its type is no 0 / 0
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


def generate_tokens(model: nn.Module, idx: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
                    top_p: float | None = None, seed: int | None = None) -> Iterator[Tensor]:
    """Yield one new token for each row of `idx`, as soon as it is drawn.

    Args:
        idx: the prompts, (B, T) with T at least 1. Only the last `model.block_size` tokens are read, where
            the model has such a limit.
        seed: the same seed, model and prompt give the same tokens; None draws a fresh one.

    Yields:
        (B,) tokens, `max_new_tokens` times.
    """
    if idx.shape[1] == 0:
        raise ValueError("the prompt is empty: give at least one token to continue from")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} should be at least 0")
    generator = torch.Generator(idx.device)
    generator.seed() if seed is None else generator.manual_seed(seed)
    block_size = getattr(model, "block_size", None)
    for _ in range(max_new_tokens):
        window = idx if block_size is None else idx[:, -block_size:]
        with evaluating(model):
            logits = model(window)[:, -1]                       # (B, T, V) -> (B, V)
        probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
        token = torch.multinomial(probabilities, 1, generator=generator)        # (B, 1)
        idx = torch.cat([window, token], dim=1)
        yield token[:, 0]


def generate(model: nn.Module, idx: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, seed: int | None = None) -> Tensor:
    """The prompts `idx`, (B, T), with their new tokens: (B, T + max_new_tokens). Arguments as in `generate_tokens`."""
    new = list(generate_tokens(model, idx, max_new_tokens, temperature, top_k, top_p, seed))
    return torch.cat([idx, *(token[:, None] for token in new)], dim=1)


def stream_text(model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 500, stop: str | Sequence[str] = (),
                temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int | None = None) -> Iterator[str]:
    """Yield the continuation of `prompt` piece by piece: whole characters only, and nothing of a stop string.

    Args:
        stop: generation ends before the first of these strings would appear. What could still become one
            is held back until it is clear that it does not.
    """
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise ValueError("a stop string is empty: it would stop everything before it began")
    device = next(model.parameters()).device
    idx = torch.tensor([tokenizer.encode(prompt)], dtype=torch.long, device=device)
    whole_characters = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    for token in generate_tokens(model, idx, max_new_tokens, temperature, top_k, top_p, seed):
        pending += whole_characters.decode(tokenizer.token_bytes(token.item()))
        ends = [pending.find(s) for s in stops if s in pending]
        if ends:
            yield pending[:min(ends)]
            return
        held = max((n for s in stops for n in range(1, len(s)) if pending.endswith(s[:n])), default=0)
        if len(pending) > held:
            yield pending[:len(pending) - held]
            pending = pending[len(pending) - held:]
    yield pending + whole_characters.decode(b"", final=True)


def generate_text(model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 500, **how) -> str:
    """The continuation of `prompt` as one string. Further arguments as in `stream_text`."""
    return "".join(stream_text(model, tokenizer, prompt, max_new_tokens, **how))
