"""The attention explorer: what each head attends to from a chosen position."""

from copy import copy

import ipywidgets as W
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Rectangle
from torch import Tensor, nn

from gptlib.checks import check_arguments, optional, tokens
from gptlib.model import evaluating
from gptlib.plot import BLUE, RED, new_figure, plot_matrix
from gptlib.widgets.panel import (
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

# The picture has room for this many tokens.
MAX_TOKENS = 64
# The first entry of the menu "Compare with".
NO_MODEL = "(nothing)"


@check_arguments(model=nn.Module, idx=tokens("T"))
def attention_weights(model: nn.Module, idx: Tensor) -> Tensor:
    """Return the attention weights of all layers and heads, (n_layer, n_head, T, T).

    Row i of a head's matrix holds the weights of query i. A variant can change the weights after
    the softmax, as in chapter 6. Then a row need not sum to 1.

    Args:
        model: a model with `blocks`. Each block has an `attention`.
        idx: tokens, (T,).

    Raises:
        ValueError: the model has no attention, or it does not read `idx` in one piece.
    """
    if not hasattr(model, "blocks"):
        raise ValueError(f"a {type(model).__name__} has no attention layers: choose a GPT")
    layers = [block.attention for block in model.blocks]
    with evaluating(model):
        inputs = attention_inputs(model, layers, idx)
        if [x.shape[1] for x in inputs] != [len(idx)] * len(layers):
            raise ValueError(
                f"a {type(model).__name__} does not read its text in one piece, and only that can "
                "be shown here: choose a GPT without windows"
            )
        weights = [layer_weights(layer, x) for layer, x in zip(layers, inputs, strict=True)]
    return torch.stack(weights)


def attention_inputs(model: nn.Module, layers: list[nn.Module], idx: Tensor) -> list[Tensor]:
    """Return the input of each attention layer, (1, T, C), while the model reads `idx`, (T,)."""
    inputs = []

    def store_input(layer, args):
        inputs.append(args[0])

    hooks = [layer.register_forward_pre_hook(store_input) for layer in layers]
    try:
        model(idx[None])
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def layer_weights(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the weights of an attention layer for its input `x`: (1, T, C) -> (n_head, T, T).

    A head computes weights @ v. With the identity matrix as v, the result is the weights
    themselves, together with everything that a variant does to them.
    """
    T = x.shape[1]
    identity = torch.eye(T, device=x.device).expand(1, layer.n_head, T, T)

    def split_heads(qkv):
        q, k, v = layer.split_heads(qkv)
        return q, k, identity

    # The copy has the same parameters. The layer itself is not changed.
    probe = copy(layer)
    probe.split_heads = split_heads
    probe.merge_heads = lambda y: y
    return probe(x)[0]


class AttentionExplorer(Panel):
    """The attention weights of one head on your own text, for one model or for two.

    A heat map shows the weights of all queries. Arcs show those of the query that you choose.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer) by name. None means all
            checkpoints in runs/.
        text: the text that the models read first.
    """

    @check_arguments(models=optional(models_kind), text=str)
    def __init__(self, models: Models | None = None, text: str = "To be, or not to be"):
        self.models = find_checkpoints() if models is None else models
        self.model = dropdown("Model", self.models)
        self.other = dropdown("Compare with", self.models, NO_MODEL)
        self.text = text_area("Text", text, layout=W.Layout(width="480px"))
        self.layer, layer_row = number_field("Layer", 1, 1, 1)
        self.head, head_row = number_field("Head", 1, 1, 1)
        self.position, position_row = number_field("Query position", 0, 0, MAX_TOKENS - 1)
        model_row = W.HBox([self.model, self.other])
        super().__init__(model_row, self.text, W.HBox([layer_row, head_row]), position_row)
        self.redraw_on_change(
            self.model, self.other, self.text, self.layer, self.head, self.position
        )

    def read(self, name: str) -> tuple[list[str], Tensor]:
        """Return the tokens of the text for a model, and the chosen head's weights, (T, T)."""
        model, tokenizer = get_model(self.models, name)
        idx = encode(model, tokenizer, self.text.value)
        max_tokens = min(MAX_TOKENS, getattr(model, "block_size", None) or MAX_TOKENS)
        if not 1 <= len(idx) <= max_tokens:
            raise ValueError(
                f"the text has {len(idx)} tokens: write 1 to {max_tokens} tokens for {name}"
            )
        weights = attention_weights(model, idx).cpu()
        if name == self.model.value:
            self.set_limits(weights)
        return token_labels(tokenizer, idx.tolist()), self.choose_head(name, weights)

    def set_limits(self, weights: Tensor) -> None:
        """End the number fields at the model's last layer and head and the text's last token.

        A number above its new maximum becomes the maximum. This change draws the picture again.
        """
        self.layer.max, self.head.max = weights.shape[:2]
        self.position.max = weights.shape[2] - 1

    def choose_head(self, name: str, weights: Tensor) -> Tensor:
        n_layer, n_head = weights.shape[:2]
        layer, head = self.layer.value, self.head.value
        if layer > n_layer or head > n_head:
            raise ValueError(
                f"{name} has no layer {layer} with a head {head}: "
                f"choose layer 1 to {n_layer} and head 1 to {n_head}"
            )
        return weights[layer - 1, head - 1]

    def picture(self):
        names = [self.model.value]
        if self.other.value != NO_MODEL:
            names.append(self.other.value)
        figure, rows = new_figure(
            columns=2, rows=len(names), width=10, height=4.2 * len(names),
            squeeze=False, width_ratios=(1, 1.1),
        )
        texts = [self.draw_model(name, *axes) for name, axes in zip(names, rows, strict=True)]
        return figure, "Attention weights as a heat map and as arcs. " + ". ".join(texts)

    def draw_model(self, name: str, left: Axes, right: Axes) -> str:
        """Draw the map of one model on the left, its arcs on the right, and return their text."""
        tokens, weights = self.read(name)
        # Another tokenizer can split the text into fewer tokens.
        query = min(self.position.value, len(tokens) - 1)
        row = weights[query, :query + 1].tolist()
        head = f"{name}, layer {self.layer.value}, head {self.head.value}"
        labels = axis_labels(tokens)
        plot_matrix(left, weights, labels, labels, "key", "query", "weight", vmin=0)
        frame = Rectangle((-0.5, query - 0.5), len(tokens), 1, fill=False)
        frame.set(edgecolor=RED, linewidth=2)
        left.add_patch(frame)
        left.set_title(head, fontsize=10)
        draw_arcs(right, row, tokens, query)
        largest = describe_largest(row, tokens)
        return f"{head}: from position {query}, {tokens[query]!r}, the weights are {largest}"

    def static_html(self) -> str:
        tokens, weights = self.read(self.model.value)
        query = self.position.value
        row = weights[query, :query + 1].tolist()
        head = f"layer {self.layer.value}, head {self.head.value}"
        name = f"{head}: attention weights of position {query} in per cent"
        boxes = [(token, p, format_percent(p)) for token, p in zip(tokens, row, strict=False)]
        return f"<p>{name}</p>{token_boxes(boxes, name)}"


def draw_arcs(axes: Axes, weights: list[float], tokens: list[str], query: int) -> None:
    """Draw an arc from the query to each key. The line width shows the weight.

    The three largest weights are red and have labels.
    """
    largest = sorted(range(len(weights)), key=lambda key: -weights[key])[:3]
    for key, weight in enumerate(weights):
        center = (query + key) / 2
        # The arc from the query to itself is a small loop.
        diameter = max(query - key, 0.5)
        draw_arc(axes, center, diameter, weight, RED if key in largest else BLUE)
        if key in largest:
            label_arc(axes, center, diameter, weight)
    axes.set_xticks(range(len(tokens)), axis_labels(tokens), fontsize=8)
    axes.get_xticklabels()[query].set(color=RED, fontweight="bold")
    axes.set(xlim=(-1, len(tokens)), ylim=(0, 0.55 * len(tokens)), yticks=[])
    axes.set_xlabel(f"token (query: position {query})")
    axes.spines["left"].set_visible(False)


def draw_arc(axes: Axes, center: float, diameter: float, weight: float, color: str) -> None:
    arc = Arc((center, 0), diameter, diameter, theta2=180, color=color)
    arc.set(linewidth=0.3 + 6 * weight, alpha=min(1.0, 0.3 + weight))
    axes.add_patch(arc)


def label_arc(axes: Axes, center: float, diameter: float, weight: float) -> None:
    axes.annotate(
        f"{format_percent(weight)}%", (center, diameter / 2),
        xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )
