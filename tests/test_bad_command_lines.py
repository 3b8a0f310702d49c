"""Bad command lines: each gets one sentence that names what is wrong, and no file is written."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gptlib.__main__ import main

ROOT = Path(__file__).parents[1]
TEXT = "to be, or not to be, that is the question: " * 10
# These options would train a small model. The options of a case come after them and replace them.
SMALL = ["--corpus", f"text:{TEXT}", "--out", "run", "--device", "cpu", "--block-size", "8",
         "--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--max-steps", "2",
         "--batch-size", "2"]
HUGE = "1000000000000"
LONG = "9" * 5000


def each(cases):
    """Return the decorator for a test that gets the arguments and the fragment of each case."""
    return pytest.mark.parametrize(("arguments", "fragment"), cases.values(), ids=cases)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Make an empty folder the working directory of each test."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", *SMALL, "--out", str(folder)]) == 0
    return str(folder)


def files():
    return sorted(str(path) for path in Path().rglob("*"))


def check_refused(capsys, arguments, fragment):
    """Check that the command ends with one sentence, and that it changes no file."""
    before = files()
    capsys.readouterr()
    assert main(arguments) not in (0, None)
    check_sentence(capsys.readouterr().err, fragment)
    assert files() == before


def check_sentence(error, fragment):
    assert error.startswith("gptlib") and ": " in error
    assert fragment in error
    assert error.count("\n") == 1 and error.endswith("\n")
    assert len(error) < 1000
    for word in ("Traceback", "usage:", "Errno", "argument --", "invalid "):
        assert word not in error


# What can be trained ------------------------------------------------------------------------------

CANNOT_BE_TRAINED = {
    "a number in letters": (["--n-layer", "two"], "--n-layer 'two' should be a whole number"),
    "a fraction of a layer": (["--n-layer", "1.5"], "--n-layer '1.5' should be a whole number"),
    "an empty number": (["--n-head", ""], "--n-head '' should be a whole number"),
    "exponent for a whole number": (["--max-steps", "1e3"], "--max-steps '1e3' should be a whole"),
    "decimal comma": (["--learning-rate", "0,003"], "--learning-rate '0,003' should be a number"),
    "a number with a unit": (["--dropout", "10%"], "--dropout '10%' should be a number"),
    "no layers": (["--n-layer", "0"], "--n-layer 0 should be at least 1"),
    "negative layers": (["--n-layer", "-3"], "--n-layer -3 should be at least 1"),
    "no heads": (["--n-head", "0"], "--n-head 0 should be at least 1"),
    "negative heads": (["--n-head=-1"], "--n-head -1 should be at least 1"),
    "no channels": (["--n-embd", "0"], "--n-embd 0 should be at least 1"),
    "channels and heads": (["--n-embd", "9"], "--n-embd 9 should be a multiple of --n-head 2"),
    "odd sinusoidal": (["--n-embd", "9", "--n-head", "1", "--position", "sinusoidal"],
                       "--n-embd 9 should be even"),
    "no block": (["--block-size", "0"], "--block-size 0 should be at least 1"),
    "negative block": (["--block-size", "-8"], "--block-size -8 should be at least 1"),
    "block longer than the text": (["--block-size", "64"], "windows of --block-size 64 need"),
    "no hidden channels": (["--mlp-ratio", "0"], "--mlp-ratio 0 should be at least 1"),
    "dropout of 1": (["--dropout", "1"], "--dropout 1.0 should be at least 0 and below 1"),
    "negative dropout": (["--dropout", "-0.1"], "--dropout -0.1 should be at least 0"),
    "dropout nan": (["--dropout", "nan"], "--dropout nan should be a finite number"),
    "no steps": (["--max-steps", "0"], "--max-steps 0 should be at least 1"),
    "negative steps": (["--max-steps", "-1"], "--max-steps -1 should be at least 1"),
    "no batch": (["--batch-size", "0"], "--batch-size 0 should be at least 1"),
    "negative batch": (["--batch-size", "-16"], "--batch-size -16 should be at least 1"),
    "no learning rate": (["--learning-rate", "0"], "--learning-rate 0.0 should be above 0"),
    "negative learning rate": (["--learning-rate", "-1e-3"], "--learning-rate -0.001 should be"),
    "infinite learning rate": (["--learning-rate", "inf"], "--learning-rate inf should be a fin"),
    "minus infinity": (["--learning-rate", "-inf"], "--learning-rate -inf should be a finite"),
    "learning rate nan": (["--learning-rate", "nan"], "--learning-rate nan should be a finite"),
    "least rate above the rate": (["--min-lr", "1"],
                                  "--min-lr 1.0 should be at most --learning-rate 0.003"),
    "negative warm-up": (["--warmup", "-1"], "--warmup -1 should be at least 0"),
    "negative decay": (["--lr-decay", "-1"], "--lr-decay -1 should be at least 0"),
    "negative weight decay": (["--weight-decay", "-.1"], "--weight-decay -0.1 should be at least"),
    "beta1 of 1": (["--beta1", "1"], "--beta1 1.0 should be at least 0 and below 1"),
    "negative beta2": (["--beta2", "-1"], "--beta2 -1.0 should be at least 0 and below 1"),
    "negative clipping": (["--grad-clip", "-1"], "--grad-clip -1.0 should be at least 0"),
    "no evaluation": (["--eval-interval", "0"], "--eval-interval 0 should be at least 1"),
    "negative seed": (["--seed", "-1"], "--seed -1 should be at least 0"),
    "seed of 64 bits": (["--seed", str(2 ** 63)], "--seed 9223372036854775808 should be below"),
    "unknown device": (["--device", "tpu"], "--device 'tpu' is not available on this machine"),
    "unknown dtype": (["--dtype", "float16"], "--dtype 'float16' is unknown: did you mean"),
    "unknown position": (["--position", "learnt"], "did you mean 'learned'?"),
    "unknown initial weights": (["--init", "gpt3"], "did you mean 'gpt2'?"),
    "unknown unit": (["--lr-unit", "step"], "--lr-unit 'step' is unknown: did you mean 'steps'?"),
    "unknown tokenizer": (["--tokenizer", "Char"], "--tokenizer 'Char' is unknown: did you mean"),
    "resume in capitals": (["--resume", "Auto"], "--resume 'Auto' is unknown: did you mean 'auto'"),
    "resume yes": (["--resume", "yes"], "--resume 'yes' is unknown. Known: never, auto"),
    "unknown attention": (["--attention", "toplitz"], "did you mean 'toeplitz'?"),
    "unknown memory": (["--memory", "means"], "--memory 'means' is unknown: did you mean 'mean'?"),
    "no window": (["--window", "0"], "--window 0 should be at least 1"),
    "window and block": (["--memory", "mean", "--window", "3"],
                         "--block-size 8 should be a multiple of --window 3, such as 6"),
    "no memory tokens": (["--n-memory", "0"], "--n-memory 0 should be at least 1"),
    "memory tokens without memory": (["--n-memory", "2"], "--n-memory 2 should be 1 for"),
    "a value for a switch": (["--bias=3"], "--bias/--no-bias takes no value, but is given '3'"),
    "a word after a switch": (["--bias", "yes"], "unexpected argument 'yes'"),
    "option without value": (["--n-embd"], "--n-embd needs a value"),
    "option before option": (["--seed", "--bias"], "--seed needs a value"),
    "dash at the beginning": (["--corpus", "-x"], "--corpus needs a value; write --corpus=VALUE"),
    "misspelt option": (["--n-layers", "3"], "'--n-layers': did you mean '--n-layer'?"),
    "misspelt option with =": (["--n_embd=8"], "'--n_embd': did you mean '--n-embd'?"),
    "shortened option": (["--n-lay", "3"], "'--n-lay': did you mean '--n-layer'?"),
    "option of another command": (["--top-k", "3"], "unknown option '--top-k'"),
    "one dash": (["-seed", "3"], "'-seed': did you mean '--seed'?"),
    "an option after --": (["--", "--seed", "3"], "--seed stands after --, where no option is"),
    "decay that ends in the warm-up": (["--warmup", "2", "--lr-decay", "1"],
                                       "--lr-decay 1 should be above --warmup 2, or 0"),
    "the device meta": (["--device", "meta"], "--device 'meta' is not available on this machine"),
    "a word too much": (["poem.txt"], "unexpected argument 'poem.txt'"),
    "unknown corpus": (["--corpus", "theater"], "'theater': did you mean 'theatre'?"),
    "empty name of a corpus": (["--corpus", ""], "unknown corpus ''"),
    "missing file": (["--corpus", "poem.txt"], "unknown corpus 'poem.txt'"),
    "missing file with the name of an error": (["--corpus", "out of memory.txt"],
                                               "unknown corpus 'out of memory.txt'"),
    "missing file with the name of an option": (["--corpus", "n_layer=3.txt"],
                                                "unknown corpus 'n_layer=3.txt'"),
    "empty text": (["--corpus", "text:"], "corpus 'text' holds no text"),
    "one character": (["--corpus", "text:a"], "the training split has 0 tokens"),
    "97 characters and block 64": (["--corpus", "text:" + 97 * "a", "--block-size", "64"],
                                   "the validation split has 10 tokens"),
    "text with a byte that is not utf-8": (["--corpus", "text:" + TEXT + "\udcff"],
                                           "is not utf-8 text"),
    "corpus with a byte that is not utf-8": (["--corpus", "caf\udce9.txt"],
                                             "--corpus 'caf\\udce9.txt' is not utf-8 text"),
    "tokens below the bytes": (["--tokenizer", "bpe", "--vocab-size", "100"],
                               "--vocab-size 100 should be at least 256"),
    "more tokens than words": (["--tokenizer", "bpe", "--vocab-size", HUGE],
                               f"--vocab-size {HUGE} is too large for this text"),
    "folder with a byte that is not utf-8": (["--out", "caf\udce9"],
                                             "--out 'caf\\udce9' is not utf-8 text"),
    "empty folder name": (["--out", ""], "--out '' should be the name of a file or a folder"),
    "huge number of layers": (["--n-layer", HUGE], f"--n-layer {HUGE} should be at most 10,000"),
    "a hundred thousand layers": (["--n-layer", "100000"], "--n-layer 100000 should be at most"),
    "huge width": (["--n-embd", HUGE], f"--n-embd {HUGE} is too large: the run needs at least"),
    "huge hidden layer": (["--mlp-ratio", HUGE + "000"], "--mlp-ratio 1000000000000000 is too"),
    "huge block": (["--block-size", HUGE], f"--block-size {HUGE}"),
    "huge batch": (["--batch-size", HUGE + "000"], "--batch-size 1000000000000000 is too large"),
    "huge memory": (["--memory", "tokens", "--window", "8", "--n-memory", HUGE + "000"],
                    "--n-memory 1000000000000000 is too large"),
    "huge number of steps": (["--max-steps", HUGE], f"--max-steps {HUGE} should be at most"),
    "21 digits": (["--n-layer", "9" * 21], "should be below 2 ** 63"),
    "5000 digits": (["--batch-size", LONG], "should be below 2 ** 63"),
    "5000 digits after the point": (["--dropout", "0." + LONG], "--dropout 1.0 should be"),
    "unknown preset in no course": (["--preset", "nanogpt"], "change to its folder first"),
    "preset without a name": (["--preset"], "--preset '' is not found"),
}


@each(CANNOT_BE_TRAINED)
def test_train_refuses_it_with_one_sentence(capsys, arguments, fragment):
    check_refused(capsys, ["train", *SMALL, *arguments], fragment)


@each(CANNOT_BE_TRAINED)
def test_plan_refuses_what_train_refuses(capsys, arguments, fragment):
    check_refused(capsys, ["plan", "--steps", "0", *SMALL, *arguments], fragment)


@pytest.mark.parametrize(("option", "value"), [
    ("--n-embd", "1000000"), ("--batch-size", HUGE), ("--batch-size", "100000000"),
], ids="={}".format)
def test_train_names_the_size_that_does_not_fit_into_this_machine(capsys, option, value):
    check_refused(capsys, ["train", *SMALL, option, value], f"{option} {value} is too large")
    check_refused(capsys, ["plan", *SMALL, option, value], f"{option} {value} is too large")
    # A plan that times no step is possible.
    assert main(["plan", "--steps", "0", *SMALL, option, value]) == 0


@pytest.mark.parametrize("error", [
    MemoryError("Unable to allocate 7.28 TiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118]\nDefaultCPUAllocator: can't allocate memory"),
    RuntimeError("Storage size calculation overflowed with sizes=[3, 4]"),
], ids=["numpy", "torch", "overflow"])
def test_a_memory_that_is_too_small_gives_one_sentence(capsys, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr("gptlib.__main__.make_model", fail)
    check_refused(capsys, ["train", *SMALL], "the memory of this machine is too small")


@pytest.mark.parametrize("command", ["train", "plan"])
def test_out_that_is_a_file_is_refused_before_the_work(capsys, command):
    Path("notes").write_text("mine")
    check_refused(capsys, [command, *SMALL, "--out", "notes"], "--out 'notes' should be a folder")
    check_refused(capsys, [command, *SMALL, "--out", "notes/run"], "but notes is not")
    assert Path("notes").read_text() == "mine"


def test_plan_names_the_folder_that_cannot_be_written(capsys, monkeypatch):
    def refuse(*args, **how):
        raise OSError(30, "Read-only file system", "/somewhere/tmpx7gh")

    monkeypatch.setattr("gptlib.plan.tempfile.TemporaryDirectory", refuse)
    check_refused(capsys, ["plan", "--steps", "1", *SMALL], "--out 'run' cannot be written")


def test_a_negative_number_of_steps_to_time_is_refused(capsys):
    check_refused(capsys, ["plan", "--steps", "-5", *SMALL], "--steps -5 should be at least 0")


def test_a_home_folder_is_found_also_after_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", str(Path("home").resolve()))
    assert main(["train", *SMALL, "--out=~/run"]) == 0
    assert Path("home/run/best.safetensors").is_file() and not Path("~").exists()


def test_the_home_folder_of_an_unknown_user_is_refused(capsys):
    check_refused(capsys, ["train", *SMALL, "--out", "~nobody-has-this-name/run"],
                  "--out '~nobody-has-this-name/run' is in the home folder of an unknown user")


@pytest.mark.parametrize(("options", "highest"), [
    (["--warmup", "10"], "rises to 0.0006, not to 0.003"),
    (["--warmup", "320", "--lr-unit", "tokens"], "rises to 0.0003, not to 0.003"),
], ids=["steps", "tokens"])
def test_a_warm_up_that_is_longer_than_the_run_is_reported(capsys, options, highest):
    assert main(["train", *SMALL, *options]) == 0
    assert highest in capsys.readouterr().out


def test_a_warm_up_that_ends_with_the_run_is_not_reported(capsys):
    assert main(["train", *SMALL, "--warmup", "2"]) == 0
    assert "warm-up" not in capsys.readouterr().out


def test_a_rank_without_the_other_variables_of_torchrun_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_refused(capsys, ["train", *SMALL],
                  "the environment has RANK='0' without WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,")


@pytest.mark.parametrize(("name", "value", "fragment"), [
    ("RANK", "abc", "the environment has RANK='abc', it should be a whole"),
    ("MASTER_PORT", "abc", "the environment has MASTER_PORT='abc', it should be a whole"),
    ("RANK", "5", "the environment has RANK=5, it should be below WORLD_SIZE=1"),
    ("WORLD_SIZE", "0", "the environment has RANK=0, it should be below WORLD_SIZE=0"),
])
def test_a_wrong_variable_of_torchrun_is_refused(capsys, monkeypatch, name, value, fragment):
    torchrun = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost",
                "MASTER_PORT": "29500"}
    for variable, right in torchrun.items():
        monkeypatch.setenv(variable, right)
    monkeypatch.setenv(name, value)
    check_refused(capsys, ["train", *SMALL], fragment)


def test_out_that_is_a_link_to_nothing_is_refused(capsys):
    Path("link").symlink_to("nothing")
    check_refused(capsys, ["train", *SMALL, "--out", "link"], "is a file, or a link that leads now")


def test_a_folder_with_the_name_of_a_checkpoint_is_refused(capsys):
    Path("run/last.safetensors").mkdir(parents=True)
    assert main(["train", *SMALL, "--resume", "auto"]) == 1
    check_sentence(capsys.readouterr().err, "run/last.safetensors is a folder, and a run writes")
    assert Path("run/last.safetensors").is_dir()


def test_a_wrong_backend_of_matplotlib_is_refused_before_the_training():
    command = [sys.executable, "-m", "gptlib", "train", *SMALL]
    done = subprocess.run(command, capture_output=True, timeout=100, text=True, env=os.environ | {
        "PYTHONPATH": str(ROOT), "MPLBACKEND": "nonsense"})
    assert done.returncode == 1 and not Path("run").exists()
    check_sentence(done.stderr, "'nonsense' is not a valid value for backend")


# generate -----------------------------------------------------------------------------------------

CANNOT_BE_GENERATED = {
    "missing folder": (["--checkpoint", "nowhere"], "nowhere does not exist"),
    "empty checkpoint": (["--checkpoint", ""], "--checkpoint '' should be the name of a file"),
    "checkpoint not utf-8": (["--checkpoint", "caf\udce9"], "'caf\\udce9' is not utf-8 text"),
    "checkpoint without value": (["--checkpoint"], "--checkpoint needs a value"),
    "unknown character": (["--prompt", "Ω"], "character 'Ω' (U+03A9)"),
    "empty prompt": (["--prompt", ""], "the prompt is empty"),
    "prompt not utf-8": (["--prompt", "to\udcff"], "--prompt 'to\\udcff' is not utf-8 text"),
    "prompt with a dash": (["--prompt", "-to"], "--prompt needs a value; write --prompt=VALUE"),
    "stop not utf-8": (["--stop", "\udcff"], "--stop '\\udcff' is not utf-8 text"),
    "empty stop": (["--stop", ""], "a stop string is empty"),
    "negative length": (["--max-new-tokens", "-1"], "--max-new-tokens -1 should be at least 0"),
    "length in letters": (["--max-new-tokens", "many"], "--max-new-tokens 'many' should be"),
    "negative temperature": (["--temperature", "-1"], "--temperature -1.0 should be at least 0.0"),
    "temperature nan": (["--temperature", "nan"], "--temperature nan should be"),
    "temperature in words": (["--temperature", "hot"], "--temperature 'hot' should be a number"),
    "no top-k": (["--top-k", "0"], "--top-k 0 should be at least 1\n"),
    "negative top-k": (["--top-k", "-1"], "--top-k -1 should be at least 1"),
    "fraction of top-k": (["--top-k", "2.5"], "--top-k '2.5' should be a whole number"),
    "top-p above 1": (["--top-p", "2"], "--top-p 2.0 should be between 0 and 1"),
    "negative top-p": (["--top-p", "-.5"], "--top-p -0.5 should be between 0 and 1"),
    "negative seed": (["--seed", "-1"], "--seed -1 should be at least 0"),
    "misspelt option": (["--temprature", "1"], "did you mean '--temperature'?"),
    "option of train": (["--n-layer", "1"], "unknown option '--n-layer'"),
    "preset": (["--preset", "nanogpt"], "unknown option '--preset'"),
    "value for int8": (["--int8=yes"], "--int8 takes no value, but is given 'yes'"),
}


@each(CANNOT_BE_GENERATED)
def test_generate_refuses_it_with_one_sentence(run, capsys, arguments, fragment):
    check_refused(capsys, ["generate", "--checkpoint", run, "--prompt", "to", *arguments], fragment)


def test_an_error_after_the_prompt_begins_a_new_line(run, capsys):
    assert main(["generate", "--checkpoint", run, "--prompt", "日"]) == 1
    assert capsys.readouterr().out == "日\n"


def test_generate_refuses_a_file_that_is_no_checkpoint(capsys):
    Path("notes.safetensors").write_text("mine")
    check_refused(capsys, ["generate", "--checkpoint", "notes.safetensors"], "notes.safetensors")


# grade and the program itself ---------------------------------------------------------------------

CANNOT_BE_RUN = {
    "no command": ([], "a command is missing: give one of train, plan, generate, chat"),
    "unknown command": (["fly"], "unknown command 'fly'"),
    "misspelt command": (["trian"], "unknown command 'trian': did you mean 'train'?"),
    "empty command": ([""], "unknown command ''"),
    "option before the command": (["--n-layer", "3", "train"], "'--n-layer' stands before the"),
    "version": (["--version"], "'--version' stands before the command"),
    "generate without checkpoint": (["generate"], "--checkpoint is missing"),
    "grade without folder": (["grade"], "folder is missing"),
    "grade in a missing folder": (["grade", "nowhere"], "nowhere"),
    "grade with an empty folder name": (["grade", ""], "folder '' should be the name of"),
    "grade without time": (["grade", ".", "--seconds", "0"], "--seconds 0.0 should be above 0"),
    "grade with negative time": (["grade", ".", "--seconds", "-1"], "--seconds -1.0 should be ab"),
    "grade with time nan": (["grade", ".", "--seconds", "nan"], "--seconds nan should be a fin"),
    "grade with time in words": (["grade", ".", "--seconds", "ten"], "--seconds 'ten' should be"),
    "grade without memory": (["grade", ".", "--memory", "0"], "--memory 0 should be at least 1"),
    "grade with memory in GB": (["grade", ".", "--memory", "1GB"], "--memory '1GB' should be a"),
    "grade without workers": (["grade", ".", "--workers", "0"], "--workers 0 should be at least"),
    "grade with negative workers": (["grade", ".", "--workers", "-2"], "--workers -2 should be"),
    "grade to an empty name": (["grade", ".", "--out", ""], "--out '' should be the name of"),
    "grade with two folders": (["grade", "a", "b"], "unexpected argument 'b'"),
    "grade with a misspelt option": (["grade", ".", "--second", "1"], "did you mean '--seconds'?"),
}


@each(CANNOT_BE_RUN)
def test_the_program_refuses_it_with_one_sentence(capsys, arguments, fragment):
    check_refused(capsys, arguments, fragment)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["generate", "-h"]])
def test_help_is_still_shown(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


# Presets ------------------------------------------------------------------------------------------

BAD_PRESETS = {
    "empty": ("", "notebooks/params/mine.yaml should hold a name and a value in each line"),
    "only a comment": ("# n_layer: 2\n", "but it holds nothing"),
    "a list": ("- n_layer\n- 2\n", "should hold a name and a value in each line"),
    "yes": ("yes\n", "should hold a name and a value in each line"),
    "a tab": ("n_layer:\n\t2\n", "notebooks/params/mine.yaml is not YAML"),
    "an open bracket": ("n_layer: [1\n", "notebooks/params/mine.yaml is not YAML"),
    "a Python object": ("n_layer: !!python/object:os.system {}\n", "is not YAML"),
    "misspelt setting": ("n_layrs: 2\n", "unknown setting 'n_layrs': did you mean 'n_layer'?"),
    "option as setting": ("n-layer: 2\n", "unknown setting 'n-layer': did you mean 'n_layer'?"),
    "a number as setting": ("2: n_layer\n", "unknown setting 2"),
    "yes for a number": ("n_layer: yes\n", "n_layer=True is bool, it should be int"),
    "a number for yes": ("bias: 1\n", "bias=1 is int, it should be bool"),
    "a list for a number": ("n_layer: [1, 2]\n", "n_layer=[1, 2] is list, it should be int"),
    "nothing for a number": ("n_layer:\n", "n_layer=None is NoneType, it should be int"),
    "an exponent without a point": ("learning_rate: 1e-3\n", "write 1.0e-3"),
    "a number for a text": ("corpus: 3\n", "corpus=3 is int, it should be str"),
    "unknown choice": ("position: up\n", "position='up' should be one of 'learned'"),
    "unknown tokenizer": ("tokenizer: chars\n", "--tokenizer 'chars' is unknown: did you mean"),
    "a setting twice": ("n_layer: 1\nn_embd: 8\nn_layer: 2\n",
                        "mine.yaml: n_layer stands there twice, it should stand once"),
    "negative layers": ("n_layer: -1\n", "--n-layer -1 should be at least 1"),
    "empty folder name": ("out_dir: ''\n", "--out '' should be the name of a file or a folder"),
}


def write_preset(content):
    """Make the working directory a course with this one preset."""
    Path("gptlib").mkdir()
    Path("notebooks/params").mkdir(parents=True)
    Path("notebooks/params/mine.yaml").write_bytes(content)


@pytest.mark.parametrize(("content", "fragment"), BAD_PRESETS.values(), ids=BAD_PRESETS)
def test_a_bad_preset_gives_one_sentence(capsys, content, fragment):
    write_preset(content.encode())
    check_refused(capsys, ["train", "--preset", "mine"], fragment)


@pytest.mark.parametrize(("arguments", "fragment"), [
    (["--preset", "mime"], "unknown preset 'mime': did you mean 'mine'? Known: mine."),
    (["--preset", ""], "unknown preset ''. Known: mine."),
    (["--preset"], "unknown preset ''. Known: mine."),
    (["--preset", "--n-layer", "2"], "unknown preset ''. Known: mine."),
    (["--preset", "../params/mine"], "unknown preset '../params/mine'"),
    (["--preset=mine.yaml"], "unknown preset 'mine.yaml': did you mean 'mine'?"),
], ids=str)
def test_an_unknown_preset_gives_one_sentence(capsys, arguments, fragment):
    write_preset(b"n_layer: 2\n")
    check_refused(capsys, ["plan", *arguments], fragment)


def test_a_preset_that_is_not_utf8_gives_one_sentence(capsys):
    write_preset("corpus: café.txt\n".encode("latin-1"))
    check_refused(capsys, ["plan", "--preset", "mine"], "mine.yaml is not utf-8 text: see byte 11")


# A small installation -----------------------------------------------------------------------------

@pytest.mark.parametrize(("package", "arguments"), [
    ("yaml", ["train", "--preset", "mine"]), ("psutil", ["grade", "."]),
])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    capsys, monkeypatch, package, arguments
):
    write_preset(b"n_layer: 2\n")
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("grade", "grading_process"):
        monkeypatch.delitem(sys.modules, f"gptlib.classroom.{module}", raising=False)
    sentence = f"the package {package} is not installed: pip install -e '.[course]'"
    check_refused(capsys, arguments, sentence)


def run_program(arguments, code="pass", **how):
    """Run a command in a new Python process, after `code`."""
    start = f"import sys; {code}; from gptlib.__main__ import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | how.pop("env", {})
    return subprocess.run([sys.executable, "-c", start, *arguments], capture_output=True,
                          timeout=100, env=environment, **how)


def test_train_plan_and_generate_need_only_the_base_packages(run):
    optional = ["ipykernel", "ipywidgets", "jupyterlab", "pandas", "papermill", "psutil", "yaml"]
    code = (f"sys.modules |= dict.fromkeys({optional}); from gptlib.__main__ import main; "
            f"main({['train', *SMALL]}); main({['plan', *SMALL]})")
    done = run_program(["generate", "--checkpoint", run, "--max-new-tokens", "1"], code)
    assert done.returncode == 0
    assert b"gptlib" not in done.stderr and Path("run/loss.png").exists()
    assert b"time: in all" in done.stdout


# Consoles, pipes and bytes ------------------------------------------------------------------------

class Console(io.TextIOWrapper):
    """A console that shows only the characters of one encoding."""

    def __init__(self, encoding="cp1252"):
        super().__init__(io.BytesIO(), encoding=encoding)

    def shown(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def test_a_console_without_arabic_shows_the_whole_text(monkeypatch):
    corpus = "text:" + 20 * "أكون أو لا أكون تلك هي المسألة "
    out = ["--corpus", corpus, "--out", "日記"]
    console = Console()
    monkeypatch.setattr(sys, "stdout", console)
    assert main(["plan", "--steps", "0", *SMALL, *out]) == 0
    assert main(["train", *SMALL, *out]) == 0
    assert "model in \\u65e5\\u8a18" in console.shown()
    console = Console()
    monkeypatch.setattr(sys, "stdout", console)
    assert main(["generate", "--checkpoint", "日記", "--prompt", "أ", "--max-new-tokens", "20",
                 "--seed", "1"]) == 0
    text = console.shown().rstrip("\r\n").encode().decode("unicode_escape")
    assert len(text) == 21 and text.startswith("أ")


def test_the_sentence_about_an_error_is_shown_by_every_console(monkeypatch):
    console = Console("ascii")
    monkeypatch.setattr(sys, "stderr", console)
    assert main(["train", "--corpus", "日記"]) == 1
    check_sentence(console.shown(), "unknown corpus '\\u65e5\\u8a18'")


def test_help_is_shown_by_a_console_without_unicode():
    done = run_program(["train", "--help"], env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"text:\\u2026" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs head")
def test_a_pipe_that_is_closed_early_ends_the_command_quietly(run):
    command = [sys.executable, "-m", "gptlib", "generate", "--checkpoint", run,
               "--max-new-tokens", "100000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment)
    program.stdout.read(20)
    program.stdout.close()
    assert program.stderr.read() == b""
    assert program.wait(timeout=100) != 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_gives_one_sentence(run):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "gptlib", "plan", "--steps", "0", *SMALL]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=100,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    check_sentence(done.stderr.decode(), "the output cannot be read or written (No space left")


# A text without a line break ----------------------------------------------------------------------

@pytest.mark.parametrize(("text", "start"), [
    (TEXT, " "), (TEXT.replace(" ", ""), ","), (TEXT + "\n", "\n"),
], ids=["spaces", "neither", "line break"])
def test_generate_without_a_prompt_begins_with_a_character_of_the_text(capsys, text, start):
    assert main(["train", *SMALL, "--corpus", f"text:{text}", "--block-size", "4"]) == 0
    capsys.readouterr()
    assert main(["generate", "--checkpoint", "run", "--max-new-tokens", "5"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(start) and len(output) == 1 + 5 + len("\n")


# The Makefile -------------------------------------------------------------------------------------

def make(*arguments):
    """Run `make` with a program in place of Python that prints its arguments, one in a line."""
    program = Path("python").resolve()
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    # -o: take the installation as done.
    command = ["make", "-s", "-o", ".venv/.installed", f"PY={program}", *arguments]
    return subprocess.run(command, cwd="course", capture_output=True, text=True, timeout=60)


@pytest.fixture
def course():
    """A copy of the Makefile, with a chapter, a grid and a preset whose names have spaces."""
    notebooks = Path("course/notebooks")
    (notebooks / "params").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", "course")
    for name in ("my chapter.ipynb", "params/my 'preset'.yaml", "params/my grid $x.yaml",
                 "params/smoke.yaml", "params/sweep_lr.yaml"):
        (notebooks / name).touch()
    return Path("course")


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@needs_make
@pytest.mark.parametrize(("arguments", "expected"), [
    (["edit", "NB=my chapter"], "notebooks/my chapter.ipynb"),
    (["merge", "NB=my chapter"], "notebooks/my chapter.ipynb"),
    (["train", "PRESET=my 'preset'"], "notebooks/params/my 'preset'.yaml"),
    (["sweep", "GRID=notebooks/params/my 'preset'.yaml"], "notebooks/params/my 'preset'.yaml"),
    (["sweep", "GRID=notebooks/params/my grid $$x.yaml"], "notebooks/params/my grid $x.yaml"),
], ids=" ".join)
def test_make_accepts_names_with_spaces(course, arguments, expected):
    done = make(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout.splitlines()


@needs_make
@pytest.mark.parametrize(("arguments", "sentence"), [
    (["train"], "make train: PRESET='' is unknown. Known: "),
    (["train", "PRESET=nano"], "make train: PRESET='nano' is unknown. Known: "),
    (["train", "PRESET=smoke"], "make train: PRESET='smoke' is unknown. Known: "),
    (["train", "PRESET=sweep_lr"], "make train: PRESET='sweep_lr' is unknown. Known: "),
    (["train", "PRESET=../params/nano"], "make train: PRESET='../params/nano' is unknown. Known: "),
    (["sweep"], "make sweep: GRID='' is no file: give a grid, such as"),
    (["sweep", "GRID=my grid"], "make sweep: GRID='my grid' is no file"),
    (["edit"], "make: NB='' is no notebook: give a chapter, such as NB=01_bigram"),
    (["merge", "NB=x; touch hacked"], "make: NB='x; touch hacked' is no notebook"),
], ids=" ".join)
def test_make_says_which_value_is_missing_or_unknown(course, arguments, sentence):
    done = make(*arguments)
    assert done.returncode != 0 and done.stdout == ""
    # The second line is make's own.
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 2
    assert not (course / "hacked").exists()
