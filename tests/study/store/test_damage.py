"""What of a store is damaged is noticed, and no write that fails or is killed leaves any."""

import os
import random
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import HEADER, KEY, OTHER, PLAN, content, few, files, path_of, put
from hypothesis import example, given
from hypothesis import strategies as st

from study.errors import Away, Damaged
from study.store.states import Store


@few
@given(payload=st.binary(max_size=60), place=st.integers(0), mask=st.integers(1, 255))
@example(payload=b"x", place=11, mask=255)  # a header of 4 GB
@example(payload=b"x", place=15, mask=128)  # a header of 8 EiB
def test_a_changed_byte_is_noticed(shared, payload, place, mask):
    shared.save(KEY, HEADER, payload)
    damaged = bytearray(content(shared))
    damaged[place % len(damaged)] ^= mask
    put(shared, path_of(), damaged)
    with pytest.raises(Damaged, match=KEY) as noticed:
        shared.load(KEY)
    assert noticed.value.key == KEY
    assert shared.verify([KEY]) == {KEY: str(noticed.value)}


@few
@given(payload=st.binary(max_size=60), size=st.integers(0))
def test_a_missing_end_is_noticed(shared, payload, size):
    shared.save(KEY, HEADER, payload)
    whole = content(shared)
    put(shared, path_of(), whole[: size % len(whole)])
    with pytest.raises(Damaged, match=KEY):
        shared.load(KEY)


@few
@given(payload=st.binary(max_size=60), more=st.binary(min_size=1, max_size=60))
def test_bytes_behind_the_end_are_noticed(shared, payload, more):
    shared.save(KEY, HEADER, payload)
    put(shared, path_of(), content(shared) + more)
    with pytest.raises(Damaged, match=KEY):
        shared.load(KEY)


@few
@given(foreign=st.binary(max_size=200))
def test_what_was_never_a_state_is_noticed(shared, foreign):
    put(shared, path_of(), foreign)
    for read in (shared.load, shared.header, shared.measures, shared.drop):
        with pytest.raises(Damaged, match=KEY):
            read(KEY)


def test_another_state_under_a_name_is_noticed(store):
    store.save(OTHER, {**HEADER, "key": OTHER}, b"tensors")
    put(store, path_of(), content(store, path_of(OTHER)))
    for read in (store.load, store.header):
        with pytest.raises(Damaged, match=KEY):
            read(KEY)


def damage(random_, data, foreign):
    """The bytes of an object with something done to them."""
    kind = random_.choice(["flip", "flip", "truncate", "truncate", "foreign"])
    if kind == "flip":
        place = random_.randrange(len(data))
        return data[:place] + bytes([data[place] ^ random_.randrange(1, 256)]) + data[place + 1 :]
    return data[: random_.randrange(len(data))] if kind == "truncate" else foreign


def test_of_200_damaged_objects_none_is_used(store, local):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    random_ = random.Random(seed)
    keys = [f"{number:02x}{random_.getrandbits(152):038x}" for number in range(150)]
    paths = [f"runs/{number}/plan.json" for number in range(50)]
    foreign = b""
    for key in keys:
        local.save(key, {**HEADER, "key": key}, random_.randbytes(random_.choice([0, 0, 1, 50, 5_000, 100_000])))
    for path in paths:
        local.write_record(path, {"trials": [random_.random() for _ in range(random_.randrange(9))]})
    for path in [*map(path_of, keys), *paths]:
        whole = content(local, path)
        put(store, path, damage(random_, whole, foreign))
        foreign = whole
    noticed = store.verify(keys)
    assert noticed.keys() == set(keys)
    assert all(key in reason for key, reason in noticed.items())
    for path in paths:
        with pytest.raises(Damaged, match=path):
            store.read_record(path)


def test_what_is_damaged_is_set_aside_once(store):
    store.save(KEY, HEADER, b"tensors")
    whole = content(store)
    assert store.set_aside(KEY) == ""  # it is whole: another driver has trained it again
    put(store, path_of(), whole[:-1])
    aside = store.set_aside(KEY)
    assert re.fullmatch(r"damaged/ab12\.[0-9a-f]+", aside)
    assert content(store, aside) == whole[:-1]
    assert store.set_aside(KEY) == ""
    assert store.keys() == set()
    store.save(KEY, HEADER, b"tensors")
    assert store.load(KEY)[1] == b"tensors"
    assert files(store) == [aside, path_of()]


def test_another_driver_may_set_aside_first(store, monkeypatch):
    store.save(KEY, HEADER, b"tensors")
    put(store, path_of(), content(store)[:-1])
    load = store.load

    def then_it_is_gone(key):
        try:
            return load(key)
        finally:
            assert Store(store.url).set_aside(key)

    monkeypatch.setattr(store, "load", then_it_is_gone)
    assert store.set_aside(KEY) == ""
    assert len(files(store)) == 1


def test_the_age_of_what_was_set_aside_is_counted_from_then(local):
    local.save(KEY, HEADER, b"tensors")
    file = Path(local.url, path_of())
    file.write_bytes(b"damaged")
    os.utime(file, (0, 0))
    local.set_aside(KEY)
    assert local.objects("damaged")[0].age_seconds < 600


# Writes that fail, and writers that are killed


class Failing:
    """A file system of which one step fails: half of the bytes are written, or nothing can be opened or moved."""

    def __init__(self, inner, step):
        self._inner = inner
        setattr(self, step, getattr(self, f"failing_{step}"))

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def failing_move(self, _source, _target):
        raise OSError("no move")

    def failing_open_output_stream(self, path):
        return Full(self._inner.open_output_stream(path))


class Full:
    """A stream that has room for half of what is written."""

    def __init__(self, stream):
        self._stream = stream

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def write(self, data):
        self._stream.write(data[: len(data) // 2])
        raise OSError("no space")


def no_links(*_):
    raise PermissionError("this file system has no links")


@pytest.mark.parametrize("step", ["open_output_stream", "move"])
def test_a_write_that_fails_leaves_nothing(local, step, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    whole = local._fs
    local._fs = Failing(whole, step)
    with pytest.raises(Away, match=r"no (space|move)"):
        local.save(KEY, HEADER, b"tensors")
    with pytest.raises(Away, match=r"no (space|move)"):
        local.write_record(PLAN, {"run": "r"})
    local._fs = whole
    assert files(local) == []
    assert local.read_record(PLAN) is None


@pytest.mark.parametrize("step", ["open_output_stream", "move"])
def test_a_write_that_fails_leaves_what_was_there(local, step):
    local.write_record(PLAN, {"run": "old"})
    local._fs = Failing(local._fs, step)
    with pytest.raises(Away, match=r"no (space|move)"):
        local.write_record(PLAN, {"run": "new"})
    assert local.read_record(PLAN) == {"run": "old"}
    assert files(local) == [PLAN]


def test_a_state_that_json_cannot_hold_is_not_written(store):
    with pytest.raises(ValueError, match="JSON"):
        store.save(KEY, {**HEADER, "loss": float("nan")}, b"tensors")
    assert files(store) == []


def test_a_file_is_durable_before_it_has_its_name(local, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "study.store.states.sync", lambda path: synced.append((path.relative_to(local.url), files(local)))
    )
    local.save(KEY, HEADER, b"tensors")
    (first, seen), *folders = synced
    assert first.suffix == ".tmp"
    assert seen == [str(first)]
    assert folders == [(Path(each), [path_of()]) for each in ("states/ab", "states", "")]
    synced.clear()
    local.save("ab13", {**HEADER, "key": "ab13"}, b"tensors")
    assert len(synced) == 2  # the folders above exist
    synced.clear()
    local.write_record(PLAN, {}, durable=False)
    assert synced == []


WRITER = """
import os, random, signal, sys, time
from study.store.states import Store

url, seed, kills, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

def write(begun=lambda: None):
    random_, store, end = random.Random(os.getpid()), Store(url), time.monotonic() + seconds
    while time.monotonic() < end:
        key = f"a{random_.randrange(100)}"
        header = {"key": key, "measures": ["x" * random_.randrange(100_000)]}
        store.save(key, header, random_.randbytes(random_.randrange(300_000)))
        store.write_record("runs/r/plan.json", header)
        begun()

random_ = random.Random(seed)
for number in range(kills):
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        write(lambda: os.write(told, b"."))
    if number % 2:  # one is killed while it begins, the next one later
        os.read(heard, 1)
    time.sleep(random_.uniform(0.02, 0.3))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
if not kills:
    write()
"""


def writer(url, seed=0, kills=0, seconds=60.0):
    """A process that saves a few states again and again; or kills others that do, at random moments."""
    command = [sys.executable, "-c", WRITER, url, str(seed), str(kills), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_two_writers_and_a_reader_see_whole_states(store):
    writers = [writer(store.url, seconds=1.0) for _ in range(2)]
    reads = 0
    try:
        while any(process.poll() is None for process in writers):
            keys = store.keys()
            assert store.verify(keys) == {}
            assert all(store.header(key)["key"] == key for key in keys)
            store.read_record(PLAN)
            reads += len(keys)
    finally:
        for process in writers:
            finish(process)
    assert reads > 6
    assert store.verify(store.keys()) == {}
    assert len(files(store)) == len(store.keys()) + 1


def test_writers_that_are_killed_leave_whole_states(store):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    finish(writer(store.url, seed, kills=6))
    keys = store.keys()
    assert keys
    assert store.verify(keys) == {}
    store.read_record(PLAN)
    left = set(files(store)) - {path_of(key) for key in keys} - {PLAN}
    assert all(path.endswith(".tmp") for path in left)
    assert not (left and store.url.startswith("s3:"))
