"""The trained models that come with the library: their files, and what they have learned.

No test here needs a network or tinyshakespeare.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from make_trained import RECIPES
from safetensors import safe_open
from torch import nn
from torch.testing import assert_close

from gptlib import evaluate, load_model, make_model, save_checkpoint
from gptlib.bpe import load_tokenizer, save_tokenizer
from gptlib.corpora.courier import Courier, answer_kinds, courier_scores
from gptlib.corpora.courier_text import CourierTokenizer, answer_probabilities, courier_question
from gptlib.model import evaluating
from gptlib.tokenizer import CharTokenizer
from gptlib.trained import (
    FOLDER,
    SCALE,
    about_trained,
    exact_tensors,
    load_trained,
    read_rounded,
    rounded_tensors,
    trained_names,
    write_rounded,
)
from gptlib.variants.config import VariantConfig
from gptlib.widgets import attention_weights

ROOT = Path(__file__).parents[1]
NAMES = trained_names()
# The models that read text, from the worst to the best. The bigram is the line to beat.
READERS = ["attention", "toeplitz", "gpt"]
LARGEST = 2_000_000             # bytes of all files together

# Written for this test, in characters of tinyshakespeare.
SAMPLE = """\
MARTHA:
Good morrow, neighbour. Have you seen my son?
He left the house before the bell had rung,
And took with him the lantern and the key.

PETER:
I saw him by the river, lady, where
The old men sit and mend their broken nets.
He asked them for a boat, and they said no.

MARTHA:
Then he is safe, for no man swims so far.
I thank you, sir; come in and warm your hands.
My husband keeps a fire, and there is bread,
And we will talk of better days than these.

PETER:
You are too kind. But tell me, is it true
That all the king's good soldiers come this way?
"""


def read_file(name):
    """Return the tensors in the file of a model, as they are."""
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def test_the_folder_holds_two_files_for_each_recipe_and_nothing_else():
    expected = {f"{name}{end}" for name in RECIPES for end in (".json", ".safetensors")}
    assert {path.name for path in FOLDER.iterdir()} == expected


def test_all_files_together_are_at_most_two_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_in_the_json_is_that_of_the_weights(name):
    content = (FOLDER / f"{name}.safetensors").read_bytes()
    about = about_trained(name)
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    assert about["bytes"] == len(content)


@pytest.mark.parametrize("name", NAMES)
def test_the_json_says_how_the_model_was_made(name):
    about = about_trained(name)
    model, _ = load_trained(name)
    assert about["command"] == f"python tools/make_trained.py {name}"
    assert about["model"] == type(model).__name__
    # Options that are newer than the file have their defaults.
    config = model.config_dict()
    assert about["config"].items() <= config.items()
    newer = {name: config[name] for name in config.keys() - about["config"].keys()}
    assert not newer or newer == {f.name: f.default for f in fields(model.config)
                                  if f.name in newer}
    assert {"what", "date", "torch", "corpus", "loss_of"} <= about.keys()
    assert about["cpu_seconds"] <= 180


@pytest.mark.parametrize("name", NAMES)
def test_rounding_changes_the_loss_by_less_than_a_hundredth(name):
    about = about_trained(name)
    before, after = about["loss_before_int8"], about["loss_after_int8"]
    assert before.keys() == after.keys() and before
    for key in before:
        assert after[key] == pytest.approx(before[key], abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_stored_weights(name):
    """The weights are computed here from the file, without the functions of the library."""
    model, tokenizer = load_trained(name)
    assert not model.training
    stored = read_file(name)
    linear = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    for key in linear:
        assert stored[f"{key}.weight"].dtype == torch.int8
    weights = {key: tensor.float() for key, tensor in stored.items() if SCALE not in key}
    for key in linear:
        weights[f"{key}.weight"] *= stored[f"{key}.weight{SCALE}"].view(-1, 1)
    idx = torch.randint(
        tokenizer.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = torch.func.functional_call(model, weights, idx)
    assert_close(model(idx), expected, rtol=0, atol=0)


def test_an_unknown_name_is_one_sentence_that_lists_the_names():
    with pytest.raises(ValueError) as error:
        load_trained("gtp")
    assert str(error.value) == (
        "name='gtp' should be one of attention, bigram, courier, gpt, toeplitz")
    for name in ("../gpt", "gpt.safetensors", ""):
        with pytest.raises(ValueError, match="should be one of"):
            load_trained(name)


def test_models_are_found_from_any_folder(tmp_path):
    code = ("from gptlib.trained import load_trained; "
            "print(type(load_trained('bigram')[0]).__name__)")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert result.stdout == "Bigram\n", result.stderr


def test_every_file_is_package_data():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["gptlib"]
    packaged = {path for pattern in patterns for path in (ROOT / "gptlib").glob(pattern)}
    assert packaged == set(FOLDER.iterdir())


# What they have learned ---------------------------------------------------------------------------


def sample_loss(name):
    model, tokenizer = load_trained(name)
    return evaluate(model, torch.tensor(tokenizer.encode(SAMPLE)), 64)[0]


def test_each_reader_beats_the_bigram_on_a_new_text():
    losses = {name: sample_loss(name) for name in ("bigram", *READERS)}
    assert losses["bigram"] < 3
    for name in READERS:
        assert losses[name] < losses["bigram"] - 0.2, losses


def test_an_untrained_model_does_not_pass_this_test():
    model, tokenizer = load_trained("gpt")
    torch.manual_seed(0)
    untrained = make_model(model.config).eval()
    ids = torch.tensor(tokenizer.encode(SAMPLE))
    assert evaluate(untrained, ids, 64)[0] > sample_loss("bigram") + 0.5


def test_the_loss_in_the_json_is_below_that_of_the_bigram():
    bigram = about_trained("bigram")["loss_after_int8"]["validation"]
    for name in READERS:
        assert about_trained(name)["loss_after_int8"]["validation"] < bigram - 0.2


def test_no_head_of_the_gpt_attends_alike_everywhere():
    """In an untrained model every weight of the last row is nearly 1/T."""
    for name in ("attention", "gpt"):
        model, tokenizer = load_trained(name)
        weights = attention_weights(model, torch.tensor(tokenizer.encode(SAMPLE[:60])))
        largest = weights[:, :, -1].amax(-1)                # (n_layer, n_head)
        assert largest.max() > 0.5


def test_the_toeplitz_model_has_learned_its_weights():
    model, _ = load_trained("toeplitz")
    learned = torch.stack([block.attention.by_distance.detach() for block in model.blocks])
    assert (learned - 1).abs().mean() > 0.1


def test_the_courier_answers_nearly_every_question_right():
    model, tokenizer = load_trained("courier")
    courier = tokenizer.courier
    assert courier == Courier() and isinstance(tokenizer, CourierTokenizer)
    x = courier.batch(300, torch.Generator().manual_seed(7))
    with evaluating(model):
        guesses = model(x[:, :-1]).argmax(-1)
        zeros = model(x[:, :-1], edit=torch.zeros_like).argmax(-1)
    answers = x[:, 1::courier.window][:, 1:]
    for kind, mask in answer_kinds(courier, x).items():
        right = (guesses[:, ::courier.window][:, 1:] == answers)[mask].float().mean()
        without = (zeros[:, ::courier.window][:, 1:] == answers)[mask].float().mean()
        assert right > 0.9, kind
        assert without < 0.4, kind
    assert courier_scores(model, courier, n=200)["all"] < 0.55


def test_every_fact_of_the_courier_is_answered():
    model, tokenizer = load_trained("courier")
    courier, right = tokenizer.courier, 0
    for value in range(8):
        for lag in (1, 2):
            facts = [0, 1, 2]
            facts[-lag] = value
            p = answer_probabilities(model, courier, courier_question(courier, facts, lag))
            right += p.argmax().item() == value
    assert right >= 14


# The format ---------------------------------------------------------------------------------------


def test_writing_and_reading_gives_the_rounded_weights_and_the_tokenizer(tmp_path, tiny):
    model, tokenizer = tiny(vocab_size=3, attention="toeplitz", bias=True), CharTokenizer("abc")
    path = tmp_path / "new/x.safetensors"
    write_rounded(path, model, tokenizer, {"what": "a test"})
    loaded, same = read_rounded(path)
    assert same.to_dict() == tokenizer.to_dict() and not loaded.training
    for name, tensor in model.state_dict().items():
        largest = tensor.abs().max()
        assert (loaded.state_dict()[name] - tensor).abs().max() <= largest / 250, name
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["what"] == "a test"


def test_only_the_matrices_of_linear_layers_are_rounded(tiny):
    model = tiny(vocab_size=10, attention="toeplitz")
    tensors = rounded_tensors(model)
    rounded = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    assert "blocks.0.attention.qkv.weight" in rounded and "head.weight" in rounded
    assert "token_embedding.weight" not in rounded
    exact = exact_tensors(tensors)
    assert exact.keys() == model.state_dict().keys()
    for name in exact.keys() - rounded:
        assert torch.equal(exact[name], model.state_dict()[name])


def test_a_courier_tokenizer_is_written_and_read(tmp_path):
    courier = Courier(n_values=3, lags=1)
    model = make_model(VariantConfig(
        vocab_size=courier.vocab_size, block_size=32, n_layer=1, n_head=1, n_embd=8,
        memory="mean", window=courier.window))
    path = tmp_path / "x.safetensors"
    write_rounded(path, model, CourierTokenizer(courier), {})
    assert read_rounded(path)[1].courier == courier


def test_a_courier_tokenizer_comes_back_from_a_checkpoint_and_from_a_file(tmp_path):
    model, tokenizer = load_trained("courier")
    save_checkpoint(tmp_path / "x.safetensors", model, tokenizer)
    assert load_model(tmp_path / "x.safetensors")[1].courier == tokenizer.courier
    save_tokenizer(tokenizer, tmp_path / "x.json")
    assert load_tokenizer(tmp_path / "x.json").courier == tokenizer.courier


@pytest.mark.parametrize("name", ["gtp", "GPT", "../gpt"])
def test_the_tool_names_its_recipes(name):
    command = [sys.executable, ROOT / "tools/make_trained.py", name]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "should be one of bigram, attention, gpt, toeplitz, courier" in result.stderr


# The courier's text -------------------------------------------------------------------------------


def test_the_tokenizer_of_the_courier_reads_what_the_courier_spells():
    for courier in (Courier(), Courier(n_facts=2, lags=1), Courier(n_values=12)):
        tokenizer = CourierTokenizer(courier)
        for text in courier.batch(5, torch.Generator().manual_seed(1)):
            spelled = courier.spell(text)
            assert tokenizer.encode(spelled) == text.tolist()
            assert tokenizer.decode(text.tolist()) == spelled
            assert CourierTokenizer.from_dict(tokenizer.to_dict()).courier == courier


def test_an_unknown_sign_of_the_courier_is_named_with_the_known_ones():
    message = "'b=' is not a sign of this courier: write 0 1 2 3 4 5 6 7 . a= a[?] a!, with spaces"
    with pytest.raises(ValueError, match=message):
        CourierTokenizer(Courier()).encode("a? 4 . b= 4")


@pytest.mark.parametrize("lag", [1, 2])
def test_a_question_is_a_text_of_the_courier(lag):
    courier, facts = Courier(), [3, 5, 1]
    text = courier_question(courier, facts, lag)
    assert len(text) == 25
    windows = text[:24].view(3, 8)
    marks = windows == courier.n_values + 1
    assert marks[:, 3:7].sum(1).tolist() == [1, 1, 1]
    places = marks.int().argmax(1)
    assert windows[range(3), places + 1].tolist() == facts
    # The second window's question is about the first window, and the third one's too.
    assert windows[1:, 1].tolist() == [3, 3]
    assert text[24] == courier.n_values + 1 + lag


@pytest.mark.parametrize(("options", "facts", "lag", "message"), [
    ({}, [8], 1, "facts=.8. should be values from 0 to 7"),
    ({}, [], 1, "should be at least 1 values"),
    ({}, [1, 2], 3, "lag=3 should be one of 1, 2"),
    ({"lags": 1}, [1, 2], 2, "asks only for the window before"),
    ({"n_facts": 2}, [1], 1, "has 2 facts in a window"),
])
def test_bad_facts_are_one_sentence(options, facts, lag, message):
    with pytest.raises(ValueError, match=message):
        courier_question(Courier(**options), facts, lag)
