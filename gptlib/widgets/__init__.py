"""Interactive widgets for JupyterLab. They show what functions elsewhere in gptlib compute.

>>> from gptlib.widgets import Sampler
>>> sampler = Sampler()             # offers all checkpoints in runs/

`Sampler({"mine": (model, tokenizer)})` offers your own models instead.
The picture of a widget is also available as a figure with a text: `plot.show(*widget.picture())`.
A page without a kernel shows a table or a text in place of the widget.
"""

from gptlib.widgets.bigram_row import BigramRow
from gptlib.widgets.board import TrainingBoard
from gptlib.widgets.courier_fact import CourierFact
from gptlib.widgets.distance_weights import DistanceWeights
from gptlib.widgets.explorer import AttentionExplorer, attention_weights
from gptlib.widgets.merges import MergeStepper
from gptlib.widgets.near_copies import NearCopies
from gptlib.widgets.panel import find_checkpoints
from gptlib.widgets.sampler import Sampler
from gptlib.widgets.singular_values import SingularValues
from gptlib.widgets.tokenizers import TokenizerComparison
from gptlib.widgets.viewers import ContextViewer, TimeWeightViewer

__all__ = [
    "AttentionExplorer", "BigramRow", "ContextViewer", "CourierFact", "DistanceWeights",
    "MergeStepper", "NearCopies", "Sampler", "SingularValues", "TimeWeightViewer",
    "TokenizerComparison", "TrainingBoard", "attention_weights", "find_checkpoints",
]
