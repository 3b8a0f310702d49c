"""The site is built from the committed notebooks, without a network, and all its links work."""

import ast
import base64
import json
import re
import runpy
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import make_site
import minutes as tools_minutes
import pytest
import scripts

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXECUTED = [path for path in CHAPTERS if "image/png" in path.read_text(encoding="utf-8")]
OTHER_NOTEBOOKS = [ROOT / "notebooks/train.ipynb", ROOT / "notebooks/playground.ipynb"]
MINUTES = json.loads((ROOT / "docs/teaching/minutes.json").read_text(encoding="utf-8"))
# A row of a table in docs/teaching/chapters.md: | misconception | `exercise` | *verdict* |
QUOTED = re.compile(r"^\| .+? \| `(\w+)` \| \*(.+)\* \|$", re.MULTILINE)


class Page(HTMLParser):
    """A page's links, the files it loads, the ids that a link can name, and its pictures."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.pictures = [], [], set(), []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in ("script", "img", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        if tag == "link" and "stylesheet" in (attributes.get("rel") or ""):
            self.loaded.append(attributes["href"])
        if tag == "img":
            self.pictures.append(attributes)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages by their path in the site, and the folder of the site.

    `make site` fetches MathJax. Here an empty script stands in its place.
    """
    folder = tmp_path_factory.mktemp("site")
    source, html = folder / "source", folder / "html"
    make_site.assemble(source)
    (source / "_static/mathjax.js").write_text("// formulas\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", source, html]
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr
    # The files in _static are templates of the theme.
    paths = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    return {path.relative_to(html).as_posix(): Page(path) for path in paths}, html


def png_outputs(path):
    """Return the outputs of a notebook that hold a picture."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "image/png" in output.get("data", {})]


# Chapters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_a_chapters_page_shows_the_committed_pictures_and_outputs(site, path):
    pages, folder = site
    page = pages[f"chapters/{path.stem}.html"]
    shown = {base64.b64encode((folder / "chapters" / picture["src"]).read_bytes())
             for picture in page.pictures if "_images" in picture["src"]}
    committed = {output["data"]["image/png"].replace("\n", "").encode()
                 for output in png_outputs(path)}
    assert shown == committed
    assert "<summary>Solution</summary>" in page.text and "not attempted: " in page.text


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_a_chapters_notebook_can_be_downloaded(site, path):
    page = site[0][f"chapters/{path.stem}.html"]
    assert f"../_sources/chapters/{path.name}" in page.links


@pytest.mark.parametrize("path", OTHER_NOTEBOOKS, ids=lambda path: path.stem)
def test_the_pages_beside_the_chapters_are_shown_and_stand_in_the_menu(site, path):
    pages, _ = site
    page = pages[f"chapters/{path.stem}.html"]
    assert [picture for picture in page.pictures if "_images" in picture["src"]]
    assert f"chapters/{path.stem}.html" in pages["index.html"].links


def test_no_page_loads_a_file_from_another_site(site):
    pages, _ = site
    for name, page in pages.items():
        assert not [file for file in page.loaded if re.match(r"(?:https?:)?//", file)], name
    loaded = pages["chapters/02_attention.html"].loaded
    assert any(file.startswith("../_static/mathjax.js") for file in loaded)


def test_every_picture_has_its_alt_text(site):
    pages, _ = site
    pictures = [(name, picture) for name, page in pages.items() for picture in page.pictures]
    assert len(pictures) > 30
    notebooks = [*EXECUTED, *OTHER_NOTEBOOKS]
    texts = {output["metadata"]["image/png"]["alt"]
             for path in notebooks for output in png_outputs(path)}
    for page in (ROOT / "docs").glob("*.md"):
        texts |= set(re.findall(r"!\[([^]]+)\]\(", make_site.read(page)))
    for name, picture in pictures:
        assert picture["alt"] in texts, name


def test_every_internal_link_has_a_target(site):
    pages, folder = site
    broken = [(name, link) for name, page in pages.items() for link in page.links + page.loaded
              if not has_target(link, name, pages, folder)]
    assert not broken


def has_target(link, name, pages, folder):
    """Return whether the file of an internal link exists, and the id that it names in that file."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    path = urllib.parse.unquote(parts.path)
    target = ((folder / name).parent / path if path else folder / name).resolve()
    page = pages.get(target.relative_to(folder.resolve()).as_posix())
    if not target.is_file():
        return False
    return not parts.fragment or page is None or urllib.parse.unquote(parts.fragment) in page.ids


def test_the_front_page_shows_a_picture_of_every_chapter_and_links_to_it(site):
    front_page = site[0]["index.html"]
    pictures = [picture["src"] for picture in front_page.pictures]
    for path in EXECUTED:
        assert f"chapters/{path.stem}.html" in front_page.links
        assert f"_images/{path.stem}.png" in pictures


def test_chapters_link_to_the_next_and_the_previous_one(site):
    pages, _ = site
    next_link = r'class="right-next"\s+href="02_attention.html"'
    previous_link = r'class="left-prev"\s+href="01_bigram.html"'
    assert re.search(next_link, pages["chapters/01_bigram.html"].text)
    assert re.search(previous_link, pages["chapters/02_attention.html"].text)


def test_the_chapters_are_in_the_search_index(site):
    index = (site[1] / "searchindex.js").read_text(encoding="utf-8")
    assert "softmax" in index and "chapters/02_attention" in index


# The library --------------------------------------------------------------------------------------


def test_every_module_of_the_library_has_a_reference(site):
    """The modules are found without make_site, so that this fails if make_site misses one."""
    ids = set().union(*(page.ids for name, page in site[0].items() if name.startswith("library/")))
    paths = [path for path in (ROOT / "gptlib").rglob("*.py") if not path.stem.startswith("_")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    assert {"gptlib.bpe.fast", "gptlib.classroom.exercises.bigram", "gptlib.plan"} <= modules
    assert {f"module-{module}" for module in modules} <= ids


def test_the_reference_has_the_members_of_a_module(site):
    assert "gptlib.bigram.count_bigrams" in site[0]["library/bigram.html"].ids
    assert "gptlib.corpora.courier.Courier.batch" in site[0]["library/corpora.courier.html"].ids


def test_the_librarys_page_links_to_every_module(site):
    page = site[0]["library.html"]
    for name in make_site.module_files():
        assert f"library/{name}.html" in page.links


def test_the_librarys_page_lists_modules_in_the_order_in_which_they_build_on_each_other():
    listed = make_site.listed_modules(make_site.read(ROOT / "docs/library.md"))
    for i, name in enumerate(listed):
        later = [f"gptlib.{other}" for other in listed[i + 1:]]
        for path in make_site.module_files()[name]:
            source = make_site.read(path)
            imported = re.findall(r"^from (gptlib[\w.]*) import", source, re.MULTILINE)
            assert not set(imported) & set(later), f"{name} stands above what it imports"


@pytest.mark.parametrize(("change", "expected"), [
    (lambda page: page.replace(" bpe.fast ", " "), "does not list the module bpe.fast"),
    (lambda page: page.replace(" bpe.fast ", " bpe.fast bpe.fast "), "lists bpe.fast, which"),
    (lambda page: page.replace(" bpe.fast ", " bpe.fast bpe.slow "), "lists bpe.slow, which"),
], ids=["missing", "twice", "unknown"])
def test_a_page_that_does_not_list_every_module_once_is_refused(change, expected):
    page = change(make_site.read(ROOT / "docs/library.md"))
    with pytest.raises(RuntimeError, match=expected):
        make_site.listed_modules(page)


DOCSTRINGS = {
    "indented text": (
        ["Train it:", "", "    train(*ids)", "", "It takes a_ while."],
        ["Train it:", "", "::", "", "    train(*ids)", "", r"It takes a\_ while."]),
    "Markdown table": (
        ["See:", "", "| a | b |", "|---|---|", "", "2 * 3"],
        ["See:", "", "::", "", "    | a | b |", "    |---|---|", "", r"2 \* 3"]),
    "list in a field": (
        [":param x: one of", "    - `a_`", "    - b", ":param y: *z"],
        [":param x: one of", "", "    - `a_`", "    - b", "", r":param y: \*z"]),
    "doctest": ([">>> 2 * 3", "6"], [">>> 2 * 3", "6"]),
}


@pytest.mark.parametrize(("lines", "expected"), DOCSTRINGS.values(), ids=DOCSTRINGS)
def test_docstrings_are_shown_as_they_are_written(lines, expected):
    convert_docstring = runpy.run_path(str(ROOT / "docs/conf.py"))["convert_docstring"]
    converted = list(lines)
    convert_docstring(None, "module", "gptlib.x", None, None, converted)
    assert converted == expected


# The glossary -------------------------------------------------------------------------------------


def test_the_glossary_has_every_term_and_links_to_its_first_use(site):
    text = site[0]["glossary.html"].text
    entries = dict(re.findall(r"<dt>(.+?)</dt>\s*<dd>(.*?)</dd>", text, re.DOTALL))
    terms = make_site.glossary_terms(make_site.read(ROOT / "docs/glossary.md"))
    assert list(entries) == terms
    linked = [term for term, entry in entries.items() if "First used in <a" in entry]
    assert len(linked) >= 45
    assert 'href="chapters/01_bigram.html' in entries["token"]
    assert 'href="chapters/02_attention.html#several-heads"' not in entries["token"]


@pytest.fixture
def chapter():
    chapter = make_site.Chapter(ROOT / "notebooks/02_attention.ipynb")
    chapter.prose = ["# Title\n\nwords", "## First · part\n\nnothing",
                     "## Heads & tails\n\nTwo heads.", "## Draws\n\n`top_k` keeps a few.",
                     "## Later\n\ntop-k again, in a block_size of 8"]
    return chapter


@pytest.mark.parametrize(("term", "expected"), [
    ("head", "[chapter 2, Heads & tails](chapters/02_attention.ipynb#heads--tails)"),
    ("tail", "[chapter 2, Heads & tails](chapters/02_attention.ipynb#heads--tails)"),
    ("top-k", "[chapter 2, Draws](chapters/02_attention.ipynb#draws)"),
    ("block size", "[chapter 2, Later](chapters/02_attention.ipynb#later)"),
    ("rabbit", None),
])
def test_the_first_use_of_a_term_is_a_link_to_the_first_section_with_it(chapter, term, expected):
    assert make_site.first_use(term, [chapter]) == expected


def test_a_term_without_a_use_keeps_its_entry_without_a_link(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("head\n: Thinks.\n\nrabbit\n: Runs.\n\ntail\n: Wags.\n", encoding="utf-8")
    make_site.add_first_use(page, "rabbit", None)
    make_site.add_first_use(page, "tail", "[here](x)")
    assert page.read_text(encoding="utf-8") == (
        "head\n: Thinks.\n\nrabbit\n: Runs.\n\ntail\n: Wags. First used in [here](x).\n")


# The classroom kit --------------------------------------------------------------------------------


def sentences(source):
    """Return all strings of a Python source. Parts of a string on several lines are joined."""
    constants = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_the_teaching_pages_quote_the_sentences_of_the_checks():
    rows = QUOTED.findall(make_site.read(ROOT / "docs/teaching/chapters.md"))
    assert len(rows) >= 4 * len(CHAPTERS)
    folder = ROOT / "gptlib/classroom/exercises"
    sources = [make_site.read(path) for path in folder.glob("[a-z]*.py")]
    for exercise, quote in rows:
        source, = [source for source in sources if f"def check_{exercise}(" in source]
        assert any(quote in sentence for sentence in sentences(source)), (exercise, quote)


@pytest.mark.parametrize("chapter", MINUTES)
def test_the_minutes_have_the_sections_of_the_chapter(chapter):
    cells = json.loads((ROOT / f"notebooks/{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = re.findall(r"^## (.+)", prose, re.MULTILINE)
    sections = MINUTES[chapter]["sections"]
    assert [section["heading"] for section in sections] == ["Start", *headings]
    assert sum(section["seconds"] for section in sections) > 1


def test_every_chapter_has_its_minutes():
    assert set(MINUTES) == {path.stem for path in EXECUTED}


@pytest.mark.parametrize("name", ["ten_weeks", "one_day", "chapters"])
def test_the_teaching_pages_show_the_measured_minutes(name):
    page = make_site.read(ROOT / f"docs/teaching/{name}.md")
    assert page == tools_minutes.with_minutes(page, MINUTES) and "computing" in page
    n_marks = page.count("<!-- min") + page.count("<!-- table")
    assert n_marks == page.count("<!-- end -->") > 0


def test_minutes_are_filled_in_without_exercises():
    part = {"heading": "A", "words": 130, "lines": 10, "exercises": 0, "seconds": 30.0}
    exercises = {"heading": "B", "words": 0, "lines": 0, "exercises": 2, "seconds": 0.0}
    filled = tools_minutes.with_minutes("<!-- min 01 -->old<!-- end -->",
                                        {"01": {"sections": [part, exercises]}})
    assert filled == "<!-- min 01 -->about 2; 0.5 computing<!-- end -->"


def test_a_section_without_seconds_is_shown_as_not_measured():
    results = {"01": {"sections": [
        {"heading": "A", "words": 130, "lines": 10, "exercises": 0, "seconds": None}]}}
    filled = tools_minutes.with_minutes("<!-- min 01 -->old<!-- end -->", results)
    assert filled == "<!-- min 01 -->about 2; computing not measured yet<!-- end -->"
    assert tools_minutes.minutes_table(results, "01").endswith("| **all** | 2 | not yet |")


# MathJax ------------------------------------------------------------------------------------------


def test_without_npm_the_error_says_how_to_get_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(scripts.shutil, "which", lambda name: None)
    expected = (r"mathjax 3\.2\.2 is fetched with npm, which is not installed: "
                r"install Node\.js, or unpack")
    with pytest.raises(RuntimeError, match=expected):
        scripts.package("mathjax", tmp_path)


def test_a_package_that_is_already_there_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(scripts.shutil, "which", lambda name: None)
    folder = tmp_path / "mathjax-3.2.2"
    folder.mkdir()
    assert scripts.package("mathjax", tmp_path) == folder
