"""Who trains a run: the record of each start, kept fresh while its driver lives, and the request to stop it."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from study.decoding import decoded
from study.errors import Away, Damaged, Refusal, one_line
from study.store.states import Store

BEAT_SECONDS = 2.0
FRESH_SECONDS = 30.0  # a driver whose record is older is taken for dead


@dataclass(kw_only=True)
class StartRecord:
    """What is stored of a start.

    Attributes:
        number: of the run's starts, from 0.
        generation: of its plan.
        started, seen, ended: when it began, was last alive, and ended, if it has.
        outcome: running, complete, failed, interrupted, or killed.
        host, pid: where its driver is.
        token: tells it apart from any other start.
        epochs_done: how many of the plan's states needed no training when it began.
        epochs_trained: that it has trained so far.
        training: replicates that wait for what is being trained.
        behind: why MLflow or Optuna may not show all of it; "" if they do.
    """

    number: int
    generation: int
    started: str
    outcome: str
    host: str
    pid: int
    token: str
    epochs_done: int = 0
    epochs_trained: int = 0
    training: int = 0
    behind: str = ""
    seen: str = ""
    ended: str | None = None

    def alive(self) -> bool:
        """Whether its driver is still at work: its record is fresh, and here its process is there, too."""
        if self.outcome != "running":
            return False
        age = (datetime.now(UTC) - datetime.fromisoformat(self.seen)).total_seconds()
        return age < FRESH_SECONDS and (self.host != platform.node() or _exists(self.pid))


@dataclass(frozen=True)
class StopRequest:
    """What is stored to stop a driver: whose start, whether without ending epochs, and when it was asked."""

    token: str
    now: bool
    asked: str


class Start:
    """One start of a run, as the driver that makes it sees it; a thread keeps its record fresh.

    The same thread looks for requests to stop, and passes them on as SIGINT: one for a drain, two to stop at once.

    Args:
        store: where the run lies.
        run: its name.
        generation: of its plan.
        say: says a line to the user.

    Raises:
        Refusal: if another driver is alive.
    """

    def __init__(self, store: Store, run: str, generation: int, say: Callable[[str], None]) -> None:
        self.store, self._run, self._say = store, run, say
        self._before = refuse_second(store, run)
        numbers = (int(name.partition(".")[0]) for name in store.records(f"runs/{run}/starts"))
        self.record = StartRecord(
            number=1 + max(numbers, default=-1),
            generation=generation,
            started=now(),
            outcome="running",
            host=platform.node(),
            pid=os.getpid(),
            token=secrets.token_hex(8),
            behind="its last start was cut off before MLflow and Optuna showed everything",
        )
        self._settle_before(0)
        self._write()
        self._ended, self._warned, self._superseded = threading.Event(), False, False
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def begin(self, epochs_done: int, epochs_done_before: int) -> None:
        """Count from here, and what a start that was killed has trained.

        Args:
            epochs_done: how many of the plan's states need no training.
            epochs_done_before: how many of those the plan had when it was last started: a start that was killed may
                have trained epochs that its record does not count.
        """
        self.record.epochs_done = epochs_done
        self._settle_before(epochs_done_before)

    def _settle_before(self, epochs_done: int) -> None:
        """The start before says that it runs, and does not: it was killed."""
        last = self._before
        if last is not None and last.outcome == "running":
            trained = max(last.epochs_trained, epochs_done - last.epochs_done)
            settled = replace(last, epochs_trained=trained, outcome="killed", training=0)
            self.store.write_record(_path(self._run, last.number), asdict(settled))

    def end(self, outcome: str, epochs_done: int) -> None:
        """Record how it ended: complete, failed, or interrupted.

        What a worker trained and saved while it was stopped was not reported, but needs no training any more.
        """
        self._ended.set()
        self._thread.join()
        own = self.record
        own.epochs_trained = max(own.epochs_trained, epochs_done - own.epochs_done)
        own.ended, own.outcome, own.training = now(), outcome, 0
        if not self._superseded:
            self._guarded(self._write)

    def _write(self) -> None:
        record = asdict(replace(self.record, seen=now()))
        self.store.write_record(_path(self._run, self.record.number), record, durable=False)

    def _beat(self) -> None:
        signals = 0
        while not self._ended.wait(BEAT_SECONDS):
            self._guarded(self._write_if_own)
            wanted = self._guarded(self._signals_wanted) or 0
            for _ in range(wanted - signals):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)  # two at once would be one
            signals = max(signals, wanted)

    def _write_if_own(self) -> None:
        """Keep the record fresh, unless another driver has written its own: then that one goes on alone."""
        own = self.record
        kept, later = (_read(self.store, _path(self._run, number)) for number in (own.number, own.number + 1))
        other = later or (kept if kept is not None and kept.token != own.token else None)
        if other is not None:
            self._say(f"another driver (process {other.pid} on {other.host}) trains {self._run}: this one stops")
            self._superseded = True
            os.kill(os.getpid(), signal.SIGINT)
            self._ended.set()
        else:
            self._write()

    def _signals_wanted(self) -> int:
        """How often this driver has been asked to stop: for a drain once, at once twice."""
        request = None
        with suppress(Damaged, ValueError):  # as good as none
            plain = self.store.read_record(_stop_path(self._run))
            request = None if plain is None else decoded(StopRequest, plain)
        if request is None or request.token != self.record.token:
            return 0
        return 2 if request.now else 1

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """A store that is away or full must not end the training; said once."""
        try:
            return action()
        except Away as error:
            if not self._warned:
                self._warned = True
                words = f"the store cannot be written ({one_line(error)})"
                self._say(f"{words}: training goes on, what cannot be saved is lost")
            return None


def starts(store: Store, run: str) -> list[StartRecord]:
    """The records of every start of a run, oldest first; one that a crash left damaged is nothing to stop at."""
    folder = f"runs/{run}/starts"
    found = (_read(store, f"{folder}/{name}") for name in store.records(folder))
    return [record for record in found if record is not None]


def request_stop(store: Store, run: str, at_once: bool) -> StartRecord:
    """Ask the driver of a run, wherever it is, to stop; returns its start's record.

    Args:
        store: where the run lies.
        run: its name.
        at_once: without letting workers end their epoch.

    Raises:
        Refusal: if nobody trains it.
    """
    before = starts(store, run)
    if not before or not before[-1].alive():
        raise Refusal("run", run, "nobody trains it; `study status` says how far it is")
    store.write_record(_stop_path(run), asdict(StopRequest(before[-1].token, at_once, now())))
    return before[-1]


def refuse_second(store: Store, run: str) -> StartRecord | None:
    """The last start of a run; refused while its driver is alive. Correctness does not depend on it."""
    before = starts(store, run)
    if not before:
        return None
    last = before[-1]
    if last.alive():
        since = f"process {last.pid} on {last.host} trains it since {last.started[:19]}"
        raise Refusal("run", run, f"{since}: wait for it, or `study stop {run}`")
    return last


def _read(store: Store, path: str) -> StartRecord | None:
    """A start's record; a damaged one is as good as none, and is written anew."""
    with suppress(Damaged, ValueError):
        plain = store.read_record(path)
        return None if plain is None else decoded(StartRecord, plain)
    return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _path(run: str, number: int) -> str:
    return f"runs/{run}/starts/{number:05d}.json"


def _stop_path(run: str) -> str:
    return f"runs/{run}/stop.json"


def now() -> str:
    """The time, as records hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
