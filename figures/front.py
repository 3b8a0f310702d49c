"""Draw figures/front.gif, the moving picture at the top of README.md.

    python figures/front.py

Two models write at the same time: the bigram model of chapter 1, and below it the GPT of chapter 4,
whose text is the beginning of figures/sample.txt.
"""

import re
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from style import BLACK, BLUE, GREY, RED

from gptlib.bigram import Bigram, count_bigrams, evaluate_bigram
from gptlib.corpora import load_corpus
from gptlib.data import split
from gptlib.generate import generate_text
from gptlib.tokenizer import CharTokenizer

ROOT = Path(__file__).resolve().parents[1]
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
WIDTH, HEIGHT, MARGIN = 720, 408, 20
TEXT_SIZE, LINE_HEIGHT = 15, 21
# The text of a model may have so many lines, each with so many characters.
N_LINES, N_COLUMNS = 7, 74
# The picture shows four more characters in each frame, and then stands still for a while.
CHARACTERS_PER_FRAME, MILLISECONDS, PAUSE = 4, 90, 5000


def main() -> None:
    bigram_text, bigram_loss = write_with_bigram()
    gpt_text, gpt_loss = read_sample()
    panels = [
        (f"A table of letter pairs: chapter 1, loss {bigram_loss:.2f}", RED, bigram_text),
        (f"The GPT that you build: chapter 4, loss {gpt_loss:.2f}", BLUE, gpt_text),
    ]
    longest = max(len(text) for _, _, text in panels)
    frames = [draw_frame(panels, shown)
              for shown in range(0, longest + CHARACTERS_PER_FRAME, CHARACTERS_PER_FRAME)]
    palette = frames[-1].quantize(16, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [MILLISECONDS] * (len(frames) - 1) + [PAUSE]
    frames[0].save(ROOT / "figures/front.gif", save_all=True, append_images=frames[1:],
                   duration=durations, loop=0, optimize=True)


def write_with_bigram() -> tuple[str, float]:
    """Return text by the bigram model of tinyshakespeare, and its validation loss."""
    text = load_corpus("tinyshakespeare").text
    tokenizer = CharTokenizer.from_text(text)
    train_ids, val_ids = split(torch.tensor(tokenizer.encode(text)))
    model = Bigram.from_counts(count_bigrams(train_ids, tokenizer.vocab_size))
    loss = evaluate_bigram(train_ids, val_ids, tokenizer.vocab_size)
    return first_lines(generate_text(model, tokenizer, "\n", 1000, seed=1337)), loss


def read_sample() -> tuple[str, float]:
    """Return the beginning of figures/sample.txt, and the validation loss of its model."""
    about, text = (ROOT / "figures/sample.txt").read_text(encoding="utf-8").split("\n", 1)
    return first_lines(text), float(re.search(r"validation loss ([\d.]+)", about)[1])


def first_lines(text: str) -> str:
    """Return the first lines of a text, without empty ones and cut where the picture ends."""
    lines = [line[:N_COLUMNS] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[:N_LINES])


def draw_frame(panels: list[tuple[str, str, str]], shown: int) -> Image.Image:
    """Draw the first `shown` characters of each text under its title."""
    title_font = ImageFont.truetype(FONTS / "DejaVuSans-Bold.ttf", TEXT_SIZE)
    text_font = ImageFont.truetype(FONTS / "DejaVuSansMono.ttf", TEXT_SIZE)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, WIDTH - 1, HEIGHT - 1), outline=GREY)
    y = MARGIN
    for title, color, text in panels:
        draw.text((MARGIN, y), title, font=title_font, fill=color)
        y += 30
        for i, line in enumerate(text[:shown].splitlines()):
            draw.text((MARGIN, y + i * LINE_HEIGHT), line, font=text_font, fill=BLACK)
        y += N_LINES * LINE_HEIGHT + 14
    return image


if __name__ == "__main__":
    main()
