"""The records of chapter 9: the rule of significance, the files and the two tables."""

import json

import numpy as np
import pytest

from gptlib.classroom.records import (
    STUDENT_T,
    counts,
    read_records,
    records_by_seconds,
    records_by_steps,
    save_record,
    upper_bound,
)

LOSSES = [2.38, 2.39, 2.37]


@pytest.fixture
def save(tmp_path):
    """Return a function that saves a record, with some values changed."""
    def save(model="fast", **changed):
        row = {"steps": 75, "losses": LOSSES, "target": 2.4, "seconds": 3.0, "peer_seconds": 8.0}
        return save_record(tmp_path, model=model, **row | changed)
    return save


@pytest.mark.parametrize("degrees", range(1, 10))
def test_student_t_leaves_five_per_cent_above(degrees):
    # The density up to a constant. x = tan(angle) brings the whole line into a finite interval.
    angle = np.linspace(-np.pi / 2, np.pi / 2, 2_000_001)[1:-1]
    x = np.tan(angle)
    weight = (1 + x ** 2 / degrees) ** (-(degrees + 1) / 2) * (1 + x ** 2)
    above = weight[x > STUDENT_T[degrees - 1]].sum() / weight.sum()
    assert above == pytest.approx(0.05, abs=1e-4)


def test_bound_of_three_losses_by_hand():
    # The standard deviation of 1, 2 and 3 is 1.
    assert upper_bound([1.0, 2.0, 3.0]) == pytest.approx(2 + 2.920 / 3 ** 0.5)


def test_the_bound_holds_in_95_of_100_measurements():
    losses = np.random.default_rng(0).normal(2.0, 0.1, size=(4000, 3))
    share = np.mean([upper_bound(row.tolist()) >= 2.0 for row in losses])
    assert share == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("losses", "expected"), [
    (LOSSES, True),
    ([2.34, 2.39, 2.44], False),        # the mean is below 2.4, but the bound is not
    ([2.0, 2.0], False),                # two seeds
    ([2.4, 2.4, 2.4], True),            # exactly at the target
    ([2.41, 2.42, 2.41], False),
    ([2.39] * 12, True),                # more seeds than the table of t has
])
def test_what_counts(losses, expected):
    assert counts(losses, target=2.4) == expected


def test_saved_records_are_read_again(tmp_path, save):
    first, second = save("fast"), save("two words", steps=60)
    assert read_records(tmp_path) == [first, second]
    assert save("fast", steps=70) in read_records(tmp_path)


def test_records_that_count_stand_first_and_then_the_fewest_steps(save):
    rows = [save("slow", steps=300), save("lucky", steps=10, losses=[2.3, 2.39, 2.48]),
            save("fast", steps=75), save("two seeds", steps=5, losses=[2.0, 2.0])]
    lines = records_by_steps(rows).splitlines()[1:]
    assert [line.split("  ")[0] for line in lines] == ["fast", "slow", "two seeds", "lucky"]
    assert lines[0].endswith("yes") and lines[2].endswith("no: it needs 3 seeds")
    assert lines[3].endswith("no: the bound is above 2.4")


def test_table_of_seconds_shows_timed_records_that_count_by_their_share(save):
    rows = [save("slow", seconds=8.0), save("fast", seconds=2.0), save("untimed", seconds=None),
            save("no peer", peer_seconds=None), save("lucky", losses=[2.3, 2.39, 2.48])]
    lines = records_by_seconds(rows).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["fast", "slow"]
    assert lines[1].split()[-1] == "0.25"


def test_no_records_give_only_the_titles():
    assert len(records_by_steps([]).splitlines()) == len(records_by_seconds([]).splitlines()) == 1


@pytest.mark.parametrize("table", [records_by_steps, records_by_seconds])
def test_records_with_different_targets_are_not_compared(save, table):
    rows = [save("a"), save("b", target=2.5)]
    with pytest.raises(ValueError, match=r"2 targets \(2.4, 2.5\): compare records with the same"):
        table(rows)


@pytest.mark.parametrize(("changed", "message"), [
    ({"steps": 0}, "steps=0 should be at least 1"),
    ({"losses": [2.0]}, "losses has 1 losses, it should have one for each seed"),
    ({"losses": [2.0, float("nan")]}, r"losses\[1\]=nan"),
    ({"losses": 2.0}, "losses"),
    ({"target": 0.0}, "target=0.0 should be above 0.0"),
    ({"seconds": -1.0}, "seconds=-1.0 should be at least 0"),
    ({"peer_seconds": 0.0}, "peer_seconds=0.0 should be above 0.0"),
    ({"model": "a/b"}, "should be a name of one line, without slashes"),
])
def test_a_wrong_value_is_named_and_nothing_is_written(tmp_path, save, changed, message):
    with pytest.raises(ValueError, match=message):
        save(**changed)
    assert not list(tmp_path.iterdir())


def test_another_recipe_is_not_overwritten(tmp_path, save):
    save("two words")
    with pytest.raises(ValueError, match="holds the result of the model 'two words'"):
        save("two-words")
    assert [row["model"] for row in read_records(tmp_path)] == ["two words"]


@pytest.mark.parametrize("content", ["", "[]", '{"model": "fast"}', "\x00"])
def test_a_damaged_file_is_named(tmp_path, save, content):
    save("fast")
    (tmp_path / "record-bad.json").write_text(content)
    with pytest.raises(ValueError, match="record-bad.json holds no record .*: delete it"):
        read_records(tmp_path)


@pytest.mark.parametrize(("changed", "message"), [
    ({"steps": -3}, "steps.*should be at least 1"),
    ({"losses": [2.0]}, "has 1 losses, it should have one for each seed"),
])
def test_a_value_that_was_changed_in_the_file_is_named(tmp_path, save, changed, message):
    row = save("fast") | changed
    (tmp_path / "record-fast.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path)
