"""Run notebooks in place in a fresh kernel, and remove what should not be committed.

    python tools/execute.py notebooks/01_bigram.ipynb
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
# Without this the kernel warns about unencrypted local sockets at each start.
QUIET = ["--IPKernelApp.log_level=40"]
# The largest output that one cell may have.
MAX_OUTPUT_BYTES = 400_000


def execute(path: Path) -> None:
    """Run the notebook from top to bottom, clean it, check it and save it."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except AttributeError:
        raise nbformat.reader.NotJSONError("it is JSON without cells") from None
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=1800, record_timing=False,
                            resources=resources, extra_arguments=QUIET)
    client.execute()
    clean(notebook)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")


def clean(notebook) -> None:
    """Remove progress bars, widget state and editors' metadata. Number the code cells 1, 2, 3 …"""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}})
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += 1
            clean_outputs(cell, count)


def clean_outputs(cell, count: int) -> None:
    """Give a code cell the number `count`, and remove the outputs that should not be committed."""
    cell.execution_count = count
    cell.outputs = [output for output in cell.outputs if is_committed(output)]
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = count
        output.get("data", {}).pop(WIDGET, None)
    size = len(str(cell.outputs))
    if size > MAX_OUTPUT_BYTES:
        sys.exit(f"cell {cell.id} has {size:,} bytes of output; "
                 f"it should have at most {MAX_OUTPUT_BYTES:,}")


def is_committed(output) -> bool:
    """Return whether an output is committed. Progress bars and bare widgets are not."""
    if output.output_type == "stream":
        # Progress bars are written to stderr.
        return output.name != "stderr"
    data = output.get("data", {})
    # A widget shows nothing without its kernel, unless a picture or HTML stands beside it.
    return WIDGET not in data or bool({"text/html", "image/png"} & set(data))


def main(names: list[str]) -> None:
    if not names:
        sys.exit("give the paths of notebooks, such as notebooks/01_bigram.ipynb")
    for name in names:
        start = time.perf_counter()
        try:
            execute(Path(name))
        except (OSError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
            sys.exit(f"{name} is not a notebook that can be read and written: {one_line(error)}")
        except CellExecutionError as error:
            sys.exit(f"{name} is unchanged, because a cell failed: {error.ename}: {error.evalue}")
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


def one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]


if __name__ == "__main__":
    main(sys.argv[1:])
