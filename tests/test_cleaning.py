"""Each cleaning step removes what it names, keeps everything else, and says what it did."""

import json
import random
import tracemalloc
from collections import Counter

import datasketch
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gptlib import load_corpus
from gptlib.corpora.cleaning import (
    Boilerplate,
    ExactDuplicates,
    Language,
    Length,
    NearDuplicates,
    Reject,
    Repetition,
    clean,
    jaccard,
    removed_lines,
    repeated_share,
    shingles,
)
from gptlib.corpora.plain_text import Document
from gptlib.data import DataError

ENGLISH = "The old man walked slowly along the river and looked at the boats in the harbour. "
GERMAN = "Der alte Mann ging langsam am Fluss entlang und sah die Boote im Hafen liegen. "
ARABIC = "مشى الرجل العجوز ببطء على طول النهر ونظر إلى القوارب في الميناء. "
THAI = "ชายชราเดินช้าๆไปตามแม่น้ำและมองดูเรือในท่าเรือขณะที่ฝนเริ่มตกลงมา"
EMOJI = "🙂🌙⭐🌊🚢 " * 20


def make(*texts):
    return [Document(text, f"{i}.txt") for i, text in enumerate(texts)]


def kept(step, *texts):
    """Return the texts that a step keeps, and its reasons for the others."""
    results = [step(document) for document in make(*texts)]
    return ([r.text for r in results if isinstance(r, Document)],
            [r.reason for r in results if isinstance(r, Reject)])


# clean --------------------------------------------------------------------------------------------

def test_the_table_counts_what_each_step_removed(tmp_path):
    menu = "Home | News | Archive | Imprint\n"
    texts = ["5.", "first text\n" + menu, "second text\n" + menu, "first text\n" + menu, "7."]
    cleaning = clean(make(*texts), [Length(minimum=5), ExactDuplicates(), Boilerplate(1)],
                     rejects=tmp_path / "rejects.jsonl")
    assert [d.text for d in cleaning] == ["first text\n" + menu, "second text\n"]
    assert [(r.step, r.documents, r.changed, r.characters) for r in cleaning.rows] == [
        ("Length", 2, 0, 4), ("ExactDuplicates", 1, 0, len(texts[1])),
        ("Boilerplate", 0, 1, len(menu))]
    lines = (tmp_path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    rejects = [json.loads(line) for line in lines]
    assert [(r["source"], r["step"], r["text"]) for r in rejects] == [
        ("0.txt", "Length", "5."), ("2.txt", "Boilerplate", menu),
        ("3.txt", "ExactDuplicates", texts[3]), ("4.txt", "Length", "7.")]
    assert rejects[1]["reason"] == "cut 'Home | News | Archive | Imprint'"
    assert "the same text as 1.txt" in rejects[2]["reason"]
    assert "0.txt: 2 characters are fewer than 5" in cleaning.table()


def test_documents_stream_through(tmp_path):
    seen = []

    def documents():
        for document in make("first text", "second text"):
            seen.append(document.source)
            yield document

    stream = iter(clean(documents(), [Length(5)]))
    assert next(stream).text == "first text" and seen == ["0.txt"]


def test_a_step_may_be_a_function_and_has_its_name():
    def no_poems(document):
        return Reject("a poem") if "rose" in document.text else document

    cleaning = clean(make("a rose", "a car"), [no_poems])
    assert [d.text for d in cleaning] == ["a car"]
    assert "no_poems" in cleaning.table() and "0.txt: a poem" in cleaning.table()


def test_a_second_run_is_refused_and_the_rejects_stay(tmp_path):
    path = tmp_path / "rejects.jsonl"
    cleaning = clean(make("5.", "a text"), [Length(5)], rejects=path)
    assert len(list(cleaning)) == 1
    before = path.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="this cleaning has run already: call clean again"):
        list(cleaning)
    assert path.read_text(encoding="utf-8") == before != ""


def test_a_step_that_fails_loses_nothing_of_what_was_done(tmp_path):
    path = tmp_path / "rejects.jsonl"
    heap = [*make("5."), *heap_with_copies()]
    stream = clean(heap, [Length(5), NearDuplicates(max_bytes=50_000)], rejects=path)
    done = []
    with pytest.raises(DataError, match="has reached its memory"):
        for document in stream:
            done.append(document.source)
    assert done == [f"{i}.txt" for i in range(len(done))] and len(done) > 2
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == "5."
    assert stream.rows[0].documents == 1


def test_half_a_surrogate_pair_passes_all_steps_and_the_rejects(tmp_path):
    text = "to be \ud800 or not to be\n"
    path = tmp_path / "rejects.jsonl"
    steps = [Boilerplate(), Repetition(), ExactDuplicates(), NearDuplicates()]
    assert len(list(clean(make(text, text), steps, rejects=path))) == 1
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == text


lines = st.lists(st.sampled_from(["a", " b", "", "ü🙂", "\u2028"])).map("\n".join)


@given(before=lines, after=lines)
def test_removed_lines_are_those_that_are_missing(before, after):
    removed = Counter(removed_lines(before, after).splitlines(keepends=True))
    missing = Counter(before.splitlines(keepends=True)) - Counter(after.splitlines(keepends=True))
    assert removed == missing


@pytest.mark.parametrize("text", [ENGLISH * 5, GERMAN * 5, ARABIC * 5, THAI * 5, EMOJI],
                         ids=["English", "German", "Arabic", "Thai", "emoji"])
def test_without_steps_nothing_changes(text):
    document, = make(text)
    assert list(clean([document], [])) == [document]
    assert ExactDuplicates()(document) == Boilerplate()(document) == NearDuplicates()(document)


@pytest.mark.parametrize(("call", "fragment"), [
    (lambda: clean("text", []), "documents='text' is str, it should be a list"),
    (lambda: list(clean(["a text"], [])), r"documents\[0\]='a text' should be a Document"),
    (lambda: list(clean(make("a"), [lambda document: None])),
     "the step <lambda> returned None for 0.txt, it should return a Document or a Reject"),
    (lambda: clean([], [], rejects="no/such/folder/a.jsonl"), "a file in an existing folder"),
    (lambda: clean([], [Length]), r"steps\[0\]=.* should be a step, such as Length"),
    (lambda: Length(-1), "minimum=-1 should be at least 0"),
    (lambda: NearDuplicates(1.5), "threshold=1.5 should be between 0.1 and 1"),
    (lambda: Language("xx"), "language='xx' is not a language that py3langid knows"),
    (lambda: Boilerplate(0), "documents=0 should be at least 1"),
    (lambda: shingles("a b", 0), "n=0 should be at least 1"),
    (lambda: Boilerplate(most_lines=0), "most_lines=0 should be at least 1"),
    (lambda: NearDuplicates(max_bytes=0), "max_bytes=0 should be at least 1"),
    (lambda: jaccard("ab", {"a"}), "a='ab' is str, it should be set"),
], ids=["a text", "texts", "a bad step", "no folder", "a class", "length", "threshold", "language",
        "boilerplate", "n", "most_lines", "max_bytes", "jaccard"])
def test_bad_values_are_named(call, fragment):
    with pytest.raises(DataError, match=fragment):
        call()


# Simple rules -------------------------------------------------------------------------------------

def test_length():
    assert kept(Length(minimum=3, maximum=6), "ab", "abc", "abcdef", "abcdefg") == (
        ["abc", "abcdef"], ["2 characters are fewer than 3", "7 characters are more than 6"])


def test_repetition_rejects_repeated_lines_and_repeated_runs_of_ten_words():
    rng = random.Random(1)
    words = [f"word{i}" for i in range(1000)]
    normal = "\n".join(" ".join(rng.choices(words, k=9)) for _ in range(40))
    lines = normal + "\n" + "\n".join(normal.splitlines()[:20])         # 20 of 60 lines
    long_line = normal.replace("\n", " ") + " " + " ".join(normal.split()[:60])
    texts, reasons = kept(Repetition(), normal, lines, long_line, "one line", "")
    assert texts == [normal, "one line", ""]
    assert reasons[0] == "33% of its lines repeat an earlier line"
    assert reasons[1].endswith("of its characters repeat ten words in a row")


def test_the_repeated_share_is_that_of_the_characters_in_repeated_runs():
    assert repeated_share("a b c a b d".split(), 2) == pytest.approx(4 / 6)
    assert repeated_share("a b c d".split(), 2) == 0
    assert repeated_share(["a"], 2) == 0


@example(words=["a"] * 5, n=2)          # the runs overlap
@given(words=st.lists(st.sampled_from(["a", "üü", "🙂"]), max_size=30), n=st.integers(1, 4))
def test_the_repeated_share_is_that_of_a_naive_count(words, n):
    runs = [words[i:i + n] for i in range(len(words) - n + 1)]
    inside = {i + k for i, run in enumerate(runs) if runs.count(run) > 1 for k in range(n)}
    expected = sum(len(words[i]) for i in inside) / max(1, len("".join(words)))
    assert repeated_share(words, n) == pytest.approx(expected)


def test_boilerplate_cuts_long_lines_that_stood_in_earlier_documents():
    menu = "Please accept all cookies before reading"
    texts = [f"{menu}\ntext {i}\nshort line\n" for i in range(4)]
    results, _ = kept(Boilerplate(documents=2, length=20), *texts)
    assert results[:2] == texts[:2]
    assert results[2:] == ["text 2\nshort line\n", "text 3\nshort line\n"]


def test_a_line_that_one_document_repeats_is_no_boilerplate():
    text = "a line of more than twenty characters\n" * 5
    # Only one earlier document has the line.
    assert kept(Boilerplate(documents=2), text, text)[0] == [text, text]


def test_a_document_of_boilerplate_alone_is_rejected():
    menu = "Please accept all cookies before reading\n"
    texts, reasons = kept(Boilerplate(documents=1), menu, menu, "", "\n")
    assert texts == [menu, "", "\n"]
    assert reasons == ["all of its lines stood in earlier documents"]


def test_boilerplate_forgets_lines_but_not_those_that_it_cuts():
    menu = "Please accept all cookies before reading\n"
    step = Boilerplate(documents=2, most_lines=50)
    kept(step, menu + "first\n", menu + "second\n")
    for i in range(500):
        step(*make(f"a line with the number {i} and more\n"))
        assert len(step.counts) <= 50
    assert kept(step, menu + "third\n")[0] == ["third\n"]


def test_the_frame_of_project_gutenberg_is_cut():
    book = ("Title\n*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n\n  Once upon a time.\n\n"
            "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\nLicence\n")
    cleaning = clean(make(book), [Boilerplate()])
    text = next(iter(cleaning)).text
    assert text == "  Once upon a time.\n"
    assert cleaning.rows[0].characters == len(book) - len(text)


def test_language_rejects_other_languages_and_names_them():
    texts, reasons = kept(Language("en"), ENGLISH * 3, GERMAN * 3, ARABIC * 3, THAI * 3, "Nein!",
                          EMOJI, "1, 2.5\n" * 90)
    # The last three have too few letters.
    assert texts == [ENGLISH * 3, "Nein!", EMOJI, "1, 2.5\n" * 90]
    assert reasons == [f"its language is {name}" for name in ("de", "ar", "th")]


# Copies -------------------------------------------------------------------------------------------

def test_exact_duplicates_may_differ_in_white_space():
    texts, reasons = kept(ExactDuplicates(), "a b\nc", "a  b c\n", "a b d")
    assert texts == ["a b\nc", "a b d"]
    assert reasons == ["the same text as 0.txt"]


@given(a=st.sets(st.integers(0, 20)), b=st.sets(st.integers(0, 20)))
def test_jaccard_is_symmetric_and_1_only_for_equal_sets(a, b):
    similarity = jaccard(a, b)
    assert similarity == jaccard(b, a) and 0 <= similarity <= 1
    assert (similarity == 1) == (a == b and bool(a))


def test_shingles_of_thai_and_chinese_are_made_of_characters():
    assert len(shingles(THAI, 5)) > 40
    assert shingles("苹果很甜的", 2) == {("苹", "果"), ("果", "很"), ("很", "甜"), ("甜", "的")}
    assert shingles("two words", 5) == {("two", "words")}
    assert shingles("a 苹果 pie", 2) == {("a", "苹"), ("苹", "果"), ("果", "pie")}


def test_one_foreign_character_changes_only_the_shingles_around_it():
    text = " ".join(f"word{i}" for i in range(100))
    assert jaccard(shingles(text), shingles("苹 " + text)) > 0.95


def heap_with_copies(n=240, seed=3):
    """Return documents of random words. Some are copies of an earlier one with a few new words."""
    rng = random.Random(seed)
    words = [f"word{i}" for i in range(3000)]
    texts = [rng.choices(words, k=150) for _ in range(n)]
    for i in range(0, n // 4):
        copy = list(texts[i])
        for place in rng.sample(range(150), rng.randrange(1, 12)):
            copy[place] = rng.choice(words)
        texts.append(copy)
    return make(*(" ".join(text) for text in texts))


def test_near_duplicates_are_those_that_all_pairs_give():
    heap = heap_with_copies()
    sets = [shingles(document.text) for document in heap]
    threshold = 0.6
    expected, stays = set(), []
    for j, document in enumerate(heap):
        if any(jaccard(sets[i], sets[j]) >= threshold for i in stays):
            expected.add(document.source)
        else:
            stays.append(j)
    step = NearDuplicates(threshold)
    found = {d.source for d in heap if isinstance(step(d), Reject)}
    assert 20 < len(expected) < 60          # some copies have too many new words
    assert found <= expected                # every candidate was verified
    assert len(found) >= 0.95 * len(expected)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_minhash_estimates_the_similarity(share):
    """The standard error with 128 functions is at most 0.045. Four times that never happens."""
    step, rng = NearDuplicates(), random.Random(5)
    words = [f"word{i}" for i in range(400)]
    texts = [" ".join(words), " ".join("x" if rng.random() < share else w for w in words)]
    first, second = [step.signature(step.hashes(text)) for text in texts]
    true = jaccard(*map(shingles, texts))
    assert 0.05 < true < 0.95
    assert first.jaccard(second) == pytest.approx(true, abs=0.18)


def test_at_the_threshold_97_percent_of_the_pairs_are_candidates():
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.575, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0):
        index = NearDuplicates(threshold).index
        # The probability that at least one of b bands of r numbers is equal (Leskovec et al.,
        # Mining of Massive Datasets, chapter 3).
        assert 1 - (1 - threshold ** index.r) ** index.b >= 0.97, threshold


def test_a_long_document_gives_the_signature_in_batches():
    text = " ".join(map(str, range(500)))
    whole, parts = NearDuplicates(), NearDuplicates()
    parts.BATCH = 7
    assert parts.signature(parts.hashes(text)) == whole.signature(whole.hashes(text))


def test_candidates_are_verified():
    """datasketch alone gives candidates below the threshold."""
    heap = heap_with_copies()
    index = datasketch.MinHashLSH(0.5, 128, weights=(0.1, 0.9))
    sets = [shingles(document.text) for document in heap]
    signatures = []
    for i, runs in enumerate(sets):
        signature = datasketch.MinHash(128)
        signature.update_batch([" ".join(run).encode() for run in runs])
        index.insert(i, signature)
        signatures.append(signature)
    wrong = [(i, j) for i, signature in enumerate(signatures) for j in index.query(signature)
             if jaccard(sets[i], sets[j]) < 0.6]
    assert wrong


def test_a_near_copy_names_its_original_and_the_similarity():
    words = [f"word{i}" for i in range(100)]
    original, copy = " ".join(words), " ".join([*words[:-1], "other"])
    _, reasons = kept(NearDuplicates(0.9), original, copy)
    assert reasons == [f"similarity {95 / 97:.2f} with 0.txt"]


def test_near_copies_of_thai_texts_are_found():
    rng = random.Random(2)
    letters = THAI
    text = "".join(rng.choices(letters, k=300))
    changed = text[:150] + "ก" + text[151:]
    other = "".join(rng.choices(letters, k=300))
    texts, reasons = kept(NearDuplicates(0.8), text, changed, other)
    assert texts == [text, other] and len(reasons) == 1


@pytest.mark.parametrize(("n", "n_words", "threshold"),
                         [(40, 50, 0.8), (10, 2000, 0.8), (40, 50, 0.3)])
def test_the_counted_memory_is_about_what_near_duplicates_take(n, n_words, threshold):
    rng = random.Random(1)
    heap = make(*(" ".join(f"{rng.randrange(10**6)}" for _ in range(n_words)) for _ in range(n)))
    step = NearDuplicates(threshold)
    step(*make("The first document makes the index."))
    tracemalloc.start()
    try:
        for document in heap:
            step(document)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.7 * taken < step.n_bytes < 2 * taken


def test_different_texts_have_fewer_runs_of_words_in_common_than_runs_of_characters():
    text = load_corpus("python_docs").text
    halves = text[:100_000], text[-100_000:]
    characters = [{half[i:i + 5] for i in range(len(half))} for half in halves]
    assert 2 * jaccard(*map(shingles, halves)) < jaccard(*characters)


def test_near_duplicates_stop_at_their_memory_limit():
    step = NearDuplicates(max_bytes=50_000)
    message = r"its memory of max_bytes=50,000 at (\d+).txt, after \1 documents"
    with pytest.raises(DataError, match=message):
        for document in heap_with_copies():
            step(document)
