"""The settings of Sphinx, which reads a copy of this folder and of the chapters (`make site`)."""

import hashlib
import json
import re
from binascii import a2b_base64
from itertools import groupby
from pathlib import Path

from docutils import nodes

HERE = Path(__file__).parent

project = "A GPT, chapter by chapter"
html_title = project
author = "the gptlib authors"
copyright = "its authors, MIT licence"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
# One setting of an extension cannot be pickled. Nothing depends on it.
suppress_warnings = ["config.cache"]
exclude_patterns = ["README.md"]

# The site shows the committed outputs.
nb_execution_mode = "off"
# A widget does nothing without its kernel, and its script is on another site.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "image/png", 0),
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
# The library's page lists the modules.
html_domain_indices = False
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


def setup(app):
    app.alternative_texts = alternative_texts()
    app.connect("doctree-read", add_alternative_texts)
    # napoleon's priority is 500, so it has converted "Args:" and "Raises:" before.
    app.connect("autodoc-process-docstring", convert_docstring, priority=900)


# Alt texts of pictures ----------------------------------------------------------------------------


def alternative_texts() -> dict[str, str]:
    """Return the alt text of every picture in the chapters, by the picture's sha256.

    myst-nb names the file of a picture by its sha256.
    """
    texts = {}
    for chapter in (HERE / "chapters").glob("*.ipynb"):
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        for output in (output for cell in cells for output in cell.get("outputs", [])):
            if "image/png" in output.get("data", {}):
                picture = a2b_base64("".join(output["data"]["image/png"]))
                alt = output["metadata"]["image/png"]["alt"]
                texts[hashlib.sha256(picture).hexdigest()] = alt
    return texts


def add_alternative_texts(app, doctree):
    """Add the alt texts of outputs, which myst-nb does not copy."""
    for image in doctree.findall(nodes.image):
        text = app.alternative_texts.get(Path(image["uri"]).stem)
        if text:
            image["alt"] = text


# Docstrings ---------------------------------------------------------------------------------------


def convert_docstring(app, what, name, obj, options, lines):
    """Convert a docstring in place to reStructuredText, so that the page shows it as it is written.

    Indented blocks and Markdown tables become literal blocks. Lists get the blank lines that
    reStructuredText needs. Outside of them a star, a bar and a trailing underscore mean themselves.
    """
    converted = []
    last_unindented = ""
    was_literal = False
    for is_blank, block in groupby(lines[:], key=lambda line: not line.strip()):
        block = list(block)
        if is_blank:
            converted += block
            continue
        # Indented lines below these belong to a field such as ":param x:", or to a directive.
        in_field = last_unindented.startswith((":", ".."))
        is_literal = is_table(block) or (indent(block[0]) >= 4 and not in_field)
        if is_literal and not was_literal and not last_unindented.endswith("::"):
            converted += ["::", ""]
        if is_table(block):
            block = ["    " + line for line in block]
        converted += block if is_literal or is_doctest(block) else converted_prose(block)
        was_literal = is_literal
        last_unindented = next((line for line in block[::-1] if not indent(line)), last_unindented)
    lines[:] = converted


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_table(block: list[str]) -> bool:
    """Return whether all lines belong to a Markdown table."""
    return all(line.lstrip().startswith("|") for line in block)


def is_doctest(block: list[str]) -> bool:
    return block[0].lstrip().startswith(">>>")


def converted_prose(block: list[str]) -> list[str]:
    """Return the lines with special characters escaped, and with a blank line around each list."""
    converted = []
    list_indent = None
    for line in block:
        is_item = line.lstrip().startswith("- ")
        if is_item and list_indent is None and converted:
            converted.append("")
        elif not is_item and list_indent is not None and indent(line) <= list_indent:
            converted.append("")
            list_indent = None
        if is_item:
            list_indent = indent(line)
        converted.append(escaped(line))
    return converted


def escaped(line: str) -> str:
    """Return the line with a backslash before each special character outside of `code`."""
    parts = re.split(r"(`[^`]+`)", line)
    parts[::2] = [re.sub(r"([*|])|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)
