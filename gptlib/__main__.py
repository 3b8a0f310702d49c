"""The command line: `python -m gptlib plan`, `train` and `generate`."""

import argparse
import os
import sys
import typing
from dataclasses import MISSING, fields
from pathlib import Path

import torch

from gptlib.bigram import Bigram, count_bigrams
from gptlib.checkpoint import load_checkpoint
from gptlib.config import GPTConfig, TrainConfig, from_parameters
from gptlib.data import load_corpus, split
from gptlib.generate import stream_text
from gptlib.model import GPT
from gptlib.plan import calibrate, plan_run
from gptlib.plot import new_figure, plot_loss
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer
from gptlib.train import evaluate, train


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Bad input ends it with one sentence on standard error and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"gptlib {options.name}: {error}", file=sys.stderr)
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
    tokenizer = LowercaseTokenizer() if options.tokenizer == "lowercase" else CharTokenizer.from_text(corpus.text)
    model_config = from_parameters(GPTConfig, settings, vocab_size=tokenizer.vocab_size)
    train_config = from_parameters(TrainConfig, settings)
    torch.manual_seed(train_config.seed)
    model = GPT(model_config)
    print(corpus.report(model.parameter_table()["total"]))
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(corpus.text)))
    result = train(model, train_ids, val_ids, model_config.block_size, train_config, out_dir=options.out, tokenizer=tokenizer,
                   resume=options.resume)
    if result.history and os.environ.get("RANK", "0") == "0":
        bigram_loss, _ = evaluate(Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size)), val_ids, model_config.block_size)
        figure, axes = new_figure()
        plot_loss(axes, result.history, tokenizer.vocab_size, bigram_loss)
        figure.savefig(options.out / "loss.png")
        print(f"best validation loss {result.best['val_loss']:.4f} nats per token at step {result.best['step']}; model in {options.out}")


def plan_command(options) -> None:
    corpus = load_corpus(options.corpus)
    tokenizer = LowercaseTokenizer() if options.tokenizer == "lowercase" else CharTokenizer.from_text(corpus.text)
    model_config = from_parameters(GPTConfig, vars(options), vocab_size=tokenizer.vocab_size)
    train_config = from_parameters(TrainConfig, vars(options))
    print(corpus.report(), flush=True)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(corpus.text)))
    speed = calibrate(model_config, train_config, train_ids, val_ids, options.steps) if options.steps else None
    print(plan_run(model_config, train_config, len(train_ids), len(val_ids), speed).table())


def generate_command(options) -> None:
    checkpoint = load_checkpoint(options.checkpoint)
    if checkpoint.tokenizer is None:
        raise ValueError(f"{options.checkpoint} was saved without its tokenizer, so its tokens cannot be shown as text")
    print(options.prompt, end="", flush=True)
    for piece in stream_text(checkpoint.model, checkpoint.tokenizer, options.prompt, options.max_new_tokens, stop=options.stop,
                             temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, seed=options.seed):
        print(piece, end="", flush=True)
    print()


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
    sampling.add_argument("--seed", type=int, help="the same seed gives the same text")
    return parser


def _add_training_options(training: argparse.ArgumentParser) -> None:
    training.add_argument("--corpus", default="auto", help="a name, a path, a folder, a glob, or text:…")
    training.add_argument("--tokenizer", default="char", choices=("char", "lowercase"), help="how text becomes tokens")
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
