"""The progress of training: a live bar, one line of a notebook that is rewritten, or plain lines.

The bar and the plain lines are written to stderr.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.store.logs import Log

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_SECONDS = 10.0  # between two plain lines
REWRITE_SECONDS = 0.5  # between two versions of a notebook's line
LOG_SECONDS = 60.0  # between two lines of the log


@dataclass
class Counts:
    """What is done of what is expected.

    Attributes:
        trained: epochs that this start has trained.
        epochs: `trained`, and the epochs that are still expected.
        complete, replicates: replicates that have ended, and all that are expected.
        failed: replicates that failed.
        points: the open searches' points that have ended or failed, and all that are expected.
        best: the best value so far of the study's first objective, and its trial's label.
    """

    trained: int = 0
    epochs: int = 0
    complete: int = 0
    replicates: int = 0
    failed: int = 0
    points: tuple[int, int] = (0, 0)
    best: tuple[float, str] | None = None

    def __str__(self) -> str:
        words = [f"{self.trained}/{self.epochs} epochs"]
        if self.points[1]:
            words.append(f"{self.points[0]}/{self.points[1]} points")
        words.append(f"{self.complete}/{self.replicates} replicates")
        if self.failed:
            words.append(f"{self.failed} failed")
        if self.best is not None:
            words.append(f"best so far {self.best[0]:.1f} ({self.best[1]})")
        return ", ".join(words)


class Progress:
    """Shows counts and the time left.

    Args:
        shown: whether to show them; if not, only problems are printed.

    Attributes:
        log: the lines, also those that are not shown, and the counts now and then.
    """

    def __init__(self, shown: bool = True) -> None:
        self._counts = Counts()
        self._shown = shown
        self._line = self._logged = time.monotonic()
        self.log = Log()
        self._expected = False  # whether there is something to train
        self._began: tuple[float, int] | None = None  # when the first epochs came, and how many
        self._bar: Bar | None = None
        self._cell: Any = None  # IPython's handle of the notebook's line
        if in_notebook():  # Optuna's and Ray's imports ask for widgets that nothing here uses
            warnings.filterwarnings("ignore", message="IProgress not found")
            logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)

    def begin(self, counts: Counts) -> None:
        """Begin to show counts, which may change; `update` shows them again."""
        self._counts = counts
        self._expected = bool(counts.epochs or counts.complete < counts.replicates)
        if not self._shown or not self._expected:
            return
        if in_notebook():
            from IPython.display import Pretty, display

            self._cell = display(Pretty("starting Ray"), display_id=True)
        elif sys.stderr.isatty():
            self._bar = _bar(self._now)
            self._task = self._bar.add_task("", total=counts.epochs)
            self._bar.start()

    def update(self) -> None:
        """Show the counts, unless plain lines or a notebook showed them just now."""
        counts = self._counts
        if counts.trained and self._began is None:
            self._began = (time.monotonic(), counts.trained)
        if self._bar is not None:
            self._bar.update(self._task, completed=counts.trained, total=counts.epochs)
        elif self._shown and time.monotonic() - self._line > (REWRITE_SECONDS if self._cell else LINE_SECONDS):
            self._line = time.monotonic()
            self._rewrite(self._now())
        if time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            self.log.add(self._now())

    def note(self, line: str) -> None:
        """Print a line, unless progress is hidden."""
        self.log.add(line)
        if self._shown:
            self._print(line)

    def say(self, line: str) -> None:
        """Print a line."""
        self.log.add(line)
        self._print(line)

    def _print(self, line: str) -> None:
        with suppress(OSError):  # the terminal has gone, and training must not end for it
            if self._bar is not None:
                self._bar.console.print(line, highlight=False, markup=False)
            else:
                print(line, file=sys.stdout if in_notebook() else sys.stderr, flush=True)

    def close(self) -> None:
        """Show the last count, and restore the terminal."""
        if self._expected:
            self.log.add(str(self._counts))
            self._expected = False
        if self._bar is not None:
            self._bar.update(self._task, completed=self._counts.trained, total=self._counts.epochs)
            with suppress(OSError):  # the terminal has gone
                self._bar.stop()
            self._bar = None
        elif self._cell is not None:
            self._rewrite(str(self._counts))
            self._cell = None

    def _rewrite(self, line: str) -> None:
        if self._cell is None:
            self._print(line)
        else:
            from IPython.display import Pretty

            self._cell.update(Pretty(line))

    def _now(self) -> str:
        """Return the counts with the time left. The bar asks for them again and again, also while a search waits."""
        counts, (began, first) = self._counts, self._began or (0.0, 0)
        if self._bar is not None and not counts.trained and not counts.complete:
            return f"{counts}, starting"
        if counts.trained == first or counts.trained >= counts.epochs:
            return str(counts)
        seconds = (time.monotonic() - began) / (counts.trained - first) * (counts.epochs - counts.trained)
        return f"{counts}, about " + (f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left")


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def _bar(line: Callable[[], str]) -> Bar:
    """Return a bar with a line beside it, which is made again at each of the bar's refreshes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:  # noqa: ARG002
            return Text(line())

    return Progress(BarColumn(), Line(), console=Console(stderr=True))
