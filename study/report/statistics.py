"""Mean ± std over replicates, and differences with their intervals and verdicts. Pure.

Differences are paired over replicates, with a 95 % t-interval. p-values are two-sided, need at least five pairs, and
are adjusted over a space's hypotheses (Holm, 1979). A hypothesis of equivalence is supported if the interval lies
within a margin. It also needs at least five pairs. It has no p-value, and the adjustment leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study.space import Contrast

LEAST = 5  # the least number of pairs for a verdict
LEVEL = 0.05

Values = Mapping[int, float]  # by replicate


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates, for example of differences in points, with its 95 % t-interval.

    Attributes:
        n: the number of replicates, or of pairs.
        mean: their mean.
        low, high: the interval; None if n < 2.
        p: the two-sided p-value for a mean of 0; None if n < 5.
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def words(self, decimals: int = 1) -> str:
        """Return the signed mean with its interval: ``+2.5 [+0.6, +4.4]``."""
        if self.low is None or self.high is None:
            return f"{self.mean:+.{decimals}f}"
        return f"{self.mean:+.{decimals}f} [{self.low:+.{decimals}f}, {self.high:+.{decimals}f}]"


@dataclass(frozen=True)
class Difference:
    """A hypothesis in one column, with the measured difference.

    Attributes:
        contrast: the hypothesis about two rows.
        column: the column of both rows.
        estimate: better - worse. `p` is adjusted by Holm's method; None for a hypothesis of equivalence.
    """

    contrast: Contrast
    column: str
    estimate: Estimate

    @property
    def verdict(self) -> str:
        """The verdict in words: supported, contradicted, or neither."""
        measured, margin = self.estimate, self.contrast.margin
        if measured.n < LEAST:
            return f"n < {LEAST}: not tested"
        if margin is not None:
            assert measured.low is not None
            assert measured.high is not None
            if -margin < measured.low and measured.high < margin:
                return f"supported: equivalent within ± {margin:g}"
            outside = measured.low >= margin or measured.high <= -margin
            return f"contradicted: differs by more than {margin:g}" if outside else "not decided"
        if measured.p is None or measured.p >= LEVEL:
            return "not decided"
        return "supported" if measured.mean > 0 else "contradicted"

    def to_json(self) -> dict[str, Any]:
        """Return all fields and the verdict as one flat object."""
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
    """Return the mean with its 95 % t-interval and, for n ≥ 5, the p-value of a t-test against 0; None if n = 0."""
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
    """Return the estimate of a - b over the replicates that both have; None if they share none."""
    return estimate([a[number] - b[number] for number in sorted(a.keys() & b.keys())])


def differences(
    contrasts: Sequence[Contrast], last: Mapping[tuple[str, str], Callable[[str], Values]]
) -> list[Difference]:
    """Return the measured hypotheses in each column, with p-values adjusted over all of them.

    A hypothesis is left out in the columns that its contrast excepts, and in those where a row or a pair is missing.

    Args:
        contrasts: the contrasts of one space.
        last: by (row, column), a function from a measure, or "" for the row's measure, to its values.
    """
    unadjusted = []
    for column in dict.fromkeys(column for _, column in last):
        for contrast in contrasts:
            better, worse = last.get((contrast.better, column)), last.get((contrast.worse, column))
            if better is not None and worse is not None and column not in contrast.except_in:
                measured = paired(better(contrast.measure), worse(contrast.measure))
                if measured is not None:
                    p = measured.p if contrast.margin is None else None
                    unadjusted.append(Difference(contrast, column, replace(measured, p=p)))
    adjusted = holm([difference.estimate.p for difference in unadjusted])
    return [replace(d, estimate=replace(d.estimate, p=p)) for d, p in zip(unadjusted, adjusted, strict=True)]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted for testing all of them (Holm, 1979). None stands for no test and stays None."""
    tested = sorted((p, number) for number, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, number) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[number] = highest
    return adjusted


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None without values."""
    return sum(values) / len(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = sum(values) / len(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
