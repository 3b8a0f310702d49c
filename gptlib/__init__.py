"""gptlib: the ideas of the course, one small file each, under the names of their notebooks.

>>> import gptlib
>>> model = gptlib.GPT(gptlib.GPTConfig(vocab_size=65))
"""

from gptlib.bigram import Bigram, count_bigrams
from gptlib.bpe import BPETokenizer
from gptlib.checkpoint import load_checkpoint, save_checkpoint
from gptlib.config import GPTConfig, TrainConfig
from gptlib.data import get_batch, load_corpus, split
from gptlib.generate import generate, generate_text, stream_text
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer, make_tokenizer
from gptlib.train import evaluate, train

__all__ = [
    "BPETokenizer", "GPT", "Bigram", "CharTokenizer", "GPTConfig", "LowercaseTokenizer", "TrainConfig", "count_bigrams", "evaluate",
    "generate", "generate_text", "get_batch", "load_checkpoint", "load_corpus", "make_tokenizer", "save_checkpoint", "split",
    "stream_text", "train",
]
