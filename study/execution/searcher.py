"""The Searcher of Ray Tune that hands out stages whose parent exists, longest remaining path first."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
from ray.tune.search import Searcher

from study.execution.attempts import Attempts
from study.execution.events import ALONE, Events, Others
from study.execution.interrupts import Drain
from study.execution.losses import KILLED, Loss
from study.execution.outage import Outage
from study.execution.pool import Pool
from study.masking import masked
from study.planning.tree import Failure, Stage, descendants

UNFIT = "unfit/"  # Tune flattens a report's dictionaries
ELSEWHERE_SECONDS = 2.0  # between two looks for stages that other drivers train
LEFT_SECONDS = 3 * ELSEWHERE_SECONDS  # in which another driver may claim a stage that this one has no room for


@dataclass
class _Running:
    """A trial that is being trained.

    Attributes:
        position: the epochs of its stage that were reported.
        saved: the last state of its stage that is in the store, or "".
        nodes: the nodes of its ranks, when it has reported.
        host: the machine of its rank 0, when it has reported.
        loss: why its process was lost, as far as this is known.
        is_moved: whether it must go on in another process, through nobody's fault.
        is_left: whether another driver trains it, or may do so first.
    """

    stage: Stage
    position: int
    saved: str
    nodes: Sequence[str] = ()
    host: str = ""
    loss: Loss | None = None
    is_moved: bool = False
    is_left: bool = False


class StageSearcher(Searcher):
    """Hands out stages whose parent exists, and drops stages that can no longer be trained.

    A stage whose process is lost is handed out again, see `Attempts`. So is one whose failure may be that of its
    machine, if there is another machine. A stage whose training raised is given up at once. While a worker cannot use
    the store, no further stage is handed out.

    Args:
        stages: the first stages; `events` may supply more.
        pool: the machines, which say how many stages are trained at the same time.
        drain: once requested, nothing more is handed out.
        events: the receiver of events.
        others: the drivers of other runs.

    Attributes:
        outage: the workers that cannot use the store.
        waits_elsewhere: whether all that is left to train is being trained by other drivers.
    """

    def __init__(
        self, stages: Sequence[Stage], pool: Pool, drain: Drain, events: Events, others: Others = ALONE
    ) -> None:
        super().__init__(metric="position", mode="max")
        self._open: dict[str, Stage] = {}  # stages that are not trained yet, by name
        self._waiting: dict[str, list[Stage]] = {}
        self._ready: list[tuple[int, int, Stage]] = []
        self._order = itertools.count()
        self._saved: dict[str, str] = {}  # by stage that was stopped before its end: the last state that it saved
        self._running: dict[str, _Running] = {}  # by trial
        self._elsewhere: list[Stage] = []  # stages that other drivers train
        self.waits_elsewhere = False
        self._told_of_wait = ""
        self._counted: dict[str, int] = {}  # by stage that was left to another driver, or cut: epochs that are counted
        self._next_look = 0.0
        self._kept: dict[str, frozenset[str]] = {}  # by trial: states that its worker was asked to save
        self._pool, self._drain, self._events, self._others = pool, drain, events, others
        self._attempts = Attempts(pool)
        self._fault: Exception | None = None
        self.outage = Outage(events.can_save)
        self.add(stages)

    def add(self, stages: Sequence[Stage]) -> None:
        """Add stages, sorted by priority. Stages that are already known are not added again."""
        new = [stage for stage in stages if stage.key not in self._open]
        self._open.update({stage.key: stage for stage in new})
        for stage in new:
            if stage.parent in self._open:
                self._waiting.setdefault(stage.parent, []).append(stage)
            else:
                self._push(stage)

    def _push(self, stage: Stage) -> None:
        heapq.heappush(self._ready, (-stage.remaining, next(self._order), stage))

    def suggest(self, trial_id: str) -> dict[str, Any] | Any:
        """Return a trial's configuration; see `study.execution.job`.

        Return None while no stage is ready, and FINISHED when no stage is left.
        """
        self.check()
        if self._drain.requested:
            return Searcher.FINISHED
        if len(self._running) >= self._pool.workers or (self._running and self.outage.reason):
            return None
        self._look_elsewhere()
        stage = self._next()
        if stage is None:
            more = self._events.more(self._pool.workers, idle=not self._running)
            self.add(more or ())
            stage = self._next()
        if stage is None:
            self._wait_elsewhere(bool(self._elsewhere) and not self._running)
            return Searcher.FINISHED if more is None and not self._running and not self._elsewhere else None
        saved = self._saved.get(stage.key, "")
        self._running[trial_id] = _Running(stage, self._position(stage), saved)
        avoided = self._pool.avoided(self._attempts.lost_on(stage.key))
        self._wait_elsewhere(False)
        again = stage.key in self._saved or self._others.was_shared(stage)
        return {"stage": stage, "saved": saved, "again": again, "avoided": avoided}

    def _next(self) -> Stage | None:
        """Return the next stage that no other driver trains; None if there is none."""
        while self._ready:
            stage = self._cut(heapq.heappop(self._ready)[2])
            if not self._others.begin(stage):
                self._elsewhere.append(stage)
            elif stage.key not in self._saved and self._others.arrived(stage):  # another driver was faster
                self._others.end(stage)
                self._take(stage)
            else:
                return stage
        return None

    def _cut(self, stage: Stage) -> Stage:
        """Cut a stage where other drivers need its states; return the first part."""
        parts = self._others.cut(stage)
        if len(parts) > 1:
            self._events.cut(parts)
            counted = self._position(stage)
            for part in parts:
                self._counted[part.key] = min(counted, len(part.keys))
                counted -= self._counted[part.key]
            if stage.key in self._saved:  # the worker of a part looks for what there is of it
                self._saved |= {part.key: "" for part in parts}
            self._open |= {part.key: part for part in parts}
            for part in parts[1:]:
                self._waiting.setdefault(part.parent, []).append(part)
        return parts[0]

    def _look_elsewhere(self) -> None:
        """Look for the stages that other drivers train. Those that have not arrived may be free by now."""
        if not self._elsewhere or time.monotonic() < self._next_look:
            return
        began = time.monotonic()
        stages, self._elsewhere = self._elsewhere, []
        for stage in stages:
            if self._others.arrived(stage):
                self._take(stage)
            else:
                self._saved.setdefault(stage.key, "")  # its driver may have saved states on the way
                self._push(stage)
        # A look at many stages in a slow store must leave time for the workers.
        self._next_look = time.monotonic() + max(ELSEWHERE_SECONDS, 10 * (time.monotonic() - began))

    def _take(self, stage: Stage) -> None:
        """Complete a stage that another driver has trained."""
        if not self._events.durable(stage.key):  # the store is away again
            self._elsewhere.append(stage)
            return
        self._events.recount(stage, len(stage.keys) - self._position(stage))
        self._complete(stage)

    def _position(self, stage: Stage) -> int:
        """Return how many epochs of a stage are counted: those saved, or trained here before it was left or cut."""
        return max(self._counted.pop(stage.key, 0), _count(stage, self._saved.get(stage.key, "")))

    def _wait_elsewhere(self, waits: bool) -> None:
        self.waits_elsewhere = waits
        runs = sorted({self._others.holder(stage) for stage in self._elsewhere} - {""})
        names = "another run trains" if not runs else f"run {' and run '.join(runs)} train{'s' * (len(runs) == 1)}"
        line = f"{names} what this run needs, too" if waits else ""
        if line != self._told_of_wait:
            self._told_of_wait = line
            self._events.waits("another run", line)

    def _complete(self, stage: Stage) -> None:
        del self._open[stage.key]
        for child in self._waiting.pop(stage.key, ()):
            self._push(child)

    def to_keep(self, trials: Collection[str]) -> dict[str, Collection[str]]:
        """Return by trial the states that its worker must save from now on, because other drivers need them.

        Also claim what no other driver knew of when it began, and leave what another driver trains by now.

        Args:
            trials: those that have a worker.
        """
        asked: dict[str, Collection[str]] = {}
        for trial_id, trial in self._running.items():
            if trial_id in self.outage or trial.is_left:  # the first may have trained what it cannot save yet
                continue
            keys = self._others.keep(trial.stage, trial.position)
            if keys is None:
                trial.is_left = True
            elif trial_id in trials:
                before = self._kept.get(trial_id, frozenset[str]())
                if set(keys) - before:
                    asked[trial_id] = keys
                self._kept[trial_id] = before.union(keys)
        return asked

    def is_left(self, trial_id: str) -> bool:
        """Return whether the stage of a trial is left to another driver, so that the trial must be stopped."""
        return trial_id in self._running and self._running[trial_id].is_left

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on the progress of a stage, and a state that it saved on the way."""
        with self.keeping_faults():
            self._report(trial_id, result)

    def _report(self, trial_id: str, result: dict[str, Any]) -> None:
        trial = self._running.get(trial_id)
        if trial is None or "position" not in result:
            return
        trial.nodes, trial.host = result.get("nodes", ()), result.get("hostname", "")
        trial.is_moved = bool(result.get("moved"))
        if self._events.reaches_store():  # else no node can use it
            for name in [name for name in result if name.startswith(UNFIT)]:
                self._pool.leave_out(name.removeprefix(UNFIT), result[name])
        if "lost" in result:
            trial.loss = Loss(result["lost"], trial.host, "")
        self.outage.report(trial_id, masked(result.get("waiting", "")))  # an error may name a URL
        begun = result.get("begun", 0)
        if begun > trial.position:  # another driver's, or saved by a process that could not report them any more
            self._events.recount(trial.stage, begun - trial.position)
            trial.position = begun
        if result["position"] > trial.position:
            self._events.trained(trial.stage, result["position"] - trial.position)
            trial.position = result["position"]
        if result["saved"] and result["saved"] != trial.saved:
            if self._events.durable(result["saved"]):
                trial.saved, trial.loss = result["saved"], None
                self.outage.work()
            else:
                trial.loss = Loss("it has saved a state that the driver does not see in the store", trial.host, "")

    def move(self, trial_id: str) -> None:
        """Note that a trial is to go on elsewhere, before it is stopped."""
        if trial_id in self._running:
            self._running[trial_id].is_moved = True

    def is_shared(self, trial_id: str) -> bool:
        """Return whether another driver may train the stage of a trial, too."""
        return trial_id in self._running and self._others.is_shared(self._running[trial_id].stage)

    def leave(self, trial_id: str) -> None:
        """Let another driver train the stage of a trial that waits for room, before the trial is stopped.

        The room may be that of an idle process of the other driver, which in turn waits for this stage.
        """
        self._running[trial_id].is_left = True

    def remark(self, trial_id: str, heading: str, line: str) -> None:
        """Tell the user about the process of a trial; see `Events.remark`."""
        if trial_id in self._running:
            self._events.remark(self._running[trial_id].stage, heading, line)

    def lost(self, trial_id: str, loss: Loss) -> None:
        """Note why the process of a stage was lost, before its trial is completed."""
        trial = self._running.get(trial_id)
        if trial is not None:
            # The process itself may have reported a reason, which says more.
            trial.loss = loss if trial.loss is None else replace(loss, reason=trial.loss.reason)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Release the stages that waited for a trained stage. Hand out a lost stage again, or give up a failed one."""
        if trial_id in self._running:
            with self.keeping_faults():
                self._end(trial_id, result or {}, error)

    def _end(self, trial_id: str, result: dict[str, Any], error: bool) -> None:
        if not error and result:
            self._report(trial_id, result)
        trial = self._running.pop(trial_id)
        self._kept.pop(trial_id, None)
        self.outage.end(trial_id)
        self._others.end(trial.stage)
        stage, prefix = trial.stage, "failure/"  # Tune flattens the dictionary `failure`
        unsaved = trial.position - _count(stage, trial.saved)
        # What is left to another driver is counted as it is, and after a drain the worker saves as it ends.
        if unsaved and not trial.is_left and not self._drain.requested:
            self._events.recount(stage, -unsaved)
        fields = {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}
        if trial.saved == stage.key:
            self._complete(stage)
        elif fields and not error:
            self._fail(trial, Failure(**fields))
        elif not self._drain.requested:
            self._saved[stage.key] = trial.saved
            if trial.is_left:
                self._counted[stage.key] = trial.position
                self._elsewhere.append(stage)
                self._next_look = time.monotonic() + LEFT_SECONDS
            elif trial.is_moved:
                self._push(stage)
            else:
                given_up = self._try_again(trial, self._loss(trial))
                if given_up is not None:
                    self._give_up(stage, given_up)

    def _try_again(self, trial: _Running, loss: Loss) -> Failure | None:
        """Hand a stage out again that has lost a process, unless it is to be given up; return then why."""
        given_up = self._attempts.lose(trial.stage.key, trial.saved, loss)
        if given_up is None:
            self._push(trial.stage)
            if not self._attempts.is_of_machine(loss):  # of which the user is told once, and not for each stage
                self._events.remark(trial.stage, "trying again", masked(str(loss)))
        return given_up

    def _loss(self, trial: _Running) -> Loss:
        self._pool.look(at_once=True)
        loss = trial.loss or Loss(KILLED, trial.host, "")
        ended = next((node for node in trial.nodes if self._pool.is_lost(node)), "")
        node = ended or loss.node or next(iter(trial.nodes), "")
        return replace(loss, node=node, host=self._pool.host(node) or loss.host)

    def _fail(self, trial: _Running, failure: Failure) -> None:
        """Give a failed stage up, unless its machine may be at fault, and there is another one that has not tried."""
        stage, node = trial.stage, next(iter(trial.nodes), "")
        self._pool.look(at_once=True)
        others = self._pool.usable - self._attempts.lost_on(stage.key) - {node}
        is_lost, may_pass = self._pool.is_lost(node), not failure.for_good and not failure.damaged
        if may_pass and node and (others or is_lost) and not self._drain.requested:
            self._saved[stage.key] = trial.saved
            host = failure.host or self._pool.host(node)
            loss = Loss(failure.reason, host, failure.traceback, node, is_lost)
            if self._try_again(trial, loss) is None:
                return
        self._give_up(stage, failure)

    def _give_up(self, stage: Stage, failure: Failure) -> None:
        for below in [stage, *descendants(stage.key, self._open.values())]:
            self._waiting.pop(below.parent, None)
            del self._open[below.key]
        reason, traceback = masked(failure.reason), masked(failure.traceback)  # an error may name a URL
        self._events.failed(stage, replace(failure, reason=reason, traceback=traceback))

    def check(self) -> None:
        """Raise what was raised while Tune passed on a report or the end of a trial.

        Tune itself would take it for a failure of the trial, or raise an error of its own in its place.
        """
        if self._fault is not None:
            raise self._fault

    @contextmanager
    def keeping_faults(self) -> Iterator[None]:
        """Keep what is raised within this context for `check`."""
        try:
            yield
        except Exception as fault:  # noqa: BLE001  see `check`
            self._fault = self._fault or fault

    def __deepcopy__(self, _memo: object) -> StageSearcher:
        """Return itself, because Tune copies its configuration."""
        return self

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Return an empty object, because Tune pickles its configuration for a restore that never happens."""
        return object, ()

    def save(self, checkpoint_path: str) -> None:
        """Do nothing, because a run is resumed from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see `save`."""


def _count(stage: Stage, saved: str) -> int:
    """Return how many epochs of a stage are saved, given the last state that is, or ""."""
    return stage.keys.index(saved) + 1 if saved else 0
