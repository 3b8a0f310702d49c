"""How many steps and seconds each ingredient of the fast recipe saves (chapter 9).

    python benchmarks/speed.py                      about 90 CPU-minutes on one thread
    python benchmarks/speed.py --nanogpt PATH       also races a checkout of karpathy/nanoGPT
    python benchmarks/speed.py --trial              a few steps of each run; writes nothing

The results go to benchmarks/speed.json. A finished run is stored in build/speed, so that an
interrupted measurement continues where it stopped.

The target is the loss with which nanoGPT's laptop recipe ends. The ladder starts from that recipe
and adds one ingredient at a time. The learning rate falls to its end within each run. A run that is
stopped early is therefore no measure of a shorter run. So each rung is trained several times, with
300 steps first, and then with twice or half as many, until some runs end above the target and some
below it. The steps to the target are interpolated between the two: the loss is nearly a straight
line over the logarithm of the steps.

The seconds of a run depend on what else the machine does. So the cost of a step is measured
separately, in CPU time and in turns: a few steps of each rung, then again.
"""

import hashlib
import json
import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from recipe import (
    LAPTOP_MODEL,
    LAPTOP_TRAINING,
    nanogpt_seconds,
    parse_options,
    write_nanogpt_data,
)
from recording import provenance, stored, write_results
from torch.nn import functional as F

from gptlib.config import TrainConfig
from gptlib.corpora import load_corpus
from gptlib.data import get_batch, split
from gptlib.model import GPT
from gptlib.optimizers import make_optimizer
from gptlib.optimizers.muon import orthogonalize
from gptlib.tokenizer import CharTokenizer
from gptlib.train import set_learning_rate, train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "build/speed"
SEEDS = (1, 2, 3)
COMPARED_AT = 300                           # steps of all runs outside the ladder
FEWEST, MOST = 75, 2400                     # steps of a run of the ladder

# The ladder. Each rung has the options of the rung before it, and these.
PLAIN = "nanoGPT's laptop recipe"
RUNGS = {
    PLAIN: {"init": "gpt2", "tie_weights": True, "learning_rate": 1e-3, "min_lr": 1e-4},
    "larger learning rate": {"init": "scaled", "tie_weights": False, "learning_rate": 4e-3,
                             "min_lr": 0.0},
    "cool-down": {"schedule": "wsd"},
    "rotary positions": {"rotary": True, "position": "none"},
    "RMSNorm": {"rms_norm": True},
    "QK-norm": {"qk_norm": True},
    "ReLU²": {"relu2": True},
    "zero output layers": {"zero_init": True},
    "bigram table": {"bigram_table": True},
    "Muon": {"optimizer": "muon", "learning_rate": 0.02},
}
FAST = "Muon"                               # the last rung is the whole fast recipe
# Each ingredient alone is removed from the fast recipe.
WITHOUT = {
    "cool-down": {"schedule": "cosine"},
    "rotary positions": {"rotary": False, "position": "learned"},
    "RMSNorm": {"rms_norm": False},
    "QK-norm": {"qk_norm": False},
    "ReLU²": {"relu2": False},
    "zero output layers": {"zero_init": False},
    "bigram table": {"bigram_table": False},
}
# Is one of the two optimizers ahead only because its learning rate is better chosen?
LEARNING_RATES = {"adamw": (2e-3, 4e-3, 8e-3, 1.6e-2), "muon": (0.01, 0.02, 0.04)}
MODEL_OPTIONS = (
    "init", "tie_weights", "position", "rotary", "rms_norm", "qk_norm", "relu2", "zero_init",
    "bigram_table",
)


def options_of(rung: str) -> dict:
    """Return all options of a rung: its own, and those of the rungs before it."""
    options = {}
    for name, own in RUNGS.items():
        options |= own
        if name == rung:
            return options
    raise KeyError(rung)


def configs(options: dict, max_steps: int) -> tuple[VariantConfig, TrainConfig]:
    """Return the two configs of a run with nanoGPT's laptop shape and batch."""
    model = {name: value for name, value in options.items() if name in MODEL_OPTIONS}
    training = {name: value for name, value in options.items() if name not in MODEL_OPTIONS}
    return (
        VariantConfig(vocab_size=LAPTOP_MODEL.vocab_size, **model),
        replace(LAPTOP_TRAINING, max_steps=max_steps, eval_interval=max_steps,
                warmup=min(100, max_steps // 6), device="cpu", **training),
    )


def main() -> None:
    options = parse_options(__doc__)
    about = provenance()
    corpus = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(corpus.text)
    study = Study(*split(torch.tensor(tokenizer.encode(corpus.text))), options.trial)
    about |= {"ladder_code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}
    cost = study.stored("cost", lambda: measure_cost(study.train_ids))
    share = study.stored("newton_schulz", lambda: newton_schulz_share(study.train_ids))
    target = statistics.mean(run["val_loss"] for run in study.runs(
        options_of(PLAIN), LAPTOP_TRAINING.max_steps))
    ladder = [climb(study, rung, target) for rung in RUNGS]
    without = [{"without": name, "runs": study.runs(options_of(FAST) | change, COMPARED_AT)}
               for name, change in WITHOUT.items()]
    last_with_adamw = list(RUNGS)[-2]
    rates = [{"optimizer": name, "learning_rate": rate,
              "runs": study.runs(options_of(FAST if name == "muon" else last_with_adamw)
                                | {"learning_rate": rate}, COMPARED_AT)}
             for name, all_rates in LEARNING_RATES.items() for rate in all_rates]
    results = {
        "measures": "validation loss in nats per character at the last step, the whole split in "
                    "windows of 64; CPU milliseconds of a training step, on one thread",
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        **about,
        "seeds": SEEDS,
        "tokens_per_step": LAPTOP_TRAINING.batch_size * LAPTOP_MODEL.block_size,
        "target": target,
        "ladder": ladder,
        "without": without,
        "learning_rates": rates,
        "cost": cost,
        "newton_schulz": share,
    }
    if options.nanogpt:
        fast = next(row for row in ladder if row["rung"] == FAST)
        results["race"] = study.stored("race", lambda: race(
            study, options.nanogpt, target, max(fast["steps_to_target"])))
    if not options.trial:
        write_results("speed", results)


# The runs -----------------------------------------------------------------------------------------


class Study:
    """The two splits of the text, and the runs on them, which are stored."""

    def __init__(self, train_ids: torch.Tensor, val_ids: torch.Tensor, trial: bool = False):
        self.train_ids, self.val_ids, self.trial = train_ids, val_ids, trial
        if trial:
            self.val_ids = val_ids[:1000]
        self.folder = Path(tempfile.mkdtemp()) if trial else STORED / self.digest()

    def digest(self) -> str:
        """Return 12 digits that change when a run would have another result.

        They depend on the text, and on the first losses of every rung with all their bits.
        """
        seen = [hashlib.sha256(self.train_ids.numpy().tobytes()).hexdigest()]
        for rung in RUNGS:
            model, training = configs(options_of(rung), max_steps=4)
            torch.manual_seed(1)
            result = train(make_model(model), self.train_ids, self.val_ids[:1000],
                           model.block_size, training, progress=False, optimizer=make_optimizer)
            seen.append([row["val_loss"] for row in result.history])
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]

    def stored(self, name: str, work):
        return stored(self.folder / f"{name}.json", work)

    def runs(self, options: dict, max_steps: int) -> list[dict]:
        """Return one run for each seed."""
        if self.trial:
            max_steps = min(max_steps, 3)
        return [self.run(options, max_steps, seed) for seed in SEEDS]

    def below(self, target: float, options: dict, max_steps: int) -> list[bool]:
        """Return for each seed whether the run ends below the target."""
        return [run["val_loss"] <= target for run in self.runs(options, max_steps)]

    def run(self, options: dict, max_steps: int, seed: int) -> dict:
        """Train once. Return the last losses, and the seconds of training."""
        def work() -> dict:
            model_config, training = configs(options, max_steps)
            torch.manual_seed(seed)
            model = make_model(model_config)
            start = time.process_time()
            history = train(model, self.train_ids, self.val_ids, model_config.block_size,
                            replace(training, seed=seed), progress=False,
                            optimizer=make_optimizer).history
            row = {name: history[-1][name] for name in ("val_loss", "train_loss", "seconds")}
            print(f"{options} {max_steps} steps, seed {seed}: {row['val_loss']:.4f}", flush=True)
            return {"seed": seed, **row, "parameters": model.parameter_table()["total"],
                    "cpu_seconds_evaluations_too": time.process_time() - start}
        described = json.dumps([options, max_steps, seed], sort_keys=True)
        return self.stored(hashlib.sha256(described.encode()).hexdigest()[:16], work)


def climb(study: Study, rung: str, target: float) -> dict:
    """Train a rung with more steps until all seeds end below the target, or with fewer."""
    options = options_of(rung)
    budgets = [COMPARED_AT]
    if rung == PLAIN:
        budgets.append(LAPTOP_TRAINING.max_steps)
    else:
        while budgets[-1] < MOST and not all(study.below(target, options, budgets[-1])):
            budgets.append(2 * budgets[-1])
        while budgets[0] > FEWEST and any(study.below(target, options, budgets[0])):
            budgets.insert(0, budgets[0] // 2)
    runs = [{"steps": steps, "runs": study.runs(options, steps)} for steps in budgets]
    curves = [[(part["steps"], part["runs"][i]["val_loss"]) for part in runs]
              for i in range(len(SEEDS))]
    needed = [steps_to_target(curve, target) for curve in curves]
    if rung == PLAIN:
        # The target is its own mean loss.
        needed = [LAPTOP_TRAINING.max_steps] * len(SEEDS)
    return {"rung": rung, "options": options, "runs": runs, "steps_to_target": needed}


def steps_to_target(curve: list[tuple[int, float]], target: float) -> float:
    """Return after how many steps the loss is `target`, by interpolation. inf: never.

    Args:
        curve: (steps, loss) of runs of different lengths, the shortest first.
    """
    if curve[0][1] <= target:
        return float(curve[0][0])
    for (steps, loss), (more_steps, lower_loss) in zip(curve, curve[1:], strict=False):
        if lower_loss <= target:
            share = (loss - target) / (loss - lower_loss)
            return math.exp(math.log(steps) + share * math.log(more_steps / steps))
    return math.inf


# The cost of a step -------------------------------------------------------------------------------


def measure_cost(ids: torch.Tensor, rounds: int = 15, steps: int = 10) -> list[dict]:
    """Return the CPU milliseconds of a training step of each rung, by round."""
    trainers = [Trainer(*configs(options_of(rung), max_steps=1000)) for rung in RUNGS]
    milliseconds = [[] for _ in RUNGS]
    for n in range(rounds + 1):
        for trainer, times in zip(trainers, milliseconds, strict=True):
            start = time.process_time()
            for step in range(steps):
                trainer.step(ids, steps * n + step)
            times.append(1000 * (time.process_time() - start) / steps)
    # The first round is a warm-up.
    return [{"rung": rung, "ms_per_step": statistics.median(times[1:]), "rounds": times[1:]}
            for rung, times in zip(RUNGS, milliseconds, strict=True)]


class Trainer:
    """A model and its optimizer. Each step is timed from outside."""

    def __init__(self, model_config: VariantConfig, training: TrainConfig):
        torch.manual_seed(1)
        self.model: GPT = make_model(model_config)
        self.training = training
        self.optimizer = make_optimizer(self.model, training)

    def step(self, ids: torch.Tensor, step: int) -> None:
        x, y = get_batch(ids, self.model.config.block_size, self.training.batch_size, 0, step)
        set_learning_rate(self.optimizer, self.training.learning_rate / 10)
        loss = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.grad_clip)
        self.optimizer.step()


def newton_schulz_share(ids: torch.Tensor, rounds: int = 9) -> list[dict]:
    """Return what share of a step's CPU time Muon's orthogonalization takes, by batch size."""
    model_config, training = configs(options_of(FAST), max_steps=1000)
    rows = []
    for batch_size in (4, 12, 48, 192):
        trainer = Trainer(model_config, replace(training, batch_size=batch_size))
        # The matrices of a step: those of equal shape are orthogonalized together.
        width, layers = model_config.n_embd, model_config.n_layer
        together = [torch.randn(4 * layers, width, width),
                    torch.randn(layers, 4 * width, width), torch.randn(layers, width, 4 * width)]
        whole, newton_schulz = [], []
        for step in range(rounds):
            start = time.process_time()
            trainer.step(ids, step)
            whole.append(time.process_time() - start)
            start = time.process_time()
            for matrices in together:
                orthogonalize(matrices)
            newton_schulz.append(time.process_time() - start)
        step_ms, part_ms = (1000 * statistics.median(times[1:]) for times in (whole, newton_schulz))
        rows.append({"batch_size": batch_size, "ms_per_step": step_ms,
                     "newton_schulz_ms": part_ms, "share": part_ms / step_ms})
    return rows


# The race against nanoGPT -------------------------------------------------------------------------


def race(study: Study, nanogpt: Path, target: float, steps: float) -> dict:
    """Run nanoGPT's laptop recipe and our fast recipe in turns. Return their seconds of training.

    nanoGPT's seconds are the median of 300 steps times the 2,000 steps of its recipe. Ours are the
    sum of all steps. Evaluations are left out of both.

    Args:
        steps: how many steps ours is given.
    """
    max_steps = math.ceil(steps / 10) * 10
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_nanogpt_data(Path(folder), study.train_ids, study.val_ids)
        for seed in SEEDS:
            model_config, training = configs(options_of(FAST), max_steps)
            torch.manual_seed(seed)
            history = train(make_model(model_config), study.train_ids, study.val_ids,
                            model_config.block_size, replace(training, seed=seed), progress=False,
                            optimizer=make_optimizer).history
            a_step = nanogpt_seconds(nanogpt.resolve(), Path(folder), COMPARED_AT)
            rows.append({"seed": seed, "val_loss": history[-1]["val_loss"],
                         "seconds": history[-1]["seconds"],
                         "nanogpt_seconds": a_step * LAPTOP_TRAINING.max_steps})
            print(rows[-1], flush=True)
    ratios = [row["seconds"] / row["nanogpt_seconds"] for row in rows]
    return {"steps": max_steps, "threads": torch.get_num_threads(), "rounds": rows,
            "target": target, "share_of_nanogpt_seconds": statistics.median(ratios)}


if __name__ == "__main__":
    main()
