"""The tools of the course refuse wrong arguments with one sentence, and change nothing."""

import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Return a function that runs a tool in this process, which saves an import of torch.

    The function returns the exit code, the output and the errors, as the shell would get them.
    """
    def run_tool(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
        code, printed = end.value.code, capsys.readouterr()
        # Python prints the text that is given to sys.exit.
        return (1, printed.out, f"{printed.err}{code}\n") if isinstance(code, str) else (
            code, printed.out, printed.err)
    return run_tool


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["execute.py"], "give the paths of notebooks"),
    (["execute.py", "no/such.ipynb"],
     "no/such.ipynb is not a notebook that can be read and written"),
    (["execute.py", __file__], "is not a notebook that can be read and written"),
    (["minutes.py", "99_nothing"], "no chapter 99_nothing; there are 01_bigram"),
    (["course.py", "99_nothing"], "no chapter 99_nothing; there are 01_bigram"),
    (["editions.py", "99_nothing"], "there is no chapter 99_nothing"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_argument_of_a_tool_gives_one_sentence(run_tool, arguments, sentence):
    pages = [path.read_bytes() for path in sorted((ROOT / "docs/teaching").iterdir())]
    code, output, error = run_tool(*arguments)
    assert code == 1 and output == ""
    assert sentence in error and error.count("\n") == 1
    assert pages == [path.read_bytes() for path in sorted((ROOT / "docs/teaching").iterdir())]


def test_a_file_of_json_that_is_no_notebook_gives_one_sentence(run_tool, tmp_path):
    path = tmp_path / "list.ipynb"
    path.write_text("[]", encoding="utf-8")
    code, _, error = run_tool("execute.py", path)
    assert code == 1 and "Traceback" not in error
    assert "is not a notebook that can be read and written: it is JSON without cells" in error


def test_a_notebook_with_a_failing_cell_is_not_changed(tmp_path):
    cell = nbformat.v4.new_code_cell("1 / 0")
    path = tmp_path / "fails.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    content = path.read_bytes()
    command = [sys.executable, ROOT / "tools/execute.py", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stderr == (
        f"{path} is unchanged, because a cell failed: ZeroDivisionError: division by zero\n")
    assert done.returncode == 1 and path.read_bytes() == content
