"""A start of a run: while something is missing, hand out what is ready; when a state is durable, project it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study import runs, tree
from study.plan import Json, Resources
from study.planning import Draft, Replicate
from study.progress import Progress
from study.projection import Projection
from study.report import Report
from study.store import Store
from study.tree import Stage

COMPLETE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes
RECORD_SECONDS = 1.0


def start(
    draft: Draft, store: Store, tracking_uri: str, artifacts: Path, storage: str, resources: Resources,
    answer: Callable[[], None], retry_failed: bool = False,
) -> int:  # fmt: skip
    """Train what is missing of a run and bring its records up to date; returns the exit code.

    Args:
        draft: the plan and what is derived from it.
        store: where its states lie.
        tracking_uri, artifacts: for MLflow.
        storage: for Optuna.
        resources: where and how wide.
        answer: called once training has ended: the user need not wait for MLflow to follow.
        retry_failed: train again what was given up because training raised.

    Raises:
        Refusal: if the storage cannot be used or the machines have no room; nothing has been trained.
    """
    plan = draft.plan
    stored = store.keys()
    given_up = runs.failures(store, plan.run)
    wanted = {name: recipe for name, recipe in draft.recipes.items() if retry_failed or name not in given_up}
    stages = tree.stages(list(wanted.values()), stored)
    epochs = sum(len(stage.keys) for stage in stages)
    ends = {recipe.keys[-1] for recipe in draft.recipes.values()}
    progress = Progress(epochs, (sum(r.keys[-1] in stored for r in draft.recipes.values()), len(draft.recipes)))
    try:
        projection = Projection(draft, store, tracking_uri, artifacts, storage, progress.say)
        if retry_failed and given_up:
            for replicate in given_up:
                projection.retry(replicate)
            given_up = {}
            runs.save_failures(store, plan.run, given_up)
        projection.reconcile(stored, given_up)
        events = _Events(draft, store, projection, progress, ends, given_up)
        missing = len(tree.missing(draft.recipes.values(), stored))
        events.start = runs.Start.begin(store, plan.run, epochs, missing)
        interrupted = _train(stages, store, resources, draft, events)
        if interrupted:
            projection.reconcile(store.keys(), given_up)  # what the workers saved when they were stopped
    finally:
        progress.close()
    if len(events.complete(store.keys())) == len(draft.recipes):
        code = COMPLETE
    else:
        code = INTERRUPTED if interrupted else FAILED
    answer()
    status = {COMPLETE: "FINISHED", FAILED: "FAILED", INTERRUPTED: "KILLED"}[code]
    projection.close(status, lambda: Report(plan, reader(store)).files())
    return code


def reader(store: Store) -> Callable[[str], Json | None]:
    """Reads headers from a store; None for a state that is not there."""

    def header(key: str) -> Json | None:
        try:
            return store.header(key)
        except FileNotFoundError:
            return None

    return header


def _train(stages: list[Stage], store: Store, resources: Resources, draft: Draft, events: _Events) -> bool:
    """Let Ray Tune execute the stages, if there are any; returns whether the user stopped it."""
    assert events.start is not None
    if not stages:
        events.end("failed")
        return False
    from study import execute

    drain = execute.Drain()
    outcome = "interrupted"
    try:
        with execute.connected(resources), execute.interruptible(drain, events.progress.say):
            events.projection.check()
            job = execute.Job(draft.plan.run, store.url, resources.data_dir, {stage.key: stage for stage in stages})
            execute.execute(stages, job, resources, draft.work.trainable(), drain, events)
        outcome = "interrupted" if drain.requested else "failed"
    finally:
        events.end(outcome)
    return drain.requested


class _Events:
    """Passes on what happens to the records, the projection and the user's view."""

    def __init__(
        self, draft: Draft, store: Store, projection: Projection, progress: Progress, ends: set[str],
        given_up: dict[Replicate, dict[str, Any]],
    ) -> None:  # fmt: skip
        self.draft, self.store, self.projection, self.progress = draft, store, projection, progress
        self.ends, self.given_up = ends, given_up
        self.start: runs.Start | None = None
        self.active: dict[str, set[Replicate]] = {}  # by the stage that is being trained: who needs it
        self._written = 0.0

    def trained(self, stage: Stage, epochs: int) -> None:
        """Count epochs, and see that the count is durable within a second."""
        assert self.start is not None
        self.start.record["epochs_trained"] += epochs
        if stage.key not in self.active:
            self.active[stage.key] = set(self._needing(stage))
        self.progress.train(epochs)
        if time.monotonic() - self._written > RECORD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make the count durable."""
        assert self.start is not None
        self._written = time.monotonic()
        self.start.record["training"] = len(set().union(*self.active.values()))
        self.start.write()

    def end(self, outcome: str) -> None:
        """Record how the start ended."""
        assert self.start is not None
        self.active.clear()
        missing = len(tree.missing(self.draft.recipes.values(), self.store.keys()))
        self.start.end("complete" if not missing else outcome, missing)

    def durable(self, key: str) -> None:
        """Show a state; if replicates end in it, count them."""
        self.projection.state(key)
        self.active.pop(key, None)
        if key in self.ends:
            measures = self.store.header(key)["measures"][-1]
            for trial in self.draft.plan.trials:
                for end in trial.ends:
                    if end == key:
                        self.progress.end(measures[self.draft.plan.space(trial.space).objective], trial.label)

    def failed(self, stage: Stage, reason: str, traceback: str, lost: bool) -> None:
        """Give up every replicate that needs the stage, and say so once."""
        hit = self._needing(stage)
        self.active.pop(stage.key, None)
        self.progress.say(f"failed: {', '.join(f'{trial} r{number}' for trial, number in hit)}: {reason}")
        for trial, number in hit:
            self.projection.failed((trial, number), reason, lost)
            if not lost:
                self.given_up[trial, number] = {
                    "trial": trial, "replicate": number, "reason": reason, "traceback": traceback, "stage": stage.key,
                }  # fmt: skip
        if not lost:
            runs.save_failures(self.store, self.draft.plan.run, self.given_up)

    def _needing(self, stage: Stage) -> list[Replicate]:
        return [name for name, recipe in self.draft.recipes.items() if stage.key in recipe.keys]

    def complete(self, stored: set[str]) -> set[Replicate]:
        """The replicates whose last state is in the store."""
        return {name for name, recipe in self.draft.recipes.items() if recipe.keys[-1] in stored}
