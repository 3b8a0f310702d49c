import math

import numpy as np
import pytest

from gptlib import plot
from gptlib.plot import mark_baselines, new_figure, plot_distribution, plot_loss, plot_matrix, show, visible

HISTORY = [{"step": 10, "train_loss": 3.0, "val_loss": 3.1}, {"step": 20, "train_loss": 2.0, "val_loss": 2.2}]


def lines(axes):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_a_loss_plot_shows_both_losses_against_steps_with_units():
    _, axes = new_figure()
    plot_loss(axes, HISTORY, vocab_size=65, bigram_loss=2.5)
    drawn = list(lines(axes).values())
    assert drawn[:2] == [([10, 20], [3.1, 2.2]), ([10, 20], [3.0, 2.0])]
    assert axes.get_xlabel() == "training step" and axes.get_ylabel() == "loss (nats per token)" and axes.get_legend()


def test_a_loss_plot_has_the_lines_of_guessing_and_of_the_bigram():
    _, axes = new_figure()
    mark_baselines(axes, 65, 2.5)
    assert [line.get_ydata()[0] for line in axes.lines] == [math.log(65), 2.5]
    assert [text.get_text() for text in axes.texts] == ["guessing: ln 65 = 4.174", "bigram = 2.500"]


def test_without_a_bigram_there_is_only_the_line_of_guessing():
    _, axes = new_figure()
    mark_baselines(axes, 65)
    assert len(axes.lines) == 1


def test_the_likeliest_tokens_become_bars_in_order():
    _, axes = new_figure()
    plot_distribution(axes, [0.1, 0.6, 0.3], ["a", "\n", " "], most=2)
    assert [bar.get_height() for bar in axes.patches] == [0.6, 0.3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["⏎", "␣"] and axes.get_xlabel() and axes.get_ylabel()


def test_tokens_that_look_alike_have_a_bar_each():
    _, axes = new_figure()
    plot_distribution(axes, [0.5, 0.3, 0.2], ["<?>", "<?>", "<?>"])
    assert sorted(bar.get_x() + bar.get_width() / 2 for bar in axes.patches) == pytest.approx([0, 1, 2])


def test_a_matrix_has_a_name_for_each_row_and_column():
    _, axes = new_figure()
    plot_matrix(axes, np.arange(6).reshape(2, 3), ["a", "b"], ["x", "y", "z"], "next", "present", colorbar="count")
    assert axes.images[0].get_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("next", "present")


def test_a_picture_is_a_png_with_a_text_for_screen_readers(monkeypatch):
    shown = []
    monkeypatch.setattr(plot, "display", shown.append)
    figure, _ = new_figure()
    show(figure, "a falling line")
    image, = shown
    assert image.data.startswith(b"\x89PNG") and image.alt == "a falling line"


def test_several_axes_come_in_one_figure():
    assert len(new_figure(columns=3)[1]) == 3


def test_colours_differ():
    assert len(set(plot.COLORS)) == len(plot.COLORS) == 7


@pytest.mark.parametrize("token, shown", [(" ", "␣"), ("\n", "⏎"), ("\t", "⇥"), ("\r", "U+000D"), ("$", r"\$"), ("a", "a"), ("ü", "ü"),
                                          ("\x0b", "U+000B"), ("<?>", "<?>")])
def test_every_token_can_be_seen_on_an_axis(token, shown):
    assert visible(token) == shown
