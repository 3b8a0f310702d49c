"""The command line: `python -m gptlib plan`, `train`, `generate` and `grade`."""

import argparse
import contextlib
import io
import math
import os
import sys
import typing
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path

import torch
import yaml
from torch import Tensor

from gptlib.bigram import Bigram, count_bigrams
from gptlib.bpe import make_tokenizer
from gptlib.config import (
    ConfigError,
    GPTConfig,
    TrainConfig,
    did_you_mean,
    from_parameters,
    project_dir,
)
from gptlib.corpora import load_corpus
from gptlib.data import split
from gptlib.generate import stream_text
from gptlib.plan import calibrate, plan_run
from gptlib.plot import new_figure, plot_loss
from gptlib.run import TrainResult
from gptlib.run_folder import RESUME
from gptlib.tokenizer import Tokenizer
from gptlib.train import evaluate, train
from gptlib.variants.build import load_model, make_model
from gptlib.variants.config import VariantConfig
from gptlib.variants.quantize import int8_copy

# Presets also hold these settings of chapter 4, which the command line does not have.
CHAPTER_SETTINGS = ("published", "prompt", "sample_tokens")

# The help of an option is the name of its config class, unless it is listed here.
OPTION_HELP = {
    "memory": "how the model sees earlier tokens: attention over the whole block, or a context "
              "that each window passes to the next (chapter 7)",
    "window": "tokens in a window, for every memory except attention",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. For bad input, print one sentence to standard error and return 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = make_parser().parse_args(expand_preset(arguments))
        options.command(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"gptlib {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


# The commands -------------------------------------------------------------------------------------

def train_command(options: Namespace) -> None:
    join_processes()
    # Only the first of several processes prints, and draws the loss.
    first = os.environ.get("RANK", "0") == "0"
    corpus = load_corpus(options.corpus)
    tokenizer = make_tokenizer(options.tokenizer, corpus.text, options.vocab_size)
    config = model_config(options, tokenizer.vocab_size)
    train_config = from_parameters(TrainConfig, vars(options))
    torch.manual_seed(train_config.seed)
    model = make_model(config)
    if first:
        print(corpus.report(model.parameter_table()["total"]))
    train_ids, val_ids = encode_splits(corpus.text, tokenizer)
    result = train(model, train_ids, val_ids, config.block_size, train_config,
                   out_dir=options.out, tokenizer=tokenizer, resume=options.resume)
    if first and result.history:
        bigram = Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size))
        bigram_loss, _ = evaluate(bigram, val_ids, config.block_size)
        figure, axes = new_figure()
        plot_loss(axes, result.history, tokenizer.vocab_size, bigram_loss)
        figure.savefig(options.out / "loss.png")
        n_bytes = len(split(corpus.text)[1].encode("utf-8"))
        print(f"{describe_best(result, len(val_ids), n_bytes)}; model in {options.out}")


def plan_command(options: Namespace) -> None:
    corpus = load_corpus(options.corpus)
    tokenizer = make_tokenizer(options.tokenizer, corpus.text, options.vocab_size)
    config = model_config(options, tokenizer.vocab_size)
    train_config = from_parameters(TrainConfig, vars(options))
    print(corpus.report(), flush=True)
    train_ids, val_ids = encode_splits(corpus.text, tokenizer)
    speed = None
    if options.steps:
        speed = calibrate(config, train_config, train_ids, val_ids, options.steps, options.out)
    print(plan_run(config, train_config, len(train_ids), len(val_ids), speed).table())


def generate_command(options: Namespace) -> None:
    model, tokenizer = load_model(options.checkpoint)
    if tokenizer is None:
        raise ValueError(
            f"{options.checkpoint} was saved without its tokenizer, so its tokens cannot be shown "
            "as text"
        )
    if options.int8:
        model = int8_copy(model)
    print(options.prompt, end="", flush=True)
    pieces = stream_text(
        model, tokenizer, options.prompt, options.max_new_tokens, options.stop,
        options.temperature, options.top_k, options.top_p, options.seed,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def grade_command(options: Namespace) -> None:
    # This import is here because it imports the checks of all chapters.
    from gptlib.classroom.grade import grade, write_csv

    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file may have characters that the console cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    grades = grade(options.folder, options.seconds, options.memory, options.workers)
    with contextlib.closing(write_csv(grades, options.out)) as written:
        for result in written:
            row = result.row()
            remarks = f" ({row['remarks']})" if row["remarks"] else ""
            print(f"{row['submission']}: {row['passed']} of {row['of']}{remarks}", flush=True)
    print(f"every verdict is in {options.out}")


def join_processes() -> None:
    """Connect this process to the others, if torchrun has started it."""
    if "RANK" in os.environ:
        # PyTorch selects NCCL between GPUs and gloo between CPUs.
        torch.distributed.init_process_group()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def model_config(options: Namespace, vocab_size: int) -> GPTConfig:
    """Return the config of the model: a GPTConfig, or a VariantConfig if it has any variant."""
    config = from_parameters(VariantConfig, vars(options), vocab_size=vocab_size)
    plain_config = from_parameters(GPTConfig, vars(options), vocab_size=vocab_size)
    is_plain = config == VariantConfig(**asdict(plain_config))
    return plain_config if is_plain else config


def encode_splits(text: str, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the tokens of the training split and of the validation split, (N,) each."""
    train_text, val_text = split(text)
    return torch.tensor(tokenizer.encode(train_text)), torch.tensor(tokenizer.encode(val_text))


def describe_best(result: TrainResult, n_tokens: int, n_bytes: int) -> str:
    """Return the best validation loss, in nats per token and in bits per byte, as text.

    Args:
        n_tokens, n_bytes: the length of the validation split, in tokens and in bytes of utf-8.
    """
    loss, step = result.best["val_loss"], result.best["step"]
    bits_per_byte = loss * n_tokens / n_bytes / math.log(2)
    return (
        f"best validation loss {loss:.4f} nats per token, {bits_per_byte:.4f} bits per byte, "
        f"at step {step}"
    )


# The options --------------------------------------------------------------------------------------

def make_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = ArgumentParser(
        prog="python -m gptlib", description="Train a GPT, and sample from it."
    )
    commands = parser.add_subparsers(required=True, dest="name")

    def add_command(name: str, command: Callable, help: str) -> ArgumentParser:
        added = commands.add_parser(name, help=help, formatter_class=ArgumentDefaultsHelpFormatter)
        added.set_defaults(command=command)
        return added

    add_training_options(add_command("train", train_command, "train a GPT on a corpus"))
    planning = add_command("plan", plan_command, "what `train` with the same options would need")
    planning.add_argument("--steps", type=int, default=20,
                          help="training steps to time on this machine; 0: count only")
    add_training_options(planning)
    add_sampling_options(add_command("generate", generate_command, "sample from a checkpoint"))
    add_grading_options(add_command(
        "grade", grade_command, "check the exercises of all notebooks in a folder; no sandbox"
    ))
    return parser


def add_training_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", help="a system in notebooks/params, such as nanogpt; further options change it")
    add("--corpus", default="auto", help="a name, a path, a folder, a glob, or text:…")
    add("--tokenizer", default="char", choices=("char", "lowercase", "bpe"),
        help="how text becomes tokens")
    add("--vocab-size", type=int, default=512,
        help="of the bpe tokenizer, which learns it from the training split")
    add("--out", type=Path, default=Path("runs/gpt"), help="the folder for metrics and checkpoints")
    add("--resume", default="never", choices=RESUME,
        help="what to do if --out holds a run. auto: continue it; restart: move it to OUT/earlier "
             "and begin again; never: do not train")
    core = fields(GPTConfig)
    variants = [f for f in fields(VariantConfig) if f not in core]
    add_config_options(parser, GPTConfig, core)
    add_config_options(parser, VariantConfig, variants)
    add_config_options(parser, TrainConfig, fields(TrainConfig))


def add_config_options(parser: ArgumentParser, config: type, options: Iterable[Field]) -> None:
    """Add an option for each of the given fields of a config class that has a default."""
    for f in options:
        if f.default is not MISSING:
            add_config_option(parser, config, f)


def add_config_option(parser: ArgumentParser, config: type, f: Field) -> None:
    kind = typing.get_type_hints(config)[f.name]
    if kind is bool:
        accepted = {"action": argparse.BooleanOptionalAction}
    elif typing.get_origin(kind) is typing.Literal:
        accepted = {"choices": typing.get_args(kind)}
    else:
        accepted = {"type": kind}
    help = OPTION_HELP.get(f.name, config.__name__)
    parser.add_argument(flag(f.name), default=f.default, help=help, **accepted)


def add_sampling_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True,
        help="a .safetensors file, or the folder of a run (its best model)")
    add("--prompt", default="\n", help="the beginning of the text")
    add("--max-new-tokens", type=int, default=500)
    add("--temperature", type=float, default=1.0, help="0 is greedy")
    add("--top-k", type=int, help="draw from the k most likely tokens")
    add("--top-p", type=float, help="draw from the most likely tokens that have this probability")
    add("--stop", action="append", default=[],
        help="end before this text; may be given more than once")
    add("--int8", action="store_true",
        help="weights of one byte: faster on a CPU, a little less exact")
    add("--seed", type=int, help="the same seed gives the same text")


def add_grading_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="contains the notebooks, in folders of their own if you like")
    add("--out", type=Path, default=Path("grades.csv"),
        help="the table: one row for each notebook, one column for each exercise")
    add("--seconds", type=float, default=10.0, help="computing time for one exercise")
    add("--memory", type=int, default=1024,
        help="MiB for one notebook, in addition to what PyTorch takes")
    add("--workers", type=int, default=2, help="notebooks at a time")


def flag(name: str) -> str:
    """Return the option for a field.

    >>> flag("n_layer")
    '--n-layer'
    """
    return "--" + name.replace("_", "-")


# Presets ------------------------------------------------------------------------------------------

def expand_preset(arguments: list[str]) -> list[str]:
    """Return the arguments with the settings of notebooks/params/NAME.yaml for `--preset NAME`.

    The settings stand before the other options. If an option is given twice, the later one counts.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    found, rest = parser.parse_known_args(arguments)
    if found.preset is None:
        return arguments
    folder = project_dir() / "notebooks/params"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    presets = [name for name in names if not name.startswith(("smoke", "sweep"))]
    if found.preset not in presets:
        raise ConfigError(f"unknown preset {found.preset!r}{did_you_mean(found.preset, presets)}")
    settings = yaml.safe_load((folder / f"{found.preset}.yaml").read_text(encoding="utf-8"))
    return [*rest[:1], *preset_arguments(settings), *rest[1:]]


def preset_arguments(settings: dict) -> list[str]:
    """Return the settings of a preset as options of the command line.

    >>> preset_arguments({"n_layer": 6, "bias": False, "out_dir": "runs/a"})
    ['--n-layer=6', '--no-bias', '--out=runs/a']
    """
    arguments = []
    for name, value in settings.items():
        if name in CHAPTER_SETTINGS:
            continue
        option = "--out" if name == "out_dir" else flag(name)
        if value is True:
            arguments.append(option)
        elif value is False:
            arguments.append(option.replace("--", "--no-", 1))
        else:
            arguments.append(f"{option}={value}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
