"""nbval cannot take parameters: with GPTLIB_SMOKE=1 each `parameters` cell gets its smoke values as it is collected."""

import os
from pathlib import Path

import yaml

SMOKE = Path(__file__).parent / "notebooks/params/smoke.yaml"


def pytest_collection_modifyitems(items):
    if os.environ.get("GPTLIB_SMOKE") != "1":
        return
    values = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    for item in items:
        cell = getattr(item, "cell", None)              # only nbval's items have one
        if cell is not None and "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.get(item.path.stem, {}).items())
