"""The training board: a run that can be watched, stopped and resumed without spoiling it."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as W
from torch import Tensor, nn

from gptlib.config import TrainConfig
from gptlib.generate import generate_text
from gptlib.plot import mark_level, new_figure, plot_loss
from gptlib.tokenizer import Tokenizer
from gptlib.train import train
from gptlib.widgets.panel import Panel, table

SAMPLES = 5             # texts kept in sight, the latest first
SAMPLE_TOKENS = 80


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
        self.history, self.samples = [], []
        if resume == "auto" and (self.out_dir / "metrics.jsonl").is_file():
            self.history = [json.loads(line) for line in (self.out_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        self.go = W.Button(description="Resume" if self.history else "Train", button_style="primary")
        self.stop = W.Button(description="Stop", disabled=True)
        self.texts = W.HTML()
        self.asked_to_stop = threading.Event()
        super().__init__(W.HBox([self.go, self.stop]), self.texts)
        self.go.on_click(lambda button: self.go.disabled or self.start(self._train()))
        self.stop.on_click(lambda button: self.asked_to_stop.set())
        self.on_change(self.redraw)

    async def _train(self) -> None:
        self.go.disabled, self.stop.disabled = True, False
        self.asked_to_stop.clear()
        if self.resume == "never":
            self.history, self.samples = [], []
        self.say("training")
        loop = asyncio.get_running_loop()
        watch = self.model.register_forward_pre_hook(self._before_a_step)
        try:
            result = await in_thread(lambda: train(
                *self.run, out_dir=self.out_dir, tokenizer=self.tokenizer, resume=self.resume, progress=False,
                on_eval=lambda row: loop.call_soon_threadsafe(self._evaluated, row, self._write())))
            self.say("stopped and saved: Resume goes on from here, today or with resume='auto' later" if result.interrupted
                     else f"done: {self.config.max_steps} steps, best validation loss {result.best['val_loss']:.3f}")
        except Exception as error:
            self.complain(error)
        finally:
            watch.remove()
            self.go.disabled, self.stop.disabled = False, True

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


def in_thread(work: Callable) -> asyncio.Future:
    """What `work()` returns or raises, from a thread that does not outlive the kernel."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run():
        try:
            tell, outcome = done.set_result, work()
        except Exception as error:
            tell, outcome = done.set_exception, error
        loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=run, daemon=True).start()
    return done
