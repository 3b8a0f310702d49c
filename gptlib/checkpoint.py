"""What a run leaves on disk: one safetensors file, whose header also holds the config and the tokenizer as JSON.

One file, renamed into place when it is whole, cannot be torn: there is always the old one or the new one. A
copy of the JSON lies beside it for human eyes. Nothing is pickled, so opening a stranger's file runs no code.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from gptlib.bigram import Bigram
from gptlib.config import ConfigError, GPTConfig
from gptlib.context_rolling import RollingConfig, RollingGPT
from gptlib.model import GPT
from gptlib.tokenizer import Tokenizer, TokenizerError, load_tokenizer

MODELS = {"GPT": lambda config: GPT(GPTConfig(**config)), "Bigram": lambda config: Bigram(**config),
          "RollingGPT": lambda config: RollingGPT(RollingConfig(**config))}


OPTIMIZER = "optimizer."         # what the names of its tensors begin with


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or fitted to a model."""


@dataclass(frozen=True)
class Checkpoint:
    model: nn.Module
    tokenizer: Tokenizer | None
    about: dict                 # step, metrics and whatever else was saved beside the weights
    optimizer: dict             # the optimizer's tensors, by the number of the parameter; empty where none were saved


def save_checkpoint(path: str | Path, model: nn.Module, tokenizer: Tokenizer | None = None,
                    optimizer: torch.optim.Optimizer | None = None, **about) -> None:
    """Write `model` to `path` (…/name.safetensors), and what is known `about` it to name.json.

    Args:
        optimizer: its state is saved in the same file, so that training can go on from here.
        about: anything JSON can hold: the step, metrics, the training config.

    Raises:
        CheckpointError: the folder cannot be written. What lay at `path` before is still there.
    """
    path = Path(path)
    model = getattr(model, "_orig_mod", model)      # what torch.compile wrapped
    header = {
        "model": type(model).__name__,
        "config": model.config_dict() if hasattr(model, "config_dict") else {},
        "tokenizer": tokenizer.to_dict() if tokenizer else None,
        "about": about,
    }
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}    # tied ones too
    if optimizer:
        for i, state in optimizer.state_dict()["state"].items():
            weights |= {f"{OPTIMIZER}{i}.{name}": value for name, value in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(weights, {"gptlib": json.dumps(header)}))
        write_atomically(path.with_suffix(".json"), json.dumps(header, indent=1, ensure_ascii=False).encode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} could not be written ({error.strerror or error}); the checkpoint from before, "
                              "if there was one, is untouched") from None


def load_checkpoint(path: str | Path, model: nn.Module | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the .safetensors file, or a run's folder, whose `best.safetensors` is then taken.
        model: filled with the weights; needed only for a class this library does not know. A model that is
            built here comes back with dropout off, ready to be sampled from.

    Raises:
        CheckpointError: no such file, not a checkpoint of this library, or weights that do not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "best.safetensors"
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        tokenizer = load_tokenizer(header["tokenizer"]) if header["tokenizer"] else None
        if model is None:
            model = MODELS[header["model"]](header["config"]).eval()
    except (SafetensorError, TypeError, KeyError, ConfigError, TokenizerError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint of this library ({error!r}); "
                              f"it can rebuild {', '.join(MODELS)}, for any other class pass model=") from None
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(OPTIMIZER)}
    optimizer = {}
    for name in tensors.keys() - weights.keys():
        i, part = name.removeprefix(OPTIMIZER).split(".")
        optimizer.setdefault(int(i), {})[part] = tensors[name]
    wanted, held = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (model.state_dict(), weights))
    if wanted != held:                              # before anything is copied, so that the model given stays whole
        name = next(name for name in {**wanted, **held} if wanted.get(name) != held.get(name))
        raise CheckpointError(f"{path} holds a {header['model']} with config {header['config']}, which does not fit the model given: "
                              f"{name} is {held.get(name, 'missing')} in the file and {wanted.get(name, 'missing')} in the model")
    model.load_state_dict(weights)
    return Checkpoint(model, tokenizer, header["about"], optimizer)


def read_header(path: str | Path) -> dict:
    """What a checkpoint says of itself: model, config, tokenizer and about, without its tensors."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path} does not exist: name a .safetensors file, or the folder of a run that has saved one")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["gptlib"])
        if not {"model", "config", "tokenizer", "about"} <= header.keys():
            raise KeyError("about")
        return header
    except (SafetensorError, TypeError, KeyError, AttributeError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint of this library ({error!r})") from None


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, make sure that it is on the disk, then rename it into place."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")       # what a kill may leave; the next write takes it over
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
