"""The logs of a run: for each start, the lines that its driver printed and the failures of stages. Without secrets."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from study.decoding import decoded
from study.errors import Damaged
from study.masking import masked
from study.store.starts import now
from study.store.states import Store

LINES = 2000  # of a start that are kept: the last ones
FAILURES = 100  # of a start that are kept: the last ones
_LONGEST = 10_000  # characters of a line or a traceback

Replicate = tuple[str, int]  # a trial's name in its plan, and the replicate's number


@dataclass(frozen=True)
class Line:
    """A line that a driver printed, and when."""

    time: str
    text: str


@dataclass(frozen=True)
class LoggedFailure:
    """The failure of a stage, also if the next start tries the stage again.

    Attributes:
        time: when the driver noticed it.
        host: the machine on which the stage was trained, or "".
        reason: the reason in one line.
        traceback: the worker's traceback, or "".
        replicates: the replicates that needed the stage.
    """

    time: str
    host: str
    reason: str
    traceback: str
    replicates: tuple[Replicate, ...]


@dataclass(frozen=True)
class StartLog:
    """The stored log of a start.

    Attributes:
        lines, failures: the last ones.
        dropped: how many earlier lines are no longer kept.
    """

    lines: tuple[Line, ...] = ()
    failures: tuple[LoggedFailure, ...] = ()
    dropped: int = 0


class Log:
    """The log of one start. It is kept in memory, also by several threads, until `save` stores it."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=LINES)
        self._failures: deque[LoggedFailure] = deque(maxlen=FAILURES)
        self._count, self._additions, self._saved = 0, 0, 0
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        """Add a line."""
        line = Line(now(), _shortened(text))
        with self._lock:
            self._lines.append(line)
            self._count += 1
            self._additions += 1

    def fail(self, replicates: Iterable[Replicate], reason: str, traceback: str, host: str) -> None:
        """Add the failure of a stage that replicates needed."""
        failure = LoggedFailure(now(), host, _shortened(reason), _shortened(traceback), tuple(replicates))
        with self._lock:
            self._failures.append(failure)
            self._additions += 1

    def save(self, store: Store, run: str, number: int) -> None:
        """Store the log as that of a run's start, if something was added since it was stored last."""
        with self._lock:
            additions, lines = self._additions, tuple(self._lines)
            log = StartLog(lines, tuple(self._failures), self._count - len(lines))
        if additions != self._saved:
            store.write_record(f"runs/{run}/logs/{number:05d}.json", asdict(log), durable=False)
            self._saved = additions


def logs(store: Store, run: str) -> dict[int, StartLog]:
    """Return the logs of a run's starts by the start's number, oldest first. Starts of version 0.2 have none."""
    stored = {}
    for name in store.records(f"runs/{run}/logs"):
        with suppress(Damaged, ValueError):  # as after a power cut: the log of a start is lost
            record = store.read_record(f"runs/{run}/logs/{name}")
            if record is not None:
                stored[int(name.partition(".")[0])] = decoded(StartLog, record)
    return stored


def _shortened(text: str) -> str:
    """Return a text without secrets; of a long one, the beginning and the end."""
    text = masked(text)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}\n… {len(text) - 2 * half} characters …\n{text[-half:]}"
