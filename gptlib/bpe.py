"""Byte pair encoding over bytes: any text becomes tokens, and the pairs that are frequent in a text become one.

>>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=259)
>>> [tokenizer.token_bytes(token) for token in tokenizer.encode("slow")]
[b's', b'low']

Ids 0 to 255 are the bytes by value, then come the merges in the order in which they were learned, then the
special tokens. The algorithm is Sennrich et al. 2016, over bytes since GPT-2 (Radford et al. 2019).
"""

import base64
import codecs
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Literal, Self

import regex

# How text is cut into words, inside which alone pairs are merged; as tiktoken publishes them for gpt2 and cl100k_base.
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT4_PATTERN = (r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
                r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""")
BEGIN, END = "<|begin|>", "<|end|>"     # what `encode_document` puts around a text
CACHED_WORDS = 1 << 17                  # words whose ids are remembered ...
CACHED_LENGTH = 64                      # ... if they have at most so many characters
GONE = -1                               # stands where a token was, before it was merged into the one to its left

# GPT-2's visible character for each byte, so that a merge can be read: a space is Ġ, a newline Ċ.
VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
SHOWN = {b: chr(b) for b in VISIBLE} | {b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(VISIBLE)))}
HIDDEN = {character: b for b, character in SHOWN.items()}


class TokenizerError(ValueError):
    """Text that a tokenizer cannot encode, an id that it does not know, or a file that holds no tokenizer."""


class BPETokenizer:
    """A vocabulary of byte strings, and the merges that make them.

    Args:
        merges: pairs of ids, in the order in which they were learned. Each becomes the next free id from 256 on.
        pattern: a regular expression whose matches are the words.
        special_tokens: ids by name, none of them a byte's. Ids below `vocab_size` that nothing takes are spare.
        byte_order: the byte of each id below 256; published vocabularies do not always go by value.

    Raises:
        TokenizerError: merges, special tokens or a pattern that cannot work together.
    """

    def __init__(self, merges: Iterable[tuple[int, int]] = (), pattern: str = GPT4_PATTERN,
                 special_tokens: dict[str, int] | None = None, byte_order: Sequence[int] = range(256)):
        self.pattern, self._regex = pattern, _compiled(pattern)
        self.special_tokens = dict(special_tokens or {})
        self._special = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}        # id: its bytes
        if "" in self.special_tokens or len(self._special) < len(self.special_tokens) or min(self._special, default=256) < 256:
            raise TokenizerError(f"special tokens {self.special_tokens} should have names that are not empty, and each an id of "
                                 "its own that is no byte's, from 256 on")
        if sorted(byte_order) != list(range(256)):
            raise TokenizerError("byte_order should hold every byte from 0 to 255 once")
        self._bytes = {i: bytes([b]) for i, b in enumerate(byte_order)}                             # id: its bytes
        self._ids = {token: i for i, token in self._bytes.items()}
        self._byte_ids = bytes.maketrans(bytes(byte_order), bytes(range(256)))
        self.vocab_size = max(self._special, default=255) + 1
        self.merges: dict[tuple[int, int], int] = {}                            # (left id, right id): new id, in order of rank
        self._halves: dict[int, tuple[int, int]] = {}                           # the same, the other way round
        for left, right in merges:
            self._add_merge(left, right)
        self._cache: dict[str, list[int]] = {}

    def _add_merge(self, left: int, right: int) -> int:
        made = self._bytes.get(left, b"") + self._bytes.get(right, b"")
        if left not in self._bytes or right not in self._bytes or made in self._ids:
            raise TokenizerError(f"merge {len(self.merges)}, of ids {left} and {right}, should be of two tokens that exist before it, "
                                 "and make one that does not")
        new = next(i for i in count(256 + len(self.merges)) if i not in self._bytes and i not in self._special)
        self.merges[left, right], self._bytes[new], self._ids[made] = new, made, new
        self._halves[new] = left, right
        self.vocab_size = max(self.vocab_size, new + 1)
        return new

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int, pattern: str = GPT4_PATTERN,
              special_tokens: Iterable[str] = ()) -> Self:
        """Learn merges: the most frequent pair of neighbours becomes a token, again and again.

        Of several pairs equally frequent, the one with the smallest ids goes first, the left id compared before the right.

        Args:
            text: one text, or several; no word reaches from one into the next.
            vocab_size: how many tokens in all: 256 bytes, merges and special tokens.

        Raises:
            TokenizerError: a vocab_size too small for the bytes and special tokens, or larger than the text can give.
        """
        names = list(dict.fromkeys(special_tokens))
        n_merges = vocab_size - 256 - len(names)
        if n_merges < 0:
            raise TokenizerError(f"vocab_size={vocab_size} should be at least {256 + len(names)}: 256 bytes"
                                 f" and {len(names)} special tokens")
        splitter = _compiled(pattern)
        counts = Counter()
        for one in [text] if isinstance(text, str) else text:
            counts.update(_words(splitter, one))
        merges = _learn(counts, n_merges)
        if len(merges) < n_merges:
            raise TokenizerError(f"vocab_size={vocab_size} is more than this text can give: every word is a single token at "
                                 f"{256 + len(merges) + len(names)}")
        return cls(merges, pattern, {name: 256 + n_merges + i for i, name in enumerate(names)})

    def encode(self, text: str, allowed_special: Iterable[str] | Literal["all"] = (),
               disallowed_special: Iterable[str] | Literal["all"] = ()) -> list[int]:
        """Ids of `text`. A special token's name in it is ordinary text, unless said otherwise.

        Args:
            allowed_special: names that become their token; where several match, the longest.
            disallowed_special: names that must not occur in `text`; "all" means all that are not allowed.

        Raises:
            TokenizerError: a disallowed name, half a surrogate pair, or text that the pattern skips.
        """
        allowed = self._named(allowed_special)
        disallowed = set(self.special_tokens) - allowed if disallowed_special == "all" else self._named(disallowed_special)
        if disallowed and (found := _any_of(disallowed).search(text)):
            raise TokenizerError(f"special token {found[0]!r} stands in the text at position {found.start()}: allow it with "
                                 f"allowed_special={{{found[0]!r}}} if it is meant as one, or take it out of disallowed_special "
                                 "to read it as ordinary text")
        if not allowed:
            return self._encode_ordinary(text)
        ids, start = [], 0
        for found in _any_of(allowed).finditer(text):
            ids += self._encode_ordinary(text[start:found.start()], start)
            ids.append(self.special_tokens[found[0]])
            start = found.end()
        return ids + self._encode_ordinary(text[start:], start)

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document: `<|begin|>`, the text as ordinary text, `<|end|>`."""
        self._named((BEGIN, END))
        return [self.special_tokens[BEGIN], *self.encode(text), self.special_tokens[END]]

    def _named(self, names: Iterable[str] | Literal["all"]) -> set[str]:
        names = set(self.special_tokens if names == "all" else names)
        if unknown := sorted(names - self.special_tokens.keys()):
            raise TokenizerError(f"{unknown[0]!r} is no special token; known are {', '.join(self.special_tokens) or 'none'}")
        return names

    def _encode_ordinary(self, text: str, start: int = 0) -> list[int]:
        ids, cache = [], self._cache
        for word in _words(self._regex, text, start):
            known = cache.get(word)
            if known is None:
                known = self._merge(word.encode("utf-8"))
                if len(word) <= CACHED_LENGTH:
                    if len(cache) >= CACHED_WORDS:
                        cache.clear()
                    cache[word] = known
            ids += known
        return ids

    def _merge(self, word: bytes) -> list[int]:
        """Ids of one word: the earliest merge first, each from left to right. For n bytes the time grows as n, not as n²."""
        n, rank = len(word), self.merges.get
        ids = [*word.translate(self._byte_ids), GONE]               # the end, which is also what ids[-1] finds before the start
        before, after = list(range(-1, n)), list(range(1, n + 2))   # the neighbours of each token that still stands
        places = defaultdict(list)                                  # where each merge may be made
        for i, pair in enumerate(pairwise(ids)):
            if (new := rank(pair)) is not None:
                places[new].append(i)
        waiting = sorted(places)                                    # a heap; a merge only brings on later ones
        while waiting:
            new = heapq.heappop(waiting)
            left, right = self._halves[new]
            for i in sorted(places[new]):
                j = after[i]
                if ids[i] != left or ids[j] != right:
                    continue                                        # another merge took one of the two
                ids[i], ids[j] = new, GONE
                h, k = before[i], after[j]
                after[i], before[k] = k, i
                for at, pair in ((h, (ids[h], new)), (i, (new, ids[k]))):
                    if (later := rank(pair)) is not None:
                        if later not in places:
                            heapq.heappush(waiting, later)
                        places[later].append(at)
        return [i for i in ids if i != GONE]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no utf-8, such as half a character, become �."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, whether they are whole characters or not."""
        try:
            return b"".join([self._bytes.get(i) or self._special[i] for i in checked_ids(ids, self.vocab_size)])
        except KeyError as error:
            raise TokenizerError(f"id {error} is spare in this tokenizer: it names no token") from None

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of `ids` as they come, never half a character."""
        whole_characters = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            if piece := whole_characters.decode(self.token_bytes(token)):
                yield piece
        if rest := whole_characters.decode(b"", final=True):
            yield rest

    def token_bytes(self, token: int) -> bytes:
        return self.decode_bytes([token])

    def to_dict(self) -> dict:
        """Ready for JSON, and readable: each merge shows its two tokens, a space as Ġ and a newline as Ċ."""
        shown = {i: "".join(SHOWN[b] for b in token) for i, token in self._bytes.items()}
        return {"class": "BPETokenizer", "pattern": self.pattern, "special_tokens": self.special_tokens,
                "bytes": "".join(shown[i] for i in range(256)), "merges": [f"{shown[a]} {shown[b]}" for a, b in self.merges]}

    @classmethod
    def from_dict(cls, saved: dict) -> Self:
        try:
            tokenizer = cls((), saved["pattern"], saved["special_tokens"], [HIDDEN[c] for c in saved["bytes"]])
            ids = {character: i for i, character in enumerate(saved["bytes"])}
            for line in saved["merges"]:
                left, right = line.split(" ")
                ids[left + right] = tokenizer._add_merge(ids[left], ids[right])
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise TokenizerError(f"pattern, special_tokens, bytes or merges are missing or wrong ({error!r})") from None
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as readable JSON, one merge a line."""
        Path(path).write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The tokenizer that `save` wrote."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (TokenizerError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{path} holds no BPE tokenizer: {error}") from None

    def ranks(self) -> dict[bytes, int]:
        """Ids by bytes, special tokens left out: tiktoken's way to write a tokenizer down."""
        return dict(self._ids)

    @classmethod
    def from_ranks(cls, ranks: dict[bytes, int], pattern: str, special_tokens: dict[str, int]) -> Self:
        """Find the merges again: the earlier ones, applied to a token's bytes, leave the two that became one."""
        order = sorted(ranks, key=ranks.get)
        if [ranks[token] for token in order[:256]] != list(range(256)) or any(len(token) != 1 for token in order[:256]):
            raise TokenizerError("the ranks 0 to 255 should be those of the 256 bytes")
        tokenizer = cls((), pattern, special_tokens, b"".join(order[:256]))
        for token in order[256:]:
            halves = tokenizer._merge(token)
            if len(halves) != 2 or tokenizer._add_merge(*halves) != ranks[token]:
                raise TokenizerError(f"token {token!r} of rank {ranks[token]} is not made by a merge of two earlier tokens, or its "
                                     "rank does not follow theirs")
        return tokenizer

    def save_tiktoken(self, path: str | Path) -> None:
        """Write tiktoken's rank file: a line for each token, its bytes in base64 and its id. It holds no pattern or special tokens."""
        lines = [base64.b64encode(token) + b" %d\n" % i for token, i in self.ranks().items()]
        Path(path).write_bytes(b"".join(lines))

    @classmethod
    def load_tiktoken(cls, path: str | Path, pattern: str = GPT4_PATTERN, special_tokens: dict[str, int] | None = None) -> Self:
        """The tokenizer of a rank file, such as `cl100k_base.tiktoken`."""
        try:
            lines = [line.split() for line in Path(path).read_bytes().splitlines() if line]
            ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
        except ValueError as error:
            raise TokenizerError(f"{path} is no file of ranks: {error}") from None
        return cls.from_ranks(ranks, pattern, special_tokens or {})

    def to_tiktoken(self, name: str = "gptlib"):
        """A `tiktoken.Encoding` with the same ids, for much text: it is written in Rust.

        Raises:
            TokenizerError: a token that these merges never reach. tiktoken, which knows tokens but not merges, would reach it.
        """
        import tiktoken  # here alone: the rest of the library does without

        for token, i in self.ranks().items():
            if self._merge(token) != [i]:
                raise TokenizerError(f"token {token!r} ({i}) is never reached, because earlier merges take its bytes apart")
        return tiktoken.Encoding(name, pat_str=self.pattern, mergeable_ranks=self.ranks(), special_tokens=self.special_tokens)

    @classmethod
    def from_tiktoken(cls, encoding) -> Self:
        """The tokenizer with the ids of a `tiktoken.Encoding`."""
        return cls.from_ranks(encoding._mergeable_ranks, encoding._pat_str, encoding._special_tokens)


def checked_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """`ids` as integers, from a list or a 1-D tensor; a TokenizerError if one is not in 0 … vocab_size - 1."""
    ids = [int(i) for i in ids]
    for i in ids:
        if not 0 <= i < vocab_size:
            raise TokenizerError(f"id {i} is not in this tokenizer's range 0 … {vocab_size - 1}")
    return ids


def _learn(counts: Counter, n_merges: int) -> list[tuple[int, int]]:
    """The first `n_merges` merges of words with these counts, fewer where no pair is left.

    A word is a string whose characters are its tokens' ids, so a merge is a `str.replace` and a pair two characters.
    """
    words = [word.encode("utf-8").decode("latin-1") for word in counts]
    times = list(counts.values())
    pairs, where = defaultdict(int), defaultdict(list)      # of each pair: how often it occurs, and in which words

    def add(pair, i):
        pairs[pair] += times[i]
        if not where[pair] or where[pair][-1] != i:
            where[pair].append(i)

    for i, word in enumerate(words):
        for pair in map(str.__add__, word, word[1:]):
            add(pair, i)
    heap = [(-n, pair) for pair, n in pairs.items()]        # its counts may be out of date, but only too high
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merges:
        n, pair = heapq.heappop(heap)
        if -n != pairs[pair]:
            if pairs[pair]:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        left, right = pair
        new, made = chr(256 + len(merges)), set()
        merges.append((ord(left), ord(right)))
        for i in where.pop(pair):
            parts = words[i].split(pair)
            words[i] = new.join(parts)
            for gone, come in _changes(parts, left, right, new):
                pairs[gone] -= times[i]
                add(come, i)
                made.add(come)
        for come in made:
            heapq.heappush(heap, (-pairs[come], come))
    return merges


def _changes(parts: list[str], left: str, right: str, new: str) -> Iterator[tuple[str, str]]:
    """Which pair each neighbour of a merge was in, and is in now; `parts` are what stands before, between and after them."""
    last = len(parts) - 1
    for k, part in enumerate(parts):
        if part and k > 0:
            yield right + part[0], new + part[0]
        if part and k < last:
            yield part[-1] + left, part[-1] + new
        if not part and 0 < k < last:
            yield right + left, new + new


def _words(splitter: regex.Pattern, text: str, start: int = 0) -> Iterator[str]:
    """The words of `text`, for training and for encoding alike; together they are the whole of it. Errors count from `start`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(f"character {text[error.start]!r} at position {start + error.start} is half a surrogate pair, which utf-8 "
                             "cannot hold: replace it, or read the text again in its right encoding") from None
    length = 0
    for word in map(regex.Match.group, splitter.finditer(text)):        # one by one: a list of them is many times the text
        length += len(word)
        yield word
    if length < len(text):
        at = 0
        for found in splitter.finditer(text):
            if found.start() > at:
                break
            at = found.end()
        raise TokenizerError(f"pattern {splitter.pattern!r} skips character {text[at]!r} at position {start + at}: every character should "
                             "be in some word")


def _compiled(pattern: str) -> regex.Pattern:
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise TokenizerError(f"pattern {pattern!r} is no regular expression: {error}") from None


def _any_of(names: Iterable[str]) -> regex.Pattern:
    return regex.compile("|".join(map(regex.escape, sorted(names, key=len, reverse=True))))
