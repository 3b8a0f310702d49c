"""A sweep fills its table, continues where it stopped, and reports failed runs.

Most tests sweep over a notebook of three cells, which takes seconds.
"""

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
import sweep
import sweep_table
import yaml

ROOT = Path(__file__).parents[1]
TEXT = "text:" + "to be or not to be, that is the question. " * 40
PARAMETERS = """
corpus = "auto"
learning_rate = 0.05
max_steps = 5
trouble = ""
seed = 1
out_dir = "runs/tiny"
"""
CHECK = """
from gptlib.config import above, at_least, check_parameters
check_parameters(globals(), corpus=str, learning_rate=above(0.0), max_steps=at_least(1),
                 trouble=str, seed=at_least(0), out_dir=str)
"""
# A bigram trained by gradient descent, without torch's optimizers, whose import takes seconds. With
# seed 4 the notebook does not end after it has written its result, as long as a file exists.
TRAINING = r"""
import os, time
if trouble == "raise":
    raise RuntimeError("asked\nfor")
if trouble == "die":
    os._exit(1)
import torch
from gptlib import CharTokenizer, load_corpus
from gptlib.classroom.leaderboard import save_result
text = load_corpus(corpus)
ids = torch.tensor(CharTokenizer.from_text(text.text).encode(text.text))
V = int(ids.max()) + 1
generator = torch.Generator().manual_seed(seed)
table = torch.randn(V, V, generator=generator, requires_grad=True)
for step in range(max_steps):
    loss = torch.nn.functional.cross_entropy(table[ids[:-1]], ids[1:])
    table.data -= learning_rate * torch.autograd.grad(loss, table)[0]
save_result(out_dir, chapter="tiny", model="bigram", parameters=V * V, seconds=0.1,
            val_loss=float(loss), vocab_size=V, corpus=text, val_text=text.text,
            omp=os.environ.get("OMP_NUM_THREADS"))
while seed == 4 and os.path.exists(trouble):
    time.sleep(0.1)
"""
GRID = {
    "parameters": {"corpus": TEXT, "max_steps": 5, "trouble": "hold"},
    "sweep": {"learning_rate": [0.01, 1]},
}


def write_grid(folder, name="grid", **grid):
    """Write the notebook and a grid for it into `folder`. Return the path of the grid."""
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, CHECK, TRAINING)]
    cells[0].metadata.tags = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, folder / "tiny.ipynb")
    path = folder / f"{name}.yaml"
    content = {"notebook": "tiny.ipynb", "seeds": [1, 2]} | grid
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def command(path, *options):
    return [sys.executable, str(ROOT / "tools/sweep.py"), str(path),
            "--runs", str(path.parent / "runs"), "--workers", "2", *options]


def run_sweep(path, capsys, monkeypatch):
    """Run a sweep in this process, which saves an import of torch. Return output and exit code."""
    monkeypatch.setattr(sys, "argv", command(path)[1:])
    capsys.readouterr()
    code = None
    try:
        sweep.main()
    except SystemExit as exit:
        code = exit.code
    return capsys.readouterr().out, code


def read_table(path):
    file = path.parent / "runs" / path.stem / "results.csv"
    return pandas.read_csv(file, keep_default_na=False, na_values=[""])


def execution_times(path):
    """Return when each run of the grid was executed, by the run's name."""
    notebooks = (path.parent / "runs" / path.stem).glob("*/*/tiny.ipynb")
    return {file.parent.parent.name: file.stat().st_mtime_ns for file in notebooks}


def changed_runs(before, after):
    """Return the names of the runs that were executed again, or for the first time."""
    return [name for name in after if after[name] != before.get(name)]


def wait_for(condition):
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def first_sweep(tmp_path_factory):
    """A sweep over two rates and two seeds in two processes: the grid's path, and the process."""
    path = write_grid(tmp_path_factory.mktemp("first"), **GRID)
    environment = dict(os.environ)
    environment.pop("OMP_NUM_THREADS", None)
    return path, subprocess.run(command(path), capture_output=True, text=True, timeout=200,
                                env=environment)


@pytest.fixture
def finished_grid(first_sweep, tmp_path):
    """The path of the grid in a copy of the folder after the first sweep."""
    path, _ = first_sweep
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / path.name


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_has_a_row_for_each_run(first_sweep):
    path, process = first_sweep
    assert process.returncode == 0 and "Traceback" not in process.stderr
    assert "4 runs, 0 of them finished before" in process.stdout
    rows = read_table(path)
    settings = list(zip(rows.learning_rate, rows.seed, strict=True))
    assert settings == [(0.01, 1), (0.01, 2), (1, 1), (1, 2)]
    assert set(rows.status) == {"finished"} and set(rows.model) == {"bigram"}
    assert rows.val_loss.nunique() == 4


@pytest.mark.slow
def test_each_run_has_a_folder_with_its_result_and_shares_the_cores(first_sweep):
    path, process = first_sweep
    for row in read_table(path).itertuples():
        name = f"learning_rate={float(row.learning_rate)},seed={row.seed}"
        file = path.parent / f"runs/grid/{name}/tiny/result-bigram.json"
        result = json.loads(file.read_text(encoding="utf-8"))
        assert result["val_loss"] == row.val_loss
        assert result["omp"] == str(max(1, sweep.CORES // 2))
        assert f"tiny {name}: finished after" in process.stdout


@pytest.mark.slow
def test_mean_deviation_and_number_of_runs_are_printed(first_sweep):
    path, process = first_sweep
    rows = read_table(path)
    losses = rows[rows.learning_rate == 1].val_loss
    assert f"{losses.mean():.4f} {losses.std():.4f}  2" in process.stdout


@pytest.mark.slow
def test_a_second_call_executes_no_run(finished_grid, capsys, monkeypatch):
    before = execution_times(finished_grid)
    output, code = run_sweep(finished_grid, capsys, monkeypatch)
    assert "4 runs, 4 of them finished before" in output and not code
    assert len(before) == 4 and execution_times(finished_grid) == before


@pytest.mark.slow
def test_only_runs_with_changed_parameters_are_executed_again(finished_grid, capsys, monkeypatch):
    before, losses = execution_times(finished_grid), read_table(finished_grid).val_loss
    write_grid(finished_grid.parent, parameters=GRID["parameters"] | {"max_steps": 6},
               sweep={"learning_rate": [1]}, seeds=[1])
    output, _ = run_sweep(finished_grid, capsys, monkeypatch)
    assert "1 runs, 0 of them finished before" in output
    changed = changed_runs(before, execution_times(finished_grid))
    assert changed == ["learning_rate=1.0,seed=1"]
    assert read_table(finished_grid).val_loss[0] not in list(losses)
    # The results of the other parameters were moved, not deleted.
    assert "they were moved to" in output
    assert len(list(finished_grid.parent.rglob("earlier/1/*/result-*.json"))) == 1


@pytest.mark.slow
def test_dask_workers_give_the_same_losses(first_sweep, tmp_path):
    from distributed import LocalCluster
    path = write_grid(tmp_path, **GRID, seeds=[2])
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True,
                      dashboard_address=None) as cluster:
        process = subprocess.run(command(path, "--scheduler", cluster.scheduler_address),
                                 capture_output=True, text=True, timeout=200)
    assert process.returncode == 0 and "2 workers at" in process.stdout, process.stderr
    rows = read_table(first_sweep[0])
    assert list(read_table(path).val_loss) == list(rows[rows.seed == 2].val_loss)


@pytest.mark.slow
def test_a_failed_run_is_reported_and_the_others_finish(tmp_path, capsys, monkeypatch):
    path = write_grid(tmp_path, parameters={"corpus": TEXT},
                      sweep={"trouble": ["raise", "die", "none"]}, seeds=[1])
    output, code = run_sweep(path, capsys, monkeypatch)
    rows = read_table(path)
    assert list(rows.trouble) == ["raise", "die", "none"]
    assert rows.status[0] == "failed: RuntimeError: asked for"
    assert rows.status[1].startswith("failed: DeadKernelError")
    assert rows.status[2] == "finished"
    assert list(rows.val_loss.isna()) == [True, True, False]
    assert "tiny trouble=raise,seed=1: failed: RuntimeError: asked for" in output
    assert code.startswith("2 of 3 runs have not finished")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="only POSIX has process groups")
def test_a_killed_sweep_executes_only_its_unfinished_runs_again(finished_grid, capsys, monkeypatch):
    folder = finished_grid.parent
    hold = folder / "hold"
    hold.touch()
    path = write_grid(folder, **GRID | {"sweep": {"learning_rate": [1]}}, seeds=[1, 3, 4])
    kill_while_seed_4_is_open(path)
    before = execution_times(path)
    # No kernel may stay alive.
    wait_for(lambda: str(folder) not in
             {process.info["cwd"] for process in psutil.process_iter(["cwd"])})
    hold.unlink()
    output, code = run_sweep(path, capsys, monkeypatch)
    assert "3 runs, 2 of them finished before" in output and not code
    assert changed_runs(before, execution_times(path)) == ["learning_rate=1.0,seed=4"]
    assert list(read_table(path).status) == ["finished"] * 3


def kill_while_seed_4_is_open(path):
    """Start a sweep. Kill it after seed 4 has written its result, but before its notebook ends."""
    process = subprocess.Popen(command(path), start_new_session=True, stdout=subprocess.PIPE,
                               text=True)
    assert "3 runs, 1 of them" in process.stdout.readline()
    assert "seed=3: finished" in process.stdout.readline()
    result = path.parent / "runs/grid/learning_rate=1.0,seed=4/tiny/result-bigram.json"
    wait_for(result.is_file)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(("recorded", "result"), [
    ("[]", "{}"), ("5", "{}"), ("{}", "{}"), ('{"parameters": {"seed": 1}}', "{}"),
    ('{"parameters": {"seed": 1}, "status": "finished"}', '{"model": "bi'),
    ('{"parameters": {"seed": 1}, "status": "finished"}', "[]"),
])
def test_a_run_with_a_damaged_record_or_result_is_not_finished(tmp_path, recorded, result):
    (tmp_path / "sweep.json").write_text(recorded, encoding="utf-8")
    (tmp_path / "result-bigram.json").write_text(result, encoding="utf-8")
    run = sweep.Run("seed=1", tmp_path / "tiny.ipynb", tmp_path, {"seed": 1}, {"seed": 1})
    assert sweep.status(run) == ""
    (tmp_path / "sweep.json").write_text('{"parameters": {"seed": 1}, "status": "finished"}')
    (tmp_path / "result-bigram.json").write_text("{}", encoding="utf-8")
    assert sweep.status(run) == "finished"


# Grids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "expected"), [
    ({"notebok": "tiny.ipynb"}, "unknown key 'notebok': did you mean 'notebook'?"),
    ({"notebook": "04_ful_gpt"}, "no notebook '04_ful_gpt': did you mean '04_full_gpt'?"),
    ({"notebook": "missing.ipynb"}, "no notebook 'missing.ipynb'"),
    ({"notebook": 4},
     "notebook should be a notebook's name, such as train, or a list of them, not 4"),
    ({"seeds": 3}, "seeds should be a list, such as [1, 2, 3], not 3"),
    ({"seeds": []}, "seeds should be a list"),
    ({"seeds": [1, 1]}, "tiny with seed=1 is asked for twice"),
    ({"seeds": [-1]}, "seed=-1 should be at least 0"),
    ({"sweep": ["max_steps"]}, "sweep should be names with lists of values"),
    ({"sweep": {"max_steps": 3}},
     "max_steps: a name stands once, with its value under parameters or a list under sweep"),
    ({"sweep": {"max_step": [3]}}, "unknown parameter 'max_step': did you mean 'max_steps'?"),
    ({"sweep": {"max_steps": [3, "1e3"]}}, "max_steps='1e3' is str, it should be int"),
    ({"parameters": {"learning_rte": 1.0}},
     "unknown parameter 'learning_rte': did you mean 'learning_rate'?"),
    ({"parameters": {"max_steps": 3}, "sweep": {"max_steps": [3]}},
     "max_steps: a name stands once"),
    ({"parameters": {"out_dir": "here"}}, "a grid sets no out_dir"),
    ({"sweep": {3: [1]}}, "3: a name stands once"),
], ids=str)
def test_a_wrong_grid_is_refused_in_one_line(grid, expected, tmp_path, capsys, monkeypatch):
    output, code = run_sweep(write_grid(tmp_path, **grid), capsys, monkeypatch)
    assert expected in code and "\n" not in code
    assert not output and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("content", "expected"), [
    ("notebook: [", "while parsing"),
    ("hello", "a grid is YAML with the keys notebook"),
    ("seeds: [1]\nnotebook: train\nseeds: [2]\n", "seeds stands there twice"),
    (None, "grid.yaml cannot be read or written (No such file"),
])
def test_a_file_that_is_no_grid_is_refused_in_one_line(content, expected, tmp_path, capsys,
                                                       monkeypatch):
    path = tmp_path / "grid.yaml"
    if content:
        path.write_text(content, encoding="utf-8")
    output, code = run_sweep(path, capsys, monkeypatch)
    assert expected in code and "\n" not in code and not output


def test_a_grid_that_is_not_utf8_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "grid.yaml"
    path.write_bytes("notebook: trän".encode("latin-1"))
    output, code = run_sweep(path, capsys, monkeypatch)
    assert code.endswith("a grid is utf-8 text, and byte 12 is not") and not output


@pytest.mark.parametrize(("name", "n_runs", "swept"), [
    ("sweep_lr", 15, ["learning_rate"]),
    ("sweep_chapters", 9, []),
])
def test_the_committed_grids_are_valid(name, n_runs, swept, tmp_path):
    runs, names = sweep.read_grid(ROOT / f"notebooks/params/{name}.yaml", tmp_path)
    assert len(runs) == n_runs and names == swept
    assert len({run.out for run in runs}) == n_runs


# The figure ---------------------------------------------------------------------------------------


def test_the_figure_shows_each_mean_with_its_deviation_and_its_n(tmp_path, monkeypatch):
    figure, axes = sweep_table.new_figure()
    monkeypatch.setattr(sweep_table, "new_figure", lambda: (figure, axes))
    means = pandas.DataFrame({
        "notebook": "tiny", "learning_rate": [0.1, 0.001, 0.1], "heads": [1, 1, 2],
        "model": "bigram", "mean": [2.0, 3.0, 2.5], "std": [0.5, 0.25, float("nan")],
        "n": [3, 2, 1]})
    sweep_table.draw(means, "learning_rate", tmp_path / "results.png")
    one_head, two_heads = axes.containers
    assert one_head.lines[0].get_xydata().tolist() == [[0.001, 3], [0.1, 2]]
    assert two_heads.lines[0].get_xydata().tolist() == [[0.1, 2.5]]
    first_bar = one_head.lines[2][0].get_segments()[0]
    assert first_bar.tolist() == [[0.001, 2.75], [0.001, 3.25]]
    assert [text.get_text() for text in axes.texts] == ["n = 2", "n = 3", "n = 1"]
    assert axes.get_xscale() == "log"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["heads 1", "heads 2"]
    assert (tmp_path / "results.png").stat().st_size > 5000


# Bad command lines and notebooks of other programs -----------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("metadata", [
    {}, {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    {"kernelspec": {"name": "my-environment", "display_name": "mine"}},
], ids=["none", "no language", "another kernel"])
def test_a_notebook_without_a_language_or_kernel_is_run_as_python(metadata, tmp_path):
    path = write_grid(tmp_path, parameters={"corpus": TEXT}, seeds=[1])
    notebook = nbformat.read(tmp_path / "tiny.ipynb", as_version=4)
    notebook.metadata = nbformat.from_dict(metadata)
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    runs, _ = sweep.read_grid(path, tmp_path / "runs")
    sweep.prepare(runs[0])
    assert sweep.execute(runs[0]).startswith("finished after")


@pytest.mark.parametrize(("arguments", "fragment"), [
    ([], "grid"), (["grid.yaml", "--workers", "0"], "--workers 0 should be at least 1"),
    (["grid.yaml", "--workers", "two"], "--workers"), (["grid.yaml", "--seeds"], "--seeds"),
], ids=str)
def test_a_bad_command_line_gives_one_sentence(arguments, fragment, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
    with pytest.raises(SystemExit) as end:
        sweep.main()
    assert end.value.code.startswith("sweep.py: ") and fragment in end.value.code
    assert capsys.readouterr().err == ""
