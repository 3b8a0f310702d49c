"""What every benchmark records beside its numbers, and how it writes them."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gptlib.classroom.leaderboard import code_hash

FOLDER = Path(__file__).resolve().parent


def provenance() -> dict:
    """Return where, when and with which code a benchmark runs. Call it before the runs."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(FOLDER),
        "code": code_hash(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def revision(folder: Path) -> str:
    """Return the short hash of the commit that is checked out in `folder`, "" if it is unknown."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip()


def write_results(name: str, results: dict) -> None:
    """Write benchmarks/<name>.json."""
    content = json.dumps(results, indent=1) + "\n"
    (FOLDER / f"{name}.json").write_text(content, encoding="utf-8")


def stored(path: Path, work: Callable):
    """Return the content of a JSON file. If it is missing, write the result of `work()` first."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(work()), encoding="utf-8")
        os.replace(partial, path)
    return json.loads(path.read_text(encoding="utf-8"))
