"""Seeds in which the replicates of a trial differ and, where two are crossed, each one's part of the spread. Pure.

If the replicates are all pairs of, say, k subsets and k training seeds, their spread can be decomposed by a two-way
analysis of variance without repetition (random effects). ``MS`` are mean squares::

    value[i, j] = mean + first[i] + second[j] + both[i, j]
    var(first) = (MS_first - MS_both) / k,  var(second) = (MS_second - MS_both) / k,  var(both) = MS_both

An effect of a training seed on one subset only is part of the variation of training. So the spread has two parts:
``var(first)`` between subsets, and ``var(second) + var(both)`` within a subset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import product

from study.planning.stored import PlannedTrial


def lines(trials: Iterable[PlannedTrial], searched: bool = False) -> list[str]:
    """Return in which seeds the replicates of these trials differ, and which are the same in all.

    Trials with the same answer share a line. If there are several lines, each begins with the columns that it is about;
    in a search (`searched`), with points or champions.
    """
    subjects: dict[str, dict[str, None]] = {}
    for trial in trials:
        subject = ("Champions" if trial.champion_of else "Points") if searched else trial.trial.column
        subjects.setdefault(_sentence(trial), {})[subject] = None
    if len(subjects) == 1:
        return list(subjects)
    return [f"{'; '.join(names)}: {sentence}" for sentence, names in subjects.items()]


def _sentence(trial: PlannedTrial) -> str:
    seeds = trial.seeds
    if not any(seeds):  # of an earlier version, or of a space whose work does not name its seeds
        return "The plan does not record in which seeds the replicates differ."
    values = {name: list(dict.fromkeys(replicate[name] for replicate in seeds)) for name in seeds[0]}
    varied = [f"{name} ({_enumerate(distinct)})" for name, distinct in values.items() if len(distinct) > 1]
    same = [f"{name} {distinct[0]}" for name, distinct in values.items() if len(distinct) == 1]
    if len(seeds) == 1:
        return f"One replicate: {', '.join(same)}."
    *first, last = varied or ["nothing"]
    words = f"{len(seeds)} replicates vary " + (f"{', '.join(first)} and {last}" if first else last)
    words += ", every pair" if Crossing.of(trial) else ""
    return words + (f"; all have {', '.join(same)}." if same else ".")


def _enumerate(values: Sequence[str]) -> str:
    """Return values as ``0 (published), 1``; consecutive whole numbers as ``0 (published) to 9``."""
    numbers = [value.partition(" ")[0] for value in values]
    if len(values) > 2 and all(number.isdecimal() for number in numbers):
        first = int(numbers[0])
        if [int(number) for number in numbers] == list(range(first, first + len(values))):
            return f"{values[0]} to {values[-1]}"
    return ", ".join(values)


@dataclass(frozen=True)
class Crossing:
    """Two seeds that replicates vary in pairs.

    Attributes:
        names: the names of the two seeds.
        size: k, the number of values of each.
        places: the pair (i, j) of each replicate among the k × k pairs, by the replicate's number.
    """

    names: tuple[str, str]
    size: int
    places: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, trial: PlannedTrial) -> Crossing | None:
        """Return the largest square of pairs among a trial's replicates; None if there is none."""
        return cls.among(trial.seeds, list(trial.by_replicate))

    @classmethod
    def among(cls, seeds: Sequence[Mapping[str, str]], numbers: Sequence[int] | None = None) -> Crossing | None:
        """Return the largest square of pairs of the first values of two seeds; None if there is none.

        Args:
            seeds: the seeds of each replicate, by name.
            numbers: the numbers of the replicates; None for 0, 1, …
        """
        names = seeds[0] if seeds else ()
        varied = [name for name in names if len({replicate[name] for replicate in seeds}) > 1]
        if len(varied) != 2:
            return None
        first, second = varied
        values = [list(dict.fromkeys(replicate[name] for replicate in seeds)) for name in varied]
        pairs = {
            (values[0].index(replicate[first]), values[1].index(replicate[second])): number
            for number, replicate in zip(range(len(seeds)) if numbers is None else numbers, seeds, strict=True)
        }
        for size in range(math.isqrt(len(pairs)), 1, -1):
            if all(pair in pairs for pair in product(range(size), range(size))):
                places = {pairs[i, j]: (i, j) for i, j in product(range(size), range(size))}
                return cls((first, second), size, places)
        return None


@dataclass(frozen=True)
class Parts:
    """Estimates of the variances in a spread, in squared points; see the module's docstring.

    The estimates `first` and `second` may be below 0 if the true variance is small. They stay so, since clipped ones
    would bias a mean over several trials. The properties, which reports show, are at least 0.
    """

    first: float
    second: float
    both: float

    @classmethod
    def mean(cls, several: Sequence[Parts]) -> Parts:
        """Return the mean over trials."""
        return cls(*(sum(values) / len(several) for values in zip(*map(astuple, several), strict=True)))

    @property
    def between(self) -> float:
        """The variance between values of the first seed; at least 0."""
        return max(0.0, self.first)

    @property
    def within(self) -> float:
        """The variance within a value of the first seed; at least 0."""
        return max(0.0, self.second + self.both)  # rounding aside

    @property
    def total(self) -> float:
        """The variance of a value under a new pair of seeds."""
        return self.between + self.within

    @property
    def segments(self) -> tuple[float, float, float]:
        """The total in three: the first seed, the second seed's effect common to all values of the first, the rest."""
        common = min(max(0.0, self.second), self.within)
        return self.between, common, self.within - common


def parts(crossing: Crossing, values: Mapping[int, float]) -> Parts | None:
    """Return the parts of a trial's spread; None unless every replicate of the square has a value."""
    k = crossing.size
    if not crossing.places.keys() <= values.keys():
        return None
    table = {pair: values[number] for number, pair in crossing.places.items()}
    rows = [sum(table[i, j] for j in range(k)) / k for i in range(k)]
    columns = [sum(table[i, j] for i in range(k)) / k for j in range(k)]
    centre = sum(rows) / k
    first, second = (k * sum((mean - centre) ** 2 for mean in means) / (k - 1) for means in (rows, columns))
    both = sum((value - rows[i] - columns[j] + centre) ** 2 for (i, j), value in table.items()) / (k - 1) ** 2
    return Parts((first - both) / k, (second - both) / k, both)
