"""Run notebooks in place from a fresh kernel, and keep of them only what is worth committing.

    python tools/execute.py notebooks/01_bigram.ipynb
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
QUIET = ["--IPKernelApp.log_level=40"]      # the kernel warns of unencrypted local sockets at each start
MOST_BYTES = 400_000                        # of one cell's outputs


def execute(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, kernel_name="python3", timeout=1800, record_timing=False,
                   resources={"metadata": {"path": str(path.parent)}}, extra_arguments=QUIET).execute()
    clean(notebook)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")


def clean(notebook) -> None:
    """Drop progress bars, widget state and editors' metadata; number the code cells 1, 2, 3 …"""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if worth_keeping(output)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            output.get("data", {}).pop(WIDGET, None)
        size = len(str(cell.outputs))
        if size > MOST_BYTES:
            sys.exit(f"cell {cell.id} has {size:,} bytes of output; {MOST_BYTES:,} is the most that a page should carry")


def worth_keeping(output) -> bool:
    if output.output_type == "stream":
        return output.name != "stderr"      # progress bars
    data = output.get("data", {})
    return not (WIDGET in data and not {"text/html", "image/png"} & set(data))      # a widget is dead without its kernel


if __name__ == "__main__":
    for name in sys.argv[1:]:
        start = time.perf_counter()
        execute(Path(name))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
