"""Tokenizers of characters, and what all tokenizers have in common."""

import json
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import BPETokenizer, CharTokenizer, LowercaseTokenizer, make_tokenizer
from gptlib.bpe import load_tokenizer, save_tokenizer
from gptlib.data import split
from gptlib.tokenizer import Tokenizer, TokenizerError, fingerprint, unknown_share

LOWERCASE_CHARACTERS = "".join(c for c in string.printable if c not in string.ascii_uppercase)
BPE = BPETokenizer.train("abc abc ü∞ü∞", 262, special_tokens=["<|end|>"])
each_tokenizer = pytest.mark.parametrize("tokenizer", [
    CharTokenizer("abc ü∞"), LowercaseTokenizer(), LowercaseTokenizer(100), BPE,
], ids=["char", "lowercase", "lowercase 100", "bpe"])


# Every tokenizer ----------------------------------------------------------------------------------

@each_tokenizer
def test_tokenizer_follows_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)


@each_tokenizer
def test_empty_text_has_no_ids(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@each_tokenizer
def test_tensor_is_decoded_like_a_list(tokenizer):
    assert tokenizer.decode(torch.tensor([2, 0, 1])) == tokenizer.decode([2, 0, 1])


@each_tokenizer
@pytest.mark.parametrize("side", ["negative", "too large"])
def test_id_outside_the_vocabulary_is_not_decoded(tokenizer, side):
    wrong = -1 if side == "negative" else tokenizer.vocab_size
    last = tokenizer.vocab_size - 1
    with pytest.raises(TokenizerError) as error:
        tokenizer.decode([0, wrong])
    assert str(error.value) == f"id {wrong} is not in the range 0 … {last} of this tokenizer"


@each_tokenizer
def test_saved_tokenizer_can_be_loaded(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer)
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode("abc") == tokenizer.encode("abc")


@each_tokenizer
def test_dict_of_a_tokenizer_survives_json(tokenizer):
    loaded = load_tokenizer(json.loads(json.dumps(tokenizer.to_dict())))
    assert fingerprint(loaded) == fingerprint(tokenizer)


def test_different_tokenizers_have_different_fingerprints():
    tokenizers = [
        CharTokenizer("ab"), CharTokenizer("ac"), CharTokenizer("abc"), LowercaseTokenizer(),
        BPE, BPETokenizer(BPE.merges), BPETokenizer(list(BPE.merges)[:2]),
        BPETokenizer(pattern=r"(?s)."),
    ]
    assert len({fingerprint(tokenizer) for tokenizer in tokenizers}) == len(tokenizers)


@pytest.mark.parametrize("content", [
    "", "{", "[]", "7", '{"class": "Other"}', '{"class": ["a"]}',
    '{"class": "CharTokenizer"}', '{"class": "CharTokenizer", "alphabet": ""}',
    '{"class": "LowercaseTokenizer", "vocab_size": 3}',
    '{"class": "BPETokenizer"}', '{"class": "BPETokenizer", "merges": 3}',
])
def test_file_without_a_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError):
        load_tokenizer(path)


def test_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(TokenizerError, match="it is not utf-8 text"):
        load_tokenizer(path)


# CharTokenizer ------------------------------------------------------------------------------------

@given(st.text(min_size=1))
def test_decoding_returns_the_encoded_text(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(min_size=1))
def test_every_id_below_vocab_size_is_used(text):
    tokenizer = CharTokenizer.from_text(text)
    assert set(tokenizer.encode(text)) == set(range(tokenizer.vocab_size))


@given(st.text(min_size=1))
def test_token_bytes_are_the_utf8_bytes_of_the_character(text):
    tokenizer = CharTokenizer.from_text(text)
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode("utf-8")


def test_ids_follow_the_order_of_code_points():
    assert CharTokenizer("cab").encode("abc") == [0, 1, 2]
    assert CharTokenizer("abca").encode("abc") == [0, 1, 2]


def test_unknown_character_is_named_with_its_position():
    with pytest.raises(TokenizerError) as error:
        CharTokenizer("abc").encode("abé")
    assert str(error.value) == (
        "character 'é' (U+00E9) at position 2 is not among the 3 characters that this tokenizer "
        "knows: 'abc'"
    )


def test_empty_alphabet_is_refused():
    with pytest.raises(TokenizerError, match="the alphabet is empty"):
        CharTokenizer("")


def test_half_a_surrogate_pair_is_refused_with_its_position():
    """No file can store it, so no checkpoint could be saved with such an alphabet."""
    message = r"character '\\ud83d' at position {} is half a surrogate pair"
    for make in (CharTokenizer.from_text, lambda text: make_tokenizer("char", text)):
        with pytest.raises(TokenizerError, match=message.format(6)):
            make("abcabc\ud83d")
    with pytest.raises(TokenizerError, match=message.format(3)):
        CharTokenizer("abc\ud83d")
    assert CharTokenizer.from_text("\U0001f600").vocab_size == 1


# LowercaseTokenizer -------------------------------------------------------------------------------

def test_lowercase_alphabet_has_the_published_order():
    tokenizer = LowercaseTokenizer()
    special = ["<P>", "<S>", "</S>", "<Q>", "</Q>", "<A>", "</A>"]
    expected = ["<?>", *LOWERCASE_CHARACTERS, *special] + 6 * ["<?>"]
    assert tokenizer.vocab_size == 88
    assert len(LOWERCASE_CHARACTERS) == 74
    assert [tokenizer.decode([i]) for i in range(88)] == expected


@given(st.text(LOWERCASE_CHARACTERS))
def test_lowercase_text_is_encoded_without_loss(text):
    tokenizer = LowercaseTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_any_text_becomes_lower_case_with_unknown_characters_marked(text):
    tokenizer = LowercaseTokenizer()
    expected = "".join(c if c in LOWERCASE_CHARACTERS else "<?>" for c in text.lower())
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_name_of_a_special_token_is_ordinary_text_unless_allowed():
    tokenizer = LowercaseTokenizer()
    assert tokenizer.encode("<Q>") == tokenizer.encode("<q>")
    assert len(tokenizer.encode("<Q>")) == 3
    ids = tokenizer.encode("a<Q>b</Q>", allowed_special=["<Q>"])
    a, q, b = 11, 78, 12
    assert ids == [a, q, b, *tokenizer.encode("</q>")]


@given(st.lists(st.sampled_from([*LowercaseTokenizer.SPECIAL, "a", "<", "/", "q"])).map("".join))
def test_allowed_special_tokens_are_encoded_without_loss(text):
    tokenizer = LowercaseTokenizer()
    ids = tokenizer.encode(text, allowed_special=tokenizer.SPECIAL)
    assert tokenizer.decode(ids) == text


def test_unknown_special_token_is_refused():
    with pytest.raises(TokenizerError, match="'<X>' is not a special token; they are <P>, <S>"):
        LowercaseTokenizer().encode("a", allowed_special=["<X>"])


def test_vocabulary_smaller_than_the_tokens_is_refused():
    with pytest.raises(TokenizerError, match="vocab_size=81 should be at least 82"):
        LowercaseTokenizer(81)


# make_tokenizer -----------------------------------------------------------------------------------

TEXT = "to be, or not to be: " * 20 + "Ω" * 40 + "ü"


def test_make_tokenizer_chooses_the_tokenizer_by_name():
    assert make_tokenizer("char", TEXT).to_dict() == CharTokenizer.from_text(TEXT).to_dict()
    assert make_tokenizer("lowercase", TEXT).to_dict() == LowercaseTokenizer().to_dict()
    bpe = make_tokenizer("bpe", TEXT, vocab_size=265)
    assert isinstance(bpe, BPETokenizer)
    assert bpe.vocab_size == 265


@pytest.mark.parametrize(("text", "share"), [
    ("To be, or not to be", 0), ("", 0), ("ab∞d", 0.25), ("Ω" * 3 + "a", 0.75), ("<?>", 0),
])
def test_the_share_of_characters_without_a_token_is_counted(text, share):
    assert unknown_share(LowercaseTokenizer(), text) == share
    assert share == LowercaseTokenizer().encode(text).count(0) / max(1, len(text))
    assert unknown_share(CharTokenizer("a"), text) == unknown_share(BPE, text) == 0


def test_make_tokenizer_says_in_one_line_what_share_of_the_characters_is_lost(capsys):
    make_tokenizer("lowercase", "Ω" * 81 + "a" * 19)
    assert capsys.readouterr().out == (
        "lowercase: 81.00% of the characters have no token and become <?>, so losses are not given "
        "in bits per byte\n"
    )
    make_tokenizer("lowercase", "To be")
    make_tokenizer("char", "Ω")
    assert capsys.readouterr().out == ""


def test_merges_are_learned_from_the_training_split_only():
    train_text, _ = split(TEXT)
    merges = make_tokenizer("bpe", TEXT, 265).to_dict()
    assert merges == BPETokenizer.train(train_text, 265).to_dict()
    assert merges != BPETokenizer.train(TEXT, 265).to_dict()


def test_unknown_tokenizer_is_refused():
    with pytest.raises(TokenizerError) as error:
        make_tokenizer("bpee", TEXT)
    message = "unknown tokenizer 'bpee': did you mean 'bpe'? Known: char, lowercase, bpe."
    assert str(error.value) == message
