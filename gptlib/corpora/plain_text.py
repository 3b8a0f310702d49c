"""From the bytes of a plain text to documents (chapter 10).

>>> content = "Die Äpfel im großen Korb schmecken süß.".encode("cp1252")
>>> decode(content, "apples.txt")
('Die Äpfel im großen Korb schmecken süß.', 'cp1250', 0)

The bytes of cp1250 and of cp1252 are the same for all German letters.
"""

import codecs
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from gptlib.config import check_types
from gptlib.corpora.text import SIGNATURES
from gptlib.data import DataError

PART_BYTES = 8 << 20            # a long plain text is read in parts of at most this size
COMPRESSED = (".gz", ".zst")    # the endings of compressed files, which hold one file each

# A text in one of these encodings begins with its byte order mark. That of utf-32 comes first,
# because it begins with the mark of utf-16.
BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
                    codecs.BOM_UTF16_BE: "utf-16"}


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


def without_compression(name: str) -> str:
    """Return the name of a file without .gz or .zst."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in COMPRESSED else name


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
    """Yield the documents of a plain text.

    Args:
        file: a stream that has the method peek.
    """
    file, wide = as_utf8(file)
    numbered = False
    try:
        for number, (content, is_whole) in enumerate(read_parts(file, separator), start=1):
            text, encoding, n_repaired = decode(content, source)
            numbered = numbered or not is_whole
            if text.strip():
                name = f"{source}:{number}" if numbered else source
                yield Document(text, name, "", wide or encoding, n_repaired)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} begins with the byte order mark of {wide}, but it is not {wide}: "
            f"{error.reason}"
        ) from None


def as_utf8(file: BinaryIO) -> tuple[BinaryIO, str]:
    """Return a stream of a text in utf-16 or utf-32 as utf-8, and the name of its encoding.

    Any other stream is returned as it is, with the name "".
    """
    start = file.peek(4)[:4]
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return codecs.EncodedFile(file, "utf-8", encoding), encoding
    return file, ""


def read_parts(file: BinaryIO, separator: str | None) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of a text as bytes, and whether the part is the whole text.

    The parts are split at the separator. A text that is longer than 2 * PART_BYTES, without a
    separator in it, is also cut. Without any separator, the joined parts are the whole text.
    """
    mark = separator.encode("utf-8") if separator else None
    waiting, n_parts = b"", 0
    while block := file.read(PART_BYTES):
        waiting += block
        *parts, waiting = waiting.split(mark) if mark else [waiting]
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
        text = content.decode("utf-8-sig", errors="replace")
        encoding = "damaged utf-8"
        if not is_mostly_utf8(text):
            text, encoding = guess_encoding(content, source)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, n_repaired = repair(text, source)
    return text, encoding, n_repaired


def is_mostly_utf8(text: str) -> bool:
    """Return whether at most 1 in 10 characters that are not ASCII is U+FFFD, for a wrong byte.

    So a text that was cut in the middle of a character is still utf-8. In a text in another
    encoding, most of these characters are wrong.
    """
    n_wrong = text.count("\ufffd")
    n_not_ascii = len(text) - len(text.encode("ascii", errors="ignore"))
    return 10 * n_wrong <= n_not_ascii


def guess_encoding(content: bytes, source: str) -> tuple[str, str]:
    """Return a text that is not utf-8, and the encoding that charset-normalizer finds for it."""
    best = needed("charset_normalizer", source).from_bytes(content).best()
    if best is None:
        raise DataError(
            f"{source} is not text in any encoding that charset-normalizer knows: save it as utf-8"
        )
    return str(best), best.encoding.replace("_", "-")


def repair(text: str, source: str) -> tuple[str, int]:
    """Return a text without mojibake, and how many characters shorter it is than before."""
    if text.isascii():
        return text, 0
    # fix_encoding takes about a second for a million characters. This pattern is faster: it finds
    # two characters that may be the bytes of one. It does not know the encodings of Mac OS and DOS,
    # which show the first byte of "ä" as one of two rare characters.
    suspect = needed("ftfy.chardata", source).UTF8_DETECTOR_RE.search(text)
    if not suspect and "√" not in text and "├" not in text:
        return text, 0
    fixed = needed("ftfy", source).fix_encoding(text)
    return fixed, len(text) - len(fixed)
