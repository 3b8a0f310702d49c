"""Windows that hand each other a context: causal, each target once, the same with a cache, and a memory only where there should be one."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from gptlib import GPT, CharTokenizer, GPTConfig, TrainConfig, evaluate, generate, generate_text, load_checkpoint, save_checkpoint, train
from gptlib.config import ConfigError
from gptlib.context_rolling import RollingConfig, RollingGPT, make_model, token_losses, with_memory
from gptlib.courier import Courier, answer_kinds, courier_losses, courier_scores, train_on_courier
from gptlib.model import causality_gap, evaluating

W = 4
VARIANTS = {
    "mean": {}, "last": {"memory": "last"}, "memory token": {"memory": "tokens"}, "3 memory tokens": {"memory": "tokens", "n_memory": 3},
    "none": {"memory": "none"}, "detached": {"detach": True}, "rescaled": {"rescale": True},
    "tied": {"tie_weights": True, "bias": True}, "sinusoidal": {"position": "sinusoidal"}, "no positions": {"position": "none"},
    "Toeplitz": {"attention": "toeplitz"}, "shifted": {"token_shift": True}}
each_variant = pytest.mark.parametrize("how", VARIANTS.values(), ids=VARIANTS)
REMEMBER = [name for name in VARIANTS if name != "none"]


def rolling(**how):
    """A small model with large weights, in double precision, so that all of it matters and rounding does not."""
    torch.manual_seed(0)
    model = RollingGPT(RollingConfig(**{"vocab_size": 11, "block_size": 5 * W, "n_layer": 2, "n_head": 2, "n_embd": 12, "window": W} | how))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model.double()


def tokens(B, T, seed=0):
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(seed))


def by_hand(model, idx):
    """Logits by the blocks alone: each token's from its window's beginning up to it, one row at a time."""
    c, said = model.config, []

    def states(window, context, written):
        x = torch.cat([context, *(model.token_embedding.weight[token][None] for token in window), *written])[None]
        x = model.positions(x)
        for block in model.blocks:
            x = block(x)
        return model.final_norm(x)[0]

    for row in idx.tolist():
        context = model.memory if c.memory == "tokens" else torch.zeros(1, c.n_embd).double()
        for window in (row[k:k + W] for k in range(0, len(row), W)):
            said += [states(window[:t + 1], context, [])[-1] for t in range(len(window))]
            h = states(window, context, [model.memory] if c.memory == "tokens" else [])
            context = {"mean": h[1:].mean(0, keepdim=True), "last": h[-1:], "tokens": h[c.n_memory + W:], "none": 0 * h[:1]}[c.memory]
            if c.rescale:
                context = context / context.norm() * model.token_embedding.weight.norm(dim=1).mean()
    return torch.stack(said).view(*idx.shape, -1) @ (model.token_embedding.weight if model.head is None else model.head.weight).T


@each_variant
@pytest.mark.parametrize("T", [W - 1, 2 * W, 3 * W + 1])
def test_logits_are_those_of_windows_read_one_after_the_other(how, T):
    model, idx = rolling(**how), tokens(2, T)
    assert_close(model(idx), by_hand(model, idx))


@each_variant
def test_no_position_sees_what_comes_after_it_in_any_window(how):
    model = rolling(**how)
    for position in (1, W - 1, W, W + 1, 2 * W - 1, 2 * W, 3 * W + 1):
        assert causality_gap(model, tokens(2, 4 * W - 1) % 5, position) == 0


def changed(model, at):
    """Per window, how far the logits move when the token `at` is replaced."""
    idx = tokens(1, 4 * W)
    edited = idx.clone()
    edited[:, at] = (edited[:, at] + 1) % 11
    with evaluating(model):
        return (model(edited) - model(idx)).abs().view(4, -1).amax(1)


@pytest.mark.parametrize("name", REMEMBER)
def test_a_change_in_the_first_window_is_felt_in_all_later_ones(name):
    assert (changed(rolling(**VARIANTS[name]), at=1) > 1e-6).all()


def test_without_memory_no_window_feels_another():
    assert (changed(rolling(memory="none"), at=1) > 0).tolist() == [True, False, False, False]


def test_the_mean_is_over_the_tokens_and_leaves_the_context_s_own_place_out():
    model, idx = rolling(), tokens(3, W)
    hidden, context = model.read(idx, torch.full((3, 1, 12), 7.0).double())
    assert hidden.shape == (3, W, 12)
    assert_close(context, hidden.mean(1, keepdim=True))


def test_rescaled_a_context_is_as_long_as_a_token_s_vector_is_on_average():
    model = rolling(rescale=True)
    _, context = model.read(tokens(3, W), model.start(3))
    assert_close(context.norm(dim=-1), model.token_embedding.weight.norm(dim=-1).mean().expand(3, 1))
    assert_close(F.cosine_similarity(context, rolling().read(tokens(3, W), model.start(3))[1], dim=-1), torch.ones(3, 1).double())


# Each target once -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how, N", [(how, 7 * W + 2) for how in VARIANTS.values()] + [({}, 5 * W + 1), ({}, 5 * W + 2), ({}, 10 * W + 1)])
def test_evaluation_scores_each_token_but_the_first_once(how, N):
    """Windows of W in examples of 5 W: the sum by hand over every token, each after all that its example holds before it."""
    model, ids = rolling(**how), tokens(1, N)[0]
    nats = 0.0
    for begin in range(0, N - 1, 5 * W):
        example = ids[begin:begin + 5 * W + 1]
        logp = by_hand(model, example[None, :-1])[0].log_softmax(-1)
        nats -= sum(logp[t, example[t + 1]].item() for t in range(len(example) - 1))
    loss, _ = evaluate(model, ids, 5 * W)
    assert loss == pytest.approx(nats / (N - 1), rel=1e-9)


def test_losses_of_one_pass_are_those_of_its_windows():
    model, idx = rolling(), tokens(2, 3 * W + 3)
    losses, context, summed = token_losses(model, idx), model.start(2), 0.0
    for k in range(0, 3 * W + 2, W):
        window, targets = idx[:, k:k + W], idx[:, k + 1:k + W + 1]
        hidden, context = model.read(window[:, :targets.shape[1]], context)
        summed += F.cross_entropy((hidden @ model.head.weight.T).flatten(0, 1), targets.flatten(), reduction="sum")
    assert losses.shape == (2, 3 * W + 2)
    assert_close(losses.sum(), summed)


# Borders stay ---------------------------------------------------------------------------------------------------------

@each_variant
def test_a_longer_text_changes_nothing_before_its_end(how):
    model, idx = rolling(**how), tokens(2, 3 * W)
    whole = model(idx)
    for T in range(1, 3 * W):
        assert_close(model(idx[:, :T]), whole[:, :T])


@each_variant
@pytest.mark.parametrize("T", [1, W, 2 * W + 3])
def test_logits_are_the_same_with_a_cache(how, T):
    """The prompt at once, then one by one, over two borders or three."""
    model, idx = rolling(**how), tokens(2, T + 2 * W)
    cache = model.new_cache()
    with evaluating(model):
        said = [model(idx[:, :T], cache), *(model(idx[:, t:t + 1], cache) for t in range(T, T + 2 * W))]
        assert_close(torch.cat(said, dim=1), model(idx))


def test_a_cache_goes_on_with_any_number_of_tokens():
    model, idx = rolling(), tokens(2, 23)
    cache = model.new_cache()
    with evaluating(model):
        assert_close(torch.cat([model(part, cache) for part in idx.split([3, 1, 6, 9, 4], dim=1)], dim=1), model(idx))


@each_variant
@pytest.mark.parametrize("T", [W, 2 * W + 1])
def test_cached_generation_writes_the_same_greedily(how, T):
    model, expected = rolling(**how), tokens(2, T)
    for _ in range(3 * W):
        expected = torch.cat([expected, model(expected)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generate(model, tokens(2, T), 3 * W, temperature=0), expected)
    assert torch.equal(generate(model, tokens(2, T), 3 * W, temperature=0, cache=False), expected)


@pytest.mark.parametrize("how", [{}, {"memory": "tokens", "n_memory": 3}], ids=["mean", "memory tokens"])
@pytest.mark.parametrize("T", [1, W - 1, W, W + 1, 6 * W])
def test_cached_generation_writes_the_same_from_a_seed(how, T):
    model, sampling = rolling(**how), {"seed": 3, "temperature": 0.8, "top_k": 6}
    cached = generate(model, tokens(2, T), 3 * W, **sampling)
    assert torch.equal(cached, generate(model, tokens(2, T), 3 * W, cache=False, **sampling))


def test_text_is_written_beyond_a_block_without_forgetting_its_beginning():
    model, tokenizer = rolling(), CharTokenizer("abcdefghijk")
    text = "abc" * 10
    for _ in range(9):
        text += tokenizer.decode(model(torch.tensor([tokenizer.encode(text)]))[0, -1:].argmax(-1))
    assert generate_text(model, tokenizer, "abc" * 10, 9, temperature=0) == text[30:]


@pytest.mark.parametrize("how, extra", [({}, 1), ({"memory": "last"}, 1), ({"memory": "tokens", "n_memory": 3}, 6)])
def test_each_token_goes_through_the_blocks_once_however_long_the_text(how, extra):
    """And for each window the vectors that it is handed, and its memory tokens."""
    model, vectors = rolling(**how), []
    model.blocks[0].register_forward_hook(lambda block, args, output: vectors.append(args[0].shape[1]))
    for windows in (10, 40):
        vectors.clear()
        generate(model, tokens(1, 1), windows * W, temperature=0)
        assert sum(vectors) == windows * (W + extra)


def test_prompts_of_different_lengths_are_each_continued_from_their_own_windows():
    model, prompts = rolling(), [tokens(1, 5)[0], tokens(1, 9)[0]]
    rows = generate(model, prompts, 9, seed=0)                              # their borders differ, so without a cache
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        assert torch.equal(row, generate(model, prompt[None], 9, seed=i)[0])


# Gradients ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", REMEMBER)
def test_gradients_run_through_all_windows_unless_they_are_detached(name):
    """Token 10 stands in the first window alone; does its vector learn from the loss of the third?"""
    model = rolling(**VARIANTS[name])
    idx = tokens(1, 3 * W) % 10
    idx[0, 1] = 10
    token_losses(model, idx)[:, -W + 1:].sum().backward()
    reached = model.token_embedding.weight.grad[10].abs().max()
    if name == "detached":
        assert reached == 0
    elif name != "tied":                                                    # tied, it is also a possible next token
        assert reached > 1e-9
    assert model.token_embedding.weight.grad[idx[0, -2]].abs().max() > 0


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "none"])
def test_every_parameter_learns(name):
    model = rolling(**VARIANTS[name])
    token_losses(model, tokens(8, 4 * W)).mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())


# An experiment's hook ---------------------------------------------------------------------------------------------------

def test_with_its_context_put_to_zero_each_window_is_read_like_the_first():
    model, idx = rolling(), tokens(2, 3 * W)
    assert_close(model(idx, edit=torch.zeros_like), torch.cat([model(window) for window in idx.split(W, dim=1)], dim=1))


def test_with_another_s_context_each_window_is_read_after_the_other_text():
    model, a, b = rolling(), tokens(1, W, seed=1), tokens(1, W, seed=2)
    swapped = model(torch.cat([torch.cat([a, a], 1), torch.cat([b, a], 1)]), edit=lambda context: context.flip(0))
    assert_close(swapped[0, W:], model(torch.cat([b, a], 1))[0, W:])


# The rest of the library ------------------------------------------------------------------------------------------------

IDS = torch.arange(600) ** 2 % 7


def trained(out_dir, how, **settings):
    torch.manual_seed(0)
    model = RollingGPT(RollingConfig(vocab_size=7, block_size=3 * W, n_layer=1, n_head=2, n_embd=8, window=W, dropout=0.1, **how))
    config = TrainConfig(max_steps=12, batch_size=4, learning_rate=1e-2, warmup=3, eval_interval=4, seed=3, device="cpu")
    tokenizer = CharTokenizer("abcdefg")
    return model, train(model, IDS[:500], IDS[500:], 3 * W, config, out_dir=out_dir, tokenizer=tokenizer, progress=False, **settings)


@pytest.mark.parametrize("name", ["mean", "memory token"])
def test_it_trains_stops_and_goes_on_as_if_it_had_never_stopped(name, tmp_path):
    def stop(row):
        if row["step"] == 8:
            raise KeyboardInterrupt

    how = VARIANTS[name]
    assert trained(tmp_path / "a", how, on_eval=stop)[1].interrupted
    model, result = trained(tmp_path / "a", how, resume="auto")
    unbroken, other = trained(tmp_path / "b", how)
    assert [row["val_loss"] for row in result.history] == [row["val_loss"] for row in other.history]
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), unbroken.state_dict().values(), strict=True))
    assert result.history[-1]["val_loss"] < result.history[0]["val_loss"]


@each_variant
def test_a_checkpoint_brings_it_back_to_the_bit(how, tmp_path):
    model, idx = rolling(**how).float().eval(), tokens(2, 3 * W + 1)
    save_checkpoint(tmp_path / "a.safetensors", model, CharTokenizer("abcdefghijk"))
    again = load_checkpoint(tmp_path / "a.safetensors").model
    assert type(again) is RollingGPT and again.config == model.config
    assert torch.equal(again(idx), model(idx))


def test_picogpt_s_shape_has_the_published_parameters_and_129_places():
    config = RollingConfig(vocab_size=88, block_size=1280, window=128, n_layer=8, n_head=8, n_embd=256, bias=True, tie_weights=True)
    with torch.device("meta"):
        table = RollingGPT(config).parameter_table()
    assert table["positions"] == 129 * 256
    assert table["total"] - table["positions"] == 6_341_120


@pytest.mark.parametrize("how, said", [
    ({"block_size": 100}, "block_size=100 should be a multiple of window=32, such as 96"),
    ({"window": 0}, "window=0 should be at least 1"), ({"n_memory": 0}, "n_memory=0 should be at least 1"),
    ({"block_size": 20}, "block_size=20 should be a multiple of window=32, such as 32"),
    ({"memory": "max"}, "memory='max' should be one of 'mean', 'last', 'tokens', 'none'"),
    ({"n_memory": 2}, "n_memory=2 should be 1 for memory='mean'"), ({"n_embd": 30}, "n_embd=30 should be a multiple of n_head=4")])
def test_an_impossible_shape_is_refused(how, said):
    with pytest.raises(ConfigError, match=said):
        RollingConfig(**{"vocab_size": 11, "block_size": 64} | how)


def test_one_word_decides_between_attention_to_the_whole_block_and_windows():
    config = GPTConfig(vocab_size=11, block_size=64, n_embd=16, bias=True)
    assert with_memory(config, "attention", 16) is config and type(make_model(config)) is GPT and make_model(config).config == config
    model = make_model(with_memory(config, "last", 16))
    assert type(model) is RollingGPT and model.config == RollingConfig(**asdict(config), window=16, memory="last")
    with pytest.raises(ConfigError, match="memory='lats' should be one of"):
        with_memory(config, "lats", 16)


def test_its_config_comes_back_as_a_dict():
    config = RollingConfig(vocab_size=11, window=16, memory="tokens", n_memory=2)
    assert RollingConfig(**asdict(config)) == config and RollingGPT(config).config_dict() == asdict(config)


# The courier ------------------------------------------------------------------------------------------------------------

COURIERS = {"plain": Courier(), "last window only": Courier(lags=1), "two facts": Courier(n_facts=2, body=6),
            "packed": Courier(3, 4, lags=1, body=8)}
each_courier = pytest.mark.parametrize("courier", COURIERS.values(), ids=COURIERS)


def reader(courier, text, remembers):
    """What each token costs someone who knows the rules and `remembers` so many windows: (n_windows, window) nats."""
    nats, past, before = torch.zeros(courier.n_windows, courier.window), [], None
    for k, window in enumerate(text.view(courier.n_windows, -1).tolist()):
        query, answer, blank, *body = window
        kind, asked = divmod(query - courier.n_values - 1 - courier.n_facts, courier.n_facts)
        assert blank == courier.n_values and 0 <= kind < courier.lags and (k != 1 or kind == 0)
        told = remembers and k and kind == 1 and before[0] == (0, asked)                        # and before[1] was the answer
        if k and kind < remembers or told:
            assert answer == past[k - 1 - kind][asked] and (not told or answer == before[1])
        else:
            nats[k, 1] = math.log(courier.n_values)
        facts, items = [], courier.body - courier.n_facts
        while body:
            token = body.pop(0)
            left = courier.n_facts - len(facts)
            chance = left / items if token != courier.n_values else 1 - left / items
            nats[k, courier.window - len(body) - 1] = -math.log(chance)
            items -= 1
            if token != courier.n_values:
                assert token == courier.n_values + 1 + len(facts)
                facts.append(body.pop(0))
                nats[k, courier.window - len(body) - 1] = math.log(courier.n_values)
        assert len(facts) == courier.n_facts and max(facts) < courier.n_values
        past.append(facts)
        before = (kind, asked), answer
    return nats


@each_courier
@pytest.mark.parametrize("remembers, name", [(2, "a perfect memory"), (1, "memory of one window"), (0, "no memory")])
def test_the_floors_are_what_readers_pay_who_know_the_rules(courier, remembers, name):
    texts = courier.batch(400, torch.Generator().manual_seed(1))
    paid = torch.stack([reader(courier, text, remembers) for text in texts])[:, 1:, 1:].mean((1, 2))
    noise = 4 * paid.std() / 20 + 1e-6                                      # of the body and of certain answers: none
    assert abs(paid.mean() - courier.floors()[name]) < noise
    assert paid.std() < 1e-6 or (name == "memory of one window" and courier.lags == 2)


def test_the_pilot_s_floors_come_out():
    assert [round(floor, 3) for floor in Courier().floors().values()] == [0.495, 0.52, 0.792]


@each_courier
def test_everything_drawn_is_uniform(courier):
    x = courier.batch(4000, torch.Generator().manual_seed(1)).view(4000, courier.n_windows, -1)
    shares = x[:, 2, 0].bincount()[-courier.lags * courier.n_facts:] / 4000
    assert_close(shares, torch.full_like(shares, 1 / len(shares)), rtol=0, atol=0.035)
    shares = x[:, :, 1].flatten().bincount() / (4000 * courier.n_windows)
    assert len(shares) == 8
    assert_close(shares, torch.full_like(shares, 1 / 8), rtol=0, atol=0.015)


def test_a_text_is_spelled_in_signs():
    text = torch.tensor([9 + 1, 5, 8, 9, 4, 8, 8, 8, 9 + 2, 4, 8, 8, 8, 9, 0, 8])
    assert Courier(n_windows=2).spell(text) == "a? 5 . a= 4 . . . | a! 4 . . . a= 0 ."


def test_losses_leave_the_questions_out_and_scores_the_first_window():
    courier = Courier()
    model = RollingGPT(RollingConfig(courier.vocab_size, block_size=32, n_layer=1, n_head=1, n_embd=8, window=8))
    x = courier.batch(5, torch.Generator().manual_seed(0))
    losses, every = courier_losses(model, courier, x), token_losses(model, x)
    assert losses.shape == (5, 4, 7)
    assert_close(losses[:, 0], every[:, :7])
    assert_close(losses[:, 2], every[:, 16:23])                             # token 17, an answer, is the first of window 2 here
    model.head.weight.data.zero_()
    scores = courier_scores(model, courier, n=50)
    assert all(score == pytest.approx(math.log(courier.vocab_size), rel=1e-5) for score in scores.values())


def test_one_and_two_windows_back_are_told_apart():
    """A GPT over all tokens that is certain of the last window's fact is right on one kind of question only."""
    courier = Courier()

    class LastFact(torch.nn.Module):
        def forward(self, idx):
            facts = torch.zeros_like(idx)
            for t in range(idx.shape[1]):
                seen = idx[:, :t // 8 * 8]
                place = (seen == 9).int().cumsum(1).argmax(1) if t >= 8 else None
                facts[:, t] = 0 if place is None else idx[torch.arange(len(idx)), place + 1]
            return 50.0 * F.one_hot(facts, courier.vocab_size)

    scores = courier_scores(LastFact(), courier, n=200)
    assert scores["one back"] < 1e-6 < 30 < min(scores["two back"], scores["told again"])


def test_answers_that_the_last_window_has_told_are_a_kind_of_their_own():
    courier = Courier()
    x = courier.batch(4000, torch.Generator().manual_seed(1))
    kinds = answer_kinds(courier, x)
    assert torch.stack(list(kinds.values())).sum(0).eq(1).all()
    answers = x.view(4000, 4, 8)[:, :, 1]
    assert answers[:, 1:][kinds["told again"]].equal(answers[:, :-1][kinds["told again"]])
    assert 0.05 < (answers[:, 1:] == answers[:, :-1])[kinds["two back"]].float().mean() < 0.20          # by chance, 1 in 8
    shares = {kind: mask.float().mean().item() for kind, mask in kinds.items()}
    assert shares == pytest.approx({"one back": 2 / 3, "told again": 1 / 4, "two back": 1 / 12}, abs=0.015)


def test_training_moves_it_and_the_curve_has_an_entry_a_step():
    courier = Courier(n_values=2)
    torch.manual_seed(0)
    model = GPT(GPTConfig(courier.vocab_size, block_size=32, n_layer=1, n_head=1, n_embd=8))
    curve = train_on_courier(model, courier, TrainConfig(max_steps=60, batch_size=16, learning_rate=1e-2, warmup=5))
    assert len(curve) == 60 and curve[-1] < 1.0 < 1.5 < curve[0]


# What is committed --------------------------------------------------------------------------------------------------------

MEASURED = json.loads((Path(__file__).parents[1] / "benchmarks/context_rolling.json").read_text(encoding="utf-8"))


def test_the_measurement_says_what_was_measured_and_its_floors_are_the_courier_s():
    assert {"measures", "corpus", "corpus_sha256", "date", "revision", "code", "rolling_code", "machine", "torch"} <= set(MEASURED)
    assert MEASURED["courier"]["floors"] == pytest.approx(Courier(**MEASURED["courier"]["rules"]).floors())
    assert MEASURED["text"]["window"] * MEASURED["text"]["windows"] == 256


@pytest.mark.parametrize("experiment", ["courier", "capacity", "text"])
def test_no_run_is_counted_twice(experiment):
    runs = [tuple(run.get(name) for name in ("corpus", "arm", "n_facts", "seed")) for run in MEASURED[experiment]["runs"]]
    assert len(set(runs)) == len(runs)


def test_no_courier_beats_the_floor_of_a_perfect_memory_and_memories_are_compared_at_equal_size():
    runs = MEASURED["courier"]["runs"]
    assert all(run["scores"]["all"] > MEASURED["courier"]["floors"]["a perfect memory"] - 0.005 for run in runs)
    parameters = {run["arm"]: run["parameters"] for run in runs}
    assert parameters["memory token"] == pytest.approx(parameters["mean"], rel=0.002)
