"""Plan a training run: parameters, arithmetic, memory, text, and time on this machine.

    plan = plan_run(GPTConfig(vocab_size=65), TrainConfig(), len(train_ids), len(val_ids))
    print(plan.table())

`plan_run` computes a plan from the two configs. It does not need the weights in memory. Only time
is measured, by `calibrate`, because no formula contains the speed of a machine.

Units: 1 MB is 10**6 bytes. A FLOP is one addition or one multiplication.
"""

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from gptlib.checkpoint import CheckpointError, save_checkpoint
from gptlib.checks import any_path, at_least, check_arguments, optional, tokens
from gptlib.config import ConfigError, GPTConfig, TrainConfig, check_types, require
from gptlib.model import GPT
from gptlib.optimizers import make_optimizer
from gptlib.optimizers.muon import parameter_groups
from gptlib.train import EVAL_TOKENS, eval_tokens, evaluate, train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import window_config

FLOAT = 4                       # bytes; weights, gradients and their averages are float32
STATE = {"adamw": "AdamW state", "muon": "Muon state"}      # the name of the optimizer's memory
INTEGER = 8                     # bytes; a token and its target are int64
LIST_ITEM = 9                   # bytes; a list has 8 for each item, and grows by an eighth
TOKENS_PER_PARAMETER = 20       # Hoffmann et al. 2022 ("Chinchilla"), table 3
# The first steps of a calibration are slow, because memory is allocated and kernels are selected.
WARM_UP = 3


@dataclass(frozen=True)
class Speed:
    """The seconds that `calibrate` measured."""

    step: float                 # one training step, the median
    evaluation: float           # one pass over the whole validation split
    checkpoint: float = 0.0     # writing `best` and `last`, as after an evaluation with a new best

    def __post_init__(self):
        check_types(self)
        for name in ("step", "evaluation", "checkpoint"):
            require(getattr(self, name) >= 0, self, name, "at least 0")
        require(self.step > 0, self, "step", "above 0")


@dataclass(frozen=True)
class Plan:
    """The needs of a run. `print(plan.table())` shows them. Without a `speed` it has no times."""

    parameters: dict[str, int]  # by part of the model, and "total"
    flops_per_token: int        # of training: forward and backward pass
    memory: dict[str, int]      # bytes by part
    peak: int                   # bytes at the fullest moment, without Python and PyTorch
    peak_moment: str            # the name of that moment
    tokens: int                 # that the run reads; a token that is read twice counts twice
    epochs: float               # how many times the run reads the training split
    steps: int
    evaluations: int            # passes over the validation split
    speed: Speed | None = None

    @property
    def flops(self) -> int:
        """FLOP of all training steps, without evaluations."""
        return self.flops_per_token * self.tokens

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters["total"]

    @property
    def chinchilla_tokens(self) -> int:
        """The number of different tokens that suits this many parameters (Hoffmann et al. 2022).

        The rule asks for the lowest loss that a given amount of arithmetic can reach. It was fitted
        to models of 70 M to 16 B parameters, to subword tokens and to text that is read once. For
        characters, for small models, for repeated text, and for a model that is used more than it
        is trained, it is only a rough guide.
        """
        return TOKENS_PER_PARAMETER * self.parameters["total"]

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole run with evaluations and checkpoints, but without `on_eval`."""
        if self.speed is None:
            return None
        training = self.steps * self.speed.step
        per_evaluation = self.speed.evaluation + self.speed.checkpoint
        return training + self.evaluations * per_evaluation

    def table(self) -> str:
        """Return the plan as text, a line for each quantity: name, value, remark."""
        rows = [*self._parameter_rows(), *self._memory_rows(), *self._token_rows()]
        if self.speed:
            rows += self._time_rows()
        return "\n".join(f"{name:<28}{value:>14}   {remark}" for name, value, remark in rows)

    def _parameter_rows(self) -> list[tuple[str, str, str]]:
        total = self.parameters["total"]
        rows = [(f"parameters: {part}", f"{n:,}", f"{n / total:.1%}")
                for part, n in self.parameters.items()]
        return [*rows,
                ("training, per token", readable(self.flops_per_token, "FLOP"),
                 "6 · matrices + 12 · layers · width · block"),
                ("training, in all", readable(self.flops, "FLOP"), "evaluations left out")]

    def _memory_rows(self) -> list[tuple[str, str, str]]:
        total = self.parameters["total"]
        rows = [(f"memory: {part}", readable(n, "B"), f"{n / total:.3g} bytes a parameter")
                for part, n in self.memory.items()]
        remark = f"in {self.peak_moment}; Python and PyTorch come on top"
        return [*rows, ("memory: peak", readable(self.peak, "B"), remark)]

    def _token_rows(self) -> list[tuple[str, str, str]]:
        return [("tokens read", readable(self.tokens),
                 f"{self.tokens_per_parameter:.3g} a parameter"),
                ("epochs", f"{self.epochs:.3g}", "times the training split is read"),
                ("Chinchilla's rule", readable(self.chinchilla_tokens),
                 f"different tokens, {TOKENS_PER_PARAMETER} a parameter")]

    def _time_rows(self) -> list[tuple[str, str, str]]:
        speed = self.speed
        flops_per_second = self.flops / self.steps / speed.step
        return [("time: training", clock(self.steps * speed.step),
                 f"{self.steps:,} steps of {1000 * speed.step:.3g} ms"),
                ("time: evaluation", clock(self.evaluations * speed.evaluation),
                 f"{self.evaluations:,} of {speed.evaluation:.3g} s"),
                ("time: checkpoints", clock(self.evaluations * speed.checkpoint),
                 f"{self.evaluations:,} of {speed.checkpoint:.3g} s, if each is a new best"),
                ("time: in all", clock(self.seconds),
                 f"{readable(flops_per_second, 'FLOP/s')} in training")]


@check_arguments(
    config=GPTConfig, train_config=TrainConfig, train_tokens=at_least(1), val_tokens=at_least(0),
    speed=optional(Speed), text=str,
)
def plan_run(config: GPTConfig, train_config: TrainConfig, train_tokens: int, val_tokens: int,
             speed: Speed | None = None, text: str = "") -> Plan:
    """Return the plan of `train(make_model(config), …, config.block_size, train_config)`.

    Args:
        train_tokens, val_tokens: the lengths of the two splits.
        speed: from `calibrate`. Without it the plan has no times.
        text: the corpus, if it stays in memory during the run. Its bytes count as memory.
    """
    # The device "meta" gives tensors with shapes but without memory, so any size is possible.
    with torch.device("meta"):
        model = make_model(config)
    text_bytes = sys.getsizeof(text)
    memory = memory_parts(config, train_config, model)
    memory["text and tokens"] = text_bytes + INTEGER * (train_tokens + val_tokens)
    moments = {
        **training_moments(config, train_config, model, memory, val_tokens),
        "the encoding of the text": encoding_bytes(memory, train_tokens, text_bytes),
    }
    peak_moment = max(moments, key=moments.get)
    tokens = train_config.max_steps * train_config.batch_size * config.block_size
    return Plan(
        parameters=model.parameter_table(),
        flops_per_token=flops_per_token(config, model),
        memory=memory,
        peak=moments[peak_moment],
        peak_moment=peak_moment,
        tokens=tokens,
        epochs=tokens / train_tokens,
        steps=train_config.max_steps,
        evaluations=count_evaluations(train_config),
        speed=speed,
    )


def count_evaluations(train_config: TrainConfig) -> int:
    """Return the number of evaluations: one before the first step, then one each interval."""
    return 1 + -(-train_config.max_steps // train_config.eval_interval)


# Arithmetic ---------------------------------------------------------------------------------------


def block_vectors(config: GPTConfig) -> tuple[int, float]:
    """Return how many vectors one pass through the blocks reads, and how many that is per token.

    A GPT reads one vector for each token. With context rolling, a pass reads one window: its
    tokens, the context, and the memory tokens.
    """
    if isinstance(config, VariantConfig) and config.memory != "attention":
        vectors = window_config(config).block_size
        return vectors, vectors / config.window
    return config.block_size, 1


def flops_per_token(config: GPTConfig, model: GPT) -> int:
    """Return the FLOP of training per token: 6N + 12·L·C·T.

    Sources: Kaplan et al. 2020, section 2.1; PaLM (Chowdhery et al. 2022), appendix B.

    N is the number of weights in the matrices of the blocks and in the output layer. Tables are
    looked up, not multiplied, so they do not count. In the forward pass each weight multiplies and
    adds once (2 FLOP). The same is true for each query with T keys, and for each attention weight
    with a value (2·2·C·T in each layer). The backward pass takes twice as much as the forward pass.

    Left out are norms, GELU, softmax, biases, the loss and the optimizer (Muon multiplies matrices
    too). A fused attention kernel skips the half of the scores that the mask hides, and computes
    scores again in the backward pass. That is left out too.
    """
    T, vectors_per_token = block_vectors(config)
    matrix_weights = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    matrices = 6 * matrix_weights
    attention = 12 * config.n_layer * config.n_embd * T
    output_layer = 6 * config.vocab_size * config.n_embd
    return round(vectors_per_token * (matrices + attention)) + output_layer


# Memory -------------------------------------------------------------------------------------------


def memory_parts(config: GPTConfig, train_config: TrainConfig, model: GPT) -> dict[str, int]:
    """Return the bytes of weights, gradients, optimizer state and activations."""
    parameters = list(model.parameters())
    weights = FLOAT * sum(p.numel() for p in parameters)
    tokens_per_step = train_config.batch_size * config.block_size
    return {
        "weights": weights,
        "gradients": weights,
        STATE[train_config.optimizer]: state_bytes(train_config, model),
        "activations": tokens_per_step * activation_bytes(config),
    }


def state_bytes(train_config: TrainConfig, model: GPT) -> int:
    """Return the bytes of the optimizer's state.

    AdamW keeps two averages of each weight, of its gradient and of the gradient's square, and
    counts the steps of each tensor. For the matrices of the blocks, Muon keeps one average.
    """
    by_muon = []
    if train_config.optimizer == "muon":
        groups = parameter_groups(model, train_config)
        by_muon = [weight for group in groups if group["n_matrices"] for weight in group["params"]]
    parameters = list(model.parameters())
    averages = 2 * sum(p.numel() for p in parameters) - sum(p.numel() for p in by_muon)
    step_counts = len(parameters) - len(by_muon)
    return FLOAT * (averages + step_counts)


def training_moments(config: GPTConfig, train_config: TrainConfig, model: GPT,
                     memory: dict[str, int], val_tokens: int) -> dict[str, int]:
    """Return three moments of the training that need much memory, with the bytes of each."""
    tokens_per_step = train_config.batch_size * config.block_size
    logits = FLOAT * config.vocab_size * tokens_per_step
    windows = max(1, min(EVAL_TOKENS, eval_tokens(model)) // config.block_size)
    tokens_per_evaluation = min(windows * config.block_size, val_tokens)
    weights, file = memory["weights"], memory["weights"] + memory[STATE[train_config.optimizer]]
    always = file + memory["gradients"] + memory["text and tokens"]
    return {
        # The gradients of the logits and of the log-probabilities.
        "a training step": always + memory["activations"] + 2 * logits,
        "an evaluation": always + tokens_per_evaluation * evaluation_bytes(config),
        # A copy of the weights. The content of the file exists twice.
        "the writing of a checkpoint": always + weights + 2 * file,
    }


def encoding_bytes(memory: dict[str, int], train_tokens: int, text_bytes: int) -> int:
    """Return the bytes at the moment when the text is encoded, before the training."""
    splits = text_bytes                 # the two splits are copies of the text
    token_list = LIST_ITEM * train_tokens
    return memory["weights"] + memory["text and tokens"] + splits + token_list


def activation_bytes(config: GPTConfig) -> int:
    """Return the bytes per token that the forward pass stores for the backward pass, on a CPU.

    Each block stores what its operations need again. Fused attention stores one number for each
    head. With dropout the CPU has no fused kernel, so three times T weights for each head are
    stored. Without dropout and for mlp_ratio=4, a block of width C stores about 16·C numbers.
    """
    C, V, dropout = config.n_embd, config.vocab_size, config.dropout > 0
    T, vectors_per_token = block_vectors(config)
    norm_inputs = 2 * C
    norm_outputs = 2 * C
    norm_statistics = 4                         # mean and inverse deviation of two norms
    queries_keys_values = 3 * C
    attention_weights = 3 * T * config.n_head if dropout else config.n_head
    attention_output = C
    if getattr(config, "rotary", False) or getattr(config, "qk_norm", False):
        queries_keys_values += 2 * C            # changed queries and keys beside the old ones
        attention_output += C                   # their layout requires a copy of the output
    hidden_input_output = 2 * config.mlp_ratio * C
    dropout_masks = 2 * C * dropout             # one float for each number
    block = (norm_inputs + norm_outputs + norm_statistics + queries_keys_values + attention_weights
             + attention_output + hidden_input_output + dropout_masks)
    first_dropout = C * dropout
    last_norm = 2 * C + 2
    floats = vectors_per_token * (config.n_layer * block + first_dropout + last_norm)
    log_probabilities = FLOAT * V
    token_and_target = 2 * INTEGER
    return round(FLOAT * floats) + log_probabilities + token_and_target


def evaluation_bytes(config: GPTConfig) -> int:
    """Return the bytes per token at the fullest moment of an evaluation.

    Without gradients no block stores anything for later. The fullest moment is either GELU in a
    block, or the logits. The logits of the batch before are still in memory.
    """
    C, V = config.n_embd, config.vocab_size
    residual_and_norm = 3 * C
    hidden_input_output = 2 * config.mlp_ratio * C
    at_gelu = residual_and_norm + hidden_input_output
    final_states = 2 * C                        # before and after the last norm
    at_logits = final_states + V
    logits_before = V
    return FLOAT * (max(at_gelu, at_logits) + logits_before)


# Time ---------------------------------------------------------------------------------------------


@check_arguments(
    ConfigError, config=GPTConfig, train_config=TrainConfig, train_ids=tokens("N"),
    val_ids=tokens("N"), steps=int, out_dir=optional(any_path),
)
def calibrate(config: GPTConfig, train_config: TrainConfig, train_ids: Tensor, val_ids: Tensor,
              steps: int = 20, out_dir: str | Path | None = None) -> Speed:
    """Measure the speed of a run: train for `steps` steps and evaluate a few batches.

    `train` itself does the steps, so everything it does is measured. The model is thrown away.

    Args:
        out_dir: the folder of the run's checkpoints, so that writing is measured on that disk. The
            files go to a temporary folder, which is removed. None for a run without checkpoints.

    Raises:
        ConfigError: `steps` is smaller than 1.
        KeyboardInterrupt: the calibration was interrupted.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps} should be at least 1, to have something to time")
    with torch.random.fork_rng():
        model = make_model(config)
    step = seconds_per_step(model, config, train_config, train_ids, val_ids, steps)
    evaluation = seconds_per_evaluation(model, val_ids, config.block_size)
    checkpoint = seconds_per_checkpoint(model, train_config, out_dir) if out_dir else 0.0
    return Speed(step, evaluation, checkpoint)


def seconds_per_step(model: GPT, config: GPTConfig, train_config: TrainConfig, train_ids: Tensor,
                     val_ids: Tensor, steps: int) -> float:
    """Return the median time from the end of one optimizer step to the end of the next."""
    T, n_steps = config.block_size, WARM_UP + steps
    short = replace(train_config, max_steps=n_steps, eval_interval=n_steps)
    ends = []
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    try:
        result = train(model, train_ids, val_ids[:T + 1], T, short, progress=False,
                       optimizer=make_optimizer)
    finally:
        hook.remove()
    if result.interrupted:
        raise KeyboardInterrupt
    return float(np.median(np.diff(ends)[WARM_UP - 1:]))


def seconds_per_evaluation(model: GPT, val_ids: Tensor, block_size: int) -> float:
    """Return the time of one pass over the validation split, measured on its first two batches."""
    batch = max(1, EVAL_TOKENS // block_size) * block_size
    first_ids = val_ids[:2 * batch + 1]
    # The first pass is slower, so it is not measured.
    evaluate(model, val_ids[:batch + 1], block_size)
    start = time.perf_counter()
    evaluate(model, first_ids, block_size)
    seconds = time.perf_counter() - start
    return seconds * (len(val_ids) - 1) / (len(first_ids) - 1)


def seconds_per_checkpoint(model: GPT, train_config: TrainConfig, out_dir: str | Path) -> float:
    """Return the time to write `best` and `last` on the disk of `out_dir`."""
    optimizer = make_optimizer(model, train_config)
    # The gradients of the last step are still there. A step gives the optimizer a state to write.
    optimizer.step()
    path = Path(out_dir).resolve()
    existing = next(folder for folder in (path, *path.parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=existing, ignore_cleanup_errors=True) as folder:
            start = time.perf_counter()
            save_checkpoint(Path(folder) / "best.safetensors", model)
            save_checkpoint(Path(folder) / "last.safetensors", model, optimizer=optimizer)
            return time.perf_counter() - start
    except (OSError, CheckpointError):
        # Their text names the temporary folder, which the user does not know.
        raise CheckpointError(
            f"out_dir={str(out_dir)!r} cannot be written: is its disk full or read-only? Choose "
            "another folder, or steps=0, which writes nothing"
        ) from None


# Numbers as text ----------------------------------------------------------------------------------


def readable(number: float, unit: str = "") -> str:
    """Return a number with three digits and a prefix for a power of 1000.

    >>> readable(81_920_000, "B")
    '81.9 MB'
    """
    prefixes = " kMGTPEZY"
    for prefix in prefixes:
        if number < 999.5 or prefix == prefixes[-1]:
            return f"{number:.3g} {prefix.strip()}{unit}".strip()
        number /= 1000


def clock(seconds: float) -> str:
    """Return a duration: in seconds below 100 s, otherwise as days, hours, minutes and seconds.

    A duration of a thousand years or more is given in years.
    """
    if seconds < 100:
        return f"{seconds:.3g} s"
    years = seconds / timedelta(days=365.25).total_seconds()
    if years >= 1000:
        return f"{years:.3g} years"
    return str(timedelta(seconds=round(seconds)))
