"""The two JavaScript packages that pages need without a network: MathJax for formulas, reveal.js for slides.

Each is fetched once through npm, checked, and kept beside the Python environment, where `make clean` leaves it.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = {        # version, and sha256 of the package as it is published
    "mathjax": ("3.2.2", "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09"),
    "reveal.js": ("4.6.1", "4f4121ef2b8e7e9398bdecd7b3b6ce5e0ee3a2f5af221708eb6c4ce03bcae6be"),
}


def package(name: str, kept: Path = Path(sys.prefix) / "share/gpt-course") -> Path:
    """The folder of an unpacked npm package.

    Raises:
        RuntimeError: npm is missing or cannot fetch it, or the package is not the one that is expected.
    """
    version, sha256 = PACKAGES[name]
    folder = kept / f"{name}-{version}"
    if folder.is_dir():
        return folder
    by_hand = f"or unpack the npm package {name}@{version} by hand, so that its package.json lies in {folder}"
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"{name} {version} is fetched with npm, which is not there: install Node.js, {by_hand}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", f"{name}@{version}"]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, encoding="utf-8")
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            raise RuntimeError(f"npm could not fetch {name} {version} ({done.stderr.strip()[-200:]}): try again with a network, {by_hand}")
        if hashlib.sha256(archives[0].read_bytes()).hexdigest() != sha256:
            raise RuntimeError(f"what npm fetched as {name} {version} is not the package that was published: try again, {by_hand}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(temporary, filter="data")
        kept.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(temporary) / "package", folder)
    return folder
