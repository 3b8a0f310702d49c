"""The courier: its texts follow the rules, its floors are the losses of the best readers."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPT, GPTConfig, TrainConfig, make_model
from gptlib.corpora.courier import (
    Courier,
    answer_kinds,
    courier_batch,
    courier_losses,
    courier_scores,
    train_on_courier,
)
from gptlib.train import NO_TARGET
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import token_losses

COURIERS = {
    "usual": Courier(),
    "last window only": Courier(lags=1),
    "two facts": Courier(n_facts=2, body=6),
    "no spaces in the body": Courier(n_windows=3, n_facts=4, lags=1, body=8),
}
each_courier = pytest.mark.parametrize("courier", COURIERS.values(), ids=COURIERS)


def make_texts(courier, n, seed=1):
    return courier.batch(n, torch.Generator().manual_seed(seed))


# The best possible readers ------------------------------------------------------------------------

def best_losses(courier, text, n_remembered):
    """Return the loss of each token for a reader who knows the rules, (n_windows, window), in nats.

    The reader remembers the facts of the last `n_remembered` windows, and in any case the tokens of
    the present window. On the way, this function checks that the text follows the rules.
    """
    losses = torch.zeros(courier.n_windows, courier.window)
    facts = []                                  # the facts of each window
    previous = None                             # question and answer of the window before
    for k, window in enumerate(text.view(courier.n_windows, -1).tolist()):
        question, answer, space, *body = window
        assert space == courier.n_values
        lag, asked = read_question(courier, question)
        assert lag in range(courier.lags)
        assert k != 1 or lag == 0               # before the second window there is only one
        if k > 0:
            assert answer == facts[k - 1 - lag][asked]
        # The window before may have asked for the same fact. Then it has told the answer.
        told = n_remembered > 0 and k > 0 and lag == 1 and previous[0] == (0, asked)
        assert not told or answer == previous[1]
        if k == 0 or not (lag < n_remembered or told):
            losses[k, 1] = math.log(courier.n_values)
        window_facts, losses[k, 3:] = read_body(courier, body)
        facts.append(window_facts)
        previous = (lag, asked), answer
    return losses


def read_question(courier, token):
    """Return how many windows lie between question and fact, and the number of the fact."""
    first_question = courier.n_values + 1 + courier.n_facts
    return divmod(token - first_question, courier.n_facts)


def read_body(courier, body):
    """Return the facts in a body, and the losses of its tokens for a reader who knows the rules."""
    facts, losses = [], []
    n_items = courier.body - courier.n_facts    # items to come: a fact with its mark, or a space
    t = 0
    while t < len(body):
        p_mark = (courier.n_facts - len(facts)) / n_items
        n_items -= 1
        if body[t] == courier.n_values:         # a space
            losses.append(-math.log(1 - p_mark))
            t += 1
        else:
            assert body[t] == courier.n_values + 1 + len(facts)         # the marks come in order
            losses += [-math.log(p_mark), math.log(courier.n_values)]
            facts.append(body[t + 1])
            t += 2
    assert len(facts) == courier.n_facts
    assert max(facts) < courier.n_values
    return facts, torch.tensor(losses)


@each_courier
@pytest.mark.parametrize("n_remembered, name", [
    (2, "a perfect memory"), (1, "memory of one window"), (0, "no memory"),
])
def test_floors_are_the_mean_losses_of_the_best_readers(courier, n_remembered, name):
    texts = make_texts(courier, 400)
    losses = torch.stack([best_losses(courier, text, n_remembered) for text in texts])
    losses = losses[:, 1:, 1:].mean((1, 2))     # without the first window and the questions
    standard_error = losses.std() / math.sqrt(400)
    assert abs(losses.mean() - courier.floors()[name]) < 4 * standard_error + 1e-6
    # Only a reader with a memory of one window pays more for some texts than for others.
    if name != "memory of one window" or courier.lags == 1:
        assert losses.std() < 1e-6


def test_floors_of_the_usual_courier():
    floors = {name: round(floor, 3) for name, floor in Courier().floors().items()}
    assert floors == {"a perfect memory": 0.495, "memory of one window": 0.52, "no memory": 0.792}


# Texts --------------------------------------------------------------------------------------------

@each_courier
def test_questions_and_answers_are_uniform(courier):
    n = 4000
    x = make_texts(courier, n).view(n, courier.n_windows, -1)
    n_questions = courier.lags * courier.n_facts
    questions = x[:, 2, 0].bincount(minlength=courier.vocab_size)[-n_questions:] / n
    answers = x[:, :, 1].flatten().bincount() / (n * courier.n_windows)
    assert len(answers) == courier.n_values
    assert_close(questions, torch.full((n_questions,), 1 / n_questions), rtol=0, atol=0.035)
    assert_close(answers, torch.full((8,), 1 / 8), rtol=0, atol=0.015)


@each_courier
def test_text_has_the_shape_and_the_tokens_of_its_courier(courier):
    texts = make_texts(courier, 500)
    assert texts.shape == (500, courier.n_windows * courier.window)
    assert texts.unique().tolist() == list(range(courier.vocab_size))


def test_same_seed_gives_the_same_texts():
    assert torch.equal(make_texts(Courier(), 5, seed=3), make_texts(Courier(), 5, seed=3))
    assert not torch.equal(make_texts(Courier(), 5, seed=3), make_texts(Courier(), 5, seed=4))


def test_text_is_spelled_in_signs():
    space, mark, one_back, two_back = 8, 9, 10, 11
    text = torch.tensor([
        one_back, 5, space, mark, 4, space, space, space,
        two_back, 4, space, space, space, mark, 0, space,
    ])
    assert Courier(n_windows=2).spell(text) == "a? 5 . a= 4 . . . | a! 4 . . . a= 0 ."


# Losses and scores --------------------------------------------------------------------------------

def make_rolling(courier):
    torch.manual_seed(0)
    return make_model(VariantConfig(courier.vocab_size, block_size=32, n_layer=1, n_head=1,
                                    n_embd=8, memory="mean", window=8))


def test_losses_leave_out_the_questions():
    courier = Courier()
    model, x = make_rolling(courier), make_texts(courier, 5)
    losses, all_losses = courier_losses(model, courier, x), token_losses(model, x)
    assert losses.shape == (5, 4, 7)
    for k in range(4):
        # all_losses[:, 0] is the loss of token 1, the answer of the first window.
        assert_close(losses[:, k], all_losses[:, 8 * k:8 * k + 7])


def test_scores_of_uniform_predictions_are_ln_vocab_size():
    courier = Courier()
    model = make_rolling(courier)
    model.head.weight.data.zero_()
    scores = courier_scores(model, courier, n=50)
    assert list(scores) == ["all", "one back", "two back", "told again"]
    for score in scores.values():
        assert score == pytest.approx(math.log(courier.vocab_size), rel=1e-5)


def test_scores_leave_out_the_first_window():
    class RightAfterTheFirstWindow(nn.Module):
        """It predicts the value 0 in the first window, and knows every later token."""

        def forward(self, idx):
            targets = torch.cat([texts[:, 1:8] * 0, texts[:, 8:]], dim=1)
            return 50.0 * F.one_hot(targets, courier.vocab_size)

    courier = Courier()
    texts = courier.batch(100, torch.Generator().manual_seed(2 ** 32))
    scores = courier_scores(RightAfterTheFirstWindow(), courier, n=100)
    assert max(scores.values()) < 1e-6


def test_scores_tell_one_window_back_from_two():
    class LastFact(nn.Module):
        """It always predicts the fact of the window before."""

        def forward(self, idx):
            prediction = torch.zeros_like(idx)
            for t in range(8, idx.shape[1]):
                earlier_windows = idx[:, :t // 8 * 8]
                last_mark = (earlier_windows == 9).int().cumsum(1).argmax(1)
                prediction[:, t] = idx[torch.arange(len(idx)), last_mark + 1]
            return 50.0 * F.one_hot(prediction, courier.vocab_size)

    courier = Courier()
    scores = courier_scores(LastFact(), courier, n=200)
    assert scores["one back"] < 1e-6
    assert scores["two back"] > 30
    assert scores["told again"] > 30


def test_scores_pass_edit_to_the_model():
    courier, contexts = Courier(), []

    def edit(context):
        contexts.append(context)
        return torch.zeros_like(context)

    model = make_rolling(courier)
    nn.init.normal_(model.head.weight)
    edited = courier_scores(model, courier, edit, n=50)
    assert len(contexts) == courier.n_windows
    assert edited["all"] != courier_scores(model, courier, n=50)["all"]


# Kinds of answers ---------------------------------------------------------------------------------

def test_every_question_has_one_kind():
    courier = Courier()
    kinds = answer_kinds(courier, make_texts(courier, 4000))
    assert torch.stack(list(kinds.values())).sum(0).eq(1).all()
    shares = {kind: mask.float().mean().item() for kind, mask in kinds.items()}
    expected = {"one back": 2 / 3, "told again": 1 / 4, "two back": 1 / 12}
    assert shares == pytest.approx(expected, abs=0.015)


def test_answer_told_again_stands_in_the_window_before():
    courier = Courier()
    x = make_texts(courier, 4000)
    kinds = answer_kinds(courier, x)
    answers = x.view(4000, courier.n_windows, courier.window)[:, :, 1]
    equal = answers[:, 1:] == answers[:, :-1]                           # (B, n_windows - 1)
    assert equal[kinds["told again"]].all()
    by_chance = 1 / courier.n_values
    assert equal[kinds["two back"]].float().mean() == pytest.approx(by_chance, abs=0.075)


# Training -----------------------------------------------------------------------------------------

def test_questions_are_not_targets():
    courier = Courier()
    texts = make_texts(courier, 5)
    x, y = courier_batch(courier, texts)
    assert torch.equal(x, texts[:, :-1])
    is_question = torch.arange(1, texts.shape[1]) % courier.window == 0
    assert (y[:, is_question] == NO_TARGET).all()
    assert torch.equal(y[:, ~is_question], texts[:, 1:][:, ~is_question])


def make_gpt(courier):
    torch.manual_seed(0)
    return GPT(GPTConfig(courier.vocab_size, block_size=32, n_layer=1, n_head=1, n_embd=8))


def test_training_lowers_the_loss_and_measures_it_at_each_evaluation():
    courier = Courier(n_values=2)
    config = TrainConfig(max_steps=60, batch_size=16, learning_rate=1e-2, warmup=5,
                         eval_interval=20)
    curve = train_on_courier(make_gpt(courier), courier, config)
    assert list(curve) == [0, 20, 40, 60]
    assert curve[60] < 1.0 < 1.5 < curve[0]


def test_last_entry_of_the_curve_is_the_loss_of_the_trained_model():
    courier = Courier(n_values=2)
    config = TrainConfig(max_steps=3, batch_size=16, eval_interval=2)
    model = make_gpt(courier)
    curve = train_on_courier(model, courier, config)
    assert curve[3] == pytest.approx(courier_scores(model, courier, n=200)["one back"], rel=1e-6)
