"""Measure how fast the BPE tokenizer trains and encodes, and how its time grows.

    python benchmarks/bpe.py [--minbpe FOLDER]      writes benchmarks/bpe.json

It is compared with the alternatives that a user has. Hugging Face's `tokenizers` is measured if it
is installed. minbpe is measured if FOLDER is a copy of its repository. The training of minbpe is
measured at vocab 512 only, because it takes minutes.

All seconds are CPU seconds of all threads together. Other programs on the machine change these less
than the time of a clock. `best` is the smallest value of several runs.
"""

import argparse
import json
import os
import platform
import random
import resource
import string
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import regex
import tiktoken
from recording import provenance, write_results

from gptlib.bpe import GPT4_PATTERN, BPETokenizer, to_tiktoken
from gptlib.bpe.words import compile_pattern, split_words
from gptlib.corpora import load_corpus

MB = 1_000_000
BIG = (
    "docs and sources of this Python's standard library, then copies of them with each copy's "
    "letters rotated by one more place"
)
# `tokenizers` uses the library Oniguruma, which reads {1,3}+ and $ differently. With this pattern
# it finds the same words.
ONIGURUMA_PATTERN = GPT4_PATTERN.replace("{1,3}+", "{1,3}").replace(r"|\s++$", "")


def measure(runs: int, function: Callable, *arguments) -> tuple[dict, object]:
    """Call the function several times. Return the seconds, and the result of the last call."""
    cpu_seconds, wall_seconds = [], []
    for _ in range(runs):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        result = function(*arguments)
        cpu_seconds.append(time.process_time() - cpu_start)
        wall_seconds.append(time.perf_counter() - wall_start)
    seconds = {"best": min(cpu_seconds), "runs": cpu_seconds, "best_wall": min(wall_seconds)}
    return seconds, result


def print_row(row: dict) -> None:
    """Print a row of results. Of several runs only the best is printed."""
    printed = {}
    for name, value in row.items():
        printed[name] = value["best"] if isinstance(value, dict) else value
    print(json.dumps(printed), flush=True)


# Training ------------------------------------------------------------------------------------


def train_huggingface(text: str, vocab_size: int):
    """Return a tokenizer that Hugging Face's `tokenizers` trained, with the same words as ours."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(ONIGURUMA_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def share_of_common_merges(tokenizer: BPETokenizer, huggingface) -> float:
    """Return what share of our merges the tokenizer of `tokenizers` has too."""
    merges = {tuple(line.split(" ")) for line in tokenizer.to_dict()["merges"]}
    others = {tuple(pair) for pair in json.loads(huggingface.to_str())["model"]["merges"]}
    return len(merges & others) / len(merges)


def measure_training(text: str) -> list[dict]:
    rows = []
    for vocab_size in (512, 1024):
        row = {"vocab_size": vocab_size}
        row["gptlib"], tokenizer = measure(7, BPETokenizer.train, text, vocab_size)
        try:
            row["tokenizers"], other = measure(7, train_huggingface, text, vocab_size)
            row["merges_shared_with_tokenizers"] = share_of_common_merges(tokenizer, other)
            row["times_tokenizers"] = row["gptlib"]["best"] / row["tokenizers"]["best"]
        except ImportError:
            print("`tokenizers` is not installed")
        print_row(row)
        rows.append(row)
    return rows


# Encoding ------------------------------------------------------------------------------------


def load_minbpe(folder: Path, merges: dict | None = None):
    """Return minbpe's RegexTokenizer, with our merges if they are given."""
    sys.path.insert(0, str(folder))
    from minbpe import RegexTokenizer

    tokenizer = RegexTokenizer(GPT4_PATTERN)
    if merges:
        tokenizer.merges = merges
        tokenizer.vocab = tokenizer._build_vocab()
    return tokenizer


def encode_with_empty_cache(tokenizer: BPETokenizer, text: str) -> list[int]:
    tokenizer._cache.clear()
    return tokenizer.encode(text)


def measure_encoding(text: str, minbpe_folder: Path | None) -> list[dict]:
    """Measure the encoding of `text`, and check that all tokenizers give the same ids."""
    rows = []
    for vocab_size in (512, 1024):
        tokenizer = BPETokenizer.train(text, vocab_size)
        row = {"vocab_size": vocab_size}
        row["gptlib"], ids = measure(7, encode_with_empty_cache, tokenizer, text)
        row["to_tiktoken"], tiktoken_ids = measure(7, to_tiktoken(tokenizer).encode_ordinary, text)
        assert tiktoken_ids == ids
        if minbpe_folder:
            minbpe = load_minbpe(minbpe_folder, tokenizer.merges)
            row["minbpe"], minbpe_ids = measure(2, minbpe.encode_ordinary, text)
            assert minbpe_ids == ids
            row["faster_than_minbpe"] = row["minbpe"]["best"] / row["gptlib"]["best"]
        print_row(row)
        rows.append(row)
    return rows


# Growth --------------------------------------------------------------------------------------


def rotate_letters(text: str, n: int) -> str:
    """Return `text` with each letter replaced by the letter n places later in the alphabet."""
    lower, upper = string.ascii_lowercase, string.ascii_uppercase
    rotated = lower[n:] + lower[:n] + upper[n:] + upper[:n]
    return text.translate(str.maketrans(lower + upper, rotated))


def make_big_text(n_bytes: int) -> str:
    """Return `n_bytes` of ASCII text. `BIG` describes it."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts]
    sources = [path.read_text(encoding="utf-8", errors="ignore") for path in files]
    text = "\n\n".join([load_corpus("python_docs").text, *sources])
    text = text.encode("ascii", errors="ignore").decode()
    n_copies = -(-n_bytes // len(text))
    return "".join(rotate_letters(text, i % 26) for i in range(n_copies))[:n_bytes]


def measure_one_size(text: str, vocab_size: int) -> dict:
    """Measure training, and separately the splitting into words, which is its first half."""
    pattern = compile_pattern(GPT4_PATTERN)
    splitting, words = measure(2, lambda: Counter(split_words(pattern, text)))
    training, _ = measure(2, BPETokenizer.train, text, vocab_size)
    row = {"bytes": len(text), "vocab_size": vocab_size, "different_words": len(words),
           "splitting": splitting["best"], "training": training["best"]}
    print_row(row)
    return row


def measure_one_word() -> list[dict]:
    """Measure the encoding of a single word of many letters: equal letters, and random letters."""
    random_word = "".join(random.Random(0).choices("abcdefgh", k=MB))
    tokenizer = BPETokenizer.train(random_word, 1024)
    rows = []
    for n in (10_000, 100_000, MB):
        equal, _ = measure(2, tokenizer.encode, "a" * n)
        different, _ = measure(2, tokenizer.encode, random_word[:n])
        rows.append({"letters": n, "one_letter": equal["best"], "random": different["best"]})
    return rows


def measure_growth(text: str) -> dict:
    """Measure training for growing texts and growing vocabularies, and the encoding of one word."""
    return {
        "text": [measure_one_size(text[:n * MB], 8192) for n in (1, 2, 4, 8, 16)],
        "vocabulary": [measure_one_size(text[:8 * MB], 2**n) for n in (9, 10, 11, 12, 13, 14)],
        "encoding_one_word": measure_one_word(),
    }


def print_big_training() -> None:
    """Train on 100 MB at vocab 8192, and print the result.

    This runs in its own process, so the peak of the process's memory is that of this training.
    """
    text = make_big_text(100 * MB)
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, tokenizer = measure(1, BPETokenizer.train, text, 8192)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({
        "bytes": len(text), "vocab_size": tokenizer.vocab_size, "seconds": seconds["best_wall"],
        "cpu_seconds": seconds["best"], "peak_bytes": 1024 * peak,
        "peak_bytes_before": 1024 * peak_before,
    }))


# The file of results -------------------------------------------------------------------------


def describe(corpus) -> dict:
    """Return what the results depend on: corpus, date, code, machine and versions."""
    return {
        "measures": "CPU seconds of training and encoding with the GPT-4 pattern",
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "big_corpus": BIG,
        **provenance(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "regex": regex.__version__,
        "tiktoken": tiktoken.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minbpe", type=Path, help="a copy of the repository karpathy/minbpe")
    parser.add_argument("--big", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.big:
        print_big_training()
        return

    corpus = load_corpus("tinyshakespeare")
    about = describe(corpus)
    results = {}

    def store(name: str, result: dict | list) -> None:
        """Add a result, and write the file. An interrupted run leaves the results so far."""
        results[name] = result
        write_results("bpe", about | {"load_at_end": os.getloadavg()[0], "results": results})

    store("training", measure_training(corpus.text))
    store("encoding", measure_encoding(corpus.text, options.minbpe))
    store("growth", measure_growth(make_big_text(16 * MB)))
    command = [sys.executable, __file__, "--big"]
    big = subprocess.run(command, capture_output=True, text=True, check=True)
    print(big.stdout, flush=True)
    store("hundred_megabytes", json.loads(big.stdout))

    # minbpe comes last, because its training takes minutes.
    if options.minbpe:
        row = results["training"][0]
        minbpe = load_minbpe(options.minbpe)
        row["minbpe"], _ = measure(1, minbpe.train, corpus.text, row["vocab_size"])
        row["faster_than_minbpe"] = row["minbpe"]["best"] / row["gptlib"]["best"]
        print(row["minbpe"], row["faster_than_minbpe"])
        store("training", results["training"])


if __name__ == "__main__":
    main()
