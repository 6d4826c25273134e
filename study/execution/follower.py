"""A thread that keeps a service up to date: in order, behind the training, and patient while the service is away."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from study.errors import one_line

Task = Callable[[], None]

RETRY_SECONDS = 2.0


class Follower:
    """Does tasks one after the other in a thread of its own; while its service is away, it does the same one again.

    So a task must be one that can be done twice. An outage costs nothing but a line to the user; any other error is
    raised in the driver's thread, by `check` or `close`.

    Args:
        service: what it is called.
        is_outage: whether an error means that the service is away.
        say: says a line to the user.
        meanwhile: what the line says of the time until the service is back.
    """

    def __init__(
        self, service: str, is_outage: Callable[[BaseException], bool], say: Callable[[str], None], meanwhile: str
    ) -> None:
        self._service, self._is_outage, self._say, self._meanwhile = service, is_outage, say, meanwhile
        self.away = ""  # why, while it is
        self._error: BaseException | None = None
        self._tried, self._closing, self._deadline = threading.Event(), threading.Event(), 0.0
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=service, daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Let a task be done, after those before it."""
        self._queue.put(task)

    def check(self, wait: bool = False) -> None:
        """Raise what a task raised; with `wait`, once the first task has been tried."""
        if wait:
            self._tried.wait()
        if self._error is not None:
            raise self._error

    def close(self, patience: float) -> str:
        """Wait until all is done; while the service is away, so many seconds at most.

        Returns:
            Why it is behind, or "" if it is not.
        """
        self._deadline = time.monotonic() + patience
        self._queue.put(None)
        self._closing.set()
        self._thread.join()
        self.check()
        return self.away

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            while not self._done(task):
                if self._closing.is_set() and time.monotonic() > self._deadline:
                    return
                self._closing.wait(RETRY_SECONDS)
                if self._closing.is_set():
                    time.sleep(min(RETRY_SECONDS, max(0.0, self._deadline - time.monotonic())))
            self._tried.set()
            if self._error is not None:
                return

    def _done(self, task: Task) -> bool:
        try:
            task()
        except BaseException as error:  # noqa: BLE001  raised again by `check` or `close`, in the driver's thread
            if not self._is_outage(error):
                self._error = error
                return True
            if not self.away:
                self.away = one_line(error.__cause__ or error)  # a wrapper's words are its own
                self._say(f"{self._service} is behind ({self.away}): {self._meanwhile}")
            self._tried.set()
            return False
        if self.away:
            self.away = ""
            self._say(f"{self._service} is back, and catches up")
        return True
