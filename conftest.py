"""Hooks of pytest: smoke parameters for notebooks, and a list of out-of-date measurements."""

import json
import os
from pathlib import Path

import yaml

from gptlib.classroom.leaderboard import code_hash

ROOT = Path(__file__).parent
SMOKE = ROOT / "notebooks/params/smoke.yaml"


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

    nbval has no option for parameters.
    """
    if os.environ.get("GPTLIB_SMOKE") != "1":
        return
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    for item in items:
        cell = getattr(item, "cell", None)      # only the items of nbval have a cell
        if cell is not None and "parameters" in cell.metadata.get("tags", []):
            for name, value in smoke.get(item.path.stem, {}).items():
                cell.source += f"\n{name} = {value!r}"
