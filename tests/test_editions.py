"""The three editions of a chapter: for students without answers, for instructors, and slides."""

import functools
import re
from pathlib import Path

import editions
import nbformat
import pytest
from collecting import solutions

from gptlib.classroom.notebook_source import CHECKS, Source

CHAPTERS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXECUTED = [path for path in CHAPTERS if "image/png" in path.read_text(encoding="utf-8")]
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
each_executed = pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


@functools.cache
def slides(path):
    """Return the page of the slides of a notebook, made once for all tests."""
    return editions.slides(read(path))


def name_of(path):
    """Return the name of a chapter, such as "bigram"."""
    return path.stem[3:]


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown(source):
    return nbformat.v4.new_markdown_cell(source)


def code(source, *printed):
    outputs = [nbformat.v4.new_output("stream", text=text) for text in printed]
    return nbformat.v4.new_code_cell(source, outputs=outputs)


def picture(source, alt):
    output = nbformat.v4.new_output("display_data", {"image/png": "AA=="},
                                    metadata={"image/png": {"alt": alt}})
    return nbformat.v4.new_code_cell(source, outputs=[output])


# Student ------------------------------------------------------------------------------------------


@each_chapter
def test_the_student_edition_has_every_hint_and_no_solution(path):
    source = read(path)
    edition = editions.student(source)
    nbformat.validate(edition)
    before, after = prose(source), prose(edition)
    assert "Solution</summary>" in before and "Solution" not in after
    assert "solutions are folded" not in after
    assert after.count("<summary>Hint</summary>") == before.count("<summary>Hint</summary>")
    assert after.count("<details>") == after.count("</details>")
    text = "\n".join(cell.source for cell in edition.cells)
    for solution in solutions(name_of(path)).values():
        assert solution.strip() not in text


@each_chapter
def test_the_student_edition_has_the_same_code_without_outputs(path):
    source = read(path)
    edition = editions.student(source)
    assert [cell.id for cell in edition.cells] == [cell.id for cell in source.cells]
    code = code_cells(edition)
    assert [cell.source for cell in code] == [cell.source for cell in code_cells(source)]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@each_chapter
def test_the_student_edition_can_be_graded(path):
    edition = editions.student(read(path))
    source = Source([cell.source for cell in code_cells(edition)])
    assert source.chapter() == name_of(path)
    assert set(CHECKS[source.chapter()]) <= set(source.bound_by)
    assert source.remarks(path.stem, source.chapter()) == []


# Instructor ---------------------------------------------------------------------------------------


@each_chapter
def test_the_instructor_edition_shows_every_solution_and_every_output(path):
    source = read(path)
    edition = editions.instructor(source)
    nbformat.validate(edition)
    assert "<details>" not in prose(edition)
    for solution in solutions(name_of(path)).values():
        assert f"**Solution.**\n\n```python\n{solution}```" in prose(edition)
    outputs = [cell.get("outputs") for cell in edition.cells]
    assert outputs == [cell.get("outputs") for cell in source.cells]


# Slides -------------------------------------------------------------------------------------------


@each_executed
def test_slides_load_only_files_that_lie_beside_them(path):
    page = slides(path)
    tags = r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="([^"]{0,200})'
    loaded = re.findall(tags, page) + re.findall(r"from '([^']+)'", page)
    assert {file for file in loaded if not file.startswith("data:")} == {
        "mathjax.js", "reveal.js/dist/reveal.css", "reveal.js/dist/reveal.js",
        "reveal.js/dist/theme/simple.css", "reveal.js/plugin/notes/notes.js"}


@each_executed
def test_slides_show_every_picture_with_its_alt_text(path):
    source = read(path)
    page = slides(path)
    n_pictures = sum("image/png" in output.get("data", {})
                     for cell in code_cells(source) for output in cell.outputs)
    alts = re.findall(r'<img\b[^>]*? alt="([^"]*)"', page)
    assert len(alts) == page.count("<img ") == n_pictures > 0
    assert all(len(alt) > 20 for alt in alts)


@each_executed
def test_slides_have_no_solutions_no_parameter_checks_and_no_links_to_notebooks(path):
    page = slides(path)
    assert "Solution" not in page and "check_parameters" not in page
    assert not re.search(r'href="\d\d_\w+\.ipynb', page)


def test_a_slide_begins_at_a_heading_when_full_and_after_a_guess():
    cells_and_types = [
        (markdown("# Title"), "slide"),
        (markdown("## Section\n\nwords"), "slide"),
        (code("a = 1"), "-"),
        # 21 lines do not fit on the slide.
        (code("print(a)", "1\n" * 20), "subslide"),
        (markdown("More words."), "subslide"),
        (code("my_guess = 3"), "-"),
        # The answer is not on the slide of the guess.
        (code("print(my_guess, 4)", "3 4"), "subslide"),
        (markdown("### Exercise"), "subslide"),
    ]
    cells, types = zip(*cells_and_types, strict=True)
    assert editions.slide_types(cells) == list(types)


def test_long_outputs_on_slides_keep_their_first_and_last_lines():
    log = code("train()", *(f"step {n}\n" for n in range(40)))
    page = editions.slides(nbformat.v4.new_notebook(cells=[markdown("# Title"), log]))
    assert "step 3\n" in page and "step 39\n" in page and "…" in page
    assert "step 20\n" not in page and "train" in page
    # The notebook itself is not changed.
    assert len(log.outputs) == 40


def test_pictures_on_slides_come_without_their_code():
    cells = [markdown("# Title"), picture("show(figure)", "a picture of nothing at all")]
    page = editions.slides(nbformat.v4.new_notebook(cells=cells))
    assert "a picture of nothing at all" in page and ">show<" not in page


def test_the_height_of_a_cell_counts_wrapped_lines_and_pictures():
    cell = picture("show(figure)", "a picture of nothing at all")
    assert editions.height(cell) == editions.PICTURE_LINES + 1
    assert editions.height(cell) < editions.height(code("x = 1\n" * 30))
    assert editions.height(code("x" * 300)) == 4


def test_the_theme_of_the_slides_loads_no_fonts_from_other_sites():
    own = "\n.reveal {background: url(dot.png)}"
    css = "@import url(https://fonts.example/css?family=Lato:400,700);" + own
    assert editions.without_imports(css) == own


def test_an_unknown_chapter_is_named_in_the_error(capsys):
    assert editions.main(["09_dreams"]) == 1
    assert "no chapter 09_dreams" in capsys.readouterr().err
