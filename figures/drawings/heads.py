"""Several heads: split the channels, attend in each head, concatenate, project."""

from style import COLOR_OF, GREY, Drawing

TOKENS = ("t", "h", "e")
N_HEAD, HEAD_SIZE = 3, 2
CELL, LINE, GAP = 2.4, 2.8, 0.9
SLICE = HEAD_SIZE * CELL
# The width of all channels, with gaps between the slices of the heads.
ALL = N_HEAD * SLICE + (N_HEAD - 1) * GAP


def draw() -> tuple[Drawing, str]:
    drawing = Drawing(height=94)
    draw_input(drawing)
    for head in range(N_HEAD):
        draw_head(drawing, head, 9 + 32 * head)
    draw_output(drawing)
    alt = (
        "Attention with three heads, for three tokens and six channels. A linear layer turns x, "
        "(B, T, C), into queries, keys and values, (B, T, C) each. Their channels are split into "
        "three slices, one for each head, (B, T, head_size). Each head computes its own causal "
        "weights, (B, T, T), and mixes its values with them. The three results are concatenated "
        "to (B, T, C), and a second linear layer, proj, mixes them: (B, T, C).")
    return drawing, alt


def slices(drawing: Drawing, x: float, y: float, kind: str) -> None:
    """Draw the channels of three positions, in one slice for each head."""
    for head in range(N_HEAD):
        cells(drawing, x + head * (SLICE + GAP), y, kind)


def cells(drawing: Drawing, x: float, y: float, kind: str, columns: int = HEAD_SIZE) -> None:
    drawing.grid(x, y, [[""] * columns] * len(TOKENS), kind, CELL, LINE)


def draw_input(drawing: Drawing) -> None:
    drawing.title(4, 2.5, "x", "(B, T, C)")
    cells(drawing, 4, 8, "vectors", N_HEAD * HEAD_SIZE)
    drawing.row_names(4, 8, TOKENS, LINE)
    drawing.arrow((19.5, 12.2), (24, 12.2))
    drawing.operation(24.5, 8, 17, 8.4, "linear layer\nC → 3 · C")
    drawing.arrow((42, 12.2), (47, 12.2))
    for i, kind in enumerate(("queries", "keys", "values")):
        x = 47.5 + 17.5 * i
        drawing.title(x, 2.5, f"{kind} {'qkv'[i]}", "(B, T, C)")
        slices(drawing, x, 8, kind)
        for head in range(N_HEAD):
            drawing.text(x + head * (SLICE + GAP) + SLICE / 2, 18, str(head))
    drawing.text(4, 22.3, "split the channels: head 0 takes slice 0 of q, k and v, head 1 takes "
                 "slice 1, …", ha="left")


def draw_head(drawing: Drawing, head: int, x: float) -> None:
    """Draw what one head does. `x` is the left edge of its data."""
    drawing.arrow((x + 8.2, 24), (x + 8.2, 26.8))
    drawing.operation(x - 6, 27, 28.5, 43, "", "attention").set(facecolor="white")
    drawing.text(x - 4, 30, f"head {head}", ha="left", fontweight="bold")
    top, below = 35, 49.5
    for i, kind in enumerate(("queries", "keys", "values")):
        drawing.text(x + 6.5 * i + SLICE / 2, top - 1.8, "qkv"[i])
        cells(drawing, x + 6.5 * i, top, kind)
    drawing.row_names(x, top, TOKENS, LINE)
    # The weights, with the future masked, and then the mixed values.
    weights = [["" if j <= i else "masked" for j in range(3)] for i in range(3)]
    drawing.grid(x, below, weights, "attention", 2.8, LINE)
    drawing.row_names(x, below, TOKENS, LINE)
    cells(drawing, x + 12.4, below, "values")
    for kind, arrow_x in (("queries", x + 2.4), ("keys", x + 7.4)):
        drawing.arrow((arrow_x, top + 8.8), (arrow_x, below - 0.4), color=COLOR_OF[kind])
    middle = below + 1.5 * LINE
    drawing.line((x + 18.1, top + 4.2), (x + 20.9, top + 4.2), (x + 20.9, middle),
                 color=COLOR_OF["values"])
    drawing.arrow((x + 20.9, middle), (x + 17.5, middle), color=COLOR_OF["values"])
    drawing.arrow((x + 8.9, middle), (x + 12, middle), color=COLOR_OF["attention"])
    drawing.text(x - 4, below + 11.3, "weights (B, T, T)", ha="left")
    drawing.text(x - 4, below + 14.7, "output", ha="left")
    drawing.text(x - 4, below + 17.4, "(B, T, head size)", ha="left")


def draw_output(drawing: Drawing) -> None:
    """Draw the concatenated results and the last linear layer."""
    top, pink = 79.5, COLOR_OF["values"]
    x, middle = 9, top + 1.5 * LINE
    for head in range(N_HEAD):
        center = 9 + 32 * head + 16
        drawing.line((center, 58.4), (center, 73.5), color=pink)
    drawing.line((9 + ALL / 2, 73.5), (center, 73.5), color=pink)
    drawing.arrow((9 + ALL / 2, 73.5), (9 + ALL / 2, top - 0.6), color=pink)
    drawing.text(19.5, 76.3, "concatenate: the slices side by side", ha="left")
    slices(drawing, x, top, "values")
    drawing.row_names(x, top, TOKENS, LINE)
    drawing.text(x, top + 11, "(B, T, C)", ha="left", color=GREY)
    drawing.arrow((x + ALL + 1.5, middle), (x + ALL + 12, middle))
    drawing.operation(37.5, top, 24, 8.4, "linear layer proj\nC → C, mixes the heads")
    drawing.arrow((62, middle), (72, middle))
    cells(drawing, 76, top, "vectors", N_HEAD * HEAD_SIZE)
    drawing.row_names(76, top, TOKENS, LINE)
    drawing.text(76, top + 11, "output (B, T, C)", ha="left", color=GREY)
