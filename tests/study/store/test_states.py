"""One contract for every place: a directory, the same as a URL, and S3, which moto's server is on loopback."""

import json
import os

import pytest
from helpers import HEADER, KEY, PLAN, content, few, files, headers, path_of, put, refused_place
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Away, Damaged
from study.store.states import Store

# States


@few
@given(header=headers, payload=st.binary(max_size=200), key=st.text("0123456789abcdef", min_size=1, max_size=8))
def test_what_is_saved_is_loaded(shared, header, payload, key):
    shared.delete_record(path_of(key))  # of an earlier example
    assert shared.save(key, {"key": key, **header}, payload)
    described, again = shared.load(key)
    assert again == payload
    assert {"key": key, **header}.items() <= described.items()
    assert shared.header(key) == shared.measures(key) == described
    assert shared.sizes()[key] == len(content(shared, path_of(key)))
    assert shared.verify([key, "absent"]) == {}


@pytest.mark.parametrize("linked", [True, False])
def test_the_first_whole_state_of_a_name_stays(store, monkeypatch, linked):
    """On a GPU, two workers can train different bits under one name; a damaged state is replaced."""
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links")))
    assert store.save(KEY, HEADER, b"first")
    assert not store.save(KEY, {**HEADER, "measures": [{"late": 1}]}, b"late")
    assert store.load(KEY)[1] == b"first"
    put(store, path_of(), content(store)[:-1])
    assert store.save(KEY, HEADER, b"late")
    assert store.load(KEY)[1] == b"late"


def test_a_state_that_comes_between_the_check_and_the_write_stays(tmp_path, monkeypatch):
    store, other = Store(str(tmp_path)), Store(str(tmp_path))
    write = store._put

    def slow(*arguments):
        write(*arguments)
        other.save(KEY, HEADER, b"first")

    monkeypatch.setattr(store, "_put", slow)
    assert not store.save(KEY, HEADER, b"late")
    assert store.load(KEY)[1] == b"first"
    assert files(store) == [path_of()]


def test_a_probe_says_whether_a_state_could_be_saved_and_leaves_nothing(tmp_path):
    store = Store(str(tmp_path))
    store.probe(1 << 20)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "nodes").rmdir()
    (tmp_path / "nodes").write_text("in the way")
    with pytest.raises(Away):
        store.probe(1)


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


def test_a_state_whose_folder_is_a_file_is_not_there_and_cannot_be_saved(tmp_path):
    store = Store(str(tmp_path))
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / "ab").touch()
    for read in (store.header, store.load, store.measures):
        with pytest.raises(FileNotFoundError):
            read("ab12")
    with pytest.raises(Away):
        store.save("ab12", {"key": "ab12"}, b"")


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
    assert url in refused_place(url, create)


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
        assert "--store must be a directory or URL that can be read (got " in refused_place(url, create=False)
    assert list(tmp_path.iterdir()) == []
