"""A plan counts what a real model and a real run need: parameters, FLOP, bytes and seconds."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import gptlib.plan
from gptlib import GPT, GPTConfig, TrainConfig, get_batch, train
from gptlib.__main__ import main
from gptlib.config import ConfigError
from gptlib.optimizers import make_optimizer
from gptlib.plan import (
    Speed,
    calibrate,
    clock,
    memory_parts,
    plan_run,
    readable,
    training_moments,
)
from gptlib.plot import new_figure, plot_memory
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

IDS = torch.randint(65, (40_000,), generator=torch.Generator().manual_seed(0))
SMALL = GPTConfig(65, block_size=8, n_layer=1, n_head=1, n_embd=8)
SHAPES = {
    "chapter 4": GPTConfig(65),
    "wide": GPTConfig(
        65, block_size=32, n_layer=2, n_head=4, n_embd=256, mlp_ratio=2, bias=True),
    "long, many heads": GPTConfig(
        65, block_size=256, n_layer=2, n_head=16, n_embd=64, position="sinusoidal"),
    "large vocabulary, tied": GPTConfig(
        5000, block_size=16, n_layer=1, n_head=2, n_embd=64, tie_weights=True, position="none"),
    "dropout": GPTConfig(65, block_size=128, n_layer=3, n_head=6, n_embd=96, dropout=0.2),
    "modern": VariantConfig(
        65, block_size=64, n_layer=2, n_head=4, n_embd=128, rotary=True, qk_norm=True, relu2=True,
        rms_norm=True, zero_init=True, bigram_table=True),
    "rolling": VariantConfig(
        65, block_size=64, n_layer=3, n_embd=64, memory="mean", window=16),
    "rolling, memory tokens": VariantConfig(
        65, block_size=64, n_layer=2, n_embd=96, memory="tokens", window=32, n_memory=2),
}
each_shape = pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)


def plan(config, train_tokens=10_000, val_tokens=1_000, speed=None, text="", **training):
    train_config = TrainConfig(**{"batch_size": 4} | training)
    return plan_run(config, train_config, train_tokens, val_tokens, speed, text)


def loss_of(model, config, B=4):
    x, y = get_batch(IDS, config.block_size, B, seed=1, step=0)
    return cross_entropy(model(x).flatten(0, 1), y.flatten())


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


# Counts -------------------------------------------------------------------------------------------


@each_shape
def test_planned_parameters_equal_those_of_the_built_model(config):
    assert plan(config).parameters == make_model(config).parameter_table()


def test_a_model_too_large_for_this_machine_can_be_planned():
    V, T, L, C = 50_000, 2048, 96, 12_288
    huge = plan(GPTConfig(V, block_size=T, n_layer=L, n_head=96, n_embd=C))
    blocks = L * 12 * C ** 2
    norms = (2 * L + 1) * C
    embeddings_and_head = 2 * V * C
    positions = T * C
    assert huge.parameters["total"] == blocks + norms + embeddings_and_head + positions


def test_planning_and_calibrating_leave_the_random_state_unchanged():
    before = torch.random.get_rng_state()
    plan(SHAPES["chapter 4"])
    calibrate(SMALL, TrainConfig(device="cpu"), IDS, IDS[:100], steps=1)
    assert torch.random.get_rng_state().equal(before)


@each_shape
def test_planned_flops_equal_those_of_pytorchs_counter(config):
    # The counter sees single products only. It does not count a fused attention kernel on a CPU.
    model = make_model(config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_of(model, config, B=4).backward()
    counted = counter.get_total_flops() / (4 * config.block_size)
    assert plan(config).flops_per_token == pytest.approx(counted, rel=1e-9)


@each_shape
def test_planned_activations_equal_the_bytes_saved_for_the_backward_pass(config):
    model = make_model(config)
    tensors = (*model.parameters(), *model.buffers())
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    saved = {}

    def pack(tensor):
        # The tensor stays alive in `saved`, so that no address is used twice.
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model, config)
    assert loss.requires_grad
    measured = sum(tensor.untyped_storage().nbytes()
                   for address, tensor in saved.items() if address not in own)
    assert plan(config).memory["activations"] == pytest.approx(measured, rel=0.02)


@each_shape
@pytest.mark.parametrize("name, state", [("adamw", "AdamW state"), ("muon", "Muon state")])
def test_weights_gradients_and_optimizer_state_are_counted_to_the_byte(config, name, state):
    model = make_model(config)
    training = TrainConfig(optimizer=name)
    optimizer = make_optimizer(model, training)
    loss_of(model, config, B=1).backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    memory = plan(config, optimizer=name).memory
    assert memory["weights"] == nbytes(model.parameters())
    assert memory["gradients"] == nbytes(p.grad for p in model.parameters())
    assert memory[state] == nbytes(states)


def in_training(memory):
    return 2 * memory["weights"] + memory["AdamW state"] + memory["text and tokens"]


def training_step_bytes(memory):
    gradients_of_logits = 2 * 4 * 65 * 200 * 64
    return in_training(memory) + memory["activations"] + gradients_of_logits


def evaluation_bytes(memory):
    return in_training(memory) + 8192 * 4 * (11 * 128 + 65)


def evaluation_with_many_tokens_bytes(memory):
    logits = 2 ** 25 // 30_000 // 64 * 64 * 30_000
    final_states = 2 ** 25 // 30_000 // 64 * 64 * 2 * 128
    return in_training(memory) + 4 * (2 * logits + final_states)


def checkpoint_bytes(memory):
    copy = memory["weights"]
    return in_training(memory) + copy + 2 * (memory["weights"] + memory["AdamW state"])


def encoding_bytes(memory):
    splits, list_of_tokens = sys.getsizeof(LONG_TEXT), 9 * 9_000_000
    return memory["weights"] + memory["text and tokens"] + splits + list_of_tokens


LONG_TEXT = "∞" * 10_000_000
LONG = {"train_tokens": 9_000_000, "val_tokens": 1_000_000, "text": LONG_TEXT}


@pytest.mark.parametrize("moment, V, settings, expected", [
    ("a training step", 65, {"batch_size": 200}, training_step_bytes),
    ("an evaluation", 65, {"batch_size": 1, "val_tokens": 100_000}, evaluation_bytes),
    ("an evaluation", 30_000, {"batch_size": 1, "val_tokens": 100_000},
     evaluation_with_many_tokens_bytes),
    ("the writing of a checkpoint", 65, {"batch_size": 1, "val_tokens": 65}, checkpoint_bytes),
    ("the encoding of the text", 65, {"batch_size": 1} | LONG, encoding_bytes),
])
def test_the_peak_is_at_the_fullest_of_four_moments(moment, V, settings, expected):
    planned = plan(GPTConfig(V), **settings)
    assert planned.memory["weights"] == 4 * planned.parameters["total"]
    assert planned.peak_moment == moment
    assert planned.peak == expected(planned.memory)


def test_the_memory_of_an_evaluation_does_not_grow_with_the_vocabulary():
    """Without a bound, 32,000 tokens would need 2 GB of logits at a time."""
    evaluation = {}
    for V in (4096, 32_000, 128_000):
        config = GPTConfig(V)
        model = make_model(config)
        memory = memory_parts(config, TrainConfig(), model) | {"text and tokens": 0}
        moments = training_moments(config, TrainConfig(), model, memory, 10 ** 6)
        evaluation[V] = moments["an evaluation"] - in_training(memory)
    assert evaluation[32_000] <= evaluation[4096] == 8192 * 4 * (2 * 4096 + 2 * 128)
    assert evaluation[128_000] <= evaluation[4096]


def test_the_text_and_the_tokens_are_counted_to_the_byte():
    text = "a" * 1000 + "∞"
    with_text = plan(SMALL, 900, 101, text=text).memory["text and tokens"]
    assert with_text == sys.getsizeof(text) + torch.zeros(1001, dtype=torch.long).nbytes


# Trains once, so that PyTorch and matplotlib are loaded. Then measures the memory of a second run.
MEASURE_A_RUN = '''
import contextlib, io, json, re, sys
import psutil
from gptlib.__main__ import main

def peak():
    """Return the highest memory of this process. ru_maxrss would include its parent's."""
    kibibytes = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
    return 1024 * int(kibibytes[1])

def run(command, *options):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([command, "--device", "cpu", "--max-steps", "2", *options]) == 0
    return printed.getvalue()

corpus, out, *shape = sys.argv[1:]
tiny = ["--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--block-size", "8"]
run("train", "--corpus", "text:" + "to be " * 100, "--out", out + "/tiny", *tiny)
before = psutil.Process().memory_info().rss
table = run("plan", "--corpus", corpus, "--steps", "0", *shape)
run("train", "--corpus", corpus, "--out", out + "/measured", *shape)
print(json.dumps({"table": table, "bytes": peak() - before}))
'''


def letters(n_different, n):
    """Return a text of n characters of which n_different are different."""
    different = [chr(0x4E00 + i) for i in range(n_different)]
    return "".join(different + random.Random(0).choices(different, k=n - n_different))


TINY_SHAPE = ["--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--block-size", "8",
              "--batch-size", "2"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
@pytest.mark.parametrize("text, shape", [
    (letters(9_000, 60_000), []),
    (letters(20_000, 60_000), []),
    ("to be, or not to be, that is the question\n" * 100_000, TINY_SHAPE),
], ids=["9,000 different characters", "20,000 different characters", "a long text"])
def test_a_run_of_the_command_line_needs_the_planned_memory_within_a_quarter(tmp_path, text, shape):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    # With this variable glibc returns freed blocks at once (see benchmarks/plan.py).
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_A_RUN, tmp_path / "a.txt", tmp_path, *shape],
        stdout=subprocess.PIPE, text=True, check=True, env=environment)
    measured = json.loads(done.stdout.splitlines()[-1])
    number, unit = re.search(r"memory: peak +([\d.]+) (.)B", measured["table"]).groups()
    planned = float(number) * {"M": 1e6, "G": 1e9}[unit]
    assert measured["bytes"] == pytest.approx(planned, rel=0.25)


@pytest.mark.parametrize("max_steps, eval_interval", [(6, 2), (6, 4), (3, 10), (1, 1)])
def test_planned_evaluations_and_tokens_equal_those_of_a_run(max_steps, eval_interval):
    training = TrainConfig(max_steps=max_steps, eval_interval=eval_interval, batch_size=2,
                           device="cpu")
    history = train(GPT(SMALL), IDS[:200], IDS[:50], 8, training, progress=False).history
    planned = plan_run(SMALL, training, 200, 50)
    assert planned.evaluations == len(history)
    assert planned.tokens == history[-1]["tokens"]
    assert planned.epochs == planned.tokens / 200


def test_chinchillas_rule_is_20_tokens_a_parameter():
    planned = plan(SMALL)
    total = planned.parameters["total"]
    assert planned.tokens_per_parameter == planned.tokens / total
    assert planned.chinchilla_tokens == 20 * total


# Time ---------------------------------------------------------------------------------------------


def test_seconds_are_those_of_steps_evaluations_and_checkpoints():
    speed = Speed(step=0.5, evaluation=3.0, checkpoint=0.25)
    planned = plan(SHAPES["chapter 4"], speed=speed, max_steps=10, eval_interval=5)
    assert planned.seconds == 10 * 0.5 + 3 * (3.0 + 0.25)
    assert plan(SHAPES["chapter 4"]).seconds is None


def test_a_short_run_takes_the_planned_time_within_a_factor_of_two():
    # Half of this run's time is evaluation. A busy machine may spoil one comparison, but not three.
    config = GPTConfig(65, block_size=32, n_layer=2, n_head=2, n_embd=64)
    training = TrainConfig(max_steps=120, eval_interval=15, device="cpu")
    for _ in range(3):
        speed = calibrate(config, training, IDS, IDS)
        planned = plan_run(config, training, len(IDS), len(IDS), speed).seconds
        start = time.perf_counter()
        train(GPT(config), IDS, IDS, 32, training, progress=False)
        measured = time.perf_counter() - start
        if measured / 2 < planned < 2 * measured:
            return
    raise AssertionError(f"{planned:.2f} s planned, {measured:.2f} s measured")


def test_a_calibration_takes_the_median_step_after_the_warm_up(monkeypatch):
    """Steps of 1 s come after a slow start, one of them is disturbed. Two batches take 16 s."""
    ends_of_steps = [0.0, 100.0, 200.0, 201.0, 251.0, 252.0]
    evaluation = [300.0, 316.0]
    clock_times = iter([*ends_of_steps, *evaluation])
    monkeypatch.setattr(gptlib.plan.time, "perf_counter", lambda: next(clock_times))
    monkeypatch.setattr(gptlib.plan, "evaluate", lambda *_: None)

    def steps_only(model, train_ids, val_ids, block_size, config, **_):
        optimizer = make_optimizer(model, config)
        for _ in range(config.max_steps):
            optimizer.step()
        return type("Result", (), {"interrupted": False})

    monkeypatch.setattr(gptlib.plan, "train", steps_only)
    speed = calibrate(SMALL, TrainConfig(), IDS, IDS, steps=3)
    whole_split = 16 * (len(IDS) - 1) / (2 * 8192)
    assert (speed.step, speed.checkpoint) == (1.0, 0.0)
    assert speed.evaluation == pytest.approx(whole_split)


def test_an_interrupted_calibration_raises_keyboard_interrupt(monkeypatch):
    result = type("Result", (), {"interrupted": True})
    monkeypatch.setattr("gptlib.plan.train", lambda *_, **__: result)
    with pytest.raises(KeyboardInterrupt):
        calibrate(SMALL, TrainConfig(), IDS, IDS)


def test_a_calibration_of_no_steps_is_refused():
    with pytest.raises(ConfigError, match="steps=0 should be at least 1"):
        calibrate(SHAPES["chapter 4"], TrainConfig(), IDS, IDS, steps=0)


# Text and figure ----------------------------------------------------------------------------------


def test_the_table_shows_every_number_of_the_plan():
    speed = Speed(step=0.0305, evaluation=1.5)
    planned = plan(SHAPES["chapter 4"], speed=speed, max_steps=1000, eval_interval=500)
    table = planned.table()
    assert re.search(r"parameters: total +\d{3},\d{3} +100.0%", table)
    for expected in ("memory: activations", f"in {planned.peak_moment}", "epochs",
                     "Chinchilla's rule", "1,000 steps of 30.5 ms", "3 of 1.5 s", "35 s",
                     f"{planned.tokens_per_parameter:.3g} a parameter"):
        assert expected in table


def test_without_a_speed_the_table_shows_no_time():
    assert "time:" not in plan(SHAPES["chapter 4"]).table()


@pytest.mark.parametrize("number, unit, expected", [
    (0, "B", "0 B"),
    (999, "B", "999 B"),
    (999.6, "B", "1 kB"),
    (4.61e9, "B", "4.61 GB"),
    (5.8e15, "FLOP", "5.8 PFLOP"),
    (12.5, "", "12.5"),
    (1e30, "B", "1e+06 YB"),
])
def test_numbers_are_shown_with_three_digits_and_a_prefix(number, unit, expected):
    assert readable(number, unit) == expected


@pytest.mark.parametrize("seconds, expected", [
    (0.1234, "0.123 s"), (99, "99 s"), (100, "0:01:40"), (86_400 * 32, "32 days, 0:00:00")])
def test_durations_are_shown_in_seconds_or_by_the_clock(seconds, expected):
    assert clock(seconds) == expected


def test_the_figure_of_memory_has_a_bar_for_each_part_and_the_peak():
    planned = plan(SHAPES["chapter 4"])
    _, axes = new_figure()
    plot_memory(axes, planned.memory, planned.peak)
    megabytes = [n / 1e6 for n in (*planned.memory.values(), planned.peak)]
    assert [bar.get_width() for bar in axes.patches] == megabytes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*planned.memory, "peak"]
    assert axes.get_xlabel() == "memory (MB)"
    # Inverted, the first part is at the top and the peak at the bottom.
    assert axes.yaxis_inverted()


# The command line ---------------------------------------------------------------------------------

COMMAND = ["plan", "--corpus", "text:" + "to be, or not to be, that is the question: " * 10,
           "--device", "cpu", "--block-size", "8", "--n-layer", "1", "--n-head", "2",
           "--n-embd", "8", "--max-steps", "4", "--batch-size", "2"]


def test_the_plan_command_takes_the_options_of_training_and_writes_nothing(tmp_path, capsys):
    assert main([*COMMAND, "--out", str(tmp_path / "run"), "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "text: 430 characters" in printed and "4 steps of" in printed
    assert not (tmp_path / "run").exists()


def test_the_plan_command_measures_no_time_with_zero_steps(capsys):
    assert main([*COMMAND, "--steps", "0"]) == 0
    assert "time:" not in capsys.readouterr().out


@pytest.mark.parametrize("options, expected", [
    (["--steps", "-1"], "--steps -1 should be at least 0"),
    (["--corpus", "text:too short"], "split has"),
    (["--n-embd", "9"], "--n-embd 9 should be"),
])
def test_the_plan_command_reports_an_error_in_one_line(capsys, options, expected):
    assert main([*COMMAND, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gptlib plan: ") and expected in error
    assert error.count("\n") == 1


# The measurement of benchmarks/plan.py ------------------------------------------------------------

MEASURED = json.loads(
    (Path(__file__).parents[1] / "benchmarks/plan.json").read_text(encoding="utf-8"))


def test_the_measurement_of_plans_says_where_and_when_it_was_made():
    expected = {"corpus_sha256", "date", "revision", "code", "machine", "torch", "runs"}
    assert expected <= set(MEASURED)
    assert len(MEASURED["runs"]) >= 4


@pytest.mark.parametrize("run", MEASURED["runs"], ids=lambda run: run["shape"])
def test_measured_runs_needed_the_planned_seconds_and_memory(run):
    # Raises an error if the configs do not exist in this library.
    VariantConfig(**run["model"])
    TrainConfig(**run["training"])
    seconds, peak = run["seconds"], run["peak_bytes"]
    assert seconds["planned"] == pytest.approx(seconds["measured"], rel=0.2)
    assert peak["planned"] == pytest.approx(peak["measured"], rel=0.25)
