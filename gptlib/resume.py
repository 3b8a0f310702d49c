"""What lets a run stop and go on: the same identity, the whole state, and no step cut in two."""

import hashlib
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from gptlib.checkpoint import load_checkpoint, read_header
from gptlib.config import ConfigError, TrainConfig
from gptlib.tokenizer import Tokenizer, fingerprint


class Interrupt:
    """`with Interrupt() as interrupt:` turns the first Ctrl-C into `interrupt.asked`, so that no step is cut in two."""

    asked = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():       # signals are heard there alone
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number, frame):
        self.asked = True
        signal.signal(signal.SIGINT, self.before)                       # a second one is not kept waiting

    def __exit__(self, *error):
        if hasattr(self, "before"):
            signal.signal(signal.SIGINT, self.before)


def identity(model: nn.Module, train_ids: Tensor, val_ids: Tensor, block_size: int, config: TrainConfig,
             tokenizer: Tokenizer | None) -> dict:
    """What must be the same for a run to be resumed, by name; not where it runs."""
    digest = lambda ids: hashlib.sha256(ids.cpu().numpy().tobytes()).hexdigest()[:16]
    shape = model.config_dict() if hasattr(model, "config_dict") else {"model": repr(model)}
    recipe = {name: value for name, value in asdict(config).items() if name not in ("device", "compile")}
    return {**shape, **recipe, "block_size": block_size, "tokenizer": fingerprint(tokenizer) if tokenizer else None,
            "training split": digest(train_ids), "validation split": digest(val_ids)}


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict) -> dict:
    """Fill model and optimizer from the checkpoint of the same run, and return what else it knew."""
    before = read_header(path)["about"]["run"]
    differing = [f"{name} was {before.get(name)!r} and is now {run.get(name)!r}" for name in {**before, **run}
                 if before.get(name) != run.get(name)]
    if differing:
        raise ConfigError(f"{path} cannot be resumed: {'; '.join(differing)}. Take another out_dir, or resume='never' to start over")
    saved = load_checkpoint(path, model)
    optimizer.load_state_dict({"state": saved.optimizer, "param_groups": optimizer.state_dict()["param_groups"]})
    return saved.about
