"""Tokenizers turn text into integers, and integers back into text (chapter 1).

>>> tokenizer = CharTokenizer.from_text("to be or not to be")
>>> tokenizer.encode("bet")
[1, 2, 6]
>>> tokenizer.decode([1, 2, 6])
'bet'

A token is a piece of text, and its id is an integer. In this file the tokens are single characters,
and a few special tokens. `gptlib.bpe` has longer tokens.
"""

import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Iterable
from typing import Protocol, Self, runtime_checkable

from gptlib.checks import (
    at_least,
    check_arguments,
    checked_value,
    dict_with,
    list_of,
    several,
    short,
    wrong_type,
)


class TokenizerError(ValueError):
    """A text cannot be encoded, an id cannot be decoded, or a file holds no tokenizer."""


@runtime_checkable
class Tokenizer(Protocol):
    """The methods that the rest of the library needs from a tokenizer."""

    vocab_size: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def token_bytes(self, token: int) -> bytes:
        """Return the utf-8 bytes of one token. They may be only a part of a character."""

    def to_dict(self) -> dict:
        """Return everything that is needed to build the tokenizer again, ready for JSON."""


def characters(name: str, value: Iterable[str]) -> Iterable[str]:
    """The kind of an alphabet: a text, or a list of single characters."""
    if isinstance(value, bytes) or not hasattr(value, "__iter__"):
        raise wrong_type(name, value, "str or a list of str")
    value = value if isinstance(value, str) else list_of(str)(name, value)
    for character in value:
        if len(character) != 1:
            raise ValueError(f"{name} contains {character!r}, each entry should be one character")
    return value


class CharTokenizer:
    """Every character is one token. Ids follow the order of the characters' code points."""

    @check_arguments(TokenizerError, alphabet=characters)
    def __init__(self, alphabet: Iterable[str]):
        self.alphabet = "".join(sorted(set(alphabet)))
        if not self.alphabet:
            raise TokenizerError("the alphabet is empty: give at least one character")
        check_surrogates(self.alphabet)
        self.vocab_size = len(self.alphabet)
        self.ids = {character: i for i, character in enumerate(self.alphabet)}

    @classmethod
    @check_arguments(TokenizerError, text=str)
    def from_text(cls, text: str) -> Self:
        """Return the tokenizer whose alphabet is the set of all characters in `text`.

        Raises:
            TokenizerError: `text` is empty or contains half a surrogate pair.
        """
        check_surrogates(text)
        return cls(text)

    @check_arguments(TokenizerError, text=str)
    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters of `text`.

        Raises:
            TokenizerError: a character is not in the alphabet. The message gives its position.
        """
        try:
            return [self.ids[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self.ids)
        character = text[position]
        raise TokenizerError(
            f"character {character!r} (U+{ord(character):04X}) at position {position} is not among "
            f"the {self.vocab_size} characters that this tokenizer knows: {shorten(self.alphabet)}"
        )

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`: a list or a 1-D tensor of integers below `vocab_size`."""
        return "".join(self.alphabet[i] for i in checked_ids(ids, self.vocab_size))

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode("utf-8")

    def to_dict(self) -> dict:
        return {"class": "CharTokenizer", "alphabet": self.alphabet}

    @classmethod
    @check_arguments(TokenizerError, saved=dict_with("alphabet"))
    def from_dict(cls, saved: dict) -> Self:
        return cls(saved["alphabet"])


class LowercaseTokenizer:
    """The alphabet of PicoGPT: `string.printable` without capitals, and special tokens.

    Id 0 is `<?>`, the unknown character. Ids 1 to 74 are the characters in the order of
    `string.printable`. The special tokens follow. The remaining ids are not used.
    `encode` changes the text to lower case. A character without an id then becomes `<?>`.

    >>> tokenizer = LowercaseTokenizer()
    >>> tokenizer.decode(tokenizer.encode("To be, or ∞?"))
    'to be, or <?>?'
    >>> len(tokenizer.encode("<Q>who?</Q>"))
    11
    >>> len(tokenizer.encode("<Q>who?</Q>", allowed_special=["<Q>", "</Q>"]))
    6
    """

    UNKNOWN = "<?>"
    # Padding, then the begin and the end of a system text, of a question and of an answer.
    SPECIAL = ("<P>", "<S>", "</S>", "<Q>", "</Q>", "<A>", "</A>")
    LARGEST = 1_000_000         # more ids would only be unused ones

    @check_arguments(TokenizerError, vocab_size=at_least(1))
    def __init__(self, vocab_size: int = 88):
        characters = [c for c in string.printable if c not in string.ascii_uppercase]
        tokens = [self.UNKNOWN, *characters, *self.SPECIAL]
        if vocab_size < len(tokens):
            raise TokenizerError(
                f"vocab_size={vocab_size} should be at least {len(tokens)}, one for each token"
            )
        if vocab_size > self.LARGEST:
            raise TokenizerError(f"vocab_size={vocab_size} should be at most {self.LARGEST}")
        self.vocab_size = vocab_size
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.tokens = tokens + [self.UNKNOWN] * (vocab_size - len(tokens))

    @check_arguments(TokenizerError, text=str, allowed_special=list_of(str))
    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Return the ids of `text`.

        Args:
            allowed_special: the special tokens that `text` may contain. A special token that is
                not listed is encoded character by character.
        """
        allowed = tuple(allowed_special)
        for name in allowed:
            if name not in self.SPECIAL:
                raise TokenizerError(
                    f"{name!r} is not a special token; they are {', '.join(self.SPECIAL)}"
                )
        pattern = "(" + "|".join(map(re.escape, allowed)) + ")"
        # With parentheses in the pattern, re.split also returns what it split at.
        pieces = re.split(pattern, text) if allowed else [text]
        ids = []
        for piece in pieces:
            if piece in allowed:
                ids.append(self.ids[piece])
            else:
                ids += [self.ids.get(character, 0) for character in piece.lower()]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. Unused ids become `<?>`."""
        return "".join(self.tokens[i] for i in checked_ids(ids, self.vocab_size))

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode("utf-8")

    def to_dict(self) -> dict:
        return {"class": "LowercaseTokenizer", "vocab_size": self.vocab_size}

    @classmethod
    @check_arguments(TokenizerError, saved=dict_with("vocab_size"))
    def from_dict(cls, saved: dict) -> Self:
        return cls(saved["vocab_size"])


def any_tokenizer(name: str, value: Tokenizer) -> Tokenizer:
    """The kind for tokenizers, also those of other libraries with the same methods."""
    if isinstance(value, type) or not hasattr(value, "token_bytes"):
        raise ValueError(
            f"{name}={short(value)} should be a tokenizer, such as CharTokenizer.from_text(text)"
        )
    return value


@check_arguments(tokenizer=any_tokenizer, text=str)
def unknown_share(tokenizer: Tokenizer, text: str) -> float:
    """Return what share of the characters of `text` the tokenizer replaces by `<?>`.

    Only LowercaseTokenizer does so. The characters are lost, so that a loss on this text cannot be
    given in bits per byte.
    """
    if not isinstance(tokenizer, LowercaseTokenizer):
        return 0.0
    counts = Counter(text.lower())
    n_unknown = sum(n for character, n in counts.items() if character not in tokenizer.ids)
    return n_unknown / max(1, counts.total())


@check_arguments(tokenizer=any_tokenizer)
def fingerprint(tokenizer: Tokenizer) -> str:
    """Return 16 hexadecimal digits of the tokenizer's sha256.

    Tokenizers with the same fingerprint give every text the same ids.
    """
    content = json.dumps(tokenizer.to_dict(), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@check_arguments(tokenizer=any_tokenizer)
def default_prompt(tokenizer: Tokenizer) -> str:
    """Return how a text can begin: with a line break, a space, or else the tokenizer's first token.

    >>> default_prompt(CharTokenizer("abc"))
    'a'
    """
    for prompt in ("\n", " "):
        try:
            tokenizer.encode(prompt)
            return prompt
        except TokenizerError:
            # The text from which the tokenizer was made has no such character.
            pass
    return tokenizer.decode([0])


def checked_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Return `ids` (a list or a 1-D tensor) as a list of integers.

    Raises:
        TokenizerError: an id is not an integer in the range 0 … vocab_size - 1.
    """
    try:
        if isinstance(ids, dict):
            raise wrong_type("ids", ids, "a list")
        ids = [i if type(i) is int else checked_value("id", i, int) for i in several("ids", ids)]
    except ValueError as error:
        raise TokenizerError(f"{error}: give a list or a 1-D tensor of integers") from None
    for i in ids:
        if not 0 <= i < vocab_size:
            raise TokenizerError(
                f"id {short(i)} is not in the range 0 … {vocab_size - 1} of this tokenizer"
            )
    return ids


def check_surrogates(text: str, offset: int = 0) -> None:
    """Raise a TokenizerError if `text` contains half a surrogate pair. No file can store it.

    Args:
        offset: the position of `text` in a longer text. The error gives the position in that text.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {text[error.start]!r} at position {offset + error.start} is half a "
            "surrogate pair, which utf-8 cannot encode: replace the character, or read the text "
            "again with the right encoding"
        ) from None


def shorten(text: str, length: int = 80) -> str:
    """Return `text` in quotation marks, cut after `length` characters."""
    return repr(text if len(text) <= length else text[:length] + "…")
