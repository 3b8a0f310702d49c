"""Grade a folder of notebooks: the library's own checks, on the functions that the notebooks define, a row for each notebook.

    python -m gptlib grade submissions/

No notebook is run as a whole. Of its code only that is executed which an exercise's function needs: its definition, and
the imports, helpers and constants that it names. Checks that were deleted or rewritten in the notebook make no difference.

This is no sandbox. A process of its own, with limits on time, memory and output, keeps an accident in one notebook from
spoiling the rest; code that wants to read or delete your files can. Grade strangers' work in a container.
"""

import ast
import csv
import dis
import importlib
import inspect
import json
import linecache
import multiprocessing
import os
import pkgutil
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

import psutil
import torch
from IPython.core.inputtransformer2 import TransformerManager

import gptlib.exercises
from gptlib.exercises import _checking
from gptlib.exercises._comparing import Wrong

CHAPTERS = [found.name for found in pkgutil.iter_modules(gptlib.exercises.__path__) if not found.name.startswith("_")]
CHECKS = {chapter: {name.removeprefix("check_"): check for name, check in
                    vars(importlib.import_module(f"gptlib.exercises.{chapter}")).items() if name.startswith("check_")}
          for chapter in CHAPTERS}
PASSED, NOT_ATTEMPTED, MISSING = "passed", "not attempted", "missing: the notebook defines no function of this name"
PARSING = threading.Lock()                              # Python 3.11 counts the depth of all threads' trees together
MOST_OUTPUT = 1_000_000                                 # characters that an answer may print
MOST_BYTES = 50_000_000                                 # of a notebook's file, outputs and all
PATIENCE = 6                                            # times the limit on computing that an answer may take by the clock
START = 120                                             # seconds in which a process must begin, on a slow and busy machine too


@dataclass
class Grade:
    """A notebook's chapter, a verdict for each exercise of it, and remarks on the whole."""

    submission: str
    chapter: str = ""
    verdicts: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def row(self) -> dict[str, str]:
        passed = sum(verdict == PASSED for verdict in self.verdicts.values())
        row = {"submission": self.submission, "chapter": self.chapter, "passed": str(passed), "of": str(len(self.verdicts)),
               "remarks": "; ".join(self.remarks)} | self.verdicts
        return {column: "'" * text.startswith(("=", "+", "-", "@")) + text for column, text in row.items()}     # text, and no formula


def grade(folder: Path, seconds: float = 10.0, memory: int = 1024, workers: int = 2) -> Iterator[Grade]:
    """A grade for every notebook below `folder`, in the order of their names.

    Args:
        seconds: computing time for one exercise.
        memory: MiB for one notebook, on top of what PyTorch takes by itself.
        workers: how many notebooks are graded at a time.
    Raises:
        FileNotFoundError: there is no notebook in the folder.
    """
    paths = [path for path in sorted(Path(folder).rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise FileNotFoundError(f"there is no notebook (.ipynb) in {folder}")
    processes = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        processes.set_forkserver_preload(["gptlib.grade"])              # imports PyTorch once, not once a notebook
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda path: grade_notebook(path, path.relative_to(folder).as_posix(), seconds, memory, processes), paths)


def grade_notebook(path: Path, name: str, seconds: float, memory: int, processes) -> Grade:
    """Grade one notebook; `processes` is the multiprocessing context in which its functions are called."""
    result = Grade(name)
    try:
        source = Source(read_cells(path))
    except (ValueError, OSError) as error:
        result.remarks.append(f"cannot be read as a notebook: {error}")
        return result
    result.chapter = source.chapter()
    if not result.chapter:
        result.remarks.append("defines no function of any exercise: is it one of the course's notebooks?")
        return result
    exercises = CHECKS[result.chapter]
    result.remarks += source.remarks(path.stem, result.chapter)
    result.verdicts = {exercise: source.unreadable(exercise) or MISSING for exercise in exercises}
    answers = {exercise: source.needed_for(exercise) for exercise in exercises if exercise in source.bound_by}
    result.verdicts |= examine(result.chapter, answers, seconds, memory, processes)
    return result


def write_csv(grades: list[Grade], path: Path) -> None:
    """A row for each notebook, a column for each exercise; with the mark by which spreadsheets know utf-8."""
    rows = [grade.row() for grade in grades]
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)


# What a notebook defines ----------------------------------------------------------------------------------------------

def read_cells(path: Path) -> list[str]:
    """The sources of the code cells.

    Raises:
        ValueError: this is no notebook, or too large a one.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, and {MOST_BYTES:,} is the most; clear its outputs and save it again")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("it holds no list of cells")
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@dataclass(frozen=True)
class Statement:
    """One statement at the top level of a cell."""

    tree: ast.stmt
    file: str                                           # the cell's name in error messages
    cell: str
    needs_now: frozenset[str]                           # the names that must be bound before it runs
    needs_later: frozenset[str]                         # those that its functions look up when they are called


class Source:
    """A notebook's statements, and which of them bind each name, in the notebook's order."""

    def __init__(self, cells: list[str]):
        self.cells, self.statements, self.bound_by, self.broken = cells, [], {}, []
        for i, cell in enumerate(cells):
            cell = re.sub(r"^\s*%%.*", "", cell)                                    # %%time and its like
            try:
                cell = TransformerManager().transform_cell(cell)                    # %lines and !lines become calls
                with PARSING:
                    body = ast.parse(cell).body
                for tree in body:
                    self._add(tree, f"cell {i + 1}", cell)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                self.broken.append((cell, error))

    def _add(self, tree: ast.stmt, file: str, cell: str) -> None:
        code = compile(ast.Module([tree], []), file, "exec")
        needs = frozenset(names_loaded(code, now=True)), frozenset(names_loaded(code, now=False))
        self.statements.append(Statement(tree, file, cell, *needs))
        for name in {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}:
            if not (name in self.bound_by and is_stub(tree)):                       # a stub that was left behind replaces no answer
                self.bound_by.setdefault(name, []).append(len(self.statements) - 1)

    def needed_for(self, name: str) -> list[Statement]:
        """The statements that define `name` and, in turn, whatever they name, as if the notebook had been run in order."""
        end = len(self.statements)
        wanted = {i for i, statement in enumerate(self.statements) if "*" in names_imported(statement.tree)}
        todo = [(name, end)]
        while todo:
            name, before = todo.pop()
            i = max((i for i in self.bound_by.get(name, []) if i < before), default=None)
            if i is not None and i not in wanted:
                wanted.add(i)
                todo += [(name, i) for name in self.statements[i].needs_now] + [(name, end) for name in self.statements[i].needs_later]
        return [self.statements[i] for i in sorted(wanted)]

    def unreadable(self, name: str) -> str | None:
        """What is wrong with the cell that defines `name`, where that cell is no Python."""
        for cell, error in self.broken:
            if defines(cell, name):
                where = f" at line {error.lineno} of its cell" if getattr(error, "lineno", None) else ""
                return f"✗ {name}: {type(error).__name__}{where}: {getattr(error, 'msg', error)}"
        return None

    def chapter(self) -> str:
        """The chapter most of whose exercises are here, whatever the file is called; "" if there is none."""
        found = {chapter: sum(name in self.bound_by or self.unreadable(name) is not None for name in checks)
                 for chapter, checks in CHECKS.items()}
        best = max(found, key=found.get)
        return best if found[best] else ""

    def remarks(self, stem: str, chapter: str) -> list[str]:
        """What a teacher may want to know before believing the file's name and what it printed."""
        code = "\n".join(self.cells)
        renamed = [f"graded as {chapter}, for the functions that it defines"] if chapter not in stem else []
        deleted = [name for name in CHECKS[chapter] if not re.search(rf"\bcheck_{name}\(", code)]
        rewritten = [name for name in CHECKS[chapter] if re.search(rf"\bcheck_{name}\s*=[^=]|\bdef\s+check_{name}\b", code)]
        return (renamed + [f"has no call of check_{name}, and was checked all the same" for name in deleted]
                + [f"has a check_{name} of its own, which was not asked" for name in rewritten])


def names_loaded(code: CodeType, now: bool, running: bool = True) -> Iterator[str]:
    """The global names that a statement looks up when it runs, or, if not `now`, when a function that it defines is called."""
    if running == now:
        yield from (step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL"))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            at_once = inner.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>") or not inner.co_flags & inspect.CO_OPTIMIZED
            yield from names_loaded(inner, now, running and at_once)            # a class's body is not "optimized"; a function's is


def names_imported(tree: ast.stmt) -> list[str]:
    return [alias.name for alias in tree.names] if isinstance(tree, ast.ImportFrom) else []


def is_stub(tree: ast.stmt) -> bool:
    """Whether this defines a function that has only a docstring, `...` or `pass`."""
    return isinstance(tree, ast.FunctionDef) and all(
        isinstance(step, ast.Pass) or isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) for step in tree.body)


def defines(cell: str, name: str) -> bool:
    return re.search(rf"^\s*def\s+{name}\b|^{name}\s*=", cell, re.MULTILINE) is not None


# Calling it, in a process of its own ----------------------------------------------------------------------------------

def examine(chapter: str, answers: dict[str, list[Statement]], seconds: float, memory: int, processes) -> dict[str, str]:
    """A verdict for each answer. One that ends its process, or has to be stopped with it, costs the others only a new process."""
    verdicts = {}
    while left := {name: statements for name, statements in answers.items() if name not in verdicts}:
        here, there = processes.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            process = processes.Process(target=answer_for, args=(there, chapter, left, folder), daemon=True)
            process.start()
            there.close()
            try:
                reason = listen(here, process, verdicts, len(left), seconds, memory)
            finally:
                end(process)
        if reason:
            name = next(name for name in left if name not in verdicts)
            verdicts[name] = f"✗ {name}: {reason}"
    return verdicts


def listen(connection, process, verdicts: dict[str, str], count: int, seconds: float, memory: int) -> str | None:
    """Add `count` verdicts to `verdicts` as they come; or say why the one that is awaited will not come."""
    if not connection.poll(START):
        raise RuntimeError(f"a process for grading did not start within {START} seconds")
    received, at_first = -1, 0                                                      # the first message only says that it is there
    while received < count:
        if connection.poll(0.02):
            try:
                verdicts |= json.loads(connection.recv_bytes(1_000_000))
            except EOFError:
                process.join(1)
                if received < 0:
                    raise RuntimeError(f"a process for grading could not start (exit status {process.exitcode})") from None
                return f"it ended the process that called it (exit status {process.exitcode}): does it call os._exit, or crash?"
            received += 1
            clock, (computed, held) = time.monotonic(), used(process.pid)
            at_first = held if received == 0 else at_first
            continue
        computing, holds = used(process.pid)
        if computing - computed > seconds or time.monotonic() - clock > PATIENCE * seconds:
            return f"no answer within {seconds:g} seconds of computing: is there a loop that never ends?"
        if holds - at_first > memory * 2 ** 20:
            return f"it took more than {memory} MiB of memory: is something far too large, or growing without end?"
    return None


def used(pid: int) -> tuple[float, int]:
    """Seconds of computing and bytes of memory of a process; nothing, if it has just ended."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss
    except psutil.Error:
        return 0.0, 0


def end(process) -> None:
    """Kill a process and what it started."""
    try:
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
    except psutil.Error:
        pass
    process.join()


def answer_for(connection, chapter: str, answers: dict[str, list[Statement]], folder: str) -> None:
    """What the process does: call the checks, in an empty folder, without a terminal, and send each verdict."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.chdir(folder)
    torch.set_num_threads(1)
    _checking.TIME_LIMIT, _checking.FirstWords = threading.TIMEOUT_MAX, LimitedWords        # the time is kept from outside
    connection.send_bytes(b"{}")
    for name, statements in answers.items():
        connection.send_bytes(json.dumps({name: verdict(CHECKS[chapter][name], name, statements)}).encode())
    os.chdir(os.path.dirname(folder))                                               # Windows deletes no folder that is in use


def verdict(check, name: str, statements: list[Statement]) -> str:
    namespace = {"__name__": "__main__"}
    try:
        for statement in statements:
            linecache.cache[statement.file] = len(statement.cell), None, statement.cell.splitlines(True), statement.file
            exec(compile(ast.Module([statement.tree], []), statement.file, "exec"), namespace)
    except (Exception, SystemExit) as error:
        return f"✗ {name}: {statement.file}, which it needs, stops with {type(error).__name__}: {str(error)[:200]}"
    result = check(namespace[name])
    return PASSED if result.passed else result.message if result.attempted else NOT_ATTEMPTED


class LimitedWords(_checking.FirstWords):
    """What an answer prints is counted, and too much is a mistake."""

    count = 0

    def write(self, text):
        self.count += len(text)
        if self.count > MOST_OUTPUT:
            raise Wrong(f"it printed more than {MOST_OUTPUT:,} characters: is there a print in a loop that never ends?")
        return super().write(text)
