"""The GPT: numbers of parameters, causality, logits, positions, initial weights and errors."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPT, GPTConfig
from gptlib.model import causality_gap, evaluating

PICOGPT = {"vocab_size": 88, "block_size": 128, "n_layer": 8, "n_head": 8, "n_embd": 256,
           "bias": True, "tie_weights": True, "position": "none"}
MYGPT = {"vocab_size": 65, "block_size": 128, "n_layer": 3, "n_head": 8, "n_embd": 512,
         "bias": True, "tie_weights": False, "position": "learned"}
SHAKEGPT = [        # n_embd, n_layer, n_head, block_size, position, published number of parameters
    (32, 12, 8, 200, "sinusoidal", 422_528),
    (384, 6, 6, 256, "sinusoidal", 9_684_480),
    (384, 6, 6, 256, "learned", 9_782_784),
]
POSITIONS = ("learned", "sinusoidal", "none")
each_position = pytest.mark.parametrize("position", POSITIONS)
each_option = pytest.mark.parametrize("options", [
    {"position": position, "tie_weights": tie, "bias": bias}
    for position, tie, bias in product(POSITIONS, (True, False), (True, False))
], ids=lambda options: "-".join(map(str, options.values())))


def random_ids(B, T):
    """Return tokens of the small GPT, (B, T), the same in every run."""
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(1))


def make_shake_gpt(n_embd, n_layer, n_head, block_size, position):
    """Return shakeGPT: a GPT without biases, whose norms run over time and channels together."""
    model = GPT(GPTConfig(vocab_size=66, block_size=block_size, n_layer=n_layer, n_head=n_head,
                          n_embd=n_embd, mlp_ratio=2, position=position))
    shape = (block_size, n_embd)
    for block in model.blocks:
        block.norm1, block.norm2 = nn.LayerNorm(shape), nn.LayerNorm(shape)
    model.final_norm = nn.LayerNorm(shape)
    return model


# Numbers of parameters ----------------------------------------------------------------------------

@pytest.mark.parametrize("options, published", [(PICOGPT, 6_341_120), (MYGPT, 9_590_272)],
                         ids=["PicoGPT", "MyGPT"])
def test_number_of_parameters_is_the_published_one(options, published):
    assert GPT(GPTConfig(**options)).parameter_table()["total"] == published


@pytest.mark.parametrize("n_embd, n_layer, n_head, block_size, position, published", SHAKEGPT,
                         ids=["v1", "v2", "v3"])
def test_shakegpt_has_the_published_number_of_parameters(
    n_embd, n_layer, n_head, block_size, position, published
):
    V, C, T = 66, n_embd, block_size
    hidden = 2 * C
    token_embedding = V * C
    positions = T * C if position == "learned" else 0
    attention = C * 3 * C + C * C               # qkv, proj
    feed_forward = C * hidden + hidden * C      # fc, proj
    norm = T * C + T * C                        # weight, bias
    block = norm + attention + norm + feed_forward
    head = C * V
    formula = token_embedding + positions + n_layer * block + norm + head

    model = make_shake_gpt(n_embd, n_layer, n_head, block_size, position)
    assert formula == published
    assert model.parameter_table()["total"] == published
    assert sum(p.numel() for p in model.parameters()) == published


@each_option
def test_parameter_table_follows_the_formulas(tiny, options):
    model = tiny(**options)
    V, T, C, n_layer = 11, 8, 12, 2             # the shape of the small GPT in conftest.py
    hidden = 4 * C
    bias = 1 if options["bias"] else 0
    qkv = C * 3 * C + bias * 3 * C
    attention_proj = C * C + bias * C
    fc = C * hidden + bias * hidden
    feed_forward_proj = hidden * C + bias * C
    norm = C + bias * C
    expected = {
        "token embedding": V * C,
        "positions": T * C if options["position"] == "learned" else 0,
        "attention": n_layer * (qkv + attention_proj),
        "feed-forward": n_layer * (fc + feed_forward_proj),
        "norms": n_layer * 2 * norm + norm,
        "head": 0 if options["tie_weights"] else V * C,
    }
    assert model.parameter_table() == expected | {"total": sum(expected.values())}


@each_option
def test_parts_of_the_parameter_table_add_up_to_the_total(tiny, options):
    model = tiny(**options)
    table = model.parameter_table()
    total = table.pop("total")
    assert sum(table.values()) == total == sum(p.numel() for p in model.parameters())


# Causality ----------------------------------------------------------------------------------------

@each_option
@pytest.mark.parametrize("shape", [
    {},
    {"n_head": 1, "n_embd": 2, "n_layer": 1, "block_size": 2},
    {"n_head": 3, "n_embd": 6, "block_size": 13, "mlp_ratio": 1},
], ids=["usual", "smallest", "odd"])
def test_logits_do_not_depend_on_later_tokens(tiny, options, shape):
    model = tiny(**options | shape)
    idx = random_ids(2, model.block_size)
    for position in range(1, model.block_size):
        assert causality_gap(model, idx, position) < 1e-6


def test_norms_over_time_depend_on_later_tokens():
    torch.manual_seed(0)
    model = make_shake_gpt(n_embd=12, n_layer=1, n_head=2, block_size=8, position="sinusoidal")
    for position in range(1, 8):
        assert causality_gap(model, torch.arange(8)[None], position) > 1e-4


class SeesAhead(nn.Module):
    """A model that is not causal: its logits show the token that is `steps` positions later."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, idx):
        later = F.pad(idx, (0, self.steps))[:, self.steps:]
        return F.one_hot(later, 11).float()


@pytest.mark.parametrize("steps, gap", [(0, 0), (1, 1), (2, 1), (5, 1)])
def test_causality_gap_finds_a_look_ahead_of_any_distance(steps, gap):
    assert causality_gap(SeesAhead(steps), torch.arange(8)[None], position=5) == gap


@pytest.mark.parametrize("idx, position", [
    (torch.arange(8)[None], 0),
    (torch.zeros(1, 8, dtype=torch.long), 5),
], ids=["nothing before position 0", "no other token"])
def test_causality_gap_refuses_to_compare_nothing(idx, position):
    with pytest.raises(ValueError, match="nothing to compare"):
        causality_gap(SeesAhead(1), idx, position)


@pytest.mark.parametrize("training", [True, False])
def test_causality_gap_switches_dropout_off_and_restores_the_mode(tiny, training):
    model = tiny(dropout=0.5).train(training)
    assert causality_gap(model, torch.arange(8)[None], 4) < 1e-6
    assert all(module.training is training for module in model.modules())


# Logits -------------------------------------------------------------------------------------------

@each_option
def test_logits_are_the_normalized_output_of_the_blocks_times_the_output_matrix(tiny, options):
    model = tiny(**options).double()
    idx = torch.arange(10).view(2, 5)
    x = model.positions(model.token_embedding(idx))
    for block in model.blocks:
        x = block(x)
    x = F.layer_norm(x, (12,), model.final_norm.weight, model.final_norm.bias)
    matrix = model.token_embedding.weight if options["tie_weights"] else model.head.weight
    assert_close(model(idx), x @ matrix.T)


@pytest.mark.parametrize("T", [1, 5, 8])
def test_window_may_be_shorter_than_the_block(tiny, T):
    assert tiny()(torch.zeros(2, T, dtype=torch.long)).shape == (2, T, 11)


def test_window_longer_than_the_block_is_refused(tiny):
    with pytest.raises(ValueError) as error:
        tiny()(torch.zeros(1, 9, dtype=torch.long))
    assert str(error.value) == "a window of 9 tokens is longer than block_size=8: pass the last 8"


@pytest.mark.parametrize("idx, message", [
    (torch.tensor([[0, 11]]), "token ids run from 0 to 11, but the model knows 0 … 10: "
                              "was the text encoded by another tokenizer?"),
    (torch.tensor([[0, -1]]), "token ids run from -1 to 0, but the model knows 0 … 10: "
                              "was the text encoded by another tokenizer?"),
    (torch.tensor([[0.0, 1.0]]),
     "token ids should be torch.int64, not torch.float32: use ids.long()"),
    (torch.tensor([[0, 1]], dtype=torch.uint8),
     "token ids should be torch.int64, not torch.uint8: use ids.long()"),
], ids=["too large", "negative", "float", "uint8"])
@pytest.mark.parametrize("with_cache", [False, True])
def test_wrong_ids_are_refused(tiny, idx, message, with_cache):
    model = tiny()
    cache = model.new_cache(1) if with_cache else None
    with pytest.raises(ValueError) as error:
        model(idx, cache)
    assert str(error.value) == message


def test_int32_ids_give_the_logits_of_int64_ids(tiny):
    model, idx = tiny(), random_ids(2, 8)
    assert torch.equal(model(idx.int()), model(idx))


def test_dropout_acts_in_training_only(tiny):
    model, idx = tiny(dropout=0.5), torch.arange(8)[None]
    assert not torch.equal(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))


def test_every_parameter_gets_a_gradient(tiny):
    model = tiny(bias=True, tie_weights=False)
    logits = model(torch.arange(8)[None]).flatten(0, 1)
    F.cross_entropy(logits, torch.arange(8)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_config_dict_builds_the_config_again(tiny):
    model = tiny(bias=True)
    assert GPTConfig(**model.config_dict()) == model.config


# Positions ----------------------------------------------------------------------------------------

def test_learned_positions_add_one_row_of_their_table_to_each_position(tiny):
    positions = tiny(position="learned").positions
    x = torch.randn(2, 5, 12)
    assert_close(positions(x) - x, positions.table.weight[:5].expand(2, 5, 12))


def test_sinusoidal_positions_follow_the_formula(tiny):
    positions = tiny(position="sinusoidal").positions
    C, T = 12, 8
    expected = torch.zeros(T, C)
    for t in range(T):
        for i in range(0, C, 2):
            angle = t / 10_000 ** (i / C)
            expected[t, i], expected[t, i + 1] = math.sin(angle), math.cos(angle)
    added = positions(torch.zeros(1, T, C))[0]
    scale = added[0, 1]                         # cos(0) = 1
    assert_close(added / scale, expected, rtol=1e-4, atol=1e-5)


@each_position
def test_positions_may_start_anywhere(tiny, position):
    positions, x = tiny(position=position).positions, torch.randn(3, 8, 12)
    expected = positions(x)                                             # positions 0 … 7
    assert torch.equal(positions(x[:, 2:6], torch.arange(2, 6).expand(3, 4)), expected[:, 2:6])


@each_position
def test_rows_may_have_different_positions(tiny, position):
    positions, x = tiny(position=position).positions, torch.randn(3, 8, 12)
    expected = positions(x)
    rows, t = torch.arange(3), torch.tensor([5, 0, 7])
    assert torch.equal(positions(x[rows, t][:, None], t[:, None])[:, 0], expected[rows, t])


@pytest.mark.parametrize("position, depends", [
    ("learned", True), ("sinusoidal", True), ("none", False),
])
def test_one_layer_needs_positions_to_know_the_order_of_earlier_tokens(tiny, position, depends):
    model = tiny(position=position, n_layer=1).double()
    one_order, other_order = model(torch.tensor([[1, 2, 3, 4], [3, 1, 2, 4]]))[:, -1]
    assert ((one_order - other_order).abs().max() > 1e-6) == depends


# Initial weights (the table of GPT.init_weights) --------------------------------------------------

each_initial_model = pytest.mark.parametrize("init, tie_weights", [
    ("scaled", False), ("scaled", True), ("gpt2", False), ("gpt2", True),
])


def make_initial_gpt(init, tie_weights, position="learned"):
    """Return a new GPT, large enough to measure standard deviations of its weights."""
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=65, n_layer=3, n_head=2, n_embd=64, mlp_ratio=4, bias=True,
                         tie_weights=tie_weights, position=position, init=init))


def assert_std(weight, std):
    assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert abs(weight.mean().item()) < 0.1 * std


def std_of_linear(init, fan_in):
    return {"scaled": 1 / math.sqrt(fan_in), "gpt2": 0.02}[init]


@each_initial_model
def test_linear_layers_are_scaled_by_the_number_of_their_inputs(init, tie_weights):
    for block in make_initial_gpt(init, tie_weights).blocks:
        assert_std(block.attention.qkv.weight, std_of_linear(init, fan_in=64))
        assert_std(block.feed_forward.fc.weight, std_of_linear(init, fan_in=64))


@each_initial_model
def test_residual_projections_are_scaled_by_depth(init, tie_weights):
    n_layer = 3
    depth = math.sqrt(2 * n_layer)
    for block in make_initial_gpt(init, tie_weights).blocks:
        assert_std(block.attention.proj.weight, std_of_linear(init, fan_in=64) / depth)
        assert_std(block.feed_forward.proj.weight, std_of_linear(init, fan_in=4 * 64) / depth)


@each_initial_model
def test_output_layer_has_std_002(init, tie_weights):
    model = make_initial_gpt(init, tie_weights)
    assert_std(model.token_embedding.weight if tie_weights else model.head.weight, 0.02)


@each_initial_model
def test_embeddings_have_std_03_only_if_scaled_and_untied(init, tie_weights):
    model = make_initial_gpt(init, tie_weights)
    std = 0.3 if init == "scaled" and not tie_weights else 0.02
    assert_std(model.token_embedding.weight, std)
    assert_std(model.positions.table.weight, std)


@each_initial_model
def test_sinusoidal_positions_are_as_large_as_token_embeddings(init, tie_weights):
    model = make_initial_gpt(init, tie_weights, position="sinusoidal")
    added = model.positions(torch.zeros(1, 64, 64))
    root_mean_square = added.square().mean().sqrt().item()
    assert root_mean_square == pytest.approx(model.token_embedding.weight.std().item(), rel=0.05)


@each_initial_model
def test_biases_start_at_zero_and_norm_weights_at_one(init, tie_weights):
    for name, parameter in make_initial_gpt(init, tie_weights).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        if "norm" in name and name.endswith("weight"):
            assert torch.all(parameter == 1), name


@each_initial_model
def test_loss_of_an_untrained_gpt_is_near_ln_vocab_size(init, tie_weights):
    model = make_initial_gpt(init, tie_weights)
    x, y = torch.randint(65, (2, 8, 32))
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


# evaluating ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_restores_the_mode_of_each_module_even_after_an_exception(tiny, fails):
    model = tiny(dropout=0.5).train()
    model.blocks[0].eval()                      # a frozen block
    modes = [module.training for module in model.modules()]
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_evaluating_switches_off_a_training_module_inside_a_model_in_evaluation_mode(tiny):
    model = tiny(dropout=0.5).eval()
    model.blocks[1].train()
    with evaluating(model):
        assert not model.blocks[1].training
    assert model.blocks[1].training
    assert not model.training


def test_causality_gap_refuses_logits_that_are_not_finite(tiny):
    model = tiny()
    model.final_norm.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        causality_gap(model, torch.arange(8)[None], 5)
