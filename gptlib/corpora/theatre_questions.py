"""Questions about plays of the Little Theatre, with exact answers (chapter 11).

>>> conversation = next(conversations(level=2, seed=3))
>>> for role, text in conversation:
...     print(f"{role}: {text}")
system: King and Hen meet in the harbour at sunset.
[Between King and Hen lies a ring.]
  King: (he nods)
  Hen: Dear King, I dream of the ring.
question: What lies there?
answer: A ring.
question: Who speaks first?
answer: King.
question: What is two and three?
answer: Five.

The system text is a play without its closing line. The program finds the facts of the play, so each
right answer is known, and right and wrong answers can be counted. KINDS says what a question can
ask for. Six kinds of answers stand in the play. The other two follow from what all plays have in
common.
"""

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from gptlib.checks import at_least, between, check_arguments, short
from gptlib.config import ConfigError
from gptlib.corpora.chat import Conversation
from gptlib.corpora.theatre import ACTORS, DEEDS, NUMBERS, PLACES, THINGS, TIMES, plays
from gptlib.data import DataError

# The kinds of questions. Level 1 has no thing.
KINDS = {
    "place": "where the play is",
    "time": "what time it is",
    "thing": "what lies between the two actors",
    "first": "who speaks first",
    "last": "who speaks last",
    "who": "who says or does something",
    "sum": "the sum of two numbers, which the play does not tell",
    "pronoun": "whether an actor is he or she, which the play may not tell",
}

# A speaker says or does these things. The pattern finds them in the line of a speech.
ACTS = {deed: rf"\W{deed}\b" for deed in DEEDS} | {
    "counts": "^Count:", "dreams": "I dream", "asks": "^Where is",
}


# The kinds of the arguments that two functions below have. Few scenes are shorter than 150.
OPTIONS = {"level": (1, 2), "seed": at_least(0), "longest": at_least(150)}


class Question(NamedTuple):
    """A question, its exact answer, and the kind of the question."""

    kind: str
    text: str
    answer: str


def scene(play: str) -> str:
    """Return a play without its last line, "[Exeunt …]", which repeats some of the facts."""
    return play.strip().rpartition("\n")[0]


def speeches(play: str) -> list[tuple[str, str]]:
    """Return the speeches of a play as pairs: the speaker, and the line."""
    return re.findall(r"^  (\w+): (.*)$", play, re.MULTILINE)


@check_arguments(play=str, rng=random.Random)
def questions(play: str, rng: random.Random) -> list[Question]:
    """Return one or more questions of each kind that the play allows.

    Raises:
        DataError: the text is no play of level 1 or 2.
    """
    said = speeches(play)
    if not said or any(speaker not in ACTORS for speaker, _ in said):
        raise DataError(f"play={short(play)} should be a play, with speeches such as '  Owl: …'")
    opening, speakers = play.partition("\n  ")[0], [speaker for speaker, _ in said]
    found = [
        Question("place", "Where are we?", f"In the {only_word(opening, PLACES)}."),
        Question("time", "What time is it?", f"{only_word(opening, TIMES).capitalize()}."),
        Question("first", "Who speaks first?", f"{speakers[0]}."),
        Question("last", "Who speaks last?", f"{speakers[-1]}."),
        sum_question(play, rng),
        pronoun_question(rng.choice(speakers)),
    ]
    if "lies a" in opening:
        found.append(Question("thing", "What lies there?", f"A {only_word(opening, THINGS)}."))
    for act, pattern in ACTS.items():
        actors = {speaker for speaker, line in said if re.search(pattern, line)}
        if len(actors) == 1:
            found.append(Question("who", f"Who {act}?", f"{actors.pop()}."))
    return found


def only_word(text: str, words: tuple[str, ...]) -> str:
    """Return the one of the `words` that stands in the text."""
    found = [word for word in words if re.search(rf"\b{word}\b", text)]
    if len(found) != 1:
        raise DataError(
            f"the opening {short(text)} should name one of {', '.join(words)}"
        )
    return found[0]


def sum_question(play: str, rng: random.Random) -> Question:
    """Return a question for a sum that the play does not tell."""
    pairs = [(i, j) for i in range(1, 6) for j in range(1, 6)
             if f"{NUMBERS[i]} and {NUMBERS[j]} make" not in play]
    i, j = rng.choice(pairs)
    text = f"What is {NUMBERS[i]} and {NUMBERS[j]}?"
    return Question("sum", text, f"{NUMBERS[i + j].capitalize()}.")


def pronoun_question(actor: str) -> Question:
    return Question("pronoun", f"Is {actor} he or she?", f"{ACTORS[actor].capitalize()}.")


def scenes(level: int, seed: int, longest: int) -> Iterator[str]:
    """Yield the scenes of one play after another. Longer ones than `longest` are left out."""
    return (text for text in map(scene, plays(level, seed)) if len(text) <= longest)


@check_arguments(ConfigError, n_questions=between(1, 6), **OPTIONS)
def conversations(
    level: int = 2, seed: int = 1, n_questions: int = 3, longest: int = 180
) -> Iterator[Conversation]:
    """Yield conversations without end: a scene, and questions of different kinds with answers.

    Args:
        level: 1 or 2.
        n_questions: at most 6.
        longest: characters of a scene, at least 150. Longer scenes are left out.
    """
    rng = random.Random(seed)
    for text in scenes(level, seed, longest):
        asked = questions(text, rng)
        rng.shuffle(asked)
        # One question of each kind.
        by_kind = {question.kind: question for question in asked}
        turns = [("system", text)]
        for kind in rng.sample(list(by_kind), n_questions):
            turns += [("question", by_kind[kind].text), ("answer", by_kind[kind].answer)]
        yield turns


@check_arguments(ConfigError, n=at_least(1), **OPTIONS)
def exam(
    n: int, level: int = 2, seed: int = 1, longest: int = 180
) -> dict[str, list[Conversation]]:
    """Return `n` conversations with a single question for each kind of question."""
    rng = random.Random(seed)
    by_kind = {}
    for text in scenes(level, seed, longest):
        asked = questions(text, rng)
        rng.shuffle(asked)
        for question in {question.kind: question for question in asked}.values():
            conversation = [("system", text), ("question", question.text),
                            ("answer", question.answer)]
            by_kind.setdefault(question.kind, []).append(conversation)
        if all(len(found) >= n for found in by_kind.values()):
            return {kind: by_kind[kind][:n] for kind in KINDS if kind in by_kind}
