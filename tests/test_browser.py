"""A reader with a browser: JupyterLab on a free port, behind a token; chapter 1 runs, the widgets answer to clicks and keys.

Needs Chromium: without it these tests are skipped, but under CI they fail. Pictures of what was seen are in build/screenshots.
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
WAIT = 120_000                  # milliseconds; far more than any step needs, for machines that do other things too
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
PAGE = """\
import torch
from gptlib import GPT, CharTokenizer, GPTConfig
from gptlib.widgets import AttentionExplorer, Sampler

def made(n_layer, seed):
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocab_size=10, block_size=32, n_layer=n_layer, n_head=2, n_embd=16)).eval(), CharTokenizer(" \\nabcdefgh")

models = {"first": made(2, 1), "second": made(1, 2)}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that sees chapter 1, with its smoke parameters and no outputs, and a page of widgets."""
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    nbformat.write(chapter_1(), folder / "chapter.ipynb")
    cells = [PAGE, 'Sampler(models, prompt="abc", length=500)', 'AttentionExplorer(models, text="abc abc abc")']
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=python), folder / "widgets.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    data = os.environ.get("GPTLIB_DATA", str(ROOT / "data"))
    with open(folder / "log", "w+", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
             "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
             "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"],
            env=os.environ | own | {"GPTLIB_DATA": data, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(WAIT // 250):
                try:
                    urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=2)
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text(encoding="utf-8")[-3000:]
                    time.sleep(0.25)
            yield address
        finally:
            server.terminate()
            server.wait(60)


def chapter_1():
    notebook = nbformat.read(ROOT / "notebooks/01_bigram.ipynb", as_version=4)
    smoke = yaml.safe_load((ROOT / "notebooks/params/smoke.yaml").read_text(encoding="utf-8"))["01_bigram"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in smoke.items())
    return notebook


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        path = next(filter(None, map(shutil.which, names)), None) or playwright.chromium.executable_path
        if not Path(path).is_file():
            why = "no Chromium here: `apt install chromium` or `.venv/bin/playwright install chromium` brings one"
            pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
        expect.set_options(timeout=WAIT)
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


def open_and_run(browser, lab, name):
    page = browser.new_page(viewport={"width": 1250, "height": 1400})
    page.set_default_timeout(WAIT)
    page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?reset&token={TOKEN}")
    page.get_by_text(re.compile(r"\| Idle")).wait_for()                             # the kernel is there
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function("""() => {
        const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type == 'code');
        return cells.every(cell => cell.executionCount) || cells.some(cell => cell.outputs.toJSON().some(o => o.output_type == 'error'))
    }""")
    return page


@pytest.fixture(scope="module")
def page(browser, lab):
    page = open_and_run(browser, lab, "widgets")
    yield page
    page.close()


@pytest.fixture(autouse=True)
def screenshot(request):
    """What the page looked like in the end, also of a test that failed."""
    yield
    if "page" in request.fixturenames:
        shoot(request.getfixturevalue("page"), request.node.name)


def shoot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def status(page, text):
    """Wait for the line below the controls to say so."""
    line = page.get_by_role("status").filter(has_text=re.compile(text))
    expect(line).to_be_visible()
    return line.inner_text()


def sample(page):
    return page.get_by_role("group", name=re.compile("^sample: "))


def fill(page, name, value):
    field = page.get_by_label(name, exact=True)
    field.fill(value)
    field.press("Tab")


def test_chapter_1_opens_and_runs(browser, lab):
    page = open_and_run(browser, lab, "chapter")
    outputs = page.evaluate("""() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
        .filter(cell => cell.type == 'code').flatMap(cell => cell.outputs.toJSON())""")
    shoot(page, "chapter_1")
    page.close()
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_every_control_has_a_name_for_a_screen_reader(page):
    expect(page.get_by_role("button", name="Sample", exact=True)).to_be_visible()
    expect(page.get_by_label("Query position", exact=True)).to_be_visible()
    nameless = page.locator(".jp-OutputArea").locator("input, select, textarea, button").evaluate_all("""found => found
        .filter(el => !(el.labels?.[0]?.textContent.trim() || el.ariaLabel || (el.tagName == 'BUTTON' && el.textContent.trim())))
        .map(el => el.outerHTML)""")
    assert nameless == []


def test_the_sampler_streams_and_stops(page):
    page.get_by_role("button", name="Sample", exact=True).click()
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_enabled()
    expect(sample(page)).to_be_visible()
    early = len(sample(page).get_attribute("aria-label"))
    page.wait_for_function("n => document.querySelector('[aria-label^=\"sample: \"]').ariaLabel.length > n + 5", arg=early)
    expect(stop).to_be_enabled()                                                    # it grew while it could still be stopped
    stop.click()
    pieces = re.search(r"stopped: (\d+) pieces", status(page, "^sample [0-9]+ stopped"))[1]
    assert 6 <= int(pieces) < 500
    expect(page.get_by_role("button", name="Sample", exact=True)).to_be_enabled()


def test_the_sample_and_the_bars_change_with_temperature(page):
    bars = page.get_by_alt_text(re.compile("^Probabilities of the next token"))
    texts, alts = [], []
    fill(page, "Length in tokens", "20")
    for temperature in ("2", "0"):
        fill(page, "Temperature", temperature)                                      # which also takes the last sample's status away
        expect(bars).to_have_attribute("alt", re.compile(f"temperature {temperature}.00"))
        page.get_by_role("button", name="Sample", exact=True).click()
        status(page, "^sample [0-9]+ done: 20 pieces")
        texts.append(sample(page).get_attribute("aria-label"))
        alts.append(bars.get_attribute("src"))
    assert texts[0] != texts[1] and alts[0] != alts[1]


def test_a_slider_moves_with_the_keys_of_the_keyboard(page):
    fill(page, "Temperature", "0.5")
    page.locator(".noUi-handle").first.press("ArrowRight")
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.55")


def test_a_character_that_the_model_does_not_know_is_told(page):
    fill(page, "Prompt", "ab∞")
    expect(page.get_by_role("alert").filter(has_text="⚠")).to_contain_text("character '∞' (U+221E) at position 2")
    shoot(page, "unknown_character")
    fill(page, "Prompt", "ab")
    expect(page.get_by_role("alert").filter(has_text="⚠")).to_have_count(0)


def test_the_explorer_changes_its_picture(page):
    picture = page.get_by_alt_text(re.compile("^Attention weights"))
    before = picture.get_attribute("src")
    fill(page, "Query position", "7")
    expect(picture).to_have_attribute("alt", re.compile("from position 7"))
    assert picture.get_attribute("src") != before
    page.get_by_label("Compare with").select_option("second")
    expect(picture).to_have_attribute("alt", re.compile("first, layer 1.*second, layer 1"))
