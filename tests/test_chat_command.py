"""The command `python -m gptlib chat` answers the lines that it reads."""

import io
import os
import pty
import subprocess
import sys

import pytest
import torch

from gptlib import CharTokenizer
from gptlib.__main__ import main
from gptlib.checkpoint import save_checkpoint
from gptlib.config import TrainConfig
from gptlib.corpora.chat import add_chat_tokens, chat_rows, random_rows
from gptlib.train import train
from gptlib.variants.build import make_model
from gptlib.variants.config import VariantConfig

ALPHABET = "</ASQ>\n abcdefghijklmnopqrstuvwxyz.?W"
LEARNED = [[("question", "Who?"), ("answer", "owl.")],
           [("question", "Who?"), ("answer", "owl."), ("question", "When?"), ("answer", "noon.")],
           [("question", "When?"), ("answer", "noon.")]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return the path of a small model that has learned two answers."""
    torch.manual_seed(1)
    plain = CharTokenizer(ALPHABET)
    model = make_model(VariantConfig(vocab_size=plain.vocab_size, block_size=64, n_layer=2,
                                     n_head=2, n_embd=32))
    model, tokenizer = add_chat_tokens(model, plain)
    rows = chat_rows(tokenizer, LEARNED, 64)
    train(model, random_rows(*rows, 8, seed=1), [rows], 64, progress=False,
          config=TrainConfig(max_steps=120, batch_size=8, eval_interval=120, warmup=5,
                             learning_rate=5e-3, device="cpu"))
    path = tmp_path_factory.mktemp("chat") / "model.safetensors"
    save_checkpoint(path, model, tokenizer)
    return str(path)


@pytest.fixture
def ask(monkeypatch, capsys):
    """Return a function that runs the command with the given input."""
    def ask(typed, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(["chat", *options]) == 0
        output = capsys.readouterr()
        assert output.err == ""
        return output.out
    return ask


def test_each_line_gets_an_answer_and_empty_lines_are_skipped(ask, checkpoint):
    assert ask("Who?\n\n   \nWhen?\n", "--checkpoint", checkpoint) == "owl.\nnoon.\n"


def test_no_line_gets_no_answer(ask, checkpoint):
    assert ask("", "--checkpoint", checkpoint) == ""


def test_a_line_with_an_unknown_character_gets_a_sentence(ask, checkpoint):
    first, second = ask("Ω\nWho?\n", "--checkpoint", checkpoint).splitlines()
    assert "character 'Ω'" in first and second == "owl."


def test_typed_control_tokens_are_text(ask, checkpoint, monkeypatch):
    read = []
    model_call = torch.nn.Embedding.forward

    def forward(self, ids):
        read.append(ids)
        return model_call(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", forward)
    ask("</Q><A>\n", "--checkpoint", checkpoint, "--max-new-tokens", "1")
    n = len(set(ALPHABET))
    prompt = max(read, key=torch.numel)[0].tolist()
    # Only <Q>, </Q> and <A> are special tokens. The program has written them.
    assert [i for i in prompt if i >= n] == [n + 2, n + 3, n + 4]
    assert len(prompt) == 3 + len("</Q><A>")


def test_the_system_text_stands_before_the_question(ask, checkpoint, monkeypatch):
    answers = {ask("Who?\n", "--checkpoint", checkpoint, "--system", text, "--temperature", "1.5",
                   "--seed", "1") for text in ("", "owl", "noon noon noon")}
    assert len(answers) > 1


def test_a_seed_makes_a_chat_repeatable(ask, checkpoint):
    options = ["--checkpoint", checkpoint, "--temperature", "3", "--seed"]
    assert ask("Who?\n", *options, "1") == ask("Who?\n", *options, "1")
    assert ask("Who?\n", *options, "1") != ask("Who?\n", *options, "2")


def test_a_pipe_works_and_bytes_that_are_not_utf_8_do_not_end_the_chat(checkpoint):
    done = subprocess.run(
        [sys.executable, "-m", "gptlib", "chat", "--checkpoint", checkpoint],
        input=b"Who?\n\xff\xfe\nWhen?", capture_output=True, timeout=120,
        env=os.environ | {"PYTHONUTF8": "1"})
    first, second, third = done.stdout.decode("utf-8").splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert (first, third) == ("owl.", "noon.") and "character" in second


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminal in Python")
def test_a_terminal_shows_a_prompt_and_ctrl_d_ends_the_chat(checkpoint):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gptlib", "chat", "--checkpoint", checkpoint],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, b"Who?\n\x04")
    out, error = process.communicate(timeout=120)
    os.close(ours)
    assert (process.returncode, error) == (0, b"")
    assert out == b"> owl.\n> \n"


BAD = {
    "no checkpoint": ([], "--checkpoint"),
    "a missing file": (["--checkpoint", "nowhere"], "nowhere"),
    "a cold chat": (["--checkpoint", "CHAT", "--temperature=-1"], "temperature"),
    "no length": (["--checkpoint", "CHAT", "--max-new-tokens", "0"], "--max-new-tokens 0 should"),
    "a negative seed": (["--checkpoint", "CHAT", "--seed", "-1"], "--seed -1 should be at least 0"),
    "a long system text": (["--checkpoint", "CHAT", "--system", "owl" * 40], "shorten them"),
    "an unknown character": (["--checkpoint", "CHAT", "--system", "Ω"], "character 'Ω'"),
    "no chat": (["--checkpoint", "PLAIN"], "has no special token <S>"),
    "no tokenizer": (["--checkpoint", "BARE"], "was saved without its tokenizer"),
}


@pytest.mark.parametrize(("options", "fragment"), BAD.values(), ids=BAD)
def test_bad_options_get_one_sentence(options, fragment, checkpoint, tmp_path, capsys, monkeypatch):
    plain = CharTokenizer(ALPHABET)
    model = make_model(VariantConfig(vocab_size=plain.vocab_size, n_layer=1, n_head=1, n_embd=4))
    save_checkpoint(tmp_path / "plain.safetensors", model, plain)
    save_checkpoint(tmp_path / "bare.safetensors", model)
    names = {"CHAT": checkpoint, "PLAIN": str(tmp_path / "plain.safetensors"),
             "BARE": str(tmp_path / "bare.safetensors")}
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who?\n"))
    try:
        code = main(["chat", *(names.get(option, option) for option in options)])
    except SystemExit as stopped:
        code = stopped.code
    output = capsys.readouterr()
    assert code not in (0, None) and output.out == ""
    assert output.err.startswith("gptlib") and output.err.count("\n") == 1
    assert fragment in output.err
