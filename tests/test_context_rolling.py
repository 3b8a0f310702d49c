"""Context rolling: windows, contexts, caches and gradients, against a slow version."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import (
    CharTokenizer,
    TrainConfig,
    evaluate,
    generate,
    generate_text,
    load_model,
    make_model,
    save_checkpoint,
    train,
)
from gptlib.config import ConfigError
from gptlib.corpora.courier import Courier
from gptlib.data import document_mask
from gptlib.model import causality_gap, evaluating
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import RollingGPT, token_losses

W = 4                               # tokens in a window
BLOCK = 5 * W                       # tokens in a training example
VARIANTS = {
    "mean": {"memory": "mean"},
    "last": {"memory": "last"},
    "memory token": {"memory": "tokens"},
    "3 memory tokens": {"memory": "tokens", "n_memory": 3},
    "none": {"memory": "none"},
    "detached": {"memory": "mean", "detach": True},
    "rescaled": {"memory": "mean", "rescale": True},
    "tied": {"memory": "mean", "tie_weights": True, "bias": True},
    "sinusoidal": {"memory": "mean", "position": "sinusoidal"},
    "no positions": {"memory": "mean", "position": "none"},
    "time-weighted": {"memory": "mean", "attention": "time_weighted"},
    "Toeplitz": {"memory": "mean", "attention": "toeplitz"},
    "relative bias": {"memory": "mean", "attention": "relative_bias"},
    "token shift": {"memory": "mean", "token_shift": True},
}
MEAN = VARIANTS["mean"]
REMEMBERING = [name for name in VARIANTS if name != "none"]
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
each_remembering = pytest.mark.parametrize("name", REMEMBERING)


def make_rolling(**options):
    """Return a small model in float64. Its weights are so large that every mistake shows."""
    torch.manual_seed(0)
    shape = {"vocab_size": 11, "block_size": BLOCK, "n_layer": 2, "n_head": 2, "n_embd": 12,
             "window": W}
    model = make_model(VariantConfig(**shape | options))
    assert type(model) is RollingGPT
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model.double()


def random_ids(B, T, seed=0):
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(seed))


def run_with_cache(model, idx, chunk):
    """Pass `idx`, (B, T), to the model in chunks of a size (or of several sizes)."""
    cache = model.new_cache(len(idx))
    with evaluating(model):
        return torch.cat([model(part, cache) for part in idx.split(chunk, dim=1)], dim=1)


def slow_logits(model, idx):
    """Compute logits with the blocks alone, one row and one token at a time.

    Each token is computed from its context and the tokens of its window up to itself.
    """
    config, hidden = model.config, []
    for row in idx:
        context = torch.zeros(1, config.n_embd, dtype=torch.float64)
        if config.memory == "tokens":
            context = model.memory
        for window in row.split(W):
            for t in range(len(window)):
                hidden.append(slow_states(model, context, window[:t + 1])[-1])
            context = slow_context(model, context, window)
    matrix = model.token_embedding.weight if model.head is None else model.head.weight
    return torch.stack(hidden).view(*idx.shape, -1) @ matrix.T


def slow_states(model, *vectors):
    """Return the final hidden states of vectors, (n, C) each, and tokens, (T,) each."""
    parts = [model.token_embedding(part) if part.dtype == torch.long else part for part in vectors]
    x = model.positions(torch.cat(parts)[None])
    for block in model.blocks:
        x = block(x)
    return model.final_norm(x)[0]


def slow_context(model, context, window):
    """Return the context for the window after this one, (n_memory, C)."""
    config = model.config
    if config.memory == "tokens":
        return slow_states(model, context, window, model.memory)[-config.n_memory:]
    h = slow_states(model, context, window)[1:]                         # states of the tokens
    context = {"mean": h.mean(0, keepdim=True), "last": h[-1:], "none": 0 * h[:1]}[config.memory]
    if config.rescale:
        norm = model.token_embedding.weight.norm(dim=1).mean()
        context = context / context.norm() * norm
    return context


# Windows and contexts -----------------------------------------------------------------------------

@each_variant
@pytest.mark.parametrize("T", [W - 1, 2 * W, 3 * W + 1])
def test_logits_are_those_of_windows_read_one_after_the_other(options, T):
    model, idx = make_rolling(**options), random_ids(2, T)
    assert_close(model(idx), slow_logits(model, idx))


@each_variant
def test_logits_do_not_depend_on_later_tokens_in_any_window(options):
    model = make_rolling(**options)
    for position in (1, W - 1, W, W + 1, 2 * W - 1, 2 * W, 3 * W + 1):
        assert causality_gap(model, random_ids(2, 4 * W - 1) % 5, position) == 0


def changes_by_window(model, position):
    """Return how much the logits of each window change when the token at `position` changes."""
    idx = random_ids(1, 4 * W)
    changed = idx.clone()
    changed[:, position] = (changed[:, position] + 1) % 11
    with evaluating(model):
        return (model(changed) - model(idx)).abs().view(4, -1).amax(1)


@each_remembering
def test_token_of_the_first_window_changes_all_later_windows(name):
    model = make_rolling(**VARIANTS[name])
    assert torch.all(changes_by_window(model, position=1) > 1e-6)


def test_without_memory_a_token_changes_its_own_window_only():
    changes = changes_by_window(make_rolling(memory="none"), position=1)
    assert (changes > 0).tolist() == [True, False, False, False]


def test_mean_is_over_the_tokens_and_not_over_the_old_context():
    model, idx = make_rolling(**MEAN), random_ids(3, W)
    old_context = torch.full((3, 1, 12), 7.0, dtype=torch.float64)
    hidden, context = model.read_window(idx, old_context)
    assert hidden.shape == (3, W, 12)
    assert_close(context, hidden.mean(1, keepdim=True))


def test_rescaled_context_has_the_mean_norm_of_token_embeddings_and_the_same_direction():
    idx, model = random_ids(3, W), make_rolling(**MEAN)
    rescaled_model = make_rolling(**MEAN, rescale=True)
    _, context = model.read_window(idx, model.first_context(3))
    _, rescaled = rescaled_model.read_window(idx, rescaled_model.first_context(3))
    norm = model.token_embedding.weight.norm(dim=-1).mean()
    assert_close(rescaled.norm(dim=-1), norm.expand(3, 1))
    assert_close(F.cosine_similarity(rescaled, context, dim=-1), torch.ones_like(norm).expand(3, 1))


@each_variant
def test_longer_text_does_not_change_earlier_logits(options):
    """The borders of windows do not move while a text grows."""
    model, idx = make_rolling(**options), random_ids(2, 3 * W)
    logits = model(idx)
    for T in range(1, 3 * W):
        assert_close(model(idx[:, :T]), logits[:, :T])


# Losses -------------------------------------------------------------------------------------------

def slow_loss(model, ids):
    """Return the mean loss over all tokens but the first, in examples of BLOCK tokens."""
    total = 0.0
    for start in range(0, len(ids) - 1, BLOCK):
        example = ids[start:start + BLOCK + 1]
        log_p = slow_logits(model, example[None, :-1])[0].log_softmax(-1)
        for t, target in enumerate(example[1:]):
            total -= log_p[t, target].item()
    return total / (len(ids) - 1)


@each_variant
def test_evaluation_predicts_every_token_but_the_first_once(options):
    model, ids = make_rolling(**options), random_ids(1, 7 * W + 2)[0]
    loss, _ = evaluate(model, ids, BLOCK)
    assert loss == pytest.approx(slow_loss(model, ids), rel=1e-9)


@pytest.mark.parametrize("N", [BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1])
def test_evaluation_is_exact_at_the_borders_of_examples(N):
    model, ids = make_rolling(**MEAN), random_ids(1, N)[0]
    loss, _ = evaluate(model, ids, BLOCK)
    assert loss == pytest.approx(slow_loss(model, ids), rel=1e-9)


def test_token_losses_are_those_of_the_windows():
    model, idx = make_rolling(**MEAN), random_ids(2, 3 * W + 3)
    context, expected = model.first_context(2), []
    for x, y in zip(idx[:, :-1].split(W, dim=1), idx[:, 1:].split(W, dim=1), strict=True):
        hidden, context = model.read_window(x, context)
        logits = hidden @ model.head.weight.T
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        expected.append(losses.view_as(y))
    losses = token_losses(model, idx)
    assert losses.shape == (2, 3 * W + 2)
    assert_close(losses, torch.cat(expected, dim=1))


# Caches -------------------------------------------------------------------------------------------

@each_variant
@pytest.mark.parametrize("chunk", [1, 2, 3, [3, 1, 6, 9, 4]], ids=str)
def test_logits_with_a_cache_equal_those_without(options, chunk):
    model, idx = make_rolling(**options), random_ids(2, 23)
    assert_close(run_with_cache(model, idx, chunk), model(idx))


@each_variant
@pytest.mark.parametrize("T", [1, W, 2 * W + 3])
def test_prompt_can_be_continued_token_by_token_across_windows(options, T):
    model, idx = make_rolling(**options), random_ids(2, T + 2 * W)
    assert_close(run_with_cache(model, idx, [T] + 2 * W * [1]), model(idx))


@each_variant
@pytest.mark.parametrize("T", [W, 2 * W + 1])
def test_greedy_generation_is_the_same_with_and_without_a_cache(options, T):
    model, expected = make_rolling(**options), random_ids(2, T)
    for _ in range(3 * W):
        expected = torch.cat([expected, model(expected)[:, -1:].argmax(-1)], dim=1)
    for cache in (True, False):
        idx = generate(model, random_ids(2, T), 3 * W, temperature=0, cache=cache)
        assert torch.equal(idx, expected)


@pytest.mark.parametrize("name", ["mean", "3 memory tokens"])
@pytest.mark.parametrize("T", [1, W - 1, W, W + 1, 6 * W])
def test_sampling_with_a_seed_is_the_same_with_and_without_a_cache(name, T):
    model, sampling = make_rolling(**VARIANTS[name]), {"seed": 3, "temperature": 0.8, "top_k": 6}
    with_cache = generate(model, random_ids(2, T), 3 * W, **sampling)
    without_cache = generate(model, random_ids(2, T), 3 * W, cache=False, **sampling)
    assert torch.equal(with_cache, without_cache)


def test_text_longer_than_a_block_is_continued_from_all_of_it():
    model, tokenizer = make_rolling(**MEAN), CharTokenizer("abcdefghijk")
    prompt = "abc" * 10
    assert len(prompt) > BLOCK
    text = prompt
    for _ in range(9):
        logits = model(torch.tensor([tokenizer.encode(text)]))
        text += tokenizer.decode(logits[0, -1:].argmax(-1))
    assert prompt + generate_text(model, tokenizer, prompt, 9, temperature=0) == text


@pytest.mark.parametrize("name, n_extra", [
    ("mean", 1),                    # the context
    ("last", 1),                    # the context
    ("3 memory tokens", 3 + 3),     # the context, and what the memory tokens write
])
def test_cached_generation_computes_each_token_once(name, n_extra):
    model, vectors = make_rolling(**VARIANTS[name]), []
    model.blocks[0].register_forward_hook(lambda block, args, _: vectors.append(args[0].shape[1]))
    for n_windows in (10, 40):
        vectors.clear()
        generate(model, random_ids(1, 1), n_windows * W, temperature=0)
        assert sum(vectors) == n_windows * (W + n_extra)


def test_prompts_of_different_lengths_are_continued_as_if_alone():
    model, prompts = make_rolling(**MEAN), [random_ids(1, 5)[0], random_ids(1, 9)[0]]
    rows = generate(model, prompts, 9, seed=0)
    for row, (text, prompt) in enumerate(zip(rows, prompts, strict=True)):
        assert torch.equal(text, generate(model, prompt[None], 9, seed=row)[0])


# Wrong input --------------------------------------------------------------------------------------

@pytest.mark.parametrize("idx, message", [
    (torch.tensor([[0, 11]]), "token ids run from 0 to 11, but the model knows 0 … 10"),
    (torch.tensor([[0, -1]]), "token ids run from -1 to 0, but the model knows 0 … 10"),
    (torch.tensor([[0.0, 1.0]]), "token ids should be torch.int64, not torch.float32"),
    (torch.tensor([[0, 1]], dtype=torch.uint8), "token ids should be torch.int64, not torch.uint8"),
], ids=["too large", "negative", "float", "uint8"])
@pytest.mark.parametrize("with_cache", [False, True])
def test_wrong_ids_are_refused(idx, message, with_cache):
    model = make_rolling(**MEAN)
    cache = model.new_cache(1) if with_cache else None
    with pytest.raises(ValueError, match=message):
        model(idx, cache)


def test_document_masks_are_refused():
    model, idx = make_rolling(**MEAN), random_ids(2, 2 * W)
    with pytest.raises(ValueError, match="context rolling has no document masks"):
        model(idx, mask=document_mask(torch.zeros_like(idx)))


def test_attention_over_the_whole_block_is_not_context_rolling():
    with pytest.raises(ConfigError) as error:
        RollingGPT(VariantConfig(vocab_size=11, memory="attention"))
    message = "memory='attention' should be one of mean, last, tokens, none"
    assert str(error.value) == message


# Gradients ----------------------------------------------------------------------------------------

@each_remembering
def test_gradient_passes_through_all_windows_unless_detached(name):
    """Token 10 stands in the first window only. The loss is that of the third window."""
    model = make_rolling(**VARIANTS[name])
    idx = random_ids(1, 3 * W) % 10
    idx[0, 1] = 10
    token_losses(model, idx)[:, -W + 1:].sum().backward()
    gradient = model.token_embedding.weight.grad.abs().amax(1)          # (V,)
    if name == "detached":
        assert gradient[10] == 0
    elif name != "tied":            # a tied embedding also gets a gradient from the output layer
        assert gradient[10] > 1e-9
    assert gradient[idx[0, -2]] > 0


@each_remembering
def test_every_parameter_gets_a_gradient(name):
    model = make_rolling(**VARIANTS[name])
    token_losses(model, random_ids(8, 4 * W)).mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), parameter_name


# Edited contexts ----------------------------------------------------------------------------------

def test_with_its_context_set_to_zero_each_window_is_read_like_the_first():
    model, idx = make_rolling(**MEAN), random_ids(2, 3 * W)
    expected = torch.cat([model(window) for window in idx.split(W, dim=1)], dim=1)
    assert_close(model(idx, edit=torch.zeros_like), expected)


def test_window_with_the_context_of_another_text_is_read_like_its_continuation():
    model, a, b = make_rolling(**MEAN), random_ids(1, W, seed=1), random_ids(1, W, seed=2)
    aa, ba = torch.cat([a, a], dim=1), torch.cat([b, a], dim=1)
    swapped = model(torch.cat([aa, ba]), edit=lambda context: context.flip(0))
    assert_close(swapped[0, W:], model(ba)[0, W:])


# Training and checkpoints -------------------------------------------------------------------------

IDS = torch.arange(600) ** 2 % 7


def train_rolling(out_dir, options, **arguments):
    """Train a small model for 12 steps. Return the model and the result."""
    torch.manual_seed(0)
    model = make_model(VariantConfig(vocab_size=7, block_size=3 * W, n_layer=1, n_head=2, n_embd=8,
                                     window=W, dropout=0.1, **options))
    config = TrainConfig(max_steps=12, batch_size=4, learning_rate=1e-2, warmup=3, eval_interval=4,
                         seed=3, device="cpu")
    result = train(model, IDS[:500], IDS[500:], 3 * W, config, out_dir=out_dir,
                   tokenizer=CharTokenizer("abcdefg"), progress=False, **arguments)
    return model, result


@pytest.mark.parametrize("name", ["mean", "memory token"])
def test_resumed_training_equals_training_without_interruption(name, tmp_path):
    def stop(row):
        if row["step"] == 8:
            raise KeyboardInterrupt

    options = VARIANTS[name]
    _, interrupted = train_rolling(tmp_path / "a", options, on_eval=stop)
    assert interrupted.interrupted
    model, result = train_rolling(tmp_path / "a", options, resume="auto")
    expected_model, expected = train_rolling(tmp_path / "b", options)
    val_losses = [row["val_loss"] for row in result.history]
    assert val_losses == [row["val_loss"] for row in expected.history]
    assert val_losses[-1] < val_losses[0]
    expected_weights = expected_model.state_dict()
    for weight_name, weight in model.state_dict().items():
        assert torch.equal(weight, expected_weights[weight_name])


@each_variant
def test_loaded_model_has_exactly_the_same_logits(options, tmp_path):
    model, idx = make_rolling(**options).float().eval(), random_ids(2, 3 * W + 1)
    save_checkpoint(tmp_path / "a.safetensors", model, CharTokenizer("abcdefghijk"))
    loaded, _ = load_model(tmp_path / "a.safetensors")
    assert type(loaded) is RollingGPT
    assert loaded.config == model.config
    assert torch.equal(loaded(idx), model(idx))


def test_picogpt_has_the_published_number_of_parameters_and_129_positions():
    config = VariantConfig(vocab_size=88, block_size=1280, memory="mean", window=128, n_layer=8,
                           n_head=8, n_embd=256, bias=True, tie_weights=True)
    with torch.device("meta"):
        table = make_model(config).parameter_table()
    published = 6_341_120                       # without positions
    assert table["positions"] == (128 + 1) * 256
    assert table["total"] - table["positions"] == published


# The committed measurement ------------------------------------------------------------------------

MEASURED = json.loads(
    (Path(__file__).parents[1] / "benchmarks/context_rolling.json").read_text(encoding="utf-8")
)


def test_measurement_names_its_circumstances():
    assert {"measures", "corpus", "corpus_sha256", "date", "revision", "code", "rolling_code",
            "machine", "torch"} <= MEASURED.keys()
    assert MEASURED["text"]["window"] * MEASURED["text"]["windows"] == 256


def test_floors_of_the_measurement_are_those_of_its_courier():
    courier = MEASURED["courier"]
    assert courier["floors"] == pytest.approx(Courier(**courier["rules"]).floors())


@pytest.mark.parametrize("experiment", ["courier", "capacity", "text"])
def test_no_run_is_counted_twice(experiment):
    runs = [tuple(run.get(name) for name in ("corpus", "arm", "n_facts", "seed"))
            for run in MEASURED[experiment]["runs"]]
    assert len(set(runs)) == len(runs)


def test_no_courier_loss_is_below_the_floor_of_a_perfect_memory():
    floor = MEASURED["courier"]["floors"]["a perfect memory"]
    for run in MEASURED["courier"]["runs"]:
        assert run["scores"]["all"] > floor - 0.005


def test_memories_are_compared_at_equal_numbers_of_parameters():
    parameters = {run["arm"]: run["parameters"] for run in MEASURED["courier"]["runs"]}
    assert parameters["memory token"] == pytest.approx(parameters["mean"], rel=0.002)
