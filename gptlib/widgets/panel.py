"""What all widgets share: named controls, a status line, a picture with a text, a static page."""

import asyncio
import base64
import html
import io
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path

import ipywidgets as W
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from gptlib.checkpoint import CheckpointError, read_header
from gptlib.checks import check_arguments, check_vocabulary, checked_value, optional, some_path
from gptlib.config import project_dir
from gptlib.plot import visible
from gptlib.tokenizer import Tokenizer, any_tokenizer
from gptlib.variants.build import MODEL_NAMES, load_model

# A style that shows the whole name of a control, however long it is.
FULL_NAME = {"description_width": "initial"}

# What a widget can choose from, by name: the path of a checkpoint, or a model and its tokenizer.
# No run should be training these models at the same time.
Models = Mapping[str, str | Path | tuple[nn.Module, Tokenizer]]

# The colours of strength 0 and strength 1. Dark text can be read on both.
WEAKEST, STRONGEST = (0xFF, 0xFF, 0xFF), (0x7F, 0xBF, 0xE6)


def models_kind(name: str, value: Models) -> Models:
    """The kind of the models that a widget offers."""
    for key, model in checked_value(name, value, Mapping).items():
        what = f"{name}[{key!r}]"
        if isinstance(model, tuple) and len(model) == 2:
            checked_value(what, model[0], nn.Module)
            any_tokenizer(what, model[1])
            check_vocabulary(*model)
        elif not isinstance(model, str | Path):
            raise ValueError(
                f"{what} is {type(model).__name__}, it should be a path or (model, tokenizer)"
            )
    return value


class Panel(W.VBox):
    """The base class of the widgets: rows of controls, then a status line, then a picture.

    A subclass passes its rows to `__init__` and defines `picture` and `static_html`.
    """

    def __init__(self, *rows: W.Widget):
        # The progress of the work that a button started.
        self.status = W.HTML()
        # The picture, or the error that prevented it.
        self.drawing = W.HTML()
        self.busy = False
        self.stop_requested = threading.Event()
        # JupyterLab can pass the changes of two controls to two threads of the kernel.
        self.one_drawing_at_a_time = threading.RLock()
        super().__init__([*rows, self.status, self.drawing])

    def picture(self) -> tuple[Figure, str]:
        """Return the figure that the widget shows, and its text for readers who cannot see it."""
        raise NotImplementedError

    def static_html(self) -> str:
        """Return the same content as HTML without pictures, for a page that has no kernel."""
        raise NotImplementedError

    def redraw(self) -> None:
        self.drawing.value = image_html(*self.picture())

    def show_status(self, text: str) -> None:
        self.status.value = f'<div role="status">{html.escape(text)}</div>'

    def show_error(self, error: BaseException) -> None:
        """Show an error below the controls. JupyterLab itself would hide it in its log."""
        self.status.value = error_html(error)

    def draw_or_show_error(self, draw: Callable[..., None], *args) -> None:
        """Call `draw(*args)`. An error replaces the picture, which is no longer true.

        A second thread waits here until the first has drawn. Then it reads the controls, so the
        last picture always shows their last values.
        """
        with self.one_drawing_at_a_time:
            try:
                draw(*args)
            except Exception as error:
                self.drawing.value = error_html(error)

    def redraw_on_change(self, *controls: W.Widget) -> None:
        """Draw now, and again whenever one of the `controls` changes."""

        def draw(change=None):
            if not self.busy:
                self.status.value = ""
            self.draw_or_show_error(self.redraw)

        for control in controls:
            control.observe(draw, names="value")
        draw()

    def start_and_stop_buttons(
        self, name: str, work: Callable[[], Coroutine]
    ) -> tuple[W.Button, W.Button]:
        """Return a button that starts `work`, and a button that sets `stop_requested`.

        In JupyterLab `work` runs beside the other tasks of the kernel. Where no event loop runs,
        a click returns when `work` has ended.
        """
        start_button = W.Button(description=name, button_style="primary")
        stop_button = W.Button(description="Stop", disabled=True)

        def set_busy(busy):
            self.busy = start_button.disabled = busy
            stop_button.disabled = not busy

        async def run():
            try:
                await work()
            except Exception as error:
                self.show_error(error)
            finally:
                set_busy(False)

        def start(button):
            # A second click can arrive before the browser has disabled the button.
            if self.busy:
                return
            set_busy(True)
            self.stop_requested.clear()
            try:
                # The loop has only a weak reference to its tasks. The attribute keeps this one.
                self.task = asyncio.get_running_loop().create_task(run())
            except RuntimeError:
                asyncio.run(run())

        start_button.on_click(start)
        stop_button.on_click(lambda button: self.stop_requested.set())
        return start_button, stop_button

    def _repr_mimebundle_(self, **kwargs):
        try:
            content = self.static_html()
        except Exception as error:
            content = error_html(error)
        name = type(self).__name__
        note = (
            f"<p><em>{name}: run this page in JupyterLab to move its controls. "
            "This is what it showed when the page was saved:</em></p>"
        )
        static = {"text/html": note + content, "text/plain": f"{name}, a widget"}
        return super()._repr_mimebundle_(**kwargs) | static


# Controls


def number_field(
    name: str, value: float, minimum: float, maximum: float, step: float = 1
) -> tuple[W.Widget, W.HBox]:
    """Return a number field, and a row that holds the field and a slider for the same number.

    The field carries the name, because a slider's handle has no name for a screen reader.
    """
    if isinstance(step, int):
        classes = (W.BoundedIntText, W.IntSlider)
    else:
        classes = (W.BoundedFloatText, W.FloatSlider)
    limits = {"min": minimum, "max": maximum, "step": step}
    field, slider = (cls(value=value, **limits, continuous_update=False) for cls in classes)
    field.description, field.style, field.layout = name, FULL_NAME, W.Layout(width="170px")
    slider.readout = False
    for trait in ("value", "max"):
        W.link((field, trait), (slider, trait))
    return field, W.HBox([field, slider])


def text_area(name: str, value: str, rows: int = 2, **kwargs) -> W.Textarea:
    """Return a text field that keeps line ends. (The browser removes them from a `W.Text`.)"""
    return W.Textarea(
        value, description=name, rows=rows, style=FULL_NAME, continuous_update=False, **kwargs
    )


def dropdown(name: str, models: Models, *others: str) -> W.Dropdown:
    """Return a menu of `others` and the names of the models."""
    return W.Dropdown(options=[*others, *models], description=name, style=FULL_NAME)


# Models


@check_arguments(runs=optional(some_path))
def find_checkpoints(runs: str | Path | None = None) -> dict[str, Path]:
    """Return the checkpoints in a folder that gptlib can load and that contain a tokenizer.

    Args:
        runs: the folder, searched with its subfolders. None means the project's own runs/.

    Returns:
        The paths, by their names relative to `runs` without suffix. Runs that were moved to a
        folder "earlier" are not among them.
    """
    runs = Path(runs) if runs else project_dir() / "runs"
    found = {}
    # For a name that is too long, os.path answers False. pathlib would raise an OSError.
    if not os.path.isdir(runs):
        return found
    for path in sorted(runs.glob("**/*.safetensors")):
        if "earlier" in path.relative_to(runs).parts:
            continue
        try:
            header = read_header(path)
            usable = header["model"] in MODEL_NAMES and header["tokenizer"]
        except (CheckpointError, TypeError, RecursionError):
            # The file is incomplete, or another program wrote it.
            continue
        if usable:
            found[path.relative_to(runs).with_suffix("").as_posix()] = path
    return found


def get_model(models: Models, name: str | None) -> tuple[nn.Module, Tokenizer]:
    """Return the model called `name` and its tokenizer.

    A checkpoint is read again each time, because a run may have improved it.
    """
    if name is None:
        raise CheckpointError(
            "there is no trained model: run chapter 4 or `make course`, which save models in "
            "runs/, then run this cell again"
        )
    if isinstance(models[name], tuple):
        return models[name]
    model, tokenizer = load_model(models[name])
    if tokenizer is None:
        raise CheckpointError(
            f"{models[name]} was saved without a tokenizer: save it with one, or give "
            "(model, tokenizer)"
        )
    return model, tokenizer


def encode(model: nn.Module, tokenizer: Tokenizer, text: str) -> Tensor:
    """Return the ids of `text` as a tensor, (T,), on the model's device."""
    device = next(model.parameters()).device
    return torch.tensor(tokenizer.encode(text), dtype=torch.long, device=device)


# Texts and HTML


def token_labels(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """Return a short text for each token. Spaces and line ends are shown as signs."""
    texts = [tokenizer.decode([i]) for i in ids]
    # `visible` writes \$ for a dollar sign. Only the labels of an axis need that.
    return ["".join(map(visible, text)).replace(r"\$", "$") for text in texts]


def axis_labels(texts: Iterable[str]) -> list[str]:
    r"""Return `texts` with \$ for $, which matplotlib would read as the start of a formula."""
    return [text.replace("$", r"\$") for text in texts]


def format_percent(p: float) -> str:
    """Return a probability in per cent, without the sign.

    >>> format_percent(0.266), format_percent(0.001)
    ('27', '<1')
    """
    return f"{100 * p:.0f}" if p >= 0.005 else "<1"


def describe_largest(values: Sequence[float], names: Sequence[str], n: int = 3) -> str:
    """Return the `n` largest values with their names, for the text of a picture.

    >>> describe_largest([0.2, 0.5, 0.3], ["a", "b", "c"], n=2)
    "'b' 50 %, 'c' 30 %"
    """
    order = np.argsort(-np.asarray(values), kind="stable")[:n]
    return ", ".join(f"{names[i]!r} {format_percent(values[i])} %" for i in order)


def error_html(error: BaseException) -> str:
    """Return an error as HTML.

    The errors of gptlib are ValueErrors with a clear message. Others need the name of their class.
    """
    message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    style = "border:2px solid #d55e00;background-color:#fff4e5;color:#111111;padding:4px 8px"
    return f'<div role="alert" style="{style}">⚠ {html.escape(message)}</div>'


def image_html(figure: Figure, alt: str) -> str:
    """Return a figure as an HTML image with the text `alt`."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90, facecolor="white")
    data = base64.b64encode(png.getvalue()).decode()
    source = f"data:image/png;base64,{data}"
    return f'<img style="max-width:100%" alt="{html.escape(alt)}" src="{source}">'


def table_html(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table."""
    lines = [_table_row("th", header)] + [_table_row("td", row) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _table_row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def token_boxes(tokens: Iterable[tuple[str, float, str]], name: str) -> str:
    """Return tokens as HTML: boxes side by side, each with a number below its text.

    Args:
        tokens: for each token its text, its strength from 0 to 1, and the number as a string.
            Colour and lower edge show the strength. The edge is a line from 0.5, dashes from 0.1,
            and dots below 0.1.
        name: the name of the whole group for a screen reader.
    """
    boxes = "".join(_token_box(*token) for token in tokens)
    style = "font-family:monospace;line-height:1.3"
    return f'<div role="group" aria-label="{html.escape(name)}" style="{style}">{boxes}</div>'


def _token_box(text: str, strength: float, number: str) -> str:
    characters = "".join(c if c.isprintable() else visible(c) for c in text)
    shown = html.escape(characters).replace(" ", "&nbsp;")
    edge = "solid" if strength >= 0.5 else "dashed" if strength >= 0.1 else "dotted"
    style = (
        "display:inline-block;text-align:center;min-width:1.3em;margin:1px;"
        f"border:1px solid #999999;border-bottom:3px {edge} #222222;"
        f"background-color:{_shade(strength)};color:#111111"
    )
    small = f'<span style="font-size:9px">{html.escape(number)}</span>'
    line_end = "<br>" if text.endswith("\n") else ""
    return f'<span style="{style}">{shown}<br>{small}</span>{line_end}'


def _shade(strength: float) -> str:
    """Return the colour of a strength, such as #7fbfe6 for 1."""
    strength = min(1.0, strength)
    mixed = (round(a + (b - a) * strength) for a, b in zip(WEAKEST, STRONGEST, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
