"""Small trained models that come with the library, so that no control has to show an untrained one.

>>> trained_names()
['attention', 'bigram', 'courier', 'gpt', 'toeplitz']
>>> model, tokenizer = load_trained("gpt")
>>> model.config.n_layer, tokenizer.vocab_size
(4, 65)

`tools/make_trained.py` trains them and writes two files for each to the folder trained_models:

- NAME.safetensors holds the weights. The matrices of linear layers are in int8, with a scale for
  each row (see `round_to_int8`). All other weights are in float32.
- NAME.json says what the model is, how it was trained, its loss before and after the rounding, and
  the sha256 of the other file.
"""

import hashlib
import json
from datetime import date
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gptlib.bpe import load_tokenizer
from gptlib.checkpoint import read_header, write_atomically
from gptlib.checks import check_arguments
from gptlib.tokenizer import Tokenizer
from gptlib.variants.build import model_from_header
from gptlib.variants.quantize import round_to_int8

FOLDER = Path(__file__).parent / "trained_models"
SCALE = ".scale"                # the scales of "x.weight" have the name "x.weight.scale"


def trained_names() -> list[str]:
    """Return the names of the models."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


@check_arguments(name=str)
def trained_path(name: str) -> Path:
    """Return the path of a model's weights.

    Raises:
        ValueError: there is no model of this name.
    """
    if name not in trained_names():
        raise ValueError(f"name={name!r} should be one of {', '.join(trained_names())}")
    return FOLDER / f"{name}.safetensors"


@check_arguments(name=str)
def load_trained(name: str) -> tuple[nn.Module, Tokenizer]:
    """Return a trained model, with dropout off, and its tokenizer.

    The model computes in float32, as a model of a checkpoint does. It can also be trained further.

    Raises:
        ValueError: there is no model of this name.
    """
    return read_rounded(trained_path(name))


@check_arguments(name=str)
def about_trained(name: str) -> dict:
    """Return what NAME.json says about a trained model.

    >>> about_trained("courier")["command"]
    'python tools/make_trained.py courier'
    """
    return json.loads(trained_path(name).with_suffix(".json").read_text(encoding="utf-8"))


# The files ----------------------------------------------------------------------------------------

def rounded_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name: int8 and scales for linear layers, float32 for all others."""
    linear = {f"{name}.weight" for name, module in model.named_modules()
              if isinstance(module, nn.Linear)}
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().float().contiguous().clone()
        if name in linear:
            tensors[name], tensors[name + SCALE] = round_to_int8(tensor)
        else:
            tensors[name] = tensor
    return tensors


def exact_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that `rounded_tensors` stands for, in float32."""
    exact = {}
    for name, tensor in tensors.items():
        if name + SCALE in tensors:
            tensor = tensor * tensors[name + SCALE][:, None]
        if not name.endswith(SCALE):
            exact[name] = tensor
    return exact


def write_rounded(path: Path, model: nn.Module, tokenizer: Tokenizer, about: dict) -> None:
    """Write the weights to `path`, and `about` with the date and the sha256 to …/NAME.json."""
    header = {
        "model": type(model).__name__,
        "config": model.config_dict(),
        "tokenizer": tokenizer.to_dict(),
        "optimizer": None,
        "about": {"name": path.stem},
    }
    content = save(rounded_tensors(model), {"gptlib": json.dumps(header)})
    readable = {
        **about,
        "model": header["model"],
        "config": header["config"],
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(readable, indent=1, ensure_ascii=False) + "\n"
    write_atomically({path.with_suffix(".json"): text.encode("utf-8"), path: content})


def read_rounded(path: Path) -> tuple[nn.Module, Tokenizer]:
    """Return the model that `write_rounded` wrote to `path`, and its tokenizer."""
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    model = model_from_header(header)
    model.load_state_dict(exact_tensors(tensors))
    return model.eval(), load_tokenizer(header["tokenizer"])
