"""The scheduler of Ray Tune, which is asked several times a second: it looks after drains, machines and workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
import ray
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from study.execution.events import Events
from study.execution.interrupts import Drain
from study.execution.losses import Loss, loss_of
from study.execution.pool import Pool
from study.execution.searcher import StageSearcher
from study.execution.silence import Silence, Silent

WAIT_SECONDS = 10.0  # without a running stage before the user reads what the first one waits for
WAIT_AGAIN_SECONDS = 60.0
LEAVE_SECONDS = 20.0  # without a running stage before another driver may train those that wait for room
TICK_SECONDS = 0.5
STORE_SECONDS = 1800.0  # for which workers wait for the store before the run ends
HANG_SECONDS = 60.0  # without a heartbeat in the store and a worker's report: a file system may hang instead of failing


class Gate(FIFOScheduler):
    """Starts stages as Tune does, and meanwhile looks after the run.

    After a drain, stages that have no process yet do not start. The number of workers follows the machines. A worker
    that is silent for too long is replaced. The user reads what the run waits for: machines, or the store.

    Args:
        searcher, pool, drain, events: of the run.
        say: prints a line.
    """

    def __init__(
        self, searcher: StageSearcher, pool: Pool, drain: Drain, events: Events, say: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._searcher, self._pool, self._drain, self._events, self._say = searcher, pool, drain, events, say
        self._silence = Silence()
        self._next_tick = time.monotonic()
        self._idle_since: tuple[float, datetime] | None = None  # monotonic, and the time of day
        self._next_line = 0.0
        self._store_since: tuple[float, datetime] | None = None
        self._reached = time.monotonic()  # when the store, or a worker that may wait for it, answered last

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Note that a worker has reported."""
        self._reached = time.monotonic()
        self._silence.report(trial.trial_id, waits="waiting" in result)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Note that a trial has ended."""
        self._silence.end(trial.trial_id)
        super().on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the searcher why a process was lost; Tune tells it only that."""
        self._silence.end(trial.trial_id)
        super().on_trial_error(tune_controller, trial)
        error = _last_error(trial)
        if error is not None:
            self._searcher.lost(trial.trial_id, loss_of(error))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Look after the run. Stop the pending stages once a drain is requested."""
        self._look_after_store()
        if self._drain.requested:
            for trial in self._trials(tune_controller):
                if trial.status == Trial.PENDING:
                    self._stop(trial, tune_controller)
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_SECONDS
            self._pool.look()
            trials = self._trials(tune_controller)
            pending = [trial for trial in trials if trial.status == Trial.PENDING]
            if not self._drain.requested:
                self._put_back(pending, tune_controller)
            running = {trial.trial_id: trial for trial in trials if trial.status == Trial.RUNNING}
            self._look_after_workers(running)
            self._look_after_others(running)
            self._look_for_room(is_idle=bool(pending) and len(pending) == len(trials) and not self._drain.requested)
        # Tune itself starts what is pending

    @staticmethod
    def _trials(tune_controller: Any) -> list[Trial]:
        return [trial for trial in tune_controller.get_live_trials() if not trial.is_finished()]  # some were lost

    @staticmethod
    def _stop(trial: Trial, tune_controller: Any) -> None:
        trial.init_local_path()  # otherwise Tune could not make its result
        tune_controller.stop_trial(trial)

    def _put_back(self, pending: list[Trial], tune_controller: Any) -> None:
        """Hand out again what waits for room, and must avoid all machines that are left by now, or waits for long."""
        usable = self._pool.usable
        for trial in pending:
            if usable and usable <= set(trial.config["avoided"]):
                self._searcher.move(trial.trial_id)
                self._stop(trial, tune_controller)
        if self._idle_since is not None and time.monotonic() - self._idle_since[0] > LEAVE_SECONDS:
            shared = [trial for trial in pending if self._searcher.is_shared(trial.trial_id)]
            for trial in shared if shared and not _is_placed() else ():
                self._searcher.leave(trial.trial_id)
                self._stop(trial, tune_controller)

    def _look_after_others(self, running: Mapping[str, Trial]) -> None:
        """Let workers save what other drivers need."""
        for trial_id, keys in self._searcher.to_keep(running.keys()).items():
            actor: Any = running[trial_id].temporary_state.ray_actor
            if hasattr(actor, "keep"):
                actor.keep.remote(keys)

    def _look_after_workers(self, running: Mapping[str, Trial]) -> None:
        for trial_id, trial in running.items():
            if trial_id not in self._silence:
                kind = json.dumps(trial.config["stage"].origin, sort_keys=True)
                self._silence.begin(trial_id, kind, repr(trial.temporary_state.ray_actor))
        for silent in self._silence.look(counts=self._events.reaches_store()):
            if silent.trial in running:
                self._tell(running[silent.trial], silent)
        for trial_id, reason in self._searcher.alone_without_store().items():
            if trial_id in running:
                self._replace(
                    running[trial_id], f"its state cannot be saved or read, and the driver can write: {reason}"
                )

    def _tell(self, trial: Trial, silent: Silent) -> None:
        result = trial.last_result or {}
        worker = f"{result['hostname']} (process {result['pid']})" if "pid" in result else "a worker"
        line = f"{worker} has not reported for {silent.seconds:.0f} s"
        if silent.left > 0:
            self._say(f"{line}. If it does not for {silent.left:.0f} s more, another worker takes its stage over")
        else:
            self._say(f"{line}: another worker takes its stage over")
            self._replace(trial, line)

    def _replace(self, trial: Trial, reason: str) -> None:
        """End a worker, so that its stage is handed out again. If it wakes later, states that exist stay."""
        self._silence.end(trial.trial_id)
        self._searcher.lost(trial.trial_id, Loss(reason, (trial.last_result or {}).get("hostname", ""), ""))
        if trial.temporary_state.ray_actor is not None:  # else it has ended meanwhile
            ray.kill(trial.temporary_state.ray_actor)

    def _look_after_store(self) -> None:
        now = time.monotonic()
        if self._events.reaches_store():
            self._reached = now
        reason = self._searcher.waits() or ("it does not answer" if now - self._reached > HANG_SECONDS else "")
        if reason and self._store_since is None:
            self._store_since = (now, datetime.now())
            self._say(f"training waits, since the store cannot be used: {reason}. Trained epochs are kept in memory")
            self._events.waits(f"the store cannot be used since {_clock(self._store_since[1])}: {reason}")
        elif reason and self._store_since is not None and now - self._store_since[0] > STORE_SECONDS:
            if not self._drain.requested:
                minutes = f"{STORE_SECONDS / 60:.0f} minutes"
                self._drain.requested, self._drain.reason = True, f"the store could not be used for {minutes}: {reason}"
        elif not reason and self._store_since is not None:
            self._say(f"the store can be used again, after {now - self._store_since[0]:.0f} s")
            self._store_since = None
            self._events.waits("")

    def _look_for_room(self, is_idle: bool) -> None:
        """Tell what the first stage waits for while nothing is trained, and how long it has waited."""
        now = time.monotonic()
        if not is_idle:
            if self._idle_since is not None and self._next_line > self._idle_since[0] + WAIT_SECONDS:
                self._events.waits("")
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since, self._next_line = (now, datetime.now()), now + WAIT_SECONDS
        if now > self._next_line:
            self._next_line = now + WAIT_AGAIN_SECONDS
            if not _is_placed():
                line = self._pool.waiting(_clock(self._idle_since[1]))
                self._say(line)
                self._events.waits(line)

    def __deepcopy__(self, _memo: object) -> Gate:
        """Return itself; see `StageSearcher.__deepcopy__`."""
        return self

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Return an empty object; see `StageSearcher.__reduce__`."""
        return object, ()


def _clock(time_of_day: datetime) -> str:
    return time_of_day.strftime("%H:%M:%S")


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
