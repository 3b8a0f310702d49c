"""Draw figures/floor.png from benchmarks/theatre.json: each model's loss above the floor, by kind.

    python figures/floor.py
"""

import json
from pathlib import Path

from gptlib.plot import new_figure, plot_gap

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    measured = json.loads((ROOT / "benchmarks/theatre.json").read_text(encoding="utf-8"))
    level_2 = measured["results"][1]
    models = measured["others"] | {"GPT with token shift": level_2["runs"]}
    figure, axes = new_figure(width=8, height=4.6)
    plot_gap(axes, {name: mean_gaps(runs) for name, runs in models.items()})
    figure.savefig(ROOT / "figures/floor.png", dpi=120, bbox_inches="tight")


def mean_gaps(runs: list[dict]) -> dict[str, float]:
    """Return the mean gap over the runs, in nats per play, by kind of character."""
    gaps = [run["gap_per_play_by_kind"] for run in runs]
    return {kind: sum(gap[kind] for gap in gaps) / len(gaps) for kind in gaps[0]}


if __name__ == "__main__":
    main()
