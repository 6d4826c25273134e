"""What the replicates of a trial differ in, and, where two things are crossed, how much of the spread each makes. Pure.

A run whose replicates are all pairs of, say, k subsets and k training seeds can be taken apart: a two-way analysis of
variance without repetition (random effects), in which ``MS`` are mean squares::

    value[i, j] = mean + first[i] + second[j] + both[i, j]
    var(first) = (MS_first - MS_both) / k,  var(second) = (MS_second - MS_both) / k,  var(both) = MS_both

What a training seed does to one subset, and not to all, is part of how much training varies: so the spread has two
parts, ``var(first)`` between subsets and ``var(second) + var(both)`` within one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import product

from study.planning.stored import PlannedTrial


def lines(trials: Iterable[PlannedTrial], searched: bool = False) -> list[str]:
    """What the replicates of these trials differ in and what is the same in all, a line for each answer there is.

    Where there are several, each line begins with whom it is about: columns, or of a search (`searched`) its points and
    its champions.
    """
    about: dict[str, dict[str, None]] = {}
    for trial in trials:
        kind = ("Champions" if trial.champion_of else "Points") if searched else trial.trial.column
        about.setdefault(_words(trial), {})[kind] = None
    if len(about) == 1:
        return list(about)
    return [f"{'; '.join(kinds)}: {words}" for words, kinds in about.items()]


def _words(trial: PlannedTrial) -> str:
    seeds = trial.seeds
    if not any(seeds):  # of an earlier version, or of a space whose work does not say it
        return "What replicates vary is not known: their plan does not say it."
    values = {name: list(dict.fromkeys(each[name] for each in seeds)) for name in seeds[0]}
    vary = [f"{name} ({_listed(found)})" for name, found in values.items() if len(found) > 1]
    same = [f"{name} {found[0]}" for name, found in values.items() if len(found) == 1]
    if len(seeds) == 1:
        return f"One replicate: {', '.join(same)}."
    *others, last = vary or ["nothing"]
    words = f"{len(seeds)} replicates vary " + (f"{', '.join(others)} and {last}" if others else last)
    words += ", every pair" if Crossing.of(trial) else ""
    return words + (f"; all have {', '.join(same)}." if same else ".")


def _listed(values: Sequence[str]) -> str:
    """Values in short: ``0 (published), 1``, or, of whole numbers that follow each other, ``0 (published) to 9``."""
    numbers = [value.partition(" ")[0] for value in values]
    if len(values) > 2 and all(number.isdecimal() for number in numbers):
        first = int(numbers[0])
        if [int(number) for number in numbers] == list(range(first, first + len(values))):
            return f"{values[0]} to {values[-1]}"
    return ", ".join(values)


@dataclass(frozen=True)
class Crossing:
    """Two things that replicates vary in pairs.

    Attributes:
        names: of the two.
        size: k, how many values each has.
        places: (i, j) of each replicate among the k × k pairs, by its number.
    """

    names: tuple[str, str]
    size: int
    places: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, trial: PlannedTrial) -> Crossing | None:
        """The largest square of pairs among a trial's replicates; None if there is none."""
        return cls.among(trial.seeds, list(trial.by_replicate))

    @classmethod
    def among(cls, seeds: Sequence[Mapping[str, str]], numbers: Sequence[int] | None = None) -> Crossing | None:
        """The largest square of pairs, of the first values that either thing has; None if there is none.

        Args:
            seeds: of each replicate, by name.
            numbers: of the replicates; None for 0, 1, …
        """
        vary = [name for name in (seeds[0] if seeds else ()) if len({each[name] for each in seeds}) > 1]
        if len(vary) != 2:
            return None
        first, second = vary
        values = [list(dict.fromkeys(each[name] for each in seeds)) for name in vary]
        pairs = {
            (values[0].index(each[first]), values[1].index(each[second])): number
            for number, each in zip(range(len(seeds)) if numbers is None else numbers, seeds, strict=True)
        }
        for size in range(math.isqrt(len(pairs)), 1, -1):
            if all(pair in pairs for pair in product(range(size), range(size))):
                places = {pairs[i, j]: (i, j) for i, j in product(range(size), range(size))}
                return cls((first, second), size, places)
        return None


@dataclass(frozen=True)
class Parts:
    """Estimates of the variances that a spread is made of, in squared points; see above.

    `first` and `second` may be below 0, as estimates are where there is little of a thing: so that a mean over several
    trials is right. What is shown of them is not.
    """

    first: float
    second: float
    both: float

    @classmethod
    def mean(cls, several: Sequence[Parts]) -> Parts:
        """Over trials."""
        return cls(*(sum(values) / len(several) for values in zip(*map(astuple, several), strict=True)))

    @property
    def between(self) -> float:
        """Of the first thing's values, at least 0."""
        return max(0.0, self.first)

    @property
    def within(self) -> float:
        """Of the second thing's under one of the first; never below 0."""
        return max(0.0, self.second + self.both)  # rounding aside

    @property
    def total(self) -> float:
        """Of a value under a pair that is drawn anew."""
        return self.between + self.within

    @property
    def segments(self) -> tuple[float, float, float]:
        """The total in three: the first thing, what the second does alike with each of the first, and what not."""
        alike = min(max(0.0, self.second), self.within)
        return self.between, alike, self.within - alike


def parts(crossing: Crossing, values: Mapping[int, float]) -> Parts | None:
    """What a trial's spread is made of; None unless every replicate of the square has a value."""
    k = crossing.size
    if not crossing.places.keys() <= values.keys():
        return None
    table = {place: values[number] for number, place in crossing.places.items()}
    rows = [sum(table[i, j] for j in range(k)) / k for i in range(k)]
    columns = [sum(table[i, j] for i in range(k)) / k for j in range(k)]
    centre = sum(rows) / k
    first, second = (k * sum((each - centre) ** 2 for each in means) / (k - 1) for means in (rows, columns))
    both = sum((value - rows[i] - columns[j] + centre) ** 2 for (i, j), value in table.items()) / (k - 1) ** 2
    return Parts((first - both) / k, (second - both) / k, both)
