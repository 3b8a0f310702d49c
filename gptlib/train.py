"""Training and evaluation of any model that turns tokens (B, T) into logits (B, T, V) (chapter 4).

At its heart, training is five lines:

    x, y = get_batch(train_ids, block_size, batch_size, seed, step)
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

`train` repeats them. It also follows a schedule for the learning rate, measures the validation
loss, saves checkpoints, and can continue a run that was stopped.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from gptlib.checkpoint import CheckpointError, save_checkpoint, write_atomically
from gptlib.config import ConfigError, TrainConfig
from gptlib.data import DataError, check_length, fixed_windows, get_batch
from gptlib.model import evaluating
from gptlib.resume import Interrupt, identity, restore
from gptlib.tokenizer import Tokenizer

EVAL_TOKENS = 8192          # tokens in one batch of an evaluation
NO_TARGET = -100            # a target with this value carries no loss

# A batch: x and y, (B, T) each, and if the model needs one, a document mask (B, 1, T, T).
Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]


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
        return min(self.history, key=lambda row: row["val_loss"])


def train(
    model: nn.Module,
    train_ids: Tensor | Callable[[int], Batch],
    val_ids: Tensor | Sequence[Batch],
    block_size: int,
    config: TrainConfig,
    *,
    out_dir: str | Path | None = None,
    tokenizer: Tokenizer | None = None,
    resume: str = "never",
    on_eval: Callable[[dict], None] | None = None,
    progress: bool = True,
    optimizer: Callable[[nn.Module, TrainConfig], torch.optim.Optimizer] | None = None,
    extra_loss: Callable[[nn.Module], Tensor] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train `model` in place.

    The validation loss covers the whole validation split. The train loss is the mean over the
    batches since the last evaluation, with dropout on. At step 0 it is the loss of the first batch.

    A batch depends on (config.seed, step) alone. When torchrun starts several processes, each takes
    its part of every batch, and the gradients are averaged. The dropout of a process depends on
    (config.seed, step, rank of the process).

    Args:
        train_ids: tokens, (N,), or a function that returns the batch of a step.
        val_ids: tokens, (N,), or a list of batches. Targets of -100 carry no loss.
        block_size: tokens in a window (with a function: tokens in a row of its batches).
        out_dir: folder for `metrics.jsonl`, `best.safetensors` (the lowest validation loss) and
            `last.safetensors`. None: nothing is written.
        tokenizer: saved with the weights, so that the model can be sampled later.
        resume: "auto" continues from `last.safetensors`, if there is one. On the same machine the
            run then equals one that never stopped, to the bit. "never" starts from the beginning.
        on_eval: called with each new row of the history (in the first process only).
        progress: whether to show a progress bar, and a line for each evaluation.
        optimizer: makes the optimizer. The default is `make_optimizer`.
        extra_loss: a term that is added to the loss of each step, computed from the model after
            its forward pass. The history does not contain it.
        stop: called before each step. When it returns True, the run stops as after a Ctrl-C.

    Returns:
        What was measured. After an interrupt (Ctrl-C) the present step is completed, the run is
        saved, and the function returns early. A second interrupt stops at once and saves nothing.

    Raises:
        NonFiniteLoss: the loss or its gradient is not finite. The best checkpoint is not changed.
        ConfigError: the run in out_dir had another config, tokenizer or text. Nothing is changed.
        CheckpointError: a checkpoint is damaged, or cannot be written.
        DataError: a split is shorter than one window, or a batch has no targets.
    """
    run = Run(model, train_ids, val_ids, block_size, config, out_dir, tokenizer, on_eval, progress,
              optimizer or make_optimizer)
    if resume == "auto":
        run.resume()
    run.create_folder()
    forward = wrap_model(model, config, run.n_processes)
    try:
        with torch.random.fork_rng(), Interrupt() as interrupt:
            if not run.history:
                run.evaluate_first()
            while run.step < config.max_steps:
                if interrupt.requested or (stop is not None and stop()):
                    run.interrupted = True
                    break
                start = time.perf_counter()
                lr = learning_rate(config, run.step, block_size)
                set_learning_rate(run.optimizer, lr)
                seed_dropout(config.seed, run.step, run.rank)
                batch = run.own_part(run.batch(run.step))
                loss, measured = batch_loss(forward, batch, run.dtype)
                if extra_loss is not None:
                    loss = loss + extra_loss(model)

                run.optimizer.zero_grad()
                loss.backward()
                norm = clip_gradient(model, config.grad_clip)
                check_finite(run.step + 1, lr, measured[0], norm)
                run.optimizer.step()

                run.count_step(measured, lr, time.perf_counter() - start)
                if run.step % config.eval_interval == 0 or run.step == config.max_steps:
                    run.evaluate()
            if run.interrupted:
                run.save("last")
    except KeyboardInterrupt:
        # A second Ctrl-C, or one in `on_eval`. The state may be between two steps: do not save it.
        run.interrupted = True
    finally:
        run.close()
    return TrainResult(run.history, run.interrupted)


def evaluate(model: nn.Module, ids: Tensor, block_size: int) -> tuple[float, float]:
    """Return the loss in nats per token, and the accuracy, over all of `ids`, (N,).

    Every token but the first is predicted once, from the tokens before it in its window. The
    windows stand side by side, so the result is exact and repeatable. Tokens at the beginning of a
    window have little context. Therefore the loss is slightly higher than with long contexts.
    """
    return evaluate_batches(model, text_windows(ids, block_size))


def text_windows(ids: Tensor, block_size: int) -> list[Batch]:
    """Return windows of `ids`, (N,), that stand side by side, in batches for an evaluation."""
    return list(fixed_windows(ids, block_size, max(1, EVAL_TOKENS // block_size)))


def evaluate_batches(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Return the loss in nats per token, and the accuracy, over all targets of `batches`."""
    device = device_of(model)
    loss, hits, n_targets = 0.0, 0, 0
    with evaluating(model):
        for x, y, *mask in batches:
            logits = model(x.to(device), **mask_argument(mask, device)).flatten(0, 1)   # (B·T, V)
            y = y.to(device).flatten()                                                  # (B·T,)
            loss += F.cross_entropy(logits, y, ignore_index=NO_TARGET, reduction="sum").item()
            hits += (logits.argmax(-1) == y).sum().item()
            n_targets += (y != NO_TARGET).sum().item()
    if n_targets == 0:
        raise DataError(
            f"the validation batches have no targets, because all of them are {NO_TARGET}"
        )
    return loss / n_targets, hits / n_targets


def batch_loss(
    model: nn.Module, batch: Batch, dtype: torch.dtype
) -> tuple[Tensor, tuple[float, float]]:
    """Return the mean loss of a batch, and loss and accuracy as numbers.

    With several processes, the numbers are means over the batches of all processes.
    """
    device = device_of(model)
    several_processes = isinstance(model, DistributedDataParallel)
    x, y, *mask = batch
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits = model(x.to(device), **mask_argument(mask, device))
    logits, y = logits.flatten(0, 1).float(), y.to(device).flatten()            # (B·T, V), (B·T,)
    n_targets = (y != NO_TARGET).sum().float()
    if several_processes:
        # All processes divide by the same number. Otherwise a target would count more in a process
        # that has few of them.
        n_targets = mean_over_processes(n_targets)
    loss = F.cross_entropy(logits, y, ignore_index=NO_TARGET, reduction="sum") / n_targets
    accuracy = (logits.argmax(-1) == y).sum() / n_targets
    measured = torch.stack([loss.detach(), accuracy])
    if several_processes:
        measured = mean_over_processes(measured)
    return loss, tuple(measured.tolist())


def mean_over_processes(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def learning_rate(config: TrainConfig, step: int, block_size: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then half a cosine down to `min_lr`.

    Args:
        step: the number of steps taken before this one.
    """
    tokens_per_step = config.batch_size * block_size
    unit = tokens_per_step if config.lr_unit == "tokens" else 1
    now = (step + 1) * unit
    end = config.lr_decay or config.max_steps * unit
    if now < config.warmup:
        return config.learning_rate * now / config.warmup
    share = min(1.0, (now - config.warmup) / max(1, end - config.warmup))       # 0 at first, then 1
    cosine = (1 + math.cos(math.pi * share)) / 2                                # 1 at first, then 0
    return config.min_lr + (config.learning_rate - config.min_lr) * cosine


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019).

    Weight decay acts on the matrices of linear layers and embeddings, not on biases and norms.
    """
    matrices = [
        module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding))
    ]
    matrix_ids = {id(p) for p in matrices}          # a tied matrix is listed twice, but counts once
    decay = [p for p in model.parameters() if id(p) in matrix_ids]
    no_decay = [p for p in model.parameters() if id(p) not in matrix_ids]
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


# The run ------------------------------------------------------------------------------------------

class Run:
    """The state of a training run: what it has done, what it has measured, and its files."""

    def __init__(
        self, model, train_ids, val_ids, block_size, config, out_dir, tokenizer, on_eval, progress,
        optimizer,
    ):
        self.rank, self.n_processes = process_rank(config)
        self.model, self.config, self.tokenizer = model, config, tokenizer
        self.tokens_per_step = config.batch_size * block_size
        self.batches, self.val_batches = make_batches(train_ids, val_ids, block_size, config)
        device = pick_device(config.device)
        self.dtype = pick_dtype(config.dtype, device)
        model.to(device).train()
        self.optimizer = optimizer(model, config)
        self.identity = identity(model, train_ids, val_ids, block_size, config, tokenizer)

        # Only the first process writes and prints.
        first = self.rank == 0
        self.folder = Path(out_dir) if out_dir else None
        self.writes = first and self.folder is not None
        self.progress = first and progress
        self.on_eval = on_eval if first else None

        self.step = 0
        self.lr = 0.0
        self.train_seconds = 0.0        # evaluations are not counted
        self.recent = []                # (loss, accuracy) of each batch since the last evaluation
        self.history = []
        self.interrupted = False
        self.saved_step = None          # the step of the last checkpoint
        self.bar = None

    def resume(self) -> None:
        """Continue from the last checkpoint in the folder, if there is one."""
        path = self.folder and self.folder / "last.safetensors"
        if path and path.is_file():
            about = restore(path, self.model, self.optimizer, self.identity)
            self.step, self.train_seconds = about["step"], about["seconds"]
            self.saved_step = self.step
            self.recent, self.history = about["since_eval"], about["history"]

    def create_folder(self) -> None:
        """Create the folder, write the rows so far, and show the progress bar."""
        if self.writes:
            rows = "".join(json.dumps(row) + "\n" for row in self.history)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self.folder / "metrics.jsonl", rows.encode())
            except OSError as error:
                raise CheckpointError(
                    f"out_dir={str(self.folder)!r} cannot be written ({error.strerror or error}): "
                    "name a folder that can be"
                ) from None
        self.bar = tqdm(total=self.config.max_steps, initial=self.step, desc="training",
                        unit="step", disable=not self.progress)
        self.start = time.perf_counter() - self.train_seconds

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, for all processes together."""
        batch = self.batches(step)
        if (batch[1] == NO_TARGET).all():
            raise DataError(
                f"step {step + 1}: the batch has no targets, because all of them are {NO_TARGET}"
            )
        return batch

    def own_part(self, batch: Batch) -> Batch:
        """Return the rows of a batch that belong to this process."""
        return tuple(part[self.rank::self.n_processes] for part in batch)

    def count_step(self, measured: tuple[float, float], lr: float, seconds: float) -> None:
        self.step += 1
        self.lr = lr
        self.train_seconds += seconds
        self.recent.append(measured)
        self.bar.update()

    def evaluate_first(self) -> None:
        """Evaluate the untrained model. Its loss should be near ln V."""
        seed_dropout(self.config.seed, 0, self.rank)
        with torch.no_grad():
            _, measured = batch_loss(self.model, self.batch(0), self.dtype)
        self.recent.append(measured)
        self.evaluate()

    def evaluate(self) -> None:
        """Measure the validation loss, add a row to the history, and save the model."""
        train_loss, train_acc = np.mean(self.recent, axis=0).tolist()
        self.recent = []
        val_loss, val_acc = evaluate_batches(self.model, self.val_batches)
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
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self.progress:
            elapsed = time.perf_counter() - self.start
            self.bar.write(log_line(row, self.config.max_steps, elapsed))
        if self.on_eval:
            self.on_eval(row)

    def save(self, name: str) -> None:
        """Write a checkpoint. "last" also contains the optimizer, so that the run can continue."""
        if self.writes:
            save_checkpoint(
                self.folder / f"{name}.safetensors",
                self.model,
                self.tokenizer,
                self.optimizer if name == "last" else None,
                run=self.identity,
                step=self.step,
                seconds=self.train_seconds,
                since_eval=self.recent,
                history=self.history,
            )
            if name == "last":
                self.saved_step = self.step

    def close(self) -> None:
        self.bar.close()
        if self.interrupted and self.progress:
            line = f"interrupted after step {self.step} of {self.config.max_steps}"
            if self.saved_step is not None:
                of_step = "" if self.saved_step == self.step else f" of step {self.saved_step}"
                line += f"; the model{of_step} is in {self.folder.name}"
            print(line)


def make_batches(
    train_ids: Tensor | Callable[[int], Batch],
    val_ids: Tensor | Sequence[Batch],
    block_size: int,
    config: TrainConfig,
) -> tuple[Callable[[int], Batch], Sequence[Batch]]:
    """Return the function step -> batch, and the list of validation batches."""
    batches, val_batches = train_ids, val_ids
    if isinstance(train_ids, Tensor):
        check_length(train_ids, block_size, "training split")

        def batches(step):
            return get_batch(train_ids, block_size, config.batch_size, config.seed, step)

    if isinstance(val_ids, Tensor):
        check_length(val_ids, block_size, "validation split")
        val_batches = text_windows(val_ids, block_size)
    return batches, val_batches


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


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradient(model: nn.Module, largest_norm: float) -> float:
    """Scale the gradient to a norm of at most `largest_norm` (0: any). Return the norm it had."""
    return nn.utils.clip_grad_norm_(model.parameters(), largest_norm or math.inf).item()


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


def mask_argument(mask: list[Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the keyword argument for a model, from a list of one document mask or none."""
    return {"mask": mask[0].to(device)} if mask else {}


def pick_device(name: str = "auto") -> str:
    """Return `name`, or for "auto" the first available of CUDA (AMD's ROCm too), MPS and CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise ConfigError(
            f"device={name!r} is not available on this machine: "
            "choose 'auto', 'cpu', 'cuda' or 'mps'"
        ) from None
    return name


def pick_dtype(name: str, device: str) -> torch.dtype:
    """Return the dtype of products. "auto": bfloat16 on CUDA devices that have it, else float32."""
    if name == "auto":
        on_gpu = device.startswith("cuda")
        has_bfloat16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bfloat16" if has_bfloat16 else "float32"
    return getattr(torch, name)


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


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
