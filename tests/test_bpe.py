"""Byte pair encoding: the simple version, the fast version, and that both agree."""

import copy
import json
import pickle
import random
from collections import Counter
from itertools import pairwise

import pytest
import regex
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import generate, load_model, save_checkpoint, stream_text
from gptlib.bpe import BEGIN, END, GPT2_PATTERN, GPT4_PATTERN, BPETokenizer, simple, words
from gptlib.tokenizer import TokenizerError, fingerprint

SAMPLE = "\n".join([
    "It's the QUEEN'S 12345 horses, isn't it?  They'll   run...\n\n  Again!\r\n",
    "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি ১২৩৪ \t",
    "天地玄黃,宇宙洪荒。日月盈昃,辰宿列張。 👩‍👩‍👧‍👦 🏳️‍🌈 ",
]) * 2
NO_SPLIT = r"(?s).+"
EVERY_CHARACTER = r"(?s)."
patterns = pytest.mark.parametrize(
    "pattern", [GPT2_PATTERN, GPT4_PATTERN, NO_SPLIT, EVERY_CHARACTER],
    ids=["gpt2", "gpt4", "no_split", "every_character"])
# Few different pieces, so that pairs repeat and are often equally frequent.
REPETITIVE = st.lists(st.sampled_from([*"aab  \n12'.é界👍", "the ", "ab", "\r\n"])).map("".join)
TEXTS = st.one_of(REPETITIVE, st.text())


def most_frequent_pair(words):
    """Return the most frequent pair, and of equally frequent pairs the smallest."""
    counts = Counter(pair for word in words for pair in pairwise(word))
    return min(counts, key=lambda pair: (-counts[pair], pair))


def encode_by_definition(text, tokenizer):
    """Return the ids of `text`. As long as a word contains known pairs, merge the earliest one."""
    ids = []
    for word in regex.findall(tokenizer.pattern, text):
        tokens = list(word.encode())
        while known := [pair for pair in pairwise(tokens) if pair in tokenizer.merges]:
            earliest = min(known, key=tokenizer.merges.get)
            i = list(pairwise(tokens)).index(earliest)
            tokens[i:i + 2] = [tokenizer.merges[earliest]]
        ids += tokens
    return ids


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(SAMPLE, 350, special_tokens=[BEGIN, END])


# The simple version --------------------------------------------------------------------------


def test_simple_trainer_merges_the_most_frequent_pair_first():
    merges = simple.train("low low low lower lowest", 3)
    assert merges == {(108, 111): 256, (256, 119): 257, (32, 257): 258}
    assert simple.encode("slow low", merges) == [115, 257, 258]


def test_simple_trainer_breaks_ties_by_the_smallest_ids():
    assert list(simple.train("zx ba ab ay", 3, r"\w+| ")) == [(97, 98), (97, 121), (98, 97)]


def test_simple_trainer_ends_when_no_pair_is_left():
    assert simple.train("ab", 5) == {(97, 98): 256}
    assert simple.train("", 5) == {}


@pytest.mark.parametrize("ids, pair, merged", [
    ([1, 2, 1, 2, 1], (1, 2), [9, 9, 1]),
    ([1, 1, 1], (1, 1), [9, 1]),
    ([2, 1], (1, 2), [2, 1]),
    ([], (1, 2), []),
])
def test_merge_replaces_each_occurrence_from_left_to_right(ids, pair, merged):
    before = list(ids)
    assert simple.merge(ids, pair, 9) == merged
    assert ids == before


@given(TEXTS, st.integers(0, 12))
def test_simple_encoding_decodes_to_the_same_text(text, n_merges):
    merges = simple.train(text, n_merges)
    assert simple.decode(simple.encode(text, merges), merges) == text


def test_simple_decode_marks_invalid_bytes():
    assert simple.decode([97, 0xC3], {}) == "a�"


# The fast version agrees with the simple version ---------------------------------------------


@patterns
@given(TEXTS, st.integers(0, 12))
def test_fast_and_simple_training_give_the_same_merges(pattern, text, n_merges):
    expected = simple.train(text, n_merges, pattern)
    assert BPETokenizer.train(text, 256 + len(expected), pattern).merges == expected
    if len(expected) < n_merges:
        largest = 256 + len(expected)
        message = f"is too large for this text: at {largest} every word is a single token$"
        with pytest.raises(TokenizerError, match=message):
            BPETokenizer.train(text, 256 + n_merges, pattern)


@patterns
@given(TEXTS, TEXTS, st.integers(0, 30))
def test_fast_and_simple_encoding_give_the_same_ids(pattern, train_text, text, n_merges):
    merges = simple.train(train_text, n_merges, pattern)
    ids = BPETokenizer(merges, pattern).encode(text)
    assert ids == simple.encode(text, merges, pattern)
    assert simple.decode(ids, merges) == text


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("letters", ["ab", "abcdefgh    ", "aé界👍 1\n"])
def test_fast_and_simple_agree_on_long_random_texts(letters, seed):
    text = "".join(random.Random(seed).choices(letters, k=2000))
    for pattern in (GPT4_PATTERN, NO_SPLIT):
        merges = simple.train(text, 60, pattern)
        tokenizer = BPETokenizer.train(text, 256 + len(merges), pattern)
        assert tokenizer.merges == merges
        assert tokenizer.encode(text) == simple.encode(text, merges, pattern)


@given(TEXTS)
def test_encoding_merges_the_earliest_pair_first(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids == encode_by_definition(text, tokenizer)
    assert tokenizer.decode(ids) == text


# Training ------------------------------------------------------------------------------------


def test_ties_are_broken_by_the_smallest_ids():
    tokenizer = BPETokenizer.train("zx ba ab ay", 259, r"\w+| ")
    assert list(tokenizer.merges) == [(97, 98), (97, 121), (98, 97)]


def test_frequent_word_becomes_one_token():
    tokenizer = BPETokenizer.train("low low low lower lowest", 259)
    assert [tokenizer.token_bytes(i) for i in (256, 257, 258)] == [b"lo", b"low", b" low"]


@patterns
@given(st.lists(TEXTS), st.integers(1, 8))
def test_no_pair_crosses_from_one_text_to_the_next(pattern, texts, n_merges):
    words = [word.encode() for text in texts for word in regex.findall(pattern, text)]
    if all(len(word) < 2 for word in words):
        with pytest.raises(TokenizerError, match="at 256 every word is a single token"):
            BPETokenizer.train(iter(texts), 257, pattern)
    else:
        tokenizer = BPETokenizer.train(iter(texts), 257, pattern)
        assert list(tokenizer.merges) == [most_frequent_pair(words)]


@pytest.mark.parametrize("vocab_size, names, message", [
    (255, [], "vocab_size=255 should be at least 256: 256 bytes and 0 special tokens"),
    (257, [BEGIN, END], "vocab_size=257 should be at least 258: 256 bytes and 2 special tokens"),
    (9999, [END], "vocab_size=9999 is too large for this text: at 260 every word is a single"),
])
def test_impossible_vocab_size_is_refused(vocab_size, names, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer.train("abcd", vocab_size, special_tokens=names)


@pytest.mark.parametrize("texts", ["", [], [""], iter([])])
def test_empty_text_gives_bytes_without_merges(texts):
    tokenizer = BPETokenizer.train(texts, 257, special_tokens=[END])
    assert tokenizer.vocab_size == 257
    assert tokenizer.merges == {}
    assert tokenizer.encode("é") == [0xC3, 0xA9]


# Words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern, words", [
    (GPT2_PATTERN, ["QUEEN", "'", "S", " 12345", "  ", " it", "'s", "!", "\n\n", " a", " \n"]),
    (GPT4_PATTERN, ["QUEEN", "'S", " ", "123", "45", "  ", " it", "'s", "!\n\n", " a", " \n"]),
], ids=["gpt2", "gpt4"])
def test_patterns_split_words_as_published(pattern, words):
    assert regex.findall(pattern, "QUEEN'S 12345   it's!\n\n a \n") == words


@pytest.mark.parametrize("pattern, message", [
    (r"\w+", "skips character ' ' at position 3"),
    (r"w\w+", "skips character 't' at position 0"),
    (r" \w+|tw", "skips character 'o'"),
    (r"(", "is not a regular expression"),
    (r"x*", "skips character 't' at position 0"),
])
def test_pattern_that_loses_text_is_refused_in_training(pattern, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer.train("two words", 257, pattern)


def test_pattern_that_loses_text_is_refused_in_encoding():
    tokenizer = BPETokenizer(pattern=r"\w+", special_tokens={"<s>": 256})
    with pytest.raises(TokenizerError, match="skips character '!' at position 1"):
        tokenizer.encode("a!b")
    with pytest.raises(TokenizerError, match="skips character '!' at position 5"):
        tokenizer.encode("a<s>b!c", allowed_special="all")


def test_a_pattern_that_needs_exponential_time_is_stopped(monkeypatch):
    monkeypatch.setattr(words, "SECONDS", 0.01)
    tokenizer = BPETokenizer(pattern=r"(a|aa)+$|.")
    assert tokenizer.encode("aab") == [97, 97, 98]
    with pytest.raises(TokenizerError, match="tries fewer alternatives, such as GPT4_PATTERN"):
        tokenizer.encode("a" * 60 + "b")


def test_pattern_may_contain_groups():
    tokenizer = BPETokenizer.train("ab ab", 257, r"(\w)+|( )")
    assert tokenizer.encode("ab ab") == [256, 32, 256]


def test_half_a_surrogate_pair_is_refused_with_its_position(tokenizer):
    message = r"character '\\ud83d' at position 10 is half a surrogate pair"
    for function in (tokenizer.encode, lambda text: tokenizer.encode(text, "all"),
                     lambda text: BPETokenizer.train(text, 256)):
        with pytest.raises(TokenizerError, match=message):
            function(f"a{BEGIN}\ud83d")


# Merges and the cache ------------------------------------------------------------------------


@pytest.mark.parametrize("merges", [
    [(97, 256)], [(256, 97)], [(97, 98), (97, 98)], [(97, 300)],
    [(97, 98), (98, 99), (256, 99), (97, 257)],
])
def test_merge_of_missing_tokens_or_into_an_existing_token_is_refused(merges):
    message = "should exist before this merge, and the new token should not exist yet"
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer(merges, special_tokens={END: 300})


def test_incomplete_byte_order_is_refused():
    with pytest.raises(TokenizerError, match="every byte from 0 to 255 once"):
        BPETokenizer(byte_order=bytes(256))


def test_merge_skips_the_ids_of_special_tokens():
    tokenizer = BPETokenizer([(97, 98), (256, 99)], special_tokens={END: 257})
    assert tokenizer.merges == {(97, 98): 256, (256, 99): 258}
    assert tokenizer.vocab_size == 259
    assert tokenizer.encode("abc") == [258]


def test_added_merge_clears_the_cache():
    tokenizer = BPETokenizer()
    assert tokenizer.encode("ab") == [97, 98]
    assert tokenizer.add_merge(97, 98) == 256
    assert tokenizer.encode("ab") == [256]


def test_full_cache_is_cleared(monkeypatch):
    monkeypatch.setattr("gptlib.bpe.fast.CACHED_WORDS", 2)
    tokenizer = BPETokenizer.train("one two three", 260)
    text = "one two three four one"
    expected = simple.encode(text, tokenizer.merges)
    assert [tokenizer.encode(text) for _ in range(2)] == [expected] * 2
    assert len(tokenizer._cache) <= 2


def test_changing_a_returned_list_does_not_change_the_cache(tokenizer):
    tokenizer.encode("horses").append(0)
    assert 0 not in tokenizer.encode("horses")


def test_one_million_equal_letters_are_encoded():
    text = "a" * 1_000_000
    tokenizer = BPETokenizer.train(text[:100_000], 264)
    assert list(tokenizer.merges) == [(97, 97), *((i, i) for i in range(256, 263))]
    assert tokenizer.encode(text + "aaa") == [263] * (1_000_000 // 256) + [261, 256, 97]


# Special tokens ------------------------------------------------------------------------------


def test_special_token_in_a_text_is_ordinary_text_by_default(tokenizer):
    text = f"a{BEGIN}b{END}"
    begin, end = tokenizer.special_tokens[BEGIN], tokenizer.special_tokens[END]
    assert not {begin, end} & set(tokenizer.encode(text))
    only_begin = tokenizer.encode(text, allowed_special={BEGIN})
    assert only_begin == [97, begin, 98, *tokenizer.encode(END)]
    assert tokenizer.encode(text, allowed_special="all") == [97, begin, 98, end]
    assert tokenizer.decode([97, begin, 98, end]) == text


def test_disallowed_special_token_is_refused_with_its_position(tokenizer):
    message = r"the text contains the special token '<\|end\|>' at position 2"
    with pytest.raises(TokenizerError, match=message):
        tokenizer.encode(f"ab{END}", disallowed_special=[END])
    ordinary = tokenizer.encode(f"ab{END}")
    assert tokenizer.encode(f"ab{END}", disallowed_special=[BEGIN]) == ordinary


def test_unknown_special_token_is_refused(tokenizer):
    message = r"'<\|x\|>' is not a special token; they are <\|begin\|>, <\|end\|>"
    with pytest.raises(TokenizerError, match=message):
        tokenizer.encode("", allowed_special=["<|x|>"])


def test_longest_matching_special_token_wins():
    tokenizer = BPETokenizer.train("abab", 260, special_tokens=["<", "<<", "ab"])
    assert tokenizer.encode("<<<ab", allowed_special="all") == [258, 257, 259]
    assert tokenizer.encode("<<<ab") == [60, 60, 60, 256]
    assert tokenizer.decode([256, 259]) == "abab"


def test_document_is_encoded_between_begin_and_end(tokenizer):
    begin, end = tokenizer.special_tokens[BEGIN], tokenizer.special_tokens[END]
    ids = tokenizer.encode_document(f"a{END}")
    assert ids == [begin, *tokenizer.encode(f"a{END}"), end]
    message = r"'<\|begin\|>' is not a special token; this tokenizer has none"
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer().encode_document("a")


@pytest.mark.parametrize("special_tokens, message", [
    ({"a": 97}, "ids of special tokens must be at least 256, and one is 97"),
    ({"": 300}, "the name of a special token should not be empty"),
    ({"a": 300, "b": 300}, "special tokens must have different ids"),
])
def test_impossible_special_tokens_are_refused(special_tokens, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer(special_tokens=special_tokens)


# Decoding ------------------------------------------------------------------------------------


@given(st.binary())
def test_any_bytes_round_trip(tokenizer, data):
    assert tokenizer.decode_bytes(list(data)) == data
    assert b"".join(map(tokenizer.token_bytes, data)) == data


@pytest.mark.parametrize("token", [-1, 350])
def test_id_outside_the_vocabulary_is_refused(tokenizer, token):
    for decode in (tokenizer.decode, tokenizer.decode_bytes,
                   lambda ids: list(tokenizer.decode_stream(ids))):
        with pytest.raises(TokenizerError, match=rf"id {token} is not in the range 0 … 349"):
            decode([0, token])


def test_unused_id_is_refused():
    with pytest.raises(TokenizerError, match="id 256 belongs to no token of this tokenizer"):
        BPETokenizer(special_tokens={END: 257}).decode([97, 256])


@given(st.text())
def test_stream_yields_whole_characters(tokenizer, text):
    pieces = list(tokenizer.decode_stream(iter(text.encode())))
    assert pieces == list(text)


def test_stream_that_ends_inside_a_character_is_marked(tokenizer):
    first_byte = "é".encode()[0]
    assert list(tokenizer.decode_stream([97, first_byte])) == ["a", "�"]
    assert tokenizer.decode([97, first_byte]) == "a�"


# Files and copies ----------------------------------------------------------------------------


def test_saved_file_loads_as_the_same_tokenizer(tokenizer, tmp_path):
    path = tmp_path / "a.json"
    tokenizer.save(path)
    loaded = BPETokenizer.load(path)
    without_cache = {"_cache": None, "_pattern": None}
    assert vars(loaded) | without_cache == vars(tokenizer) | without_cache


def test_saved_file_has_one_readable_merge_a_line(tmp_path):
    path = tmp_path / "a.json"
    BPETokenizer.train("low lower lowest", 259).save(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[-6:] == [' "merges": [', '  "l o",', '  "lo w",', '  "Ġ low"', " ]", "}"]


def test_fingerprint_is_that_of_earlier_versions():
    # Checkpoints and measurements contain fingerprints. A change would make all of them invalid.
    tokenizer = BPETokenizer.train("low lower lowest\n\n", 262, special_tokens=[BEGIN, END])
    assert fingerprint(tokenizer) == "99e7de65be6b86c5"


@pytest.mark.parametrize("change", [
    {"merges": ["a"]}, {"merges": ["a b c"]}, {"merges": ["ab c"]}, {"merges": ["a b", "a b"]},
    {"merges": [7]}, {"merges": None}, {"bytes": "ab"}, {"bytes": None}, {"pattern": None},
    {"pattern": "("}, {"special_tokens": {"a": 97}}, {"special_tokens": {"": 300}},
    {"special_tokens": {"a": 300, "b": 300}}, {"special_tokens": [1]},
])
def test_file_with_a_wrong_field_is_refused(tokenizer, tmp_path, change):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tokenizer.to_dict() | change), encoding="utf-8")
    # The sentence speaks of the field, or of the merge, the byte or the special token in it.
    part = next(iter(change)).replace("_", ".").rstrip("s")
    with pytest.raises(TokenizerError, match=f"a.json contains no BPE tokenizer: .*{part}"):
        BPETokenizer.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_file_that_is_not_a_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="a.json contains no BPE tokenizer: "):
        BPETokenizer.load(path)


def test_copied_and_pickled_tokenizers_are_equal(tokenizer):
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert other.to_dict() == tokenizer.to_dict()
        assert other.encode(SAMPLE) == tokenizer.encode(SAMPLE)


# With a model --------------------------------------------------------------------------------


def test_checkpoint_stores_a_bpe_tokenizer(tiny, tokenizer, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, tiny(vocab_size=350), tokenizer)
    _, loaded = load_model(path)
    assert loaded.to_dict() == tokenizer.to_dict()


def test_sampled_text_never_contains_half_a_character(tiny, tokenizer):
    model, prompt = tiny(vocab_size=350), "আ"
    pieces = list(stream_text(model, tokenizer, prompt, 200, seed=2))
    prompt_ids = tokenizer.encode(prompt)
    ids = generate(model, torch.tensor([prompt_ids]), 200, seed=2)[0].tolist()
    # Some of the sampled tokens are parts of characters, so the stream had to wait.
    assert any(tokenizer.decode([token]) == "�" for token in ids)
    assert len(pieces) > 20
    new_bytes = tokenizer.decode_bytes(ids[len(prompt_ids):])
    assert "".join(pieces) == new_bytes.decode("utf-8", "replace")


def test_character_that_spans_tokens_is_streamed_whole(tokenizer):
    class Speller(torch.nn.Module):
        """A model that predicts the bytes of "é👍", one byte a token."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, idx):
            next_ids = torch.tensor([list("é👍".encode()[:idx.shape[1]])])
            # (1, T, V)
            return torch.nn.functional.one_hot(next_ids, 350) * 1e9 + self.weight

    pieces = stream_text(Speller(), tokenizer, "a", 6)
    assert [piece for piece in pieces if piece] == ["é", "👍"]
