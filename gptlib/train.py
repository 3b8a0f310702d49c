"""train() and evaluate() for any model that turns tokens (B, T) into logits (B, T, V). They know nothing of GPT."""

import json
import math
import time
from collections.abc import Callable
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
from gptlib.data import check_length, fixed_windows, get_batch
from gptlib.model import evaluating
from gptlib.resume import Interrupt, identity, restore
from gptlib.tokenizer import Tokenizer

EVAL_TOKENS = 8192              # tokens of validation text in one forward pass


class NonFiniteLoss(RuntimeError):
    """The loss is no longer a number. The message names the step and the likely cause."""


@dataclass
class TrainResult:
    """What a run measured. `history` has one dict an evaluation: step, tokens, seconds, lr, {train,val}_{loss,acc}."""

    history: list[dict] = field(default_factory=list)
    interrupted: bool = False

    @property
    def best(self) -> dict:
        """The evaluation with the lowest validation loss."""
        return min(self.history, key=lambda row: row["val_loss"])


def evaluate(model: nn.Module, ids: Tensor, block_size: int) -> tuple[float, float]:
    """Loss in nats per token, and accuracy, over all of `ids`: every token but the first is predicted once.

    The windows lie side by side, so a token early in its window is predicted from few others; that makes the
    figure exact and repeatable, and a little higher than a mean over long contexts.
    """
    device = _device_of(model)
    loss = hits = 0.0
    with evaluating(model):
        for x, y in fixed_windows(ids, block_size, max(1, EVAL_TOKENS // block_size)):
            logits, y = model(x.to(device)).flatten(0, 1), y.to(device).flatten()       # (B·T, V), (B·T,)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            hits += (logits.argmax(-1) == y).sum().item()
    return loss / (len(ids) - 1), hits / (len(ids) - 1)


def train(model: nn.Module, train_ids: Tensor, val_ids: Tensor, block_size: int, config: TrainConfig, *,
          out_dir: str | Path | None = None, tokenizer: Tokenizer | None = None, resume: str = "never",
          on_eval: Callable[[dict], None] | None = None, progress: bool = True) -> TrainResult:
    """Train `model` in place.

    The validation loss covers the whole split (see `evaluate`); the train loss and accuracy are means over the
    batches since the last evaluation, dropout on; at step 0 they are those of the first batch. Batches and
    dropout depend on (config.seed, step) alone. Started by torchrun, each process takes its share of every
    batch, and the gradients are averaged: one process or many, the same windows and the same curve.

    Args:
        train_ids, val_ids: tokens, (N,) each, longer than `block_size`.
        out_dir: gets `metrics.jsonl`, `best.safetensors` and `last.safetensors`, the latter two at each evaluation
            where they change; None writes nothing.
        tokenizer: saved with the weights, so that they can be sampled from later.
        resume: "auto" goes on from `last.safetensors`, if there is one, as if the run had never stopped (to the
            bit on the same machine); "never" starts over.
        on_eval: called with each new row of the history.
        progress: a progress bar, and a line for each evaluation.

    Returns:
        What was measured. An interrupt (Ctrl-C, JupyterLab's ■) lets the step under way finish, saves the model
        and returns early.

    Raises:
        NonFiniteLoss: a loss or its gradient became inf or nan. The best checkpoint is untouched.
        ConfigError: a run to be resumed had another config, tokenizer or text. Nothing is touched.
        CheckpointError: the last checkpoint is damaged, or one cannot be written.
        DataError: a split shorter than one block.
    """
    check_length(train_ids, block_size, "training split")
    check_length(val_ids, block_size, "validation split")           # now, not at the first evaluation
    rank, n_processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if config.batch_size % n_processes:
        raise ConfigError(f"batch_size={config.batch_size} should be a multiple of the {n_processes} processes that share it")
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    model.to(device).train()
    optimizer = make_optimizer(model, config)
    result = TrainResult()
    step, lr, in_training = 0, 0.0, 0.0                                 # in_training: seconds, evaluations left out
    since_eval = []                                                     # (loss, accuracy) of each batch
    run = identity(model, train_ids, val_ids, block_size, config, tokenizer)
    out_dir = Path(out_dir) if out_dir else None
    if out_dir and resume == "auto" and (out_dir / "last.safetensors").is_file():
        last = restore(out_dir / "last.safetensors", model, optimizer, run)
        step, in_training, since_eval, result.history = last["step"], last["seconds"], last["since_eval"], last["history"]
    if rank > 0:
        out_dir, progress = None, False                                 # one process writes and speaks for all
    if out_dir:
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(out_dir / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in result.history).encode())
        except OSError as error:
            raise CheckpointError(f"out_dir={str(out_dir)!r} cannot be written ({error.strerror or error}): name a folder "
                                  "that can") from None

    forward = torch.compile(model) if config.compile else model
    forward = DistributedDataParallel(forward) if n_processes > 1 else forward

    def keep(name, optimizer=None):
        if out_dir:
            save_checkpoint(out_dir / f"{name}.safetensors", model, tokenizer, optimizer, run=run, step=step, seconds=in_training,
                            since_eval=since_eval, history=result.history)

    def measure(train_loss, train_acc):
        val_loss, val_acc = evaluate(model, val_ids, block_size)
        if not math.isfinite(val_loss):
            raise NonFiniteLoss(f"step {step}: the validation loss is {val_loss:.4g}, after an update at a learning rate of {lr:.3g}; "
                                "most likely the learning rate is too high or the warm-up too short")
        row = {"step": step, "tokens": step * config.batch_size * block_size, "seconds": in_training, "lr": lr,
               "train_loss": train_loss, "val_loss": val_loss, "train_acc": train_acc, "val_acc": val_acc}
        result.history.append(row)
        if row is result.best:
            keep("best")
        keep("last", optimizer)                                         # the run can be resumed from here
        if out_dir:
            with open(out_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if progress:
            bar.write(log_line(row, config.max_steps, time.perf_counter() - start))
        if on_eval:
            on_eval(row)

    start = time.perf_counter() - in_training
    bar = tqdm(total=config.max_steps, initial=step, desc="training", unit="step", disable=not progress)
    try:
        with torch.random.fork_rng(), Interrupt() as interrupt:
            if not result.history:                                      # before the first step: is the loss near ln V?
                _seed_dropout(config.seed, 0, rank)
                x, y = get_batch(train_ids, block_size, config.batch_size, config.seed, 0)
                with torch.no_grad():
                    measure(*_loss_and_accuracy(model, x, y, dtype)[1])
            while step < config.max_steps and not interrupt.asked:
                tick = time.perf_counter()
                lr = learning_rate(config, step, block_size)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                x, y = get_batch(train_ids, block_size, config.batch_size, config.seed, step)
                _seed_dropout(config.seed, step, rank)
                loss, measured = _loss_and_accuracy(forward, x[rank::n_processes], y[rank::n_processes], dtype)
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf).item()
                if not math.isfinite(measured[0] + norm):
                    raise NonFiniteLoss(
                        f"step {step + 1}: the loss is {measured[0]:.4g} and its gradient's norm {norm:.4g}, at a learning "
                        f"rate of {lr:.3g}; most likely the learning rate is too high, the warm-up too short or clipping off")
                optimizer.step()
                since_eval.append(measured)
                step += 1
                bar.update()
                in_training += time.perf_counter() - tick
                if step % config.eval_interval == 0 or step == config.max_steps:
                    means = np.mean(since_eval, axis=0).tolist()
                    since_eval.clear()
                    measure(*means)
            result.interrupted = interrupt.asked
    except KeyboardInterrupt:                                           # from on_eval, or a second Ctrl-C
        result.interrupted = True
    finally:
        bar.close()
    if result.interrupted:
        keep("last", optimizer)
        print(f"interrupted after step {step} of {config.max_steps}" + (f"; the model is in {out_dir.name}" if out_dir else ""))
    return result


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    torch.manual_seed(np.random.SeedSequence((seed, step, rank)).generate_state(1).item())


def _loss_and_accuracy(model: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, tuple[float, float]]:
    """The loss to go backward from, and loss and accuracy as numbers, over the batches of all processes."""
    device = _device_of(model)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits, y = model(x.to(device)).flatten(0, 1).float(), y.to(device).flatten()       # (B·T, V), (B·T,)
    loss = F.cross_entropy(logits, y)
    measured = torch.stack([loss.detach(), (logits.argmax(-1) == y).float().mean()])
    if isinstance(model, DistributedDataParallel):
        dist.all_reduce(measured)
        measured /= dist.get_world_size()
    return loss, tuple(measured.tolist())


def learning_rate(config: TrainConfig, step: int, block_size: int) -> float:
    """A linear warm-up to `learning_rate`, then half a cosine down to `min_lr`, by steps or by tokens.

    Args:
        step: counted from 0, as the step about to be taken.
    """
    scale = config.batch_size * block_size if config.lr_unit == "tokens" else 1
    now, end = (step + 1) * scale, config.lr_decay or config.max_steps * scale
    if now < config.warmup:
        return config.learning_rate * now / config.warmup
    share = min(1.0, (now - config.warmup) / max(1, end - config.warmup))
    return config.min_lr + (config.learning_rate - config.min_lr) * (1 + math.cos(math.pi * share)) / 2


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); weights of linear layers and embeddings decay, all else (biases, norms …) does not."""
    decaying = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding))}
    matrices = [p for p in model.parameters() if id(p) in decaying]
    others = [p for p in model.parameters() if id(p) not in decaying]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def pick_device(name: str = "auto") -> str:
    """`name`, or for "auto" the best at hand: CUDA (which AMD's ROCm also answers to), MPS, CPU."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"device={name!r} is not to be had on this machine: choose 'auto', 'cpu', 'cuda' or 'mps'") from None
    return name


def pick_dtype(name: str, device: str) -> torch.dtype:
    """float32, but for "auto" bfloat16 on CUDA devices that compute in it; master weights stay float32."""
    if name == "auto":
        name = "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return getattr(torch, name)


def log_line(row: dict, max_steps: int, elapsed: float) -> str:
    """One evaluation in a line, after shakeGPT's; `elapsed` seconds in all, evaluations among them."""
    clock = lambda seconds: str(timedelta(seconds=round(seconds)))
    remaining = clock(elapsed / row["step"] * (max_steps - row["step"])) if row["step"] else "unknown"
    return (f"T+ {clock(elapsed)} - step {row['step']:>{len(str(max_steps))}}/{max_steps}: "
            f"train loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}; "
            f"train acc {row['train_acc']:.4f}, val acc {row['val_acc']:.4f}; t_remain {remaining}")


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
