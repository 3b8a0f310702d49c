"""The widgets without a browser: Python clicks the buttons and sets the fields.

Some tests do this inside a running event loop, as in JupyterLab, and some without a loop.
"""

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

from gptlib import (
    Bigram,
    BPETokenizer,
    CharTokenizer,
    TrainConfig,
    count_bigrams,
    generate_text,
    save_checkpoint,
)
from gptlib.checkpoint import read_header
from gptlib.corpora.courier import Courier
from gptlib.corpora.courier_text import CourierTokenizer
from gptlib.generate import next_token_probabilities
from gptlib.optimizers import orthogonalize
from gptlib.train import train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig
from gptlib.variants.time_weighting import toeplitz
from gptlib.widgets import (
    AttentionExplorer,
    BigramRow,
    ContextViewer,
    CourierFact,
    DistanceWeights,
    MergeStepper,
    NearCopies,
    Sampler,
    SingularValues,
    TimeWeightViewer,
    TokenizerComparison,
    TrainingBoard,
    attention_weights,
    find_checkpoints,
    panel,
)
from gptlib.widgets.bigram_row import row_probabilities
from gptlib.widgets.board import IN_USE
from gptlib.widgets.distance_weights import ALL_HEADS, BY_HAND, LEARNED, THIS_LAYER
from gptlib.widgets.merges import readable
from gptlib.widgets.panel import axis_labels, encode, table_html, token_boxes, token_labels
from gptlib.widgets.sampler import pieces_before, stream_pieces

# 10 characters
ALPHABET = " \nabcdefgh"
TOKENIZER = CharTokenizer(ALPHABET)
BPE = BPETokenizer.train("low lower lowest newer wider " * 5, vocab_size=264)
COUNTS = count_bigrams(torch.tensor(TOKENIZER.encode("abc abd abe\ncab bad")), 10)
PLAYGROUND = Path(__file__).parents[1] / "notebooks/playground.ipynb"


@pytest.fixture(autouse=True)
def real_image_html(monkeypatch):
    """Return `image_html`, and replace it by a function that does not render the figure.

    Rendering takes longer than the rest of all tests together.
    """
    real = panel.image_html
    monkeypatch.setattr(panel, "image_html", lambda figure, alt: f'<img alt="{html.escape(alt)}">')
    return real


@pytest.fixture
def models(tiny):
    return {
        "first": (tiny(vocab_size=10), TOKENIZER),
        "second": (tiny(vocab_size=10, n_layer=1, n_head=1, block_size=16), TOKENIZER),
    }


@pytest.fixture
def sampler(models, monkeypatch):
    for name in ("TOKEN_PAUSE", "UPDATE_INTERVAL"):
        monkeypatch.setattr(f"gptlib.widgets.sampler.{name}", 0)
    return Sampler(models, prompt="abc", length=12)


@pytest.fixture
def model(tiny):
    """Return a function that builds the model of the fixture `board`."""
    return lambda: tiny(vocab_size=10, dropout=0.2)


@pytest.fixture
def board(tmp_path, model):
    ids = torch.arange(400) % 10
    config = TrainConfig(max_steps=8, eval_interval=3, batch_size=2, warmup=1, device="cpu")
    return TrainingBoard(
        model(), ids, ids[:50], 8, config, out_dir=tmp_path, tokenizer=TOKENIZER,
        levels={"bigram": 1.5, "floor": 0.5}, prompt="a",
    )


@pytest.fixture
def rolling():
    """Return the models of a ContextViewer: one RollingGPT with windows of 4 tokens."""
    torch.manual_seed(0)
    shape = {"vocab_size": 10, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 12}
    model = make_model(VariantConfig(**shape, memory="mean", window=4)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return {"rolling": (model, TOKENIZER)}


@pytest.fixture
def all_widgets(models, sampler, board, tiny, rolling):
    toeplitz_model = tiny(vocab_size=10, attention="toeplitz")
    return [
        sampler,
        board,
        AttentionExplorer(models, "abc abc"),
        MergeStepper(BPE, "lowest"),
        TimeWeightViewer({"toeplitz": (toeplitz_model, TOKENIZER)}),
        ContextViewer(rolling, "abc abc abc"),
        BigramRow(COUNTS, TOKENIZER, "a"),
        TokenizerComparison({"ours": BPE, "GPT-4": None}, "lowest"),
        DistanceWeights({"toeplitz": (toeplitz_model, TOKENIZER)}, "abc abc"),
        CourierFact(courier_models()),
        SingularValues({"a gradient": torch.randn(6, 4)}, steps=1),
    ]


def courier_models(**options):
    """Return the models of a CourierFact: one RollingGPT with large weights."""
    courier = Courier()
    options = {"memory": "mean", "window": courier.window} | options
    torch.manual_seed(0)
    model = make_model(VariantConfig(
        vocab_size=courier.vocab_size, block_size=32, n_layer=1, n_head=2, n_embd=12, **options))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return {"courier": (model.eval(), CourierTokenizer(courier))}


def controls(widget):
    """Yield all fields, sliders and buttons of a widget."""
    for child in getattr(widget, "children", ()):
        yield from controls(child)
    if isinstance(widget, (W.Button, W.ValueWidget)) and not isinstance(widget, W.HTML):
        yield widget


def sampled_text(sampler):
    """Return the text in the boxes, as the reader sees it."""
    label = re.search('aria-label="sample: (.*?)"', sampler.text.value, re.DOTALL)
    return html.unescape(label[1])


def error_message(widget):
    """Return the error that a widget shows in place of its picture or of its status, or None."""
    shown = widget.drawing.value + widget.status.value
    message = re.search('role="alert".*?⚠ (.*?)</div>', shown)
    return message and html.unescape(message[1])


def box_numbers(page):
    """Return the numbers below the boxes of tokens."""
    return [html.unescape(n) for n in re.findall('<span style="font-size:9px">(.*?)</span>', page)]


def is_percent(printed, p):
    """Return whether `printed` is the probability `p` in per cent, rounded."""
    return p < 0.00501 if printed == "<1" else abs(float(printed) - 100 * p) < 0.501


# All widgets --------------------------------------------------------------------------------------


def test_every_control_has_a_name_and_reports_only_final_values(all_widgets):
    for widget in all_widgets:
        for control in controls(widget):
            is_slider = isinstance(control, (W.IntSlider, W.FloatSlider))
            assert control.description or is_slider, (widget, control)
            if hasattr(control, "continuous_update"):
                # Only the field for a letter follows each key.
                assert control.continuous_update is (control.description == "Type a letter")


def test_every_text_field_keeps_line_ends(all_widgets):
    # The browser removes line ends from a field of one line, which has the class W.Text.
    found = [control for widget in all_widgets for control in controls(widget)]
    assert not [control for control in found if isinstance(control, W.Text)]
    names = {control.description for control in found if isinstance(control, W.Textarea)}
    assert names == {"Prompt", "Stop before", "Text", "Sentence", "Type a letter"}


def test_every_slider_is_linked_to_a_field_with_a_name(sampler):
    fields = [c for c in controls(sampler) if isinstance(c, W.BoundedFloatText)]
    sliders = [c for c in controls(sampler) if isinstance(c, W.FloatSlider)]
    names = ["Temperature", "Top-p (1: off)", "Min-p (0: off)"]
    assert [field.description for field in fields] == names
    fields[0].value = 0.35
    assert sliders[0].value == 0.35
    sliders[0].value = 99
    assert fields[0].value == 2.0


def test_every_widget_has_html_and_text_for_a_page_without_a_kernel(all_widgets):
    for widget in all_widgets:
        bundle = widget._repr_mimebundle_()
        page = bundle["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert bundle["text/plain"].startswith(type(widget).__name__)
        assert "run this page in JupyterLab" in page and len(page) > 130
        assert "<script" not in page and "⚠" not in page


def test_every_picture_is_shown_with_its_text_and_can_be_rendered(all_widgets, real_image_html):
    png = '<img style="max-width:100%" alt="[^"]+" src="data:image/png;base64,iVBOR[^"]{5000,}">'
    for widget in all_widgets:
        figure, alt = widget.picture()
        assert len(figure.axes) and len(alt) > 60
        assert f'alt="{html.escape(alt)}"' in widget.drawing.value
        assert re.fullmatch(png, real_image_html(figure, alt))


def test_the_playground_is_saved_with_static_html_and_a_picture_of_each_widget():
    notebook = nbformat.read(PLAYGROUND, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs if "data" in output]
    pages = [output.data.get("text/html", "") for output in outputs]
    for name in (
        "TrainingBoard", "Sampler", "AttentionExplorer", "MergeStepper", "TimeWeightViewer",
        "ContextViewer", "BigramRow", "TokenizerComparison", "DistanceWeights", "CourierFact",
    ):
        (i,) = [i for i, page in enumerate(pages) if f"<em>{name}: run this page" in page]
        assert "⚠" not in pages[i]
        picture = outputs[i + 1]
        assert "image/png" in picture.data and len(picture.metadata["image/png"]["alt"]) > 60


class Page(HTMLParser):
    """The tags of an HTML page, and all its texts and attributes as one string."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.text += "".join(value or name for name, value in attributes)

    def handle_data(self, text):
        self.text += text


def test_user_text_is_escaped_everywhere(models, real_image_html):
    evil = '"><script>&'
    with_status, with_error, without_picture = panel.Panel(), panel.Panel(), panel.Panel()
    with_status.show_status(evil)
    with_error.show_error(ValueError(evil))
    without_picture.picture = lambda: models[evil]
    without_picture.redraw_on_change()
    sampler = Sampler({evil: (models["first"][0], CharTokenizer(evil))}, prompt=evil, length=3)
    sampler.sample.click()
    explorer = AttentionExplorer({evil: models["first"]}, "a" * 9)
    pages = [
        with_status.status.value,
        with_error.status.value,
        without_picture.drawing.value,
        real_image_html(*sampler.picture()),
        sampler.status.value,
        sampler.static_html(),
        explorer.drawing.value,
        explorer._repr_mimebundle_()["text/html"],
        token_boxes([(evil, 0.5, "1")], "x"),
        token_boxes([("a", 0.5, evil)], "x"),
        token_boxes([("a", 0.5, "1")], evil),
        table_html([evil], [["a"]]),
        table_html(["a"], [[evil]]),
    ]
    allowed = {"div", "img", "span", "br", "p", "em", "table", "tr", "th", "td"}
    for page in pages:
        parsed = Page(page)
        assert parsed.tags <= allowed and evil in parsed.text, page


def test_ids_are_on_the_device_of_the_model(tiny):
    idx = encode(tiny(vocab_size=10).to("meta"), TOKENIZER, "abc")
    assert idx.device.type == "meta" and idx.shape == (3,)


# The sampler --------------------------------------------------------------------------------------


def test_the_sampler_writes_the_text_of_generate_text(sampler, models):
    sampler.temperature.value, sampler.top_k.value = 0.9, 7
    sampler.top_p.value, sampler.min_p.value, sampler.seed.value = 0.95, 0.05, 3
    sampler.sample.click()
    options = {"temperature": 0.9, "top_k": 7, "top_p": 0.95, "min_p": 0.05, "seed": 3}
    assert sampled_text(sampler) == generate_text(*models["first"], "abc", 12, **options)
    assert "sample 1 done: 12 pieces" in sampler.status.value


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("top_k", 1), ("top_p", 0.0), ("min_p", 1.0), ("seed", 9),
     ("prompt", "h"), ("length", 5), ("model", "second")],
)
def test_each_control_changes_the_sample(sampler, name, value):
    sampler.sample.click()
    before = sampled_text(sampler)
    getattr(sampler, name).value = value
    sampler.sample.click()
    assert sampled_text(sampler) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.3), ("top_k", 2), ("top_p", 0.4), ("min_p", 0.4), ("prompt", "h"),
     ("model", "second")],
)
def test_each_control_of_the_distribution_redraws_the_bars(sampler, name, value):
    before = sampler.drawing.value
    getattr(sampler, name).value = value
    assert sampler.drawing.value != before


def test_bars_show_the_distribution_before_and_after_each_control(sampler):
    sampler.temperature.value, sampler.top_k.value, sampler.top_p.value = 2.0, 4, 0.5
    figure, _ = sampler.picture()
    bars = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    plain, temperature, top_k, top_p = bars
    assert plain == sorted(plain, reverse=True) and sum(plain) == pytest.approx(1)
    assert temperature[0] < plain[0]
    assert [p > 0 for p in top_k] == [True] * 4 + [False] * 6
    assert 1 <= sum(p > 0 for p in top_p) < 4 and sum(top_p) == pytest.approx(1)


def test_min_p_has_bars_of_its_own_if_it_is_on(sampler):
    assert len(sampler.picture()[0].axes) == 4
    sampler.min_p.value = 0.5
    figure, text = sampler.picture()
    bars = [bar.get_width() for bar in figure.axes[4].patches]
    assert bars == [p if p >= 0.5 * bars[0] else 0 for p in bars] and "min-p 0.50" in text


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.4}, {"top_k": 3}, {"top_p": 0.6},
     {"temperature": 1.7, "top_k": 5, "top_p": 0.8}],
    ids=str,
)
def test_printed_numbers_are_the_probabilities_of_the_model(sampler, models, options):
    def logits(text):
        return models["first"][0](torch.tensor([TOKENIZER.encode(text)]))[0, -1]

    for name, value in options.items():
        getattr(sampler, name).value = value
    figure, _ = sampler.picture()
    bars = [text.get_text().rstrip("%") for text in figure.axes[3].texts]
    probabilities = next_token_probabilities(logits("abc"), **options)
    expected = probabilities[logits("abc").argsort(descending=True)]
    for number, p in zip(bars, expected, strict=True):
        assert number == "✗" if p == 0 else is_percent(number, p)

    sampler.sample.click()
    # The first window holds the prompt and 5 more characters.
    text = sampled_text(sampler)[:5]
    expected = []
    for i in range(5):
        probabilities = next_token_probabilities(logits("abc" + text[:i]), **options)
        expected.append(probabilities[TOKENIZER.encode(text[i])].item())
    for page in (sampler.text.value, sampler._repr_mimebundle_()["text/html"]):
        for number, p in zip(box_numbers(page)[:5], expected, strict=True):
            assert is_percent(number, p)


def test_a_sample_ends_before_the_stop_string(sampler):
    sampler.sample.click()
    whole = sampled_text(sampler)
    stop = whole[6:8]
    sampler.stop_string.value = stop
    sampler.sample.click()
    expected = whole[:whole.index(stop)]
    assert sampled_text(sampler) == expected
    assert f"done: {len(expected)} pieces" in sampler.status.value


@pytest.mark.parametrize("stop", ["", "x", "ab", "aab", "b-", "c"])
@pytest.mark.parametrize("pieces", [["a", "a", "b", "-", "c"], ["aa", "b-c"], ["aab-c"]], ids=str)
def test_pieces_before_a_stop_string_contain_nothing_of_it(stop, pieces):
    text = "".join(pieces)
    shown = "".join(piece for piece, _ in pieces_before(stop, [(piece, 1.0) for piece in pieces]))
    assert shown == (text[:text.index(stop)] if stop and stop in text else text)


def test_the_probability_of_a_piece_is_that_of_its_token(models):
    model = models["first"][0]
    ((text, p),) = stream_pieces(*models["first"], "abc", 1, seed=1, temperature=0.5)
    logits = model(torch.tensor([TOKENIZER.encode("abc")]))[0, -1]
    expected = (logits / 0.5).softmax(-1)
    assert p == pytest.approx(expected[TOKENIZER.encode(text)[0]].item())


def test_a_character_of_two_tokens_is_one_piece_with_the_product_of_their_probabilities():
    first, second = "é".encode()
    table = torch.full((256, 256), -30.0)
    table[ord("x"), first] = table[first, second] = table[second, ord("x")] = 30.0
    # After x, the first byte of é and the letter y have probability 1/2 each.
    table[ord("x"), ord("y")] = 30.0
    model = Bigram(256)
    model.table.weight.data = table
    texts = set()
    for seed in range(9):
        pieces = list(stream_pieces(model, BPETokenizer(), "x", 2, seed=seed))
        assert pieces[0][0] in "éy" and pieces[0][1] == pytest.approx(0.5)
        texts |= {text for text, _ in pieces}
    assert "é" in texts


@pytest.mark.parametrize("prompt", ["x", "a"])
def test_an_incomplete_character_at_the_end_is_shown_as_in_generate_text(prompt):
    first_byte = torch.tensor("é".encode()[0])
    model = Bigram(256)
    model.table.weight.data = torch.full((256, 256), -30.0).index_fill(1, first_byte, 30.0)
    pieces = list(stream_pieces(model, BPETokenizer(), prompt, 3, seed=1))
    expected = generate_text(model, BPETokenizer(), prompt, 3, seed=1)
    assert "".join(text for text, _ in pieces) == expected
    assert pieces[-1][0].endswith("�")


def test_an_unknown_character_in_the_prompt_is_reported_in_place_of_the_bars(sampler):
    sampler.prompt.value = "ab!"
    assert "character '!' (U+0021) at position 2" in error_message(sampler)
    assert "<img" not in sampler.drawing.value
    sampler.prompt.value = "ab"
    assert not error_message(sampler) and "<img" in sampler.drawing.value


def test_a_slow_picture_of_old_values_never_covers_a_later_one(sampler, monkeypatch):
    """JupyterLab can pass two changes to two threads. The first picture is the slow one here."""
    picture, first_waits, goes_on = sampler.picture, threading.Event(), threading.Event()

    def slow_at_first():
        drawn = picture()
        if not first_waits.is_set():
            first_waits.set()
            goes_on.wait(10)
        return drawn

    monkeypatch.setattr(sampler, "picture", slow_at_first)
    changes = [
        threading.Thread(target=setattr, args=(control, "value", value))
        for control, value in ((sampler.temperature, 0.5), (sampler.prompt, "ab!"))
    ]
    changes[0].start()
    assert first_waits.wait(10)
    changes[1].start()
    # Without a lock the error for "ab!" would be drawn within this time.
    changes[1].join(0.5)
    goes_on.set()
    for change in changes:
        change.join(10)
    assert "character '!' (U+0021) at position 2" in error_message(sampler)


def test_an_error_while_sampling_is_reported_and_the_button_works_again(sampler):
    sampler.prompt.value = ""
    sampler.sample.click()
    assert "the prompt is empty" in error_message(sampler)
    assert not sampler.sample.disabled and sampler.stop.disabled


def test_a_sampler_without_models_says_how_to_get_one():
    sampler = Sampler({})
    assert "run chapter 4" in error_message(sampler)
    sampler.sample.click()
    assert "run chapter 4" in error_message(sampler)
    assert "run chapter 4" in sampler._repr_mimebundle_()["text/html"]


def test_the_text_streams_until_stop_is_clicked(sampler):
    updates = []
    sampler.text.observe(lambda change: updates.append(change["new"]), names="value")
    sampler.length.value = 100

    async def reader():
        sampler.sample.click()
        while len(updates) < 5 and not sampler.task.done():
            await asyncio.sleep(0)
        assert sampler.sample.disabled and not sampler.stop.disabled
        # A second click can arrive before the browser has disabled the button.
        sampler.sample.click()
        sampler.stop.click()
        await sampler.task

    asyncio.run(reader())
    assert 5 <= len(updates) <= 7 and len(set(map(len, updates))) == len(updates)
    assert f"sample 1 stopped: {len(updates)} pieces" in sampler.status.value
    assert not sampler.sample.disabled and sampler.stop.disabled
    sampler.sample.click()
    assert "sample 2 done: 100 pieces" in sampler.status.value


def test_a_changed_control_keeps_the_status_of_a_running_sample_and_shows_its_own_error(sampler):
    async def reader():
        # Two clicks in the same turn of the loop start one sample.
        sampler.sample.click()
        sampler.sample.click()
        await asyncio.sleep(0)
        sampler.model.value = "second"
        assert "sample 1 is being written by first" in sampler.status.value
        sampler.prompt.value = "ab!"
        await sampler.task

    asyncio.run(reader())
    assert "sample 1 done: 12 pieces by first" in sampler.status.value
    assert "character &#x27;!&#x27;" in sampler.drawing.value
    assert "<img" not in sampler.drawing.value


def test_a_long_sample_is_sent_at_most_once_per_interval_and_complete_at_the_end(
    sampler, monkeypatch
):
    monkeypatch.setattr("gptlib.widgets.sampler.UPDATE_INTERVAL", 0.1)
    updates = []
    sampler.text.observe(lambda change: updates.append(change["new"]), names="value")
    sampler.length.value = 100
    start = time.monotonic()
    sampler.sample.click()
    assert len(updates) <= 2 + (time.monotonic() - start) / 0.1
    assert len(box_numbers(updates[-1])) == 100


def test_a_sample_redraws_the_bars_if_the_model_was_trained_since(sampler, models):
    model, _ = models["first"]
    before = sampler.drawing.value
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5)
    sampler.sample.click()
    _, alt = sampler.picture()
    assert sampler.drawing.value != before and html.escape(alt) in sampler.drawing.value
    assert "sample 1 done: 12 pieces" in sampler.status.value


def test_a_sample_redraws_the_bars_if_the_checkpoint_was_replaced(tmp_path, models):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, *models["first"])
    sampler = Sampler({"best": path}, prompt="abc", length=3)
    before = sampler.drawing.value
    save_checkpoint(path, *models["second"])
    sampler.sample.click()
    expected = Sampler(models, prompt="abc")
    expected.model.value = "second"
    assert sampler.drawing.value == expected.drawing.value != before


def test_a_sample_of_an_unchanged_model_draws_no_new_bars(sampler, monkeypatch):
    monkeypatch.setattr(sampler, "redraw", lambda: pytest.fail("the bars were drawn again"))
    sampler.sample.click()
    assert "sample 1 done" in sampler.status.value and not error_message(sampler)


def test_invisible_characters_have_signs_and_dollars_are_escaped_on_axes_only():
    page = token_boxes([(c, 1.0, "") for c in "\t\n\0\u200b $é漢"], "x")
    shown = re.findall('color:#111111">(.*?)<br>', page)
    assert shown == ["⇥", "⏎", "U+0000", "U+200B", "&nbsp;", "$", "é", "漢"]
    tokenizer = CharTokenizer("$\\\t")
    assert token_labels(tokenizer, tokenizer.encode("\\$\t")) == ["\\", "$", "⇥"]
    assert axis_labels(["a$", "b"]) == [r"a\$", "b"]


def test_a_dollar_is_escaped_on_an_axis_and_not_in_a_text(tiny):
    models = {"costly": (tiny(vocab_size=3), CharTokenizer("$ab"))}
    sampler, explorer = Sampler(models, prompt="a"), AttentionExplorer(models, "$ab$")
    for widget in (sampler, explorer):
        figure, alt = widget.picture()
        labels = []
        for axes in figure.axes:
            labels += [*axes.get_xticklabels(), *axes.get_yticklabels()]
        texts = [label.get_text() for label in labels]
        assert "'$'" in alt and r"\$" in texts and "$" not in texts
    assert "\\" not in explorer.static_html()


def test_strength_is_shown_by_number_edge_and_colour():
    page = token_boxes([("a", 0.9, "90"), ("<", 0.2, "20"), ("\n", 0.01, "1")], "x")
    strong, medium, weak = re.findall('<span style="display.*?</span></span>', page)
    assert "3px solid" in strong and "3px dashed" in medium and "3px dotted" in weak
    assert ">90<" in strong and "&lt;" in medium and "⏎" in weak
    colours = re.findall("background-color:#[0-9a-f]{6};", page)
    assert len(set(colours)) == 3


def test_only_checkpoints_that_can_be_sampled_are_found(tmp_path, tiny):
    save_checkpoint(tmp_path / "04/best.safetensors", tiny(vocab_size=10), TOKENIZER)
    save_checkpoint(tmp_path / "04/without_tokenizer.safetensors", tiny(vocab_size=10))
    save_checkpoint(tmp_path / "02/other_class.safetensors", torch.nn.Linear(1, 1), TOKENIZER)
    (tmp_path / "broken.safetensors").write_bytes(b"half a file")
    odd = {"model": ["GPT"], "config": {}, "tokenizer": {"class": "x"}, "about": {}}
    for i, header in enumerate((json.dumps(odd), "[" * 10**5)):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{i}.safetensors", {"gptlib": header})
    assert find_checkpoints(tmp_path) == {"04/best": tmp_path / "04/best.safetensors"}
    sampler = Sampler(find_checkpoints(tmp_path), prompt="a", length=3)
    sampler.sample.click()
    assert "done: 3 pieces" in sampler.status.value


@pytest.mark.parametrize(
    "options",
    [{}, {"attention": "toeplitz", "token_shift": True}, {"memory": "mean", "window": 4}],
    ids=str,
)
def test_checkpoints_of_gpts_and_variants_are_found_and_sampled(tmp_path, tiny, options):
    save_checkpoint(tmp_path / "best.safetensors", tiny(vocab_size=10, **options), TOKENIZER)
    save_checkpoint(tmp_path / "bigram.safetensors", Bigram(10), TOKENIZER)
    sampler = Sampler(find_checkpoints(tmp_path), prompt="a", length=3)
    assert list(sampler.model.options) == ["best", "bigram"]
    for name in sampler.model.options:
        sampler.model.value = name
        sampler.sample.click()
        assert f"done: 3 pieces by {name}" in sampler.status.value


# The attention explorer ---------------------------------------------------------------------------


def attention_input(model, idx, layer):
    """Return what a layer's attention reads, (T, C)."""
    inputs = []
    attention = model.blocks[layer].attention
    hook = attention.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        model(idx[None])
    hook.remove()
    return inputs[0][0]


@pytest.mark.parametrize("token_shift", [False, True])
def test_attention_weights_equal_the_formula(tiny, token_shift):
    options = {"token_shift": True} if token_shift else {}
    model, idx = tiny(**options), torch.tensor([1, 5, 2, 7, 7])
    x = attention_input(model, idx, layer=1)
    with torch.no_grad():
        q, k, _ = model.blocks[1].attention.qkv(x).chunk(3, dim=-1)
    # The second of two heads of size 6.
    q, k = q[:, 6:], k[:, 6:]
    future = torch.ones(5, 5).triu(1) == 1
    scores = (q @ k.T / 6**0.5).masked_fill(future, -torch.inf)
    weights = attention_weights(model, idx)
    assert weights.shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights[1, 1], scores.softmax(-1))


def test_attention_weights_include_the_factors_after_the_softmax(tiny):
    model, plain = tiny(attention="toeplitz"), tiny()
    idx = torch.arange(6)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.by_distance.copy_(torch.ones(2, 8))
            block.attention.by_key.copy_(torch.ones(2, 8))
        plain.load_state_dict(model.state_dict(), strict=False)
        before = attention_weights(model, idx)
        torch.testing.assert_close(before, attention_weights(plain, idx))
        by_distance = torch.linspace(1, 2, 8).expand(2, 8)
        model.blocks[1].attention.by_distance.copy_(by_distance)
    expected = before[1] * toeplitz(by_distance[:, :6])
    torch.testing.assert_close(attention_weights(model, idx)[1], expected)


@pytest.mark.parametrize("attention", ["plain", "time_weighted", "toeplitz", "relative_bias"])
def test_attention_weights_times_values_are_the_output_of_the_layer(tiny, attention):
    model, idx = tiny(attention=attention), torch.arange(7)
    layer = model.blocks[0].attention
    x = attention_input(model, idx, layer=0)[None]
    with torch.no_grad():
        _, _, v = layer.split_heads(layer.qkv(x))
        output = layer.merge_heads(attention_weights(model, idx)[0] @ v)
        torch.testing.assert_close(output, layer(x))


def test_attention_weights_leave_the_model_unchanged(tiny):
    model, idx = tiny(dropout=0.5).train(), torch.arange(5)
    layer = model.blocks[0].attention
    attributes = set(vars(layer))
    # The rows sum to 1, so dropout was off.
    torch.testing.assert_close(attention_weights(model, idx).sum(-1), torch.ones(2, 2, 5))
    assert model.training and not layer._forward_pre_hooks and set(vars(layer)) == attributes


def test_a_model_without_attention_is_reported_in_the_explorer():
    explorer = AttentionExplorer({"bigram": (Bigram(10), TOKENIZER)}, "abc")
    assert "a Bigram has no attention" in error_message(explorer)


@pytest.mark.parametrize("text", ["abc", "abcd", "abc hgf abc"])
def test_a_model_that_reads_in_windows_is_reported_in_the_explorer(rolling, text):
    message = error_message(AttentionExplorer(rolling, text))
    assert "a RollingGPT does not read its text in one piece" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("layer", 2), ("head", 2), ("position", 3), ("text", "hgfe"), ("other", "second"),
     ("model", "second")],
)
def test_each_control_of_the_explorer_changes_its_picture(models, name, value):
    explorer = AttentionExplorer(models, "abc abc")
    before = explorer.picture()[1]
    getattr(explorer, name).value = value
    assert not error_message(explorer)
    after = explorer.picture()[1]
    assert after != before and html.escape(after) in explorer.drawing.value


def test_the_map_shows_the_chosen_layer_and_head(models):
    explorer = AttentionExplorer(models, "abc abc")
    idx = torch.tensor(TOKENIZER.encode("abc abc"))
    weights = attention_weights(models["first"][0], idx)
    for layer in (1, 2):
        for head in (1, 2):
            explorer.layer.value, explorer.head.value = layer, head
            figure, _ = explorer.picture()
            drawn = figure.axes[0].images[0].get_array()
            assert drawn.tolist() == weights[layer - 1, head - 1].tolist()


def test_number_fields_end_at_the_last_layer_head_and_token(models):
    explorer = AttentionExplorer(models, "abc abc")
    assert (explorer.layer.max, explorer.head.max, explorer.position.max) == (2, 2, 6)
    explorer.position.value, explorer.layer.value = 6, 2
    explorer.text.value, explorer.model.value = "ab", "second"
    assert (explorer.layer.value, explorer.head.max, explorer.position.value) == (1, 1, 1)
    assert not error_message(explorer)


def test_two_models_are_drawn_one_above_the_other(models):
    explorer = AttentionExplorer(models, "abc abc")
    # A map, its colour bar, and arcs.
    assert len(explorer.picture()[0].axes) == 3
    explorer.other.value = "second"
    figure, alt = explorer.picture()
    assert len(figure.axes) == 6 and "first, layer 1" in alt and "second, layer 1" in alt
    explorer.layer.value = 2
    assert "second has no layer 2 with a head 1" in error_message(explorer)


@pytest.mark.parametrize(
    ("text", "message"),
    [("abc!", "character '!'"), ("", "0 tokens"),
     ("abcdefgh ", "9 tokens: write 1 to 8 tokens for first")],
)
def test_an_unreadable_text_is_reported_in_the_explorer(models, text, message):
    explorer = AttentionExplorer(models, "abc")
    explorer.text.value = text
    assert message in error_message(explorer)


def test_arcs_lead_from_the_query_to_the_keys_with_the_weights_as_widths(models):
    explorer = AttentionExplorer(models, "abcdef")
    explorer.position.value = 4
    _, weights = explorer.read("first")
    _, arcs, _ = explorer.picture()[0].axes
    widths = [patch.get_linewidth() for patch in arcs.patches]
    assert widths == pytest.approx([0.3 + 6 * w for w in weights[4, :5].tolist()])
    ends = [patch.center[0] + patch.width / 2 for patch in arcs.patches[:4]]
    assert ends == [4, 4, 4, 4]


# The merge stepper --------------------------------------------------------------------------------


def test_the_stepper_splits_like_the_tokenizer_of_so_many_merges():
    stepper = MergeStepper(BPE, "lowest newer")
    for n in range(len(BPE.merges) + 1):
        stepper.merges.value = n
        early = BPETokenizer(list(BPE.merges)[:n], BPE.pattern)
        assert [i for i, _ in stepper.tokens_after(n)] == early.encode("lowest newer")
        assert f"after {n} merges" in stepper.drawing.value
    expected = [(i, BPE.token_bytes(i)) for i in BPE.encode("lowest newer")]
    assert stepper.tokens_after(len(BPE.merges)) == expected


def test_special_tokens_below_the_merges_keep_their_ids():
    merges = [(108, 111), (256 + 1, 119)]
    stepper = MergeStepper(BPETokenizer(merges, special_tokens={"<e>": 256}), "low")
    for n, ids in enumerate([[108, 111, 119], [257, 119], [258]]):
        stepper.merges.value = n
        assert box_numbers(stepper.drawing.value) == [str(i) for i in ids]
    assert "become token 258" in stepper.status.value


def test_the_stepper_names_the_last_merge_and_draws_the_curve():
    stepper = MergeStepper(BPE, "low")
    stepper.merges.value = 1
    left, right = list(BPE.merges)[0]
    status = f"merge 1: {chr(left)!r} and {chr(right)!r} become token 256"
    assert html.escape(status) in stepper.status.value
    stepper.merges.value = 0
    assert "every token is a byte" in stepper.status.value
    curve = stepper.picture()[0].axes[0].lines[0].get_ydata()
    assert curve[0] == 1 and list(curve) == sorted(curve, reverse=True)
    assert curve[-1] == len(BPE.encode("low")) / 3


def test_an_incomplete_character_is_shown_as_its_bytes():
    assert [readable(token) for token in ("é".encode()[:1], b"low")] == ["c3", "low"]


def test_an_empty_sentence_is_reported_in_the_stepper():
    stepper = MergeStepper(BPE)
    stepper.sentence.value = ""
    assert "the sentence is empty" in error_message(stepper)
    assert "<img" not in stepper.drawing.value


# The training board -------------------------------------------------------------------------------


def assert_same_weights(model, other):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def uninterrupted(board, model):
    """Train `model` as the board does, without a board, and return the history."""
    return train(model, *board.run[1:], progress=False).history


def second_board(board, model, **options):
    """Return another board for the same run. It continues the run, unless `options` say more."""
    defaults = {"out_dir": board.out_dir, "tokenizer": TOKENIZER, "resume": "auto"}
    return TrainingBoard(model, *board.run[1:], **defaults | options)


def test_a_run_on_the_board_equals_a_run_of_train(board, model):
    board.start.click()
    alone = model()
    history = uninterrupted(board, alone)
    assert_same_weights(board.model, alone)
    assert [row["val_loss"] for row in board.history] == [row["val_loss"] for row in history]
    assert "done: 8 steps" in board.status.value and board.start.description == "Resume"


async def stop_after_step_3(board):
    board.start.click()
    while len(board.history) < 2 and not board.task.done():
        await asyncio.sleep(0.001)
    assert board.start.disabled and not board.stop.disabled
    board.stop.click()
    await board.task


def test_a_stopped_and_resumed_run_ends_with_the_same_weights(board, model):
    slow = board.model.register_forward_hook(lambda *args: time.sleep(0.02))
    asyncio.run(stop_after_step_3(board))
    slow.remove()
    assert "stopped and saved" in board.status.value and len(board.history) < 4
    board.start.click()
    assert "done: 8 steps" in board.status.value
    alone = model()
    uninterrupted(board, alone)
    assert_same_weights(board.model, alone)
    assert [row["step"] for row in board.history] == [0, 3, 6, 8]


def test_stop_saves_the_steps_since_the_last_evaluation(board):
    n_calls = 0

    def stop_in_step_5(module, args):
        nonlocal n_calls
        n_calls += module.training
        # The first call belongs to the evaluation before step 1.
        if n_calls == 6:
            board.stop.click()

    hook = board.model.register_forward_pre_hook(stop_in_step_5)
    board.start.click()
    hook.remove()
    assert "stopped and saved" in board.status.value
    assert [row["step"] for row in board.history] == [0, 3]
    # The step in which Stop was clicked is completed.
    assert read_header(board.out_dir / "last.safetensors")["about"]["step"] == 5


def test_a_later_board_continues_the_run_of_an_earlier_one(board, model):
    # Stop has no effect while nothing runs.
    board.stop.click()
    board.start.click()
    assert "done: 8 steps" in board.status.value
    later = second_board(board, model())
    assert later.history == board.history and later.start.description == "Resume"
    later.start.click()
    assert_same_weights(later.model, board.model)


def test_the_history_of_an_earlier_run_comes_from_its_checkpoint(board, model):
    board.start.click()
    (board.out_dir / "metrics.jsonl").write_text('{"step": 0}\n{"st', encoding="utf-8")
    later = second_board(board, model())
    assert later.history == board.history and later.start.description == "Resume"
    assert second_board(board, board.model, resume="never").history == []
    later.start.click()
    assert later.history == board.history and "done: 8 steps" in later.status.value


def test_a_run_without_its_last_checkpoint_is_neither_resumed_nor_overwritten(board, model):
    board.start.click()
    (board.out_dir / "last.safetensors").unlink()
    later = second_board(board, model())
    assert later.history == [] and later.start.description == "Train"
    before = (board.out_dir / "best.safetensors").read_bytes()
    later.start.click()
    assert "holds a run without last.safetensors" in error_message(later)
    assert later.history == []
    assert (board.out_dir / "best.safetensors").read_bytes() == before


def test_another_run_in_the_folder_is_neither_shown_nor_resumed(board, tiny):
    board.start.click()
    other = second_board(board, tiny(vocab_size=10))
    assert other.history == [] and other.start.description == "Train"
    other.start.click()
    assert "dropout was 0.2 and is now 0.0" in error_message(other) and other.history == []


def test_a_damaged_checkpoint_is_reported_when_it_is_resumed(board, model):
    (board.out_dir / "last.safetensors").write_bytes(b"half a file")
    later = second_board(board, model())
    assert later.history == [] and not error_message(later)
    later.start.click()
    assert "is not a whole checkpoint" in error_message(later)


def test_two_boards_never_train_one_model_or_use_one_folder_at_the_same_time(
    board, model, tmp_path
):
    may_continue = threading.Event()

    async def reader():
        board.start.click()
        await asyncio.sleep(0)
        rivals = [
            second_board(board, board.model),
            second_board(board, board.model, out_dir=tmp_path / "other"),
            second_board(board, model()),
        ]
        for rival in rivals:
            rival.start.click()
            await rival.task
            message = "another board is training this model or saves its run in"
            assert message in error_message(rival) and not rival.start.disabled
        may_continue.set()
        await board.task
        return rivals[0]

    waiting = board.model.register_forward_hook(lambda *args: may_continue.wait(60) and None)
    rival = asyncio.run(reader())
    waiting.remove()
    alone = model()
    uninterrupted(board, alone)
    assert_same_weights(board.model, alone)
    assert not IN_USE and not (tmp_path / "other").exists()
    rival.start.click()
    assert "done: 8 steps" in rival.status.value and rival.history == board.history
    assert "at step 8" in rival.drawing.value


def test_two_clicks_in_one_turn_of_the_loop_start_one_training(board, monkeypatch):
    started = []

    def counted_train(*args, **kwargs):
        started.append(args)
        return train(*args, **kwargs)

    monkeypatch.setattr("gptlib.widgets.board.train", counted_train)

    async def reader():
        board.start.click()
        assert board.start.disabled and not board.stop.disabled
        board.start.click()
        await board.task

    asyncio.run(reader())
    assert len(started) == 1 and "done: 8 steps" in board.status.value


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("x"), KeyError("x")], ids=repr)
def test_any_exception_of_a_training_is_reported_and_the_board_works_again(board, error):
    def fail(*args):
        raise error

    failing = board.model.register_forward_hook(fail)
    board.start.click()
    failing.remove()
    assert type(error).__name__ in error_message(board)
    assert not board.start.disabled and board.stop.disabled and not IN_USE
    board.start.click()
    assert "done: 8 steps" in board.status.value and not error_message(board)


def test_an_error_of_the_picture_is_reported_and_does_not_stop_the_training(board):
    draw = board.picture
    board.picture = lambda: None if board.history else draw()
    board.start.click()
    assert "TypeError" in error_message(board)
    assert "done: 8 steps" in board.status.value and len(board.history) == 4


def test_the_board_draws_lines_for_guessing_bigram_and_floor(board):
    assert "not measured yet" in board.picture()[1] and "Not trained yet" in board.static_html()
    board.start.click()
    figure, alt = board.picture()
    (axes,) = figure.axes
    lines = [text.get_text() for text in axes.texts]
    assert lines == ["guessing: ln 10 = 2.303", "bigram = 1.500", "floor = 0.500"]
    assert "at step 8" in alt and "floor = 0.500" in alt
    assert list(axes.lines[0].get_xdata()) == [0, 3, 6, 8]


def test_each_evaluation_adds_a_sample_and_the_latest_is_first(board):
    board.start.click()
    assert [step for step, _, _ in board.samples] == ["8", "6", "3", "0"]
    expected = generate_text(board.model, TOKENIZER, "a", 80, temperature=0.8, seed=1)
    assert board.samples[0][2] == expected


def test_an_error_before_the_first_step_is_reported_on_the_board(board):
    board.run = (*board.run[:3], 500, board.run[4])
    board.start.click()
    assert "block_size=500 should be at most 8" in error_message(board)
    assert not board.start.disabled and board.stop.disabled


# Chapters 6 and 7 ---------------------------------------------------------------------------------


def test_time_weights_are_shown_by_distance(tiny):
    model = tiny(vocab_size=10, attention="time_weighted", block_size=4)
    by_distance = toeplitz(torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2))
    # Weights above the diagonal belong to the future. They must not count.
    model.blocks[1].attention.table.data = by_distance + torch.ones(4, 4).triu(1) * 99
    viewer = TimeWeightViewer({"mine": (model, TOKENIZER)})
    viewer.layer.value = 2
    figure, alt = viewer.picture()
    assert list(figure.axes[1].lines[0].get_ydata()) == [1, 2, 3, 4]
    assert "weight after the softmax, from 1.00 at distance 0 to 4.00" in alt


def test_time_weights_include_the_factor_of_each_key(tiny):
    model = tiny(vocab_size=10, attention="toeplitz", block_size=4)
    for block in model.blocks:
        block.attention.by_distance.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
        block.attention.by_key.data = torch.tensor([[5.0] * 4, [1.0, 2.0, 3.0, 4.0]])
        # All scores are 0, so the softmax gives equal weights.
        block.attention.qkv.weight.data.zero_()
    viewer = TimeWeightViewer({"mine": (model, TOKENIZER)})
    assert list(viewer.picture()[0].axes[1].lines[0].get_ydata()) == [5, 10, 15, 20]
    viewer.head.value = 2
    kind, matrix = viewer.read()
    assert kind == "weight after the softmax"
    equal = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    expected = attention_weights(model, torch.arange(4))[0, 1]
    torch.testing.assert_close(equal * matrix, expected)


def test_a_bias_is_named_and_a_plain_model_is_reported(tiny, models):
    biased = tiny(vocab_size=10, attention="relative_bias")
    viewer = TimeWeightViewer({"bias": (biased, TOKENIZER), **models})
    assert "bias before the softmax" in viewer.picture()[1]
    viewer.model.value = "first"
    assert "first has no time-weighting" in error_message(viewer)


def test_the_context_changes_the_loss_from_the_second_window_on(rolling):
    tokens, with_context, without, window, note = ContextViewer(rolling, "abc hgf abc").read()
    assert (len(tokens), window, note) == (10, 4, "")
    assert with_context[:4] == without[:4]
    assert all(a != b for a, b in zip(with_context[4:], without[4:], strict=True))


def test_a_line_stands_after_the_last_token_that_each_window_predicts(rolling):
    figure, _ = ContextViewer(rolling, "abc hgf abc").picture()
    (axes,) = figure.axes
    assert [line.get_xdata()[0] for line in axes.lines[2:]] == [4.5, 8.5]


def test_only_the_beginning_of_a_long_text_is_read_and_this_is_reported(rolling):
    viewer = ContextViewer(rolling, "abc hgf " * 190)
    figure, alt = viewer.picture()
    (axes,) = figure.axes
    assert len(axes.lines[0].get_xdata()) == 255 and len(axes.get_xticks()) <= 100
    for text in (alt, axes.get_xlabel(), viewer.static_html()):
        assert "only the first 256 of the text's 1,520 tokens are read" in text
    short = ContextViewer(rolling, ("abc hgf " * 190)[:256])
    assert viewer.read()[1] == short.read()[1]


def test_a_model_without_windows_is_reported_in_the_context_viewer(models, tiny):
    variant = tiny(vocab_size=10, attention="toeplitz")
    for viewed in (models, {"variant": (variant, TOKENIZER)}):
        message = error_message(ContextViewer(viewed, "abc"))
        assert "passes no context from window to window" in message


# A row of the bigram table ------------------------------------------------------------------------


def bars_of(figure, panel=0):
    """Return the heights of the filled bars of an axes, and those of the frames."""
    bars = figure.axes[panel].patches
    return ([float(bar.get_height()) for bar in bars if bar.get_fill()],
            [float(bar.get_height()) for bar in bars if not bar.get_fill()])


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 100.0])
def test_a_row_is_that_of_the_bigram_model(smoothing):
    widget = BigramRow(COUNTS, TOKENIZER)
    table = Bigram.from_counts(COUNTS, smoothing).table.weight.detach().softmax(-1)
    for letter in ALPHABET:
        widget.text.value, widget.smoothing.value = letter, smoothing
        filled, frames = bars_of(widget.picture()[0])
        row = table[TOKENIZER.encode(letter)[0]]
        torch.testing.assert_close(torch.tensor(filled), row)
        as_counted = Bigram.from_counts(COUNTS, 0).table.weight.detach().softmax(-1)
        torch.testing.assert_close(
            torch.tensor(frames), as_counted[TOKENIZER.encode(letter)[0]])


def test_a_row_without_counts_is_uniform():
    assert row_probabilities(torch.zeros(4), 0.0).tolist() == [0.25] * 4


def test_the_last_character_that_was_typed_counts():
    widget = BigramRow(COUNTS, TOKENIZER, "a")
    first = widget.drawing.value
    widget.text.value = "abcab"
    assert "after &#x27;b&#x27;" in widget.drawing.value and widget.drawing.value != first
    widget.text.value = "a\n"
    assert "after &#x27;⏎&#x27;" in widget.drawing.value


def test_the_axes_and_the_places_of_the_bars_are_the_same_for_all_letters_and_smoothings():
    widget = BigramRow(COUNTS, TOKENIZER)
    seen = set()
    for letter, smoothing in (("a", 0.0), ("b", 1000.0), (" ", 1.0)):
        widget.text.value, widget.smoothing.value = letter, smoothing
        (axes,) = widget.picture()[0].axes
        labels = tuple(label.get_text() for label in axes.get_xticklabels())
        seen.add((axes.get_ylim(), axes.get_xlim(), labels))
    assert len(seen) == 1


def test_a_bigram_model_has_no_smoothing_slider():
    model = Bigram.from_counts(COUNTS, 3.0)
    widget = BigramRow(model, TOKENIZER, "a")
    assert {control.description for control in controls(widget)} == {"Type a letter"}
    filled, frames = bars_of(widget.picture()[0])
    counted = BigramRow(COUNTS, TOKENIZER, "a")
    torch.testing.assert_close(torch.tensor(filled), row_probabilities(counted.table[2], 3.0))
    assert not frames


def test_a_large_vocabulary_shows_its_most_frequent_tokens():
    counts = torch.zeros(264, 264)
    counts[:, 100:170] = 1
    widget = BigramRow(counts, BPE, "low")
    assert widget.shown() == list(range(100, 170))
    assert len(bars_of(widget.picture()[0])[0]) == 70


@pytest.mark.parametrize(("text", "message"), [
    ("", "the field is empty: type a letter"),
    ("∞", "character '∞' (U+221E) at position 0 is not among the 10 characters"),
])
def test_a_letter_without_a_row_is_reported(text, message):
    widget = BigramRow(COUNTS, TOKENIZER, "a")
    widget.text.value = text
    assert message in error_message(widget)


@pytest.mark.parametrize(("table", "message"), [
    (COUNTS[:3, :3], "the table has 3 rows and the tokenizer 10 tokens"),
    (COUNTS[:3], r"table has the shape \(3, 10\), it should have the shape \(V, V\)"),
    ([[1.0]], "table is list, it should be counts"),
])
def test_a_table_that_does_not_fit_is_reported(table, message):
    with pytest.raises(ValueError, match=message):
        BigramRow(table, TOKENIZER)


# Several tokenizers -------------------------------------------------------------------------------


class Encoding:
    """The methods of a tiktoken.Encoding that the comparison needs: every byte is a token."""

    def encode(self, text, disallowed_special):
        assert disallowed_special == ()
        return [byte + 1000 for byte in text.encode()]

    def decode_single_token_bytes(self, token):
        return bytes([token - 1000])


def test_each_tokenizer_shows_its_own_tokens():
    widget = TokenizerComparison({"ours": BPE, "bytes": Encoding()}, "lowest é")
    page = widget.static_html()
    ours = [str(i) for i in BPE.encode("lowest é")]
    theirs = [str(1000 + byte) for byte in "lowest é".encode()]
    assert box_numbers(page) == ours + theirs and "c3" in page
    assert f"ours: {len(ours)} tokens" in page and "bytes: 9 tokens" in page
    assert page in widget.drawing.value
    figure, alt = widget.picture()
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [len(ours), 9]
    assert axes.get_xlim() == (0, 1.08 * 9) and f"ours {len(ours)}, bytes 9" in alt


def test_a_missing_tokenizer_is_a_sentence_and_the_others_are_shown():
    widget = TokenizerComparison({"ours": BPE, "GPT-4": None}, "lowest")
    assert not error_message(widget)
    page = widget.static_html()
    assert "GPT-4 cannot be shown, because its file is not on this computer" in page
    assert box_numbers(page) == [str(i) for i in BPE.encode("lowest")]
    assert "GPT-4" not in widget.picture()[1]


def test_a_new_sentence_changes_the_boxes():
    widget = TokenizerComparison({"ours": BPE}, "lowest")
    widget.sentence.value = "newer"
    assert box_numbers(widget.drawing.value) == [str(i) for i in BPE.encode("newer")]


@pytest.mark.parametrize(("sentence", "message"), [
    ("", "the sentence has 0 characters: write 1 to 1,000"),
    ("a" * 1001, "the sentence has 1,001 characters: write 1 to 1,000"),
])
def test_a_sentence_that_cannot_be_shown_is_reported(sentence, message):
    widget = TokenizerComparison({"ours": BPE})
    widget.sentence.value = sentence
    assert message in error_message(widget)


@pytest.mark.parametrize(("tokenizers", "message"), [
    ({}, "should contain at least one tokenizer"),
    ({"GPT-4": None}, "should contain at least one tokenizer"),
    ({"x": "abc"}, "should be a tokenizer"),
    (BPE, "it should be Mapping"),
])
def test_bad_tokenizers_are_reported(tokenizers, message):
    with pytest.raises(ValueError, match=message):
        TokenizerComparison(tokenizers)


# Weights by distance ------------------------------------------------------------------------------


@pytest.fixture
def distances(tiny):
    model = tiny(vocab_size=10, attention="toeplitz", block_size=16)
    return DistanceWeights({"toeplitz": (model, TOKENIZER)}, "abc cab")


def attention_with(widget, weights, layer=None, head=None):
    """Return the attention of the widget's first head after a change made here, (T, T)."""
    model, tokenizer = widget.models["toeplitz"]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for number in range(len(model.blocks)) if layer is None else [layer]:
        by_distance = model.blocks[number].attention.by_distance.data
        by_distance[slice(None) if head is None else head] = weights[:16]
    idx = torch.tensor(tokenizer.encode(widget.text.value))
    changed = attention_weights(model, idx)[widget.layer.value - 1, widget.head.value - 1]
    model.load_state_dict(state)
    return changed


@pytest.mark.parametrize(("shape", "weight_of"), [
    ("all 1: plain attention", lambda d: 1.0),
    ("half as much with each step back", lambda d: 0.5 ** d),
    ("only the token itself and the two before", lambda d: float(d <= 2)),
    ("only the token before", lambda d: float(d == 1)),
    ("only what is 4 or more back", lambda d: float(d >= 4)),
    ("all 0: no attention", lambda d: 0.0),
])
def test_a_shape_changes_the_attention_of_the_chosen_head(distances, shape, weight_of):
    before = distances.drawing.value
    distances.shape.value = shape
    assert distances.drawing.value != before
    weights = torch.tensor([weight_of(d) for d in range(16)])
    torch.testing.assert_close(
        distances.read()[1]["now"], attention_with(distances, weights, layer=0, head=0))
    assert [slider.value for slider in distances.sliders] == weights[:8].tolist()


def test_a_shape_of_ones_takes_nothing_but_the_factor_of_each_key_from_plain_attention(distances):
    model, _ = distances.models["toeplitz"]
    model.blocks[0].attention.by_key.data.fill_(1)
    distances.shape.value = "all 1: plain attention"
    now = distances.read()[1]["now"]
    torch.testing.assert_close(now.sum(1), torch.ones(len(now)))


@pytest.mark.parametrize(("where", "layer", "head"), [
    (THIS_LAYER, 0, None), (ALL_HEADS, None, None),
])
def test_weights_can_be_applied_to_more_heads(distances, where, layer, head):
    distances.shape.value = "only the token before"
    one_head = distances.read()[2]["now"]
    distances.where.value = where
    weights = torch.tensor([float(d == 1) for d in range(16)])
    torch.testing.assert_close(
        distances.read()[1]["now"], attention_with(distances, weights, layer, head))
    losses = distances.read()[2]
    assert losses["now"] != one_head and losses["now"] != losses["learned"]


def test_a_slider_changes_one_distance_and_keeps_the_others(distances):
    learned = distances.learned().clone()
    assert [slider.value for slider in distances.sliders] == pytest.approx(
        [min(3.0, max(-1.0, w)) for w in learned[:8].tolist()], abs=1e-6)
    distances.sliders[2].value = 1.5
    assert distances.shape.value == BY_HAND and "'drawn by hand'" in distances.picture()[1]
    expected = learned[:16].clone()
    expected[2] = 1.5
    torch.testing.assert_close(distances.weights[:16], expected)
    distances.sliders[3].value = 0.5
    expected[3] = 0.5
    torch.testing.assert_close(
        distances.read()[1]["now"], attention_with(distances, expected, layer=0, head=0))
    distances.shape.value = LEARNED
    attention, losses = distances.read()[1:]
    torch.testing.assert_close(attention["now"], attention["learned"])
    assert losses["now"] == losses["learned"]


def test_the_model_itself_is_never_changed(distances):
    model, _ = distances.models["toeplitz"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distances.shape.value, distances.where.value = "all 0: no attention", ALL_HEADS
    distances.sliders[0].value = 2.0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_limits_of_the_axes_stay_while_the_weights_change(distances):
    seen = set()
    for shape in (LEARNED, "all 0: no attention", "only the token before"):
        distances.shape.value = shape
        figure, _ = distances.picture()
        _, row, weights = figure.axes[:3]
        image = figure.axes[0].images[0]
        seen.add((row.get_ylim(), weights.get_ylim(), image.get_clim()))
    assert len(seen) == 1


def test_another_head_moves_the_sliders_to_its_weights(distances):
    model, _ = distances.models["toeplitz"]
    model.blocks[1].attention.by_distance.data[1] = torch.linspace(0, 1.5, 16)
    distances.layer.value, distances.head.value = 2, 2
    assert [round(slider.value, 2) for slider in distances.sliders] == [
        0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(("text", "message"), [
    ("a", "the text has 1 tokens: write 2 to 16 tokens"),
    ("a" * 17, "the text has 17 tokens: write 2 to 16 tokens"),
    ("ab∞", "character '∞' (U+221E) at position 2"),
])
def test_an_unreadable_text_is_reported_by_the_distance_weights(distances, text, message):
    distances.text.value = text
    assert message in error_message(distances)


def test_a_model_without_weights_by_distance_is_reported(models):
    widget = DistanceWeights(models, "abc")
    assert "first has no weights by distance: choose a Toeplitz" in error_message(widget)
    for shape in ("all 0: no attention", BY_HAND):
        widget.shape.value = shape
        assert "first has no weights by distance" in error_message(widget)
    widget.sliders[0].value = 0.5
    assert "first has no weights by distance" in error_message(widget)


# A fact of the courier ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fact():
    """Return the widget with the trained model of the library."""
    return CourierFact()


@pytest.mark.parametrize("question", [1, 2])
@pytest.mark.parametrize("value", [0, 2, 7])
def test_the_trained_courier_answers_with_the_fact_that_was_chosen(fact, question, value):
    fact.question.value = question
    fact.facts[-question].value = value
    with_memory, without = bars_by_color(fact.picture()[0])
    assert fact.right_answer == value == with_memory.index(max(with_memory))
    assert max(with_memory) > 0.5 and max(without) < 0.5
    assert f"The right answer is {value}" in fact.drawing.value


def bars_by_color(figure):
    """Return the heights of the bars of each colour, in the order of their drawing."""
    bars = {}
    for bar in figure.axes[0].patches:
        bars.setdefault(bar.get_facecolor(), []).append(bar.get_height())
    return list(bars.values())


def test_the_other_facts_hardly_change_the_answer(fact):
    fact.question.value = 1
    fact.facts[2].value = 4
    for value in range(8):
        fact.facts[0].value = value
        assert fact.read()[2]["with its memory"][4] > 0.5


def test_the_axis_of_the_answers_is_fixed(fact):
    fact.facts[2].value = 1
    first = fact.picture()[0].axes[0].get_ylim()
    fact.facts[2].value = 6
    assert fact.picture()[0].axes[0].get_ylim() == first == (0, 1.05)


def test_the_text_of_the_courier_shows_the_fact_that_is_asked_for(fact):
    for field, value in zip(fact.facts, (3, 5, 1), strict=True):
        field.value = value
    fact.question.value = 2
    page = fact.text_boxes()
    texts = re.findall("color:#111111\">(.*?)<br>", page)
    assert texts[:8] == ["a?", "0", ".", "a=", "3", ".", ".", "."] and texts[-1] == "a!"
    strong = re.findall(f"{panel._shade(1.0)};color:#111111\">(.*?)<br>", page)
    assert strong == ["a=", "5", "a!"]
    assert fact.drawing.value.startswith(page)
    assert "a! 3 . . . a= 1 . | a!" in fact.static_html()


def test_a_courier_model_without_contexts_has_one_set_of_bars():
    widget = CourierFact(courier_models(memory="attention"))
    assert len(widget.read()[2]) == 1 and len(bars_by_color(widget.picture()[0])) == 1
    assert not error_message(widget)


def test_a_model_with_another_tokenizer_is_no_courier(models):
    with pytest.raises(ValueError, match="should be a model and its CourierTokenizer"):
        CourierFact(models)


# A tokenizer that knows no line break ------------------------------------------------------------

@pytest.fixture
def models_without_line_break(tiny):
    """Models by the alphabets of their tokenizers."""
    return {alphabet: (tiny(vocab_size=len(alphabet)), CharTokenizer(alphabet))
            for alphabet in ("abc", " abc", "\nabc")}


def test_the_default_prompt_of_the_sampler_is_one_that_the_model_knows(models_without_line_break):
    sampler = Sampler(models_without_line_break)
    assert (sampler.prompt.value, "alert" in sampler.drawing.value) == ("a", False)
    for alphabet, start in {" abc": " ", "\nabc": "\n", "abc": "a"}.items():
        sampler.model.value = alphabet
        assert (sampler.prompt.value, "alert" in sampler.drawing.value) == (start, False)
    assert Sampler({}).prompt.value == "\n"


def test_the_sampler_keeps_a_prompt_that_the_reader_has_written(models_without_line_break):
    sampler = Sampler(models_without_line_break)
    sampler.prompt.value = "cab"
    sampler.model.value = " abc"
    assert sampler.prompt.value == "cab"
    assert Sampler(models_without_line_break, prompt="\n").prompt.value == "\n"


def test_the_training_board_begins_its_samples_with_a_character_that_it_knows(tmp_path, tiny):
    ids = torch.arange(400) % 3
    config = TrainConfig(max_steps=2, eval_interval=2, batch_size=2, warmup=1, device="cpu")
    board = TrainingBoard(tiny(vocab_size=3), ids, ids[:50], 8, config, out_dir=tmp_path,
                          tokenizer=CharTokenizer("abc"))
    board.start.click()
    assert board.prompt == "a" and len(board.samples[0][2]) > 0
    assert "done: 2 steps" in board.status.value


# The singular values of a matrix ------------------------------------------------------------------


@pytest.fixture
def singular():
    torch.manual_seed(0)
    return SingularValues({"wide": torch.randn(3, 7), "tall": torch.randn(8, 2)})


@pytest.mark.parametrize("name", ["wide", "tall"])
@pytest.mark.parametrize("steps", [0, 1, 5, 10])
def test_singular_values_are_those_after_the_iteration(singular, name, steps):
    singular.matrix.value, singular.steps.value = name, steps
    matrix = singular.matrices[name]
    expected = orthogonalize(matrix, steps) if steps else matrix / matrix.norm()
    (axes,) = singular.picture()[0].axes
    before, now = (torch.tensor(line.get_ydata()) for line in axes.lines)
    torch.testing.assert_close(now, torch.linalg.svdvals(expected))
    torch.testing.assert_close(before, torch.linalg.svdvals(matrix / matrix.norm()))


def test_the_axis_of_singular_values_stays_while_the_slider_moves(singular):
    seen = set()
    for steps in (0, 1, 10):
        singular.steps.value = steps
        (axes,) = singular.picture()[0].axes
        seen.add((axes.get_ylim(), axes.get_xlim()))
    assert len(seen) == 1


def test_a_matrix_of_zeros_keeps_its_singular_values():
    widget = SingularValues({"zeros": torch.zeros(3, 2)}, steps=5)
    assert not error_message(widget) and widget.values(0).tolist() == [0.0, 0.0]


def test_the_page_without_a_kernel_shows_every_step(singular):
    page = Page(singular.static_html())
    assert "tr" in page.tags and singular.static_html().count("<tr>") == 12


# NearCopies ---------------------------------------------------------------------------------------

NAMES = ["a.txt", "b.txt", "c.txt"]
SIMILARITY = {(0, 1): 0.9, (0, 2): 0.3, (1, 2): 0.5}


def test_near_copies_counts_the_pairs_from_the_threshold_on():
    widget = NearCopies(NAMES, SIMILARITY, threshold=0.5)
    assert [widget.count(threshold) for threshold in (0.0, 0.5, 0.51, 0.9, 1.0)] == [3, 2, 1, 1, 0]
    before = widget.drawing.value
    widget.threshold.value = 0.95
    assert widget.drawing.value != before
    assert "0 pairs are near copies" in widget.drawing.value


def test_near_copies_without_a_kernel_is_a_table_from_the_most_similar_pair_on():
    page = NearCopies(NAMES, SIMILARITY).static_html()
    assert page.index("a.txt, b.txt") < page.index("b.txt, c.txt") < page.index("a.txt, c.txt")
    assert "0.90" in page


@pytest.mark.parametrize(("arguments", "fragment"), [
    ((NAMES, {}), "similarity is empty"),
    ((NAMES, {(0, 3): 0.5}), r"similarity has the pair \(0, 3\), there are 3 names"),
    ((NAMES, {(0, 1): 1.5}), "should be between 0 and 1"),
    ((NAMES, {"a": 0.5}), "it should be a pair of two numbers"),
    ((NAMES, SIMILARITY, 2.0), "threshold=2.0 should be between 0 and 1"),
], ids=["no pairs", "unknown document", "similarity above 1", "no pair", "threshold above 1"])
def test_near_copies_refuses_bad_values(arguments, fragment):
    with pytest.raises(ValueError, match=fragment):
        NearCopies(*arguments)
