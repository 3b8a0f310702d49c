"""The results of all chapters: a small JSON file for each model, and a table that compares them.

All losses in the table are measured on the same validation split.
"""

import ast
import hashlib
import io
import json
import math
import os
import re
import tokenize
from pathlib import Path

from gptlib.checkpoint import write_atomically
from gptlib.checks import (
    any_path,
    at_least,
    check_arguments,
    checked_value,
    dict_with,
    list_of,
    optional,
    short,
    some_path,
    wrong_type,
)
from gptlib.corpora import Corpus
from gptlib.tokenizer import LowercaseTokenizer, check_surrogates

# The files that decide what a training run computes.
TRAINING_FILES = (
    "attention", "bigram", "block", "config", "data", "kv_cache", "model", "resume", "run",
    "tokenizer", "train", "variants/build",
)
BITS = 1 / math.log(2)      # the number of bits in one nat
# What the table needs of each row, and the kind of each value.
COLUMNS = {"chapter": str, "model": str, "parameters": at_least(0), "seconds": at_least(0.0),
           "val_loss": at_least(0.0), "bits_per_character": optional(at_least(0.0)),
           "vocab_size": at_least(1), "corpus": str, "corpus_sha256": str}


def name_of_model(name: str, value: str) -> str:
    """The kind of a model's name, which is a part of a file's name."""
    is_name = isinstance(value, str) and value.isprintable() and value.strip()
    if not is_name or "/" in value or "\\" in value:
        raise ValueError(
            f"{name}={short(value)} should be a name of one line, without slashes"
        )
    return value


def result_row(name: str, value: dict) -> dict:
    """The kind of a row of the table."""
    row = dict(dict_with(*COLUMNS)(name, value))
    return row | {
        key: checked_value(f"{name}[{key!r}]", row[key], kind) for key, kind in COLUMNS.items()
    }


def result_rows(name: str, value: list[dict]) -> list[dict]:
    """The kind of several rows. A dict is one row, although it can be iterated."""
    if isinstance(value, dict):
        raise wrong_type(name, value, "a list of rows")
    return list_of(result_row)(name, value)


def some_text(name: str, value: str) -> str:
    """The kind of a text that is not empty, and that utf-8 can encode."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}={short(value)} should be a text of at least one character")
    check_surrogates(value)
    return value


@check_arguments(
    out_dir=any_path, chapter=str, model=name_of_model, parameters=at_least(0),
    seconds=at_least(0.0), val_loss=at_least(0.0), vocab_size=at_least(1), corpus=Corpus,
    val_text=some_text,
)
def save_result(out_dir: str | Path, *, chapter: str, model: str, parameters: int, seconds: float,
                val_loss: float, vocab_size: int, corpus: Corpus, val_text: str, **more) -> dict:
    """Write one model's row to `out_dir`/result-<model>.json, and return the row.

    Args:
        seconds: the training time without the evaluations.
        val_loss: nats per token over the whole validation split.
        val_text: the validation split as text. Losses per character and per byte of this text can
            be compared between models with different tokenizers.
        more: more facts about the run, such as seeds, steps and the config. `val_tokens` is the
            number of tokens in `val_text`, if a token is not a character.

    If the tokenizer has replaced characters by `<?>`, bits per character and per byte are None.

    Raises:
        ValueError: a value is wrong or is not JSON, or the file cannot be written.
    """
    if out_dir == "":
        raise ValueError("out_dir='' should name a folder, such as 'runs/gpt'")
    if not chapter.strip():
        raise ValueError(f"chapter={chapter!r} should name a chapter, such as '01_bigram'")
    n_tokens = checked_value("val_tokens", more.get("val_tokens", len(val_text)), at_least(1))
    nats = val_loss * n_tokens
    unknown = LowercaseTokenizer.UNKNOWN
    has_lost = unknown in val_text and unknown not in corpus.text
    row = {"chapter": chapter, "model": model, "parameters": parameters, "seconds": seconds,
           "val_loss": val_loss,
           "bits_per_character": None if has_lost else nats * BITS / len(val_text),
           "bits_per_byte": None if has_lost else nats * BITS / len(val_text.encode("utf-8")),
           "vocab_size": vocab_size, "corpus": corpus.name, "corpus_sha256": corpus.sha256, **more}
    for name in more:
        if name in ("bits_per_character", "bits_per_byte", "corpus_sha256"):
            raise ValueError(f"{name} is computed from the other arguments: leave it out")
    path = Path(out_dir) / f"result-{model.replace(' ', '-')}.json"
    refuse_other_model(path, model)
    for name, value in more.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{name}={short(value)} cannot be written, because it is not JSON ({error}): give "
                "numbers, texts, lists and dicts"
            ) from None
    write_row(path, row, out_dir)
    return row


def write_row(path: Path, row: dict, out_dir: str | Path) -> None:
    """Write a model's row to a JSON file below the folder `out_dir`, which may be missing."""
    content = json.dumps(row, indent=1).encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically({path: content})
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"out_dir={str(out_dir)!r} should be a folder, but it is a file or lies below a file"
        ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error})") from None


def refuse_other_model(path: Path, model: str) -> None:
    """Raise a ValueError if the file holds another model's row. It would be lost."""
    try:
        other = json.loads(path.read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return              # there is no row in the file, or writing it will tell what is wrong
    if other != model:
        raise ValueError(
            f"{path} holds the result of the model {short(other)}, which {model!r} would "
            "overwrite: give this model another name"
        )


@check_arguments(runs=some_path, corpus=optional(Corpus))
def read_results(runs: str | Path, corpus: Corpus | None = None) -> list[dict]:
    """Return the rows of every chapter below `runs`, sorted by chapter and then by loss.

    Args:
        corpus: return only the results on this corpus.

    Raises:
        ValueError: a file holds no result, or `runs` is a file or the folder of a single chapter.
    """
    if os.path.isfile(runs) or any(Path(runs).glob("result-*.json")):
        raise ValueError(
            f"runs={str(runs)!r} should be the folder above the folders of the chapters, such as "
            "'runs'"
        )
    paths = sorted(Path(runs).glob("*/result-*.json"))
    rows = [read_row(path) for path in paths]
    rows = [row for row in rows if corpus is None or row["corpus_sha256"] == corpus.sha256]
    return sorted(rows, key=lambda row: (row["chapter"], -row["val_loss"]))


def read_row(path: Path) -> dict:
    """Return the row in a file. Raise a ValueError if the file is damaged."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return result_row(f"the row of {path.parent.name}/{path.name}", row)
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"{path} holds no result of a chapter ({error}): delete it and run the chapter again"
        ) from None


@check_arguments(rows=result_rows)
def leaderboard(rows: list[dict]) -> str:
    """Return the table as text.

    Its losses are in nats per character. The first row shows the loss of guessing: if all V
    characters get the same probability, the loss is ln V.

    Raises:
        ValueError: the rows come from different corpora, so their losses cannot be compared.
    """
    if not rows:
        return "no results yet: run the chapters, or `make course`"
    corpora = {row["corpus_sha256"]: row["corpus"] for row in rows}
    if len(corpora) > 1:
        raise ValueError(
            f"the rows come from {len(corpora)} different corpora ({', '.join(corpora.values())}): "
            "give rows of one corpus, such as read_results(runs, corpus)"
        )
    # Models with longer tokens have a larger vocabulary. The smallest one counts the characters.
    uniform = math.log(min(row["vocab_size"] for row in rows))
    title = _columns("chapter", "model", "parameters", "seconds", "val loss", "bits/char",
                     "share of ln V")
    lines = [title, _line("", "guessing (ln V)", 0, "0", uniform, uniform)]
    for row in rows:
        if row["bits_per_character"] is None:
            lines.append(f"{row['chapter']:<20}{row['model']:<16}its tokenizer has lost characters")
            continue
        nats = row["bits_per_character"] / BITS
        seconds = f"{row['seconds']:.1f}"
        lines.append(_line(row["chapter"], row["model"], row["parameters"], seconds, nats, uniform))
    lines.append(f"validation split of {rows[0]['corpus']}; loss in nats per character")
    return "\n".join(lines)


def _line(chapter, model, parameters, seconds, nats, uniform):
    """Return one line of the table, for a loss in nats per character."""
    # With a single character in the text, guessing is always right, and ln V is 0.
    share = f"{nats / uniform:.1%}" if uniform else "-"
    return _columns(chapter, model, f"{parameters:,}", seconds, f"{nats:.4f}", f"{nats * BITS:.4f}",
                    share)


def _columns(chapter, model, parameters, seconds, val_loss, bits, share):
    return (f"{chapter:<20}{model:<16}{parameters:>12}{seconds:>9}{val_loss:>10}{bits:>11}"
            f"{share:>15}")


def code_hash(*names: str) -> str:
    """Return 12 digits that change when the code of some files of gptlib changes.

    A measurement is stored with this number, so that a test can say when it is out of date.
    Comments, docstrings and white space do not count.

    Args:
        names: such as "train" or "bpe/fast". None given: the files that training depends on.
    """
    folder = Path(__file__).parents[1]
    content = hashlib.sha256()
    for name in names or TRAINING_FILES:
        path = folder / f"{name}.py"
        if not path.is_file():
            raise ValueError(f"{name!r} is not a file of gptlib: give a name such as 'bpe/fast'")
        content.update(bare_code(path.read_text(encoding="utf-8")).encode())
    return content.hexdigest()[:12]


def bare_code(source: str) -> str:
    """Return Python code without docstrings, comments and white space."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            for i in range(first.lineno - 1, first.end_lineno):     # lines are counted from 1
                lines[i] = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1]:
            row = token.start[0] - 1
            lines[row] = lines[row][:token.start[1]]
    return re.sub(r"\s+", "", "\n".join(lines))
