"""What a cleaning drops, and what it never does."""

import os
from pathlib import Path

import pytest

from study.store import cleaning
from study.store.cleaning import Cleaned, clean
from study.store.states import Store

DAY = 86_400.0


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def file_of(store, key):
    return Path(store.url, "states", key[:2], key)


def age(path, days):
    moment = path.stat().st_mtime - days * DAY
    os.utime(path, (moment, moment))


def save(store, key, days=10.0, runs=("mine",), **header):
    store.save(key, {"key": key, "provenance": [{"run": run} for run in runs], **header}, b"tensors" * 10)
    age(file_of(store, key), days)
    return file_of(store, key).stat().st_size


def left(store, path, days):
    file = Path(store.url, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"1234")
    age(file, days)
    return file


def cleaned(store, reached=(), claimed=lambda header: False, run=None, grace_seconds=DAY, dry_run=False):
    return clean(store, reached, claimed, run, grace_seconds, dry_run)


def contents(store):
    return {path: path.read_bytes() for path in Path(store.url).rglob("*") if path.is_file()}


def test_what_no_plan_reaches_loses_its_tensors_and_keeps_its_measures(store):
    size = save(store, "aa01", measures=[{"test/top1": 1.0}])
    save(store, "aa02")
    header = store.header("aa01")
    assert cleaned(store, reached=["aa02"]) == Cleaned(states=1, bytes=size)
    assert store.keys() == {"aa02"}
    assert store.measures("aa01") == header
    assert cleaned(store, reached=["aa02"]) == Cleaned()


def test_what_is_young_stays_and_is_counted_if_nothing_else_keeps_it(store):
    save(store, "aa01", days=0.5)
    save(store, "aa02", days=0.5)
    save(store, "aa03", days=0.5, epoch=3)
    assert cleaned(store, reached={"aa02"}, claimed=lambda header: "epoch" in header) == Cleaned(kept_by_grace=1)
    assert store.keys() == {"aa01", "aa02", "aa03"}
    assert cleaned(store, grace_seconds=0.0).states == 3


def test_what_is_claimed_stays(store):
    save(store, "aa01", origin="digits")
    save(store, "aa02", origin="cifar")
    assert cleaned(store, claimed=lambda header: header["origin"] == "cifar").states == 1
    assert store.keys() == {"aa02"}


def test_of_a_run_only_what_it_trained_last_goes(store):
    save(store, "aa01", runs=["mine"])
    save(store, "aa02", runs=["other", "mine"])
    save(store, "aa03", runs=["mine", "other"])
    save(store, "aa04", runs=[])
    assert cleaned(store, run="mine").states == 2
    assert store.keys() == {"aa03", "aa04"}
    assert cleaned(store).states == 2


def test_leftovers_go_after_the_grace_period(store):
    left(store, "states/aa/aa01.f00d.tmp", days=2)
    left(store, "runs/r/plan.json.f00d.tmp", days=2)
    left(store, "damaged/aa01.f00d", days=2)
    left(store, "nodes/f00d-node.json", days=2)
    young = [left(store, "states/aa/aa02.f00d.tmp", days=0), left(store, "damaged/aa02.f00d", days=0)]
    records = [left(store, "runs/r/plan.json", days=99), left(store, "measures/aa/aa01.json", days=99)]
    assert cleaned(store) == Cleaned(leftovers=4, leftover_bytes=16)
    assert contents(store).keys() == {*young, *records}


def test_what_a_run_shows_to_machines_that_join_stays_while_it_is_trained(store, monkeypatch):
    monkeypatch.setattr(cleaning, "is_trained", lambda _store: True)
    shown = left(store, "nodes/f00d.json", days=2)
    assert cleaned(store) == Cleaned()
    assert contents(store).keys() == {shown}


def test_a_damaged_state_is_set_aside_and_stops_nothing(store):
    for key in ("aa01", "aa02", "aa03", "aa04"):
        save(store, key)
    for key, days in (("aa01", 10), ("aa02", 0), ("aa03", 10)):
        file_of(store, key).write_bytes(b"not a state")
        age(file_of(store, key), days)
    done = cleaned(store, reached={"aa03"})
    assert (done.states, done.set_aside, done.leftovers) == (1, 1, 0)
    assert store.keys() == {"aa02", "aa03"}
    (aside,) = Path(store.url, "damaged").iterdir()
    assert aside.read_bytes() == b"not a state"


def test_a_dry_run_tells_the_same_and_changes_nothing(store):
    for key in ("aa01", "aa02", "aa03"):
        save(store, key)
    file_of(store, "aa02").write_bytes(b"not a state")
    age(file_of(store, "aa02"), 10)
    left(store, "states/aa/aa01.f00d.tmp", days=2)
    before = contents(store)
    told = cleaned(Store(store.url, create=False), reached={"aa03"}, dry_run=True)
    assert contents(store) == before
    assert told == cleaned(store, reached={"aa03"})
    assert (told.states, told.leftovers, told.set_aside) == (1, 1, 1)


def test_another_driver_may_be_first(store, monkeypatch):
    save(store, "aa01")
    save(store, "aa02")
    header = store.header

    def then_it_is_gone(key):
        found = header(key)
        if key == "aa01":
            file_of(store, key).unlink()
        return found

    monkeypatch.setattr(store, "header", then_it_is_gone)
    assert cleaned(store).states == 1
    assert store.keys() == set()
