"""The sampler: what temperature, top-k, top-p and min-p change in a token and in a whole text."""

import asyncio
import codecs
import html
import time
from collections.abc import Iterable, Iterator

import ipywidgets as W
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from gptlib.checkpoint import CheckpointError
from gptlib.checks import between, check_arguments, optional
from gptlib.generate import Windows, next_token_probabilities, pick
from gptlib.plot import BLUE, GREY, new_figure
from gptlib.tokenizer import Tokenizer, default_prompt
from gptlib.widgets.panel import (
    FULL_NAME,
    Models,
    Panel,
    axis_labels,
    describe_largest,
    dropdown,
    encode,
    find_checkpoints,
    format_percent,
    get_model,
    models_kind,
    number_field,
    text_area,
    token_boxes,
    token_labels,
)

# Seconds between two tokens. The reader can follow the text, and there is time to press Stop.
TOKEN_PAUSE = 0.02
# Seconds between two updates of a growing text. Each update sends the whole text to the browser.
UPDATE_INTERVAL = 0.1
# Number of tokens that the bars show.
N_BARS = 10


def stream_pieces(
    model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, seed: int = 0,
    **controls,
) -> Iterator[tuple[str, float]]:
    """Yield the text of `generate_text` in pieces of whole characters, each with its probability.

    A piece can consist of several tokens. Its probability is the product of theirs.

    Args:
        controls: temperature, top_k, top_p and min_p, as in `next_token_probabilities`.
    """
    windows = Windows(model, encode(model, tokenizer, prompt)[None], max_new_tokens)
    generator = np.random.default_rng(seed)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    p = 1.0
    for _ in range(max_new_tokens):
        probabilities = next_token_probabilities(windows.next_logits(), **controls)     # (1, V)
        token = pick(probabilities, [generator.random()])                               # (1,)
        windows.append(token)
        p *= probabilities[0, token].item()
        piece = decoder.decode(tokenizer.token_bytes(token.item()))
        if piece:
            yield piece, p
            p = 1.0
    # The text can end with an incomplete character.
    if rest := decoder.decode(b"", final=True):
        yield rest, p


def pieces_before(
    stop: str, pieces: Iterable[tuple[str, float]]
) -> Iterator[tuple[str, float]]:
    """Yield the pieces before the first `stop` string. An empty `stop` never occurs.

    Pieces at the end of the text that can still become the stop string wait until that is clear.
    """
    waiting = []
    for piece in pieces:
        waiting.append(piece)
        text = "".join(text for text, _ in waiting)
        if stop and stop in text:
            yield from first_characters(waiting, text.index(stop))
            return
        if not any(text.endswith(stop[:n]) for n in range(1, len(stop))):
            yield from waiting
            waiting = []
    yield from waiting


def first_characters(
    pieces: Iterable[tuple[str, float]], n: int
) -> Iterator[tuple[str, float]]:
    """Yield the pieces that hold the first `n` characters. The last piece can be cut."""
    for text, p in pieces:
        if n <= 0:
            return
        yield text[:n], p
        n -= len(text)


class Sampler(Panel):
    """Choose a model and a prompt, and watch the model continue it.

    Bars below the text show the distribution of the next token: as the model computes it, then
    after temperature, after top-k and after top-p. If min-p is on, it has bars of its own.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer) by name. None means all
            checkpoints in runs/.
        prompt: the beginning of the text. None: a line break, if the model's tokenizer knows one.
        length: the number of tokens to sample.
    """

    @check_arguments(models=optional(models_kind), prompt=str | None, length=between(1, 500))
    def __init__(
        self, models: Models | None = None, prompt: str | None = None, length: int = 150
    ):
        self.models = find_checkpoints() if models is None else models
        self.model = dropdown("Model", self.models)
        self.prompt = text_area("Prompt", "\n" if prompt is None else prompt)
        self.default_prompt = "\n" if prompt is None else None
        self.temperature, temperature_row = number_field("Temperature", 1.0, 0.0, 2.0, 0.05)
        self.top_k, top_k_row = number_field("Top-k (0: off)", 0, 0, 50)
        self.top_p, top_p_row = number_field("Top-p (1: off)", 1.0, 0.0, 1.0, 0.05)
        self.min_p, min_p_row = number_field("Min-p (0: off)", 0.0, 0.0, 1.0, 0.05)
        self.length = W.BoundedIntText(length, min=1, max=500, description="Length in tokens")
        self.seed = W.BoundedIntText(1, min=0, max=10 ** 9, description="Seed")
        self.length.style = self.seed.style = FULL_NAME
        self.stop_string = text_area("Stop before", "", placeholder="a string")
        self.sample, self.stop = self.start_and_stop_buttons("Sample", self.write_sample)
        self.text = W.HTML()
        self.n_samples = 0
        self.drawn_logits = None
        super().__init__(
            self.model, self.prompt, temperature_row, top_k_row, top_p_row, min_p_row,
            W.HBox([self.length, self.seed, self.stop_string]),
            W.HBox([self.sample, self.stop]), self.text,
        )
        self.model.observe(self.change_default_prompt, names="value")
        self.change_default_prompt()
        self.redraw_on_change(
            self.model, self.prompt, self.temperature, self.top_k, self.top_p, self.min_p
        )

    def change_default_prompt(self, change=None) -> None:
        """Choose a prompt that the model's tokenizer knows, unless the reader has written one."""
        if self.prompt.value != self.default_prompt:
            return
        try:
            tokenizer = get_model(self.models, self.model.value)[1]
        except CheckpointError:
            # The drawing shows this error.
            return
        self.default_prompt = default_prompt(tokenizer)
        self.prompt.value = self.default_prompt

    def controls(self) -> dict:
        """Return the values of the controls, as arguments of `next_token_probabilities`."""
        return {
            "temperature": self.temperature.value,
            "top_k": self.top_k.value or None,
            "top_p": self.top_p.value,
            "min_p": self.min_p.value or None,
        }

    def stream(
        self, model: nn.Module, tokenizer: Tokenizer, length: int
    ) -> Iterator[tuple[str, float]]:
        """Return a sample of at most `length` tokens: its pieces, each with its probability."""
        pieces = stream_pieces(
            model, tokenizer, self.prompt.value, length, self.seed.value, **self.controls()
        )
        return pieces_before(self.stop_string.value, pieces)

    async def write_sample(self) -> None:
        """Write a sample piece by piece, until it ends or the reader presses Stop."""
        self.n_samples += 1
        number, name = self.n_samples, self.model.value
        self.show_status(f"sample {number} is being written by {name}")
        model, tokenizer = get_model(self.models, name)
        self.redraw_if_changed(next_logits(model, tokenizer, self.prompt.value))
        pieces, outcome, updated = [], "done", 0.0
        for piece in self.stream(model, tokenizer, self.length.value):
            pieces.append(piece)
            if time.monotonic() - updated >= UPDATE_INTERVAL:
                self.text.value, updated = sample_boxes(pieces), time.monotonic()
            await asyncio.sleep(TOKEN_PAUSE)
            if self.stop_requested.is_set():
                outcome = "stopped"
                break
        self.text.value = sample_boxes(pieces)
        self.show_status(
            f"sample {number} {outcome}: {len(pieces)} pieces by {name}; "
            "the number below each piece is its probability in per cent"
        )

    def redraw_if_changed(self, logits: Tensor) -> None:
        """Draw the bars again if the model has been trained since they were drawn."""
        if self.drawn_logits is None or not torch.equal(logits, self.drawn_logits):
            self.draw_or_show_error(self.redraw)

    def picture(self):
        model, tokenizer = get_model(self.models, self.model.value)
        logits = next_logits(model, tokenizer, self.prompt.value)
        self.drawn_logits = logits
        steps = sampling_steps(**self.controls())
        order = logits.argsort(descending=True, stable=True)[:N_BARS]
        tokens = token_labels(tokenizer, order.tolist())
        figure, panels = new_figure(columns=len(steps), width=10, height=2.6, sharey=True)
        texts = []
        for axes, (title, controls) in zip(panels, steps.items(), strict=True):
            p = next_token_probabilities(logits, **controls)
            largest = p[order].tolist()
            draw_bars(axes, largest, f"{title}\n{(p > 0).sum()} of {len(p)} tokens")
            texts.append(f"{title}: {describe_largest(largest, tokens)}")
        panels[0].set_yticks(range(len(order)), axis_labels(tokens))
        panels[0].set_ylabel("next token")
        panels[0].invert_yaxis()
        text = f"Probabilities of the next token after {self.prompt.value!r}. "
        return figure, text + "; ".join(texts)

    def static_html(self) -> str:
        name = self.model.value
        sample = sample_boxes(list(self.stream(*get_model(self.models, name), 60)))
        heading = f"{name} after {self.prompt.value!r}, probabilities in per cent:"
        return f"<p>{html.escape(heading)}</p>{sample}"


def next_logits(model: nn.Module, tokenizer: Tokenizer, prompt: str) -> Tensor:
    """Return the logits for the token after the prompt, (V,), on the CPU."""
    idx = encode(model, tokenizer, prompt)
    return Windows(model, idx[None], 1).next_logits()[0].cpu()


def sampling_steps(
    temperature: float, top_k: int | None, top_p: float, min_p: float | None = None
) -> dict[str, dict]:
    """Return the arguments of `next_token_probabilities` after each control, by a title."""
    top_k_title = f"top-k {top_k}" if top_k else "top-k off"
    top_p_title = f"top-p {top_p:.2f}" if top_p < 1 else "top-p off"
    steps = {
        "the model": {"temperature": 1.0},
        f"temperature {temperature:.2f}": {"temperature": temperature},
        top_k_title: {"temperature": temperature, "top_k": top_k},
        top_p_title: {"temperature": temperature, "top_k": top_k, "top_p": top_p},
    }
    if min_p:
        steps[f"min-p {min_p:.2f}"] = steps[top_p_title] | {"min_p": min_p}
    return steps


def draw_bars(axes: Axes, probabilities: list[float], title: str) -> None:
    """Draw a bar for each probability, with its per cent. A cross marks a removed token."""
    axes.barh(range(len(probabilities)), probabilities, color=BLUE)
    for i, p in enumerate(probabilities):
        axes.annotate(
            f"{format_percent(p)}%" if p else "✗", (p, i),
            xytext=(3, 0), textcoords="offset points", va="center", fontsize=8,
            color="#111111" if p else GREY,
        )
    axes.set(xlabel="probability", xlim=(0, 1.15), xticks=(0, 0.5, 1))
    axes.set_title(title, fontsize=10)


def sample_boxes(pieces: list[tuple[str, float]]) -> str:
    """Return the pieces of a sample as HTML, each with its probability in per cent."""
    boxes = [(text, p, format_percent(p)) for text, p in pieces]
    return token_boxes(boxes, "sample: " + "".join(text for text, _ in pieces))
