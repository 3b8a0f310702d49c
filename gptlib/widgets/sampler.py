"""The sampler: what temperature, top-k and top-p do to the next token, and to a text."""

import asyncio
import codecs
import html
import time
from collections.abc import Iterable, Iterator

import ipywidgets as W
import numpy as np
import torch
from torch import nn

from gptlib.generate import Windows, next_token_probabilities, pick
from gptlib.plot import BLUE, GREY, new_figure
from gptlib.tokenizer import Tokenizer
from gptlib.widgets.panel import NAMED, Models, Panel, boxes, choice, find_checkpoints, labels, load, number, on_axis, percent, strongest

PACE = 0.02             # seconds between two tokens: time to read, and to press Stop
REFRESH = 0.1           # seconds between two showings of a text that grows, which is sent whole
BARS = 10               # tokens shown in a distribution


def stream_pieces(model: nn.Module, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, seed: int = 0,
                  **how) -> Iterator[tuple[str, float]]:
    """Yield the text that `generate_text` gives, whole characters only, each piece with the probability it was drawn at.

    Args:
        how: temperature, top_k and top_p, as in `next_token_probabilities`.
    """
    ids = torch.tensor([tokenizer.encode(prompt)], dtype=torch.long)
    windows, draw = Windows(model, ids, max_new_tokens), np.random.default_rng(seed)
    characters, p = codecs.getincrementaldecoder("utf-8")("replace"), 1.0
    for _ in range(max_new_tokens):
        probabilities = next_token_probabilities(windows.next_logits(), **how)      # (1, V)
        token = pick(probabilities, [draw.random()])
        windows.append(token)
        p *= probabilities[0, token].item()                 # of all tokens that this piece is made of
        piece = characters.decode(tokenizer.token_bytes(token.item()))
        if piece:
            yield piece, p
            p = 1.0
    if rest := characters.decode(b"", final=True):          # the text ends in half a character
        yield rest, p


def ended_before(stop: str, pieces: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """The pieces up to the string `stop`, if that is not empty; what could still become it is held back until it is clear."""
    held = []
    for piece in pieces:
        held.append(piece)
        text = "".join(text for text, _ in held)
        if stop and (end := text.find(stop)) >= 0:
            for text, p in held:
                if end > 0:
                    yield text[:end], p
                end -= len(text)
            return
        if not any(text.endswith(stop[:n]) for n in range(1, len(stop))):
            yield from held
            held.clear()
    yield from held


class Sampler(Panel):
    """Choose a model, write a prompt, and watch it write on; below, the next token's distribution after each control.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer); None takes what lies in runs/.
        prompt: where the text begins.
        length: tokens to sample.
    """

    def __init__(self, models: Models | None = None, prompt: str = "\n", length: int = 150):
        self.models = find_checkpoints() if models is None else models
        self.model = choice("Model", self.models)
        self.prompt = W.Textarea(prompt, description="Prompt", rows=2, style=NAMED, continuous_update=False)
        self.temperature, temperature = number("Temperature", 1.0, 0.0, 2.0, 0.05)
        self.top_k, top_k = number("Top-k (0: off)", 0, 0, 50)
        self.top_p, top_p = number("Top-p (1: off)", 1.0, 0.0, 1.0, 0.05)
        self.length = W.BoundedIntText(length, min=1, max=500, description="Length in tokens", style=NAMED)
        self.seed = W.BoundedIntText(1, min=0, max=10 ** 9, description="Seed", style=NAMED)
        self.until = W.Text("", description="Stop before", placeholder="a string", style=NAMED, continuous_update=False)
        self.sample, self.stop = self.buttons("Sample", self._sample)
        self.text = W.HTML()
        self.count = 0
        super().__init__(self.model, self.prompt, temperature, top_k, top_p, W.HBox([self.length, self.seed, self.until]),
                         W.HBox([self.sample, self.stop]), self.text)
        self.on_change(self.redraw, self.model, self.prompt, self.temperature, self.top_k, self.top_p)

    def controls(self) -> dict:
        return {"temperature": self.temperature.value, "top_k": self.top_k.value or None, "top_p": self.top_p.value}

    def stream(self, length: int) -> Iterator[tuple[str, float]]:
        """The pieces that the controls ask for, `length` tokens at most, each with its probability."""
        pieces = stream_pieces(*load(self.models, self.model.value), self.prompt.value, length, self.seed.value, **self.controls())
        return ended_before(self.until.value, pieces)

    async def _sample(self) -> None:
        self.count += 1
        name, stream = self.model.value, self.stream(self.length.value)
        pieces, how, shown = [], "done", 0.0
        self.say(f"sample {self.count} is being written by {name}")
        for piece in stream:
            pieces.append(piece)
            if time.monotonic() - shown >= REFRESH:
                self.text.value, shown = self._boxes(pieces), time.monotonic()
            await asyncio.sleep(PACE)
            if self.asked_to_stop.is_set():
                how = "stopped"
                break
        self.text.value = self._boxes(pieces)
        self.say(f"sample {self.count} {how}: {len(pieces)} pieces by {name}; the number below each is its probability in per cent")

    def _boxes(self, pieces: list[tuple[str, float]]) -> str:
        return boxes([(text, p, percent(p)) for text, p in pieces], "sample: " + "".join(text for text, _ in pieces))

    def picture(self):
        model, tokenizer = load(self.models, self.model.value)
        ids = torch.tensor([tokenizer.encode(self.prompt.value)], dtype=torch.long)
        logits, how, off = Windows(model, ids, 1).next_logits()[0], self.controls(), {"temperature": 1.0}
        steps = {"the model": off, f"temperature {how['temperature']:.2f}": {"temperature": how["temperature"]},
                 f"top-k {how['top_k']}" if how["top_k"] else "top-k off": how | {"top_p": None},
                 f"top-p {how['top_p']:.2f}" if how["top_p"] < 1 else "top-p off": how}
        order = logits.argsort(descending=True, stable=True)[:BARS]
        names = labels(tokenizer, order)
        figure, panels = new_figure(columns=len(steps), width=10, height=2.6, sharey=True)
        alt = []
        for axes, (title, step) in zip(panels, steps.items(), strict=True):
            p = next_token_probabilities(logits, **step)
            shares = p[order].tolist()
            axes.barh(range(len(order)), shares, color=BLUE)
            for i, share in enumerate(shares):
                axes.annotate(f"{percent(share)}%" if share else "✗", (share, i), xytext=(3, 0), textcoords="offset points", va="center",
                              fontsize=8, color="#111111" if share else GREY)
            axes.set(title=f"{title}\n{(p > 0).sum()} of {len(p)} tokens", xlabel="probability", xlim=(0, 1.15), xticks=(0, 0.5, 1))
            axes.title.set_fontsize(10)
            alt.append(f"{title}: {strongest(shares, names)}")
        panels[0].set_yticks(range(len(order)), on_axis(names))
        panels[0].set_ylabel("next token")
        panels[0].invert_yaxis()
        return figure, f"Probabilities of the next token after {self.prompt.value!r}. " + "; ".join(alt)

    def what_stays(self) -> str:
        pieces = self._boxes(list(self.stream(60)))
        return f"<p>{html.escape(self.model.value)} after {html.escape(repr(self.prompt.value))}, probabilities in per cent:</p>{pieces}"
