"""A search's objectives: their values for a trial, and the points that no other point beats. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from study.planning.stored import Plan, PlannedTrial
from study.space import Json


def objectives(plan: Plan, trial: PlannedTrial, header: Callable[[str], Json]) -> list[float]:
    """Return a trial's objectives: means over its replicates after the last epoch. Raise what `header` raises.

    The first one is the measure of the trial's row, except for a champion, whose row shows another measure than the
    objective that its point was chosen by.
    """
    lasts = [header(end)["measures"][-1] for end in trial.ends]
    first, *further = plan.space(trial.space).objectives
    names = (first if trial.champion_of else trial.trial.measure, *further)
    return [sum(last[name] for last in lasts) / len(lasts) for name in names]


def front(values: Sequence[tuple[PlannedTrial, Sequence[float]]]) -> list[PlannedTrial]:
    """Return the Pareto front: the points that no other point beats, the best in the first objective first.

    A point beats another if it is at least as good in all objectives and better in one. Of equal points only the first
    one is returned, so with one objective there is one point.
    """
    best = []
    for number, (point, objective_values) in enumerate(values):
        beaten = any(
            all(a >= b for a, b in zip(other, objective_values, strict=True))
            and (list(other) != list(objective_values) or earlier < number)
            for earlier, (_, other) in enumerate(values)
            if earlier != number
        )
        if not beaten:
            best.append((point, objective_values))
    return [point for point, _ in sorted(best, key=lambda pair: [-value for value in pair[1]])]
