"""A follower executes its tasks in order. An outage delays a task, but does not lose or repeat it."""

import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import one_line
from study.execution import follower
from study.execution.follower import Follower

AWAY = "MLflow is unavailable (nobody answers): training continues"
BACK = "MLflow is available again and catches up"


class Away(Exception):
    pass


class Said(list):
    """The lines that a follower prints to the user."""

    def follower(self):
        return Follower("MLflow", lambda error: isinstance(error, Away), self.append, "training continues")


class Outages:
    """Tasks of which some tries fail, before or after their effect on the service."""

    def __init__(self, failing):
        self.done, self.tries = [], [list(each) for each in failing]

    def task(self, number):
        def attempt():
            failing = self.tries[number].pop(0) if self.tries[number] else ""
            if failing == "before":
                raise Away("nobody answers\nand more")
            if number not in self.done:  # a task can be done twice
                self.done.append(number)
            if failing == "after":
                raise Away("nobody answers\nand more")

        return attempt


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(follower, "RETRY_SECONDS", 0.002)
    monkeypatch.setattr(follower, "LONGEST_RETRY_SECONDS", 0.002)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_tasks_are_done_in_their_order_and_in_another_thread():
    said, done = Said(), []
    follows = said.follower()
    for number in range(100):
        follows.put(lambda number=number: done.append((number, threading.current_thread().name)))
    assert follows.close(0) == ""
    assert done == [(number, "MLflow") for number in range(100)]
    assert said == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(["before", "after"]), max_size=3), max_size=12))
def test_whatever_outages_come_every_task_is_done_once_and_in_order(failing):
    said, outages = Said(), Outages(failing)
    follows = said.follower()
    for number in range(len(failing)):
        follows.put(outages.task(number))
    assert follows.close(60) == ""
    assert outages.done == list(range(len(failing)))
    assert said == [AWAY, BACK] * sum(map(bool, failing))


def test_the_user_is_told_once_that_it_goes_and_once_that_it_is_back():
    said, outages = Said(), Outages([["before"] * 50, [], ["before"] * 3])
    follows = said.follower()
    follows.put(outages.task(0))
    wait_for(lambda: said)
    assert (follows.away, said) == ("nobody answers", [AWAY])
    wait_for(lambda: not follows.away)
    assert said == [AWAY, BACK]
    follows.put(outages.task(1))
    follows.put(outages.task(2))
    assert follows.close(60) == ""
    assert said == [AWAY, BACK, AWAY, BACK]


def test_nobody_who_puts_a_task_waits_for_it():
    go, done = threading.Event(), []
    follows = Said().follower()
    follows.put(go.wait)
    follows.put(lambda: done.append(True))
    assert done == []
    go.set()
    follows.close(0)
    assert done == [True]


def test_check_waits_until_the_first_task_has_been_tried_and_no_longer():
    outages = Outages([["before"] * 1000])
    follows = Said().follower()
    follows.put(lambda: time.sleep(0.05))
    follows.put(outages.task(0))
    begun = time.monotonic()
    follows.check(wait=True)
    assert time.monotonic() - begun > 0.04
    assert follows.close(0) == "nobody answers"
    away = Said().follower()
    away.put(Outages([["before"] * 1000]).task(0))
    away.check(wait=True)  # an outage at the start does not hold the driver up
    assert away.close(0) == "nobody answers"


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), KeyboardInterrupt("ours"), SystemExit("ours")])
def test_another_error_is_raised_by_check_and_by_close_and_ends_the_work(error):
    def broken():
        raise error

    said, done = Said(), []
    follows = said.follower()
    follows.put(broken)
    follows.put(lambda: done.append(True))
    with pytest.raises(type(error), match="ours"):
        follows.check(wait=True)
    with pytest.raises(type(error), match="ours"):
        follows.check()
    with pytest.raises(type(error), match="ours"):
        follows.close(60)
    assert (done, said) == ([], [])


def test_another_error_is_raised_even_if_it_comes_after_an_outage():
    tries = iter([Away("nobody answers"), ZeroDivisionError("ours")])

    def broken():
        raise next(tries)

    said = Said()
    follows = said.follower()
    follows.put(broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        follows.close(60)
    assert said == [AWAY]


def test_a_record_that_the_service_does_not_take_is_left_out_and_the_others_follow():
    said, done = Said(), []

    def rejected():
        raise ValueError("no such parameter")

    follows = Follower("MLflow", lambda _: False, said.append, "", lambda error: isinstance(error, ValueError))
    for task in (rejected, lambda: done.append(True), rejected):
        follows.put(task)
    assert follows.close(60) == "no such parameter"
    assert done == [True]
    assert said == ["MLflow does not take a record (no such parameter): it is left out"]  # once


def test_tries_become_rarer_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(follower, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(follower, "LONGEST_RETRY_SECONDS", 0.1)
    times, follows = [], Said().follower()

    def absent():
        times.append(time.monotonic())
        raise Away

    follows.put(absent)
    wait_for(lambda: len(times) == 6)
    follows.abandon()
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert [wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.08, 0.1, 0.1), strict=False)] == [True] * 5
    assert waits[4] < 0.3


def test_a_page_instead_of_an_answer_is_cut():
    said = Said()
    follows = said.follower()

    def page():
        raise Away("<html>" + "x" * 10_000)

    follows.put(page)
    assert len(follows.close(0)) < 400
    assert len(said[0]) < 400


def test_close_gives_up_after_its_patience_and_says_why():
    said, outages = Said(), Outages([[], ["before"] * 100_000, []])
    follows = said.follower()
    for number in range(3):
        follows.put(outages.task(number))
    begun = time.monotonic()
    assert follows.close(0.2) == "nobody answers"
    assert 0.2 <= time.monotonic() - begun < 2
    assert outages.done == [0]
    assert said == [AWAY]


def test_close_waits_for_what_takes_long_without_an_outage():
    done = []
    follows = Said().follower()
    follows.put(lambda: time.sleep(0.1))
    follows.put(lambda: done.append(True))
    assert follows.close(0) == ""
    assert done == [True]


def test_close_ends_a_long_wait_for_the_next_try(monkeypatch):
    monkeypatch.setattr(follower, "RETRY_SECONDS", 60)
    said, outages = Said(), Outages([["before"], []])
    follows = said.follower()
    follows.put(outages.task(0))
    follows.put(outages.task(1))
    wait_for(lambda: said)
    begun = time.monotonic()
    assert follows.close(0.2) == ""  # one more try, when the patience ends
    assert time.monotonic() - begun < 2
    assert outages.done == [0, 1]


def test_of_an_error_that_another_one_caused_the_cause_is_said():
    def absent():
        raise Away("a wrapper's words") from OSError("no route to host")

    said = Said()
    follows = said.follower()
    follows.put(absent)
    assert follows.close(0) == "no route to host"
    assert said == ["MLflow is unavailable (no route to host): training continues"]


@pytest.mark.parametrize(("error", "line"), [(Away("one\ntwo"), "one"), (Away(" \n"), "Away"), (Away(), "Away")])
def test_an_error_is_one_line(error, line):
    assert one_line(error) == line
