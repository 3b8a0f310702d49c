"""Chapter 3's exercises: layer norm, sinusoidal positions, dropout, and a pre-norm block."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    Trial,
    Wrong,
    a_tensor,
    agree,
    close,
    combined,
    compare,
    finite,
    keeps_device,
    randn,
    same_form,
    same_gradients,
)

# layer_norm ---------------------------------------------------------------------------------------


def check_layer_norm(layer_norm) -> Result:
    """Check `layer_norm(x, weight, bias, eps)`.

    x has the shape (B, T, C), weight and bias have (C,), and eps is a number. The result has the
    shape (B, T, C). Each position is normalised by itself.
    """
    return check(
        "layer_norm",
        layer_norm,
        _norm_properties,
        "each position is normalised by itself, eps is under the square root, weight and bias come "
        "last, and the gradients are right",
    )


def _right_norm(x, weight, bias, eps):
    rows = []
    for row in x.flatten(0, 1):
        centred = row - row.mean()
        rows.append(centred / torch.sqrt((centred**2).mean() + eps))
    return torch.stack(rows).view_as(x) * weight + bias


def _norm_cases():
    def case(B, T, C, eps, seed, dtype=torch.float64):
        x = 2 * randn(B, T, C, seed=seed, dtype=dtype) + 1
        weight = randn(C, seed=seed + 1, dtype=dtype)
        bias = randn(C, seed=seed + 2, dtype=dtype)
        return {"x": x, "weight": weight, "bias": bias, "eps": eps}

    return [
        case(1, 1, 2, 0.5, 1),
        case(1, 1, 3, 0.1, 4),
        case(1, 2, 3, 0.2, 7),
        case(3, 1, 4, 0.3, 10),
        case(2, 5, 7, 0.4, 13),
        case(4, 3, 6, 1e-5, 16),
        case(3, 4, 8, 0.01, 19, torch.float32),
    ]


def _mistaken_norm(options):
    axis, centre, divisor, spread, affine = options

    def norm(x, weight, bias, eps):
        mean = x.mean(axis, keepdim=True)
        n = x.numel() // mean.numel()
        variance = (x - mean).square().sum(axis, keepdim=True) / torch.tensor(divisor(n))
        mean_square = x.square().mean(axis, keepdim=True)
        return affine(centre(x, mean) / spread(variance, eps, mean_square), weight, bias)

    return norm


def _rms_norm(x, weight, bias, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


# The axes over which the mean and the variance are taken.
NORM_AXES = {
    "": -1,
    "the norm is taken over time. Normalise each position by itself, over its channels (dim=-1)":
        1,
    "the norm is taken over the batch. Normalise each position by itself, over its channels "
    "(dim=-1)":
        0,
    "the norm is taken over time and channels together, so the future leaks into the past. "
    "Normalise over the channels alone (dim=-1)":
        (1, 2),
    "the norm is taken over the batch and over time, as in batch norm. Normalise over the channels "
    "of each position (dim=-1)":
        (0, 1),
    "the norm is taken over batch, time and channels together. Normalise over the channels of each "
    "position alone (dim=-1)":
        (0, 1, 2),
}

# How the mean is used.
CENTRES = {
    "": lambda x, mean: x - mean,
    "the mean is not subtracted. Compute x − mean": lambda x, mean: x,
    "the mean is added. Subtract it": lambda x, mean: x + mean,
    "x is subtracted from the mean, so every sign is wrong. Compute x − mean":
        lambda x, mean: mean - x,
}

# By what the sum of the squares is divided.
DIVISORS = {
    "": lambda C: C,
    "the variance is divided by C − 1, which is torch's default. A layer norm divides by C "
    "(unbiased=False)":
        lambda C: C - 1,
    "the squares are added up and not divided by C. The variance is the mean of the squares":
        lambda C: 1,
}

# By what x − mean is divided.
SPREADS = {
    "": lambda variance, eps, mean_square: (variance + eps).sqrt(),
    "eps is outside the square root. Compute √(variance + eps), not √variance + eps":
        lambda variance, eps, mean_square: variance.sqrt() + eps,
    "the square root is missing. Divide by the standard deviation, not by the variance":
        lambda variance, eps, mean_square: variance + eps,
    "the function multiplies by the standard deviation. Divide by it":
        lambda variance, eps, mean_square: 1 / (variance + eps).sqrt(),
    "the argument `eps` is not used. Add it to the variance, under the square root":
        lambda variance, eps, mean_square: variance.sqrt(),
    "eps is subtracted. Add it, so that the square root is never 0":
        lambda variance, eps, mean_square: (variance - eps).sqrt(),
    "eps is squared. Add it to the variance as it is":
        lambda variance, eps, mean_square: (variance + eps**2).sqrt(),
    "eps is used as a minimum of the variance. Add it to the variance in all cases":
        lambda variance, eps, mean_square: variance.clamp(min=eps).sqrt(),
    "eps is added twice, under the square root and after it. Add it under the square root only":
        lambda variance, eps, mean_square: (variance + eps).sqrt() + eps,
    "eps is multiplied by the variance. Add it to the variance":
        lambda variance, eps, mean_square: (variance * (1 + eps)).sqrt(),
    "nothing is divided. Divide by √(variance + eps)":
        lambda variance, eps, mean_square: 1.0,
    "the function divides by the root of the mean square of x, as RMSNorm does. Subtract the mean "
    "before you square":
        lambda variance, eps, mean_square: (mean_square + eps).sqrt(),
}

# What happens to the normalised x.
AFFINES = {
    "": lambda x, weight, bias: x * weight + bias,
    "weight and bias are left out. Multiply by weight and add bias at the end":
        lambda x, weight, bias: x,
    "weight is left out. Multiply by it before you add bias": lambda x, weight, bias: x + bias,
    "bias is left out. Add it at the end": lambda x, weight, bias: x * weight,
    "bias is added before the multiplication. Multiply by weight first, and add bias last":
        lambda x, weight, bias: (x + bias) * weight,
    "the function multiplies by 1 + weight. Multiply by weight":
        lambda x, weight, bias: x * (1 + weight) + bias,
    "weight and bias are swapped": lambda x, weight, bias: x * bias + weight,
    "bias is subtracted. Add it": lambda x, weight, bias: x * weight - bias,
    "the function divides by weight. Multiply by it": lambda x, weight, bias: x / weight + bias,
    "weight and bias are added. Multiply by weight, and then add bias":
        lambda x, weight, bias: x + weight + bias,
    "the function multiplies by bias too. Add bias": lambda x, weight, bias: x * weight * bias,
}

def _by_mean_deviation(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.abs().mean(-1, keepdim=True) + eps) * weight + bias


def _from_0_to_1(x, weight, bias, eps):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low + eps) * weight + bias


def _weighted_first(x, weight, bias, eps):
    return _right_norm(x * weight, torch.ones_like(weight), bias, eps)


def _affine_first(x, weight, bias, eps):
    return _right_norm(x * weight + bias, torch.ones_like(weight), torch.zeros_like(bias), eps)


def _with_residual(x, weight, bias, eps):
    return x + _right_norm(x, weight, bias, eps)


def _one_mean_for_all(x, weight, bias, eps):
    variance = x.var(-1, keepdim=True, unbiased=False)
    return (x - x.mean()) / (variance + eps).sqrt() * weight + bias


def _one_variance_for_all(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.var(unbiased=False) + eps).sqrt() * weight + bias


# Mistakes that change more than one step.
OTHER_NORM_MISTAKES = [
    ("the function divides by the mean of |x − mean|. Divide by √(variance + eps)",
     _by_mean_deviation),
    ("the channels are stretched to the range 0 … 1. Subtract the mean, and divide by "
     "√(variance + eps)",
     _from_0_to_1),
    ("x is multiplied by weight before it is normalised. Weight and bias come last",
     _weighted_first),
    ("weight and bias are applied before x is normalised, which undoes part of them. They come "
     "last",
     _affine_first),
    ("x is added to the result. The residual connection is not a part of the norm", _with_residual),
    ("one mean is taken of the whole x, so the result changes when another position changes. Take "
     "the mean of each position over its channels (dim=-1)",
     _one_mean_for_all),
    ("one variance is taken of the whole x, so the result changes when another position changes. "
     "Take the variance of each position over its channels (dim=-1)",
     _one_variance_for_all),
]
RMS_NORM = "the mean is not subtracted, as in RMSNorm. Subtract it before anything else"


def _norm_properties(reader: Reader):
    cases = _norm_cases()
    mistakes = combined(_mistaken_norm, NORM_AXES, CENTRES, DIVISORS, SPREADS, AFFINES)
    mistakes = [(RMS_NORM, _rms_norm), *OTHER_NORM_MISTAKES, *mistakes]
    trials = compare(reader, _right_norm, cases, mistakes)
    _positions_are_independent(reader, cases[4])
    agree(trials)
    _handles_equal_channels(reader)
    _handles_a_large_mean(reader)
    keeps_device(reader, cases)
    hint = "the mean and the variance depend on x too, so neither may be detached"
    same_gradients(reader, _right_norm, cases[4], ("x", "weight", "bias"), hint)


def _positions_are_independent(reader, case):
    before = reader(**case)
    for axis, name in ((1, "position"), (0, "row of the batch")):
        x = case["x"].clone()
        x.select(axis, -1).mul_(3).add_(1)
        if before.shape != x.shape:
            continue
        after = reader(**{**case, "x": x})
        if not close(after.narrow(axis, 0, 1), before.narrow(axis, 0, 1)):
            raise Wrong(
                f"the result changes when another {name} changes. Normalise each position by "
                "itself, over its channels (dim=-1)"
            )


def _handles_equal_channels(reader):
    for C in (4, 1):
        x = torch.full((1, 2, C), 3.0)
        case = {"x": x, "weight": torch.ones(C), "bias": torch.zeros(C), "eps": 1e-5}
        for trial in compare(reader, _right_norm, [case]):
            finite(
                trial,
                "if all channels are equal, their variance is 0. eps under the square root "
                "prevents a division by 0.",
            )
            agree([trial])


def _handles_a_large_mean(reader):
    x = 1e4 + randn(2, 3, 16, seed=30, dtype=torch.float32)
    case = {"x": x, "weight": torch.ones(16), "bias": torch.zeros(16), "eps": 1e-5}
    trial = compare(reader, _right_norm, [case])[0]
    if not close(trial.got, trial.expected, 0.05):
        raise Wrong(
            "all accuracy is lost if x is near 10,000, because the mean of the squares and the "
            "square of the mean are nearly equal. Take the mean of (x − mean)² instead of their "
            "difference"
        )


# sinusoidal_positions -----------------------------------------------------------------------------


def check_sinusoidal_positions(sinusoidal_positions) -> Result:
    """Check `sinusoidal_positions(T, C)`.

    C is even. The result is float32 and has the shape (T, C). Channel 2i of position t contains
    sin(t / 10000^(2i/C)), and channel 2i + 1 contains the cosine of the same angle.
    """
    return check(
        "sinusoidal_positions",
        sinusoidal_positions,
        _position_properties,
        "even channels are sines, odd channels are cosines, and each pair is slower than the pair "
        "before it",
    )


def _right_positions(T, C):
    def wave(t, c):
        angle = t / 10000 ** ((c - c % 2) / C)
        return math.sin(angle) if c % 2 == 0 else math.cos(angle)

    table = [[wave(t, c) for c in range(C)] for t in range(T)]
    return torch.tensor(table, dtype=torch.float32)


def _mistaken_positions(options):
    start, exponent, base, (even, odd), arrange, factor = options

    def positions(T, C):
        t = torch.arange(T, dtype=torch.float64)[:, None] + start
        c = torch.arange(C)
        angle = factor(T) * t / base ** exponent(c, C)  # (T, C)
        return arrange(torch.where(c % 2 == 0, even(angle), odd(angle))).float()

    return positions


# The number of the first position.
STARTS = {
    "": 0.0,
    "the positions count from 1. Position 0 comes first, and all its angles are 0": 1.0,
}

# The exponent of 10000 in the denominator. Channel c belongs to pair i = c // 2, so 2i = c - c % 2.
EXPONENTS = {
    "": lambda c, C: (c - c % 2) / C,
    "the exponent is i/C, half of the right one (as if the base were 100). Channels 2i and 2i + 1 "
    "share the exponent 2i/C":
        lambda c, C: (c // 2) / C,
    "every channel has its own wavelength. A sine and its cosine are a pair and share the exponent "
    "2i/C":
        lambda c, C: c / C,
    "the frequencies grow from pair to pair. The exponent needs a minus sign, or the power belongs "
    "in the denominator":
        lambda c, C: -(c - c % 2) / C,
    "the exponent is 2c/C for channel c. It should be 2i/C for pair i": lambda c, C: 2 * c / C,
    "the exponent is 4i/C, twice the right one. It should be 2i/C":
        lambda c, C: 2 * (c - c % 2) / C,
    "the last pair has exponent 1, as if i were divided by C/2 − 1. The exponent should be 2i/C":
        lambda c, C: (c // 2) / max(C // 2 - 1, 1),
    "the exponent is divided by C − 1. Divide it by C": lambda c, C: (c - c % 2) / (C - 1),
    "the exponents start at 2/C. i counts from 0, so the first pair has exponent 0":
        lambda c, C: (c - c % 2 + 2) / C,
    "the exponent is 2i, without the division by C":
        lambda c, C: c - c % 2,
    "all channels have the same wavelength. With the exponent 2i/C each pair is slower than the "
    "pair before it":
        lambda c, C: 0 * c,
}

BASES = {
    "": 10_000.0,
    "the base is 1000. It should be 10000, as in Vaswani et al.": 1000.0,
    "the base is 100000. It should be 10000, as in Vaswani et al.": 100_000.0,
    "the base is e. It should be 10000, as in Vaswani et al.": math.e,
    "the base is e⁴ = 54.6, as exp gives with log10. Use the natural logarithm, math.log(10000)":
        math.exp(4),
    "the base is 2. It should be 10000, as in Vaswani et al.": 2.0,
}

# The functions of the even and of the odd channels.
WAVES = {
    "": (torch.sin, torch.cos),
    "sine and cosine are swapped. Even channels are sines, and odd channels are cosines":
        (torch.cos, torch.sin),
    "there are only sines. Odd channels should contain the cos of the same angle":
        (torch.sin, torch.sin),
    "there are only cosines. Even channels should contain the sin of the same angle":
        (torch.cos, torch.cos),
    "the result contains the angles. Take their sine or cosine":
        (lambda angle: angle, lambda angle: angle),
}

# The order and the shape of the table.
ALTERNATE = "They should alternate: even channels are sines, and odd channels are cosines"
ARRANGEMENTS = {
    "": lambda table: table,
    f"sines and cosines are in two halves of the channels. {ALTERNATE}":
        lambda table: torch.cat([table[:, 0::2], table[:, 1::2]], dim=1),
    f"cosines and sines are in two halves of the channels. {ALTERNATE}":
        lambda table: torch.cat([table[:, 1::2], table[:, 0::2]], dim=1),
    "time runs along the channels. The shape should be (T, C), one row for each position":
        lambda table: table.T,
    "the channels are in the reverse order. The fastest pair comes first":
        lambda table: table.flip(1),
    "the positions are in the reverse order. Position 0 comes first": lambda table: table.flip(0),
    "the table is divided by √C. Return the sines and cosines themselves, between −1 and 1":
        lambda table: table / table.shape[1] ** 0.5,
    "there is a batch axis. The shape should be (T, C)": lambda table: table[None],
    "the pairs are in the reverse order. The fastest pair, with exponent 0, comes first":
        lambda table: table.unflatten(1, (-1, 2)).flip(1).flatten(1),
    "only the sines are returned, so there are C/2 channels. The cosines belong between them":
        lambda table: table[:, 0::2],
    "only the cosines are returned, so there are C/2 channels. The sines belong between them":
        lambda table: table[:, 1::2],
    "sines and cosines are added up, so there are C/2 channels. Each has a channel of its own":
        lambda table: table[:, 0::2] + table[:, 1::2],
    "sines and cosines are in axes of their own. Weave them into one axis of C channels (flatten)":
        lambda table: table.unflatten(1, (-1, 2)),
}

# By what the angle is multiplied.
ANGLE_FACTORS = {
    "": lambda T: 1.0,
    "the angle is multiplied by 2π. It should be t / 10000^(2i/C), in radians":
        lambda T: 2 * math.pi,
    "the angle is taken in degrees. It should be t / 10000^(2i/C), in radians":
        lambda T: math.pi / 180,
    "the angle is multiplied by π. It should be t / 10000^(2i/C), in radians": lambda T: math.pi,
    "the positions are divided by T. They are whole numbers, 0, 1, 2 …": lambda T: 1 / T,
    "the sign of the angle is wrong, and so the sign of every sine": lambda T: -1.0,

}


def _position_properties(reader: Reader):
    sizes = ((1, 2), (2, 2), (2, 4), (3, 6), (9, 8), (8, 8), (50, 10))
    cases = [{"T": T, "C": C} for T, C in sizes]
    mistakes = combined(
        _mistaken_positions, STARTS, EXPONENTS, BASES, WAVES, ARRANGEMENTS, ANGLE_FACTORS
    )
    # In float32 the sine of a large angle has few right digits.
    trials = compare(reader, _right_positions, cases, mistakes, alike=0.02)
    for trial in trials:
        finite(trial, "is something divided by 0, or is a power too large?")
        if trial.got.abs().max() > 1:
            raise Wrong("some values are outside −1 … 1, but sines and cosines are always inside")
        if not close(trial.got[0], trial.expected[0]):
            raise Wrong("position 0 should be 0, 1, 0, 1 …: the sines and cosines of the angle 0")
        squares = trial.got[:, 0::2] ** 2 + trial.got[:, 1::2] ** 2
        if not close(squares, torch.ones_like(squares), 1e-4):
            raise Wrong(
                "channels 2i and 2i + 1 are not the sine and the cosine of one angle. Their "
                "squares should sum to 1"
            )
        if not close(trial.got, trial.expected, 1e-4):
            agree([trial])


# dropout ------------------------------------------------------------------------------------------


def check_dropout(dropout) -> Result:
    """Check `dropout(x, p, generator)`.

    It returns a copy of x. Each number is 0 with probability p, and divided by 1 − p otherwise.
    """
    return check(
        "dropout",
        dropout,
        _dropout_properties,
        "each number by itself is dropped with probability p, the others are divided by 1 − p, and "
        "the seed decides",
    )


DRAW_FOR_EACH = "Draw one random number for each element, x.shape"


def _dropout_properties(reader: Reader):
    # So few numbers that a loop over single numbers is fast enough.
    x = randn(6, 12, 10, seed=1)
    for p in (0.2, 0.7):
        _drops_with_probability(reader, x, p)
    no_dropout = Trial({"x": x, "p": 0.0}, _drop(reader, x, 0.0, seed=4), x)
    agree([no_dropout])
    for shape, dtype in (
        ((1, 1, 1), torch.float64),
        ((1, 7, 5), torch.float32),
        ((3, 1, 9), torch.float32),
        ((11,), torch.float64),
        ((2, 3, 1, 4), torch.float32),
    ):
        _drop(reader, randn(*shape, seed=2, dtype=dtype), 0.4, seed=5)
    x = x.clone().requires_grad_()
    dropped = _drop(reader, x, 0.2, seed=1)
    expected = (dropped / x).detach()
    if not dropped.requires_grad or not close(torch.autograd.grad(dropped.sum(), x)[0], expected):
        raise Wrong(
            "the gradient for `x` is not the mask times 1 / (1 − p). Is there a .detach() or .data "
            "in the computation?"
        )


def _drop(reader, x, p, seed):
    """Return the student's result. Raise `Wrong` if its form is wrong."""
    return _drop_with(reader, x, p, torch.Generator().manual_seed(seed))


def _drop_with(reader, x, p, generator):
    got = a_tensor(reader(x=x, p=p, generator=generator))
    trial = Trial({"x": x, "p": p}, got, x)
    same_form(trial)
    if p > 0 and got.isinf().any():
        raise Wrong("some numbers became inf or −inf. A number that is dropped should become 0")
    finite(trial, "is something divided by p, or by 1 − p, when that is 0?")
    return got


def _drops_with_probability(reader, x, p):
    got = _drop(reader, x, p, seed=1)
    if len(got.unique()) == 2:
        raise Wrong("the result is the mask alone. Multiply x by it")
    _has_the_right_mask(got, x, p)
    _has_the_right_factor((got / x)[got != 0], p, (got != 0).double().mean().item())
    same_seed = _drop(reader, x, p, seed=1)
    other_seed = _drop(reader, x, p, seed=2)
    other_values = _drop(reader, x.flip(0).exp(), p, seed=1)
    depends_on_seed = not torch.equal(got == 0, other_seed == 0)
    depends_on_values = not torch.equal(got == 0, other_values == 0)
    depends_on_values_message = (
        "the values of x decide which of them are dropped. Only the random numbers should decide"
    )
    if depends_on_values and not depends_on_seed:
        raise Wrong(depends_on_values_message)
    if not torch.equal(got, same_seed):
        raise Wrong(
            "the same seed gives another mask. Draw with torch.rand(x.shape, generator=generator)"
        )
    if not depends_on_seed:
        raise Wrong(
            "the same numbers are dropped for every seed. Draw a new mask from `generator`, and do "
            "not change its seed"
        )
    _draws_anew_in_every_call(reader, x, p)
    if depends_on_values:
        raise Wrong(depends_on_values_message)


def _draws_anew_in_every_call(reader, x, p):
    generator = torch.Generator().manual_seed(3)
    masks = [_drop_with(reader, x, p, generator) == 0 for _ in range(6)]
    if any(torch.equal(masks[0], mask) for mask in masks[1:]):
        raise Wrong(
            "every call drops the same numbers. The generator changes with every draw, so do not "
            "set its seed again, and do not copy it"
        )
    if len({mask.sum().item() for mask in masks}) == 1:
        raise Wrong(
            "every call drops exactly the same number of elements. Each element should be dropped "
            "by its own random number, with probability p"
        )


def _has_the_right_mask(got, x, p):
    dropped = got == 0
    share = dropped.double().mean().item()
    if share == 0:
        raise Wrong(_why_nothing_is_dropped(got, x))
    if share == 1:
        raise Wrong("everything is dropped. Only a share p should become 0")
    _elements_are_independent(dropped)
    noise = 6 * math.sqrt(p * (1 - p) / x.numel())
    if abs(share - p) <= noise:
        return
    if abs(share - (1 - p)) < noise:
        raise Wrong(
            "keep and drop are swapped: p is the share to drop, but here it is the share that "
            "stays. Keep the elements where rand >= p"
        )
    if abs(share - (1 - (1 - p) ** 2)) < noise:
        raise Wrong(
            "dropout is applied twice, so more than a share p becomes 0. Draw one mask, and use it "
            "once"
        )
    raise Wrong(
        f"the function drops {share:.0%} of the numbers, but with p = {p} it should be {p:.0%}. "
        "Compare p with random numbers that are uniform between 0 and 1 (rand, not randn or "
        "randint)"
    )


def _why_nothing_is_dropped(got, x):
    if close(got, x):
        return "nothing is dropped. This is dropout in training, so a share p should become 0"
    if close(got, x * got[0, 0, 0] / x[0, 0, 0]):
        return "nothing is dropped, but everything is scaled. Multiply by the mask too"
    return "no number became 0. Dropout multiplies by a mask of zeros and ones"


def _elements_are_independent(dropped):
    """Raise `Wrong` if the mask (B, T, C) repeats along an axis."""
    for axes, mistake in (
        ((1, 2), "whole rows of the batch are dropped"),
        ((0, 1), "whole channels are dropped, at every position and in the whole batch"),
        ((0, 2), "whole positions are dropped, in the whole batch"),
        ((0,), "all rows of the batch share one mask"),
        ((1,), "whole channels are dropped, at every position"),
        ((2,), "whole positions are dropped, with all their channels"),
    ):
        first = dropped
        for axis in axes:
            first = first.narrow(axis, 0, 1)
        if (dropped == first).all():
            raise Wrong(f"{mistake}. {DRAW_FOR_EACH}")
    for axis, name in enumerate(("rows of the batch", "positions", "channels")):
        if dropped.unique(dim=axis).shape[axis] < dropped.shape[axis]:
            raise Wrong(f"some {name} have exactly the same mask. {DRAW_FOR_EACH}, and repeat none")


def _has_the_right_factor(factors, p, share):
    """Raise `Wrong` if the factors of the numbers that stay are not all 1 / (1 − p).

    Args:
        share: the share of all numbers that stay.
    """
    factor = factors[0].item()
    if not close(factors, torch.full_like(factors, factor), 1e-6):
        raise Wrong(
            "the numbers that stay are not all multiplied by the same factor, which should be "
            "1 / (1 − p)"
        )
    if abs(factor - 1 / (1 - p)) < 1e-6:
        return
    right = "Divide by 1 − p, so that the mean stays the same"
    mistakes = {
        1.0: f"the numbers that stay are not scaled, so the mean shrinks. {right}",
        1 / p: f"the numbers that stay are divided by p. {right}",
        1 - p: f"the numbers that stay are multiplied by 1 − p. {right}",
        p: f"the numbers that stay are multiplied by p. {right}",
        1 + p: f"the numbers that stay are multiplied by 1 + p. {right}",
        1 / (1 + p): f"the numbers that stay are divided by 1 + p. {right}",
        (1 - p) ** -2: "the numbers that stay are divided by 1 − p twice. Divide once",
        (1 - p) ** -0.5: f"the numbers that stay are divided by √(1 − p). {right}",
        (1 - p) ** 0.5: f"the numbers that stay are multiplied by √(1 − p). {right}",
        1 / share: "the numbers that stay are divided by the share that happened to stay in this "
        "draw. Divide by 1 − p: then no number depends on how many others were dropped",
        p**-0.5: f"the numbers that stay are divided by √p. {right}",
        1 / (1 - p) - 1: f"the numbers that stay are multiplied by p / (1 − p). {right}",
    }
    nearest = min(mistakes, key=lambda known: abs(known - factor))
    if abs(nearest - factor) > 1e-6:
        raise Wrong(
            f"with p = {p} the numbers that stay are multiplied by {factor:.4g}, "
            f"but 1 / (1 − p) = {1 / (1 - p):.4g} is right"
        )
    raise Wrong(mistakes[nearest])


# pre_norm_block -----------------------------------------------------------------------------------


def check_pre_norm_block(pre_norm_block) -> Result:
    """Check `pre_norm_block(x, norm1, attention, norm2, feed_forward)`.

    It is given x (B, T, C) and four functions, each from (B, T, C) to (B, T, C).
    """
    return check(
        "pre_norm_block",
        pre_norm_block,
        _block_properties,
        "each part reads a normalised copy of the stream and adds its output to the stream",
    )


@dataclass
class Layer:
    """A simple function in the place of a layer. It counts its calls."""

    description: str
    function: Callable
    calls: list = field(default_factory=list)

    def __call__(self, x):
        self.calls.append(x.shape)
        return self.function(x)

    def __repr__(self):
        return self.description


def _right_block(x, norm1, attention, norm2, feed_forward):
    after_attention = x + attention(norm1(x))
    return after_attention + feed_forward(norm2(after_attention))


def _four_layers(*layers):
    return dict(zip(("norm1", "attention", "norm2", "feed_forward"), layers, strict=True))


def _simple_layers():
    return _four_layers(
        Layer("x / 2", lambda x: x / 2),
        Layer("x + 10", lambda x: x + 10),
        Layer("3x", lambda x: 3 * x),
        Layer("x + 100", lambda x: x + 100),
    )


def _random_layers(C, seed, dtype):
    layers = []
    for i in range(4):
        W = randn(C, C, seed=seed + i, dtype=dtype)
        layers.append(Layer("tanh(x @ W)", lambda x, W=W: torch.tanh(x @ W) + 0.3))
    return _four_layers(*layers)


def _silent_layers():
    """Return norms that change nothing, and parts whose output is 0."""
    return _four_layers(
        Layer("x", lambda x: x),
        Layer("0", torch.zeros_like),
        Layer("x", lambda x: x),
        Layer("0", torch.zeros_like),
    )


def _block_cases():
    def random(B, T, C, seed, dtype=torch.float64):
        x = randn(B, T, C, seed=seed, dtype=dtype)
        return {"x": x, **_random_layers(C, 10 * seed, dtype)}

    return [
        {"x": torch.tensor([[[2.0]]]), **_simple_layers()},
        random(1, 1, 2, 1),
        random(1, 3, 4, 2),
        random(2, 5, 3, 3, torch.float32),
    ]


LOST = (
    "attention's output is missing in the final sum. The second sum starts from the result of the "
    "first sum, not from the input"
)

# Each function is given x and the four layers. a is attention, and f is feed_forward.
BLOCK_MISTAKES = [
    ("this is post-norm, which normalises the sum. In pre-norm each part reads a normalised copy, "
     "and the sum itself is not normalised",
     lambda x, n1, a, n2, f: n2((h := n1(x + a(x))) + f(h))),
    ("the residual connection around attention is missing. Compute x + attention(…)",
     lambda x, n1, a, n2, f: (h := a(n1(x))) + f(n2(h))),
    ("the residual connection around feed_forward is missing. Compute x + feed_forward(…)",
     lambda x, n1, a, n2, f: f(n2(x + a(n1(x))))),
    ("both residual connections are missing. Add each part's output to its input",
     lambda x, n1, a, n2, f: f(n2(a(n1(x))))),
    ("the stream itself is normalised. A part reads a normalised copy, and its output is added to "
     "the stream that is not normalised",
     lambda x, n1, a, n2, f: (h2 := n2((h := n1(x)) + a(h))) + f(h2)),
    ("before attention the stream itself is normalised. Only attention should read the normalised "
     "copy",
     lambda x, n1, a, n2, f: (h := (y := n1(x)) + a(y)) + f(n2(h))),
    ("before feed_forward the stream itself is normalised. Only feed_forward should read the "
     "normalised copy",
     lambda x, n1, a, n2, f: (y := n2(x + a(n1(x)))) + f(y)),
    ("the two parts work in parallel. feed_forward should read the stream after attention's output "
     "was added",
     lambda x, n1, a, n2, f: x + a(n1(x)) + f(n2(x))),
    ("the two parts work in parallel, and both read norm1. feed_forward should read norm2 of the "
     "stream after attention's output was added",
     lambda x, n1, a, n2, f: x + a(n1(x)) + f(n1(x))),
    ("norm1 and norm2 are swapped. norm1 comes before attention",
     lambda x, n1, a, n2, f: (h := x + a(n2(x))) + f(n1(h))),
    ("norm1 is used twice. norm2 comes before feed_forward",
     lambda x, n1, a, n2, f: (h := x + a(n1(x))) + f(n1(h))),
    ("norm2 is used twice. norm1 comes before attention",
     lambda x, n1, a, n2, f: (h := x + a(n2(x))) + f(n2(h))),
    ("feed_forward comes first. attention should come before it",
     lambda x, n1, a, n2, f: (h := x + f(n2(x))) + a(n1(h))),
    ("feed_forward and attention are swapped",
     lambda x, n1, a, n2, f: (h := x + f(n1(x))) + a(n2(h))),
    ("both parts work without their norms. Compute attention(norm1(x)) and feed_forward(norm2(x))",
     lambda x, n1, a, n2, f: (h := x + a(x)) + f(h)),
    ("attention works without norm1", lambda x, n1, a, n2, f: (h := x + a(x)) + f(n2(h))),
    ("feed_forward works without norm2", lambda x, n1, a, n2, f: (h := x + a(n1(x))) + f(h)),
    ("feed_forward reads attention's output alone. It should read the stream to which that output "
     "was added",
     lambda x, n1, a, n2, f: x + (y := a(n1(x))) + f(n2(y))),
    (LOST, lambda x, n1, a, n2, f: x + f(n2(x + a(n1(x))))),
    (LOST, lambda x, n1, a, n2, f: x + f(n2(a(n1(x))))),
    ("the norm comes after each part. It should come before attention and before feed_forward",
     lambda x, n1, a, n2, f: (h := x + n1(a(x))) + n2(f(h))),
    ("feed_forward is missing", lambda x, n1, a, n2, f: x + a(n1(x))),
    ("attention is missing", lambda x, n1, a, n2, f: x + f(n2(x))),
    ("the stream is multiplied by each part's output. Add the output to the stream",
     lambda x, n1, a, n2, f: (h := x * a(n1(x))) * f(n2(h))),
    ("the input is added once too often",
     lambda x, n1, a, n2, f: x + (h := x + a(n1(x))) + f(n2(h))),
    ("the result is normalised at the end. Return the stream without another norm",
     lambda x, n1, a, n2, f: n2((h := x + a(n1(x))) + f(n2(h)))),
    ("feed_forward's output is added to attention's output, and the input is lost. The second sum "
     "starts from the result of the first sum",
     lambda x, n1, a, n2, f: (y := a(n1(x))) + f(n2(x + y))),
    ("only attention's part is post-norm: norm1 comes after its sum. Each norm should come before "
     "its part",
     lambda x, n1, a, n2, f: (h := n1(x + a(x))) + f(n2(h))),
    ("only feed_forward's part is post-norm: norm2 comes after its sum. Each norm should come "
     "before its part",
     lambda x, n1, a, n2, f: n2((h := x + a(n1(x))) + f(h))),
    ("attention's output is normalised. The norm should come before attention, and read the stream",
     lambda x, n1, a, n2, f: (h := x + n1(a(x))) + f(n2(h))),
    ("attention reads both norms. norm1 alone comes before attention",
     lambda x, n1, a, n2, f: (h := x + a(n2(n1(x)))) + f(n2(h))),
    ("feed_forward reads both norms. norm2 alone comes before feed_forward",
     lambda x, n1, a, n2, f: (h := x + a(n1(x))) + f(n2(n1(h)))),
    ("the stream is doubled before feed_forward's output is added. Add only the output to it",
     lambda x, n1, a, n2, f: 2 * (h := x + a(n1(x))) + f(n2(h))),
    ("the result is feed_forward's output and the normalised copy of the input. Add the outputs to "
     "the stream that is not normalised",
     lambda x, n1, a, n2, f: n1(x) + f(n2(x + a(n1(x))))),
    ("the outputs are subtracted. Add them",
     lambda x, n1, a, n2, f: (h := x - a(n1(x))) - f(n2(h))),
    ("the result is the input, unchanged", lambda x, n1, a, n2, f: x),
]


def _called_by_name(mistake):
    """Return the mistake as a function with the exercise's argument names."""
    return lambda x, norm1, attention, norm2, feed_forward: mistake(
        x, norm1, attention, norm2, feed_forward
    )


def _block_properties(reader: Reader):
    cases = _block_cases()
    mistakes = [(sentence, _called_by_name(mistake)) for sentence, mistake in BLOCK_MISTAKES]
    trials = compare(reader, _right_block, cases, mistakes)
    x = cases[2]["x"]
    for trial in compare(reader, _right_block, [{"x": x, **_silent_layers()}]):
        if not trial.passed:
            raise Wrong(
                "if the output of both parts is 0, x should come through unchanged. The residual "
                "stream makes this possible"
            )
    silent = _silent_layers()
    reader(x=x, **silent)
    for name, layer in silent.items():
        n_calls = len(layer.calls)
        if n_calls != 1:
            raise Wrong(
                f"{name} is called {n_calls} times, but it should be called once. With dropout "
                "inside, two calls would give different outputs"
            )
    agree(trials)
    hint = "is a part of it computed from .detach() or .data?"
    same_gradients(reader, _right_block, cases[2], ("x",), hint)
