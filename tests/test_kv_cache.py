"""The key-value cache: logits with a cache equal those without, for every attention."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from gptlib.kv_cache import KVCache
from gptlib.variants.build import ATTENTIONS

EXACT = {"rtol": 1e-10, "atol": 1e-10}
IDX = torch.randint(11, (3, 12), generator=torch.Generator().manual_seed(1))        # 3 texts
OTHER = (IDX + 1) % 11                          # texts that differ from IDX at every position
POSITIONS = ("learned", "sinusoidal", "none")
each_variant = pytest.mark.parametrize("options", [
    {"attention": attention, "token_shift": shift, "position": position}
    for attention, shift, position in product(ATTENTIONS, (False, True), POSITIONS)
], ids=lambda options: "-".join(map(str, options.values())))
each_weights = pytest.mark.parametrize("weights", [
    {"tie_weights": tie, "bias": bias} for tie, bias in product((False, True), repeat=2)
], ids=lambda weights: "-".join(map(str, weights.values())))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def run_with_cache(model, idx, chunk):
    """Pass `idx`, (B, T), to the model in chunks of a size (or of several sizes)."""
    cache = model.new_cache(len(idx))
    logits = [model(part, cache) for part in idx.split(chunk, dim=1)]
    assert cache.lengths.tolist() == [idx.shape[1]] * len(idx)
    return torch.cat(logits, dim=1)


def next_tokens(idx, lengths, T):
    """Return the T tokens of each row of `idx` that follow its first `lengths` tokens, (B, T)."""
    return idx.gather(1, lengths[:, None] + torch.arange(T))


# Logits with a cache ------------------------------------------------------------------------------

@each_variant
@each_weights
def test_logits_with_a_cache_equal_those_without(tiny, options, weights):
    model = tiny(block_size=12, **options, **weights).double()
    expected = model(IDX)
    for chunk in (1, 2, 3, [4, 1, 7]):
        assert_close(run_with_cache(model, IDX, chunk), expected, **EXACT)


@each_variant
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_rows_of_different_lengths_share_a_cache(tiny, options, chunk):
    model = tiny(block_size=12, **options).double()
    expected = model(IDX)
    cache, lengths = model.new_cache(3), torch.tensor([1, 5, 3])
    padding = torch.arange(5) >= lengths[:, None]                                   # (B, T)
    model(torch.where(padding, OTHER[:, :5], IDX[:, :5]), cache)
    cache.truncate(lengths)
    for _ in range(2):
        logits = model(next_tokens(IDX, lengths, chunk), cache)
        for row, length in enumerate(lengths):
            assert_close(logits[row], expected[row, length:length + chunk], **EXACT)
        lengths = lengths + chunk
        assert cache.lengths.equal(lengths)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_row_sees_nothing_to_the_right_of_its_own_tokens(tiny, attention):
    attention = tiny(attention=attention).double().blocks[0].attention
    x, lengths = torch.randn(3, 8, 12, dtype=torch.float64), torch.tensor([1, 5, 3])
    expected = attention(x)
    padding = torch.arange(5) >= lengths[:, None]                                   # (B, T)
    cache = KVCache(n_layer=1, batch_size=3, block_size=8)
    cache.reserve(5)
    attention(x[:, :5].masked_fill(padding[..., None], 1e3), cache.layers[0], cache.mask)
    cache.advance()
    cache.truncate(lengths)
    for _ in range(3):
        cache.reserve(1)
        rows, t = torch.arange(3), cache.lengths
        y = attention(x[rows, t][:, None], cache.layers[0], cache.mask)
        assert_close(y[:, 0], expected[rows, t], **EXACT)
        cache.advance()


# Truncation ---------------------------------------------------------------------------------------

@each_variant
@pytest.mark.parametrize("length", [0, 1, 4, 7])
def test_truncated_cache_continues_like_a_fresh_one(tiny, options, length):
    model = tiny(block_size=12, **options).double()
    cache, fresh = model.new_cache(3), model.new_cache(3)
    model(IDX[:, :7], cache)
    cache.truncate(length)
    assert cache.lengths.tolist() == [length] * 3
    if length > 0:
        model(IDX[:, :length], fresh)
    for start, end in [(length, length + 3), (length + 3, length + 4)]:
        tokens = OTHER[:, start:end]
        assert_close(model(tokens, cache), model(tokens, fresh), **EXACT)


@each_variant
@pytest.mark.parametrize("as_type", [list, tuple, torch.tensor], ids=["list", "tuple", "tensor"])
def test_each_truncated_row_continues_like_a_fresh_cache_of_its_own(tiny, options, as_type):
    model = tiny(block_size=12, **options).double()
    cache, lengths = model.new_cache(3), [6, 0, 3]
    model(IDX[:, :7], cache)
    cache.truncate(as_type(lengths))
    assert cache.lengths.tolist() == lengths
    tokens = next_tokens(OTHER, torch.tensor(lengths), 3)
    logits = model(tokens, cache)
    for row, length in enumerate(lengths):
        fresh = model.new_cache(1)
        if length > 0:
            model(IDX[row:row + 1, :length], fresh)
        assert_close(logits[row], model(tokens[row:row + 1], fresh)[0], **EXACT)


def test_truncate_does_not_share_memory_with_its_argument(tiny):
    model, lengths = tiny(), torch.tensor([2, 1, 3])
    cache = model.new_cache(3)
    model(IDX[:, :5], cache)
    cache.truncate(lengths)
    lengths[:] = 0
    model(IDX[:, :1], cache)
    assert cache.lengths.tolist() == [3, 2, 4]
    assert lengths.tolist() == [0, 0, 0]


@pytest.mark.parametrize("lengths", [-1, 6, [5, 6, 5], [-1, 5, 5]])
def test_cache_cannot_keep_more_tokens_than_it_holds(tiny, lengths):
    model = tiny()
    cache = model.new_cache(3)
    model(IDX[:, :5], cache)
    with pytest.raises(ValueError) as error:
        cache.truncate(lengths)
    assert str(error.value) == f"cannot keep {lengths} tokens: the rows hold [5, 5, 5]"
    assert cache.lengths.tolist() == [5, 5, 5]


# Room ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lengths, T", [([5, 5, 5], 4), ([3, 8, 5], 1), ([8, 8, 8], 1)])
def test_row_without_room_for_the_new_tokens_is_an_error(tiny, lengths, T):
    model = tiny(block_size=8)
    cache = model.new_cache(3)
    model(IDX[:, :8], cache)
    cache.truncate(lengths)
    with pytest.raises(ValueError) as error:
        model(IDX[:, :T], cache)
    assert str(error.value) == (
        f"the cache has room for 8 tokens and holds {max(lengths)} already: {T} more are too many; "
        "begin a new cache with the last tokens of the text"
    )
    assert cache.lengths.tolist() == lengths


def test_cache_can_be_filled_to_its_last_token(tiny):
    model = tiny(block_size=8)
    cache = model.new_cache(3)
    model(IDX[:, :5], cache)
    model(IDX[:, 5:8], cache)
    assert cache.lengths.tolist() == [8, 8, 8]


def test_prompt_longer_than_the_block_is_refused_with_a_cache_too(tiny):
    model = tiny(block_size=8)
    with pytest.raises(ValueError, match="a window of 9 tokens is longer than block_size=8"):
        model(IDX[:, :9], model.new_cache(3))


# Positions and masks ------------------------------------------------------------------------------

def make_cache(lengths, block_size=8):
    """Return a cache whose rows hold so many tokens."""
    cache = KVCache(n_layer=1, batch_size=len(lengths), block_size=block_size)
    cache.lengths = torch.tensor(lengths)
    return cache


def test_lengths_have_one_number_for_each_row():
    cache = KVCache(n_layer=2, batch_size=3, block_size=8)
    assert cache.lengths.tolist() == [0, 0, 0]
    cache.reserve(4)
    cache.advance()
    assert cache.lengths.tolist() == [4, 4, 4]


@pytest.mark.parametrize("lengths", [[0, 0], [3, 3], [1, 4]])
@pytest.mark.parametrize("T", [1, 2, 4])
def test_new_tokens_stand_after_the_stored_ones(lengths, T):
    cache = make_cache(lengths)
    cache.reserve(T)
    assert cache.positions.tolist() == [[length + t for t in range(T)] for length in lengths]


@pytest.mark.parametrize("lengths, T", [([3, 3], 2), ([1, 4], 1), ([1, 4], 3), ([0, 2], 2)])
def test_mask_shows_the_earlier_tokens_of_the_same_row(lengths, T):
    cache = make_cache(lengths)
    cache.reserve(T)
    S = max(lengths) + T
    assert cache.mask.shape == (2, 1, T, S)
    for row, length in enumerate(lengths):
        for t in range(T):
            assert cache.mask[row, 0, t].tolist() == [s <= length + t for s in range(S)]


@pytest.mark.parametrize("length", [0, 3])
def test_a_single_token_that_may_attend_to_everything_needs_no_mask(length):
    cache = make_cache([length, length])
    cache.reserve(1)
    assert cache.mask is None


# Storage ------------------------------------------------------------------------------------------

def append(cache, new):
    """Append `new`, (B, …, T, D), to the only layer of a cache. Return all that is stored."""
    cache.reserve(new.shape[-2])
    stored = cache.layers[0].append("k", new)
    cache.advance()
    return stored


def test_storage_is_allocated_once_and_filled_with_zeros():
    # With this setting, memory that nobody has filled contains nan.
    torch.use_deterministic_algorithms(True)
    try:
        cache, new = KVCache(n_layer=1, batch_size=2, block_size=16), torch.randn(2, 3, 4, 5)
        assert torch.equal(append(cache, new), new)
        storage = cache.layers[0].tensors["k"]
        assert storage.shape == (2, 3, 16, 5)
        assert not storage[:, :, 4:].any()
        assert torch.equal(append(cache, new[:, :, :1]), torch.cat([new, new[:, :, :1]], dim=2))
        assert cache.layers[0].tensors["k"] is storage
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("middle", [(), (3,), (3, 2)])
def test_stored_tensors_may_have_any_dimensions_between_batch_and_time(middle):
    cache, new = KVCache(n_layer=1, batch_size=2, block_size=16), torch.randn(2, *middle, 4, 5)
    append(cache, new)
    cache.truncate([4, 1])
    later = torch.randn(2, *middle, 1, 5)
    stored = append(cache, later)
    assert stored.shape == (2, *middle, 5, 5)
    assert torch.equal(stored[0], torch.cat([new[0], later[0]], dim=-2))
    assert torch.equal(stored[1, ..., :2, :], torch.cat([new[1, ..., :1, :], later[1]], dim=-2))


# Rows of another cache ----------------------------------------------------------------------------

def test_rows_can_be_replaced_by_those_of_another_cache():
    cache, other = (KVCache(n_layer=2, batch_size=B, block_size=16) for B in (4, 2))
    for each, number in [(cache, 1.0), (other, 2.0)]:
        each.reserve(5)
        for layer in each.layers:
            layer.append("k", torch.full((len(each.lengths), 5, 3), number))
        each.advance()
    cache.truncate([5, 5, 4, 3])
    other.truncate([2, 1])
    cache.set_rows([3, 1], other)
    assert cache.lengths.tolist() == [5, 1, 4, 2]
    for layer in cache.layers:
        assert layer.tensors["k"][:, 0, 0].tolist() == [1, 2, 1, 2]


@each_variant
def test_replaced_row_continues_the_text_of_the_other_cache(tiny, options):
    model = tiny(block_size=12, **options).double()
    cache, other = model.new_cache(3), model.new_cache(1)
    model(IDX[:, :6], cache)
    model(OTHER[1:2, :4], other)
    cache.set_rows([1], other)
    lengths = torch.tensor([6, 4, 6])
    texts = torch.stack([IDX[0], OTHER[1], IDX[2]])
    logits = model(next_tokens(texts, lengths, 2), cache)
    expected = model(texts)
    for row, length in enumerate(lengths):
        assert_close(logits[row], expected[row, length:length + 2], **EXACT)
