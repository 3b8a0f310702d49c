"""The courier's tokens as text, and questions with facts of your own choice (chapter 7).

>>> courier = Courier()
>>> text = courier_question(courier, facts=[3, 5, 1], lag=2)
>>> CourierTokenizer(courier).decode(text)
'a? 0 . a= 3 . . . | a? 3 . . a= 5 . . | a! 3 . . . a= 1 . | a!'

The last sign asks for the value of a two windows back. The answer is 5.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from gptlib.bpe.build import SAVED_CLASSES
from gptlib.checks import check_arguments, dict_with, function, list_of, optional, short, tokens
from gptlib.corpora.courier import Courier, check_reader, fact_letters
from gptlib.model import evaluating
from gptlib.tokenizer import TokenizerError, checked_ids


class CourierTokenizer:
    """Turns the signs of `Courier.spell` into ids. Between two signs is a space.

    >>> tokenizer = CourierTokenizer(Courier())
    >>> tokenizer.encode("a? 4 . a= 7")
    [10, 4, 8, 9, 7]
    """

    @check_arguments(TokenizerError, courier=Courier)
    def __init__(self, courier: Courier):
        self.courier = courier
        letters = fact_letters(courier)
        self.signs = [str(value) for value in range(courier.n_values)] + ["."]
        for end in "=?!"[:1 + courier.lags]:
            self.signs += [letter + end for letter in letters]
        self.vocab_size = len(self.signs)
        self.ids = {sign: i for i, sign in enumerate(self.signs)}

    @check_arguments(TokenizerError, text=str)
    def encode(self, text: str) -> list[int]:
        """Return the ids of the signs in `text`. A border between two windows, |, has no id."""
        signs = text.replace("|", " ").split()
        for sign in signs:
            if sign not in self.ids:
                raise TokenizerError(
                    f"{sign!r} is not a sign of this courier: write {' '.join(self.signs)}, with "
                    "spaces between them"
                )
        return [self.ids[sign] for sign in signs]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the signs of `ids`, with a border after each whole window but the last."""
        text = ""
        for position, i in enumerate(checked_ids(ids, self.vocab_size)):
            if position:
                text += " " if position % self.courier.window else " | "
            text += self.signs[i]
        return text

    def token_bytes(self, token: int) -> bytes:
        return f"{self.decode([token])} ".encode()

    def to_dict(self) -> dict:
        return {"class": "CourierTokenizer", "courier": asdict(self.courier)}

    @classmethod
    @check_arguments(TokenizerError, saved=dict_with("courier"))
    def from_dict(cls, saved: dict) -> "CourierTokenizer":
        try:
            return cls(Courier(**saved["courier"]))
        except TypeError:
            raise TokenizerError(
                f"saved['courier']={short(saved['courier'])} should be the options of a Courier"
            ) from None


SAVED_CLASSES["CourierTokenizer"] = CourierTokenizer


@check_arguments(courier=Courier, facts=list_of(int), lag=(1, 2))
def courier_question(courier: Courier, facts: list[int], lag: int) -> Tensor:
    """Return a text that tells one fact in each window, and then asks for one of them.

    From the third window on, each window asks for the fact two windows back, if the courier has
    such questions. So no window before the last question repeats its answer. The first answer is 0.

    Args:
        facts: a value for each window.
        lag: 1: the question is about the last window. 2: about the window before that.

    Returns:
        (len(facts) · window + 1,). The last token is the question.
    """
    if courier.n_facts != 1:
        raise ValueError(f"courier has {courier.n_facts} facts in a window, it should have 1")
    if lag > courier.lags:
        raise ValueError(f"lag={lag}, but this courier asks only for the window before")
    if len(facts) < lag:
        raise ValueError(f"facts={facts} should be at least {lag} values")
    for value in facts:
        if not 0 <= value < courier.n_values:
            raise ValueError(f"facts={facts} should be values from 0 to {courier.n_values - 1}")
    space, mark = courier.n_values, courier.n_values + 1
    text = []
    for k, value in enumerate(facts):
        lag_here = min(k, courier.lags) or 1
        window = [space] * courier.window
        window[0] = mark + lag_here
        window[1] = facts[k - lag_here] if k else 0
        place = 3 + k % (courier.body - 1)
        window[place:place + 2] = mark, value
        text += window
    return torch.tensor([*text, mark + lag])


@check_arguments(
    model=nn.Module, courier=Courier, text=tokens("T"), edit=optional(function)
)
def answer_probabilities(
    model: nn.Module, courier: Courier, text: Tensor, edit: Callable | None = None
) -> Tensor:
    """Return the probability of each value as the token after `text`, (n_values,).

    Args:
        edit: changes each context on its way to the next window (see `RollingGPT.forward`).
    """
    check_reader(courier, model)
    how = {"edit": edit} if edit else {}
    with evaluating(model):
        logits = model(text[None], **how)[0, -1]            # (V,)
    return logits.softmax(-1)[:courier.n_values]
