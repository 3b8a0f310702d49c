"""Chapter 7: right and wrong answers, and words that the verdict on a wrong answer must contain."""

import math

import torch
from collecting import Answers
from torch.nn import functional as F

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


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("next_context")
def added_up_in_a_loop(hidden):
    total = 0
    for state in hidden.unbind(1)[1:]:
        total = total + state
    return (total / (hidden.shape[1] - 1)).unsqueeze(1)


@RIGHT.to("next_context")
def by_pooling(hidden):
    return F.adaptive_avg_pool1d(hidden[:, 1:].mT, 1).mT


@RIGHT.to("next_context")
def from_the_mean_of_all(hidden):
    n = hidden.shape[1]
    return (hidden.mean(1, keepdim=True) * n - hidden[:, [0]]) / (n - 1)


@WRONG.to("next_context", "first token is left out too")
def first_token_left_out(hidden):
    """Begin one token too late."""
    return hidden[:, 2:].mean(1, keepdim=True)


@WRONG.to("next_context", "number of channels")
def divided_by_the_channels(hidden):
    """Read the wrong axis of the shape."""
    return hidden[:, 1:].sum(1, keepdim=True) / hidden.shape[-1]


@WRONG.to("next_context", "averaged with the context's own state")
def mixed_with_the_old_context(hidden):
    """Mix the old context and the new one."""
    return (hidden[:, :1] + hidden[:, 1:].mean(1, keepdim=True)) / 2


@WRONG.to("next_context", "own state is added")
def residual(hidden):
    """Add the old context."""
    return hidden[:, :1] + hidden[:, 1:].mean(1, keepdim=True)


@WRONG.to("next_context", "repeated for each token")
def for_each_token(hidden):
    """Return the mean once for each token."""
    tokens = hidden[:, 1:]
    return tokens.mean(1, keepdim=True).expand_as(tokens)


@WRONG.to("next_context", "axis of length 1 is at the end")
def axis_at_the_end(hidden):
    """Unsqueeze the wrong axis."""
    return hidden[:, 1:].mean(1).unsqueeze(-1)


@WRONG.to("next_context", "running means")
def mean_of_running_means(hidden):
    """Average the mean at each token."""
    tokens = hidden[:, 1:]
    counts = torch.arange(1, tokens.shape[1] + 1, dtype=hidden.dtype)[:, None]
    return (tokens.cumsum(1) / counts).mean(1, keepdim=True)


@RIGHT.to("read_in_windows")
def with_a_while_loop(read, ids, W, context):
    result, begin = None, 0
    while begin < ids.shape[1]:
        states, context = read(ids[:, begin:begin + W], context)
        result = states if result is None else torch.hstack([result, states])
        begin += W
    return result


@RIGHT.to("read_in_windows")
def with_a_generator(read, ids, W, context):
    def states():
        nonlocal context
        for k in range((ids.shape[1] + W - 1) // W):
            h, context = read(ids.narrow(1, k * W, min(W, ids.shape[1] - k * W)), context)
            yield h

    return torch.cat(tuple(states()), 1)


@RIGHT.to("read_in_windows")
def into_a_tensor(read, ids, W, context):
    B, T = ids.shape
    result = torch.empty(B, T, context.shape[-1], dtype=context.dtype)
    for t in range(0, T, W):
        result[:, t:t + W], context = read(ids[:, t:t + W], context)
    return result


def filled_up(read, ids, W, context, tokens):
    T = ids.shape[1]
    return walk(read, torch.cat([ids, tokens], dim=1).split(W, dim=1), context)[:, :T]


@WRONG.to("read_in_windows", "filled up to W tokens")
def filled_with_zeros(read, ids, W, context):
    """Fill the last window with token 0, and cut its states off."""
    return filled_up(read, ids, W, context, ids.new_zeros(len(ids), -ids.shape[1] % W))


@WRONG.to("read_in_windows", "filled up to W tokens")
def filled_with_the_last_token(read, ids, W, context):
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
def last_state_as_context(read, ids, W, context):
    """Make the context from the last state."""
    return states_and(read, ids, W, context, lambda h: h[:, -1:])


@WRONG.to("read_in_windows", "mean of a window's states")
def mean_state_as_context(read, ids, W, context):
    """Make the context by hand, as in exercise 1."""
    return states_and(read, ids, W, context, lambda h: h.mean(1, keepdim=True))


@WRONG.to("read_in_windows", "contains the contexts")
def the_contexts(read, ids, W, context):
    """Collect the second value."""
    contexts = []
    for window in ids.split(W, dim=1):
        context = read(window, context)[1]
        contexts.append(context)
    return torch.cat(contexts, dim=1)


@WRONG.to("read_in_windows", "begins earlier", "overlaps")
def last_window_moved_back(read, ids, W, context):
    """Read the last W tokens in the last window."""
    T, states = ids.shape[1], []
    for begin in range(0, T, W):
        n_new = min(W, T - begin)
        h, context = read(ids[:, max(0, begin + n_new - W):begin + n_new], context)
        states.append(h[:, -n_new:])
    return torch.cat(states, dim=1)


@WRONG.to("read_in_windows", "context of the first text")
def context_of_the_first_text(read, ids, W, context):
    """Give all texts the first context."""
    return walk(read, ids.split(W, dim=1), context[:1].repeat(len(ids), 1, 1))


@WRONG.to("read_in_windows", "first window is read twice")
def warmed_up(read, ids, W, context):
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
