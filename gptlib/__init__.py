"""gptlib: the ideas of the course, one small file each, under the names of their notebooks.

>>> import gptlib
>>> model = gptlib.GPT(gptlib.GPTConfig(vocab_size=65))
"""

from gptlib.bigram import Bigram, count_bigrams
from gptlib.checkpoint import load_checkpoint, save_checkpoint
from gptlib.config import GPTConfig, TrainConfig
from gptlib.data import get_batch, load_corpus, split
from gptlib.generate import generate, generate_text, stream_text
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer
from gptlib.train import evaluate, train

__all__ = [
    "GPT", "Bigram", "CharTokenizer", "GPTConfig", "LowercaseTokenizer", "TrainConfig", "count_bigrams", "evaluate",
    "generate", "generate_text", "get_batch", "load_checkpoint", "load_corpus", "save_checkpoint", "split", "stream_text", "train",
]
