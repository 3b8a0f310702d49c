"""The address of the repository comes from one place and goes to every page that shows it."""

import json
import shutil
from pathlib import Path

import address
import make_site
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
URL = "https://github.com/someone/gpt-course"


@pytest.fixture
def course(tmp_path):
    """A copy of the files that show the address."""
    for name in ("CITATION.cff", "README.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def files(folder):
    return {path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_the_committed_files_agree_with_the_stored_address(course):
    before = files(course)
    address.set_address(course, address.get_address(course))
    assert files(course) == before


def test_readme_shows_the_clone_command_and_the_buttons_only_with_an_address(course):
    address.set_address(course, URL)
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert f"git clone {URL} gpt-course" in readme
    assert "mybinder.org/v2/gh/someone/gpt-course/" in readme
    assert "colab.research.google.com/github/someone/gpt-course/" in readme
    address.set_address(course, "")
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert "git clone" not in readme and "colab" not in readme and "make lab" in readme


def test_each_notebook_gets_one_cell_that_installs_the_library_on_colab(course):
    address.set_address(course, "https://github.com/someone/old-name")
    address.set_address(course, URL)
    for path in (course / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if "google.colab" in cell.source]
        assert cells == [notebook.cells[1]]
        assert f"git+{URL}" in cells[0].source and "old-name" not in cells[0].source


def test_removing_the_address_restores_every_file(course):
    address.set_address(course, "")
    before = files(course)
    address.set_address(course, URL)
    assert address.get_address(course) == URL
    address.set_address(course, "")
    assert files(course) == before


@pytest.mark.parametrize("written", [f"{URL}.git", f"{URL}/"])
def test_other_ways_to_write_the_address_mean_the_same(course, written):
    address.set_address(course, written)
    assert address.get_address(course) == URL


@pytest.mark.parametrize("bad", [
    "someone/gpt-course", "http://github.com/someone/gpt-course", "https://github.com/someone",
    "https://example.org/someone/gpt-course", f"{URL}/tree/main", f"{URL} ", "git@github.com:a/b",
    f'{URL}"\nlicense: none'])
def test_a_wrong_address_is_refused_and_changes_nothing(course, bad):
    before = files(course)
    with pytest.raises(ValueError, match="should be https://github.com/OWNER/NAME"):
        address.set_address(course, bad)
    assert files(course) == before


def test_a_page_of_the_site_links_to_binder_and_colab():
    text = (ROOT / "notebooks/01_bigram.ipynb").read_text(encoding="utf-8")
    page = json.loads(make_site.with_links_to_open(text, address.links(URL, "01_bigram")))
    first = "".join(page["cells"][0]["source"])
    assert "?labpath=notebooks/01_bigram.ipynb" in first.splitlines()[-1]
    assert "blob/main/notebooks/01_bigram.ipynb" in first.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], [URL, URL], ["nonsense"]])
def test_a_wrong_command_line_is_one_sentence(arguments, capsys):
    assert address.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("address: ") and error.count("\n") == 1
