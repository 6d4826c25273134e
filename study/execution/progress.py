"""The progress of training: a live bar, one line of a notebook that is rewritten, or plain lines.

The bar and the plain lines are written to stderr.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_SECONDS = 10.0  # between two plain lines
REWRITE_SECONDS = 0.5  # between two versions of a notebook's line


class Progress:
    """Epochs, replicates, the best trial so far and the time left.

    Args:
        shown: whether to show them; if not, only problems are printed.
    """

    def __init__(self, shown: bool = True) -> None:
        self.epochs, self.trained = 0, 0
        self.complete, self.replicates = 0, 0
        self.best: tuple[float, str] | None = None
        self._shown = shown
        self._line = time.monotonic()
        self._began: tuple[float, int] | None = None  # when the first epochs came, and how many
        self._bar: Bar | None = None
        self._cell: Any = None  # IPython's handle of the notebook's line
        if in_notebook():  # Optuna's and Ray's imports ask for widgets that nothing here uses
            warnings.filterwarnings("ignore", message="IProgress not found")
            logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)

    def begin(self, epochs: int, replicates: tuple[int, int]) -> None:
        """Begin to show progress.

        Args:
            epochs: to be trained.
            replicates: complete, of how many.
        """
        self.epochs, (self.complete, self.replicates) = epochs, replicates
        if not self._shown or not (epochs or self.complete < self.replicates):
            return
        if in_notebook():
            from IPython.display import Pretty, display

            self._cell = display(Pretty("starting Ray"), display_id=True)
        elif sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("starting Ray", total=epochs)
            self._bar.start()

    def expect(self, epochs: int, replicates: int) -> None:
        """Add epochs to the number to train, and set the number of the run's replicates."""
        self.epochs, self.replicates = self.epochs + epochs, replicates
        if self._bar is not None:
            self._bar.update(self._task, total=self.epochs)

    def train(self, epochs: int) -> None:
        """Count epochs that have been trained."""
        self.trained += epochs
        self._began = self._began or (time.monotonic(), self.trained)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.trained, description=self._words())
        elif self._shown and time.monotonic() - self._line > (REWRITE_SECONDS if self._cell else LINE_SECONDS):
            self._line = time.monotonic()
            self._rewrite(self._left())

    def end(self, value: float, label: str) -> None:
        """Count a complete replicate. Its value is compared with the best one only if there is a label."""
        self.complete += 1
        if label and (self.best is None or value > self.best[0]):
            self.best = (value, label)

    def note(self, line: str) -> None:
        """Print a line, unless progress is hidden."""
        if self._shown:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stdout if in_notebook() else sys.stderr, flush=True)

    def close(self) -> None:
        """Show the last count, and restore the terminal."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.trained, description=self._words())
            self._bar.stop()
            self._bar = None
        elif self._cell is not None:
            self._rewrite("")
            self._cell = None

    def _rewrite(self, left: str) -> None:
        line = f"{self.trained}/{self.epochs} epochs, {self._words()}{left}"
        if self._cell is None:
            self.say(line)
        else:
            from IPython.display import Pretty

            self._cell.update(Pretty(line))

    def _words(self) -> str:
        words = f"{self.complete}/{self.replicates} replicates"
        return words if self.best is None else f"{words}, best so far {self.best[0]:.1f} ({self.best[1]})"

    def _left(self) -> str:
        began, first = self._began or (time.monotonic(), 0)
        if self.trained == first:
            return ""
        seconds = (time.monotonic() - began) / (self.trained - first) * (self.epochs - self.trained)
        return ", about " + (f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left")


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )
