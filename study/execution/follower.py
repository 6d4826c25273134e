"""A thread that keeps a service up to date while the training runs, in order, and retries during an outage."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from study.errors import one_line

Task = Callable[[], None]

RETRY_SECONDS = 1.0  # until the first new try; doubled by each further one
LONGEST_RETRY_SECONDS = 30.0
ABANDON_SECONDS = 10.0  # for the task under way, such as a model's, and the last one
_LONGEST_REASON = 300  # characters; a proxy may answer with a page


class Follower:
    """Executes tasks one after the other in a separate thread. While its service is unavailable, it retries the task.

    So tasks must be idempotent. An outage only causes a line to the user, and so does a record that the service does
    not take: it is left out, and those after it follow. Any other error is raised in the driver's thread, by `check` or
    `close`.

    Args:
        service: the service's name.
        is_outage: returns whether an error means that the service is unavailable, or does not let us in.
        is_rejection: returns whether an error means that the service will never take this record.
        say: prints a line to the user.
        meanwhile: the end of the line about an outage: what happens until the service is available again.
    """

    def __init__(
        self,
        service: str,
        is_outage: Callable[[BaseException], bool],
        say: Callable[[str], None],
        meanwhile: str,
        is_rejection: Callable[[BaseException], bool] = lambda _: False,
    ) -> None:
        self._service, self._is_outage, self._say, self._meanwhile = service, is_outage, say, meanwhile
        self._is_rejection = is_rejection
        self.away = ""  # the reason of the present outage, or ""
        self.rejected = ""  # the reason why the service did not take a record, or ""
        self._error: BaseException | None = None
        self._abandoned = False
        self._last: Task | None = None  # when it was abandoned
        self._tried, self._closing, self._deadline = threading.Event(), threading.Event(), 0.0
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=service, daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Add a task, which is executed after those added before it."""
        self._queue.put(task)

    def check(self, wait: bool = False) -> None:
        """Raise the error that a task raised, if any. With `wait`, first wait until the first task has been tried."""
        if wait:
            self._tried.wait()
        if self._error is not None:
            raise self._error

    def close(self, patience: float) -> str:
        """Wait until all tasks are done.

        Args:
            patience: the most seconds to wait while the service is unavailable.

        Returns:
            The reason why the service does not have all records, or "" if it does.
        """
        self._deadline = time.monotonic() + patience
        self._queue.put(None)
        self._closing.set()
        self._thread.join()
        self.check()
        return self.away or self.rejected

    def abandon(self, last: Task | None = None) -> None:
        """End without the tasks that are left, because the start has failed.

        Args:
            last: a task that is still tried once, unless the service is unavailable or a task has failed.
        """
        self._last, self._abandoned = last, True
        self._closing.set()
        self._queue.put(None)
        self._thread.join(ABANDON_SECONDS)

    def _work(self) -> None:
        self._work_through()
        if self._abandoned and self._last is not None and self._tried.is_set() and not (self.away or self._error):
            self._done(self._last)

    def _work_through(self) -> None:
        while (task := self._queue.get()) is not None and not self._abandoned:
            delay = RETRY_SECONDS
            while not self._done(task):
                if self._closing.is_set():
                    if time.monotonic() > self._deadline:
                        return
                    time.sleep(min(RETRY_SECONDS, max(0.0, self._deadline - time.monotonic())))
                else:
                    self._closing.wait(delay)
                    delay = min(2 * delay, LONGEST_RETRY_SECONDS)
            self._tried.set()
            if self._error is not None:
                return

    def _done(self, task: Task) -> bool:
        try:
            task()
        except BaseException as error:  # noqa: BLE001  `check` or `close` raises it again in the driver's thread
            reason = one_line(_first_cause(error))
            reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
            if self._is_rejection(error):
                if not self.rejected:
                    self._say(f"{self._service} does not take a record ({reason}): it is left out")
                self.rejected = reason
                return True
            if not self._is_outage(error):
                self._error = error
                return True
            if not self.away:
                self.away = reason
                self._say(f"{self._service} is unavailable ({reason}): {self._meanwhile}")
            self._tried.set()
            return False
        if self.away:
            self.away = ""
            self._say(f"{self._service} is available again and catches up")
        return True


def _first_cause(error: BaseException) -> BaseException:
    """Return the error that others wrap: their messages do not name the reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
