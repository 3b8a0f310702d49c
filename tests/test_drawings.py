"""The drawings of the chapters: their numbers, their files, and how a chapter shows them."""

import base64
import importlib
import json
import pathlib
from functools import cache
from itertools import combinations

import draw as drawer
import numpy as np
import pytest
import style
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from PIL import Image
from torch.nn import functional as F

from gptlib import plot
from gptlib.attention import simple_attention
from gptlib.bpe.simple import encode, train
from gptlib.plot import show_drawing

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "figures/drawings"
ALT_TEXTS = json.loads((FOLDER / "alt_texts.json").read_text(encoding="utf-8"))
each_drawing = pytest.mark.parametrize("name", drawer.NAMES)


def module(name):
    return importlib.import_module(f"drawings.{name}")


@cache
def drawing_of(name):
    return module(name).draw()[0]


def texts_of(drawing):
    """Return the texts of a drawing. Arrows are annotations with an empty text."""
    return [text for text in drawing.axes.texts if text.get_text()]


def written(name):
    return [text.get_text() for text in texts_of(drawing_of(name))]


# Every drawing ------------------------------------------------------------------------------------


def test_every_drawing_has_an_alt_text():
    assert sorted(ALT_TEXTS) == drawer.NAMES


@each_drawing
def test_a_committed_drawing_is_what_its_script_draws(name, tmp_path):
    drawer.save(name, tmp_path)
    alt_texts = json.loads((tmp_path / "alt_texts.json").read_text(encoding="utf-8"))
    assert alt_texts == {name: ALT_TEXTS[name]}
    new, committed = (Image.open(folder / f"{name}.png") for folder in (tmp_path, FOLDER))
    assert new.size == committed.size and new.width == 1400
    # At a tenth of the size, another version of the font changes little.
    small = (140, new.height // 10)
    pixels = [np.asarray(picture.convert("RGB").resize(small, Image.Resampling.BOX), dtype=float)
              for picture in (new, committed)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 3


@each_drawing
def test_a_drawing_is_a_small_file_with_a_long_alt_text(name):
    assert (FOLDER / f"{name}.png").stat().st_size <= 120_000
    assert 150 < len(ALT_TEXTS[name]) < 800


@each_drawing
def test_texts_are_readable_and_do_not_overlap(name):
    drawing = drawing_of(name)
    renderer = FigureCanvasAgg(drawing.figure).get_renderer()
    texts = texts_of(drawing)
    boxes = [text.get_window_extent(renderer) for text in texts]
    edge = drawing.figure.bbox
    for text, box in zip(texts, boxes, strict=True):
        # 9 points at a width of 7 inches.
        assert text.get_fontsize() >= style.SMALL
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1, text
        assert edge.y0 <= box.y0 and box.y1 <= edge.y1, text
    for (a, box_a), (b, box_b) in combinations(zip(texts, boxes, strict=True), 2):
        assert not box_a.padded(-1).overlaps(box_b.padded(-1)), (a, b)


@each_drawing
def test_no_line_and_no_arrow_crosses_a_text(name):
    drawing = drawing_of(name)
    renderer = FigureCanvasAgg(drawing.figure).get_renderer()
    lines = [drawing.axes.transData.transform_path(Path(points)) for points in drawing.lines]
    # A box covers the lines behind it.
    in_boxes = [text for text, _ in drawing.texts_in_boxes]
    for text in set(texts_of(drawing)).difference(in_boxes):
        box = text.get_window_extent(renderer).padded(-1)
        assert not any(line.intersects_bbox(box, filled=False) for line in lines), text


@each_drawing
def test_a_text_fits_into_its_box(name):
    drawing = drawing_of(name)
    renderer = FigureCanvasAgg(drawing.figure).get_renderer()
    for text, patch in drawing.texts_in_boxes:
        inner, outer = text.get_window_extent(renderer), patch.get_window_extent(renderer)
        assert outer.x0 <= inner.x0 and inner.x1 <= outer.x1, text
        assert outer.y0 <= inner.y0 and inner.y1 <= outer.y1, text


def test_a_wrong_name_lists_the_drawings():
    with pytest.raises(SystemExit, match="attention_head, bigram"):
        drawer.main(["atention_head"])


# Numbers ------------------------------------------------------------------------------------------


def test_the_attention_head_has_the_numbers_of_the_library():
    head = module("attention_head")
    steps = head.compute()
    output = simple_attention(steps["q"], steps["k"], steps["v"])
    torch.testing.assert_close(steps["weights"] @ steps["v"], output)
    fused = F.scaled_dot_product_attention(
        *(steps[name][None] for name in "qkv"), is_causal=True)[0]
    torch.testing.assert_close(output, fused)
    shown = written("attention_head")
    weights = [steps["weights"][i, j].item() for i in range(3) for j in range(i + 1)]
    for number in (*weights, *output.flatten().tolist()):
        assert f"{number:.2f}" in shown


def test_the_merges_are_those_of_the_library():
    bpe = module("bpe_merges")
    merges, steps, _ = bpe.compute()
    assert merges == train(bpe.TEXT, bpe.N_MERGES)
    for n, ids in enumerate(steps):
        assert ids == encode(bpe.WORD, train(bpe.TEXT, n))
    # Every merge changes the word, so each row differs from the row above.
    assert [len(ids) for ids in steps] == [7, 6, 5, 4, 3, 2]
    shown = written("bpe_merges")
    assert "merge 3: ␣ + low → ␣low" in shown and "(4 times)" in shown
    assert bpe.TEXT.count(" low") == 4


def test_the_bigrams_probabilities_are_those_of_its_counts():
    bigram = module("bigram")
    tokenizer, ids, logits, _ = bigram.compute()
    assert tokenizer.decode(ids[1].tolist()) == bigram.BATCH[1]
    # After t comes o twice, a space once, and each of the 7 characters once for the smoothing.
    expected = {"o": 3 / 10, " ": 2 / 10}
    for i, p in enumerate(logits[1, 5].softmax(-1).tolist()):
        assert p == pytest.approx(expected.get(tokenizer.decode([i]), 1 / 10))


def test_the_cache_saves_the_rows_that_the_drawing_says(tiny):
    cache = module("kv_cache")
    model = tiny(n_layer=1).eval()
    rows = []
    attention = model.blocks[0].attention
    attention.qkv.register_forward_hook(lambda layer, inputs, output: rows.append(output.shape[1]))
    idx = torch.arange(cache.T)[None]
    model(idx)
    kv = model.new_cache(1)
    model(idx[:, :-1], kv)
    model(idx[:, -1:], kv)
    without, with_cache = cache.rows_computed(False), cache.rows_computed(True)
    assert (rows[0], rows[2]) == (without["keys"], with_cache["keys"])


# In a notebook ------------------------------------------------------------------------------------


@pytest.fixture
def displayed(monkeypatch):
    images = []
    monkeypatch.setattr(plot, "display", images.append)
    return images


@each_drawing
def test_a_chapter_shows_the_committed_file(name, displayed, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    show_drawing(name)
    (image,) = displayed
    assert image.data == (FOLDER / f"{name}.png").read_bytes()
    assert image.alt == ALT_TEXTS[name] and image.width == 700


def test_outside_of_the_course_a_sentence_says_what_is_missing(
        displayed, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plot, "__file__", str(tmp_path / "site-packages/gptlib/plot.py"))
    show_drawing("bigram")
    assert not displayed
    assert capsys.readouterr().out == (
        "The drawing 'bigram' cannot be shown, because the folder figures/drawings of the "
        "course's repository is missing here.\n")


def test_an_unknown_drawing_names_the_known_ones():
    with pytest.raises(ValueError, match="'biggram' should be one of attention_head, bigram"):
        show_drawing("biggram")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_outputs_of_a_notebook_hold_the_present_drawings(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "show_drawing(" in source:
            name = source.split('show_drawing("')[1].split('"')[0]
            output, = cell["outputs"]
            png = base64.b64decode("".join(output["data"]["image/png"]))
            assert png == (FOLDER / f"{name}.png").read_bytes(), name
            assert output["metadata"]["image/png"]["alt"] == ALT_TEXTS[name]
