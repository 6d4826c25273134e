"""Replicates → mean ± std, and differences with their intervals and verdicts. Pure.

Differences are paired over replicates, with a 95 % t-interval; p-values are two-sided, from five pairs on, and adjusted
over a space's hypotheses (Holm, 1979). That two rows do not differ is claimed by an interval within a margin alone,
likewise from five pairs on; it has no p-value, and Holm leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.space import Contrast

LEAST = 5  # pairs for a verdict
LEVEL = 0.05

Values = Mapping[int, float]  # by replicate


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates, of differences in points for example, with its 95 % t-interval.

    Attributes:
        n: replicates, or pairs.
        mean: of them.
        low, high: the interval; None below two.
        p: two-sided, that it is 0; None below five.
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def words(self, decimals: int = 1) -> str:
        """Signed, with its interval: ``+2.5 [+0.6, +4.4]``."""
        if self.low is None or self.high is None:
            return f"{self.mean:+.{decimals}f}"
        return f"{self.mean:+.{decimals}f} [{self.low:+.{decimals}f}, {self.high:+.{decimals}f}]"


@dataclass(frozen=True)
class Difference:
    """A hypothesis in one column, with what was measured of it.

    Attributes:
        contrast, column: which rows, and where.
        estimate: of better - worse. `p` is adjusted by Holm; None for a hypothesis of equivalence.
    """

    contrast: Contrast
    column: str
    estimate: Estimate

    @property
    def verdict(self) -> str:
        """In words: whether it is supported, contradicted, or neither."""
        found, margin = self.estimate, self.contrast.margin
        if found.n < LEAST:
            return f"n < {LEAST}: not tested"
        if margin is not None:
            assert found.low is not None
            assert found.high is not None
            if -margin < found.low and found.high < margin:
                return f"supported: equivalent within ± {margin:g}"
            apart = found.low >= margin or found.high <= -margin
            return f"contradicted: differs by more than {margin:g}" if apart else "not decided"
        if found.p is None or found.p >= LEVEL:
            return "not decided"
        return "supported" if found.mean > 0 else "contradicted"

    def to_json(self) -> dict[str, Any]:
        """As it is, flat."""
        return {
            "column": self.column,
            "better": self.contrast.better,
            "worse": self.contrast.worse,
            "margin": self.contrast.margin,
            "claim": self.contrast.claim,
            "measure": self.contrast.measure,
            "n": self.estimate.n,
            "mean": self.estimate.mean,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "p": self.estimate.p,
            "verdict": self.verdict,
        }


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean with its 95 % t-interval, and from five values on the p-value of a t-test against 0; None of nothing."""
    n, centre, spread = len(values), mean(values), std(values)
    if centre is None:
        return None
    if spread is None:
        return Estimate(n, centre)
    from scipy.special import stdtr, stdtrit

    error = spread / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.975)) * error
    p = None
    if n >= LEAST:
        p = float(2 * stdtr(n - 1, -abs(centre) / error)) if error > 0 else float(centre == 0)
    return Estimate(n, centre, centre - half, centre + half, p)


def paired(a: Values, b: Values) -> Estimate | None:
    """The differences a - b over the replicates that both have; None without any."""
    return estimate([a[number] - b[number] for number in sorted(a.keys() & b.keys())])


def differences(
    contrasts: Sequence[Contrast], last: Mapping[tuple[str, str], Callable[[str], Values]]
) -> list[Difference]:
    """Hypotheses in each column that they hold in and can be measured in, with p-values adjusted over all of them.

    Args:
        contrasts: of one space.
        last: by (row, column), a function from a measure, or "" for the row's own, to its values.
    """
    found = []
    for column in dict.fromkeys(column for _, column in last):
        for contrast in contrasts:
            better, worse = last.get((contrast.better, column)), last.get((contrast.worse, column))
            if better is not None and worse is not None and column not in contrast.except_in:
                measured = paired(better(contrast.measure), worse(contrast.measure))
                if measured is not None:
                    p = measured.p if contrast.margin is None else None
                    found.append(Difference(contrast, column, replace(measured, p=p)))
    adjusted = holm([each.estimate.p for each in found])
    return [replace(d, estimate=replace(d.estimate, p=p)) for d, p in zip(found, adjusted, strict=True)]


def holm(found: Sequence[float | None]) -> list[float | None]:
    """The p-values adjusted for testing all of them (Holm, 1979); None stays, for it is no test."""
    tested = sorted((p, number) for number, p in enumerate(found) if p is not None)
    adjusted: list[float | None] = [None] * len(found)
    highest = 0.0
    for rank, (p, number) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[number] = highest
    return adjusted


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None below two values."""
    if len(values) < 2:
        return None
    centre = sum(values) / len(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
