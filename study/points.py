"""Open searches: Optuna suggests points, they are planned one by one, and the best is trained again."""

from __future__ import annotations

import queue
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from study import runs, tree
from study.compare import front, objectives
from study.masking import without_password
from study.plan import PlannedSpace, PlannedTrial
from study.planning import Draft, Replicate, point_label
from study.projection import Projection
from study.space import Json
from study.store import Store
from study.tree import Failure, Stage

IDLE_SECONDS = 1.0  # to wait for a suggestion while nothing is trained
JUDGED_AT_LEAST = 5  # points before one is stopped early


class Points:
    """What the open searches of a run train next.

    A point is asked of Optuna when a worker has nothing to do, after Optuna has been told all results so far; so with
    one worker a search that is killed and resumed suggests the points of one that is not. When the last point has
    ended, the best (with several objectives, the Pareto front) is trained again under fresh replicates.

    Args:
        draft: the plan; it grows by each point, and is stored before the point is trained.
        store: where the plan lies, and its states.
        projection: asks Optuna.
        given_up: replicates whose training raised, with the records of it; those that need the same are added.
        stored: the states in the store; `stored` keeps it up to date.
        planned: the stages that are going to be trained.
        say: says a line to the user.
    """

    def __init__(
        self,
        draft: Draft,
        store: Store,
        projection: Projection,
        given_up: dict[Replicate, dict[str, Any]],
        stored: set[str],
        planned: Sequence[Stage],
        say: Callable[[str], None],
    ) -> None:
        self._draft, self._store, self._projection = draft, store, projection
        self._given_up, self._stored, self._say = given_up, stored, say
        self._planned = {stage.key: stage for stage in planned}
        self._objectives: dict[tuple[str, ...], list[float]] = {}  # by a trial's ends: they never change
        self._answers: queue.SimpleQueue[tuple[PlannedSpace, dict[str, Any]]] = queue.SimpleQueue()
        self._asked: set[str] = set()
        self._halted = False

    def stored(self, key: str) -> None:
        """A state is in the store."""
        self._stored.add(key)
        self._planned.pop(key, None)

    def failed(self, stage: Stage) -> None:
        """A stage, and what needs it, is not going to be trained."""
        for below in [stage, *tree.descendants(stage.key, self._planned.values())]:
            self._planned.pop(below.key, None)

    def halt(self) -> None:
        """A stage failed for another reason than its training: more points would fail as well."""
        self._halted = True

    def settled(self) -> bool:
        """Whether no search has more to train than what is planned."""
        return all(self._is_settled(space) for space in self._searches())

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Stages of further points, or of champions; none yet; or None if there will be none."""
        try:
            return self._more(workers, idle)
        except OSError as error:  # the store is away or full: what is being trained goes on
            self._say(f"no more points are begun: the store cannot be used ({without_password(str(error))})")
            self.halt()
            return None

    def _more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        if self._halted or self.settled():
            return None
        self._projection.check_suggestions()
        for space in self._searches():
            points = self._draft.plan.points(space)
            for point in points:
                if point.rung and all(self._rung_key(point, number) in self._stored for number in point.by_replicate):
                    return self._judge(space, point)
            if len(points) < _total(space):
                if space.name not in self._asked and sum(map(self._in_progress, points)) < workers:
                    self._ask(space, point_label(len(points)))
            elif not any(map(self._in_progress, points)):
                for best in self._uncrowned(space):
                    self._draft.add_champion(space, best)
                    return self._begin(self._draft.plan.trials[-1])
        try:
            space, values = self._answers.get(timeout=IDLE_SECONDS if idle else 0.05)
        except queue.Empty:
            return []
        self._asked.discard(space.name)
        return self._begin(self._draft.add_point(space, values))

    def champions(self) -> dict[str, list[PlannedTrial]]:
        """By search: the champions, the best first, as far as they are trained."""
        found: dict[str, list[PlannedTrial]] = {}
        for space in self._searches():
            if not self._halted and self._is_settled(space):
                crowned = [self._champion_of(space, point) for point in front(self._values(space))]
                found[space.name] = [c for c in crowned if c is not None and self._has_ended(c)]
        return found

    def _searches(self) -> list[PlannedSpace]:
        return [space for space in self._draft.plan.spaces if space.search is not None]

    def _is_settled(self, space: PlannedSpace) -> bool:
        points = self._draft.plan.points(space)
        return len(points) >= _total(space) and not any(map(self._in_progress, points)) and not self._uncrowned(space)

    def _ask(self, space: PlannedSpace, label: str) -> None:
        self._asked.add(space.name)
        self._projection.ask(space, label, lambda values: self._answers.put((space, values)))

    def _begin(self, trial: PlannedTrial) -> list[Stage]:
        """Store the plan with a new trial; its stages, which begin where the store or a planned stage ends."""
        runs.save_plan(self._store, self._draft.plan)
        replicates = [(trial.name, number) for number in trial.by_replicate]
        failed = {failure["stage"]: failure for failure in self._given_up.values()}
        recipes = []
        for replicate in replicates:
            recipe = self._draft.to_train(replicate)
            failure = next((failed[key] for key in recipe.keys if key in failed), None)
            if failure is not None:  # it would fail again, here or after a resume
                self._give_up(replicate, failure)
                continue
            recipes.append(recipe)
            if recipe.keys[-1] in self._stored:
                self._projection.show(replicate, recipe.keys[-1])
        stages = tree.stages(recipes, self._stored | self._planned.keys(), self._draft.joints)
        self._planned |= {stage.key: stage for stage in stages}
        return stages

    def _give_up(self, replicate: Replicate, failure: Json) -> None:
        """A replicate needs a stage that has failed for good."""
        self._given_up[replicate] = {**failure, "trial": replicate[0], "replicate": replicate[1]}
        runs.save_failures(self._store, self._draft.plan.run, self._given_up)
        self._projection.failed(replicate, Failure(failure["reason"], for_good=True))

    def _rung_key(self, point: PlannedTrial, number: int) -> str:
        return self._draft.to_train((point.name, number)).keys[-1]

    def _judge(self, space: PlannedSpace, point: PlannedTrial) -> list[Stage]:
        """Stop a point that is below the median of those judged before it (Golovin et al., 2017), or let it go on.

        They are compared at the same number of epochs since the last switch: before it, points with one first sampler
        are the same, and after it all have had the new sampler for as long.
        """
        own = self._at_rung(space, point)
        others = (other for other in self._draft.plan.points(space) if not other.rung)
        judged = [value for other in others if (value := self._at_rung(space, other)) is not None]
        assert own is not None
        stop = len(judged) >= JUDGED_AT_LEAST and own < statistics.median(judged)
        return self._begin(self._draft.judge(point, stop))

    def _at_rung(self, space: PlannedSpace, point: PlannedTrial) -> float | None:
        """A point's objective, mean over replicates, at its rung; None if it never comes or came there."""
        values: list[float] = []
        for number in point.by_replicate:
            recipe = self._draft.recipes[point.name, number]
            rung = recipe.joints[-1] + self._draft.plan.request.early_stop
            if rung > len(recipe.epochs) or recipe.keys[rung] not in self._stored:
                return None
            values.append(self._store.header(recipe.keys[rung])["measures"][-1][space.objectives[0]])
        return sum(values) / len(values)

    def _has_ended(self, trial: PlannedTrial) -> bool:
        return all(end in self._stored for end in trial.ends)

    def _in_progress(self, point: PlannedTrial) -> bool:
        failed = any((point.name, number) in self._given_up for number in point.by_replicate)
        return not failed and not self._has_ended(point)

    def _uncrowned(self, space: PlannedSpace) -> list[PlannedTrial]:
        return [point for point in front(self._values(space)) if self._champion_of(space, point) is None]

    def _champion_of(self, space: PlannedSpace, point: PlannedTrial) -> PlannedTrial | None:
        """The champion that has a point's configuration, whichever point it was made for."""
        trials = (trial for trial in self._draft.plan.trials if trial.space == space.name and trial.champion_of)
        return next((trial for trial in trials if trial.config == point.config), None)

    def _values(self, space: PlannedSpace) -> list[tuple[PlannedTrial, list[float]]]:
        """The points that have ended at their full budget, with their objectives."""
        points = [p for p in self._draft.plan.points(space) if self._has_ended(p) and not p.stopped]
        for point in points:
            if point.ends not in self._objectives:
                self._objectives[point.ends] = objectives(self._draft.plan, point, self._store.header)
        return [(point, self._objectives[point.ends]) for point in points]


def _total(space: PlannedSpace) -> int:
    assert space.search is not None
    return space.search.trials
