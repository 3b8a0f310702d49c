"""Grade a folder of notebooks: the library's own checks, on the functions that the notebooks define, a row for each notebook.

    python -m gptlib grade submissions/

No notebook is run as a whole. Of its code only that is executed which an exercise's function needs: its definition, the
imports, helpers and constants that it names, and what changes these. Checks that were deleted or rewritten in the notebook
make no difference.

This is no sandbox. A process of its own, with limits on time, memory and output, keeps an accident in one notebook from
spoiling the rest; code that wants to read or delete your files, or to write its own verdict, can. Grade strangers' work in
a container.
"""

import ast
import asyncio
import builtins
import contextlib
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
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from types import CodeType
from typing import BinaryIO

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
MOST_WORDS = 2_000                                      # characters of a verdict
MOST_SENT = 20 * MOST_WORDS                             # bytes in which a verdict is sent
PATIENCE = 6                                            # times the limit on computing that an answer may take by the clock
START = 120                                             # seconds in which a process must begin, on a slow and busy machine too
DEFINITIONS = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda
PERHAPS = ast.If, ast.For, ast.While, ast.Try           # what these bind may stay as it was
UNSEEN = {"exec", "eval", "globals"}                    # what these change stands nowhere in the code


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
    return _grades(Path(folder), paths, workers, Examiner(seconds, memory, processes))


def _grades(folder: Path, paths: list[Path], workers: int, examiner: "Examiner") -> Iterator[Grade]:
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(lambda path: grade_notebook(path, path.relative_to(folder).as_posix(), examiner), paths)
        finally:
            examiner.stop.set()                                         # where it is given up before its end


def grade_notebook(path: Path, name: str, examiner: "Examiner") -> Grade:
    """Grade one notebook. Whatever is wrong with it becomes a remark."""
    result = Grade(name)
    try:
        source = Source(read_cells(path))
        result.chapter = source.chapter()
        if not result.chapter:
            result.remarks.append("defines no function of any exercise: is it one of the course's notebooks?")
            return result
        exercises = CHECKS[result.chapter]
        result.remarks += source.remarks(path.stem, result.chapter)
        answers = {exercise: source.needed_for(exercise) for exercise in exercises if exercise in source.bound_by}
        result.verdicts = ({exercise: source.unreadable(exercise) or MISSING for exercise in exercises}
                           | examiner.examine(result.chapter, answers))
        for exercise, statements in answers.items():
            cells = source.left_out(exercise, statements)
            if cells and result.verdicts[exercise] not in (PASSED, NOT_ATTEMPTED):
                result.remarks.append(f"{exercise} was checked without {', '.join(cells)}, which may change what it needs")
    except Exception as error:                                          # one notebook ends no batch
        result.remarks.append(f"not graded: {str(error) or type(error).__name__}")
    return result


def write_csv(grades: Iterable[Grade], path: Path) -> Iterator[Grade]:
    """Pass `grades` on, each when it stands in the table, so that whatever ends the grading early costs no row.

    A row for each notebook, a column for each exercise; with the mark by which spreadsheets know utf-8.
    """
    rows = []
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        for grade in grades:
            rows.append(grade.row())
            file.seek(0)                                                # a new row may bring new columns
            writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            yield grade


# What a notebook defines ----------------------------------------------------------------------------------------------

def read_cells(path: Path) -> list[str]:
    """The sources of the code cells.

    Raises:
        ValueError: this is no notebook, or too large a one.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, and {MOST_BYTES:,} is the most; clear its outputs and save it again")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read as a notebook: {error}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("it is no notebook: it holds no list of cells")
    return [text for i, cell in enumerate(notebook["cells"]) if (text := read_cell(cell, i + 1)) is not None]


def read_cell(cell: dict, number: int) -> str | None:
    """The source of a code cell; None for one of another kind."""
    if not isinstance(cell, dict) or "cell_type" not in cell:
        raise ValueError(f"its cell {number} has no cell_type")
    if cell["cell_type"] != "code":
        return None
    lines = cell.get("source")
    if not isinstance(lines, str | list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"its cell {number} has no source: text, or a list of lines")
    return "".join(lines)


@dataclass(frozen=True, eq=False)
class Statement:
    """One statement at the top level of a cell."""

    tree: ast.stmt
    file: str                                           # the cell's name in error messages
    cell: str
    needs_now: frozenset[str]                           # the names that must be bound before it runs
    needs_later: frozenset[str]                         # those that its functions look up when they are called
    changes_later: frozenset[str]                       # those whose objects its functions change when they are called
    may_change: frozenset[str]                          # those that it has in hand when it runs


class Source:
    """A notebook's statements, and which of them bind each name, in the notebook's order."""

    def __init__(self, cells: list[str]):
        self.cells, self.statements, self.bound_by, self.changed_by, self.broken = cells, [], {}, {}, []
        self.defined, self.course = set(dir(builtins)), set()                       # functions and modules, and those from gptlib
        for i, cell in enumerate(cells):
            cell = re.sub(r"^\s*%%.*", "", cell)                                    # %%time and its like
            try:
                cell = TransformerManager().transform_cell(cell)                    # %lines and !lines become calls
                with PARSING:
                    for tree in ast.parse(cell).body:
                        self._add(tree, f"cell {i + 1}", cell)
            except Exception as error:                                              # IPython and the compiler know many
                self.broken.append((cell, error))

    def _add(self, tree: ast.stmt, file: str, cell: str) -> None:
        code, number = compiled(tree, file), len(self.statements)
        first_use = {step.argval: step.opname for step in reversed(list(dis.get_instructions(code))) if step.opname.endswith("_NAME")}
        binds = {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}
        now = frozenset(name for name in names_loaded(code, now=True) if not first_use.get(name, "").startswith("STORE"))
        later = frozenset(names_loaded(code, now=False))
        harmless = root(getattr(tree, "value", None)) in self.course                # a check, a picture: it changes nothing here
        changes = set(self._changed(tree, now=True)).union(*self._effects(() if harmless else now))
        self.statements.append(Statement(tree, file, cell, now, later, later & set(self._changed(tree, now=False)),
                                         frozenset() if harmless else now - binds))
        for name in binds:
            if not (name in self.bound_by and is_stub(tree)):                       # a stub that was left behind replaces no answer
                self.bound_by.setdefault(name, []).append(number)
        for name in changes | binds if isinstance(tree, PERHAPS) else changes - binds:
            self.changed_by.setdefault(name, []).append(number)
        self.defined = self.defined | binds if isinstance(tree, DEFINITIONS) else self.defined - binds
        self.course = self.course | binds if comes_from_gptlib(tree) else self.course - binds

    def _changed(self, tree: ast.stmt, now: bool) -> Iterator[str]:
        """The names whose objects a statement stores into, or may change by a call that is not asked for its result."""
        for node in nodes(tree, now):
            if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
                yield root(node)
            elif isinstance(node, ast.Global):
                yield from node.names
            elif isinstance(node, ast.Expr) and isinstance(call := getattr(node.value, "elt", node.value), ast.Call):
                called = root(call)
                if called not in self.defined:
                    yield called                                                    # a method of an object, which may change it
                elif called not in self.course | {"print", "display"}:              # a function, which may change what it is given
                    yield from {root(part) for part in (*call.args, *call.keywords)} - self.defined

    def _effects(self, names: Iterable[str]) -> Iterator[frozenset[str]]:
        """The names that functions, and the functions that they call, change when they are called."""
        todo, seen = set(names), set()
        while todo:
            name = todo.pop()
            seen.add(name)
            for i in self.bound_by.get(name, []):
                yield self.statements[i].changes_later
                todo |= self.statements[i].needs_later - seen

    def needed_for(self, name: str) -> list[Statement]:
        """The statements that define `name` and, in turn, whatever they name, as if the notebook had been run in order."""
        end = len(self.statements)
        wanted = {i for i, statement in enumerate(self.statements) if "*" in names_imported(statement.tree)}
        todo, seen = [(name, end)], set()
        while todo:
            name, before = wish = todo.pop()
            if wish in seen:
                continue
            seen.add(wish)
            changes = self.changed_by.get(name, [])
            last = max((i for i in self.bound_by.get(name, []) if i < before and i not in changes), default=-1)
            for i in [last] * (last >= 0) + [i for i in changes if last < i < before]:
                wanted.add(i)
                statement = self.statements[i]
                called = {before, end} if isinstance(statement.tree, DEFINITIONS) else {i, before, end}
                todo += [(name, i) for name in statement.needs_now]
                todo += [(name, moment) for name in statement.needs_later for moment in called]
        return [self.statements[i] for i in sorted(wanted)]

    def left_out(self, name: str, taken: list[Statement]) -> list[str]:
        """The cells of other statements that have in hand what `taken` make, or change names unseen."""
        made = {name for name, places in self.bound_by.items() for i in places
                if self.statements[i] in taken and not isinstance(self.statements[i].tree, DEFINITIONS)}
        suspects = made - {name} | UNSEEN
        return list(dict.fromkeys(other.file for other in self.statements if other not in taken and other.may_change & suspects))

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
    """The global names that a statement looks up or sets when it runs, or, if not `now`, when a function that it defines is called."""
    if running == now:
        yield from (step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "STORE_GLOBAL"))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            at_once = inner.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>") or not inner.co_flags & inspect.CO_OPTIMIZED
            yield from names_loaded(inner, now, running and at_once)            # a class's body is not "optimized"; a function's is


def compiled(tree: ast.stmt, file: str) -> CodeType:
    return compile(ast.Module([tree], []), file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def nodes(tree: ast.stmt, now: bool) -> Iterator[ast.AST]:
    """What of a statement runs when it does, or, if not `now`, when a function that it defines is called."""
    todo = [(tree, True)]
    for node, at_once in todo:                                                  # which grows meanwhile
        if at_once == now:
            yield node
        todo += [(inner, at_once and not isinstance(node, FUNCTIONS)) for inner in ast.iter_child_nodes(node)]


def root(node: ast.AST | None) -> str | None:
    """The name that an expression begins with, as `a` in `a.b[0].c()`."""
    while node is not None and not isinstance(node, ast.Name):
        node = getattr(node, "func", None) or getattr(node, "value", None)
    return node and node.id


def comes_from_gptlib(tree: ast.stmt) -> bool:
    modules = [tree.module or ""] if isinstance(tree, ast.ImportFrom) else [alias.name for alias in getattr(tree, "names", [])]
    return isinstance(tree, ast.Import | ast.ImportFrom) and any(module.split(".")[0] == "gptlib" for module in modules)


def names_imported(tree: ast.stmt) -> list[str]:
    return [alias.name for alias in tree.names] if isinstance(tree, ast.ImportFrom) else []


def is_stub(tree: ast.stmt) -> bool:
    """Whether this defines a function that has only a docstring, `...` or `pass`."""
    return isinstance(tree, ast.FunctionDef) and all(
        isinstance(step, ast.Pass) or isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) for step in tree.body)


def defines(cell: str, name: str) -> bool:
    return re.search(rf"^\s*def\s+{name}\b|^{name}\s*=", cell, re.MULTILINE) is not None


# Calling it, in a process of its own ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Examiner:
    """Has answers called in processes of their own, within limits."""

    seconds: float
    memory: int
    processes: BaseContext
    stop: threading.Event = field(default_factory=threading.Event)                  # set where the grading is given up

    def examine(self, chapter: str, answers: dict[str, list[Statement]]) -> dict[str, str]:
        """A verdict for each answer. One that ends its process, or has to be stopped with it, costs the others only a new process."""
        verdicts = {}
        while left := {name: statements for name, statements in answers.items() if name not in verdicts}:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                mail, desk, family = Path(folder, "mail"), Path(folder, "desk"), set()
                desk.mkdir()
                process = self.processes.Process(target=answer_for, args=(mail, desk, chapter, left), daemon=True)
                process.start()
                try:
                    self.await_start(mail, process)
                    with open(mail, "rb") as file:
                        _, at_first = used(process.pid, family)
                        for name in left:
                            verdicts[name] = self.await_verdict(file, process, family, at_first)
                except Wrong as wrong:
                    verdicts[name] = f"✗ {name}: {wrong}"
                finally:
                    end(process, family)
        return verdicts

    def await_start(self, mail: Path, process) -> None:
        began = time.monotonic()
        while not mail.exists():
            if not process.is_alive() or time.monotonic() - began > START or self.stop.is_set():
                raise RuntimeError(f"a process for grading did not start within {START} seconds (exit status {process.exitcode})")
            process.join(0.02)

    def await_verdict(self, file: BinaryIO, process, family: set[psutil.Process], at_first: int) -> str:
        """The next line of the mail.

        Raises:
            Wrong: why it will not come.
        """
        text, pause, clock, (computed, _) = b"", 0.01, time.monotonic(), used(process.pid, family)
        while True:
            ended = not process.is_alive()                                          # asked first, since its last words still count
            text += file.readline(MOST_SENT)
            if text.endswith(b"\n") or len(text) > MOST_SENT:
                return read_verdict(text)
            if ended:
                raise Wrong(f"it ended the process that called it (exit status {process.exitcode}): does it call os._exit, or crash?")
            if self.stop.is_set():
                raise RuntimeError("the grading was given up")
            computing, holds = used(process.pid, family)
            if computing - computed > self.seconds:
                raise Wrong(f"no answer within {self.seconds:g} seconds of computing: is there a loop that never ends?")
            if time.monotonic() - clock > PATIENCE * self.seconds:
                raise Wrong(f"no answer within {PATIENCE * self.seconds:g} seconds by the clock, {computing - computed:.1f} of them "
                            "computing: does it wait for what never comes, or is there a loop that never ends?")
            if holds - at_first > self.memory * 2 ** 20:
                raise Wrong(f"it took more than {self.memory} MiB of memory: is something far too large, or growing without end?")
            pause = min(2 * pause, 0.1)
            process.join(pause)


def read_verdict(line: bytes) -> str:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, str):
        raise Wrong("it wrote into the file that only the grader writes to")
    return said


def used(pid: int, family: set[psutil.Process]) -> tuple[float, int]:
    """Seconds of computing and bytes of memory of a process and of those that it started, which are added to `family`."""
    with contextlib.suppress(psutil.Error):
        family |= {psutil.Process(pid), *psutil.Process(pid).children(recursive=True)}
    seconds, held = 0.0, 0
    for process in family:
        with contextlib.suppress(psutil.Error):                                     # it has ended
            seconds, held = seconds + sum(process.cpu_times()[:4]), held + process.memory_info().rss
    return seconds, held


def end(process, family: set[psutil.Process]) -> None:
    """Kill a process and what it started, but for a process that left its session and its parent unseen."""
    used(process.pid, family)
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.join()


def answer_for(mail: Path, desk: Path, chapter: str, answers: dict[str, list[Statement]]) -> None:
    """What the process does: call the checks, in an empty folder, without a terminal, and write each verdict into the mail."""
    watched = multiprocessing.parent_process().sentinel
    if os.name == "posix":
        os.setsid()                                                                 # so that it ends with all that it starts
        os.closerange(3, watched)                                                   # by which other notebooks could be disturbed
        os.closerange(watched + 1, 1024)
    threading.Thread(target=lambda: multiprocessing.parent_process().join() or os._exit(1), daemon=True).start()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8", errors="replace")
    os.chdir(desk)
    torch.set_num_threads(1)
    _checking.TIME_LIMIT, _checking.FirstWords = threading.TIMEOUT_MAX, LimitedWords        # the time is kept from outside
    with open(mail, "w") as file:
        for name, statements in answers.items():
            said = verdict(CHECKS[chapter][name], name, statements)
            print(json.dumps(said[:MOST_WORDS] + " …" * (len(said) > MOST_WORDS)), file=file, flush=True)


def verdict(check, name: str, statements: list[Statement]) -> str:
    """What the check says, and, where that is no praise, which statement before it has failed."""
    namespace, stopped = {"__name__": "__main__"}, ""
    for statement in statements:
        linecache.cache[statement.file] = len(statement.cell), None, statement.cell.splitlines(True), statement.file
        try:
            outcome = eval(compiled(statement.tree, statement.file), namespace)
            if inspect.iscoroutine(outcome):                                        # of an `await` outside functions
                asyncio.run(outcome)
        except (Exception, SystemExit) as error:
            stopped = stopped or f"{statement.file}, which it needs, stops with {type(error).__name__}: {str(error)[:200]}"
    if name not in namespace:
        return f"✗ {name}: {stopped}" if stopped else MISSING
    result = check(namespace[name])
    if result.passed or not result.attempted:
        return PASSED if result.passed else NOT_ATTEMPTED
    return f"{result.message} ({stopped})" if stopped else result.message


class LimitedWords(_checking.FirstWords):
    """What an answer prints is counted, and too much is a mistake."""

    count = 0

    def write(self, text):
        self.count += len(text)
        if self.count > MOST_OUTPUT:
            raise Wrong(f"it printed more than {MOST_OUTPUT:,} characters: is there a print in a loop that never ends?")
        return super().write(text)
