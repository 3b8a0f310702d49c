"""How a chapter's answers are collected, and how its solutions and stubs are read from its notebook."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NUMBERS = {"bigram": "01", "attention": "02", "decoder_block": "03", "full_gpt": "04", "bpe": "05", "time_weighting": "06",
           "context_rolling": "07"}
SOLUTION = re.compile(r"<details>\s*<summary>\s*Solution\s*</summary>(.*?)</details>", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


class Answers(list):
    """`@answers.to("causal_mask", "diagonal")` keeps the function below it, with words that its verdict must contain."""

    def to(self, exercise, *words):
        def keep(function):
            self.append(pytest.param(exercise, function, words, id=f"{exercise}-{function.__name__}"))
            return function
        return keep


def cells(chapter: str) -> list[dict]:
    notebook = NOTEBOOKS / f"{NUMBERS[chapter]}_{chapter}.ipynb"
    source = notebook.read_text(encoding="utf-8")
    assert "gptlib.exercises" in source, f"{notebook.name} has lost its exercises"
    return json.loads(source)["cells"]


def solutions(chapter: str) -> dict[str, str]:
    """The source of each folded solution, by the name of the function that it defines."""
    found = {}
    for cell in cells(chapter):
        if cell["cell_type"] == "markdown":
            for folded in SOLUTION.findall("".join(cell["source"])):
                for source in PYTHON.findall(folded):
                    for name in re.findall(r"^def (\w+)\(", source, re.MULTILINE):
                        found[name] = source
    return found


def stubs(chapter: str) -> dict[str, str]:
    """The source of each cell that defines a function and leaves its body to the reader, by that function's name."""
    found = {}
    for cell in cells(chapter):
        source = "".join(cell["source"])
        stub = re.fullmatch(r"def (\w+)\(.*\n    \.\.\.", source.strip(), re.DOTALL)
        if cell["cell_type"] == "code" and stub:
            found[stub[1]] = source
    return found


def defined(source: str, name: str, namespace: dict):
    """The function `name` after running `source`, as a notebook's cell would."""
    exec(source, namespace)
    return namespace[name]
