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

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from gptlib.checks import (
    any_path,
    at_least,
    check_arguments,
    function_of,
    optional,
    several,
    tokens,
    trainable,
)
from gptlib.config import ConfigError, TrainConfig
from gptlib.data import DataError, batch_kind, check_ids, check_length, fixed_windows, get_batch
from gptlib.model import evaluating
from gptlib.resume import Interrupt, identity
from gptlib.run import Run, TrainResult, check_finite, pick_device, seed_dropout, wrap_model
from gptlib.tokenizer import Tokenizer, any_tokenizer
from gptlib.train_checks import (
    check_block_size,
    check_logits,
    check_model,
    check_optimizer,
    check_splits,
    check_tokenizer,
    one_number,
    optimizer_function,
    tokens_or_batches,
    tokens_or_function,
)

EVAL_TOKENS = 8192          # tokens in one batch of an evaluation
EVAL_NUMBERS = 1 << 25      # logits in one batch of an evaluation, at most
NO_TARGET = -100            # a target with this value carries no loss

# A batch: x and y, (B, T) each, and if the model needs one, a document mask (B, 1, T, T).
Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]


@check_arguments(
    model=trainable, train_ids=tokens_or_function, val_ids=tokens_or_batches,
    block_size=at_least(1), config=TrainConfig, out_dir=optional(any_path),
    tokenizer=optional(any_tokenizer), on_eval=optional(function_of("row")), progress=bool,
    optimizer=optional(optimizer_function), extra_loss=optional(function_of("model")),
    stop=optional(function_of()),
)
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
        resume: what happens to an earlier run in out_dir. "auto" continues it. On the same machine
            the result then equals that of a run that never stopped, to the bit. "never" refuses to
            start. "restart" moves the earlier run to out_dir/earlier, and begins again.
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
        ConfigError: out_dir holds an earlier run and `resume` is "never", or "auto" and that run
            had another config, tokenizer or text. Nothing is changed.
        CheckpointError: a checkpoint is damaged or cannot be written, or another run uses out_dir.
        DataError: a split is shorter than one window, or a batch has no targets.
        ValueError: a split has a token that the model does not know.
    """
    check_model(model, tokenizer)
    check_block_size(model, block_size)
    check_tokenizer(tokenizer, train_ids, val_ids)
    check_splits(model, train_ids, val_ids)
    batches, val_batches = make_batches(train_ids, val_ids, block_size, config)
    device = pick_device(config.device)
    model.to(device).train()
    optimizer = (optimizer or make_optimizer)(model, config)
    check_optimizer(optimizer, model)
    same = identity(model, train_ids, val_ids, block_size, config, tokenizer)
    run = Run(model, optimizer, config, same, config.batch_size * block_size, out_dir, tokenizer,
              resume, on_eval, progress)
    forward = wrap_model(model, config, run.n_processes)
    with run, torch.random.fork_rng(), Interrupt(stop) as interrupt:
        dtype = run.choose_dtype(device, lambda dtype: time_step(model, batches(0), dtype))
        if not run.history:
            # Evaluate the untrained model. Its loss should be near ln V.
            run.recent.append(first_loss(model, batches(0), config, run.rank, dtype))
            run.record(*evaluate_batches(model, val_batches))
        while run.step < config.max_steps and not interrupt.requested:
            start = time.perf_counter()
            lr = learning_rate(config, run.step, block_size)
            set_learning_rate(optimizer, lr)
            seed_dropout(config.seed, run.step, run.rank)
            batch = run.own_part(batches(run.step))
            loss, measured = batch_loss(forward, batch, dtype)
            if extra_loss is not None:
                loss = loss + one_number("the result of extra_loss", extra_loss(model))

            optimizer.zero_grad()
            loss.backward()
            norm = clip_gradient(model, config.grad_clip)
            check_finite(run.step + 1, lr, measured[0], norm)
            optimizer.step()

            run.count_step(measured, lr, time.perf_counter() - start)
            if run.evaluation_due:
                run.record(*evaluate_batches(model, val_batches))
        run.finish()
    return TrainResult(run.history, run.interrupted)


@check_arguments(model=trainable, ids=tokens("N"), block_size=at_least(1))
def evaluate(model: nn.Module, ids: Tensor, block_size: int) -> tuple[float, float]:
    """Return the loss in nats per token, and the accuracy, over all of `ids`, (N,).

    Every token but the first is predicted once, from the tokens before it in its window. The
    windows stand side by side, so the result is exact and repeatable. Tokens at the beginning of a
    window have little context. Therefore the loss is slightly higher than with long contexts.
    """
    check_block_size(model, block_size)
    return evaluate_batches(model, text_windows(ids, block_size))


@check_arguments(ids=tokens("N"), block_size=at_least(1))
def text_windows(ids: Tensor, block_size: int) -> list[Batch]:
    """Return windows of `ids`, (N,), that stand side by side, in batches for an evaluation."""
    if len(ids) and ids.min() < 0:
        raise DataError(f"the text has the token {ids.min()}: tokens should be at least 0")
    return list(fixed_windows(ids, block_size, max(1, EVAL_TOKENS // block_size)))


@check_arguments(model=trainable, batches=several)
def evaluate_batches(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Return the loss in nats per token, and the accuracy, over all targets of `batches`."""
    device = device_of(model)
    loss, hits, n_targets, n_batches = 0.0, 0, 0, 0
    with evaluating(model):
        for x, y, *mask in small_batches(model, batches):
            logits = model(x.to(device), **mask_argument(mask, device))
            check_logits(logits, x)
            logits, y = logits.flatten(0, 1), y.to(device).flatten()        # (B·T, V), (B·T,)
            check_ids(y[y != NO_TARGET], vocab_size=logits.shape[1])
            loss += F.cross_entropy(logits, y, ignore_index=NO_TARGET, reduction="sum").item()
            hits += (logits.argmax(-1) == y).sum().item()
            n_targets += (y != NO_TARGET).sum().item()
            n_batches += 1
    if n_batches == 0:
        raise DataError("there are no validation batches: give at least one batch (x, y)")
    if n_targets == 0:
        raise DataError(
            f"the validation batches have no targets, because all of them are {NO_TARGET}"
        )
    return loss / n_targets, hits / n_targets


def small_batches(model: nn.Module, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the rows of `batches` in the same order, so few at a time that they fit into memory.

    With a small vocabulary they are the batches themselves.
    """
    most_tokens = eval_tokens(model)
    for batch in batches:
        batch = batch_kind("a validation batch", batch)
        rows = max(1, most_tokens // batch[0].shape[1])
        yield from zip(*(tensor.split(rows) for tensor in batch), strict=True)


def eval_tokens(model: nn.Module) -> int:
    """Return how many tokens `model` reads at most at once in an evaluation."""
    # No token has more logits than the longest dimension of all weights.
    longest = max(max(weight.shape, default=1) for weight in model.parameters())
    return EVAL_NUMBERS // longest


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
    check_logits(logits, x)
    logits, y = logits.flatten(0, 1).float(), y.to(device).flatten()            # (B·T, V), (B·T,)
    n_targets = (y != NO_TARGET).sum().float()
    if several_processes:
        # All processes divide by the same number. Otherwise a target would count more in a process
        # that has few of them.
        n_targets = mean_over_processes(n_targets)
    try:
        loss = F.cross_entropy(logits, y, ignore_index=NO_TARGET, reduction="sum") / n_targets
    except IndexError:
        check_ids(y[y != NO_TARGET], vocab_size=logits.shape[1])
        raise
    accuracy = (logits.argmax(-1) == y).sum() / n_targets
    measured = torch.stack([loss.detach(), accuracy])
    if several_processes:
        measured = mean_over_processes(measured)
    return loss, tuple(measured.tolist())


def mean_over_processes(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


@check_arguments(config=TrainConfig, step=at_least(0), block_size=at_least(1))
def learning_rate(config: TrainConfig, step: int, block_size: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then a decay down to `min_lr`.

    The decay is half a cosine. With config.schedule = "wsd" the rate is constant first, and
    falls in a straight line over the last config.cooldown of the run (Hägele et al. 2024).

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
    if config.schedule == "wsd":
        factor = min(1.0, (end - now) / (config.cooldown * end))
    else:
        factor = (1 + math.cos(math.pi * share)) / 2                            # 1 at first, then 0
    return config.min_lr + (config.learning_rate - config.min_lr) * max(0.0, factor)


@check_arguments(model=trainable, config=TrainConfig)
def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019).

    Weight decay acts on the matrices of linear layers and embeddings, not on biases and norms.

    Raises:
        ConfigError: config.optimizer is another one, which `gptlib.optimizers` makes.
    """
    if config.optimizer != "adamw":
        raise ConfigError(
            f"optimizer={config.optimizer!r} comes from another function: call train(…, "
            "optimizer=gptlib.optimizers.make_optimizer)"
        )
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


def make_batches(
    train_ids: Tensor | Callable[[int], Batch],
    val_ids: Tensor | Sequence[Batch],
    block_size: int,
    config: TrainConfig,
) -> tuple[Callable[[int], Batch], Sequence[Batch]]:
    """Return the function step -> batch, and the list of validation batches."""
    def random_windows(step: int) -> Batch:
        return get_batch(train_ids, block_size, config.batch_size, config.seed, step)

    def given_batch(step: int) -> Batch:
        batch = batch_kind(f"the batch of step {step + 1}", train_ids(step))
        B, T = batch[0].shape
        if B == 0 or T != block_size:
            raise DataError(
                f"step {step + 1}: the batch has the shape {(B, T)}, it should have at least one "
                f"row, and block_size={block_size} tokens in each"
            )
        if (batch[1] == NO_TARGET).all():
            raise DataError(
                f"step {step + 1}: the batch has no targets, because all of them are {NO_TARGET}"
            )
        return batch

    batches, val_batches = given_batch, val_ids
    if isinstance(train_ids, Tensor):
        check_length(train_ids, block_size, "training split")
        batches = random_windows
    if isinstance(val_ids, Tensor):
        check_length(val_ids, block_size, "validation split")
        val_batches = text_windows(val_ids, block_size)
    return batches, val_batches


def first_loss(
    model: nn.Module, batch: Batch, config: TrainConfig, rank: int, dtype: torch.dtype
) -> tuple[float, float]:
    """Return loss and accuracy of the first batch before any training."""
    seed_dropout(config.seed, 0, rank)
    with torch.no_grad():
        return batch_loss(model, batch, dtype)[1]


def time_step(model: nn.Module, batch: Batch, dtype: torch.dtype) -> float:
    """Return the seconds of a forward and a backward pass. The weights do not change."""
    start = time.perf_counter()
    batch_loss(model, batch, dtype)[0].backward()
    seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        # Muon has groups whose learning rates differ by a factor.
        group["lr"] = lr * group.get("lr_scale", 1.0)


def clip_gradient(model: nn.Module, largest_norm: float) -> float:
    """Scale the gradient to a norm of at most `largest_norm` (0: any). Return the norm it had."""
    return nn.utils.clip_grad_norm_(model.parameters(), largest_norm or math.inf).item()


def mask_argument(mask: list[Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the keyword argument for a model, from a list of one document mask or none."""
    return {"mask": mask[0].to(device)} if mask else {}


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
