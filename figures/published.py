"""Draw figures/published.png: the curves of benchmarks/published.json, and the published losses.

    python figures/published.py
"""

import json
from pathlib import Path

from gptlib.plot import BLUE, GREEN, GREY, ORANGE, PINK, SKY, new_figure

ROOT = Path(__file__).resolve().parents[1]
COLORS = {"shakegpt": SKY, "shakegpt_longer": ORANGE, "nanogpt": BLUE, "mygpt": GREEN,
          "picogpt": PINK}


def main() -> None:
    runs = json.loads((ROOT / "benchmarks/published.json").read_text(encoding="utf-8"))["runs"]
    figure, axes = new_figure(height=4)
    for run in runs:
        measure = run["claims"][0]["measure"]
        rows = [row for row in run["curve"][1:] if row[measure] is not None]
        seconds = [row["seconds"] / 60 for row in rows]
        axes.plot(seconds, [row[measure] for row in rows], "o-", color=COLORS[run["run"]],
                  markersize=4, label=name_of(run))
        for claim in run["claims"]:
            if claim["reached"]:
                axes.plot(claim["reached"]["seconds"] / 60, claim["reached"][measure], "o",
                          markersize=9, fillstyle="none", color=COLORS[run["run"]])
    losses = sorted({claim["loss"] for run in runs for claim in run["claims"] if claim["loss"]})
    for loss in losses:
        axes.axhline(loss, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="minutes of training, one thread of a busy machine", ylim=(1.4, 2.8),
             ylabel="loss (nats per character)")
    axes.legend(frameon=False)
    figure.savefig(ROOT / "figures/published.png", dpi=120, bbox_inches="tight")


def name_of(run: dict) -> str:
    """Return what the legend says about a run."""
    systems = ", ".join(claim["system"] for claim in run["claims"])
    measure = "train loss" if run["claims"][0]["measure"] == "train_loss" else "validation loss"
    return f"for {systems}: {measure}, {run['parameters'] / 1e6:.1f} M parameters"


if __name__ == "__main__":
    main()
