"""Spaces: the trials of a table, or the dimensions of a search, and the work that trains them. Pure."""

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
    """A choice that a space offers: ``--NAME`` if an installed package declares it, else ``-o NAME=VALUE``, text.

    A package declares options by an entry point of the group ``study.options``, which names a sequence of them.

    Attributes:
        name: without dashes.
        help: its meaning, as `study run --help` and `study show` print it.
        kind: text, a number, or a flag, which takes no value.
        repeatable: whether it may be given several times; its value is then a tuple.
        choices: the allowed values; empty for any.
        metavar: the placeholder of its value in help texts.
        reference: whether its value may name a file, ``FILE.py:NAME``, which is then kept with its whole path.
        scale: whether the option is a flag that makes a space another size; `study list -v` then shows that cost.
        ignored: (its value, the seeds of a trial's replicates) → the part of the value that had no effect, or "". A
            space whose function accepts the option and ignores it is refused.
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
    """The user's choices for a space: the argument of its function.

    Attributes:
        options: the given options by name: a tuple for a repeatable one, True for a flag, text for ``-o``.
        trials: points of an open search, in all; 0 for the space's own default.
        objectives: of an open search, in the space's words; empty for the space's own default.
        early_stop: of an open search: epochs after a point's last joint, when it is judged; 0 for never.
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
            raise Refusal("dimension", self, "must have low ≤ high")

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
            raise Refusal("dimension", self, "must have low ≤ high and a step above 0")
        for name in ("low", "high"):  # as JSON gives them back
            object.__setattr__(self, name, float(getattr(self, name)))

    def __str__(self) -> str:
        """Return the range in words, such as ``-2 to 2`` or ``-2 to 2 in steps of 0.5``."""
        low, high, step = (str(number).removesuffix(".0") for number in (self.low, self.high, self.step))
        return f"{low} to {high}" + ("" if self.step is None else f" in steps of {step}")


Domain = Choice | Integer | Real  # `kind` names the class, also in JSON


@dataclass(frozen=True)
class Source:
    """The source of a space's printed figures, such as a paper; tables show these beside the measured values.

    Attributes:
        name: its name in tables.
        columns: the names of the columns that are on its own data, whether a space has them or not. The report of a
            space says of every other column that it is on other data. Empty for a space that reproduces nothing of it.
        marks: the meaning of each mark behind a figure.
        runs: the number of runs behind its figures, in words.
    """

    name: str = "source"
    columns: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    runs: str = "n is unstated"


@dataclass(frozen=True)
class Printed:
    """A figure as a source prints it.

    Attributes:
        value: in the unit of the measured value beside it.
        provenance: a mark of the source's, or "".
        of: the source's column that it belongs to, if that is on other data than the measured value; "" if not.
        comparable: False where the source's formula differs or is not known; then no difference is reported.
    """

    value: float
    provenance: str = ""
    of: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Trial:
    """One point of a space: a configuration. One Optuna trial.

    Attributes:
        row, column: its place in the table.
        config: the complete configuration, as JSON.
        axes: the values in which trials of the space differ; those in the space's domain are Optuna's parameters.
        printed: the source's figure for it, or None.
        measure: the measure that its row shows, of the last epoch; "" for the space's first objective.
        least: the least number of replicates that it needs.
        called: its unique name inside the space; "" for its row and column.
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
    """A hypothesis that was written before the space was run: row `better` beats row `worse`, in each column.

    Attributes:
        margin: if given, in points, the hypothesis is that the two do not differ: the 95 % interval of their difference
            lies within ± `margin`.
        claim: the source's words; "" where the rows' names say it.
        measure: the compared measure, after the last epoch; "" for each row's own.
        except_in: columns that the hypothesis leaves out, such as the source's own exceptions.
    """

    better: str
    worse: str
    margin: float | None = None
    claim: str = ""
    measure: str = ""
    except_in: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.margin is not None and not self.margin > 0:
            raise Refusal("margin", self.margin, "must be None or a number of points above 0")


@dataclass(frozen=True)
class Resolved:
    """A replicate's work: its origin, which determines state 0, an instruction an epoch, and the names of states 0 … T.

    Attributes:
        joints: the numbers of the states at which other points of an open search are likely to part from this one.
        seeds: the seeds in which the replicates of a trial differ, by name, in words.
        sources: the digest of each part of the code that the states depend on, by names that users can find.
    """

    origin: Json
    epochs: tuple[Json, ...]
    keys: tuple[str, ...]
    joints: tuple[int, ...] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The science as the platform needs it: plain functions that import late, and the choice of what records show.

    Attributes:
        resolve: (configuration, replicate, machine) → its work. Pure and fast. The names of states must hold everything
            that determines them, the digests of the sources included.
        prepare: (configurations, data folder, download) → None; raises Refusal if data are missing.
        trainable: → the Ray Trainable class that executes a stage; see `study.execution.job`.
        parameters: (configuration, replicate, machine) → MLflow's parameters.
        model: (configuration, a state's payload) → the trained object in Python, such as a network in evaluation mode;
            None if there is no such object.
        exporter: configuration → (a state's payload, folder, MLflow's ``Model``) → None, which writes a model directory
            as an MLflow flavor does. The first step may take seconds, once for each kind of network.
        wants_gpu: configuration → whether it is trained on a GPU by default, if there is one.
        curves: measures, or beginnings of their names, that MLflow shows of every epoch; it shows the last value of all
            others. The first one is measured in every epoch.
        lists: the names under which MLflow shows the entries of measures that are lists, of the last epoch.
        headline: the measures that MLflow's views show beside a space's objectives.
        group_by: the parameter by which people compare runs.
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
    model: Callable[[Json, bytes], Any] | None = None


@dataclass(frozen=True)
class OpenSearch:
    """An open search: Optuna suggests points of the domain as trials.

    Attributes:
        point: (a value for each dimension of the domain) → the trial; its row is overwritten with its number.
        base: the configuration that represents the work of all points in the name of a run.
        trials: the number of points in all.
        seed: of the suggestions, together with the number of trials before each.
        fresh: the number of replicates, under seeds that no point saw, in which the best point is trained again.
        reported: the measures, of the last epoch, that are reported of these replicates.
    """

    point: Callable[[Mapping[str, Any]], Trial]
    base: Json
    trials: int
    reported: tuple[str, ...]
    seed: int = 0
    fresh: int = 3


@dataclass(frozen=True)
class Space:
    """A table, a figure or a search that can be run.

    The function ``view(results)`` in the file of the space's function, if there is one, decides what its report shows;
    `study.report.results` has an example.

    Attributes:
        name: its name on the command line.
        title: its title in reports.
        trials: its points; none if `search` finds them.
        domain: the dimensions of the trials' axes, for Optuna.
        work: how it is trained.
        objectives: the measures, of the last epoch, that Optuna maximises; tables show the first.
        contrasts: hypotheses; see `Contrast`.
        search: how its trials are found, if they are not listed.
        options: the options of a request that it understands; others are refused.
        source: the source of its printed figures.
        evidence: what a result on other data than the source's can say about the source; "" if its columns say it.
        splits: parts of measures in which results are also given, such as ``small`` of ``test/small``.
        crossed: the option that made the replicates every pair of two things, such as ``--vary crossed``; "" if they
            are not.
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
        """The configurations of its trials, or the one that represents all points of its search."""
        return [trial.config for trial in self.trials] if self.search is None else [self.search.base]

    def __post_init__(self) -> None:
        if bool(self.trials) == (self.search is not None):
            raise Refusal("space", self.name, f"space {self.name!r} must have either trials or an open search")
        for trial in self.trials:
            for name, domain in self.domain.items():
                value = trial.axes.get(name)
                inside = value in domain.values if isinstance(domain, Choice) else _within(domain, value)
                if not inside:
                    raise Refusal(f"{self.name}, {trial.label}: {name}", value, f"must be in {domain}")


def _within(domain: Integer | Real, value: object) -> bool:
    kinds = (int,) if isinstance(domain, Integer) else (int, float)
    return isinstance(value, kinds) and domain.low <= value <= domain.high
