"""JupyterLab in a browser: chapter 1 runs, and the widgets answer to clicks and keys.

JupyterLab runs on a free port, behind a token. The tests need Chromium. Without it they are
skipped, but under CI they fail. Screenshots of the end of each test are in build/screenshots.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "build/screenshots"
TOKEN = "a-token-for-tests"
# Milliseconds. This is far more than any step needs, because the machine can be busy.
TIMEOUT = 120_000
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update",
]
SET_UP = """\
import torch
from gptlib import GPT, CharTokenizer, GPTConfig
from gptlib.widgets import AttentionExplorer, Sampler

def make_pair(n_layer, seed):
    torch.manual_seed(seed)
    config = GPTConfig(vocab_size=10, block_size=32, n_layer=n_layer, n_head=2, n_embd=16)
    return GPT(config).eval(), CharTokenizer(" \\nabcdefgh")

models = {"first": make_pair(2, 1), "second": make_pair(1, 2)}"""
WIDGETS = [
    'Sampler(models, prompt="abc", length=500)',
    'AttentionExplorer(models, text="abc abc abc")',
]

# JavaScript that runs in the page of JupyterLab
RUN_ALL_CELLS = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
ALL_CELLS_DONE_OR_ERROR = """() => {
    const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells]
        .filter(cell => cell.type == 'code');
    const isError = output => output.output_type == 'error';
    return cells.every(cell => cell.executionCount)
        || cells.some(cell => cell.outputs.toJSON().some(isError));
}"""
ALL_OUTPUTS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
    .filter(cell => cell.type == 'code').flatMap(cell => cell.outputs.toJSON())"""
CONTROLS_WITHOUT_A_NAME = """controls => controls
    .filter(control => !(control.labels?.[0]?.textContent.trim() || control.ariaLabel
        || (control.tagName == 'BUTTON' && control.textContent.trim())))
    .map(control => control.outerHTML)"""
SAMPLE_IS_LONGER_THAN = """n =>
    document.querySelector('[aria-label^="sample: "]').ariaLabel.length > n"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Yield the address of a JupyterLab that shows chapter 1 and a notebook of widgets."""
    folder = tmp_path_factory.mktemp("lab")
    write_settings(folder)
    nbformat.write(chapter_1(), folder / "chapter.ipynb")
    nbformat.write(widget_notebook(), folder / "widgets.ipynb")
    port = free_port()
    with open(folder / "log", "w+", encoding="utf-8") as log:
        server = subprocess.Popen(
            lab_command(folder, port), env=os.environ | lab_environment(folder),
            stdout=log, stderr=log,
        )
        try:
            wait_for_server(f"http://127.0.0.1:{port}", server, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def write_settings(folder):
    """Switch off the news, which JupyterLab would request from another host."""
    settings = folder / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    notification = settings / "notification.jupyterlab-settings"
    notification.write_text(json.dumps({"fetchNews": "false"}))


def chapter_1():
    """Return chapter 1 with its smoke parameters and without outputs."""
    notebook = nbformat.read(ROOT / "notebooks/01_bigram.ipynb", as_version=4)
    smoke = yaml.safe_load((ROOT / "notebooks/params/smoke.yaml").read_text(encoding="utf-8"))
    # The copy of the chapter is in another folder.
    smoke["01_bigram"]["corpus"] = str(ROOT / "notebooks" / smoke["01_bigram"]["corpus"])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            values = smoke["01_bigram"].items()
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in values)
    return notebook


def widget_notebook():
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [new_code_cell(source) for source in (SET_UP, *WIDGETS)]
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def lab_command(folder, port):
    return [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
    ]


def lab_environment(folder):
    """Return environment variables that keep the files of JupyterLab inside `folder`."""
    environment = {
        f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "workspaces")
    environment["GPTLIB_DATA"] = os.environ.get("GPTLIB_DATA", str(ROOT / "data"))
    environment["OMP_NUM_THREADS"] = "1"
    return environment


def wait_for_server(address, server, log):
    for _ in range(TIMEOUT // 250):
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=2)
            return
        except OSError:
            assert server.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.25)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        installed = next(filter(None, map(shutil.which, names)), None)
        path = installed or playwright.chromium.executable_path
        if not Path(path).is_file():
            reason = (
                "Chromium was not found: install it with `apt install chromium` or "
                "`.venv/bin/playwright install chromium`"
            )
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        expect.set_options(timeout=TIMEOUT)
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


def open_and_run(browser, lab, name):
    """Return the page of a notebook after all its cells have run, or after the first error."""
    page = browser.new_page(viewport={"width": 1250, "height": 1400})
    page.set_default_timeout(TIMEOUT)
    page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?reset&token={TOKEN}")
    # The kernel has started.
    page.get_by_text(re.compile(r"\| Idle")).wait_for()
    page.evaluate(RUN_ALL_CELLS)
    page.wait_for_function(ALL_CELLS_DONE_OR_ERROR)
    return page


@pytest.fixture(scope="module")
def page(browser, lab):
    page = open_and_run(browser, lab, "widgets")
    yield page
    page.close()


@pytest.fixture(autouse=True)
def screenshot(request):
    """Save a screenshot at the end of each test, also after a failure."""
    yield
    if "page" in request.fixturenames:
        save_screenshot(request.getfixturevalue("page"), request.node.name)


def save_screenshot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def wait_for_status(page, pattern):
    """Wait until a status line matches the pattern, and return its text."""
    line = page.get_by_role("status").filter(has_text=re.compile(pattern))
    expect(line).to_be_visible()
    return line.inner_text()


def sample(page):
    return page.get_by_role("group", name=re.compile("^sample: "))


def fill(page, name, value):
    """Write into the field called `name` and leave it."""
    field = page.get_by_label(name, exact=True)
    field.fill(value)
    field.press("Tab")


def test_chapter_1_opens_and_runs(browser, lab):
    page = open_and_run(browser, lab, "chapter")
    outputs = page.evaluate(ALL_OUTPUTS)
    save_screenshot(page, "chapter_1")
    page.close()
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_every_control_has_a_name_for_a_screen_reader(page):
    expect(page.get_by_role("button", name="Sample", exact=True)).to_be_visible()
    expect(page.get_by_label("Query position", exact=True)).to_be_visible()
    controls = page.locator(".jp-OutputArea").locator("input, select, textarea, button")
    assert controls.evaluate_all(CONTROLS_WITHOUT_A_NAME) == []


def test_the_sampler_streams_and_stops(page):
    page.get_by_role("button", name="Sample", exact=True).click()
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_enabled()
    expect(sample(page)).to_be_visible()
    length = len(sample(page).get_attribute("aria-label"))
    page.wait_for_function(SAMPLE_IS_LONGER_THAN, arg=length + 5)
    # The text grew while it could still be stopped.
    expect(stop).to_be_enabled()
    stop.click()
    status = wait_for_status(page, "^sample [0-9]+ stopped")
    n_pieces = int(re.search(r"stopped: (\d+) pieces", status)[1])
    assert 6 <= n_pieces < 500
    expect(page.get_by_role("button", name="Sample", exact=True)).to_be_enabled()


def test_the_sample_and_the_bars_change_with_temperature(page):
    bars = page.get_by_alt_text(re.compile("^Probabilities of the next token"))
    texts, pictures = [], []
    fill(page, "Length in tokens", "20")
    for temperature in ("2", "0"):
        # A changed control also removes the status of the last sample.
        fill(page, "Temperature", temperature)
        pattern = re.compile(f"temperature {temperature}.00")
        expect(bars).to_have_attribute("alt", pattern)
        page.get_by_role("button", name="Sample", exact=True).click()
        wait_for_status(page, "^sample [0-9]+ done: 20 pieces")
        texts.append(sample(page).get_attribute("aria-label"))
        pictures.append(bars.get_attribute("src"))
    assert texts[0] != texts[1] and pictures[0] != pictures[1]


def test_a_slider_moves_with_the_arrow_keys(page):
    handle = page.locator(".noUi-handle").first
    fill(page, "Temperature", "0.5")
    # The kernel moves the slider. A key before that would start from the old number.
    expect(handle).to_have_attribute("aria-valuenow", re.compile("^0.5"))
    handle.press("ArrowRight")
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.55")


def test_an_unknown_character_is_reported(page):
    alert = page.get_by_role("alert").filter(has_text="⚠")
    fill(page, "Prompt", "ab∞")
    expect(alert).to_contain_text("character '∞' (U+221E) at position 2")
    save_screenshot(page, "unknown_character")
    fill(page, "Prompt", "ab")
    expect(alert).to_have_count(0)


def test_the_explorer_changes_its_picture(page):
    picture = page.get_by_alt_text(re.compile("^Attention weights"))
    before = picture.get_attribute("src")
    fill(page, "Query position", "7")
    expect(picture).to_have_attribute("alt", re.compile("from position 7"))
    assert picture.get_attribute("src") != before
    page.get_by_label("Compare with").select_option("second")
    expect(picture).to_have_attribute("alt", re.compile("first, layer 1.*second, layer 1"))


def test_a_line_end_stays_in_the_text_of_the_explorer(page):
    picture = page.get_by_alt_text(re.compile("^Attention weights"))
    fill(page, "Text", "abc\nde")
    # The new text is shorter, so the last position is chosen first.
    expect(picture).to_have_attribute("alt", re.compile("from position 5, 'e'"))
    fill(page, "Query position", "3")
    expect(picture).to_have_attribute("alt", re.compile("from position 3, '⏎'"))
    expect(page.get_by_label("Text", exact=True)).to_have_value("abc\nde")
