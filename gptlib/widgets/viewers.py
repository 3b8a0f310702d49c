"""Viewers for chapters 6 and 7: what time-weighting has learned, and what a context carries from window to window."""

import ipywidgets as W
import torch

from gptlib.context_rolling import token_losses
from gptlib.model import evaluating
from gptlib.plot import BLUE, GREY, RED, new_figure, plot_matrix
from gptlib.widgets.panel import NAMED, Models, Panel, boxes, choice, find_checkpoints, labels, load, number, on_axis, table

LONGEST = 256           # tokens that the context's picture has room for
TICKS = 100             # of them named


class TimeWeightViewer(Panel):
    """A head's learned table of chapter 6: as a map, and its mean at each distance.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer); None takes what lies in runs/.
    """

    def __init__(self, models: Models | None = None):
        self.models = find_checkpoints() if models is None else models
        self.model = choice("Model", self.models)
        self.layer, layer = number("Layer", 1, 1, 1)
        self.head, head = number("Head", 1, 1, 1)
        super().__init__(self.model, W.HBox([layer, head]))
        self.on_change(self.redraw, self.model, self.layer, self.head)

    def read(self) -> tuple[str, torch.Tensor]:
        """What the table does, and its values, (T, T)."""
        model, _ = load(self.models, self.model.value)
        blocks = getattr(model, "blocks", ())
        if not blocks or not hasattr(blocks[0].attention, "weight"):
            raise ValueError(f"{self.model.value} weighs no distances: choose a model of chapter 6")
        self.layer.max, self.head.max = len(blocks), blocks[0].attention.n_head
        attention, T = blocks[self.layer.value - 1].attention, model.block_size
        kind, matrix = "weight after the softmax", attention.weight(T)
        if matrix is None:
            kind, matrix = "bias before the softmax", attention.bias(T)
        if hasattr(attention, "by_key"):
            matrix = matrix * attention.by_key[:, None, :T]
        return kind, matrix[self.head.value - 1].detach()

    def by_distance(self, matrix: torch.Tensor) -> list[float]:
        return [matrix.diagonal(-distance).mean().item() for distance in range(len(matrix))]

    def picture(self):
        kind, matrix = self.read()
        means, every = self.by_distance(matrix), max(1, len(matrix) // 8)
        figure, (left, right) = new_figure(columns=2, width=10, height=3.8)
        untrained = 1.0 if kind.startswith("weight") else 0.0
        span = max(0.1, (matrix.tril() - torch.tril(torch.full_like(matrix, untrained))).abs().max().item())
        seen = matrix.masked_fill(torch.ones_like(matrix, dtype=torch.bool).triu(1), torch.nan)
        plot_matrix(left, seen, [], [], "key", "query", kind, cmap="PuOr", vmin=untrained - span, vmax=untrained + span)
        for set_ticks in (left.set_xticks, left.set_yticks):
            set_ticks(range(0, len(matrix), every), [str(place) for place in range(0, len(matrix), every)])
        right.plot(means, "o-", markersize=3, color=BLUE)
        right.axhline(untrained, color=GREY, linestyle="--", linewidth=1)
        right.set(xlabel="distance from query back to key", ylabel=f"mean {kind.split()[0]}")
        right.set_title("dashed: where it began", fontsize=10)
        return figure, (f"Layer {self.layer.value}, head {self.head.value}: {kind}, from {means[0]:.2f} at distance 0 to "
                        f"{means[-1]:.2f} at the farthest")

    def what_stays(self) -> str:
        kind, matrix = self.read()
        return table(("distance", f"mean {kind}"), [(str(i), f"{mean:.2f}") for i, mean in enumerate(self.by_distance(matrix)[:8])])


class ContextViewer(Panel):
    """A text read in windows, and what each token costs with the context handed on (chapter 7) and with zeros in its place.

    Args:
        models: as (RollingGPT, tokenizer) by name.
        text: at least two windows long, to see anything; no more is read of it than its first 256 tokens.
    """

    def __init__(self, models: Models | None = None, text: str = "To be, or not to be, that is the question"):
        self.models = find_checkpoints() if models is None else models
        self.model = choice("Model", self.models)
        self.text = W.Textarea(text, description="Text", rows=3, style=NAMED, continuous_update=False, layout=W.Layout(width="480px"))
        super().__init__(self.model, self.text)
        self.on_change(self.redraw, self.model, self.text)

    def read(self) -> tuple[list[str], list[float], list[float], int, str]:
        """Tokens but the first, what each costs with and without context in nats, the window's length, and what was left out."""
        model, tokenizer = load(self.models, self.model.value)
        window = getattr(getattr(model, "config", None), "window", None)
        if window is None:
            raise ValueError(f"{self.model.value} hands nothing from window to window: choose a model of chapter 7")
        ids = tokenizer.encode(self.text.value)
        if len(ids) < 2:
            raise ValueError("the text has nothing to predict: write at least two tokens")
        left_out = f"; only the first {LONGEST} of the text's {len(ids):,} tokens are read" if len(ids) > LONGEST else ""
        ids = ids[:LONGEST]
        with evaluating(model):
            with_it, without = (token_losses(model, torch.tensor([ids]), edit=edit)[0].tolist()
                                for edit in (lambda context: context, torch.zeros_like))
        return labels(tokenizer, ids[1:]), with_it, without, window, left_out

    def picture(self):
        tokens, with_it, without, window, left_out = self.read()
        figure, axes = new_figure(width=10, height=3.2)
        places, every = range(1, len(tokens) + 1), -(-len(tokens) // TICKS)
        axes.plot(places, without, "x:", color=GREY, label="with zeros instead")
        axes.plot(places, with_it, "o-", color=BLUE, markersize=4, label="with the context handed on")
        for border in range(window, len(tokens) + 1, window):
            axes.axvline(border + 0.5, color=RED, linestyle="--", linewidth=1)
        axes.set_xticks(places[::every], on_axis(tokens[::every]), fontsize=8)
        axes.set(ylabel="surprise (nats)", xlabel=f"token; a dashed line ends what a window of {window} predicts{left_out}")
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        gain = (sum(without) - sum(with_it)) / len(tokens)
        return figure, (f"Surprise at each of {len(tokens)} tokens, in windows of {window}: the context saves {gain:.3f} nats a token "
                        f"on average{left_out}")

    def what_stays(self) -> str:
        tokens, with_it, without, window, left_out = self.read()
        name = f"windows of {window}; below each token, the nats that the context saves{left_out}"
        saved = [b - a for a, b in zip(with_it, without, strict=True)]
        return f"<p>{name}</p>" + boxes([(token, max(0.0, s), f"{s:+.2f}") for token, s in zip(tokens, saved, strict=True)], name)
