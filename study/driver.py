"""A start of a run: while something is missing, hand out what is ready; when a state is durable, project it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import runs, tree
from study.plan import Resources
from study.planning import Draft, Replicate
from study.points import Points
from study.presence import Start
from study.progress import Progress
from study.projection import Projection
from study.report import Report
from study.space import Json, Resolved
from study.store import Store
from study.tree import Failure, Stage

COMPLETE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes
_ENDS = {"complete": (COMPLETE, "FINISHED"), "failed": (FAILED, "FAILED"), "interrupted": (INTERRUPTED, "KILLED")}


@dataclass(frozen=True)
class Services:
    """Where a run's records go.

    Attributes:
        tracking_uri, artifacts: for MLflow.
        storage: for Optuna.
    """

    tracking_uri: str
    artifacts: Path
    storage: str


def start(
    draft: Draft,
    store: Store,
    services: Services,
    resources: Resources,
    before: Collection[Replicate],
    answer: Callable[[], None],
    retry_failed: bool = False,
) -> int:
    """Train what is missing of a run and bring its records up to date; returns the exit code.

    Args:
        draft: the plan and what is derived from it.
        store: where its states lie.
        services: where its records go.
        resources: where and how wide.
        before: the replicates that the plan had when it was last started.
        answer: called once training has ended: the user need not wait for MLflow to follow.
        retry_failed: train again what was given up because training raised.

    Raises:
        Refusal: if another driver trains the run, a service cannot be used or the machines have no room; nothing has
            been trained.
    """
    run, progress = draft.plan.run, Progress()
    try:
        stored = sound(draft, store, progress.say)
        known = [draft.recipes[name] for name in before]
        done, done_before = _done(draft.recipes.values(), stored), _done(known, stored)
        begun = Start(store, run, draft.plan.generation, done, done_before, progress.say)
        if tree.missing(list(draft.recipes.values()), stored):
            from study import execute  # noqa: F401  Ray first: imports beside those of MLflow would take turns
        outcome = "interrupted"
        try:
            projection = Projection(
                draft, store, services.tracking_uri, services.artifacts, services.storage, progress.say
            )
            given_up = {name: each for name, each in runs.failures(store, run).items() if name in draft.recipes}
            if retry_failed and given_up:
                for replicate in given_up:
                    projection.retry(replicate)
                given_up = {}
                runs.save_failures(store, run, given_up)
            projection.reconcile(stored, given_up)
            drive = _Drive(draft, store, projection, progress, begun, given_up, stored)
            with drive.train(resources) as stopped:  # the records are ended while Ray ends
                if drive.is_complete():
                    outcome = "complete"
                elif stopped:
                    stored = store.keys()
                    projection.reconcile(stored, given_up)  # what the workers saved when they were stopped
                    for replicate, failure in drive.lost.items():
                        projection.failed(replicate, failure)
                else:
                    outcome = "failed"
                code, status = _ENDS[outcome]
                projection.finish(status, lambda: Report.of(store, draft.plan).files(), drive.points.champions())
                progress.close()
                answer()
            behind = projection.close()
            begun.record["behind"] = behind
            if behind:
                progress.say(f"{behind}: `study resume {run}` catches up")
            return code
        finally:  # only now may another driver come: until here this one writes records
            begun.end(outcome, _done(draft.recipes.values(), stored))
    finally:
        progress.close()


def sound(draft: Draft, store: Store, say: Callable[[str], None]) -> set[str]:
    """The names of the states in a store; those of the plan are read whole, and set aside if they are damaged."""
    stored = store.keys()
    for key, reason in store.verify([key for key in stored if draft.through(key)]).items():
        say(f"damaged: {reason}; set aside in {store.set_aside(key) or 'damaged'}, and trained again where needed")
        stored.discard(key)
    return stored


def _done(recipes: Iterable[Resolved], stored: set[str]) -> int:
    """How many of the recipes' states need no training."""
    kept = list(recipes)
    return len(tree.nodes(kept)) - len(tree.missing(kept, stored))


class _Drive:
    """Lets Ray train, and passes on what happens to the records, the projection and the user's view."""

    def __init__(
        self,
        draft: Draft,
        store: Store,
        projection: Projection,
        progress: Progress,
        begun: Start,
        given_up: dict[Replicate, dict[str, Any]],
        stored: set[str],
    ) -> None:
        self._draft, self._store, self._projection, self._progress = draft, store, projection, progress
        self._begun, self._given_up, self._stored = begun, given_up, stored
        self.lost: dict[Replicate, Failure] = {}  # what failed for a reason that may be gone next time
        self._needs_ray = True
        self._active: dict[str, list[Replicate]] = {}  # by the stage that is being trained: who needs it
        self._ends = {recipe.keys[-1] for recipe in draft.recipes.values()}
        wanted = [draft.to_train(name) for name in draft.recipes if name not in given_up]
        self._stages = tree.stages(wanted, stored, draft.joints)
        self.points = Points(draft, store, projection, given_up, stored, self._stages, progress.say)
        epochs = sum(len(stage.keys) for stage in self._stages)
        progress.begin(epochs, (sum(r.keys[-1] in stored for r in draft.recipes.values()), len(draft.recipes)))

    @contextmanager
    def train(self, resources: Resources) -> Iterator[bool]:
        """Let Ray Tune execute the stages, if there are any; yields whether it was stopped, and then ends Ray."""
        if not self._stages and self.points.settled():
            yield False
            return
        from study import cluster, execute

        drain = execute.Drain()
        # Ray sets a handler of SIGTERM of its own when it starts: ours comes after it.
        with cluster.connected(resources, self._lost_ray), execute.interruptible(drain, self._progress.say):
            self._projection.check()  # they were opened while Ray started
            ranks = self._draft.plan.machine.ranks
            run, url = self._draft.plan.run, self._store.url
            job = execute.Job(run, url, resources.data_dir, resources.cpus, resources.gpus, ranks, resources.gpu_steps)
            execute.execute(self._stages, job, resources, self._draft.work.trainable(), drain, self)
            self._needs_ray = False
            yield drain.requested

    def is_complete(self) -> bool:
        """Whether every replicate has ended in a state, and no search goes on."""
        ends = (recipe.keys[-1] for recipe in self._draft.recipes.values())
        return all(end in self._stored for end in ends) and self.points.settled()

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Stages of the points that open searches go on with."""
        planned = len(self._draft.recipes)
        stages = self.points.more(workers, idle)
        if len(self._draft.recipes) > planned:
            self._ends = {recipe.keys[-1] for recipe in self._draft.recipes.values()}
            self._progress.expect(sum(len(stage.keys) for stage in stages or ()), len(self._draft.recipes))
        return stages

    def trained(self, stage: Stage, epochs: int) -> None:
        """Count epochs; the heartbeat makes the count durable."""
        self._begun.record["epochs_trained"] += epochs
        if stage.key not in self._active:
            self._active[stage.key] = self._needing(stage)
            self._count_active()
        self._progress.train(epochs)

    def _count_active(self) -> None:
        self._begun.record["training"] = len({name for names in self._active.values() for name in names})

    def durable(self, key: str) -> None:
        """Show a state; if replicates end in it, count them."""
        self._stored.add(key)
        self.points.stored(key)
        self._projection.state(key)
        if self._active.pop(key, None):
            self._count_active()
        if key in self._ends:
            with suppress(OSError):  # the store is away: this is for the user's view only
                self._end(key, self._store.header(key)["measures"][-1])

    def _end(self, key: str, measures: Json) -> None:
        for replicate in self._draft.through(key):
            trial = self._draft.trial(replicate)
            if trial.by_replicate[replicate[1]] == key:
                self._progress.end(measures[trial.measure], trial.label if len(self._draft.plan.spaces) == 1 else "")

    def failed(self, stage: Stage, failure: Failure) -> None:
        """Give up every replicate that needs the stage, and say so once; what may go better next time is not kept."""
        hit = self._needing(stage)
        self.points.failed(stage)
        self._active.pop(stage.key, None)
        self._count_active()
        if failure.damaged:
            self._stored.discard(failure.damaged)
            with suppress(OSError):  # then the next start does it
                self._store.set_aside(failure.damaged)
        self._progress.say(f"failed: {', '.join(f'{trial} r{number}' for trial, number in hit)}: {failure.reason}")
        for trial, number in hit:
            self._projection.failed((trial, number), failure)
            if failure.for_good:
                self._given_up[trial, number] = {
                    "trial": trial,
                    "replicate": number,
                    "reason": failure.reason,
                    "traceback": failure.traceback,
                    "stage": stage.key,
                }
            else:
                self.lost[trial, number] = failure
        if failure.for_good:
            self._save_failures()
        else:
            self.points.halt()

    def _needing(self, stage: Stage) -> list[Replicate]:
        """The replicates that wait for a stage; one that has ended may pass through it, and needs it no more."""
        through, recipes = self._draft.through(stage.key), self._draft.recipes
        return [name for name in through if recipes[name].keys[-1] not in self._stored]

    def _save_failures(self) -> None:
        with suppress(OSError):  # a full disk: what failed is tried again
            runs.save_failures(self._store, self._draft.plan.run, self._given_up)

    def _lost_ray(self) -> None:
        """Ray is dead, and takes this process with it: say so first."""
        if not self._needs_ray:
            return
        self._begun.end("interrupted", _done(self._draft.recipes.values(), self._stored))
        self._progress.say(f"Ray has ended; what was saved stays: `study resume {self._draft.plan.run}` goes on")
        os._exit(INTERRUPTED)
