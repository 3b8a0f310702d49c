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

from gptlib.corpora import plain_text
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


@pytest.mark.parametrize(("text", "encoding"), [
    ("Die Äpfel sind süß", "cp1250"), ("Die Äpfel sind süß", "mac-roman"),
    ("שלום עולם, מה שלומך", "latin-1"), ("你好世界", "latin-1"), ("안녕하세요 세계", "latin-1"),
    ("Привет мир", "cp1251"), ("don’t “go”", "cp1252"),
], ids=["cp1250", "Mac", "Hebrew", "Chinese", "Korean", "Russian", "curly quotes"])
def test_mojibake_of_many_scripts_and_encodings_is_repaired(text, encoding):
    wrong = "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte)
                    for byte in text.encode("utf-8"))
    assert decode(wrong.encode("utf-8"), "a.txt") == (text, "utf-8", len(wrong) - len(text))


def test_a_wrong_byte_does_not_spoil_the_other_characters():
    content = GERMAN.encode("utf-8") * 50 + b"\xff\n" + GERMAN.encode("utf-8")
    assert decode(content, "a.txt") == (GERMAN * 50 + "\ufffd\n" + GERMAN, "damaged utf-8", 0)


@pytest.mark.parametrize("text", [TEXTS["Arabic"], TEXTS["Thai"], GERMAN * 3],
                         ids=["Arabic", "Thai", "German"])
def test_a_text_that_was_cut_in_a_character_is_still_utf8(text):
    content = (text + text[-6] + "ü").encode("utf-8")[:-1]
    assert decode(content, "a.txt")[:2] == (text + text[-6] + "\ufffd", "damaged utf-8")


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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_long_text_with_wide_characters_is_read_in_parts(tmp_path, small_parts, encoding):
    text = "".join(f"Absatz {i} süß 🙂\n\n" for i in range(60))
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    parts = read(tmp_path / "a.txt")
    assert len(parts) > 5
    assert "".join(part.text for part in parts) == text
    assert {part.encoding for part in parts} == {encoding}
    assert len(texts(tmp_path / "a.txt", separator="\n\n")) == 60


def test_a_damaged_text_with_wide_characters_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("text".encode("utf-16") + b"\x00\xd8\x00\xd8")
    with pytest.raises(DataError, match="a.txt begins with the byte order mark of utf-16, but"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("size", [100, 5000])
def test_a_separator_that_never_comes_does_not_fill_the_memory(size):
    original, plain_text.PART_BYTES = plain_text.PART_BYTES, 64
    try:
        parts = [part for part, _ in read_parts(io.BytesIO(b"word " * size), "<|endoftext|>")]
    finally:
        plain_text.PART_BYTES = original
    assert b"".join(parts) == b"word " * size
    assert max(map(len, parts)) <= 3 * 64


@pytest.mark.parametrize("separator", ["<|endoftext|>", "\n\n", "—🙂—"])
def test_a_separator_splits_a_file_into_documents(tmp_path, separator, small_parts):
    stories = [f"story {i}: " + "word " * 15 + "end" for i in range(7)]
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


FORMATS = {
    "a.txt": "word", "a.jsonl": '{"text": "word"}\n', "a.json": '[{"text": "word"}]',
    "a.csv": "title,text\nfirst,word\n", "a.tsv": "title\ttext\nfirst\tword\n",
    "a.html": "<p>word</p>", "a.wiki": "[[word]]",
}
COMPRESS = {".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_from_every_compression(tmp_path, name, ending):
    (tmp_path / (name + ending)).write_bytes(COMPRESS[ending](FORMATS[name].encode("utf-8")))
    assert [text.strip() for text in texts(tmp_path / (name + ending))] == ["word"]


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_file_of_several_parts_is_read_to_its_end(tmp_path, ending):
    (tmp_path / f"a.txt{ending}").write_bytes(COMPRESS[ending](b"one ") + COMPRESS[ending](b"two"))
    assert texts(tmp_path) == ["one two"]


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"no archive"],
                         ids=["cut off", "other bytes"])
def test_a_damaged_compressed_file_is_named(tmp_path, ending, damage):
    content = COMPRESS[ending](bytes(range(32, 127)) * 9000)
    (tmp_path / f"a.txt{ending}").write_bytes(damage(content))
    with pytest.raises(DataError, match=f"a.txt{ending} (cannot be read|is not a whole)"):
        read(tmp_path / f"a.txt{ending}")


def test_a_bad_file_in_an_archive_is_left_out_and_the_others_are_read(tmp_path):
    skipped = []
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in [
            ("a.png", b"\x89PNG"), ("b.txt", b"good"), ("__MACOSX/._b.txt", b"\0"),
            (".hidden.txt", b"hidden"), ("c.txt", b"damaged"), ("d.txt", b"too"),
        ]:
            archive.writestr(name, content)
    content = (tmp_path / "a.zip").read_bytes().replace(b"damaged", b"DAMAGED")
    (tmp_path / "a.zip").write_bytes(content)
    found = texts(tmp_path / "a.zip", on_skip=lambda source, reason: skipped.append(source))
    assert found == ["good", "too"]
    assert skipped == ["a.zip/a.png", "a.zip/c.txt"]


def test_an_encrypted_file_in_an_archive_is_left_out_with_its_reason(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "secret")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[6] |= 1                                     # the flag "encrypted", in both places
    content[content.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    reasons = []
    assert read(tmp_path, on_skip=lambda source, reason: reasons.append(reason)) == []
    assert reasons == ["a.zip/a.txt is encrypted: unpack the archive with its password first"]


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
    ("a.wiki", b"''text''", "mwparserfromhell"), ("a.txt.zst", b"", "pyarrow"),
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
