"""Time-weighting: attention weights times a Toeplitz matrix, one weight for each distance."""

import torch
from style import Drawing

from gptlib.plot import visible
from gptlib.variants.time_weighting import toeplitz

TOKENS = tuple("to be")
T = len(TOKENS)
BY_DISTANCE = torch.tensor([1.0, 1.2, 0.8, 0.5, 0.2])
SCORES = torch.tensor([
    [0.5, 0.0, 0.0, 0.0, 0.0],
    [1.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, 0.5, 0.0, 0.0],
    [0.0, 0.5, 1.5, 0.0, 0.0],
    [1.0, 0.0, 0.0, 2.0, 0.0],
])
WIDTH, LINE = 5, 4.6


def compute():
    """Return the attention weights p, the weights by distance w, and their product, (T, T) each."""
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    p = SCORES.masked_fill(future, -torch.inf).softmax(-1)
    w = toeplitz(BY_DISTANCE)
    return p, w, p * w


def draw() -> tuple[Drawing, str]:
    p, w, product = compute()
    drawing = Drawing(height=61)
    top = 28
    drawing.title(37.5, 2.5, "u: one learned weight for each distance", "(T,)")
    drawing.grid(37.5, 10, [[f"{u:.1f}" for u in BY_DISTANCE.tolist()]], "learned", WIDTH, LINE)
    drawing.column_names(37.5, 10, [str(d) for d in range(T)], WIDTH)
    drawing.text(36.5, 8.5, "distance d", ha="right")
    drawing.text(36.5, 12.3, "weight u", ha="right")
    drawing.arrow((50, 15.2), (50, 18.3))
    drawing.text(52, 17.3, "the weight of distance d fills diagonal d", ha="left")
    names = [visible(token) for token in TOKENS]
    draw_matrix(drawing, 4, top, names, p, "attention", "p: attention weights")
    draw_matrix(drawing, 37.5, top, names, w, "learned", "w: weight of the distance")
    draw_matrix(drawing, 71, top, names, product, "attention", "p · w, cell by cell")
    drawing.text(31.8, top + 11.5, "×", size=14)
    drawing.text(65.3, top + 11.5, "=", size=14)
    drawing.text(4, top + 25.7, "what the query attends to", ha="left")
    drawing.text(37.5, top + 25.7, "how far back the key stands:", ha="left")
    drawing.text(37.5, top + 28.5, "equal along each diagonal", ha="left")
    drawing.text(71, top + 25.7, "mixes the values;", ha="left")
    drawing.text(71, top + 28.5, "a row no longer sums to 1", ha="left")
    weights = ", ".join(f"{u:.1f}" for u in BY_DISTANCE.tolist())
    alt = (
        f"Time-weighting for the tokens of 'to be'. Each distance from 0 to {T - 1} has one "
        f"learned weight: {weights}. In the Toeplitz matrix w, (T, T), query i and key j have the "
        "weight of the distance i - j, so each diagonal holds one number. The causal attention "
        "weights p are multiplied by w, cell by cell. The rows of the product no longer sum to 1. "
        f"The last row is {row_text(p)} before and {row_text(product)} after.")
    return drawing, alt


def row_text(matrix: torch.Tensor) -> str:
    return ", ".join(f"{number:.2f}" for number in matrix[-1].tolist())


def draw_matrix(drawing: Drawing, x, y, names, matrix, kind, title) -> None:
    digits = 1 if kind == "learned" else 2
    rows = [[f"{number:.{digits}f}" if j <= i else "masked" for j, number in enumerate(row)]
            for i, row in enumerate(matrix.tolist())]
    strengths = [[0.08 + 0.65 * number / 1.2 for number in row] for row in matrix.tolist()]
    if kind == "learned":
        strengths = [[0.35 * number / 1.2 for number in row] for row in matrix.tolist()]
    drawing.title(x, y - 7.2, title, "(T, T)")
    drawing.grid(x, y, rows, kind, WIDTH, LINE, strengths)
    drawing.row_names(x, y, names, LINE)
    drawing.column_names(x, y, names, WIDTH)
