"""Call a student's function safely, and print the verdict in one line.

A check is a list of properties in plain Python. A property that does not hold raises `Wrong` with
the sentence that the student reads. The usual order puts the most specific sentence first (the
tools are in _comparing.py):

1. `compare`: do the answers equal the results of a well-known mistake?
2. properties of the right answer: sums, causality, large numbers, gradients
3. `agree`: what is the smallest input for which the answer is not the right one?
"""

import contextlib
import ctypes
import dis
import inspect
import io
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType

import numpy as np
import torch
from torch import Tensor

from gptlib.classroom.exercises._comparing import Wrong, first_line, listed, same_bits, with_period

# Seconds for a whole check. The limit counts computing time, so other programs that keep the
# machine busy do not use it up. The second limit is for a function that waits without computing.
TIME_LIMIT = 5.0
WAITING_LIMIT = 60.0


class NotAttempted(Exception):
    """The function is still a stub."""


class TimeLimitReached(BaseException):
    """Raised inside a function that has run for too long."""


@dataclass(frozen=True)
class Result:
    """The verdict of a check. The check has printed the message, so a notebook shows no more."""

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
        name: the name of the function in the exercise.
        function: the student's function.
        properties: raises `Wrong` for the first property that the function does not have.
        holds: what is true of the function if it has all of them.
    """
    reader, printed = Reader(name, function), FirstWords()
    with _preserved_random_state(), contextlib.redirect_stdout(printed):
        problem = _run_with_time_limit(lambda: properties(reader))
    result = _verdict(name, problem, holds)
    print(result.message)
    if printed.words:
        more = " …" if printed.more else ""
        print(f"  (your function printed: {printed.words.rstrip()!r}{more})")
    return result


def _verdict(name, problem, holds):
    if problem is None:
        return Result(True, True, f"✓ {name}: {holds}.")
    if isinstance(problem, NotAttempted):
        advice = "Write its body, run its cell, and then run this cell again."
        return Result(False, False, f"not attempted: {name} is still empty. {advice}")
    if isinstance(problem, Wrong):
        return Result(False, True, f"✗ {name}: {with_period(str(problem))}")
    message = f"this answer cannot be compared with the right one ({first_line(problem)})."
    return Result(False, True, f"✗ {name}: {message}")


class Reader:
    """The student's function. Whatever goes wrong in a call raises `Wrong` with a sentence.

    It is called with keywords, and passes the values on by position: the student may choose the
    names of the parameters.
    """

    def __init__(self, name: str, function: Callable):
        self.name, self.function = name, function

    def __call__(self, **given):
        self._raise_if_not_attempted()
        before = {
            name: value.detach().clone()
            for name, value in given.items()
            if isinstance(value, Tensor)
        }
        answer = self._answer(given)
        if answer is ... or answer is NotImplemented:
            raise NotAttempted
        if answer is None:
            raise Wrong("the function returns None. Does its last line `return` the result?")
        for name, value in before.items():
            if value.shape != given[name].shape or not same_bits(value, given[name].detach()):
                raise Wrong(
                    f"the function changes its argument `{name}`, which the caller may still need. "
                    "Build a new tensor: write `a = a + b` instead of `a += b`. Do not assign to a "
                    "slice of the argument, and do not call a method whose name ends in `_`"
                )
        return answer

    def _raise_if_not_attempted(self):
        if self.function is None or self.function is ...:
            raise NotAttempted
        if not callable(self.function):
            raise Wrong(
                "the check needs the function itself, without brackets: "
                f"check_{self.name}({self.name})"
            )
        if untouched(self.function):
            raise NotAttempted

    def _answer(self, given):
        """Return what the function returns. Raise `Wrong` if it raises an exception."""
        try:
            return self.function(*given.values())
        except Wrong:
            # Raised by a model or a norm that the check gave to the function.
            raise
        except (Exception, SystemExit) as error:
            code = _code(self.function)
            raises_it_itself = code and "NotImplementedError" in code.co_names
            if isinstance(error, NotImplementedError) and raises_it_itself:
                raise NotAttempted from None
            raise Wrong(
                f"it raised {first_line(error).removesuffix('.')}{self._where(error)}. "
                f"{self._advice(error, given)}It was called with {listed(given)}"
            ) from None

    def _where(self, error):
        """Return the line of the student's code that raised the error, as text."""
        code = _code(self.function)
        frames = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in frames if code and frame.filename == code.co_filename]
        if not frames:
            return ""
        line = frames[-1].line
        return f" at line {frames[-1].lineno}" + (f", `{line}`" if line else "")

    def _advice(self, error, given):
        """Return a sentence about `.T`, if that may be the reason for an error about shapes."""
        code = _code(self.function)
        has_more_axes = any(isinstance(v, Tensor) and v.ndim > 2 for v in given.values())
        if not (isinstance(error, RuntimeError) and has_more_axes and code):
            return ""
        steps = dis.get_instructions(code)
        if not any(step.opname == "LOAD_ATTR" and step.argval == "T" for step in steps):
            return ""
        return "`.T` reverses all axes. To swap the last two axes, use `.transpose(-2, -1)`. "


def untouched(function: Callable) -> bool:
    """Return whether the body is a stub's: `...`, `pass`, a docstring or `return None`.

    The bytecode of such a body does nothing but load None and return it.
    """
    code = _code(function)
    return code is not None and all(
        step.opname in ("RESUME", "NOP", "RETURN_VALUE")
        or (step.opname.endswith("_CONST") and step.argval is None)
        for step in dis.get_instructions(code)
    )


def _code(function: Callable) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


# Safety -------------------------------------------------------------------------------------------


class FirstWords(io.TextIOBase):
    """Store only the beginning of what is printed, so that an endless loop fills no memory."""

    words, more = "", False

    def write(self, text):
        room = 60 - len(self.words)
        self.words += text[:room]
        self.more = self.more or len(text) > room
        return len(text)


def _run_with_time_limit(work: Callable) -> BaseException | None:
    """Return the exception that `work()` ends with, or None if it ends without one.

    The work runs in a daemon thread, because every system can stop waiting for a thread. Python
    cannot kill a thread. It can raise an exception inside the thread, which ends a Python loop, but
    not one long call of a C function.
    """
    outcomes, clocks = [], []

    def run():
        clocks.append(_clock_of_this_thread())
        try:
            work()
            outcomes.append(None)
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    reason = "there is no answer"
    try:
        reason = _wait_for(thread, clocks)
    finally:
        if thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(TimeLimitReached)
            )
            thread.join(1.0)
    if outcomes and not isinstance(outcomes[0], TimeLimitReached):
        return outcomes[0]
    message = (
        f"{reason}, so the check stopped waiting. "
        "Is there a loop that never ends, or a loop with far too many steps?"
    )
    if thread.is_alive():
        message += (
            " The function could not be stopped and goes on in the background. "
            "Restart the kernel to end it"
        )
    return Wrong(message)


def _clock_of_this_thread() -> Callable[[], float]:
    """Return a function for other threads, which returns the computing time of this thread.

    Not every system has such a clock. Elsewhere it is the computing time of the whole process.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


def _wait_for(thread: threading.Thread, clocks: list[Callable]) -> str:
    """Wait until the thread ends or a limit is reached. Return which limit, as text.

    Args:
        clocks: the thread puts its clock into this list when it starts.
    """
    end, first_reading = time.monotonic() + WAITING_LIMIT, None
    while time.monotonic() < end:
        thread.join(0.02)
        if not thread.is_alive():
            break
        if not clocks:
            continue
        # The clock of a thread that has just ended cannot be read.
        with contextlib.suppress(OSError):
            reading = clocks[0]()
            first_reading = reading if first_reading is None else first_reading
            if reading - first_reading > TIME_LIMIT:
                return f"there is no answer within {TIME_LIMIT:g} seconds of computing time"
    return f"there is no answer within {WAITING_LIMIT:g} seconds"


@contextlib.contextmanager
def _preserved_random_state():
    """Give the function the same random numbers on every run, and restore the notebook's own."""
    torch_state = torch.get_rng_state()
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
