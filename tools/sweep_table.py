"""What a sweep comes to: results.csv with a row a run and model, results.png, and the means on the terminal."""

import json
from pathlib import Path

import matplotlib
import pandas

from gptlib.plot import new_figure

matplotlib.use("Agg")
FOUND = ("model", "val_loss", "bits_per_character", "seconds", "corpus")


def report(runs: list[tuple], swept: list[str], folder: Path) -> None:
    """Table and figure of `runs`, pairs of a cell of the grid and how it went; `swept` names what differs."""
    rows = []
    for cell, status in runs:
        files = sorted(cell.out.glob("result-*.json")) if status == "finished" else []
        for result in [json.loads(file.read_text(encoding="utf-8")) for file in files] or [{}]:
            found = {key: result.get(key) for key in FOUND}
            rows.append({"notebook": cell.notebook.stem} | cell.given | found | {"status": status})
    table = pandas.DataFrame(rows)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "results.csv", index=False)
    done = table[table["status"] == "finished"]
    means = done.groupby(["notebook", *swept, "model"], sort=False)["val_loss"].agg(["mean", "std", "count"]).reset_index()
    means = means.rename(columns={"count": "n"})
    (folder / "results.png").unlink(missing_ok=True)
    if len(means):
        exact = {"mean": "{:.4f}".format, "std": "{:.4f}".format}
        print(f"\nValidation loss, nats per token:\n{means.to_string(index=False, formatters=exact)}")
        draw(means, swept[0] if swept else "model", folder / "results.png")
    for cell, status in runs:
        if status != "finished":
            print(f"{cell.notebook.stem} {cell.name}: {status}")
    if done["corpus"].nunique() > 1 and "corpus" not in swept:
        print("The runs read different texts, see the column corpus: their losses cannot be compared.")
    print(f"\n{folder / 'results.csv'}" + (" and results.png" if len(means) else ""))


def draw(means: pandas.DataFrame, x: str, path: Path) -> None:
    """Mean, standard deviation and n over `x`, a line for each combination of the rest."""
    figure, axes = new_figure()
    values, numbers = list(dict.fromkeys(means[x])), means[x].dtype.kind in "iuf"
    rest = [name for name in means.columns[:-3] if name != x and means[name].nunique() > 1 and (name, x) != ("notebook", "model")]
    for series, part in means.groupby(rest, sort=False) if rest else [((), means)]:
        part = part.sort_values(x) if numbers else part
        at = part[x] if numbers else part[x].map(values.index)
        label = ", ".join(f"{name} {value}" for name, value in zip(rest, series, strict=True))
        axes.errorbar(at, part["mean"], part["std"].fillna(0), fmt="o" if x == "model" else "o-", capsize=4, markersize=4, label=label)
        if means["n"].nunique() > 1:                    # some runs failed, or have yet to come
            for place, mean, n in zip(at, part["mean"], part["n"], strict=True):
                axes.annotate(f"n = {n}", (place, mean), xytext=(6, 4), textcoords="offset points", fontsize=8)
    if numbers and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
    axes.set_xticks(values if numbers else range(len(values)), [f"{v:g}" if numbers else str(v) for v in values])
    axes.minorticks_off()
    n = means["n"].iloc[0] if means["n"].nunique() == 1 else "as marked"
    axes.set(xlabel=x.replace("_", " "), ylabel="validation loss (nats per token)", title=f"mean and standard deviation, n = {n}")
    if rest:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Description": f"Validation loss:\n{means.to_string(index=False)}"})
