import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPT, GPTConfig
from gptlib.block import ATTENTIONS
from gptlib.model import causality_gap, evaluating

PICO = dict(vocab_size=88, block_size=128, n_layer=8, n_head=8, n_embd=256, bias=True, tie_weights=True, position="none")
MYGPT = dict(vocab_size=65, block_size=128, n_layer=3, n_head=8, n_embd=512, bias=True, tie_weights=False, position="learned")
SHAKE = [   # d, layers, heads, time, positions, parameters
    (32, 12, 8, 200, "sinusoidal", 422_528),
    (384, 6, 6, 256, "sinusoidal", 9_684_480),
    (384, 6, 6, 256, "learned", 9_782_784),
]
variants = pytest.mark.parametrize("how", [
    dict(position=position, tie_weights=tie, bias=bias) for position in ("learned", "sinusoidal", "none") for tie in (True, False)
    for bias in (True, False)], ids=lambda how: "-".join(map(str, how.values())))


def shake_gpt(d, layers, heads, T, position):
    """shakeGPT: a GPT without biases whose norms run over time and channels together."""
    model = GPT(GPTConfig(vocab_size=66, block_size=T, n_layer=layers, n_head=heads, n_embd=d, mlp_ratio=2, position=position,
                          bias=False, tie_weights=False))
    for block in model.blocks:
        block.norm1, block.norm2 = nn.LayerNorm((T, d)), nn.LayerNorm((T, d))
    model.final_norm = nn.LayerNorm((T, d))
    return model


@pytest.mark.parametrize("how, published", [(PICO, 6_341_120), (MYGPT, 9_590_272)], ids=["picogpt", "mygpt"])
def test_parameters_are_as_many_as_published(how, published):
    assert GPT(GPTConfig(**how)).parameter_table()["total"] == published


@pytest.mark.parametrize("d, layers, heads, T, position, published", SHAKE, ids=["v1", "v2", "v3"])
def test_shakegpts_parameters_are_as_many_as_published(d, layers, heads, T, position, published):
    V, d_h = 66, 2 * d
    formula = d * V + 2 * d * T + layers * (4 * d * d + 4 * d * T + 2 * d * d_h) + d * V + (T * d if position == "learned" else 0)
    model = shake_gpt(d, layers, heads, T, position)
    assert sum(p.numel() for p in model.parameters()) == model.parameter_table()["total"] == formula == published


@variants
def test_the_parts_add_up_to_the_total(tiny, how):
    table = tiny(**how).parameter_table()
    assert sum(table.values()) == 2 * table["total"]


@variants
def test_parameters_follow_the_formula(tiny, how):
    V, T, C, N, bias = 11, 8, 12, 2, how["bias"]
    block = 4 * C * C + 8 * C * C + 2 * C + bias * (4 * C + 5 * C + 2 * C)
    head = 0 if how["tie_weights"] else V * C
    positions = T * C if how["position"] == "learned" else 0
    assert tiny(**how).parameter_table()["total"] == V * C + positions + N * block + C + bias * C + head


@variants
@pytest.mark.parametrize("shape", [{}, dict(n_head=1, n_embd=2, n_layer=1, block_size=2),
                                   dict(n_head=3, n_embd=6, block_size=13, mlp_ratio=1)], ids=["plain", "smallest", "odd"])
def test_no_gpt_sees_ahead(tiny, how, shape):
    model = tiny(**how | shape)
    idx = torch.randint(11, (2, model.block_size), generator=torch.Generator().manual_seed(1))
    assert all(causality_gap(model, idx, position) < 1e-6 for position in range(1, model.block_size))


def test_norms_over_time_see_ahead():
    torch.manual_seed(0)
    model = shake_gpt(12, 1, 2, 8, "sinusoidal")
    assert all(causality_gap(model, torch.arange(8)[None], position) > 1e-4 for position in range(1, 8))


class SeesAhead(nn.Module):
    """Each position's logits are the token `steps` later, where there is one."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, idx):
        return F.one_hot(F.pad(idx, (0, self.steps))[:, self.steps:], 11).float()


def test_the_causality_gap_finds_a_look_of_any_distance():
    idx = torch.arange(8)[None]
    assert causality_gap(SeesAhead(0), idx, 5) == 0
    assert [causality_gap(SeesAhead(steps), idx, 5) for steps in (1, 2, 5)] == [1, 1, 1]


@pytest.mark.parametrize("idx, position", [(torch.arange(8)[None], 0), (torch.zeros(1, 8, dtype=torch.long), 5)])
def test_the_causality_gap_refuses_to_compare_nothing(idx, position):
    with pytest.raises(ValueError, match="nothing to compare"):
        causality_gap(SeesAhead(1), idx, position)


@pytest.mark.parametrize("training", [True, False])
def test_the_causality_gap_leaves_the_model_as_it_was(tiny, training):
    model = tiny(dropout=0.5).train(training)
    assert causality_gap(model, torch.arange(8)[None], 4) < 1e-6
    assert all(module.training is training for module in model.modules())


@variants
def test_logits_are_the_blocks_of_tokens_and_positions_normed_and_read_by_the_head(tiny, how):
    model = tiny(**how).double()
    idx = torch.arange(10).view(2, 5)
    x = model.positions(model.token_embedding(idx))
    for block in model.blocks:
        x = block(x)
    matrix = model.token_embedding.weight if how["tie_weights"] else model.head.weight
    assert_close(model(idx), F.layer_norm(x, (12,), model.final_norm.weight, model.final_norm.bias) @ matrix.T)


@pytest.mark.parametrize("T", [1, 5, 8])
def test_a_window_may_be_shorter_than_the_block(tiny, T):
    assert tiny()(torch.zeros(2, T, dtype=torch.long)).shape == (2, T, 11)


def test_a_window_longer_than_the_block_is_refused(tiny):
    with pytest.raises(ValueError, match="a window of 9 tokens is longer than block_size=8"):
        tiny()(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize("wrong", [11, -1])
def test_an_id_beyond_the_vocabulary_is_refused(tiny, wrong):
    with pytest.raises(ValueError, match=r"the model knows 0 … 10: was the text encoded by another tokenizer\?"):
        tiny()(torch.tensor([[0, wrong]]))


def test_learned_positions_add_one_row_of_their_table_to_each_position(tiny):
    positions = tiny(position="learned").positions
    x = torch.randn(2, 5, 12)
    assert_close(positions(x) - x, positions.table.weight[:5].expand(2, 5, 12))


def test_sinusoidal_positions_are_sines_and_cosines_of_growing_length(tiny):
    positions = tiny(position="sinusoidal").positions
    waves = torch.tensor([[f(t / 10_000 ** (i / 12)) for i in range(0, 12, 2) for f in (math.sin, math.cos)] for t in range(8)])
    added = positions(torch.zeros(1, 8, 12))[0]
    assert_close(added / added[0, 1], waves, rtol=1e-4, atol=1e-5)      # cos(0) = 1 shows the scale


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
def test_positions_may_start_anywhere_and_elsewhere_in_each_row(tiny, position):
    positions, x = tiny(position=position).positions, torch.randn(3, 8, 12)
    assert torch.equal(positions(x[:, 2:6], 2), positions(x)[:, 2:6])
    start = torch.tensor([5, 0, 7])
    assert torch.equal(positions(x[torch.arange(3), start][:, None], start)[:, 0], positions(x)[torch.arange(3), start])


@pytest.mark.parametrize("position, told_apart", [("learned", True), ("sinusoidal", True), ("none", False)])
def test_one_layer_tells_the_order_of_earlier_tokens_by_their_positions_alone(tiny, position, told_apart):
    model = tiny(position=position, n_layer=1).double()
    last = model(torch.tensor([[1, 2, 3, 4], [3, 1, 2, 4]]))[:, -1]
    assert ((last[0] - last[1]).abs().max() > 1e-6) == told_apart


@pytest.mark.parametrize("tie", [True, False])
def test_an_untrained_gpt_guesses(tie):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=65, block_size=32, n_layer=2, n_head=2, n_embd=32, tie_weights=tie))
    x, y = torch.randint(65, (2, 8, 32))
    assert F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item() == pytest.approx(math.log(65), abs=0.1)


@pytest.mark.parametrize("init, std", [("scaled", lambda fan_in: fan_in ** -0.5), ("gpt2", lambda fan_in: 0.02)], ids=["scaled", "gpt2"])
def test_what_adds_to_the_residual_stream_starts_smaller_by_the_root_of_how_many_do(init, std):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=65, n_layer=3, n_head=2, n_embd=64, mlp_ratio=4, tie_weights=False, init=init))
    for block in model.blocks:
        found = [layer.weight.std().item() for layer in (block.attention.qkv, block.feed_forward[0], block.attention.proj,
                                                         block.feed_forward[2])]
        assert found == pytest.approx([std(64), std(64), std(64) / 6 ** 0.5, std(256) / 6 ** 0.5], rel=0.05)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_is_on_in_training_only(tiny):
    model, idx = tiny(dropout=0.5), torch.arange(8)[None]
    assert not torch.equal(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))


def test_every_parameter_learns(tiny):
    model = tiny(bias=True, tie_weights=False)
    F.cross_entropy(model(torch.arange(8)[None]).flatten(0, 1), torch.arange(8)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_config_comes_back_as_a_dict(tiny):
    model = tiny(bias=True)
    assert GPTConfig(**model.config_dict()) == model.config


@variants
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shift", [False, True], ids=["", "shifted"])
def test_logits_are_the_same_with_a_cache(tiny, how, attention, shift):
    model, idx = tiny(**how, attention=attention, token_shift=shift).double(), torch.arange(16).view(2, 8) % 11
    cache = model.new_cache()
    said = [model(idx[:, :3], cache), *(model(idx[:, t:t + 1], cache) for t in range(3, 8))]
    assert cache.length == 8
    assert_close(torch.cat(said, dim=1), model(idx))


def test_rows_of_a_cache_may_hold_texts_of_different_lengths(tiny):
    model, idx, lengths = tiny().double(), torch.arange(24).view(3, 8) % 11, torch.tensor([2, 5, 1])
    cache = model.new_cache()
    model(idx[:, :5], cache)
    cache.length = lengths
    for step in range(3):
        here = lengths + step
        said = model(idx[torch.arange(3), here][:, None], cache)[:, 0]
        assert_close(said, model(idx)[torch.arange(3), here])
    assert cache.length.tolist() == [5, 8, 4] and lengths.tolist() == [2, 5, 1]


def test_a_cache_that_holds_tokens_takes_one_more_at_a_time(tiny):
    model = tiny()
    cache = model.new_cache()
    model(torch.zeros(1, 3, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="the cache holds 3 tokens already: give it one more at a time, not 2"):
        model(torch.zeros(1, 2, dtype=torch.long), cache)
    assert cache.length == 3


@pytest.mark.parametrize("length", [8, torch.tensor([3, 8])], ids=["all", "one row"])
def test_a_full_cache_takes_no_more(tiny, length):
    model = tiny()
    cache = model.new_cache()
    model(torch.zeros(2, 8, dtype=torch.long), cache)
    cache.length = length
    with pytest.raises(ValueError, match="the cache is full: it holds block_size=8 tokens"):
        model(torch.zeros(2, 1, dtype=torch.long), cache)


def test_a_prompt_longer_than_the_block_is_refused_with_a_cache_too(tiny):
    model = tiny()
    with pytest.raises(ValueError, match="a window of 9 tokens is longer than block_size=8"):
        model(torch.zeros(1, 9, dtype=torch.long), model.new_cache())


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_gives_every_module_its_own_mode_back(tiny, fails):
    model = tiny(dropout=0.5).train()
    model.blocks[0].eval()                                              # one block frozen by its owner
    modes = [module.training for module in model.modules()]
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules()) and not torch.is_grad_enabled()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [module.training for module in model.modules()] == modes and torch.is_grad_enabled()


def test_evaluating_reaches_a_training_module_in_a_model_that_is_not(tiny):
    model = tiny(dropout=0.5).eval()
    model.blocks[1].train()
    with evaluating(model):
        assert not model.blocks[1].training
    assert model.blocks[1].training and not model.training
