"""The shapes through a bigram: characters, ids, a row of the table, probabilities, the next one."""

import torch
from style import GREY, Drawing, signed

from gptlib import Bigram, CharTokenizer, count_bigrams
from gptlib.plot import visible

TEXT = "to be or not to be"
BATCH = ("to be ", "or not")
# The position whose prediction is shown: the last one of the second text.
ROW, COLUMN = 1, 5
CELL, LINE = 5.6, 4.4


def compute():
    """Return the tokenizer, the ids (2, 6), the logits (2, 6, V) and the table (V, V)."""
    tokenizer = CharTokenizer.from_text(TEXT)
    counts = count_bigrams(torch.tensor(tokenizer.encode(TEXT)), tokenizer.vocab_size)
    model = Bigram.from_counts(counts, smoothing=1)
    ids = torch.tensor([tokenizer.encode(text) for text in BATCH])
    with torch.no_grad():
        return tokenizer, ids, model(ids), model.table.weight


def draw() -> tuple[Drawing, str]:
    tokenizer, ids, logits, table = compute()
    V = tokenizer.vocab_size
    alphabet = [visible(tokenizer.decode([i])) for i in range(V)]
    chosen = ids[ROW, COLUMN].item()
    probabilities = logits[ROW, COLUMN].softmax(-1)
    likeliest = alphabet[probabilities.argmax()]
    drawing = Drawing(height=76)

    # The batch, as characters and as ids.
    drawing.title(3, 2.5, "characters", "(B, T) = (2, 6)")
    drawing.grid(3, 8, [[visible(c) for c in text] for text in BATCH], "tokens", CELL, LINE)
    drawing.arrow((39, 12.4), (58, 12.4), "each character\nhas a number", at=(48.5, 8.3))
    drawing.title(60, 2.5, "ids", "(B, T) = (2, 6)")
    drawing.grid(60, 8, [[str(i) for i in row] for row in ids.tolist()], "tokens", CELL, LINE)
    x, y = 60 + COLUMN * CELL, 8 + ROW * LINE
    drawing.frame(x, y, CELL, LINE)

    # The table, with the row that the last id names.
    top = 34
    drawing.title(10, 25.5, "learned table of logits",
                  f"(V, V) = ({V}, {V}). Columns: the next character")
    rows = [[signed(value) for value in row] for row in table.tolist()]
    drawing.grid(10, top, rows, "learned", CELL, LINE)
    drawing.row_names(10, top, [f"{i} {c}" for i, c in enumerate(alphabet)], LINE)
    drawing.column_names(10, top, alphabet, CELL)
    drawing.frame(10, top + chosen * LINE, V * CELL, LINE)
    # From the id down and to the left, to its row. From the row to the right, to the logits.
    middle = top + (chosen + 0.5) * LINE
    drawing.line((x + CELL / 2, y + LINE), (x + CELL / 2, 21), (2, 21), (2, middle))
    drawing.arrow((2, middle), (5, middle))
    drawing.text(60, 23.3, f"id {chosen} selects row {chosen}", ha="left")
    drawing.line((10 + V * CELL, middle), (53.5, middle), (53.5, 38.2))
    drawing.arrow((53.5, 38.2), (56.6, 38.2))

    # The logits of this position, its probabilities, and the next character.
    left = 57
    drawing.title(left, 31, "logits of this position", f"(V,) = ({V},)")
    drawing.grid(left, 36, [[signed(v) for v in logits[ROW, COLUMN].tolist()]], "logits",
                 CELL, LINE)
    drawing.arrow((left + 3, 41), (left + 3, 47.5), "softmax: all become positive,\nwith sum 1",
                  at=(left + 5, 44.2), ha="left")
    drawing.column_names(left, 53.5, alphabet, CELL)
    drawing.grid(left, 53.5, [[f"{p:.2f}" for p in probabilities.tolist()]], "logits", CELL, LINE)
    drawing.title(left, 49.3, "probabilities")
    drawing.text(left + 16, 49.3, f"(V,) = ({V},)", ha="left", color=GREY)
    drawing.arrow((left + 3, 58.5), (left + 3, 65), "draw one at random", at=(left + 5, 61.7),
                  ha="left")
    drawing.data(left, 65.6, CELL, LINE, likeliest, "tokens")
    drawing.text(left + CELL + 1.5, 67.8, "the next character", ha="left", fontweight="bold")
    drawing.text(3, 73.7, f"All {ids.numel()} positions do this at once: ids (2, 6) → "
                 f"logits (B, T, V) = {tuple(logits.shape)}.", ha="left")
    alt = (
        f"The shapes through a bigram. A batch of 2 texts with 6 characters each, {BATCH[0]!r} and "
        f"{BATCH[1]!r}, becomes ids of shape (2, 6). The last id is {chosen}, so row {chosen} of "
        f"the ({V}, {V}) table gives the {V} logits of this position. The softmax turns them into "
        f"{V} probabilities, and the next character is drawn from these. All positions together "
        f"give logits of shape {tuple(logits.shape)}.")
    return drawing, alt

