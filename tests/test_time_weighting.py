"""Time-weighting and token shift: explicit loops, identities of chapter 6, the measurement."""

import json
import math
import statistics
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPTConfig, TrainConfig, generate, make_model
from gptlib.model import causality_gap
from gptlib.train import make_optimizer
from gptlib.variants.build import ATTENTIONS
from gptlib.variants.config import VariantConfig
from gptlib.variants.time_weighting import (
    RelativeBiasAttention,
    TimeWeightedAttention,
    ToeplitzAttention,
    query_rows,
    shift_tokens,
    toeplitz,
)

MYGPT = {"vocab_size": 65, "block_size": 128, "n_layer": 3, "n_head": 8, "n_embd": 512,
         "bias": True}
SMALL = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
EXACT = {"rtol": 1e-10, "atol": 1e-10}
B, H, T, D = 2, 3, 9, 4                         # rows, heads, positions, head size
each_attention = pytest.mark.parametrize("attention", ATTENTIONS)
each_weighted = pytest.mark.parametrize("attention", ["time_weighted", "toeplitz", "relative_bias"])
each_variant = pytest.mark.parametrize("options", [
    {"attention": attention, "token_shift": shift}
    for attention, shift in product(ATTENTIONS, (False, True))
], ids=lambda options: "-".join(map(str, options.values())))


def random_tensor(*shape, seed=0, positive=False):
    """Return random numbers in float64 that gradients can be computed for."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x.exp() if positive else x).requires_grad_()


def random_qkv(n_rows=B):
    """Return random queries, keys and values, (n_rows, H, T, D) each."""
    return [random_tensor(n_rows, H, T, D, seed=seed) for seed in (1, 2, 3)]


def random_ids(B, T):
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(1))


def causal_mask(T):
    """Return 0 where a query may see a key, and −∞ where the key comes after the query."""
    return torch.full((T, T), -math.inf, dtype=torch.float64).triu(1)


def weighted_attention(q, k, v, w):
    """Compute the definition, (softmax(q kᵀ / √D + mask) · w) v."""
    p = (q @ k.mT / math.sqrt(D) + causal_mask(T)).softmax(-1)
    return (p * w) @ v


def assert_same_values_and_gradients(y, expected, inputs):
    assert_close(y, expected, **EXACT)
    direction = random_tensor(*expected.shape, seed=99).detach()
    gradients = torch.autograd.grad(y, inputs, direction, retain_graph=True)
    expected_gradients = torch.autograd.grad(expected, inputs, direction, retain_graph=True)
    assert_close(gradients, expected_gradients, **EXACT)


# Toeplitz matrices --------------------------------------------------------------------------------

def slow_toeplitz(u):
    """Return the matrix with u[…, i - j] at […, i, j], one entry at a time."""
    T, zero = u.shape[-1], torch.zeros_like(u[..., 0])
    rows = []
    for i in range(T):
        rows.append(torch.stack([u[..., i - j] if i >= j else zero for j in range(T)], dim=-1))
    return torch.stack(rows, dim=-2)


def tile_and_reshape(u):
    """Return the same matrix as MyGPT computes it: tile the reversed row, cut and reshape it."""
    T = u.shape[-1]
    padded = F.pad(u.flip(-1), (0, T))                                  # (…, 2T)
    tiled = padded.repeat(*(1 for _ in u.shape[:-1]), T)                # (…, T · 2T)
    # Rows that are one shorter than the tile begin one later in it each time.
    return tiled[..., :-T].unflatten(-1, (T, 2 * T - 1))[..., T - 1:]


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 7), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("implementation", [toeplitz, tile_and_reshape])
def test_toeplitz_equals_the_slow_matrix(shape, implementation):
    u = random_tensor(*shape)
    assert_same_values_and_gradients(implementation(u), slow_toeplitz(u), [u])


def test_matrix_is_toeplitz_and_not_circulant():
    matrix = toeplitz(torch.tensor([5.0, 3.0, 2.0]))
    assert matrix.tolist() == [[5, 0, 0], [3, 5, 0], [2, 3, 5]]
    circulant = torch.tensor([[5.0, 2.0, 3.0], [3.0, 5.0, 2.0], [2.0, 3.0, 5.0]])
    assert not torch.equal(matrix, circulant)


# Identities of chapter 6 --------------------------------------------------------------------------

def bias_and_gate(q, k, v, w):
    """Compute weighted attention for w > 0 with PyTorch's fused function.

    ln w is added to the scores s, and the result is multiplied by the gate
    exp(logsumexp(s + ln w) − logsumexp(s)).
    """
    mask = causal_mask(T)
    scores = q @ k.mT / math.sqrt(D) + mask
    bias = w.masked_fill(mask < 0, 1.0).log() + mask
    gate = ((scores + bias).logsumexp(-1) - scores.logsumexp(-1)).exp()
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    return y * gate[..., None], gate


def test_weights_after_the_softmax_equal_a_bias_inside_it_and_a_gate_outside():
    (q, k, v), u = random_qkv(), random_tensor(H, T, positive=True)
    y, _ = bias_and_gate(q, k, v, toeplitz(u))
    expected = weighted_attention(q, k, v, toeplitz(u))
    assert_same_values_and_gradients(y, expected, [q, k, v, u])


def test_gate_is_the_mean_weight_under_the_attention():
    (q, k, v), u = random_qkv(), random_tensor(H, T, positive=True)
    _, gate = bias_and_gate(q, k, v, toeplitz(u))
    mean_weight = weighted_attention(q, k, torch.ones_like(v), toeplitz(u))[..., 0]
    assert_close(gate, mean_weight, **EXACT)


def test_weights_with_signs_are_the_difference_of_two_positive_parts():
    (q, k, v), w = random_qkv(), random_tensor(H, T, T)
    tiny = 1e-300               # not 0, because a row of −∞ = ln 0 would give nan
    positive, _ = bias_and_gate(q, k, v, w.clamp(min=tiny))
    negative, _ = bias_and_gate(q, k, v, (-w).clamp(min=tiny))
    assert_close(positive - negative, weighted_attention(q, k, v, w), **EXACT)


def test_key_factors_multiply_the_values_and_query_factors_the_result():
    (q, k, v), a, b = random_qkv(), random_tensor(H, T, seed=4), random_tensor(H, T, seed=5)
    y = F.scaled_dot_product_attention(q, k, v * a[..., None], is_causal=True) * b[..., None]
    expected = weighted_attention(q, k, v, b[:, :, None] * a[:, None, :])
    assert_same_values_and_gradients(y, expected, [q, k, v, a, b])


def test_exponential_factors_of_distance_key_and_query_cancel():
    u, a, b = random_tensor(H, T), random_tensor(H, T, seed=4), random_tensor(H, T, seed=5)
    expected = toeplitz(u) * a[:, None, :] * b[:, :, None]
    for rate in (-0.3, 0.7):
        tilt = torch.exp(rate * torch.arange(T, dtype=torch.float64))
        tilted = toeplitz(u * tilt) * (a * tilt)[:, None, :] * (b / tilt)[:, :, None]
        assert_close(tilted, expected, **EXACT)


def test_scale_can_move_between_distance_weights_and_key_factors():
    u, a = random_tensor(H, T), random_tensor(H, T, seed=4)
    assert_close(toeplitz(3 * u) * (a / 3)[:, None], toeplitz(u) * a[:, None], **EXACT)


# Each attention against an explicit loop ----------------------------------------------------------

def make_attention(attention, n_head=H, head_size=D, **options):
    """Return one attention layer in float64. Its weights are large."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=5, block_size=T + 2, n_head=n_head, n_embd=n_head * head_size,
                       **options)
    layer = ATTENTIONS[attention](config).double()
    for weight in layer.parameters():
        nn.init.normal_(weight)
    return layer.eval()


def slow_variant(layer, x):
    """Compute an attention layer for one row, one head and one position at a time."""
    B, T, C = x.shape
    head_size = C // layer.n_head
    y = torch.zeros_like(x)
    for b in range(B):
        q, k, v = layer.qkv(x[b]).split(C, dim=-1)                      # (T, C) each
        for h in range(layer.n_head):
            head = slice(h * head_size, (h + 1) * head_size)            # the channels of this head
            for i in range(T):
                scores = [q[i, head] @ k[j, head] / math.sqrt(head_size) + bias(layer, h, i, j)
                          for j in range(i + 1)]
                p = torch.stack(scores).softmax(0)
                y[b, i, head] = sum(p[j] * weight(layer, h, i, j) * v[j, head]
                                    for j in range(i + 1))
    return layer.proj(y)


def bias(layer, h, i, j):
    """Return what is added to the score of head h, query i and key j."""
    return layer.by_distance[h, i - j] if isinstance(layer, RelativeBiasAttention) else 0.0


def weight(layer, h, i, j):
    """Return what the attention weight of head h, query i and key j is multiplied by."""
    if isinstance(layer, TimeWeightedAttention):
        return layer.table[h, i, j]
    if isinstance(layer, ToeplitzAttention):
        return layer.by_distance[h, i - j] * layer.by_key[h, j]
    return 1.0


@each_attention
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 1, 6), (2, 7, 2, 1), (1, T + 2, 2, 3)],
                         ids=str)
def test_attention_equals_an_explicit_loop(attention, shape):
    B, T, n_head, head_size = shape
    layer = make_attention(attention, n_head, head_size, bias=True)
    x = random_tensor(B, T, n_head * head_size)
    assert_close(layer(x), slow_variant(layer, x), **EXACT)


@each_weighted
def test_dropout_acts_on_attention_weights_in_training_only(attention):
    layer = make_attention(attention, dropout=0.5)
    x, (q, k, v) = random_tensor(1, T, H * D), random_qkv(n_rows=20)
    assert_close(layer(x), slow_variant(layer, x), **EXACT)
    layer.train()
    # The first position gives all its attention to itself. With dropout it collects nothing.
    dropped = (layer.attend(q, k, v)[:, :, 0] == 0).all(-1)             # (B, H)
    assert 0.3 < dropped.double().mean() < 0.7


def test_query_rows_are_the_rows_of_the_table_at_the_positions():
    table = random_tensor(H, 6, 6)
    rows = query_rows(table, torch.tensor([[2, 3, 4], [5, 0, 1]]))
    assert rows.shape == (2, H, 3, 6)
    assert torch.equal(rows[0], table[:, 2:5])
    assert torch.equal(rows[1], table[:, [5, 0, 1]])


# Each variant of the model ------------------------------------------------------------------------

@each_weighted
@pytest.mark.parametrize("token_shift", [False, True])
def test_untrained_variant_has_the_logits_of_plain_attention(attention, token_shift):
    """The tables begin as ones or zeros, and draw no random numbers."""
    logits = {}
    for name in ("plain", attention):
        torch.manual_seed(0)
        model = make_model(VariantConfig(**SMALL, attention=name, token_shift=token_shift))
        logits[name] = model.double()(random_ids(2, 8))
    assert_close(logits[attention], logits["plain"], rtol=1e-12, atol=1e-12)


@each_variant
@pytest.mark.parametrize("position", ["learned", "none"])
def test_logits_do_not_depend_on_later_tokens(tiny, options, position):
    model = tiny(position=position, **options)
    for t in range(1, 8):
        assert causality_gap(model, random_ids(2, 8), t) < 1e-6


@each_variant
@pytest.mark.parametrize("prompts", ["one", "batch", "different lengths"])
def test_generation_beyond_the_block_is_the_same_with_a_cache(tiny, options, prompts):
    model, idx = tiny(**options).double(), random_ids(3, 5)
    prompt = {
        "one": idx[:1],
        "batch": idx,
        "different lengths": [idx[0], idx[1, :1], idx[2, :4]],
    }[prompts]
    with_cache = generate(model, prompt, 20, seed=3, cache=True)
    without_cache = generate(model, prompt, 20, seed=3, cache=False)
    for row, expected in zip(with_cache, without_cache, strict=True):
        assert torch.equal(row, expected)


@each_variant
def test_every_parameter_gets_a_gradient_except_weights_of_the_future(tiny, options):
    model = tiny(**options)
    logits = model(torch.arange(8)[None]).flatten(0, 1)
    F.cross_entropy(logits, torch.arange(8)).backward()
    for name, parameter in model.named_parameters():
        has_gradient = parameter.grad != 0
        if name.endswith("attention.table"):
            assert torch.equal(has_gradient, torch.ones(2, 8, 8).tril().bool())
        elif "attention.by_" in name:
            assert has_gradient.any(-1).all(), name
        else:
            assert has_gradient.any(), name


@each_variant
def test_tables_of_the_variants_have_no_weight_decay(options):
    model = make_model(VariantConfig(**SMALL, **options))
    decaying = set()
    for group in make_optimizer(model, TrainConfig()).param_groups:
        if group["weight_decay"] > 0:
            decaying |= {id(p) for p in group["params"]}
    tables = [p for name, p in model.named_parameters()
              if "attention." in name and not name.endswith(("qkv.weight", "proj.weight"))]
    tables_per_layer = {"plain": 0, "time_weighted": 1, "toeplitz": 2, "relative_bias": 1}
    assert len(tables) == SMALL["n_layer"] * tables_per_layer[options["attention"]]
    assert not decaying & {id(p) for p in tables}
    assert decaying


PLAIN = 9_590_272                               # published
BY_DISTANCE = 3 * 8 * 128                       # n_layer · n_head · block_size


@pytest.mark.parametrize("attention, expected", [
    ("plain", PLAIN),
    ("time_weighted", 9_983_488),               # published
    ("toeplitz", PLAIN + 2 * BY_DISTANCE),      # one number for each distance and for each key
    ("relative_bias", PLAIN + BY_DISTANCE),
])
def test_mygpt_has_the_published_number_of_parameters(attention, expected):
    with torch.device("meta"):
        model = make_model(VariantConfig(attention=attention, **MYGPT))
    assert model.parameter_table()["total"] == expected


# Token shift --------------------------------------------------------------------------------------

@pytest.mark.parametrize("C", [1, 4, 5])
def test_first_half_of_the_channels_comes_from_the_token_before(C):
    x, half = random_tensor(2, 6, C), C // 2
    shifted = shift_tokens(x)
    assert torch.equal(shifted[:, 1:, :half], x[:, :-1, :half])
    assert not shifted[:, 0, :half].any()
    assert torch.equal(shifted[..., half:], x[..., half:])


def test_token_shift_acts_on_attention_and_not_on_the_feed_forward_layer(tiny):
    block = tiny(token_shift=True).blocks[0]
    x = torch.randn(2, 8, 12)
    after_attention = x + block.attention(shift_tokens(block.norm1(x)))
    expected = after_attention + block.feed_forward(block.norm2(after_attention))
    assert_close(block(x), expected)


# The committed measurement ------------------------------------------------------------------------

ARM = ("corpus", "steps", "attention", "position", "token_shift")       # one arm of the experiment


@pytest.fixture(scope="module")
def measured():
    path = Path(__file__).parents[1] / "benchmarks/time_weighting.json"
    if not path.is_file():
        pytest.skip("not measured yet: python benchmarks/time_weighting.py")
    return json.loads(path.read_text(encoding="utf-8"))


def test_measurement_names_its_circumstances(measured):
    assert {"measures", "corpus", "corpus_sha256", "date", "revision", "code", "machine", "torch",
            "cost"} <= measured.keys()


def test_every_arm_was_measured_with_three_seeds(measured):
    seeds = {}
    for run in measured["runs"]:
        arm = tuple(run[name] for name in ARM)
        seeds.setdefault(arm, set()).add(run["seed"])
        assert run["curve"][0]["step"] == 0
        assert run["curve"][-1]["step"] == run["steps"]
    variants = set(product(ATTENTIONS, ("learned", "none"), (False, True)))
    assert {("tinyshakespeare", 2000, *variant) for variant in variants} <= seeds.keys()
    assert all(len(of_arm) == 3 for of_arm in seeds.values())
    costs = {(row["attention"], row["position"], row["token_shift"]) for row in measured["cost"]}
    assert costs == variants
    assert sum(corpus == "theatre2" for corpus, *_ in seeds) == 6


def test_all_attentions_began_with_the_same_loss(measured):
    """Before the first step, the losses are those of plain attention, up to rounding."""
    first_losses = {}
    for run in measured["runs"]:
        group = tuple(run[name] for name in ("corpus", "position", "token_shift", "seed"))
        row = run["curve"][0]
        first_losses.setdefault(group, []).append([row["train_loss"], row["val_loss"]])
    for losses in first_losses.values():
        expected = torch.tensor(losses[:1]).expand(len(losses), 2)
        assert_close(torch.tensor(losses), expected, rtol=0, atol=2e-6)


def test_means_and_standard_deviations_are_those_of_the_runs(measured):
    for arm in measured["arms"]:
        runs = [run for run in measured["runs"] if all(run[name] == arm[name] for name in ARM)]
        assert arm["n"] == len(runs)
        for loss in ("val_loss", "train_loss"):
            last = [run["curve"][-1][loss] for run in runs]
            assert arm[f"{loss}_mean"] == pytest.approx(statistics.mean(last), abs=1e-9)
            assert arm[f"{loss}_std"] == pytest.approx(statistics.stdev(last), abs=1e-9)
