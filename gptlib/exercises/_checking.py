"""What every check shares: it calls the reader's function safely, and says the verdict in one line.

A check is a list of properties in plain Python. A property that does not hold raises `Wrong` with the sentence that
the reader sees. The usual order, so that the most telling sentence comes first (the tools are in _comparing.py):

1. `compare`: does the answer look like what a well-known mistake would give?
2. properties of the right answer: sums, causality, large numbers, gradients
3. `agree`: the smallest input for which the answer is still not the right one
"""

import contextlib
import ctypes
import dis
import inspect
import io
import random
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gptlib.exercises._comparing import Wrong, first_line, listed, same_bits

TIME_LIMIT = 5.0                                                        # seconds for a whole check


class NotAttempted(Exception):
    """The function is still its stub."""


class GaveUp(BaseException):
    """Raised inside a function that has run for too long."""


@dataclass(frozen=True)
class Result:
    """What a check found. It has printed its message already, so a notebook shows nothing more."""

    passed: bool
    attempted: bool
    message: str

    def __bool__(self):
        return self.passed

    def _ipython_display_(self):
        pass


def check(name: str, function: Callable, properties: Callable, holds: str) -> Result:
    """Run `properties(reader)` and print the verdict.

    Args:
        name: what the exercise calls its function.
        function: the reader's attempt.
        properties: raises `Wrong` for the first property that the attempt lacks.
        holds: what is known of the attempt when none is lacking.
    """
    reader, printed = Reader(name, function), FirstWords()
    with _random_state_kept(), contextlib.redirect_stdout(printed):
        trouble = _outcome(lambda: properties(reader), TIME_LIMIT)
    if trouble is None:
        result = Result(True, True, f"✓ {name}: {holds}.")
    elif isinstance(trouble, NotAttempted):
        result = Result(False, False, f"not attempted: {name} is still to be written; fill in its body, run its cell, then this one again.")
    elif isinstance(trouble, Wrong):
        result = Result(False, True, f"✗ {name}: {trouble}" + "." * (str(trouble)[-1] not in ".?"))
    else:
        result = Result(False, True, f"✗ {name}: this answer cannot be compared with the right one ({first_line(trouble)}).")
    print(result.message)
    if printed.words:
        print(f"  (your function printed: {printed.words.rstrip()!r}{' …' if printed.more else ''})")
    return result


class Reader:
    """The reader's function. Called by keyword, it is given the values in order; whatever goes wrong becomes a sentence."""

    def __init__(self, name: str, function: Callable):
        self.name, self.function = name, function

    def __call__(self, **given):
        if not callable(self.function):
            if self.function is None or self.function is ...:
                raise NotAttempted
            raise Wrong(f"the check needs the function itself, without brackets: check_{self.name}({self.name})")
        if untouched(self.function):
            raise NotAttempted
        before = {name: value.detach().clone() for name, value in given.items() if isinstance(value, Tensor)}
        try:
            answer = self.function(*given.values())
        except Wrong:
            raise                                       # from a model or a norm that the reader was given to call
        except (Exception, SystemExit) as error:
            if isinstance(error, NotImplementedError) and "NotImplementedError" in self._code_names():
                raise NotAttempted from None
            raise Wrong(f"it raised {first_line(error)}{self._where(error)}; it was called with {listed(given)}") from None
        if answer is ... or answer is NotImplemented:
            raise NotAttempted
        if answer is None:
            raise Wrong("it gives back None: does its last line `return` the result?")
        for name, value in before.items():
            if value.shape != given[name].shape or not same_bits(value, given[name].detach()):
                raise Wrong(f"it changes its argument `{name}`, which the caller may still need: build a new tensor "
                            "instead (`a = a + b` rather than `a += b`, no method that ends in `_`, no assignment to a slice)")
        return answer

    def _code_names(self):
        return getattr(getattr(inspect.unwrap(self.function), "__code__", None), "co_names", ())

    def _where(self, error):
        file = getattr(getattr(inspect.unwrap(self.function), "__code__", None), "co_filename", None)
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        return f" at line {lines[-1].lineno}" + (f", `{lines[-1].line}`" if lines[-1].line else "") if lines else ""


def untouched(function: Callable) -> bool:
    """Whether the body is a stub's: `...`, `pass`, a docstring or `return None`. Such code only loads None and returns it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and all(
        step.opname in ("RESUME", "NOP", "RETURN_VALUE") or (step.opname.endswith("_CONST") and step.argval is None)
        for step in dis.get_instructions(code))


# Safety -------------------------------------------------------------------------------------------------------------

class FirstWords(io.TextIOBase):
    """Keeps the beginning of what is printed, so that a loop that prints cannot fill the page or the memory."""

    words, more = "", False

    def write(self, text):
        room = 60 - len(self.words)
        self.words, self.more = self.words + text[:room], self.more or len(text) > room
        return len(text)


def _outcome(work: Callable, seconds: float) -> BaseException | None:
    """The exception that `work()` ends with, None if it ends well. After `seconds` it is given up.

    The work runs in a daemon thread, since waiting for a thread can be given up, on any system. Python cannot
    kill one: it is asked to stop by an exception raised inside it, which reaches a Python loop, but not a long call.
    """
    ended = []

    def run():
        try:
            work()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:
        if thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(GaveUp))
            thread.join(0.5)
    if ended and not isinstance(ended[0], GaveUp):
        return ended[0]
    still = " It could not be stopped and goes on in the background; restarting the kernel ends it" if thread.is_alive() else ""
    return Wrong(f"no answer within {seconds:g} seconds, so the check went on without it: is there a loop that never ends, "
                 f"or one over far too many steps?{still}")


@contextlib.contextmanager
def _random_state_kept():
    """Draws by the reader's function are the same on every run, and the notebook's own go on as if there had been none."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.default_generator.manual_seed(0), random.seed(0), np.random.seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(states[0]), random.setstate(states[1]), np.random.set_state(states[2])
