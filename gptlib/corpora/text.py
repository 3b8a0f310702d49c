"""From the name of a corpus to its text (chapter 1).

A corpus is the text that a model learns from. `load_corpus` finds it by its name, reads it from
your own files, or takes it directly:

>>> corpus = load_corpus("text:to be or not to be")
>>> corpus.text
'to be or not to be'
>>> sorted(set(corpus.text))
[' ', 'b', 'e', 'n', 'o', 'r', 't']

A tokenizer turns the text into numbers (tokenizer.py), and data.py cuts the numbers into batches.
"""

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

import pooch
import requests

from gptlib.checks import at_least, check_arguments, optional
from gptlib.config import check_types, did_you_mean, project_dir
from gptlib.corpora.theatre import generate
from gptlib.data import DataError
from gptlib.tokenizer import TokenizerError, check_surrogates

TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

# This environment variable names a folder. Corpora are searched there before any download.
DATA_VARIABLE = "GPTLIB_DATA"

# The first bytes of some kinds of files that are no plain text, and what to do about them.
UNPACK = "unpack it, and give the path of the text inside"
EXPORT = 'save it as plain text first ("Save as" or "Export" in a word processor)'
NO_TEXT = "give a text file"
SIGNATURES = {
    b"PK\x03\x04": ("a zip archive, such as .zip, .docx, .odt or .epub",
                    "unpack an archive, or save a document as plain text first"),
    b"\x1f\x8b": ("a gzip archive", UNPACK),
    b"BZh9": ("a bzip2 archive", UNPACK),
    b"\xfd7zXZ\x00": ("an xz archive", UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", UNPACK),
    b"\x28\xb5\x2f\xfd": ("a Zstandard archive", UNPACK),
    b"%PDF": ("a PDF document", EXPORT),
    b"%!PS": ("a PostScript document", EXPORT),
    b"{\\rtf": ("a document in Rich Text Format (RTF)", EXPORT),
    b"\x89PNG": ("a PNG image", NO_TEXT),
    b"\xff\xd8\xff": ("a JPEG image", NO_TEXT),
    b"GIF8": ("a GIF image", NO_TEXT),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document, such as .doc", EXPORT),
}

# "auto" waits this long for an answer from the network.
CONNECT_SECONDS = 4

# If there was no answer, "auto" does not try the network again for this long.
OFFLINE_SECONDS = 600


@dataclass(frozen=True)
class Corpus:
    """A text, its name, and where it comes from."""

    name: str
    text: str
    source: str

    def __post_init__(self):
        check_types(self)

    @property
    def sha256(self) -> str:
        """Return the sha256 of the text in utf-8, as 64 hexadecimal digits."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @check_arguments(parameters=optional(at_least(0)))
    def report(self, parameters: int | None = None) -> str:
        """Describe the text in three lines: its length, its alphabet and its repeated lines.

        Args:
            parameters: how many parameters the model has. If the text has fewer characters, one
                more line warns that it is too small for this model.
        """
        lines = [line for line in self.text.splitlines() if line.strip()]
        n_repeated = sum(count - 1 for count in Counter(lines).values())
        report = [
            f"{self.name}: {len(self.text):,} characters from {self.source}",
            f"alphabet: {len(set(self.text))} different characters",
            f"duplicates: {n_repeated / max(1, len(lines)):.1%} of {len(lines):,} non-empty lines "
            "repeat an earlier one",
        ]
        if parameters and len(self.text) < parameters:
            report.append(
                f"too small for this model: {len(self.text) / parameters:.2g} characters for each "
                f"of {parameters:,} parameters, so the model will probably learn the text by "
                "heart; a smaller model, dropout or more text would help"
            )
        return "\n".join(report)


def load_corpus(name: str | Path = "auto") -> Corpus:
    """Return the corpus of that name.

    Args:
        name: one of four things:
            - a name in `CORPORA`, such as "tinyshakespeare";
            - "auto", which is tinyshakespeare if it is available. Otherwise it is python_docs, and
              one printed line says so;
            - the path of a utf-8 text file, of a folder of .txt files, or a glob such as "*.md".
              A `Path` is always the path of a file or a folder;
            - "text:" followed by the text itself.

    Raises:
        DataError: the name is unknown, a file is missing or is not utf-8 text, or a download
            failed. Only "auto" ever replaces one corpus by another.
    """
    if isinstance(name, Path):
        if str(name) in ("auto", *CORPORA) and not name.exists():
            raise DataError(
                f"there is no file {str(name)!r}, and a Path is always a file or a folder: for the "
                f"corpus of this name, write load_corpus({str(name)!r})"
            )
        return _load_files(str(name))
    if not isinstance(name, str):
        raise DataError(
            f"the name of a corpus should be a string or a Path, not {type(name).__name__}: "
            "to give the text itself, write 'text:' before it"
        )
    if name == "auto":
        return _tinyshakespeare_or_python_docs()
    if name in CORPORA:
        return CORPORA[name]()
    if name.startswith("text:"):
        text = name.removeprefix("text:")
        return _check_text(Corpus("text", text, "the string given"))
    return _load_files(name)


# Corpora from files


def _load_files(name: str) -> Corpus:
    """Return the text of the file, the folder or the glob `name`."""
    # os.path answers False for a very long name, where pathlib raises an OSError.
    path = os.path.expanduser(name)
    base = os.path.basename(os.path.abspath(path))
    if os.path.isfile(path):
        return _check_text(Corpus(base, _read(Path(path)), base))
    files = _find_files(path)
    if files:
        text = "\n\n".join(_read(file) for file in files)
        return _check_text(Corpus(base, text, f"{len(files)} files of {base}"))
    if os.path.isdir(path):
        raise DataError(f"folder {name!r} holds no .txt file")
    shown = name if len(name) <= 80 else name[:80] + "…"
    if os.path.lexists(path):
        raise DataError(
            f"{shown!r} is a device, a pipe or a link that leads nowhere: give the path of a text "
            "file or of a folder"
        )
    # The name of a file, and not a misspelt name of a corpus.
    is_path = shown == name and ("." in name or "/" in name)
    missing = f"There is no such file in {os.getcwd()} either. " if is_path else ""
    raise DataError(
        f"unknown corpus {shown!r}{did_you_mean(name, ('auto', *CORPORA))} "
        f"{missing}Or give the path of a text file, a folder, a glob, or 'text:' and the text "
        "itself."
    )


def _find_files(path: str) -> list[Path]:
    """Return the .txt files in and below the folder `path`, or the files that match a glob.

    They are sorted by name. "POEM.TXT" is a .txt file too. glob skips hidden folders such as
    .ipynb_checkpoints.
    """
    is_folder = os.path.isdir(path)
    pattern = os.path.join(glob.escape(path), "**", "*") if is_folder else path
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
    # A link may lead to a file that is in the folder already. The text contains each file once.
    files = {}
    for match in matches:
        if match.is_file() and (match.suffix.lower() == ".txt" or not is_folder):
            files.setdefault(os.path.realpath(match), match)
    return list(files.values())


def _read(path: Path) -> str:
    """Return the text of a utf-8 file with "\\n" as line end, without a byte order mark."""
    content = _read_bytes(path)
    _check_is_text(path, content)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not utf-8 text: byte {content[error.start]:#04x} at offset "
            f"{error.start}; save it as utf-8 first"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _check_is_text(path: Path, content: bytes) -> None:
    """Raise a DataError if the bytes of a file are of a kind that is no utf-8 text."""
    for signature, (kind, advice) in SIGNATURES.items():
        if content.startswith(signature):
            raise DataError(f"{path} is {kind}, not plain text: {advice}")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is text in UTF-16 or UTF-32, not in utf-8: save it as utf-8 first")
    offset = content.find(0)
    if offset < 0:
        return
    # In UTF-16, the first or the second byte of every English letter is 0.
    sample = content[:1000]
    zeros = sample[::2].count(0), sample[1::2].count(0)
    if min(zeros) == 0 and max(zeros) >= len(sample) / 4:
        raise DataError(f"{path} seems to be text in UTF-16, not in utf-8: save it as utf-8 first")
    raise DataError(
        f"{path} is not plain text: it has a byte 0 at offset {offset}, which no text contains; "
        "save it as plain text in utf-8 first"
    )


def _check_text(corpus: Corpus) -> Corpus:
    """Return `corpus`, or raise a DataError if a tokenizer or a file could not hold its text."""
    text = corpus.text
    if not text.strip():
        raise DataError(f"corpus {corpus.name!r} holds no text")
    if "\0" in text:
        raise DataError(
            f"corpus {corpus.name!r} has the character U+0000 at position "
            f"{text.index(chr(0))}, which no text contains: remove it"
        )
    try:
        check_surrogates(text)
    except TokenizerError as error:
        raise DataError(f"corpus {corpus.name!r}: {error}") from None
    return corpus


# Corpora by name


def tinyshakespeare() -> Corpus:
    """Return 1.1 MB of Shakespeare's plays, from a data folder or else by one download.

    In both cases the sha256 of the file is checked.
    """
    path = _find_tinyshakespeare()
    if path is None:
        path = _download_tinyshakespeare()
    else:
        _check_tinyshakespeare(path)
    return Corpus("tinyshakespeare", _read(path), "karpathy/char-rnn")


def python_docs() -> Corpus:
    """Return Python's language reference, which CPython carries in `pydoc_data`: real English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            "python_docs: this Python comes without pydoc_data; a complete Python from "
            "python.org, conda or your system's packages has it"
        ) from None
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return Corpus("python_docs", text, "pydoc_data of this Python")


def python_code() -> Corpus:
    """Return the source code of the standard library's top-level modules, sorted by name."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        # tokenize.open uses the encoding that the module itself declares.
        with tokenize.open(path) as file:
            texts.append(file.read())
    if not texts:
        raise DataError(
            "python_code: this Python comes without the sources of its standard library"
        )
    source = f"{len(texts)} modules of this Python's standard library"
    return Corpus("python_code", "\n\n".join(texts), source)


def theatre(level: int = 3) -> Corpus:
    """Return a million characters of the Little Theatre's plays (theatre.py).

    The exact probability of these texts is known. Levels 1 and 2 are easier.
    """
    name = "theatre" if level == 3 else f"theatre{level}"
    text = generate(1_000_000, level)
    return Corpus(name, text, f"gptlib.corpora.theatre, level {level}")


CORPORA = {
    "tinyshakespeare": tinyshakespeare,
    "python_docs": python_docs,
    "python_code": python_code,
    "theatre": theatre,
    "theatre1": partial(theatre, 1),
    "theatre2": partial(theatre, 2),
}


# Finding or downloading tinyshakespeare


def _data_folders() -> list[Path]:
    """Return the folders in which corpora are searched. Downloads go to the last one."""
    checkout_data = project_dir() / "data"
    own = checkout_data if checkout_data.is_dir() else Path(pooch.os_cache("gptlib"))
    named = os.environ.get(DATA_VARIABLE)
    # For an unknown user, os.path leaves the ~. pathlib would raise a RuntimeError.
    return [Path(os.path.expanduser(named)), own] if named else [own]


def _find_tinyshakespeare() -> Path | None:
    """Return the path of the file in the first data folder that has it."""
    for folder in _data_folders():
        if folder.is_file():
            raise DataError(
                f"{DATA_VARIABLE}={str(folder)!r} is a file, it should be the folder that holds "
                "tinyshakespeare.txt"
            )
        path = folder / "tinyshakespeare.txt"
        if path.is_file():
            return path
    return None


def _wrong_variable() -> str:
    """Return, in brackets, why the folder that GPTLIB_DATA names has no corpus."""
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        return ""
    is_folder = os.path.isdir(os.path.expanduser(named))
    reason = "has no file tinyshakespeare.txt" if is_folder else "is not an existing folder"
    return f" ({DATA_VARIABLE}={named!r} {reason})"


def _check_tinyshakespeare(path: Path) -> None:
    """Raise a DataError if the file has another content than the published one."""
    if hashlib.sha256(_read_bytes(path)).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise DataError(
            f"{path} is not the tinyshakespeare corpus: it has {path.stat().st_size:,} bytes, the "
            "corpus has 1,115,394 bytes, and its sha256 is different; delete the file, and it is "
            "downloaded again"
        )


def _download_tinyshakespeare() -> Path:
    """Download the file into the last data folder. pooch checks its sha256."""
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        path = pooch.retrieve(
            TINYSHAKESPEARE_URL, TINYSHAKESPEARE_SHA256, "tinyshakespeare.txt",
            _data_folders()[-1], downloader=downloader,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise DataError(
            f"tinyshakespeare cannot be saved in {_data_folders()[-1]} ({error.strerror}): put "
            f"tinyshakespeare.txt into another folder and name that folder in {DATA_VARIABLE}"
        ) from None
    except OSError as error:
        # All errors of requests are OSErrors. Some are ValueErrors too, so OSError comes first.
        raise DataError(
            f"tinyshakespeare could not be downloaded ({type(error).__name__}): connect to a "
            "network, or put tinyshakespeare.txt into a folder and name that folder in "
            f"{DATA_VARIABLE}{_wrong_variable()}"
        ) from None
    except ValueError:
        # The sha256 is wrong, and pooch has deleted the file.
        raise DataError(
            "tinyshakespeare: the download is incomplete or was changed on the way (its sha256 is "
            "not the published one); nothing was saved, please try again"
        ) from None
    return Path(path)


def _tinyshakespeare_or_python_docs() -> Corpus:
    """Return tinyshakespeare if it is available, else python_docs after one printed line."""
    try:
        if _find_tinyshakespeare() or _network_available():
            return tinyshakespeare()
        reason = "no network"
    except DataError as error:
        reason = str(error)
    print(
        f"tinyshakespeare is not available ({reason}): using python_docs, the reference that "
        "comes with Python."
    )
    return python_docs()


def _network_available() -> bool:
    """Return whether the host of the download answers.

    If it does not, a file in the data folder remembers this for OFFLINE_SECONDS, so that the next
    chapter does not wait again.
    """
    stamp = _data_folders()[-1] / ".no-network"
    if stamp.is_file() and time.time() - stamp.stat().st_mtime < OFFLINE_SECONDS:
        return False
    if _host_answers():
        return True
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    except OSError:
        # The folder is read-only, so the next chapter asks the network again.
        pass
    return False


def _host_answers() -> bool:
    """Return whether the host of the download answers within CONNECT_SECONDS."""
    answers = []

    def ask():
        try:
            response = requests.head(TINYSHAKESPEARE_URL, timeout=CONNECT_SECONDS)
            answers.append(response.ok)
        except requests.RequestException:
            answers.append(False)

    # The look-up of the host's name has no timeout. A thread lets us stop waiting for it.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return any(answers)
