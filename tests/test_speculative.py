"""Speculative decoding: the tokens of `generate`, its distribution, the counts, and bad values."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gptlib import Bigram, generate
from gptlib.generate import next_token_probabilities
from gptlib.speculative import accept_or_replace, generate_speculative, residual
from gptlib.variants.build import ATTENTIONS

P = torch.tensor([[0.6, 0.3, 0.1, 0.0]], dtype=torch.double)
Q = torch.tensor([[0.2, 0.5, 0.0, 0.3]], dtype=torch.double)


def bigram(vocab_size=11, seed=1):
    """Return a bigram with random logits."""
    model = Bigram(vocab_size).double()
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(model.table.weight, generator=generator)
    return model


def chi_square(counts, probabilities):
    """Return Pearson's statistic of observed counts, for outcomes that are possible."""
    expected = counts.sum() * probabilities
    assert torch.all(counts[expected == 0] == 0)
    possible = expected > 0
    return ((counts - expected)[possible] ** 2 / expected[possible]).sum().item()


# The same tokens ----------------------------------------------------------------------------------

@pytest.mark.parametrize("n_draft", [0, 1, 3, 20])
@pytest.mark.parametrize("T", [1, 4, 7, 8, 9, 20])
def test_greedy_tokens_are_those_of_generate_past_the_block_too(tiny, T, n_draft):
    model = tiny().double()
    prompt = torch.arange(T)[None] % 11
    expected = generate(model, prompt, 30, temperature=0)
    result = generate_speculative(model, bigram(), prompt, 30, n_draft, temperature=0)
    assert torch.equal(result.idx, expected)


@pytest.mark.parametrize("options", [
    *({"attention": attention, "token_shift": True} for attention in ATTENTIONS),
    {"position": "sinusoidal"}, {"position": "none"}, {"dropout": 0.5},
    {"block_size": 1}, {"block_size": 2}, {"block_size": 5},
], ids=str)
def test_greedy_tokens_are_those_of_generate_for_every_model(tiny, options):
    model = tiny(**options).double().train()
    prompt = torch.tensor([[3, 1, 4]])
    expected = generate(model, prompt, 25, temperature=0)
    result = generate_speculative(model, bigram(), prompt, 25, temperature=0)
    assert torch.equal(result.idx, expected)
    assert model.training


def test_a_gpt_can_be_the_draft_and_one_that_is_always_right_saves_four_calls_of_five(tiny):
    model = tiny(block_size=64).double()
    prompt = torch.tensor([[3]])
    result = generate_speculative(model, model, prompt, 60, n_draft=4, temperature=0)
    assert torch.equal(result.idx, generate(model, prompt, 60, temperature=0))
    assert result.n_calls == 60 // 5
    assert result.n_drafted == 4 * 12
    assert result.accepted.tolist() == 12 * [True, True, True, True, False]


def test_a_draft_may_have_a_shorter_block_than_the_model(tiny):
    model, draft = tiny().double(), tiny(block_size=2).double()
    prompt = torch.arange(7)[None]
    result = generate_speculative(model, draft, prompt, 20, temperature=0)
    assert torch.equal(result.idx, generate(model, prompt, 20, temperature=0))


# The same distribution ----------------------------------------------------------------------------

@pytest.mark.parametrize(("p", "q"), [(P, Q), (Q, P), (P, P), (P, torch.full_like(P, 0.25))])
def test_one_token_has_exactly_the_distribution_of_the_model(p, q):
    accepted = torch.where(q > 0, (p / q).clamp(max=1), 0)
    rejected = (q * (1 - accepted)).sum()
    assert_close(q * accepted + rejected * residual(p, q), p)


@pytest.mark.parametrize(("p", "q"), [(P, Q), (Q, P)])
def test_accepted_and_replaced_tokens_together_have_the_distribution_of_the_model(p, q):
    generator = np.random.default_rng(0)
    both = torch.cat([p, p])
    counts = torch.zeros(4, dtype=torch.double)
    for token in generator.choice(4, size=4000, p=q[0].numpy()):
        drafted = torch.tensor([token])
        n_accepted, new = accept_or_replace(both, [q], [drafted], generator)
        counts[drafted if n_accepted else new] += 1
    # Three outcomes are possible, or all but one of four: at most two degrees of freedom.
    assert chi_square(counts, p[0]) < 13.8


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6, "top_k": 2}, {"min_p": 0.3}], ids=str)
def test_texts_have_the_distribution_of_the_model(tiny, options):
    model, draft = tiny(vocab_size=3, n_embd=4, n_layer=1).double(), bigram(3)
    prompt = torch.tensor([[0]])
    probability = {}
    for text in itertools.product(range(3), repeat=3):
        with torch.no_grad():
            logits = model(torch.tensor([[0, *text]]))[0, :-1]
        p = next_token_probabilities(logits, **options)
        probability[text] = p[range(3), text].prod()
    counts = dict.fromkeys(probability, 0)
    for seed in range(1000):
        idx = generate_speculative(model, draft, prompt, 3, 2, seed=seed, **options).idx
        counts[tuple(idx[0, 1:].tolist())] += 1
    # 26 degrees of freedom: a correct function stays below this with probability 0.999.
    counts = torch.tensor(list(counts.values())).double()
    assert chi_square(counts, torch.stack(list(probability.values()))) < 54.1


def test_the_residual_of_equal_distributions_is_the_distribution_itself():
    assert_close(residual(P, P), P)


# What is counted ----------------------------------------------------------------------------------

@pytest.mark.parametrize("n_draft", [0, 1, 4])
def test_every_call_adds_one_token_and_the_accepted_ones(tiny, n_draft):
    prompt = torch.tensor([[5]])
    result = generate_speculative(tiny(), bigram(), prompt, 50, n_draft, seed=1)
    assert result.idx.shape == (1, 51)
    assert result.accepted.shape == (50,)
    assert result.n_calls + int(result.accepted.sum()) == 50
    assert int(result.accepted.sum()) <= result.n_drafted <= n_draft * result.n_calls


def test_without_a_draft_token_each_token_costs_one_call(tiny):
    result = generate_speculative(tiny(), bigram(), torch.tensor([[5]]), 20, n_draft=0, seed=1)
    assert (result.n_calls, result.n_drafted) == (20, 0)


def test_no_new_tokens_give_the_prompt_alone(tiny):
    result = generate_speculative(tiny(), bigram(), torch.tensor([[5]]), 0)
    assert result.idx.tolist() == [[5]]
    assert result.n_calls == 0


def test_the_same_seed_gives_the_same_text_and_changes_no_global_generator(tiny):
    model, draft, prompt = tiny(), bigram(), torch.tensor([[5]])
    state = torch.get_rng_state()
    first, same, other = (
        generate_speculative(model, draft, prompt, 30, seed=seed).idx for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


# Bad values ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "message"), [
    ({"max_new_tokens": -1}, "max_new_tokens=-1 should be at least 0"),
    ({"n_draft": -2}, "n_draft=-2 should be at least 0"),
    ({"seed": -1}, "seed=-1 should be at least 0"),
    ({"temperature": -1}, "temperature=-1.0 should be at least 0.0"),
    ({"min_p": 2}, "min_p=2.0 should be between 0 and 1"),
    ({"idx": torch.zeros(2, 3).long()}, r"idx has shape \(2, 3\), it should be one text"),
    ({"idx": torch.zeros(1, 0).long()}, r"idx has shape \(1, 0\), it should be one text"),
    ({"draft": bigram(12)}, "the draft has 12 tokens in its vocabulary, and the model has 11"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_bad_values_are_refused_in_one_sentence(tiny, options, message):
    values = {"draft": bigram(), "idx": torch.tensor([[1]]), "max_new_tokens": 5}
    with pytest.raises(ValueError, match=message):
        generate_speculative(tiny(), **values | options)


@pytest.mark.parametrize("options", [None, {"memory": "mean", "window": 4}],
                         ids=["bigram", "rolling"])
def test_a_model_without_a_cache_that_can_be_truncated_is_refused(tiny, options):
    model = bigram() if options is None else tiny(**options)
    with pytest.raises(ValueError, match="has no key-value cache that can be truncated"):
        generate_speculative(model, bigram(), torch.tensor([[1]]), 5)
