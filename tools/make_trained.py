"""Train the small models that come with the library, and write them to gptlib/trained_models.

    python tools/make_trained.py                # all of them: a few minutes on one thread
    python tools/make_trained.py gpt courier    # only these

gptlib/trained.py describes the files. Every model has a fixed seed. On another machine, rounding
can give slightly different weights, and then the sha256 changes too.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from gptlib import Bigram, CharTokenizer, count_bigrams, evaluate, load_corpus, split
from gptlib.config import GPTConfig, TrainConfig
from gptlib.corpora.courier import Courier, courier_scores, train_on_courier
from gptlib.corpora.courier_text import CourierTokenizer
from gptlib.tokenizer import Tokenizer
from gptlib.train import train
from gptlib.trained import FOLDER, read_rounded, write_rounded
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

BLOCK_SIZE = 64


class Trained(NamedTuple):
    """A trained model, and how to measure its losses."""

    model: nn.Module
    tokenizer: Tokenizer
    losses: Callable[[nn.Module], dict[str, float]]
    about: dict


def shakespeare() -> tuple:
    """Return the corpus, its tokenizer, the training split and the validation split."""
    corpus = load_corpus("tinyshakespeare")
    tokenizer = CharTokenizer.from_text(corpus.text)
    return corpus, tokenizer, *split(torch.tensor(tokenizer.encode(corpus.text)))


def about_corpus(corpus) -> dict:
    return {"corpus": corpus.name, "corpus_sha256": corpus.sha256,
            "loss_of": "the whole validation split, in nats per character"}


def bigram() -> Trained:
    corpus, tokenizer, train_ids, val_ids = shakespeare()
    model = Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size), smoothing=1.0)
    about = {"what": "chapter 1: the counted bigram model, smoothing 1", **about_corpus(corpus)}
    return Trained(model, tokenizer, validation_loss(val_ids), about)


def validation_loss(val_ids: torch.Tensor) -> Callable[[nn.Module], dict[str, float]]:
    return lambda model: {"validation": evaluate(model, val_ids, BLOCK_SIZE)[0]}


def on_shakespeare(what: str, shape: dict, config: TrainConfig) -> Trained:
    """Train a model on tinyshakespeare. `shape` are fields of VariantConfig."""
    corpus, tokenizer, train_ids, val_ids = shakespeare()
    torch.manual_seed(config.seed)
    model = make_model(VariantConfig(
        vocab_size=tokenizer.vocab_size, block_size=BLOCK_SIZE, **shape))
    train(model, train_ids, val_ids, BLOCK_SIZE, config, progress=False)
    about = {"what": what, **about_corpus(corpus), "training": asdict(config)}
    return Trained(model, tokenizer, validation_loss(val_ids), about)


def attention() -> Trained:
    return on_shakespeare(
        "chapter 3: one decoder block with attention",
        {"n_layer": 1, "n_head": 4, "n_embd": 64},
        TrainConfig(max_steps=1000, batch_size=32, learning_rate=5e-3, eval_interval=1000,
                    device="cpu"))


def gpt() -> Trained:
    defaults = GPTConfig(vocab_size=1)
    return on_shakespeare(
        "chapter 4: the GPT of the default recipe, with 1,000 steps instead of 1,500",
        {name: getattr(defaults, name) for name in ("n_layer", "n_head", "n_embd")},
        TrainConfig(max_steps=1000, eval_interval=1000, device="cpu"))


def toeplitz() -> Trained:
    return on_shakespeare(
        "chapter 6: Toeplitz time-weighting, the shape and the steps of the chapter's measurement, "
        "with twice its batch",
        {"n_layer": 3, "n_head": 4, "n_embd": 64, "attention": "toeplitz"},
        TrainConfig(max_steps=2000, batch_size=16, eval_interval=2000, device="cpu"))


def courier() -> Trained:
    """Train the chapter's courier model with the seed that learned best of five (0.04 nats)."""
    rules = Courier()
    tokenizer = CourierTokenizer(rules)
    config = TrainConfig(max_steps=900, batch_size=32, learning_rate=4e-3, warmup=40,
                         eval_interval=900, seed=5, device="cpu")
    torch.manual_seed(config.seed)
    model = make_model(VariantConfig(
        vocab_size=rules.vocab_size, block_size=rules.n_windows * rules.window, n_layer=2,
        n_head=4, n_embd=48, memory="mean", window=rules.window))
    train_on_courier(model, rules, config)
    about = {
        "what": "chapter 7: context rolling with the mean as memory, on the courier; seed 5 of the "
                "five seeds of the chapter's measurement, because it learned best",
        "corpus": "courier",
        "rules": asdict(rules),
        "loss_of": "1,000 new texts, in nats per token (all) and per answer (all others)",
        "training": asdict(config),
    }
    return Trained(model, tokenizer, lambda model: courier_scores(model, rules), about)


RECIPES = {recipe.__name__: recipe for recipe in (bigram, attention, gpt, toeplitz, courier)}


def make(name: str, folder: Path) -> None:
    """Train the model called `name`, write its two files to `folder`, and print its losses."""
    start = time.process_time()
    trained = RECIPES[name]()
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"{name}.safetensors"
        write_rounded(path, trained.model, trained.tokenizer, {})
        rounded, _ = read_rounded(path)
    losses = {"before": trained.losses(trained.model), "after": trained.losses(rounded)}
    about = {
        "what": trained.about.pop("what"),
        "command": f"python tools/make_trained.py {name}",
        "cpu_seconds": round(seconds, 1),
        **trained.about,
        "loss_before_int8": {key: round(loss, 4) for key, loss in losses["before"].items()},
        "loss_after_int8": {key: round(loss, 4) for key, loss in losses["after"].items()},
    }
    write_rounded(folder / f"{name}.safetensors", trained.model, trained.tokenizer, about)
    print(f"{name}: {seconds:.0f} s; loss {about['loss_before_int8']}, "
          f"after int8 {about['loss_after_int8']}", flush=True)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        sys.exit(f"make_trained.py: {unknown[0]!r} should be one of {', '.join(RECIPES)}")
    for name in names or RECIPES:
        make(name, FOLDER)


if __name__ == "__main__":
    main(sys.argv[1:])
