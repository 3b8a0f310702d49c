"""A class hands in its notebooks: each gets a row that says what is right, what is wrong and why, and none spoils another's."""

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
from pathlib import Path

import answers_attention
import psutil
import pytest
from collecting import NOTEBOOKS, solutions

from gptlib import grade
from gptlib.__main__ import main
from gptlib.exercises import attention
from gptlib.exercises._comparing import Wrong
from gptlib.grade import CHECKS, MISSING, MOST_OUTPUT, MOST_WORDS, PASSED, Grade, Source

CHAPTER = "02_attention"
RIGHT = solutions("attention")
LIBRARY = "import math\nimport torch\nfrom torch.nn import functional as F\n"
LOWER = "return torch.ones(T, T, dtype=torch.bool).tril()"
SLEEP = f"sleep 301.{os.getpid()}"                      # no other process is called so
INTRUDE = "for fd in range(3, 99):\n        try: os.write(fd, {})\n        except OSError: pass\n    "
GRADE = [sys.executable, "-m", "gptlib", "grade"]


def notebook(answers, chapter=CHAPTER, without=(), more=()):
    """A chapter as its reader hands it in: stubs replaced by `answers`, cells that say a word of `without` deleted, `more` cells."""
    handed_in = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    cells = []
    for cell in copy.deepcopy(handed_in["cells"]):
        source = "".join(cell["source"])
        stub = re.match(r"def (\w+)\(", source)
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            if stub and stub[1] in answers:
                cell["source"] = answers[stub[1]]
        if not any(word in source for word in without):
            cells.append(cell)
    added = [{"cell_type": "code", "id": f"more{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
             for n, source in enumerate(more)]
    return json.dumps(handed_in | {"cells": cells + added})


def mask(body, top=""):
    """All right but for causal_mask."""
    return notebook(RIGHT | {"causal_mask": f"{top}\ndef causal_mask(T):\n    {body}\n"})


def python(program):
    """All right but for causal_mask, which runs a program in a process of its own."""
    return mask(f"subprocess.run([sys.executable, '-c', {program!r}])", "import subprocess, sys")


def wrong_answers():
    """One plausible wrong answer after another from the exercises' own tests: its file, and the words that its verdict must hold."""
    helpers = set(vars(answers_attention)) - {"F", "math", "torch"}
    alone = [answer.values for answer in answers_attention.WRONG if not helpers & set(answer.values[1].__code__.co_names)]
    for n, (exercise, function, words) in enumerate(alone[::3]):
        source = re.sub(r"^@.*\n", "", inspect.getsource(function), flags=re.MULTILINE)
        source = re.sub(rf"\bdef {function.__name__}\(", f"def {exercise}(", source)
        yield f"wrong {n} {CHAPTER}.ipynb", notebook(RIGHT | {exercise: LIBRARY + source}), {exercise: [f"✗ {exercise}: ", *words]}


CLASS = [
    (f"right {CHAPTER}.ipynb", notebook(RIGHT), {}),
    ("another chapter, 01_bigram.ipynb", notebook(solutions("bigram"), "01_bigram"), {}),
    (f"untouched {CHAPTER}.ipynb", notebook({}), dict.fromkeys(CHECKS["attention"], ["not attempted"])),
    *wrong_answers(),
    (f"endless loop {CHAPTER}.ipynb", mask("while True: T += 1"), {"causal_mask": ["loop that never ends"]}),
    (f"endless loop above {CHAPTER}.ipynb", mask("return MASKS[T]", "MASKS = [T for T in iter(int, 1)]"), {"causal_mask": ["never ends"]}),
    (f"sleeper {CHAPTER}.ipynb", mask("time.sleep(10 ** 6)", "import time"), {"causal_mask": ["6 seconds by the clock"]}),
    (f"memory hog {CHAPTER}.ipynb", mask("return [torch.ones(10 ** 7) for _ in range(100)]"),
     {"causal_mask": ["more than 300 MiB of memory"]}),
    (f"memory hog's child {CHAPTER}.ipynb", python("x = b'x' * 700_000_000; import time; time.sleep(99)"),
     {"causal_mask": ["more than 300 MiB of memory"]}),
    (f"endless loop's child {CHAPTER}.ipynb", python("while True: pass"), {"causal_mask": ["loop that never ends"]}),
    (f"exit {CHAPTER}.ipynb", mask("sys.exit(0)", "import sys"), {"causal_mask": ["SystemExit", "sys.exit(0)"]}),
    (f"exit above {CHAPTER}.ipynb", mask("return LIMIT", "import sys\nLIMIT = sys.exit(0)"),
     {"causal_mask": ["NameError", "cell", "which it needs, stops with SystemExit"]}),
    (f"hard exit {CHAPTER}.ipynb", mask("os._exit(0)", "import os"), {"causal_mask": ["ended the process", "status 0"]}),
    (f"flood {CHAPTER}.ipynb", mask("while True: print('x' * 99)"), {"causal_mask": ["printed more than 1,000,000"]}),
    (f"flood past print {CHAPTER}.ipynb", mask("os.write(1, b'flood' * 10 ** 6)\n    raise ValueError", "import os"),
     {"causal_mask": ["ValueError"]}),
    (f"loud {CHAPTER}.ipynb", mask(f"print('x' * 9999); {LOWER}"), {}),
    (f"long message {CHAPTER}.ipynb", mask("raise type('x' * 2_000_000, (Exception,), {})"), {"causal_mask": ["it raised xxx", "x …"]}),
    (f"surrogate {CHAPTER}.ipynb", mask("raise ValueError('\\ud800')"), {"causal_mask": ["ValueError: \\ud800"]}),
    (f"writes to whatever is open {CHAPTER}.ipynb", mask(INTRUDE.format(b"[[[\n") + LOWER, "import os"),
     {"causal_mask": ["only the grader writes to"]}),
    (f"floods whatever is open {CHAPTER}.ipynb", mask(INTRUDE.format(b"[" * 100_000) + LOWER, "import os"),
     {"causal_mask": ["only the grader writes to"]}),
    (f"writes half a message {CHAPTER}.ipynb", mask(INTRUDE.format(b"\0\0") + "time.sleep(10 ** 6)", "import os, time"),
     {"causal_mask": ["6 seconds by the clock"]}),
    (f"leaves a child {CHAPTER}.ipynb", mask(f"subprocess.Popen('{SLEEP} & sleep 0', shell=True); {LOWER}", "import subprocess"), {}),
    (f"leaves a session {CHAPTER}.ipynb", mask(f"subprocess.Popen('{SLEEP}'.split(), start_new_session=True); time.sleep(1); os._exit(0)",
                                               "import os, subprocess, time"), {"causal_mask": ["ended the process"]}),
    (f"awaits {CHAPTER}.ipynb", mask("return READY(T)", f"import asyncio\nasync def ready():\n    return lambda T: {LOWER[7:]}\n"
                                     "await asyncio.sleep(0)\nREADY = await ready()"), {}),
    (f"501 commands {CHAPTER}.ipynb", notebook(RIGHT, more=["!ls\n" * 501]), {}),
    (f"byte order mark {CHAPTER}.ipynb", "\ufeff" + notebook(RIGHT), {}),
    (f"by another name {CHAPTER}.ipynb", mask(f"if CONFIG['low']: {LOWER}", "CONFIG = {}\nconfig = CONFIG\nconfig['low'] = True"),
     {"causal_mask": ["KeyError"], "remarks": ["causal_mask was checked without cell"]}),
    (f"syntax {CHAPTER}.ipynb", notebook(RIGHT | {"causal_mask": "def causal_mask(T)\n    return T"}),
     {"causal_mask": ["SyntaxError", "line 1", "expected ':'"]}),
    (f"raises {CHAPTER}.ipynb", mask("return torch.ones(T)[T]"), {"causal_mask": ["IndexError"]}),
    ("my homework (final).ipynb", notebook(RIGHT), {"remarks": ["graded as attention"]}),
    (f"deleted check {CHAPTER}.ipynb", notebook(RIGHT, without=["check_causal_mask("]), {"remarks": ["no call of check_causal_mask"]}),
    (f"redefined check {CHAPTER}.ipynb", notebook(RIGHT | {"causal_mask": "def causal_mask(T): return T"}, more=[
        "def check_causal_mask(function):\n    print('✓')\nexercises.check_causal_mask = check_causal_mask"]),
     {"causal_mask": ["✗", "plain number"], "remarks": ["check_causal_mask of its own"]}),
    (f"deleted answer {CHAPTER}.ipynb", notebook(RIGHT, without=["def causal_mask"]), {"causal_mask": ["missing", "of this name"]}),
    (f"with helpers {CHAPTER}.ipynb", notebook(
        RIGHT | {"causal_mask": "%%time\nimport torch as t\ndef causal_mask(T): return lower(T, ALLOWED)"},
        more=["%matplotlib inline\nALLOWED = True", "def lower(T, value):\n    return t.full((T, T), value).tril()"]), {}),
    (f"stub left behind {CHAPTER}.ipynb", notebook(RIGHT, more=["def causal_mask(T):\n    '''Rows and columns.'''\n    ..."]), {}),
    (f"writes {CHAPTER}.ipynb", mask("open('junk.txt', 'w').write('x'); return torch.ones(T, T, dtype=torch.bool).tril()"), {}),
    (f"=formula {CHAPTER}.ipynb", notebook(RIGHT), {}),
    ("in a folder/02_attention.ipynb", notebook(RIGHT), {}),
    ("essay.ipynb", json.dumps({"cells": []}), {"remarks": ["defines no function of any exercise"]}),
    ("cut off.ipynb", notebook(RIGHT)[:1000], {"remarks": ["not graded: it cannot be read as a notebook", "line 1"]}),
    ("no notebook.ipynb", "[]", {"remarks": ["not graded", "no list of cells"]}),
    ("brackets.ipynb", "[" * 100_000, {"remarks": ["not graded: it cannot be read as a notebook", "recursion"]}),
    *((f"{name}.ipynb", json.dumps({"cells": [{"cell_type": "markdown"}, cell]}), {"remarks": [f"not graded: its cell 2 has no {lack}"]})
      for name, cell, lack in (
          ("no source", {"cell_type": "code"}, "source"), ("null for a source", {"cell_type": "code", "source": None}, "source"),
          ("number for a source", {"cell_type": "code", "source": [1]}, "source"), ("text for a cell", "x = 1", "cell_type"),
          ("no cell_type", {"source": "x = 1"}, "cell_type"))),
]
NO_NOTEBOOKS = [name for name, _, expected in CLASS if re.match("not graded|defines no", expected.get("remarks", [""])[0])]


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The rows of the class, by submission."""
    folder = tmp_path_factory.mktemp("class")
    for name, text, _ in CLASS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / f"right {CHAPTER}-checkpoint.ipynb").write_text(notebook(RIGHT), encoding="utf-8")
    out = tmp_path_factory.mktemp("grades") / "a new folder" / "grades.csv"
    assert main(["grade", str(folder), "--out", str(out), "--seconds", "1", "--memory", "300", "--workers", "2"]) == 0
    with open(out, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if ".ipynb_checkpoints" not in path.parts}
    assert there == {name for name, _, _ in CLASS}
    return {row["submission"]: row for row in rows}


def test_no_child_of_an_answer_survives(table):
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if SLEEP in command]


def test_a_verdict_has_an_end(table):
    assert all(len(verdict) < MOST_WORDS + 10 for row in table.values() for verdict in row.values())


def test_what_an_answer_writes_lands_neither_here_nor_beside_the_notebooks(table):
    assert not Path("junk.txt").exists()                # the fixture looks beside the notebooks


def test_thirty_submissions_have_a_row_each(table):
    assert len(CLASS) >= 30
    assert set(table) == {f"'{name}" if name.startswith("=") else name for name, _, _ in CLASS}


@pytest.mark.parametrize(("name", "expected"), [(name, expected) for name, _, expected in CLASS], ids=[name for name, _, _ in CLASS])
def test_a_row_says_what_is_wrong_and_passes_the_rest(table, name, expected):
    row = table[f"'{name}" if name.startswith("=") else name]
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


def test_a_verdict_is_what_the_notebook_s_own_check_says(table, capsys):
    result = attention.check_causal_mask(lambda T: T)
    assert table[f"redefined check {CHAPTER}.ipynb"]["causal_mask"] == result.message


def test_an_empty_folder_is_said_to_be_empty(tmp_path, capsys):
    assert main(["grade", str(tmp_path)]) == 1
    assert "there is no notebook" in capsys.readouterr().err


def test_only_what_an_answer_names_is_run_and_in_its_last_form():
    source = Source(["import torch\nlimit = 1\nlow = 1", "limit = 2\nhours_of_training()", "def slow(f): return f",
                     "def answer(x):\n    return helper(x)", "def helper(x):\n    unused = 1\n    return [x + limit for _ in range(y)]",
                     "y = [low for _ in range(3)]", "answer = slow(answer)", "low = 2"])
    lines = [(statement.file, statement.tree.lineno) for statement in source.needed_for("answer")]
    assert lines == [("cell 1", 3), ("cell 2", 1), ("cell 3", 1), ("cell 4", 1), ("cell 5", 1), ("cell 6", 1), ("cell 7", 1)]


def verdict_on(*cells):
    return grade.verdict(attention.check_causal_mask, "causal_mask", Source(["import torch", *cells]).needed_for("causal_mask"))


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
    ("kinds = {}\ndef kind(f): kinds[f.__name__] = f; return f\n@kind\ndef low(T): return full(T)[True]", "kinds['low'](T)"),
    ("low = True\nif not torch: low = False", "full(T)[low]"),
    ("n = 1\ndef f(x): return x * n\nlow = f(True)\nn = 0\n", "full(T)[low + n]"),
    ("import asyncio\nlow = await asyncio.sleep(0, True)", "full(T)[low]"),
    ("low = [True]\nlow.remove(False)", "full(T)[low[0]]"),
])
def test_what_changes_an_object_is_run_like_what_makes_it(before, mask, capsys):
    full = "def full(T):\n    lower = torch.ones(T, T, dtype=torch.bool).tril()\n    return {False: ~lower, True: lower}"
    assert verdict_on(full, before, f"def causal_mask(T):\n    return {mask}") == PASSED


def test_what_only_looks_at_an_object_is_not_run():
    source = Source(["from gptlib import train\nimport torch\nmodel, parts = make(), []\nfor i in range(9): hours()",
                     "train(model)\nprint(model)\ntorch.manual_seed(0)\ndraw(parts).plot(model)\nlog.write(model)",
                     "for i in range(2):\n    parts.append(i)", "def answer(): return torch, model, parts, len", "exec('parts = 1')"])
    assert [(statement.file, statement.tree.lineno) for statement in source.needed_for("answer")] == [
        ("cell 1", 2), ("cell 1", 3), ("cell 3", 1), ("cell 4", 1)]
    assert source.left_out("answer", source.needed_for("answer")) == ["cell 2", "cell 5"]


def test_a_function_that_is_never_defined_is_missing(capsys):
    assert verdict_on("if False:\n    def causal_mask(T): return T") == MISSING


def test_an_answer_may_print_so_much_and_no_more():
    words = grade.LimitedWords()
    for _ in range(MOST_OUTPUT // 100_000):
        words.write("x" * 100_000)
    with pytest.raises(Wrong, match="printed more than"):
        words.write("x")


def test_what_a_child_s_child_takes_counts():
    program = "x = b'x' * 100_000_000\nwhile True: pass"
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {program!r}])"])
    family, deadline = set(), time.monotonic() + 60
    try:
        while (computed := grade.used(parent.pid, family)[0]) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert computed >= 1 and grade.used(parent.pid, family)[1] > 100_000_000
    finally:
        for process in [*psutil.Process(parent.pid).children(), parent]:
            process.kill()
        parent.wait()


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "MOST_BYTES", 10)
    (tmp_path / "large.ipynb").write_text(notebook(RIGHT), encoding="utf-8")
    [result] = grade.grade(tmp_path)
    assert re.search("not graded: it has .* bytes, .* clear its outputs", result.row()["remarks"])


def test_a_table_that_cannot_be_written_costs_no_grading(tmp_path):
    def grades():
        raise AssertionError("this is graded in vain")
        yield
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        next(grade.write_csv(grades(), tmp_path / "file" / "grades.csv"))


def test_a_row_stands_in_the_table_before_the_next_notebook_is_graded(tmp_path):
    rows = grade.write_csv(iter([Grade("a", "x", {"p": "1"}), Grade("b", "y", {"q": "\ud800"})]), tmp_path / "grades.csv")
    first, both = "a,x,0,1,,1\r\n", "a,x,0,1,,1,\r\nb,y,0,1,,,\\ud800\r\n"
    for lines, columns in ((first, "p"), (both, "p,q")):
        next(rows)
        there = (tmp_path / "grades.csv").read_bytes().decode("utf-8-sig")
        assert there == f"submission,chapter,passed,of,remarks,{columns}\r\n{lines}"


def test_a_folder_without_notebooks_costs_no_old_table(tmp_path, capsys):
    (tmp_path / "grades.csv").write_text("marks of last week")
    assert main(["grade", str(tmp_path), "--out", str(tmp_path / "grades.csv")]) == 1
    assert (tmp_path / "grades.csv").read_text() == "marks of last week"


def test_a_console_that_knows_few_characters_changes_no_verdict(tmp_path):
    names = ["räksmörgås 日.ipynb", *([os.fsdecode(b"\xff.ipynb")] if sys.platform == "linux" else [])]
    for name in names:
        (tmp_path / name).write_text(notebook(RIGHT), encoding="utf-8")
    run = subprocess.run([*GRADE, tmp_path, "--out", tmp_path / "grades.csv"], env=os.environ | {"PYTHONIOENCODING": "latin-1"},
                         capture_output=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("räksmörgås \\u65e5.ipynb: ".encode("latin-1"))
    rows = list(csv.DictReader((tmp_path / "grades.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [row["submission"] for row in rows] == ["räksmörgås 日.ipynb", "\\udcff.ipynb"][:len(names)]
    assert all(row["passed"] == row["of"] for row in rows)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_a_grading_that_is_stopped_keeps_its_rows_and_leaves_no_process(tmp_path, number):
    for name, text in (("a", "[]"), ("b", mask("while True: T += 1")), ("c", mask("while True: T += 1"))):
        (tmp_path / f"{name}.ipynb").write_text(text, encoding="utf-8")
    grading = subprocess.Popen([*GRADE, tmp_path, "--out", tmp_path / "grades.csv", "--seconds", "99", "--workers", "1"],
                               stdout=subprocess.PIPE, text=True)
    assert "a.ipynb: 0 of 0" in grading.stdout.readline()
    family, deadline = [], time.monotonic() + 60
    while not any(process.cpu_times().user > 1 for process in family[2:]) and time.monotonic() < deadline:
        time.sleep(0.2)
        family = sorted(psutil.Process(grading.pid).children(recursive=True), key=lambda process: process.create_time())
    grading.send_signal(number)
    grading.wait(60)                                        # and not for its 99 seconds
    deadline = time.monotonic() + 60
    while any(map(runs, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(family) > 2 and not any(map(runs, family))
    assert "a.ipynb,,0,0,not graded" in (tmp_path / "grades.csv").read_text(encoding="utf-8-sig")
