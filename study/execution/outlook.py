"""What a start has done and what it expects, in epochs, replicates and points: one model for tables and searches."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress

from study.errors import StudyError
from study.execution.ledger import Ledger
from study.execution.points import Points
from study.execution.progress import Counts
from study.planning import tree
from study.planning.draft import Draft, Replicate
from study.planning.stored import PlannedSpace, PlannedTrial
from study.planning.tree import Stage
from study.search.objectives import objectives
from study.store.states import Store


class Outlook:
    """The counts of a start. What its searches have still to plan is expected by what they planned, or else their base.

    Args:
        draft: the plan, which may grow.
        store: the store of the states.
        ledger: the account of what is stored, planned and given up.
        points: the open searches.
    """

    def __init__(self, draft: Draft, store: Store, ledger: Ledger, points: Points) -> None:
        self._draft, self._store, self._ledger, self._points = draft, store, ledger, points
        self._left: dict[str, int] = {}  # by planned stage: epochs that are not trained yet
        self._bases = {
            space.name: draft.expected(space) for space in draft.plan.spaces if space.search is not None
        }  # stand-ins for a point and a champion
        self._to_compare: deque[Replicate] = deque()  # their trials may have ended, and were not compared yet
        self._seen = 0  # trials of the plan
        self.counts = Counts()

    def plan(self, stages: Sequence[Stage]) -> None:
        """Count stages, and the searches' trials, as planned."""
        self._left |= {stage.key: len(stage.keys) for stage in stages}
        self.refresh()

    def cut(self, parts: Sequence[Stage]) -> None:
        """Count the parts in which a stage is trained."""
        self._left |= {part.key: len(part.keys) for part in parts}  # the last part ends where the stage does

    def train(self, stage: Stage, epochs: int) -> None:
        """Count epochs of a stage as trained."""
        self._left[stage.key] = max(0, self._left.get(stage.key, 0) - epochs)
        self.counts.trained += epochs
        self.counts.epochs = max(self.counts.epochs, self.counts.trained)

    def recount(self, stage: Stage, epochs: int) -> None:
        """Expect so many epochs of a stage less, or more if it is below 0."""
        self._left[stage.key] = max(0, self._left.get(stage.key, 0) - epochs)
        self.refresh()

    def end(self, replicates: Collection[Replicate]) -> None:
        """Count replicates whose last state has been saved, and compare their trials."""
        self._to_compare.extend(replicates)
        self.refresh()

    def refresh(self) -> None:
        """Count again what depends on the plan and on what is stored."""
        counts, plan = self.counts, self._draft.plan
        self._left = {key: left for key, left in self._left.items() if self._ledger.is_planned(key)}
        expected, replicates, points, planned_points, ended_points = 0.0, 0, 0, 0, 0
        for space, missing_points, missing_champions in self._points.unplanned():
            point, champion = self._bases[space.name]
            planned = plan.points(space)
            valid = [each for each in planned if not each.refused]  # refused points have no epochs
            expected += missing_points * self._epochs_of_a_point(valid, point)
            expected += missing_champions * len(champion.ends) * champion.epochs
            replicates += missing_points * plan.replicates + missing_champions * len(champion.ends)
            points += missing_points
            planned_points += len(planned)
            ended_points += sum(not self._ledger.in_progress(each) for each in planned)
        counts.points = (ended_points, planned_points + points)
        counts.complete, counts.replicates = self._ledger.complete(), len(self._draft.recipes) + replicates
        counts.failed = len(self._ledger.given_up.keys() | self._ledger.lost.keys())
        counts.epochs = counts.trained + sum(self._left.values()) + round(expected)
        self._to_compare.extend((trial.name, trial.first_replicate) for trial in plan.trials[self._seen :])
        self._seen = len(plan.trials)
        if len(plan.spaces) == 1:  # values of different spaces are not compared
            with suppress(FileNotFoundError, StudyError):  # the store is away; only the user's view needs this
                self._compare(plan.spaces[0])

    def _epochs_of_a_point(self, planned: Sequence[PlannedTrial], base: PlannedTrial) -> float:
        """Return how many epochs no other point has: the mean of those planned, or without one those of the base."""
        recipes = [self._draft.recipes[point.name, number] for point in planned for number in point.by_replicate]
        return len(tree.nodes(recipes)) / len(planned) if planned else len(base.ends) * base.epochs

    def _compare(self, space: PlannedSpace) -> None:
        """Compare trials that have ended by the space's first objective.

        A champion shows another measure than its point, and a point that was stopped early has trained for less.
        """
        while self._to_compare:
            trial = self._draft.trial(self._to_compare[0])
            is_comparable = not trial.champion_of and not trial.stopped and trial.trial.measure == space.objectives[0]
            if is_comparable and self._ledger.has_ended(trial):
                value = objectives(self._draft.plan, trial, self._store.header)[0]
                if self.counts.best is None or value > self.counts.best[0]:
                    self.counts.best = (value, trial.label)
            self._to_compare.popleft()
