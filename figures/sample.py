"""Write figures/sample.txt: 10,000 characters by a trained model, below a line that names it.

    python figures/sample.py runs/04_full_gpt "chapter 4's model"
"""

import sys
from pathlib import Path

from gptlib.checkpoint import read_header
from gptlib.generate import generate_text
from gptlib.variants.build import load_model

ROOT = Path(__file__).resolve().parents[1]


def main(run: Path, name: str) -> None:
    model, tokenizer = load_model(run)
    history = read_header(run / "best.safetensors")["about"]["history"]
    best = min(history, key=lambda row: row["val_loss"])
    config = model.config
    first_line = (f"[10,000 characters at temperature 0.8, by {name} at step "
                  f"{best['step']}: {config.n_layer} layers of width {config.n_embd}, block "
                  f"{config.block_size}, validation loss {best['val_loss']:.4f} nats per character "
                  "over the whole split]")
    text = generate_text(model, tokenizer, "\n", 10_000, temperature=0.8, seed=1337)
    (ROOT / "figures/sample.txt").write_text(f"{first_line}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
