"""Draw figures/leaderboard.png from the results of `make course`: the losses of all chapters.

    python figures/leaderboard.py
"""

import math
from pathlib import Path

from gptlib.classroom.leaderboard import read_results
from gptlib.plot import BLUE, GREY, new_figure

ROOT = Path(__file__).resolve().parents[1]
# model: the name in the figure
SHOWN = {
    "bigram": "1 · bigram",
    "one head": "2 · one head",
    "several heads": "2 · several heads",
    "one block": "3 · one block",
    "5-gram, counted": "1 · best counter",
    "GPT": "4 · GPT",
}


def main() -> None:
    results = read_results(ROOT / "runs")
    rows = {row["model"]: row for row in results if row["corpus"] == "tinyshakespeare"}
    rows = [row for row in rows.values() if row["model"] in SHOWN]
    rows.sort(key=lambda row: -row["val_loss"])
    names = ["guessing", *(SHOWN[row["model"]] for row in rows)]
    losses = [math.log(rows[0]["vocab_size"]), *(row["val_loss"] for row in rows)]
    figure, axes = new_figure(width=8, height=3)
    bars = axes.barh(names, losses, color=[GREY] + [BLUE] * len(rows))
    axes.bar_label(bars, [f"{loss:.2f}" for loss in losses], padding=3)
    axes.invert_yaxis()
    axes.set(xlim=(0, 4.6), xlabel="validation loss on tinyshakespeare "
                                   "(nats per character; less is better)")
    figure.savefig(ROOT / "figures/leaderboard.png", dpi=120)


if __name__ == "__main__":
    main()
