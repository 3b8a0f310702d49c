"""One process or two, the same global batches and the same curve: real processes on gloo, started by torchrun."""

import json
import os
import subprocess
import sys

import pytest

TEXT = "text:" + "to be, or not to be, that is the question: " * 30
OPTIONS = ["--corpus", TEXT, "--block-size", "16", "--n-layer", "2", "--n-head", "2",
           "--n-embd", "16", "--max-steps", "12", "--eval-interval", "4", "--batch-size", "6", "--warmup", "2", "--device", "cpu"]


def curve(out, processes, *more):
    """The metrics of a run by that many processes."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    done = subprocess.run([*start, "gptlib", "train", *OPTIONS, "--out", str(out), *more], capture_output=True, text=True, timeout=240,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path):
    one, two = curve(tmp_path / "one", 1), curve(tmp_path / "two", 2)
    assert [row["step"] for row in one] == [row["step"] for row in two] == [0, 4, 8, 12]
    for name in ("train_loss", "val_loss", "train_acc", "val_acc"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=2e-5)
    assert one[-1]["val_loss"] < one[0]["val_loss"] - 0.1           # not two runs that did nothing


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="batch_size=5 should be a multiple of the 2 processes"):
        curve(tmp_path, 2, "--batch-size", "5")
