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
    figure, axes = new_figure(width=8, height=4)
    for run in runs:
        measure = run["claims"][0]["measure"]
        rows = [row for row in run["curve"][1:] if row[measure] is not None]
        axes.plot([row["tokens"] / 1e6 for row in rows], [row[measure] for row in rows], "o-",
                  color=COLORS[run["run"]], markersize=5, label=name_of(run))
    systems = {claim["system"]: claim["loss"] for run in runs for claim in run["claims"]
               if claim["loss"] and claim["measure"] == "val_loss"}
    right = max(row["tokens"] for run in runs for row in run["curve"]) / 1e6
    for (system, loss), side in zip(sorted(systems.items(), key=lambda item: item[1]),
                                    ("top", "bottom", "top", "bottom", "bottom"), strict=False):
        axes.axhline(loss, color=GREY, linewidth=0.8, linestyle=":")
        axes.text(1.08 * right, loss, f"{system.split(',')[0]}: {loss}", fontsize=9, color=GREY,
                  va=side)
    axes.set(xlabel="million characters read", ylabel="loss (nats per character)",
             ylim=(1.4, 2.4), xlim=(0, 1.5 * right))
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(ROOT / "figures/published.png", dpi=120, bbox_inches="tight")


def name_of(run: dict) -> str:
    """Return what the legend says about a run."""
    state = "" if run["finished"] else ", unfinished"
    measure = "train loss" if run["claims"][0]["measure"] == "train_loss" else "validation loss"
    return (f"{run['training']['max_steps']:,} steps{state}: {measure}, "
            f"{run['parameters'] / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
