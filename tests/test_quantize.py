"""Layers with int8 weights against the layers that they copy."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gptlib import GPT, GPTConfig, generate, make_model
from gptlib.kv_cache import KVCache
from gptlib.variants.config import VariantConfig
from gptlib.variants.quantize import Int8Linear, int8_copy


def run_both(linear, x):
    """Return the outputs of a layer and of its int8 copy."""
    with torch.no_grad():
        return linear(x), Int8Linear(linear)(x)


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_of_an_int8_layer_are_close_to_those_of_its_original(bias):
    torch.manual_seed(0)
    exact, rounded = run_both(nn.Linear(96, 64, bias=bias), torch.randn(2, 5, 96))
    assert rounded.shape == exact.shape
    assert rounded.dtype == exact.dtype
    assert 0 < (rounded - exact).std() < 0.01 * exact.std()


def test_each_output_has_its_own_scale():
    """A row of large weights does not make other rows less exact. A row of zeros gives zeros."""
    torch.manual_seed(0)
    linear = nn.Linear(32, 3, bias=False)
    linear.weight.data[0] = torch.randn(32)
    linear.weight.data[1] = 1000 * torch.randn(32)
    linear.weight.data[2] = 0
    exact, rounded = run_both(linear, torch.randn(7, 32))
    for row in range(3):
        error = (rounded[:, row] - exact[:, row]).abs().max()
        assert error <= 0.03 * exact[:, row].abs().max()


@pytest.mark.parametrize("n_rows", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("out_features", [1, 2, 3, 5, 7, 15, 16, 17, 33, 65])
def test_every_width_gives_the_product_with_the_rounded_weights(out_features, n_rows):
    """The kernel itself reads past the end of a row if the width is not a multiple of 16."""
    torch.manual_seed(0)
    for in_features in range(1, 81):
        linear = nn.Linear(in_features, out_features)
        layer, x = Int8Linear(linear), torch.randn(n_rows, in_features)
        weight = layer.weight[:, :in_features].float() * layer.scale.float()[:, None]
        expected = x.bfloat16().float() @ weight.T + linear.bias
        assert (weight - linear.weight).abs().max() <= 0.01 * linear.weight.abs().max()
        # bfloat16 stores 8 binary digits.
        assert_close(layer(x), expected, rtol=2 ** -7, atol=2 ** -7)


@pytest.mark.parametrize("shape", [(20,), (0, 20), (2, 0, 20), (2, 3, 4, 20)])
def test_inputs_of_every_shape_give_outputs_of_the_shape_of_a_linear_layer(shape):
    exact, rounded = run_both(nn.Linear(20, 3), torch.ones(shape))
    assert rounded.shape == exact.shape
    assert_close(rounded, exact, rtol=0.05, atol=0.05)


def test_an_input_that_is_a_transposed_view_gives_the_outputs_of_its_copy():
    x = torch.randn(32, 5).T
    layer = Int8Linear(nn.Linear(32, 3))
    assert torch.equal(layer(x), layer(x.contiguous()))


@pytest.mark.parametrize("width", [19, 21, 32])
def test_an_input_of_another_width_is_refused(width):
    with pytest.raises(RuntimeError):
        Int8Linear(nn.Linear(20, 3))(torch.ones(2, width))


@pytest.mark.parametrize("n_embd", [1, 7, 20, 100])
def test_a_gpt_of_any_width_can_be_copied(n_embd):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=65, block_size=8, n_layer=2, n_head=1, n_embd=n_embd)).eval()
    idx = torch.randint(65, (2, 8))
    with torch.no_grad():
        assert_close(int8_copy(model)(idx), model(idx), atol=0.03, rtol=0)


def make_gpt(tie_weights):
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=31, block_size=12, n_layer=2, n_head=2, n_embd=32,
                         tie_weights=tie_weights))


each_tie = pytest.mark.parametrize("tie_weights", [True, False], ids=["tied", "untied"])


@each_tie
def test_copy_has_int8_layers_instead_of_linear_layers(tie_weights):
    copy = int8_copy(make_gpt(tie_weights))
    layers_per_block = 4                        # qkv and proj, fc and proj
    n_output_layers = 0 if tie_weights else 1
    assert not any(isinstance(module, nn.Linear) for module in copy.modules())
    n_int8 = sum(isinstance(module, Int8Linear) for module in copy.modules())
    assert n_int8 == 2 * layers_per_block + n_output_layers


@each_tie
def test_copy_leaves_the_model_unchanged(tie_weights):
    model = make_gpt(tie_weights)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    copy = int8_copy(model)
    assert model.training
    assert not copy.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name])


@each_tie
def test_logits_of_the_copy_are_close_to_those_of_the_model(tie_weights):
    model, idx = make_gpt(tie_weights), torch.randint(31, (2, 5))
    with torch.no_grad():
        assert_close(int8_copy(model)(idx), model(idx), atol=0.02, rtol=0)


@each_tie
def test_copy_generates_the_same_with_and_without_a_cache(tie_weights):
    copy, idx = int8_copy(make_gpt(tie_weights)), torch.randint(31, (2, 5))
    assert isinstance(copy.new_cache(2), KVCache)
    with_cache = generate(copy, idx, 30, temperature=0)
    assert torch.equal(with_cache, generate(copy, idx, 30, temperature=0, cache=False))


def test_rolling_model_can_be_copied():
    torch.manual_seed(0)
    model = make_model(VariantConfig(vocab_size=9, block_size=8, memory="mean", window=4, n_layer=1,
                                     n_head=2, n_embd=16)).eval()
    nn.init.normal_(model.head.weight)
    idx = torch.randint(9, (2, 7))
    exact, rounded = model(idx), int8_copy(model)(idx)
    assert exact.std() > 1
    assert 0 < (rounded - exact).std() < 0.02 * exact.std()
