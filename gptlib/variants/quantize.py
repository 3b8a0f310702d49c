"""Weights of one byte, for faster sampling on a CPU (chapter 17 will explain quantization).

To compute one token, the processor reads every weight from memory once. Smaller weights are read
in less time.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptlib.checks import check_arguments, tensor

# PyTorch's int8 kernel reads past the end of a row whose length is not a multiple of 16. Here every
# row has a multiple of this length.
KERNEL_WIDTH = 32


@check_arguments(weight=tensor("O, I"))
def round_to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix in int8, and a scale for each row: (out, in) -> (out, in), (out,).

    The largest number of a row becomes 127 or -127. A row times its scale is nearly the old row:

    >>> rounded, scale = round_to_int8(torch.tensor([[1.0, -2.0], [0.3, 0.1]]))
    >>> rounded
    tensor([[  64, -127],
            [ 127,   42]], dtype=torch.int8)
    >>> rounded * scale[:, None]
    tensor([[ 1.0079, -2.0000],
            [ 0.3000,  0.0992]])
    """
    if not weight.numel() or not weight.isfinite().all():
        raise ValueError(
            f"weight has the shape {tuple(weight.shape)}, it should have at least one number in "
            "each row, and neither nan nor infinity: has the model's training diverged?"
        )
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer with whole numbers from -127 to 127 as weights, and a scale for each output.

    The products are computed in bfloat16, so that outputs are correct to two or three digits. The
    layer cannot be trained.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        rounded, scale = round_to_int8(linear.weight.detach().float())
        # Zeros fill each row up to a multiple of KERNEL_WIDTH. They do not change the product.
        self.padding = -linear.in_features % KERNEL_WIDTH
        self.register_buffer("weight", F.pad(rounded, (0, self.padding)))
        self.register_buffer("scale", scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()                        # (N, in)
        rows = F.pad(rows, (0, self.padding)).contiguous()
        y = torch._weight_int8pack_mm(rows, self.weight, self.scale)        # (N, out)
        y = y.to(x.dtype).view(*x.shape[:-1], len(self.scale))
        return y if self.bias is None else y + self.bias


@check_arguments(model=nn.Module)
def int8_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with every `nn.Linear` in int8. All other parts stay as they are.

    >>> model = int8_copy(nn.Sequential(nn.Linear(64, 64)))
    >>> model[0].weight.dtype
    torch.int8
    """
    model = deepcopy(model).eval()
    if isinstance(model, nn.Linear):
        return Int8Linear(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model
