"""The merge stepper: how a sentence is split into tokens after each merge of a BPE tokenizer."""

from collections.abc import Iterator

import ipywidgets as W

from gptlib.bpe import BPETokenizer
from gptlib.checks import check_arguments
from gptlib.plot import BLUE, RED, new_figure
from gptlib.widgets.panel import Panel, number_field, text_area, token_boxes

# The curve is computed at this many steps.
CURVE_STEPS = 40
# With more merges than these, each step would be slow.
MAX_MERGES = 2000


class MergeStepper(Panel):
    """Move a slider through the merges and watch the token boundaries in your own sentence.

    Args:
        tokenizer: a trained tokenizer.
        sentence: the text that is split into tokens.
    """

    @check_arguments(tokenizer=BPETokenizer, sentence=str)
    def __init__(
        self,
        tokenizer: BPETokenizer,
        sentence: str = "To be, or not to be, that is the question",
    ):
        self.tokenizer = tokenizer
        self.tokenizer_dict = tokenizer.to_dict()
        self.max_merges = min(len(tokenizer.merges), MAX_MERGES)
        self.sentence = text_area("Sentence", sentence, layout=W.Layout(width="480px"))
        self.merges, merges_row = number_field("Merges", self.max_merges // 2, 0, self.max_merges)
        super().__init__(self.sentence, merges_row)
        self.redraw_on_change(self.sentence, self.merges)

    def tokens_after(self, n: int) -> list[tuple[int, bytes]]:
        """Return the ids and the bytes of the sentence's tokens after n merges."""
        tokenizer = first_merges(self.tokenizer_dict, n)
        return [(i, tokenizer.token_bytes(i)) for i in tokenizer.encode(self.sentence.value)]

    def redraw(self) -> None:
        super().redraw()
        self.drawing.value = self.static_html() + self.drawing.value
        self.show_status(self.describe_last_merge())

    def describe_last_merge(self) -> str:
        n = self.merges.value
        if n == 0:
            return "no merges yet: every token is a byte"
        pair = list(self.tokenizer.merges)[n - 1]
        left, right = (repr(readable(self.tokenizer.token_bytes(i))) for i in pair)
        return f"merge {n}: {left} and {right} become token {self.tokenizer.merges[pair]}"

    def picture(self):
        length, n = len(self.sentence.value), self.merges.value
        if not length:
            raise ValueError("the sentence is empty: write something to be split into tokens")
        curve = self.tokens_per_character()
        tokens = len(self.tokens_after(n))
        figure, axes = new_figure(width=7, height=2.8)
        axes.plot(curve.keys(), curve.values(), color=BLUE)
        axes.plot(n, tokens / length, "o", color=RED)
        top = 1.1 * max(curve.values())
        axes.set(xlabel="merges", ylabel="tokens per character", ylim=(0, top))
        title = f"after {n} merges: {tokens} tokens, {tokens / length:.2f} per character"
        axes.set_title(f"your sentence {title}", fontsize=10)
        return figure, (
            "Tokens per character of the sentence against the number of merges. It is "
            f"{curve[0]:.2f} without merges and {curve[self.max_merges]:.2f} after "
            f"{self.max_merges}. After {n} merges the sentence has {tokens} tokens."
        )

    def tokens_per_character(self) -> dict[int, float]:
        """Return the tokens per character of the sentence, by number of merges."""
        fractions = [i / CURVE_STEPS for i in range(CURVE_STEPS + 1)]
        steps = sorted({round(fraction * self.max_merges) for fraction in fractions})
        length = len(self.sentence.value)
        return {step: len(self.tokens_after(step)) / length for step in steps}

    def static_html(self) -> str:
        name = f"the tokens of the sentence and their ids after {self.merges.value} merges"
        return token_boxes(self.boxes(), name)

    def boxes(self) -> Iterator[tuple[str, float, str]]:
        """Yield a box for each token. Two shades alternate, so that the boundaries can be seen."""
        for position, (i, token) in enumerate(self.tokens_after(self.merges.value)):
            yield readable(token), 0.75 if position % 2 else 0.5, str(i)


def first_merges(tokenizer_dict: dict, n: int) -> BPETokenizer:
    """Return the tokenizer of `to_dict` with only its first n merges."""
    return BPETokenizer.from_dict(tokenizer_dict | {"merges": tokenizer_dict["merges"][:n]})


def readable(token: bytes) -> str:
    """Return a token's text, or its bytes in hexadecimal where they are no whole characters.

    >>> readable(b"low"), readable("é".encode()[:1])
    ('low', 'c3')
    """
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return token.hex()
