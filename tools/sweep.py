"""Run a notebook over a grid of parameters and seeds, in parallel; then a table, and a figure with error bars.

    python tools/sweep.py notebooks/params/sweep_lr.yaml                      on this machine, a run a core
    python tools/sweep.py GRID --scheduler tcp://head:8786                    on the workers of a dask scheduler

Runs, table and figure go to runs/sweeps/<name of the grid>/. What is finished there is not run again.
"""

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import zlib
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import nbformat
import papermill
import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
KEYS = {"notebook": (str | list, "a notebook's name, such as 04_full_gpt, or a list of them"), "parameters": (dict, "names with values"),
        "sweep": (dict, "names with lists of values"), "seeds": (list, "a list, such as [1, 2, 3]")}


def require(holds, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


class Cell(NamedTuple):     # one run of the grid
    name: str               # what tells it from the others: learning_rate=0.003,seed=1
    notebook: Path
    out: Path
    given: dict             # what the grid says of its parameters
    parameters: dict        # all of them, the notebook's defaults too: any that changes calls for a new run


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("grid", type=Path, help="YAML: notebook, parameters, sweep, seeds")
    options.add_argument("--workers", type=int, default=CORES, metavar="N", help="runs at a time; they share the cores")
    options.add_argument("--scheduler", metavar="ADDRESS", help="of a running dask scheduler, whose workers share this folder")
    options.add_argument("--runs", type=Path, default=ROOT / "runs/sweeps", help="where results go (default: runs/sweeps)")
    options = options.parse_args()
    folder = options.runs.resolve() / options.grid.stem
    try:
        cells, swept = read_grid(options.grid, folder)
        todo = [cell for cell in cells if status(cell) != "finished"]
        print(f"{options.grid.stem}: {len(cells)} runs, {len(cells) - len(todo)} of them finished before", flush=True)
        if todo:
            run_all(todo, executor(max(1, min(options.workers, len(todo))), options.scheduler))
    except (ValueError, OSError, yaml.YAMLError) as error:
        sys.exit(f"{options.grid}: {one_line(error)}")
    from sweep_table import report
    report([(cell, status(cell) or "not finished") for cell in cells], swept, folder)
    if left := sum(status(cell) != "finished" for cell in cells):
        sys.exit(f"{left} of {len(cells)} runs have not finished; the same command runs those")


def read_grid(path: Path, folder: Path) -> tuple[list[Cell], list[str]]:
    """The cells of a grid, each put through its notebook's own check, and the names of what it sweeps."""
    from gptlib.config import did_you_mean
    grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    require(isinstance(grid, dict), f"a grid is YAML with the keys {', '.join(KEYS)}")
    for key in grid:
        require(key in KEYS, f"unknown key {key!r}" + did_you_mean(key, KEYS))
    grid = {"notebook": "", "parameters": {}, "sweep": {}, "seeds": []} | grid
    for key, (kind, what) in KEYS.items():
        require(isinstance(grid[key], kind) and (grid[key] or kind is dict), f"{key} should be {what}, not {grid[key]!r}")
    fixed, lists = grid["parameters"], grid["sweep"] | {"seed": grid["seeds"]}
    require("seed" not in grid["sweep"] and "out_dir" not in fixed | lists, "a grid sets no out_dir, and seed only as seeds: [1, 2, 3]")
    for name in [*fixed, *grid["sweep"]]:
        once = name not in lists if name in fixed else isinstance(lists[name], list) and lists[name]
        require(once and isinstance(name, str), f"{name}: a name stands once, with its value under parameters or a list under sweep")
    chapters, notebooks = {file.stem: file for file in sorted((ROOT / "notebooks").glob("*.ipynb"))}, []
    for name in map(str, grid["notebook"] if isinstance(grid["notebook"], list) else [grid["notebook"]]):
        notebooks.append(chapters.get(name, (path.parent / name).resolve()))
        require(notebooks[-1].suffix == ".ipynb" and notebooks[-1].is_file(), f"no notebook {name!r}" + did_you_mean(name, chapters))
    cells = {}
    for *values, notebook in itertools.product(*lists.values(), notebooks):
        given = fixed | dict(zip(lists, values, strict=True))
        parameters = checked(notebook, given)
        name = ",".join(f"{key}={readable(parameters[key])}" for key in lists)
        out = folder / name / notebook.stem
        require(str(out).lower() not in cells, f"{notebook.stem} with {name} is asked for twice")
        cells[str(out).lower()] = Cell(name, notebook, out, {key: parameters[key] for key in given}, parameters)
    return list(cells.values()), list(grid["sweep"])


def checked(notebook: Path, given: dict) -> dict:
    """All parameters of a run, after the notebook's first two code cells: the parameters and their check."""
    code = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    require(len(code) > 1 and "parameters" in code[0].metadata.get("tags", []), f"the first cell of {notebook.name} has no parameters")
    exec(code[0].source, namespace := {})
    names = {name for name in [*namespace, *given] if not name.startswith("_") and name != "out_dir"}
    namespace |= given
    exec(code[1].source, namespace)
    return {name: namespace[name] for name in sorted(names)}


def readable(value) -> str:
    """A value as a part of a file's name; if something had to be left out of it, a few digits tell it from others."""
    short = re.sub(r"[^\w.+-]+", "_", str(value), flags=re.ASCII)[:24]
    return short if short == str(value) else f"{short}-{zlib.crc32(str(value).encode('utf-8')):08x}"


def one_line(error: Exception) -> str:
    text = " ".join(str(getattr(error, "evalue", None) or getattr(error, "strerror", None) or error).split())
    return text if isinstance(error, ValueError) else f"{getattr(error, 'ename', type(error).__name__)}: {text}"


def record(cell: Cell, status: str) -> None:
    """Write how a run went, and with which parameters, beside its results and at once: only this makes it finished."""
    new = cell.out / ".sweep.json"
    new.write_text(json.dumps({"status": status, "parameters": cell.parameters}, indent=1), encoding="utf-8")
    os.replace(new, cell.out / "sweep.json")


def status(cell: Cell) -> str:
    """How a run with these very parameters went; nothing, if there was none."""
    try:
        about = json.loads((cell.out / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    whole = about["status"] != "finished" or any(cell.out.glob("result-*.json"))
    return about["status"] if whole and about["parameters"] == cell.parameters else ""


def run_all(cells: list[Cell], pool) -> None:
    """Run the cells, and say a line of each as it ends."""
    for cell in cells:
        if not status(cell):
            shutil.rmtree(cell.out, ignore_errors=True)         # made with other parameters
        cell.out.mkdir(parents=True, exist_ok=True)
        record(cell, "not finished")
        for old in cell.out.glob("result-*.json"):
            old.unlink()
    futures = {pool.submit(run, cell): cell for cell in cells}
    try:
        for future in tqdm(as_completed(futures), total=len(cells), unit="run", disable=None):
            cell = futures[future]
            if error := CancelledError() if future.cancelled() else future.exception():     # not the run, its worker came to an end
                record(cell, f"failed: {one_line(error)}")
            tqdm.write(f"{cell.notebook.stem} {cell.name}: {status(cell) if error else future.result()}", file=sys.stdout)
            sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)            # once is enough
    pool.shutdown(wait=False)
    for process in multiprocessing.active_children():           # idle by now, if not interrupted
        process.kill()


def executor(workers: int, scheduler: str | None):
    """Worker processes here, or those of a dask scheduler: both take `submit`."""
    if scheduler is None:
        return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), begin, (max(1, CORES // workers),))
    require(importlib.util.find_spec("distributed"), "--scheduler needs dask: pip install -c constraints.txt -e '.[cluster]'")
    from distributed import Client
    client = Client(scheduler, timeout="10s")
    print(f"{len(client.nthreads())} workers at {scheduler}", flush=True)
    return client.get_executor(pure=False)


def begin(threads: int) -> None:
    """Set up a worker process: its share of the cores, out of Ctrl-C's reach, gone when the sweep is."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()


def run(cell: Cell) -> str:
    """Execute one notebook, in a worker. How it went is written beside its results, last of all."""
    require(cell.out.is_dir(), f"{cell.out} is not on the worker's machine: all machines need to share that folder")
    start, went = time.perf_counter(), "finished"
    try:
        papermill.execute_notebook(cell.notebook, cell.out / cell.notebook.name, cell.given | {"out_dir": str(cell.out)},
                                   cwd=cell.notebook.parent, kernel_name="python3", progress_bar=False, start_timeout=300,
                                   extra_arguments=["--IPKernelApp.log_level=40"])      # no word of unencrypted local sockets
        require(any(cell.out.glob("result-*.json")), "it left no result-*.json")
    except Exception as error:
        went = f"failed: {one_line(error)}"
    record(cell, went)
    return f"{went} after {time.perf_counter() - start:.0f} s"


if __name__ == "__main__":
    main()
