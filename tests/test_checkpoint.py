"""Checkpoints: what is saved, what is read back, and what is refused."""

import errno
import json
import os
import pickle
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gptlib import (
    GPT,
    Bigram,
    CharTokenizer,
    LowercaseTokenizer,
    evaluate,
    load_model,
    save_checkpoint,
)
from gptlib.checkpoint import (
    CheckpointError,
    load_optimizer,
    load_weights,
    read_header,
)
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

EARLIER = Path(__file__).parent / "earlier_checkpoints"


class TiedModel(nn.Module):
    """A model that is not from this library, with one matrix under two names."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, idx):
        return self.head(self.embedding(idx))


@pytest.fixture
def path(tiny, tmp_path):
    """Return the path of a checkpoint of a small GPT."""
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, tiny(), CharTokenizer("abcdefghijk"), step=7)
    return path


def refusal(path, load=load_model):
    """Return the sentence with which `load` refuses a file. It names the file."""
    with pytest.raises(CheckpointError) as error:
        load(path)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert path.name in sentence
    return sentence


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_weights(model, other):
    for tensor, other_tensor in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(tensor, other_tensor)


# Saved and loaded ---------------------------------------------------------------------------------

@pytest.mark.parametrize("tokenizer", [
    None, CharTokenizer("a ∞\n\"\\"), LowercaseTokenizer(100),
], ids=["none", "char", "lowercase"])
@pytest.mark.parametrize("options", [
    {},
    {"tie_weights": True},
    {"tie_weights": False, "bias": True, "position": "sinusoidal"},
    {"attention": "toeplitz", "token_shift": True},
    {"memory": "tokens", "window": 4, "n_memory": 2},
], ids=str)
def test_a_gpt_is_loaded_to_the_bit_with_its_tokenizer(tiny, tmp_path, options, tokenizer):
    # The model knows all tokens of LowercaseTokenizer(100), and some more than the others have.
    model, path = tiny(**options, vocab_size=100), tmp_path / "a.safetensors"
    save_checkpoint(path, model, tokenizer, step=3, metrics=[{"val_loss": 1.25}])
    loaded, loaded_tokenizer = load_model(path)
    idx = torch.arange(8)[None]
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert torch.equal(loaded(idx), model(idx))
    assert_same_weights(loaded, model)
    assert (loaded_tokenizer and loaded_tokenizer.to_dict()) == (tokenizer and tokenizer.to_dict())
    assert read_header(path)["about"] == {"step": 3, "metrics": [{"val_loss": 1.25}]}


def test_a_model_is_loaded_with_dropout_off(tiny, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", tiny(dropout=0.5).train())
    model, _ = load_model(tmp_path / "a.safetensors")
    assert not any(module.training for module in model.modules())


def test_a_bigram_is_loaded(tmp_path):
    model = Bigram.from_counts(torch.rand(5, 5))
    save_checkpoint(tmp_path / "a.safetensors", model)
    assert_same_weights(load_model(tmp_path / "a.safetensors")[0], model)


def test_the_weights_of_any_class_fill_a_model_of_the_same_class(tmp_path):
    torch.manual_seed(0)
    model, other = nn.LSTM(3, 4), nn.LSTM(3, 4)
    save_checkpoint(tmp_path / "a.safetensors", model)
    load_weights(tmp_path / "a.safetensors", other)
    assert_same_weights(other, model)


def test_weights_that_share_memory_are_saved_and_still_shared_after_loading(tmp_path):
    model, other = TiedModel(), TiedModel()
    save_checkpoint(tmp_path / "a.safetensors", model)
    load_weights(tmp_path / "a.safetensors", other)
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert other.head.weight is other.embedding.weight


# torch.compile itself warns about deprecated functions.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_saved_under_the_names_of_the_original(tiny, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, torch.compile(tiny()))
    assert b"_orig_mod" not in path.read_bytes()
    assert type(load_model(path)[0]).__name__ == "GPT"


def test_a_folder_stands_for_its_best_checkpoint(path):
    assert read_header(path.parent) == read_header(path)
    assert read_header(path)["about"] == {"step": 7}
    assert_same_weights(load_model(path.parent)[0], load_model(path)[0])


@pytest.mark.parametrize("make_optimizer", [
    lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
], ids=["AdamW", "SGD"])
def test_the_state_of_an_optimizer_is_loaded_to_the_bit(tmp_path, make_optimizer):
    model, path = nn.Linear(3, 2), tmp_path / "a.safetensors"
    optimizer = make_optimizer(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    save_checkpoint(path, model, None, optimizer, step=1)
    loaded = make_optimizer(model.parameters())
    load_optimizer(path, loaded)
    expected = optimizer.state_dict()["state"]
    state = loaded.state_dict()["state"]
    assert state.keys() == expected.keys() == {0, 1}
    for number in expected:
        assert state[number].keys() == expected[number].keys()
        for name, value in expected[number].items():
            assert torch.equal(state[number][name], value)


def test_the_state_of_an_optimizer_does_not_disturb_the_weights(tmp_path):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "a.safetensors", model, None, optimizer)
    load_weights(tmp_path / "a.safetensors", other)
    assert_same_weights(other, model)


# The file -----------------------------------------------------------------------------------------

def test_every_byte_of_a_checkpoint_is_json_or_weights(path, tiny):
    content = path.read_bytes()
    header_length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + header_length])
    weight_bytes = sum(p.numel() * 4 for p in tiny().parameters())
    assert len(content) == 8 + header_length + weight_bytes
    assert "gptlib" in header["__metadata__"]


def test_loading_never_reads_a_pickle(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    _, tokenizer = load_model(path)
    assert tokenizer.alphabet == "abcdefghijk"


def test_a_json_file_beside_the_checkpoint_has_a_copy_of_its_header(path):
    copy = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert copy == read_header(path)
    assert copy["model"] == "GPT"
    assert copy["config"]["n_embd"] == 12
    assert copy["about"] == {"step": 7}


# Refused ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n_bytes", [0, 4, 100, "half", "all but one"])
@pytest.mark.parametrize("load", [load_model, read_header], ids=["load_model", "read_header"])
def test_a_truncated_file_is_refused(path, n_bytes, load):
    content = path.read_bytes()
    n_bytes = {"half": len(content) // 2, "all but one": len(content) - 1}.get(n_bytes, n_bytes)
    path.write_bytes(content[:n_bytes])
    assert "is not a whole checkpoint of this library" in refusal(path, load)


def test_random_bytes_are_refused(path):
    generator = torch.Generator().manual_seed(0)
    content = torch.randint(256, (5000,), generator=generator).to(torch.uint8)
    path.write_bytes(content.numpy().tobytes())
    assert "is not a whole checkpoint of this library" in refusal(path)


@pytest.mark.parametrize("metadata", [
    None,
    {"format": "pt"},
    {"gptlib": "{"},
    {"gptlib": "[]"},
    {"gptlib": "{}"},
    {"gptlib": '{"model": "GPT", "config": {"vocab_size": 5}, "tokenizer": null}'},
], ids=str)
@pytest.mark.parametrize("load", [load_model, read_header], ids=["load_model", "read_header"])
def test_a_safetensors_file_of_another_library_is_refused(tmp_path, metadata, load):
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata)
    assert "is not a whole checkpoint of this library" in refusal(path, load)


@pytest.mark.parametrize(("config", "tokenizer", "reason"), [
    ({"depth": 3}, None, "its config has no vocab_size"),
    ({"vocab_size": 5, "depth": 3}, None, "unknown option 'depth'"),
    ({"vocab_size": 0}, None, "vocab_size=0 should be at least 1"),
    ({"vocab_size": 5}, {"class": "X"}, "its 'class' should be one of"),
], ids=["no vocabulary", "unknown option", "impossible value", "unknown tokenizer"])
def test_a_header_that_describes_no_model_is_refused(tmp_path, config, tokenizer, reason):
    path = tmp_path / "foreign.safetensors"
    header = {"model": "GPT", "config": config, "tokenizer": tokenizer, "about": {}}
    save_file({"a": torch.zeros(2)}, path, {"gptlib": json.dumps(header)})
    sentence = refusal(path)
    assert "is not a whole checkpoint" in sentence
    assert reason in sentence


def test_a_class_that_cannot_be_built_is_named_with_another_way(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, nn.Linear(2, 2))
    sentence = refusal(path)
    assert "holds a Linear, which this library cannot build" in sentence
    assert "make the model yourself and call load_weights(path, model)" in sentence


@pytest.mark.parametrize("load", [
    load_model, read_header, lambda path: load_weights(path, nn.Linear(2, 2)),
], ids=["load_model", "read_header", "load_weights"])
def test_a_missing_file_and_a_folder_without_a_best_model_are_refused(tmp_path, load):
    missing = tmp_path / "nowhere.safetensors"
    assert "does not exist: name a .safetensors file" in refusal(missing, load)
    with pytest.raises(CheckpointError, match=r"best.safetensors does not exist"):
        load(tmp_path)


@pytest.mark.parametrize("options", [
    {"n_layer": 1}, {"n_layer": 3}, {"n_embd": 24}, {"position": "none"}, {"bias": True},
], ids=str)
def test_weights_that_do_not_fit_a_model_are_refused_and_change_nothing(path, tiny, options):
    model, unchanged = tiny(**options), tiny(**options)
    sentence = refusal(path, lambda path: load_weights(path, model))
    assert "holds a GPT that does not fit the model given: " in sentence
    assert_same_weights(model, unchanged)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"n_head": 1}, "n_head is 2 in the file and 1 in the model"),
    ({"token_shift": True}, "token_shift is False in the file and True in the model"),
], ids=["n_head", "token_shift"])
def test_weights_of_the_same_shapes_for_another_computation_are_refused(
    path, tiny, options, sentence
):
    config = VariantConfig(**tiny().config_dict() | options)
    assert sentence in refusal(path, lambda path: load_weights(path, make_model(config)))


def test_weights_may_be_loaded_with_another_dropout(path, tiny):
    model = tiny(dropout=0.3)
    load_weights(path, model)
    assert_same_weights(model, load_model(path)[0])


def test_a_checkpoint_without_an_optimizer_cannot_fill_one(path, tiny):
    optimizer = torch.optim.AdamW(tiny().parameters())
    sentence = refusal(path, lambda path: load_optimizer(path, optimizer))
    assert "was saved without its optimizer" in sentence


# Checkpoints that a stranger made -----------------------------------------------------------------

def write_header(path, **entries):
    """Write a small checkpoint with some entries of its header changed."""
    header = {"model": "GPT", "config": {"vocab_size": 5}, "tokenizer": None, "about": {}}
    save_file({"a": torch.zeros(2)}, path, {"gptlib": json.dumps(header | entries)})


@pytest.mark.parametrize("entry", ["model", "parts", "config", "tokenizer", "optimizer", "about"])
def test_a_header_with_an_entry_of_the_wrong_type_is_refused(tmp_path, entry):
    path = tmp_path / "foreign.safetensors"
    write_header(path, **{entry: 5})
    for load in (load_model, read_header):
        assert f"its {entry} is int, and should be" in refusal(path, load)


def test_a_header_opens_no_other_file_and_shows_nothing_of_it(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"password \xff")
    path = tmp_path / "foreign.safetensors"
    for tokenizer in (str(secret), [str(secret)], {"class": str(secret)}):
        write_header(path, tokenizer=tokenizer)
        assert "password" not in refusal(path)


@pytest.mark.parametrize(("entries", "reason"), [
    ({"config": {"vocab_size": 5, "n_layer": 10 ** 9}}, "n_layer=1000000000"),
    ({"config": {"vocab_size": 5 * 10 ** 7}}, "vocab_size=50000000"),
    ({"config": {"vocab_size": 5, "block_size": 10 ** 12}}, "block_size=1000000000000"),
    ({"config": {"vocab_size": 5, "n_embd": 10 ** 8, "n_head": 1}}, "does not fit the model"),
    ({"model": "Bigram", "config": {"vocab_size": 10 ** 6}}, "does not fit the model"),
    ({"tokenizer": {"class": "LowercaseTokenizer", "vocab_size": 10 ** 10}}, "vocab_size=100000"),
], ids=["layers", "vocabulary", "block", "width", "bigram", "tokenizer"])
def test_a_small_file_that_describes_a_huge_model_is_refused_at_once(tmp_path, entries, reason):
    path = tmp_path / "foreign.safetensors"
    write_header(path, **entries)
    start = time.process_time()
    assert reason in refusal(path)
    assert time.process_time() - start < 5


def test_a_header_with_ten_thousand_levels_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"gptlib": "[" * 10_000 + "]" * 10_000})
    assert "is not a whole checkpoint" in refusal(path)


# Writing ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_full_disk_preserves_the_earlier_checkpoint_and_leaves_no_other_file(
    path, tiny, monkeypatch, function
):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = read_files(path.parent)
    message = (r"could not be written \(No space left on device\); an earlier checkpoint there is "
               "unchanged")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(path, tiny(n_layer=1))
    assert read_files(path.parent) == files


@pytest.mark.parametrize("name", ["model.json", "model", "model.pt"])
def test_a_path_with_another_ending_is_refused(tmp_path, tiny, name):
    with pytest.raises(CheckpointError, match="should end in .safetensors"):
        save_checkpoint(tmp_path / name, tiny())
    assert not list(tmp_path.iterdir())


def test_something_that_is_not_json_is_refused_and_the_earlier_checkpoint_stays(path, tiny):
    files = read_files(path.parent)
    with pytest.raises(CheckpointError, match="model_class=.* is not JSON"):
        save_checkpoint(path, tiny(), model_class=GPT)
    assert read_files(path.parent) == files


def test_two_writers_of_one_path_never_give_a_reader_a_torn_file(tmp_path):
    path = tmp_path / "a.safetensors"
    models = [nn.Linear(100, 100), nn.Linear(100, 100)]
    stop = threading.Event()

    def write(model):
        while not stop.is_set():
            save_checkpoint(path, model)

    save_checkpoint(path, models[0])
    writers = [threading.Thread(target=write, args=[model]) for model in models]
    for writer in writers:
        writer.start()
    reader, errors = nn.Linear(100, 100), []
    for _ in range(200):
        try:
            load_weights(path, reader)
            assert any(torch.equal(reader.weight, model.weight) for model in models)
        except CheckpointError as error:
            errors.append(str(error))
    stop.set()
    for writer in writers:
        writer.join()
    assert errors == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


def test_an_interrupt_while_writing_preserves_the_earlier_checkpoint_and_leaves_no_other_file(
    path, tiny, monkeypatch
):
    def interrupt(*args):
        raise KeyboardInterrupt

    files = read_files(path.parent)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, tiny(n_layer=1))
    assert read_files(path.parent) == files


def test_a_folder_that_cannot_be_created_is_refused(path, tiny):
    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(path / "below/a.safetensors", tiny())


# Checkpoints of earlier versions (see test_resume.py for their runs) ------------------------------

@pytest.mark.parametrize(("name", "class_name", "options"), [
    ("plain", "GPT", {"dropout": 0.2, "bias": True}),
    ("variant", "GPT", {"attention": "toeplitz", "token_shift": True, "memory": "attention"}),
    ("rolling", "RollingGPT", {"window": 4, "memory": "tokens", "n_memory": 2}),
    ("bigram", "Bigram", {"vocab_size": 7}),
])
def test_a_checkpoint_of_an_earlier_version_is_loaded_with_its_loss(name, class_name, options):
    path = EARLIER / f"{name}.safetensors"
    model, tokenizer = load_model(path)
    assert type(model).__name__ == class_name
    assert options.items() <= model.config_dict().items()
    assert tokenizer.alphabet == "abcdefg"
    ids = torch.randint(7, (600,), generator=torch.Generator().manual_seed(0))
    expected = json.loads((EARLIER / "expected.json").read_text(encoding="utf-8"))
    loss, _ = evaluate(model, ids[500:], block_size=8)
    assert loss == pytest.approx(expected[name]["loss"], rel=1e-6)


def test_a_plain_gpt_of_an_earlier_version_has_no_options_of_variants():
    header = read_header(EARLIER / "plain.safetensors")
    for config in (header["config"], header["about"]["run"]):
        assert "attention" not in config
        assert "token_shift" not in config
