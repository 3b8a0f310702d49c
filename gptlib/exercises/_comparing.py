"""How an answer is compared with the right one, and how a difference is put into words."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}                 # what rounding may do to an answer
ALIKE = 1e-4                                                            # closer than this, it is that mistake


class Wrong(Exception):
    """A property that does not hold. Its text is the sentence that the reader sees."""


@dataclass(frozen=True)
class Trial:
    """One input, the reader's answer to it, and the right one."""

    given: dict[str, Any]
    got: Tensor
    expected: Tensor


def compare(reader: Callable, right: Callable, cases: list[dict], mistakes=(), tidy: Callable = lambda answer: answer,
            alike: float = ALIKE) -> list[Trial]:
    """The reader's answers beside the right ones; their shapes and dtypes are right when this returns.

    Args:
        right: a slow and obviously right version of the function.
        cases: inputs by name, the smallest first.
        mistakes: pairs of a sentence and a function with that mistake, see `blame`.
        tidy: makes a tensor of an answer that is something else by design.
        alike: how near an answer must come to what a mistake gives.
    """
    trials, trouble = [], None
    for given in cases:
        try:
            answer = tidy(reader(**given))
            trials.append(Trial(given, a_tensor(answer), right(**given)))
        except Wrong as wrong:
            trouble = trouble or wrong
    blame(trials, mistakes, alike)
    if trouble:
        raise trouble
    for trial in trials:
        same_form(trial)
    if not close(tidy(reader(**trials[-1].given)), trials[-1].got):
        raise Wrong(f"two calls with the same `{'`, `'.join(trials[-1].given)}` give different results: something is drawn at random, "
                    "or kept from call to call")
    return trials


def blame(trials: list[Trial], mistakes, alike: float = ALIKE) -> None:
    """Say the sentence of the mistake that explains what is not right.

    Best is a mistake that gives the reader's answer to every input, the rightly answered ones too; next, to every
    input that is not answered rightly, two at least; next, to most of those, for the rest may have gone wrong in its own way.
    """
    failing = [trial for trial in trials if not close(trial.got, trial.expected)]
    passing = [trial for trial in trials if close(trial.got, trial.expected)]
    good = most = None
    for sentence, mistake in mistakes if failing else ():
        explained = 0
        for i, trial in enumerate(failing, 1):
            explained += _explains(mistake, trial, alike)
            if i - explained > len(failing) / 4:
                break
        else:
            if explained == len(failing) and all(close(trial.got, _tried(mistake, trial), alike) for trial in passing):
                raise Wrong(sentence)
            if explained == len(failing) >= 2:
                good = good or sentence
            elif explained >= 3:
                most = most or sentence
    if good or most:
        raise Wrong(good or most)


def combined(build: Callable, *choices: dict[str, Any]):
    """Pairs for `compare` out of one choice from each dict, single mistakes first, then two together.

    The option under "" is the right one; any other stands under the sentence for taking it.
    `build(options)` makes the function.
    """
    picks = sorted(itertools.product(*(choice.items() for choice in choices)), key=lambda pick: sum(bool(said) for said, _ in pick))
    for pick in picks:
        said = [sentence for sentence, _ in pick if sentence]
        if 1 <= len(said) <= 2:
            yield "; and ".join(said), build([option for _, option in pick])


def same_form(trial: Trial) -> None:
    """The shape and the dtype are right."""
    got, expected, call = trial.got, trial.expected, listed(trial.given)
    if got.shape != expected.shape:
        raise Wrong(f"the result has shape {tuple(got.shape)}, and {tuple(expected.shape)} is right, for {call}")
    if got.dtype != expected.dtype:
        raise Wrong(f"the result is {_dtype(got)}, and {_dtype(expected)} is right, for {call}: new tensors need `dtype=`, "
                    "and .float(), .long() or a comparison changes it")


def finite(trial: Trial, why: str) -> None:
    """No nan and no inf where the right answer has none; `why` says how they come about."""
    if not trial.got.isfinite().all() and trial.expected.isfinite().all():
        raise Wrong(f"there is nan or inf in the result for {listed(trial.given)}: {why}")


def agree(trials: list[Trial], tolerance: float | None = None) -> None:
    """Every answer is the right one. The first that is not is shown: inputs, answer, right answer."""
    for trial in trials:
        if not close(trial.got, trial.expected, tolerance):
            nearly = close(trial.got, trial.expected, ALIKE)
            raise Wrong("it is nearly right, but off by more than rounding (is there a .float(), a round or an extra 1e-8 on the way?): "
                        * nearly + _example(trial))


def same_gradients(reader: Callable, right: Callable, given: dict, of: tuple[str, ...], hint: str) -> None:
    """The gradients of the arguments named in `of` are the right ones: nothing between them and the result is cut."""
    given = {name: value.double().requires_grad_() if name in of else value for name, value in given.items()}
    got, expected = reader(**given), right(**given)
    inputs = [given[name] for name in of]
    weights = randn(*expected.shape, seed=99)
    cut = "is there a .detach(), .data, .item(), torch.tensor(…) or torch.no_grad() on the way?"
    if not got.requires_grad:
        raise Wrong(f"no gradient flows back to `{'` and `'.join(of)}`, so nothing could be learned through it: {cut}")
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    try:
        found = torch.autograd.grad((got * weights).sum(), inputs, allow_unused=True)
    except RuntimeError as error:
        raise Wrong(f"its gradient cannot be computed ({first_line(error)}): is a tensor changed in place?") from None
    for name, a, b in zip(of, found, wanted, strict=True):
        if a is None:
            raise Wrong(f"no gradient flows back to `{name}`: {cut}")
        if not close(a, b, 1e-8):
            raise Wrong(f"the result is right, but its gradient for `{name}` is not: {hint}")


def keeps_device(reader: Callable, cases: list[dict], tidy: Callable = lambda answer: answer) -> None:
    """On a GPU, where there is one, the result lies where its input does."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    tensors = lambda given: [value for value in given.values() if isinstance(value, Tensor)]
    single = [given for given in cases if all(value.dtype != torch.float64 for value in tensors(given))]    # MPS has no float64
    for given in single[-1:] if device else ():
        got = a_tensor(tidy(reader(**{name: value.to(device) if isinstance(value, Tensor) else value for name, value in given.items()})))
        if got.device.type != device:
            raise Wrong(f"the result lies on {got.device}, and its input on {device}: new tensors need `device=`")


def a_tensor(answer) -> Tensor:
    if isinstance(answer, (bool, int, float)):
        raise Wrong(f"it gives back the plain number {answer:.4g}, and a tensor is wanted: leave out .item() and float(), "
                    "which also cut the gradient")
    if not isinstance(answer, Tensor):
        raise Wrong(f"it gives back a {type(answer).__name__}, and a torch.Tensor is wanted")
    if answer.is_complex() or answer.layout != torch.strided:
        raise Wrong(f"it gives back a {answer.layout} tensor of {_dtype(answer)}, and a plain tensor of real numbers is wanted")
    return answer


def close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    """Equal but for rounding; whole numbers and truth values exactly."""
    if a.shape != b.shape:
        return False
    tolerance = TOLERANCE.get(b.dtype, 0.0) if tolerance is None else tolerance
    a, b = (t.detach().cpu().double() for t in (a, b))
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num()) if a.is_floating_point() else torch.equal(a, b)


def _explains(mistake, trial, alike):
    mistaken = _tried(mistake, trial)
    return close(trial.got, mistaken) or close(trial.got, mistaken, alike) and not close(mistaken, trial.expected, alike)


def _tried(mistake, trial):
    try:
        return mistake(**trial.given)
    except Exception:
        return torch.zeros(0, 0, 0, 0, 0)           # an input on which that mistake breaks down: like nothing else


# Inputs, the same on every run --------------------------------------------------------------------------------------

def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randint(high: int, *shape: int, seed: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


# Words --------------------------------------------------------------------------------------------------------------

def shown(value, digits: int = 4, most: int = 12) -> str:
    """A number, a small tensor in full, a large one by its shape."""
    if isinstance(value, Tensor):
        if value.numel() > most:
            return f"a {tuple(value.shape)} tensor of {_dtype(value)}"
        return shown(value.tolist(), digits)
    if isinstance(value, list):
        return "[" + ", ".join(shown(v, digits) for v in value) + "]"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def listed(given):
    return ", ".join(f"{name} = {shown(value)}" for name, value in given.items())


def _example(trial):
    got, expected, where = trial.got.detach(), trial.expected.detach(), ""
    if expected.numel() > 12:
        places = itertools.product(*map(range, expected.shape))
        apart = [place for place in places if not close(got[place], expected[place])]
        got, expected, where = got[apart[0]], expected[apart[0]], f" at [{', '.join(map(str, apart[0]))}]"
    digits = 4 if shown(got) != shown(expected) else 12
    return f"for {listed(trial.given)} it gives {shown(got, digits)}{where}, and {shown(expected, digits)} is right"


def _dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


