import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import Bigram, CharTokenizer, generate, generate_text, stream_text
from gptlib.generate import generate_tokens, next_token_probabilities

EIGHTHS = torch.tensor([0.125, 0.5, 0.125, 0.25])       # exact in floating point
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


def test_tokens_are_drawn_as_often_as_they_are_likely():
    model = Bigram(4)
    model.table.weight.data = EIGHTHS.log().expand(4, 4).clone()
    drawn = generate(model, torch.zeros(4000, 1, dtype=torch.long), 1, seed=0)[:, 1]
    assert_close(drawn.bincount(minlength=4) / 4000, EIGHTHS, rtol=0, atol=0.03)      # four standard deviations


@pytest.mark.parametrize("T", [1, 5, 8, 20])
def test_temperature_0_takes_the_likeliest_token_after_the_last_block(tiny, T):
    model = tiny().eval()
    idx = torch.randint(11, (2, T), generator=torch.Generator().manual_seed(0))
    expected = idx
    for _ in range(12):
        expected = torch.cat([expected, model(expected[:, -8:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, idx, 12, temperature=0), expected)


def test_only_the_last_block_of_a_long_prompt_counts(tiny):
    idx = torch.randint(11, (1, 20), generator=torch.Generator().manual_seed(0))
    assert torch.equal(generate(tiny(), idx, 9, seed=3)[:, -17:], generate(tiny(), idx[:, -8:], 9, seed=3))


def test_a_seed_gives_the_same_tokens_and_another_seed_others(tiny):
    sample = lambda seed: generate(tiny(), torch.zeros(1, 1, dtype=torch.long), 40, temperature=3.0, seed=seed)
    first = sample(1)
    torch.manual_seed(99)
    assert torch.equal(sample(1), first) and not torch.equal(sample(2), first)


def test_without_a_seed_each_sample_is_fresh(tiny):
    torch.manual_seed(0)
    sample = lambda: generate(tiny(), torch.zeros(1, 1, dtype=torch.long), 100, temperature=100.0)
    assert not torch.equal(sample(), sample())


def test_sampling_leaves_the_global_random_numbers_alone(tiny):
    model, before = tiny(dropout=0.5), torch.get_rng_state()
    generate(model, torch.zeros(1, 1, dtype=torch.long), 3, seed=0)
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


def test_no_new_tokens_give_the_prompt_back(tiny):
    idx = torch.tensor([[1, 2, 3]])
    assert torch.equal(generate(tiny(), idx, 0), idx) and generate_text(tiny(), CharTokenizer("abcdefghijk"), "abc", 0) == ""


def test_no_gradients_are_kept(tiny):
    assert not next(generate_tokens(tiny(), torch.tensor([[1]]), 1)).requires_grad


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="the prompt is empty: give at least one token"):
        generate_text(tiny(), CharTokenizer("abcdefghijk"), "")


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


def test_what_could_become_a_stop_string_is_held_back_until_it_does_not():
    assert [piece for piece in say([b"a", b"E", b"N", b"o", b"E"], stop="END") if piece] == ["a", "ENo", "E"]
    assert "".join(say([b"aE", b"NE", b"NDb"], stop="END")) == "aEN"


def test_a_stop_string_ends_the_work_too():
    assert say([b"a", b"."] + [b"b"] * 50, stop=".") == ["a", ""]
