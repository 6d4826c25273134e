"""Ray Tune executes stages: a Searcher hands out those whose parent exists, longest remaining path first."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
import ray
from ray import tune
from ray.tune.search import Searcher

from study import modules
from study.errors import Refusal
from study.execution.job import Job
from study.planning.tree import Failure, Stage, descendants

LOST_ATTEMPTS = 3


class Events(Protocol):
    """Who is told what happens, and asked for more; called in the driver's main thread."""

    def trained(self, stage: Stage, epochs: int) -> None:
        """So many more epochs of a stage have been trained."""

    def durable(self, key: str) -> None:
        """A state is in the store."""

    def failed(self, stage: Stage, failure: Failure) -> None:
        """A stage was given up."""

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Further stages for workers that have nothing to do; none yet, or None if there will be none.

        Args:
            workers: how many there are.
            idle: whether nothing is being trained, so that waiting a little for an answer costs nothing.
        """


@dataclass
class Drain:
    """Whether the user has asked to stop: workers end their epoch and save, nothing new is begun."""

    requested: bool = False


class StageSearcher(Searcher):
    """Hands out stages whose parent exists; lets go of those that can no longer be trained.

    A stage whose process is lost is handed out again, three times at most; one that fails is given up at once.

    Args:
        stages: to begin with; `events` may have more.
        workers: stages at a time.
        drain: once requested, nothing more is handed out.
        events: who is told.
    """

    def __init__(self, stages: Sequence[Stage], workers: int, drain: Drain, events: Events) -> None:
        super().__init__(metric="position", mode="max")
        self._open: dict[str, Stage] = {}  # what is not trained yet, by name
        self._waiting: dict[str, list[Stage]] = {}
        self._ready: list[tuple[int, int, Stage]] = []
        self._order = itertools.count()
        self._attempts: dict[str, int] = {}
        self._reasons: dict[str, str] = {}  # by a stage that lost another rank's process
        self._saved: dict[str, str] = {}  # by a stage that lost its process
        self._running: dict[str, tuple[Stage, int, str]] = {}  # trial → stage, epochs reported, last state saved
        self._workers, self._drain, self._events = workers, drain, events
        self.add(stages)

    def add(self, stages: Sequence[Stage]) -> None:
        """Take in stages, sorted by priority; those that are under way already are left as they are."""
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
        """A stage, with the last state that a lost attempt at it saved.

        None while no stage is ready; FINISHED when none is left.
        """
        if self._drain.requested:
            return Searcher.FINISHED
        if len(self._running) >= self._workers:
            return None
        if not self._ready:
            more = self._events.more(self._workers, idle=not self._running)
            self.add(more or ())
            if not self._ready:
                return Searcher.FINISHED if more is None and not self._running else None
        stage = heapq.heappop(self._ready)[2]
        saved = self._saved.get(stage.key, "")
        self._running[trial_id] = (stage, stage.keys.index(saved) + 1 if saved else 0, saved)
        return {"stage": stage, "saved": saved}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on progress, and any state that was saved on the way."""
        if trial_id in self._running and "position" in result:
            stage, reported, saved = self._running[trial_id]
            if "lost" in result:
                self._reasons[stage.key] = f", lastly with {result['lost']}"
            self._running[trial_id] = (stage, result["position"], result["saved"])
            if result["position"] > reported:
                self._events.trained(stage, result["position"] - reported)
            if result["saved"] and result["saved"] != saved:
                self._events.durable(result["saved"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Release what waited for the stage; or hand it out again, or let go of what needs it."""
        if trial_id not in self._running:
            return
        if result is not None and not error:
            self.on_trial_result(trial_id, result)
        stage, _, saved = self._running.pop(trial_id)
        told = (result or {}).items()
        failure = {name.removeprefix("failure/"): own for name, own in told if name.startswith("failure/")}  # by Tune
        if saved == stage.key:
            del self._open[stage.key]
            for child in self._waiting.pop(stage.key, ()):
                self._push(child)
        elif failure and not error:
            self._give_up(stage, Failure(**failure))
        elif not self._drain.requested:
            self._attempts[stage.key] = self._attempts.get(stage.key, 0) + 1
            self._saved[stage.key] = saved
            if self._attempts[stage.key] < LOST_ATTEMPTS:
                self._push(stage)
            else:
                reason = f"its process was lost {LOST_ATTEMPTS} times{self._reasons.get(stage.key, '')}"
                self._give_up(stage, Failure(reason))

    def _give_up(self, stage: Stage, failure: Failure) -> None:
        for below in [stage, *descendants(stage.key, self._open.values())]:
            self._waiting.pop(below.parent, None)
            del self._open[below.key]
        self._events.failed(stage, failure)

    def __deepcopy__(self, _memo: object) -> StageSearcher:
        """Itself: Tune copies its configuration."""
        return self

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Nothing: Tune pickles its configuration for a restore that never happens."""
        return object, ()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a run is taken up again from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see `save`."""


@dataclass
class _StopEach(tune.Stopper):
    """Once a drain is requested, ends each stage at its own next report; Tune then lets its actor save.

    Ending the experiment instead (`stop_all`) would kill a worker whose epoch takes longer than 15 s.
    """

    drain: Drain = field(default_factory=Drain)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return self.drain.requested

    def stop_all(self) -> bool:
        return False


def execute(stages: Sequence[Stage], job: Job, trainable: type, drain: Drain, events: Events) -> None:
    """Train stages until none is left that can be, or a drain is requested. Ray must be connected.

    Args:
        stages: from `tree.stages`, sorted by priority; `events` may have more.
        job: what workers are told of them, and how many there are at a time.
        trainable: a Ray Trainable class that takes a `Job`.
        drain: requested from outside, for instance by a signal.
        events: who is told what happens.

    Raises:
        Refusal: if the machines have no room for even one stage.
    """
    resources = job.resources
    each = {"CPU": resources.cpus, "GPU": resources.gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, option in (("CPU", "--cpus-per-trial"), ("GPU", "--gpus-per-trial")):
        has = [machine.get(kind, 0) for machine in machines]
        most = min(sum(has), job.ranks * max(has))  # a rank is on one machine
        if each[kind] > most:
            raise Refusal(option, each[kind], f"at most {most:g}, what the machines have, would do")
    bundle = {kind: need / job.ranks for kind, need in each.items() if need}
    bundles = tune.PlacementGroupFactory([bundle] * job.ranks)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it complains of logs and snapshots that are not kept
    fits = sum(_room(machine, bundle) for machine in machines) // job.ranks
    if not fits:
        remedy = "another number, or fewer CPUs or GPUs a trial, would do: the machines have no room for a whole one"
        raise Refusal("--ranks-per-trial", job.ranks, remedy)
    # Never more than fit: a stage that waits for room would begin when a drain makes some.
    workers = min(resources.workers, fits) if resources.workers else fits
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)  # or Tune would start one process after the other
    if trainable.__module__.startswith(modules.BY_PATH):  # workers could not import it
        ray.cloudpickle.register_pickle_by_value(sys.modules[trainable.__module__])
    searcher = StageSearcher(stages, workers, drain, events)
    with tempfile.TemporaryDirectory(prefix="study-") as scratch, redirect_stdout(sys.stderr):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, job=job), bundles),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="stages",
                storage_path=scratch,
                verbose=0,
                progress_reporter=tune.CLIReporter(),  # silent; Tune's own choice would clear the outputs of a notebook
                stop=_StopEach(drain),
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()


def _room(machine: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """How many such bundles a machine has room for."""
    return min(int(machine.get(kind, 0) / need + 1e-6) for kind, need in bundle.items())


@contextmanager
def interruptible(drain: Drain, say: Callable[[str], None]) -> Iterator[None]:
    """Within it, the first SIGINT or SIGTERM requests a drain, the second stops at once (KeyboardInterrupt)."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if drain.requested:
            raise KeyboardInterrupt
        drain.requested = True
        say("stopping: workers end their epoch and save; once more to stop at once")

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
