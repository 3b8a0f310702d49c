"""From files of many kinds to documents (chapter 10).

A document is a text that belongs together: a file, a web page, a row of a table.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     _ = Path(folder, "word.txt").write_text("süß", encoding="utf-8")
...     _ = Path(folder, "rows.csv").write_text("title,text\\nfirst,to be\\nsecond,or not\\n")
...     for document in load_documents(folder):
...         print(document.source, repr(document.text))
rows.csv:1 'to be'
rows.csv:2 'or not'
word.txt 'süß'

`load_documents` yields one document after the other, so that a heap of any size fits into memory.
plain_text.py finds the encoding of a text. formats.py reads tables, chats, web pages and books.
"""

import glob
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from gptlib.checks import check_arguments, function_of, optional
from gptlib.corpora.formats import READERS, messages_only, read_wikipedia
from gptlib.corpora.plain_text import (
    COMPRESSED,
    Document,
    check_is_text,
    looks_like_text,
    needed,
    read_text,
    without_compression,
)
from gptlib.data import DataError

LARGEST_MEMBER = 4 << 30        # bytes: a larger file in an archive may be a "zip bomb"
LARGEST_RATIO = 1000            # so is one that grows by a larger factor
WIKIPEDIA = "wikipedia:"

# The kinds of files that are plain text, by the ending of their name.
TEXT_ENDINGS = frozenset(
    ".txt .text .md .rst .tex .log .srt .py .js .ts .c .h .cpp .hpp .cs .java .go .rs .rb .php .sh "
    ".sql .r .jl .lua .css .toml .yaml .yml .ini .cfg".split()
)


def print_skipped(source: str, reason: str) -> None:
    """Print one line about a file that was left out."""
    print(f"skipped {source}: {reason}")


@check_arguments(
    DataError, source=str | Path, column=str, separator=optional(str),
    on_skip=function_of("source", "reason"),
)
def load_documents(
    source: str | Path,
    column: str = "text",
    separator: str | None = None,
    on_skip: Callable[[str, str], None] = print_skipped,
) -> Iterator[Document]:
    """Yield the documents of a file, a folder, a glob or of Wikipedia.

    A text file is one document. A text file of more than 16 MB is read in parts of at most 8 MB,
    which end at an empty line where there is one. "\\r\\n" becomes "\\n", and a byte order mark is
    removed. A text that is not utf-8 is decoded with the encoding that charset-normalizer finds. In
    a text that is utf-8 but for a few wrong bytes, these become U+FFFD, and its encoding is
    "damaged utf-8". Mojibake, which is utf-8 that was once read with a wrong encoding, is repaired
    by ftfy.

    Args:
        source: the path of a file, a folder (with all folders in it), a glob such as "*.md", or
            "wikipedia:de" for the German Wikipedia, which is read from the network.
        column: the column of a table, or the key of a record, that holds the text. A column "title"
            becomes the title.
        separator: a text that stands between two documents of a text file, such as
            "<|endoftext|>". A document of more than 16 MB is read in parts, too.
        on_skip: called with the source of a file that was left out, and the reason. In a folder
            and in a zip archive, files that hold no text and damaged files are left out. Documents
            that stand before the damage are read.

    Raises:
        DataError: there is no such source, or a file that was named alone cannot be read.
    """
    if separator == "":
        raise DataError("separator is empty, it should be a text such as '<|endoftext|>'")
    source = os.path.expanduser(source)
    if source.startswith(WIKIPEDIA):
        return read_wikipedia(source.removeprefix(WIKIPEDIA))
    if os.path.isfile(source):
        return read_file(source, os.path.basename(source), column, separator, on_skip)
    files = find_files(source)
    if not files:
        raise DataError(
            f"there is no file, folder or glob {source!r} with at least one file: give the path of "
            "a file or a folder, or wikipedia:LANGUAGE"
        )
    return read_files(files, column, separator, on_skip)


def source_bytes(source: str | Path) -> int | None:
    """Return the size of all files of a source. None: it is not known, as for Wikipedia."""
    source = os.path.expanduser(source)
    if source.startswith(WIKIPEDIA):
        return None
    files = [source] if os.path.isfile(source) else find_files(source).values()
    # A compressed file becomes larger, by a factor that is not known.
    if any(str(path).lower().endswith((*COMPRESSED, ".zip")) for path in files):
        return None
    return sum(os.path.getsize(path) for path in files)


# Files --------------------------------------------------------------------------------------------

def find_files(source: str) -> dict[str, str]:
    """Return the files of a folder or a glob: {name in the folder: path}, sorted by name.

    Hidden files are left out. A file that is there twice, by a link, counts once.
    """
    is_folder = os.path.isdir(source)
    pattern = os.path.join(glob.escape(source), "**", "*") if is_folder else source
    files, seen = {}, set()
    for path in sorted(glob.glob(pattern, recursive=True)):
        real = os.path.realpath(path)
        if os.path.isfile(path) and real not in seen:
            seen.add(real)
            name = os.path.relpath(path, source) if is_folder else path
            files[name.replace(os.sep, "/")] = path
    return files


def read_files(
    files: dict[str, str], column: str, separator: str | None, on_skip: Callable
) -> Iterator[Document]:
    """Yield the documents of several files. A file that cannot be read is left out."""
    for name, path in files.items():
        try:
            yield from read_file(path, name, column, separator, on_skip)
        except DataError as error:
            on_skip(name, str(error))


def read_file(
    path: str, name: str, column: str, separator: str | None, on_skip: Callable
) -> Iterator[Document]:
    """Yield the documents of one file, which may be compressed."""
    try:
        if path.lower().endswith(".zip"):
            yield from read_zip(path, name, column, separator, on_skip)
            return
        with open_file(path, name) as file:
            yield from read_stream(file, without_compression(name), name, column, separator)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from None
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{name} is not a whole compressed file: {error}") from None


def open_file(path: str, name: str) -> BinaryIO:
    """Return a stream of the bytes of a file, uncompressed."""
    if path.lower().endswith(".gz"):
        return gzip.open(path)
    if path.lower().endswith(".zst"):
        # The package zstandard reads a file that was cut off without an error. Pyarrow refuses it.
        pyarrow = needed("pyarrow", name)
        return io.BufferedReader(pyarrow.input_stream(path, compression="zstd"))
    return open(path, "rb")


def read_zip(
    path: str, name: str, column: str, separator: str | None, on_skip: Callable
) -> Iterator[Document]:
    """Yield the documents of all files in a zip archive, which is read like a folder."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist()
                   if not member.is_dir() and not is_hidden(member.filename)]
        for member in members:
            check_size(member, name)
        for member in sorted(members, key=lambda member: member.filename):
            source = f"{name}/{member.filename}"
            try:
                yield from read_member(archive, member, source, column, separator)
            except DataError as error:
                on_skip(source, str(error))


def is_hidden(name: str) -> bool:
    """Return whether a file in an archive is hidden. macOS adds a hidden folder "__MACOSX"."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def check_size(member: zipfile.ZipInfo, name: str) -> None:
    """Raise a DataError if a file in an archive may be a "zip bomb"."""
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > LARGEST_MEMBER or ratio > LARGEST_RATIO:
        raise DataError(
            f"{name}/{member.filename} would be {member.file_size:,} bytes large, {ratio:,.0f} "
            "times its compressed size: unpack it first if you trust it"
        )


def read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str, column: str,
    separator: str | None,
) -> Iterator[Document]:
    """Yield the documents of one file in a zip archive."""
    if member.flag_bits & 1:
        raise DataError(f"{source} is encrypted: unpack the archive with its password first")
    try:
        with archive.open(member) as file:
            yield from read_stream(file, member.filename, source, column, separator)
    except (EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{source} cannot be unpacked: {error}") from None


def read_stream(
    file: BinaryIO, name: str, source: str, column: str, separator: str | None
) -> Iterator[Document]:
    """Yield the documents of an open file. The ending of its name decides how it is read.

    Args:
        file: a stream that has the method peek.
    """
    ending = os.path.splitext(name)[1].lower()
    if ending in READERS:
        yield from READERS[ending](file, source, column)
        return
    check_is_text(file.peek(1024)[:1024], source)
    if ending and ending not in TEXT_ENDINGS and not looks_like_text(file.peek(1024)[:1024]):
        raise DataError(f"files that end in {ending} are not read: give text, or {known_endings()}")
    for document in read_text(file, source, separator):
        yield replace(document, text=messages_only(document.text))


def known_endings() -> str:
    return ", ".join(sorted(READERS))
