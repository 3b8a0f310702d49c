"""Controls to play with, for JupyterLab: thin shells over functions that are tested without them.

>>> from gptlib.widgets import Sampler
>>> sampler = Sampler()             # the checkpoints in runs/; or Sampler({"mine": (model, tokenizer)})

Each shows a picture that `widget.picture()` also gives as a figure and its text, for `plot.show(*widget.picture())`,
and leaves a table or a text behind where no kernel runs.
"""

from gptlib.widgets.board import TrainingBoard
from gptlib.widgets.explorer import AttentionExplorer, attention_weights
from gptlib.widgets.merges import MergeStepper
from gptlib.widgets.panel import find_checkpoints
from gptlib.widgets.sampler import Sampler
from gptlib.widgets.viewers import ContextViewer, TimeWeightViewer

__all__ = ["AttentionExplorer", "ContextViewer", "MergeStepper", "Sampler", "TimeWeightViewer", "TrainingBoard", "attention_weights",
           "find_checkpoints"]
