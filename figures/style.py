"""The style of the course's drawings: their colours and the few shapes that they are made of.

Every drawing is 7 inches wide, which is 700 pixels at 100 dots per inch. Its coordinates run from
0 to 100 from left to right, and from 0 downwards. One unit is about as wide as a letter.

Rectangles with square corners are data. Boxes with round corners are operations. A dashed edge
means that the numbers inside are learned. A hatched cell is masked.
"""

import io

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from PIL import Image

from gptlib.plot import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

YELLOW = "#F0E442"
BLACK = "#222222"

# The same thing has the same colour in every drawing.
COLOR_OF = {
    "tokens": BLACK,            # on white
    "vectors": BLUE,            # embeddings and the residual stream
    "queries": ORANGE,
    "keys": GREEN,
    "values": PINK,
    "attention": RED,           # scores, attention weights, the attention layer
    "norm": GREY,
    "block": BLUE,              # on white: the parts inside have their own colours
    "feed-forward": SKY,
    "logits": YELLOW,           # and probabilities
    "learned": BLACK,           # tables and matrices of learned numbers, with a dashed edge
    "masked": GREY,             # hatched
}

WIDTH_INCHES = 7
UNITS = 100
DPI = 200
# The size of the smallest letters, in points.
SMALL = 9
ARROW = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}


def tint(color: str, strength: float = 0.3) -> tuple[float, float, float]:
    """Return a light version of a colour. Strength 0 is white, and 1 is the colour itself."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(color))


def signed(number: float, digits: int = 1) -> str:
    """Return a number with this many digits after the point, and a real minus sign."""
    return f"{number:.{digits}f}".replace("-", "−")


def fill_of(kind: str) -> tuple[float, float, float]:
    if kind in ("tokens", "block", "masked"):
        return to_rgb("white")
    if kind == "learned":
        return to_rgb("#F5F5F5")
    return tint(COLOR_OF[kind], {"logits": 0.5, "norm": 0.22}.get(kind, 0.3))


def edge_of(kind: str) -> str:
    # Yellow lines are too faint on white.
    return "#A89A00" if kind == "logits" else COLOR_OF[kind]


class Drawing:
    """A figure on which boxes, grids, arrows and texts are placed.

    Args:
        height: in units.
    """

    def __init__(self, height: float):
        self.height = height
        inches = WIDTH_INCHES * height / UNITS
        self.figure = Figure(figsize=(WIDTH_INCHES, inches), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, UNITS), ylim=(height, 0))
        self.axes.axis("off")
        # (text, box) for each text that should be inside a box.
        self.texts_in_boxes: list[tuple[Text, Rectangle | FancyBboxPatch]] = []
        # The points of each line and arrow, which should cross no text.
        self.lines: list[tuple[tuple[float, float], ...]] = []

    def text(self, x, y, text, size=SMALL, ha="center", va="center_baseline", color=BLACK,
             **options):
        """Write a text. `x` and `y` are its centre, if `ha` and `va` say nothing else."""
        return self.axes.text(x, y, text, fontsize=size, ha=ha, va=va, color=color,
                              linespacing=1.25, **options)

    def title(self, x, y, name, shape="", ha="left"):
        """Write what something is, in bold, and its shape below it."""
        self.text(x, y, name, ha=ha, fontweight="bold")
        if shape:
            self.text(x, y + 2.7, shape, ha=ha, color=GREY)

    def data(self, x, y, width, height, text="", kind="vectors", strength=None, **options):
        """Draw a rectangle with a text inside.

        Args:
            strength: of the fill, from 0 to 1. None means the usual one.

        Returns:
            The rectangle, so that a drawing can change its style.
        """
        fill = fill_of(kind) if strength is None else tint(COLOR_OF[kind], strength)
        rectangle = Rectangle((x, y), width, height, facecolor=fill, edgecolor=edge_of(kind),
                              linewidth=1)
        if kind == "masked":
            rectangle.set(hatch="////", edgecolor="#CCCCCC")
        if kind == "learned":
            # The dashed edge of a learned matrix is drawn once, around all of its cells.
            rectangle.set(edgecolor="#CCCCCC")
        self.axes.add_patch(rectangle)
        self.put_inside(rectangle, x + width / 2, y + height / 2, text, **options)
        return rectangle

    def operation(self, x, y, width, height, text, kind="learned", **options):
        """Draw a box with round corners and a text inside."""
        box = FancyBboxPatch((x + 1, y + 1), width - 2, height - 2, facecolor=fill_of(kind),
                             edgecolor=edge_of(kind), linewidth=1.3,
                             boxstyle="round,pad=1,rounding_size=1")
        if kind == "learned":
            box.set_linestyle((0, (3, 2)))
        self.axes.add_patch(box)
        self.put_inside(box, x + width / 2, y + height / 2, text, **options)
        return box

    def put_inside(self, box, x, y, text, **options):
        if text:
            # A quarter of a unit higher, digits stand in the middle.
            self.texts_in_boxes.append((self.text(x, y - 0.25, text, **options), box))

    def grid(self, x, y, rows, kind="vectors", width=5.0, height=4.0, strengths=None):
        """Draw a matrix as cells.

        Args:
            rows: the texts of the cells. "−∞" and texts that begin with "masked" are masked cells.
            width, height: of one cell.
            strengths: a number from 0 to 1 for each cell, which sets how dark it is.
        """
        for i, row in enumerate(rows):
            for j, text in enumerate(row):
                cell = (x + j * width, y + i * height, width, height)
                if text == "−∞" or text.startswith("masked"):
                    self.data(*cell, text.removeprefix("masked"), "masked", color=GREY)
                else:
                    strength = None if strengths is None else strengths[i][j]
                    self.data(*cell, text, kind, strength)
        if kind == "learned":
            n_rows, n_columns = len(rows), len(rows[0])
            self.axes.add_patch(Rectangle((x, y), n_columns * width, n_rows * height, fill=False,
                                          edgecolor=BLACK, linewidth=1.3, linestyle=(0, (3, 2))))

    def frame(self, x, y, width, height, color=BLACK):
        """Draw a thick frame, which says: look here."""
        self.axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color,
                                      linewidth=2.2, zorder=3))

    def row_names(self, x, y, names, height=4.0):
        """Write a name before each row of a grid that begins at (x, y)."""
        for i, name in enumerate(names):
            self.text(x - 1, y + (i + 0.5) * height - 0.25, name, ha="right")

    def column_names(self, x, y, names, width=5.0):
        """Write a name above each column of a grid that begins at (x, y)."""
        for j, name in enumerate(names):
            self.text(x + (j + 0.5) * width, y - 1.5, name)

    def arrow(self, start, end, text="", at=None, color=GREY, ha="center", linewidth=1.5):
        """Draw an arrow from `start` to `end`, and write what it does at `at`."""
        style = ARROW | {"color": color, "linewidth": linewidth}
        self.lines.append((start, end))
        self.axes.annotate("", end, start, arrowprops=style)
        if text:
            x, y = at or ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
            self.text(x, y, text, ha=ha)

    def line(self, *points, color=GREY, linewidth=1.5, **options):
        """Draw a line through some points."""
        self.lines.append(points)
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=color, linewidth=linewidth, solid_capstyle="butt", **options)

    def save(self, path) -> None:
        """Write the drawing as a PNG of at most 64 colours, which keeps the file small."""
        png = io.BytesIO()
        self.figure.savefig(png, format="png", dpi=DPI)
        picture = Image.open(png).convert("RGB")
        picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
