import math
import random
import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib import load_corpus, theatre
from gptlib.config import ConfigError
from gptlib.theatre import END, KINDS, LEVELS, LINES, Ungrammatical, entropy, generate, grammar, mean_length, plays, score, whole_plays

levels = pytest.mark.parametrize("level", LEVELS)


def reachable(level):
    """Every (slot, the text after it) that a play of that level can come to."""
    found, templates = set(), [theatre.play_template(level)]
    while templates:
        for name, after in theatre.parse(templates.pop()):
            if (name, after) not in found:
                found.add((name, after))
                templates += grammar(level)[name].follow.values()
    return found


@levels
def test_no_option_begins_another_wherever_it_can_stand(level):
    slots, places = grammar(level), reachable(level)
    assert {name for name, _ in places} - {""} <= set(slots) and len(places) > 15
    for name, after in places:
        texts = {word + ("" if slots[name].follow else after) for word in slots[name].among}
        assert not [(a, b) for a in texts for b in texts if a != b and b.startswith(a)], name


def test_a_choice_between_strings_that_begin_each_other_is_refused():
    with pytest.raises(ValueError, match="not prefix-free: 'bird' begins 'birds'"):
        theatre.make_choice(("bird", "birds"), "choice", (("bird", 0.5), ("birds", 0.5)), "")


@levels
def test_what_can_stand_in_a_slot_is_what_the_slot_declares(level, monkeypatch):
    rng, seen, possibilities = random.Random(level), set(), theatre.possibilities

    def look(slot, memory):
        options = possibilities(slot, memory)
        assert {word for word, _ in options} <= set(slot.among) and set(slot.follow) <= set(slot.among) and slot.kind in KINDS
        assert not callable(slot.options) or len(options) == slot.n
        assert sum(p for _, p in options) == pytest.approx(1, abs=1e-12)
        seen.add(slot.among)
        return options
    monkeypatch.setattr(theatre, "possibilities", look)
    for _ in range(200):
        theatre.perform(level, lambda choice: rng.randrange(len(choice.texts)))
    assert seen == {grammar(level)[name].among for name, _ in reachable(level)}


@levels
def test_each_play_comes_about_in_one_way(level):
    """A reader who tries every option at every choice finds one that fits, and so arrives at the writer's own choices."""
    rng = random.Random(level)
    for _ in range(30):
        written, decisions, position = [], [], 0

        def write(choice, written=written, decisions=decisions):
            decisions.append(rng.randrange(len(choice.texts)))
            written.append(choice.texts[decisions[-1]])
            return decisions[-1]
        theatre.perform(level, write)
        text, found = "".join(written), []

        def read(choice, text=text, found=found):
            nonlocal position
            fits = [i for i, option in enumerate(choice.texts) if text.startswith(option, position)]
            assert len(fits) == 1
            found.append(fits[0])
            position += len(choice.texts[fits[0]])
            return fits[0]
        theatre.perform(level, read)
        assert found == decisions and position == len(text)


@levels
def test_the_score_is_the_sum_that_the_writer_paid(level):
    rng, written, paid = random.Random(5), [], 0.0

    def write(choice):
        nonlocal paid
        i = rng.choices(range(len(choice.texts)), np.diff([0, *choice.cumulative]))[0]
        paid -= math.log(choice.cumulative[i] - (choice.cumulative[i - 1] if i else 0))
        written.append(choice.texts[i])
        return i
    for _ in range(100):
        theatre.perform(level, write)
    assert score("".join(written), level).nats == pytest.approx(paid, abs=1e-9)


@levels
def test_the_next_characters_probabilities_sum_to_one_and_name_what_is_right(level):
    text = next(plays(level, seed=4))
    alphabet = sorted(set(generate(20_000, level)))
    for n in range(0, len(text), 3):
        total = 0.0
        for character in alphabet:
            try:
                total += math.exp(score(text[:n] + character, level).logp[-1])
            except Ungrammatical as error:
                assert error.position == n and character not in error.expected and text[n] in error.expected
        assert total == pytest.approx(1, abs=1e-12), n


@levels
def test_a_characters_score_does_not_depend_on_what_follows(level):
    text = generate(500, level)
    whole = score(text, level)
    for n in range(0, len(text), 7):
        part = score(text[:n], level)
        assert np.array_equal(part.logp, whole.logp[:n]) and np.array_equal(part.kinds, whole.kinds[:n])


@levels
def test_the_closed_forms_are_what_plays_cost_and_measure(level):
    text = generate(1_000_000, level, seed=2)
    scored = score(text, level)
    nats, lengths = -np.add.reduceat(scored.logp, scored.starts), np.diff([*scored.starts, len(text)])
    for closed, measured in ((entropy(level), nats), (mean_length(level), lengths)):
        error = measured.std(ddof=1) / math.sqrt(len(measured))
        assert error < 0.007 * closed and abs(measured.mean() - closed) < 2 * error


def test_the_entropy_of_level_1_by_hand():
    ln = math.log
    agreement = 2 * ln(16) + ln(3) + ln(6)                                      # two nouns, one or many; where; the verb
    after_a_deed = (-0.6 * ln(0.6) - 0.4 * ln(0.2) + 0.4 * ln(5)) / 0.6         # x = H(close, or open one of two) + 0.4 (ln 5 + x)
    line = ln(6) - (3 * ln(3) + 2 * ln(2)) / 6 + (3 * agreement + 2 * (ln(5) + after_a_deed) + 2 * ln(5)) / 6
    assert entropy(1) == pytest.approx(ln(4) + ln(6) + 3 * (ln(10) + line) + 2 * ln(2), abs=1e-9)     # 2 speeches, and 1 more on average


def test_each_character_has_the_kind_of_what_decides_it():
    """Under each line its kinds: c(hoice), s(pelling), f(orm), a(greement), b(racket), + (sum), t(urn), F(act), w(ho), r(hyme)."""
    play = [
        ("Fox and Owl meet in the tower at noon.", "cssffffftssfffffffffffffcssssffffcsssff"),
        ("[Owl has a golden ring.]", "fwssfffffffcsssssfcsssfff"),
        ("  Fox: (he nods [and bows])", "fftssffcasfcsssbbsssscsssbbf"),
        ("  Owl: The child near the dogs sings.", "fftssffcsssccsssccsssfffffcsscfcsssaff"),
        ("  Fox: Who has the ring?", "cstssffcscsssssssssFsssff"),
        ("  Owl: I have the golden ring.", "fftssffwffffffffffFsssssfFsssff"),
        ("  Fox: Count: two and one make three.", "cstssffcssssssccsfffffcssffffff++sssff"),
        ("  Owl: Let Fox have the ring.", "cstssffcssswssffffffffffFsssff"),
        ("  Fox: I met a child by the sea,", "cstssffccssssssccsssffffffffccsff"),
        ("    who told me stories of the key.", "fffffffffffffffffffffffffffffffrrsff"),
        ("[Exeunt. Fox keeps the golden ring. So ends noon in the tower.]",
         "cffffffffwssfffffffffffFsssssfFsssffffffffffFsssffffffffFssssfff"),
    ]
    names, text = dict(zip(KINDS, "csfab+tFwr", strict=True)), "".join(line + "\n" for line, _ in play)
    found = iter(names[KINDS[kind]] for kind in score(text).kinds)
    assert [(line, "".join(islice(found, len(line) + 1))) for line, _ in play] == play


edits = st.tuples(st.integers(0, 10 ** 6), st.integers(0, 3), st.text(alphabet=" .:[FOWbird", max_size=3))


@levels
@given(st.integers(0, 20), st.lists(edits, min_size=1, max_size=3))
def test_an_edited_play_is_another_play_or_breaks_at_a_named_character(level, seed, edits):
    text = original = next(plays(level, seed))
    for where, gone, new in edits:
        where %= len(text)
        text = text[:where] + new + text[where + gone:]
    agreed = next((n for n, (a, b) in enumerate(zip(text, original, strict=False)) if a != b), min(len(text), len(original)))
    try:
        scored = score(text, level)
        assert len(scored.logp) == len(text) and np.isfinite(scored.logp).all() and (scored.logp <= 0).all()
    except Ungrammatical as error:
        assert error.position >= agreed and text[error.position] not in error.expected
        for character in error.expected:
            assert np.isfinite(score(text[:error.position] + character, level).logp[-1])
        with pytest.raises(Ungrammatical):
            score(text[:error.position + 1], level)


def test_a_broken_play_names_the_character_and_what_would_be_right():
    with pytest.raises(Ungrammatical, match=r"character 39, 't' after 'n in the garden.\\n  Fox: The ca', is in no play: 'n' would"):
        score("It is noon in the garden.\n  Fox: The cat sings.\n", level=1)


def test_levels_nest():
    text = {level: generate(50_000, level) for level in LEVELS}
    lines = {level: {template for template, (lowest, _) in LINES.items() if lowest <= level} for level in LEVELS}
    kinds = {level: set(score(text[level], level).kinds) for level in LEVELS}
    for level in (1, 2):
        assert set(text[level]) < set(text[level + 1]) and lines[level] < lines[level + 1] and kinds[level] < kinds[level + 1]
        assert mean_length(level) < mean_length(level + 1)
    assert [{KINDS[kind] for kind in kinds[level]} for level in LEVELS] == [set(KINDS[:6]), set(KINDS[:8]), set(KINDS)]


@pytest.mark.parametrize("level", [0, 4, "2"])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(ConfigError, match=r"level=.* should be 1 \(no recall\), 2 \(speakers and one fact\) or 3 \(everything\)"):
        generate(10, level)


def test_a_text_is_a_function_of_its_seed_and_grows_at_its_end():
    long, short = generate(5000, seed=3), generate(1000, seed=3)
    assert long.startswith(short) and 1000 <= len(short) < 2000 <= len(long) and generate(1000, seed=4) != short
    assert short == "".join(islice(plays(3, seed=3), short.count(END))) and generate(0) == ""


@levels
def test_a_play_ends_where_a_blank_line_is_and_only_there(level):
    text = generate(20_000, level)
    scored = score(text, level)
    assert [0, *(n + 2 for n in range(len(text) - 2) if text.startswith(END, n))] == scored.starts.tolist() and text.endswith(END)


def test_whole_plays_leaves_out_what_is_cut():
    text = generate(3000)
    first, second = score(text).starts[1:3]
    assert whole_plays(text[5:]) == whole_plays(text) == text[first:]
    assert whole_plays(text[5:second + 7]) == text[first:second]
    assert whole_plays(text[5:first]) == whole_plays(text[5:20]) == whole_plays("") == ""


def test_the_floor_of_a_split_that_begins_within_a_play_is_a_slice():
    text = load_corpus("theatre2").text
    cut = int(0.9 * len(text))
    scored = score(text, level=2)
    inside = text[cut:text.index(END, cut) + 2]
    assert scored.logp[cut:].sum() == pytest.approx(
        scored.logp[cut:cut + len(inside)].sum() - score(text[cut + len(inside):], level=2).nats, abs=1e-9)


def test_a_million_characters_are_written_and_scored_in_time():
    start = time.process_time()
    text = generate(1_000_000)
    written = time.process_time()
    score(text)
    assert len(text) >= 1_000_000 and written - start < 10 and time.process_time() - written < 10


@pytest.mark.parametrize("name, level", [("theatre", 3), ("theatre2", 2), ("theatre1", 1)])
def test_the_corpora_are_the_theatres(name, level):
    corpus = load_corpus(name)
    assert corpus.name == name and len(corpus.text) >= 1_000_000 and corpus.text.startswith(generate(5000, level))
