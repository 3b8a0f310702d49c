import json
import math

import pytest

from gptlib.data import Corpus
from gptlib.leaderboard import leaderboard, read_results, save_result

CORPUS = Corpus("play", "to be or not to be", "a book")


def save(runs, chapter="01_bigram", model="bigram", val_loss=1.0, val_text="to be ∞ é", corpus=CORPUS, **more):
    return save_result(runs / chapter, chapter=chapter, model=model, parameters=64, seconds=1.5, val_loss=val_loss, vocab_size=8,
                       corpus=corpus, val_text=val_text, **more)


def test_a_nat_is_as_many_bits_as_it_should_be(tmp_path):
    row = save(tmp_path, val_loss=math.log(2))
    assert row["bits_per_character"] == pytest.approx(1, rel=1e-12)
    assert row["bits_per_byte"] == pytest.approx(9 / 12, rel=1e-12)             # 9 characters in 12 bytes


def test_losses_of_longer_tokens_are_comparable_by_character(tmp_path):
    assert save(tmp_path, val_loss=math.log(8), val_tokens=3)["bits_per_character"] == pytest.approx(1, rel=1e-12)


def test_a_row_comes_back_as_it_was_saved(tmp_path):
    row = save(tmp_path, seed=3)
    assert read_results(tmp_path) == [row] and row["seed"] == 3 and row["corpus_sha256"] == CORPUS.sha256


def test_a_model_trained_again_replaces_its_row(tmp_path):
    save(tmp_path, val_loss=2.0)
    row = save(tmp_path, val_loss=1.0)
    assert read_results(tmp_path) == [row]


def test_rows_stand_by_chapter_and_then_from_worse_to_better(tmp_path):
    save(tmp_path, "04_full_gpt", "GPT", 1.5)
    save(tmp_path, "01_bigram", "bigram learned", 2.4)
    save(tmp_path, "01_bigram", "bigram counted", 2.5)
    assert [row["model"] for row in read_results(tmp_path)] == ["bigram counted", "bigram learned", "GPT"]


def test_results_on_another_text_are_left_out(tmp_path):
    save(tmp_path)
    save(tmp_path, "02", "other", corpus=Corpus("play", "another text of that name", "a book"))
    assert [row["model"] for row in read_results(tmp_path, CORPUS)] == ["bigram"]


def test_the_table_starts_with_guessing_and_tells_each_share_of_it(tmp_path):
    save(tmp_path, val_loss=math.log(2))
    title, guessing, row, last = leaderboard(read_results(tmp_path)).splitlines()
    assert title.split()[:3] == ["chapter", "model", "parameters"]
    assert guessing.split() == ["guessing", "(ln", "V)", "0", "0", "2.0794", "3.0000", "100.0%"]
    assert row.split() == ["01_bigram", "bigram", "64", "1.5", "0.6931", "1.0000", "33.3%"]
    assert last == "validation split of play; loss in nats per character"


def test_without_results_the_table_says_what_to_do(tmp_path):
    assert leaderboard(read_results(tmp_path)) == "no results yet: run the chapters, or `make course`"


def test_a_result_is_readable_json(tmp_path):
    save(tmp_path, model="bigram counted")
    assert json.loads((tmp_path / "01_bigram/result-bigram-counted.json").read_text(encoding="utf-8"))["model"] == "bigram counted"
