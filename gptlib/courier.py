"""The courier: a made-up text whose answers nobody can know without a memory, and whose loss with one is known exactly.

Each window asks for a fact that an earlier window brought, tells the answer, and brings facts of its own.

>>> courier = Courier()
>>> courier.spell(courier.batch(1, torch.Generator().manual_seed(0))[0])
'a! 5 . a= 4 . . . | a? 4 . . . a= 7 . | a! 4 . . . a= 5 . | a? 5 . . . . a= 0'
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptlib.config import TrainConfig
from gptlib.context_rolling import token_losses
from gptlib.model import evaluating
from gptlib.train import learning_rate, make_optimizer


@dataclass(frozen=True)
class Courier:
    """The rules. A window is a question, its answer, a blank, then a body in which each fact stands behind its mark.

    Everything is drawn uniformly: the facts' values, their places in the body (in order), and what is asked. The
    first window's answer is drawn too, since there is nothing to ask for.
    """

    n_windows: int = 4
    n_facts: int = 1                    # facts a window brings
    n_values: int = 8                   # values a fact may have
    lags: int = 2                       # 2: questions go to the last window or the one before, 1: to the last only
    body: int = 5                       # tokens in which the facts stand, at least 2 · n_facts

    @property
    def window(self) -> int:
        return 3 + self.body

    @property
    def vocab_size(self) -> int:
        return self.n_values + 1 + self.n_facts + self.lags * self.n_facts      # values, the blank, marks, questions

    def batch(self, B: int, generator: torch.Generator) -> Tensor:
        """B texts, (B, n_windows · window)."""
        draw = lambda high, *shape: torch.randint(high, (B, self.n_windows, *shape), generator=generator)
        blank, first_mark = self.n_values, self.n_values + 1
        x = torch.full((B, self.n_windows, self.window), blank)
        facts, asked, lag = draw(self.n_values, self.n_facts), draw(self.n_facts), draw(self.lags)
        lag[:, 1] = 0                                                           # only one window to ask
        items = torch.rand(B, self.n_windows, self.body - self.n_facts, generator=generator)    # a fact is one item, a blank too
        places = 3 + items.argsort(-1)[..., :self.n_facts].sort().values + torch.arange(self.n_facts)
        x.scatter_(2, places, torch.arange(self.n_facts).expand_as(places) + first_mark)
        x.scatter_(2, places + 1, facts)
        x[:, :, 0] = first_mark + self.n_facts * (1 + lag) + asked
        x[:, 0, 1] = draw(self.n_values)[:, 0]
        for k in range(1, self.n_windows):
            source = facts[torch.arange(B), k - 1 - lag[:, k]]                  # (B, n_facts)
            x[:, k, 1] = source.gather(1, asked[:, k, None])[:, 0]
        return x.flatten(1)

    def spell(self, text: Tensor) -> str:
        """A text as signs: a digit is a value, a dot a blank, `a=` marks fact a, `a?` asks for it and `a!` for the one before."""
        names = [str(v) for v in range(self.n_values)] + ["."]
        names += [mark for sign in "=?!"[:1 + self.lags] for mark in (chr(97 + i) + sign for i in range(self.n_facts))]
        return " | ".join(" ".join(names[token] for token in window) for window in text.view(self.n_windows, -1).tolist())

    def floors(self) -> dict[str, float]:
        """The least loss in nats per token, questions and the first window left out, for three kinds of reader.

        Who remembers one window can answer some questions about the one before it too: those whose answer the last
        window has just told, because it asked for the same fact.
        """
        body = math.log(math.comb(self.body - self.n_facts, self.n_facts)) + self.n_facts * math.log(self.n_values)
        told_again = [1 / self.n_facts] + [1 / self.lags / self.n_facts] * (self.n_windows - 3)     # chances, from the third window on
        older = (1 - 1 / self.lags) * sum(1 - chance for chance in told_again[:self.n_windows - 2]) / (self.n_windows - 1)
        answers = {"a perfect memory": 0.0, "memory of one window": older * math.log(self.n_values), "no memory": math.log(self.n_values)}
        return {reader: (body + answer) / (self.window - 1) for reader, answer in answers.items()}


def courier_losses(model: nn.Module, courier: Courier, x: Tensor, **how) -> Tensor:
    """Nats of each token, (B, n_windows, window - 1): the questions, which are given, are left out."""
    losses = token_losses(model, x, **how)
    return nn.functional.pad(losses, (1, 0)).view(len(x), courier.n_windows, courier.window)[:, :, 1:]


def courier_scores(model: nn.Module, courier: Courier, edit: Callable | None = None, n: int = 1000) -> dict[str, float]:
    """Mean losses on `n` fresh texts, first window left out: of all tokens, and of three kinds of answers.

    "one back" and "two back" say how far; "told again" are those two back that the window between has told already.
    """
    x = courier.batch(n, torch.Generator().manual_seed(2 ** 32))
    with evaluating(model):
        losses = courier_losses(model, courier, x, **({"edit": edit} if edit else {}))[:, 1:]
    return {"all": losses.mean().item()} | {kind: losses[:, :, 0][mask].mean().item() for kind, mask in answer_kinds(courier, x).items()}


def answer_kinds(courier: Courier, x: Tensor) -> dict[str, Tensor]:
    """Which windows but the first ask for what, (B, n_windows - 1) of booleans for each kind."""
    asked = x.view(len(x), courier.n_windows, -1)[:, :, 0]                                      # (B, n_windows), the questions
    older = asked[:, 1:] >= courier.n_values + 1 + 2 * courier.n_facts                          # a!, b!, …
    told = older & (asked[:, :-1] == asked[:, 1:] - courier.n_facts)                            # the window before asked a?, b?, …
    return {"one back": ~older, "two back": older & ~told, "told again": told}


def train_on_courier(model: nn.Module, courier: Courier, config: TrainConfig) -> list[float]:
    """Train `model` in place on fresh texts. Returns the mean loss of the answers one window back at each step."""
    optimizer, generator, curve = make_optimizer(model, config), torch.Generator().manual_seed(config.seed), []
    for step in range(config.max_steps):
        lr = learning_rate(config, step, courier.window)
        for group in optimizer.param_groups:
            group["lr"] = lr
        x = courier.batch(config.batch_size, generator)
        losses = courier_losses(model, courier, x)
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        curve.append(losses[:, 1:, 0][answer_kinds(courier, x)["one back"]].mean().item())
    return curve
