"""Chapter 1's exercises: counts become probabilities, and probabilities a loss and a next token."""

import math

import torch
from torch.nn import functional as F

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    ALIKE,
    Trial,
    Wrong,
    agree,
    close,
    compare,
    finite,
    keeps_device,
    randint,
    randn,
    same_gradients,
)

# previous_probabilities ---------------------------------------------------------------------------


def check_previous_probabilities(previous_probabilities) -> Result:
    """Check `previous_probabilities(counts, smoothing)`.

    It turns counts (V, V), one row for each present token, into probabilities (V, V): row b holds
    the probabilities of the token before b.
    """
    return check(
        "previous_probabilities",
        previous_probabilities,
        _probability_properties,
        "row b is about the token before b, every row sums to 1, and smoothing is added to each "
        "count before the division",
    )


def _right_probabilities(counts, smoothing):
    rows = [(column + smoothing) / (column + smoothing).sum() for column in counts.T]
    return torch.stack(rows)


def _probability_cases():
    def random_counts(V, seed, dtype=torch.float64):
        # Ones on the diagonal, so that no row is empty.
        return randint(9, V, V, seed=seed).to(dtype) + torch.eye(V, dtype=dtype)

    return [
        {"counts": torch.tensor([[3.0]]), "smoothing": 0.5},
        {"counts": torch.tensor([[1.0, 3.0], [2.0, 0.0]]), "smoothing": 0.5},
        {"counts": random_counts(3, 1), "smoothing": 2.0},
        {"counts": random_counts(7, 2), "smoothing": 0.1},
        {"counts": random_counts(6, 3, torch.float32), "smoothing": 1.0},
        {"counts": random_counts(5, 4), "smoothing": 0.0},
    ]


def _transposed(finish):
    """Return a function that transposes the counts rightly, and then does what `finish` does."""
    return lambda counts, smoothing: finish(counts.T, smoothing)


def _of_smoothed(finish):
    """Return a function that transposes and smooths rightly, and then does what `finish` does."""
    return lambda counts, smoothing: finish(counts.T + smoothing)


PROBABILITY_MISTAKES = [
    ("each row is about the token after, as in the chapter. Row b should be about the token before "
     "b, whose counts are column b of `counts`",
     lambda counts, smoothing: _right_probabilities(counts.T, smoothing)),
    ("each column sums to 1, but each row should. Column b of the result is about the token before "
     "b. Transpose it with `.T`",
     lambda counts, smoothing: _right_probabilities(counts, smoothing).T),
    ("rows and columns are swapped: column a is about the token after a. Row b should be about the "
     "token before b",
     lambda counts, smoothing: _right_probabilities(counts.T, smoothing).T),
    ("the whole table sums to 1, but each row should. Divide each row by its own sum",
     _of_smoothed(lambda table: table / table.sum())),
    ("each column is divided by the sum of a row. Use `keepdim=True`: without it the sums have "
     "shape (V,), and broadcasting divides column j by the sum of row j",
     _of_smoothed(lambda table: table / table.sum(1))),
    ("the smoothing is added to the probabilities. Add it to the counts, before you divide",
     _transposed(lambda table, smoothing: table / table.sum(1, keepdim=True) + smoothing)),
    ("the smoothing is missing in the denominator. Divide by the sum of the smoothed counts",
     _transposed(lambda table, smoothing: (table + smoothing) / table.sum(1, keepdim=True))),
    ("the smoothing is missing in the numerator. Add it to every count, and then divide by the new "
     "sums",
     _transposed(lambda table, smoothing: table / (table + smoothing).sum(1, keepdim=True))),
    ("the denominator contains the smoothing once, but it is added to every one of the V counts. "
     "Divide by the sum of the smoothed counts",
     _transposed(lambda table, smoothing:
                 (table + smoothing) / (table.sum(1, keepdim=True) + smoothing))),
    ("the argument `smoothing` is ignored. Add it to every count first",
     lambda counts, smoothing: _right_probabilities(counts, 0)),
    ("the smoothing is always 1. Add the argument `smoothing`",
     lambda counts, smoothing: _right_probabilities(counts, 1)),
    ("only the zeros are smoothed. Add the smoothing to every count",
     lambda counts, smoothing: _right_probabilities(
         counts.where(counts > 0, torch.full_like(counts, smoothing)), 0)),
    ("softmax takes the exponential of each count. Divide by the sums instead",
     _of_smoothed(lambda table: table.softmax(1))),
    ("the result contains logarithms. Return the probabilities themselves",
     lambda counts, smoothing: _right_probabilities(counts, smoothing).log()),
    ("the squares of each row sum to 1, but the probabilities should. `F.normalize` needs `p=1`",
     _of_smoothed(lambda table: table / table.norm(dim=1, keepdim=True))),
    ("the result contains the smoothed counts. Divide them by their sums",
     _of_smoothed(lambda table: table)),
    ("each row is divided by its largest number. Divide it by its sum",
     _of_smoothed(lambda table: table / table.amax(1, keepdim=True))),
    ("each row is divided by its mean. Divide it by its sum",
     _of_smoothed(lambda table: table / table.mean(1, keepdim=True))),
    ("the numbers of each column of `counts` are divided by the sums of its rows. Transpose "
     "before you add up, or add up with `.sum(0)`",
     lambda counts, smoothing: (counts.T + smoothing) / (counts + smoothing).sum(1, keepdim=True)),
    ("the smoothing is added to the probabilities, and the rows are divided by their sums again. "
     "Add it to the counts, before you divide",
     lambda counts, smoothing: _right_probabilities(
         _right_probabilities(counts, 0).T, smoothing)),
    ("the denominator contains the smoothing V² times, once for each cell of the table. A row has "
     "V counts, so divide by the sum of the smoothed row",
     _transposed(lambda table, smoothing: (table + smoothing) / (
         table.sum(1, keepdim=True) + smoothing * table.numel()))),
    ("counts below the smoothing are raised to it, and the others stay. Add the smoothing to every "
     "count",
     lambda counts, smoothing: _right_probabilities(counts.clamp(min=smoothing), 0)),
    ("the smoothing is shared out among the V counts of a row. Add all of it to every count",
     lambda counts, smoothing: _right_probabilities(counts, smoothing / len(counts))),
    ("the counts are multiplied by the smoothing, and that changes no share. Add the smoothing",
     lambda counts, smoothing: _right_probabilities(counts * smoothing, 0)),
    ("Bayes' rule is missing: the rows of the chapter's table are transposed, and then divided by "
     "their new sums. Divide counts, because frequent tokens should weigh more",
     lambda counts, smoothing: _right_probabilities(
         _right_probabilities(counts.T, smoothing), 0)),
]


def _probability_properties(reader: Reader):
    cases = _probability_cases()
    trials = compare(reader, _right_probabilities, cases, PROBABILITY_MISTAKES)
    for trial in trials:
        finite(trial, "is a row divided by 0?")
        if (trial.got < 0).any():
            raise Wrong("some probabilities are negative")
        sums = trial.got.sum(1)
        if not close(sums, torch.ones_like(sums)):
            row = (sums - 1).abs().argmax()
            raise Wrong(f"row {row} sums to {sums[row]:.10g}, but every row should sum to 1")
    agree(trials)
    keeps_device(reader, cases)


# cross_entropy ------------------------------------------------------------------------------------


def check_cross_entropy(cross_entropy) -> Result:
    """Check `cross_entropy(logits, targets)`.

    It turns logits (B, T, V) and target tokens (B, T) into the mean of −ln p(target), a tensor of
    shape ().
    """
    return check(
        "cross_entropy",
        cross_entropy,
        _loss_properties,
        "the loss is the mean over all positions, in nats, also for large logits, and its gradient "
        "is right",
    )


def _right_loss(logits, targets):
    losses = []
    for scores, target in zip(logits.flatten(0, 1), targets.flatten(), strict=True):
        scores = scores - scores.max()
        losses.append(scores.exp().sum().log() - scores[target])
    return torch.stack(losses).mean()


def _loss_cases():
    def case(B, T, V, seed, dtype=torch.float64):
        logits = 2 * randn(B, T, V, seed=seed, dtype=dtype)
        return {"logits": logits, "targets": randint(V, B, T, seed=seed)}

    return [
        case(1, 1, 2, 1),
        case(1, 1, 3, 2),
        case(1, 2, 3, 3),
        case(2, 1, 5, 4),
        case(3, 4, 7, 5),
        case(2, 5, 9, 6, torch.float32),
    ]


def _of_target(scores, targets):
    """Return each position's score of its target: (B, T, V) becomes (B, T)."""
    return scores.gather(-1, targets[..., None])[..., 0]


def _losses(logits, targets, axis=-1):
    """Return the loss of each position, (B, T). The softmax runs over `axis`."""
    return -_of_target(logits.log_softmax(axis), targets)


def _from_losses(finish):
    """Return a function that computes each position's loss rightly, and then does `finish`."""
    return lambda logits, targets: finish(_losses(logits, targets))


def _from_probabilities(finish):
    """Return a function of the targets' probabilities, (B, T)."""
    return lambda logits, targets: finish(_of_target(logits.softmax(-1), targets))


SHIFTED_AGAIN = (
    "the targets are shifted once more. targets[b, t] already is the token after position t"
)

LOSS_MISTAKES = [
    ("the result is the sum over all positions. Take the mean: with a sum, a longer batch has a "
     "larger loss",
     _from_losses(lambda losses: losses.sum())),
    ("the mean is taken over the batch only, and the positions are added up. Divide by B · T",
     _from_losses(lambda losses: losses.sum(1).mean())),
    ("the mean is taken over the positions only, and the batch is added up. Divide by B · T",
     _from_losses(lambda losses: losses.mean(1).sum())),
    ("the result is one loss for each position. Take their mean, which is one number",
     _losses),
    ("the result is one loss for each position. Take their mean, which is one number",
     _from_losses(lambda losses: losses.flatten())),
    ("the result is one loss for each row of the batch. Take the mean over B and T",
     _from_losses(lambda losses: losses.mean(1))),
    ("the mean is taken over the vocabulary too. Divide by B · T, not by B · T · V",
     lambda logits, targets: _losses(logits, targets).mean() / logits.shape[-1]),
    ("the loss is in bits. Use the natural logarithm ln, not log2",
     _from_losses(lambda losses: losses.mean() / math.log(2))),
    ("the base of the logarithm is 10. Use the natural logarithm ln",
     _from_losses(lambda losses: losses.mean() / math.log(10))),
    ("the minus sign is missing. ln p is negative, and the loss is −ln p",
     _from_losses(lambda losses: -losses.mean())),
    ("the logarithm is missing. The loss is −ln p, not −p",
     _from_probabilities(lambda p: -p.mean())),
    ("the logarithm is missing. The loss is −ln p, not 1 − p",
     _from_probabilities(lambda p: 1 - p.mean())),
    ("the result is the mean probability of the targets. The loss is the mean of −ln p",
     _from_probabilities(lambda p: p.mean())),
    ("the mean is taken before the logarithm. The loss is the mean of −ln p, not −ln of the mean p",
     _from_probabilities(lambda p: -p.mean().log())),
    ("logits are not yet log-probabilities. Normalise them first: subtract ln Σ exp(logits)",
     lambda logits, targets: -_of_target(logits, targets).mean()),
    ("the result is ln Σ exp(logits) alone. Subtract the logit of the target from it",
     lambda logits, targets: logits.logsumexp(-1).mean()),
    ("the softmax runs over the axis of time. Probabilities sum to 1 over the vocabulary, `dim=-1`",
     lambda logits, targets: _losses(logits, targets, 1).mean()),
    ("the softmax runs over the axis of the batch. Probabilities sum to 1 over the vocabulary, "
     "`dim=-1`",
     lambda logits, targets: _losses(logits, targets, 0).mean()),
    ("the softmax is taken twice. Apply it to the logits once",
     lambda logits, targets: _losses(logits.softmax(-1), targets).mean()),
    (SHIFTED_AGAIN, lambda logits, targets: _losses(logits[:, :-1], targets[:, 1:]).mean()),
    (SHIFTED_AGAIN,
     lambda logits, targets: _losses(logits[:, :-1], targets[:, 1:]).mean()
     if targets.shape[1] > 1 else _losses(logits, targets).mean()),
    ("the result is the perplexity, exp(loss). Return the loss itself",
     _from_losses(lambda losses: losses.mean().exp())),
    ("the result is the entropy of the model's probabilities. Only the probability of the target "
     "counts",
     lambda logits, targets: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()),
    ("the result is the mean of −ln p over all tokens of the vocabulary. Only the target counts",
     lambda logits, targets: -logits.log_softmax(-1).mean()),
    ("the result is the loss of the most probable token. Take the loss of the target, whether it "
     "is probable or not",
     lambda logits, targets: -logits.log_softmax(-1).amax(-1).mean()),
    ("the result is the largest loss of all positions. Take the mean",
     _from_losses(lambda losses: losses.max())),
    ("the result is the median of the losses. Take the mean",
     _from_losses(lambda losses: losses.median())),
    ("the result is the mean squared error of the probabilities. The loss is the mean of −ln p of "
     "the targets",
     lambda logits, targets: (
         logits.softmax(-1) - F.one_hot(targets, logits.shape[-1])).square().mean()),
    ("the result is a binary cross-entropy, which adds −ln(1 − p) of all other tokens. Only the "
     "probability of the target counts",
     lambda logits, targets: F.binary_cross_entropy(
         logits.softmax(-1), F.one_hot(targets, logits.shape[-1]).to(logits))),
    ("each logit is treated as yes or no, by a sigmoid. The tokens exclude one another, so use a "
     "softmax over the vocabulary",
     lambda logits, targets: -F.logsigmoid(_of_target(logits, targets)).mean()),
    ("positions whose target is token 0 are left out. Token 0 is a token like any other",
     lambda logits, targets: F.cross_entropy(
         logits.flatten(0, 1), targets.flatten(), ignore_index=0)),
    ("the loss is ln V too small. The denominator of the softmax is the sum of all exp(logits), "
     "not their mean",
     lambda logits, targets: _losses(logits, targets).mean() - math.log(logits.shape[-1])),
    ("the loss of each position is squared. Take the mean of the losses themselves",
     _from_losses(lambda losses: losses.square().mean())),
    ("only the last position counts. Take the mean over all positions",
     _from_losses(lambda losses: losses[:, -1].mean())),
    ("only the first position counts. Take the mean over all positions",
     _from_losses(lambda losses: losses[:, 0].mean())),
    ("only the first row of the batch counts. Take the mean over all rows",
     _from_losses(lambda losses: losses[0].mean())),
]


def _loss_properties(reader: Reader):
    cases = _loss_cases()
    trials = compare(reader, _right_loss, cases, LOSS_MISTAKES)
    for trial in trials:
        finite(trial, "is 0 divided by 0, or the logarithm of 0 taken?")
    agree(trials, ALIKE)
    for dtype in (torch.float32, torch.float64):
        _handles_large_logits(reader, dtype)
    agree(trials)
    keeps_device(reader, cases)
    hint = "is a part of it computed from .detach() or .data?"
    same_gradients(reader, _right_loss, cases[4], ("logits",), hint)


def _handles_large_logits(reader, dtype):
    def trial(first, second):
        given = {"logits": torch.stack([first, second])[None].to(dtype), "targets": targets}
        return Trial(given, reader(**given), _right_loss(**given))

    targets = torch.tensor([[0, 1]])
    pair = torch.tensor([1.0, 2.0])
    finite(
        trial(1000 + pair, 1000 - pair),
        "exp overflows for large logits. Subtract each position's largest logit first, or use "
        "logsumexp",
    )
    finite(
        trial(1000 + pair, -1000 - pair),
        "one position has large logits and another has small ones. Subtract each position's own "
        "largest logit, not one maximum for all",
    )
    improbable = trial(torch.tensor([0.0, 900.0]), torch.tensor([900.0, 0.0]))
    finite(
        improbable,
        "with large logits the probability of an improbable target rounds to 0, and log(0) is "
        "−inf. Compute log-probabilities directly (log_softmax, or logits minus logsumexp), not "
        "log(softmax)",
    )
    if not improbable.passed:
        raise Wrong(
            "if the logit of the target is 900 below the largest logit, the loss should be 900 "
            f"nats, but it is {improbable.got.item():.4g}. log(p + 1e-9) or a clamp hides how "
            "wrong the model is. Use log_softmax, or logits minus logsumexp"
        )


# sample_next --------------------------------------------------------------------------------------


def check_sample_next(sample_next) -> Result:
    """Check `sample_next(probabilities, u)`.

    It turns probabilities (B, V) and random numbers u (B,) between 0 and 1 into tokens (B,). Each
    is the first token whose cumulative probability exceeds its u.
    """
    return check(
        "sample_next",
        sample_next,
        _sample_properties,
        "each token is drawn as often as its probability says, and u alone decides",
    )


def _right_token(probabilities, u):
    tokens = []
    for row, draw in zip(probabilities.tolist(), u.tolist(), strict=True):
        cumulative = [sum(row[: v + 1]) for v in range(len(row))]
        exceeding = [v for v, total in enumerate(cumulative) if total > draw]
        tokens.append(exceeding[0] if exceeding else len(row) - 1)
    return torch.tensor(tokens, device=u.device)


def _sample_cases():
    def random(B, V, seed, dtype):
        u = torch.rand(B, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.999
        return {"probabilities": (2 * randn(B, V, seed=seed)).softmax(-1).to(dtype), "u": u}

    # Multiples of 1/8 have no rounding errors, so cumulative probabilities can be equal to u.
    eighths = torch.tensor(
        [[2, 4, 2, 0], [0, 1, 0, 7], [3, 3, 1, 1], [8, 0, 0, 0], [0, 0, 8, 0], [1, 0, 5, 2]]
    ) / 8
    draws = torch.tensor([0.75, 0.125, 0.375, 0.9, 0.0, 0.125])
    cases = [{"probabilities": torch.tensor([[1.0]]), "u": torch.tensor([0.5])}]
    for u in (0.0, 0.2, 0.25, 0.3, 0.6, 0.75, 0.9):
        cases.append({"probabilities": eighths[:1], "u": torch.tensor([u])})
    for dtype in (torch.float32, torch.float64):
        cases.append({"probabilities": eighths.to(dtype), "u": draws.to(dtype)})
    # The first cumulative probability exceeds u by very little.
    thirds = torch.tensor([[21845, 21846, 21845]]) / 2**16
    cases.append({"probabilities": thirds, "u": torch.tensor([21842.5 / 2**16])})
    cases.append(random(1, 9, 1, torch.float64))
    cases.append(random(40, 5, 2, torch.float64))
    cases.append(random(33, 11, 3, torch.float32))
    return cases


def _n_below(probabilities, u):
    """Return how many cumulative probabilities do not exceed u, which is the right token."""
    return (probabilities.cumsum(-1) <= u[:, None]).sum(-1)


def _first_true(condition):
    return condition.int().argmax(-1)


def _in_order_of_size(descending):
    """Return a function that draws a rank, and then returns the token with this rank."""

    def token(probabilities, u):
        ordered, order = probabilities.sort(dim=-1, descending=descending, stable=True)
        return order.gather(-1, _n_below(ordered, u)[:, None])[:, 0]

    return token


def _last_token(probabilities):
    return probabilities.shape[-1] - 1


EXCEEDS = "The right token is the first whose cumulative probability exceeds u"
ONE_TOO_EARLY = f"the function stops one token too early. {EXCEEDS}"
ONE_TOO_LATE = f"the function stops one token too late. {EXCEEDS}"
RANK = (
    "after sorting, the index is a rank, not a token. Leave the probabilities in the order of the "
    "vocabulary"
)
WRONG_AXIS = (
    "the cumulative sum runs along the wrong axis, the batch. It should run along the vocabulary, "
    "`dim=-1`"
)

SAMPLE_MISTAKES = [
    ("the function always takes the most probable token. u should decide, so that each token is "
     "drawn as often as its probability says",
     lambda probabilities, u: probabilities.argmax(-1)),
    ("each probability by itself is compared with u. Add the probabilities up first: the "
     "cumulative sum has to exceed u",
     lambda probabilities, u: _first_true(probabilities > u[:, None])),
    ("the function stops where the sum is equal to u, so it can draw a token of probability 0. The "
     "sum has to exceed u: use > instead of >=, and `right=True` in searchsorted",
     lambda probabilities, u: _first_true(probabilities.cumsum(-1) >= u[:, None])),
    ("the sum is compared with 1 − u. It has to exceed u",
     lambda probabilities, u: _n_below(probabilities, 1 - u)),
    (ONE_TOO_EARLY, lambda probabilities, u: (_n_below(probabilities, u) - 1).clamp(min=0)),
    (ONE_TOO_EARLY, lambda probabilities, u: _n_below(probabilities, u) - 1),
    (ONE_TOO_LATE,
     lambda probabilities, u: (_n_below(probabilities, u) + 1).clamp(
         max=_last_token(probabilities))),
    (ONE_TOO_LATE, lambda probabilities, u: _n_below(probabilities, u) + 1),
    (RANK, lambda probabilities, u: _n_below(probabilities.sort(-1, descending=True).values, u)),
    (RANK, lambda probabilities, u: _n_below(probabilities.sort(-1).values, u)),
    (WRONG_AXIS, lambda probabilities, u: (probabilities.cumsum(0) <= u[:, None]).sum(-1)),
    (WRONG_AXIS,
     lambda probabilities, u: (probabilities.cumsum(0) <= u[:, None]).sum(-1).clamp(
         max=_last_token(probabilities))),
    (WRONG_AXIS, lambda probabilities, u: _first_true(probabilities.cumsum(0) > u[:, None])),
    ("the result is the probability of the token. Return which token it is, an index",
     lambda probabilities, u: probabilities.gather(-1, _n_below(probabilities, u)[:, None])[:, 0]),
    ("the result is the cumulative probability of the token. Return which token it is, an index",
     lambda probabilities, u: probabilities.cumsum(-1).gather(
         -1, _n_below(probabilities, u)[:, None])[:, 0]),
    ("the result is one-hot: it marks the token with a 1 among zeros. Return the token's index",
     lambda probabilities, u: F.one_hot(_n_below(probabilities, u), probabilities.shape[-1])),
    ("the result marks every token whose cumulative probability exceeds u. Return the index of the "
     "first",
     lambda probabilities, u: probabilities.cumsum(-1) > u[:, None]),
    ("u[0] decides in every row. Row b has its own random number u[b]",
     lambda probabilities, u: _n_below(probabilities, u[0].expand(len(u)))),
    ("the first row of probabilities is used for every draw. u[b] belongs to probabilities[b]",
     lambda probabilities, u: _n_below(probabilities[:1].expand_as(probabilities), u)),
    ("the sum begins at the end of the vocabulary. Begin at token 0",
     lambda probabilities, u: _last_token(probabilities) - _n_below(probabilities.flip(-1), u)),
    ("the result is the last token whose sum exceeds u, which is always the end of the vocabulary. "
     "Take the first",
     lambda probabilities, u: (probabilities.cumsum(-1) > u[:, None]).int().cumsum(-1).argmax(-1)),
    ("the probabilities are added up in the order of their size, the largest first. Add them up in "
     "the order of the vocabulary",
     _in_order_of_size(descending=True)),
    ("the probabilities are added up in the order of their size, the smallest first. Add them up "
     "in the order of the vocabulary",
     _in_order_of_size(descending=False)),
    ("the probabilities are multiplied, not added up. Use cumsum",
     lambda probabilities, u: _first_true(probabilities.cumprod(-1) > u[:, None])),
    ("the function takes the token whose own probability is nearest to u. Compare u with the "
     "cumulative probabilities",
     lambda probabilities, u: (probabilities - u[:, None]).abs().argmin(-1)),
    ("a softmax of probabilities makes them more equal. Add them up as they are",
     lambda probabilities, u: _n_below(probabilities.softmax(-1), u)),
    ("the last row of probabilities is used for every draw. u[b] belongs to probabilities[b]",
     lambda probabilities, u: _n_below(probabilities[-1:].expand_as(probabilities), u)),
    ("u is scaled to an index, as if all tokens were equally probable. Compare u with the "
     "cumulative probabilities",
     lambda probabilities, u: (u * probabilities.shape[-1]).long()),
]


def _sample_properties(reader: Reader):
    cases = _sample_cases()
    trials = compare(reader, _right_token, cases, SAMPLE_MISTAKES)
    for trial in trials:
        probabilities = trial.given["probabilities"]
        last = _last_token(probabilities)
        outside = trial.got[(trial.got < 0) | (trial.got > last)]
        if outside.numel():
            raise Wrong(f"token {outside[0]} is outside the vocabulary, which is 0 … {last}")
        if (probabilities.gather(-1, trial.got[:, None]) == 0).any():
            raise Wrong(
                "a token of probability 0 was drawn. The cumulative probability of the token has "
                "to exceed u, and here it is only equal to u"
            )
    agree(trials)
    keeps_device(reader, cases)
