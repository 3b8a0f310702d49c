"""Compare a student's answers with the right ones, and describe a difference in words."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# How far rounding may move a right answer. Other dtypes are compared exactly.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
# An answer this close to the result of a known mistake is explained by that mistake.
ALIKE = 1e-4

GRADIENT_IS_CUT = (
    "Is there a .detach(), .data, .item(), torch.tensor(…) or torch.no_grad() in the computation?"
)

# Equals no answer, because no exercise has an answer of this shape.
NO_TENSOR = torch.zeros(0, 0, 0, 0, 0)


class Wrong(Exception):
    """A property that an answer does not have. Its text is the sentence that the student reads."""


@dataclass(frozen=True)
class Trial:
    """One input, the student's answer to it, and the right answer."""

    given: dict[str, Any]
    got: Tensor
    expected: Tensor

    @property
    def passed(self) -> bool:
        return close(self.got, self.expected)


def unchanged(answer):
    """Return the answer as it is."""
    return answer


def compare(
    reader: Callable,
    right: Callable,
    cases: list[dict],
    mistakes: Iterable[tuple[str, Callable]] = (),
    to_tensor: Callable = unchanged,
    alike: float = ALIKE,
) -> list[Trial]:
    """Return a `Trial` for each case. All answers have the right shape and dtype.

    Args:
        reader: the student's function.
        right: a slow and obviously right version of the function.
        cases: inputs by name, the smallest first.
        mistakes: pairs of a sentence and a function with that mistake, see `raise_known_mistake`.
        to_tensor: turns an answer into a tensor, for exercises whose answer is something else.
        alike: how close an answer must be to the result of a mistake.

    Raises:
        Wrong: if a known mistake explains the answers, if a call fails, if a shape or a dtype is
            wrong, or if two equal calls give different results. The first of these is reported.
    """
    trials, failed, problems = [], [], []
    for given in cases:
        expected = right(**given)
        try:
            answer = to_tensor(reader(**given))
            trials.append(Trial(given, a_tensor(answer), expected))
        except Wrong as problem:
            failed.append(Trial(given, NO_TENSOR, expected))
            problems.append(problem)
    raise_known_mistake(trials, failed, mistakes, alike)
    if problems:
        raise problems[0]
    for trial in trials:
        same_form(trial)
    last = trials[-1]
    if not close(to_tensor(reader(**last.given)), last.got):
        names = ", ".join(f"`{name}`" for name in last.given)
        raise Wrong(
            f"two calls with the same {names} give different results. "
            "Is something drawn at random, or stored from one call to the next?"
        )
    return trials


def raise_known_mistake(
    trials: list[Trial], failed: list[Trial], mistakes: Iterable[tuple[str, Callable]], alike: float
) -> None:
    """Raise `Wrong` with the sentence of the first mistake that explains everything we saw.

    A mistake must give the student's answer to every input, also to the inputs answered rightly.
    One rightly answered input at which the mistake would be wrong shows that the student made
    another mistake.

    Args:
        failed: the calls that ended with an error. A mistake that would give the right answer to
            one of them does not explain it.
    """
    wrong_trials = [trial for trial in trials if not trial.passed]
    right_trials = [trial for trial in trials if trial.passed]
    # If most calls failed, the error says more than the few answers.
    if not wrong_trials or len(failed) > len(trials):
        return
    for sentence, mistake in mistakes:
        if (
            all(_explains(mistake, trial, alike) for trial in wrong_trials)
            and all(_equals(mistake, trial, alike) for trial in right_trials)
            and not any(_is_right(mistake, trial) for trial in failed)
        ):
            raise Wrong(sentence)


def _equals(mistake, trial, alike):
    return close(trial.got, mistaken_answer(mistake, trial), alike)


def _is_right(mistake, trial):
    return close(mistaken_answer(mistake, trial), trial.expected)


def _explains(mistake, trial, alike):
    """Return whether the mistake gives this answer, and gives it because it is a mistake."""
    mistaken = mistaken_answer(mistake, trial)
    if close(trial.got, mistaken):
        return True
    return close(trial.got, mistaken, alike) and not close(mistaken, trial.expected, alike)


def mistaken_answer(mistake, trial):
    """Return the mistake's result, or a tensor that equals no answer if the mistake fails."""
    try:
        return mistake(**trial.given)
    except Exception:
        return NO_TENSOR


def combined(build: Callable, *choices: dict[str, Any]) -> Iterator[tuple[str, Callable]]:
    """Yield pairs of a sentence and a function for `compare`: single mistakes, then two at once.

    Args:
        build: makes a function from a list with one option of each choice.
        choices: options by the sentence that describes the mistake. The right option has the
            sentence "".
    """
    for n_mistakes in (1, 2):
        for combination in _with_mistakes(n_mistakes, choices):
            sentences = [sentence for sentence, _ in combination if sentence]
            text = " There is a second mistake: ".join(map(with_period, sentences))
            yield text, build([option for _, option in combination])


def _with_mistakes(n, choices):
    """Yield lists of one pair (sentence, option) of each choice, n of them with a mistake."""
    if not choices:
        if n == 0:
            yield []
        return
    for sentence, option in choices[0].items():
        if n > 0 or not sentence:
            for others in _with_mistakes(n - bool(sentence), choices[1:]):
                yield [(sentence, option), *others]


# Properties of an answer --------------------------------------------------------------------------


def same_form(trial: Trial) -> None:
    """Raise `Wrong` if the shape or the dtype is wrong."""
    got, expected, call = trial.got, trial.expected, listed(trial.given)
    if got.shape != expected.shape:
        raise Wrong(
            f"the result has shape {tuple(got.shape)}, but it should have shape "
            f"{tuple(expected.shape)}, for {call}"
        )
    if got.dtype == expected.dtype:
        return
    hint = (
        "Give new tensors a `dtype=`. `.float()`, `.long()` and comparisons also change the dtype"
    )
    if expected.ndim == 0 and got.is_floating_point():
        hint = (
            "`.item()` and `float()` make a plain number of a tensor. They lose the dtype and cut "
            "the gradient. `.float()` and a new tensor without `dtype=` lose the dtype too"
        )
    raise Wrong(
        f"the result is {_dtype(got)}, but it should be {_dtype(expected)}, for {call}. {hint}"
    )


def finite(trial: Trial, why: str) -> None:
    """Raise `Wrong` if there is nan or inf where the right answer has none.

    Args:
        why: how such values come about, as the end of a sentence.
    """
    if not trial.got.isfinite().all() and trial.expected.isfinite().all():
        raise Wrong(f"the result contains nan or inf for {listed(trial.given)}: {why}")


def agree(trials: list[Trial], tolerance: float | None = None) -> None:
    """Raise `Wrong` with the first trial whose answer is not the right one."""
    for trial in trials:
        if close(trial.got, trial.expected, tolerance):
            continue
        if close(trial.got, trial.expected, ALIKE):
            raise Wrong(
                "the result is nearly right, but its error is too large for a rounding error. Does "
                "the computation contain a .float(), a round() or an extra 1e-8? "
                f"An example: {_example(trial)}"
            )
        raise Wrong(_example(trial))


def _example(trial):
    """Return a sentence with the inputs, the answer and the right answer."""
    got, expected, where = trial.got.detach(), trial.expected.detach(), ""
    if expected.numel() > 12:
        index = _first_difference(got, expected)
        where = f" at [{', '.join(map(str, index))}]"
        got, expected = got[index], expected[index]
    digits = 4 if shown(got) != shown(expected) else 12
    return (
        f"for {listed(trial.given)} the function returns {shown(got, digits)}{where}, "
        f"but {shown(expected, digits)} is right"
    )


def _first_difference(a, b):
    """Return the first index at which two tensors of the same shape differ."""
    for index in itertools.product(*map(range, b.shape)):
        if not close(a[index], b[index]):
            return index


def same_gradients(
    reader: Callable, right: Callable, given: dict, of: tuple[str, ...], hint: str
) -> None:
    """Raise `Wrong` if the gradient of an argument named in `of` is not the right one.

    Args:
        hint: what the reason may be, as the end of a sentence.
    """
    given = {
        name: value.double().requires_grad_() if name in of else value
        for name, value in given.items()
    }
    got, expected = reader(**given), right(**given)
    inputs = [given[name] for name in of]
    weights = randn(*expected.shape, seed=99)
    if not got.requires_grad:
        raise Wrong(
            f"no gradient flows back to {' and '.join(f'`{name}`' for name in of)}, so nothing "
            f"before this function could be trained. {GRADIENT_IS_CUT}"
        )
    right_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    try:
        gradients = torch.autograd.grad((got * weights).sum(), inputs, allow_unused=True)
    except RuntimeError as error:
        raise Wrong(
            f"the gradient cannot be computed ({first_line(error)}). Is a tensor changed in place?"
        ) from None
    for name, gradient, right_gradient in zip(of, gradients, right_gradients, strict=True):
        if gradient is None:
            raise Wrong(f"no gradient flows back to `{name}`. {GRADIENT_IS_CUT}")
        if not close(gradient, right_gradient, 1e-8):
            raise Wrong(f"the result is right, but its gradient for `{name}` is wrong: {hint}")


def keeps_device(reader: Callable, cases: list[dict], to_tensor: Callable = unchanged) -> None:
    """Raise `Wrong` if an input on a GPU has its result elsewhere. Do nothing without a GPU."""
    if torch.cuda.is_available():
        device = "cuda"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        return
    # MPS has no float64.
    cases = [given for given in cases if torch.float64 not in map(_dtype_or_none, given.values())]
    if not cases:
        return
    given = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in cases[-1].items()
    }
    got = a_tensor(to_tensor(reader(**given)))
    if got.device.type != device:
        raise Wrong(
            f"the result is on {got.device}, but its input is on {device}. "
            "Give new tensors a `device=`"
        )


def _dtype_or_none(value):
    return value.dtype if isinstance(value, Tensor) else None


def a_tensor(answer) -> Tensor:
    """Return the answer. Raise `Wrong` if it is not an ordinary tensor of real numbers."""
    if isinstance(answer, (bool, int, float)):
        raise Wrong(
            f"the function returns the plain number {answer:.4g}, but it should return a tensor. "
            "Leave out `.item()` and `float()`, which also cut the gradient"
        )
    if not isinstance(answer, Tensor):
        raise Wrong(
            f"the function returns a {type(answer).__name__}, but it should return a torch.Tensor"
        )
    if answer.is_complex() or answer.layout != torch.strided:
        raise Wrong(
            f"the function returns a {answer.layout} tensor of {_dtype(answer)}, "
            "but it should return an ordinary tensor of real numbers"
        )
    return answer


def close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    """Return whether a equals b except for rounding. Integers and booleans are compared exactly."""
    if a.shape != b.shape:
        return False
    if tolerance is None:
        tolerance = TOLERANCE.get(b.dtype, 0.0)
    a, b = (tensor.detach().cpu().double() for tensor in (a, b))
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same numbers exactly. Any nan equals any other."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


# Random inputs, the same on every run -------------------------------------------------------------


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normally distributed numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def randint(high: int, *shape: int, seed: int) -> Tensor:
    """Return integers from 0 to high - 1."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


# Words --------------------------------------------------------------------------------------------


def shown(value, digits: int = 4, most: int = 12) -> str:
    """Return a number or a small tensor in full, and a large tensor by its shape and dtype."""
    if isinstance(value, Tensor):
        if value.numel() > most:
            return f"a {tuple(value.shape)} tensor of {_dtype(value)}"
        return shown(value.tolist(), digits)
    if isinstance(value, list):
        return "[" + ", ".join(shown(element, digits) for element in value) + "]"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def listed(given: dict[str, Any]) -> str:
    """Return the arguments as text: "T = 3, C = 4"."""
    return ", ".join(f"{name} = {shown(value)}" for name, value in given.items())


def with_period(sentence: str) -> str:
    """Return the sentence with a period at its end, unless it already ends with "." or "?"."""
    return sentence if sentence.endswith((".", "?")) else sentence + "."


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")
