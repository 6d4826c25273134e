"""Records beside the states, in every place."""

import json

import pytest
from helpers import PLAN, content, few, files, headers, put
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Damaged


@few
@given(record=headers)
def test_a_record_is_read_back(shared, record):
    shared.write_record(PLAN, record)
    assert shared.read_record(PLAN) == record
    written = json.loads(content(shared, PLAN))
    assert written.pop("sha256")
    assert written == record


@few
@given(record=headers)
def test_a_record_without_its_checksum_is_damaged(shared, record):
    put(shared, PLAN, json.dumps(record, indent=1).encode())
    with pytest.raises(Damaged, match=PLAN):
        shared.read_record(PLAN)


@few
@given(record=headers, place=st.integers(0), mask=st.integers(1, 255))
def test_a_changed_byte_of_a_record_is_noticed(shared, record, place, mask):
    shared.write_record(PLAN, record)
    damaged = bytearray(content(shared, PLAN))
    damaged[place % len(damaged)] ^= mask
    put(shared, PLAN, damaged)
    with pytest.raises(Damaged, match=PLAN):
        shared.read_record(PLAN)


def test_a_record_is_created_once(shared):
    shared.delete_record("claims/a.json")
    assert shared.create_record("claims/a.json", {"run": "first", "ends": ()})
    assert not shared.create_record("claims/a.json", {"run": "second"})
    assert shared.read_record("claims/a.json") == {"run": "first", "ends": []}


def test_records_are_listed_by_name(store):
    assert store.records("runs") == []
    for run in ("b", "a"):
        store.write_record(f"runs/{run}/plan.json", {})
        store.write_record(f"runs/{run}/starts/00000.json", {})
    put(store, "runs/a/plan.json.f00d.tmp", b"")
    assert store.records("runs") == ["a", "b"]
    assert store.records("runs/a") == ["plan.json", "starts"]
    assert store.keys() == set()


def test_a_record_is_deleted(store):
    store.write_record(PLAN, {"run": "r"})
    for _ in range(2):
        store.delete_record(PLAN)
        assert store.read_record(PLAN) is None
        assert files(store) == []


@pytest.mark.parametrize("torn", [b"", b'{"run": ', b"\xff\x00", b"[]", b"null", b'{"run": "r"}'])
def test_a_torn_or_foreign_record_is_noticed(store, torn):
    put(store, PLAN, torn)
    with pytest.raises(Damaged, match=r"runs/r/plan\.json"):
        store.read_record(PLAN)


def test_another_record_under_a_name_is_noticed(store):
    store.write_record("runs/s/plan.json", {"run": "s"})
    put(store, PLAN, content(store, "runs/s/plan.json"))
    with pytest.raises(Damaged, match=r"runs/r/plan\.json"):
        store.read_record(PLAN)
