"""Which workers have not reported for too long: their process is stopped, or waits for a dead disk or a lost rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

SAY_TIMES, SAY_SECONDS = 3, 30.0  # of the longest report seen, and at least so long: the user is told
REPLACE_TIMES, REPLACE_SECONDS = 10, 180.0  # then the stage is given to another worker; S3's own patience is 120 s
# Before the first report of a process, or of a kind of stages: it may import for long, or decode a million images.
FIRST_SAY_SECONDS, FIRST_REPLACE_SECONDS = 300.0, 7200.0
START_SAY_SECONDS, START_REPLACE_SECONDS = 120.0, 900.0  # for a process that starts: its imports may be on a slow disk
GAP_SECONDS = 10.0  # between two looks, in which this process was itself stopped or blocked


@dataclass
class _Worker:
    kind: Hashable
    process: str  # "" while it starts
    since: float
    said: bool = False


@dataclass(frozen=True)
class Silent:
    """A worker that has not reported for long.

    Attributes:
        trial: its trial.
        seconds: for how long it has not reported, or has been starting.
        left: the seconds until it is replaced; 0 or less if that is due.
    """

    trial: str
    seconds: float
    left: float


class Silence:
    """The time since each worker's last report, against the longest that stages of the same kind have needed so far.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._workers: dict[str, _Worker] = {}
        self._longest: dict[Hashable, float] = {}
        self._warm: set[str] = set()  # processes that have reported
        self._looked = clock()

    def __contains__(self, trial: str) -> bool:
        """Return whether a trial has begun and not ended."""
        return trial in self._workers and bool(self._workers[trial].process)

    def start(self, trial: str) -> None:
        """Note that the process of a trial is being started, or prepared for another stage."""
        if trial not in self._workers:
            self._workers[trial] = _Worker("", "", self._clock())

    def begin(self, trial: str, kind: Hashable, process: str) -> None:
        """Note that a process trains a trial of some kind."""
        self._workers[trial] = _Worker(kind, process, self._clock())

    def report(self, trial: str, waits: bool = False) -> None:
        """Note a worker's report. One that waits for the store is not slow, and sets no example."""
        worker = self._workers.get(trial)
        if worker is not None:
            now = self._clock()
            if worker.process in self._warm and not waits:
                self._longest[worker.kind] = max(self._longest.get(worker.kind, 0.0), now - worker.since)
            self._warm.add(worker.process)
            worker.since, worker.said = now, False

    def end(self, trial: str) -> None:
        """Forget a trial that has ended."""
        self._workers.pop(trial, None)

    def look(self, counts: bool = True, hurries: bool = False) -> list[Silent]:
        """Return the workers that the user must be told of, once each, and those that must be replaced.

        Args:
            counts: whether the time since the last look counts. It does not while the store is away, for which workers
                wait, nor if this process itself was stopped meanwhile.
            hurries: whether the run is to stop. A worker that has reported before is then waited for only until the
                user would be told of it.
        """
        now = self._clock()
        gap, self._looked = now - self._looked, now
        if gap > GAP_SECONDS or not counts:
            for worker in self._workers.values():
                worker.since = min(now, worker.since + gap)
        silent = []
        for trial, worker in self._workers.items():
            seconds, (say, replace) = now - worker.since, self._limits(worker, hurries)
            if seconds > replace or (seconds > say and not worker.said):
                worker.said = True
                silent.append(Silent(trial, seconds, replace - seconds))
        return silent

    def _limits(self, worker: _Worker, hurries: bool) -> tuple[float, float]:
        """Return the seconds after which the user is told of a worker, and those after which it is replaced."""
        if not worker.process:
            return START_SAY_SECONDS, START_REPLACE_SECONDS
        longest = self._longest.get(worker.kind)
        if longest is None or worker.process not in self._warm:
            return FIRST_SAY_SECONDS, FIRST_REPLACE_SECONDS
        say, replace = max(SAY_SECONDS, SAY_TIMES * longest), max(REPLACE_SECONDS, REPLACE_TIMES * longest)
        return say, say if hurries else replace
