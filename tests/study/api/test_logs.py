"""The logs of a run as text, from the store alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers import planned, planned_run, planned_space, wait_until

from study.api import calls, logs
from study.api.results import Run
from study.errors import Refusal
from study.store import records
from study.store.logs import Log
from study.store.records import GivenUp
from study.store.starts import Start
from study.store.states import Store

TRIALS = [
    planned("table9", row, column, ends=("e0", "e1"), called=called)
    for row, column, called in (("IB⇒CR", "digits", ""), ("IB⇒CB", "digits", ""), ("IB⇒CB", "cifar10", ""))
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("study.store.starts.BEAT_SECONDS", 0.05)
    monkeypatch.setattr(logs, "FOLLOW_SECONDS", 0.05)
    store = Store(str(tmp_path / "home/store"))
    records.save_plan(store, planned_run([planned_space()], TRIALS))
    return store


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    return calls.load("mine", home=tmp_path / "home")


@pytest.fixture
def begin(store: Store) -> Iterator[Callable[[], tuple[Start, Log]]]:
    """Starts a driver of the run in this process, which stores a log."""
    begun: list[Start] = []

    def start() -> tuple[Start, Log]:
        log = Log()
        begun.append(Start(store, "mine", 0, print, lambda number: log.save(store, "mine", number)))
        return begun[-1], log

    yield start
    for each in begun:
        each.end("interrupted", 0)


Begin = Callable[[], tuple[Start, Log]]


def test_each_start_has_a_heading_and_its_lines_the_last_start_at_the_end(run: Run, begin: Begin) -> None:
    for outcome in ("interrupted", "complete"):
        start, log = begin()
        log.add(f"this one is {outcome}")
        start.end(outcome, 0)
    first, second, third, fourth = run.logs().splitlines()
    assert first.startswith(f"start 0: process {os.getpid()} on ")
    assert (first.endswith(" UTC, interrupted"), third.endswith(" UTC, complete")) == (True, True)
    assert (second[20:], fourth[20:]) == (" this one is interrupted", " this one is complete")
    assert third.startswith("start 1: ")


def test_lines_are_stored_while_the_driver_lives_and_followed_until_it_ends(run: Run, begin: Begin) -> None:
    start, log = begin()
    log.add("one")
    came: list[str] = []
    following = threading.Thread(target=lambda: came.extend(run.follow()))
    following.start()
    wait_until(lambda: "one" in run.logs())
    assert run.logs().splitlines()[0].endswith(" UTC, running")
    log.add("two")
    wait_until(lambda: came and "two" in run.logs())
    assert following.is_alive()
    log.add("three")
    start.end("complete", 0)
    following.join(10)
    assert [line[21:] for line in came[1:]] == ["one", "two", "three"]


def test_a_driver_on_another_host_is_followed_whatever_its_clock_says(
    run: Run, store: Store, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.store.starts.WATCH_SECONDS", 1.0)
    monkeypatch.setattr("study.store.starts.LOOK_SECONDS", 0.05)
    behind = [(datetime.now(UTC) - timedelta(seconds=45, milliseconds=-beat)).isoformat() for beat in range(1000)]
    monkeypatch.setattr("study.store.starts.now", lambda: behind.pop(0))
    monkeypatch.setattr("study.store.starts.platform.node", lambda: "another")
    start, log = begin()
    monkeypatch.setattr("study.store.starts.platform.node", lambda: "here")
    came: list[str] = []
    following = threading.Thread(target=lambda: came.extend(run.follow()))
    following.start()
    wait_until(lambda: run.logs().splitlines()[0].endswith(" UTC, running"))
    log.add("one")
    start.end("complete", 0)
    following.join(10)
    assert came[1].endswith("  one")


def test_a_trial_has_its_failures_with_tracebacks_of_all_starts(run: Run, store: Store, begin: Begin) -> None:
    name = TRIALS[0].name
    start, log = begin()
    log.fail([(name, 0), (name, 1)], "OSError: no space", "Traceback 1\n", "node7")
    start.end("failed", 0)
    start, log = begin()
    log.fail([(name, 1)], "ValueError: no", "Traceback 2\n", "node8")
    start.end("failed", 0)
    again = GivenUp(name, 1, "ValueError: no", "Traceback 2\n", "stage")
    old = GivenUp(name, 0, "diverged", "Traceback 0\n", "stage")  # a version that kept no log
    records.save_failures(store, "mine", {(name, 0): old, (name, 1): again})
    first, second, third, fourth = run.logs("IB⇒CR").split("\n\n")
    assert first == f"{name} r0: diverged\nTraceback 0"
    assert second[21:] == f"{name} r0 on node7: OSError: no space\nTraceback 1"
    assert third[21:] == f"{name} r1 on node7: OSError: no space\nTraceback 1"
    assert fourth[21:] == f"{name} r1 on node8: ValueError: no\nTraceback 2"
    assert run.logs("IB⇒CR r1") == f"{third}\n\n{fourth}"
    assert run.logs("cifar10") == "no failure of 'cifar10' is stored"


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (
            "nope",
            "'nope' is a part of no trial's name: table9/IB⇒CR (digits), table9/IB⇒CB (digits), table9/IB⇒CB (cif",
        ),
        ("IB⇒CB", "'IB⇒CB' is a part of several trials' names: table9/IB⇒CB (digits), table9/IB⇒CB (cifar10)"),
        ("IB⇒CR r7", "replicate must be one of the replicates of 'table9/IB⇒CR (digits)': 0, 1 (got 7)"),
    ],
)
def test_a_trial_that_is_not_one_is_refused(run: Run, trial: str, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        run.logs(trial)
    assert str(refused.value).startswith(words)


def test_a_run_that_was_never_started_has_no_lines(run: Run) -> None:
    assert run.logs() == ""
    assert list(run.follow()) == []
