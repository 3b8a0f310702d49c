"""What all widgets share: named controls, a line that tells how it went, pictures with texts, and what stays without a kernel."""

import asyncio
import base64
import html
import io
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path

import ipywidgets as W
import numpy as np
from matplotlib.figure import Figure
from torch import nn

from gptlib.checkpoint import MODELS, CheckpointError, load_checkpoint, read_header
from gptlib.config import project_dir
from gptlib.plot import visible
from gptlib.tokenizer import Tokenizer

NAMED = {"description_width": "initial"}                # the whole name, however long
# what a widget can choose from: paths of checkpoints, and models with their tokenizers (none that a run is training)
Models = Mapping[str, str | Path | tuple[nn.Module, Tokenizer]]
LIGHT, FULL = (0xFF, 0xFF, 0xFF), (0x7F, 0xBF, 0xE6)    # 0 and 1, both light enough for dark text


class Panel(W.VBox):
    """A widget of this course. A subclass lays out its controls, draws a `picture` and says `what_stays`."""

    def __init__(self, *rows: W.Widget):
        self.status = W.HTML()                  # how the work goes that a button began
        self.drawing = W.HTML()                 # the picture, or why there is none
        self.busy, self.asked_to_stop = False, threading.Event()
        super().__init__([*rows, self.status, self.drawing])

    def picture(self) -> tuple[Figure, str]:
        """What the widget shows, as a figure and a text for those who cannot see it."""
        raise NotImplementedError

    def what_stays(self) -> str:
        """The same as HTML without pictures, for a page that no kernel stands behind."""
        raise NotImplementedError

    def redraw(self) -> None:
        self.drawing.value = image(*self.picture())

    def say(self, text: str) -> None:
        self.status.value = f'<div role="status">{html.escape(text)}</div>'

    def complain(self, error: BaseException) -> None:
        """Show an error where the reader looks; JupyterLab would hide it in its log."""
        self.status.value = alert(error)

    def guard(self, do: Callable[..., None], *how) -> None:
        """Call `do`, which draws, and show its error in place of a picture that is no longer true."""
        try:
            do(*how)
        except Exception as error:
            self.drawing.value = alert(error)

    def on_change(self, do: Callable[[], None], *controls: W.Widget) -> None:
        """Call `do` now and whenever one of the `controls` changes, and show its errors."""
        def changed(change=None):
            if not self.busy:
                self.status.value = ""
            self.guard(do)
        for control in controls:
            control.observe(changed, names="value")
        changed()

    def buttons(self, name: str, work: Callable[[], Coroutine]) -> tuple[W.Button, W.Button]:
        """One that starts `work` beside the kernel's other duties, or to its end where no loop runs; one that asks it to stop."""
        go, stop = W.Button(description=name, button_style="primary"), W.Button(description="Stop", disabled=True)

        async def doing():
            try:
                await work()
            except Exception as error:
                self.complain(error)
            finally:
                self.busy, go.disabled, stop.disabled = False, False, True

        def start(button):
            if self.busy:
                return                          # a second click, sent before the button was seen to be grey
            self.busy, go.disabled, stop.disabled = True, True, False
            self.asked_to_stop.clear()
            try:
                self.task = asyncio.get_running_loop().create_task(doing())     # a name, since the loop itself would forget it
            except RuntimeError:
                asyncio.run(doing())

        go.on_click(start)
        stop.on_click(lambda button: self.asked_to_stop.set())
        return go, stop

    def _repr_mimebundle_(self, **how):
        try:
            stays = self.what_stays()
        except Exception as error:
            stays = alert(error)
        note = f"<p><em>{type(self).__name__}: run this page in JupyterLab to move its controls. As it was saved:</em></p>"
        return super()._repr_mimebundle_(**how) | {"text/html": note + stays, "text/plain": f"{type(self).__name__}, a widget"}


def alert(error: BaseException) -> str:
    """What to tell the reader: this library's errors speak for themselves, others say what they are."""
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return (f'<div role="alert" style="border:2px solid #d55e00;background-color:#fff4e5;color:#111111;padding:4px 8px">'
            f"⚠ {html.escape(said)}</div>")


def number(name: str, value: float, least: float, most: float, step: float = 1) -> tuple[W.Widget, W.HBox]:
    """A number field, and the row that shows it beside a slider. (A slider's handle has no name for a screen reader.)"""
    whole = isinstance(step, int)
    kinds = (W.BoundedIntText, W.IntSlider) if whole else (W.BoundedFloatText, W.FloatSlider)
    field, slider = (kind(value=value, min=least, max=most, step=step, continuous_update=False) for kind in kinds)
    field.description, field.style, field.layout, slider.readout = name, NAMED, W.Layout(width="170px"), False
    for trait in ("value", "max"):
        W.link((field, trait), (slider, trait))
    return field, W.HBox([field, slider])


def find_checkpoints(runs: str | Path | None = None) -> dict[str, Path]:
    """The checkpoints below `runs` (the project's own by default) that can be rebuilt and read text, by their path there."""
    runs = Path(runs) if runs else project_dir() / "runs"
    found = {}
    for path in sorted(runs.glob("**/*.safetensors")):
        try:
            header = read_header(path)
            if header["model"] in MODELS and header["tokenizer"]:
                found[path.relative_to(runs).with_suffix("").as_posix()] = path
        except (CheckpointError, TypeError, RecursionError):
            continue                                # cut off, of another library, or made by hand
    return found


def choice(name: str, models: Models, *others: str) -> W.Dropdown:
    return W.Dropdown(options=[*others, *models], description=name, style=NAMED)


def load(models: Models, name: str | None) -> tuple[nn.Module, Tokenizer]:
    """The model of that name and its tokenizer; a file is read afresh, since a run may still be improving it."""
    if name is None:
        raise CheckpointError("there is no model yet: run chapter 4, or `make course`, which save theirs in runs/, and then this cell")
    if isinstance(models[name], tuple):
        return models[name]
    checkpoint = load_checkpoint(models[name])
    return checkpoint.model, checkpoint.tokenizer


def labels(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """A sign or a short text for each token."""
    return ["".join(map(visible, tokenizer.decode([i]))).replace(r"\$", "$") for i in ids]


def on_axis(texts: Iterable[str]) -> list[str]:
    """The same where matplotlib would take dollar signs for mathematics."""
    return [text.replace("$", r"\$") for text in texts]


def image(figure: Figure, alt: str) -> str:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90, facecolor="white")
    return f'<img style="max-width:100%" alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'


def boxes(tokens: Iterable[tuple[str, float, str]], name: str) -> str:
    """Tokens side by side, each in a frame, with a number below it.

    Args:
        tokens: text, strength from 0 to 1, and the number as it should be read. Strength is shown by colour, and by
            the frame's lower edge: a line from ½ on, dashes from ⅒ on, dots below.
    """
    cells = []
    for text, strength, figure in tokens:
        shade = "#" + "".join(f"{round(a + (b - a) * min(1.0, strength)):02x}" for a, b in zip(LIGHT, FULL, strict=True))
        edge = "solid" if strength >= 0.5 else "dashed" if strength >= 0.1 else "dotted"
        shown = html.escape("".join(c if c.isprintable() else visible(c) for c in text)).replace(" ", "&nbsp;")
        cells.append(f'<span style="display:inline-block;text-align:center;min-width:1.3em;margin:1px;border:1px solid #999999;'
                     f'border-bottom:3px {edge} #222222;background-color:{shade};color:#111111">{shown}<br>'
                     f'<span style="font-size:9px">{html.escape(figure)}</span></span>' + ("<br>" if text.endswith("\n") else ""))
    return f'<div role="group" aria-label="{html.escape(name)}" style="font-family:monospace;line-height:1.3">{"".join(cells)}</div>'


def percent(p: float) -> str:
    return f"{100 * p:.0f}" if p >= 0.005 else "<1"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
    return f"<table>{line(heads, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def strongest(values, names: list[str], most: int = 3) -> str:
    """'e' 41 %, 'a' 20 % …, for texts that stand in for pictures."""
    order = np.argsort(-np.asarray(values), kind="stable")[:most]
    return ", ".join(f"{names[i]!r} {percent(values[i])} %" for i in order)
