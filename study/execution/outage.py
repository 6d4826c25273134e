"""The store while workers cannot use it: whether it is away for all of them, or for some machines only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

ONLY_SECONDS = 60.0  # for which a worker waits for the store while the driver can use it


@dataclass
class _Wait:
    reason: str
    since: float
    tries: int = 0


class Outage:
    """The trials whose workers wait for the store.

    Args:
        can_save: tries whether the driver can write something as large as a state into the store.

    Attributes:
        reason: why the store cannot be used; "" if it can. If the workers that waited have ended, the reason stays
            until another one can use the store.
    """

    def __init__(self, can_save: Callable[[], bool]) -> None:
        self._can_save = can_save
        self._waits: dict[str, _Wait] = {}  # by trial
        self._next_probe = 0.0
        self._tries: dict[str, int] = {}  # by trial: its tries since when the driver can save
        self.reason = ""

    def __contains__(self, trial: str) -> bool:
        """Return whether the worker of a trial waits."""
        return trial in self._waits

    def report(self, trial: str, waits_for: str) -> None:
        """Note a worker's report.

        Args:
            trial: its trial.
            waits_for: why it cannot use the store; "" if it does not wait.
        """
        if waits_for:
            wait = self._waits.setdefault(trial, _Wait(waits_for, time.monotonic()))
            wait.reason = self.reason = waits_for
            wait.tries += 1
        elif trial in self._waits:
            del self._waits[trial]
            self.work()

    def work(self) -> None:
        """Note that a worker has used the store."""
        if not self._waits:
            self.reason = ""

    def end(self, trial: str) -> None:
        """Forget a trial that has ended."""
        self._waits.pop(trial, None)

    def only(self) -> dict[str, str]:
        """Return the trials that have waited long for the store, although the driver can save, with the reasons.

        They have tried again since the driver could: one try may have begun before.
        """
        now = time.monotonic()
        late = {trial: wait for trial, wait in self._waits.items() if now - wait.since > ONLY_SECONDS}
        if late and now >= self._next_probe:
            self._next_probe = now + ONLY_SECONDS
            can_save, before = self._can_save(), self._tries
            self._tries = {trial: before.get(trial, wait.tries) for trial, wait in late.items()} if can_save else {}
        return {trial: wait.reason for trial, wait in late.items() if wait.tries > self._tries.get(trial, math.inf) + 1}
