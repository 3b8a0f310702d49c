"""Run the course: every chapter in order through papermill, then the leaderboard and a page by the trained GPT.

    python tools/course.py                  all chapters at their defaults
    python tools/course.py 01_bigram        some of them
"""

import sys
import time
from pathlib import Path

import papermill

from gptlib.leaderboard import leaderboard, read_results

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs"
QUIET = ["--IPKernelApp.log_level=40"]        # the kernel warns of unencrypted local sockets at each start


def main(names: list[str]) -> None:
    chapters = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    unknown = set(names) - {chapter.stem for chapter in chapters}
    if unknown:
        sys.exit(f"no chapter {', '.join(sorted(unknown))}; there are {', '.join(chapter.stem for chapter in chapters)}")
    start = time.perf_counter()
    for chapter in chapters:
        if not names or chapter.stem in names:
            run(chapter)
    print(f"\n{leaderboard(latest_corpus(read_results(RUNS)))}")
    sample = RUNS / "04_full_gpt/sample.txt"
    if sample.is_file():
        print(f"\nA page by the trained GPT ({sample.relative_to(ROOT)}):\n\n{sample.read_text(encoding='utf-8')}")
    print(f"\nThe course took {time.perf_counter() - start:.0f} s. Executed chapters and what they made are in {RUNS.relative_to(ROOT)}/.")


def run(chapter: Path) -> None:
    """Execute one chapter into runs/<chapter>/, and say in a line how long it took."""
    out = RUNS / chapter.stem
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("result-*.json"):
        old.unlink()
    start = time.perf_counter()
    try:
        papermill.execute_notebook(chapter, out / chapter.name, cwd=chapter.parent, kernel_name="python3", extra_arguments=QUIET)
    except papermill.PapermillExecutionError as error:
        sys.exit(f"{chapter.stem} stopped in cell {error.exec_count}: {error.ename}: {error.evalue}\n"
                 f"See {(out / chapter.name).relative_to(ROOT)}")
    print(f"{chapter.stem}: {time.perf_counter() - start:.0f} s", flush=True)


def latest_corpus(rows: list[dict]) -> list[dict]:
    """Losses on different texts cannot be compared: keep the last chapter's text."""
    return [row for row in rows if row["corpus_sha256"] == rows[-1]["corpus_sha256"]]


if __name__ == "__main__":
    main(sys.argv[1:])
