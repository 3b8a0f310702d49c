"""Sampling: the distribution, the draw, the key-value cache, seeds, and the text that is shown."""

import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import Bigram, CharTokenizer, generate, generate_text, stream_text
from gptlib.generate import generate_tokens, next_token_probabilities, pick
from gptlib.model import POSITIONS
from gptlib.variants.build import ATTENTIONS

# These probabilities are exact in floating point.
PROBABILITIES = torch.tensor([0.125, 0.5, 0.125, 0.25])
LOGITS = PROBABILITIES.log()
TOKENIZER = CharTokenizer("abcdefghijk")
# Shorter than the block of 8 tokens, as long, and longer.
PROMPTS_OF_DIFFERENT_LENGTHS = [torch.arange(n) % 11 for n in (3, 1, 8, 20, 4, 9)]
random_logits = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12).map(torch.tensor)


class CertainModel(nn.Module):
    """A model that gives probability 1 to `tokens`, one after the other, after one prompt token."""

    def __init__(self, tokens, vocab_size):
        super().__init__()
        self.tokens = nn.Parameter(torch.tensor(tokens), requires_grad=False)
        self.vocab_size = vocab_size

    def forward(self, idx):
        logits = F.one_hot(self.tokens[:idx.shape[1]], self.vocab_size).float().log()
        return F.pad(logits, (0, 0, idx.shape[1] - len(logits), 0))[None]


class BytesTokenizer:
    """A tokenizer with the given byte strings as tokens. It encodes every prompt as token 0."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.vocab_size = len(tokens)

    def encode(self, text):
        return [0]

    def token_bytes(self, token):
        return self.tokens[token]


SINGLE_BYTES = BytesTokenizer([bytes([i]) for i in range(256)])


def stream(tokens, **options):
    """Return the pieces of text from a model that is certain of these tokens (byte strings)."""
    model = CertainModel(list(range(len(tokens))), len(tokens))
    return list(stream_text(model, BytesTokenizer(tokens), "", len(tokens), **options))


def generate_by_hand(model, prompt, n_tokens, seed=0, **sampling):
    """Continue one prompt without a cache: the model reads the whole window for each token.

    A window that is too long loses its older half, as often as necessary.
    """
    model.eval()
    block_size = getattr(model, "block_size", None)
    tokens, generator = prompt.tolist(), np.random.default_rng(seed)
    for _ in range(n_tokens):
        window = tokens
        while block_size and len(window) > block_size:
            window = window[max(1, block_size // 2):]
        logits = model(torch.tensor([window]))[0, -1]
        probabilities = next_token_probabilities(logits, **sampling)
        tokens.append(pick_by_hand(probabilities, generator.random()))
    return tokens


def pick_by_hand(probabilities, number):
    """Return the first token up to which the probabilities sum to more than `number`."""
    total = 0.0
    for token, probability in enumerate(probabilities.tolist()):
        total += probability
        if total > number:
            return token


def assert_rows_are_as_by_hand(model, prompts, n_tokens, seed=0, **sampling):
    """With and without a cache, each row equals the continuation of its prompt alone, by hand."""
    expected = [
        generate_by_hand(model, prompt, n_tokens, seed=seed + row, **sampling)
        for row, prompt in enumerate(prompts)
    ]
    for cache in (True, False):
        rows = generate(model.train(), prompts, n_tokens, cache=cache, seed=seed, **sampling)
        assert [row.tolist() for row in rows] == expected, f"cache={cache}"


# The distribution ---------------------------------------------------------------------------------

def test_without_options_the_distribution_is_the_softmax():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert_close(next_token_probabilities(logits), logits.softmax(-1))
    assert_close(next_token_probabilities(logits, temperature=0.5), (2 * logits).softmax(-1))
    assert_close(next_token_probabilities(logits, temperature=3.0), (logits / 3).softmax(-1))


@given(random_logits, st.floats(0, 100), st.none() | st.integers(1, 20),
       st.none() | st.floats(0, 1), st.none() | st.floats(0, 1))
def test_the_result_is_a_distribution_that_keeps_the_most_likely_token(
    logits, temperature, top_k, top_p, min_p
):
    probabilities = next_token_probabilities(logits, temperature, top_k, top_p, min_p)
    assert torch.all(probabilities >= 0)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert probabilities[logits.argmax()] == probabilities.max() > 0
    assert top_k is None or (probabilities > 0).sum() <= top_k


@given(random_logits, st.floats(0, 1))
def test_top_p_keeps_the_fewest_most_likely_tokens_that_reach_p(logits, p):
    probabilities = logits.double().softmax(-1)
    kept = next_token_probabilities(logits.double(), top_p=p) > 0
    n_kept = int(kept.sum())
    ordered = probabilities.sort(descending=True).values
    cumulative = ordered.cumsum(-1)
    # Where rounding decides, both results are correct.
    assume(torch.all((cumulative - p).abs() > 1e-9))
    assert torch.equal(probabilities[kept].sort(descending=True).values, ordered[:n_kept])
    assert n_kept == 1 or cumulative[n_kept - 2] < p
    assert cumulative[n_kept - 1] >= p or torch.all(ordered[n_kept:] == 0)


@pytest.mark.parametrize(("top_p", "kept"), [
    (0.4, [False, True, False, False]),
    (0.6, [False, True, False, True]),
    (0.75, [False, True, False, True]),
    (0.8, [True, True, False, True]),
    (0.9, [True, True, True, True]),
])
def test_top_p_keeps_the_token_that_crosses_p(top_p, kept):
    assert (next_token_probabilities(LOGITS, top_p=top_p) > 0).tolist() == kept


@given(random_logits, st.floats(0, 1))
def test_min_p_keeps_the_tokens_that_reach_this_share_of_the_largest_probability(logits, min_p):
    probabilities = logits.double().softmax(-1)
    smallest = min_p * probabilities.max()
    # Where rounding decides, both results are correct.
    assume(torch.all((probabilities - smallest).abs() > 1e-12 * smallest) or min_p == 1)
    kept = next_token_probabilities(logits.double(), min_p=min_p) > 0
    assert torch.equal(kept, (probabilities >= smallest) & (probabilities > 0))


@pytest.mark.parametrize(("min_p", "kept"), [
    (0.0, [True, True, True, True]),
    (0.25, [True, True, True, True]),
    (0.3, [False, True, False, True]),
    (0.5, [False, True, False, True]),
    (0.6, [False, True, False, False]),
    (1.0, [False, True, False, False]),
])
def test_min_p_compares_with_the_largest_probability(min_p, kept):
    probabilities = next_token_probabilities(LOGITS, min_p=min_p)
    assert (probabilities > 0).tolist() == kept


def test_min_p_finds_the_largest_probability_of_each_row():
    logits = torch.stack([LOGITS, torch.zeros(4)])
    probabilities = next_token_probabilities(logits, min_p=0.6)
    assert probabilities.tolist() == [[0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]]


def test_min_p_is_applied_after_temperature():
    # At temperature 0.5 the probabilities are in the ratio 1 : 16 : 1 : 4.
    kept = next_token_probabilities(LOGITS, temperature=0.5, min_p=0.2) > 0
    assert kept.tolist() == [False, True, False, True]
    assert next_token_probabilities(LOGITS, temperature=0, min_p=0.2).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.8}], ids=str)
def test_min_p_works_together_with_top_k_and_top_p(options):
    expected = torch.tensor([0, 2 / 3, 0, 1 / 3])
    assert_close(next_token_probabilities(LOGITS, **options, min_p=0.5), expected)


@pytest.mark.parametrize("options", [{"top_p": 0.6}, {"top_k": 2}, {"min_p": 0.5}], ids=str)
def test_the_kept_tokens_share_the_probability_in_proportion(options):
    expected = torch.tensor([0, 2 / 3, 0, 1 / 3])
    assert_close(next_token_probabilities(LOGITS, **options), expected)


@pytest.mark.parametrize("options", [
    {"top_k": 2, "top_p": 0.66}, {"temperature": 0.1, "top_p": 0.9},
], ids=str)
def test_top_p_is_applied_after_top_k_and_temperature(options):
    expected = torch.tensor([0.0, 1, 0, 0])
    assert_close(next_token_probabilities(LOGITS, **options), expected)


def test_top_p_0_is_greedy_and_top_p_1_keeps_every_token():
    logits = torch.tensor([0.0, -20.0, -20.0, 3.0])
    assert next_token_probabilities(logits, top_p=0.0).tolist() == [0, 0, 0, 1]
    assert torch.equal(next_token_probabilities(logits, top_p=1.0),
                       next_token_probabilities(logits))
    assert torch.all(next_token_probabilities(logits, top_p=1.0) > 0)


def test_top_k_above_the_size_of_the_vocabulary_keeps_every_token():
    assert torch.equal(next_token_probabilities(LOGITS, top_k=5), next_token_probabilities(LOGITS))


def test_top_k_keeps_exactly_k_tokens_when_all_are_equally_likely():
    assert next_token_probabilities(torch.zeros(4), top_k=2).tolist() == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-45, 1e-300])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_very_small_temperature_is_greedy_and_finite(temperature, scale):
    logits = scale * torch.tensor([1.0, 3.0, -2.0])
    assert next_token_probabilities(logits, temperature).tolist() == [0, 1, 0]


def test_an_infinite_temperature_gives_the_uniform_distribution():
    assert_close(next_token_probabilities(LOGITS, float("inf")), torch.full((4,), 0.25))


@pytest.mark.parametrize("options", [
    {}, {"temperature": 5.0}, {"top_p": 0.5}, {"top_p": 1.0}, {"top_k": 1}, {"top_k": 9},
    {"min_p": 0.5},
], ids=str)
def test_a_token_of_probability_1_keeps_it(options):
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    assert next_token_probabilities(logits, **options).tolist() == [0, 1, 0]


def test_the_logits_are_not_changed():
    logits = torch.tensor([1.0, 3.0, 2.0])
    next_token_probabilities(logits, 0.5, top_k=1, top_p=0.5, min_p=0.5)
    assert logits.tolist() == [1, 3, 2]


@pytest.mark.parametrize(("options", "message"), [
    ({"temperature": -1}, "temperature=-1.0 should be at least 0"),
    ({"temperature": float("nan")}, "temperature=nan should be a finite number"),
    ({"top_k": 0}, "top_k=0 should be at least 1"),
    ({"top_k": -3}, "top_k=-3 should be at least 1"),
    ({"top_p": -0.1}, "top_p=-0.1 should be between 0 and 1"),
    ({"top_p": 1.5}, "top_p=1.5 should be between 0 and 1"),
    ({"top_p": float("nan")}, "top_p=nan should be a finite number, or None"),
    ({"min_p": -0.1}, "min_p=-0.1 should be between 0 and 1"),
    ({"min_p": 1.5}, "min_p=1.5 should be between 0 and 1"),
    ({"min_p": float("nan")}, "min_p=nan should be a finite number, or None"),
], ids=str)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        next_token_probabilities(LOGITS, **options)


# The draw -----------------------------------------------------------------------------------------

def test_tokens_are_drawn_with_their_probabilities_independent_of_the_token_before():
    model = Bigram(4)
    model.table.weight.data = LOGITS.expand(4, 4).clone()
    tokens = generate(model, torch.zeros(250, 1, dtype=torch.long), 16, seed=0)[:, 1:]
    # 2000 pairs of neighbours, as numbers from 0 to 15.
    pairs = tokens.reshape(-1, 2) @ torch.tensor([4, 1])
    expected = 2000 * torch.outer(PROBABILITIES, PROBABILITIES).flatten()
    chi_square = ((pairs.bincount(minlength=16) - expected) ** 2 / expected).sum()
    # With 15 degrees of freedom, chance alone exceeds this value once in 1000 times.
    assert chi_square < 37.7


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12),
       st.floats(0, 1, exclude_max=True))
def test_the_picked_token_is_the_first_whose_cumulative_probability_exceeds_the_number(
    probabilities, number
):
    assume(sum(probabilities) > 0)
    probabilities = torch.tensor(probabilities).double()
    token = pick(probabilities[None], [number]).item()
    total = probabilities.sum().item()
    before = probabilities[:token].sum().item() / total
    with_token = probabilities[:token + 1].sum().item() / total
    assert probabilities[token] > 0
    assert before - 1e-12 <= number <= with_token + 1e-12


@pytest.mark.parametrize("probabilities", [
    [0.0, 0.1, 0.0, 0.2, 0.7, 0.0, 0.0],
    [0.0, 1 / 3, 1 / 3, 1 / 3, 0.0],
    [0.0, 1.0, 0.0],
    [0.0, 1 - 2 ** -24, 0.0],
    [0.0, 1 + 2 ** -23, 0.0],
], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_token_of_probability_0_is_never_picked(probabilities, dtype):
    numbers = [0.0, 5e-324, 2.0 ** -53, 0.1, 0.3, 0.5, 1 - 2.0 ** -24, 1 - 2.0 ** -53]
    probabilities = torch.tensor(probabilities, dtype=dtype).expand(len(numbers), -1)
    tokens = pick(probabilities, numbers)
    assert torch.all(probabilities.gather(1, tokens[:, None]) > 0)


def test_probabilities_in_bfloat16_are_summed_with_more_digits():
    # Summed in bfloat16, these probabilities would never exceed 0.0625.
    uniform = torch.full((3, 4096), 2.0 ** -12, dtype=torch.bfloat16)
    assert pick(uniform, [0.25, 0.5, 0.75]).tolist() == [1024, 2048, 3072]


def test_each_row_is_picked_with_its_own_number():
    numbers = [0.0, 0.124, 0.125, 0.7, 0.75]
    assert pick(PROBABILITIES.expand(5, 4), numbers).tolist() == [0, 0, 1, 2, 3]


# The cache ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    *({"position": position} for position in POSITIONS),
    *({"attention": attention, "token_shift": token_shift}
      for attention in ATTENTIONS for token_shift in (False, True)),
    {"tie_weights": True},
    {"bias": True},
    {"init": "gpt2"},
    {"dropout": 0.5},
    {"n_layer": 1, "n_head": 1},
], ids=str)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"seed": 5, "temperature": 0.7}],
                         ids=["greedy", "seeded"])
def test_each_row_of_a_batch_equals_its_prompt_alone_without_a_cache(tiny, options, sampling):
    model = tiny(**options).double()
    assert_rows_are_as_by_hand(model, PROMPTS_OF_DIFFERENT_LENGTHS, 20, **sampling)


@pytest.mark.parametrize("block_size", [1, 2, 3, 8])
def test_prompts_of_any_length_up_to_three_blocks_are_continued_as_by_hand(tiny, block_size):
    model = tiny(block_size=block_size).double()
    for T in range(1, 3 * block_size + 2):
        prompts = torch.arange(2 * T).view(2, T) % 11
        assert_rows_are_as_by_hand(model, prompts, block_size + 2, seed=3)


@pytest.mark.parametrize("block_size", [1, 2, 5])
def test_each_row_drops_tokens_when_it_is_full_itself(tiny, block_size):
    prompts = [torch.arange(n) for n in (1, 4, 2, 3)]
    assert_rows_are_as_by_hand(tiny(block_size=block_size).double(), prompts, 18)


@pytest.mark.parametrize("options", [
    {"memory": "mean", "window": 4}, {"memory": "tokens", "window": 4, "n_memory": 2},
], ids=str)
@pytest.mark.parametrize("prompts", [torch.arange(10).view(2, 5), PROMPTS_OF_DIFFERENT_LENGTHS],
                         ids=["one length", "different lengths"])
def test_a_rolling_model_continues_a_text_of_any_length_as_by_hand(tiny, options, prompts):
    assert_rows_are_as_by_hand(tiny(**options).double(), prompts, 20)


class CountingModel(nn.Module):
    """A model that counts the tokens that it reads."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.block_size = model.block_size
        self.new_cache = model.new_cache
        self.n_tokens = 0

    def forward(self, idx, cache=None):
        self.n_tokens += idx.numel()
        return self.model(idx, cache)


def test_with_a_cache_each_token_is_read_once_and_half_a_block_again_when_it_is_full(tiny):
    prompt = torch.tensor([[1]])
    model = CountingModel(tiny())
    generate(model, prompt, 8, seed=0)
    assert model.n_tokens == 8
    # The block is full ten times. Each time the younger half is read again.
    model = CountingModel(tiny())
    generate(model, prompt, 48, seed=0)
    assert model.n_tokens == 48 + 10 * 4


def test_only_the_row_that_drops_tokens_is_read_again(tiny):
    model = CountingModel(tiny())
    generate(model, [torch.arange(8), torch.arange(3)], 5, seed=0)
    prompts, steps, row_that_was_full = 2 * 8, 4 * 2, 5
    assert model.n_tokens == prompts + steps + row_that_was_full


# Other models -------------------------------------------------------------------------------------

class RunningSum(nn.Module):
    """A recurrent model, certain of the sum of all tokens so far. Its cache is that sum."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, idx, cache=None):
        sums = (idx + 1).cumsum(1) + (0 if cache is None else cache.sum)
        if cache is not None:
            cache.sum = sums[:, -1:]
        return self.scale * F.one_hot(sums % 11, 11)

    def new_cache(self, batch_size):
        return SimpleNamespace(sum=torch.zeros(batch_size, 1, dtype=torch.long))


class ModelWithoutCache(nn.Module):
    """A model as a student may write it: a block size, and logits for tokens."""

    def __init__(self, gpt):
        super().__init__()
        self.gpt = gpt
        self.block_size = gpt.block_size

    def forward(self, idx):
        return self.gpt(idx)


@pytest.mark.parametrize("make", [
    lambda tiny: Bigram.from_counts(torch.eye(11).roll(1, 0) * 20),
    lambda tiny: ModelWithoutCache(tiny().double()),
    lambda tiny: RunningSum(),
], ids=["bigram", "without cache", "own cache"])
@pytest.mark.parametrize("prompts", [torch.arange(10).view(2, 5), PROMPTS_OF_DIFFERENT_LENGTHS],
                         ids=["one length", "different lengths"])
def test_any_model_from_tokens_to_logits_can_be_sampled(tiny, make, prompts):
    assert_rows_are_as_by_hand(make(tiny), prompts, 20)


# Generators ---------------------------------------------------------------------------------------

def test_a_generator_continues_correctly_after_other_uses_of_the_model(tiny):
    model, idx = tiny(dropout=0.5).double(), torch.tensor([[1, 2], [3, 4]])
    expected = generate(model, idx, 20, seed=0)
    tokens = []
    for token in generate_tokens(model, idx, 20, seed=0):
        tokens.append(token)
        model.train(len(tokens) % 2 == 0)
        model(torch.zeros(3, 5, dtype=torch.long))
        generate(model, torch.tensor([[7]]), 3, seed=1)
    assert torch.equal(torch.cat([idx, torch.stack(tokens, 1)], 1), expected)


def test_a_yielded_token_may_be_changed_without_effect_on_the_next(tiny):
    model, idx = tiny().double(), torch.tensor([[1]])
    expected = generate(model, idx, 12, seed=0)[0, 1:].tolist()
    tokens = []
    for token in generate_tokens(model, idx, 12, seed=0):
        tokens.append(token.item())
        token.fill_(0)
    assert tokens == expected


def test_memory_does_not_grow_over_ten_thousand_tokens(tiny):
    model = tiny(n_layer=1, n_head=1, n_embd=4).eval()
    tokens = generate_tokens(model, torch.tensor([[1]]), 10_000, seed=0)
    for _ in range(1000):
        next(tokens)
    early = reachable_bytes(tokens)
    for _ in range(9000):
        next(tokens)
    cache_bytes = 3 * 4 * 4 * 4
    assert early > cache_bytes
    # One number of 8 bytes for each token would be 72,000 bytes.
    assert reachable_bytes(tokens) - early < 20_000


def reachable_bytes(generator):
    """Return the size of everything that a generator refers to: its model, cache and numbers."""
    ignored = (type, type(sys), type(reachable_bytes))
    found, waiting = {}, list(generator.gi_frame.f_locals.values())
    while waiting:
        thing = waiting.pop()
        if id(thing) in found or isinstance(thing, ignored):
            continue
        found[id(thing)] = thing
        if hasattr(thing, "__dict__"):
            waiting += thing.__dict__.values()
        else:
            waiting += gc.get_referents(thing)
    n_bytes = sum(map(sys.getsizeof, found.values()))
    for thing in found.values():
        if isinstance(thing, torch.Tensor):
            n_bytes += thing.untyped_storage().nbytes()
    return n_bytes


# Options of generate ------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "same_options"), [
    ({"top_k": 11}, {}),
    ({"top_k": 99}, {}),
    ({"top_p": 1.0}, {}),
    ({"top_p": 0.0}, {"temperature": 0}),
    ({"top_k": 1}, {"temperature": 0}),
    ({"min_p": 0.0}, {}),
    ({"min_p": 1.0}, {"temperature": 0}),
    ({"temperature": 1e-30}, {"temperature": 0}),
], ids=str)
def test_options_with_the_same_meaning_give_the_same_tokens(tiny, options, same_options):
    model, idx = tiny(), torch.tensor([[1], [2]])
    expected = generate(model, idx, 20, seed=0, **same_options)
    assert torch.equal(generate(model, idx, 20, seed=0, **options), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_a_prompt_may_have_any_integer_dtype(tiny, dtype):
    prompt = torch.tensor([[1, 2, 3]])
    expected = generate(tiny(), prompt, 12, seed=0)
    assert torch.equal(generate(tiny(), prompt.to(dtype), 12, seed=0), expected)


def sample_with_seed(model, n_tokens, temperature, seed):
    idx = torch.zeros(1, 1, dtype=torch.long)
    return generate(model, idx, n_tokens, temperature=temperature, seed=seed)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_gives_others(tiny):
    tokens = sample_with_seed(tiny(), 40, temperature=3.0, seed=1)
    torch.manual_seed(99)
    assert torch.equal(sample_with_seed(tiny(), 40, temperature=3.0, seed=1), tokens)
    assert not torch.equal(sample_with_seed(tiny(), 40, temperature=3.0, seed=2), tokens)


def test_without_a_seed_each_sample_is_different(tiny):
    # The fixture `tiny` sets the seed of PyTorch, which has no effect.
    first = sample_with_seed(tiny(), 100, temperature=100.0, seed=None)
    second = sample_with_seed(tiny(), 100, temperature=100.0, seed=None)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("seed", [0, None])
def test_sampling_does_not_change_the_global_random_generator(tiny, seed):
    model, state = tiny(dropout=0.5), torch.get_rng_state()
    sample_with_seed(model, 3, temperature=1.0, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_is_without_dropout_and_restores_the_mode_after_each_token(tiny, training):
    model, idx = tiny(dropout=0.5).train(training), torch.zeros(1, 1, dtype=torch.long)
    tokens = []
    for token in generate_tokens(model, idx, 8, temperature=0):
        assert all(module.training is training for module in model.modules())
        tokens.append(token)
    expected = generate(tiny(dropout=0.0), idx, 8, temperature=0)[:, 1:]
    assert torch.equal(torch.stack(tokens, 1), expected)


def test_the_mode_is_restored_when_the_model_fails(tiny):
    model = tiny().train()
    with pytest.raises(ValueError, match="the model knows 0 … 10"):
        generate(model, torch.tensor([[11]]), 1)
    assert model.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(tiny, value):
    model = tiny()
    model.head.weight.data[3] = value
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        generate(model, torch.tensor([[1]]), 5, seed=0)


def test_no_new_tokens_give_the_prompt_alone(tiny):
    idx = torch.tensor([[1, 2, 3]])
    assert torch.equal(generate(tiny(), idx, 0), idx)
    assert generate_text(tiny(), TOKENIZER, "abc", 0) == ""


def test_sampling_computes_no_gradients(tiny):
    assert not next(generate_tokens(tiny(), torch.tensor([[1]]), 1)).requires_grad


@pytest.mark.parametrize("prompts", [
    torch.zeros(2, 0, dtype=torch.long),
    [torch.tensor([1]), torch.tensor([], dtype=torch.long)],
    [],
], ids=["empty rows", "one empty row", "no rows"])
def test_an_empty_prompt_is_refused(tiny, prompts):
    with pytest.raises(ValueError, match="the prompt is empty: give at least one token"):
        generate(tiny(), prompts, 1)


def test_an_empty_text_as_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="the prompt is empty: give at least one token"):
        generate_text(tiny(), TOKENIZER, "")


@pytest.mark.parametrize(("options", "message"), [
    ({"max_new_tokens": -1}, "max_new_tokens=-1 should be at least 0"),
    ({"max_new_tokens": 1, "seed": -1}, "seed=-1 should be at least 0, or None"),
], ids=["max_new_tokens", "seed"])
def test_a_negative_length_and_a_negative_seed_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny(), torch.tensor([[1]]), **options)


# Text ---------------------------------------------------------------------------------------------

def test_an_unknown_character_in_a_prompt_is_named(tiny):
    with pytest.raises(ValueError, match="character 'é' .* at position 1 is not among"):
        generate_text(tiny(), TOKENIZER, "aé")


def test_an_empty_stop_string_is_refused(tiny):
    with pytest.raises(ValueError, match="a stop string is empty"):
        generate_text(tiny(), TOKENIZER, "a", stop=["b", ""])


def test_the_pieces_of_a_stream_join_to_the_text_of_the_tokens(tiny):
    idx = torch.tensor([TOKENIZER.encode("abc")])
    text = TOKENIZER.decode(generate(tiny(), idx, 30, seed=5)[0])[3:]
    assert len(text) == 30
    assert "".join(stream_text(tiny(), TOKENIZER, "abc", 30, seed=5)) == text
    assert generate_text(tiny(), TOKENIZER, "abc", 30, seed=5) == text


def without_empty(pieces):
    return [piece for piece in pieces if piece]


def test_without_a_stop_string_each_character_is_shown_at_once():
    assert without_empty(stream([b"a", b"b", b"c"])) == ["a", "b", "c"]


@given(st.text(min_size=1))
def test_a_part_of_a_character_is_never_shown(text):
    tokens = list(text.encode("utf-8"))
    pieces = list(stream_text(CertainModel(tokens, 256), SINGLE_BYTES, "", len(tokens)))
    assert "".join(pieces) == text
    assert all(len(piece) <= 1 for piece in pieces)


def test_bytes_that_are_not_utf_8_are_shown_as_the_replacement_character():
    assert "".join(stream([b"a", b"\xff", b"b"])) == "a\ufffdb"
    assert stream(["é".encode()[:1]]) == ["\ufffd"]


# Stop strings -------------------------------------------------------------------------------------

@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=8),
       st.text("ab", min_size=1, max_size=5))
def test_the_text_ends_before_a_stop_string_however_it_is_divided_into_tokens(tokens, stop):
    text = "".join(stream([token.encode() for token in tokens], stop=stop))
    assert text == "".join(tokens).partition(stop)[0]


@given(st.text("ab¡∞", min_size=1, max_size=9),
       st.lists(st.text("ab¡∞", min_size=1, max_size=3), max_size=3))
def test_of_several_stop_strings_the_first_that_is_complete_ends_the_text(text, stops):
    tokens = list(text.encode("utf-8"))
    expected = text
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            expected = text[:end - max(map(len, complete))]
            break
    model = CertainModel(tokens, 256)
    assert generate_text(model, SINGLE_BYTES, "", len(tokens), stop=stops) == expected


def test_of_two_stop_strings_in_one_token_the_earlier_ends_the_text():
    assert "".join(stream([b"aXbYc"], stop=["Y", "X"])) == "a"


@pytest.mark.parametrize(("stops", "text"), [
    # One stop string is the beginning of the other.
    (["ENDING", "END"], "-"),
    # Both are complete at the same character. The text ends before the longer one.
    (["DIN", "ENDIN"], "-"),
    # "EN" waits, because it may be the beginning of "ENDINGS". It is shown when "DI" is complete.
    (["ENDINGS", "DI"], "-EN"),
], ids=["beginning", "end", "inside"])
@pytest.mark.parametrize("token_length", [1, 2, 7])
def test_of_stop_strings_that_contain_each_other_the_first_that_is_complete_counts(
    stops, text, token_length
):
    tokens = [b"-ENDING"[i:i + token_length] for i in range(0, 7, token_length)]
    assert "".join(stream(tokens, stop=stops)) == text


@pytest.mark.parametrize(("stop", "text"), [("bc", "a"), ("cd", "abc"), (["cd", "bc"], "a")],
                         ids=str)
def test_the_last_token_completes_a_stop_string_or_shows_what_waited_for_one(stop, text):
    assert "".join(stream([b"a", b"b", b"c"], stop=stop)) == text


def test_the_beginning_of_a_stop_string_waits_until_it_is_decided():
    pieces = stream([b"a", b"E", b"N", b"o", b"E"], stop="END")
    assert without_empty(pieces) == ["a", "ENo", "E"]
    assert "".join(stream([b"aE", b"NE", b"NDb"], stop="END")) == "aEN"


def test_no_more_tokens_are_generated_after_a_stop_string():
    assert stream([b"a", b"."] + [b"b"] * 50, stop=".") == ["a", ""]
