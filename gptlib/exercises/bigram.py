"""Chapter 1's exercises: counts become probabilities, probabilities a loss and a next token."""

import math

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import ALIKE, Trial, Wrong, agree, close, compare, finite, keeps_device, randint, randn, same_gradients

# bigram_probabilities -----------------------------------------------------------------------------------------------

def check_bigram_probabilities(bigram_probabilities) -> Result:
    """`bigram_probabilities(counts, smoothing)`: (V, V) counts -> (V, V) probabilities, a row for each present token."""
    return check("bigram_probabilities", bigram_probabilities, _bigram_probabilities,
                 "every row sums to 1, and smoothing is added to each count before dividing")


def _right_probabilities(counts, smoothing):
    rows = [(row + smoothing) / (row + smoothing).sum() for row in counts]
    return torch.stack(rows)


def _bigram_probabilities(reader: Reader):
    counts = lambda V, seed, dtype=torch.float64: randint(9, V, V, seed=seed).to(dtype) + torch.eye(V, dtype=dtype)   # no empty row
    cases = [
        {"counts": torch.tensor([[3.0]]), "smoothing": 0.5},
        {"counts": torch.tensor([[1.0, 3.0], [2.0, 0.0]]), "smoothing": 0.5},
        {"counts": counts(3, 1), "smoothing": 2.0},
        {"counts": counts(7, 2), "smoothing": 0.1},
        {"counts": counts(6, 3, torch.float32), "smoothing": 1.0},
        {"counts": counts(5, 4), "smoothing": 0.0},
    ]
    smoothed = lambda counts, smoothing: counts + smoothing
    mistakes = [
        ("each column sums to 1, not each row: `.sum(0)` adds over the present token, `.sum(1)` over the next one",
         lambda counts, smoothing: smoothed(counts, smoothing) / smoothed(counts, smoothing).sum(0)),
        ("the whole table sums to 1: each row has to, so divide each row by its own sum",
         lambda counts, smoothing: smoothed(counts, smoothing) / smoothed(counts, smoothing).sum()),
        ("each column was divided by a row's sum: without keepdim=True the sums have shape (V,) and are laid along the rows",
         lambda counts, smoothing: smoothed(counts, smoothing) / smoothed(counts, smoothing).sum(1)),
        ("the smoothing was added to the probabilities: add it to the counts, before you divide",
         lambda counts, smoothing: counts / counts.sum(1, keepdim=True) + smoothing),
        ("the smoothing is missing in the denominator: divide by the sum of the smoothed row",
         lambda counts, smoothing: smoothed(counts, smoothing) / counts.sum(1, keepdim=True)),
        ("the smoothing is missing in the numerator: every count gets it, and then the row is divided by its new sum",
         lambda counts, smoothing: counts / smoothed(counts, smoothing).sum(1, keepdim=True)),
        ("the denominator holds the smoothing once, but every one of the row's V counts got it",
         lambda counts, smoothing: smoothed(counts, smoothing) / (counts.sum(1, keepdim=True) + smoothing)),
        ("`smoothing` is ignored: add it to every count first",
         lambda counts, smoothing: counts / counts.sum(1, keepdim=True)),
        ("the smoothing is always 1: add the argument `smoothing`",
         lambda counts, smoothing: _right_probabilities(counts, 1)),
        ("only the zeros were smoothed: every count gets the smoothing",
         lambda counts, smoothing: _right_probabilities(counts.where(counts > 0, torch.full_like(counts, smoothing)), 0)),
        ("softmax exponentiates the counts: divide each row by its sum instead",
         lambda counts, smoothing: smoothed(counts, smoothing).softmax(1)),
        ("softmax exponentiates the counts: divide each row by its sum instead",
         lambda counts, smoothing: counts.softmax(1)),
        ("these are logarithms: give back the probabilities themselves",
         lambda counts, smoothing: _right_probabilities(counts, smoothing).log()),
        ("the squares of each row sum to 1, not the probabilities: F.normalize needs p=1",
         lambda counts, smoothing: smoothed(counts, smoothing) / smoothed(counts, smoothing).norm(dim=1, keepdim=True)),
        ("row and column are swapped: row a of the result belongs to the present token a, as in `counts`",
         lambda counts, smoothing: _right_probabilities(counts, smoothing).T),
        ("these are the smoothed counts: each row has still to be divided by its sum", smoothed),
        ("each row is divided by its largest number: divide by its sum",
         lambda counts, smoothing: smoothed(counts, smoothing) / smoothed(counts, smoothing).amax(1, keepdim=True)),
    ]
    trials = compare(reader, _right_probabilities, cases, mistakes)
    for trial in trials:
        finite(trial, "is a row divided by 0?")
        if (trial.got < 0).any():
            raise Wrong("some probabilities are negative")
        sums = trial.got.sum(1)
        if not close(sums, torch.ones_like(sums)):
            row = (sums - 1).abs().argmax()
            raise Wrong(f"row {row} sums to {sums[row]:.10g}, and every row should sum to 1")
    agree(trials)
    keeps_device(reader, cases)


# cross_entropy ------------------------------------------------------------------------------------------------------

def check_cross_entropy(cross_entropy) -> Result:
    """`cross_entropy(logits, targets)`: (B, T, V) logits, (B, T) tokens -> the mean of −ln p(target), a tensor of shape ()."""
    return check("cross_entropy", cross_entropy, _cross_entropy,
                 "the mean over all positions, in nats, steady for large logits, with the right gradient")


def _right_loss(logits, targets):
    losses = []
    for scores, target in zip(logits.flatten(0, 1), targets.flatten(), strict=True):
        scores = scores - scores.max()
        losses.append(scores.exp().sum().log() - scores[target])
    return torch.stack(losses).mean()


def _cross_entropy(reader: Reader):
    case = lambda B, T, V, seed, dtype=torch.float64: {
        "logits": 2 * randn(B, T, V, seed=seed, dtype=dtype), "targets": randint(V, B, T, seed=seed)}
    cases = [case(1, 1, 2, 1), case(1, 1, 3, 2), case(1, 2, 3, 3), case(2, 1, 5, 4), case(3, 4, 7, 5), case(2, 5, 9, 6, torch.float32)]
    picked = lambda scores, targets: scores.gather(-1, targets[..., None])[..., 0]              # (B, T)
    losses = lambda logits, targets, axis=-1: -picked(logits.log_softmax(axis), targets)
    mistakes = [
        ("it gives the sum over all positions: take the mean, or a longer batch would have a larger loss",
         lambda logits, targets: losses(logits, targets).sum()),
        ("the mean goes over the batch only, and positions are added: divide by B · T",
         lambda logits, targets: losses(logits, targets).sum(1).mean()),
        ("the mean goes over the positions only, and the batch is added: divide by B · T",
         lambda logits, targets: losses(logits, targets).mean(1).sum()),
        ("it gives one loss for each position: take their mean, one number", losses),
        ("it gives one loss for each position: take their mean, one number", lambda logits, targets: losses(logits, targets).flatten()),
        ("it gives one loss for each row of the batch, not for each position together: take the mean over B and T",
         lambda logits, targets: losses(logits, targets).mean(1)),
        ("the mean goes over the vocabulary too: divide by B · T, not by B · T · V",
         lambda logits, targets: losses(logits, targets).mean() / logits.shape[-1]),
        ("this loss is in bits: use the natural logarithm, ln, not log2",
         lambda logits, targets: losses(logits, targets).mean() / math.log(2)),
        ("the base of the logarithm is 10: use the natural logarithm, ln",
         lambda logits, targets: losses(logits, targets).mean() / math.log(10)),
        ("the minus is missing: a logarithm of a probability is negative, and a loss is its opposite",
         lambda logits, targets: -losses(logits, targets).mean()),
        ("the logarithm is missing: the loss is −ln p, not −p", lambda logits, targets: -picked(logits.softmax(-1), targets).mean()),
        ("the logarithm is missing: the loss is −ln p, not 1 − p", lambda logits, targets: 1 - picked(logits.softmax(-1), targets).mean()),
        ("it gives the mean probability of the targets: the loss is the mean of −ln p",
         lambda logits, targets: picked(logits.softmax(-1), targets).mean()),
        ("the mean is taken before the logarithm: it is the mean of −ln p, not −ln of the mean p",
         lambda logits, targets: -picked(logits.softmax(-1), targets).mean().log()),
        ("logits are not log-probabilities yet: normalise them first, by subtracting ln Σ exp(logits)",
         lambda logits, targets: -picked(logits, targets).mean()),
        ("it is ln Σ exp(logits) alone: the target's own logit has still to be subtracted",
         lambda logits, targets: logits.logsumexp(-1).mean()),
        ("the softmax runs over the axis of time: probabilities sum to 1 over the vocabulary, dim=-1",
         lambda logits, targets: losses(logits, targets, 1).mean()),
        ("the softmax runs over the axis of the batch: probabilities sum to 1 over the vocabulary, dim=-1",
         lambda logits, targets: losses(logits, targets, 0).mean()),
        ("the softmax is taken twice: logits go into it once", lambda logits, targets: losses(logits.softmax(-1), targets).mean()),
        ("the targets are shifted once more: targets[b, t] already is the token after position t",
         lambda logits, targets: losses(logits[:, :-1], targets[:, 1:]).mean()),
        ("this is the perplexity, exp(loss): give the loss itself", lambda logits, targets: losses(logits, targets).mean().exp()),
        ("it is the entropy of the model's own probabilities: only the target's probability counts",
         lambda logits, targets: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()),
        ("it averages −ln p over every token of the vocabulary: only the target's counts",
         lambda logits, targets: -logits.log_softmax(-1).mean()),
        ("it looks at the likeliest token: the loss is about the target, likely or not",
         lambda logits, targets: -logits.log_softmax(-1).amax(-1).mean()),
        ("only the last position counts: take the mean over all", lambda logits, targets: losses(logits, targets)[:, -1].mean()),
        ("only the first position counts: take the mean over all", lambda logits, targets: losses(logits, targets)[:, 0].mean()),
        ("only the first row of the batch counts: take the mean over all", lambda logits, targets: losses(logits, targets)[0].mean()),
    ]
    trials = compare(reader, _right_loss, cases, mistakes)
    for trial in trials:
        finite(trial, "is 0 divided by 0, or the logarithm of 0 taken?")
    agree(trials, ALIKE)
    _large_logits(reader)
    agree(trials)
    keeps_device(reader, cases)
    same_gradients(reader, _right_loss, cases[4], ("logits",), "is part of it computed from .detach() or .data?")


def _large_logits(reader):
    targets = torch.tensor([[0, 1]])
    pair = torch.tensor([1.0, 2.0])

    def trial(logits):
        given = {"logits": logits, "targets": targets}
        return Trial(given, reader(**given), _right_loss(**given))
    for dtype in (torch.float32, torch.float64):
        finite(trial(torch.stack([1000 + pair, 1000 - pair])[None].to(dtype)),
               "exp overflows for large logits; subtract each position's largest logit first, or use logsumexp")
        finite(trial(torch.stack([1000 + pair, -1000 - pair])[None].to(dtype)),
               "large logits beside small ones; subtract each position's own largest logit, not one maximum for all")
        apart = trial(torch.tensor([[[0.0, 900.0], [900.0, 0.0]]], dtype=dtype))
        finite(apart, "with large logits an unlikely target's probability rounds to 0, and log(0) is −inf; "
                      "compute log-probabilities directly (log_softmax, or logits less logsumexp), not log(softmax)")
        if not close(apart.got, apart.expected):
            raise Wrong(f"a target 900 below the largest logit should cost 900 nats, and gets {apart.got.item():.4g}: "
                        "log(p + a little) or a clamp hides how wrong the model is; use log_softmax, or logits less logsumexp")


# sample_next --------------------------------------------------------------------------------------------------------

def check_sample_next(sample_next) -> Result:
    """`sample_next(probabilities, u)`: (B, V), (B,) draws in 0 … 1 -> (B,) tokens, each the first whose cumulative
    probability exceeds its u."""
    return check("sample_next", sample_next, _sample_next, "each token comes as often as its probability says, and u alone decides")


def _right_token(probabilities, u):
    tokens = []
    for row, draw in zip(probabilities.tolist(), u.tolist(), strict=True):
        reached = [sum(row[:v + 1]) for v in range(len(row))]
        tokens.append(next((v for v, total in enumerate(reached) if total > draw), len(row) - 1))
    return torch.tensor(tokens, device=u.device)


def _sample_next(reader: Reader):
    eighths = torch.tensor([[2, 4, 2, 0], [0, 1, 0, 7], [3, 3, 1, 1], [8, 0, 0, 0], [0, 0, 8, 0], [1, 0, 5, 2]]) / 8
    draws = torch.tensor([0.75, 0.125, 0.375, 0.9, 0.0, 0.125])
    random = lambda B, V, seed, dtype: {"probabilities": (2 * randn(B, V, seed=seed)).softmax(-1).to(dtype),
                                        "u": torch.rand(B, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.999}
    cases = [{"probabilities": torch.tensor([[1.0]]), "u": torch.tensor([0.5])}]
    cases += [{"probabilities": eighths[:1], "u": torch.tensor([u])} for u in (0.0, 0.2, 0.25, 0.3, 0.6, 0.75, 0.9)]
    cases += [{"probabilities": eighths.to(dtype), "u": draws.to(dtype)} for dtype in (torch.float32, torch.float64)]
    cases += [{"probabilities": torch.tensor([[21845, 21846, 21845]]) / 2 ** 16, "u": torch.tensor([21842.5 / 2 ** 16])}]    # a near miss
    cases += [random(1, 9, 1, torch.float64), random(40, 5, 2, torch.float64), random(33, 11, 3, torch.float32)]
    below = lambda probabilities, u: (probabilities.cumsum(-1) <= u[:, None]).sum(-1)
    first = lambda condition: condition.int().argmax(-1)
    one_hot = lambda probabilities, u: torch.nn.functional.one_hot(below(probabilities, u), probabilities.shape[-1])
    too_early = "it stops one token too early: the token wanted is the first whose cumulative probability exceeds u"
    too_late = "it goes one token too late: the token wanted is the first whose cumulative probability exceeds u"
    mistakes = [
        ("it always takes the likeliest token: u decides, so that each token comes as often as its probability says",
         lambda probabilities, u: probabilities.argmax(-1)),
        ("each probability is compared with u by itself: add them up first, the cumulative sum is what has to exceed u",
         lambda probabilities, u: first(probabilities > u[:, None])),
        ("it stops where the sum is equal to u, and can land on a token of probability 0: the sum has to exceed u (>, not >=; "
         "searchsorted needs right=True)", lambda probabilities, u: first(probabilities.cumsum(-1) >= u[:, None])),
        ("u is turned round: the sum has to exceed u, not 1 − u", lambda probabilities, u: below(probabilities, 1 - u)),
        (too_early, lambda probabilities, u: (below(probabilities, u) - 1).clamp(min=0)),
        (too_early, lambda probabilities, u: below(probabilities, u) - 1),
        (too_late, lambda probabilities, u: (below(probabilities, u) + 1).clamp(max=probabilities.shape[-1] - 1)),
        (too_late, lambda probabilities, u: below(probabilities, u) + 1),
        ("after a sort the index is a rank, not a token: leave the probabilities in their order",
         lambda probabilities, u: below(probabilities.sort(-1, descending=True).values, u)),
        ("after a sort the index is a rank, not a token: leave the probabilities in their order",
         lambda probabilities, u: below(probabilities.sort(-1).values, u)),
        ("the cumulative sum runs along the wrong axis, over the batch: it goes over the vocabulary, dim=-1",
         lambda probabilities, u: (probabilities.cumsum(0) <= u[:, None]).sum(-1)),
        ("the cumulative sum runs along the wrong axis, over the batch: it goes over the vocabulary, dim=-1",
         lambda probabilities, u: (probabilities.cumsum(0) <= u[:, None]).sum(-1).clamp(max=probabilities.shape[-1] - 1)),
        ("the cumulative sum runs along the wrong axis, over the batch: it goes over the vocabulary, dim=-1",
         lambda probabilities, u: first(probabilities.cumsum(0) > u[:, None])),
        ("it tells the probability of the token, and it should tell which token: an index",
         lambda probabilities, u: probabilities.gather(-1, below(probabilities, u)[:, None])[:, 0]),
        ("it tells the sum reached, and it should tell which token: an index",
         lambda probabilities, u: probabilities.cumsum(-1).gather(-1, below(probabilities, u)[:, None])[:, 0]),
        ("it marks the token with a 1 among zeros: give its index", one_hot),
        ("it marks every token that qualifies: give the index of the first",
         lambda probabilities, u: probabilities.cumsum(-1) > u[:, None]),
        ("every row is decided by the first draw, u[0]: row b has its own draw u[b]",
         lambda probabilities, u: below(probabilities, u[0].expand(len(u)))),
        ("every draw looks at the first row: draw u[b] belongs to probabilities[b]",
         lambda probabilities, u: below(probabilities[:1].expand_as(probabilities), u)),
        ("it walks from the end of the vocabulary: start at token 0",
         lambda probabilities, u: probabilities.shape[-1] - 1 - below(probabilities.flip(-1), u)),
        ("it ends at the end of the vocabulary every time, the last token whose sum exceeds u: take the first",
         lambda probabilities, u: (probabilities.cumsum(-1) > u[:, None]).int().cumsum(-1).argmax(-1)),
        ("u is scaled to an index as if all tokens were equally likely: compare it with the cumulative probabilities",
         lambda probabilities, u: (u * probabilities.shape[-1]).long()),
    ]
    trials = compare(reader, _right_token, cases, mistakes)
    for trial in trials:
        if (trial.got < 0).any() or (trial.got >= trial.given["probabilities"].shape[-1]).any():
            raise Wrong(f"token {trial.got.min() if (trial.got < 0).any() else trial.got.max()} is outside the vocabulary, "
                        f"0 … {trial.given['probabilities'].shape[-1] - 1}")
        if (trial.given["probabilities"].gather(-1, trial.got[:, None]) == 0).any():
            raise Wrong("a token of probability 0 was drawn: its cumulative probability has to exceed u, not to reach it")
    agree(trials)
    keeps_device(reader, cases)
