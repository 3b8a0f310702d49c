"""The course's pictures: colours that colour-blind readers can tell apart, labelled axes, a text for screen readers."""

import io
import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

# Okabe & Ito (2008), the dark ones first; the yellow is too faint for lines on white
BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666"
SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "$": r"\$"}
_FONT = get_font(findfont("DejaVu Sans"))            # matplotlib's own; what it cannot draw is named by its code point
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY)


def new_figure(columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.6, **how) -> tuple[Figure, Axes]:
    """A figure and its axes, in the course's style, kept out of pyplot's own display: end with `show`."""
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color=COLORS)}):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **how)
    plt.close(figure)
    return figure, axes


def show(figure: Figure, alt: str) -> None:
    """Display `figure` as a PNG that carries the text `alt` for whoever cannot see it."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, facecolor="white")
    display(Image(png.getvalue(), alt=alt))


def plot_loss(axes: Axes, history: list[dict], vocab_size: int, bigram_loss: float | None = None, label: str = "",
              color: str = BLUE) -> None:
    """Validation loss (and, dotted, train loss) against steps, below the lines that any model should cross."""
    steps = [row["step"] for row in history]
    axes.plot(steps, [row["val_loss"] for row in history], "o-", color=color, markersize=4, label=f"{label} validation".strip())
    axes.plot(steps, [row["train_loss"] for row in history], ":", color=color, label=f"{label} training, last batches".strip())
    mark_baselines(axes, vocab_size, bigram_loss)
    axes.set(xlabel="training step", ylabel="loss (nats per token)")
    axes.legend(frameon=False)


def mark_baselines(axes: Axes, vocab_size: int, bigram_loss: float | None = None) -> None:
    """Horizontal lines at ln V, the loss of guessing, and at the bigram's loss."""
    mark_level(axes, math.log(vocab_size), f"guessing: ln {vocab_size} = {math.log(vocab_size):.3f}")
    if bigram_loss is not None:
        mark_level(axes, bigram_loss, f"bigram = {bigram_loss:.3f}")


def mark_level(axes: Axes, level: float, name: str) -> None:
    """A horizontal line with its name above its right end."""
    axes.axhline(level, color=GREY, linestyle="--", linewidth=1)
    axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
                  ha="right", color=GREY, fontsize=9)


def plot_matrix(axes: Axes, matrix, row_labels: Sequence[str], column_labels: Sequence[str], xlabel: str, ylabel: str,
                colorbar: str = "", **how) -> None:
    """A matrix as shades of one colour, with a name for each row and column."""
    image = axes.imshow(np.asarray(matrix), cmap=how.pop("cmap", "Blues"), aspect="auto", interpolation="nearest", **how)
    axes.set_xticks(range(len(column_labels)), column_labels, fontsize=8)
    axes.set_yticks(range(len(row_labels)), row_labels, fontsize=8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, ax=axes, label=colorbar, shrink=0.9)


def plot_distribution(axes: Axes, probabilities, labels: Sequence[str], title: str = "", most: int = 15, color: str = BLUE) -> None:
    """The `most` likeliest tokens as bars, each with its probability in per cent."""
    probabilities = np.asarray(probabilities)
    order = np.argsort(-probabilities, kind="stable")[:most]
    bars = axes.bar(range(len(order)), probabilities[order], color=color)       # by place: two tokens may look the same
    axes.set_xticks(range(len(order)), [visible(labels[i]) for i in order])
    axes.bar_label(bars, [f"{p:.0%}" if p >= 0.005 else "" for p in probabilities[order]], fontsize=7)
    axes.set(xlabel="next token", ylabel="probability", title=title, ylim=(0, 1.08 * max(probabilities.max(), 0.01)))


def visible(token: str) -> str:
    """A token as it can be shown on an axis: blanks and line ends become signs, a dollar sign is no mathematics."""
    if token in SIGNS:
        return SIGNS[token]
    return "".join(c if c.isprintable() and _FONT.get_char_index(ord(c)) else f"U+{ord(c):04X}" for c in token)


def plot_memory(axes: Axes, parts: dict[str, float], peak: float) -> None:
    """A plan's memory, in megabytes (10**6 bytes): a bar for each part, and one for the fullest moment."""
    bars = axes.barh([*parts, "peak"], [n / 1e6 for n in (*parts.values(), peak)], color=[BLUE] * len(parts) + [GREY])
    bars[-1].set_hatch("//")
    axes.bar_label(bars, [f"{n / 1e6:,.3g}" for n in (*parts.values(), peak)], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="memory (MB)")


def plot_gap(axes: Axes, gaps: dict[str, dict[str, float]]) -> None:
    """Distance to the floor: for each kind of dependency a bar a model, its excess in nats per play (`floor.gap_by_kind`).

    Args:
        gaps: {model: {kind: nats}}. The axis is linear up to 1 nat and logarithmic beyond.
    """
    kinds = list(dict.fromkeys(kind for gap in gaps.values() for kind in gap))
    height = 0.8 / len(gaps)
    for i, (model, gap) in enumerate(gaps.items()):
        places = np.arange(len(kinds)) + (i - (len(gaps) - 1) / 2) * height
        axes.barh(places, [gap.get(kind, 0.0) for kind in kinds], height, color=COLORS[i % len(COLORS)],
                  label=f"{model}: {sum(gap.values()):,.1f} in all")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="nats per play above the floor (linear to 1, then logarithmic)")
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
