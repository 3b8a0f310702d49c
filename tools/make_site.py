"""Build the site: the chapters, the library's reference, the glossary and the classroom kit.

    python tools/make_site.py            writes build/site/index.html without running a notebook

Sphinx reads build/site-source. This file assembles that folder from docs/, from copies of the
committed chapters, and from pages that it generates.
"""

import ast
import json
import re
import shutil
import sys
from binascii import a2b_base64
from pathlib import Path

from address import get_address, links
from committed import check_committed
from scripts import package
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "gptlib"
SOURCE = ROOT / "build/site-source"
SITE = ROOT / "build/site"
DOCTREES = ROOT / "build/site-doctrees"
# The alt texts of the drawings. The front page shows the first drawing of each chapter.
DRAWINGS = json.loads((ROOT / "figures/drawings/alt_texts.json").read_text(encoding="utf-8"))
# The notebooks that are no chapters.
OTHER_PAGES = ["train", "playground"]


def main() -> int:
    try:
        if warning := check_committed(ROOT):
            print(f"make site: {warning}", file=sys.stderr)
        # MathJax as one file that holds its fonts.
        mathjax = package("mathjax") / "es5/tex-svg.js"
        assemble(SOURCE)
    except RuntimeError as error:
        print(f"make site: {error}", file=sys.stderr)
        return 1
    shutil.copyfile(mathjax, SOURCE / "_static/mathjax.js")
    shutil.rmtree(SITE, ignore_errors=True)
    strict = ["-q", "-W", "--keep-going", "-E"]
    return sphinx([*strict, "-d", str(DOCTREES), str(SOURCE), str(SITE)])


def assemble(source: Path) -> None:
    """Write everything that Sphinx reads into the folder `source`, except MathJax."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("chapters", "covers", "library", "figures"):
        (source / folder).mkdir()
    for page in source.glob("*.md"):
        write(page, with_site_links(read(page), source))
    chapters, unready = all_chapters()
    write_chapters(source, chapters, unready)
    write_front_page(source, chapters)
    for term in glossary_terms(read(source / "glossary.md")):
        add_first_use(source / "glossary.md", term, first_use(term, chapters))
    write_library(source)


def with_site_links(page: str, source: Path) -> str:
    """Return a page of docs/ with its links as the site needs them, and copy the linked figures.

    On GitHub, docs/, notebooks/ and figures/ lie side by side. On the site, the chapters are in
    chapters/, and the figures are in figures/. Other files are not there: of a link to such a file,
    only the text stays.
    """
    for name in re.findall(r"\]\(\.\./figures/([^)]+)\)", page):
        shutil.copyfile(ROOT / "figures" / name, source / "figures" / name)
    page = page.replace("](../figures/", "](figures/").replace("](../notebooks/", "](chapters/")
    return re.sub(r"\[([^]\n]+)\]\(\.\./[^)]*\)", r"\1", page)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def fill(page: Path, **values: str) -> None:
    """Replace each comment `<!-- name -->` of the page by the value with that name."""
    text = read(page)
    for name, value in values.items():
        assert f"<!-- {name} -->" in text, f"{page.name} has no comment <!-- {name} -->"
        text = text.replace(f"<!-- {name} -->", value)
    write(page, text)


# The chapters -------------------------------------------------------------------------------------


class Chapter:
    """A committed notebook, and its card on the front page."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.stem
        cells = json.loads(read(path))["cells"]
        # The text of each cell. A code cell has none.
        self.prose = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
                      for cell in cells]
        self.title = self.prose[0].splitlines()[0].removeprefix("# ")
        # The pictures of all cells, as (bytes of the PNG file, alt text).
        self.pictures = []
        for cell in cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    picture = a2b_base64("".join(output["data"]["image/png"]))
                    self.pictures.append((picture, output["metadata"]["image/png"]["alt"]))

    @property
    def cover(self) -> tuple[bytes, str]:
        """The picture for the front page, and its alt text.

        It is the chapter's first drawing. Without drawings, it is the picture with the most bytes.
        """
        drawings = [picture for picture in self.pictures if picture[1] in DRAWINGS.values()]
        return (drawings or sorted(self.pictures, key=lambda picture: -len(picture[0])))[0]

    def card(self) -> str:
        """Return the Markdown of the card: cover, title, and what the reader will build."""
        page = f"chapters/{self.name}.ipynb"
        built = re.search(r"\*\*You will build\*\* (.*)", self.prose[0])[1]
        built = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", built)
        return (f":::{{container}} card\n[![{self.cover[1]}](covers/{self.name}.png)]({page})\n\n"
                f"**[{self.title}]({page})**\n\nYou will build {built}\n:::\n")


def all_chapters() -> tuple[list[Chapter], list[Chapter]]:
    """Return the chapters that have been run, and those that have not: they hold no pictures."""
    ready, unready = [], []
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        chapter = Chapter(path)
        if chapter.pictures:
            ready.append(chapter)
        else:
            print(f"{chapter.name} has not been run, so the site leaves it out", file=sys.stderr)
            unready.append(chapter)
    return ready, unready


def write_chapters(source: Path, chapters: list[Chapter], unready: list[Chapter]) -> None:
    """Copy the chapters and the other pages, and write the covers."""
    others = [ROOT / f"notebooks/{name}.ipynb" for name in OTHER_PAGES]
    address = get_address(ROOT)
    for path in [*(chapter.path for chapter in chapters), *others]:
        # In the repository the glossary is in docs/, on the site it is beside the chapters' folder.
        page = read(path).replace("](../docs/glossary.md", "](../glossary.md")
        page = without_links(page, unready)
        if address:
            page = with_links_to_open(page, links(address, path.stem))
        write(source / "chapters" / path.name, page)
    for chapter in chapters:
        (source / f"covers/{chapter.name}.png").write_bytes(chapter.cover[0])


def with_links_to_open(notebook: str, markdown: str) -> str:
    """Return the notebook with a line at the end of its first cell that opens it elsewhere."""
    content = json.loads(notebook)
    content["cells"][0]["source"] = [*content["cells"][0]["source"],
                                     f"\n\nOpen this page on {markdown}."]
    return json.dumps(content, ensure_ascii=False)


def without_links(notebook: str, chapters: list[Chapter]) -> str:
    """Return the notebook with every link to one of `chapters` replaced by its text."""
    for chapter in chapters:
        notebook = re.sub(rf"\[([^]\n]+)\]\({chapter.name}\.ipynb[^)]*\)", r"\1", notebook)
    return notebook


def write_front_page(source: Path, chapters: list[Chapter]) -> None:
    """Fill the front page with the cards and the list of pages."""
    names = [*(chapter.name for chapter in chapters), *OTHER_PAGES]
    fill(source / "index.md", cards="\n".join(chapter.card() for chapter in chapters),
         chapters="\n".join(f"chapters/{name}" for name in names))


# The glossary -------------------------------------------------------------------------------------


def glossary_terms(page: str) -> list[str]:
    """Return the terms: every line whose next line begins with a colon."""
    return re.findall(r"^(.+)\n: ", page, re.MULTILINE)


def first_use(term: str, chapters: list[Chapter]) -> str | None:
    """Return a link to the first section whose prose uses the term, or None if no section does."""
    # "block size" is also written block_size, and "top-k" is also written top_k.
    spelled = re.sub(r"(?:\\-|\\ )", "[-_ ]", re.escape(term))
    word = re.compile(rf"\b{spelled}(?:s|es)?\b", re.IGNORECASE)
    for chapter in chapters:
        number = f"chapter {int(chapter.name[:2])}"
        section, anchor = number, ""
        for line in "\n".join(chapter.prose).splitlines():
            if heading := re.fullmatch(r"#{2,3} (.+)", line):
                section, anchor = f"{number}, {heading[1]}", f"#{slug(heading[1])}"
            if word.search(line):
                return f"[{section}](chapters/{chapter.name}.ipynb{anchor})"
    return None


def add_first_use(page: Path, term: str, link: str | None) -> None:
    """Add to the term's entry where it is first used. Without a link, leave the entry as it is."""
    entry = re.compile(rf"^({re.escape(term)}\n: .+)$", re.MULTILINE)
    if link:
        write(page, entry.sub(lambda match: f"{match[1]} First used in {link}.", read(page)))


def slug(heading: str) -> str:
    """Return the anchor that MyST, like GitHub, gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# The library --------------------------------------------------------------------------------------

MODULES = re.compile(r"<!-- modules: ([^>]+) -->")


def write_library(source: Path) -> None:
    """Write a page for each module, and fill each section of the library's page with a table."""
    page = source / "library.md"
    modules = listed_modules(read(page))
    for name in modules:
        write(source / f"library/{name}.md", reference(name))
    write(page, MODULES.sub(lambda match: module_table(match[1].split()), read(page)))
    fill(page, pages="\n".join(f"library/{name}" for name in modules))


def listed_modules(page: str) -> list[str]:
    """Return the modules that docs/library.md lists, in its order.

    Raises:
        RuntimeError: the page does not list exactly the modules of the library, each once.
    """
    listed = " ".join(MODULES.findall(page)).split()
    existing = module_files()
    for name in existing:
        if name not in listed:
            raise RuntimeError(f"docs/library.md does not list the module {name}")
    for name in listed:
        if name not in existing or listed.count(name) > 1:
            raise RuntimeError(f"docs/library.md lists {name}, "
                               "which is no module or is listed twice")
    return listed


def module_files() -> dict[str, list[Path]]:
    """Return the library's public modules with their files, by a name such as "bpe.fast".

    The checks of the exercises have one file for each chapter and together one page.
    """
    files = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        *packages, name = path.relative_to(LIBRARY).with_suffix("").parts
        if packages == ["classroom", "exercises"]:
            if not name.startswith("_"):
                files.setdefault("classroom.exercises", []).append(path)
        elif not name.startswith("_"):
            files[".".join([*packages, name])] = [path]
    return files


def module_table(names: list[str]) -> str:
    """Return a Markdown table with a link to each module and a summary of it."""
    rows = [f"| [`{name}`](library/{name}.md) | {summary(name)} |" for name in names]
    return "\n".join(["| module | what it does |", "|---|---|", *rows])


def summary(name: str) -> str:
    """Return the first paragraph of a module's docstring as one line."""
    path = LIBRARY / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(read(path)))
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", r"\|")


def reference(name: str) -> str:
    """Return the page of a module: its docstring and its members."""
    lines = [f"# gptlib.{name}", "", "```{eval-rst}"]
    for path in module_files()[name]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        lines += [f".. automodule:: {module}", "   :members:", ""]
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(f"make site: {sys.argv[1]!r} should be left out, this program takes no argument")
    sys.exit(main())
