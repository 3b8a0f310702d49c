"""Weights of one byte for sampling: a token waits for every weight to come from memory, so smaller ones come sooner."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers from -127 to 127, times one scale for each output.

    Sums are formed in bfloat16 products, so an output is right to two or three digits. It cannot be trained.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()                             # (out, in)
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.flatten(0, -2).bfloat16(), self.weight, self.scale)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def int8_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` with every `nn.Linear` in int8, for sampling on a CPU; embeddings and norms stay as they are.

    >>> model = int8_copy(nn.Sequential(nn.Linear(64, 64)))
    >>> model[0].weight.dtype
    torch.int8
    """
    model = deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model
