"""Optuna and MLflow follow the store, each in its own thread, so that training never waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import Away, Damaged, Refusal, one_line
from study.execution.follower import Follower
from study.execution.ledger import Ledger
from study.masking import without_password
from study.planning.draft import Draft, Replicate
from study.planning.stored import PlannedSpace, PlannedTrial
from study.planning.tree import Failure
from study.search.objectives import objectives
from study.store.states import Store

if TYPE_CHECKING:
    from study.search.studies import Search
    from study.tracking.runs import Tracker

PATIENCE_SECONDS = 20.0  # how long a start waits at its end for an unavailable service
REFRESH_SECONDS = 30.0  # between two listings of MLflow's runs because of rejected records


@dataclass(frozen=True)
class Services:
    """The services that hold a run's records.

    Attributes:
        tracking_uri, artifacts: for MLflow; see `Tracker`.
        storage: the URL of Optuna's storage.
    """

    tracking_uri: str
    artifacts: Path
    storage: str


class Projection:
    """The records of a run in Optuna and MLflow, which show the states in the store.

    Args:
        draft: the plan, its work and recipes; it may grow meanwhile.
        store: the store of the states.
        services: the services that hold the records.
        say: prints a line to the user.
        claim: raises `Superseded` if another driver has claimed the run; called before anything is written.
    """

    def __init__(
        self,
        draft: Draft,
        store: Store,
        services: Services,
        say: Callable[[str], None],
        claim: Callable[[], None] = lambda: None,
    ) -> None:
        from study.search import studies

        self._draft, self._store, self._claim = draft, store, claim
        self._has_tried_mlflow, self._next_refresh = False, 0.0
        self._search: Search
        self._tracker: Tracker
        self._optuna = Follower(
            "Optuna", studies.is_outage, say, "planned trials are trained, and searches wait for suggestions"
        )
        self._mlflow = Follower("MLflow", _is_mlflow_outage, say, "training continues", _is_mlflow_rejection)
        self._optuna.put(partial(self._open_search, services.storage))
        self._optuna.put(lambda: self._search.take_up())
        self._mlflow.put(partial(self._open_tracker, services.tracking_uri, services.artifacts))

    def check(self) -> None:
        """Wait until Optuna and MLflow are open or unavailable. Raise errors of their threads, such as a Refusal."""
        self._optuna.check(wait=True)
        self._mlflow.check(wait=True)

    def check_suggestions(self) -> None:
        """Raise an error of Optuna's thread, which supplies the points. Errors of MLflow's can wait for the end."""
        self._optuna.check()

    def state(self, key: str) -> None:
        """Show a state that has become durable in every replicate that passes through it."""
        for replicate in self._draft.through(key):
            self.show(replicate, key)

    def show(self, replicate: Replicate, key: str) -> None:
        """Show a replicate up to a state that it passes through."""
        trial = self._draft.trial(replicate)
        self._mlflow.put(lambda: self._project(trial, replicate[1], key))
        if key == trial.by_replicate[replicate[1]] and not trial.champion_of:
            self._optuna.put(lambda: self._tell(trial))

    def failed(self, replicate: Replicate, failure: Failure) -> None:
        """Show that a replicate failed. Unless this is for good, its Optuna trial stays RUNNING for a later start."""
        trial = self._draft.trial(replicate)
        if failure.for_good and not trial.champion_of:
            self._optuna.put(lambda: self._search.fail(trial, failure.reason))
        self._mlflow.put(
            lambda: self._refreshed_if_rejected(lambda: self._tracker.fail(trial, replicate[1], failure.reason))
        )

    def retry(self, replicate: Replicate) -> None:
        """Add a new Optuna trial for a failed replicate that is tried again. Reopen a finished search in MLflow."""
        self._mlflow.put(self._reopen)
        trial = self._draft.trial(replicate)
        if not trial.champion_of:
            self._optuna.put(lambda: self._search.retry(trial))

    def ask(self, space: PlannedSpace, label: str, answer: Callable[[dict[str, Any]], None]) -> None:
        """Let Optuna suggest a point after it has received all results so far. `answer` gets the point's values."""
        self._optuna.put(lambda: answer(self._search.ask(space, label)))

    def reconcile(self, ledger: Ledger) -> None:
        """Show everything in the store that is not shown yet, at every start, finished trials and failures included."""
        for replicate in self._draft.recipes:
            deepest = ledger.deepest(replicate)
            if deepest is not None:
                self.show(replicate, deepest)
        for replicate, given_up in ledger.given_up.items():
            self.failed(replicate, Failure(given_up.reason, for_good=True))

    def refresh(self) -> None:
        """Read again what MLflow and Optuna have, and delete twins: a driver that lost the run may have written late.

        `reconcile` then mends the rest.
        """
        self._optuna.put(lambda: self._search.take_up())
        self._mlflow.put(self._refresh)

    def _refresh(self) -> None:
        self._mlflow.rejected = ""  # everything is shown again
        if not self._tracker.is_closed():
            self._tracker.refresh()
            self._tracker.refresh_models()

    def finish(
        self, status: str, files: Callable[[], Mapping[str, bytes | str]], champions: Mapping[str, list[PlannedTrial]]
    ) -> None:
        """Log the report and end the parent run with a status.

        Args:
            status: FINISHED, FAILED or KILLED.
            files: returns the report's files.
            champions: for each search, the trials whose models are registered, the best first.
        """
        self._mlflow.put(lambda: self._finish(status, files, champions))

    def abandon(self) -> None:
        """End the threads without recording what is left, because the start has failed. Only close MLflow's runs."""
        self._mlflow.abandon(lambda: self._finish("KILLED", dict, {}))
        self._optuna.abandon()

    def close(self) -> str:
        """Wait until everything is shown. Return which service is not up to date and why, or ""."""
        reasons = [("MLflow", self._close_mlflow()), ("Optuna", self._optuna.close(PATIENCE_SECONDS))]
        return "; ".join(f"{service} is not up to date ({reason})" for service, reason in reasons if reason)

    def _close_mlflow(self) -> str:
        """Close MLflow's thread. Return a refusal by MLflow as a reason: everything is trained and stored by now."""
        try:
            return self._mlflow.close(PATIENCE_SECONDS)
        except Refusal as error:
            return one_line(error)

    def _open_search(self, storage: str) -> None:
        from study.search.studies import Search, open_storage

        self._search = Search(self._draft.plan, open_storage(storage), self._claim)

    def _open_tracker(self, uri: str, artifacts: Path) -> None:
        from study.services import reachable
        from study.tracking.answers import is_denied  # imported in this thread: the imports take seconds
        from study.tracking.runs import Tracker

        is_first, self._has_tried_mlflow = not self._has_tried_mlflow, True
        reason = reachable(uri)  # this takes seconds, where MLflow would try for a minute
        if reason:
            raise Away(reason)
        try:
            tracker = Tracker(self._draft, uri, artifacts, self._claim)
            if not tracker.is_closed():
                tracker.begin()
        except Exception as error:
            if not _is_mlflow_rejection(error) and not (is_first and is_denied(error)):
                raise
            words = "must be a tracking store or server that MLflow can use"
            raise Refusal("--tracking-uri", without_password(uri), words, hint=f"Reason: {one_line(error)}") from error
        self._tracker = tracker

    def _reopen(self) -> None:
        if self._tracker.is_closed():
            self._tracker.begin()

    def _project(self, trial: PlannedTrial, number: int, key: str) -> None:
        if not self._tracker.is_complete(trial, number):
            with suppress(FileNotFoundError, Damaged):  # damaged since it was listed; the next start trains it again
                header = self._store.header(key)
                self._refreshed_if_rejected(
                    lambda: self._tracker.project(trial, number, header, lambda: self._store.load(key)[1])
                )

    def _refreshed_if_rejected(self, write: Callable[[], None]) -> None:
        """Write; if MLflow rejects it, read which runs there are and write again: the user may have deleted a run.

        Reading hundreds of runs takes seconds, so it is not repeated soon. The end of the start mends what is left out.
        """
        try:
            write()
        except Exception as error:
            if not _is_mlflow_rejection(error) or time.monotonic() < self._next_refresh:
                raise
            self._tracker.refresh()
            self._next_refresh = time.monotonic() + REFRESH_SECONDS
            write()

    def _tell(self, trial: PlannedTrial) -> None:
        """Tell Optuna the means of a trial's objectives after the last epoch, once every replicate has ended."""
        if not self._search.is_told(trial):
            with suppress(FileNotFoundError, Damaged):
                self._search.tell(trial, objectives(self._draft.plan, trial, self._store.header))

    def _finish(
        self, status: str, files: Callable[[], Mapping[str, bytes | str]], champions: Mapping[str, list[PlannedTrial]]
    ) -> None:
        if not self._tracker.is_closed():
            for space, trials in champions.items():
                run = self._draft.plan.run
                searches = sum(planned.search is not None for planned in self._draft.plan.spaces)
                self._tracker.register(run if searches == 1 else f"{run}-{space}", trials)
            self._refreshed_if_rejected(lambda: self._tracker.finish(status, files()))


def _is_mlflow_outage(error: BaseException) -> bool:
    if isinstance(error, (OSError, Away)):
        return True
    from study.tracking.answers import is_outage

    return is_outage(error)


def _is_mlflow_rejection(error: BaseException) -> bool:
    from study.tracking.answers import is_rejection

    return is_rejection(error)
