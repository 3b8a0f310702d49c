"""Committed measurements are complete, and the numbers of docs/results.md follow from them.

conftest.py names the measurements that are out of date.
"""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from gptlib.classroom.measured import GROUPS, Measurement, finding
from gptlib.config import TrainConfig
from gptlib.corpora.scaling import ScalingLaw, fit
from gptlib.model import causality_gap
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

ROOT = Path(__file__).parents[1]
RESULTS_PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")


def read(name):
    return json.loads((ROOT / f"benchmarks/{name}.json").read_text(encoding="utf-8"))


RECIPE, WEIGHTING, ROLLING, THEATRE = map(
    read, ["recipe", "time_weighting", "context_rolling", "theatre"])
RESULTS = {path.stem: read(path.stem) for path in sorted((ROOT / "benchmarks").glob("*.json"))}


def mean_and_std(values, digits=3, sign="+"):
    """Return mean and standard deviation as the page of results writes them."""
    mean, std = np.mean(values), np.std(values, ddof=1)
    return f"{mean:{sign}.{digits}f} ± {std:.{digits}f}".replace("-", "−")


@pytest.mark.parametrize("name", RESULTS)
def test_a_measurement_says_where_when_and_with_which_code_it_was_made(name):
    assert {"date", "revision", "code", "machine"} <= set(RESULTS[name])


def test_a_measurement_on_a_corpus_names_the_corpus():
    assert RECIPE["corpus"] == WEIGHTING["corpus"] == ROLLING["corpus"] == "tinyshakespeare"
    for measured in (RECIPE, WEIGHTING, ROLLING, THEATRE):
        assert {"measures", "corpus_sha256", "torch"} <= set(measured)


# Chapter 4's recipe -------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", RECIPE["arms"], ids=lambda arm: arm["arm"])
def test_mean_and_deviation_of_an_arm_are_those_of_its_runs(arm):
    losses = [run["val_loss"] for run in arm["runs"]]
    seeds = {run["seed"] for run in arm["runs"]}
    assert len(seeds) == len(losses) >= 3
    assert arm["mean"] == pytest.approx(statistics.mean(losses), abs=1e-9)
    assert arm["std"] == pytest.approx(statistics.stdev(losses), abs=1e-9)


@pytest.mark.parametrize("arm", RECIPE["arms"], ids=lambda arm: arm["arm"])
def test_the_configs_of_an_arm_exist_in_this_library(arm):
    VariantConfig(**arm["model"])
    TrainConfig(**arm["training"])


def test_the_first_arm_is_chapter_4_itself():
    arm = RECIPE["arms"][0]
    assert VariantConfig(**arm["model"]) == VariantConfig(vocab_size=65)
    # The number of evaluations does not change what is learned.
    training = arm["training"] | {"eval_interval": TrainConfig().eval_interval}
    assert TrainConfig(**training) == TrainConfig()


# Time-weighting -----------------------------------------------------------------------------------


def losses(attention, position="learned", token_shift=False, steps=2000):
    """Return the last validation losses of an arm on tinyshakespeare, by seed."""
    arm = {"attention": attention, "position": position, "token_shift": token_shift,
           "steps": steps, "corpus": "tinyshakespeare"}
    runs = [run for run in WEIGHTING["runs"] if arm.items() <= run.items()]
    runs.sort(key=lambda run: run["seed"])
    return np.array([run["curve"][-1]["val_loss"] for run in runs])


def cost_ratios(attention):
    """Return the cost of a step relative to plain attention, for each of the four groups."""
    cost = {(row["attention"], row["position"], row["token_shift"]): row["ms_per_step"]
            for row in WEIGHTING["cost"]}
    return np.array([cost[attention, position, shift] / cost["plain", position, shift]
                     for position in ("learned", "none") for shift in (False, True)])


def at_equal_time(attention, position="learned", token_shift=False, cost_error=0.0):
    """Return an arm's losses minus those of plain attention after the CPU time of the arm.

    The losses of plain attention are interpolated on a logarithmic scale between 2,000 and 3,000
    steps. The cost ratio is pooled over the groups.
    """
    ratio = cost_ratios(attention).mean() * (1 + cost_error)
    share = np.log(ratio) / np.log(1.5)
    short = losses("plain", position, token_shift)
    long = losses("plain", position, token_shift, steps=3000)
    return losses(attention, position, token_shift) - (short + share * (long - short))


WEIGHTING_DIFFERENCES = {
    "time-weighted": losses("time_weighted") - losses("plain"),
    "Toeplitz": losses("toeplitz") - losses("plain"),
    "relative bias": losses("relative_bias") - losses("plain"),
    "time-weighted, at equal time": at_equal_time("time_weighted"),
    "Toeplitz, at equal time": at_equal_time("toeplitz"),
    "time-weighted, at equal time, 10 % cheaper": at_equal_time("time_weighted", cost_error=-0.1),
    "Toeplitz, at equal time, 10 % cheaper": at_equal_time("toeplitz", cost_error=-0.1),
    "Toeplitz against relative bias": losses("toeplitz") - losses("relative_bias"),
    "token shift": losses("plain", token_shift=True) - losses("plain"),
    "time-weighted and token shift":
        losses("time_weighted", token_shift=True) - losses("plain"),
    "time-weighted, both with token shift":
        losses("time_weighted", token_shift=True) - losses("plain", token_shift=True),
    "Toeplitz without positions": losses("toeplitz", "none") - losses("toeplitz"),
    "time-weighted without positions":
        losses("time_weighted", "none") - losses("time_weighted"),
    "token shift without positions":
        losses("plain", "none", token_shift=True) - losses("plain", token_shift=True),
}


@pytest.mark.parametrize("difference", WEIGHTING_DIFFERENCES.values(), ids=WEIGHTING_DIFFERENCES)
def test_the_page_of_results_states_the_measured_difference_by_time_weighting(difference):
    assert mean_and_std(difference) in RESULTS_PAGE


@pytest.mark.parametrize("attention", ["time_weighted", "toeplitz"])
def test_the_page_of_results_states_the_pooled_cost_ratio_with_its_spread(attention):
    assert mean_and_std(cost_ratios(attention), digits=2, sign="") in RESULTS_PAGE


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("attention", ["time_weighted", "toeplitz", "relative_bias"])
def test_chapter_6_compares_at_equal_time_as_these_tests_do(attention, group):
    measured = Measurement(ROOT / "benchmarks/time_weighting.json")
    for cost_error in (-0.1, 0.0, 0.1):
        np.testing.assert_allclose(
            measured.at_equal_time(attention, *group, cost_error=cost_error),
            at_equal_time(attention, *group, cost_error=cost_error))


def test_excess_by_kind_has_a_row_for_each_seed():
    kinds, excess = Measurement().excess_by_kind("toeplitz", "none")
    assert kinds[-1] == "fact" and excess.shape == (3, len(kinds))


def test_an_arm_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match="steps=7 should be one of 2000"):
        Measurement().runs("plain", steps=7)


@pytest.mark.parametrize(("differences", "expected"), [
    ([0.3, 0.2, 0.25], "higher"),
    ([-0.3, -0.2, -0.25], "lower"),
    ([-0.3, 0.2, -0.25], "no clear difference"),
    ([0.0, 0.0, 0.0], "no clear difference"),
])
def test_a_difference_is_clear_beyond_two_standard_deviations(differences, expected):
    assert finding(np.array(differences)) == expected


# Context rolling ----------------------------------------------------------------------------------


def rolling_runs(corpus, arm):
    return [run for run in ROLLING["text"]["runs"] if (run["corpus"], run["arm"]) == (corpus, arm)]


def losses_after_a_window(corpus, arm):
    """Return the mean loss of a memory in all windows but the first of each text, by seed."""
    return np.array([np.mean(run["by_context"]["real"]) for run in rolling_runs(corpus, arm)])


def gains(corpus, arm):
    """Return by how many nats per character a memory lowers the loss, by seed."""
    return losses_after_a_window(corpus, "no memory") - losses_after_a_window(corpus, arm)


def losses_with_real_characters(corpus):
    """Return the loss of plain attention for each number of real characters before the window."""
    runs = [run["by_real_tokens"] for run in rolling_runs(corpus, "attention over 64")]
    losses = [[np.mean(by_position) for by_position in run.values()] for run in runs]
    return [float(number) for number in runs[0]], np.mean(losses, axis=0)


def worth_in_real_characters(corpus, arm):
    """Return how many real characters before the window gain as much as a memory, by seed.

    The gains of real characters are interpolated between the measured numbers of characters.
    """
    numbers, losses = losses_with_real_characters(corpus)
    return np.interp(gains(corpus, arm), losses[0] - losses, numbers)


def learned(arm):
    """Return in how many seeds the courier was learned, as the page of results writes it.

    It is learned if the loss of answers about the window before is below half of ln 8.
    """
    scores = [run["scores"]["one back"] for run in ROLLING["courier"]["runs"] if run["arm"] == arm]
    return f"{sum(score < np.log(8) / 2 for score in scores)} of {len(scores)}"


@pytest.mark.parametrize("arm", ["mean", "memory token"])
def test_the_page_of_results_states_the_measured_gain_by_a_memory(arm):
    assert mean_and_std(gains("tinyshakespeare", arm), sign="") in RESULTS_PAGE


@pytest.mark.parametrize("arm", ["mean", "memory token"])
def test_the_page_of_results_states_the_range_over_seeds_of_the_worth_of_a_memory(arm):
    worth = worth_in_real_characters("theatre", arm)
    assert f"it is worth {min(worth):.1f} to {max(worth):.1f} real characters" in RESULTS_PAGE


def test_a_worth_is_stated_only_where_real_characters_beat_no_memory():
    for corpus, is_stated in (("theatre", True), ("tinyshakespeare", False)):
        _, losses = losses_with_real_characters(corpus)
        no_memory = losses_after_a_window(corpus, "no memory").mean()
        assert (losses[-1] < no_memory) == is_stated
    sentence = f"({losses[-1]:.3f}) is worse there than rolling without a memory ({no_memory:.3f})"
    assert sentence in RESULTS_PAGE


def test_the_page_of_results_states_the_size_of_the_models_that_were_measured():
    text = ROLLING["text"]
    assert text["window"] * text["windows"] == 256 and text["window"] == 32
    n_read = text["training"]["max_steps"] * text["training"]["batch_size"] * 256
    assert "256 out of 32" in RESULTS_PAGE
    assert f"{n_read / 1e6:.1f} million characters" in RESULTS_PAGE


@pytest.mark.parametrize("arm", ["memory token", "attention over 64", "attention over 256"])
def test_the_page_of_results_states_the_measured_losses_on_the_whole_split(arm):
    losses = [run["val_loss"] for run in rolling_runs("tinyshakespeare", arm)]
    assert mean_and_std(losses, sign="") in RESULTS_PAGE


@pytest.mark.parametrize("arm, sentence", [
    ("mean, detached", "{} seeds without this gradient"),
    ("mean", "{} seeds with it"),
    ("memory token", "a memory token in {}"),
    ("mean, GPT-2's initial weights", "GPT-2's initial weights in {}"),
])
def test_the_page_of_results_states_in_how_many_seeds_the_courier_was_learned(arm, sentence):
    assert sentence.format(learned(arm)) in RESULTS_PAGE


# The Little Theatre -------------------------------------------------------------------------------

each_level = pytest.mark.parametrize(
    "level", THEATRE["results"], ids=lambda level: f"level {level['level']}")


@each_level
def test_the_gate_of_the_theatre_is_passed_with_every_seed(level):
    runs = level["runs"]
    assert level["passed"] and len({run["seed"] for run in runs}) == 3
    assert max(run["gap_per_character"] for run in runs) < level["gate"]
    assert max(run["seconds"] for run in runs) <= 180


@each_level
def test_the_page_of_results_states_the_measured_gap_above_the_floor(level):
    gaps = [run["gap_per_character"] for run in level["runs"]]
    assert level["mean"] == pytest.approx(statistics.mean(gaps))
    assert mean_and_std(gaps, 4, "") in RESULTS_PAGE


# Speed --------------------------------------------------------------------------------------------


def test_the_steps_to_a_target_are_interpolated_over_the_logarithm_of_the_steps(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from speed import steps_to_target
    curve = [(100, 3.0), (400, 2.0), (1600, 1.0)]           # four times the steps gain 1 nat
    assert steps_to_target(curve, 2.5) == pytest.approx(200)
    assert steps_to_target(curve, 1.0) == pytest.approx(1600)
    assert steps_to_target(curve, 3.5) == 100
    assert steps_to_target(curve, 0.5) == np.inf


SPEED = RESULTS["speed"]
SPEED_LOG = (ROOT / "docs/speed_log.md").read_text(encoding="utf-8")
FAST_AT_300 = np.array([
    run["val_loss"] for part in SPEED["ladder"][-1]["runs"] if part["steps"] == 300
    for run in part["runs"]])


@pytest.mark.parametrize("row", SPEED["ladder"], ids=lambda row: row["rung"])
def test_the_log_of_speed_states_the_measured_steps_of_each_recipe(row):
    assert len(row["steps_to_target"]) == 3
    assert f"| {row['rung']} | {mean_and_std(row['steps_to_target'], 0, '')} | " in SPEED_LOG


@pytest.mark.parametrize("row", SPEED["ladder"][1:], ids=lambda row: row["rung"])
def test_some_run_of_a_recipe_ends_above_the_target_and_its_longest_below(row):
    last = [[run["val_loss"] for run in part["runs"]] for part in row["runs"]]
    assert max(last[0]) > SPEED["target"] >= max(last[-1])


@pytest.mark.parametrize("row", SPEED["without"], ids=lambda row: row["without"])
def test_the_log_of_speed_states_what_each_change_gains(row):
    differences = np.array([run["val_loss"] for run in row["runs"]]) - FAST_AT_300
    stated = f"{mean_and_std(differences, 4)} ({finding(differences)})"
    assert f"| {row['without']} | {stated} |" in SPEED_LOG


@pytest.mark.parametrize("row", SPEED["learning_rates"],
                         ids=lambda row: f"{row['optimizer']} {row['learning_rate']}")
def test_the_log_of_speed_states_the_losses_of_each_learning_rate(row):
    losses = [run["val_loss"] for run in row["runs"]]
    assert (f"| {row['optimizer']} | {row['learning_rate']} | {mean_and_std(losses, sign='')} |"
            in SPEED_LOG)


def test_the_pages_state_the_race_and_all_its_runs_reach_the_target():
    race = SPEED["race"]
    assert all(row["val_loss"] <= SPEED["target"] for row in race["rounds"])
    for page in (SPEED_LOG, RESULTS_PAGE):
        assert f"{race['share_of_nanogpt_seconds']:.2f} of nanoGPT's seconds" in page
        assert f"{race['steps']} steps" in page


# Data ---------------------------------------------------------------------------------------------


DATA = RESULTS["data"]


@pytest.mark.parametrize("row", [*DATA["scaling"]["fitted"], *DATA["scaling"]["not_fitted"]],
                         ids=lambda row: f"{row['size']}, {row['amount']}")
def test_each_size_was_trained_with_three_seeds_on_text_read_once(row):
    assert len(row["losses"]) == 3
    assert row["tokens"] == pytest.approx(row["amount"], rel=0.01)


def test_the_law_is_fitted_to_the_mean_losses_and_predicts_the_others():
    scaling = DATA["scaling"]
    fitted = scaling["fitted"]
    law = fit([row["parameters"] for row in fitted], [row["tokens"] for row in fitted],
              [statistics.mean(row["losses"]) for row in fitted])
    assert law.loss(1e6, 1e6) == pytest.approx(ScalingLaw(**scaling["law"]).loss(1e6, 1e6))
    for row in scaling["not_fitted"]:
        assert row["parameters"] > fitted[-1]["parameters"] or row["tokens"] > fitted[-1]["tokens"]
        assert row["predicted"] == pytest.approx(law.loss(row["parameters"], row["tokens"]))
        assert row["error"] == pytest.approx(row["predicted"] - statistics.mean(row["losses"]))


@pytest.mark.parametrize("run", DATA["epochs"], ids=lambda r: f"{r['amount']}, seed {r['seed']}")
def test_the_best_epoch_is_that_of_the_lowest_loss(run):
    best = min(run["curve"], key=lambda row: row["val_loss"])
    assert run["best_loss"] == best["val_loss"]
    tokens_per_step = DATA["training"]["batch_size"] * DATA["model"]["block_size"]
    assert run["best_epochs"] == pytest.approx(best["step"] * tokens_per_step / run["amount"])


def test_a_gigabyte_was_prepared_and_read_within_a_gibibyte():
    gigabyte = DATA["gigabyte"]
    assert gigabyte["bytes"] == 10 ** 9
    assert gigabyte["preparing"]["peak_bytes"] <= 2 ** 30
    assert gigabyte["training"]["peak_bytes"] <= 2 ** 30


# The published systems ----------------------------------------------------------------------------

PUBLISHED = RESULTS["published"]
PUBLISHED_RUNS = {run["run"]: run for run in PUBLISHED["runs"]}
CLAIMS = [(run, claim) for run in PUBLISHED["runs"] for claim in run["claims"]]
each_claim = pytest.mark.parametrize(
    ("run", "claim"), CLAIMS, ids=[claim["system"] for _, claim in CLAIMS])


def reached_after(run, claim):
    """Return what the page of results says about a claim in its last column."""
    measure = "train_loss" if claim["measure"] == "train_loss" else "val_loss"
    reached = claim["reached"]
    if reached:
        return (f"{reached['tokens'] / 1e6:.2f} M tokens, {reached['seconds'] / 60:.0f} minutes "
                f"({reached[measure]:.4f})")
    last = [row for row in run["curve"] if row[measure] is not None][-1]
    verdict = "no loss was published" if claim["loss"] is None else "not reached"
    return (f"{verdict}: {last[measure]:.4f} after {last['tokens'] / 1e6:.2f} M tokens, "
            f"{last['seconds'] / 60:.0f} minutes")


@each_claim
def test_the_page_of_results_states_where_a_published_loss_was_reached(run, claim):
    [row] = [line for line in RESULTS_PAGE.splitlines() if f"| {claim['system']} |" in line]
    assert reached_after(run, claim) in row


@each_claim
def test_no_published_loss_is_reached_by_a_larger_model(run, claim):
    if claim["loss"] is not None:
        assert run["parameters"] <= claim["parameters"]


@each_claim
def test_a_published_loss_is_reached_at_the_first_row_of_the_curve_that_is_not_above_it(
    run, claim
):
    if claim["loss"] is not None:
        rows = [row for row in run["curve"] if row[claim["measure"]] is not None]
        first = next((row for row in rows if row[claim["measure"]] <= claim["loss"]), None)
        assert claim["reached"] == first


@pytest.mark.parametrize("run", PUBLISHED_RUNS.values(), ids=PUBLISHED_RUNS)
def test_a_run_took_at_most_an_hour_and_says_whether_it_is_finished(run):
    assert run["seconds"] <= 3660
    assert run["finished"] == (run["steps"] == run["training"]["max_steps"])
    assert run["curve"][-1]["step"] == run["steps"]


@pytest.mark.parametrize("run", PUBLISHED_RUNS.values(), ids=PUBLISHED_RUNS)
def test_no_model_of_these_runs_sees_the_future(run):
    torch.manual_seed(0)
    model = make_model(VariantConfig(**run["model"]))
    for weight in model.parameters():
        # Some layers start at zero, and a leak in them would not be seen.
        torch.nn.init.normal_(weight, std=0.1)
    idx = torch.randint(3, (1, model.block_size))
    for position in (1, model.block_size // 2, model.block_size - 1):
        assert causality_gap(model.eval(), idx, position) == 0
