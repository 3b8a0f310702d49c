"""Two processes train like one: the same batches, the same losses. Real processes, on gloo."""

import json
import os
import subprocess
import sys

import pytest

TEXT = "text:" + "to be, or not to be, that is the question: " * 30
OPTIONS = ["--corpus", TEXT, "--block-size", "16", "--n-layer", "2", "--n-head", "2",
           "--n-embd", "16", "--max-steps", "12", "--eval-interval", "4", "--batch-size", "6",
           "--warmup", "2", "--device", "cpu"]


def run_training(out, n_processes, *options):
    """Train with `n_processes`, started by torchrun if there are several. Return the result."""
    command = [sys.executable, "-m"]
    if n_processes > 1:
        command += ["torch.distributed.run", "--standalone",
                    "--nproc-per-node", str(n_processes), "-m"]
    command += ["gptlib", "train", *OPTIONS, "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


def read_metrics(out):
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path):
    for n_processes in (1, 2):
        process = run_training(tmp_path / str(n_processes), n_processes)
        assert process.returncode == 0, process.stderr
    one, two = read_metrics(tmp_path / "1"), read_metrics(tmp_path / "2")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [0, 4, 8, 12]
    for name in ("train_loss", "val_loss", "train_acc", "val_acc"):
        expected = [row[name] for row in one]
        assert [row[name] for row in two] == pytest.approx(expected, abs=2e-5)
    # The runs have learned something. Two runs that do nothing would also be equal.
    assert one[-1]["val_loss"] < one[0]["val_loss"] - 0.1


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path):
    process = run_training(tmp_path, 2, "--batch-size", "5")
    assert process.returncode != 0
    assert "batch_size=5 should be a multiple of the 2 processes" in process.stderr
