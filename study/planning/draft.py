"""A plan with what is derived from it: each replicate's recipe. It grows by the points that a search finds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from study import modules
from study.errors import Away, Damaged, Refusal, note
from study.planning import tree
from study.planning.stored import Plan, PlannedSpace, PlannedTrial, check_storable
from study.space import Json, OpenSearch, Resolved, Space, Trial, Work

Replicate = tuple[str, int]  # a trial's name in its plan, and the replicate's number

FRESH = 1000  # the number of a champion's first replicate: no point of a search has seen its seeds


class Draft:
    """A plan with what is derived from it: the work behind its spaces, and each replicate's recipe.

    A draft grows by the points that an open search finds. Only the driver's main thread appends to it; other threads
    read.

    Attributes:
        left_out: the spaces of `ALL` that refuse the request, with their reasons.
    """

    def __init__(
        self,
        plan: Plan,
        spaces: Sequence[Space],
        listed: Sequence[PlannedTrial],
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = replace(plan, trials=())
        self.left_out = dict(left_out or {})
        self.spaces = {space.name: space for space in spaces}
        self.work: Work = spaces[0].work
        self.recipes: dict[Replicate, Resolved] = {}
        self._trials: dict[str, PlannedTrial] = {}
        self._through: dict[str, list[Replicate]] = {}
        for trial in listed:
            self.append(trial)

    def append(self, trial: PlannedTrial, replicates: int | None = None) -> PlannedTrial:
        """Plan a trial with a number of replicates; None for as many as it has.

        Raises:
            Refusal: if the plan has a trial of this name.
        """
        if trial.name in self._trials:
            words = f"trial {trial.name!r} is planned twice"
            raise Refusal("trial", trial.name, words, hint="Give each trial of a space a different label")
        count = len(trial.ends) if replicates is None else replicates
        if trial.refused:
            trial = replace(trial, ends=("",) * count)
            self._trials[trial.name] = trial
            self.plan = replace(self.plan, trials=(*self.plan.trials, trial))
            return trial
        numbers = range(trial.first_replicate, trial.first_replicate + count)
        recipes = {number: self.work.resolve(trial.trial.config, number, self.plan.machine) for number in numbers}
        if trial.stopped:
            recipes = {number: cut(recipe, trial.epochs) for number, recipe in recipes.items()}
        trial = replace(
            trial,
            ends=tuple(recipe.keys[-1] for recipe in recipes.values()),
            epochs=len(recipes[numbers[0]].epochs),
            seeds=tuple(recipe.seeds for recipe in recipes.values()),
        )
        self._trials[trial.name] = trial
        for number, recipe in recipes.items():
            self.recipes[trial.name, number] = recipe
            for key in recipe.keys[1:]:
                self._through.setdefault(key, []).append((trial.name, number))
        self.plan = replace(
            self.plan,
            trials=(*self.plan.trials, trial),
            epochs_needed=self.plan.epochs_needed + self._count_new(recipes),
            sources={**self.plan.sources, **recipes[numbers[0]].sources},
            held={**self.plan.held, **modules.files()},  # a point may name a file that no other trial names
        )
        return trial

    def _count_new(self, recipes: Mapping[int, Resolved]) -> int:
        """Return how many states of the recipes that were appended last are in no earlier recipe."""
        keys = [key for recipe in recipes.values() for key in recipe.keys[1:]]
        counts = Counter(keys)
        return sum(len(self._through[key]) == count for key, count in counts.items())

    def add_point(self, space: PlannedSpace, values: Mapping[str, Any]) -> PlannedTrial:
        """Plan the next point of an open search.

        If the point's configuration is refused, or the space's `point` raises, the point is planned as `refused`, so
        that it counts and a resumed search does not repeat it.
        """
        return self._add_point(space, point_label(len(self.plan.points(space))), values)

    def retry_refused(self) -> list[Replicate]:
        """Plan refused points again, because the user may have mended the space. Return the valid ones' replicates."""
        names = [trial.name for trial in self.plan.trials]
        valid = []
        for refused in [trial for trial in self.plan.trials if trial.refused]:
            del self._trials[refused.name]
            space = self.plan.space(refused.space)
            point = self._add_point(space, refused.label, {name: refused.trial.axes[name] for name in space.domain})
            valid += [] if point.refused else [(point.name, number) for number in point.by_replicate]
        self.plan = replace(self.plan, trials=tuple(self._trials[name] for name in names))
        return valid

    def _add_point(self, space: PlannedSpace, label: str, values: Mapping[str, Any]) -> PlannedTrial:
        try:
            return self.append(self._point(space, label, values), self.plan.replicates)
        except (Away, Damaged):  # no fault of the point
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  a user's function: its error is the point's result
            note(error)
            reason = str(error) if isinstance(error, Refusal) else f"the point raised {modules.said(error)}"
        trial = Trial(label, "", {}, dict(values), called=label)
        refused = replace(planned_trial(space.name, trial, space.objectives[0]), refused=reason)
        return self.append(refused, self.plan.replicates)

    def _point(self, space: PlannedSpace, label: str, values: Mapping[str, Any]) -> PlannedTrial:
        """Return a point as planned. Raise what the space's function and the work raise."""
        search = self.spaces[space.name].search
        assert search is not None
        point = planned_trial(space.name, point_trial(search, label, values), space.objectives[0])
        check_storable("point", label, f"point {label}", point)
        if self.plan.request.early_stop:
            recipe = self.work.resolve(point.trial.config, 0, self.plan.machine)
            rung = recipe.joints[-1] + self.plan.request.early_stop
            point = replace(point, rung=rung if rung < len(recipe.epochs) else 0)
        return point

    def judge(self, point: PlannedTrial, stop: bool) -> PlannedTrial:
        """Let a point that has reached its rung continue, or end there."""
        judged = replace(point, rung=0, stopped=stop)
        if stop:
            shortened = {}
            for number in point.by_replicate:
                recipe = self.recipes[point.name, number]
                shortened[number] = cut(recipe, point.rung)
                for key in recipe.keys[point.rung + 1 :]:
                    self._through[key].remove((point.name, number))
            judged = replace(judged, epochs=point.rung, ends=tuple(recipe.keys[-1] for recipe in shortened.values()))
            self.recipes.update({(point.name, number): recipe for number, recipe in shortened.items()})
        self._trials[point.name] = judged
        trials = tuple(judged if trial.name == point.name else trial for trial in self.plan.trials)
        self.plan = replace(self.plan, trials=trials, epochs_needed=len(tree.nodes(self.recipes.values())))
        return judged

    def to_train(self, replicate: Replicate) -> Resolved:
        """Return the part of a replicate's recipe that is trained before its point is judged."""
        recipe, rung = self.recipes[replicate], self._trials[replicate[0]].rung
        return cut(recipe, rung) if rung else recipe

    def add_champion(self, space: PlannedSpace, point: PlannedTrial) -> PlannedTrial:
        """Plan a point once more, under fresh replicates."""
        assert space.search is not None
        label = f"champion {point.label}"
        trial = replace(point.trial, row=label, called=label, measure=space.search.reported[0])
        champion = replace(point, trial=trial, champion_of=point.label, first_replicate=FRESH)
        return self.append(champion, space.search.fresh)

    def through(self, key: str) -> list[Replicate]:
        """Return the replicates that pass through a state."""
        return self._through.get(key, [])

    def trial(self, replicate: Replicate) -> PlannedTrial:
        """Return a replicate's trial."""
        return self._trials[replicate[0]]

    def find(self, name: str) -> PlannedTrial | None:
        """Return the trial of this name, or None."""
        return self._trials.get(name)

    def expected(self, space: PlannedSpace) -> list[PlannedTrial]:
        """Return stand-ins for the points and the champions that an open search is going to plan."""
        search = self.spaces[space.name].search
        assert search is not None

        def stand_in(first: int, count: int, champion_of: str) -> PlannedTrial:
            recipes = [self.work.resolve(search.base, first + n, self.plan.machine) for n in range(count)]
            ends, seeds = tuple(recipe.keys[-1] for recipe in recipes), tuple(recipe.seeds for recipe in recipes)
            stub = Trial(row="", column="", config=search.base, axes={})
            planned = planned_trial(space.name, stub, space.objectives[0])
            planned = replace(planned, ends=ends, seeds=seeds, champion_of=champion_of, first_replicate=first)
            return replace(planned, epochs=len(recipes[0].epochs))

        return [stand_in(0, self.plan.replicates, ""), stand_in(FRESH, search.fresh, "#0")]

    @property
    def configs(self) -> list[Json]:
        """The configurations of all spaces; see `Space.configs`."""
        return [config for space in self.spaces.values() for config in space.configs]

    @property
    def bases(self) -> list[Json]:
        """The configurations that stand for all points of the open searches."""
        return [space.search.base for space in self.spaces.values() if space.search is not None]

    @property
    def joints(self) -> set[str]:
        """The states that the plan's open searches keep for later points."""
        searched = {space.name for space in self.plan.spaces if space.search is not None}
        return tree.joints(r for (name, _), r in self.recipes.items() if self._trials[name].space in searched)


def cut(recipe: Resolved, epochs: int) -> Resolved:
    """Return the first epochs of a recipe."""
    joints = tuple(number for number in recipe.joints if number < epochs)
    return replace(recipe, epochs=recipe.epochs[:epochs], keys=recipe.keys[: epochs + 1], joints=joints)


def point_label(number: int) -> str:
    """Return the label of an open search's point."""
    return f"#{number}"


def point_trial(search: OpenSearch, label: str, values: Mapping[str, Any]) -> Trial:
    """Return the trial that a search's `point` makes of values, under the point's label. Raise what `point` raises."""
    trial: object = search.point(dict(values))
    if not isinstance(trial, Trial):
        raise TypeError(f"point must return a Trial, but returned {type(trial).__name__}")
    return replace(trial, row=label, called=label, axes={**values, **trial.axes})


def planned_trial(space: str, trial: Trial, objective: str) -> PlannedTrial:
    """Return a trial as planned, not yet resolved. A trial without a measure gets the space's first objective."""
    return PlannedTrial(space, replace(trial, measure=trial.measure or objective))
