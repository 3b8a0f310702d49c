"""`python -m gptlib prepare` turns files into tokens, and `train --shards` learns from them."""

import json

import pytest
import torch

from gptlib import load_model
from gptlib.__main__ import main
from gptlib.corpora import theatre
from gptlib.corpora.shards import open_shards

MODEL = ["--block-size", "16", "--n-layer", "1", "--n-head", "1", "--n-embd", "8",
         "--max-steps", "6", "--eval-interval", "3", "--batch-size", "4", "--warmup", "2",
         "--device", "cpu"]


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heap")
    plays = theatre.plays(level=3, seed=1)
    for i in range(30):
        (folder / f"{i}.txt").write_text(next(plays), encoding="utf-8")
    (folder / "copy.txt").write_text((folder / "3.txt").read_text(), encoding="utf-8")
    (folder / "stub.txt").write_text("5.", encoding="utf-8")
    return folder


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def prepared(heap, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "shards"
    assert run("prepare", heap, "--out", out, "--vocab-size", 300, "--val-fraction", 0.2,
               "--workers", 1) == 0
    return out


def test_all_documents_are_prepared(prepared):
    splits = open_shards(prepared)
    assert sum(split.n_documents for split in splits) == 32
    assert splits[0].tokenizer.vocab_size == 302


def test_train_learns_from_shards_and_saves_their_tokenizer(prepared, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "--shards", prepared, "--out", out, *MODEL) == 0
    printed = capsys.readouterr().out
    assert "bits per byte" in printed and "documents" in printed
    model, tokenizer = load_model(out)
    assert tokenizer.encode("<|end|>") == tokenizer.tokenizer.encode("<|end|>")
    assert model.config.vocab_size == tokenizer.vocab_size == 302
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert run("generate", "--checkpoint", out, "--max-new-tokens", 5, "--seed", 1) == 0


def test_a_run_on_shards_goes_on_only_with_the_same_shards(heap, prepared, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "--shards", prepared, "--out", out, *MODEL) == 0
    assert run("train", "--shards", prepared, "--out", out, "--resume", "auto", *MODEL) == 0
    other = tmp_path / "other"
    assert run("prepare", str(heap) + "/1*.txt", "--out", other, "--vocab-size", 300,
               "--val-fraction", 0.3, "--workers", 1) == 0
    capsys.readouterr()
    assert run("train", "--shards", other, "--out", out, "--resume", "auto", *MODEL) == 1
    assert "cannot be resumed" in capsys.readouterr().err


def test_cleaning_is_an_option(heap, tmp_path, capsys):
    assert run("prepare", heap, "--out", tmp_path / "a", "--clean", "--tokenizer", "char",
               "--workers", 1) == 0
    splits = open_shards(tmp_path / "a")
    rejects = (tmp_path / "a/rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["source"] for line in rejects} >= {"stub.txt", "copy.txt"}
    assert sum(split.n_documents for split in splits) + len(rejects) == 32
    assert "ExactDuplicates" in capsys.readouterr().out
    assert torch.from_numpy(splits[0][0:100].astype("int64")).max() < splits[0].tokenizer.vocab_size


@pytest.mark.parametrize(("arguments", "fragment"), [
    (["prepare"], "source, --out is missing"),
    (["prepare", "nowhere", "--out", "a"], "there is no file, folder or glob 'nowhere'"),
    (["prepare", ".", "--out", "a", "--val-fraction", "2"], "--val-fraction 2.0 should be between"),
    (["prepare", ".", "--out", "a", "--workers", "0"], "--workers 0 should be at least 1"),
    (["prepare", ".", "--out", "a", "--vocab-size", "5"], "--vocab-size 5 should be at least 256"),
    (["prepare", ".", "--out", "a", "--tokenizer", "words"], "'words' is unknown"),
    (["train", "--shards", "nowhere"], "nowhere holds no complete set of shards"),
], ids=["nothing", "missing source", "fraction", "workers", "vocab size", "tokenizer", "no shards"])
def test_bad_options_are_named_in_one_sentence(arguments, fragment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert fragment in error and error.count("\n") == 1
