import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from gptlib import Bigram, count_bigrams, evaluate


@given(st.lists(st.integers(0, 4), max_size=40))
def test_counts_equal_a_slow_count(ids):
    slow = torch.zeros(5, 5)
    for a, b in zip(ids, ids[1:], strict=False):
        slow[a, b] += 1
    assert torch.equal(count_bigrams(torch.tensor(ids, dtype=torch.long), 5), slow)


def test_an_id_beyond_the_vocabulary_is_not_counted_as_another_pair():
    with pytest.raises(ValueError, match="ids run to 5, but vocab_size=3"):
        count_bigrams(torch.tensor([0, 5]), 3)


def test_an_untrained_bigram_guesses():
    assert evaluate(Bigram(7), torch.arange(50) % 7, 8)[0] == pytest.approx(math.log(7), rel=1e-6)


@pytest.mark.parametrize("smoothing", [1.0, 0.1])
def test_counts_become_smoothed_probabilities(smoothing):
    counts = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 5.0, 5.0]])
    predicted = Bigram.from_counts(counts, smoothing)(torch.arange(3)[None])[0].softmax(-1)
    assert_close(predicted, (counts + smoothing) / (counts.sum(1, keepdim=True) + 3 * smoothing))


def test_logits_have_a_column_for_each_token():
    assert Bigram(7)(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 7)


def test_only_the_present_token_counts():
    model = Bigram.from_counts(torch.rand(5, 5))
    assert_close(model(torch.tensor([[0, 1, 2], [4, 3, 2]]))[:, -1].diff(dim=0), torch.zeros(1, 5))


def test_no_table_fits_its_own_text_better_than_the_counted_one():
    ids = torch.randint(4, (500,), generator=torch.Generator().manual_seed(0))
    counted = Bigram.from_counts(count_bigrams(ids, 4), smoothing=1e-6)
    best = evaluate(counted, ids, 10)[0]
    for seed in range(3):
        moved = Bigram(4)
        noise = 0.05 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        moved.table.weight.data = counted.table.weight + noise
        assert evaluate(moved, ids, 10)[0] > best
