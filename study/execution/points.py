"""Open searches: Optuna suggests points, the driver plans them one by one, and the best one is trained again."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from study.errors import Away, Damaged, one_line
from study.execution.ledger import Ledger
from study.execution.projection import Projection
from study.planning.draft import Draft, point_label
from study.planning.stored import PlannedSpace, PlannedTrial
from study.planning.tree import Failure, Stage
from study.search.objectives import front, objectives
from study.store.starts import Superseded
from study.store.states import Store

AWAY_SECONDS = 1800.0  # for which points wait for the store, as workers do
IDLE_SECONDS = 1.0  # how long to wait for a suggestion while nothing is trained
JUDGED_AT_LEAST = 5  # points that must be judged before a point can be stopped early
REFUSED_IN_A_ROW = 10  # points: then a search stops, because its domain hardly has a valid point


class Points:
    """The next points and champions of a run's open searches.

    A point is requested from Optuna for each idle worker, after Optuna has received all results so far. So with one
    worker, a search that is killed and resumed suggests the same points as an undisturbed one. When the last point has
    ended, the best one (with several objectives, the Pareto front) is trained again under fresh replicates.

    Args:
        draft: the plan; it grows by each point, and is stored before the point is trained.
        store: the store of the plan and of the states.
        projection: asks Optuna.
        ledger: the account of what is stored, planned and given up.
        say: prints a line to the user.
        resume: the command that continues the run.
    """

    def __init__(
        self,
        draft: Draft,
        store: Store,
        projection: Projection,
        ledger: Ledger,
        say: Callable[[str], None],
        resume: str,
    ) -> None:
        self._draft, self._store, self._projection, self._ledger = draft, store, projection, ledger
        self._say, self._resume = say, resume
        self._objectives: dict[tuple[str, ...], list[float]] = {}  # by a trial's ends, for which they never change
        self._answers: queue.SimpleQueue[tuple[PlannedSpace, dict[str, Any]]] = queue.SimpleQueue()
        self._requested: dict[str, int] = {}  # by search: suggestions that have not arrived
        self._refused: dict[str, int] = {}  # by search: points that were refused in a row in this start
        self._unbegun: list[PlannedTrial] = []  # planned, but the plan could not be stored yet
        self._away_since: float | None = None
        self._halted = False

    def halt(self) -> None:
        """Start no more points: a stage failed for a reason outside its training, so they would fail as well."""
        self._halted = True

    def settled(self) -> bool:
        """Return whether no search will plan another trial."""
        return all(self._is_settled(space) for space in self._searches())

    def are_complete(self) -> bool:
        """Return whether every search is settled and has a champion."""
        crowned = {trial.space for trial in self._draft.plan.trials if trial.champion_of}
        return self.settled() and all(space.name in crowned for space in self._searches())

    def failures(self) -> list[str]:
        """Return a line for each search with failed points: how many failed, and which."""
        lines = []
        for space in self._searches():
            points = self._draft.plan.points(space)
            failed = {name for name, _ in self._ledger.given_up}
            labels = [point.label for point in points if point.name in failed]
            if labels:
                line = f"{len(labels)} of {len(points)} points of {space.name} failed: {', '.join(labels)}"
                retry = f"'{self._resume} --retry-failed' tries them again"
                hint = (
                    "" if len(labels) < len(points) else f". Without a point that ends, there is no champion. {retry}"
                )
                lines.append(line + hint)
        return lines

    def unplanned(self) -> list[tuple[PlannedSpace, int, int]]:
        """Return each search with the points and the champions that it is expected to plan yet."""
        expected = []
        for space in self._searches():
            points = max(0, _total(space) - len(self._draft.plan.points(space)))
            champions = 0
            with suppress(Away, Damaged, FileNotFoundError):  # the store is away: expect what is planned
                champions = 0 if self._is_settled(space) else len(self._uncrowned(space)) if self._values(space) else 1
            expected.append((space, 0, 0) if self._halted else (space, points, champions))
        return expected

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Return stages of further points or champions; an empty list if there are none yet; None if none will come."""
        try:
            stages = self._more(workers, idle)
            self._away_since = None
            return stages
        except Superseded:
            self.halt()
            return None
        except (Away, Damaged, FileNotFoundError) as error:  # stages that are being trained continue
            now = time.monotonic()
            if isinstance(error, Away) and now < (self._away_since or now) + AWAY_SECONDS:
                if self._away_since is None:
                    self._away_since = now
                    self._say(f"no points are started while the store cannot be used: {one_line(error)}")
                time.sleep(IDLE_SECONDS if idle else 0.0)
                return []
            self._say(f"no more points are started, because the store cannot be used: {one_line(error)}")
            self.halt()
            return None

    def _more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        if self._halted or not any(map(self._goes_on, self._searches())):
            return None
        self._projection.check_suggestions()
        if self._unbegun:
            return self._begin()
        for space in filter(self._goes_on, self._searches()):
            points = self._draft.plan.points(space)
            for point in points:
                if point.rung and all(self._rung_key(point, number) in self._ledger for number in point.by_replicate):
                    return self._judge(space, point)
            if len(points) < _total(space):
                self._ask(space, workers - sum(map(self._ledger.in_progress, points)))
            elif not any(map(self._ledger.in_progress, points)):
                for best in self._uncrowned(space):
                    self._draft.add_champion(space, best)
                    return self._begin(self._draft.plan.trials[-1])
        answers: list[tuple[PlannedSpace, dict[str, Any]]] = []
        wait = IDLE_SECONDS if idle else 0.0
        with suppress(queue.Empty):
            while True:
                answers.append(self._answers.get(timeout=0.0 if answers else wait))
        return self._begin(*(self._add(space, values) for space, values in answers)) if answers else []

    def _add(self, space: PlannedSpace, values: Mapping[str, Any]) -> PlannedTrial:
        """Add a suggested point to the plan."""
        self._requested[space.name] -= 1
        point = self._draft.add_point(space, values)
        self._refused[space.name] = self._refused.get(space.name, 0) + 1 if point.refused else 0
        if point.refused:
            self._say(f"failed: {point.name} ({_words(values)}): {point.refused}")
            if self._is_stopped(space):
                self._say(
                    f"search {space.name} stops, because {REFUSED_IN_A_ROW} points in a row were refused. Mend point "
                    f"in {space.file}, and '{self._resume}' goes on with new points; another "
                    "domain needs another --name"
                )
        return point

    def champions(self) -> dict[str, list[PlannedTrial]]:
        """Return the champions that have ended, the best first, by the name of their search."""
        champions: dict[str, list[PlannedTrial]] = {}
        for space in self._searches():
            if not self._halted and self._is_settled(space):
                candidates = [self._champion_of(space, point) for point in front(self._values(space))]
                champions[space.name] = [c for c in candidates if c is not None and self._ledger.has_ended(c)]
        return champions

    def _searches(self) -> list[PlannedSpace]:
        return [space for space in self._draft.plan.spaces if space.search is not None]

    def _is_stopped(self, space: PlannedSpace) -> bool:
        """Return whether so many points were refused in a row that the search asks for no more in this start."""
        missing = len(self._draft.plan.points(space)) < _total(space)
        return missing and self._refused.get(space.name, 0) >= REFUSED_IN_A_ROW

    def _goes_on(self, space: PlannedSpace) -> bool:
        """Return whether a search may plan another trial, or let a point that is being trained continue."""
        if self._is_stopped(space):
            return any(map(self._ledger.in_progress, self._draft.plan.points(space)))
        return not self._is_settled(space)

    def _is_settled(self, space: PlannedSpace) -> bool:
        points = self._draft.plan.points(space)
        return (
            len(points) >= _total(space)
            and not any(map(self._ledger.in_progress, points))
            and not self._uncrowned(space)
        )

    def _ask(self, space: PlannedSpace, idle_workers: int) -> None:
        """Request as many points as there are idle workers, and never more than the search has or may be refused."""
        planned, requested = len(self._draft.plan.points(space)), self._requested.get(space.name, 0)
        wanted = min(idle_workers, _total(space) - planned, REFUSED_IN_A_ROW - self._refused.get(space.name, 0))
        for number in range(planned + requested, planned + wanted):
            self._projection.ask(space, point_label(number), lambda values: self._answers.put((space, values)))
        self._requested[space.name] = max(wanted, requested)

    def _begin(self, *trials: PlannedTrial) -> list[Stage]:
        """Store the plan with new trials. Return their stages, which begin where the store or a planned stage ends."""
        self._unbegun += trials  # until the plan is stored, which is tried again
        self._ledger.save_plan()
        begun, self._unbegun = self._unbegun, []
        return [stage for trial in begun for stage in self._stages(trial)]

    def _stages(self, trial: PlannedTrial) -> list[Stage]:
        replicates = [(trial.name, number) for number in trial.by_replicate]
        if trial.refused:
            for replicate in replicates:
                self._projection.failed(replicate, Failure(trial.refused, for_good=True))
            return []
        for replicate, given_up in self._ledger.doomed(replicates).items():
            self._projection.failed(replicate, Failure(given_up.reason, for_good=True))
        for replicate in replicates:
            last = self._draft.to_train(replicate).keys[-1]
            if last in self._ledger and replicate not in self._ledger.given_up:
                self._projection.show(replicate, last)
        return self._ledger.plan(replicates)

    def _rung_key(self, point: PlannedTrial, number: int) -> str:
        return self._draft.to_train((point.name, number)).keys[-1]

    def _judge(self, space: PlannedSpace, point: PlannedTrial) -> list[Stage]:
        """Stop a point that is below the median of those judged before it (Golovin et al., 2017), or let it continue.

        The points are compared at the same number of epochs since their last joints. Before its joint a point shares
        its epochs with others, and after it each point has trained alone for equally long.
        """
        value = self._at_rung(space, point)
        assert value is not None
        points = self._draft.plan.points(space)
        judged_points = (other for other in points if not other.rung and not other.refused)
        judged = [earlier for other in judged_points if (earlier := self._at_rung(space, other)) is not None]
        stop = len(judged) >= JUDGED_AT_LEAST and value < statistics.median(judged)
        return self._begin(self._draft.judge(point, stop))

    def _at_rung(self, space: PlannedSpace, point: PlannedTrial) -> float | None:
        """Return a point's objective at its rung, mean over replicates; None if it does not reach the rung."""
        values: list[float] = []
        for number in point.by_replicate:
            recipe = self._draft.recipes[point.name, number]
            rung = recipe.joints[-1] + self._draft.plan.request.early_stop
            if rung > len(recipe.epochs) or recipe.keys[rung] not in self._ledger:
                return None
            values.append(self._store.header(recipe.keys[rung])["measures"][-1][space.objectives[0]])
        return sum(values) / len(values)

    def _uncrowned(self, space: PlannedSpace) -> list[PlannedTrial]:
        return [point for point in front(self._values(space)) if self._champion_of(space, point) is None]

    def _champion_of(self, space: PlannedSpace, point: PlannedTrial) -> PlannedTrial | None:
        """Return the champion with a point's configuration, even if planned for another point; None without one."""
        trials = (trial for trial in self._draft.plan.trials if trial.space == space.name and trial.champion_of)
        return next((trial for trial in trials if trial.trial.config == point.trial.config), None)

    def _values(self, space: PlannedSpace) -> list[tuple[PlannedTrial, list[float]]]:
        """Return the points that have ended at their full budget, with their objectives."""
        points = [p for p in self._draft.plan.points(space) if self._ledger.has_ended(p) and not p.stopped]
        for point in points:
            if point.ends not in self._objectives:
                self._objectives[point.ends] = objectives(self._draft.plan, point, self._store.header)
        return [(point, self._objectives[point.ends]) for point in points]


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _total(space: PlannedSpace) -> int:
    assert space.search is not None
    return space.search.trials
