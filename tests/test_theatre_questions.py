"""Questions about plays have exact answers, which a reader of the play can check."""

import random
from itertools import islice

import pytest

from gptlib.config import ConfigError
from gptlib.corpora import theatre
from gptlib.corpora.chat import chat_rows, chat_tokenizer
from gptlib.corpora.theatre_questions import (
    KINDS,
    conversations,
    exam,
    questions,
    scene,
    speeches,
)
from gptlib.data import DataError
from gptlib.tokenizer import CharTokenizer

PLAY = """Owl and Raven meet in the meadow at noon.
[Between Owl and Raven lies a mirror.]
  Owl: (she nods [and turns])
  Raven: Count: four and two make six.
  Owl: Where is the mirror, Raven?
[Exeunt Owl and Raven with the mirror.]

"""
LEVEL_1 = """It is midnight in the tower.
  Bear: The birds by the dog sing.
  Bear: (he weeps)
  King: (he weeps <and bows>)
[Exeunt.]

"""


def asked(play, seed=1):
    """Return questions and answers, without those that are drawn at random."""
    found = questions(play, random.Random(seed))
    return {q.text: q.answer for q in found if q.kind not in ("sum", "pronoun")}


def test_the_answers_about_a_play_of_level_2():
    assert asked(PLAY) == {
        "Where are we?": "In the meadow.", "What time is it?": "Noon.",
        "What lies there?": "A mirror.", "Who speaks first?": "Owl.", "Who speaks last?": "Owl.",
        "Who nods?": "Owl.", "Who turns?": "Owl.", "Who counts?": "Raven.", "Who asks?": "Owl.",
    }


def test_nobody_is_asked_for_if_two_actors_do_the_same():
    assert asked(LEVEL_1) == {
        "Where are we?": "In the tower.", "What time is it?": "Midnight.",
        "Who speaks first?": "Bear.", "Who speaks last?": "King.", "Who bows?": "King.",
    }


def test_a_scene_is_a_play_without_its_closing():
    assert scene(PLAY) == PLAY.partition("\n[Exeunt")[0]
    assert speeches(PLAY) == speeches(scene(PLAY))
    assert theatre.score(scene(PLAY), level=2).nats > 0        # the beginning of a play


@pytest.mark.parametrize("level", [1, 2])
def test_sums_are_right_and_are_not_in_the_play(level):
    words = theatre.NUMBERS
    for conversation in exam(40, level, seed=3, longest=300)["sum"]:
        (_, play), (_, question), (_, answer) = conversation
        a, b = question.removeprefix("What is ").removesuffix("?").split(" and ")
        assert words.index(answer.lower()[:-1]) == words.index(a) + words.index(b)
        assert f"{a} and {b} make" not in play


@pytest.mark.parametrize("level", [1, 2])
def test_every_answer_but_sums_and_pronouns_stands_in_the_play(level):
    for kind, found in exam(40, level, seed=4, longest=300).items():
        for (_, play), (_, question), (_, answer) in found:
            word = answer.removesuffix(".").split()[-1]
            if kind == "pronoun":
                assert theatre.ACTORS[question.split()[1]] == word.lower()
            elif kind != "sum":
                assert word.lower() in play.lower()


@pytest.mark.parametrize("level", [1, 2])
def test_a_conversation_is_a_short_scene_and_questions_of_different_kinds(level):
    for conversation in islice(conversations(level, seed=5, n_questions=4, longest=170), 50):
        assert [role for role, _ in conversation] == ["system"] + ["question", "answer"] * 4
        assert len(conversation[0][1]) <= 170
        texts = [text for role, text in conversation if role == "question"]
        assert len(set(texts)) == 4
        right = questions(conversation[0][1] + "\n[]", random.Random(0))
        for (_, question), (_, answer) in zip(conversation[1::2], conversation[2::2], strict=True):
            same = [q.answer for q in right if q.text == question]
            assert not same or same == [answer]


def test_the_same_seed_gives_the_same_conversations_and_another_seed_gives_others():
    first = list(islice(conversations(2, seed=7), 200))
    assert first == list(islice(conversations(2, seed=7), 200))
    others = {conversation[0][1] for conversation in islice(conversations(2, seed=8), 200)}
    assert not others & {conversation[0][1] for conversation in first}
    assert exam(5, seed=7) == exam(5, seed=7) != exam(5, seed=8)


@pytest.mark.parametrize("level", [1, 2])
def test_an_exam_has_the_same_number_of_questions_of_every_kind(level):
    found = exam(20, level, seed=9)
    expected = [kind for kind in KINDS if level > 1 or kind != "thing"]
    assert {kind: len(conversations) for kind, conversations in found.items()} == dict.fromkeys(
        expected, 20)
    assert all(len(conversation) == 3 for part in found.values() for conversation in part)


def test_conversations_fit_into_rows():
    tokenizer = chat_tokenizer(CharTokenizer("\n" + "".join(map(chr, range(32, 127)))))
    found = list(islice(conversations(2, seed=1), 20))
    assert (chat_rows(tokenizer, found, 320)[1] >= 0).sum(1).min() > 10


@pytest.mark.parametrize("play", [
    "", "Owl", PLAY.replace("meadow", "desert"), PLAY.replace("noon", "noon in the garden"),
    PLAY.replace("mirror", "sword"), PLAY.replace("Raven:", "Ghost:"), PLAY.replace("  ", ""),
])
def test_a_text_that_is_no_play_is_an_error(play):
    with pytest.raises(DataError, match="should be a play|should name one of"):
        questions(play, random.Random(0))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: next(conversations(level=4)), "level=4 should be one of 1, 2"),
    (lambda: next(conversations(n_questions=0)), "n_questions=0 should be between 1 and 6"),
    (lambda: next(conversations(n_questions=9)), "n_questions=9 should be between 1 and 6"),
    (lambda: next(conversations(longest=20)), "longest=20 should be at least 150"),
    (lambda: next(conversations(seed=-1)), "seed=-1 should be at least 0"),
    (lambda: exam(0), "n=0 should be at least 1"),
    (lambda: exam(5, longest=20), "longest=20 should be at least 150"),
])
def test_a_bad_value_is_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
