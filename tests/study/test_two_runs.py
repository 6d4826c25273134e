"""Two runs on one store at the same time: what both need is trained once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUNS = "table6", "table9"


def environment() -> dict[str, str]:
    """Return this process's, for a Ray without a token."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return ours | {"RAY_AUTH_MODE": "disabled"}


class Runs:
    """Runs of one seed on one store, each with one worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()

    def at(self, run: str) -> list[str]:
        return ["--home", str(self.folder / run), "--store", str(self.folder / "store")]

    def start(self, verb: str, run: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "study", verb, run, *options, *self.at(run)]
        with self.log(run).open("ab") as log:
            self.processes[run] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        return self.processes[run]

    def log(self, run: str) -> Path:
        return self.folder / f"{run}.log"

    def said(self, run: str) -> str:
        return self.log(run).read_text()

    def json(self, *command: str) -> Any:
        return json.loads(subprocess.check_output([sys.executable, "-m", "study", *command, "--json"]))

    def status(self, run: str) -> dict[str, Any]:
        (each,) = [each for each in self.json("status", *self.at(run)) if each["run"].startswith(run)]
        return dict(each)

    def needed(self, *runs: str) -> int:
        plan = self.json("run", *runs, "--seeds", "1", "--dry-run", "--home", str(self.folder / "dry"))
        return int(plan["epochs_needed"])

    def start_both(self, *options: str) -> None:
        for run in RUNS:
            self.start("run", run, "--seeds", "1", *options)


@pytest.fixture
def runs(tmp_path):
    """Runs that have not started; what is left of them ends with the test."""
    both = Runs(tmp_path)
    yield both
    for process in both.processes.values():
        kill(process)


@pytest.fixture
def one_cpu(tmp_path):
    """Start a Ray cluster with one CPU; return its address."""
    port = free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--include-dashboard=false", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    log = tmp_path / "ray.log"
    with log.open("wb") as file:
        head = subprocess.Popen(command, stdout=file, stderr=file, env=environment())
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text(), 240)
        yield f"127.0.0.1:{port}"
    finally:
        kill(head)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def test_two_runs_at_once_train_no_more_than_both_as_one(runs):
    runs.start_both("--workers", "1")
    for run in RUNS:
        assert runs.processes[run].wait(600) == 0, runs.said(run)
    each, together = [runs.needed(run) for run in RUNS], runs.needed(*RUNS)
    assert together < sum(each)
    assert [runs.status(run)["epochs_needed"] for run in RUNS] == each
    assert sum(runs.status(run)["epochs_trained"] for run in RUNS) == together
    assert any(f"run {run}-" in runs.said(other) for run, other in (RUNS, RUNS[::-1]))
    assert not list((runs.folder / "store" / "claims").iterdir())


def test_two_runs_on_a_cluster_with_room_for_one_stage_do_not_wait_for_each_other_for_ever(runs, one_cpu):
    runs.start_both("--address", one_cpu)
    for run in RUNS:
        assert runs.processes[run].wait(800) == 0, runs.said(run)
    assert sum(runs.status(run)["epochs_trained"] for run in RUNS) == runs.needed(*RUNS)


def test_a_run_takes_over_what_a_killed_driver_was_training(runs):
    runs.start_both("--workers", "1")
    wait_until(lambda: " epochs, " in runs.said("table6"), 300)
    kill(runs.processes["table6"])
    assert runs.processes["table9"].wait(600) == 0, runs.said("table9")
    assert runs.status("table9")["outcome"] == "complete"
    reported = runs.status("table6")["epochs_trained"]
    left = runs.json("run", "table6", "--seeds", "1", "--dry-run", *runs.at("table6"))["epochs_to_train"]
    assert runs.start("resume", "table6").wait(600) == 0, runs.said("table6")
    resumed = runs.status("table6")
    assert (resumed["outcome"], resumed["epochs_trained_now"]) == ("complete", left)
    assert left < resumed["epochs_needed"]
    before = resumed["epochs_trained"] - left
    assert reported <= before < reported + 100, "what table9 trained meanwhile is not table6's"
