"""Draws figures/recipes.png from two runs: nanoGPT's laptop preset and chapter 4, each with its loss over the whole validation split.

    make train PRESET=nanogpt_laptop && make course && .venv/bin/python figures/recipes.py
"""

import json
from pathlib import Path

from gptlib.config import project_dir
from gptlib.plot import BLUE, GREY, ORANGE, new_figure

fig, ax = new_figure(height=3.4)
for run, color, style, name in (("nanogpt_laptop", ORANGE, "s--", "nanoGPT's laptop preset"), ("04_full_gpt", BLUE, "o-", "chapter 4")):
    rows = [json.loads(line) for line in (project_dir() / "runs" / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    ax.plot([row["tokens"] / 1e6 for row in rows], [row["val_loss"] for row in rows], style, color=color, markersize=5,
            label=f"{name}: {rows[-1]['val_loss']:.3f}")
ax.axhline(1.88, color=GREY, linewidth=1, linestyle=":", label="1.88: published for the preset, 20 random batches")
ax.set(xlabel="million tokens read", ylabel="validation loss (nats)", ylim=(1.5, 3))
ax.legend(frameon=False)
fig.savefig(Path(__file__).with_suffix(".png"), dpi=150, bbox_inches="tight")
