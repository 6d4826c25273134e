"""The driver's account of a start: what is stored, planned, given up and lost."""

from dataclasses import replace

import pytest
from helpers import planned, planned_run, planned_space, work_of

from study.execution.ledger import Ledger
from study.planning.draft import Draft
from study.planning.tree import Failure
from study.space import Resolved, Space, Trial
from study.store import records
from study.store.states import Store

# Two trials of two replicates, whose first two epochs are the same.


def resolve(config, number, _machine):
    keys = tuple(f"r{number} {'trunk' if epoch < 3 else config['name']} {epoch}" for epoch in range(5))
    return Resolved({}, ({},) * 4, keys)


@pytest.fixture
def ledger(tmp_path):
    space = Space("s", "", (Trial("a", "", {"name": "a"}, {}),), {}, work_of(resolve), ("x",))
    trials = [planned("s", name, config={"name": name}, ends=("", "")) for name in "ab"]
    draft = Draft(replace(planned_run([planned_space("s")], run="mine"), trials=()), [space], trials)
    return Ledger(draft, Store(str(tmp_path)), {"r0 trunk 2"}, {})


def test_what_is_planned_begins_where_the_store_or_a_planned_stage_ends(ledger):
    assert (ledger.missing(), ledger.done(), ledger.complete()) == (10, 2, 0)
    first = ledger.plan([("s/a (digits)", 0), ("s/a (digits)", 1)])
    assert [(stage.parent, stage.key) for stage in first] == [("r1 trunk 0", "r1 a 4"), ("r0 trunk 2", "r0 a 4")]
    (stage,) = ledger.plan([("s/b (digits)", 0)])
    assert (stage.parent, stage.keys) == ("r0 trunk 2", ("r0 b 3", "r0 b 4"))
    assert "r0 a 4" not in ledger
    ledger.save("r0 a 4")
    assert "r0 a 4" in ledger
    assert (ledger.deepest(("s/a (digits)", 0)), ledger.deepest(("s/b (digits)", 0))) == ("r0 a 4", "r0 trunk 2")
    assert ledger.done([("s/a (digits)", 0)]) == 4
    assert ledger.complete() == 1


def test_the_run_has_trained_what_the_headers_of_states_say(ledger, tmp_path):
    store = Store(str(tmp_path))
    parts = {
        "r0 trunk 2": [(0, "other")],
        "r0 a 4": [(0, "other"), (2, "mine")],
        "r1 b 4": [(0, "mine"), (1, "other"), (3, "mine")],
    }
    for key, trained in parts.items():
        provenance = [{"from_epoch": first, "run": run} for first, run in trained]
        store.save(key, {"key": key, "provenance": provenance}, b"")
        ledger.save(key)
    store.save("r1 a 4", {"key": "r1 a 4"}, b"")  # of a trainable that says nothing
    ledger.save("r1 a 4")
    assert ledger.done() == 10
    assert ledger.trained() == 4


def test_what_raised_is_given_up_recorded_and_dooms_what_needs_it(ledger, tmp_path):
    stages = {stage.key: stage for stage in ledger.plan([("s/a (digits)", 1)])}
    hit = ledger.fail(stages["r1 a 4"], Failure("it raised", "line 3", for_good=True))
    assert hit == [("s/a (digits)", 1)]
    assert ledger.plan(hit) == []
    again = records.failures(Store(str(tmp_path)), "mine")
    assert again == ledger.given_up
    assert (again[hit[0]].reason, again[hit[0]].stage) == ("it raised", "r1 a 4")
    assert ledger.doomed([("s/b (digits)", 1)]) == {}, "it parts before the stage's end"
    assert ledger.try_again() == hit
    assert records.failures(Store(str(tmp_path)), "mine") == ledger.given_up == {}


def test_what_may_go_better_next_time_is_lost_and_not_recorded(ledger, tmp_path):
    (stage,) = ledger.plan([("s/a (digits)", 0)])
    ledger.fail(stage, Failure("the disk is full", damaged="r0 trunk 2"))
    assert list(ledger.lost) == [("s/a (digits)", 0)]
    assert "r0 trunk 2" not in ledger
    assert records.failures(Store(str(tmp_path)), "mine") == {}
