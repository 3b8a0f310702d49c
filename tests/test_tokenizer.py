import json
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import BPETokenizer, CharTokenizer, LowercaseTokenizer, make_tokenizer
from gptlib.data import split
from gptlib.tokenizer import Tokenizer, TokenizerError, fingerprint, load_tokenizer, save_tokenizer

KNOWN = "".join(c for c in string.printable if c not in string.ascii_uppercase)
BPE = BPETokenizer.train("abc abc ü∞ü∞", 262, special_tokens=["<|end|>"])
tokenizers = pytest.mark.parametrize("tokenizer", [CharTokenizer("abc ü∞"), LowercaseTokenizer(), LowercaseTokenizer(100), BPE])


@given(st.text(min_size=1))
def test_characters_come_back_from_any_text(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(min_size=1))
def test_every_id_is_used_and_below_vocab_size(text):
    tokenizer = CharTokenizer.from_text(text)
    assert set(tokenizer.encode(text)) == set(range(tokenizer.vocab_size))


@given(st.text(min_size=1))
def test_a_characters_bytes_are_its_utf8(text):
    tokenizer = CharTokenizer.from_text(text)
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode("utf-8")


def test_ids_follow_code_points_whatever_the_order_of_the_text():
    assert CharTokenizer("cab").encode("abc") == CharTokenizer("abca").encode("abc") == [0, 1, 2]


def test_an_unknown_character_is_named_with_its_position():
    with pytest.raises(TokenizerError, match=r"character 'é' \(U\+00E9\) at position 2 is not among the 3 characters"):
        CharTokenizer("abc").encode("abé")


def test_an_alphabet_has_at_least_one_character():
    with pytest.raises(TokenizerError, match="alphabet is empty"):
        CharTokenizer("")


@tokenizers
def test_a_tokenizer_fits_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)


@tokenizers
def test_nothing_is_encoded_as_nothing(tokenizer):
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


@tokenizers
def test_a_tensor_is_decoded_like_a_list(tokenizer):
    assert tokenizer.decode(torch.tensor([2, 0, 1])) == tokenizer.decode([2, 0, 1])


@tokenizers
@pytest.mark.parametrize("beyond", [-1, 0])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, beyond):
    wrong = -1 if beyond else tokenizer.vocab_size
    with pytest.raises(TokenizerError, match=rf"id {wrong} is not in this tokenizer's range 0 … {tokenizer.vocab_size - 1}"):
        tokenizer.decode([0, wrong])


@tokenizers
def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(again) is type(tokenizer) and again.to_dict() == tokenizer.to_dict()
    assert again.encode("abc") == tokenizer.encode("abc")


@tokenizers
def test_a_tokenizer_survives_json(tokenizer):
    assert fingerprint(load_tokenizer(json.loads(json.dumps(tokenizer.to_dict())))) == fingerprint(tokenizer)


def test_another_alphabet_has_another_fingerprint():
    prints = {fingerprint(t) for t in (CharTokenizer("ab"), CharTokenizer("ac"), CharTokenizer("abc"), LowercaseTokenizer(),
                                       BPE, BPETokenizer(BPE.merges), BPETokenizer(list(BPE.merges)[:2]), BPETokenizer(pattern=r"(?s)."))}
    assert len(prints) == 8


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"class": "Other"}', '{"class": "CharTokenizer"}', '{"class": ["a"]}',
                                     '{"class": "CharTokenizer", "alphabet": ""}', '{"class": "LowercaseTokenizer", "vocab_size": 3}',
                                     '{"class": "BPETokenizer"}', '{"class": "BPETokenizer", "merges": 3}'])
def test_a_file_that_holds_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError):
        load_tokenizer(path)


def test_a_file_that_is_not_utf8_holds_no_tokenizer(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(TokenizerError, match="holds no tokenizer of this library"):
        load_tokenizer(path)


def test_picogpts_alphabet_stands_in_its_published_order():
    tokenizer = LowercaseTokenizer()
    assert tokenizer.vocab_size == 88 and len(KNOWN) == 74
    assert [tokenizer.decode([i]) for i in range(88)] == ["<?>", *KNOWN, "<P>", "<S>", "</S>", "<Q>", "</Q>", "<A>", "</A>"] + 6 * ["<?>"]


@given(st.text(KNOWN))
def test_lowercase_text_comes_back(text):
    tokenizer = LowercaseTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_any_text_comes_back_in_lower_case_with_what_is_unknown_marked(text):
    tokenizer = LowercaseTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(c if c in KNOWN else "<?>" for c in text.lower())


def test_a_special_tokens_name_is_ordinary_text_unless_allowed():
    tokenizer = LowercaseTokenizer()
    assert tokenizer.encode("<Q>") == tokenizer.encode("<q>") and len(tokenizer.encode("<Q>")) == 3
    assert tokenizer.encode("a<Q>b</Q>", allowed_special=["<Q>"]) == [11, 78, 12, *tokenizer.encode("</q>")]


@given(st.lists(st.sampled_from([*LowercaseTokenizer.SPECIAL, "a", "<", "/", "q"])).map("".join))
def test_special_tokens_come_back(text):
    tokenizer = LowercaseTokenizer()
    assert tokenizer.decode(tokenizer.encode(text, allowed_special=tokenizer.SPECIAL)) == text


def test_an_unknown_special_token_is_refused():
    with pytest.raises(TokenizerError, match="'<X>' is no special token; known are <P>, <S>"):
        LowercaseTokenizer().encode("a", allowed_special=["<X>"])


def test_a_vocabulary_too_small_for_its_tokens_is_refused():
    with pytest.raises(TokenizerError, match="vocab_size=81 should be at least 82"):
        LowercaseTokenizer(81)


TEXT = "to be, or not to be: " * 20 + "Ω" * 40 + "ü"


def test_the_tokenizer_of_a_run_is_chosen_by_name():
    char, lowercase, bpe = (make_tokenizer(name, TEXT, vocab_size=265) for name in ("char", "lowercase", "bpe"))
    assert char.to_dict() == CharTokenizer.from_text(TEXT).to_dict()
    assert lowercase.to_dict() == LowercaseTokenizer().to_dict()
    assert isinstance(bpe, BPETokenizer) and bpe.vocab_size == 265


@pytest.mark.parametrize("val_fraction", [0.1, 0.25])
def test_merges_are_learned_from_the_training_split_alone(val_fraction):
    learned = make_tokenizer("bpe", TEXT, 265, val_fraction).to_dict()
    assert learned == BPETokenizer.train(split(TEXT, val_fraction)[0], 265).to_dict() != BPETokenizer.train(TEXT, 265).to_dict()


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(TokenizerError, match="unknown tokenizer 'bpee': did you mean 'bpe'. Known: char, lowercase, bpe"):
        make_tokenizer("bpee", TEXT)
