"""The widgets without a browser: buttons are clicked and fields are set from Python, with and without a running loop."""

import asyncio
import html
import json
import re
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets as W
import nbformat
import pytest
import torch
from safetensors.torch import save_file

from gptlib import Bigram, BPETokenizer, CharTokenizer, TrainConfig, generate_text, save_checkpoint, train
from gptlib.context_rolling import RollingConfig, RollingGPT
from gptlib.generate import next_token_probabilities
from gptlib.time_weighting import toeplitz
from gptlib.widgets import (
    AttentionExplorer,
    ContextViewer,
    MergeStepper,
    Sampler,
    TimeWeightViewer,
    TrainingBoard,
    attention_weights,
    find_checkpoints,
    panel,
)
from gptlib.widgets.board import RUNNING
from gptlib.widgets.merges import readable
from gptlib.widgets.panel import boxes, labels, on_axis, table
from gptlib.widgets.sampler import ended_before, stream_pieces

ALPHABET = " \nabcdefgh"        # 10 characters
TOKENIZER = CharTokenizer(ALPHABET)
BPE = BPETokenizer.train("low lower lowest newer wider " * 5, vocab_size=264)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures are made but not painted, which takes longer than all the rest; returns what paints."""
    paint = panel.image
    monkeypatch.setattr(panel, "image", lambda figure, alt: f'<img alt="{html.escape(alt)}">')
    return paint


@pytest.fixture
def models(tiny):
    return {"first": (tiny(vocab_size=10), TOKENIZER),
            "second": (tiny(vocab_size=10, n_layer=1, n_head=1, block_size=16), TOKENIZER)}


@pytest.fixture
def sampler(models, monkeypatch):
    for name in ("PACE", "REFRESH"):
        monkeypatch.setattr(f"gptlib.widgets.sampler.{name}", 0)
    return Sampler(models, prompt="abc", length=12)


@pytest.fixture
def board(tmp_path, tiny):
    ids = torch.arange(400) % 10
    config = TrainConfig(max_steps=8, eval_interval=3, batch_size=2, warmup=1, device="cpu")
    return TrainingBoard(tiny(vocab_size=10, dropout=0.2), ids, ids[:50], 8, config, out_dir=tmp_path, tokenizer=TOKENIZER,
                         levels={"bigram": 1.5, "floor": 0.5}, prompt="a")


def controls(widget):
    """All fields, sliders and buttons in it."""
    for child in getattr(widget, "children", ()):
        yield from controls(child)
    if isinstance(widget, (W.Button, W.ValueWidget)) and not isinstance(widget, W.HTML):
        yield widget


def written(sampler):
    """The text in the boxes, as the reader sees it."""
    return html.unescape(re.search('aria-label="sample: (.*?)"', sampler.text.value, re.DOTALL)[1])


def alert(panel):
    """What it complains of, in its picture's place or about its work."""
    found = re.search('role="alert".*?⚠ (.*?)</div>', panel.drawing.value + panel.status.value)
    return found and html.unescape(found[1])


def numbers(page):
    """What stands below the boxes."""
    return [html.unescape(number) for number in re.findall('<span style="font-size:9px">(.*?)</span>', page)]


def is_percent(printed, p):
    return p < 0.00501 if printed == "<1" else abs(float(printed) - 100 * p) < 0.501


# all of them

@pytest.fixture
def every(models, sampler, board, tiny):
    rolling = RollingGPT(RollingConfig(vocab_size=10, block_size=16, window=4, n_layer=1, n_head=2, n_embd=12))
    return [sampler, board, AttentionExplorer(models, "abc abc"), MergeStepper(BPE, "lowest"),
            TimeWeightViewer({"toeplitz": (tiny(vocab_size=10, attention="toeplitz"), TOKENIZER)}),
            ContextViewer({"rolling": (rolling.eval(), TOKENIZER)}, "abc abc abc")]


def test_every_control_has_a_name_and_waits_until_the_reader_lets_go(every):
    for widget in every:
        for control in controls(widget):
            slider = isinstance(control, (W.IntSlider, W.FloatSlider))
            assert control.description or slider, (widget, control)
            if hasattr(control, "continuous_update"):
                assert control.continuous_update is False, control


def test_every_slider_follows_a_field_with_a_name(sampler):
    fields = [c for c in controls(sampler) if isinstance(c, W.BoundedFloatText)]
    sliders = [c for c in controls(sampler) if isinstance(c, W.FloatSlider)]
    assert [f.description for f in fields] == ["Temperature", "Top-p (1: off)"]
    fields[0].value = 0.35
    assert sliders[0].value == 0.35
    sliders[0].value = 99
    assert fields[0].value == 2.0


def test_every_widget_leaves_html_and_text_where_no_kernel_runs(every):
    for widget in every:
        bundle = widget._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert bundle["text/plain"].startswith(type(widget).__name__)
        assert "run this page in JupyterLab" in bundle["text/html"] and len(bundle["text/html"]) > 130
        assert "<script" not in bundle["text/html"] and "⚠" not in bundle["text/html"]


def test_every_picture_is_shown_has_a_text_and_can_be_painted(every, undrawn):
    for widget in every:
        figure, alt = widget.picture()
        assert len(figure.axes) and len(alt) > 60
        assert f'alt="{html.escape(alt)}"' in widget.drawing.value
        assert re.fullmatch('<img style="max-width:100%" alt="[^"]+" src="data:image/png;base64,iVBOR[^"]{5000,}">', undrawn(figure, alt))


def test_the_playground_is_saved_with_a_page_s_worth_of_each_widget():
    page = nbformat.read(Path(__file__).parents[1] / "notebooks/playground.ipynb", as_version=4)
    outputs = [output for cell in page.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output]
    for name in ("TrainingBoard", "Sampler", "AttentionExplorer", "MergeStepper", "TimeWeightViewer", "ContextViewer"):
        place, = [i for i, output in enumerate(outputs) if f"<em>{name}: run this page" in output.data.get("text/html", "")]
        assert "⚠" not in outputs[place].data["text/html"]
        assert "image/png" in outputs[place + 1].data and len(outputs[place + 1].metadata["image/png"]["alt"]) > 60


class Page(HTMLParser):
    """The names of a page's elements, and all that their attributes and texts say."""

    def __init__(self, page):
        super().__init__()
        self.names, self.said = set(), ""
        self.feed(page)

    def handle_starttag(self, name, attributes):
        self.names.add(name)
        self.said += "".join(value or name for name, value in attributes)

    def handle_data(self, text):
        self.said += text


def test_nothing_that_a_widget_shows_becomes_a_part_of_its_page(models, undrawn):
    evil = '"><script>&'
    said, failed, undrawable = panel.Panel(), panel.Panel(), panel.Panel()
    said.say(evil)
    failed.complain(ValueError(evil))
    undrawable.picture = lambda: models[evil]
    undrawable.on_change(undrawable.redraw)
    sampler = Sampler({evil: (models["first"][0], CharTokenizer(evil))}, prompt=evil, length=3)
    sampler.sample.click()
    explorer = AttentionExplorer({evil: models["first"]}, "a" * 9)
    pages = [said.status.value, failed.status.value, undrawable.drawing.value, undrawn(*sampler.picture()), sampler.status.value,
             sampler.what_stays(), explorer.drawing.value, explorer._repr_mimebundle_()["text/html"],
             boxes([(evil, 0.5, "1")], "x"), boxes([("a", 0.5, evil)], "x"), boxes([("a", 0.5, "1")], evil),
             table([evil], [["a"]]), table(["a"], [[evil]])]
    for page in pages:
        found = Page(page)
        assert found.names <= {"div", "img", "span", "br", "p", "em", "table", "tr", "th", "td"} and evil in found.said, page


# the sampler

def test_the_sampler_writes_what_generate_text_does(sampler, models):
    sampler.temperature.value, sampler.top_k.value, sampler.top_p.value, sampler.seed.value = 0.9, 7, 0.95, 3
    sampler.sample.click()
    model, tokenizer = models["first"]
    assert written(sampler) == generate_text(model, tokenizer, "abc", 12, temperature=0.9, top_k=7, top_p=0.95, seed=3)
    assert "sample 1 done: 12 pieces" in sampler.status.value


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("top_k", 1), ("top_p", 0.0), ("seed", 9), ("prompt", "h"),
                                             ("length", 5), ("model", "second")])
def test_each_control_changes_the_sample(sampler, name, value):
    sampler.sample.click()
    before = written(sampler)
    getattr(sampler, name).value = value
    sampler.sample.click()
    assert written(sampler) != before


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.3), ("top_k", 2), ("top_p", 0.4), ("prompt", "h"), ("model", "second")])
def test_each_control_of_the_distribution_changes_the_bars_at_once(sampler, name, value):
    before = sampler.drawing.value
    getattr(sampler, name).value = value
    assert sampler.drawing.value != before


def test_the_bars_show_the_distribution_before_and_after_each_control(sampler):
    sampler.temperature.value, sampler.top_k.value, sampler.top_p.value = 2.0, 4, 0.5
    model, temperature, top_k, top_p = [[bar.get_width() for bar in axes.patches] for axes in sampler.picture()[0].axes]
    assert model == sorted(model, reverse=True) and sum(model) == pytest.approx(1)
    assert temperature[0] < model[0]
    assert [p > 0 for p in top_k] == [True] * 4 + [False] * 6
    assert 1 <= sum(p > 0 for p in top_p) < 4 and sum(top_p) == pytest.approx(1)


@pytest.mark.parametrize("how", [{"temperature": 0.4}, {"top_k": 3}, {"top_p": 0.6}, {"temperature": 1.7, "top_k": 5, "top_p": 0.8}],
                         ids=str)
def test_the_numbers_shown_are_the_model_s_own_probabilities(sampler, models, how):
    def logits(text):
        return models["first"][0](torch.tensor([TOKENIZER.encode(text)]))[0, -1]

    for name, value in how.items():
        getattr(sampler, name).value = value
    bars = [text.get_text().rstrip("%") for text in sampler.picture()[0].axes[3].texts]
    expected = next_token_probabilities(logits("abc"), **how)[logits("abc").argsort(descending=True)]
    assert all(number == "✗" if p == 0 else is_percent(number, p) for number, p in zip(bars, expected, strict=True))
    sampler.sample.click()
    text = written(sampler)[:5]                                                     # all that the first window holds
    expected = [next_token_probabilities(logits("abc" + text[:i]), **how)[TOKENIZER.encode(text[i])].item() for i in range(5)]
    for page in (sampler.text.value, sampler._repr_mimebundle_()["text/html"]):
        assert all(is_percent(number, p) for number, p in zip(numbers(page)[:5], expected, strict=True))


def test_a_sample_ends_before_the_stop_string(sampler):
    sampler.sample.click()
    whole = written(sampler)
    sampler.until.value = whole[6:8]
    sampler.sample.click()
    before = whole[:whole.index(whole[6:8])]
    assert written(sampler) == before and f"done: {len(before)} pieces" in sampler.status.value


@pytest.mark.parametrize("stop", ["", "x", "ab", "aab", "b-", "c"])
@pytest.mark.parametrize("pieces", [["a", "a", "b", "-", "c"], ["aa", "b-c"], ["aab-c"]], ids=str)
def test_nothing_of_the_stop_string_is_shown(stop, pieces):
    text = "".join(pieces)
    shown = "".join(piece for piece, _ in ended_before(stop, [(piece, 1.0) for piece in pieces]))
    assert shown == (text[:text.index(stop)] if stop and stop in text else text)


def test_a_piece_has_the_probability_that_it_was_drawn_at(models):
    model = models["first"][0]
    (text, p), = stream_pieces(*models["first"], "abc", 1, seed=1, temperature=0.5)
    expected = (model(torch.tensor([TOKENIZER.encode("abc")]))[0, -1] / 0.5).softmax(-1)
    assert p == pytest.approx(expected[TOKENIZER.encode(text)[0]].item())


def test_a_character_of_several_tokens_comes_whole_with_the_product_of_their_probabilities():
    table = torch.full((256, 256), -30.0)
    a, b = "é".encode()
    table[ord("x"), a], table[a, b], table[b, ord("x")] = 30.0, 30.0, 30.0
    table[ord("x"), ord("y")] = 30.0                                                # half of the probability goes elsewhere
    model = Bigram(256)
    model.table.weight.data = table
    pieces = list(stream_pieces(model, BPETokenizer(), "x", 2, seed=4))
    assert pieces[0][0] in "éy" and pieces[0][1] == pytest.approx(0.5)
    assert "é" in {piece for seed in range(9) for piece, _ in stream_pieces(model, BPETokenizer(), "x", 2, seed=seed)}


@pytest.mark.parametrize("prompt", ["x", "a"])
def test_half_a_character_at_the_end_is_shown_as_generate_text_gives_it(prompt):
    model = Bigram(256)
    model.table.weight.data = torch.full((256, 256), -30.0).index_fill(1, torch.tensor("é".encode()[0]), 30.0)
    pieces = list(stream_pieces(model, BPETokenizer(), prompt, 3, seed=1))
    assert "".join(text for text, _ in pieces) == generate_text(model, BPETokenizer(), prompt, 3, seed=1)
    assert pieces[-1][0].endswith("�")


def test_a_character_that_the_model_does_not_know_is_told_in_the_widget(sampler):
    sampler.prompt.value = "ab!"
    assert "character '!' (U+0021) at position 2" in alert(sampler)
    assert "<img" not in sampler.drawing.value
    sampler.prompt.value = "ab"
    assert not alert(sampler) and "<img" in sampler.drawing.value


def test_an_error_while_sampling_is_told_too_and_the_button_lives(sampler):
    sampler.prompt.value = ""
    sampler.sample.click()
    assert "the prompt is empty" in alert(sampler)
    assert not sampler.sample.disabled and sampler.stop.disabled


def test_a_sampler_without_models_says_where_they_come_from():
    sampler = Sampler({})
    assert "run chapter 4" in alert(sampler)
    sampler.sample.click()
    assert "run chapter 4" in alert(sampler)
    assert "run chapter 4" in sampler._repr_mimebundle_()["text/html"]


def test_the_text_streams_and_stop_ends_it(sampler):
    seen = []
    sampler.text.observe(lambda change: seen.append(change["new"]), names="value")
    sampler.length.value = 100

    async def reader():
        sampler.sample.click()
        while len(seen) < 5 and not sampler.task.done():
            await asyncio.sleep(0)
        assert sampler.sample.disabled and not sampler.stop.disabled
        sampler.sample.click()                      # a second click, sent before the button was seen to be grey
        sampler.stop.click()
        await sampler.task

    asyncio.run(reader())
    assert 5 <= len(seen) <= 7 and len(set(map(len, seen))) == len(seen)
    assert f"sample 1 stopped: {len(seen)} pieces" in sampler.status.value
    assert not sampler.sample.disabled and sampler.stop.disabled
    sampler.sample.click()
    assert "sample 2 done: 100 pieces" in sampler.status.value


def test_a_change_while_a_sample_is_written_spoils_neither_what_is_said_of_it_nor_what_is_wrong(sampler):
    async def reader():
        sampler.sample.click()
        sampler.sample.click()                      # in the same turn of the loop
        await asyncio.sleep(0)
        sampler.model.value = "second"
        assert "sample 1 is being written by first" in sampler.status.value
        sampler.prompt.value = "ab!"
        await sampler.task

    asyncio.run(reader())
    assert "sample 1 done: 12 pieces by first" in sampler.status.value
    assert "character &#x27;!&#x27;" in sampler.drawing.value and "<img" not in sampler.drawing.value


def test_a_long_sample_is_sent_some_ten_times_a_second_and_whole_in_the_end(sampler, monkeypatch):
    monkeypatch.setattr("gptlib.widgets.sampler.REFRESH", 0.1)
    seen = []
    sampler.text.observe(lambda change: seen.append(change["new"]), names="value")
    sampler.length.value = 100
    start = time.monotonic()
    sampler.sample.click()
    assert len(seen) <= 2 + (time.monotonic() - start) / 0.1 and len(numbers(seen[-1])) == 100


def test_what_cannot_be_seen_has_a_sign_and_a_dollar_is_no_mathematics_on_an_axis_alone():
    assert re.findall("color:#111111\">(.*?)<br>", boxes([(c, 1.0, "") for c in "\t\n\0\u200b $é漢"], "x")) == [
        "⇥", "⏎", "U+0000", "U+200B", "&nbsp;", "$", "é", "漢"]
    tokenizer = CharTokenizer("$\\\t")
    assert labels(tokenizer, tokenizer.encode("\\$\t")) == ["\\", "$", "⇥"] and on_axis(["a$", "b"]) == [r"a\$", "b"]


def test_an_alt_text_and_an_axis_name_a_dollar_as_it_is(tiny):
    models = {"costly": (tiny(vocab_size=3), CharTokenizer("$ab"))}
    sampler, explorer = Sampler(models, prompt="a"), AttentionExplorer(models, "$ab$")
    for widget in (sampler, explorer):
        figure, alt = widget.picture()
        names = [label.get_text() for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        assert "'$'" in alt and r"\$" in names and "$" not in names
    assert "\\" not in explorer.what_stays()


def test_strength_is_shown_by_number_and_frame_as_well_as_by_hex_colour():
    drawn = boxes([("a", 0.9, "90"), ("<", 0.2, "20"), ("\n", 0.01, "1")], "x")
    strong, middling, weak = re.findall('<span style="display.*?</span></span>', drawn)
    assert "3px solid" in strong and "3px dashed" in middling and "3px dotted" in weak
    assert ">90<" in strong and "&lt;" in middling and "⏎" in weak
    assert len({re.search("background-color:#[0-9a-f]{6};", cell)[0] for cell in (strong, middling, weak)}) == 3


def test_checkpoints_are_found_unless_they_cannot_be_sampled_from(tmp_path, tiny):
    save_checkpoint(tmp_path / "04/best.safetensors", tiny(vocab_size=10), TOKENIZER)
    save_checkpoint(tmp_path / "04/mute.safetensors", tiny(vocab_size=10))
    save_checkpoint(tmp_path / "02/best.safetensors", torch.nn.Linear(1, 1), TOKENIZER)
    (tmp_path / "broken.safetensors").write_bytes(b"half a file")
    odd = json.dumps({"model": ["GPT"], "config": {}, "tokenizer": {"class": "x"}, "about": {}})
    for i, header in enumerate((odd, "[" * 10 ** 5)):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{i}.safetensors", {"gptlib": header})
    assert find_checkpoints(tmp_path) == {"04/best": tmp_path / "04/best.safetensors"}
    sampler = Sampler(find_checkpoints(tmp_path), prompt="a", length=3)
    sampler.sample.click()
    assert "done: 3 pieces" in sampler.status.value


# the explorer

def test_attention_weights_are_those_of_the_formula(tiny):
    model, idx, read = tiny(), torch.tensor([1, 5, 2, 7, 7]), []
    model.blocks[1].attention.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    with torch.no_grad():
        model(idx[None])
        q, k, _ = model.blocks[1].attention.qkv(read[0]).chunk(3, dim=-1)
    q, k = q[0, :, 6:], k[0, :, 6:]                                                 # the second of two heads of size 6
    scores = (q @ k.T / 6 ** 0.5).masked_fill(torch.ones(5, 5).triu(1) == 1, -torch.inf)
    weights = attention_weights(model, idx)
    assert weights.shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights[1, 1], scores.softmax(-1))


def test_weights_multiplied_after_the_softmax_are_multiplied_here_too(tiny):
    model, plain = tiny(attention="toeplitz"), tiny()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.by_distance.copy_(torch.ones(2, 8))
            block.attention.by_key.copy_(torch.ones(2, 8))
        plain.load_state_dict(model.state_dict(), strict=False)
        idx = torch.arange(6)
        before = attention_weights(model, idx)
        torch.testing.assert_close(before, attention_weights(plain, idx))
        by_distance = torch.linspace(1, 2, 8).expand(2, 8)
        model.blocks[1].attention.by_distance.copy_(by_distance)
    torch.testing.assert_close(attention_weights(model, idx)[1], before[1] * toeplitz(by_distance[:, :6]))


def test_looking_changes_nothing(tiny):
    model, idx = tiny(dropout=0.5).train(), torch.arange(5)
    torch.testing.assert_close(attention_weights(model, idx).sum(-1), torch.ones(2, 2, 5))      # so dropout was off
    assert model.training and not model.blocks[0].attention._forward_pre_hooks


def test_a_model_without_attention_has_none_to_look_at():
    explorer = AttentionExplorer({"bigram": (Bigram(10), TOKENIZER)}, "abc")
    assert "a Bigram has no attention" in alert(explorer)


@pytest.mark.parametrize("text", ["abc", "abcd", "abc hgf abc"])
def test_a_model_that_reads_in_windows_is_told_in_the_explorer(rolling, text):
    assert "a RollingGPT does not read its text in one piece" in alert(AttentionExplorer(rolling, text))


@pytest.mark.parametrize(("name", "value"), [("layer", 2), ("head", 2), ("position", 3), ("text", "hgfe"), ("other", "second"),
                                             ("model", "second")])
def test_each_control_of_the_explorer_changes_its_picture(models, name, value):
    explorer = AttentionExplorer(models, "abc abc")
    before = explorer.picture()[1]
    getattr(explorer, name).value = value
    assert not alert(explorer)
    assert explorer.picture()[1] != before and html.escape(explorer.picture()[1]) in explorer.drawing.value


def test_the_map_is_that_of_the_layer_and_head_chosen(models):
    explorer = AttentionExplorer(models, "abc abc")
    weights = attention_weights(models["first"][0], torch.tensor(TOKENIZER.encode("abc abc")))
    for layer in (1, 2):
        for head in (1, 2):
            explorer.layer.value, explorer.head.value = layer, head
            drawn = explorer.picture()[0].axes[0].images[0].get_array()
            assert drawn.tolist() == weights[layer - 1, head - 1].tolist()


def test_the_explorer_s_fields_end_where_the_model_and_the_text_do(models):
    explorer = AttentionExplorer(models, "abc abc")
    assert (explorer.layer.max, explorer.head.max, explorer.position.max) == (2, 2, 6)
    explorer.position.value, explorer.layer.value = 6, 2
    explorer.text.value, explorer.model.value = "ab", "second"
    assert (explorer.layer.value, explorer.head.max, explorer.position.value) == (1, 1, 1) and not alert(explorer)


def test_two_models_are_drawn_one_above_the_other(models):
    explorer = AttentionExplorer(models, "abc abc")
    assert len(explorer.picture()[0].axes) == 3                                     # map, its colour bar, arcs
    explorer.other.value = "second"
    figure, alt = explorer.picture()
    assert len(figure.axes) == 6 and "first, layer 1" in alt and "second, layer 1" in alt
    explorer.layer.value = 2
    assert "second has 1 layers of 1 heads" in alert(explorer)


@pytest.mark.parametrize(("text", "said"), [("abc!", "character '!'"), ("", "0 tokens"), ("abcdefgh ", "9 tokens: first")])
def test_a_text_that_cannot_be_read_is_told_in_the_explorer(models, text, said):
    explorer = AttentionExplorer(models, "abc")
    explorer.text.value = text
    assert said in alert(explorer)


def test_arcs_reach_back_from_the_query_as_thick_as_their_weights(models):
    explorer = AttentionExplorer(models, "abcdef")
    explorer.position.value = 4
    _, weights = explorer.read("first")
    _, arcs, _ = explorer.picture()[0].axes
    widths = [patch.get_linewidth() for patch in arcs.patches]
    assert widths == pytest.approx([0.3 + 6 * w for w in weights[4, :5].tolist()])
    assert [patch.center[0] + patch.width / 2 for patch in arcs.patches[:4]] == [4, 4, 4, 4]


# the merge stepper

def test_boundaries_move_as_the_tokenizer_of_that_many_merges_cuts():
    stepper = MergeStepper(BPE, "lowest newer")
    for n in range(len(BPE.merges) + 1):
        stepper.merges.value = n
        early = BPETokenizer(list(BPE.merges)[:n], BPE.pattern)
        assert [i for i, _ in stepper.cut(n)] == early.encode("lowest newer")
        assert f"after {n} merges" in stepper.drawing.value
    assert stepper.cut(len(BPE.merges)) == [(i, BPE.token_bytes(i)) for i in BPE.encode("lowest newer")]


def test_special_tokens_below_the_merges_keep_their_ids():
    stepper = MergeStepper(BPETokenizer([(108, 111), (256 + 1, 119)], special_tokens={"<e>": 256}), "low")
    for n, ids in enumerate([[108, 111, 119], [257, 119], [258]]):
        stepper.merges.value = n
        assert numbers(stepper.drawing.value) == [str(i) for i in ids]
    assert "become token 258" in stepper.status.value


def test_the_stepper_names_the_newest_merge_and_draws_the_curve():
    stepper = MergeStepper(BPE, "low")
    stepper.merges.value = 1
    (left, right), = list(BPE.merges)[:1]
    assert html.escape(f"merge 1: {chr(left)!r} and {chr(right)!r} become token 256") in stepper.status.value
    stepper.merges.value = 0
    assert "every token is a byte" in stepper.status.value
    curve = stepper.picture()[0].axes[0].lines[0].get_ydata()
    assert curve[0] == 1 and list(curve) == sorted(curve, reverse=True) and curve[-1] == len(BPE.encode("low")) / 3


def test_half_a_character_is_shown_as_its_bytes_and_an_empty_sentence_told():
    assert [readable(token) for token in ("é".encode()[:1], b"low")] == ["c3", "low"]
    stepper = MergeStepper(BPE)
    stepper.sentence.value = ""
    assert "the sentence is empty" in alert(stepper) and "<img" not in stepper.drawing.value


# the training board


def test_a_run_on_the_board_is_the_run_that_train_makes(board, tiny):
    board.go.click()
    alone = tiny(vocab_size=10, dropout=0.2)
    result = train(alone, *board.run[1:], progress=False)
    assert_same(board.model, alone)
    assert [row["val_loss"] for row in board.history] == [row["val_loss"] for row in result.history]
    assert "done: 8 steps" in board.status.value and board.go.description == "Resume"


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(board, tiny):
    async def reader():
        board.go.click()
        while len(board.history) < 2 and not board.task.done():                     # until step 3 has been measured
            await asyncio.sleep(0.001)
        assert board.go.disabled and not board.stop.disabled
        board.stop.click()
        await board.task

    slow = board.model.register_forward_hook(lambda *call: time.sleep(0.02))
    asyncio.run(reader())
    slow.remove()
    assert "stopped and saved" in board.status.value and len(board.history) < 4
    board.go.click()
    assert "done: 8 steps" in board.status.value
    alone = tiny(vocab_size=10, dropout=0.2)
    train(alone, *board.run[1:], progress=False)
    assert_same(board.model, alone)
    assert [row["step"] for row in board.history] == [0, 3, 6, 8]


def test_a_later_board_goes_on_where_an_earlier_one_stopped(board, tiny):
    board.stop.click()
    board.go.click()                                # stop was for a run that was not there
    assert "done: 8 steps" in board.status.value
    _, train_ids, val_ids, block_size, config = board.run
    later = TrainingBoard(tiny(vocab_size=10, dropout=0.2), train_ids, val_ids, block_size, config, out_dir=board.out_dir,
                          tokenizer=TOKENIZER, resume="auto")
    assert later.history == board.history and later.go.description == "Resume"
    later.go.click()
    assert_same(later.model, board.model)


def again(board, model, **how):
    """A board for the same run, of an equal model, that goes on."""
    return TrainingBoard(model, *board.run[1:], **{"out_dir": board.out_dir, "tokenizer": TOKENIZER, "resume": "auto"} | how)


def test_what_a_board_shows_of_an_earlier_run_is_what_it_goes_on_from(board, tiny):
    board.go.click()
    (board.out_dir / "metrics.jsonl").write_text('{"step": 0}\n{"st', encoding="utf-8")
    later = again(board, tiny(vocab_size=10, dropout=0.2))
    assert later.history == board.history and later.go.description == "Resume"
    assert again(board, board.model, resume="never").history == []
    later.go.click()
    assert later.history == board.history and "done: 8 steps" in later.status.value


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(board, tiny):
    board.go.click()
    (board.out_dir / "last.safetensors").unlink()
    later = again(board, tiny(vocab_size=10, dropout=0.2))
    assert later.history == [] and later.go.description == "Train"
    later.go.click()
    assert [row["step"] for row in later.history] == [0, 3, 6, 8]


def test_another_run_in_the_folder_is_not_shown_as_this_one(board, tiny):
    board.go.click()
    other = again(board, tiny(vocab_size=10))
    assert other.history == [] and other.go.description == "Train"
    other.go.click()
    assert "dropout was 0.2 and is now 0.0" in alert(other) and other.history == []


def test_a_damaged_checkpoint_is_told_when_it_is_gone_on_from(board, tiny):
    (board.out_dir / "last.safetensors").write_bytes(b"half a file")
    later = again(board, tiny(vocab_size=10, dropout=0.2))
    assert later.history == [] and not alert(later)
    later.go.click()
    assert "is not a whole checkpoint" in alert(later)


def test_two_boards_do_not_train_one_model_or_write_into_one_folder_at_once(board, tiny, tmp_path):
    async def reader():
        board.go.click()
        await asyncio.sleep(0)
        rivals = [again(board, board.model), again(board, board.model, out_dir=tmp_path / "other"),
                  again(board, tiny(vocab_size=10, dropout=0.2))]
        for rival in rivals:
            rival.go.click()
            await rival.task
            assert "a board is still training this model, or one that it saves in" in alert(rival) and not rival.go.disabled
        go_on.set()
        await board.task
        return rivals[0]

    def wait(*call):
        go_on.wait(60)

    go_on = threading.Event()
    waiting = board.model.register_forward_hook(wait)
    rerun = asyncio.run(reader())
    waiting.remove()
    alone = tiny(vocab_size=10, dropout=0.2)
    train(alone, *board.run[1:], progress=False)
    assert_same(board.model, alone)
    assert not RUNNING and not (tmp_path / "other").exists()
    rerun.go.click()
    assert "done: 8 steps" in rerun.status.value and rerun.history == board.history and "at step 8" in rerun.drawing.value


def test_two_clicks_in_one_turn_of_the_loop_start_one_training(board, monkeypatch):
    started = []
    monkeypatch.setattr("gptlib.widgets.board.train", lambda *run, **how: (started.append(run), train(*run, **how))[1])

    async def reader():
        board.go.click()
        assert board.go.disabled and not board.stop.disabled
        board.go.click()
        await board.task

    asyncio.run(reader())
    assert len(started) == 1 and "done: 8 steps" in board.status.value


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("x"), KeyError("x")], ids=repr)
def test_whatever_ends_a_training_is_told_and_the_board_lives(board, error):
    def fail(*call):
        raise error

    failing = board.model.register_forward_hook(fail)
    board.go.click()
    failing.remove()
    assert type(error).__name__ in alert(board)
    assert not board.go.disabled and board.stop.disabled and not RUNNING
    board.go.click()
    assert "done: 8 steps" in board.status.value and not alert(board)


def test_a_picture_that_cannot_be_drawn_while_it_trains_is_told(board):
    draw = board.picture
    board.picture = lambda: None if board.history else draw()
    board.go.click()
    assert "TypeError" in alert(board) and "done: 8 steps" in board.status.value and len(board.history) == 4


def test_the_board_draws_the_lines_of_guessing_bigram_and_floor(board):
    assert "not measured yet" in board.picture()[1] and "Not trained yet" in board.what_stays()
    board.go.click()
    figure, alt = board.picture()
    assert [text.get_text() for text in figure.axes[0].texts] == ["guessing: ln 10 = 2.303", "bigram = 1.500", "floor = 0.500"]
    assert "at step 8" in alt and "floor = 0.500" in alt
    assert list(figure.axes[0].lines[0].get_xdata()) == [0, 3, 6, 8]


def test_each_evaluation_brings_a_text_the_latest_first(board):
    board.go.click()
    assert [step for step, _, _ in board.samples] == ["8", "6", "3", "0"]
    assert board.samples[0][2] == generate_text(board.model, TOKENIZER, "a", 80, temperature=0.8, seed=1)


def test_an_error_of_the_run_is_told_on_the_board(board):
    board.run = (*board.run[:3], 500, board.run[4])
    board.go.click()
    assert "too few for windows of block_size=500" in alert(board)
    assert not board.go.disabled and board.stop.disabled and not board.model._forward_pre_hooks


def assert_same(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


# chapters 6 and 7

def test_time_weights_are_shown_by_distance(tiny):
    model = tiny(vocab_size=10, attention="time_weighted", block_size=4)
    table = toeplitz(torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2))
    model.blocks[1].attention.table.data = table + torch.ones(4, 4).triu(1) * 99
    viewer = TimeWeightViewer({"mine": (model, TOKENIZER)})
    viewer.layer.value = 2
    drawn = viewer.picture()[0].axes[1].lines[0].get_ydata()
    assert list(drawn) == [1, 2, 3, 4]
    assert "weight after the softmax, from 1.00 at distance 0 to 4.00" in viewer.picture()[1]


def test_the_weight_of_a_key_belongs_to_what_is_shown(tiny):
    model = tiny(vocab_size=10, attention="toeplitz", block_size=4)
    for block in model.blocks:
        block.attention.by_distance.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
        block.attention.by_key.data = torch.tensor([[5.0, 5.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
    viewer = TimeWeightViewer({"mine": (model, TOKENIZER)})
    assert list(viewer.picture()[0].axes[1].lines[0].get_ydata()) == [5, 10, 15, 20]
    viewer.head.value = 2
    kind, matrix = viewer.read()
    assert kind == "weight after the softmax"
    equal = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]                   # what the softmax of no scores is
    q = torch.zeros(1, 2, 4, 6)
    torch.testing.assert_close(equal * matrix, model.blocks[0].attention.attend(q, q, torch.eye(4).expand(1, 2, 4, 4), 0)[0, 1].detach())


def test_a_bias_is_called_one_and_a_plain_model_has_neither(tiny, models):
    viewer = TimeWeightViewer({"bias": (tiny(attention="relative_bias"), TOKENIZER), **models})
    assert "bias before the softmax" in viewer.picture()[1]
    viewer.model.value = "first"
    assert "first weighs no distances" in alert(viewer)


@pytest.fixture
def rolling():
    torch.manual_seed(0)
    model = RollingGPT(RollingConfig(vocab_size=10, block_size=16, window=4, n_layer=1, n_head=2, n_embd=12)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return {"rolling": (model, TOKENIZER)}


def test_the_context_matters_from_the_second_window_on(rolling):
    tokens, with_it, without, window, left_out = ContextViewer(rolling, "abc hgf abc").read()
    assert (len(tokens), window, left_out) == (10, 4, "")
    assert with_it[:4] == without[:4]
    assert all(a != b for a, b in zip(with_it[4:], without[4:], strict=True))


def test_the_context_viewer_draws_a_border_after_what_each_window_predicts(rolling):
    axes, = ContextViewer(rolling, "abc hgf abc").picture()[0].axes
    assert [line.get_xdata()[0] for line in axes.lines[2:]] == [4.5, 8.5]


def test_of_a_long_text_the_beginning_is_read_and_that_is_said(rolling):
    viewer = ContextViewer(rolling, "abc hgf " * 190)
    figure, alt = viewer.picture()
    axes, = figure.axes
    assert len(axes.lines[0].get_xdata()) == 255 and len(axes.get_xticks()) <= 100
    for said in (alt, axes.get_xlabel(), viewer.what_stays()):
        assert "only the first 256 of the text's 1,520 tokens are read" in said
    assert viewer.read()[1] == ContextViewer(rolling, ("abc hgf " * 190)[:256]).read()[1]


def test_a_model_without_windows_is_told_in_the_context_viewer(models):
    assert "hands nothing from window to window" in alert(ContextViewer(models, "abc"))
