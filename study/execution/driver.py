"""A start of a run: while states are missing, stages that are ready are handed out; each durable state is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from study.errors import Damaged, Refusal, StudyError
from study.execution.ledger import Ledger
from study.execution.points import Points
from study.execution.progress import Progress
from study.execution.projection import Projection, Services
from study.planning.draft import Draft, Replicate
from study.planning.stored import Plan, Resources
from study.planning.tree import Failure, Stage
from study.report.report import Report
from study.space import Json
from study.store import records
from study.store.starts import Start
from study.store.states import Store

EXIT_CODES = {"complete": 0, "failed": 1, "interrupted": 130}  # by how a start ended
_MLFLOW_STATUS = {"complete": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def start(
    draft: Draft,
    before: Plan | None,
    store: Store,
    services: Services,
    resources: Resources,
    answer: Callable[[], None],
    progress: Progress,
    retry_failed: bool = False,
) -> str:
    """Train the missing states of a run and update its records; return the outcome, a key of `EXIT_CODES`.

    Args:
        draft: the plan and what is derived from it; it is stored before anything is trained.
        before: the plan as it was stored.
        store: the store of its states.
        services: the services that hold its records.
        resources: where the run is executed, and the resources of a stage.
        answer: called when training has ended, so that the user need not wait for MLflow's records.
        progress: the user's view.
        retry_failed: train the replicates again whose training raised an exception.

    Raises:
        Refusal: if another driver trains the run, a service cannot be used, or no stage fits on the machines. Nothing
            is trained then.
    """
    begun = Start(store, draft.plan.run, draft.plan.generation, progress.say)
    ledger, outcome, projection = None, "interrupted", None
    try:
        _store_plan(draft, before, store)
        ledger = _ledger(draft, store, progress.say)
        begun.begin(ledger.done(), ledger.done(_known(draft, before)))
        if ledger.missing():
            from study.execution import tune  # noqa: F401  Ray first: imports beside those of MLflow would take turns
        projection = Projection(draft, store, services, progress.say)
        if retry_failed:
            for replicate in ledger.try_again():
                projection.retry(replicate)
        projection.reconcile(ledger)
        drive = _Drive(draft, store, projection, progress, begun, ledger)
        with drive.train(resources) as stopped:  # the records are ended while Ray ends
            if drive.is_complete():
                outcome = "complete"
            elif stopped:
                ledger.look_again()
                projection.reconcile(ledger)
                for replicate, failure in ledger.lost.items():
                    projection.failed(replicate, failure)
            else:
                outcome = "failed"
            status = _MLFLOW_STATUS[outcome]
            projection.finish(status, lambda: Report.of(store, draft.plan).files(), drive.points.champions())
            progress.close()
            answer()
        behind = begun.record.behind = projection.close()
        if behind:
            progress.say(f"{behind}. 'study resume {draft.plan.run}' brings the records up to date")
        return outcome
    except BaseException:
        if projection is not None:
            projection.abandon()
        raise
    finally:  # only now may another driver come: until here this one writes records
        begun.end(outcome, 0 if ledger is None else ledger.done())
        progress.close()


def _store_plan(draft: Draft, before: Plan | None, store: Store) -> None:
    """Store the plan, unless another start has stored one since this one read it."""
    plan = draft.plan
    kept = None
    with suppress(Damaged):  # it is made again
        kept = records.load_plan(store, plan.run)
    if kept != before:
        words = f"another process has just changed the plan of run {plan.run!r}. Give the same command again"
        raise Refusal("run", plan.run, words)
    if before is not None and before.generation != plan.generation:
        records.save_failures(store, plan.run, {})
    records.remember(store, plan.run)
    records.save_plan(store, plan)


def _known(draft: Draft, before: Plan | None) -> list[Replicate]:
    """Return the replicates that the plan had at the last start."""
    trials = () if before is None else before.trials
    names = [(trial.name, number) for trial in trials for number in trial.by_replicate]
    return [name for name in names if name in draft.recipes]


def _ledger(draft: Draft, store: Store, say: Callable[[str], None]) -> Ledger:
    """Return the ledger. The plan's stored states are read completely, and set aside if they are damaged."""
    stored = store.keys()
    for key, reason in store.verify([key for key in stored if draft.through(key)]).items():
        say(f"damaged: {reason}; moved to {store.set_aside(key) or 'damaged'}, and trained again if needed")
        stored.discard(key)
    given_up = {name: each for name, each in records.failures(store, draft.plan.run).items() if name in draft.recipes}
    return Ledger(draft, store, stored, given_up)


class _Drive:
    """Training by Ray; its events go to the start's record, the projection and the user's view."""

    def __init__(
        self, draft: Draft, store: Store, projection: Projection, progress: Progress, begun: Start, ledger: Ledger
    ) -> None:
        self._draft, self._store, self._projection, self._progress = draft, store, projection, progress
        self._begun, self._ledger = begun, ledger
        self._needs_ray = True
        self._active: dict[str, list[Replicate]] = {}  # by the stage that is being trained: replicates that need it
        self._ends = {recipe.keys[-1] for recipe in draft.recipes.values()}
        self._stages = ledger.plan(draft.recipes)
        self.points = Points(draft, store, projection, ledger, progress.say)
        epochs = sum(len(stage.keys) for stage in self._stages)
        progress.begin(epochs, (ledger.complete(), len(draft.recipes)))

    @contextmanager
    def train(self, resources: Resources) -> Iterator[bool]:
        """Let Ray Tune execute the stages, if there are any; yield whether it was stopped, and then end Ray."""
        if not self._stages and self.points.settled():
            yield False
            return
        from study.execution import cluster, tune
        from study.execution.job import Job

        drain = tune.Drain()
        # Ray sets a handler of SIGTERM of its own when it starts: ours comes after it.
        with cluster.connected(resources, self._lost_ray), tune.interruptible(drain, self._progress.say):
            self._projection.check()  # Optuna and MLflow were opened while Ray started
            plan = self._draft.plan
            job = Job(plan.run, self._store.url, resources, plan.machine.ranks)
            tune.execute(self._stages, job, self._draft.work.trainable(), drain, self, self._progress.say)
            self._needs_ray = False
            yield drain.requested

    def is_complete(self) -> bool:
        """Return whether every replicate has its last state, and no search is unfinished."""
        return self._ledger.complete() == len(self._draft.recipes) and self.points.settled()

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Return stages of the next points of open searches."""
        planned = len(self._draft.recipes)
        stages = self.points.more(workers, idle)
        if len(self._draft.recipes) > planned:
            self._ends = {recipe.keys[-1] for recipe in self._draft.recipes.values()}
            self._progress.expect(sum(len(stage.keys) for stage in stages or ()), len(self._draft.recipes))
        return stages

    def trained(self, stage: Stage, epochs: int) -> None:
        """Count epochs. The heartbeat stores the count."""
        self._begun.record.epochs_trained += epochs
        if stage.key not in self._active:
            self._active[stage.key] = self._ledger.needing(stage)
            self._count_active()
        self._progress.train(epochs)

    def _count_active(self) -> None:
        self._begun.record.training = len({name for names in self._active.values() for name in names})

    def durable(self, key: str) -> None:
        """Show a state; if replicates end in it, count them."""
        self._ledger.save(key)
        self._projection.state(key)
        if self._active.pop(key, None):
            self._count_active()
        if key in self._ends:
            with suppress(FileNotFoundError, StudyError):  # the store is away; only the user's view needs this
                self._end(key, self._store.header(key)["measures"][-1])

    def _end(self, key: str, measures: Json) -> None:
        for replicate in self._draft.through(key):
            trial = self._draft.trial(replicate)
            if trial.by_replicate[replicate[1]] == key:
                self._progress.end(
                    measures[trial.trial.measure], trial.label if len(self._draft.plan.spaces) == 1 else ""
                )

    def failed(self, stage: Stage, failure: Failure) -> None:
        """Give up every replicate that needs the stage, and print one line."""
        self._active.pop(stage.key, None)
        hit = self._ledger.fail(stage, failure)
        self._count_active()
        if failure.damaged:
            with suppress(StudyError):  # then the next start does it
                self._store.set_aside(failure.damaged)
        self._progress.say(f"failed: {', '.join(f'{trial} r{number}' for trial, number in hit)}: {failure.reason}")
        for replicate in hit:
            self._projection.failed(replicate, failure)
        if not failure.for_good:
            self.points.halt()

    def _lost_ray(self) -> None:
        """Print that Ray has died, before Ray ends this process, too."""
        if not self._needs_ray:
            return
        self._begun.end("interrupted", self._ledger.done())
        self._progress.say(
            f"Ray has ended. Saved states stay, and 'study resume {self._draft.plan.run}' continues the run"
        )
        os._exit(EXIT_CODES["interrupted"])
