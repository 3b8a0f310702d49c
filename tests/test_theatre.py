import math
import random
import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib import load_corpus
from gptlib.config import ConfigError
from gptlib.corpora import theatre
from gptlib.corpora.theatre import (
    END,
    KINDS,
    LEVELS,
    LINES,
    Ungrammatical,
    entropy,
    generate,
    grammar,
    mean_length,
    plays,
    score,
    whole_plays,
)

levels = pytest.mark.parametrize("level", LEVELS)


# The grammar


def reachable_slots(level):
    """Return every (slot name, text after it) that a play of that level can contain."""
    found = set()
    templates = [theatre.play_template(level)]
    while templates:
        for name, after in theatre.parse(templates.pop()):
            if (name, after) not in found:
                found.add((name, after))
                templates += grammar(level)[name].follow.values()
    return found


@levels
def test_options_are_prefix_free_with_every_text_that_can_come_after_them(level):
    slots = grammar(level)
    reachable = reachable_slots(level)
    assert {name for name, _ in reachable} - {""} <= set(slots) and len(reachable) > 15
    for name, after in reachable:
        text_after = "" if slots[name].follow else after
        texts = {option + text_after for option in slots[name].options}
        for a in texts:
            assert not [b for b in texts if a != b and b.startswith(a)], name


def test_a_choice_whose_options_are_not_prefix_free_is_an_error():
    allowed = (("bird", 0.5), ("birds", 0.5))
    with pytest.raises(ValueError, match="not prefix-free: 'birds' begins with 'bird'"):
        theatre.make_choice(("bird", "birds"), "choice", allowed, "")


@levels
def test_allowed_options_agree_with_what_the_slot_declares(level, monkeypatch):
    rng = random.Random(level)
    seen = set()
    allowed_options = theatre.allowed_options

    def check(slot, memory):
        allowed = allowed_options(slot, memory)
        assert {option for option, _ in allowed} <= set(slot.options)
        assert set(slot.follow) <= set(slot.options) and slot.kind in KINDS
        assert slot.allowed is None or len(allowed) == slot.n_allowed
        assert slot.allowed is None or slot.probabilities is None
        assert sum(p for _, p in allowed) == pytest.approx(1, abs=1e-12)
        seen.add(slot.options)
        return allowed

    monkeypatch.setattr(theatre, "allowed_options", check)
    for _ in range(200):
        theatre.run_play(level, lambda choice: rng.randrange(len(choice.texts)))
    assert seen == {grammar(level)[name].options for name, _ in reachable_slots(level)}


def test_each_level_contains_the_one_below():
    texts = {level: generate(50_000, level) for level in LEVELS}
    kinds = {level: set(score(texts[level], level).kinds) for level in LEVELS}
    lines = {
        level: {line for line, (lowest_level, _) in LINES.items() if lowest_level <= level}
        for level in LEVELS
    }
    for level in (1, 2):
        assert set(texts[level]) < set(texts[level + 1])
        assert lines[level] < lines[level + 1]
        assert kinds[level] < kinds[level + 1]
        assert mean_length(level) < mean_length(level + 1)
    names = [{KINDS[kind] for kind in kinds[level]} for level in LEVELS]
    assert names == [set(KINDS[:6]), set(KINDS[:8]), set(KINDS)]


@pytest.mark.parametrize("level", [0, 4, "2"])
def test_an_unknown_level_is_an_error(level):
    message = (
        r"level=.* should be 1 \(no recall\), 2 \(speakers and one fact\) or 3 \(everything\)"
    )
    with pytest.raises(ConfigError, match=message):
        generate(10, level)


# Probabilities


def write_random_play(level, rng):
    """Return a play, and the index picked at each choice. All options are equally probable."""
    texts, indices = [], []

    def pick(choice):
        indices.append(rng.randrange(len(choice.texts)))
        texts.append(choice.texts[indices[-1]])
        return indices[-1]

    theatre.run_play(level, pick)
    return "".join(texts), indices


def read_play(level, text):
    """Return the index of the only matching option at each choice, and the characters read."""
    indices, position = [], 0

    def pick(choice):
        nonlocal position
        matches = [i for i, t in enumerate(choice.texts) if text.startswith(t, position)]
        assert len(matches) == 1
        indices.append(matches[0])
        position += len(choice.texts[matches[0]])
        return matches[0]

    theatre.run_play(level, pick)
    return indices, position


@levels
def test_each_play_can_be_written_in_one_way_only(level):
    rng = random.Random(level)
    for _ in range(30):
        text, indices = write_random_play(level, rng)
        assert read_play(level, text) == (indices, len(text))


@levels
def test_the_score_is_the_product_of_the_probabilities_of_the_authors_choices(level):
    rng = random.Random(5)
    texts, nats = [], 0.0

    def pick(choice):
        nonlocal nats
        probabilities = np.diff([0, *choice.cumulative])
        index = rng.choices(range(len(choice.texts)), probabilities)[0]
        nats -= math.log(probabilities[index])
        texts.append(choice.texts[index])
        return index

    for _ in range(100):
        theatre.run_play(level, pick)
    assert score("".join(texts), level).nats == pytest.approx(nats, abs=1e-9)


@levels
def test_the_probabilities_of_the_next_character_sum_to_one(level):
    text = next(plays(level, seed=4))
    alphabet = sorted(set(generate(20_000, level)))
    for n in range(0, len(text), 3):
        total = 0.0
        for character in alphabet:
            try:
                total += math.exp(score(text[:n] + character, level).logp[-1])
            except Ungrammatical as error:
                assert error.position == n
                assert character not in error.expected and text[n] in error.expected
        assert total == pytest.approx(1, abs=1e-12), n


@levels
def test_the_score_of_a_character_does_not_depend_on_later_characters(level):
    text = generate(500, level)
    whole = score(text, level)
    for n in range(0, len(text), 7):
        part = score(text[:n], level)
        assert np.array_equal(part.logp, whole.logp[:n])
        assert np.array_equal(part.kinds, whole.kinds[:n])


# entropy and mean_length


@levels
def test_entropy_and_mean_length_agree_with_measured_means(level):
    text = generate(1_000_000, level, seed=2)
    scored = score(text, level)
    nats = -np.add.reduceat(scored.logp, scored.starts)
    lengths = np.diff([*scored.starts, len(text)])
    for computed, measured in ((entropy(level), nats), (mean_length(level), lengths)):
        standard_error = measured.std(ddof=1) / math.sqrt(len(measured))
        assert standard_error < 0.007 * computed
        assert abs(measured.mean() - computed) < 2 * standard_error


def test_the_entropy_of_level_1_agrees_with_a_calculation_by_hand():
    ln = math.log
    # Two nouns of 16 (singular or plural), one of three words of place, one of six verbs.
    sentence = 2 * ln(16) + ln(3) + ln(6)
    # x = the entropy of "close (0.6) or open one of two nested brackets (0.2 each)"
    #     + 0.4 (ln 5 for the nested deed + x), solved for x.
    nested = (-0.6 * ln(0.6) - 0.4 * ln(0.2) + 0.4 * ln(5)) / 0.6
    deed = ln(5) + nested
    count = 2 * ln(5)
    # The weights of the three lines are 3, 2 and 1, so of 6 in all.
    which_line = ln(6) - (3 * ln(3) + 2 * ln(2)) / 6
    line = which_line + (3 * sentence + 2 * deed + count) / 6
    # Two speeches, and one more on average: 2 ln 2 is the entropy of how many more.
    play = ln(4) + ln(6) + 3 * (ln(10) + line) + 2 * ln(2)
    assert entropy(1) == pytest.approx(play, abs=1e-9)


# Kinds


def test_each_character_has_the_kind_of_its_reason():
    """Below each line stand its kinds, one letter for each character.

    c(hoice), s(pelling), f(orm), a(greement), b(racket), + (sum), t(urn), F(act), w(ho), r(hyme).
    """
    play = """\
Fox and Owl meet in the tower at noon.
cssffffftssfffffffffffffcssssffffcsssff
[Owl has a golden ring.]
fwssfffffffcsssssfcsssfff
  Fox: (he nods [and bows])
fftssffcasfcsssbbsssscsssbbf
  Owl: The child near the dogs sings.
fftssffcsssccsssccsssfffffcsscfcsssaff
  Fox: Who has the ring?
cstssffcscsssssssssFsssff
  Owl: I have the golden ring.
fftssffwffffffffffFsssssfFsssff
  Fox: Count: two and one make three.
cstssffcssssssccsfffffcssffffff++sssff
  Owl: Let Fox have the ring.
cstssffcssswssffffffffffFsssff
  Fox: I met a child by the sea,
cstssffccssssssccsssffffffffccsff
    who told me stories of the key.
fffffffffffffffffffffffffffffffrrsff
[Exeunt. Fox keeps the golden ring. So ends noon in the tower.]
cffffffffwssfffffffffffFsssssfFsssffffffffffFsssffffffffFssssfff
""".splitlines()
    letters = dict(zip(KINDS, "csfab+tFwr", strict=True))
    text = "".join(line + "\n" for line in play[::2])
    found = iter(letters[KINDS[kind]] for kind in score(text).kinds)
    for line, expected in zip(play[::2], play[1::2], strict=True):
        # The kind of the line end stands last.
        assert (line, "".join(islice(found, len(line) + 1))) == (line, expected)


# Texts that are no plays


edits = st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.text(" .:[FOWbird", max_size=3))


def first_difference(a, b):
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))


@levels
@given(seed=st.integers(0, 20), edits=st.lists(edits, min_size=1, max_size=3))
def test_an_edited_play_is_a_play_or_has_a_first_wrong_character(level, seed, edits):
    text = original = next(plays(level, seed))
    for position, n_deleted, inserted in edits:
        position %= len(text)
        text = text[:position] + inserted + text[position + n_deleted:]
    try:
        scored = score(text, level)
    except Ungrammatical as error:
        assert error.position >= first_difference(text, original)
        check_first_wrong_character(text, level, error)
    else:
        assert len(scored.logp) == len(text)
        assert np.isfinite(scored.logp).all() and (scored.logp <= 0).all()


def check_first_wrong_character(text, level, error):
    """Assert that the text is right up to the position, and that `expected` is right there."""
    assert text[error.position] not in error.expected
    for character in error.expected:
        corrected = text[:error.position] + character
        assert np.isfinite(score(corrected, level).logp[-1])
    with pytest.raises(Ungrammatical):
        score(text[:error.position + 1], level)


def test_the_error_names_the_wrong_character_and_the_right_one():
    message = (
        r"character 39, 't' after 'n in the garden.\\n  Fox: The ca', is in no play of level 1: "
        "'n' would be right"
    )
    with pytest.raises(Ungrammatical, match=message):
        score("It is noon in the garden.\n  Fox: The cat sings.\n", level=1)


# Texts of many plays


def test_a_longer_text_of_the_same_seed_begins_with_the_shorter_one():
    long, short = generate(5000, seed=3), generate(1000, seed=3)
    assert long.startswith(short)
    assert 1000 <= len(short) < 2000 <= len(long)
    assert generate(1000, seed=4) != short
    assert short == "".join(islice(plays(3, seed=3), short.count(END)))
    assert generate(0) == ""


@levels
def test_an_empty_line_stands_at_the_end_of_each_play_and_nowhere_else(level):
    text = generate(20_000, level)
    after_empty_lines = [n + 2 for n in range(len(text) - 2) if text.startswith(END, n)]
    assert score(text, level).starts.tolist() == [0, *after_empty_lines]
    assert text.endswith(END)


def test_whole_plays_removes_unfinished_plays():
    text = generate(3000)
    first, second = score(text).starts[1:3]
    assert whole_plays(text[5:]) == whole_plays(text) == text[first:]
    assert whole_plays(text[5:second + 7]) == text[first:second]
    assert whole_plays(text[5:first]) == whole_plays(text[5:20]) == whole_plays("") == ""


def test_a_split_that_begins_within_a_play_is_scored_by_slicing():
    text = load_corpus("theatre2").text
    cut = int(0.9 * len(text))
    logp = score(text, level=2).logp
    next_play = text.index(END, cut) + len(END)
    nats_of_rest = score(text[next_play:], level=2).nats
    expected = logp[cut:next_play].sum() - nats_of_rest
    assert logp[cut:].sum() == pytest.approx(expected, abs=1e-9)


def test_writing_and_scoring_a_million_characters_take_less_than_10_seconds_each():
    start = time.process_time()
    text = generate(1_000_000)
    written = time.process_time()
    score(text)
    scored = time.process_time()
    assert len(text) >= 1_000_000
    assert written - start < 10 and scored - written < 10


@pytest.mark.parametrize("name, level", [("theatre", 3), ("theatre2", 2), ("theatre1", 1)])
def test_the_corpora_are_texts_of_the_theatre(name, level):
    corpus = load_corpus(name)
    assert corpus.name == name and len(corpus.text) >= 1_000_000
    assert corpus.text.startswith(generate(5000, level))
