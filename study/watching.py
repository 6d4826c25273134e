"""The status of runs as text, once or until they end. Only the store is read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from study.store import records, starts
from study.store.states import Store
from study.store.status import Status

SECONDS = 2.0  # between two readings of the store


@dataclass(frozen=True)
class Statuses:
    """What a store shows of a run, or of every run.

    Attributes:
        statuses: the status of each run, the newest last.
        text: all of it, for people.
    """

    statuses: list[Status]
    text: str

    @classmethod
    def of(cls, store: Store, run: str | None) -> Statuses:
        """Read the status of a run, or of every run."""
        plans = records.all_plans(store) if run is None else [records.find(store, run)[0]]
        alive = starts.living(store, [plan.run for plan in plans])
        sizes = store.sizes()
        statuses = [Status.of(store, plan, sizes, alive) for plan in plans]
        lines = []
        for plan, status in zip(plans, statuses, strict=True):
            failures = records.given_up(store, plan).items()
            lines += _lines(status, [(*replicate, failure.reason) for replicate, failure in failures])
        lines += [f"damaged: {reason}" for reason in records.damaged_plans(store)] if run is None else []
        lines.append(f"store: {len(sizes)} states, {size(sum(sizes.values()))}")
        return cls(statuses, "\n".join(lines))


def watch(store: Store, run: str | None) -> Statuses:
    """Show the status of a run, or of every run, until no process trains it; return the last one, which is not shown.

    A terminal shows the present status. Otherwise a line is printed for each change.
    """
    with _screen() as show:
        while True:
            statuses = Statuses.of(store, run)
            if all(status.outcome != "running" for status in statuses.statuses):
                return statuses
            show(statuses)
            time.sleep(SECONDS)


@contextmanager
def _screen() -> Iterator[Callable[[Statuses], None]]:
    """Yield a function that shows a status in place of the one before, or prints the lines that have changed."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(), auto_refresh=False, transient=True) as live:
            yield lambda statuses: live.update(Text(statuses.text), refresh=True)
        return
    printed: dict[str, str] = {}

    def show(statuses: Statuses) -> None:
        for status in statuses.statuses:
            line = _line(status)
            if status.outcome == "running" and printed.get(status.run) != line:
                click.echo(line)
                sys.stdout.flush()
                printed[status.run] = line

    yield show


def next_commands(status: Status, places: str) -> list[str]:
    """Return what to do next with a run.

    Args:
        status: of the run.
        places: the options that name its home.
    """
    report = f"study report {status.run}{places}"
    if status.outcome == "running":
        return [f"study stop {status.run}{places}"]
    if status.outcome == "complete" and not status.behind:
        return [report]
    if status.failed and not status.waiting:  # a plain resume would train nothing
        return [f"study resume {status.run} --retry-failed{places}", report]
    return [f"study resume {status.run}{places}"]


def _lines(status: Status, failures: Sequence[tuple[str, int, str]]) -> list[str]:
    gave_up = status.outcome == "failed" and not status.failed
    return [
        f"{status.run}  {status.outcome}",
        f"  replicates: {_counts(status)}",
        f"  epochs: {_epochs(status)}",
        f"  final states: {size(status.bytes)}",
        *(f"  failed: {trial} r{number}: {reason}" for trial, number, reason in failures),
        *(["  the last start gave some up: 'study logs' says why, and a resume tries again"] if gave_up else []),
        *([f"  waits: {status.waits}"] if status.waits else []),
        *([f"  records: {status.behind}"] if status.behind else []),
    ]


def _line(status: Status) -> str:
    counts = f"{_counts(status)}; epochs: {_epochs(status)}"
    return f"{status.run}  {status.outcome}  {counts}" + (f"; {status.waits}" if status.waits else "")


def _counts(status: Status) -> str:
    return ", ".join(f"{getattr(status, kind)} {kind}" for kind in ("complete", "running", "failed", "waiting"))


def _epochs(status: Status) -> str:
    return f"{status.epochs_saved} of {status.epochs_needed} saved, {status.epochs_trained} trained by this run"


def size(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
