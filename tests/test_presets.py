"""Each preset is accepted, has the published number of parameters, and can learn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from gptlib.config import TrainConfig, at_least, check_parameters, from_parameters
from gptlib.optimizers import make_optimizer
from gptlib.run_folder import RESUME
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer
from gptlib.train import train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

PARAMS = Path(__file__).parents[1] / "notebooks/params"
# The other files are grids of sweeps and the smoke values of the tests.
PRESETS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
           for path in sorted(PARAMS.glob("*.yaml"))
           if path.stem != "smoke" and not path.stem.startswith("sweep")}
DEFAULTS = {**vars(VariantConfig(vocab_size=65)), **vars(TrainConfig()),
            "tokenizer": "char", "prompt": "", "sample_tokens": 1000}
TEXT = 20 * ("to be, or not to be, that is the question:\n"
             "whether 'tis nobler in the mind to suffer\n")
each_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)


def configs(preset):
    """Return the configs of a preset, checked as train.ipynb checks its parameters."""
    vocab_size = LowercaseTokenizer().vocab_size if preset.get("tokenizer") == "lowercase" else 65
    settings = DEFAULTS | preset | {"vocab_size": vocab_size}
    check_parameters(settings, VariantConfig, TrainConfig, vocab_size=int, corpus=str,
                     tokenizer=("char", "lowercase"), prompt=str, resume=RESUME, published=dict,
                     sample_tokens=at_least(1), out_dir=str)
    return from_parameters(VariantConfig, settings), from_parameters(TrainConfig, settings)


def meta_model(preset):
    """Return the model of a preset at full size, without memory for its weights."""
    with torch.device("meta"):
        return make_model(configs(preset)[0])


def test_there_is_a_preset_for_every_published_system():
    assert list(PRESETS) == [
        "fast_laptop", "fast_small", "mygpt", "mygpt_shifted", "mygpt_toeplitz", "mygpt_tuned",
        "mygpt_weighted", "nanogpt", "nanogpt_laptop", "nanogpt_reference", "picogpt",
        "shakegpt_v1", "shakegpt_v2", "shakegpt_v3"]


@each_preset
def test_a_preset_is_accepted_and_has_its_published_results(preset):
    configs(preset)
    assert preset["published"] and preset["out_dir"].startswith("runs/")


def test_the_presets_of_mygpt_differ_only_in_attention_and_token_shift():
    options = ("attention", "token_shift")
    arms = {name: preset for name, preset in PRESETS.items() if name.startswith("mygpt")}
    assert {name: tuple(map(arm.get, options)) for name, arm in arms.items()} == {
        "mygpt": (None, None),
        "mygpt_weighted": ("time_weighted", None),
        "mygpt_toeplitz": ("toeplitz", None),
        "mygpt_shifted": (None, True),
        "mygpt_tuned": ("time_weighted", True)}
    different = (*options, "out_dir", "published")
    others = [{key: value for key, value in arm.items() if key not in different}
              for arm in arms.values()]
    assert all(other == others[0] for other in others)


@each_preset
def test_the_full_model_has_the_published_number_of_parameters(preset):
    config = configs(preset)[0]
    table = meta_model(preset).parameter_table()
    published = preset["published"].get("parameters")
    if "picogpt" in preset["out_dir"]:
        # PicoGPT's number does not include the positions.
        assert table["total"] - table["positions"] == published
    elif "shakegpt" in preset["out_dir"]:
        # shakeGPT has one symbol more, and its norms also have a weight for each position.
        norms = (2 * config.n_layer + 1) * (2 * config.block_size - 1) * config.n_embd
        symbol = 2 * config.n_embd
        assert table["total"] + norms + symbol == published
    elif published:
        assert table["total"] == published


def test_the_page_of_published_models_has_the_counted_numbers():
    page = (PARAMS.parents[1] / "docs/published_models.md").read_text(encoding="utf-8")
    for preset in PRESETS.values():
        if published := preset["published"].get("parameters"):
            assert f"{published:,}" in page
    config = VariantConfig(65, block_size=256, n_layer=6, n_head=6, n_embd=384)
    for vocab_size in (65, 33_278):
        with torch.device("meta"):
            model = make_model(replace(config, vocab_size=vocab_size))
        assert f"{model.parameter_table()['total']:,}" in page
    assert f"{5000 * 64 * 256:,} bytes" in page and f"{1e9 / 1024 ** 2:.2f} MiB" in page


def test_picogpt_reads_ten_windows_of_128_tokens_each_with_one_context_vector():
    model = meta_model(PRESETS["picogpt"])
    config = model.config
    assert (config.memory, config.block_size, config.window) == ("mean", 10 * 128, 128)
    assert model.parameter_table()["positions"] == (128 + 1) * 256


@each_preset
def test_a_small_model_of_the_presets_shape_learns(preset):
    """It has a quarter of the heads and layers, the same head size, and a block of 16 tokens."""
    full, training = configs(preset)
    n_head = max(1, full.n_head // 4)
    small = {"block_size": 16, "window": 8, "n_layer": max(1, full.n_layer // 4),
             "n_head": n_head, "n_embd": n_head * full.n_embd // full.n_head}
    tokenizer = CharTokenizer.from_text(TEXT)
    if preset.get("tokenizer") == "lowercase":
        tokenizer = LowercaseTokenizer()
    ids = torch.tensor(tokenizer.encode(TEXT))
    config = replace(configs(preset | small)[0], vocab_size=tokenizer.vocab_size)
    training = replace(training, max_steps=40, eval_interval=40, batch_size=8, learning_rate=1e-2,
                       min_lr=1e-3, warmup=4, lr_unit="steps", device="cpu")
    torch.manual_seed(0)
    history = train(make_model(config), ids[:-300], ids[-300:], 16, training,
                    progress=False, optimizer=make_optimizer).history
    assert history[-1]["val_loss"] < history[0]["val_loss"] - 0.5


def test_the_preset_of_the_small_fast_model_is_the_run_that_was_measured():
    measured = json.loads(
        (PARAMS.parents[1] / "benchmarks/published.json").read_text(encoding="utf-8"))
    [run] = [run for run in measured["runs"] if run["run"] == "shakegpt_longer"]
    model, training = configs(PRESETS["fast_small"])
    assert vars(model) == run["model"]
    assert vars(training) | {"device": "cpu"} == run["training"]
