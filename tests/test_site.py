"""The site is built from the notebooks as they are, without a network, and everything that it refers to is there."""

import base64
import json
import re
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
EXECUTED = [path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")) if "image/png" in path.read_text(encoding="utf-8")]
MINUTES = json.loads((ROOT / "docs/teaching/minutes.json").read_text(encoding="utf-8"))
QUOTED = re.compile(r"^\| .+? \| `(\w+)` \| \*(.+)\* \|$", re.MULTILINE)


class Page(HTMLParser):
    """What a page refers to, the names that it can be entered by, and its pictures."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.pictures = [], [], set(), []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and "stylesheet" in (found.get("rel") or ""):
            self.loaded.append(found["href"])
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages by their path in the site. MathJax is left to `make site`, which can fetch it: here a file stands in for it."""
    folder = tmp_path_factory.mktemp("site")
    make_site.assemble(folder / "source")
    (folder / "source/_static/mathjax.js").write_text("// formulas\n", encoding="utf-8")
    built = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", folder / "source", folder / "html"],
                           capture_output=True, text=True, encoding="utf-8")
    assert built.returncode == 0, built.stderr
    paths = [path for path in (folder / "html").rglob("*.html") if "_static" not in path.parts]         # the theme's templates
    return {path.relative_to(folder / "html").as_posix(): Page(path) for path in paths}, folder / "html"


def test_every_chapter_is_there_as_it_was_committed_and_can_be_downloaded(site):
    pages, folder = site
    for path in EXECUTED:
        page = pages[f"chapters/{path.stem}.html"]
        notebook = json.loads(path.read_text(encoding="utf-8"))
        pictures = [output for cell in notebook["cells"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        shown = {base64.b64encode((folder / "chapters" / picture["src"]).read_bytes()) for picture in page.pictures
                 if "_images" in picture["src"]}
        assert shown == {output["data"]["image/png"].replace("\n", "").encode() for output in pictures}
        assert f"../_sources/chapters/{path.name}" in page.links
        assert "<summary>Solution</summary>" in page.text and "not attempted: " in page.text


def test_no_page_loads_anything_from_elsewhere(site):
    for name, page in site[0].items():
        assert not [file for file in page.loaded if re.match(r"(?:https?:)?//", file)], name
    assert any(file.startswith("../_static/mathjax.js") for file in site[0]["chapters/02_attention.html"].loaded)


def test_every_picture_has_its_text(site):
    pages, _ = site
    pictures = [(name, picture) for name, page in pages.items() for picture in page.pictures]
    assert len(pictures) > 30
    notebooks = [*EXECUTED, ROOT / "notebooks/playground.ipynb"]
    texts = {output["metadata"]["image/png"]["alt"] for path in notebooks for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
             for output in cell.get("outputs", []) if "image/png" in output.get("data", {})}
    for name, picture in pictures:
        assert picture["alt"] in texts or picture["alt"].startswith("The course map: "), name      # and no file's name


def test_every_internal_link_leads_somewhere(site):
    pages, folder = site
    broken = []
    for name, page in pages.items():
        for link in page.links + page.loaded:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (folder / name).parent / urllib.parse.unquote(parts.path) if parts.path else folder / name
            target = target.resolve()
            known = pages.get(target.relative_to(folder.resolve()).as_posix())
            entered = not parts.fragment or known is None or urllib.parse.unquote(parts.fragment) in known.ids
            if not target.is_file() or not entered:
                broken.append((name, link))
    assert not broken


def test_the_front_page_shows_every_chapter_and_leads_to_it(site):
    front = site[0]["index.html"]
    for path in EXECUTED:
        assert f"chapters/{path.stem}.html" in front.links
        assert f"_images/{path.stem}.png" in [picture["src"] for picture in front.pictures]


def test_pages_follow_each_other_and_can_be_searched(site):
    pages, folder = site
    assert re.search(r'class="right-next"\s+href="02_attention.html"', pages["chapters/01_bigram.html"].text)
    assert re.search(r'class="left-prev"\s+href="01_bigram.html"', pages["chapters/02_attention.html"].text)
    index = (folder / "searchindex.js").read_text(encoding="utf-8")
    assert "softmax" in index and "chapters/02_attention" in index


def test_the_library_s_reference_has_every_file_and_its_docstrings(site):
    pages, _ = site
    for path in (ROOT / "gptlib").glob("[a-z]*.py"):
        assert f'id="module-gptlib.{path.stem}"' in pages[f"library/{path.stem}.html"].text
    assert "gptlib.bigram.count_bigrams" in pages["library/bigram.html"].ids


def test_the_glossary_says_where_each_word_comes_first(site):
    text = site[0]["glossary.html"].text
    entries = re.findall(r"<dt>(.+?)</dt>\s*<dd>(.*?)</dd>", text, re.DOTALL)
    assert len(entries) >= 45
    assert all("First used in <a" in entry for _, entry in entries)
    assert 'href="chapters/01_bigram.html' in dict(entries)["token"]
    assert 'href="chapters/02_attention.html#several-heads"' not in dict(entries)["token"]


def test_a_term_is_placed_in_the_first_section_that_uses_it_and_left_out_if_none_does(tmp_path):
    chapter = make_site.Chapter(ROOT / "notebooks/02_attention.ipynb")
    chapter.prose = ["# Title\n\nwords", "## First · part\n\nnothing", "## Heads & tails\n\nTwo heads."]
    assert make_site.first_use("head", [chapter]) == "[chapter 2, Heads & tails](chapters/02_attention.ipynb#heads--tails)"
    assert make_site.first_use("tail", [chapter]) == "[chapter 2, Heads & tails](chapters/02_attention.ipynb#heads--tails)"
    assert make_site.first_use("rabbit", [chapter]) is None
    chapter.prose += ["## Draws\n\n`top_k` keeps a few.", "## Later\n\ntop-k again"]
    assert make_site.first_use("top-k", [chapter]) == "[chapter 2, Draws](chapters/02_attention.ipynb#draws)"
    (tmp_path / "page.md").write_text("a head\n: Thinks.\n\nrabbit\n: Runs.\n\ntail\n: Wags.\n", encoding="utf-8")
    make_site.fill_term(tmp_path / "page.md", "rabbit", None)
    make_site.fill_term(tmp_path / "page.md", "tail", "[here](x)")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == "a head\n: Thinks.\n\ntail\n: Wags. First used in [here](x).\n\n"


def test_teachers_are_told_what_the_checks_really_say():
    rows = QUOTED.findall((ROOT / "docs/teaching/chapters.md").read_text(encoding="utf-8"))
    assert len(rows) >= 4 * len(list((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")))
    checks = {path: path.read_text(encoding="utf-8") for path in (ROOT / "gptlib/exercises").glob("[a-z]*.py")}
    for exercise, sentence in rows:
        assert [path for path, source in checks.items() if f"def check_{exercise}(" in source and sentence in source], sentence


def test_the_minutes_belong_to_the_chapters_as_they_are():
    for chapter, measured in MINUTES.items():
        cells = json.loads((ROOT / f"notebooks/{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        headings = re.findall(r"^## (.+)", prose, re.MULTILINE)
        assert [section["heading"] for section in measured["sections"]] == ["Start", *headings]
        assert sum(section["seconds"] for section in measured["sections"]) > 1


def test_the_teaching_pages_have_the_minutes_that_were_measured():
    assert set(MINUTES) == {path.stem for path in EXECUTED}
    for page in ("ten_weeks", "one_day", "chapters"):
        text = (ROOT / f"docs/teaching/{page}.md").read_text(encoding="utf-8")
        assert text == tools_minutes.with_minutes(text, MINUTES) and "computing" in text
        assert text.count("<!-- min") + text.count("<!-- table") == text.count("<!-- end -->")
    half = {"01": {"sections": [{"heading": "A", "words": 130, "lines": 10, "exercises": 0, "seconds": 30.0},
                                {"heading": "B", "words": 0, "lines": 0, "exercises": 2, "seconds": 0.0}]}}
    assert tools_minutes.with_minutes("<!-- min 01 -->old<!-- end -->", half) == "<!-- min 01 -->about 2; 0.5 computing<!-- end -->"


def test_without_npm_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(scripts.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"mathjax 3\.2\.2 is fetched with npm, which is not there: install Node\.js, or unpack"):
        scripts.package("mathjax", tmp_path)
    (tmp_path / "mathjax-3.2.2").mkdir()
    assert scripts.package("mathjax", tmp_path) == tmp_path / "mathjax-3.2.2"
