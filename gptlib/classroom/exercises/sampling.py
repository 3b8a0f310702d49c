"""Chapter 8's exercises: min-p, one token of speculative decoding, grouped-query attention."""

import math

import torch
from torch.nn import functional as F

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import (
    Wrong,
    agree,
    close,
    combined,
    compare,
    finite,
    keeps_device,
    randn,
    same_gradients,
)

# min_p --------------------------------------------------------------------------------------------


def check_min_p(min_p) -> Result:
    """Check `min_p(probabilities, threshold)`, where 0 <= threshold <= 1.

    It turns probabilities (B, V) into probabilities (B, V). In each row the tokens stay that have
    at least threshold times the row's largest probability. They sum to 1 again.
    """
    return check(
        "min_p",
        min_p,
        _min_p_properties,
        "in each row the tokens stay that reach threshold times the largest probability, and they "
        "sum to 1",
    )


def _right_min_p(probabilities, threshold):
    result = torch.zeros_like(probabilities)
    for row, out in zip(probabilities, result, strict=True):
        smallest = threshold * max(row.tolist())
        for token, p in enumerate(row.tolist()):
            if p >= smallest:
                out[token] = row[token]
    return result / result.sum(-1, keepdim=True)


def _min_p_cases():
    def random(B, V, threshold, seed, dtype=torch.float64):
        probabilities = (1.5 * randn(B, V, seed=seed)).softmax(-1).to(dtype)
        return {"probabilities": probabilities, "threshold": threshold}

    # Multiples of 1/16 have no rounding errors, so a probability can be exactly at the limit.
    row = torch.tensor([[2, 8, 4, 1, 1]]) / 16
    rows = torch.tensor([[1, 3, 2, 10], [5, 4, 6, 1], [4, 4, 4, 4]]) / 16
    cases = [{"probabilities": torch.tensor([[1.0]]), "threshold": 0.5}]
    for threshold in (0.5, 0.25, 0.2, 0.75):
        cases.append({"probabilities": row.clone(), "threshold": threshold})
    for threshold in (0.0, 0.1, 0.3, 0.5, 1.0):
        cases.append({"probabilities": rows.clone().double(), "threshold": threshold})
    return [
        *cases,
        random(1, 7, 0.2, 1),
        random(5, 9, 0.1, 2),
        random(4, 11, 0.4, 3),
        random(6, 8, 0.05, 4, torch.float32),
        random(3, 6, 0.3, 5, torch.float32),
    ]


def _mistaken_min_p(options):
    keep, normalise = options

    def min_p(probabilities, threshold):
        return normalise(probabilities * keep(probabilities, threshold), threshold)

    return min_p


def _largest(probabilities):
    return probabilities.amax(-1, keepdim=True)


def _like_top_p(probabilities, threshold):
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    kept = ordered.cumsum(-1) - ordered < threshold
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _like_top_k(probabilities, threshold):
    n = max(1, round(threshold * probabilities.shape[-1]))
    smallest = probabilities.topk(n, -1).values[..., -1:]
    return probabilities >= smallest


LIMIT = "The limit is threshold times the largest probability of the row"

# Which tokens stay.
KEEPS = {
    "": lambda probabilities, t: probabilities >= t * _largest(probabilities),
    "a token that is exactly at the limit is dropped. Use >=, not >":
        lambda probabilities, t: probabilities > t * _largest(probabilities),
    f"each probability is compared with the threshold itself. {LIMIT}":
        lambda probabilities, t: probabilities >= t,
    f"each probability must be larger than the threshold itself. {LIMIT}":
        lambda probabilities, t: probabilities > t,
    "there is one largest probability for the whole batch. Each row has its own":
        lambda probabilities, t: probabilities >= t * probabilities.max(),
    "the largest probability is taken over the batch, dim 0. Take it over the vocabulary, dim=-1":
        lambda probabilities, t: probabilities >= t * probabilities.amax(0, keepdim=True),
    "every row is compared with the first row's largest probability. Each row has its own":
        lambda probabilities, t: probabilities >= t * _largest(probabilities[:1]),
    "the wrong part is kept: the tokens below the limit. Keep those at or above it":
        lambda probabilities, t: probabilities < t * _largest(probabilities),
    f"the limit is (1 − threshold) times the largest probability. {LIMIT}":
        lambda probabilities, t: probabilities >= (1 - t) * _largest(probabilities),
    f"the threshold is subtracted from the largest probability. {LIMIT}":
        lambda probabilities, t: probabilities >= _largest(probabilities) - t,
    f"the limit is threshold times the mean probability, 1 / V. {LIMIT}":
        lambda probabilities, t: probabilities >= t * probabilities.mean(-1, keepdim=True),
    f"the limit is the largest probability divided by the threshold. {LIMIT}":
        lambda probabilities, t: probabilities >= _largest(probabilities) / t,
    f"the most probable tokens stay until their sum reaches the threshold. That is top-p. {LIMIT}":
        _like_top_p,
    f"the threshold is used as a share of the vocabulary. {LIMIT}": _like_top_k,
    "all tokens are kept. Drop those below the limit":
        lambda probabilities, t: torch.ones_like(probabilities),
    f"only the most probable token is kept. {LIMIT}":
        lambda probabilities, t: probabilities == _largest(probabilities),
    f"only the most probable token is kept, and if several are equal only one of them. {LIMIT}":
        lambda probabilities, t: F.one_hot(probabilities.argmax(-1), probabilities.shape[-1]),
}

DIVIDE = "Divide the probabilities that stay by their sum"

# How the probabilities that stay become a distribution.
NORMALISATIONS = {
    "": lambda kept, t: kept / kept.sum(-1, keepdim=True),
    f"the result does not sum to 1. {DIVIDE}": lambda kept, t: kept,
    f"a softmax of probabilities makes them more equal. {DIVIDE}":
        lambda kept, t: kept.masked_fill(kept == 0, -math.inf).softmax(-1),
    "a softmax of probabilities makes them more equal, and gives dropped tokens a probability. "
    f"{DIVIDE}":
        lambda kept, t: kept.softmax(-1),
    "the result is divided by the sum of the whole batch. Divide each row by its own sum":
        lambda kept, t: kept / kept.sum(),
    "each column sums to 1. Divide each row by its own sum":
        lambda kept, t: kept / kept.sum(0, keepdim=True),
    f"all tokens that stay have the same probability. {DIVIDE}":
        lambda kept, t: (kept > 0) / (kept > 0).sum(-1, keepdim=True),
    f"the result is divided by its largest number. {DIVIDE}": lambda kept, t: kept / _largest(kept),
    "the result is sorted. Each probability should stay at its token's place":
        lambda kept, t: (kept / kept.sum(-1, keepdim=True)).sort(-1, descending=True).values,
    "the result contains logarithms. Return probabilities":
        lambda kept, t: (kept / kept.sum(-1, keepdim=True)).log(),
    "dropped tokens are −inf, as in logits. The probability of a dropped token is 0":
        lambda kept, t: kept.masked_fill(kept == 0, -math.inf),
    f"the result tells which tokens stay. Return their probabilities. {DIVIDE}":
        lambda kept, t: kept > 0,
}


def _min_p_properties(reader: Reader):
    cases = _min_p_cases()
    mistakes = combined(_mistaken_min_p, KEEPS, NORMALISATIONS)
    trials = compare(reader, _right_min_p, cases, mistakes)
    for trial in trials:
        finite(
            trial,
            "is no token kept, and 0 divided by 0? The most probable token always stays.",
        )
        sums = trial.got.sum(-1)
        if not close(sums, torch.ones_like(sums), 1e-5):
            row = (sums - 1).abs().argmax()
            if sums[row] == 0:
                raise Wrong(f"row {row} keeps no token. The most probable token always stays")
            raise Wrong(f"row {row} sums to {sums[row]:.4g}, not to 1. {DIVIDE}")
    agree(trials)
    keeps_device(reader, cases)


# accept_or_replace --------------------------------------------------------------------------------


def check_accept_or_replace(accept_or_replace) -> Result:
    """Check `accept_or_replace(p, q, token)`.

    p and q are distributions (V,), of the large model and of the draft. The draft has proposed
    `token`. The result is the distribution (V,) of the token that the text gets.
    """
    return check(
        "accept_or_replace",
        accept_or_replace,
        _accept_properties,
        "a token is accepted with probability min(1, p / q), a rejected one is replaced from the "
        "residual, and over all proposals the result is p",
    )


def _right_accept(p, q, token):
    accepted = min(1.0, p[token].item() / q[token].item())
    result = torch.zeros_like(p)
    result[token] = accepted
    missing = [max(0.0, a - b) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    if accepted < 1:
        for i, m in enumerate(missing):
            result[i] += (1 - accepted) * m / sum(missing)
    return result


def _accept_cases():
    def random(V, token, seed, dtype=torch.float64):
        p, q = (1.5 * randn(2, V, seed=seed)).softmax(-1).to(dtype)
        return {"p": p, "q": q, "token": token}

    p, q = torch.tensor([0.75, 0.25]).double(), torch.tensor([0.25, 0.75]).double()
    p3, q3 = torch.tensor([[4, 3, 1, 0], [1, 4, 1, 2]]).double() / 8
    certain = torch.tensor([0.0, 1.0, 0.0]).double()
    spread = torch.tensor([0.5, 0.25, 0.25]).double()
    return [
        {"p": p, "q": q, "token": 1},
        {"p": p, "q": q, "token": 0},
        {"p": p, "q": p.clone(), "token": 0},
        *({"p": p3, "q": q3, "token": token} for token in range(4)),
        *({"p": certain, "q": spread, "token": token} for token in range(3)),
        {"p": spread, "q": certain, "token": 1},
        *(random(6, token, 1) for token in range(6)),
        *(random(9, token, 2) for token in (0, 3, 8)),
        *(random(5, token, 3, torch.float32) for token in range(5)),
    ]


def _mistaken_accept(options):
    accept, replace, mix = options

    def accept_or_replace(p, q, token):
        own = torch.zeros_like(p)
        own[token] = 1
        return mix(own, accept(p, q, token), replace(p, q, token))

    return accept_or_replace


def _scaled(weights):
    """Return the weights divided by their sum, or zeros if they are all 0."""
    total = weights.sum()
    return weights / total if total > 0 else torch.zeros_like(weights)


def _without(p, token):
    changed = p.clone()
    changed[token] = 0
    return _scaled(changed)


ACCEPT = "The probability to accept the token is min(1, p[token] / q[token])"

# The probability to accept the token.
ACCEPTS = {
    "": lambda p, q, token: (p[token] / q[token]).clamp(max=1),
    f"p / q can be larger than 1. {ACCEPT}": lambda p, q, token: p[token] / q[token],
    f"the quotient is upside down. {ACCEPT}":
        lambda p, q, token: (q[token] / p[token]).clamp(max=1),
    f"the token is accepted with probability p[token], whatever the draft thought of it. {ACCEPT}":
        lambda p, q, token: p[token],
    f"the token is accepted with probability q[token]. {ACCEPT}": lambda p, q, token: q[token],
    f"the token is accepted with probability p[token] · q[token]. {ACCEPT}":
        lambda p, q, token: p[token] * q[token],
    f"the token is accepted if p[token] >= q[token], and never otherwise. {ACCEPT}":
        lambda p, q, token: (p[token] >= q[token]).to(p),
    f"every token is accepted, so the result is the draft's distribution. {ACCEPT}":
        lambda p, q, token: torch.ones_like(p[token]),
    f"no token is accepted: the result is the residual alone. {ACCEPT}":
        lambda p, q, token: torch.zeros_like(p[token]),
    f"the token is accepted only if it is the most probable one of p. {ACCEPT}":
        lambda p, q, token: (p.argmax() == token).to(p),
    f"the smaller of p[token] and q[token] is the probability to accept. {ACCEPT}":
        lambda p, q, token: torch.minimum(p[token], q[token]),
}

RESIDUAL = "A rejected token is replaced from max(0, p − q), divided by its sum"

# The distribution of the token that replaces a rejected one.
REPLACEMENTS = {
    "": lambda p, q, token: _scaled((p - q).clamp(min=0)),
    "a rejected token is replaced by a draw from p, so tokens that the draft likes come too often. "
    f"{RESIDUAL}":
        lambda p, q, token: p,
    f"a rejected token is replaced by a draw from the draft. {RESIDUAL}": lambda p, q, token: q,
    f"a rejected token is replaced from p without the rejected token. {RESIDUAL}":
        lambda p, q, token: _without(p, token),
    f"the residual is max(0, q − p), with the two exchanged. {RESIDUAL}":
        lambda p, q, token: _scaled((q - p).clamp(min=0)),
    f"the residual is |p − q|. Differences below 0 should become 0. {RESIDUAL}":
        lambda p, q, token: _scaled((p - q).abs()),
    f"the residual contains numbers below 0. {RESIDUAL}": lambda p, q, token: p - q,
    f"the residual is not divided by its sum. {RESIDUAL}":
        lambda p, q, token: (p - q).clamp(min=0),
    f"the residual is a softmax of p − q. {RESIDUAL}": lambda p, q, token: (p - q).softmax(-1),
    f"a rejected token is replaced by the most probable token of p. {RESIDUAL}":
        lambda p, q, token: (torch.arange(len(p)) == p.argmax()).to(p),
    f"a rejected token is replaced by any token, all equally probable. {RESIDUAL}":
        lambda p, q, token: torch.full_like(p, 1 / len(p)),
}

# How both become the result.
MIXES = {
    "": lambda own, accepted, residual: accepted * own + (1 - accepted) * residual,
    "the residual is added with weight 1. It counts only if the token is rejected, with "
    "probability 1 − accepted":
        lambda own, accepted, residual: accepted * own + residual,
    "the two cases are exchanged. The token stays with probability accepted, and the residual "
    "counts with 1 − accepted":
        lambda own, accepted, residual: (1 - accepted) * own + accepted * residual,
    "the result has only the case that the token is accepted. Add the case that it is rejected: "
    "1 − accepted times the residual":
        lambda own, accepted, residual: accepted * own,
    "the result has only the case that the token is rejected. Add the probability to accept it at "
    "the token's place":
        lambda own, accepted, residual: (1 - accepted) * residual,
    "the two cases are mixed half and half. Their weights are accepted and 1 − accepted":
        lambda own, accepted, residual: (own + residual) / 2,
}


def _always_p(p, q, token):
    return p.clone()


def _decided(p, q, token):
    """Return a distribution with probability 1 for the more probable case."""
    accepted = (p[token] / q[token]).clamp(max=1)
    if accepted >= 0.5:
        return _right_accept(p, p, token)
    return _scaled((p - q).clamp(min=0))


def _divided(p, q, token):
    """Return 0 / 0 where p = q."""
    accepted = (p[token] / q[token]).clamp(max=1)
    missing = (p - q).clamp(min=0)
    result = (1 - accepted) * missing / missing.sum()
    result[token] += accepted
    return result


ACCEPT_MISTAKES = [
    ("the result contains nan if p = q: then max(0, p − q) is 0 everywhere, and its sum too. In "
     "this case every token is accepted",
     _divided),
    ("the result is p for every proposed token. It is p on average over all proposals. Here the "
     "proposal is known: use its p[token] and q[token]",
     _always_p),
    ("the more probable case is taken as certain. Give both cases their probability", _decided),
]


def _accept_properties(reader: Reader):
    cases = _accept_cases()
    mistakes = combined(_mistaken_accept, ACCEPTS, REPLACEMENTS, MIXES)
    trials = compare(reader, _right_accept, cases, [*ACCEPT_MISTAKES, *mistakes])
    for trial in trials:
        finite(
            trial,
            "if p = q, max(0, p − q) is 0 everywhere, and its sum too. In this case every token "
            "is accepted.",
        )
        if not close(trial.got.sum(), torch.ones_like(trial.got.sum()), 1e-5):
            raise Wrong(
                f"the result sums to {trial.got.sum():.4g}, not to 1. It is accepted · (1 at the "
                "token's place) + (1 − accepted) · residual"
            )
    agree(trials)
    keeps_device(reader, cases)


# grouped_query_attention --------------------------------------------------------------------------


def check_grouped_query_attention(grouped_query_attention) -> Result:
    """Check `grouped_query_attention(q, k, v)`.

    q has shape (B, H, T, D). k and v have shape (B, G, T, D), and H is a multiple of G. Query head
    h uses key and value head h // (H / G). The result has shape (B, H, T, D).
    """
    return check(
        "grouped_query_attention",
        grouped_query_attention,
        _grouped_properties,
        "neighbouring query heads share a key and a value head, and each position sees itself and "
        "the positions before it",
    )


def _right_grouped(q, k, v):
    B, H, T, D = q.shape
    heads = []
    for h in range(H):
        group = h // (H // k.shape[1])
        rows = []
        for t in range(T):
            scores = (k[:, group, : t + 1] * q[:, h, t, None]).sum(-1) / math.sqrt(D)   # (B, t + 1)
            rows.append((scores.softmax(-1)[..., None] * v[:, group, : t + 1]).sum(1))
        heads.append(torch.stack(rows, dim=1))
    return torch.stack(heads, dim=1)


def _grouped_cases():
    def case(B, H, G, T, D, seed, dtype=torch.float64):
        return {
            "q": 1.5 * randn(B, H, T, D, seed=seed, dtype=dtype),
            "k": 1.5 * randn(B, G, T, D, seed=seed + 100, dtype=dtype),
            "v": randn(B, G, T, D, seed=seed + 200, dtype=dtype),
        }

    return [
        case(1, 2, 1, 1, 2, 1),
        case(1, 2, 1, 2, 1, 2),
        case(1, 2, 2, 3, 2, 3),
        case(1, 4, 2, 3, 2, 4),
        case(2, 6, 2, 4, 3, 5),
        case(3, 6, 3, 5, 4, 6),
        case(2, 4, 1, 6, 5, 7),
        case(2, 8, 4, 7, 3, 8, torch.float32),
    ]


def _mistaken_grouped(options):
    expand_keys, expand_values, scale, hide, weigh = options

    def grouped_query_attention(q, k, v):
        H = q.shape[1]
        scores = scale(q @ expand_keys(k, H).mT, q)
        return weigh(scores, hide(scores)) @ expand_values(v, H)

    return grouped_query_attention


def _neighbours(x, H):
    return x.repeat_interleave(H // x.shape[1], dim=1)


SHARE = "With H / G = 2, query heads 0 and 1 use key head 0, and heads 2 and 3 use key head 1"


def _heads(name):
    """Return how the heads of k or v are given to the H query heads, by mistake."""
    return {
        "": _neighbours,
        f"query head h uses {name} head h modulo G. Neighbours should share a head: use "
        f"repeat_interleave, not repeat. {SHARE}":
            lambda x, H: x.repeat(1, H // x.shape[1], 1, 1),
        f"every query head uses {name} head 0. {SHARE}":
            lambda x, H: x[:, :1].expand(-1, H, -1, -1),
        f"every query head uses the mean of all {name} heads. {SHARE}":
            lambda x, H: x.mean(1, keepdim=True).expand(-1, H, -1, -1),
        f"the groups are in the reverse order for the {name}s. {SHARE}":
            lambda x, H: _neighbours(x.flip(1), H),
    }


# How the scores are scaled.
SCALES = {
    "": lambda scores, q: scores / math.sqrt(q.shape[-1]),
    "the scale is missing. Divide the scores by √D": lambda scores, q: scores,
    "the scores are divided by D. Divide them by √D": lambda scores, q: scores / q.shape[-1],
    "the scores are multiplied by √D. Divide by it":
        lambda scores, q: scores * math.sqrt(q.shape[-1]),
    "the scale is the root of the whole width, H · D. Divide by √D, the size of one head":
        lambda scores, q: scores / math.sqrt(q.shape[1] * q.shape[-1]),
    "the scores are divided by √T. Divide them by √D, the size of a head":
        lambda scores, q: scores / math.sqrt(q.shape[-2]),
}


def _future(scores):
    T = scores.shape[-1]
    return torch.ones(T, T, dtype=torch.bool, device=scores.device).triu(1)


# Which scores are hidden.
MASKS = {
    "": _future,
    "the causal mask is missing. Position i may attend to positions 0 to i":
        lambda scores: torch.zeros_like(_future(scores)),
    "the mask hides the past and shows the future. It should hide j > i":
        lambda scores: _future(scores).mT,
    "a position cannot see itself. The mask should hide j > i, and not j = i":
        lambda scores: ~_future(scores).mT,
    "a position sees the position after it, too. It should see nothing after itself":
        lambda scores: _future(scores).triu(2),
}


def _softmax(scores, hidden):
    return scores.masked_fill(hidden, -math.inf).softmax(-1)


# How scores become weights.
WEIGHTS = {
    "": _softmax,
    "the mask comes after the softmax, so the rows no longer sum to 1. Mask the scores with −inf":
        lambda scores, hidden: scores.softmax(-1).masked_fill(hidden, 0),
    "hidden scores are set to 0, but exp(0) = 1 still gives them weight. Use −inf":
        lambda scores, hidden: scores.masked_fill(hidden, 0).softmax(-1),
    "the softmax runs over the queries. It should run over the keys, dim=-1":
        lambda scores, hidden: scores.masked_fill(hidden, -math.inf).softmax(-2),
    "the softmax is missing. The weights of each row should sum to 1":
        lambda scores, hidden: scores.masked_fill(hidden, 0),
    "every visible position has the same weight. The scores should decide":
        lambda scores, hidden: _softmax(torch.zeros_like(scores), hidden),
}


def _merged(q, k, v):
    return _right_grouped(q, k, v).transpose(1, 2).flatten(2)


def _position_first(q, k, v):
    return _right_grouped(q, k, v).transpose(1, 2)


def _keys_as_values(q, k, v):
    return _right_grouped(q, k, k)


def _values_as_keys(q, k, v):
    return _right_grouped(q, v, v)


def _mean_of_queries(q, k, v):
    B, H, T, D = q.shape
    return _right_grouped(q.view(B, k.shape[1], -1, T, D).mean(2), k, v)


def _mean_of_queries_for_all(q, k, v):
    return _neighbours(_mean_of_queries(q, k, v), q.shape[1])


def _first_queries(q, k, v):
    return _right_grouped(q[:, : k.shape[1]], k, v)


def _both_by_turns(q, k, v):
    """Return the right function with head h modulo G for keys and values."""
    turns = lambda x: x.repeat(1, q.shape[1] // x.shape[1], 1, 1)
    return _right_grouped(q, turns(k), turns(v))


def _both(choose):
    """Return the right function with other heads of k and v: `choose(x)`, (B, G, T, D)."""
    return lambda q, k, v: _right_grouped(q, choose(k), choose(v))


GROUPED_MISTAKES = [
    ("query head h uses head h modulo G of keys and values. Neighbours should share a head: use "
     f"repeat_interleave, not repeat. {SHARE}",
     _both_by_turns),
    (f"every query head uses head 0 of keys and values. {SHARE}", _both(lambda x: x[:, :1])),
    (f"every query head uses the last head of keys and values. {SHARE}",
     _both(lambda x: x[:, -1:])),
    (f"every query head uses the mean of all key heads and of all value heads. {SHARE}",
     _both(lambda x: x.mean(1, keepdim=True))),
    ("the keys are used as values. The weights should be multiplied by v", _keys_as_values),
    ("the values are used as keys. The scores are q kᵀ", _values_as_keys),
    ("the queries of a group are averaged. Every query head has its own result: only keys and "
     "values are shared",
     _mean_of_queries),
    ("the queries of a group are averaged. Every query head has its own result: only keys and "
     "values are shared",
     _mean_of_queries_for_all),
    ("only the first G query heads are used. The result has H heads", _first_queries),
    ("the heads are put side by side, (B, T, H · D). Leave the heads apart: (B, H, T, D)", _merged),
    ("the axes of heads and positions are exchanged. Return (B, H, T, D)", _position_first),
]


def _grouped_properties(reader: Reader):
    cases = _grouped_cases()
    mistakes = combined(_mistaken_grouped, _heads("key"), _heads("value"), SCALES, MASKS, WEIGHTS)
    trials = compare(reader, _right_grouped, cases, [*GROUPED_MISTAKES, *mistakes])
    for trial in trials:
        finite(trial, "does the mask hide a position from itself, so that its whole row is −inf?")
    agree(trials)
    same_gradients(
        reader, _right_grouped, cases[4], ("q", "k", "v"),
        "a key head that several query heads share gets the sum of their gradients.",
    )
    keeps_device(reader, cases)
