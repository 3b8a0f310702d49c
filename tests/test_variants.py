"""VariantConfig, make_model and load_model: from options to a model, and back from a checkpoint."""

from dataclasses import asdict
from functools import partial
from itertools import product
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from gptlib import GPT, Bigram, CharTokenizer, GPTConfig, load_model, make_model, save_checkpoint
from gptlib.attention import CausalSelfAttention
from gptlib.block import Block
from gptlib.checkpoint import CheckpointError, load_weights
from gptlib.config import ConfigError
from gptlib.variants.build import ATTENTIONS
from gptlib.variants.config import VariantConfig
from gptlib.variants.context_rolling import MEMORIES, RollingGPT
from gptlib.variants.time_weighting import ShiftedBlock

SMALL = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
IDX = torch.arange(16).view(2, 8) % 11
VARIANTS = [
    {"attention": attention, "token_shift": shift, "memory": memory}
    for attention, shift, memory in product(ATTENTIONS, (False, True), ("attention", *MEMORIES))
]
VARIANTS.append({"attention": "toeplitz", "token_shift": True, "memory": "tokens", "n_memory": 3})
each_variant = pytest.mark.parametrize("options", VARIANTS,
                                       ids=lambda options: "-".join(map(str, options.values())))


def make_variant(**options):
    torch.manual_seed(0)
    return make_model(VariantConfig(**SMALL | {"window": 4} | options))


def save(model, tmp_path, tokenizer=None):
    """Write a checkpoint. Return its path."""
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, model, tokenizer)
    return path


# VariantConfig ------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", [
    ({"memory": "mean", "block_size": 100},
     "block_size=100 should be a multiple of window=32, such as 96"),
    ({"memory": "mean", "block_size": 20},
     "block_size=20 should be a multiple of window=32, such as 32"),
    ({"window": 0}, "window=0 should be at least 1"),
    ({"n_memory": 0}, "n_memory=0 should be at least 1"),
    ({"memory": "max"},
     "memory='max' should be one of 'attention', 'mean', 'last', 'tokens', 'none'"),
    ({"memory": "mean", "n_memory": 2},
     "n_memory=2 should be 1 for memory='mean'; only memory=\"tokens\" can use more"),
    ({"n_memory": 2},
     "n_memory=2 should be 1 for memory='attention'; only memory=\"tokens\" can use more"),
    ({"attention": "linear"},
     "attention='linear' should be one of 'plain', 'time_weighted', 'toeplitz', 'relative_bias'"),
    ({"token_shift": 1}, "token_shift=1 is int, it should be bool"),
    ({"n_embd": 30}, "n_embd=30 should be a multiple of n_head=4, such as 28"),
    ({"n_layer": 0}, "n_layer=0 should be at least 1"),
])
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        VariantConfig(**{"vocab_size": 11, "block_size": 64, "window": 32} | options)
    assert str(error.value) == message


def test_block_need_not_be_a_multiple_of_the_window_without_context_rolling():
    assert VariantConfig(vocab_size=11, block_size=100, window=32).block_size == 100


def test_config_can_be_built_from_its_dict():
    config = VariantConfig(**SMALL, window=4, memory="tokens", n_memory=2, attention="toeplitz")
    assert VariantConfig(**asdict(config)) == config
    assert make_model(config).config_dict() == asdict(config)


# make_model ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    {}, {"tie_weights": True, "bias": True}, {"init": "gpt2", "position": "sinusoidal"},
    {"position": "none", "dropout": 0.1},
], ids=lambda options: "-".join(options) or "default")
def test_variant_config_with_default_options_builds_the_gpt_of_chapter_4(options):
    torch.manual_seed(0)
    gpt = make_model(GPTConfig(**SMALL | options))
    variant = make_variant(**options)
    assert type(gpt) is type(variant) is GPT
    weights = variant.state_dict()
    assert list(weights) == list(gpt.state_dict())
    for name, weight in gpt.state_dict().items():
        assert torch.equal(weights[name], weight), name
    assert torch.equal(variant.eval()(IDX), gpt.eval()(IDX))


def test_default_parts_are_those_of_chapters_2_and_3():
    for block in make_variant().blocks:
        assert type(block) is Block
        assert type(block.attention) is CausalSelfAttention


@each_variant
def test_model_has_the_parts_that_its_config_names(options):
    model = make_variant(**options)
    assert type(model) is (GPT if options["memory"] == "attention" else RollingGPT)
    if options == {"attention": "plain", "token_shift": False, "memory": "attention"}:
        assert model.config == GPTConfig(**SMALL)
    else:
        assert model.config == VariantConfig(**SMALL, **{"window": 4} | options)
    for block in model.blocks:
        assert type(block) is (ShiftedBlock if options["token_shift"] else Block)
        assert type(block.attention) is ATTENTIONS[options["attention"]]


def test_choices_of_the_config_are_the_names_in_the_tables():
    choices = get_type_hints(VariantConfig)
    assert get_args(choices["attention"]) == tuple(ATTENTIONS)
    assert get_args(choices["memory"]) == ("attention", *MEMORIES)


@each_variant
def test_parts_of_the_parameter_table_add_up_to_the_total(options):
    model = make_variant(**options, bias=True)
    table = model.parameter_table()
    total = table.pop("total")
    assert sum(table.values()) == total == sum(p.numel() for p in model.parameters())
    assert ("memory tokens" in table) == (options["memory"] == "tokens")


def test_parameter_table_counts_memory_tokens():
    table = make_variant(memory="tokens", n_memory=3).parameter_table()
    assert table["memory tokens"] == 3 * SMALL["n_embd"]


# load_model ---------------------------------------------------------------------------------------

@each_variant
def test_loaded_variant_has_exactly_the_same_logits(options, tmp_path):
    model = make_variant(**options).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    loaded, _ = load_model(save(model, tmp_path))
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert torch.equal(loaded(IDX), model(IDX))


@pytest.mark.parametrize("options", [
    {}, {"tie_weights": True}, {"bias": True, "position": "sinusoidal"},
], ids=["untied", "tied", "sinusoidal"])
def test_loaded_gpt_has_exactly_the_same_logits(tiny, options, tmp_path):
    model = tiny(**options)
    loaded, _ = load_model(save(model, tmp_path))
    assert type(loaded.config) is GPTConfig
    assert loaded.config == model.config
    assert torch.equal(loaded(IDX), model(IDX))


def test_loaded_bigram_has_the_same_table(tmp_path):
    model = Bigram.from_counts(torch.rand(5, 5))
    loaded, _ = load_model(save(model, tmp_path))
    assert type(loaded) is Bigram
    assert torch.equal(loaded.table.weight, model.table.weight)


def test_loaded_model_is_in_evaluation_mode(tiny, tmp_path):
    loaded, _ = load_model(save(tiny(dropout=0.5).train(), tmp_path))
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(loaded(IDX), loaded(IDX))


def test_tokenizer_is_loaded_with_the_model(tiny, tmp_path):
    tokenizer = CharTokenizer("abcdefghijk")
    _, loaded = load_model(save(tiny(), tmp_path, tokenizer))
    assert loaded.to_dict() == tokenizer.to_dict()


def test_tokenizer_of_a_model_saved_without_one_is_none(tiny, tmp_path):
    _, loaded = load_model(save(tiny(), tmp_path))
    assert loaded is None


def test_folder_of_a_run_names_its_best_model(tiny, tmp_path):
    model = tiny()
    save(model, tmp_path)
    loaded, _ = load_model(tmp_path)
    assert torch.equal(loaded(IDX), model(IDX))


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="best.safetensors does not exist"):
        load_model(tmp_path)


def test_model_of_another_class_is_not_built(tmp_path):
    path = save(nn.LSTM(3, 4), tmp_path)
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    assert str(error.value) == (
        f"{path} holds a LSTM, which this library cannot build (it can build Bigram, GPT, "
        "RollingGPT, ModernGPT): make the model yourself and call load_weights(path, model)"
    )


class AveragingAttention(CausalSelfAttention):
    """An attention of a student, with the weights of the plain one."""

    def forward(self, x, cache=None, mask=None):
        return self.proj(x.cumsum(1))


@pytest.mark.parametrize("model, part", [
    (lambda: GPT(GPTConfig(**SMALL), block=partial(Block, attention=AveragingAttention)),
     "with the parts AveragingAttention, but"),
    (lambda: GPT(GPTConfig(**SMALL), block=partial(Block, attention=ATTENTIONS["toeplitz"])),
     "with the parts ToeplitzAttention, but"),
    (lambda: GPT(VariantConfig(**SMALL, rotary=True)), "with the parts ModernAttention, ModernGPT"),
    (lambda: GPT(VariantConfig(**SMALL, attention="toeplitz")), "with the parts ToeplitzAttention"),
])
def test_a_model_with_parts_that_its_config_does_not_name_never_becomes_another_model(
    model, part, tmp_path
):
    torch.manual_seed(0)
    saved = model()
    path = save(saved, tmp_path)
    with pytest.raises(CheckpointError, match=part) as error:
        load_model(path)
    assert "load_weights(path, model)" in str(error.value)
    assert "not a whole checkpoint" not in str(error.value)
    again = model()
    load_weights(path, again)
    assert torch.equal(again(IDX), saved(IDX))


@pytest.mark.parametrize("change", [
    {"n_head": 5}, {"vocab_size": "eleven"}, {"no_such_option": 1}, {"attention": "linear"},
])
def test_impossible_config_in_a_checkpoint_is_an_error(tiny, tmp_path, change):
    model = tiny()
    model.config_dict = lambda: asdict(model.config) | change
    path = save(model, tmp_path)
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        load_model(path)
