"""`make bench`: every contestant runs, and the ratios are computed as the page says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench  # noqa: E402

PEERS = {
    "Training": {"transformers"},
    "Sampling": {"this course, no cache", "matrices alone", "transformers"},
    "Training a tokenizer": {"tokenizers", "rustbpe"},
    "Encoding a text": {"tiktoken", "tokenizers"},
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Run the whole comparison at toy size. Return the JSON, the page and the picture's path."""
    out = tmp_path_factory.mktemp("bench")
    program = (
        "import pathlib, sys; sys.argv = ['bench.py', '--toy']; import bench; "
        f"bench.OUT = pathlib.Path({str(out)!r}); bench.main()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", check=True)
    result = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    return result, (out / "bench.md").read_text(encoding="utf-8"), out / "bench.png"


@pytest.mark.slow
def test_every_peer_that_pip_installs_takes_part(toy):
    contests = {contest["title"]: contest for contest in toy[0]["contests"]}
    for title, names in PEERS.items():
        rows = contests[title]["rows"]
        assert {row["name"] for row in rows} == names | {bench.OURS}
        for row in rows:
            assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
            assert len(row["seconds"]) == bench.TOY.rounds and row["rate"] > 0


@pytest.mark.slow
def test_the_page_states_sizes_threads_and_dtype_and_has_a_picture(toy):
    result, page, picture = toy
    assert "float32" in page and result["machine"] in page and "toy sizes" in page
    for title, names in PEERS.items():
        assert f"## {title}" in page
        assert all(f"| {name} | " in page for name in names)
    assert picture.stat().st_size > 5000


def test_a_ratio_compares_runs_of_the_same_round():
    contest = bench.Contest("", "", "tokens", 600, {})
    seconds = {bench.OURS: [1.0, 2.0, 4.0], "other": [2.0, 6.0, 4.0]}
    ours, other = bench.result_of(contest, seconds)["rows"]
    assert ours["ratio"] == 1 and ours["rate"] == 300
    # The rounds give 2, 3 and 1.
    assert (other["ratio"], other["lowest"], other["highest"]) == (2, 1, 3)


def test_contestants_take_turns_and_the_first_round_does_not_count():
    order = []

    def run(name, times):
        return lambda: order.append(name) or times.pop(0)

    contestants = {"a": run("a", [9, 1, 2]), "b": run("b", [8, 3, 4])}
    contest = bench.Contest("", "", "tokens", 1, contestants)
    assert bench.take_turns(contest, rounds=2) == {"a": [1, 2], "b": [3, 4]}
    assert order == ["a", "b"] * 3


def test_a_path_without_a_checkout_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--nanogpt", str(tmp_path / "missing")])
    with pytest.raises(SystemExit):
        bench.main()
    assert "missing should be the folder of a checkout" in capsys.readouterr().err
