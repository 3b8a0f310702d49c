import math

import numpy as np
import pytest

from gptlib import plot
from gptlib.plot import (
    mark_baselines,
    new_figure,
    plot_distribution,
    plot_gap,
    plot_loss,
    plot_matrix,
    show,
    visible,
)

HISTORY = [
    {"step": 10, "train_loss": 3.0, "val_loss": 3.1},
    {"step": 20, "train_loss": 2.0, "val_loss": 2.2},
]


def texts(labels):
    return [label.get_text() for label in labels]


# new_figure and show


def test_a_figure_can_have_several_axes():
    assert len(new_figure(columns=3)[1]) == 3


def test_show_displays_a_png_with_an_alt_text(monkeypatch):
    displayed = []
    monkeypatch.setattr(plot, "display", displayed.append)
    figure, _ = new_figure()
    show(figure, "a falling line")
    (image,) = displayed
    assert image.data.startswith(b"\x89PNG") and image.alt == "a falling line"


def test_all_colours_are_different():
    assert len(set(plot.COLORS)) == len(plot.COLORS) == 7


# plot_loss


def test_a_loss_plot_shows_both_losses_against_steps_with_units():
    _, axes = new_figure()
    plot_loss(axes, HISTORY, vocab_size=65, bigram_loss=2.5)
    points = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines[:2]]
    assert points == [([10, 20], [3.1, 2.2]), ([10, 20], [3.0, 2.0])]
    assert axes.get_xlabel() == "training step"
    assert axes.get_ylabel() == "loss (nats per token)"
    assert texts(axes.get_legend().get_texts()) == ["validation", "training, last batches"]


def test_baselines_are_the_loss_of_guessing_and_the_bigrams_loss():
    _, axes = new_figure()
    mark_baselines(axes, 65, 2.5)
    assert [line.get_ydata()[0] for line in axes.lines] == [math.log(65), 2.5]
    assert texts(axes.texts) == ["guessing: ln 65 = 4.174", "bigram = 2.500"]


def test_without_a_bigram_the_only_baseline_is_guessing():
    _, axes = new_figure()
    mark_baselines(axes, 65)
    assert len(axes.lines) == 1


# plot_matrix


def test_a_matrix_has_a_name_for_each_row_and_column():
    _, axes = new_figure()
    matrix = np.arange(6).reshape(2, 3)
    plot_matrix(axes, matrix, ["a", "b"], ["x", "y", "z"], "next", "present", colorbar="count")
    assert axes.images[0].get_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert texts(axes.get_xticklabels()) == ["x", "y", "z"]
    assert texts(axes.get_yticklabels()) == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("next", "present")


# plot_distribution and visible


def test_the_likeliest_tokens_are_bars_in_order_of_probability():
    _, axes = new_figure()
    plot_distribution(axes, [0.1, 0.6, 0.3], ["a", "\n", " "], most=2)
    assert [bar.get_height() for bar in axes.patches] == [0.6, 0.3]
    assert texts(axes.get_xticklabels()) == ["⏎", "␣"]
    assert axes.get_xlabel() and axes.get_ylabel()


def test_tokens_with_the_same_label_have_separate_bars():
    _, axes = new_figure()
    plot_distribution(axes, [0.5, 0.3, 0.2], ["<?>", "<?>", "<?>"])
    centers = sorted(bar.get_x() + bar.get_width() / 2 for bar in axes.patches)
    assert centers == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("token, expected", [
    (" ", "␣"), ("\n", "⏎"), ("\t", "⇥"), ("\r", "U+000D"), ("\x0b", "U+000B"),
    ("$", r"\$"), ("a", "a"), ("ü", "ü"), ("<?>", "<?>"),
])
def test_every_token_is_visible_on_an_axis(token, expected):
    assert visible(token) == expected


# plot_gap


def test_a_gap_plot_has_a_dot_for_each_model_and_kind():
    _, axes = new_figure()
    gaps = {"bigram": {"choice": 40.0, "fact": 9.0}, "GPT": {"choice": 1.0, "rhyme": -0.1}}
    plot_gap(axes, gaps)
    dots = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[40.0, 9.0, 0.0], [1.0, 0.0, -0.1]]
    assert axes.get_xlim()[0] < -0.1 and axes.get_xlim()[1] > 40
    assert texts(axes.get_yticklabels()) == ["choice", "fact", "rhyme"]
    legend = axes.get_legend().get_texts()
    assert texts(legend) == ["bigram: 49.0 in all", "GPT: 0.9 in all"]
    assert "nats per play" in axes.get_xlabel()
