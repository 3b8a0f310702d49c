"""The parts of newer GPTs: each does what its formula says, and all work with cache and mask."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from gptlib import load_model, make_model, save_checkpoint
from gptlib.config import ConfigError
from gptlib.data import document_mask
from gptlib.generate import generate
from gptlib.model import causality_gap
from gptlib.variants.config import MODERN_PARTS, VariantConfig
from gptlib.variants.modern import ModernGPT, RMSNorm, rotate

SMALL = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
IDX = torch.arange(16).view(2, 8) % 11
SETS = [{name: True} for name in MODERN_PARTS]
SETS += [dict.fromkeys(MODERN_PARTS, True), {**dict.fromkeys(MODERN_PARTS, True),
                                            "token_shift": True, "position": "none"}]
each_set = pytest.mark.parametrize("options", SETS, ids=lambda options: "-".join(options))


def build(**options):
    torch.manual_seed(0)
    model = make_model(VariantConfig(**SMALL | options))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model.eval()


@each_set
def test_no_model_sees_the_future(options):
    assert all(causality_gap(build(**options), IDX, position) == 0 for position in range(1, 8))


# `build` draws all weights again, so `zero_init` is tested below.
@pytest.mark.parametrize("name", [name for name in MODERN_PARTS if name != "zero_init"])
def test_each_part_changes_the_logits(name):
    assert not torch.allclose(build(**{name: True})(IDX), build()(IDX))


@each_set
def test_cached_logits_equal_those_without_a_cache(options):
    model = build(**options)
    cache = model.new_cache(2)
    parts = [model(IDX[:, :3], cache), model(IDX[:, 3:4], cache), model(IDX[:, 4:], cache)]
    torch.testing.assert_close(torch.cat(parts, 1), model(IDX), atol=1e-5, rtol=1e-5)


@each_set
def test_sampling_past_the_block_gives_the_same_tokens_with_a_cache(options):
    model = build(**options)
    with_cache, without = (generate(model, IDX[:1, :3], 20, temperature=0, cache=cache)
                           for cache in (True, False))
    assert torch.equal(with_cache, without) and with_cache.shape == (1, 23)


@each_set
def test_a_document_reads_nothing_of_the_document_before_it(options):
    model = build(**options)
    documents = (torch.arange(8) >= 3).long().expand(2, -1)
    changed = IDX.clone()
    changed[:, :3] = (changed[:, :3] + 1) % 11
    mask = document_mask(documents)
    torch.testing.assert_close(model(IDX, mask=mask)[:, 3:], model(changed, mask=mask)[:, 3:])


@each_set
def test_a_checkpoint_restores_the_model(options, tmp_path):
    model = build(**options)
    save_checkpoint(tmp_path / "best.safetensors", model)
    loaded, _ = load_model(tmp_path)
    assert type(loaded) is type(model) is ModernGPT
    assert torch.equal(loaded(IDX), model(IDX))


# Rotary positions ---------------------------------------------------------------------------------


def test_rotation_by_hand():
    # Two channels are one plane. It turns by one radian for each position.
    x = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    for position in (0, 1, 5):
        angle = torch.tensor(float(position))
        expected = torch.stack([3 * angle.cos() - 4 * angle.sin(),
                                3 * angle.sin() + 4 * angle.cos()])
        torch.testing.assert_close(rotate(x, torch.tensor([[position]])).flatten(), expected)


def test_rotation_keeps_the_length():
    x = torch.randn(2, 3, 5, 8)
    positions = torch.arange(5)[None]
    torch.testing.assert_close(rotate(x, positions).norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 8)
    def score(i, j):
        return (rotate(q, torch.tensor([[i]])) * rotate(k, torch.tensor([[j]]))).sum()
    for i, j in itertools.product(range(3), range(3)):
        torch.testing.assert_close(score(i + 20, j + 20), score(i, j), atol=1e-4, rtol=1e-4)
    assert not torch.isclose(score(0, 0), score(0, 1), atol=1e-3)


def test_rotary_positions_alone_tell_the_order():
    # Without any positions, the last token sees the others as a set if there is one block.
    swapped = IDX[:, [1, 0, 2]]
    blind = build(position="none", n_layer=1, qk_norm=True)
    rotary = build(position="none", n_layer=1, rotary=True)
    torch.testing.assert_close(blind(IDX[:, :3])[:, -1], blind(swapped)[:, -1])
    assert not torch.allclose(rotary(IDX[:, :3])[:, -1], rotary(swapped)[:, -1], atol=1e-3)


# Norms, start and bigram table --------------------------------------------------------------------


def test_qk_norm_bounds_the_scores():
    attention = build(qk_norm=True).blocks[0].attention
    q, k, v = attention.split_heads(100 * torch.randn(1, 4, 36))
    head_size = q.shape[-1]
    torch.testing.assert_close(q.norm(dim=-1), torch.full(q.shape[:-1], head_size ** 0.5))
    torch.testing.assert_close(k.norm(dim=-1), torch.full(k.shape[:-1], head_size ** 0.5))
    assert v.norm(dim=-1).max() > 2 * head_size ** 0.5


def test_rms_norm_by_hand():
    x = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(RMSNorm(2)(x), x / (25 / 2) ** 0.5)
    assert not list(RMSNorm(2).parameters())


def test_model_that_starts_at_zero_guesses_evenly():
    torch.manual_seed(0)
    model = make_model(VariantConfig(**SMALL, zero_init=True))
    assert torch.equal(model(IDX), torch.zeros(2, 8, 11))
    assert all(block.attention.qkv.weight.abs().max() > 0 for block in model.blocks)


def test_bigram_table_is_added_to_the_logits():
    torch.manual_seed(0)
    model = make_model(VariantConfig(**SMALL, zero_init=True, bigram_table=True))
    table = torch.randn(11, 11)
    model.bigram.weight.data = table
    assert torch.equal(model(IDX), table[IDX])


def test_squared_relu_by_hand():
    layer = build(relu2=True).blocks[0].feed_forward
    x = torch.randn(2, 3, 12)
    hidden = layer.fc(x)
    expected = layer.proj(torch.where(hidden > 0, hidden * hidden, torch.zeros(())))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("options, message", [
    ({"rotary": True, "attention": "toeplitz"},
     "rotary=True should be False, unless attention=\"plain\" and memory=\"attention\""),
    ({"relu2": True, "memory": "mean", "window": 4},
     "relu2=True should be False, unless attention=\"plain\" and memory=\"attention\""),
    ({"rotary": True, "n_head": 4},
     "n_embd=12 should be an even multiple of n_head=4, because rotary=True rotates pairs of "
     "channels"),
    ({"zero_init": True, "tie_weights": True},
     "zero_init=True should be False, because tie_weights=True: the output layer is the token "
     "embedding"),
])
def test_impossible_combinations_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        VariantConfig(**SMALL | options)
    assert str(error.value) == message


def test_gradients_reach_every_weight_after_the_first_step():
    torch.manual_seed(0)
    model = make_model(VariantConfig(**SMALL, **dict.fromkeys(MODERN_PARTS, True)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        loss = F.cross_entropy(model(IDX[:, :-1]).flatten(0, 1), IDX[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, weight in model.named_parameters():
        if name != "positions.table.weight":
            assert weight.grad.abs().sum() > 0, name
