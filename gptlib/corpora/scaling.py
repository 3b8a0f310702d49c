"""How much text and how large a model: the scaling law of losses (chapter 10).

    L(N, D) = E + A / N^alpha + B / D^beta          Hoffmann et al. 2022, equation 2

N is the number of parameters, and D is the number of tokens that the model reads, each once. No
model of this kind gets below the loss E. The other two terms say how much a small model loses, and
how much a short training text loses.

>>> N, D = (numbers.ravel() for numbers in np.meshgrid([1e4, 1e5, 1e6], [1e5, 3e5, 1e6]))
>>> law = fit(N, D, 1.5 + 30 / N ** 0.4 + 90 / D ** 0.5)
>>> round(law.loss(1e7, 1e7), 2)
1.58
"""

from dataclasses import dataclass

import numpy as np

from gptlib.checks import check_arguments, list_of

EXPONENTS = np.arange(0.02, 1.5, 0.02)      # all values that `fit` tries for alpha and for beta


def numbers(name: str, value: np.ndarray) -> np.ndarray:
    """The kind of positive numbers, one for each run."""
    value = np.array(list_of(float)(name, value))
    if not (value > 0).all():
        raise ValueError(f"{name} should be numbers above 0")
    return value


@dataclass(frozen=True)
class ScalingLaw:
    """The five numbers of the law."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss that the law predicts, in nats per token."""
        return float(self.E + self.A / parameters ** self.alpha + self.B / tokens ** self.beta)


@check_arguments(parameters=numbers, tokens=numbers, losses=numbers)
def fit(parameters: np.ndarray, tokens: np.ndarray, losses: np.ndarray) -> ScalingLaw:
    """Return the law with the smallest squared error on these runs.

    With fixed exponents the law is linear in E, A and B, so they follow from least squares. All
    pairs of exponents in `EXPONENTS` are tried. E, A and B may not be negative.

    Args:
        parameters, tokens, losses: one number for each run, (runs,) each. At least six runs.
    """
    if not len(parameters) == len(tokens) == len(losses) >= 6:
        raise ValueError(
            f"there are {len(parameters)} numbers of parameters, {len(tokens)} of tokens and "
            f"{len(losses)} losses: give equally many, and at least six"
        )
    best, smallest = None, np.inf
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            terms = np.stack([np.ones(len(losses)), parameters ** -alpha, tokens ** -beta], axis=1)
            factors = np.linalg.lstsq(terms, losses, rcond=None)[0]
            error = ((terms @ factors - losses) ** 2).sum()
            if error < smallest and (factors >= 0).all():
                E, A, B = factors.tolist()
                best, smallest = ScalingLaw(E, A, float(alpha), B, float(beta)), error
    if best is None:
        raise ValueError("no law with positive terms fits these losses: do they fall with size?")
    return best
