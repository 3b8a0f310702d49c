"""Sphinx's settings. `make site` puts this folder, the chapters and what it makes of them into build/site-source."""

import hashlib
import json
import re
from binascii import a2b_base64
from pathlib import Path

from docutils import nodes

HERE = Path(__file__).parent

project = "A GPT, chapter by chapter"
html_title = project
author = "the gptlib authors"
copyright = "its authors, MIT licence"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
suppress_warnings = ["config.cache"]                        # an extension's own setting cannot be pickled; nothing is lost
exclude_patterns = ["README.md"]

nb_execution_mode = "off"                                   # what is shown is what is committed
nb_ipywidgets_js = {}                                       # a widget is dead without its kernel, and its script lies elsewhere
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None), ("html", "image/png", 0)]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_domain_indices = False                                 # the library's page lists its files
html_css_files = ["course.css"]
mathjax_path = "mathjax.js"
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_rtype = False
default_role = "code"


def alternative_texts() -> dict[str, str]:
    """The text of every picture in the chapters, by the name that myst-nb gives its file: the picture's sha256."""
    texts = {}
    for chapter in (HERE / "chapters").glob("*.ipynb"):
        for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    picture = a2b_base64("".join(output["data"]["image/png"]))
                    texts[hashlib.sha256(picture).hexdigest()] = output["metadata"]["image/png"]["alt"]
    return texts


def give_pictures_their_texts(app, doctree):
    """myst-nb leaves the alt texts of outputs behind."""
    for image in doctree.findall(nodes.image):
        text = app.alternative_texts.get(Path(image["uri"]).stem)
        if text:
            image["alt"] = text


def markdown_to_rst(app, what, name, obj, options, lines):
    """Docstrings are written to be read as they are: a star, a bar and a trailing underscore mean themselves."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "|", "+-")):
            parts = re.split(r"(`[^`]+`)", line)
            parts[::2] = [re.sub(r"([*|])|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app):
    app.alternative_texts = alternative_texts()
    app.connect("doctree-read", give_pictures_their_texts)
    app.connect("autodoc-process-docstring", markdown_to_rst, priority=900)
