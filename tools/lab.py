"""Copy the notebooks of the course into my_notebooks/, where readers may change them.

    python tools/lab.py

`make lab` runs this before it opens JupyterLab. When the course is updated, a copy that the reader
has not changed is replaced by the new version. A copy that the reader has changed is kept, and one
sentence says so.

`my_notebooks/.copied` lists every version that was copied, as a fingerprint and a name. A copy with
such a fingerprint is unchanged. Each version is listed before it is copied. If this program is
killed between the two, the next start finishes the work.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ".copied"


def main() -> int:
    """Bring my_notebooks/ up to date, and print a sentence for each copy that stays behind."""
    try:
        sentences = update(ROOT / "notebooks", ROOT / "my_notebooks")
    except OSError as error:
        print(f"make lab: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    for sentence in sentences:
        print(f"make lab: {sentence}")
    return 0


def update(originals: Path, copies: Path) -> list[str]:
    """Bring the copies up to date, and return a sentence for each copy that stays behind.

    Raises:
        OSError: the folder of the copies cannot be written.
    """
    copies.mkdir(exist_ok=True)
    # A line that this program has not written lists nothing.
    with open(copies / LIST, "a+", encoding="utf-8", errors="replace") as list_file:
        list_file.seek(0)
        lines = list_file.read().splitlines()
    copied = {tuple(line.split(" ", 1)) for line in lines if " " in line}
    remove_partial_files(copies)
    names = {path.name for path in originals.glob("*.ipynb")}
    sentences = []
    for name in sorted(names | {name for _, name in copied}):
        original, copy = originals / name, copies / name
        try:
            if name in names:
                sentences.append(update_copy(original, copy, copied))
            elif copy.exists():
                sentences.append(remove_copy(copy, copied))
        except OSError as error:
            sentences.append(f"{shown(copy)} was not brought up to date: {error.strerror}.")
    return [sentence for sentence in sentences if sentence]


def update_copy(original: Path, copy: Path, copied: set[tuple[str, str]]) -> str:
    """Write the copy, unless the reader has changed it. Return a sentence if it stays behind."""
    content = original.read_bytes()
    version = fingerprint(content), copy.name
    present = (fingerprint(copy.read_bytes()), copy.name) if copy.exists() else None
    if present not in (None, version, *copied):
        if version in copied:
            # There is no newer version than the one that the reader has changed.
            return ""
        return (f"{shown(copy)} has your changes, so it was kept. The course has another version: "
                f"{shown(original)}. To work with that one, rename your file and start again.")
    if version not in copied:
        with open(copy.with_name(LIST), "a", encoding="utf-8") as list_file:
            list_file.write(" ".join(version) + "\n")
    if present != version:
        write(copy, content)
    return ""


def remove_copy(copy: Path, copied: set[tuple[str, str]]) -> str:
    """Remove the copy of a notebook that the course no longer has, unless the reader changed it."""
    if (fingerprint(copy.read_bytes()), copy.name) in copied:
        copy.unlink(missing_ok=True)
        return ""
    return (f"{shown(copy)} has your changes, so it was kept. The course no longer has a notebook "
            "with this name.")


def fingerprint(content: bytes) -> str:
    """Return the SHA-256 of what a reader changes in a notebook: its cells and their outputs.

    JupyterLab also changes the metadata of the notebook and the format of the file. These do not
    count. A file that is not a notebook counts with all its bytes.
    """
    try:
        cells = normalized(json.loads(content)["cells"])
        content = json.dumps(cells, sort_keys=True).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return hashlib.sha256(content).hexdigest()


def normalized(value: object) -> object:
    """Return a JSON value without numbers of execution, and with lists of lines joined."""
    if isinstance(value, list):
        if all(isinstance(line, str) for line in value):
            return "".join(value)
        return [normalized(part) for part in value]
    if isinstance(value, dict):
        return {key: normalized(part) for key, part in value.items() if key != "execution_count"}
    return value


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is complete at every moment."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed programs left behind. Another program may still write a newer file."""
    for path in folder.glob(".*.partial"):
        try:
            if time.time() - path.stat().st_mtime > 60:
                path.unlink()
        except FileNotFoundError:
            pass


def shown(path: Path) -> str:
    """Return the path as messages show it: the folder and the name."""
    return f"{path.parent.name}/{path.name}"


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(f"make lab: {sys.argv[1]!r} should be left out, this program takes no argument")
    sys.exit(main())
