"""The training board: a run that can be watched, stopped and resumed without spoiling it."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as W
from torch import Tensor, nn

from gptlib.checkpoint import CheckpointError, read_header
from gptlib.config import TrainConfig
from gptlib.generate import generate_text
from gptlib.plot import mark_level, new_figure, plot_loss
from gptlib.resume import identity
from gptlib.tokenizer import Tokenizer
from gptlib.train import TrainResult, train
from gptlib.widgets.panel import Panel, table

SAMPLES = 5             # texts kept in sight, the latest first
SAMPLE_TOKENS = 80
RUNNING = set()         # the models, by id, and the folders that boards are training now


class TrainingBoard(Panel):
    """Train with a live loss curve and a text from each evaluation. Stop saves the run; Resume goes on to the bit.

    While it trains, other cells may run; those that draw torch's random numbers would mix with the run's dropout.

    Args:
        model, train_ids, val_ids, block_size, config, out_dir, tokenizer: as in `train`.
        levels: lines across the plot by name, in nats per token, such as {"bigram": 2.48, "floor": 0.9}. The loss of
            guessing, ln V, is always there.
        prompt: where the texts begin.
        resume: "auto" goes on with the run in `out_dir`, also one of an earlier day; "never" starts over.
    """

    def __init__(self, model: nn.Module, train_ids: Tensor, val_ids: Tensor, block_size: int, config: TrainConfig, *,
                 out_dir: str | Path, tokenizer: Tokenizer, levels: Mapping[str, float] | None = None, prompt: str = "\n",
                 resume: str = "never"):
        self.model, self.config, self.tokenizer, self.prompt = model, config, tokenizer, prompt
        self.run = (model, train_ids, val_ids, block_size, config)
        self.out_dir, self.levels, self.resume = Path(out_dir), dict(levels or {}), resume
        self.history, self.samples = self._saved(), []
        self.go, self.stop = self.buttons("Resume" if self.history else "Train", self._train)
        self.texts = W.HTML()
        super().__init__(W.HBox([self.go, self.stop]), self.texts)
        self.on_change(self.redraw)

    def _saved(self) -> list[dict]:
        """The history of the run that would be resumed; empty where there is none, or the folder holds another one."""
        try:
            about = read_header(self.out_dir / "last.safetensors")["about"]
            return about["history"] if self.resume == "auto" and about["run"] == identity(*self.run, self.tokenizer) else []
        except (CheckpointError, KeyError, TypeError):
            return []

    async def _train(self) -> None:
        held = {id(self.model), self.out_dir.resolve()}
        if held & RUNNING:
            raise ValueError(f"a board is still training this model, or one that it saves in {self.out_dir}: wait until it is done, "
                             "stop it there, or restart the kernel")
        self.history = self._saved()            # as it is now: another board may have gone on with it
        self.guard(self.redraw)
        self.say("training")
        RUNNING.update(held)
        result = await in_thread(self._run, held, asyncio.get_running_loop())
        if isinstance(result, BaseException):
            self.complain(result)
        elif result.interrupted:
            self.say("stopped and saved: Resume goes on from here, today or with resume='auto' later")
        else:
            self.say(f"done: {self.config.max_steps} steps, best validation loss {result.best['val_loss']:.3f}")

    def _run(self, held: set, loop: asyncio.AbstractEventLoop) -> TrainResult:
        watch = self.model.register_forward_pre_hook(self._before_a_step)
        try:
            return train(*self.run, out_dir=self.out_dir, tokenizer=self.tokenizer, resume=self.resume, progress=False,
                         on_eval=lambda row: loop.call_soon_threadsafe(self.guard, self._evaluated, row, self._write()))
        finally:
            watch.remove()
            RUNNING.difference_update(held)

    def _before_a_step(self, model: nn.Module, inputs) -> None:
        """Stop between two steps, where `train` takes an interrupt without losing anything."""
        if model.training and self.asked_to_stop.is_set():
            raise KeyboardInterrupt

    def _write(self) -> str:
        return generate_text(self.model, self.tokenizer, self.prompt, SAMPLE_TOKENS, temperature=0.8, seed=1)

    def _evaluated(self, row: dict, text: str) -> None:
        self.resume, self.go.description = "auto", "Resume"              # from now on there is something to go on from
        self.history.append(row)
        self.samples = [(f"{row['step']}", f"{row['val_loss']:.3f}", text), *self.samples][:SAMPLES]
        self.texts.value = f"<div style='white-space:pre-wrap'>{table(('step', 'loss', 'what it writes'), self.samples)}</div>"
        self.redraw()
        self.say(f"step {row['step']} of {self.config.max_steps}: validation loss {row['val_loss']:.3f}")

    def picture(self):
        figure, axes = new_figure()
        plot_loss(axes, self.history, self.tokenizer.vocab_size)
        for name, level in self.levels.items():
            mark_level(axes, level, f"{name} = {level:.3f}")
        axes.set_xlim(0, self.config.max_steps)
        last = f"{self.history[-1]['val_loss']:.3f} at step {self.history[-1]['step']}" if self.history else "not measured yet"
        return figure, (f"Validation loss of {self.config.max_steps} steps of training: {last}; lines at ln V"
                        + "".join(f" and {name} = {level:.3f}" for name, level in self.levels.items()))

    def what_stays(self) -> str:
        if not self.history:
            return f"<p>Not trained yet: {self.config.max_steps} steps await.</p>"
        return table(("step", "train loss", "validation loss"),
                     [(str(row["step"]), f"{row['train_loss']:.3f}", f"{row['val_loss']:.3f}") for row in self.history])


def in_thread(work: Callable, *how) -> asyncio.Future:
    """What `work` returns, or what it raises, as a value, from a thread that does not outlive the kernel.

    Raised in the loop, a SystemExit would end the kernel, and a StopIteration would never arrive.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run():
        try:
            outcome = work(*how)
        except BaseException as error:
            outcome = error
        loop.call_soon_threadsafe(done.set_result, outcome)

    threading.Thread(target=run, daemon=True).start()
    return done
