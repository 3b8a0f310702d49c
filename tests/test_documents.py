"""Files of many kinds become documents, in any encoding, and nothing is lost without a word."""

import gzip
import io
import json
import sys
import zipfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.corpora import documents, plain_text
from gptlib.corpora.documents import load_documents, source_bytes
from gptlib.corpora.plain_text import Document, decode, read_parts
from gptlib.data import DataError

GERMAN = "Die Äpfel im großen Korb schmecken süß, und über dem Garten zieht ein Gewitter auf.\n"
TEXTS = {
    "German": GERMAN,
    "Arabic": "الكتاب على الطاولة والقلم في الحقيبة\n",
    "Thai": "แมวนอนอยู่บนเก้าอี้ใกล้หน้าต่าง\n",
    "emoji": "good morning 🙂👩‍🚀 and good night 🌙\n",
    "curly quotes": "“Don’t,” she said — naïve café…\n",
}


def read(source, **how):
    return list(load_documents(source, **how))


def texts(source, **how):
    return [document.text for document in load_documents(source, **how)]


# Plain text ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_utf8_is_read_as_it_is(tmp_path, text, mark):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + text.replace("\n", "\r\n").encode("utf-8"))
    assert read(path) == [Document(text, "a.txt")]


def test_another_encoding_is_found_and_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(GERMAN.encode("cp1252"))
    russian = "Привет, это русский текст о погоде и о море."
    (tmp_path / "b.txt").write_bytes(russian.encode("cp1251"))
    (tmp_path / "c.txt").write_bytes(GERMAN.encode("utf-16"))
    first, second, third = read(tmp_path)
    # cp1250 and cp1252 have the same bytes for German.
    assert (first.text, first.encoding) == (GERMAN, "cp1250")
    assert (second.encoding, second.text[:6]) == ("cp1251", russian[:6])
    assert (third.encoding, third.text) == ("utf-16", GERMAN)


def test_mojibake_is_repaired_and_counted(tmp_path):
    wrong = GERMAN.encode("utf-8").decode("cp1252")
    (tmp_path / "a.txt").write_text(wrong, encoding="utf-8")
    document, = read(tmp_path)
    assert document.text == GERMAN
    assert document.n_repaired == len(wrong) - len(GERMAN) > 0


@pytest.mark.parametrize("text", [*TEXTS.values(), "À la carte, Ângela, SÃO PAULO", "ﬁne “quotes”"])
def test_right_texts_are_not_repaired(text):
    assert decode(text.encode("utf-8"), "a.txt") == (text, "utf-8", 0)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    for name, content, fragment in [
        ("a.txt", b"\x89PNG\r\n\x1a\n", "a.txt is a PNG image"),
        ("b.txt", b"abc\0def", "b.txt is not text: it has a byte 0"),
        ("c.txt", b"PK\x03\x04rest", "c.txt is a zip archive"),
        ("d.exe", b"MZ\x01\x02\x03", "files that end in .exe are not read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=fragment):
            read(tmp_path / name)


# Long texts, and several documents in one file ----------------------------------------------------

@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(plain_text, "PART_BYTES", 64)
    monkeypatch.setattr(documents, "PART_BYTES", 64)


@given(text=st.text(alphabet=["a", "ü", "🙂", " ", "\n", "ไ"], min_size=0, max_size=600))
@settings(max_examples=60, deadline=None)
def test_the_parts_of_a_long_text_are_the_whole_text(text):
    original, plain_text.PART_BYTES = plain_text.PART_BYTES, 64
    try:
        parts = [part for part, _ in read_parts(io.BytesIO(text.encode("utf-8")), None)]
    finally:
        plain_text.PART_BYTES = original
    assert "".join(part.decode("utf-8") for part in parts) == text
    assert all(len(part) <= 128 for part in parts[:-1])


def test_a_long_text_is_cut_at_empty_lines(tmp_path, small_parts):
    text = "".join(f"paragraph {i}\nsecond line\n\n" for i in range(40))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    parts = read(tmp_path / "a.txt")
    assert [part.source for part in parts] == [f"a.txt:{i + 1}" for i in range(len(parts))]
    assert len(parts) > 5
    assert "".join(part.text for part in parts) == text
    assert all(part.text.endswith("\n\n") for part in parts)


@pytest.mark.parametrize("separator", ["<|endoftext|>", "\n\n", "—🙂—"])
def test_a_separator_splits_a_file_into_documents(tmp_path, separator, small_parts):
    stories = [f"story {i}: " + "word " * 30 + "end" for i in range(7)]
    (tmp_path / "a.txt").write_text(separator.join([*stories, "", "  "]), encoding="utf-8")
    assert texts(tmp_path / "a.txt", separator=separator) == stories


def test_an_empty_file_has_no_documents(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b" \n\n")
    assert read(tmp_path) == []


# Folders, globs, compressed files -----------------------------------------------------------------

def test_a_folder_is_read_sorted_with_all_its_folders_and_without_hidden_files(tmp_path):
    for name in ("b.txt", "a.md", "deep/er/c.py", ".hidden.txt", "deep/.git/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}", encoding="utf-8")
    assert [d.source for d in read(tmp_path)] == ["a.md", "b.txt", "deep/er/c.py"]
    assert texts(str(tmp_path / "*.md")) == ["text of a.md"]


def test_a_file_that_is_linked_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("once", encoding="utf-8")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    assert texts(tmp_path) == ["once"]


def test_a_damaged_file_in_a_folder_is_left_out_with_its_reason(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("good", encoding="utf-8")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"text")[:-4])
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    skipped = []
    assert len(read(tmp_path, on_skip=lambda source, reason: skipped.append((source, reason)))) >= 1
    assert [source for source, _ in skipped] == ["b.gz", "c.png"]
    assert "is not a whole compressed file" in skipped[0][1]
    read(tmp_path)
    assert "skipped c.png: c.png is a PNG image" in capsys.readouterr().out


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_compressed_texts_are_read(tmp_path, text):
    content = text.encode("utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress(content))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("inside/d.txt", content)
        archive.writestr("e.jsonl", json.dumps({"text": text}) + "\n")
    assert texts(tmp_path) == [text] * 4
    assert [d.source for d in read(tmp_path)] == [
        "a.txt.gz", "b.txt.zst", "c.zip/e.jsonl:1", "c.zip/inside/d.txt"]


def test_a_file_that_grows_too_much_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", b" " * 20_000_000)
    with pytest.raises(DataError, match="zeros.txt would be 20,000,000 bytes large"):
        read(tmp_path / "bomb.zip")


def test_the_size_of_a_source_is_that_of_its_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"12345")
    (tmp_path / "b.txt").write_bytes(b"123")
    assert source_bytes(tmp_path) == 8
    assert source_bytes(tmp_path / "a.txt") == 5
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"abc"))
    assert source_bytes(tmp_path) is None
    assert source_bytes("wikipedia:de") is None


# Mistakes -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("source", "how", "fragment"), [
    ("nowhere.txt", {}, "there is no file, folder or glob 'nowhere.txt'"),
    ("*.nothing", {}, "with at least one file"),
    (7, {}, "source=7 is int, it should be str or Path"),
    ("a.txt", {"separator": ""}, "separator is empty"),
    ("a.txt", {"column": 3}, "column=3 is int"),
    ("a.txt", {"on_skip": 5}, "on_skip=5 is int, it should be a function"),
], ids=["missing", "empty glob", "number", "empty separator", "column", "on_skip"])
def test_bad_arguments_are_named(tmp_path, monkeypatch, source, how, fragment):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match=fragment.replace("*", r"\*")):
        read(source, **how)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="with at least one file: give the path of a file"):
        read(tmp_path)


@pytest.mark.parametrize(("name", "content", "package"), [
    ("a.pdf", b"%PDF-1.4", "markitdown"), ("a.parquet", b"PAR1", "pyarrow.parquet"),
    ("a.wiki", b"''text''", "mwparserfromhell"), ("a.txt.zst", b"", "zstandard"),
    ("a.txt", GERMAN.encode("cp1252"), "charset_normalizer"),
    ("a.txt", "BÃ¤ume".encode(), "ftfy"),
])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path, monkeypatch, name, content, package
):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} needs the package {package}: pip install -e"):
        read(tmp_path / name)
