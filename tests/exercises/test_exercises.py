"""Test every exercise's check on right answers, wrong answers, stubs and arbitrary objects."""

import importlib
import itertools
import random
import threading
import time

import answers_attention
import answers_bigram
import answers_bpe
import answers_context_rolling
import answers_data
import answers_decoder_block
import answers_full_gpt
import answers_sampling
import answers_speed
import answers_time_weighting
import numpy as np
import pytest
import torch
from collecting import defined, solutions, stubs

from gptlib.classroom.exercises import (
    _checking,
    _comparing,
    attention,
    bigram,
    bpe,
    context_rolling,
    data,
    decoder_block,
    full_gpt,
    sampling,
    speed,
    time_weighting,
)
from gptlib.classroom.exercises._comparing import Wrong, agree, close, compare
from gptlib.classroom.exercises.full_gpt import ToyModel

ANSWERS = {
    bigram: answers_bigram,
    attention: answers_attention,
    decoder_block: answers_decoder_block,
    full_gpt: answers_full_gpt,
    bpe: answers_bpe,
    time_weighting: answers_time_weighting,
    context_rolling: answers_context_rolling,
    data: answers_data,
    sampling: answers_sampling,
    speed: answers_speed,
}
CHAPTERS = {module.__name__.rpartition(".")[2]: module for module in ANSWERS}
EXERCISES = {
    name.removeprefix("check_"): getattr(module, name)
    for module in ANSWERS
    for name in vars(module)
    if name.startswith("check_")
}
NAMES = list(EXERCISES)
WRONG = [answer for answers in ANSWERS.values() for answer in answers.WRONG]
RIGHT = [answer for answers in ANSWERS.values() for answer in answers.RIGHT]


def assert_rejected(result, *words):
    assert result.attempted and not result.passed and not result
    assert result.message.startswith("✗ ")
    for word in words:
        assert word.lower() in result.message.lower()


@pytest.mark.parametrize("exercise, function, words", WRONG)
def test_a_wrong_answer_is_rejected_with_the_right_words(exercise, function, words):
    assert_rejected(EXERCISES[exercise](function), f"{exercise}: ", *words)


@pytest.mark.parametrize("exercise, function, words", RIGHT)
def test_a_right_answer_passes(exercise, function, words, capsys):
    result = EXERCISES[exercise](function)
    assert result.passed and result.attempted, result.message
    assert capsys.readouterr().out == result.message + "\n"
    assert result.message.startswith(f"✓ {exercise}: ")


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_wrong_and_right_answers(name):
    assert sum(answer.values[0] == name for answer in WRONG) >= 10
    assert sum(answer.values[0] == name for answer in RIGHT) >= 1


# The notebooks' own stubs and solutions -----------------------------------------------------------


def exercises_of(chapter):
    return [name for name in NAMES if hasattr(CHAPTERS[chapter], f"check_{name}")]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_folded_solutions_pass(chapter):
    sources = solutions(chapter)
    names = exercises_of(chapter)
    assert set(names) <= set(sources)
    namespace = {"torch": torch}
    for name in names:
        function = defined("import math\n" + sources[name], name, namespace)
        result = EXERCISES[name](function)
        assert result.passed, result.message


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stubs_of_the_notebook_are_not_attempted(chapter):
    sources = stubs(chapter)
    names = exercises_of(chapter)
    assert set(names) <= set(sources)
    for name in names:
        result = EXERCISES[name](defined(sources[name], name, {}))
        assert result.message.startswith(f"not attempted: {name}")


# Stubs and other objects that a student may pass --------------------------------------------------


def ellipsis_body(*arguments):
    """Do what the exercise says."""
    ...


def pass_body(*arguments):
    pass


def returns_none(*arguments):
    return None


def raises_not_implemented(*arguments):
    raise NotImplementedError("your turn")


def returns_ellipsis(*arguments):
    result = ...
    return result


STUBS = [
    ellipsis_body,
    pass_body,
    returns_none,
    raises_not_implemented,
    returns_ellipsis,
    None,
    ...,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stub", STUBS)
def test_a_stub_is_not_attempted(name, stub, capsys):
    result = EXERCISES[name](stub)
    assert not result.attempted and not result.passed and not result
    assert result.message.startswith(f"not attempted: {name}")
    assert capsys.readouterr().out == result.message + "\n"


def forgets_to_return(*arguments):
    print(len(arguments))


def raises_key_error(*arguments):
    raise KeyError("no such thing")


def exits(*arguments):
    raise SystemExit(3)


LINE_OF_THE_ERROR = f"line {raises_key_error.__code__.co_firstlineno + 1}"
OTHER_ANSWERS = {
    "no return": (forgets_to_return, ["None", "return"]),
    "raises": (
        raises_key_error,
        ["KeyError", "no such thing", LINE_OF_THE_ERROR, 'raise KeyError("no such thing")'],
    ),
    "exits": (exits, ["SystemExit"]),
    "arguments": (lambda: 1, ["TypeError", "argument"]),
    "text": (lambda *arguments: "text", ["str"]),
    "numpy": (lambda *arguments: np.zeros(3), ["ndarray"]),
    "list": (lambda *arguments: [1, 2, 3], ["list"]),
    "empty": (lambda *arguments: torch.zeros(0), []),
    "zeros": (lambda *arguments: torch.zeros(3, 3), []),
    "nan": (lambda *arguments: torch.tensor(float("nan")), []),
    "complex": (lambda *arguments: torch.ones(2, 2, dtype=torch.complex64), []),
    "sparse": (lambda *arguments: torch.eye(2).to_sparse(), []),
    "echo": (lambda *arguments: arguments[0], []),
    "called": (torch.tensor(1.0), ["without brackets"]),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer, words", OTHER_ANSWERS.values(), ids=OTHER_ANSWERS)
def test_any_other_answer_is_rejected(name, answer, words):
    result = EXERCISES[name](answer)
    if name == "shift_targets":
        words = [word for word in words if word not in ("str", "ndarray", "list")]
        words = words or ["shift_targets"]
    # This exercise asks for a text.
    if name == "undo_mojibake":
        words = [word for word in words if word != "str"]
    # These exercises ask for a list.
    if name in ("merge", "encode_word", "leaking_positions"):
        words = [word for word in words if word != "list"]
    assert_rejected(result, *words)
    assert "cannot be compared" not in result.message


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_never_returns_is_stopped(name, monkeypatch, capsys):
    monkeypatch.setattr(_checking, "TIME_LIMIT", 0.2)

    def endless(*arguments):
        while True:
            print("still here")

    n_threads, start = threading.active_count(), time.monotonic()
    assert_rejected(EXERCISES[name](endless), "0.2 seconds of computing time", "loop")
    assert time.monotonic() - start < 5
    # The check can end a Python loop.
    assert threading.active_count() == n_threads
    assert len(capsys.readouterr().out) < 1000


def test_the_message_says_if_a_function_cannot_be_stopped(monkeypatch):
    monkeypatch.setattr(_checking, "WAITING_LIMIT", 0.1)
    result = attention.check_causal_mask(lambda T: time.sleep(2))
    assert_rejected(result, "within 0.1 seconds", "goes on in the background")


def test_the_time_limit_counts_computing_and_not_waiting(monkeypatch):
    monkeypatch.setattr(_checking, "TIME_LIMIT", 0.2)

    def waits(T):
        time.sleep(0.1)
        return torch.ones(T, T, dtype=torch.bool).tril()

    assert attention.check_causal_mask(waits)


def test_a_failing_check_shows_the_smallest_example():
    def without_column_2(T):
        return torch.ones(T, T, dtype=torch.bool).tril() & (torch.arange(T) != 2)

    assert_rejected(attention.check_causal_mask(without_column_2), "T = 3", "position 2")

    def uniform(counts, smoothing):
        return torch.full_like(counts, 1 / len(counts))

    assert_rejected(
        bigram.check_previous_probabilities(uniform),
        "counts = [[1, 3], [2, 0]]",
        "[[0.5, 0.5], [0.5, 0.5]]",
        "[[0.375, 0.625], [0.875, 0.125]]",
    )


def test_a_mistake_is_named_only_if_it_gives_every_answer_of_the_student():
    right = lambda n: torch.tensor(float(n))
    negated = ("the sign is wrong", lambda n: torch.tensor(-float(n)))
    cases = [{"n": n} for n in range(9)]

    def negated_from(first):
        return lambda n: torch.tensor(float(-n if n >= first else n))

    # The input 0 is answered rightly, and -0 is also the answer of the mistake.
    with pytest.raises(Wrong, match="the sign is wrong"):
        compare(negated_from(1), right, cases, [negated])
    # Then the input 1 is answered rightly, where the mistake gives -1.
    trials = compare(negated_from(2), right, cases, [negated])
    with pytest.raises(Wrong, match="for n = 2 the function returns -2, but 2 is right"):
        agree(trials)


def test_a_mistake_is_not_named_if_a_call_fails_where_the_mistake_is_right():
    right = lambda n: torch.tensor(float(n))
    negated = ("the sign is wrong", lambda n: torch.tensor(-float(n)))

    def negated_and_fails_at_0(n):
        if n == 0:
            raise Wrong("the call fails")
        return torch.tensor(-float(n))

    with pytest.raises(Wrong, match="the call fails"):
        compare(negated_and_fails_at_0, right, [{"n": n} for n in range(4)], [negated])


@pytest.mark.parametrize("name", NAMES)
def test_the_inputs_tell_the_named_mistakes_apart(name, monkeypatch):
    compared = []
    monkeypatch.setattr(
        _comparing,
        "raise_known_mistake",
        lambda trials, failed, mistakes, alike: compared.append((trials, list(mistakes), alike)),
    )
    EXERCISES[name](next(right.values[1] for right in RIGHT if right.values[0] == name))
    # Dropout is random, so its check compares no answers.
    if not compared:
        assert name == "dropout"
        return
    trials, mistakes, alike = compared[0]
    answers = {}
    for sentence, mistake in mistakes:
        if "There is a second mistake" not in sentence:
            answers.setdefault(sentence, []).append(
                [_comparing.mistaken_answer(mistake, trial) for trial in trials]
            )
    right = [trial.expected for trial in trials]
    for sentence, lists in answers.items():
        for mistaken in lists:
            assert not all(map(close, mistaken, right)), f"never wrong: {sentence}"
    for (first, lists), (second, others) in itertools.combinations(answers.items(), 2):
        for mistaken, other in itertools.product(lists, others):
            same = all(close(a, b, alike) for a, b in zip(mistaken, other, strict=True))
            assert not same, f"no input tells these apart: {first} | {second}"


TOY_MODELS = [ToyModel(13, 4, 1), speed.ToyModel("sees the next token", "little")]


@pytest.mark.parametrize("model", TOY_MODELS, ids=lambda model: type(model).__module__)
def test_the_toy_model_of_a_message_can_be_built_again(model):
    idx = torch.tensor([[3, 1, 2]])
    name, module = repr(model).split(" of ")
    same_model = eval(name, vars(importlib.import_module(module)))
    assert torch.equal(model(idx), same_model(idx))


def test_checks_are_deterministic_and_preserve_the_random_state():
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    messages = []
    for _ in range(2):
        if messages:
            torch.rand(3)
        state = torch.get_rng_state()
        results = [EXERCISES[name](lambda *arguments: torch.rand(2, 2)) for name in NAMES]
        messages.append([result.message for result in results])
        assert torch.equal(state, torch.get_rng_state())
    assert messages[0] == messages[1]
    assert random.getstate() == python_state
    assert np.random.get_state()[1].tolist() == numpy_state


def test_the_beginning_of_what_the_function_prints_is_shown(capsys):
    def talkative(T):
        print("mask of", T)
        return torch.ones(T, T, dtype=torch.bool).tril()

    assert attention.check_causal_mask(talkative)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("✓") and "mask of 1" in second


def test_checks_work_inside_no_grad():
    with torch.no_grad():
        assert bigram.check_cross_entropy(answers_bigram.with_torch)


def test_a_notebook_shows_one_line_and_no_object():
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter
    assert formatter().format(attention.check_causal_mask(ellipsis_body)) == ({}, {})


def test_chapters_are_the_modules_of_the_package():
    for name in CHAPTERS:
        module = importlib.import_module(f"gptlib.classroom.exercises.{name}")
        assert module is CHAPTERS[name]
