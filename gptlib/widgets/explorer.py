"""The attention explorer: which earlier tokens a head looks at, from any position, in one model or two."""

import ipywidgets as W
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Rectangle
from torch import Tensor, nn

from gptlib.model import evaluating
from gptlib.plot import BLUE, RED, new_figure, plot_matrix
from gptlib.widgets.panel import NAMED, Models, Panel, boxes, choice, find_checkpoints, labels, load, number, on_axis, percent, strongest

LONGEST = 64            # tokens that the picture has room for
NOTHING = "(nothing)"   # to compare with


def attention_weights(model: nn.Module, idx: Tensor) -> Tensor:
    """How much each position gathers from each: (n_layer, n_head, T, T), row i the weights of query i.

    The values are replaced by the rows of an identity matrix, so that what a query gathers is its weights, whatever
    else the attention does to them (chapter 6 multiplies them, so their rows need not sum to 1).

    Args:
        model: a model with `blocks`, each with an `attention`, that reads `idx` in one piece.
        idx: tokens, (T,).
    """
    if not hasattr(model, "blocks"):
        raise ValueError(f"a {type(model).__name__} has no attention to look at: choose a GPT")
    reads = []
    hooks = [block.attention.register_forward_pre_hook(lambda module, inputs: reads.append(inputs[0])) for block in model.blocks]
    try:
        with evaluating(model):
            model(idx[None])
            if [x.shape[1] for x in reads] != [len(idx)] * len(model.blocks):
                raise ValueError(f"a {type(model).__name__} does not read its text in one piece, which alone can be shown here: "
                                 "choose a GPT without windows")
            return torch.stack([_weights(block.attention, x) for block, x in zip(model.blocks, reads, strict=True)])
    finally:
        for hook in hooks:
            hook.remove()


def _weights(attention: nn.Module, x: Tensor) -> Tensor:                            # (1, T, C) -> (n_head, T, T)
    _, T, C = x.shape
    q, k, _ = attention.qkv(x).view(1, T, 3, attention.n_head, C // attention.n_head).permute(2, 0, 3, 1, 4)
    identity = torch.eye(T, device=x.device).expand(1, attention.n_head, T, T)
    return attention.attend(q, k, identity, 0)[0]


class AttentionExplorer(Panel):
    """A head's weights over the reader's own text, as a map and as arcs from one query; of two models, if wished.

    Args:
        models: paths of checkpoints by name, or (model, tokenizer); None takes what lies in runs/.
    """

    def __init__(self, models: Models | None = None, text: str = "To be, or not to be"):
        self.models = find_checkpoints() if models is None else models
        self.model, self.other = choice("Model", self.models), choice("Compare with", self.models, NOTHING)
        self.text = W.Text(text, description="Text", style=NAMED, continuous_update=False, layout=W.Layout(width="480px"))
        self.layer, layer = number("Layer", 1, 1, 1)
        self.head, head = number("Head", 1, 1, 1)
        self.position, position = number("Query position", 0, 0, LONGEST - 1)
        super().__init__(W.HBox([self.model, self.other]), self.text, W.HBox([layer, head]), position)
        self.on_change(self.redraw, self.model, self.other, self.text, self.layer, self.head, self.position)

    def read(self, name: str) -> tuple[list[str], Tensor]:
        """A model's tokens of the text, and the weights of the chosen layer and head, (T, T)."""
        model, tokenizer = load(self.models, name)
        ids = tokenizer.encode(self.text.value)
        longest = min(LONGEST, getattr(model, "block_size", None) or LONGEST)
        if not 1 <= len(ids) <= longest:
            raise ValueError(f"the text has {len(ids)} tokens: {name} and the picture have room for 1 to {longest}")
        weights = attention_weights(model, torch.tensor(ids))
        if name == self.model.value:                # a maximum below the value moves the value, which draws once more
            self.layer.max, self.head.max, self.position.max = len(weights), weights.shape[1], len(ids) - 1
        if self.layer.value > len(weights) or self.head.value > weights.shape[1]:
            raise ValueError(f"{name} has {len(weights)} layers of {weights.shape[1]} heads: choose among them")
        return labels(tokenizer, ids), weights[self.layer.value - 1, self.head.value - 1]

    def picture(self):
        names = [self.model.value] + [self.other.value] * (self.other.value != NOTHING)
        figure, panels = new_figure(columns=2, rows=len(names), width=10, height=4.2 * len(names), squeeze=False,
                                    width_ratios=(1, 1.1))
        alt = []
        for (left, right), name in zip(panels, names, strict=True):
            tokens, weights = self.read(name)
            query = min(self.position.value, len(tokens) - 1)
            plot_matrix(left, weights, on_axis(tokens), on_axis(tokens), "key: looked at", "query: looking", "weight", vmin=0)
            left.add_patch(Rectangle((-0.5, query - 0.5), len(tokens), 1, fill=False, edgecolor=RED, linewidth=2))
            left.set_title(f"{name}: layer {self.layer.value}, head {self.head.value}", fontsize=10)
            draw_arcs(right, weights[query, :query + 1].tolist(), tokens, query)
            alt.append(f"{name}, layer {self.layer.value}, head {self.head.value}: from position {query}, {tokens[query]!r}, it looks "
                       f"at {strongest(weights[query, :query + 1].tolist(), tokens)}")
        return figure, "Attention weights as a heat map and as arcs. " + "; ".join(alt)

    def what_stays(self) -> str:
        tokens, weights = self.read(self.model.value)
        row = weights[self.position.value, :self.position.value + 1].tolist()
        name = f"layer {self.layer.value}, head {self.head.value}: where position {self.position.value} looks, in per cent"
        return f"<p>{name}</p>" + boxes([(token, p, percent(p)) for token, p in zip(tokens, row, strict=False)], name)


def draw_arcs(axes: Axes, weights: list[float], tokens: list[str], query: int) -> None:
    """Arcs from the query back to each key, as thick as their weight; the three strongest with their share."""
    top = sorted(range(len(weights)), key=lambda key: -weights[key])[:3]
    for key, weight in enumerate(weights):
        middle, width = (query + key) / 2, max(query - key, 0.5)        # to itself: a small loop
        axes.add_patch(Arc((middle, 0), width, width, theta2=180, linewidth=0.3 + 6 * weight, color=RED if key in top else BLUE,
                           alpha=min(1.0, 0.3 + weight)))
        if key in top:
            axes.annotate(f"{percent(weight)}%", (middle, width / 2), xytext=(0, 2), textcoords="offset points", ha="center",
                          fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axes.set_xticks(range(len(tokens)), on_axis(tokens), fontsize=8)
    axes.get_xticklabels()[query].set(color=RED, fontweight="bold")
    axes.set(xlim=(-1, len(tokens)), ylim=(0, 0.55 * len(tokens)), yticks=[], xlabel=f"token (query: position {query})")
    axes.spines["left"].set_visible(False)
