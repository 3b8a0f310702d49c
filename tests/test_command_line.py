"""The command line: `python -m gptlib train`, `plan` and `generate`."""

import math
import subprocess
import sys

import pytest

from gptlib import BPETokenizer, GPTConfig, load_model
from gptlib.__main__ import main
from gptlib.checkpoint import read_header
from gptlib.variants.config import VariantConfig

TEXT = "to be, or not to be, that is the question: " * 10
CORPUS = ["--corpus", f"text:{TEXT}"]
SMALL = ["--device", "cpu", "--block-size", "8", "--n-layer", "1", "--n-head", "2",
         "--n-embd", "8", "--max-steps", "4", "--eval-interval", "2", "--batch-size", "2"]


def train(out, *options):
    """Train a small model into the folder `out`."""
    assert main(["train", *CORPUS, "--out", str(out), *SMALL, *options]) == 0


@pytest.fixture
def trained(tmp_path, capsys):
    """Return the folder of a short run."""
    train(tmp_path / "run")
    capsys.readouterr()
    return str(tmp_path / "run")


def sample(capsys, checkpoint, *options):
    """Return what `generate` prints."""
    capsys.readouterr()
    assert main(["generate", "--checkpoint", str(checkpoint), *options]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


# train --------------------------------------------------------------------------------------------

def test_train_reports_the_corpus_the_evaluations_and_the_best_loss(tmp_path, capsys):
    train(tmp_path / "run")
    output = capsys.readouterr().out
    assert "text: 430 characters from the string given" in output
    assert "step 4/4: train loss" in output
    assert "best validation loss" in output
    assert f"model in {tmp_path / 'run'}" in output
    assert (tmp_path / "run/loss.png").is_file()


def test_every_field_of_the_configs_is_an_option_of_train(tmp_path):
    train(tmp_path, "--position", "sinusoidal", "--bias", "--no-tie-weights", "--dropout", "0.1",
          "--seed", "5", "--learning-rate", "1e-2")
    config = load_model(tmp_path)[0].config
    assert config == GPTConfig(
        vocab_size=config.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=8,
        position="sinusoidal", bias=True, tie_weights=False, dropout=0.1,
    )
    recipe = read_header(tmp_path)["about"]["run"]
    assert (recipe["seed"], recipe["learning_rate"], recipe["max_steps"]) == (5, 0.01, 4)


@pytest.mark.parametrize(("options", "fields"), [
    (["--attention", "toeplitz", "--token-shift"], {"attention": "toeplitz", "token_shift": True}),
    (["--memory", "mean", "--window", "4", "--detach"],
     {"memory": "mean", "window": 4, "detach": True}),
    (["--memory", "tokens", "--window", "4", "--n-memory", "2", "--rescale"],
     {"memory": "tokens", "window": 4, "n_memory": 2, "rescale": True}),
], ids=["time weighting", "context rolling", "memory tokens"])
def test_every_field_of_the_variants_is_an_option_of_train(tmp_path, options, fields):
    train(tmp_path, *options)
    config = load_model(tmp_path)[0].config
    assert isinstance(config, VariantConfig)
    for name, value in fields.items():
        assert getattr(config, name) == value


def test_a_model_without_variants_is_a_plain_gpt(tmp_path):
    train(tmp_path, "--attention", "plain", "--no-token-shift", "--memory", "attention")
    assert type(load_model(tmp_path)[0].config) is GPTConfig
    assert "attention" not in read_header(tmp_path)["config"]


def test_the_same_command_trains_the_same_model(tmp_path):
    for name in ("first", "second"):
        train(tmp_path / name)
    first = load_model(tmp_path / "first/last.safetensors")[0].state_dict()
    second = load_model(tmp_path / "second/last.safetensors")[0].state_dict()
    assert all(first[name].equal(second[name]) for name in first)


def test_resume_auto_continues_a_run(tmp_path, capsys):
    train(tmp_path)
    capsys.readouterr()
    train(tmp_path, "--resume", "auto")
    # The run is complete, so that no further step is evaluated.
    assert "train loss" not in capsys.readouterr().out


def test_the_lowercase_tokenizer_can_be_selected(tmp_path, capsys):
    train(tmp_path, "--tokenizer", "lowercase")
    assert load_model(tmp_path)[1].vocab_size == 88
    text = sample(capsys, tmp_path, "--prompt", "What is ∞?", "--max-new-tokens", "1")
    assert text.startswith("What is ∞?")


def test_bits_per_byte_are_printed_only_if_no_character_is_lost(tmp_path, capsys):
    train(tmp_path, "--tokenizer", "lowercase")
    assert "bits per byte, at step" in capsys.readouterr().out
    train(tmp_path / "lost", "--tokenizer", "lowercase", "--corpus", "text:" + "abc∞" * 100)
    output = capsys.readouterr().out
    assert output.count("25.00% of the characters have no token and become <?>") == 1
    assert "nats per token, at step" in output and "bits per byte, at step" not in output


def test_the_bpe_tokenizer_is_trained_on_the_training_split_and_bits_per_byte_are_reported(
    tmp_path, capsys
):
    train(tmp_path, "--tokenizer", "bpe", "--vocab-size", "264")
    output = capsys.readouterr().out
    train_text, val_text = TEXT[:387], TEXT[387:]
    model, tokenizer = load_model(tmp_path)
    assert model.config.vocab_size == tokenizer.vocab_size == 264
    assert tokenizer.to_dict() == BPETokenizer.train(train_text, 264).to_dict()
    history = read_header(tmp_path / "last.safetensors")["about"]["history"]
    nats = min(row["val_loss"] for row in history) * len(tokenizer.encode(val_text))
    bits_per_byte = nats / math.log(2) / len(val_text)
    assert f", {bits_per_byte:.4f} bits per byte, at step" in output
    text = sample(capsys, tmp_path, "--prompt", "to be", "--max-new-tokens", "5")
    assert text.startswith("to be")


@pytest.mark.parametrize(("options", "sentence"), [
    (["--tokenizer", "bpe", "--vocab-size", "100"], "--vocab-size 100 should be at least 256"),
    (["--tokenizer", "bpe", "--vocab-size", "9999"],
     "--vocab-size 9999 is too large for this text"),
    (["--corpus", "tinyshakespear"],
     "unknown corpus 'tinyshakespear': did you mean 'tinyshakespeare'?"),
    (["--corpus", "text:"], "corpus 'text' holds no text"),
    (["--corpus", "text:too short"], "split has"),
    (["--n-embd", "10", "--n-head", "3"],
     "--n-embd 10 should be a multiple of --n-head 3, such as 9"),
    (["--memory", "mean", "--window", "3"],
     "--block-size 8 should be a multiple of --window 3, such as 6"),
    (["--learning-rate", "nan"], "--learning-rate nan should be a finite number"),
    (["--max-steps", "0"], "--max-steps 0 should be at least 1"),
    (["--seed", str(2 ** 64)], "below 2 ** 63"),
    (["--device", "tpu"], "--device 'tpu' is not available on this machine"),
])
def test_bad_input_for_train_gives_one_sentence(tmp_path, capsys, options, sentence):
    arguments = ["train", *CORPUS, "--out", str(tmp_path / "run"), *SMALL, *options]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("gptlib train: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


# generate -----------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_text(trained, capsys):
    options = ["--prompt", "to be", "--max-new-tokens", "20"]
    text = sample(capsys, trained, *options, "--seed", "1")
    assert text.startswith("to be")
    assert len(text) == len("to be") + 20 + len("\n")
    assert sample(capsys, trained, *options, "--seed", "1") == text
    assert sample(capsys, trained, *options, "--seed", "2") != text


@pytest.mark.parametrize("option", [["--top-k", "1"], ["--top-p", "0"], ["--min-p", "1"]],
                         ids=["top_k", "top_p", "min_p"])
def test_top_k_1_and_top_p_0_and_min_p_1_equal_temperature_0(trained, capsys, option):
    options = ["--prompt", "to", "--max-new-tokens", "20"]
    greedy = sample(capsys, trained, *options, "--temperature", "0")
    assert sample(capsys, trained, *options, *option) == greedy


def test_any_of_several_stop_strings_ends_the_text(trained, capsys):
    options = ["--prompt", "to", "--temperature", "0"]
    greedy = sample(capsys, trained, *options)
    first_character = greedy[len("to")]
    text = sample(capsys, trained, *options, "--stop", first_character, "--stop", "zz")
    assert text == "to\n"


@pytest.mark.parametrize(("options", "sentence"), [
    (["--prompt", "Ωmega"], "character 'Ω' (U+03A9) at position 0 is not among"),
    (["--prompt", ""], "the prompt is empty"),
    (["--temperature", "-1"], "--temperature -1.0 should be at least 0.0"),
    (["--top-k", "0"], "--top-k 0 should be at least 1"),
    (["--top-p", "2"], "--top-p 2.0 should be between 0 and 1"),
    (["--min-p", "-1"], "--min-p -1.0 should be between 0 and 1"),
    (["--stop", ""], "a stop string is empty"),
    (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
])
def test_bad_input_for_generate_gives_one_sentence(trained, capsys, options, sentence):
    assert main(["generate", "--checkpoint", trained, "--prompt", "to", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gptlib generate: ")
    assert sentence in error
    assert error.count("\n") == 1


# The program --------------------------------------------------------------------------------------

def test_the_module_runs_as_a_program_and_shows_no_traceback(tmp_path):
    command = [sys.executable, "-m", "gptlib", "generate", "--checkpoint", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("gptlib generate: nowhere does not exist")
    assert done.stderr.count("\n") == 1


# Presets ------------------------------------------------------------------------------------------

def attention_parameters(capsys, *options):
    """Return the number of parameters of all attention layers that `plan` prints."""
    # nanogpt has a block_size of 256, so it needs a longer text.
    corpus = ["--corpus", f"text:{10 * TEXT}"]
    assert main(["plan", *corpus, "--steps", "0", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("parameters: attention"))
    return int(line.split()[2].replace(",", ""))


def test_a_preset_sets_its_options_and_other_options_change_them(capsys):
    # A layer has four matrices of width 384, with biases.
    layer = 4 * (384 ** 2 + 384)
    assert attention_parameters(capsys, "--preset", "nanogpt") == 6 * layer
    # The order of the options does not matter.
    assert attention_parameters(capsys, "--n-layer", "5", "--preset", "nanogpt") == 5 * layer


def test_an_unknown_preset_gives_one_sentence_with_the_nearest_name(capsys):
    assert main(["train", "--preset", "nanogp"]) == 1
    error = capsys.readouterr().err
    assert "unknown preset 'nanogp': did you mean 'nanogpt'?" in error
    assert error.count("\n") == 1
