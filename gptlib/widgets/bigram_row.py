"""A row of the bigram table for a character that the reader types (chapter 1)."""

import ipywidgets as W
import numpy as np
import torch
from torch import Tensor

from gptlib.bigram import Bigram
from gptlib.checks import at_least, check_arguments, tensor
from gptlib.plot import BLUE, GREY, new_figure
from gptlib.tokenizer import Tokenizer, any_tokenizer
from gptlib.widgets.panel import (
    FULL_NAME,
    Panel,
    axis_labels,
    describe_largest,
    format_percent,
    table_html,
    text_area,
    token_labels,
)

# The picture has room for this many bars.
MAX_BARS = 70
# The steps of the smoothing slider.
AMOUNTS = (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)


def counts_or_bigram(name: str, value: Tensor | Bigram) -> Tensor | Bigram:
    """The kind for a table of counts, (V, V), and for a bigram model."""
    if isinstance(value, Bigram):
        return value
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{name} is {type(value).__name__}, it should be counts, (V, V), or a Bigram"
        )
    value = tensor("V, V")(name, value)
    if not (value >= 0).all():
        raise ValueError(f"{name} should hold counts, which are at least 0")
    return value


@check_arguments(counts=tensor("V"), smoothing=at_least(0.0))
def row_probabilities(counts: Tensor, smoothing: float) -> Tensor:
    """Return the probabilities of a row of counts, (V,), smoothed as in `Bigram.from_counts`.

    >>> row_probabilities(torch.tensor([3.0, 1.0, 0.0]), smoothing=1)
    tensor([0.5714, 0.2857, 0.1429])
    """
    if not (counts >= 0).all():
        raise ValueError("counts should be numbers that are at least 0")
    smoothed = counts.double() + smoothing
    if smoothed.sum() == 0:
        smoothed += 1
    return (smoothed / smoothed.sum()).float()


class BigramRow(Panel):
    """Type a text and see what can follow its last character, a bar for each token.

    The bars stay at their places, and the axis goes from 0 to 1. So bars of different characters
    can be compared.

    Args:
        table: counts, (V, V), from `count_bigrams`. Then a slider sets the smoothing, and grey
            frames show the probabilities without smoothing. Or a Bigram, whose rows are shown as
            they are.
        tokenizer: the tokenizer of the table.
        text: the text in the field.
    """

    @check_arguments(table=counts_or_bigram, tokenizer=any_tokenizer, text=str)
    def __init__(self, table: Tensor | Bigram, tokenizer: Tokenizer, text: str = "t"):
        self.table, self.tokenizer = table, tokenizer
        n_rows = table.table.num_embeddings if self.is_model else len(table)
        if n_rows != tokenizer.vocab_size:
            raise ValueError(
                f"the table has {n_rows} rows and the tokenizer {tokenizer.vocab_size} tokens: "
                "give the tokenizer with which the text was encoded"
            )
        self.text = text_area("Type a letter", text, rows=1)
        # Each key shows its row at once.
        self.text.continuous_update = True
        self.smoothing = W.SelectionSlider(
            options=[(f"{amount:g}", amount) for amount in AMOUNTS], value=1.0,
            description="Smoothing", style=FULL_NAME, continuous_update=False,
        )
        super().__init__(self.text, *([] if self.is_model else [self.smoothing]))
        self.redraw_on_change(self.text, self.smoothing)

    @property
    def is_model(self) -> bool:
        return isinstance(self.table, Bigram)

    def read(self) -> tuple[str, Tensor, Tensor]:
        """Return the last token of the text, and its row with and without smoothing, (V,) each."""
        ids = self.tokenizer.encode(self.text.value)
        if not ids:
            raise ValueError("the field is empty: type a letter")
        token, (label,) = ids[-1], token_labels(self.tokenizer, ids[-1:])
        if self.is_model:
            with torch.no_grad():
                row = self.table.table.weight[token].softmax(-1).cpu()
            return label, row, row
        counts = self.table[token].cpu()
        smoothed = row_probabilities(counts, self.smoothing.value)
        return label, smoothed, row_probabilities(counts, 0.0)

    def shown(self) -> list[int]:
        """Return the tokens that have bars. Of a large vocabulary, these are the most frequent."""
        V = self.tokenizer.vocab_size
        if V <= MAX_BARS:
            return list(range(V))
        table = self.table.table.weight.detach().softmax(-1) if self.is_model else self.table
        return table.sum(0).topk(MAX_BARS).indices.sort().values.tolist()

    def picture(self):
        label, smoothed, counted = self.read()
        shown = self.shown()
        names = token_labels(self.tokenizer, shown)
        heights = smoothed[shown].tolist()
        figure, axes = new_figure(width=11, height=3.2)
        places = np.arange(len(shown))
        axes.bar(places, heights, color=BLUE, label=self.row_name())
        if not self.is_model:
            axes.bar(
                places, counted[shown].tolist(), fill=False, edgecolor=GREY,
                label="smoothing 0: as counted",
            )
        # The three largest have a number, if there is room for it.
        for place in (place for place in np.argsort(heights)[-3:] if heights[place] >= 0.03):
            axes.annotate(
                f"{format_percent(heights[place])}%", (place, heights[place]), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=8,
            )
        axes.set_xticks(places, axis_labels(names), fontsize=8)
        axes.set(xlabel="next token", ylabel="probability", ylim=(0, 1.05), xlim=(-1, len(shown)))
        axes.set_title(f"after {axis_labels([repr(label)])[0]}", fontsize=11, loc="left")
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
        return figure, (
            f"Bars from 0 to 1: the probability of each token after {label!r}, {self.row_name()}. "
            f"The largest are {describe_largest(heights, names)}."
        )

    def row_name(self) -> str:
        return "of the model" if self.is_model else f"smoothing {self.smoothing.value:g}"

    def static_html(self) -> str:
        label, smoothed, _ = self.read()
        order = smoothed.argsort(descending=True, stable=True)[:10].tolist()
        names = token_labels(self.tokenizer, order)
        rows = [(name, f"{format_percent(smoothed[i].item())} %")
                for name, i in zip(names, order, strict=True)]
        return table_html((f"after {label!r}, {self.row_name()}", "probability"), rows)
