"""The names of all variants: from a config to a model, and from a checkpoint back to its model.

>>> model = make_model(VariantConfig(vocab_size=65, attention="toeplitz", token_shift=True))
>>> type(model.blocks[0]).__name__, type(model.blocks[0].attention).__name__
('ShiftedBlock', 'ToeplitzAttention')
"""

import math
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from torch import nn

from gptlib.attention import CausalSelfAttention
from gptlib.bigram import Bigram
from gptlib.block import Block, FeedForward
from gptlib.bpe import load_tokenizer
from gptlib.checkpoint import (
    CheckpointError,
    check_fit,
    class_names,
    load_weights,
    read_header,
    read_shapes,
    resolve_path,
)
from gptlib.checks import any_path, check_arguments
from gptlib.config import ConfigError, GPTConfig, did_you_mean
from gptlib.model import GPT
from gptlib.tokenizer import Tokenizer
from gptlib.variants.config import MODERN_PARTS, VariantConfig
from gptlib.variants.context_rolling import RollingGPT
from gptlib.variants.modern import ModernAttention, ModernGPT, RMSNorm, SquaredReLU
from gptlib.variants.time_weighting import (
    RelativeBiasAttention,
    ShiftedBlock,
    TimeWeightedAttention,
    ToeplitzAttention,
)

ATTENTIONS = {
    "plain": CausalSelfAttention,
    "time_weighted": TimeWeightedAttention,
    "toeplitz": ToeplitzAttention,
    "relative_bias": RelativeBiasAttention,
}
BLOCKS = {False: Block, True: ShiftedBlock}         # by token_shift
MODEL_NAMES = ("Bigram", "GPT", "RollingGPT", "ModernGPT")       # what load_model can build


@check_arguments(config=GPTConfig)
def make_model(config: GPTConfig) -> GPT:
    """Return a new model with the shape and the variants of `config`."""
    if not isinstance(config, VariantConfig):
        return GPT(config)
    modern = any(getattr(config, name) for name in MODERN_PARTS)
    core = (config.attention, config.token_shift, config.memory) == ("plain", False, "attention")
    if core and not modern:
        # No variant at all. With a plain config, its checkpoints are those of a plain GPT.
        return GPT(GPTConfig(**{f.name: getattr(config, f.name) for f in fields(GPTConfig)}))
    # partial(Block, attention=A) is Block with this argument filled in.
    block = partial(BLOCKS[config.token_shift], attention=ATTENTIONS[config.attention])
    if modern:
        return make_modern_model(config, block)
    model = GPT if config.memory == "attention" else RollingGPT
    return model(config, block=block)


def make_modern_model(config: VariantConfig, block: partial) -> GPT:
    norm = RMSNorm if config.rms_norm else nn.LayerNorm
    block = partial(
        block,
        attention=partial(ModernAttention, rotary=config.rotary, qk_norm=config.qk_norm),
        feed_forward=SquaredReLU if config.relu2 else FeedForward,
        norm=norm,
    )
    return ModernGPT(config, block, norm, config.zero_init, config.bigram_table)


@check_arguments(CheckpointError, path=any_path)
def load_model(path: str | Path) -> tuple[nn.Module, Tokenizer | None]:
    """Return the model of a checkpoint, with dropout off, and its tokenizer.

    Args:
        path: a .safetensors file, or the folder of a run, whose best model is then loaded.

    Raises:
        CheckpointError: there is no such file, it is not a whole checkpoint of this library, or it
            holds another kind of model.
    """
    path = resolve_path(path)
    header = read_header(path)
    if header["model"] not in MODEL_NAMES:
        raise CheckpointError(
            f"{path} holds a {header['model']}, which this library cannot build (it can build "
            f"{', '.join(MODEL_NAMES)}): make the model yourself and call load_weights(path, model)"
        )
    check_size(path, header["config"])
    check_size(path, header["tokenizer"] or {})
    if "vocab_size" not in header["config"]:
        raise CheckpointError(f"{path} is not a whole checkpoint: its config has no vocab_size")
    try:
        tokenizer = load_tokenizer(header["tokenizer"]) if header["tokenizer"] else None
        # On the device "meta", tensors have a shape and no memory.
        with torch.device("meta"):
            model = model_from_header(header)
            check_parts(path, header, model)
            check_fit(path, model)
        model = model_from_header(header)
    except ForeignParts:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None
    load_weights(path, model)
    return model.eval(), tokenizer


class ForeignParts(CheckpointError):
    """A checkpoint holds a model whose parts are not those that its config describes."""


def check_parts(path: Path, header: dict, model: nn.Module) -> None:
    """Raise an error if the saved model had other parts than `model`, made from the same config.

    Otherwise `GPT(config, block=MyBlock)` would come back as a plain GPT.
    """
    built = class_names(model)
    # Earlier versions did not save the names.
    saved = header.get("parts", built)
    if saved != built:
        others = ", ".join(str(name) for name in saved if name not in built) or "no others"
        expected = ", ".join(name for name in built if name not in saved) or "no others"
        raise ForeignParts(
            f"{path} holds a model with the parts {others}, but its config describes one with the "
            f"parts {expected}: make the model yourself, as it was made for the training, and call "
            "load_weights(path, model)"
        )


def check_size(path: Path, config: dict) -> None:
    """Raise a CheckpointError if a config or a tokenizer is much too large for the file."""
    shapes = read_shapes(path).values()
    n_numbers = sum(math.prod(shape) for shape in shapes)
    # Every layer has tensors in the file. The rows of a position table are not always in the file.
    most = max(n_numbers, 1_000_000)
    limits = {"n_layer": len(shapes), "block_size": most, "vocab_size": most}
    for name, limit in limits.items():
        value = config.get(name, 0)
        if isinstance(value, int) and value > limit:
            raise CheckpointError(
                f"{path} is not a whole checkpoint: it says {name}={value}, which does not fit its "
                f"{len(shapes)} tensors with {n_numbers} numbers"
            )


def model_from_header(header: dict) -> nn.Module:
    """Return a new model with the config that a checkpoint's header holds."""
    if header["model"] == "Bigram":
        return Bigram(**header["config"])
    core = {f.name for f in fields(GPTConfig)}
    known = [f.name for f in fields(VariantConfig)]
    for name in header["config"]:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}{did_you_mean(name, known)}")
    config_class = GPTConfig if header["config"].keys() <= core else VariantConfig
    return make_model(config_class(**header["config"]))
