"""The Little Theatre: as many short plays as you like, whose exact probability is known.

For real text nobody knows the lowest possible loss. For these plays it is known, because a small
program writes them, and the program knows the probability of each character that it writes.

>>> play = next(plays(level=1, seed=30))
>>> print(play.strip())
It is noon in the forest.
  Miller: The horse near the dogs burns.
  Bear: Count: five and two make seven.
  Raven: (he nods [and turns])
[Exeunt.]
>>> round(score(play, level=1).nats, 2)     # the surprise of this play, -ln(its probability)
32.05
>>> round(entropy(level=1), 2)              # the average over all plays
33.04

The words that this file uses:

    play      A text: an opening, two or more speeches, a closing. An empty line ends it.
    level     1, 2 or 3. Level 1 needs only the present line. Level 2 adds two actors who speak in
              turn and one fact to remember. Level 3 adds more facts, an owner who changes, rhymes.
    template  A text with slots: "[{owner} has a {thing}.]"
    slot      A name in braces. The author writes one of several options there.
    option    One of the strings that can stand in a slot.
    memory    The options written so far, by slot. It decides which options are allowed next: after
              "Owl has a ring" the closing line must say "ring".
    choice    A slot at one moment: the allowed options, and the probability of each.
    kind      The reason why a character is this one and no other. See KINDS.
    score     The probability of each character of a play, as a logarithm, in nats.
    floor     The lowest mean loss that any model can have on unseen plays. It is the mean surprise
              of a play under its true probabilities: `entropy`.

Why the probability is exact: the author writes from left to right, and its only random act is to
pick an option. No option begins with another option of the same choice (they are "prefix-free"),
so a reader can see which one was picked. So each play can be written in one way only, and its
probability is the product of the probabilities of its choices.

The file has five parts: vocabulary and templates; slots; choices; writing and scoring plays;
averages over all plays. The central functions are `make_choice` and `run_play`.
"""

import math
import random
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from os.path import commonprefix

import numpy as np

from gptlib.checks import at_least, check_arguments, checked_value
from gptlib.config import ConfigError

LEVELS = (1, 2, 3)

# The empty line that ends a play. It stands nowhere else.
END = "\n\n"

# The kinds: the reasons why a character is this one and no other.
#
#     choice      Several characters are possible: the author picks one at random.
#     spelling    The word has begun, and only one word goes on like this.
#     form        Fixed text of a template.
#     agreement   A verb agrees with its noun, or a pronoun with the speaker.
#     bracket     A bracket is closed by the bracket of the same shape.
#     sum         The sum of two numbers.
#     turn        From level 2 on: whose turn it is to speak, or whom the speaker talks to.
#     fact        From level 2 on: a word that the opening has already said.
#     who         At level 3: who owns the thing now.
#     rhyme       At level 3: a word that rhymes.
KINDS = (
    "choice", "spelling", "form", "agreement", "bracket", "sum", "turn", "fact", "who", "rhyme",
)


def level_kind(name: str, value: int) -> int:
    """The kind of a level."""
    try:
        return checked_value(name, value, LEVELS)
    except ValueError:
        raise ValueError(
            f"{name}={value!r} should be 1 (no recall), 2 (speakers and one fact) or 3 (everything)"
        ) from None


# Part 1. Vocabulary and templates.
#
# A play must remember an actor, a place, a time, a look and a thing. In each of these lists all
# first letters differ. So the first letter shows whether a model remembers the word, and the other
# letters are spelling.

# Each actor and the pronoun.
ACTORS = {
    "Fox": "he", "Owl": "she", "King": "he", "Queen": "she", "Bear": "he", "Hen": "she",
    "Miller": "he", "Swan": "she", "Raven": "he", "Nurse": "she",
}
PLACES = ("forest", "garden", "harbour", "kitchen", "meadow", "tower")
TIMES = ("dawn", "noon", "sunset", "midnight")
LOOKS = ("golden", "broken", "silver", "little", "heavy", "wooden")
THINGS = ("ring", "lamp", "drum", "cup", "book", "mirror", "kettle", "violin")

# Each noun and its plural.
PLURALS = {
    "bird": "birds", "child": "children", "dog": "dogs", "flower": "flowers", "horse": "horses",
    "lady": "ladies", "sailor": "sailors", "candle": "candles",
}
VERBS = ("sing", "dream", "wander", "tremble", "laugh", "burn")
DEEDS = ("bows", "sighs", "turns", "weeps", "nods")
NEAR = ("by", "near", "behind")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)
RHYMES = (
    ("sea", "tree", "bee", "key"),
    ("day", "way", "clay", "hay"),
    ("night", "light", "kite", "height"),
    ("stone", "throne", "bone", "crone"),
    ("moon", "spoon", "dune", "tune"),
    ("star", "scar", "jar", "tar"),
)
BRACKETS = {"(": ")", "[": "]", "<": ">"}

# Templates. A slot with "=" repeats a word: {=thing} is what was written at {thing}.
OPENING = {
    1: "It is {time} in the {place}.\n",
    2: (
        "{a} and {b} meet in the {place} at {time}.\n"
        "[Between {=a} and {=b} lies a {thing}.]\n"
    ),
    3: (
        "{a} and {b} meet in the {place} at {time}.\n"
        "[{owner} has a {look} {thing}.]\n"
    ),
}
SPEECH = "  {speaker}: {line}\n"
CLOSING = {
    1: "[Exeunt.]\n\n",
    2: "[Exeunt {=a} and {=b} with the {=thing}.]\n\n",
    3: (
        "[Exeunt. {keeper} keeps the {=look} {=thing}. "
        "So ends {=time} in the {=place}.]\n\n"
    ),
}

# What an actor can say. Template: (lowest level that has it, weight).
# A line is picked with a probability in proportion to its weight.
LINES = {
    "The {noun} {near} the {noun2} {verb}.": (1, 3),
    "({pronoun} {deed}{nest or )}": (1, 2),
    "Count: {one} and {two} make {sum}.": (1, 1),
    "Dear {dear}, I dream of the {=thing}.": (2, 3),
    "Where is the {=thing}, {dear}?": (2, 3),
    "It is {=time}, and the {=place} sleeps.": (3, 2),
    "I met a {child} by the {rhyme},\n    who told me stories of the {rhyme2}.": (3, 2),
    "Who has the {=thing}?\n  {speaker}: {I} have the {=look} {=thing}.": (3, 2),
    "Let {taker} have the {=thing}.": (3, 2),
}


@check_arguments(ConfigError, level=level_kind)
def play_template(level: int) -> str:
    """Return the template of a play: an opening, two speeches, then {more} speeches or the end."""
    return OPENING[level] + 2 * SPEECH + "{more}"


@cache
def parse(template: str) -> list[tuple[str, str]]:
    """Split a template into pairs: the name of a slot, and the fixed text after it.

    If the template begins with fixed text, the first slot is "", which is empty.

    >>> parse("[{owner} has a {thing}.]")
    [('', '['), ('owner', ' has a '), ('thing', '.]')]
    """
    first, *rest = re.split(r"\{(.+?)\}", template)
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    return [("", first), *pairs] if first else pairs


# Part 2. Slots: which options can stand where.


@dataclass(frozen=True)
class Slot:
    """A slot of a template, and the rule for its options.

    A slot has one of three rules. With `allowed`, the memory decides, and the allowed options are
    equally probable. With `probabilities`, each option has a fixed probability of its own. With
    neither, all options are allowed and equally probable.
    """

    # All options that can stand here in any play. Without `probabilities`, each entry is equally
    # frequent on average over plays. An option that is twice as frequent has two entries.
    options: tuple[str, ...]

    # The kind of a character that the memory decides.
    kind: str = "choice"

    # From the memory to the options that are allowed now, and how many they are.
    allowed: Callable[[dict], Sequence[str]] | None = None
    n_allowed: int = 1

    # Option: its probability.
    probabilities: Mapping[str, float] | None = None

    # Option: a template that is written after it.
    follow: Mapping[str, str] = field(default_factory=dict)

    # The memory stores the written option under this name. "" means the slot's own name.
    remember_as: str = ""


@check_arguments(ConfigError, level=level_kind)
@cache
def grammar(level: int = 3) -> dict[str, Slot]:
    """Return all slots of plays of that level, by name."""
    slots = {"": Slot(("",)), **_opening_slots(), **_actor_slots(level), **_line_slots()}
    for name in ("a", "b", "time", "place", "look", "thing"):
        slots["=" + name] = Slot(slots[name].options, "fact", _recall(name))
    return slots | _bracket_slots() | _branch_slots(level)


def _opening_slots() -> dict[str, Slot]:
    return {
        "time": Slot(TIMES),
        "place": Slot(PLACES),
        "look": Slot(LOOKS),
        "thing": Slot(THINGS),
    }


def _actor_slots(level: int) -> dict[str, Slot]:
    """Return the slots for actors: {a} and {b} are the two actors of levels 2 and 3."""
    actors = tuple(ACTORS)
    all_but_a = lambda memory: [actor for actor in actors if actor != memory["a"]]
    next_speaker = lambda memory: [_next_speaker(memory)]
    return {
        "a": Slot(actors),
        "b": Slot(actors, "turn", all_but_a, n_allowed=len(actors) - 1),
        "owner": Slot(actors, "who", lambda memory: [memory["a"], memory["b"]], n_allowed=2),
        # The thing goes to the other actor, who is its owner from now on.
        "taker": Slot(
            actors, "who", lambda memory: [_other_than_owner(memory)], remember_as="owner"
        ),
        "keeper": Slot(actors, "who", _recall("owner")),
        "I": Slot(("I", "You"), "who", lambda memory: [_owner_as_pronoun(memory)]),
        # At level 1 anybody may speak.
        "speaker": Slot(actors, "turn", None if level == 1 else next_speaker),
        "dear": Slot(actors, "turn", next_speaker),
        "pronoun": Slot(("he", "she"), "agreement", lambda memory: [ACTORS[memory["speaker"]]]),
    }


def _line_slots() -> dict[str, Slot]:
    """Return the slots of the LINES that no other function makes."""
    plurals = tuple(PLURALS.values())
    nouns = (*PLURALS, *plurals)
    verbs_with_s = tuple(verb + "s" for verb in VERBS)
    verbs = lambda memory: VERBS if memory["noun"] in plurals else verbs_with_s
    rhymes = {
        word: [other for other in words if other != word] for words in RHYMES for word in words
    }
    return {
        "noun": Slot(nouns),
        "noun2": Slot(nouns),
        "child": Slot(tuple(PLURALS)),
        "near": Slot(NEAR),
        "verb": Slot(verbs_with_s + VERBS, "agreement", verbs, n_allowed=len(VERBS)),
        "one": Slot(NUMBERS[1:6]),
        "two": Slot(NUMBERS[1:6]),
        # Each sum stands here as often as two numbers from 1 to 5 give it.
        "sum": Slot(
            tuple(NUMBERS[i + j] for i in range(1, 6) for j in range(1, 6)), "sum", _sum_of_two
        ),
        "rhyme": Slot(tuple(rhymes)),
        "rhyme2": Slot(
            tuple(rhymes), "rhyme", lambda memory: rhymes[memory["rhyme"]], n_allowed=3
        ),
        "deed": Slot(DEEDS),
    }


def _bracket_slots() -> dict[str, Slot]:
    """Return two slots for each closing bracket, such as {nest or )} and {)}.

    {nest or )} comes after a deed. It closes the bracket with ")", or it opens a nested bracket of
    another shape: " [and " or " <and ". In the nested bracket come a deed and {nest or ]}, and
    after it {)} closes the outer bracket.
    """
    openings = {f" {left}and ": right for left, right in BRACKETS.items()}
    options = (*openings, *BRACKETS.values())
    slots = {}
    for close in BRACKETS.values():
        nested = [opening for opening in openings if openings[opening] != close]
        slots["nest or " + close] = Slot(
            options,
            "bracket",
            probabilities=_normalize({close: 3} | dict.fromkeys(nested, 1)),
            follow={
                opening: f"{{deed}}{{nest or {openings[opening]}}}{{{close}}}"
                for opening in nested
            },
        )
        slots[close] = Slot(tuple(BRACKETS.values()), "bracket", lambda _, close=close: [close])
    return slots


def _branch_slots(level: int) -> dict[str, Slot]:
    """Return the slots that decide how a play goes on: {line} and {more}.

    Their options are the beginnings of templates, up to the first slot. The rest of the template
    follows.
    """
    lines = {}
    weights = {}
    for line, (lowest_level, weight) in LINES.items():
        if lowest_level <= level:
            start = line.partition("{")[0]
            lines[start] = line.removeprefix(start)
            weights[start] = weight
    # A speech begins with two spaces, the closing with "[".
    more = {
        "  ": SPEECH.removeprefix("  ") + "{more}",
        "[": CLOSING[level].removeprefix("["),
    }
    return {
        "line": Slot(tuple(lines), probabilities=_normalize(weights), follow=lines),
        "more": Slot(tuple(more), probabilities={"  ": 0.5, "[": 0.5}, follow=more),
    }


def _normalize(weights: Mapping[str, float]) -> dict[str, float]:
    """Return probabilities in proportion to `weights`."""
    total = sum(weights.values())
    return {option: weight / total for option, weight in weights.items()}


def _recall(name: str) -> Callable[[dict], Sequence[str]]:
    """Return a rule that allows only what was written at the slot `name`."""
    return lambda memory: [memory[name]]


def _next_speaker(memory):
    """Return the actor who does not speak now. {a} speaks first."""
    return memory["b"] if memory.get("speaker") == memory["a"] else memory["a"]


def _other_than_owner(memory):
    return memory["b"] if memory["owner"] == memory["a"] else memory["a"]


def _owner_as_pronoun(memory):
    """Return the word by which the speaker names the owner of the thing."""
    return "I" if memory["speaker"] == memory["owner"] else "You"


def _sum_of_two(memory):
    return [NUMBERS[NUMBERS.index(memory["one"]) + NUMBERS.index(memory["two"])]]


# Part 3. Choices: the probability and the kind of each character.


@dataclass(frozen=True)
class Choice:
    """The allowed options of a slot, with the probability and the kind of every character."""

    # The options, and each option with the fixed text that comes after the slot.
    options: tuple[str, ...]
    texts: tuple[str, ...]

    # For each option: the sum of its probability and of all probabilities before it.
    cumulative: tuple[float, ...]

    # For each text, and for each character of it: ln p(character | the text before it), in nats.
    logp: tuple[tuple[float, ...], ...]

    # For each text, and for each character of it: the index of its kind in KINDS.
    kinds: tuple[tuple[int, ...], ...]


def allowed_options(slot: Slot, memory: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """Return the options that can stand in `slot` now, each with its probability."""
    if slot.probabilities is not None:
        return tuple(slot.probabilities.items())
    options = slot.allowed(memory) if slot.allowed else slot.options
    return tuple((option, 1 / len(options)) for option in options)


@cache
def make_choice(
    all_options: tuple[str, ...], kind: str, allowed: tuple[tuple[str, float], ...], after: str
) -> Choice:
    """Work out the probability and the kind of every character of a choice.

    Args:
        all_options: the options that can stand in the slot in any play.
        kind: the kind of the slot.
        allowed: the options that the memory allows now, each with its probability.
        after: the fixed text that comes after the slot.

    Raises:
        ValueError: one option begins with another one, so that a reader could not tell them apart.
    """
    options = tuple(option for option, _ in allowed)
    probabilities = tuple(p for _, p in allowed)
    texts = tuple(option + after for option in options)
    possible_texts = tuple({option + after for option in all_options})
    _check_prefix_free(texts)
    _check_prefix_free(possible_texts)
    logp = tuple(_logp_of_characters(text, texts, probabilities) for text in texts)
    kinds = tuple(
        _kinds_of_characters(option, after, kind, texts, possible_texts) for option in options
    )
    return Choice(options, texts, tuple(accumulate(probabilities)), logp, kinds)


def _check_prefix_free(texts: Sequence[str]) -> None:
    """Raise a ValueError if one text begins with another one, or equals it."""
    ordered = sorted(texts)
    for short, long in zip(ordered, ordered[1:], strict=False):
        if long.startswith(short):
            raise ValueError(f"not prefix-free: {long!r} begins with {short!r}")


def _logp_of_characters(text, texts, probabilities):
    """Return ln p of each character of `text`, given the characters before it.

    Of the texts that agree so far, this is the share of those that have this character next.
    """
    logp = []
    for n, character in enumerate(text):
        agree = [(t, p) for t, p in zip(texts, probabilities, strict=True) if t[:n] == text[:n]]
        p_next = sum(p for t, p in agree if t[n] == character)
        logp.append(math.log(p_next / sum(p for _, p in agree)))
    return tuple(logp)


def _kinds_of_characters(option, after, kind, texts, possible_texts):
    """Return the kind of each character of `option + after`, as an index in KINDS.

    A character has the slot's kind if the memory excludes other characters here. To see this, the
    allowed texts are compared with the texts that are possible in any play.
    """
    kinds = []
    for n in range(len(option + after)):
        start = (option + after)[:n]
        n_allowed = len(_next_characters(start, texts))
        n_possible = len(_next_characters(start, possible_texts))
        if n_possible > n_allowed:
            name = kind
        elif n_allowed > 1:
            name = "choice"
        else:
            name = "spelling" if n < len(option) else "form"
        kinds.append(KINDS.index(name))
    return tuple(kinds)


def _next_characters(start: str, texts: Sequence[str]) -> set[str]:
    """Return the characters that come after `start` in those texts that begin with it."""
    return {text[len(start)] for text in texts if text.startswith(start)}


# Part 4. Writing and scoring plays.


def run_play(level: int, pick: Callable[[Choice], int]) -> None:
    """Go through one play, choice by choice.

    The same function writes and reads: only `pick` differs. For each choice, `pick` returns the
    index of an option. An author picks it at random, a reader looks it up in the text.
    """
    slots = grammar(level)
    memory = {}
    # The pairs of `parse` that are still to be written. The last pair of the list comes next.
    stack = parse(play_template(level))[::-1]
    while stack:
        name, after = stack.pop()
        slot = slots[name]
        # If the option brings a template, that template comes before the text `after`.
        text_after = "" if slot.follow else after
        allowed = allowed_options(slot, memory)
        choice = make_choice(slot.options, slot.kind, allowed, text_after)
        option = choice.options[pick(choice)]
        memory[slot.remember_as or name] = option
        if slot.follow:
            stack += parse(slot.follow.get(option, "") + after)[::-1]


@check_arguments(ConfigError, level=level_kind, rng=random.Random)
def write_play(level: int, rng: random.Random) -> str:
    """Return one random play."""
    texts = []

    def pick(choice):
        # The last cumulative sum may be 1 - 1e-16 in place of 1, so the index is limited.
        index = min(bisect(choice.cumulative, rng.random()), len(choice.texts) - 1)
        texts.append(choice.texts[index])
        return index

    run_play(level, pick)
    return "".join(texts)


@check_arguments(ConfigError, level=level_kind, seed=at_least(0))
def plays(level: int = 3, seed: int = 1337) -> Iterator[str]:
    """Yield play after play, without end."""
    rng = random.Random(seed)
    while True:
        yield write_play(level, rng)


@check_arguments(ConfigError, n_characters=at_least(0), level=level_kind, seed=at_least(0))
def generate(n_characters: int = 1_000_000, level: int = 3, seed: int = 1337) -> str:
    """Return whole plays, until there are at least `n_characters` characters.

    With the same seed, a longer text begins with the shorter one.
    """
    texts = []
    length = 0
    for play in plays(level, seed):
        if length >= n_characters:
            return "".join(texts)
        texts.append(play)
        length += len(play)


@check_arguments(text=str)
def whole_plays(text: str) -> str:
    """Return `text` without the unfinished plays at its beginning and at its end.

    Everything up to the first empty line is removed, also if it is a whole play.
    """
    return text[text.find(END) + len(END):text.rfind(END) + len(END)]


class Ungrammatical(ValueError):
    """No play of this level has this character at this position.

    `position` is the index of the first wrong character. `expected` has all characters that would
    be right there.
    """

    def __init__(self, text: str, position: int, expected: str, level: int):
        self.position = position
        self.expected = expected
        super().__init__(
            f"character {position}, {text[position]!r} after "
            f"{text[max(0, position - 30):position]!r}, is in no play of level {level}: "
            f"{' or '.join(map(repr, expected))} would be right"
        )


@dataclass(frozen=True)
class Score:
    """The true probability and the kind of each character of a text."""

    logp: np.ndarray        # (N,) ln p(character | all characters before it), in nats
    kinds: np.ndarray       # (N,) indices in KINDS
    starts: np.ndarray      # (number of plays,) the index at which each play begins

    @property
    def nats(self) -> float:
        """Return the surprise of the whole text, -ln p(text)."""
        return -float(self.logp.sum())


@check_arguments(ConfigError, text=str, level=level_kind)
def score(text: str, level: int = 3) -> Score:
    """Return the exact probability of each character of `text`.

    The text must begin with the beginning of a play. The last play may be unfinished. If your text
    begins within a play, as a validation split does, score the whole text and take a slice.

    Raises:
        Ungrammatical: at the first character that no play of that level can have there.
    """
    reader = _Reader(text, level)
    starts = []
    try:
        while reader.position < len(text):
            starts.append(reader.position)
            run_play(level, reader.pick)
    except _EndOfText:
        # The last play is unfinished.
        pass
    return Score(
        np.array(reader.logp),
        np.array(reader.kinds, dtype=np.int8),
        np.array(starts, dtype=np.int64),
    )


class _EndOfText(Exception):
    """The text ends within a choice."""


class _Reader:
    """Find the picked option of each choice in a text, and collect its logp and its kinds."""

    def __init__(self, text: str, level: int):
        self.text = text
        self.level = level
        self.position = 0
        self.logp = []
        self.kinds = []

    def pick(self, choice: Choice) -> int:
        """Return the index of the option that stands at `position`, and move behind it."""
        index, n_equal = self._best_match(choice.texts)
        self.logp.extend(choice.logp[index][:n_equal])
        self.kinds.extend(choice.kinds[index][:n_equal])
        start = self.text[self.position:self.position + n_equal]
        self.position += n_equal
        if n_equal == len(choice.texts[index]):
            return index
        if self.position == len(self.text):
            raise _EndOfText
        expected = _next_characters(start, choice.texts)
        raise Ungrammatical(
            self.text, self.position, "".join(sorted(expected)), self.level)

    def _best_match(self, options: Sequence[str]) -> tuple[int, int]:
        """Return which option has the longest equal beginning, and the length of this beginning."""
        for index, option in enumerate(options):
            if self.text.startswith(option, self.position):
                # No other option can match as a whole, because the options are prefix-free.
                return index, len(option)
        lengths = []
        for option in options:
            piece = self.text[self.position:self.position + len(option)]
            lengths.append(len(commonprefix([option, piece])))
        return lengths.index(max(lengths)), max(lengths)


# Part 5. Averages over all plays. They are computed, not measured.


@check_arguments(ConfigError, level=level_kind)
def entropy(level: int = 3) -> float:
    """Return the mean surprise of a play in nats: the floor of a model's loss per play.

    It is the sum over all slots of the slot's entropy times how often a play comes to it.
    """
    return _expected_sum(level, _slot_entropy, lambda text: 0)


@check_arguments(ConfigError, level=level_kind)
def mean_length(level: int = 3) -> float:
    """Return the mean number of characters of a play."""
    return _expected_sum(level, _mean_option_length, len)


def _slot_entropy(slot: Slot) -> float:
    """Return the mean surprise of the pick in this slot, in nats."""
    if slot.probabilities is not None:
        return -sum(p * math.log(p) for p in slot.probabilities.values())
    return math.log(len(slot.options) if slot.allowed is None else slot.n_allowed)


def _mean_option_length(slot: Slot) -> float:
    """Return the mean number of characters of the option in this slot."""
    if slot.probabilities is not None:
        return sum(p * len(option) for option, p in slot.probabilities.items())
    return sum(map(len, slot.options)) / len(slot.options)


def _expected_sum(
    level: int, slot_value: Callable[[Slot], float], text_value: Callable[[str], float]
) -> float:
    """Return the mean over plays of the sum of all values of its slots and its fixed texts.

    E(slot) = slot_value(slot) + the sum over its options of p(option) * E(template that follows).
    These are linear equations: a bracket can contain a bracket, so E(slot) can depend on itself.
    200 rounds of substitution solve them, because deep nesting has a small probability.
    """
    slots = grammar(level)
    expected = dict.fromkeys(slots, 0.0)

    def template_value(template):
        return sum(expected[name] + text_value(after) for name, after in parse(template))

    for _ in range(200):
        for name, slot in slots.items():
            expected[name] = slot_value(slot) + sum(
                slot.probabilities[option] * template_value(template)
                for option, template in slot.follow.items()
            )
    return template_value(play_template(level))
