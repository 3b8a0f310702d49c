"""Time-weighting against explicit loops, the identities that chapter 6 rests on, and the promises every variant keeps."""

import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPT, GPTConfig, TrainConfig, generate
from gptlib.block import ATTENTIONS
from gptlib.model import causality_gap
from gptlib.time_weighting import TimeWeightedAttention, ToeplitzAttention, of_queries, shift_tokens, toeplitz
from gptlib.train import make_optimizer

MYGPT = dict(vocab_size=65, block_size=128, n_layer=3, n_head=8, n_embd=512, bias=True)
WEIGHTED = ["time_weighted", "toeplitz", "relative_bias"]
B, H, T, D = 2, 3, 9, 4
exact = dict(rtol=1e-10, atol=1e-10)
each_variant = pytest.mark.parametrize("how", [dict(attention=attention, token_shift=shift) for attention in ATTENTIONS
                                               for shift in (False, True)], ids=lambda how: "-".join(map(str, how.values())))
each_weighted = pytest.mark.parametrize("attention", WEIGHTED)


def numbers(*shape, seed=0, positive=False):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn.exp() if positive else drawn).requires_grad_()


def triple():
    return (numbers(B, H, T, D, seed=seed) for seed in (1, 2, 3))


def hidden(T):
    """0 where a query may look, -inf where it may not."""
    return torch.full((T, T), -math.inf, dtype=torch.float64).triu(1)


def weighted(q, k, v, w):
    """The definition: softmax of scaled scores, times w, times v."""
    return ((q @ k.mT / math.sqrt(D) + hidden(T)).softmax(-1) * w) @ v


def agree_with_gradients(found, expected, inputs):
    assert_close(found, expected, **exact)
    direction = numbers(*expected.shape, seed=99).detach()
    for a, b in zip(*(torch.autograd.grad(y, inputs, direction, retain_graph=True) for y in (found, expected)), strict=True):
        assert_close(a, b, **exact)


# Identities ---------------------------------------------------------------------------------------------------------

def explicit_toeplitz(u):
    T, nothing = u.shape[-1], torch.zeros_like(u[..., 0])
    return torch.stack([torch.stack([u[..., i - j] if i >= j else nothing for j in range(T)], -1) for i in range(T)], -2)


def tile_and_reshape(reversed_u):
    """MyGPT's way, its table reversed, so that the last number is that of distance 0: repeat T times, cut, fold a row shorter."""
    T = reversed_u.shape[-1]
    tiled = F.pad(reversed_u, (0, T)).repeat(*(1 for _ in reversed_u.shape[:-1]), T)
    return tiled[..., :-T].unflatten(-1, (T, 2 * T - 1))[..., T - 1:]


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 7), (2, 3, 5)], ids=str)
def test_the_strided_view_is_the_toeplitz_matrix_and_mygpts_tile_and_reshape(shape):
    u = numbers(*shape)
    agree_with_gradients(toeplitz(u), explicit_toeplitz(u), [u])
    agree_with_gradients(tile_and_reshape(u.flip(-1)), explicit_toeplitz(u), [u])


def test_it_is_toeplitz_and_not_circulant():
    matrix = toeplitz(torch.tensor([5.0, 3.0, 2.0]))
    assert matrix.tolist() == [[5, 0, 0], [3, 5, 0], [2, 3, 5]]         # a circulant matrix would have [5, 2, 3] on top


def by_gate(q, k, v, w):
    """The same for w > 0 with a fused kernel: attention whose scores have log w added, times exp(LSE(s + log w) − LSE(s))."""
    scores, bias = q @ k.mT / math.sqrt(D) + hidden(T), w.masked_fill(hidden(T) < 0, 1.0).log() + hidden(T)
    gate = ((scores + bias).logsumexp(-1) - scores.logsumexp(-1)).exp()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]) * gate[..., None], gate


def test_weights_after_the_softmax_are_a_bias_inside_it_and_a_gate_outside():
    (q, k, v), u = triple(), numbers(H, T, positive=True)
    found, gate = by_gate(q, k, v, toeplitz(u))
    agree_with_gradients(found, weighted(q, k, v, toeplitz(u)), [q, k, v, u])
    mean_weight = weighted(q, k, torch.ones_like(v), toeplitz(u))[..., 0]
    assert_close(gate, mean_weight, **exact)                            # the gate is the mean of w under the attention


def test_signed_weights_are_the_difference_of_two_such():
    (q, k, v), w = triple(), numbers(H, T, T)
    tiny = 1e-300                                                       # log 0 is -inf, which a row of zeros does not survive
    plus, minus = (by_gate(q, k, v, part.clamp(min=tiny))[0] for part in (w, -w))
    assert_close(plus - minus, weighted(q, k, v, w), **exact)


def test_a_factor_of_keys_goes_with_the_values_and_one_of_queries_with_the_result():
    (q, k, v), a, b = triple(), numbers(H, T, seed=4), numbers(H, T, seed=5)
    fused = F.scaled_dot_product_attention(q, k, v * a[..., None], is_causal=True) * b[..., None]
    agree_with_gradients(fused, weighted(q, k, v, b[:, :, None] * a[:, None, :]), [q, k, v, a, b])


def test_distance_key_and_query_factors_share_a_gauge():
    u, a, b, d = numbers(H, T), numbers(H, T, seed=4), numbers(H, T, seed=5), torch.arange(T, dtype=torch.float64)
    for rate in (-0.3, 0.7):
        tilt = torch.exp(rate * d)
        assert_close(toeplitz(u * tilt) * (a * tilt)[:, None, :] * (b / tilt)[:, :, None],
                     toeplitz(u) * a[:, None, :] * b[:, :, None], **exact)


def test_a_key_factor_alone_leaves_only_the_scale_free():
    u, a = numbers(H, T), numbers(H, T, seed=4)
    assert_close(toeplitz(3 * u) * (a / 3)[:, None], toeplitz(u) * a[:, None], **exact)


# Each variant -------------------------------------------------------------------------------------------------------

def variant(attention, n_head=H, head_size=D, **how):
    """One layer of attention in float64, all weights large."""
    torch.manual_seed(0)
    layer = ATTENTIONS[attention](GPTConfig(vocab_size=5, block_size=T + 2, n_head=n_head, n_embd=n_head * head_size, **how)).double()
    for weight in layer.parameters():
        nn.init.normal_(weight)
    return layer.eval()


def by_loops(layer, x):
    """One row, head and position at a time."""
    (B, T, C), size = x.shape, x.shape[-1] // layer.n_head
    y = torch.zeros_like(x)
    for b in range(B):
        q, k, v = layer.qkv(x[b]).split(C, dim=-1)                                      # (T, C) each
        for h in range(layer.n_head):
            own = slice(h * size, (h + 1) * size)
            for i in range(T):
                scores = torch.stack([q[i, own] @ k[j, own] / math.sqrt(size) + added(layer, h, i, j) for j in range(i + 1)])
                y[b, i, own] = sum(p * factor(layer, h, i, j) * v[j, own] for j, p in enumerate(scores.softmax(0)))
    return layer.proj(y)


def added(layer, h, i, j):
    return layer.by_distance[h, i - j] if type(layer) is ATTENTIONS["relative_bias"] else 0.0


def factor(layer, h, i, j):
    match layer:
        case TimeWeightedAttention():
            return layer.table[h, i, j]
        case ToeplitzAttention():
            return layer.by_distance[h, i - j] * layer.by_key[h, j]
    return 1.0


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 1, 6), (2, 7, 2, 1), (1, T + 2, 2, 3)], ids=str)
def test_attention_equals_an_explicit_loop(attention, shape):
    B, T, n_head, head_size = shape
    layer = variant(attention, n_head, head_size, bias=True)
    x = numbers(B, T, n_head * head_size)
    assert_close(layer(x), by_loops(layer, x), **exact)


@each_weighted
@pytest.mark.parametrize("shift", [False, True])
def test_each_starts_as_plain_attention(attention, shift):
    """With the same draws, and nothing drawn for the tables, so that arms of an experiment begin at the same function."""
    idx = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    shape = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12, token_shift=shift)
    logits = {}
    for name in ("plain", attention):
        torch.manual_seed(0)
        logits[name] = GPT(GPTConfig(attention=name, **shape)).double()(idx)
    assert_close(logits[attention], logits["plain"], rtol=1e-12, atol=1e-12)


@each_variant
@pytest.mark.parametrize("position", ["learned", "none"])
def test_no_variant_sees_ahead(tiny, how, position):
    model = tiny(position=position, **how)
    idx = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    assert all(causality_gap(model, idx, t) < 1e-6 for t in range(1, 8))


@each_variant
@pytest.mark.parametrize("prompts", ["one", "batch", "ragged"])
def test_generation_with_a_cache_is_generation_without(tiny, how, prompts):
    """Past the block size too: 5 tokens and 20 more in a block of 8."""
    model = tiny(**how).double()
    drawn = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(1))
    prompt = {"one": drawn[:1], "batch": drawn, "ragged": [drawn[0], drawn[1, :1], drawn[2, :4]]}[prompts]
    with_cache, without = (generate(model, prompt, 20, seed=3, cache=cache) for cache in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(with_cache, without, strict=True))


@each_variant
@pytest.mark.parametrize("lengths", [(4, 4, 4), (1, 3, 4)], ids=["equal", "ragged"])
def test_logits_with_a_cache_are_those_without(tiny, how, lengths):
    """Rows of one length stand at one position, a whole number; rows of several lengths each at their own."""
    model = tiny(**how).double()
    idx = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache()
    model(idx[:, :4], cache)
    if len(set(lengths)) > 1:
        cache.length = torch.tensor(lengths)
    for step in range(4):
        at = torch.tensor(lengths) + step
        found = model(idx[torch.arange(3), at][:, None], cache)[:, 0]
        assert_close(found, model(idx)[torch.arange(3), at], **exact)


@each_variant
def test_every_parameter_learns_but_for_weights_of_the_future(tiny, how):
    model = tiny(**how)
    F.cross_entropy(model(torch.arange(8)[None]).flatten(0, 1), torch.arange(8)).backward()
    for name, parameter in model.named_parameters():
        learns = parameter.grad != 0
        if name.endswith("attention.table"):
            assert torch.equal(learns, torch.ones(2, 8, 8).tril().bool())
        else:
            assert learns.any(-1).all() if "attention.by_" in name else learns.any(), name


@each_variant
def test_only_linear_layers_and_embeddings_decay(how):
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12, **how))
    decaying = {id(p) for group in make_optimizer(model, TrainConfig()).param_groups if group["weight_decay"] for p in group["params"]}
    tables = [p for name, p in model.named_parameters() if "attention." in name and not name.endswith(("qkv.weight", "proj.weight"))]
    assert len(tables) == {"plain": 0, "time_weighted": 2, "toeplitz": 4, "relative_bias": 2}[how["attention"]]
    assert not decaying & {id(p) for p in tables}


@pytest.mark.parametrize("attention, published", [("plain", 9_590_272), ("time_weighted", 9_983_488),
                                                  ("toeplitz", 9_590_272 + 2 * 3 * 8 * 128), ("relative_bias", 9_590_272 + 3 * 8 * 128)])
def test_mygpts_parameters_are_as_many_as_published(attention, published):
    with torch.device("meta"):
        assert GPT(GPTConfig(attention=attention, **MYGPT)).parameter_table()["total"] == published


@each_weighted
def test_dropout_strikes_the_attention_in_training_only(attention):
    layer, x = variant(attention, dropout=0.5), numbers(1, 6, H * D)
    assert_close(layer(x), by_loops(layer, x), **exact)
    layer.train()
    q, k, v = (numbers(20, H, 6, D, seed=seed) for seed in (1, 2, 3))
    dropped = (layer.attend(q, k, v, 0)[:, :, 0] == 0).all(-1)          # position 0 gives all to itself, or with dropout nothing
    assert 0.3 < dropped.double().mean() < 0.7


def test_rows_of_a_table_for_one_position_or_one_in_each_row():
    table = numbers(H, 6, 6)
    assert torch.equal(of_queries(table, 2, 3), table[:, 2:5])
    each = of_queries(table, torch.tensor([5, 0]), 1)
    assert torch.equal(each[0, :, 0], table[:, 5]) and torch.equal(each[1, :, 0], table[:, 0]) and each.shape == (2, H, 1, 6)


# Token shift --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("C", [1, 4, 5])
def test_the_first_half_of_the_channels_comes_from_one_position_before(C):
    x = numbers(2, 6, C)
    shifted = shift_tokens(x)
    assert torch.equal(shifted[:, 1:, :C // 2], x[:, :-1, :C // 2]) and not shifted[:, 0, :C // 2].any()
    assert torch.equal(shifted[..., C // 2:], x[..., C // 2:])


def test_the_shift_reaches_attention_and_not_the_feed_forward_layer(tiny):
    block = tiny(token_shift=True).blocks[0]
    x = torch.randn(2, 8, 12)
    middle = x + block.attention(shift_tokens(block.norm1(x)))
    assert_close(block(x), middle + block.feed_forward(block.norm2(middle)))


# The committed measurement ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def measured():
    path = Path(__file__).parents[1] / "benchmarks/time_weighting.json"
    if not path.is_file():
        pytest.skip("not measured yet: python benchmarks/time_weighting.py")
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_grid_is_whole_and_each_arm_has_three_seeds(measured):
    assert {"measures", "corpus", "corpus_sha256", "date", "revision", "code", "machine", "torch", "cost"} <= set(measured)
    seeds = {}
    for run in measured["runs"]:
        key = (run["corpus"], run["steps"], run["attention"], run["position"], run["token_shift"])
        seeds.setdefault(key, set()).add(run["seed"])
        assert run["curve"][0]["step"] == 0 and run["curve"][-1]["step"] == run["steps"]
    grid = {("tinyshakespeare", 2000, attention, position, shift) for attention in ATTENTIONS for position in ("learned", "none")
            for shift in (False, True)}
    assert grid <= set(seeds) and all(len(of) == 3 for of in seeds.values())
    assert {key[2:] for key in grid} == {(row["attention"], row["position"], row["token_shift"]) for row in measured["cost"]}
    assert sum(key[0] == "theatre2" for key in seeds) == 6


def test_all_kinds_of_attention_began_as_one_function(measured):
    """The loss before the first step, of the first batch and of the split, is that of plain attention, up to rounding."""
    first = {}
    for run in measured["runs"]:
        key = (run["corpus"], run["position"], run["token_shift"], run["seed"])
        first.setdefault(key, []).append([run["curve"][0][loss] for loss in ("train_loss", "val_loss")])
    for losses in first.values():
        assert_close(torch.tensor(losses), torch.tensor(losses[:1]).expand(len(losses), 2), rtol=0, atol=2e-6)


def test_means_and_spreads_are_those_of_the_runs(measured):
    for arm in measured["arms"]:
        runs = [run for run in measured["runs"] if all(run[key] == arm[key] for key in ("attention", "position", "token_shift", "corpus",
                                                                                        "steps"))]
        assert arm["n"] == len(runs)
        for loss in ("val_loss", "train_loss"):
            last = [run["curve"][-1][loss] for run in runs]
            assert arm[f"{loss}_mean"] == pytest.approx(statistics.mean(last), abs=1e-9)
            assert arm[f"{loss}_std"] == pytest.approx(statistics.stdev(last), abs=1e-9)
