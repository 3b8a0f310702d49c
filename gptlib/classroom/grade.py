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

This file finds the notebooks and writes the table of grades. notebook_source.py finds the code that
an answer needs, and grading_process.py runs it.
"""

import codecs
import csv
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gptlib.checks import some_path
from gptlib.classroom.grading_process import (
    MISSING,
    NOT_ATTEMPTED,
    PASSED,
    Runner,
    process_context,
)
from gptlib.classroom.notebook_source import CHECKS, Source, read_cells
from gptlib.config import ConfigError, above, at_least, checked_value

# An exercise may have at most this much computing time, so that every grading ends.
MAX_SECONDS = 3600.0
# Browsers may save a notebook as .ipynb.txt or .ipynb.json.
NOTEBOOK = re.compile(r"\.ipynb(\.txt|\.json)?$", re.IGNORECASE)
# These are no notebooks of students: Jupyter's checkpoints, and what macOS adds to archives.
LITTER = re.compile(r"\.ipynb_checkpoints$|__MACOSX$|\._")


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
        folder: a folder, or a single notebook.
        seconds: the computing time for one exercise.
        memory: MiB for one notebook, in addition to what PyTorch itself takes.
        workers: how many notebooks are graded at a time.
    Raises:
        FileNotFoundError: the folder does not exist, or there is no notebook in it.
        ConfigError: a limit is too small or too large.
        ValueError: `folder` is a file of another kind.
    """
    folder = Path(some_path("folder", folder))
    seconds = checked_value("seconds", seconds, above(0.0))
    if seconds > MAX_SECONDS:
        raise ConfigError(f"seconds={seconds!r} should be at most {MAX_SECONDS}")
    memory = checked_value("memory", memory, at_least(1))
    workers = checked_value("workers", workers, at_least(1))
    paths = find_notebooks(folder)
    folder = folder if folder.is_dir() else folder.parent
    return _grade_all(folder, paths, min(workers, len(paths)),
                      Runner(seconds, memory, process_context()))


def find_notebooks(folder: Path) -> list[Path]:
    """Return the notebooks below a folder. For the path of a notebook, return that alone."""
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not folder.is_dir():
        if not NOTEBOOK.search(folder.name):
            raise ValueError(f"{folder} is neither a folder nor a notebook (.ipynb). "
                             "If it is an archive, unpack it first")
        return [folder]
    paths, errors = [], []
    for parent, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if not LITTER.match(name)]
        paths += [Path(parent, name) for name in files
                  if NOTEBOOK.search(name) and not LITTER.match(name)]
    # A folder that cannot be read stands in the table in place of its notebooks.
    paths += [Path(error.filename) for error in errors]
    if not paths:
        raise FileNotFoundError(f"there is no notebook (.ipynb) in {folder}")
    return sorted(paths)


def _grade_all(folder: Path, paths: list[Path], workers: int, runner: Runner) -> Iterator[Grade]:
    """Yield the grades of all notebooks in order, while several of them are graded at a time."""
    def work(path):
        return grade_notebook(path, path.relative_to(folder).as_posix(), runner)

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, paths)
        finally:
            # If the caller stops early, this stops the processes that still run.
            runner.stop.set()


def grade_notebook(path: Path, name: str, runner: Runner) -> Grade:
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


def _fill_in(result: Grade, source: Source, stem: str, runner: Runner) -> None:
    """Fill in the chapter, the verdicts and the remarks. `stem` is the name of the file."""
    result.chapter = source.chapter()
    if not result.chapter:
        result.remarks.append("the notebook defines no function of any exercise. "
                              "Is it one of the course's notebooks?")
        return
    result.remarks += source.remarks(stem, result.chapter)
    exercises = CHECKS[result.chapter]
    answers = {exercise: source.versions(exercise)
               for exercise in exercises if exercise in source.bound_by}
    missing = {exercise: source.unreadable(exercise) or MISSING for exercise in exercises}
    result.verdicts = missing | runner.verdicts(result.chapter, answers)
    for exercise, versions in answers.items():
        if result.verdicts[exercise] not in (PASSED, NOT_ATTEMPTED):
            cells = source.left_out(exercise, versions[0])
            result.remarks += _remarks_on_left_out(exercise, cells)


def _remarks_on_left_out(exercise: str, cells: list[str]) -> list[str]:
    """Return a remark if cells were left out that may matter for a rejected answer."""
    if not cells:
        return []
    return [f"{exercise} was checked without running {', '.join(cells)}, "
            "which may change something that it needs"]


def check_is_table(path: Path) -> None:
    """Raise a ConfigError if `path` is a folder, or a file without grades, which would be lost."""
    if path.is_dir():
        raise ConfigError(
            f"out={str(path)!r} is a folder, it should be a file, such as "
            f"{str(path / 'grades.csv')!r}"
        )
    if not path.is_file():
        return
    with open(path, "rb") as file:
        beginning = file.read(1000)
    columns = ",".join(Grade("").row())
    if beginning and not beginning.removeprefix(codecs.BOM_UTF8).startswith(columns.encode()):
        raise ConfigError(
            f"out={str(path)!r} is a file that is not a table of grades, so it is not overwritten: "
            "give the name of a new file"
        )


def keep_earlier_table(path: Path) -> None:
    """Rename an earlier table grades.csv to grades-1.csv, or to the next free number.

    It may be about another class, or a teacher may have written into it.
    """
    if path.is_file() and path.stat().st_size:
        names = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in itertools.count(1))
        path.rename(next(name for name in names if not os.path.lexists(name)))


def write_csv(grades: Iterable[Grade], path: Path) -> Iterator[Grade]:
    """Write the table, and yield each grade as soon as its row is in the file.

    If the grading ends early, the rows that were written remain. The table has one row for each
    notebook and one column for each exercise. The file begins with the mark by which spreadsheets
    recognise utf-8. An earlier table is renamed first (see `keep_earlier_table`).
    """
    rows = []
    check_is_table(Path(path))
    keep_earlier_table(Path(path))
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
