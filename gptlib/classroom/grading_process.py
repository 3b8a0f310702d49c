"""Check answers in a process of their own, within limits on time, memory and output.

`Runner` works in the grader's process: it starts a process for each notebook, reads its verdicts,
and kills it if an answer is beyond a limit. `check_answers` works in the new process.
"""

import asyncio
import builtins
import contextlib
import inspect
import json
import linecache
import marshal
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import BinaryIO

import psutil
import torch

from gptlib.classroom.exercises import _checking
from gptlib.classroom.exercises._comparing import Wrong
from gptlib.classroom.notebook_source import CHECKS, Statement, Version

PASSED = "passed"
NOT_ATTEMPTED = "not attempted"
MISSING = "missing: the notebook defines no function with this name"

# A function may print this many characters while it is checked.
MAX_PRINTED = 1_000_000
# A verdict may have this many characters, and its line of JSON this many bytes.
MAX_VERDICT = 2_000
MAX_LINE = 20 * MAX_VERDICT
# The limit by the clock is this many times the limit on computing time.
WALL_TIME_FACTOR = 6
# A process must start within this many seconds, also on a slow and busy machine.
START_SECONDS = 120


def process_context() -> BaseContext:
    """Return the way in which processes are started.

    On Linux one server process imports PyTorch, and every new process is a fork of it. On other
    systems every process imports PyTorch itself, which is slower.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gptlib.classroom.grading_process"])
    return context


@dataclass(frozen=True)
class Runner:
    """Runs answers in processes of their own, within limits.

    Attributes:
        seconds: the computing time for one exercise.
        memory: MiB for one notebook, in addition to what its process takes at the start.
        context: the way in which processes are started.
        stop: set when the grading is to end.
    """

    seconds: float
    memory: int
    context: BaseContext
    stop: threading.Event = field(default_factory=threading.Event)

    def verdicts(self, chapter: str, answers: dict[str, list[Version]]) -> dict[str, str]:
        """Return a verdict for each answer.

        An answer may end its process, or it may have to be stopped. A new process then checks the
        answers that are left.
        """
        verdicts = {}
        while len(verdicts) < len(answers):
            left = {name: answers[name] for name in answers if name not in verdicts}
            verdicts |= self._verdicts_of_one_process(chapter, left)
        return verdicts

    def _verdicts_of_one_process(self, chapter: str,
                                 answers: dict[str, list[Version]]) -> dict[str, str]:
        """Return the verdicts of a process, which ends with the first answer beyond a limit."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path, work_dir = Path(folder, "verdicts"), Path(folder, "work")
            work_dir.mkdir()
            arguments = path, work_dir, chapter, answers
            process = self.context.Process(target=check_answers, args=arguments, daemon=True)
            process.start()
            processes = ProcessTree(process)
            try:
                self._await_start(path, process)
                with open(path, "rb") as file:
                    return self._read_verdicts(file, processes, answers)
            finally:
                processes.kill()

    def _await_start(self, path: Path, process) -> None:
        """Wait until the process has opened its file of verdicts."""
        started = time.monotonic()
        while not path.exists():
            late = time.monotonic() - started > START_SECONDS
            if late or not process.is_alive() or self.stop.is_set():
                raise RuntimeError("a process for grading did not start within "
                                   f"{START_SECONDS} seconds (exit status {process.exitcode})")
            process.join(0.02)

    def _read_verdicts(self, file: BinaryIO, processes: "ProcessTree",
                       names: Iterable[str]) -> dict[str, str]:
        """Read a verdict for each name, up to the first answer that is beyond a limit."""
        verdicts = {}
        _, memory_at_start = processes.usage()
        for name in names:
            try:
                verdicts[name] = self._await_verdict(file, processes, memory_at_start)
            except Wrong as wrong:
                verdicts[name] = f"✗ {name}: {wrong}"
                break
        return verdicts

    def _await_verdict(self, file: BinaryIO, processes: "ProcessTree", memory_at_start: int) -> str:
        """Wait for the next line of the file, and return the verdict in it.

        Raises:
            Wrong: the reason why there will be no verdict.
        """
        line, pause, process = b"", 0.01, processes.process
        started, (seconds_at_start, _) = time.monotonic(), processes.usage()
        while True:
            # This is asked before the file is read, since a last line still counts.
            ended = not process.is_alive()
            line += file.readline(MAX_LINE)
            if line.endswith(b"\n") or len(line) > MAX_LINE:
                return read_verdict(line)
            if ended:
                raise Wrong("the answer ended the process that called it (exit status "
                            f"{process.exitcode}). Does it call os._exit, or does it crash?")
            if self.stop.is_set():
                raise RuntimeError("the grading was stopped")
            seconds, memory = processes.usage()
            self._check_limits(seconds - seconds_at_start, time.monotonic() - started,
                               memory - memory_at_start)
            pause = min(2 * pause, 0.1)
            process.join(pause)

    def _check_limits(self, computed: float, elapsed: float, memory: int) -> None:
        """Raise `Wrong` if an answer is beyond a limit: seconds, seconds by the clock, or bytes."""
        if computed > self.seconds:
            raise Wrong(f"there was no result within {self.seconds:g} seconds of computing time. "
                        "Is there a loop that never ends?")
        if elapsed > WALL_TIME_FACTOR * self.seconds:
            raise Wrong(f"there was no result within {WALL_TIME_FACTOR * self.seconds:g} seconds "
                        f"by the clock. The answer computed for {computed:.1f} of them. Does it "
                        "wait for something that never happens, or is there a loop that never "
                        "ends?")
        if memory > self.memory * 2 ** 20:
            raise Wrong(f"the answer needed more than {self.memory} MiB of memory. Is a tensor or "
                        "a list far too large, or does a list grow without end?")


class ProcessTree:
    """A process and all processes that it started, as far as they were seen."""

    def __init__(self, process):
        self.process = process
        self.members: set[psutil.Process] = set()

    def usage(self) -> tuple[float, int]:
        """Return the seconds of computing time and the bytes of memory of all members together."""
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self.process.pid)
            self.members |= {parent, *parent.children(recursive=True)}
        seconds, memory = 0.0, 0
        for member in self.members:
            # A member that has ended is left out.
            with contextlib.suppress(psutil.Error):
                computed, held = sum(member.cpu_times()[:4]), member.memory_info().rss
                seconds += computed
                memory += held
        return seconds, memory

    def kill(self) -> None:
        """Kill the process and everything that it started.

        A process that left its session and lost its parent before it was seen is not found.
        """
        self.usage()
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        for member in self.members:
            with contextlib.suppress(psutil.Error):
                member.kill()
        self.process.join()


def read_verdict(line: bytes) -> str:
    """Return the verdict in a line of the file.

    Raises:
        Wrong: the line was not written by the grader.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, str):
        raise Wrong("the answer wrote into the file that only the grader should write to")
    return message


def check_answers(path: Path, work_dir: Path, chapter: str,
                  answers: dict[str, list[Version]]) -> None:
    """Call the checks, and write each verdict as a line of JSON. The new process runs this."""
    _isolate(work_dir)
    torch.set_num_threads(1)
    # The parent process limits the time.
    _checking.TIME_LIMIT = _checking.WAITING_LIMIT = threading.TIMEOUT_MAX
    _checking.FirstWords = LimitedWords
    with open(path, "w") as file:
        for name, versions in answers.items():
            message = best_verdict(CHECKS[chapter][name], name, versions)
            if len(message) > MAX_VERDICT:
                message = message[:MAX_VERDICT] + " …"
            print(json.dumps(message), file=file, flush=True)


def _isolate(work_dir: Path) -> None:
    """Separate this process from the grader: an empty folder, no terminal, no open files.

    The process ends when the grader ends.
    """
    parent = multiprocessing.parent_process()
    if os.name == "posix":
        # A session of its own is killed together with everything that was started in it.
        os.setsid()
        # Through open files an answer could disturb other notebooks. One file tells whether the
        # grader is still alive.
        os.closerange(3, parent.sentinel)
        os.closerange(parent.sentinel + 1, 1024)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdin = open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8", errors="replace")
    builtins.input = no_input
    os.chdir(work_dir)


def no_input(prompt: object = "") -> str:
    """Stand in for the function `input`."""
    raise EOFError("`input` was called, but nobody types while a notebook is graded. Give the "
                   "value as an argument or as a constant")


def _end_with(parent) -> None:
    """End this process when its parent has ended."""
    parent.join()
    os._exit(1)


def best_verdict(check: Callable, name: str, versions: list[Version]) -> str:
    """Return "passed" if a version of the answer passes, and else the verdict on the first one."""
    verdicts = []
    for statements in versions:
        verdicts.append(verdict(check, name, statements))
        if verdicts[-1] == PASSED:
            return PASSED
    return verdicts[0]


def verdict(check: Callable, name: str, statements: Version) -> str:
    """Run the statements, and return what the check says about the function called `name`.

    If the answer is rejected, the verdict also says which statement before it failed.
    """
    namespace = {"__name__": "__main__"}
    failure = _run_statements(statements, namespace)
    if name not in namespace:
        return f"✗ {name}: {failure}" if failure else MISSING
    result = check(namespace[name])
    if result.passed:
        return PASSED
    if not result.attempted:
        return NOT_ATTEMPTED
    return f"{result.message} ({failure})" if failure else result.message


def _run_statements(statements: Version, namespace: dict) -> str:
    """Run the statements one after another, and return a sentence about the first that fails."""
    # With the sources of the cells, error messages can show a line.
    for file, cell in {statement.file: statement.cell for statement in statements}.items():
        linecache.cache[file] = len(cell), None, cell.splitlines(True), file
    failure = ""
    for statement in statements:
        try:
            _run_statement(statement, namespace)
        except (Exception, SystemExit) as error:
            failure = failure or (f"{statement.file}, which it needs, stops with "
                                  f"{type(error).__name__}: {str(error)[:200]}")
    return failure


def _run_statement(statement: Statement, namespace: dict) -> None:
    """Run one statement."""
    outcome = eval(marshal.loads(statement.code), namespace)
    # A statement with `await` gives a coroutine.
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


class LimitedWords(_checking.FirstWords):
    """The output of an answer, which may have only so many characters."""

    count = 0

    def write(self, text):
        self.count += len(text)
        if self.count > MAX_PRINTED:
            raise Wrong(f"the answer printed more than {MAX_PRINTED:,} characters. "
                        "Is there a print in a loop that never ends?")
        return super().write(text)
