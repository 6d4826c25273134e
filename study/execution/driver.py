"""A start of a run: while states are missing, stages that are ready are handed out; each durable state is recorded."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from study.errors import Away, Damaged, Refusal, StudyError, one_line
from study.execution.ledger import Ledger
from study.execution.outlook import Outlook
from study.execution.points import Points
from study.execution.progress import Progress
from study.execution.projection import Projection, Services
from study.execution.sharing import Sharing
from study.planning.draft import Draft, Replicate
from study.planning.stored import Plan, Resources
from study.planning.tree import Failure, Stage
from study.report.report import Report
from study.store import records
from study.store.starts import Start, Superseded
from study.store.states import Store

EXIT_CODES = {"complete": 0, "failed": 1, "behind": 3, "interrupted": 130}  # by how a start ended
STATE_BYTES = 1 << 20  # of a state, if the work does not say
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
    options: str = "",
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
        options: of the command line, which name the home in the commands that messages suggest.

    Raises:
        Refusal: if another driver trains the run, a service cannot be used, or no stage fits on the machines. Nothing
            is trained then, and of a first start no plan stays.
    """
    run, log = draft.plan.run, progress.log
    pulse = store.impatient()  # the heartbeat must not wait for the log
    begun = Start(store, run, draft.plan.generation, progress.say, lambda number: log.save(pulse, run, number))
    outcome, projection, is_new, trained = "interrupted", None, False, 0
    resume = f"study resume {run}{options}"
    try:
        store_plan(draft, before, store)
        is_new = before is None
        ledger = _ledger(draft, begun, progress.say)
        begun.begin(ledger.done(), ledger.trained)
        if ledger.missing():
            from study.execution import tune  # noqa: F401  Ray first: imports beside those of MLflow would take turns
        projection = Projection(draft, store, services, progress.say, begun.check)
        if retry_failed:
            for replicate in ledger.try_again():
                projection.retry(replicate)
        projection.reconcile(ledger)
        drive = _Drive(draft, projection, progress, begun, ledger, resume)
        with drive.train(resources) as stopped:  # the records are ended while Ray ends
            is_new = False
            begun.check()
            absent = ledger.look_again() if drive.has_trained else 0
            saved = begun.record.epochs_saved = ledger.done()
            # Workers may have saved epochs that they could not report any more.
            trained = ledger.trained() if saved > drive.reported else 0
            outcome = "complete" if drive.is_complete() else "interrupted" if stopped else "failed"
            if absent:
                states = "1 state that was saved is" if absent == 1 else f"{absent} states that were saved are"
                progress.say(f"{states} not in {store.shown}: every machine must reach the same store")
            _mend(ledger, projection)
            for line in drive.failures():
                progress.say(line)
            status = _MLFLOW_STATUS[outcome]
            projection.finish(status, lambda: Report.of(store, draft.plan).files(), drive.points.champions())
            progress.close()
            try:
                answer()
            except Exception:  # of the caller, as in printing the report: training has ended, and the records are whole
                begun.record.behind = projection.close()
                raise
        behind = begun.record.behind = projection.close()
        if behind:
            progress.say(f"{behind}. '{resume}' brings the records up to date")
        return outcome
    except BaseException as error:
        log.add(_last_line(error))
        if projection is not None:
            projection.abandon()
        # That another driver has the run was said; a service that is away no longer matters to this one.
        if begun.superseded and isinstance(error, (Superseded, KeyboardInterrupt, Away)):
            return "interrupted"
        if is_new and isinstance(error, Refusal) and not begun.record.epochs_trained:
            with suppress(StudyError):  # the store is away, and the refusal is what the user must read
                begun.check()
                records.delete_plan(store, run)
        raise
    finally:  # only now may another driver come: until here this one writes records
        begun.end(outcome, trained)
        progress.close()


def _last_line(error: BaseException) -> str:
    """Return the last line of the log of a start that does not reach its end: with a traceback if we are at fault."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once"
    if isinstance(error, (StudyError, OSError)):
        return f"error: {one_line(error)}"
    return "".join(traceback.format_exception(error)).rstrip()


def _listed(replicates: Sequence[Replicate]) -> str:
    return ", ".join(f"{trial} r{number}" for trial, number in replicates)


def _mend(ledger: Ledger, projection: Projection) -> None:
    """Make the records equal to what this driver knows, whatever one that had lost the run wrote meanwhile."""
    ledger.settle()
    projection.refresh()
    projection.reconcile(ledger)
    for replicate, failure in ledger.lost.items():
        projection.failed(replicate, failure)


def store_plan(draft: Draft, before: Plan | None, store: Store) -> None:
    """Store the plan of a run before anything is trained.

    Raises:
        Refusal: if another start has stored one since this one read `before`.
    """
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


def _ledger(draft: Draft, begun: Start, say: Callable[[str], None]) -> Ledger:
    """Return the ledger. The plan's stored states are read completely, and set aside if they are damaged."""
    store = begun.store
    stored = store.keys()
    for key, reason in store.verify([key for key in stored if draft.through(key)]).items():
        say(f"damaged: {reason}; moved to {store.set_aside(key) or 'damaged'}, and trained again if needed")
        stored.discard(key)
    given_up = {name: each for name, each in records.failures(store, draft.plan.run).items() if name in draft.recipes}
    return Ledger(draft, store, stored, given_up, begun.check)


class _Drive:
    """Training by Ray; its events go to the start's record, the projection and the user's view."""

    def __init__(
        self, draft: Draft, projection: Projection, progress: Progress, begun: Start, ledger: Ledger, resume: str
    ) -> None:
        self._draft, self._store, self._projection, self._progress = draft, begun.store, projection, progress
        self._begun, self._ledger, self._resume = begun, ledger, resume
        self._needs_ray, self.has_trained = True, False
        self.reported = (
            begun.record.epochs_done
        )  # the plan's epochs that are trained, as workers and other runs have reported
        self._next_count = 0.0
        self._waits: dict[str, str] = {}  # by what it waits for: the line for the user
        self._active: dict[str, list[Replicate]] = {}  # by the stage that is being trained: replicates that need it
        self._stages = ledger.plan(draft.recipes)
        self.points = Points(draft, begun.store, projection, ledger, progress.say, resume)
        self._outlook = Outlook(draft, begun.store, ledger, self.points)
        self._outlook.plan(self._stages)
        self._sharing = Sharing(begun.store, draft.plan.run, begun, progress.say)
        progress.begin(self._outlook.counts)

    @contextmanager
    def train(self, resources: Resources) -> Iterator[bool]:
        """Let Ray Tune execute the stages, if there are any; yield whether it was stopped, and then end Ray."""
        if not self._stages and self.points.settled():
            self._projection.check()  # a refusal comes before the report
            self._begun.record.checked = True
            yield False
            return
        from study.execution import cluster, nodes, tune
        from study.execution.address import option_of
        from study.execution.interrupts import Drain, interruptible
        from study.execution.job import Job

        drain, say = Drain(), self._progress.say
        # Ray sets a handler of SIGTERM of its own when it starts: ours comes after it.
        plan, work = self._draft.plan, self._draft.work
        job = Job(plan.run, self._store.url, resources, plan.machine.ranks, self._store.variables())
        trainable = work.trainable()
        with (
            self._sharing.announced(self._ledger.planned()),  # before Ray starts, so that others know it in time
            cluster.connected(resources, self._lost_ray, (trainable, work.prepare)),
            interruptible(drain, say),
        ):
            if resources.address == "auto":
                self._progress.note(f"training on the Ray cluster at {cluster.head()} ({option_of('auto')} auto)")
            self._projection.check()  # Optuna and MLflow were opened while Ray started
            is_cluster = resources.address or nodes.are_several()
            needs = nodes.Needs.of(job, self._draft)
            with nodes.checked(needs, self._store, say) if is_cluster else nullcontext() as checks:
                self.has_trained = self._begun.record.checked = True  # the heartbeat stores it
                tune.execute(self._stages, job, trainable, drain, self, say, checks, self._sharing)
            self._needs_ray = False
            self.waits("a stop", "")
            if drain.reason:
                say(f"stopped: {drain.reason}. '{self._resume}' continues the run")
            yield drain.requested and not drain.reason

    def is_complete(self) -> bool:
        """Return whether every replicate has its last state, except failed points, and every search its champion."""
        return not self._ledger.lacking() and self.points.are_complete()

    def failures(self) -> list[str]:
        """Return lines about the replicates that failed in training, and about the points of searches that failed."""
        names = [name for name in self._ledger.given_up if not self._draft.plan.is_point(self._draft.trial(name))]
        if not names:
            return self.points.failures()
        failed = "1 replicate has failed" if len(names) == 1 else f"{len(names)} replicates have failed"
        retry = f"'{self._resume} --retry-failed' trains what failed again; a plain resume does not"
        return [*self.points.failures(), f"{failed}. {retry}"]

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Return stages of the next points of open searches."""
        plan = self._draft.plan
        stages = self.points.more(workers, idle)
        if stages or self._draft.plan is not plan:
            self._outlook.plan(stages or ())
            self._sharing.announce(self._ledger.planned())
        self._progress.update()
        return stages

    def trained(self, stage: Stage, epochs: int) -> None:
        """Count epochs. The heartbeat stores the count."""
        self._begun.record.epochs_trained += epochs
        self.reported += epochs
        if stage.key not in self._active:
            self._active[stage.key] = self._ledger.needing(stage)
            self._count_active()
        self._outlook.train(stage, epochs)
        self._progress.update()

    def _count_active(self) -> None:
        self._begun.record.training = len({name for names in self._active.values() for name in names})

    def recount(self, stage: Stage, epochs: int) -> None:
        """Correct what is expected."""
        self.reported += epochs
        self._outlook.recount(stage, epochs)
        self._progress.update()

    def cut(self, parts: Sequence[Stage]) -> None:
        """Count on the parts of a stage."""
        self._ledger.cut(parts)
        self._outlook.cut(parts)

    def durable(self, key: str) -> bool:
        """Show a state that the driver sees in the store; if replicates end in it, count them."""
        with suppress(Away):  # asked again when the training has ended
            if not self._store.has(key):
                return False
        self._note(key)
        return True

    def _note(self, key: str) -> None:
        self._ledger.save(key)
        self._count_saved()
        self._projection.state(key)
        if self._active.pop(key, None):
            self._count_active()
        ended = [name for name in self._draft.through(key) if self._draft.recipes[name].keys[-1] == key]
        if ended:
            self._outlook.end(ended)
            self._progress.update()

    def _count_saved(self) -> None:
        """Count the plan's epochs that are saved, unless this was done just now; the heartbeat stores the count."""
        began = time.monotonic()
        if began > self._next_count:
            self._begun.record.epochs_saved = self._ledger.done()
            self._next_count = time.monotonic() + 20 * (time.monotonic() - began)  # a twentieth of the time at most

    def waits(self, what_for: str, reason: str) -> None:
        """Let the status show what the training waits for."""
        self._waits[what_for] = reason
        self._begun.record.waits = "; ".join(filter(None, self._waits.values()))

    def reaches_store(self) -> bool:
        """Return whether the driver's own heartbeats reach the store."""
        return self._begun.is_confirmed

    def can_save(self) -> bool:
        """Try whether as many bytes as the largest state can be written into the store."""
        work = self._draft.work
        largest = max(map(work.state_bytes, self._draft.configs), default=0) if work.state_bytes else STATE_BYTES
        try:
            self._store.impatient().probe(largest)
        except Away:
            return False
        return True

    def remark(self, stage: Stage, heading: str, line: str) -> None:
        """Print the line with the replicates that need the stage."""
        self._progress.say(f"{heading}: {_listed(self._ledger.needing(stage))}: {line}")

    def failed(self, stage: Stage, failure: Failure) -> None:
        """Give up every replicate that needs the stage, and print one line."""
        self._active.pop(stage.key, None)
        hit = self._ledger.fail(stage, failure)
        self._outlook.refresh()
        self._count_active()
        if failure.damaged:
            with suppress(StudyError):  # then the next start does it
                self._store.set_aside(failure.damaged)
        self._progress.log.fail(hit, failure.reason, failure.traceback, failure.host)
        self._progress.say(f"failed: {_listed(hit)}: {failure.reason}")
        for replicate in hit:
            self._projection.failed(replicate, failure)
        if not failure.for_good:
            self.points.halt()

    def _lost_ray(self) -> None:
        """Print that Ray has died and close MLflow's runs, before Ray ends this process, too."""
        if not self._needs_ray:
            return
        self._progress.say(f"Ray has ended. Saved states stay, and '{self._resume}' continues the run")
        self._projection.abandon()
        # Another driver may come only when the records are closed.
        self._begun.end("interrupted", trained=0)
        os._exit(EXIT_CODES["interrupted"])
