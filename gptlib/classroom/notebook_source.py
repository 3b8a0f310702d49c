"""Find in a notebook the statements that each answer needs.

A notebook is read as JSON and parsed, but not run. `Source` lists the statements of its cells, and
knows for each statement which names it binds, looks up and changes. `Source.versions` follows these
names backwards from an exercise's function: it returns the function's definition, the imports,
helper functions and constants that the function names, and the statements that change these.
"""

import __future__

import ast
import builtins
import dis
import importlib
import inspect
import json
import marshal
import pkgutil
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from IPython.core.inputtransformer2 import TransformerManager

import gptlib.classroom.exercises


def checks_of(chapter: str) -> dict[str, Callable]:
    """Return the checks of a chapter, by the name of the exercise."""
    module = importlib.import_module(f"gptlib.classroom.exercises.{chapter}")
    names = [name for name in vars(module) if name.startswith("check_")]
    return {name.removeprefix("check_"): getattr(module, name) for name in names}


MODULES = pkgutil.iter_modules(gptlib.classroom.exercises.__path__)
CHAPTERS = [module.name for module in MODULES if not module.name.startswith("_")]
CHECKS = {chapter: checks_of(chapter) for chapter in CHAPTERS}

# A notebook file may have this many bytes, its outputs included.
MAX_NOTEBOOK_BYTES = 50_000_000
# The code cells of a notebook may have this many characters together.
MAX_CODE = 200_000
# An answer may look up this many names. This limits the time for code that nobody would write.
MAX_LOOKUPS = 500_000

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


def read_cells(path: Path) -> list[str]:
    """Return the source of each code cell.

    Raises:
        ValueError: the file is not a notebook, or it is too large.
    """
    content = read_bytes(path)
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("the file cannot be read as a notebook, because it is not utf-8 text "
                         f"(byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file cannot be read as a notebook: {error}") from None
    sources = [read_cell(cell, number) for number, cell in enumerate(cells_of(notebook), start=1)]
    sources = [source for source in sources if source is not None]
    if (length := sum(map(len, sources))) > MAX_CODE:
        raise ValueError(f"the code cells have {length:,} characters, and the limit is "
                         f"{MAX_CODE:,}. Remove what is not part of the answers")
    return sources


def read_bytes(path: Path) -> bytes:
    """Return the content of an ordinary file that is neither empty nor too large.

    Other files, such as pipes and devices, could be read without end.
    """
    if not path.exists():
        raise ValueError("the file is a link to a file that does not exist")
    if path.is_dir():
        raise ValueError("the folder cannot be read")
    if not path.is_file():
        raise ValueError("this is not an ordinary file, but a pipe or a device")
    size = path.stat().st_size
    # Linux says that the files in /proc are empty. Some of them can be read without end.
    if size == 0:
        raise ValueError("the file is empty")
    if size > MAX_NOTEBOOK_BYTES:
        raise ValueError(f"the file has {size:,} bytes, and the limit is {MAX_NOTEBOOK_BYTES:,}. "
                         "Clear the notebook's outputs and save it again")
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None


def cells_of(notebook: object) -> list:
    """Return the cells of a notebook, which format 3 and older formats keep in worksheets."""
    sheets = notebook.get("worksheets") if isinstance(notebook, dict) else None
    if not isinstance(sheets, list):
        sheets = [notebook]
    if all(isinstance(sheet, dict) and isinstance(sheet.get("cells"), list) for sheet in sheets):
        return [cell for sheet in sheets for cell in sheet["cells"]]
    raise ValueError("the file is not a notebook, because it has no list of cells")


def read_cell(cell: dict, number: int) -> str | None:
    """Return the source of a code cell, and None for a cell of another type."""
    if not isinstance(cell, dict) or "cell_type" not in cell:
        raise ValueError(f"cell {number} has no cell_type")
    if cell["cell_type"] != "code":
        return None
    # Format 3 has another name for the source.
    lines = cell.get("source", cell.get("input"))
    if not isinstance(lines, str | list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"cell {number} has no source, which must be a text or a list of lines")
    return "".join(lines)


@dataclass(frozen=True, eq=False)
class Statement:
    """One statement at the top level of a cell.

    Attributes:
        code: the compiled statement, as the module `marshal` writes it.
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
    code: bytes
    file: str
    cell: str
    binds: frozenset[str]
    needs_now: frozenset[str]
    needs_later: frozenset[str]
    changes_now: frozenset[str]
    changes_later: frozenset[str]
    may_change: frozenset[str]

    def __getstate__(self) -> dict:
        """Return what pickle writes. A syntax tree can be too deep for it."""
        return vars(self) | {"tree": None}


# The statements that define an answer, in the order in which they are run.
Version = list[Statement]


class Source:
    """The statements of a notebook, and which of them bind or change each name.

    Attributes:
        statements: all statements of the code cells, in the notebook's order.
        bound_by: for each name, the indices of the statements that bind it.
        replaced_by: those of them that always give the name a new object.
        changed_by: for each name, the indices of the statements that may change its object, or may
            give it a new one.
        checked_by: for each exercise, the indices of the statements that call its check.
        broken: the cells that are not valid Python, each with its error.
    """

    def __init__(self, cells: list[str]):
        self.cells = cells
        self.statements: list[Statement] = []
        self.bound_by: dict[str, list[int]] = {}
        self.replaced_by: dict[str, list[int]] = {}
        self.changed_by: dict[str, list[int]] = {}
        self.checked_by: dict[str, list[int]] = {}
        self.broken: list[tuple[str, Exception]] = []
        # For each name, the statements whose functions may be called by that name.
        self._functions: dict[str, list[Statement]] = {}
        # The names that a call of a name changes, and all names that were followed to find them.
        self._changed_by_call_of: dict[str, set[str]] = {}
        self._followed: set[str] = set()
        # The names whose objects may hold functions.
        self._hold_functions: set[str] = set()
        # The compiler flags of `from __future__ import …`. Jupyter applies them to all later cells.
        self._flags = 0
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
        self._flags |= future_flags(tree)
        code = compiled(tree, file, self._flags)
        binds = frozenset(names_stored(code))
        needs_now = frozenset(names_loaded(code, now=True)) - names_stored_first(code)
        needs_later = frozenset(names_loaded(code, now=False))
        # A call of a gptlib function, such as a check or a plot, changes no object of the notebook.
        harmless = root(getattr(tree, "value", None)) in self._from_gptlib
        changes = self._changed(tree, now=True)
        if not harmless:
            changes |= self._changed_by_functions(needs_now)
        return Statement(
            tree, marshal.dumps(code), file, cell, binds, needs_now, needs_later,
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
                if name not in statement.changes_now:
                    self.replaced_by.setdefault(name, []).append(number)
                if isinstance(statement.tree, DEFINITIONS) and name not in statement.needs_now:
                    self._functions[name] = []
                    self._forget_calls_of(name)
                if statement.needs_later:
                    self._functions.setdefault(name, []).append(statement)
                    self._forget_calls_of(name)
        for name in statement.changes_now:
            self.changed_by.setdefault(name, []).append(number)
        if statement.needs_later:
            self._hold_functions |= statement.binds | statement.changes_now
        for exercise in checks_called(statement.tree):
            self.checked_by.setdefault(exercise, []).append(number)
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
        changed = set()
        for name in names:
            if name not in self._changed_by_call_of:
                self._changed_by_call_of[name] = self._follow(name)
            changed |= self._changed_by_call_of[name]
        return changed

    def _follow(self, name: str) -> set[str]:
        """Return the names that a call of `name` changes. Use the stored results for others."""
        changed, todo, seen = set(), {name}, set()
        while todo:
            name = todo.pop()
            seen.add(name)
            if name in self._changed_by_call_of:
                changed |= self._changed_by_call_of[name]
                continue
            for statement in self._functions.get(name, []):
                changed |= statement.changes_later
                todo |= statement.needs_later - seen
        self._followed |= seen
        return changed

    def _forget_calls_of(self, name: str) -> None:
        """Remove the stored results if they depend on `name`, which has a new function."""
        if name in self._followed:
            self._changed_by_call_of.clear()
            self._followed.clear()

    def versions(self, name: str) -> list[Version]:
        """Return the statements that define an answer, at one or two places of the notebook.

        The first place is the call of the answer's check. A constant that is changed after the
        check does not belong to the answer. The second place is the end of the notebook, where a
        helper function may be that the answer lacked before.
        """
        last_binding = max(self.bound_by.get(name, []), default=-1)
        end = len(self.statements)
        checks = [i for i in self.checked_by.get(name, []) if i > last_binding]
        places = [*checks[-1:], end]
        versions = [self.needed_for(name, place) for place in places]
        return versions[:1] if versions[0] == versions[-1] else versions

    def needed_for(self, name: str, end: int) -> Version:
        """Return the statements that `name` needs before statement `end`, in the notebook's order.

        These are the statements that bind or change `name`, and in turn the statements that bind or
        change the names that those look up. The result is the same as if the notebook had been run
        in order up to `end`.

        A lookup (name, before, call) asks for the value that the name has just before statement
        `before`. Functions that this value is, or holds, may be called by statement `call`.
        """
        # `from … import *` may bind any name.
        wanted = {i for i, statement in enumerate(self.statements[:end])
                  if "*" in names_imported(statement.tree)}
        lookups, seen = [(name, end, end)], set()
        while lookups:
            lookup = lookups.pop()
            i = self._last_set(*lookup[:2])
            if i is None or lookup in seen:
                continue
            seen.add(lookup)
            if len(seen) > MAX_LOOKUPS:
                raise ValueError(f"the code that {name} needs is too large to be followed")
            wanted.add(i)
            lookups += self._lookups_of(i, lookup[0], lookup[2], end)
        return [self.statements[i] for i in sorted(wanted)]

    def _last_set(self, name: str, before: int) -> int | None:
        """Return the last statement before `before` that binds a name or changes its object."""
        last = -1
        for numbers in (self.replaced_by.get(name, []), self.changed_by.get(name, [])):
            if n_before := bisect_left(numbers, before):
                last = max(last, numbers[n_before - 1])
        return last if last >= 0 else None

    def _lookups_of(self, i: int, name: str, call: int,
                    end: int) -> Iterator[tuple[str, int, int]]:
        """Yield the lookups of statement `i`, which sets the value of `name` for `call`."""
        statement = self.statements[i]
        for needed in statement.needs_now:
            yield needed, i, i
        # Functions may be called where they are used, or by the check.
        calls = {call, end}
        if not isinstance(statement.tree, DEFINITIONS):
            calls.add(i)
        for needed in statement.needs_later:
            yield from ((needed, place, place) for place in calls)
        if name in statement.changes_now:
            # The statement changes an object, which comes from the statements before it.
            yield name, i, call if name in self._hold_functions else i

    def left_out(self, name: str, taken: Version) -> list[str]:
        """Return the cells of statements that were not taken, but may change what `name` needs.

        They use an object that the `taken` statements created, or a function such as `exec`.
        """
        created = set()
        for statement in taken:
            if not isinstance(statement.tree, DEFINITIONS):
                created |= statement.binds
        suspects = created - {name} | HIDDEN_CHANGES
        taken_ids = set(map(id, taken))
        others = [other for other in self.statements if id(other) not in taken_ids]
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


def compiled(tree: ast.stmt, file: str, flags: int) -> CodeType:
    """Return the code of one statement. An `await` outside functions is allowed, as in Jupyter."""
    flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(ast.Module([tree], []), file, "exec", flags)


def future_flags(tree: ast.stmt) -> int:
    """Return the compiler flags that a statement `from __future__ import …` sets."""
    flags = 0
    if isinstance(tree, ast.ImportFrom) and tree.module == "__future__":
        for alias in tree.names:
            # For another name the compiler raises a SyntaxError.
            if alias.name in __future__.all_feature_names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags


def checks_called(tree: ast.stmt) -> Iterator[str]:
    """Yield the names of the exercises whose checks a statement calls when it runs."""
    for node in nodes(tree, now=True):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called.startswith("check_"):
                yield called.removeprefix("check_")


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
    return re.search(rf"^[ \t]*def[ \t]+{name}\b|^{name}[ \t]*=", cell, re.MULTILINE) is not None
