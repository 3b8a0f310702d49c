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
from collections.abc import Iterable
from typing import Protocol, Self, runtime_checkable


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


class CharTokenizer:
    """Every character is one token. Ids follow the order of the characters' code points."""

    def __init__(self, alphabet: Iterable[str]):
        self.alphabet = "".join(sorted(set(alphabet)))
        if not self.alphabet:
            raise TokenizerError("the alphabet is empty: give at least one character")
        self.vocab_size = len(self.alphabet)
        self.ids = {character: i for i, character in enumerate(self.alphabet)}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the tokenizer whose alphabet is the set of all characters in `text`."""
        return cls(text)

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

    def __init__(self, vocab_size: int = 88):
        characters = [c for c in string.printable if c not in string.ascii_uppercase]
        tokens = [self.UNKNOWN, *characters, *self.SPECIAL]
        if vocab_size < len(tokens):
            raise TokenizerError(
                f"vocab_size={vocab_size} should be at least {len(tokens)}, one for each token"
            )
        self.vocab_size = vocab_size
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.tokens = tokens + [self.UNKNOWN] * (vocab_size - len(tokens))

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
    def from_dict(cls, saved: dict) -> Self:
        return cls(saved["vocab_size"])


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return 16 hexadecimal digits of the tokenizer's sha256.

    Tokenizers with the same fingerprint give every text the same ids.
    """
    content = json.dumps(tokenizer.to_dict(), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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
        TokenizerError: an id is not in the range 0 … vocab_size - 1.
    """
    ids = [int(i) for i in ids]
    for i in ids:
        if not 0 <= i < vocab_size:
            raise TokenizerError(
                f"id {i} is not in the range 0 … {vocab_size - 1} of this tokenizer"
            )
    return ids


def shorten(text: str, length: int = 80) -> str:
    """Return `text` in quotation marks, cut after `length` characters."""
    return repr(text if len(text) <= length else text[:length] + "…")
