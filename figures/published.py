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
        tokens = [row["tokens"] / 1e6 for row in rows]
        axes.plot(tokens, [row[measure] for row in rows], "o-", color=COLORS[run["run"]],
                  markersize=4, label=name_of(run))
        for claim in run["claims"]:
            if claim["reached"]:
                axes.plot(claim["reached"]["tokens"] / 1e6, claim["reached"][measure], "o",
                          markersize=9, fillstyle="none", color=COLORS[run["run"]])
    losses = sorted({claim["loss"] for run in runs for claim in run["claims"] if claim["loss"]})
    for loss in losses:
        axes.axhline(loss, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="million tokens read", ylim=(1.4, 2.8),
             ylabel="loss (nats per character)")
    axes.legend(frameon=False)
    figure.savefig(ROOT / "figures/published.png", dpi=120, bbox_inches="tight")


def name_of(run: dict) -> str:
    """Return what the legend says about a run."""
    name = run["claims"][0]["system"].split(",")[0].split(" ")[0].removesuffix("'s")
    measure = "train loss, " if run["claims"][0]["measure"] == "train_loss" else ""
    end = f"{run['steps']} steps" if run["finished"] else f"stopped at step {run['steps']}"
    return f"for {name}: {measure}{run['parameters'] / 1e6:.1f} M parameters, {end}"


if __name__ == "__main__":
    main()
