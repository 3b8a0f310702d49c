"""Little Theatre: an endless supply of small plays whose probability is known exactly, character by character.

The writer goes from left to right, and its only random act is to pick one of a prefix-free set of strings and write
it at once. What it must remember (who speaks, who holds the lamp, which rhyme is due) is a function of what it has
already written. So each play can come about in one way only, and the same program that writes plays tells what any
play's next character costs: the floor below which no model's loss can go.

>>> play = next(plays(level=1, seed=30))
>>> print(play.strip())
It is noon in the forest.
  Miller: The horse near the dogs burns.
  Bear: Count: five and two make seven.
  Raven: (he nods [and turns])
[Exeunt.]
>>> round(score(play, level=1).nats, 2), round(entropy(level=1), 2)     # this play, and plays on average
(32.05, 33.04)

The file is long for its vocabulary and for the plays' own templates; the machinery is `make_choice` and `perform`.
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

from gptlib.config import ConfigError

# what decides a character; "turn" and "fact" begin at level 2, "who" and "rhyme" at level 3
KINDS = ("choice", "spelling", "form", "agreement", "bracket", "sum", "turn", "fact", "who", "rhyme")
LEVELS = (1, 2, 3)
END = "\n\n"                      # of a play, and nowhere else

# within each list of things to remember the first letters differ, so that a memory shows in one character and the rest is spelling
ACTORS = {"Fox": "he", "Owl": "she", "King": "he", "Queen": "she", "Bear": "he", "Hen": "she", "Miller": "he", "Swan": "she",
          "Raven": "he", "Nurse": "she"}
PLACES = ("forest", "garden", "harbour", "kitchen", "meadow", "tower")
TIMES = ("dawn", "noon", "sunset", "midnight")
LOOKS = ("golden", "broken", "silver", "little", "heavy", "wooden")
THINGS = ("ring", "lamp", "drum", "cup", "book", "mirror", "kettle", "violin")
PLURALS = {"bird": "birds", "child": "children", "dog": "dogs", "flower": "flowers", "horse": "horses", "lady": "ladies",
           "sailor": "sailors", "candle": "candles"}
VERBS = ("sing", "dream", "wander", "tremble", "laugh", "burn")
DEEDS = ("bows", "sighs", "turns", "weeps", "nods")
NEAR = ("by", "near", "behind")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
RHYMES = (("sea", "tree", "bee", "key"), ("day", "way", "clay", "hay"), ("night", "light", "kite", "height"),
          ("stone", "throne", "bone", "crone"), ("moon", "spoon", "dune", "tune"), ("star", "scar", "jar", "tar"))
BRACKETS = {"(": ")", "[": "]", "<": ">"}

OPENING = {1: "It is {time} in the {place}.\n",
           2: "{a} and {b} meet in the {place} at {time}.\n[Between {=a} and {=b} lies a {thing}.]\n",
           3: "{a} and {b} meet in the {place} at {time}.\n[{owner} has a {look} {thing}.]\n"}
SPEECH = "  {speaker}: {line}\n"
CLOSING = {1: "[Exeunt.]\n\n",
           2: "[Exeunt {=a} and {=b} with the {=thing}.]\n\n",
           3: "[Exeunt. {keeper} keeps the {=look} {=thing}. So ends {=time} in the {=place}.]\n\n"}
LINES = {                                           # template: (lowest level, weight)
    "The {noun} {near} the {noun2} {verb}.": (1, 3),
    "({pronoun} {deed}{then )}": (1, 2),
    "Count: {one} and {two} make {sum}.": (1, 1),
    "Dear {dear}, I dream of the {=thing}.": (2, 3),
    "Where is the {=thing}, {dear}?": (2, 3),
    "It is {=time}, and the {=place} sleeps.": (3, 2),
    "I met a {child} by the {rhyme},\n    who told me stories of the {rhyme2}.": (3, 2),
    "Who has the {=thing}?\n  {speaker}: {I} have the {=look} {=thing}.": (3, 2),
    "Let {taker} have the {=thing}.": (3, 2),
}


@dataclass(frozen=True)
class Slot:
    """A place in a template where one of several strings stands."""

    among: tuple[str, ...]                          # whatever could stand here in any play; over many plays, equally often
    kind: str = "choice"                            # what narrows it down
    options: Callable[[dict], Sequence[str]] | dict[str, float] | None = None   # memory -> what can stand here now; or probabilities
    n: int = 1                                      # how many options there are, where a function names them
    follow: Mapping[str, str] = field(default_factory=dict)                     # option -> the template that comes after it
    to: str = ""                                    # the name it is remembered by, where that is not its own


def _other(memory):
    """Who does not speak now, which is who speaks next; `a` opens."""
    return memory["b"] if memory.get("speaker") == memory["a"] else memory["a"]


def _not_owner(memory):
    return memory["b"] if memory["owner"] == memory["a"] else memory["a"]


def _one_of(weights):
    total = sum(weights.values())
    return {head: weight / total for head, weight in weights.items()}


@cache
def grammar(level: int = 3) -> dict[str, Slot]:
    """Every slot of plays of that level."""
    if level not in LEVELS:
        raise ConfigError(f"level={level!r} should be 1 (no recall), 2 (speakers and one fact) or 3 (everything)")
    actors = tuple(ACTORS)
    singular, plural = tuple(PLURALS), tuple(PLURALS.values())
    verbs = tuple(verb + "s" for verb in VERBS), VERBS
    rhyming = {word: [w for w in words if w != word] for words in RHYMES for word in words}
    slots = {
        "": Slot(("",)), "time": Slot(TIMES), "place": Slot(PLACES), "look": Slot(LOOKS), "thing": Slot(THINGS), "a": Slot(actors),
        "b": Slot(actors, "turn", lambda m: [x for x in actors if x != m["a"]], n=len(actors) - 1),
        "owner": Slot(actors, "who", lambda m: [m["a"], m["b"]], n=2),
        "taker": Slot(actors, "who", lambda m: [_not_owner(m)], to="owner"),
        "keeper": Slot(actors, "who", lambda m: [m["owner"]]),
        "I": Slot(("I", "You"), "who", lambda m: ["I" if m["speaker"] == m["owner"] else "You"]),
        "speaker": Slot(actors, "turn", None if level == 1 else lambda m: [_other(m)]),
        "dear": Slot(actors, "turn", lambda m: [_other(m)]),
        "pronoun": Slot(("he", "she"), "agreement", lambda m: [ACTORS[m["speaker"]]]),
        "noun": Slot(singular + plural), "noun2": Slot(singular + plural), "child": Slot(singular), "near": Slot(NEAR),
        "verb": Slot(sum(verbs, ()), "agreement", lambda m: verbs[m["noun"] in plural], n=len(VERBS)),
        "one": Slot(NUMBERS[1:6]), "two": Slot(NUMBERS[1:6]),
        "sum": Slot(tuple(NUMBERS[i + j] for i in range(1, 6) for j in range(1, 6)), "sum",
                    lambda m: [NUMBERS[NUMBERS.index(m["one"]) + NUMBERS.index(m["two"])]]),
        "rhyme": Slot(tuple(rhyming)), "rhyme2": Slot(tuple(rhyming), "rhyme", lambda m: rhyming[m["rhyme"]], n=3),
        "deed": Slot(DEEDS),
    }
    for name in ("a", "b", "time", "place", "look", "thing"):
        slots["=" + name] = Slot(slots[name].among, "fact", lambda m, name=name: [m[name]])
    opened = {f" {left}and ": right for left, right in BRACKETS.items()}            # what may follow a deed, but for its own closing
    for close in BRACKETS.values():
        deeper = [head for head, right in opened.items() if right != close]
        slots["then " + close] = Slot((*opened, *opened.values()), "bracket", _one_of({close: 3} | dict.fromkeys(deeper, 1)),
                                      follow={head: f"{{deed}}{{then {opened[head]}}}{{{close}}}" for head in deeper})
        slots[close] = Slot(tuple(BRACKETS.values()), "bracket", lambda m, close=close: [close])
    lines = {re.match("[^{]*", line)[0]: (line, weight) for line, (lowest, weight) in LINES.items() if lowest <= level}
    slots["line"] = Slot(tuple(lines), options=_one_of({head: weight for head, (_, weight) in lines.items()}),
                         follow={head: line.removeprefix(head) for head, (line, _) in lines.items()})
    slots["more"] = Slot(("  ", "["), options=_one_of({"  ": 1, "[": 1}),
                         follow={"  ": SPEECH.removeprefix("  ") + "{more}", "[": CLOSING[level].removeprefix("[")})
    return slots


def play_template(level: int) -> str:
    """What every play of that level is: an opening, two speeches, and {more} of them or the closing."""
    return OPENING[level] + 2 * SPEECH + "{more}"


@cache
def parse(template: str) -> list[tuple[str, str]]:
    """[(slot, the text after it), …]; text before the first slot comes after the slot "", which is empty.

    >>> parse("[{owner} has a {thing}.]")
    [('', '['), ('owner', ' has a '), ('thing', '.]')]
    """
    first, *rest = re.split(r"\{(.+?)\}", template)
    return [("", first)] * bool(first) + list(zip(rest[::2], rest[1::2], strict=True))


@dataclass(frozen=True)
class Choice:
    """A prefix-free set of strings with their probabilities, worked out character by character."""

    words: tuple[str, ...]
    texts: tuple[str, ...]                          # each word and what comes after it for certain
    cumulative: tuple[float, ...]
    logp: tuple[tuple[float, ...], ...]             # of each text's characters, in nats
    kinds: tuple[tuple[int, ...], ...]              # likewise, as places in KINDS


@cache
def make_choice(among: tuple[str, ...], kind: str, options: tuple[tuple[str, float], ...], after: str) -> Choice:
    """Spell a choice out.

    A character is of `kind` where someone who knows only `among` would think more characters possible than there are;
    else it is a "choice" where several are possible, and "spelling" or (past the word) "form" where one is.
    """
    possible = [word + after for word in set(among)]
    texts = [word + after for word, _ in options]
    for strings in (texts, possible):
        ordered = sorted(strings)
        clash = [(short, long) for short, long in zip(ordered, ordered[1:], strict=False) if long.startswith(short)]
        if clash:
            raise ValueError(f"not prefix-free: {clash[0][0]!r} begins {clash[0][1]!r}")
    logp, kinds = [], []
    for (word, _), text in zip(options, texts, strict=True):
        steps, names = [], []
        for n, character in enumerate(text):
            now = [(t, p) for t, (_, p) in zip(texts, options, strict=True) if t.startswith(text[:n])]
            nexts, thinkable = {t[n] for t, _ in now}, {t[n] for t in possible if t.startswith(text[:n])}
            steps.append(math.log(sum(p for t, p in now if t[n] == character) / sum(p for _, p in now)) if len(nexts) > 1 else 0.0)
            names.append(kind if len(thinkable) > len(nexts) else "choice" if len(nexts) > 1 else "spelling" if n < len(word) else "form")
        logp.append(tuple(steps))
        kinds.append(tuple(map(KINDS.index, names)))
    return Choice(tuple(word for word, _ in options), tuple(texts), tuple(accumulate(p for _, p in options)), tuple(logp), tuple(kinds))


def possibilities(slot: Slot, memory: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """What can stand in `slot` now, each with its probability."""
    if isinstance(slot.options, dict):
        return tuple(slot.options.items())
    options = slot.options(memory) if slot.options else slot.among
    return tuple((word, 1 / len(options)) for word in options)


def perform(level: int, pick: Callable[[Choice], int]) -> None:
    """Go through one play; `pick` says which text of each choice comes next."""
    slots, memory = grammar(level), {}
    to_come = parse(play_template(level))[::-1]                 # the next one last
    while to_come:
        name, after = to_come.pop()
        slot = slots[name]
        choice = make_choice(slot.among, slot.kind, possibilities(slot, memory), "" if slot.follow else after)
        word = choice.words[pick(choice)]
        memory[slot.to or name] = word
        if slot.follow:
            to_come += parse(slot.follow.get(word, "") + after)[::-1]


def plays(level: int = 3, seed: int = 1337) -> Iterator[str]:
    """Play after play, without end."""
    rng = random.Random(seed)
    while True:
        written = []

        def roll(choice, written=written):
            i = min(bisect(choice.cumulative, rng.random()), len(choice.texts) - 1)      # the last sum may be 1 - 1e-16
            written.append(choice.texts[i])
            return i

        perform(level, roll)
        yield "".join(written)


def generate(n_characters: int = 1_000_000, level: int = 3, seed: int = 1337) -> str:
    """As many whole plays as it takes to reach `n_characters`. Longer texts of one seed begin with the shorter ones."""
    text, length = [], 0
    for play in plays(level, seed):
        if length >= n_characters:
            return "".join(text)
        text.append(play)
        length += len(play)


def whole_plays(text: str) -> str:
    """`text` without the parts of plays at its beginning and end. A play that begins with the text goes too."""
    return text[text.find(END) + len(END):text.rfind(END) + len(END)]


class Ungrammatical(ValueError):
    """No play goes on like this. `position` is the first wrong character, `expected` the characters that would be right."""

    def __init__(self, text: str, position: int, expected: str):
        self.position, self.expected = position, expected
        super().__init__(f"character {position}, {text[position]!r} after {text[max(0, position - 30):position]!r}, is in no play: "
                         f"{' or '.join(map(repr, expected))} would be right")


@dataclass(frozen=True)
class Score:
    """What each character of a text costs its own author."""

    logp: np.ndarray                # (N,) nats: ln p(character | everything before it)
    kinds: np.ndarray               # (N,) places in KINDS
    starts: np.ndarray              # where each play begins

    @property
    def nats(self) -> float:
        """Of the whole text."""
        return -float(self.logp.sum())


def score(text: str, level: int = 3) -> Score:
    """The exact probability of each character of `text`, which begins with a play; the last play may be unfinished.

    For a text that begins within a play, such as a validation split, score the whole text and slice.

    Raises:
        Ungrammatical: at the first character that no play of that level could have there.
    """
    logp, kinds, starts, position = [], [], [], 0

    def read(choice):
        nonlocal position
        i, agreed = _longest_match(choice.texts, text, position)
        logp.extend(choice.logp[i][:agreed])
        kinds.extend(choice.kinds[i][:agreed])
        position += agreed
        if agreed == len(choice.texts[i]):
            return i
        if position == len(text):
            raise _EndOfText
        expected = {written[agreed] for written in choice.texts if written.startswith(text[position - agreed:position])}
        raise Ungrammatical(text, position, "".join(sorted(expected)))

    try:
        while position < len(text):
            starts.append(position)
            perform(level, read)
    except _EndOfText:
        pass
    return Score(np.array(logp), np.array(kinds, dtype=np.int8), np.array(starts, dtype=np.int64))


class _EndOfText(Exception):
    pass


def _longest_match(texts, text, position):
    """Which of `texts` agrees longest with `text` at `position`, and over how many characters."""
    for i, written in enumerate(texts):
        if text.startswith(written, position):
            return i, len(written)                  # there is no other: they are prefix-free
    agreed = [len(commonprefix([written, text[position:position + len(written)]])) for written in texts]
    return agreed.index(max(agreed)), max(agreed)


def entropy(level: int = 3) -> float:
    """Nats in a play, on average, in closed form: how uncertain each choice is, times how often it is made."""
    def uncertainty(slot):
        if isinstance(slot.options, dict):
            return -sum(p * math.log(p) for p in slot.options.values())
        return math.log(len(slot.among) if slot.options is None else slot.n)
    return _expected(level, uncertainty, lambda text: 0)


def mean_length(level: int = 3) -> float:
    """Characters in a play, on average, in closed form. (By symmetry a slot holds each of its `among` equally often.)"""
    def length(slot):
        if isinstance(slot.options, dict):
            return sum(p * len(word) for word, p in slot.options.items())
        return sum(map(len, slot.among)) / len(slot.among)
    return _expected(level, length, len)


def _expected(level, of_slot, of_text):
    """The expected sum of `of_slot` and `of_text` over a play: that of a slot is its own and p times that of each follow-up.

    These are linear equations, since a slot (a bracket) can come again within itself; going round 200 times solves them.
    """
    expected = dict.fromkeys(grammar(level), 0.0)
    of_template = lambda template: sum(expected[name] + of_text(after) for name, after in parse(template))
    for _ in range(200):
        for name, slot in grammar(level).items():
            expected[name] = of_slot(slot) + sum(slot.options[option] * of_template(then) for option, then in slot.follow.items())
    return of_template(play_template(level))
