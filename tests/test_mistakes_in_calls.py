"""Mistakes in calls of the library: nothing is lost or silent, and each gets a sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptlib import (
    GPT,
    CharTokenizer,
    GPTConfig,
    TrainConfig,
    evaluate,
    generate,
    load_corpus,
    load_model,
    save_checkpoint,
    train,
)
from gptlib.bpe import find_tiktoken
from gptlib.checkpoint import CheckpointError, load_weights
from gptlib.checks import above, at_least, between
from gptlib.classroom import grade
from gptlib.classroom.leaderboard import leaderboard, read_results, save_result
from gptlib.classroom.measured import GROUPS, group_name
from gptlib.config import ConfigError, from_parameters
from gptlib.data import DataError, check_length
from gptlib.model import POSITIONS
from gptlib.options import Parser
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import RollingGPT
from gptlib.widgets import TrainingBoard, find_checkpoints

TOOLS = Path(__file__).resolve().parents[1] / "tools"
TEXT = "to be or not to be " * 20
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = torch.tensor(TOKENIZER.encode(TEXT))
CONFIG = GPTConfig(TOKENIZER.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=8)
TRAINING = TrainConfig(max_steps=1, batch_size=2, dtype="float32", device="cpu")


def save_row(folder, **changed):
    row = {"chapter": "1", "model": "a", "parameters": 1, "seconds": 1.0, "val_loss": 2.0,
           "vocab_size": TOKENIZER.vocab_size, "corpus": load_corpus("text:" + TEXT),
           "val_text": TEXT}
    return save_result(folder, **row | changed)


# Lost files ---------------------------------------------------------------------------------------

def test_the_result_of_a_model_with_a_similar_name_is_not_overwritten(tmp_path):
    first = save_row(tmp_path, model="my gpt")
    with pytest.raises(ValueError, match=r"holds the result of the model 'my gpt'.*another name"):
        save_row(tmp_path, model="my-gpt")
    assert json.loads((tmp_path / "result-my-gpt.json").read_text()) == first
    assert save_row(tmp_path, model="my gpt", val_loss=1.0)["val_loss"] == 1.0


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"model": "a"}'])
def test_a_damaged_result_of_the_same_model_is_replaced(tmp_path, content):
    (tmp_path / "result-a.json").write_text(content)
    row = save_row(tmp_path)
    assert json.loads((tmp_path / "result-a.json").read_text()) == row


# Nothing was said ---------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.int64, torch.int8])
def test_weights_that_were_rounded_to_integers_are_not_loaded(tmp_path, dtype):
    path = tmp_path / "gpt.safetensors"
    model = GPT(CONFIG)
    save_checkpoint(path, model, TOKENIZER)
    header = {"gptlib": json.dumps(json.loads(path.with_suffix(".json").read_text()))}
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, header)
    message = rf"^{path} .* is {dtype} in the file and torch.float32 in the model"
    for load in (load_model, lambda path: load_weights(path, model)):
        with pytest.raises(CheckpointError, match=message):
            load(path)


def test_weights_of_16_bits_are_loaded(tmp_path):
    path = tmp_path / "gpt.safetensors"
    save_checkpoint(path, GPT(CONFIG).bfloat16(), TOKENIZER)
    assert load_model(path)[0].head.weight.dtype == torch.float32


def test_a_group_has_a_known_position_and_a_bool():
    assert len({group_name(*group) for group in GROUPS}) == len(GROUPS)
    with pytest.raises(ValueError, match="position='learnt' should be one of"):
        group_name("learnt", True)
    with pytest.raises(ValueError, match="token_shift='no' is str, it should be bool"):
        group_name("none", "no")


EMPTY_PATHS = {
    "the folder of a board": lambda: TrainingBoard(
        GPT(CONFIG), IDS, IDS, 8, TRAINING, out_dir="", tokenizer=TOKENIZER),
    "the folder of all runs": lambda: read_results(""),
    "the folder of checkpoints": lambda: find_checkpoints(""),
    "the folder of notebooks": lambda: grade.grade(""),
}


@pytest.mark.parametrize("call", EMPTY_PATHS.values(), ids=EMPTY_PATHS)
def test_an_empty_path_does_not_mean_the_working_directory(call):
    with pytest.raises(ValueError, match=r"(out_dir|runs|folder)='' should name a folder"):
        call()


@pytest.mark.parametrize("tool", ["lab", "make_site"])
def test_a_tool_without_arguments_refuses_one(tool, run_tool):
    error = run_tool(tool, "01_bigram")
    assert error.startswith(f"make {'lab' if tool == 'lab' else 'site'}: '01_bigram' ")
    assert "takes no argument" in error and error.count("\n") == 1


@pytest.fixture
def run_tool():
    def run(tool, *arguments):
        process = subprocess.run([sys.executable, TOOLS / f"{tool}.py", *arguments], text=True,
                                 capture_output=True, timeout=60)
        assert process.returncode == 1 and not process.stdout
        return process.stderr

    return run


# Sentences that did not help ----------------------------------------------------------------------

BAD_CALLS = {
    "a config in place of its class": (
        lambda: from_parameters(CONFIG, {}, vocab_size=5),
        ConfigError, r"GPTConfig\(.* should be the class of a config, such as GPTConfig"),
    "the name of a config": (
        lambda: from_parameters("GPTConfig", {}, vocab_size=5),
        ConfigError, "'GPTConfig' should be the class of a config"),
    "a list of parameters": (
        lambda: from_parameters(GPTConfig, ["n_layer"], vocab_size=5),
        ConfigError, r"namespace=\['n_layer'\] should be a dict, such as globals\(\)"),
    "a config in place of parameters": (
        lambda: from_parameters(GPTConfig, CONFIG, vocab_size=5),
        ConfigError, r"namespace=GPTConfig.* should be a dict"),
    "a text as a limit": (
        lambda: at_least("1"), ValueError, "at_least: limit='1' is str, it should be int or float"),
    "no limit": (lambda: above(None), ValueError, "above: limit=None is NoneType"),
    "a bool as a limit": (lambda: between(0, True), ValueError, "between: highest=True is bool"),
    "a text as a block size": (
        lambda: check_length(IDS, "16"), DataError, "block_size='16' is str, it should be int"),
    "swapped arguments of check_length": (
        lambda: check_length(16, IDS), DataError, r"ids=16 is int, it should be a torch.Tensor"),
    "targets in place of a cache": (
        lambda: GPT(CONFIG)(IDS[None, :4], IDS[None, 1:5]),
        ValueError, r"cache is not one of this model, it is Tensor: .*no targets"),
    "targets in place of the cache of a rolling GPT": (
        lambda: RollingGPT(VariantConfig(5, block_size=8, n_head=1, memory="mean", window=4))(
            IDS[None, :4] % 5, IDS[None, 1:5]),
        ValueError, r"cache is not one of this model, it is Tensor: .*no targets"),
    "a text as a prompt": (
        lambda: generate(GPT(CONFIG), "to be", 5),
        ValueError, r"idx='to be' is str, it should be a list of rows, \(T,\) each, or a torch"),
    "an evaluation with longer windows than the model's": (
        lambda: evaluate(GPT(CONFIG), IDS, 9),
        ValueError, "block_size=9 should be at most 8, the longest text that the model reads"),
    "a training with longer windows than the model's": (
        lambda: train(GPT(CONFIG), IDS, IDS, 9, TRAINING),
        ValueError, "block_size=9 should be at most 8, the longest text that the model reads"),
    "a function of the wrong arguments": (
        lambda: train(GPT(CONFIG), IDS, IDS, 8, TRAINING, on_eval=lambda: None),
        ValueError, r"on_eval should be a function with the arguments \(row\)"),
    "a stop function with an argument": (
        lambda: train(GPT(CONFIG), IDS, IDS, 8, TRAINING, stop=lambda model: True),
        ValueError, r"stop should be a function with the arguments \(\)"),
    "an extra loss without an argument": (
        lambda: train(GPT(CONFIG), IDS, IDS, 8, TRAINING, extra_loss=lambda: 0.0),
        ValueError, r"extra_loss should be a function with the arguments \(model\)"),
    "an optimizer function of one argument": (
        lambda: train(GPT(CONFIG), IDS, IDS, 8, TRAINING, optimizer=lambda model: None),
        ValueError, r"optimizer should be a function with the arguments \(model, config\)"),
    "a batch function without an argument": (
        lambda: train(GPT(CONFIG), lambda: None, IDS, 8, TRAINING),
        ValueError, r"train_ids should be a function with the arguments \(step\)"),
    "a row in place of rows": (
        lambda: leaderboard({"model": "a"}),
        ValueError, r"rows=\{'model': 'a'\} is dict, it should be a list of rows"),
    **{f"a config in place of positions {name}": (
        lambda positions=positions: positions(16),
        ValueError, f"{positions.__name__}: config=16 is int, it should be GPTConfig")
       for name, positions in POSITIONS.items()},
}


@pytest.mark.parametrize("call, error_class, message", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_value_is_named(call, error_class, message):
    with pytest.raises(error_class, match=message):
        call()


def test_the_leaderboard_names_the_row(tmp_path):
    row = save_row(tmp_path)
    with pytest.raises(ValueError, match=r"rows\[1\]\['val_loss'\]=None is NoneType"):
        leaderboard([row, row | {"val_loss": None}])


def test_an_unknown_vocabulary_of_tiktoken_is_named(capsys):
    pytest.importorskip("tiktoken")
    assert find_tiktoken("gpt5") is None
    printed = capsys.readouterr().out
    assert printed.startswith("tiktoken's vocabulary gpt5 is not available (its vocabularies are ")
    assert "cl100k_base" in printed


@pytest.mark.parametrize("typed, message", [
    (["--bias", "yes"], "^unexpected argument 'yes': --bias takes no value$"),
    (["poem.txt"], "^unexpected argument 'poem.txt': a value stands after the name of its option"),
    (["poem.txt", "--bias"], "^unexpected argument 'poem.txt': a value stands after the name of"),
    (["--n-layer", "2", "--bias", "2"], "^unexpected argument '2': a value stands after the name"),
    (["--n-layer", "2", "3"], "^unexpected argument '3': a value stands after the name of its"),
])
def test_an_unexpected_word_gets_an_explanation(typed, message):
    parser = Parser()
    parser.add_argument("--bias", action="store_true")
    parser.add_argument("--n-layer", type=int)
    with pytest.raises(ConfigError, match=message):
        parser.parse_args(typed)


def test_the_table_of_grades_is_not_a_folder(tmp_path):
    with pytest.raises(ConfigError, match=rf"out='{tmp_path}' is a folder, .*grades.csv"):
        list(grade.write_csv([], tmp_path))


@pytest.mark.parametrize("below", ["", "/deep"])
def test_the_runs_of_a_sweep_are_in_a_folder(tmp_path, run_tool, below):
    file = tmp_path / "file"
    file.touch()
    error = run_tool("sweep", "grid.yaml", "--runs", f"{file}{below}")
    assert error == f"sweep.py: --runs {file}{below} should be a folder, but {file} is a file\n"


def test_an_unknown_chapter_of_the_editions_gets_the_list(run_tool):
    assert "there is no chapter bigram; there are 01_bigram, " in run_tool("editions", "bigram")
