"""Draw the weights of the distances by hand, and see the attention change (chapter 6)."""

from copy import deepcopy

import ipywidgets as W
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from gptlib.checks import at_least, check_arguments, optional, tensor
from gptlib.model import evaluating
from gptlib.plot import BLUE, GREY, RED, new_figure, plot_matrix
from gptlib.trained import load_trained
from gptlib.variants.context_rolling import token_losses
from gptlib.variants.time_weighting import ToeplitzAttention
from gptlib.widgets.explorer import attention_weights
from gptlib.widgets.panel import (
    FULL_NAME,
    Models,
    Panel,
    axis_labels,
    describe_largest,
    dropdown,
    encode,
    get_model,
    models_kind,
    number_field,
    table_html,
    text_area,
    token_labels,
)

MAX_TOKENS = 32             # the picture has room for this many tokens
N_SLIDERS = 8               # there is a slider for each of the distances 0, 1, …
LOWEST, HIGHEST = -1.0, 3.0         # the ends of the sliders and of the axis of the weights

LEARNED, BY_HAND = "as learned", "drawn by hand"
# From the distance d, 0 … T - 1, to its weight.
SHAPES = {
    "all 1: plain attention": torch.ones_like,
    "half as much with each step back": lambda d: 0.5 ** d,
    "only the token itself and the two before": lambda d: (d <= 2).float(),
    "only the token before": lambda d: (d == 1).float(),
    "only what is 4 or more back": lambda d: (d >= 4).float(),
    "all 0: no attention": torch.zeros_like,
}
THIS_HEAD, THIS_LAYER, ALL_HEADS = "this head", "all heads of this layer", "all heads"


@check_arguments(model=nn.Module, weights=tensor("T"), layer=optional(at_least(0)),
                 head=optional(at_least(0)))
def with_distance_weights(
    model: nn.Module, weights: Tensor, layer: int | None = None, head: int | None = None
) -> nn.Module:
    """Return a copy of a Toeplitz model with other weights by distance.

    Args:
        weights: for the distances 0 … T - 1. Greater distances keep their learned weights.
        layer, head: where, from 0. None means everywhere.
    """
    check_place(model, weights, layer, head)
    model = deepcopy(model)
    layers = range(len(model.blocks)) if layer is None else [layer]
    for number in layers:
        by_distance = model.blocks[number].attention.by_distance        # (n_head, block_size)
        heads = slice(None) if head is None else head
        by_distance.data[heads, :len(weights)] = weights.to(by_distance)
    return model


def check_place(model: nn.Module, weights: Tensor, layer: int | None, head: int | None) -> None:
    """Raise a ValueError unless the model has such a layer and head, with room for the weights."""
    blocks = getattr(model, "blocks", ())
    if not blocks or not hasattr(blocks[0].attention, "by_distance"):
        raise ValueError("the model has no weights by distance: give a Toeplitz model")
    n_head, block_size = blocks[0].attention.by_distance.shape
    if layer is not None and layer >= len(blocks):
        raise ValueError(f"layer={layer} should be below {len(blocks)}, the number of layers")
    if head is not None and head >= n_head:
        raise ValueError(f"head={head} should be below {n_head}, the number of heads")
    if len(weights) > block_size:
        raise ValueError(
            f"weights has {len(weights)} numbers, it should have at most {block_size}, one for "
            "each distance in a window"
        )


class DistanceWeights(Panel):
    """Choose or draw a weight for each distance, and see the attention and the loss change.

    The attention of a Toeplitz head is multiplied by one weight for each distance from query back
    to key. A shape sets all of them. The sliders set the first of them.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer) by name. None means the trained
            model of the library.
        text: the text that the model reads.
    """

    @check_arguments(models=optional(models_kind), text=str)
    def __init__(self, models: Models | None = None, text: str = "To be, or not to be"):
        self.models = {"trained Toeplitz": load_trained("toeplitz")} if models is None else models
        self.model = dropdown("Model", self.models)
        self.text = text_area("Text", text, layout=W.Layout(width="480px"))
        self.layer, layer_row = number_field("Layer", 1, 1, 1)
        self.head, head_row = number_field("Head", 1, 1, 1)
        self.position, position_row = number_field("Query position", 12, 0, MAX_TOKENS - 1)
        self.shape = W.Dropdown(
            options=[LEARNED, *SHAPES, BY_HAND], description="Weights", style=FULL_NAME)
        self.where = W.Dropdown(
            options=[THIS_HEAD, THIS_LAYER, ALL_HEADS], description="Applied to", style=FULL_NAME)
        self.sliders = [
            W.FloatSlider(
                value=1.0, min=LOWEST, max=HIGHEST, step=0.05, orientation="vertical",
                description=f"{distance} back", readout_format=".2f", continuous_update=False,
                layout=W.Layout(height="140px", width="64px"),
            )
            for distance in range(N_SLIDERS)
        ]
        self.weights = None                 # by distance, (block_size,), or None: as learned
        self.moving = False                 # the program moves the sliders, not the reader
        super().__init__(
            self.model, self.text, W.HBox([layer_row, head_row]), position_row,
            W.HBox([self.shape, self.where]), W.HBox(self.sliders),
        )
        self.shape.observe(self.take_shape, names="value")
        for slider in self.sliders:
            slider.observe(self.take_sliders, names="value")
        controls = (self.model, self.text, self.layer, self.head, self.position)
        for control in (self.model, self.layer, self.head):
            control.observe(self.show_weights, names="value")
        self.show_weights()
        self.redraw_on_change(*controls, self.shape, self.where)

    # The weights --------------------------------------------------------------------------------

    def learned(self) -> Tensor:
        """Return the learned weights of the chosen head by distance, (block_size,)."""
        model, _ = get_model(self.models, self.model.value)
        blocks = getattr(model, "blocks", ())
        if not blocks or not isinstance(blocks[0].attention, ToeplitzAttention):
            raise ValueError(
                f"{self.model.value} has no weights by distance: choose a Toeplitz model of "
                "chapter 6"
            )
        self.layer.max, self.head.max = len(blocks), blocks[0].attention.n_head
        attention = blocks[self.layer.value - 1].attention
        return attention.by_distance[self.head.value - 1].detach().cpu()

    def take_shape(self, change=None) -> None:
        """Compute the weights of the chosen shape, and move the sliders there."""
        if self.shape.value == LEARNED:
            self.weights = None
        elif self.shape.value in SHAPES:
            self.weights = SHAPES[self.shape.value](torch.arange(MAX_TOKENS).float())
        elif self.weights is None:
            # The drawing by hand begins with the learned weights.
            self.draw_or_show_error(self.keep_learned)
        self.show_weights()

    def keep_learned(self) -> None:
        self.weights = self.learned()[:MAX_TOKENS].clone()

    def take_sliders(self, change=None) -> None:
        """Take the distances that the reader has moved from the sliders."""
        if self.moving:
            return
        if self.weights is None:
            self.draw_or_show_error(self.keep_learned)
        if self.weights is None:
            return
        distance = self.sliders.index(change["owner"])
        if distance < len(self.weights):
            self.weights[distance] = change["new"]
        if self.shape.value == BY_HAND:
            self.draw_or_show_error(self.redraw)
        else:
            self.shape.value = BY_HAND

    def show_weights(self, change=None) -> None:
        """Move the sliders to the present weights."""
        try:
            weights = self.learned() if self.weights is None else self.weights
        except ValueError:
            # The drawing shows this error.
            return
        self.moving = True
        try:
            for slider, weight in zip(self.sliders, weights.tolist(), strict=False):
                slider.value = weight
        finally:
            self.moving = False

    # The picture --------------------------------------------------------------------------------

    def changed_model(self, model: nn.Module) -> nn.Module:
        """Return the model with the weights that the reader has chosen."""
        if self.weights is None:
            return model
        layer = None if self.where.value == ALL_HEADS else self.layer.value - 1
        head = self.head.value - 1 if self.where.value == THIS_HEAD else None
        return with_distance_weights(model, self.weights[:model.block_size], layer, head)

    def read(self) -> tuple[list[str], dict[str, Tensor], dict[str, float]]:
        """Return the tokens, the attention of the chosen head, and the losses of the text.

        Both have the names "learned" and "now". An attention is (T, T), and a loss is in nats per
        token.
        """
        self.learned()
        model, tokenizer = get_model(self.models, self.model.value)
        idx = encode(model, tokenizer, self.text.value)
        most = min(MAX_TOKENS, model.block_size)
        if not 2 <= len(idx) <= most:
            raise ValueError(f"the text has {len(idx)} tokens: write 2 to {most} tokens")
        self.position.max = len(idx) - 1
        now = self.changed_model(model)
        attention, losses = {}, {}
        with evaluating(model):
            for name, variant in (("learned", model), ("now", now)):
                weights = attention_weights(variant, idx)
                attention[name] = weights[self.layer.value - 1, self.head.value - 1].cpu()
                losses[name] = token_losses(variant, idx[None]).mean().item()
        return token_labels(tokenizer, idx.tolist()), attention, losses

    def picture(self):
        tokens, attention, losses = self.read()
        query = min(self.position.value, len(tokens) - 1)
        figure, (left, middle, right) = new_figure(
            columns=3, width=12, height=3.8, width_ratios=(1.1, 1, 1))
        draw_map(left, attention["now"], tokens, query)
        rows = {name: matrix[query, :query + 1].tolist() for name, matrix in attention.items()}
        draw_row(middle, rows, tokens, query)
        self.draw_weights(right, len(tokens))
        figure.suptitle(
            f"loss of this text: {losses['learned']:.2f} nats per token as learned, "
            f"{losses['now']:.2f} with these weights", fontsize=11)
        return figure, (
            f"Attention of layer {self.layer.value}, head {self.head.value} with the weights "
            f"{self.shape.value!r}: from position {query}, {tokens[query]!r}, the largest are "
            f"{describe_largest(rows['now'], tokens)}. The loss of the text is "
            f"{losses['learned']:.2f} nats per token as learned and {losses['now']:.2f} with these "
            "weights."
        )

    def draw_weights(self, axes: Axes, T: int) -> None:
        learned = self.learned()[:T]
        now = learned if self.weights is None else self.weights[:T]
        axes.plot(learned, "x:", color=GREY, label="as learned")
        axes.plot(now, "o-", color=BLUE, markersize=4, label="now")
        axes.set(xlabel="distance from query back to key", ylabel="weight", ylim=(LOWEST, HIGHEST))
        axes.legend(frameon=False, fontsize=8)

    def static_html(self) -> str:
        _, _, losses = self.read()
        learned = self.learned()
        now = learned if self.weights is None else self.weights
        rows = [(str(d), f"{learned[d]:.2f}", f"{now[d]:.2f}") for d in range(N_SLIDERS)
                if d < len(now)]
        text = (f"<p>Loss of the text: {losses['learned']:.2f} nats per token as learned, "
                f"{losses['now']:.2f} with these weights.</p>")
        return text + table_html(("distance", "weight as learned", "weight now"), rows)


def draw_map(axes: Axes, weights: Tensor, tokens: list[str], query: int) -> None:
    """Draw the attention of all queries. The colours mean the same in every picture."""
    labels = axis_labels(tokens)
    limits = {"vmin": -1, "vmax": 1}
    plot_matrix(axes, weights, labels, labels, "key", "query", "weight", cmap="PuOr_r", **limits)
    frame = Rectangle((-0.5, query - 0.5), len(tokens), 1, fill=False, edgecolor=RED, linewidth=2)
    axes.add_patch(frame)


def draw_row(axes: Axes, rows: dict[str, list[float]], tokens: list[str], query: int) -> None:
    """Draw the weights of one query as bars, and those with the learned weights as frames."""
    places = range(query + 1)
    axes.bar(places, rows["now"], color=BLUE, label="now")
    axes.bar(places, rows["learned"], fill=False, edgecolor=GREY, label="as learned")
    axes.set_xticks(range(len(tokens)), axis_labels(tokens), fontsize=8)
    axes.get_xticklabels()[query].set(color=RED, fontweight="bold")
    axes.set(xlabel=f"key (query: position {query})", ylabel="weight of the key")
    axes.set_ylim(-0.25, 1.25)
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.legend(frameon=False, fontsize=8)
