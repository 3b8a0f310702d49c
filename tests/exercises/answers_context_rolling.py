"""Chapter 7: right and wrong answers, and words that the verdict on a wrong answer must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

WRONG, RIGHT = Answers(), Answers()


# next_context -------------------------------------------------------------------------------------

def parts(hidden, n):
    return hidden[:, n:].unflatten(1, (n, -1))


@RIGHT.to("next_context")
def mean_of_parts(hidden, n):
    return hidden[:, n:].unflatten(1, (n, -1)).mean(2)


@RIGHT.to("next_context")
def by_chunks(hidden, n):
    return torch.cat([part.mean(1, keepdim=True) for part in hidden[:, n:].chunk(n, dim=1)], dim=1)


@RIGHT.to("next_context")
def by_reshape(hidden, n):
    B, length, C = hidden.shape
    return hidden[:, n:].reshape(B, n, (length - n) // n, C).sum(2) / ((length - n) // n)


@RIGHT.to("next_context")
def as_a_product(hidden, n):
    T = hidden.shape[1] - n
    weights = torch.eye(n, dtype=hidden.dtype).repeat_interleave(T // n, dim=1) / (T // n)
    return weights @ hidden[:, n:]


@RIGHT.to("next_context")
def by_pooling(hidden, n):
    return F.adaptive_avg_pool1d(hidden[:, n:].mT, n).mT


@RIGHT.to("next_context")
def added_up_in_a_loop(hidden, n):
    T = hidden.shape[1] - n
    sums = [0] * n
    for t in range(T):
        sums[t // (T // n)] = sums[t // (T // n)] + hidden[:, n + t]
    return torch.stack(sums, 1) / (T // n)


@RIGHT.to("next_context")
def from_running_sums(hidden, n):
    size = (hidden.shape[1] - n) // n
    ends = hidden[:, n:].cumsum(1)[:, size - 1::size]
    return torch.diff(ends, dim=1, prepend=torch.zeros_like(ends[:, :1])) / size


@WRONG.to("next_context", "own positions", "first n positions")
def with_their_own_places(hidden, n):
    return hidden.unflatten(1, (n, -1)).mean(2)


@WRONG.to("next_context", "only one position is left out")
def one_place_left_out(hidden, n):
    tokens = hidden[:, 1:]
    return torch.stack([part.mean(1) for part in tokens.tensor_split(n, dim=1)], dim=1)


@WRONG.to("next_context", "last n tokens are left out")
def contexts_at_the_end(hidden, n):
    return hidden[:, :-n].unflatten(1, (n, -1)).mean(2)


@WRONG.to("next_context", "every n-th token", "in a row")
def interleaved(hidden, n):
    return torch.stack([hidden[:, n + k::n].mean(1) for k in range(n)], dim=1)


@WRONG.to("next_context", "every n-th token", "in a row")
def axes_of_the_reshape_swapped(hidden, n):
    B, length, C = hidden.shape
    return hidden[:, n:].reshape(B, (length - n) // n, n, C).mean(1)


@WRONG.to("next_context", "mean of all tokens, once")
def one_mean(hidden, n):
    """Give the answer of the chapter."""
    return hidden[:, n:].mean(1, keepdim=True)


@WRONG.to("next_context", "repeated n times")
def one_mean_repeated(hidden, n):
    return hidden[:, n:].mean(1, keepdim=True).repeat(1, n, 1)


@WRONG.to("next_context", "end of its part")
def means_of_all_so_far(hidden, n):
    T = hidden.shape[1] - n
    return torch.stack([hidden[:, n:n + T * k // n].mean(1) for k in range(1, n + 1)], dim=1)


@WRONG.to("next_context", "reverse order")
def from_the_last_part(hidden, n):
    return parts(hidden, n).mean(2).flip(1)


@WRONG.to("next_context", "sums")
def summed(hidden, n):
    return parts(hidden, n).sum(2)


@WRONG.to("next_context", "divided by T")
def divided_by_all(hidden, n):
    return parts(hidden, n).sum(2) / (hidden.shape[1] - n)


@WRONG.to("next_context", "number of parts")
def divided_by_the_parts(hidden, n):
    return parts(hidden, n).sum(2) / n


@WRONG.to("next_context", "number of channels")
def divided_by_the_channels(hidden, n):
    return parts(hidden, n).sum(2) / hidden.shape[-1]


@WRONG.to("next_context", "plus one")
def divided_by_one_more(hidden, n):
    return parts(hidden, n).sum(2) / (hidden.shape[1] / n)


@WRONG.to("next_context", "last token's state of each part")
def last_states(hidden, n):
    size = (hidden.shape[1] - n) // n
    return hidden[:, n + size - 1::size]


@WRONG.to("next_context", "first token's state of each part")
def first_states(hidden, n):
    return parts(hidden, n)[:, :, 0]


@WRONG.to("next_context", "own positions", "seen no token")
def states_of_the_contexts(hidden, n):
    return hidden[:, :n].clone()


@WRONG.to("next_context", "last n tokens")
def last_tokens(hidden, n):
    return hidden[:, -n:].clone()


@WRONG.to("next_context", "last token of each part is left out")
def without_the_last_of_each_part(hidden, n):
    return parts(hidden, n)[:, :, :-1].mean(2)


@WRONG.to("next_context", "first token of each part is left out")
def without_the_first_of_each_part(hidden, n):
    return parts(hidden, n)[:, :, 1:].mean(2)


@WRONG.to("next_context", "largest")
def maximum(hidden, n):
    return parts(hidden, n).amax(2)


@WRONG.to("next_context", "averaged with the context's own state")
def mixed_with_the_old_context(hidden, n):
    return (hidden[:, :n] + parts(hidden, n).mean(2)) / 2


@WRONG.to("next_context", "own state is added")
def residual(hidden, n):
    return hidden[:, :n] + parts(hidden, n).mean(2)


@WRONG.to("next_context", "batch")
def over_the_batch(hidden, n):
    return parts(hidden, n).mean((0, 2))[None].repeat(len(hidden), 1, 1)


@WRONG.to("next_context", "wrong order", "(B, n, C)")
def axes_in_the_wrong_order(hidden, n):
    return torch.stack([part.mean(1) for part in hidden[:, n:].chunk(n, dim=1)])


@WRONG.to("next_context", "wrong order", "(B, n, C)")
def parts_behind_the_channels(hidden, n):
    return torch.stack([part.mean(1) for part in hidden[:, n:].chunk(n, dim=1)], dim=-1)


@WRONG.to("next_context", "axis of length 1")
def with_an_axis_too_many(hidden, n):
    return parts(hidden, n).mean(2, keepdim=True)


@WRONG.to("next_context", "one axis with their channels")
def joined_along_the_channels(hidden, n):
    return torch.cat([part.mean(1) for part in hidden[:, n:].chunk(n, dim=1)], dim=1)


@WRONG.to("next_context", "length 1")
def normalised(hidden, n):
    mean = parts(hidden, n).mean(2)
    return mean / mean.norm(dim=-1, keepdim=True)


@WRONG.to("next_context", "no gradient", "detach")
def detached(hidden, n):
    return parts(hidden, n).mean(2).detach()


@WRONG.to("next_context", "changes its argument")
def in_place(hidden, n):
    size = (hidden.shape[1] - n) // n
    hidden[:, n:] /= size
    return parts(hidden, n).sum(2)


# read_in_windows ----------------------------------------------------------------------------------

@RIGHT.to("read_in_windows")
def with_split(read, ids, W, context, k):
    states = []
    for i, window in enumerate(ids.split(W, dim=1), start=1):
        h, context = read(window, context)
        if i % k == 0:
            context = context.detach()
        states.append(h)
    return torch.cat(states, dim=1)


@RIGHT.to("read_in_windows")
def in_groups(read, ids, W, context, k):
    states = []
    for group in ids.split(k * W, dim=1):
        for window in group.split(W, dim=1):
            h, context = read(window, context)
            states.append(h)
        context = context.detach()
    return torch.cat(states, dim=1)


@RIGHT.to("read_in_windows")
def by_recursion(read, ids, W, context, k, number=1):
    h, context = read(ids[:, :W], context)
    if ids.shape[1] <= W:
        return h
    context = context.detach() if number % k == 0 else context
    return torch.cat([h, by_recursion(read, ids[:, W:], W, context, k, number + 1)], dim=1)


@RIGHT.to("read_in_windows")
def cut_before_the_next_window(read, ids, W, context, k):
    states = []
    for i, window in enumerate(ids.split(W, dim=1)):
        if i > 0 and i % k == 0:
            context = context.detach()
        h, context = read(window, context)
        states.append(h)
    return torch.cat(states, dim=1)


@RIGHT.to("read_in_windows")
def detached_in_place(read, ids, W, context, k):
    states = []
    for begin in range(0, ids.shape[1], W):
        h, context = read(ids[:, begin:begin + W], context)
        if (begin // W) % k == k - 1:
            context.detach_()
        states += [h]
    return torch.hstack(states)


def walk(read, windows, context, update=lambda old, new: new):
    states = []
    for window in windows:
        h, new_context = read(window, context)
        context = update(context, new_context)
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "after the first context", "give each")
def context_not_handed_on(read, ids, W, context, k):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: old)


@WRONG.to("read_in_windows", "after a context of zeros")
def context_forgotten(read, ids, W, context, k):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: torch.zeros_like(old))


@WRONG.to("read_in_windows", "after zeros", "argument `context`")
def first_context_ignored(read, ids, W, context, k):
    return walk(read, ids.split(W, dim=1), torch.zeros_like(context))


@WRONG.to("read_in_windows", "comes first", "borders move")
def remainder_first(read, ids, W, context, k):
    rest = ids.shape[1] % W
    windows = [ids[:, :rest]] if rest else []
    if ids.shape[1] > rest:
        windows += ids[:, rest:].split(W, dim=1)
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "left out", "states too")
def remainder_dropped(read, ids, W, context, k):
    if ids.shape[1] < W:
        return torch.zeros(len(ids), 0, context.shape[2])
    windows = [ids[:, i * W:(i + 1) * W] for i in range(ids.shape[1] // W)]
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "only the last window's")
def last_window_alone(read, ids, W, context, k):
    for window in ids.split(W, dim=1):
        h, context = read(window, context)
    return h


@WRONG.to("read_in_windows", "tokens at once", "split")
def all_at_once(read, ids, W, context, k):
    return read(ids, context)[0]


@WRONG.to("read_in_windows", "only the first window")
def first_window_alone(read, ids, W, context, k):
    return read(ids[:, :W], context)[0]


@WRONG.to("read_in_windows", "one by one")
def token_by_token(read, ids, W, context, k):
    return walk(read, ids.split(1, dim=1), context)


@WRONG.to("read_in_windows", "added up")
def contexts_added(read, ids, W, context, k):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: old + new)


@WRONG.to("read_in_windows", "averaged")
def contexts_averaged(read, ids, W, context, k):
    return walk(read, ids.split(W, dim=1), context, update=lambda old, new: (old + new) / 2)


@WRONG.to("read_in_windows", "last to the first")
def backwards(read, ids, W, context, k):
    states = []
    for window in reversed(ids.split(W, dim=1)):
        h, context = read(window, context)
        states.insert(0, h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "one token after")
def overlapping(read, ids, W, context, k):
    windows = [ids[:, i:i + W] for i in range(max(1, ids.shape[1] - W + 1))]
    return walk(read, windows, context)


@WRONG.to("read_in_windows", "tokens (B, T) first")
def swapped(read, ids, W, context, k):
    return walk(lambda window, context: read(context, window), ids.split(W, dim=1), context)


@WRONG.to("read_in_windows", "without tokens")
def one_window_too_many(read, ids, W, context, k):
    windows = [ids[:, i * W:(i + 1) * W] for i in range(ids.shape[1] // W + 1)]
    return walk(read, windows, context)


def read_and_cut(read, ids, W, context, cut):
    """Read in windows. Detach the context after window i, counted from 0, if `cut(i)`."""
    states = []
    for i, window in enumerate(ids.split(W, dim=1)):
        h, context = read(window, context)
        if cut(i):
            context = context.detach()
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "never cut", "every k-th window")
def gradient_not_cut(read, ids, W, context, k):
    """Give the answer of the chapter."""
    return walk(read, ids.split(W, dim=1), context)


@WRONG.to("read_in_windows", "cut at every border", "every k-th window only")
def gradient_cut_between_windows(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: True)


@WRONG.to("read_in_windows", "counted from 0", "window number k")
def counted_from_0(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: i % k == 0)


@WRONG.to("read_in_windows", "every (k + 1)-th window")
def one_window_more(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: (i + 1) % (k + 1) == 0)


@WRONG.to("read_in_windows", "once only")
def cut_once(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: i + 1 == k)


@WRONG.to("read_in_windows", "one window too late")
def cut_too_late(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: i > 0 and i % k == 0)


@WRONG.to("read_in_windows", "other way round")
def cut_elsewhere(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: (i + 1) % k != 0)


@WRONG.to("read_in_windows", "7 windows and k = 2", "after window 4, but", "after window 2, 4, 6")
def cut_at_multiples_of_the_square(read, ids, W, context, k):
    return read_and_cut(read, ids, W, context, lambda i: (i + 1) % (k * k) == 0)


@WRONG.to("read_in_windows", "before the first window")
def first_context_cut_too(read, ids, W, context, k):
    states = []
    for i, window in enumerate(ids.split(W, dim=1)):
        if i % k == 0:
            context = context.detach()
        h, context = read(window, context)
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "context only, not the states")
def states_cut_too(read, ids, W, context, k):
    return walk(read, ids.split(W, dim=1), context).detach()


@WRONG.to("read_in_windows", "context only, not the states")
def without_gradients(read, ids, W, context, k):
    with torch.no_grad():
        return walk(read, ids.split(W, dim=1), context)


@WRONG.to("read_in_windows", "zeros after every k-th window")
def zeros_in_place_of_a_cut(read, ids, W, context, k):
    states = []
    for i, window in enumerate(ids.split(W, dim=1), start=1):
        h, context = read(window, context)
        context = torch.zeros_like(context) if i % k == 0 else context
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "used again after every k-th window")
def each_group_from_the_beginning(read, ids, W, context, k):
    groups = ids.split(k * W, dim=1)
    return torch.cat([walk(read, group.split(W, dim=1), context) for group in groups], dim=1)


@WRONG.to("read_in_windows", "windows have k tokens")
def windows_of_k_tokens(read, ids, W, context, k):
    return walk(read, ids.split(k, dim=1), context)


@WRONG.to("read_in_windows", "`read` is called", "once for each window")
def read_twice(read, ids, W, context, k):
    states = []
    for i, window in enumerate(ids.split(W, dim=1), start=1):
        h, new_context = read(window, context)
        context = read(window, context.detach())[1] if i % k == 0 else new_context
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "states first, and then the next context")
def outputs_swapped(read, ids, W, context, k):
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


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("read_in_windows")
def with_a_while_loop(read, ids, W, context, k):
    result, begin = None, 0
    while begin < ids.shape[1]:
        states, context = read(ids[:, begin:begin + W], context)
        result = states if result is None else torch.hstack([result, states])
        begin += W
        context = context.data if begin % (k * W) == 0 else context
    return result


@RIGHT.to("read_in_windows")
def with_a_generator(read, ids, W, context, k):
    def states():
        nonlocal context
        for i in range((ids.shape[1] + W - 1) // W):
            h, context = read(ids.narrow(1, i * W, min(W, ids.shape[1] - i * W)), context)
            context = (context, context.detach())[(i + 1) % k == 0]
            yield h

    return torch.cat(tuple(states()), 1)


@RIGHT.to("read_in_windows")
def into_a_tensor(read, ids, W, context, k):
    B, T = ids.shape
    result = torch.empty(B, T, context.shape[-1], dtype=context.dtype)
    for t in range(0, T, W):
        result[:, t:t + W], context = read(ids[:, t:t + W], context)
        if (t // W + 1) % k == 0:
            context = context.clone().detach()
    return result


def filled_up(read, ids, W, context, tokens):
    T = ids.shape[1]
    return walk(read, torch.cat([ids, tokens], dim=1).split(W, dim=1), context)[:, :T]


@WRONG.to("read_in_windows", "filled up to W tokens")
def filled_with_zeros(read, ids, W, context, k):
    """Fill the last window with token 0, and cut its states off."""
    return filled_up(read, ids, W, context, ids.new_zeros(len(ids), -ids.shape[1] % W))


@WRONG.to("read_in_windows", "filled up to W tokens")
def filled_with_the_last_token(read, ids, W, context, k):
    """Repeat the last token, and cut its states off."""
    return filled_up(read, ids, W, context, ids[:, -1:].expand(-1, -ids.shape[1] % W))


def states_and(read, ids, W, context, next_context):
    states = []
    for window in ids.split(W, dim=1):
        h, _ = read(window, context)
        context = next_context(h)
        states.append(h)
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "last state of a window")
def last_state_as_context(read, ids, W, context, k):
    """Make the context from the last state."""
    return states_and(read, ids, W, context, lambda h: h[:, -1:])


@WRONG.to("read_in_windows", "mean of a window's states")
def mean_state_as_context(read, ids, W, context, k):
    """Make the context by hand, as in exercise 1."""
    return states_and(read, ids, W, context, lambda h: h.mean(1, keepdim=True))


@WRONG.to("read_in_windows", "contains the contexts")
def the_contexts(read, ids, W, context, k):
    """Collect the second value."""
    contexts = []
    for window in ids.split(W, dim=1):
        context = read(window, context)[1]
        contexts.append(context)
    return torch.cat(contexts, dim=1)


@WRONG.to("read_in_windows", "begins earlier", "overlaps")
def last_window_moved_back(read, ids, W, context, k):
    """Read the last W tokens in the last window."""
    T, states = ids.shape[1], []
    for begin in range(0, T, W):
        n_new = min(W, T - begin)
        h, context = read(ids[:, max(0, begin + n_new - W):begin + n_new], context)
        states.append(h[:, -n_new:])
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "context of the first text")
def context_of_the_first_text(read, ids, W, context, k):
    """Give all texts the first context."""
    return walk(read, ids.split(W, dim=1), context[:1].repeat(len(ids), 1, 1))


@WRONG.to("read_in_windows", "first window is read twice")
def warmed_up(read, ids, W, context, k):
    """Read the first window twice."""
    context = read(ids[:, :W], context)[1]
    return walk(read, ids.split(W, dim=1), context)


@RIGHT.to("courier_loss")
def token_by_token_sum(window, places, values, known):
    costs = [0.0] * (window - 1)
    costs[0] = math.log(places)
    costs[-2] += math.log(values)
    costs[-1] += known * 0 + (1 - known) * math.log(values)
    return sum(costs) / len(costs)


@RIGHT.to("courier_loss")
def by_probabilities(window, places, values, known):
    of_knowing = -math.log(1 / places * 1 / values)
    of_guessing = -math.log(1 / places * 1 / values * 1 / values)
    return (known * of_knowing + (1 - known) * of_guessing) / (window - 1)


@WRONG.to("courier_loss", "do not pay for the new fact either")
def everything_known(window, places, values, known):
    """Let those who know the answer pay nothing at all."""
    return (1 - known) * (math.log(places) + 2 * math.log(values)) / (window - 1)


@WRONG.to("courier_loss", "those who do not know the answer do not pay")
def news_or_answer(window, places, values, known):
    """Let each reader pay for one of the two."""
    news, answer = math.log(places * values), math.log(values)
    return (known * news + (1 - known) * answer) / (window - 1)


@WRONG.to("courier_loss", "answer costs ln places")
def answer_is_a_place(window, places, values, known):
    """Take the answer for a place."""
    nats = math.log(places) + math.log(values) + (1 - known) * math.log(places)
    return nats / (window - 1)


@WRONG.to("courier_loss", "entropy of `known`")
def entropy_of_knowing(window, places, values, known):
    """Add the entropy of the share."""
    entropy = -sum(p * math.log(p) for p in (known, 1 - known) if p > 0)
    return (math.log(places) + (2 - known) * math.log(values) + entropy) / (window - 1)


@WRONG.to("courier_loss", "logarithms are multiplied")
def logs_multiplied(window, places, values, known):
    """Multiply the logarithms."""
    answer = (1 - known) * math.log(values)
    return (math.log(places) * math.log(values) + answer) / (window - 1)


@WRONG.to("courier_loss", "logarithm is missing")
def no_logarithm(window, places, values, known):
    """Add the numbers of possibilities."""
    return (places + (2 - known) * values) / (window - 1)


@WRONG.to("courier_loss", "divided by 3")
def mean_of_three(window, places, values, known):
    """Average over place, fact and answer."""
    return (math.log(places) + (2 - known) * math.log(values)) / 3


@WRONG.to("courier_loss", "place of the fact is forgotten", "divided by window.")
def no_place_and_divided_by_the_window(window, places, values, known):
    """Forget the place, and divide by window."""
    return (2 - known) * math.log(values) / window
