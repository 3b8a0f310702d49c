"""MinHash: two texts, their shingles, and the smallest number of each text by three functions."""

import hashlib

from style import Drawing

A = "the king has a golden ring today"
B = "the king has a silver ring today"
FUNCTIONS = (0, 2, 4)           # these three show that two texts may agree or not
X_A, X_B, X_NUMBERS, STEP = 27, 36, 47, 17
ROW, TOP = 5.2, 15


def shingles(text: str) -> list[str]:
    words = text.split()
    return [f"{first} {second}" for first, second in zip(words, words[1:], strict=False)]


def ranks(names: list[str], k: int) -> dict[str, int]:
    """Return the place of each shingle, from 1 on, when they are sorted by hash function k."""
    def number(name):
        return hashlib.sha256(f"{k} {tuple(name.split())}".encode()).digest()
    return {name: place for place, name in enumerate(sorted(names, key=number), start=1)}


def draw() -> tuple[Drawing, str]:
    in_a, in_b = shingles(A), shingles(B)
    names = list(dict.fromkeys(in_a + in_b))
    drawing = Drawing(height=TOP + ROW * len(names) + 13)
    drawing.text(2, 2.5, f"a: {A}", ha="left")
    drawing.text(2, 6, f"b: {B}", ha="left")
    drawing.title(2, 11.5, "shingle")
    drawing.title(X_A, 11.5, "in a", ha="center")
    drawing.title(X_B, 11.5, "in b", ha="center")
    for row, name in enumerate(names):
        y = TOP + row * ROW
        drawing.text(2, y + ROW / 2, name, ha="left")
        for x, where in ((X_A, in_a), (X_B, in_b)):
            drawing.text(x, y + ROW / 2, "✓" if name in where else "")
    told = [draw_function(drawing, n, k, names, in_a, in_b) for n, k in enumerate(FUNCTIONS)]
    shared = len(set(in_a) & set(in_b))
    alt = (
        f"A table of the {len(names)} shingles of two texts. {shared} stand in both texts, so the "
        f"Jaccard similarity is {shared} of {len(names)}. Three hash functions give each shingle a "
        f"number, here its place from 1 to {len(names)}. " + " ".join(told))
    return drawing, alt


def draw_function(drawing, n: int, k: int, names, in_a, in_b) -> str:
    """Draw one column of numbers, mark the smallest of each text, and say whether they agree."""
    places = ranks(names, k)
    x = X_NUMBERS + n * STEP
    drawing.title(x + 4, 11.5, f"function {n + 1}", ha="center")
    smallest_a = min(in_a, key=places.get)
    smallest_b = min(in_b, key=places.get)
    for row, name in enumerate(names):
        y = TOP + row * ROW
        text = str(places[name])
        marks = " ".join(letter for letter, smallest in (("a", smallest_a), ("b", smallest_b))
                         if name == smallest)
        if marks:
            drawing.data(x, y + 0.5, 8, ROW - 1, text, "vectors", fontweight="bold")
            drawing.text(x + 8.8, y + ROW / 2, marks, ha="left", fontweight="bold")
        else:
            drawing.text(x + 4, y + ROW / 2 - 0.25, text)
    agree = smallest_a == smallest_b
    y = TOP + len(names) * ROW + 2.5
    drawing.text(x + 4, y, f"smallest of a: {places[smallest_a]}")
    drawing.text(x + 4, y + 3.4, f"smallest of b: {places[smallest_b]}")
    drawing.text(x + 4, y + 7, "equal" if agree else "different", fontweight="bold")
    return (f"Function {n + 1}: the smallest of a is {places[smallest_a]}, of b "
            f"{places[smallest_b]}: {'equal' if agree else 'different'}.")
