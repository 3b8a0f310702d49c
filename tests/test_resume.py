"""A run that was stopped, in whatever way, and resumed is the run that was never stopped: the same weights, the same metrics."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gptlib.bigram import Bigram
from gptlib.checkpoint import CheckpointError, load_checkpoint
from gptlib.config import ConfigError, GPTConfig, TrainConfig
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer
from gptlib.train import train

IDS = torch.randint(7, (600,), generator=torch.Generator().manual_seed(0))
TRAIN_IDS, VAL_IDS = IDS[:500], IDS[500:]
TOKENIZER = CharTokenizer("abcdefg")
CONFIG = TrainConfig(max_steps=12, batch_size=4, learning_rate=1e-2, warmup=3, eval_interval=4, seed=3, device="cpu")


def run(out_dir, resume="auto", config=CONFIG, train_ids=TRAIN_IDS, tokenizer=TOKENIZER, n_embd=8, on_eval=None):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=n_embd, dropout=0.2))
    result = train(model, train_ids, VAL_IDS, 8, config, out_dir=out_dir, tokenizer=tokenizer, resume=resume, on_eval=on_eval,
                   progress=False)
    return model, result


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same(one, other):
    for a, b in zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert without_seconds(one[1].history) == without_seconds(other[1].history)


def test_stopped_at_an_evaluation(tmp_path):
    def stop(row):
        if row["step"] == 8:
            raise KeyboardInterrupt

    assert run(tmp_path / "a", on_eval=stop)[1].interrupted
    assert_same(run(tmp_path / "a"), run(tmp_path / "b"))


def test_interrupted_in_the_middle_of_a_step_and_between_evaluations(tmp_path, monkeypatch):
    """The step under way is finished, and the losses since the last evaluation are not forgotten."""
    calls, backward = [], torch.Tensor.backward

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return backward(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", interrupted)
    assert run(tmp_path / "a")[1].interrupted
    assert load_checkpoint(tmp_path / "a/last.safetensors").about["step"] == 6
    assert_same(run(tmp_path / "a"), run(tmp_path / "b"))


def test_a_finished_run_is_not_trained_further(tmp_path):
    first = run(tmp_path)
    written = (tmp_path / "last.safetensors").read_bytes()
    assert_same(run(tmp_path), first)
    assert (tmp_path / "last.safetensors").read_bytes() == written


def test_metrics_hold_every_evaluation_once(tmp_path):
    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    run(tmp_path, on_eval=stop)
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 8, "val_lo')                   # what a kill in the middle of a line leaves
    run(tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] == [0, 4, 8, 12]


def test_never_starts_over(tmp_path):
    first = run(tmp_path)
    assert_same(run(tmp_path, resume="never"), first)
    assert run(tmp_path, resume="never", config=replace(CONFIG, batch_size=2))[1].history[-1]["step"] == 12


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"config": replace(CONFIG, batch_size=2)}, "batch_size was 4 and is now 2"),
    ({"n_embd": 16}, "n_embd was 8 and is now 16"),
    ({"tokenizer": CharTokenizer("hijklmn")}, "tokenizer was"),
    ({"train_ids": TRAIN_IDS.flip(0)}, "training split was"),
], ids=lambda value: str(value)[:20])
def test_another_config_tokenizer_or_text_is_refused_by_name(tmp_path, changed, sentence):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError) as refused:
        run(tmp_path, **changed)
    assert sentence in str(refused.value) and "cannot be resumed" in str(refused.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_where_a_run_computes_may_change(tmp_path):
    run(tmp_path)
    run(tmp_path, config=replace(CONFIG, device="auto" if not torch.cuda.is_available() else "cpu"))


def test_a_damaged_checkpoint_is_named_and_left_alone(tmp_path):
    run(tmp_path)
    damaged = (tmp_path / "last.safetensors").read_bytes()[:-100]
    (tmp_path / "last.safetensors").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="last.safetensors is not a whole checkpoint"):
        run(tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == damaged
    assert load_checkpoint(tmp_path).about["step"] >= 0             # the best one is whole


def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_can_go_on(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(1)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        return fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            run(tmp_path / "a")
    assert 0 < load_checkpoint(tmp_path / "a/last.safetensors").about["step"] < 12
    assert not list((tmp_path / "a").glob(".*"))
    assert_same(run(tmp_path / "a"), run(tmp_path / "b"))


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="out_dir=.*cannot be written"):
        run(tmp_path / "file/run")


def test_a_model_of_any_class_is_resumed(tmp_path):
    for _ in range(2):
        train(Bigram(7), TRAIN_IDS, VAL_IDS, 8, CONFIG, out_dir=tmp_path, resume="auto", progress=False)
    assert load_checkpoint(tmp_path / "last.safetensors").about["step"] == 12


KILLS = '''
import os, random, signal, sys, time
import torch
import torch._dynamo                            # the optimizer's first step would import it, slowly, in every child
from tests.test_resume import CONFIG, replace, run

torch.set_num_threads(1)
out, wanted = sys.argv[1], int(sys.argv[2])
config = replace(CONFIG, max_steps=200, eval_interval=2)
kills, round = 0, 0


def written(folder):
    path = os.path.join(folder, "last.safetensors")
    return os.stat(path).st_mtime_ns if os.path.exists(path) else 0


while kills < wanted:
    round += 1
    draw = random.Random(round)                 # the recorded seed of this round's kills
    while True:
        child = os.fork()
        if child == 0:
            run(f"{out}/{round}", config=config)
            os._exit(0)
        before = written(f"{out}/{round}")
        while written(f"{out}/{round}") == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)                   # until it has got further than the child before
        time.sleep(draw.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)          # one that has ended already is a zombie: no harm done
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        kills += 1
print(kills, round)
'''


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which Windows does not have")
def test_killed_twenty_times_at_random_moments(tmp_path):
    """Real processes, real SIGKILLs, many of them in the middle of a write: the runs do write most of the time."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", KILLS, str(tmp_path / "killed"), "20"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kills, rounds = map(int, done.stdout.split())
    assert kills >= 20
    whole = run(tmp_path / "whole", config=replace(CONFIG, max_steps=200, eval_interval=2))
    for round in range(1, rounds + 1):
        resumed = load_checkpoint(tmp_path / f"killed/{round}/last.safetensors")
        for a, b in zip(resumed.model.state_dict().values(), whole[0].state_dict().values(), strict=True):
            assert torch.equal(a, b)
        assert without_seconds(resumed.about["history"]) == without_seconds(whole[1].history)
        assert torch.equal(resumed.optimizer[0]["exp_avg"], load_checkpoint(tmp_path / "whole/last.safetensors").optimizer[0]["exp_avg"])
