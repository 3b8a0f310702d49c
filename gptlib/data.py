"""Corpora by name, the train and validation split, and batches that depend on (seed, step) alone."""

import glob
import hashlib
import os
import sysconfig
import threading
import time
import tokenize
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pooch
import requests
import torch

from gptlib.config import did_you_mean, project_dir
from gptlib.theatre import generate

TINYSHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
DATA_VARIABLE = "GPTLIB_DATA"          # a folder that is searched for corpora before any download
CONNECT_SECONDS = 4                    # how long `auto` waits for a network before it does without
OFFLINE_SECONDS = 600                  # ... and how long it then remembers that there was none


class DataError(ValueError):
    """Text that cannot be had, read or cut into windows. The message says what, where and what would be right."""


@dataclass(frozen=True)
class Corpus:
    """A text and where it comes from."""

    name: str
    text: str
    source: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def report(self, parameters: int | None = None) -> str:
        """Size, alphabet and repetition in a few lines; with a model's `parameters`, whether it is enough text."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        repeated = sum(n - 1 for n in Counter(lines).values())
        said = [f"{self.name}: {len(self.text):,} characters from {self.source}",
                f"alphabet: {len(set(self.text))} different characters",
                f"duplicates: {repeated / max(1, len(lines)):.1%} of {len(lines):,} non-empty lines repeat an earlier one"]
        if parameters and len(self.text) < parameters:
            said.append(f"too small for this model: {len(self.text) / parameters:.2g} characters for each of "
                        f"{parameters:,} parameters, so expect it to learn the text by heart; "
                        "a smaller model, dropout or more text would help")
        return "\n".join(said)


def load_corpus(name: str = "auto") -> Corpus:
    """The corpus of that name.

    Args:
        name: one of `CORPORA`; or `auto`, which is tinyshakespeare where it can be had and else, said in one
            line, python_docs; or the path of a utf-8 text file, of a folder of `.txt` files, or a glob; or
            `text:` followed by the text itself.

    Raises:
        DataError: no such name, no such file, a file that is not utf-8, or a download that failed. A corpus
            asked for by name never falls back to another.
    """
    if name == "auto":
        return _auto()
    if name in CORPORA:
        return CORPORA[name]()
    if name.startswith("text:"):
        return _not_empty(Corpus("text", name.removeprefix("text:"), "the string given"))
    path = os.path.expanduser(name)                             # os.path, since pathlib raises at a name too long for a path
    base = os.path.basename(os.path.abspath(path))
    if os.path.isfile(path):
        return _not_empty(Corpus(base, _read(Path(path)), base))
    pattern = os.path.join(glob.escape(path), "**", "*.txt") if os.path.isdir(path) else path
    found = [file for file in sorted(map(Path, glob.glob(pattern, recursive=True))) if file.is_file()]      # none in .hidden folders
    if found:
        return _not_empty(Corpus(base, "\n\n".join(map(_read, found)), f"{len(found)} files of {base}"))
    if os.path.isdir(path):
        raise DataError(f"folder {name!r} holds no .txt file")
    shown = name if len(name) <= 80 else name[:80] + "…"
    raise DataError(f"unknown corpus {shown!r}{did_you_mean(name, ('auto', *CORPORA))} "
                    "Or give the path of a text file, a folder, a glob, or 'text:' and the text itself.")


def tinyshakespeare() -> Corpus:
    """1.1 MB of Shakespeare's plays: found in the data folders, else downloaded once and checked by its sha256."""
    for folder in _data_dirs():
        path = folder / "tinyshakespeare.txt"
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != TINYSHAKESPEARE_SHA256:
                raise DataError(f"{path} is not the tinyshakespeare corpus: {path.stat().st_size:,} bytes where 1,115,394 "
                                "are right, or another text; delete it, and it is downloaded again")
            return Corpus("tinyshakespeare", _read(path), "karpathy/char-rnn")
    folder = _data_dirs()[-1]
    try:
        path = pooch.retrieve(TINYSHAKESPEARE_URL, TINYSHAKESPEARE_SHA256, "tinyshakespeare.txt", folder,
                              downloader=pooch.HTTPDownloader(progressbar=True, timeout=30))
    except OSError as error:        # all of requests' errors among them, some of which are ValueErrors too
        raise DataError(f"tinyshakespeare could not be downloaded ({type(error).__name__}): connect to a network, or put "
                        f"tinyshakespeare.txt into a folder and name that folder in {DATA_VARIABLE}") from None
    except ValueError:              # pooch deletes what it got, and says both hashes in full
        raise DataError("tinyshakespeare: the download was cut short or changed on the way (its sha256 is not the "
                        "published one); nothing was kept, please try again") from None
    return Corpus("tinyshakespeare", _read(Path(path)), "karpathy/char-rnn")


def python_docs() -> Corpus:
    """The language reference that every CPython carries in `pydoc_data`: real English, no download."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError("python_docs: this Python comes without pydoc_data; a complete Python from python.org, "
                        "conda or your system's packages has it") from None
    return Corpus("python_docs", "\n\n".join(topics[name] for name in sorted(topics)), "pydoc_data of this Python")


def python_code() -> Corpus:
    """The sources of the standard library's top-level modules, in the order of their names."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        with tokenize.open(path) as file:       # heeds a module's own coding line
            texts.append(file.read())
    if not texts:
        raise DataError("python_code: this Python comes without the sources of its standard library")
    return Corpus("python_code", "\n\n".join(texts), f"{len(texts)} modules of this Python's standard library")


def theatre(level: int = 3) -> Corpus:
    """A million characters of little plays, whose true probability `gptlib.theatre` knows; levels 1 and 2 are easier."""
    name = "theatre" if level == 3 else f"theatre{level}"
    return Corpus(name, generate(1_000_000, level), f"gptlib.theatre, level {level}")


CORPORA = {"tinyshakespeare": tinyshakespeare, "python_docs": python_docs, "python_code": python_code, "theatre": theatre,
           "theatre1": partial(theatre, 1), "theatre2": partial(theatre, 2)}


def split(ids: torch.Tensor | str, val_fraction: float = 0.1) -> tuple[torch.Tensor, torch.Tensor] | tuple[str, str]:
    """The first part for training and the last `val_fraction` for validation, as nanoGPT does; of tokens or of text."""
    n_train = int(len(ids) * (1 - val_fraction))
    return ids[:n_train], ids[n_train:]


def get_batch(ids: torch.Tensor, block_size: int, batch_size: int, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows and the tokens that follow each position, a function of (seed, step) alone.

    Args:
        ids: the tokens, (N,), at least block_size + 1 of them.

    Returns:
        x and y, (batch_size, block_size) each, with y[:, t] the token after x[:, t].

    Raises:
        DataError: fewer than block_size + 1 tokens.
    """
    check_length(ids, block_size)
    starts = np.random.default_rng((seed, step)).integers(len(ids) - block_size, size=batch_size)   # the end is excluded
    windows = ids[torch.from_numpy(starts)[:, None] + torch.arange(block_size + 1)]                 # (B, T+1)
    return windows[:, :-1], windows[:, 1:]


def fixed_windows(ids: torch.Tensor, block_size: int, batch_size: int):
    """Batches of windows side by side, so that every token but the first is a target exactly once."""
    check_length(ids, block_size)
    n = (len(ids) - 1) // block_size
    x, y = (ids[shift:shift + n * block_size].view(n, block_size) for shift in (0, 1))
    yield from zip(x.split(batch_size), y.split(batch_size), strict=True)
    if n * block_size < len(ids) - 1:                                # the rest, a window of its own
        yield ids[None, n * block_size:-1], ids[None, n * block_size + 1:]


def check_length(ids: torch.Tensor, block_size: int, what: str = "text") -> None:
    """Raise a DataError unless `ids` hold one window and one target more."""
    if len(ids) <= block_size:
        raise DataError(f"the {what} has {len(ids):,} tokens, too few for windows of block_size={block_size} and one target more: "
                        "take a longer text or a smaller block_size")


def _data_dirs() -> list[Path]:
    """Where corpora are looked for; the last one is where downloads land."""
    checkout = project_dir()
    own = checkout / "data" if (checkout / "data").is_dir() else Path(pooch.os_cache("gptlib"))
    named = os.environ.get(DATA_VARIABLE)
    return [Path(named).expanduser(), own] if named else [own]


def _auto() -> Corpus:
    try:
        at_hand = any((folder / "tinyshakespeare.txt").is_file() for folder in _data_dirs())
        if at_hand or _online():
            return tinyshakespeare()
        why = "no network"
    except DataError as error:
        why = str(error)
    print(f"tinyshakespeare could not be had ({why}): using python_docs, the reference that came with Python.")
    return python_docs()


def _online() -> bool:
    """Whether the download's host answers; a "no" is remembered for a while, so that only one chapter waits."""
    stamp = _data_dirs()[-1] / ".no-network"
    if stamp.is_file() and time.time() - stamp.stat().st_mtime < OFFLINE_SECONDS:
        return False
    answers = []

    def ask():
        try:
            answers.append(requests.head(TINYSHAKESPEARE_URL, timeout=CONNECT_SECONDS).ok)
        except requests.RequestException:
            answers.append(False)

    asking = threading.Thread(target=ask, daemon=True)      # a name server's silence has no timeout of its own
    asking.start()
    asking.join(CONNECT_SECONDS)
    if any(answers):
        return True
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    except OSError:
        pass                    # a read-only folder: the next chapter asks again
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not utf-8 text: byte {error.object[error.start]:#04x} at offset {error.start}; "
                        "save it as utf-8 first") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _not_empty(corpus: Corpus) -> Corpus:
    if not corpus.text.strip():
        raise DataError(f"corpus {corpus.name!r} holds no text")
    return corpus
