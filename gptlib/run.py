"""The state of a training run: what it has done and measured, and the files that it writes.

The loop itself is `gptlib.train.train`. This file has the parts of a run that are not about
learning: the checkpoints, the history, the progress bar, the device, and several processes.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from gptlib.checkpoint import save_checkpoint
from gptlib.config import ConfigError, TrainConfig
from gptlib.resume import restore
from gptlib.run_folder import RESUME, RunFolder
from gptlib.tokenizer import Tokenizer

TIMED_STEPS = 3         # steps that "auto" times with each dtype
WORTHWHILE = 1.1        # so much faster must bfloat16 be, because it is less exact


class NonFiniteLoss(RuntimeError):
    """The loss became infinite or nan. The message names the step and the likely cause."""


@dataclass
class TrainResult:
    """What a run measured.

    `history` has one dict for each evaluation, with step, tokens, seconds (of training), lr,
    train_loss, val_loss, train_acc and val_acc. Losses are in nats per token.
    """

    history: list[dict] = field(default_factory=list)
    interrupted: bool = False

    @property
    def best(self) -> dict:
        """The evaluation with the lowest validation loss."""
        if not self.history:
            raise ValueError(
                "the run has no evaluation: it was interrupted before the first one, so train again"
            )
        return min(self.history, key=lambda row: row["val_loss"])


class Run:
    """One training run. `with run:` opens its folder, and closes it at the end.

    Args:
        identity: what must be the same when the run is resumed (see `gptlib.resume.identity`).
        tokens_per_step: the number of tokens in a batch.
        out_dir, tokenizer, resume, on_eval, progress: see `gptlib.train.train`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        identity: dict,
        tokens_per_step: int,
        out_dir: str | Path | None,
        tokenizer: Tokenizer | None,
        resume: str,
        on_eval: Callable[[dict], None] | None,
        progress: bool,
    ):
        if resume not in RESUME:
            raise ConfigError(f"resume={resume!r} should be one of {', '.join(map(repr, RESUME))}")
        if out_dir is None and resume != "never":
            raise ConfigError(
                f"resume={resume!r} needs the folder of the run: give out_dir, such as 'runs/gpt'"
            )
        self.model, self.optimizer, self.config = model, optimizer, config
        self.identity, self.tokens_per_step = identity, tokens_per_step
        self.tokenizer = tokenizer

        # Only the first process writes and prints.
        self.rank, self.n_processes = process_rank(config)
        first = self.rank == 0
        self.folder = RunFolder(out_dir, resume) if out_dir is not None else None
        self.writes = first and self.folder is not None
        self.progress = first and progress
        self.on_eval = on_eval if first else None

        self.step = 0
        self.lr = 0.0
        self.dtype = None               # the name of the dtype of products, once it is chosen
        self.train_seconds = 0.0        # evaluations are not counted
        self.recent = []                # (loss, accuracy) of each batch since the last evaluation
        self.history = []
        self.interrupted = False
        self.saved_step = None          # the step of the last checkpoint
        self.bar = None

    def __enter__(self) -> "Run":
        moved = self.folder.open() if self.writes else None
        if moved and self.progress:
            print(f"the earlier run in {self.folder.path} was moved to {moved}", file=sys.stderr)
        try:
            self.restore()
            if self.writes:
                self.folder.write_metrics(self.history)
        except BaseException:
            if self.writes:
                self.folder.close()
            raise
        self.bar = tqdm(total=self.config.max_steps, initial=self.step, desc="training",
                        unit="step", disable=not self.progress)
        self.started = time.perf_counter() - self.train_seconds
        return self

    def restore(self) -> None:
        """With resume="auto", continue from the last checkpoint, if there is one."""
        if self.folder is None or self.folder.resume != "auto":
            return
        path = self.folder.path / "last.safetensors"
        if path.exists():
            about = restore(path, self.model, self.optimizer, self.identity)
            self.step, self.train_seconds = about["step"], about["seconds"]
            self.saved_step = self.step
            self.recent, self.history = about["since_eval"], about["history"]
            self.dtype = about.get("dtype")             # None in older checkpoints

    def __exit__(self, error_class: type | None, error, traceback) -> bool:
        """Close the files. A KeyboardInterrupt ends here, because `train` returns after it."""
        # It was a second Ctrl-C, or one in `on_eval`. The state may be between two steps, so it is
        # not saved.
        hard_interrupt = error_class is KeyboardInterrupt
        self.interrupted = self.interrupted or hard_interrupt
        self.bar.close()
        if self.writes:
            self.folder.close()
        if self.interrupted and self.progress:
            line = f"interrupted after step {self.step} of {self.config.max_steps}"
            if self.saved_step is not None:
                of_step = "" if self.saved_step == self.step else f" of step {self.saved_step}"
                line += f"; the model{of_step} is in {self.folder.path.name}"
            print(line)
        return hard_interrupt

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation follows the present step."""
        last = self.step == self.config.max_steps
        return last or self.step % self.config.eval_interval == 0

    def choose_dtype(self, device: str, time_step: Callable[[torch.dtype], float]) -> torch.dtype:
        """Return the dtype of products: that of the run before it was stopped, or a new choice."""
        if self.dtype is None:
            choice = [None]
            if self.rank == 0:
                choice = [str(pick_dtype(self.config.dtype, device, time_step))[len("torch."):]]
            if self.n_processes > 1:
                dist.broadcast_object_list(choice)      # all processes use the choice of the first
            [self.dtype] = choice
            if self.progress and self.dtype != "float32":
                self.bar.write(f"products are computed in {self.dtype}, weights kept in float32")
        return getattr(torch, self.dtype)

    def own_part(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the rows of a batch that belong to this process."""
        return tuple(part[self.rank::self.n_processes] for part in batch)

    def count_step(self, measured: tuple[float, float], lr: float, seconds: float) -> None:
        self.step += 1
        self.lr = lr
        self.train_seconds += seconds
        self.recent.append(measured)
        self.bar.update()

    def record(self, val_loss: float, val_acc: float) -> None:
        """Add a row to the history, save the model, and report the row."""
        train_loss, train_acc = np.mean(self.recent, axis=0).tolist()
        self.recent = []
        if not math.isfinite(val_loss) and self.step == 0:
            raise NonFiniteLoss(
                f"step 0: the validation loss is {val_loss:.4g} before any training, so the model "
                "has weights that are not finite: make the model again, or load other weights"
            )
        if not math.isfinite(val_loss):
            raise NonFiniteLoss(
                f"step {self.step}: the validation loss is {val_loss:.4g}, after an update at a "
                f"learning rate of {self.lr:.3g}; most likely the learning rate is too high or the "
                "warm-up too short"
            )
        row = {
            "step": self.step,
            "tokens": self.step * self.tokens_per_step,
            "seconds": self.train_seconds,
            "lr": self.lr,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "train_acc": train_acc,
            "val_acc": val_acc,
        }
        is_best = all(val_loss < earlier["val_loss"] for earlier in self.history)
        self.history.append(row)
        if is_best:
            self.save("best")
        self.save("last")
        self.report(row)

    def report(self, row: dict) -> None:
        if self.writes:
            self.folder.append_metrics(row)
        if self.progress:
            elapsed = time.perf_counter() - self.started
            self.bar.write(log_line(row, self.config.max_steps, elapsed))
        if self.on_eval:
            # A copy, so that the function cannot change the history.
            self.on_eval(dict(row))

    def save(self, name: str) -> None:
        """Write a checkpoint. "last" also contains the optimizer, so that the run can continue."""
        if self.writes:
            save_checkpoint(
                self.folder.place / f"{name}.safetensors",
                self.model,
                self.tokenizer,
                self.optimizer if name == "last" else None,
                run=self.identity,
                step=self.step,
                seconds=self.train_seconds,
                dtype=self.dtype,
                since_eval=self.recent,
                history=self.history,
            )
            if name == "last":
                self.saved_step = self.step

    def finish(self) -> None:
        """Save the run if it was stopped before its last step."""
        self.interrupted = self.step < self.config.max_steps
        if self.interrupted:
            self.save("last")


def process_rank(config: TrainConfig) -> tuple[int, int]:
    """Return the rank of this process and the number of processes. Without torchrun: 0 and 1."""
    if not dist.is_initialized():
        return 0, 1
    n_processes = dist.get_world_size()
    if config.batch_size % n_processes:
        raise ConfigError(
            f"batch_size={config.batch_size} should be a multiple of the {n_processes} processes "
            "that share it"
        )
    return dist.get_rank(), n_processes


def wrap_model(model: nn.Module, config: TrainConfig, n_processes: int) -> nn.Module:
    """Return the model, compiled or shared between processes where that is asked for."""
    model = torch.compile(model) if config.compile else model
    return DistributedDataParallel(model) if n_processes > 1 else model


def check_finite(step: int, lr: float, loss: float, norm: float) -> None:
    if not math.isfinite(loss + norm):
        raise NonFiniteLoss(
            f"step {step}: the loss is {loss:.4g} and the norm of its gradient {norm:.4g}, at a "
            f"learning rate of {lr:.3g}; most likely the learning rate is too high, the warm-up "
            "too short or clipping off"
        )


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Set PyTorch's generator, so that dropout depends on (seed, step, rank) alone."""
    torch.manual_seed(np.random.SeedSequence((seed, step, rank)).generate_state(1).item())


def pick_device(name: str = "auto") -> str:
    """Return `name`, or for "auto" the first available of CUDA (AMD's ROCm too), MPS and CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        # The device "meta" has tensors, but their numbers cannot be read.
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError):
        raise ConfigError(
            f"device={name!r} is not available on this machine: "
            "choose 'auto', 'cpu', 'cuda' or 'mps'"
        ) from None
    return name


def has_fast_bfloat16(device: str) -> bool | None:
    """Return whether a device multiplies bfloat16 faster than float32. None: it depends.

    CPUs with AMX or the bfloat16 part of AVX-512 multiply bfloat16. There, wide models become
    faster and narrow ones slower.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu" and (torch.cpu._is_amx_tile_supported()
                            or torch.cpu._is_avx512_bf16_supported()):
        return None
    return False


def pick_dtype(name: str, device: str, time_step: Callable[[torch.dtype], float]) -> torch.dtype:
    """Return the dtype of products. "auto" chooses the faster of float32 and bfloat16.

    Weights, gradients and the optimizer stay in float32.

    Args:
        time_step: returns the seconds of a forward and a backward pass. It is called only where
            the answer depends on the model.
    """
    if name != "auto":
        return getattr(torch, name)
    faster = has_fast_bfloat16(device)
    if faster is None:
        dtypes = (torch.float32, torch.bfloat16)
        times = [[time_step(dtype) for dtype in dtypes] for _ in range(1 + TIMED_STEPS)]
        # The first round is a warm-up.
        float32, bfloat16 = (min(seconds) for seconds in zip(*times[1:], strict=True))
        faster = bfloat16 * WORTHWHILE < float32
    return torch.bfloat16 if faster else torch.float32


def log_line(row: dict, max_steps: int, elapsed: float) -> str:
    """Return a line about one evaluation, `elapsed` seconds after the start."""
    def clock(seconds):
        return str(timedelta(seconds=round(seconds)))

    remaining = "unknown"
    if row["step"]:
        remaining = clock(elapsed / row["step"] * (max_steps - row["step"]))
    width = len(str(max_steps))
    return (
        f"T+ {clock(elapsed)} - step {row['step']:>{width}}/{max_steps}: "
        f"train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}; "
        f"train acc {row['train_acc']:.4f}, val acc {row['val_acc']:.4f}; t_remain {remaining}"
    )
