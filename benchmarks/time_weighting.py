"""MyGPT's claims about time-weighting, with controls: what the weights buy, what token shift buys, and what they cost.

    python benchmarks/time_weighting.py             about 70 CPU-minutes on one thread; writes benchmarks/time_weighting.json

Every arm begins with the same weights and reads the same batches. A run that has finished is kept in
build/time_weighting, so that what was cut off goes on where it stopped. Kept runs count only for code that computes the
same: the folder's name is a digest of the first losses of every arm, to the last bit.

A run's own seconds depend on what else the machine does. So the cost of a step is measured apart, in CPU time and in turns
(a few steps of each arm, then again), and a slower arm is held against plain attention that trained for more steps.
"""

import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch
from torch.nn import functional as F

from gptlib.config import GPTConfig, TrainConfig
from gptlib.data import get_batch, load_corpus, split
from gptlib.floor import gap_by_kind
from gptlib.leaderboard import code_hash
from gptlib.model import GPT
from gptlib.theatre import generate
from gptlib.tokenizer import CharTokenizer
from gptlib.train import make_optimizer, train

HERE = Path(__file__).resolve().parent
OWN_CODE = hashlib.sha256((HERE.parent / "gptlib/time_weighting.py").read_bytes()).hexdigest()[:12]
CODE = code_hash()                              # before the long runs: of the code that they use
KEPT = HERE.parent / "build/time_weighting"
SEEDS = (1, 2, 3)
MODEL = GPTConfig(vocab_size=65, block_size=64, n_layer=3, n_head=4, n_embd=64)
TRAINING = TrainConfig(max_steps=2000, batch_size=8, eval_interval=500, device="cpu")
LONGER = replace(TRAINING, max_steps=3000, eval_interval=1500)
ARMS = [dict(attention=attention, position=position, token_shift=shift) for shift, position, attention in product(
    (False, True), ("learned", "none"), ("plain", "time_weighted", "toeplitz", "relative_bias"))]
ON_STAGE = [arm for arm in ARMS if (arm["attention"], arm["position"], arm["token_shift"]) in {
    ("plain", "learned", False), ("toeplitz", "learned", False), ("relative_bias", "learned", False),
    ("plain", "learned", True), ("plain", "none", False), ("toeplitz", "none", False)}]
STAGE = replace(MODEL, block_size=256)
STAGE_TRAINING = replace(TRAINING, batch_size=4, max_steps=1200, eval_interval=600)
LEVEL, STAGE_TEXT = 2, dict(n_characters=100_000, level=2, seed=1)          # plays that no model has seen


def main() -> None:
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    shakespeare, theatre = load_corpus("tinyshakespeare"), load_corpus("theatre2")
    about = {"measures": "validation loss in nats per character over the whole split in windows of the block size; on the theatre also "
                         "excess nats per play, split by kind of dependency; cost: CPU milliseconds of a training step, on one thread",
             "corpus": shakespeare.name, "corpus_sha256": shakespeare.sha256, "date": time.strftime("%Y-%m-%d"),
             "revision": revision, "code": CODE, "time_weighting_code": OWN_CODE,
             "machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__,
             "model": asdict(MODEL), "training": asdict(TRAINING),
             "theatre": {"level": LEVEL, "text": STAGE_TEXT, "model": asdict(STAGE), "training": asdict(STAGE_TRAINING)}}
    todo = [(arm, TRAINING, seed, shakespeare) for seed in SEEDS for arm in ARMS]
    todo += [(arm, LONGER, seed, shakespeare) for seed in SEEDS for arm in ARMS if arm["attention"] == "plain"]
    todo += [(arm, STAGE_TRAINING, seed, theatre) for seed in SEEDS for arm in ON_STAGE]
    folder = KEPT / digest(shakespeare, theatre)
    costs = kept(folder / "cost.json", lambda: cost(ARMS, shakespeare))
    runs = []
    for i, (arm, training, seed, corpus) in enumerate(todo, 1):
        name = f"{corpus.name} {training.max_steps} {' '.join(map(str, arm.values()))} {seed}"
        runs.append(kept(folder / f"{name}.json", lambda: run(arm, replace(training, seed=seed), corpus)))     # noqa: B023 (called at once)
        print(f"{i}/{len(todo)} {name}: {runs[-1]['curve'][-1]['val_loss']:.4f}", flush=True)
    arms = [arm | {"corpus": corpus, "steps": steps} | summary([run for run in runs if run["corpus"] == corpus and run["steps"] == steps
                                                               and all(run[key] == arm[key] for key in arm)])
            for corpus, steps, arms in ((shakespeare.name, TRAINING.max_steps, ARMS),
                                        (shakespeare.name, LONGER.max_steps, [a for a in ARMS if a["attention"] == "plain"]),
                                        (theatre.name, STAGE_TRAINING.max_steps, ON_STAGE)) for arm in arms]
    (HERE / "time_weighting.json").write_text(json.dumps(about | {"cost": costs, "arms": arms, "runs": runs}, indent=1) + "\n",
                                              encoding="utf-8")


def digest(shakespeare, theatre) -> str:
    """12 digits that change when a run would come out otherwise: other texts or settings, or code whose first losses differ."""
    seen = [shakespeare.sha256, theatre.sha256, MODEL, TRAINING, LONGER, STAGE, STAGE_TRAINING, STAGE_TEXT]
    tokenizer = CharTokenizer.from_text(shakespeare.text)
    ids = torch.tensor(tokenizer.encode(shakespeare.text[:20_000]))
    for arm in ARMS:
        model = make_model(replace(MODEL, **arm), seed=1)
        history = train(model, ids[:-1000], ids[-1000:], MODEL.block_size, replace(TRAINING, max_steps=4, eval_interval=2), progress=False)
        seen += [(row["train_loss"], row["val_loss"]) for row in history.history]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]


def kept(path: Path, work):
    """What `work()` gives, from the file that keeps it if it has been done before."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(work()), encoding="utf-8")
        os.replace(partial, path)
    return json.loads(path.read_text(encoding="utf-8"))


def make_model(config: GPTConfig, seed: int) -> GPT:
    """A model of `config` whose weights are those of plain attention with learned positions, wherever both have them."""
    torch.manual_seed(seed)
    plain = GPT(replace(config, attention="plain", position="learned")).state_dict()
    model = GPT(config)
    own = model.state_dict()
    model.load_state_dict(own | {name: weight for name, weight in plain.items() if name in own})
    return model


def run(arm: dict, training: TrainConfig, corpus) -> dict:
    on_stage = corpus.name != "tinyshakespeare"
    tokenizer = CharTokenizer.from_text(corpus.text)
    config = replace(STAGE if on_stage else MODEL, vocab_size=tokenizer.vocab_size, **arm)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(corpus.text)))
    model = make_model(config, training.seed)
    start, cpu = time.process_time(), []
    result = train(model, train_ids, val_ids, config.block_size, training, progress=False,
                   on_eval=lambda row: cpu.append(time.process_time() - start))
    curve = [{key: row[key] for key in ("step", "seconds", "train_loss", "val_loss")} | {"cpu_seconds_evaluations_too": at}
             for row, at in zip(result.history, cpu, strict=True)]
    row = arm | {"corpus": corpus.name, "steps": training.max_steps, "seed": training.seed, "curve": curve,
                 "parameters": model.parameter_table()["total"]}
    if on_stage:
        row["gap_by_kind"] = gap_by_kind(model, tokenizer, generate(**STAGE_TEXT), LEVEL)
    elif training.seed == SEEDS[0] and arm["attention"] in ("toeplitz", "relative_bias"):
        row["by_distance"] = [[[round(u, 4) for u in head] for head in block.attention.by_distance.tolist()] for block in model.blocks]
    return row


def cost(arms: list[dict], corpus, rounds: int = 15, steps: int = 10) -> list[dict]:
    """CPU milliseconds of a training step of each arm: the median over the rounds."""
    tokenizer = CharTokenizer.from_text(corpus.text)
    ids, _ = split(torch.tensor(tokenizer.encode(corpus.text)))
    models = [GPT(replace(MODEL, **arm)) for arm in arms]
    optimizers = [make_optimizer(model, TRAINING) for model in models]
    taken = [[] for _ in arms]
    for n in range(rounds):
        x, y = get_batch(ids, MODEL.block_size, TRAINING.batch_size, 0, n)
        for model, optimizer, times in zip(models, optimizers, taken, strict=True):
            start = time.process_time()
            for _ in range(steps):
                loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING.grad_clip)
                optimizer.step()
            times.append(1000 * (time.process_time() - start) / steps)
    return [arm | {"ms_per_step": statistics.median(times[1:])} for arm, times in zip(arms, taken, strict=True)]


def summary(runs: list[dict]) -> dict:
    """Mean, standard deviation and number of the last validation and training losses."""
    last = [run["curve"][-1] for run in runs]
    return {"n": len(runs), "parameters": runs[0]["parameters"]} | {
        f"{loss}_{name}": of([row[loss] for row in last]) for loss in ("val_loss", "train_loss")
        for name, of in (("mean", statistics.mean), ("std", statistics.stdev))}


if __name__ == "__main__":
    main()
