"""Cleaning a heap of documents, one measured step after the other (chapter 10).

    steps = [Length(minimum=200), ExactDuplicates(), NearDuplicates(threshold=0.8)]
    cleaning = clean(load_documents("my_texts"), steps, rejects="rejects.jsonl")
    kept = list(cleaning)
    print(cleaning.table())

A step is called with one document. It returns the document, a changed document, or a `Reject` with
a reason. Documents pass through all steps one at a time, so the heap never has to be in memory as a
whole. Three steps remember something about earlier documents. They say how much memory that takes.
Make new steps for each cleaning. Otherwise each document is a copy of itself.

The similarity of two documents is that of their shingles, which are runs of words:

>>> a, b = shingles("the king has a ring", 2), shingles("the king has a cup", 2)
>>> sorted(a)
[('a', 'ring'), ('has', 'a'), ('king', 'has'), ('the', 'king')]
>>> jaccard(a, b)               # 3 shingles stand in both, 5 in at least one
0.6
"""

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from gptlib.checks import (
    at_least,
    between,
    check_arguments,
    list_of,
    new_file,
    optional,
    several,
    short,
)
from gptlib.corpora.plain_text import Document, needed
from gptlib.data import DataError

# Scripts that write no spaces between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese.
NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(f"[{NO_SPACES}]|[^\\s{NO_SPACES}]+")


# What a step returns, and what is counted ---------------------------------------------------------

@dataclass(frozen=True)
class Reject:
    """A document that a step removes, and why."""

    reason: str


Step = Callable[[Document], Document | Reject]


@dataclass
class Row:
    """What one step has removed."""

    step: str
    documents: int = 0          # removed as a whole
    changed: int = 0            # documents from which a part was removed
    characters: int = 0         # removed, of both kinds
    example: str = ""           # the first removal: source and reason


@dataclass
class Cleaning:
    """The documents that stay, and a table of what each step has removed. See `clean`.

    It can be iterated over once, because the steps remember the documents.
    """

    documents: Iterable[Document]
    steps: Sequence[Step]
    rejects: Path | None
    rows: list[Row] = field(init=False)
    started: bool = field(default=False, init=False)

    def __post_init__(self):
        self.rows = [Row(step_name(step)) for step in self.steps]

    def __iter__(self) -> Iterator[Document]:
        if self.started:
            raise DataError("this cleaning has run already: call clean again, with new steps")
        self.started = True
        if self.rejects is None:
            yield from self.kept(lambda record: None)
            return
        # A surrogate has no utf-8. With this handler it is written as JSON writes it, as \\ud800.
        with open(self.rejects, "w", encoding="utf-8", errors="backslashreplace") as file:
            yield from self.kept(
                lambda record: file.write(json.dumps(record, ensure_ascii=False) + "\n"))

    def kept(self, write: Callable) -> Iterator[Document]:
        """Yield the documents that stay. `write` is called with a record of each removal."""
        for number, document in enumerate(self.documents):
            if not isinstance(document, Document):
                raise DataError(
                    f"documents[{number}]={short(document)} should be a Document, such as "
                    "load_documents yields"
                )
            for step, row in zip(self.steps, self.rows, strict=True):
                result = step(document)
                self.count(row, document, result, write)
                document = result
                if isinstance(result, Reject):
                    break
            else:
                yield document

    def count(self, row: Row, document: Document, result: Document | Reject, write) -> None:
        """Count what a step has removed from one document, and write it down."""
        if isinstance(result, Reject):
            row.documents += 1
            reason, removed = result.reason, document.text
        elif not isinstance(result, Document):
            raise DataError(
                f"the step {row.step} returned {short(result)} for {document.source}, it should "
                "return a Document or a Reject"
            )
        elif result.text == document.text:
            return
        else:
            row.changed += 1
            removed = removed_lines(document.text, result.text)
            reason = f"cut {short(removed.strip())}"
        row.characters += len(removed)
        row.example = row.example or f"{document.source}: {reason}"
        write({"source": document.source, "step": row.step, "reason": reason, "text": removed})

    def table(self) -> str:
        """Return what each step has removed, as text."""
        lines = [f"{'step':<17}{'removed':>8}{'changed':>8}{'characters':>12}  example"]
        for row in self.rows:
            example = row.example if len(row.example) <= 56 else row.example[:55] + "…"
            lines.append(f"{row.step:<17}{row.documents:>8}{row.changed:>8}{row.characters:>12,}"
                         f"  {example}".rstrip())
        return "\n".join(lines)


def removed_lines(before: str, after: str) -> str:
    """Return the lines of `before` that `after` does not have, with their line ends.

    >>> removed_lines("menu\\na\\nmenu\\nb\\n", "a\\nmenu\\nb\\n")
    'menu\\n'
    """
    left = Counter(before.splitlines(keepends=True))
    left.subtract(after.splitlines(keepends=True))
    return "".join(line * n for line, n in left.items())


def step_name(step: Step) -> str:
    """Return the name of a step: that of its class, or of a function."""
    return getattr(step, "__name__", type(step).__name__)


def step_kind(name: str, value: Step) -> Step:
    """The kind of a step: something that can be called with a document."""
    if isinstance(value, type) or not callable(value):
        raise ValueError(f"{name}={value!r} should be a step, such as Length(minimum=200)")
    return value


@check_arguments(DataError, documents=several, steps=list_of(step_kind), rejects=optional(new_file))
def clean(
    documents: Iterable[Document], steps: Sequence[Step], rejects: str | Path | None = None
) -> Cleaning:
    """Return the documents that pass all steps, as something to iterate over once.

    Args:
        rejects: a JSONL file for everything that is removed: source, step, reason and text. So
            nothing is lost. An earlier file of this name is replaced when the cleaning begins.
    """
    return Cleaning(documents, steps, rejects)


# Simple rules -------------------------------------------------------------------------------------

class Length:
    """Reject documents that have too few characters, such as "5.", or too many.

    Rae et al. 2021 (Gopher, appendix A1) count words, and keep 50 to 100,000. Characters can be
    counted in every script.
    """

    @check_arguments(DataError, minimum=at_least(0), maximum=optional(at_least(1)))
    def __init__(self, minimum: int = 200, maximum: int | None = None):
        self.minimum = minimum
        self.maximum = maximum

    def __call__(self, document: Document) -> Document | Reject:
        n = len(document.text)
        if n < self.minimum:
            return Reject(f"{n} characters are fewer than {self.minimum}")
        if self.maximum is not None and n > self.maximum:
            return Reject(f"{n} characters are more than {self.maximum}")
        return document


class Repetition:
    """Reject documents that repeat themselves (Rae et al. 2021, the Gopher rules, table A1).

    Two of its limits: at most 30 % of the lines stand earlier in the document, and at most 10 % of
    the characters are in 10-grams of words that occur more than once. A text without spaces has no
    10-grams, so only its lines are counted.
    """

    LINES, TEN_GRAMS = 0.30, 0.10

    def __call__(self, document: Document) -> Document | Reject:
        lines = [line for line in document.text.splitlines() if line.strip()]
        repeated = (len(lines) - len(set(lines))) / max(1, len(lines))
        if repeated > self.LINES:
            return Reject(f"{repeated:.0%} of its lines repeat an earlier line")
        share = repeated_share(document.text.split(), 10)
        if share > self.TEN_GRAMS:
            return Reject(f"{share:.0%} of its characters repeat ten words in a row")
        return document


def repeated_share(words: list[str], n: int) -> float:
    """Return what share of the characters is in runs of n words that occur more than once."""
    hashes = [hash(run) for run in runs(words, n)]      # they take less memory than the runs
    counts = Counter(hashes)
    repeated, end = 0, 0                                # words before `end` are counted already
    for start, run in enumerate(hashes):
        if counts[run] > 1:
            repeated += sum(map(len, words[max(start, end):start + n]))
            end = start + n
    return repeated / max(1, sum(map(len, words)))


def runs(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
    """Return all runs of n words. Fewer words are one run.

    >>> list(runs(["to", "be", "or"], 2))
    [('to', 'be'), ('be', 'or')]
    """
    if len(words) < n:
        return iter([tuple(words)])
    return zip(*(islice(words, start, None) for start in range(n)), strict=False)


class Boilerplate:
    """Cut lines that stand in many documents, such as menus, and the frame of Project Gutenberg.

    A line of at least `length` characters is cut when it stood in `documents` earlier documents. So
    the first few documents keep it. (Wenzek et al. 2020, CCNet, also remove repeated paragraphs of
    a whole crawl.) A document of which no text stays is rejected.

    Each line that is counted takes about 100 bytes of memory. Counting begins anew after
    `most_lines` different lines, but lines that were found to be boilerplate are not forgotten.
    """

    START = re.compile(r"^\*\*\* ?START OF (THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)
    END = re.compile(r"^\*\*\* ?END OF (THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)

    @check_arguments(
        DataError, documents=at_least(1), length=at_least(1), most_lines=at_least(1)
    )
    def __init__(self, documents: int = 3, length: int = 20, most_lines: int = 1_000_000):
        self.documents = documents
        self.length = length
        self.most_lines = most_lines
        self.counts: Counter[bytes] = Counter()     # of lines that are not boilerplate so far
        self.boilerplate: set[bytes] = set()

    def __call__(self, document: Document) -> Document | Reject:
        lines = self.without_frame(document.text).splitlines(keepends=True)
        keys = [short_hash(line.strip()) if len(line.strip()) >= self.length else None
                for line in lines]
        text = "".join(line for line, key in zip(lines, keys, strict=True)
                       if key not in self.boilerplate)
        self.learn(set(keys) - {None} - self.boilerplate)
        if document.text.strip() and not text.strip():
            return Reject("all of its lines stood in earlier documents")
        return replace(document, text=text)

    def learn(self, keys: set[bytes]) -> None:
        """Count the lines of one document."""
        self.counts.update(keys)
        new = {key for key in keys if self.counts[key] >= self.documents}
        self.boilerplate |= new
        for key in new:
            del self.counts[key]
        if len(self.counts) > self.most_lines:
            self.counts.clear()

    def without_frame(self, text: str) -> str:
        """Return the book inside of a file of Project Gutenberg. Other texts stay as they are."""
        start, end = self.START.search(text), self.END.search(text)
        if start and end and start.end() < end.start():
            return text[start.end():end.start()].strip("\n") + "\n"
        return text


def short_hash(text: str) -> bytes:
    # A text from a damaged file may have half a surrogate pair, which utf-8 refuses.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]


class Language:
    """Reject documents in another language than the given one (Lui and Baldwin 2012, langid).

    The library py3langid names the language of the first 5,000 characters. Texts with fewer than
    `judged_from` letters pass, because a short text is often misjudged. So do tables of numbers.
    """

    @check_arguments(DataError, language=str, judged_from=at_least(0))
    def __init__(self, language: str = "en", judged_from: int = 50):
        self.detect = needed("py3langid", "Language").classify
        known = {label for label, _ in needed("py3langid", "Language").rank("text")}
        if language not in known:
            raise DataError(
                f"language={language!r} is not a language that py3langid knows: give a code such "
                "as en, de, ar or th"
            )
        self.language = language
        self.judged_from = judged_from

    def __call__(self, document: Document) -> Document | Reject:
        beginning = document.text[:5000]
        if sum(map(str.isalpha, beginning)) < self.judged_from:
            return document
        found, _ = self.detect(beginning)
        return document if found == self.language else Reject(f"its language is {found}")


# Copies -------------------------------------------------------------------------------------------

class ExactDuplicates:
    """Reject documents whose text was there before. White space may differ.

    A hash of each text is remembered, and its source. A million documents take about 200 MB of
    memory, and more if their sources are long. Lee et al. 2022 show what copies do to a model.
    """

    def __init__(self):
        self.first: dict[bytes, str] = {}

    def __call__(self, document: Document) -> Document | Reject:
        key = short_hash(" ".join(document.text.split()))
        if key in self.first:
            return Reject(f"the same text as {self.first[key]}")
        self.first[key] = document.source
        return document


def split_words(text: str) -> list[str]:
    """Return the words of a text. Each character of a script without spaces counts as a word.

    >>> split_words("the word 苹果")
    ['the', 'word', '苹', '果']
    """
    return WORD.findall(text)


@check_arguments(DataError, text=str, n=at_least(1))
def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """Return all runs of n words. A text with fewer words is one shingle.

    In scripts without spaces between words, such as Thai or Chinese, a character counts as a word.
    Elsewhere words are better than characters, because different texts have few runs of words in
    common: with runs of 5 words, the similarity of the first and the second 500,000 characters of
    tinyshakespeare is 0.0001, with runs of 5 characters it is 0.41.
    """
    return set(runs(split_words(text), n))


@check_arguments(DataError, a=set, b=set)
def jaccard(a: set, b: set) -> float:
    """Return how many elements are in both sets, divided by how many are in at least one."""
    return len(a & b) / max(1, len(a | b))


class NearDuplicates:
    """Reject documents that are similar to an earlier one (Broder 1997).

    MinHash and locality-sensitive hashing, by the library datasketch, find candidates. A candidate
    is a near copy only if the Jaccard similarity of the shingles reaches the threshold. The
    shingles are remembered as hashes of 8 bytes. The index takes some 8 kB for each document. When
    both together reach `max_bytes`, an error says so. The documents before it are cleaned.

    Args:
        threshold: the smallest similarity of a near copy.
        n: words in a shingle.
    """

    FUNCTIONS = 128             # hash functions of a signature
    BAND_BYTES = 400            # memory for each band of a document in the index, measured
    BATCH = 10_000              # shingles that datasketch gets at a time

    @check_arguments(DataError, threshold=between(0.1, 1.0), n=at_least(1), max_bytes=at_least(1))
    def __init__(self, threshold: float = 0.8, n: int = 5, max_bytes: int = 1 << 29):
        self.datasketch = needed("datasketch", "NearDuplicates")
        self.threshold = threshold
        self.n = n
        self.max_bytes = max_bytes
        # A signature is an estimate. So the search begins a little below the threshold, and it
        # rather finds too many candidates than too few: 97 % of the pairs at the threshold.
        self.index = self.datasketch.MinHashLSH(
            max(0.05, threshold - 0.1), self.FUNCTIONS, weights=(0.1, 0.9))
        self.seen: list[tuple[str, array]] = []
        self.n_bytes = 0

    def __call__(self, document: Document) -> Document | Reject:
        own = self.hashes(document.text)
        signature = self.signature(own)
        for number in sorted(self.index.query(signature)):
            source, other = self.seen[number]
            similarity = jaccard(own, set(other))
            if similarity >= self.threshold:
                return Reject(f"similarity {similarity:.2f} with {source}")
        self.n_bytes += 8 * len(own) + self.BAND_BYTES * self.index.b
        if self.n_bytes > self.max_bytes:
            raise DataError(
                f"NearDuplicates has reached its memory of max_bytes={self.max_bytes:,} at "
                f"{document.source}, after {len(self.seen):,} documents: give a larger max_bytes, "
                "or clean the heap in parts"
            )
        self.index.insert(len(self.seen), signature)
        self.seen.append((document.source, array("Q", own)))
        return document

    def hashes(self, text: str) -> set[int]:
        """Return a number of 8 bytes for each shingle."""
        return {int.from_bytes(short_hash(" ".join(run))[:8], "big")
                for run in runs(split_words(text), self.n)}

    def signature(self, hashes: set[int]):
        """Return the MinHash of a document. datasketch wants hashes of 4 bytes."""
        signature = self.datasketch.MinHash(self.FUNCTIONS, hashfunc=lambda i: i & 0xFFFFFFFF)
        numbers = list(hashes)
        for start in range(0, len(numbers), self.BATCH):
            signature.update_batch(numbers[start:start + self.BATCH])
        return signature
