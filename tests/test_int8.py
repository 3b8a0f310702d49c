import pytest
import torch
from torch import nn

from gptlib.attention import KVCache
from gptlib.config import GPTConfig
from gptlib.context_rolling import RollingConfig, RollingGPT
from gptlib.generate import generate
from gptlib.int8 import Int8Linear, int8_copy
from gptlib.model import GPT

torch.manual_seed(0)


@pytest.mark.parametrize("bias", [True, False])
def test_an_int8_layer_is_near_the_layer_that_it_copies(bias):
    linear, x = nn.Linear(96, 64, bias=bias), torch.randn(2, 5, 96)
    with torch.no_grad():
        exact, rounded = linear(x), Int8Linear(linear)(x)
    assert rounded.shape == exact.shape and rounded.dtype == exact.dtype
    assert 0 < (rounded - exact).std() < 0.01 * exact.std()


def test_each_output_has_a_scale_of_its_own():
    """One large row must not flatten the others, and a row of zeros gives zeros."""
    linear = nn.Linear(32, 3, bias=False)
    linear.weight.data = torch.stack([torch.randn(32), 1000 * torch.randn(32), torch.zeros(32)])
    x = torch.randn(7, 32)
    with torch.no_grad():
        exact, rounded = linear(x), Int8Linear(linear)(x)
    for row in range(3):
        assert (rounded[:, row] - exact[:, row]).abs().max() <= 0.03 * exact[:, row].abs().max()


@pytest.mark.parametrize("tie_weights", [True, False])
def test_a_copy_samples_with_its_cache_as_without_and_leaves_the_model_alone(tie_weights):
    model = GPT(GPTConfig(31, block_size=12, n_layer=2, n_head=2, n_embd=32, tie_weights=tie_weights))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = int8_copy(model)
    assert not any(isinstance(module, nn.Linear) for module in copy.modules())
    assert sum(isinstance(module, Int8Linear) for module in copy.modules()) == 2 * 4 + (not tie_weights)
    idx = torch.randint(31, (2, 5))
    with torch.no_grad():
        torch.testing.assert_close(copy(idx), model(idx), atol=0.02, rtol=0)
    assert generate(copy, idx, 30, temperature=0).equal(generate(copy, idx, 30, temperature=0, cache=False))
    assert isinstance(copy.new_cache(), KVCache) and model.training and not copy.training
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_a_rolling_model_has_a_copy_too():
    torch.manual_seed(0)
    model = RollingGPT(RollingConfig(vocab_size=9, block_size=8, window=4, n_layer=1, n_head=2, n_embd=16)).eval()
    torch.nn.init.normal_(model.head.weight)
    idx = torch.randint(9, (2, 7))
    exact, rounded = model(idx), int8_copy(model)(idx)
    assert exact.std() > 1 and 0 < (rounded - exact).std() < 0.02 * exact.std()
