"""A class hands in its notebooks. Each gets a row of verdicts, and none spoils another one's."""

import copy
import csv
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import answers_attention
import psutil
import pytest
from collecting import NOTEBOOKS, solutions

from gptlib.__main__ import main
from gptlib.classroom import grade, grading_process, notebook_source
from gptlib.classroom.exercises import attention
from gptlib.classroom.exercises._comparing import Wrong
from gptlib.classroom.grade import Grade
from gptlib.classroom.grading_process import MAX_PRINTED, MAX_VERDICT, MISSING, PASSED
from gptlib.classroom.notebook_source import CHECKS, MAX_CODE, Source

CHAPTER = "02_attention"
RIGHT = solutions("attention")
LIBRARY = "import math\nimport torch\nfrom torch.nn import functional as F\n"
LOWER = "return torch.ones(T, T, dtype=torch.bool).tril()"
# No other process has this command line.
SLEEP = f"sleep 301.{os.getpid()}"
# Writes to every file that is open in the process.
INTRUDE = """for fd in range(3, 99):
        try: os.write(fd, {})
        except OSError: pass
    """
GRADE = [sys.executable, "-m", "gptlib", "grade"]


def notebook(answers, chapter=CHAPTER, without=(), more=()):
    """Return a chapter as a student hands it in.

    Args:
        answers: sources that replace the stubs of these functions.
        without: cells that contain one of these words are deleted.
        more: sources of cells that are added at the end.
    """
    original = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    cells = []
    for cell in copy.deepcopy(original["cells"]):
        source = "".join(cell["source"])
        stub = re.match(r"def (\w+)\(", source)
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            if stub and stub[1] in answers:
                cell["source"] = answers[stub[1]]
        if not any(word in source for word in without):
            cells.append(cell)
    cells += [{"cell_type": "code", "id": f"more{n}", "metadata": {}, "execution_count": None,
               "outputs": [], "source": source} for n, source in enumerate(more)]
    return json.dumps(original | {"cells": cells})


def mask(body, top=""):
    """Return a notebook whose answers are right, except that causal_mask has this body."""
    return notebook(RIGHT | {"causal_mask": f"{top}\ndef causal_mask(T):\n    {body}\n"})


def python(program):
    """Return a notebook whose causal_mask runs a Python program in a process of its own."""
    body = f"subprocess.run([sys.executable, '-c', {program!r}])"
    return mask(body, "import subprocess, sys")


def names_in(code):
    """Return the names that a function uses, also inside of its comprehensions."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


def wrong_answers():
    """Yield notebooks with one wrong answer each, taken from the tests of the exercises.

    Each comes with the name of its file and the words that the verdict must contain.
    """
    helpers = set(vars(answers_attention)) - {"F", "math", "torch"}
    alone = [answer.values for answer in answers_attention.WRONG
             if not helpers & names_in(answer.values[1].__code__)]
    for n, (exercise, function, words) in enumerate(alone[::3]):
        source = re.sub(r"^@.*\n", "", inspect.getsource(function), flags=re.MULTILINE)
        source = re.sub(rf"\bdef {function.__name__}\(", f"def {exercise}(", source)
        text = notebook(RIGHT | {exercise: LIBRARY + source})
        yield f"wrong {n} {CHAPTER}.ipynb", text, {exercise: [f"✗ {exercise}: ", *words]}


def broken_cells():
    """Yield notebooks whose second cell has no type or no source."""
    for name, cell, lack in (
            ("no source", {"cell_type": "code"}, "source"),
            ("null for a source", {"cell_type": "code", "source": None}, "source"),
            ("number for a source", {"cell_type": "code", "source": [1]}, "source"),
            ("text for a cell", "x = 1", "cell_type"),
            ("no cell_type", {"source": "x = 1"}, "cell_type")):
        text = json.dumps({"cells": [{"cell_type": "markdown"}, cell]})
        yield f"{name}.ipynb", text, {"remarks": [f"not graded: cell 2 has no {lack}"]}


def old_format(text):
    """Return a notebook as nbformat 3 stores it."""
    cells = json.loads(text)["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["input"] = cell.pop("source")
    sheets = [{"cells": cells[:9]}, {"cells": cells[9:]}]
    return json.dumps({"nbformat": 3, "nbformat_minor": 0, "worksheets": sheets})


# The notebooks of a class: the name of the file, its content, and for each column of the table
# that is not just "passed" the words that the column must contain. {} stands for the chapter.
CLASS = [
    ("right {}", notebook(RIGHT), {}),
    ("another chapter, 01_bigram", notebook(solutions("bigram"), "01_bigram"), {}),
    ("untouched {}", notebook({}), dict.fromkeys(CHECKS["attention"], ["not attempted"])),

    # Limits on time, memory and output.
    ("endless loop {}", mask("while True: T += 1"), {"causal_mask": ["loop that never ends"]}),
    ("endless loop above {}", mask("return MASKS[T]", "MASKS = [T for T in iter(int, 1)]"),
     {"causal_mask": ["never ends"]}),
    ("endless loop's child {}", python("while True: pass"),
     {"causal_mask": ["loop that never ends"]}),
    ("sleeper {}", mask("time.sleep(10 ** 6)", "import time"),
     {"causal_mask": ["6 seconds by the clock"]}),
    ("memory hog {}", mask("return [torch.ones(10 ** 7) for _ in range(100)]"),
     {"causal_mask": ["more than 300 MiB of memory"]}),
    ("memory hog's child {}", python("x = b'x' * 700_000_000; import time; time.sleep(99)"),
     {"causal_mask": ["more than 300 MiB of memory"]}),
    ("flood {}", mask("while True: print('x' * 99)"),
     {"causal_mask": ["printed more than 1,000,000"]}),
    ("flood past print {}",
     mask("os.write(1, b'flood' * 10 ** 6)\n    raise ValueError", "import os"),
     {"causal_mask": ["ValueError"]}),
    ("loud {}", mask(f"print('x' * 9999); {LOWER}"), {}),
    ("501 commands {}", notebook(RIGHT, more=["!ls\n" * 501]), {}),

    # The process ends, or its messages are unusual.
    ("exit {}", mask("sys.exit(0)", "import sys"), {"causal_mask": ["SystemExit", "sys.exit(0)"]}),
    ("exit above {}", mask("return LIMIT", "import sys\nLIMIT = sys.exit(0)"),
     {"causal_mask": ["NameError", "cell", "which it needs, stops with SystemExit"]}),
    ("hard exit {}", mask("os._exit(0)", "import os"),
     {"causal_mask": ["ended the process", "status 0"]}),
    ("raises {}", mask("return torch.ones(T)[T]"), {"causal_mask": ["IndexError"]}),
    ("long message {}", mask("raise type('x' * 2_000_000, (Exception,), {})"),
     {"causal_mask": ["xxx", "x …"]}),
    ("surrogate {}", mask("raise ValueError('\\ud800')"), {"causal_mask": ["ValueError: \\ud800"]}),

    # Answers that disturb the grader, and what they leave behind.
    ("writes to whatever is open {}", mask(INTRUDE.format(b"[[[\n") + LOWER, "import os"),
     {"causal_mask": ["only the grader"]}),
    ("floods whatever is open {}", mask(INTRUDE.format(b"[" * 100_000) + LOWER, "import os"),
     {"causal_mask": ["only the grader"]}),
    ("writes half a message {}",
     mask(INTRUDE.format(b"\0\0") + "time.sleep(10 ** 6)", "import os, time"),
     {"causal_mask": ["6 seconds by the clock"]}),
    ("leaves a child {}",
     mask(f"subprocess.Popen('{SLEEP} & sleep 0', shell=True); {LOWER}", "import subprocess"), {}),
    ("leaves a session {}",
     mask(f"subprocess.Popen('{SLEEP}'.split(), start_new_session=True)\n"
          "    time.sleep(1)\n    os._exit(0)", "import os, subprocess, time"),
     {"causal_mask": ["ended the process"]}),
    ("writes {}", mask(f"open('junk.txt', 'w').write('x'); {LOWER}"), {}),

    # The code around an answer.
    ("awaits {}",
     mask("return READY(T)",
          f"import asyncio\nasync def ready():\n    return lambda T: {LOWER[7:]}\n"
          "await asyncio.sleep(0)\nREADY = await ready()"), {}),
    ("by another name {}",
     mask(f"if CONFIG['low']: {LOWER}", "CONFIG = {}\nconfig = CONFIG\nconfig['low'] = True"),
     {"causal_mask": ["KeyError"], "remarks": ["causal_mask was checked without running cell"]}),
    ("syntax {}", notebook(RIGHT | {"causal_mask": "def causal_mask(T)\n    return T"}),
     {"causal_mask": ["SyntaxError", "line 1", "expected ':'"]}),
    ("with helpers {}", notebook(
        RIGHT | {"causal_mask": "%%time\nimport torch as t\n"
                                "def causal_mask(T): return lower(T, ALLOWED)"},
        more=["%matplotlib inline\nALLOWED = True",
              "def lower(T, value):\n    return t.full((T, T), value).tril()"]), {}),
    ("global at the top {}", notebook(
        RIGHT | {"causal_mask": f"global low\nlow = 1\ndef causal_mask(T): {LOWER}"}), {}),
    ("annotations {}", mask(LOWER, "from __future__ import annotations\n"
                                   "def unused(x: Undefined) -> Undefined: ...").replace(
        "causal_mask(T)", "causal_mask(T: Undefined) -> Undefined"), {}),
    ("input {}", mask(f"input(); {LOWER}"),
     {"causal_mask": ["EOFError: `input` was called, but nobody types", "line 2"]}),
    ("input above {}", mask("return LIMIT", "LIMIT = int(input('How many? '))"),
     {"causal_mask": ["stops with EOFError: `input` was called"]}),
    ("constant changed after its check {}", notebook(
        RIGHT | {"causal_mask": "k = 0\ndef causal_mask(T):\n"
                                "    return torch.ones(T, T, dtype=torch.bool).tril(k)"},
        more=["k = 7"]), {}),
    ("a long sum {}", mask("return low", f"low = {' + '.join(['0'] * 900)}"),
     {"causal_mask": ["✗"]}),
    ("stub left behind {}",
     notebook(RIGHT, more=["def causal_mask(T):\n    '''Rows and columns.'''\n    ..."]), {}),

    # Deleted and rewritten checks, unusual names and places.
    ("my homework (final)", notebook(RIGHT), {"remarks": ["graded as attention"]}),
    ("deleted check {}", notebook(RIGHT, without=["check_causal_mask("]),
     {"remarks": ["no call of check_causal_mask"]}),
    ("redefined check {}", notebook(
        RIGHT | {"causal_mask": "def causal_mask(T): return T"},
        more=["def check_causal_mask(function):\n    print('✓')\n"
              "exercises.check_causal_mask = check_causal_mask"]),
     {"causal_mask": ["✗"], "remarks": ["its own check_causal_mask"]}),
    ("deleted answer {}", notebook(RIGHT, without=["def causal_mask"]),
     {"causal_mask": ["missing", "with this name"]}),
    ("=formula {}", notebook(RIGHT), {}),
    ("in a folder/02_attention", notebook(RIGHT), {}),

    # Files that are not notebooks, or hardly.
    ("format 3 {}", old_format(notebook(RIGHT)), {}),
    ("worksheets without cells", '{"worksheets": [{}, 1]}',
     {"remarks": ["not graded: the file is not"]}),
    ("worksheets are a number", '{"worksheets": 1}',
     {"remarks": ["not graded: the file is not"]}),
    ("empty", "", {"remarks": ["not graded: the file is empty"]}),
    ("half a letter", b"\xc3(",
     {"remarks": ["not graded: the file cannot be", "not utf-8 text (byte 0)"]}),
    ("too much code", notebook({}, more=["x = 1\n" * (MAX_CODE // 6)]),
     {"remarks": ["not graded: the code cells have", "limit is 200,000. Remove"]}),
    ("byte order mark {}", "\ufeff" + notebook(RIGHT), {}),
    ("essay", json.dumps({"cells": []}), {"remarks": ["defines no function of any exercise"]}),
    ("cut off", notebook(RIGHT)[:1000],
     {"remarks": ["not graded: the file cannot be read as a notebook", "line 1"]}),
    ("no notebook", "[]", {"remarks": ["not graded", "no list of cells"]}),
    ("brackets", "[" * 100_000,
     {"remarks": ["not graded: the file cannot be read as a notebook", "recursion"]}),
]
CLASS = [(name.replace("{}", CHAPTER) + ".ipynb", *rest) for name, *rest in CLASS]
CLASS += [*wrong_answers(), *broken_cells()]
NO_NOTEBOOKS = [name for name, _, expected in CLASS
                if re.match("not graded|.*defines no", expected.get("remarks", [""])[0])]


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def row_name(name):
    """Return what the table shows for a file. A formula is marked as text."""
    return f"'{name}" if name.startswith("=") else name


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Grade the class, and return the rows of the table by submission."""
    folder = tmp_path_factory.mktemp("class")
    for name, text, _ in CLASS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    checkpoints = folder / ".ipynb_checkpoints"
    checkpoints.mkdir()
    copy_of_right = checkpoints / f"right {CHAPTER}-checkpoint.ipynb"
    copy_of_right.write_text(notebook(RIGHT), encoding="utf-8")
    out = tmp_path_factory.mktemp("grades") / "a new folder" / "grades.csv"
    limits = ["--seconds", "1", "--memory", "300", "--workers", "2"]
    assert main(["grade", str(folder), "--out", str(out), *limits]) == 0
    with open(out, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    files = [path for path in folder.rglob("*.*") if ".ipynb_checkpoints" not in path.parts]
    # No answer has written a file beside the notebooks.
    assert {path.relative_to(folder).as_posix() for path in files} == {name for name, _, _ in CLASS}
    return {row["submission"]: row for row in rows}


def test_every_child_process_of_an_answer_is_killed(table):
    processes = psutil.process_iter(["cmdline"])
    commands = [" ".join(process.info["cmdline"] or []) for process in processes]
    assert not [command for command in commands if SLEEP in command]


def test_length_of_a_verdict_is_limited(table):
    assert all(len(cell) < MAX_VERDICT + 10 for row in table.values() for cell in row.values())


def test_files_of_an_answer_are_not_written_into_the_working_directory(table):
    # The fixture looks beside the notebooks.
    assert not Path("junk.txt").exists()


def test_every_submission_has_one_row(table):
    assert len(CLASS) >= 30
    assert set(table) == {row_name(name) for name, _, _ in CLASS}


@pytest.mark.parametrize(("name", "expected"), [(name, expected) for name, _, expected in CLASS],
                         ids=[name for name, _, _ in CLASS])
def test_row_names_the_mistake_and_passes_the_other_exercises(table, name, expected):
    row = table[row_name(name)]
    for column, words in expected.items():
        for word in words:
            assert word.lower() in row[column].lower()
    if name in NO_NOTEBOOKS:
        assert (row["chapter"], row["passed"], row["of"]) == ("", "0", "0")
        return
    checks = CHECKS[row["chapter"]]
    failed = [exercise for exercise in checks if row[exercise] != "passed"]
    assert failed == [exercise for exercise in checks if exercise in expected]
    assert (row["passed"], row["of"]) == (str(len(checks) - len(failed)), str(len(checks)))
    assert bool(row["remarks"]) == ("remarks" in expected)


def test_verdict_is_the_message_of_the_library_s_check(table, capsys):
    result = attention.check_causal_mask(lambda T: T)
    assert table[f"redefined check {CHAPTER}.ipynb"]["causal_mask"] == result.message


def test_folder_without_notebooks_is_an_error(tmp_path, capsys):
    assert main(["grade", str(tmp_path)]) == 1
    assert "there is no notebook" in capsys.readouterr().err


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*homework"):
        grade.grade(tmp_path / "homework")


def test_single_notebook_is_graded(tmp_path):
    path = tmp_path / f"{CHAPTER}.ipynb"
    path.write_text(notebook(RIGHT), encoding="utf-8")
    (tmp_path / "other.ipynb").write_text("[]")
    [result] = grade.grade(path)
    assert result.submission == path.name and set(result.verdicts.values()) == {PASSED}


def test_archive_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "all.zip").touch()
    with pytest.raises(ValueError, match="neither a folder nor a notebook .* unpack it"):
        grade.grade(tmp_path / "all.zip")


def test_files_that_are_no_submissions_are_ignored(tmp_path):
    names = {"a/b.ipynb", "upper.IPYNB", "browser.ipynb.txt", ".hidden.ipynb"}
    for name in (*names, "a/._b.ipynb", "__MACOSX/a/b.ipynb", ".ipynb_checkpoints/b.ipynb",
                 "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = grade.find_notebooks(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == names


@pytest.mark.skipif(sys.platform != "linux", reason="needs pipes and devices")
def test_files_that_can_be_read_without_end_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    for name, target in {"device": "/dev/zero", "kernel": "/proc/kmsg", "nothing": "gone"}.items():
        (tmp_path / f"{name}.ipynb").symlink_to(target)
    started = time.monotonic()
    remarks = [result.row()["remarks"] for result in grade.grade(tmp_path)]
    assert remarks == ["not graded: this is not an ordinary file, but a pipe or a device",
                       "not graded: the file is empty",
                       "not graded: the file is a link to a file that does not exist",
                       "not graded: this is not an ordinary file, but a pipe or a device"]
    assert time.monotonic() - started < 60


def test_unreadable_folder_has_a_row(tmp_path, monkeypatch):
    # The user root may read every folder, so the walk is replaced.
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "locked")))
        yield tmp_path, [], []

    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(os, "walk", walk)
    [result] = grade.grade(tmp_path)
    assert result.remarks == ["not graded: the folder cannot be read"]


@pytest.mark.parametrize(("limits", "words"), [
    ({"seconds": float("nan")}, "seconds=nan should be a finite number"),
    ({"seconds": float("inf")}, "seconds=inf should be a finite number"),
    ({"seconds": 0}, "seconds=0.0 should be above 0.0"),
    ({"seconds": -5}, "seconds=-5.0 should be above 0.0"),
    ({"seconds": 1e300}, r"seconds=1e\+300 should be at most 3600.0"),
    ({"seconds": "10"}, "seconds='10' is str"),
    ({"memory": -5}, "memory=-5 should be at least 1"),
    ({"memory": 0.5}, "memory=0.5 is float, it should be int"),
    ({"workers": 0}, "workers=0 should be at least 1"),
    ({"workers": True}, "workers=True is bool"),
])
def test_limits_are_checked_before_the_grading(tmp_path, limits, words):
    (tmp_path / "a.ipynb").write_text("[]")
    with pytest.raises(ValueError, match=words):
        grade.grade(tmp_path, **limits)


def test_only_the_statements_that_an_answer_needs_are_run():
    source = Source(["import torch\nlimit = 1\nlow = 1",
                     "limit = 2\nhours_of_training()",
                     "def slow(f): return f",
                     "def answer(x):\n    return helper(x)",
                     "def helper(x):\n    unused = 1\n    return [x + limit for _ in range(y)]",
                     "y = [low for _ in range(3)]",
                     "answer = slow(answer)",
                     "low = 2"])
    assert taken(source, "answer") == [("cell 1", 3), ("cell 2", 1), ("cell 3", 1), ("cell 4", 1),
                                       ("cell 5", 1), ("cell 6", 1), ("cell 7", 1)]


def taken(source, name):
    """Return the cell and the line of each statement that a name needs."""
    return [(statement.file, statement.tree.lineno) for statement in source.versions(name)[0]]


def verdict_on(*cells):
    versions = Source(["import torch", *cells]).versions("causal_mask")
    return grading_process.best_verdict(attention.check_causal_mask, "causal_mask", versions)


@pytest.mark.parametrize(("before", "mask"), [
    ("ok = {}\nfor i in range(99):\n    for j in range(99):\n        ok[i, j] = j <= i",
     "torch.tensor([[ok[i, j] for j in range(T)] for i in range(T)])"),
    ("low = []\nlow.append(True)", "full(T)[low[0]]"),
    ("low = []\n[low.append(True) for _ in range(3)]", "full(T)[low[2]]"),
    ("low = [True, False]\nimport random\nwhile low[0]: random.shuffle(low)", "full(T)[low[1]]"),
    ("class C: low = False\nC.low = True", "full(T)[C.low]"),
    ("class C: pass\nsetattr(C, 'low', True)", "full(T)[C.low]"),
    ("def setup():\n    global low\n    low = True\nsetup()", "full(T)[low]"),
    ("low = {}\ndef fill(): low[0] = True\ndef setup(): fill()\nsetup()", "full(T)[low[0]]"),
    # A helper function that is replaced between two calls changes another object.
    ("low, other = [], []\ndef fill(): other.append(1)\ndef setup(): fill()\nsetup()\n"
     "def fill(): low.append(True)\nsetup()", "full(T)[low[0]]"),
    ("kinds = {}\ndef kind(f): kinds[f.__name__] = f; return f\n"
     "@kind\ndef low(T): return full(T)[True]", "kinds['low'](T)"),
    ("low = True\nif not torch: low = False", "full(T)[low]"),
    ("n = 1\ndef f(x): return x * n\nlow = f(True)\nn = 0\n", "full(T)[low + n]"),
    ("import asyncio\nlow = await asyncio.sleep(0, True)", "full(T)[low]"),
    ("low = [True]\nlow.remove(False)", "full(T)[low[0]]"),
])
def test_statements_that_change_an_object_are_run(before, mask, capsys):
    full = """def full(T):
        lower = torch.ones(T, T, dtype=torch.bool).tril()
        return {False: ~lower, True: lower}"""
    assert verdict_on(full, before, f"def causal_mask(T):\n    return {mask}") == PASSED


FULL = """def causal_mask(T):
    lower = torch.ones(T, T, dtype=torch.bool).tril()
    return lower if low else ~lower"""
CHECK = "check_causal_mask(causal_mask)"


@pytest.mark.parametrize("cells", [
    ["low = True", FULL, CHECK, "low = False"],
    ["low = True", FULL, f"result = exercises.{CHECK}\nlow = False"],
    # Only the last check after the function counts.
    [CHECK, "low = False", FULL, CHECK, "low = True", CHECK, "low = False"],
    # The end of the notebook counts too.
    [FULL, CHECK, "low = True"],
    ["low = False", FULL, CHECK, "low = True"],
    [FULL, "def later(): check_causal_mask(causal_mask)", "low = True"],
])
def test_answer_passes_if_it_was_right_at_its_check_or_at_the_end(cells, capsys):
    assert verdict_on(*cells) == PASSED


@pytest.mark.parametrize("cells", [
    ["low = True", CHECK, FULL, "low = False"],
    ["low = True", FULL, "low = False", CHECK],
    [FULL, "def later(): check_causal_mask(causal_mask)", "low = True", "low = False"],
])
def test_answer_that_was_wrong_at_its_check_and_at_the_end_is_rejected(cells, capsys):
    assert verdict_on(*cells).startswith("✗")


@pytest.mark.parametrize("cells", [
    # A function in a container is called by a statement below other changes of the container.
    ["n = 0\ntable = {}\ntable[0] = lambda: n\ntable[1] = 5\nn = True", "low = table[0]()",
     "n = 0"],
    # A function that replaces itself still calls its former self.
    ["low = []\ndef setup(): low.append(True)\n"
     "def both(f): return lambda g: lambda: (f(), g())\n"
     "@both(setup)\ndef setup(): return 1", "setup()"],
    ["from __future__ import annotations", "def typed(x: Undefined): return True",
     "low = typed(1)"],
    ["from __future__ import annotations", "low: Undefined = True"],
])
def test_code_before_an_answer_runs_as_in_jupyter(cells, capsys):
    assert verdict_on(*cells, FULL) == PASSED


LINES = 5000


@pytest.mark.parametrize("code", [
    "x = x + 1\n" * LINES,
    "if x: x = 1\n" * LINES,
    "table.append(f(x))\n" * LINES,
    "".join(f"def f{n}(): return f{n - 1}()\n" for n in range(1, LINES)),
    "".join(f"def f{n}(): f{n - 1}()\nf{n}()\n" for n in range(1, LINES // 2)),
    "x = 1\n" + "\n" * 10 * LINES + "def other(:",
], ids=["assignments", "conditions", "calls", "functions", "functions and calls", "blank lines"])
def test_long_code_is_read_in_linear_time(code):
    def cpu_seconds(code):
        started = time.process_time()
        source = Source(["x, table = 0, []\ndef f(x): return x\nf0 = f", code,
                         f"def answer(): return x, table, f{LINES - 1}"])
        source.left_out("answer", source.versions("answer")[0])
        source.unreadable("causal_mask")
        return time.process_time() - started

    tenth = code[:len(code) // 10]
    cut = tenth[:tenth.rindex("\n") + 1]
    # Linear time gives a factor of 10, quadratic time gives 100.
    assert cpu_seconds(code) < 40 * max(cpu_seconds(cut), 0.05)


def test_code_that_cannot_be_followed_is_an_error(monkeypatch):
    monkeypatch.setattr(notebook_source, "MAX_LOOKUPS", 50)
    source = Source(["x = 0\n" + "x = x + 1\n" * 99 + "def answer(): return x"])
    with pytest.raises(ValueError, match="the code that answer needs is too large"):
        source.versions("answer")


def test_statements_that_only_use_an_object_are_not_run():
    source = Source(["from gptlib import train\nimport torch\nmodel, parts = make(), []\n"
                     "for i in range(9): hours()",
                     "train(model)\nprint(model)\ntorch.manual_seed(0)\ndraw(parts).plot(model)\n"
                     "log.write(model)",
                     "for i in range(2):\n    parts.append(i)",
                     "def answer(): return torch, model, parts, len",
                     "exec('parts = 1')"])
    assert taken(source, "answer") == [("cell 1", 2), ("cell 1", 3), ("cell 3", 1), ("cell 4", 1)]
    assert source.left_out("answer", source.versions("answer")[0]) == ["cell 2", "cell 5"]


def test_function_that_is_never_defined_is_missing(capsys):
    assert verdict_on("if False:\n    def causal_mask(T): return T") == MISSING


def test_number_of_printed_characters_is_limited():
    output = grading_process.LimitedWords()
    for _ in range(MAX_PRINTED // 100_000):
        output.write("x" * 100_000)
    with pytest.raises(Wrong, match="printed more than"):
        output.write("x")


def test_usage_includes_the_child_processes():
    program = "x = b'x' * 100_000_000\nwhile True: pass"
    command = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {program!r}])"
    parent = subprocess.Popen([sys.executable, "-c", command])
    processes, deadline = grading_process.ProcessTree(parent), time.monotonic() + 60
    try:
        while (seconds := processes.usage()[0]) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert seconds >= 1 and processes.usage()[1] > 100_000_000
    finally:
        for process in [*psutil.Process(parent.pid).children(), parent]:
            process.kill()
        parent.wait()


def test_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook_source, "MAX_NOTEBOOK_BYTES", 10)
    (tmp_path / "large.ipynb").write_text(notebook(RIGHT), encoding="utf-8")
    [result] = grade.grade(tmp_path)
    assert re.search("not graded: the file has .* bytes, .*[Cc]lear the notebook's outputs",
                     result.row()["remarks"])


def test_table_that_cannot_be_written_is_an_error_before_the_grading(tmp_path):
    def grades():
        raise AssertionError("nothing should be graded")
        yield

    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        next(grade.write_csv(grades(), tmp_path / "file" / "grades.csv"))


@pytest.mark.parametrize("name", ["submissions/alice.ipynb", "notes.txt"])
def test_a_file_that_is_no_table_is_not_overwritten(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path("submissions").mkdir()
    Path("submissions/alice.ipynb").write_text("{}", encoding="utf-8")
    Path(name).write_text("{}", encoding="utf-8")
    assert main(["grade", "submissions", "--out", name]) == 1
    assert f"--out '{name}' is a file that is not a table of grades" in capsys.readouterr().err
    assert Path(name).read_text(encoding="utf-8") == "{}"


def test_an_earlier_table_is_replaced(tmp_path):
    (tmp_path / "alice.ipynb").write_text("{}", encoding="utf-8")
    for _ in range(2):
        assert main(["grade", str(tmp_path), "--out", str(tmp_path / "grades.csv")]) == 0
    assert (tmp_path / "grades.csv").read_text(encoding="utf-8-sig").count("alice") == 1


def test_row_is_written_before_the_next_notebook_is_graded(tmp_path):
    grades = iter([Grade("a", "x", {"p": "1"}), Grade("b", "y", {"q": "\ud800"})])
    rows = grade.write_csv(grades, tmp_path / "grades.csv")
    first, both = "a,x,0,1,,1\r\n", "a,x,0,1,,1,\r\nb,y,0,1,,,\\ud800\r\n"
    for lines, columns in ((first, "p"), (both, "p,q")):
        next(rows)
        text = (tmp_path / "grades.csv").read_bytes().decode("utf-8-sig")
        assert text == f"submission,chapter,passed,of,remarks,{columns}\r\n{lines}"


def test_folder_without_notebooks_leaves_the_old_table(tmp_path, capsys):
    (tmp_path / "grades.csv").write_text("marks of last week")
    assert main(["grade", str(tmp_path), "--out", str(tmp_path / "grades.csv")]) == 1
    assert (tmp_path / "grades.csv").read_text() == "marks of last week"


def test_console_without_unicode_changes_no_verdict(tmp_path):
    names = ["räksmörgås 日.ipynb"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"\xff.ipynb"))
    for name in names:
        (tmp_path / name).write_text(notebook(RIGHT), encoding="utf-8")
    out = tmp_path / "grades.csv"
    run = subprocess.run([*GRADE, tmp_path, "--out", out], capture_output=True,
                         env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("räksmörgås \\u65e5.ipynb: ".encode("latin-1"))
    rows = list(csv.DictReader(out.read_text(encoding="utf-8-sig").splitlines()))
    expected = ["räksmörgås 日.ipynb", "\\udcff.ipynb"][:len(names)]
    assert [row["submission"] for row in rows] == expected
    assert all(row["passed"] == row["of"] for row in rows)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_stopped_grading_keeps_its_rows_and_leaves_no_process(tmp_path, number):
    endless = mask("while True: T += 1")
    for name, text in (("a", "[]"), ("b", endless), ("c", endless)):
        (tmp_path / f"{name}.ipynb").write_text(text, encoding="utf-8")
    out = tmp_path / "grades.csv"
    limits = ["--seconds", "99", "--workers", "1"]
    grading = subprocess.Popen([*GRADE, tmp_path, "--out", out, *limits],
                               stdout=subprocess.PIPE, text=True)
    assert "a.ipynb: 0 of 0" in grading.stdout.readline()
    children = wait_for_children(grading)
    grading.send_signal(number)
    # This is less than the 99 seconds that the answer may take.
    grading.wait(60)
    deadline = time.monotonic() + 60
    while any(map(runs, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) > 2 and not any(map(runs, children))
    row = next(csv.DictReader(out.read_text(encoding="utf-8-sig").splitlines()))
    assert row["submission"] == "a.ipynb" and row["remarks"].startswith("not graded")


def wait_for_children(grading):
    """Wait until an answer computes, and return the processes of the grading, the oldest first."""
    children, deadline = [], time.monotonic() + 60
    while time.monotonic() < deadline:
        # The first two are the servers that start processes.
        if any(process.cpu_times().user > 1 for process in children[2:]):
            break
        time.sleep(0.2)
        children = psutil.Process(grading.pid).children(recursive=True)
        children.sort(key=lambda process: process.create_time())
    return children
