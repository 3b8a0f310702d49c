"""The order of the files of the library: each one imports only from files above it."""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
# A file may import from the files above it. The order is that of "The house" in the design: first
# the core of chapters 1 to 4 and 8, then the subpackages, which plug in from outside.
HOUSE = """
    checks config tokenizer data bigram
    kv_cache attention block model generate speculative
    checkpoint resume run_folder run train_checks train plot

    bpe.words bpe.simple bpe.fast bpe.exchange bpe.build bpe.__init__

    optimizers.muon optimizers.__init__

    variants.__init__ variants.config variants.time_weighting variants.context_rolling
    variants.modern variants.quantize variants.build

    corpora.theatre corpora.text corpora.__init__ corpora.floor corpora.courier
    corpora.courier_text corpora.special_tokens corpora.shards
    corpora.plain_text corpora.formats corpora.documents corpora.cleaning corpora.overlap
    corpora.example_heap corpora.scaling corpora.chat corpora.theatre_questions
    corpora.own_chat

    trained

    plan

    classroom.__init__ classroom.leaderboard classroom.records classroom.measured
    classroom.exercises.__init__ classroom.exercises._comparing classroom.exercises._checking
    classroom.exercises.bigram classroom.exercises.attention classroom.exercises.decoder_block
    classroom.exercises.full_gpt classroom.exercises.bpe classroom.exercises.time_weighting
    classroom.exercises.context_rolling classroom.exercises.sampling classroom.exercises.speed
    classroom.exercises.data
    classroom.notebook_source classroom.grading_process classroom.grade

    widgets.panel widgets.board widgets.explorer widgets.merges widgets.sampler widgets.viewers
    widgets.bigram_row widgets.tokenizers widgets.courier_fact widgets.distance_weights
    widgets.singular_values widgets.near_copies
    widgets.__init__

    prepare

    options __init__ __main__
""".split()
CORE = ["checks", "config", "tokenizer", "data", "bigram", "attention", "block", "model",
        "kv_cache", "generate", "speculative", "checkpoint", "resume", "run_folder", "run",
        "train_checks", "train"]
# The top-level packages and files that the core must not need.
LATER = {"bpe", "optimizers", "variants", "corpora", "classroom", "widgets", "plan", "trained"}
FILE_COLUMNS, CELL_COLUMNS = 100, 88


def name_of(path):
    """Return the name of a file of the library, such as "bpe.fast"."""
    return ".".join(path.relative_to(ROOT / "gptlib").with_suffix("").parts)


LIBRARY = {name_of(path): path for path in sorted((ROOT / "gptlib").rglob("*.py"))}


def file_of_module(module):
    """Return the name of the file that an import of this gptlib module reads."""
    name = ".".join(module.split(".")[1:])
    if name in LIBRARY:
        return name
    return f"{name}.__init__".lstrip(".")


def imported_names(source):
    """Return the names of the library's files that a source imports, also inside of functions.

    `from gptlib.bpe import fast` imports the file bpe.fast. `from gptlib.bpe import BPETokenizer`
    imports the file bpe.__init__.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import in the library names the whole path"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                is_file = file_of_module(submodule) in LIBRARY
                found.add(submodule if is_file else node.module)
    return {file_of_module(module) for module in found if module.split(".")[0] == "gptlib"}


IMPORTS = {name: imported_names(path.read_text(encoding="utf-8")) for name, path in LIBRARY.items()}


def closure(name):
    """Return the names of all files that a file imports, directly or through other files."""
    reached, waiting = set(), [name]
    while waiting:
        for imported in IMPORTS[waiting.pop()] - reached:
            reached.add(imported)
            waiting.append(imported)
    return reached


def test_imports_are_recognised_in_every_form():
    source = "\n".join([
        "import gptlib.plan",
        "import torch",
        "from gptlib import GPT",
        "from gptlib.classroom.exercises import _checking, attention",
        "def f():",
        "    from gptlib.bpe import BPETokenizer",
        "    from gptlib.bpe.fast import BPETokenizer",
    ])
    assert imported_names(source) == {
        "plan", "__init__", "classroom.exercises._checking", "classroom.exercises.attention",
        "bpe.__init__", "bpe.fast"}


def test_every_file_of_the_library_has_its_place_in_the_order():
    assert sorted(HOUSE) == sorted(LIBRARY)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_file_imports_only_from_files_above_it(name):
    above = HOUSE[:HOUSE.index(name)]
    assert IMPORTS[name] <= set(above)


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_nothing_of_what_comes_later(name):
    assert {other.split(".")[0] for other in closure(name)}.isdisjoint(LATER)


def test_the_closure_follows_imports_through_other_files():
    assert {"variants.config", "attention", "config"} <= closure("variants.build")


def test_the_block_does_not_import_time_weighting():
    assert "variants.time_weighting" not in IMPORTS["block"]
    source = LIBRARY["block"].read_text(encoding="utf-8")
    assert "time_weighting" not in source


@pytest.mark.parametrize("name", LIBRARY)
def test_no_line_of_the_library_is_longer_than_100_columns(name):
    lines = LIBRARY[name].read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > FILE_COLUMNS] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")),
                         ids=lambda path: path.stem)
def test_no_line_of_a_code_cell_is_longer_than_88_columns(path):
    cells = nbformat.read(path, as_version=4).cells
    lines = [line for cell in cells if cell.cell_type == "code"
             for line in cell.source.splitlines()]
    assert lines and [line for line in lines if len(line) > CELL_COLUMNS] == []
