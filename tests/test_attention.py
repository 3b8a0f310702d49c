"""Attention against a slow, explicit version of itself, and windows that hold several documents."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from gptlib import GPTConfig
from gptlib.attention import CausalSelfAttention, simple_attention
from gptlib.data import document_mask
from gptlib.variants.build import ATTENTIONS

EXACT = {"rtol": 1e-9, "atol": 1e-9}
each_shape = pytest.mark.parametrize("B, T, n_head, head_size", [
    (2, 5, 3, 4), (1, 1, 1, 6), (3, 7, 4, 1), (2, 4, 1, 5), (1, 9, 2, 3),
])


def make_part(part, n_head, n_embd, **options):
    """Return a part of the model in float64. Its weights are so large that every mistake shows."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=5, block_size=16, n_head=n_head, n_embd=n_embd, **options)
    part = part(config).double()
    for weight in part.parameters():
        torch.nn.init.normal_(weight)
    return part.eval()


def slow_attention(attention, x):
    """Compute softmax(q · k / √head_size) v for one row, one head and one position at a time."""
    B, T, C = x.shape
    head_size = C // attention.n_head
    y = torch.zeros_like(x)
    for b in range(B):
        q, k, v = attention.qkv(x[b]).split(C, dim=-1)                  # (T, C) each
        for h in range(attention.n_head):
            head = slice(h * head_size, (h + 1) * head_size)            # the channels of this head
            for t in range(T):
                scores = torch.full((T,), -math.inf, dtype=x.dtype)
                for s in range(t + 1):
                    scores[s] = (q[t, head] * k[s, head]).sum() / math.sqrt(head_size)
                weights = scores.exp() / scores.exp().sum()
                y[b, t, head] = sum(weights[s] * v[s, head] for s in range(T))
    return attention.proj(y)


# Causal attention ---------------------------------------------------------------------------------

@each_shape
@pytest.mark.parametrize("bias", [False, True])
def test_attention_equals_an_explicit_loop(B, T, n_head, head_size, bias):
    attention = make_part(CausalSelfAttention, n_head, n_head * head_size, bias=bias)
    x = torch.randn(B, T, n_head * head_size, dtype=torch.float64)
    assert_close(attention(x), slow_attention(attention, x), **EXACT)


@each_shape
def test_simple_attention_equals_the_module(B, T, n_head, head_size):
    attention = make_part(CausalSelfAttention, n_head, n_head * head_size)
    x = torch.randn(B, T, n_head * head_size, dtype=torch.float64)
    q, k, v = attention.split_heads(attention.qkv(x))
    assert_close(attention.merge_heads(simple_attention(q, k, v)), attention(x), **EXACT)


@each_shape
def test_attention_has_no_gradient_from_later_positions(B, T, n_head, head_size):
    attention = make_part(CausalSelfAttention, n_head, n_head * head_size)
    x = torch.randn(B, T, n_head * head_size, dtype=torch.float64, requires_grad=True)
    for t in range(T):
        gradient, = torch.autograd.grad(attention(x)[:, t].sum(), x)
        assert torch.all(gradient[:, t + 1:] == 0)
        assert torch.any(gradient[:, t] != 0)


def test_first_position_attends_to_itself_only():
    attention = make_part(CausalSelfAttention, 2, 6)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    _, _, v = attention.qkv(x[:, 0]).split(6, dim=-1)
    assert_close(attention(x)[:, 0], attention.proj(v))


def test_dropout_acts_in_training_only():
    attention = make_part(CausalSelfAttention, 2, 6, dropout=0.5)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert_close(attention(x), slow_attention(attention, x))
    attention.train()
    assert not torch.equal(attention(x), attention(x))


# Windows that hold several documents --------------------------------------------------------------

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1],         # documents of 3 and 5 tokens
                          [4, 4, 4, 4, 4, 4, 4, 4],         # one document
                          [2, 3, 3, 3, 3, 3, 5, 5]])        # documents of 1, 5 and 2 tokens
IDX = torch.randint(11, DOCUMENTS.shape, generator=torch.Generator().manual_seed(1))
each_attention = pytest.mark.parametrize("attention", ATTENTIONS)
each_shift = pytest.mark.parametrize("token_shift", [False, True])
each_position = pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])


def document_slices(row):
    """Yield (start, end) of each document in one row of DOCUMENTS."""
    borders = [t for t in range(1, len(row)) if row[t] != row[t - 1]]
    yield from zip([0, *borders], [*borders, len(row)], strict=True)


def start_at(model, start):
    """Return a copy of `model` whose tables of positions and distances begin at position `start`.

    A text at position 0 of the copy is read like a text at position `start` of `model`.
    """
    model = copy.deepcopy(model)
    for name, table in [*model.named_parameters(), *model.named_buffers()]:
        if name in ("positions.table.weight", "positions.waves"):           # (block_size, C)
            table.data = table.data.roll(-start, 0)
        if name.endswith("attention.by_key"):                               # (n_head, block_size)
            table.data = table.data.roll(-start, 1)
        if name.endswith("attention.table"):                    # (n_head, block_size, block_size)
            table.data = table.data.roll((-start, -start), (1, 2))
    return model


def test_document_mask_hides_later_tokens_and_other_documents():
    mask = document_mask(DOCUMENTS)
    B, T = DOCUMENTS.shape
    assert mask.shape == (B, 1, T, T)
    for b in range(B):
        for i in range(T):
            for j in range(T):
                expected = j <= i and DOCUMENTS[b, i] == DOCUMENTS[b, j]
                assert mask[b, 0, i, j] == expected


@each_attention
def test_mask_of_one_document_is_the_causal_mask(attention):
    attention = make_part(ATTENTIONS[attention], 2, 6)
    x = torch.randn(2, 8, 6, dtype=torch.float64)
    mask = document_mask(torch.zeros(2, 8))
    assert_close(attention(x, mask=mask), attention(x), **EXACT)


def test_masked_attention_equals_the_explicit_loop_over_each_document():
    attention = make_part(CausalSelfAttention, 2, 6)
    x = torch.randn(*DOCUMENTS.shape, 6, dtype=torch.float64)
    y = attention(x, mask=document_mask(DOCUMENTS))
    for row, documents in enumerate(DOCUMENTS):
        for start, end in document_slices(documents):
            document = x[row:row + 1, start:end]
            assert_close(y[row:row + 1, start:end], slow_attention(attention, document), **EXACT)


@each_attention
@each_position
@each_shift
def test_document_has_the_logits_that_it_has_alone(tiny, attention, position, token_shift):
    model = tiny(attention=attention, position=position, token_shift=token_shift).double()
    logits = model(IDX, mask=document_mask(DOCUMENTS))
    for row, documents in enumerate(DOCUMENTS):
        for start, end in document_slices(documents):
            alone = start_at(model, start)(IDX[row:row + 1, start:end])
            assert_close(logits[row:row + 1, start:end], alone, **EXACT)


@each_attention
@each_position
@each_shift
def test_no_document_depends_on_another_one(tiny, attention, position, token_shift):
    model = tiny(attention=attention, position=position, token_shift=token_shift).double()
    mask = document_mask(DOCUMENTS)
    logits = model(IDX, mask=mask)
    for row, documents in enumerate(DOCUMENTS):
        for start, end in document_slices(documents):
            changed = IDX.clone()
            changed[row, start:end] = (changed[row, start:end] + 1) % 11
            difference = (model(changed, mask=mask) - logits).abs().amax(-1)        # (B, T)
            assert torch.all(difference[row, start:end] > 0)
            difference[row, start:end] = 0
            assert torch.all(difference == 0)


def test_cache_and_mask_together_are_refused(tiny):
    model = tiny()
    with pytest.raises(ValueError) as error:
        model(IDX, model.new_cache(len(IDX)), document_mask(DOCUMENTS))
    assert str(error.value) == "give either a cache or a mask: a cache makes its own mask"
