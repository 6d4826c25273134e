"""Where a run stands: four replicates, two of table9/a and two of table9/b."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from helpers import run_of_two

from study.planning.stored import PlannedSearch
from study.store import records, starts
from study.store.records import GivenUp
from study.store.states import Store
from study.store.status import Status

A0, A1, B0, B1 = "table9a0", "table9a1", "table9b0", "table9b1"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def started(store, **record):
    """A start of a driver on this host that is still there, unless the record says otherwise."""
    number = len(starts.starts(store, "mine"))
    whole = {
        "number": number,
        "started": ago(9),
        "ended": None,
        "outcome": "running",
        "host": platform.node(),
        "pid": os.getppid(),
        "token": "t",
        "generation": 0,
        "epochs_done": 0,
        "epochs_trained": 0,
        "training": 0,
        "seen": ago(1),
        "behind": "",
    }
    store.write_record(f"runs/mine/starts/{number:05d}.json", {**whole, **record})


def status(store, *stored):
    """Outcome, then complete, running, failed and waiting replicates."""
    found = Status.of(store, run_of_two("mine"), dict.fromkeys((*stored, "a state of another run"), 1))
    assert (found.run, found.study, found.epochs_needed) == ("mine", "table9", 12)
    return found.outcome, found.complete, found.running, found.failed, found.waiting


def fail(store, trial, number):
    name = f"table9/{trial} (digits)"
    records.save_failures(store, "mine", {(name, number): GivenUp(name, number, "Diverged", "", "stage")})


def ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def test_a_run_that_was_never_started_is_planned(store):
    assert status(store) == ("planned", 0, 0, 0, 4)
    assert status(store, A0) == ("planned", 1, 0, 0, 3)  # which another run has trained


@pytest.mark.parametrize(("training", "running"), [(0, 0), (2, 2), (9, 3)])
def test_a_run_whose_driver_lives_is_running(store, training, running):
    started(store, training=training)
    assert status(store, A0) == ("running", 1, running, 0, 3 - running)


def test_a_driver_that_cannot_write_into_the_store_is_said_to_run_and_since_when_it_waits(store):
    started(store, pid=1, seen=ago(45), training=1)
    found = Status.of(store, run_of_two("mine"), {})
    assert (found.outcome, found.running) == ("running", 1)
    assert re.fullmatch(r"process 1 has not written into the store since \d\d:\d\d:\d\d", found.waits)


def test_the_clock_of_another_machine_says_nothing_about_the_store(store):
    started(store, pid=12, host="another", seen=ago(45), waits="the store cannot be used")
    alive = {"mine": starts.starts(store, "mine")[0]}  # its record changes
    found = Status.of(store, run_of_two("mine"), {}, alive)
    assert (found.outcome, found.waits) == ("running", "the store cannot be used")


@pytest.mark.parametrize(
    ("record", "saved"),
    [
        ({"epochs_done": 2, "epochs_trained": 5, "epochs_saved": 6}, 6),  # one is not saved yet
        ({"epochs_done": 2, "epochs_trained": 5}, 7),  # of a version that did not count them
        ({"epochs_trained": 99, "epochs_saved": 99}, 12),  # the plan was smaller before
    ],
)
def test_each_epoch_of_the_plan_is_saved_once(store, record, saved):
    started(store, **record)
    assert Status.of(store, run_of_two("mine"), {}).epochs_saved == saved


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ({"pid": 1}, "running"),  # of another user
        ({}, "interrupted"),
        ({"host": "another", "seen": 5}, "running"),
        ({"host": "another", "seen": 600}, "interrupted"),
        ({"host": "another", "seen": -600}, "interrupted"),
        ({"pid": os.getppid(), "outcome": "interrupted"}, "interrupted"),
        ({"outcome": "failed"}, "failed"),
    ],
)
def test_whether_a_run_goes_on_is_told_by_its_last_driver(store, dead, record, outcome, monkeypatch):
    monkeypatch.setattr("study.store.starts.WATCH_SECONDS", 0.1)
    monkeypatch.setattr("study.store.starts.LOOK_SECONDS", 0.05)
    if "seen" in record:
        record = {**record, "seen": ago(record["seen"])}
    started(store, pid=dead)
    started(store, training=1, **{"pid": dead, **record})
    running = int(outcome == "running")
    assert status(store) == (outcome, 0, running, 0, 4 - running)


def test_what_was_given_up_is_failed_until_it_is_there(store):
    started(store, outcome="failed")
    fail(store, "b", 1)
    assert status(store, A0, A1, B0) == ("failed", 3, 0, 1, 0)
    assert status(store, A0, A1, B1) == ("failed", 3, 0, 0, 1)
    assert status(store, A0, A1, B0, B1) == ("complete", 4, 0, 0, 0)


def test_failed_points_are_results_of_a_search_and_a_failed_champion_is_not(store):
    listed = run_of_two("mine")
    points = (listed.trials[0], replace(listed.trials[1], ends=("", ""), refused="S must be at most 5"))
    champion = replace(listed.trials[0], champion_of="a (digits)", first_replicate=1000, ends=("c0",))
    champion = replace(champion, trial=replace(champion.trial, called="champion a"))
    space = replace(listed.spaces[0], search=PlannedSearch(2, 0, 1, (), ()))
    searched = replace(listed, spaces=(space,), trials=(*points, champion))
    started(store, outcome="complete")
    found = Status.of(store, searched, dict.fromkeys((A0, A1, "c0"), 1))
    assert (found.outcome, found.complete, found.failed, found.waiting) == ("complete", 3, 2, 0)

    name = champion.name
    records.save_failures(store, "mine", {(name, 1000): GivenUp(name, 1000, "diverged", "", "stage")})
    found = Status.of(store, searched, dict.fromkeys((A0, A1), 1))
    assert (found.outcome == "complete", found.complete, found.failed, found.waiting) == (False, 2, 3, 0)


def test_a_search_whose_points_have_all_failed_waits_for_no_champion_and_is_not_complete(store):
    listed = run_of_two("mine")
    point = replace(listed.trials[0], ends=("", ""), refused="S must be at most 5")
    space = replace(listed.spaces[0], search=PlannedSearch(1, 0, 3, (), ()))
    started(store, outcome="failed")
    found = Status.of(store, replace(listed, spaces=(space,), trials=(point,)), {})
    assert (found.outcome, found.failed, found.waiting) == ("failed", 2, 0)


def test_epochs_are_summed_over_starts(store):
    for epochs in (5, 3):
        started(store, epochs_trained=epochs, host=platform.node())
    found = Status.of(store, run_of_two("mine"), {})
    assert (found.epochs_trained, found.epochs_trained_now) == (8, 3)


def test_the_size_of_a_run_is_that_of_its_final_states_each_once(store):
    sizes = {A0: 100, A1: 20, "table9a0/half": 5000, "a state of another run": 9000}
    assert Status.of(store, run_of_two("mine"), sizes).bytes == 120
    doubled = run_of_two("mine")
    again = replace(doubled.trials[0], trial=replace(doubled.trials[0].trial, called="the same again"))
    doubled = replace(doubled, trials=(*doubled.trials, again))
    found = Status.of(store, doubled, sizes)
    assert (found.complete, found.bytes) == (4, 120)


@pytest.mark.parametrize(("trials", "unasked"), [(5, 3), (2, 0), (1, 0)])
def test_what_a_search_has_yet_to_ask_waits_as_well(store, trials, unasked):
    listed = run_of_two("mine")
    space = replace(listed.spaces[0], search=PlannedSearch(trials, 0, 3, (), ()))
    found = Status.of(store, replace(listed, spaces=(space,)), {A0: 1, A1: 1, B0: 1, B1: 1})
    assert (found.complete, found.waiting) == (4, 2 * unasked + 3)  # and the champion that is not planned yet
    assert found.outcome == "planned"


def test_a_champion_is_no_point(store):
    listed = run_of_two("mine")
    champion = replace(listed.trials[1], champion_of="a (digits)", first_replicate=1000)
    space = replace(listed.spaces[0], search=PlannedSearch(2, 0, 3, (), ()))
    found = Status.of(store, replace(listed, spaces=(space,), trials=(listed.trials[0], champion)), {A0: 1})
    assert (found.complete, found.waiting) == (1, 1 + 2 + 2)


def test_a_run_whose_states_were_let_go_of_is_forgotten_until_it_is_planned_again(store):
    records.save_plan(store, run_of_two("mine"))
    records.forget(store, "mine")
    assert records.is_forgotten(store, "mine")
    assert status(store)[0] == "forgotten"
    records.remember(store, "mine")
    assert not records.is_forgotten(store, "mine")
    assert status(store)[0] == "planned"


@pytest.mark.parametrize(
    ("record", "behind"),
    [
        ({"outcome": "complete", "behind": ""}, ""),
        ({"outcome": "complete", "behind": "MLflow is behind (refused)"}, "MLflow is behind (refused)"),
        ({"outcome": "running", "seen": "2020-01-01T00:00:00+00:00"}, "ended before MLflow"),
        ({"outcome": "complete"}, "ended before MLflow"),  # Ctrl-C while it waited for MLflow
        ({"outcome": "running"}, ""),  # it is at work
    ],
)
def test_records_that_may_be_behind_are_said_so_even_if_all_is_trained(store, record, behind):
    began = starts.Start(store, "mine", 0, print)
    began.begin(0, 0)
    began.end("complete", 0)
    living = {"pid": os.getppid(), "seen": starts.now()}  # since `began` has ended
    store.write_record("runs/mine/starts/00000.json", {**asdict(began.record), **living, **record})
    everything = {end: 1 for trial in run_of_two("mine").trials for end in trial.ends}
    found = Status.of(store, run_of_two("mine"), everything)
    assert found.outcome == "complete"
    assert behind in found.behind
    assert bool(behind) == bool(found.behind)
