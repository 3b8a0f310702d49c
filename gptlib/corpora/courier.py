"""The courier: a made-up text that tests memory, and whose lowest possible loss is known exactly.

A text has several windows. Each window begins with a question about an earlier window, and its
answer. Then it tells facts of its own. Only a reader with a memory can know the answers.

>>> courier = Courier()
>>> text = courier.batch(1, torch.Generator().manual_seed(0))[0]
>>> courier.spell(text)
'a! 5 . a= 4 . . . | a? 4 . . . a= 7 . | a! 4 . . . a= 5 . | a? 5 . . . . a= 0'

`a= 4` is a fact: a has the value 4. `a?` asks for a's value in the window before, and `a!` for its
value two windows back. A dot is a space.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptlib.checks import at_least, check_arguments, function, optional, short, tokens, trainable
from gptlib.config import TrainConfig, check_types, require
from gptlib.data import check_ids
from gptlib.model import evaluating
from gptlib.train import NO_TARGET, train
from gptlib.variants.context_rolling import token_losses

TEST_SEED = 2 ** 32         # texts for measurements come from this seed, texts for training do not


def torch_seed(name: str, value: int) -> int:
    """The kind of a seed of PyTorch."""
    value = at_least(0)(name, value)
    if value >= 2 ** 63:
        raise ValueError(f"{name}={short(value)} should be below 2 ** 63")
    return value


@dataclass(frozen=True)
class Courier:
    """The rules of the text.

    A window is a question, its answer, a space, and a body. In the body, each fact is a mark
    followed by a value. All else in the body is spaces. The values, the places of the facts and the
    questions are drawn uniformly. The answer of the first window is drawn too, because there is
    no earlier window.
    """

    n_windows: int = 4      # at least 2
    n_facts: int = 1        # facts in each window
    n_values: int = 8       # values that a fact may have
    # 1: questions are about the window before. 2: or about the one before that.
    lags: int = 2
    body: int = 5           # tokens of the body, at least 2 · n_facts

    def __post_init__(self):
        check_types(self)
        for name in ("n_facts", "n_values"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(self.n_windows >= 2, self, "n_windows", "at least 2")
        require(self.lags in (1, 2), self, "lags", "1 or 2")
        require(self.body >= 2 * self.n_facts, self, "body",
                f"at least {2 * self.n_facts}, two tokens for each of the n_facts={self.n_facts}")

    @property
    def window(self) -> int:
        """The number of tokens in a window."""
        return 3 + self.body

    @property
    def vocab_size(self) -> int:
        """The number of tokens: values, a space, a mark for each fact, and the questions."""
        return self.n_values + 1 + self.n_facts + self.lags * self.n_facts

    @check_arguments(B=at_least(1), generator=torch.Generator)
    def batch(self, B: int, generator: torch.Generator) -> Tensor:
        """Return B texts, (B, n_windows · window)."""
        def draw(high, *shape):
            return torch.randint(high, (B, self.n_windows, *shape), generator=generator)

        space, first_mark = self.n_values, self.n_values + 1
        x = torch.full((B, self.n_windows, self.window), space)
        facts = draw(self.n_values, self.n_facts)               # (B, n_windows, n_facts)
        asked = draw(self.n_facts)                              # (B, n_windows): which fact
        lag = draw(self.lags)                                   # 0: the window before, 1: two back
        lag[:, 1] = 0           # before the second window there is only one

        # The body is a row of items: a fact (two tokens) or a space. Choose which items are facts.
        # Each earlier fact moves a later one by one token.
        order = torch.rand(B, self.n_windows, self.body - self.n_facts, generator=generator)
        items = order.argsort(-1)[..., :self.n_facts].sort().values
        places = 3 + items + torch.arange(self.n_facts)
        marks = torch.arange(self.n_facts).expand_as(places) + first_mark
        x.scatter_(2, places, marks)
        x.scatter_(2, places + 1, facts)

        x[:, :, 0] = first_mark + self.n_facts * (1 + lag) + asked      # the question
        x[:, 0, 1] = draw(self.n_values)[:, 0]
        for k in range(1, self.n_windows):
            told = facts[torch.arange(B), k - 1 - lag[:, k]]            # (B, n_facts)
            x[:, k, 1] = told.gather(1, asked[:, k, None])[:, 0]
        return x.flatten(1)

    @check_arguments(B=at_least(1), seed=torch_seed)
    def stream(self, B: int, seed: int) -> Iterator[Tensor]:
        """Yield batches of B texts without end. The same seed gives the same texts."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield self.batch(B, generator)

    @check_arguments(text=tokens("N"))
    def spell(self, text: Tensor) -> str:
        """Return a text, (n_windows · window,), in the signs explained at the top of this file."""
        check_ids(text, self.vocab_size)
        if len(text) != self.n_windows * self.window:
            raise ValueError(
                f"a text of this courier has {self.n_windows * self.window} tokens, not the "
                f"{len(text)} tokens of text"
            )
        names = [str(value) for value in range(self.n_values)] + ["."]
        for sign in "=?!"[:1 + self.lags]:
            names += [letter + sign for letter in fact_letters(self)]
        windows = text.view(self.n_windows, -1).tolist()
        return " | ".join(" ".join(names[token] for token in window) for window in windows)

    def floors(self) -> dict[str, float]:
        """Return the lowest possible loss in nats per token for three kinds of reader.

        The mean is over all tokens except questions and the first window.

        A reader who remembers only one window can answer some questions about the window before
        that one: if the window between has asked for the same fact, it has also told the answer.
        """
        places = math.log(math.comb(self.body - self.n_facts, self.n_facts))
        values = self.n_facts * math.log(self.n_values)

        # The chance that the answer to a question "two back" stands in the window between. In the
        # third window, the window between can only have asked for the same window.
        told_again = [1 / self.n_facts]
        told_again += [1 / self.lags / self.n_facts] * (self.n_windows - 3)
        unknown = sum(1 - chance for chance in told_again[:self.n_windows - 2])
        two_back = 1 - 1 / self.lags
        asked_in_vain = two_back * unknown / (self.n_windows - 1)       # share of all answers
        answers = {
            "a perfect memory": 0.0,
            "memory of one window": asked_in_vain * math.log(self.n_values),
            "no memory": math.log(self.n_values),
        }
        n_tokens = self.window - 1
        return {reader: (places + values + answer) / n_tokens for reader, answer in answers.items()}


def fact_letters(courier: Courier) -> list[str]:
    """Return a letter for each fact. Raise a ValueError if there are not enough letters."""
    if courier.n_facts > 26:
        raise ValueError(
            f"n_facts={courier.n_facts} should be at most 26, because each fact needs a letter"
        )
    return [chr(ord("a") + i) for i in range(courier.n_facts)]


def check_reader(courier: Courier, model: nn.Module) -> None:
    """Raise a ValueError if the model has other tokens than the courier, or reads less."""
    config = model.config_dict() if hasattr(model, "config_dict") else {}
    vocab_size = config.get("vocab_size", courier.vocab_size)
    if vocab_size != courier.vocab_size:
        raise ValueError(
            f"the model has {vocab_size} tokens in its vocabulary, and the courier has "
            f"{courier.vocab_size}: give a model with vocab_size=courier.vocab_size"
        )
    # The last token of a text is predicted, but not read.
    longest, needed = getattr(model, "block_size", None), courier.n_windows * courier.window - 1
    if isinstance(longest, int) and longest < needed:
        raise ValueError(
            f"the model reads at most block_size={longest} tokens, and it should read the {needed} "
            f"before the last one of this courier's texts: give a model with block_size={needed} "
            "or more"
        )


def check_texts(courier: Courier, x: Tensor) -> None:
    """Raise a ValueError unless `x`, (B, T), are whole texts of this courier."""
    check_ids(x, courier.vocab_size)
    if x.shape[1] != courier.n_windows * courier.window:
        raise ValueError(
            f"a text of this courier has {courier.n_windows * courier.window} tokens, not the "
            f"{x.shape[1]} tokens of x"
        )


COURIER_KINDS = {"model": nn.Module, "courier": Courier}


@check_arguments(**COURIER_KINDS, x=tokens("B, T"))
def courier_losses(model: nn.Module, courier: Courier, x: Tensor, **how) -> Tensor:
    """Return the loss of each token in nats, (B, n_windows, window - 1), without the questions."""
    check_texts(courier, x)
    check_reader(courier, model)
    losses = token_losses(model, x, **how)                              # (B, T - 1)
    losses = nn.functional.pad(losses, (1, 0))                          # (B, T)
    return losses.view(len(x), courier.n_windows, courier.window)[:, :, 1:]


@check_arguments(**COURIER_KINDS, edit=optional(function), n=at_least(1))
def courier_scores(
    model: nn.Module, courier: Courier, edit: Callable | None = None, n: int = 1000
) -> dict[str, float]:
    """Return mean losses on `n` new texts, without the first window, in nats.

    "all" is the mean over all tokens but the questions. The others are means over the answers of
    the kinds that `answer_kinds` explains.

    Args:
        edit: changes each context on its way to the next window (see `RollingGPT.forward`).
    """
    x = courier.batch(n, torch.Generator().manual_seed(TEST_SEED))
    how = {"edit": edit} if edit else {}
    with evaluating(model):
        losses = courier_losses(model, courier, x, **how)[:, 1:]
    answers = losses[:, :, 0]
    scores = {"all": losses.mean().item()}
    for kind, mask in answer_kinds(courier, x).items():
        scores[kind] = answers[mask].mean().item()
    return scores


@check_arguments(courier=Courier, x=tokens("B, T"))
def answer_kinds(courier: Courier, x: Tensor) -> dict[str, Tensor]:
    """Return for each kind of question in which windows it stands, (B, n_windows - 1) booleans.

    The first window is left out. "one back" asks for the window before, "two back" for the one
    before that. "told again" is also two back, but the window between has told the answer.
    """
    check_texts(courier, x)
    questions = x.view(len(x), courier.n_windows, -1)[:, :, 0]          # (B, n_windows)
    first_older = courier.n_values + 1 + 2 * courier.n_facts            # a!, b!, … begin here
    older = questions[:, 1:] >= first_older
    told = older & (questions[:, :-1] == questions[:, 1:] - courier.n_facts)
    return {"one back": ~older, "two back": older & ~told, "told again": told}


@check_arguments(courier=Courier, x=tokens("B, T"))
def courier_batch(courier: Courier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, (B, T - 1) each, of the texts `x`. Questions are no targets."""
    check_texts(courier, x)
    targets = x.clone()
    targets[:, ::courier.window] = NO_TARGET
    return x[:, :-1], targets[:, 1:]


@check_arguments(model=trainable, courier=Courier, config=TrainConfig)
def train_on_courier(
    model: nn.Module, courier: Courier, config: TrainConfig
) -> dict[int, float]:
    """Train `model` in place on new texts.

    Returns:
        {step: loss of the answers "one back"}, on 200 other texts, at each evaluation. These come
        every `config.eval_interval` steps.
    """
    check_reader(courier, model)
    texts, x, next_step = None, None, 0

    def batches(step):
        """Return the batch of a step. One generator gives all texts, one batch after another."""
        nonlocal texts, next_step, x
        if step < next_step - 1:
            next_step = 0                       # an earlier step: begin again
        if next_step == 0:
            texts = courier.stream(config.batch_size, config.seed)
        while next_step <= step:
            x = next(texts)
            next_step += 1
        return courier_batch(courier, x)

    curve = {}

    def measure(row):
        curve[row["step"]] = courier_scores(model, courier, n=200)["one back"]

    test_texts = courier.batch(200, torch.Generator().manual_seed(TEST_SEED))
    block_size = courier.n_windows * courier.window - 1
    train(model, batches, [courier_batch(courier, test_texts)], block_size, config,
          on_eval=measure, progress=False)
    return curve
