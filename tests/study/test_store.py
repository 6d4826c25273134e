"""One contract for every place: a directory, the same as a URL, and S3, which moto's server is on loopback."""

import json
import os
import random
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from conftest import s3_url
from hypothesis import example, given, settings
from hypothesis import strategies as st

from study.errors import Refusal
from study.store.states import Damaged, Store

few = settings(max_examples=20, deadline=None)

KEY, OTHER = "ab12", "cd34"
HEADER = {"key": KEY, "epoch": 2, "measures": [{"test/top1": 10.5}, {"test/top1": 61.25}]}
PLAN = "runs/r/plan.json"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "key"), json_values, max_size=4)


def a_place(kind, request):
    """A URL or path of that kind, at which there is nothing yet."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp("place") / "store"
    if kind == "s3":
        return s3_url(request.getfixturevalue("s3"), secrets.token_hex(6))
    return f"file://{folder}" if kind == "file" else str(folder)


@pytest.fixture(params=["path", "file", "s3"])
def url(request):
    return a_place(request.param, request)


@pytest.fixture
def store(url):
    return Store(url)


@pytest.fixture(scope="module", params=["path", "file", "s3"])
def shared(request):
    """One for all examples of a test."""
    return Store(a_place(request.param, request))


@pytest.fixture
def local(tmp_path):
    return Store(str(tmp_path / "local"))


def path_of(key=KEY):
    return f"states/{key[:2]}/{key}"


def content(store, path="states/ab/ab12"):
    with store._fs.open_input_file(path) as file:
        return file.read()


def put(store, path, data):
    if not store.url.startswith("s3:"):
        store._fs.create_dir(path.rpartition("/")[0], recursive=True)
    with store._fs.open_output_stream(path) as file:
        file.write(data)


def files(store):
    return sorted(each.path for each in store.objects())


# States


@few
@given(header=headers, payload=st.binary(max_size=200), key=st.text("0123456789abcdef", min_size=1, max_size=8))
def test_what_is_saved_is_loaded(shared, header, payload, key):
    shared.save(key, {"key": key, **header}, payload)
    described, again = shared.load(key)
    assert again == payload
    assert {"key": key, **header}.items() <= described.items()
    assert shared.header(key) == shared.measures(key) == described
    assert shared.sizes()[key] == len(content(shared, path_of(key)))
    assert shared.verify([key, "absent"]) == {}


def test_keys_are_the_names_of_whole_states(store):
    assert store.keys() == set()
    for key in ("ab12", "ab34", "cd56"):
        store.save(key, {"key": key}, b"")
    for other in ("ab/ab56.f00d.tmp", "ab/.nfs0001", "ab/ABCD", "ab/notes", "ab/cd12", "ab/x/ab78", "abcd", "ab/ab90~"):
        put(store, f"states/{other}", b"left by somebody")
    assert store.keys() == {"ab12", "ab34", "cd56"}
    assert store.sizes() == {key: len(content(store, path_of(key))) for key in store.keys()}  # noqa: SIM118
    assert all(-60 < stored.age_seconds < 600 for stored in store.states().values())


def test_a_state_that_is_not_there_is_not_found(store):
    for read in (store.load, store.header, store.measures, store.drop):
        with pytest.raises(FileNotFoundError):
            read(KEY)


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_header_is_read_without_its_payload(store, size):
    store.save(KEY, {**HEADER, "long": "x" * size}, b"tensors" * 1000)
    put(store, path_of(), content(store)[:-7000])
    assert store.header(KEY)["measures"] == HEADER["measures"]
    with pytest.raises(Damaged, match=KEY):
        store.load(KEY)


def test_saving_twice_is_harmless(store):
    store.save(KEY, HEADER, b"tensors")
    once = content(store)
    store.save(KEY, HEADER, b"tensors")
    assert content(store) == once
    assert files(store) == [path_of()]


def test_what_was_dropped_keeps_its_measures(store):
    store.save(KEY, HEADER, b"tensors")
    header = store.header(KEY)
    store.drop(KEY)
    assert files(store) == ["measures/ab/ab12.json"]
    assert store.measures(KEY) == header
    assert store.keys() == set()
    for read in (store.load, store.header):
        with pytest.raises(FileNotFoundError):
            read(KEY)
    store.save(KEY, {**HEADER, "epoch": 3}, b"trained again")
    assert store.measures(KEY)["epoch"] == 3


# Damage


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


@pytest.mark.parametrize("step", ["open_output_stream", "move"])
def test_a_write_that_fails_leaves_nothing(local, step):
    whole = local._fs
    local._fs = Failing(whole, step)
    with pytest.raises(OSError, match=r"no (space|move)"):
        local.save(KEY, HEADER, b"tensors")
    with pytest.raises(OSError, match=r"no (space|move)"):
        local.write_record(PLAN, {"run": "r"})
    local._fs = whole
    assert files(local) == []
    assert local.read_record(PLAN) is None


@pytest.mark.parametrize("step", ["open_output_stream", "move"])
def test_a_write_that_fails_leaves_what_was_there(local, step):
    local.write_record(PLAN, {"run": "old"})
    local._fs = Failing(local._fs, step)
    with pytest.raises(OSError, match=r"no (space|move)"):
        local.write_record(PLAN, {"run": "new"})
    assert local.read_record(PLAN) == {"run": "old"}
    assert files(local) == [PLAN]


def test_an_upload_that_is_refused_leaves_what_was_there(s3):
    store = Store(s3_url(s3, "refused"))
    store.write_record(PLAN, {"run": "old"})
    with credentials_required(s3), pytest.raises(OSError, match="AWS Error"):
        store.write_record(PLAN, {"run": "new"})
    assert store.read_record(PLAN) == {"run": "old"}


def test_a_state_that_json_cannot_hold_is_not_written(store):
    with pytest.raises(ValueError, match="JSON"):
        store.save(KEY, {**HEADER, "loss": float("nan")}, b"tensors")
    assert files(store) == []


def test_a_file_is_durable_before_it_has_its_name(local, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "study.store.states._sync", lambda path: synced.append((path.relative_to(local.url), files(local)))
    )
    local.save(KEY, HEADER, b"tensors")
    (first, seen), *folders = synced
    assert first.suffix == ".tmp"
    assert seen == [str(first)]
    assert folders == [(Path(each), [path_of()]) for each in ("states/ab", "states", "")]
    synced.clear()
    local.save(KEY, HEADER, b"tensors")
    assert len(synced) == 2
    synced.clear()
    local.write_record(PLAN, {}, durable=False)
    assert synced == []


WRITER = """
import os, random, signal, sys, time
from study.store import Store

url, seed, kills, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

def write():
    random_, store, end = random.Random(os.getpid()), Store(url), time.monotonic() + seconds
    while time.monotonic() < end:
        key = f"a{random_.randrange(6)}"
        header = {"key": key, "measures": ["x" * random_.randrange(100_000)]}
        store.save(key, header, random_.randbytes(random_.randrange(300_000)))
        store.write_record("runs/r/plan.json", header)

random_ = random.Random(seed)
for _ in range(kills):
    child = os.fork()
    if not child:
        write()
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
    assert len(store.keys()) == 6
    assert store.verify(store.keys()) == {}
    assert len(files(store)) == 7


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


# Records


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


# Places


def test_a_url_is_the_same_place_as_its_path(tmp_path):
    by_url, by_path = Store(f"file://{tmp_path}/s"), Store(str(tmp_path / "s"))
    by_url.save(KEY, HEADER, b"tensors")
    by_url.write_record(PLAN, {"run": "r"})
    assert by_path.load(KEY) == by_url.load(KEY)
    assert by_path.keys() == by_url.keys() == {KEY}
    assert by_path.read_record(PLAN) == {"run": "r"}


@pytest.mark.parametrize("name", ["with space", "50%20#?", "längs", "key=1"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    store = Store(str(tmp_path / name))
    store.save(KEY, HEADER, b"tensors")
    assert store.shown == str(tmp_path / name)
    assert json.loads((tmp_path / name / path_of()).read_bytes()[48:-7])["key"] == KEY


def test_a_path_from_here_is_kept_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("states of mine")
    monkeypatch.chdir("/")
    store.save(KEY, HEADER, b"")
    assert (tmp_path / "states of mine" / "states").is_dir()


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("url", ["{}/file/below", "{}/file", "file://{}/file/below", "nonsense://{}", "s3://"])
def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path, url, create):
    (tmp_path / "file").write_text("")
    url = url.format(tmp_path)
    assert url in refusal(url, create)


def refusal(url, create=True):
    """What is said, in one line and soon."""
    begun = time.monotonic()
    with pytest.raises(Refusal) as refused:
        Store(url, create=create)
    assert refused.value.field == "--store"
    assert "\n" not in str(refused.value)
    assert time.monotonic() - begun < 10
    return str(refused.value)


def tree(folder):
    return {path: path.lstat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_reading_makes_and_needs_nothing(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.save(KEY, HEADER, b"tensors")
    store.write_record(PLAN, {"run": "r"})
    folders = [path for path in tree(tmp_path) if path.is_dir()]
    before = tree(tmp_path)
    for folder in folders:
        folder.chmod(0o555)
    try:
        for url in (store.url, f"file://{store.url}"):
            reader = Store(url, create=False)
            assert reader.load(KEY) == store.load(KEY)
            assert reader.keys() == {KEY}
            assert reader.verify({KEY}) == {}
            assert reader.read_record(PLAN) == {"run": "r"}
            assert reader.records("runs") == ["r"]
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert tree(tmp_path) == before


def test_a_folder_that_is_not_there_is_not_made_by_reading(tmp_path):
    for url in (f"{tmp_path}/none", f"file://{tmp_path}/none"):
        assert "that can be read would do" in refusal(url, create=False)
    assert list(tmp_path.iterdir()) == []


# S3


def test_a_bucket_holds_no_markers_and_nothing_is_made_by_reading(s3):
    address = f"http://{s3}/bucket?list-type=2&prefix=marks"
    for create in (False, True):
        assert Store(s3_url(s3, "marks/below/"), create=create).keys() == set()
    store = Store(s3_url(s3, "marks/below"))
    with urlopen(address, timeout=10) as listing:
        assert b"<Key>" not in listing.read()
    store.save(KEY, HEADER, b"tensors")
    store.write_record(PLAN, {"run": "r"})
    with urlopen(address, timeout=10) as listing:
        assert sorted(re.findall(rb"<Key>(.*?)</Key>", listing.read())) == [
            b"marks/below/runs/r/plan.json",
            b"marks/below/states/ab/ab12",
        ]


class credentials_required:  # noqa: N801
    """The server asks for credentials, of which it knows none."""

    def __init__(self, address):
        self.url = f"http://{address}/moto-api/reset-auth"

    def __enter__(self):
        self.after(b"0")

    def __exit__(self, *_):
        self.after(b"inf")

    def after(self, requests):
        urlopen(Request(self.url, requests, {"Content-Type": "text/plain"}), timeout=10).close()


@pytest.mark.parametrize("create", [True, False])
def test_a_bucket_that_cannot_be_used_is_refused(s3, create):
    assert "does not exist" in refusal(s3_url(s3, "folder", bucket="no-such-bucket"), create)
    with credentials_required(s3):
        assert "Access Key" in refusal(s3_url(s3, "folder"), create)


def test_a_server_that_is_away_or_mute_is_refused(s3, monkeypatch):
    monkeypatch.setattr("study.store.states._ANSWER_SECONDS", 0.5)
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))
        assert "refused" in refusal(s3_url(f"127.0.0.1:{away.getsockname()[1]}", "folder"))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "timed out" in refusal(s3_url(f"127.0.0.1:{mute.getsockname()[1]}", "folder"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hunter2@no-such-bucket/folder{}",
        "s3://me:hunter2%2Fhunter2@bucket/folder{}&nonsense=1",
        "s3://me:hunter2/hunter2@bucket/folder{}",
        "s3://bucket/folder{}&secret_key=hunter2",
        "s3://me:hunter2@",
        "nonsense://me:hunter2@host/folder",
    ],
)
def test_a_password_is_never_shown(s3, url):
    query = f"?endpoint_override={s3}&scheme=http&region=us-east-1"
    for create in (True, False):
        said = refusal(url.format(query), create)
        assert "hunter2" not in said
        assert "***" in said


def test_a_password_is_kept_for_workers_and_in_no_message(s3):
    store = Store(s3_url(s3, "secret").replace("s3://", "s3://me:hunter2@"))
    assert store.shown == s3_url(s3, "secret").replace("s3://", "s3://me:***@")
    put(store, PLAN, b"torn")
    with pytest.raises(Damaged) as noticed:
        Store(store.url, create=False).read_record(PLAN)
    assert str(noticed.value) == f"{store.shown}/{PLAN} is not the record that was written"
