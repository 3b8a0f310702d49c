"""A training set on disk that is larger than the memory: documents become shards of tokens (10).

    write_shards(load_documents("my_texts"), tokenizer, "data/shards")
    train_ids, val_ids = open_shards("data/shards")
    batches = train_ids.batches(block_size=128, batch_size=32, seed=1)
    train(model, batches, val_ids.sample(), 128, config, tokenizer=train_ids.tokenizer)

A shard is a file in the format safetensors. It holds the tokens of some documents, one after the
other, and the position at which each document starts. Its header says which tokenizer made it and
from which texts. A shard is never loaded as a whole. The operating system maps the file into the
memory, and reads from the disk only the parts that are used.

A document goes to the validation split if the hash of its text is small (see `is_validation`). So
two copies of the same text are always in the same split, in whatever order the documents come.

Each shard is written by one call of `write_shard`, which depends on nothing but its texts. So the
calls can run in other processes or on other machines, and a preparation that was killed goes on
where it was: a shard whose header fits its texts is not written again.
"""

import hashlib
import json
import os
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from tqdm.auto import tqdm

from gptlib.bpe.build import load_tokenizer
from gptlib.checkpoint import write_atomically
from gptlib.checks import (
    any_path,
    at_least,
    between,
    check_arguments,
    optional,
    several,
    some_path,
)
from gptlib.corpora.special_tokens import DOCUMENT_TOKENS, SpecialTokenizer
from gptlib.data import DataError, document_mask
from gptlib.tokenizer import Tokenizer, any_tokenizer, check_surrogates, fingerprint

BEGIN, END = DOCUMENT_TOKENS
INDEX = "shards.json"           # it is written last, so it stands for a complete preparation
SHARD_CHARACTERS = 4_000_000    # a shard is complete when its documents have so many characters
VALIDATION_TOKENS = 1_000_000   # an evaluation on more tokens would hardly be more exact


# Which split a document belongs to ----------------------------------------------------------------

@check_arguments(DataError, text=str)
def text_hash(text: str) -> int:
    """Return the first 8 bytes of the sha256 of a text, as a number from 0 to 2⁶⁴ − 1."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


@check_arguments(DataError, text=str, fraction=between(0.0, 1.0))
def is_validation(text: str, fraction: float = 0.01) -> bool:
    """Return whether a document belongs to the validation split.

    The hash of a text behaves like a random number. About `fraction` of all documents have a hash
    below that share of its range. The same text always gets the same answer.
    """
    return text_hash(text) < fraction * 2 ** 64


# Writing ------------------------------------------------------------------------------------------

def with_document_tokens(tokenizer: Tokenizer) -> SpecialTokenizer:
    """Return the tokenizer with the two special tokens <|begin|> and <|end|>."""
    if isinstance(tokenizer, SpecialTokenizer) and {BEGIN, END} <= set(tokenizer.names):
        return tokenizer
    return SpecialTokenizer(tokenizer, DOCUMENT_TOKENS)


def encode_document(text: str, tokenizer: SpecialTokenizer) -> list[int]:
    """Return the tokens of a document. It begins with <|begin|> and ends with <|end|>."""
    return [tokenizer.special(BEGIN), *tokenizer.encode(text), tokenizer.special(END)]


@check_arguments(
    DataError, documents=several, tokenizer=any_tokenizer, folder=some_path,
    val_fraction=between(0.0, 1.0), shard_characters=at_least(1), workers=at_least(1),
    executor=optional(Executor), total_bytes=optional(at_least(0)), progress=bool,
)
def write_shards(
    documents: Iterable,
    tokenizer: Tokenizer,
    folder: str | Path,
    val_fraction: float = 0.01,
    shard_characters: int = SHARD_CHARACTERS,
    workers: int = 2,
    executor: Executor | None = None,
    total_bytes: int | None = None,
    progress: bool = True,
) -> dict:
    """Encode all documents, and write them to `folder` as shards.

    Only a few shards are in memory at a time. If the preparation is killed, call the function again
    with the same arguments: it reads the documents again, and writes only what is missing. The
    number of workers and the executor do not change a single byte.

    Args:
        documents: anything with a `text`, such as what `load_documents` yields.
        tokenizer: encodes the texts. <|begin|> and <|end|> are added if it does not have them.
        val_fraction: what share of the documents goes to the validation split.
        workers: how many processes encode. 1: this process alone.
        executor: runs the calls in place of the workers, such as a dask client's `get_executor()`.
        total_bytes: the size of all texts. With it, the progress bar shows the time that remains.

    Returns:
        What was written, as in the file shards.json: the tokenizer, and a list of shards.

    Raises:
        DataError: the folder holds shards of other settings or is in use, or there are no
            documents.
        TokenizerError: the tokenizer does not know a character, or a text has half a surrogate
            pair. Earlier shards are kept.
    """
    folder = Path(folder)
    tokenizer = with_document_tokens(tokenizer)
    settings = {"tokenizer": tokenizer.to_dict(), "val_fraction": val_fraction,
                "shard_characters": shard_characters}
    with locked(folder):
        check_settings(folder, settings)
        own_pool = executor is None and workers > 1
        pool = executor
        if own_pool:
            pool = ProcessPoolExecutor(workers, initializer=exit_with_parent)
        bar = tqdm(total=total_bytes, unit="B", unit_scale=True, desc="encoding",
                   disable=not progress)
        try:
            groups = group_documents(documents, val_fraction, shard_characters)
            headers = dict(run_jobs(groups, settings["tokenizer"], folder, pool, workers, bar))
        finally:
            bar.close()
            if own_pool:
                pool.shutdown(cancel_futures=True)
        if not headers:
            raise DataError("there are no documents to write: the source holds no text")
        return write_index(folder, settings, headers)


def exit_with_parent() -> None:
    """Let this process end soon after the one that started it, also if that one was killed."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def group_documents(
    documents: Iterable, val_fraction: float, shard_characters: int
) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the texts of each shard: ("train-00000", [text, text, …])."""
    groups = {"train": [], "val": []}
    counts = {"train": 0, "val": 0}
    characters = {"train": 0, "val": 0}

    def take(split):
        name = f"{split}-{counts[split]:05}"
        texts, groups[split] = groups[split], []
        counts[split] += 1
        characters[split] = 0
        return name, texts

    for document in documents:
        check_surrogates(document.text)
        split = "val" if is_validation(document.text, val_fraction) else "train"
        groups[split].append(document.text)
        characters[split] += len(document.text)
        if characters[split] >= shard_characters:
            yield take(split)
    for split, texts in groups.items():
        if texts:
            yield take(split)


def run_jobs(groups, tokenizer: dict, folder: Path, pool, workers: int, bar) -> Iterator:
    """Yield (name, header) for each group. At most `workers` + 1 groups wait in the pool."""
    waiting = deque()

    def finish():
        name, job = waiting.popleft()
        header = job if isinstance(job, dict) else job.result()
        bar.update(header["bytes"])
        return name, header

    for name, texts in groups:
        path = folder.absolute() / f"{name}.safetensors"
        if pool is None:
            waiting.append((name, write_shard(str(path), texts, tokenizer)))
        else:
            waiting.append((name, pool.submit(write_shard, str(path), texts, tokenizer)))
        while len(waiting) > workers:
            yield finish()
    while waiting:
        yield finish()


def write_shard(path: str, texts: list[str], tokenizer: dict) -> dict:
    """Encode some documents and write them to one file. Return the header of the file.

    A file that was made from the same texts by the same tokenizer is left as it is.
    """
    path = Path(path)
    tokenizer = cached_tokenizer(json.dumps(tokenizer))
    source = {"source_sha256": hash_texts(texts), "tokenizer": fingerprint(tokenizer)}
    header = read_shard_header(path)
    if header and source.items() <= header.items():
        return header
    pieces = [np.array(encode_document(text, tokenizer), token_type(tokenizer)) for text in texts]
    tokens = np.concatenate(pieces)
    starts = np.array([0, *accumulate(map(len, pieces))][:-1], np.int64)
    hashes = np.array([text_hash(text) for text in texts], np.uint64)
    header = {
        **source,
        "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
        "documents": len(texts),
        "tokens": len(tokens),
        "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode("utf-8")) for text in texts),
    }
    content = save({"tokens": tokens, "starts": starts, "hashes": hashes},
                   {"gptlib": json.dumps(header)})
    write_atomically({path: content})
    return header


@lru_cache(maxsize=1)
def cached_tokenizer(saved: str) -> SpecialTokenizer:
    """Return the tokenizer of a dict, written as JSON. A process makes it only once."""
    return load_tokenizer(json.loads(saved))


def token_type(tokenizer: Tokenizer) -> type:
    """Return the smallest type for the ids: 2 bytes for a token, or 4 for large vocabularies."""
    return np.uint16 if tokenizer.vocab_size <= 2 ** 16 else np.uint32


def hash_texts(texts: list[str]) -> str:
    """Return the sha256 of a list of texts. The borders between the texts count too."""
    content = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8")
        content.update(f"{len(encoded)} ".encode() + encoded)
    return content.hexdigest()


# The folder ---------------------------------------------------------------------------------------

@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder, and let only one preparation at a time write into it."""
    lock = FileLock(folder.absolute() / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise DataError(
            f"{folder} is in use by another preparation: wait until it is done, or name another "
            "folder"
        ) from None
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}): name another folder"
        ) from None
    try:
        for temporary in folder.glob(".*.partial"):             # of a process that was killed
            temporary.unlink()
        yield
    finally:
        lock.release()


def check_settings(folder: Path, settings: dict) -> None:
    """Raise a DataError if the folder holds shards that were made with other settings.

    The settings are written before the first shard, so that this holds for an unfinished
    preparation, too.
    """
    path = folder / "settings.json"
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if saved.get(name) != value:
                raise DataError(
                    f"{folder} holds shards that were made with another {name}: name another "
                    "folder, or delete this one"
                )
    elif any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} holds other .safetensors files: name an empty folder")
    content = json.dumps(settings, ensure_ascii=False, indent=1)
    write_atomically({path: content.encode("utf-8")})


def write_index(folder: Path, settings: dict, headers: dict[str, dict]) -> dict:
    """Write shards.json, and remove the shards of an earlier and longer heap. Return the index."""
    shards = [{"name": name, **headers[name]} for name in sorted(headers)]
    index = {**settings, "shards": shards}
    content = json.dumps(index, ensure_ascii=False, indent=1)
    write_atomically({folder / INDEX: content.encode("utf-8")})
    for path in folder.glob("*.safetensors"):
        if path.stem not in headers:
            path.unlink()
    return index


def read_shard_header(path: Path) -> dict | None:
    """Return what a shard says about itself. None: there is no such file, or it is not a shard."""
    try:
        with safe_open(path, framework="np") as file:
            return json.loads((file.metadata() or {})["gptlib"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


# Reading ------------------------------------------------------------------------------------------

@check_arguments(DataError, folder=any_path)
def open_shards(folder: str | Path) -> tuple["Shards", "Shards"]:
    """Return the training split and the validation split of a prepared folder.

    Raises:
        DataError: the folder holds no complete preparation, or a shard is missing or damaged.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        tokenizer = load_tokenizer(index["tokenizer"])
        shards = {split: [s for s in index["shards"] if s["name"].startswith(f"{split}-")]
                  for split in ("train", "val")}
    except (OSError, ValueError, TypeError, KeyError):
        raise DataError(
            f"{folder} holds no complete set of shards: call write_shards, which also goes on with "
            "a preparation that was stopped"
        ) from None
    return tuple(Shards(folder, headers, tokenizer) for headers in shards.values())


class Shards:
    """The tokens of one split, in several files. `shards[1000:1008]` is an array of eight tokens.

    `len(shards)` is the number of tokens.
    """

    def __init__(self, folder: Path, headers: list[dict], tokenizer: SpecialTokenizer):
        self.headers = headers
        self.tokenizer = tokenizer
        self.parts = [map_tensors(folder / f"{h['name']}.safetensors", h) for h in headers]
        # Shard k holds the tokens from ends[k - 1] to ends[k].
        self.ends = list(accumulate(header["tokens"] for header in headers))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def n_documents(self) -> int:
        return sum(header["documents"] for header in self.headers)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change when any token of the split changes."""
        content = "".join(header["sha256"] for header in self.headers)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def starts(self) -> np.ndarray:
        """The position of the first token of each document, (n_documents,)."""
        before = [0, *self.ends]
        parts = [p["starts"] + n for p, n in zip(self.parts, before, strict=False)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def __getitem__(self, where: slice) -> np.ndarray:
        """Return the tokens from `where.start` to `where.stop`, also across two shards."""
        start, stop, _ = where.indices(len(self))
        pieces = []
        while start < stop:
            k = bisect_right(self.ends, start)
            end = min(stop, self.ends[k])
            offset = self.ends[k - 1] if k else 0
            pieces.append(self.parts[k]["tokens"][start - offset:end - offset])
            start = end
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint16)

    def document(self, number: int) -> np.ndarray:
        """Return the tokens of one document, with <|begin|> and <|end|>."""
        starts = [*self.starts[number:number + 2], len(self)]
        return self[int(starts[0]):int(starts[1])]

    @check_arguments(DataError, max_tokens=at_least(1))
    def sample(self, max_tokens: int = VALIDATION_TOKENS) -> Tensor:
        """Return the tokens of whole documents as a tensor in memory, at most `max_tokens`.

        The documents are those with the smallest hashes. So the choice is random, and it is the
        same again when the heap has grown by a few documents.
        """
        hashes = [int(h) for part in self.parts for h in part["hashes"]]
        pieces, n = [], 0
        for number in sorted(range(len(hashes)), key=hashes.__getitem__):
            piece = self.document(number)
            if n + len(piece) > max_tokens:
                break
            pieces.append(piece)
            n += len(piece)
        if not pieces:
            raise DataError(
                f"no document fits into max_tokens={max_tokens}: give a larger number, or a larger "
                "val_fraction when the shards are written"
            )
        return torch.from_numpy(np.concatenate(pieces).astype(np.int64))

    @check_arguments(DataError, block_size=at_least(1), batch_size=at_least(1), seed=at_least(0),
                     mask=bool)
    def batches(
        self, block_size: int, batch_size: int, seed: int, mask: bool = False
    ) -> "ShardBatches":
        """Return a function step -> (x, y), which `train` takes in place of tokens.

        The batches are those of `gptlib.data.get_batch` on all tokens in one row.

        Args:
            mask: whether a token may look only at its own document. Then a batch is (x, y, mask).
        """
        if len(self) <= block_size:
            raise DataError(
                f"the split has {len(self):,} tokens, but windows of block_size={block_size} need "
                f"at least {block_size + 1:,}: take more text or a smaller block_size"
            )
        return ShardBatches(self, block_size, batch_size, seed, mask)


class ShardBatches:
    """Batches of random windows from shards. See `Shards.batches`."""

    def __init__(self, shards: Shards, block_size: int, batch_size: int, seed: int, mask: bool):
        self.shards = shards
        self.block_size = block_size
        self.batch_size = batch_size
        self.seed = seed
        self.mask = mask

    @property
    def digest(self) -> str:
        """`train` compares it when a run is resumed."""
        return self.shards.digest

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.seed, step))
        starts = rng.integers(len(self.shards) - self.block_size, size=self.batch_size)
        windows = np.stack([self.shards[s:s + self.block_size + 1] for s in starts.tolist()])
        windows = torch.from_numpy(windows.astype(np.int64))                    # (B, T + 1)
        batch = windows[:, :-1], windows[:, 1:]
        return (*batch, self.mask_of(starts)) if self.mask else batch

    def mask_of(self, starts: np.ndarray) -> Tensor:
        """Return the document mask of windows that begin at `starts`, (B, 1, T, T)."""
        positions = starts[:, None] + np.arange(self.block_size)                # (B, T)
        documents = np.searchsorted(self.shards.starts, positions, side="right")
        return document_mask(torch.from_numpy(documents))


def map_tensors(path: Path, header: dict) -> dict[str, np.ndarray]:
    """Return the arrays of a shard. They are mapped into memory, not read.

    A file in the format safetensors begins with 8 bytes: the length of its JSON header. The header
    gives the type, the shape and the place of each array behind it.
    """
    if read_shard_header(path) != {k: v for k, v in header.items() if k != "name"}:
        raise DataError(
            f"{path} is missing, damaged or does not belong to the other shards: call write_shards "
            "again, which writes only what is missing"
        )
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        arrays = json.loads(file.read(length))
    types = {"U16": np.uint16, "U32": np.uint32, "I64": np.int64, "U64": np.uint64}
    return {
        name: np.memmap(path, types[array["dtype"]], "r", 8 + length + array["data_offsets"][0],
                        tuple(array["shape"]))
        for name, array in arrays.items() if name != "__metadata__"
    }
