"""Replicates → mean ± std, and paired differences with their intervals, beside the paper's numbers. Pure but for reads.

Last-epoch measures are what tables show; the best epoch is recorded as selected on test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from study.plan import Contrast, Json, Plan, PlannedTrial

SHOTS = ("many", "medium", "few")


@dataclass(frozen=True)
class Row:
    """A trial's result over its replicates, in percent.

    Attributes:
        trial: the trial.
        values: the objective after the last epoch, by replicate number.
        best: the highest of any epoch: selected on test.
        shots: mean over replicates of many-, medium- and few-shot accuracy; a split without classes is missing.
        hardware: the models of CPU or GPU that trained it.
    """

    trial: PlannedTrial
    values: dict[int, float]
    best: dict[int, float]
    shots: dict[str, float]
    hardware: frozenset[str]

    @property
    def mean(self) -> float | None:
        """Over replicates; None without any."""
        return mean(list(self.values.values()))

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None with fewer than two replicates."""
        return std(list(self.values.values()))

    def to_json(self) -> dict[str, Any]:
        """Its axes, its values in percent, and the paper's figure."""
        return {
            "space": self.trial.space, "trial": self.trial.label, **self.trial.axes, "mean": self.mean, "std": self.std,
            "n": len(self.values), "values": list(self.values.values()), "paper": self.trial.paper,
            "paper_of": self.trial.paper_of, "best_epoch_mean": mean(list(self.best.values())), **self.shots,
        }  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A paired difference over replicates, in points, with its 95 % t-interval.

    Attributes:
        space, column: where it was measured.
        contrast: which rows.
        n: pairs.
        mean: of better - worse.
        low, high: the interval; None below two pairs.
        p: two-sided, by Holm over the space's hypotheses; None below five pairs.
    """

    space: str
    column: str
    contrast: Contrast
    n: int
    mean: float
    low: float | None
    high: float | None
    p: float | None

    def to_json(self) -> dict[str, Any]:
        """As it is, flat."""
        return {
            "space": self.space, "column": self.column, "better": self.contrast.better, "worse": self.contrast.worse,
            "n": self.n, "mean": self.mean, "low": self.low, "high": self.high, "p": self.p,
        }  # fmt: skip


def rows(plan: Plan, header: Callable[[str], Json | None], space: str | None = None) -> list[Row]:
    """A row for each trial, whatever of it is there.

    Args:
        plan: what was run.
        header: reads a state's header; None if it is not in the store.
        space: only this space's trials.
    """
    found = []
    for trial in plan.trials:
        if space is not None and trial.space != space:
            continue
        objective, part = trial.measure, trial.measure.partition("/")[0]
        ends = {number: head for number, end in trial.by_replicate.items() if (head := header(end)) is not None}
        lasts = [head["measures"][-1] for head in ends.values()]
        shots = {shot: [last[f"{part}/{shot}"] for last in lasts if f"{part}/{shot}" in last] for shot in SHOTS}
        found.append(
            Row(
                trial=trial,
                values={number: head["measures"][-1][objective] for number, head in ends.items()},
                best={number: max(epoch[objective] for epoch in head["measures"]) for number, head in ends.items()},
                hardware=frozenset(part["device_model"] for head in ends.values() for part in head["provenance"]),
                shots={shot: sum(values) / len(values) for shot, values in shots.items() if values},
            )
        )
    return found


def objectives(plan: Plan, trial: PlannedTrial, header: Callable[[str], Json]) -> list[float]:
    """A trial's objectives: the means over its replicates after the last epoch. Raises what `header` raises."""
    lasts = [header(end)["measures"][-1] for end in trial.ends]
    return [sum(last[name] for last in lasts) / len(lasts) for name in plan.space(trial.space).objectives]


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


def differences(plan: Plan, found: Sequence[Row]) -> list[Difference]:
    """The hypotheses of each space, in each column, over the replicates that both rows have."""
    all_found = []
    for space in plan.spaces:
        here = {(row.trial.column, row.trial.row): row for row in found if row.trial.space == space.name}
        measured = []
        for column in dict.fromkeys(column for column, _ in here):
            for contrast in space.contrasts:
                better, worse = here.get((column, contrast.better)), here.get((column, contrast.worse))
                if better is not None and worse is not None:
                    pairs = sorted(better.values.keys() & worse.values.keys())
                    gaps = [better.values[number] - worse.values[number] for number in pairs]
                    if gaps:
                        measured.append(paired(space.name, column, contrast, gaps))
        all_found += holm(measured)
    return all_found


def paired(space: str, column: str, contrast: Contrast, gaps: Sequence[float]) -> Difference:
    """The mean of paired differences with its 95 % t-interval, and a two-sided p-value from five pairs on."""
    from scipy.special import stdtr, stdtrit

    n, centre, spread = len(gaps), sum(gaps) / len(gaps), std(gaps)
    if spread is None:
        return Difference(space, column, contrast, n, centre, None, None, None)
    error = spread / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.975)) * error
    p = None
    if n >= 5:
        p = float(2 * stdtr(n - 1, -abs(centre) / error)) if error > 0 else float(centre == 0)
    return Difference(space, column, contrast, n, centre, centre - half, centre + half, p)


def holm(found: Sequence[Difference]) -> list[Difference]:
    """The same differences with their p-values adjusted for testing all of them (Holm, 1979)."""
    tested = sorted((d.p, number) for number, d in enumerate(found) if d.p is not None)
    adjusted: dict[int, float] = {}
    highest = 0.0
    for rank, (p, number) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[number] = highest
    return [
        Difference(d.space, d.column, d.contrast, d.n, d.mean, d.low, d.high, adjusted.get(number))
        for number, d in enumerate(found)
    ]


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None below two values."""
    if len(values) < 2:
        return None
    centre = sum(values) / len(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
