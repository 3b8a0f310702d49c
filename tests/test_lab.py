"""`make lab` opens copies of the notebooks, and a reader's changes are never lost."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import lab
import nbformat
import pytest

from gptlib.config import project_dir

ROOT = Path(__file__).parents[1]
each_notebook = pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
LISTED = re.compile(r"[0-9a-f]{64} \w+\.ipynb")


def text_of(source, output="1"):
    """Return a notebook with one code cell."""
    outputs = [nbformat.v4.new_output("execute_result", {"text/plain": output}, execution_count=1)]
    cell = nbformat.v4.new_code_cell(source, outputs=outputs, id="a", execution_count=1)
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))


class Course:
    """A small course with notebooks a and b, and its copies."""

    def __init__(self, folder):
        self.originals, self.copies = folder / "notebooks", folder / "my_notebooks"
        self.originals.mkdir()
        for name in "ab":
            self.publish(name, "version = 1")

    def publish(self, name, source):
        (self.originals / f"{name}.ipynb").write_text(text_of(source), encoding="utf-8")

    def change(self, name, text):
        (self.copies / f"{name}.ipynb").write_text(text, encoding="utf-8")

    def start(self):
        return lab.update(self.originals, self.copies)

    def sources(self):
        """Return the source of each copy by its name."""
        return {path.stem: json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0]
                for path in self.copies.glob("*.ipynb")}


@pytest.fixture
def course(tmp_path):
    return Course(tmp_path)


def test_first_start_copies_every_notebook(course):
    assert course.start() == []
    assert course.sources() == {"a": "version = 1", "b": "version = 1"}
    assert {path.name for path in course.copies.iterdir()} == {"a.ipynb", "b.ipynb", lab.LIST}


def test_second_start_keeps_changes_without_a_word(course):
    course.start()
    course.change("a", text_of("mine"))
    assert course.start() == []
    assert course.sources() == {"a": "mine", "b": "version = 1"}


def test_unchanged_copy_follows_an_update(course):
    course.start()
    for version in ("version = 2", "version = 1", "version = 3"):
        course.publish("a", version)
        assert course.start() == []
        assert course.sources() == {"a": version, "b": "version = 1"}


def test_changed_copy_is_kept_and_named_when_the_course_is_updated(course):
    course.start()
    course.change("a", text_of("mine"))
    course.publish("a", "version = 2")
    for _ in range(2):
        assert course.start() == [
            "my_notebooks/a.ipynb has your changes, so it was kept. The course has another "
            "version: notebooks/a.ipynb. To work with that one, rename your file and start again."]
        assert course.sources()["a"] == "mine"
    (course.copies / "a.ipynb").rename(course.copies / "mine.ipynb")
    assert course.start() == []
    assert course.sources() == {"a": "version = 2", "b": "version = 1", "mine": "mine"}


def test_deleted_copy_is_copied_again(course):
    course.start()
    (course.copies / "a.ipynb").unlink()
    assert course.start() == []
    assert course.sources()["a"] == "version = 1"


@pytest.mark.parametrize("mine", ["mine", "version = 1"])
def test_notebook_of_the_reader_with_the_name_of_a_chapter_is_kept(course, mine):
    course.copies.mkdir()
    course.change("a", text_of(mine))
    assert [sentence[:20] for sentence in course.start()] == ["my_notebooks/a.ipynb"] * (
        mine == "mine")
    assert course.sources() == {"a": mine, "b": "version = 1"}


def test_notebook_that_the_course_renamed_is_renamed_unless_it_was_changed(course):
    course.start()
    course.change("b", text_of("mine"))
    for old, new in (("a", "c"), ("b", "d")):
        (course.originals / f"{old}.ipynb").rename(course.originals / f"{new}.ipynb")
    assert course.start() == ["my_notebooks/b.ipynb has your changes, so it was kept. "
                              "The course no longer has a notebook with this name."]
    assert course.sources() == {"b": "mine", "c": "version = 1", "d": "version = 1"}


def test_duplicate_that_the_reader_made_is_kept(course):
    course.start()
    course.change("a-Copy1", text_of("version = 1"))
    course.publish("a", "version = 2")
    assert course.start() == []
    assert course.sources()["a-Copy1"] == "version = 1"


def test_output_and_metadata_of_a_cell_count_as_changes_and_saving_does_not(course):
    course.start()
    path = course.copies / "a.ipynb"
    # JupyterLab writes another version of Python, another format of lines, other numbers.
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.language_info = {"name": "python", "version": "3.99"}
    notebook.cells[0].execution_count = notebook.cells[0].outputs[0].execution_count = 7
    path.write_text(json.dumps(notebook, indent=3), encoding="utf-8")
    course.publish("a", "version = 2")
    assert course.start() == [] and course.sources()["a"] == "version = 2"

    for changed in (text_of("version = 2", output="mine"),
                    text_of("version = 2").replace('"metadata": {}', '"metadata": {"tags": []}')):
        course.change("a", changed)
        course.publish("a", "version = 3")
        assert len(course.start()) == 1
        assert path.read_text(encoding="utf-8") == changed


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '{"cells": 1}', "essay"])
def test_copy_that_is_no_notebook_is_kept(course, text):
    course.start()
    course.change("a", text)
    course.publish("a", "version = 2")
    assert len(course.start()) == 1
    assert (course.copies / "a.ipynb").read_text(encoding="utf-8") == text


def test_copy_of_a_read_only_notebook_can_be_changed(course):
    for path in course.originals.iterdir():
        path.chmod(0o444)
    course.start()
    assert os.stat(course.copies / "a.ipynb").st_mode & 0o200


def test_copy_that_cannot_be_replaced_is_named_and_the_others_are_updated(course, monkeypatch):
    course.start()
    for name in "ab":
        course.publish(name, "version = 2")
    replace = os.replace

    def refuse(source, target):
        if target.name == "a.ipynb":
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert course.start() == [
        "my_notebooks/a.ipynb was not brought up to date: Permission denied."]
    assert course.sources() == {"a": "version = 1", "b": "version = 2"}


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "my_notebooks").write_text("a file")
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    assert lab.main() == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"make lab: .*my_notebooks cannot be written: File exists\n", error)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_kill_at_any_moment_loses_nothing(tmp_path, monkeypatch):
    """Ends the program before each of its calls that write, and starts it again."""
    left = [10 ** 9]

    def killing(call):
        def counted(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*arguments, **options)
        return counted

    monkeypatch.setattr(lab, "open", killing(open), raising=False)
    monkeypatch.setattr(os, "replace", killing(os.replace))
    monkeypatch.setattr(Path, "write_bytes", killing(Path.write_bytes))
    kills = 0
    for moment in range(20):
        (tmp_path / str(moment)).mkdir()
        course = Course(tmp_path / str(moment))
        course.publish("c", "version = 1")
        course.start()
        course.change("b", text_of("mine"))
        for name in "abc":
            course.publish(name, "version = 2")
        left[0] = moment
        try:
            course.start()
        except Killed:
            kills += 1
            # No copy is torn.
            assert set(course.sources().values()) <= {"version = 1", "version = 2", "mine"}
        left[0] = 10 ** 9
        assert len(course.start()) == 1
        assert course.sources() == {"a": "version = 2", "b": "mine", "c": "version = 2"}
    # Each of the two copies needs three calls, after the first one opens the list.
    assert kills == 7


def test_kill_at_the_first_start_loses_nothing(course, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        course.start()
    monkeypatch.undo()
    assert course.start() == []
    assert course.sources() == {"a": "version = 1", "b": "version = 1"}


def test_file_that_a_killed_program_left_is_removed(course):
    course.start()
    old, new = course.copies / ".a.ipynb.1.partial", course.copies / ".a.ipynb.2.partial"
    for path in (old, new):
        path.touch()
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    course.start()
    # Another program may still write the new file.
    assert not old.exists() and new.exists()


def test_several_starts_at_once_give_complete_copies(course):
    for name in "cdefgh":
        course.publish(name, "version = 1\n" * 1000)
    command = (f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import lab, pathlib; "
               f"print(lab.update(pathlib.Path({str(course.originals)!r}), "
               f"pathlib.Path({str(course.copies)!r})))")
    starts = [subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
              for _ in range(4)]
    assert [start.communicate()[0] for start in starts] == ["[]\n"] * 4
    for path in course.originals.iterdir():
        assert (course.copies / path.name).read_bytes() == path.read_bytes()
    listed = (course.copies / lab.LIST).read_text(encoding="utf-8").splitlines()
    assert all(LISTED.fullmatch(line) for line in listed)
    assert not list(course.copies.glob("*.partial"))


# Copies work as the notebooks do ------------------------------------------------------------------


def test_copies_find_the_folder_of_the_course(course, monkeypatch):
    course.start()
    (course.originals.parent / "gptlib").mkdir()
    for folder in (course.originals, course.copies):
        monkeypatch.chdir(folder)
        assert project_dir() == course.originals.parent


@each_notebook
def test_notebook_that_was_only_saved_again_is_unchanged(path):
    content = path.read_bytes()
    saved = nbformat.writes(nbformat.reads(content.decode(), as_version=4))
    assert lab.fingerprint(saved.encode()) == lab.fingerprint(content)


@each_notebook
def test_links_of_a_notebook_work_in_the_copy(path):
    """The copies stand at the same depth, but without the folders inside notebooks/."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(((?!https?:|#|attachment:)[^)\s]+)\)", text)
    for link in links:
        target = link.partition("#")[0]
        beside = re.fullmatch(r"\w+\.ipynb", target) and (ROOT / "notebooks" / target).exists()
        assert beside or (target.startswith("../") and (ROOT / "notebooks" / target).exists()), link


def test_copies_are_ignored_by_git():
    assert "my_notebooks/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_make_lab_opens_a_copy():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.search(r"^lab:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    assert commands == ("\t$(PY) tools/lab.py\n"
                        "\t.venv/bin/jupyter lab my_notebooks/01_bigram.ipynb\n")
    cleaned = re.search(r"^clean:.*", makefile, re.MULTILINE)[0]
    assert "my_notebooks" not in cleaned


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"oneword\n\n", b"a b c\n"],
                         ids=["bytes", "words", "other"])
def test_a_list_of_versions_that_is_damaged_loses_no_work(course, content):
    course.start()
    course.change("a", text_of("my work"))
    (course.copies / lab.LIST).write_bytes(content)
    sentences = course.start()
    assert course.sources() == {"a": "my work", "b": "version = 1"}
    assert any("has your changes, so it was kept" in sentence for sentence in sentences)
