"""How near a small GPT comes to the floor in three minutes: its gap to the Little Theatre's own score, by kind of dependency.

    python benchmarks/theatre.py                            levels 1 and 2, 3 seeds each, then the course's other models at
                                                            level 2: about 25 minutes on two quiet cores; writes
                                                            benchmarks/theatre.json
    python benchmarks/theatre.py --levels 2 --seeds 1       a trial; writes nothing

Gate: below 0.02 nats a character at level 1 and below 0.05 at level 2, after at most 180 seconds of training on two
cores. Each model trains on windows of plays drawn from its seed, is measured on plays that it has never seen, and
writes some of its own, which the scorer reads: how many are plays, from the first character to the last? The gate's
model has token shift (chapter 6); beside it stand the counted bigram, one block, and the same GPT without the shift.
"""

import argparse
import hashlib
import json
import platform
import statistics
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from gptlib.bigram import Bigram, count_bigrams
from gptlib.config import GPTConfig, TrainConfig
from gptlib.data import split
from gptlib.floor import below_floor, gap_by_kind
from gptlib.generate import generate as sample
from gptlib.leaderboard import code_hash
from gptlib.model import GPT
from gptlib.theatre import END, Ungrammatical, entropy, generate, mean_length, score
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

HERE = Path(__file__).resolve().parent
LEVELS, SEEDS = (1, 2), (1, 2, 3)
GATES, SECONDS = {1: 0.02, 2: 0.05}, 180
CHARACTERS = 4_000_000          # of training text, a little more than a run reads
MODEL = GPTConfig(vocab_size=1, block_size=256, n_layer=3, n_embd=96, token_shift=True)         # the vocabulary is the level's
TRAINING = TrainConfig(max_steps=1600, batch_size=8, eval_interval=400)
SAMPLES = 64                    # plays that each model begins
OTHERS = {"one block": replace(MODEL, n_layer=1, token_shift=False), "GPT": replace(MODEL, token_shift=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    whole = tuple(options.levels) == LEVELS and tuple(options.seeds) == SEEDS
    results = [measure(level, options.seeds) for level in options.levels]
    if whole:
        others = {"bigram, counted": [counted_bigram(2, seed) for seed in SEEDS]}
        others |= {name: [one_run(2, seed, config) for seed in SEEDS] for name, config in OTHERS.items()}
        for run in sum(others.values(), []):
            run.pop("seconds", None)                        # nobody set these a time
        fresh = "".join(fresh_plays(level) for level in LEVELS)
        revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
        about = {"measures": "a small GPT's excess over the Little Theatre's own score, in nats per character and per play by kind, "
                             "on unseen plays; the share of its samples that are plays",
                 "corpus": "gptlib.theatre: the unseen plays", "corpus_sha256": hashlib.sha256(fresh.encode()).hexdigest(),
                 "date": time.strftime("%Y-%m-%d"), "revision": revision, "code": code_hash(),
                 "machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__}
        (HERE / "theatre.json").write_text(json.dumps(about | {"results": results, "others": others}, indent=1) + "\n", encoding="utf-8")


def fresh_plays(level: int) -> str:
    return generate(100_000, level, seed=0)                 # no run has seed 0


def measure(level: int, seeds: list[int]) -> dict:
    runs = [one_run(level, seed) for seed in seeds]
    gaps = [run["gap_per_character"] for run in runs]
    passed = max(gaps) < GATES[level] and max(run["seconds"] for run in runs) <= SECONDS
    print(f"level {level}: gap {statistics.mean(gaps):.4f} nats per character above {entropy(level) / mean_length(level):.4f}, "
          f"at worst {max(gaps):.4f} where {GATES[level]} is asked: {'passed' if passed else 'FAILED'}", flush=True)
    return {"level": level, "entropy_per_play": entropy(level), "characters_per_play": mean_length(level), "gate": GATES[level],
            "model": asdict(MODEL), "training": asdict(TRAINING), "runs": runs, "mean": statistics.mean(gaps),
            "std": statistics.stdev(gaps) if len(gaps) > 1 else None, "passed": passed}


def text_of(level: int, seed: int):
    """A run's tokenizer, its two splits, and the plays that it is measured on."""
    text, fresh = generate(CHARACTERS, level, seed), fresh_plays(level)
    tokenizer = CharTokenizer.from_text(text + fresh)
    return tokenizer, *split(torch.tensor(tokenizer.encode(text)), val_fraction=0.01), fresh


def counted_bigram(level: int, seed: int) -> dict:
    tokenizer, train_ids, _, fresh = text_of(level, seed)
    gap, plays = gap_by_kind(Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size)), tokenizer, fresh, level), fresh.count(END)
    return {"seed": seed, "gap_per_character": sum(gap.values()) * plays / len(fresh), "gap_per_play_by_kind": gap}


def one_run(level: int, seed: int, config: GPTConfig = MODEL) -> dict:
    tokenizer, train_ids, val_ids, fresh = text_of(level, seed)
    torch.manual_seed(seed)
    model = GPT(replace(config, vocab_size=tokenizer.vocab_size))
    row = train(model, train_ids, val_ids, MODEL.block_size, replace(TRAINING, seed=seed)).history[-1]
    gap, floor = gap_by_kind(model, tokenizer, fresh, level), score(fresh, level)
    excess = sum(gap.values()) * len(floor.starts)
    assert not below_floor(floor.nats + excess, floor.nats), f"level {level}, seed {seed}: below the floor, so something leaks"
    run = {"seed": seed, "seconds": row["seconds"], "val_loss": row["val_loss"], "gap_per_character": excess / len(fresh),
           "gap_per_play_by_kind": gap, **grammatical_share(model, tokenizer, level, seed)}
    print(f"level {level}, seed {seed}: {run}", flush=True)
    return run


def grammatical_share(model: GPT, tokenizer: CharTokenizer, level: int, seed: int) -> dict:
    """Of plays that the model writes after a blank line, the share that are plays; those unfinished after 500 characters are left out."""
    prompt = torch.tensor([tokenizer.encode(END)] * SAMPLES)
    written = [tokenizer.decode(ids)[len(END):] for ids in sample(model, prompt, 500, seed=seed)]
    finished = [text[:text.index(END) + len(END)] for text in written if END in text]
    return {"samples": len(finished), "grammatical_share": sum(is_play(text, level) for text in finished) / max(1, len(finished))}


def is_play(text: str, level: int) -> bool:
    try:
        return bool(score(text, level).starts.size)         # END ends a play and stands nowhere else, so it is one, and whole
    except Ungrammatical:
        return False


if __name__ == "__main__":
    main()
