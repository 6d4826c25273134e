"""Ray Tune as the executor of stages. A Searcher hands out stages whose parent exists, longest remaining path first."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from types import FrameType, SimpleNamespace
from typing import Any, Protocol

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from study import scratch
from study.errors import Refusal
from study.execution.job import Job
from study.execution.losses import LOST_HINT, Loss, loss_of
from study.masking import masked
from study.planning.tree import Failure, Stage, descendants
from study.store.s3 import set_variables

# Tune would put these into runtime environments, which Ray's agents write to their logs. `Job` carries them instead.
class_cache.ENV_VARS_TO_PROPAGATE = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}

LOST_ATTEMPTS = 3
GPU_PARTS = 10_000  # Ray's smallest part of a GPU is one of so many
WAIT_SECONDS = 10.0  # without a running stage before the user reads what the first one waits for
WAIT_AGAIN_SECONDS = 60.0
NODE_LABEL = "ray.io/node-id"  # which Ray gives to every node


class Events(Protocol):
    """The receiver of events, which also supplies further stages. It is called in the driver's main thread."""

    def trained(self, stage: Stage, epochs: int) -> None:
        """Note that a number of further epochs of a stage have been trained."""

    def durable(self, key: str) -> bool:
        """Note that a worker has saved a state; return whether the driver sees it in the store."""

    def failed(self, stage: Stage, failure: Failure) -> None:
        """Note that a stage was given up."""

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Return further stages for idle workers: an empty list if there are none yet, None if none will come.

        Args:
            workers: the number of workers.
            idle: whether nothing is being trained, so that a short wait for an answer costs nothing.
        """


@dataclass
class Drain:
    """The user's request to stop: workers finish their epoch and save, and no further stage is started."""

    requested: bool = False


class StageSearcher(Searcher):
    """Hands out stages whose parent exists, and drops stages that can no longer be trained.

    A stage whose process is lost is handed out again, up to three attempts in all. A stage that fails is given up at
    once.

    Args:
        stages: the first stages; `events` may supply more.
        workers: the number of stages at the same time.
        drain: once requested, nothing more is handed out.
        events: the receiver of events.
    """

    def __init__(self, stages: Sequence[Stage], workers: int, drain: Drain, events: Events) -> None:
        super().__init__(metric="position", mode="max")
        self._open: dict[str, Stage] = {}  # stages that are not trained yet, by name
        self._waiting: dict[str, list[Stage]] = {}
        self._ready: list[tuple[int, int, Stage]] = []
        self._order = itertools.count()
        self._attempts: dict[str, int] = {}
        self._reasons: dict[str, str] = {}  # by stage: why its last process was lost, in words
        self._losses: dict[str, Loss] = {}  # by stage: the last one
        self._saved: dict[str, str] = {}  # by stage: the last state that a lost process saved
        self._running: dict[str, tuple[Stage, int, str]] = {}  # trial → stage, epochs reported, last state saved
        self._workers, self._drain, self._events = workers, drain, events
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
        """Return a stage with the last state that a lost attempt at it saved.

        Return None while no stage is ready, and FINISHED when no stage is left.
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
        self._reasons.pop(stage.key, None)
        self._running[trial_id] = (stage, stage.keys.index(saved) + 1 if saved else 0, saved)
        return {"stage": stage, "saved": saved}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on the progress of a stage, and a state that it saved on the way."""
        if trial_id in self._running and "position" in result:
            stage, reported, saved = self._running[trial_id]
            if "lost" in result:
                self._reasons[stage.key] = result["lost"]
            if result["position"] > reported:
                self._events.trained(stage, result["position"] - reported)
            if result["saved"] and result["saved"] != saved:
                if self._events.durable(result["saved"]):
                    saved = result["saved"]
                else:
                    host = result.get("hostname", "a node")
                    self._reasons[stage.key] = f"{host} has saved a state that the driver does not see in the store"
            self._running[trial_id] = (stage, result["position"], saved)

    def lost(self, trial_id: str, loss: Loss) -> None:
        """Note why the process of a stage was lost, before its trial is completed."""
        if trial_id in self._running:
            key = self._running[trial_id][0].key
            self._reasons.setdefault(key, loss.reason)  # the process itself may have reported one, which says more
            self._losses[key] = loss

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Release the stages that waited for a trained stage. Hand out a lost stage again, or give up a failed one."""
        if trial_id not in self._running:
            return
        if result is not None and not error:
            self.on_trial_result(trial_id, result)
        stage, _, saved = self._running.pop(trial_id)
        prefix = "failure/"  # Tune flattens the dictionary `failure`
        failure = {
            name.removeprefix(prefix): value for name, value in (result or {}).items() if name.startswith(prefix)
        }
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
                reason = f"the training process ended unexpectedly {LOST_ATTEMPTS} times"
                last = self._reasons.get(stage.key, LOST_HINT)
                loss = self._losses.get(stage.key, Loss("", "", ""))
                self._give_up(stage, Failure(f"{reason}. {last}", loss.text, host=loss.host))

    def _give_up(self, stage: Stage, failure: Failure) -> None:
        for below in [stage, *descendants(stage.key, self._open.values())]:
            self._waiting.pop(below.parent, None)
            del self._open[below.key]
        reason, traceback = masked(failure.reason), masked(failure.traceback)  # an error may name a URL
        self._events.failed(stage, replace(failure, reason=reason, traceback=traceback))

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


@dataclass
class _StopEach(tune.Stopper):
    """Ends each stage at its next report once a drain is requested. Tune then lets the stage's actor save.

    Ending the whole experiment instead (`stop_all`) would kill workers whose epoch takes longer than 15 s.
    """

    drain: Drain = field(default_factory=Drain)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return self.drain.requested

    def stop_all(self) -> bool:
        return False


class _Silent(TrialProgressCallback):
    """Prints nothing; Tune's own callback prints a line for each stage that ends before its first report."""

    def on_trial_complete(self, *_arguments: object, **_named: object) -> None:
        """Print nothing."""


class _Gate(FIFOScheduler):
    """Keeps stages that have no process yet from starting after a drain, and says what they wait for.

    Tune asks it several times a second.
    """

    def __init__(self, searcher: StageSearcher, drain: Drain, say_waiting: Callable[[], None]) -> None:
        super().__init__()
        self._searcher, self._drain, self._say_waiting = searcher, drain, say_waiting
        self._next_look = time.monotonic() + WAIT_SECONDS

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the searcher why a process was lost; Tune tells it only that."""
        super().on_trial_error(tune_controller, trial)
        error = _last_error(trial)
        if error is not None:
            self._searcher.lost(trial.trial_id, loss_of(error))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Stop the pending stages once a drain is requested; otherwise choose as Tune does."""
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        if self._drain.requested:
            for trial in pending:
                trial.init_local_path()  # otherwise Tune could not make its result
                tune_controller.stop_trial(trial)
            return None
        now = time.monotonic()
        if not pending or len(pending) < len(tune_controller.get_live_trials()):
            self._next_look = now + WAIT_SECONDS
        elif now > self._next_look:
            self._next_look = now + WAIT_AGAIN_SECONDS
            if not _is_placed():
                self._say_waiting()
        return super().choose_trial_to_run(tune_controller)

    def __deepcopy__(self, _memo: object) -> _Gate:
        """Return itself; see `StageSearcher.__deepcopy__`."""
        return self

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Return an empty object; see `StageSearcher.__reduce__`."""
        return object, ()


def _last_error(trial: Trial) -> BaseException | None:
    """Return the last error of a trial, which Tune has written into this driver's own folder; None if there is none."""
    if trial.pickled_error_file is not None and Path(trial.pickled_error_file).is_file():
        error: BaseException = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error
    if trial.error_file is not None and Path(trial.error_file).is_file():
        return RuntimeError(Path(trial.error_file).read_text(encoding="utf-8"))
    return None


def _is_placed() -> bool:
    """Return whether a stage of this driver has its resources, so that only its process is being started."""
    job = ray.get_runtime_context().get_job_id()  # an identifier of a placement group ends in its job's
    groups = ray.util.placement_group_table()
    return any(name.endswith(job) and group["state"] == "CREATED" for name, group in groups.items())


def waiting(bundle: Mapping[str, float], ranks: int, total: Mapping[str, float], free: Mapping[str, float]) -> str:
    """Return a line about the resources that a stage wants and those that are free.

    Args:
        bundle: what each rank of a stage wants, by kind.
        ranks: the number of ranks.
        total: what the machines that train have.
        free: what is free of it; empty if it is not known, because Ray counts machines that were left out.
    """
    wanted = [f"{need * ranks:g} {kind}{'' if need * ranks == 1 else 's'}" for kind, need in bundle.items()]
    counts = [f"{total[kind]:g} {kind}s" for kind in bundle]
    state = f"others use some of the {' and '.join(counts)}"
    if free:
        counts = [f"{free.get(kind, 0):g} of {count}" for kind, count in zip(bundle, counts, strict=True)]
        state = f"{' and '.join(counts)} are free"
    return f"waiting for Ray: a trial wants {' and '.join(wanted)}, and {state}"


def execute(
    stages: Sequence[Stage],
    job: Job,
    trainable: type,
    drain: Drain,
    events: Events,
    say: Callable[[str], None] = lambda _line: None,
    left_out: Collection[str] = (),
) -> None:
    """Train stages until no stage is left that can be trained, or a drain is requested. Ray must be connected.

    Args:
        stages: from `tree.stages`, sorted by priority; `events` may supply more.
        job: the workers' settings, with the resources of a stage and the number of stages at a time.
        trainable: a Ray Trainable class that takes a `Job`.
        drain: requested from outside, for instance by a signal.
        events: the receiver of events.
        say: prints a line, if no stage can start because others use the machines.
        left_out: Ray's identifiers of the nodes that train nothing.

    Raises:
        Refusal: if not even one stage fits on the machines.
    """
    resources = job.resources
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    usable = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in left_out]
    machines = [node["Resources"] for node in usable]
    for kind, option in (("CPU", "--cpus-per-trial"), ("GPU", "--gpus-per-trial")):
        available = [machine.get(kind, 0) for machine in machines]
        most = min(sum(available), job.ranks * max(available))  # a rank runs on one machine
        if needs[kind] > most:
            raise Refusal(option, needs[kind], f"must be at most {most:g}", hint="The machines have no more")
    bundle = {kind: need / job.ranks for kind, need in needs.items() if need}
    chosen = {NODE_LABEL: f"in({','.join(node['NodeID'] for node in usable)})"} if left_out else {}
    bundles = tune.PlacementGroupFactory([bundle] * job.ranks, bundle_label_selector=[chosen] * job.ranks)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it warns about logs and snapshots that are not kept
    stages_that_fit = sum(room(machine, bundle) for machine in machines) // job.ranks
    if not stages_that_fit:
        hint = "Choose another number of ranks, or fewer CPUs or GPUs per trial"
        raise Refusal("--ranks-per-trial", job.ranks, "must be so small that a trial fits on the machines", hint=hint)
    # Never more than fit: a stage that waits for room would start when a drain frees some.
    workers = min(resources.workers, stages_that_fit) if resources.workers else stages_that_fit
    if resources.workers > workers:
        say(f"training {workers} at a time, not {resources.workers} (--workers): the machines have room for no more")
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)  # otherwise Tune would start the processes one by one
    searcher = StageSearcher(stages, workers, drain, events)

    def say_waiting() -> None:
        total = {kind: sum(machine.get(kind, 0) for machine in machines) for kind in bundle}
        say(waiting(bundle, job.ranks, total, {} if left_out else ray.available_resources()))

    with _session_folder() as session, redirect_stdout(sys.stderr):
        # Not a `Tuner`: with ray://, it would move this driver, with its searcher and its events, to the head node.
        tune.run(
            _with_job(trainable, job),
            _remote=False,
            resources_per_trial=bundles,
            search_alg=searcher,
            scheduler=_Gate(searcher, drain, say_waiting),
            num_samples=-1,
            reuse_actors=True,
            name="stages",
            storage_path=session,
            verbose=0,
            callbacks=[_Silent()],
            progress_reporter=tune.CLIReporter(),  # silent; Tune's own choice would clear the outputs of a notebook
            stop=_StopEach(drain),
            max_failures=0,
            raise_on_failed_trial=False,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        )


@contextmanager
def _session_folder() -> Iterator[str]:
    """Yield a folder for Tune's files, in the folder of Ray's session: that one is removed even after a `kill -9`.

    With ray://, there is no session on this machine, and Tune is told of a folder in its place.
    """
    worker = ray._private.worker
    if worker._global_node is not None:
        with tempfile.TemporaryDirectory(prefix="study-", dir=worker._global_node.get_session_dir_path()) as folder:
            yield folder
        return
    with scratch.folder() as folder:
        worker._global_node = SimpleNamespace(get_session_dir_path=lambda: str(folder))
        try:
            yield str(folder)
        finally:
            worker._global_node = None


def _with_job(trainable: type, job: Job) -> type:
    """Return a trainable whose class holds the job.

    `tune.with_parameters` would put the job into Ray's object store. When Ray's processes end, as when a machine goes
    down, Ray ends a driver that has objects there at once, before it can close its records.
    """

    class WithJob(trainable):
        def setup(self, config: dict[str, Any]) -> None:
            set_variables(job.variables)
            super().setup(config, job)

    WithJob.__name__ = trainable.__name__  # Ray shows it as the name of the process
    return WithJob


def room(machine: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """Return the number of bundles that a machine has room for.

    A bundle has at most one GPU, and a fraction lies on one GPU: three GPUs have room for three bundles of 0.7.
    """
    bundles = [int(machine.get("CPU", 0) / bundle["CPU"] + 1e-6)] if "CPU" in bundle else []
    if "GPU" in bundle:
        parts = max(1, int(bundle["GPU"] * GPU_PARTS + 1e-6))  # Ray rounds down: six times 0.16667 fit
        bundles.append(int(machine.get("GPU", 0)) * (GPU_PARTS // parts))
    return min(bundles)


@contextmanager
def interruptible(drain: Drain, say: Callable[[str], None]) -> Iterator[None]:
    """Request a drain on the first SIGINT, SIGTERM or SIGHUP within the context.

    A further SIGINT or SIGTERM raises KeyboardInterrupt. A further SIGHUP does nothing, because a terminal that closes
    may send several. A SIGHUP that is ignored (``nohup``) stays ignored.
    """
    # A thread prints, since a signal may come while this one prints, and Python refuses a write within a write.
    lines: SimpleQueue[str | None] = SimpleQueue()

    def print_lines() -> None:
        for line in iter(lines.get, None):
            say(line)

    def handle(number: int, _frame: FrameType | None) -> None:
        if drain.requested:
            if number != signal.SIGHUP:
                raise KeyboardInterrupt
            return
        drain.requested = True
        lines.put("stopping: workers finish their epoch and save. Press Ctrl-C again to stop at once")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    printer = threading.Thread(target=print_lines, name="print signals", daemon=True)
    printer.start()
    earlier_handlers = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier_handlers.items():
            signal.signal(number, handler)
        lines.put(None)
        printer.join()
