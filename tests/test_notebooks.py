"""Every chapter follows the conventions of notebooks, and the train page can do what it says.

`make test` also calls nbval, which runs every notebook with its smoke parameters (conftest.py).
"""

import ast
import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import nbclient
import nbformat
import papermill
import pytest
import yaml
from jupyter_client import AsyncKernelManager

from gptlib.config import GPTConfig, TrainConfig
from gptlib.variants.config import VariantConfig

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
TRAIN = ROOT / "notebooks/train.ipynb"
SMOKE = yaml.safe_load((ROOT / "notebooks/params/smoke.yaml").read_text(encoding="utf-8"))
MACHINE_PATH = re.compile(
    r"/(?:home|root|tmp|work|Users|private)/|\b[A-Z]:\\+(?:Users|Temp|Windows)")
# Markdown pictures and <img> tags without an alt text, or from another site.
BAD_PICTURE = re.compile(
    r"!\[\s*\]\(|!\[[^\]]*\]\(https?:|<img[^>]+src=.https?:|<img(?![^>]*alt=)")
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
# train.ipynb follows the conventions of the chapters, and has no exercises.
each_page = pytest.mark.parametrize("path", [*CHAPTERS, TRAIN], ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_tag(cell, tag):
    return tag in cell.metadata.get("tags", [])


def parameters(notebook):
    """Return names and values of the cell tagged `parameters`, which holds only plain literals."""
    cell, = [cell for cell in notebook.cells if has_tag(cell, "parameters")]
    lines = ast.parse(cell.source).body
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


def defaults_of(*configs):
    return {f.name: f.default for config in configs for f in fields(config)
            if f.default is not MISSING}


@pytest.fixture(scope="module")
def kernel():
    """Yield a kernel for all tests of this file, because its imports take seconds."""
    kernel = AsyncKernelManager(kernel_name="python3")
    yield kernel
    if kernel.has_kernel:
        nbclient.util.run_sync(kernel.shutdown_kernel)(now=True)


@pytest.fixture
def execute(kernel, tmp_path):
    """Return a function that executes a notebook with parameters, after it forgot all names.

    The executed notebook is in `tmp_path`.
    """
    def execute(path, **values):
        forget = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset -f")])
        if kernel.has_kernel:
            nbclient.execute(forget, km=kernel)
        papermill.execute_notebook(
            path, tmp_path / path.name, parameters=values, cwd=path.parent, kernel_name="python3",
            progress_bar=False, log_output=False, execution_timeout=300, start_timeout=120,
            km=kernel)
    return execute


# Conventions --------------------------------------------------------------------------------------


@each_page
def test_a_notebook_is_valid_and_was_executed_from_top_to_bottom(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@each_page
def test_outputs_hold_no_error_no_stderr_and_no_path_of_a_machine(path):
    for cell in read(path).cells:
        outputs = cell.get("outputs", [])
        for output in outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.id
        assert not MACHINE_PATH.search(cell.source + json.dumps(outputs)), cell.id


@each_page
def test_every_picture_has_an_alt_text_and_none_is_on_another_site(path):
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt) > 20, cell.id
        assert not BAD_PICTURE.search(cell.source), cell.id


@each_page
def test_papermill_finds_every_parameter_and_the_next_cell_checks_them(path):
    notebook = read(path)
    declared = set(parameters(notebook))
    assert set(papermill.inspect_notebook(path)) == declared
    assert set(SMOKE[path.stem]) <= declared
    first, second, *_ = code_cells(notebook)
    assert has_tag(first, "parameters") and "check_parameters(globals()" in second.source


@each_chapter
def test_at_least_three_cells_are_checked_by_nbval_and_have_an_output(path):
    checked = [cell for cell in read(path).cells if has_tag(cell, "nbval-check-output")]
    assert len(checked) >= 3
    assert all(cell.outputs for cell in checked)


def test_the_train_page_has_every_option_of_the_library_with_its_default():
    declared = parameters(read(TRAIN))
    defaults = defaults_of(VariantConfig, TrainConfig)
    assert {name: declared[name] for name in defaults} == defaults


def test_chapter_4_has_the_defaults_of_the_library():
    declared = parameters(read(ROOT / "notebooks/04_full_gpt.ipynb"))
    defaults = defaults_of(GPTConfig, TrainConfig)
    shared = declared.keys() & defaults.keys()
    assert {"n_layer", "dropout", "max_steps", "learning_rate"} <= shared
    assert {name: declared[name] for name in shared} == {name: defaults[name] for name in shared}


def test_the_train_page_has_at_most_20_cells():
    assert len(read(TRAIN).cells) <= 20


# Executions ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_train_page_writes_checkpoints_metrics_and_a_sample(execute, tmp_path):
    out = tmp_path / "run"
    text = "text:" + "to be or not to be, that is the question. " * 100
    execute(TRAIN, **SMOKE["train"] | {
        "corpus": text, "prompt": "to be", "sample_tokens": 40, "tokenizer": "lowercase",
        "tie_weights": True, "position": "none", "bias": True, "dropout": 0.1,
        "out_dir": str(out)})
    metrics = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [0, 10, 20]
    files = {file.name for file in out.iterdir()}
    assert {"best.safetensors", "last.safetensors", "best.json", "last.json"} <= files
    assert (out / "sample.txt").read_text(encoding="utf-8").startswith("to be")


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "expected"), [
    ({"n_embed": 32}, "did you mean 'n_embd'"),
    ({"n_embd": 30, "n_head": 4}, "n_embd=30 should be a multiple of n_head=4"),
    ({"corpus": "tinyshakespear"}, "did you mean 'tinyshakespeare'"),
    ({"corpus": "text:too short"}, "windows of block_size=16 need at least 17"),
    ({"prompt": "∞"}, "character '∞' (U+221E)"),
], ids=str)
def test_a_wrong_parameter_stops_the_train_page_before_training(wrong, expected, execute, tmp_path):
    values = SMOKE["train"] | {"out_dir": str(tmp_path / "run")} | wrong
    with pytest.raises(papermill.PapermillExecutionError) as stopped:
        execute(TRAIN, **values)
    assert expected in stopped.value.evalue
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("variant", [
    {"memory": "mean", "block_size": 32, "window": 8},
    {"attention": "time_weighted", "token_shift": True},
], ids=["rolling", "time-weighted"])
def test_the_train_page_can_train_the_models_of_later_chapters(variant, execute, tmp_path):
    values = SMOKE["train"] | {"out_dir": str(tmp_path / "run")} | variant
    execute(TRAIN, **values)
    header = json.loads((tmp_path / "run/best.json").read_text(encoding="utf-8"))
    assert variant.items() <= header["config"].items()


@pytest.mark.slow
def test_chapter_6_reads_a_text_of_one_repeated_character(execute, tmp_path):
    path, = (path for path in CHAPTERS if path.stem == "06_time_weighting")
    execute(path, **SMOKE[path.stem] | {
        "corpus": "text:" + 3000 * "a", "out_dir": str(tmp_path / path.stem)})
    assert list((tmp_path / path.stem).glob("result-*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["05_bpe", "playground"])
def test_a_text_of_one_repeated_character_has_too_few_words_for_bpe(name, execute, tmp_path):
    values = SMOKE[name] | {"corpus": "text:" + 3000 * "a", "out_dir": str(tmp_path / "run")}
    with pytest.raises(papermill.PapermillExecutionError) as stopped:
        execute(ROOT / f"notebooks/{name}.ipynb", **values)
    assert "vocab_size=300 is too large for this text" in stopped.value.evalue
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_train_page_compares_with_a_published_result_and_with_the_floor(execute, tmp_path):
    values = SMOKE["train"] | {"out_dir": str(tmp_path / "run"), "corpus": "theatre1",
                               "max_steps": 2, "published": {"val_loss": 1.5}}
    execute(TRAIN, **values)
    printed = (tmp_path / TRAIN.name).read_text(encoding="utf-8")
    assert "published: val_loss 1.5" in printed and "200 random batches" in printed
    row = json.loads((tmp_path / "run/result-GPT.json").read_text(encoding="utf-8"))
    assert row["published"] == {"val_loss": 1.5} and sum(row["floor_gap"].values()) > 0
