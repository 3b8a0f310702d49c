"""Compare this course's speed with other libraries: training, sampling, byte pair encoding.

    python benchmarks/bench.py                  a few minutes, on a machine that does nothing else
    python benchmarks/bench.py --toy            a few seconds, for the tests
    python benchmarks/bench.py --nanogpt PATH --mingpt PATH --minbpe PATH

`make bench` installs the libraries that pip can install: transformers, tokenizers, rustbpe and
tiktoken. nanoGPT, minGPT and minbpe take part if PATH is a checkout of their repository.

The contestants of a contest take turns: in each round every one runs once. The first round is a
warm-up. A ratio compares two runs of the same round, so a slow minute slows both. The page shows
the median of the ratios, the lowest and the highest. The results go to build/bench: the page
bench.md, the picture bench.png, and bench.json.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from bpe import encode_with_empty_cache, load_minbpe, train_huggingface
from generate import (
    matrices_alone,
    nanogpt,
    nanogpt_model,
    ours,
    transformers,
    transformers_model,
)
from recording import provenance
from torch.nn import functional as F

from gptlib.bpe import GPT4_PATTERN, BPETokenizer, to_tiktoken
from gptlib.config import GPTConfig, TrainConfig
from gptlib.corpora import load_corpus
from gptlib.model import GPT
from gptlib.plot import BLUE, GREY, new_figure
from gptlib.train import train

OUT = Path(__file__).resolve().parents[1] / "build/bench"
OURS = "this course"
TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)      # of the axes of ratios


@dataclass
class Contest:
    """Contestants that do the same work.

    Args:
        about: the sizes of the work, in words.
        unit: what is counted, such as "tokens".
        amount: how many units one run processes.
        contestants: by name, functions that run once and return their seconds.
    """

    title: str
    about: str
    unit: str
    amount: int
    contestants: dict[str, Callable[[], float]]


def main() -> None:
    options = parse_options()
    sizes = Sizes() if not options.toy else TOY
    about = provenance() | {"dtype": "float32", "rounds": sizes.rounds, "toy": options.toy}
    text = load_corpus("tinyshakespeare" if not options.toy else "theatre").text
    contests = [training(sizes, text, options), sampling(sizes, options),
                bpe_training(sizes, text, options), bpe_encoding(sizes, text, options)]
    results = []
    for contest in contests:
        print(f"{contest.title}: {', '.join(contest.contestants)}", flush=True)
        results.append(result_of(contest, take_turns(contest, sizes.rounds)))
    OUT.mkdir(parents=True, exist_ok=True)
    content = json.dumps(about | {"contests": results}, indent=1)
    (OUT / "bench.json").write_text(content + "\n", encoding="utf-8")
    page = write_page(about, results)
    (OUT / "bench.md").write_text(page, encoding="utf-8")
    draw(results).savefig(OUT / "bench.png", dpi=110, facecolor="white")
    print(page)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny sizes, a few seconds")
    for name in ("nanogpt", "mingpt", "minbpe"):
        parser.add_argument(f"--{name}", type=Path, help=f"a checkout of karpathy/{name}")
    options = parser.parse_args()
    for name in ("nanogpt", "mingpt", "minbpe"):
        path = getattr(options, name)
        if path and not path.is_dir():
            parser.error(f"--{name} {path} should be the folder of a checkout")
    return options


@dataclass(frozen=True)
class Sizes:
    """How much work the contests are."""

    rounds: int = 5
    model: GPTConfig = GPTConfig(65, block_size=64, n_layer=4, n_head=4, n_embd=128)
    batch_size: int = 12
    steps: int = 50
    new_tokens: int = 250
    bpe_characters: int = 300_000
    vocab_size: int = 512


TOY = Sizes(rounds=2, model=GPTConfig(65, block_size=16, n_layer=1, n_head=2, n_embd=16),
            batch_size=2, steps=3, new_tokens=8, bpe_characters=3000, vocab_size=280)


def take_turns(contest: Contest, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant, one number for each round."""
    seconds = {name: [] for name in contest.contestants}
    for n in range(rounds + 1):
        for name, run in contest.contestants.items():
            elapsed = run()
            if n > 0:
                seconds[name].append(elapsed)
    return seconds


def result_of(contest: Contest, seconds: dict[str, list[float]]) -> dict:
    """Return rates and ratios. A ratio above 1 means that we are faster."""
    rows = []
    for name, times in seconds.items():
        ratios = [other / own for other, own in zip(times, seconds[OURS], strict=True)]
        rows.append({"name": name, "rate": contest.amount / statistics.median(times),
                     "ratio": statistics.median(ratios), "lowest": min(ratios),
                     "highest": max(ratios), "seconds": times})
    return {"title": contest.title, "about": contest.about, "unit": contest.unit, "rows": rows}


def timed(work: Callable, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# The contests -------------------------------------------------------------------------------------


def training(sizes: Sizes, text: str, options: argparse.Namespace) -> Contest:
    """All train the same shape with AdamW and gradient clipping, on random tokens."""
    model, steps = sizes.model, sizes.steps
    ids = torch.randint(model.vocab_size, (10_000,), generator=torch.Generator().manual_seed(0))
    config = TrainConfig(max_steps=steps, batch_size=sizes.batch_size, eval_interval=steps,
                         warmup=0, device="cpu", dtype="float32")
    own = GPT(model)

    def run_ours() -> float:
        # `train` counts the seconds of its steps. They contain the batches and the checks.
        history = train(own, ids, ids[:200], model.block_size, config, progress=False).history
        return history[-1]["seconds"]

    contestants = {OURS: run_ours}
    peers = {"transformers": (installed("transformers"), transformers_loss),
             "nanoGPT": (options.nanogpt, nanogpt_loss),
             "minGPT": (options.mingpt, mingpt_loss)}
    for name, (source, make_loss) in peers.items():
        if source:
            contestants[name] = peer_training(*make_loss(source, model), ids, sizes)
    about = (f"{model.n_layer} layers of width {model.n_embd}, windows of {model.block_size} "
             f"tokens, {sizes.batch_size} in a batch, AdamW, {steps} steps")
    return Contest("Training", about, "tokens",
                   steps * sizes.batch_size * model.block_size, contestants)


def peer_training(model: torch.nn.Module, loss_of: Callable, ids: torch.Tensor,
                  sizes: Sizes) -> Callable:
    """Return a function that trains a peer's model in a loop as short as its own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    T = sizes.model.block_size

    def run() -> float:
        start = time.perf_counter()
        for _ in range(sizes.steps):
            begins = torch.randint(len(ids) - T, (sizes.batch_size,)).tolist()
            x = torch.stack([ids[i:i + T] for i in begins])
            y = torch.stack([ids[i + 1:i + T + 1] for i in begins])
            loss = loss_of(x, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return time.perf_counter() - start

    return run


def transformers_loss(source: bool, shape: GPTConfig) -> tuple[torch.nn.Module, Callable]:
    model = transformers_model(shape).train()
    return model, lambda x, y: F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())


def nanogpt_loss(source: Path, shape: GPTConfig) -> tuple[torch.nn.Module, Callable]:
    model = nanogpt_model(source, shape).train()
    return model, lambda x, y: model(x, y)[1]


def mingpt_loss(source: Path, shape: GPTConfig) -> tuple[torch.nn.Module, Callable]:
    sys.path.insert(0, str(source))
    from mingpt.model import GPT as MinGPT
    config = MinGPT.get_default_config()
    config.model_type = None
    config.vocab_size, config.block_size = shape.vocab_size, shape.block_size
    config.n_layer, config.n_head, config.n_embd = shape.n_layer, shape.n_head, shape.n_embd
    config.embd_pdrop = config.resid_pdrop = config.attn_pdrop = 0.0
    model = MinGPT(config).train()
    return model, lambda x, y: model(x, y)[1]


def sampling(sizes: Sizes, options: argparse.Namespace) -> Contest:
    """All write one text with random weights, from one token."""
    shape = replace(sizes.model, block_size=max(sizes.model.block_size, sizes.new_tokens + 1))
    model = GPT(shape).eval()
    writers = {OURS: ours(model, cache=True), "this course, no cache": ours(model, cache=False),
               "matrices alone": matrices_alone(model)}
    if options.nanogpt:
        writers["nanoGPT"] = nanogpt(options.nanogpt, shape)
    if installed("transformers"):
        writers["transformers"] = transformers(shape)
    idx = torch.zeros(1, 1, dtype=torch.long)

    def run(write):
        with torch.no_grad():
            return timed(write, idx, sizes.new_tokens)

    about = (f"{shape.n_layer} layers of width {shape.n_embd}, one text of {sizes.new_tokens} "
             "tokens. *Matrices alone* multiplies by every matrix once for each token")
    return Contest("Sampling", about, "tokens", sizes.new_tokens,
                   {name: lambda write=write: run(write) for name, write in writers.items()})


def bpe_training(sizes: Sizes, text: str, options: argparse.Namespace) -> Contest:
    text, vocab_size = text[:sizes.bpe_characters], sizes.vocab_size
    contestants = {OURS: lambda: timed(BPETokenizer.train, text, vocab_size)}
    if installed("tokenizers"):
        contestants["tokenizers"] = lambda: timed(train_huggingface, text, vocab_size)
    if installed("rustbpe"):
        contestants["rustbpe"] = lambda: timed(train_rustbpe, text, vocab_size)
    if options.minbpe:
        contestants["minbpe"] = lambda: timed(
            load_minbpe(options.minbpe).train, text, vocab_size)
    about = f"{len(text):,} characters, {vocab_size} tokens, GPT-4's pattern"
    return Contest("Training a tokenizer", about, "characters", len(text), contestants)


def train_rustbpe(text: str, vocab_size: int):
    import rustbpe
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator([text], vocab_size, pattern=GPT4_PATTERN)
    return tokenizer


def bpe_encoding(sizes: Sizes, text: str, options: argparse.Namespace) -> Contest:
    """All encode the same text. Those that can take our merges give our ids."""
    text = text[:sizes.bpe_characters]
    tokenizer = BPETokenizer.train(text, sizes.vocab_size)
    fast = to_tiktoken(tokenizer)
    contestants = {OURS: lambda: timed(encode_with_empty_cache, tokenizer, text),
                   "tiktoken": lambda: timed(fast.encode_ordinary, text)}
    if installed("tokenizers"):
        huggingface = train_huggingface(text, sizes.vocab_size)
        contestants["tokenizers"] = lambda: timed(huggingface.encode, text)
    if options.minbpe:
        minbpe = load_minbpe(options.minbpe, tokenizer.merges)
        contestants["minbpe"] = lambda: timed(minbpe.encode_ordinary, text)
    about = f"{len(text):,} characters, {sizes.vocab_size} tokens"
    return Contest("Encoding a text", about, "characters", len(text), contestants)


# The page -----------------------------------------------------------------------------------------


def write_page(about: dict, results: list[dict]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Speed, beside other libraries", "",
        f"Measured on {about['date']}: {about['machine']}, PyTorch {about['torch']}, "
        f"{about['dtype']}, {about['rounds']} rounds in turns. The ratio is the other's seconds "
        "divided by ours, the median over the rounds, with the lowest and the highest. Above 1, "
        "this course is faster.", "",
    ]
    if about["toy"]:
        lines += ["These are toy sizes, which only show that everything runs.", ""]
    for result in results:
        lines += [f"## {result['title']}", "", result["about"] + ".", "",
                  f"| | {result['unit']} per second | ratio |", "|---|---|---|"]
        for row in result["rows"]:
            ratio = "" if row["name"] == OURS else (
                f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})")
            lines.append(f"| {row['name']} | {row['rate']:,.0f} | {ratio} |")
        lines.append("")
    return "\n".join(lines)


def draw(results: list[dict]):
    """Return a figure with the ratios of all contests."""
    figure, panels = new_figure(columns=len(results), width=3.6 * len(results), height=2.8)
    for axes, result in zip(panels, results, strict=True):
        peers = [row for row in result["rows"] if row["name"] != OURS]
        ratios = [row["ratio"] for row in peers]
        errors = [[row["ratio"] - row["lowest"] for row in peers],
                  [row["highest"] - row["ratio"] for row in peers]]
        if peers:
            axes.errorbar(ratios, [row["name"] for row in peers], xerr=errors, fmt="o",
                          color=BLUE, capsize=3)
            axes.set_xscale("log")
            ends = min(row["lowest"] for row in peers), max(row["highest"] for row in peers)
            ticks = [tick for tick in TICKS if ends[0] / 2 < tick < ends[1] * 2]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
            axes.set_ylim(-0.5, len(peers) - 0.5)
        axes.axvline(1, color=GREY, linestyle=":")
        axes.invert_yaxis()
        axes.set(xlabel="their seconds / ours")
        axes.set_title(result["title"], fontsize=11, loc="left")
    return figure


if __name__ == "__main__":
    main()
