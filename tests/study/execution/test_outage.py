"""Workers that cannot use the store, on a clock of the test's own."""

import pytest

from study.execution import outage
from study.execution.outage import ONLY_SECONDS, Outage


@pytest.fixture
def clock(monkeypatch):
    """Lets seconds pass."""
    now = [0.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


@pytest.mark.parametrize("can_save", [True, False])
def test_a_worker_is_the_only_one_if_the_driver_can_save_and_it_has_tried_twice_since(clock, can_save):
    away = Outage(lambda: can_save)
    only = []
    for _ in range(4):
        away.report("trial", "No space left on device")
        clock(ONLY_SECONDS + 1)
        only.append(away.only())
    assert only == [{}, {}, *[{"trial": "No space left on device"} if can_save else {}] * 2]


def test_the_store_is_back_when_no_worker_waits_any_more():
    away = Outage(lambda: True)
    away.report("one", "full")
    away.report("other", "full")
    away.report("one", "")
    assert ("one" in away, "other" in away, away.reason) == (False, True, "full")
    away.report("other", "")
    assert away.reason == ""


def test_if_those_that_waited_have_ended_the_reason_stays_until_another_one_uses_the_store():
    away = Outage(lambda: True)
    away.report("trial", "full")
    away.end("trial")
    assert away.reason == "full"
    away.work()
    assert away.reason == ""
