"""From each chapter: a student's edition that gives nothing away and can be graded, an instructor's that hides nothing, and slides."""

import re
from pathlib import Path

import editions
import nbformat
import pytest
from collecting import solutions

from gptlib.grade import CHECKS, Source

CHAPTERS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXECUTED = [path for path in CHAPTERS if "image/png" in path.read_text(encoding="utf-8")]
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@each_chapter
def test_a_student_gets_every_exercise_and_hint_and_no_solution(path):
    source = nbformat.read(path, as_version=4)
    edition = editions.student(source)
    nbformat.validate(edition)
    assert "Solution</summary>" in prose(source) and "Solution" not in prose(edition) and "solutions are folded" not in prose(edition)
    assert prose(edition).count("<summary>Hint</summary>") == prose(source).count("<summary>Hint</summary>")
    assert prose(edition).count("<details>") == prose(edition).count("</details>")
    for answer in solutions(path.stem[3:]).values():
        assert answer.strip() not in "\n".join(cell.source for cell in edition.cells)
    assert [cell.id for cell in edition.cells] == [cell.id for cell in source.cells]
    code = [cell for cell in edition.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert [cell.source for cell in code] == [cell.source for cell in source.cells if cell.cell_type == "code"]


@each_chapter
def test_a_student_s_edition_can_be_graded(path):
    edition = editions.student(nbformat.read(path, as_version=4))
    source = Source([cell.source for cell in edition.cells if cell.cell_type == "code"])
    assert source.chapter() == path.stem[3:]
    assert set(CHECKS[source.chapter()]) <= set(source.bound_by)
    assert source.remarks(path.stem, source.chapter()) == []


@each_chapter
def test_an_instructor_sees_every_solution_and_every_output(path):
    source = nbformat.read(path, as_version=4)
    edition = editions.instructor(source)
    nbformat.validate(edition)
    assert "<details>" not in prose(edition)
    for answer in solutions(path.stem[3:]).values():
        assert f"**Solution.**\n\n```python\n{answer}```" in prose(edition)
    assert [cell.get("outputs") for cell in edition.cells] == [cell.get("outputs") for cell in source.cells]


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_slides_need_no_network_describe_their_pictures_and_give_nothing_away(path):
    source = nbformat.read(path, as_version=4)
    page = editions.slides(source)
    loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="([^"]{0,200})', page) + re.findall(r"from '([^']+)'", page)
    assert {file for file in loaded if not file.startswith("data:")} == {
        "mathjax.js", "reveal.js/dist/reveal.css", "reveal.js/dist/reveal.js", "reveal.js/dist/theme/simple.css",
        "reveal.js/plugin/notes/notes.js"}
    pictures = [output.metadata["image/png"].alt for cell in source.cells for output in cell.get("outputs", [])
                if "image/png" in output.get("data", {})]
    alts = re.findall(r'<img\b[^>]*? alt="([^"]*)"', page)
    assert len(alts) == page.count("<img ") == len(pictures) > 0
    assert all(len(alt) > 20 for alt in alts)
    assert "Solution" not in page and "check_parameters" not in page
    assert not re.search(r'href="\d\d_\w+\.ipynb', page)


def markdown(source):
    return nbformat.v4.new_markdown_cell(source)


def code(source, *outputs):
    return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("stream", text=text) for text in outputs])


def test_a_section_begins_to_the_right_and_what_is_too_long_or_would_tell_goes_below():
    cells = [markdown("# Title"), markdown("## Section\n\nwords"), code("a = 1"), code("print(a)", "1\n" * 20), markdown("More words."),
             code("my_guess = 3"), code("print(my_guess, 4)", "3 4"), markdown("### Exercise")]
    assert editions.slide_types(cells) == ["slide", "slide", "-", "subslide", "subslide", "-", "subslide", "subslide"]


def test_long_outputs_keep_their_beginning_and_end_and_pictures_come_without_code():
    log = code("train()", *(f"step {n}\n" for n in range(40)))
    picture = nbformat.v4.new_code_cell("show(figure)", outputs=[nbformat.v4.new_output("display_data", {"image/png": "AA=="}, metadata={
        "image/png": {"alt": "a picture of nothing at all"}})])
    page = editions.slides(nbformat.v4.new_notebook(cells=[markdown("# Title"), log, picture]))
    assert "step 3\n" in page and "step 39\n" in page and "…" in page and "step 20\n" not in page
    assert "train" in page and ">show<" not in page and len(log.outputs) == 40
    assert editions.height(picture) == editions.PICTURE + 1 < editions.height(code("x = 1\n" * 30))
    assert editions.height(code("x" * 300)) == 4


def test_the_theme_asks_no_other_site_for_fonts():
    css = "@import url(https://fonts.example/css?family=Lato:400,700);\n.reveal {background: url(dot.png)}"
    assert editions.without_imports(css) == "\n.reveal {background: url(dot.png)}"


def test_an_unknown_chapter_is_named(capsys):
    assert editions.main(["09_dreams"]) == 1
    assert "no chapter 09_dreams" in capsys.readouterr().err
