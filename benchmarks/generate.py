"""How fast sampling with a cache is, against nanoGPT, transformers and the matrices alone.

    python benchmarks/generate.py                      on a machine that does nothing else
    python benchmarks/generate.py --nanogpt PATH       also a checkout of karpathy/nanoGPT
    pip install transformers                           then it is measured too

The results go to benchmarks/generate.json.

All contestants have the shape of nanoGPT's "baby" and random weights, because speed does not
depend on what a model has learned. In each round every contestant generates the same number of
tokens, one after the other. The result is the median over the rounds, so that a slow minute does
not decide. The prompt is one token, or a full block for "past the block".
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from recording import provenance, write_results
from torch.nn import functional as F

from gptlib.config import GPTConfig
from gptlib.generate import generate
from gptlib.model import GPT
from gptlib.variants.quantize import int8_copy

BABY = GPTConfig(65, block_size=256, n_layer=6, n_head=6, n_embd=384, tie_weights=False)
# name: (rows, tokens in the prompt, new tokens)
SITUATIONS = {
    "batch 1": (1, 1, 250),
    "batch 16": (16, 1, 250),
    "past the block": (1, 256, 1000),
}
LEFT_OUT = {
    # transformers raises an IndexError past the block.
    ("transformers", "past the block"),
    # These take minutes and show nothing that "batch 1" does not show.
    ("ours, no cache", "batch 16"),
    ("ours, no cache", "past the block"),
    ("matrices alone", "batch 16"),
    ("matrices alone", "past the block"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--rounds", type=int, default=2,
                        help="1 is a trial, which writes nothing")
    options = parser.parse_args()
    about = provenance()
    seconds = {}
    contestants = all_contestants(options.nanogpt)
    with torch.no_grad():
        for _ in range(options.rounds):
            measure_round(contestants, seconds)
    rates = tokens_per_second(seconds)
    print_rates(rates)
    if options.rounds >= 2:
        write_results("generate", {
            "measures": "tokens per second of sampling, the median over rounds; random weights, "
                        "temperature 1",
            **about,
            "rounds": options.rounds,
            "shape": asdict(BABY),
            "situations": SITUATIONS,
            "tokens_per_second": rates,
            "seconds": {f"{situation}: {name}": times
                        for (situation, name), times in seconds.items()},
        })


def all_contestants(nanogpt_path: Path | None) -> dict[str, Callable]:
    """Return functions (idx, n_new) that generate, by name. "matrices alone" only multiplies."""
    model = GPT(BABY).eval()
    contestants = {
        "ours": ours(model, cache=True),
        "ours, int8": ours(int8_copy(model), cache=True),
        "ours, no cache": ours(model, cache=False),
    }
    if nanogpt_path:
        contestants["nanoGPT"] = nanogpt(nanogpt_path, BABY)
    try:
        contestants["transformers"] = transformers(BABY)
    except ImportError:
        print("transformers is not installed: left out")
    contestants["matrices alone"] = matrices_alone(model)
    return contestants


def measure_round(contestants: dict[str, Callable], seconds: dict[tuple, list[float]]) -> None:
    """Time every contestant in every situation, and append to `seconds`, by (situation, name)."""
    for situation, (rows, n_prompt, n_new) in SITUATIONS.items():
        for name, write in contestants.items():
            if (name, situation) not in LEFT_OUT:
                times = seconds.setdefault((situation, name), [])
                times.append(timed(write, rows, n_prompt, n_new))


def timed(write: Callable, rows: int, n_prompt: int, n_new: int) -> float:
    """Return the seconds that a contestant takes for `n_new` tokens in each row."""
    idx = torch.zeros(rows, n_prompt, dtype=torch.long)
    # Warm-up.
    write(idx, 2)
    start = time.perf_counter()
    write(idx, n_new)
    return time.perf_counter() - start


def tokens_per_second(seconds: dict[tuple, list[float]]) -> dict[str, dict[str, float]]:
    """Return the rates by situation and name."""
    rates = {}
    for (situation, name), times in seconds.items():
        rows, _, n_new = SITUATIONS[situation]
        rates.setdefault(situation, {})[name] = rows * n_new / statistics.median(times)
    return rates


def print_rates(rates: dict[str, dict[str, float]]) -> None:
    for situation, by_name in rates.items():
        parts = []
        for name, rate in by_name.items():
            ratio = f" ({rate / by_name['nanoGPT']:.1f}x)" if "nanoGPT" in by_name else ""
            parts.append(f"{name} {rate:,.1f}{ratio}")
        print(f"{situation:<16}" + "   ".join(parts) + "   tokens/s")
    share = rates["batch 1"]["ours"] / rates["batch 1"]["matrices alone"]
    print(f"batch 1 reaches {share:.0%} of the rate of the matrices alone")


# The contestants ----------------------------------------------------------------------------------


def ours(model: torch.nn.Module, cache: bool) -> Callable:
    return lambda idx, n_new: generate(model, idx, n_new, seed=0, cache=cache)


def nanogpt_model(path: Path, shape: GPTConfig) -> torch.nn.Module:
    sys.path.insert(0, str(path))
    import model as nanogpt
    return nanogpt.GPT(nanogpt.GPTConfig(
        block_size=shape.block_size, vocab_size=shape.vocab_size, n_layer=shape.n_layer,
        n_head=shape.n_head, n_embd=shape.n_embd, dropout=0.0, bias=False))


def nanogpt(path: Path, shape: GPTConfig) -> Callable:
    model = nanogpt_model(path, shape).eval()
    return lambda idx, n_new: model.generate(idx, n_new)


def transformers_model(shape: GPTConfig) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=shape.vocab_size, n_positions=shape.block_size, n_embd=shape.n_embd,
        n_layer=shape.n_layer, n_head=shape.n_head, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=None))


def transformers(shape: GPTConfig) -> Callable:
    model = transformers_model(shape).eval()

    def write(idx, n_new):
        return model.generate(idx, max_new_tokens=n_new, do_sample=True, pad_token_id=0,
                              attention_mask=torch.ones_like(idx))

    return write


def matrices_alone(model: GPT) -> Callable:
    """Return a function that multiplies by every matrix of the model once for each new token.

    Each new token needs all these products, so a model with float32 weights cannot be faster.
    """
    positions = model.positions.table.weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not positions]

    def multiply(idx, n_new):
        inputs = {matrix.shape[1]: torch.randn(len(idx), matrix.shape[1]) for matrix in matrices}
        for _ in range(n_new):
            for matrix in matrices:
                F.linear(inputs[matrix.shape[1]], matrix)

    return multiply


if __name__ == "__main__":
    main()
