"""The records of runs beside the states."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import runs
from study.plan import Machine, Plan, PlannedSpace, PlannedTrial, Request, Resources
from study.refusal import Refusal
from study.runs import Start, Status
from study.store import Store


def plan(run, spaces=("table9",), created="2020-01-01T00:00:00.000+00:00", replicates=2):
    trials = tuple(
        PlannedTrial(
            space, f"{row} (digits)", row, "digits", {}, {}, None, "", 3,
            tuple(f"{space}{row}{number}" for number in range(replicates)),
        )
        for space in spaces
        for row in ("a", "b")
    )  # fmt: skip
    planned = tuple(PlannedSpace(space, space, "", "test/top1", (), {}, space, "") for space in spaces)
    return Plan(
        run, Request(), Machine("cpu", 1), Resources(), replicates, planned, trials, {}, 12, created=created
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def several(store):
    """Runs of one space and of two, the oldest last by name."""
    for name, spaces, year in (
        ("zebra", ("table9",), 2020), ("mine", ("table9",), 2022), ("minor", ("table6", "table7"), 2021),
        ("table7", ("table6",), 2019),
    ):  # fmt: skip
        runs.save_plan(store, plan(name, spaces, f"{year}-01-01T00:00:00.000+00:00"))
    store.write_record("runs/torn/starts/00000.json", {})  # a run whose plan was never written
    return store


def test_a_plan_is_kept(store):
    runs.save_plan(store, plan("mine"))
    assert runs.load_plan(store, "mine") == plan("mine")
    assert runs.load_plan(store, "another") is None


def test_plans_are_listed_the_newest_last(several, store):
    assert [each.run for each in runs.all_plans(several)] == ["table7", "zebra", "minor", "mine"]


@pytest.mark.parametrize(
    ("called", "run", "space"),
    [
        ("zebra", "zebra", None),  # by its name
        ("table7", "table7", None),  # by its name, though a later run has a space of that name
        ("table9", "mine", None),  # by its space: the latest
        ("table6", "minor", "table6"),  # by one of its spaces
        ("table6+table7", "minor", None),  # by all of them
        ("z", "zebra", None),  # by a prefix
        ("mino", "minor", None),
    ],
)
def test_a_run_is_found_by_what_it_is_called(several, called, run, space):
    found, one = runs.find(several, called)
    assert (found.run, one) == (run, space)


@pytest.mark.parametrize(
    ("called", "reason"),
    [("min", "more than one run begins so"), ("nothing", "no run is called so"), ("", "no run is called so")],
)
def test_what_is_not_one_run_is_refused_with_those_there_are(several, called, reason):
    with pytest.raises(Refusal, match=f"run = '{called}': {reason}.*: table7, zebra, minor, mine"):
        runs.find(several, called)


def test_without_runs_the_way_to_one_is_named(store):
    with pytest.raises(Refusal, match="none yet: `study run table9`"):
        runs.find(store, "table9")


@pytest.mark.parametrize("name", ["a", "table9-0f3c", "table6+table7-1", "2024.01.01_try", "x" * 100])
def test_a_name_that_can_be_a_folder_is_taken(name):
    assert runs.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "../up", "a b", "a\n", "ü", "x" * 101])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(Refusal, match=r"--name = .*: up to 100 letters"):
        runs.check_name(name)


@given(name=st.text(max_size=12))
def test_no_name_leaves_its_folder(name):
    try:
        assert os.path.basename(runs.check_name(name)) == name not in (os.curdir, os.pardir)
    except Refusal as refused:
        assert "\n" not in str(refused)  # noqa: PT017


def test_failures_are_kept(store):
    found = {
        (trial, number): {"trial": trial, "replicate": number, "reason": "Diverged", "traceback": "at\nline 1"}
        for trial, number in (("table9/a (digits)", 1), ("table9/b (digits)", 0))
    }
    assert runs.failures(store, "mine") == {}
    runs.save_failures(store, "mine", found)
    assert runs.failures(store, "mine") == found
    runs.save_failures(store, "mine", {})
    assert runs.failures(store, "mine") == {}


def test_starts_are_counted_in_order(store):
    for outcome in ("interrupted", "failed", "complete"):
        start = Start.begin(store, "mine", 12, 12)
        start.record["epochs_trained"] += 4
        start.end(outcome, epochs_missing=8)
    assert [each["outcome"] for each in runs.starts(store, "mine")] == ["interrupted", "failed", "complete"]
    for each in runs.starts(store, "mine"):
        assert (each["epochs_to_train"], each["epochs_trained"], each["pid"]) == (12, 4, os.getpid())
        assert each["started"] <= each["ended"]


def test_what_a_worker_saved_unreported_is_counted(store):
    drained = Start.begin(store, "mine", 12, 12)
    drained.record["epochs_trained"] = 3
    drained.end("interrupted", epochs_missing=7)  # it was told of three epochs, and finds five more in the store
    killed = Start.begin(store, "mine", 7, 7)
    killed.record["epochs_trained"] = 2
    killed.write()
    last = Start.begin(store, "mine", 1, 1)
    last.record["epochs_trained"] = 1
    last.end("complete", epochs_missing=0)
    assert [each["epochs_trained"] for each in runs.starts(store, "mine")] == [5, 6, 1]
    assert [each["outcome"] for each in runs.starts(store, "mine")] == ["interrupted", "killed", "complete"]


# Where a run stands: four replicates, two of table9/a and two of table9/b

A0, A1, B0, B1 = "table9a0", "table9a1", "table9b0", "table9b1"


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def started(store, **record):
    """A start of a driver on this host that is still there, unless the record says otherwise."""
    start = Start.begin(store, "mine", 12, 12)
    start.record |= record
    store.write_record(f"runs/mine/starts/{start.number:05d}.json", start.record)


def status(store, *stored):
    """Outcome, then complete, running, failed and waiting replicates."""
    found = Status.of(store, plan("mine"), {*stored, "a state of another run"})
    assert (found.run, found.study, found.epochs_needed) == ("mine", "table9", 12)
    return found.outcome, found.complete, found.running, found.failed, found.waiting


def fail(store, trial, number):
    name = f"table9/{trial} (digits)"
    runs.save_failures(store, "mine", {(name, number): {"trial": name, "replicate": number, "reason": "Diverged"}})


def ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def test_a_run_that_was_never_started_is_planned(store):
    assert status(store) == ("planned", 0, 0, 0, 4)
    assert status(store, A0) == ("planned", 1, 0, 0, 3)  # which another run has trained


@pytest.mark.parametrize(("training", "running"), [(0, 0), (2, 2), (9, 3)])
def test_a_run_whose_driver_lives_is_running(store, training, running):
    started(store, training=training)
    assert status(store, A0) == ("running", 1, running, 0, 3 - running)


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ({"pid": 1}, "running"),  # of another user
        ({}, "interrupted"),
        ({"host": "another", "seen": 5}, "running"),
        ({"host": "another", "seen": 600}, "interrupted"),
        ({"pid": os.getpid(), "outcome": "interrupted"}, "interrupted"),
        ({"outcome": "failed"}, "failed"),
    ],
)
def test_whether_a_run_goes_on_is_told_by_its_last_driver(store, dead, record, outcome):
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


def test_epochs_are_summed_over_starts(store):
    for epochs in (5, 3):
        started(store, epochs_trained=epochs, host=platform.node())
    found = Status.of(store, plan("mine"), set())
    assert (found.epochs_trained, found.epochs_trained_now) == (8, 3)
