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
