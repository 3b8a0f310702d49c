"""Viewers for chapters 6 and 7: learned time-weights, and the effect of a context."""

import ipywidgets as W
import torch
from matplotlib.axes import Axes
from torch import Tensor

from gptlib.checks import check_arguments, optional
from gptlib.model import evaluating
from gptlib.plot import BLUE, GREY, RED, new_figure, plot_matrix
from gptlib.variants.context_rolling import RollingGPT, token_losses
from gptlib.variants.time_weighting import WeightedAttention
from gptlib.widgets.panel import (
    Models,
    Panel,
    axis_labels,
    dropdown,
    encode,
    find_checkpoints,
    get_model,
    models_kind,
    number_field,
    table_html,
    text_area,
    token_boxes,
    token_labels,
)

# The picture of the context has room for this many tokens, and for labels on this many of them.
MAX_TOKENS = 256
MAX_LABELS = 100


class TimeWeightViewer(Panel):
    """The learned table of one head of chapter 6, as a map and as its mean at each distance.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer) by name. None means all
            checkpoints in runs/.
    """

    @check_arguments(models=optional(models_kind))
    def __init__(self, models: Models | None = None):
        self.models = find_checkpoints() if models is None else models
        self.model = dropdown("Model", self.models)
        self.layer, layer_row = number_field("Layer", 1, 1, 1)
        self.head, head_row = number_field("Head", 1, 1, 1)
        super().__init__(self.model, W.HBox([layer_row, head_row]))
        self.redraw_on_change(self.model, self.layer, self.head)

    def read(self) -> tuple[str, Tensor]:
        """Return the kind of the chosen head's table, and its values, (T, T)."""
        model, _ = get_model(self.models, self.model.value)
        blocks = getattr(model, "blocks", ())
        if not blocks or not isinstance(blocks[0].attention, WeightedAttention):
            raise ValueError(
                f"{self.model.value} has no time-weighting: choose a model of chapter 6"
            )
        self.layer.max, self.head.max = len(blocks), blocks[0].attention.n_head
        attention = blocks[self.layer.value - 1].attention
        kind, tables = learned_tables(attention, model.block_size)
        return kind, tables[self.head.value - 1].detach().cpu()

    def picture(self):
        kind, matrix = self.read()
        # A bias starts at 0 and a weight at 1.
        initial = 0.0 if kind.startswith("bias") else 1.0
        means = means_by_distance(matrix)
        figure, (left, right) = new_figure(columns=2, width=10, height=3.8)
        draw_table(left, matrix, initial, kind)
        right.plot(means, "o-", markersize=3, color=BLUE)
        right.axhline(initial, color=GREY, linestyle="--", linewidth=1)
        right.set(xlabel="distance from query back to key", ylabel=f"mean {kind.split()[0]}")
        right.set_title("dashed: the initial value", fontsize=10)
        return figure, (
            f"Layer {self.layer.value}, head {self.head.value}: mean {kind}, "
            f"from {means[0]:.2f} at distance 0 to {means[-1]:.2f} at the largest distance"
        )

    def static_html(self) -> str:
        kind, matrix = self.read()
        means = means_by_distance(matrix)[:8]
        rows = [(str(distance), f"{mean:.2f}") for distance, mean in enumerate(means)]
        return table_html(("distance", f"mean {kind}"), rows)


def learned_tables(attention: WeightedAttention, T: int) -> tuple[str, Tensor]:
    """Return what the tables of an attention layer are, and their values, (n_head, T, T)."""
    kind, tables = "weight after the softmax", attention.weight(T)
    if tables is None:
        kind, tables = "bias before the softmax", attention.bias(T)
    factor = attention.key_factor(T)
    if factor is not None:
        tables = tables * factor[:, None]
    return kind, tables


def means_by_distance(matrix: Tensor) -> list[float]:
    """Return the mean of `matrix`, (T, T), at distance 0, 1, … T - 1 from query back to key."""
    return [matrix.diagonal(-distance).mean().item() for distance in range(len(matrix))]


def draw_table(axes: Axes, matrix: Tensor, initial: float, kind: str) -> None:
    """Draw a learned table as a map. The initial value is in the middle of the colour scale."""
    change = (matrix - initial).tril().abs().max().item()
    span = max(0.1, change)
    future = torch.ones_like(matrix, dtype=torch.bool).triu(1)
    visible = matrix.masked_fill(future, torch.nan)
    limits = {"vmin": initial - span, "vmax": initial + span}
    plot_matrix(axes, visible, [], [], "key", "query", kind, cmap="PuOr", **limits)
    ticks = range(0, len(matrix), max(1, len(matrix) // 8))
    axes.set_xticks(ticks, [str(position) for position in ticks])
    axes.set_yticks(ticks, [str(position) for position in ticks])


class ContextViewer(Panel):
    """The loss at each token of a text, with the context of chapter 7 and with zeros instead.

    Args:
        models: (RollingGPT, tokenizer) by name, or paths of checkpoints by name.
        text: only its first 256 tokens are read. It should be at least two windows long, because
            the first window has no context.
    """

    @check_arguments(models=optional(models_kind), text=str)
    def __init__(
        self, models: Models | None = None, text: str = "To be, or not to be, that is the question"
    ):
        self.models = find_checkpoints() if models is None else models
        self.model = dropdown("Model", self.models)
        self.text = text_area("Text", text, rows=3, layout=W.Layout(width="480px"))
        super().__init__(self.model, self.text)
        self.redraw_on_change(self.model, self.text)

    def read(self) -> tuple[list[str], list[float], list[float], int, str]:
        """Return what the picture shows.

        Returns:
            tokens: the tokens after the first one.
            with_context, without: the loss of each of them in nats.
            window: the length of a window.
            note: says how much of the text was read, if that is not all.
        """
        model, tokenizer = get_model(self.models, self.model.value)
        if not isinstance(model, RollingGPT):
            raise ValueError(
                f"{self.model.value} passes no context from window to window: "
                "choose a model of chapter 7"
            )
        idx = encode(model, tokenizer, self.text.value)
        if len(idx) < 2:
            raise ValueError(
                f"the text has {len(idx)} tokens: write at least 2, because the first token is "
                "not predicted"
            )
        note = ""
        if len(idx) > MAX_TOKENS:
            note = f"; only the first {MAX_TOKENS} of the text's {len(idx):,} tokens are read"
        idx = idx[:MAX_TOKENS]
        with evaluating(model):
            with_context = token_losses(model, idx[None])[0].tolist()
            without = token_losses(model, idx[None], edit=torch.zeros_like)[0].tolist()
        tokens = token_labels(tokenizer, idx[1:].tolist())
        return tokens, with_context, without, model.config.window, note

    def picture(self):
        tokens, with_context, without, window, note = self.read()
        figure, axes = new_figure(width=10, height=3.2)
        positions = range(1, len(tokens) + 1)
        axes.plot(positions, without, "x:", color=GREY, label="with zeros instead")
        axes.plot(
            positions, with_context, "o-", color=BLUE, markersize=4, label="with the context"
        )
        for end in range(window, len(tokens) + 1, window):
            axes.axvline(end + 0.5, color=RED, linestyle="--", linewidth=1)
        # Label every k-th token, where k is the smallest step with at most MAX_LABELS labels.
        step = -(-len(tokens) // MAX_LABELS)
        axes.set_xticks(positions[::step], axis_labels(tokens[::step]), fontsize=8)
        xlabel = f"token; a dashed line follows the last token that a window of {window} predicts"
        axes.set(ylabel="loss (nats)", xlabel=xlabel + note)
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        gain = (sum(without) - sum(with_context)) / len(tokens)
        return figure, (
            f"Loss at each of {len(tokens)} tokens, in windows of {window}. The context lowers "
            f"the loss by {gain:.3f} nats per token on average{note}."
        )

    def static_html(self) -> str:
        tokens, with_context, without, window, note = self.read()
        name = (
            f"windows of {window}; the number below each token is the loss without the context "
            f"minus the loss with it, in nats{note}"
        )
        boxes = []
        for token, loss, loss_without in zip(tokens, with_context, without, strict=True):
            gain = loss_without - loss
            boxes.append((token, max(0.0, gain), f"{gain:+.2f}"))
        return f"<p>{name}</p>{token_boxes(boxes, name)}"
