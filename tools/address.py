"""Write the address of the course's repository into every page that shows it.

    python tools/address.py https://github.com/OWNER/NAME     set the address
    python tools/address.py none                              remove it again

The address is stored once, as `repository-code` in CITATION.cff. From there it goes

- into README.md: the line that clones the course, and links that open it on Binder and Colab,
- into the first code cell of each notebook, which installs gptlib on Colab and does nothing
  elsewhere,
- onto the site (make_site.py reads it): each chapter links to Binder and Colab.

Without an address, none of these is there.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"https://github\.com/([\w-]+/[\w.-]+?)(?:\.git)?/?")
STORED = re.compile(r'^repository-code: "(.*)"\n', re.MULTILINE)
README_PART = re.compile(r"(?<=<!-- start -->\n).*(?=<!-- /start -->)", re.DOTALL)
COLAB_CELL = "install-on-colab"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("address: give one address, such as https://github.com/OWNER/NAME, or none",
              file=sys.stderr)
        return 1
    try:
        set_address(ROOT, "" if arguments[0] == "none" else arguments[0])
    except ValueError as error:
        print(f"address: {error}", file=sys.stderr)
        return 1
    return 0


def set_address(root: Path, address: str) -> None:
    """Write the address into all files of the course in `root`, or remove it if it is "".

    Raises:
        ValueError: it is not the address of a repository on GitHub. No file is changed then.
    """
    if address:
        match = ADDRESS.fullmatch(address)
        if not match:
            raise ValueError(f"{address!r} is not the address of a repository on GitHub: "
                             "it should be https://github.com/OWNER/NAME")
        address = f"https://github.com/{match[1]}"
    citation, readme = root / "CITATION.cff", root / "README.md"
    text = STORED.sub("", citation.read_text(encoding="utf-8"))
    write(citation, text + f'repository-code: "{address}"\n' * bool(address))
    text = readme.read_text(encoding="utf-8")
    write(readme, README_PART.sub(lambda _: start(address), text))
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"] = with_colab_cell(notebook["cells"], address)
        write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def get_address(root: Path) -> str:
    """Return the address that is stored in CITATION.cff, or "" if there is none."""
    match = STORED.search((root / "CITATION.cff").read_text(encoding="utf-8"))
    return match[1] if match else ""


def links(address: str, notebook: str) -> str:
    """Return Markdown links that open a notebook, such as "01_bigram", on Binder and Colab."""
    repository = address.removeprefix("https://github.com/")
    path = f"notebooks/{notebook}.ipynb"
    return (f"[Binder](https://mybinder.org/v2/gh/{repository}/HEAD?labpath={path}) or "
            f"[Colab](https://colab.research.google.com/github/{repository}/blob/main/{path})")


def start(address: str) -> str:
    """Return the part of README.md between `<!-- start -->` and `<!-- /start -->`."""
    clone = f"git clone {address} gpt-course && cd gpt-course\n" * bool(address)
    online = ""
    if address:
        online = f"\nWithout installing: open chapter 1 on {links(address, '01_bigram')}.\n"
    return f"""```
{clone}make course        # run every chapter
make lab           # read and play: JupyterLab opens with your own copy of chapter 1
```
{online}"""


def with_colab_cell(cells: list[dict], address: str) -> list[dict]:
    """Return the cells with the one that installs gptlib on Colab, or without it."""
    cells = [cell for cell in cells if cell["id"] != COLAB_CELL]
    if not address:
        return cells
    source = ["# Google Colab needs the course's library. Elsewhere this cell does nothing.\n",
              "import sys\n", "\n", 'if "google.colab" in sys.modules:\n',
              f"    %pip install -q git+{address}"]
    cell = {"cell_type": "code", "execution_count": None, "id": COLAB_CELL,
            "metadata": {"tags": ["hide-input"]}, "outputs": [], "source": source}
    return [cells[0], cell, *cells[1:]]


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
