"""What one context vector carries: the courier with ablations, its capacity, and real text.

    python benchmarks/context_rolling.py        about 40 minutes on one thread

The results go to benchmarks/context_rolling.json. Each finished run is stored in
runs/context_rolling/, so that a measurement that was interrupted continues where it stopped.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from recording import provenance, write_results

from gptlib.checkpoint import write_atomically
from gptlib.config import GPTConfig, TrainConfig
from gptlib.corpora import load_corpus
from gptlib.corpora.courier import Courier, courier_scores, train_on_courier
from gptlib.data import split
from gptlib.model import GPT, evaluating
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import RollingGPT, token_losses

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "runs/context_rolling"
SOURCES = [ROOT / "gptlib/variants/context_rolling.py", ROOT / "gptlib/corpora/courier.py"]
ROLLING_CODE = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:12]
SEEDS = (1, 2, 3)


# The courier: what is carried, and by which kind of memory ----------------------------------------

COURIER = Courier()
COURIER_TRAINING = TrainConfig(
    max_steps=900, batch_size=32, learning_rate=4e-3, warmup=40, eval_interval=25)
# name: (options of the model, number of seeds)
COURIER_ARMS = {
    "mean": ({"memory": "mean"}, 5),
    "memory token": ({"memory": "tokens"}, 3),
    "full attention": ({"memory": "attention"}, 3),
    "mean, detached": ({"memory": "mean", "detach": True}, 3),
    "last state": ({"memory": "last"}, 3),
    "mean, rescaled": ({"memory": "mean", "rescale": True}, 3),
    "4 memory tokens": ({"memory": "tokens", "n_memory": 4}, 3),
    "mean, GPT-2's initial weights": ({"memory": "mean", "init": "gpt2"}, 3),
}


def exchange(context: torch.Tensor) -> torch.Tensor:
    """Give each text of the batch the context of the text before it."""
    return context.roll(1, 0)


def courier_model(courier: Courier, options: dict, seed: int) -> GPT:
    torch.manual_seed(seed)
    return make_model(VariantConfig(
        vocab_size=courier.vocab_size, block_size=courier.n_windows * courier.window,
        n_layer=2, n_head=4, n_embd=48, window=courier.window, **options))


def courier_run(arm: str, seed: int) -> dict:
    """Train one arm. Return its scores: with its own context, with zeros, with another text's."""
    options, _ = COURIER_ARMS[arm]
    model = courier_model(COURIER, options, seed)
    curve = train_on_courier(model, COURIER, replace(COURIER_TRAINING, seed=seed))
    result = {"scores": courier_scores(model, COURIER)}
    if isinstance(model, RollingGPT):
        result["zero"] = courier_scores(model, COURIER, edit=torch.zeros_like)
        result["another's"] = courier_scores(model, COURIER, edit=exchange)
    result["parameters"] = sum(p.numel() for p in model.parameters())
    # Losses at steps 25, 50, …
    result["curve"] = [round(loss, 4) for step, loss in curve.items() if step > 0]
    return result


# Capacity: more facts in each window --------------------------------------------------------------

FACTS = (1, 2, 4)
CAPACITY_TRAINING = replace(COURIER_TRAINING, max_steps=600, eval_interval=600)
CAPACITY_ARMS = {
    "mean": {"memory": "mean"},
    "memory token": {"memory": "tokens"},
    "4 memory tokens": {"memory": "tokens", "n_memory": 4},
}


def capacity_run(arm: str, n_facts: int, seed: int) -> dict:
    """Train one arm on windows with `n_facts` facts. Return the loss of the answers."""
    courier = Courier(n_windows=3, n_facts=n_facts, lags=1, body=2 * n_facts)
    model = courier_model(courier, CAPACITY_ARMS[arm], seed)
    train_on_courier(model, courier, replace(CAPACITY_TRAINING, seed=seed))
    return {"answer": courier_scores(model, courier)["one back"]}


# Real text: how many real tokens the context is worth ---------------------------------------------

W, K = 32, 8                # tokens of a window, windows of an example
# 2048 characters a step, in all arms.
TEXT_TRAINING = TrainConfig(max_steps=800, batch_size=8, learning_rate=4e-3, eval_interval=800)
ROLLING_ARMS = {
    "no memory": "none",
    "mean": "mean",
    "last state": "last",
    "memory token": "tokens",
}
# GPTs with attention over this many windows at once.
ATTENTION_ARMS = {"attention over 64": 2, "attention over 256": K}
REAL_TOKENS = (0, 1, 2, 4, 8, 16, 32)


def text_run(corpus: str, arm: str, seed: int) -> dict:
    """Train one arm on a corpus. Return its losses, also by position in the window."""
    train_ids, val_ids, vocab_size = text_splits(corpus)
    n_windows = ATTENTION_ARMS.get(arm, K)
    torch.manual_seed(seed)
    model = text_model(arm, vocab_size, W * n_windows)
    training = replace(TEXT_TRAINING, seed=seed,
                       batch_size=TEXT_TRAINING.batch_size * K // n_windows)
    history = train(model, train_ids, val_ids, W * n_windows, training, progress=False).history
    result = {"val_loss": history[-1]["val_loss"],
              "parameters": sum(p.numel() for p in model.parameters())}
    if arm in ROLLING_ARMS:
        edits = {"real": None, "zero": torch.zeros_like, "another's": exchange}
        result["by_context"] = {name: losses_by_context(model, val_ids, edit)
                                for name, edit in edits.items()}
    elif n_windows == 2:
        result["by_real_tokens"] = {n: losses_by_real_tokens(model, val_ids, n)
                                    for n in REAL_TOKENS}
    return result


def text_model(arm: str, vocab_size: int, block_size: int) -> GPT:
    shape = {"vocab_size": vocab_size, "block_size": block_size,
             "n_layer": 2, "n_head": 4, "n_embd": 64}
    if arm in ATTENTION_ARMS:
        return make_model(GPTConfig(**shape))
    return make_model(VariantConfig(**shape, memory=ROLLING_ARMS[arm], window=W))


def text_splits(corpus: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return the training split, the validation split and the vocabulary size."""
    text = load_corpus(corpus).text
    tokenizer = CharTokenizer.from_text(text)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(text)))
    return train_ids, val_ids, tokenizer.vocab_size


def losses_by_context(model: RollingGPT, ids: torch.Tensor, edit: Callable | None) -> list[float]:
    """Return the loss at each position of a window, (W,), without each example's first window.

    Args:
        edit: changes each context on its way to the next window. None changes nothing.
    """
    n = (len(ids) - 1) // (W * K)
    examples = ids[:n * W * K + 1].unfold(0, W * K + 1, W * K)          # (n, W·K + 1)
    how = {"edit": edit} if edit else {}
    with evaluating(model):
        losses = [token_losses(model, part, **how) for part in examples.split(64)]
    # The first example is left out, because `losses_by_real_tokens` has no text before it.
    return torch.cat(losses).view(n, K, W)[1:, 1:].mean((0, 1)).tolist()


def losses_by_real_tokens(model: GPT, ids: torch.Tensor, n_before: int) -> list[float]:
    """Return the same losses for a model that also reads `n_before` real tokens before a window."""
    n = (len(ids) - 1) // (W * K)
    starts = W * torch.arange(n * K).view(n, K)[1:, 1:].flatten()       # of the same windows
    offsets = torch.arange(-n_before, W + 1)
    losses = []
    with evaluating(model):
        for part in starts.split(256):
            losses.append(token_losses(model, ids[part[:, None] + offsets])[:, n_before:])
    return torch.cat(losses).mean(0).tolist()


# All runs -----------------------------------------------------------------------------------------

EXPERIMENTS = {"courier": courier_run, "capacity": capacity_run, "text": text_run}


def all_runs() -> list[tuple]:
    """Return all runs as (experiment, arguments …, seed), ordered by seed.

    So an interrupted measurement has run every arm with the first seeds.
    """
    runs = [("courier", arm, seed)
            for arm, (_, n_seeds) in COURIER_ARMS.items() for seed in range(1, n_seeds + 1)]
    runs += [("capacity", arm, n_facts, seed)
             for arm in CAPACITY_ARMS for n_facts in FACTS for seed in SEEDS]
    for corpus in ("tinyshakespeare", "theatre"):
        for arm in (*ROLLING_ARMS, *ATTENTION_ARMS):
            if (corpus, arm) != ("theatre", "attention over 256"):
                runs += [("text", corpus, arm, seed) for seed in SEEDS]
    return sorted(runs, key=lambda run: run[-1])


def main() -> None:
    torch.set_num_threads(1)
    about = provenance()
    runs, done = all_runs(), []
    for i, run in enumerate(runs, 1):
        done.append((run, stored_result(run, f"{i}/{len(runs)}")))
        save(about, done, runs_left=len(runs) - i)


def stored_result(run: tuple, number: str) -> dict:
    """Return the result of a run. Execute it first if its result is not stored."""
    name = "-".join(map(str, (ROLLING_CODE, *run))).replace(" ", "_")
    path = STORED / f"{name}.json"
    if not path.is_file():
        experiment, *arguments = run
        start = time.process_time()
        result = EXPERIMENTS[experiment](*arguments)
        result["cpu_seconds"] = round(time.process_time() - start, 1)
        STORED.mkdir(parents=True, exist_ok=True)
        write_atomically({path: json.dumps(result).encode("utf-8")})
        print(f"{number}: {experiment} {arguments}: {result['cpu_seconds']} s", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def save(about: dict, done: list[tuple[tuple, dict]], runs_left: int) -> None:
    """Write the results of the runs that are done."""
    def results(experiment: str, *names: str) -> list[dict]:
        return [dict(zip(names, run[1:], strict=True)) | result
                for run, result in done if run[0] == experiment]

    shakespeare, theatre = load_corpus("tinyshakespeare"), load_corpus("theatre")
    write_results("context_rolling", {
        "measures": "losses in nats: of the courier's answers and tokens, and of text by position "
                    "in a window of 32 characters",
        "corpus": shakespeare.name,
        "corpus_sha256": shakespeare.sha256,
        "theatre_sha256": theatre.sha256,
        **about,
        "rolling_code": ROLLING_CODE,
        "seeds": SEEDS,
        "runs_left": runs_left,
        "courier": {"rules": asdict(COURIER), "floors": COURIER.floors(),
                    "training": asdict(COURIER_TRAINING),
                    "runs": results("courier", "arm", "seed")},
        "capacity": {"training": asdict(CAPACITY_TRAINING), "n_values": COURIER.n_values,
                     "runs": results("capacity", "arm", "n_facts", "seed")},
        "text": {"window": W, "windows": K, "training": asdict(TEXT_TRAINING),
                 "runs": results("text", "corpus", "arm", "seed")},
    })


if __name__ == "__main__":
    main()
