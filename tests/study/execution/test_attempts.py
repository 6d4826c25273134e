"""How often a stage may lose a process."""

import pytest
from helpers import Machines

from study.execution.attempts import LOST_ATTEMPTS, LOST_MACHINES, Attempts
from study.execution.losses import Loss


def on(node, is_of_machine=False):
    return Loss("no memory", node, "Traceback", node, is_of_machine)


@pytest.fixture
def pool():
    return Machines(2, [f"node{number}" for number in range(1, 30)])


def test_a_stage_that_loses_processes_on_three_machines_by_itself_is_given_up(pool):
    attempts = Attempts(pool)
    assert attempts.lose("stage", "", on("node1")) is None
    assert attempts.lose("other", "", on("node1")) is None
    assert attempts.lose("stage", "", on("node2")) is None
    assert attempts.lost_on("stage") == {"node1", "node2"}
    failure = attempts.lose("stage", "", on("node3"))
    assert failure.reason == "the training process ended unexpectedly on node1, node2, node3. no memory (on node3)"
    assert (failure.for_good, failure.host, failure.traceback) == (False, "node3", "Traceback")


def test_on_one_machine_it_may_lose_as_many(pool):
    attempts = Attempts(pool)
    lost = [attempts.lose("stage", "", on("node1")) for _ in range(LOST_ATTEMPTS)]
    assert lost[:-1] == [None] * (LOST_ATTEMPTS - 1)
    assert lost[-1].reason == "the training process ended unexpectedly 3 times. no memory (on node1)"


def test_machines_that_are_preempted_or_end_do_not_count(pool):
    attempts = Attempts(pool)
    for number in range(1, LOST_MACHINES):
        node = f"node{number}"
        pool.ended.add(node)
        assert attempts.lose("stage", "", on(node, is_of_machine=number % 2 == 0)) is None
    assert attempts.lost_on("stage") == set()
    assert attempts.lose("stage", "", on("node20")) is None


def test_a_machine_whose_end_is_known_only_later_does_not_count_either(pool):
    attempts = Attempts(pool)
    for node in ("node1", "node2"):  # gloo notices first that a machine is gone
        assert attempts.lose("stage", "", on(node)) is None
    pool.ended |= {"node1", "node2"}
    assert attempts.lose("stage", "", on("node3")) is None
    assert attempts.lost_on("stage") == {"node3"}


def test_a_stage_whose_machines_all_end_before_it_saves_is_given_up_in_the_end(pool):
    attempts = Attempts(pool)
    for saved in ("", "half"):  # a state that was saved begins the count anew
        lost = [attempts.lose("stage", saved, on("node1", is_of_machine=True)) for _ in range(LOST_MACHINES - 1)]
        assert lost == [None] * (LOST_MACHINES - 1)
    failure = attempts.lose("stage", "half", on("node1", is_of_machine=True))
    assert failure.reason == "its machine ended 10 times before a further state was saved. no memory (on node1)"
