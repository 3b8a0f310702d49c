"""What each choice of chapter 4's recipe gains: the validation loss without that choice.

    python benchmarks/recipe.py                     about 25 minutes on two cores
    python benchmarks/recipe.py --nanogpt PATH      also times a checkout of karpathy/nanoGPT
    python benchmarks/recipe.py --trial             a few steps of each run; writes nothing

The results go to benchmarks/recipe.json.

The losses do not depend on what else the machine does, but the seconds do.

The comparison with nanoGPT trains the same shape with the same batch size, by nanoGPT's own
train.py and by `gptlib.train`. Each round times one after the other. The result of a round is the
median over its steps. The final result is the median over the rounds, so that a slow minute does
not decide.
"""

import argparse
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch
from recording import provenance, revision, write_results

from gptlib.config import GPTConfig, TrainConfig
from gptlib.corpora import load_corpus
from gptlib.data import split
from gptlib.model import GPT
from gptlib.plan import WARM_UP, calibrate
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

SEEDS = (1, 2, 3)
MODEL = GPTConfig(vocab_size=65)
TRAINING = TrainConfig(eval_interval=500)
LAPTOP_MODEL = replace(MODEL, init="gpt2", tie_weights=True)
LAPTOP_TRAINING = TrainConfig(max_steps=2000, batch_size=12, learning_rate=1e-3, min_lr=1e-4,
                              eval_interval=500)
ARMS = {
    "chapter 4": (MODEL, TRAINING),
    "GPT-2's initial weights": (replace(MODEL, init="gpt2"), TRAINING),
    "tied head": (replace(MODEL, tie_weights=True), TRAINING),
    "learning rate 1e-3": (MODEL, replace(TRAINING, learning_rate=1e-3)),
    "nanoGPT's laptop recipe": (LAPTOP_MODEL, LAPTOP_TRAINING),
}
MEASURES = ("validation loss in nats per character at the last step, the whole split in windows of "
            "64; seconds of training, evaluations left out")
# The comparison of speeds.
ROUNDS = 5
TIMED_STEPS = 200


def main() -> None:
    options = parse_options(__doc__)
    about = provenance()
    corpus = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(corpus.text)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(corpus.text)))
    results = {"measures": MEASURES, "corpus": corpus.name, "corpus_sha256": corpus.sha256,
               **about, "seeds": SEEDS}
    if options.nanogpt:
        rounds, steps = (1, 5) if options.trial else (ROUNDS, TIMED_STEPS)
        results["speed"] = compare_speed(options.nanogpt, train_ids, val_ids, rounds, steps)
    seeds, max_steps = SEEDS, None
    if options.trial:
        seeds, max_steps, val_ids = SEEDS[:2], 3, val_ids[:1000]
    results["arms"] = [measure_arm(name, train_ids, val_ids, seeds, max_steps) for name in ARMS]
    if not options.trial:
        write_results("recipe", results)


def parse_options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, metavar="PATH",
                        help="a checkout of karpathy/nanoGPT, to compare the speeds")
    parser.add_argument("--trial", action="store_true", help="a few steps; nothing is written")
    return parser.parse_args()


# The recipe ---------------------------------------------------------------------------------------


def measure_arm(name: str, train_ids: torch.Tensor, val_ids: torch.Tensor, seeds: tuple[int, ...],
                max_steps: int | None = None) -> dict:
    """Train one arm with each seed. Return its configs, its runs, and mean and deviation."""
    model_config, train_config = ARMS[name]
    if max_steps:
        train_config = replace(train_config, max_steps=max_steps)
    runs = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = GPT(model_config)
        result = train(model, train_ids, val_ids, model_config.block_size,
                       replace(train_config, seed=seed))
        last = result.history[-1]
        runs.append({"seed": seed, "val_loss": last["val_loss"], "seconds": last["seconds"]})
    losses = [run["val_loss"] for run in runs]
    mean, std = statistics.mean(losses), statistics.stdev(losses)
    seconds = statistics.mean(run["seconds"] for run in runs)
    print(f"{name}: {mean:.4f} ± {std:.4f}, {seconds:.0f} s", flush=True)
    return {"arm": name, "model": asdict(model_config), "training": asdict(train_config),
            "runs": runs, "mean": mean, "std": std}


# The comparison with nanoGPT ----------------------------------------------------------------------


def compare_speed(nanogpt: Path, train_ids: torch.Tensor, val_ids: torch.Tensor, rounds: int,
                  steps: int) -> dict:
    """Return tokens per second of training for the laptop recipe, ours and nanoGPT's."""
    tokens = LAPTOP_TRAINING.batch_size * LAPTOP_MODEL.block_size
    config, training = LAPTOP_MODEL, replace(LAPTOP_TRAINING, device="cpu")
    seconds = {"ours": [], "nanoGPT": []}
    with tempfile.TemporaryDirectory() as folder:
        write_nanogpt_data(Path(folder), train_ids, val_ids)
        for _ in range(rounds):
            ours = calibrate(config, training, train_ids, val_ids, steps).step
            theirs = nanogpt_seconds(nanogpt.resolve(), Path(folder), steps)
            seconds["ours"].append(ours)
            seconds["nanoGPT"].append(theirs)
            print(f"ours {tokens / ours:,.0f}, nanoGPT {tokens / theirs:,.0f} tokens/s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {"model": asdict(config), "training": asdict(training), "steps": steps,
            "nanogpt_revision": revision(nanogpt), "seconds_per_step": seconds,
            "tokens_per_second": {name: tokens / step for name, step in medians.items()}}


def write_nanogpt_data(folder: Path, train_ids: torch.Tensor, val_ids: torch.Tensor) -> None:
    """Write the splits and the vocabulary size in the format that nanoGPT's train.py reads."""
    for name, ids in (("train", train_ids), ("val", val_ids)):
        ids.numpy().astype("uint16").tofile(folder / f"{name}.bin")
    # Without this file train.py takes the 50,304 tokens of GPT-2, which makes it far slower.
    vocabulary = {"vocab_size": LAPTOP_MODEL.vocab_size}
    (folder / "meta.pkl").write_bytes(pickle.dumps(vocabulary))


def nanogpt_seconds(nanogpt: Path, data: Path, steps: int) -> float:
    """Run nanoGPT's train.py with its laptop recipe. Return the median seconds of a step."""
    settings = {
        "device": "cpu", "compile": False, "block_size": LAPTOP_MODEL.block_size,
        "batch_size": LAPTOP_TRAINING.batch_size, "n_layer": LAPTOP_MODEL.n_layer,
        "n_head": LAPTOP_MODEL.n_head, "n_embd": LAPTOP_MODEL.n_embd, "dropout": 0.0,
        "lr_decay_iters": LAPTOP_TRAINING.max_steps,
        # Only for the measurement: our data, as few evaluations as possible, a time for each step.
        "max_iters": WARM_UP + steps, "dataset": data, "out_dir": data, "eval_iters": 1,
        "eval_interval": 1_000_000, "log_interval": 1,
    }
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
    command += [f"--{name}={value}" for name, value in settings.items()]
    printed = subprocess.run(command, cwd=nanogpt, check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    milliseconds = re.findall(r"^iter .* time ([\d.]+)ms", printed, re.MULTILINE)
    return statistics.median(float(time) for time in milliseconds[-steps:]) / 1000


if __name__ == "__main__":
    main()
