"""Hooks of pytest: order, smoke parameters of notebooks, and a list of out-of-date measurements."""

import json
import os
import shutil
from pathlib import Path

import yaml

from gptlib.classroom.leaderboard import code_hash

ROOT = Path(__file__).parent
SMOKE = ROOT / "notebooks/params/smoke.yaml"
# The files with the longest tests, the longest first. They are started before the other files, so
# that at the end no process of xdist waits long for another one.
LONG_FILES = (
    "test_grade.py", "test_sweep.py", "test_widgets.py", "test_site.py", "test_notebooks.py",
    "test_distributed.py", "test_plan.py", "test_resume.py", "test_bad_command_lines.py",
    "test_browser.py", "test_bad_values.py", "test_theatre.py", "test_bpe.py",
)
# The last cell of a notebook that trains also checks the results that the notebook has written.
CHECK_RESULTS = """
import json, math
from gptlib.config import project_dir
files = list((project_dir() / out_dir).glob("result-*.json"))
assert files, f"there is no result in {out_dir}"
for file in files:
    row = json.loads(file.read_text(encoding="utf-8"))
    assert row["chapter"] == CHAPTER and row["parameters"] > 0, row
    assert 0 < row["val_loss"] < 2 * math.log(row["vocab_size"]), row
"""


def pytest_configure(config):
    """With GPTLIB_SMOKE=1, remove the results of earlier executions of the notebooks."""
    # Among the processes of xdist, only the first one has no `workerinput`.
    if os.environ.get("GPTLIB_SMOKE") == "1" and not hasattr(config, "workerinput"):
        shutil.rmtree(ROOT / "build/smoke", ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
    """Name each result of a benchmark that was measured with other code than today's."""
    for path in sorted((ROOT / "benchmarks").glob("*.json")):
        measured = json.loads(path.read_text(encoding="utf-8"))
        if measured.get("code") != code_hash():
            name = path.relative_to(ROOT)
            terminalreporter.write_line(f"{name} is out of date: the code has changed since. "
                                        "`make measure` measures again.")


def pytest_collection_modifyitems(items):
    """Sort the items by their files, and adapt the notebooks to GPTLIB_SMOKE=1."""
    ranks = {name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
    if os.environ.get("GPTLIB_SMOKE") == "1":
        # Only the items of nbval have a cell.
        adapt_notebooks([item for item in items if hasattr(item, "cell")])


def adapt_notebooks(items):
    """Append the smoke values to each `parameters` cell, and a check to each last cell.

    nbval has no option for parameters.
    """
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    for item in items:
        if "parameters" in item.cell.metadata.get("tags", []):
            for name, value in smoke.get(item.path.stem, {}).items():
                item.cell.source += f"\n{name} = {value!r}"
    last_items = {item.path.stem: item for item in items}
    for stem, item in last_items.items():
        # The playground writes no results.
        if stem != "playground":
            item.cell.source += f"\nCHAPTER = {stem!r}{CHECK_RESULTS}"
