"""When a silent worker is told of, and when it is replaced, on a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.execution.silence import (
    FIRST_REPLACE_SECONDS,
    FIRST_SAY_SECONDS,
    GAP_SECONDS,
    REPLACE_SECONDS,
    REPLACE_TIMES,
    SAY_SECONDS,
    SAY_TIMES,
    START_REPLACE_SECONDS,
    START_SAY_SECONDS,
    Silence,
)

STEP = 1.0


PROCESS = "warm"  # it has reported before


class Clock:
    """Seconds that pass when a test says so; meanwhile somebody looks every second."""

    def __init__(self):
        self.now = 0.0
        self.silence = Silence(lambda: self.now)
        self.told = []
        self.begin("first", "none")
        self.silence.report("first")
        self.silence.end("first")

    def begin(self, trial, kind, process=PROCESS):
        self.silence.begin(trial, kind, process)

    def wait(self, seconds, counts=True, hurries=False):
        """Let seconds pass. Keep who was told of and whether it is to be replaced, with the time."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            self.told += [(each.trial, each.left <= 0, self.now) for each in self.silence.look(counts, hurries)]
        return self.told


@pytest.fixture
def clock():
    return Clock()


def due(told, trial, is_replaced):
    return next(now for each, replaced, now in told if each == trial and replaced is is_replaced)


@given(longest=st.integers(1, 60))
def test_a_worker_may_need_a_multiple_of_the_longest_report_seen_and_at_least_a_floor(longest):
    clock = Clock()
    clock.begin("t", "kind")
    clock.wait(longest)
    clock.silence.report("t")
    began = clock.now
    told = clock.wait(max(REPLACE_SECONDS, REPLACE_TIMES * longest) + 5)
    assert due(told, "t", False) - began == max(SAY_SECONDS, SAY_TIMES * longest) + STEP
    assert due(told, "t", True) - began == max(REPLACE_SECONDS, REPLACE_TIMES * longest) + STEP
    assert sum(not replaced for _, replaced, _ in told) == 1  # the user reads it once


def test_a_run_that_is_to_stop_waits_for_a_worker_that_has_reported_only_until_the_user_is_told(clock):
    for trial, process in (("warm", PROCESS), ("cold", "another")):
        clock.begin(trial, "kind", process)
    clock.wait(1)
    clock.silence.report("warm")
    clock.wait(SAY_SECONDS)
    began = clock.now
    told = clock.wait(10, hurries=True)
    assert [(trial, replaced) for trial, replaced, _ in told] == [("warm", True)] * len(told)
    assert told[0][2] == began + STEP


def test_a_process_that_starts_has_limits_of_its_own(clock):
    clock.silence.start("t")
    told = clock.wait(START_REPLACE_SECONDS + 5)
    assert due(told, "t", False) == START_SAY_SECONDS + STEP
    assert due(told, "t", True) == START_REPLACE_SECONDS + STEP
    clock.begin("t", "kind")
    assert clock.wait(SAY_SECONDS) == told  # from now on it is a worker


def test_a_worker_that_reports_is_not_told_of(clock):
    clock.begin("t", "kind")
    for _ in range(100):
        clock.wait(SAY_SECONDS - 1)
        clock.silence.report("t")
    assert clock.told == []


def test_the_first_report_of_a_kind_may_take_long(clock):
    clock.begin("quick", "digits")
    clock.wait(1)
    clock.silence.report("quick")
    clock.silence.end("quick")
    clock.begin("slow", "images")
    began = clock.now
    told = clock.wait(FIRST_REPLACE_SECONDS + 5)
    assert due(told, "slow", False) - began == FIRST_SAY_SECONDS + STEP
    assert due(told, "slow", True) - began == FIRST_REPLACE_SECONDS + STEP


def test_the_first_report_of_a_process_may_take_long_and_is_no_example(clock):
    clock.begin("t", "kind")
    clock.wait(1)
    clock.silence.report("t")
    clock.silence.end("t")
    clock.begin("cold", "kind", "cold")
    assert clock.wait(FIRST_SAY_SECONDS - 1) == []
    clock.silence.report("cold")
    began = clock.now
    assert due(clock.wait(SAY_SECONDS + 5), "cold", False) - began == SAY_SECONDS + STEP


def test_the_time_in_which_this_process_was_stopped_does_not_count(clock):
    clock.begin("t", "kind")
    clock.wait(1)
    clock.silence.report("t")
    clock.now += 10_000
    assert clock.wait(GAP_SECONDS) == []


def test_the_time_in_which_the_store_is_away_does_not_count(clock):
    clock.begin("t", "kind")
    clock.wait(1)
    clock.silence.report("t")
    assert clock.wait(10_000, counts=False) == []
    assert clock.wait(SAY_SECONDS - 1) == []
    assert clock.wait(2)


def test_a_report_that_waits_for_the_store_is_no_example_for_others(clock):
    clock.begin("t", "kind")
    clock.wait(1)
    clock.silence.report("t")
    clock.wait(150)
    clock.silence.report("t", waits=True)
    began, clock.told = clock.now, []
    assert due(clock.wait(REPLACE_SECONDS + 5), "t", True) - began == REPLACE_SECONDS + STEP


def test_a_trial_that_has_ended_is_forgotten(clock):
    clock.begin("t", "kind")
    clock.wait(1)
    clock.silence.report("t")
    clock.silence.end("t")
    clock.silence.report("t")
    assert clock.wait(1000) == []
