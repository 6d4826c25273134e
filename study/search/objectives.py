"""What a search maximises: the objectives of a trial, and the points that no other beats. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from study.planning.stored import Plan, PlannedTrial
from study.space import Json


def objectives(plan: Plan, trial: PlannedTrial, header: Callable[[str], Json]) -> list[float]:
    """A trial's objectives: the means over its replicates after the last epoch. Raises what `header` raises.

    The first is what its row shows; a champion's row shows more than what its point was chosen by.
    """
    lasts = [header(end)["measures"][-1] for end in trial.ends]
    first, *others = plan.space(trial.space).objectives
    names = (first if trial.champion_of else trial.trial.measure, *others)
    return [sum(last[name] for last in lasts) / len(lasts) for name in names]


def front(values: Sequence[tuple[PlannedTrial, Sequence[float]]]) -> list[PlannedTrial]:
    """The points that no other is better than in one objective and as good as in all; the best in the first leads.

    Of equal points the first one stands for all; with one objective, there is one point.
    """
    best = []
    for number, (point, own) in enumerate(values):
        beaten = any(
            all(a >= b for a, b in zip(other, own, strict=True)) and (list(other) != list(own) or earlier < number)
            for earlier, (_, other) in enumerate(values)
            if earlier != number
        )
        if not beaten:
            best.append((point, own))
    return [point for point, _ in sorted(best, key=lambda each: [-value for value in each[1]])]
