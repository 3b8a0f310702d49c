"""The parser of the command line, whose errors are one sentence, and the types of its options.

>>> parser = Parser()
>>> parser.add_argument("--n-layer", type=int, default=4).dest
'n_layer'
>>> parser.parse_args(["--n-layers=2"])
Traceback (most recent call last):
    ...
gptlib.config.ConfigError: unknown option '--n-layers': did you mean '--n-layer'? --help lists all.
"""

import difflib
import os
import re
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from gptlib.config import ConfigError, did_you_mean
from gptlib.tokenizer import shorten

# The sentences of argparse, and ours. The first three begin with the name of the option.
ARGPARSE_WORDS = {
    r"^argument (\S+): expected one argument$":
        r"\1 needs a value; write \1=VALUE if the value begins with a dash",
    r"^argument (\S+): ignored explicit argument (.*)$": r"\1 takes no value, but is given \2",
    r"^argument (\S+): ": r"\1 ",
    r"^the following arguments are required: (.*)$":
        r"\1 is missing (see python -m gptlib COMMAND --help)",
}


class Parser(ArgumentParser):
    """A parser whose errors are one sentence, without the usage.

    It accepts no shortened names of options: a new option could change what they mean.
    """

    def __init__(self, **how):
        # The options in the order of the help, for "did you mean".
        self.known = []
        super().__init__(allow_abbrev=False, **how)

    def add_argument(self, *names: str, choices: Iterable[str] = (), **how) -> Action:
        if choices:
            how |= {"type": one_of(choices), "metavar": "{" + ",".join(choices) + "}"}
        elif how.get("action") in (None, "append"):
            how["type"] = TYPES[how.get("type", str)]
        action = super().add_argument(*names, **how)
        self.known += action.option_strings
        return action

    def parse_args(self, arguments: list[str], namespace: Namespace | None = None) -> Namespace:
        options, unknown = self.parse_known_args(arguments, namespace)
        unknown = [argument for argument in unknown if argument != "--"]
        if not unknown:
            return options
        # A command has its own parser, with other options than this one.
        known = getattr(options, "known", self.known)
        name = unknown[0].split("=")[0]
        if name in known and "--" in arguments:
            raise ConfigError(f"{name} stands after --, where no option is read: remove the --")
        if name.startswith("-"):
            # The dashes are the same in all options, so they are not compared.
            flags = {option.lstrip("-"): option for option in known}
            similar = difflib.get_close_matches(name.lstrip("-"), flags, 1)
            question = f": did you mean {flags[similar[0]]!r}?" if similar else "."
            raise ConfigError(f"unknown option {shorten(name)}{question} --help lists all.")
        advice = "a value stands after the name of its option"
        before = ["", *arguments][arguments.index(unknown[0])]
        # Options with a value took theirs. So an option that stands before this word has none.
        if before in known and arguments.count(unknown[0]) == 1:
            advice = f"{before} takes no value"
        raise ConfigError(f"unexpected argument {shorten(unknown[0])}: {advice}")

    def error(self, message: str) -> NoReturn:
        for pattern, words in ARGPARSE_WORDS.items():
            message = re.sub(pattern, words, message)
        raise ConfigError(message)


def whole_number(text: str) -> int:
    if len(text) > 19 and text.lstrip("+-").isdecimal():
        raise ArgumentTypeError(f"{shorten(text)} should be below 2 ** 63")
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{shorten(text)} should be a whole number, such as 4 or 1000"
        ) from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{shorten(text)} should be a number, such as 0.5 or 1e-3"
        ) from None


def unicode_text(text: str) -> str:
    """Return `text`, unless it has bytes that are not utf-8. Python reads them as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentTypeError(
            f"{shorten(text)} is not utf-8 text: see the character at position {error.start}"
        ) from None
    return text


def path(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("'' should be the name of a file or a folder")
    # safetensors cannot open a file whose name has bytes that are not utf-8.
    expanded = os.path.expanduser(unicode_text(text))
    # For an unknown user, the ~ is still there. A shell leaves it in --out=~/runs, too.
    if expanded.startswith("~") and "/" in expanded:
        raise ArgumentTypeError(f"{shorten(text)} is in the home folder of an unknown user")
    return Path(expanded)


TYPES = {int: whole_number, float: number, str: unicode_text, Path: path}


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """Return the type of an option that has only these values."""
    def choice(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(f"{shorten(text)} is unknown{did_you_mean(text, choices)}")
        return text

    return choice


def join_negative_numbers(arguments: list[str]) -> list[str]:
    """Return the arguments with `--option -1e-3` as one. argparse takes -1e-3 for an option."""
    joined = []
    for argument in arguments:
        if joined and joined[-1].startswith("--") and re.match(r"-(\d|\.\d|inf|nan)", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def flag(name: str) -> str:
    """Return the option for a field.

    >>> flag("n_layer")
    '--n-layer'
    """
    return "--" + name.replace("_", "-")


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        ConfigError: a name stands twice, so that one of its values would be lost.
        yaml.YAMLError: the text is not YAML.
    """
    # Only presets and sweeps need this package.
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            names = [key.value for key, _ in node.value]
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(f"{name} stands there twice, it should stand once")
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)


def name_options(sentence: str, names: Iterable[str]) -> str:
    """Return an error about fields of a config with the names of their options.

    >>> name_options("n_embd=10 should be a multiple of n_head=3", ["n_embd", "n_head"])
    '--n-embd 10 should be a multiple of --n-head 3'

    The name of a function at the beginning is left out:

    >>> name_options("stream_text: top_k=0 should be at least 1", ["top_k"])
    '--top-k 0 should be at least 1'
    """
    sentence = re.sub(r"^\w+: (?=\w+=)", "", sentence)
    # Nobody can write None on a command line.
    sentence = sentence.removesuffix(", or None")
    for name in ("out_dir", *names):
        option = "--out" if name == "out_dir" else flag(name)
        # A name in quotation marks, or in a path, is the user's own.
        alone = rf"(?<![\w'\"/.-]){name}"
        sentence = re.sub(alone + "=True", option, sentence)
        sentence = re.sub(alone + "=", option + " ", sentence)
        if "_" in name:
            sentence = re.sub(alone + r"(?![\w'\"/]|\.\w)", option, sentence)
    return sentence
