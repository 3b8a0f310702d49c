"""Chapter 3: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


def normalised(x, eps, dim=-1, unbiased=False):
    variance = x.var(dim, keepdim=True, unbiased=unbiased)
    return (x - x.mean(dim, keepdim=True)) / (variance + eps).sqrt()


# layer_norm ---------------------------------------------------------------------------------------

@RIGHT.to("layer_norm")
def with_torch(x, weight, bias, eps):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


@RIGHT.to("layer_norm")
def position_by_position(x, weight, bias, eps):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        centred = row - row.mean()
        rows.append(centred * (centred.square().mean() + eps) ** -0.5 * weight + bias)
    return torch.stack(rows).reshape(x.shape)


@WRONG.to("layer_norm", "C − 1")
def variance_unbiased(x, weight, bias, eps):
    return normalised(x, eps, unbiased=True) * weight + bias


@WRONG.to("layer_norm", "eps", "outside", "root")
def eps_outside(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.std(-1, keepdim=True, unbiased=False) + eps) * weight + bias


@WRONG.to("layer_norm", "C − 1", "outside")
def plain_std(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) * weight + bias


@WRONG.to("layer_norm", "over time")
def over_time(x, weight, bias, eps):
    return normalised(x, eps, dim=1) * weight + bias


@WRONG.to("layer_norm", "batch")
def over_the_batch(x, weight, bias, eps):
    return normalised(x, eps, dim=0) * weight + bias


@WRONG.to("layer_norm", "over time")
def over_time_and_channels(x, weight, bias, eps):
    return normalised(x, eps, dim=(1, 2)) * weight + bias


@WRONG.to("layer_norm", "mean is not subtracted", "RMSNorm")
def rms_norm(x, weight, bias, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "mean", "subtract")
def mean_kept(x, weight, bias, eps):
    return x / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "square root")
def divided_by_the_variance(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.var(-1, keepdim=True, unbiased=False) + eps) * weight + bias


@WRONG.to("layer_norm", "`eps`", "not used")
def eps_fixed(x, weight, bias, eps):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


@WRONG.to("layer_norm", "weight", "bias", "left out")
def weight_and_bias_left_out(x, weight, bias, eps):
    return normalised(x, eps)


@WRONG.to("layer_norm", "bias", "before")
def bias_before_weight(x, weight, bias, eps):
    return (normalised(x, eps) + bias) * weight


@WRONG.to("layer_norm", "1 + weight")
def one_plus_weight(x, weight, bias, eps):
    return normalised(x, eps) * (1 + weight) + bias


@WRONG.to("layer_norm", "gradient")
def statistics_detached(x, weight, bias, eps):
    mean = x.detach().mean(-1, keepdim=True)
    variance = x.detach().var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "mean of the squares")
def mean_of_squares_minus_square_of_mean(x, weight, bias, eps):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x * x).mean(-1, keepdim=True) - mean * mean + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "changes its argument", "x")
def in_place(x, weight, bias, eps):
    x -= x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


# sinusoidal_positions -----------------------------------------------------------------------------

def angles(T, C, base=10_000.0):
    return torch.arange(T)[:, None] * base ** (-torch.arange(0, C, 2) / C)


def alternating(sin, cos):
    return torch.stack([sin, cos], dim=-1).flatten(1)


@RIGHT.to("sinusoidal_positions")
def with_slices(T, C):
    table = torch.zeros(T, C)
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(0, C, 2) / C)
    table[:, 0::2] = torch.sin(torch.arange(T)[:, None] * frequency)
    table[:, 1::2] = torch.cos(torch.arange(T)[:, None] * frequency)
    return table


@RIGHT.to("sinusoidal_positions")
def number_by_number(T, C):
    wave = lambda t, c: (math.cos if c % 2 else math.sin)(t / 10_000 ** ((c - c % 2) / C))
    return torch.tensor([[wave(t, c) for c in range(C)] for t in range(T)])


@WRONG.to("sinusoidal_positions", "halves")
def in_halves(T, C):
    return torch.cat([angles(T, C).sin(), angles(T, C).cos()], dim=1)


@WRONG.to("sinusoidal_positions", "even", "swapped")
def cosine_first(T, C):
    return alternating(angles(T, C).cos(), angles(T, C).sin())


@WRONG.to("sinusoidal_positions", "base", "10000")
def another_base(T, C):
    return alternating(angles(T, C, 1000.0).sin(), angles(T, C, 1000.0).cos())


@WRONG.to("sinusoidal_positions", "exponent", "2i")
def half_the_exponent(T, C):
    angle = torch.arange(T)[:, None] * 10_000.0 ** (-torch.arange(C // 2) / C)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "pair")
def a_wavelength_for_each_channel(T, C):
    angle = torch.arange(T)[:, None] * 10_000.0 ** (-torch.arange(C) / C)
    return alternating(angle[:, 0::2].sin(), angle[:, 1::2].cos())


@WRONG.to("sinusoidal_positions", "position 0")
def counted_from_one(T, C):
    return alternating(angles(T + 1, C).sin(), angles(T + 1, C).cos())[1:]


@WRONG.to("sinusoidal_positions", "grow")
def faster_and_faster(T, C):
    angle = torch.arange(T)[:, None] * 10_000.0 ** (torch.arange(0, C, 2) / C)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "cos", "odd")
def sines_only(T, C):
    return alternating(angles(T, C).sin(), angles(T, C).sin())


@WRONG.to("sinusoidal_positions", "shape")
def channels_first(T, C):
    return alternating(angles(T, C).sin(), angles(T, C).cos()).T


@WRONG.to("sinusoidal_positions", "float32")
def double_precision(T, C):
    return alternating(angles(T, C).sin(), angles(T, C).cos()).double()


# dropout ------------------------------------------------------------------------------------------

@RIGHT.to("dropout")
def with_bernoulli(x, p, generator):
    return x * torch.bernoulli(torch.full_like(x, 1 - p), generator=generator) / (1 - p)


@RIGHT.to("dropout")
def with_where(x, p, generator):
    keep = torch.rand(x.shape, generator=generator) >= p
    return torch.where(keep, x / (1 - p), torch.zeros_like(x))


@WRONG.to("dropout", "divide", "1 − p")
def not_scaled(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) >= p)


@WRONG.to("dropout", "divided by p", "1 − p")
def scaled_by_p(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) >= p) / p


@WRONG.to("dropout", "multipl", "divide")
def scaled_down(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) >= p) * (1 - p)


@WRONG.to("dropout", "divided by √(1 − p)")
def scaled_by_the_root(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) >= p) / math.sqrt(1 - p)


@WRONG.to("dropout", "keep", "drop")
def kept_with_probability_p(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) < p) / (1 - p)


@WRONG.to("dropout", "keep", "drop")
def kept_with_probability_p_and_divided_by_p(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) < p) / p


@WRONG.to("dropout", "generator")
def generator_ignored(x, p, generator):
    return F.dropout(x, p)


@WRONG.to("dropout", "same", "seed")
def seeded_inside(x, p, generator):
    generator.manual_seed(0)
    return x * (torch.rand(x.shape, generator=generator) >= p) / (1 - p)


@WRONG.to("dropout", "batch")
def one_mask_for_the_batch(x, p, generator):
    return x * (torch.rand(x.shape[1:], generator=generator) >= p) / (1 - p)


@WRONG.to("dropout", "channel")
def whole_channels(x, p, generator):
    return x * (torch.rand(x.shape[0], 1, x.shape[2], generator=generator) >= p) / (1 - p)


@WRONG.to("dropout", "position")
def whole_positions(x, p, generator):
    return x * (torch.rand(*x.shape[:2], 1, generator=generator) >= p) / (1 - p)


@WRONG.to("dropout", "nothing")
def does_nothing(x, p, generator):
    return x


@WRONG.to("dropout", "changes its argument", "x")
def zeroed_in_place(x, p, generator):
    x[torch.rand(x.shape, generator=generator) < p] = 0
    return x / (1 - p)


# pre_norm_block -----------------------------------------------------------------------------------

@RIGHT.to("pre_norm_block")
def in_one_line(x, norm1, attention, norm2, feed_forward):
    return (h := x + attention(norm1(x))) + feed_forward(norm2(h))


@WRONG.to("pre_norm_block", "post-norm")
def post_norm(x, norm1, attention, norm2, feed_forward):
    x = norm1(x + attention(x))
    return norm2(x + feed_forward(x))


@WRONG.to("pre_norm_block", "residual", "attention")
def first_residual_left_out(x, norm1, attention, norm2, feed_forward):
    x = attention(norm1(x))
    return x + feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "residual", "feed_forward")
def second_residual_left_out(x, norm1, attention, norm2, feed_forward):
    x = x + attention(norm1(x))
    return feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "both", "residual")
def no_residuals(x, norm1, attention, norm2, feed_forward):
    return feed_forward(norm2(attention(norm1(x))))


@WRONG.to("pre_norm_block", "normalised copy", "stream")
def stream_normalised(x, norm1, attention, norm2, feed_forward):
    x = norm1(x)
    x = x + attention(x)
    x = norm2(x)
    return x + feed_forward(x)


@WRONG.to("pre_norm_block", "parallel")
def in_parallel(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "norm1", "norm2", "swapped")
def norms_swapped(x, norm1, attention, norm2, feed_forward):
    x = x + attention(norm2(x))
    return x + feed_forward(norm1(x))


@WRONG.to("pre_norm_block", "norm1", "twice")
def first_norm_twice(x, norm1, attention, norm2, feed_forward):
    x = x + attention(norm1(x))
    return x + feed_forward(norm1(x))


@WRONG.to("pre_norm_block", "first", "attention")
def feed_forward_first(x, norm1, attention, norm2, feed_forward):
    x = x + feed_forward(norm2(x))
    return x + attention(norm1(x))


@WRONG.to("pre_norm_block", "without", "norm")
def no_norms(x, norm1, attention, norm2, feed_forward):
    x = x + attention(x)
    return x + feed_forward(x)


@WRONG.to("pre_norm_block", "attention's output is missing")
def second_residual_from_the_input(x, norm1, attention, norm2, feed_forward):
    h = x + attention(norm1(x))
    return x + feed_forward(norm2(h))


@WRONG.to("pre_norm_block", "changes its argument", "x")
def added_in_place(x, norm1, attention, norm2, feed_forward):
    x += attention(norm1(x))
    return x + feed_forward(norm2(x))


# More answers -------------------------------------------------------------------------------------

@WRONG.to("layer_norm", "squares are added up")
def sum_of_squares(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().sum(-1, keepdim=True) + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "another position changes")
def one_mean_for_all(x, weight, bias, eps):
    return (x - x.mean()) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "over time", "C − 1")
def over_time_and_unbiased(x, weight, bias, eps):
    return normalised(x, eps, dim=1, unbiased=True) * weight + bias


@WRONG.to("layer_norm", "nearly right", ".float()")
def in_single_precision(x, weight, bias, eps):
    return F.layer_norm(x.float(), x.shape[-1:], weight.float(), bias.float(), eps).to(x.dtype)


@WRONG.to("layer_norm", "gradient for `x`", "variance")
def variance_detached(x, weight, bias, eps):
    variance = x.detach().var(-1, keepdim=True, unbiased=False)
    return (x - x.mean(-1, keepdim=True)) / (variance + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "for x", "is right")
def median_subtracted(x, weight, bias, eps):
    variance = x.var(-1, keepdim=True, unbiased=False)
    return (x - x.median(-1, keepdim=True).values) / (variance + eps).sqrt() * weight + bias


@WRONG.to("sinusoidal_positions", "same wavelength")
def whole_division(T, C):
    angle = torch.arange(T)[:, None] / 10_000.0 ** (torch.arange(0, C, 2) // C)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "exponent 1", "halves")
def as_in_tensor2tensor(T, C):
    half = C // 2
    angle = torch.arange(T)[:, None] * 10_000.0 ** (-torch.arange(half) / max(half - 1, 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1)


@WRONG.to("sinusoidal_positions", "outside −1 … 1")
def scaled_up_by_the_width(T, C):
    return alternating(angles(T, C).sin(), angles(T, C).cos()) * C ** 0.5


@WRONG.to("sinusoidal_positions", "position 0")
def alternating_in_time(T, C):
    angle = angles(T, C).repeat_interleave(2, dim=1)
    return torch.where(torch.arange(T)[:, None] % 2 == 0, angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "shape", "(1, 2)")
def of_a_fixed_length(T, C):
    return alternating(angles(64, C).sin(), angles(64, C).cos())


@WRONG.to("sinusoidal_positions", "for T = 2, C = 4", "is right")
def exponent_by_the_length(T, C):
    angle = torch.arange(T)[:, None] * 10_000.0 ** (-torch.arange(0, C, 2) / T)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("dropout", "share that happened to stay")
def scaled_by_the_share_that_stays(x, p, generator):
    keep = torch.rand(x.shape, generator=generator) >= p
    return x * keep * x.numel() / keep.sum()


@WRONG.to("dropout", "no number became 0")
def gaussian(x, p, generator):
    return x * (1 + (p / (1 - p)) ** 0.5 * torch.randn(x.shape, generator=generator))


@WRONG.to("dropout", "exactly the same number")
def an_exact_share(x, p, generator):
    keep = torch.ones(x.numel())
    keep[torch.randperm(x.numel(), generator=generator)[:round(p * x.numel())]] = 0
    return x * keep.view_as(x) / (1 - p)


@WRONG.to("dropout", "values of x decide")
def the_smallest(x, p, generator):
    return torch.where(x.abs() < x.abs().quantile(p), 0, x) / (1 - p)


@WRONG.to("dropout", "every call", "same numbers")
def generator_copied(x, p, generator):
    copy = torch.Generator().manual_seed(generator.initial_seed())
    return x * (torch.rand(x.shape, generator=copy) >= p) / (1 - p)


@WRONG.to("dropout", "rows of the batch")
def whole_rows(x, p, generator):
    return x * (torch.rand(len(x), 1, 1, generator=generator) >= p) / (1 - p)


@WRONG.to("dropout", "some channels", "repeat none")
def half_of_the_draws_twice(x, p, generator):
    half = torch.rand(*x.shape[:2], (x.shape[2] + 1) // 2, generator=generator)
    return x * (torch.cat([half, half], dim=-1)[..., :x.shape[2]] >= p) / (1 - p)


@WRONG.to("dropout", "randn")
def a_normal_draw(x, p, generator):
    return x * (torch.randn(x.shape, generator=generator) >= p) / (1 - p)


@WRONG.to("dropout", "gradient")
def straight_through(x, p, generator):
    dropped = x * (torch.rand(x.shape, generator=generator) >= p) / (1 - p)
    return x + (dropped - x).detach()


@WRONG.to("dropout", "p = 0.7 it should be 70%")
def always_a_fifth(x, p, generator):
    return x * (torch.rand(x.shape, generator=generator) >= 0.2) / 0.8


@WRONG.to("pre_norm_block", "x should come through unchanged")
def halved(x, norm1, attention, norm2, feed_forward):
    x = (x + attention(norm1(x))) / 2
    return (x + feed_forward(norm2(x))) / 2


@WRONG.to("pre_norm_block", "before feed_forward the stream itself")
def second_residual_from_the_copy(x, norm1, attention, norm2, feed_forward):
    copy = norm2(x + attention(norm1(x)))
    return copy + feed_forward(copy)


@WRONG.to("pre_norm_block", "called 2 times", "once")
def attention_called_twice(x, norm1, attention, norm2, feed_forward):
    return x + attention(norm1(x)) + feed_forward(norm2(x + attention(norm1(x))))


@WRONG.to("pre_norm_block", "attention's output alone")
def feed_forward_of_the_output(x, norm1, attention, norm2, feed_forward):
    output = attention(norm1(x))
    return x + output + feed_forward(norm2(output))


@WRONG.to("pre_norm_block", "gradient")
def stream_detached(x, norm1, attention, norm2, feed_forward):
    x = x.detach() + attention(norm1(x))
    return x + feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "tuple")
def two_results(x, norm1, attention, norm2, feed_forward):
    x = x + attention(norm1(x))
    return x, feed_forward(norm2(x))


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("layer_norm")
def with_var_mean(x, weight, bias, eps):
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    return torch.addcmul(bias, (x - mean) * torch.rsqrt(variance + eps), weight)


@RIGHT.to("layer_norm")
def with_einsum(x, weight, bias, eps):
    C = x.shape[-1]
    centred = x - torch.einsum("btc->bt", x)[..., None] / C
    variance = torch.einsum("btc,btc->bt", centred, centred) / C
    return torch.einsum("btc,c,bt->btc", centred, weight, (variance + eps) ** -0.5) + bias


@WRONG.to("layer_norm", "eps is added twice")
def eps_twice(x, weight, bias, eps):
    """Add eps inside and outside of the root."""
    centred = x - x.mean(-1, keepdim=True)
    std = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / (std + eps) * weight + bias


@WRONG.to("layer_norm", "mean of |x − mean|")
def mean_absolute_deviation(x, weight, bias, eps):
    """Divide by the mean distance from the mean."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.abs().mean(-1, keepdim=True) + eps) * weight + bias


@WRONG.to("layer_norm", "range 0 … 1")
def stretched(x, weight, bias, eps):
    """Stretch each position to 0 … 1."""
    low, high = x.min(-1, keepdim=True).values, x.max(-1, keepdim=True).values
    return weight * (x - low) / (high - low + eps) + bias


@WRONG.to("layer_norm", "weight before it is normalised")
def weight_first(x, weight, bias, eps):
    """Multiply by weight before the norm."""
    return normalised(x * weight, eps) + bias


@WRONG.to("layer_norm", "applied before x is normalised")
def weight_and_bias_first(x, weight, bias, eps):
    """Apply weight and bias before the norm."""
    return normalised(x * weight + bias, eps)


@WRONG.to("layer_norm", "x is added to the result")
def residual_inside(x, weight, bias, eps):
    """Put the residual connection into the norm."""
    return x + normalised(x, eps) * weight + bias


@WRONG.to("layer_norm", "one variance is taken of the whole x")
def one_variance_for_all(x, weight, bias, eps):
    """Forget dim=-1 in var."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(unbiased=False) + eps).sqrt() * weight + bias


@WRONG.to("layer_norm", "minimum of the variance")
def eps_as_a_minimum(x, weight, bias, eps):
    """Use eps where the variance is smaller."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / torch.maximum(variance, torch.full_like(variance, eps)).sqrt() * weight + bias


@WRONG.to("layer_norm", "multiplies by the standard deviation")
def multiplied_by_the_deviation(x, weight, bias, eps):
    """Multiply where a division is right."""
    std = (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    return (x - x.mean(-1, keepdim=True)) * std * weight + bias


@WRONG.to("layer_norm", "weight and bias are swapped")
def weight_and_bias_swapped(x, weight, bias, eps):
    """Take the two arguments in the wrong order."""
    return F.layer_norm(x, x.shape[-1:], bias, weight, eps)


@RIGHT.to("sinusoidal_positions")
def with_complex_numbers(T, C):
    angle = torch.outer(torch.arange(T), 10_000.0 ** -(torch.arange(0, C, 2) / C))
    return torch.view_as_real(1j * torch.polar(torch.ones_like(angle), -angle)).flatten(1)


@RIGHT.to("sinusoidal_positions")
def cosine_as_a_shifted_sine(T, C):
    c = torch.arange(C, dtype=torch.float64)
    angle = torch.arange(T).unsqueeze(1) * torch.exp(-(c - c % 2) / C * math.log(10_000))
    return torch.sin(angle + c % 2 * math.pi / 2).float()


@RIGHT.to("sinusoidal_positions")
def channel_by_channel(T, C):
    columns = []
    for i in range(C // 2):
        angle = torch.tensor([t / 10_000 ** (2 * i / C) for t in range(T)])
        columns += [angle.sin(), angle.cos()]
    return torch.stack(columns).T


@WRONG.to("sinusoidal_positions", "without the division by C")
def not_divided_by_C(T, C):
    """Use the exponent 2i."""
    angle = torch.arange(T)[:, None] / 10_000.0 ** torch.arange(0, C, 2)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "e⁴", "natural logarithm")
def with_log10(T, C):
    """Use log10 inside of exp."""
    angle = torch.arange(T)[:, None] * torch.exp(-torch.arange(0, C, 2) / C * math.log10(10_000))
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "divided by T")
def positions_from_0_to_1(T, C):
    """Divide the positions by their number."""
    angle = angles(T, C) / T
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "pairs are in the reverse order")
def slowest_pair_first(T, C):
    """Turn the frequencies around."""
    angle = angles(T, C).flip(1)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "only the sines are returned")
def half_of_the_channels(T, C):
    """Forget the cosines."""
    return angles(T, C).sin()


@WRONG.to("sinusoidal_positions", "added up", "channel of its own")
def sines_plus_cosines(T, C):
    """Add sine and cosine."""
    return angles(T, C).sin() + angles(T, C).cos()


@WRONG.to("sinusoidal_positions", "axes of their own")
def not_flattened(T, C):
    """Stack sines and cosines, and forget to flatten."""
    return torch.stack([angles(T, C).sin(), angles(T, C).cos()], dim=-1)


@WRONG.to("sinusoidal_positions", "sign of the angle")
def negative_angles(T, C):
    """Turn in the other direction."""
    return alternating((-angles(T, C)).sin(), (-angles(T, C)).cos())


@WRONG.to("sinusoidal_positions", "last pair has exponent 1")
def with_logspace(T, C):
    """Let logspace reach 1/10000, one step too far."""
    angle = torch.arange(T)[:, None] * torch.logspace(0, -4, C // 2)
    return alternating(angle.sin(), angle.cos())


@WRONG.to("sinusoidal_positions", "cosines and sines are in two halves")
def cosine_half_first(T, C):
    """Put all cosines before all sines."""
    return torch.cat([angles(T, C).cos(), angles(T, C).sin()], dim=1)


@RIGHT.to("dropout")
def one_draw_after_another(x, p, generator):
    flat = [number / (1 - p) if torch.rand((), generator=generator) >= p else number * 0
            for number in x.flatten()]
    return torch.stack(flat).view_as(x)


@RIGHT.to("dropout")
def filled_and_cleared(x, p, generator):
    draws = torch.empty(x.shape).uniform_(generator=generator)
    y = x.clone() / (1 - p)
    y[draws < p] = 0
    return y


@RIGHT.to("dropout")
def with_a_random_integer(x, p, generator):
    draws = torch.randint(10**6, (x.numel(),), generator=generator)
    return (x.reshape(-1) * (draws >= p * 10**6)).reshape(x.shape) / (1 - p)


@WRONG.to("dropout", "mask alone")
def the_mask(x, p, generator):
    """Forget to multiply x by the mask."""
    return (torch.rand(x.shape, generator=generator) >= p).to(x.dtype) / (1 - p)


@WRONG.to("dropout", "dropped should become 0")
def minus_infinity(x, p, generator):
    """Fill with -inf, as before a softmax."""
    drop = torch.rand(x.shape, generator=generator) < p
    return (x / (1 - p)).masked_fill(drop, -math.inf)


@WRONG.to("dropout", "applied twice")
def twice(x, p, generator):
    """Apply dropout to its own result."""
    for _ in range(2):
        x = x * (torch.rand(x.shape, generator=generator) >= p) / (1 - p)
    return x


@WRONG.to("dropout", "drops", "it should be 20%")
def a_coin_for_each(x, p, generator):
    """Drop half of the numbers, whatever p is."""
    return x * torch.randint(2, x.shape, generator=generator) / (1 - p)


@WRONG.to("dropout", "same numbers are dropped for every seed")
def a_generator_of_its_own(x, p, generator):
    """Draw from a new generator with a fixed seed."""
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(42))
    return x * (draws >= p) / (1 - p)


@WRONG.to("dropout", "all rows of the batch share one mask")
def the_seed_set_for_each_row(x, p, generator):
    """Set the seed again for each row."""
    rows = []
    for row in x:
        generator.manual_seed(generator.initial_seed())
        rows.append(row * (torch.rand(row.shape, generator=generator) >= p) / (1 - p))
    return torch.stack(rows)


@WRONG.to("dropout", "divided by 1 − p twice")
def scaled_twice(x, p, generator):
    """Divide the mask and the product."""
    keep = torch.nn.functional.threshold(torch.rand(x.shape, generator=generator), p, 0).bool()
    return x * (keep / (1 - p)) / (1 - p)


@WRONG.to("dropout", "multiplied by 1 + p")
def scaled_by_one_plus_p(x, p, generator):
    """Multiply by 1 + p."""
    return x * (torch.rand(x.shape, generator=generator) >= p) * (1 + p)


@RIGHT.to("pre_norm_block")
def by_a_loop(x, norm1, attention, norm2, feed_forward):
    for norm, part in ((norm1, attention), (norm2, feed_forward)):
        x = torch.add(part(norm(x)), x)
    return x


@RIGHT.to("pre_norm_block")
def by_reduce(x, norm1, attention, norm2, feed_forward):
    from functools import reduce

    return reduce(lambda x, f: x + f[1](f[0](x)), [(norm1, attention), (norm2, feed_forward)], x)


@WRONG.to("pre_norm_block", "the input is lost")
def outputs_only(x, norm1, attention, norm2, feed_forward):
    """Add the second output to the first, and not to the stream."""
    output = attention(norm1(x))
    return output + feed_forward(norm2(x + output))


@WRONG.to("pre_norm_block", "only attention's part is post-norm")
def first_half_post_norm(x, norm1, attention, norm2, feed_forward):
    """Normalise the first sum."""
    x = norm1(x + attention(x))
    return x + feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "only feed_forward's part is post-norm")
def second_half_post_norm(x, norm1, attention, norm2, feed_forward):
    """Normalise the second sum."""
    x = x + attention(norm1(x))
    return norm2(x + feed_forward(x))


@WRONG.to("pre_norm_block", "attention's output is normalised")
def norm1_of_the_output(x, norm1, attention, norm2, feed_forward):
    """Apply norm1 to what attention returns."""
    x = x + norm1(attention(x))
    return x + feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "attention reads both norms")
def both_norms_first(x, norm1, attention, norm2, feed_forward):
    """Apply both norms before attention."""
    x = x + attention(norm2(norm1(x)))
    return x + feed_forward(norm2(x))


@WRONG.to("pre_norm_block", "stream is doubled")
def stream_twice(x, norm1, attention, norm2, feed_forward):
    """Add the stream to itself."""
    x = x + attention(norm1(x))
    x = x + x + feed_forward(norm2(x))
    return x


@WRONG.to("pre_norm_block", "input is added once too often")
def input_added_again(x, norm1, attention, norm2, feed_forward):
    """Add the first input to the second sum too."""
    h = x + attention(norm1(x))
    return h + feed_forward(norm2(h)) + x


@WRONG.to("pre_norm_block", "feed_forward is missing")
def one_part_only(x, norm1, attention, norm2, feed_forward):
    """Stop after attention."""
    return x + attention(norm1(x))


@WRONG.to("pre_norm_block", "multiplied")
def gated(x, norm1, attention, norm2, feed_forward):
    """Multiply where an addition is right."""
    x = x * attention(norm1(x))
    return x * feed_forward(norm2(x))
