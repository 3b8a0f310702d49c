"""Cleaning a heap of documents, one measured step after the other (chapter 10).

    steps = [Length(minimum=200), ExactDuplicates(), NearDuplicates(threshold=0.8)]
    cleaning = clean(load_documents("my_texts"), steps, rejects="rejects.jsonl")
    kept = list(cleaning)
    print(cleaning.table())

A step is called with one document. It returns the document, a changed document, or a `Reject` with
a reason. Documents pass through all steps one at a time, so the heap never has to be in memory as a
whole. Two steps remember earlier documents: they say how much memory that takes.

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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gptlib.checks import (
    any_path,
    at_least,
    between,
    check_arguments,
    list_of,
    optional,
    several,
)
from gptlib.corpora.plain_text import Document, needed
from gptlib.data import DataError

# Scripts that write no spaces between words. Their shingles are made of characters.
NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


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
    """The documents that stay, and a table of what each step has removed. See `clean`."""

    documents: Iterable[Document]
    steps: Sequence[Step]
    rejects: Path | None
    rows: list[Row] = field(default_factory=list)

    def __iter__(self) -> Iterator[Document]:
        self.rows = [Row(type(step).__name__) for step in self.steps]
        if self.rejects is None:
            yield from self.kept(lambda row, document, reason, text: None)
            return
        with open(self.rejects, "w", encoding="utf-8") as file:
            def write(row, document, reason, text):
                record = {"source": document.source, "step": row.step, "reason": reason,
                          "text": text}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

            yield from self.kept(write)

    def kept(self, write: Callable) -> Iterator[Document]:
        for document in self.documents:
            for step, row in zip(self.steps, self.rows, strict=True):
                result = step(document)
                if isinstance(result, Reject):
                    row.documents += 1
                    self.count(row, document, result.reason, document.text, write)
                    break
                if result.text != document.text:
                    row.changed += 1
                    cut = removed_lines(document.text, result.text)
                    self.count(row, document, "a part of it", cut, write)
                document = result
            else:
                yield document

    def count(self, row: Row, document: Document, reason: str, text: str, write) -> None:
        row.characters += len(text)
        row.example = row.example or f"{document.source}: {reason}"
        write(row, document, reason, text)

    def table(self) -> str:
        """Return what each step has removed, as text."""
        lines = [f"{'step':<17}{'removed':>8}{'changed':>8}{'characters':>12}  example"]
        for row in self.rows:
            example = row.example if len(row.example) <= 56 else row.example[:55] + "…"
            lines.append(f"{row.step:<17}{row.documents:>8}{row.changed:>8}{row.characters:>12,}"
                         f"  {example}".rstrip())
        return "\n".join(lines)


def removed_lines(before: str, after: str) -> str:
    """Return the lines of `before` that `after` does not have."""
    left = Counter(before.splitlines())
    left.subtract(after.splitlines())
    return "\n".join(line for line, n in left.items() for _ in range(n))


def step_kind(name: str, value: Step) -> Step:
    """The kind of a step: something that can be called with a document."""
    if isinstance(value, type) or not callable(value):
        raise ValueError(f"{name}={value!r} should be a step, such as Length(minimum=200)")
    return value


@check_arguments(DataError, documents=several, steps=list_of(step_kind), rejects=optional(any_path))
def clean(
    documents: Iterable[Document], steps: Sequence[Step], rejects: str | Path | None = None
) -> Cleaning:
    """Return the documents that pass all steps, as something to iterate over.

    Args:
        rejects: a JSONL file for everything that is removed: source, step, reason and text. So
            nothing is lost. An earlier file of this name is replaced.
    """
    return Cleaning(documents, steps, Path(rejects) if rejects is not None else None)


# Simple rules -------------------------------------------------------------------------------------

class Length:
    """Reject documents that have too few characters, such as "5.", or too many."""

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
    the characters are in 10-grams of words that occur more than once.
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
    runs = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(runs)
    inside = {j for i, run in enumerate(runs) if counts[run] > 1 for j in range(i, i + n)}
    return sum(len(words[j]) for j in inside) / max(1, sum(map(len, words)))


class Boilerplate:
    """Cut lines that stand in many documents, such as menus, and the frame of Project Gutenberg.

    A line of at least `length` characters is cut when it stood in `documents` earlier documents. So
    the first few documents keep it. Each different line takes about 100 bytes of memory.
    """

    START = re.compile(r"^\*\*\* ?START OF (THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)
    END = re.compile(r"^\*\*\* ?END OF (THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)

    @check_arguments(DataError, documents=at_least(1), length=at_least(1))
    def __init__(self, documents: int = 3, length: int = 20):
        self.documents = documents
        self.length = length
        self.counts: Counter[bytes] = Counter()

    def __call__(self, document: Document) -> Document:
        text = self.without_frame(document.text)
        lines = text.splitlines(keepends=True)
        keys = [short_hash(line.strip()) if len(line.strip()) >= self.length else None
                for line in lines]
        kept = [line for line, key in zip(lines, keys, strict=True)
                if key is None or self.counts[key] < self.documents]
        self.counts.update({key for key in keys if key is not None})
        return replace(document, text="".join(kept))

    def without_frame(self, text: str) -> str:
        """Return the book inside of a file of Project Gutenberg. Other texts stay as they are."""
        start, end = self.START.search(text), self.END.search(text)
        if start and end and start.end() < end.start():
            return text[start.end():end.start()].strip() + "\n"
        return text


def short_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()[:12]


class Language:
    """Reject documents in another language than the given one. py3langid names the language.

    Texts of fewer than `judged_from` characters pass, because a short text is often misjudged.
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
        if len(document.text) < self.judged_from:
            return document
        found, _ = self.detect(document.text[:5000])
        return document if found == self.language else Reject(f"its language is {found}")


# Copies -------------------------------------------------------------------------------------------

class ExactDuplicates:
    """Reject documents whose text was there before. White space may differ.

    A million documents take about 100 MB of memory.
    """

    def __init__(self):
        self.first: dict[bytes, str] = {}

    def __call__(self, document: Document) -> Document | Reject:
        key = short_hash(" ".join(document.text.split()))
        if key in self.first:
            return Reject(f"the same text as {self.first[key]}")
        self.first[key] = document.source
        return document


@check_arguments(DataError, text=str, n=at_least(1))
def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """Return all runs of n words. A text with fewer words is one shingle.

    In scripts without spaces between words, such as Thai or Chinese, the runs are of n characters.
    """
    words = text.split()
    if NO_SPACES.search(text[:1000]):
        words = list("".join(words))
    return {tuple(words[i:i + n]) for i in range(max(1, len(words) - n + 1))}


@check_arguments(DataError, a=set, b=set)
def jaccard(a: set, b: set) -> float:
    """Return how many elements are in both sets, divided by how many are in at least one."""
    return len(a & b) / max(1, len(a | b))


class NearDuplicates:
    """Reject documents that are similar to an earlier one (Broder 1997).

    MinHash and locality-sensitive hashing, by the library datasketch, find candidates. A candidate
    is a near copy only if the Jaccard similarity of the shingles reaches the threshold. The
    shingles are stored as hashes of 8 bytes: about 100 bytes for each word. When their memory
    reaches `max_bytes`, an error says so.

    Args:
        threshold: the smallest similarity of a near copy.
        n: words in a shingle.
    """

    FUNCTIONS = 128             # hash functions of a signature

    @check_arguments(DataError, threshold=between(0.1, 1.0), n=at_least(1), max_bytes=at_least(1))
    def __init__(self, threshold: float = 0.8, n: int = 5, max_bytes: int = 1 << 30):
        self.datasketch = needed("datasketch", "NearDuplicates")
        self.threshold = threshold
        self.n = n
        self.max_bytes = max_bytes
        # A signature is an estimate. So the search begins a little below the threshold, and it
        # rather finds too many candidates than too few: 99 % of the pairs at the threshold.
        self.index = self.datasketch.MinHashLSH(
            max(0.05, threshold - 0.1), self.FUNCTIONS, weights=(0.1, 0.9))
        self.seen: list[tuple[str, set[bytes]]] = []
        self.n_bytes = 0

    def __call__(self, document: Document) -> Document | Reject:
        own = {short_hash(" ".join(run))[:8] for run in shingles(document.text, self.n)}
        signature = self.datasketch.MinHash(self.FUNCTIONS)
        signature.update_batch(own)
        for number in sorted(self.index.query(signature)):
            source, other = self.seen[number]
            similarity = jaccard(own, other)
            if similarity >= self.threshold:
                return Reject(f"similarity {similarity:.2f} with {source}")
        self.n_bytes += 100 * len(own)
        if self.n_bytes > self.max_bytes:
            raise DataError(
                f"NearDuplicates has reached its memory of max_bytes={self.max_bytes:,} after "
                f"{len(self.seen):,} documents: give a larger max_bytes, or clean the heap in parts"
            )
        self.index.insert(len(self.seen), signature)
        self.seen.append((document.source, own))
        return document
