"""Write three editions of each chapter: for students, for instructors, and slides.

    python tools/editions.py                all chapters
    python tools/editions.py 01_bigram      some of them

They go to build/editions. A chapter with changes that are not committed is an error.

student/      without solutions and outputs, so that a guess is a guess; it can be graded
instructor/   with hints and solutions unfolded, and outputs as committed
slides/       reveal.js, with all the files that a browser needs, so that no network is needed
"""

import copy
import math
import re
import shutil
import sys
from pathlib import Path

import nbformat
from committed import check_committed
from nbconvert import SlidesExporter
from scripts import package

ROOT = Path(__file__).resolve().parents[1]
EDITIONS = ROOT / "build/editions"
FOLDED = re.compile(
    r"<details>\s*<summary>\s*(Hint|Solution)\s*</summary>\s*(.*?)\s*</details>\n*", re.DOTALL)
SLIDE_LINES = 22            # lines that fit on a slide
PICTURE_LINES = 15          # lines whose space a picture needs
CODE_COLUMNS = 115          # characters of a line of code or output that fit on a slide
PROSE_COLUMNS = 100
OUTPUT_LINES = 9            # the longest output on a slide; longer ones are shortened


def main(names: list[str]) -> int:
    chapters = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    known = [path.stem for path in chapters]
    if missing := sorted(set(names) - set(known)):
        print(f"make editions: there is no chapter {', '.join(missing)}; there are "
              f"{', '.join(known)}", file=sys.stderr)
        return 1
    chapters = [path for path in chapters if not names or path.stem in names]
    try:
        if warning := check_committed(ROOT, names):
            print(f"make editions: {warning}", file=sys.stderr)
    except RuntimeError as error:
        print(f"make editions: {error}", file=sys.stderr)
        return 1
    write_editions(chapters)
    try:
        copy_scripts(EDITIONS / "slides")
    except RuntimeError as error:
        print("make editions: the notebooks are written, but the slides cannot be shown: "
              f"{error}", file=sys.stderr)
        return 1
    print(f"{len(chapters)} chapters in {EDITIONS.relative_to(ROOT)}: "
          "student/, instructor/ and slides/")
    return 0


def write_editions(chapters: list[Path]) -> None:
    for folder in ("student", "instructor", "slides"):
        (EDITIONS / folder).mkdir(parents=True, exist_ok=True)
    for path in chapters:
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(student(notebook), EDITIONS / "student" / path.name)
        nbformat.write(instructor(notebook), EDITIONS / "instructor" / path.name)
        page = EDITIONS / f"slides/{path.stem}.html"
        page.write_text(slides(notebook), encoding="utf-8")


def copy_scripts(folder: Path) -> None:
    """Copy reveal.js and MathJax into the folder of the slides."""
    reveal = package("reveal.js")
    shutil.copytree(reveal / "dist", folder / "reveal.js/dist", dirs_exist_ok=True)
    shutil.copytree(reveal / "plugin/notes", folder / "reveal.js/plugin/notes", dirs_exist_ok=True)
    theme = folder / "reveal.js/dist/theme/simple.css"
    theme.write_text(without_imports(theme.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copyfile(package("mathjax") / "es5/tex-svg.js", folder / "mathjax.js")


def without_imports(css: str) -> str:
    """Return a style sheet that loads no fonts from other sites. The browser has its own."""
    return re.sub(r"@import url\(http[^)]*\);?", "", css)


# Student and instructor ---------------------------------------------------------------------------


def student(notebook):
    """Return the chapter without solutions and outputs, but with its cell ids for grading."""
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        else:
            cell.source = without_solutions(cell.source)
    return edition


def without_solutions(source: str) -> str:
    """Return Markdown without its solutions, and without the sentence that announces them."""
    source = FOLDED.sub(lambda match: match[0] if match[1] == "Hint" else "", source).rstrip()
    return re.sub(r"\b([Hh])ints and solutions are", r"\1ints are", source)


def instructor(notebook):
    """Return the chapter with every hint and solution unfolded.

    Some viewers close or remove `<details open>`, so the text stands outside of it.
    """
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        if cell.cell_type == "markdown":
            source = FOLDED.sub(r"**\1.** \2\n\n", cell.source).rstrip()
            cell.source = re.sub(r"\*\*Solution\.\*\* (?=```)", "**Solution.**\n\n", source)
    return edition


# Slides -------------------------------------------------------------------------------------------


def slides(notebook) -> str:
    """Return the chapter as one HTML page of reveal.js slides.

    A section begins to the right of the last one. Where a slide is full, the next one is below it.
    Pictures come without the code that draws them, and long outputs without their middle.
    """
    edition = copy.deepcopy(notebook)
    edition.cells = [cell for cell in edition.cells if is_shown(cell)]
    for cell in edition.cells:
        if has_picture(cell):
            # nbconvert hides the source of a cell that is marked like this.
            cell.metadata["transient"] = {"remove_source": True}
        if cell.cell_type == "code":
            cell.outputs = shortened(cell.outputs)
    for cell, slide_type in zip(edition.cells, slide_types(edition.cells), strict=True):
        cell.metadata["slideshow"] = {"slide_type": slide_type}
        cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.html", cell.source)
    return export(edition)


def export(edition) -> str:
    """Return the notebook as an HTML page. The first line of the notebook is the title."""
    exporter = SlidesExporter(template_name="slides", extra_template_basedirs=[str(ROOT / "tools")],
                              reveal_url_prefix="reveal.js", reveal_theme="simple")
    exporter.exclude_input_prompt = True
    exporter.exclude_output_prompt = True
    title = edition.cells[0].source.splitlines()[0].lstrip("# ")
    page, _ = exporter.from_notebook_node(edition, resources={"metadata": {"name": title}})
    return page


def is_shown(cell) -> bool:
    """Return whether a cell is on the slides. Hints, solutions and parameters are not."""
    is_folded = cell.cell_type == "markdown" and FOLDED.search(cell.source)
    is_about_parameters = ("parameters" in cell.metadata.get("tags", [])
                           or "| parameter |" in cell.source
                           or "check_parameters(" in cell.source)
    return not is_folded and not is_about_parameters


def has_picture(cell) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def shortened(outputs: list) -> list:
    """Return the outputs with streams joined. A long output keeps its first and last lines."""
    joined = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        lines = output.get("text", "").splitlines()
        if len(lines) > OUTPUT_LINES:
            output.text = "\n".join([*lines[:OUTPUT_LINES - 5], "…", *lines[-4:]]) + "\n"
    return joined


def slide_types(cells) -> list[str]:
    """Return the slide type of each cell.

    "slide" begins a section. "subslide" begins a slide below it: where the last one is full, at a
    lower heading, and after a guess, so that the answer is not on the same slide. "-" adds the cell
    to the slide before.
    """
    types = []
    lines = 0
    after_guess = False
    for cell in cells:
        level = heading_level(cell)
        if level in (1, 2):
            slide_type = "slide"
        elif level or after_guess or lines + height(cell) > SLIDE_LINES:
            slide_type = "subslide"
        else:
            slide_type = "-"
        lines = height(cell) + (lines if slide_type == "-" else 0)
        after_guess = cell.cell_type == "code" and bool(re.match(r"my_guess\w* = ", cell.source))
        types.append(slide_type)
    return types


def heading_level(cell) -> int:
    """Return the level of the heading that a cell begins with, or 0 if there is none."""
    heading = re.match(r"(#+) ", cell.source) if cell.cell_type == "markdown" else None
    return len(heading[1]) if heading else 0


def height(cell) -> int:
    """Return about how many lines a cell needs on a slide."""
    if cell.cell_type == "markdown":
        return wrapped_lines(cell.source.splitlines(), PROSE_COLUMNS) + 1
    lines = [] if has_picture(cell) else cell.source.splitlines()
    for output in cell.outputs:
        text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
        lines += text.splitlines()
    return wrapped_lines(lines, CODE_COLUMNS) + 1 + PICTURE_LINES * has_picture(cell)


def wrapped_lines(lines: list[str], columns: int) -> int:
    return sum(math.ceil(len(line) / columns) for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
