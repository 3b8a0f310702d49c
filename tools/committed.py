"""Find out whether notebooks are as they were committed.

JupyterLab saves a notebook by itself, with whatever somebody played with. The site and the editions
show only what was committed on purpose.
"""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path


def check_committed(root: Path, names: Iterable[str] = ()) -> str:
    """Check that the notebooks of the course are as they were committed.

    Args:
        root: the folder of the course.
        names: chapters such as "01_bigram". Without names, all notebooks are checked.
    Returns:
        A sentence if git cannot tell, for example because `root` is not a checkout, and else "".
    Raises:
        RuntimeError: a notebook has changes that are not committed.
    """
    try:
        inside = git(root, "rev-parse", "--show-prefix")
        if inside.strip():
            raise RuntimeError("this folder is part of the checkout of something else")
        status = git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all",
                     "--", "notebooks")
    except RuntimeError as error:
        return ("the notebooks are read as they are, because git cannot tell whether they are "
                f"committed ({error})")
    changed = {}
    for entry in status.split("\0"):
        # An entry is two letters, a space and a path.
        letters, path = entry[:2], Path(entry[3:])
        of_course = path.suffix == ".ipynb" and path.parent.name == "notebooks"
        if of_course and (not names or path.stem in names):
            changed[path.as_posix()] = letters
    if changed:
        raise RuntimeError(" ".join(map(describe, changed, changed.values())))
    return ""


def describe(path: str, letters: str) -> str:
    """Return a sentence about a changed notebook. `letters` are those of `git status`."""
    if letters == "??" or "A" in letters:
        return f"{path} is not committed: commit it, or move it to another folder."
    return (f"{path} has changes that are not committed: commit them, "
            f"or throw them away with `git restore -SW {path}`.")


def git(root: Path, *arguments: str) -> str:
    """Return what a git command prints.

    Raises:
        RuntimeError: git is not installed, or the command fails.
    """
    command = ["git", "-C", str(root), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8",
                                errors="surrogateescape", env=os.environ | {"LC_ALL": "C"})
    except OSError:
        raise RuntimeError("git is not installed") from None
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["unknown error"]
        raise RuntimeError(lines[0].removeprefix("fatal: "))
    return result.stdout
