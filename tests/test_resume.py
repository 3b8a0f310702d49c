"""A run that was stopped and resumed has the weights and metrics of a run that never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from gptlib.bigram import Bigram
from gptlib.checkpoint import CheckpointError, read_header, read_tensors, save_checkpoint
from gptlib.config import ConfigError, GPTConfig, TrainConfig
from gptlib.data import document_mask, get_batch
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer
from gptlib.train import NO_TARGET, make_optimizer, text_windows, train
from gptlib.variants.build import load_model, make_model
from gptlib.variants.config import VariantConfig

IDS = torch.randint(7, (600,), generator=torch.Generator().manual_seed(0))
TRAIN_IDS, VAL_IDS = IDS[:500], IDS[500:]
TOKENIZER = CharTokenizer("abcdefg")
SHAPE = {"vocab_size": 7, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
CONFIG = TrainConfig(max_steps=12, batch_size=4, learning_rate=1e-2, warmup=3, eval_interval=4,
                     seed=3, device="cpu")


def run(out_dir, resume="auto", config=CONFIG, train_ids=TRAIN_IDS, val_ids=VAL_IDS,
        tokenizer=TOKENIZER, n_embd=8, model=None, **train_options):
    """Train a small GPT, always with the same initial weights. Return it, and what was measured."""
    if model is None:
        torch.manual_seed(0)
        model = GPT(GPTConfig(**SHAPE | {"n_embd": n_embd, "dropout": 0.2}))
    train_options = {"progress": False} | train_options
    result = train(model, train_ids, val_ids, 8, config, out_dir=out_dir, tokenizer=tokenizer,
                   resume=resume, **train_options)
    return model, result


def stop_at_step(step):
    """Return a function for `on_eval` that interrupts the run at the evaluation of a step."""
    def on_eval(row):
        if row["step"] == step:
            raise KeyboardInterrupt
    return on_eval


def without_seconds(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def assert_same_run(one, other):
    """Compare two results of `run`, to the bit."""
    (model, result), (other_model, other_result) = one, other
    assert_same_tensors(model.state_dict(), other_model.state_dict())
    assert without_seconds(result.history) == without_seconds(other_result.history)


def assert_same_files(folder, other_folder):
    """Compare the checkpoints of two runs, to the bit. They include the state of the optimizer."""
    for name in ("best.safetensors", "last.safetensors"):
        assert_same_tensors(read_tensors(folder / name), read_tensors(other_folder / name))
        about, other_about = (read_header(f / name)["about"] for f in (folder, other_folder))
        assert about["step"] == other_about["step"]
        assert without_seconds(about["history"]) == without_seconds(other_about["history"])


def assert_same_tensors(tensors, other_tensors):
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name


def steps_of_metrics(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


def read_files(folder):
    """Return the content of all files of a folder, except temporary files."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


# Stopped and resumed ------------------------------------------------------------------------------

def test_a_run_stopped_at_an_evaluation_is_resumed_to_the_bit(tmp_path):
    assert run(tmp_path / "stopped", on_eval=stop_at_step(8))[1].interrupted
    assert_same_run(run(tmp_path / "stopped"), run(tmp_path / "whole"))
    assert_same_files(tmp_path / "stopped", tmp_path / "whole")


def test_a_run_stopped_by_a_function_completes_its_step_and_is_resumed_to_the_bit(tmp_path):
    answers = iter([False] * 6 + [True])            # one before each step: true before step 7
    assert run(tmp_path / "stopped", stop=lambda: next(answers))[1].interrupted
    assert read_header(tmp_path / "stopped/last.safetensors")["about"]["step"] == 6
    resumed = run(tmp_path / "stopped", stop=lambda: False)
    assert not resumed[1].interrupted
    assert_same_run(resumed, run(tmp_path / "whole"))
    assert_same_files(tmp_path / "stopped", tmp_path / "whole")


def batch_with_mask(step):
    """Return a batch with two documents in each window and some targets of -100."""
    x, y = get_batch(TRAIN_IDS, 8, CONFIG.batch_size, CONFIG.seed, step)
    documents = (torch.arange(8) >= 5).long().expand(len(x), -1)
    y = y.masked_fill(torch.arange(8) < 2, NO_TARGET)
    return x, y, document_mask(documents)


def test_a_run_with_batches_from_a_function_is_resumed_to_the_bit(tmp_path):
    batches = {"train_ids": batch_with_mask, "val_ids": text_windows(VAL_IDS, 8)}
    run(tmp_path / "stopped", on_eval=stop_at_step(4), **batches)
    assert_same_run(run(tmp_path / "stopped", **batches), run(tmp_path / "whole", **batches))
    assert_same_files(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_with_another_optimizer_is_resumed_to_the_bit(tmp_path, momentum):
    # Without momentum, this optimizer has no state at all.
    def make_sgd(model, config):
        return torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=momentum)

    run(tmp_path / "stopped", on_eval=stop_at_step(8), optimizer=make_sgd)
    resumed = run(tmp_path / "stopped", optimizer=make_sgd)
    assert_same_run(resumed, run(tmp_path / "whole", optimizer=make_sgd))
    assert_same_files(tmp_path / "stopped", tmp_path / "whole")


def test_a_completed_run_is_not_trained_further(tmp_path):
    completed = run(tmp_path)
    last_bytes = (tmp_path / "last.safetensors").read_bytes()
    assert_same_run(run(tmp_path), completed)
    assert (tmp_path / "last.safetensors").read_bytes() == last_bytes


def test_metrics_have_every_evaluation_once_after_a_kill_in_the_middle_of_a_line(tmp_path):
    run(tmp_path, on_eval=stop_at_step(4))
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 8, "val_lo')
    run(tmp_path)
    assert steps_of_metrics(tmp_path) == [0, 4, 8, 12]


# An earlier run in the same folder ----------------------------------------------------------------

@pytest.mark.parametrize("resume", ["never", "auto", "restart"])
@pytest.mark.parametrize("step", [4, 12], ids=["interrupted", "completed"])
def test_an_earlier_run_is_never_overwritten(tmp_path, resume, step):
    earlier = run(tmp_path, on_eval=stop_at_step(step), val_ids=TRAIN_IDS[:100])
    assert earlier[1].interrupted
    files = read_files(tmp_path)
    options = {"resume": resume, "config": replace(CONFIG, batch_size=2)}
    if resume == "restart":
        run(tmp_path, **options)
        assert read_header(tmp_path / "last.safetensors")["about"]["run"]["batch_size"] == 2
        assert read_files(tmp_path / "earlier/1") == files
    else:
        with pytest.raises(ConfigError, match="name another folder, or set resume to '"):
            run(tmp_path, **options)
        assert read_files(tmp_path) == files


def test_a_restarted_run_equals_the_first_one_and_the_earlier_one_can_be_resumed(tmp_path):
    run(tmp_path, on_eval=stop_at_step(4))
    whole = run(tmp_path, resume="restart")
    assert_same_run(run(tmp_path / "earlier/1"), whole)
    assert_same_run(run(tmp_path, resume="restart"), whole)
    assert_same_files(tmp_path / "earlier/1", tmp_path / "earlier/2")
    assert_same_files(tmp_path / "earlier/2", tmp_path)


def test_a_folder_without_a_run_and_a_run_without_a_step_can_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    run(tmp_path, resume="never", on_eval=stop_at_step(0))
    assert read_header(tmp_path / "last.safetensors")["about"]["step"] == 0
    run(tmp_path, resume="never")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "earlier").exists()


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_a_checkpoint_that_cannot_be_read_counts_as_a_run(tmp_path, name):
    (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(ConfigError, match="already holds a run, which is not overwritten"):
        run(tmp_path, resume="never")
    run(tmp_path, resume="restart")
    assert (tmp_path / "earlier/1" / name).read_bytes() == b"torn"


@pytest.mark.parametrize(("name", "content"), [
    ("metrics.jsonl", '{"my": "measurements"}\n'), ("metrics.jsonl", '{"step": 4}\n'),
    ("best.json", '{"my": "file"}'), ("last.json", "my notes"),
])
def test_a_file_of_another_program_or_of_an_older_run_is_not_overwritten(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match="already holds a run, which is not overwritten"):
        run(tmp_path, resume="never")
    with pytest.raises(CheckpointError, match="holds a run without last.safetensors"):
        run(tmp_path, resume="auto")
    assert (tmp_path / name).read_text() == content
    run(tmp_path, resume="restart")
    assert (tmp_path / "earlier/1" / name).read_text() == content


def test_a_run_without_its_last_checkpoint_is_not_begun_again(tmp_path):
    run(tmp_path)
    (tmp_path / "last.safetensors").unlink()
    files = read_files(tmp_path)
    with pytest.raises(CheckpointError, match="without last.safetensors, which is needed"):
        run(tmp_path, resume="auto")
    assert read_files(tmp_path) == files


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_one_runs(tmp_path):
    def start_second_run(row):
        for resume in ("never", "auto", "restart"):
            files = read_files(tmp_path)
            with pytest.raises(CheckpointError, match="another run is writing into"):
                run(tmp_path, resume=resume)
            assert read_files(tmp_path) == files

    run(tmp_path, on_eval=start_second_run)
    assert steps_of_metrics(tmp_path) == [0, 4, 8, 12]
    run(tmp_path)                                               # the folder is free again


def test_a_run_that_fails_frees_its_folder(tmp_path):
    def fail(row):
        raise ValueError("a mistake in on_eval")

    with pytest.raises(ValueError, match="a mistake in on_eval"):
        run(tmp_path, on_eval=fail)
    run(tmp_path)
    with pytest.raises(ConfigError):
        run(tmp_path, resume="never")
    run(tmp_path)


def test_temporary_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".last.safetensors.0123.partial").write_bytes(b"torn")
    run(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


# Other conditions ---------------------------------------------------------------------------------

def test_a_run_may_continue_on_another_device(tmp_path):
    run(tmp_path, on_eval=stop_at_step(4))
    name = "cpu" if torch.cuda.is_available() else "auto"
    assert run(tmp_path, config=replace(CONFIG, device=name))[1].history[-1]["step"] == 12


def test_a_model_of_any_class_is_resumed(tmp_path):
    run(tmp_path, model=Bigram(7), on_eval=stop_at_step(4))
    run(tmp_path, model=Bigram(7))
    assert read_header(tmp_path / "last.safetensors")["about"]["step"] == 12
    assert steps_of_metrics(tmp_path) == [0, 4, 8, 12]


# Ctrl-C -------------------------------------------------------------------------------------------

def press_ctrl_c(monkeypatch, owner, name, call, times=1, before=lambda: None):
    """Let a function of `owner` end with `times` times Ctrl-C, at its call number `call`.

    The function `before` is called immediately before the first Ctrl-C.
    """
    function, n_calls = getattr(owner, name), 0

    def interrupted(*args, **kwargs):
        nonlocal n_calls
        n_calls += 1
        result = function(*args, **kwargs)
        if n_calls == call:
            before()
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(owner, name, interrupted)


def test_the_first_ctrl_c_completes_the_step_and_saves_it(tmp_path, monkeypatch):
    # Step 6 is between two evaluations. Its losses must be saved for the train loss of step 8.
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, torch.Tensor, "backward", call=6)
        assert run(tmp_path / "stopped")[1].interrupted
    assert read_header(tmp_path / "stopped/last.safetensors")["about"]["step"] == 6
    assert_same_run(run(tmp_path / "stopped"), run(tmp_path / "whole"))
    assert_same_files(tmp_path / "stopped", tmp_path / "whole")


# A moment is the end of a call: an object, the name of its function, and the number of the call.
# Files are written in this order: metrics.jsonl (call 1 of os.fsync and os.replace), then
# best.json, best.safetensors, last.json and last.safetensors for step 0 (calls 2 to 5), then the
# same four for step 4 (calls 6 to 9).
TRAIN_MODULE = import_module("gptlib.train")
MOMENTS = {
    "after the forward pass": (TRAIN_MODULE, "batch_loss", 7),
    "after the backward pass": (torch.Tensor, "backward", 6),
    "after the step of the optimizer": (torch.optim.AdamW, "step", 6),
    "in an evaluation": (TRAIN_MODULE, "evaluate_batches", 3),
    "after best.json is written": (os, "replace", 6),
    "after best.safetensors is written": (os, "replace", 7),
    "after last.json is written": (os, "replace", 8),
    "after last.safetensors is written": (os, "replace", 9),
    "before best.safetensors is renamed": (os, "fsync", 7),
    "before last.safetensors is renamed": (os, "fsync", 9),
    "in the first evaluation": (TRAIN_MODULE, "evaluate_batches", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_second_ctrl_c_saves_nothing_and_the_run_is_resumed_to_the_bit(
    tmp_path, monkeypatch, moment
):
    # The validation split is a part of the training split, so that every evaluation is a new best.
    stopped, options = tmp_path / "stopped", {"val_ids": TRAIN_IDS[:100]}
    owner, name, call = MOMENTS[moment]
    files = {}
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, owner, name, call, times=2,
                     before=lambda: files.update(read_files(stopped)))
        assert run(stopped, **options)[1].interrupted
    assert read_files(stopped) == files
    whole = run(tmp_path / "whole", **options)
    assert whole[1].best["step"] == 12
    assert_same_run(run(stopped, **options), whole)
    assert_same_files(stopped, tmp_path / "whole")
    assert steps_of_metrics(stopped) == [0, 4, 8, 12]
    assert not list(stopped.glob("*.partial"))


def test_a_second_ctrl_c_while_the_first_is_saved_preserves_the_earlier_checkpoint(
    tmp_path, monkeypatch
):
    stopped, options = tmp_path / "stopped", {"val_ids": TRAIN_IDS[:100]}
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, torch.Tensor, "backward", call=6)
        # The calls 1 to 9 are those until step 4. See above.
        press_ctrl_c(patch, os, "fsync", call=10)
        assert run(stopped, **options)[1].interrupted
    assert read_header(stopped / "last.safetensors")["about"]["step"] == 4
    assert_same_run(run(stopped, **options), run(tmp_path / "whole", **options))
    assert_same_files(stopped, tmp_path / "whole")


def test_after_a_second_ctrl_c_the_report_names_the_step_of_the_saved_model(
    tmp_path, monkeypatch, capsys
):
    press_ctrl_c(monkeypatch, torch.Tensor, "backward", call=6, times=2)
    run(tmp_path, progress=True)
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line == (
        f"interrupted after step 5 of 12; the model of step 4 is in {tmp_path.name}"
    )


# Refused ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("changed", "sentence"), [
    ({"config": replace(CONFIG, batch_size=2)}, "batch_size was 4 and is now 2"),
    ({"n_embd": 16}, "n_embd was 8 and is now 16"),
    ({"tokenizer": CharTokenizer("hijklmn")}, "tokenizer was"),
    ({"train_ids": TRAIN_IDS.flip(0)}, "training split was"),
    ({"val_ids": VAL_IDS.flip(0)}, "validation split was"),
    ({"train_ids": batch_with_mask}, "training split was"),
], ids=["batch_size", "n_embd", "tokenizer", "training split", "validation split", "function"])
def test_another_config_tokenizer_or_text_is_refused_by_name(tmp_path, changed, sentence):
    run(tmp_path)
    files = read_files(tmp_path)
    with pytest.raises(ConfigError) as error:
        run(tmp_path, **changed)
    assert sentence in str(error.value)
    assert "cannot be resumed" in str(error.value)
    assert read_files(tmp_path) == files


@pytest.mark.parametrize("part", [0, 1, 2], ids=["tokens", "targets", "mask"])
def test_other_batches_from_a_function_are_refused_by_name(tmp_path, part):
    def other_batch(step):
        batch = [tensor.clone() for tensor in batch_with_mask(step)]
        batch[part][0, ..., -1] = batch[part][0, ..., 0]
        return tuple(batch)

    val_batches = [batch_with_mask(0)]
    run(tmp_path, train_ids=batch_with_mask, val_ids=val_batches)
    with pytest.raises(ConfigError, match="training split was"):
        run(tmp_path, train_ids=other_batch, val_ids=val_batches)
    with pytest.raises(ConfigError, match="validation split was"):
        run(tmp_path, train_ids=batch_with_mask, val_ids=[other_batch(0)])


def test_a_damaged_checkpoint_is_named_and_not_changed(tmp_path):
    run(tmp_path)
    path = tmp_path / "last.safetensors"
    damaged = path.read_bytes()[:-100]
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="last.safetensors is not a whole checkpoint"):
        run(tmp_path)
    assert path.read_bytes() == damaged
    assert isinstance(load_model(tmp_path)[0], GPT)             # best.safetensors is whole


def refusal(folder, **options):
    """Return the one sentence with which `run` refuses to resume. Nothing may change."""
    files = read_files(folder)
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SHAPE | {"dropout": 0.2}))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        run(folder, model=model, **options)
    assert read_files(folder) == files
    assert_same_tensors(model.state_dict(), before)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_last_checkpoint_without_an_optimizer_is_refused(tmp_path):
    run(tmp_path, on_eval=stop_at_step(8), val_ids=TRAIN_IDS[:100])
    shutil.copy(tmp_path / "best.safetensors", tmp_path / "last.safetensors")
    sentence = refusal(tmp_path, val_ids=TRAIN_IDS[:100])
    assert sentence.startswith(f"{tmp_path / 'last.safetensors'} was saved without its optimizer")


def test_a_last_checkpoint_that_train_did_not_save_is_refused(tmp_path):
    model = GPT(GPTConfig(**SHAPE | {"dropout": 0.2}))
    optimizer = make_optimizer(model, CONFIG)
    save_checkpoint(tmp_path / "last.safetensors", model, TOKENIZER, optimizer, step=3)
    sentence = refusal(tmp_path)
    assert sentence.startswith(f"{tmp_path / 'last.safetensors'} was not saved by train()")


def test_a_last_checkpoint_with_another_optimizer_is_refused(tmp_path):
    run(tmp_path, on_eval=stop_at_step(8))
    sentence = refusal(tmp_path, optimizer=lambda model, config: torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=0.9))
    assert "was saved with the optimizer AdamW, so the run cannot continue with SGD" in sentence


def test_a_full_disk_preserves_the_earlier_checkpoint_and_the_run_can_be_resumed(
    tmp_path, monkeypatch
):
    fsync, n_calls = os.fsync, 0

    def fsync_on_a_disk_that_gets_full(handle):
        nonlocal n_calls
        n_calls += 1
        if n_calls > 10:
            raise OSError(28, "No space left on device")
        return fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync_on_a_disk_that_gets_full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            run(tmp_path / "stopped")
    assert 0 < read_header(tmp_path / "stopped/last.safetensors")["about"]["step"] < 12
    assert not list((tmp_path / "stopped").glob("*.partial"))
    assert_same_run(run(tmp_path / "stopped"), run(tmp_path / "whole"))


def test_an_empty_name_of_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="out_dir='' should name a folder"):
        run("")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="out_dir=.*cannot be written"):
        run(tmp_path / "file/run")


# Runs of earlier versions -------------------------------------------------------------------------

EARLIER = Path(__file__).parent / "earlier_checkpoints"
EXPECTED = json.loads((EARLIER / "expected.json").read_text(encoding="utf-8"))
MODELS = {
    "plain": lambda: make_model(GPTConfig(**SHAPE, dropout=0.2, bias=True)),
    "variant": lambda: make_model(VariantConfig(**SHAPE, attention="toeplitz", token_shift=True)),
    "rolling": lambda: make_model(VariantConfig(**SHAPE, window=4, memory="tokens", n_memory=2)),
    "bigram": lambda: Bigram(7),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_run_of_an_earlier_version_can_be_resumed(tmp_path, name):
    # The earlier version had saved these files after 8 of 12 steps.
    shutil.copy(EARLIER / f"{name}.safetensors", tmp_path / "last.safetensors")
    _, result = run(tmp_path, model=MODELS[name]())
    assert steps_of_metrics(tmp_path) == [0, 4, 8, 12]
    val_losses = [row["val_loss"] for row in result.history]
    assert val_losses == pytest.approx(EXPECTED[name]["val_losses"], rel=1e-5)


def test_a_run_of_an_earlier_version_with_another_option_is_refused(tmp_path):
    shutil.copy(EARLIER / "variant.safetensors", tmp_path / "last.safetensors")
    model = make_model(VariantConfig(**SHAPE, attention="toeplitz"))
    with pytest.raises(ConfigError, match="token_shift was True and is now False"):
        run(tmp_path, model=model)


# Real signals -------------------------------------------------------------------------------------

# This program stops its child processes, by one SIGKILL or by two Ctrl-C, until one of them ends by
# itself. Then a new round begins with a new folder. The number of the round is the seed of its
# random moments.
STOPS = '''
import os, random, signal, sys, time
import torch
import torch._dynamo            # Otherwise the first optimizer step imports it in every child.
from tests.test_resume import LONG_CONFIG, run

torch.set_num_threads(1)
out, kind, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
stops, round = 0, 0


def modified(path):
    return os.stat(path).st_mtime_ns if os.path.exists(path) else 0


def has_ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def train_until_stopped(folder):
    interrupted = True
    try:
        interrupted = run(folder, config=LONG_CONFIG)[1].interrupted
    except KeyboardInterrupt:
        pass                    # The second Ctrl-C came after the end of train().
    finally:
        os._exit(1 if interrupted else 0)


while stops < wanted:
    round += 1
    folder = f"{out}/{round}"
    last = f"{folder}/last.safetensors"
    draw = random.Random(round)
    while True:
        child = os.fork()
        if child == 0:
            train_until_stopped(folder)
        # Wait until the child has saved something, then for a random time.
        before = modified(last)
        while modified(last) == before and not has_ended(child):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        if kind == "SIGKILL":
            os.kill(child, signal.SIGKILL)
        else:
            os.kill(child, signal.SIGINT)
            time.sleep(draw.uniform(0, 0.005))
            os.kill(child, signal.SIGINT)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        stops += 1
print(stops, round)
'''
LONG_CONFIG = replace(CONFIG, max_steps=200, eval_interval=2)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which Windows does not have")
@pytest.mark.parametrize("kind", ["SIGKILL", "two SIGINT"])
def test_runs_stopped_twenty_times_at_random_moments_are_resumed_to_the_bit(tmp_path, kind):
    """Real processes get real signals, many of them while they write a file."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", STOPS, str(tmp_path / "stopped"), kind, "20"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    stops, rounds = map(int, done.stdout.split())
    assert stops >= 20
    run(tmp_path / "whole", config=LONG_CONFIG)
    for round in range(1, rounds + 1):
        folder = tmp_path / f"stopped/{round}"
        assert_same_files(folder, tmp_path / "whole")
        for name in ("best", "last"):
            readable = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            assert readable == read_header(folder / f"{name}.safetensors")


@pytest.mark.parametrize("value", ["Auto", "yes", True, None])
def test_an_unknown_value_of_resume_is_refused_and_nothing_is_changed(tmp_path, value):
    run(tmp_path)
    files = read_files(tmp_path)
    with pytest.raises(ConfigError, match=f"resume={value!r} should be one of 'never', 'auto'"):
        run(tmp_path, resume=value)
    assert read_files(tmp_path) == files
