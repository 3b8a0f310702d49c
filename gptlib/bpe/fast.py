"""Byte pair encoding for daily use: the same merges and ids as `gptlib.bpe.simple`, in less time.

>>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=259)
>>> [tokenizer.token_bytes(token) for token in tokenizer.encode("slow")]
[b's', b'low']

Ids 0 to 255 are the bytes by value. The merges follow, in the order in which they were learned, and
then the special tokens. The algorithm is from Sennrich et al. 2016. GPT-2 (Radford et al. 2019)
applies it to bytes.
"""

import codecs
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import regex

from gptlib.bpe.words import GPT4_PATTERN, compile_pattern, split_words
from gptlib.checkpoint import write_atomically
from gptlib.checks import (
    at_least,
    check_arguments,
    checked_value,
    dict_of,
    dict_with,
    existing_file,
    list_of,
    new_file,
    optional,
    several,
    short,
    wrong_type,
)
from gptlib.tokenizer import TokenizerError, check_surrogates, checked_ids

# The special tokens that `encode_document` puts before and after a text.
BEGIN, END = "<|begin|>", "<|end|>"

# The cache stores the ids of at most so many words ...
CACHED_WORDS = 1 << 17
# ... that have at most so many characters.
CACHED_LENGTH = 64

# Stands at a position whose token has been merged into the token on its left.
REMOVED = -1


def pairs_of_ids(name: str, value: Iterable) -> list[tuple[int, int]] | dict:
    """The kind of merges: a list of pairs of ids, or a dict {pair: new id}."""
    pairs = list_of(list_of(int))(name, value)
    for i, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ValueError(f"{name}[{i}]={pair} should be a pair of ids")
    return dict_of(tuple, int)(name, value) if isinstance(value, Mapping) else pairs


def order_of_bytes(name: str, value: Sequence[int]) -> list[int]:
    """The kind of the bytes of the first 256 ids: 256 integers, or a bytes object."""
    return list_of(int)(name, list(value) if isinstance(value, bytes) else value)


def text_or_texts(name: str, value: str | Iterable[str]) -> str | Iterable[str]:
    """The kind of a training text: one text, or several of them."""
    is_text = isinstance(value, str)
    if isinstance(value, bytes | Mapping) or not is_text and not hasattr(value, "__iter__"):
        raise wrong_type(name, value, "str or a list of str")
    return value if is_text else several(name, value)


def names_or_all(name: str, value: Iterable[str] | Literal["all"]) -> list[str] | Literal["all"]:
    """The kind of a choice of special tokens: a list of their names, or "all"."""
    return value if isinstance(value, str) and value == "all" else list_of(str)(name, value)


def new_names(name: str, value: Iterable[str]) -> list[str]:
    """The kind of the special tokens of a training: a list of names. The training gives ids."""
    if isinstance(value, dict):
        raise wrong_type(name, value, "a list")
    return list_of(str)(name, value)


def saved_tokenizer(name: str, value: dict) -> dict:
    """The kind of the dict that `to_dict` returns."""
    value = dict_with("pattern", "special_tokens", "bytes", "merges")(name, value)
    return {**value, "merges": list_of(str)(f"{name}['merges']", value["merges"])}


class BPETokenizer:
    """A byte pair encoding: the bytes, the merges and the special tokens.

    Args:
        merges: pairs of ids, in the order in which they were learned. Each pair gets the next free
            id from 256 on.
        pattern: a regular expression whose matches are the words.
        special_tokens: {name: id}. Ids must be at least 256. Ids below `vocab_size` that belong to
            no token are unused.
        byte_order: the byte of each id below 256. In some published vocabularies the bytes are not
            sorted by value.

    Raises:
        TokenizerError: merges, special tokens, byte order or pattern are wrong.
    """

    @check_arguments(
        TokenizerError, merges=pairs_of_ids, pattern=str,
        special_tokens=optional(dict_of(str, int)), byte_order=order_of_bytes,
    )
    def __init__(self, merges: Iterable[tuple[int, int]] = (), pattern: str = GPT4_PATTERN,
                 special_tokens: dict[str, int] | None = None,
                 byte_order: Sequence[int] = range(256)):
        self.pattern = pattern
        self.special_tokens = dict(special_tokens or {})
        # {(left id, right id): new id}, in the order in which the merges were learned
        self.merges: dict[tuple[int, int], int] = {}
        _check_special_tokens(self.special_tokens)
        if sorted(byte_order) != list(range(256)):
            raise TokenizerError("byte_order should contain every byte from 0 to 255 once")

        self._pattern = compile_pattern(pattern)
        self._special_bytes = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        self.vocab_size = max(self._special_bytes, default=255) + 1
        # {id: bytes}, without the special tokens
        self._token_bytes = {i: bytes([byte]) for i, byte in enumerate(byte_order)}
        self._all_tokens = set(self._token_bytes.values())
        # a table for bytes.translate that replaces each byte by its id
        self._byte_to_id = bytes.maketrans(bytes(byte_order), bytes(range(256)))
        # {new id: (left id, right id)}, the reverse of `merges`
        self._pairs: dict[int, tuple[int, int]] = {}
        # {word: ids}
        self._cache: dict[str, list[int]] = {}
        for left, right in merges:
            new_id = self.add_merge(left, right)
            if isinstance(merges, dict) and merges[left, right] != new_id:
                raise TokenizerError(
                    f"merges gives the pair {left, right} the id {merges[left, right]}, but "
                    f"{new_id} is the next free id"
                )

    @check_arguments(TokenizerError, left=at_least(0), right=at_least(0))
    def add_merge(self, left: int, right: int) -> int:
        """Append a merge, and return the id of the new token.

        Raises:
            TokenizerError: the two ids are not tokens, or the new token already exists.
        """
        tokens = self._token_bytes
        token = tokens[left] + tokens[right] if left in tokens and right in tokens else None
        if token is None or token in self._all_tokens:
            raise TokenizerError(
                f"merge {len(self.merges)} joins ids {left} and {right}: both tokens should exist "
                "before this merge, and the new token should not exist yet"
            )
        new_id = 256 + len(self.merges)
        while new_id in tokens or new_id in self._special_bytes:
            new_id += 1
        self.merges[left, right] = new_id
        self._pairs[new_id] = left, right
        tokens[new_id] = token
        self._all_tokens.add(token)
        self.vocab_size = max(self.vocab_size, new_id + 1)
        self._cache.clear()
        return new_id

    @classmethod
    @check_arguments(
        TokenizerError, text=text_or_texts, vocab_size=at_least(1), pattern=str,
        special_tokens=new_names,
    )
    def train(cls, text: str | Iterable[str], vocab_size: int, pattern: str = GPT4_PATTERN,
              special_tokens: Iterable[str] = ()) -> Self:
        """Return the tokenizer whose merges are learned from `text`.

        The most frequent pair of neighbours becomes a new token, again and again. If several pairs
        are equally frequent, the pair with the smallest ids wins; the left ids are compared first.

        Args:
            text: one text or several. No word crosses from one text to the next.
            vocab_size: the number of all tokens: 256 bytes, merges and special tokens.

        Raises:
            TokenizerError: vocab_size is too small for the bytes and the special tokens, or larger
                than the text allows.
        """
        names = list(dict.fromkeys(special_tokens))
        n_merges = vocab_size - 256 - len(names)
        if n_merges < 0:
            raise TokenizerError(
                f"vocab_size={vocab_size} should be at least {256 + len(names)}: 256 bytes and "
                f"{len(names)} special tokens"
            )
        compiled = compile_pattern(pattern)
        word_counts = Counter()
        for part in [text] if isinstance(text, str) else text:
            checked_value("a part of text", part, str)
            word_counts.update(split_words(compiled, part))
        merges = learn_merges(word_counts, n_merges)
        if len(merges) < n_merges:
            raise TokenizerError(
                f"vocab_size={vocab_size} is too large for this text: at "
                f"{256 + len(merges) + len(names)} every word is a single token"
            )
        special_ids = {name: 256 + n_merges + i for i, name in enumerate(names)}
        return cls(merges, pattern, special_ids)

    @check_arguments(
        TokenizerError, text=str, allowed_special=names_or_all, disallowed_special=names_or_all
    )
    def encode(self, text: str, allowed_special: Iterable[str] | Literal["all"] = (),
               disallowed_special: Iterable[str] | Literal["all"] = ()) -> list[int]:
        """Return the ids of `text`. By default the name of a special token is ordinary text.

        Args:
            allowed_special: the names that become special tokens, or "all". If several names match
                at one position, the longest wins.
            disallowed_special: the names that must not occur in `text`. "all" means every name that
                is not allowed.

        Raises:
            TokenizerError: `text` contains a disallowed name, half a surrogate pair, or a character
                that is in no word.
        """
        allowed = self._check_names(allowed_special)
        if disallowed_special == "all":
            disallowed = set(self.special_tokens) - allowed
        else:
            disallowed = self._check_names(disallowed_special)
        if disallowed:
            _check_no_name(text, disallowed)
        if not allowed:
            return self._encode_ordinary(text)
        ids, start = [], 0
        for match in _any_of(allowed).finditer(text):
            ids += self._encode_ordinary(text[start:match.start()], start)
            ids.append(self.special_tokens[match[0]])
            start = match.end()
        return ids + self._encode_ordinary(text[start:], start)

    def encode_document(self, text: str) -> list[int]:
        """Return the ids of a document: `<|begin|>`, the text as ordinary text, `<|end|>`."""
        self._check_names((BEGIN, END))
        return [self.special_tokens[BEGIN], *self.encode(text), self.special_tokens[END]]

    def _check_names(self, names: Iterable[str] | Literal["all"]) -> set[str]:
        """Return the set of `names`. Raise a TokenizerError if one is not a special token."""
        names = set(self.special_tokens if names == "all" else names)
        unknown = sorted(names - self.special_tokens.keys())
        if unknown:
            known = ", ".join(self.special_tokens)
            all_names = f"they are {known}" if known else "this tokenizer has none"
            raise TokenizerError(f"{unknown[0]!r} is not a special token; {all_names}")
        return names

    def _encode_ordinary(self, text: str, offset: int = 0) -> list[int]:
        """Return the ids of a text without special tokens, which begins at position `offset`."""
        ids = []
        cache = self._cache
        for word in split_words(self._pattern, text, offset):
            word_ids = cache.get(word)
            if word_ids is None:
                word_ids = self.encode_word(word.encode("utf-8"))
                if len(word) <= CACHED_LENGTH:
                    if len(cache) >= CACHED_WORDS:
                        cache.clear()
                    cache[word] = word_ids
            ids += word_ids
        return ids

    @check_arguments(TokenizerError, word=bytes)
    def encode_word(self, word: bytes) -> list[int]:
        """Return the ids of one word, given as bytes. The pattern does not split it.

        The earliest merge goes first, and each merge goes from left to right. A merge writes the
        new id over its left token and REMOVED over its right token. The tokens form a linked list,
        so this takes constant time. For n bytes the time grows as n log n, because the positions of
        each merge are sorted.
        """
        n = len(word)
        # REMOVED stands after the last token, and is also ids[-1], which stands before the first.
        ids = [*word.translate(self._byte_to_id), REMOVED]
        # the position of the token before and after each token
        before = list(range(-1, n))
        after = list(range(1, n + 2))

        # {new id: positions of the left token of its pair}
        positions = defaultdict(list)
        get_merge = self.merges.get
        for i, pair in enumerate(pairwise(ids)):
            if (new_id := get_merge(pair)) is not None:
                positions[new_id].append(i)

        # A sorted list is a heap. A merge can only make later merges possible.
        heap = sorted(positions)
        while heap:
            new_id = heapq.heappop(heap)
            left, right = self._pairs[new_id]
            for i in sorted(positions[new_id]):
                j = after[i]
                # An earlier replacement may have used one of the two tokens.
                if ids[i] != left or ids[j] != right:
                    continue
                ids[i], ids[j] = new_id, REMOVED
                previous, following = before[i], after[j]
                after[i], before[following] = following, i
                # Both neighbours are in a new pair now, and a later merge may join it.
                new_pairs = (previous, (ids[previous], new_id)), (i, (new_id, ids[following]))
                for position, pair in new_pairs:
                    if (later_id := get_merge(pair)) is not None:
                        if later_id not in positions:
                            heapq.heappush(heap, later_id)
                        positions[later_id].append(position)
        return [i for i in ids if i != REMOVED]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. Bytes that are not valid utf-8 become �."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids`. They may end inside a character."""
        ids = checked_ids(ids, self.vocab_size)
        try:
            tokens = [self._token_bytes.get(i) or self._special_bytes[i] for i in ids]
        except KeyError as error:
            raise TokenizerError(f"id {error} belongs to no token of this tokenizer") from None
        return b"".join(tokens)

    @check_arguments(TokenizerError, ids=several)
    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of `ids` in pieces. A piece never ends inside a character."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in ids:
            piece = decoder.decode(self.token_bytes(token))
            if piece:
                yield piece
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token. They may be only a part of a character."""
        return self.decode_bytes([token])

    def to_dict(self) -> dict:
        """Return the tokenizer as a dict for JSON.

        A merge is written as its two tokens, such as "lo w", so that a person can read it. A space
        is written as Ġ and a newline as Ċ.
        """
        written = {
            i: "".join(BYTE_TO_CHARACTER[byte] for byte in token)
            for i, token in self._token_bytes.items()
        }
        return {
            "class": "BPETokenizer",
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "bytes": "".join(written[i] for i in range(256)),
            "merges": [f"{written[left]} {written[right]}" for left, right in self.merges],
        }

    @classmethod
    @check_arguments(TokenizerError, saved=saved_tokenizer)
    def from_dict(cls, saved: dict) -> Self:
        """Return the tokenizer that `to_dict` described."""
        try:
            byte_order = [CHARACTER_TO_BYTE[character] for character in saved["bytes"]]
            if sorted(byte_order) != list(range(256)):
                raise KeyError("bytes")
        except (KeyError, TypeError):
            raise TokenizerError(
                f"bytes={short(saved['bytes'])} should be the characters that stand for the 256 "
                "bytes, as to_dict writes them"
            ) from None
        tokenizer = cls((), saved["pattern"], saved["special_tokens"], byte_order)
        ids = {character: i for i, character in enumerate(saved["bytes"])}
        for i, line in enumerate(saved["merges"]):
            left, _, right = line.partition(" ")
            if left not in ids or right not in ids:
                raise TokenizerError(
                    f"merges[{i}]={short(line)} should be two tokens with a space between them, "
                    "both of them bytes or the result of an earlier merge"
                )
            ids[left + right] = tokenizer.add_merge(ids[left], ids[right])
        return tokenizer

    @check_arguments(TokenizerError, path=new_file)
    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON that a person can read, one merge a line."""
        content = json.dumps(self.to_dict(), ensure_ascii=False, indent=1)
        write_file(path, content.encode("utf-8"))

    @classmethod
    @check_arguments(TokenizerError, path=existing_file)
    def load(cls, path: str | Path) -> Self:
        """Return the tokenizer that `save` wrote."""
        try:
            return cls.from_dict(json.loads(read_file(path).decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"{path} contains no BPE tokenizer: it is not utf-8 text (see byte {error.start})"
            ) from None
        except (TokenizerError, json.JSONDecodeError, RecursionError) as error:
            raise TokenizerError(f"{path} contains no BPE tokenizer: {error}") from None


def write_file(path: Path, content: bytes) -> None:
    """Write a file. After an error, an older file of that name is unchanged.

    Raises:
        TokenizerError: the file cannot be written.
    """
    try:
        write_atomically({path: content})
    except OSError as error:
        raise TokenizerError(
            f"{path} could not be written ({error.strerror or error}); an older file there is "
            "unchanged"
        ) from None


def read_file(path: Path) -> bytes:
    """Return the content of a file. Raise a TokenizerError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read ({error.strerror or error})") from None


def learn_merges(word_counts: dict[str, int], n_merges: int) -> list[tuple[int, int]]:
    """Return the first `n_merges` merges, as pairs of ids, or fewer if no pair is left.

    The simple trainer counts all pairs again for each merge. This trainer keeps the counts, and a
    merge changes only the counts in the words that contain its pair. A heap finds the most frequent
    pair.

    Each word is a string in which the character chr(i) stands for token i. So a pair is a string of
    two characters.

    Args:
        word_counts: {word: how often it occurs}.
    """
    # latin-1 decodes each byte b as chr(b).
    words = [word.encode("utf-8").decode("latin-1") for word in word_counts]
    times = list(word_counts.values())
    pair_counts = defaultdict(int)
    # {pair: indices of the words that contain it or once contained it}
    words_with = defaultdict(list)

    def add_pair(pair, i):
        pair_counts[pair] += times[i]
        indices = words_with[pair]
        if not indices or indices[-1] != i:
            indices.append(i)

    for i, word in enumerate(words):
        for pair in map(str.__add__, word, word[1:]):
            add_pair(pair, i)
    heap = [(-n, pair) for pair, n in pair_counts.items()]
    heapq.heapify(heap)

    merges = []
    while len(merges) < n_merges and (pair := _pop_most_frequent(heap, pair_counts)):
        left, right = pair
        new = chr(256 + len(merges))
        merges.append((ord(left), ord(right)))
        new_pairs = set()
        for i in words_with.pop(pair):
            parts = words[i].split(pair)
            words[i] = new.join(parts)
            for old_pair, new_pair in _changed_pairs(parts, left, right, new):
                pair_counts[old_pair] -= times[i]
                add_pair(new_pair, i)
                new_pairs.add(new_pair)
        for new_pair in new_pairs:
            heapq.heappush(heap, (-pair_counts[new_pair], new_pair))
    return merges


def _pop_most_frequent(heap: list[tuple[int, str]], pair_counts: dict[str, int]) -> str | None:
    """Remove the most frequent pair from the heap and return it, or return None if no pair is left.

    The entries of the heap are (-count, pair). Of equal counts the smallest pair comes first. A
    count may be out of date, but only too high. Such an entry goes back with the present count.
    """
    while heap:
        negative_count, pair = heapq.heappop(heap)
        present_count = pair_counts[pair]
        if present_count == -negative_count:
            return pair
        if present_count > 0:
            heapq.heappush(heap, (-present_count, pair))
    return None


def _changed_pairs(parts: list[str], left: str, right: str, new: str) -> Iterator[tuple[str, str]]:
    """Yield (old_pair, new_pair) for both neighbours of each merge in a word.

    `parts` is the word, split at each occurrence of the pair left + right:

    >>> list(_changed_pairs("xabaab".split("ab"), "a", "b", new="N"))
    [('xa', 'xN'), ('ba', 'Na'), ('aa', 'aN')]
    >>> list(_changed_pairs("abab".split("ab"), "a", "b", new="N"))
    [('ba', 'NN')]
    """
    last = len(parts) - 1
    for k, part in enumerate(parts):
        if part and k > 0:
            # a merge is on the left of this part
            yield right + part[0], new + part[0]
        if part and k < last:
            # a merge is on the right of this part
            yield part[-1] + left, part[-1] + new
        if not part and 0 < k < last:
            # two merges are next to each other
            yield right + left, new + new


def _check_special_tokens(special_tokens: dict[str, int]) -> None:
    """Raise a TokenizerError if a name is empty or not unicode, or an id is wrong or used twice."""
    if "" in special_tokens:
        raise TokenizerError("the name of a special token should not be empty")
    for name in special_tokens:
        check_surrogates(name)
    ids = list(special_tokens.values())
    if max(ids, default=256) >= 2 ** 63:
        raise TokenizerError(
            f"ids of special tokens must be below 2 ** 63, and one is {max(ids)}: a tensor could "
            "not hold it"
        )
    if min(ids, default=256) < 256:
        raise TokenizerError(
            f"ids of special tokens must be at least 256, and one is {min(ids)}: the ids below 256 "
            "belong to the bytes"
        )
    if len(set(ids)) < len(ids):
        raise TokenizerError(f"special tokens must have different ids, and not {special_tokens}")


def _check_no_name(text: str, names: set[str]) -> None:
    """Raise a TokenizerError if one of `names`, the disallowed special tokens, is in `text`."""
    match = _any_of(names).search(text)
    if match:
        name = match[0]
        raise TokenizerError(
            f"the text contains the special token {name!r} at position {match.start()}: add it to "
            "allowed_special to encode it as a special token, or remove it from disallowed_special "
            "to encode it as ordinary text"
        )


def _any_of(names: Iterable[str]) -> regex.Pattern:
    """Return a pattern that matches every one of `names`, longer names first."""
    longest_first = sorted(names, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)))


def _visible_characters() -> dict[int, str]:
    """Return one visible character for each byte, as GPT-2 has it: a space is Ġ, a newline Ċ."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    characters = {byte: chr(byte) for byte in visible}
    for i, byte in enumerate(others):
        characters[byte] = chr(256 + i)
    return characters


BYTE_TO_CHARACTER = _visible_characters()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
