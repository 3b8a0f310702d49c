import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import socket
from pathlib import Path

import pytest
import requests

from gptlib import load_corpus
from gptlib.corpora import Corpus
from gptlib.corpora import text as corpora_text
from gptlib.data import DataError

PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """Work in an empty checkout, without a network and without GPTLIB_DATA."""
    for folder in ("notebooks", "gptlib", "data"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(corpora_text.DATA_VARIABLE, raising=False)

    def unreachable(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    return tmp_path


@pytest.fixture
def play(monkeypatch):
    """Let PLAY have the sha256 that is expected of tinyshakespeare. Return it as text."""
    digest = hashlib.sha256(PLAY).hexdigest()
    monkeypatch.setattr(corpora_text, "TINYSHAKESPEARE_SHA256", digest)
    return PLAY.decode()


def serve(monkeypatch, content):
    """Simulate a network in which every URL has `content`. Return the list of requested URLs."""
    urls = []

    def respond(url, **kwargs):
        urls.append(url)
        response = requests.Response()
        response.status_code, response.raw = 200, io.BytesIO(content)
        response.headers["content-length"] = str(len(content))
        return response

    monkeypatch.setattr(requests, "get", respond)
    monkeypatch.setattr(requests, "head", respond)
    return urls


# The data folders


def test_gptlib_data_is_searched_before_the_checkout(checkout, play, monkeypatch):
    (checkout / "data/tinyshakespeare.txt").write_text("not the play", encoding="utf-8")
    (checkout / "own").mkdir()
    (checkout / "own/tinyshakespeare.txt").write_bytes(PLAY)
    monkeypatch.setenv(corpora_text.DATA_VARIABLE, str(checkout / "own"))
    assert load_corpus("tinyshakespeare").text == load_corpus("auto").text == play


def test_the_checkouts_data_folder_is_searched_after_gptlib_data(checkout, play, monkeypatch):
    (checkout / "data/tinyshakespeare.txt").write_bytes(PLAY)
    monkeypatch.setenv(corpora_text.DATA_VARIABLE, str(checkout / "nowhere"))
    assert load_corpus("tinyshakespeare").text == play


def test_a_corpus_in_a_data_folder_needs_no_network(checkout, play, monkeypatch, capsys):
    urls = serve(monkeypatch, b"")
    (checkout / "data/tinyshakespeare.txt").write_bytes(PLAY)
    assert load_corpus("auto").name == "tinyshakespeare"
    assert urls == [] and capsys.readouterr().out == ""


def test_a_file_with_another_sha256_is_an_error_and_is_not_deleted(checkout):
    path = checkout / "data/tinyshakespeare.txt"
    path.write_text("half a play", encoding="utf-8")
    message = r"tinyshakespeare.txt is not the tinyshakespeare corpus: it has 11 bytes, the corpus"
    with pytest.raises(DataError, match=message):
        load_corpus("tinyshakespeare")
    assert path.read_text(encoding="utf-8") == "half a play"


# Downloads


def test_a_download_is_saved_and_not_repeated(checkout, play, monkeypatch):
    urls = serve(monkeypatch, PLAY)
    assert load_corpus("tinyshakespeare").text == play
    assert load_corpus("tinyshakespeare").text == play
    assert urls == [corpora_text.TINYSHAKESPEARE_URL]
    assert os.listdir(checkout / "data") == ["tinyshakespeare.txt"]


def test_an_incomplete_download_is_an_error_and_saves_nothing(checkout, play, monkeypatch):
    serve(monkeypatch, PLAY[:20])
    with pytest.raises(DataError, match="the download is incomplete or was changed on the way"):
        load_corpus("tinyshakespeare")
    assert os.listdir(checkout / "data") == []


def test_a_named_corpus_is_never_replaced_by_another(capsys):
    message = r"tinyshakespeare could not be downloaded \(ConnectionError\): connect to a network"
    with pytest.raises(DataError, match=message):
        load_corpus("tinyshakespeare")
    assert capsys.readouterr().out == ""


def test_a_wrong_proxy_is_not_reported_as_an_incomplete_download(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://")
    with pytest.raises(DataError, match=r"could not be downloaded \(InvalidProxyURL\)"):
        load_corpus("tinyshakespeare")


# auto


def test_auto_without_a_network_is_python_docs_and_prints_one_line(capsys):
    assert load_corpus("auto").name == "python_docs"
    output = capsys.readouterr().out
    assert output.startswith(
        "tinyshakespeare is not available (no network): using python_docs"
    )
    assert output.count("\n") == 1


def test_auto_prints_why_a_download_failed(play, monkeypatch, capsys):
    serve(monkeypatch, PLAY[:20])
    assert load_corpus("auto").name == "python_docs"
    output = capsys.readouterr().out
    assert "the download is incomplete" in output and output.count("\n") == 1


def test_auto_with_a_network_downloads_tinyshakespeare(play, monkeypatch, capsys):
    serve(monkeypatch, PLAY)
    assert load_corpus("auto").text == play
    assert capsys.readouterr().out == ""


def test_a_missing_network_is_remembered_for_some_minutes(checkout, play, monkeypatch):
    load_corpus("auto")
    urls = serve(monkeypatch, PLAY)
    assert load_corpus("auto").name == "python_docs" and urls == []
    # Pretend that the failure was long ago.
    os.utime(checkout / "data/.no-network", (0, 0))
    assert load_corpus("auto").name == "tinyshakespeare"


# Texts that need no download


def test_python_docs_and_python_code_come_with_python():
    assert "expression" in load_corpus("python_docs").text
    assert "def dataclass(" in load_corpus("python_code").text


def test_a_text_can_be_given_directly():
    assert load_corpus("text: to be ") == Corpus("text", " to be ", "the string given")


def test_line_ends_become_newlines_and_a_byte_order_mark_is_removed(checkout):
    (checkout / "a.txt").write_bytes("\ufeffto be\r\nor ∞\n".encode())
    assert load_corpus("a.txt").text == "to be\nor ∞\n"
    assert load_corpus(str(checkout / "a.txt")).text == "to be\nor ∞\n"


def test_a_folder_gives_its_text_files_sorted_by_name(checkout):
    (checkout / "plays/old").mkdir(parents=True)
    (checkout / "plays/.ipynb_checkpoints").mkdir()
    hidden = ".ipynb_checkpoints/a-checkpoint.txt"
    for name in ("b.txt", "a.txt", "old/c.txt", "notes.md", hidden):
        (checkout / "plays" / name).write_text(name, encoding="utf-8")
    expected = Corpus("plays", "a.txt\n\nb.txt\n\nold/c.txt", "3 files of plays")
    assert load_corpus("plays") == expected
    os.chdir("plays")
    assert load_corpus(".").name == "plays"


def test_a_glob_gives_the_files_that_match(checkout):
    for name in ("a1.md", "a2.md", "b.md"):
        (checkout / name).write_text(name, encoding="utf-8")
    assert load_corpus("a*.md").text == "a1.md\n\na2.md"


def test_the_ending_txt_is_matched_in_any_case(checkout):
    (checkout / "poems").mkdir()
    for name in ("POEM.TXT", "a.Txt", "b.txt", "c.txtx", "txt"):
        (checkout / "poems" / name).write_text(name, encoding="utf-8")
    assert load_corpus("poems").text == "POEM.TXT\n\na.Txt\n\nb.txt"


def test_a_path_object_is_read_as_a_file_or_a_folder(checkout):
    (checkout / "poems").mkdir()
    (checkout / "poems/auto").write_text("to be", encoding="utf-8")
    (checkout / "poems/a.txt").write_text("or not", encoding="utf-8")
    assert load_corpus(checkout / "poems/a.txt") == load_corpus("poems/a.txt")
    assert load_corpus(checkout / "poems").text == "or not"
    # A file may have the name of a corpus.
    os.chdir("poems")
    assert load_corpus(Path("auto")).text == "to be"


def test_a_folder_whose_name_looks_like_a_glob_is_read_as_a_folder(checkout):
    (checkout / "p[1]").mkdir()
    (checkout / "p[1]/a.txt").write_text("to be", encoding="utf-8")
    assert load_corpus("p[1]").text == "to be"


# Errors


def test_a_folder_without_text_files_is_an_error(checkout):
    with pytest.raises(DataError, match="folder 'data' holds no .txt file"):
        load_corpus("data")


@pytest.mark.parametrize("content", [b"", b" \n\t\n", "\ufeff".encode()])
def test_an_empty_text_is_an_error(checkout, content):
    (checkout / "empty.txt").write_bytes(content)
    with pytest.raises(DataError, match="corpus 'empty.txt' holds no text"):
        load_corpus("empty.txt")
    with pytest.raises(DataError, match="corpus 'text' holds no text"):
        load_corpus("text:")


@pytest.mark.parametrize("before", [b"", "\ufeff".encode(), b"\r\n"])
def test_the_error_for_another_encoding_names_the_byte_and_its_offset(checkout, before):
    latin_1 = "caf\N{LATIN SMALL LETTER E WITH ACUTE} noir".encode("latin-1")
    (checkout / "latin.txt").write_bytes(before + latin_1)
    offset = len(before) + 3
    message = rf"latin.txt is not utf-8 text: byte 0xe9 at offset {offset}; save it as utf-8 first"
    with pytest.raises(DataError, match=message):
        load_corpus("latin.txt")


ENGLISH = "To be, or not to be\n"


@pytest.mark.parametrize("content, recognised", [
    (b"PK\x03\x04\x14\0", "is a zip archive, such as .zip, .docx, .odt or .epub"),
    (gzip.compress(b"to be"), "is a gzip archive, not plain text: unpack it"),
    (bz2.compress(b"to be"), "is a bzip2 archive, not plain text: unpack it"),
    (lzma.compress(b"to be"), "is an xz archive, not plain text: unpack it"),
    (b"%PDF-1.4\n1 0 obj", 'is a PDF document, not plain text: save it as plain text first'),
    (b"{\\rtf1\\ansi to be}", "is a document in Rich Text Format (RTF), not plain text"),
    (b"\x89PNG\r\n\x1a\n\0", "is a PNG image, not plain text: give a text file"),
    (ENGLISH.encode("utf-16"), "is text in UTF-16 or UTF-32, not in utf-8: save it as utf-8"),
    (ENGLISH.encode("utf-32"), "is text in UTF-16 or UTF-32, not in utf-8: save it as utf-8"),
    (ENGLISH.encode("utf-16-le"), "seems to be text in UTF-16, not in utf-8: save it as utf-8"),
    (ENGLISH.encode("utf-16-be"), "seems to be text in UTF-16, not in utf-8: save it as utf-8"),
    (b"to be\0or not", "is not plain text: it has a byte 0 at offset 5"),
    (b"\x7fELF\2\1\1" + bytes(100), "is not plain text: it has a byte 0 at offset 7"),
], ids=["zip", "gzip", "bzip2", "xz", "pdf", "rtf", "png", "utf-16", "utf-32", "utf-16-le",
        "utf-16-be", "byte 0", "elf"])
def test_a_file_that_is_no_text_is_refused_and_its_kind_is_named(checkout, content, recognised):
    (checkout / "a.txt").write_bytes(content)
    for name in ("a.txt", str(checkout), "*.txt"):
        with pytest.raises(DataError, match=re.escape(f"a.txt {recognised}")) as caught:
            load_corpus(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["PK: a play", "%d of PDF", "{rtf}", "7z", "GIFs and BZh", "\x7f"])
def test_a_text_that_only_resembles_another_kind_of_file_is_read(checkout, text):
    (checkout / "a.txt").write_text(text, encoding="utf-8")
    assert load_corpus("a.txt").text == text


def test_a_text_with_the_character_0_is_refused_with_its_position():
    with pytest.raises(DataError, match=r"corpus 'text' has the character U\+0000 at position 5"):
        load_corpus("text:to be\0or not")


def test_half_a_surrogate_pair_is_refused_with_its_position():
    message = r"corpus 'text': character '\\udcff' at position 6 is half a surrogate pair"
    with pytest.raises(DataError, match=message):
        load_corpus("text:to be \udcff")


@pytest.mark.parametrize("name", [None, 3, b"auto", ["auto"], 1.5, True])
def test_a_name_that_is_no_string_and_no_path_is_refused(name):
    message = f"the name of a corpus should be a string or a Path, not {type(name).__name__}"
    with pytest.raises(DataError, match=message):
        load_corpus(name)


def test_the_error_for_an_unknown_name_suggests_the_nearest_one():
    message = "unknown corpus 'tinyshakespear': did you mean 'tinyshakespeare'"
    with pytest.raises(DataError, match=message):
        load_corpus("tinyshakespear")


LONG_TEXT = "To be, or not to be: that is the question. " * 30


@pytest.mark.parametrize("name", ["", "nowhere.txt", "~nobody-here/a.txt", "a\0b", LONG_TEXT])
def test_the_error_for_any_wrong_name_is_one_line(name):
    with pytest.raises(DataError, match="^unknown corpus ") as caught:
        load_corpus(name)
    message = str(caught.value)
    assert "Or give the path of a text file" in message
    assert len(message) < 350 and "\n" not in message


# Corpus.report


def test_a_report_counts_characters_alphabet_and_repeated_lines():
    report = Corpus("poem", "ab\nab\n\nba\nab\n", "a book").report(parameters=10)
    assert report.splitlines() == [
        "poem: 13 characters from a book",
        "alphabet: 3 different characters",
        "duplicates: 50.0% of 4 non-empty lines repeat an earlier one",
    ]


def test_a_report_warns_if_the_text_has_fewer_characters_than_the_model_has_parameters():
    report = Corpus("poem", "to be", "a book").report(parameters=500)
    assert "too small for this model: 0.01 characters for each of 500 parameters" in report
