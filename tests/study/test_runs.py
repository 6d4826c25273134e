"""The records of runs beside the states."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Damaged, Refusal
from study.machine import Machine
from study.plan.stored import Plan, PlannedSearch, PlannedSpace, PlannedTrial, Resources
from study.space import Request
from study.store import records, starts
from study.store.states import Store
from study.store.status import Status


def plan(run, spaces=("table9",), created="2020-01-01T00:00:00.000+00:00", replicates=2):
    trials = tuple(
        PlannedTrial(
            space,
            f"{row} (digits)",
            row,
            "digits",
            {},
            {},
            None,
            "",
            3,
            tuple(f"{space}{row}{number}" for number in range(replicates)),
            "test/top1",
        )
        for space in spaces
        for row in ("a", "b")
    )
    planned = tuple(PlannedSpace(space, space, "", ("test/top1",), (), {}, space, "") for space in spaces)
    return Plan(run, Request(), Machine("cpu", 1), Resources(), replicates, planned, trials, {}, 12, created=created)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def several(store):
    """Runs of one space and of two, the oldest last by name."""
    for name, spaces, year in (
        ("zebra", ("table9",), 2020),
        ("mine", ("table9",), 2022),
        ("minor", ("table6", "table7"), 2021),
        ("table7", ("table6",), 2019),
    ):
        records.save_plan(store, plan(name, spaces, f"{year}-01-01T00:00:00.000+00:00"))
    store.write_record("runs/torn/starts/00000.json", {})  # a run whose plan was never written
    return store


def test_a_plan_is_kept(store):
    records.save_plan(store, plan("mine"))
    assert records.load_plan(store, "mine") == plan("mine")
    assert records.load_plan(store, "another") is None


def test_plans_are_listed_the_newest_last(several, store):
    assert [each.run for each in records.all_plans(several)] == ["table7", "zebra", "minor", "mine"]


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
    found, one = records.find(several, called)
    assert (found.run, one) == (run, space)


@pytest.mark.parametrize(
    ("called", "reason"),
    [("min", "more than one run begins so"), ("nothing", "no run is called so"), ("", "no run is called so")],
)
def test_what_is_not_one_run_is_refused_with_those_there_are(several, called, reason):
    with pytest.raises(Refusal, match=f"run = '{called}': {reason}.*: table7, zebra, minor, mine"):
        records.find(several, called)


def test_without_runs_the_way_to_one_is_named(store):
    with pytest.raises(Refusal, match="none yet: `study run table9`"):
        records.find(store, "table9")


@pytest.mark.parametrize("name", ["a", "table9-0f3c", "table6+table7-1", "2024.01.01_try", "x" * 100])
def test_a_name_that_can_be_a_folder_is_taken(name):
    assert records.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "../up", "a b", "a\n", "ü", "x" * 101])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(Refusal, match=r"--name = .*: up to 100 letters"):
        records.check_name(name)


@given(name=st.text(max_size=12))
def test_no_name_leaves_its_folder(name):
    try:
        assert os.path.basename(records.check_name(name)) == name not in (os.curdir, os.pardir)
    except Refusal as refused:
        assert "\n" not in str(refused)  # noqa: PT017


def test_failures_are_kept(store):
    found = {
        (trial, number): {"trial": trial, "replicate": number, "reason": "Diverged", "traceback": "at\nline 1"}
        for trial, number in (("table9/a (digits)", 1), ("table9/b (digits)", 0))
    }
    assert records.failures(store, "mine") == {}
    records.save_failures(store, "mine", found)
    assert records.failures(store, "mine") == found
    records.save_failures(store, "mine", {})
    assert records.failures(store, "mine") == {}


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
    number = len(starts.starts(store, "mine"))
    whole = {
        "number": number,
        "started": ago(9),
        "ended": None,
        "outcome": "running",
        "host": platform.node(),
        "pid": os.getpid(),
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
    found = Status.of(store, plan("mine"), dict.fromkeys((*stored, "a state of another run"), 1))
    assert (found.run, found.study, found.epochs_needed) == ("mine", "table9", 12)
    return found.outcome, found.complete, found.running, found.failed, found.waiting


def fail(store, trial, number):
    name = f"table9/{trial} (digits)"
    records.save_failures(store, "mine", {(name, number): {"trial": name, "replicate": number, "reason": "Diverged"}})


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
    found = Status.of(store, plan("mine"), {})
    assert (found.epochs_trained, found.epochs_trained_now) == (8, 3)


def test_the_size_of_a_run_is_that_of_its_final_states_each_once(store):
    sizes = {A0: 100, A1: 20, "table9a0/half": 5000, "a state of another run": 9000}
    assert Status.of(store, plan("mine"), sizes).bytes == 120
    doubled = plan("mine")
    doubled = replace(doubled, trials=(*doubled.trials, replace(doubled.trials[0], label="the same again")))
    found = Status.of(store, doubled, sizes)
    assert (found.complete, found.bytes) == (4, 120)


@pytest.mark.parametrize(("trials", "unasked"), [(5, 3), (2, 0), (1, 0)])
def test_what_a_search_has_yet_to_ask_waits_as_well(store, trials, unasked):
    listed = plan("mine")
    space = replace(listed.spaces[0], search=PlannedSearch(trials, 0, 3, (), ()))
    found = Status.of(store, replace(listed, spaces=(space,)), {A0: 1, A1: 1, B0: 1, B1: 1})
    assert (found.complete, found.waiting) == (4, 2 * unasked + 3)  # and the champion that is not planned yet
    assert found.outcome == "planned"


def test_a_champion_is_no_point(store):
    listed = plan("mine")
    champion = replace(listed.trials[1], champion_of="a (digits)", first_replicate=1000)
    space = replace(listed.spaces[0], search=PlannedSearch(2, 0, 3, (), ()))
    found = Status.of(store, replace(listed, spaces=(space,), trials=(listed.trials[0], champion)), {A0: 1})
    assert (found.complete, found.waiting) == (1, 1 + 2 + 2)


def test_a_run_whose_states_were_let_go_of_is_forgotten_until_it_is_planned_again(store):
    records.save_plan(store, plan("mine"))
    records.forget(store, "mine")
    assert records.is_forgotten(store, "mine")
    assert status(store)[0] == "forgotten"
    records.remember(store, "mine")
    assert not records.is_forgotten(store, "mine")
    assert status(store)[0] == "planned"


def test_a_damaged_plan_is_set_aside_by_who_can_make_it_again(store, tmp_path):
    records.save_plan(store, plan("mine"))
    path = tmp_path / "store/runs/mine/plan.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Damaged):
        records.load_plan(store, "mine")
    said = []
    assert records.take_plan(store, "mine", said.append) is None
    assert len(said) == 1
    assert said[0].startswith("damaged: ")
    assert records.load_plan(store, "mine") is None


def test_a_plan_that_cannot_be_read_is_named_and_hides_no_other(several, tmp_path):
    (tmp_path / "store" / "runs" / "mine" / "plan.json").write_text("{")
    several.write_record("runs/minor/plan.json", {"format": 1})
    assert [each.run for each in records.all_plans(several)] == ["table7", "zebra"]
    damaged, other = records.damaged_plans(several)
    assert "runs/mine/plan.json" in damaged
    assert "plan format" in other


@pytest.mark.parametrize(
    ("record", "behind"),
    [
        ({"outcome": "complete", "behind": ""}, ""),
        ({"outcome": "complete", "behind": "MLflow is behind (refused)"}, "MLflow is behind (refused)"),
        ({"outcome": "running", "seen": "2020-01-01T00:00:00+00:00"}, "cut off"),
        ({"outcome": "complete"}, "cut off"),  # Ctrl-C while it waited for MLflow
        ({"outcome": "running"}, ""),  # it is at work
    ],
)
def test_records_that_may_be_behind_are_said_so_even_if_all_is_trained(store, record, behind):
    began = starts.Start(store, "mine", 0, 0, 0, print)
    began.end("complete", 0)
    store.write_record("runs/mine/starts/00000.json", {**began.record, "seen": starts.now(), **record})
    everything = {end: 1 for trial in plan("mine").trials for end in trial.ends}
    found = Status.of(store, plan("mine"), everything)
    assert found.outcome == "complete"
    assert behind in found.behind
    assert bool(behind) == bool(found.behind)
