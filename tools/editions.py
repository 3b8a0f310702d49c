"""From the one source, three editions in build/editions: to hand out, to teach from, and to show.

    python tools/editions.py                all chapters
    python tools/editions.py 01_bigram      some of them

student/      solutions gone and outputs cleared, so that guesses are guesses; ready to be handed in and graded
instructor/   hints and solutions open, outputs as committed
slides/       reveal.js, with all that a browser needs beside them: no network
"""

import copy
import math
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from scripts import package

ROOT = Path(__file__).resolve().parents[1]
EDITIONS = ROOT / "build/editions"
FOLDED = re.compile(r"<details>\s*<summary>\s*(Hint|Solution)\s*</summary>\s*(.*?)\s*</details>\n*", re.DOTALL)
SLIDE = 22                                              # lines that a slide holds
PICTURE = 15                                            # lines that a picture takes the place of
WIDE = 115                                              # characters in a line of code
TALLEST = 9                                             # lines of an output


def main(names: list[str]) -> int:
    chapters = [path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")) if not names or path.stem in names]
    if missing := set(names) - {path.stem for path in chapters}:
        print(f"make editions: there is no chapter {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    for folder in ("student", "instructor", "slides"):
        (EDITIONS / folder).mkdir(parents=True, exist_ok=True)
    for path in chapters:
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(student(notebook), EDITIONS / "student" / path.name)
        nbformat.write(instructor(notebook), EDITIONS / "instructor" / path.name)
        (EDITIONS / f"slides/{path.stem}.html").write_text(slides(notebook), encoding="utf-8")
    try:
        shutil.copytree(package("reveal.js") / "dist", EDITIONS / "slides/reveal.js/dist", dirs_exist_ok=True)
        theme = EDITIONS / "slides/reveal.js/dist/theme/simple.css"
        theme.write_text(without_imports(theme.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.copytree(package("reveal.js") / "plugin/notes", EDITIONS / "slides/reveal.js/plugin/notes", dirs_exist_ok=True)
        shutil.copyfile(package("mathjax") / "es5/tex-svg.js", EDITIONS / "slides/mathjax.js")
    except RuntimeError as error:
        print(f"make editions: the notebooks are made, but the slides cannot be shown: {error}", file=sys.stderr)
        return 1
    print(f"{len(chapters)} chapters in {EDITIONS.relative_to(ROOT)}: student/, instructor/ and slides/")
    return 0


def without_imports(css: str) -> str:
    """A style sheet that asks no other site for fonts: what the browser has must do."""
    return re.sub(r"@import url\(http[^)]*\);?", "", css)


def student(notebook):
    """The chapter without its solutions and outputs; ids, and with them everything that grading needs, stay."""
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = FOLDED.sub(lambda found: found[0] if found[1] == "Hint" else "", cell.source).rstrip()
            cell.source = re.sub(r"\b([Hh])ints and solutions are", r"\1ints are", cell.source)
    return edition


def instructor(notebook):
    """The chapter with every hint and solution open. Not <details open>, which some viewers close or drop."""
    edition = copy.deepcopy(notebook)
    for cell in edition.cells:
        if cell.cell_type == "markdown":
            cell.source = FOLDED.sub(r"**\1.** \2\n\n", cell.source).rstrip()
            cell.source = re.sub(r"\*\*Solution\.\*\* (?=```)", "**Solution.**\n\n", cell.source)
    return edition


def slides(notebook) -> str:
    """The chapter as one page of reveal.js slides: sections to the right, what does not fit on one slide below it.

    Pictures come without the code that draws them, and long outputs without their middle.
    """
    edition = copy.deepcopy(notebook)
    edition.cells = [cell for cell in edition.cells if shown(cell)]
    for cell in edition.cells:
        if has_picture(cell):
            cell.metadata["transient"] = {"remove_source": True}            # nbconvert's word for it
        if cell.cell_type == "code":
            cell.outputs = shortened(cell.outputs)
    for cell, kind in zip(edition.cells, slide_types(edition.cells), strict=True):
        cell.metadata["slideshow"] = {"slide_type": kind}
        cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.html", cell.source)
    exporter = SlidesExporter(template_name="slides", extra_template_basedirs=[str(ROOT / "tools")], reveal_url_prefix="reveal.js",
                              reveal_theme="simple")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    return exporter.from_notebook_node(edition, resources={"metadata": {"name": edition.cells[0].source.splitlines()[0].lstrip("# ")}})[0]


def shortened(outputs: list) -> list:
    """The outputs, what was printed in a row joined, and of long ones only the first lines and the last."""
    kept = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if len(lines := output.get("text", "").splitlines()) > TALLEST:
            output.text = "\n".join([*lines[:TALLEST - 5], "…", *lines[-4:]]) + "\n"
    return kept


def shown(cell) -> bool:
    """Not the machinery of parameters, and neither hints nor solutions."""
    folded = cell.cell_type == "markdown" and FOLDED.search(cell.source)
    turns = "| parameter |" in cell.source or "parameters" in cell.metadata.get("tags", []) or "check_parameters(" in cell.source
    return not folded and not turns


def slide_types(cells) -> list[str]:
    """`slide` for a section's first cell, `subslide` where a slide would be too full or would give a guess's answer away."""
    kinds, lines, guess = [], 0, False
    for cell in cells:
        heading = re.match(r"(#+) ", cell.source) if cell.cell_type == "markdown" else None
        if heading and len(heading[1]) <= 2:
            kind = "slide"
        elif heading or guess or lines + height(cell) > SLIDE:
            kind = "subslide"
        else:
            kind = "-"
        lines = height(cell) + (lines if kind == "-" else 0)
        guess = cell.cell_type == "code" and re.match(r"my_guess\w* = ", cell.source) is not None
        kinds.append(kind)
    return kinds


def height(cell) -> float:
    """About how many lines a cell takes on a slide."""
    if cell.cell_type == "markdown":
        return sum(math.ceil(len(line) / 100) for line in cell.source.splitlines()) + 1
    lines = [] if has_picture(cell) else cell.source.splitlines()
    for output in cell.outputs:
        lines += (output.get("text", "") or output.get("data", {}).get("text/plain", "")).splitlines()
    return sum(math.ceil(len(line) / WIDE) for line in lines) + 1 + PICTURE * has_picture(cell)


def has_picture(cell) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
