"""Draw figures/floor.png from benchmarks/theatre.json: how far each model stays above the Little Theatre's floor, and in what.

    python figures/floor.py
"""

import json
from pathlib import Path

from gptlib.plot import new_figure, plot_gap

ROOT = Path(__file__).resolve().parents[1]
measured = json.loads((ROOT / "benchmarks/theatre.json").read_text(encoding="utf-8"))
arms = measured["others"] | {"GPT with token shift": measured["results"][1]["runs"]}
gaps = {}
for name, runs in arms.items():
    kinds = [run["gap_per_play_by_kind"] for run in runs]
    gaps[name] = {kind: sum(gap[kind] for gap in kinds) / len(kinds) for kind in kinds[0]}
figure, axes = new_figure(width=8, height=4.6)
plot_gap(axes, gaps)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=120, bbox_inches="tight")
