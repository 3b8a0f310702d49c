import base64
import copy
import json
import os
import pickle
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import generate, load_checkpoint, save_checkpoint, stream_text
from gptlib.bpe import BEGIN, END, GPT2_PATTERN, GPT4_PATTERN, BPETokenizer, TokenizerError

CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"         # the name of cl100k_base in tiktoken's cache
SCRIPTS = {
    "empty": "", "one byte": "a", "English": "It's the QUEEN'S 12345 horses, isn't it?  They'll   run...\n\n  Again!",
    "emoji with joiners": "👩‍👩‍👧‍👦 🏳️‍🌈 🧑🏽‍🚀 👍🏿", "Bengali": "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি ১২৩৪", "Arabic": "السَّلامُ عَلَيْكُم ١٢٣٤٥",
    "Chinese": "天地玄黃,宇宙洪荒。日月盈昃,辰宿列張。", "combining marks": "e\u0301a\u0300\u0323 n\u0303o\u0308", "NULs": "a\0b\0\0 \0",
    "CRLF": "one\r\n\r\ntwo \r\n  three\r\n", "whitespace at the end": "end \n \t \n  ", "specials": f"{BEGIN}a{END}<|b|>{BEGIN[:-1]}",
}
SAMPLE = "\n".join(SCRIPTS.values()) * 2
PATTERNS = pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN, r"(?s).+", r"(?s)."], ids=["gpt2", "gpt4", "whole", "single"])
TEXTS = st.lists(st.sampled_from([*"aab  \n12'.é界👍", "the ", "ab", "\r\n"])).map("".join)


def naive_merge(ids, pair, new):
    merged = []
    for i in ids:
        if merged and (merged[-1], i) == pair:
            merged[-1] = new
        else:
            merged.append(i)
    return merged


def naive_train(text, n_merges, pattern):
    """Recount everything for each merge; of the most frequent pairs, the smallest."""
    words, merges = [list(word.encode()) for word in regex.findall(pattern, text)], {}
    for new in range(256, 256 + n_merges):
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges[pair] = new
        words = [naive_merge(word, pair, new) for word in words]
    return merges


def naive_encode(text, merges, pattern, byte_ids=range(256)):
    ids = []
    for word in regex.findall(pattern, text):
        word = [byte_ids[b] for b in word.encode()]
        while known := [merges[pair] for pair in pairwise(word) if pair in merges]:
            pair = next(pair for pair in merges if merges[pair] == min(known))
            word = naive_merge(word, pair, merges[pair])
        ids += word
    return ids


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(SAMPLE, 400, special_tokens=[BEGIN, END])


@pytest.fixture(scope="module")
def reference(tokenizer):
    return tokenizer.to_tiktoken()


@pytest.fixture(scope="module")
def cl100k():
    if not (Path(os.environ.get("TIKTOKEN_CACHE_DIR", "")) / CL100K).is_file():
        pytest.skip("cl100k_base is not in TIKTOKEN_CACHE_DIR, and tests download nothing")
    return tiktoken.get_encoding("cl100k_base")


@PATTERNS
@given(TEXTS, st.integers(0, 12))
def test_merges_are_those_of_recounting_everything(pattern, text, n_merges):
    naive = naive_train(text, n_merges, pattern)
    assert BPETokenizer.train(text, 256 + len(naive), pattern).merges == naive
    if len(naive) < n_merges:
        with pytest.raises(TokenizerError, match=rf"more than this text can give: every word is a single token at {256 + len(naive)}$"):
            BPETokenizer.train(text, 256 + n_merges, pattern)


@PATTERNS
@given(st.lists(TEXTS), st.integers(0, 8))
def test_several_texts_are_read_apart(pattern, texts, n_merges):
    counts = Counter(pair for text in texts for word in regex.findall(pattern, text) for pair in pairwise(word.encode()))
    try:
        merges = BPETokenizer.train(iter(texts), 256 + n_merges, pattern).merges
    except TokenizerError:
        return
    if merges:
        assert next(iter(merges)) == min(counts, key=lambda pair: (-counts[pair], pair))


def test_of_equally_frequent_pairs_the_smallest_goes_first():
    assert list(BPETokenizer.train("zx ba ab ay", 259, r"\w+| ").merges) == [(97, 98), (97, 121), (98, 97)]


def test_a_whole_word_in_capitals_is_learned_from_its_frequency_alone():
    tokenizer = BPETokenizer.train("low low low lower lowest", 259)
    assert [tokenizer.token_bytes(i) for i in (256, 257, 258)] == [b"lo", b"low", b" low"]


@pytest.mark.parametrize("pattern, words", [
    (GPT2_PATTERN, ["QUEEN", "'", "S", " 12345", "  ", " it", "'s", "!", "\n\n", " a", " \n"]),
    (GPT4_PATTERN, ["QUEEN", "'S", " ", "123", "45", "  ", " it", "'s", "!\n\n", " a", " \n"]),
], ids=["gpt2", "gpt4"])
def test_the_published_patterns_cut_words_as_published(pattern, words):
    assert regex.findall(pattern, "QUEEN'S 12345   it's!\n\n a \n") == words


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_the_ids_of_the_reference_and_of_tiktoken(tokenizer, reference, name):
    text = SCRIPTS[name]
    ids = tokenizer.encode(text)
    assert ids == naive_encode(text, tokenizer.merges, tokenizer.pattern) == reference.encode(text, disallowed_special=())
    assert tokenizer.decode(ids) == text and reference.decode(ids) == text


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN], ids=["gpt2", "gpt4"])
def test_ten_thousand_random_strings_have_tiktokens_ids_and_come_back(pattern):
    draw = random.Random(5)
    alphabet = [*SAMPLE, *" \n\r\t'", *map(chr, range(0x250)), *(chr(draw.randrange(0x20, 0xD800)) for _ in range(500))]
    tokenizer = BPETokenizer.train(SAMPLE, 450, pattern)
    reference = tokenizer.to_tiktoken()
    for _ in range(5_000):
        text = "".join(draw.choices(alphabet, k=draw.randrange(30)))
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text) and tokenizer.decode(ids) == text


@given(TEXTS)
def test_random_strings_have_the_reference_encoders_ids(tokenizer, text):
    assert tokenizer.encode(text) == naive_encode(text, tokenizer.merges, tokenizer.pattern)


def test_a_megabyte_of_one_letter_is_a_word_like_any_other():
    text = "a" * 1_000_000
    tokenizer = BPETokenizer.train(text[:100_000], 264)
    assert list(tokenizer.merges) == [(97, 97), *((i, i) for i in range(256, 263))]
    ids = tokenizer.encode(text + "aaa")
    assert ids == [263] * (1_000_000 // 256) + [261, 256, 97] == tokenizer.to_tiktoken().encode(text + "aaa")


def test_a_long_word_of_random_letters_has_tiktokens_ids():
    text = "".join(random.Random(1).choices("ab", k=20_000))
    tokenizer = BPETokenizer.train(text, 400)
    assert tokenizer.encode(text) == tokenizer.to_tiktoken().encode(text)


@given(st.binary())
def test_any_bytes_come_back(tokenizer, data):
    assert tokenizer.decode_bytes(list(data)) == data
    assert b"".join(map(tokenizer.token_bytes, data)) == data


def test_a_cache_that_is_full_begins_again(monkeypatch):
    monkeypatch.setattr("gptlib.bpe.CACHED_WORDS", 2)
    tokenizer = BPETokenizer.train("one two three", 260)
    text = "one two three four one"
    assert [tokenizer.encode(text) for _ in range(2)] == [tokenizer.to_tiktoken().encode(text)] * 2
    assert len(tokenizer._cache) <= 2


def test_a_returned_list_is_the_callers_own(tokenizer):
    tokenizer.encode("horses").append(0)
    assert 0 not in tokenizer.encode("horses")


@pytest.mark.parametrize("vocab_size, names, sentence", [
    (255, [], "vocab_size=255 should be at least 256: 256 bytes and 0 special tokens"),
    (257, [BEGIN, END], "vocab_size=257 should be at least 258: 256 bytes and 2 special tokens"),
    (9999, [END], r"vocab_size=9999 is more than this text can give: every word is a single token at 260$"),
])
def test_a_vocabulary_that_cannot_be_is_refused(vocab_size, names, sentence):
    with pytest.raises(TokenizerError, match=sentence):
        BPETokenizer.train("abcd", vocab_size, special_tokens=names)


@pytest.mark.parametrize("texts", ["", [], [""], iter([])])
def test_no_text_at_all_gives_the_bytes(texts):
    tokenizer = BPETokenizer.train(texts, 257, special_tokens=[END])
    assert tokenizer.vocab_size == 257 and tokenizer.merges == {} and tokenizer.encode("é") == [0xC3, 0xA9]


def test_half_a_surrogate_pair_is_refused_where_it_stands(tokenizer):
    for use in (tokenizer.encode, lambda text: BPETokenizer.train(text, 256), lambda text: tokenizer.encode(text, "all")):
        with pytest.raises(TokenizerError, match=r"character '\\ud83d' at position 10 is half a surrogate pair"):
            use(f"a{BEGIN}\ud83d")


@pytest.mark.parametrize("pattern, sentence", [
    (r"\w+", r"skips character ' ' at position 3"), (r"w\w+", "skips character 't' at position 0"), (r" \w+|tw", "skips character 'o'"),
    (r"(", "is no regular expression"), (r"x*", "skips character 't' at position 0"),
])
def test_a_pattern_that_would_lose_text_is_refused(pattern, sentence):
    with pytest.raises(TokenizerError, match=sentence):
        BPETokenizer.train("two words", 257, pattern)


def test_a_group_in_a_pattern_does_no_harm():
    assert BPETokenizer.train("ab ab", 257, r"(\w)+|( )").encode("ab ab") == [256, 32, 256]


def test_a_skipped_character_is_found_when_encoding_too():
    with pytest.raises(TokenizerError, match=r"skips character '!' at position 1"):
        BPETokenizer(pattern=r"\w+").encode("a!b")


def test_a_special_token_in_the_text_is_text_unless_allowed(tokenizer):
    text, (begin, end) = f"a{BEGIN}b{END}", tokenizer.special_tokens.values()
    assert not {begin, end} & set(tokenizer.encode(text))
    assert tokenizer.encode(text, allowed_special={BEGIN}) == [97, begin, 98, *tokenizer.encode(END)]
    assert tokenizer.encode(text, allowed_special="all") == [97, begin, 98, end]
    assert tokenizer.decode([97, begin, 98, end]) == text


@given(st.lists(st.sampled_from([BEGIN, END, "<|", "|>", "begin", "a", " ", "é"])).map("".join),
       st.sampled_from([(), (BEGIN,), (END,), "all"]))
def test_special_tokens_have_tiktokens_ids(tokenizer, reference, text, allowed):
    allowed = allowed if allowed == "all" else set(allowed)
    ids = tokenizer.encode(text, allowed_special=allowed)
    assert ids == reference.encode(text, allowed_special=allowed, disallowed_special=()) and tokenizer.decode(ids) == text
    try:
        expected = reference.encode(text, allowed_special=allowed)
    except ValueError:
        with pytest.raises(TokenizerError, match="stands in the text at position"):
            tokenizer.encode(text, allowed_special=allowed, disallowed_special="all")
    else:
        assert tokenizer.encode(text, allowed_special=allowed, disallowed_special="all") == expected


def test_a_disallowed_special_token_is_named_with_its_position(tokenizer):
    with pytest.raises(TokenizerError, match=r"special token '<\|end\|>' stands in the text at position 2"):
        tokenizer.encode(f"ab{END}", disallowed_special=[END])
    assert tokenizer.encode(f"ab{END}", disallowed_special=[BEGIN]) == tokenizer.encode(f"ab{END}")
    with pytest.raises(TokenizerError, match=r"'<\|x\|>' is no special token; known are <\|begin\|>, <\|end\|>"):
        tokenizer.encode("", allowed_special=["<|x|>"])


def test_of_special_tokens_that_begin_alike_the_longest_is_taken():
    tokenizer = BPETokenizer.train("abab", 260, special_tokens=["<", "<<", "ab"])
    assert tokenizer.encode("<<<ab", allowed_special="all") == [258, 257, 259]
    assert tokenizer.encode("<<<ab") == [60, 60, 60, 256] and tokenizer.decode([256, 259]) == "abab"


def test_a_document_begins_and_ends_with_its_own_token(tokenizer):
    begin, end = (tokenizer.special_tokens[name] for name in (BEGIN, END))
    assert tokenizer.encode_document(f"a{END}") == [begin, *tokenizer.encode(f"a{END}"), end]
    with pytest.raises(TokenizerError, match=r"'<\|begin\|>' is no special token; known are none"):
        BPETokenizer().encode_document("a")


@pytest.mark.parametrize("beyond", [-1, 400])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, beyond):
    for use in (tokenizer.decode, tokenizer.decode_bytes, lambda ids: list(tokenizer.decode_stream(ids))):
        with pytest.raises(TokenizerError, match=rf"id {beyond} is not in this tokenizer's range 0 … 399"):
            use([0, beyond])


def test_a_spare_id_is_refused_by_name():
    with pytest.raises(TokenizerError, match="id 256 is spare in this tokenizer"):
        BPETokenizer(special_tokens={END: 257}).decode([97, 256])


@given(st.text())
def test_a_stream_never_holds_half_a_character(tokenizer, text):
    data = list(text.encode())
    pieces = list(tokenizer.decode_stream(iter(data)))
    assert "".join(pieces) == text and all(len(piece) == 1 for piece in pieces)


def test_a_stream_that_ends_within_a_character_says_so(tokenizer):
    assert list(tokenizer.decode_stream([97, *"é".encode()[:1]])) == ["a", "�"] and tokenizer.decode([97, 0xC3]) == "a�"


def test_a_saved_tokenizer_comes_back_and_can_be_read(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a.json")
    again = BPETokenizer.load(tmp_path / "a.json")
    assert vars(again) | {"_cache": 0, "_regex": 0} == vars(tokenizer) | {"_cache": 0, "_regex": 0}
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").splitlines()
    assert ' "merges": [' in lines and len(lines) > len(tokenizer.merges)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["merges"][0] == "à ¦"         # as Bengali's letters begin


@pytest.mark.parametrize("change", [
    {"merges": ["a"]}, {"merges": ["a b c"]}, {"merges": ["ab c"]}, {"merges": ["a b", "a b"]}, {"merges": [7]}, {"merges": None},
    {"bytes": "ab"}, {"bytes": None}, {"pattern": None}, {"pattern": "("},
    {"special_tokens": {"a": 97}}, {"special_tokens": {"": 300}}, {"special_tokens": {"a": 300, "b": 300}}, {"special_tokens": [1]},
])
def test_a_file_that_holds_no_tokenizer_is_refused(tokenizer, tmp_path, change):
    (tmp_path / "a.json").write_text(json.dumps(tokenizer.to_dict() | change), encoding="utf-8")
    with pytest.raises(TokenizerError, match="a.json holds no BPE tokenizer: pattern, special_tokens, bytes or merges are"):
        BPETokenizer.load(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(TokenizerError, match="a.json holds no BPE tokenizer: "):
        BPETokenizer.load(tmp_path / "a.json")


def test_a_tokenizer_can_be_copied_and_sent_to_another_process(tokenizer):
    for again in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert again.to_dict() == tokenizer.to_dict() and again.encode(SAMPLE) == tokenizer.encode(SAMPLE)


def test_tiktokens_rank_file_holds_the_merges(tokenizer, tmp_path):
    path = tmp_path / "a.tiktoken"
    tokenizer.save_tiktoken(path)
    again = BPETokenizer.load_tiktoken(path, tokenizer.pattern, tokenizer.special_tokens)
    assert again.to_dict() == tokenizer.to_dict()
    lines = [line.split() for line in path.read_bytes().splitlines()]
    assert {base64.b64decode(token): int(rank) for token, rank in lines} == tokenizer.ranks()


@pytest.mark.parametrize("lines, sentence", [
    ([b"!!! 256"], "is no file of ranks"), ([b"YWI="], "is no file of ranks"), ([b"YWI= x"], "is no file of ranks"),
    ([b"YWJj 256"], "token b'abc' of rank 256 is not made by a merge"), ([b"YWI= 300"], "rank 300 is not made by .* or its rank"),
])
def test_ranks_that_no_merges_give_are_refused(tmp_path, lines, sentence):
    path = tmp_path / "a.tiktoken"
    BPETokenizer().save_tiktoken(path)
    path.write_bytes(path.read_bytes() + b"\n".join(lines) + b"\n")
    with pytest.raises(TokenizerError, match=sentence):
        BPETokenizer.load_tiktoken(path, GPT4_PATTERN)


def test_ranks_without_all_bytes_are_refused():
    with pytest.raises(TokenizerError, match="ranks 0 to 255 should be those of the 256 bytes"):
        BPETokenizer.from_ranks({bytes([b]): b for b in range(255)} | {b"ab": 255}, GPT4_PATTERN, {})


def shuffled(tokenizer, special_tokens):
    """The same tokens with their bytes in another order, and a special token in the midst of them, as gpt2 and p50k_base have it."""
    order = list(range(256))
    random.Random(3).shuffle(order)
    ids = {i: order.index(i) for i in range(256)}
    merges = []
    for (left, right), new in tokenizer.merges.items():
        merges.append((ids[left], ids[right]))
        ids[new] = new + (new >= 300)
    return BPETokenizer(merges, tokenizer.pattern, special_tokens, order)


def test_bytes_in_another_order_and_special_tokens_amid_the_merges(tokenizer, tmp_path):
    other = shuffled(tokenizer, {END: 300, BEGIN: 450})
    assert other.encode("a") != tokenizer.encode("a") and 300 not in other.merges.values() and other.vocab_size == 451
    encoding = other.to_tiktoken()
    for text in SCRIPTS.values():
        ids = other.encode(text, allowed_special="all")
        assert ids == encoding.encode(text, allowed_special="all") and other.decode(ids) == text
    other.save(tmp_path / "a.json")
    for again in (BPETokenizer.from_tiktoken(encoding), BPETokenizer.load(tmp_path / "a.json")):
        assert (again.merges, again.special_tokens, again.vocab_size) == (other.merges, other.special_tokens, 451)
        assert again.encode(SAMPLE) == other.encode(SAMPLE)


def test_merges_that_tiktoken_would_apply_otherwise_are_not_handed_to_it():
    hand_made = BPETokenizer([(98, 99), (97, 98), (257, 99)])          # bc, ab, ab+c: but bc always comes before
    assert hand_made.encode("abc") == [97, 256]
    with pytest.raises(TokenizerError, match=r"token b'abc' \(258\) is never reached"):
        hand_made.to_tiktoken()


@pytest.mark.parametrize("merges", [[(97, 256)], [(256, 97)], [(97, 98), (97, 98)], [(97, 300)],
                                    [(97, 98), (98, 99), (256, 99), (97, 257)]])
def test_merges_of_what_does_not_exist_or_into_what_does_are_refused(merges):
    with pytest.raises(TokenizerError, match="should be of two tokens that exist before it, and make one that does not"):
        BPETokenizer(merges, special_tokens={END: 300})


def test_gpt4s_tokenizer_is_recovered(cl100k):
    tokenizer = BPETokenizer.from_tiktoken(cl100k)
    assert (tokenizer.ranks(), tokenizer.special_tokens) == (cl100k._mergeable_ranks, cl100k._special_tokens)
    assert (tokenizer.pattern, tokenizer.vocab_size, len(tokenizer.merges)) == (GPT4_PATTERN, cl100k.n_vocab, 100_000)
    for text in [*SCRIPTS.values(), "<|endoftext|>", SAMPLE]:
        for allowed in (set(), "all"):
            ids = tokenizer.encode(text, allowed_special=allowed)
            assert ids == cl100k.encode(text, allowed_special=allowed, disallowed_special=()) and tokenizer.decode(ids) == text


def test_a_checkpoint_keeps_its_bpe_tokenizer(tiny, tokenizer, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", tiny(vocab_size=400), tokenizer)
    assert load_checkpoint(tmp_path / "a.safetensors").tokenizer.to_dict() == tokenizer.to_dict()


def test_sampled_text_never_holds_half_a_character(tiny, tokenizer):
    model, prompt = tiny(vocab_size=400), "আ"
    pieces = list(stream_text(model, tokenizer, prompt, 200, seed=2))
    tokens = generate(model, torch.tensor([tokenizer.encode(prompt)]), 200, seed=2)[0].tolist()
    assert any(tokenizer.decode([token]) == "�" for token in tokens) and len(pieces) > 20          # there were halves to hold back
    assert "".join(pieces) == tokenizer.decode_bytes(tokens[len(tokenizer.encode(prompt)):]).decode("utf-8", "replace")


def test_a_character_that_spans_tokens_is_streamed_whole(tokenizer):
    class Spells(torch.nn.Module):
        """Says the bytes of "é👍", one a token."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, idx):
            said = list("é👍".encode()[:idx.shape[1]])
            return torch.nn.functional.one_hot(torch.tensor([said]), 400) * 1e9 + self.weight      # (1, T, V)

    assert [piece for piece in stream_text(Spells(), tokenizer, "a", 6) if piece] == ["é", "👍"]
