"""Measure the computing time of each section of the chapters, for the plans in docs/teaching.

    OMP_NUM_THREADS=1 python tools/minutes.py               all chapters
    OMP_NUM_THREADS=1 python tools/minutes.py 05_bpe        some; the others keep their numbers
    python tools/minutes.py --fill                          none; only fills the pages again

The results go to docs/teaching/minutes.json and from there into the pages of docs/teaching. A page
marks where: `<!-- min CHAPTER: FIRST … LAST -->…<!-- end -->` for the sections from FIRST to LAST,
and `<!-- table CHAPTER -->…<!-- end -->`. The text between the two comments is replaced.

Computing time is the processor's time in the kernel, so a busy machine measures the same. Reading
time is not measured. It is estimated from the words and the lines of code, and the pages say so.
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
SECTIONS_MARK = re.compile(r"(<!-- min (\w+)(?:: (.+?) … (.+?))? -->).*?(<!-- end -->)", re.DOTALL)
TABLE_MARK = re.compile(r"(<!-- table (\w+) -->).*?(<!-- end -->)", re.DOTALL)
TABLE_HEADER = (
    "| section | reading and writing, minutes (estimate) | computing, minutes (measured) |")
# Without this the kernel warns about unencrypted local sockets at each start.
QUIET = ["--IPKernelApp.log_level=40"]
# The list is an attribute of IPython, because the chapters check every name in their namespace.
CLOCK = """
import json, time
shell = get_ipython()
shell._seconds = [0.0]
def cell_begins(info, shell=shell, clock=time.process_time):
    shell._seconds.append(-clock())
def cell_ends(result, shell=shell, clock=time.process_time):
    shell._seconds[-1] += clock()
shell.events.register("pre_run_cell", cell_begins)
shell.events.register("post_run_cell", cell_ends)
del shell, cell_begins, cell_ends
"""
REPORT = "print(json.dumps(get_ipython()._seconds))"


def main(names: list[str]) -> None:
    chapters = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    known = [path.stem for path in chapters]
    if unknown := sorted(set(names) - {"--fill", *known}):
        sys.exit(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for path in chapters:
        if not names or path.stem in names:
            results[path.stem] = measure(path)
            content = json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False)
            RESULTS.write_text(content + "\n", encoding="utf-8")
    for page in RESULTS.parent.glob("*.md"):
        filled = with_minutes(page.read_text(encoding="utf-8"), results)
        page.write_text(filled, encoding="utf-8")


def measure(path: Path) -> dict:
    """Run a chapter. Return its sections with their seconds, and when they were measured."""
    sections = measured_sections(path)
    print(f"{path.stem}: {total_seconds(sections):.0f} seconds of computing", flush=True)
    return {"date": datetime.date.today().isoformat(), "machine": platform.machine(),
            "torch": torch.__version__, "threads": torch.get_num_threads(), "sections": sections}


# The pages ----------------------------------------------------------------------------------------


def with_minutes(page: str, results: dict) -> str:
    """Return a page with its minutes and tables filled from the content of minutes.json."""
    def fill_sections(match):
        begin, chapter, first, last, end = match.groups()
        return begin + minutes(sections_of(results, chapter, first, last)) + end

    def fill_table(match):
        begin, chapter, end = match.groups()
        return f"{begin}\n\n{minutes_table(results, chapter)}\n\n{end}"

    return TABLE_MARK.sub(fill_table, SECTIONS_MARK.sub(fill_sections, page))


def sections_of(results: dict, chapter: str, first: str | None = None,
                last: str | None = None) -> list[dict]:
    """Return a chapter's sections from `first` to `last`, or all of them. Empty if not measured."""
    sections = results.get(chapter, {}).get("sections", [])
    if not sections or not first:
        return sections
    headings = [section["heading"] for section in sections]
    return sections[headings.index(first):headings.index(last) + 1]


def minutes(sections: list[dict]) -> str:
    """Return the minutes of reading and of computing, exercises left out."""
    if not sections:
        return "not measured yet"
    sections = [section for section in sections if not section["exercises"]]
    reading = sum(map(reading_minutes, sections))
    if not is_measured(sections):
        return f"about {reading:.0f}; computing not measured yet"
    return f"about {reading:.0f}; {total_seconds(sections) / 60:.1f} computing"


def reading_minutes(section: dict) -> float:
    """Estimate: 130 words or 10 lines of code a minute, and ten minutes for each exercise."""
    return section["words"] / 130 + section["lines"] / 10 + 10 * section["exercises"]


def is_measured(sections: list[dict]) -> bool:
    """Return whether each section has seconds. They are null after a change of the sections."""
    return all(section["seconds"] is not None for section in sections)


def total_seconds(sections: list[dict]) -> float:
    return sum(section["seconds"] for section in sections)


def minutes_table(results: dict, chapter: str) -> str:
    """Return a Markdown table with a row for each section and one for all of them."""
    sections = sections_of(results, chapter)
    if not sections:
        return f"*The minutes of {chapter} are not measured yet.*"
    lines = [TABLE_HEADER, "|---|---|---|"]
    for section in sections:
        lines.append(table_row(section["heading"], [section]))
    measured = results[chapter]
    lines.append(table_row("**all**", sections))
    if is_measured(sections):
        lines += ["", f"Measured on {measured['date']}, one thread, PyTorch {measured['torch']}."]
    return "\n".join(lines)


def table_row(name: str, sections: list[dict]) -> str:
    reading = sum(map(reading_minutes, sections))
    computing = f"{total_seconds(sections) / 60:.1f}" if is_measured(sections) else "not yet"
    return f"| {name} | {reading:.0f} | {computing} |"


# The measurement ----------------------------------------------------------------------------------


def measured_sections(path: Path) -> list[dict]:
    """Return heading, words, lines of code, exercises and seconds of each section.

    A second-level heading begins a section. The cells before the first one are called "Start".
    """
    notebook = nbformat.read(path, as_version=4)
    seconds = iter(seconds_by_code_cell(notebook, path.parent))
    sections = [new_section("Start")]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            sections[-1]["lines"] += sum(1 for line in cell.source.splitlines() if line.strip())
            sections[-1]["seconds"] += next(seconds)
            continue
        if heading := re.search(r"^## (.+)", cell.source, re.MULTILINE):
            sections.append(new_section(heading[1]))
        visible = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL)
        sections[-1]["words"] += len(visible.split())
        sections[-1]["exercises"] += len(re.findall(r"^### Exercise", cell.source, re.MULTILINE))
    for section in sections:
        section["seconds"] = round(section["seconds"], 1)
    return sections


def new_section(heading: str) -> dict:
    return {"heading": heading, "words": 0, "lines": 0, "exercises": 0, "seconds": 0.0}


def seconds_by_code_cell(notebook, folder: Path) -> list[float]:
    """Run a copy of the notebook with a clock in front. Its results go to a temporary folder."""
    timed = nbformat.from_dict(notebook)
    n_code = sum(cell.cell_type == "code" for cell in timed.cells)
    with tempfile.TemporaryDirectory() as out:
        for cell in timed.cells:
            if "parameters" in cell.metadata.get("tags", []):
                out_dir = f"out_dir = {out + '/run'!r}"
                cell.source = re.sub(r"^out_dir = .*$", lambda _, line=out_dir: line, cell.source,
                                     flags=re.MULTILINE)
        timed.cells.insert(0, nbformat.v4.new_code_cell(CLOCK))
        timed.cells.append(nbformat.v4.new_code_cell(REPORT))
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(timed, kernel_name="python3", timeout=7200, resources=resources,
                       extra_arguments=QUIET).execute()
    printed = [output.text for output in timed.cells[-1].outputs if output.get("name") == "stdout"]
    seconds = json.loads("".join(printed))
    # The first entries belong to the clock's own cell. The last one is the cell that reports.
    return seconds[-n_code - 1:-1]


if __name__ == "__main__":
    main(sys.argv[1:])
