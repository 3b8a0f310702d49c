"""How fast does the cache sample? Tokens per second against nanoGPT's own loop, transformers' GPT-2 and the matrices alone.

    python benchmarks/generate.py                      alone on the machine; writes benchmarks/generate.json
    python benchmarks/generate.py --nanogpt PATH       ... with a checkout of karpathy/nanoGPT beside it
    pip install transformers                           ... and it is measured too

All have nanoGPT's "baby" shape and random weights: speed does not depend on what a model has learned. In each round
every contestant writes the same number of tokens, one after the other; what is kept is the median over rounds, so
that a slow minute of the machine falls on all. The first prompt is one token; "past the block" begins with a full block.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from gptlib.config import GPTConfig
from gptlib.generate import generate
from gptlib.int8 import int8_copy
from gptlib.leaderboard import code_hash
from gptlib.model import GPT

HERE = Path(__file__).resolve().parent
BABY = GPTConfig(65, block_size=256, n_layer=6, n_head=6, n_embd=384, tie_weights=False)
SITUATIONS = {                          # rows, tokens in the prompt, new tokens
    "batch 1": (1, 1, 250),
    "batch 16": (16, 1, 250),
    "past the block": (1, 256, 1000),
}
LEFT_OUT = {
    ("transformers", "past the block"),         # it has no window: past the block it raises an IndexError
    ("ours, no cache", "batch 16"), ("ours, no cache", "past the block"),       # minutes that would tell nothing new
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--rounds", type=int, default=2, help="fewer than 2 are a trial: nothing is written")
    options = parser.parse_args()
    model = GPT(BABY).eval()
    floor = matrices_alone(model)
    contestants = {"ours": ours(model, cache=True), "ours, int8": ours(int8_copy(model), cache=True),
                   "ours, no cache": ours(model, cache=False)}
    if options.nanogpt:
        contestants["nanoGPT"] = nanogpt(options.nanogpt)
    try:
        contestants["transformers"] = transformers()
    except ImportError:
        print("transformers is not installed: left out")
    seconds = {}
    with torch.no_grad():
        for _ in range(options.rounds):
            for situation, (rows, prompt, new) in SITUATIONS.items():
                for name, write in contestants.items():
                    if (name, situation) in LEFT_OUT:
                        continue
                    seconds.setdefault((situation, name), []).append(timed(write, rows, prompt, new))
            seconds.setdefault(("batch 1", "matrices alone"), []).append(timed(floor, 1, 1, 250))
    rates = {}
    for (situation, name), times in seconds.items():
        rows, _, new = SITUATIONS[situation]
        rates.setdefault(situation, {})[name] = rows * new / float(np.median(times))
    for situation, of in rates.items():
        print(f"{situation:<16}" + "   ".join(f"{name} {rate:,.1f}" + (f" ({rate / of['nanoGPT']:.1f}x)" if "nanoGPT" in of else "")
                                              for name, rate in of.items()) + "   tokens/s")
    print(f"batch 1 reaches {rates['batch 1']['ours'] / rates['batch 1']['matrices alone']:.0%} of what the matrices alone allow")
    if options.rounds >= 2:
        revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
        (HERE / "generate.json").write_text(json.dumps({
            "measures": "tokens per second of sampling, the median over rounds; random weights, temperature 1",
            "date": time.strftime("%Y-%m-%d"),
            "revision": revision, "code": code_hash(), "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "torch": torch.__version__, "rounds": options.rounds, "shape": asdict(BABY), "situations": SITUATIONS,
            "tokens_per_second": rates, "seconds": {f"{situation}: {name}": times for (situation, name), times in seconds.items()}},
            indent=1) + "\n", encoding="utf-8")


def timed(write: Callable, rows: int, prompt: int, new: int) -> float:
    idx = torch.zeros(rows, prompt, dtype=torch.long)
    write(idx, 2)                                   # warm-up
    start = time.perf_counter()
    write(idx, new)
    return time.perf_counter() - start


def ours(model: torch.nn.Module, cache: bool) -> Callable:
    return lambda idx, new: generate(model, idx, new, seed=0, cache=cache)


def nanogpt(path: Path) -> Callable:
    sys.path.insert(0, str(path))
    import model as theirs
    config = theirs.GPTConfig(block_size=256, vocab_size=65, n_layer=6, n_head=6, n_embd=384, dropout=0.0, bias=False)
    model = theirs.GPT(config).eval()
    return lambda idx, new: model.generate(idx, new)


def transformers() -> Callable:
    from transformers import GPT2Config, GPT2LMHeadModel
    shape = GPT2Config(vocab_size=65, n_positions=256, n_embd=384, n_layer=6, n_head=6, bos_token_id=0, eos_token_id=None)
    model = GPT2LMHeadModel(shape).eval()
    return lambda idx, new: model.generate(idx, max_new_tokens=new, do_sample=True, attention_mask=torch.ones_like(idx), pad_token_id=0)


def matrices_alone(model: GPT) -> Callable:
    """The products with every matrix of the model, one after the other, and nothing else: what one token cannot go below."""
    weights = [p for p in model.parameters() if p.ndim == 2 and p is not model.positions.table.weight]

    def write(idx, new):
        inputs = {w.shape[1]: torch.randn(len(idx), w.shape[1]) for w in weights}
        for _ in range(new):
            for w in weights:
                F.linear(inputs[w.shape[1]], w)

    return write


if __name__ == "__main__":
    main()
