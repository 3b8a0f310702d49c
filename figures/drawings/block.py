"""The decoder block: two parts that read the residual stream and add their output to it."""

from matplotlib.patches import Circle, Polygon
from style import COLOR_OF, GREY, Drawing

STREAM = COLOR_OF["vectors"]
# Where the stream, and the boxes above it, are.
Y, TOP = 37, 12


def draw() -> tuple[Drawing, str]:
    drawing = Drawing(height=50)
    drawing.line((1, Y), (95, Y), color=STREAM, linewidth=5)
    drawing.axes.add_patch(Polygon([(95, Y - 1.7), (99, Y), (95, Y + 1.7)], color=STREAM))
    drawing.text(1, Y - 3, "x", ha="left", fontweight="bold")
    drawing.text(1, Y + 4, "(B, T, C)", ha="left", color=GREY)
    draw_part(drawing, 12, "norm1", "attention", "attention", 19,
              "Positions exchange\ninformation.", "x = x + attention(norm1(x))")
    draw_part(drawing, 60, "norm2", "feed-forward", "feed-\nforward", 15,
              "Each position alone:\nC → 4 · C → C.", "x = x + feed_forward(norm2(x))")
    drawing.text(50, Y + 11, "The residual stream keeps its shape (B, T, C). Each part reads a "
                 "normalised copy and adds its output.")
    alt = (
        "The decoder block. The residual stream x, (B, T, C), runs from left to right. The first "
        "branch goes from the stream through a norm and attention to a plus on the stream: "
        "x = x + attention(norm1(x)). The second branch goes through a norm and the feed-forward "
        "layer to a plus: x = x + feed_forward(norm2(x)). Attention moves information between "
        "positions, the feed-forward layer works on each position alone.")
    return drawing, alt


def draw_part(drawing: Drawing, x: float, norm: str, kind: str, name: str, width: float,
              what: str, formula: str) -> None:
    """Draw a branch that leaves the stream at `x` and comes back to it."""
    middle = TOP + 4.5
    drawing.arrow((x, Y), (x, TOP + 9.6))
    drawing.text(x + 1, 27, "x", ha="left")
    drawing.operation(x - 6, TOP, 12, 9, norm, "norm")
    drawing.arrow((x + 6.3, middle), (x + 10.5, middle))
    drawing.operation(x + 11, TOP - 1, width, 11, name, kind, fontweight="bold")
    drawing.text(x + 11 + width / 2, 6, what, va="center")
    plus = x + 16 + width
    drawing.line((x + 11.3 + width, middle), (plus, middle))
    drawing.arrow((plus, middle), (plus, Y - 2.4))
    drawing.text(plus - 1, 27, "output (B, T, C)", ha="right")
    circle = Circle((plus, Y), 2.2, facecolor="white", edgecolor=STREAM, linewidth=2, zorder=3)
    drawing.axes.add_patch(circle)
    drawing.put_inside(circle, plus, Y + 0.25, "+", size=13, va="center", zorder=4)
    drawing.text(plus + 2, Y + 5, formula, ha="right", fontfamily="monospace")
