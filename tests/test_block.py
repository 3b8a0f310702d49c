"""The decoder block: what it adds to the residual stream, and the classes that it is made of."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPT, GPTConfig
from gptlib.attention import CausalSelfAttention
from gptlib.block import Block, FeedForward

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12)


def make_block(**options):
    """Return a block in float64. Its weights are so large that every mistake shows."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=5, block_size=16, n_head=2, n_embd=6, **options)
    block = Block(config).double()
    for weight in block.parameters():
        nn.init.normal_(weight)
    return block.eval()


def make_input():
    return torch.randn(2, 4, 6, dtype=torch.float64)                    # (B, T, C)


# The parts of a block -----------------------------------------------------------------------------

@pytest.mark.parametrize("bias", [False, True])
def test_block_adds_both_parts_of_normalized_input_to_the_residual_stream(bias):
    def norm(layer, x):
        return F.layer_norm(x, (6,), layer.weight, layer.bias)

    block, x = make_block(bias=bias, mlp_ratio=3), make_input()
    after_attention = x + block.attention(norm(block.norm1, x))
    feed_forward = block.feed_forward(norm(block.norm2, after_attention))
    assert_close(block(x), after_attention + feed_forward, **EXACT)


@pytest.mark.parametrize("bias", [False, True])
def test_feed_forward_is_two_linear_layers_with_a_gelu_between(bias):
    layer, x = make_block(bias=bias, mlp_ratio=3).feed_forward, make_input()
    assert layer.fc.weight.shape == (3 * 6, 6)
    assert layer.proj.weight.shape == (6, 3 * 6)
    hidden = F.gelu(F.linear(x, layer.fc.weight, layer.fc.bias))
    assert_close(layer(x), F.linear(hidden, layer.proj.weight, layer.proj.bias), **EXACT)


def test_feed_forward_treats_every_position_by_itself():
    layer, x = make_block().feed_forward, make_input()
    assert_close(layer(x)[:, 2], layer(x[:, 2]))


def test_dropout_of_the_feed_forward_layer_acts_in_training_only():
    layer, x = make_block(dropout=0.5).feed_forward, make_input()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


def test_block_without_bias_has_no_bias_in_any_layer():
    names = [name for name, _ in make_block(bias=False).named_parameters()]
    assert not [name for name in names if "bias" in name]


def test_every_layer_of_a_block_with_bias_has_one():
    names = {name for name, _ in make_block(bias=True).named_parameters()}
    layers = {name.rpartition(".")[0] for name in names}
    assert {f"{layer}.bias" for layer in layers} <= names


# Other classes for the parts ----------------------------------------------------------------------

class MeanAttention(nn.Module):
    """Each position collects the mean of all positions up to itself."""

    def __init__(self, config):
        super().__init__()

    def forward(self, x, cache=None, mask=None):
        n_positions = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
        return x.cumsum(1) / n_positions[:, None]


class Double(nn.Module):
    """A feed-forward layer without parameters: it doubles its input."""

    def __init__(self, config):
        super().__init__()

    def forward(self, x):
        return 2 * x


def rms_norm(n_embd, bias):
    """RMSNorm (Zhang & Sennrich 2019) has no bias."""
    return nn.RMSNorm(n_embd)


def test_default_parts_are_those_of_the_course():
    block = Block(CONFIG)
    assert type(block.attention) is CausalSelfAttention
    assert type(block.feed_forward) is FeedForward
    assert type(block.norm1) is type(block.norm2) is nn.LayerNorm


def test_block_uses_the_attention_given():
    block, x = Block(CONFIG, attention=MeanAttention), torch.randn(2, 4, 12)
    after_attention = x + MeanAttention(CONFIG)(block.norm1(x))
    expected = after_attention + block.feed_forward(block.norm2(after_attention))
    assert_close(block(x), expected)


def test_block_uses_the_feed_forward_layer_given():
    block, x = Block(CONFIG, feed_forward=Double), torch.randn(2, 4, 12)
    after_attention = x + block.attention(block.norm1(x))
    assert_close(block(x), after_attention + 2 * block.norm2(after_attention))


def test_block_uses_the_norm_given():
    block, x = Block(CONFIG, norm=rms_norm), torch.randn(2, 4, 12)
    after_attention = x + block.attention(F.rms_norm(x, (12,)))
    assert_close(block(x), after_attention + block.feed_forward(F.rms_norm(after_attention, (12,))))


def test_norm_gets_the_bias_of_the_config():
    norm = partial(nn.LayerNorm, eps=0.1)
    block = Block(GPTConfig(vocab_size=11, n_embd=12, bias=True), norm=norm)
    assert block.norm1.eps == block.norm2.eps == 0.1
    assert block.norm1.bias is not None
    assert Block(CONFIG, norm=norm).norm1.bias is None


def test_cache_and_mask_are_passed_to_the_attention():
    class Recorder(MeanAttention):
        def forward(self, x, cache=None, mask=None):
            self.arguments = cache, mask
            return super().forward(x)

    block, cache, mask = Block(CONFIG, attention=Recorder), object(), object()
    block(torch.randn(2, 4, 12), cache, mask)
    assert block.attention.arguments == (cache, mask)


# Blocks in a model --------------------------------------------------------------------------------

def test_gpt_uses_the_blocks_and_the_last_norm_given():
    block = partial(Block, attention=MeanAttention, feed_forward=Double, norm=rms_norm)
    model, idx = GPT(CONFIG, block=block, norm=rms_norm), torch.arange(8)[None]
    x = model.positions(model.token_embedding(idx))
    for _ in range(CONFIG.n_layer):
        x = x + MeanAttention(CONFIG)(F.rms_norm(x, (12,)))
        x = x + 2 * F.rms_norm(x, (12,))
    assert_close(model(idx), model.head(F.rms_norm(x, (12,))))
    assert model.parameter_table()["attention"] == 0
    assert model.parameter_table()["norms"] == (2 * CONFIG.n_layer + 1) * 12


def test_gpt_uses_a_subclass_of_block():
    class ReversedBlock(Block):
        """A block whose feed-forward layer comes first."""

        def forward(self, x, cache=None, mask=None):
            x = x + self.feed_forward(self.norm2(x))
            return x + self.attention(self.norm1(x), cache, mask)

    model, idx = GPT(CONFIG, block=ReversedBlock), torch.arange(8)[None]
    x = model.positions(model.token_embedding(idx))
    for block in model.blocks:
        x = x + block.feed_forward(block.norm2(x))
        x = x + block.attention(block.norm1(x))
    assert_close(model(idx), model.head(model.final_norm(x)))


def test_every_block_is_a_new_one():
    model = GPT(CONFIG, block=partial(Block, norm=rms_norm))
    assert len({id(block) for block in model.blocks}) == CONFIG.n_layer
