"""What the user sees while a run is trained: a live view on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_SECONDS = 10.0


class Progress:
    """Epochs, replicates, the best trial so far and the time left."""

    def __init__(self) -> None:
        self.epochs, self.trained = 0, 0
        self.complete, self.replicates = 0, 0
        self.best: tuple[float, str] | None = None
        self._line = time.monotonic()
        self._began: tuple[float, int] | None = None  # when the first epochs came, and how many
        self._bar: Bar | None = None

    def begin(self, epochs: int, replicates: tuple[int, int]) -> None:
        """So many epochs are to be trained; replicates: complete, of how many."""
        self.epochs, (self.complete, self.replicates) = epochs, replicates
        if sys.stderr.isatty() and (epochs or self.complete < self.replicates):
            self._bar = _bar()
            self._task = self._bar.add_task("starting Ray", total=epochs)
            self._bar.start()

    def expect(self, epochs: int, replicates: int) -> None:
        """So many more epochs are to be trained, and the run has so many replicates now."""
        self.epochs, self.replicates = self.epochs + epochs, replicates
        if self._bar is not None:
            self._bar.update(self._task, total=self.epochs)

    def train(self, epochs: int) -> None:
        """So many more epochs have been trained."""
        self.trained += epochs
        self._began = self._began or (time.monotonic(), self.trained)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.trained, description=self._words())
        elif time.monotonic() - self._line > LINE_SECONDS:
            self._line = time.monotonic()
            self.say(f"{self.trained}/{self.epochs} epochs, {self._words()}{self._left()}")

    def end(self, value: float, label: str) -> None:
        """A replicate is complete, with this value of its objective; without a label, it is not compared."""
        self.complete += 1
        if label and (self.best is None or value > self.best[0]):
            self.best = (value, label)

    def say(self, line: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.trained, description=self._words())
            self._bar.stop()
            self._bar = None

    def _words(self) -> str:
        words = f"{self.complete}/{self.replicates} replicates"
        return words if self.best is None else f"{words}, best so far {self.best[0]:.1f} ({self.best[1]})"

    def _left(self) -> str:
        began, first = self._began or (time.monotonic(), 0)
        if self.trained == first:
            return ""
        seconds = (time.monotonic() - began) / (self.trained - first) * (self.epochs - self.trained)
        return ", about " + (f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left")


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
