"""How close a small GPT comes to the floor of the Little Theatre, by kind of character.

    python benchmarks/theatre.py                            about 25 minutes on two cores
    python benchmarks/theatre.py --levels 2 --seeds 1       a trial, which writes nothing

The results go to benchmarks/theatre.json: levels 1 and 2 with three seeds, then the course's other
models at level 2.

The floor is the loss of the program that writes the plays. The gate: after at most 180 seconds of
training on two cores, the loss is less than 0.02 nats a character above the floor at level 1, and
less than 0.05 at level 2. Each model trains on plays that its seed determines, and is measured on
plays that it has never seen. Then it writes plays of its own, and the grammar decides what share of
them is correct. The model of the gate has token shift (chapter 6). The others are the counted
bigram, one block, and the same GPT without token shift.
"""

import argparse
import hashlib
import statistics
from dataclasses import asdict, replace

import torch
from recording import provenance, write_results

from gptlib.bigram import Bigram, count_bigrams
from gptlib.config import TrainConfig
from gptlib.corpora import theatre
from gptlib.corpora.floor import below_floor, gap_by_kind
from gptlib.corpora.theatre import END, Ungrammatical
from gptlib.data import split
from gptlib.generate import generate
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

LEVELS = (1, 2)
SEEDS = (1, 2, 3)
GATES = {1: 0.02, 2: 0.05}      # nats per character above the floor
MAX_SECONDS = 180               # of training
CHARACTERS = 4_000_000          # of the training text, a little more than a run reads
SAMPLES = 64                    # plays that each model begins
# The vocabulary size is replaced by that of the level.
MODEL = VariantConfig(vocab_size=1, block_size=256, n_layer=3, n_embd=96, token_shift=True)
TRAINING = TrainConfig(max_steps=1600, batch_size=8, eval_interval=400)
OTHERS = {
    "one block": replace(MODEL, n_layer=1, token_shift=False),
    "GPT": replace(MODEL, token_shift=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    about = provenance()
    results = [measure_level(level, options.seeds) for level in options.levels]
    if tuple(options.levels) == LEVELS and tuple(options.seeds) == SEEDS:
        unseen = "".join(unseen_plays(level) for level in LEVELS)
        write_results("theatre", {
            "measures": "a small GPT's excess over the Little Theatre's own score, in nats per "
                        "character and per play by kind, on unseen plays; the share of its samples "
                        "that are plays",
            "corpus": "gptlib.corpora.theatre: the unseen plays",
            "corpus_sha256": hashlib.sha256(unseen.encode()).hexdigest(),
            **about,
            "seeds": SEEDS,
            "results": results,
            "others": other_models(level=2),
        })


def measure_level(level: int, seeds: list[int]) -> dict:
    """Train the gate's model with each seed. Return the runs and whether the gate is passed."""
    runs = [gpt_run(level, seed) for seed in seeds]
    gaps = [run["gap_per_character"] for run in runs]
    in_time = max(run["seconds"] for run in runs) <= MAX_SECONDS
    passed = max(gaps) < GATES[level] and in_time
    floor = theatre.entropy(level) / theatre.mean_length(level)
    print(f"level {level}: gap {statistics.mean(gaps):.4f} nats per character above {floor:.4f}, "
          f"the largest {max(gaps):.4f}, the gate {GATES[level]}: "
          f"{'passed' if passed else 'FAILED'}", flush=True)
    return {
        "level": level,
        "entropy_per_play": theatre.entropy(level),
        "characters_per_play": theatre.mean_length(level),
        "gate": GATES[level],
        "model": asdict(MODEL),
        "training": asdict(TRAINING),
        "runs": runs,
        "mean": statistics.mean(gaps),
        "std": statistics.stdev(gaps) if len(gaps) > 1 else None,
        "passed": passed,
    }


def other_models(level: int) -> dict[str, list[dict]]:
    """Return the runs of the models without a gate, by name. No limit of time applies to them."""
    others = {"bigram, counted": [bigram_run(level, seed) for seed in SEEDS]}
    for name, config in OTHERS.items():
        others[name] = [gpt_run(level, seed, config) for seed in SEEDS]
        for run in others[name]:
            del run["seconds"]
    return others


# The texts ----------------------------------------------------------------------------------------


def unseen_plays(level: int) -> str:
    # No model is trained with seed 0.
    return theatre.generate(100_000, level, seed=0)


def texts(level: int, seed: int) -> tuple[CharTokenizer, torch.Tensor, torch.Tensor, str]:
    """Return the tokenizer of a run, its training and validation split, and the unseen plays."""
    text = theatre.generate(CHARACTERS, level, seed)
    unseen = unseen_plays(level)
    tokenizer = CharTokenizer.from_text(text + unseen)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(text)), val_fraction=0.01)
    return tokenizer, train_ids, val_ids, unseen


# The runs -----------------------------------------------------------------------------------------


def bigram_run(level: int, seed: int) -> dict:
    tokenizer, train_ids, _, unseen = texts(level, seed)
    model = Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size))
    gap = gap_by_kind(model, tokenizer, unseen, level)
    n_plays = unseen.count(END)
    return {"seed": seed, "gap_per_character": sum(gap.values()) * n_plays / len(unseen),
            "gap_per_play_by_kind": gap}


def gpt_run(level: int, seed: int, config: VariantConfig = MODEL) -> dict:
    """Train one model. Return its gap above the floor and its share of correct plays."""
    tokenizer, train_ids, val_ids, unseen = texts(level, seed)
    torch.manual_seed(seed)
    model = make_model(replace(config, vocab_size=tokenizer.vocab_size))
    result = train(model, train_ids, val_ids, config.block_size, replace(TRAINING, seed=seed))
    last = result.history[-1]
    gap = gap_by_kind(model, tokenizer, unseen, level)
    floor = theatre.score(unseen, level)
    excess = sum(gap.values()) * len(floor.starts)
    assert not below_floor(floor.nats + excess, floor.nats), (
        f"level {level}, seed {seed}: the loss is below the floor, so something leaks")
    run = {
        "seed": seed,
        "seconds": last["seconds"],
        "val_loss": last["val_loss"],
        "gap_per_character": excess / len(unseen),
        "gap_per_play_by_kind": gap,
        **grammatical_share(model, tokenizer, level, seed),
    }
    print(f"level {level}, seed {seed}: {run}", flush=True)
    return run


def grammatical_share(model: GPT, tokenizer: CharTokenizer, level: int, seed: int) -> dict:
    """Let the model write plays. Return how many it finished, and what share of these is correct.

    A play that is unfinished after 500 characters is left out.
    """
    prompt = torch.tensor([tokenizer.encode(END)] * SAMPLES)
    samples = generate(model, prompt, 500, seed=seed)
    written = [tokenizer.decode(ids)[len(END):] for ids in samples]
    finished = [text[:text.index(END) + len(END)] for text in written if END in text]
    n_correct = sum(is_play(text, level) for text in finished)
    return {"samples": len(finished), "grammatical_share": n_correct / max(1, len(finished))}


def is_play(text: str, level: int) -> bool:
    """Return whether the text is one whole play. The text contains END once, at its end."""
    try:
        return bool(theatre.score(text, level).starts.size)
    except Ungrammatical:
        return False


if __name__ == "__main__":
    main()
