"""Make the site: the chapters as they are committed, the library's reference, the glossary and the classroom kit.

    python tools/make_site.py            build/site/index.html, made without running a notebook

Sphinx reads build/site-source, which is put together here: docs/, copies of the chapters, and the pages made from them.
"""

import ast
import graphlib
import json
import re
import shutil
import sys
from binascii import a2b_base64
from pathlib import Path

from scripts import package
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).resolve().parents[1]
SOURCE, SITE = ROOT / "build/site-source", ROOT / "build/site"
COVERS = {"01_bigram": "Heat map"}          # how the alt text of the front page's picture begins; else it is the richest picture


def main() -> int:
    try:
        mathjax = package("mathjax") / "es5/tex-svg.js"     # one file, fonts and all
    except RuntimeError as error:
        print(f"make site: {error}", file=sys.stderr)
        return 1
    assemble(SOURCE)
    shutil.copyfile(mathjax, SOURCE / "_static/mathjax.js")
    shutil.rmtree(SITE, ignore_errors=True)
    return sphinx(["-q", "-W", "--keep-going", "-E", "-d", str(ROOT / "build/site-doctrees"), str(SOURCE), str(SITE)])


def assemble(source: Path) -> None:
    """Put everything but MathJax that Sphinx reads into the folder `source`."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("chapters", "covers", "library"):
        (source / folder).mkdir()
    chapters, unready = all_chapters()
    for chapter in chapters:
        (source / f"chapters/{chapter.path.name}").write_text(unlinked(read(chapter.path), unready), encoding="utf-8")
        (source / f"covers/{chapter.name}.png").write_bytes(chapter.cover[0])
    (source / "chapters/playground.ipynb").write_text(unlinked(read(ROOT / "notebooks/playground.ipynb"), unready), encoding="utf-8")
    shutil.copyfile(ROOT / "figures/course_map.png", source / "course_map.png")
    fill(source / "index.md", cards="\n".join(chapter.card() for chapter in chapters),
         chapters="\n".join(f"chapters/{name}" for name in [*(chapter.name for chapter in chapters), "playground"]))
    for term in glossary_terms(read(source / "glossary.md")):
        fill_term(source / "glossary.md", term, first_use(term, chapters))
    modules = library_modules()
    for name in modules:
        (source / f"library/{name}.md").write_text(reference(f"gptlib.{name}"), encoding="utf-8")
    fill(source / "library.md", modules="\n".join(f"library/{name}" for name in modules),
         table="\n".join(f"| [`{name}`](library/{name}.md) | {summary(name)} |" for name in modules))


def all_chapters() -> tuple[list["Chapter"], list["Chapter"]]:
    """The chapters in order, and those that somebody is still writing: they have no pictures yet."""
    chapters = [Chapter(path) for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
    for chapter in chapters:
        if not chapter.pictures:
            print(f"{chapter.name} has not been run, so the site goes without it", file=sys.stderr)
    return [chapter for chapter in chapters if chapter.pictures], [chapter for chapter in chapters if not chapter.pictures]


def unlinked(notebook: str, chapters: list["Chapter"]) -> str:
    """Links to chapters that the site goes without become their words."""
    for chapter in chapters:
        notebook = re.sub(rf"\[([^]\n]+)\]\({chapter.name}\.ipynb[^)]*\)", r"\1", notebook)
    return notebook


class Chapter:
    """A committed notebook, and what the front page says of it."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.stem
        self.cells = json.loads(read(path))["cells"]
        self.prose = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in self.cells]
        self.title = self.prose[0].splitlines()[0].removeprefix("# ")
        self.pictures = [(a2b_base64("".join(output["data"]["image/png"])), output["metadata"]["image/png"]["alt"])
                         for cell in self.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]

    @property
    def cover(self) -> tuple[bytes, str]:
        """The picture for the front page, and its text."""
        return max(self.pictures, key=lambda picture: (picture[1].startswith(COVERS.get(self.name, "\0")), len(picture[0])))

    def card(self) -> str:
        built = re.search(r"\*\*You will build\*\* (.*)", self.prose[0])[1]
        built = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", built)
        return (f":::{{container}} card\n[![{self.cover[1]}](covers/{self.name}.png)](chapters/{self.name}.ipynb)\n\n"
                f"**[{self.title}](chapters/{self.name}.ipynb)**\n\nYou will build {built}\n:::\n")


# The glossary ---------------------------------------------------------------------------------------------------------

def glossary_terms(page: str) -> list[str]:
    """The terms: every line that the next one explains, after a colon."""
    return re.findall(r"^(.+)\n: ", page, re.MULTILINE)


def first_use(term: str, chapters: list[Chapter]) -> str | None:
    """A link to the first section, chapters in order, whose prose uses the term."""
    spelled = re.escape(term).replace(r"\-", "[-_ ]")                       # top-k is top_k in code
    word = re.compile(rf"\b{spelled}(?:s|es)?\b", re.IGNORECASE)
    for chapter in chapters:
        place, anchor = f"chapter {int(chapter.name[:2])}", ""
        for prose in chapter.prose:
            for line in prose.splitlines():
                if heading := re.fullmatch(r"#{2,3} (.+)", line):
                    place, anchor = f"chapter {int(chapter.name[:2])}, {heading[1]}", f"#{slug(heading[1])}"
                if word.search(line):
                    return f"[{place}](chapters/{chapter.name}.ipynb{anchor})"
    return None


def fill_term(page: Path, term: str, link: str | None) -> None:
    """Add where it is first used; a term that no chapter uses yet is left out."""
    entry = re.compile(rf"^{re.escape(term)}\n: (.+)\n(\n|$)", re.MULTILINE)
    kept = entry.sub(lambda found: f"{term}\n: {found[1]} First used in {link}.\n\n" if link else "", read(page))
    page.write_text(kept, encoding="utf-8")


def slug(heading: str) -> str:
    """The anchor that MyST, like GitHub, gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# The library ----------------------------------------------------------------------------------------------------------

def library_modules() -> list[str]:
    """The names of gptlib's files, each after those that it imports."""
    files = {path.stem: path for path in sorted((ROOT / "gptlib").glob("*.py")) if not path.stem.startswith("_")}
    imports = {name: re.findall(r"^from gptlib\.(\w+) import", read(path), re.MULTILINE) for name, path in files.items()}
    return [name for name in graphlib.TopologicalSorter(imports).static_order() if name in files]


def summary(name: str) -> str:
    """The first paragraph of a file's docstring, in one line."""
    return " ".join(ast.get_docstring(ast.parse(read(ROOT / f"gptlib/{name}.py"))).split("\n\n")[0].split()).replace("|", r"\|")


def reference(module: str) -> str:
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"


def fill(page: Path, **values: str) -> None:
    """Put each value where the page says <!-- its name -->."""
    text = read(page)
    for name, value in values.items():
        assert f"<!-- {name} -->" in text, f"{page.name} has no place for {name}"
        text = text.replace(f"<!-- {name} -->", value)
    page.write_text(text, encoding="utf-8")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
