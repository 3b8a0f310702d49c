"""The folder of a training run. It protects an earlier run, and one run from another.

    metrics.jsonl       a row for each evaluation
    best.safetensors    the model with the lowest validation loss
    last.safetensors    the newest model, with what is needed to resume the run
    best.json, last.json    what the two checkpoints say about themselves, for people
    earlier/1, 2, …     runs that were in this folder before
    .lock               locked as long as a run writes into the folder
"""

import json
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gptlib.checkpoint import CheckpointError, read_header, write_atomically
from gptlib.config import ConfigError

RESUME = ("never", "auto", "restart")
CHECKPOINTS = ("best.safetensors", "last.safetensors")
# The first of them moves last. So a move that is killed can be done again.
RUN_FILES = ("best.safetensors", "best.json", "last.safetensors", "last.json", "metrics.jsonl",
             "loss.png")


class RunFolder:
    """The folder of a run. Only one run at a time can open it.

    Args:
        path: the folder. `open` creates it.
        resume: what happens to a run that is in the folder already. "auto" continues it. "restart"
            moves it to earlier/1, 2, … and begins again. "never" does not touch it and raises a
            ConfigError.
    """

    def __init__(self, path: str | Path, resume: str):
        if path == "":
            raise ConfigError("out_dir='' should name a folder, such as 'runs/gpt'")
        self.path = Path(path)
        # The run stays in this folder if the program changes its working directory.
        self.place = self.path.absolute()
        self.resume = resume
        # The system frees this lock when the process ends, also when it is killed.
        self.lock = FileLock(self.place / ".lock", timeout=0)

    def open(self) -> Path | None:
        """Lock the folder for a new or resumed run. Return where an earlier run was moved to.

        Raises:
            ConfigError: the folder holds a run, and `resume` is "never".
            CheckpointError: another run uses the folder, or the folder cannot be written.
        """
        with self.errors_explained():
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
        try:
            with self.errors_explained():
                self.refuse_folders()
                for temporary in self.path.glob(".*.partial"):  # from a process that was killed
                    temporary.unlink()
                if self.resume == "never" or not self.can_continue:
                    self.refuse_earlier_run()
                return self.move_earlier_run() if self.resume == "restart" else None
        except BaseException:
            self.close()
            raise

    @property
    def can_continue(self) -> bool:
        """Whether a run in the folder can be continued, or is moved aside."""
        return self.resume == "restart" or (self.path / "last.safetensors").exists()

    def close(self) -> None:
        self.lock.release()

    def write_metrics(self, rows: list[dict]) -> None:
        """Write metrics.jsonl again, with the given rows."""
        with self.errors_explained():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            write_atomically({self.place / "metrics.jsonl": lines.encode()})

    def append_metrics(self, row: dict) -> None:
        """Append a row to metrics.jsonl."""
        with self.errors_explained(), open(self.place / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def errors_explained(self):
        """Turn the errors of the lock and of the file system into a CheckpointError."""
        try:
            yield
        except Timeout:
            raise CheckpointError(
                f"another run is writing into {self.path}: wait until it ends, or name another "
                "folder"
            ) from None
        except FileExistsError:
            raise CheckpointError(
                f"out_dir={str(self.path)!r} is a file, or a link that leads nowhere: name a folder"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            # Such as a file "earlier", where a folder of that name is needed.
            inside = Path(error.filename or self.path)
            if inside not in (self.path, self.place, *self.path.parents):
                reason = f"{inside}: {reason}"
            raise CheckpointError(
                f"out_dir={str(self.path)!r} cannot be written ({reason}): "
                "name a folder that can be"
            ) from None

    def refuse_folders(self) -> None:
        for name in RUN_FILES:
            if (self.path / name).is_dir():
                raise CheckpointError(
                    f"{self.path / name} is a folder, and a run writes a file of this name: rename "
                    "the folder, or name another folder for the run"
                )

    def refuse_earlier_run(self) -> None:
        if self.resume == "auto" and holds_run(self.path):
            raise CheckpointError(
                f"{self.path} holds a run without last.safetensors, which is needed to continue "
                "it: name another folder, or set resume to 'restart' (the run is then moved, not "
                "overwritten)"
            )
        if holds_run(self.path):
            raise ConfigError(
                f"{self.path} already holds a run, which is not overwritten: name another folder, "
                "or set resume to 'auto' (continue that run) or to 'restart' (move it to "
                f"{self.path / 'earlier'} and begin again)"
            )

    def move_earlier_run(self) -> Path | None:
        """Move an earlier run to the next free number in the folder "earlier"."""
        if not holds_run(self.path):
            return None
        earlier = self.path / "earlier"
        numbers = [int(p.name) for p in earlier.glob("*") if p.name.isdecimal()]
        target = earlier / str(max(numbers, default=0) + 1)
        target.mkdir(parents=True)
        for name in reversed(RUN_FILES):
            if (self.path / name).exists():
                (self.path / name).rename(target / name)
        return target


def holds_run(folder: Path) -> bool:
    """Return whether the folder has files of a run that has made at least one step.

    A file of the same name that another program wrote counts too, so that it is not overwritten.
    """
    for path in (folder / name for name in CHECKPOINTS):
        if path.exists():
            try:
                if read_header(path)["about"].get("step") != 0:
                    return True
            except CheckpointError:
                return True             # a damaged checkpoint may be all that is left of a run
    for name in ("metrics.jsonl", "best.json", "last.json"):
        try:
            if any(step != 0 for step in steps_in(folder / name)):
                return True
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            return True
    # A run draws loss.png after its first row of metrics. Without them it is another picture.
    return (folder / "loss.png").exists() and not (folder / "metrics.jsonl").exists()


def steps_in(path: Path) -> list[int]:
    """Return the steps that a file of metrics, or the header of a checkpoint, tells of."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return [json.loads(text)["about"]["step"]]
    return [json.loads(line)["step"] for line in text.splitlines()]
