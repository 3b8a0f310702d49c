import errno
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gptlib import Bigram, CharTokenizer, LowercaseTokenizer, load_checkpoint, save_checkpoint
from gptlib.checkpoint import CheckpointError


class Tied(nn.Module):
    """A model of another library, with one matrix under two names."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, idx):
        return self.head(self.embedding(idx))


@pytest.fixture
def saved(tiny, tmp_path):
    save_checkpoint(tmp_path / "best.safetensors", tiny(), CharTokenizer("abcdefghijk"), step=7)
    return tmp_path / "best.safetensors"


def refusal(path, model=None):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, model)
    said = str(error.value)
    assert "\n" not in said and path.name in said
    return said


@pytest.mark.parametrize("tokenizer", [None, CharTokenizer("a ∞\n\"\\"), LowercaseTokenizer(100)], ids=["none", "char", "lowercase"])
@pytest.mark.parametrize("how", [{}, {"tie_weights": True}, {"tie_weights": False, "bias": True, "position": "sinusoidal"}])
def test_a_gpt_comes_back_to_the_bit_with_its_tokenizer(tiny, tmp_path, how, tokenizer):
    model, idx = tiny(**how), torch.arange(8)[None]
    save_checkpoint(tmp_path / "a.safetensors", model, tokenizer, step=3, metrics=[{"val_loss": 1.25}])
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert again.model.config == model.config and torch.equal(again.model(idx), model(idx))
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), model.parameters(), strict=True))
    assert again.about == {"step": 3, "metrics": [{"val_loss": 1.25}]}
    assert (again.tokenizer and again.tokenizer.to_dict()) == (tokenizer and tokenizer.to_dict())


def test_a_bigram_comes_back(tmp_path):
    model = Bigram.from_counts(torch.rand(5, 5))
    save_checkpoint(tmp_path / "a.safetensors", model)
    assert torch.equal(load_checkpoint(tmp_path / "a.safetensors").model.table.weight, model.table.weight)


def test_another_class_comes_back_into_the_model_given(tmp_path):
    torch.manual_seed(0)
    model, empty = nn.LSTM(3, 4), nn.LSTM(3, 4)
    save_checkpoint(tmp_path / "a.safetensors", model)
    assert load_checkpoint(tmp_path / "a.safetensors", empty).model is empty
    assert torch.equal(empty.weight_hh_l0, model.weight_hh_l0)


def test_a_model_whose_weights_share_memory_can_be_saved(tmp_path):
    model, empty = Tied(), Tied()
    save_checkpoint(tmp_path / "a.safetensors", model)
    load_checkpoint(tmp_path / "a.safetensors", empty)
    assert torch.equal(empty.embedding.weight, model.embedding.weight) and empty.head.weight is empty.embedding.weight


@pytest.mark.filterwarnings("ignore::DeprecationWarning")        # torch.compile's own
def test_a_compiled_model_is_saved_under_its_own_names(tiny, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", torch.compile(tiny()))
    assert b"_orig_mod" not in (tmp_path / "a.safetensors").read_bytes()
    assert type(load_checkpoint(tmp_path / "a.safetensors").model).__name__ == "GPT"


def test_a_folder_stands_for_its_best_model(saved):
    assert load_checkpoint(saved.parent).about == load_checkpoint(saved).about == {"step": 7}


def test_every_byte_is_json_or_weights(saved, tiny):
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    weights = sum(p.numel() * 4 for p in tiny().parameters())
    assert len(content) == 8 + length + weights and "gptlib" in header["__metadata__"]


def test_nothing_is_pickled(saved, monkeypatch):
    def never(*args, **how):
        raise AssertionError("a pickle was read")
    monkeypatch.setattr(pickle, "Unpickler", never)
    monkeypatch.setattr(pickle, "loads", never)
    assert load_checkpoint(saved).tokenizer.alphabet == "abcdefghijk"


def test_a_copy_for_human_eyes_lies_beside_it(saved):
    about = json.loads(saved.with_suffix(".json").read_text(encoding="utf-8"))
    assert about["model"] == "GPT" and about["config"]["n_embd"] == 12 and about["about"] == {"step": 7}


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[:int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "is not a whole checkpoint of this library" in refusal(saved)


def test_random_bytes_are_refused(saved):
    saved.write_bytes(torch.randint(256, (5000,), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy().tobytes())
    assert "is not a whole checkpoint of this library" in refusal(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"gptlib": "{"}, {"gptlib": "[]"}, {"gptlib": "{}"},
                                      {"gptlib": '{"model": "GPT", "config": {"depth": 3}, "tokenizer": null, "about": {}}'},
                                      {"gptlib": '{"model": "GPT", "config": {"vocab_size": 0}, "tokenizer": null, "about": {}}'},
                                      {"gptlib": '{"model": "GPT", "config": {"vocab_size": 5}, "tokenizer": {"class": "X"}, "about": {}}'},
                                      {"gptlib": '{"model": "GPT", "config": {"vocab_size": 5}, "tokenizer": null}'}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata)
    assert "is not a whole checkpoint of this library" in refusal(tmp_path / "foreign.safetensors")


def test_a_class_that_cannot_be_rebuilt_is_named_with_a_way_out(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", nn.Linear(2, 2))
    said = refusal(tmp_path / "a.safetensors")
    assert "KeyError('Linear')" in said and "for any other class pass model=" in said


def test_a_missing_file_and_a_folder_without_a_best_model_are_refused(tmp_path):
    assert "does not exist: name a .safetensors file" in refusal(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match=r"best.safetensors does not exist"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("other", [dict(n_layer=1), dict(n_embd=24), dict(position="none"), dict(bias=True)], ids=str)
def test_weights_that_do_not_fit_the_model_given_are_refused(saved, tiny, other):
    said = refusal(saved, tiny(**other))
    assert "holds a GPT with config {'vocab_size': 11" in said and "which does not fit the model given: " in said


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_litter(saved, tiny, monkeypatch, failing):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}

    def full(*args, **how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device\); the checkpoint from before"):
        save_checkpoint(saved, tiny(n_layer=1))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_an_interrupt_while_writing_leaves_the_old_checkpoint_and_no_litter(saved, tiny, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}

    def interrupted(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, tiny(n_layer=1))
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_refused(saved, tiny):
    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(saved / "below/a.safetensors", tiny())
