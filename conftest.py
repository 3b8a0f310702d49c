"""Two things that pytest is told here: smoke values for notebooks, and which measurements are out of date."""

import json
import os
from pathlib import Path

import yaml

from gptlib.leaderboard import code_hash

ROOT = Path(__file__).parent
SMOKE = ROOT / "notebooks/params/smoke.yaml"


def pytest_terminal_summary(terminalreporter):
    for path in sorted((ROOT / "benchmarks").glob("*.json")):
        if json.loads(path.read_text(encoding="utf-8")).get("code") != code_hash():
            terminalreporter.write_line(f"{path.relative_to(ROOT)} was measured with other code than today's: see `make measure`")


def pytest_collection_modifyitems(items):
    """nbval cannot take parameters: with GPTLIB_SMOKE=1 each `parameters` cell gets its smoke values as it is collected."""
    if os.environ.get("GPTLIB_SMOKE") != "1":
        return
    values = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    for item in items:
        cell = getattr(item, "cell", None)              # only nbval's items have one
        if cell is not None and "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.get(item.path.stem, {}).items())
