"""How far the fast recipe of chapter 9 comes towards the published losses, on one thread.

    python benchmarks/published.py                      all runs, at most an hour each
    python benchmarks/published.py small --minutes 10   one run, and no longer than this
    python benchmarks/published.py --trial              a few steps of each run; writes nothing

The results go to benchmarks/published.json. Each run has one seed, so its result is an anecdote. A
run that was stopped continues when the program is started again, and the results say whether a
run is finished. Its checkpoints are in build/published.

A published loss counts as reached at the first evaluation that is not above it. The validation loss
covers the whole split, in windows side by side of the model's own block. A train loss is the mean
over the batches since the last evaluation, with dropout on. A system's loss may be reached by a
smaller model than its own, but not by a larger one.

>>> history = [{"step": 0, "val_loss": 4.2}, {"step": 100, "val_loss": 1.7}]
>>> first_reached(history, "val_loss", 1.75)
{'step': 100, 'val_loss': 1.7}
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
import yaml
from recording import provenance, stored, write_results

from gptlib.checkpoint import read_header
from gptlib.config import TrainConfig
from gptlib.corpora import load_corpus
from gptlib.data import get_batch, split
from gptlib.optimizers import make_optimizer
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer, Tokenizer
from gptlib.train import evaluate, evaluate_batches, train
from gptlib.variants.build import load_model, make_model
from gptlib.variants.config import VariantConfig

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "build/published"
SEED = 1337
HOUR = 60                       # minutes of a run, at most
RANDOM_BATCHES = 200            # the estimator of nanoGPT's published losses

FAST_MODEL = VariantConfig(
    vocab_size=65, position="none", rotary=True, rms_norm=True, qk_norm=True, relu2=True,
    zero_init=True, bigram_table=True)
FAST_TRAINING = TrainConfig(
    optimizer="muon", learning_rate=0.02, schedule="wsd", warmup=50, seed=SEED, dtype="float32",
    device="cpu")


@dataclass(frozen=True)
class Claim:
    """What a system published. A smaller or equal model should reach this loss."""

    system: str
    parameters: int             # of the published model
    loss: float | None          # nats per character; None: no loss was published
    measure: str = "val_loss"   # or "train_loss"


@dataclass(frozen=True)
class Plan:
    """One run, and the claims that it tests."""

    claims: tuple[Claim, ...]
    model: VariantConfig
    training: TrainConfig
    lowercase: bool = False     # whether the text is read in PicoGPT's alphabet


def preset(name: str) -> tuple[VariantConfig, TrainConfig]:
    """Return the configs of a file in notebooks/params."""
    options = yaml.safe_load((ROOT / f"notebooks/params/{name}.yaml").read_text(encoding="utf-8"))
    def chosen(config: type) -> dict:
        return {f.name: options[f.name] for f in fields(config) if f.name in options}
    return VariantConfig(vocab_size=65, **chosen(VariantConfig)), TrainConfig(**chosen(TrainConfig))


PICOGPT_MODEL, PICOGPT_TRAINING = preset("picogpt")
# A model that is small enough for shakeGPT v1 is small enough for v2 and v3, too.
SHAKEGPT = (Claim("shakeGPT v1", 422_528, 1.7002), Claim("shakeGPT v2", 9_684_480, 1.7531),
            Claim("shakeGPT v3", 9_782_784, 1.6900))
PLANS = {
    "shakegpt": Plan(
        SHAKEGPT,
        replace(FAST_MODEL, block_size=128, n_layer=4, n_embd=88),
        replace(FAST_TRAINING, max_steps=450, batch_size=16, eval_interval=75)),
    # This run was added because the run above was too short for two of the three losses.
    "shakegpt_longer": Plan(
        SHAKEGPT,
        replace(FAST_MODEL, block_size=128, n_layer=4, n_embd=88),
        replace(FAST_TRAINING, max_steps=700, batch_size=16, eval_interval=140)),
    "nanogpt": Plan(
        (Claim("nanoGPT, the lecture's model, rebuilt", 10_770_048, 1.4787),
         Claim("nanoGPT's GPU preset", 10_770_048, 1.4697)),
        replace(FAST_MODEL, block_size=256, n_layer=4, n_embd=128),
        replace(FAST_TRAINING, max_steps=4000, batch_size=8, eval_interval=200)),
    # No weight decay: this loss is about the text that was read.
    "mygpt": Plan(
        (Claim("MyGPT", 9_590_272, 0.685, "train_loss"),),
        replace(FAST_MODEL, block_size=128, n_layer=4, n_embd=192),
        replace(FAST_TRAINING, max_steps=2400, batch_size=16, eval_interval=150,
                weight_decay=0.0)),
    "picogpt": Plan(
        (Claim("PicoGPT", 6_341_120, None),),
        replace(PICOGPT_MODEL, vocab_size=LowercaseTokenizer().vocab_size),
        replace(PICOGPT_TRAINING, eval_interval=100, seed=SEED, dtype="float32", device="cpu"),
        lowercase=True),
}


def main() -> None:
    options = parse_options()
    about = provenance()
    corpus = load_corpus("tinyshakespeare")
    for name in options.runs or PLANS:
        if options.trial:
            trial(PLANS[name], corpus.text)
            continue
        continue_run(PLANS[name], corpus.text, STORED / name, about, options.minutes)
        write_results("published", {
            "measures": "the first evaluation at which a run is not above a published loss, in "
                        "nats per character; seconds of training, evaluations left out",
            "corpus": corpus.name,
            "corpus_sha256": corpus.sha256,
            **about,
            "seed": SEED,
            "runs": [run_row(name, corpus.text) for name in PLANS if started(name)],
        })


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"one of {', '.join(PLANS)}")
    parser.add_argument("--minutes", type=float, default=HOUR, help="stop each run after these")
    parser.add_argument("--trial", action="store_true", help="a few steps; nothing is written")
    options = parser.parse_args()
    for name in options.runs:
        if name not in PLANS:
            parser.error(f"the run {name!r} is unknown, it should be one of {', '.join(PLANS)}")
    return options


def trial(plan: Plan, text: str) -> None:
    """Train a few steps in a temporary folder, and measure them as a real run is measured."""
    short = replace(plan, training=replace(plan.training, max_steps=3, warmup=1, eval_interval=2))
    with tempfile.TemporaryDirectory() as folder:
        continue_run(short, text[:60_000], Path(folder), provenance(), HOUR)
        print(last_evaluation(short, text[:60_000], Path(folder)))


# A run --------------------------------------------------------------------------------------------


def read_text(plan: Plan, text: str) -> tuple[Tokenizer, torch.Tensor, torch.Tensor]:
    """Return the tokenizer of a run, and its two splits."""
    tokenizer = LowercaseTokenizer() if plan.lowercase else CharTokenizer.from_text(text)
    return tokenizer, *split(torch.tensor(tokenizer.encode(text)))


def continue_run(plan: Plan, text: str, folder: Path, about: dict, minutes: float) -> None:
    """Train until the last step, or until the run has used its hour, or these minutes are over."""
    tokenizer, train_ids, val_ids = read_text(plan, text)
    stored(folder / "about.json", lambda: about)
    torch.manual_seed(SEED)
    model = make_model(replace(plan.model, vocab_size=tokenizer.vocab_size))
    started = time.process_time()
    train(model, train_ids, val_ids, plan.model.block_size, plan.training, out_dir=folder,
          tokenizer=tokenizer, resume="auto", optimizer=make_optimizer, progress=False,
          on_eval=report, stop=alarm(folder, minutes))
    with (folder / "cpu.jsonl").open("a", encoding="utf-8") as file:
        line = {"step": checkpoint(folder)["step"], "cpu_seconds": time.process_time() - started}
        file.write(json.dumps(line) + "\n")


def alarm(folder: Path, minutes: float) -> Callable[[], bool]:
    """Return a function that is True when these minutes are over, or the hour of the run."""
    used = checkpoint(folder)["seconds"] if (folder / "last.safetensors").is_file() else 0.0
    end = time.monotonic() + min(60 * minutes, 60 * HOUR - used)
    return lambda: time.monotonic() > end


def report(row: dict) -> None:
    print(f"step {row['step']}: {row['seconds']:.0f} s, train loss {row['train_loss']:.4f}, "
          f"validation loss {row['val_loss']:.4f}", flush=True)


def cpu_seconds(folder: Path) -> float | None:
    """Return the CPU seconds of all processes of a run, None if one of them did not end well."""
    path = folder / "cpu.jsonl"
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # A process that was killed has written no line.
    complete = lines[-1]["step"] == checkpoint(folder)["step"]
    return sum(line["cpu_seconds"] for line in lines) if complete else None


def checkpoint(folder: Path) -> dict:
    """Return what the newest checkpoint says about the run: step, seconds, history."""
    return read_header(folder / "last.safetensors")["about"]


# What it reached ----------------------------------------------------------------------------------


def started(name: str) -> bool:
    return (STORED / name / "last.safetensors").is_file()


def run_row(name: str, text: str) -> dict:
    """Return everything that the results say about a run."""
    plan, folder = PLANS[name], STORED / name
    state = checkpoint(folder)
    curve = state["history"]
    if state["step"] > curve[-1]["step"]:
        stopped = stored(folder / f"step-{state['step']}.json",
                         lambda: last_evaluation(plan, text, folder))
        curve = [*curve, stopped]
    model, _ = load_model(folder)
    row = {
        "run": name,
        "model": asdict(model.config),
        "training": asdict(plan.training),
        "parameters": model.parameter_table()["total"],
        "dtype": state["dtype"],
        "threads": torch.get_num_threads(),
        "about": json.loads((folder / "about.json").read_text(encoding="utf-8")),
        "steps": state["step"],
        "finished": state["step"] == plan.training.max_steps,
        "seconds": state["seconds"],
        "cpu_seconds_evaluations_too": cpu_seconds(folder),
        "curve": curve,
        "claims": [judge(claim, curve) for claim in plan.claims],
    }
    if name == "nanogpt" and row["finished"]:
        row["random_batches"] = stored(folder / f"random-{state['step']}.json",
                                       lambda: random_batches(plan, text, folder))
    return row


def judge(claim: Claim, curve: list[dict]) -> dict:
    """Return a claim, and where a run reached its loss first (None: it did not)."""
    reached = None
    if claim.loss is not None:
        reached = first_reached(curve, claim.measure, claim.loss)
    return asdict(claim) | {"reached": reached}


def first_reached(history: list[dict], measure: str, loss: float) -> dict | None:
    """Return the first row of a history that is not above a loss, None if there is none."""
    return next((row for row in history if row[measure] <= loss), None)


def last_evaluation(plan: Plan, text: str, folder: Path) -> dict:
    """Return a row of the history for a run that was stopped between two evaluations."""
    state = checkpoint(folder)
    model, _ = load_model(folder / "last.safetensors")
    _, _, val_ids = read_text(plan, text)
    val_loss, val_acc = evaluate(model, val_ids, plan.model.block_size)
    # The losses and accuracies of the batches since the last evaluation.
    losses, accuracies = zip(*state["since_eval"], strict=True) if state["since_eval"] else ((), ())
    return {
        "step": state["step"],
        "tokens": state["step"] * plan.training.batch_size * plan.model.block_size,
        "seconds": state["seconds"],
        "train_loss": statistics.mean(losses) if losses else None,
        "val_loss": val_loss,
        "train_acc": statistics.mean(accuracies) if accuracies else None,
        "val_acc": val_acc,
    }


def random_batches(plan: Plan, text: str, folder: Path) -> dict:
    """Return the mean validation loss of the best model over random batches, and its error."""
    model, _ = load_model(folder)
    _, _, val_ids = read_text(plan, text)
    size, block = plan.training.batch_size, plan.model.block_size
    losses = [evaluate_batches(model, [get_batch(val_ids, block, size, SEED, step)])[0]
              for step in range(RANDOM_BATCHES)]
    return {"batches": RANDOM_BATCHES, "batch_size": size, "block_size": block,
            "val_loss": statistics.mean(losses),
            "standard_error": statistics.stdev(losses) / RANDOM_BATCHES ** 0.5}


if __name__ == "__main__":
    main()
