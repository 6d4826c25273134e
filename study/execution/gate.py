"""The scheduler of Ray Tune, which is asked several times a second: it looks after drains, machines and workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
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
LEAVE_SECONDS = 20.0  # for which a stage waits for room before another driver may train it
TICK_SECONDS = 0.5
PAUSE_SECONDS = 0.1  # between two questions for stages while there are none
STORE_SECONDS = 1800.0  # for which workers wait for the store before the run ends
HANG_SECONDS = 60.0  # without a heartbeat in the store and a worker's report: a file system may hang instead of failing


class Gate(FIFOScheduler):
    """Starts stages as Tune does, and meanwhile looks after the run.

    After a drain, stages that have no process yet do not start, and the others end at their next report. The number of
    workers follows the machines. A worker that is silent for too long is replaced. The user reads what the run waits
    for: machines, or the store.

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
        self._silent: dict[str, str] = {}  # by trial with a worker that is silent: a line about it
        self._next_tick = time.monotonic()
        self._is_draining = False
        self._pending: dict[str, float] = {}  # by trial that waits for room: since when
        self._idle_since: tuple[float, datetime] | None = None  # monotonic, and the time of day
        self._next_line = 0.0
        self._store_since: tuple[float, datetime] | None = None
        self._reached = time.monotonic()  # when the store, or a worker that may wait for it, answered last

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Note that a worker has reported; let it save and stop if the run is to end, or another driver was faster.

        Tune could end the whole experiment instead, but would kill workers whose epoch takes longer than 15 s.
        """
        self._reached = time.monotonic()
        self._note_report(trial, result)
        stops = self._drain.requested or self._searcher.is_left(trial.trial_id)
        return str(self.STOP if stops else super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Note that a trial has ended, with its last report: Tune passes on only those before."""
        self._note_report(trial, result)
        with self._searcher.keeping_faults():
            self._end_watch(trial.trial_id)
        super().on_trial_complete(tune_controller, trial, result)

    def _note_report(self, trial: Trial, result: dict[str, Any]) -> None:
        with self._searcher.keeping_faults():
            self._silence.report(trial.trial_id, waits="waiting" in result)
            if trial.trial_id in self._silent:
                where = self._where(trial.temporary_state.ray_actor)
                self._searcher.remark(trial.trial_id, "reported again", where)
                self._forget_silence(trial.trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Note that a trial ends without a report: it waited for room or for its process."""
        with self._searcher.keeping_faults():
            self._end_watch(trial.trial_id)
        super().on_trial_remove(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the searcher why a process was lost; Tune tells it only that."""
        with self._searcher.keeping_faults():
            self._end_watch(trial.trial_id)
            error = _last_error(trial)
            if error is not None:
                self._searcher.lost(trial.trial_id, loss_of(error))
        super().on_trial_error(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Look after the run. Stop the pending stages once a drain is requested."""
        self._searcher.check()
        self._look_after_store()
        if self._drain.requested:
            if not self._is_draining:
                self._is_draining = True
                self._events.waits("a stop", "it is being stopped: workers finish their epoch and save")
            for trial in self._trials(tune_controller):
                if trial.status == Trial.PENDING:
                    self._stop(trial, tune_controller)
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_SECONDS
            self._pool.look()
            trials = self._trials(tune_controller)
            pending = [trial for trial in trials if trial.status == Trial.PENDING]
            running = {trial.trial_id: trial for trial in trials if trial.status == Trial.RUNNING}
            starting = _starting(pending, tune_controller)
            self._look_after_workers(running, starting)
            self._look_after_others(running)
            if not self._drain.requested:
                self._put_back(pending, starting, tune_controller)
            is_idle = bool(pending) and len(pending) == len(trials) and not starting and not self._drain.requested
            self._look_for_room(is_idle)
            if not trials:
                self._give_up_idle_processes(tune_controller)
        if not tune_controller.get_live_trials():
            time.sleep(PAUSE_SECONDS)
        # Tune itself starts what is pending

    @staticmethod
    def _trials(tune_controller: Any) -> list[Trial]:
        return [trial for trial in tune_controller.get_live_trials() if not trial.is_finished()]  # some were lost

    @staticmethod
    def _stop(trial: Trial, tune_controller: Any) -> None:
        trial.init_local_path()  # otherwise Tune could not make its result
        tune_controller.stop_trial(trial)

    def _put_back(self, pending: list[Trial], starting: Collection[str], tune_controller: Any) -> None:
        """Hand out again what waits for room and must avoid all machines that are left by now.

        Leave to another driver what it trains by now, or may train while this one has no room for it.
        """
        now, usable = time.monotonic(), self._pool.usable
        waiting = [trial for trial in pending if trial.trial_id not in starting]
        self._pending = {trial.trial_id: self._pending.get(trial.trial_id, now) for trial in waiting}
        for trial in waiting:
            id_ = trial.trial_id
            waits_long = now - self._pending[id_] > LEAVE_SECONDS
            if usable and usable <= set(trial.config["avoided"]):
                self._searcher.move(id_)
            elif waits_long and self._searcher.is_shared(id_):
                self._searcher.leave(id_)
            elif not self._searcher.is_left(id_):
                continue
            self._stop(trial, tune_controller)

    def _give_up_idle_processes(self, tune_controller: Any) -> None:
        """End the process that Tune keeps for the next stage, if this run waits for another one: that may need it."""
        if self._searcher.waits_elsewhere:
            _controller(tune_controller)._cleanup_cached_actors(force_all=True)

    def _look_after_others(self, running: Mapping[str, Trial]) -> None:
        """Let workers save what other drivers need."""
        for trial_id, keys in self._searcher.to_keep(running.keys()).items():
            actor: Any = running[trial_id].temporary_state.ray_actor
            if hasattr(actor, "keep"):
                actor.keep.remote(keys)

    def _look_after_workers(self, running: Mapping[str, Trial], starting: Mapping[str, Any]) -> None:
        for trial_id in starting:
            self._silence.start(trial_id)
        actors = {trial_id: trial.temporary_state.ray_actor for trial_id, trial in running.items()}
        for trial_id, trial in running.items():
            if trial_id not in self._silence:
                origin = {name: value for name, value in trial.config["stage"].origin.items() if name != "seed"}
                self._silence.begin(trial_id, json.dumps(origin, sort_keys=True), repr(actors[trial_id]))
                self._forget_silence(trial_id)
        for silent in self._silence.look(counts=self._events.reaches_store(), hurries=self._drain.requested):
            if silent.trial in actors:
                self._tell(silent, "has not reported", actors[silent.trial])
            elif silent.trial in starting:
                self._tell(silent, "has been starting", starting[silent.trial])
        for trial_id, reason in self._searcher.outage.only().items():
            if trial_id in actors:
                reason = f"its state cannot be saved or read, and the driver can write: {reason}"
                self._replace(trial_id, reason, actors[trial_id])

    def _tell(self, silent: Silent, does: str, actor: Any) -> None:
        line = f"its process {does} for {silent.seconds:.0f} s"
        if silent.left <= 0:
            if self._drain.requested:  # otherwise the user reads the same when the stage is handed out again
                self._searcher.remark(silent.trial, "ended", f"{line} ({self._where(actor)})")
            self._replace(silent.trial, line, actor)
            return
        where = self._where(actor)
        since = _clock(datetime.now() - timedelta(seconds=silent.seconds))
        self._silent[silent.trial] = f"a process {does} since {since} ({where})"
        self._show_silence()
        after = f"If that goes on for another {silent.left:.0f} s, a new process takes over"
        self._searcher.remark(silent.trial, "waiting", f"{line} ({where}). {after}")

    def _where(self, actor: Any) -> str:
        """Return the machine and the process of a worker, as far as Ray knows them."""
        return self._loss("", actor).where or "on an unknown machine"

    def _loss(self, reason: str, actor: Any) -> Loss:
        node, process = _location(actor)
        return Loss(reason, self._pool.host(node), "", node, process=f"process {process}" if process else "")

    def _show_silence(self) -> None:
        """Let the status show which workers are silent."""
        self._events.waits("workers", "; ".join(self._silent.values()))

    def _forget_silence(self, trial_id: str) -> None:
        if self._silent.pop(trial_id, ""):
            self._show_silence()

    def _end_watch(self, trial_id: str) -> None:
        self._silence.end(trial_id)
        self._forget_silence(trial_id)

    def _replace(self, trial_id: str, reason: str, actor: Any) -> None:
        """End a worker, so that its stage is handed out again. If it wakes later, states that exist stay."""
        self._end_watch(trial_id)
        self._searcher.lost(trial_id, self._loss(reason, actor))
        if actor is not None:  # else it has ended meanwhile
            ray.kill(actor)

    def _look_after_store(self) -> None:
        now = time.monotonic()
        if self._events.reaches_store():
            self._reached = now
        reason = self._searcher.outage.reason or ("it does not answer" if now - self._reached > HANG_SECONDS else "")
        if reason and self._store_since is None:
            self._store_since = (now, datetime.now())
            self._say(f"training waits, since the store cannot be used: {reason}. Trained epochs are kept in memory")
            self._events.waits("the store", f"the store cannot be used since {_clock(self._store_since[1])}: {reason}")
        elif reason and self._store_since is not None and now - self._store_since[0] > STORE_SECONDS:
            if not self._drain.requested:
                minutes = f"{STORE_SECONDS / 60:.0f} minutes"
                self._drain.requested, self._drain.reason = True, f"the store could not be used for {minutes}: {reason}"
        elif not reason and self._store_since is not None:
            self._say(f"the store can be used again, after {now - self._store_since[0]:.0f} s")
            self._store_since = None
            self._events.waits("the store", "")

    def _look_for_room(self, is_idle: bool) -> None:
        """Tell what the first stage waits for while nothing is trained, and how long it has waited."""
        now = time.monotonic()
        if not is_idle:
            if self._idle_since is not None and self._next_line > self._idle_since[0] + WAIT_SECONDS:
                self._events.waits("machines", "")
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since, self._next_line = (now, datetime.now()), now + WAIT_SECONDS
        if now > self._next_line:
            self._next_line = now + WAIT_AGAIN_SECONDS
            line = self._pool.waiting(_clock(self._idle_since[1]))
            self._say(line)
            self._events.waits("machines", line)

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
        with suppress(Exception):  # of a class that cannot be made again here: its text says as much
            error: BaseException = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
            return error
    if trial.error_file is not None and Path(trial.error_file).is_file():
        return RuntimeError(Path(trial.error_file).read_text(encoding="utf-8"))
    return None


def _location(actor: Any) -> tuple[str, int]:
    """Return Ray's identifier of the node of an actor, and its process; "" and 0 as far as Ray does not know.

    An actor that hangs cannot be asked. For one without a report, `Trial.last_result` would ask it, and wait for ever.
    """
    with suppress(Exception):  # Ray does not answer, which `cluster.connected` notices if it stays so
        described = ray._private.state.actors(actor._actor_id.hex())
        return described["Address"]["NodeID"], described["Pid"]
    return "", 0


def _starting(pending: Collection[Trial], tune_controller: Any) -> dict[str, Any]:
    """Return the actors that are being started, or prepared for another stage, by their pending trials."""
    controller = _controller(tune_controller)
    placed = controller._actor_manager._live_actors_to_ray_actors_resources
    tracked = {trial.trial_id: controller._trial_to_actor.get(trial) for trial in pending}
    return {trial_id: placed[actor][0] for trial_id, actor in tracked.items() if actor in placed}


def _controller(wrapped: Any) -> Any:
    """Return Tune's controller itself: what schedulers are given warns about what it does not expect them to use."""
    return vars(wrapped).get("_tune_controller", wrapped)
