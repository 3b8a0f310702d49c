"""Hooks of pytest: smoke parameters for notebooks, and a list of out-of-date measurements."""

import json
import os
import shutil
from pathlib import Path

import yaml

from gptlib.classroom.leaderboard import code_hash

ROOT = Path(__file__).parent
SMOKE = ROOT / "notebooks/params/smoke.yaml"
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
    """With GPTLIB_SMOKE=1, append the smoke values to each `parameters` cell.

    nbval has no option for parameters. The last cell of each notebook checks the results.
    """
    if os.environ.get("GPTLIB_SMOKE") != "1":
        return
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    # Only the items of nbval have a cell.
    items = [item for item in items if hasattr(item, "cell")]
    for item in items:
        if "parameters" in item.cell.metadata.get("tags", []):
            for name, value in smoke.get(item.path.stem, {}).items():
                item.cell.source += f"\n{name} = {value!r}"
    last_items = {item.path.stem: item for item in items}
    for stem, item in last_items.items():
        # The playground writes no results.
        if stem != "playground":
            item.cell.source += f"\nCHAPTER = {stem!r}{CHECK_RESULTS}"
