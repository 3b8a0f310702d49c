"""The optimizers by name: `make_optimizer(model, config)` makes the one that the config names.

    train(model, train_ids, val_ids, block_size, config, optimizer=make_optimizer)
"""

import torch
from torch import nn

from gptlib.checks import check_arguments, trainable
from gptlib.config import TrainConfig
from gptlib.optimizers.muon import Muon as Muon
from gptlib.optimizers.muon import make_muon
from gptlib.optimizers.muon import orthogonalize as orthogonalize
from gptlib.train import make_optimizer as make_adamw

OPTIMIZERS = {"adamw": make_adamw, "muon": make_muon}


@check_arguments(model=trainable, config=TrainConfig)
def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return a new optimizer for all parameters of `model`: the one that config.optimizer names."""
    return OPTIMIZERS[config.optimizer](model, config)
