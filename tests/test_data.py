import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import get_batch, split
from gptlib.data import DataError, fixed_windows

# split


@given(st.integers(0, 300), st.floats(0, 1))
def test_a_split_keeps_every_token_in_order(n, fraction):
    assert torch.equal(torch.cat(split(torch.arange(n), fraction)), torch.arange(n))


def test_the_validation_split_is_the_last_tenth():
    train_ids, val_ids = split(torch.arange(1_115_394))
    assert (len(train_ids), len(val_ids)) == (1_003_854, 111_540)


# get_batch


@given(
    block_size=st.integers(1, 9),
    n_more=st.integers(1, 20),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**9),
)
def test_targets_are_the_inputs_shifted_by_one(block_size, n_more, batch_size, seed, step):
    n = block_size + n_more
    x, y = get_batch(torch.arange(n), block_size, batch_size, seed, step)
    assert x.shape == y.shape == (batch_size, block_size)
    assert torch.equal(x, x[:, :1] + torch.arange(block_size))
    assert torch.equal(y, x + 1)
    assert 0 <= x.min() and y.max() < n


def test_a_batch_depends_on_seed_and_step_only():
    batch = lambda seed, step: get_batch(torch.arange(1000), 8, 4, seed, step)[0]
    first = batch(1, 2)
    torch.manual_seed(99)
    batch(5, 5)
    assert torch.equal(batch(1, 2), first)
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(batch(seed, step), first)


def test_windows_start_at_every_possible_token_equally_often():
    batches = [get_batch(torch.arange(12), 8, 32, seed=0, step=step)[0] for step in range(10)]
    starts = torch.cat([x[:, 0] for x in batches])
    assert starts.unique().tolist() == [0, 1, 2, 3]
    # 320 windows, so 80 are expected for each of the four starts.
    assert starts.bincount().min() > 50


# fixed_windows


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("n", [9, 10, 15, 16, 17, 18, 24, 25, 26, 33])
def test_every_token_but_the_first_is_a_target_of_fixed_windows_once(n, batch_size):
    windows = list(fixed_windows(torch.arange(n), 8, batch_size))
    assert torch.cat([y.flatten() for _, y in windows]).tolist() == list(range(1, n))
    for x, y in windows:
        assert torch.equal(y, x + 1)
        assert x.shape[0] <= batch_size and x.shape[1] <= 8


def test_only_the_last_fixed_window_is_shorter():
    assert [x.shape[1] for x, _ in fixed_windows(torch.arange(21), 8, 1)] == [8, 8, 4]


# The shortest text that can be cut


def test_block_size_plus_one_tokens_give_one_window():
    inputs, targets = [[0, 1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, 6, 7, 8]]
    x, y = get_batch(torch.arange(9), 8, 2, 0, 0)
    assert x.tolist() == 2 * inputs and y.tolist() == 2 * targets
    ((x, y),) = fixed_windows(torch.arange(9), 8, 2)
    assert x.tolist() == inputs and y.tolist() == targets


@pytest.mark.parametrize("n", [0, 1, 8])
def test_a_text_of_at_most_block_size_tokens_is_an_error(n):
    ids = torch.arange(n)
    message = f"has {n} tokens, but windows of block_size=8 need at least 9: take a longer text"
    with pytest.raises(DataError, match=message):
        get_batch(ids, 8, 1, 0, 0)
    with pytest.raises(DataError, match=message):
        list(fixed_windows(ids, 8, 1))
