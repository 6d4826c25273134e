"""The logs of a run as text: what its drivers printed, and why a trial's replicates failed. Only the store is read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

from study.errors import Refusal
from study.planning.stored import Plan, PlannedTrial
from study.store import records, starts
from study.store.logs import LoggedFailure, StartLog, logs
from study.store.starts import StartRecord
from study.store.states import Store

FOLLOW_SECONDS = 1.0  # between two readings of the store


def lines(store: Store, run: str) -> list[str]:
    """Return the lines of all starts, each start with a heading."""
    return list(_Reader(store, run).new(starts.living(store, [run]).get(run)))


def follow(store: Store, run: str) -> Iterator[str]:
    """Yield the lines of all starts, and further ones as they come, until the driver of the run has ended."""
    reader = _Reader(store, run)
    while True:
        driver = starts.living(store, [run]).get(run)  # read before the lines: the last lines come before the end
        yield from reader.new(driver)
        if driver is None:
            return
        time.sleep(FOLLOW_SECONDS)


def failures(store: Store, plan: Plan, trials: Sequence[PlannedTrial], wanted: str) -> str:
    """Return why replicates of a trial failed, with their tracebacks, the last failure at the end.

    Args:
        store, plan: of the run.
        trials: the trials to search.
        wanted: a part of the trial's name that no other trial has, and perhaps the number of a replicate: ``NAME r1``.

    Raises:
        Refusal: if there is no such trial, or there are several.
    """
    trial, number = _trial(trials, wanted)
    logged = [
        (replicate, failure)
        for log in logs(store, plan.run).values()
        for failure in log.failures
        for replicate in failure.replicates
    ]
    known = {(replicate, failure.reason) for replicate, failure in logged}
    recorded = [
        (replicate, LoggedFailure("", "", failure.reason, failure.traceback, (replicate,)))
        for replicate, failure in records.given_up(store, plan).items()
        if (replicate, failure.reason) not in known  # refused points, and what the log no longer keeps
    ]
    texts = [
        _failure_text(replicate, failure)
        for replicate, failure in (*recorded, *logged)
        if replicate[0] == trial.name and number in (None, replicate[1])
    ]
    return "\n\n".join(texts) or f"no failure of {wanted!r} is stored"


def _trial(trials: Sequence[PlannedTrial], wanted: str) -> tuple[PlannedTrial, int | None]:
    """Return the trial that a text names, and the number of the replicate, if the text has one."""
    name, number = wanted, None
    ending = re.fullmatch(r"(.*\S)\s+r(\d+)", wanted)
    if ending and not _named(trials, wanted):
        name, number = ending[1], int(ending[2])
    matches = _named(trials, name)
    if len(matches) != 1:
        shown = [trial.name for trial in matches or trials]
        names = ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
        problem = "is a part of several trials' names" if matches else "is a part of no trial's name"
        raise Refusal("trial", name, f"{name!r} {problem}: {names}")
    (trial,) = matches
    if number is not None and number not in trial.by_replicate:
        numbers = ", ".join(map(str, trial.by_replicate))
        raise Refusal("replicate", number, f"must be one of the replicates of {trial.name!r}: {numbers}")
    return trial, number


def _named(trials: Sequence[PlannedTrial], name: str) -> list[PlannedTrial]:
    """Return the trials with this name, label or row, or else those whose name contains it."""
    exact = [trial for trial in trials if name in (trial.name, trial.label, trial.trial.row)]
    return exact or [trial for trial in trials if name in trial.name]


def _failure_text(replicate: tuple[str, int], failure: LoggedFailure) -> str:
    where = f" on {failure.host}" if failure.host else ""
    when = f"{_shown(failure.time)}  " if failure.time else ""
    heading = f"{when}{replicate[0]} r{replicate[1]}{where}: {failure.reason}"
    return f"{heading}\n{failure.traceback.rstrip()}" if failure.traceback else heading


class _Reader:
    """Reads the logs of a run again and again, and returns the lines that are new."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._seen: dict[int, int] = {}  # lines by start

    def new(self, driver: StartRecord | None) -> Iterator[str]:
        """Yield the lines since the last call; `driver` is the start that is alive, if there is one."""
        stored = logs(self._store, self._run)
        for start in starts.starts(self._store, self._run):
            log = stored.get(start.number, StartLog())
            if start.number not in self._seen:
                yield _heading(start, driver)
            seen = max(self._seen.get(start.number, 0), log.dropped)
            if seen > self._seen.get(start.number, 0):
                yield f"… {seen - self._seen.get(start.number, 0)} lines are no longer stored"
            self._seen[start.number] = max(seen, log.dropped + len(log.lines))  # a log may be unreadable for a moment
            for line in log.lines[max(0, seen - log.dropped) :]:
                yield f"{_shown(line.time)}  {line.text}"


def _heading(start: StartRecord, driver: StartRecord | None) -> str:
    state = start.outcome
    if state == "running" and (driver is None or driver.token != start.token):
        state = "killed"
    return f"start {start.number}: process {start.pid} on {start.host}, from {_shown(start.started)} UTC, {state}"


def _shown(moment: str) -> str:
    return moment[:19].replace("T", " ")
