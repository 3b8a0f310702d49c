"""A sweep fills its table, goes on where it was stopped, and says at its place what failed. (Most of it on a chapter of three cells.)"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas
import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEXT = "text:" + "to be or not to be, that is the question. " * 40
CELLS = ["""
corpus = "auto"
learning_rate = 0.05
max_steps = 5
trouble = ""
seed = 1
out_dir = "runs/tiny"
""", """
from gptlib.config import above, at_least, check_parameters
check_parameters(globals(), corpus=str, learning_rate=above(0.0), max_steps=at_least(1), trouble=str, seed=at_least(0), out_dir=str)
""", """
import os, time
if trouble == "raise":
    raise RuntimeError("asked\\nfor")
if trouble == "die":
    os._exit(1)
import torch
from gptlib import CharTokenizer, load_corpus
from gptlib.leaderboard import save_result
text = load_corpus(corpus)
ids = torch.tensor(CharTokenizer.from_text(text.text).encode(text.text))
V = int(ids.max()) + 1
table = torch.randn(V, V, generator=torch.Generator().manual_seed(seed), requires_grad=True)
for step in range(max_steps):       # a bigram by plain gradient descent: torch's optimizers take seconds to import
    loss = torch.nn.functional.cross_entropy(table[ids[:-1]], ids[1:])
    table.data -= learning_rate * torch.autograd.grad(loss, table)[0]
save_result(out_dir, chapter="tiny", model="bigram", parameters=V * V, seconds=0.1, val_loss=float(loss), vocab_size=V, corpus=text,
            val_text=text.text, omp=os.environ.get("OMP_NUM_THREADS"))
while seed == 4 and os.path.exists(trouble):        # its result is there, but it is not at its end
    time.sleep(0.1)
"""]


def write_grid(folder, name="grid", **grid):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nb.cells[0].metadata.tags, nb.metadata.language_info = ["parameters"], {"name": "python"}
    nbformat.write(nb, folder / "tiny.ipynb")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"notebook": "tiny.ipynb", "seeds": [1, 2]} | grid), encoding="utf-8")
    return path


def command(path, *more):
    return [sys.executable, str(ROOT / "tools/sweep.py"), str(path), "--runs", str(path.parent / "runs"), "--workers", "2", *more]


def sweep(path, capsys, monkeypatch):
    """What a sweep prints and how it exits, in this process (its workers are others): that spares it to import torch."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setattr(sys, "argv", command(path)[1:])
    import sweep
    capsys.readouterr()
    try:
        sweep.main()
        return capsys.readouterr().out, None
    except SystemExit as end:
        return capsys.readouterr().out, end.code


def table(path):
    return pandas.read_csv(path.parent / "runs" / path.stem / "results.csv", keep_default_na=False, na_values=[""])


def when_run(path):
    """The moment at which each run of the grid was executed."""
    return {file.parent.parent.name: file.stat().st_mtime_ns for file in (path.parent / "runs" / path.stem).glob("*/*/tiny.ipynb")}


def wait_for(condition):
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


GRID = {"parameters": {"corpus": TEXT, "max_steps": 5, "trouble": "hold"}, "sweep": {"learning_rate": [0.01, 1]}}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Two rates, two seeds, two worker processes, and what was printed."""
    path = write_grid(tmp_path_factory.mktemp("first"), **GRID)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return path, subprocess.run(command(path), capture_output=True, text=True, timeout=200, env=environment)


@pytest.fixture
def again(first, tmp_path):
    """The same as it stands when all is done, in a folder of its own."""
    shutil.copytree(first[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / first[0].name


@pytest.mark.slow
def test_each_run_has_its_row_its_folder_and_its_place_in_the_figure(first):
    path, done = first
    assert done.returncode == 0 and "Traceback" not in done.stderr and "4 runs, 0 of them finished before" in done.stdout
    rows = table(path)
    assert list(zip(rows.learning_rate, rows.seed, strict=True)) == [(0.01, 1), (0.01, 2), (1, 1), (1, 2)]
    assert set(rows.status) == {"finished"} and set(rows.model) == {"bigram"} and rows.val_loss.nunique() == 4
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for row in rows.itertuples():
        folder = path.parent / f"runs/grid/learning_rate={float(row.learning_rate)},seed={row.seed}/tiny"
        result = json.loads((folder / "result-bigram.json").read_text(encoding="utf-8"))
        assert result["val_loss"] == row.val_loss and result["omp"] == str(max(1, cores // 2))
        assert f"tiny {folder.parent.name}: finished after" in done.stdout
    losses = rows[rows.learning_rate == 1].val_loss
    assert f"{losses.mean():.4f} {losses.std():.4f}  2" in done.stdout


@pytest.mark.slow
def test_a_second_call_runs_nothing(again, capsys, monkeypatch):
    before = when_run(again)
    out, end = sweep(again, capsys, monkeypatch)
    assert "4 runs, 4 of them finished before" in out and not end
    assert len(before) == 4 and when_run(again) == before


@pytest.mark.slow
def test_only_runs_whose_parameters_changed_run_again(again, capsys, monkeypatch):
    before, losses = when_run(again), table(again).val_loss
    write_grid(again.parent, parameters=GRID["parameters"] | {"max_steps": 6}, sweep={"learning_rate": [1]}, seeds=[1])
    assert "1 runs, 0 of them finished before" in sweep(again, capsys, monkeypatch)[0]
    after = when_run(again)
    assert [name for name in before if after[name] != before[name]] == ["learning_rate=1.0,seed=1"]
    assert table(again).val_loss[0] not in list(losses)


@pytest.mark.slow
def test_dask_workers_come_to_the_same_losses(first, tmp_path):
    from distributed import LocalCluster
    path = write_grid(tmp_path, **GRID, seeds=[2])
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        done = subprocess.run(command(path, "--scheduler", cluster.scheduler_address), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "2 workers at" in done.stdout, done.stderr
    rows = table(first[0])
    assert list(table(path).val_loss) == list(rows[rows.seed == 2].val_loss)


@pytest.mark.slow
def test_a_run_that_fails_is_told_at_its_place_and_the_others_finish(tmp_path, capsys, monkeypatch):
    path = write_grid(tmp_path, parameters={"corpus": TEXT}, sweep={"trouble": ["raise", "die", "none"]}, seeds=[1])
    out, end = sweep(path, capsys, monkeypatch)
    rows = table(path)
    assert list(rows.trouble) == ["raise", "die", "none"]
    assert rows.status[0] == "failed: RuntimeError: asked for" and rows.status[1].startswith("failed: DeadKernelError")
    assert rows.status[2] == "finished" and list(rows.val_loss.isna()) == [True, True, False]
    assert "tiny trouble=raise,seed=1: failed: RuntimeError: asked for" in out and end.startswith("2 of 3 runs have not finished")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
def test_killed_in_the_middle_it_goes_on_without_what_was_half_done(again, capsys, monkeypatch):
    hold, path = again.parent / "hold", write_grid(again.parent, **GRID | {"sweep": {"learning_rate": [1]}}, seeds=[1, 3, 4])
    hold.touch()
    folder = path.parent / "runs/grid"
    process = subprocess.Popen(command(path), start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert "3 runs, 1 of them" in process.stdout.readline() and "seed=3: finished" in process.stdout.readline()
    wait_for(lambda: (folder / "learning_rate=1.0,seed=4/tiny/result-bigram.json").is_file())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = when_run(path)
    wait_for(lambda: not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(path.parent)])     # no kernel stays behind
    hold.unlink()
    out, end = sweep(path, capsys, monkeypatch)
    assert "3 runs, 2 of them finished before" in out and not end
    after = when_run(path)
    assert [name for name in after if after[name] != before.get(name)] == ["learning_rate=1.0,seed=4"]
    assert list(table(path).status) == ["finished"] * 3


@pytest.mark.parametrize(("grid", "sentence"), [
    ({"notebok": "tiny.ipynb"}, "unknown key 'notebok': did you mean 'notebook'?"),
    ({"notebook": "04_ful_gpt"}, "no notebook '04_ful_gpt': did you mean '04_full_gpt'?"),
    ({"notebook": "missing.ipynb"}, "no notebook 'missing.ipynb'"),
    ({"notebook": 4}, "notebook should be a notebook's name, such as 04_full_gpt, or a list of them, not 4"),
    ({"seeds": 3}, "seeds should be a list, such as [1, 2, 3], not 3"),
    ({"seeds": []}, "seeds should be a list"),
    ({"seeds": [1, 1]}, "tiny with seed=1 is asked for twice"),
    ({"seeds": [-1]}, "seed=-1 should be at least 0"),
    ({"sweep": ["max_steps"]}, "sweep should be names with lists of values"),
    ({"sweep": {"max_steps": 3}}, "max_steps: a name stands once, with its value under parameters or a list under sweep"),
    ({"sweep": {"max_step": [3]}}, "unknown parameter 'max_step': did you mean 'max_steps'?"),
    ({"sweep": {"max_steps": [3, "1e3"]}}, "max_steps='1e3' is str, it should be int"),
    ({"parameters": {"learning_rte": 1.0}}, "unknown parameter 'learning_rte': did you mean 'learning_rate'?"),
    ({"parameters": {"max_steps": 3}, "sweep": {"max_steps": [3]}}, "max_steps: a name stands once"),
    ({"parameters": {"out_dir": "here"}}, "a grid sets no out_dir"),
    ({"sweep": {3: [1]}}, "3: a name stands once"),
], ids=str)
def test_a_grid_that_cannot_be_run_gets_one_sentence(grid, sentence, tmp_path, capsys, monkeypatch):
    out, end = sweep(write_grid(tmp_path, **grid), capsys, monkeypatch)
    assert sentence in end and "\n" not in end and not out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("content", "sentence"), [
    ("notebook: [", "while parsing"), ("hello", "a grid is YAML with the keys notebook"), (None, "No such file")])
def test_neither_does_a_file_that_is_none(content, sentence, tmp_path, capsys, monkeypatch):
    path = tmp_path / "grid.yaml"
    if content:
        path.write_text(content, encoding="utf-8")
    out, end = sweep(path, capsys, monkeypatch)
    assert sentence in end and "\n" not in end and not out


@pytest.mark.parametrize(("name", "runs", "swept"), [("sweep_lr", 15, ["learning_rate"]), ("sweep_chapters", 9, [])])
def test_the_course_s_grids_can_be_run(name, runs, swept, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from sweep import read_grid
    cells, names = read_grid(ROOT / f"notebooks/params/{name}.yaml", tmp_path)
    assert len(cells) == runs and names == swept and len({cell.out for cell in cells}) == runs


def test_the_figure_has_each_mean_its_bar_and_its_n(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import sweep_table
    figure, axes = sweep_table.new_figure()
    monkeypatch.setattr(sweep_table, "new_figure", lambda: (figure, axes))
    means = pandas.DataFrame({"notebook": "tiny", "learning_rate": [0.1, 0.001, 0.1], "heads": [1, 1, 2], "model": "bigram",
                              "mean": [2.0, 3.0, 2.5], "std": [0.5, 0.25, float("nan")], "n": [3, 2, 1]})
    sweep_table.draw(means, "learning_rate", tmp_path / "results.png")
    one, two = axes.containers
    assert one.lines[0].get_xydata().tolist() == [[0.001, 3], [0.1, 2]] and two.lines[0].get_xydata().tolist() == [[0.1, 2.5]]
    assert one.lines[2][0].get_segments()[0].tolist() == [[0.001, 2.75], [0.001, 3.25]]
    assert [text.get_text() for text in axes.texts] == ["n = 2", "n = 3", "n = 1"] and axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["heads 1", "heads 2"]
    assert (tmp_path / "results.png").stat().st_size > 5000
