"""Grade a folder of notebooks: one row of verdicts for each notebook.

    python -m gptlib grade submissions/

The grader takes from each notebook the functions that its chapter's exercises ask for, and calls
the library's own checks on them. A check that was deleted or rewritten in the notebook makes no
difference.

The grader does not run a notebook as a whole. It executes only the code that an exercise's function
needs: the function's definition, the imports, helper functions and constants that it names, and the
statements that change these.

The grader is not a sandbox. Each notebook is graded in a process of its own, with limits on time,
memory and output, so that an accident in one notebook does not spoil the others. Code that wants to
read or delete your files, or to write its own verdict, can do so. Grade the work of strangers in a
container.

The file has three parts: the table of grades, the code that a notebook defines, and the process in
which that code is checked.
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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from types import CodeType
from typing import BinaryIO

import psutil
import torch
from IPython.core.inputtransformer2 import TransformerManager

import gptlib.classroom.exercises
from gptlib.classroom.exercises import _checking
from gptlib.classroom.exercises._comparing import Wrong


def checks_of(chapter: str) -> dict[str, Callable]:
    """Return the checks of a chapter, by the name of the exercise."""
    module = importlib.import_module(f"gptlib.classroom.exercises.{chapter}")
    names = [name for name in vars(module) if name.startswith("check_")]
    return {name.removeprefix("check_"): getattr(module, name) for name in names}


MODULES = pkgutil.iter_modules(gptlib.classroom.exercises.__path__)
CHAPTERS = [module.name for module in MODULES if not module.name.startswith("_")]
CHECKS = {chapter: checks_of(chapter) for chapter in CHAPTERS}

PASSED = "passed"
NOT_ATTEMPTED = "not attempted"
MISSING = "missing: the notebook defines no function with this name"

# A notebook file may have this many bytes, its outputs included.
MAX_NOTEBOOK_BYTES = 50_000_000
# A function may print this many characters while it is checked.
MAX_PRINTED = 1_000_000
# A verdict may have this many characters, and its line of JSON this many bytes.
MAX_VERDICT = 2_000
MAX_LINE = 20 * MAX_VERDICT
# The limit by the clock is this many times the limit on computing time.
WALL_TIME_FACTOR = 6
# A process must start within this many seconds, also on a slow and busy machine.
START_SECONDS = 120

# Python 3.11 counts the depth of syntax trees for all threads together. Only one thread may parse.
PARSING = threading.Lock()
# These statements only give names to functions and modules.
DEFINITIONS = ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef
# The bodies of these run when the functions are called, not when they are defined.
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda
# The bodies of these may not run at all. A name that they bind may keep its former value.
CONDITIONAL = ast.If, ast.For, ast.While, ast.Try
# These functions can change names that the code does not mention.
HIDDEN_CHANGES = {"exec", "eval", "globals"}


# The table of grades ------------------------------------------------------------------------------

@dataclass
class Grade:
    """A notebook's chapter, a verdict for each exercise of it, and remarks on the whole."""

    submission: str
    chapter: str = ""
    verdicts: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def row(self) -> dict[str, str]:
        """Return the row of the table, by the names of the columns."""
        passed = sum(verdict == PASSED for verdict in self.verdicts.values())
        row = {"submission": self.submission, "chapter": self.chapter, "passed": str(passed),
               "of": str(len(self.verdicts)), "remarks": "; ".join(self.remarks)}
        return {column: as_text(cell) for column, cell in (row | self.verdicts).items()}


def as_text(cell: str) -> str:
    """Return a cell that a spreadsheet shows as text, although it begins like a formula."""
    return "'" + cell if cell.startswith(("=", "+", "-", "@")) else cell


def grade(folder: Path, seconds: float = 10.0, memory: int = 1024,
          workers: int = 2) -> Iterator[Grade]:
    """Return an iterator over the grades of all notebooks below `folder`, sorted by their names.

    Args:
        seconds: the computing time for one exercise.
        memory: MiB for one notebook, in addition to what PyTorch itself takes.
        workers: how many notebooks are graded at a time.
    Raises:
        FileNotFoundError: there is no notebook in the folder.
    """
    paths = find_notebooks(Path(folder))
    if not paths:
        raise FileNotFoundError(f"there is no notebook (.ipynb) in {folder}")
    return _grade_all(Path(folder), paths, workers, Runner(seconds, memory, process_context()))


def find_notebooks(folder: Path) -> list[Path]:
    """Return the notebooks below a folder, without the copies that Jupyter saves as checkpoints."""
    paths = sorted(folder.rglob("*.ipynb"))
    return [path for path in paths if ".ipynb_checkpoints" not in path.parts]


def process_context() -> BaseContext:
    """Return the way in which processes are started.

    On Linux one server process imports PyTorch, and every new process is a fork of it. On other
    systems every process imports PyTorch itself, which is slower.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gptlib.classroom.grade"])
    return context


def _grade_all(folder: Path, paths: list[Path], workers: int, runner: "Runner") -> Iterator[Grade]:
    """Yield the grades of all notebooks in order, while several of them are graded at a time."""
    def work(path):
        return grade_notebook(path, path.relative_to(folder).as_posix(), runner)

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, paths)
        finally:
            # If the caller stops early, this stops the processes that still run.
            runner.stop.set()


def grade_notebook(path: Path, name: str, runner: "Runner") -> Grade:
    """Grade one notebook.

    Any error becomes a remark, so that one unreadable notebook does not end the grading of the
    others.
    """
    result = Grade(name)
    try:
        _fill_in(result, Source(read_cells(path)), path.stem, runner)
    except Exception as error:
        result.remarks.append(f"not graded: {str(error) or type(error).__name__}")
    return result


def _fill_in(result: Grade, source: "Source", stem: str, runner: "Runner") -> None:
    """Fill in the chapter, the verdicts and the remarks. `stem` is the name of the file."""
    result.chapter = source.chapter()
    if not result.chapter:
        result.remarks.append("the notebook defines no function of any exercise. "
                              "Is it one of the course's notebooks?")
        return
    result.remarks += source.remarks(stem, result.chapter)
    exercises = CHECKS[result.chapter]
    answers = {exercise: source.needed_for(exercise)
               for exercise in exercises if exercise in source.bound_by}
    missing = {exercise: source.unreadable(exercise) or MISSING for exercise in exercises}
    result.verdicts = missing | runner.verdicts(result.chapter, answers)
    for exercise, statements in answers.items():
        if result.verdicts[exercise] not in (PASSED, NOT_ATTEMPTED):
            result.remarks += _remarks_on_left_out(exercise, source.left_out(exercise, statements))


def _remarks_on_left_out(exercise: str, cells: list[str]) -> list[str]:
    """Return a remark if cells were left out that may matter for a rejected answer."""
    if not cells:
        return []
    return [f"{exercise} was checked without running {', '.join(cells)}, "
            "which may change something that it needs"]


def write_csv(grades: Iterable[Grade], path: Path) -> Iterator[Grade]:
    """Write the table, and yield each grade as soon as its row is in the file.

    If the grading ends early, the rows that were written remain. The table has one row for each
    notebook and one column for each exercise. The file begins with the mark by which spreadsheets
    recognise utf-8.
    """
    rows = []
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
        for grade in grades:
            rows.append(grade.row())
            # A new row may need new columns, so the whole table is written again.
            file.seek(0)
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            yield grade


# The code that a notebook defines -----------------------------------------------------------------

def read_cells(path: Path) -> list[str]:
    """Return the source of each code cell.

    Raises:
        ValueError: the file is not a notebook, or it is too large.
    """
    size = path.stat().st_size
    if size > MAX_NOTEBOOK_BYTES:
        raise ValueError(f"the file has {size:,} bytes, and the limit is {MAX_NOTEBOOK_BYTES:,}. "
                         "Clear the notebook's outputs and save it again")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file cannot be read as a notebook: {error}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("the file is not a notebook, because it has no list of cells")
    sources = [read_cell(cell, number) for number, cell in enumerate(notebook["cells"], start=1)]
    return [source for source in sources if source is not None]


def read_cell(cell: dict, number: int) -> str | None:
    """Return the source of a code cell, and None for a cell of another type."""
    if not isinstance(cell, dict) or "cell_type" not in cell:
        raise ValueError(f"cell {number} has no cell_type")
    if cell["cell_type"] != "code":
        return None
    lines = cell.get("source")
    if not isinstance(lines, str | list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"cell {number} has no source, which must be a text or a list of lines")
    return "".join(lines)


@dataclass(frozen=True, eq=False)
class Statement:
    """One statement at the top level of a cell.

    Attributes:
        file: the name of its cell in error messages.
        cell: the source of its cell.
        binds: the names to which it assigns a value.
        needs_now: the names that must have a value before it runs.
        needs_later: the names that its functions look up when they are called.
        changes_now: the names whose objects it changes when it runs, and those that it may bind.
        changes_later: the names whose objects its functions change when they are called.
        may_change: the names that it uses when it runs, and whose objects it could change.
    """

    tree: ast.stmt
    file: str
    cell: str
    binds: frozenset[str]
    needs_now: frozenset[str]
    needs_later: frozenset[str]
    changes_now: frozenset[str]
    changes_later: frozenset[str]
    may_change: frozenset[str]


class Source:
    """The statements of a notebook, and which of them bind or change each name.

    Attributes:
        statements: all statements of the code cells, in the notebook's order.
        bound_by: for each name, the indices of the statements that bind it.
        changed_by: for each name, the indices of the statements that change its object.
        broken: the cells that are not valid Python, each with its error.
    """

    def __init__(self, cells: list[str]):
        self.cells = cells
        self.statements: list[Statement] = []
        self.bound_by: dict[str, list[int]] = {}
        self.changed_by: dict[str, list[int]] = {}
        self.broken: list[tuple[str, Exception]] = []
        # The names that stand for functions and modules, and those of them that gptlib provides.
        self._defined = set(dir(builtins))
        self._from_gptlib: set[str] = set()
        for number, cell in enumerate(cells, start=1):
            self._add_cell(f"cell {number}", cell)

    def _add_cell(self, file: str, cell: str) -> None:
        """Add the statements of a cell. A cell that is not valid Python is recorded as broken."""
        # A cell magic such as %%time is not Python.
        cell = re.sub(r"^\s*%%.*", "", cell)
        try:
            # IPython turns lines that begin with % or ! into function calls.
            cell = TransformerManager().transform_cell(cell)
            with PARSING:
                for tree in ast.parse(cell).body:
                    self._add(self._analyse(tree, file, cell))
        # IPython and the compiler raise errors of many types.
        except Exception as error:
            self.broken.append((cell, error))

    def _analyse(self, tree: ast.stmt, file: str, cell: str) -> Statement:
        """Return a statement with the names that it binds, needs and changes."""
        code = compiled(tree, file)
        binds = frozenset(names_stored(code))
        needs_now = frozenset(names_loaded(code, now=True)) - names_stored_first(code)
        needs_later = frozenset(names_loaded(code, now=False))
        # A call of a gptlib function, such as a check or a plot, changes no object of the notebook.
        harmless = root(getattr(tree, "value", None)) in self._from_gptlib
        changes = self._changed(tree, now=True)
        if not harmless:
            changes |= self._changed_by_functions(needs_now)
        return Statement(
            tree, file, cell, binds, needs_now, needs_later,
            changes_now=frozenset(changes | binds if isinstance(tree, CONDITIONAL)
                                  else changes - binds),
            changes_later=needs_later & self._changed(tree, now=False),
            may_change=frozenset() if harmless else needs_now - binds)

    def _add(self, statement: Statement) -> None:
        """Append a statement, and record which names it binds and changes."""
        number = len(self.statements)
        self.statements.append(statement)
        for name in statement.binds:
            # A stub that was left below an answer does not replace the answer.
            if name not in self.bound_by or not is_stub(statement.tree):
                self.bound_by.setdefault(name, []).append(number)
        for name in statement.changes_now:
            self.changed_by.setdefault(name, []).append(number)
        self._defined -= statement.binds
        self._from_gptlib -= statement.binds
        if isinstance(statement.tree, DEFINITIONS):
            self._defined |= statement.binds
        if comes_from_gptlib(statement.tree):
            self._from_gptlib |= statement.binds

    def _changed(self, tree: ast.stmt, now: bool) -> set[str | None]:
        """Return the names whose objects a statement changes itself.

        A statement changes an object by an assignment to a part of it (`a[0] = 1`, `a.x = 1`), and
        perhaps by a call whose result is not used (`a.append(1)`, `setup(a)`). A name that a
        statement declares as `global` counts too. `now` has the meaning that it has for `nodes`.
        """
        changed = set()
        for node in nodes(tree, now):
            if isinstance(node, ast.Subscript | ast.Attribute):
                if not isinstance(node.ctx, ast.Load):
                    changed.add(root(node))
            elif isinstance(node, ast.Global):
                changed.update(node.names)
            elif isinstance(node, ast.Expr):
                changed |= self._changed_by_call(node.value)
        return changed

    def _changed_by_call(self, expression: ast.expr) -> set[str | None]:
        """Return the names whose objects a call may change, if the expression is a call."""
        # In `[parts.append(i) for i in numbers]` the call is the element of the comprehension.
        call = getattr(expression, "elt", expression)
        if not isinstance(call, ast.Call):
            return set()
        called = root(call)
        if called not in self._defined:
            # A method may change its object.
            return {called}
        if called in self._from_gptlib | {"print", "display"}:
            return set()
        # A function may change its arguments.
        return {root(part) for part in (*call.args, *call.keywords)} - self._defined

    def _changed_by_functions(self, names: Iterable[str]) -> set[str]:
        """Return the names that functions change, and the functions that they call in turn."""
        changed, todo, seen = set(), set(names), set()
        while todo:
            name = todo.pop()
            seen.add(name)
            for i in self.bound_by.get(name, []):
                changed |= self.statements[i].changes_later
                todo |= self.statements[i].needs_later - seen
        return changed

    def needed_for(self, name: str) -> list[Statement]:
        """Return the statements that `name` needs, in the notebook's order.

        These are the statements that bind or change `name`, and in turn the statements that bind or
        change the names that those look up. The result is the same as if the notebook had been run
        in order. A lookup (name, before) therefore asks for the value that the name has just before
        a statement. That is the statement that looks the name up. For a name inside a function it
        is each statement that may call the function.
        """
        # `from … import *` may bind any name.
        wanted = {i for i, statement in enumerate(self.statements)
                  if "*" in names_imported(statement.tree)}
        lookups, seen = [(name, len(self.statements))], set()
        while lookups:
            lookup = lookups.pop()
            if lookup in seen:
                continue
            seen.add(lookup)
            _, before = lookup
            for i in self._set_by(*lookup):
                wanted.add(i)
                lookups += self._lookups_of(i, before)
        return [self.statements[i] for i in sorted(wanted)]

    def _set_by(self, name: str, before: int) -> list[int]:
        """Return the last statement that binds a name before statement `before`.

        The statements that change the name's object after that follow it.
        """
        changes = self.changed_by.get(name, [])
        bindings = [i for i in self.bound_by.get(name, []) if i < before and i not in changes]
        last = max(bindings, default=-1)
        return bindings[-1:] + [i for i in changes if last < i < before]

    def _lookups_of(self, i: int, before: int) -> list[tuple[str, int]]:
        """Return the lookups of statement `i`, whose result statement `before` uses."""
        statement = self.statements[i]
        # Functions may be called where they are used, or by the check after the last statement.
        calls = {before, len(self.statements)}
        if not isinstance(statement.tree, DEFINITIONS):
            calls.add(i)
        now = [(name, i) for name in statement.needs_now]
        return now + [(name, call) for name in statement.needs_later for call in calls]

    def left_out(self, name: str, taken: list[Statement]) -> list[str]:
        """Return the cells of statements that were not taken, but may change what `name` needs.

        They use an object that the `taken` statements created, or a function such as `exec`.
        """
        created = set()
        for statement in taken:
            if not isinstance(statement.tree, DEFINITIONS):
                created |= statement.binds
        suspects = created - {name} | HIDDEN_CHANGES
        others = [other for other in self.statements if other not in taken]
        return list(dict.fromkeys(other.file for other in others if other.may_change & suspects))

    def unreadable(self, name: str) -> str | None:
        """Return what is wrong with the cell that defines `name`, if it is not valid Python."""
        for cell, error in self.broken:
            if defines(cell, name):
                line = getattr(error, "lineno", None)
                where = f" at line {line} of the cell" if line else ""
                message = getattr(error, "msg", error)
                return f"✗ {name}: {type(error).__name__}{where}: {message}"
        return None

    def chapter(self) -> str:
        """Return the chapter that has the most exercises in this notebook, and "" if none has.

        The name of the file does not matter.
        """
        found = {chapter: sum(map(self._mentions, checks)) for chapter, checks in CHECKS.items()}
        best = max(found, key=found.get)
        return best if found[best] else ""

    def _mentions(self, name: str) -> bool:
        """Return whether the notebook binds a name, or tries to define it in a broken cell."""
        return name in self.bound_by or self.unreadable(name) is not None

    def remarks(self, stem: str, chapter: str) -> list[str]:
        """Return what a teacher should know besides the verdicts.

        The file may have another chapter's name, and its checks may be deleted or rewritten.
        """
        remarks, code = [], "\n".join(self.cells)
        if chapter not in stem:
            remarks.append(f"graded as {chapter} because of the functions that it defines")
        for name in CHECKS[chapter]:
            if not re.search(rf"\bcheck_{name}\(", code):
                remarks.append(f"the notebook has no call of check_{name}. "
                               "The grader called it all the same")
        for name in CHECKS[chapter]:
            if re.search(rf"\bcheck_{name}\s*=[^=]|\bdef\s+check_{name}\b", code):
                remarks.append(f"the notebook has its own check_{name}, "
                               "which the grader did not use")
        return remarks


def compiled(tree: ast.stmt, file: str) -> CodeType:
    """Return the code of one statement. An `await` outside functions is allowed, as in Jupyter."""
    return compile(ast.Module([tree], []), file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def names_stored(code: CodeType) -> Iterator[str]:
    """Yield the global names to which a statement assigns a value."""
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_NAME", "STORE_GLOBAL"):
            yield step.argval


def names_stored_first(code: CodeType) -> set[str]:
    """Return the names that a statement assigns before it looks them up."""
    first_use = {}
    for step in dis.get_instructions(code):
        if step.opname.endswith("_NAME"):
            first_use.setdefault(step.argval, step.opname)
    return {name for name, opname in first_use.items() if opname.startswith("STORE")}


def names_loaded(code: CodeType, now: bool, running: bool = True) -> Iterator[str]:
    """Yield the global names that a statement looks up, or sets by `global`.

    Args:
        now: True for the code that runs with the statement, False for the bodies of the functions
            that it defines.
        running: whether `code` runs with the statement.
    """
    if running == now:
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "STORE_GLOBAL"):
                yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from names_loaded(inner, now, running and runs_at_once(inner))


def runs_at_once(code: CodeType) -> bool:
    """Return whether an inner code object runs where it stands.

    Comprehensions and the bodies of classes do. The body of a function waits for a call. The
    compiler marks functions, and not classes, as "optimized".
    """
    comprehensions = "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"
    return code.co_name in comprehensions or not code.co_flags & inspect.CO_OPTIMIZED


def nodes(tree: ast.stmt, now: bool) -> Iterator[ast.AST]:
    """Yield the parts of a statement.

    Args:
        now: True for the parts that run with the statement, False for the bodies of the functions
            that it defines.
    """
    todo = [(tree, True)]
    while todo:
        node, at_once = todo.pop()
        if at_once == now:
            yield node
        at_once = at_once and not isinstance(node, FUNCTIONS)
        todo += [(inner, at_once) for inner in ast.iter_child_nodes(node)]


def root(node: ast.AST | None) -> str | None:
    """Return the name that an expression begins with: `a` for `a.b[0].c()`."""
    while node is not None and not isinstance(node, ast.Name):
        node = getattr(node, "func", None) or getattr(node, "value", None)
    return node and node.id


def comes_from_gptlib(tree: ast.stmt) -> bool:
    """Return whether a statement imports gptlib, or something from it."""
    if isinstance(tree, ast.ImportFrom):
        modules = [tree.module or ""]
    elif isinstance(tree, ast.Import):
        modules = [alias.name for alias in tree.names]
    else:
        return False
    return any(module.split(".")[0] == "gptlib" for module in modules)


def names_imported(tree: ast.stmt) -> list[str]:
    """Return the names after `from … import`."""
    return [alias.name for alias in tree.names] if isinstance(tree, ast.ImportFrom) else []


def is_stub(tree: ast.stmt) -> bool:
    """Return whether this defines a function that has only a docstring, `...` or `pass`."""
    return isinstance(tree, ast.FunctionDef) and all(map(_does_nothing, tree.body))


def _does_nothing(tree: ast.stmt) -> bool:
    constant = isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Constant)
    return constant or isinstance(tree, ast.Pass)


def defines(cell: str, name: str) -> bool:
    """Return whether the text of a cell looks as if it defined a name, although it is no Python."""
    return re.search(rf"^\s*def\s+{name}\b|^{name}\s*=", cell, re.MULTILINE) is not None


# The process in which the code is checked ---------------------------------------------------------

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

    def verdicts(self, chapter: str, answers: dict[str, list[Statement]]) -> dict[str, str]:
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
                                 answers: dict[str, list[Statement]]) -> dict[str, str]:
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
                  answers: dict[str, list[Statement]]) -> None:
    """Call the checks, and write each verdict as a line of JSON. The new process runs this."""
    _isolate(work_dir)
    torch.set_num_threads(1)
    # The parent process limits the time.
    _checking.TIME_LIMIT = _checking.WAITING_LIMIT = threading.TIMEOUT_MAX
    _checking.FirstWords = LimitedWords
    with open(path, "w") as file:
        for name, statements in answers.items():
            message = verdict(CHECKS[chapter][name], name, statements)
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
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8", errors="replace")
    os.chdir(work_dir)


def _end_with(parent) -> None:
    """End this process when its parent has ended."""
    parent.join()
    os._exit(1)


def verdict(check: Callable, name: str, statements: list[Statement]) -> str:
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


def _run_statements(statements: list[Statement], namespace: dict) -> str:
    """Run the statements one after another, and return a sentence about the first that fails."""
    failure = ""
    for statement in statements:
        try:
            _run_statement(statement, namespace)
        except (Exception, SystemExit) as error:
            failure = failure or (f"{statement.file}, which it needs, stops with "
                                  f"{type(error).__name__}: {str(error)[:200]}")
    return failure


def _run_statement(statement: Statement, namespace: dict) -> None:
    """Run one statement. Its cell's source is stored, so that error messages can show a line."""
    lines = statement.cell.splitlines(True)
    linecache.cache[statement.file] = len(statement.cell), None, lines, statement.file
    outcome = eval(compiled(statement.tree, statement.file), namespace)
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
