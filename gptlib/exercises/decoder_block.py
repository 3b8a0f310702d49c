"""Chapter 3's exercises: a norm, a sense of place, dropout, and the block that holds them together."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import (
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

# layer_norm ---------------------------------------------------------------------------------------------------------

def check_layer_norm(layer_norm) -> Result:
    """`layer_norm(x, weight, bias, eps)`: (B, T, C), (C,), (C,), a number -> (B, T, C), each position by itself."""
    return check("layer_norm", layer_norm, _layer_norm,
                 "each position by itself, eps inside the root, then weight and bias, with the right gradients")


def _right_norm(x, weight, bias, eps):
    rows = [(row - row.mean()) / torch.sqrt(((row - row.mean()) ** 2).mean() + eps) for row in x.flatten(0, 1)]
    return torch.stack(rows).view_as(x) * weight + bias


def _mistaken_norm(options):
    axis, centre, divisor, spread, affine = options

    def norm(x, weight, bias, eps):
        mean = x.mean(axis, keepdim=True)
        variance = (x - mean).square().sum(axis, keepdim=True) / torch.tensor(divisor(x.numel() // mean.numel()))
        return affine(centre(x, mean) / spread(variance, eps, x.square().mean(axis, keepdim=True)), weight, bias)
    return norm


def _layer_norm(reader: Reader):
    def case(B, T, C, eps, seed, dtype=torch.float64):
        x, weight, bias = (randn(*shape, seed=seed + i, dtype=dtype) for i, shape in enumerate(((B, T, C), (C,), (C,))))
        return {"x": 2 * x + 1, "weight": weight, "bias": bias, "eps": eps}
    cases = [case(1, 1, 2, 0.5, 1), case(1, 1, 3, 0.1, 4), case(1, 2, 3, 0.2, 7), case(3, 1, 4, 0.3, 10), case(2, 5, 7, 0.4, 13),
             case(4, 3, 6, 1e-5, 16), case(3, 4, 8, 0.01, 19, torch.float32)]
    mistakes = combined(_mistaken_norm, {
        "": -1,
        "it normalises over time: each position by itself, over its channels (dim=-1)": 1,
        "it normalises over the batch: each position by itself, over its channels (dim=-1)": 0,
        "it normalises over time and channels together, so the future leaks in: over the channels alone (dim=-1)": (1, 2),
        "it normalises over the batch and time, as batch norm does: over the channels of each position (dim=-1)": (0, 1),
        "it normalises over batch, time and channels together: over the channels of each position alone (dim=-1)": (0, 1, 2),
    }, {
        "": lambda x, mean: x - mean,
        "the mean is not subtracted": lambda x, mean: x,
        "the mean is added: subtract it": lambda x, mean: x + mean,
        "it subtracts x from the mean, so every sign is turned": lambda x, mean: mean - x,
    }, {
        "": lambda C: C,
        "the variance is divided by C − 1, which is torch's default: a norm divides by C (unbiased=False)": lambda C: C - 1,
        "the squares are added up, and not divided by C: the variance is their mean": lambda C: 1,
    }, {
        "": lambda variance, eps, squares: (variance + eps).sqrt(),
        "eps stands outside the square root: √(variance + eps), not √variance + eps": lambda variance, eps, squares: variance.sqrt() + eps,
        "the square root is missing: divide by the standard deviation, not by the variance": lambda variance, eps, squares: variance + eps,
        "it multiplies by the standard deviation: divide by it": lambda variance, eps, squares: 1 / (variance + eps).sqrt(),
        "`eps` is not used: add it to the variance, under the root": lambda variance, eps, squares: variance.sqrt(),
        "`eps` is not used, a fixed 1e-5 is: add the argument": lambda variance, eps, squares: (variance + 1e-5).sqrt(),
        "eps is subtracted: add it, so that the root never sees 0": lambda variance, eps, squares: (variance - eps).sqrt(),
        "eps is squared: add it to the variance as it is": lambda variance, eps, squares: (variance + eps ** 2).sqrt(),
        "eps acts as a least value: add it to the variance, whatever that is":
            lambda variance, eps, squares: variance.clamp(min=eps).sqrt(),
        "nothing is divided: divide by √(variance + eps)": lambda variance, eps, squares: 1.0,
        "it divides by the root of the mean square, which the mean is still part of (RMSNorm): subtract the mean first":
            lambda variance, eps, squares: (squares + eps).sqrt(),
    }, {
        "": lambda x, weight, bias: x * weight + bias,
        "weight and bias are left out: multiply by weight and add bias at the end": lambda x, weight, bias: x,
        "weight is left out: multiply by it before adding bias": lambda x, weight, bias: x + bias,
        "bias is left out: add it at the end": lambda x, weight, bias: x * weight,
        "bias is added before the multiplication: weight first, bias last": lambda x, weight, bias: (x + bias) * weight,
        "it multiplies by 1 + weight: by weight": lambda x, weight, bias: x * (1 + weight) + bias,
        "weight and bias have changed places": lambda x, weight, bias: x * bias + weight,
        "bias is subtracted: add it": lambda x, weight, bias: x * weight - bias,
        "it divides by weight: multiply": lambda x, weight, bias: x / weight + bias,
    })
    mistakes = [*mistakes, ("the mean is not subtracted, as in RMSNorm: subtract it before anything else",
                            lambda x, weight, bias, eps: x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias)]
    trials = compare(reader, _right_norm, cases, mistakes)
    _position_by_itself(reader, cases[4])
    agree(trials)
    same = {"x": torch.full((1, 2, 4), 3.0), "weight": torch.ones(4), "bias": torch.zeros(4), "eps": 1e-5}
    for trial in compare(reader, _right_norm, [same, {**same, "x": same["x"][..., :1], "weight": torch.ones(1), "bias": torch.zeros(1)}]):
        finite(trial, "channels that are all the same have variance 0, and eps under the root saves them")
        agree([trial])
    far = {"x": 1e4 + randn(2, 3, 16, seed=30, dtype=torch.float32), "weight": torch.ones(16), "bias": torch.zeros(16), "eps": 1e-5}
    trial = compare(reader, _right_norm, [far])[0]
    if not close(trial.got, trial.expected, 0.05):
        raise Wrong("with x near 10,000 all accuracy is lost: the mean of the squares less the square of the mean cancels; "
                    "take the mean of (x − mean)² instead")
    keeps_device(reader, cases)
    same_gradients(reader, _right_norm, cases[4], ("x", "weight", "bias"), "mean and variance depend on x too, so neither may be detached")


def _position_by_itself(reader, case):
    before = reader(**case)
    for axis, name in ((1, "position"), (0, "row of the batch")):
        x = case["x"].clone()
        x.select(axis, -1).mul_(3).add_(1)
        if before.shape == x.shape and not close(reader(**{**case, "x": x}).narrow(axis, 0, 1), before.narrow(axis, 0, 1)):
            raise Wrong(f"another {name} changes the result: each position is normalised by itself, over its channels (dim=-1)")


# sinusoidal_positions -----------------------------------------------------------------------------------------------

def check_sinusoidal_positions(sinusoidal_positions) -> Result:
    """`sinusoidal_positions(T, C)`: (T, C) of float32, C even: sin(t / 10000^(2i/C)) in channel 2i, its cos in channel 2i + 1."""
    return check("sinusoidal_positions", sinusoidal_positions, _sinusoidal_positions,
                 "sines on even channels, cosines on odd ones, and each pair slower than the one before")


def _right_waves(T, C):
    wave = lambda t, c: (math.cos if c % 2 else math.sin)(t / 10000 ** ((c - c % 2) / C))
    return torch.tensor([[wave(t, c) for c in range(C)] for t in range(T)], dtype=torch.float32)


def _mistaken_waves(options):
    start, exponent, base, (even, odd), place, turn = options

    def waves(T, C):
        t, c = torch.arange(T, dtype=torch.float64)[:, None] + start, torch.arange(C)
        angle = turn * t / base ** exponent(c, C)                       # (T, C)
        return place(torch.where(c % 2 == 0, even(angle), odd(angle))).float()
    return waves


def _sinusoidal_positions(reader: Reader):
    cases = [{"T": T, "C": C} for T, C in ((1, 2), (2, 2), (2, 4), (3, 6), (9, 8), (8, 8), (50, 10))]
    swapped = "sine and cosine are swapped: sin on even channels, cos on odd ones"
    only_sines = "there are sines only: odd channels hold the cosine of the same angle"
    mistakes = combined(_mistaken_waves, {
        "": 0.0,
        "it counts from 1: position 0 comes first, and its angles are all 0": 1.0,
    }, {
        "": lambda c, C: (c - c % 2) / C,
        "the exponent is i/C, half of what it should be (as if the base were 100): channels 2i and 2i + 1 share 2i/C":
            lambda c, C: (c // 2) / C,
        "every channel has a wavelength of its own: a sine and its cosine are a pair and share the exponent 2i/C": lambda c, C: c / C,
        "the waves grow faster from pair to pair: the exponent needs a minus, or the power belongs in the denominator":
            lambda c, C: -(c - c % 2) / C,
        "the exponent is 2c/C, for the channel c: for pair i it is 2i/C": lambda c, C: 2 * c / C,
        "the exponent is 4i/C, twice what it should be: 2i/C": lambda c, C: 2 * (c - c % 2) / C,
        "the last pair has exponent 1, as if divided by C/2 − 1: the exponent is 2i/C": lambda c, C: (c // 2) / max(C // 2 - 1, 1),
        "the exponent is divided by C − 1: by C": lambda c, C: (c - c % 2) / (C - 1),
        "the exponent starts at 2/C: the first pair has exponent 0, i counts from 0": lambda c, C: (c - c % 2 + 2) / C,
        "all channels have the same wavelength: the exponent 2i/C makes each pair slower": lambda c, C: 0 * c,
    }, {
        "": 10_000.0,
        "the base is 1000: Vaswani et al. took 10000": 1000.0,
        "the base is 100000: Vaswani et al. took 10000": 100_000.0,
        "the base is e: Vaswani et al. took 10000": math.e,
        "the base is 2: Vaswani et al. took 10000": 2.0,
    }, {
        "": (torch.sin, torch.cos), swapped: (torch.cos, torch.sin), only_sines: (torch.sin, torch.sin),
        "there are cosines only: even channels hold the sine of the same angle": (torch.cos, torch.cos),
        "the sign of the sines is turned": (lambda a: -a.sin(), torch.cos),
        "the angles are there, but neither their sine nor their cosine is taken": (lambda a: a, lambda a: a),
    }, {
        "": lambda table: table,
        "sines and cosines stand in two halves: they take turns, sin on even channels, cos on odd ones":
            lambda table: torch.cat([table[:, 0::2], table[:, 1::2]], dim=1),
        "cosines and sines stand in two halves: they take turns, sin on even channels, cos on odd ones":
            lambda table: torch.cat([table[:, 1::2], table[:, 0::2]], dim=1),
        "time runs along the channels: the shape is (T, C), a row for each position": lambda table: table.T,
        "the channels are in the reverse order: the fastest pair comes first": lambda table: table.flip(1),
        "the positions are in the reverse order: position 0 comes first": lambda table: table.flip(0),
        "it is scaled by 1/√C: give the waves themselves, between −1 and 1": lambda table: table / table.shape[1] ** 0.5,
        "there is a batch axis: the shape is (T, C)": lambda table: table[None],
    }, {
        "": 1.0,
        "the angle is multiplied by 2π: it is t / 10000^(2i/C), in radians, as it is": 2 * math.pi,
        "the angle is taken in degrees: sin and cos want it as it is, in radians": math.pi / 180,
    })
    trials = compare(reader, _right_waves, cases, mistakes, alike=0.02)       # large angles lose digits
    for trial in trials:
        finite(trial, "is something divided by 0, or a power too large?")
        if trial.got.abs().max() > 1:
            raise Wrong("some values lie beyond −1 … 1, where sines and cosines stay")
        if not close(trial.got[0], trial.expected[0]):
            raise Wrong("position 0 should read 0, 1, 0, 1 …: the sines and cosines of angle 0")
        lengths = trial.got[:, 0::2] ** 2 + trial.got[:, 1::2] ** 2
        if not close(lengths, torch.ones_like(lengths), 1e-4):
            raise Wrong("channels 2i and 2i + 1 are not the sine and the cosine of one angle: their squares should sum to 1")
        if not close(trial.got, trial.expected, 1e-4):
            agree([trial])


# dropout ------------------------------------------------------------------------------------------------------------

def check_dropout(dropout) -> Result:
    """`dropout(x, p, generator)`: a copy of x in which each number is 0 with probability p, and else divided by 1 − p."""
    return check("dropout", dropout, _dropout,
                 "each number by itself goes with probability p, the rest make up for it, and the seed decides")


def _dropout(reader: Reader):
    seeded = lambda seed: torch.Generator().manual_seed(seed)

    def drop(x, p, generator):
        got = a_tensor(reader(x=x, p=p, generator=generator))
        trial = Trial({"x": x, "p": p}, got, x)
        same_form(trial)
        finite(trial, "is something divided by p or by 1 − p when that is 0?")
        return got
    x = randn(8, 40, 30, seed=1)
    for p in (0.2, 0.7):
        got = drop(x, p, seeded(1))
        _which_are_dropped(got == 0, got, x, p)
        _by_what_the_rest_is_multiplied((got / x)[got != 0], p)
        if not torch.equal(got == 0, drop(x.flip(0).exp(), p, seeded(1)) == 0) and torch.equal(got == 0, drop(x, p, seeded(2)) == 0):
            raise Wrong("which numbers fall depends on their values: the draw alone decides")
        if not torch.equal(got, drop(x, p, seeded(1))):
            raise Wrong("the same seed gives another mask: draw with torch.rand(x.shape, generator=generator)")
        if torch.equal(got == 0, drop(x, p, seeded(2)) == 0):
            raise Wrong("it drops the same numbers whatever the seed: draw a fresh mask from `generator`, and leave its seed alone")
        generator = seeded(3)
        masks = [drop(x, p, generator) == 0 for _ in range(4)]
        if any(torch.equal(masks[0], mask) for mask in masks[1:]):
            raise Wrong("every call drops the same numbers: the generator moves on with each draw, so do not seed it again or copy it")
        if len({mask.sum().item() for mask in masks}) == 1:
            raise Wrong("it always drops exactly the same number of them: each one falls by its own draw, with probability p")
        if not torch.equal(got == 0, drop(x.flip(0).exp(), p, seeded(1)) == 0):
            raise Wrong("which numbers fall depends on their values: the draw alone decides")
    agree([Trial({"x": x, "p": 0.0}, drop(x, 0.0, seeded(4)), x)])
    for shape, dtype in (((1, 1, 1), torch.float64), ((1, 7, 5), torch.float32), ((3, 1, 9), torch.float32)):
        drop(randn(*shape, seed=2, dtype=dtype), 0.4, seeded(5))
    x = x.clone().requires_grad_()
    got = drop(x, 0.2, seeded(1))
    if not got.requires_grad or not close(torch.autograd.grad(got.sum(), x)[0], (got / x).detach()):
        raise Wrong("its gradient for `x` is not the mask times 1 / (1 − p): is there a .detach() or .data on the way?")


def _which_are_dropped(dropped, got, x, p):
    share = dropped.double().mean().item()
    if share == 0:
        raise Wrong("nothing is dropped: this is dropout in training, and a share p should become 0" if close(got, x) else
                    "no number became 0: dropout multiplies by a mask of zeros and ones" if not close(got, x * got[0, 0, 0] / x[0, 0, 0])
                    else "nothing is dropped, though everything is scaled: multiply by the mask too")
    if share == 1:
        raise Wrong("everything is dropped: only a share p should become 0")
    for axes, name in (((1, 2), "whole rows of the batch are dropped: draw one number for each element, x.shape"),
                       ((0, 1), "whole channels are dropped, everywhere: draw one number for each element, x.shape"),
                       ((0, 2), "whole positions are dropped, in the whole batch: draw one number for each element, x.shape")):
        if (dropped == dropped.narrow(axes[0], 0, 1).narrow(axes[1], 0, 1)).all():
            raise Wrong(name)
    for axis, name in ((0, "all rows of the batch share one mask: draw one number for each element, x.shape"),
                       (1, "whole channels are dropped, at every position: draw one number for each element, x.shape"),
                       (2, "whole positions are dropped, with all their channels: draw one number for each element, x.shape")):
        if (dropped == dropped.narrow(axis, 0, 1)).all():
            raise Wrong(name)
    for axis, name in enumerate(("rows of the batch", "positions", "channels")):
        if dropped.unique(dim=axis).shape[axis] < x.shape[axis]:
            raise Wrong(f"some {name} lose the very same numbers: draw one number for each element, x.shape, and repeat none")
    noise = 6 * math.sqrt(p * (1 - p) / x.numel())
    if abs(share - p) > noise and abs(share - (1 - p)) < noise:
        raise Wrong("keep and drop are mixed up: p is the share to drop, and it is the share kept here; keep where rand >= p")
    if abs(share - p) > noise:
        raise Wrong(f"it drops {share:.0%} of the numbers, and with p = {p} it should be {p:.0%}: "
                    "is it drawn from 0 … 1 evenly (rand, not randn)?")


def _by_what_the_rest_is_multiplied(factors, p):
    factor = factors[0].item()
    if not close(factors, torch.full_like(factors, factor), 1e-6):
        raise Wrong("the numbers that stay are not all multiplied by the same factor, 1 / (1 − p)")
    known = {
        1 / (1 - p): None,
        1.0: "what stays is not scaled, so the sums shrink: divide by 1 − p",
        1 / p: "what stays is divided by p: divide by 1 − p, the share that stays",
        1 - p: "what stays is multiplied by 1 − p: divide by it, so that the mean is kept",
        p: "what stays is multiplied by p: divide by 1 − p, the share that stays",
        1 + p: "what stays is multiplied by 1 + p: divide by 1 − p",
        1 / (1 + p): "what stays is divided by 1 + p: divide by 1 − p",
        (1 - p) ** -2: "what stays is divided by 1 − p twice: once is enough",
    }
    nearest = min(known, key=lambda f: abs(f - factor))
    if abs(nearest - factor) > 1e-6:
        raise Wrong(f"with p = {p} what stays is multiplied by {factor:.4g}, and 1 / (1 − p) = {1 / (1 - p):.4g} is right")
    if known[nearest]:
        raise Wrong(known[nearest])


# pre_norm_block -----------------------------------------------------------------------------------------------------

def check_pre_norm_block(pre_norm_block) -> Result:
    """`pre_norm_block(x, norm1, attention, norm2, feed_forward)`: x and four functions, each (B, T, C) -> (B, T, C)."""
    return check("pre_norm_block", pre_norm_block, _pre_norm_block, "each part reads a normalised copy and adds its answer to the stream")


@dataclass
class Part:
    """A stand-in for a layer, which counts its calls."""

    said: str
    does: Callable
    calls: list = field(default_factory=list)

    def __call__(self, x):
        self.calls.append(x.shape)
        return self.does(x)

    def __repr__(self):
        return self.said


def _right_block(x, norm1, attention, norm2, feed_forward):
    after_attention = x + attention(norm1(x))
    return after_attention + feed_forward(norm2(after_attention))


def _pre_norm_block(reader: Reader):
    def random(C, seed, dtype):
        matrices = [randn(C, C, seed=seed + i, dtype=dtype) for i in range(4)]
        return [Part("tanh(x @ W)", lambda x, W=W: torch.tanh(x @ W) + 0.3) for W in matrices]
    names = ("norm1", "attention", "norm2", "feed_forward")
    named = lambda *parts: dict(zip(names, parts, strict=True))
    plain = named(Part("x / 2", lambda x: x / 2), Part("x + 10", lambda x: x + 10),
                  Part("3x", lambda x: 3 * x), Part("x + 100", lambda x: x + 100))
    cases = [{"x": torch.tensor([[[2.0]]]), **plain}]
    for B, T, C, seed, dtype in ((1, 1, 2, 1, torch.float64), (1, 3, 4, 2, torch.float64), (2, 5, 3, 3, torch.float32)):
        cases.append({"x": randn(B, T, C, seed=seed, dtype=dtype), **named(*random(C, 10 * seed, dtype))})
    own = "attention's answer is lost from the stream: the second sum starts from what the first one gave, not from the input"
    mistakes = [
        ("this is post-norm, which normalises the sum: pre-norm gives each part a normalised copy and leaves the sum alone",
         lambda x, n1, a, n2, f: n2((h := n1(x + a(x))) + f(h))),
        ("the residual around attention is left out: x + attention(…)", lambda x, n1, a, n2, f: (h := a(n1(x))) + f(n2(h))),
        ("the residual around feed_forward is left out: x + feed_forward(…)", lambda x, n1, a, n2, f: f(n2(x + a(n1(x))))),
        ("both residuals are left out: each part's answer is added to what came in", lambda x, n1, a, n2, f: f(n2(a(n1(x))))),
        ("the stream itself is normalised: a part reads a normalised copy, and its answer is added to the stream as it was",
         lambda x, n1, a, n2, f: (h2 := n2((h := n1(x)) + a(h))) + f(h2)),
        ("before attention the stream itself is normalised: only attention reads the normalised copy",
         lambda x, n1, a, n2, f: (h := (y := n1(x)) + a(y)) + f(n2(h))),
        ("before feed_forward the stream itself is normalised: only feed_forward reads the normalised copy",
         lambda x, n1, a, n2, f: (y := n2(x + a(n1(x)))) + f(y)),
        ("the two parts work in parallel: feed_forward should read the stream after attention's answer was added",
         lambda x, n1, a, n2, f: x + a(n1(x)) + f(n2(x))),
        ("the two parts work in parallel, and both read norm1", lambda x, n1, a, n2, f: x + a(n1(x)) + f(n1(x))),
        ("norm1 and norm2 are swapped: norm1 goes before attention", lambda x, n1, a, n2, f: (h := x + a(n2(x))) + f(n1(h))),
        ("norm1 is used twice: norm2 goes before feed_forward", lambda x, n1, a, n2, f: (h := x + a(n1(x))) + f(n1(h))),
        ("norm2 is used twice: norm1 goes before attention", lambda x, n1, a, n2, f: (h := x + a(n2(x))) + f(n2(h))),
        ("feed_forward comes first: attention goes before it", lambda x, n1, a, n2, f: (h := x + f(n2(x))) + a(n1(h))),
        ("feed_forward and attention have changed places", lambda x, n1, a, n2, f: (h := x + f(n1(x))) + a(n2(h))),
        ("both parts work without their norm: attention(norm1(x)), feed_forward(norm2(x))", lambda x, n1, a, n2, f: (h := x + a(x)) + f(h)),
        ("attention works without norm1", lambda x, n1, a, n2, f: (h := x + a(x)) + f(n2(h))),
        ("feed_forward works without norm2", lambda x, n1, a, n2, f: (h := x + a(n1(x))) + f(h)),
        ("feed_forward reads attention's answer alone: it should read the stream to which that answer was added",
         lambda x, n1, a, n2, f: x + (y := a(n1(x))) + f(n2(y))),
        (own, lambda x, n1, a, n2, f: x + f(n2(x + a(n1(x))))),
        (own, lambda x, n1, a, n2, f: x + f(n2(a(n1(x))))),
        ("the norm comes after each part: norm first, then attention or feed_forward",
         lambda x, n1, a, n2, f: (h := x + n1(a(x))) + n2(f(h))),
        ("feed_forward is left out", lambda x, n1, a, n2, f: x + a(n1(x))),
        ("attention is left out", lambda x, n1, a, n2, f: x + f(n2(x))),
        ("the answers are not added to the stream but multiplied with it", lambda x, n1, a, n2, f: (h := x * a(n1(x))) * f(n2(h))),
        ("the input is added once too often", lambda x, n1, a, n2, f: x + (h := x + a(n1(x))) + f(n2(h))),
        ("the result is normalised once more at the end", lambda x, n1, a, n2, f: n2((h := x + a(n1(x))) + f(n2(h)))),
        ("the answers are subtracted: add them", lambda x, n1, a, n2, f: (h := x - a(n1(x))) - f(n2(h))),
        ("this is the input, unchanged", lambda x, n1, a, n2, f: x),
    ]
    as_given = [(said, lambda x, norm1, attention, norm2, feed_forward, do=do: do(x, norm1, attention, norm2, feed_forward))
                for said, do in mistakes]
    trials = compare(reader, _right_block, cases, as_given)
    silent = named(Part("x", lambda x: x), Part("0", torch.zeros_like), Part("x", lambda x: x), Part("0", torch.zeros_like))
    for trial in compare(reader, _right_block, [{"x": cases[2]["x"], **silent}]):
        if not close(trial.got, trial.expected):
            raise Wrong("when both parts answer 0, x should come through unchanged: that is what the residual stream is for")
    for part in silent.values():
        part.calls.clear()
    reader(x=cases[2]["x"], **silent)
    for name, part in silent.items():
        if len(part.calls) != 1:
            raise Wrong(f"{name} is called {len(part.calls)} times: once is right, and with dropout inside each call would differ")
    agree(trials)
    same_gradients(reader, _right_block, cases[2], ("x",), "is part of it computed from .detach() or .data?")
