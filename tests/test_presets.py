"""Each preset is a run that chapter 4 accepts, counts the published parameters, and learns at a small size of the same shape."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from gptlib.config import GPTConfig, TrainConfig, at_least, check_parameters, from_parameters
from gptlib.context_rolling import MEMORIES, make_model, with_memory
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer
from gptlib.train import train

PARAMS = Path(__file__).parents[1] / "notebooks/params"
PRESETS = sorted(path for path in PARAMS.glob("*.yaml") if path.stem != "smoke" and not path.stem.startswith("sweep"))
DEFAULTS = {**vars(GPTConfig(vocab_size=65)), **vars(TrainConfig()), "tokenizer": "char", "prompt": "", "sample_tokens": 1000,
            "memory": "attention", "window": 64}
each_preset = pytest.mark.parametrize("preset", [yaml.safe_load(path.read_text(encoding="utf-8")) for path in PRESETS],
                                      ids=[path.stem for path in PRESETS])


def configs(preset):
    """The preset as chapter 4 takes it: its defaults, then the preset's values, checked."""
    vocab_size = LowercaseTokenizer().vocab_size if preset.get("tokenizer") == "lowercase" else 65
    settings = DEFAULTS | preset | {"vocab_size": vocab_size}
    check_parameters(settings, GPTConfig, TrainConfig, vocab_size=int, corpus=str, tokenizer=("char", "lowercase"), prompt=str,
                     resume=("never", "auto"), published=dict, sample_tokens=at_least(1), out_dir=str,
                     memory=("attention", *MEMORIES), window=at_least(1))
    return with_memory(from_parameters(GPTConfig, settings), settings["memory"], settings["window"]), from_parameters(TrainConfig, settings)


def test_every_published_system_has_one():
    assert [path.stem for path in PRESETS] == ["mygpt", "mygpt_shifted", "mygpt_toeplitz", "mygpt_tuned", "mygpt_weighted",
                                               "nanogpt", "nanogpt_laptop", "nanogpt_reference", "picogpt", "shakegpt_v1",
                                               "shakegpt_v2", "shakegpt_v3"]


@each_preset
def test_it_is_accepted_and_brings_its_published_figures(preset):
    configs(preset)
    assert preset["published"] and preset["out_dir"].startswith("runs/")


def test_mygpts_arms_differ_in_time_weighting_and_token_shift_alone():
    arms = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in PRESETS if path.stem.startswith("mygpt")}
    said = {name: {key: arm.get(key) for key in ("attention", "token_shift")} for name, arm in arms.items()}
    assert said == {"mygpt": {"attention": None, "token_shift": None},
                    "mygpt_weighted": {"attention": "time_weighted", "token_shift": None},
                    "mygpt_toeplitz": {"attention": "toeplitz", "token_shift": None},
                    "mygpt_shifted": {"attention": None, "token_shift": True},
                    "mygpt_tuned": {"attention": "time_weighted", "token_shift": True}}
    rest = [{key: value for key, value in arm.items() if key not in ("attention", "token_shift", "out_dir", "published")}
            for arm in arms.values()]
    assert all(other == rest[0] for other in rest)


@each_preset
def test_at_full_size_it_counts_the_published_parameters(preset):
    config, _ = configs(preset)
    with torch.device("meta"):
        count = make_model(config).parameter_table()
    published = preset["published"].get("parameters")
    if config.tie_weights and preset["tokenizer" if "tokenizer" in preset else "corpus"] == "lowercase":
        assert count["total"] - count["positions"] == published                 # PicoGPT's figure leaves them out
    elif "shakegpt" in preset["out_dir"]:                                       # 66 symbols, and norms over time as well
        norms = (2 * config.n_layer + 1) * (2 * config.block_size * config.n_embd - config.n_embd)
        assert count["total"] + norms + 2 * config.n_embd == published
    elif published:
        assert count["total"] == published


def test_picogpt_reads_ten_windows_of_128_and_has_a_place_for_each_token_and_the_vector():
    preset = yaml.safe_load((PARAMS / "picogpt.yaml").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = make_model(configs(preset)[0])
    assert (model.config.memory, model.config.block_size, model.config.window) == ("mean", 10 * 128, 128)
    assert model.parameter_table()["positions"] == 129 * 256


@each_preset
def test_a_small_one_of_its_shape_learns(preset):
    """A quarter of the heads and layers, the same width of a head, at most 16 positions: seconds, and the loss falls clearly."""
    full, training = configs(preset)
    n_head = max(1, full.n_head // 4)
    text = "to be, or not to be, that is the question:\nwhether 'tis nobler in the mind to suffer\n" * 20
    tokenizer = LowercaseTokenizer() if preset.get("tokenizer") == "lowercase" else CharTokenizer.from_text(text)
    ids = torch.tensor(tokenizer.encode(text))
    small = {"block_size": 16, "window": 8, "n_layer": max(1, full.n_layer // 4), "n_head": n_head,
             "n_embd": n_head * full.n_embd // full.n_head}
    config = replace(configs(preset | small)[0], vocab_size=tokenizer.vocab_size)
    training = replace(training, max_steps=40, eval_interval=40, batch_size=8, learning_rate=1e-2, min_lr=1e-3, warmup=4, lr_unit="steps",
                       device="cpu")
    torch.manual_seed(0)
    history = train(make_model(config), ids[:-300], ids[-300:], 16, training, progress=False).history
    assert history[-1]["val_loss"] < history[0]["val_loss"] - 0.5
