"""Draw figures/course_map.png: the chapters, what each one builds, and which one leads to which.

    python figures/course_map.py
"""

from pathlib import Path

from matplotlib.patches import FancyBboxPatch

from gptlib.plot import BLUE, GREEN, GREY, new_figure

ROOT = Path(__file__).resolve().parents[1]
# The size of a box, and the distance between the corners of two neighbours.
WIDTH, HEIGHT = 2.5, 1.3
COLUMNS, ROW = (2.86, 4.766), 2.5         # the lower row has six boxes, the upper row four
# The height of the line that leads from chapter 4 to the chapters after it.
BRANCH_Y = 1.92
ARROW = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
# name: ((column, row), what the reader builds)
CHAPTERS = {
    "1 · Bigram": ((0, 1), "count pairs of letters,\nthen learn the same table"),
    "2 · Attention": ((1, 1), "let each position gather\nfrom those before it"),
    "3 · Decoder block": ((2, 1), "residual stream, norms,\nfeed-forward, positions"),
    "4 · Full GPT": ((3, 1), "assemble, train, sample,\nmeasure, find its limits"),
    "5 · Tokenizer": ((0, 0), "byte pairs: what a model\nreads instead of letters"),
    "6 · Time-weighting": ((1, 0), "does attention need to know\nhow far back it looks?"),
    "7 · Context rolling": ((2, 0), "carry a memory from\nwindow to window"),
    "8 · Sampling": ((3, 0), "choose the next token,\nand write faster"),
    "9 · Speed": ((4, 0), "reach the same loss\nin fewer steps"),
    "10 · Data": ((5, 0), "from a heap of files\nto a training set"),
}
IN_ORDER = ["1 · Bigram", "2 · Attention", "3 · Decoder block", "4 · Full GPT"]
AFTER_CHAPTER_4 = [name for name, ((_, row), _) in CHAPTERS.items() if row == 0]


def main() -> None:
    figure, axes = new_figure(width=15, height=4.1)
    axes.set(xlim=(-0.15, 16.95), ylim=(-0.45, 4.35))
    axes.axis("off")
    for name in CHAPTERS:
        draw_chapter(axes, name)
    draw_order(axes)
    draw_branches(axes)
    axes.text(0, 4.12, "in this order", color=BLUE, fontsize=10.5, va="center")
    axes.text(1.4, 2.15, "after chapter 4, in any order", color=GREEN, fontsize=10.5, va="center")
    figure.savefig(ROOT / "figures/course_map.png", dpi=110, facecolor="white")


def corner(name: str) -> tuple[float, float]:
    """Return the lower left corner of a chapter's box."""
    (column, row), _ = CHAPTERS[name]
    return COLUMNS[row] * column, ROW * row


def draw_chapter(axes, name: str) -> None:
    x, y = corner(name)
    _, built = CHAPTERS[name]
    color = GREEN if name in AFTER_CHAPTER_4 else BLUE
    axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, facecolor="white", edgecolor=color,
                                  linewidth=2, boxstyle="round,pad=0.05,rounding_size=0.15"))
    axes.text(x + WIDTH / 2, y + 1.02, name, ha="center", va="center", fontsize=12,
              fontweight="bold", color=color)
    axes.text(x + WIDTH / 2, y + 0.42, built, ha="center", va="center", fontsize=9.5,
              color="#222222")


def draw_order(axes) -> None:
    """Draw an arrow from each chapter of the upper row to the next."""
    for name, next_name in zip(IN_ORDER, IN_ORDER[1:], strict=False):
        x, y = corner(name)
        next_x, _ = corner(next_name)
        axes.annotate("", (next_x - 0.07, y + HEIGHT / 2), (x + WIDTH + 0.07, y + HEIGHT / 2),
                      arrowprops=ARROW)


def draw_branches(axes) -> None:
    """Draw a line down from chapter 4 and along, and from it an arrow to each later chapter."""
    x, y = corner("4 · Full GPT")
    trunk_x = x + WIDTH / 2
    first_x = corner(AFTER_CHAPTER_4[0])[0] + WIDTH / 2
    axes.plot([trunk_x, trunk_x], [y - 0.07, BRANCH_Y], color=GREY, linewidth=1.8)
    axes.plot([first_x, trunk_x], [BRANCH_Y, BRANCH_Y], color=GREY, linewidth=1.8)
    for name in AFTER_CHAPTER_4:
        x, y = corner(name)
        axes.annotate("", (x + WIDTH / 2, y + HEIGHT + 0.07), (x + WIDTH / 2, BRANCH_Y),
                      arrowprops=ARROW)


if __name__ == "__main__":
    main()
