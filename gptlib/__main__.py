"""The command line: `python -m gptlib plan`, `train`, `generate`, `chat`, `prepare` and `grade`."""

import argparse
import contextlib
import io
import math
import os
import sys
import typing
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from gptlib.bigram import evaluate_bigram
from gptlib.bpe import make_tokenizer
from gptlib.checks import between, is_out_of_memory
from gptlib.config import (
    ConfigError,
    GPTConfig,
    TrainConfig,
    above,
    at_least,
    checked_option,
    did_you_mean,
    from_parameters,
    project_dir,
)
from gptlib.corpora import Corpus, load_corpus
from gptlib.corpora.chat import ANSWER_LENGTH, chat
from gptlib.corpora.shards import open_shards
from gptlib.data import check_length, split
from gptlib.generate import stream_text
from gptlib.optimizers import make_optimizer
from gptlib.options import Parser, flag, join_negative_numbers, name_options, read_yaml
from gptlib.plan import calibrate, plan_run, readable
from gptlib.run import TrainResult, pick_device
from gptlib.run_folder import RESUME
from gptlib.tokenizer import Tokenizer, default_prompt, shorten, unknown_share
from gptlib.train import learning_rate, train
from gptlib.variants.build import load_model, make_model
from gptlib.variants.config import VariantConfig
from gptlib.variants.quantize import int8_copy

COMMANDS = ("train", "plan", "generate", "chat", "prepare", "grade")

# Presets also hold these settings of notebooks/train.ipynb. The command line does not have them.
CHAPTER_SETTINGS = ("published", "prompt", "sample_tokens")

# What presets hold in addition to the fields of the configs.
OTHER_SETTINGS = {"corpus": str, "tokenizer": str, "vocab_size": int, "out_dir": str, "resume": str}

# Larger values would make a run that no machine finishes.
LARGEST = {"n_layer": 10_000, "max_steps": 10 ** 9}

# torchrun gives each process these environment variables.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# The options that determine how much memory a run needs.
SIZES = ("batch_size", "block_size", "n_layer", "n_embd", "mlp_ratio", "n_memory")

# A plan counts up to this many bytes. PyTorch cannot count many more.
LARGEST_PLAN = 10 ** 15

# The help of an option is the name of its config class, unless it is listed here.
OPTION_HELP = {
    "memory": "how the model sees earlier tokens: attention over the whole block, or a context "
              "that each window passes to the next (chapter 7)",
    "window": "tokens in a window, for every memory except attention",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. For bad input, print one sentence to standard error and return 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the console cannot show are written as \\u….
            stream.reconfigure(errors="backslashreplace")
    command = arguments[0] if arguments[:1] and arguments[0] in COMMANDS else ""
    options = Namespace()
    try:
        arguments = expand_preset(join_negative_numbers(arguments))
        check_command(arguments)
        options = make_parser().parse_args(arguments)
        options.command(options)
        # The last output can fail too, for example if the disk is full.
        print(end="", flush=True)
    except BrokenPipeError:
        # The program that reads this output has ended, such as `head`. That is no error.
        discard_output()
        return 141
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, OSError, MemoryError, ImportError) as error:
        sentence = name_options(explain(error), vars(options))
        print(f"gptlib {command}".strip() + f": {sentence}", file=sys.stderr)
        if isinstance(error, OSError):
            discard_output()
        return 1
    return 0


def explain(error: Exception) -> str:
    """Return an error as one line that says what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name} is not installed: pip install -e '.[course]'"
    of_gpu = isinstance(error, RuntimeError) and "out of memory" in text
    if is_out_of_memory(error) or of_gpu:
        return "the memory of this machine is too small for these options: choose smaller numbers"
    if isinstance(error, OSError) and error.strerror:
        name = os.fspath(error.filename or "the output")
        return f"{name} cannot be read or written ({error.strerror})"
    return text


def discard_output() -> None:
    """Send what is still unwritten nowhere, so that the end of Python does not report it again."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# The commands -------------------------------------------------------------------------------------

def train_command(options: Namespace) -> None:
    # A wrong MPLBACKEND is an error of this import, which comes before the training.
    try:
        from gptlib.plot import new_figure, plot_loss
    except ValueError as error:
        raise ConfigError(f"the environment variable MPLBACKEND is wrong: {error}") from None

    join_processes()
    # Only the first of several processes prints, and draws the loss.
    first = os.environ.get("RANK", "0") == "0"
    if options.shards:
        train_on_shards(options, first)
        return
    corpus, tokenizer, config, train_config = read_options(options)
    train_ids, val_ids = encode_splits(corpus.text, tokenizer, config.block_size)
    check_memory(config, train_config, len(train_ids), len(val_ids))
    torch.manual_seed(train_config.seed)
    model = make_model(config)
    if first:
        print(corpus.report(model.parameter_table()["total"]))
        print_warm_up(train_config, config.block_size)
    result = train(model, train_ids, val_ids, config.block_size, train_config,
                   out_dir=options.out, tokenizer=tokenizer, resume=options.resume,
                   optimizer=make_optimizer)
    if first and result.history:
        bigram_loss = evaluate_bigram(train_ids, val_ids, tokenizer.vocab_size)
        figure, axes = new_figure()
        plot_loss(axes, result.history, tokenizer.vocab_size, bigram_loss)
        figure.savefig(options.out / "loss.png")
        n_bytes = len(split(corpus.text)[1].encode("utf-8"))
        if unknown_share(tokenizer, corpus.text):
            n_bytes = None
        print(f"{describe_best(result, len(val_ids), n_bytes)}; model in {options.out}")


def train_on_shards(options: Namespace, first: bool) -> None:
    """Train on what `prepare` has written. The tokens stay on the disk."""
    from gptlib.plot import new_figure, plot_loss

    train_ids, val_split = open_shards(options.shards)
    val_ids, tokenizer = val_split.sample(), train_ids.tokenizer
    config = model_config(options, tokenizer.vocab_size)
    train_config = from_parameters(TrainConfig, vars(options))
    batches = train_ids.batches(config.block_size, train_config.batch_size, train_config.seed)
    check_length(val_ids, config.block_size, "validation split")
    check_memory(config, train_config, len(train_ids), len(val_ids))
    torch.manual_seed(train_config.seed)
    model = make_model(config)
    if first:
        print(f"{options.shards}: {train_ids.n_documents:,} documents, {len(train_ids):,} tokens")
        print_warm_up(train_config, config.block_size)
    result = train(model, batches, val_ids, config.block_size, train_config, out_dir=options.out,
                   tokenizer=tokenizer, resume=options.resume, optimizer=make_optimizer)
    if first and result.history:
        figure, axes = new_figure()
        plot_loss(axes, result.history, tokenizer.vocab_size)
        figure.savefig(options.out / "loss.png")
        n_bytes = sum(len(tokenizer.token_bytes(i)) for i in val_ids.tolist()
                      if not tokenizer.is_special(i))
        print(f"{describe_best(result, len(val_ids), n_bytes)}; model in {options.out}")


def print_warm_up(config: TrainConfig, block_size: int) -> None:
    """Print one line if the run ends before its warm-up."""
    unit = config.batch_size * block_size if config.lr_unit == "tokens" else 1
    if config.warmup > config.max_steps * unit:
        highest = learning_rate(config, config.max_steps - 1, block_size)
        print(
            f"the run ends before its warm-up of {config.warmup} {config.lr_unit}: its learning "
            f"rate rises to {highest:.3g}, not to {config.learning_rate:.3g}; a smaller --warmup "
            "would help"
        )


def plan_command(options: Namespace) -> None:
    if options.steps < 0:
        raise ConfigError(f"steps={options.steps} should be at least 0")
    corpus, tokenizer, config, train_config = read_options(options)
    train_ids, val_ids = encode_splits(corpus.text, tokenizer, config.block_size)
    if options.steps:
        check_memory(config, train_config, len(train_ids), len(val_ids))
    print(corpus.report(), flush=True)
    speed = None
    if options.steps:
        speed = calibrate(config, train_config, train_ids, val_ids, options.steps, options.out)
    n_train, n_val = len(train_ids), len(val_ids)
    print(plan_run(config, train_config, n_train, n_val, speed, corpus.text).table())


def load_model_and_tokenizer(path: Path) -> tuple[nn.Module, Tokenizer]:
    model, tokenizer = load_model(path)
    if tokenizer is None:
        raise ValueError(
            f"{path} was saved without its tokenizer, so its tokens cannot be shown as text"
        )
    return model, tokenizer


def generate_command(options: Namespace) -> None:
    model, tokenizer = load_model_and_tokenizer(options.checkpoint)
    if options.int8:
        model = int8_copy(model)
    prompt = default_prompt(tokenizer) if options.prompt is None else options.prompt
    print(prompt, end="", flush=True)
    pieces = stream_text(
        model, tokenizer, prompt, options.max_new_tokens, options.stop,
        options.temperature, options.top_k, options.top_p, options.seed, options.min_p,
    )
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    finally:
        # The sentence about an error begins in a line of its own.
        print(flush=True)


def chat_command(options: Namespace) -> None:
    model, tokenizer = load_model_and_tokenizer(options.checkpoint)
    chat(model, tokenizer, typed_lines(), lambda piece: print(piece, end="", flush=True),
         options.system, options.max_new_tokens, options.temperature, options.seed)


def typed_lines() -> Iterator[str]:
    """Yield the lines that a person types, after "> ", or those of a pipe, until they end."""
    if not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Bytes that are not utf-8 become �, so that a wrong line cannot end the chat.
            sys.stdin.reconfigure(errors="replace")
        yield from sys.stdin
        return
    with contextlib.suppress(EOFError):
        while True:
            yield input("> ")
    print()


def prepare_command(options: Namespace) -> None:
    # This import is here because it needs the packages of the extra `data`.
    from gptlib.prepare import prepare

    limits = {"val_fraction": between(0.0, 0.5), "workers": at_least(1),
              "vocab_size": at_least(256)}
    for name, limit in limits.items():
        checked_option(name, getattr(options, name), limit)
    prepare(options.source, options.out, options.tokenizer, options.vocab_size, options.column,
            options.separator, options.val_fraction, options.clean, options.workers)


def grade_command(options: Namespace) -> None:
    # This import is here because it imports the checks of all chapters.
    from gptlib.classroom.grade import grade, write_csv

    limits = {"seconds": above(0.0), "memory": at_least(1), "workers": at_least(1)}
    for name, limit in limits.items():
        checked_option(name, getattr(options, name), limit)
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
        missing = [name for name in TORCHRUN if name not in os.environ]
        if missing:
            raise ConfigError(
                f"the environment has RANK={shorten(os.environ['RANK'])} without "
                f"{', '.join(missing)}: start several processes with torchrun, or unset RANK for a "
                "single one"
            )
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
            if not os.environ[name].isdecimal():
                raise ConfigError(
                    f"the environment has {name}={shorten(os.environ[name])}, it should be a whole "
                    "number, as torchrun sets it"
                )
        rank, n_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if not os.environ["MASTER_ADDR"] or int(os.environ["MASTER_PORT"]) > 65535:
            raise ConfigError(
                f"the environment has MASTER_ADDR={shorten(os.environ['MASTER_ADDR'])} and "
                f"MASTER_PORT={shorten(os.environ['MASTER_PORT'])}, they should be the name of a "
                "machine and a port from 0 to 65535, as torchrun sets them"
            )
        # PyTorch would wait half an hour for the missing processes.
        if rank >= n_processes:
            raise ConfigError(
                f"the environment has RANK={rank}, it should be below WORLD_SIZE={n_processes}, as "
                "torchrun sets it"
            )
        # PyTorch selects NCCL between GPUs and gloo between CPUs.
        torch.distributed.init_process_group()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def read_options(options: Namespace) -> tuple[Corpus, Tokenizer, GPTConfig, TrainConfig]:
    """Return corpus, tokenizer and configs of a run. Raise an error if it cannot be trained."""
    # The real number of tokens is not known yet. The other options are checked first, because a
    # bpe tokenizer takes a while.
    config = model_config(options, vocab_size=1)
    train_config = from_parameters(TrainConfig, vars(options))
    pick_device(train_config.device)
    existing = next(path for path in (options.out, *options.out.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"out_dir={str(options.out)!r} should be a folder, but {existing} is not")
    for name, largest in LARGEST.items():
        if getattr(options, name) > largest:
            raise ConfigError(f"{name}={getattr(options, name)} should be at most {largest:,}")
    check_fits(config, train_config, least_bytes(config, train_config), LARGEST_PLAN,
               "a plan counts up to")
    corpus = load_corpus(options.corpus)
    tokenizer = make_tokenizer(options.tokenizer, corpus.text, options.vocab_size)
    return corpus, tokenizer, model_config(options, tokenizer.vocab_size), train_config


def model_config(options: Namespace, vocab_size: int) -> GPTConfig:
    """Return the config of the model: a GPTConfig, or a VariantConfig if it has any variant."""
    config = from_parameters(VariantConfig, vars(options), vocab_size=vocab_size)
    plain_config = from_parameters(GPTConfig, vars(options), vocab_size=vocab_size)
    is_plain = config == VariantConfig(**asdict(plain_config))
    return plain_config if is_plain else config


def encode_splits(text: str, tokenizer: Tokenizer, block_size: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of the training split and of the validation split, (N,) each.

    Raises:
        DataError: a split is shorter than one window.
    """
    train_text, val_text = split(text)
    train_ids = torch.tensor(tokenizer.encode(train_text), dtype=torch.long)
    val_ids = torch.tensor(tokenizer.encode(val_text), dtype=torch.long)
    check_length(train_ids, block_size, "training split")
    check_length(val_ids, block_size, "validation split")
    return train_ids, val_ids


def check_memory(
    config: GPTConfig, train_config: TrainConfig, train_tokens: int, val_tokens: int
) -> None:
    """Raise a ConfigError if this machine has too little memory for the run."""
    limit, place = machine_memory(), "this machine has"
    # Weights and batches are made on the CPU, also if a GPU trains.
    check_fits(config, train_config, least_bytes(config, train_config), limit, place)
    if pick_device(train_config.device) == "cpu":
        needed = plan_run(config, train_config, train_tokens, val_tokens).peak
        check_fits(config, train_config, needed, limit, place)


def check_fits(
    config: GPTConfig, train_config: TrainConfig, needed: float, limit: float, place: str
) -> None:
    """Raise a ConfigError, which names the most unusual size, if a run needs too many bytes."""
    if needed <= limit:
        return
    sizes = asdict(config) | asdict(train_config)
    usual = asdict(VariantConfig(vocab_size=1)) | asdict(TrainConfig())
    names = [name for name in SIZES if name in sizes]
    name = max(names, key=lambda name: sizes[name] / usual[name])
    raise ConfigError(
        f"{name}={sizes[name]} is too large: the run needs at least {readable(needed, 'B')} of "
        f"memory, and {place} {readable(limit, 'B')}"
    )


def least_bytes(config: GPTConfig, train_config: TrainConfig) -> int:
    """Return a number of bytes that a run surely needs: the matrices of the blocks, and one batch.

    No tensor is made for it, so that any numbers are possible.
    """
    matrices = config.n_layer * (4 + 2 * config.mlp_ratio) * config.n_embd ** 2
    memory_tokens = getattr(config, "n_memory", 0) * config.n_embd
    tokens = train_config.batch_size * config.block_size
    return 4 * (matrices + memory_tokens) + 8 * tokens


def machine_memory() -> float:
    """Return the bytes of this machine's memory. They are infinite where that is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


def describe_best(result: TrainResult, n_tokens: int, n_bytes: int | None) -> str:
    """Return the best validation loss, in nats per token and in bits per byte, as text.

    Args:
        n_tokens, n_bytes: the length of the validation split, in tokens and in bytes of utf-8.
            n_bytes is None if the tokenizer has lost characters. Then there are no bits per byte.
    """
    loss, step = result.best["val_loss"], result.best["step"]
    parts = [f"best validation loss {loss:.4f} nats per token"]
    if n_bytes is not None:
        parts.append(f"{loss * n_tokens / n_bytes / math.log(2):.4f} bits per byte")
    return ", ".join([*parts, f"at step {step}"])


# The options --------------------------------------------------------------------------------------

def check_command(arguments: list[str]) -> None:
    """Raise a ConfigError unless the first argument is a command."""
    if not arguments:
        raise ConfigError(f"a command is missing: give one of {', '.join(COMMANDS)}")
    if arguments[0] in (*COMMANDS, "-h", "--help"):
        return
    if arguments[0].startswith("-"):
        raise ConfigError(
            f"{shorten(arguments[0])} stands before the command: begin with one of "
            f"{', '.join(COMMANDS)}"
        )
    raise ConfigError(
        f"unknown command {shorten(arguments[0])}{did_you_mean(arguments[0], COMMANDS)}"
    )


def make_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="python -m gptlib", description="Train a GPT, and sample from it."
    )
    commands = parser.add_subparsers(required=True, dest="name")

    def add_command(name: str, command: Callable, help: str) -> ArgumentParser:
        added = commands.add_parser(name, help=help, formatter_class=ArgumentDefaultsHelpFormatter)
        added.set_defaults(command=command, known=added.known)
        return added

    add_training_options(add_command("train", train_command, "train a GPT on a corpus"))
    planning = add_command("plan", plan_command, "what `train` with the same options would need")
    planning.add_argument("--steps", type=int, default=20,
                          help="training steps to time on this machine; 0: count only")
    add_training_options(planning)
    add_sampling_options(add_command("generate", generate_command, "sample from a checkpoint"))
    add_chat_options(add_command("chat", chat_command, "ask a model that answers, line by line"))
    add_preparing_options(add_command(
        "prepare", prepare_command, "turn files of many kinds into tokens on the disk"
    ))
    add_grading_options(add_command(
        "grade", grade_command, "check the exercises of all notebooks in a folder; no sandbox"
    ))
    return parser


def add_training_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", help="a system in notebooks/params, such as nanogpt; further options change it")
    add("--corpus", default="auto", help="a name, a path, a folder, a glob, or text:…")
    add("--shards", type=Path,
        help="a folder that `prepare` has written; in place of --corpus and --tokenizer")
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
    add("--prompt", help="the beginning of the text; without it, a line break if the tokenizer "
                         "knows one")
    add("--max-new-tokens", type=int, default=500)
    add("--temperature", type=float, default=1.0, help="0 is greedy")
    add("--top-k", type=int, help="draw from the k most likely tokens")
    add("--top-p", type=float, help="draw from the most likely tokens that have this probability")
    add("--min-p", type=float,
        help="draw from the tokens with at least this share of the largest probability")
    add("--stop", action="append", default=[],
        help="end before this text; may be given more than once")
    add("--int8", action="store_true",
        help="weights of one byte: faster on a CPU, a little less exact")
    add("--seed", type=int, help="the same seed gives the same text")


def add_chat_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True,
        help="a .safetensors file, or the folder of a run (its best model)")
    add("--system", default="", help="a text that the model reads before the first question")
    add("--max-new-tokens", type=int, default=ANSWER_LENGTH, help="of one answer")
    add("--temperature", type=float, default=0.0, help="0 is greedy")
    add("--seed", type=int, help="the same seed gives the same answers")


def add_preparing_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("source", help="a file, a folder, a glob, or wikipedia:LANGUAGE")
    add("--out", type=Path, required=True, help="the folder for the tokens")
    add("--tokenizer", default="bpe", choices=("bpe", "char"), help="how text becomes tokens")
    add("--vocab-size", type=int, default=512, help="of the bpe tokenizer")
    add("--column", default="text", help="the column of a table that holds the text")
    add("--separator", help="a text that stands between two documents of a file")
    add("--val-fraction", type=float, default=0.01, help="share of the documents for validation")
    add("--clean", action="store_true",
        help="remove exact copies, repeated lines and very short documents")
    add("--workers", type=int, default=2, help="processes that encode")


def add_grading_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="contains the notebooks, in folders of their own if you like")
    add("--out", type=Path, default=Path("grades.csv"),
        help="the table: one row for each notebook, one column for each exercise; an earlier "
             "table is renamed, such as to grades-1.csv")
    add("--seconds", type=float, default=10.0, help="computing time for one exercise")
    add("--memory", type=int, default=1024,
        help="MiB for one notebook, in addition to what PyTorch takes")
    add("--workers", type=int, default=2, help="notebooks at a time")


# Presets ------------------------------------------------------------------------------------------

def expand_preset(arguments: list[str]) -> list[str]:
    """Return the arguments with the settings of notebooks/params/NAME.yaml for `--preset NAME`.

    The settings stand before the other options. If an option is given twice, the later one counts.
    """
    parser = Parser(add_help=False)
    parser.add_argument("--preset", nargs="?", const="")
    found, rest = parser.parse_known_args(arguments)
    if found.preset is None or rest[:1] not in (["train"], ["plan"]):
        return arguments
    return [*rest[:1], *preset_arguments(read_preset(found.preset)), *rest[1:]]


def read_preset(name: str) -> dict:
    """Return the settings of a preset.

    Raises:
        ConfigError: there is no such preset, or its file is no YAML with names and values of
            settings.
    """
    folder = project_dir() / "notebooks/params"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    presets = [name for name in names if not name.startswith(("smoke", "sweep"))]
    if not presets:
        raise ConfigError(
            f"--preset {shorten(name)} is not found: presets are files in notebooks/params, and "
            f"{Path.cwd()} is not in a copy of the course; change to its folder first"
        )
    if name not in presets:
        raise ConfigError(f"unknown preset {shorten(name)}{did_you_mean(name, presets)}")
    file = f"notebooks/params/{name}.yaml"
    # Only presets need this package, so `pip install -e .` is enough for everything else.
    import yaml
    try:
        settings = read_yaml((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not utf-8 text: see byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{file} should hold a name and a value in each line, such as n_layer: 6, but it holds "
            f"{shorten(str(settings)) if settings is not None else 'nothing'}"
        )
    return {setting: checked_setting(file, setting, value) for setting, value in settings.items()}


def checked_setting(file: str, name: str, value: typing.Any) -> typing.Any:
    """Return the value of a setting of a preset. Raise a ConfigError if it does not fit."""
    if name in CHAPTER_SETTINGS:
        return value
    known = dict(OTHER_SETTINGS)
    for config in (VariantConfig, TrainConfig):
        hints = typing.get_type_hints(config)
        known |= {f.name: hints[f.name] for f in fields(config) if f.default is not MISSING}
    if name not in known:
        raise ConfigError(f"{file}: unknown setting {name!r}{did_you_mean(name, known)}")
    try:
        return checked_option(name, value, known[name])
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


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
