"""Readers for files that are more than plain text: tables, records, chats, pages, books, Wikipedia.

Each reader takes an open file, its source and the name of the text column, and yields documents.
READERS says which reader belongs to which ending. The converters are libraries, and each of them is
imported only when a file needs it.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from gptlib.checks import is_unicode
from gptlib.config import did_you_mean
from gptlib.corpora.plain_text import Document, decode, needed, without_compression
from gptlib.data import DataError

LONGEST_FIELD = 1 << 27         # characters in one field of a table

# The edition of Wikipedia that the network delivers.
WIKIPEDIA_DATE = "20231101"


# Tables and records -------------------------------------------------------------------------------

def read_csv(file: BinaryIO, source: str, column: str) -> Iterator[Document]:
    """Yield a document for each row of a table. The first row has the names of the columns."""
    csv.field_size_limit(LONGEST_FIELD)
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        delimiter = "\t" if without_compression(source).lower().endswith(".tsv") else ","
        yield from record_documents(csv.DictReader(lines, delimiter=delimiter), source, column)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not utf-8 text: {error.reason}; save it as utf-8") from None
    except csv.Error as error:
        raise DataError(f"{source} is not a table that can be read: {error}") from None


def read_jsonl(file: BinaryIO, source: str, column: str) -> Iterator[Document]:
    """Yield a document for each line, which holds one record, or one conversation."""
    def records():
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield parse_json(line, f"{source}, line {number}")

    yield from record_documents(records(), source, column)


def read_json(file: BinaryIO, source: str, column: str) -> Iterator[Document]:
    """Yield a document for each record of a list, or for each conversation."""
    content = parse_json(file.read(), source)
    records = content if isinstance(content, list) else [content]
    yield from record_documents(records, source, column)


def parse_json(content: bytes, source: str):
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is not JSON: {error}") from None


def read_parquet(file: BinaryIO, source: str, column: str) -> Iterator[Document]:
    """Yield a document for each row of a Parquet table."""
    parquet = needed("pyarrow.parquet", source)
    import pyarrow

    try:
        table = parquet.ParquetFile(file if file.seekable() else io.BytesIO(file.read()))
        check_column(column, table.schema_arrow.names, source)
        names = [name for name in (column, "title") if name in table.schema_arrow.names]
        rows = (row for batch in table.iter_batches(columns=names, batch_size=1000)
                for row in batch.to_pylist())
        yield from record_documents(rows, source, column)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{source} is not a Parquet table: {error}") from None


def record_documents(records: Iterable[dict], source: str, column: str) -> Iterator[Document]:
    """Yield a document for each record that has some text."""
    for number, record in enumerate(records, start=1):
        where = f"{source}:{number}"
        if not isinstance(record, dict):
            raise DataError(f"{where} is {type(record).__name__}, it should be a record (a dict)")
        if is_conversation(record):
            if text := conversation_text(record, where):
                yield checked_document(text, where)
            continue
        check_column(column, list(record), where)
        text = record[column]
        if text is None or (isinstance(text, str) and not text.strip()):
            continue
        if not isinstance(text, str):
            raise DataError(f"{where}: {column} is {type(text).__name__}, it should be text")
        yield checked_document(text.replace("\r\n", "\n"), where, str(record.get("title") or ""))


def checked_document(text: str, source: str, title: str = "") -> Document:
    """Return a document whose text and title can be stored as utf-8. JSON and PDF allow others."""
    if not is_unicode(text + title):
        raise DataError(
            f"{source} has half a surrogate pair, such as '\\ud83d', which no file can store: "
            "replace it"
        )
    return Document(text, source, title)


def check_column(column: str, names: list[str], source: str) -> None:
    if column not in names:
        raise DataError(
            f"{source} has no column {column!r}{did_you_mean(column, [str(n) for n in names])}"
        )


# Chats --------------------------------------------------------------------------------------------

def is_conversation(record: dict) -> bool:
    """Return whether a record is a conversation: {"messages": [{"role": …, "content": …}, …]}."""
    return isinstance(record.get("messages"), list)


def conversation_text(record: dict, source: str) -> str:
    """Return a conversation as lines "ROLE: text". Messages without text are left out."""
    lines = []
    for message in record["messages"]:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise DataError(f"{source}: each message should have a role and a content")
        if text := content_text(message["content"], source):
            lines.append(f"{message['role']}: {text}\n")
    return "".join(lines)


def content_text(content: str | list | None, source: str) -> str:
    """Return the text of a message. It may be a list of parts: {"type": "text", "text": …}.

    A message that only calls a tool has the content None.
    """
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        content = "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    if content is not None and not isinstance(content, str):
        raise DataError(
            f"{source}: the content of a message is {type(content).__name__}, it should be text"
        )
    return content or ""


# A message of an exported chat: "31.12.23, 21:15 - NAME: text" or "[31/12/2023, 21:15:02] NAME: …".
MESSAGE = re.compile(
    r"^\u200e?\[?\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? \d{1,2}:\d{2}(?::\d{2})?(?:\s?[AaPp]\.?[Mm]\.?)?"
    r"(?:\]| -) (?P<name>[^:\n]{1,80}): (?P<text>.*)$"
)


def messages_only(text: str) -> str:
    """Return an exported chat as lines "NAME: text". Any other text is returned as it is.

    >>> messages_only("31.12.23, 21:15 - Anna: Hello!\\n31.12.23, 21:16 - Ben: Hi\\n")
    'Anna: Hello!\\nBen: Hi\\n'
    """
    lines = text.split("\n")
    first = [line for line in lines[:20] if line.strip()]
    if not first or sum(bool(MESSAGE.match(line)) for line in first) < len(first) / 2:
        return text
    matches = [MESSAGE.match(line) for line in lines]
    return "\n".join(
        f"{match['name']}: {match['text']}" if match else line
        for match, line in zip(matches, lines, strict=True)
    )


# Web pages, books, documents of word processors ---------------------------------------------------

# The names of markitdown's converters.
CONVERTERS = {".html": "HtmlConverter", ".htm": "HtmlConverter", ".epub": "EpubConverter",
              ".docx": "DocxConverter", ".pdf": "PdfConverter"}


def read_converted(file: BinaryIO, source: str, column: str) -> Iterator[Document]:
    """Yield the text of a web page, an EPUB, a DOCX or a PDF, as Markdown."""
    markitdown = needed("markitdown", source)
    ending = os.path.splitext(without_compression(source))[1].lower()
    # Markitdown itself would read a damaged file as plain text. Its converters refuse it.
    converter = getattr(needed("markitdown.converters", source), CONVERTERS[ending])()
    try:
        result = converter.convert(io.BytesIO(file.read()),
                                   markitdown.StreamInfo(extension=ending))
    except Exception as error:          # each converter raises errors of its own
        raise DataError(
            f"{source} is not a {ending[1:].upper()} file that can be read "
            f"({type(error).__name__}): open it in its own program and save it again"
        ) from None
    if not result.markdown.strip():
        raise DataError(
            f"{source} holds no text: if it is a scan, run a program for text recognition first"
        )
    yield checked_document(result.markdown.strip() + "\n", source, result.title or "")


# Wikipedia ----------------------------------------------------------------------------------------

def read_wikipedia(language: str) -> Iterator[Document]:
    """Yield the articles of a Wikipedia, such as "de" or "simple", one after the other.

    They are read from the network as they are needed.
    """
    datasets = needed("datasets", f"wikipedia:{language}")
    name = f"{WIKIPEDIA_DATE}.{language}"
    n_articles = 0
    # No network, an unknown language, a network that fails on the way: each has its own error.
    try:
        articles = datasets.load_dataset("wikimedia/wikipedia", name, split="train",
                                         streaming=True)
        for article in articles:
            yield Document(article["text"], article["url"], article["title"])
            n_articles += 1
    except Exception as error:
        state = f"stopped after {n_articles:,} articles" if n_articles else "is not available"
        raise DataError(
            f"wikipedia:{language} {state} ({type(error).__name__}): is there a network, "
            f"and is {language!r} the code of a language, such as de or simple?"
        ) from None


def read_wikitext(file: BinaryIO, source: str, column: str) -> Iterator[Document]:
    """Yield one document: the text of an article without the marks of wikitext."""
    parser = needed("mwparserfromhell", source)
    text, encoding, n_repaired = decode(file.read(), source)
    code = parser.parse(text)
    for tag in code.filter_tags(recursive=False, matches=lambda tag: tag.tag == "ref"):
        code.remove(tag)                # a footnote would stand in the middle of its sentence
    plain = code.strip_code().strip()
    if plain:
        yield Document(plain + "\n", source, "", encoding, n_repaired)


READERS = {
    ".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl,
    ".json": read_json, ".parquet": read_parquet, ".wiki": read_wikitext,
    ".wikitext": read_wikitext, **dict.fromkeys(CONVERTERS, read_converted),
}
