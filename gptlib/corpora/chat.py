"""Conversations as tokens, with the loss on the answers only (chapter 11).

Six special tokens say who speaks, as in PicoGPT: <S> system text </S>, <Q> question </Q> and
<A> answer </A>.

>>> from gptlib.tokenizer import CharTokenizer
>>> tokenizer = chat_tokenizer(CharTokenizer.from_text("Who nods? Owl."))
>>> ids, is_answer = render(tokenizer, [("question", "Who nods?"), ("answer", "Owl.")])
>>> tokenizer.decode(ids)
'<Q>Who nods?</Q><A>Owl.</A>'
>>> tokenizer.decode(ids[is_answer])
'Owl.</A>'

The model learns to write the tokens where `is_answer` is True. </A> is one of them, because the
model must also learn where an answer ends. `chat_rows` makes the rows for a training, and `answer`
asks a trained model.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gptlib.checks import (
    at_least,
    check_arguments,
    check_vocabulary,
    checked_value,
    function,
    list_of,
    optional,
    several,
    short,
    tokens,
    trainable,
)
from gptlib.corpora.special_tokens import SpecialTokenizer
from gptlib.data import DataError
from gptlib.generate import SAMPLING, generate_tokens
from gptlib.model import GPT
from gptlib.tokenizer import LowercaseTokenizer, Tokenizer, TokenizerError, any_tokenizer
from gptlib.train import NO_TARGET, Batch
from gptlib.variants.build import make_model

# The special tokens before and after a text of each role.
ROLES = {"system": ("<S>", "</S>"), "question": ("<Q>", "</Q>"), "answer": ("<A>", "</A>")}
CHAT_TOKENS = tuple(name for pair in ROLES.values() for name in pair)

# (role, text) for each turn. A system text can come first. Then questions and answers alternate.
Conversation = list[tuple[str, str]]

ANSWER_LENGTH = 100         # tokens of an answer, at most


def conversation_kind(name: str, value: Conversation) -> Conversation:
    """The kind of a conversation: [("system", …), ("question", …), ("answer", …), …]."""
    turns = []
    for i, turn in enumerate(several(name, value)):
        if not isinstance(turn, tuple | list) or len(turn) != 2:
            raise ValueError(f"{name}[{i}]={short(turn)} should be a pair (role, text)")
        role = checked_value(f"the role of {name}[{i}]", turn[0], tuple(ROLES))
        turns.append((role, checked_value(f"the text of {name}[{i}]", turn[1], str)))
    roles = [role for role, _ in turns]
    n_system = int(roles[:1] == ["system"])
    alternating = ["question", "answer"] * len(roles)
    if roles[n_system:] != alternating[:len(roles) - n_system] or len(roles) == n_system:
        raise ValueError(
            f"{name} has the roles {', '.join(roles) or 'of no turn'}; it should have at most one "
            "system text, which comes first, and then a question, an answer, a question, …"
        )
    return turns


# The tokens ---------------------------------------------------------------------------------------

@check_arguments(TokenizerError, tokenizer=any_tokenizer)
def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of all special tokens by name. Most tokenizers have none."""
    if isinstance(tokenizer, SpecialTokenizer):
        return {name: tokenizer.special(name) for name in tokenizer.names}
    if isinstance(tokenizer, LowercaseTokenizer):
        return {name: tokenizer.ids[name] for name in tokenizer.SPECIAL}
    return {}


@check_arguments(TokenizerError, tokenizer=any_tokenizer)
def chat_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer with the chat tokens that it lacks. Their ids come after all others."""
    missing = [name for name in CHAT_TOKENS if name not in special_ids(tokenizer)]
    if not missing:
        return tokenizer
    if isinstance(tokenizer, SpecialTokenizer):
        return SpecialTokenizer(tokenizer.tokenizer, [*tokenizer.names, *missing])
    return SpecialTokenizer(tokenizer, missing)


def chat_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of all special tokens. Raise an error if a chat token is missing."""
    ids = special_ids(tokenizer)
    missing = [name for name in CHAT_TOKENS if name not in ids]
    if missing:
        raise TokenizerError(
            f"the tokenizer has no special token {missing[0]}, so its model has not learned to "
            "answer: train it on conversations first, as in chapter 11"
        )
    return ids


@check_arguments(tokenizer=any_tokenizer, conversation=conversation_kind)
def render(tokenizer: Tokenizer, conversation: Conversation) -> tuple[Tensor, Tensor]:
    """Return the tokens of a conversation, and which of them the model should learn to write.

    Special tokens that stand in a text are encoded as ordinary text.

    Returns:
        ids, (N,), and is_answer, (N,), which is True for the tokens of answers and for </A>. It is
        False for <A>, because the program writes this token.

    Raises:
        TokenizerError: the tokenizer has no chat tokens, or it cannot encode a text.
    """
    special = chat_ids(tokenizer)
    ids, is_answer = [], []
    for role, text in conversation:
        begin, end = ROLES[role]
        body = [*tokenizer.encode(text), special[end]]
        ids += [special[begin], *body]
        is_answer += [False, *[role == "answer"] * len(body)]
    return torch.tensor(ids), torch.tensor(is_answer)


@check_arguments(tokenizer=any_tokenizer, conversation=conversation_kind, longest=at_least(1))
def roll(tokenizer: Tokenizer, conversation: Conversation, longest: int) -> Conversation:
    """Return the conversation without its oldest turns, so that it has at most `longest` tokens.

    Each question is dropped together with its answer. The system text stays, and so does the last
    question, with its answer if there is one.

    Raises:
        DataError: what should stay is longer than `longest`.
    """
    n_system = int(conversation[0][0] == "system")
    system, turns = conversation[:n_system], conversation[n_system:]
    while (length := len(render(tokenizer, system + turns)[0])) > longest:
        if len(turns) <= 2:
            raise DataError(
                f"the system text and the last question have {length} tokens, and there is room "
                f"for {longest}: shorten them, or use a model with a larger block_size"
            )
        turns = turns[2:]
    return system + turns


# Training -----------------------------------------------------------------------------------------

@check_arguments(
    tokenizer=any_tokenizer, conversations=list_of(conversation_kind), block_size=at_least(1),
    loss_on=("answers", "everything"),
)
def chat_rows(
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    block_size: int,
    loss_on: str = "answers",
) -> Batch:
    """Return inputs and targets, (N, block_size) each, with a row for each conversation.

    Short rows are filled up with padding. Padding has no targets, and so it has no weight in the
    loss. A conversation that is longer than a row loses its oldest turns (see `roll`).

    Args:
        loss_on: "answers": only the tokens of answers are targets. "everything": all tokens are.
    """
    if not conversations:
        raise DataError("conversations is empty: give at least one conversation")
    shape = len(conversations), block_size
    x = torch.zeros(shape, dtype=torch.long)
    y = torch.full(shape, NO_TARGET)
    for row, conversation in enumerate(conversations):
        ids, is_answer = render(tokenizer, roll(tokenizer, conversation, block_size + 1))
        is_target = is_answer[1:] if loss_on == "answers" else torch.ones_like(is_answer[1:])
        n = len(ids) - 1
        x[row, :n] = ids[:-1]
        y[row, :n] = ids[1:].where(is_target, NO_TARGET)
    return x, y


@check_arguments(
    x=tokens("N, T"), y=tokens("N, T"), batch_size=at_least(1), seed=at_least(0)
)
def random_rows(x: Tensor, y: Tensor, batch_size: int, seed: int) -> Callable[[int], Batch]:
    """Return a function from a step to a batch of random rows, as `gptlib.train.train` takes it.

    The batch depends on the seed and the step alone.
    """
    def batch(step: int) -> Batch:
        generator = np.random.default_rng((seed, step))
        rows = torch.from_numpy(generator.integers(len(x), size=batch_size))
        return x[rows], y[rows]
    return batch


@check_arguments(model=GPT, tokenizer=any_tokenizer)
def add_chat_tokens(model: GPT, tokenizer: Tokenizer) -> tuple[GPT, Tokenizer]:
    """Return a copy of the model that knows the chat tokens, and its tokenizer.

    A new token gets the mean of all token embeddings and of all rows of the output layer, so that
    its logit is the mean of the other logits (Hewitt 2021, "Initializing new word embeddings").
    """
    check_vocabulary(model, tokenizer)
    new_tokenizer = chat_tokenizer(tokenizer)
    vocab_size = max(model.config.vocab_size, new_tokenizer.vocab_size)
    new_model = make_model(replace(model.config, vocab_size=vocab_size))
    new_model.to(next(model.parameters()).device)
    weights = model.state_dict()
    for name, new_weight in new_model.state_dict().items():
        for dim, size in enumerate(new_weight.shape):
            # A dimension that has become longer is that of the vocabulary.
            n_new = size - weights[name].shape[dim]
            mean = weights[name].mean(dim, keepdim=True)
            new = mean.repeat_interleave(n_new, dim)
            weights[name] = torch.cat([weights[name], new], dim)
    new_model.load_state_dict(weights)
    return new_model, new_tokenizer


# Answers ------------------------------------------------------------------------------------------

@check_arguments(
    model=trainable, tokenizer=any_tokenizer, conversation=conversation_kind,
    max_new_tokens=at_least(1), temperature=SAMPLING["temperature"], seed=optional(at_least(0)),
)
def answer(
    model: nn.Module,
    tokenizer: Tokenizer,
    conversation: Conversation,
    max_new_tokens: int = ANSWER_LENGTH,
    temperature: float = 0.0,
    seed: int | None = None,
) -> Iterator[str]:
    """Yield the answer to the last question in pieces, which are always whole characters.

    The answer ends before the first special token, after `max_new_tokens` tokens, or at the end of
    the model's block. If the conversation is too long for the block, its oldest turns are dropped
    (see `roll`).

    Args:
        conversation: its last turn is a question.
        temperature: 0 always takes the most likely token.

    Raises:
        TokenizerError: the tokenizer has no chat tokens, or it cannot encode a text.
        DataError: the system text and the question are too long for the block.
    """
    prompt, n_new = answer_prompt(model, tokenizer, conversation, max_new_tokens)
    ends = set(special_ids(tokenizer).values())
    # A token may hold a part of a character. The decoder waits until the character is complete.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in generate_tokens(model, prompt[None], n_new, temperature, seed=seed):
        if token.item() in ends:
            break
        piece = decoder.decode(tokenizer.token_bytes(token.item()))
        if piece:
            yield piece
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def answer_prompt(
    model: nn.Module, tokenizer: Tokenizer, conversation: Conversation, max_new_tokens: int
) -> tuple[Tensor, int]:
    """Return the tokens up to <A>, (T,), and how many new tokens have room after them."""
    if conversation[-1][0] != "question":
        raise ValueError("the conversation should end with a question")
    check_vocabulary(model, tokenizer)
    begin = torch.tensor([chat_ids(tokenizer)["<A>"]])
    device = next(model.parameters()).device
    block_size = getattr(model, "block_size", None)
    if block_size is None:
        return torch.cat([render(tokenizer, conversation)[0], begin]).to(device), max_new_tokens
    # Earlier turns leave room for an answer: a quarter of the block, if that is needed.
    room = min(max_new_tokens, block_size // 4)
    without_history = [turn for turn in conversation[:1] if turn[0] == "system"] + conversation[-1:]
    shortest = len(render(tokenizer, without_history)[0])
    longest = min(block_size - 1, max(shortest, block_size - 1 - room))
    conversation = roll(tokenizer, conversation, max(1, longest))
    prompt = torch.cat([render(tokenizer, conversation)[0], begin])
    return prompt.to(device), min(max_new_tokens, block_size + 1 - len(prompt))


@check_arguments(
    model=trainable, tokenizer=any_tokenizer, conversations=list_of(conversation_kind),
    max_new_tokens=at_least(1), batch_size=at_least(1),
)
def greedy_answers(
    model: nn.Module,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    max_new_tokens: int = ANSWER_LENGTH,
    batch_size: int = 64,
) -> list[str]:
    """Return the answers at temperature 0, one for each conversation. See `answer`."""
    texts = []
    for start in range(0, len(conversations), batch_size):
        part = conversations[start:start + batch_size]
        prompts, room = zip(*(
            answer_prompt(model, tokenizer, conversation, max_new_tokens) for conversation in part
        ), strict=True)
        rows = answer_tokens(model, tokenizer, prompts, max(room))
        texts += [
            tokenizer.decode(row[:n]) for row, n in zip(rows, room, strict=True)
        ]
    return texts


def answer_tokens(
    model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[Tensor], n_new: int
) -> list[list[int]]:
    """Return the most likely tokens after each prompt, up to the first special token."""
    ends = set(special_ids(tokenizer).values())
    rows = [[] for _ in prompts]
    unfinished = set(range(len(prompts)))
    for token in generate_tokens(model, list(prompts), n_new, temperature=0.0):
        for row in list(unfinished):
            if token[row].item() in ends:
                unfinished.remove(row)
            else:
                rows[row].append(token[row].item())
        if not unfinished:
            break
    return rows


@check_arguments(
    model=trainable, tokenizer=any_tokenizer, conversations=list_of(conversation_kind)
)
def correct_answers(
    model: nn.Module, tokenizer: Tokenizer, conversations: Sequence[Conversation]
) -> Tensor:
    """Return for each conversation whether the model gives exactly its last answer, (N,).

    The model gets the turns before the last answer. The mean of the result is the accuracy.
    """
    for i, conversation in enumerate(conversations):
        if conversation[-1][0] != "answer":
            raise ValueError(f"conversations[{i}] should end with an answer")
    given = greedy_answers(model, tokenizer, [c[:-1] for c in conversations])
    right = [conversation[-1][1] for conversation in conversations]
    return torch.tensor([g == r for g, r in zip(given, right, strict=True)])


# A chat in a terminal -----------------------------------------------------------------------------

@check_arguments(
    model=trainable, tokenizer=any_tokenizer, lines=several, write=function, system=str,
    max_new_tokens=at_least(1), temperature=SAMPLING["temperature"], seed=optional(at_least(0)),
)
def chat(
    model: nn.Module,
    tokenizer: Tokenizer,
    lines: Iterable[str],
    write: Callable[[str], None],
    system: str = "",
    max_new_tokens: int = ANSWER_LENGTH,
    temperature: float = 0.0,
    seed: int | None = None,
) -> Conversation:
    """Answer each line with `write`, in pieces. Return the whole conversation.

    An empty line is skipped. A line that the tokenizer cannot encode, or that is too long, gets the
    sentence of the error in place of an answer, and the conversation goes on without it.

    Args:
        lines: the questions, such as sys.stdin.
        system: the system text. "" means no system text.
        seed: the first answer uses it, the second one seed + 1, and so on.
    """
    conversation = [("system", system)] if system else []
    # A system text that is too long, or a tokenizer without chat tokens, is an error at once.
    answer_prompt(model, tokenizer, [*conversation, ("question", "")], max_new_tokens=1)
    for n, question in enumerate(filter(None, map(str.strip, lines))):
        asked = [*conversation, ("question", question)]
        answer_seed = None if seed is None else seed + n
        try:
            text = ""
            for piece in answer(model, tokenizer, asked, max_new_tokens, temperature, answer_seed):
                text += piece
                write(piece)
            conversation = [*asked, ("answer", text)]
        except (TokenizerError, DataError) as error:
            write(f"({error})")
        write("\n")
    return conversation
