"""The starts of a run: a record for each, kept fresh while its driver lives, and requests to stop a driver."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.decoding import decoded
from study.errors import Away, Damaged, Refusal, StudyError, as_argument, one_line
from study.store.states import Store

BEAT_SECONDS = 2.0
FRESH_SECONDS = 30.0  # a driver whose record is older is taken for dead, unless its process is seen to live
LEASE_SECONDS = FRESH_SECONDS / 2  # a driver whose last heartbeat is older asks the store before it writes
WATCH_SECONDS = 3 * BEAT_SECONDS + 2.0  # for some heartbeats of a driver on another host, and a slow store
OLD_SECONDS = 3600.0  # no clock is that wrong, and a run ends after half an hour without its store
LOOK_SECONDS = 0.5  # between two readings of the records that are watched

_under_way: set[str] = set()  # the tokens of the starts of this process that have not ended
# By the token of a start: the `seen` of its record, and when this process first read it so.
_sightings: dict[str, tuple[str, float]] = {}


class Superseded(StudyError):
    """Another driver has claimed the run, so this one must not write records any more."""


@dataclass(kw_only=True)
class StartRecord:
    """The stored record of a start.

    Attributes:
        number: the number of the start, from 0.
        generation: the generation of the plan.
        started, seen, ended: when the start began, was last alive, and ended, if it has.
        outcome: running, complete, failed, interrupted, or killed.
        host, pid: the machine and the process of its driver.
        token: a random text that distinguishes this start from all others.
        epochs_done: how many of the plan's epochs needed no training when it began.
        epochs_trained: how many epochs it has trained so far.
        epochs_saved: how many of the plan's epochs need no training by now, since a state at or after them is saved,
            by whichever run. None before they are counted, and in records of older versions.
        checked: whether all checks have passed, so that it trains or has ended without training.
        training: the number of replicates that wait for the stages in training.
        waits: what the training waits for, such as room on the cluster or the store; "" while it goes on.
        behind: why MLflow or Optuna may not show everything; "" if they do.
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
    epochs_saved: int | None = None
    checked: bool = False
    training: int = 0
    waits: str = ""
    behind: str = ""
    seen: str = ""
    ended: str | None = None

    def alive(self) -> bool | None:
        """Return whether the driver is running, as far as the record and, on this machine, its process say.

        A driver here that cannot write into the store lives on, and its record is old. One that is stopped does not.

        None if the record is of another host and neither fresh nor very old: that host's clock may be wrong. Whether
        the record changes then tells (`living`).
        """
        if self.outcome != "running":
            return False
        if self.is_here():
            return self._has_process()
        return True if 0 <= self.age() < FRESH_SECONDS else False if self.age() > OLD_SECONDS else None

    def age(self) -> float:
        """Return the seconds since the driver last wrote the record, by this machine's clock."""
        return time.time() - datetime.fromisoformat(self.seen).timestamp()

    def _has_process(self) -> bool:
        if self.pid == os.getpid():
            # A notebook outlives its runs. In a container that was restarted, a driver that was killed had this number.
            return self.token in _under_way
        import psutil  # here, because most commands meet no driver of this machine

        try:
            process = psutil.Process(self.pid)
            status, began = process.status(), process.create_time()
        except psutil.ZombieProcess:
            return False
        except psutil.Error:  # also for the process of another user, where the system hides these
            return _exists(self.pid) and self.age() < FRESH_SECONDS
        if status == psutil.STATUS_ZOMBIE:
            return False
        is_later = began > datetime.fromisoformat(self.seen).timestamp() + 1.0  # another process with its number
        is_stopped = status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        # A fresh record counts for more: in some containers, processes seem to have begun later than they did.
        return self.age() < (FRESH_SECONDS if is_later or is_stopped else OLD_SECONDS)

    def is_here(self) -> bool:
        """Return whether the driver is on this machine, whose clock and processes are known."""
        return self.host == platform.node()


@dataclass(frozen=True)
class StopRequest:
    """The stored request to stop a driver.

    Attributes:
        token: the token of the start to stop.
        now: whether to stop without finishing epochs.
        asked: when the request was made.
    """

    token: str
    now: bool
    asked: str


class Start:
    """One start of a run in its own driver. A thread keeps its record fresh.

    The same thread looks for requests to stop, and passes them on as SIGINT: one to drain, two to stop at once.

    The record is the driver's claim on the run. A driver that was stopped for half a minute, by SIGSTOP or because its
    machine slept, is taken for dead, and the next start has a higher number. So whoever writes records calls `check`
    first. A call that was under way when the driver was stopped may still be completed later: the driver that holds the
    run compares MLflow, Optuna and its plan with what it knows once more at its end.

    Args:
        store: the store of the run.
        run: the name of the run.
        generation: the generation of its plan.
        say: a function that shows a line to the user.
        save_log: stores the log of the start with this number. It is called at each heartbeat and at the end.

    Raises:
        Refusal: if another driver is alive.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        generation: int,
        say: Callable[[str], None],
        save_log: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self.store, self._run, self._say, self._save_log = store, run, say, save_log
        self._pulse = store.impatient()
        self._previous = refuse_second(store, run, say)
        numbers = (int(name.partition(".")[0]) for name in store.records(f"runs/{run}/starts"))
        self.record = StartRecord(
            number=1 + max(numbers, default=-1),
            generation=generation,
            started=now(),
            outcome="running",
            host=platform.node(),
            pid=os.getpid(),
            token=secrets.token_hex(8),
            behind="the last start ended before MLflow and Optuna had all records",
        )
        self._ended, self._warned, self._superseded = threading.Event(), False, False
        self._renewal = threading.Lock()
        self._settle_previous(0)
        self._confirmed = _clock()
        self._write(store)
        _under_way.add(self.record.token)
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def begin(self, epochs_done: int, trained: Callable[[], int]) -> None:
        """Start counting epochs, and complete the count of a previous start that was killed.

        Args:
            epochs_done: how many of the plan's states need no training.
            trained: returns how many of these states the run has trained, in all its starts. A start that was killed
                may have trained epochs that its record does not count.
        """
        self.record.epochs_done = self.record.epochs_saved = epochs_done
        if self._previous is not None and self._previous.outcome == "running":
            self._settle_previous(trained())

    @property
    def superseded(self) -> bool:
        """Whether another driver has claimed the run, as far as this one knows."""
        return self._superseded

    @property
    def is_confirmed(self) -> bool:
        """Whether the last heartbeat reached the store."""
        return _clock() - self._confirmed <= LEASE_SECONDS

    def check(self) -> None:
        """Check that this driver still holds the run. The store is read only if the last heartbeat is too old.

        Raises:
            Superseded: if another driver has claimed it.
            Away: if the heartbeat is too old, and the store cannot be reached.
        """
        if _clock() - self._confirmed > LEASE_SECONDS and not self._ended.is_set():
            try:
                self._renew()
            except Away as error:  # shown as the reason why MLflow or Optuna is not written
                raise Away(f"the store cannot be used: {one_line(error)}") from None
        if self._superseded:
            raise Superseded(f"run {self._run!r} is being trained by another driver")

    def _settle_previous(self, trained: int) -> None:
        """Record that the previous start was killed, if its record still says that it is running."""
        last = self._previous
        if last is not None and last.outcome == "running":
            settled = replace(last, epochs_trained=self._trained(last, trained), outcome="killed", training=0)
            self.store.write_record(_path(self._run, last.number), asdict(settled))

    def _trained(self, record: StartRecord, trained: int) -> int:
        """Return the epochs that a start has trained: those that it has counted, or more if the store shows more.

        Args:
            record: of the start.
            trained: how many of the plan's states the run has trained, in all starts up to this one.
        """
        if trained > record.epochs_trained:
            before = [each for each in starts(self.store, self._run) if each.number < record.number]
            trained -= sum(each.epochs_trained for each in before if each.generation == record.generation)
        return max(record.epochs_trained, trained)

    def end(self, outcome: str, trained: int) -> None:
        """Record the outcome.

        Args:
            outcome: complete, failed, or interrupted.
            trained: how many of the plan's states the run has trained, in all its starts. Workers may have saved epochs
                that they could not report any more. 0 if all were reported.
        """
        try:
            self._end(outcome, trained)
        finally:
            _under_way.discard(self.record.token)

    def _end(self, outcome: str, trained: int) -> None:
        self._ended.set()
        self._thread.join()
        record = self.record
        with self._renewal:  # a thread that writes records may just be renewing this one
            with suppress(StudyError):  # the store is away
                record.epochs_trained = self._trained(record, trained)
            record.ended, record.outcome, record.training = now(), outcome, 0
            if not self._superseded:
                self._guarded(lambda: self._save_log(record.number))
                self._guarded(lambda: self._write(self.store))
                self._guarded(self._settle_late_heartbeat)

    def _settle_late_heartbeat(self) -> None:
        """Settle the previous start again if its driver, which was only stopped, wrote its record once more."""
        last = self._previous
        if last is not None and last.outcome == "running":
            self._previous = _read(self.store, _path(self._run, last.number))
            self._settle_previous(0)

    def _write(self, store: Store) -> None:
        record = asdict(replace(self.record, seen=now()))
        store.write_record(_path(self._run, self.record.number), record, durable=False)

    def _beat(self) -> None:
        signals = 0
        while not self._ended.wait(BEAT_SECONDS):
            self._guarded(self._renew)
            if not self._superseded:
                self._guarded(lambda: self._save_log(self.record.number))
            wanted = self._guarded(self._signals_wanted) or 0
            for _ in range(wanted - signals):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)  # two at once would be one
            signals = max(signals, wanted)

    def _renew(self) -> None:
        """Keep the record fresh. Stop if another driver has written a record, so that only that driver continues."""
        with self._renewal:
            began = _clock()
            is_late = began - self._confirmed > LEASE_SECONDS
            if not self._superseded and not self._has_yielded():
                self._write(self._pulse)
                # Until the record was fresh again, another driver could come.
                if not is_late or not self._has_yielded():
                    self._confirmed = began

    def _has_yielded(self) -> bool:
        """Stop this driver if another one has claimed the run since; return whether it has."""
        other = self._rival()
        if other is None:
            return False
        driver = f"another driver (process {other.pid} on {other.host})"
        self._say(f"run {self._run!r} is being trained by {driver}; this driver stops")
        self._superseded = True
        self._ended.set()
        os.kill(os.getpid(), signal.SIGINT)
        return True

    def _rival(self) -> StartRecord | None:
        """Return the record of another driver that has claimed the run since; None if there is none."""
        record = self.record
        stored, later = (_read(self._pulse, _path(self._run, number)) for number in (record.number, record.number + 1))
        return later or (stored if stored is not None and stored.token != record.token else None)

    def _signals_wanted(self) -> int:
        """Return how many SIGINT a request to stop calls for: none, one to drain, or two to stop at once."""
        request = None
        with suppress(Damaged, ValueError):  # a damaged request counts as none
            plain = self._pulse.read_record(_stop_path(self._run))
            request = None if plain is None else decoded(StopRequest, plain)
        if request is None or request.token != self.record.token:
            return 0
        return 2 if request.now else 1

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Run an action on the store. An unreachable or full store must not end training; the user is warned once."""
        try:
            return action()
        except Away as error:
            if not self._warned:
                self._warned = True
                reason = f"the store cannot be written ({one_line(error)})"
                self._say(f"{reason}; training continues until a state is to be saved, and then waits")
            return None


def starts(store: Store, run: str) -> list[StartRecord]:
    """Return the records of a run's starts, oldest first, except records that a crash left damaged."""
    folder = f"runs/{run}/starts"
    records = (_read(store, f"{folder}/{name}") for name in store.records(folder))
    return [record for record in records if record is not None]


def living(store: Store, runs: Collection[str]) -> dict[str, StartRecord]:
    """Return the records of the drivers that are alive, by run.

    A driver on another host writes its record every `BEAT_SECONDS`. Where the clocks leave open whether it lives, its
    record is watched for at most `WATCH_SECONDS`, those of all runs together.
    """
    records = {run: record for run in runs if (record := _last(store, run)) is not None}
    judged = {run: record.alive() for run, record in records.items()}
    changed = _watch(store, {run: record for run, record in records.items() if judged[run] is None}, WATCH_SECONDS)
    alive = {run: record for run, record in records.items() if judged[run]}
    return alive | {run: record for run, record in changed.items() if record.outcome == "running"}


def seems_alive(store: Store, run: str, token: str) -> bool:
    """Return whether the driver of a run's last start seems to live, and its start has this token. Never waits.

    Where the clocks leave it open, a driver seems to live until its record has not changed for `FRESH_SECONDS`.
    """
    record = _last(store, run)
    if record is None or record.token != token:
        return False
    alive, known_for = record.alive(), _known_for(record)
    return known_for < FRESH_SECONDS if alive is None else alive


def is_trained(store: Store) -> bool:
    """Return whether the driver of any run is alive."""
    return bool(living(store, store.records("runs")))


def request_stop(store: Store, run: str, at_once: bool) -> StartRecord:
    """Ask the driver of a run, on any machine, to stop. Return the record of its start.

    Args:
        store: the store of the run.
        run: the name of the run.
        at_once: whether to stop without letting workers finish their epoch.

    Raises:
        Refusal: if the run is not being trained.
    """
    record = living(store, [run]).get(run)
    if record is None:
        hint = "'study status' shows its progress"
        raise Refusal("run", run, f"run {run!r} is not being trained, so there is nothing to stop", hint)
    store.write_record(_stop_path(run), asdict(StopRequest(record.token, at_once, now())))
    return record


def refuse_second(store: Store, run: str, say: Callable[[str], None], briefly: bool = False) -> StartRecord | None:
    """Check that no driver of a run is alive, and return its last start. Correctness does not depend on this.

    No clock decides about a driver on another host: it is alive if its record changes within `FRESH_SECONDS`. Seconds
    in which this process knew the record already count, so that a second check does not wait again.

    Args:
        store: the store of the run.
        run: the name of the run.
        say: a function that shows a line to the user, who may have to wait.
        briefly: watch for `WATCH_SECONDS` only, and no very old record, because the run does not start here and now.

    Raises:
        Refusal: if the driver of the last start is alive.
    """
    last = _last(store, run)
    if last is None or last.outcome != "running":
        return last
    alive, driver = last.alive(), f"process {last.pid} on {last.host}"
    if not last.is_here() and not (briefly and alive is False):
        seconds = WATCH_SECONDS if briefly else FRESH_SECONDS
        if _known_for(last) < seconds:
            say(f"{driver} may still train run {run!r}: waiting at most {seconds:g} s for a sign of it")
        changed = _watch(store, {run: last}, seconds).get(run)
        last = changed or last
        alive = changed is not None and changed.outcome == "running"
    if alive:
        driver = f"process {last.pid} on {last.host} (since {last.started[:19]})"
        hint = f"Wait for it, or stop it with 'study stop {run}{_option(store)}'"
        if last.is_here() and last.pid != os.getpid() and last.age() > FRESH_SECONDS:
            hint = f"It does not write into the store: wait for it, or stop it with 'kill -INT {last.pid}'"
        raise Refusal("run", run, f"run {run!r} is being trained by {driver}", hint)
    return last


def _last(store: Store, run: str) -> StartRecord | None:
    """Return the record of a run's last start, except records that a crash left damaged; None if there is none."""
    folder = f"runs/{run}/starts"
    records = (_read(store, f"{folder}/{name}") for name in reversed(store.records(folder)))
    return next((record for record in records if record is not None), None)


def _watch(store: Store, records: Mapping[str, StartRecord], seconds: float) -> dict[str, StartRecord]:
    """Return the last starts of the runs whose records change before this process has known them for some seconds."""
    changed: dict[str, StartRecord] = {}
    waiting = dict(records)
    while waiting := {run: record for run, record in waiting.items() if _known_for(record) < seconds}:
        time.sleep(LOOK_SECONDS)
        for run, record in waiting.items():
            later = _last(store, run)
            if later is not None and later != record:
                changed[run] = later
        waiting = {run: record for run, record in waiting.items() if run not in changed}
    return changed


def _known_for(record: StartRecord) -> float:
    """Return for how many seconds this process has known a record that it has just read, as it is."""
    seen, since = _sightings.get(record.token, ("", 0.0))
    if seen != record.seen:
        _sightings[record.token] = record.seen, time.monotonic()
        return 0.0
    return time.monotonic() - since


def _read(store: Store, path: str) -> StartRecord | None:
    """Return a start's record. A damaged record counts as absent and is written again."""
    with suppress(Damaged, ValueError):
        plain = store.read_record(path)
        return None if plain is None else decoded(StartRecord, plain)
    return None


def _exists(pid: int) -> bool:
    """Return whether a process of this machine exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _clock() -> float:
    """Return seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


def _option(store: Store) -> str:
    """Return the option that names a store, for the commands that a message suggests."""
    return "" if Path(store.url) == Path("studies/store").absolute() else f" --store {as_argument(store.shown)}"


def _path(run: str, number: int) -> str:
    return f"runs/{run}/starts/{number:05d}.json"


def _stop_path(run: str) -> str:
    return f"runs/{run}/stop.json"


def now() -> str:
    """Return the present time in the format of records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
