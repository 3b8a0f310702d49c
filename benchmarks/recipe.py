"""What each choice of chapter 4's recipe buys: the validation loss with that choice undone, three seeds each.

    python benchmarks/recipe.py             about 25 minutes on two quiet cores; writes benchmarks/recipe.json

The losses do not depend on how busy the machine is, so no seconds are kept here; chapter 4 shows its own.
"""

import json
import platform
import statistics
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from gptlib.config import GPTConfig, TrainConfig
from gptlib.data import load_corpus, split
from gptlib.leaderboard import code_hash
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

HERE = Path(__file__).resolve().parent
SEEDS = (1, 2, 3)
MODEL, TRAINING = GPTConfig(vocab_size=65), TrainConfig(eval_interval=500)
ARMS = {
    "chapter 4": (MODEL, TRAINING),
    "GPT-2's initial weights": (replace(MODEL, init="gpt2"), TRAINING),
    "tied head": (replace(MODEL, tie_weights=True), TRAINING),
    "learning rate 1e-3": (MODEL, replace(TRAINING, learning_rate=1e-3)),
    "nanoGPT's laptop recipe": (replace(MODEL, init="gpt2", tie_weights=True),
                                TrainConfig(max_steps=2000, batch_size=12, learning_rate=1e-3, min_lr=1e-4, eval_interval=500)),
}


def main() -> None:
    corpus = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(corpus.text)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(corpus.text)))
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    about = {"measures": "validation loss in nats per character at the last step, the whole split in windows of 64", "corpus": corpus.name,
             "corpus_sha256": corpus.sha256, "date": time.strftime("%Y-%m-%d"), "revision": revision, "code": code_hash(),
             "machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__}
    arms = []
    for name, (model_config, train_config) in ARMS.items():
        runs = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            result = train(GPT(model_config), train_ids, val_ids, model_config.block_size, replace(train_config, seed=seed))
            runs.append({"seed": seed, "val_loss": result.history[-1]["val_loss"]})
        losses = [run["val_loss"] for run in runs]
        arms.append({"arm": name, "model": asdict(model_config), "training": asdict(train_config), "runs": runs,
                     "mean": statistics.mean(losses), "std": statistics.stdev(losses)})
        print(f"{name}: {arms[-1]['mean']:.4f} ± {arms[-1]['std']:.4f}", flush=True)
    (HERE / "recipe.json").write_text(json.dumps(about | {"arms": arms}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
