"""Mistakes in commands, files and environment variables: nothing is lost, nothing is silent."""

import json
import os
import sys
from pathlib import Path

import pytest

from gptlib import __main__ as command_line
from gptlib.checkpoint import CheckpointError, read_header
from gptlib.classroom import grade
from gptlib.config import ConfigError, check_parameters
from gptlib.corpora import load_corpus
from gptlib.data import DataError
from gptlib.options import Parser, name_options
from gptlib.resume import restore
from gptlib.run_folder import RunFolder
from gptlib.variants.config import VariantConfig

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def test_a_picture_that_no_run_has_drawn_is_not_overwritten(tmp_path):
    (tmp_path / "loss.png").write_text("mine")
    with pytest.raises(ConfigError, match="which is not overwritten"):
        RunFolder(tmp_path, "never").open()
    RunFolder(tmp_path, "restart").open()
    assert (tmp_path / "earlier/1/loss.png").read_text() == "mine"


def test_the_picture_of_a_run_without_a_step_is_replaced(tmp_path):
    (tmp_path / "loss.png").write_text("of step 0")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    assert RunFolder(tmp_path, "never").open() is None


def test_an_earlier_table_of_grades_is_kept(tmp_path):
    table = tmp_path / "grades.csv"
    for student in ("a", "b", "c"):
        list(grade.write_csv([grade.Grade(student)], table))
    # The newest table has the plain name. The others are numbered from the first one on.
    for name, student in (("grades-1.csv", "a"), ("grades-2.csv", "b"), ("grades.csv", "c")):
        first_row = (tmp_path / name).read_text(encoding="utf-8-sig").splitlines()[1]
        assert first_row.startswith(f"{student},")


@pytest.mark.parametrize("folder", ["", " ", "~/runs", "~"])
def test_a_notebook_names_a_folder_of_its_own(folder):
    with pytest.raises(ConfigError, match=r"^out_dir=.* should name a folder"):
        check_parameters({"out_dir": folder}, out_dir=str)


@pytest.mark.parametrize("name", ["detach", "rescale"])
def test_an_option_of_memories_is_refused_without_one(name):
    with pytest.raises(ConfigError, match=f"^{name}=True should be False for memory='attention'"):
        VariantConfig(vocab_size=5, **{name: True})


@pytest.mark.parametrize("typed, known", [
    ("--lr", "--min-lr"), ("--epochs", "--detach"), ("--out", "--prompt")])
def test_options_that_share_only_their_dashes_are_not_similar(typed, known):
    parser = Parser()
    parser.add_argument(known)
    with pytest.raises(ConfigError, match=f"^unknown option '{typed}'. --help"):
        parser.parse_args([typed, "1"])


def test_an_option_without_a_value_is_named_without_one():
    assert name_options("because rotary=True rotates", ["rotary"]) == "because --rotary rotates"


def test_a_damaged_checkpoint_says_what_to_name(tmp_path):
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="name an undamaged .safetensors file that this"):
        read_header(path)
    with pytest.raises(CheckpointError, match="or set resume to 'restart'"):
        restore(path, None, None, {})


@pytest.mark.parametrize("exists, reason", [
    (True, "has no file tinyshakespeare.txt"), (False, "is not an existing folder")])
def test_a_failed_download_says_why_the_named_folder_did_not_help(
        tmp_path, monkeypatch, exists, reason):
    def fail(*_, **__):
        raise ConnectionError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gptlib.corpora.text.pooch.retrieve", fail)
    monkeypatch.setenv("GPTLIB_DATA", "." if exists else "nowhere")
    with pytest.raises(DataError, match=rf"\(GPTLIB_DATA='.*' {reason}\)"):
        load_corpus("tinyshakespeare")


def test_a_folder_for_downloads_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPTLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="cannot be saved in .* name that folder in GPTLIB_DATA"):
        load_corpus("tinyshakespeare")


def test_a_link_that_leads_nowhere_and_a_missing_file_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("nowhere", "link.txt")
    with pytest.raises(DataError, match="'link.txt' is a device, a pipe or a link"):
        load_corpus("link.txt")
    with pytest.raises(DataError, match="There is no such file in .* either"):
        load_corpus("missing.txt")


@pytest.mark.parametrize("name, value", [("MASTER_PORT", "99999"), ("MASTER_ADDR", "")])
def test_a_wrong_address_of_processes_is_named(monkeypatch, name, value):
    right = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost",
             "MASTER_PORT": "29555"}
    for variable, text in (right | {name: value}).items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=f"{name}='{value}'.*as torchrun sets them"):
        command_line.join_processes()


@pytest.mark.parametrize("check", ["1 / 0", "raise SystemExit"])
def test_a_sweep_says_that_the_check_of_its_notebook_failed(tmp_path, monkeypatch, check):
    monkeypatch.syspath_prepend(TOOLS)
    import sweep
    cells = [{"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": [],
              "execution_count": None, "id": name}
             for name, source, tags in (("a", "x = 1", ["parameters"]), ("b", check, []))]
    notebook = {"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}
    (tmp_path / "own.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "grid.yaml").write_text("notebook: own.ipynb\nseeds: [1]\n")
    monkeypatch.setattr(sys, "argv", ["sweep.py", str(tmp_path / "grid.yaml")])
    with pytest.raises(SystemExit, match="a cell of own.ipynb .* stopped with"):
        sweep.main()
