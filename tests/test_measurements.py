"""Committed measurements are whole, and their means are those of their runs. (The conftest says which are out of date.)"""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from gptlib.config import GPTConfig, TrainConfig

ROOT = Path(__file__).parents[1]
RECIPE, WEIGHTING, ROLLING, THEATRE = (json.loads((ROOT / f"benchmarks/{name}.json").read_text(encoding="utf-8"))
                                       for name in ("recipe", "time_weighting", "context_rolling", "theatre"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_says_what_was_measured_where_and_when():
    assert RECIPE["corpus"] == "tinyshakespeare"
    assert {"measures", "corpus_sha256", "date", "revision", "code", "machine", "torch"} <= set(RECIPE)


@pytest.mark.parametrize("arm", RECIPE["arms"], ids=lambda arm: arm["arm"])
def test_means_and_spreads_are_those_of_the_runs(arm):
    losses = [run["val_loss"] for run in arm["runs"]]
    assert len({run["seed"] for run in arm["runs"]}) == len(losses) >= 3
    assert arm["mean"] == pytest.approx(statistics.mean(losses), abs=1e-9)
    assert arm["std"] == pytest.approx(statistics.stdev(losses), abs=1e-9)
    GPTConfig(**arm["model"]), TrainConfig(**arm["training"])


def test_the_first_arm_is_what_the_chapter_runs():
    arm = RECIPE["arms"][0]
    assert GPTConfig(**arm["model"]) == GPTConfig(vocab_size=65)
    assert TrainConfig(**arm["training"] | {"eval_interval": TrainConfig().eval_interval}) == TrainConfig()


# What README says of them -----------------------------------------------------------------------------------------------

def pm(values, digits=3, sign="+"):
    """Mean and standard deviation as README writes them."""
    return f"{np.mean(values):{sign}.{digits}f} ± {np.std(values, ddof=1):.{digits}f}".replace("-", "−")


def losses(attention, position="learned", shift=False, steps=2000):
    runs = [run for run in WEIGHTING["runs"] if (run["attention"], run["position"], run["token_shift"], run["steps"], run["corpus"]) == (
        attention, position, shift, steps, "tinyshakespeare")]
    return np.array([run["curve"][-1]["val_loss"] for run in sorted(runs, key=lambda run: run["seed"])])


def for_the_time_of(attention):
    """Plain attention's losses at the steps that the arm's CPU time pays for, between 2,000 and 3,000 on a log scale."""
    cost = {row["attention"]: row["ms_per_step"] for row in WEIGHTING["cost"] if row["position"] == "learned" and not row["token_shift"]}
    share = np.log(cost[attention] / cost["plain"]) / np.log(1.5)
    return losses("plain") + share * (losses("plain", steps=3000) - losses("plain"))


@pytest.mark.parametrize("said", [
    pm(losses("time_weighted") - losses("plain")), pm(losses("toeplitz") - losses("plain")), pm(losses("relative_bias") - losses("plain")),
    pm(losses("time_weighted") - for_the_time_of("time_weighted")), pm(losses("toeplitz") - for_the_time_of("toeplitz")),
    pm(losses("plain", shift=True) - losses("plain")), pm(losses("time_weighted", shift=True) - losses("plain")),
    pm(losses("time_weighted", shift=True) - losses("plain", shift=True)),
    pm(losses("toeplitz", "none") - losses("toeplitz")), pm(losses("time_weighted", "none") - losses("time_weighted")),
    pm(losses("plain", "none", shift=True) - losses("plain", shift=True))])
def test_readme_says_what_time_weighting_did(said):
    assert said in README


def gains(corpus, arm):
    """Nats per character that a memory saves against none, by seed."""
    of = lambda name: np.array([np.mean(run["by_context"]["real"]) for run in ROLLING["text"]["runs"]
                                if (run["corpus"], run["arm"]) == (corpus, name)])
    return of("no memory") - of(arm)


def worth(corpus, arm):
    """How many real characters before the window save as much, by straight lines between those that were measured."""
    runs = [run["by_real_tokens"] for run in ROLLING["text"]["runs"] if run["corpus"] == corpus and "by_real_tokens" in run]
    real = np.array([[np.mean(by_place) for by_place in run.values()] for run in runs]).mean(0)
    return np.interp(gains(corpus, arm).mean(), real[0] - real, [float(r) for r in runs[0]])


@pytest.mark.parametrize("said", [
    pm(gains("tinyshakespeare", "mean"), sign=""), pm(gains("tinyshakespeare", "memory token"), sign=""),
    *(f"{worth(corpus, 'mean'):.1f} and {worth(corpus, 'memory token'):.1f}" for corpus in ("tinyshakespeare", "theatre")),
    *(pm([run["scores"]["one back"] for run in ROLLING["courier"]["runs"] if run["arm"] == arm], 2, "")
      for arm in ("mean", "mean, detached", "memory token"))])
def test_readme_says_what_context_rolling_did(said):
    assert said in README


@pytest.mark.parametrize("level", THEATRE["results"], ids=lambda level: f"level {level['level']}")
def test_the_theatre_s_gate_was_passed_and_readme_says_by_how_much(level):
    gaps = [run["gap_per_character"] for run in level["runs"]]
    assert level["passed"] and max(gaps) < level["gate"] and max(run["seconds"] for run in level["runs"]) <= 180
    assert level["mean"] == pytest.approx(statistics.mean(gaps)) and len({run["seed"] for run in level["runs"]}) == 3
    assert pm(gaps, 4, "") in README
