"""The log of a start: what is kept of it, and that it is stored when there is more, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.store import logs
from study.store.logs import Log
from study.store.states import Store


def test_what_was_added_comes_back_from_any_store(store: Store) -> None:
    log = Log()
    log.add("run mine")
    log.save(store, "mine", 0)
    log.add("failed: a r0, a r1: ValueError: no")
    log.fail([("a", 0), ("a", 1)], "ValueError: no", "Traceback …", "node7")
    log.save(store, "mine", 0)
    later = Log()
    later.add("run mine")
    later.save(store, "mine", 1)
    first, second = logs.logs(store, "mine").values()
    assert [line.text for line in first.lines] == ["run mine", "failed: a r0, a r1: ValueError: no"]
    assert first.lines[0].time <= first.lines[1].time
    (failure,) = first.failures
    assert (failure.host, failure.reason, failure.traceback) == ("node7", "ValueError: no", "Traceback …")
    assert failure.replicates == (("a", 0), ("a", 1))
    assert ([line.text for line in second.lines], second.failures) == (["run mine"], ())
    assert logs.logs(store, "other") == {}


def test_it_is_written_only_if_something_was_added(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(local, "write_record", lambda path, *_arguments, **_named: written.append(path))
    log = Log()
    log.save(local, "mine", 3)
    assert written == []
    log.add("one")
    for _ in range(3):
        log.save(local, "mine", 3)
    assert written == ["runs/mine/logs/00003.json"]


def test_what_could_not_be_written_is_written_the_next_time(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_named: object) -> None:
        raise OSError("no space left")

    log = Log()
    log.add("one")
    with monkeypatch.context() as patch:
        patch.setattr(local, "write_record", full)
        with pytest.raises(OSError, match="no space left"):
            log.save(local, "mine", 0)
    log.save(local, "mine", 0)
    assert [line.text for line in logs.logs(local, "mine")[0].lines] == ["one"]


def test_its_size_is_bounded_and_it_says_what_is_missing(local: Store) -> None:
    log = Log()
    for number in range(logs.LINES + 7):
        log.add(f"line {number}")
    for number in range(logs.FAILURES + 7):
        log.fail([("a", number)], "x" * 30_000, "y" * 30_000, "")
    log.save(local, "mine", 0)
    stored = logs.logs(local, "mine")[0]
    assert (len(stored.lines), stored.dropped, stored.lines[0].text) == (logs.LINES, 7, "line 7")
    assert (len(stored.failures), stored.failures[-1].replicates) == (logs.FAILURES, (("a", logs.FAILURES + 6),))
    assert stored.failures[-1].traceback.startswith("yyy")
    assert len(stored.failures[-1].traceback) < 11_000


def test_a_url_has_no_password_in_it(local: Store, tmp_path: Path) -> None:
    log = Log()
    log.add("postgresql://me:hunter2@db/optuna does not answer (s3://key:hunter2@bucket?secret_key=hunter2)")
    log.fail([("a", 0)], "at http://me:hunter2@host", "Traceback:\n  mlflow at\thttp://me:hunter2@host/api", "")
    log.save(local, "mine", 0)
    (record,) = (tmp_path / "local").rglob("00000.json")
    assert b"hunter2" not in record.read_bytes()
    stored = logs.logs(local, "mine")[0]
    assert stored.failures[0].traceback == "Traceback:\n  mlflow at\thttp://me:***@host/api"


def test_a_damaged_log_hides_no_other(local: Store, tmp_path: Path) -> None:
    for number in range(2):
        log = Log()
        log.add(f"start {number}")
        log.save(local, "mine", number)
    (tmp_path / "local/runs/mine/logs/00000.json").write_text("{")
    assert [log.lines[0].text for log in logs.logs(local, "mine").values()] == ["start 1"]
