"""Whether plans come true: `gptlib.plan` against real runs of four shapes, in seconds and memory.

    python benchmarks/plan.py               about 7 minutes, on a machine that does nothing else
    python benchmarks/plan.py --seconds 5   a trial, which writes nothing

The results go to benchmarks/plan.json.

Each shape needs three fresh processes, because a process reports only its highest memory so far.
One calibrates, one runs and is timed, and one runs briefly and has its memory measured.

Peak memory is the peak of the process minus what it held just before the model was made. PyTorch is
warmed up by then. The C library keeps freed blocks for its next use, up to about 100 MB. The third
process tells it to return every block at once (glibc's MALLOC_MMAP_THRESHOLD_), so that its peak is
what the tensors need. That is what the plan counts. The peak of the second process is stored too.
"""

import argparse
import gc
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import torch
from recording import provenance, write_results

from gptlib.config import GPTConfig, TrainConfig
from gptlib.corpora import load_corpus
from gptlib.data import split
from gptlib.model import GPT
from gptlib.plan import Speed, calibrate, plan_run
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

PLAN = Path(__file__).resolve().parents[1] / "gptlib/plan.py"
SECONDS = 60                    # of each run
EVALUATIONS = 4                 # the one before the first step is included
# A part of the validation split, so that the large shapes spend most of their minute on training.
VAL_TOKENS = 20_000
CPU = TrainConfig(device="cpu", learning_rate=3e-4)
# name: (model, training)
SHAPES = {
    "chapter 4": (GPTConfig(65), CPU),
    "nanoGPT's laptop preset": (
        GPTConfig(65, init="gpt2", tie_weights=True),
        replace(CPU, batch_size=12)),
    "wide, as MyGPT": (
        GPTConfig(65, block_size=128, n_layer=3, n_head=8, n_embd=512, bias=True),
        replace(CPU, batch_size=8)),
    "long, with dropout": (
        GPTConfig(65, block_size=256, n_layer=4, n_head=4, n_embd=128, dropout=0.2),
        replace(CPU, batch_size=8)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS,
                        help="of each run; results of less than a minute are not written")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task = CHILDREN[options.child.pop("task")]
        print(json.dumps(task(**options.child)))
        return
    about = provenance()
    is_trial = options.seconds < SECONDS
    corpus = load_corpus("auto" if is_trial else "tinyshakespeare")
    runs = [compare(shape, corpus.name, options.seconds) for shape in SHAPES]
    if not is_trial:
        write_results("plan", {
            "measures": "seconds of a whole run, and the process's peak memory above what it held "
                        "before, planned and measured",
            "corpus": corpus.name,
            "corpus_sha256": corpus.sha256,
            "val_tokens": VAL_TOKENS,
            **about,
            "plan_code": hashlib.sha256(PLAN.read_bytes()).hexdigest()[:12],
            "seeds": [CPU.seed],
            "runs": runs,
        })


def compare(shape: str, corpus: str, seconds: float) -> dict:
    """Plan and run one shape. Return both numbers of seconds and of peak bytes."""
    model_config, train_config = SHAPES[shape]
    speed = Speed(**child("calibrate", shape=shape, corpus=corpus))
    train_config = fitting(train_config, speed, seconds)
    steps, interval = train_config.max_steps, train_config.eval_interval
    timed = child("run", shape=shape, corpus=corpus, max_steps=steps, eval_interval=interval)
    # Four steps have every kind of moment: steps, evaluations and checkpoints.
    weighed = child("run", shape=shape, corpus=corpus, max_steps=4, eval_interval=2,
                    return_memory=True)
    plan = plan_run(model_config, train_config, timed["train_tokens"], VAL_TOKENS, speed)
    run = {
        "shape": shape,
        "model": asdict(model_config),
        "training": asdict(train_config),
        "speed": asdict(speed),
        "peak_moment": plan.peak_moment,
        "process_peak_bytes": timed["peak_bytes"],
        "seconds": {"planned": plan.seconds, "measured": timed["seconds"]},
        "peak_bytes": {"planned": plan.peak, "measured": weighed["peak_bytes"]},
    }
    print_comparison(run)
    return run


def fitting(train_config: TrainConfig, speed: Speed, seconds: float) -> TrainConfig:
    """Return the config with as many steps as fit into `seconds`, and with four evaluations."""
    for_training = seconds - EVALUATIONS * (speed.evaluation + speed.checkpoint)
    steps = max(EVALUATIONS - 1, round(for_training / speed.step))
    interval = -(-steps // (EVALUATIONS - 1))
    return replace(train_config, max_steps=steps, eval_interval=interval)


def print_comparison(run: dict) -> None:
    parts = []
    for name in ("seconds", "peak_bytes"):
        planned, measured = run[name]["planned"], run[name]["measured"]
        parts.append(f"{name}: {planned:,.4g} planned, {measured:,.4g} measured "
                     f"({planned / measured - 1:+.1%})")
    parts.append(f"whole process {run['process_peak_bytes']:.4g}")
    print(f"{run['shape']:<26}" + "   ".join(parts), flush=True)


# The child processes ------------------------------------------------------------------------------


def child(task: str, return_memory: bool = False, **arguments) -> dict:
    """Run `task` in a fresh process. Return the JSON that the process prints in its last line.

    Args:
        return_memory: let the C library return freed blocks to the system at once.
    """
    environment = dict(os.environ)
    if return_memory:
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    command = [sys.executable, __file__, "--child", json.dumps({"task": task} | arguments)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                              env=environment)
    return json.loads(finished.stdout.splitlines()[-1])


def splits(corpus: str) -> tuple[torch.Tensor, torch.Tensor]:
    text = load_corpus(corpus).text
    ids = torch.tensor(CharTokenizer.from_text(text).encode(text))
    # All shapes have 65 tokens. Another corpus may have more.
    train_ids, val_ids = split(ids % 65)
    return train_ids, val_ids[:VAL_TOKENS]


def calibrate_shape(shape: str, corpus: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return asdict(calibrate(*SHAPES[shape], *splits(corpus), out_dir=folder))


def run_shape(shape: str, corpus: str, **settings) -> dict:
    """Train one shape. Return seconds, peak memory and the size of the training split."""
    model_config, train_config = SHAPES[shape]
    train_ids, val_ids = splits(corpus)
    with tempfile.TemporaryDirectory() as folder:
        warm_up(model_config, train_config, train_ids, val_ids, f"{folder}/warm-up")
        gc.collect()
        held_before = psutil.Process().memory_info().rss
        torch.manual_seed(train_config.seed)
        start = time.perf_counter()
        train(GPT(model_config), train_ids, val_ids, model_config.block_size,
              replace(train_config, **settings), out_dir=folder, progress=False)
        seconds = time.perf_counter() - start
    # ru_maxrss is in bytes on macOS and in KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "peak_bytes": peak - held_before, "train_tokens": len(train_ids)}


def warm_up(model_config: GPTConfig, train_config: TrainConfig, train_ids: torch.Tensor,
            val_ids: torch.Tensor, folder: str) -> None:
    """Train a tiny model for two steps, so that PyTorch has loaded all that a run needs."""
    config = GPTConfig(65, block_size=8, n_layer=1, n_head=1, n_embd=8,
                       dropout=model_config.dropout)
    train(GPT(config), train_ids, val_ids[:100], 8, replace(train_config, max_steps=2),
          out_dir=folder, progress=False)


CHILDREN = {"calibrate": calibrate_shape, "run": run_shape}

if __name__ == "__main__":
    main()
