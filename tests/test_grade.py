"""A class hands in its notebooks: each gets a row that says what is right, what is wrong and why, and none spoils another's."""

import copy
import csv
import inspect
import json
import re
from pathlib import Path

import answers_attention
import pytest
from collecting import NOTEBOOKS, solutions

from gptlib.__main__ import main
from gptlib.exercises import attention
from gptlib.grade import CHECKS, Source

CHAPTER = "02_attention"
RIGHT = solutions("attention")
LIBRARY = "import math\nimport torch\nfrom torch.nn import functional as F\n"


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
    (f"endless loop {CHAPTER}.ipynb", mask("while True: T += 1"), {"causal_mask": ["1 seconds", "loop that never ends"]}),
    (f"endless loop above {CHAPTER}.ipynb", mask("return MASKS[T]", "MASKS = [T for T in iter(int, 1)]"), {"causal_mask": ["never ends"]}),
    (f"sleeper {CHAPTER}.ipynb", mask("time.sleep(10 ** 6)", "import time"), {"causal_mask": ["never ends"]}),
    (f"memory hog {CHAPTER}.ipynb", mask("return [torch.ones(10 ** 7) for _ in range(100)]"),
     {"causal_mask": ["more than 300 MiB of memory"]}),
    (f"exit {CHAPTER}.ipynb", mask("sys.exit(0)", "import sys"), {"causal_mask": ["SystemExit", "sys.exit(0)"]}),
    (f"exit above {CHAPTER}.ipynb", mask("return LIMIT", "import sys\nLIMIT = sys.exit(0)"),
     {"causal_mask": ["cell", "stops with SystemExit"]}),
    (f"hard exit {CHAPTER}.ipynb", mask("os._exit(0)", "import os"), {"causal_mask": ["ended the process", "status 0"]}),
    (f"flood {CHAPTER}.ipynb", mask("while True: print('x' * 99)"), {"causal_mask": ["printed more than 1,000,000"]}),
    (f"flood past print {CHAPTER}.ipynb", mask("os.write(1, b'flood' * 10 ** 6)\n    raise ValueError", "import os"),
     {"causal_mask": ["ValueError"]}),
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
    ("cut off.ipynb", notebook(RIGHT)[:1000], {"remarks": ["cannot be read as a notebook", "line 1"]}),
    ("no notebook.ipynb", "[]", {"remarks": ["cannot be read as a notebook", "no list of cells"]}),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The rows of the class, by submission."""
    folder = tmp_path_factory.mktemp("class")
    for name, text, _ in CLASS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    out = tmp_path_factory.mktemp("grades") / "grades.csv"
    assert main(["grade", str(folder), "--out", str(out), "--seconds", "1", "--memory", "300", "--workers", "2"]) == 0
    with open(out, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {path.name for path in folder.rglob("*.*")} == {Path(name).name for name, _, _ in CLASS}
    return {row["submission"]: row for row in rows}


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
    if name in ("essay.ipynb", "cut off.ipynb", "no notebook.ipynb"):
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
