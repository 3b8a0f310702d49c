"""One attention head with three tokens. All numbers are computed."""

import torch
from style import COLOR_OF, GREY, Drawing, signed

from gptlib.attention import simple_attention

TOKENS = ("t", "h", "e")
# The embeddings (T, C) and the matrices (C, head_size) have small numbers, so that a reader can
# check the products by hand.
X = torch.tensor([[1.0, 0, 1], [0, 1, 1], [1, 1, 0]])
TO_QUERY = torch.tensor([[1.0, 0], [0, 2], [1, -1]])
TO_KEY = torch.tensor([[0.0, 1], [1, 1], [1, 0]])
TO_VALUE = torch.tensor([[2.0, 0], [0, 1], [0, 3]])
WIDTH, LINE = 5.4, 4.0


def compute() -> dict[str, torch.Tensor]:
    """Return each step of the head by name."""
    q, k, v = X @ TO_QUERY, X @ TO_KEY, X @ TO_VALUE
    scores = q @ k.T / q.shape[1] ** 0.5
    future = torch.ones(3, 3, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    output = simple_attention(q, k, v)
    return {"q": q, "k": k, "v": v, "scores": scores, "weights": weights, "output": output}


def draw() -> tuple[Drawing, str]:
    steps = compute()
    drawing = Drawing(height=92)
    draw_projections(drawing, steps)
    draw_weights(drawing, steps["scores"].tolist(), steps["weights"].tolist())
    draw_output(drawing, steps)
    weights = ", ".join(f"{w:.2f}" for w in steps["weights"][2].tolist())
    output = ", ".join(f"{number:.2f}" for number in steps["output"][2].tolist())
    alt = (
        "One attention head with the three tokens t, h and e. The embeddings x, (3, 3), are "
        "multiplied by three learned matrices. This gives queries, keys and values, (3, 2) each. "
        "The products of queries and keys, divided by the root of 2, are the scores, (3, 3). The "
        "mask hides the scores of later tokens. The softmax of each row gives the weights. The "
        f"weights of e are {weights}. The weights times the values are the output, (3, 2). "
        f"The output of e is ({output}).")
    return drawing, alt


def draw_projections(drawing: Drawing, steps: dict) -> None:
    """Draw the embeddings, the three matrices, and what x becomes in each of them."""
    drawing.title(31, 4.5, "x: embeddings", "(T, C) = (3, 3)", ha="right")
    drawing.grid(38, 1.5, integers(X), "vectors", WIDTH, LINE)
    drawing.row_names(38, 1.5, TOKENS, LINE)
    drawing.text(60, 4.5, "x is multiplied by three learned\nmatrices, with head size 2:",
                 ha="left", va="center")
    drawing.text(60, 11, "$q = x\\,W_Q,\\;\\; k = x\\,W_K,\\;\\; v = x\\,W_V$", ha="left", size=10)
    drawing.line((46.1, 13.5), (46.1, 16.5), color=COLOR_OF["vectors"])
    lanes = (("queries", "q", TO_QUERY), ("keys", "k", TO_KEY), ("values", "v", TO_VALUE))
    for i, (kind, name, matrix) in enumerate(lanes):
        x, y = 2 + 33.5 * i, 29
        letter = name.upper()
        drawing.line((46.1, 16.5), (x + WIDTH, 16.5), color=COLOR_OF["vectors"])
        drawing.arrow((x + WIDTH, 16.5), (x + WIDTH, 20.3), color=COLOR_OF["vectors"])
        drawing.text(x, y - 6.5, f"$\\mathbf{{W_{letter}}}$", ha="left", size=10)
        drawing.text(x, y - 3.5, "(C, 2), learned", ha="left", color=GREY)
        drawing.grid(x, y, integers(matrix), "learned", WIDTH, LINE)
        drawing.arrow((x + 11.3, y + 6), (x + 15.3, y + 6))
        drawing.title(x + 18.5, y - 6.3, f"{kind} {name}", "(T, 2)")
        drawing.grid(x + 18.5, y, integers(steps[name]), kind, WIDTH, LINE)
        drawing.row_names(x + 18.5, y, TOKENS, LINE)


def draw_weights(drawing: Drawing, scores: list, weights: list) -> None:
    """Draw the scores, the mask and the weights, from left to right."""
    top, width = 52.5, 5.7
    masked = [[signed(s) if j <= i else "−∞" for j, s in enumerate(row)]
              for i, row in enumerate(scores)]
    shown = [[f"{w:.2f}" if j <= i else "masked0" for j, w in enumerate(row)]
             for i, row in enumerate(weights)]
    strengths = [[0.1 + 0.6 * w for w in row] for row in weights]
    grids = (
        (12, "scores = q kᵀ / √2", [[signed(s) for s in row] for row in scores], None,
         "(T, T), a row for each query"),
        (41, "masked scores", masked, None, "(T, T)"),
        (70, "weights", shown, strengths, "(T, T)"),
    )
    for x, title, rows, darkness, shape in grids:
        drawing.grid(x, top, rows, "attention", width, LINE, darkness)
        drawing.row_names(x, top, TOKENS, LINE)
        drawing.column_names(x, top, TOKENS, width)
        drawing.title(x, top + 15, title, shape)
    drawing.arrow((30, top + 6), (38, top + 6), "hide the\nfuture", at=(34, top + 1.5))
    drawing.arrow((59, top + 6), (67, top + 6), "softmax\nof a row", at=(63, top + 1.5))
    drawing.frame(70, top + 2 * LINE, 3 * width, LINE)
    # Queries and keys come from above.
    drawing.arrow((22.5, 41.4), (22.5, 48.7), "q", at=(20.8, 45), color=COLOR_OF["queries"])
    drawing.line((59.4, 41.4), (59.4, 45), (27, 45), color=COLOR_OF["keys"])
    drawing.text(61, 43.2, "k")
    drawing.arrow((27, 45), (27, 48.7), color=COLOR_OF["keys"])


def draw_output(drawing: Drawing, steps: dict) -> None:
    """Draw the output, and how its last row is computed."""
    top = 78
    output = [[f"{number:.2f}" for number in row] for row in steps["output"].tolist()]
    drawing.grid(73, top, output, "values", 6, LINE)
    drawing.row_names(73, top, TOKENS, LINE)
    drawing.frame(73, top + 2 * LINE, 12, LINE)
    drawing.arrow((79, 72), (79, top - 0.5), "mix the values", at=(77.5, 74.7), ha="right")
    drawing.text(95.8, 60, "v")
    drawing.line((94, 41.4), (94, top + 6), color=COLOR_OF["values"])
    drawing.arrow((94, top + 6), (85.8, top + 6), color=COLOR_OF["values"])
    drawing.title(12, top + 0.5, "output = weights · v", "(T, 2)")
    weights, values = steps["weights"][2].tolist(), integers(steps["v"])
    terms = [f"{w:.2f} · ({a}, {b})" for w, (a, b) in zip(weights, values, strict=True)]
    drawing.text(12, top + 7.5, "row e: " + " + ".join(terms), ha="left")
    drawing.text(12, top + 10.5, f"≈ ({', '.join(output[2])})", ha="left")


def integers(matrix: torch.Tensor) -> list[list[str]]:
    return [[signed(number, 0) for number in row] for row in matrix.tolist()]
