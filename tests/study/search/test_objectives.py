"""The objectives of a trial, and the points that no other point beats."""

from dataclasses import replace

import pytest
from helpers import header, planned, planned_run, planned_space
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.objectives import front, objectives
from study.space import Printed


def trial(row, replicates=6, measure="test/top1"):
    ends = tuple(f"{row} {number}" for number in range(replicates))
    return planned("table9", row, printed=Printed(80.0, of="digits"), measure=measure, epochs=2, ends=ends)


def plan(*trials, objectives):
    return planned_run([planned_space(objectives=objectives)], trials, replicates=6)


def states_of(cell):
    measured = (
        header({"a": 99.0, "b": 0.0, "c": 9.0}, {"a": 50.0, "b": 2.0, "c": 7.0}),
        header({"a": 70.0, "b": 4.0, "c": 8.0}),
    )
    return dict(zip(cell.ends, measured, strict=True))


def test_objectives_are_means_over_replicates_after_the_last_epoch():
    cell = trial("#0", 2, "a")
    assert objectives(plan(cell, objectives=("a", "b")), cell, states_of(cell).__getitem__) == [60.0, 3.0]
    with pytest.raises(KeyError):
        objectives(plan(cell, objectives=("a",)), cell, {}.__getitem__)


def test_the_first_objective_is_what_the_trial_s_own_row_shows():
    cell = trial("τ-normalised", 2, "c")
    assert objectives(plan(cell, objectives=("a", "b")), cell, states_of(cell).__getitem__) == [7.5, 3.0]


def test_a_champion_s_objectives_are_those_that_its_point_was_chosen_by():
    cell = replace(trial("champion #0", 2, "c"), champion_of="#0")
    assert objectives(plan(cell, objectives=("a", "b")), cell, states_of(cell).__getitem__) == [60.0, 3.0]


points = st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=9) | st.lists(st.tuples(st.integers(0, 9)), max_size=9)


@settings(max_examples=60, deadline=None)
@given(values=points)
def test_the_front_is_what_no_other_point_beats(values):
    named = [(trial(f"#{number}", replicates=1), one) for number, one in enumerate(values)]
    distinct = list(dict.fromkeys(values))
    unbeaten = [
        one
        for one in distinct
        if not any(all(a >= b for a, b in zip(other, one, strict=True)) for other in distinct if other != one)
    ]
    unbeaten.sort(key=lambda one: -one[0])
    assert [point.trial.row for point in front(named)] == [f"#{values.index(one)}" for one in unbeaten]
    if values and len(values[0]) == 1:
        assert len(unbeaten) == 1
