"""Sampling: what is drawn, that the cache changes nothing but the time, and what a reader is shown of it."""

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
from gptlib.block import ATTENTIONS
from gptlib.generate import generate_tokens, next_token_probabilities, pick
from gptlib.model import POSITIONS

EIGHTHS = torch.tensor([0.125, 0.5, 0.125, 0.25])       # exact in floating point
RAGGED = [torch.arange(n) % 11 for n in (3, 1, 8, 20, 4, 9)]            # shorter than the block of 8, as long, longer
options = pytest.mark.parametrize("option", [
    *(dict(position=position) for position in POSITIONS),
    *(dict(attention=attention, token_shift=shift) for attention in ATTENTIONS for shift in (False, True)),
    dict(tie_weights=True), dict(bias=True), dict(init="gpt2"), dict(dropout=0.5), dict(n_layer=1, n_head=1)],
    ids=lambda option: "-".join(f"{name}={value}" for name, value in option.items()))
greedy_and_seeded = pytest.mark.parametrize("how", [{"temperature": 0}, {"seed": 5, "temperature": 0.7}], ids=["greedy", "seeded"])
logits = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12).map(torch.tensor)


class Script(nn.Module):
    """After a prompt of one token, certain to say `tokens` one after the other."""

    def __init__(self, tokens, vocab_size):
        super().__init__()
        self.tokens = nn.Parameter(torch.tensor(tokens), requires_grad=False)
        self.vocab_size = vocab_size

    def forward(self, idx):
        says = F.one_hot(self.tokens[:idx.shape[1]], self.vocab_size).float().log()
        return F.pad(says, (0, 0, idx.shape[1] - len(says), 0))[None]


class Pieces:
    """A tokenizer that has each of these byte strings as a token; it reads any prompt as token 0."""

    def __init__(self, pieces):
        self.pieces, self.vocab_size = pieces, len(pieces)

    def encode(self, text):
        return [0]

    def token_bytes(self, token):
        return self.pieces[token]


BYTES = Pieces([bytes([i]) for i in range(256)])


def say(pieces, **how):
    """The pieces of text streamed by a model that is certain to say these tokens of bytes."""
    return list(stream_text(Script(list(range(len(pieces))), len(pieces)), Pieces(pieces), "", len(pieces), **how))


def first_beyond(probabilities, number):
    """The first token that holds, with those before it, more than the number; added up in a plain loop."""
    reached = 0.0
    for token, share in enumerate(probabilities.tolist()):
        reached += share
        if reached > number:
            return token


def by_hand(model, prompt, new, seed=0, **how):
    """One row without any cache: for each token the window, cut to half a block as often as it is too long, is read anew."""
    tokens, numbers, block_size = prompt.tolist(), np.random.default_rng(seed), getattr(model, "block_size", None)
    model.eval()
    for _ in range(new):
        window = tokens
        while block_size and len(window) > block_size:
            window = window[max(1, block_size // 2):]
        logits = model(torch.tensor([window]))[0, -1]
        tokens.append(first_beyond(next_token_probabilities(logits, **how), numbers.random()))
    return tokens


def lists(rows):
    return [row.tolist() for row in rows]


def test_plain_sampling_is_the_softmax():
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert_close(next_token_probabilities(z), z.softmax(-1))
    assert_close(next_token_probabilities(z, temperature=0.5), (2 * z).softmax(-1))
    assert_close(next_token_probabilities(z, temperature=3.0), (z / 3).softmax(-1))


@given(logits, st.floats(0, 100), st.none() | st.integers(1, 20), st.none() | st.floats(0, 1))
def test_whatever_the_settings_the_result_is_a_distribution_that_keeps_the_likeliest_token(z, temperature, top_k, top_p):
    p = next_token_probabilities(z, temperature, top_k, top_p)
    assert torch.all(p >= 0) and p.sum().item() == pytest.approx(1, abs=1e-5)
    assert p[z.argmax()] == p.max() > 0
    assert top_k is None or (p > 0).sum() <= top_k


@given(logits, st.floats(0, 1))
def test_top_p_keeps_the_fewest_likeliest_tokens_that_reach_p(z, p):
    everything = z.double().softmax(-1)
    kept = next_token_probabilities(z.double(), top_p=p) > 0
    ordered = everything.sort(descending=True).values
    held, n = ordered.cumsum(-1), int(kept.sum())
    assume(torch.all((held - p).abs() > 1e-9))                          # where rounding decides, either is right
    assert torch.equal(everything[kept].sort(descending=True).values, ordered[:n])
    assert n == 1 or held[n - 2] < p
    assert held[n - 1] >= p or torch.all(ordered[n:] == 0)


def test_top_p_keeps_the_token_that_crosses_p():
    kept = lambda p: (next_token_probabilities(EIGHTHS.log(), top_p=p) > 0).tolist()
    assert kept(0.4) == [False, True, False, False]
    assert kept(0.6) == [False, True, False, True]
    assert kept(0.75) == [False, True, False, True]
    assert kept(0.8) == [True, True, False, True]
    assert kept(0.9) == [True, True, True, True]


def test_what_is_kept_shares_the_probability_in_proportion():
    assert_close(next_token_probabilities(EIGHTHS.log(), top_p=0.6), torch.tensor([0, 2 / 3, 0, 1 / 3]))
    assert_close(next_token_probabilities(EIGHTHS.log(), top_k=2), torch.tensor([0, 2 / 3, 0, 1 / 3]))


def test_top_p_comes_after_top_k_and_temperature():
    assert_close(next_token_probabilities(EIGHTHS.log(), top_k=2, top_p=0.66), torch.tensor([0.0, 1, 0, 0]))
    assert_close(next_token_probabilities(EIGHTHS.log(), temperature=0.1, top_p=0.9), torch.tensor([0.0, 1, 0, 0]))


def test_top_p_0_is_greedy_and_top_p_1_keeps_everything():
    z = torch.tensor([0.0, -20.0, -20.0, 3.0])
    assert next_token_probabilities(z, top_p=0.0).tolist() == [0, 0, 0, 1]
    assert torch.equal(next_token_probabilities(z, top_p=1.0), next_token_probabilities(z))
    assert torch.all(next_token_probabilities(z, top_p=1.0) > 0)


def test_top_k_beyond_the_vocabulary_keeps_everything():
    assert torch.equal(next_token_probabilities(EIGHTHS.log(), top_k=5), next_token_probabilities(EIGHTHS.log()))


def test_of_equals_top_k_keeps_exactly_k():
    assert next_token_probabilities(torch.zeros(4), top_k=2).tolist() == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-45, 1e-300])
@pytest.mark.parametrize("size", [1.0, 1e30])
def test_a_tiny_temperature_is_finite_and_greedy(temperature, size):
    assert next_token_probabilities(size * torch.tensor([1.0, 3.0, -2.0]), temperature).tolist() == [0, 1, 0]


def test_an_infinite_temperature_knows_nothing():
    assert_close(next_token_probabilities(EIGHTHS.log(), float("inf")), torch.full((4,), 0.25))


@pytest.mark.parametrize("how", [{}, {"temperature": 5.0}, {"top_p": 0.5}, {"top_p": 1.0}, {"top_k": 1}, {"top_k": 9}])
def test_a_certain_token_stays_certain(how):
    assert next_token_probabilities(torch.tensor([-torch.inf, 0.0, -torch.inf]), **how).tolist() == [0, 1, 0]


def test_logits_are_left_as_they_were():
    z = torch.tensor([1.0, 3.0, 2.0])
    next_token_probabilities(z, 0.5, top_k=1, top_p=0.5)
    assert z.tolist() == [1, 3, 2]


@pytest.mark.parametrize("how, said", [
    ({"temperature": -1}, r"temperature=-1 should be 0 \(greedy\) or above"), ({"temperature": float("nan")}, "temperature=nan should be"),
    ({"top_k": 0}, "top_k=0 should be at least 1"), ({"top_k": -3}, "top_k=-3 should be at least 1"),
    ({"top_p": -0.1}, "top_p=-0.1 should be between 0 and 1"), ({"top_p": 1.5}, "top_p=1.5 should be between 0 and 1"),
    ({"top_p": float("nan")}, "top_p=nan should be between 0 and 1")])
def test_impossible_settings_are_refused(how, said):
    with pytest.raises(ValueError, match=said):
        next_token_probabilities(EIGHTHS.log(), **how)


def test_tokens_are_drawn_as_often_as_they_are_likely_whatever_came_before():
    model = Bigram(4)
    model.table.weight.data = EIGHTHS.log().expand(4, 4).clone()
    drawn = generate(model, torch.zeros(250, 1, dtype=torch.long), 16, seed=0)[:, 1:]
    pairs = drawn.reshape(-1, 2) @ torch.tensor([4, 1])                 # 2000, each two tokens in a row
    expected = 2000 * torch.outer(EIGHTHS, EIGHTHS).flatten()
    assert ((pairs.bincount(minlength=16) - expected) ** 2 / expected).sum() < 37.7         # chi-square, 15 degrees: 1 in 1000


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True))
def test_the_token_picked_is_the_first_to_reach_beyond_the_number(p, number):
    assume(sum(p) > 0)
    p = torch.tensor(p).double()
    token = pick(p[None], [number]).item()
    held = [p[:n].sum().item() / p.sum().item() for n in (token, token + 1)]
    assert p[token] > 0
    assert held[0] - 1e-12 <= number <= held[1] + 1e-12


@pytest.mark.parametrize("p", [[0.0, 0.1, 0.0, 0.2, 0.7, 0.0, 0.0], [0.0] + [1 / 3] * 3 + [0.0], [0.0, 1.0, 0.0], [0.0, 1 - 2 ** -24, 0.0],
                               [0.0, 1 + 2 ** -23, 0.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_token_of_probability_0_is_never_picked(p, dtype):
    numbers = [0.0, 5e-324, 2.0 ** -53, 0.1, 0.3, 0.5, 1 - 2.0 ** -24, 1 - 2.0 ** -53]
    p = torch.tensor(p, dtype=dtype).expand(len(numbers), -1)
    assert torch.all(p.gather(1, pick(p, numbers)[:, None]) > 0)


def test_what_is_rounded_in_a_short_type_does_not_add_up():
    even = torch.full((3, 4096), 2.0 ** -12, dtype=torch.bfloat16)     # added up in bfloat16 they never get past 0.0625
    assert pick(even, [0.25, 0.5, 0.75]).tolist() == [1024, 2048, 3072]


def test_each_row_is_picked_by_its_own_number():
    assert pick(EIGHTHS.expand(5, 4), [0.0, 0.124, 0.125, 0.7, 0.75]).tolist() == [0, 0, 1, 2, 3]


def agree(model, prompts, new, **how):
    """With a cache and without, each row is what its prompt alone becomes by hand."""
    by_itself = [by_hand(model, prompt, new, **how | {"seed": how.get("seed", 0) + row}) for row, prompt in enumerate(prompts)]
    for cache in (True, False):
        assert lists(generate(model.train(), prompts, new, cache=cache, **how)) == by_itself, (cache, len(prompts[0]))


@options
@greedy_and_seeded
def test_rows_of_any_lengths_become_what_each_becomes_alone_by_hand(tiny, option, how):
    agree(tiny(**option).double(), RAGGED, 20, **how)


@pytest.mark.parametrize("block_size", [1, 2, 3, 8])
def test_prompts_of_up_to_three_blocks_go_on_as_by_hand(tiny, block_size):
    model = tiny(block_size=block_size).double()
    for T in range(1, 3 * block_size + 2):
        agree(model, torch.arange(2 * T).view(2, T) % 11, block_size + 2, seed=3)


@pytest.mark.parametrize("block_size", [1, 2, 5])
def test_rows_of_different_lengths_roll_each_at_its_own_time(tiny, block_size):
    agree(tiny(block_size=block_size).double(), [torch.arange(n) for n in (1, 4, 2, 3)], 18, seed=0)


class Counted(nn.Module):
    """A model that counts the tokens it is given."""

    def __init__(self, model):
        super().__init__()
        self.model, self.block_size, self.new_cache, self.tokens = model, model.block_size, model.new_cache, 0

    def forward(self, idx, cache=None):
        self.tokens += idx.numel()
        return self.model(idx, cache)


def test_a_cache_reads_each_token_once_and_half_a_block_again_for_each_roll(tiny):
    model = Counted(tiny())
    generate(model, torch.tensor([[1]]), 8, seed=0)
    assert model.tokens == 8
    generate(model, torch.tensor([[1]]), 48, seed=0)                # ten rolls, each reads half a block and the new token
    assert model.tokens == 8 + 48 + 10 * 4


def test_a_row_that_rolls_leaves_the_others_unread(tiny):
    model = Counted(tiny())
    generate(model, [torch.arange(8), torch.arange(3)], 5, seed=0)
    assert model.tokens == 2 * 8 + 4 * 2 + 5                        # both prompts, padded; four steps; the one row that rolled


class RunningSum(nn.Module):
    """No transformer: certain of a sum over all tokens so far. Its cache is that sum, a kind that the library does not know."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, idx, cache=None):
        sums = (idx + 1).cumsum(1) + (0 if cache is None else cache.sum)
        if cache is not None:
            cache.sum = sums[:, -1:]
        return self.scale * F.one_hot(sums % 11, 11)

    def new_cache(self):
        return SimpleNamespace(sum=0)


class OnlyForward(nn.Module):
    """What a reader may have written: a block size, and logits for ids."""

    def __init__(self, gpt):
        super().__init__()
        self.gpt, self.block_size = gpt, gpt.block_size

    def forward(self, idx):
        return self.gpt(idx)


@pytest.mark.parametrize("make", [lambda tiny: Bigram.from_counts(torch.eye(11).roll(1, 0) * 20), lambda tiny: OnlyForward(tiny().double()),
                                  lambda tiny: RunningSum()], ids=["bigram", "only forward", "its own cache"])
@pytest.mark.parametrize("prompts", [torch.arange(10).view(2, 5), RAGGED], ids=["batch", "ragged"])
def test_any_model_that_gives_logits_for_ids_will_do(tiny, make, prompts):
    agree(make(tiny), prompts, 20, seed=0)


def test_a_generator_goes_on_where_it_was_left_whatever_the_model_did_in_between(tiny):
    model, idx = tiny(dropout=0.5).double(), torch.tensor([[1, 2], [3, 4]])
    expected = generate(model, idx, 20, seed=0)
    tokens, sampled = generate_tokens(model, idx, 20, seed=0), []
    for token in tokens:
        sampled.append(token)
        model.train(len(sampled) % 2 == 0)
        model(torch.zeros(3, 5, dtype=torch.long))
        generate(model, torch.tensor([[7]]), 3, seed=1)
    assert torch.equal(torch.cat([idx, torch.stack(sampled, 1)], 1), expected)


def test_tokens_yielded_may_be_changed_by_who_gets_them(tiny):
    model, idx = tiny().double(), torch.tensor([[1]])
    expected = generate(model, idx, 12, seed=0)[0, 1:].tolist()
    assert [(token.item(), token.fill_(0))[0] for token in generate_tokens(model, idx, 12, seed=0)] == expected


def test_memory_stays_flat_over_ten_thousand_tokens(tiny):
    tokens = generate_tokens(tiny(n_layer=1, n_head=1, n_embd=4).eval(), torch.tensor([[1]]), 10_000, seed=0)

    def held_after(steps):
        """Bytes of all that the generator reaches, the model and its cache among it."""
        for _ in range(steps):
            next(tokens)
        found, todo = {}, list(tokens.gi_frame.f_locals.values())
        while todo:
            thing = todo.pop()
            if id(thing) in found or isinstance(thing, (type, type(sys), type(held_after))):
                continue
            found[id(thing)] = thing
            todo += thing.__dict__.values() if hasattr(thing, "__dict__") else gc.get_referents(thing)
        things = list(found.values())
        return sum(map(sys.getsizeof, things)) + sum(x.untyped_storage().nbytes() for x in things if isinstance(x, torch.Tensor))

    early = held_after(1000)
    assert early > 3 * 4 * 4 * 4                                    # it finds the cache, for one
    assert held_after(9000) - early < 20_000                        # bytes; one number kept for each token would be 72,000


@pytest.mark.parametrize("how, same", [({"top_k": 11}, {}), ({"top_k": 99}, {}), ({"top_p": 1.0}, {}), ({"top_p": 0.0}, {"temperature": 0}),
                                       ({"top_k": 1}, {"temperature": 0}), ({"temperature": 1e-30}, {"temperature": 0})])
def test_settings_that_mean_the_same_give_the_same_tokens(tiny, how, same):
    model, idx = tiny(), torch.tensor([[1], [2]])
    assert torch.equal(generate(model, idx, 20, seed=0, **how), generate(model, idx, 20, seed=0, **same))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_prompt_may_be_of_any_integers(tiny, dtype):
    expected = generate(tiny(), torch.tensor([[1, 2, 3]]), 12, seed=0)
    assert torch.equal(generate(tiny(), torch.tensor([[1, 2, 3]], dtype=dtype), 12, seed=0), expected)


def test_a_seed_gives_the_same_tokens_and_another_seed_others(tiny):
    sample = lambda seed: generate(tiny(), torch.zeros(1, 1, dtype=torch.long), 40, temperature=3.0, seed=seed)
    first = sample(1)
    torch.manual_seed(99)
    assert torch.equal(sample(1), first) and not torch.equal(sample(2), first)


def test_without_a_seed_each_sample_is_fresh(tiny):
    sample = lambda: generate(tiny(), torch.zeros(1, 1, dtype=torch.long), 100, temperature=100.0)      # tiny() seeds torch
    assert not torch.equal(sample(), sample())


def test_sampling_leaves_the_global_random_numbers_alone(tiny):
    model, before = tiny(dropout=0.5), torch.get_rng_state()
    for seed in (0, None):
        generate(model, torch.zeros(1, 1, dtype=torch.long), 3, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_while_sampling_and_the_model_is_left_as_it_was(tiny, training):
    model, idx = tiny(dropout=0.5).train(training), torch.zeros(1, 1, dtype=torch.long)
    tokens = generate_tokens(model, idx, 8, temperature=0)
    sampled = []
    for token in tokens:
        assert all(module.training is training for module in model.modules())       # between two tokens, too
        sampled.append(token)
    assert torch.equal(torch.stack(sampled, 1), generate(tiny(dropout=0.0), idx, 8, temperature=0)[:, 1:])


def test_the_model_is_left_as_it_was_when_it_fails(tiny):
    model = tiny().train()
    with pytest.raises(ValueError, match="the model knows 0 … 10"):
        generate(model, torch.tensor([[11]]), 1)
    assert model.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_whose_numbers_are_not_finite_is_named_not_sampled(tiny, value):
    model = tiny()
    model.head.weight.data[3] = value
    with pytest.raises(ValueError, match="not finite"):
        generate(model, torch.tensor([[1]]), 5, seed=0)


def test_no_new_tokens_give_the_prompt_back(tiny):
    idx = torch.tensor([[1, 2, 3]])
    assert torch.equal(generate(tiny(), idx, 0), idx) and generate_text(tiny(), CharTokenizer("abcdefghijk"), "abc", 0) == ""


def test_no_gradients_are_kept(tiny):
    assert not next(generate_tokens(tiny(), torch.tensor([[1]]), 1)).requires_grad


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="the prompt is empty: give at least one token"):
        generate_text(tiny(), CharTokenizer("abcdefghijk"), "")
    for prompts in (torch.zeros(2, 0, dtype=torch.long), [torch.tensor([1]), torch.tensor([], dtype=torch.long)], []):
        with pytest.raises(ValueError, match="the prompt is empty: give at least one token"):
            generate(tiny(), prompts, 1)


@pytest.mark.parametrize("how, said", [({"max_new_tokens": -1}, "max_new_tokens=-1 should be at least 0"),
                                       ({"max_new_tokens": 1, "seed": -1}, "seed=-1 should be at least 0, or None")])
def test_impossible_requests_are_refused(tiny, how, said):
    with pytest.raises(ValueError, match=said):
        generate(tiny(), torch.tensor([[1]]), **how)


def test_an_unknown_character_in_a_prompt_is_named(tiny):
    with pytest.raises(ValueError, match="character 'é' .* at position 1 is not among"):
        generate_text(tiny(), CharTokenizer("abcdefghijk"), "aé")


def test_an_empty_stop_string_is_refused(tiny):
    with pytest.raises(ValueError, match="a stop string is empty"):
        generate_text(tiny(), CharTokenizer("abcdefghijk"), "a", stop=["b", ""])


def test_the_stream_joins_to_the_text_and_the_tokens(tiny):
    tokenizer = CharTokenizer("abcdefghijk")
    streamed = "".join(stream_text(tiny(), tokenizer, "abc", 30, seed=5))
    tokens = generate(tiny(), torch.tensor([tokenizer.encode("abc")]), 30, seed=5)[0]
    assert streamed == generate_text(tiny(), tokenizer, "abc", 30, seed=5) == tokenizer.decode(tokens)[3:] and len(streamed) == 30


def test_without_a_stop_string_each_character_is_shown_at_once():
    assert [piece for piece in say([b"a", b"b", b"c"]) if piece] == ["a", "b", "c"]


@given(st.text(min_size=1))
def test_half_a_character_is_never_shown(text):
    script = list(text.encode("utf-8"))
    pieces = list(stream_text(Script(script, 256), BYTES, "", len(script)))
    assert "".join(pieces) == text and all(len(piece) <= 1 for piece in pieces)


def test_bytes_that_are_no_text_are_shown_as_replaced():
    assert "".join(say([b"a", b"\xff", b"b"])) == "a\ufffdb"
    assert say(["é".encode()[:1]]) == ["\ufffd"]


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=8), st.text("ab", min_size=1, max_size=5))
def test_a_stop_string_ends_the_text_before_it_however_it_is_cut_into_tokens(tokens, stop):
    assert "".join(say([token.encode() for token in tokens], stop=stop)) == "".join(tokens).partition(stop)[0]


@given(st.text("ab¡∞", min_size=1, max_size=9), st.lists(st.text("ab¡∞", min_size=1, max_size=3), max_size=3))
def test_of_several_stop_strings_the_first_to_be_complete_ends_the_text(text, stops):
    script = list(text.encode("utf-8"))
    ends = [text[:n] for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
    expected = min((ends[0].partition(stop)[0] for stop in stops), key=len) if ends else text
    assert generate_text(Script(script, 256), BYTES, "", len(script), stop=stops) == expected


def test_of_two_stop_strings_in_one_token_the_earlier_ends_the_text():
    assert "".join(say([b"aXbYc"], stop=["Y", "X"])) == "a"


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_of_stop_strings_that_contain_one_another_the_first_to_be_complete_counts(cut):
    said = lambda stop: "".join(say([text.encode() for text in (("-ENDING")[i:i + cut] for i in range(0, 7, cut))], stop=stop))
    assert said(["ENDING", "END"]) == "-"                   # one begins with the other
    assert said(["DIN", "ENDIN"]) == "-"                    # complete at once: the longer leaves less
    assert said(["ENDINGS", "DI"]) == "-EN"                 # what was held back for one is shown up to the other


@pytest.mark.parametrize("stop, shown", [("bc", "a"), ("cd", "abc"), (["cd", "bc"], "a")])
def test_the_end_of_the_tokens_completes_a_stop_string_or_lets_go_of_its_beginning(stop, shown):
    assert "".join(say([b"a", b"b", b"c"], stop=stop)) == shown


def test_what_could_become_a_stop_string_is_held_back_until_it_does_not():
    assert [piece for piece in say([b"a", b"E", b"N", b"o", b"E"], stop="END") if piece] == ["a", "ENo", "E"]
    assert "".join(say([b"aE", b"NE", b"NDb"], stop="END")) == "aEN"


def test_a_stop_string_ends_the_work_too():
    assert say([b"a", b"."] + [b"b"] * 50, stop=".") == ["a", ""]
