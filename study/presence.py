"""Who trains a run: the record of each start, kept fresh while its driver lives, and the request to stop it."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from study.masking import without_password
from study.refusal import Damaged, Refusal
from study.store import Store

BEAT_SECONDS = 2.0
FRESH_SECONDS = 30.0  # a driver whose record is older is taken for dead

Record = dict[str, Any]


class Start:
    """One start of a run, as the driver that makes it sees it; a thread keeps its record fresh.

    The same thread looks for requests to stop, and passes them on as SIGINT: one for a drain, two to stop at once.

    Args:
        store: where the run lies.
        run: its name.
        generation: of its plan.
        epochs_done: how many of the plan's states need no training.
        epochs_done_before: how many of those the plan had when it was last started: a start that was killed may have
            trained epochs that its record does not count.
        say: says a line to the user.

    Raises:
        Refusal: if another driver is alive.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        generation: int,
        epochs_done: int,
        epochs_done_before: int,
        say: Callable[[str], None],
    ) -> None:
        self._store, self._run, self._say = store, run, say
        refuse_second(store, run)
        before = starts(store, run)
        if before and before[-1]["outcome"] == "running":
            last = before[-1]
            trained = max(last["epochs_trained"], epochs_done_before - last["epochs_done"])
            store.write_record(
                _path(run, last["number"]), {**last, "epochs_trained": trained, "outcome": "killed", "training": 0}
            )
        self._number = 1 + max(
            (int(name.partition(".")[0]) for name in store.records(f"runs/{run}/starts")), default=-1
        )
        self.record: Record = {
            "number": self._number,
            "generation": generation,
            "started": now(),
            "ended": None,
            "outcome": "running",
            "host": platform.node(),
            "pid": os.getpid(),
            "token": secrets.token_hex(8),
            "epochs_done": epochs_done,
            "epochs_trained": 0,
            "training": 0,
            "behind": "its last start was cut off before MLflow and Optuna showed everything",
        }
        self._write()
        self._ended, self._warned, self._superseded = threading.Event(), False, False
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self, outcome: str, epochs_done: int) -> None:
        """Record how it ended: complete, failed, or interrupted.

        What a worker trained and saved while it was stopped was not reported, but needs no training any more.
        """
        self._ended.set()
        self._thread.join()
        trained = max(self.record["epochs_trained"], epochs_done - self.record["epochs_done"])
        self.record |= {"ended": now(), "outcome": outcome, "epochs_trained": trained, "training": 0}
        if not self._superseded:
            self._guarded(self._write)

    def _write(self) -> None:
        self._store.write_record(_path(self._run, self._number), {**self.record, "seen": now()}, durable=False)

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
        kept, later = (self._read(_path(self._run, number)) for number in (self._number, self._number + 1))
        if later is not None or (kept is not None and kept["token"] != self.record["token"]):
            other = later or kept or {}
            self._say(f"another driver (process {other['pid']} on {other['host']}) trains {self._run}: this one stops")
            self._superseded = True
            os.kill(os.getpid(), signal.SIGINT)
            self._ended.set()
        else:
            self._write()

    def _signals_wanted(self) -> int:
        """How often this driver has been asked to stop: for a drain once, at once twice."""
        request = self._read(_stop_path(self._run))
        if request is None or request["token"] != self.record["token"]:
            return 0
        return 2 if request["now"] else 1

    def _read(self, path: str) -> Record | None:
        """A record; a damaged one is as good as none, and is written anew."""
        with suppress(Damaged):
            return self._store.read_record(path)
        return None

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """A store that is away or full must not end the training; said once."""
        try:
            return action()
        except OSError as error:
            if not self._warned:
                self._warned = True
                words = without_password(str(error))
                self._say(f"the store cannot be written ({words}): training goes on, what cannot be saved is lost")
            return None


def starts(store: Store, run: str) -> list[Record]:
    """The records of every start of a run, oldest first; one that a crash left damaged is nothing to stop at."""
    folder, found = f"runs/{run}/starts", []
    for name in store.records(folder):
        with suppress(Damaged):
            record = store.read_record(f"{folder}/{name}")
            if record is not None:
                found.append(record)
    return found


def alive(start: Mapping[str, Any]) -> bool:
    """Whether the driver of a start is still at work: its record is fresh, and here its process is there, too."""
    if start["outcome"] != "running":
        return False
    age = (datetime.now(UTC) - datetime.fromisoformat(start["seen"])).total_seconds()
    return age < FRESH_SECONDS and (start["host"] != platform.node() or _exists(start["pid"]))


def refuse_second(store: Store, run: str) -> None:
    """Refuse to train a run that another driver trains; correctness does not depend on it."""
    before = starts(store, run)
    if before and alive(before[-1]):
        last = before[-1]
        raise Refusal(
            "run",
            run,
            f"process {last['pid']} on {last['host']} trains it since {last['started'][:19]}: "
            f"wait for it, or `study stop {run}`",
        )


def request_stop(store: Store, run: str, at_once: bool) -> Record:
    """Ask the driver of a run, wherever it is, to stop; returns its start's record.

    Args:
        store: where the run lies.
        run: its name.
        at_once: without letting workers end their epoch.

    Raises:
        Refusal: if nobody trains it.
    """
    before = starts(store, run)
    if not before or not alive(before[-1]):
        raise Refusal("run", run, "nobody trains it; `study status` says how far it is")
    store.write_record(_stop_path(run), {"token": before[-1]["token"], "now": at_once, "asked": now()})
    return before[-1]


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
