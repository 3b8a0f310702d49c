"""Fetch the two JavaScript packages of the pages: MathJax for formulas, reveal.js for slides.

npm fetches each package once. It is checked, then stored beside the Python environment, where
`make clean` leaves it. With it the pages need no network.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

STORE = Path(sys.prefix) / "share/gpt-course"
# name: (version, sha256 of the package as npm publishes it)
PACKAGES = {
    "mathjax": ("3.2.2", "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09"),
    "reveal.js": ("4.6.1", "4f4121ef2b8e7e9398bdecd7b3b6ce5e0ee3a2f5af221708eb6c4ce03bcae6be"),
}


def package(name: str, store: Path = STORE) -> Path:
    """Return the folder of an unpacked npm package. Fetch the package if it is not there.

    Raises:
        RuntimeError: npm is missing, npm cannot fetch the package, or the checksum is wrong.
    """
    version, sha256 = PACKAGES[name]
    folder = store / f"{name}-{version}"
    if not folder.is_dir():
        by_hand = (f"or unpack the npm package {name}@{version} by hand, "
                   f"so that its package.json lies in {folder}")
        with tempfile.TemporaryDirectory() as temporary:
            archive = fetch(name, version, Path(temporary), by_hand)
            if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
                raise RuntimeError(f"npm fetched a {name} {version} with the wrong checksum: "
                                   f"try again, {by_hand}")
            unpack(archive, folder)
    return folder


def fetch(name: str, version: str, folder: Path, by_hand: str) -> Path:
    """Let npm write the package into `folder`, and return the archive.

    Args:
        by_hand: the end of every error message: what to do without npm.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"{name} {version} is fetched with npm, which is not installed: "
                           f"install Node.js, {by_hand}")
    command = [npm, "pack", "--silent", f"{name}@{version}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    archives = list(folder.glob("*.tgz"))
    if result.returncode or not archives:
        reason = result.stderr.strip()[-200:]
        raise RuntimeError(f"npm could not fetch {name} {version} ({reason}): "
                           f"try again with a network, {by_hand}")
    return archives[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an npm archive, whose files lie in `package/`, and move them to `folder`."""
    with tarfile.open(archive) as file:
        file.extractall(archive.parent, filter="data")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(archive.parent / "package", folder)
