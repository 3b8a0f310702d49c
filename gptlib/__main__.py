"""The command line: `python -m gptlib plan`, `train`, `generate` and `grade`."""

import argparse
import contextlib
import io
import math
import os
import sys
import typing
from dataclasses import MISSING, fields
from pathlib import Path

import torch
import yaml

from gptlib.bigram import Bigram, count_bigrams
from gptlib.checkpoint import load_checkpoint
from gptlib.config import ConfigError, GPTConfig, TrainConfig, did_you_mean, from_parameters, project_dir
from gptlib.context_rolling import MEMORIES, make_model, with_memory
from gptlib.data import load_corpus, split
from gptlib.generate import stream_text
from gptlib.int8 import int8_copy
from gptlib.plan import calibrate, plan_run
from gptlib.plot import new_figure, plot_loss
from gptlib.tokenizer import make_tokenizer
from gptlib.train import evaluate, train


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Bad input ends it with one sentence on standard error and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(_expand_preset(arguments))
        options.command(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"gptlib {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def train_command(options) -> None:
    settings = vars(options)
    if "RANK" in os.environ:                                            # started by torchrun
        torch.distributed.init_process_group()                          # NCCL between GPUs, gloo between CPUs
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    corpus = load_corpus(options.corpus)
    tokenizer = make_tokenizer(options.tokenizer, corpus.text, options.vocab_size)
    model_config = with_memory(from_parameters(GPTConfig, settings, vocab_size=tokenizer.vocab_size), options.memory, options.window)
    train_config = from_parameters(TrainConfig, settings)
    torch.manual_seed(train_config.seed)
    model = make_model(model_config)
    print(corpus.report(model.parameter_table()["total"]))
    train_ids, val_ids = (torch.tensor(tokenizer.encode(part)) for part in split(corpus.text))
    result = train(model, train_ids, val_ids, model_config.block_size, train_config, out_dir=options.out, tokenizer=tokenizer,
                   resume=options.resume)
    if result.history and os.environ.get("RANK", "0") == "0":
        bigram_loss, _ = evaluate(Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size)), val_ids, model_config.block_size)
        figure, axes = new_figure()
        plot_loss(axes, result.history, tokenizer.vocab_size, bigram_loss)
        figure.savefig(options.out / "loss.png")
        loss, n_bytes = result.best["val_loss"], len(split(corpus.text)[1].encode("utf-8"))
        print(f"best validation loss {loss:.4f} nats per token, {loss * len(val_ids) / n_bytes / math.log(2):.4f} bits per byte, "
              f"at step {result.best['step']}; model in {options.out}")


def plan_command(options) -> None:
    corpus = load_corpus(options.corpus)
    tokenizer = make_tokenizer(options.tokenizer, corpus.text, options.vocab_size)
    model_config = with_memory(from_parameters(GPTConfig, vars(options), vocab_size=tokenizer.vocab_size), options.memory, options.window)
    train_config = from_parameters(TrainConfig, vars(options))
    print(corpus.report(), flush=True)
    train_ids, val_ids = (torch.tensor(tokenizer.encode(part)) for part in split(corpus.text))
    speed = calibrate(model_config, train_config, train_ids, val_ids, options.steps, options.out) if options.steps else None
    print(plan_run(model_config, train_config, len(train_ids), len(val_ids), speed).table())


def generate_command(options) -> None:
    checkpoint = load_checkpoint(options.checkpoint)
    if checkpoint.tokenizer is None:
        raise ValueError(f"{options.checkpoint} was saved without its tokenizer, so its tokens cannot be shown as text")
    model = int8_copy(checkpoint.model) if options.int8 else checkpoint.model
    print(options.prompt, end="", flush=True)
    for piece in stream_text(model, checkpoint.tokenizer, options.prompt, options.max_new_tokens, stop=options.stop,
                             temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, seed=options.seed):
        print(piece, end="", flush=True)
    print()


def grade_command(options) -> None:
    from gptlib.grade import grade, write_csv  # imports every chapter's checks

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")               # a file's name may hold what the console cannot show
    with contextlib.closing(write_csv(grade(options.folder, options.seconds, options.memory, options.workers), options.out)) as grades:
        for result in grades:
            row = result.row()
            print(f"{row['submission']}: {row['passed']} of {row['of']}" + f" ({row['remarks']})" * bool(row["remarks"]), flush=True)
    print(f"every verdict is in {options.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gptlib", description="Train a GPT, and sample from it.")
    commands = parser.add_subparsers(required=True, dest="name")

    training = commands.add_parser("train", help="train a GPT on a corpus", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    training.set_defaults(command=train_command)
    _add_training_options(training)

    planning = commands.add_parser("plan", help="what `train` with the same options would need",
                                   formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    planning.set_defaults(command=plan_command)
    planning.add_argument("--steps", type=int, default=20, help="training steps to time on this machine; 0: count only")
    _add_training_options(planning)

    sampling = commands.add_parser("generate", help="sample from a checkpoint", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sampling.set_defaults(command=generate_command)
    sampling.add_argument("--checkpoint", type=Path, required=True, help="a .safetensors file, or a run's folder (its best model)")
    sampling.add_argument("--prompt", default="\n", help="what the text begins with")
    sampling.add_argument("--max-new-tokens", type=int, default=500)
    sampling.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    sampling.add_argument("--top-k", type=int, help="draw from the k likeliest tokens")
    sampling.add_argument("--top-p", type=float, help="draw from the likeliest tokens that hold this share")
    sampling.add_argument("--stop", action="append", default=[], help="end before this text; may be given more than once")
    sampling.add_argument("--int8", action="store_true", help="weights of one byte: faster on a CPU, a little less exact")
    sampling.add_argument("--seed", type=int, help="the same seed gives the same text")

    grading = commands.add_parser("grade", help="check the exercises of all notebooks in a folder; no sandbox",
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    grading.set_defaults(command=grade_command)
    grading.add_argument("folder", type=Path, help="where the notebooks lie, in folders of their own if you like")
    grading.add_argument("--out", type=Path, default=Path("grades.csv"), help="the table: a row a notebook, a column an exercise")
    grading.add_argument("--seconds", type=float, default=10.0, help="computing time for one exercise")
    grading.add_argument("--memory", type=int, default=1024, help="MiB for one notebook, on top of what PyTorch takes")
    grading.add_argument("--workers", type=int, default=2, help="notebooks at a time")
    return parser


def _expand_preset(arguments: list[str]) -> list[str]:
    """`--preset NAME` replaced by what stands in notebooks/params/NAME.yaml, before the other options, which so prevail."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    found, rest = parser.parse_known_args(arguments)
    if found.preset is None:
        return arguments
    folder = project_dir() / "notebooks/params"
    known = sorted(path.stem for path in folder.glob("*.yaml") if not path.stem.startswith(("smoke", "sweep")))
    if found.preset not in known:
        raise ConfigError(f"unknown preset {found.preset!r}{did_you_mean(found.preset, known)}")
    values = yaml.safe_load((folder / f"{found.preset}.yaml").read_text(encoding="utf-8"))
    flags = []
    for name, value in values.items():
        if name not in ("published", "prompt", "sample_tokens"):        # what chapter 4 alone asks for
            flag = "out" if name == "out_dir" else name.replace("_", "-")
            flags.append(f"--{'no-' if value is False else ''}{flag}" if isinstance(value, bool) else f"--{flag}={value}")
    return [rest[0], *flags, *rest[1:]]


def _add_training_options(training: argparse.ArgumentParser) -> None:
    training.add_argument("--preset", help="a system in notebooks/params, such as nanogpt; further options change it")
    training.add_argument("--corpus", default="auto", help="a name, a path, a folder, a glob, or text:…")
    training.add_argument("--tokenizer", default="char", choices=("char", "lowercase", "bpe"), help="how text becomes tokens")
    training.add_argument("--vocab-size", type=int, default=512, help="of the bpe tokenizer, which learns it from the training split")
    training.add_argument("--memory", default="attention", choices=("attention", *MEMORIES), help="what reaches back: attention over the "
                          "whole block, or, window by window, what a window hands to the next (chapter 7)")
    training.add_argument("--window", type=int, default=64, help="tokens of a window, for any memory but attention")
    training.add_argument("--out", type=Path, default=Path("runs/gpt"), help="the folder for metrics and checkpoints")
    training.add_argument("--resume", default="never", choices=("never", "auto"), help="auto: go on from the last checkpoint in --out")
    for config in (GPTConfig, TrainConfig):
        hints = typing.get_type_hints(config)
        for f in fields(config):
            if f.default is MISSING:
                continue
            flag, kind = "--" + f.name.replace("_", "-"), hints[f.name]
            if kind is bool:
                training.add_argument(flag, default=f.default, action=argparse.BooleanOptionalAction, help=config.__name__)
            elif typing.get_origin(kind) is typing.Literal:
                training.add_argument(flag, default=f.default, choices=typing.get_args(kind), help=config.__name__)
            else:
                training.add_argument(flag, default=f.default, type=kind, help=config.__name__)


if __name__ == "__main__":
    sys.exit(main())
