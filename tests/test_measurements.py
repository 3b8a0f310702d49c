"""Committed measurements are whole, and their means are those of their runs. (The conftest says which are out of date.)"""

import json
import statistics
from pathlib import Path

import pytest

from gptlib.config import GPTConfig, TrainConfig

RECIPE = json.loads((Path(__file__).parents[1] / "benchmarks/recipe.json").read_text(encoding="utf-8"))


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
