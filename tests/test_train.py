import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gptlib import Bigram, CharTokenizer, TrainConfig, evaluate, get_batch, load_checkpoint, train
from gptlib.config import ConfigError
from gptlib.data import DataError
from gptlib.train import NonFiniteLoss, TrainResult, learning_rate, log_line, make_optimizer, pick_device

TEXT = "to be, or not to be, that is the question: " * 20
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = torch.tensor(TOKENIZER.encode(TEXT))
V = TOKENIZER.vocab_size


class TinyLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, V)

    def forward(self, idx):
        return self.head(self.lstm(self.embedding(idx))[0])


def run(model, on_eval=None, out_dir=None, train_ids=IDS, val_ids=IDS[:200], **how):
    settings = {"max_steps": 6, "batch_size": 4, "eval_interval": 2, "warmup": 0, "device": "cpu"} | how
    return train(model, train_ids, val_ids, 8, TrainConfig(**settings), out_dir=out_dir, tokenizer=TOKENIZER, on_eval=on_eval,
                 progress=False)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def measured(result):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]


@pytest.fixture
def gpt(tiny):
    """A function that makes the same small GPT each time, with dropout."""
    return lambda: tiny(vocab_size=V, dropout=0.2)


# evaluate

@pytest.mark.parametrize("n", [9, 16, 17, 18, 200])
def test_evaluation_is_the_mean_over_every_token_but_the_first(n):
    model = Bigram.from_counts(torch.rand(V, V, generator=torch.Generator().manual_seed(0)))
    log_p = model(IDS[None, :n])[0].log_softmax(-1).tolist()
    following = IDS[1:n].tolist()
    losses = [-row[y] for row, y in zip(log_p, following, strict=False)]
    hits = [row[y] == max(row) for row, y in zip(log_p, following, strict=False)]
    loss, accuracy = evaluate(model, IDS[:n], 8)
    assert loss == pytest.approx(sum(losses) / (n - 1), rel=1e-6) and accuracy == pytest.approx(sum(hits) / (n - 1), rel=1e-12)


def test_evaluation_gives_each_window_what_came_before_in_it_alone(gpt):
    model = gpt().eval()
    losses = []
    for t in range(1, 30):
        start = (t - 1) // 8 * 8
        losses.append(F.cross_entropy(model(IDS[None, start:t])[0, -1], IDS[t]).item())
    assert evaluate(model, IDS[:30], 8)[0] == pytest.approx(np.mean(losses), rel=1e-5)


def test_evaluation_does_not_depend_on_how_many_windows_go_at_once(gpt, monkeypatch):
    whole = evaluate(gpt(), IDS, 8)[0]
    monkeypatch.setattr(sys.modules["gptlib.train"], "EVAL_TOKENS", 24)      # gptlib.train itself is the function
    assert evaluate(gpt(), IDS, 8)[0] == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_has_dropout_off_and_leaves_the_model_as_it_was(gpt, tiny, training):
    model = gpt().train(training)
    assert evaluate(model, IDS, 8) == evaluate(tiny(vocab_size=V, dropout=0.0), IDS, 8)
    assert all(module.training is training for module in model.modules()) and all(p.grad is None for p in model.parameters())


def test_evaluation_needs_a_whole_window():
    with pytest.raises(DataError, match="has 8 tokens, too few for windows of block_size=8"):
        evaluate(Bigram(V), IDS[:8], 8)


# train

def test_the_same_seed_gives_the_same_run_to_the_bit(gpt):
    first, again = gpt(), gpt()
    assert measured(run(first)) == measured(run(again)) and torch.equal(weights(first), weights(again))


@pytest.mark.parametrize("by", ["batches", "dropout"])
def test_another_seed_gives_another_run(gpt, by):
    make, n = (lambda: Bigram(V), len(IDS)) if by == "batches" else (gpt, 9)           # of 9 tokens there is but one batch
    first, other = make(), make()
    assert measured(run(first, train_ids=IDS[:n])) != measured(run(other, train_ids=IDS[:n], seed=7))
    assert not torch.equal(weights(first), weights(other))


def test_dropout_is_drawn_afresh_at_each_step(gpt):
    history = run(gpt(), train_ids=IDS[:9], learning_rate=1e-12, min_lr=0.0, eval_interval=1).history
    assert len({row["val_loss"] for row in history}) == 1                              # nothing learnt, but ...
    assert len({round(row["train_loss"], 3) for row in history if row["step"]}) == 6


def test_training_is_plain_adamw_over_the_batches():
    model, by_hand = Bigram(V), Bigram(V)
    run(model, learning_rate=0.01, min_lr=0.01, weight_decay=0.1, grad_clip=0.0, seed=3)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(6):
        x, y = get_batch(IDS, 8, 4, seed=3, step=step)
        optimizer.zero_grad()
        F.cross_entropy(by_hand(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=1e-5, atol=1e-7)


def test_a_run_does_not_depend_on_what_was_drawn_before_or_on_when_it_is_evaluated(gpt):
    first, other = gpt(), gpt()
    run(first)
    torch.manual_seed(99)
    run(other, on_eval=lambda row: torch.rand(7), eval_interval=1)
    assert torch.equal(weights(first), weights(other))


def test_the_global_random_numbers_are_left_alone(gpt):
    model, before, numpys = gpt(), torch.get_rng_state(), np.random.get_state()[1].copy()
    run(model)
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], numpys)


def test_dropout_is_on_in_training_even_after_an_evaluation(gpt, tiny):
    model, without = gpt(), tiny(vocab_size=V, dropout=0.0)
    modes = []
    run(model.eval(), on_eval=lambda row: modes.append(model.training))
    run(without)
    assert all(modes) and not torch.equal(weights(model), weights(without))


@pytest.mark.parametrize("make, least", [(lambda: Bigram(V), 0.4), (TinyLSTM, 1.0)], ids=["bigram", "lstm"])
def test_any_model_of_tokens_to_logits_learns(make, least):
    torch.manual_seed(0)
    history = run(make(), max_steps=60, batch_size=16, learning_rate=0.03, eval_interval=30).history
    assert history[0]["val_loss"] == pytest.approx(math.log(V), abs=0.2)
    assert history[-1]["val_loss"] < history[0]["val_loss"] - least and history[-1]["val_acc"] > history[0]["val_acc"] + 0.1


def test_the_history_tells_each_evaluation_and_the_last_step(gpt):
    history = run(gpt(), max_steps=5).history
    assert [row["step"] for row in history][-3:] == [2, 4, 5] and history[-1]["tokens"] == 5 * 4 * 8
    assert set(history[-1]) == {"step", "tokens", "seconds", "lr", "train_loss", "val_loss", "train_acc", "val_acc"}


def test_the_validation_loss_is_an_evaluation_of_the_whole_split(gpt):
    model = gpt()
    last = run(model).history[-1]
    assert (last["val_loss"], last["val_acc"]) == evaluate(model, IDS[:200], 8)


def test_the_train_loss_is_the_mean_over_the_batches_since_the_last_evaluation(gpt):
    by_2, by_1 = run(gpt(), eval_interval=2).history, run(gpt(), eval_interval=1).history
    of = lambda history, step, name: next(row[name] for row in history if row["step"] == step)
    for name in ("train_loss", "train_acc"):
        assert of(by_2, 4, name) == pytest.approx((of(by_1, 3, name) + of(by_1, 4, name)) / 2, rel=1e-12)


def test_on_one_window_without_dropout_training_and_validation_agree():
    model = Bigram.from_counts(torch.rand(V, V, generator=torch.Generator().manual_seed(0)))
    model.table.weight.data[IDS[0], IDS[1]] = 9.0
    last = run(model, train_ids=IDS[:9], val_ids=IDS[:9], learning_rate=1e-12, min_lr=0.0).history[-1]
    assert last["train_acc"] == pytest.approx(last["val_acc"]) and last["val_acc"] > 0
    assert last["train_loss"] == pytest.approx(last["val_loss"], rel=1e-6)


def test_the_best_evaluation_has_the_lowest_validation_loss():
    assert TrainResult([{"val_loss": 2.0}, {"val_loss": 1.0, "step": 2}, {"val_loss": 1.0, "step": 3}]).best["step"] == 2


def test_metrics_have_one_line_for_each_evaluation(gpt, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("of a run before\n", encoding="utf-8")
    history = run(gpt(), out_dir=tmp_path).history
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] == history


def test_a_run_leaves_its_best_model_its_last_one_and_its_metrics(gpt, tmp_path):
    model = gpt()
    result = run(model, out_dir=tmp_path / "new/run")
    assert sorted(path.name for path in (tmp_path / "new/run").iterdir()) == [
        "best.json", "best.safetensors", "last.json", "last.safetensors", "metrics.jsonl"]
    last, best = load_checkpoint(tmp_path / "new/run/last.safetensors"), load_checkpoint(tmp_path / "new/run")
    assert torch.equal(weights(last.model), weights(model)) and last.about["step"] == 6 and last.tokenizer.alphabet == TOKENIZER.alphabet
    assert best.about["history"][-1] == result.best and last.about["run"]["max_steps"] == 6


def test_the_best_model_is_the_one_of_the_best_evaluation_not_of_the_last(tmp_path):
    def spoil(row):
        if row["step"] == 4:
            model.table.weight.data.normal_(std=20)
    model = Bigram(V)
    result = run(model, on_eval=spoil, out_dir=tmp_path, learning_rate=0.03)
    best = load_checkpoint(tmp_path)
    assert best.about["step"] == result.best["step"] == 4
    assert evaluate(best.model, IDS[:200], 8)[0] == result.best["val_loss"] < result.history[-1]["val_loss"]


def test_without_a_folder_nothing_is_written(gpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(gpt())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_best_model(tmp_path, poison):
    before = []

    def spoil(row):
        if row["step"] == 4:
            before.append((tmp_path / "best.safetensors").read_bytes())
            model.table.weight.data.fill_(poison)
    model = Bigram(V)
    with pytest.raises(NonFiniteLoss, match=r"^step 5: the loss is nan .* most likely the learning rate is too high"):
        run(model, on_eval=spoil, out_dir=tmp_path, learning_rate=0.03)
    assert (tmp_path / "best.safetensors").read_bytes() == before[0] and load_checkpoint(tmp_path).about["step"] == 4


def test_a_validation_loss_that_is_no_number_stops_the_run_too(tmp_path):
    class Broken(Bigram):
        def forward(self, idx):
            return super().forward(idx) * (1.0 if self.training or not self.table.weight.any() else math.nan)
    with pytest.raises(NonFiniteLoss, match="^step 2: the validation loss is nan"):
        run(Broken(V), out_dir=tmp_path)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


def test_an_interrupt_keeps_the_best_model_and_the_last(tmp_path, capsys):
    def interrupt(row):
        if row["step"] == 4:
            raise KeyboardInterrupt
    model = Bigram(V)
    result = run(model, on_eval=interrupt, out_dir=tmp_path)
    assert result.interrupted and result.history[-1]["step"] == 4
    assert capsys.readouterr().out == f"interrupted after step 4 of 6; the model is in {tmp_path.name}\n"
    assert torch.equal(weights(load_checkpoint(tmp_path / "last.safetensors").model), weights(model))
    assert load_checkpoint(tmp_path).about["step"] == 4 and not run(Bigram(V)).interrupted


def test_an_interrupt_leaves_the_global_random_numbers_alone():
    def interrupt(row):
        raise KeyboardInterrupt
    model, before = Bigram(V), torch.get_rng_state()
    run(model, on_eval=interrupt)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("short", ["train_ids", "val_ids"])
def test_a_split_too_short_is_named_before_anything_is_done(tmp_path, short):
    model, name = Bigram(V), {"train_ids": "training", "val_ids": "validation"}[short]
    with pytest.raises(DataError, match=f"the {name} split has 8 tokens, too few for windows of block_size=8"):
        run(model, out_dir=tmp_path, **{short: IDS[:8]})
    assert not model.table.weight.any() and list(tmp_path.iterdir()) == []


def test_an_evaluation_is_told_in_a_line(gpt, capsys):
    train(gpt(), IDS, IDS[:200], 8, TrainConfig(max_steps=20, batch_size=4, eval_interval=10, device="cpu"))
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"T\+ 0:00:\d\d - step 10/20: train loss \d\.\d{4}, val loss \d\.\d{4}; train acc 0\.\d{4}, val acc 0\.\d{4}; "
                        r"t_remain 0:00:\d\d", lines[-2])
    assert " - step 20/20: " in lines[-1] and lines[-1].endswith("t_remain 0:00:00")


def test_without_progress_nothing_is_printed(gpt, capsys):
    run(gpt())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("step, steps, elapsed, begins, ends", [
    (7270, 7270, 2266.2, "T+ 0:37:46 - step 7270/7270", "0:00:00"),
    (50, 2000, 90, "T+ 0:01:30 - step   50/2000", "0:58:30"),
    (0, 10, 3, "T+ 0:00:03 - step  0/10", "unknown")])
def test_the_line_is_shakegpts(step, steps, elapsed, begins, ends):
    row = {"step": step, "train_loss": 1.58661, "val_loss": 1.75308, "train_acc": 0.39961, "val_acc": 0.36249}
    assert log_line(row, steps, elapsed) == (
        f"{begins}: train loss 1.5866, val loss 1.7531; train acc 0.3996, val acc 0.3625; t_remain {ends}")


# the learning rate

CURVE = TrainConfig(max_steps=100, batch_size=4, learning_rate=1e-3, min_lr=1e-4, warmup=20)


def curve(config, steps=100):
    return [learning_rate(config, step, block_size=8) for step in range(steps)]


def test_the_learning_rate_warms_up_in_a_line():
    assert curve(CURVE, 20) == pytest.approx([1e-3 * n / 20 for n in range(1, 21)], rel=1e-12)


def test_the_learning_rate_falls_on_half_a_cosine_to_its_end_with_the_last_step():
    rates = curve(CURVE)
    expected = [1e-4 + 9e-4 * (1 + math.cos(math.pi * (n - 20) / 80)) / 2 for n in range(20, 101)]
    assert rates[19:] == pytest.approx(expected, rel=1e-12)
    assert rates[19] == pytest.approx(1e-3, rel=1e-12) and rates[59] == pytest.approx(5.5e-4, rel=1e-12) and rates[-1] == 1e-4


def test_the_learning_rate_ends_where_it_is_told_and_stays_there():
    rates = curve(TrainConfig(max_steps=100, learning_rate=1e-3, min_lr=1e-4, warmup=0, lr_decay=50))
    assert rates[48] > 1e-4 and rates[49:] == 51 * [1e-4]


def test_counted_in_tokens_the_curve_is_the_same():
    tokens = 4 * 8
    for lr_decay in (0, 60):
        by_steps = TrainConfig(max_steps=100, batch_size=4, learning_rate=1e-3, min_lr=1e-4, warmup=20, lr_decay=lr_decay)
        by_tokens = TrainConfig(max_steps=100, batch_size=4, learning_rate=1e-3, min_lr=1e-4, warmup=20 * tokens,
                                lr_decay=lr_decay * tokens, lr_unit="tokens")
        assert curve(by_tokens) == pytest.approx(curve(by_steps), rel=1e-12)


def test_without_warm_up_the_first_step_is_the_largest():
    rates = curve(TrainConfig(max_steps=100, warmup=0))
    assert rates == sorted(rates, reverse=True)


def test_the_optimizer_follows_the_learning_rate():
    history = run(Bigram(V), max_steps=4, warmup=2, learning_rate=1e-3, min_lr=0.0, eval_interval=1).history
    assert [row["lr"] for row in history][-4:] == pytest.approx([5e-4, 1e-3, 5e-4, 0.0], rel=1e-12)


def test_a_step_of_learning_rate_0_changes_nothing():
    model = Bigram(V)
    run(model, max_steps=1, min_lr=0.0, learning_rate=1.0)                # the cosine ends with the last step
    assert not model.table.weight.any()


# the optimizer

def test_matrices_decay_and_vectors_do_not(tiny):
    model = tiny(bias=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    make_optimizer(model, TrainConfig(learning_rate=0.1, weight_decay=0.5)).step()
    for name, p in model.named_parameters():
        decayed = before[name] * (1 - 0.1 * 0.5) if p.ndim >= 2 else before[name]
        torch.testing.assert_close(p.detach(), decayed, rtol=1e-6, atol=0)


@pytest.mark.parametrize("tie", [True, False])
def test_the_optimizer_has_every_parameter_once(tiny, tie):
    model = tiny(bias=True, tie_weights=tie)
    held = [p for group in make_optimizer(model, TrainConfig()).param_groups for p in group["params"]]
    assert len(held) == len(set(map(id, held))) == len(list(model.parameters()))


def test_the_betas_reach_the_optimizer(tiny):
    assert all(g["betas"] == (0.8, 0.9) for g in make_optimizer(tiny(), TrainConfig(beta1=0.8, beta2=0.9)).param_groups)


@pytest.mark.parametrize("clip", [1e-12, 0.0])
def test_clipping_bounds_the_gradient_and_0_leaves_it(clip):
    model = Bigram(V)
    run(model, max_steps=1, grad_clip=clip)
    norm = model.table.weight.grad.norm()
    assert norm <= 1.01e-12 if clip else norm > 1e-3


def test_a_device_is_taken_as_it_is_named_and_auto_finds_one():
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match=f"device='{name}' is not to be had on this machine: choose 'auto', 'cpu'"):
        pick_device(name)
