"""The course's results, one small JSON file a model, and the table that compares them on one validation split."""

import hashlib
import json
import math
from pathlib import Path

from gptlib.checkpoint import write_atomically
from gptlib.data import Corpus

BITS = 1 / math.log(2)          # bits in a nat


def save_result(out_dir: str | Path, *, chapter: str, model: str, parameters: int, seconds: float, val_loss: float,
                vocab_size: int, corpus: Corpus, val_text: str, **more) -> dict:
    """Write one model's row to `out_dir`/result-<model>.json and return it.

    Args:
        seconds: of training, evaluations left out.
        val_loss: nats per token over the whole validation split.
        val_text: the validation split as text; its characters and bytes make losses comparable between tokenizers.
        more: anything else worth keeping: seeds, steps, the config.
    """
    nats = val_loss * more.get("val_tokens", len(val_text))
    row = {"chapter": chapter, "model": model, "parameters": parameters, "seconds": seconds, "val_loss": val_loss,
           "bits_per_character": nats * BITS / len(val_text), "bits_per_byte": nats * BITS / len(val_text.encode("utf-8")),
           "vocab_size": vocab_size, "corpus": corpus.name, "corpus_sha256": corpus.sha256, **more}
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(out_dir / f"result-{model.replace(' ', '-')}.json", json.dumps(row, indent=1).encode("utf-8"))
    return row


def read_results(runs: str | Path, corpus: Corpus | None = None) -> list[dict]:
    """The rows of every chapter below `runs`, in the chapters' order; only those on `corpus`, where it is given."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(runs).glob("*/result-*.json"))]
    rows = [row for row in rows if corpus is None or row["corpus_sha256"] == corpus.sha256]
    return sorted(rows, key=lambda row: (row["chapter"], -row["val_loss"]))


def leaderboard(rows: list[dict]) -> str:
    """The table as text. Losses are in nats per character; knowing nothing costs ln V of them."""
    if not rows:
        return "no results yet: run the chapters, or `make course`"
    uniform = math.log(min(row["vocab_size"] for row in rows))      # of the characters: other tokens are more
    lines = [f"{'chapter':<20}{'model':<16}{'parameters':>12}{'seconds':>9}{'val loss':>10}{'bits/char':>11}{'share of ln V':>15}",
             f"{'':<20}{'guessing (ln V)':<16}{0:>12}{0:>9}{uniform:>10.4f}{uniform * BITS:>11.4f}{1:>15.1%}"]
    for row in rows:
        nats = row["bits_per_character"] / BITS
        lines.append(f"{row['chapter']:<20}{row['model']:<16}{row['parameters']:>12,}{row['seconds']:>9.1f}{nats:>10.4f}"
                     f"{row['bits_per_character']:>11.4f}{nats / uniform:>15.1%}")
    return "\n".join([*lines, f"validation split of {rows[0]['corpus']}; loss in nats per character"])


def code_hash() -> str:
    """12 digits that change when what a measurement ran does: the sources of models, training and data."""
    names = ("attention", "bigram", "block", "config", "data", "model", "tokenizer", "train")
    sources = b"".join((Path(__file__).parent / f"{name}.py").read_bytes().replace(b"\r\n", b"\n") for name in names)
    return hashlib.sha256(sources).hexdigest()[:12]
