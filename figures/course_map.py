"""Draw figures/course_map.png: the chapters, what each builds, and which one leads to which.

    python figures/course_map.py
"""

from pathlib import Path

from matplotlib.patches import FancyBboxPatch

from gptlib.plot import BLUE, GREEN, GREY, new_figure

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 2.5, 1.3
CHAPTERS = {        # name: (column, row), what you build
    "1 · Bigram": ((0, 1), "count pairs of letters,\nthen learn the same table"),
    "2 · Attention": ((1, 1), "let each position gather\nfrom those before it"),
    "3 · Decoder block": ((2, 1), "residual road, norms,\nfeed-forward, positions"),
    "4 · Full GPT": ((3, 1), "assemble, train, sample,\nmeasure, find its limits"),
    "5 · Tokenizer": ((1, 0), "byte pairs: what a model\nreads instead of letters"),
    "6 · Time-weighting": ((2, 0), "does attention need to know\nhow far back it looks?"),
    "7 · Context rolling": ((3, 0), "carry a memory from\nwindow to window"),
}
ROADS = [("1 · Bigram", "2 · Attention"), ("2 · Attention", "3 · Decoder block"), ("3 · Decoder block", "4 · Full GPT")]
BRANCHES = ["5 · Tokenizer", "6 · Time-weighting", "7 · Context rolling"]


def main() -> None:
    figure, axes = new_figure(width=11, height=4.1)
    axes.set(xlim=(-0.15, 12.15), ylim=(-0.45, 4.35))
    axes.axis("off")
    corner = {name: (3.16 * column, 2.5 * row) for name, ((column, row), _) in CHAPTERS.items()}
    for name, (_, built) in CHAPTERS.items():
        (x, y), color = corner[name], GREEN if name in BRANCHES else BLUE
        axes.add_patch(FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle="round,pad=0.05,rounding_size=0.15", facecolor="white",
                                      edgecolor=color, linewidth=2))
        axes.text(x + WIDTH / 2, y + 1.02, name, ha="center", va="center", fontsize=12, fontweight="bold", color=color)
        axes.text(x + WIDTH / 2, y + 0.42, built, ha="center", va="center", fontsize=9.5, color="#222222")
    arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    for here, there in ROADS:
        (x, y), (to_x, _) = corner[here], corner[there]
        axes.annotate("", (to_x - 0.07, y + HEIGHT / 2), (x + WIDTH + 0.07, y + HEIGHT / 2), arrowprops=arrow)
    trunk_x, trunk_y = corner["4 · Full GPT"][0] + WIDTH / 2, 1.92                  # from the full GPT down, and along
    axes.plot([trunk_x, trunk_x], [corner["4 · Full GPT"][1] - 0.07, trunk_y], color=GREY, linewidth=1.8)
    axes.plot([corner[BRANCHES[0]][0] + WIDTH / 2, trunk_x], [trunk_y, trunk_y], color=GREY, linewidth=1.8)
    for name in BRANCHES:
        x, y = corner[name]
        axes.annotate("", (x + WIDTH / 2, y + HEIGHT + 0.07), (x + WIDTH / 2, trunk_y), arrowprops=arrow)
    axes.text(0, 4.12, "in this order", color=BLUE, fontsize=10.5, va="center")
    axes.text(0, 0.65, "after chapter 4,\nin any order", color=GREEN, fontsize=10.5, va="center")
    figure.savefig(ROOT / "figures/course_map.png", dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
