"""Compare the arms of chapter 6's measurement: differences by seed, and pooled costs.

    measured = Measurement(project_dir() / "benchmarks/time_weighting.json")
    differences = measured.losses("toeplitz") - measured.losses("plain")        # one for each seed
    print(finding(differences))

An arm is a kind of attention in a group. A group is a choice of positions, and whether there is
token shift. Runs of the same seed began with the same weights and read the same batches.
"""

import json
import math
from pathlib import Path

import numpy as np

from gptlib.checks import (
    above,
    check_arguments,
    checked_value,
    dict_of,
    existing_file,
    list_of,
    optional,
)
from gptlib.config import project_dir

# Position and token shift of each group.
GROUPS = (("learned", False), ("none", False), ("learned", True), ("none", True))
CORPUS = "tinyshakespeare"


def seeds(name: str, value: np.ndarray) -> np.ndarray:
    """The kind of numbers by seed, (seeds,): two or more, so that they have a spread."""
    value = list_of(float)(name, value)
    if len(value) < 2:
        raise ValueError(f"{name}={value} should be two numbers or more, one for each seed")
    return np.array(value)


class Measurement:
    """The results of benchmarks/time_weighting.py.

    Args:
        path: of the JSON file. None means the file that is stored with the course.
    """

    @check_arguments(path=optional(str | Path))
    def __init__(self, path: str | Path | None = None):
        path = project_dir() / "benchmarks/time_weighting.json" if path is None else path
        path = existing_file("path", path)
        try:
            self.results = json.loads(path.read_text(encoding="utf-8"))
            self.steps = self.results["training"]["max_steps"]
            # Plain attention was also trained for more steps.
            self.long_steps = max(
                run["steps"] for run in self.results["runs"] if run["attention"] == "plain")
            self.costs = {
                (row["attention"], row["position"], row["token_shift"]): row["ms_per_step"]
                for row in self.results["cost"]}
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path} is not the measurement that benchmarks/time_weighting.py writes"
            ) from None

    def runs(
        self,
        attention: str,
        position: str = "learned",
        token_shift: bool = False,
        steps: int | None = None,
        corpus: str = CORPUS,
    ) -> list[dict]:
        """Return all runs of an arm, sorted by seed.

        steps=None means `self.steps`, for which every arm was trained.
        """
        arm = {"attention": attention, "position": position, "token_shift": token_shift,
               "steps": self.steps if steps is None else steps, "corpus": corpus}
        runs = [run for run in self.results["runs"] if arm.items() <= run.items()]
        if not runs:
            for name, value in arm.items():
                known = tuple(dict.fromkeys(run[name] for run in self.results["runs"]))
                checked_value(name, value, known)
            raise ValueError(f"the measurement has no run with {arm}")
        return sorted(runs, key=lambda run: run["seed"])

    def losses(self, *arm, **options) -> np.ndarray:
        """Return the last validation loss of each run of an arm, (seeds,). See `runs`."""
        return np.array([run["curve"][-1]["val_loss"] for run in self.runs(*arm, **options)])

    def excess_by_kind(self, *arm) -> tuple[list[str], np.ndarray]:
        """Return an arm's excess nats per play on the Little Theatre, by kind of dependency.

        Returns:
            the names of the kinds, and the excess, (seeds, kinds).
        """
        steps = self.results["theatre"]["training"]["max_steps"]
        by_kind = [run["gap_by_kind"] for run in self.runs(*arm, steps=steps, corpus="theatre2")]
        return list(by_kind[0]), np.array([list(gaps.values()) for gaps in by_kind])

    def scale(self) -> str:
        """Return the sizes of all models on tinyshakespeare and their training, in one line."""
        model, training = self.results["model"], self.results["training"]
        sizes = [run["parameters"] for run in self.results["runs"] if run["corpus"] == CORPUS]
        return (f"{min(sizes):,} to {max(sizes):,} parameters, {model['n_layer']} layers, "
                f"{self.steps:,} steps × {training['batch_size']} windows × "
                f"{model['block_size']} characters, learning rate {training['learning_rate']}")

    def cost_ratios(self, attention: str) -> np.ndarray:
        """Return the cost of a step divided by that of plain attention, for each group, (4,).

        The pooled cost ratio is their mean. Their standard deviation is its spread.
        """
        known = list(dict.fromkeys(name for name, *_ in self.costs))
        checked_value("attention", attention, tuple(known))
        return np.array([self.costs[attention, *group] / self.costs["plain", *group]
                         for group in GROUPS])

    @check_arguments(cost_ratio=above(0.0))
    def plain_losses_at_cost(
        self, cost_ratio: float, position: str = "learned", token_shift: bool = False
    ) -> np.ndarray:
        """Return plain attention's losses after `cost_ratio` times the steps of the arms, (seeds,).

        They are interpolated between its shorter and its longer runs, on a logarithmic scale.
        """
        group = (position, token_shift)
        fraction = math.log(cost_ratio) / math.log(self.long_steps / self.steps)
        short = self.losses("plain", *group)
        long = self.losses("plain", *group, steps=self.long_steps)
        return short + fraction * (long - short)

    @check_arguments(cost_error=above(-1.0))
    def at_equal_time(
        self,
        attention: str,
        position: str = "learned",
        token_shift: bool = False,
        cost_error: float = 0.0,
    ) -> np.ndarray:
        """Return an arm's losses minus those of plain attention at equal CPU time, (seeds,).

        Plain attention gets more steps, by the arm's pooled cost ratio.

        Args:
            cost_error: 0.1 makes the cost ratio 10 % larger.
        """
        cost_ratio = self.cost_ratios(attention).mean() * (1 + cost_error)
        plain = self.plain_losses_at_cost(float(cost_ratio), position, token_shift)
        return self.losses(attention, position, token_shift) - plain


@check_arguments(differences=seeds)
def finding(differences: np.ndarray) -> str:
    """Return "lower", "higher" or "no clear difference" for differences by seed.

    A difference is clear if its mean is larger than two standard deviations.

    >>> finding(np.array([-0.3, -0.2, -0.25]))
    'lower'
    >>> finding(np.array([-0.3, 0.2, -0.25]))
    'no clear difference'
    """
    mean, std = differences.mean(), differences.std(ddof=1)
    if abs(mean) <= 2 * std:
        return "no clear difference"
    return "lower" if mean < 0 else "higher"


@check_arguments(differences=seeds)
def summary(differences: np.ndarray) -> str:
    """Return mean, standard deviation and finding of differences by seed.

    >>> summary(np.array([-0.3, -0.2, -0.25]))
    '-0.2500 ± 0.0500 (lower)'
    """
    mean, std = differences.mean(), differences.std(ddof=1)
    return f"{mean:+.4f} ± {std:.4f} ({finding(differences)})"


@check_arguments(losses=dict_of(str, seeds))
def ranking(losses: dict[str, np.ndarray]) -> list[str]:
    """Return a line for each arm, from the lowest mean loss to the highest.

    >>> ranking({"plain": np.array([2.0, 2.2]), "Toeplitz": np.array([1.9, 1.9])})
    ['Toeplitz     1.900 ± 0.000', 'plain        2.100 ± 0.141']
    """
    arms = sorted(losses, key=lambda arm: losses[arm].mean())
    return [f"{arm:<12} {losses[arm].mean():.3f} ± {losses[arm].std(ddof=1):.3f}" for arm in arms]


@check_arguments(position=("learned", "sinusoidal", "none"), token_shift=bool)
def group_name(position: str, token_shift: bool) -> str:
    """Return a group in words.

    >>> group_name("none", False)
    'no positions, no token shift'
    """
    positions = {"none": "no"}.get(position, position)
    return f"{positions} positions, {'with' if token_shift else 'no'} token shift"
