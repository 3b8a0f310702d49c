"""The merge stepper: how a sentence falls into tokens after each merge that a byte pair encoding has learned."""

from collections.abc import Iterable

import ipywidgets as W

from gptlib.bpe import BPETokenizer
from gptlib.plot import BLUE, RED, new_figure
from gptlib.widgets.panel import NAMED, Panel, boxes, number

POINTS = 40             # of the curve
MOST_MERGES = 2000      # more would make each step wait


def first_merges(saved: dict, n: int) -> BPETokenizer:
    """The tokenizer that `to_dict` gave, as it was after its first n merges."""
    return BPETokenizer.from_dict(saved | {"merges": saved["merges"][:n]})


def readable(token: bytes) -> str:
    """A token's text, or its bytes in hexadecimal where they are half a character."""
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return token.hex()


class MergeStepper(Panel):
    """Slide through the merges and watch the boundaries move over your own sentence.

    Args:
        tokenizer: a trained one.
        sentence: the text that is cut.
    """

    def __init__(self, tokenizer: BPETokenizer, sentence: str = "To be, or not to be, that is the question"):
        self.tokenizer, self.most = tokenizer, min(len(tokenizer.merges), MOST_MERGES)
        self.sentence = W.Text(sentence, description="Sentence", style=NAMED, continuous_update=False, layout=W.Layout(width="480px"))
        self.merges, merges = number("Merges", self.most // 2, 0, self.most)
        self.saved = tokenizer.to_dict()
        super().__init__(self.sentence, merges)
        self.on_change(self.redraw, self.sentence, self.merges)

    def cut(self, n: int) -> list[tuple[int, bytes]]:
        """Ids and bytes of the sentence's tokens after n merges."""
        early = first_merges(self.saved, n)
        return [(i, early.token_bytes(i)) for i in early.encode(self.sentence.value)]

    def redraw(self) -> None:
        super().redraw()
        self.drawing.value = self.what_stays() + self.drawing.value
        self.say(self.newest())

    def newest(self) -> str:
        """The last merge made, in words."""
        n = self.merges.value
        if n == 0:
            return "no merges yet: every token is a byte"
        pair = list(self.tokenizer.merges)[n - 1]
        left, right = (repr(readable(self.tokenizer.token_bytes(i))) for i in pair)
        return f"merge {n}: {left} and {right} become token {self.tokenizer.merges[pair]}"

    def picture(self):
        length, n = len(self.sentence.value), self.merges.value
        if not length:
            raise ValueError("the sentence is empty: write something to be cut into tokens")
        steps = sorted({round(i * self.most / POINTS) for i in range(POINTS + 1)})
        curve = {step: len(self.cut(step)) / length for step in steps}
        tokens = len(self.cut(n))
        figure, axes = new_figure(width=7, height=2.8)
        axes.plot(curve.keys(), curve.values(), color=BLUE)
        axes.plot(n, tokens / length, "o", color=RED)
        axes.set(xlabel="merges", ylabel="tokens per character", ylim=(0, 1.1 * max(curve.values())))
        axes.set_title(f"your sentence after {n} merges: {tokens} tokens, {tokens / length:.2f} a character", fontsize=10)
        return figure, (f"Tokens per character of the sentence against merges: from {curve[0]:.2f} without merges down to "
                        f"{curve[self.most]:.2f} after {self.most}; after {n} merges it has {tokens} tokens")

    def what_stays(self) -> str:
        return boxes(self._alternating(self.cut(self.merges.value)), f"the sentence after {self.merges.value} merges, tokens and their ids")

    def _alternating(self, tokens: Iterable[tuple[int, bytes]]):
        for place, (i, token) in enumerate(tokens):
            yield readable(token), 0.75 if place % 2 else 0.5, str(i)
