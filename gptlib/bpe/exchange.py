"""Exchange tokenizers with OpenAI's tiktoken (chapter 5).

tiktoken stores no merges. It stores the rank of each token, {bytes: rank}, and the rank is the id.
`from_ranks` finds the merges again:

>>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=259)
>>> ranks = to_ranks(tokenizer)
>>> ranks[b"lo"], ranks[b"low"], ranks[b" low"]
(256, 257, 258)
>>> from_ranks(ranks, tokenizer.pattern).merges == tokenizer.merges
True

A tokenizer and its tiktoken encoding use the same pattern. They give the same ids to a text whose
letters both of them know. The package `regex` may know a newer version of Unicode than tiktoken.
Then the two may split a word with one of the newest letters differently, and its ids differ. Both
decode their own ids to the same text.
"""

import base64
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from gptlib.bpe.fast import BPETokenizer, read_file, write_file
from gptlib.bpe.words import GPT4_PATTERN
from gptlib.checks import (
    above,
    check_arguments,
    dict_of,
    existing_file,
    new_file,
    optional,
    short,
)
from gptlib.tokenizer import TokenizerError

if TYPE_CHECKING:
    import tiktoken


def tiktoken_encoding(name: str, value: "tiktoken.Encoding") -> "tiktoken.Encoding":
    """The kind for encodings of tiktoken."""
    if not hasattr(value, "_mergeable_ranks"):
        raise ValueError(
            f"{name}={short(value)} should be a tiktoken.Encoding, such as "
            "tiktoken.get_encoding('gpt2')"
        )
    return value


@check_arguments(TokenizerError, tokenizer=BPETokenizer)
def to_ranks(tokenizer: BPETokenizer) -> dict[bytes, int]:
    """Return {bytes: id} for all tokens except the special tokens."""
    ids = [*range(256), *tokenizer.merges.values()]
    return {tokenizer.token_bytes(i): i for i in ids}


@check_arguments(
    TokenizerError, ranks=dict_of(bytes, int), pattern=str,
    special_tokens=optional(dict_of(str, int)),
)
def from_ranks(ranks: dict[bytes, int], pattern: str,
               special_tokens: dict[str, int] | None = None) -> BPETokenizer:
    """Return the tokenizer with these ids.

    The merge of a token is found by encoding the token's bytes with all earlier merges. Two tokens
    remain, and these are the pair that was merged.

    Raises:
        TokenizerError: there are no merges that give these ranks.
    """
    in_order = sorted(ranks, key=ranks.get)
    single_bytes, longer_tokens = in_order[:256], in_order[256:]
    first_ranks = [ranks[token] for token in single_bytes]
    if first_ranks != list(range(256)) or any(len(token) != 1 for token in single_bytes):
        raise TokenizerError("the ranks 0 to 255 should be those of the 256 bytes")
    for name, i in (special_tokens or {}).items():
        if i in ranks.values():
            raise TokenizerError(
                f"special token {name!r} has the id {i}, which is the rank of another token: give "
                f"it an id of its own, such as {max(ranks.values()) + 1}"
            )
    tokenizer = BPETokenizer((), pattern, special_tokens, b"".join(single_bytes))
    for token in longer_tokens:
        pair = tokenizer.encode_word(token)
        if len(pair) != 2:
            raise TokenizerError(
                f"token {token!r} of rank {ranks[token]} is not a merge of two earlier tokens"
            )
        new_id = tokenizer.add_merge(*pair)
        if new_id != ranks[token]:
            raise TokenizerError(
                f"token {token!r} has rank {ranks[token]}, and {new_id} is the next free rank"
            )
    return tokenizer


@check_arguments(TokenizerError, tokenizer=BPETokenizer, path=new_file)
def save_tiktoken(tokenizer: BPETokenizer, path: str | Path) -> None:
    """Write tiktoken's file of ranks: one line for each token, its bytes in base64 and its rank.

    The file contains neither the pattern nor the special tokens.
    """
    lines = [
        base64.b64encode(token) + b" %d\n" % rank for token, rank in to_ranks(tokenizer).items()
    ]
    write_file(path, b"".join(lines))


@check_arguments(
    TokenizerError, path=existing_file, pattern=str, special_tokens=optional(dict_of(str, int))
)
def load_tiktoken(path: str | Path, pattern: str = GPT4_PATTERN,
                  special_tokens: dict[str, int] | None = None) -> BPETokenizer:
    """Return the tokenizer of a file of ranks, such as `cl100k_base.tiktoken`.

    Raises:
        TokenizerError: the file is not a file of ranks, or no merges give its ranks.
    """
    ranks = {}
    for number, line in enumerate(read_file(path).splitlines(), start=1):
        if line:
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except ValueError:
                raise TokenizerError(
                    f"{path} is not a file of ranks: line {number} is {short(line)}, it should be "
                    "the bytes of a token in base64, a space and the token's rank"
                ) from None
    if not ranks:
        raise TokenizerError(f"{path} is empty, it should have a line for each token")
    return from_ranks(ranks, pattern, special_tokens)


@check_arguments(TokenizerError, tokenizer=BPETokenizer, name=str)
def to_tiktoken(tokenizer: BPETokenizer, name: str = "gptlib") -> "tiktoken.Encoding":
    """Return a `tiktoken.Encoding` with the same ids. It is faster, because it is written in Rust.

    Words with letters that are newer than tiktoken's version of Unicode may get other ids (see the
    beginning of this file).

    Raises:
        TokenizerError: the merges never produce one of the tokens. tiktoken does not know the
            merges, so it could still produce that token.
    """
    # This function alone needs tiktoken.
    import tiktoken

    ranks = to_ranks(tokenizer)
    for token, rank in ranks.items():
        if tokenizer.encode_word(token) != [rank]:
            raise TokenizerError(
                f"the merges never produce token {token!r} ({rank}), because earlier merges "
                "split its bytes differently"
            )
    return tiktoken.Encoding(name, pat_str=tokenizer.pattern, mergeable_ranks=ranks,
                             special_tokens=tokenizer.special_tokens)


@check_arguments(TokenizerError, encoding=tiktoken_encoding)
def from_tiktoken(encoding: "tiktoken.Encoding") -> BPETokenizer:
    """Return the tokenizer with the ids of a `tiktoken.Encoding`.

    Words with letters that are newer than tiktoken's version of Unicode may get other ids (see the
    beginning of this file).
    """
    return from_ranks(encoding._mergeable_ranks, encoding._pat_str, encoding._special_tokens)


@check_arguments(TokenizerError, name=str, seconds=above(0.0))
def find_tiktoken(name: str = "cl100k_base", seconds: float = 20.0) -> "tiktoken.Encoding | None":
    """Return tiktoken's encoding of this name, or print why it is not available and return None.

    tiktoken downloads a vocabulary the first time it is used. Without a network this may take very
    long. So a thread asks for it, and the function waits for at most so many seconds.
    """
    encodings, errors = [], []

    def load():
        try:
            import tiktoken

            known = tiktoken.list_encoding_names()
            if name not in known:
                errors.append(f"its vocabularies are {', '.join(known)}")
                return
            encodings.append(tiktoken.get_encoding(name))
        # No tiktoken, no network, an incomplete download: each raises its own error.
        except Exception as error:
            errors.append(type(error).__name__)

    thread = Thread(target=load, daemon=True)
    thread.start()
    thread.join(seconds)
    if encodings:
        return encodings[0]
    reason = errors[0] if errors else f"no answer within {seconds:g} seconds"
    print(f"tiktoken's vocabulary {name} is not available ({reason})")
    return None
