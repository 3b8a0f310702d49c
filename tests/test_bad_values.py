"""Every public function refuses bad values with one clear sentence of its own.

`refuses(function, good, name=bad)` adds a case for each bad value of an argument: the function is
called with the good arguments, one of which is replaced. It also adds one case that the good
arguments are accepted. `case(name, call, fragment)` adds a single bad call.
"""

import inspect
import json
import math
import random
import traceback
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import nn

import gptlib
from gptlib import (
    GPT,
    Bigram,
    BPETokenizer,
    CharTokenizer,
    GPTConfig,
    LowercaseTokenizer,
    TrainConfig,
    count_bigrams,
    evaluate,
    generate,
    generate_text,
    get_batch,
    load_corpus,
    load_model,
    make_model,
    make_tokenizer,
    optimizers,
    save_checkpoint,
    split,
    stream_text,
    train,
)
from gptlib.attention import CausalSelfAttention
from gptlib.block import Block, FeedForward
from gptlib.bpe import exchange, simple
from gptlib.bpe.build import load_tokenizer, save_tokenizer
from gptlib.bpe.words import compile_pattern
from gptlib.checkpoint import load_optimizer, load_weights, read_header
from gptlib.checks import check_arguments, checked_value
from gptlib.classroom.grade import grade
from gptlib.classroom.leaderboard import code_hash, leaderboard, read_results, save_result
from gptlib.classroom.measured import Measurement, finding, ranking, summary
from gptlib.config import check_parameters
from gptlib.corpora import Corpus, courier, floor, theatre
from gptlib.corpora.courier_text import CourierTokenizer, answer_probabilities
from gptlib.data import check_length, document_mask, fixed_windows
from gptlib.generate import generate_tokens, next_token_probabilities, pick
from gptlib.kv_cache import KVCache
from gptlib.model import causality_gap, evaluating
from gptlib.optimizers import Muon, orthogonalize
from gptlib.plan import Speed, calibrate, clock, plan_run
from gptlib.plot import (
    mark_baselines,
    mark_level,
    new_figure,
    plot_distribution,
    plot_gap,
    plot_loss,
    plot_matrix,
    plot_memory,
    show,
    show_drawing,
    visible,
)
from gptlib.run import TrainResult
from gptlib.speculative import generate_speculative
from gptlib.tokenizer import checked_ids, default_prompt, fingerprint, unknown_share
from gptlib.train import evaluate_batches, learning_rate, make_optimizer, text_windows
from gptlib.variants.build import model_from_header
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import RollingGPT, token_losses
from gptlib.variants.modern import rotate
from gptlib.variants.quantize import int8_copy, round_to_int8
from gptlib.widgets import (
    AttentionExplorer,
    BigramRow,
    ContextViewer,
    CourierFact,
    MergeStepper,
    Sampler,
    SingularValues,
    TimeWeightViewer,
    TrainingBoard,
    attention_weights,
    find_checkpoints,
)
from gptlib.widgets.bigram_row import row_probabilities
from gptlib.widgets.distance_weights import with_distance_weights
from gptlib.widgets.panel import get_model

LIBRARY = Path(gptlib.__file__).parent
# Words that Python, torch and numpy use, and that a reader should not meet.
FOREIGN = (
    "object has no attribute", "not subscriptable", "unsupported operand", "invalid literal",
    "could not convert", "expected scalar type", "out of bounds", "not iterable", "unhashable",
    "Dimension out of range", "positional argument", "object cannot be interpreted", "alloc_cpu",
    "truth value", "unpack", "StopIteration", "division by zero", "size of tensor",
)
BAD, GOOD = [], []
NAN, INF = math.nan, math.inf


# The collector ------------------------------------------------------------------------------------

def case(name, call, *fragments):
    """Add a call that should be refused. The message should contain every fragment."""
    BAD.append(pytest.param(call, fragments, id=name))


def good(name, call):
    """Add a call that should be accepted: a good neighbour of the bad ones."""
    GOOD.append(pytest.param(call, id=name))


def refuses(function, arguments, **bad):
    """Add a case for each bad value, and one for the good arguments.

    Args:
        arguments: good arguments by name.
        bad: for each name a list of pairs: a bad value, and a fragment of the message.
    """
    label = function.__qualname__.removesuffix(".__init__")
    good(label, lambda: function(**arguments))
    for name, values in bad.items():
        for value, fragment in values:
            case(f"{label}({name}={' '.join(repr(value).split())[:40]})",
                 lambda name=name, value=value: function(**arguments | {name: value}),
                 name.rstrip("s"), fragment)


NOT_INT = [
    ("4", "'4' is str, it should be int"), (2.5, "2.5 is float, it should be int"),
    (NAN, "nan is float, it should be int"), ([4], "[4] is list, it should be int"),
    (True, "True is bool, it should be int"), (None, "None is NoneType, it should be int"),
]
NOT_FLOAT = [
    ("1", "'1' is str, it should be float"), (NAN, "nan should be a finite number"),
    ([1.0], "[1.0] is list, it should be float"), (True, "True is bool, it should be float"),
]
NOT_1 = [*NOT_INT, (0, "=0 should be at least 1"), (-1, "=-1 should be at least 1")]
NOT_0 = [*NOT_INT, (-1, "=-1 should be at least 0")]
MAYBE_1 = [pair for pair in NOT_1 if pair[0] is not None]
MAYBE_0 = [pair for pair in NOT_0 if pair[0] is not None]
NOT_TEXT = [
    (None, "None is NoneType, it should be str"), (5, "5 is int, it should be str"),
    (b"ab", "b'ab' is bytes, it should be str"), (["a"], "['a'] is list, it should be str"),
    (Path("a"), "it should be str"),
]
NOT_TEXT_OR_NONE = [case for case in NOT_TEXT if case[0] is not None]
IDS = torch.arange(60) % 5
NOT_TOKENS = [
    (None, "None is NoneType, it should be a torch.Tensor"),
    ([1, 2], "[1, 2] is list, it should be a torch.Tensor"),
    (np.array([1, 2]), "is ndarray, it should be a torch.Tensor"),
    ("12", "'12' is str, it should be a torch.Tensor"),
    (IDS.float(), "should be torch.int64, not torch.float32"),
    (IDS.to(torch.uint8), "should be torch.int64, not torch.uint8"),
    (torch.tensor(1), "has the shape (), it should have the shape"),
]
NOT_ROW = [*NOT_TOKENS, (IDS[None], "has the shape (1, 60), it should have the shape (")]
NOT_ROWS = [*NOT_TOKENS[:4], (IDS[None].float(), "should be torch.int64, not torch.float32"),
            (IDS[None].byte(), "should be torch.int64, not torch.uint8"),
            (IDS, "has the shape (60,), it should have the shape (B, T)")]
CONFIG = GPTConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=8)
MODEL = GPT(CONFIG)
NOT_MODEL = [
    (None, "None is NoneType, it should be Module"), (CONFIG, "is GPTConfig, it should be Module"),
    (GPT, "is type, it should be Module"), ("gpt", "'gpt' is str, it should be Module"),
]
NOT_TRAINABLE = [*NOT_MODEL, (nn.Identity(), "is a Identity without parameters")]
TOKENIZER = CharTokenizer("abcde")
NOT_TOKENIZER = [
    (None, "should be a tokenizer"), ("char", "should be a tokenizer"),
    (CharTokenizer, "should be a tokenizer"), (MODEL, "should be a tokenizer"),
]
TRAINING = TrainConfig(max_steps=1, batch_size=2, eval_interval=1, device="cpu")
NOT_TRAINING = [(None, "it should be TrainConfig"), (CONFIG, "it should be TrainConfig"),
                ({"max_steps": 1}, "it should be TrainConfig")]
NOT_PATH = [(5, "5 is int, it should be str or Path"),
            (None, "None is NoneType, it should be str or Path")]
NOT_FUNCTION = [(5, "5 is int, it should be a function"), ("f", "it should be a function")]
LEVEL = "should be 1 (no recall), 2 (speakers and one fact) or 3 (everything)"
NOT_LEVEL = [(value, LEVEL) for value in (0, 4, "2", None, True, 2.5, [1])]


# The core -----------------------------------------------------------------------------------------

for option in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "mlp_ratio"):
    refuses(GPTConfig, {"vocab_size": 65}, **{option: NOT_1})
refuses(GPTConfig, {"vocab_size": 65}, dropout=[*NOT_FLOAT, (1.0, "below 1"), (-0.1, "at least 0")],
        bias=[("yes", "it should be bool"), (1, "it should be bool")],
        position=[("rope", "one of 'learned', 'sinusoidal', 'none'"), (None, "one of 'learned'"),
                  (["learned"], "one of 'learned'"), (np.array(["a", "b"]), "one of 'learned'")])
refuses(TrainConfig, {}, max_steps=NOT_1, seed=NOT_0, learning_rate=NOT_FLOAT, grad_clip=NOT_FLOAT,
        device=[(0, "0 is int, it should be str"), (torch.device("cpu"), "it should be str")])
refuses(VariantConfig, {"vocab_size": 65}, window=NOT_1, n_memory=NOT_1,
        memory=[("all", "one of 'attention'"), (None, "one of 'attention'")])

refuses(CharTokenizer, {"alphabet": "abc"},
        alphabet=[(None, "it should be str or a list"), (5, "it should be str or a list"),
                  ("", "is empty"),
                  (b"ab", "it should be str or a list of str"),
                  (["ab", "c"], "each entry should be one character"),
                  ([1, 2], "alphabet[0]=1 is int, it should be str")])
refuses(CharTokenizer.from_text, {"text": "abc"}, text=NOT_TEXT)
refuses(TOKENIZER.encode, {"text": "abc"}, text=NOT_TEXT)
NOT_IDS = [
    ([97.7], "id=97.7 is float, it should be int"), ("12", "ids='12' is str, it should be a list"),
    (b"12", "is bytes, it should be a list"), (5, "ids=5 is int, it should be a list"),
    (None, "ids=None is NoneType, it should be a list"), ([None], "id=None is NoneType"),
    (["1"], "id='1' is str"), ([True], "id=True is bool"), ([[1]], "id=[1] is list"),
    (torch.tensor([1.5]), "id=1.5 is float"), (torch.tensor([[1, 2]]), "it should be int"),
    (torch.tensor(1), "it should be a list"), ([NAN], "id=nan is float"), ([-1], "id -1 is not in"),
    ([9999], "id 9999 is not in the range"), (np.array([0.5]), "id=0.5 is float"),
]
refuses(TOKENIZER.decode, {"ids": [0, 1]}, ids=[(value, words) for value, words in NOT_IDS])
refuses(checked_ids, {"ids": [0, 1], "vocab_size": 5}, ids=NOT_IDS)
refuses(CharTokenizer.from_dict, {"saved": {"alphabet": "ab"}},
        saved=[({}, "should have the key 'alphabet'"), (None, "it should be Mapping")])
refuses(LowercaseTokenizer, {"vocab_size": 88}, vocab_size=[*NOT_1, (81, "at least 82")])
LOWERCASE = LowercaseTokenizer()
refuses(LOWERCASE.encode, {"text": "abc", "allowed_special": ["<Q>"]}, text=NOT_TEXT,
        allowed_special=[("<Q>", "'<Q>' is str, it should be a list"), (None, "should be a list"),
                         ([5], "allowed_special[0]=5 is int, it should be str")])
refuses(LowercaseTokenizer.from_dict, {"saved": {"vocab_size": 88}},
        saved=[({}, "should have the key 'vocab_size'"), ([], "it should be Mapping")])
refuses(fingerprint, {"tokenizer": TOKENIZER}, tokenizer=NOT_TOKENIZER)

refuses(split, {"ids": IDS, "val_fraction": 0.1},
        ids=[(None, "it should be Tensor or str"), (5, "it should be Tensor or str"),
             ([1, 2], "it should be Tensor or str"), (np.arange(3), "it should be Tensor or str")],
        val_fraction=[*NOT_FLOAT, (1.5, "1.5 should be between 0 and 1"),
                      (2, "2.0 should be between 0 and 1"),
                      (-1, "-1.0 should be between 0 and 1"),
                      (INF, "inf should be a finite number"), (None, "it should be float")])
BATCH = {"ids": IDS, "block_size": 4, "batch_size": 2, "seed": 0, "step": 0}
refuses(get_batch, BATCH, ids=NOT_ROW, block_size=[*NOT_1, (60, "need at least 61")],
        batch_size=NOT_1, seed=NOT_0, step=NOT_0)
refuses(fixed_windows, {"ids": IDS, "block_size": 4, "batch_size": 2}, ids=NOT_ROW,
        block_size=NOT_1, batch_size=NOT_1)
refuses(check_length, {"ids": IDS, "block_size": 4},
        block_size=[(60, "need at least 61"), (10**9, "need at least 1,000,000,001")])
refuses(document_mask, {"documents": torch.zeros(2, 3)},
        documents=[(torch.zeros(3), "has the shape (3,)"),
                   ([[0, 0]], "it should be a torch.Tensor"),
                   (None, "it should be a torch.Tensor")])

refuses(Bigram, {"vocab_size": 5}, vocab_size=NOT_1)
COUNTS = torch.ones(5, 5)
refuses(Bigram.from_counts, {"counts": COUNTS, "smoothing": 1.0},
        counts=[(-COUNTS, "should be 0 or above"), (NAN * COUNTS, "should be 0 or above"),
                (COUNTS[:3], "has the shape (3, 5), it should have the shape (V, V)"),
                (COUNTS[0], "has the shape (5,)"), ([[1.0]], "it should be a torch.Tensor"),
                (None, "it should be a torch.Tensor")],
        smoothing=[*NOT_FLOAT, (-1.0, "-1.0 should be at least 0.0"), (INF, "finite number")])
refuses(count_bigrams, {"ids": IDS, "vocab_size": 5}, ids=NOT_ROW, vocab_size=NOT_1)
case("count_bigrams of another tokenizer's ids", lambda: count_bigrams(IDS, 4), "0 to 4", "0 … 3")
case("Bigram of another tokenizer's ids", lambda: Bigram(4)(IDS), "0 to 4", "another tokenizer")
case("Bigram of a list", lambda: Bigram(5)([1, 2]), "token ids", "not list", "torch.tensor(ids)")
case("Bigram of uint8", lambda: Bigram(5)(IDS.to(torch.uint8)), "torch.int64, not torch.uint8")
case("Bigram of float", lambda: Bigram(5)(IDS.float()), "torch.int64, not torch.float32")

refuses(KVCache, {"n_layer": 1, "batch_size": 1, "block_size": 8}, n_layer=NOT_1, batch_size=NOT_1,
        block_size=NOT_1)
CACHE = MODEL.new_cache(2)
MODEL(IDS[None, :4].expand(2, 4), CACHE)
refuses(MODEL.new_cache, {"batch_size": 1}, batch_size=NOT_1)
for lengths in ("2", None, 1.5, [1, 2, 3], [1.5, 2], torch.ones(2), True, [[1], [2]]):
    case(f"truncate({lengths!r})", lambda lengths=lengths: CACHE.truncate(lengths), "lengths")
case("truncate(9)", lambda: CACHE.truncate(9), "cannot keep 9 tokens")
case("truncate(-1)", lambda: CACHE.truncate(-1), "cannot keep -1 tokens")
case("set_rows of an empty cache", lambda: CACHE.set_rows([0], MODEL.new_cache(1)), "same model")
case("set_rows of None", lambda: CACHE.set_rows([0], None), "same model")
case("set_rows(9)", lambda: CACHE.set_rows([9], filled_cache(1)), "rows=[9]", "0 … 1")
case("set_rows of two rows", lambda: CACHE.set_rows([0], filled_cache(2)), "rows=[0]", "2 rows")


def filled_cache(B):
    cache = MODEL.new_cache(B)
    MODEL(IDS[None, :3].expand(B, 3), cache)
    return cache


NOT_CONFIG = [(MODEL, "is GPT, it should be GPTConfig"), (None, "it should be GPTConfig"),
              (TRAINING, "it should be GPTConfig"), ({"vocab_size": 5}, "it should be GPTConfig"),
              (GPTConfig, "it should be GPTConfig"), (65, "it should be GPTConfig")]
refuses(GPT, {"config": CONFIG}, config=NOT_CONFIG)
refuses(make_model, {"config": CONFIG}, config=NOT_CONFIG)
case("GPT of a row", lambda: MODEL(IDS[:4]), "idx has the shape (4,)", "idx[None]")
case("GPT of a list", lambda: MODEL([[1, 2]]), "token ids", "not list")
case("GPT of an array", lambda: MODEL(np.array([[1, 2]])), "token ids", "not ndarray")
case("GPT of float", lambda: MODEL(IDS[None, :4].float()), "torch.int64, not torch.float32")
case("GPT of uint8", lambda: MODEL(IDS[None, :4].byte()), "torch.int64, not torch.uint8")
case("GPT of other ids", lambda: MODEL(IDS[None, :4] + 3), "token ids run from 3 to 6")
case("GPT of negative ids", lambda: MODEL(IDS[None, :4] - 1), "token ids run from -1")
case("GPT of a long text", lambda: MODEL(IDS[None, :9]), "longer than block_size=8")
case("GPT of a float mask", lambda: MODEL(IDS[None, :4], mask=torch.ones(1, 1, 4, 4)), "mask")
case("GPT of a mask as a list", lambda: MODEL(IDS[None, :4], mask=[[True]]), "mask", "list")
for part in (CausalSelfAttention, FeedForward, Block):
    refuses(part, {"config": CONFIG}, config=NOT_CONFIG)
refuses(evaluating, {"model": MODEL}, model=NOT_MODEL)
refuses(causality_gap, {"model": MODEL, "idx": IDS[None, :6], "position": 3}, model=NOT_MODEL,
        idx=NOT_ROWS, position=[*NOT_INT, (0, "=0 should be"), (6, "below T = 6"), (-1, "=-1")])

# Sampling
SAMPLING = {
    "temperature": [*NOT_FLOAT, (-0.5, "-0.5 should be at least 0"), (None, "it should be float")],
    "top_k": MAYBE_1,
    "top_p": [*NOT_FLOAT, (1.5, "1.5 should be between"), (-0.1, "-0.1 should be between")],
}
PROMPT = {"model": MODEL, "idx": IDS[None, :3], "max_new_tokens": 1}
NOT_PROMPT = [
    (IDS[:3], "has the shape (3,), it should have the shape (B, T)"),
    ([[1, 2, 3]], "idx[0]=[1, 2, 3] is list, it should be a torch.Tensor of shape (T,)"),
    ([1, 2, 3], "idx[0]=1 is int, it should be a torch.Tensor"), ("abc", "is str"),
    (None, "NoneType"), (np.array([[1]]), "idx[0]"),
    (IDS[None, :3].float(), "torch.int64, not torch.float32"),
    ([IDS[:3].float()], "idx[0] should be torch.int64"), (IDS[None].byte(), "not torch.uint8"),
]
for function in (generate, generate_tokens):
    refuses(function, PROMPT, model=NOT_MODEL, idx=NOT_PROMPT, max_new_tokens=NOT_0, seed=MAYBE_0,
            cache=[("yes", "it should be bool"), (1, "it should be bool")], **SAMPLING)
case("generate from nothing", lambda: generate(MODEL, IDS[None, :0], 1), "the prompt is empty")
case("generate from other ids", lambda: generate(MODEL, IDS[None] + 1, 1), "run from", "0 … 4")
refuses(next_token_probabilities, {"logits": torch.zeros(2, 5)}, **SAMPLING,
        logits=[([0.0, 1.0], "it should be Tensor"), (torch.tensor([NAN, 1.0]), "are not finite"),
                (torch.tensor([1, 2]), "torch.int64"), (torch.zeros(2, 0), "(2, 0)"),
                (torch.tensor(1.0), "()"), (None, "it should be Tensor")])
refuses(pick, {"probabilities": torch.full((1, 2), 0.5), "numbers": [0.5]},
        probabilities=[([[1.0]], "it should be a torch.Tensor"), (torch.ones(2), "shape (2,)"),
                       (torch.zeros(1, 2), "should have a sum above 0"),
                       (torch.tensor([[NAN, 1.0]]), "should have a sum above 0")],
        numbers=[(0.5, "it should be a list"), (["0.5"], "numbers[0]='0.5' is str"),
                 ([NAN], "numbers[0]=nan"), ([0.1, 0.2], "2 numbers"), ([1.5], "below 1")])
TEXT = {"model": MODEL, "tokenizer": TOKENIZER, "prompt": "abc", "max_new_tokens": 2}
for function in (generate_text, stream_text):
    refuses(function, TEXT, model=NOT_TRAINABLE, tokenizer=NOT_TOKENIZER, prompt=NOT_TEXT,
            max_new_tokens=NOT_0)
refuses(stream_text, TEXT, **SAMPLING, seed=MAYBE_0,
        stop=[(5, "it should be a list"), ([5], "stop[0]=5 is int"), (b"a", "it should be a list"),
              ([None], "stop[0]=None is NoneType")])
case("a prompt of other characters", lambda: generate_text(MODEL, TOKENIZER, "x"), "'x'")
case("a tokenizer with more ids than the model",
     lambda: generate_text(MODEL, CharTokenizer("abcdefgh"), "h"),
     "the tokenizer has 8 tokens", "vocab_size=5")

# Training, of at most one step
RUN = {"model": Bigram(5), "train_ids": IDS, "val_ids": IDS, "block_size": 4, "config": TRAINING,
       "progress": False}
refuses(train, RUN, model=NOT_TRAINABLE, train_ids=NOT_ROW, block_size=NOT_1, config=NOT_TRAINING,
        val_ids=[*NOT_ROW[:1], *NOT_ROW[2:], ([1, 2], "val_ids[0] should be a batch"),
                 ([], "should be tokens, (N,), or a list of at least one batch"),
                 ([IDS], "val_ids[0] should be a"),
                 ([(1, 2)], "val_ids[0][0]=1 is int")],
        tokenizer=NOT_TOKENIZER[1:], out_dir=[(5, "5 is int, it should be str or Path"),
                                              ("", "out_dir=''")],
        on_eval=NOT_FUNCTION, optimizer=NOT_FUNCTION, extra_loss=NOT_FUNCTION, stop=NOT_FUNCTION,
        progress=[("no", "it should be bool"), (None, "it should be bool")])
case("train on other ids", lambda: train(**RUN | {"train_ids": IDS + 1}), "token ids", "0 … 4")
case("train with a last target that is unknown",
     lambda: train(**RUN | {"val_ids": torch.cat([IDS, torch.tensor([7])])}), "token ids", "7")
case("evaluate a last target that is unknown",
     lambda: evaluate(Bigram(5), torch.cat([IDS, torch.tensor([7])]), 4), "token ids", "7")
case("train a larger block than the model's", lambda: train(**RUN | {"model": GPT(CONFIG),
     "block_size": 20}), "block_size=20 should be at most 8")
refuses(evaluate, {"model": MODEL, "ids": IDS, "block_size": 4}, model=NOT_TRAINABLE, ids=NOT_ROW,
        block_size=NOT_1)
refuses(text_windows, {"ids": IDS, "block_size": 4}, ids=NOT_ROW, block_size=NOT_1)
refuses(evaluate_batches, {"model": MODEL, "batches": text_windows(IDS, 4)}, model=NOT_TRAINABLE)
refuses(learning_rate, {"config": TRAINING, "step": 0, "block_size": 4}, config=NOT_TRAINING,
        step=NOT_0, block_size=NOT_1)
refuses(make_optimizer, {"model": MODEL, "config": TRAINING}, model=NOT_TRAINABLE,
        config=NOT_TRAINING)


class WithOptimizer(Bigram):
    """A model with a part whose name begins like the optimizer's tensors in a checkpoint."""

    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.optimizer = nn.Linear(2, 2)


refuses(save_checkpoint, {"path": "new.safetensors", "model": MODEL}, model=NOT_MODEL,
        path=[*NOT_PATH, ("model.json", "should end in .safetensors")],
        tokenizer=[pair for pair in NOT_TOKENIZER if pair[0] is not None])
case("train with a tokenizer that has more tokens than the model",
     lambda: train(**RUN | {"tokenizer": CharTokenizer("abcdefgh")}),
     "the tokenizer has 8 tokens", "vocab_size=5")
refuses(read_header, {"path": "CHECKPOINT"}, path=NOT_PATH)
refuses(load_weights, {"path": "CHECKPOINT", "model": GPT(CONFIG)}, path=NOT_PATH, model=NOT_MODEL)
OPTIMIZER = make_optimizer(MODEL, TRAINING)
refuses(load_optimizer, {"path": "CHECKPOINT", "optimizer": OPTIMIZER},
        path=NOT_PATH, optimizer=[(None, "it should be Optimizer"), (MODEL, "should be Optimizer")])
case("save a model with a part called optimizer",
     lambda: save_checkpoint("x.safetensors", WithOptimizer(5)), "'optimizer'")


# Pictures -----------------------------------------------------------------------------------------

def axes() -> Axes:
    return new_figure()[1]


NOT_AXES = [(None, "it should be Axes"), ([], "it should be Axes")]
refuses(new_figure, {"columns": 1}, columns=NOT_1, rows=NOT_1,
        width=[*NOT_FLOAT, (0.0, "above 0.0")], height=[*NOT_FLOAT, (-1.0, "above 0.0")])
refuses(show, {"figure": new_figure()[0], "alt": "a line"}, alt=NOT_TEXT,
        figure=[(None, "it should be Figure"), (axes(), "it should be Figure")])
refuses(mark_level, {"axes": axes(), "level": 1.0, "name": "ln V"}, axes=NOT_AXES, level=NOT_FLOAT,
        name=NOT_TEXT)
refuses(mark_baselines, {"axes": axes(), "vocab_size": 65}, vocab_size=NOT_1, bigram_loss=NOT_FLOAT)
ROW = {"step": 0, "train_loss": 4.2, "val_loss": 4.2}
refuses(plot_loss, {"axes": axes(), "history": [ROW], "vocab_size": 65}, axes=NOT_AXES,
        vocab_size=NOT_1, history=[(None, "it should be a list"), ([{}], "have the key 'step'"),
                                   ([5], "history[0]=5 is int")])
MATRIX = {"axes": axes(), "matrix": [[1.0, 2.0]], "row_labels": ["a"], "column_labels": ["b", "c"],
          "xlabel": "x", "ylabel": "y"}
refuses(plot_matrix, MATRIX, matrix=[(None, "shape ()"), ([1.0], "shape (1,)"), ("ab", "numbers"),
                                     ([[1], [1, 2]], "numbers"), ([[]], "shape (1, 0)")],
        row_labels=[("ab", "it should be a list"), ([1], "row_labels[0]=1 is int")])
BARS = {"axes": axes(), "probabilities": [0.5, 0.5], "labels": ["a", "b"]}
refuses(plot_distribution, BARS, most=NOT_1,
        labels=[("ab", "it should be a list"), (["a"], "1 label")],
        probabilities=[([], "shape (0,)"), ([[1.0]], "shape (1, 1)"), (None, "shape ()"),
                       (["a", "b"], "should be numbers")])
good("plot_distribution of a tensor", lambda: plot_distribution(**BARS | {
    "probabilities": torch.tensor([0.5, 0.5])}))
case("plot_distribution of a tensor with a gradient", lambda: plot_distribution(**BARS | {
    "probabilities": torch.tensor([0.5, 0.5], requires_grad=True)}), "probabilities", "detach()")
refuses(visible, {"token": "a"}, token=NOT_TEXT)
refuses(plot_memory, {"axes": axes(), "parts": {"weights": 1}, "peak": 2},
        parts=[(None, "it should be Mapping"), ({"weights": -1}, "should be at least 0.0"),
               ({"weights": None}, "parts['weights']=None"), ([1, 2], "it should be Mapping")],
        peak=[*NOT_FLOAT, (-1.0, "should be at least 0.0")])
refuses(plot_gap, {"axes": axes(), "gaps": {"GPT": {"fact": 1.0}}},
        gaps=[({}, "is empty"), (None, "it should be Mapping"), ({"GPT": 1.0}, "gaps['GPT']=1.0")])


# Byte pair encoding -------------------------------------------------------------------------------

refuses(simple.train, {"text": "to be", "n_merges": 1}, text=NOT_TEXT, n_merges=NOT_0,
        pattern=NOT_TEXT)
MERGES = {(97, 98): 256}
refuses(simple.encode, {"text": "to be", "merges": MERGES}, text=NOT_TEXT,
        merges=[(None, "it should be Mapping"), ([(97, 98)], "it should be Mapping"),
                ({"ab": 256}, "a key of merges='ab' is str"),
                ({(97, 98): "x"}, "merges[(97, 98)]='x' is str")])
refuses(simple.decode, {"ids": [97], "merges": MERGES},
        ids=[([999], "id 999"), (["a"], "id='a' is str"), ("97", "it should be a list"),
             ([97.5], "id=97.5 is float"), (None, "it should be a list")])
refuses(BPETokenizer, {"merges": [(97, 98)]}, pattern=NOT_TEXT,
        merges=[(5, "it should be a list"), ("ab", "it should be a list"),
                ([(97,)], "merges[0]=[97] should be a pair"), ([97], "merges[0]=97 is int"),
                ([("a", "b")], "merges[0][0]='a' is str"), ([(97, 999)], "merge")],
        special_tokens=[("<|end|>", "'<|end|>' is str, it should be Mapping"),
                        (["<|end|>"], "it should be Mapping"), ({"a": "x"}, "'x' is str"),
                        ({5: 300}, "a key of special_tokens=5 is int")],
        byte_order=[(range(9), "every byte"), (None, "it should be a list"), (["a"], "is str")])
case("a special token with the id 3", lambda: BPETokenizer(special_tokens={"a": 3}),
     "special tokens must be at least 256", "3")
case("a special token without a name", lambda: BPETokenizer(special_tokens={"": 300}), "empty")
BPE = BPETokenizer.train("low lower lowest", 259)
SPECIAL = BPETokenizer((), special_tokens={"<|end|>": 256})
refuses(BPETokenizer().add_merge, {"left": 97, "right": 98}, left=NOT_0, right=NOT_0)
refuses(BPETokenizer.train, {"text": "low lower lowest", "vocab_size": 257}, pattern=NOT_TEXT,
        text=[(None, "it should be str or a list"), (b"low", "should be str or a list"),
              (5, "it should be str or a list"), ({"low": 5}, "it should be str or a list"),
              ([b"low"], "a part of text=b'low' is bytes"), ([5], "a part of text=5 is int")],
        vocab_size=[*NOT_1, (255, "at least 256"), (9999, "is too large for this text")],
        special_tokens=[("<|end|>", "'<|end|>' is str, it should be a list"), (None, "should be a"),
                        ([5], "special_tokens[0]=5 is int")])
NOT_NAMES = [("<|end|>", "'<|end|>' is str, it should be a list"), (None, "it should be a list"),
             ([5], "[0]=5 is int"), (5, "it should be a list")]
refuses(SPECIAL.encode, {"text": "a", "allowed_special": ["<|end|>"]}, text=NOT_TEXT,
        allowed_special=NOT_NAMES, disallowed_special=NOT_NAMES)
case("an unknown special token", lambda: SPECIAL.encode("a", ["<|x|>"]), "'<|x|>' is not a special")
refuses(BPE.encode_word, {"word": b"low"}, word=[("low", "is str, it should be bytes"),
                                                 (None, "it should be bytes")])
for function in (BPE.decode, BPE.decode_bytes):
    refuses(function, {"ids": [97]}, ids=NOT_IDS)
refuses(BPE.decode_stream, {"ids": [97]}, ids=[("97", "it should be a list"), (None, "be a list")])
case("token_bytes('a')", lambda: BPE.token_bytes("a"), "id='a' is str, it should be int")
case("decode_stream of floats", lambda: list(BPE.decode_stream([97.5])), "id=97.5 is float")
refuses(compile_pattern, {"pattern": r"\w+"}, pattern=[*NOT_TEXT, ("(", "regular expression")])
NO_FILE = [*NOT_PATH, ("no/such/file", "'no/such/file' should be an existing file"),
           (".", "'.' should be an existing file"), ("", "'' should be an existing file")]
NO_NEW_FILE = [*NOT_PATH, ("no/such/folder/x", "should be a file in an existing folder"),
               (".", "should be a file in an existing folder")]
refuses(BPETokenizer.load, {"path": "TOKENIZER_FILE"}, path=NO_FILE)
refuses(BPE.save, {"path": "NEW_FILE"}, path=NO_NEW_FILE)
refuses(exchange.to_ranks, {"tokenizer": BPE}, tokenizer=[(TOKENIZER, "it should be BPETokenizer"),
                                                          (None, "it should be BPETokenizer")])
RANKS = exchange.to_ranks(BPE)
refuses(exchange.from_ranks, {"ranks": RANKS, "pattern": BPE.pattern}, pattern=NOT_TEXT,
        ranks=[(None, "it should be Mapping"), ({"a": 0}, "a key of ranks='a' is str"), ({}, "256"),
               ({b"a": "0"}, "is str, it should be int")],
        special_tokens=[("<|end|>", "it should be Mapping"), (["<|end|>"], "it should be Mapping")])
refuses(exchange.save_tiktoken, {"tokenizer": BPE, "path": "NEW_FILE"}, path=NO_NEW_FILE)
refuses(exchange.load_tiktoken, {"path": "RANKS_FILE"}, path=NO_FILE, pattern=NOT_TEXT)
refuses(exchange.find_tiktoken, {"seconds": 0.1}, name=NOT_TEXT,
        seconds=[*NOT_FLOAT, (0.0, "above 0.0")])
refuses(make_tokenizer, {"name": "char", "text": "abc"}, text=NOT_TEXT, vocab_size=NOT_1,
        name=[(None, "it should be str"), (["char"], "it should be str")])
case("a tokenizer called bep", lambda: make_tokenizer("bep", "abc"), "'bep'", "did you mean 'bpe'")
refuses(save_tokenizer, {"tokenizer": TOKENIZER, "path": "NEW_FILE"}, tokenizer=NOT_TOKENIZER,
        path=NO_NEW_FILE)
refuses(load_tokenizer, {"saved": TOKENIZER.to_dict()},
        saved=[*NO_FILE, ({"class": "CharTokenizer"}, "should have the key 'alphabet'")])
for content in ({}, {"class": "X"}, {"class": ["X"]}, {"class": None}):
    case(f"load_tokenizer({content})", lambda content=content: load_tokenizer(content),
         "the dict describes no tokenizer", "'class' should be one of")


# Variants -----------------------------------------------------------------------------------------

ROLLING_CONFIG = VariantConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=8,
                               memory="mean", window=4)
ROLLING = RollingGPT(ROLLING_CONFIG)
refuses(RollingGPT, {"config": ROLLING_CONFIG},
        config=[(CONFIG, "it should be VariantConfig"), (ROLLING, "it should be VariantConfig")])
case("RollingGPT without a memory", lambda: RollingGPT(VariantConfig(vocab_size=5)),
     "memory='attention' should be one of")
refuses(ROLLING.new_cache, {"batch_size": 1}, batch_size=NOT_1)
case("RollingGPT of a row", lambda: ROLLING(IDS), "idx has the shape (60,)")
case("RollingGPT of a list", lambda: ROLLING([[1]]), "token ids", "not list")
case("RollingGPT of other ids", lambda: ROLLING(IDS[None] + 1), "run from 1 to 5")
case("RollingGPT of uint8", lambda: ROLLING(IDS[None].byte()), "torch.int64, not torch.uint8")
case("RollingGPT with edit=5", lambda: ROLLING(IDS[None], edit=5), "edit=5 is int", "a function")
refuses(token_losses, {"model": MODEL, "idx": IDS[None, :6]}, model=NOT_MODEL, idx=NOT_ROWS)
refuses(load_model, {"path": "CHECKPOINT"}, path=[*NOT_PATH, (MODEL, "should be str or Path")])
case("load_model('no/such')", lambda: load_model("no/such"), "no/such does not exist")
HEADER = {"model": "Bigram", "config": {"vocab_size": "x"}}
case("a Bigram's header with vocab_size='x'", lambda: model_from_header(HEADER), "vocab_size='x'")


# Made-up texts ------------------------------------------------------------------------------------

for function in (theatre.grammar, theatre.entropy, theatre.mean_length, theatre.play_template):
    refuses(function, {"level": 1}, level=NOT_LEVEL)
refuses(theatre.plays, {"level": 1, "seed": 1}, level=NOT_LEVEL, seed=NOT_0)
refuses(theatre.write_play, {"level": 1, "rng": random.Random(1)}, level=NOT_LEVEL,
        rng=[(None, "it should be Random"), (1, "it should be Random")])
refuses(theatre.generate, {"n_characters": 10, "level": 1, "seed": 1}, n_characters=NOT_0,
        level=NOT_LEVEL, seed=NOT_0)
PLAY = theatre.generate(10, level=1, seed=1)
refuses(theatre.score, {"text": PLAY, "level": 1}, text=NOT_TEXT, level=NOT_LEVEL)
refuses(theatre.whole_plays, {"text": PLAY}, text=NOT_TEXT)
PLAYWRIGHT = CharTokenizer(PLAY)
PLAYER = Bigram(PLAYWRIGHT.vocab_size)
GAP = {"model": PLAYER, "tokenizer": PLAYWRIGHT, "text": PLAY, "level": 1}
refuses(floor.gap_by_kind, GAP, model=NOT_TRAINABLE, tokenizer=NOT_TOKENIZER, level=NOT_LEVEL,
        text=[*NOT_TEXT, (PLAY[:-1], "the text ends within a play"), ("", "ends within a play")])
refuses(floor.nats_per_token, {"model": MODEL, "sequences": [IDS]}, model=NOT_TRAINABLE,
        given=NOT_1, sequences=[(IDS, "sequences[0] has the shape ()"),
                                (5, "it should be a list"),
                                ([[1, 2]], "sequences[0]=[1, 2] is list")])
case("nats_per_token of a short sequence",
     lambda: floor.nats_per_token(MODEL, [IDS[:2]], given=3), "sequences", "given=3")
refuses(floor.below_floor, {"model_nats": 10.0, "source_nats": 20.0}, model_nats=NOT_FLOAT,
        source_nats=NOT_FLOAT, t=[*NOT_FLOAT, (-1.0, "at least 0.0")])

COURIER = courier.Courier()
refuses(courier.Courier, {}, n_windows=[*NOT_INT, (1, "should be at least 2")], n_facts=NOT_1,
        n_values=NOT_1, lags=[*NOT_INT, (3, "3 should be 1 or 2"), (0, "0 should be 1 or 2")],
        body=[*NOT_INT, (1, "should be at least 2")])
GENERATOR = torch.Generator().manual_seed(0)
LETTER = COURIER.batch(1, GENERATOR)
refuses(COURIER.batch, {"B": 1, "generator": GENERATOR}, B=NOT_1,
        generator=[(None, "it should be Generator"), (5, "it should be Generator")])
refuses(COURIER.stream, {"B": 1, "seed": 0}, B=NOT_1, seed=NOT_0)
refuses(COURIER.spell, {"text": LETTER[0]}, text=[
    *NOT_TOKENS, (LETTER, "it should have the shape"), (LETTER[0, :5], "5 tokens"),
])
case("spell other ids", lambda: COURIER.spell(LETTER[0] + 99), "token ids run from")
READER = GPT(GPTConfig(vocab_size=COURIER.vocab_size, block_size=32, n_layer=1, n_head=2, n_embd=8))
refuses(courier.courier_losses, {"model": READER, "courier": COURIER, "x": LETTER}, x=NOT_ROWS,
        model=NOT_MODEL, courier=[(None, "it should be Courier"), (READER, "it should be Courier")])
refuses(courier.courier_scores, {"model": READER, "courier": COURIER, "n": 1}, n=NOT_1,
        model=NOT_MODEL)
case("courier_scores with edit=5", lambda: courier.courier_scores(READER, COURIER, 5), "edit=5")
refuses(courier.courier_batch, {"courier": COURIER, "x": LETTER}, x=NOT_ROWS)
refuses(courier.train_on_courier, {"model": READER, "courier": COURIER, "config": TRAINING},
        model=NOT_TRAINABLE, config=NOT_TRAINING)


# The leaderboard ----------------------------------------------------------------------------------

CORPUS = Corpus("play", PLAY, "a test")
RESULT = {"out_dir": "NEW_FILE", "chapter": "01_bigram", "model": "bigram", "parameters": 25,
          "seconds": 1.0, "val_loss": 2.0, "vocab_size": 5, "corpus": CORPUS, "val_text": PLAY}
refuses(save_result, RESULT, out_dir=NOT_PATH, chapter=NOT_TEXT, parameters=NOT_0, vocab_size=NOT_1,
        model=[("", "''"), ("a/b", "'a/b'"), (None, "None"), (MODEL, "without slashes")],
        seconds=[*NOT_FLOAT, (-1.0, "at least 0.0")], corpus=[("play", "it should be Corpus")],
        val_loss=[*NOT_FLOAT, (INF, "finite number"), (-1.0, "at least 0.0")],
        val_text=[("", "at least one character"), (None, "None"), (["a"], "['a']")])
TABLE_ROW = {"chapter": "1", "model": "m", "parameters": 1, "seconds": 1.0, "val_loss": 1.0,
             "bits_per_character": 1.0, "vocab_size": 5, "corpus": "play", "corpus_sha256": "0"}
refuses(leaderboard, {"rows": [TABLE_ROW]},
        rows=[(None, "it should be a list"), ("x", "it should be a list"),
              ([{}], "should have the key 'chapter'"), ([5], "rows[0]=5 is int")])
refuses(read_results, {"runs": "runs"}, runs=NOT_PATH, corpus=[("play", "it should be Corpus")])


# Widgets ------------------------------------------------------------------------------------------

MODELS = {"mine": (MODEL, TOKENIZER)}
NOT_MODELS = [([MODEL], "it should be Mapping"), ({"m": MODEL}, "it should be a path or (model"),
              ({"m": (MODEL, None)}, "should be a tokenizer"), ("runs", "it should be Mapping"),
              ({"m": (TOKENIZER, MODEL)}, "it should be Module"),
              ({"m": None}, "it should be a path")]
refuses(Sampler, {"models": MODELS, "prompt": "a"}, models=NOT_MODELS, prompt=NOT_TEXT_OR_NONE,
        length=[*NOT_INT, (0, "between 1 and 500"), (501, "between 1 and 500")])
refuses(AttentionExplorer, {"models": MODELS, "text": "abc"}, models=NOT_MODELS, text=NOT_TEXT)
refuses(TimeWeightViewer, {"models": MODELS}, models=NOT_MODELS)
refuses(ContextViewer, {"models": MODELS, "text": "abc"}, models=NOT_MODELS, text=NOT_TEXT)
refuses(MergeStepper, {"tokenizer": BPE, "sentence": "low"}, sentence=NOT_TEXT,
        tokenizer=[(TOKENIZER, "it should be BPETokenizer"), (None, "it should be BPETokenizer")])
refuses(BigramRow, {"table": torch.ones(5, 5), "tokenizer": TOKENIZER, "text": "a"},
        tokenizer=NOT_TOKENIZER, text=NOT_TEXT,
        table=[([[1]], "it should be counts, (V, V), or a Bigram"),
                (torch.ones(5, 4), "has the shape (5, 4), it should have the shape (V, V)"),
                (torch.ones(4, 4), "the table has 4 rows and the tokenizer")])
BOARD = {"model": MODEL, "train_ids": IDS, "val_ids": IDS, "block_size": 4, "config": TRAINING,
         "out_dir": "NEW_FILE", "tokenizer": TOKENIZER, "prompt": "a"}
refuses(TrainingBoard, BOARD, model=NOT_TRAINABLE, train_ids=NOT_ROW, val_ids=NOT_ROW,
        block_size=NOT_1, config=NOT_TRAINING, out_dir=NOT_PATH, tokenizer=NOT_TOKENIZER,
        prompt=NOT_TEXT_OR_NONE,
        resume=[("yes", "one of 'never', 'auto'"), (True, "one of 'never'")],
        levels=[([2.5], "it should be Mapping"), ({"a": None}, "levels['a']=None")])
refuses(attention_weights, {"model": MODEL, "idx": IDS[:4]}, model=NOT_MODEL, idx=NOT_ROW)
case("attention_weights of a Bigram", lambda: attention_weights(Bigram(5), IDS[:4]), "attention")
refuses(find_checkpoints, {"runs": "runs"}, runs=[(5, "5 is int, it should be str or Path")])


# Tensors without numbers, and numbers that are not finite -----------------------------------------

with torch.device("meta"):
    META = GPT(CONFIG)
ON_META = "is on the device 'meta'"
case("train a model on meta", lambda: train(**RUN | {"model": META}), ON_META)
case("evaluate a model on meta", lambda: evaluate(META, IDS, 4), ON_META)
case("generate on meta", lambda: generate(META, IDS[None, :3], 2), ON_META)
case("save a model on meta", lambda: save_checkpoint("a.safetensors", META), ON_META)
case("load into a model on meta", lambda: load_weights("CHECKPOINT", META), ON_META)
case("train on the device meta",
     lambda: train(**RUN | {"config": TrainConfig(device="meta")}), "device='meta' is not avail")
case("train frozen weights", lambda: train(**RUN | {"model": Bigram(5).requires_grad_(False)}),
     "no parameter of the model can be trained")
case("infinite counts", lambda: Bigram.from_counts(COUNTS * INF), "should have a finite sum")
case("a huge smoothing", lambda: Bigram.from_counts(COUNTS, 1e39), "should have a finite sum")
ON = "on the device 'meta', "
META_IDS = torch.zeros(1, 3, dtype=torch.long, device="meta")
case("ids on meta", lambda: MODEL(META_IDS), f"token ids are {ON}where tensors have no numbers")
case("ids of a bigram on meta", lambda: Bigram(5)(META_IDS), f"token ids are {ON}where tensors")
case("a prompt on meta", lambda: generate(MODEL, META_IDS, 2), f"idx is torch.int64 {ON}it should")
case("decode on meta", lambda: TOKENIZER.decode(META_IDS[0]), "ids=tensor(")
case("counts on meta", lambda: Bigram.from_counts(COUNTS.to("meta")), f"float32 {ON}it should")
case("complex counts", lambda: Bigram.from_counts(COUNTS.to(torch.complex64)), "should hold real")
case("document nan", lambda: document_mask(torch.tensor([[NAN, 0.0]])), "documents has nan")


case("int8 of None", lambda: int8_copy(None), "model=None")


# Caches -------------------------------------------------------------------------------------------

ONE = torch.zeros(1, 3, dtype=torch.long)
NOT_ITS_CACHE = "the cache is not one of this model"
case("a cache of three texts", lambda: MODEL(ONE, MODEL.new_cache(3)), "made for 3 texts",
     "gets 1: use new_cache(1)")
case("a cache of another depth", lambda: MODEL(ONE, KVCache(5, 1, 8)), NOT_ITS_CACHE)
case("a word as a cache", lambda: MODEL(ONE, "cache"), NOT_ITS_CACHE)
case("the cache of a rolling GPT", lambda: MODEL(ONE, ROLLING.new_cache(1)), NOT_ITS_CACHE)
case("the cache of a GPT", lambda: ROLLING(ONE, MODEL.new_cache(1)), NOT_ITS_CACHE)
case("a rolling cache of two texts", lambda: ROLLING(ONE, ROLLING.new_cache(2)), "for 2 texts")
case("a longer cache", lambda: MODEL(ONE, KVCache(1, 1, 99)), NOT_ITS_CACHE)
case("the same row twice", lambda: filled_cache(2).set_rows([0, 0], filled_cache(2)),
     "rows=[0, 0] should be different rows")
case("no token", lambda: MODEL(ONE[:, :0]), "idx has the shape (1, 0)", "at least one token")
case("losses of one token", lambda: token_losses(MODEL, ONE[:, :1]), "each row needs two tokens")
case("losses of other ids", lambda: token_losses(MODEL, ONE + torch.tensor([0, 0, 99])), "to 99")
case("a block in place of its class", lambda: GPT(CONFIG, block=Block(CONFIG)),
     "block is a Block already, it should be the class")
case("attention in place of its class",
     lambda: Block(CONFIG, attention=CausalSelfAttention(CONFIG)), "attention is a CausalSelfAtt")
case("a negative probability", lambda: pick(torch.tensor([[0.5, 0.6, -0.1]]), [0.9]), "negative")
case("decay within the warm-up", lambda: TrainConfig(warmup=100, lr_decay=50),
     "lr_decay=50 should be above warmup=100, or 0")
case("a vocabulary of 64 bits", lambda: GPTConfig(vocab_size=2 ** 63), "should be below 2 ** 63")
case("check_parameters of a list", lambda: gptlib.config.check_parameters([("a", 1)], a=int),
     "should be a dict, such as globals()")
case("an alphabet of bytes", lambda: CharTokenizer(b"abc"), "should be str or a list of str")
case("a text of bytes", lambda: BPETokenizer.train(b"abc", 257), "should be str or a list of")
case("truncate to booleans", lambda: filled_cache(2).truncate(torch.tensor([True, True])),
     "should be an integer, or one for each of the 2 rows")
LONG_TEXT = torch.zeros(1, 8, dtype=torch.long)
for edit, found in {None: "NoneType", "short": "(1, 1, 7)"}.items():
    case(f"edit returns {edit}", lambda edit=edit: ROLLING(
        LONG_TEXT, edit=lambda context: edit and context[..., :-1]), "edit should return", found)


# Batches of a function ----------------------------------------------------------------------------

ROWS = torch.zeros(2, 4, dtype=torch.long)


def train_on(*batches):
    """Train on the given batches, the last one again and again."""
    return train(**RUN | {"train_ids": lambda step: batches[min(step, len(batches) - 1)]})


case("a batch of None", lambda: train_on(None), "the batch of step 1 should be a batch: a tuple")
case("a batch of numpy", lambda: train_on((ROWS.numpy(), ROWS.numpy())), "should be Tensor")
case("a batch of two shapes", lambda: train_on((ROWS, ROWS[:, 1:])), "x of the shape (2, 4)",
     "y of the shape (2, 3)")
case("a batch of int32 targets", lambda: train_on((ROWS, ROWS.int())), "use y.long()")
case("a batch without rows", lambda: train(**RUN | {"val_ids": [(ROWS[0], ROWS[0])]}),
     "val_ids[0] has x of the shape (4,)")
case("a late batch with other ids",
     lambda: train(**RUN | {"config": replace(TRAINING, max_steps=2), "train_ids": lambda step: (
         ROWS, ROWS + 99 * step)}), "token ids run from 99 to 99, but the model knows 0 … 4")
case("evaluate_batches(None)", lambda: evaluate_batches(MODEL, None), "batches=None")
case("a batch that is a tensor", lambda: evaluate_batches(MODEL, [ROWS]), "should be a batch")


class Pair(nn.Module):
    """A model that returns its logits and one more value."""

    def __init__(self):
        super().__init__()
        self.model = Bigram(5)

    def forward(self, idx):
        return self.model(idx), None


case("a model that returns a pair", lambda: train(**RUN | {"model": Pair()}),
     "the model returned a tuple", "it should return a tensor of logits, (B, T, V)")
for result in (None, torch.ones(2), "0.1", NAN):
    case(f"extra_loss returns {result}", lambda result=result: train(**RUN | {
        "extra_loss": lambda model: result}), "the result of extra_loss", "should be ")
case("optimizer returns None", lambda: train(**RUN | {"optimizer": lambda model, config: None}),
     "the result of the function optimizer", "it should be Optimizer")
case("save an optimizer's name",
     lambda: save_checkpoint("a.safetensors", MODEL, optimizer="adam"), "optimizer='adam' is str")


def narrow_optimizer():
    """Return the optimizer of a model with as many parameters as MODEL, in other shapes."""
    return make_optimizer(GPT(replace(CONFIG, n_embd=16)), TRAINING)


def save_with_state():
    model = GPT(CONFIG)
    optimizer = make_optimizer(model, TRAINING)
    model(ONE).sum().backward()
    optimizer.step()
    save_checkpoint("state.safetensors", model, optimizer=optimizer, step=1)


case("the state of another optimizer",
     lambda: (save_with_state(), load_optimizer("state.safetensors", narrow_optimizer())),
     "holds the optimizer of another model")


# Speculative decoding, plans, results -------------------------------------------------------------

refuses(generate_speculative, {"model": MODEL, "draft": Bigram(5), "idx": ONE, "max_new_tokens": 2},
        model=NOT_MODEL, draft=NOT_MODEL, idx=NOT_ROWS, max_new_tokens=NOT_0, n_draft=NOT_0,
        seed=MAYBE_0)
PLAN = {"config": CONFIG, "train_config": TRAINING, "train_tokens": 100, "val_tokens": 10}
refuses(plan_run, PLAN, config=NOT_CONFIG, train_config=NOT_TRAINING, train_tokens=NOT_1,
        val_tokens=NOT_0, text=NOT_TEXT, speed=[(0.5, "it should be Speed")])
refuses(calibrate, {"config": CONFIG, "train_config": TRAINING, "train_ids": IDS, "val_ids": IDS,
                    "steps": 1}, steps=[*NOT_INT, (0, "at least 1")], train_ids=NOT_ROW)
case("a result of no chapter", lambda: save_result(**RESULT | {"chapter": " "}), "chapter=' '",
     "such as '01_bigram'")
case("a result with an array", lambda: save_result(**RESULT, seeds=np.array([1])), "JSON")
case("a result with '5' tokens", lambda: save_result(**RESULT, val_tokens="5"), "val_tokens='5'")
case("a result in a file", lambda: save_result(**RESULT | {"out_dir": "RANKS_FILE"}),
     "out_dir='RANKS_FILE' should be a folder")
case("a result with a long name", lambda: save_result(**RESULT | {"model": "m" * 300}),
     "cannot be written (File name too long)")
case("a table with words", lambda: leaderboard([dict.fromkeys(TABLE_ROW, "a")]),
     "['parameters']='a'")
case("a hash of no file", lambda: code_hash("no_file"), "'no_file' is not a file of gptlib")
case("a short text of the courier", lambda: courier.courier_losses(READER, COURIER, LETTER[:, :5]),
     "a text of this courier has 32 tokens, not the 5 tokens of x")
case("a short batch of the courier", lambda: courier.courier_batch(COURIER, LETTER[:, :5]),
     "not the 5 tokens of x")
case("kinds of a short text", lambda: courier.answer_kinds(COURIER, LETTER[:, :5]), "5 tokens of x")
case("losses in words",
     lambda: plot_loss(axes(), [{"step": 0, "train_loss": "a", "val_loss": "b"}], 65),
     "history[0]['train_loss']='a' should be a number")
case("too few labels of columns", lambda: plot_matrix(**MATRIX | {"column_labels": ["b"]}),
     "the labels of one side are 1")
case("a probability of nan", lambda: plot_distribution(**BARS | {"probabilities": [NAN, 0.5]}),
     "neither nan nor infinite")
case("a picture of 9 km", lambda: new_figure(width=360_000.0), "should be at most 100 inches")
case("a list of drawings", lambda: show_drawing(["attention_head"]), "name=['attention_head']")
case("from_tiktoken(name)", lambda: exchange.from_tiktoken("gpt2"), "should be a tiktoken.Encoding")
case("a row of tokens without a dimension", lambda: split(torch.tensor(5)), "has the shape ()")
case("ids of a token for the tensor", lambda: BPETokenizer(special_tokens={"<a>": 2 ** 70}),
     "must be below 2 ** 63")
case("a special token that is not unicode", lambda: BPETokenizer(special_tokens={"\ud800": 256}),
     "half a surrogate pair")
case("a huge alphabet", lambda: LowercaseTokenizer(10 ** 12), "should be at most 1000000")
case("a prompt of None", lambda: default_prompt(None), "should be a tokenizer")
case("unknown_share of 5", lambda: unknown_share(LOWERCASE, 5), "text=5 is int")
case("simple pattern", lambda: simple.train("low", 1, pattern="("), "is not a regular expression")
case("simple surrogate", lambda: simple.encode("\ud800", MERGES), "half a surrogate pair")
for merges in ({(97, 98): 5}, {(300, 301): 256}, {(97, 98, 99): 256}):
    case(f"simple merges {merges}", lambda merges=merges: simple.decode([97], merges),
         "merges has", "and then 256")


# Names of files and folders -----------------------------------------------------------------------

READERS = {"load_tokenizer": load_tokenizer, "BPETokenizer.load": BPETokenizer.load,
           "load_tiktoken": exchange.load_tiktoken, "load_model": load_model,
           "read_header": read_header}
for name, read in READERS.items():
    case(f"{name} with a long name", lambda read=read: read("x" * 5000), "xxx")
    case(f"{name} with a zero", lambda read=read: read("a\0b"), "a character that no path may")
    case(f"{name} with half a pair", lambda read=read: read("\ud800"), "a character that no path")
    case(f"{name} with a ~", lambda read=read: read("~/x"), "'~/x' begins with ~", "write '")
WRITERS = {
    "save_tokenizer": lambda path: save_tokenizer(TOKENIZER, path), "save": BPE.save,
    "save_tiktoken": lambda path: exchange.save_tiktoken(BPE, path),
    "save_checkpoint": lambda path: save_checkpoint(f"{path}.safetensors", MODEL),
    "train": lambda path: train(**RUN | {"out_dir": path}),
    "save_result": lambda path: save_result(**RESULT | {"out_dir": path}),
}
for name, write in WRITERS.items():
    case(f"{name} with a zero", lambda write=write: write("a\0b"), "a character that no path may")
    case(f"{name} with a ~", lambda write=write: write("~/x"), "begins with ~", "write '")
for name in ("save_tokenizer", "save", "save_tiktoken"):
    case(f"{name} with a long name", lambda write=WRITERS[name]: write("x" * 300),
         "could not be written (File name too long)")
    case(f"{name} to a device", lambda write=WRITERS[name]: write("/dev/null"), "be a file in an")


# The result of a user's function, and what is lost without a word ---------------------------------

for ids in (IDS[None], IDS[:, None]):
    case(f"split of {tuple(ids.shape)}", lambda ids=ids: split(ids), "should have the shape (N,)")
case("the class of an optimizer", lambda: train(**RUN | {"optimizer": torch.optim.SGD}),
     "optimizer=SGD is a class, it should be a function, such as lambda model, config: SGD(model.")
case("the optimizer of another model", lambda: train(**RUN | {
    "optimizer": lambda model, config: make_optimizer(Bigram(5), config)}),
    "an optimizer of another model", "model.parameters()")
case("a tokenizer of another text", lambda: train(**RUN | {"tokenizer": CharTokenizer("ab")}),
     "the text has the token 4, but the tokenizer has only 2 tokens")
case("a negative target", lambda: train(**RUN | {"val_ids": torch.cat([IDS, IDS[:1] - 100])}),
     "token ids run from -100 to 4, but the model knows 0 … 4")
case("stop without parentheses", lambda: train(**RUN | {"stop": lambda: print}),
     "the result of stop", "it should be True or False")
for result in (torch.tensor(INF), torch.tensor(NAN)):
    case(f"extra_loss returns {result}", lambda result=result: train(**RUN | {
        "extra_loss": lambda model: result}), "the result of extra_loss", "a finite number")
case("train weights of one byte", lambda: train(**RUN | {"model": int8_copy(MODEL)}),
     "a model with weights of one byte cannot be trained")
case("save weights of one byte", lambda: save_checkpoint("a.safetensors", int8_copy(MODEL)),
     "cannot hold a model with weights of one byte: save the model that was given to int8_copy")
case("round a row to int8", lambda: round_to_int8(IDS.float()), "it should have the shape (O, I)")
case("names with ids", lambda: BPETokenizer.train("low lower", 257, special_tokens={"<a>": 300}),
     "special_tokens={'<a>': 300} is dict, it should be a list")
case("decode a dict", lambda: TOKENIZER.decode({0: 1}), "ids={0: 1} is dict, it should be a list")
case("the generator of numpy", lambda: COURIER.batch(1, np.random.default_rng(0)),
     "it should be torch._C.Generator, not one of numpy")
case("more given tokens than a block", lambda: floor.nats_per_token(MODEL, [IDS], given=9),
     "given=9 should be at most block_size=8")
refuses(Speed, {"step": 0.1, "evaluation": 0.1}, step=[*NOT_FLOAT, (-1.0, "at least 0")],
        evaluation=[*NOT_FLOAT, (NAN, "finite number")], checkpoint=[(-1.0, "at least 0")])
refuses(BigramRow, {"table": COUNTS, "tokenizer": TOKENIZER, "text": "a"},
        table=[(-COUNTS, "counts, which are at least 0"), (NAN * COUNTS, "at least 0")])
NOT_MATRICES = [({}, "it should have at least one matrix"), (COUNTS, "Mapping"),
                ({"a": torch.ones(2)}, "matrices['a'] should be a matrix, (m, n)"),
                ({"a": NAN * torch.ones(2, 2)}, "of finite floating-point numbers"),
                ({"a": torch.ones(2, 2).int()}, "of finite floating-point numbers")]
refuses(SingularValues, {"matrices": {"a": torch.ones(2, 2)}, "steps": 0}, matrices=NOT_MATRICES,
        steps=[(11, "steps=11"), (-1, "steps=-1"), (1.5, "steps=1.5")])
refuses(CourierFact, {}, models=[({}, "is empty: give at least one model")])
refuses(save_result, RESULT, model=[("a\nb", "a name of one line"), (" ", "a name of one line")])
NOT_SEEDS = [([], "two numbers or more"), ([1.0], "two numbers or more, one for each seed"),
             (np.array([1.0, NAN]), "[1]=nan should be a finite number"), (3.0, "be a list"),
             (np.ones((2, 2)), "it should be float"), (["a", "b"], "[0]='a' is str")]
refuses(finding, {"differences": [0.1, 0.2]}, differences=NOT_SEEDS)
refuses(summary, {"differences": [0.1, 0.2]}, differences=NOT_SEEDS)
case("a ranking of one seed", lambda: ranking({"a": np.array([1.0])}),
     "losses['a']=[1.0]", "two numbers")
case("no measurement", lambda: Measurement("no.json"), "path='no.json' should be an existing file")
case("a tokenizer as a measurement", lambda: Measurement("TOKENIZER_FILE"),
     "TOKENIZER_FILE is not the measurement that benchmarks/time_weighting.py writes")
case("a tokenizer called by its text", lambda: make_tokenizer("to be " * 99, "char"),
     "unknown tokenizer 'to be")
case("labels of bars", lambda: plot_distribution(**BARS | {"labels": ["a"]}), "a label for each")
for changed, fragment in (
    ({"bytes": "abc"}, "bytes='abc' should be the characters"),
    ({"bytes": 5}, "bytes=5 should be the characters"),
    ({"merges": ["lo w"]}, "merges[0]='lo w' should be two tokens"),
    ({"merges": "l o"}, "saved['merges']='l o' is str, it should be a list"),
):
    case(f"from_dict with {changed}", lambda changed=changed: BPETokenizer.from_dict(
        BPE.to_dict() | changed), fragment)
case("from_dict of another library", lambda: BPETokenizer.from_dict({"model": {"type": "BPE"}}),
     "should have the key 'pattern'")
good("names of special tokens from a dict", lambda: SPECIAL.encode("a", SPECIAL.special_tokens))
good("an alphabet from a dict", lambda: CharTokenizer(TOKENIZER.ids))
good("the merges of another tokenizer", lambda: BPETokenizer(BPE.merges).merges == BPE.merges
     or 1 / 0)


# Good neighbours ----------------------------------------------------------------------------------

good("numbers of numpy", lambda: get_batch(IDS, np.int64(4), np.int32(2), np.uint8(0), np.int64(0)))
good("a float without fraction", lambda: get_batch(IDS, 4.0, 2.0, 0, 0))
good("a tensor with one number", lambda: generate(MODEL, IDS[None, :3], torch.tensor(1)))
good("int32 ids", lambda: evaluate(MODEL, IDS.int(), 4))
good("int32 prompts", lambda: generate(MODEL, IDS[None, :3].int(), 1))
good("a list of rows", lambda: generate(MODEL, [IDS[:3], IDS[:5]], 1))
good("an infinite temperature", lambda: generate(MODEL, IDS[None, :3], 1, temperature=INF))
good("no stop string", lambda: list(stream_text(**TEXT, stop=None)))
good("a set of stop strings", lambda: list(stream_text(**TEXT, stop={"a", "b"})))
good("fractions 0 and 1", lambda: (split(IDS, 0), split("text", 1)))
good("ids as a numpy array", lambda: TOKENIZER.decode(np.array([0, 1], dtype=np.uint8)))
good("ids as a tensor", lambda: TOKENIZER.decode(torch.tensor([0, 1], dtype=torch.uint8)))
good("ids from a generator", lambda: list(BPE.decode_stream(i for i in (97, 98))))
good("ids as whole floats", lambda: TOKENIZER.decode([1.0]) == "b" or 1 / 0)
good("several texts", lambda: BPETokenizer.train(["low lower", "lowest"], 257))
good("all special tokens", lambda: SPECIAL.encode("<|end|>", "all"))
good("a batch as a list", lambda: evaluate_batches(MODEL, [[IDS[None, :4], IDS[None, 1:5]]]))
good("no seed", lambda: generate(MODEL, IDS[None, :3], 1, seed=None))
good("an extra loss of a number", lambda: train(**RUN | {"extra_loss": lambda model: 0.5}))
good("merges as lists", lambda: simple.merge([1, 2], [1, 2], 256) == [256] or 1 / 0)
good("a single linear layer", lambda: int8_copy(nn.Linear(4, 4)).scale)
good("an optimizer's class", lambda: train(**RUN | {
    "optimizer": lambda model, config: torch.optim.SGD(model.parameters(), lr=0.1)}))


# Models, tokenizers, caches and corpora that do not belong together
LARGER = CharTokenizer("abcdefgh")
OTHER = GPT(CONFIG)


def read_on(first, second, n_texts=1):
    """Let `second` read on in a cache that `first` has filled."""
    cache = first.new_cache(n_texts)
    first(IDS[None, :3], cache)
    return second(IDS[None, 3:5], cache)


good("a cache of the same model", lambda: read_on(MODEL, MODEL))
case("a cache that another model has filled", lambda: read_on(MODEL, OTHER), "not one of this mod")
case("a cache that another rolling model has filled",
     lambda: read_on(ROLLING, RollingGPT(ROLLING_CONFIG)), "the cache is not one of this model")
case("a tokenizer with fewer ids than the model",
     lambda: generate_text(MODEL, CharTokenizer("a"), "a", 100, seed=0),
     "the model has drawn token", "the tokenizer has only 1 tokens")
case("a checkpoint with a tokenizer of more ids",
     lambda: save_checkpoint("m.safetensors", MODEL, LARGER), "the tokenizer has 8 tokens")
WIDER = GPT(GPTConfig(vocab_size=49, block_size=32, n_layer=1, n_head=2, n_embd=8))
case("a model with more tokens than the courier",
     lambda: courier.courier_losses(WIDER, COURIER, LETTER), "the model has 49 tokens")
case("answers of a model with more tokens than the courier",
     lambda: answer_probabilities(WIDER, COURIER, LETTER[0]), "the model has 49 tokens")
case("a courier with 27 facts as text",
     lambda: CourierTokenizer(courier.Courier(n_facts=27, body=54)), "n_facts=27", "at most 26")
refuses(CourierTokenizer.from_dict, {"saved": {"courier": {"n_facts": 1}}},
        saved=[({}, "should have the key 'courier'"), ({"courier": {"n": 1}}, "the options of a"),
               ({"courier": 3}, "options of a Courier")])
case("a seed of the courier that is too large", lambda: next(COURIER.stream(1, 2 ** 70)), "2 ** 63")
case("a table with two corpora", lambda: leaderboard(
     [TABLE_ROW, TABLE_ROW | {"corpus": "other", "corpus_sha256": "other"}]), "2 different corpora")
case("a file in place of the folder of all runs", lambda: read_results("RANKS_FILE"),
     "should be the folder above the folders of the chapters")
for name in ("bits_per_character", "bits_per_byte", "corpus_sha256"):
    case(f"a result with its own {name}", lambda name=name: save_result(**RESULT | {name: 1}), name,
         "computed from the other arguments")
case("a result in no folder", lambda: save_result(**RESULT | {"out_dir": ""}), "out_dir=''")
case("a result with half a surrogate pair", lambda: save_result(**RESULT | {"val_text": "\ud800"}),
     "half a surrogate pair")

# Values that were taken without a word, or refused with an error of Python, numpy or PyTorch
case("merges with ids of their own", lambda: BPETokenizer({(97, 98): 500}), "500", "256 is the")
case("a simple pattern that skips a character", lambda: simple.train("abc", 1, "a"), "skips", "'b'")
case("a simple pattern that is wrong", lambda: simple.split_into_bytes("abc", "("), "not a regular")
good("a simple pattern with groups", lambda: simple.split_into_bytes("ab", "(a)(b)"))
case("a special token with the id of a rank", lambda: exchange.load_tiktoken(
     "RANKS_FILE", special_tokens={"<|end|>": 257}), "'<|end|>' has the id 257", "such as 259")
case("a checkpoint as a tokenizer", lambda: load_tokenizer("CHECKPOINT/best.safetensors"),
     "it is not utf-8 text")
refuses(round_to_int8, {"weight": torch.ones(2, 2)}, weight=[
    (torch.tensor([[NAN, 1.0]]), "neither nan nor infinity"),
    (torch.tensor([[INF, 1.0]]), "neither nan nor infinity"),
    (torch.ones(2, 0), "at least one number in each row")])
case("logits as probabilities", lambda: plot_distribution(axes(), [5.0, 7.0], ["a", "b"]),
     "the sum of probabilities is 12", "logits.softmax(-1)")
ROW = {"step": 1, "train_loss": 1.0, "val_loss": 1.0}
for loss in ([1, 2], torch.ones((), requires_grad=True)):
    case(f"a loss {loss}", lambda loss=loss: plot_loss(axes(), [ROW | {"train_loss": loss}], 65),
         "history[0]['train_loss']=", "should be a number")
case("a matrix of complex numbers", lambda: plot_matrix(
     axes(), torch.ones(2, 2, dtype=torch.cfloat), [], [], "x", "y"), "should be numbers")
for resume in ("auto", "restart"):
    case(f"resume={resume} without a folder",
         lambda resume=resume: train(**RUN | {"resume": resume}),
         f"resume='{resume}' needs the folder")
for shape in ((2, 3), (0, 4), (2, 0)):
    case(f"batches of shape {shape}", lambda shape=shape: train(**RUN | {
         "train_ids": lambda step: [torch.zeros(shape, dtype=torch.long)] * 2}), f"shape {shape}")
case("no validation batches", lambda: evaluate_batches(MODEL, []),
     "there are no validation batches")
case("the best evaluation of none", lambda: TrainResult().best, "interrupted before the first one")
refuses(Muon, {"groups": [nn.Parameter(torch.ones(2, 2))]}, lr=[*NOT_FLOAT, (-1.0, "at least 0")],
        betas=[(0.9, "it should be a list"), ([0.9], "two numbers"), ((0.9, 1.0), "below 1")])
refuses(orthogonalize, {"matrices": torch.ones(2, 2)}, matrices=[
    (torch.ones(2), "of shape (2,)"), (torch.ones(2, 2).long(), "torch.int64 of shape (2, 2)")])
refuses(optimizers.make_optimizer, {"model": MODEL, "config": TRAINING}, model=NOT_TRAINABLE,
        config=NOT_TRAINING)
case("three channels to rotate", lambda: rotate(torch.ones(1, 1, 2, 3), IDS[None, :2]), "3 chan")
refuses(row_probabilities, {"counts": torch.ones(2), "smoothing": 0.0},
        counts=[(torch.tensor([1.0, -1.0]), "at least 0"),
                (torch.tensor([NAN, 1.0]), "at least 0")])
for kind in ("int", 5, None, [1, 2]):
    case(f"the kind {kind!r} of a parameter", lambda kind=kind: check_parameters({"n": 3}, n=kind),
         f"the kind of 'n' is {kind!r}, it should be a type")
for config in ("GPTConfig", CONFIG, int):
    case(f"{config!r} as the class of a config".split("(")[0],
         lambda config=config: check_parameters({}, config), "should be the class of a config")
case("400 digits", lambda: GPTConfig(vocab_size=10 ** 400), "vocab_size=1000", "below 2 ** 63")
case("2 ** 63 steps", lambda: TrainConfig(max_steps=2 ** 63), "should be below 2 ** 63")
case("a device that does not exist", lambda: KVCache(1, 1, 4, device="gpu9"), "device='gpu9'")
good("an infinite temperature of numpy", lambda: generate(
     MODEL, IDS[None, :3], 1, temperature=np.float32(INF)))
case("logits without numbers", lambda: next_token_probabilities(torch.ones(3, device="meta")),
     "meta")
case("probabilities of no token", lambda: pick(torch.ones(1, 0), [0.5]), "no columns")
case("a stop string 0", lambda: generate_text(MODEL, TOKENIZER, "a", 3, stop=0), "stop=0 is int")
case("a tensor in a checkpoint", lambda: save_checkpoint("m.safetensors", MODEL, step=IDS),
     "step=tensor(", "is not JSON")
case("a checkpoint below a file", lambda: save_checkpoint("RANKS_FILE/m.safetensors", MODEL),
     "RANKS_FILE is a file")
case("a checkpoint without a name", lambda: save_checkpoint(".safetensors", MODEL),
     "such as 'gpt.safetensors'")
case("a corpus that is not a text", lambda: Corpus("a", 3, "b"), "text=3 is int, it should be str")
case("a report for many parameters", lambda: Corpus("a", "b", "c").report("many"),
     "parameters='many'")
case("a step that takes no time", lambda: Speed(0, 1), "step=0.0 should be above 0")
good("a very long run", lambda: clock(1e15) + clock(INF))
MEASUREMENT = Measurement(Path(gptlib.__file__).parents[1] / "benchmarks/time_weighting.json")
case("losses of an unknown attention", lambda: MEASUREMENT.losses("linear"), "one of 'plain'")
refuses(MEASUREMENT.at_equal_time, {"attention": "toeplitz"},
        cost_error=[*NOT_FLOAT, (-1.0, "should be above -1")])
case("a number of a folder to grade", lambda: grade(5), "folder=5 is int, it should be str or Path")
case("a checkpoint without a tokenizer", lambda: get_model({"a": "CHECKPOINT"}, "a"),
     "was saved without a tokenizer")
TOEPLITZ = make_model(VariantConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=8,
                                    attention="toeplitz"))
refuses(with_distance_weights, {"model": TOEPLITZ, "weights": torch.ones(3)},
        model=[(MODEL, "has no weights by distance")], layer=[(5, "layer=5 should be below 1")],
        head=[(9, "head=9 should be below 2")], weights=[(torch.ones(30), "at most 8")])
NAN_DRAFT = Bigram(5)
NAN_DRAFT.table.weight.data.fill_(NAN)
case("a draft that has diverged", lambda: generate_speculative(MODEL, NAN_DRAFT, IDS[None, :3], 2),
     "the draft's logits have nan")
case("a Path with the name of a corpus", lambda: load_corpus(Path("theatre")),
     "there is no file 'theatre'", "write load_corpus('theatre')")
case("a Path with the name auto", lambda: load_corpus(Path("auto")), "write load_corpus('auto')")
case("a result with a set", lambda: save_result(**RESULT, note={1, 2}),
     "note={1, 2} cannot be written, because it is not JSON")
case("a result with a config", lambda: save_result(**RESULT, config=CONFIG), "config=GPTConfig(")
SHORT_READER = GPT(GPTConfig(vocab_size=COURIER.vocab_size, block_size=30, n_layer=1, n_head=2,
                             n_embd=8))
NOT_COURIER_READER = [
    (SHORT_READER, "the model reads at most block_size=30 tokens, and it should read the 31"),
    (MODEL, "the model has 5 tokens in its vocabulary, and the courier has 12"),
]
refuses(courier.train_on_courier, {"model": READER, "courier": COURIER, "config": TRAINING},
        model=NOT_COURIER_READER)
refuses(courier.courier_scores, {"model": READER, "courier": COURIER, "n": 1},
        model=NOT_COURIER_READER)
EXACT_READER = GPT(GPTConfig(vocab_size=COURIER.vocab_size, block_size=31, n_layer=1, n_head=2,
                             n_embd=8))
good("a courier for a model that just reads it",
     lambda: courier.train_on_courier(EXACT_READER, COURIER, TRAINING))
EMPTY_BATCH = (IDS[None, :0], IDS[None, :0])
case("training with an empty batch", lambda: gptlib.train(**RUN | {"val_ids": [EMPTY_BATCH]}),
     "val_ids[0] has x and y of the shape (1, 0), they should hold at least one token")
case("an evaluation of an empty batch", lambda: evaluate_batches(MODEL, [EMPTY_BATCH]),
     "they should hold at least one token")
for part in (None, 3):
    NO_PART = f"returned {part}, it should return a part of a model, an nn.Module"
    case(f"a block that is {part}", lambda part=part: GPT(CONFIG, block=lambda config: part),
         "block " + NO_PART)
    case(f"a norm that is {part}", lambda part=part: GPT(CONFIG, norm=lambda n, bias: part),
         "norm " + NO_PART)
    case(f"attention that is {part}",
         lambda part=part: Block(CONFIG, attention=lambda config: part), "attention " + NO_PART)
good("a function that makes a block", lambda: GPT(CONFIG, block=lambda config: Block(config))(ONE))
for options in ({"dpi": "a"}, {"subplot_kw": "polar"}, {"gridspec_kw": {"width_ratios": [1, 2]}}):
    case(f"a figure with {options}", lambda options=options: new_figure(**options),
         f"the options {options} should be arguments that plt.subplots")
case("a matrix from 'a'", lambda: plot_matrix(**MATRIX, vmin="a"), "'vmin': 'a'", "axes.imshow")
case("a matrix with a colour", lambda: plot_matrix(**MATRIX, colour="Blues"), "'colour': 'Blues'")
good("a matrix from 0", lambda: plot_matrix(**MATRIX, vmin=0, cmap="Greens"))
refuses(plot_distribution, BARS, color=[(3, "color=3 should be a colour of matplotlib")])
refuses(new_figure, {}, width=[(0.001, "width=0.001 should be at least 0.1 inches")])
good("the smallest figure", lambda: new_figure(width=0.1, height=0.1))
case("a sampler with another tokenizer", lambda: Sampler({"a": (MODEL, BPE)}),
     "the tokenizer has 259 tokens, but the model knows only vocab_size=5")


# The tests ----------------------------------------------------------------------------------------

@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Make the files that the good arguments name, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("TOKENIZER_FILE").write_text(json.dumps(BPE.to_dict()), encoding="utf-8")
    exchange.save_tiktoken(BPE, "RANKS_FILE")
    save_checkpoint("CHECKPOINT.safetensors", MODEL, optimizer=OPTIMIZER)
    Path("CHECKPOINT").mkdir()
    Path("CHECKPOINT.safetensors").rename("CHECKPOINT/best.safetensors")
    torch.manual_seed(0)


@pytest.mark.parametrize(("call", "fragments"), BAD)
def test_a_bad_value_is_refused_with_one_sentence_of_ours(call, fragments):
    with pytest.raises((ValueError, TypeError)) as caught:
        result = call()
        if inspect.isgenerator(result):
            next(result)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message
    assert "\n" not in message and 10 < len(message) < 400
    assert not [words for words in FOREIGN if words in message]
    # A `raise` in the library made this error, not a call of torch or Python.
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert Path(last.filename).is_relative_to(LIBRARY) and last.line.startswith("raise "), message


@pytest.mark.parametrize("call", GOOD)
def test_a_good_neighbour_is_accepted(call):
    result = call()
    if inspect.isgenerator(result):
        next(result)


@pytest.mark.parametrize("call", [
    lambda: Bigram(10 ** 7), lambda: count_bigrams(IDS, 10 ** 7),
    lambda: count_bigrams(IDS, 2 ** 40),
    lambda: get_batch(IDS, 4, 10 ** 13, 0, 0), lambda: get_batch(IDS, 4, 2 ** 60, 0, 0),
    lambda: GPT(GPTConfig(vocab_size=10 ** 12)), lambda: GPT(GPTConfig(vocab_size=2 ** 62)),
    lambda: generate(ROLLING, IDS[None, :3], 10 ** 13),
    lambda: list(stream_text(ROLLING, TOKENIZER, "abc", 10 ** 13)),
], ids=["Bigram", "counts", "more counts", "batch", "larger batch", "GPT", "larger GPT", "generate",
        "stream"])
def test_a_size_beyond_the_memory_is_refused_in_one_sentence(call):
    with pytest.raises(MemoryError, match="the memory of this machine is too small for these arg"):
        call()


def test_a_full_disk_leaves_the_older_tokenizer(monkeypatch):
    def refuse(number):
        raise OSError(28, "No space left on device")

    for save in (lambda path: save_tokenizer(TOKENIZER, path), BPE.save,
                 lambda path: exchange.save_tiktoken(BPE, path)):
        save("file")
        before = Path("file").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("gptlib.checkpoint.os.fsync", refuse)
            with pytest.raises(ValueError, match="No space left on device.*an older file there is"):
                save("file")
        assert Path("file").read_bytes() == before
        Path("file").unlink()


@pytest.mark.parametrize(("content", "fragment"), [
    ("[" * 100_000, "describes no tokenizer of this library (RecursionError)"),
    ('{"class": "CharTokenizer", "alphabet": "a\\ud800"}', "library: character"),
    ('{"class": "LowercaseTokenizer", "vocab_size": 1e15}', "should be at most 1000000"),
], ids=["deep", "surrogate", "huge"])
def test_an_error_in_a_file_of_a_tokenizer_begins_with_its_name(content, fragment):
    Path("bad.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="^bad.json describes no tokenizer") as caught:
        load_tokenizer("bad.json")
    assert fragment in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_tokenizer():
    Path("mark.json").write_text(json.dumps(TOKENIZER.to_dict()), encoding="utf-8-sig")
    assert load_tokenizer("mark.json").alphabet == TOKENIZER.alphabet


def test_a_line_that_is_no_rank_is_named():
    Path("half").write_bytes(b"YQ== 0\nYg=")
    with pytest.raises(ValueError, match="half is not a file of ranks: line 2 is b'Yg='"):
        exchange.load_tiktoken("half")


@pytest.mark.parametrize(("name", "content"), [
    ("a", json.dumps(dict.fromkeys(TABLE_ROW, "a"))), ("b", "["), ("c", "[" * 100_000), ("d", None),
])
def test_a_result_that_cannot_be_read_is_named(name, content):
    path = Path(f"runs/chapter/result-{name}.json")
    path.parent.mkdir(parents=True)
    path.mkdir() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"result-{name}.json holds no result of a chapter"):
        read_results("runs")


def test_there_are_at_least_300_different_bad_values():
    names = [parameter.id for parameter in BAD]
    assert len(set(names)) >= 300


def test_a_decorated_function_keeps_its_signature_and_its_docstring():
    assert list(inspect.signature(get_batch).parameters)[:2] == ["ids", "block_size"]
    assert get_batch.__doc__.startswith("Return random windows")
    assert inspect.signature(GPT.__init__).parameters["config"].annotation is GPTConfig


def test_a_decorator_with_an_unknown_argument_fails_when_the_function_is_defined():
    with pytest.raises(ValueError, match="'lenght' is not in list"):
        check_arguments(lenght=int)(lambda length: length)


def test_numbers_are_converted_where_this_loses_nothing():
    for value in (3, 3.0, np.int64(3), np.float32(3), torch.tensor(3), np.array(3)):
        converted = checked_value("n", value, int)
        assert converted == 3 and type(converted) is int
    assert type(checked_value("x", np.float32(0.5), float)) is float


@pytest.mark.parametrize(("probabilities", "top_p", "n_kept"), [
    ([0.5, 0.3, 0.1, 0.1], 0.8, 2), ([0.1] * 10, 0.6, 6), ([0.1] * 10, 0.61, 7),
    ([0.5, 0.3, 0.1, 0.1], 0.81, 3), ([0.5, 0.3, 0.2], 0.0, 1), ([0.25] * 4, 0.75, 3),
])
def test_top_p_on_a_border_keeps_no_token_more(probabilities, top_p, n_kept):
    kept = next_token_probabilities(torch.tensor(probabilities).log(), top_p=top_p)
    assert (kept > 0).sum() == n_kept
    ordered = kept.sort(descending=True).values
    assert all(a >= b for a, b in pairwise(ordered.tolist()))


@pytest.mark.parametrize("options", [
    {"memory": "tokens", "window": 4, "n_memory": 2}, {"memory": "mean", "window": 4},
    {"attention": "toeplitz"}, {"attention": "time_weighted", "token_shift": True},
    {"tie_weights": True}, {"position": "none", "bias": True},
], ids=str)
def test_the_parts_of_the_parameter_table_add_up_to_its_total(options):
    table = make_model(VariantConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=8,
                                     **options)).parameter_table()
    assert sum(table.values()) == 2 * table["total"]


def test_a_text_of_one_repeated_character_has_a_leaderboard():
    row = TABLE_ROW | {"vocab_size": 1, "bits_per_character": 0.0}
    assert leaderboard([row]).splitlines()[2].endswith("-")


def test_a_checkpoint_does_not_overwrite_a_file_that_is_no_header():
    for content in (json.dumps(TOKENIZER.to_dict()), "my notes", "[1]"):
        Path("gpt.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="gpt.json is not the header of a checkpoint"):
            save_checkpoint("gpt.safetensors", MODEL)
        assert Path("gpt.json").read_text(encoding="utf-8") == content
        assert not Path("gpt.safetensors").exists()
    Path("gpt.json").unlink()
    save_checkpoint("gpt.safetensors", MODEL)
    save_checkpoint("gpt.safetensors", MODEL, step=2)
    assert json.loads(Path("gpt.json").read_text(encoding="utf-8"))["about"] == {"step": 2}


def test_a_checkpoint_without_an_optimizer_is_not_loaded_silently():
    save_checkpoint("alone.safetensors", MODEL)
    with pytest.raises(ValueError, match="was saved without its optimizer"):
        load_optimizer("alone.safetensors", OPTIMIZER)


class Counting(torch.optim.SGD):
    """An optimizer that counts its steps in an integer."""

    def step(self, closure=None):
        super().step(closure)
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["count"] = 1


def test_an_optimizer_whose_state_is_no_tensor_is_named():
    with pytest.raises(ValueError, match="the state of this Counting: its 'count' is int"):
        train(**RUN | {"out_dir": "run", "optimizer": lambda model, config: Counting(
            model.parameters(), lr=0.1)})


def test_a_run_stays_in_its_folder_if_the_working_directory_changes(tmp_path, monkeypatch):
    Path("elsewhere").mkdir()
    train(**RUN | {"out_dir": "run", "on_eval": lambda row: monkeypatch.chdir(
        tmp_path / "elsewhere")})
    assert not list(Path().iterdir())
    about = read_header(tmp_path / "run/last.safetensors")["about"]
    assert about["step"] == TRAINING.max_steps
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == 2


def test_a_function_for_evaluations_cannot_change_the_history():
    result = train(**RUN | {"on_eval": dict.clear})
    assert [row["step"] for row in result.history] == [0, 1]


def test_a_file_called_earlier_is_named():
    train(**RUN | {"out_dir": "run"})
    Path("run/earlier").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="out_dir='run' cannot be written .run/earlier"):
        train(**RUN | {"out_dir": "run", "resume": "restart"})
    assert Path("run/earlier").read_text(encoding="utf-8") == "mine"
    assert read_header("run/last.safetensors")["about"]["step"] == 1


def test_a_folder_with_a_link_to_itself_holds_each_text_once():
    Path("plays").mkdir()
    Path("plays/a.txt").write_text("once", encoding="utf-8")
    Path("plays/again").symlink_to(Path("plays").resolve())
    assert load_corpus(Path("plays")).text == "once"


def test_a_data_folder_that_is_a_file_is_named(monkeypatch):
    monkeypatch.setenv("GPTLIB_DATA", "RANKS_FILE")
    with pytest.raises(ValueError, match="GPTLIB_DATA='RANKS_FILE' is a file, it should be the fo"):
        load_corpus("tinyshakespeare")


def test_weights_that_are_not_finite_are_told_from_a_training_that_diverged():
    model = Bigram(5)
    nn.init.constant_(model.table.weight, NAN)
    with pytest.raises(RuntimeError, match="before any training, so the model has wei"):
        train(**RUN | {"model": model})


def test_a_header_without_a_vocabulary_is_named(monkeypatch):
    monkeypatch.setattr(GPT, "config_dict", lambda model: {"block_size": 8})
    save_checkpoint("small.safetensors", MODEL)
    with pytest.raises(ValueError, match="not a whole checkpoint: its config has no vocab_size"):
        load_model("small.safetensors")


def test_an_empty_file_of_ranks_is_named():
    Path("empty").touch()
    with pytest.raises(ValueError, match="empty is empty, it should have a line for each token"):
        exchange.load_tiktoken("empty")


def test_a_tokenizer_that_is_not_utf8_is_named():
    Path("latin").write_bytes('{"pattern": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="latin contains no BPE tokenizer: it is not utf-8 text"):
        BPETokenizer.load("latin")


def test_an_error_about_a_tokenizer_does_not_repeat_the_whole_text():
    with pytest.raises(ValueError, match="unknown tokenizer") as caught:
        make_tokenizer("to be or not to be " * 1000, "char")
    assert len(str(caught.value)) < 200


def test_an_unknown_attention_of_the_measurement_is_named():
    measured = Measurement(LIBRARY.parent / "benchmarks/time_weighting.json")
    with pytest.raises(ValueError, match="attention='none' should be one of 'plain'"):
        measured.cost_ratios("none")
