"""Requests to stop: by a signal, or because the run cannot go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType


@dataclass
class Drain:
    """The request to stop: workers finish their epoch and save, and no further stage is started.

    Attributes:
        requested: whether it was made.
        reason: why, if not by the user.
    """

    requested: bool = False
    reason: str = ""


@contextmanager
def interruptible(drain: Drain, say: Callable[[str], None]) -> Iterator[None]:
    """Request a drain on the first SIGINT, SIGTERM or SIGHUP within the context.

    A further SIGINT or SIGTERM raises KeyboardInterrupt. A further SIGHUP does nothing, because a terminal that closes
    may send several. A SIGHUP that is ignored (``nohup``) stays ignored.
    """
    # A thread prints, since a signal may come while this one prints, and Python refuses a write within a write.
    lines: SimpleQueue[str | None] = SimpleQueue()

    def print_lines() -> None:
        for line in iter(lines.get, None):
            say(line)

    def handle(number: int, _frame: FrameType | None) -> None:
        if drain.requested:
            if number != signal.SIGHUP:
                raise KeyboardInterrupt
            return
        drain.requested = True
        at_once = "A second Ctrl-C or 'study stop --now' stops at once"
        lines.put(f"stopping: workers finish their epoch and save. {at_once}")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    printer = threading.Thread(target=print_lines, name="print signals", daemon=True)
    printer.start()
    earlier_handlers = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier_handlers.items():
            signal.signal(number, handler)
        lines.put(None)
        printer.join()
