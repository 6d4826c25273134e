"""The status of a run, from the store alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from study.planning.stored import Plan, PlannedSpace
from study.store.records import given_up, is_forgotten
from study.store.starts import FRESH_SECONDS, StartRecord, living, starts
from study.store.states import Store


@dataclass(frozen=True)
class Status:
    """The status of a run, in replicates and epochs, from the store alone.

    Attributes:
        epochs_needed: the epochs of the plan, each counted once.
        epochs_saved: those of them that are saved, by whichever run, as the last start has counted them.
        epochs_trained: the epochs that this run has trained, also those that it could not save or had to train again.
        epochs_trained_now: those of its last start.
        behind: why MLflow or Optuna may not show everything; "" if they do.
        waits: what the training waits for, or waited for when it ended; "" for nothing.
    """

    run: str
    study: str
    complete: int
    running: int
    failed: int
    waiting: int
    epochs_needed: int
    epochs_saved: int
    epochs_trained: int
    epochs_trained_now: int
    outcome: str
    bytes: int
    behind: str
    waits: str

    @classmethod
    def of(
        cls, store: Store, plan: Plan, stored: Mapping[str, int], alive: Mapping[str, StartRecord] | None = None
    ) -> Status:
        """Return the status of a run.

        Args:
            store: the store of the run.
            plan: the run's plan.
            stored: the sizes of all states in the store, in bytes, by name.
            alive: the drivers that are alive, if they are known (`living`), which may take seconds.
        """
        driver = (living(store, [plan.run]) if alive is None else alive).get(plan.run)
        replicates = {(trial.name, n): end for trial in plan.trials for n, end in trial.by_replicate.items()}
        complete = {replicate for replicate, end in replicates.items() if end in stored}
        failed = given_up(store, plan).keys() - complete
        points = {trial.name for trial in plan.trials if plan.is_point(trial)}
        history = [start for start in starts(store, plan.run) if start.generation == plan.generation]
        live = bool(history) and history[-1].outcome == "running"
        live = live and driver is not None and history[-1].number >= driver.number  # or began just now
        # The replicates that an open search has yet to plan are waiting, too.
        names = {name for name, _ in failed}
        unplanned = sum(_count_unplanned(plan, space, names) for space in plan.spaces)
        crowned = all(space.search is None or _is_crowned(plan, space) for space in plan.spaces)
        unfinished = len(replicates) + unplanned - len(complete) - len(failed)
        running = min(unfinished, history[-1].training) if live else 0
        behind = history[-1].behind if history and not live else ""
        waits = history[-1].waits if history and unfinished else ""
        if live and driver is not None and driver.is_here() and driver.age() > FRESH_SECONDS:  # another's clock may err
            since = datetime.fromisoformat(driver.seen).astimezone()
            waits = f"process {driver.pid} has not written into the store since {since:%H:%M:%S}"
        if is_forgotten(store, plan.run):
            outcome = "forgotten"
        elif not history:
            outcome = "planned"
        elif history[-1].outcome == "running" and not live:
            outcome = "interrupted"
        else:
            outcome = history[-1].outcome
        if not unfinished and crowned and names <= points:  # failed points are results of a search
            outcome = "complete"
        elif outcome == "complete":  # states were lost, or the plan has grown
            outcome = "interrupted"
        return cls(
            run=plan.run,
            study=plan.study,
            complete=len(complete),
            running=running,
            failed=len(failed),
            waiting=unfinished - running,
            epochs_needed=plan.epochs_needed,
            epochs_saved=plan.epochs_needed if not unfinished and not failed else _count_saved(plan, history),
            epochs_trained=sum(start.epochs_trained for start in history),
            epochs_trained_now=history[-1].epochs_trained if history else 0,
            outcome=outcome,
            bytes=sum(stored[end] for end in {replicates[replicate] for replicate in complete}),
            behind=behind,
            waits=waits,
        )


def _count_saved(plan: Plan, history: Sequence[StartRecord]) -> int:
    counts = [start.epochs_saved for start in history if start.epochs_saved is not None]
    of_older_version = [start.epochs_done + start.epochs_trained for start in history]
    return max(0, min((counts or of_older_version or [0])[-1], plan.epochs_needed))


def _count_unplanned(plan: Plan, space: PlannedSpace, failed: Collection[str]) -> int:
    """Return how many replicates an open search has yet to plan, including its first champion's.

    A search has no champion if all of its points are in `failed`.
    """
    if space.search is None:
        return 0
    planned = plan.points(space)
    missing = max(0, space.search.trials - len(planned))
    has_champion_to_come = missing or any(point.name not in failed for point in planned)
    champion = space.search.fresh if has_champion_to_come and not _is_crowned(plan, space) else 0
    return missing * plan.replicates + champion


def _is_crowned(plan: Plan, space: PlannedSpace) -> bool:
    return any(trial.champion_of for trial in plan.trials if trial.space == space.name)
