import hashlib
import io
import os
import socket

import pytest
import requests
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import data, get_batch, load_corpus, split
from gptlib.data import Corpus, DataError, fixed_windows

PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """An empty checkout to work in, without a network and without GPTLIB_DATA."""
    for folder in ("notebooks", "gptlib", "data"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(data.DATA_VARIABLE, raising=False)

    def unreachable(*args, **how):
        raise OSError("network is unreachable")
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    return tmp_path


@pytest.fixture
def play(monkeypatch):
    """PLAY passes for tinyshakespeare."""
    monkeypatch.setattr(data, "TINYSHAKESPEARE_SHA256", hashlib.sha256(PLAY).hexdigest())
    return PLAY.decode()


def serve(monkeypatch, content):
    """A network on which every address holds `content`. Returns the addresses asked for."""
    asked = []

    def answer(url, **how):
        asked.append(url)
        response = requests.Response()
        response.status_code, response.raw = 200, io.BytesIO(content)
        response.headers["content-length"] = str(len(content))
        return response
    monkeypatch.setattr(requests, "get", answer)
    monkeypatch.setattr(requests, "head", answer)
    return asked


def test_gptlib_data_is_searched_before_the_checkout(checkout, play, monkeypatch):
    (checkout / "data/tinyshakespeare.txt").write_text("not the play", encoding="utf-8")
    (checkout / "own").mkdir()
    (checkout / "own/tinyshakespeare.txt").write_bytes(PLAY)
    monkeypatch.setenv(data.DATA_VARIABLE, str(checkout / "own"))
    assert load_corpus("tinyshakespeare").text == load_corpus("auto").text == play


def test_the_checkouts_data_folder_is_searched_when_gptlib_data_has_nothing(checkout, play, monkeypatch):
    (checkout / "data/tinyshakespeare.txt").write_bytes(PLAY)
    monkeypatch.setenv(data.DATA_VARIABLE, str(checkout / "nowhere"))
    assert load_corpus("tinyshakespeare").text == play


def test_a_corpus_at_hand_asks_no_network(checkout, play, monkeypatch, capsys):
    asked = serve(monkeypatch, b"")
    (checkout / "data/tinyshakespeare.txt").write_bytes(PLAY)
    assert load_corpus("auto").name == "tinyshakespeare" and asked == [] and capsys.readouterr().out == ""


def test_a_file_that_is_not_the_play_is_refused_and_kept(checkout):
    path = checkout / "data/tinyshakespeare.txt"
    path.write_text("half a play", encoding="utf-8")
    with pytest.raises(DataError, match=r"tinyshakespeare.txt is not the tinyshakespeare corpus: 11 bytes where 1,115,394 are right"):
        load_corpus("tinyshakespeare")
    assert path.read_text(encoding="utf-8") == "half a play"


def test_a_download_lands_in_the_data_folder_once(checkout, play, monkeypatch):
    asked = serve(monkeypatch, PLAY)
    assert load_corpus("tinyshakespeare").text == load_corpus("tinyshakespeare").text == play
    assert asked == [data.TINYSHAKESPEARE_URL] and os.listdir(checkout / "data") == ["tinyshakespeare.txt"]


def test_a_download_cut_short_is_refused_and_leaves_nothing(checkout, play, monkeypatch):
    serve(monkeypatch, PLAY[:20])
    with pytest.raises(DataError, match="the download was cut short or changed on the way"):
        load_corpus("tinyshakespeare")
    assert os.listdir(checkout / "data") == []


def test_a_corpus_asked_for_by_name_never_falls_back(capsys):
    with pytest.raises(DataError, match=r"tinyshakespeare could not be downloaded \(ConnectionError\): connect to a network, or put"):
        load_corpus("tinyshakespeare")
    assert capsys.readouterr().out == ""


def test_a_bad_proxy_is_no_broken_download(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://")
    with pytest.raises(DataError, match=r"could not be downloaded \(InvalidProxyURL\)"):
        load_corpus("tinyshakespeare")


def test_auto_falls_back_in_one_line(capsys):
    assert load_corpus("auto").name == "python_docs"
    said = capsys.readouterr().out
    assert said.startswith("tinyshakespeare could not be had (no network): using python_docs") and said.count("\n") == 1


def test_auto_says_why_a_download_that_began_has_failed(play, monkeypatch, capsys):
    serve(monkeypatch, PLAY[:20])
    assert load_corpus("auto").name == "python_docs"
    said = capsys.readouterr().out
    assert "the download was cut short" in said and said.count("\n") == 1


def test_auto_downloads_where_there_is_a_network(play, monkeypatch, capsys):
    serve(monkeypatch, PLAY)
    assert load_corpus("auto").text == play and capsys.readouterr().out == ""


def test_a_missing_network_is_remembered_for_a_while(checkout, play, monkeypatch):
    load_corpus("auto")
    asked = serve(monkeypatch, PLAY)
    assert load_corpus("auto").name == "python_docs" and asked == []
    os.utime(checkout / "data/.no-network", (0, 0))
    assert load_corpus("auto").name == "tinyshakespeare"


def test_python_docs_and_code_come_with_python():
    assert "expression" in load_corpus("python_docs").text
    assert "def dataclass(" in load_corpus("python_code").text


def test_a_text_may_be_given_itself():
    assert load_corpus("text: to be ") == Corpus("text", " to be ", "the string given")


def test_a_file_is_read_whatever_its_line_ends_and_its_byte_order_mark(checkout):
    (checkout / "a.txt").write_bytes("\ufeffto be\r\nor ∞\n".encode())
    assert load_corpus("a.txt").text == load_corpus(str(checkout / "a.txt")).text == "to be\nor ∞\n"


def test_a_folder_gives_its_text_files_in_the_order_of_their_names(checkout):
    (checkout / "plays/old").mkdir(parents=True)
    (checkout / "plays/.ipynb_checkpoints").mkdir()
    for name in ("b.txt", "a.txt", "old/c.txt", "notes.md", ".ipynb_checkpoints/a-checkpoint.txt"):
        (checkout / "plays" / name).write_text(name, encoding="utf-8")
    assert load_corpus("plays") == Corpus("plays", "a.txt\n\nb.txt\n\nold/c.txt", "3 files of plays")
    os.chdir("plays")
    assert load_corpus(".").name == "plays"


def test_a_glob_gives_the_files_that_match(checkout):
    for name in ("a1.md", "a2.md", "b.md"):
        (checkout / name).write_text(name, encoding="utf-8")
    assert load_corpus("a*.md").text == "a1.md\n\na2.md"


def test_a_folder_named_like_a_glob_is_a_folder(checkout):
    (checkout / "p[1]").mkdir()
    (checkout / "p[1]/a.txt").write_text("to be", encoding="utf-8")
    assert load_corpus("p[1]").text == "to be"


def test_a_folder_without_text_is_refused(checkout):
    with pytest.raises(DataError, match="folder 'data' holds no .txt file"):
        load_corpus("data")


@pytest.mark.parametrize("content", [b"", b" \n\t\n", "\ufeff".encode()])
def test_an_empty_text_is_refused(checkout, content):
    (checkout / "empty.txt").write_bytes(content)
    with pytest.raises(DataError, match="corpus 'empty.txt' holds no text"):
        load_corpus("empty.txt")
    with pytest.raises(DataError, match="corpus 'text' holds no text"):
        load_corpus("text:")


@pytest.mark.parametrize("before", [b"", "\ufeff".encode(), b"\r\n"])
def test_a_file_that_is_not_utf8_names_the_byte_and_its_offset(checkout, before):
    (checkout / "latin.txt").write_bytes(before + "caf\N{LATIN SMALL LETTER E WITH ACUTE} noir".encode("latin-1"))
    with pytest.raises(DataError, match=rf"latin.txt is not utf-8 text: byte 0xe9 at offset {len(before) + 3}; save it as utf-8 first"):
        load_corpus("latin.txt")


def test_an_unknown_corpus_brings_the_nearest_name():
    with pytest.raises(DataError, match="unknown corpus 'tinyshakespear': did you mean 'tinyshakespeare'"):
        load_corpus("tinyshakespear")


@pytest.mark.parametrize("name", ["", "nowhere.txt", "~nobody-here/a.txt", "a\0b", "To be, or not to be: that is the question. " * 30])
def test_what_is_no_corpus_is_refused_in_one_line(name):
    with pytest.raises(DataError, match="^unknown corpus ") as refusal:
        load_corpus(name)
    assert "Or give the path of a text file" in str(refusal.value) and len(str(refusal.value)) < 350 and "\n" not in str(refusal.value)


def test_a_report_counts_characters_alphabet_and_repeated_lines():
    report = Corpus("poem", "ab\nab\n\nba\nab\n", "a book").report(parameters=10)
    assert report.splitlines() == ["poem: 13 characters from a book", "alphabet: 3 different characters",
                                   "duplicates: 50.0% of 4 non-empty lines repeat an earlier one"]


def test_a_report_warns_when_the_text_is_too_small_for_the_model():
    assert "too small for this model: 0.01 characters for each of 500 parameters" in Corpus("poem", "to be", "a book").report(500)


@given(st.integers(0, 300), st.floats(0, 1))
def test_a_split_loses_nothing_and_keeps_the_order(n, fraction):
    assert torch.equal(torch.cat(split(torch.arange(n), fraction)), torch.arange(n))


def test_validation_is_the_last_tenth():
    assert [len(part) for part in split(torch.arange(1_115_394))] == [1_003_854, 111_540]


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 5), st.integers(0, 2 ** 63 - 1), st.integers(0, 10 ** 9))
def test_targets_are_the_inputs_shifted_by_one(block_size, more, batch_size, seed, step):
    x, y = get_batch(torch.arange(block_size + more), block_size, batch_size, seed, step)
    assert x.shape == y.shape == (batch_size, block_size)
    assert torch.equal(y, x + 1) and torch.equal(x, x[:, :1] + torch.arange(block_size)) and 0 <= x.min() and y.max() < block_size + more


def test_a_batch_is_a_function_of_seed_and_step_alone():
    ids = torch.arange(1000)
    batch = lambda seed, step: get_batch(ids, 8, 4, seed, step)[0]
    first = batch(1, 2)
    torch.manual_seed(99)
    batch(5, 5)
    assert torch.equal(batch(1, 2), first)
    assert not torch.equal(batch(1, 3), first) and not torch.equal(batch(2, 2), first) and not torch.equal(batch(2, 1), first)


def test_batches_reach_the_first_token_and_the_last_and_all_between():
    starts = torch.cat([get_batch(torch.arange(12), 8, 32, 0, step)[0][:, 0] for step in range(10)])
    assert starts.unique().tolist() == [0, 1, 2, 3]
    assert starts.bincount().min() > 50           # 80 expected of each


def test_a_text_of_one_window_and_one_target_works():
    x, y = get_batch(torch.arange(9), 8, 2, 0, 0)
    assert x.tolist() == 2 * [list(range(8))] and y.tolist() == 2 * [list(range(1, 9))]
    assert [w.tolist() for pair in fixed_windows(torch.arange(9), 8, 2) for w in pair] == [[list(range(8))], [list(range(1, 9))]]


@pytest.mark.parametrize("n", [0, 1, 8])
def test_a_text_without_a_whole_window_and_its_target_is_refused(n):
    for cut in (lambda ids: get_batch(ids, 8, 1, 0, 0), lambda ids: list(fixed_windows(ids, 8, 1))):
        with pytest.raises(DataError, match=f"has {n} tokens, too few for windows of block_size=8 and one target more"):
            cut(torch.arange(n))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("n", [9, 10, 15, 16, 17, 18, 24, 25, 26, 33])
def test_fixed_windows_have_each_token_but_the_first_as_target_once(n, batch_size):
    windows = list(fixed_windows(torch.arange(n), 8, batch_size))
    assert torch.cat([y.flatten() for _, y in windows]).tolist() == list(range(1, n))
    assert all(torch.equal(y, x + 1) and x.shape[0] <= batch_size and x.shape[1] <= 8 for x, y in windows)


def test_only_the_last_fixed_window_is_short():
    assert [x.shape[1] for x, _ in fixed_windows(torch.arange(21), 8, 1)] == [8, 8, 4]
