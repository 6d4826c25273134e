"""Drivers of two runs on one store: who trains which stage."""

import threading
from pathlib import Path

import pytest
from helpers import wait_until

from study.errors import Away
from study.execution import sharing
from study.execution.sharing import Sharing
from study.planning.tree import Stage
from study.store.starts import Start
from study.store.states import Store


def path(*keys, parent="origin", start=0):
    return Stage(parent, start, keys, tuple({"epoch": key} for key in keys), {}, len(keys))


LONG, SHORT = path("a", "b", "c", "d"), path("a", "b")


def raise_away(*_arguments: object) -> None:
    raise Away("the store is away")


class Driver:
    """The start of a run in this process, and what it shares."""

    def __init__(self, store: Store, run: str) -> None:
        self.said = []
        self.start = Start(store, run, 0, self.said.append)
        self.sharing = Sharing(store, run, self.start, self.said.append)

    def end(self) -> None:
        self.sharing.close()
        if not self.start._ended.is_set():
            self.start.end("complete", 0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.02)
    return Store(str(tmp_path / "store"))


@pytest.fixture
def drivers(store):
    """Three drivers, which do not know of each other yet."""
    begun = [Driver(store, run) for run in ("first", "second", "third")]
    yield begun
    for driver in begun:
        driver.end()
    assert store.records("drivers") == store.records("claims") == []


def test_a_driver_alone_claims_nothing(store, drivers):
    first, *_ = drivers
    first.sharing.announce([LONG])
    assert first.sharing.cut(LONG) == [LONG]
    assert first.sharing.begin(LONG)
    assert first.sharing.keep(LONG, 0) == ()
    assert store.records("claims") == []


def test_a_stage_that_another_driver_trains_is_left_to_it_until_it_has_ended(drivers):
    first, second, _ = drivers
    second.sharing.announce([SHORT])
    first.sharing.announce([LONG])
    part, rest = first.sharing.cut(LONG)
    assert [part.keys, rest.keys] == [("a", "b"), ("c", "d")]
    assert first.sharing.begin(part)
    wait_until(lambda: not second.sharing.begin(SHORT))
    assert second.said == ["run first trains stages that this run needs, too: it waits for them"]
    assert second.sharing.holder(SHORT) == "first"
    first.sharing.end(part)
    assert second.sharing.begin(SHORT)
    assert len(second.said) == 1  # the first one may train others
    assert not first.sharing.begin(part)
    assert first.said == ["run second trains stages that this run needs, too: it waits for them"]


def test_a_path_is_cut_where_that_of_another_driver_parts_from_it(drivers):
    first, second, _ = drivers
    second.sharing.announce([path("a", "b", "c", "x", "y")])
    first.sharing.announce([LONG])
    assert [part.keys for part in first.sharing.cut(LONG)] == [("a", "b", "c"), ("d",)]


def test_a_driver_that_appears_later_gets_the_states_it_needs_from_a_stage_under_way(drivers):
    first, second, _ = drivers
    first.sharing.announce([LONG])
    assert first.sharing.begin(LONG)
    second.sharing.announce([SHORT])
    wait_until(lambda: first.sharing.keep(LONG, 1))
    assert first.sharing.keep(LONG, 1) == {"b"}
    assert not second.sharing.begin(SHORT)
    assert not second.sharing.begin(path("c", parent="b", start=2))
    assert first.sharing.keep(LONG, 2) == set()
    assert second.sharing.begin(SHORT)  # "b" is stored, or was passed before anyone asked for it
    assert not second.sharing.begin(path("c", parent="b", start=2))


def test_what_is_left_of_a_stage_under_way_is_not_trained_by_a_driver_that_starts_then(store, drivers):
    first, second, _ = drivers
    first.sharing.announce([LONG])
    assert first.sharing.begin(LONG)
    rest = path("c", "d", parent="b", start=2)  # "b" is in the store when the second one plans
    second.sharing.announce([rest])
    wait_until(lambda: first.sharing.keep(LONG, 3) == set() and store.records("claims") == ["c.json"])
    assert not second.sharing.begin(rest)
    first.sharing.end(LONG)
    assert second.sharing.begin(rest)


def test_what_was_begun_alone_is_left_to_a_driver_that_has_claimed_it_since(drivers):
    first, second, _ = drivers
    first.sharing.announce([LONG])
    assert first.sharing.begin(LONG)  # it waits for room
    second.sharing.announce([SHORT])
    assert second.sharing.begin(SHORT)
    wait_until(lambda: first.sharing.keep(LONG, 0) is None)
    second.sharing.end(SHORT)
    assert first.sharing.keep(LONG, 0) == {"b"}


def test_a_third_driver_learns_where_a_stage_was_cut_for_one_that_has_ended(drivers):
    first, second, third = drivers
    second.sharing.announce([SHORT])
    first.sharing.announce([LONG])
    part, rest = first.sharing.cut(LONG)
    second.end()
    assert first.sharing.begin(part)
    third.sharing.announce([LONG])
    wait_until(lambda: len(third.sharing.cut(LONG)) == 2)
    first.sharing.end(part)
    assert first.sharing.begin(rest)
    assert [third.sharing.begin(each) for each in third.sharing.cut(LONG)] == [True, False]


def test_a_stage_that_may_be_another_s_is_not_begun_while_the_store_is_away(drivers, monkeypatch):
    first, second, _ = drivers
    second.sharing.announce([SHORT])
    first.sharing.announce([SHORT])
    with monkeypatch.context() as away:
        away.setattr(Store, "create_record", raise_away)
        assert not first.sharing.begin(SHORT)
    assert first.sharing.begin(SHORT)
    assert first.said == []


def test_a_claim_that_cannot_be_released_is_released_when_the_store_is_back(store, drivers, monkeypatch):
    first, second, _ = drivers
    second.sharing.announce([SHORT])
    first.sharing.announce([SHORT])
    assert first.sharing.begin(SHORT)
    with monkeypatch.context() as away:
        away.setattr(Store, "delete_record", raise_away)
        first.sharing.end(SHORT)
        assert store.records("claims") == ["a.json"]
    wait_until(lambda: store.records("claims") == [])


def test_what_a_killed_driver_has_announced_is_removed_and_a_living_one_announces_again(store, drivers):
    first, second, _ = drivers
    second.sharing.announce([SHORT])
    second.start.end("interrupted", 0)  # without withdrawing it
    second.sharing._ended.set()
    first.sharing.announce([LONG])
    assert first.sharing.was_shared(LONG) is False  # nothing of a driver that had ended is known
    (name,) = store.records("drivers")
    assert name.startswith("first@")
    store.delete_record(f"drivers/{name}")  # by one that took this driver for dead
    wait_until(lambda: [each for each in store.records("drivers") if each != name])


def test_a_claim_ends_with_its_driver(store, drivers):
    first, second, _ = drivers
    second.sharing.announce([SHORT])
    first.sharing.announce([LONG])
    assert first.sharing.begin(SHORT)
    wait_until(lambda: not second.sharing.begin(SHORT))
    first.start.end("interrupted", 0)  # without withdrawing its claim, as when it is killed
    assert second.sharing.begin(SHORT)
    assert second.said[1:] == ["run first has ended: this run trains what both need"]
    first.sharing.end(SHORT)
    assert store.records("claims") == ["a.json"]  # of the second one


def test_of_drivers_that_claim_a_stage_at_the_same_time_one_trains_it(store):
    record = [{"run": f"run{number}"} for number in range(8)]
    for stage in range(20):
        created = []
        barrier = threading.Barrier(len(record))

        def create(number, path=f"claims/{stage}.json", barrier=barrier, created=created):
            barrier.wait()
            if store.create_record(path, record[number]):
                created.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(len(record))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (only,) = created
        assert store.read_record(f"claims/{stage}.json") == record[only]


def test_what_a_driver_of_another_version_announces_is_not_read(store, drivers):
    first, second, _ = drivers
    for name in ("odd.json", f"second@{second.start.record.token}@0.json"):
        store.write_record(f"drivers/{name}", {"version": 7})
    first.sharing.announce([LONG])
    assert first.sharing.cut(LONG) == [LONG]
    for name in store.records("drivers"):
        store.delete_record(f"drivers/{name}")
