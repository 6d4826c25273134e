import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from study.refusal import Refusal
from study.store import Damaged, Store

few = settings(max_examples=60, deadline=None)

KEY, OTHER = "ab12", "cd34"
HEADER = {"key": KEY, "epoch": 2, "measures": [{"test/top1": 10.5}, {"test/top1": 61.25}]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "key"), json_values, max_size=4)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One for all examples of a test."""
    return Store(str(tmp_path_factory.mktemp("shared")))


def file_of(store, key=KEY):
    return Path(store.url.removeprefix("file://"), "states", key[:2], key)


def files(store):
    return [path.name for path in Path(store.url).rglob("*") if path.is_file()]


@few
@given(header=headers, payload=st.binary(max_size=200), key=st.text("0123456789abcdef", min_size=3, max_size=8))
def test_what_is_saved_is_loaded(shared, header, payload, key):
    shared.save(key, {"key": key, **header}, payload)
    described, again = shared.load(key)
    assert again == payload
    assert {"key": key, **header}.items() <= described.items()
    assert shared.header(key) == described
    assert {key} <= shared.keys()


def test_keys_are_the_names_of_whole_states(store):
    assert store.keys() == set()
    for key in ("ab12", "ab34", "cd56"):
        store.save(key, {"key": key}, b"")
    file_of(store, "ab56.f00d.tmp").write_bytes(b"left by a writer that was killed")
    assert store.keys() == {"ab12", "ab34", "cd56"}


def test_a_state_that_is_not_there_is_not_found(store):
    for read in (store.load, store.header):
        with pytest.raises(FileNotFoundError):
            read(KEY)


def test_a_header_is_read_without_its_payload(store):
    store.save(KEY, HEADER, b"tensors" * 1000)
    file = file_of(store)
    file.write_bytes(file.read_bytes()[:-7000])
    assert store.header(KEY)["measures"] == HEADER["measures"]
    with pytest.raises(Damaged, match=KEY):
        store.load(KEY)


def test_saving_twice_is_harmless(store):
    store.save(KEY, HEADER, b"tensors")
    once = file_of(store).read_bytes()
    store.save(KEY, HEADER, b"tensors")
    assert file_of(store).read_bytes() == once
    assert files(store) == [KEY]


# Damage


@few
@given(payload=st.binary(max_size=60), place=st.integers(0), mask=st.integers(1, 255))
@example(payload=b"x", place=11, mask=255)  # a header of 4 GB
@example(payload=b"x", place=15, mask=128)  # a header of 8 EiB
def test_a_changed_byte_is_noticed(shared, payload, place, mask):
    shared.save(KEY, HEADER, payload)
    damaged = bytearray(file_of(shared).read_bytes())
    damaged[place % len(damaged)] ^= mask
    file_of(shared).write_bytes(damaged)
    with pytest.raises(Damaged, match=KEY):
        shared.load(KEY)


@few
@given(payload=st.binary(max_size=60), size=st.integers(0))
def test_a_missing_end_is_noticed(shared, payload, size):
    shared.save(KEY, HEADER, payload)
    whole = file_of(shared).read_bytes()
    file_of(shared).write_bytes(whole[: size % len(whole)])
    with pytest.raises(Damaged, match=KEY):
        shared.load(KEY)


@few
@given(payload=st.binary(max_size=60), more=st.binary(min_size=1, max_size=60))
def test_bytes_behind_the_end_are_noticed(shared, payload, more):
    shared.save(KEY, HEADER, payload)
    with file_of(shared).open("ab") as file:
        file.write(more)
    with pytest.raises(Damaged, match=KEY):
        shared.load(KEY)


@few
@given(content=st.binary(max_size=200))
def test_what_was_never_a_state_is_noticed(shared, content):
    shared.save(KEY, HEADER, b"")
    file_of(shared).write_bytes(content)
    for read in (shared.load, shared.header):
        with pytest.raises(Damaged, match=KEY):
            read(KEY)


def test_another_state_under_a_name_is_noticed(store):
    store.save(KEY, HEADER, b"tensors")
    store.save(OTHER, {**HEADER, "key": OTHER}, b"tensors")
    file_of(store).write_bytes(file_of(store, OTHER).read_bytes())
    for read in (store.load, store.header):
        with pytest.raises(Damaged, match=KEY):
            read(KEY)


# Writes that fail


class Failing:
    """A file system of which one step fails: half of the bytes are written, or the move is refused."""

    def __init__(self, inner, step):
        self._inner = inner
        setattr(self, step, getattr(self, f"failing_{step}"))

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def failing_move(self, _source, _target):
        raise OSError("no move")

    @contextmanager
    def failing_open_output_stream(self, path):
        with self._inner.open_output_stream(path) as stream:
            yield Full(stream)


class Full:
    """A stream that has room for half of what is written."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, data):
        self._stream.write(data[: len(data) // 2])
        raise OSError("no space")


@pytest.mark.parametrize("step", ["open_output_stream", "move"])
def test_a_write_that_fails_leaves_nothing(store, step):
    whole = store._fs
    store._fs = Failing(whole, step)
    with pytest.raises(OSError, match=r"no (space|move)"):
        store.save(KEY, HEADER, b"tensors")
    with pytest.raises(OSError, match=r"no (space|move)"):
        store.write_record("runs/r/plan.json", {"run": "r"})
    store._fs = whole
    assert files(store) == []
    assert store.keys() == set()
    assert store.read_record("runs/r/plan.json") is None


@pytest.mark.parametrize("step", ["open_output_stream", "move"])
def test_a_write_that_fails_leaves_what_was_there(store, step):
    store.write_record("runs/r/plan.json", {"run": "old"})
    store._fs = Failing(store._fs, step)
    with pytest.raises(OSError, match=r"no (space|move)"):
        store.write_record("runs/r/plan.json", {"run": "new"})
    assert store.read_record("runs/r/plan.json") == {"run": "old"}
    assert files(store) == ["plan.json"]


def test_a_state_that_json_cannot_hold_is_not_written(store):
    with pytest.raises(ValueError, match="JSON"):
        store.save(KEY, {**HEADER, "loss": float("nan")}, b"tensors")
    assert files(store) == []


# Records


@few
@given(record=headers)
def test_a_record_is_read_back(shared, record):
    shared.write_record("runs/r/plan.json", record)
    assert shared.read_record("runs/r/plan.json") == record


def test_records_are_listed_by_name(store):
    assert store.records("runs") == []
    for run in ("b", "a"):
        store.write_record(f"runs/{run}/plan.json", {})
        store.write_record(f"runs/{run}/starts/00000.json", {})
    Path(store.url, "runs/a/plan.json.f00d.tmp").touch()
    assert store.records("runs") == ["a", "b"]
    assert store.records("runs/a") == ["plan.json", "starts"]
    assert store.keys() == set()


@pytest.mark.parametrize("content", [b"", b'{"run": ', b"\xff\x00"])
def test_a_torn_record_is_noticed(store, content):
    store.write_record("runs/r/plan.json", {"run": "r"})
    Path(store.url, "runs/r/plan.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"runs/r/plan\.json"):
        store.read_record("runs/r/plan.json")


# Places


def test_a_url_is_the_same_place_as_its_path(tmp_path):
    by_url, by_path = Store(f"file://{tmp_path}/s"), Store(str(tmp_path / "s"))
    by_url.save(KEY, HEADER, b"tensors")
    by_url.write_record("runs/r/plan.json", {"run": "r"})
    assert by_path.load(KEY) == by_url.load(KEY)
    assert by_path.keys() == by_url.keys() == {KEY}
    assert by_path.read_record("runs/r/plan.json") == {"run": "r"}


@pytest.mark.parametrize("name", ["with space", "50%20#?", "längs"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    Store(str(tmp_path / name)).save(KEY, HEADER, b"tensors")
    assert json.loads(file_of(Store(str(tmp_path / name))).read_bytes()[48:-7])["key"] == KEY


def test_a_path_from_here_is_kept_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("states of mine")
    monkeypatch.chdir("/")
    store.save(KEY, HEADER, b"")
    assert (tmp_path / "states of mine" / "states").is_dir()


@pytest.mark.parametrize("url", ["{}/file/below", "{}/file", "file://{}/file/below", "nonsense://{}"])
def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path, url):
    (tmp_path / "file").write_text("")
    url = url.format(tmp_path)
    with pytest.raises(Refusal) as refused:
        Store(url)
    assert refused.value.field == "--store"
    assert url in str(refused.value)
    assert "\n" not in str(refused.value)
