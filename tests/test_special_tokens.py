"""Special tokens stand beside any tokenizer, and no text is encoded to one of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib import BPETokenizer, CharTokenizer, LowercaseTokenizer
from gptlib.bpe.build import load_tokenizer, save_tokenizer
from gptlib.corpora.special_tokens import SpecialTokenizer
from gptlib.tokenizer import TokenizerError, fingerprint

TEXT = "<A>to be or not to be</A> <|end|> ü🙂"
TOKENIZERS = {
    "char": CharTokenizer.from_text(TEXT),
    "lowercase": LowercaseTokenizer(),
    "bpe": BPETokenizer.train(TEXT, vocab_size=260),
}
NAMES = ["<A>", "</A>", "<|end|>"]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return SpecialTokenizer(TOKENIZERS[request.param], NAMES)


def test_a_typed_special_token_is_ordinary_text(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids == tokenizer.tokenizer.encode(TEXT)
    assert not any(tokenizer.is_special(i) for i in ids)


@given(text=st.lists(st.sampled_from([*NAMES, "a", "ü", "🙂", "<", "|"])).map("".join))
def test_no_text_is_encoded_to_a_special_token(text):
    tokenizer = SpecialTokenizer(TOKENIZERS["bpe"], NAMES)
    ids = tokenizer.encode(text)
    assert max(ids, default=0) < tokenizer.first
    assert tokenizer.decode(ids) == text


def test_the_ids_of_special_tokens_follow_those_of_the_tokenizer(tokenizer):
    first = tokenizer.tokenizer.vocab_size
    assert [tokenizer.special(name) for name in NAMES] == [first, first + 1, first + 2]
    assert tokenizer.vocab_size == first + 3
    assert [tokenizer.is_special(i) for i in (first - 1, first)] == [False, True]


def test_special_tokens_are_decoded_to_their_names(tokenizer):
    middle = tokenizer.encode("to be")
    ids = [tokenizer.special("<A>"), *middle, tokenizer.special("</A>")]
    assert tokenizer.decode(ids) == "<A>to be</A>"
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"<A>to be</A>"


def test_a_character_whose_bytes_are_several_tokens_is_decoded_beside_a_special_token():
    tokenizer = SpecialTokenizer(BPETokenizer.train("abc", vocab_size=257), NAMES)
    ids = tokenizer.encode("🙂")
    assert len(ids) == 4
    assert tokenizer.decode([*ids, tokenizer.special("<A>"), *ids]) == "🙂<A>🙂"


def test_saving_and_loading_change_nothing(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert fingerprint(loaded) == fingerprint(tokenizer)
    assert loaded.special("</A>") == tokenizer.special("</A>")
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)


@pytest.mark.parametrize("names", [[], [""], ["<A>", "<A>"]], ids=["none", "empty", "twice"])
def test_names_should_be_different_and_not_empty(names):
    with pytest.raises(TokenizerError, match="should be different names, at least one"):
        SpecialTokenizer(CharTokenizer("ab"), names)


def test_an_unknown_special_token_is_named(tokenizer):
    with pytest.raises(TokenizerError, match="'<B>' is not a special token"):
        tokenizer.special("<B>")
