"""Draws figures/sample.txt: 10,000 characters by a trained model, under a line that says which one.

    python figures/sample.py runs/04_full_gpt
"""

import sys
from pathlib import Path

from gptlib.checkpoint import load_checkpoint
from gptlib.generate import generate_text

checkpoint = load_checkpoint(sys.argv[1])
best = min(checkpoint.about["history"], key=lambda row: row["val_loss"])
config = checkpoint.model.config
said = (f"[10,000 characters at temperature 0.8, by chapter 4's model at step {best['step']}: {config.n_layer} layers of width "
        f"{config.n_embd}, block {config.block_size}, validation loss {best['val_loss']:.4f} nats per character over the whole split]\n")
text = generate_text(checkpoint.model, checkpoint.tokenizer, "\n", 10_000, temperature=0.8, seed=1337)
Path(__file__).with_name("sample.txt").write_text(said + "\n" + text, encoding="utf-8")
