"""A small heap of files with planted faults, so that a cleaning can be checked (chapter 10).

A real heap does not tell which of its documents are copies. This one does:

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     kinds = write_heap(folder, "To be, or not to be. " * 15000)
>>> kinds["stub-0.txt"], kinds["copy-1.txt"]
('too short', 'exact copy')
"""

import csv
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from gptlib.checks import at_least, check_arguments, some_path
from gptlib.data import DataError

PIECE = 3000                # characters of a document, at least

# What the heap holds, by the name of its files, and how many.
KINDS = {
    "book": ("good", 18),
    "page": ("good", 6),                # web pages, all with the same menu
    "copy": ("exact copy", 4),
    "edited": ("near copy", 4),
    "stub": ("too short", 3),
    "spam": ("repetition", 1),
    "german": ("another language", 2),
    "records": ("good", 10),            # in one compressed file
    "table": ("good", 4),               # in one CSV file
}

MENU = ("Home | News | Archive | Imprint | Contact us",
        "Please accept all cookies before you read this page")

GERMAN = (
    "Im Garten hinter dem alten Haus stehen drei Apfelbäume. Jedes Jahr im Herbst pflücken die "
    "Kinder die Früchte und tragen sie in großen Körben in die Küche. Dort kocht die Großmutter "
    "süßes Mus, und der Großvater erzählt von früher. Er weiß, wer die Bäume gepflanzt hat und "
    "warum der mittlere schief wächst: Ein Sturm hat ihn vor vierzig Jahren beinahe umgeweht. "
    "Seitdem stützt ihn ein Balken, den der Nachbar aus Eiche gesägt hat. Wenn es regnet, hören "
    "alle zu, wie die Tropfen auf das Blechdach schlagen, und keiner möchte nach Hause gehen.\n"
)


@check_arguments(DataError, folder=some_path, text=str, seed=at_least(0))
def write_heap(folder: str | Path, text: str, seed: int = 1) -> dict[str, str]:
    """Write about fifty documents in several formats. Return the kind of each, by its source.

    Args:
        text: good documents are pieces of this text, cut at empty lines or spaces.

    Returns:
        {source: kind}, such as {"copy-0.txt": "exact copy"}. The sources are those that
        `load_documents(folder)` gives to its documents.

    Raises:
        DataError: the text is too short.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    n_pieces = sum(n for kind, n in KINDS.values() if kind == "good")
    pieces = list(cut(text))[:n_pieces]
    if len(pieces) < n_pieces:
        raise DataError(
            f"the text has {len(text):,} characters, it should have at least "
            f"{n_pieces * 2 * PIECE:,} for {n_pieces} documents"
        )
    good = iter(pieces)
    for name, (_, n) in KINDS.items():
        if name == "records":
            write_records(folder / "records.jsonl.gz", [next(good) for _ in range(n)])
        elif name == "table":
            write_table(folder / "table.csv", [next(good) for _ in range(n)])
        elif name in ("book", "page"):
            for i in range(n):
                write_piece(folder, name, i, next(good))
        elif name == "copy":
            for i in range(n):
                # The copy has another name, and other line ends.
                content = pieces[i].replace("\n", "\r\n") + "\r\n"
                (folder / f"copy-{i}.txt").write_bytes(content.encode("utf-8"))
        elif name == "edited":
            for i in range(n):
                content = edit(pieces[i + 4], rng)
                (folder / f"edited-{i}.txt").write_bytes(content.encode("utf-8"))
    write_faults(folder)
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return truth()


def truth() -> dict[str, str]:
    """Return the kind of each document of the heap, by its source."""
    kinds = {}
    for name, (kind, n) in KINDS.items():
        source = {"page": "page-{}.html", "records": "records.jsonl.gz:{}",
                  "table": "table.csv:{}"}.get(name, name + "-{}.txt")
        first = 1 if name in ("records", "table") else 0
        kinds |= {source.format(first + i): kind for i in range(n)}
    return kinds


def cut(text: str) -> Iterator[str]:
    """Yield pieces of at least PIECE characters, which end at an empty line, else at a space."""
    start = 0
    while start + 2 * PIECE <= len(text):
        end = text.find("\n\n", start + PIECE, start + 2 * PIECE)
        if end < 0:
            end = text.find(" ", start + PIECE, start + 2 * PIECE)
        if end < 0:
            end = start + PIECE
        yield text[start:end].strip() + "\n"
        start = end


def edit(text: str, rng: random.Random) -> str:
    """Return a near copy: one word in 50 is replaced by a word from elsewhere in the text."""
    words = text.split(" ")
    for i in rng.sample(range(len(words)), len(words) // 50):
        words[i] = rng.choice(words)
    return " ".join(words)


def write_piece(folder: Path, name: str, number: int, piece: str) -> None:
    if name == "book":
        (folder / f"book-{number}.txt").write_bytes(piece.encode("utf-8"))
        return
    paragraphs = "".join(f"<p>{part}</p>\n" for part in (MENU[0], *piece.split("\n\n"), MENU[1]))
    page = f"<html><head><title>Page {number}</title></head><body>\n{paragraphs}</body></html>\n"
    (folder / f"page-{number}.html").write_bytes(page.encode("utf-8"))


def write_records(path: Path, pieces: list[str]) -> None:
    lines = [json.dumps({"title": f"Record {i}", "text": piece}) + "\n"
             for i, piece in enumerate(pieces)]
    # Without a date, so that the same heap has the same bytes.
    path.write_bytes(gzip.compress("".join(lines).encode("utf-8"), mtime=0))


def write_table(path: Path, pieces: list[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["title", "text"])
        table.writerows([f"Row {i}", piece] for i, piece in enumerate(pieces))


def write_faults(folder: Path) -> None:
    for i in range(KINDS["stub"][1]):
        (folder / f"stub-{i}.txt").write_bytes(f"{i + 3}.\n".encode())
    (folder / "spam-0.txt").write_bytes(b"Click here to win a golden ring, today only!\n" * 60)
    middle = GERMAN.index("Er weiß")
    (folder / "german-0.txt").write_bytes(GERMAN[:middle].encode("cp1252"))
    # This text was read with the wrong encoding, and then saved as utf-8.
    wrong = GERMAN[middle:].encode("utf-8").decode("cp1252")
    (folder / "german-1.txt").write_bytes(wrong.encode("utf-8"))
