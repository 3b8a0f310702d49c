"""The pictures of the course.

Their colours can be told apart by colour-blind readers, their axes have labels with units, and
`show` adds a text for screen readers. A picture takes three steps:

    figure, axes = new_figure()
    plot_loss(axes, result.history, vocab_size=65)
    show(figure, "The validation loss falls from 4.2 to 1.9")

`new_figure`, `mark_level` and `show` serve every picture. Each `plot_…` draws one kind of data.
`show_drawing` displays a drawing of how data flows, which a script in figures/ has drawn.
"""

import io
import json
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from gptlib.checks import (
    above,
    at_least,
    check_arguments,
    dict_of,
    dict_with,
    list_of,
    optional,
    short,
)
from gptlib.config import project_dir

# The colours of Okabe and Ito (2008), without their yellow, which is too faint for lines on white.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
PINK = "#CC79A7"
SKY = "#56B4E9"
RED = "#D55E00"
GREY = "#666666"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY)

# Signs for characters that are invisible on an axis. matplotlib reads a bare "$" as mathematics.
SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "$": r"\$"}

# matplotlib's default font. A character that it cannot draw is shown as its code point.
_FONT = get_font(findfont("DejaVu Sans"))


def numbers(n_dimensions: int) -> Callable:
    """Return the kind for lists, arrays and tensors of numbers with that many dimensions."""
    def check(name, value):
        try:
            if np.iscomplexobj(value) or getattr(value, "is_complex", bool)():
                raise TypeError("complex numbers")
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"{name}={short(value)} should be numbers, such as tensor.detach().cpu()"
            ) from None
        if array.ndim != n_dimensions or not array.size:
            raise ValueError(
                f"{name} has the shape {array.shape}, it should have {n_dimensions} "
                f"dimension{'s' * (n_dimensions > 1)}, none of them 0"
            )
        return value
    return check


def inches(name: str, value: float) -> float:
    """The kind of a size of a figure. A much larger picture would need too much memory."""
    value = above(0.0)(name, value)
    if value < 0.1:
        raise ValueError(f"{name}={value!r} should be at least 0.1 inches")
    if value > 100:
        raise ValueError(f"{name}={value!r} should be at most 100 inches")
    return value


def one_color(name: str, value: str) -> str:
    """The kind of a colour of matplotlib."""
    if not is_color_like(value):
        raise ValueError(f"{name}={short(value)} should be a colour of matplotlib, such as 'green'")
    return value


@contextmanager
def options_of(function: str, options: dict):
    """Turn an error of matplotlib about the options of the caller into a sentence about them."""
    try:
        yield
    except (TypeError, ValueError, AttributeError):
        if not options:
            raise
        raise ValueError(
            f"the options {short(options)} should be arguments that {function} of matplotlib "
            f"accepts: see help({function})"
        ) from None


def evaluation(name: str, value: dict) -> dict:
    """The kind of a row of a history, which may have a loss of nan."""
    row = dict_with("step", "train_loss", "val_loss")(name, value)
    for key in ("step", "train_loss", "val_loss"):
        needs_gradient = getattr(row[key], "requires_grad", False)
        number = None if needs_gradient or np.ndim(row[key]) else np.asarray(row[key])
        if number is None or number.dtype.kind not in "iuf":
            raise ValueError(
                f"{name}[{key!r}]={short(row[key])} should be a number, such as tensor.item()"
            )
    return row


@check_arguments(columns=at_least(1), rows=at_least(1), width=inches, height=inches)
def new_figure(
    columns: int = 1, rows: int = 1, width: float = 7.0, height: float = 3.6, **subplots_options
) -> tuple[Figure, Axes]:
    """Return a figure and its axes in the course's style.

    pyplot does not display this figure by itself: call `show` at the end.

    Args:
        width, height: of the whole figure, in inches.
        subplots_options: more arguments of `plt.subplots`, such as sharey=True.

    Returns:
        the figure, and one Axes or an array of them, as `plt.subplots` returns it.
    """
    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=COLORS),
    }
    with plt.rc_context(style), options_of("plt.subplots", subplots_options):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), layout="constrained", **subplots_options
        )
    plt.close(figure)
    return figure, axes


@check_arguments(figure=Figure, alt=str)
def show(figure: Figure, alt: str) -> None:
    """Display `figure` as a PNG. Screen readers read the text `alt` in its place."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, facecolor="white")
    display(Image(png.getvalue(), alt=alt))


@check_arguments(name=str)
def show_drawing(name: str) -> None:
    """Display a drawing of the course, such as "attention_head", with its alt text.

    The drawings are files of the course's repository, in figures/drawings. Without them, a sentence
    says what is missing, and the notebook goes on.

    Raises:
        ValueError: there is no drawing of this name.
    """
    for course in (project_dir(), Path(__file__).parents[1]):
        folder = course / "figures/drawings"
        if (folder / "alt_texts.json").is_file():
            break
    else:
        print(f"The drawing {name!r} cannot be shown, because the folder figures/drawings of the "
              "course's repository is missing here.")
        return
    alt_texts = json.loads((folder / "alt_texts.json").read_text(encoding="utf-8"))
    if name not in alt_texts:
        raise ValueError(f"the drawing {name!r} should be one of {', '.join(alt_texts)}")
    display(Image((folder / f"{name}.png").read_bytes(), alt=alt_texts[name], width=700))


@check_arguments(axes=Axes, level=float, name=str)
def mark_level(axes: Axes, level: float, name: str) -> None:
    """Draw a dashed horizontal line, with its name above its right end."""
    axes.axhline(level, color=GREY, linestyle="--", linewidth=1)
    axes.annotate(
        name, (1, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="right", color=GREY, fontsize=9,
    )


@check_arguments(axes=Axes, vocab_size=at_least(1), bigram_loss=optional(float))
def mark_baselines(axes: Axes, vocab_size: int, bigram_loss: float | None = None) -> None:
    """Draw a line at ln V, the loss of uniform guessing, and one at the bigram's loss."""
    guessing_loss = math.log(vocab_size)
    mark_level(axes, guessing_loss, f"guessing: ln {vocab_size} = {guessing_loss:.3f}")
    if bigram_loss is not None:
        mark_level(axes, bigram_loss, f"bigram = {bigram_loss:.3f}")


@check_arguments(
    axes=Axes, history=list_of(evaluation),
    vocab_size=at_least(1), bigram_loss=optional(float), label=str, color=one_color,
)
def plot_loss(
    axes: Axes, history: list[dict], vocab_size: int, bigram_loss: float | None = None,
    label: str = "", color: str = BLUE,
) -> None:
    """Plot the validation loss (solid) and the training loss (dotted) against training steps.

    Args:
        history: rows with "step", "val_loss" and "train_loss", as `train` returns them.
        vocab_size, bigram_loss: for the lines of `mark_baselines`.
        label: the model's name in the legend.
    """
    steps = [row["step"] for row in history]
    val_losses = [row["val_loss"] for row in history]
    train_losses = [row["train_loss"] for row in history]
    val_label = f"{label} validation".strip()
    train_label = f"{label} training, last batches".strip()
    axes.plot(steps, val_losses, "o-", color=color, markersize=4, label=val_label)
    axes.plot(steps, train_losses, ":", color=color, label=train_label)
    mark_baselines(axes, vocab_size, bigram_loss)
    axes.set(xlabel="training step", ylabel="loss (nats per token)")
    axes.legend(frameon=False)


@check_arguments(
    axes=Axes, matrix=numbers(2), row_labels=list_of(str), column_labels=list_of(str), xlabel=str,
    ylabel=str, colorbar=str,
)
def plot_matrix(
    axes: Axes, matrix, row_labels: Sequence[str], column_labels: Sequence[str],
    xlabel: str, ylabel: str, colorbar: str = "", cmap: str = "Blues", **imshow_options,
) -> None:
    """Draw a matrix as shades of one colour, with a name for each row and column.

    Args:
        matrix: numbers, (rows, columns).
        colorbar: what the numbers are, with their unit.
        imshow_options: more arguments of `axes.imshow`, such as vmax=1.
    """
    for size, labels in zip(np.shape(matrix), (row_labels, column_labels), strict=True):
        if labels and len(labels) != size:
            raise ValueError(
                f"the matrix has the shape {np.shape(matrix)}, and the labels of one side are "
                f"{len(labels)}: give a label for each row and each column, or none"
            )
    with options_of("axes.imshow", imshow_options):
        image = axes.imshow(
            np.asarray(matrix), cmap=cmap, aspect="auto", interpolation="nearest", **imshow_options
        )
    axes.set_xticks(range(len(column_labels)), column_labels, fontsize=8)
    axes.set_yticks(range(len(row_labels)), row_labels, fontsize=8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, ax=axes, label=colorbar, shrink=0.9)


@check_arguments(
    axes=Axes, probabilities=numbers(1), labels=list_of(str), title=str, most=at_least(1),
    color=one_color,
)
def plot_distribution(
    axes: Axes, probabilities, labels: Sequence[str], title: str = "", most: int = 15,
    color: str = BLUE,
) -> None:
    """Draw the `most` likeliest tokens as bars, each with its probability in per cent.

    Args:
        probabilities: one number for each token, (V,).
        labels: the tokens as text, (V,).
    """
    probabilities = np.asarray(probabilities)
    if len(labels) != len(probabilities):
        raise ValueError(
            f"{len(probabilities)} probabilities have {len(labels)} labels: give a label for each"
        )
    if not (probabilities >= 0).all() or not np.isfinite(probabilities).all():
        raise ValueError("probabilities should be at least 0, and neither nan nor infinite")
    # The sum of rounded numbers may be a little above 1.
    if probabilities.sum(dtype=float) > 1.01:
        raise ValueError(
            f"the sum of probabilities is {probabilities.sum(dtype=float):.4g}, it should be at "
            "most 1: use logits.softmax(-1), or divide counts by their sum"
        )
    order = np.argsort(-probabilities, kind="stable")[:most]
    # Bars stand at numbers, not at labels, since two tokens may have the same label.
    bars = axes.bar(range(len(order)), probabilities[order], color=color)
    axes.set_xticks(range(len(order)), [visible(labels[i]) for i in order])
    percentages = [f"{p:.0%}" if p >= 0.005 else "" for p in probabilities[order]]
    axes.bar_label(bars, percentages, fontsize=7)
    axes.set(xlabel="next token", ylabel="probability", title=title)
    axes.set_ylim(0, 1.08 * max(probabilities.max(), 0.01))


@check_arguments(token=str)
def visible(token: str) -> str:
    """Return a token as an axis can show it.

    A space, a line end, a tab and "$" become SIGNS. A character that the font cannot draw becomes
    its code point, such as U+000D.
    """
    if token in SIGNS:
        return SIGNS[token]
    return "".join(c if _can_be_drawn(c) else f"U+{ord(c):04X}" for c in token)


def _can_be_drawn(character: str) -> bool:
    return character.isprintable() and bool(_FONT.get_char_index(ord(character)))


@check_arguments(axes=Axes, parts=dict_of(str, at_least(0.0)), peak=at_least(0.0))
def plot_memory(axes: Axes, parts: dict[str, float], peak: float) -> None:
    """Draw the memory of a plan in megabytes (10**6 bytes): a bar for each part and for the peak.

    Args:
        parts: bytes of each part, by name.
        peak: bytes at the moment that needs most memory.
    """
    names = [*parts, "peak"]
    megabytes = [n / 1e6 for n in (*parts.values(), peak)]
    bars = axes.barh(names, megabytes, color=[BLUE] * len(parts) + [GREY])
    bars[-1].set_hatch("//")
    axes.bar_label(bars, [f"{n:,.3g}" for n in megabytes], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="memory (MB)")


@check_arguments(axes=Axes, gaps=dict_of(str, dict_of(str, float)))
def plot_gap(axes: Axes, gaps: dict[str, dict[str, float]]) -> None:
    """Draw each model's excess over the floor, a dot for each kind of character.

    The axis is linear up to 1 nat and logarithmic above it. Such an axis needs dots, because the
    length of a bar would mean nothing.

    Args:
        gaps: for each model the result of `gap_by_kind` (corpora/floor.py): {kind: nats per play}.
    """
    if not gaps:
        raise ValueError("gaps={} is empty: give the gaps of at least one model")
    kinds = list(dict.fromkeys(kind for gap in gaps.values() for kind in gap))
    for i, (model, gap) in enumerate(gaps.items()):
        # The dots of all models for one kind stand around the kind's tick.
        heights = np.arange(len(kinds)) + (i - (len(gaps) - 1) / 2) * 0.5 / len(gaps)
        axes.plot(
            [gap.get(kind, 0.0) for kind in kinds], heights, "o", markersize=7,
            color=COLORS[i % len(COLORS)], label=f"{model}: {sum(gap.values()):,.1f} in all",
        )
    axes.grid(axis="y", color="#dddddd")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter("{x:g}")
    values = [nats for gap in gaps.values() for nats in gap.values()]
    axes.set(xlabel="nats per play above the floor (linear to 1, then logarithmic)",
             xlim=(min(-0.2, 1.2 * min(values, default=0)), max(1.0, 1.5 * max(values, default=0))))
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
