"""Tokenizers: text to integers and back. This file knows characters; `bpe.py` learns longer pieces.

>>> tokenizer = CharTokenizer.from_text("to be or not to be")
>>> tokenizer.encode("bet")
[1, 2, 6]
>>> tokenizer.decode([1, 2, 6])
'bet'
"""

import hashlib
import json
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from gptlib.bpe import BPETokenizer, TokenizerError, checked_ids
from gptlib.config import did_you_mean


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of the library asks of a tokenizer; `decode(encode(text)) == text` wherever nothing is lost."""

    vocab_size: int

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def token_bytes(self, token: int) -> bytes: ...     # one token's utf-8 bytes, perhaps half a character
    def to_dict(self) -> dict: ...                      # everything needed to build it again, ready for JSON


class CharTokenizer:
    """One token a character. Ids follow the characters' code points, so the same alphabet gives the same ids."""

    def __init__(self, alphabet: Iterable[str]):
        self.alphabet = "".join(sorted(set(alphabet)))
        if not self.alphabet:
            raise TokenizerError("the alphabet is empty: give at least one character")
        self.vocab_size = len(self.alphabet)
        self._ids = {character: i for i, character in enumerate(self.alphabet)}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The tokenizer whose alphabet is every character of `text`."""
        return cls(text)

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of `text`.

        Raises:
            TokenizerError: a character outside the alphabet, named with its position.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self._ids)
            character = text[position]
            raise TokenizerError(
                f"character {character!r} (U+{ord(character):04X}) at position {position} is not among the "
                f"{self.vocab_size} characters this tokenizer knows; known are {_shown(self.alphabet)}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, which may be a list or a 1-D tensor of integers from 0 to vocab_size - 1."""
        return "".join(self.alphabet[i] for i in checked_ids(ids, self.vocab_size))

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode("utf-8")

    def to_dict(self) -> dict:
        return {"class": "CharTokenizer", "alphabet": self.alphabet}

    @classmethod
    def from_dict(cls, saved: dict) -> Self:
        return cls(saved["alphabet"])


class LowercaseTokenizer:
    """PicoGPT's alphabet: printable ASCII without capitals, a token for the unknown, and seven special tokens.

    Id 0 is `<?>`, ids 1 to 74 are the characters in the order of `string.printable`, then come `SPECIAL`;
    the ids from there to `vocab_size` are spare. Text is lower-cased, and any other character becomes `<?>`,
    which is also how `<?>` and the spare ids are decoded.

    >>> tokenizer = LowercaseTokenizer()
    >>> tokenizer.decode(tokenizer.encode("To be, or ∞?"))
    'to be, or <?>?'
    >>> len(tokenizer.encode("<Q>who?</Q>")), len(tokenizer.encode("<Q>who?</Q>", allowed_special=["<Q>", "</Q>"]))
    (11, 6)
    """

    UNKNOWN = "<?>"
    SPECIAL = ("<P>", "<S>", "</S>", "<Q>", "</Q>", "<A>", "</A>")     # padding; system, question, answer: begin, end

    def __init__(self, vocab_size: int = 88):
        characters = [c for c in string.printable if c not in string.ascii_uppercase]
        named = [self.UNKNOWN, *characters, *self.SPECIAL]
        if vocab_size < len(named):
            raise TokenizerError(f"vocab_size={vocab_size} should be at least {len(named)}, one for each token")
        self.vocab_size = vocab_size
        self._tokens = named + [self.UNKNOWN] * (vocab_size - len(named))
        self._ids = {token: i for i, token in enumerate(named)}

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Ids of `text`. A special token's name is ordinary text unless it stands in `allowed_special`."""
        allowed = tuple(allowed_special)
        for name in allowed:
            if name not in self.SPECIAL:
                raise TokenizerError(f"{name!r} is no special token; known are {', '.join(self.SPECIAL)}")
        pieces = re.split("(" + "|".join(map(re.escape, allowed)) + ")", text) if allowed else [text]
        ids = []
        for piece in pieces:
            ids += [self._ids[piece]] if piece in allowed else [self._ids.get(c, 0) for c in piece.lower()]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self._tokens[i] for i in checked_ids(ids, self.vocab_size))

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode("utf-8")

    def to_dict(self) -> dict:
        return {"class": "LowercaseTokenizer", "vocab_size": self.vocab_size}

    @classmethod
    def from_dict(cls, saved: dict) -> Self:
        return cls(saved["vocab_size"])


TOKENIZERS = {"CharTokenizer": CharTokenizer, "LowercaseTokenizer": LowercaseTokenizer, "BPETokenizer": BPETokenizer}


def make_tokenizer(name: str, text: str, vocab_size: int = 512, val_fraction: float = 0.1) -> Tokenizer:
    """The tokenizer for a run on `text`: "char", "lowercase" or "bpe".

    Args:
        vocab_size: of "bpe"; the other two have the size that their characters give.
        val_fraction: the end of `text` that "bpe" does not learn from, as `gptlib.data.split` cuts it, so that
            nothing of the validation split is in its merges. An alphabet is that of the whole text.
    """
    if name == "char":
        return CharTokenizer.from_text(text)
    if name == "lowercase":
        return LowercaseTokenizer()
    if name == "bpe":
        return BPETokenizer.train(text[:int(len(text) * (1 - val_fraction))], vocab_size)
    raise TokenizerError(f"unknown tokenizer {name!r}{did_you_mean(name, ('char', 'lowercase', 'bpe'))}")


def fingerprint(tokenizer: Tokenizer) -> str:
    """16 hexadecimal digits that two tokenizers share only if they give every text the same ids (sha256)."""
    return hashlib.sha256(json.dumps(tokenizer.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write `tokenizer` as readable JSON."""
    Path(path).write_text(json.dumps(tokenizer.to_dict(), ensure_ascii=False, indent=1), encoding="utf-8")


def load_tokenizer(saved: str | Path | dict) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote to a path, or that `to_dict` gave."""
    try:
        if not isinstance(saved, dict):
            saved = json.loads(Path(saved).read_text(encoding="utf-8"))
        return TOKENIZERS[saved["class"]].from_dict(saved)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise TokenizerError(f"{_shown(str(saved))} holds no tokenizer of this library ({error!r}); "
                             f"known are {', '.join(TOKENIZERS)}") from None


def _shown(text: str, most: int = 80) -> str:
    return repr(text if len(text) <= most else text[:most] + "…")
