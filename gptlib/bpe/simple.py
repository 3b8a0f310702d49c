"""Byte pair encoding in its simplest form (chapter 5).

A token is named by an integer, its id. Ids 0 to 255 are the 256 bytes. Training splits a text into
words, such as "low" and " lower". It finds the most frequent pair of neighbours inside the words
and merges the pair into token 256. Then it merges the pair that is most frequent now into token
257, and so on:

>>> merges = train("low lower lowest", n_merges=3)
>>> merges
{(108, 111): 256, (256, 119): 257, (32, 257): 258}

Byte 108 is "l" and byte 111 is "o", so token 256 is "lo". Byte 119 is "w", so token 257 is "low".
Byte 32 is the space, so token 258 is " low".

Encoding makes the same merges in the same order. Here "s" stays a byte, and "low" becomes 257:

>>> encode("slow", merges)
[115, 257]
>>> decode([115, 257], merges)
'slow'

This version is slow. Each merge goes through the whole text, so the time grows with
(number of merges) * (length of the text), which is quadratic if both grow. `gptlib.bpe.fast` gives
the same merges and the same tokens in much less time.
"""

from collections import Counter
from itertools import pairwise

from gptlib.bpe.words import (
    GPT4_PATTERN,
    compile_pattern,
    split_words,
    unicode_text,
    word_pattern,
)
from gptlib.checks import at_least, check_arguments, dict_of, short
from gptlib.tokenizer import checked_ids


def learned_merges(name: str, value: dict) -> dict[tuple[int, int], int]:
    """The kind of merges, {(left, right): new token}, as `train` returns them."""
    merges = dict_of(tuple, int)(name, value)
    for new_id, (pair, token) in enumerate(merges.items(), start=256):
        is_pair = len(pair) == 2 and all(type(i) is int and 0 <= i < new_id for i in pair)
        if not is_pair or token != new_id:
            raise ValueError(
                f"{name} has {short(pair)}: {token}, it should have a pair of tokens below "
                f"{new_id}, and then {new_id}"
            )
    return merges


def split_into_bytes(text: str, pattern: str) -> list[list[int]]:
    """Return the words of `text`, each as a list of its utf-8 bytes.

    Pairs are counted and merged inside a word only. `pattern` is a regular expression that
    matches words. GPT-4's pattern keeps a space with the word after it.

    >>> split_into_bytes("to be", GPT4_PATTERN)
    [[116, 111], [32, 98, 101]]
    """
    words = split_words(compile_pattern(pattern), text)
    return [list(word.encode("utf-8")) for word in words]


def count_pairs(words: list[list[int]]) -> Counter:
    """Return how often each pair of neighbours occurs in all words together.

    >>> count_pairs([[1, 2, 1, 2], [2, 1]])
    Counter({(1, 2): 2, (2, 1): 2})
    """
    counts = Counter()
    for word in words:
        counts.update(pairwise(word))           # adds 1 for each pair
    return counts


def merge(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    """Return a list in which `new_id` replaces each occurrence of `pair`, from left to right.

    >>> merge([1, 2, 3, 1, 2], pair=(1, 2), new_id=256)
    [256, 3, 256]
    """
    merged = []
    i = 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == tuple(pair):
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@check_arguments(text=unicode_text, n_merges=at_least(0), pattern=word_pattern)
def train(text: str, n_merges: int, pattern: str = GPT4_PATTERN) -> dict[tuple[int, int], int]:
    """Return the merges, {(left, right): new token}, in the order in which they are learned.

    If several pairs are equally frequent, the pair with the smallest left token wins, and among
    those the pair with the smallest right token. Training ends early if no pair is left.
    """
    words = split_into_bytes(text, pattern)
    merges = {}
    for new_id in range(256, 256 + n_merges):
        counts = count_pairs(words)
        if not counts:
            break
        # the most frequent pair, and of equally frequent pairs the smallest
        highest = max(counts.values())
        pair = min(pair for pair in counts if counts[pair] == highest)
        words = [merge(word, pair, new_id) for word in words]
        merges[pair] = new_id
    return merges


@check_arguments(text=unicode_text, merges=learned_merges, pattern=word_pattern)
def encode(text: str, merges: dict, pattern: str = GPT4_PATTERN) -> list[int]:
    """Return the tokens of `text`. The pattern should be the one that was used in training."""
    words = split_into_bytes(text, pattern)
    for pair, new_id in merges.items():
        words = [merge(word, pair, new_id) for word in words]
    ids = []
    for word in words:
        ids += word
    return ids


@check_arguments(merges=learned_merges)
def decode(ids: list[int], merges: dict) -> str:
    """Return the text of the tokens `ids`. Bytes that are not valid utf-8 become �."""
    ids = checked_ids(ids, vocab_size=256 + len(merges))
    token_bytes = {i: bytes([i]) for i in range(256)}
    for (left, right), new_id in merges.items():
        token_bytes[new_id] = token_bytes[left] + token_bytes[right]
    return b"".join(token_bytes[i] for i in ids).decode("utf-8", errors="replace")
