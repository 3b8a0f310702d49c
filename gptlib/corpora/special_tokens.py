"""Special tokens for any tokenizer: <|begin|>, <|end|>, <Q>, </A> (chapters 10 and 11).

A special token marks a place in a text, such as the end of a document. It stands beside the
tokenizer's own tokens and has an id after all of theirs. No text is ever encoded to it:

>>> from gptlib.tokenizer import CharTokenizer
>>> tokenizer = SpecialTokenizer(CharTokenizer("</>Aabc"), ["<A>", "</A>"])
>>> tokenizer.encode("<A>")                 # what a person has typed is ordinary text
[1, 3, 2]
>>> tokenizer.special("<A>")                # only the program can write the special token
7
>>> tokenizer.decode([7, 4, 5, 8])
'<A>ab</A>'
"""

from collections.abc import Iterable

from gptlib.bpe.build import SAVED_CLASSES, load_tokenizer
from gptlib.bpe.words import unicode_text
from gptlib.checks import check_arguments, dict_with, list_of, several
from gptlib.config import did_you_mean
from gptlib.tokenizer import Tokenizer, TokenizerError, any_tokenizer, checked_ids

# The tokens at the beginning and at the end of a document (chapter 10).
DOCUMENT_TOKENS = ("<|begin|>", "<|end|>")


class SpecialTokenizer:
    """A tokenizer with special tokens.

    Args:
        tokenizer: encodes all text. It can be any other tokenizer of this library.
        names: the special tokens. The first one has the id `tokenizer.vocab_size`.
    """

    @check_arguments(TokenizerError, tokenizer=any_tokenizer, names=list_of(unicode_text))
    def __init__(self, tokenizer: Tokenizer, names: Iterable[str]):
        if not names or "" in names or len(set(names)) < len(names):
            raise TokenizerError(f"names={names} should be different names, at least one")
        self.tokenizer = tokenizer
        self.names = list(names)
        self.first = tokenizer.vocab_size
        self.vocab_size = self.first + len(names)

    @check_arguments(TokenizerError, name=str)
    def special(self, name: str) -> int:
        """Return the id of the special token of this name."""
        if name not in self.names:
            raise TokenizerError(f"{name!r} is not a special token{did_you_mean(name, self.names)}")
        return self.first + self.names.index(name)

    def is_special(self, token: int) -> bool:
        return token >= self.first

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`. None of them is a special token."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. A special token is written as its name."""
        text, run = "", []
        for i in checked_ids(several("ids", ids), self.vocab_size):
            if i < self.first:
                run.append(i)
                continue
            text += self.tokenizer.decode(run) + self.names[i - self.first]
            run = []
        return text + self.tokenizer.decode(run)

    def token_bytes(self, token: int) -> bytes:
        if token < self.first:
            return self.tokenizer.token_bytes(token)
        return self.decode([token]).encode("utf-8")

    def to_dict(self) -> dict:
        return {"class": "SpecialTokenizer", "names": self.names,
                "tokenizer": self.tokenizer.to_dict()}

    @classmethod
    @check_arguments(TokenizerError, saved=dict_with("tokenizer", "names"))
    def from_dict(cls, saved: dict) -> "SpecialTokenizer":
        if not isinstance(saved["tokenizer"], dict):
            raise TokenizerError("saved['tokenizer'] should be the dict of a tokenizer")
        return cls(load_tokenizer(saved["tokenizer"]), saved["names"])


SAVED_CLASSES["SpecialTokenizer"] = SpecialTokenizer
