import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gptlib import (
    GPT,
    Bigram,
    CharTokenizer,
    GPTConfig,
    LowercaseTokenizer,
    TrainConfig,
    count_bigrams,
    train,
)
from gptlib.attention import CausalSelfAttention
from gptlib.block import Block
from gptlib.corpora.floor import below_floor, gap_by_kind, nats_of_plays, nats_per_token
from gptlib.corpora.theatre import END, KINDS, LEVELS, Ungrammatical, generate, score
from gptlib.model import causality_gap
from gptlib.variants.build import make_model
from gptlib.variants.config import MODERN_PARTS, VariantConfig

TEXT = generate(200_000, level=1)
TOKENIZER = CharTokenizer.from_text(generate(50_000, level=3))
V = TOKENIZER.vocab_size
IDS = torch.tensor(TOKENIZER.encode(TEXT))

# Plays on which no model of this file is trained, and their floor.
UNSEEN = generate(10_000, level=1, seed=1)
SOURCE_NATS = score(UNSEEN, level=1).nats


class Uniform(nn.Module):
    """A model that gives every token the same probability."""

    def __init__(self, vocab_size):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, idx):
        return self.logits.expand(*idx.shape, -1)


class ContextCounter(Uniform):
    """A model whose loss for token 0 is the number of tokens that it has read, in nats."""

    def __init__(self, block_size):
        super().__init__(2)
        self.block_size = block_size

    def forward(self, idx):
        assert idx.shape[1] <= self.block_size
        n_read = torch.arange(1.0, idx.shape[1] + 1)
        logp = torch.stack([-n_read, torch.log(-torch.expm1(-n_read))], dim=-1)     # (T, 2)
        return logp.expand(*idx.shape, 2)


class WordTokenizer:
    """One token for each match of `pattern`. A new word gets the next free id."""

    vocab_size = 1000

    def __init__(self, pattern="[^ ]+| "):
        self.pattern = pattern
        self.words = []

    def encode(self, text):
        pieces = re.findall(self.pattern, text)
        self.words += [piece for piece in dict.fromkeys(pieces) if piece not in self.words]
        return [self.words.index(piece) for piece in pieces]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)

    def token_bytes(self, token):
        return self.words[token].encode()


# gap_by_kind


@pytest.mark.parametrize("level", LEVELS)
def test_the_gap_of_a_uniform_model_is_ln_v_per_character_minus_the_floor(level):
    text = generate(5000, level, seed=1)
    truth = score(text, level)
    gap = gap_by_kind(Uniform(V), TOKENIZER, text, level)
    for i, kind in enumerate(KINDS):
        is_kind = truth.kinds == i
        nats = is_kind.sum() * math.log(V) + truth.logp[is_kind].sum()
        assert gap.get(kind, 0.0) == pytest.approx(nats / len(truth.starts), abs=1e-3)
        assert (kind in gap) == is_kind.any()


def test_the_gap_of_a_bigram_is_the_sum_over_its_pairs():
    bigram = Bigram.from_counts(count_bigrams(IDS, V))
    # The model reads each play after the line end of the play before it.
    ids = torch.tensor(TOKENIZER.encode("\n" + UNSEEN))
    nats = F.cross_entropy(bigram(ids[:-1]), ids[1:], reduction="sum").item()
    gap = gap_by_kind(bigram, TOKENIZER, UNSEEN, level=1)
    total = sum(gap.values()) * UNSEEN.count(END)
    assert total == pytest.approx(nats - SOURCE_NATS, rel=1e-5)


def test_nats_of_plays_has_an_entry_for_each_token_of_any_tokenizer():
    tokenizer = WordTokenizer()
    (sizes, nats), *others = nats_of_plays(Uniform(1000), tokenizer, UNSEEN)
    first_play = UNSEEN[:UNSEEN.index(END) + 2]
    assert sizes == [len(tokenizer.decode([i])) for i in tokenizer.encode(first_play)]
    assert sum(sizes) == len(first_play)
    assert nats == pytest.approx(math.log(1000), abs=1e-4)
    assert len(others) == UNSEEN.count(END) - 1


def test_the_whole_gap_is_the_models_nats_minus_the_floor_for_any_tokenizer():
    tokenizer = WordTokenizer()
    n_tokens = sum(len(sizes) for sizes, _ in nats_of_plays(Uniform(1000), tokenizer, UNSEEN))
    gap = gap_by_kind(Uniform(1000), tokenizer, UNSEEN, level=1)
    total = sum(gap.values()) * UNSEEN.count(END)
    assert total == pytest.approx(n_tokens * math.log(1000) - SOURCE_NATS, rel=1e-5)


PLAY = (
    "It is noon in the garden.\n  Fox: (he nods)\n  Owl: The dog by the child sings.\n[Exeunt.]\n\n"
)


def check_kinds_of_tokens(tokenizer, tokens):
    """Assert that each token of PLAY belongs to the expected kind. `tokens`: {kind: tokens}."""
    assert sorted(sum(tokens.values(), [])) == sorted(re.findall(tokenizer.pattern, PLAY))
    expected = {kind: len(tokens[kind]) * math.log(1000) for kind in tokens}
    # Every character that costs the author something is part of a "choice" token.
    expected["choice"] -= score(PLAY, level=1).nats
    gap = gap_by_kind(Uniform(1000), tokenizer, PLAY, level=1)
    assert gap == pytest.approx(expected, abs=1e-3)


def test_a_token_belongs_to_the_kind_of_its_first_character():
    check_kinds_of_tokens(WordTokenizer(), {
        "choice": [
            "noon", "garden.\n", "Fox:", "(he", "nods)\n", "Owl:", "The", "dog", " ", "by",
            "child", " ", "sings.\n[Exeunt.]\n\n",
        ],
        # The space of the line that begins with "The ".
        "spelling": [" "],
        "form": ["It", "is", "in", "the", "the", *14 * [" "]],
        "agreement": [],
        "bracket": [],
    })


def test_certain_characters_at_the_beginning_of_a_token_do_not_decide_its_kind():
    check_kinds_of_tokens(WordTokenizer(" *[^ ]+"), {
        # The space before "noon" is form. The "n" is a choice, and so the token is one.
        "choice": [
            " noon", " garden.\n", "  Fox:", " (he", " nods)\n", "  Owl:", " The", " dog", " by",
            " child", " sings.\n[Exeunt.]\n\n",
        ],
        "spelling": [],
        "form": ["It", " is", " in", " the", " the"],
        "agreement": [],
        "bracket": [],
    })


def test_gap_by_kind_keeps_the_models_mode_and_switches_dropout_off(tiny):
    model = tiny(vocab_size=V, block_size=32, dropout=0.5).train()
    first = gap_by_kind(model, TOKENIZER, UNSEEN, level=1)
    second = gap_by_kind(model, TOKENIZER, UNSEEN, level=1)
    assert first == second and model.training


def test_a_text_with_an_unfinished_play_is_an_error():
    with pytest.raises(ValueError, match="the text ends within a play: take whole plays only"):
        gap_by_kind(Uniform(V), TOKENIZER, UNSEEN[:-1], level=1)


def test_a_text_of_another_level_is_an_error():
    with pytest.raises(Ungrammatical):
        gap_by_kind(Uniform(V), TOKENIZER, UNSEEN, level=3)


def test_a_tokenizer_that_loses_characters_is_an_error():
    message = "the tokenizer turns 'It is .* into 'it is .* take a tokenizer that keeps every"
    with pytest.raises(ValueError, match=message):
        gap_by_kind(Uniform(88), LowercaseTokenizer(), UNSEEN, level=1)


# nats_per_token


@pytest.mark.parametrize("length", [2, 8, 9, 10, 40])
def test_a_token_is_predicted_from_the_whole_sequence_or_from_at_least_half_a_block(length):
    sequences = [torch.zeros(n, dtype=torch.long) for n in (length, 13)]
    contexts = nats_per_token(ContextCounter(block_size=8), sequences, given=1)
    for n, n_read in zip((length, 13), contexts, strict=True):
        assert n_read.shape == (n - 1,)
        # As long as the sequence fits into a block, all earlier tokens are read.
        assert n_read[:8] == pytest.approx(np.arange(1, n)[:8], abs=1e-4)
        assert (n_read[8:] > 4 - 1e-4).all() and (n_read[8:] < 8 + 1e-4).all()


def test_given_tokens_are_read_and_not_predicted():
    ids = torch.zeros(6, dtype=torch.long)
    (n_read,) = nats_per_token(ContextCounter(block_size=8), [ids], given=2)
    assert n_read == pytest.approx([2, 3, 4, 5], abs=1e-4)


def test_a_batch_of_plays_gives_the_same_nats_as_each_play_alone(tiny):
    model = tiny(vocab_size=V, block_size=32)
    text = generate(60_000, level=1, seed=3)
    plays = [play + END for play in text.split(END)[:-1]]
    together = nats_of_plays(model, TOKENIZER, text)
    for play, (_, nats) in list(zip(plays, together, strict=True))[::60]:
        ((_, nats_alone),) = nats_of_plays(model, TOKENIZER, play)
        assert nats == pytest.approx(nats_alone, abs=1e-3)


# below_floor finds leaks


def small_gpt(block=Block, norm=nn.LayerNorm, **options):
    torch.manual_seed(0)
    config = {"vocab_size": V, "block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 64}
    return GPT(GPTConfig(**config | options), block=block, norm=norm)


def train_small(model, train_ids, val_ids, steps):
    config = TrainConfig(max_steps=steps, learning_rate=1e-2, warmup=20, eval_interval=steps)
    train(model, train_ids, val_ids, 32, config, progress=False)
    return model


def unseen_nats(model):
    """Return -ln q of all unseen plays."""
    return sum(nats.sum() for _, nats in nats_of_plays(model, TOKENIZER, UNSEEN))


class TargetsAmongInputs(nn.Module):
    """A GPT with a leak: each position also reads the token that it must predict."""

    def __init__(self):
        super().__init__()
        self.gpt = small_gpt()
        self.leak = nn.Linear(V, V)
        self.block_size = 32

    def forward(self, idx):
        targets = F.one_hot(idx.roll(-1, dims=1), V).float()        # (B, T, V)
        # The target of the last position is not in the window.
        targets[:, -1] = 0
        return self.gpt(idx) + 10 * self.leak(targets)


class AttentionWithoutMask(CausalSelfAttention):
    """Attention with a leak: every position sees the future."""

    def forward(self, x, cache=None, mask=None):
        q, k, v = self.split_heads(self.qkv(x))
        return self.merge_heads(F.scaled_dot_product_attention(q, k, v))


def gpt_without_mask():
    return small_gpt(block=partial(Block, attention=AttentionWithoutMask))


def norm_over_time(n_embd, bias):
    """Return a norm with a leak: mean and spread are taken over all positions of a window."""
    return nn.LayerNorm((32, n_embd), bias=bias)


GPT_OPTIONS = [
    {},
    {"position": "sinusoidal"},
    {"position": "none"},
    {"init": "gpt2"},
    {"tie_weights": True},
    {"bias": True},
    {"dropout": 0.1},
]


@pytest.mark.parametrize("options", GPT_OPTIONS, ids=str)
def test_no_causal_gpt_is_below_the_floor(options):
    model = train_small(small_gpt(**options), IDS[:-2000], IDS[-2000:], steps=60)
    assert not below_floor(unseen_nats(model), SOURCE_NATS)


def test_the_model_of_the_fast_recipe_is_not_below_the_floor():
    torch.manual_seed(0)
    model = make_model(VariantConfig(
        V, block_size=32, n_layer=1, n_head=2, n_embd=64, position="none",
        **dict.fromkeys(MODERN_PARTS, True)))
    train_small(model, IDS[:-2000], IDS[-2000:], steps=60)
    assert not below_floor(unseen_nats(model), SOURCE_NATS)


def test_the_bigram_is_not_below_the_floor():
    bigram = Bigram.from_counts(count_bigrams(IDS, V))
    assert not below_floor(unseen_nats(bigram), SOURCE_NATS)


@pytest.mark.parametrize("build", [TargetsAmongInputs, gpt_without_mask])
def test_a_model_that_sees_its_targets_is_below_the_floor(build):
    torch.manual_seed(0)
    model = train_small(build(), IDS[:-2000], IDS[-2000:], steps=150)
    assert below_floor(unseen_nats(model), SOURCE_NATS)


def test_a_small_leak_is_not_below_the_floor_but_has_a_causality_gap():
    """The norms of shakeGPT give each position the mean and spread over the whole window.

    This helps the model less than it still loses elsewhere, so its loss stays above the floor.
    `causality_gap` finds the leak.
    """
    model = small_gpt(block=partial(Block, norm=norm_over_time), norm=norm_over_time)
    train_small(model, IDS[:-3200], IDS[-3201:], steps=60)
    # These norms can only read windows of 32 tokens.
    windows = IDS[-3200:].view(-1, 32)
    for position in range(1, 32):
        assert causality_gap(model, windows[:1], position) > 1e-4
    logits, targets = model(windows)[:, :-1], windows[:, 1:]
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
    logp = score(TEXT, level=1).logp[-3200:].reshape(-1, 32)[:, 1:]
    assert not below_floor(nats, -logp.sum())


def test_below_floor_compares_the_nats_of_a_whole_text():
    assert not below_floor(100.0, 100.0)
    assert not below_floor(120.1, 100.0)
    assert not below_floor(80.1, 100.0)
    assert below_floor(79.9, 100.0)
    assert below_floor(98.9, 100.0, t=1.0)
