"""The README's commands run as printed and do what it says; the full Table 9 on digits-LT is among them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from pages import ENVIRONMENT, blocks, commands, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder in which every command of the README has run, in its order; and what each printed."""
    where = tmp_path_factory.mktemp("readme")
    return where, {command: run(command, where) for command in commands("README.md")}


def test_the_readme_names_the_three_jobs() -> None:
    assert {"study run table9", "study report table9", "study resume table9"} <= set(commands("README.md"))
    assert len(commands("README.md")) >= 8


def test_the_main_job_trains_the_tree_s_minimum_and_prints_the_table(done: tuple[Path, dict[str, str]]) -> None:
    where, printed = done
    runs = json.loads(run("study status --json", where))
    (table9,) = [each for each in runs if each["study"] == "table9"]
    assert (table9["complete"], table9["failed"], table9["waiting"]) == (27, 0, 0)
    assert table9["epochs_trained"] == table9["epochs_needed"] == 1782
    table = printed["study run table9"]
    assert re.search(r"IB⇒CR +\d\d\.\d ± \d\.\d +82\.9", table)
    assert "Not the paper's data or protocol: digits-LT IF 50. Evidence: same question, other data." in table
    assert re.search(r"IB⇒CR − IB⇒IB +digits-LT IF 50 +3 +[+-]\d", table)


def test_planned_together_the_tables_train_only_what_is_new(done: tuple[Path, dict[str, str]]) -> None:
    where, printed = done
    (together,) = [e for e in json.loads(run("study status --json", where)) if e["study"] == "table6+table7"]
    assert (together["complete"], together["epochs_needed"]) == (8, 377)
    # Table 9 kept its branching points and ends: S = 0, 5, 10, 25 and Table 7 part from its paths elsewhere.
    new = {"S = 0": 100, "S = 5": 4 + 45, "S = 10": 5 + 40, "S = 25": 15 + 25, "CB×5⇒CR": 49, "CR×5⇒CB": 49}
    assert together["epochs_trained"] == sum(new.values())
    assert "Table 7" in printed["study run table6 table7 --seeds 1"]


def test_the_ui_shows_the_runs(done: tuple[Path, dict[str, str]]) -> None:
    where, _ = done
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "study", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=where, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port}"
        found = _search(address, "params.combination = 'IB⇒CR' and params.S = '1'")
        assert {run["info"]["status"] for run in found} == {"FINISHED"}
        assert len(found) == 3 + 2  # three replicates of table9; then S = 1 in each of two tables
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"MLflow" in page.read()
    finally:
        server.terminate()
        server.wait(30)


def test_the_python_of_the_readme_runs(done: tuple[Path, dict[str, str]]) -> None:
    """It comes last: it asks for the run of the main job again, which is complete."""
    where, _ = done
    (block,) = blocks("README.md", "python")
    (where / "example.py").write_text(block.text, encoding="utf-8")
    runs = json.loads(run("study status --json", where))
    assert "IB⇒CR" in run(f"{sys.executable} example.py", where)
    assert [each["epochs_trained"] for each in json.loads(run("study status --json", where))] == [
        each["epochs_trained"] for each in runs
    ]


def _search(address: str, words: str) -> list[dict[str, dict[str, str]]]:
    """The runs that MLflow's server finds, once it is up."""
    deadline = time.monotonic() + 120
    while True:
        try:
            experiments = _post(f"{address}/api/2.0/mlflow/experiments/search", {"max_results": 100})["experiments"]
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    ids = [each["experiment_id"] for each in experiments]
    query = {"experiment_ids": ids, "filter": words, "max_results": 100}
    found: list[dict[str, dict[str, str]]] = _post(f"{address}/api/2.0/mlflow/runs/search", query)["runs"]
    return found


def _post(url: str, body: dict[str, object]) -> dict[str, list]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
