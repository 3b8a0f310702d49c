"""Collect a chapter's answers, and read its solutions and stubs from its notebook."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NUMBERS = {
    "bigram": "01",
    "attention": "02",
    "decoder_block": "03",
    "full_gpt": "04",
    "bpe": "05",
    "time_weighting": "06",
    "context_rolling": "07",
    "sampling": "08",
    "speed": "09",
    "data": "10",
}
SOLUTION = re.compile(
    r"<details>\s*<summary>\s*Solution\s*</summary>(.*?)</details>", re.DOTALL
)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


class Answers(list):
    """A list of functions that answer exercises.

    The decorator `@answers.to("causal_mask", "diagonal")` adds the function below it. The verdict
    must contain the words after the name of the exercise.
    """

    def to(self, exercise, *words):
        def add(function):
            name = f"{exercise}-{function.__name__}"
            self.append(pytest.param(exercise, function, words, id=name))
            return function

        return add


def cells(chapter: str) -> list[dict]:
    """Return the cells of a chapter's notebook."""
    notebook = NOTEBOOKS / f"{NUMBERS[chapter]}_{chapter}.ipynb"
    source = notebook.read_text(encoding="utf-8")
    assert "gptlib.classroom.exercises" in source, f"{notebook.name} has lost its exercises"
    return json.loads(source)["cells"]


def solutions(chapter: str) -> dict[str, str]:
    """Return the source of each folded solution, by the name of the function that it defines."""
    found = {}
    for cell in cells(chapter):
        if cell["cell_type"] != "markdown":
            continue
        for folded in SOLUTION.findall("".join(cell["source"])):
            for source in PYTHON.findall(folded):
                for name in re.findall(r"^def (\w+)\(", source, re.MULTILINE):
                    found[name] = source
    return found


def stubs(chapter: str) -> dict[str, str]:
    """Return the source of each cell with a function to be written, by the function's name."""
    found = {}
    for cell in cells(chapter):
        source = "".join(cell["source"])
        stub = re.fullmatch(r"def (\w+)\(.*\n    \.\.\.", source.strip(), re.DOTALL)
        if cell["cell_type"] == "code" and stub:
            found[stub[1]] = source
    return found


def defined(source: str, name: str, namespace: dict):
    """Run `source` as a notebook's cell, and return the function `name`."""
    exec(source, namespace)
    return namespace[name]
