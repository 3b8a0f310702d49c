"""Training and evaluation: losses, batches, the learning rate, the optimizer, and the files."""

import json
import math
import re
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gptlib import Bigram, CharTokenizer, TrainConfig, evaluate, get_batch, load_model, train
from gptlib.checkpoint import read_header
from gptlib.config import ConfigError
from gptlib.data import DataError, document_mask
from gptlib.run import NonFiniteLoss, TrainResult, log_line, pick_device, pick_dtype
from gptlib.train import (
    NO_TARGET,
    evaluate_batches,
    learning_rate,
    make_optimizer,
    text_windows,
)

TEXT = "to be, or not to be, that is the question: " * 20
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = torch.tensor(TOKENIZER.encode(TEXT))
VAL_IDS = IDS[:200]
V = TOKENIZER.vocab_size
BLOCK_SIZE = 8
SETTINGS = {"max_steps": 6, "batch_size": 4, "eval_interval": 2, "warmup": 0, "device": "cpu"}


class TinyLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, V)

    def forward(self, idx):
        return self.head(self.lstm(self.embedding(idx))[0])


def run(model, train_ids=IDS, val_ids=VAL_IDS, out_dir=None, on_eval=None, progress=False,
        optimizer=None, extra_loss=None, **settings):
    """Train `model` for a few steps. `settings` are fields of TrainConfig."""
    config = TrainConfig(**SETTINGS | settings)
    return train(model, train_ids, val_ids, BLOCK_SIZE, config, out_dir=out_dir,
                 tokenizer=TOKENIZER, on_eval=on_eval, progress=progress,
                 optimizer=optimizer, extra_loss=extra_loss)


def random_bigram():
    return Bigram.from_counts(torch.rand(V, V, generator=torch.Generator().manual_seed(0)))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def without_seconds(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def window_batch(step):
    """Return the batch of a step, as `train` cuts it from IDS with the seed of TrainConfig."""
    return get_batch(IDS, BLOCK_SIZE, SETTINGS["batch_size"], TrainConfig().seed, step)


def batch_with_few_targets(step):
    """Return a batch in which about two thirds of the targets are -100."""
    x, y = window_batch(step)
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(step)) < 2 / 3
    return x, y.masked_fill(hidden, NO_TARGET)


def batch_with_documents(step):
    """Return a batch whose windows hold two documents each, with its document mask."""
    x, y = window_batch(step)
    documents = (torch.arange(BLOCK_SIZE) >= 3).long().expand(len(x), -1)
    return x, y, document_mask(documents)


def loss_by_hand(model, batch):
    """Return the mean loss over the targets that are not -100, and the accuracy on them."""
    x, y, *mask = batch
    logits = model(x, mask=mask[0]) if mask else model(x)
    selected = y != NO_TARGET
    logits, y = logits[selected], y[selected]
    return F.cross_entropy(logits, y), (logits.argmax(-1) == y).float().mean().item()


@pytest.fixture
def gpt(tiny):
    """Return a function that builds the same small GPT each time, with dropout."""
    return lambda: tiny(vocab_size=V, dropout=0.2)


# Evaluation ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [9, 16, 17, 18, 200])
def test_evaluation_is_the_mean_over_every_token_but_the_first(n):
    model = random_bigram()
    log_probabilities = model(IDS[None, :n - 1])[0].log_softmax(-1).tolist()
    targets = IDS[1:n].tolist()
    losses = [-row[y] for row, y in zip(log_probabilities, targets, strict=True)]
    hits = [row[y] == max(row) for row, y in zip(log_probabilities, targets, strict=True)]
    loss, accuracy = evaluate(model, IDS[:n], BLOCK_SIZE)
    assert loss == pytest.approx(sum(losses) / (n - 1), rel=1e-6)
    assert accuracy == pytest.approx(sum(hits) / (n - 1), rel=1e-12)


def test_evaluation_predicts_each_token_from_the_earlier_tokens_of_its_window_alone(gpt):
    model = gpt().eval()
    losses = []
    for t in range(1, 30):
        start = (t - 1) // BLOCK_SIZE * BLOCK_SIZE
        losses.append(F.cross_entropy(model(IDS[None, start:t])[0, -1], IDS[t]).item())
    assert evaluate(model, IDS[:30], BLOCK_SIZE)[0] == pytest.approx(np.mean(losses), rel=1e-5)


def test_evaluation_does_not_depend_on_the_number_of_windows_in_a_batch(gpt, monkeypatch):
    in_one_batch, _ = evaluate(gpt(), IDS, BLOCK_SIZE)
    # The attribute gptlib.train is the function. The module has the same name.
    monkeypatch.setattr(import_module("gptlib.train"), "EVAL_TOKENS", 3 * BLOCK_SIZE)
    in_many_batches, _ = evaluate(gpt(), IDS, BLOCK_SIZE)
    assert in_many_batches == pytest.approx(in_one_batch, rel=1e-6)


class CountsTokens(Bigram):
    """A bigram that lists how many tokens it reads at once."""

    def __init__(self, vocab_size):
        super().__init__(vocab_size)
        self.tokens = []

    def forward(self, idx):
        self.tokens.append(idx.numel())
        return super().forward(idx)


def test_evaluation_with_a_large_vocabulary_reads_few_tokens_at_a_time(monkeypatch):
    """The number of logits at a time has a bound, also for batches that are given."""
    monkeypatch.setattr(import_module("gptlib.train"), "EVAL_NUMBERS", 3 * BLOCK_SIZE * 1000)
    small, large = CountsTokens(V), CountsTokens(1000)
    nn.init.normal_(large.table.weight)
    one_batch = text_windows(IDS, BLOCK_SIZE)
    losses = {evaluate(large, IDS, BLOCK_SIZE), evaluate_batches(large, one_batch)}
    assert max(large.tokens) == 3 * BLOCK_SIZE
    assert sum(large.tokens) == 2 * (len(IDS) - 1)
    expected = F.cross_entropy(large(IDS[:-1]), IDS[1:]).item()
    assert [loss for loss, _ in losses] == [pytest.approx(expected, rel=1e-5)]
    evaluate(small, IDS, BLOCK_SIZE)
    assert small.tokens == [x.numel() for x, _ in one_batch]


def test_a_document_mask_is_cut_like_its_batch(gpt, monkeypatch):
    batch = batch_with_documents(0)
    whole = evaluate_batches(gpt(), [batch])
    monkeypatch.setattr(import_module("gptlib.train"), "EVAL_NUMBERS", 1)
    assert evaluate_batches(gpt(), [batch]) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_without_dropout_and_restores_the_mode(gpt, tiny, training):
    model = gpt().train(training)
    without_dropout = tiny(vocab_size=V, dropout=0.0)
    assert evaluate(model, IDS, BLOCK_SIZE) == evaluate(without_dropout, IDS, BLOCK_SIZE)
    assert all(module.training is training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_evaluation_needs_a_whole_window():
    message = "the text has 8 tokens, but windows of block_size=8 need at least 9"
    with pytest.raises(DataError, match=message):
        evaluate(Bigram(V), IDS[:8], BLOCK_SIZE)


def test_evaluation_leaves_out_targets_of_minus_100():
    model = random_bigram()
    batches = [batch_with_few_targets(step) for step in range(3)]
    together = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    loss, accuracy = evaluate_batches(model, batches)
    expected_loss, expected_accuracy = loss_by_hand(model, together)
    assert loss == pytest.approx(expected_loss.item(), rel=1e-6)
    assert accuracy == pytest.approx(expected_accuracy, rel=1e-6)


# Training -----------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_run_to_the_bit(gpt):
    first, second = gpt(), gpt()
    history, same_history = run(first).history, run(second).history
    assert without_seconds(history) == without_seconds(same_history)
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("source", ["batches", "dropout"])
def test_another_seed_gives_another_run(gpt, source):
    # The bigram has no dropout. With 9 tokens there is only one possible window.
    make, n = (lambda: Bigram(V), len(IDS)) if source == "batches" else (gpt, 9)
    first, second = make(), make()
    history = run(first, train_ids=IDS[:n]).history
    other_history = run(second, train_ids=IDS[:n], seed=7).history
    assert without_seconds(history) != without_seconds(other_history)
    assert not torch.equal(weights(first), weights(second))


def test_each_step_has_its_own_dropout(gpt):
    # The batch and the weights do not change. Only dropout can change the train loss.
    history = run(gpt(), train_ids=IDS[:9], learning_rate=1e-12, eval_interval=1).history
    assert len({row["val_loss"] for row in history}) == 1
    assert len({round(row["train_loss"], 3) for row in history if row["step"]}) == 6


def test_training_is_adamw_on_the_batches_of_get_batch():
    model, expected = Bigram(V), Bigram(V)
    run(model, learning_rate=0.01, min_lr=0.01, weight_decay=0.1, grad_clip=0.0, seed=3)
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.01, betas=(0.9, 0.99),
                                  weight_decay=0.1)
    for step in range(6):
        x, y = get_batch(IDS, BLOCK_SIZE, 4, seed=3, step=step)
        optimizer.zero_grad()
        F.cross_entropy(expected(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-5, atol=1e-7)


def test_earlier_random_numbers_and_the_moments_of_evaluation_do_not_change_a_run(gpt):
    first, second = gpt(), gpt()
    run(first)
    torch.manual_seed(99)
    run(second, on_eval=lambda row: torch.rand(7), eval_interval=1)
    assert torch.equal(weights(first), weights(second))


def test_training_does_not_change_the_global_random_generators(gpt):
    model = gpt()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    run(model)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_dropout_is_on_in_training_even_after_an_evaluation(gpt, tiny):
    model, without_dropout = gpt(), tiny(vocab_size=V, dropout=0.0)
    modes = []
    run(model.eval(), on_eval=lambda row: modes.append(model.training))
    run(without_dropout)
    assert all(modes)
    assert not torch.equal(weights(model), weights(without_dropout))


@pytest.mark.parametrize(("make", "improvement"), [(lambda: Bigram(V), 0.4), (TinyLSTM, 1.0)],
                         ids=["bigram", "lstm"])
def test_any_model_from_tokens_to_logits_learns(make, improvement):
    torch.manual_seed(0)
    settings = {"max_steps": 60, "batch_size": 16, "learning_rate": 0.03, "eval_interval": 30}
    history = run(make(), **settings).history
    assert history[0]["val_loss"] == pytest.approx(math.log(V), abs=0.2)
    assert history[-1]["val_loss"] < history[0]["val_loss"] - improvement
    assert history[-1]["val_acc"] > history[0]["val_acc"] + 0.1


@pytest.mark.parametrize("name", ["train_ids", "val_ids"])
def test_a_short_split_is_named_before_training_begins(tmp_path, name):
    model = Bigram(V)
    split = {"train_ids": "training", "val_ids": "validation"}[name]
    message = f"the {split} split has 8 tokens, but windows of block_size=8 need at least 9"
    with pytest.raises(DataError, match=message):
        run(model, out_dir=tmp_path, **{name: IDS[:8]})
    assert not model.table.weight.any()
    assert list(tmp_path.iterdir()) == []


# Batches from a function --------------------------------------------------------------------------

def test_batches_from_a_function_train_exactly_like_tokens(gpt):
    from_tokens, from_function = gpt(), gpt()
    history = run(from_tokens).history
    val_batches = text_windows(VAL_IDS, BLOCK_SIZE)
    same_history = run(from_function, train_ids=window_batch, val_ids=val_batches).history
    assert without_seconds(same_history) == without_seconds(history)
    assert torch.equal(weights(from_function), weights(from_tokens))


def test_targets_of_minus_100_carry_no_loss():
    model, expected = random_bigram(), random_bigram()
    result = run(model, train_ids=batch_with_few_targets, learning_rate=0.01, min_lr=0.01,
                 weight_decay=0.1, grad_clip=0.0, eval_interval=1)
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.01, betas=(0.9, 0.99),
                                  weight_decay=0.1)
    for step in range(6):
        loss, accuracy = loss_by_hand(expected, batch_with_few_targets(step))
        row = result.history[step + 1]
        assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert row["train_acc"] == pytest.approx(accuracy, rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("empty_step", [0, 3])
def test_a_training_batch_without_targets_is_an_error(tmp_path, empty_step):
    def batches(step):
        x, y = window_batch(step)
        return (x, torch.full_like(y, NO_TARGET)) if step == empty_step else (x, y)

    with pytest.raises(DataError) as error:
        run(Bigram(V), train_ids=batches, out_dir=tmp_path)
    assert str(error.value) == (
        f"step {empty_step + 1}: the batch has no targets, because all of them are -100"
    )
    # Nothing of the failing step is in the metrics: no loss is nan.
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


def test_validation_batches_without_targets_are_an_error():
    x, y = window_batch(0)
    val_batches = [(x, torch.full_like(y, NO_TARGET))] * 2
    message = "^the validation batches have no targets, because all of them are -100$"
    with pytest.raises(DataError, match=message):
        run(Bigram(V), val_ids=val_batches)


def test_a_document_mask_reaches_the_model_in_training_and_in_evaluation(tiny):
    batch = batch_with_documents(0)
    result = run(tiny(vocab_size=V), train_ids=batch_with_documents, val_ids=[batch])
    model = tiny(vocab_size=V)
    loss, accuracy = loss_by_hand(model, batch)
    first = result.history[0]
    assert first["train_loss"] == first["val_loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert first["train_acc"] == first["val_acc"] == pytest.approx(accuracy, rel=1e-6)
    without_mask, _ = loss_by_hand(model, batch[:2])
    assert abs(without_mask.item() - loss.item()) > 0.01


# The history --------------------------------------------------------------------------------------

def test_the_history_has_a_row_for_each_evaluation_and_for_the_last_step(gpt):
    history = run(gpt(), max_steps=5).history
    assert [row["step"] for row in history] == [0, 2, 4, 5]
    assert history[-1]["tokens"] == 5 * 4 * BLOCK_SIZE
    assert set(history[-1]) == {
        "step", "tokens", "seconds", "lr", "train_loss", "val_loss", "train_acc", "val_acc",
    }


def test_the_validation_loss_covers_the_whole_split(gpt):
    model = gpt()
    last = run(model).history[-1]
    assert (last["val_loss"], last["val_acc"]) == evaluate(model, VAL_IDS, BLOCK_SIZE)


@pytest.mark.parametrize("name", ["train_loss", "train_acc"])
def test_the_train_loss_is_the_mean_over_the_batches_since_the_last_evaluation(gpt, name):
    every_second = {row["step"]: row[name] for row in run(gpt(), eval_interval=2).history}
    every = {row["step"]: row[name] for row in run(gpt(), eval_interval=1).history}
    assert every_second[4] == pytest.approx((every[3] + every[4]) / 2, rel=1e-12)


def test_train_and_validation_loss_agree_on_one_window_without_dropout():
    model = random_bigram()
    model.table.weight.data[IDS[0], IDS[1]] = 9.0
    last = run(model, train_ids=IDS[:9], val_ids=IDS[:9], learning_rate=1e-12).history[-1]
    assert last["train_loss"] == pytest.approx(last["val_loss"], rel=1e-6)
    assert last["train_acc"] == pytest.approx(last["val_acc"])
    assert last["val_acc"] > 0


def test_the_best_evaluation_is_the_first_with_the_lowest_validation_loss():
    history = [{"val_loss": 2.0}, {"val_loss": 1.0, "step": 2}, {"val_loss": 1.0, "step": 3}]
    assert TrainResult(history).best["step"] == 2


# Files --------------------------------------------------------------------------------------------

def test_metrics_have_one_line_for_each_evaluation(gpt, tmp_path):
    path = tmp_path / "metrics.jsonl"
    # What a run left that was killed before its first step.
    path.write_text('{"step": 0}\n', encoding="utf-8")
    history = run(gpt(), out_dir=tmp_path).history
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == history


def test_a_run_saves_its_best_model_its_last_model_and_its_metrics(gpt, tmp_path):
    model, folder = gpt(), tmp_path / "new/run"
    result = run(model, out_dir=folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "best.json", "best.safetensors", "last.json", "last.safetensors", "metrics.jsonl",
    ]
    last_model, tokenizer = load_model(folder / "last.safetensors")
    assert torch.equal(weights(last_model), weights(model))
    assert tokenizer.alphabet == TOKENIZER.alphabet
    about = read_header(folder / "last.safetensors")["about"]
    assert about["step"] == 6
    assert about["run"]["max_steps"] == 6
    assert read_header(folder)["about"]["history"][-1] == result.best


def test_best_is_the_model_with_the_lowest_validation_loss_not_the_last_one(tmp_path):
    model = Bigram(V)

    def spoil_after_step_4(row):
        if row["step"] == 4:
            model.table.weight.data.normal_(std=20)

    result = run(model, on_eval=spoil_after_step_4, out_dir=tmp_path, learning_rate=0.03)
    best_model, _ = load_model(tmp_path)
    assert read_header(tmp_path)["about"]["step"] == result.best["step"] == 4
    best_loss, _ = evaluate(best_model, VAL_IDS, BLOCK_SIZE)
    assert best_loss == result.best["val_loss"] < result.history[-1]["val_loss"]


def test_without_a_folder_nothing_is_written(gpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(gpt())
    assert list(tmp_path.iterdir()) == []


# Losses that are not finite -----------------------------------------------------------------------

@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_train_loss_that_is_not_finite_stops_the_run_and_preserves_the_best_model(
    tmp_path, value
):
    model = Bigram(V)
    best_path = tmp_path / "best.safetensors"
    best_bytes = []

    def spoil_after_step_4(row):
        if row["step"] == 4:
            best_bytes.append(best_path.read_bytes())
            model.table.weight.data.fill_(value)

    message = r"^step 5: the loss is nan .* most likely the learning rate is too high"
    with pytest.raises(NonFiniteLoss, match=message):
        run(model, on_eval=spoil_after_step_4, out_dir=tmp_path, learning_rate=0.03)
    assert [best_path.read_bytes()] == best_bytes
    assert read_header(tmp_path)["about"]["step"] == 4


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path):
    class NanInEvaluation(Bigram):
        def forward(self, idx):
            logits = super().forward(idx)
            untrained = not self.table.weight.any()
            return logits if self.training or untrained else logits * math.nan

    with pytest.raises(NonFiniteLoss, match="^step 2: the validation loss is nan"):
        run(NanInEvaluation(V), out_dir=tmp_path)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


# Interrupts (see also test_resume.py) -------------------------------------------------------------

def interrupt_at_step(step):
    """Return a function for `on_eval` that interrupts the run at the evaluation of a step."""
    def on_eval(row):
        if row["step"] == step:
            raise KeyboardInterrupt
    return on_eval


def test_an_interrupted_run_has_its_best_and_its_last_model(tmp_path):
    model = Bigram(V)
    result = run(model, on_eval=interrupt_at_step(4), out_dir=tmp_path)
    assert result.interrupted
    assert result.history[-1]["step"] == 4
    last_model, _ = load_model(tmp_path / "last.safetensors")
    assert torch.equal(weights(last_model), weights(model))
    assert read_header(tmp_path)["about"]["step"] == 4


def test_a_completed_run_is_not_interrupted():
    assert not run(Bigram(V)).interrupted


def test_an_interrupt_is_reported_with_the_folder_of_the_model(tmp_path, capsys):
    run(Bigram(V), on_eval=interrupt_at_step(4), out_dir=tmp_path, progress=True)
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line == f"interrupted after step 4 of 6; the model is in {tmp_path.name}"


def test_an_interrupt_without_a_folder_is_reported_without_one(capsys):
    run(Bigram(V), on_eval=interrupt_at_step(4), progress=True)
    assert capsys.readouterr().out.splitlines()[-1] == "interrupted after step 4 of 6"


def test_an_interrupt_is_not_reported_without_progress(tmp_path, capsys):
    assert run(Bigram(V), on_eval=interrupt_at_step(4), out_dir=tmp_path).interrupted
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_does_not_change_the_global_random_generator():
    model, state = Bigram(V), torch.get_rng_state()
    run(model, on_eval=interrupt_at_step(0))
    assert torch.equal(torch.get_rng_state(), state)


# Progress -----------------------------------------------------------------------------------------

def test_each_evaluation_is_reported_in_one_line(gpt, capsys):
    run(gpt(), max_steps=20, eval_interval=10, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"T\+ 0:00:\d\d - step 10/20: train loss \d\.\d{4}, val loss \d\.\d{4}; "
        r"train acc 0\.\d{4}, val acc 0\.\d{4}; t_remain 0:00:\d\d",
        lines[-2],
    )
    assert " - step 20/20: " in lines[-1]
    assert lines[-1].endswith("t_remain 0:00:00")


def test_without_progress_nothing_is_printed(gpt, capsys):
    run(gpt())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("step", "max_steps", "elapsed", "beginning", "remaining"), [
    (7270, 7270, 2266.2, "T+ 0:37:46 - step 7270/7270", "0:00:00"),
    (50, 2000, 90, "T+ 0:01:30 - step   50/2000", "0:58:30"),
    (0, 10, 3, "T+ 0:00:03 - step  0/10", "unknown"),
])
def test_the_line_has_the_format_of_shakegpt(step, max_steps, elapsed, beginning, remaining):
    losses = {"train_loss": 1.58661, "val_loss": 1.75308, "train_acc": 0.39961, "val_acc": 0.36249}
    assert log_line({"step": step} | losses, max_steps, elapsed) == (
        f"{beginning}: train loss 1.5866, val loss 1.7531; train acc 0.3996, val acc 0.3625; "
        f"t_remain {remaining}"
    )


# The learning rate --------------------------------------------------------------------------------

SCHEDULE = {"max_steps": 100, "batch_size": 4, "learning_rate": 1e-3, "min_lr": 1e-4}


def learning_rates(n_steps=100, **settings):
    """Return the learning rates of the first steps."""
    config = TrainConfig(**SCHEDULE | settings)
    return [learning_rate(config, step, BLOCK_SIZE) for step in range(n_steps)]


def test_the_warm_up_is_linear():
    expected = [1e-3 * n / 20 for n in range(1, 21)]
    assert learning_rates(20, warmup=20) == pytest.approx(expected, rel=1e-12)


def test_the_decay_is_half_a_cosine_that_ends_at_the_last_step():
    rates = learning_rates(warmup=20)
    cosines = [math.cos(math.pi * (n - 20) / 80) for n in range(20, 101)]
    expected = [1e-4 + 9e-4 * (1 + cosine) / 2 for cosine in cosines]
    assert rates[19:] == pytest.approx(expected, rel=1e-12)
    assert rates[19] == pytest.approx(1e-3, rel=1e-12)
    assert rates[59] == pytest.approx(5.5e-4, rel=1e-12)
    assert rates[-1] == 1e-4


def test_the_learning_rate_stays_at_its_minimum_after_lr_decay():
    rates = learning_rates(warmup=0, lr_decay=50)
    assert rates[48] > 1e-4
    assert rates[49:] == 51 * [1e-4]


@pytest.mark.parametrize("lr_decay", [0, 60])
def test_a_schedule_in_tokens_equals_the_same_schedule_in_steps(lr_decay):
    tokens = SCHEDULE["batch_size"] * BLOCK_SIZE
    in_steps = learning_rates(warmup=20, lr_decay=lr_decay)
    in_tokens = learning_rates(warmup=20 * tokens, lr_decay=lr_decay * tokens, lr_unit="tokens")
    assert in_tokens == pytest.approx(in_steps, rel=1e-12)


def test_without_a_warm_up_the_learning_rate_only_falls():
    rates = learning_rates(warmup=0)
    assert rates == sorted(rates, reverse=True)


def test_the_history_has_the_learning_rate_of_the_last_step():
    settings = {"max_steps": 4, "warmup": 2, "learning_rate": 1e-3, "eval_interval": 1}
    history = run(Bigram(V), **settings).history
    expected = [5e-4, 1e-3, 5e-4, 0.0]
    assert [row["lr"] for row in history[1:]] == pytest.approx(expected, rel=1e-12)


def test_a_step_with_learning_rate_0_changes_nothing():
    model = Bigram(V)
    # The cosine reaches 0 at the last step, which is the only one here.
    run(model, max_steps=1, min_lr=0.0, learning_rate=1.0)
    assert not model.table.weight.any()


# The optimizer ------------------------------------------------------------------------------------

def test_weight_decay_acts_on_matrices_and_not_on_vectors(tiny):
    model = tiny(bias=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    make_optimizer(model, TrainConfig(learning_rate=0.1, weight_decay=0.5)).step()
    for name, p in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if p.ndim >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("tie_weights", [True, False])
def test_the_optimizer_has_every_parameter_exactly_once(tiny, tie_weights):
    model = tiny(bias=True, tie_weights=tie_weights)
    groups = make_optimizer(model, TrainConfig()).param_groups
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))


def test_the_betas_of_the_config_reach_the_optimizer(tiny):
    optimizer = make_optimizer(tiny(), TrainConfig(beta1=0.8, beta2=0.9))
    assert all(group["betas"] == (0.8, 0.9) for group in optimizer.param_groups)


def test_the_optimizer_is_the_one_that_the_given_function_makes():
    calls = []

    def make_sgd(model, config):
        calls.append((model, config.beta1))
        return torch.optim.SGD(model.parameters(), lr=99.0)

    model, expected = random_bigram(), random_bigram()
    run(model, optimizer=make_sgd, learning_rate=0.5, min_lr=0.5, grad_clip=0.0, beta1=0.3)
    assert calls == [(model, 0.3)]
    for step in range(6):
        loss, _ = loss_by_hand(expected, window_batch(step))
        gradient, = torch.autograd.grad(loss, expected.parameters())
        expected.table.weight.data -= 0.5 * gradient
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-5, atol=1e-6)


def weight_penalty(model):
    return 0.1 * model.table.weight.square().sum()


def test_an_extra_loss_adds_its_gradient():
    def make_sgd(model, config):
        return torch.optim.SGD(model.parameters(), lr=config.learning_rate)

    model, expected = random_bigram(), random_bigram()
    run(model, optimizer=make_sgd, extra_loss=weight_penalty, max_steps=1, learning_rate=0.5,
        min_lr=0.5, grad_clip=0.0)
    loss, _ = loss_by_hand(expected, window_batch(0))
    gradient, = torch.autograd.grad(loss, expected.parameters())
    gradient += 0.2 * expected.table.weight.detach()
    updated = expected.table.weight.data - 0.5 * gradient
    torch.testing.assert_close(model.table.weight.data, updated, rtol=1e-5, atol=1e-6)


def test_the_history_does_not_contain_the_extra_loss():
    # The learning rate is too small to change a weight, so that only the loss itself could differ.
    settings = {"learning_rate": 1e-12, "eval_interval": 1}
    without_extra = run(random_bigram(), **settings).history
    with_extra = run(random_bigram(), extra_loss=weight_penalty, **settings).history
    assert without_seconds(with_extra) == without_seconds(without_extra)


def test_an_extra_loss_is_computed_after_the_forward_pass():
    class Remembering(Bigram):
        def forward(self, idx):
            self.mean = super().forward(idx).mean()
            return super().forward(idx)

    means = []

    def extra_loss(model):
        means.append(model.mean)
        return model.mean

    run(Remembering(V), extra_loss=extra_loss)
    assert len(means) == 6
    assert all(mean.requires_grad for mean in means)


@pytest.mark.parametrize("grad_clip", [1e-12, 0.0])
def test_clipping_bounds_the_norm_of_the_gradient_and_0_means_no_bound(grad_clip):
    model = Bigram(V)
    run(model, max_steps=1, grad_clip=grad_clip)
    norm = model.table.weight.grad.norm()
    if grad_clip:
        assert norm <= 1.01 * grad_clip
    else:
        assert norm > 1e-3


# The device ---------------------------------------------------------------------------------------

def test_a_device_is_used_as_named_and_auto_finds_one():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99"])
def test_a_device_that_is_not_available_is_an_error(name):
    message = f"device='{name}' is not available on this machine: choose 'auto', 'cpu'"
    with pytest.raises(ConfigError, match=message):
        pick_device(name)


# The dtype of products ----------------------------------------------------------------------------

SLOW_BFLOAT16 = {torch.float32: 1.0, torch.bfloat16: 0.95}
FAST_BFLOAT16 = {torch.float32: 1.0, torch.bfloat16: 0.5}


def pretend_amx(monkeypatch, seconds):
    """Let the CPU seem to have AMX, and let a step take so many seconds by dtype."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    module = import_module("gptlib.train")      # gptlib.train is also the name of a function
    real = module.time_step

    def time_step(model, batch, dtype):
        real(model, batch, dtype)
        return seconds[dtype]

    monkeypatch.setattr(module, "time_step", time_step)


@pytest.mark.parametrize("seconds, expected", [
    (FAST_BFLOAT16, torch.bfloat16), (SLOW_BFLOAT16, torch.float32)], ids=["fast", "slow"])
def test_auto_measures_whether_a_cpu_is_faster_with_bfloat16(monkeypatch, seconds, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick_dtype("auto", "cpu", seconds.get) == expected


def test_nothing_is_measured_where_the_cpu_cannot_multiply_bfloat16(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert pick_dtype("auto", "cpu", time_step=None) == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_dtype_that_is_named_is_not_measured(monkeypatch, name):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick_dtype(name, "cpu", time_step=None) == getattr(torch, name)


@pytest.mark.parametrize("seconds, dtype", [
    (FAST_BFLOAT16, "bfloat16"), (SLOW_BFLOAT16, "float32")], ids=["fast", "slow"])
def test_the_measurement_of_the_dtype_changes_nothing_else(monkeypatch, seconds, dtype):
    named = TinyLSTM()
    measured = TinyLSTM()
    measured.load_state_dict(named.state_dict())
    expected = run(named, dtype=dtype).history
    pretend_amx(monkeypatch, seconds)
    history = run(measured, dtype="auto").history
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in expected]
    assert [row["train_loss"] for row in history] == [row["train_loss"] for row in expected]


def test_a_resumed_run_keeps_the_dtype_that_it_began_with(monkeypatch, tmp_path, capsys):
    def start(model, **options):
        return train(model, IDS, VAL_IDS, BLOCK_SIZE, TrainConfig(**SETTINGS), **options)

    torch.manual_seed(0)
    whole, stopped = TinyLSTM(), TinyLSTM()
    stopped.load_state_dict(whole.state_dict())
    pretend_amx(monkeypatch, FAST_BFLOAT16)
    expected = start(whole, progress=True).history
    assert "products are computed in bfloat16" in capsys.readouterr().out
    calls = iter([False] * 3)
    start(stopped, out_dir=tmp_path, stop=lambda: next(calls, True), progress=False)
    pretend_amx(monkeypatch, SLOW_BFLOAT16)
    history = start(stopped, out_dir=tmp_path, resume="auto", progress=False).history
    assert [row["val_loss"] for row in history] == [row["val_loss"] for row in expected]
    assert read_header(tmp_path / "last.safetensors")["about"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("rare", [-1, 5])
def test_a_token_that_the_model_does_not_know_is_refused_before_the_first_step(rare):
    model = Bigram(5)
    ids = torch.arange(10_000) % 5
    with_rare = ids.clone()
    with_rare[7_000] = rare
    config = TrainConfig(max_steps=1, batch_size=1, eval_interval=1)
    with pytest.raises(ValueError, match="but the model knows 0 … 4"):
        train(model, with_rare, ids[:50], 4, config, progress=False)
