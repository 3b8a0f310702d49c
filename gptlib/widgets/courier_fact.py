"""Change a fact of the courier and see the answer that a memory gives (chapter 7)."""

import html

import ipywidgets as W
import numpy as np
import torch
from torch import Tensor

from gptlib.checks import check_arguments, optional
from gptlib.corpora.courier_text import CourierTokenizer, answer_probabilities, courier_question
from gptlib.plot import BLUE, GREY, RED, new_figure
from gptlib.trained import load_trained
from gptlib.variants.context_rolling import RollingGPT
from gptlib.widgets.panel import (
    FULL_NAME,
    Models,
    Panel,
    describe_largest,
    dropdown,
    format_percent,
    get_model,
    models_kind,
    number_field,
    table_html,
    token_boxes,
)

# The facts at the beginning.
FACTS = (3, 5, 1)


class CourierFact(Panel):
    """Choose the facts of three windows and a question, and see the distribution of the answer.

    Blue bars show what the model answers. Grey bars show its answer if zeros replace the contexts
    that it passes from window to window.

    Args:
        models: (model, CourierTokenizer) by name. None means the trained model of the library.
    """

    @check_arguments(models=optional(models_kind))
    def __init__(self, models: Models | None = None):
        self.models = {"trained courier": load_trained("courier")} if models is None else models
        if not self.models:
            raise ValueError("models={} is empty: give at least one model, or None")
        for name, model in self.models.items():
            if not (isinstance(model, tuple) and isinstance(model[1], CourierTokenizer)):
                raise ValueError(
                    f"models[{name!r}] should be a model and its CourierTokenizer: the courier has "
                    "signs of its own"
                )
        self.model = dropdown("Model", self.models)
        n_values = min(tokenizer.courier.n_values for _, tokenizer in self.models.values())
        self.facts, rows = [], []
        for k, value in enumerate(FACTS, 1):
            field, row = number_field(
                f"Fact of window {k}", min(value, n_values - 1), 0, n_values - 1
            )
            self.facts.append(field)
            rows.append(row)
        self.question = W.Dropdown(
            options=[("a? the fact of window 3", 1), ("a! the fact of window 2", 2)],
            description="Question", style=FULL_NAME,
        )
        super().__init__(self.model, *rows, self.question)
        self.redraw_on_change(self.model, *self.facts, self.question)

    @property
    def right_answer(self) -> int:
        return self.facts[-self.question.value].value

    def read(self) -> tuple[Tensor, CourierTokenizer, dict[str, list[float]]]:
        """Return the text, its tokenizer, and the probabilities of the answers by a name.

        The second probabilities are those without the contexts, if the model has contexts.
        """
        model, tokenizer = get_model(self.models, self.model.value)
        facts = [field.value for field in self.facts]
        courier = tokenizer.courier
        text = courier_question(courier, facts, self.question.value)
        text = text.to(next(model.parameters()).device)
        answers = {"with its memory": answer_probabilities(model, courier, text).tolist()}
        if isinstance(model, RollingGPT):
            without = answer_probabilities(model, courier, text, edit=torch.zeros_like)
            answers["with zeros in place of the memory"] = without.tolist()
        return text, tokenizer, answers

    def redraw(self) -> None:
        super().redraw()
        self.drawing.value = self.text_boxes() + self.drawing.value

    def text_boxes(self) -> str:
        """Return the text as boxes. The fact that is asked for is dark, and so is the question."""
        text, tokenizer, _ = self.read()
        courier = tokenizer.courier
        begin = (len(self.facts) - self.question.value) * courier.window
        windows = []
        for start in range(0, len(text), courier.window):
            boxes = []
            for place in range(start, min(start + courier.window, len(text))):
                is_mark = text[place] == courier.n_values + 1
                is_fact = begin < place < begin + courier.window and (
                    is_mark or text[place - 1] == courier.n_values + 1)
                strong = is_fact or place == len(text) - 1
                boxes.append((tokenizer.signs[text[place]], 1.0 if strong else 0.0, ""))
            number = start // courier.window + 1
            windows.append(token_boxes(boxes, f"window {number}"))
        return "".join(windows)

    def picture(self):
        _, _, answers = self.read()
        n_values = len(next(iter(answers.values())))
        figure, axes = new_figure(width=8, height=3.2)
        width = 0.8 / len(answers)
        for i, (name, p) in enumerate(answers.items()):
            places = np.arange(n_values) + (i - (len(answers) - 1) / 2) * width
            style = {"color": GREY, "hatch": "//"} if i else {"color": BLUE}
            axes.bar(places, p, width, label=name, **style)
        axes.set_xticks(range(n_values), [str(value) for value in range(n_values)])
        axes.get_xticklabels()[self.right_answer].set(color=RED, fontweight="bold")
        axes.set(ylim=(0, 1.05), ylabel="probability",
                 xlabel=f"answer (the right one is {self.right_answer})")
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        names = [str(value) for value in range(n_values)]
        texts = [f"{name}: {describe_largest(p, names)}" for name, p in answers.items()]
        return figure, (
            f"Probability of each answer, from 0 to 1. The right answer is {self.right_answer}. "
            f"{'; '.join(texts)}."
        )

    def static_html(self) -> str:
        text, tokenizer, answers = self.read()
        rows = [(str(value), *(f"{format_percent(p)} %" for p in column))
                for value, column in enumerate(zip(*answers.values(), strict=True))]
        spelled = html.escape(tokenizer.decode(text.tolist()))
        return f"<p>{spelled}</p>" + table_html(("answer", *answers), rows)
