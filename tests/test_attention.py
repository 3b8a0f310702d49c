"""Attention against a slow, explicit version of itself, and the block that it stands in."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPTConfig
from gptlib.attention import CausalSelfAttention, KVCache
from gptlib.block import ATTENTIONS, Block

attentions = pytest.mark.parametrize("attention", ATTENTIONS)
shapes = pytest.mark.parametrize("B, T, n_head, head_size", [(2, 5, 3, 4), (1, 1, 1, 6), (3, 7, 4, 1), (2, 4, 1, 5), (1, 9, 2, 3)])


def made(part, n_head, n_embd, **how):
    """The part in float64, with weights so large that every mistake shows."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=5, block_size=16, n_head=n_head, n_embd=n_embd, **how)
    part = part(config).double()
    for weight in part.parameters():
        torch.nn.init.normal_(weight)
    return part.eval()


def slow_attention(attention, x):
    """One batch row, one head, one position at a time: softmax(q·k / √head_size) over what came before."""
    B, T, C = x.shape
    head_size = C // attention.n_head
    y = torch.zeros_like(x)
    for b in range(B):
        q, k, v = attention.qkv(x[b]).split(C, dim=-1)                  # (T, C) each
        for h in range(attention.n_head):
            own = slice(h * head_size, (h + 1) * head_size)
            for t in range(T):
                scores = torch.full((T,), -math.inf, dtype=x.dtype)
                for s in range(t + 1):
                    scores[s] = (q[t, own] * k[s, own]).sum() / math.sqrt(head_size)
                weights = scores.exp() / scores.exp().sum()
                y[b, t, own] = sum(weights[s] * v[s, own] for s in range(T))
    return attention.proj(y)


@shapes
@pytest.mark.parametrize("bias", [False, True])
def test_attention_equals_an_explicit_loop(B, T, n_head, head_size, bias):
    attention = made(CausalSelfAttention, n_head, n_head * head_size, bias=bias)
    x = torch.randn(B, T, n_head * head_size, dtype=torch.float64)
    assert_close(attention(x), slow_attention(attention, x), rtol=1e-9, atol=1e-9)


@shapes
def test_attention_never_reads_a_later_position(B, T, n_head, head_size):
    attention = made(CausalSelfAttention, n_head, n_head * head_size)
    x = torch.randn(B, T, n_head * head_size, dtype=torch.float64, requires_grad=True)
    for t in range(T):
        grad, = torch.autograd.grad(attention(x)[:, t].sum(), x)
        assert torch.all(grad[:, t + 1:] == 0) and torch.any(grad[:, t] != 0)


def test_the_first_position_attends_to_itself_alone():
    attention = made(CausalSelfAttention, 2, 6)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert_close(attention(x)[:, 0], attention.proj(attention.qkv(x[:, 0]).split(6, dim=-1)[2]))


def test_attention_dropout_is_on_in_training_only():
    attention = made(CausalSelfAttention, 2, 6, dropout=0.5)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert_close(attention(x), slow_attention(attention, x))
    attention.train()
    assert not torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("bias", [False, True])
def test_the_block_adds_to_the_residual_stream_what_its_parts_say_of_a_normalised_copy(bias):
    block = made(Block, 2, 6, bias=bias, mlp_ratio=3)
    norm = lambda layer, x: F.layer_norm(x, (6,), layer.weight, layer.bias)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    middle = x + slow_attention(block.attention, norm(block.norm1, x))
    wide, _, narrow, _ = block.feed_forward
    assert wide.out_features == 3 * 6
    assert_close(block(x), middle + narrow(F.gelu(wide(norm(block.norm2, middle)))), rtol=1e-9, atol=1e-9)


def test_without_bias_a_block_has_no_bias_anywhere():
    assert not [name for name, _ in made(Block, 2, 6, bias=False).named_parameters() if "bias" in name]


def test_the_feed_forward_layer_thinks_at_each_position_alone():
    block = made(Block, 2, 6)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert_close(block.feed_forward(x)[:, 2], block.feed_forward(x[:, 2]))


def test_the_feed_forward_layer_drops_in_training_only():
    layer = made(Block, 2, 6, dropout=0.5).feed_forward
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


def fed(attention, x, T):
    """What attention says of the first T positions at once, and then of one after the other, through a cache."""
    cache, said = KVCache(1, 16), []
    for start, end in [(0, T), *((t, t + 1) for t in range(T, x.shape[1]))]:
        said.append(attention(x[:, start:end], cache.layers[0]))
        cache.length = end
    return torch.cat(said, dim=1), cache


@attentions
@pytest.mark.parametrize("T", [1, 4, 8])
def test_attention_with_a_cache_equals_attention_without(attention, T):
    attention = made(ATTENTIONS[attention], 2, 6)
    x = torch.randn(2, 8, 6, dtype=torch.float64)
    assert_close(fed(attention, x, T)[0], attention(x), rtol=1e-9, atol=1e-9)


@attentions
def test_rows_of_different_lengths_share_a_cache_and_see_nothing_beyond_their_own(attention):
    attention = made(ATTENTIONS[attention], 2, 6)
    x, lengths, cache = torch.randn(3, 8, 6, dtype=torch.float64), torch.tensor([1, 5, 3]), KVCache(1, 16)
    garbage = torch.arange(5) >= lengths[:, None]                       # (B, T): what pads the shorter prompts
    attention(x[:, :5].masked_fill(garbage[..., None], 1e3), cache.layers[0])
    for step in range(3):
        cache.length = lengths + step
        said = attention(x[torch.arange(3), cache.length][:, None], cache.layers[0])
        assert_close(said[:, 0], attention(x)[torch.arange(3), cache.length], rtol=1e-9, atol=1e-9)


def test_a_cache_takes_its_room_once_and_all_of_it_is_zeros():
    torch.use_deterministic_algorithms(True)                            # so that memory which nobody filled holds nan
    try:
        cache, new = KVCache(1, 16), torch.randn(2, 3, 4, 5)
        assert torch.equal(cache.layers[0].append("k", new), new)
        room = cache.layers[0].kept["k"]
        assert room.shape == (2, 3, 16, 5) and not room[:, :, 4:].any()
        cache.length = 4
        assert torch.equal(cache.layers[0].append("k", new[:, :, :1]), torch.cat([new, new[:, :, :1]], 2))
        assert cache.layers[0].kept["k"] is room
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("between", [(), (3,), (3, 2)])
def test_a_cache_keeps_anything_whose_time_is_the_last_but_one_dimension(between):
    layer, new = KVCache(1, 16).layers[0], torch.randn(2, *between, 4, 5)
    layer.append("x", new)
    layer.cache.length = torch.tensor([4, 1])
    kept = layer.append("x", new[..., :1, :] + 9)
    assert kept.shape == (2, *between, 5, 5)
    assert torch.equal(kept[0], torch.cat([new[0], new[0, ..., :1, :] + 9], dim=-2))
    assert torch.equal(kept[1, ..., :3, :], torch.stack([new[1, ..., 0, :], new[1, ..., 0, :] + 9, new[1, ..., 2, :]], dim=-2))


def test_rows_of_a_cache_are_replaced_by_those_of_another():
    old, new = KVCache(2, 16), KVCache(2, 16)
    for cache, B, number in ((old, 4, 1.0), (new, 2, 2.0)):
        for layer in cache.layers:
            layer.append("k", torch.full((B, 5, 3), number))
    old.length, new.length = torch.tensor([5, 5, 4, 3]), torch.tensor([2, 1])
    old.set_rows([3, 1], new)
    assert old.length.tolist() == [5, 1, 4, 2]
    for layer in old.layers:
        assert layer.kept["k"][:, 0, 0].tolist() == [1, 2, 1, 2]
