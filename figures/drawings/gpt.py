"""The whole GPT with its shapes: ids, vectors, blocks, logits, probabilities."""

from style import GREY, Drawing

from gptlib.plot import visible

TEXT = "to be or"
T = 5
# The left edge of the first token's column, the distance of two columns, the width of a token.
LEFT, STEP, CELL = 7, 11, 5
# Where names and shapes are written.
RIGHT = 66


def draw() -> tuple[Drawing, str]:
    drawing = Drawing(height=97.5)
    shown, targets = TEXT[:T], TEXT[1:T + 1]
    token_row(drawing, 2, shown, "tokens")
    drawing.title(RIGHT, 2.8, "tokens, as ids", "(B, T)")
    columns(drawing, 7, 10.5)
    wide(drawing, 11, "token embedding: a row of a table for each id", "learned")
    drawing.text(RIGHT, 14.2, "table (V, C), learned", ha="left", color=GREY)
    columns(drawing, 17.2, 20.5)
    wide(drawing, 21, "+ position: a row of a table for each position", "learned")
    drawing.text(RIGHT, 24.2, "table (block size, C), learned", ha="left", color=GREY)
    columns(drawing, 27.2, 30.5)
    vectors(drawing, 31, "vectors")
    drawing.title(RIGHT, 34, "residual stream", "(B, T, C)")
    columns(drawing, 40.3, 43.6)
    draw_blocks(drawing, 44)
    columns(drawing, 65.2, 68)
    wide(drawing, 68.3, "final norm", "norm", 5)
    drawing.text(RIGHT, 70.8, "(B, T, C)", ha="left", color=GREY)
    columns(drawing, 73.4, 75.7)
    wide(drawing, 76, "output layer: C → V", "learned", 5)
    drawing.text(RIGHT, 78.5, "matrix (C, V), learned", ha="left", color=GREY)
    columns(drawing, 81.2, 83.3)
    vectors(drawing, 83.6, "logits", 2, 2.4)
    drawing.title(RIGHT, 84.8, "logits", "(B, T, V)")
    columns(drawing, 88.7, 91.3)
    for i, token in enumerate(targets):
        drawing.text(LEFT + i * STEP + CELL / 2, 93, f"“{visible(token)}”?")
    drawing.text(RIGHT, 91.3, "softmax: probabilities (B, T, V)", ha="left")
    drawing.text(RIGHT, 94, "for the token that comes next", ha="left")
    alt = (
        f"The whole GPT, from top to bottom, for the tokens of {shown!r}. Ids, (B, T), become "
        "vectors: the token embedding gives a row of a table, (V, C), for each id, and a row for "
        "each position is added. The residual stream, (B, T, C), passes through n_layer blocks of "
        "attention and feed-forward, and through a final norm. The output layer, (C, V), gives "
        "logits, (B, T, V), and the softmax turns them into probabilities. Each position predicts "
        "the token after it.")
    return drawing, alt


def columns(drawing: Drawing, y: float, end: float) -> None:
    """Draw an arrow down for each token."""
    for i in range(T):
        x = LEFT + i * STEP + CELL / 2
        drawing.arrow((x, y), (x, end), linewidth=1.2)


def token_row(drawing: Drawing, y: float, tokens: str, kind: str) -> None:
    for i, token in enumerate(tokens):
        drawing.data(LEFT + i * STEP, y, CELL, 4.5, visible(token), kind)


def wide(drawing: Drawing, y: float, text: str, kind: str, height: float = 6) -> None:
    """Draw an operation on all positions."""
    drawing.operation(3, y, LEFT + (T - 1) * STEP + CELL + 1, height, text, kind)


def vectors(drawing: Drawing, y: float, kind: str, n: int = 3, height: float = 3) -> None:
    """Draw a vector of `n` cells for each position."""
    for i in range(T):
        drawing.grid(LEFT + i * STEP, y, [[""]] * n, kind, CELL, height)


def draw_blocks(drawing: Drawing, y: float) -> None:
    """Draw a stack of blocks. The first one shows its parts."""
    width = LEFT + (T - 1) * STEP + CELL + 1
    for shift in (2.4, 1.2, 0):
        drawing.data(3 + shift, y + 2.4 - shift, width - 2.4, 18.6, "", "block")
    inner = width - 8
    drawing.operation(6, y + 4, inner, 6.6, "norm, attention, +: positions exchange information",
                      "attention")
    drawing.operation(6, y + 12.6, inner, 6.6, "norm, feed-forward, +: each position alone",
                      "feed-forward")
    drawing.title(RIGHT, y + 8.5, "block, n_layer times", "(B, T, C) → (B, T, C)")
