"""A sentence of the reader in several tokenizers, among them GPT-4's (chapter 5)."""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as W

from gptlib.checks import check_arguments, checked_value
from gptlib.plot import BLUE, new_figure
from gptlib.tokenizer import Tokenizer, any_tokenizer
from gptlib.widgets.merges import readable
from gptlib.widgets.panel import Panel, axis_labels, text_area, token_boxes

if TYPE_CHECKING:
    import tiktoken

# A longer sentence gives more boxes than a reader can compare.
MAX_CHARACTERS = 1000


def is_tiktoken(tokenizer) -> bool:
    return hasattr(tokenizer, "decode_single_token_bytes")


def tokenizers_kind(name: str, value: Mapping) -> Mapping:
    """The kind for tokenizers by name, also those of tiktoken. None stands for a missing one."""
    for key, tokenizer in checked_value(name, value, Mapping).items():
        if tokenizer is not None and not is_tiktoken(tokenizer):
            any_tokenizer(f"{name}[{key!r}]", tokenizer)
    if not any(tokenizer is not None for tokenizer in value.values()):
        raise ValueError(f"{name} should contain at least one tokenizer")
    return value


def sentence_tokens(
    tokenizer: "Tokenizer | tiktoken.Encoding", sentence: str
) -> list[tuple[int, bytes]]:
    """Return the ids and the bytes of the tokens of a sentence."""
    if is_tiktoken(tokenizer):
        # The text of a special token, such as <|endoftext|>, is split like any other text.
        ids = tokenizer.encode(sentence, disallowed_special=())
        return [(i, tokenizer.decode_single_token_bytes(i)) for i in ids]
    return [(i, tokenizer.token_bytes(i)) for i in tokenizer.encode(sentence)]


class TokenizerComparison(Panel):
    """Write a sentence and see its tokens in several tokenizers, one below the other.

    Args:
        tokenizers: by name, such as {"ours": bpe, "GPT-4": find_tiktoken()}. A sentence stands in
            place of a tokenizer that is None.
        sentence: the text in the field.
    """

    @check_arguments(tokenizers=tokenizers_kind, sentence=str)
    def __init__(
        self, tokenizers: "Mapping[str, Tokenizer | tiktoken.Encoding | None]",
        sentence: str = "Tokenization isn't the same in 2026, nor in every language.",
    ):
        self.tokenizers = dict(tokenizers)
        self.sentence = text_area("Sentence", sentence, layout=W.Layout(width="480px"))
        super().__init__(self.sentence)
        self.redraw_on_change(self.sentence)

    def read(self) -> dict[str, list[tuple[int, bytes]]]:
        """Return the tokens of the sentence for each tokenizer that is there."""
        sentence = self.sentence.value
        if not 1 <= len(sentence) <= MAX_CHARACTERS:
            raise ValueError(
                f"the sentence has {len(sentence):,} characters: write 1 to {MAX_CHARACTERS:,}"
            )
        return {name: sentence_tokens(tokenizer, sentence)
                for name, tokenizer in self.tokenizers.items() if tokenizer is not None}

    def redraw(self) -> None:
        super().redraw()
        self.drawing.value = self.static_html() + self.drawing.value

    def picture(self):
        counts = {name: len(tokens) for name, tokens in self.read().items()}
        n_bytes = len(self.sentence.value.encode("utf-8"))
        figure, axes = new_figure(width=7, height=0.9 + 0.5 * len(counts))
        bars = axes.barh(axis_labels(counts), counts.values(), color=BLUE)
        axes.bar_label(bars, padding=3)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.08 * n_bytes), xlabel=f"tokens (the sentence has {n_bytes} bytes)")
        texts = [f"{name} {n}" for name, n in counts.items()]
        return figure, (
            f"Number of tokens of the sentence, which has {n_bytes} bytes: {', '.join(texts)}. "
            f"The axis goes from 0 to {n_bytes}."
        )

    def static_html(self) -> str:
        parts = []
        tokens = self.read()
        for name in self.tokenizers:
            if name not in tokens:
                parts.append(
                    f"<p>{html.escape(name)} cannot be shown, because its file is not on this "
                    "computer and could not be downloaded.</p>"
                )
                continue
            heading = f"{name}: {len(tokens[name])} tokens, with their ids"
            # Two shades alternate, so that the boundaries can be seen.
            boxes = [(readable(token), 0.9 if position % 2 else 0.3, str(i))
                     for position, (i, token) in enumerate(tokens[name])]
            parts.append(f"<p>{html.escape(heading)}</p>{token_boxes(boxes, heading)}")
        return "".join(parts)
