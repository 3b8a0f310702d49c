"""Report a sweep: a table in results.csv, a figure in results.png, the means on the terminal."""

import json
from pathlib import Path

import matplotlib
import pandas

from gptlib.plot import new_figure

matplotlib.use("Agg")
# The columns that a run's result adds to its parameters.
MEASURED = ("model", "val_loss", "bits_per_character", "seconds", "corpus")


def report(runs: list[tuple], swept: list[str], folder: Path) -> None:
    """Write the table and the figure of a sweep.

    Args:
        runs: pairs (run, status).
        swept: the names of the swept parameters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = results_table(runs)
    table.to_csv(folder / "results.csv", index=False)
    finished = table[table["status"] == "finished"]
    means = mean_losses(finished, swept)
    (folder / "results.png").unlink(missing_ok=True)
    if len(means):
        four_digits = "{:.4f}".format
        shown = means.to_string(index=False, formatters={"mean": four_digits, "std": four_digits})
        print(f"\nValidation loss, nats per token:\n{shown}")
        draw(means, swept[0] if swept else "model", folder / "results.png")
    for run, status in runs:
        if status != "finished":
            print(f"{run.notebook.stem} {run.name}: {status}")
    if finished["corpus"].nunique() > 1 and "corpus" not in swept:
        print("The runs read different texts (see the column corpus), "
              "so their losses cannot be compared.")
    print(f"\n{folder / 'results.csv'}" + (" and results.png" if len(means) else ""))


def results_table(runs: list[tuple]) -> pandas.DataFrame:
    """Return a row for each result of each run. A run without results has a row without numbers."""
    rows = []
    for run, status in runs:
        files = sorted(run.out.glob("result-*.json")) if status == "finished" else []
        results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        for result in results or [{}]:
            measured = {key: result.get(key) for key in MEASURED}
            row = {"notebook": run.notebook.stem} | run.given | measured | {"status": status}
            rows.append(row)
    return pandas.DataFrame(rows)


def mean_losses(finished: pandas.DataFrame, swept: list[str]) -> pandas.DataFrame:
    """Return mean, standard deviation and number n of the validation losses over the seeds."""
    losses = finished.groupby(["notebook", *swept, "model"], sort=False)["val_loss"]
    means = losses.agg(["mean", "std", "count"]).reset_index()
    return means.rename(columns={"count": "n"})


def draw(means: pandas.DataFrame, x: str, path: Path) -> None:
    """Draw mean and standard deviation over `x`. Each value of the other columns gets a line."""
    figure, axes = new_figure()
    others = series_columns(means, x)
    groups = means.groupby(others, sort=False) if others else [((), means)]
    for values, series in groups:
        names = [f"{name} {value}" for name, value in zip(others, values, strict=True)]
        draw_series(axes, means, series, x, ", ".join(names))
    set_x_axis(axes, means[x])
    n = means["n"].iloc[0] if means["n"].nunique() == 1 else "as marked"
    axes.set(xlabel=x.replace("_", " "), ylabel="validation loss (nats per token)",
             title=f"mean and standard deviation, n = {n}")
    if others:
        axes.legend(frameon=False)
    description = f"Validation loss:\n{means.to_string(index=False)}"
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Description": description})


def series_columns(means: pandas.DataFrame, x: str) -> list[str]:
    """Return the columns that distinguish one line of the figure from another."""
    columns = means.columns.drop(["mean", "std", "n", x])
    if x == "model":
        columns = columns.drop("notebook")
    return [name for name in columns if means[name].nunique() > 1]


def is_numeric(column: pandas.Series) -> bool:
    return column.dtype.kind in "iuf"


def draw_series(axes, means: pandas.DataFrame, series: pandas.DataFrame, x: str,
                label: str) -> None:
    """Draw one line with error bars. Write n beside each point if n differs between points."""
    if is_numeric(means[x]):
        series = series.sort_values(x)
        positions = series[x]
    else:
        positions = series[x].map(list(dict.fromkeys(means[x])).index)
    axes.errorbar(positions, series["mean"], series["std"].fillna(0), label=label,
                  fmt="o" if x == "model" else "o-", capsize=4, markersize=4)
    if means["n"].nunique() > 1:
        for position, mean, n in zip(positions, series["mean"], series["n"], strict=True):
            axes.annotate(f"n = {n}", (position, mean), xytext=(6, 4),
                          textcoords="offset points", fontsize=8)


def set_x_axis(axes, column: pandas.Series) -> None:
    """Mark each value of `column` on the x axis. A span of a factor of 10 makes it logarithmic."""
    values = list(dict.fromkeys(column))
    if is_numeric(column):
        if min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
    else:
        axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.minorticks_off()
