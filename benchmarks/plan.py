"""Do plans come true? The plan of `gptlib.plan` against real runs of a minute, for four shapes: seconds and peak memory.

    python benchmarks/plan.py               about 7 minutes, alone on the machine; writes benchmarks/plan.json
    python benchmarks/plan.py --seconds 5   a trial; writes nothing

Each shape is calibrated in one fresh process, run in a second and weighed in a third, because a process never forgets
its highest peak. Peak memory is that of the process less what it held just before the model was made, PyTorch warmed up
by then. The C library keeps what a program frees for its next use, up to some 100 MB more than is needed at once; the
third process tells it to give every block back (glibc's MALLOC_MMAP_THRESHOLD_), so that what is weighed is what the
tensors need, which is what the plan counts. The second one's peak, habits of the C library included, is kept beside it.
"""

import argparse
import gc
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import torch

from gptlib.config import GPTConfig, TrainConfig
from gptlib.data import load_corpus, split
from gptlib.leaderboard import code_hash
from gptlib.model import GPT
from gptlib.plan import Speed, calibrate, plan_run
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

HERE = Path(__file__).resolve().parent
SECONDS = 60                    # of each run
EVALUATIONS = 4                 # the first one among them
VAL_TOKENS = 20_000             # a part of the split, so that the large shapes spend their minute on training too
CPU = TrainConfig(device="cpu", learning_rate=3e-4)
SHAPES = {
    "chapter 4": (GPTConfig(65), CPU),
    "nanoGPT's laptop preset": (GPTConfig(65, init="gpt2", tie_weights=True), replace(CPU, batch_size=12)),
    "wide, as MyGPT": (GPTConfig(65, block_size=128, n_layer=3, n_head=8, n_embd=512, bias=True), replace(CPU, batch_size=8)),
    "long, with dropout": (GPTConfig(65, block_size=256, n_layer=4, n_head=4, n_embd=128, dropout=0.2), replace(CPU, batch_size=8)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run; what is shorter than a minute is not kept")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child.pop("task")](**options.child)))
        return
    corpus = load_corpus("tinyshakespeare" if options.seconds >= SECONDS else "auto")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    about = {"measures": "seconds of a whole run, and the process's peak memory above what it held before, planned and measured",
             "corpus": corpus.name, "corpus_sha256": corpus.sha256, "val_tokens": VAL_TOKENS, "date": time.strftime("%Y-%m-%d"),
             "revision": revision, "code": code_hash(),
             "plan_code": hashlib.sha256((HERE.parent / "gptlib/plan.py").read_bytes()).hexdigest()[:12],
             "machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__}
    runs = []
    for name, (model_config, train_config) in SHAPES.items():
        speed = Speed(**child("calibrate", shape=name, corpus=corpus.name))
        steps = max(EVALUATIONS - 1, round((options.seconds - EVALUATIONS * (speed.evaluation + speed.checkpoint)) / speed.step))
        train_config = replace(train_config, max_steps=steps, eval_interval=-(-steps // (EVALUATIONS - 1)))
        measured = child("run", shape=name, corpus=corpus.name, max_steps=steps, eval_interval=train_config.eval_interval)
        weighed = child("run", shape=name, corpus=corpus.name, max_steps=4, eval_interval=2, give_back=True)   # every kind of moment
        measured |= {"peak_bytes": weighed["peak_bytes"], "process_peak_bytes": measured["peak_bytes"]}
        plan = plan_run(model_config, train_config, measured.pop("train_tokens"), VAL_TOKENS, speed)
        planned = {"seconds": plan.seconds, "peak_bytes": plan.peak}
        runs.append({"shape": name, "model": asdict(model_config), "training": asdict(train_config), "speed": asdict(speed),
                     "peak_moment": plan.peak_moment, "process_peak_bytes": measured["process_peak_bytes"]}
                    | {key: {"planned": planned[key], "measured": measured[key]} for key in planned})
        print(f"{name:<26}" + "   ".join(f"{key}: {planned[key]:,.4g} planned, {measured[key]:,.4g} measured "
                                         f"({planned[key] / measured[key] - 1:+.1%})" for key in planned)
              + f"   whole process {measured['process_peak_bytes']:.4g}", flush=True)
    if options.seconds >= SECONDS:
        (HERE / "plan.json").write_text(json.dumps(about | {"runs": runs}, indent=1) + "\n", encoding="utf-8")


def child(task: str, give_back: bool = False, **what) -> dict:
    """What a fresh process that does `task` reports in its last line."""
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if give_back else {})
    command = [sys.executable, __file__, "--child", json.dumps({"task": task} | what)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.splitlines()[-1])


def splits(corpus: str) -> tuple[torch.Tensor, torch.Tensor]:
    text = load_corpus(corpus).text
    train_ids, val_ids = split(torch.tensor(CharTokenizer.from_text(text).encode(text)) % 65)      # whatever the corpus: 65 tokens
    return train_ids, val_ids[:VAL_TOKENS]


def calibrated(shape: str, corpus: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return asdict(calibrate(*SHAPES[shape], *splits(corpus), out_dir=folder))


def run(shape: str, corpus: str, **settings) -> dict:
    model_config, train_config = SHAPES[shape]
    train_ids, val_ids = splits(corpus)
    small = GPTConfig(65, block_size=8, n_layer=1, n_head=1, n_embd=8, dropout=model_config.dropout)
    with tempfile.TemporaryDirectory() as folder:
        train(GPT(small), train_ids, val_ids[:100], 8, replace(train_config, max_steps=2), out_dir=folder, progress=False)   # warm-up
        gc.collect()
        before = psutil.Process().memory_info().rss
        torch.manual_seed(train_config.seed)
        start = time.perf_counter()
        train(GPT(model_config), train_ids, val_ids, model_config.block_size, replace(train_config, **settings), out_dir=folder,
              progress=False)
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024                      # of ru_maxrss
    return {"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before,
            "train_tokens": len(train_ids)}


CHILDREN = {"calibrate": calibrated, "run": run}

if __name__ == "__main__":
    main()
