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
    """An option of a space: ``--NAME`` if an installed package declares it, else ``-o NAME=VALUE`` with a text value.

    A package declares options by an entry point of the group ``study.options``, which names a sequence of them.

    Attributes:
        name: the name without dashes.
        help: its meaning, as `study run --help` and `study show` print it.
        kind: the type of its value: text, a number, or a flag, which takes no value.
        repeatable: whether it may be given several times; its value is then a tuple.
        choices: the allowed values; empty for any.
        metavar: the placeholder of its value in help texts.
        reference: whether its value may name a file, ``FILE.py:NAME``, which is then kept with its whole path.
        scale: whether the option is a flag that changes the size of a space; `study list -v` then shows the cost of it.
        ignored: (its value, the seeds of a trial's replicates) → the part of the value that had no effect, or "". If a
            space's function accepts the option but ignores it, the space is refused.
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
        trials: the total number of points of an open search; 0 for the space's own default.
        objectives: the objectives of an open search, in the space's words; empty for the space's own default.
        early_stop: for an open search, the number of epochs from a point's last joint to the comparison with the
            median; 0 for no early stop. See `Resolved` about joints.
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

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in self.values):
            raise Refusal("values of a Choice", self.values, "must be texts", hint="Optuna takes 1 for True")

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
    """The source of a space's printed figures (numbers), such as a paper; tables show them beside the measured values.

    Attributes:
        name: its name in tables.
        columns: the names of the columns that are on the source's own data, even if the space does not have them. The
            report says of every other column that it is on other data. Empty for a space that reproduces nothing of it.
        marks: the meaning of each mark after a figure.
        runs: the number of runs behind its figures, in words.
    """

    name: str = "source"
    columns: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    runs: str = "n is unstated"


@dataclass(frozen=True)
class Printed:
    """A figure (a number) as a source prints it.

    Attributes:
        value: the number, in the unit of the measured value beside it.
        provenance: one of the source's marks, or "".
        of: the figure's column in the source, if that column is on other data than the measured value; else "".
        comparable: False if the source's formula differs or is not known; then no difference is reported.
    """

    value: float
    provenance: str = ""
    of: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Trial:
    """One point of a space: a configuration. It corresponds to one Optuna trial.

    Attributes:
        row, column: its row and column in the table.
        config: the complete configuration, as JSON.
        axes: the values in which trials of the space differ; those in the space's domain are Optuna's parameters.
        printed: the source's figure for the trial, or None.
        measure: the measure that the table shows for it, after the last epoch; "" for the space's first objective.
        least: the least number of replicates that it needs.
        called: its unique name within the space; "" for a name made of row and column.
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
    """A hypothesis that was written before the space was run: in each column, row `better` beats row `worse`.

    Attributes:
        margin: if given, in points, the hypothesis is that the two do not differ: the 95 % interval of their difference
            lies within ± `margin`.
        claim: the claim in the source's words; "" if the names of the rows are enough.
        measure: the compared measure, after the last epoch; "" for the measure of each row.
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
    """A replicate's work: its origin, which determines state 0, one instruction per epoch, and the names of all states.

    Attributes:
        origin: the JSON that determines state 0.
        epochs: the instruction of each epoch.
        keys: the names of states 0 … T.
        joints: the numbers of the states at which other points of an open search are likely to branch from this one.
        seeds: the seeds in which the replicates of a trial differ, by name, in words.
        sources: the digest of each part of the code and of the user's files that the states depend on, by names that
            users can find.
    """

    origin: Json
    epochs: tuple[Json, ...]
    keys: tuple[str, ...]
    joints: tuple[int, ...] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The interface of a science to the platform: plain functions with late imports, and settings of the records.

    Attributes:
        resolve: (configuration, replicate, machine) → its work. Pure and fast. The names of states must hold everything
            that determines them, the digests of the sources included.
        prepare: (configurations, data folder, download) → None; raises Refusal if data are missing.
        verify: (configurations, data folder) → None, for ``--verify-images``: reads all data completely and raises
            Refusal if any are damaged; None if there is no such check beyond `prepare`.
        state_bytes: configuration → the size of a stored state, about; None if it is not known.
        changes: (the name of a source, its digest in a plan) → the files in which the source differs now, in words; ""
            if it is code. None if all sources are code.
        trainable: → the Ray Trainable class that executes a stage; see `study.execution.job`.
        parameters: (configuration, replicate, machine) → the parameters that MLflow shows.
        model: (configuration, a state's payload) → the trained object in Python, such as a network in evaluation mode;
            None if there is no such object.
        exporter: configuration → (a state's payload, folder, MLflow's ``Model``) → None, which writes a model directory
            as an MLflow flavor does. The first of the two calls may take seconds, once for each kind of network.
        wants_gpu: configuration → whether it is trained on a GPU by default, if there is one.
        curves: measures, or prefixes of their names, that MLflow shows for every epoch. Of all other measures, it shows
            the last value. The first measure of `curves` is measured in every epoch.
        lists: for measures that are lists, the names under which MLflow shows their entries after the last epoch.
        headline: the measures that MLflow's views show beside a space's objectives.
        group_by: the parameter by which people compare runs.
        libraries: the distributions whose versions a plan records, in addition to the platform's own.
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
    verify: Callable[[Sequence[Json], Path], None] | None = None
    changes: Callable[[str, str], str] | None = None
    state_bytes: Callable[[Json], int] | None = None


@dataclass(frozen=True)
class OpenSearch:
    """An open search: Optuna suggests points of the domain as trials.

    Attributes:
        point: (a value for each dimension of the domain) → the trial; its row is replaced by the point's number.
        base: the configuration that represents the work of all points in the name of a run.
        trials: the total number of points.
        seed: the seed of the suggestions; a suggestion also depends on the number of trials before it.
        fresh: the number of replicates in which the best point is trained again, under seeds that no point used.
        reported: the measures after the last epoch that are reported for these replicates.
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

    If the file of the space's function has a function ``view(results)``, that function decides what the report shows;
    `study.report.results` has an example.

    Attributes:
        name: its name on the command line.
        title: its title in reports.
        trials: its trials; empty if `search` finds them.
        domain: the dimensions of the trials' axes, for Optuna.
        work: the functions that plan and train it.
        objectives: the measures after the last epoch that Optuna maximises; tables show the first.
        contrasts: hypotheses; see `Contrast`.
        search: the open search that finds its trials; None if they are listed.
        options: the options that it accepts; others are refused.
        source: the source of its printed figures.
        evidence: what a result on other data can say about the source's result; "" if the names of the columns say it.
        splits: the splits of the data for which results are also shown, such as ``small`` of ``test/small``.
        crossed: the option that made the replicates all pairs of two factors, such as ``--vary crossed``; "" if
            replicates are not crossed.
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
