"""Checkpoints: a model's weights, its config and its tokenizer in one file.

    save_checkpoint("runs/gpt/best.safetensors", model, tokenizer, step=1500)
    read_header("runs/gpt/best.safetensors")["about"]["step"]       # 1500
    load_weights("runs/gpt/best.safetensors", model)                # fills a model of that shape

The file has the format safetensors: a header of JSON, then the numbers. A copy of the JSON stands
in a second file beside it, for people. Nothing is pickled, so opening a file never runs code from
it.

The file is first written under another name and then renamed. Therefore there is always either the
complete old file or the complete new one. `gptlib.variants.build.load_model` builds the model too.

A checkpoint may come from a stranger. Nothing in it is used as a path, and no error shows what
another file contains.
"""

import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gptlib.checks import (
    any_path,
    check_arguments,
    check_vocabulary,
    model_with_numbers,
    optional,
    short,
)
from gptlib.tokenizer import Tokenizer, any_tokenizer

OPTIMIZER = "optimizer."        # the names of the optimizer's tensors begin with this

# The type of each entry of a header.
HEADER_TYPES = {
    "model": str,
    "parts": list,
    "config": dict,
    "tokenizer": dict | None,
    "optimizer": str | None,
    "about": dict,
}
# Two models that differ only in these options compute the same from the same weights.
TRAINING_OPTIONS = ("dropout", "init", "detach")
# The options of a plain GPT that only variants have in their config.
PLAIN = {"attention": "plain", "token_shift": False, "memory": "attention"}


class CheckpointError(ValueError):
    """A checkpoint cannot be written, cannot be read, or does not fit a model."""


@check_arguments(
    CheckpointError, path=any_path, model=model_with_numbers, tokenizer=optional(any_tokenizer),
    optimizer=optional(torch.optim.Optimizer),
)
def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    tokenizer: Tokenizer | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    **about,
) -> None:
    """Write a checkpoint to `path` (…/name.safetensors), and its header to …/name.json.

    Args:
        optimizer: its state is saved too, so that training can continue.
        about: anything else that JSON can hold: the step, metrics, the training config.

    Raises:
        CheckpointError: the file cannot be written, or `about` is not JSON. An older file at `path`
            is not changed.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"path={str(path)!r} should end in .safetensors, such as 'gpt.safetensors'"
        )
    model = getattr(model, "_orig_mod", model)          # the model inside torch.compile's wrapper
    if any(name.startswith(OPTIMIZER) for name in model.state_dict()):
        raise CheckpointError(
            "the model has a part called 'optimizer', the name under which a checkpoint holds the "
            "state of the optimizer: give the part another name"
        )
    if any(buffer.dtype == torch.int8 for buffer in model.buffers()):
        raise CheckpointError(
            "a checkpoint cannot hold a model with weights of one byte: save the model that was "
            "given to int8_copy"
        )
    refuse_foreign_json(path.with_suffix(".json"))
    for name, value in about.items():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{name}={short(value)} cannot be written, because it is not JSON ({error}): give "
                "numbers, texts, lists and dicts"
            ) from None
    if tokenizer:
        check_vocabulary(model, tokenizer, CheckpointError)
    header = {
        "model": type(model).__name__,
        "parts": class_names(model),
        "config": model.config_dict() if hasattr(model, "config_dict") else {},
        "tokenizer": tokenizer.to_dict() if tokenizer else None,
        "optimizer": type(optimizer).__name__ if optimizer else None,
        "about": about,
    }
    tensors = {
        # A clone, because safetensors refuses tensors that share memory, such as tied weights.
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    if optimizer:
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if not isinstance(value, Tensor):
                    raise CheckpointError(
                        f"a checkpoint cannot hold the state of this {type(optimizer).__name__}: "
                        f"its {name!r} is {type(value).__name__}, it should be a tensor"
                    )
                tensors[f"{OPTIMIZER}{number}.{name}"] = value
    try:
        readable = json.dumps(header, indent=1, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: what it should hold is not JSON ({error})") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # If a kill comes between the two, the weights are the older file. Then a resumed run writes
        # both again.
        write_atomically({
            path.with_suffix(".json"): readable,
            path: save(tensors, {"gptlib": json.dumps(header)}),
        })
    except (FileExistsError, NotADirectoryError):
        raise CheckpointError(
            f"{path} could not be written, because {path.parent} is a file or lies below a file: "
            "name a folder"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written ({error.strerror or error}); an earlier checkpoint there "
            "is unchanged"
        ) from None


def class_names(model: nn.Module) -> list[str]:
    """Return the names of the classes of a model and of all its parts, sorted."""
    return sorted({type(module).__name__ for module in model.modules()})


def refuse_foreign_json(path: Path) -> None:
    """Raise a CheckpointError if the file of a header holds something else, such as a tokenizer.

    Without this check a checkpoint would overwrite it, although nobody named the file.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return              # there is no file, or writing it will tell what is wrong with it
    try:
        is_header = not content.strip() or {"model", "config"} <= json.loads(content).keys()
    except (ValueError, AttributeError, RecursionError):
        is_header = False
    if not is_header:
        raise CheckpointError(
            f"{path} is not the header of a checkpoint, and this checkpoint would overwrite it: "
            "give the checkpoint another name, or move that file"
        )


@check_arguments(CheckpointError, path=any_path)
def read_header(path: str | Path) -> dict:
    """Return what a checkpoint says about itself: model, config, tokenizer, optimizer and about.

    Headers of earlier versions are translated to the present form.

    Raises:
        CheckpointError: there is no such file, or it is not a checkpoint of this library.
    """
    path = resolve_path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["gptlib"])
            has_state = any(name.startswith(OPTIMIZER) for name in file.keys())
        if not {"model", "config", "tokenizer", "about"} <= header.keys():
            raise KeyError("about")
    except (SafetensorError, TypeError, KeyError, AttributeError, ValueError, OSError,
            RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this library ({type(error).__name__}): name an "
            "undamaged .safetensors file that this library saved"
        ) from None
    for name, value in header.items():
        kind = HEADER_TYPES.get(name, object)
        if not isinstance(value, kind):
            expected = getattr(kind, "__name__", kind)
            raise CheckpointError(
                f"{path} is not a checkpoint of this library: its {name} is "
                f"{type(value).__name__}, and should be {expected}"
            )
    return translate_header(header, has_state)


@check_arguments(CheckpointError, path=any_path, model=model_with_numbers)
def load_weights(path: str | Path, model: nn.Module) -> None:
    """Fill `model` with the weights of a checkpoint.

    Raises:
        CheckpointError: the file is damaged, or its weights do not fit. The model is not changed.
    """
    path = resolve_path(path)
    check_fit(path, model)
    weights = {
        translate_name(name): tensor
        for name, tensor in read_tensors(path).items()
        if not name.startswith(OPTIMIZER)
    }
    for name, expected in model.state_dict().items():
        # PyTorch would turn integers into floating-point numbers without a word.
        if weights[name].is_floating_point() != expected.is_floating_point():
            raise CheckpointError(
                f"{path} does not fit the model given: {name} is {weights[name].dtype} in the file "
                f"and {expected.dtype} in the model"
            )
    model.load_state_dict(weights)


def check_fit(path: str | Path, model: nn.Module) -> None:
    """Raise a CheckpointError unless the weights of a checkpoint fit `model`.

    The weights are not read, only their shapes. The model may be on the device "meta".
    """
    header = read_header(path)
    stored = {
        translate_name(name): shape
        for name, shape in read_shapes(path).items()
        if not name.startswith(OPTIMIZER)
    }
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    differences = [
        f"{name} is {stored.get(name, 'missing')} in the file and "
        f"{expected.get(name, 'missing')} in the model"
        for name in {**expected, **stored}
        if expected.get(name) != stored.get(name)
    ]
    # Two models can have weights of the same shapes and still compute different things.
    config = PLAIN | (model.config_dict() if hasattr(model, "config_dict") else {})
    saved_config = PLAIN | header["config"]
    differences += [
        f"{name} is {saved_config[name]!r} in the file and {config[name]!r} in the model"
        for name in config
        if name in saved_config and name not in TRAINING_OPTIONS
        and config[name] != saved_config[name]
    ]
    if differences:
        raise CheckpointError(
            f"{path} holds a {header['model']} that does not fit the model given: {differences[0]}"
        )


@check_arguments(CheckpointError, path=any_path, optimizer=torch.optim.Optimizer)
def load_optimizer(path: str | Path, optimizer: torch.optim.Optimizer) -> None:
    """Fill `optimizer` with the state that a checkpoint holds.

    Raises:
        CheckpointError: the checkpoint was saved without an optimizer, or with another class of it.
    """
    path = resolve_path(path)
    header = read_header(path)
    saved, expected = header["optimizer"], type(optimizer).__name__
    # At step 0 the state of an optimizer is empty, so a file without it is complete.
    if saved is None and header["about"].get("step") != 0:
        raise CheckpointError(
            f"{path} was saved without its optimizer, so the run cannot continue from it; resume "
            "from the run's last.safetensors, or start over in another folder"
        )
    if saved not in (None, expected):
        raise CheckpointError(
            f"{path} was saved with the optimizer {saved}, so the run cannot continue with "
            f"{expected}; take {saved}, or start over in another folder"
        )
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in read_tensors(path).items():
        if name.startswith(OPTIMIZER):
            number, _, part = name.removeprefix(OPTIMIZER).partition(".")
            check_state(path, name, number, part, tensor, parameters)
            state.setdefault(int(number), {})[part] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def check_state(
    path: Path, name: str, number: str, part: str, tensor: Tensor, parameters: list[Tensor]
) -> None:
    """Raise a CheckpointError unless a tensor of an optimizer's state fits its parameter.

    Args:
        number: the index of the parameter, as text.
        part: the name of the tensor in the state of that parameter.
    """
    fits = number.isdecimal() and int(number) < len(parameters)
    # These have the shape of the parameter. Other optimizers may have parts of other shapes.
    if fits and part in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
        fits = tensor.shape == parameters[int(number)].shape
    if not fits:
        raise CheckpointError(
            f"{path} holds the optimizer of another model: its {name} has the shape "
            f"{tuple(tensor.shape)}, which fits none of the {len(parameters)} parameters given"
        )


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint by name, those of the optimizer too."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this library ({type(error).__name__}): name an "
            "undamaged .safetensors file that this library saved"
        ) from None


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a checkpoint by name, without reading the tensors."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def resolve_path(path: str | Path) -> Path:
    """Return the path of a checkpoint. For the folder of a run, this is its best checkpoint."""
    path = Path(path)
    # For a name that is too long, os.path answers False. pathlib would raise an OSError.
    if os.path.isdir(path):
        path = path / "best.safetensors"
    if not os.path.isfile(path):
        raise CheckpointError(
            f"{short_path(path)} does not exist: name a .safetensors file, or the folder of a run "
            "that has saved one"
        )
    return path


def short_path(path: Path) -> str:
    """Return a path as text, without its middle if it is longer than a path can be."""
    text = str(path)
    return text if len(text) < 300 else f"{text[:100]}…{text[-100:]}"


def write_atomically(contents: Mapping[Path, bytes]) -> None:
    """Write some files of one folder, given as {path: content}.

    First everything is written to temporary files beside them. Then these are renamed in the order
    given. An error leaves all files as they were.
    """
    # The names are new ones. So two writers of the same path do not disturb each other.
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
                 for path in contents}
    try:
        for path, content in contents.items():
            with open(temporary[path], "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())     # the content must be on the disk before the new name
        for path in contents:
            os.replace(temporary[path], path)
    except BaseException:
        for name in temporary.values():
            name.unlink(missing_ok=True)
        raise


# Checkpoints of earlier versions ------------------------------------------------------------------

def translate_name(name: str) -> str:
    """Return the present name of a tensor. The layers of FeedForward were numbered before."""
    name = re.sub(r"\.feed_forward\.0\.", ".feed_forward.fc.", name)
    return re.sub(r"\.feed_forward\.2\.", ".feed_forward.proj.", name)


def translate_header(header: dict, has_state: bool) -> dict:
    """Return the header in the present form.

    Before, every GPT had the options `attention` and `token_shift`. Now a plain GPT has none, and
    a variant has all options of VariantConfig. The optimizer was always AdamW, and not named.

    Args:
        has_state: whether the checkpoint holds the state of an optimizer.
    """
    header = {"optimizer": "AdamW" if has_state else None} | header
    config = translate_config(header["config"])
    about = header["about"]
    if isinstance(about, dict) and isinstance(about.get("run"), dict):
        about = about | {"run": translate_config(about["run"])}
    return header | {"config": config, "about": about}


def translate_config(config: dict) -> dict:
    """Return a config (or the identity of a run) with the present options."""
    if "attention" not in config or "memory" in config:
        return config                           # a plain GPT or a variant in the present form
    if config["attention"] == "plain" and not config["token_shift"]:
        return {k: v for k, v in config.items() if k not in ("attention", "token_shift")}
    added = {"memory": "attention", "window": 64, "n_memory": 1, "detach": False, "rescale": False}
    return config | added
