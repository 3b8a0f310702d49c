import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gptlib import GPT, Bigram, CharTokenizer, GPTConfig, LowercaseTokenizer, TrainConfig, count_bigrams, train
from gptlib.floor import below_floor, gap_by_kind, nats_of_plays, nats_per_token
from gptlib.model import causality_gap
from gptlib.plot import new_figure, plot_gap
from gptlib.theatre import KINDS, LEVELS, Ungrammatical, generate, score

TEXT = generate(200_000, level=1)
TOKENIZER = CharTokenizer.from_text(generate(50_000, level=3))
V = TOKENIZER.vocab_size
IDS = torch.tensor(TOKENIZER.encode(TEXT))
FRESH = generate(10_000, level=1, seed=1)               # plays that no model here is trained on
SOURCE = score(FRESH, level=1).nats


class Uniform(nn.Module):
    """Every token is equally likely, whatever came before."""

    def __init__(self, vocab_size):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, idx):
        return self.logits.expand(*idx.shape, -1)


class CountsContext(Uniform):
    """Pays t + 1 nats for token 0 at place t of its window: as many as it sees tokens."""

    def __init__(self, block_size):
        super().__init__(2)
        self.block_size = block_size

    def forward(self, idx):
        assert idx.shape[1] <= self.block_size
        seen = torch.arange(1.0, idx.shape[1] + 1)
        return torch.stack([-seen, torch.log(-torch.expm1(-seen))], dim=-1).expand(*idx.shape, 2)


class WordTokenizer:
    """A token a word and a token a blank, as they come; ids are given on the way."""

    def __init__(self):
        self.words = []
        self.vocab_size = 1000

    def encode(self, text):
        pieces = [piece for word in text.split(" ") for piece in (word, " ") if piece][:-1]
        self.words += [piece for piece in dict.fromkeys(pieces) if piece not in self.words]
        return [self.words.index(piece) for piece in pieces]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)

    def token_bytes(self, token):
        return self.words[token].encode()


@pytest.mark.parametrize("level", LEVELS)
def test_the_gap_of_guessing_is_ln_v_for_each_character_less_what_it_must_cost(level):
    text = generate(5000, level, seed=1)
    truth, gap = score(text, level), gap_by_kind(Uniform(V), TOKENIZER, text, level)
    for i, kind in enumerate(KINDS):
        here = truth.kinds == i
        expected = (here.sum() * math.log(V) + truth.logp[here].sum()) / len(truth.starts)
        assert gap.get(kind, 0.0) == pytest.approx(expected, abs=1e-3) and (kind in gap) == here.any()


def test_a_bigrams_gap_is_the_sum_over_its_pairs():
    bigram = Bigram.from_counts(count_bigrams(IDS, V))
    ids = torch.tensor(TOKENIZER.encode("\n" + FRESH))                  # a play is read after the line end of the one before
    nats = F.cross_entropy(bigram(ids[:-1]), ids[1:], reduction="sum").item()
    gap = gap_by_kind(bigram, TOKENIZER, FRESH, level=1)
    assert sum(gap.values()) * FRESH.count("\n\n") == pytest.approx(nats - SOURCE, rel=1e-5)


def test_nats_per_play_are_those_of_the_tokens_whatever_the_tokens_are():
    tokenizer = WordTokenizer()
    (sizes, nats), *others = nats_of_plays(Uniform(1000), tokenizer, FRESH)
    first = FRESH[:FRESH.index("\n\n") + 2]
    assert sizes == [len(piece) for piece in map(tokenizer.decode, ([i] for i in tokenizer.encode(first)))] and sum(sizes) == len(first)
    assert nats == pytest.approx(math.log(1000), abs=1e-4) and len(others) == FRESH.count("\n\n") - 1
    n_tokens = len(sizes) + sum(len(sizes) for sizes, _ in others)
    gap = gap_by_kind(Uniform(1000), tokenizer, FRESH, level=1)
    assert sum(gap.values()) * FRESH.count("\n\n") == pytest.approx(n_tokens * math.log(1000) - SOURCE, rel=1e-5)


def test_a_token_counts_as_its_first_character_that_is_not_certain():
    play = "It is noon in the garden.\n  Fox: (he nods)\n  Owl: The dog by the child sings.\n[Exeunt.]\n\n"
    tokens = {"choice": ["noon", "garden.\n", "Fox:", "(he", "nods)\n", "Owl:", "The", "dog", " ", "by", "child", " ",
                         "sings.\n[Exeunt.]\n\n"],
              "spelling": [" "],                                        # of the line that begins with "The "
              "form": ["It", "is", "in", "the", "the", *14 * [" "]]}
    assert sum(map(len, tokens.values())) == len(WordTokenizer().encode(play))
    paid = {"choice": score(play, level=1).nats, "agreement": 0.0, "bracket": 0.0, "spelling": 0.0, "form": 0.0}
    gap = gap_by_kind(Uniform(1000), WordTokenizer(), play, level=1)
    assert gap == pytest.approx({kind: len(tokens.get(kind, [])) * math.log(1000) - paid[kind] for kind in paid}, abs=1e-3)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 40])
def test_a_token_is_read_in_its_play_or_after_half_a_block_at_least(length):
    seen = nats_per_token(CountsContext(8), [torch.zeros(length, dtype=torch.long), torch.zeros(13, dtype=torch.long)], given=1)
    for n, contexts in zip((length, 13), seen, strict=True):
        assert contexts.shape == (n - 1,)
        assert contexts[:8] == pytest.approx(np.arange(1, n)[:8], abs=1e-4)           # everything so far, as long as it fits
        assert (contexts[8:] > 4 - 1e-4).all() and (contexts[8:] < 8 + 1e-4).all()


def test_given_tokens_are_read_and_not_predicted():
    ids = torch.zeros(6, dtype=torch.long)
    assert nats_per_token(CountsContext(8), [ids], given=2)[0] == pytest.approx([2, 3, 4, 5], abs=1e-4)


def test_many_plays_in_batches_are_the_same_as_each_alone(tiny):
    model = tiny(vocab_size=V, block_size=32)
    texts = generate(60_000, level=1, seed=3).split("\n\n")[:-1]
    together = nats_of_plays(model, TOKENIZER, "\n\n".join(texts) + "\n\n")
    for text, (_, nats) in list(zip(texts, together, strict=True))[::60]:
        assert nats == pytest.approx(nats_of_plays(model, TOKENIZER, text + "\n\n")[0][1], abs=1e-3)


def test_the_model_is_left_as_it_was(tiny):
    model = tiny(vocab_size=V, block_size=32, dropout=0.5).train()
    one, two = (gap_by_kind(model, TOKENIZER, FRESH, level=1) for _ in range(2))
    assert one == two and model.training


def test_text_that_cannot_be_compared_is_refused():
    model = Uniform(V)
    with pytest.raises(ValueError, match="the text ends within a play: take whole ones"):
        gap_by_kind(model, TOKENIZER, FRESH[:-1], level=1)
    with pytest.raises(Ungrammatical):
        gap_by_kind(model, TOKENIZER, FRESH, level=3)
    with pytest.raises(ValueError, match="the tokenizer turns 'It is .* into 'it is .* what it loses cannot be measured"):
        gap_by_kind(Uniform(88), LowercaseTokenizer(), FRESH, level=1)


# the leak detector

def trained(model, steps=200, block_size=32, **how):
    train(model, IDS[:-2000], IDS[-2000:], block_size,
          TrainConfig(max_steps=steps, learning_rate=1e-2, warmup=20, eval_interval=steps, **how), progress=False)
    return model


def total_nats(model):
    return sum(nats.sum() for _, nats in nats_of_plays(model, TOKENIZER, FRESH))


def small(**how):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"vocab_size": V, "block_size": 32, "n_layer": 1, "n_head": 2, "n_embd": 64} | how))


class TargetsAmongInputs(nn.Module):
    """A GPT that is also shown the token which it is to predict, where the window has it."""

    def __init__(self):
        super().__init__()
        self.gpt, self.peek, self.block_size = small(), nn.Linear(V, V), 32

    def forward(self, idx):
        following = F.one_hot(idx.roll(-1, dims=1), V).float()
        following[:, -1] = 0
        return self.gpt(idx) + 10 * self.peek(following)


def without_mask():
    """A GPT whose attention forgot its causal mask."""
    model = small()
    attention = model.blocks[0].attention

    def forward(x, *cache):
        B, T, C = x.shape
        q, k, v = attention.qkv(x).view(B, T, 3, 2, C // 2).permute(2, 0, 3, 1, 4)
        return attention.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, C))
    attention.forward = forward
    return model


@pytest.mark.parametrize("how", [{}, dict(position="sinusoidal"), dict(position="none"), dict(init="gpt2"), dict(tie_weights=True),
                                 dict(bias=True), dict(dropout=0.1)], ids=str)
def test_no_honest_gpt_goes_below_the_floor(how):
    assert not below_floor(total_nats(trained(small(**how), steps=60)), SOURCE)


def test_the_bigram_does_not_go_below_the_floor():
    assert not below_floor(total_nats(Bigram.from_counts(count_bigrams(IDS, V))), SOURCE)


@pytest.mark.parametrize("leak", [TargetsAmongInputs, without_mask])
def test_a_model_that_sees_its_targets_is_caught(leak):
    torch.manual_seed(0)
    assert below_floor(total_nats(trained(leak(), steps=150)), SOURCE)


def test_what_leaks_only_a_little_is_for_the_causality_test():
    """Norms over time, as shakeGPT has them, tell each position only a mean and a spread of what is to come: that saves
    far less than such a model still loses elsewhere, so its total stays above the floor. `causality_gap` needs no such luck."""
    model = small()
    for owner, name in [(model.blocks[0], "norm1"), (model.blocks[0], "norm2"), (model, "final_norm")]:
        setattr(owner, name, nn.LayerNorm((32, 64)))
    train(model, IDS[:-3200], IDS[-3201:], 32, TrainConfig(max_steps=60, learning_rate=1e-2, warmup=20, eval_interval=60), progress=False)
    windows = IDS[-3200:].view(-1, 32)                                  # as long as the norms: they can read no others
    assert all(causality_gap(model, windows[:1], position) > 1e-4 for position in range(1, 32))
    nats = F.cross_entropy(model(windows)[:, :-1].flatten(0, 1), windows[:, 1:].flatten(), reduction="sum").item()
    assert not below_floor(nats, -score(TEXT, level=1).logp[-3200:].reshape(-1, 32)[:, 1:].sum())


def test_the_bound_is_on_nats_of_a_whole_text():
    assert not below_floor(100.0, 100.0) and not below_floor(80.1, 100.0) and below_floor(79.9, 100.0)
    assert below_floor(98.9, 100.0, t=1.0) and not below_floor(120.1, 100.0)


def test_the_picture_has_a_bar_for_each_model_and_kind_from_zero():
    _, axes = new_figure()
    plot_gap(axes, {"bigram": {"choice": 40.0, "fact": 9.0}, "GPT": {"choice": 1.0, "rhyme": -0.1}})
    bars = [[(bar.get_x(), bar.get_width()) for bar in group] for group in axes.containers]
    assert bars == [[(0, 40.0), (0, 9.0), (0, 0.0)], [(0, 1.0), (0, 0.0), (0, -0.1)]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["choice", "fact", "rhyme"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["bigram: 49.0 in all", "GPT: 0.9 in all"]
    assert "nats per play" in axes.get_xlabel()
