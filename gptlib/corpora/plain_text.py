"""From the bytes of a plain text to documents (chapter 10).

>>> content = "Die Äpfel im großen Korb schmecken süß.".encode("cp1252")
>>> decode(content, "apples.txt")
('Die Äpfel im großen Korb schmecken süß.', 'cp1250', 0)

The bytes of cp1250 and of cp1252 are the same for all German letters.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from gptlib.config import check_types
from gptlib.corpora.text import SIGNATURES
from gptlib.data import DataError

PART_BYTES = 8 << 20            # a longer plain text is read in parts of about this size


@dataclass(frozen=True)
class Document:
    """A text, and where it comes from."""

    text: str
    source: str                 # the path, and for a record also its number: "posts.jsonl:17"
    title: str = ""
    encoding: str = "utf-8"     # the encoding of the file
    n_repaired: int = 0         # how many characters shorter the repair of mojibake made the text

    def __post_init__(self):
        check_types(self)


def check_is_text(start: bytes, source: str) -> None:
    """Raise a DataError if the first bytes are those of a picture, an archive or the like."""
    for signature, (kind, advice) in SIGNATURES.items():
        if start.startswith(signature):
            raise DataError(f"{source} is {kind}, not plain text: {advice}")
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{source} is not text: it has a byte 0, which no text contains")


def looks_like_text(start: bytes) -> bool:
    """Return whether the first bytes have no control characters but tabs and line ends."""
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in start)


def needed(package: str, source: str) -> Any:
    """Return a package that only some files need.

    Raises:
        DataError: it is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise DataError(
            f"{source} needs the package {package}: pip install -e '.[data]' in the folder of the "
            "course"
        ) from None


def read_text(file: BinaryIO, source: str, separator: str | None) -> Iterator[Document]:
    """Yield the documents of a plain text."""
    numbered = False
    for number, (content, is_whole) in enumerate(read_parts(file, separator), start=1):
        text, encoding, n_repaired = decode(content, source)
        numbered = numbered or not is_whole
        if text.strip():
            name = f"{source}:{number}" if numbered else source
            yield Document(text, name, "", encoding, n_repaired)


def read_parts(file: BinaryIO, separator: str | None) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of a text as bytes, and whether the part is the whole text.

    The parts are split at the separator. Without a separator, a text is cut only if it has more
    than PART_BYTES. Joined, these parts are the whole text.
    """
    mark = separator.encode("utf-8") if separator else None
    waiting, n_parts = b"", 0
    while block := file.read(PART_BYTES):
        waiting += block
        if mark:
            *parts, waiting = waiting.split(mark)
        else:
            parts = []
            while len(waiting) > 2 * PART_BYTES:
                end = cut_position(waiting)
                parts.append(waiting[:end])
                waiting = waiting[end:]
        for part in parts:
            n_parts += 1
            yield part, False
    if waiting:
        yield waiting, n_parts == 0


def cut_position(content: bytes) -> int:
    """Return where to cut: behind an empty line, a line or a space, and never in a character."""
    for mark in (b"\n\n", b"\n\r\n", b"\n", b" "):
        position = content.rfind(mark, PART_BYTES // 2, PART_BYTES)
        if position >= 0:
            return position + len(mark)
    position = PART_BYTES
    # In utf-8, the bytes 10xxxxxx continue a character.
    while content[position] & 0xC0 == 0x80 and position > PART_BYTES - 4:
        position -= 1
    return position


def decode(content: bytes, source: str) -> tuple[str, str, int]:
    """Return the text of some bytes, its encoding, and how much shorter ftfy has made it."""
    try:
        text, encoding = content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = guess_encoding(content, source)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, n_repaired = repair(text, source)
    return text, encoding, n_repaired


def guess_encoding(content: bytes, source: str) -> tuple[str, str]:
    """Return a text that is not utf-8, and the encoding that charset-normalizer finds for it."""
    best = needed("charset_normalizer", source).from_bytes(content).best()
    if best is None:
        raise DataError(
            f"{source} is not text in any encoding that charset-normalizer knows: save it as utf-8"
        )
    return str(best), best.encoding.replace("_", "-")


# In mojibake, the first byte of a character with two or more bytes is shown as one of these.
SUSPECTS = "ÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑØÙàáâãð"


def repair(text: str, source: str) -> tuple[str, int]:
    """Return a text without mojibake, and how many characters shorter it is than before."""
    if not any(character in text for character in SUSPECTS):
        return text, 0
    fixed = needed("ftfy", source).fix_encoding(text)
    return fixed, len(text) - len(fixed)
