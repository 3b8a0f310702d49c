"""Stop a training run and continue it later, as if it had never stopped."""

import hashlib
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.checkpoint import CheckpointError, load_optimizer, load_weights, read_header
from gptlib.checks import checked_value, dict_with, list_of, wrong_type
from gptlib.config import ConfigError, TrainConfig
from gptlib.data import batch_kind
from gptlib.tokenizer import Tokenizer, fingerprint

# What a checkpoint says about its run, in addition to the identity of the run.
PROGRESS = {
    "run": dict,
    "step": int,
    "seconds": float,
    "since_eval": list,
    "history": list_of(dict_with("step", "val_loss")),
}


class Interrupt:
    """`with Interrupt() as interrupt:` turns the first Ctrl-C into `interrupt.requested`.

    The loop inside can then complete its step. A second Ctrl-C interrupts at once, as usual.

    Args:
        stop: another way to request an interrupt: a function that returns True for it.
    """

    def __init__(self, stop: Callable[[], bool] | None = None):
        self.stop = stop
        self.pressed = False
        self.previous_handler = None

    @property
    def requested(self) -> bool:
        if self.pressed or self.stop is None:
            return self.pressed
        answer = self.stop()
        # A function without its parentheses would count as True.
        if not isinstance(answer, int | np.bool_ | None):
            raise wrong_type("the result of stop", answer, "True or False")
        return bool(answer)

    def __enter__(self) -> "Interrupt":
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self.previous_handler = signal.signal(signal.SIGINT, self.press)
        return self

    def press(self, number, frame) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, self.previous_handler)

    def __exit__(self, *error) -> None:
        if self.previous_handler is not None:
            signal.signal(signal.SIGINT, self.previous_handler)


def identity(
    model: nn.Module,
    train_ids: Tensor | Callable,
    val_ids: Tensor | Sequence,
    block_size: int,
    config: TrainConfig,
    tokenizer: Tokenizer | None,
) -> dict:
    """Return everything that must be the same when a run is resumed, by name.

    The device is not part of it: a run may continue on another machine.
    """
    shape = model.config_dict() if hasattr(model, "config_dict") else {"model": repr(model)}
    recipe = asdict(config)
    for name in ("device", "compile"):
        del recipe[name]
    if isinstance(train_ids, Tensor):
        train_digest = digest([train_ids])
    elif hasattr(train_ids, "digest"):
        # Batches from a file whose hash is known (see gptlib.corpora.shards).
        train_digest = train_ids.digest
    else:
        # A function: the batch of its first step.
        train_digest = digest(batch_kind("the batch of step 1", train_ids(0)))
    if isinstance(val_ids, Tensor):
        val_digest = digest([val_ids])
    else:
        val_digest = digest([part for batch in val_ids for part in batch])
    return {
        **shape,
        **recipe,
        "block_size": block_size,
        "tokenizer": fingerprint(tokenizer) if tokenizer else None,
        "training split": train_digest,
        "validation split": val_digest,
    }


def later_options(model: nn.Module, identity: dict) -> dict:
    """Return the defaults of all options. They hold for options that a saved run did not have yet.

    An option is added to this library with a default that changes nothing.
    """
    configs = [TrainConfig, *([type(model.config)] if hasattr(model, "config") else [])]
    return {f.name: f.default for config in configs for f in fields(config) if f.name in identity}


def digest(tensors: Sequence[Tensor]) -> str:
    """Return 16 hexadecimal digits of the sha256 of the numbers in `tensors`."""
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict) -> dict:
    """Fill model and optimizer from a checkpoint of the same run. Return what else it holds.

    Raises:
        ConfigError: the checkpoint belongs to a run with another identity. Nothing is changed.
        CheckpointError: the checkpoint is damaged, or `train` did not save it to be resumed.
    """
    try:
        about = read_header(path)["about"]
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}, or set resume to 'restart' (the damaged run is then moved, not overwritten)"
        ) from None
    if "run" not in about:
        raise CheckpointError(
            f"{path} was not saved by train(), so no run can be resumed from it: name another "
            "folder, or set resume to 'restart'"
        )
    try:
        about |= {name: checked_value(name, about.get(name), kind)
                  for name, kind in PROGRESS.items()}
    except ValueError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint of a run: {error}") from None
    saved = later_options(model, identity) | about["run"]
    different = [
        f"{name} was {saved.get(name)!r} and is now {identity.get(name)!r}"
        for name in {**saved, **identity}
        if saved.get(name) != identity.get(name)
    ]
    if different:
        raise ConfigError(
            f"{path} cannot be resumed, because {', '.join(different)}: name another folder, or "
            "set resume to 'restart' (the earlier run is then moved, not overwritten)"
        )
    load_optimizer(path, optimizer)
    load_weights(path, model)
    return about
