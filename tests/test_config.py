import dataclasses
import math
import types

import pytest

from gptlib import GPTConfig, TrainConfig
from gptlib.config import ConfigError, above, at_least, check_parameters, did_you_mean, from_parameters, project_dir


def notebook(**changed):
    """A namespace as a notebook has it after its parameters cell."""
    names = {f.name: f.default for c in (GPTConfig, TrainConfig) for f in dataclasses.fields(c) if f.default is not dataclasses.MISSING}
    return {"__name__": "__main__", "_i1": "", "In": [], "Out": {}, "math": math, "GPTConfig": GPTConfig, "corpus": "auto",
            "prompts": 3} | names | changed


def check(namespace):
    check_parameters(namespace, GPTConfig, TrainConfig, corpus=str, prompts=int)


@pytest.mark.parametrize("how, said", [
    ({"n_embd": 100, "n_head": 3}, "n_embd=100 should be a multiple of n_head=3, such as 99"),
    ({"n_embd": 2, "n_head": 3}, "n_embd=2 should be a multiple of n_head=3, such as 3"),
    ({"vocab_size": 0}, "vocab_size=0 should be at least 1"),
    ({"n_layer": 0}, "n_layer=0 should be at least 1"),
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
    ({"position": "Learned"}, "position='Learned' should be one of 'learned', 'sinusoidal', 'none'"),
    ({"position": "sinusoidal", "n_embd": 9, "n_head": 3}, 'n_embd=9 should be even, because position="sinusoidal" pairs each sine'),
])
def test_an_impossible_model_is_refused_with_what_would_be_right(how, said):
    with pytest.raises(ConfigError) as refusal:
        GPTConfig(**{"vocab_size": 65} | how)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize("how, said", [
    ({"learning_rate": 0.0}, "learning_rate=0.0 should be above 0"),
    ({"learning_rate": math.inf}, "learning_rate=inf should be a finite number"),
    ({"learning_rate": -math.inf}, "learning_rate=-inf should be a finite number"),
    ({"learning_rate": "1e-3"}, "learning_rate='1e-3' is str, it should be float (YAML reads 1e-3 as text: write 1.0e-3)"),
    ({"learning_rate": 1e-3, "min_lr": 1e-2}, "min_lr=0.01 should be at most learning_rate=0.001"),
    ({"min_lr": -1e-4}, "min_lr=-0.0001 should be at least 0"),
    ({"max_steps": 0}, "max_steps=0 should be at least 1"),
    ({"max_steps": math.inf}, "max_steps=inf is float, it should be int"),
    ({"max_steps": "100"}, "max_steps='100' is str, it should be int"),
    ({"eval_interval": 0}, "eval_interval=0 should be at least 1"),
    ({"warmup": -1}, "warmup=-1 should be at least 0"),
    ({"beta2": 1.0}, "beta2=1.0 should be at least 0 and below 1"),
    ({"grad_clip": -1.0}, "grad_clip=-1.0 should be at least 0"),
    ({"seed": -1}, "seed=-1 should be at least 0"),
    ({"seed": 2 ** 63}, f"seed={2 ** 63} should be below 2 ** 63"),
    ({"lr_unit": "epochs"}, "lr_unit='epochs' should be one of 'steps', 'tokens'"),
    ({"device": 0}, "device=0 is int, it should be str"),
])
def test_impossible_training_is_refused_with_what_would_be_right(how, said):
    with pytest.raises(ConfigError) as refusal:
        TrainConfig(**how)
    assert str(refusal.value).startswith(said)


def test_a_whole_float_becomes_the_integer_that_was_meant():
    steps = TrainConfig(max_steps=1e3).max_steps
    assert steps == 1000 and type(steps) is int


def test_an_integer_becomes_the_float_that_was_meant():
    decay = TrainConfig(weight_decay=0).weight_decay
    assert decay == 0 and type(decay) is float


def test_a_config_cannot_be_changed_after_its_check():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig(vocab_size=65).n_layer = 0


def test_good_parameters_pass():
    check(notebook())


def test_parameters_are_put_right_in_place():
    namespace = notebook(max_steps=1e3, dropout=0, prompts=2.0)
    check(namespace)
    assert [repr(namespace[name]) for name in ("max_steps", "dropout", "prompts")] == ["1000", "0.0", "2"]


@pytest.mark.parametrize("changed, said", [
    ({"n_layers": 6}, "unknown parameter 'n_layers': did you mean 'n_layer'? Known: "),
    ({"zzz": 6}, "unknown parameter 'zzz'. Known: "),
    ({"corpus": 7}, "corpus=7 is int, it should be str"),
    ({"prompts": "3"}, "prompts='3' is str, it should be int (YAML reads 1e-3 as text"),
    ({"learning_rate": "1e-3"}, "learning_rate='1e-3' is str, it should be float (YAML reads 1e-3 as text: write 1.0e-3)"),
    ({"learning_rate": math.nan}, "learning_rate=nan should be a finite number"),
    ({"seed": True}, "seed=True is bool, it should be int"),
    ({"n_embd": 127}, "n_embd=127 should be a multiple of n_head=4, such as 124"),
])
def test_a_bad_parameter_stops_the_notebook(changed, said):
    with pytest.raises(ConfigError) as refusal:
        check(notebook(**changed))
    assert str(refusal.value).startswith(said)


def test_a_missing_parameter_stops_the_notebook():
    namespace = notebook()
    del namespace["n_head"]
    with pytest.raises(ConfigError, match="parameter 'n_head' is missing"):
        check(namespace)


def test_a_choice_is_one_of_its_values():
    check_parameters({"norm": "layer"}, norm=("layer", "rms"))
    with pytest.raises(ConfigError, match="norm='batch' should be one of 'layer', 'rms'"):
        check_parameters({"norm": "batch"}, norm=("layer", "rms"))


def test_a_bounded_number_is_of_the_bounds_type_and_within():
    kinds = {"hours": above(0.0), "samples": at_least(1)}
    namespace = {"hours": 1, "samples": 1.0}
    check_parameters(namespace, **kinds)
    assert repr(namespace["hours"]) == "1.0" and repr(namespace["samples"]) == "1"
    for wrong, said in (({"hours": 0}, "hours=0.0 should be above 0.0"), ({"samples": 0}, "samples=0 should be at least 1"),
                        ({"samples": 1.5}, "samples=1.5 is float, it should be int"), ({"hours": math.nan}, "should be a finite number")):
        with pytest.raises(ConfigError, match=said):
            check_parameters({"hours": 1.0, "samples": 1} | wrong, **kinds)


def test_the_cell_can_be_run_again_when_the_chapter_has_made_names_of_its_own():
    namespace = notebook()
    check(namespace)
    namespace |= {"logits": 3.0, "history": []}
    check(namespace)


def test_the_cell_run_again_still_finds_a_bad_value():
    namespace = notebook()
    check(namespace)
    namespace["n_head"] = 3
    with pytest.raises(ConfigError, match="n_embd=128 should be a multiple of n_head=3"):
        check(namespace)


def test_modules_functions_and_ipythons_own_names_are_no_parameters():
    check(notebook(torch=types.ModuleType("torch"), helper=len, _dh=[], get_ipython=None, open=None))


def test_a_config_takes_its_fields_from_the_parameters_and_the_rest_from_the_chapter():
    config = from_parameters(GPTConfig, notebook(n_layer=2), vocab_size=65)
    assert config == GPTConfig(vocab_size=65, n_layer=2)


def test_a_misspelt_name_brings_the_nearest_one():
    assert did_you_mean("droput", ["dropout", "bias"]) == ": did you mean 'dropout'? Known: dropout, bias."
    assert did_you_mean("xyz", ["dropout", "bias"]) == ". Known: dropout, bias."


def test_the_checkout_is_found_from_a_folder_within(tmp_path, monkeypatch):
    for folder in ("notebooks", "gptlib"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_dir() == tmp_path


def test_without_a_checkout_the_project_is_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_dir() == tmp_path
