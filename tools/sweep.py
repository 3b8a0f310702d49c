"""Run a notebook over a grid of parameters and seeds, in parallel.

    python tools/sweep.py notebooks/params/sweep_lr.yaml        on this machine, one run a core
    python tools/sweep.py GRID --scheduler tcp://head:8786      on the workers of a dask scheduler

The runs, a table and a figure with error bars go to runs/sweeps/<name of the grid>/. A run that has
finished there is not run again.
"""

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import nbformat
import papermill
import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
if hasattr(os, "sched_getaffinity"):
    CORES = len(os.sched_getaffinity(0))
else:
    CORES = os.cpu_count()
# Without this the kernel warns about unencrypted local sockets at each start.
QUIET = ["--IPKernelApp.log_level=40"]
# The keys of a grid: (type, how an error message describes it)
KEYS = {
    "notebook": (str | list, "a notebook's name, such as train, or a list of them"),
    "parameters": (dict, "names with values"),
    "sweep": (dict, "names with lists of values"),
    "seeds": (list, "a list, such as [1, 2, 3]"),
}


class Run(NamedTuple):
    """One run of the grid."""

    name: str           # the swept values and the seed: learning_rate=0.003,seed=1
    notebook: Path
    out: Path           # the folder of its results
    given: dict         # the parameters that the grid names
    parameters: dict    # all parameters; if one has changed, the run is executed again


def require(condition, message: str) -> None:
    """Raise a ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def main() -> None:
    options = parse_options()
    folder = options.runs.resolve() / options.grid.stem
    try:
        runs, swept = read_grid(options.grid, folder)
        unfinished = [run for run in runs if status(run) != "finished"]
        print(f"{options.grid.stem}: {len(runs)} runs, "
              f"{len(runs) - len(unfinished)} of them finished before", flush=True)
        if unfinished:
            workers = max(1, min(options.workers, len(unfinished)))
            run_all(unfinished, executor(workers, options.scheduler))
    except (ValueError, OSError, yaml.YAMLError) as error:
        sys.exit(f"{options.grid}: {one_line(error)}")
    from sweep_table import report
    report([(run, status(run) or "not finished") for run in runs], swept, folder)
    if left := sum(status(run) != "finished" for run in runs):
        sys.exit(f"{left} of {len(runs)} runs have not finished; the same command runs those")


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number, such as 2") from None


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="YAML: notebook, parameters, sweep, seeds")
    parser.add_argument("--workers", type=whole_number, default=CORES, metavar="N",
                        help="runs at a time; they share the cores")
    parser.add_argument("--scheduler", metavar="ADDRESS",
                        help="of a running dask scheduler, whose workers share this folder")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/sweeps",
                        help="the folder of the results (default: runs/sweeps)")
    # One sentence in place of the usage.
    parser.error = lambda message: sys.exit(f"sweep.py: {message}")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"--workers {options.workers} should be at least 1")
    existing = next(path for path in (options.runs, *options.runs.absolute().parents)
                    if os.path.exists(path))
    if not os.path.isdir(existing):
        parser.error(f"--runs {options.runs} should be a folder, but {existing} is a file")
    return options


# The grid -----------------------------------------------------------------------------------------


def read_grid(path: Path, folder: Path) -> tuple[list[Run], list[str]]:
    """Return the runs of a grid, checked by their notebooks, and the swept parameters' names."""
    grid = read_keys(path)
    lists = grid["sweep"] | {"seed": grid["seeds"]}
    check_names(grid, lists)
    notebooks = find_notebooks(grid["notebook"], path.parent)
    runs = {}
    for *values, notebook in itertools.product(*lists.values(), notebooks):
        given = grid["parameters"] | dict(zip(lists, values, strict=True))
        parameters = all_parameters(notebook, given)
        name = ",".join(f"{swept}={file_name(parameters[swept])}" for swept in lists)
        out = folder / name / notebook.stem
        # Some file systems do not tell upper case from lower case.
        key = str(out).lower()
        require(key not in runs, f"{notebook.stem} with {name} is asked for twice")
        # The check may have changed a type: 1 becomes 1.0.
        given = {parameter: parameters[parameter] for parameter in given}
        runs[key] = Run(name, notebook, out, given, parameters)
    return list(runs.values()), list(grid["sweep"])


def read_keys(path: Path) -> dict:
    """Return the grid with all four keys. Raise a ValueError for an unknown key or a wrong type."""
    from gptlib.config import did_you_mean
    from gptlib.options import read_yaml
    try:
        grid = read_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"a grid is utf-8 text, and byte {error.start} is not") from None
    require(isinstance(grid, dict), f"a grid is YAML with the keys {', '.join(KEYS)}")
    for key in grid:
        require(key in KEYS, f"unknown key {key!r}" + did_you_mean(key, KEYS))
    grid = {"notebook": "", "parameters": {}, "sweep": {}, "seeds": []} | grid
    for key, (kind, description) in KEYS.items():
        is_right = isinstance(grid[key], kind) and (grid[key] or kind is dict)
        require(is_right, f"{key} should be {description}, not {grid[key]!r}")
    return grid


def check_names(grid: dict, lists: dict) -> None:
    """Raise a ValueError unless each parameter has either a value or a list of values."""
    fixed, swept = grid["parameters"], grid["sweep"]
    require("seed" not in swept and "out_dir" not in fixed | lists,
            "a grid sets no out_dir, and seed only as seeds: [1, 2, 3]")
    for name in [*fixed, *swept]:
        if name in fixed:
            is_right = name not in lists
        else:
            is_right = isinstance(swept[name], list) and swept[name]
        require(is_right and isinstance(name, str), f"{name}: a name stands once, "
                "with its value under parameters or a list under sweep")


def find_notebooks(names: str | list, folder: Path) -> list[Path]:
    """Return the paths of notebooks: chapters by name, others relative to the grid's folder."""
    from gptlib.config import did_you_mean
    chapters = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    found = []
    for name in map(str, names if isinstance(names, list) else [names]):
        path = chapters.get(name, (folder / name).resolve())
        require(path.suffix == ".ipynb" and path.is_file(),
                f"no notebook {name!r}" + did_you_mean(name, chapters))
        found.append(path)
    return found


def all_parameters(notebook: Path, given: dict) -> dict:
    """Return all parameters of a run. The cells that set and check the parameters are executed."""
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (ValueError, AttributeError):
        raise ValueError(f"{notebook} is not a notebook that can be read") from None
    code = [cell for cell in cells if cell.cell_type == "code"]
    require(len(code) > 1 and "parameters" in code[0].metadata.get("tags", []),
            f"the first cell of {notebook.name} has no parameters")
    namespace = {}
    run_cell(notebook, code[0].source, namespace)
    names = {name for name in [*namespace, *given] if not name.startswith("_")} - {"out_dir"}
    namespace |= given
    run_cell(notebook, code[1].source, namespace)
    return {name: namespace[name] for name in sorted(names)}


def run_cell(notebook: Path, source: str, namespace: dict) -> None:
    """Execute a cell. Any error becomes a ValueError. Those about a parameter stay as they are."""
    from gptlib.config import ConfigError
    try:
        exec(source, namespace)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"a cell of {notebook.name} that sets or checks the parameters stopped with "
            f"{type(error).__name__}: {error}; run the notebook by itself first"
        ) from None


def file_name(value) -> str:
    """Return a value as a part of a file's name. A changed or shortened one gets a checksum."""
    short = re.sub(r"[^\w.+-]+", "_", str(value), flags=re.ASCII)[:24]
    if short == str(value):
        return short
    return f"{short}-{zlib.crc32(str(value).encode('utf-8')):08x}"


def one_line(error: Exception) -> str:
    """Return an error as one line. For papermill's errors it is the error of the notebook."""
    text = getattr(error, "evalue", None) or getattr(error, "strerror", None) or error
    text = " ".join(str(text).split())
    if isinstance(error, ValueError):
        return text
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read or written ({text})"
    return f"{getattr(error, 'ename', type(error).__name__)}: {text}"


# The runs -----------------------------------------------------------------------------------------


def record(run: Run, status: str) -> None:
    """Write a run's status and parameters beside its results, in one atomic step."""
    partial = run.out / ".sweep.json"
    content = {"status": status, "parameters": run.parameters}
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(partial, run.out / "sweep.json")


def status(run: Run) -> str:
    """Return the recorded status of a run with the same parameters, or "" if there is none."""
    try:
        recorded = json.loads((run.out / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    # Another program may have written the file.
    if not isinstance(recorded, dict) or recorded.get("parameters") != run.parameters:
        return ""
    if recorded.get("status") == "finished" and not all_whole(run.out.glob("result-*.json")):
        return ""
    return str(recorded.get("status", ""))


def all_whole(results: Iterable[Path]) -> bool:
    """Return whether there are results, and all of them can be read."""
    try:
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in results]
    except (OSError, ValueError):
        return False
    return bool(rows) and all(isinstance(row, dict) for row in rows)


def run_all(runs: list[Run], pool) -> None:
    """Execute the runs and print a line for each as it ends."""
    for run in runs:
        prepare(run)
    futures = {pool.submit(execute, run): run for run in runs}
    try:
        for future in tqdm(as_completed(futures), total=len(runs), unit="run", disable=None):
            run = futures[future]
            tqdm.write(f"{run.notebook.stem} {run.name}: {outcome(future, run)}", file=sys.stdout)
            sys.stdout.flush()
    except KeyboardInterrupt:
        # From here on a second Ctrl-C is ignored.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool.shutdown(wait=False)
    # The workers are idle now, unless the sweep was interrupted.
    for process in multiprocessing.active_children():
        process.kill()


def prepare(run: Run) -> None:
    """Create the run's folder without old results and record the run as not finished."""
    if not status(run) and run.out.is_dir() and any(run.out.iterdir()):
        # The results there belong to other parameters.
        move_aside(run.out)
    run.out.mkdir(parents=True, exist_ok=True)
    record(run, "not finished")
    for old_result in run.out.glob("result-*.json"):
        old_result.unlink()


def move_aside(folder: Path) -> None:
    """Move the folder of a run with other parameters to the next free earlier/<number>/."""
    earlier = folder.parent / "earlier"
    numbers = [int(path.name) for path in earlier.glob("*") if path.name.isdecimal()]
    target = earlier / str(max(numbers, default=0) + 1) / folder.name
    target.parent.mkdir(parents=True)
    folder.rename(target)
    print(f"{folder} has results of other parameters; they were moved to {target}", flush=True)


def outcome(future, run: Run) -> str:
    """Return how a run ended. If its worker process died, record that as well."""
    error = CancelledError() if future.cancelled() else future.exception()
    if not error:
        return future.result()
    record(run, f"failed: {one_line(error)}")
    return status(run)


def executor(workers: int, scheduler: str | None):
    """Return worker processes on this machine, or those of a dask scheduler. Both have `submit`."""
    if scheduler is None:
        context = multiprocessing.get_context("spawn")
        threads = max(1, CORES // workers)
        return ProcessPoolExecutor(workers, context, set_up_worker, (threads,))
    require(importlib.util.find_spec("distributed"),
            "--scheduler needs dask: pip install -c constraints.txt -e '.[cluster]'")
    from distributed import Client
    client = Client(scheduler, timeout="10s")
    print(f"{len(client.nthreads())} workers at {scheduler}", flush=True)
    return client.get_executor(pure=False)


def set_up_worker(threads: int) -> None:
    """Set a worker's number of threads. Ctrl-C does not reach it. It ends with the sweep."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)

    def exit_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def execute(run: Run) -> str:
    """Execute one notebook, in a worker. Return how it ended, and record that after all results."""
    require(run.out.is_dir(), f"{run.out} is not on the worker's machine: "
            "all machines need to share that folder")
    start = time.perf_counter()
    ended = "finished"
    try:
        papermill.execute_notebook(
            run.notebook, run.out / run.notebook.name, run.given | {"out_dir": str(run.out)},
            cwd=run.notebook.parent, kernel_name="python3", language="python", progress_bar=False,
            start_timeout=300, extra_arguments=QUIET)
        require(any(run.out.glob("result-*.json")),
                "it left no result-*.json, which the notebooks of a sweep write with save_result")
    except Exception as error:
        ended = f"failed: {one_line(error)}"
    record(run, ended)
    return f"{ended} after {time.perf_counter() - start:.0f} s"


if __name__ == "__main__":
    main()
