"""Every option is checked. An error names the option, its value, and what would be right."""

import dataclasses
import math
import types

import pytest

from gptlib import GPTConfig, TrainConfig
from gptlib.config import (
    ConfigError,
    above,
    at_least,
    check_parameters,
    did_you_mean,
    from_parameters,
    project_dir,
)


def make_namespace(**changed):
    """Return the namespace of a notebook after its parameters cell."""
    namespace = {"__name__": "__main__", "_i1": "", "In": [], "Out": {}, "math": math}
    namespace |= {"GPTConfig": GPTConfig, "corpus": "auto", "prompts": 3}
    for config in (GPTConfig, TrainConfig):
        for field in dataclasses.fields(config):
            if field.default is not dataclasses.MISSING:
                namespace[field.name] = field.default
    return namespace | changed


def check(namespace):
    check_parameters(namespace, GPTConfig, TrainConfig, corpus=str, prompts=int)


# Configs ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", [
    ({"n_embd": 100, "n_head": 3}, "n_embd=100 should be a multiple of n_head=3, such as 99"),
    ({"n_embd": 2, "n_head": 3}, "n_embd=2 should be a multiple of n_head=3, such as 3"),
    ({"vocab_size": 0}, "vocab_size=0 should be at least 1"),
    ({"n_layer": 0}, "n_layer=0 should be at least 1"),
    ({"mlp_ratio": 0}, "mlp_ratio=0 should be at least 1"),
    ({"block_size": -1}, "block_size=-1 should be at least 1"),
    ({"dropout": 1.0}, "dropout=1.0 should be at least 0 and below 1"),
    ({"dropout": -0.1}, "dropout=-0.1 should be at least 0 and below 1"),
    ({"dropout": math.nan}, "dropout=nan should be a finite number"),
    ({"n_layer": 2.5}, "n_layer=2.5 is float, it should be int"),
    ({"n_layer": True}, "n_layer=True is bool, it should be int"),
    ({"n_layer": None}, "n_layer=None is NoneType, it should be int"),
    ({"dropout": True}, "dropout=True is bool, it should be float"),
    ({"bias": 1}, "bias=1 is int, it should be bool"),
    ({"bias": "yes"}, "bias='yes' is str, it should be bool"),
    ({"position": "Learned"},
     "position='Learned' should be one of 'learned', 'sinusoidal', 'none'"),
    ({"init": "gpt3"}, "init='gpt3' should be one of 'scaled', 'gpt2'"),
    ({"position": "sinusoidal", "n_embd": 9, "n_head": 3},
     'n_embd=9 should be even, because position="sinusoidal" uses pairs of a sine and a cosine'),
])
def test_impossible_model_options_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        GPTConfig(**{"vocab_size": 65} | options)
    assert str(error.value) == message


@pytest.mark.parametrize("options, message", [
    ({"learning_rate": 0.0}, "learning_rate=0.0 should be above 0"),
    ({"learning_rate": math.inf}, "learning_rate=inf should be a finite number"),
    ({"learning_rate": -math.inf}, "learning_rate=-inf should be a finite number"),
    ({"learning_rate": "1e-3"}, "learning_rate='1e-3' is str, it should be float "
                                "(YAML reads 1e-3 as text: write 1.0e-3)"),
    ({"learning_rate": 1e-3, "min_lr": 1e-2}, "min_lr=0.01 should be at most learning_rate=0.001"),
    ({"min_lr": -1e-4}, "min_lr=-0.0001 should be at least 0"),
    ({"max_steps": 0}, "max_steps=0 should be at least 1"),
    ({"max_steps": math.inf}, "max_steps=inf is float, it should be int"),
    ({"max_steps": "100"}, "max_steps='100' is str, it should be int"),
    ({"eval_interval": 0}, "eval_interval=0 should be at least 1"),
    ({"warmup": -1}, "warmup=-1 should be at least 0"),
    ({"beta1": 1.0}, "beta1=1.0 should be at least 0 and below 1"),
    ({"beta2": 1.0}, "beta2=1.0 should be at least 0 and below 1"),
    ({"grad_clip": -1.0}, "grad_clip=-1.0 should be at least 0"),
    ({"seed": -1}, "seed=-1 should be at least 0"),
    ({"seed": 2 ** 63}, f"seed={2 ** 63} should be below 2 ** 63, the largest seed of PyTorch"),
    ({"lr_unit": "epochs"}, "lr_unit='epochs' should be one of 'steps', 'tokens'"),
    ({"device": 0}, "device=0 is int, it should be str"),
])
def test_impossible_training_options_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**options)
    assert str(error.value) == message


def test_float_without_fraction_becomes_int():
    max_steps = TrainConfig(max_steps=1e3).max_steps
    assert max_steps == 1000
    assert type(max_steps) is int


def test_int_becomes_float():
    weight_decay = TrainConfig(weight_decay=0).weight_decay
    assert weight_decay == 0
    assert type(weight_decay) is float


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig(vocab_size=65).n_layer = 0


# Parameters of a notebook -------------------------------------------------------------------------

def test_default_parameters_pass_the_check():
    check(make_namespace())


def test_parameter_types_are_corrected_in_the_namespace():
    namespace = make_namespace(max_steps=1e3, dropout=0, prompts=2.0)
    check(namespace)
    assert repr(namespace["max_steps"]) == "1000"
    assert repr(namespace["dropout"]) == "0.0"
    assert repr(namespace["prompts"]) == "2"


@pytest.mark.parametrize("changed, message", [
    ({"n_layers": 6}, "unknown parameter 'n_layers': did you mean 'n_layer'? Known: "),
    ({"zzz": 6}, "unknown parameter 'zzz'. Known: "),
    ({"corpus": 7}, "corpus=7 is int, it should be str"),
    ({"prompts": "3"}, "prompts='3' is str, it should be int"),
    ({"learning_rate": "1e-3"}, "learning_rate='1e-3' is str, it should be float "
                                "(YAML reads 1e-3 as text: write 1.0e-3)"),
    ({"learning_rate": math.nan}, "learning_rate=nan should be a finite number"),
    ({"seed": True}, "seed=True is bool, it should be int"),
    ({"n_embd": 127}, "n_embd=127 should be a multiple of n_head=4, such as 124"),
])
def test_wrong_parameter_stops_the_notebook(changed, message):
    with pytest.raises(ConfigError) as error:
        check(make_namespace(**changed))
    assert str(error.value).startswith(message)


def test_missing_parameter_stops_the_notebook():
    namespace = make_namespace()
    del namespace["n_head"]
    with pytest.raises(ConfigError, match="parameter 'n_head' is missing"):
        check(namespace)


def test_tuple_lists_the_allowed_values():
    check_parameters({"norm": "layer"}, norm=("layer", "rms"))
    with pytest.raises(ConfigError, match="norm='batch' should be one of 'layer', 'rms'"):
        check_parameters({"norm": "batch"}, norm=("layer", "rms"))


def test_bounded_parameter_gets_the_type_of_its_limit():
    namespace = {"hours": 1, "samples": 1.0}
    check_parameters(namespace, hours=above(0.0), samples=at_least(1))
    assert repr(namespace["hours"]) == "1.0"
    assert repr(namespace["samples"]) == "1"


@pytest.mark.parametrize("changed, message", [
    ({"hours": 0}, "hours=0.0 should be above 0.0"),
    ({"samples": 0}, "samples=0 should be at least 1"),
    ({"samples": 1.5}, "samples=1.5 is float, it should be int"),
    ({"hours": math.nan}, "hours=nan should be a finite number"),
])
def test_parameter_outside_its_limit_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        check_parameters({"hours": 1.0, "samples": 1} | changed,
                         hours=above(0.0), samples=at_least(1))


def test_check_can_run_again_after_the_chapter_has_defined_names():
    namespace = make_namespace()
    check(namespace)
    namespace |= {"logits": 3.0, "history": []}
    check(namespace)


def test_second_check_still_finds_a_wrong_value():
    namespace = make_namespace()
    check(namespace)
    namespace["n_head"] = 3
    with pytest.raises(ConfigError, match="n_embd=128 should be a multiple of n_head=3"):
        check(namespace)


def test_modules_functions_and_names_of_ipython_are_not_parameters():
    check(make_namespace(torch=types.ModuleType("torch"), helper=len, _dh=[], get_ipython=None,
                         open=None))


def test_config_reads_its_fields_from_parameters_and_computed_values():
    config = from_parameters(GPTConfig, make_namespace(n_layer=2), vocab_size=65)
    assert config == GPTConfig(vocab_size=65, n_layer=2)


def test_error_about_an_unknown_name_suggests_the_most_similar_one():
    known = ["dropout", "bias"]
    assert did_you_mean("droput", known) == ": did you mean 'dropout'? Known: dropout, bias."
    assert did_you_mean("xyz", known) == ". Known: dropout, bias."


# The project's folder -----------------------------------------------------------------------------

def test_project_is_found_from_a_folder_inside_it(tmp_path, monkeypatch):
    for folder in ("notebooks", "gptlib"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_dir() == tmp_path


def test_project_is_the_working_directory_outside_a_copy_of_the_course(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_dir() == tmp_path
