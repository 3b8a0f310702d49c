"""Shards hold the tokens of all documents, whoever wrote them and however often it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gptlib import GPT, BPETokenizer, CharTokenizer, GPTConfig, TrainConfig, get_batch, train
from gptlib.config import ConfigError
from gptlib.corpora import shards, theatre
from gptlib.corpora.shards import (
    Shards,
    encode_document,
    is_validation,
    open_shards,
    text_hash,
    with_document_tokens,
    write_shards,
)
from gptlib.data import DataError, document_mask
from gptlib.tokenizer import TokenizerError


@dataclass
class Text:
    text: str


def make_documents(n=40, seed=1):
    plays = theatre.plays(level=1, seed=seed)
    return [Text(next(plays)) for _ in range(n)]


DOCUMENTS = make_documents()
TOKENIZER = CharTokenizer.from_text("".join(document.text for document in DOCUMENTS))


def prepare(folder, documents=DOCUMENTS, tokenizer=TOKENIZER, **how):
    how = {"val_fraction": 0.3, "shard_characters": 600, "workers": 1, "progress": False} | how
    return write_shards(documents, tokenizer, folder, **how)


def all_tokens(split):
    return torch.from_numpy(split[0:len(split)].astype(np.int64))


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())
            if path.name != ".lock"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    prepare(folder)
    return folder


# What is written ----------------------------------------------------------------------------------

def test_the_two_splits_hold_every_document_once_and_in_order(folder):
    tokenizer = with_document_tokens(TOKENIZER)
    for split, in_val in zip(open_shards(folder), (False, True), strict=True):
        texts = [d.text for d in DOCUMENTS if is_validation(d.text, 0.3) == in_val]
        expected = [i for text in texts for i in encode_document(text, tokenizer)]
        assert all_tokens(split).tolist() == expected
        assert split.n_documents == len(texts) > 3
        assert split.tokenizer.decode(split.document(2)) == f"<|begin|>{texts[2]}<|end|>"


def test_there_are_several_shards_and_the_index_counts_them(folder):
    index = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
    names = [shard["name"] for shard in index["shards"]]
    assert len(names) > 6
    assert {f"{name}.safetensors" for name in names} == {p.name for p in folder.glob("*.safeten*")}
    assert sum(s["documents"] for s in index["shards"]) == len(DOCUMENTS)
    assert sum(s["bytes"] for s in index["shards"]) == sum(len(d.text) for d in DOCUMENTS)


def test_small_vocabularies_need_two_bytes_for_a_token(folder):
    train_ids, _ = open_shards(folder)
    assert train_ids.parts[0]["tokens"].dtype == np.uint16
    assert isinstance(train_ids.parts[0]["tokens"], np.memmap)


def test_large_vocabularies_need_four_bytes_for_a_token(tmp_path):
    tokenizer = CharTokenizer(map(chr, range(32, 0xD000)))
    large = CharTokenizer([*tokenizer.alphabet, *map(chr, range(0x10000, 0x14000))])
    assert large.vocab_size > 2 ** 16
    prepare(tmp_path, [Text("\U00013fff!")], large, val_fraction=0.0)
    tokens = open_shards(tmp_path)[0][1:2]
    assert (tokens.dtype, tokens[0]) == (np.uint32, large.vocab_size - 1)


@pytest.mark.parametrize("text", ["Äpfel, Öl", "مرحبا بالعالم", "สวัสดีชาวโลก", "🙂👩‍🚀", "<|end|>"],
                         ids=["German", "Arabic", "Thai", "emoji", "a typed special token"])
def test_texts_of_any_script_come_back(tmp_path, text):
    prepare(tmp_path, [Text(text)], BPETokenizer.train("abc", 257), val_fraction=0.0)
    train_ids, val_ids = open_shards(tmp_path)
    tokens = train_ids.document(0).tolist()
    assert train_ids.tokenizer.decode(tokens[1:-1]) == text
    assert [train_ids.tokenizer.is_special(i) for i in tokens[:1] + tokens[-1:]] == [True, True]
    assert not any(map(train_ids.tokenizer.is_special, tokens[1:-1]))
    assert len(val_ids) == 0


# The split ----------------------------------------------------------------------------------------

def test_copies_of_a_document_are_in_the_same_split_in_any_order(tmp_path):
    copies = DOCUMENTS + DOCUMENTS[::-1]
    prepare(tmp_path, copies)
    train_ids, val_ids = open_shards(tmp_path)
    in_val = {val_ids.tokenizer.decode(val_ids.document(k)) for k in range(val_ids.n_documents)}
    in_train = {train_ids.tokenizer.decode(train_ids.document(k))
                for k in range(train_ids.n_documents)}
    assert in_val and in_train and not in_val & in_train
    assert val_ids.n_documents == 2 * len(in_val)


def test_the_share_of_the_validation_split_is_near_the_fraction():
    texts = [str(number) for number in range(10_000)]
    share = sum(is_validation(text, 0.1) for text in texts) / len(texts)
    assert abs(share - 0.1) < 0.01          # more than three standard deviations
    assert not any(is_validation(text, 0.0) for text in texts)
    assert all(is_validation(text, 1.0) for text in texts)


def test_a_sample_holds_whole_documents_with_the_smallest_hashes(folder):
    _, val_ids = open_shards(folder)
    tokenizer = val_ids.tokenizer
    sample = tokenizer.decode(val_ids.sample(max_tokens=700))
    texts = sorted((d.text for d in DOCUMENTS if is_validation(d.text, 0.3)), key=text_hash)
    expected = ""
    for text in texts:
        if len(expected) + len(text) > 500:
            break
        expected += f"<|begin|>{text}<|end|>"
    assert sample.startswith(expected) and sample.endswith("<|end|>")
    assert len(val_ids.sample(700)) <= 700 < len(val_ids)
    assert len(val_ids.sample()) == len(val_ids)


# Batches ------------------------------------------------------------------------------------------

@given(where=st.tuples(st.integers(0, 3000), st.integers(0, 3000)))
@settings(deadline=None)
def test_slices_across_shards_are_those_of_one_long_row(folder, where):
    train_ids, _ = open_shards(folder)
    row = train_ids[0:len(train_ids)]
    start, stop = where
    np.testing.assert_array_equal(train_ids[start:stop], row[start:stop])


def test_batches_are_those_of_get_batch(folder):
    train_ids, _ = open_shards(folder)
    row = all_tokens(train_ids)
    batches = train_ids.batches(block_size=50, batch_size=6, seed=3)
    for step in range(5):
        assert_close(batches(step), get_batch(row, 50, 6, seed=3, step=step))


def test_with_a_mask_a_token_looks_only_at_its_own_document(folder):
    train_ids, _ = open_shards(folder)
    x, _, mask = train_ids.batches(block_size=300, batch_size=4, seed=3, mask=True)(0)
    begins = x == train_ids.tokenizer.special("<|begin|>")
    assert begins[:, 1:].any()
    assert_close(mask, document_mask(begins.cumsum(1)))


def test_train_reads_shards_and_goes_on_with_the_same_ones_only(folder, tmp_path):
    train_ids, val_ids = open_shards(folder)
    config = TrainConfig(max_steps=4, batch_size=2, eval_interval=2, seed=5, device="cpu")

    def run(train_ids, out, **how):
        torch.manual_seed(1)
        model = GPT(GPTConfig(val_ids.tokenizer.vocab_size, 16, 1, 1, 8))
        return train(model, train_ids, val_ids.sample(), 16, config, out_dir=out, progress=False,
                     tokenizer=val_ids.tokenizer, **how).history

    batches = train_ids.batches(16, 2, seed=5)
    history = run(batches, tmp_path / "run")
    from_memory = run(MemoryBatches(all_tokens(train_ids)), tmp_path / "memory")
    losses = [row["val_loss"] for row in history]
    assert losses == [row["val_loss"] for row in from_memory]
    assert run(batches, tmp_path / "run", resume="auto") == history
    prepare(tmp_path / "other", make_documents(40, seed=2))
    other, _ = open_shards(tmp_path / "other")
    with pytest.raises(ConfigError, match="training split was"):
        run(other.batches(16, 2, seed=5), tmp_path / "run", resume="auto")


class MemoryBatches:
    def __init__(self, ids):
        self.ids = ids

    def __call__(self, step):
        return get_batch(self.ids, 16, 2, seed=5, step=step)


# Stopping, going on, and who does the work --------------------------------------------------------

@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(folder, tmp_path):
    prepare(tmp_path, workers=2)
    assert files_of(tmp_path) == files_of(folder)


@pytest.mark.slow
def test_two_workers_of_dask_write_the_same_bytes_as_one_process(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                                  processes=True) as cluster, distributed.Client(cluster) as client:
        prepare(tmp_path, executor=client.get_executor(pure=False))
    assert files_of(tmp_path) == files_of(folder)


def test_what_is_written_already_is_not_encoded_again(folder, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stops():
        yield from DOCUMENTS[:20]
        raise Stop

    with pytest.raises(Stop):
        prepare(tmp_path, stops())
    written = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.safetensors")}
    assert len(written) > 2
    with pytest.raises(DataError, match="no complete set of shards"):
        open_shards(tmp_path)
    prepare(tmp_path)
    assert {n: (tmp_path / n).stat().st_mtime_ns for n in written} == written
    assert files_of(tmp_path) == files_of(folder)


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_shards import DOCUMENTS, prepare
import time

def slowly():
    for document in DOCUMENTS:
        time.sleep(0.05)
        yield document

prepare(sys.argv[1], slowly(), workers=2)
"""


@pytest.mark.slow
def test_a_preparation_that_was_killed_goes_on_to_the_same_bytes(folder, tmp_path):
    here = os.path.dirname(__file__)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), here])
    while not list(tmp_path.glob("*.safetensors")):
        time.sleep(0.05)
        assert process.poll() is None
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    assert not (tmp_path / "shards.json").exists()
    prepare(tmp_path)
    assert files_of(tmp_path) == files_of(folder)


def test_a_shorter_heap_leaves_no_shards_of_the_longer_one(tmp_path):
    prepare(tmp_path)
    prepare(tmp_path, DOCUMENTS[:10])
    train_ids, val_ids = open_shards(tmp_path)
    assert train_ids.n_documents + val_ids.n_documents == 10
    n_files = len(list(tmp_path.glob("*.safetensors")))
    assert n_files == len(train_ids.headers) + len(val_ids.headers)


def test_a_damaged_shard_is_named_and_written_again(folder, tmp_path):
    prepare(tmp_path)
    path = tmp_path / "train-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="train-00001.safetensors is missing, damaged"):
        open_shards(tmp_path)
    prepare(tmp_path)
    assert files_of(tmp_path) == files_of(folder)


# Mistakes -----------------------------------------------------------------------------------------

def test_other_settings_need_another_folder(folder):
    before = files_of(folder)
    with pytest.raises(DataError, match="made with another tokenizer: name another folder"):
        prepare(folder, tokenizer=BPETokenizer.train("abc", 257))
    with pytest.raises(DataError, match="made with another val_fraction"):
        prepare(folder, val_fraction=0.2)
    assert files_of(folder) == before


def test_files_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    with pytest.raises(DataError, match="holds other .safetensors files: name an empty folder"):
        prepare(tmp_path)
    assert files_of(tmp_path) == {"best.safetensors": b"weights"}


def test_two_preparations_of_one_folder_exclude_each_other(tmp_path):
    def starts_another():
        yield DOCUMENTS[0]
        with pytest.raises(DataError, match="in use by another preparation"):
            prepare(tmp_path)
        yield DOCUMENTS[1]

    prepare(tmp_path, starts_another())
    assert sum(split.n_documents for split in open_shards(tmp_path)) == 2


def test_an_unknown_character_is_named_and_earlier_shards_stay(tmp_path):
    documents = [*DOCUMENTS[:20], Text("§")]
    with pytest.raises(TokenizerError, match="'§'.* is not among"):
        prepare(tmp_path, documents, val_fraction=0.0)
    assert len(list(tmp_path.glob("train-*.safetensors"))) > 2


def test_half_a_surrogate_pair_is_named(tmp_path):
    with pytest.raises(TokenizerError, match="half a surrogate pair"):
        prepare(tmp_path, [Text("\ud83d")])


def test_no_documents_no_shards(tmp_path):
    with pytest.raises(DataError, match="there are no documents to write"):
        prepare(tmp_path, [])
    with pytest.raises(DataError, match="no complete set of shards"):
        open_shards(tmp_path)


def test_windows_longer_than_the_split_are_refused(folder):
    train_ids, val_ids = open_shards(folder)
    with pytest.raises(DataError, match="windows of block_size=100000 need at least 100,001"):
        train_ids.batches(100_000, 2, seed=1)
    with pytest.raises(DataError, match="no document fits into max_tokens=3"):
        val_ids.sample(3)


def test_an_empty_split_has_no_tokens(tmp_path):
    prepare(tmp_path, val_fraction=0.0)
    _, val_ids = open_shards(tmp_path)
    assert (len(val_ids), val_ids.n_documents, len(val_ids[0:5])) == (0, 0, 0)
    assert isinstance(val_ids, Shards)
    with pytest.raises(DataError, match="no document fits"):
        val_ids.sample()


def test_the_tokenizer_is_made_once_in_a_process(tmp_path, monkeypatch):
    calls = []
    original = shards.load_tokenizer
    monkeypatch.setattr(shards, "load_tokenizer", lambda saved: calls.append(1) or original(saved))
    shards.cached_tokenizer.cache_clear()
    prepare(tmp_path)
    assert calls == [1]
