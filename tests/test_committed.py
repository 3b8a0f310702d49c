"""The site and the editions show the notebooks as they were committed."""

import shutil
import subprocess

import committed
import editions
import make_site
import pytest

A, B = "notebooks/01_a.ipynb", "notebooks/02_b.ipynb"
RESTORE = "has changes that are not committed: commit them, or throw them away with `git restore"


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True,
                   capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """Return the folder of a course with two committed notebooks."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "the course"
    (folder / "notebooks").mkdir(parents=True)
    for name in (A, B):
        (folder / name).write_text("{}")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "m")
    return folder


def test_committed_notebooks_are_right(checkout):
    (checkout / "notes.txt").touch()
    (checkout / "notebooks/.ipynb_checkpoints").mkdir()
    (checkout / "notebooks/.ipynb_checkpoints/01_a-checkpoint.ipynb").touch()
    assert committed.check_committed(checkout) == ""


def change(checkout):
    (checkout / A).write_text("{ }")


def stage(checkout):
    change(checkout)
    git(checkout, "add", ".")


def delete(checkout):
    (checkout / A).unlink()


@pytest.mark.parametrize("do", [change, stage, delete])
def test_changed_notebook_is_named_with_a_command_that_restores_it(checkout, do):
    do(checkout)
    with pytest.raises(RuntimeError) as error:
        committed.check_committed(checkout)
    assert str(error.value) == f"{A} {RESTORE} -SW {A}`."
    git(checkout, "restore", "-SW", A)
    assert committed.check_committed(checkout) == ""


def test_only_the_named_chapters_are_checked(checkout):
    change(checkout)
    assert committed.check_committed(checkout, ["02_b"]) == ""
    with pytest.raises(RuntimeError, match=A):
        committed.check_committed(checkout, ["01_a", "02_b"])


@pytest.mark.parametrize("is_added", [False, True])
def test_new_notebook_is_named(checkout, is_added):
    (checkout / "notebooks/03_c.ipynb").touch()
    if is_added:
        git(checkout, "add", ".")
    with pytest.raises(RuntimeError, match="notebooks/03_c.ipynb is not committed: commit it, or"):
        committed.check_committed(checkout)


def test_every_changed_notebook_is_named(checkout):
    change(checkout)
    (checkout / B).rename(checkout / "notebooks/03_c.ipynb")
    git(checkout, "add", ".")
    with pytest.raises(RuntimeError) as error:
        committed.check_committed(checkout)
    assert [name in str(error.value) for name in (A, B, "03_c")] == [True] * 3


def unpacked(folder):
    """Return a folder with the sources of the course, without git."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / A).touch()
    return folder


def test_sources_outside_a_checkout_are_read_as_they_are(tmp_path):
    folder = unpacked(tmp_path / "zip")
    assert committed.check_committed(folder) == (
        "the notebooks are read as they are, because git cannot tell whether they are committed "
        "(not a git repository (or any of the parent directories): .git)")


def test_sources_inside_another_checkout_are_read_as_they_are(checkout):
    assert "part of the checkout of something else" in committed.check_committed(
        unpacked(checkout / "zip"))


def test_missing_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "(git is not installed)" in committed.check_committed(tmp_path)


@pytest.mark.parametrize(("tool", "name", "arguments"), [
    (editions, "make editions", [[]]), (make_site, "make site", [])])
def test_changed_notebook_stops_the_command_before_it_writes(
        checkout, monkeypatch, capsys, tool, name, arguments):
    change(checkout)
    monkeypatch.setattr(tool, "ROOT", checkout)
    assert tool.main(*arguments) == 1
    assert capsys.readouterr().err == f"{name}: {A} {RESTORE} -SW {A}`.\n"
    assert not (checkout / "build").exists()


@pytest.mark.parametrize(("tool", "name", "arguments"), [
    (editions, "make editions", [[]]), (make_site, "make site", [])])
def test_command_outside_a_checkout_says_so_and_works(
        tmp_path, monkeypatch, capsys, tool, name, arguments):
    class Stop(Exception):
        """Ends the command where its work begins."""

    def stop(*_):
        raise Stop

    monkeypatch.setattr(tool, "ROOT", unpacked(tmp_path / "zip"))
    monkeypatch.setattr(tool, "write_editions" if tool is editions else "package", stop)
    with pytest.raises(Stop):
        tool.main(*arguments)
    assert capsys.readouterr().err.startswith(f"{name}: the notebooks are read as they are, ")
