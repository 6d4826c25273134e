"""Optuna and MLflow follow the store: in one thread, in order, so that training never waits for either."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from study.plan import Json, Plan, PlannedTrial
from study.planning import Draft, Replicate
from study.search import Search, open_storage
from study.store import Store

if TYPE_CHECKING:
    from study.tracking import Tracker


class Projection:
    """What the run's records show of the store.

    Args:
        draft: the plan, its work and recipes.
        store: where states lie.
        tracking_uri, artifacts: for MLflow; see `Tracker`.
        storage: URL of Optuna's storage.
        warn: says a line to the user.
    """

    def __init__(
        self, draft: Draft, store: Store, tracking_uri: str, artifacts: Path, storage: str, warn: Callable[[str], None]
    ) -> None:
        self._draft, self._store, self._warn = draft, store, warn
        self._tracking = (tracking_uri, artifacts)
        self._tracker: Tracker | None = None
        self._behind = ""
        self._search = Search(draft.plan, open_storage(storage))
        self._through: dict[str, list[Replicate]] = {}
        for replicate, recipe in draft.recipes.items():
            for key in recipe.keys[1:]:
                self._through.setdefault(key, []).append(replicate)
        self._trials = {trial.name: trial for trial in draft.plan.trials}
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._work, name="projection", daemon=True)
        self._thread.start()
        self._queue.put(self._open)

    @property
    def plan(self) -> Plan:
        """What is run."""
        return self._draft.plan

    def state(self, key: str) -> None:
        """A state has become durable: show it in every replicate that passes through it."""
        self._queue.put(lambda: self._show(key))

    def failed(self, replicate: Replicate, reason: str, lost: bool) -> None:
        """A replicate was given up. If its process was lost, its Optuna trial stays RUNNING, to be taken up again."""
        self._queue.put(lambda: self._fail(replicate, reason, lost))

    def retry(self, replicate: Replicate) -> None:
        """A failed replicate is tried again, under a new Optuna trial."""
        self._queue.put(lambda: self._search.retry(self._trials[replicate[0]]))

    def check(self) -> None:
        """Wait until MLflow is open; raises what the thread raised, such as the refusal of a deleted experiment."""
        self._opened.wait()
        if self._error is not None:
            raise self._error

    def reconcile(self, stored: set[str], failures: Mapping[Replicate, Json]) -> None:
        """Show whatever of the store is not shown yet: at every start, finished trials and failures included."""
        for replicate, recipe in self._draft.recipes.items():
            deepest = next((key for key in reversed(recipe.keys[1:]) if key in stored), None)
            if deepest is not None:
                self._queue.put(lambda key=deepest, replicate=replicate: self._show(key, replicate))  # type: ignore[misc]
        for replicate, failure in failures.items():
            self.failed(replicate, failure["reason"], lost=False)

    def close(self, status: str, files: Callable[[], Mapping[str, bytes | str]]) -> str:
        """Wait until everything is shown, log the report, and end the parent run with a status.

        Returns:
            Why MLflow is behind, or "" if it is not.
        """
        self._queue.put(lambda: self._finish(status, files))
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._behind

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            if self._error is None:
                try:
                    task()
                except BaseException as error:  # noqa: BLE001  raised again by `check` or `close`, in the driver's thread
                    self._error = error
            self._opened.set()  # by the first task, which opens MLflow

    def _open(self) -> None:
        self._outage_is_a_warning(self._open_tracker)

    def _open_tracker(self) -> None:
        from study.tracking import Tracker  # here, for MLflow takes seconds to import and this thread has them

        uri, artifacts = self._tracking
        tracker = Tracker(self.plan, self._draft.work, uri, artifacts)
        if not tracker.is_closed():
            tracker.begin()
        self._tracker = tracker

    def _show(self, key: str, only: Replicate | None = None) -> None:
        header: Json | None = None
        for replicate in self._through[key] if only is None else [only]:
            trial = self._trials[replicate[0]]
            last = key == trial.ends[replicate[1]]
            shown = self._tracker is None or self._tracker.is_complete(trial, replicate[1])
            if not shown:
                header = header or self._store.header(key)
                self._project(trial, replicate[1], header, key)
            if last:
                self._tell(trial)

    def _project(self, trial: PlannedTrial, number: int, header: Json, key: str) -> None:
        tracker = self._tracker
        assert tracker is not None
        self._outage_is_a_warning(lambda: tracker.project(trial, number, header, lambda: self._store.load(key)[1]))

    def _tell(self, trial: PlannedTrial) -> None:
        """Once every replicate has ended, tell Optuna the mean of the objective after the last epoch."""
        if self._search.is_told(trial):
            return
        objective = self.plan.space(trial.space).objective
        values = []
        for end in trial.ends:
            try:
                values.append(self._store.header(end)["measures"][-1][objective])
            except FileNotFoundError:
                return
        self._search.tell(trial, sum(values) / len(values))

    def _fail(self, replicate: Replicate, reason: str, lost: bool) -> None:
        trial = self._trials[replicate[0]]
        if not lost:
            self._search.fail(trial, reason)
        tracker = self._tracker
        if tracker is not None:
            self._outage_is_a_warning(lambda: tracker.fail(trial, replicate[1], reason))

    def _finish(self, status: str, files: Callable[[], Mapping[str, bytes | str]]) -> None:
        tracker = self._tracker
        if tracker is not None and not tracker.is_closed():
            self._outage_is_a_warning(lambda: tracker.finish(status, files()))

    def _outage_is_a_warning(self, action: Callable[[], None]) -> None:
        """MLflow's absence costs nothing but this warning: the next start shows what is missing."""
        from study.tracking import is_outage

        try:
            action()
        except Exception as error:
            if not is_outage(error):
                raise
            self._behind = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._tracker = None
            self._warn(f"MLflow is behind ({self._behind}); training goes on, and `study resume` catches up")
