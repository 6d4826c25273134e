"""Optuna studies on an explicit storage, by ask and tell. A table's cells and a search's points are enqueued trials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from study.databases import create_whole
from study.errors import Away, Refusal, one_line
from study.masking import without_password
from study.planning.stored import Plan, PlannedSpace, PlannedTrial, digest
from study.space import Choice, Domain, Integer


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Return the Optuna storage of a URL. It is always explicit, so that two studies never share a default one.

    Raises:
        Refusal: if the URL is malformed, or its database cannot be opened or is of another version of Optuna.
    """
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        create_whole(url, _create)
        return optuna.storages.get_storage(url)
    except RuntimeError as error:  # Optuna's own check of its tables
        shown = without_password(url)
        words = f"{shown} was written by another version of Optuna than {optuna.__version__}, the one installed here"
        hint = f"If that was an older one, give 'optuna storage upgrade --storage {shown}'; else install that version"
        raise Refusal("--storage", shown, words, hint=hint) from error
    except (sqlalchemy.exc.ArgumentError, ImportError, LookupError, ValueError) as error:
        words = "must be an Optuna storage URL such as sqlite:///optuna.db"
        raise Refusal("--storage", without_password(url), words, hint=f"Reason: {one_line(error)}") from error


def _create(url: str) -> None:
    storage = optuna.storages.RDBStorage(url)
    storage.remove_session()
    storage.engine.dispose()


def study_name(plan: Plan, space: PlannedSpace) -> str:
    """Return the name of a space's study in the storage."""
    domain = {name: repr(dimension) for name, dimension in space.domain.items()}
    generation = f"-{plan.generation}" if plan.generation else ""
    return f"{plan.run}/{space.name}-{digest([space.name, space.objectives, domain])}{generation}"


def load(plan: Plan, space: PlannedSpace, url: str, options: str = "") -> optuna.Study:
    """Return a space's study as it is stored; nothing is written.

    Args:
        plan, space: the run and its search.
        url: the URL of the storage.
        options: of the command line, which name the home in the commands that messages suggest.

    Raises:
        Refusal: if the storage has no such study.
    """
    name, shown = study_name(plan, space), without_password(url)
    hint = f"'study resume {plan.run}{options}' records the run again"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise Refusal("--storage", shown, f"{shown} does not exist. {hint}")
    try:
        return optuna.load_study(study_name=name, storage=open_storage(url))
    except KeyError as error:
        words = f"{shown} has no study of run {plan.run!r}. {hint}"
        raise Refusal("--storage", shown, words) from error


SUGGESTIONS = 20  # of Optuna, before a point is repeated
TWIN_OF = "twin_of"  # the attribute of a trial that was added twice, with the number of the first one


class Search:
    """The Optuna studies of a run, one for each space, and their trials.

    A study's name contains the run and a digest of space, objectives and domain, but not of cells, replicates or
    counts. So a run that grows keeps its history, and two runs never share a study. The values of a trial are told to
    Optuna once, at its full budget. They do not change when replicates are added.

    Args:
        plan: the plan.
        storage: the storage.
        claim: raises `Superseded` if another driver has claimed the run; called before trials are added and told.
    """

    def __init__(
        self, plan: Plan, storage: optuna.storages.BaseStorage, claim: Callable[[], None] = lambda: None
    ) -> None:
        self._plan, self._storage, self._claim = plan, storage, claim
        self._studies = {space.name: self._open(space) for space in plan.spaces}
        self._trials: dict[str, FrozenTrial] = {}
        self._unanswered: set[tuple[str, str]] = set()  # (space, label) of trials whose addition is not confirmed

    def _open(self, space: PlannedSpace) -> optuna.Study:
        study = optuna.create_study(
            study_name=study_name(self._plan, space),
            storage=self._storage,
            directions=["maximize"] * len(space.objectives),
            load_if_exists=True,
        )
        if "run" not in study.user_attrs:
            study.set_user_attr("space", space.name)
            study.set_user_attr(
                "objectives", [f"mean over replicates of {name}, last epoch" for name in space.objectives]
            )
            study.set_user_attr("run", self._plan.run)
        return study

    def take_up(self) -> None:
        """Ensure that every trial of the plan has an Optuna trial. An earlier driver's trials are found by label.

        A twin, which a driver that had lost the run added late, fails.
        """
        for space in self._plan.spaces:
            trials, twins = _without_twins(self._studies[space.name].get_trials(deepcopy=False))
            for frozen in trials:
                if "trial" in frozen.user_attrs:  # trials without it were enqueued by another program
                    self._trials[f"{space.name}/{frozen.user_attrs['trial']}"] = frozen
            for twin, first in twins:
                self._end_twin(twin, first)
            distributions = _distributions(space)
            for trial in self._plan.points(space):
                if trial.name not in self._trials:
                    parameters = {name: trial.trial.axes[name] for name in distributions}
                    self._add(space, trial.label, parameters, dict(trial.trial.axes))

    def _add(
        self, space: PlannedSpace, label: str, parameters: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        """Add a running trial as a whole or not at all. Optuna's `ask` would write its parameters one by one."""
        running = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(parameters),
            distributions=_distributions(space),
            user_attrs={"trial": label, **attributes},
        )
        self._claim()
        added_id = self._find(space, running) if (space.name, label) in self._unanswered else None
        self._unanswered.add((space.name, label))
        trial_id = added_id or self._storage.create_new_trial(self._studies[space.name]._study_id, running)
        self._trials[f"{space.name}/{label}"] = self._storage.get_trial(trial_id)
        self._unanswered.discard((space.name, label))

    def _end_twin(self, twin: FrozenTrial, first: FrozenTrial) -> None:
        if not twin.state.is_finished():
            self._claim()
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                self._storage.set_trial_user_attr(twin._trial_id, TWIN_OF, first.number)
                self._storage.set_trial_state_values(twin._trial_id, TrialState.FAIL)

    def _find(self, space: PlannedSpace, running: FrozenTrial) -> int | None:
        """Return the id of a trial that was added although an outage kept Optuna's answer from arriving."""
        trials = self._studies[space.name].get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        identity = (running.user_attrs["trial"], running.user_attrs.get("retry_of"))
        same = (t for t in trials if (t.user_attrs.get("trial"), t.user_attrs.get("retry_of")) == identity)
        return next((trial._trial_id for trial in same), None)

    def ask(self, space: PlannedSpace, label: str) -> dict[str, Any]:
        """Return the values of an open search's next point. Repeated calls with the same label return the same values.

        TPE (Bergstra et al., 2011) suggests them from all results so far, seeded by (the search's seed, the number of
        trials). Points without a result count as bad ones, so that points for many workers differ. It works on a copy
        of the study in memory, and the point is then added as a whole. So a driver that is killed leaves no partial
        suggestion, and a resumed search suggests the same points as an undisturbed one.
        """
        assert space.search is not None
        name = f"{space.name}/{label}"
        if name not in self._trials:
            study = self._studies[space.name]
            history, _ = _without_twins(study.get_trials(deepcopy=False))
            late = [trial for trial in history if trial.user_attrs.get("trial") == label]
            if late:  # a driver that had lost the run added it meanwhile
                self._trials[name] = late[0]
                return dict(late[0].params)
            copy = optuna.create_study(directions=study.directions, sampler=_sampler(space.search.seed, len(history)))
            copy.add_trials([trial for trial in history if trial.params])
            suggested = _new_point(copy, _distributions(space), [trial.params for trial in history])
            self._add(space, label, suggested, suggested)
        return dict(self._trials[name].params)

    def state(self, trial: PlannedTrial) -> TrialState:
        """Return the state of a trial as this driver knows it."""
        return self._trials[trial.name].state

    def is_told(self, trial: PlannedTrial) -> bool:
        """Return whether Optuna has a trial's values."""
        return self.state(trial) in (TrialState.COMPLETE, TrialState.PRUNED)

    def tell(self, trial: PlannedTrial, values: Sequence[float]) -> None:
        """Tell Optuna a trial's values at its full budget, once. Values that are not finite make the trial FAIL.

        A failed trial that now has values was tried again. It gets a new Optuna trial, if it has none yet.
        """
        if not all(map(math.isfinite, values)):
            self.fail(trial, f"an objective is not a finite number: {values}")
        else:
            self.retry(trial)
            if not self.state(trial).is_finished():
                with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another driver was first
                    number = len(trial.ends)
                    self._storage.set_trial_user_attr(self._trials[trial.name]._trial_id, "replicates", number)
            if trial.stopped:
                self._tell_stopped(trial, values[0])
            else:
                self._tell(trial, values, TrialState.COMPLETE)

    def _tell_stopped(self, trial: PlannedTrial, value: float) -> None:
        """Tell Optuna that a point was stopped early, with its value at the number of epochs since its last joint."""
        if not self.state(trial).is_finished():
            step = self._plan.request.early_stop
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another driver was first
                self._storage.set_trial_intermediate_value(self._trials[trial.name]._trial_id, step, value)
        self._tell(trial, None, TrialState.PRUNED)

    def fail(self, trial: PlannedTrial, reason: str) -> None:
        """Tell Optuna, once, that the training of a trial raised, with the reason."""
        if not self.state(trial).is_finished():
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another driver was first
                self._storage.set_trial_user_attr(self._trials[trial.name]._trial_id, "failed_because", reason)
        self._tell(trial, None, TrialState.FAIL)

    def retry(self, trial: PlannedTrial) -> None:
        """Add a new trial with ``retry_of`` for a failed one, because Optuna's finished trials cannot change."""
        failed = self._trials[trial.name]
        if failed.state != TrialState.FAIL:
            return
        attributes = {**trial.trial.axes, "retry_of": failed.number}
        self._add(self._plan.space(trial.space), trial.label, failed.params, attributes)

    def _tell(self, trial: PlannedTrial, values: Sequence[float] | None, state: TrialState) -> None:
        if not self.state(trial).is_finished():
            self._claim()
            study = self._studies[trial.space]
            number = self._trials[trial.name].number
            self._trials[trial.name] = study.tell(number, values, state=state, skip_if_finished=True)


def is_outage(error: BaseException) -> bool:
    """Return whether a call failed because Optuna's database is unavailable or locked, and not because it is wrong."""
    import sqlalchemy.exc

    outages = (
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.TimeoutError,
        OSError,
        Away,
    )
    # Optuna wraps every error of the database in a StorageInternalError, also those about bad data.
    return isinstance(error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error, outages)


def _without_twins(trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[tuple[FrozenTrial, FrozenTrial]]]:
    """Return the trials without twins, and each twin with the trial that it repeats: the first of its label."""
    first: dict[tuple[object, object], FrozenTrial] = {}
    kept, twins = [], []
    for trial in trials:
        identity = (trial.user_attrs.get("trial"), trial.user_attrs.get("retry_of"))
        if identity[0] is not None and first.setdefault(identity, trial) is not trial:
            twins.append((trial, first[identity]))
        else:
            kept.append(trial)
    return kept, twins


def _distributions(space: PlannedSpace) -> dict[str, BaseDistribution]:
    return {name: distribution(domain) for name, domain in space.domain.items()}


def _sampler(seed: int, trials: int) -> TPESampler:
    """Return a sampler that avoids the neighbourhood of points without a result, as many workers need."""
    seed_digest = hashlib.sha256(f"{seed}, {trials}".encode()).digest()
    return TPESampler(seed=int.from_bytes(seed_digest[:4], "little"), constant_liar=True)


def _new_point(
    study: optuna.Study, distributions: Mapping[str, BaseDistribution], before: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the first suggestion that differs from all points before it, if it is among so many.

    A point that is trained again has the same result, and a small domain may have no other point.
    """
    for _ in range(SUGGESTIONS):
        suggested: dict[str, Any] = study.ask(dict(distributions)).params
        if suggested not in before:
            break
    return suggested


def distribution(domain: Domain) -> BaseDistribution:
    """Return the Optuna distribution of a dimension."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high)
    return FloatDistribution(domain.low, domain.high, step=domain.step)
