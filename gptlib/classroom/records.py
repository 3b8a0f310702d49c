"""Speed records: who reaches a target loss in the fewest steps, or seconds (chapter 9).

A run can end below the target by luck. A record therefore needs at least three runs with different
seeds, and their mean must lie clearly below the target:

>>> counts([2.38, 2.39, 2.37], target=2.4)
True
>>> counts([2.34, 2.39, 2.44], target=2.4)      # the mean is lower, but it is less certain
False
"""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from gptlib.checks import (
    above,
    any_path,
    at_least,
    check_arguments,
    dict_with,
    list_of,
    optional,
    some_path,
)
from gptlib.classroom.leaderboard import name_of_model, refuse_other_model, write_row

FEWEST_SEEDS = 3
# Student's t for a one-sided bound of 95 %, for 2, 3, … 10 seeds. More seeds use the last number,
# which is a little too strict for them.
STUDENT_T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)


def several_losses(name: str, value: Sequence[float]) -> list[float]:
    """The kind of the last losses of two or more runs."""
    losses = list_of(at_least(0.0))(name, value)
    if len(losses) < 2:
        raise ValueError(f"{name} has {len(losses)} losses, it should have one for each seed")
    return losses


# What a recipe's row has, and the kind of each value.
COLUMNS = {"model": name_of_model, "steps": at_least(1), "losses": several_losses,
           "target": above(0.0), "seconds": optional(at_least(0.0)),
           "peer_seconds": optional(above(0.0))}


@check_arguments(losses=several_losses)
def upper_bound(losses: Sequence[float]) -> float:
    """Return the upper end of a one-sided confidence interval for the mean loss of a recipe.

    It is mean + t · s / √n, where s is the standard deviation of the n losses. If the losses are
    normally distributed, then in 95 of 100 such measurements the true mean lies below this number.
    """
    n = len(losses)
    t = STUDENT_T[min(n, len(STUDENT_T) + 1) - 2]
    return statistics.mean(losses) + t * statistics.stdev(losses) / math.sqrt(n)


@check_arguments(losses=several_losses, target=above(0.0))
def counts(losses: Sequence[float], target: float) -> bool:
    """Return whether a recipe counts as a record: three seeds, and a mean clearly below target."""
    return len(losses) >= FEWEST_SEEDS and upper_bound(losses) <= target


@check_arguments(out_dir=any_path, **COLUMNS)
def save_record(
    out_dir: str | Path, *, model: str, steps: int, losses: Sequence[float], target: float,
    seconds: float | None = None, peer_seconds: float | None = None,
) -> dict:
    """Write a recipe's row to `out_dir`/record-<model>.json, and return the row.

    Args:
        model: the name of the recipe.
        steps: of each run.
        losses: the validation loss at the end of each run, one for each seed.
        seconds: the mean training time of a run.
        peer_seconds: the training time of the plain recipe, measured in the same minutes.

    Raises:
        ValueError: a value is wrong, or the file cannot be written.
    """
    row = {"model": model, "steps": steps, "losses": list(losses), "target": target,
           "seconds": seconds, "peer_seconds": peer_seconds}
    path = Path(out_dir) / f"record-{model.replace(' ', '-')}.json"
    refuse_other_model(path, model)
    write_row(path, row, out_dir)
    return row


@check_arguments(out_dir=some_path)
def read_records(out_dir: str | Path) -> list[dict]:
    """Return the rows in a folder. Raise a ValueError if one of its files is damaged."""
    return [read_record(path) for path in sorted(Path(out_dir).glob("record-*.json"))]


def read_record(path: Path) -> dict:
    try:
        return record_row("the row", json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} holds no record ({error}): delete it, and run it again") from None


def record_row(name: str, value: dict) -> dict:
    """The kind of a row of the tables."""
    row = dict(dict_with(*COLUMNS)(name, value))
    return row | {key: kind(f"{name}[{key!r}]", row[key]) for key, kind in COLUMNS.items()}


@check_arguments(records=list_of(record_row))
def records_by_steps(records: Sequence[dict]) -> str:
    """Return the table of records by steps. It does not depend on the machine.

    Raises:
        ValueError: the records have different targets, so their steps cannot be compared.
    """
    check_targets(records)
    lines = [f"{'recipe':<28}{'steps':>6}{'seeds':>7}{'mean loss':>11}{'at most':>9}  counts"]
    for row in sorted(records, key=lambda row: (not counts_row(row), row["steps"])):
        mean, bound = statistics.mean(row["losses"]), upper_bound(row["losses"])
        lines.append(f"{row['model']:<28}{row['steps']:>6}{len(row['losses']):>7}{mean:>11.4f}"
                     f"{bound:>9.4f}  {verdict(row)}")
    return "\n".join(lines)


@check_arguments(records=list_of(record_row))
def records_by_seconds(records: Sequence[dict]) -> str:
    """Return the table by seconds, as shares of the seconds of the plain recipe.

    It contains the records that count and that were measured beside the plain recipe.
    """
    check_targets(records)
    timed = [row for row in records
             if counts_row(row) and None not in (row["seconds"], row["peer_seconds"])]
    lines = [f"{'recipe':<28}{'seconds':>9}{'plain recipe':>14}{'share':>8}"]
    for row in sorted(timed, key=share_of_peer):
        lines.append(f"{row['model']:<28}{row['seconds']:>9.1f}{row['peer_seconds']:>14.1f}"
                     f"{share_of_peer(row):>8.2f}")
    return "\n".join(lines)


def check_targets(records: Sequence[dict]) -> None:
    targets = sorted({row["target"] for row in records})
    if len(targets) > 1:
        raise ValueError(
            f"the records have {len(targets)} targets ({', '.join(map(str, targets))}): compare "
            "records with the same target"
        )


def counts_row(row: dict) -> bool:
    return counts(row["losses"], row["target"])


def share_of_peer(row: dict) -> float:
    return row["seconds"] / row["peer_seconds"]


def verdict(row: dict) -> str:
    """Return whether a record counts, and if not, why."""
    if len(row["losses"]) < FEWEST_SEEDS:
        return f"no: it needs {FEWEST_SEEDS} seeds"
    return "yes" if counts_row(row) else f"no: the bound is above {row['target']:g}"
