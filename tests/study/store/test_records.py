"""The records of runs beside the states."""

import os

import pytest
from helpers import run_of_two
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Damaged, Refusal
from study.store import records
from study.store.records import GivenUp
from study.store.states import Store


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
        records.save_plan(store, run_of_two(name, spaces, f"{year}-01-01T00:00:00.000+00:00"))
    store.write_record("runs/torn/starts/00000.json", {})  # a run whose plan was never written
    return store


def test_a_plan_is_kept(store):
    records.save_plan(store, run_of_two("mine"))
    assert records.load_plan(store, "mine") == run_of_two("mine")
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
    [
        ("min", "several runs begin with 'min'"),
        ("nothing", "unknown run 'nothing'"),
        ("", "unknown run ''"),
    ],
)
def test_what_is_not_one_run_is_refused_with_those_there_are(several, called, reason):
    with pytest.raises(Refusal) as refused:
        records.find(several, called)
    assert str(refused.value) == f"{reason}. The runs in {several.shown} are table7, zebra, minor, mine"


def test_without_runs_the_way_to_one_is_named(store):
    with pytest.raises(Refusal, match=r"^unknown run 'table9'\. There are no runs in .* 'study run SPACE' starts one$"):
        records.find(store, "table9")


@pytest.mark.parametrize("name", ["a", "table9-0f3c", "table6+table7-1", "2024.01.01_try", "x" * 100])
def test_a_name_that_can_be_a_folder_is_taken(name):
    assert records.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "../up", "a b", "a\n", "ü", "x" * 101])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(
        Refusal, match=r"--name must be 1 to 100 letters, digits and \. _ \+ -, the first a letter or a digit \(got "
    ):
        records.check_name(name)


@given(name=st.text(max_size=12))
def test_no_name_leaves_its_folder(name):
    try:
        assert os.path.basename(records.check_name(name)) == name not in (os.curdir, os.pardir)
    except Refusal as refused:
        assert "\n" not in str(refused)  # noqa: PT017


def test_failures_are_kept(store):
    found = {
        (trial, number): GivenUp(trial, number, "Diverged", "at\nline 1", "the stage")
        for trial, number in (("table9/a (digits)", 1), ("table9/b (digits)", 0))
    }
    assert records.failures(store, "mine") == {}
    records.save_failures(store, "mine", found)
    assert records.failures(store, "mine") == found
    records.save_failures(store, "mine", {})
    assert records.failures(store, "mine") == {}


def test_a_damaged_plan_is_told_from_one_that_is_not_there(store, tmp_path):
    records.save_plan(store, run_of_two("mine"))
    path = tmp_path / "store/runs/mine/plan.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Damaged, match=r"runs/mine/plan\.json"):
        records.load_plan(store, "mine")
    with pytest.raises(
        Refusal, match=r"^the plan of run 'mine' is damaged\. Give .* again, with --name mine: .* again$"
    ):
        records.find(store, "mine")


def test_a_plan_that_cannot_be_read_is_named_and_hides_no_other(several, tmp_path):
    (tmp_path / "store" / "runs" / "mine" / "plan.json").write_text("{")
    several.write_record("runs/minor/plan.json", {"format": 1})
    assert [each.run for each in records.all_plans(several)] == ["table7", "zebra"]
    damaged, other = records.damaged_plans(several)
    assert "runs/mine/plan.json" in damaged
    assert "plan format" in other
