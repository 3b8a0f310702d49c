"""From any source to shards of tokens, in one call: `python -m gptlib prepare` (chapter 10)."""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path

from gptlib.bpe import BPETokenizer
from gptlib.corpora.cleaning import Boilerplate, ExactDuplicates, Length, Repetition, clean
from gptlib.corpora.documents import Document, load_documents, source_bytes
from gptlib.corpora.shards import open_shards, write_shards
from gptlib.data import DataError
from gptlib.tokenizer import CharTokenizer, Tokenizer

# A BPE tokenizer learns its merges from so many characters. More would hardly change them.
TOKENIZER_CHARACTERS = 5_000_000


def prepare(
    source: str | Path,
    out: str | Path,
    tokenizer: str = "bpe",
    vocab_size: int = 512,
    column: str = "text",
    separator: str | None = None,
    val_fraction: float = 0.01,
    clean_steps: bool = False,
    workers: int = 2,
) -> dict:
    """Read a source, and write its tokens to the folder `out`. Print what was done.

    A preparation that was stopped goes on where it was, if it is called again in the same way.

    Args:
        source, column, separator: see `load_documents`.
        tokenizer: "bpe", which learns `vocab_size` tokens from the first documents, or "char".
        clean_steps: whether exact copies, repeated lines and very short documents are removed.
            What is removed stands in rejects.jsonl in the folder.
        val_fraction, workers: see `write_shards`.

    Returns:
        What `write_shards` returns.
    """
    out = Path(out)

    def documents() -> Iterable[Document]:
        return load_documents(source, column=column, separator=separator)

    encoder = learn_tokenizer(tokenizer, vocab_size, documents)
    texts, cleaning = documents(), None
    if clean_steps:
        out.mkdir(parents=True, exist_ok=True)
        # Length comes last, because a cut can leave very little of a document.
        steps = [ExactDuplicates(), Boilerplate(), Repetition(), Length(minimum=100)]
        texts = cleaning = clean(texts, steps, rejects=out / "rejects.jsonl")
    index = write_shards(texts, encoder, out, val_fraction, workers=workers,
                         total_bytes=source_bytes(source))
    if cleaning:
        print(cleaning.table())
    print(describe(out))
    return index


def learn_tokenizer(
    name: str, vocab_size: int, documents: Callable[[], Iterable[Document]]
) -> Tokenizer:
    """Return the tokenizer of this name for the documents. "char" has to read all of them once."""
    if name == "char":
        alphabet = set()
        for document in documents():
            alphabet.update(document.text)
        if not alphabet:
            raise DataError("there are no documents to write: the source holds no text")
        return CharTokenizer(alphabet)
    characters = chain.from_iterable(document.text for document in documents())
    sample = "".join(islice(characters, TOKENIZER_CHARACTERS))
    return BPETokenizer.train(sample, vocab_size)


def describe(folder: Path) -> str:
    """Return how many documents and tokens the splits of a prepared folder have."""
    lines = []
    for name, split in zip(("training", "validation"), open_shards(folder), strict=True):
        n_bytes = sum(header["bytes"] for header in split.headers)
        lines.append(f"{name}: {split.n_documents:,} documents, {len(split):,} tokens, "
                     f"{n_bytes / max(1, len(split)):.2f} bytes per token")
    return "\n".join([*lines, f"train on them with: python -m gptlib train --shards {folder}"])
