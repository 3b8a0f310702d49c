"""The singular values of a matrix after each step of Muon's iteration (chapter 9)."""

from collections.abc import Mapping

import ipywidgets as W
import torch
from torch import Tensor

from gptlib.checks import check_arguments, checked_value, short
from gptlib.optimizers import orthogonalize
from gptlib.plot import BLUE, GREY, new_figure
from gptlib.widgets.panel import FULL_NAME, Panel, table_html

MOST_STEPS = 10


def named_matrices(name: str, value: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The kind of matrices, (m, n) each, by name."""
    matrices = dict(checked_value(name, value, Mapping))
    if not matrices:
        raise ValueError(f"{name} is empty, it should have at least one matrix")
    for key, matrix in matrices.items():
        is_matrix = isinstance(matrix, Tensor) and matrix.ndim == 2 and matrix.numel() > 0
        if not is_matrix or not matrix.is_floating_point() or not matrix.isfinite().all():
            raise ValueError(
                f"{name}[{short(key)}] should be a matrix, (m, n), of finite floating-point numbers"
            )
    return matrices


class SingularValues(Panel):
    """Move a slider and see how Muon's iteration brings all singular values close to 1.

    Args:
        matrices: by name, (m, n) each, such as the gradients of a model's linear layers.
        steps: of the iteration, where the slider stands at first.
    """

    @check_arguments(matrices=named_matrices, steps=tuple(range(MOST_STEPS + 1)))
    def __init__(self, matrices: Mapping[str, Tensor], steps: int = 0):
        self.matrices = matrices
        self.matrix = W.Dropdown(options=list(matrices), description="Matrix", style=FULL_NAME)
        self.steps = W.SelectionSlider(
            options=range(MOST_STEPS + 1), value=steps, description="Steps of the iteration",
            style=FULL_NAME, continuous_update=False, layout=W.Layout(width="420px"),
        )
        super().__init__(self.matrix, self.steps)
        self.redraw_on_change(self.matrix, self.steps)

    def values(self, steps: int) -> Tensor:
        """Return the singular values after some steps, (min(m, n),), the largest first.

        Before the first step, the matrix is divided by the root of the sum of its squares.
        """
        matrix = self.matrices[self.matrix.value].detach().float().cpu()
        if steps == 0:
            # A matrix of zeros stays as it is.
            matrix = matrix / matrix.norm().clamp(min=1e-30)
        else:
            matrix = orthogonalize(matrix, steps)
        return torch.linalg.svdvals(matrix)

    def picture(self):
        steps = self.steps.value
        before, now = self.values(0), self.values(steps)
        places = range(1, len(now) + 1)
        figure, axes = new_figure(height=3.2)
        axes.plot(places, before, ":", color=GREY, label="divided by its norm")
        axes.plot(places, now, ".-", color=BLUE, label=f"after {plural(steps)}")
        axes.set(xlabel="singular value, from the largest to the smallest", ylabel="its size",
                 ylim=(-0.05, 1.35))
        axes.set_title(self.matrix.value, fontsize=11, loc="left")
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
        return figure, (
            f"The {len(now)} singular values of {self.matrix.value} after {plural(steps)} of the "
            f"iteration: from {now[0]:.2f} to {now[-1]:.2g}. Before, they went from "
            f"{before[0]:.2f} to {before[-1]:.2g}."
        )

    def static_html(self) -> str:
        rows = []
        for steps in range(MOST_STEPS + 1):
            values = self.values(steps)
            numbers = (values[0], values.median(), values[-1])
            rows.append((str(steps), *(f"{value:.3g}" for value in numbers)))
        return table_html(
            (f"steps ({self.matrix.value})", "largest singular value", "median", "smallest"), rows
        )


def plural(steps: int) -> str:
    return f"{steps} step" if steps == 1 else f"{steps} steps"
