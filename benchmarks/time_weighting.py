"""MyGPT's claims about time-weighting, with controls: gains and costs.

    python benchmarks/time_weighting.py         about 70 CPU-minutes on one thread

The results go to benchmarks/time_weighting.json.

Every arm begins with the same weights and reads the same batches. A finished run is stored in
build/time_weighting, so that an interrupted measurement continues where it stopped. Stored runs are
used only by code that computes the same: the folder's name is a digest of the first losses of every
arm, with all their bits.

The seconds of a run depend on what else the machine does. So the cost of a step is measured
separately, in CPU time and in turns: a few steps of each arm, then again. A slower arm is compared
with plain attention that trained for more steps. `gptlib.classroom.measured` computes how many.
For each kind of attention it pools the cost ratios of all groups, because a single ratio is noisy.
"""

import hashlib
import statistics
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch
from recording import provenance, stored, write_results
from torch.nn import functional as F

from gptlib.config import TrainConfig
from gptlib.corpora import Corpus, load_corpus
from gptlib.corpora.floor import gap_by_kind
from gptlib.corpora.theatre import generate
from gptlib.data import get_batch, split
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer
from gptlib.train import make_optimizer, train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "build/time_weighting"
SOURCE = ROOT / "gptlib/variants/time_weighting.py"
SEEDS = (1, 2, 3)
MODEL = VariantConfig(vocab_size=65, block_size=64, n_layer=3, n_head=4, n_embd=64)
TRAINING = TrainConfig(max_steps=2000, batch_size=8, eval_interval=500, device="cpu")
# For plain attention, which needs less time a step.
LONGER_TRAINING = replace(TRAINING, max_steps=3000, eval_interval=1500)
ATTENTIONS = ("plain", "time_weighted", "toeplitz", "relative_bias")
# The options that distinguish the arms.
ARMS = [{"attention": attention, "position": position, "token_shift": token_shift}
        for token_shift, position, attention in product(
            (False, True), ("learned", "none"), ATTENTIONS)]
PLAIN_ARMS = [arm for arm in ARMS if arm["attention"] == "plain"]

# The Little Theatre, whose floor is known.
THEATRE_ARMS = [
    {"attention": "plain", "position": "learned", "token_shift": False},
    {"attention": "toeplitz", "position": "learned", "token_shift": False},
    {"attention": "relative_bias", "position": "learned", "token_shift": False},
    {"attention": "plain", "position": "none", "token_shift": False},
    {"attention": "toeplitz", "position": "none", "token_shift": False},
    {"attention": "plain", "position": "learned", "token_shift": True},
]
THEATRE_MODEL = replace(MODEL, block_size=256)
THEATRE_TRAINING = replace(TRAINING, batch_size=4, max_steps=1200, eval_interval=600)
LEVEL = 2
# The plays of the measurement, which no model has seen.
UNSEEN = {"n_characters": 100_000, "level": LEVEL, "seed": 1}


def main() -> None:
    about = provenance()
    source_hash = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    shakespeare, theatre = load_corpus("tinyshakespeare"), load_corpus("theatre2")
    folder = STORED / digest(shakespeare, theatre)
    cost = stored(folder / "cost.json", lambda: measure_cost(shakespeare))
    parts = [(ARMS, TRAINING, shakespeare), (PLAIN_ARMS, LONGER_TRAINING, shakespeare),
             (THEATRE_ARMS, THEATRE_TRAINING, theatre)]
    runs = all_runs(parts, folder)
    write_results("time_weighting", {
        "measures": "validation loss in nats per character over the whole split in windows of the "
                    "block size; on the theatre also excess nats per play, split by kind of "
                    "dependency; cost: CPU milliseconds of a training step, on one thread",
        "corpus": shakespeare.name,
        "corpus_sha256": shakespeare.sha256,
        **about,
        "time_weighting_code": source_hash,
        "seeds": SEEDS,
        "model": asdict(MODEL),
        "training": asdict(TRAINING),
        "theatre": {"level": LEVEL, "text": UNSEEN, "model": asdict(THEATRE_MODEL),
                    "training": asdict(THEATRE_TRAINING)},
        "cost": cost,
        "arms": [summary(arm, training, corpus, runs)
                 for arms, training, corpus in parts for arm in arms],
        "runs": runs,
    })


# Stored runs --------------------------------------------------------------------------------------


def all_runs(parts: list[tuple], folder: Path) -> list[dict]:
    """Return the results of all runs. Execute those that are not stored in `folder`."""
    planned = [(arm, replace(training, seed=seed), corpus)
               for arms, training, corpus in parts for seed in SEEDS for arm in arms]
    runs = []
    for i, (arm, training, corpus) in enumerate(planned, 1):
        options = " ".join(map(str, arm.values()))
        name = f"{corpus.name} {training.max_steps} {options} {training.seed}"
        work = lambda arm=arm, training=training, corpus=corpus: run(arm, training, corpus)
        runs.append(stored(folder / f"{name}.json", work))
        val_loss = runs[-1]["curve"][-1]["val_loss"]
        print(f"{i}/{len(planned)} {name}: {val_loss:.4f}", flush=True)
    return runs


def digest(shakespeare: Corpus, theatre: Corpus) -> str:
    """Return 12 digits that change when the runs would have other results.

    They depend on the texts, on the settings and, through the first losses, on the code.
    """
    seen = [shakespeare.sha256, theatre.sha256, MODEL, TRAINING, LONGER_TRAINING,
            THEATRE_MODEL, THEATRE_TRAINING, UNSEEN]
    tokenizer = CharTokenizer.from_text(shakespeare.text)
    ids = torch.tensor(tokenizer.encode(shakespeare.text[:20_000]))
    training = replace(TRAINING, max_steps=4, eval_interval=2)
    for arm in ARMS:
        model = model_with_shared_weights(replace(MODEL, **arm), seed=1)
        result = train(model, ids[:-1000], ids[-1000:], MODEL.block_size, training, progress=False)
        seen += [(row["train_loss"], row["val_loss"]) for row in result.history]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]


# One run ------------------------------------------------------------------------------------------


def model_with_shared_weights(config: VariantConfig, seed: int) -> GPT:
    """Return a model that begins like plain attention with learned positions.

    It has the weights of that model wherever both have a weight of the same name.
    """
    torch.manual_seed(seed)
    plain = make_model(replace(config, attention="plain", position="learned")).state_dict()
    model = make_model(config)
    weights = model.state_dict()
    shared = {name: weight for name, weight in plain.items() if name in weights}
    model.load_state_dict(weights | shared)
    return model


def run(arm: dict, training: TrainConfig, corpus: Corpus) -> dict:
    """Train one arm. Return its curve, and what it has learned about distance."""
    is_theatre = corpus.name != "tinyshakespeare"
    tokenizer = CharTokenizer.from_text(corpus.text)
    config = THEATRE_MODEL if is_theatre else MODEL
    config = replace(config, vocab_size=tokenizer.vocab_size, **arm)
    model = model_with_shared_weights(config, training.seed)
    ids = torch.tensor(tokenizer.encode(corpus.text))
    row = {**arm, "corpus": corpus.name, "steps": training.max_steps, "seed": training.seed,
           "curve": train_curve(model, ids, training),
           "parameters": model.parameter_table()["total"]}
    if is_theatre:
        row["gap_by_kind"] = gap_by_kind(model, tokenizer, generate(**UNSEEN), LEVEL)
    elif training.seed == SEEDS[0] and arm["attention"] in ("toeplitz", "relative_bias"):
        row["by_distance"] = [rounded(block.attention.by_distance) for block in model.blocks]
    return row


def train_curve(model: GPT, ids: torch.Tensor, training: TrainConfig) -> list[dict]:
    """Train the model. Return a row for each evaluation."""
    train_ids, val_ids = split(ids)
    start = time.process_time()
    cpu_seconds = []
    history = train(model, train_ids, val_ids, model.config.block_size, training, progress=False,
                    on_eval=lambda row: cpu_seconds.append(time.process_time() - start)).history
    curve = []
    for row, seconds in zip(history, cpu_seconds, strict=True):
        point = {key: row[key] for key in ("step", "seconds", "train_loss", "val_loss")}
        curve.append(point | {"cpu_seconds_evaluations_too": seconds})
    return curve


def rounded(by_distance: torch.Tensor) -> list[list[float]]:
    """Return the weights of each head and distance with four digits."""
    return [[round(weight, 4) for weight in head] for head in by_distance.tolist()]


# The cost of a step -------------------------------------------------------------------------------


def measure_cost(corpus: Corpus, rounds: int = 15, steps: int = 10) -> list[dict]:
    """Return the CPU milliseconds of a training step of each arm, the median over the rounds."""
    tokenizer = CharTokenizer.from_text(corpus.text)
    ids, _ = split(torch.tensor(tokenizer.encode(corpus.text)))
    models = [make_model(replace(MODEL, **arm)) for arm in ARMS]
    optimizers = [make_optimizer(model, TRAINING) for model in models]
    milliseconds = [[] for _ in ARMS]
    for n in range(rounds):
        x, y = get_batch(ids, MODEL.block_size, TRAINING.batch_size, seed=0, step=n)
        for model, optimizer, times in zip(models, optimizers, milliseconds, strict=True):
            start = time.process_time()
            for _ in range(steps):
                training_step(model, optimizer, x, y)
            times.append(1000 * (time.process_time() - start) / steps)
    # The first round is a warm-up.
    medians = [statistics.median(times[1:]) for times in milliseconds]
    return [arm | {"ms_per_step": median} for arm, median in zip(ARMS, medians, strict=True)]


def training_step(model: GPT, optimizer: torch.optim.Optimizer, x: torch.Tensor,
                  y: torch.Tensor) -> None:
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING.grad_clip)
    optimizer.step()


def summary(arm: dict, training: TrainConfig, corpus: Corpus, runs: list[dict]) -> dict:
    """Return an arm with mean and standard deviation of its last losses over the seeds."""
    row = arm | {"corpus": corpus.name, "steps": training.max_steps}
    own = [run for run in runs if all(run[key] == value for key, value in row.items())]
    row |= {"n": len(own), "parameters": own[0]["parameters"]}
    for loss in ("val_loss", "train_loss"):
        values = [run["curve"][-1][loss] for run in own]
        row[f"{loss}_mean"] = statistics.mean(values)
        row[f"{loss}_std"] = statistics.stdev(values)
    return row


if __name__ == "__main__":
    main()
