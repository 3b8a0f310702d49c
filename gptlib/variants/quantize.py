"""Weights of one byte, for faster sampling on a CPU (chapter 17 will explain quantization).

To compute one token, the processor reads every weight from memory once. Smaller weights are read
in less time.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A linear layer with whole numbers from -127 to 127 as weights, and a scale for each output.

    The products are computed in bfloat16, so that outputs are correct to two or three digits. The
    layer cannot be trained.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()                             # (out, in)
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127                 # (out,)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2).bfloat16()                                  # (N, in)
        y = torch._weight_int8pack_mm(flat, self.weight, self.scale)        # (N, out)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def int8_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with every `nn.Linear` in int8. All other parts stay as they are.

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
