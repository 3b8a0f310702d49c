"""Chapter 7: right and wrong answers, and words that the verdict on a wrong answer must contain."""

import math

import torch
from collecting import Answers

WRONG, RIGHT = Answers(), Answers()


# next_context -------------------------------------------------------------------------------------

@RIGHT.to("next_context")
def mean_of_a_slice(hidden):
    return hidden[:, 1:].mean(dim=1, keepdim=True)


@RIGHT.to("next_context")
def as_a_product(hidden):
    T = hidden.shape[1] - 1
    weights = torch.cat([hidden.new_zeros(1), hidden.new_full((T,), 1 / T)])
    return torch.einsum("t,btc->bc", weights, hidden).unsqueeze(1)


@WRONG.to("next_context", "own position", "position 0")
def with_its_own_place(hidden):
    return hidden.mean(1, keepdim=True)


@WRONG.to("next_context", "counted")
def divided_by_one_more(hidden):
    return hidden[:, 1:].sum(1, keepdim=True) / hidden.shape[1]


@WRONG.to("next_context", "sum")
def summed(hidden):
    return hidden[:, 1:].sum(1, keepdim=True)


@WRONG.to("next_context", "no axis for positions", "keepdim")
def without_an_axis(hidden):
    return hidden[:, 1:].mean(1)


@WRONG.to("next_context", "no gradient", "detach")
def detached(hidden):
    return hidden[:, 1:].mean(1, keepdim=True).detach()


@WRONG.to("next_context", "last token's state", "mean of all")
def last_state(hidden):
    return hidden[:, -1:].clone()


@WRONG.to("next_context", "own position", "seen no token")
def state_of_the_context(hidden):
    return hidden[:, :1].clone()


@WRONG.to("next_context", "last token is left out")
def without_the_last(hidden):
    return hidden[:, 1:-1].mean(1, keepdim=True).nan_to_num()


@WRONG.to("next_context", "batch")
def over_the_batch(hidden):
    return hidden[:, 1:].mean((0, 1), keepdim=True).expand(len(hidden), 1, -1)


@WRONG.to("next_context", "channels")
def over_the_channels(hidden):
    return hidden[:, 1:].mean(2, keepdim=True).transpose(1, 2)


@WRONG.to("next_context", "largest")
def maximum(hidden):
    return hidden[:, 1:].amax(1, keepdim=True)


@WRONG.to("next_context", "length 1")
def normalised(hidden):
    mean = hidden[:, 1:].mean(1, keepdim=True)
    return mean / mean.norm(dim=-1, keepdim=True)


@WRONG.to("next_context", "changes its argument")
def in_place(hidden):
    hidden[:, 0] = 0
    return hidden.sum(1, keepdim=True) / (hidden.shape[1] - 1)


# read_in_windows ----------------------------------------------------------------------------------

@RIGHT.to("read_in_windows")
def with_split(read, ids, W, context):
    states = []
    for window in ids.split(W, dim=1):
        h, context = read(window, context)
        states.append(h)
    return torch.cat(states, dim=1)


@RIGHT.to("read_in_windows")
def by_recursion(read, ids, W, context):
    h, context = read(ids[:, :W], context)
    if ids.shape[1] <= W:
        return h
    return torch.cat([h, by_recursion(read, ids[:, W:], W, context)], dim=1)


def walk(read, windows, context, update=lambda old, new: new):
    states = []
    for window in windows:
        h, new_context = read(window, context)
        context = update(context, new_context)
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "after the first context", "give each")
def context_not_handed_on(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: old)


@WRONG.to("read_in_windows", "after a context of zeros")
def context_forgotten(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: torch.zeros_like(old))


@WRONG.to("read_in_windows", "after zeros", "argument `context`")
def first_context_ignored(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), torch.zeros_like(context))


@WRONG.to("read_in_windows", "comes first", "borders move")
def remainder_first(read, ids, W, context):
    rest = ids.shape[1] % W
    windows = [ids[:, :rest]] if rest else []
    if ids.shape[1] > rest:
        windows += ids[:, rest:].split(W, dim=1)
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "left out", "states too")
def remainder_dropped(read, ids, W, context):
    if ids.shape[1] < W:
        return torch.zeros(len(ids), 0, context.shape[2])
    windows = [ids[:, k * W:(k + 1) * W] for k in range(ids.shape[1] // W)]
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "only the last window's")
def last_window_alone(read, ids, W, context):
    for window in ids.split(W, dim=1):
        h, context = read(window, context)
    return h


@WRONG.to("read_in_windows", "tokens at once", "split")
def all_at_once(read, ids, W, context):
    return read(ids, context)[0]


@WRONG.to("read_in_windows", "only the first window")
def first_window_alone(read, ids, W, context):
    return read(ids[:, :W], context)[0]


@WRONG.to("read_in_windows", "one by one")
def token_by_token(read, ids, W, context):
    return walk(read, ids.split(1, dim=1), context)


@WRONG.to("read_in_windows", "added up")
def contexts_added(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: old + new)


@WRONG.to("read_in_windows", "averaged")
def contexts_averaged(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: (old + new) / 2)


@WRONG.to("read_in_windows", "last to the first")
def backwards(read, ids, W, context):
    states = []
    for window in reversed(ids.split(W, dim=1)):
        h, context = read(window, context)
        states.insert(0, h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "one token after")
def overlapping(read, ids, W, context):
    windows = [ids[:, k:k + W] for k in range(max(1, ids.shape[1] - W + 1))]
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "tokens (B, T) first")
def swapped(read, ids, W, context):
    return walk(lambda window, context: read(context, window), ids.split(W, dim=1), context)


@WRONG.to("read_in_windows", "without tokens")
def one_window_too_many(read, ids, W, context):
    windows = [ids[:, k * W:(k + 1) * W] for k in range(ids.shape[1] // W + 1)]
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "no gradient flows back", "detach")
def gradient_cut(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), context.detach(), update=lambda old, new: new.detach())


@WRONG.to("read_in_windows", "gradient")
def gradient_cut_between_windows(read, ids, W, context):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: new.detach())


@WRONG.to("read_in_windows", "states first, and then the next context")
def outputs_swapped(read, ids, W, context):
    states = []
    for window in ids.split(W, dim=1):
        context, h = read(window, context)
        states.append(h)
    return torch.cat(states, dim=1)


# courier_loss -------------------------------------------------------------------------------------

@RIGHT.to("courier_loss")
def with_logs(window, places, values, known):
    return (math.log(places) + (2 - known) * math.log(values)) / (window - 1)


@RIGHT.to("courier_loss")
def as_a_tensor(window, places, values, known):
    news, answer = torch.tensor(float(places * values)).log(), torch.tensor(float(values)).log()
    return (known * news + (1 - known) * (news + answer)) / (window - 1)


@WRONG.to("courier_loss", "place of the fact")
def no_place(window, places, values, known):
    return (2 - known) * math.log(values) / (window - 1)


@WRONG.to("courier_loss", "fact itself")
def no_fact(window, places, values, known):
    return (math.log(places) + (1 - known) * math.log(values)) / (window - 1)


@WRONG.to("courier_loss", "answer is forgotten")
def no_answer(window, places, values, known):
    return math.log(places * values) / (window - 1)


@WRONG.to("courier_loss", "costs everyone")
def everyone_pays(window, places, values, known):
    return (math.log(places) + 2 * math.log(values)) / (window - 1)


@WRONG.to("courier_loss", "wrong way round")
def turned_round(window, places, values, known):
    return (math.log(places) + (1 + known) * math.log(values)) / (window - 1)


@WRONG.to("courier_loss", "question is given")
def divided_by_the_window(window, places, values, known):
    return (math.log(places) + (2 - known) * math.log(values)) / window


@WRONG.to("courier_loss", "window − 2")
def divided_by_two_less(window, places, values, known):
    return (math.log(places) + (2 - known) * math.log(values)) / (window - 2)


@WRONG.to("courier_loss", "always divided by 7", "window − 1")
def divided_by_seven(window, places, values, known):
    return (math.log(places) + (2 - known) * math.log(values)) / 7


@WRONG.to("courier_loss", "whole window")
def not_divided(window, places, values, known):
    return math.log(places) + (2 - known) * math.log(values)


@WRONG.to("courier_loss", "bits")
def in_bits(window, places, values, known):
    return (math.log2(places) + (2 - known) * math.log2(values)) / (window - 1)


@WRONG.to("courier_loss", "perplexity")
def perplexity(window, places, values, known):
    return math.exp((math.log(places) + (2 - known) * math.log(values)) / (window - 1))


@WRONG.to("courier_loss", "mixture")
def of_the_mixture(window, places, values, known):
    answer = -math.log(known + (1 - known) / values)
    return (math.log(places) + math.log(values) + answer) / (window - 1)


@WRONG.to("courier_loss", "sign")
def negative(window, places, values, known):
    return -(math.log(places) + (2 - known) * math.log(values)) / (window - 1)


@WRONG.to("courier_loss", "logarithms add up", "not ln(places + values)")
def probabilities_added(window, places, values, known):
    return math.log(places + values + (1 - known) * values) / (window - 1)


@WRONG.to("courier_loss", "logarithms add up", "not ln(places + values)")
def places_and_values_added(window, places, values, known):
    return (math.log(places + values) + (1 - known) * math.log(values)) / (window - 1)


@WRONG.to("courier_loss", "share between 0 and 1")
def known_taken_as_yes_or_no(window, places, values, known):
    return (math.log(places) + math.log(values) + (0 if known else math.log(values))) / (window - 1)
