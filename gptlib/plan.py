"""What a training run needs, before it is run: parameters, arithmetic, memory, text, and time on this machine.

The counting needs no model in memory and no machine: `plan_run` works it out from the two configs. Only time is
measured, by `calibrate`, because a machine's speed stands in no formula. Units: 1 MB is 10**6 bytes, and a FLOP is
one addition or one multiplication.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from gptlib.checkpoint import save_checkpoint
from gptlib.config import ConfigError, GPTConfig, TrainConfig
from gptlib.context_rolling import RollingConfig, make_model
from gptlib.model import GPT
from gptlib.train import EVAL_TOKENS, evaluate, make_optimizer, train

FLOAT = 4                       # bytes: weights, gradients and AdamW's averages are float32 on every device
TOKENS_PER_PARAMETER = 20       # Hoffmann et al. 2022 ("Chinchilla"), table 3
WARM_UP = 3                     # steps of a calibration that are not counted: memory is found, kernels are chosen


@dataclass(frozen=True)
class Speed:
    """What `calibrate` measured, in seconds."""

    step: float                 # one training step, the median
    evaluation: float           # one pass over the whole validation split
    checkpoint: float = 0.0     # the writing of `best` and `last`, as after an evaluation that finds a new best


@dataclass(frozen=True)
class Plan:
    """What a run needs. `print(plan.table())` shows it; without a `speed` it does not know how long."""

    parameters: dict[str, int]          # by part, and "total"
    flops_per_token: int                # of training, forward and backward
    memory: dict[str, int]              # bytes by part
    peak: int                           # bytes at the fullest moment, on top of Python, PyTorch, the text and freed blocks kept
    peak_moment: str                    # ... and which moment that is
    tokens: int                         # that the run reads, counted each time they are read
    epochs: float                       # times that it reads the training split
    steps: int
    evaluations: int                    # passes over the validation split
    speed: Speed | None = None

    @property
    def flops(self) -> int:
        """Of all training steps; evaluations are left out."""
        return self.flops_per_token * self.tokens

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters["total"]

    @property
    def chinchilla_tokens(self) -> int:
        """Different tokens that would suit this many parameters, at about 20 each (Hoffmann et al. 2022).

        The rule asks for the lowest loss that a given amount of arithmetic can buy, fitted to models of 70 M to
        16 B parameters, subword tokens and text read once: for characters, small models, repeated text, or a model
        that will be used more than it is trained, it is no more than a hint.
        """
        return TOKENS_PER_PARAMETER * self.parameters["total"]

    @property
    def seconds(self) -> float | None:
        """Of the whole run, evaluations and the writing of checkpoints included, but not what `on_eval` does."""
        return self.speed and self.steps * self.speed.step + self.evaluations * (self.speed.evaluation + self.speed.checkpoint)

    def table(self) -> str:
        total = self.parameters["total"]
        rows = [(f"parameters: {part}", f"{n:,}", f"{n / total:.1%}") for part, n in self.parameters.items()]
        rows += [("training, per token", readable(self.flops_per_token, "FLOP"), "6 · matrices + 12 · layers · width · block"),
                 ("training, in all", readable(self.flops, "FLOP"), "evaluations left out")]
        rows += [(f"memory: {part}", readable(n, "B"), f"{n / total:.3g} bytes a parameter") for part, n in self.memory.items()]
        rows += [("memory: peak", readable(self.peak, "B"), f"in {self.peak_moment}; Python and PyTorch come on top"),
                 ("tokens read", readable(self.tokens), f"{self.tokens_per_parameter:.3g} a parameter"),
                 ("epochs", f"{self.epochs:.3g}", "times the training split is read"),
                 ("Chinchilla's rule", readable(self.chinchilla_tokens), f"different tokens, {TOKENS_PER_PARAMETER} a parameter")]
        if self.speed:
            rows += [("time: training", clock(self.steps * self.speed.step), f"{self.steps:,} steps of {1000 * self.speed.step:.3g} ms"),
                     ("time: evaluation", clock(self.evaluations * self.speed.evaluation),
                      f"{self.evaluations:,} of {self.speed.evaluation:.3g} s"),
                     ("time: checkpoints", clock(self.evaluations * self.speed.checkpoint),
                      f"{self.evaluations:,} of {self.speed.checkpoint:.3g} s, if each is a new best"),
                     ("time: in all", clock(self.seconds), f"{readable(self.flops / self.steps / self.speed.step, 'FLOP/s')} in training")]
        return "\n".join(f"{name:<28}{value:>14}   {remark}" for name, value, remark in rows)


def plan_run(config: GPTConfig, train_config: TrainConfig, train_tokens: int, val_tokens: int, speed: Speed | None = None) -> Plan:
    """The plan of `train(make_model(config), …, config.block_size, train_config)` on splits of so many tokens."""
    with torch.device("meta"):                                          # shapes without numbers: no memory, however big
        model = make_model(config)
    parameters = model.parameter_table()
    n_weights = FLOAT * parameters["total"]
    tokens_per_step = train_config.batch_size * config.block_size
    memory = {
        "weights": n_weights,
        "gradients": n_weights,
        "AdamW state": 2 * n_weights + FLOAT * len(list(model.parameters())),       # two averages, and a step count per tensor
        "activations": tokens_per_step * activation_bytes(config),
    }
    logits = FLOAT * config.vocab_size
    moments = {
        "a training step": memory["activations"] + 2 * tokens_per_step * logits,    # gradients of logits and of their logarithms
        "an evaluation": min(max(1, EVAL_TOKENS // config.block_size) * config.block_size, val_tokens) * evaluation_bytes(config),
        "the writing of a checkpoint": n_weights + 2 * (n_weights + memory["AdamW state"]),     # a copy, and the file's bytes, twice
    }
    peak_moment = max(moments, key=moments.get)
    tokens = train_config.max_steps * tokens_per_step
    return Plan(
        parameters=parameters,
        flops_per_token=flops_per_token(config, model),
        memory=memory,
        peak=sum(memory.values()) - memory["activations"] + moments[peak_moment],
        peak_moment=peak_moment,
        tokens=tokens,
        epochs=tokens / train_tokens,
        steps=train_config.max_steps,
        evaluations=1 + -(-train_config.max_steps // train_config.eval_interval),   # before the first step, and rounded up
        speed=speed,
    )


def _reads(config: GPTConfig) -> tuple[int, float]:
    """How many vectors a pass through the blocks holds, and how many of them there are for each token."""
    if isinstance(config, RollingConfig):
        vectors = config.one_window().block_size            # a window's tokens, what it is handed and what it writes
        return vectors, vectors / config.window
    return config.block_size, 1


def flops_per_token(config: GPTConfig, model: GPT) -> int:
    """Training arithmetic per token: 6N + 12·L·C·T (Kaplan et al. 2020, section 2.1; PaLM 2022, appendix B).

    Forward, a weight multiplies and adds once (2), and so do each query with T keys and each attention weight with a
    value (2·2·C·T per layer); backward takes twice that. N counts what multiplies: the blocks' matrices and the head,
    not tables that are looked up. Left out: norms, GELU, softmax, biases, the loss and AdamW, and that a fused kernel
    skips the half of attention that the mask hides, but computes its weights again on the way back.
    """
    T, vectors_per_token = _reads(config)
    n = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)
    in_blocks = 6 * n + 12 * config.n_layer * config.n_embd * T
    return round(vectors_per_token * in_blocks) + 6 * config.vocab_size * config.n_embd


def activation_bytes(config: GPTConfig) -> int:
    """Bytes per token that the forward pass keeps for the backward pass, in float32 on a CPU.

    A block of width C keeps what its operations will need again: the inputs of two norms (2C), what the two norms
    gave (2C, and four statistics), q, k and v (3C), attention's output (C), and the input and output of GELU (2·r·C):
    16·C for r = 4. Fused attention keeps one number per head instead of its T weights. With dropout the CPU has no
    fused kernel: three times T weights per head stay, and each dropout keeps its mask (C, as floats).
    """
    C, dropout = config.n_embd, config.dropout > 0
    T, vectors_per_token = _reads(config)
    attention = 3 * T * config.n_head if dropout else config.n_head
    block = (8 + 2 * config.mlp_ratio) * C + 4 + attention + 2 * C * dropout
    ends = C * dropout + 2 * C + 2                              # the first dropout, the last norm
    targets = FLOAT * config.vocab_size + 16                    # log-probabilities; two int64: the token and its target
    return round(FLOAT * vectors_per_token * (config.n_layer * block + ends)) + targets


def evaluation_bytes(config: GPTConfig) -> int:
    """Bytes per token at the fullest moment of a pass without gradients: GELU, or the logits; no block keeps anything."""
    C = config.n_embd
    return FLOAT * (max((3 + 2 * config.mlp_ratio) * C, 2 * C + config.vocab_size) + config.vocab_size)


def calibrate(config: GPTConfig, train_config: TrainConfig, train_ids: Tensor, val_ids: Tensor, steps: int = 20,
              out_dir: str | Path | None = None) -> Speed:
    """Take `steps` real steps with `train` itself, on a model that is then thrown away, and evaluate a few batches.

    A step is timed from the end of the optimizer's last to the end of its own, so that whatever `train` does is in it.

    Args:
        out_dir: where the run would keep its checkpoints, so that their writing is timed on that disk, in a temporary
            folder that is removed; None for a run that writes none.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps} should be at least 1, to have something to time")
    T, ends = config.block_size, []
    short = replace(train_config, max_steps=WARM_UP + steps, eval_interval=WARM_UP + steps)
    with torch.random.fork_rng():
        model = make_model(config)
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    try:
        if train(model, train_ids, val_ids[:T + 1], T, short, progress=False).interrupted:
            raise KeyboardInterrupt
    finally:
        hook.remove()
    batch = max(1, EVAL_TOKENS // T) * T
    few = val_ids[:2 * batch + 1]
    evaluate(model, val_ids[:batch + 1], T)                             # warm-up
    start = time.perf_counter()
    evaluate(model, few, T)
    evaluation = (time.perf_counter() - start) * (len(val_ids) - 1) / (len(few) - 1)
    return Speed(step=float(np.median(np.diff(ends)[WARM_UP - 1:])), evaluation=evaluation,
                 checkpoint=_seconds_to_write(model, train_config, out_dir) if out_dir else 0.0)


def _seconds_to_write(model: GPT, train_config: TrainConfig, out_dir: str | Path) -> float:
    optimizer = make_optimizer(model, train_config)
    optimizer.step()                                                    # with the last gradients: it needs a state to write
    near = next(d for d in (Path(out_dir).resolve(), *Path(out_dir).resolve().parents) if d.is_dir())
    with tempfile.TemporaryDirectory(dir=near, ignore_cleanup_errors=True) as folder:
        start = time.perf_counter()
        save_checkpoint(Path(folder) / "best.safetensors", model)
        save_checkpoint(Path(folder) / "last.safetensors", model, optimizer=optimizer)
        return time.perf_counter() - start


def readable(number: float, unit: str = "") -> str:
    """Three digits and a prefix in powers of 1000.

    >>> readable(81_920_000, "B")
    '81.9 MB'
    """
    prefixes = " kMGTPEZY"
    for prefix in prefixes:
        if number < 999.5 or prefix == prefixes[-1]:
            return f"{number:.3g} {prefix.strip()}{unit}".strip()
        number /= 1000


def clock(seconds: float) -> str:
    """Seconds while they are few, then days, hours, minutes and seconds."""
    return f"{seconds:.3g} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
