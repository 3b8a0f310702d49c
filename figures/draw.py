"""Draw the drawings of the chapters: figures/drawings/NAME.png, and alt_texts.json beside them.

    python figures/draw.py attention_head       one or several by name
    python figures/draw.py all                  all of them

Each drawing has a file in figures/drawings. The colours and shapes that they share are in
figures/style.py. Chapters show a drawing by `gptlib.plot.show_drawing("attention_head")`. The new
picture also goes into the outputs of these cells, so that no chapter has to run again.
"""

import base64
import importlib
import json
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "figures/drawings"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def main(names: list[str]) -> None:
    chosen = NAMES if names == ["all"] else names
    if not chosen or not set(chosen) <= set(NAMES):
        sys.exit(f"python figures/draw.py all, or some of: {', '.join(NAMES)}")
    for name in chosen:
        save(name, FOLDER)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        put_into_notebook(path)


def save(name: str, folder: Path) -> None:
    """Write the PNG of one drawing into `folder`, and its alt text into alt_texts.json there."""
    drawing, alt = importlib.import_module(f"drawings.{name}").draw()
    drawing.save(folder / f"{name}.png")
    path = folder / "alt_texts.json"
    alt_texts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content = json.dumps(alt_texts | {name: alt}, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(content + "\n", encoding="utf-8")


def put_into_notebook(path: Path) -> None:
    """Write the committed drawings into the outputs of the cells that show them."""
    alt_texts = json.loads((FOLDER / "alt_texts.json").read_text(encoding="utf-8"))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for name in alt_texts:
            if cell.cell_type == "code" and f'show_drawing("{name}")' in cell.source:
                png = base64.b64encode((FOLDER / f"{name}.png").read_bytes()).decode()
                data = {"image/png": png, "text/plain": "<IPython.core.display.Image object>"}
                metadata = {"image/png": {"alt": alt_texts[name], "width": 700}}
                cell.outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata)]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
