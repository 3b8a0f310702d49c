"""Draw figures/recipes.png: the validation loss of nanoGPT's laptop preset and of chapter 4.

    make train PRESET=nanogpt_laptop && make course && .venv/bin/python figures/recipes.py

Both losses are over the whole validation split.
"""

import json
from pathlib import Path

from gptlib.plot import BLUE, GREY, ORANGE, new_figure

ROOT = Path(__file__).resolve().parents[1]
# (folder of the run, name in the figure, color, style)
RUNS = [
    ("nanogpt_laptop", "nanoGPT's laptop preset", ORANGE, "s--"),
    ("04_full_gpt", "chapter 4", BLUE, "o-"),
]


def main() -> None:
    figure, axes = new_figure(height=3.4)
    for run, name, color, style in RUNS:
        rows = read_metrics(ROOT / "runs" / run / "metrics.jsonl")
        tokens = [row["tokens"] / 1e6 for row in rows]
        losses = [row["val_loss"] for row in rows]
        axes.plot(tokens, losses, style, color=color, markersize=5,
                  label=f"{name}: {losses[-1]:.3f}")
    axes.axhline(1.88, color=GREY, linewidth=1, linestyle=":",
                 label="1.88: published for the preset, 20 random batches")
    axes.set(xlabel="million tokens read", ylabel="validation loss (nats)", ylim=(1.5, 3))
    axes.legend(frameon=False)
    figure.savefig(ROOT / "figures/recipes.png", dpi=150, bbox_inches="tight")


def read_metrics(path: Path) -> list[dict]:
    """Return the rows of a metrics.jsonl, one for each evaluation."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
