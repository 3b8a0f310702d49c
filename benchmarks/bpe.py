"""How fast the BPE tokenizer trains and encodes, against what a user would pick instead, and how the time grows.

    python benchmarks/bpe.py [--minbpe FOLDER]      writes benchmarks/bpe.json

Hugging Face's `tokenizers` is measured where it can be imported; minbpe where FOLDER is a checkout of it, its
training at vocab 512 alone. Seconds are those of the CPU, of all threads together, so that a busy machine changes them
less than it does a clock on the wall; `best` is the least of several runs.
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
from pathlib import Path

import regex
import tiktoken
import torch

from gptlib.bpe import GPT4_PATTERN, BPETokenizer, _compiled, _words
from gptlib.data import load_corpus
from gptlib.leaderboard import code_hash

HERE = Path(__file__).resolve().parent
MB = 1_000_000
BIG = "docs and sources of this Python's standard library, then copies of them with each copy's letters rotated by one more place"
# Oniguruma reads {1,3}+ and $ in another way: this gives it the same words.
ONIGURUMA_PATTERN = GPT4_PATTERN.replace("{1,3}+", "{1,3}").replace(r"|\s++$", "")


def measured(runs: int, function, *arguments) -> tuple[dict, object]:
    """The CPU seconds of some calls, the least by the clock on the wall, and what the last call returned."""
    seconds, wall = [], []
    for _ in range(runs):
        start, clock = time.process_time(), time.perf_counter()
        result = function(*arguments)
        seconds.append(time.process_time() - start)
        wall.append(time.perf_counter() - clock)
    return {"best": min(seconds), "runs": seconds, "best_wall": min(wall)}, result


def huggingface(text: str, vocab_size: int):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(ONIGURUMA_PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def minbpe(folder: Path, merges=None):
    sys.path.insert(0, str(folder))
    from minbpe import RegexTokenizer

    tokenizer = RegexTokenizer(GPT4_PATTERN)
    if merges:
        tokenizer.merges = merges
        tokenizer.vocab = tokenizer._build_vocab()
    return tokenizer


def training(text: str) -> list[dict]:
    rows = []
    for vocab_size in (512, 1024):
        row = {"vocab_size": vocab_size}
        row["gptlib"], ours = measured(7, BPETokenizer.train, text, vocab_size)
        try:
            row["tokenizers"], theirs = measured(7, huggingface, text, vocab_size)
            mapped = json.loads(theirs.to_str())["model"]["merges"]
            our_merges = {tuple(line.split(" ")) for line in ours.to_dict()["merges"]}
            row["merges_shared_with_tokenizers"] = len(our_merges & {tuple(m) for m in mapped}) / len(our_merges)
            row["times_tokenizers"] = row["gptlib"]["best"] / row["tokenizers"]["best"]
        except ImportError:
            print("no `tokenizers` in this environment")
        print(json.dumps({k: v["best"] if isinstance(v, dict) else v for k, v in row.items()}), flush=True)
        rows.append(row)
    return rows


def encode_from_cold(tokenizer: BPETokenizer, text: str) -> list[int]:
    tokenizer._cache.clear()
    return tokenizer.encode(text)


def encoding(text: str, folder: Path | None) -> list[dict]:
    rows = []
    for vocab_size in (512, 1024):
        tokenizer = BPETokenizer.train(text, vocab_size)
        native = tokenizer.to_tiktoken()
        row = {"vocab_size": vocab_size}
        row["gptlib"], ids = measured(7, encode_from_cold, tokenizer, text)
        row["to_tiktoken"], same = measured(7, native.encode_ordinary, text)
        assert same == ids
        if folder:
            row["minbpe"], same = measured(2, minbpe(folder, tokenizer.merges).encode_ordinary, text)
            assert same == ids
            row["faster_than_minbpe"] = row["minbpe"]["best"] / row["gptlib"]["best"]
        print(json.dumps({k: v["best"] if isinstance(v, dict) else v for k, v in row.items()}), flush=True)
        rows.append(row)
    return rows


def big_text(n_bytes: int) -> str:
    """`n_bytes` of ASCII text; `BIG` says what it is."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts]
    texts = [load_corpus("python_docs").text, *(path.read_text(encoding="utf-8", errors="ignore") for path in files)]
    base = "\n\n".join(texts).encode("ascii", errors="ignore").decode()
    parts, lower, upper = [], string.ascii_lowercase, string.ascii_uppercase
    for turn in range(-(-n_bytes // len(base))):
        k = turn % 26
        parts.append(base.translate(str.maketrans(lower + upper, lower[k:] + lower[:k] + upper[k:] + upper[:k])))
    return "".join(parts)[:n_bytes]


def growth(text: str) -> dict:
    """Seconds of the two halves of training, splitting and merging, against the text's size and the vocabulary."""
    def one(n_bytes, vocab_size):
        part = text[:n_bytes]
        splitting, words = measured(2, lambda: Counter(_words(_compiled(GPT4_PATTERN), part)))
        whole, _ = measured(2, BPETokenizer.train, part, vocab_size)
        row = {"bytes": n_bytes, "vocab_size": vocab_size, "different_words": len(words), "splitting": splitting["best"],
               "training": whole["best"]}
        print(json.dumps(row), flush=True)
        return row

    word = "".join(random.Random(0).choices("abcdefgh", k=MB))
    tokenizer = BPETokenizer.train(word, 1024)
    encoding = [{"letters": n, "one_letter": measured(2, tokenizer.encode, "a" * n)[0]["best"],
                 "random": measured(2, tokenizer.encode, word[:n])[0]["best"]} for n in (10_000, 100_000, MB)]
    return {"text": [one(n * MB, 8192) for n in (1, 2, 4, 8, 16)], "vocabulary": [one(8 * MB, 2 ** n) for n in (9, 10, 11, 12, 13, 14)],
            "encoding_one_word": encoding}


def big() -> None:
    """100 MB at vocab 8192, in a process of its own, whose memory is then that of this alone."""
    text = big_text(100 * MB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    tokenizer = BPETokenizer.train(text, 8192)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"bytes": len(text), "vocab_size": tokenizer.vocab_size, "seconds": wall, "cpu_seconds": cpu,
                      "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "peak_bytes_before": 1024 * before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minbpe", type=Path, help="a checkout of karpathy/minbpe")
    parser.add_argument("--big", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.big:
        return big()
    corpus = load_corpus("tinyshakespeare")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    about = {"measures": "CPU seconds of training and encoding with the GPT-4 pattern", "corpus": corpus.name,
             "corpus_sha256": corpus.sha256, "big_corpus": BIG, "date": time.strftime("%Y-%m-%d"), "revision": revision,
             "code": code_hash(), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
             "torch": torch.__version__, "regex": regex.__version__, "tiktoken": tiktoken.__version__, "load_at_start": os.getloadavg()[0]}
    results = {}

    def keep(name, result):
        results[name] = result
        text = json.dumps(about | {"load_at_end": os.getloadavg()[0], "results": results}, indent=1) + "\n"
        (HERE / "bpe.json").write_text(text, encoding="utf-8")

    keep("training", training(corpus.text))
    keep("encoding", encoding(corpus.text, options.minbpe))
    keep("growth", growth(big_text(16 * MB)))
    done = subprocess.run([sys.executable, __file__, "--big"], capture_output=True, text=True, check=True)
    print(done.stdout, flush=True)
    keep("hundred_megabytes", json.loads(done.stdout))
    if options.minbpe:                                          # last, because it takes minutes
        row = results["training"][0]
        row["minbpe"], _ = measured(1, minbpe(options.minbpe).train, corpus.text, row["vocab_size"])
        row["faster_than_minbpe"] = row["minbpe"]["best"] / row["gptlib"]["best"]
        print(row["minbpe"], row["faster_than_minbpe"])
        keep("training", results["training"])


if __name__ == "__main__":
    main()
