"""The example heap holds what it says, and the cleaning finds what was planted."""

import random

import pytest

from gptlib import load_corpus
from gptlib.corpora.cleaning import (
    Boilerplate,
    ExactDuplicates,
    Language,
    Length,
    NearDuplicates,
    clean,
)
from gptlib.corpora.documents import load_documents
from gptlib.corpora.example_heap import KINDS, MENU, truth, write_heap
from gptlib.data import DataError


def random_text(n_words=60_000):
    """Return English words in random order. So no two pieces are similar by chance."""
    words = [word for word in load_corpus("python_docs").text.split() if word.isalpha()]
    rng = random.Random(4)
    lines = [" ".join(rng.choices(words, k=12)) for _ in range(n_words // 12)]
    return "\n\n".join("\n".join(lines[i:i + 5]) for i in range(0, len(lines), 5))


TEXT = random_text()


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heap")
    kinds = write_heap(folder, TEXT)
    return folder, kinds


def test_the_sources_are_those_of_load_documents(heap):
    folder, kinds = heap
    assert kinds == truth()
    assert {document.source for document in load_documents(folder)} == set(kinds)
    assert len(kinds) == sum(n for _, n in KINDS.values())


def test_the_same_seed_gives_the_same_bytes(heap, tmp_path):
    folder, _ = heap
    write_heap(tmp_path, TEXT)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_wrong_encodings_are_repaired(heap):
    folder, _ = heap
    texts = {document.source: document for document in load_documents(folder)}
    first, second = texts["german-0.txt"], texts["german-1.txt"]
    assert "Apfelbäume" in first.text and first.encoding != "utf-8"
    assert "weiß" in second.text and second.n_repaired > 0


def test_copies_are_copies(heap):
    folder, _ = heap
    texts = {document.source: document.text for document in load_documents(folder)}
    assert texts["copy-0.txt"].split() == texts["book-0.txt"].split()
    edited, original = texts["edited-0.txt"].split(" "), texts["book-4.txt"].split(" ")
    changed = sum(a != b for a, b in zip(edited, original, strict=True))
    assert 0 < changed <= len(original) / 50 + 1


def test_the_steps_find_what_was_planted(heap):
    folder, kinds = heap
    steps = [Length(minimum=200), Boilerplate(), Language("en"), ExactDuplicates(),
             NearDuplicates(0.7)]
    kept = {document.source: document.text
            for document in clean(load_documents(folder), steps)}
    removed = {kind: 0 for kind, _ in KINDS.values()}
    for source, kind in kinds.items():
        removed[kind] += source not in kept
    assert removed["exact copy"] == removed["near copy"] == 4
    assert (removed["too short"], removed["another language"]) == (3, 2)
    assert removed["good"] == 0
    assert MENU[0] in kept["page-0.html"]            # the first pages keep the menu
    assert MENU[0] not in kept["page-5.html"]


def test_a_short_text_makes_no_heap(tmp_path):
    with pytest.raises(DataError, match="it should have at least"):
        write_heap(tmp_path, "To be, or not to be.")
