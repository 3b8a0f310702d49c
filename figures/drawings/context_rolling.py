"""Context rolling: each window passes one vector, the context, to the next window."""

from style import COLOR_OF, GREY, Drawing

from gptlib.plot import visible

TEXT = "to be or not"
WINDOW = 4
CELL, LINE = 4.4, 4.6
# The distance of two windows.
STEP = 33


def draw() -> tuple[Drawing, str]:
    drawing = Drawing(height=60)
    windows = [TEXT[i:i + WINDOW] for i in range(0, len(TEXT), WINDOW)]
    for i, window in enumerate(windows):
        draw_window(drawing, i, window, last=i == len(windows) - 1)
    drawing.text(50, 57.5, "Vectors are (B, 1, C) for a context and (B, T, C) for the tokens of a "
                 "window, logits (B, T, V).")
    alt = (
        f"Context rolling. The text {TEXT!r} is read in windows of {WINDOW} tokens. A GPT reads "
        "the context, one vector, and then the tokens of the window. Its hidden states at the "
        "tokens give the logits. The mean of these hidden states is the context of the next "
        "window. The first window gets zeros.")
    return drawing, alt


def draw_window(drawing: Drawing, i: int, window: str, last: bool) -> None:
    x = 3 + STEP * i
    first = x + 7.5
    drawing.text(x, 2.5, f"window {i + 1}", ha="left", fontweight="bold")
    drawing.text(x + CELL / 2, 6.3, "zeros" if i == 0 else "context", color=GREY)
    drawing.text(first, 6.3, "tokens (B, T)", ha="left", color=GREY)
    drawing.data(x, 8.5, CELL, LINE, "0" if i == 0 else "c", "vectors", strength=0.6)
    drawing.arrow((x + CELL / 2, 13.4), (x + CELL / 2, 17.2), linewidth=1.2)
    drawing.operation(x - 0.5, 17.5, 26, 7, "GPT: all blocks", "block")
    for j, token in enumerate(window):
        left = first + j * CELL
        middle = left + CELL / 2
        drawing.data(left, 8.5, CELL, LINE, visible(token), "tokens")
        drawing.arrow((middle, 13.4), (middle, 17.2), linewidth=1.2)
        drawing.arrow((middle, 24.7), (middle, 28.7), linewidth=1.2)
        drawing.data(left, 29, CELL, LINE, "h", "vectors")
        drawing.arrow((middle, 33.9), (middle, 37.7), linewidth=1.2)
        drawing.arrow((middle, 44.2), (middle, 47.2), linewidth=1.2)
        drawing.data(left, 47.5, CELL, LINE, "", "logits")
    if i == 0:
        drawing.text(first - 1, 31.3, "hidden", ha="right")
    drawing.text(first - 1, 49.8, "logits", ha="right")
    drawing.operation(first - 0.5, 38, WINDOW * CELL + 1, 6, "output layer", "learned")
    if not last:
        draw_context(drawing, x)


def draw_context(drawing: Drawing, x: float) -> None:
    """Draw the mean of a window's hidden states, and its way to the next window."""
    color = COLOR_OF["vectors"]
    drawing.arrow((x + 25.2, 31.3), (x + 26.4, 31.3), color=color)
    drawing.operation(x + 26.3, 28, 6.4, 6.6, "mean", "vectors")
    drawing.line((x + 29.5, 27.7), (x + 29.5, 10.8), color=color)
    drawing.arrow((x + 29.5, 10.8), (x + STEP - 0.2, 10.8), color=color)
    drawing.text(x + 28.5, 14, "c", ha="right")
