"""Two processes train like one: the same batches, the same losses. Real processes, on gloo."""

import json
import os
import runpy
import subprocess
import sys

import pytest

from gptlib.__main__ import main

TEXT = "text:" + "to be, or not to be, that is the question: " * 30
OPTIONS = ["--corpus", TEXT, "--block-size", "16", "--n-layer", "2", "--n-head", "2",
           "--n-embd", "16", "--max-steps", "12", "--eval-interval", "4", "--batch-size", "6",
           "--warmup", "2", "--device", "cpu"]


def run_two_processes(*arguments):
    """Run `python ARGUMENTS` in two processes with torchrun. Return the result."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", "2"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


def training(out, *options):
    """Return the arguments that train into the folder `out`."""
    return ["train", *OPTIONS, "--out", str(out), *options]


def read_metrics(out):
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_same_losses(history, expected, tolerance):
    assert [row["step"] for row in history] == [row["step"] for row in expected]
    for name in ("train_loss", "val_loss", "train_acc", "val_acc"):
        values = [row[name] for row in expected]
        assert [row[name] for row in history] == pytest.approx(values, abs=tolerance), name


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", "3e-3"), ("muon", "0.02")])
def test_two_processes_give_the_losses_of_one_and_print_every_line_once(tmp_path, optimizer, rate):
    options = ["--optimizer", optimizer, "--learning-rate", rate, "--rotary", "--rms-norm"]
    # This process trains alone, which saves the imports of another one.
    assert main(training(tmp_path / "1", *options)) == 0
    process = run_two_processes("-m", "gptlib", *training(tmp_path / "2", *options))
    assert process.returncode == 0, process.stderr
    one, two = read_metrics(tmp_path / "1"), read_metrics(tmp_path / "2")
    assert_same_losses(two, one, tolerance=2e-5)
    assert [row["step"] for row in one] == [0, 4, 8, 12]
    # The runs have learned something. Two runs that do nothing would also be equal.
    assert one[-1]["val_loss"] < one[0]["val_loss"] - 0.1
    # Only the first of the two processes prints.
    lines = process.stdout.splitlines()
    assert "step 12/12" in process.stdout
    assert len(lines) == len(set(lines))


# This program trains with different numbers of targets in the rows of a batch. Of two processes,
# the first gets the even rows, with all targets. The second gets the odd rows, with few targets,
# and with none in every third step. Each process writes what it printed, and the steps for which
# its `on_eval` was called. Before, two processes call a command that cannot be run. It connects
# them, and it returns its exit code.
FEW_TARGETS_IN_ODD_ROWS = '''
import contextlib, io, json, os, sys
import torch
from gptlib import Bigram, TrainConfig, get_batch, train
from gptlib.__main__ import main
from gptlib.train import NO_TARGET, text_windows

out, *refused_command = sys.argv[1:]
rank = os.environ.get("RANK", "0")
exit_code = main(refused_command) if "RANK" in os.environ else None
# About half of the tokens follow a pattern, which the model can learn.
generator = torch.Generator().manual_seed(0)
random_ids = torch.randint(7, (600,), generator=generator)
ids = torch.where(torch.rand(600, generator=generator) < 0.5, torch.arange(600) % 7, random_ids)
config = TrainConfig(max_steps=12, batch_size=4, learning_rate=0.1, warmup=2, eval_interval=1,
                     device="cpu")


def batch(step):
    x, y = get_batch(ids, 8, config.batch_size, config.seed, step)
    y = y.clone()               # x and y share memory
    n_targets = 0 if step % 3 == 2 else 2
    y[1::2, n_targets:] = NO_TARGET
    return x, y


steps, printed = [], io.StringIO()
with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    train(Bigram(7), batch, text_windows(ids[:100], 8), 8, config, out_dir=out,
          on_eval=lambda row: steps.append(row["step"]))
with open(f"{out}/process_{rank}.json", "w") as file:
    json.dump({"printed": printed.getvalue(), "steps": steps, "exit_code": exit_code}, file)
'''


@pytest.fixture(scope="module")
def few_targets(tmp_path_factory):
    """Run the program in this process, and in two. Return its folder, and the result of the two."""
    folder = tmp_path_factory.mktemp("few_targets")
    program = folder / "program.py"
    program.write_text(FEW_TARGETS_IN_ODD_ROWS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(program), str(folder / "1")])
        runpy.run_path(str(program))
    refused = training(folder / "refused", "--batch-size", "5")
    return folder, run_two_processes(str(program), str(folder / "2"), *refused)


def of_each_process(folder):
    return [json.loads((folder / f"2/process_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused(few_targets):
    folder, process = few_targets
    assert [written["exit_code"] for written in of_each_process(folder)] == [1, 1]
    assert "--batch-size 5 should be a multiple of the 2 processes" in process.stderr
    assert not list(folder.glob("refused/*.safetensors"))


@pytest.mark.slow
def test_different_numbers_of_targets_in_two_processes_give_the_losses_of_one(few_targets):
    folder, process = few_targets
    assert process.returncode == 0, process.stderr
    one, two = read_metrics(folder / "1"), read_metrics(folder / "2")
    assert_same_losses(two, one, tolerance=1e-6)
    assert one[-1]["val_loss"] < one[0]["val_loss"] - 0.02

    # Only the first process prints and calls `on_eval`.
    first, second = of_each_process(folder)
    assert first["steps"] == list(range(13))
    assert "step 12/12" in first["printed"]
    assert (second["printed"], second["steps"]) == ("", [])
