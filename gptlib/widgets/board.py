"""The training board: watch a run, stop it, and resume it without changing its result."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as W
from torch import Tensor, nn

from gptlib.checkpoint import CheckpointError, read_header
from gptlib.checks import (
    at_least,
    check_arguments,
    dict_of,
    optional,
    some_path,
    tokens,
    trainable,
)
from gptlib.config import TrainConfig
from gptlib.generate import generate_text
from gptlib.plot import mark_level, new_figure, plot_loss
from gptlib.resume import identity
from gptlib.run import TrainResult
from gptlib.run_folder import RESUME
from gptlib.tokenizer import Tokenizer, any_tokenizer, default_prompt
from gptlib.train import train
from gptlib.widgets.panel import Panel, table_html

# The board shows this many samples, the latest first ...
N_SAMPLES = 5
# ... of this many tokens each.
SAMPLE_LENGTH = 80
# What boards are using now: the ids of the models that they train, and their folders.
IN_USE = set()


class TrainingBoard(Panel):
    """Train a model with a live loss curve and a sample at each evaluation.

    Stop saves the run. Resume continues it, with the same result as a run that was never stopped.
    Other cells can run during the training. They should not draw random numbers from torch, because
    that would change the run's dropout.

    Args:
        model, train_ids, val_ids, block_size, config, out_dir, tokenizer: as in `train`.
        levels: horizontal lines by name, in nats per token, such as {"bigram": 2.48}. The loss of
            guessing, ln V, is always shown.
        prompt: the beginning of the samples. None: a line break, if the tokenizer knows one.
        resume: "auto" continues the run in `out_dir`, also after a restart of the kernel. "never"
            and "restart" start a new run, see `train`.
    """

    @check_arguments(
        model=trainable, train_ids=tokens("N"), val_ids=tokens("N"), block_size=at_least(1),
        config=TrainConfig, out_dir=some_path, tokenizer=any_tokenizer,
        levels=optional(dict_of(str, float)), prompt=str | None, resume=RESUME,
    )
    def __init__(
        self, model: nn.Module, train_ids: Tensor, val_ids: Tensor, block_size: int,
        config: TrainConfig, *, out_dir: str | Path, tokenizer: Tokenizer,
        levels: Mapping[str, float] | None = None, prompt: str | None = None, resume: str = "never",
    ):
        self.model, self.config = model, config
        self.tokenizer = tokenizer
        self.prompt = default_prompt(tokenizer) if prompt is None else prompt
        self.run = (model, train_ids, val_ids, block_size, config)
        self.out_dir, self.resume = Path(out_dir), resume
        self.levels = dict(levels or {})
        self.history, self.samples = self.saved_history(), []
        self.start, self.stop = self.start_and_stop_buttons(
            "Resume" if self.history else "Train", self.train_and_report
        )
        self.sample_table = W.HTML()
        super().__init__(W.HBox([self.start, self.stop]), self.sample_table)
        self.redraw_on_change()

    def saved_history(self) -> list[dict]:
        """Return the history of the run that would be resumed. It is empty if there is none."""
        if self.resume != "auto":
            return []
        try:
            about = read_header(self.out_dir / "last.safetensors")["about"]
            same_run = about["run"] == identity(*self.run, self.tokenizer)
            return about["history"] if same_run else []
        except (CheckpointError, KeyError, TypeError):
            return []

    async def train_and_report(self) -> None:
        """Train in another thread, and show how the training ended."""
        used = {id(self.model), self.out_dir.resolve()}
        if used & IN_USE:
            raise ValueError(
                f"another board is training this model or saves its run in {self.out_dir}: wait "
                "until it is done, press its Stop button, or restart the kernel"
            )
        # Another board may have continued the run since this one was made.
        self.history = self.saved_history()
        self.draw_or_show_error(self.redraw)
        self.show_status("training")
        IN_USE.update(used)
        result = await run_in_thread(self.run_training, used, asyncio.get_running_loop())
        if isinstance(result, BaseException):
            self.show_error(result)
        elif result.interrupted:
            self.show_status(
                "stopped and saved: press Resume to continue; after a restart of the kernel, make "
                "the board with resume='auto'"
            )
        else:
            steps, best = self.config.max_steps, result.best["val_loss"]
            self.show_status(f"done: {steps} steps, best validation loss {best:.3f}")

    def run_training(self, used: set, loop: asyncio.AbstractEventLoop) -> TrainResult:
        """Train until the end or until the reader presses Stop. Report each evaluation."""

        def report(row):
            # Only the thread of the loop may change what the browser shows.
            loop.call_soon_threadsafe(
                self.draw_or_show_error, self.show_evaluation, row, self.write_sample()
            )

        try:
            return train(
                *self.run, out_dir=self.out_dir, tokenizer=self.tokenizer, resume=self.resume,
                progress=False, on_eval=report, stop=self.stop_requested.is_set,
            )
        finally:
            IN_USE.difference_update(used)

    def write_sample(self) -> str:
        return generate_text(
            self.model, self.tokenizer, self.prompt, SAMPLE_LENGTH, temperature=0.8, seed=1
        )

    def show_evaluation(self, row: dict, sample: str) -> None:
        """Add an evaluation to the curve and to the table of samples."""
        # The run has a checkpoint now, so that a second click can continue it.
        self.resume, self.start.description = "auto", "Resume"
        self.history.append(row)
        self.samples.insert(0, (str(row["step"]), f"{row['val_loss']:.3f}", sample))
        del self.samples[N_SAMPLES:]
        table = table_html(("step", "validation loss", "sample"), self.samples)
        self.sample_table.value = f"<div style='white-space:pre-wrap'>{table}</div>"
        self.redraw()
        step = f"step {row['step']} of {self.config.max_steps}"
        self.show_status(f"{step}: validation loss {row['val_loss']:.3f}")

    def picture(self):
        figure, axes = new_figure()
        plot_loss(axes, self.history, self.tokenizer.vocab_size)
        lines = ["ln V"]
        for name, level in self.levels.items():
            mark_level(axes, level, f"{name} = {level:.3f}")
            lines.append(f"{name} = {level:.3f}")
        axes.set_xlim(0, self.config.max_steps)
        latest = "not measured yet"
        if self.history:
            row = self.history[-1]
            latest = f"{row['val_loss']:.3f} at step {row['step']}"
        return figure, (
            f"Validation loss of {self.config.max_steps} steps of training: {latest}. "
            f"There are lines at {' and '.join(lines)}."
        )

    def static_html(self) -> str:
        if not self.history:
            return f"<p>Not trained yet. The run has {self.config.max_steps} steps.</p>"
        rows = []
        for row in self.history:
            losses = f"{row['train_loss']:.3f}", f"{row['val_loss']:.3f}"
            rows.append((str(row["step"]), *losses))
        return table_html(("step", "train loss", "validation loss"), rows)


def run_in_thread(work: Callable, *args) -> asyncio.Future:
    """Return a future for the result of `work(*args)`, which runs in a thread of its own.

    The future's result is what `work` returns, or the exception that it raises. An exception in
    the loop would be worse: SystemExit would end the kernel, and StopIteration would be lost. The
    thread ends with the kernel.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def run():
        try:
            result = work(*args)
        except BaseException as error:
            result = error
        loop.call_soon_threadsafe(future.set_result, result)

    threading.Thread(target=run, daemon=True).start()
    return future
