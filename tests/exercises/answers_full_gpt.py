"""Chapter 4: right answers, and wrong answers with words that the verdict must contain."""

import math

import torch
from collecting import Answers

WRONG, RIGHT = Answers(), Answers()


# shift_targets ------------------------------------------------------------------------------------

@RIGHT.to("shift_targets")
def from_one_window(ids, start, block_size):
    window = ids[start:start + block_size + 1]
    return window[:-1], window[1:]


@RIGHT.to("shift_targets")
def by_index(ids, start, block_size):
    positions = torch.arange(start, start + block_size, device=ids.device)
    return [ids[positions], ids[positions + 1]]


@WRONG.to("shift_targets", "same tokens", "copy")
def unshifted(ids, start, block_size):
    return ids[start:start + block_size], ids[start:start + block_size]


@WRONG.to("shift_targets", "two")
def shifted_by_two(ids, start, block_size):
    return ids[start:start + block_size], ids[start + 2:start + block_size + 2]


@WRONG.to("shift_targets", "before")
def shifted_backwards(ids, start, block_size):
    return ids[start:start + block_size], ids[start - 1:start + block_size - 1]


@WRONG.to("shift_targets", "block_size − 1")
def one_too_short(ids, start, block_size):
    window = ids[start:start + block_size]
    return window[:-1], window[1:]


@WRONG.to("shift_targets", "swapped")
def swapped(ids, start, block_size):
    return ids[start + 1:start + block_size + 1], ids[start:start + block_size]


@WRONG.to("shift_targets", "roll", "last")
def rolled(ids, start, block_size):
    x = ids[start:start + block_size]
    return x, x.roll(-1)


@WRONG.to("shift_targets", "last", "every position")
def last_target_only(ids, start, block_size):
    return ids[start:start + block_size], ids[start + block_size]


@WRONG.to("shift_targets", "not the number of a block")
def start_counted_in_blocks(ids, start, block_size):
    start = start * block_size
    return ids[start:start + block_size], ids[start + 1:start + block_size + 1]


@WRONG.to("shift_targets", "two tensors", "x, y")
def x_alone(ids, start, block_size):
    return ids[start:start + block_size]


@WRONG.to("shift_targets", "start")
def always_from_the_beginning(ids, start, block_size):
    return ids[:block_size], ids[1:block_size + 1]


@WRONG.to("shift_targets", "int64", "float32")
def as_floats(ids, start, block_size):
    return ids[start:start + block_size].float(), ids[start + 1:start + block_size + 1].float()


# top_p --------------------------------------------------------------------------------------------

def most_probable(probabilities, p, keep=lambda before, own, p: before < p):
    ordered, order = probabilities.sort(-1, descending=True)
    ordered = ordered * keep(ordered.cumsum(-1) - ordered, ordered, p)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered)


@RIGHT.to("top_p")
def row_by_row(probabilities, p):
    result = torch.zeros_like(probabilities)
    for row, out in zip(probabilities, result, strict=True):
        total = 0.0
        for token in row.argsort(descending=True):
            if total < p:
                out[token] = row[token]
                total += row[token].item()
    return result / result.sum(-1, keepdim=True)


@RIGHT.to("top_p")
def with_ranks(probabilities, p):
    order = probabilities.argsort(-1, descending=True)
    ordered = probabilities.gather(-1, order)
    ordered = torch.where(ordered.cumsum(-1) - ordered >= p, 0, ordered)
    return (ordered / ordered.sum(-1, keepdim=True)).gather(-1, order.argsort(-1))


@WRONG.to("top_p", "crosses")
def crossing_token_dropped(probabilities, p):
    result = most_probable(probabilities, p, lambda before, own, p: before + own <= p)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "crosses")
def crossing_token_dropped_unless_alone(probabilities, p):
    keep = lambda before, own, p: (before + own <= p) | (before == 0)
    result = most_probable(probabilities, p, keep)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "row 0 keeps no token")
def no_token_kept_and_not_renormalised(probabilities, p):
    return torch.where(probabilities.cumsum(-1) <= p, probabilities, 0)


@WRONG.to("top_p", "sum to 1")
def not_renormalised(probabilities, p):
    return most_probable(probabilities, p)


@WRONG.to("top_p", "sorted", "place")
def left_sorted(probabilities, p):
    ordered = probabilities.sort(-1, descending=True).values
    ordered = torch.where(ordered.cumsum(-1) - ordered >= p, 0, ordered)
    return ordered / ordered.sum(-1, keepdim=True)


@WRONG.to("top_p", "each", "alone")
def a_threshold_for_each_token(probabilities, p):
    result = torch.where(probabilities >= p, probabilities, 0)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "order of the vocabulary")
def cumulated_without_sorting(probabilities, p):
    result = torch.where(probabilities.cumsum(-1) - probabilities >= p, 0, probabilities)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "least probable")
def sorted_upwards(probabilities, p):
    ordered, order = probabilities.sort(-1)
    ordered = torch.where(ordered.cumsum(-1) - ordered >= p, 0, ordered)
    result = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "exactly p")
def one_more_when_p_is_reached(probabilities, p):
    result = most_probable(probabilities, p, lambda before, own, p: before <= p)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "softmax")
def renormalised_by_softmax(probabilities, p):
    result = most_probable(probabilities, p)
    return result.masked_fill(result == 0, -math.inf).softmax(-1)


@WRONG.to("top_p", "all", "kept")
def does_nothing(probabilities, p):
    return probabilities.clone()


@WRONG.to("top_p", "by p", "sum")
def divided_by_p(probabilities, p):
    return most_probable(probabilities, p) / p


@WRONG.to("top_p", "most probable token alone")
def greedy(probabilities, p):
    best = probabilities.argmax(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, best, 1.0)


# learning_rate ------------------------------------------------------------------------------------

def rate(n, max_steps, peak, warmup):
    if n <= warmup:
        return peak * n / warmup
    return peak * (1 + math.cos(math.pi * (n - warmup) / (max_steps - warmup))) / 2


def warmup_and_then(rate_after, step, peak, warmup):
    """Return the right rate during the warm-up, and then `rate_after(n)`."""
    n = step + 1
    return peak * n / warmup if n <= warmup else rate_after(n)


@RIGHT.to("learning_rate")
def as_a_tensor(step, max_steps, peak, warmup):
    return torch.tensor(rate(step + 1, max_steps, peak, warmup))


@RIGHT.to("learning_rate")
def with_a_smaller_sign(step, max_steps, peak, warmup):
    n = step + 1
    if n < warmup:
        return peak / warmup * n
    return peak * math.cos(math.pi / 2 * (n - warmup) / max(1, max_steps - warmup)) ** 2


@WRONG.to("learning_rate", "step + 1")
def counted_from_zero(step, max_steps, peak, warmup):
    n = step if warmup else step + 1
    return rate(n, max_steps, peak, warmup)


@WRONG.to("learning_rate", "warm-up", "left out")
def no_warmup(step, max_steps, peak, warmup):
    return rate(step + 1, max_steps, peak, 0)


@WRONG.to("learning_rate", "end of the warm-up", "jump")
def cosine_over_all_steps(step, max_steps, peak, warmup):
    cosine = lambda n: rate(n, max_steps, peak, 0)
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "peak")
def cosine_below_zero(step, max_steps, peak, warmup):
    cosine = lambda n: peak * math.cos(math.pi * (n - warmup) / (max_steps - warmup))
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "half")
def twice_the_peak(step, max_steps, peak, warmup):
    cosine = lambda n: 2 * rate(n, max_steps, peak, warmup)
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "straight line", "cosine")
def linear_decay(step, max_steps, peak, warmup):
    line = lambda n: peak * (max_steps - n) / (max_steps - warmup)
    return warmup_and_then(line, step, peak, warmup)


@WRONG.to("learning_rate", "constant")
def no_decay(step, max_steps, peak, warmup):
    return peak * min(1.0, (step + 1) / max(1, warmup))


@WRONG.to("learning_rate", "warmup = 0")
def divides_by_zero(step, max_steps, peak, warmup):
    n = step + 1
    if n < warmup or warmup == 0:
        return min(peak * n / warmup, peak)
    return rate(n, max_steps, peak, warmup)


@WRONG.to("learning_rate", "π")
def pi_forgotten(step, max_steps, peak, warmup):
    cosine = lambda n: peak * (1 + math.cos((n - warmup) / (max_steps - warmup))) / 2
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "degrees", "radians")
def in_degrees(step, max_steps, peak, warmup):
    cosine = lambda n: peak * (1 + math.cos(180 * (n - warmup) / (max_steps - warmup))) / 2
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "warmup = 0", "max(warmup, 1)")
def one_step_of_warmup_at_least(step, max_steps, peak, warmup):
    return rate(step + 1, max_steps, peak, max(warmup, 1))


@WRONG.to("learning_rate", "0", "last step")
def a_tenth_remains(step, max_steps, peak, warmup):
    cosine = lambda n: 0.1 * peak + 0.9 * rate(n, max_steps, peak, warmup)
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "multiplied by peak")
def share_of_the_peak(step, max_steps, peak, warmup):
    return rate(step + 1, max_steps, 1.0, warmup)


# generate_greedy ----------------------------------------------------------------------------------

@RIGHT.to("generate_greedy")
def into_a_list(model, ids, max_new_tokens, block_size):
    columns = list(ids.unbind(1))
    for _ in range(max_new_tokens):
        columns.append(model(torch.stack(columns[-block_size:], dim=1))[:, -1].argmax(-1))
    return torch.stack(columns, dim=1)


@WRONG.to("generate_greedy", "block_size", "last")
def never_cropped(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "first block_size")
def cropped_at_the_wrong_end(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, :block_size])[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "position", "[:, -1]")
def first_position(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:])[:, 0].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "new tokens alone")
def new_tokens_only(model, ids, max_new_tokens, block_size):
    T = ids.shape[1]
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, T:]


@WRONG.to("generate_greedy", "beginning", "lost")
def window_instead_of_all(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = ids[:, -block_size:]
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "append")
def one_token_repeated(model, ids, max_new_tokens, block_size):
    token = model(ids[:, -block_size:])[:, -1].argmax(-1, keepdim=True)
    return torch.cat([ids] + [token] * max_new_tokens, dim=1)


@WRONG.to("generate_greedy", "one", "few")
def one_too_few(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens - 1):
        ids = torch.cat([ids, model(ids[:, -block_size:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "random")
def sampled(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        probabilities = model(ids[:, -block_size:])[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1)], dim=1)
    return ids


@WRONG.to("generate_greedy", "least")
def smallest_logit(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:])[:, -1].argmin(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "last token alone")
def as_a_bigram(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -1:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "newest token alone", "every call")
def newest_token_alone(model, ids, max_new_tokens, block_size):
    window = ids[:, -block_size:]
    for _ in range(max_new_tokens):
        window = model(window)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, window], dim=1)
    return ids


@WRONG.to("generate_greedy", "block_size − 1")
def window_one_too_short(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        window = ids[:, -(block_size - 1):] if block_size > 1 else ids[:, -1:]
        ids = torch.cat([ids, model(window)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


# More answers -------------------------------------------------------------------------------------

@WRONG.to("shift_targets", "x + 1", "next token")
def one_added(ids, start, block_size):
    x = ids[start:start + block_size]
    return x, x + 1


@WRONG.to("shift_targets", "every token of x needs its target")
def y_too_long(ids, start, block_size):
    return ids[start:start + block_size], ids[start + 1:start + block_size + 2]


@WRONG.to("shift_targets", "two tensors")
def of_lists(ids, start, block_size):
    return ids[start:start + block_size].tolist(), ids[start + 1:start + block_size + 1].tolist()


@WRONG.to("shift_targets", "end at start + block_size")
def end_not_moved(ids, start, block_size):
    return ids[start:block_size], ids[start + 1:block_size + 1]


@WRONG.to("shift_targets", "end at start + block_size")
def end_of_x_not_moved(ids, start, block_size):
    return ids[start:block_size], ids[start + 1:start + block_size + 1]


@WRONG.to("shift_targets", "made up", "follows the window")
def last_target_zero(ids, start, block_size):
    x = ids[start:start + block_size]
    y = torch.zeros_like(x)
    y[:-1] = x[1:]
    return x, y


@WRONG.to("shift_targets", "changes its argument", "ids")
def shifted_in_place(ids, start, block_size):
    x = ids[start:start + block_size].clone()
    ids[start:start + block_size] = ids[start + 1:start + block_size + 1].clone()
    return x, ids[start:start + block_size]


@WRONG.to("shift_targets", "one token too late")
def window_one_later(ids, start, block_size):
    return ids[start + 1:start + block_size + 1], ids[start + 2:start + block_size + 2]


@WRONG.to("top_p", "same number of tokens")
def one_number_for_the_whole_batch(probabilities, p):
    ordered, order = probabilities.sort(-1, descending=True)
    number = (ordered.cumsum(-1) - ordered < p).sum(-1).max()
    stays = torch.arange(ordered.shape[-1]) < number
    result = torch.zeros_like(probabilities).scatter(-1, order, ordered * stays)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "in row 1 of a batch of 5 rows", "it keeps tokens")
def one_more_in_the_second_row(probabilities, p):
    result = most_probable(probabilities, p)
    if len(result) == 5:
        result[1] = probabilities[1]
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "share of the vocabulary")
def top_k(probabilities, p):
    least = probabilities.topk(max(1, int(p * probabilities.shape[-1]))).values[:, -1:]
    result = probabilities * (probabilities >= least)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "applied in the vocabulary's", "scatter")
def mask_left_sorted(probabilities, p):
    ordered = probabilities.sort(-1, descending=True).values
    result = probabilities.masked_fill(ordered.cumsum(-1) - ordered >= p, 0)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "min-p")
def min_p(probabilities, p):
    result = probabilities * (probabilities >= p * probabilities.amax(-1, keepdim=True))
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "wrong tokens", "it keeps tokens")
def one_beyond(probabilities, p):
    result = most_probable(probabilities, p, lambda before, own, p: before - own < p)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "crosses", "sum to 1")
def dropped_and_not_renormalised(probabilities, p):
    return most_probable(probabilities, p, lambda before, own, p: before + own <= p)


@WRONG.to("top_p", "nearly right", "1e-8")
def epsilon_in_the_denominator(probabilities, p):
    result = most_probable(probabilities, p)
    return result / (result.sum(-1, keepdim=True) + 1e-6)


@WRONG.to("top_p", "logits", "−inf")
def dropped_to_minus_infinity(probabilities, p):
    result = most_probable(probabilities, p)
    return result.masked_fill(result == 0, -math.inf)


@WRONG.to("top_p", "for probabilities", "is right")
def the_rest_goes_to_the_first(probabilities, p):
    result = most_probable(probabilities, p)
    best = probabilities.argmax(-1, keepdim=True)
    return result.scatter_add(-1, best, 1 - result.sum(-1, keepdim=True))


@WRONG.to("top_p", "changes its argument", "probabilities")
def zeroed_in_place(probabilities, p):
    probabilities[most_probable(probabilities, p) == 0] = 0
    return probabilities / probabilities.sum(-1, keepdim=True)


@WRONG.to("learning_rate", "smaller of warm-up and cosine")
def minimum(step, max_steps, peak, warmup):
    return min(peak * (step + 1) / max(1, warmup), rate(step + 1, max_steps, peak, 0))


@WRONG.to("learning_rate", "warm-up counts n", "cosine counts step")
def two_ways_to_count(step, max_steps, peak, warmup):
    share = (step - warmup) / (max_steps - warmup)
    cosine = lambda n: peak * (1 + math.cos(math.pi * share)) / 2
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "//")
def whole_division(step, max_steps, peak, warmup):
    n = step + 1
    return peak * (n // warmup) if n <= warmup else rate(n, max_steps, peak, warmup)


@WRONG.to("learning_rate", "0 at step 3")
def square_root(step, max_steps, peak, warmup):
    n = step + 1
    return peak * min(n / max(1, warmup), math.sqrt(max(1, warmup) / n))


@WRONG.to("learning_rate", "for step = 0", "is right")
def begins_at_a_tenth(step, max_steps, peak, warmup):
    n = step + 1
    return peak * (0.1 + 0.9 * n / warmup) if n <= warmup else rate(n, max_steps, peak, warmup)


@WRONG.to("learning_rate", "str", "number")
def as_text(step, max_steps, peak, warmup):
    return f"{rate(step + 1, max_steps, peak, warmup)}"


@WRONG.to("generate_greedy", "every position", "[:, -1]")
def all_positions(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:]).argmax(-1)], dim=1)
    return ids


@WRONG.to("generate_greedy", "argmax", "vocabulary, dim=-1")
def argmax_over_positions(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:]).argmax(1)[:, -1:]], dim=1)
    return ids


@WRONG.to("generate_greedy", "model = ToyModel(2, 4, 8)", "is right")
def stops_at_a_repetition(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        token = model(ids[:, -block_size:])[:, -1].argmax(-1, keepdim=True)
        if (token == ids[:, -1:]).all():
            token = (token + 1) % 2
        ids = torch.cat([ids, token], dim=1)
    return ids


@WRONG.to("generate_greedy", "RuntimeError", "torch.cat")
def dimension_forgotten(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, -block_size:])[:, -1].argmax(-1)], dim=1)
    return ids


@WRONG.to("generate_greedy", "T at least 1")
def empty_window(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        ids = torch.cat([ids, model(ids[:, block_size:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@WRONG.to("generate_greedy", "float32", "int64")
def tokens_of_floats(model, ids, max_new_tokens, block_size):
    for _ in range(max_new_tokens):
        token = model(ids[:, -block_size:].long())[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids.float(), token.float()], dim=1)
    return ids.float()


@WRONG.to("generate_greedy", "stops when there are block_size tokens")
def fills_the_window(model, ids, max_new_tokens, block_size):
    while ids.shape[1] < block_size:
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("shift_targets")
def with_narrow(ids, start, block_size):
    return ids.narrow(0, start, block_size), ids.narrow(0, start + 1, block_size)


@RIGHT.to("shift_targets")
def token_by_token(ids, start, block_size):
    pairs = [(ids[t], ids[t + 1]) for t in range(start, start + block_size)]
    x, y = zip(*pairs, strict=True)
    return torch.stack(x), torch.stack(y)


@RIGHT.to("shift_targets")
def rolled_before_the_cut(ids, start, block_size):
    end = start + block_size
    return ids[start:end], ids.roll(-1)[start:end]


@WRONG.to("shift_targets", "all targets are the same token, the one after")
def one_target_for_all(ids, start, block_size):
    """Let every position predict the token after the window."""
    return ids[start:start + block_size], ids[start + block_size].repeat(block_size)


@WRONG.to("shift_targets", "positions in the text")
def positions(ids, start, block_size):
    """Return where the tokens are, and not the tokens."""
    x = torch.arange(start, start + block_size)
    return x, x + 1


@WRONG.to("shift_targets", "ends at the end of the text")
def no_end(ids, start, block_size):
    """Forget the end of the window."""
    return ids[start:-1], ids[start + 1:]


@WRONG.to("shift_targets", "always the end of the text")
def from_the_end(ids, start, block_size):
    """Take the last tokens of the text."""
    return ids[-block_size - 1:-1], ids[-block_size:]


@WRONG.to("shift_targets", "x is in the reverse order, and y too")
def backwards(ids, start, block_size):
    """Reverse the window."""
    window = ids[start:start + block_size + 1]
    return window[:-1].flip(0), window[1:].flip(0)


@WRONG.to("shift_targets", "axis after time")
def columns(ids, start, block_size):
    """Return columns."""
    window = ids[start:start + block_size + 1, None]
    return window[:-1], window[1:]


@WRONG.to("shift_targets", "next window")
def the_next_window(ids, start, block_size):
    """Take the window after this one as target."""
    end = start + block_size
    return ids[start:end], ids[end:end + block_size]


@RIGHT.to("top_p")
def with_marks_moved_by_one(probabilities, p):
    ordered, order = torch.sort(probabilities, descending=True, dim=-1)
    remove = ordered.cumsum(-1) >= p
    remove[:, 1:] = remove[:, :-1].clone()
    remove[:, 0] = False
    result = probabilities.masked_fill(remove.scatter(1, order, remove), 0)
    return result / result.sum(1, keepdim=True)


@RIGHT.to("top_p")
def by_a_threshold(probabilities, p):
    ordered = probabilities.sort(-1, descending=True).values
    last = (ordered.cumsum(-1) - ordered < p).sum(-1, keepdim=True) - 1
    result = probabilities * (probabilities >= ordered.gather(-1, last))
    return result / result.sum(-1, keepdim=True)


@RIGHT.to("top_p")
def by_recursion(probabilities, p):
    def tokens(row, left):
        best = max(row, key=row.get)
        rest = {token: value for token, value in row.items() if token != best}
        return [best] + (tokens(rest, left - row[best]) if left > row[best] and rest else [])

    result = torch.zeros_like(probabilities)
    for b, row in enumerate(probabilities.tolist()):
        stays = tokens(dict(enumerate(row)), p)
        result[b, stays] = probabilities[b, stays] / probabilities[b, stays].sum()
    return result


@WRONG.to("top_p", "exactly p", "one more token")
def marks_moved_by_one_but_strict(probabilities, p):
    """Remove where the sum is larger than p, as a well-known code does."""
    ordered, order = probabilities.sort(descending=True, dim=-1)
    remove = ordered.cumsum(-1) > p
    remove[:, 1:] = remove[:, :-1].clone()
    remove[:, 0] = False
    result = probabilities.masked_fill(remove.scatter(1, order, remove), 0)
    return result / result.sum(1, keepdim=True)


@WRONG.to("top_p", "moved by `roll`")
def marks_rolled(probabilities, p):
    """Roll the marks, so that the last one comes to the first token."""
    result = most_probable(probabilities, p, lambda before, own, p: (before + own <= p).roll(1, -1))
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "average probability, 1 / V")
def above_average(probabilities, p):
    """Keep what is more probable than 1 / V."""
    result = probabilities * (probabilities > 1 / probabilities.shape[1])
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "axis, the batch")
def summed_over_the_batch(probabilities, p):
    """Add up along axis 0."""
    ordered, order = probabilities.sort(-1, descending=True)
    ordered = ordered * (ordered.cumsum(0) - ordered < p)
    result = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return result / result.sum(-1, keepdim=True)


@WRONG.to("top_p", "sum of the whole batch")
def divided_by_the_whole_sum(probabilities, p):
    """Divide by one sum for all rows."""
    result = most_probable(probabilities, p)
    return result / result.sum()


@WRONG.to("top_p", "same probability")
def equally_probable(probabilities, p):
    """Give all tokens that stay the same probability."""
    stays = (most_probable(probabilities, p) > 0).to(probabilities.dtype)
    return stays / stays.sum(-1, keepdim=True)


@WRONG.to("top_p", "in wrong places")
def gathered_with_the_same_order(probabilities, p):
    """Undo the sorting with the order itself."""
    ordered, order = probabilities.sort(-1, descending=True)
    ordered = ordered * (ordered.cumsum(-1) - ordered < p)
    return (ordered / ordered.sum(-1, keepdim=True)).gather(-1, order)


@WRONG.to("top_p", "sorted like the first row")
def order_of_the_first_row(probabilities, p):
    """Sort all rows like row 0."""
    order = probabilities[0].argsort(descending=True)
    ordered = probabilities[:, order]
    result = torch.zeros_like(probabilities)
    result[:, order] = ordered * (ordered.cumsum(-1) - ordered < p)
    return result / result.sum(-1, keepdim=True)


@RIGHT.to("learning_rate")
def by_interpolation(step, max_steps, peak, warmup):
    angle = math.pi * max(0, step + 1 - warmup) / max(1, max_steps - warmup)
    rise = 1 if warmup == 0 else min(1, (step + 1) / warmup)
    return rise * peak * (math.cos(angle) + 1) / 2


@RIGHT.to("learning_rate")
def from_a_table(step, max_steps, peak, warmup):
    rises = [peak * n / warmup for n in range(1, warmup + 1)]
    angles = torch.linspace(0, math.pi, max_steps - warmup + 1, dtype=torch.float64)[1:]
    return (rises + (peak / 2 * (1 + angles.cos())).tolist())[step]


@WRONG.to("learning_rate", "divided by warmup − 1")
def linspace_from_0(step, max_steps, peak, warmup):
    """Let the warm-up begin at 0."""
    if step < warmup:
        return peak * step / max(1, warmup - 1)
    return rate(step + 1, max_steps, peak, warmup)


@WRONG.to("learning_rate", "peak twice")
def cosine_of_step(step, max_steps, peak, warmup):
    """Count the cosine from 0, and divide by one less."""
    share = (step - warmup) / max(1, max_steps - warmup - 1)
    cosine = lambda n: peak * (1 + math.cos(math.pi * share)) / 2
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "curves are swapped")
def curves_swapped(step, max_steps, peak, warmup):
    """Rise along a cosine, and fall in a straight line."""
    n = step + 1
    if n <= warmup:
        return peak * (1 - math.cos(math.pi * n / warmup)) / 2
    return peak * (max_steps - n) / (max_steps - warmup)


@WRONG.to("learning_rate", "never falls below a tenth")
def a_floor(step, max_steps, peak, warmup):
    """Set a minimum."""
    cosine = lambda n: max(0.1 * peak, rate(n, max_steps, peak, warmup))
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "parabola")
def quadratic_decay(step, max_steps, peak, warmup):
    """Fall along a parabola."""
    decay = lambda n: peak * ((max_steps - n) / (max_steps - warmup)) ** 2
    return warmup_and_then(decay, step, peak, warmup)


@WRONG.to("learning_rate", "spread over max_steps")
def cosine_too_long(step, max_steps, peak, warmup):
    """Divide by max_steps."""
    cosine = lambda n: peak * (1 + math.cos(math.pi * (n - warmup) / max_steps)) / 2
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "upside down")
def cosine_upside_down(step, max_steps, peak, warmup):
    """Write 1 - cos for 1 + cos."""
    cosine = lambda n: peak - rate(n, max_steps, peak, warmup)
    return warmup_and_then(cosine, step, peak, warmup)


@WRONG.to("learning_rate", "warmup + 1")
def warmup_too_long(step, max_steps, peak, warmup):
    """Divide the warm-up by warmup + 1."""
    n = step + 1
    return peak * n / (warmup + 1) if n <= warmup else rate(n, max_steps, peak, warmup)


@RIGHT.to("generate_greedy")
def into_a_buffer(model, ids, max_new_tokens, block_size):
    B, T = ids.shape
    result = torch.cat([ids, ids.new_zeros(B, max_new_tokens)], dim=1)
    for t in range(T, T + max_new_tokens):
        _, result[:, t] = model(result[:, max(0, t - block_size):t])[:, -1].max(-1)
    return result


@RIGHT.to("generate_greedy")
def by_calling_itself(model, ids, max_new_tokens, block_size):
    if not max_new_tokens:
        return ids
    token = model(ids[:, -block_size:])[:, -1].topk(1).indices
    return by_calling_itself(model, torch.hstack([ids, token]), max_new_tokens - 1, block_size)


@RIGHT.to("generate_greedy")
def row_by_row_of_the_batch(model, ids, max_new_tokens, block_size):
    texts = []
    for text in ids.tolist():
        while len(text) < ids.shape[1] + max_new_tokens:
            scores = model(torch.tensor([text[-block_size:]]))[0, -1].tolist()
            text.append(scores.index(max(scores)))
        texts.append(text)
    return torch.tensor(texts)


def written(model, ids, max_new_tokens, block_size, token, window=None):
    for _ in range(max_new_tokens):
        read = window(ids) if window else ids[:, -block_size:]
        ids = torch.cat([ids, token(model(read)).view(-1, 1)], dim=1)
    return ids


@WRONG.to("generate_greedy", "second most probable")
def second_best(model, ids, max_new_tokens, block_size):
    """Take the second of the sorted tokens."""
    second = lambda logits: logits[:, -1].argsort(-1)[:, -2]
    return written(model, ids, max_new_tokens, block_size, second)


@WRONG.to("generate_greedy", "all rows are added up")
def one_token_for_the_sum(model, ids, max_new_tokens, block_size):
    """Add the rows of the batch up."""
    token = lambda logits: logits[:, -1].sum(0).argmax().repeat(len(logits))
    return written(model, ids, max_new_tokens, block_size, token)


@WRONG.to("generate_greedy", "largest absolute value")
def by_absolute_value(model, ids, max_new_tokens, block_size):
    """Take the logit that is farthest from 0."""
    token = lambda logits: logits[:, -1].abs().argmax(-1)
    return written(model, ids, max_new_tokens, block_size, token)


@WRONG.to("generate_greedy", "largest logit of all positions")
def best_of_all_positions(model, ids, max_new_tokens, block_size):
    """Take the maximum over time first."""
    token = lambda logits: logits.max(1).values.argmax(-1)
    return written(model, ids, max_new_tokens, block_size, token)


@WRONG.to("generate_greedy", "starts anew")
def blocks_that_do_not_overlap(model, ids, max_new_tokens, block_size):
    """Begin an empty window whenever block_size tokens are full."""
    window = lambda ids: ids[:, (ids.shape[1] - 1) // block_size * block_size:]
    token = lambda logits: logits[:, -1].argmax(-1)
    return written(model, ids, max_new_tokens, block_size, token, window)


@WRONG.to("generate_greedy", "reverse order")
def read_backwards(model, ids, max_new_tokens, block_size):
    """Let the model read the newest token first."""
    window = lambda ids: ids.flip(1)[:, :block_size]
    token = lambda logits: logits[:, -1].argmax(-1)
    return written(model, ids, max_new_tokens, block_size, token, window)


@WRONG.to("generate_greedy", "prompt is counted")
def length_in_all(model, ids, max_new_tokens, block_size):
    """Stop when the whole text has max_new_tokens tokens."""
    while ids.shape[1] < max_new_tokens:
        ids = written(model, ids, 1, block_size, lambda logits: logits[:, -1].argmax(-1))
    return ids


@WRONG.to("generate_greedy", "last token alone")
def only_the_newest(model, ids, max_new_tokens, block_size):
    """Return the last token."""
    return written(model, ids, max_new_tokens, block_size,
                   lambda logits: logits[:, -1].argmax(-1))[:, -1:]
