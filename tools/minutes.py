"""Measure what each section of the chapters computes, for the plans in docs/teaching: docs/teaching/minutes.json.

    OMP_NUM_THREADS=1 python tools/minutes.py               all chapters
    OMP_NUM_THREADS=1 python tools/minutes.py 05_bpe        some; the others keep what they have
    python tools/minutes.py --fill                          none; only write what is known into the pages

The pages of docs/teaching say where: `<!-- min CHAPTER: FIRST … LAST -->…<!-- end -->` for sections, both included, and
`<!-- table CHAPTER -->…<!-- end -->`; what stands between is replaced.

Computing is the processor's time in the kernel, so a busy machine measures the same. Reading is not measured: it is
estimated from the words and the lines of code, and called an estimate wherever it is shown.
"""

import datetime
import json
import platform
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/teaching/minutes.json"
CLOCK = """
import json, time
get_ipython()._seconds = [0.0]                          # no name of its own, for the chapters check the names they find
get_ipython().events.register("pre_run_cell", lambda info: get_ipython()._seconds.append(-time.process_time()))
get_ipython().events.register("post_run_cell", lambda result: get_ipython()._seconds.append(
    get_ipython()._seconds.pop() + time.process_time()))
"""


def main(names: list[str]) -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if not names or path.stem in names:
            results[path.stem] = {"date": datetime.date.today().isoformat(), "machine": platform.machine(), "torch": torch.__version__,
                                  "threads": torch.get_num_threads(), "sections": sections(path)}
            seconds = sum(section["seconds"] for section in results[path.stem]["sections"])
            print(f"{path.stem}: {seconds:.0f} seconds of computing", flush=True)
            RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for page in RESULTS.parent.glob("*.md"):
        page.write_text(with_minutes(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def with_minutes(page: str, results: dict) -> str:
    """A page with its minutes and tables as they follow from `results`, what minutes.json holds."""
    page = re.sub(r"(<!-- min (\w+)(?:: (.+?) … (.+?))? -->).*?(<!-- end -->)",
                  lambda found: found[1] + minutes(sections_of(results, *found.groups()[1:4])) + found[5], page, flags=re.DOTALL)
    return re.sub(r"(<!-- table (\w+) -->).*?(<!-- end -->)",
                  lambda found: f"{found[1]}\n\n{minutes_table(results, found[2])}\n\n{found[3]}", page, flags=re.DOTALL)


def sections_of(results: dict, chapter: str, first: str | None = None, last: str | None = None) -> list[dict]:
    sections = results.get(chapter, {}).get("sections", [])
    headings = [section["heading"] for section in sections]
    return sections[headings.index(first):headings.index(last) + 1] if sections and first else sections


def minutes(sections: list[dict]) -> str:
    if not sections:
        return "not measured yet"
    sections = [section for section in sections if not section["exercises"]]
    return f"about {sum(map(reading, sections)):.0f}; {sum(section['seconds'] for section in sections) / 60:.1f} computing"


def reading(section: dict) -> float:
    """An estimate: 130 words and 10 lines of code a minute, and ten minutes for each exercise."""
    return section["words"] / 130 + section["lines"] / 10 + 10 * section["exercises"]


def minutes_table(results: dict, chapter: str) -> str:
    sections = sections_of(results, chapter)
    if not sections:
        return f"*The minutes of {chapter} are not measured yet.*"
    rows = [f"| {section['heading']} | {reading(section):.0f} | {section['seconds'] / 60:.1f} |" for section in sections]
    measured = results[chapter]
    return "\n".join(["| section | reading and writing, minutes (estimate) | computing, minutes (measured) |", "|---|---|---|", *rows,
                      f"| **all** | {sum(map(reading, sections)):.0f} | {sum(section['seconds'] for section in sections) / 60:.1f} |", "",
                      f"Measured on {measured['date']}, one thread, PyTorch {measured['torch']}."])


def sections(path: Path) -> list[dict]:
    """Heading, words, lines of code and seconds of each section that a second-level heading begins."""
    notebook = nbformat.read(path, as_version=4)
    seconds = iter(seconds_by_code_cell(notebook, path.parent))
    found = [{"heading": "Start", "words": 0, "lines": 0, "exercises": 0, "seconds": 0.0}]
    for cell in notebook.cells:
        heading = re.search(r"^## (.+)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            found.append({"heading": heading[1], "words": 0, "lines": 0, "exercises": 0, "seconds": 0.0})
        if cell.cell_type == "markdown":
            found[-1]["exercises"] += len(re.findall(r"^### Exercise", cell.source, re.MULTILINE))
            found[-1]["words"] += len(re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL).split())
        else:
            found[-1]["lines"] += len([line for line in cell.source.splitlines() if line.strip()])
            found[-1]["seconds"] += next(seconds)
    for section in found:
        section["seconds"] = round(section["seconds"], 1)
    return found


def seconds_by_code_cell(notebook, folder: Path) -> list[float]:
    """Run a copy of the notebook with a clock in its first cell; its results go to a folder that is thrown away."""
    timed = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory() as out:
        cells = []
        for cell in timed.cells:
            cells.append(cell)
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = re.sub(r'^out_dir = .*$', lambda _: f"out_dir = {out + '/run'!r}", cell.source, flags=re.MULTILINE)
        timed.cells = [nbformat.v4.new_code_cell(CLOCK), *cells, nbformat.v4.new_code_cell("print(json.dumps(get_ipython()._seconds))")]
        NotebookClient(timed, kernel_name="python3", timeout=7200, resources={"metadata": {"path": str(folder)}},
                       extra_arguments=["--IPKernelApp.log_level=40"]).execute()
    spent = json.loads("".join(output.text for output in timed.cells[-1].outputs if output.get("name") == "stdout"))
    n_code = sum(cell.cell_type == "code" for cell in cells)
    return spent[-n_code - 1:-1]                        # the first cell's end may be in it; the last cell is still running


if __name__ == "__main__":
    main(sys.argv[1:])
