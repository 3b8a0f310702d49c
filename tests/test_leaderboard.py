import json
import math

import pytest

from gptlib.classroom.leaderboard import leaderboard, read_results, save_result
from gptlib.corpora import Corpus

CORPUS = Corpus("play", "to be or not to be", "a book")


def save(runs, chapter="01_bigram", model="bigram", val_loss=1.0, val_text="to be ∞ é",
         corpus=CORPUS, **more):
    return save_result(runs / chapter, chapter=chapter, model=model, parameters=64, seconds=1.5,
                       val_loss=val_loss, vocab_size=8, corpus=corpus, val_text=val_text, **more)


def test_nats_are_converted_to_bits_per_character_and_per_byte(tmp_path):
    row = save(tmp_path, val_loss=math.log(2))
    assert row["bits_per_character"] == pytest.approx(1, rel=1e-12)
    # The text has 9 characters in 12 bytes.
    assert row["bits_per_byte"] == pytest.approx(9 / 12, rel=1e-12)


def test_loss_of_longer_tokens_is_converted_to_bits_per_character(tmp_path):
    row = save(tmp_path, val_loss=math.log(8), val_tokens=3)
    assert row["bits_per_character"] == pytest.approx(1, rel=1e-12)


def test_a_text_with_lost_characters_has_no_bits_per_character_and_per_byte(tmp_path):
    lost = save(tmp_path, model="lowercase", val_text="to be <?><?>")
    assert lost["bits_per_character"] is None and lost["bits_per_byte"] is None
    assert lost["val_loss"] == 1.0
    table = leaderboard(read_results(tmp_path))
    assert "01_bigram           lowercase       its tokenizer has lost characters" in table
    # Here the text itself contains these three characters.
    same = save(tmp_path, val_text="<?>", corpus=Corpus("play", "to <?>", "a book"))
    assert same["bits_per_character"] == pytest.approx(1 / math.log(2))


def test_saved_row_is_read_unchanged(tmp_path):
    row = save(tmp_path, seed=3)
    assert read_results(tmp_path) == [row]
    assert row["seed"] == 3
    assert row["corpus_sha256"] == CORPUS.sha256


def test_new_result_of_a_model_replaces_the_old_one(tmp_path):
    save(tmp_path, val_loss=2.0)
    row = save(tmp_path, val_loss=1.0)
    assert read_results(tmp_path) == [row]


def test_rows_are_sorted_by_chapter_and_then_by_falling_loss(tmp_path):
    save(tmp_path, "04_full_gpt", "GPT", 1.5)
    save(tmp_path, "01_bigram", "bigram learned", 2.4)
    save(tmp_path, "01_bigram", "bigram counted", 2.5)
    models = [row["model"] for row in read_results(tmp_path)]
    assert models == ["bigram counted", "bigram learned", "GPT"]


def test_results_on_another_corpus_are_left_out(tmp_path):
    save(tmp_path)
    other = Corpus("play", "another text with the same name", "a book")
    save(tmp_path, "02", "other", corpus=other)
    assert [row["model"] for row in read_results(tmp_path, CORPUS)] == ["bigram"]


def test_table_begins_with_the_loss_of_guessing(tmp_path):
    save(tmp_path, val_loss=math.log(2))
    title, guessing, row, last = leaderboard(read_results(tmp_path)).splitlines()
    assert title.split()[:3] == ["chapter", "model", "parameters"]
    assert guessing.split() == ["guessing", "(ln", "V)", "0", "0", "2.0794", "3.0000", "100.0%"]
    assert row.split() == ["01_bigram", "bigram", "64", "1.5", "0.6931", "1.0000", "33.3%"]
    assert last == "validation split of play; loss in nats per character"


def test_table_without_results_says_what_to_do(tmp_path):
    message = "no results yet: run the chapters, or `make course`"
    assert leaderboard(read_results(tmp_path)) == message


def test_result_is_saved_as_json(tmp_path):
    save(tmp_path, model="bigram counted")
    path = tmp_path / "01_bigram/result-bigram-counted.json"
    assert json.loads(path.read_text(encoding="utf-8"))["model"] == "bigram counted"
