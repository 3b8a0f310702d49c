"""Move a threshold and see which pairs of documents count as near copies (chapter 10)."""

from collections.abc import Mapping, Sequence

import ipywidgets as W

from gptlib.checks import between, check_arguments, checked_value, list_of
from gptlib.plot import BLUE, GREY, new_figure
from gptlib.widgets.panel import FULL_NAME, Panel, table_html

MOST_PAIRS = 16             # so many of the most similar pairs are shown


def similarities(name: str, value: Mapping[tuple[int, int], float]) -> dict:
    """The kind of similarities from 0 to 1, by pair of two document numbers."""
    pairs = dict(checked_value(name, value, Mapping))
    if not pairs:
        raise ValueError(f"{name} is empty, it should have at least one pair of documents")
    for pair, number in pairs.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"{name} has the key {pair!r}, it should be a pair of two numbers")
        between(0.0, 1.0)(f"{name}[{pair}]", number)
    return pairs


class NearCopies(Panel):
    """Move a threshold and see which pairs of documents count as near copies.

    Args:
        names: a name for each document, such as its source.
        similarity: by pair (i, j) of document numbers, from 0 to 1.
        threshold: where the slider stands at first.
    """

    @check_arguments(names=list_of(str), similarity=similarities, threshold=between(0.0, 1.0))
    def __init__(
        self, names: Sequence[str], similarity: Mapping[tuple[int, int], float],
        threshold: float = 0.8,
    ):
        for pair in similarity:
            if not all(0 <= number < len(names) for number in pair):
                raise ValueError(f"similarity has the pair {pair}, there are {len(names)} names")
        self.names = names
        self.similarity = similarity
        self.pairs = sorted(similarity, key=similarity.get, reverse=True)[:MOST_PAIRS]
        self.threshold = W.FloatSlider(
            value=threshold, min=0.0, max=1.0, step=0.01, description="Threshold",
            style=FULL_NAME, continuous_update=False, layout=W.Layout(width="420px"),
        )
        super().__init__(self.threshold)
        self.redraw_on_change(self.threshold)

    def count(self, threshold: float) -> int:
        """Return how many pairs have at least this similarity."""
        return sum(number >= threshold for number in self.similarity.values())

    def label(self, pair: tuple[int, int]) -> str:
        return f"{self.names[pair[0]]}, {self.names[pair[1]]}"

    def picture(self):
        threshold = self.threshold.value
        numbers = [self.similarity[pair] for pair in self.pairs]
        figure, axes = new_figure(width=8, height=0.6 + 0.26 * len(numbers))
        axes.barh([self.label(pair) for pair in self.pairs], numbers,
                  color=[BLUE if number >= threshold else "#BBBBBB" for number in numbers])
        axes.axvline(threshold, color=GREY, linestyle="--")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=9)
        n = self.count(threshold)
        axes.set_title(f"{n} pairs are near copies (blue)", fontsize=11, loc="left")
        axes.set(xlim=(0, 1.02), xlabel="similarity; the dashed line is the threshold")
        return figure, (
            f"The {len(numbers)} most similar pairs of {len(self.similarity)}. With the threshold "
            f"{threshold:.2f}, {n} pairs are near copies."
        )

    def static_html(self) -> str:
        rows = [(self.label(pair), f"{self.similarity[pair]:.2f}") for pair in self.pairs]
        return table_html(("documents", "similarity"), rows)
