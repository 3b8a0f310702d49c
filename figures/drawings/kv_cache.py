"""The KV cache: what is computed for token 4, without and with the cache."""

from style import GREY, Drawing

TOKENS = ("t", "h", "e", "n")
T = len(TOKENS)
WIDTH, LINE = 5, 4.4
KINDS = ("queries", "keys", "values")


def rows_computed(cached: bool) -> dict[str, int]:
    """Return how many queries, keys, values and scores are computed for the last token."""
    if cached:
        return {"queries": 1, "keys": 1, "values": 1, "scores": T}
    # The causal mask hides the scores above the diagonal.
    return {"queries": T, "keys": T, "values": T, "scores": T * (T + 1) // 2}


def draw() -> tuple[Drawing, str]:
    drawing = Drawing(height=57)
    drawing.text(3, 2.5, f"“{TOKENS[-1]}” is token {T}, and it is new. Tokens 1 to {T - 1} were "
                 "read before. What does a head compute?", ha="left")
    draw_panel(drawing, 5, cached=False)
    draw_panel(drawing, 56, cached=True)
    drawing.line((49.8, 7), (49.8, 46.5), color="#BBBBBB")
    legend = ((3, "keys", "now", "computed now"), (27, "keys", "cached", "read from the cache"),
              (57, "keys", "unused", "not needed"), (79, "masked", "now", "masked"))
    for x, kind, state, text in legend:
        cell(drawing, x, 50.5, kind, state)
        drawing.text(x + WIDTH + 1.5, 50.5 + LINE / 2, text, ha="left")
    without, with_cache = rows_computed(False), rows_computed(True)
    alt = (
        f"What a head computes for token {T}, the letter n, after t, h and e. Without a cache all "
        f"rows are computed again: {without['queries']} queries, {without['keys']} keys, "
        f"{without['values']} values and {without['scores']} scores. With the cache only the row "
        f"of the new token is computed: {with_cache['queries']} query, {with_cache['keys']} key, "
        f"{with_cache['values']} value and {with_cache['scores']} scores. The keys and values of "
        f"the {T - 1} earlier tokens are read from the cache, their queries are not needed.")
    return drawing, alt


def cell(drawing: Drawing, x: float, y: float, kind: str, state: str, width=WIDTH) -> None:
    """Draw a row of queries, keys or values, or a score. State: now, cached or unused."""
    rectangle = drawing.data(x + 0.25, y + 0.25, width - 0.5, LINE - 0.5, "", kind)
    if state == "cached":
        rectangle.set(facecolor="white", linewidth=2, linestyle=(0, (2, 1)))
    if state == "unused":
        rectangle.set(facecolor="white", edgecolor="#DDDDDD")


def draw_panel(drawing: Drawing, x: float, cached: bool) -> None:
    top = 18
    drawing.title(x - 2, 8, "with a cache" if cached else "without a cache",
                  "only the new token is computed" if cached else "all tokens are computed again")
    drawing.row_names(x, top, TOKENS, LINE)
    for i, kind in enumerate(KINDS):
        left = x + i * (WIDTH + 1)
        drawing.text(left + WIDTH / 2, top - 1.8, "qkv"[i], fontweight="bold")
        for t in range(T):
            state = "now"
            if cached and t < T - 1:
                state = "unused" if kind == "queries" else "cached"
            cell(drawing, left, top + t * LINE, kind, state)
    drawing.arrow((x + 18, top + 2 * LINE), (x + 23, top + 2 * LINE))
    drawing.text(x + 20.3, top + 2 * LINE - 2, "q · k")
    left = x + 23.8
    drawing.text(left, top - 1.8, "scores", ha="left", fontweight="bold")
    for i in range(T):
        for j in range(T):
            place = (left + j * LINE, top + i * LINE)
            if j > i:
                cell(drawing, *place, "masked", "now", LINE)
            else:
                unused = cached and i < T - 1
                cell(drawing, *place, "attention", "unused" if unused else "now", LINE)
    n = rows_computed(cached)
    rows = n["queries"] + n["keys"] + n["values"]
    plural = "y" if n["queries"] == 1 else "ies"
    drawing.text(x - 2, top + 4 * LINE + 3.5, f"computed: {rows} rows", ha="left")
    drawing.text(x - 2, top + 4 * LINE + 6.3, f"({n['queries']} quer{plural}, {n['keys']} key"
                 f"{'s' * (not cached)}, {n['values']} value{'s' * (not cached)})", ha="left")
    drawing.text(left, top + 4 * LINE + 3.5, f"{n['scores']} scores", ha="left")
    if cached:
        drawing.text(x - 2, top + 4 * LINE + 9.1, f"read: {T - 1} keys, {T - 1} values", ha="left",
                     color=GREY)
