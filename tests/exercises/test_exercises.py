"""Every exercise's check: right answers pass, wrong ones hear what is wrong with them, stubs are told apart, and nothing escapes."""

import importlib
import random
import threading
import time

import answers_attention
import answers_bigram
import answers_bpe
import answers_context_rolling
import answers_decoder_block
import answers_full_gpt
import answers_time_weighting
import numpy as np
import pytest
import torch
from collecting import defined, solutions, stubs

from gptlib.exercises import _checking, attention, bigram, bpe, context_rolling, decoder_block, full_gpt, time_weighting

ANSWERS = {bigram: answers_bigram, attention: answers_attention, decoder_block: answers_decoder_block, full_gpt: answers_full_gpt,
           bpe: answers_bpe, time_weighting: answers_time_weighting, context_rolling: answers_context_rolling}
CHAPTERS = {module.__name__.rpartition(".")[2]: module for module in ANSWERS}
EXERCISES = {name.removeprefix("check_"): getattr(module, name) for module in ANSWERS for name in vars(module) if name.startswith("check_")}
NAMES = list(EXERCISES)
WRONG = [answer for answers in ANSWERS.values() for answer in answers.WRONG]
RIGHT = [answer for answers in ANSWERS.values() for answer in answers.RIGHT]


def rejected(result, *words):
    assert result.attempted and not result.passed and not result
    assert result.message.startswith("✗ ")
    for word in words:
        assert word.lower() in result.message.lower()


@pytest.mark.parametrize("exercise, function, words", WRONG)
def test_a_wrong_answer_hears_its_mistake(exercise, function, words):
    rejected(EXERCISES[exercise](function), f"{exercise}: ", *words)


@pytest.mark.parametrize("exercise, function, words", RIGHT)
def test_a_right_answer_passes(exercise, function, words, capsys):
    result = EXERCISES[exercise](function)
    assert result.passed and result.attempted, result.message
    assert capsys.readouterr().out == result.message + "\n"
    assert result.message.startswith(f"✓ {exercise}: ")


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_wrong_answers(name):
    assert sum(answer.values[0] == name for answer in WRONG) >= 10
    assert sum(answer.values[0] == name for answer in RIGHT) >= 1


# The notebooks' own stubs and solutions -----------------------------------------------------------------------------

@pytest.mark.parametrize("chapter", CHAPTERS)
def test_folded_solutions_pass(chapter):
    found = solutions(chapter)
    names = [name for name in NAMES if hasattr(CHAPTERS[chapter], f"check_{name}")]
    assert set(names) <= set(found)
    namespace = {"torch": torch}
    for name in names:
        result = EXERCISES[name](defined("import math\n" + found[name], name, namespace))
        assert result.passed, result.message


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_stubs_of_the_notebook_are_not_attempted(chapter):
    found = stubs(chapter)
    names = [name for name in NAMES if hasattr(CHAPTERS[chapter], f"check_{name}")]
    assert set(names) <= set(found)
    for name in names:
        assert EXERCISES[name](defined(found[name], name, {})).message.startswith(f"not attempted: {name}")


# Whatever a reader may hand in --------------------------------------------------------------------------------------

def dots(*arguments):
    """What it should do."""
    ...


def passes(*arguments):
    pass


def returns_none(*arguments):
    return None


def raises_not_implemented(*arguments):
    raise NotImplementedError("your turn")


def returns_dots(*arguments):
    result = ...
    return result


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stub", [dots, passes, returns_none, raises_not_implemented, returns_dots, None, ...])
def test_a_stub_is_not_attempted(name, stub, capsys):
    result = EXERCISES[name](stub)
    assert not result.attempted and not result.passed and not result
    assert result.message.startswith(f"not attempted: {name}")
    assert capsys.readouterr().out == result.message + "\n"


def forgets_to_return(*arguments):
    print(len(arguments))


def raises(*arguments):
    raise KeyError("no such thing")


def leaves(*arguments):
    raise SystemExit(3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer, words", [
    (forgets_to_return, ["None", "return"]),
    (raises, ["KeyError", "no such thing", f"line {raises.__code__.co_firstlineno + 1}", 'raise KeyError("no such thing")']),
    (leaves, ["SystemExit"]),
    (lambda: 1, ["TypeError", "argument"]),
    (lambda *arguments: "text", ["str"]),
    (lambda *arguments: np.zeros(3), ["ndarray"]),
    (lambda *arguments: [1, 2, 3], ["list"]),
    (lambda *arguments: torch.zeros(0), []),
    (lambda *arguments: torch.zeros(3, 3), []),
    (lambda *arguments: torch.tensor(float("nan")), []),
    (lambda *arguments: torch.ones(2, 2, dtype=torch.complex64), []),
    (lambda *arguments: torch.eye(2).to_sparse(), []),
    (lambda *arguments: arguments[0], []),
    (torch.tensor(1.0), ["without brackets"]),
], ids=["no return", "raises", "exits", "arguments", "text", "numpy", "list", "empty", "zeros", "nan", "complex", "sparse", "echo",
        "called"])
def test_any_other_answer_is_rejected(name, answer, words):
    result = EXERCISES[name](answer)
    if name == "shift_targets":
        words = [word for word in words if word not in ("str", "ndarray", "list")] or ["shift_targets"]
    if name in ("merge", "encode_word"):                    # which give back lists
        words = [word for word in words if word != "list"]
    rejected(result, *words)
    assert "cannot be compared" not in result.message


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_never_returns_is_left(name, monkeypatch, capsys):
    monkeypatch.setattr(_checking, "TIME_LIMIT", 0.2)

    def endless(*arguments):
        while True:
            print("still here")

    before, start = threading.active_count(), time.monotonic()
    rejected(EXERCISES[name](endless), "0.2 seconds", "loop")
    assert time.monotonic() - start < 5
    assert threading.active_count() == before               # a Python loop can be stopped
    assert len(capsys.readouterr().out) < 1000


def test_a_function_that_cannot_be_stopped_is_said_to_go_on(monkeypatch):
    monkeypatch.setattr(_checking, "TIME_LIMIT", 0.1)
    rejected(attention.check_causal_mask(lambda T: time.sleep(2)), "goes on in the background")


def test_a_failing_check_shows_the_smallest_example():
    result = attention.check_causal_mask(lambda T: torch.ones(T, T, dtype=torch.bool).tril() & (torch.arange(T) != 2))
    rejected(result, "T = 3", "position 2")
    result = bigram.check_bigram_probabilities(lambda counts, smoothing: torch.full_like(counts, 1 / len(counts)))
    rejected(result, "counts = [[1, 3], [2, 0]]", "[[0.5, 0.5], [0.5, 0.5]]", "[[0.3, 0.7], [0.8333, 0.1667]]")


def test_checks_repeat_and_leave_random_numbers_alone(monkeypatch):
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    messages = []
    for _ in range(2):
        torch.rand(3) if messages else None
        state = torch.get_rng_state()
        messages.append([EXERCISES[name](lambda *arguments: torch.rand(2, 2)).message for name in NAMES])
        assert torch.equal(state, torch.get_rng_state())
    assert messages[0] == messages[1]
    assert random.getstate() == states[1] and np.random.get_state()[1].tolist() == states[2]


def test_what_the_function_prints_is_shown_in_short(capsys):
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
    assert formatter().format(attention.check_causal_mask(dots)) == ({}, {})


def test_chapters_are_the_modules_of_the_package():
    for name in CHAPTERS:
        assert importlib.import_module(f"gptlib.exercises.{name}") is CHAPTERS[name]
