"""Byte pair encoding: one word, merged step by step. gptlib.bpe.simple computes the merges."""

from itertools import pairwise

from style import BLACK, GREY, Drawing

from gptlib.bpe.simple import count_pairs, decode, encode, merge, split_into_bytes, train
from gptlib.bpe.words import GPT4_PATTERN
from gptlib.plot import visible

TEXT = "low low low lower lowest newest newest widest"
WORD = " lowest"
N_MERGES = 5
CELL, LINE, ROW = 5, 4.6, 8.6


def compute():
    """Return the ids of the word before the first and after each merge, and the merges.

    Each merge is (left, right, new token, how often the pair occurs), with tokens as texts.
    """
    merges = train(TEXT, N_MERGES)
    words = split_into_bytes(TEXT, GPT4_PATTERN)
    steps, shown = [encode(WORD, {})], []
    for n, (pair, new_id) in enumerate(merges.items(), 1):
        names = [text_of(i, merges) for i in (*pair, new_id)]
        shown.append((*names, count_pairs(words)[pair]))
        words = [merge(word, pair, new_id) for word in words]
        steps.append(encode(WORD, dict(list(merges.items())[:n])))
    return merges, steps, shown


def text_of(token: int, merges: dict) -> str:
    """Return the text of a token, with each space visible."""
    return "".join(visible(character) for character in decode([token], merges))


def draw() -> tuple[Drawing, str]:
    merges, steps, shown = compute()
    pairs = list(merges)
    drawing = Drawing(height=11.5 + ROW * N_MERGES + LINE + 2)
    drawing.text(2, 2.5, "the text:", ha="left", fontweight="bold")
    drawing.text(13, 2.5, f"“{TEXT}”", ha="left")
    drawing.text(2, 8.5, "the word “␣lowest”", ha="left", fontweight="bold")
    drawing.text(44, 8.5, "the most frequent pair of the whole text", ha="left", fontweight="bold")
    drawing.text(96, 8.5, "tokens", ha="right", fontweight="bold")
    for i, ids in enumerate(steps):
        y = 11.5 + i * ROW
        draw_word(drawing, 2, y, ids, merges, pairs[i] if i < N_MERGES else None,
                  pairs[i - 1] if i else None)
        drawing.text(94, y + LINE / 2, str(len(ids)), ha="right")
        if i < N_MERGES:
            left, right, new, count = shown[i]
            drawing.text(44, y + ROW / 2 + LINE / 2, f"merge {i + 1}: {left} + {right} → {new}",
                         ha="left")
            drawing.text(68, y + ROW / 2 + LINE / 2, f"({count} times)", ha="left", color=GREY)
    merged = "; ".join(f"{left} and {right} become {new}" for left, right, new, _ in shown)
    alt = (
        f"Byte pair encoding learns {N_MERGES} merges from the text '{TEXT}'. The word ␣lowest, "
        f"with its space, begins as {len(steps[0])} bytes. Each merge joins the pair of neighbours "
        f"that is most frequent in the whole text: {merged}. At the end the word is "
        f"{len(steps[-1])} tokens: {' and '.join(text_of(i, merges) for i in steps[-1])}.")
    return drawing, alt


def draw_word(drawing: Drawing, x: float, y: float, ids: list[int], merges: dict,
              next_pair: tuple | None, last_pair: tuple | None) -> None:
    """Draw the tokens of a word. Mark the token that is new, and the pair that is merged next."""
    texts = [text_of(token, merges) for token in ids]
    lefts = [x]
    for text in texts:
        lefts.append(lefts[-1] + CELL * len(text))
    for i, text in enumerate(texts):
        cell = (lefts[i], y, CELL * len(text), LINE)
        drawing.data(*cell, text, "tokens", fontfamily="monospace")
        if ids[i] == merges.get(last_pair):
            drawing.frame(*cell)
    for i, pair in enumerate(pairwise(ids)):
        if pair == next_pair:
            draw_bracket(drawing, lefts[i], lefts[i + 2], y + LINE + 0.8)


def draw_bracket(drawing: Drawing, left: float, right: float, y: float) -> None:
    """Draw a bracket under two tokens, and an arrow from it to the token that they become."""
    bottom, middle = y + 0.8, (left + right) / 2
    drawing.line((left, y), (left, bottom), (right, bottom), (right, y), color=BLACK)
    drawing.arrow((middle, bottom), (middle, y + ROW - LINE - 1), color=BLACK)
