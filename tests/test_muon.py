"""Muon: its matrices become orthogonal, it agrees with PyTorch's Muon, and its runs can resume."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gptlib import GPT, GPTConfig, TrainConfig, train
from gptlib.config import ConfigError
from gptlib.optimizers import Muon, make_optimizer
from gptlib.optimizers.muon import EMBEDDING_SCALE, OTHER_SCALE, make_muon, orthogonalize
from gptlib.train import learning_rate, set_learning_rate

SHAPE = GPTConfig(vocab_size=7, block_size=8, n_layer=2, n_head=2, n_embd=12)
IDS = torch.randint(7, (400,), generator=torch.Generator().manual_seed(0))
CONFIG = TrainConfig(max_steps=12, batch_size=4, eval_interval=4, warmup=2, optimizer="muon",
                     learning_rate=0.02, device="cpu")


def random_matrices(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(out_dir, model=None, config=CONFIG, **options):
    torch.manual_seed(0)
    model = model or GPT(SHAPE)
    result = train(model, IDS[:300], IDS[300:], 8, config, out_dir=out_dir, progress=False,
                   optimizer=make_optimizer, **options)
    return model, result


# orthogonalize ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (4, 16), (3, 5, 5), (2, 3, 7, 4), (1, 1)])
def test_singular_values_come_close_to_one(shape):
    values = torch.linalg.svdvals(orthogonalize(random_matrices(*shape)))
    assert values.min() > 0.6 and values.max() < 1.25


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (4, 16)])
def test_result_is_near_the_nearest_orthogonal_matrix(shape):
    G = random_matrices(*shape)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    cosine = F.cosine_similarity(orthogonalize(G).flatten(), (U @ Vh).flatten(), dim=0)
    assert cosine > 0.98


def test_matrices_of_a_stack_do_not_influence_each_other():
    stack = random_matrices(3, 6, 9)
    alone = torch.stack([orthogonalize(matrix) for matrix in stack])
    torch.testing.assert_close(orthogonalize(stack), alone)


def test_size_of_the_gradient_does_not_matter():
    G = random_matrices(6, 6)
    torch.testing.assert_close(orthogonalize(1000 * G), orthogonalize(G), atol=1e-4, rtol=1e-4)


def test_zeros_stay_zeros():
    assert torch.equal(orthogonalize(torch.zeros(4, 4)), torch.zeros(4, 4))


# Muon ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_steps_equal_those_of_pytorchs_muon(shape, monkeypatch):
    # PyTorch's Muon computes in bfloat16. Here it computes in float32, so that both can be equal.
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    ours, theirs = (nn.Parameter(random_matrices(*shape)) for _ in range(2))
    muon = Muon([{"params": [ours], "n_matrices": 1, "weight_decay": 0.1}], lr=0.02)
    oracle = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95)
    for seed in range(1, 6):
        ours.grad, theirs.grad = (random_matrices(*shape, seed=seed) for _ in range(2))
        muon.step()
        oracle.step()
        torch.testing.assert_close(ours, theirs)


def test_other_groups_take_the_steps_of_adamw():
    ours, theirs = (nn.Parameter(random_matrices(5, 3)) for _ in range(2))
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    muon = Muon([{"params": [ours]}], **settings)
    oracle = torch.optim.AdamW([theirs], **settings, fused=True)
    for seed in range(1, 6):
        ours.grad, theirs.grad = (random_matrices(5, 3, seed=seed) for _ in range(2))
        muon.step()
        oracle.step()
        assert torch.equal(ours, theirs)


def test_matrices_that_stand_below_one_another_are_orthogonalized_apart():
    together, *apart = (nn.Parameter(random_matrices(rows, 4)) for rows in (12, 4, 4, 4))
    gradient = random_matrices(12, 4, seed=1)
    for parameter, part in zip(apart, gradient.chunk(3), strict=True):
        parameter.data.zero_()
        parameter.grad = part
    together.data.zero_()
    together.grad = gradient
    Muon([{"params": [together], "n_matrices": 3}]).step()
    Muon([{"params": apart, "n_matrices": 1}]).step()
    torch.testing.assert_close(together.detach(), torch.cat([p.detach() for p in apart]))


def test_a_weight_without_gradient_is_not_changed():
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    used.grad = random_matrices(3, 3)
    Muon([{"params": [used, unused], "n_matrices": 1, "weight_decay": 0.5}]).step()
    assert torch.equal(unused, torch.ones(3, 3)) and not torch.equal(used, torch.ones(3, 3))


# make_muon ----------------------------------------------------------------------------------------


def test_muon_gets_the_linear_layers_of_the_blocks_and_adamw_all_else():
    model = GPT(SHAPE)
    optimizer = make_muon(model, CONFIG)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [sorted(names[id(p)] for p in group["params"]) for group in optimizer.param_groups]
    assert groups[0] == ["blocks.0.attention.qkv.weight", "blocks.1.attention.qkv.weight"]
    assert groups[1] == sorted(
        f"blocks.{i}.{part}.weight" for i in (0, 1)
        for part in ("attention.proj", "feed_forward.fc", "feed_forward.proj"))
    assert groups[2] == ["positions.table.weight", "token_embedding.weight"]
    assert "head.weight" in groups[3] and "final_norm.weight" in groups[3]
    assert sorted(sum(groups, [])) == sorted(names.values())
    assert [group["n_matrices"] for group in optimizer.param_groups] == [3, 1, 0, 0]


def test_tied_head_is_counted_once():
    model = GPT(GPTConfig(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=12,
                          tie_weights=True))
    parameters = [p for group in make_muon(model, CONFIG).param_groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(model.parameters()))


def test_the_learning_rates_of_the_groups_keep_their_factors():
    optimizer = make_muon(GPT(SHAPE), CONFIG)
    expected = [1.0, 1.0, EMBEDDING_SCALE, OTHER_SCALE]
    assert [group["lr"] / 0.02 for group in optimizer.param_groups] == pytest.approx(expected)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] / 0.5 for group in optimizer.param_groups] == pytest.approx(expected)


def test_a_model_without_blocks_is_trained_by_adamw():
    _, result = run(None, nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 7)))
    assert result.history[-1]["val_loss"] != result.history[0]["val_loss"]


def test_train_alone_knows_only_adamw():
    with pytest.raises(ConfigError, match="optimizer='muon' comes from another function"):
        train(GPT(SHAPE), IDS[:300], IDS[300:], 8, CONFIG, progress=False)


# Training -----------------------------------------------------------------------------------------


def test_muon_learns_a_pattern():
    ids = torch.arange(400) % 7
    torch.manual_seed(0)
    model = GPT(SHAPE)
    config = TrainConfig(max_steps=150, batch_size=8, warmup=4, optimizer="muon",
                         learning_rate=0.02, device="cpu")
    result = train(model, ids[:300], ids[300:], 8, config, progress=False,
                   optimizer=make_optimizer)
    assert result.history[-1]["val_loss"] < 0.5 < result.history[0]["val_loss"]


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_stopped_run_with_muon_resumes_to_the_bit(tmp_path, stop_after):
    whole, expected = run(tmp_path / "whole")
    steps = iter(range(100))
    run(tmp_path / "stopped", stop=lambda: next(steps) == stop_after)
    resumed, result = run(tmp_path / "stopped", resume="auto")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [row["val_loss"] for row in result.history] == [
        row["val_loss"] for row in expected.history]


def test_a_run_with_adamw_is_not_resumed_with_muon(tmp_path):
    adamw = TrainConfig(**{**vars(CONFIG), "optimizer": "adamw"})
    run(tmp_path, config=adamw)
    with pytest.raises(ConfigError, match="optimizer was 'adamw' and is now 'muon'"):
        run(tmp_path, resume="auto")


# The schedule -------------------------------------------------------------------------------------


def test_wsd_warms_up_stays_constant_and_ends_in_a_straight_line():
    config = TrainConfig(max_steps=100, warmup=10, schedule="wsd", cooldown=0.4,
                         learning_rate=1.0, min_lr=0.0)
    rates = [learning_rate(config, step, 8) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10:60] == pytest.approx([1.0] * 50)
    assert rates[60:] == pytest.approx([1 - k / 40 for k in range(1, 41)])


def test_wsd_ends_at_the_smallest_rate_and_stays_there():
    config = TrainConfig(max_steps=100, warmup=0, schedule="wsd", cooldown=0.5, learning_rate=1.0,
                         min_lr=0.1, lr_decay=80)
    rates = [learning_rate(config, step, 8) for step in range(100)]
    assert rates[59] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[79:] == pytest.approx([0.1] * 21)
