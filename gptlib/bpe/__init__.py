"""Byte pair encoding (chapter 5). Read `simple` first.

- `words` splits a text into words.
- `simple` trains and encodes in a few lines.
- `fast` gives the same merges and ids in less time, and adds special tokens.
- `exchange` reads and writes the tokenizers of tiktoken.
- `build` makes, saves and loads every tokenizer of the library.
"""

from gptlib.bpe.build import load_tokenizer, make_tokenizer, save_tokenizer
from gptlib.bpe.exchange import (
    find_tiktoken,
    from_tiktoken,
    load_tiktoken,
    save_tiktoken,
    to_tiktoken,
)
from gptlib.bpe.fast import BEGIN, END, BPETokenizer
from gptlib.bpe.words import GPT2_PATTERN, GPT4_PATTERN

__all__ = [
    "BEGIN", "END", "GPT2_PATTERN", "GPT4_PATTERN", "BPETokenizer",
    "find_tiktoken", "from_tiktoken", "load_tiktoken", "load_tokenizer", "make_tokenizer",
    "save_tiktoken", "save_tokenizer", "to_tiktoken",
]
