"""What a space is: the trials of a table, or the dimensions of a search, and the work that trains them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from study.errors import Refusal
from study.machine import Machine

Json = Mapping[str, Any]
Value = str | bool | float | tuple[str, ...] | tuple[float, ...]  # of an option


@dataclass(frozen=True)
class Option:
    """What a user may choose of a space: ``--NAME`` if an installed package declares it, else ``-o NAME=VALUE``, text.

    A package declares options by an entry point of the group ``study.options``, which names a sequence of them.

    Attributes:
        name: without dashes.
        help: what it means, as `study run --help` and `study show` say it.
        kind: text, a number, or a flag, which takes no value.
        repeatable: whether it may be given several times; its value is then a tuple.
        choices: the values that there are; empty for any.
        metavar: what stands for its value in help texts.
        reference: whether its value may name a file, ``FILE.py:NAME``, which is then kept with its whole path.
        scale: whether, as a flag, it makes a space another size, which `study list` then shows.
        ignored: (its value, the seeds of a trial's replicates) → what of the value was not done, or "": a space whose
            function takes the option, and does not look at it, is refused.
    """

    name: str
    help: str
    kind: Literal["text", "number", "flag"] = "text"
    repeatable: bool = False
    choices: tuple[str, ...] = ()
    metavar: str = "VALUE"
    reference: bool = False
    scale: bool = False
    ignored: Callable[[Any, Sequence[Mapping[str, str]]], str] | None = None


@dataclass(frozen=True)
class Request:
    """What the user chose of a space: the argument of a space's function.

    Attributes:
        options: by name, those that were given: a tuple if repeatable, True of a flag; text of ``-o``.
        trials: of an open search, in all; 0 for the space's own default.
        objectives: of an open search, in the space's words; empty for the space's own default.
        early_stop: of an open search: epochs since a point's last joint after which it is judged; 0 for never.
    """

    options: Mapping[str, Value] = field(default_factory=dict)
    trials: int = 0
    objectives: tuple[str, ...] = ()
    early_stop: int = 0


@dataclass(frozen=True)
class Choice:
    """A search dimension with listed values."""

    values: tuple[str, ...]
    kind: Literal["Choice"] = field(default="Choice", repr=False, kw_only=True)

    def __str__(self) -> str:
        """Return the values in words, such as ``IB, CB or CR``."""
        *others, last = self.values or ("",)
        return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True)
class Integer:
    """A search dimension of whole numbers, both ends included."""

    low: int
    high: int
    kind: Literal["Integer"] = field(default="Integer", repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise Refusal("dimension", self, "low ≤ high would do")

    def __str__(self) -> str:
        """Return the range in words, such as ``0 to 40``."""
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Real:
    """A search dimension of real numbers, both ends included; in steps, if `step` is given."""

    low: float
    high: float
    step: float | None = None
    kind: Literal["Real"] = field(default="Real", repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.step is not None and not self.step > 0):
            raise Refusal("dimension", self, "low ≤ high and a step above 0 would do")
        for name in ("low", "high"):  # as they are read again
            object.__setattr__(self, name, float(getattr(self, name)))

    def __str__(self) -> str:
        """Return the range in words, such as ``-2 to 2`` or ``-2 to 2 in steps of 0.5``."""
        low, high, step = (str(number).removesuffix(".0") for number in (self.low, self.high, self.step))
        return f"{low} to {high}" + ("" if self.step is None else f" in steps of {step}")


Domain = Choice | Integer | Real  # told apart by `kind`, also as JSON


@dataclass(frozen=True)
class Source:
    """What the printed figures of a space are from, such as a paper; its tables show them beside what was measured.

    Attributes:
        name: what tables call it.
        columns: the names of the columns that are on its own data, whether a space has them or not; of all others its
            report says that they are not. Empty for a space that reproduces nothing of it.
        marks: what a mark behind a figure means, by the mark.
        runs: over how many runs its figures are.
    """

    name: str = "source"
    columns: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    runs: str = "n is unstated"


@dataclass(frozen=True)
class Printed:
    """A figure as a source prints it.

    Attributes:
        value: in the unit of what it stands beside.
        provenance: a mark of the source's, or "".
        of: the source's column that it belongs to, where that is on other data than what it stands beside; "" where it
            is the same.
        comparable: False where the source's formula is another one or not known: no difference from it is given.
    """

    value: float
    provenance: str = ""
    of: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Trial:
    """One point of a space: a configuration. One Optuna trial.

    Attributes:
        row, column: where it stands in the table.
        config: the complete configuration, as JSON.
        axes: what tells the trials of the space apart; those in the space's domain are Optuna's parameters.
        printed: the source's figure for it, or None.
        measure: what its row shows, of the last epoch; "" for the space's first objective.
        least: replicates that it needs at least, such as ten where runs are what is measured.
        called: its name inside the space, and unique there; "" for its row and column.
    """

    row: str
    column: str
    config: Json
    axes: Mapping[str, str | int | float]
    printed: Printed | None = None
    measure: str = ""
    least: int = 1
    called: str = ""

    @property
    def label(self) -> str:
        """Its name inside the space."""
        return self.called or f"{self.row} ({self.column})"


@dataclass(frozen=True)
class Contrast:
    """A hypothesis that stood in the space's file before it was run: row `better` beats row `worse`, in each column.

    Attributes:
        margin: with one, in points, the hypothesis is that the two do not differ: the 95 % interval of their difference
            lies within ± `margin`.
        claim: what the source says of it, in words; "" where the rows' names say it.
        measure: what is compared, after the last epoch; "" for each row's own.
        except_in: columns that it is not about, such as those that the source itself names as its exceptions.
    """

    better: str
    worse: str
    margin: float | None = None
    claim: str = ""
    measure: str = ""
    except_in: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.margin is not None and not self.margin > 0:
            raise Refusal("margin", self.margin, "a number of points above 0, or none, would do")


@dataclass(frozen=True)
class Resolved:
    """A replicate's work: what determines state 0, one instruction an epoch, and the states' names 0 … T.

    Attributes:
        joints: the states, by number, at which other points of an open search are likely to part from this one.
        seeds: what tells the replicate from others of its trial, by name, in words.
        sources: the digest of each part of the code that the states depend on, by names that tell a user where it is.
    """

    origin: Json
    epochs: tuple[Json, ...]
    keys: tuple[str, ...]
    joints: tuple[int, ...] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What the platform needs of the science: plain functions that import late, and what its records show.

    Attributes:
        resolve: (configuration, replicate, machine) → its work. Pure and fast. The names of states must hold all that
            determines them: the digests of its sources, too.
        prepare: (configurations, data folder, download) → None; raises Refusal if data are missing.
        trainable: → the Ray Trainable class that executes a stage; see `study.execution.job`.
        parameters: (configuration, replicate, machine) → what MLflow shows as parameters.
        exporter: configuration → (a state's payload, folder, MLflow's ``Model``) → None, which writes a model directory
            as an MLflow flavor does. The first step may take seconds, once for each kind of network.
        wants_gpu: configuration → whether it is trained on a GPU, if there is one and the user says nothing else.
        curves: the measures, or the beginnings of their names, that MLflow shows of every epoch; of all others it shows
            the last. The first is measured in every epoch.
        lists: of measures that are lists: under which name MLflow shows each entry of the last epoch.
        headline: the measures that MLflow's views show beside a space's objectives.
        group_by: the parameter that people compare runs by.
        libraries: the distributions, beside the platform's own, whose versions a plan records.
    """

    resolve: Callable[[Json, int, Machine], Resolved]
    prepare: Callable[[Sequence[Json], Path, bool], None]
    trainable: Callable[[], type]
    parameters: Callable[[Json, int, Machine], Mapping[str, Any]]
    exporter: Callable[[Json], Callable[[bytes, Path, Any], None]]
    wants_gpu: Callable[[Json], bool]
    curves: tuple[str, ...]
    lists: Mapping[str, str] = field(default_factory=dict)
    headline: tuple[str, ...] = ()
    group_by: str = "trial"
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenSearch:
    """How a space finds its trials where none are listed: Optuna suggests points of the domain.

    Attributes:
        point: (a value for each dimension of the domain) → the trial; its row is overwritten with its number.
        base: a configuration that stands for the work of all points in the name of a run.
        trials: how many in all.
        seed: of the suggestions, with the number of trials before each.
        fresh: replicates, under seeds that no point saw, in which the best point is trained again.
        reported: the measures, of the last epoch, that are reported of those.
    """

    point: Callable[[Mapping[str, Any]], Trial]
    base: Json
    trials: int
    reported: tuple[str, ...]
    seed: int = 0
    fresh: int = 3


@dataclass(frozen=True)
class Space:
    """What could be run: a table, a figure, a search.

    What its report shows is said by the function ``view(results)`` of the file that the space's function is in, if it
    has one; see `study.report.results`, which has an example.

    Attributes:
        name: what the command line calls it.
        title: what it reproduces.
        trials: its points; none if `search` finds them.
        domain: the dimensions of the trials' axes, for Optuna.
        work: what trains it.
        objectives: the measures, of the last epoch, that Optuna is told, each to be maximised; tables show the first.
        contrasts: hypotheses; see `Contrast`.
        search: how trials are found, if they are not listed.
        options: those of the request's options that it understands; others are refused.
        source: what its printed figures are from.
        evidence: what its result on other data than the source's can say about it; "" if its columns say it themselves.
        splits: measures in whose parts results are also given, such as ``small`` of ``test/small``.
        crossed: how the user asked for replicates that are every pair of two things, such as ``--vary crossed``; "" if
            they are not.
    """

    name: str
    title: str
    trials: tuple[Trial, ...]
    domain: Mapping[str, Domain]
    work: Work
    objectives: tuple[str, ...]
    contrasts: tuple[Contrast, ...] = ()
    search: OpenSearch | None = None
    options: tuple[Option, ...] = ()
    source: Source = field(default_factory=Source)
    evidence: str = ""
    splits: tuple[str, ...] = ()
    crossed: str = ""

    @property
    def configs(self) -> list[Json]:
        """The configurations of its trials, or the one that stands for all points of its search."""
        return [trial.config for trial in self.trials] if self.search is None else [self.search.base]

    def __post_init__(self) -> None:
        if bool(self.trials) == (self.search is not None):
            raise Refusal("space", self.name, "at least one trial, or else an open search, would do")
        for trial in self.trials:
            for name, domain in self.domain.items():
                value = trial.axes.get(name)
                inside = value in domain.values if isinstance(domain, Choice) else _within(domain, value)
                if not inside:
                    raise Refusal(f"{self.name}, {trial.label}: {name}", value, f"a value of {domain} would do")


def _within(domain: Integer | Real, value: object) -> bool:
    kinds = (int,) if isinstance(domain, Integer) else (int, float)
    return isinstance(value, kinds) and domain.low <= value <= domain.high
