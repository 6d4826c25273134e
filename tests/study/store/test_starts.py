"""Starts of a run, their liveness, and requests to stop, with drivers in processes of their own."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from helpers import wait_until

from study.errors import Refusal
from study.store.starts import (
    FRESH_SECONDS,
    OLD_SECONDS,
    Start,
    StartRecord,
    Superseded,
    is_trained,
    living,
    refuse_second,
    request_stop,
    starts,
)
from study.store.states import Store

DRIVER = """
import signal, sys, time
from study.store import starts
from study.store.states import Store
starts.BEAT_SECONDS = 0.1
signals = []
signal.signal(signal.SIGINT, lambda *_: signals.append(1))
start = starts.Start(Store(sys.argv[1]), "mine", 0, print)
start.begin(0, 0)
start.record.epochs_trained = 2
print("begun", flush=True)
deadline = time.monotonic() + 60
while not signals and time.monotonic() < deadline:
    time.sleep(0.02)
time.sleep(0.6)
print(len(signals), flush=True)
start.end("interrupted", 0)
"""


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("study.store.starts.BEAT_SECONDS", 0.05)


@pytest.fixture
def driver(store):
    """Begins a driver in a process of its own, which ends with the test."""
    begun = []

    def begin():
        command = [sys.executable, "-c", DRIVER, store.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout.readline() == "begun\n"
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def begin(store, done=0, trained=0, say=lambda _: None):
    start = Start(store, "mine", 0, say)
    start.begin(done, lambda: trained)
    return start


def ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def test_starts_are_counted_in_order(store):
    for outcome in ("interrupted", "failed", "complete"):
        start = begin(store)
        start.record.epochs_trained += 4
        start.end(outcome, trained=0)
    assert [each.outcome for each in starts(store, "mine")] == ["interrupted", "failed", "complete"]
    for each in starts(store, "mine"):
        assert (each.epochs_done, each.epochs_trained, each.pid) == (0, 4, os.getpid())
        assert each.started <= each.ended
    assert len({each.token for each in starts(store, "mine")}) == 3
    assert starts(store, "another") == []


def test_what_a_worker_saved_unreported_is_counted(store, driver):
    drained = begin(store)
    drained.record.epochs_trained = 3
    drained.end("interrupted", trained=5)  # it was told of three epochs, and finds five in the store
    killed = driver()  # it trains six, and is told of two
    wait_until(lambda: starts(store, "mine")[-1].epochs_trained == 2)
    killed.kill()
    killed.communicate()
    last = begin(store, done=100, trained=11)  # the others are another run's
    last.record.epochs_trained = 1
    last.end("complete", trained=12)
    assert [each.epochs_trained for each in starts(store, "mine")] == [5, 6, 1]
    assert [each.outcome for each in starts(store, "mine")] == ["interrupted", "killed", "complete"]


def test_a_killed_start_keeps_its_count_where_the_store_shows_less(store, driver):
    killed = driver()
    wait_until(lambda: starts(store, "mine")[-1].epochs_trained == 2)
    killed.kill()
    killed.communicate()
    begin(store, done=1, trained=1).end("complete", trained=1)
    assert [each.epochs_trained for each in starts(store, "mine")] == [2, 0]


def test_a_second_driver_is_refused_while_the_first_is_alive_and_taken_once_it_is_killed(store, driver):
    first = driver()
    process = f"process {first.pid} on {platform.node()}"
    message = rf"run 'mine' is being trained by {process} .*'study stop mine --store {store.url}'$"
    for _ in range(2):
        with pytest.raises(Refusal, match=message):
            begin(store)
    with pytest.raises(Refusal, match=message):
        refuse_second(store, "mine", lambda _line: None)
    assert len(starts(store, "mine")) == 1
    first.send_signal(signal.SIGKILL)
    first.communicate()
    begin(store).end("complete", trained=0)
    assert [each.outcome for each in starts(store, "mine")] == ["killed", "complete"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, True),
        ({"age": -5}, True),
        ({"age": FRESH_SECONDS + 5, "pid": 1}, True),  # the store may be read-only
        ({"age": OLD_SECONDS + 5, "pid": 1}, False),
        ({"age": FRESH_SECONDS + 5, "pid": "dead"}, False),
        ({"pid": "dead"}, False),
        ({"pid": os.getpid()}, False),  # of a driver that was killed, before its container was restarted
        ({"pid": 1}, True),  # of another user, or ours
        ({"host": "another", "pid": "dead"}, True),  # whose processes are not to be seen from here
        ({"host": "another", "age": FRESH_SECONDS + 5}, None),  # its clock may be wrong
        ({"host": "another", "age": -5}, None),
        ({"host": "another", "age": -2 * OLD_SECONDS}, None),
        ({"host": "another", "age": OLD_SECONDS + 5}, False),
        ({"outcome": "complete"}, False),
        ({"outcome": "killed"}, False),
    ],
)
def test_alive_is_what_is_fresh_or_here_a_process(record, expected):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    start = {"outcome": "running", "age": 1, "host": platform.node(), "pid": os.getppid(), **record}
    start["seen"] = ago(start.pop("age"))
    if start["pid"] == "dead":
        start["pid"] = dead.pid
    own = {"number": 0, "generation": 0, "started": start["seen"], "token": "t"}
    assert StartRecord(**own, **start).alive() is expected


def test_a_driver_here_that_cannot_write_lives_until_its_process_is_stopped_or_ends(monkeypatch):
    monkeypatch.setattr("study.store.starts.FRESH_SECONDS", 0.0)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = {"number": 0, "generation": 0, "started": ago(9), "outcome": "running", "token": "t"}
    record = StartRecord(**own, host=platform.node(), pid=process.pid, seen=ago(0.0))
    try:
        assert record.alive()
        assert not replace(record, seen=ago(60)).alive()  # this process is younger: another one had its number
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: not record.alive())
        process.send_signal(signal.SIGCONT)
        wait_until(record.alive)
    finally:
        process.kill()
    wait_until(lambda: not record.alive())  # although nobody has waited for it
    process.communicate()


@pytest.mark.parametrize(("age", "expected"), [(1, True), (FRESH_SECONDS + 5, False)])
def test_a_driver_of_another_user_whose_process_is_hidden_lives_while_its_record_is_fresh(monkeypatch, age, expected):
    def hidden(pid):
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", hidden)
    own = {"number": 0, "generation": 0, "started": ago(9), "outcome": "running", "token": "t"}
    assert StartRecord(**own, host=platform.node(), pid=1, seen=ago(age)).alive() is expected


def test_a_driver_of_this_process_lives_until_it_ends_even_if_it_cannot_write(store):
    start = begin(store)
    record = replace(starts(store, "mine")[0], seen=ago(FRESH_SECONDS + 5))
    assert record.alive()
    start.end("complete", trained=0)
    assert not record.alive()


def test_who_waits_for_a_driver_here_that_cannot_write_reads_how_to_stop_it(store):
    elsewhere(store, FRESH_SECONDS + 5, host=platform.node(), pid=1)
    with pytest.raises(Refusal, match=r"trained by process 1 .*It does not write into the store: .*'kill -INT 1'$"):
        begin(store)


# Drivers on other hosts, whose clocks may be wrong


@pytest.fixture
def watched(monkeypatch):
    """Watches take a moment; returns the waits between two readings as they come."""
    waits, sleep = [], time.sleep
    monkeypatch.setattr("study.store.starts.WATCH_SECONDS", 0.5)
    monkeypatch.setattr("study.store.starts.FRESH_SECONDS", 1.5)
    monkeypatch.setattr("study.store.starts.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("study.store.starts.time.sleep", lambda seconds: (waits.append(seconds), sleep(seconds)))
    return waits


def elsewhere(store, age, run="mine", **record):
    """Writes the record of a driver on another host, whose clock shows another time than ours."""
    token = f"token of {run}"
    own = {"number": 0, "generation": 0, "started": ago(9), "outcome": "running", "pid": 12, "token": token}
    whole = {**own, "host": "another", "seen": ago(age), **record}
    store.write_record(f"runs/{run}/starts/{whole['number']:05d}.json", whole)


@pytest.fixture
def beat(store):
    """Lets drivers on another host live: a function that begins one, whose clock is behind ours by some seconds."""
    ended, threads = threading.Event(), []

    def begin(age, run="mine"):
        def keep_fresh():
            while not ended.wait(0.1):
                elsewhere(store, age, run)

        elsewhere(store, age, run)
        threads.append(threading.Thread(target=keep_fresh))
        threads[-1].start()

    yield begin
    ended.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("age", [45, 1, -45])
def test_a_driver_lives_whatever_the_clocks_say(store, beat, watched, age):
    beat(age)
    assert living(store, ["mine"])["mine"].pid == 12
    assert is_trained(store)
    assert request_stop(store, "mine", at_once=False).host == "another"
    for briefly in (True, False):
        with pytest.raises(Refusal, match=r"trained by process 12 on another .*'study stop mine --store [^ ]*'$"):
            refuse_second(store, "mine", lambda _line: None, briefly)
    assert sum(watched) < 1.5  # the first heartbeat is enough


@pytest.mark.parametrize("age", [45, -45])
def test_a_driver_without_a_heartbeat_is_dead_whatever_the_clocks_say(store, watched, age):
    elsewhere(store, age)
    assert not is_trained(store)
    with pytest.raises(Refusal, match="is not being trained"):
        request_stop(store, "mine", at_once=False)
    assert 0.3 < sum(watched) < 1  # what is known is not watched again


@pytest.mark.parametrize("age", [45, 1, -45, 3 * OLD_SECONDS])
def test_a_run_is_taken_over_from_another_host_after_one_wait(store, watched, age):
    elsewhere(store, age)
    said = []
    refuse_second(store, "mine", said.append)
    assert 1 < sum(watched) < 2.5
    taken = len(watched)
    begin(store, say=said.append).end("complete", trained=0)
    assert len(watched) == taken
    line = "process 12 on another may still train run 'mine': waiting at most 1.5 s for a sign of it"
    assert said == [line]
    assert [each.outcome for each in starts(store, "mine")] == ["killed", "complete"]


def test_a_check_that_starts_nothing_waits_less_and_not_for_a_very_old_record(store, watched):
    elsewhere(store, age=OLD_SECONDS + 5)
    said = []
    assert refuse_second(store, "mine", said.append, briefly=True).pid == 12
    assert watched == said == []
    elsewhere(store, age=1)
    assert refuse_second(store, "mine", said.append, briefly=True).pid == 12
    assert sum(watched) < 1
    assert len(said) == 1


def test_a_driver_that_ends_while_it_is_watched_has_ended(store, watched):
    elsewhere(store, age=45)
    threading.Timer(0.2, elsewhere, (store, 45), {"outcome": "complete"}).start()
    assert refuse_second(store, "mine", lambda _line: None).outcome == "complete"
    assert living(store, ["mine"]) == {}


def test_a_driver_that_comes_while_another_is_watched_is_seen(store, watched):
    elsewhere(store, age=45)
    threading.Timer(0.2, elsewhere, (store, 45), {"number": 1, "token": "later", "pid": 13}).start()
    with pytest.raises(Refusal, match="process 13 on another"):
        refuse_second(store, "mine", lambda _line: None)


def test_many_runs_are_watched_together(store, beat, watched):
    runs = [f"run{number}" for number in range(9)]
    for run in runs[:7]:
        elsewhere(store, 45, run)
    for run in runs[7:]:
        beat(-45, run)
    assert living(store, [*runs, "planned"]).keys() == set(runs[7:])
    assert sum(watched) < 1


def test_a_run_long_dead_is_not_watched(store, watched):
    elsewhere(store, age=OLD_SECONDS + 5)
    assert living(store, ["mine"]) == {}
    assert watched == []


def test_a_driver_that_was_stopped_here_is_taken_over_after_a_while(store, driver, watched):
    first = driver()
    first.send_signal(signal.SIGSTOP)
    wait_until(lambda: not starts(store, "mine")[-1].alive())
    holder = begin(store)
    first.send_signal(signal.SIGCONT)
    printed, _ = first.communicate(timeout=30)
    assert "is being trained by another driver" in printed
    holder.end("complete", trained=0)
    assert [each.outcome for each in starts(store, "mine")] == ["killed", "complete"]


def test_a_record_is_kept_fresh_while_its_driver_lives(store):
    start = begin(store)
    seen = starts(store, "mine")[-1].seen
    start.record.training = 3
    wait_until(lambda: starts(store, "mine")[-1].seen > seen)
    wait_until(lambda: starts(store, "mine")[-1].training == 3)
    start.end("complete", trained=0)
    ended = starts(store, "mine")
    assert ended[-1].training == 0
    time.sleep(0.2)
    assert starts(store, "mine") == ended


@pytest.mark.parametrize(("at_once", "signals"), [(False, 1), (True, 2)])
def test_a_request_to_stop_reaches_its_driver_as_one_signal_or_two(store, driver, at_once, signals):
    first = driver()
    assert request_stop(store, "mine", at_once).pid == first.pid
    assert first.communicate(timeout=30)[0] == f"{signals}\n"
    assert first.returncode == 0
    assert starts(store, "mine")[-1].outcome == "interrupted"


def test_a_drain_can_become_a_stop_at_once(store, driver):
    first = driver()
    request_stop(store, "mine", at_once=False)
    time.sleep(0.3)
    request_stop(store, "mine", at_once=True)
    assert first.communicate(timeout=30)[0] == "2\n"


def test_an_old_request_does_not_stop_a_later_start(store, driver):
    first = driver()
    request_stop(store, "mine", at_once=True)
    first.communicate(timeout=30)
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    try:
        later = begin(store)
        seen = starts(store, "mine")[-1].seen
        wait_until(lambda: starts(store, "mine")[-1].seen > seen)
        time.sleep(0.3)
        later.end("complete", trained=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == []


def test_nobody_can_be_asked_to_stop_what_nobody_trains(store):
    for _ in range(2):
        with pytest.raises(Refusal, match=r"^run 'mine' is not being trained, .*\. 'study status' shows its progress"):
            request_stop(store, "mine", at_once=False)
        begin(store).end("complete", trained=0)


def test_a_driver_that_finds_another_s_record_stops(store):
    """Two that began in the same moment: the one whose record was overwritten goes."""
    caught, said = [], []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    try:
        start = begin(store, say=said.append)
        other = {**asdict(start.record), "token": "another", "pid": 1, "seen": ago(0)}
        store.write_record("runs/mine/starts/00000.json", other)
        wait_until(lambda: caught)
    finally:
        signal.signal(signal.SIGINT, before)
    other_driver = f"another driver (process 1 on {platform.node()})"
    assert said == [f"run 'mine' is being trained by {other_driver}; this driver stops"]
    assert starts(store, "mine")[-1].token == "another"


@pytest.fixture
def signals():
    """Count the SIGINT that reach this process."""
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    yield caught
    signal.signal(signal.SIGINT, before)


def test_a_driver_that_was_stopped_for_long_asks_the_store_before_it_writes(store, monkeypatch, signals):
    monkeypatch.setattr("study.store.starts.BEAT_SECONDS", 60.0)  # its heart stands still
    clock = [1000.0]
    monkeypatch.setattr("study.store.starts._clock", lambda: clock[0])
    said = []
    late = begin(store, say=said.append)
    late.check()
    store.write_record("runs/mine/starts/00000.json", {**asdict(late.record), "seen": ago(31)})
    monkeypatch.setattr("study.store.starts._under_way", set())  # as if it were another process, which was stopped
    holder = begin(store)
    late.check()  # a fresh heartbeat excludes that another driver came, so the store is not asked
    clock[0] += 16
    for _ in range(2):
        with pytest.raises(Superseded, match="run 'mine' is being trained by another driver"):
            late.check()
    holder.check()
    assert len(said) == len(signals) == 1
    late.end("complete", trained=0)  # writes nothing
    holder.end("complete", trained=0)
    assert [each.outcome for each in starts(store, "mine")] == ["killed", "complete"]


def test_a_driver_that_slept_alone_keeps_its_run(store, monkeypatch):
    monkeypatch.setattr("study.store.starts.BEAT_SECONDS", 60.0)
    clock = [1000.0]
    monkeypatch.setattr("study.store.starts._clock", lambda: clock[0])
    start = begin(store)
    seen = starts(store, "mine")[-1].seen
    clock[0] += 1000
    time.sleep(0.01)
    start.check()
    assert starts(store, "mine")[-1].seen > seen  # now no other driver can come
    start.end("complete", trained=0)


def test_a_heartbeat_that_comes_late_is_settled_at_the_end(store, monkeypatch):
    begin(store)._ended.set()
    monkeypatch.setattr("study.store.starts._under_way", set())  # as if it were another process, which was stopped
    record = starts(store, "mine")[-1]
    store.write_record("runs/mine/starts/00000.json", {**asdict(record), "seen": ago(31)})
    holder = begin(store)
    store.write_record("runs/mine/starts/00000.json", {**asdict(record), "epochs_trained": 3})
    holder.end("complete", trained=0)
    assert [(each.outcome, each.epochs_trained) for each in starts(store, "mine")] == [("killed", 3), ("complete", 0)]


def test_a_store_that_cannot_be_written_is_said_once_and_ends_nothing(store, tmp_path):
    said = []
    start = begin(store, say=said.append)
    folder = tmp_path / "store/runs/mine/starts"
    folder.rename(folder.with_name("away"))
    folder.write_text("no folder")
    wait_until(lambda: said)
    time.sleep(0.3)
    assert len(said) == 1
    assert said[0].startswith("the store cannot be written (")
    folder.unlink()
    folder.with_name("away").rename(folder)
    start.record.epochs_trained = 7
    wait_until(lambda: starts(store, "mine")[-1].epochs_trained == 7)  # it goes on once the store is back
    start.end("complete", trained=7)
    assert starts(store, "mine")[-1].outcome == "complete"


def test_an_end_that_cannot_be_written_is_no_error(store, tmp_path):
    said = []
    start = begin(store, say=said.append)
    folder = tmp_path / "store/runs/mine/starts"
    folder.rename(folder.with_name("away"))
    folder.write_text("no folder")
    start.end("complete", trained=0)
    assert len(said) == 1


def test_a_record_that_a_crash_left_damaged_hides_no_other_and_its_number_is_not_taken_again(store, tmp_path):
    for _ in range(3):
        begin(store).end("failed", trained=0)
    (tmp_path / "store/runs/mine/starts/00002.json").write_bytes(b"")
    assert [each.number for each in starts(store, "mine")] == [0, 1]
    begin(store).end("complete", trained=0)
    assert [each.number for each in starts(store, "mine")] == [0, 1, 3]


def test_a_start_that_was_cut_off_before_it_counted_leaves_no_other_running(store, driver):
    killed = driver()
    wait_until(lambda: starts(store, "mine")[-1].epochs_trained == 2)
    killed.kill()
    killed.communicate()
    Start(store, "mine", 0, lambda _: None).end("interrupted", 0)
    begin(store).end("complete", trained=0)
    found = [(each.outcome, each.epochs_trained) for each in starts(store, "mine")]
    assert found == [("killed", 2), ("interrupted", 0), ("complete", 0)]
