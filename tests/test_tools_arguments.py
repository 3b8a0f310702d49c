"""The tools of the course refuse wrong arguments with one sentence, and change nothing."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]


def run_tool(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["execute.py"], "give the paths of notebooks"),
    (["execute.py", "no/such.ipynb"],
     "no/such.ipynb is not a notebook that can be read and written"),
    (["execute.py", __file__], "is not a notebook that can be read and written"),
    (["minutes.py", "99_nothing"], "no chapter 99_nothing; there are 01_bigram"),
    (["course.py", "99_nothing"], "no chapter 99_nothing; there are 01_bigram"),
    (["editions.py", "99_nothing"], "there is no chapter 99_nothing"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_argument_of_a_tool_gives_one_sentence(arguments, sentence):
    pages = [path.read_bytes() for path in sorted((ROOT / "docs/teaching").iterdir())]
    done = run_tool(ROOT / "tools" / arguments[0], *arguments[1:])
    assert done.returncode == 1 and done.stdout == ""
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert pages == [path.read_bytes() for path in sorted((ROOT / "docs/teaching").iterdir())]


def test_a_file_of_json_that_is_no_notebook_gives_one_sentence(tmp_path):
    path = tmp_path / "list.ipynb"
    path.write_text("[]", encoding="utf-8")
    done = run_tool(ROOT / "tools/execute.py", path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "is not a notebook that can be read and written: it is JSON without cells" in done.stderr


def test_a_notebook_with_a_failing_cell_is_not_changed(tmp_path):
    cell = nbformat.v4.new_code_cell("1 / 0")
    path = tmp_path / "fails.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    content = path.read_bytes()
    done = run_tool(ROOT / "tools/execute.py", path)
    assert done.stderr == (
        f"{path} is unchanged, because a cell failed: ZeroDivisionError: division by zero\n")
    assert done.returncode == 1 and path.read_bytes() == content
