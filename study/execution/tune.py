"""Ray Tune as the executor of stages."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
import ray
from ray import tune
from ray.tune.execution import class_cache, experiment_state
from ray.tune.execution.tune_controller import TuneController
from ray.tune.progress_reporter import TrialProgressCallback

from study import scratch
from study.execution.events import ALONE, Events, Others
from study.execution.gate import Gate
from study.execution.interrupts import Drain
from study.execution.job import Job
from study.execution.nodes import Checks
from study.execution.pool import Pool
from study.execution.searcher import StageSearcher
from study.execution.workers import with_job
from study.planning.tree import Stage

# Tune would put these into runtime environments, which Ray's agents write to their logs. `Job` carries them instead.
class_cache.ENV_VARS_TO_PROPAGATE = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}

PENDING = 1_000_000  # stages that may wait for a process: the searcher hands out as many as there are workers


class _Silent(TrialProgressCallback):
    """Prints nothing; Tune's own callback prints a line for each stage that ends before its first report."""

    def on_trial_complete(self, *_arguments: object, **_named: object) -> None:
        """Print nothing."""


def execute(
    stages: Sequence[Stage],
    job: Job,
    trainable: type,
    drain: Drain,
    events: Events,
    say: Callable[[str], None] = lambda _line: None,
    checks: Checks | None = None,
    others: Others = ALONE,
) -> None:
    """Train stages until no stage is left that can be trained, or a drain is requested. Ray must be connected.

    Args:
        stages: from `tree.stages`, sorted by priority; `events` may supply more.
        job: the workers' settings, with the resources of a stage and the number of stages at a time.
        trainable: a Ray Trainable class that takes a `Job`.
        drain: requested from outside, for instance by a signal.
        events: the receiver of events.
        say: prints a line, as about machines that join and workers that do not report.
        checks: the nodes that were asked at the start, and what is asked of others; None to ask none.
        others: the drivers of other runs.

    Raises:
        Refusal: if not even one stage fits on the machines.
    """
    pool = Pool(job, () if checks is None else checks.left_out, say)
    pool.look()
    pool.check()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it warns about logs and snapshots that are not kept
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(PENDING)  # otherwise Tune would start the processes one by one
    for kind in ("", "_AUTOSCALER"):  # Tune's warning fails if a run waits for long before its first stage; Gate warns
        os.environ[f"TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S{kind}"] = "inf"  # it is spelt so
    searcher = StageSearcher(stages, pool, drain, events, others)
    with _session_folder() as session, _without_snapshots(), _without_blocking(), redirect_stdout(sys.stderr):
        # Not a `Tuner`: with ray://, it would move this driver, with its searcher and its events, to the head node.
        tune.run(
            with_job(trainable, job, checks),
            _remote=False,
            search_alg=searcher,
            scheduler=Gate(searcher, pool, drain, events, say),
            num_samples=-1,
            reuse_actors=True,
            name="stages",
            storage_path=session,
            verbose=0,
            callbacks=[_Silent()],
            progress_reporter=tune.CLIReporter(),  # silent; Tune's own choice would clear the outputs of a notebook
            max_failures=0,
            raise_on_failed_trial=False,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        )
    searcher.check()


@contextmanager
def _without_snapshots() -> Iterator[None]:
    """Within this context, Tune writes the states of its trials at the start only, for its own end needs a file.

    They are for a restore that never happens, and take it seconds for a few hundred trials, in which no worker is
    served. Its option for a longer period leaves the last time, with all trials.
    """
    manager = experiment_state._ExperimentCheckpointManager
    sync, are_written = manager.sync_up_experiment_state, False

    def sync_once(self: Any, save_fn: Callable[[], None], force: bool = False, wait: bool = False) -> None:
        nonlocal are_written
        if not are_written or wait:
            sync(self, (lambda: None) if are_written else save_fn, force, wait)
            are_written = True

    manager.sync_up_experiment_state = sync_once
    try:
        yield
    finally:
        manager.sync_up_experiment_state = sync


@contextmanager
def _without_blocking() -> Iterator[None]:
    """Within this context, Tune looks after its processes, and asks `Gate`, also while the searcher has no stage.

    Otherwise it would only ask the searcher, for up to ten minutes, and hold a process and its resources meanwhile.
    """
    update = TuneController._update_trial_queue

    def update_once(self: Any, blocking: bool = False, timeout: int = 0) -> bool:  # noqa: ARG001
        return bool(update(self))

    TuneController._update_trial_queue = update_once
    try:
        yield
    finally:
        TuneController._update_trial_queue = update


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
