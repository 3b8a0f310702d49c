"""The bigram model: the next token depends on the present one alone. Counted in one pass, or learned."""

import torch
from torch import nn
from torch.nn import functional as F


class Bigram(nn.Module):
    """A table of logits, one row for each present token and one column for each next one.

    Args:
        vocab_size: how many different tokens there are.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)           # every next token equally likely: the loss starts at ln V

    @classmethod
    def from_counts(cls, counts: torch.Tensor, smoothing: float = 1.0) -> "Bigram":
        """The bigram with P(b after a) = (counts[a, b] + smoothing) / (sum of that row of counts + smoothing).

        After a token that was never followed by anything, and without smoothing, all are equally likely.
        """
        model = cls(len(counts))
        smoothed = counts + smoothing
        smoothed[smoothed.sum(1) == 0] = 1.0
        model.table.weight.data = F.normalize(smoothed, p=1, dim=1).log()
        return model

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.table(idx)                      # (B, T) -> (B, T, V)

    def config_dict(self) -> dict:
        return {"vocab_size": self.table.num_embeddings}


def count_bigrams(ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """How often token b follows token a: (V, V) counts from the tokens `ids`, (N,)."""
    if len(ids) and ids.max() >= vocab_size:
        raise ValueError(f"ids run to {ids.max()}, but vocab_size={vocab_size}: was the text encoded by another tokenizer?")
    pairs = ids[:-1] * vocab_size + ids[1:]
    return torch.bincount(pairs, minlength=vocab_size ** 2).view(vocab_size, vocab_size).float()
