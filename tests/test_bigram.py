"""The bigram model: counts against a slow count, and its probabilities against the formula."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import gptlib.bigram
from gptlib import Bigram, count_bigrams, evaluate, evaluate_bigram
from gptlib.data import DataError


@given(st.lists(st.integers(0, 4), max_size=40))
def test_counts_equal_a_slow_count(ids):
    slow_counts = torch.zeros(5, 5)
    for a, b in zip(ids, ids[1:], strict=False):
        slow_counts[a, b] += 1
    assert torch.equal(count_bigrams(torch.tensor(ids, dtype=torch.long), 5), slow_counts)


def test_int32_ids_are_counted_like_int64_ids():
    ids = torch.tensor([0, 2, 2, 1])
    assert torch.equal(count_bigrams(ids.int(), 3), count_bigrams(ids, 3))


@pytest.mark.parametrize("ids, message", [
    (torch.tensor([0, 5]), "token ids run from 0 to 5, but the model knows 0 … 2: "
                           "was the text encoded by another tokenizer?"),
    (torch.tensor([1, -1]), "token ids run from -1 to 1, but the model knows 0 … 2: "
                            "was the text encoded by another tokenizer?"),
    (torch.tensor([0, 1], dtype=torch.uint8),
     "count_bigrams: ids should be torch.int64, not torch.uint8: use ids.long()"),
    (torch.tensor([0.0, 1.0]),
     "count_bigrams: ids should be torch.int64, not torch.float32: use ids.long()"),
], ids=["too large", "negative", "uint8", "float"])
def test_wrong_ids_are_not_counted(ids, message):
    with pytest.raises(ValueError) as error:
        count_bigrams(ids, 3)
    assert str(error.value) == message


def test_loss_of_an_untrained_bigram_is_ln_vocab_size():
    loss, _ = evaluate(Bigram(7), torch.arange(50) % 7, 8)
    assert loss == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("smoothing", [1.0, 0.1])
def test_probabilities_are_smoothed_counts(smoothing):
    counts = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 5.0, 5.0]])
    probabilities = Bigram.from_counts(counts, smoothing)(torch.arange(3)).softmax(-1)
    V = 3
    expected = (counts + smoothing) / (counts.sum(1, keepdim=True) + smoothing * V)
    assert_close(probabilities, expected)


def test_without_smoothing_a_token_without_counts_has_a_uniform_next_token():
    counts = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    probabilities = Bigram.from_counts(counts, smoothing=0)(torch.arange(2)).softmax(-1)
    assert_close(probabilities, torch.tensor([[0.75, 0.25], [0.5, 0.5]]))


def test_logits_have_a_column_for_each_token():
    assert Bigram(7)(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 7)


def test_logits_depend_on_the_present_token_only():
    model = Bigram.from_counts(torch.rand(5, 5))
    logits = model(torch.tensor([[0, 1, 2], [4, 3, 2]]))[:, -1]
    assert torch.equal(logits[0], logits[1])


def test_counted_table_has_the_lowest_loss_on_its_own_text():
    ids = torch.randint(4, (500,), generator=torch.Generator().manual_seed(0))
    counted = Bigram.from_counts(count_bigrams(ids, 4), smoothing=1e-6)
    lowest_loss, _ = evaluate(counted, ids, 10)
    for seed in range(3):
        changed = Bigram(4)
        noise = 0.05 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        changed.table.weight.data = counted.table.weight + noise
        loss, _ = evaluate(changed, ids, 10)
        assert loss > lowest_loss


def test_config_dict_builds_the_model_again():
    model = Bigram(7)
    assert Bigram(**model.config_dict()).table.weight.shape == model.table.weight.shape


# evaluate_bigram


def table_loss(train_ids, val_ids, vocab_size):
    loss, _ = evaluate(Bigram.from_counts(count_bigrams(train_ids, vocab_size)), val_ids, 8)
    return loss


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40),
       st.lists(st.integers(0, 4), min_size=9, max_size=40))
def test_the_loss_without_a_table_equals_that_of_the_table(piece, train_ids, val_ids):
    train_ids, val_ids = torch.tensor(train_ids), torch.tensor(val_ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gptlib.bigram, "PIECE", piece)
        loss = evaluate_bigram(train_ids, val_ids, 5)
    assert loss == pytest.approx(table_loss(train_ids, val_ids, 5), rel=1e-6)


def test_the_loss_without_a_table_takes_int32_ids():
    ids = torch.randint(60_000, (500,), generator=torch.Generator().manual_seed(0))
    assert evaluate_bigram(ids.int(), ids.int(), 60_000) == evaluate_bigram(ids, ids, 60_000)


def test_a_vocabulary_of_a_million_tokens_can_be_evaluated():
    """A table would have 10¹² numbers."""
    ids = torch.arange(2000) * 500
    loss = evaluate_bigram(ids, ids, 10 ** 6)
    # Each token of the text is followed by one token, once.
    assert loss == pytest.approx(-math.log(2 / (1 + 10 ** 6)), rel=1e-12)


def test_the_loss_of_one_token_is_an_error():
    with pytest.raises(DataError, match="a pair needs two tokens, but val_ids has 1"):
        evaluate_bigram(torch.arange(5), torch.tensor([1]), 5)
    with pytest.raises(ValueError, match="token ids run from 0 to 4, but the model knows 0 … 3"):
        evaluate_bigram(torch.arange(5), torch.tensor([1, 2]), 4)
