"""What one vector carries: the courier and its ablations, how many facts fit, and what it is worth on real text.

    python benchmarks/context_rolling.py              about 40 minutes on one quiet thread; writes benchmarks/context_rolling.json

Each run that is done is kept in runs/context_rolling/, so an interrupted measurement goes on where it stopped.
"""

import hashlib
import json
import platform
import statistics
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from gptlib.checkpoint import write_atomically
from gptlib.config import GPTConfig, TrainConfig
from gptlib.context_rolling import RollingConfig, RollingGPT, token_losses
from gptlib.courier import Courier, courier_scores, train_on_courier
from gptlib.data import load_corpus, split
from gptlib.leaderboard import code_hash
from gptlib.model import GPT, evaluating
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

HERE = Path(__file__).resolve().parent
SEEDS = (1, 2, 3)
KEPT = HERE.parent / "runs/context_rolling"
SOURCES = [(HERE.parent / f"gptlib/{name}.py").read_bytes() for name in ("context_rolling", "courier")]
OWN_CODE = hashlib.sha256(b"".join(SOURCES)).hexdigest()[:12]

# The courier: what is carried, and how ----------------------------------------------------------------------------------

COURIER = Courier()
COURIER_TRAINING = TrainConfig(max_steps=900, batch_size=32, learning_rate=4e-3, warmup=40)
COURIER_ARMS = {                    # name: (what differs, seeds)
    "mean": ({}, 5),
    "memory token": ({"memory": "tokens"}, 3),
    "full attention": (None, 3),
    "mean, detached": ({"detach": True}, 3),
    "last state": ({"memory": "last"}, 3),
    "mean, rescaled": ({"rescale": True}, 3),
    "4 memory tokens": ({"memory": "tokens", "n_memory": 4}, 3),
    "mean, GPT-2's initial weights": ({"init": "gpt2"}, 3),
}


def courier_model(courier: Courier, how: dict | None, seed: int):
    shape = dict(vocab_size=courier.vocab_size, block_size=courier.n_windows * courier.window, n_layer=2, n_head=4, n_embd=48)
    torch.manual_seed(seed)
    return GPT(GPTConfig(**shape)) if how is None else RollingGPT(RollingConfig(**shape, window=courier.window, **how))


def courier_run(arm: str, seed: int) -> dict:
    model = courier_model(COURIER, COURIER_ARMS[arm][0], seed)
    curve = train_on_courier(model, COURIER, replace(COURIER_TRAINING, seed=seed))
    result = {"scores": courier_scores(model, COURIER)}
    if isinstance(model, RollingGPT):
        result["zero"] = courier_scores(model, COURIER, edit=torch.zeros_like)
        result["another's"] = courier_scores(model, COURIER, edit=lambda context: context.roll(1, 0))
    return result | {"parameters": sum(p.numel() for p in model.parameters()), "curve": means(curve, 25)}


# Capacity: more facts in each window --------------------------------------------------------------------------------------

FACTS = (1, 2, 4)
CAPACITY_TRAINING = replace(COURIER_TRAINING, max_steps=600)
CAPACITY_ARMS = {"mean": {}, "memory token": {"memory": "tokens"}, "4 memory tokens": {"memory": "tokens", "n_memory": 4}}


def capacity_run(arm: str, n_facts: int, seed: int) -> dict:
    courier = Courier(n_windows=3, n_facts=n_facts, lags=1, body=2 * n_facts)
    model = courier_model(courier, CAPACITY_ARMS[arm], seed)
    train_on_courier(model, courier, replace(CAPACITY_TRAINING, seed=seed))
    return {"answer": courier_scores(model, courier)["one back"]}


# Text: what the vector is worth in real tokens ------------------------------------------------------------------------------

W, K = 32, 8
TEXT_TRAINING = TrainConfig(max_steps=800, batch_size=8, learning_rate=4e-3, eval_interval=800)      # 2048 characters a step, in all arms
TEXT_ARMS = {"no memory": {"memory": "none"}, "mean": {}, "last state": {"memory": "last"}, "memory token": {"memory": "tokens"}}
PLAIN_ARMS = {"attention over 64": 2, "attention over 256": K}                                       # GPTs, over so many windows at once
REAL_TOKENS = (0, 1, 2, 4, 8, 16, 32)


def text_run(corpus: str, arm: str, seed: int) -> dict:
    train_ids, val_ids, V = text_splits(corpus)
    windows = PLAIN_ARMS.get(arm, K)
    shape = dict(vocab_size=V, block_size=W * windows, n_layer=2, n_head=4, n_embd=64)
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**shape)) if arm in PLAIN_ARMS else RollingGPT(RollingConfig(**shape, window=W, **TEXT_ARMS[arm]))
    recipe = replace(TEXT_TRAINING, seed=seed, batch_size=TEXT_TRAINING.batch_size * K // windows)
    history = train(model, train_ids, val_ids, W * windows, recipe, progress=False).history
    result = {"val_loss": history[-1]["val_loss"], "parameters": sum(p.numel() for p in model.parameters())}
    if arm in TEXT_ARMS:
        edits = {"real": None, "zero": torch.zeros_like, "another's": lambda context: context.roll(1, 0)}
        result["by_context"] = {name: by_place_rolling(model, val_ids, edit) for name, edit in edits.items()}
    elif windows == 2:
        result["by_real_tokens"] = {r: by_place(model, val_ids, r) for r in REAL_TOKENS}
    return result


def text_splits(corpus: str):
    text = load_corpus(corpus).text
    tokenizer = CharTokenizer.from_text(text)
    return *split(torch.tensor(tokenizer.encode(text))), tokenizer.vocab_size


def by_place_rolling(model: RollingGPT, ids: torch.Tensor, edit) -> list[float]:
    """Loss at each place of a window, (W,), over all windows of each example but the first."""
    n = (len(ids) - 1) // (W * K)
    blocks = ids[:n * W * K + 1].unfold(0, W * K + 1, W * K)                            # (n, W·K + 1)
    with evaluating(model):
        losses = torch.cat([token_losses(model, part, **({"edit": edit} if edit else {})) for part in blocks.split(64)])
    return losses.view(n, K, W)[1:, 1:].mean((0, 1)).tolist()                           # the first example has no past, see below


def by_place(model: GPT, ids: torch.Tensor, before: int) -> list[float]:
    """The same targets, where a window is read with the `before` real tokens that stand in front of it."""
    n = (len(ids) - 1) // (W * K)
    starts = torch.arange(n * K).view(n, K)[1:, 1:].flatten() * W                       # of the same windows
    with evaluating(model):
        losses = [token_losses(model, ids[part[:, None] + torch.arange(-before, W + 1)])[:, before:] for part in starts.split(256)]
    return torch.cat(losses).mean(0).tolist()


# All of it ----------------------------------------------------------------------------------------------------------------

def means(curve: list[float], n: int) -> list[float]:
    return [round(statistics.mean(curve[i:i + n]), 4) for i in range(0, len(curve), n)]


def plan() -> list[tuple]:
    """All runs, one seed after the other, so that a measurement cut short has seen every arm."""
    runs = [("courier", arm, seed) for arm, (_, seeds) in COURIER_ARMS.items() for seed in range(1, seeds + 1)]
    runs += [("capacity", arm, n_facts, seed) for arm in CAPACITY_ARMS for n_facts in FACTS for seed in SEEDS]
    runs += [("text", corpus, arm, seed) for corpus in ("tinyshakespeare", "theatre") for arm in (*TEXT_ARMS, *PLAIN_ARMS)
             for seed in SEEDS if (corpus, arm) != ("theatre", "attention over 256")]
    return sorted(runs, key=lambda run: run[-1])


def main() -> None:
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    done, runs = [], plan()
    for i, (experiment, *what) in enumerate(runs):
        path = KEPT / ("-".join(map(str, (OWN_CODE, experiment, *what))).replace(" ", "_") + ".json")
        if not path.is_file():
            start = time.process_time()
            result = {"courier": courier_run, "capacity": capacity_run, "text": text_run}[experiment](*what)
            result["cpu_seconds"] = round(time.process_time() - start, 1)
            write_atomically(path, json.dumps(result).encode("utf-8"))
            print(f"{i + 1}/{len(runs)}: {experiment} {what}: {result['cpu_seconds']} s", flush=True)
        done.append((experiment, what, json.loads(path.read_text(encoding="utf-8"))))
        save(done)


def save(done: list[tuple[str, list, dict]]) -> None:
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    of = lambda experiment, *names: [dict(zip(names, what, strict=True)) | result for kind, what, result in done if kind == experiment]
    shakespeare, plays = load_corpus("tinyshakespeare"), load_corpus("theatre")
    about = {
        "measures": "losses in nats: of the courier's answers and tokens, and of text by place in a window of 32 characters",
        "corpus": shakespeare.name, "corpus_sha256": shakespeare.sha256, "theatre_sha256": plays.sha256,
        "date": time.strftime("%Y-%m-%d"), "revision": revision, "code": code_hash(), "rolling_code": OWN_CODE,
        "machine": f"{platform.machine()}, 1 threads", "torch": torch.__version__, "runs_left": len(plan()) - len(done),
        "courier": {"rules": asdict(COURIER), "floors": COURIER.floors(), "training": asdict(COURIER_TRAINING),
                    "runs": of("courier", "arm", "seed")},
        "capacity": {"training": asdict(CAPACITY_TRAINING), "n_values": COURIER.n_values, "runs": of("capacity", "arm", "n_facts", "seed")},
        "text": {"window": W, "windows": K, "training": asdict(TEXT_TRAINING), "runs": of("text", "corpus", "arm", "seed")},
    }
    (HERE / "context_rolling.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
