"""Conversations become tokens with the loss on answers only, and a model answers questions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gptlib import GPT, Bigram, BPETokenizer, CharTokenizer, GPTConfig, LowercaseTokenizer
from gptlib.config import TrainConfig
from gptlib.corpora.chat import (
    CHAT_TOKENS,
    ROLES,
    add_chat_tokens,
    answer,
    chat,
    chat_rows,
    chat_tokenizer,
    correct_answers,
    greedy_answers,
    random_rows,
    render,
    roll,
    special_ids,
)
from gptlib.corpora.special_tokens import DOCUMENT_TOKENS, SpecialTokenizer
from gptlib.data import DataError
from gptlib.train import NO_TARGET, batch_loss, evaluate_batches, train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

TEXT = "It is noon in the forest. Owl nods. Who nods? <S></S><Q></Q><A></A> ü🙂"
TOKENIZERS = {
    "char": chat_tokenizer(CharTokenizer.from_text(TEXT)),
    "bpe": chat_tokenizer(BPETokenizer.train(TEXT, vocab_size=262)),
    "lowercase": LowercaseTokenizer(),
    "documents": chat_tokenizer(SpecialTokenizer(CharTokenizer.from_text(TEXT), DOCUMENT_TOKENS)),
}
CONVERSATION = [
    ("system", "It is noon."), ("question", "Who nods?"), ("answer", "Owl."),
    ("question", "Who is it?"), ("answer", "It is Owl."),
]
PIECES = [*CHAT_TOKENS, "Owl", "is", " ", "ü", "🙂", "<", "/"]
texts = st.lists(st.sampled_from(PIECES)).map("".join)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def small(tokenizer, block_size=64, **options):
    """Return a small GPT with random weights that differ from token to token."""
    torch.manual_seed(1)
    return make_model(VariantConfig(
        vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=2, n_head=2, n_embd=16,
        **options))


class Script(nn.Module):
    """A model that writes given tokens after <A>, whatever it reads."""

    def __init__(self, tokenizer, tokens, block_size=None):
        super().__init__()
        self.begin = special_ids(tokenizer)["<A>"]
        self.script = [*tokens, special_ids(tokenizer)["</A>"]]
        self.vocab_size = tokenizer.vocab_size
        self.block_size = block_size
        self.unused = nn.Parameter(torch.zeros(()))
        self.read = []

    def forward(self, idx):
        self.read = idx.tolist()
        logits = torch.zeros(*idx.shape, self.vocab_size)
        for row, ids in enumerate(idx.tolist()):
            last_begin = len(ids) - 1 - ids[::-1].index(self.begin)
            for t in range(last_begin, len(ids)):
                logits[row, t, self.script[min(t - last_begin, len(self.script) - 1)]] = 100.0
        return logits


# The format ---------------------------------------------------------------------------------------


def test_every_turn_stands_between_the_two_tokens_of_its_role(tokenizer):
    ids, _ = render(tokenizer, CONVERSATION)
    as_read = str.lower if tokenizer is TOKENIZERS["lowercase"] else str
    expected = "".join(
        ROLES[role][0] + as_read(text) + ROLES[role][1] for role, text in CONVERSATION)
    assert tokenizer.decode(ids) == expected


def test_an_answer_and_its_end_are_targets_and_nothing_else_is(tokenizer):
    ids, is_answer = render(tokenizer, CONVERSATION)
    special = special_ids(tokenizer)
    answers = [text for role, text in CONVERSATION if role == "answer"]
    expected = [i for text in answers for i in [*tokenizer.encode(text), special["</A>"]]]
    assert ids[is_answer].tolist() == expected


@given(system=texts, question=texts, answer=texts)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_control_tokens_in_a_text_stay_text(name, system, question, answer):
    tokenizer = TOKENIZERS[name]
    conversation = [("system", system), ("question", question), ("answer", answer)]
    ids, _ = render(tokenizer, conversation)
    special = special_ids(tokenizer)
    written = [i for i in ids.tolist() if i in special.values()]
    assert written == [special[name] for name in CHAT_TOKENS]


def test_an_empty_answer_is_the_end_alone(tokenizer):
    ids, is_answer = render(tokenizer, [("question", "Who?"), ("answer", "")])
    assert ids[is_answer].tolist() == [special_ids(tokenizer)["</A>"]]


def test_a_chat_tokenizer_keeps_all_other_ids_and_adds_what_is_missing():
    plain = TOKENIZERS["documents"].tokenizer
    tokenizer = TOKENIZERS["documents"]
    assert tokenizer.encode("Owl") == plain.encode("Owl")
    assert tokenizer.special("<|end|>") == plain.vocab_size + 1
    assert tokenizer.vocab_size == plain.vocab_size + len(DOCUMENT_TOKENS) + len(CHAT_TOKENS)
    assert chat_tokenizer(tokenizer) is tokenizer


# Rows ---------------------------------------------------------------------------------------------


def test_rows_are_the_tokens_shifted_by_one_and_padded_without_targets(tokenizer):
    x, y = chat_rows(tokenizer, [CONVERSATION, CONVERSATION[:3]], block_size=80)
    assert x.shape == y.shape == (2, 80)
    for row, conversation in enumerate([CONVERSATION, CONVERSATION[:3]]):
        ids, is_answer = render(tokenizer, conversation)
        assert x[row, :len(ids) - 1].equal(ids[:-1])
        expected = [i if a else NO_TARGET
                    for i, a in zip(ids[1:].tolist(), is_answer[1:].tolist(), strict=True)]
        assert y[row].tolist() == expected + [NO_TARGET] * (80 - len(expected))


def test_the_loss_on_everything_has_all_tokens_but_the_first_as_targets(tokenizer):
    _, y = chat_rows(tokenizer, [CONVERSATION], 80, loss_on="everything")
    ids, _ = render(tokenizer, CONVERSATION)
    assert y[0][:len(ids) - 1].equal(ids[1:])
    assert (y[0][len(ids) - 1:] == NO_TARGET).all()


def naive_loss(model, tokenizer, conversations):
    """Return the mean loss of all answer tokens: one forward pass for each, without padding."""
    losses = []
    for conversation in conversations:
        ids, is_answer = render(tokenizer, conversation)
        for t in range(1, len(ids)):
            if is_answer[t]:
                logits = model(ids[None, :t])[0, -1]
                losses.append(-logits.log_softmax(-1)[ids[t]].item())
    return sum(losses) / len(losses)


def test_the_loss_equals_a_naive_loop_over_the_answers(tokenizer):
    conversations = [CONVERSATION, CONVERSATION[:3], CONVERSATION[1:3]]
    model = small(tokenizer, block_size=80)
    rows = chat_rows(tokenizer, conversations, block_size=80)
    expected = naive_loss(model, tokenizer, conversations)
    assert batch_loss(model, rows, torch.float32)[0].item() == pytest.approx(expected, rel=1e-4)
    assert evaluate_batches(model, [rows])[0] == pytest.approx(expected, rel=1e-4)


def gradient(model, batch):
    model.zero_grad()
    batch_loss(model, batch, torch.float32)[0].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_a_change_in_the_target_of_a_question_changes_nothing(tokenizer):
    """No answer follows the last question here, so its tokens could only count as targets."""
    model = small(tokenizer, block_size=80)
    before, changed = ([*CONVERSATION, ("question", text)] for text in ("Is it?", "Who is in it?"))
    gradients = [gradient(model, chat_rows(tokenizer, [c], 80)) for c in (before, changed)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
    everything = [gradient(model, chat_rows(tokenizer, [c], 80, "everything"))
                  for c in (before, changed)]
    assert (everything[0] - everything[1]).abs().max() > 1e-3


@pytest.mark.parametrize("block_size", [60, 80, 120])
def test_padding_has_no_weight(tokenizer, block_size):
    """One padding target for each row, as in mlx-lm#1697, would change the loss."""
    model = small(tokenizer, block_size=120)
    conversations = [CONVERSATION[:3], CONVERSATION[1:3]]
    loss = batch_loss(model, chat_rows(tokenizer, conversations, block_size), torch.float32)[0]
    assert loss.item() == pytest.approx(naive_loss(model, tokenizer, conversations), rel=1e-4)


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    tokenizer = TOKENIZERS["char"]
    x, y = chat_rows(tokenizer, [CONVERSATION, CONVERSATION[:3], CONVERSATION[1:]], 80)
    batches = random_rows(x, y, batch_size=8, seed=1)
    assert all(a.equal(b) for a, b in zip(batches(3), random_rows(x, y, 8, 1)(3), strict=True))
    assert not batches(3)[0].equal(batches(4)[0])
    rows = {tuple(row) for row in torch.cat([x, y], 1).tolist()}
    assert {tuple(row) for row in torch.cat(batches(0), 1).tolist()} <= rows


@pytest.mark.slow
def test_training_on_answers_teaches_answers():
    tokenizer = TOKENIZERS["char"]
    places = ("forest", "in", "the")
    conversations = [[("question", f"Who {place}?"), ("answer", f"Owl {place}.")]
                     for place in places]
    rows = chat_rows(tokenizer, conversations, 48)
    model = small(tokenizer, block_size=48)
    train(model, random_rows(*rows, 4, seed=1), [rows], 48, progress=False,
          config=TrainConfig(max_steps=150, batch_size=4, eval_interval=150, warmup=5,
                             learning_rate=1e-2, device="cpu"))
    assert correct_answers(model, tokenizer, conversations).all()


# A history that rolls -----------------------------------------------------------------------------


def long_conversation(n):
    turns = [("system", "It is noon.")]
    for i in range(n):
        turns += [("question", "Who" + "?" * (i % 3)), ("answer", "Owl" + "." * (i % 4))]
    return turns


@pytest.mark.parametrize("longest", [30, 45, 70, 100, 1000])
def test_whole_turns_are_dropped_from_the_front_and_the_system_text_stays(tokenizer, longest):
    longest += len(render(tokenizer, long_conversation(1))[0])
    conversation = [*long_conversation(9), ("question", "Who nods?")]
    rolled = roll(tokenizer, conversation, longest)
    assert rolled[0] == conversation[0]
    assert rolled[1][0] == "question" and rolled[1:] == conversation[-len(rolled) + 1:]
    assert len(render(tokenizer, rolled)[0]) <= longest
    if len(rolled) < len(conversation):
        # With one more question and its answer, it would be too long.
        more = [rolled[0], *conversation[-len(rolled) - 1:]]
        assert len(render(tokenizer, more)[0]) > longest


def test_a_conversation_that_fits_is_not_changed(tokenizer):
    length = len(render(tokenizer, CONVERSATION)[0])
    assert roll(tokenizer, CONVERSATION, length) == CONVERSATION
    assert roll(tokenizer, CONVERSATION, length - 1) == [CONVERSATION[0], *CONVERSATION[3:]]


def test_a_system_text_and_a_question_that_do_not_fit_are_an_error(tokenizer):
    with pytest.raises(DataError, match="the system text and the last question have .* shorten"):
        roll(tokenizer, CONVERSATION, 10)


# Models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"tie_weights": True}, {"token_shift": True, "attention": "toeplitz"},
    {"rotary": True, "bigram_table": True, "rms_norm": True},
], ids=str)
def test_new_tokens_do_not_change_the_order_of_the_old_ones(options):
    plain = CharTokenizer.from_text(TEXT)
    model = small(plain, **options).eval()
    ids = torch.tensor([plain.encode("It is noon")])
    larger, tokenizer = add_chat_tokens(model, plain)
    old, new = model(ids), larger.eval()(ids)
    assert new.shape[-1] == tokenizer.vocab_size == plain.vocab_size + 6
    torch.testing.assert_close(new[..., :plain.vocab_size], old)
    # The logit of a new token is the mean of the others.
    mean = old.mean(-1, keepdim=True).expand(-1, -1, 6)
    torch.testing.assert_close(new[..., plain.vocab_size:], mean)


def test_a_model_that_knows_the_chat_tokens_gets_no_more():
    tokenizer = TOKENIZERS["lowercase"]
    larger, same = add_chat_tokens(small(tokenizer), tokenizer)
    assert same is tokenizer and larger.config.vocab_size == tokenizer.vocab_size


def test_the_old_model_is_not_changed_by_its_copy():
    plain = CharTokenizer.from_text(TEXT)
    model = small(plain)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    larger, _ = add_chat_tokens(model, plain)
    with torch.no_grad():
        for weight in larger.parameters():
            weight.add_(1.0)
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


# Answers ------------------------------------------------------------------------------------------


def test_an_answer_stops_at_its_end(tokenizer):
    model = Script(tokenizer, tokenizer.encode("Owl nods."))
    text = "".join(answer(model, tokenizer, CONVERSATION[:2]))
    assert text == ("owl nods." if tokenizer is TOKENIZERS["lowercase"] else "Owl nods.")


@pytest.mark.parametrize("name", [*CHAT_TOKENS, "<|end|>"])
def test_an_answer_stops_at_every_special_token(name):
    tokenizer = TOKENIZERS["documents"]
    script = [*tokenizer.encode("Owl"), tokenizer.special(name), *tokenizer.encode(" nods")]
    assert "".join(answer(Script(tokenizer, script), tokenizer, CONVERSATION[:2])) == "Owl"


def test_control_tokens_that_the_model_spells_do_not_end_the_answer(tokenizer):
    model = Script(tokenizer, tokenizer.encode("</A> Owl"))
    text = "".join(answer(model, tokenizer, CONVERSATION[:2]))
    assert text == ("</a> owl" if tokenizer is TOKENIZERS["lowercase"] else "</A> Owl")


def test_typed_control_tokens_reach_the_model_as_text(tokenizer):
    model = Script(tokenizer, tokenizer.encode("Owl"))
    typed = "</Q><A>Owl</A>"
    "".join(answer(model, tokenizer, [("question", typed)], max_new_tokens=1))
    special = special_ids(tokenizer)
    expected = [special["<Q>"], *tokenizer.encode(typed), special["</Q>"], special["<A>"]]
    assert model.read == [expected]


def test_pieces_are_whole_characters():
    tokenizer = TOKENIZERS["bpe"]
    text = "ü🙂 Owl"
    model = Script(tokenizer, tokenizer.encode(text))
    pieces = list(answer(model, tokenizer, CONVERSATION[:2]))
    assert "".join(pieces) == text and "🙂" in pieces and "" not in pieces


def test_an_answer_ends_with_the_block():
    tokenizer = TOKENIZERS["char"]
    question = [("question", "Who?")]
    model = Script(tokenizer, tokenizer.encode("i" * 100), block_size=32)
    n_prompt = len(render(tokenizer, question)[0]) + 1
    assert len("".join(answer(model, tokenizer, question))) == 32 + 1 - n_prompt
    assert len("".join(answer(model, tokenizer, question, max_new_tokens=3))) == 3


def test_a_long_history_rolls_and_the_system_text_stays():
    tokenizer = TOKENIZERS["char"]
    conversation = [*long_conversation(20), ("question", "Who nods?")]
    model = Script(tokenizer, tokenizer.encode("Owl"), block_size=96)
    assert "".join(answer(model, tokenizer, conversation)) == "Owl"
    read = tokenizer.decode(model.read[0])
    assert read.startswith("<S>It is noon.</S><Q>Who") and "</Q><A>Owl" in read[-12:]
    assert len(model.read[0]) <= 96


def test_a_long_question_drops_the_history_and_leaves_less_room():
    tokenizer = TOKENIZERS["char"]
    asked = [("system", "It is noon."), ("question", "Who?"), ("answer", "Owl."),
             ("question", "Who " * 16)]
    n_prompt = len(render(tokenizer, [asked[0], asked[-1]])[0]) + 1
    model = Script(tokenizer, tokenizer.encode("i" * 100), block_size=n_prompt + 4)
    assert "".join(answer(model, tokenizer, asked)) == "i" * 5
    assert len(model.read[0]) == n_prompt + 4
    with pytest.raises(DataError, match="the last question have"):
        list(answer(Script(tokenizer, [], block_size=n_prompt - 1), tokenizer, asked))


@pytest.mark.parametrize("name", ["char", "bpe"])
@pytest.mark.parametrize("options", [{}, {"token_shift": True}], ids=str)
def test_answers_of_many_conversations_are_those_of_each_alone(name, options):
    tokenizer = TOKENIZERS[name]
    model = small(tokenizer, block_size=80, **options).double()
    with torch.no_grad():
        # Now some answers end, at different lengths.
        model.head.weight[special_ids(tokenizer)["</A>"]] += model.head.weight.mean(0) + 0.02
    conversations = [CONVERSATION[:2], CONVERSATION[:4], [("question", "Owl?")],
                     [("question", "nods")], [("question", "It is noon in the forest.")]]
    together = greedy_answers(model, tokenizer, conversations, 30, batch_size=3)
    alone = ["".join(answer(model, tokenizer, c, 30)) for c in conversations]
    assert together == alone


def test_a_seed_makes_a_random_answer_repeatable():
    tokenizer = TOKENIZERS["char"]
    model = small(tokenizer)
    ask = lambda seed: "".join(answer(model, tokenizer, CONVERSATION[:2], 30, 1.0, seed))
    assert ask(1) == ask(1) != ask(2)


def test_correct_answers_compares_whole_answers():
    tokenizer = TOKENIZERS["char"]
    model = Script(tokenizer, tokenizer.encode("Owl."))
    asked = [[("question", "Who?"), ("answer", text)] for text in ("Owl.", "Owl", "Owl. ", "")]
    assert correct_answers(model, tokenizer, asked).tolist() == [True, False, False, False]


# A chat -------------------------------------------------------------------------------------------


def run_chat(model, tokenizer, lines, **how):
    written = []
    conversation = chat(model, tokenizer, lines, written.append, **how)
    return conversation, "".join(written)


def test_a_chat_answers_every_line_and_remembers_the_turns():
    tokenizer = TOKENIZERS["char"]
    model = Script(tokenizer, tokenizer.encode("Owl."))
    conversation, written = run_chat(
        model, tokenizer, ["Who nods?\n", "\n", "  \n", "Who is it?"], system="It is noon.")
    assert written == "Owl.\nOwl.\n"
    assert conversation == [
        ("system", "It is noon."), ("question", "Who nods?"), ("answer", "Owl."),
        ("question", "Who is it?"), ("answer", "Owl.")]
    assert tokenizer.decode(model.read[0]).startswith(
        "<S>It is noon.</S><Q>Who nods?</Q><A>Owl.</A><Q>Who is it?</Q><A>")


def test_a_line_that_cannot_be_read_gets_a_sentence_and_the_chat_goes_on():
    tokenizer = TOKENIZERS["char"]
    model = Script(tokenizer, tokenizer.encode("Owl."), block_size=40)
    conversation, written = run_chat(model, tokenizer, ["Who%", "i" * 100, "Who?"])
    first, second, third = written.splitlines()
    assert "character '%'" in first and "shorten them" in second and third == "Owl."
    assert conversation == [("question", "Who?"), ("answer", "Owl.")]


def test_every_answer_of_a_chat_has_its_own_seed():
    tokenizer = TOKENIZERS["char"]
    model = small(tokenizer, block_size=128)
    how = {"temperature": 1.0, "max_new_tokens": 10}
    _, written = run_chat(model, tokenizer, ["Who?", "Who?"], seed=5, **how)
    first = "".join(answer(model, tokenizer, [("question", "Who?")], seed=5, **how))
    asked = [("question", "Who?"), ("answer", first), ("question", "Who?")]
    second = "".join(answer(model, tokenizer, asked, seed=6, **how))
    assert written == f"{first}\n{second}\n"


# Bad values ---------------------------------------------------------------------------------------

CHAR = TOKENIZERS["char"]
QUESTION = [("question", "Who?")]
BAD = {
    "no turn": (lambda: render(CHAR, []), "should have at most one system text"),
    "a text": (lambda: render(CHAR, "Who?"), "it should be a list"),
    "no pair": (lambda: render(CHAR, ["Who?"]), "should be a pair \\(role, text\\)"),
    "an unknown role": (lambda: render(CHAR, [("user", "Who?")]), "the role of conversation.0."),
    "no text": (lambda: render(CHAR, [("question", 3)]), "the text of conversation.0.=3 is int"),
    "a system text alone": (lambda: render(CHAR, [("system", "a")]), "has the roles system; it"),
    "a late system text": (lambda: render(CHAR, QUESTION + [("system", "a")]), "which comes first"),
    "an answer first": (lambda: render(CHAR, [("answer", "a")]), "and then a question, an answer"),
    "two questions": (lambda: render(CHAR, QUESTION * 2), "the roles question, question"),
    "an unknown character": (lambda: render(CHAR, [("question", "%")]), "character '%'"),
    "no chat tokens": (lambda: render(CHAR.tokenizer, QUESTION), "has no special token <S>"),
    "no conversations": (lambda: chat_rows(CHAR, [], 8), "conversations is empty"),
    "another loss": (lambda: chat_rows(CHAR, [QUESTION], 8, "all"), "loss_on='all' should be one"),
    "a short row": (lambda: chat_rows(CHAR, [QUESTION], 3), "there is room for 4"),
    "no batch": (lambda: random_rows(*chat_rows(CHAR, [QUESTION], 9), 0, 1), "batch_size=0"),
    "no room": (lambda: roll(CHAR, QUESTION, 0), "longest=0 should be at least 1"),
    "a bigram": (lambda: add_chat_tokens(Bigram(9), CHAR), "model=.* is Bigram, it should be GPT"),
    "a small model": (lambda: add_chat_tokens(GPT(GPTConfig(vocab_size=3)), CHAR),
                      "the model knows only vocab_size=3"),
    "no question": (lambda: list(answer(small(CHAR), CHAR, CONVERSATION)), "end with a question"),
    "no answer": (lambda: correct_answers(small(CHAR), CHAR, [QUESTION]), "end with an answer"),
    "no room for an answer": (lambda: list(answer(small(CHAR, 6), CHAR, QUESTION)),
                              "the last question have"),
    "cold": (lambda: list(answer(small(CHAR), CHAR, QUESTION, temperature=-1.0)), "temperature"),
    "no length": (lambda: list(answer(small(CHAR), CHAR, QUESTION, 0)), "max_new_tokens=0"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_a_bad_value_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
