"""Muon, an optimizer for the matrices of a neural network (Jordan et al. 2024; chapter 9).

Every matrix is a sum of directions: s₁ u₁v₁ᵀ + s₂ u₂v₂ᵀ + … with columns u and rows vᵀ of length 1.
The gradient of a matrix usually has a few large sizes s, its singular values, and many small ones.
Gradient descent therefore learns mostly in a few directions. Muon takes the mean of the last
gradients (momentum), and gives all its directions nearly the same size:

>>> gradient = torch.tensor([[100.0, 0.0], [0.0, 1.0]])     # the first direction is much larger
>>> orthogonalize(gradient).round(decimals=2)               # now both have the size 0.7
tensor([[0.7000, 0.0000],
        [0.0000, 0.7000]])

The exact result would have the size 1. The fast method gives sizes between 0.7 and 1.2, which is
enough. Embeddings, the output layer, norms and biases stay with AdamW, because they are no
matrices that turn one vector into another: each row of an embedding belongs to one token.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from gptlib.checks import at_least, check_arguments, checked_value, list_of, short, trainable
from gptlib.config import TrainConfig

# The learning rates of the parts, as multiples of config.learning_rate.
EMBEDDING_SCALE = 0.45
OTHER_SCALE = 0.15
MOMENTUM = 0.95


def matrices_kind(name: str, value: Tensor) -> Tensor:
    """The kind of matrices: floating-point numbers, (…, m, n)."""
    value = checked_value(name, value, Tensor)
    if value.ndim < 2 or not value.is_floating_point():
        raise ValueError(
            f"{name} is {value.dtype} of shape {tuple(value.shape)}, it should be floating-point "
            "numbers of shape (…, m, n)"
        )
    return value


def two_betas(name: str, value: Sequence[float]) -> tuple[float, float]:
    """The kind of AdamW's betas: two numbers, at least 0 and below 1."""
    betas = list_of(at_least(0.0))(name, value)
    if len(betas) != 2 or max(betas) >= 1:
        raise ValueError(f"{name}={short(value)} should be two numbers, at least 0 and below 1")
    return tuple(betas)


@check_arguments(matrices=matrices_kind, steps=at_least(1))
def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return nearly orthogonal matrices: most singular values become numbers from 0.7 to 1.2.

    Every matrix is U S Vᵀ with orthogonal U and V and a diagonal S, its singular values. The exact
    result would be U Vᵀ. A polynomial comes close without computing U and V. Since X Xᵀ = U S² Uᵀ,
    the product X Xᵀ X has the singular values s³, with the same U and V, and X Xᵀ X Xᵀ X has s⁵.
    Therefore

        X  ->  a X + b (X Xᵀ) X + c (X Xᵀ)² X

    maps each singular value s to a s + b s³ + c s⁵. Repeated five times, it brings every number
    between 0.01 and 1 close to 1. Smaller numbers stay smaller. This is called a Newton-Schulz
    iteration. The coefficients are those of Jordan et al. (2024). They were chosen to be fast for
    small s, so the values do not converge to exactly 1.

    Args:
        matrices: (…, m, n). All of them are computed together.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    m, n = matrices.shape[-2:]
    X = matrices.mT if m > n else matrices              # X Xᵀ is then the smaller product
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)     # no singular value is larger than 1
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if m > n else X


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `n_matrices`, AdamW for all others.

    Args:
        groups: parameter groups. Each has `params`, and may have `n_matrices`. 0 means AdamW. 1
            means that each parameter is a matrix. 3 means that each parameter is three matrices
            below one another, such as those for queries, keys and values.
        lr: the learning rate. A group with `lr_scale` gets lr times this scale, here and whenever
            `gptlib.train` changes the rate.
        betas, eps: of AdamW.
        weight_decay: the share of a weight, times lr, that each step removes.
    """

    @check_arguments(
        lr=at_least(0.0), betas=two_betas, eps=at_least(0.0), weight_decay=at_least(0.0)
    )
    def __init__(self, groups, lr=0.02, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                    "n_matrices": 0, "lr_scale": 1.0}
        super().__init__(groups, defaults)
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    @torch.no_grad()
    def step(self) -> None:
        """Change all weights. For a matrix: mean gradient, orthogonalize, decay, subtract."""
        by_shape = defaultdict(list)
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not group["n_matrices"]:
                self.adamw_step(weights, group)
                continue
            for weight in weights:
                matrices = self.direction(weight).unflatten(0, (group["n_matrices"], -1))
                by_shape[matrices.shape[1:]].append((weight, matrices, group))
        # Matrices of equal shape are orthogonalized together, which is faster.
        for (m, n), entries in by_shape.items():
            together = orthogonalize(torch.cat([matrices for _, matrices, _ in entries]))
            parts = together.split([len(matrices) for _, matrices, _ in entries])
            for (weight, _, group), part in zip(entries, parts, strict=True):
                # Tall matrices take larger steps: without this, their outputs would change less.
                size = group["lr"] * max(1, m / n) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(part.reshape(weight.shape), alpha=size)

    def direction(self, weight: Tensor) -> Tensor:
        """Return 0.05 times the gradient plus 0.95 times the mean of the last gradients.

        First the mean moves by 0.05 towards the gradient. So the newest gradient counts twice. This
        is called Nesterov momentum.
        """
        state = self.state[weight]
        if not state:
            state["mean_gradient"] = torch.zeros_like(weight)
        state["mean_gradient"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(state["mean_gradient"], MOMENTUM)

    def adamw_step(self, weights: list[Tensor], group: dict) -> None:
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)
        beta1, beta2 = group["betas"]
        adamw(
            weights,
            [weight.grad for weight in weights],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


@check_arguments(model=trainable, config=TrainConfig)
def make_muon(model: nn.Module, config: TrainConfig) -> Muon:
    """Return Muon for the linear layers inside of `model.blocks`, and AdamW for all other weights.

    Without blocks, AdamW gets everything. A good learning rate is about 0.02. Embeddings learn with
    0.45 times this rate, and the output layer, norms and biases with 0.15 times.
    """
    groups = parameter_groups(model, config)
    return Muon([group for group in groups if group["params"]], config.learning_rate,
                (config.beta1, config.beta2))


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """Return the groups of weights that are treated alike. Those with `n_matrices` are Muon's."""
    layers = {f"blocks.{name}": module for name, module in
              getattr(model, "blocks", nn.ModuleList()).named_modules()
              if isinstance(module, nn.Linear)}
    qkv = [layer.weight for name, layer in layers.items() if name.endswith(".qkv")]
    linear = [layer.weight for name, layer in layers.items() if not name.endswith(".qkv")]
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    known = {id(weight) for weight in qkv + linear + embeddings}
    others = [weight for weight in model.parameters() if id(weight) not in known]
    return [
        {"params": qkv, "n_matrices": 3, "weight_decay": config.weight_decay},
        {"params": linear, "n_matrices": 1, "weight_decay": config.weight_decay},
        {"params": embeddings, "n_matrices": 0, "lr_scale": EMBEDDING_SCALE},
        {"params": others, "n_matrices": 0, "lr_scale": OTHER_SCALE},
    ]
