"""Run the course: every chapter in order, then the leaderboard and a page by the trained GPT.

    python tools/course.py                  all chapters at their defaults
    python tools/course.py 01_bigram        some of them
"""

import sys
import time
from pathlib import Path

import papermill

from gptlib.classroom.leaderboard import leaderboard, read_results

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs"
SAMPLE = RUNS / "04_full_gpt/sample.txt"
# Without this the kernel warns about unencrypted local sockets at each start.
QUIET = ["--IPKernelApp.log_level=40"]


def main(names: list[str]) -> None:
    start = time.perf_counter()
    for chapter in chosen_chapters(names):
        run(chapter)
    print(f"\n{leaderboard(rows_on_last_corpus(read_results(RUNS)))}")
    if SAMPLE.is_file():
        text = SAMPLE.read_text(encoding="utf-8")
        print(f"\nA page by the trained GPT ({SAMPLE.relative_to(ROOT)}):\n\n{text}")
    print(f"\nThe course took {time.perf_counter() - start:.0f} s. "
          f"The executed chapters and their results are in {RUNS.relative_to(ROOT)}/.")


def chosen_chapters(names: list[str]) -> list[Path]:
    """Return the chapters with these names, in the order of the course. No names mean all."""
    chapters = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    known = [chapter.stem for chapter in chapters]
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}")
    return [chapter for chapter in chapters if not names or chapter.stem in names]


def run(chapter: Path) -> None:
    """Execute one chapter into runs/<chapter>/ and print how long it took."""
    out = RUNS / chapter.stem
    out.mkdir(parents=True, exist_ok=True)
    for old_result in out.glob("result-*.json"):
        old_result.unlink()
    start = time.perf_counter()
    try:
        papermill.execute_notebook(chapter, out / chapter.name, cwd=chapter.parent,
                                   kernel_name="python3", language="python",
                                   extra_arguments=QUIET)
    except papermill.PapermillExecutionError as error:
        sys.exit(f"{chapter.stem} stopped in cell {error.exec_count}: "
                 f"{error.ename}: {error.evalue}\n"
                 f"See {(out / chapter.name).relative_to(ROOT)}")
    print(f"{chapter.stem}: {time.perf_counter() - start:.0f} s", flush=True)


def rows_on_last_corpus(rows: list[dict]) -> list[dict]:
    """Return the rows on the last chapter's corpus. Losses on different texts do not compare."""
    return [row for row in rows if row["corpus_sha256"] == rows[-1]["corpus_sha256"]]


if __name__ == "__main__":
    main(sys.argv[1:])
