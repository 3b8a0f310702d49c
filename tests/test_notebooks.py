"""Every chapter keeps the conventions it is committed under, and runs through papermill with its smoke parameters."""

import ast
import json
import math
import re
from dataclasses import MISSING, fields
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from gptlib.config import GPTConfig, TrainConfig

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SMOKE = yaml.safe_load((ROOT / "notebooks/params/smoke.yaml").read_text(encoding="utf-8"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def parameters(notebook):
    """The names and values in the cell tagged `parameters`, which holds plain literals only."""
    cell, = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}


@each_chapter
def test_it_is_valid_and_committed_as_one_fresh_run(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@each_chapter
def test_outputs_hold_no_error_no_stderr_and_no_path_of_a_machine(path):
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr", cell.id
        seen = cell.source + json.dumps(cell.get("outputs", []))
        assert not re.search(r"/(?:home|root|tmp|work|Users|private)/|\b[A-Z]:\\+(?:Users|Temp|Windows)", seen), cell.id


@each_chapter
def test_every_picture_says_what_it_shows_and_none_is_hot_linked(path):
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 20, cell.id
        assert not re.search(r"!\[\s*\]\(|!\[[^\]]*\]\(https?:|<img[^>]+src=.https?:|<img(?![^>]*alt=)", cell.source), cell.id


@each_chapter
def test_papermill_sees_every_parameter_and_the_next_cell_checks_them(path):
    notebook = read(path)
    declared = parameters(notebook)
    assert set(papermill.inspect_notebook(path)) == set(declared)
    assert set(SMOKE[path.stem]) <= set(declared)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "parameters" in code[0].metadata.tags and "check_parameters(globals()" in code[1].source


@each_chapter
def test_some_cells_are_checked_by_nbval_and_have_an_output_to_check(path):
    checked = [cell for cell in read(path).cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(checked) >= 3
    assert all(cell.outputs for cell in checked)


def test_chapter_4_teaches_the_library_s_defaults():
    declared = parameters(read(ROOT / "notebooks/04_full_gpt.ipynb"))
    defaults = {f.name: f.default for config in (GPTConfig, TrainConfig) for f in fields(config) if f.default is not MISSING}
    assert {name: declared[name] for name in defaults} == defaults


@each_chapter
@pytest.mark.slow
def test_it_runs_with_its_smoke_parameters_and_leaves_its_artefacts(path, tmp_path):
    execute(path, tmp_path, **SMOKE[path.stem] | {"out_dir": str(tmp_path / path.stem)})
    results = [json.loads(file.read_text(encoding="utf-8")) for file in (tmp_path / path.stem).glob("result-*.json")]
    assert results
    for row in results:
        assert row["chapter"] == path.stem and row["parameters"] > 0
        assert 0 < row["val_loss"] < 2 * math.log(row["vocab_size"])


@pytest.mark.slow
def test_chapter_4_leaves_a_model_its_metrics_and_a_sample(tmp_path):
    out = tmp_path / "run"
    execute(ROOT / "notebooks/04_full_gpt.ipynb", tmp_path, **SMOKE["04_full_gpt"] | {
        "corpus": "text:" + "to be or not to be, that is the question. " * 100, "prompt": "to be", "sample_tokens": 40,
        "tokenizer": "lowercase", "tie_weights": True, "position": "none", "bias": True, "dropout": 0.1, "out_dir": str(out)})
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == [0, 10, 20]
    assert {"best.safetensors", "last.safetensors", "best.json", "last.json"} <= {file.name for file in out.iterdir()}
    assert (out / "sample.txt").read_text(encoding="utf-8").startswith("to be")


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "sentence"), [
    ({"n_embed": 32}, "did you mean 'n_embd'"),
    ({"n_embd": 30, "n_head": 4}, "n_embd=30 should be a multiple of n_head=4"),
    ({"corpus": "tinyshakespear"}, "did you mean 'tinyshakespeare'"),
    ({"corpus": "text:too short"}, "too few for windows of block_size=16"),
    ({"prompt": "∞"}, "character '∞' (U+221E)"),
], ids=str)
def test_a_wrong_parameter_stops_chapter_4_before_it_trains(wrong, sentence, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as stopped:
        execute(ROOT / "notebooks/04_full_gpt.ipynb", tmp_path, **SMOKE["04_full_gpt"] | {"out_dir": str(tmp_path / "run")} | wrong)
    assert sentence in stopped.value.evalue
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"memory": "mean", "block_size": 32, "window": 8}, {"attention": "time_weighted", "token_shift": True}],
                         ids=["rolling", "time-weighted"])
def test_chapter_4_takes_the_models_of_later_chapters(how, tmp_path):
    execute(ROOT / "notebooks/04_full_gpt.ipynb", tmp_path, **SMOKE["04_full_gpt"] | {"out_dir": str(tmp_path / "run")} | how)
    saved = json.loads((tmp_path / "run/best.json").read_text(encoding="utf-8"))["config"]
    assert how.items() <= saved.items()


def execute(path, folder, **values):
    papermill.execute_notebook(path, folder / path.name, parameters=values, cwd=path.parent, kernel_name="python3",
                               progress_bar=False, log_output=False, execution_timeout=300, start_timeout=120)
