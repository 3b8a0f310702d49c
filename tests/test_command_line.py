import math
import subprocess
import sys

import pytest

from gptlib import BPETokenizer, load_checkpoint
from gptlib.__main__ import main

TEXT = "text:" + "to be, or not to be, that is the question: " * 10
SMALL = ["--device", "cpu", "--block-size", "8", "--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--max-steps", "4",
         "--eval-interval", "2", "--batch-size", "2"]


@pytest.fixture
def trained(tmp_path, capsys):
    assert main(["train", "--corpus", TEXT, "--out", str(tmp_path / "run"), *SMALL]) == 0
    capsys.readouterr()
    return str(tmp_path / "run")


def sample(capsys, run, *how):
    assert main(["generate", "--checkpoint", run, *how]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_training_reports_the_corpus_and_the_best_loss(tmp_path, capsys):
    assert main(["train", "--corpus", TEXT, "--out", str(tmp_path / "run"), *SMALL]) == 0
    said = capsys.readouterr().out
    assert "text: 430 characters from the string given" in said and "step 4/4: train loss" in said
    assert "best validation loss" in said and f"model in {tmp_path / 'run'}" in said


def test_training_takes_every_field_of_the_configs_as_an_option(tmp_path):
    run = tmp_path / "run"
    main(["train", "--corpus", TEXT, "--out", str(run), *SMALL, "--position", "sinusoidal", "--bias", "--no-tie-weights",
          "--dropout", "0.1", "--seed", "5", "--learning-rate", "1e-2"])
    checkpoint = load_checkpoint(run)
    config, training = checkpoint.model.config, checkpoint.about["run"]
    assert (config.position, config.bias, config.tie_weights, config.dropout, config.n_embd) == ("sinusoidal", True, False, 0.1, 8)
    assert (training["seed"], training["learning_rate"], training["max_steps"]) == (5, 0.01, 4)


def test_the_same_command_trains_the_same_model(tmp_path):
    for name in "ab":
        main(["train", "--corpus", TEXT, "--out", str(tmp_path / name), *SMALL])
    a, b = (load_checkpoint(tmp_path / name / "last.safetensors").model.state_dict() for name in "ab")
    assert all(a[name].equal(b[name]) for name in a)


def test_a_trained_model_can_be_sampled(trained, capsys):
    text = sample(capsys, trained, "--prompt", "to be", "--max-new-tokens", "20", "--seed", "1")
    assert text.startswith("to be") and len(text) == 5 + 20 + 1
    assert text == sample(capsys, trained, "--prompt", "to be", "--max-new-tokens", "20", "--seed", "1")
    assert text != sample(capsys, trained, "--prompt", "to be", "--max-new-tokens", "20", "--seed", "2")


def test_the_settings_of_sampling_are_heeded(trained, capsys):
    greedy = sample(capsys, trained, "--prompt", "to", "--max-new-tokens", "20", "--temperature", "0")
    for how in (["--top-k", "1"], ["--top-p", "0"]):
        assert sample(capsys, trained, "--prompt", "to", "--max-new-tokens", "20", *how) == greedy
    assert sample(capsys, trained, "--prompt", "to", "--temperature", "0", "--stop", greedy[2], "--stop", "zz") == "to\n"


def test_the_lowercase_tokenizer_can_be_chosen(tmp_path, capsys):
    run = str(tmp_path / "run")
    main(["train", "--corpus", TEXT, "--out", run, "--tokenizer", "lowercase", *SMALL])
    assert load_checkpoint(run).tokenizer.vocab_size == 88
    capsys.readouterr()
    assert sample(capsys, run, "--prompt", "What is ∞?", "--max-new-tokens", "1").startswith("What is ∞?")


def test_the_bpe_tokenizer_learns_from_the_training_split_and_reports_bits_per_byte(tmp_path, capsys):
    run, text = tmp_path / "run", TEXT.removeprefix("text:")
    assert main(["train", "--corpus", TEXT, "--out", str(run), "--tokenizer", "bpe", "--vocab-size", "264", *SMALL]) == 0
    said = capsys.readouterr().out
    checkpoint = load_checkpoint(run)
    assert checkpoint.model.config.vocab_size == checkpoint.tokenizer.vocab_size == 264
    assert checkpoint.tokenizer.to_dict() == BPETokenizer.train(text[:387], 264).to_dict()
    val_text = text[387:]
    nats = min(row["val_loss"] for row in checkpoint.about["history"]) * len(checkpoint.tokenizer.encode(val_text))
    assert f", {nats / math.log(2) / len(val_text):.4f} bits per byte, at step" in said
    assert sample(capsys, str(run), "--prompt", "to be", "--max-new-tokens", "5").startswith("to be")


@pytest.mark.parametrize("options, said", [
    (["--tokenizer", "bpe", "--vocab-size", "100"], "vocab_size=100 should be at least 256"),
    (["--tokenizer", "bpe", "--vocab-size", "9999"], "vocab_size=9999 is more than this text can give"),
    (["--corpus", "tinyshakespear"], "unknown corpus 'tinyshakespear': did you mean 'tinyshakespeare'?"),
    (["--corpus", "text:"], "corpus 'text' holds no text"),
    (["--corpus", "text:too short"], "split has"),
    (["--n-embd", "10", "--n-head", "3"], "n_embd=10 should be a multiple of n_head=3, such as 9"),
    (["--learning-rate", "nan"], "learning_rate=nan should be a finite number"),
    (["--max-steps", "0"], "max_steps=0 should be at least 1"),
    (["--seed", str(2 ** 64)], "below 2 ** 63"),
    (["--device", "tpu"], "device='tpu' is not to be had on this machine"),
])
def test_training_on_bad_input_ends_with_one_sentence(tmp_path, capsys, options, said):
    assert main(["train", "--corpus", TEXT, "--out", str(tmp_path / "run"), *SMALL, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gptlib train: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options, said", [
    (["--prompt", "Ωmega"], "character 'Ω' (U+03A9) at position 0 is not among"),
    (["--prompt", ""], "the prompt is empty"),
    (["--temperature", "-1"], "temperature=-1.0 should be 0 (greedy) or above"),
    (["--top-k", "0"], "top_k=0 should be at least 1"),
    (["--top-p", "2"], "top_p=2.0 should be between 0 and 1"),
    (["--stop", ""], "a stop string is empty"),
    (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
])
def test_sampling_on_bad_input_ends_with_one_sentence(trained, capsys, options, said):
    assert main(["generate", "--checkpoint", trained, "--prompt", "to", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gptlib generate: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["generate"], ["train", "--n-layer", "two"], ["train", "--position", "up"]])
def test_a_command_that_is_none_ends_with_its_usage(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and capsys.readouterr().err.startswith("usage: python -m gptlib")


def test_the_module_runs_as_a_command_and_shows_no_traceback(tmp_path):
    command = [sys.executable, "-m", "gptlib", "generate", "--checkpoint", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("gptlib generate: nowhere does not exist") and done.stderr.count("\n") == 1


# presets

def test_a_preset_gives_its_settings_and_further_options_change_them(capsys):
    """Four matrices a layer, of width 384 and with biases."""
    assert main(["plan", "--preset", "nanogpt", "--corpus", TEXT, "--steps", "0"]) == 0
    six_layers = capsys.readouterr().out
    assert main(["plan", "--corpus", TEXT, "--n-layer", "5", "--preset", "nanogpt", "--steps", "0"]) == 0
    five_layers = capsys.readouterr().out
    attention = lambda table: int(next(line for line in table.splitlines() if "parameters: attention" in line).split()[2].replace(",", ""))
    assert attention(six_layers) == 6 * 4 * (384 ** 2 + 384) and attention(five_layers) == 5 * 4 * (384 ** 2 + 384)


def test_an_unknown_preset_is_one_sentence_that_names_the_nearest(capsys):
    assert main(["train", "--preset", "nanogp"]) == 1
    assert "unknown preset 'nanogp': did you mean 'nanogpt'?" in capsys.readouterr().err
