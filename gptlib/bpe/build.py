"""Make a tokenizer by its name, save it and load it. TOKENIZERS lists all tokenizers."""

import json
from pathlib import Path

from gptlib.bpe.fast import BPETokenizer, read_file, write_file
from gptlib.checks import at_least, check_arguments, existing_file, new_file, short
from gptlib.config import did_you_mean
from gptlib.data import split
from gptlib.tokenizer import (
    CharTokenizer,
    LowercaseTokenizer,
    Tokenizer,
    TokenizerError,
    any_tokenizer,
    unknown_share,
)

TOKENIZERS = {
    "char": CharTokenizer,
    "lowercase": LowercaseTokenizer,
    "bpe": BPETokenizer,
}

# The classes that `load_tokenizer` knows, by name. corpora/courier_text.py adds CourierTokenizer.
SAVED_CLASSES = {tokenizer.__name__: tokenizer for tokenizer in TOKENIZERS.values()}


def file_or_dict(name: str, value: str | Path | dict) -> Path | dict:
    """The kind of a saved tokenizer: a dict, or the path of a file."""
    return value if isinstance(value, dict) else existing_file(name, value)


@check_arguments(TokenizerError, name=str, text=str, vocab_size=at_least(1))
def make_tokenizer(name: str, text: str, vocab_size: int = 512) -> Tokenizer:
    """Return the tokenizer for a training run on `text`.

    If "lowercase" has no token for some characters, one printed line says how many they are.

    Args:
        name: "char", "lowercase" or "bpe".
        text: the whole corpus. The character tokenizer takes its alphabet from all of it. The BPE
            tokenizer learns its merges from the training split alone (see `gptlib.data.split`).
        vocab_size: the number of tokens of "bpe". The other two ignore it.

    Raises:
        TokenizerError: an unknown name.
    """
    if name not in TOKENIZERS:
        raise TokenizerError(f"unknown tokenizer {short(name)}{did_you_mean(name, TOKENIZERS)}")
    if name == "char":
        return CharTokenizer.from_text(text)
    if name == "lowercase":
        tokenizer = LowercaseTokenizer()
        share = unknown_share(tokenizer, text)
        if share:
            print(
                f"lowercase: {share:.2%} of the characters have no token and become "
                f"{tokenizer.UNKNOWN}, so losses are not given in bits per byte"
            )
        return tokenizer
    return BPETokenizer.train(split(text)[0], vocab_size)


@check_arguments(TokenizerError, tokenizer=any_tokenizer, path=new_file)
def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write `tokenizer` to `path` as JSON that a person can read."""
    content = json.dumps(tokenizer.to_dict(), ensure_ascii=False, indent=1)
    write_file(path, content.encode("utf-8"))


@check_arguments(TokenizerError, saved=file_or_dict)
def load_tokenizer(saved: str | Path | dict) -> Tokenizer:
    """Return the tokenizer that was saved.

    Args:
        saved: the path of a file that `save_tokenizer` wrote, or a dict that `to_dict` returned.

    Raises:
        TokenizerError: the file or the dict describes no tokenizer of this library.
    """
    try:
        if isinstance(saved, dict):
            content = saved
        else:
            content = json.loads(read_file(Path(saved)).decode("utf-8-sig"))
        tokenizer_class = SAVED_CLASSES[content["class"]]
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{saved} contains no tokenizer: it is not utf-8 text (see byte {error.start})"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        source = "the dict" if isinstance(saved, dict) else str(saved)
        raise TokenizerError(
            f"{source} describes no tokenizer of this library ({type(error).__name__}); "
            f"its 'class' should be one of {', '.join(SAVED_CLASSES)}"
        ) from None
    try:
        return tokenizer_class.from_dict(content)
    except TokenizerError as error:
        if isinstance(saved, dict):
            raise
        raise TokenizerError(f"{saved} describes no tokenizer of this library: {error}") from None
