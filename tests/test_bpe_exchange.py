"""The exchange with tiktoken: files of ranks, encodings, and equal ids."""

import base64
import os
import random
import threading
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gptlib.bpe import (
    BEGIN,
    END,
    GPT2_PATTERN,
    GPT4_PATTERN,
    BPETokenizer,
    find_tiktoken,
    from_tiktoken,
    load_tiktoken,
    save_tiktoken,
    simple,
    to_tiktoken,
)
from gptlib.bpe.exchange import from_ranks, to_ranks
from gptlib.tokenizer import TokenizerError

# the name of cl100k_base in tiktoken's cache
CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
SCRIPTS = {
    "empty": "",
    "one byte": "a",
    "English": "It's the QUEEN'S 12345 horses, isn't it?  They'll   run...\n\n  Again!",
    "emoji with joiners": "👩‍👩‍👧‍👦 🏳️‍🌈 🧑🏽‍🚀 👍🏿",
    "Bengali": "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি ১২৩৪",
    "Arabic": "السَّلامُ عَلَيْكُم ١٢٣٤٥",
    "Chinese": "天地玄黃,宇宙洪荒。日月盈昃,辰宿列張。",
    "combining marks": "e\u0301a\u0300\u0323 n\u0303o\u0308",
    "NULs": "a\0b\0\0 \0",
    "CRLF": "one\r\n\r\ntwo \r\n  three\r\n",
    "white space at the end": "end \n \t \n  ",
    "special tokens": f"{BEGIN}a{END}<|b|>{BEGIN[:-1]}",
}
SAMPLE = "\n".join(SCRIPTS.values()) * 2


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(SAMPLE, 400, special_tokens=[BEGIN, END])


@pytest.fixture(scope="module")
def encoding(tokenizer):
    return to_tiktoken(tokenizer)


@pytest.fixture(scope="module")
def cl100k():
    if not (Path(os.environ.get("TIKTOKEN_CACHE_DIR", "")) / CL100K).is_file():
        pytest.skip("cl100k_base is not in TIKTOKEN_CACHE_DIR, and tests download nothing")
    return tiktoken.get_encoding("cl100k_base")


# Equal ids -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_tiktokens_ids(tokenizer, encoding, name):
    text = SCRIPTS[name]
    ids = tokenizer.encode(text)
    assert ids == encoding.encode(text, disallowed_special=())
    assert ids == simple.encode(text, tokenizer.merges)
    assert tokenizer.decode(ids) == encoding.decode(ids) == text


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, GPT4_PATTERN], ids=["gpt2", "gpt4"])
def test_ten_thousand_random_strings_have_tiktokens_ids(pattern):
    rng = random.Random(5)
    any_script = [chr(rng.randrange(0x20, 0xD800)) for _ in range(500)]
    alphabet = [*SAMPLE, *" \n\r\t'", *map(chr, range(0x250)), *any_script]
    tokenizer = BPETokenizer.train(SAMPLE, 450, pattern)
    encoding = to_tiktoken(tokenizer)
    for _ in range(5_000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(30)))
        ids = tokenizer.encode(text)
        assert ids == encoding.encode(text)
        assert tokenizer.decode(ids) == text


def test_a_letter_that_only_one_side_knows_changes_ids_but_not_the_text(cl100k):
    """U+A7CE is a letter since Unicode 17. `regex` and tiktoken may know different versions."""
    tokenizer = from_tiktoken(cl100k)
    text = "a\ua7ce's"
    words = ["a\ua7ce", "'s"] if regex.match(r"\p{L}", "\ua7ce") else ["a", "\ua7ce'", "s"]
    assert tokenizer.encode(text) == [i for word in words for i in tokenizer.encode(word)]
    assert tokenizer.decode(tokenizer.encode(text)) == cl100k.decode(cl100k.encode(text)) == text


@pytest.mark.parametrize("letters, n, vocab_size", [("a", 1_000_003, 264), ("ab", 20_000, 400)])
def test_one_long_word_has_tiktokens_ids(letters, n, vocab_size):
    text = "".join(random.Random(1).choices(letters, k=n))
    tokenizer = BPETokenizer.train(text[:100_000], vocab_size)
    assert tokenizer.encode(text) == to_tiktoken(tokenizer).encode(text)


@given(st.lists(st.sampled_from([BEGIN, END, "<|", "|>", "begin", "a", " ", "é"])).map("".join),
       st.sampled_from([(), (BEGIN,), (END,), "all"]))
def test_special_tokens_have_tiktokens_ids(tokenizer, encoding, text, allowed):
    allowed = allowed if allowed == "all" else set(allowed)
    ids = tokenizer.encode(text, allowed_special=allowed)
    assert ids == encoding.encode(text, allowed_special=allowed, disallowed_special=())
    assert tokenizer.decode(ids) == text


@given(st.lists(st.sampled_from([BEGIN, END, "<|", "a"])).map("".join),
       st.sampled_from([(), (BEGIN,), (END,), "all"]))
def test_special_tokens_are_refused_when_tiktoken_refuses_them(tokenizer, encoding, text, allowed):
    allowed = allowed if allowed == "all" else set(allowed)
    try:
        expected = encoding.encode(text, allowed_special=allowed)
    except ValueError:
        with pytest.raises(TokenizerError, match="the text contains the special token"):
            tokenizer.encode(text, allowed_special=allowed, disallowed_special="all")
    else:
        ids = tokenizer.encode(text, allowed_special=allowed, disallowed_special="all")
        assert ids == expected


# Ranks ---------------------------------------------------------------------------------------


@given(st.text("ab c", max_size=200), st.integers(0, 30))
def test_merges_are_recovered_from_ranks(text, n_merges):
    merges = simple.train(text, n_merges)
    tokenizer = BPETokenizer(merges)
    recovered = from_ranks(to_ranks(tokenizer), tokenizer.pattern)
    assert recovered.to_dict() == tokenizer.to_dict()


def test_file_of_ranks_contains_the_merges(tokenizer, tmp_path):
    path = tmp_path / "a.tiktoken"
    save_tiktoken(tokenizer, path)
    loaded = load_tiktoken(path, tokenizer.pattern, tokenizer.special_tokens)
    assert loaded.to_dict() == tokenizer.to_dict()
    lines = [line.split() for line in path.read_bytes().splitlines()]
    assert {base64.b64decode(token): int(rank) for token, rank in lines} == to_ranks(tokenizer)


@pytest.mark.parametrize("line, message", [
    (b"!!! 256", "is not a file of ranks"),
    (b"YWI=", "is not a file of ranks"),
    (b"YWI= x", "is not a file of ranks"),
    (b"YWJj 256", "token b'abc' of rank 256 is not a merge of two earlier tokens"),
    (b"YWI= 300", "token b'ab' has rank 300, and 256 is the next free rank"),
])
def test_wrong_file_of_ranks_is_refused(tmp_path, line, message):
    path = tmp_path / "a.tiktoken"
    save_tiktoken(BPETokenizer(), path)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(TokenizerError, match=message):
        load_tiktoken(path)


def test_ranks_without_all_bytes_are_refused():
    ranks = {bytes([byte]): byte for byte in range(255)} | {b"ab": 255}
    with pytest.raises(TokenizerError, match="ranks 0 to 255 should be those of the 256 bytes"):
        from_ranks(ranks, GPT4_PATTERN)


# Encodings -----------------------------------------------------------------------------------


def with_other_byte_order(tokenizer, special_tokens):
    """Return a tokenizer with the same tokens, whose bytes have other ids.

    One special token has id 300, between the ids of the merges. The published vocabularies gpt2 and
    p50k_base have both properties.
    """
    byte_order = list(range(256))
    random.Random(3).shuffle(byte_order)
    new_ids = {byte: i for i, byte in enumerate(byte_order)}
    merges = []
    for (left, right), new_id in tokenizer.merges.items():
        merges.append((new_ids[left], new_ids[right]))
        new_ids[new_id] = new_id + (new_id >= 300)
    return BPETokenizer(merges, tokenizer.pattern, special_tokens, byte_order)


def test_byte_order_and_special_tokens_between_merges_are_exchanged(tokenizer, tmp_path):
    other = with_other_byte_order(tokenizer, {END: 300, BEGIN: 450})
    assert other.encode("a") != tokenizer.encode("a")
    assert 300 not in other.merges.values()
    assert other.vocab_size == 451
    encoding = to_tiktoken(other)
    for text in SCRIPTS.values():
        ids = other.encode(text, allowed_special="all")
        assert ids == encoding.encode(text, allowed_special="all")
        assert other.decode(ids) == text
    other.save(tmp_path / "a.json")
    for copy in (from_tiktoken(encoding), BPETokenizer.load(tmp_path / "a.json")):
        assert copy.to_dict() == other.to_dict()
        assert copy.vocab_size == 451
        assert copy.encode(SAMPLE) == other.encode(SAMPLE)


def test_token_that_merges_never_produce_is_refused():
    # The merges are bc, ab and ab+c. In "abc" the pair bc is merged first, so ab+c never occurs.
    tokenizer = BPETokenizer([(98, 99), (97, 98), (257, 99)])
    assert tokenizer.encode("abc") == [97, 256]
    with pytest.raises(TokenizerError, match=r"the merges never produce token b'abc' \(258\)"):
        to_tiktoken(tokenizer)


def test_gpt4_tokenizer_is_recovered(cl100k):
    tokenizer = from_tiktoken(cl100k)
    assert to_ranks(tokenizer) == cl100k._mergeable_ranks
    assert tokenizer.special_tokens == cl100k._special_tokens
    assert tokenizer.pattern == GPT4_PATTERN
    assert tokenizer.vocab_size == cl100k.n_vocab
    assert len(tokenizer.merges) == 100_000
    for text in [*SCRIPTS.values(), "<|endoftext|>", SAMPLE]:
        for allowed in (set(), "all"):
            ids = tokenizer.encode(text, allowed_special=allowed)
            expected = cl100k.encode(text, allowed_special=allowed, disallowed_special=())
            assert ids == expected
            assert tokenizer.decode(ids) == text


def test_tiktokens_encoding_is_found(cl100k):
    assert find_tiktoken("cl100k_base") is cl100k


def test_an_encoding_that_is_not_available_gives_none_and_a_printed_reason(monkeypatch, capsys):
    def no_network(name):
        raise ConnectionError

    monkeypatch.setattr(tiktoken, "get_encoding", no_network)
    assert find_tiktoken("cl100k_base") is None
    expected = "tiktoken's vocabulary cl100k_base is not available (ConnectionError)\n"
    assert capsys.readouterr().out == expected


def test_a_download_that_does_not_end_is_not_waited_for(monkeypatch, capsys):
    end_of_test = threading.Event()
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: end_of_test.wait())
    assert find_tiktoken(seconds=0.05) is None
    assert "(no answer within 0.05 seconds)" in capsys.readouterr().out
    end_of_test.set()
