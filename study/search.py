"""Optuna by its own ask and tell, on explicit storage; a table's cells are enqueued trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from study.plan import Choice, Domain, Integer, Plan, PlannedSpace, PlannedTrial, digest
from study.refusal import Refusal
from study.services import without_password


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """An Optuna storage, explicit always: two studies never meet in a default.

    Raises:
        Refusal: if the URL is malformed or its database cannot be opened.
    """
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.storages.get_storage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise _refused(url, error) from error


def check_url(url: str) -> None:
    """Refuse a storage URL that is malformed or that nothing here can open; connects to nothing."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(url).get_dialect().import_dbapi()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise _refused(url, error) from error


def _refused(url: str, error: Exception) -> Refusal:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Refusal(
        "--storage", without_password(url), f"an Optuna storage URL such as sqlite:///optuna.db would do ({reason})"
    )


class Search:
    """The Optuna studies of a run, one a space, and their trials.

    A study's name carries the run and a digest of space, objective and domain, but not of cells, replicates or
    counts, so two runs never merge. A trial is told once, at its full budget.
    """

    def __init__(self, plan: Plan, storage: optuna.storages.BaseStorage) -> None:
        self._plan, self._storage = plan, storage
        self._studies = {space.name: self._open(space) for space in plan.spaces}
        self._trials: dict[str, FrozenTrial] = {}
        for space in plan.spaces:
            self._enqueue(space)

    def study_name(self, space: PlannedSpace) -> str:
        """The name of a space's study in the storage."""
        domain = {name: repr(dimension) for name, dimension in space.domain.items()}
        return f"{self._plan.run}/{space.name}-{digest([space.name, space.objective, domain])}"

    def _open(self, space: PlannedSpace) -> optuna.Study:
        study = optuna.create_study(
            study_name=self.study_name(space), storage=self._storage, direction="maximize", load_if_exists=True
        )
        if "run" not in study.user_attrs:
            study.set_user_attr("run", self._plan.run)
            study.set_user_attr("space", space.name)
            study.set_user_attr("objective", f"mean over replicates of {space.objective} after the last epoch")
        return study

    def _enqueue(self, space: PlannedSpace) -> None:
        """See that every cell has a trial of its own; what an earlier driver asked for is taken up by its label."""
        study = self._studies[space.name]
        distributions = {name: _distribution(domain) for name, domain in space.domain.items()}
        asked = {trial.user_attrs["trial"] for trial in study.get_trials(deepcopy=False)}
        for trial in self._plan.trials:
            if trial.space == space.name and trial.label not in asked:
                parameters = {name: trial.axes[name] for name in distributions}
                study.enqueue_trial(parameters, user_attrs={"trial": trial.label, **trial.axes})
        while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.ask(distributions)
        self._complete_parameters(study, distributions)
        for frozen in study.get_trials(deepcopy=False):
            self._trials[f"{space.name}/{frozen.user_attrs['trial']}"] = frozen

    def _complete_parameters(self, study: optuna.Study, distributions: Mapping[str, BaseDistribution]) -> None:
        """Write what a driver that was killed inside `ask` left out: Optuna writes parameters one by one."""
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            for name in distributions.keys() - frozen.params.keys():
                value = distributions[name].to_internal_repr(frozen.user_attrs[name])
                self._storage.set_trial_param(frozen._trial_id, name, value, distributions[name])

    def state(self, trial: PlannedTrial) -> TrialState:
        """The state of a trial as this driver knows it."""
        return self._trials[trial.name].state

    def is_told(self, trial: PlannedTrial) -> bool:
        """Whether a trial has its value."""
        return self.state(trial) == TrialState.COMPLETE

    def tell(self, trial: PlannedTrial, value: float) -> None:
        """Tell a trial's value at its full budget, once; what is not a number is a FAIL.

        A trial that failed and has a value after all was tried again: it gets a new trial, if it has none yet.
        """
        if not math.isfinite(value):
            self.fail(trial, f"its value is {value}")
        else:
            self.retry(trial)
            self._tell(trial, value, TrialState.COMPLETE)

    def fail(self, trial: PlannedTrial, reason: str) -> None:
        """Tell that training raised, with the reason; once."""
        if not self.state(trial).is_finished():
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another driver was first
                self._storage.set_trial_user_attr(self._trials[trial.name]._trial_id, "failed_because", reason)
        self._tell(trial, None, TrialState.FAIL)

    def retry(self, trial: PlannedTrial) -> None:
        """A new trial for one that failed, with ``retry_of``: Optuna's finished trials do not change."""
        failed = self._trials[trial.name]
        if failed.state != TrialState.FAIL:
            return
        study = self._studies[trial.space]
        attributes = {"trial": trial.label, **trial.axes, "retry_of": failed.number}
        study.enqueue_trial(failed.params, user_attrs=attributes)
        asked = study.ask(failed.distributions)
        self._trials[trial.name] = study.trials[asked.number]

    def _tell(self, trial: PlannedTrial, value: float | None, state: TrialState) -> None:
        if not self.state(trial).is_finished():
            study = self._studies[trial.space]
            number = self._trials[trial.name].number
            self._trials[trial.name] = study.tell(number, value, state=state, skip_if_finished=True)


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high)
    return FloatDistribution(domain.low, domain.high, step=domain.step)
