"""MLflow's own UI as a user sees it: `study ui` in a real browser, on a run of two small tables."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from helpers import write_space
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not CHROMEDRIVER, reason="there is no chromium with its chromedriver here"),
]

SAMPLERS = ("IB", "CB", "CR")
NINE = tuple((first, switch) for first in SAMPLERS for switch in SAMPLERS)

# The groups in the table of runs, with their entries in the column test/top1.
GROUPS = """
const groups = {};
for (const row of document.querySelectorAll('.ag-row[row-id^="param.combination."]')) {
  const cell = row.querySelector('[col-id="metrics.`test/top1`"]');
  if (cell) groups[row.getAttribute('row-id').split('.')[2]] = cell.innerText;
}
return groups;
"""

# The rows of this table: groups, and runs in them.
ROWS = """
const rows = [...document.querySelectorAll('.ag-row[row-id^="param.combination."]')];
return [...new Set(rows.map(row => row.getAttribute('row-id')))];
"""

# The curves of the chart of test/top1, by group, with their values.
CURVES = """
const cards = [...document.querySelectorAll('[data-testid="experiment-view-compare-runs-card"]')];
const plot = cards.find(card => card.innerText.startsWith('test/top1'))?.querySelector('.js-plotly-plot');
const lines = (plot?.data ?? []).filter(trace => trace.mode?.startsWith('lines'));
return Object.fromEntries(lines.map(line => [line.uuid.split('.')[2], Array.from(line.y)]));
"""


@pytest.fixture(scope="module")
def run(one_ray: None, tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Any]) -> tuple[Path, dict]:
    """The home and the report of a run of two tables, of nine and two cells, with two replicates each."""
    folder = tmp_path_factory.mktemp("browser")
    nine, two = write_space(folder, "nine", NINE), write_space(folder, "two", (("IB", "IB"), ("IB", "CR")))
    home = folder / "home"
    command("run", nine, two, "--seeds", "2", "--name", "mine", home=home)
    return home, json.loads(command("report", "mine", "--format", "json", home=home).stdout)


@pytest.fixture(scope="module")
def links(run: tuple[Path, dict]) -> Iterator[Mapping[str, str]]:
    """The links to the views of the run that `study ui` prints, by name."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "study", "ui", "--home", str(run[0]), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"http://127.0.0.1:{port}\n"
        yield dict(server.stdout.readline().strip().split(": ", 1) for _ in range(2))
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    """A new browser with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1400,1040",
        f"user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


def until(browser: WebDriver, condition: Callable[[], bool]) -> None:
    """Wait for the page, whose elements come and go meanwhile."""
    WebDriverWait(browser, 60, 0.1, [StaleElementReferenceException]).until(lambda _: condition())


def press(browser: WebDriver, selector: str, words: str = "") -> None:
    """Click the element with a CSS selector and these words as soon as it exists."""

    def click() -> bool:
        elements = (each for each in browser.find_elements(By.CSS_SELECTOR, selector) if words in each.text)
        element = next((each for each in elements if each.is_displayed()), None)
        if element is not None:
            element.click()
        return element is not None

    until(browser, click)


def search(browser: WebDriver, words: str) -> None:
    """Type a filter, and wait until the page applies it."""
    press(browser, "[data-testid=search-box]")
    browser.find_element(By.CSS_SELECTOR, "[data-testid=search-box]").send_keys(words, Keys.ENTER)
    until(browser, lambda: quote_plus(words) in browser.current_url)


def means(report: dict, space: str) -> dict[str, float]:
    """Return the mean top-1 of each combination in the store's report of a table."""
    return {row["combination"]: row["mean"] for row in report["rows"] if row["space"] == space}


def test_the_printed_link_shows_the_report_s_nine_means(
    run: tuple[Path, dict], links: Mapping[str, str], browser: WebDriver
) -> None:
    browser.get(links["nine by combination"])
    until(browser, lambda: len(browser.execute_script(GROUPS)) == 9)
    shown = {group: float(cell.split()[0]) for group, cell in browser.execute_script(GROUPS).items()}
    assert all(cell.endswith("(average)") for cell in browser.execute_script(GROUPS).values())
    assert shown == pytest.approx(means(run[1], "nine"))
    assert "18 matching runs" in browser.find_element(By.TAG_NAME, "body").text


def test_grouped_by_hand_a_filter_finds_a_table_s_runs(links: Mapping[str, str], browser: WebDriver) -> None:
    browser.get(links["nine by combination"].partition("&viewStateShareKey")[0])  # the experiment without a view
    press(browser, "button", "Group by")
    press(browser, "[role=menuitemcheckbox]", "combination")
    until(browser, lambda: len(browser.execute_script(ROWS)) > 6)
    search(browser, "tags.`study.space` = 'two'")
    until(browser, lambda: len(browser.execute_script(ROWS)) == 6)
    places = [row.split(".")[2:] for row in browser.execute_script(ROWS)]
    assert Counter(combination for combination, *run in places if run) == {"IB⇒IB": 2, "IB⇒CR": 2}
    assert sorted(place[0] for place in places if len(place) == 1) == ["IB⇒CR", "IB⇒IB"]


def test_a_chart_compares_two_combinations(
    run: tuple[Path, dict], links: Mapping[str, str], browser: WebDriver
) -> None:
    browser.get(links["nine by combination"])
    until(browser, lambda: len(browser.execute_script(GROUPS)) == 9)
    press(browser, "label:has([name=runs-view-mode][value=CHART])")
    until(browser, lambda: len(browser.execute_script(CURVES)) == 9)
    press(browser, "[data-testid=experiment-view-runs-visibility-column-header]")
    press(browser, "[role=menuitemradio]", "Hide all runs")
    for combination in ("IB⇒IB", "CR⇒CR"):
        press(browser, f"[row-id='param.combination.{combination}'] label:has(.is-visibility-toggle-checkbox)")
    until(browser, lambda: len(browser.execute_script(CURVES)) == 2)
    curves = browser.execute_script(CURVES)
    assert [len(curve) for curve in curves.values()] == [3, 3]
    expected = means(run[1], "nine")
    assert {name: curve[-1] for name, curve in curves.items()} == pytest.approx(
        {name: expected[name] for name in ("IB⇒IB", "CR⇒CR")}
    )
