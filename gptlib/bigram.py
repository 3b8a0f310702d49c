"""The bigram model: it predicts the next token from the present token alone (chapter 1).

A bigram is a pair of neighbours. Count the pairs in a text, turn the counts into probabilities, and
sample:

>>> from gptlib.tokenizer import CharTokenizer
>>> text = "banana bandana"
>>> tokenizer = CharTokenizer.from_text(text)               # ids: ' ' 0, a 1, b 2, d 3, n 4
>>> ids = torch.tensor(tokenizer.encode(text))
>>> counts = count_bigrams(ids, tokenizer.vocab_size)       # counts[i, j]: how often j follows i
>>> counts[4].tolist()                                      # after n: three times a, once d
[0.0, 3.0, 0.0, 1.0, 0.0]
>>> model = Bigram.from_counts(counts, smoothing=0)
>>> model(torch.tensor(4)).softmax(-1).detach()             # P(next token after n)
tensor([0.0000, 0.7500, 0.0000, 0.2500, 0.0000])

>>> generator = torch.Generator().manual_seed(0)
>>> tokens = tokenizer.encode("b")
>>> for _ in range(12):                                     # draw 12 tokens, each from the last
...     logits = model(torch.tensor(tokens[-1]))            # (V,)
...     token = torch.multinomial(logits.softmax(-1), 1, generator=generator)
...     tokens.append(token.item())
>>> tokenizer.decode(tokens)
'bananandanand'

The same table can also be learned by gradient descent, as all later models are:

>>> from torch.nn import functional as F
>>> model = Bigram(tokenizer.vocab_size)
>>> optimizer = torch.optim.SGD(model.parameters(), lr=10)
>>> for _ in range(200):
...     loss = F.cross_entropy(model(ids[:-1]), ids[1:])    # x: every token, y: the token after it
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> model(torch.tensor(4)).softmax(-1).detach().numpy().round(2).tolist()
[0.0, 0.75, 0.0, 0.25, 0.0]
"""

import torch
from torch import Tensor, nn

from gptlib.checks import at_least, check_arguments, tensor, tokens
from gptlib.data import DataError, check_ids

PIECE = 1 << 20             # `evaluate_bigram` counts so many pairs at a time


class Bigram(nn.Module):
    """A table of logits: row i holds the logits of the token that follows token i.

    A softmax turns the logits of a row into probabilities.

    Args:
        vocab_size: the number of different tokens, V.
    """

    @check_arguments(vocab_size=at_least(1))
    def __init__(self, vocab_size: int):
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        # Equal logits make all tokens equally likely. The loss then starts at ln V.
        nn.init.zeros_(self.table.weight)

    def forward(self, idx: Tensor) -> Tensor:
        """Return the logits for the token after each token of `idx`: (…) -> (…, V)."""
        check_ids(idx, self.table.num_embeddings, self.table.weight.is_meta)
        return self.table(idx)

    @classmethod
    @check_arguments(counts=tensor("V, V"), smoothing=at_least(0.0))
    def from_counts(cls, counts: Tensor, smoothing: float = 1.0) -> "Bigram":
        """Return the model with these probabilities, where s is the smoothing:

            P(j after i) = (counts[i, j] + s) / (counts[i].sum() + s · V)

        The logits are ln P, because softmax(ln P) = P. With s = 0, pairs that never occur have
        P = 0 and the logit −∞. If then a row has no counts at all, the formula would be 0 / 0.
        Such a row gets P = 1 / V.

        Args:
            counts: (V, V), from `count_bigrams`.
            smoothing: added to every count, so that no pair has probability 0.

        Raises:
            ValueError: a count or the smoothing is negative, nan or infinite.
        """
        if not (counts >= 0).all() or not smoothing >= 0:
            raise ValueError("counts and smoothing should be 0 or above")
        probabilities = counts.float() + smoothing
        if not probabilities.sum(1).isfinite().all():
            raise ValueError("counts and smoothing are too large: a row should have a finite sum")
        probabilities[probabilities.sum(1) == 0] = 1.0          # a row without counts
        probabilities /= probabilities.sum(1, keepdim=True)     # now each row sums to 1
        model = cls(vocab_size=len(counts))
        model.table.weight.data = probabilities.log()
        return model

    def config_dict(self) -> dict:
        """Return what `Bigram(**config)` needs, ready for JSON."""
        return {"vocab_size": self.table.num_embeddings}


@check_arguments(ids=tokens("N"), vocab_size=at_least(1))
def count_bigrams(ids: Tensor, vocab_size: int) -> Tensor:
    """Return a table (V, V) whose entry [i, j] says how often token j follows token i in `ids`.

    Args:
        ids: tokens, (N,).
        vocab_size: the number of different tokens, V.

    Raises:
        ValueError: an id is not between 0 and vocab_size - 1.
    """
    check_ids(ids, vocab_size)
    # Write the pair (i, j) as the number i·V + j. Then one call counts all pairs.
    pairs = ids[:-1].long() * vocab_size + ids[1:]
    counts = torch.bincount(pairs, minlength=vocab_size ** 2)
    return counts.view(vocab_size, vocab_size).float()


@check_arguments(train_ids=tokens("N"), val_ids=tokens("N"), vocab_size=at_least(1))
def evaluate_bigram(train_ids: Tensor, val_ids: Tensor, vocab_size: int) -> float:
    """Return the loss on `val_ids` of the bigram model that is counted on `train_ids`.

    `evaluate(Bigram.from_counts(count_bigrams(train_ids, V)), val_ids, …)` gives the same loss. It
    needs a table of V·V numbers, which is too large for a vocabulary of many thousand tokens. This
    function counts only the pairs that occur in `val_ids`.

    Args:
        train_ids, val_ids: tokens, (N,) each.

    Returns:
        the mean of -ln P in nats per token. P is smoothed with s = 1, as in `Bigram.from_counts`.

    Raises:
        DataError: `val_ids` has fewer than two tokens.
        ValueError: an id is not between 0 and vocab_size - 1.
    """
    if len(val_ids) < 2:
        raise DataError(
            f"a pair needs two tokens, but val_ids has {len(val_ids)}: take a longer text"
        )
    check_ids(train_ids, vocab_size)
    check_ids(val_ids, vocab_size)
    val_pairs = val_ids[:-1].long() * vocab_size + val_ids[1:]
    # pairs: the different pairs, sorted. index: for each pair of val_ids its position in `pairs`.
    pairs, index = val_pairs.unique(return_inverse=True)
    pair_counts = torch.zeros(len(pairs), dtype=torch.double)
    # In pieces, so that a long text needs little memory. A piece begins at the last token of the
    # piece before it.
    for start in range(0, len(train_ids) - 1, PIECE):
        ids = train_ids[start:start + PIECE + 1].long()
        train_pairs = ids[:-1] * vocab_size + ids[1:]
        nearest = torch.searchsorted(pairs, train_pairs).clamp(max=len(pairs) - 1)
        occurs = pairs[nearest] == train_pairs
        pair_counts += torch.bincount(nearest[occurs], minlength=len(pairs))
    token_counts = torch.bincount(train_ids[:-1], minlength=vocab_size)
    probabilities = (pair_counts[index] + 1) / (token_counts[val_ids[:-1]] + vocab_size)
    return -probabilities.log().mean().item()
