"""gptlib: the ideas of the course, one short file each, with the names of their notebooks.

>>> import gptlib
>>> model = gptlib.GPT(gptlib.GPTConfig(vocab_size=65))
"""

# After this import, `load_model` knows the tokenizer of the courier.
import gptlib.corpora.courier_text  # noqa: F401
from gptlib.bigram import Bigram, count_bigrams, evaluate_bigram
from gptlib.bpe import BPETokenizer, make_tokenizer
from gptlib.checkpoint import save_checkpoint
from gptlib.config import GPTConfig, TrainConfig
from gptlib.corpora import load_corpus
from gptlib.data import get_batch, split
from gptlib.generate import generate, generate_text, stream_text
from gptlib.model import GPT
from gptlib.tokenizer import CharTokenizer, LowercaseTokenizer
from gptlib.train import evaluate, train
from gptlib.variants.build import load_model, make_model

__all__ = [
    "BPETokenizer", "Bigram", "CharTokenizer", "GPT", "GPTConfig", "LowercaseTokenizer",
    "TrainConfig", "count_bigrams", "evaluate", "evaluate_bigram", "generate", "generate_text",
    "get_batch", "load_corpus", "load_model", "make_model", "make_tokenizer", "save_checkpoint",
    "split", "stream_text", "train",
]
