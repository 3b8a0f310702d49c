"""How much text is enough, what a document mask changes, and how fast text becomes shards.

    python benchmarks/data.py                about 90 CPU-minutes on one thread
    python benchmarks/data.py --trial        a few steps of each run; writes nothing

The results go to benchmarks/data.json, which chapter 10 draws. A finished run is stored in
build/data, so that an interrupted measurement continues where it stopped.

scaling     Models of four sizes read three amounts of text once, with three seeds. A law is fitted
            to the mean losses. Then it predicts runs that were not fitted: a larger model, and more
            text.
epochs      One model reads small texts again and again. When does its validation loss turn?
mask        Windows that hold several documents, with and without a document mask. Both models are
            then evaluated on single documents. The documents are plays, which tell nothing about
            each other, and the speeches of tinyshakespeare, which follow each other in a scene.
throughput  The same documents become tokens on disk: by write_shards, and by the library datasets
            with tiktoken, in turns, with the same BPE tokenizer.
gigabyte    A file of 1 GB goes through `python -m gptlib prepare` in two processes, and a model
            trains on its shards. The memory of all processes together is measured.
"""

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from recipe import parse_options
from recording import provenance, stored, write_results

from gptlib.bpe import BPETokenizer
from gptlib.bpe.exchange import to_tiktoken
from gptlib.config import TrainConfig
from gptlib.corpora import load_corpus, theatre
from gptlib.corpora.documents import Document
from gptlib.corpora.scaling import fit
from gptlib.corpora.shards import open_shards, write_shards
from gptlib.data import split
from gptlib.optimizers import make_optimizer
from gptlib.tokenizer import CharTokenizer
from gptlib.train import NO_TARGET, evaluate_batches, train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "build/data"
SEEDS = (1, 2, 3)

# The fast recipe of chapter 9.
FAST = VariantConfig(vocab_size=1, block_size=64, position="none", rotary=True, rms_norm=True,
                     qk_norm=True, relu2=True, zero_init=True, bigram_table=True)
TRAINING = TrainConfig(max_steps=1, batch_size=12, optimizer="muon", learning_rate=0.02,
                       schedule="wsd", device="cpu")
TOKENS_PER_STEP = TRAINING.batch_size * FAST.block_size

SIZES = {"2 × 32": (2, 32), "2 × 64": (2, 64), "3 × 96": (3, 96), "4 × 128": (4, 128)}
AMOUNTS = (125_000, 250_000, 500_000)                   # characters of the training text
NOT_FITTED = (("4 × 192", (4, 192), 500_000), ("4 × 128", (4, 128), 1_000_000))

EPOCH_AMOUNTS = (10_000, 20_000, 40_000)
EPOCH_STEPS = 600
EPOCH_VALIDATION = 40_000         # characters of the validation split
EPOCH_TRAINING = replace(TRAINING, optimizer="adamw", learning_rate=2e-3, schedule="cosine",
                         lr_decay=10 ** 9, max_steps=EPOCH_STEPS, eval_interval=30, warmup=50)

MASK_STEPS = 300
MASK_MODEL = replace(FAST, block_size=256)
MASK_BATCH = 6


def main() -> None:
    options = parse_options(__doc__)
    about = provenance()
    corpus = load_corpus("tinyshakespeare")
    study = Study(corpus.text, options.trial)
    results = {
        "measures": "validation loss in nats per character, in windows of 64 (scaling: the whole "
                    "split; epochs: its first 40,000 characters) or on single documents (mask); "
                    "seconds of writing tokens to disk",
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        **about,
        "data_code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12],
        "seeds": SEEDS,
        "model": asdict(FAST),
        "training": asdict(TRAINING),
        "scaling": measure_scaling(study),
        "epochs": measure_epochs(study),
        "mask": measure_mask(study),
        "throughput": study.stored("throughput", lambda: measure_throughput(study)),
        "gigabyte": study.stored("gigabyte", lambda: measure_gigabyte(study)),
    }
    if not options.trial:
        write_results("data", results)


class Study:
    """The two splits of the text, and the runs on them, which are stored."""

    def __init__(self, text: str, trial: bool):
        self.trial = trial
        self.text = text[:60_000] if trial else text
        self.tokenizer = CharTokenizer.from_text(text)
        self.train_ids, self.val_ids = split(torch.tensor(self.tokenizer.encode(self.text)))
        self.seeds = SEEDS[:2] if trial else SEEDS
        self.folder = Path(tempfile.mkdtemp()) if trial else STORED / self.digest()

    def digest(self) -> str:
        """Return 12 digits that change with the text, and with the first losses of a run."""
        losses = self.train(FAST, replace(TRAINING, max_steps=4, eval_interval=4),
                            self.train_ids, self.val_ids[:1000])
        content = [hashlib.sha256(self.text.encode()).hexdigest(),
                   [row["val_loss"] for row in losses]]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:12]

    def train(self, model_config, training, train_ids, val_ids) -> list[dict]:
        """Train once. Return the history."""
        torch.manual_seed(training.seed)
        model = make_model(replace(model_config, vocab_size=self.tokenizer.vocab_size))
        if self.trial:
            training = replace(training, max_steps=3, eval_interval=3)
        return train(model, train_ids, val_ids, model_config.block_size, training,
                     progress=False, optimizer=make_optimizer).history

    def stored(self, name: str, work):
        return stored(self.folder / f"{name}.json", work)


# How large a model, and how much text -------------------------------------------------------------

def measure_scaling(study: Study) -> dict:
    """Return all runs, the fitted law, and its errors on the runs that were not fitted."""
    fitted = [scaling_runs(study, name, shape, amount)
              for name, shape in SIZES.items() for amount in AMOUNTS]
    new = [scaling_runs(study, *point) for point in NOT_FITTED]
    if study.trial:
        return {"fitted": fitted}           # after a few steps, losses do not follow a law

    def fit_to(losses_of):
        law = fit([row["parameters"] for row in fitted], [row["tokens"] for row in fitted],
                  [losses_of(row) for row in fitted])
        return law, [law.loss(row["parameters"], row["tokens"]) for row in new]

    law, predictions = fit_to(lambda row: statistics.mean(row["losses"]))
    # The law fitted to each seed alone shows how much the seeds move it.
    by_seed = [fit_to(lambda row, i=i: row["losses"][i]) for i in range(len(study.seeds))]
    for i, row in enumerate(new):
        row["predicted"] = predictions[i]
        row["predicted_by_seed"] = [predicted[i] for _, predicted in by_seed]
        row["error"] = predictions[i] - statistics.mean(row["losses"])
        print(row, flush=True)
    return {"fitted": fitted, "law": asdict(law),
            "law_by_seed": [asdict(one) for one, _ in by_seed], "not_fitted": new}


def scaling_runs(study: Study, name: str, shape: tuple[int, int], amount: int) -> dict:
    """Train one size on one amount of text, which is read about once, with all seeds."""
    n_layer, n_embd = shape
    model_config = replace(FAST, n_layer=n_layer, n_embd=n_embd,
                           n_head=max(1, n_embd // 32))
    steps = round(amount / TOKENS_PER_STEP)
    runs = []
    for seed in study.seeds:
        def work(seed=seed):
            training = replace(TRAINING, max_steps=steps, eval_interval=steps,
                               warmup=min(100, steps // 6), seed=seed)
            row = study.train(model_config, training, study.train_ids[:amount],
                              study.val_ids)[-1]
            print(f"{name}, {amount:,} characters, seed {seed}: {row['val_loss']:.4f} in "
                  f"{row['seconds']:.0f} s", flush=True)
            return {"loss": row["val_loss"], "seconds": row["seconds"]}
        runs.append(study.stored(f"scaling-{n_layer}-{n_embd}-{amount}-{seed}", work))
    config = replace(model_config, vocab_size=study.tokenizer.vocab_size)
    return {"size": name, "parameters": make_model(config).parameter_table()["total"],
            "amount": amount, "tokens": steps * TOKENS_PER_STEP,
            "losses": [run["loss"] for run in runs], "seconds": [run["seconds"] for run in runs]}


# How often ----------------------------------------------------------------------------------------

def measure_epochs(study: Study) -> list[dict]:
    """Return the curves of one model on small texts, which it reads many times."""
    rows = []
    for amount in EPOCH_AMOUNTS:
        for seed in study.seeds:
            def work(amount=amount, seed=seed):
                model_config = replace(VariantConfig(vocab_size=1), block_size=64)
                history = study.train(model_config, replace(EPOCH_TRAINING, seed=seed),
                                      study.train_ids[:amount],
                                      study.val_ids[:EPOCH_VALIDATION])
                best = min(history, key=lambda row: row["val_loss"])
                epochs = best["step"] * TOKENS_PER_STEP / amount
                print(f"{amount:,} characters, seed {seed}: best {best['val_loss']:.3f} after "
                      f"{epochs:.1f} epochs", flush=True)
                curve = [{k: row[k] for k in ("step", "train_loss", "val_loss")}
                         for row in history]
                return {"curve": curve, "best_loss": best["val_loss"], "best_epochs": epochs}
            run = study.stored(f"epochs-{amount}-{seed}", work)
            rows.append({"amount": amount, "seed": seed, **run})
    return rows


# Windows that hold several documents --------------------------------------------------------------

def measure_mask(study: Study) -> list[dict]:
    """Return the losses on single documents, for training with and without a document mask."""
    rows = []
    for name, documents in heaps(study).items():
        with tempfile.TemporaryDirectory() as folder:
            text = "".join(document.text for document in documents)
            tokenizer = CharTokenizer.from_text(text)
            write_shards(documents, tokenizer, folder, val_fraction=0.05, workers=1,
                         progress=False)
            train_ids, val_ids = open_shards(folder)
            val_batches = single_documents(val_ids, MASK_MODEL.block_size)
            for mask in (False, True):
                for seed in study.seeds:
                    def work(mask=mask, seed=seed, train_ids=train_ids, val_batches=val_batches,
                             name=name):
                        return masked_run(study, train_ids, val_batches, mask, seed, name)
                    run = study.stored(f"mask-{name}-{mask}-{seed}", work)
                    rows.append({"documents": name, "mask": mask, "seed": seed, **run})
    return rows


def heaps(study: Study) -> dict[str, list[Document]]:
    plays = theatre.generate(60_000 if study.trial else 1_200_000, level=2, seed=1)
    return {
        "plays": [Document(play + theatre.END, "theatre") for play in plays.split(theatre.END)
                  if play],
        "speeches": [Document(speech, "tinyshakespeare")
                     for speech in study.text.split("\n\n") if speech.strip()],
    }


def single_documents(val_ids, block_size: int, rows: int = 32) -> list[tuple]:
    """Return batches in which each row holds one document, with targets of no weight behind it."""
    whole = [val_ids.document(k)[:block_size + 1].astype(np.int64)
             for k in range(val_ids.n_documents)]
    batches = []
    for start in range(0, len(whole), rows):
        documents = whole[start:start + rows]
        x = torch.zeros(len(documents), block_size, dtype=torch.long)
        y = torch.full_like(x, NO_TARGET)
        for row, ids in enumerate(documents):
            x[row, :len(ids) - 1] = torch.from_numpy(ids[:-1])
            y[row, :len(ids) - 1] = torch.from_numpy(ids[1:])
        batches.append((x, y))
    return batches


def masked_run(study, train_ids, val_batches, mask: bool, seed: int, name: str) -> dict:
    torch.manual_seed(seed)
    steps = 3 if study.trial else MASK_STEPS
    model = make_model(replace(MASK_MODEL, vocab_size=train_ids.tokenizer.vocab_size))
    training = replace(TRAINING, batch_size=MASK_BATCH, max_steps=steps, eval_interval=steps,
                       warmup=min(100, steps // 6), seed=seed)
    batches = train_ids.batches(MASK_MODEL.block_size, MASK_BATCH, seed, mask=mask)
    history = train(model, batches, val_batches[:1], MASK_MODEL.block_size, training,
                    progress=False, optimizer=make_optimizer).history
    loss, _ = evaluate_batches(model, val_batches)
    print(f"{name}, mask {mask}, seed {seed}: {loss:.4f}", flush=True)
    return {"loss": loss, "seconds": history[-1]["seconds"]}


# How fast -----------------------------------------------------------------------------------------

def measure_throughput(study: Study, rounds: int = 5) -> dict:
    """Write the same documents as tokens in turns: write_shards, and datasets with tiktoken."""
    n_characters = 100_000 if study.trial else 12_000_000
    text = theatre.generate(n_characters // 2, level=3, seed=1) + study.text * (
        n_characters // 2 // len(study.text))
    documents = [Document(part, "throughput") for part in text.split("\n\n") if part.strip()]
    n_bytes = sum(len(document.text.encode()) for document in documents)
    bpe = BPETokenizer.train(study.text[:200_000], 300 if study.trial else 1024)
    rows = []
    for _ in range(2 if study.trial else rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_shards(documents, bpe, Path(folder) / "ours", workers=2, progress=False)
            ours = time.perf_counter() - start
            start = time.perf_counter()
            write_with_datasets(documents, bpe, Path(folder) / "theirs")
            theirs = time.perf_counter() - start
        rows.append({"ours": ours, "datasets": theirs})
        print(rows[-1], flush=True)
    ratios = [row["datasets"] / row["ours"] for row in rows]
    return {"bytes": n_bytes, "documents": len(documents), "workers": 2, "rounds": rows,
            "ratio": statistics.median(ratios), "ratios": ratios}


def write_with_datasets(documents: list[Document], bpe: BPETokenizer, folder: Path) -> None:
    """Encode with tiktoken inside of datasets' `map`, in two processes, and save to disk."""
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()
    texts = datasets.Dataset.from_dict({"text": [document.text for document in documents]})
    encoding = to_tiktoken(bpe)

    def encode(batch):
        return {"ids": encoding.encode_ordinary_batch(batch["text"], num_threads=1)}

    texts.map(encode, batched=True, num_proc=2, remove_columns=["text"]).save_to_disk(folder)


# A gigabyte ---------------------------------------------------------------------------------------

def measure_gigabyte(study: Study) -> dict:
    """Prepare a text of 1 GB and train on it. Return the seconds and the largest memory of both."""
    n_bytes = 5_000_000 if study.trial else 1_000_000_000
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        write_plays(Path(folder) / "plays.txt", n_bytes)
        out = Path(folder) / "shards"
        preparing = watched(["prepare", f"{folder}/plays.txt", "--separator", "\n\n",
                             "--out", str(out), "--vocab-size", "600", "--workers", "2"])
        train_ids, val_ids = open_shards(out)
        training = watched(["train", "--shards", str(out), "--out", f"{folder}/run",
                            "--max-steps", "50", "--eval-interval", "50", "--device", "cpu",
                            "--warmup", "10"])
        row = {"bytes": n_bytes, "documents": train_ids.n_documents + val_ids.n_documents,
               "tokens": len(train_ids) + len(val_ids), "shards": len(train_ids.headers),
               "preparing": preparing, "training": training}
    print(row, flush=True)
    return row


def write_plays(path: Path, n_bytes: int) -> None:
    """Write a file of short plays, in which each play of a stock comes again and again."""
    stock = [play for play in theatre.generate(8_000_000, level=3, seed=9).split("\n\n") if play]
    rng = np.random.default_rng(1)
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < n_bytes:
            block = "\n\n".join(stock[i] for i in rng.integers(len(stock), size=10_000)) + "\n\n"
            written += file.write(block)


def watched(arguments: list[str]) -> dict:
    """Run a command of gptlib. Return its seconds, and the largest memory of all its processes.

    Memory that several processes share counts once: it is the proportional set size of Linux.
    """
    import psutil

    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "gptlib", *arguments], cwd=ROOT)
    largest = 0
    while process.poll() is None:
        memory = 0
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]:
            try:
                memory += one.memory_full_info().pss
            except psutil.Error:
                pass                        # this process has just ended
        largest = max(largest, memory)
        time.sleep(0.5)
    assert process.returncode == 0, arguments
    return {"seconds": time.perf_counter() - start, "peak_bytes": largest}


if __name__ == "__main__":
    main()
