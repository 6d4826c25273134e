"""`study status --watch`: the status again and again until no process trains, with the store alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers import planned, planned_run, planned_space, wait_until

from study import watching
from study.store import records
from study.store.starts import Start, StartRecord
from study.store.states import Store

NAMES = ("mine", "other")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "home/store"))
    for name in NAMES:
        trials = [planned("table9", "IB⇒CR", ends=("e0", "e1"))]
        records.save_plan(store, planned_run([planned_space()], trials, run=name, epochs_needed=8))
    return store


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """A driver of the run `mine`, in this process."""
    start = Start(store, "mine", 0, print)
    start.begin(0, lambda: 0)
    yield start
    start.end("interrupted", 0)


@pytest.mark.parametrize("run", ["mine", None])
def test_each_change_is_a_line_until_the_run_ends(
    run: str | None, store: Store, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "SECONDS", 0.02)
    ended: list[watching.Statuses] = []
    watch = threading.Thread(target=lambda: ended.append(watching.watch(store, run)))
    watch.start()
    lines: list[str] = []

    def printed(line: str) -> bool:
        lines.extend(capsys.readouterr().out.splitlines())
        return line in lines

    begun = "mine  running  0 complete, 0 running, 0 failed, 2 waiting; epochs: 0 of 8 saved, 0 trained by this run"
    wait_until(lambda: printed(begun))
    start.record.epochs_trained = 3
    start._renew()
    wait_until(lambda: printed(begun.replace("0 trained", "3 trained")))
    assert len(lines) == 2
    start.end("interrupted", 3)
    watch.join(60)
    (last,) = ended
    assert "mine  interrupted\n" in last.text
    assert {status.run for status in last.statuses} == ({"mine"} if run else set(NAMES))


def test_a_run_that_nobody_trains_is_shown_once(store: Store) -> None:
    assert watching.watch(store, "mine").text.startswith("mine  planned\n  replicates: 0 complete, 0 running")


def test_dead_drivers_of_other_hosts_are_waited_for_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.store.starts.WATCH_SECONDS", 1.0)
    monkeypatch.setattr("study.store.starts.LOOK_SECONDS", 0.1)
    seen = (datetime.now(UTC) + timedelta(seconds=45)).isoformat()
    for name in NAMES:
        driver = StartRecord(number=0, generation=0, started=seen, outcome="running", host="another", pid=1, token=name)
        store.write_record(f"runs/{name}/starts/00000.json", asdict(replace(driver, seen=seen)))
    took = []
    for _ in range(2):
        began = time.monotonic()
        statuses = watching.Statuses.of(store, None).statuses
        took.append(time.monotonic() - began)
        assert [status.outcome for status in statuses] == ["interrupted"] * 2
    assert 1 < took[0] < 2
    assert took[1] < 1


@pytest.mark.parametrize("terminal", [False, True])
def test_ctrl_c_ends_it_quietly(terminal: bool, store: Store, start: Start, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study", "status", "mine", "--watch", "--home", str(tmp_path / "home")]
    leader, follower = os.openpty() if terminal else os.pipe()
    process = subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE)
    shown = b""
    while b"mine  running" not in shown:
        shown += os.read(leader, 1000)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
    os.close(follower)
    os.close(leader)
