"""What a space is: the trials of a table, or the dimensions of a search, and the work that trains them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import Refusal
from study.machine import Machine

if TYPE_CHECKING:
    from study.report.exhibits import Figure, Table
    from study.report.results import Results

Json = Mapping[str, Any]

CROSSED = "crossed"  # what a user says who wants replicates to be every pair of two things that vary


@dataclass(frozen=True)
class Request:
    """What the user chose of a space: the arguments of a space's function.

    Attributes:
        data: names of data sets; empty for the space's own default.
        imbalance: imbalance factors; empty for the space's own default.
        paper: the paper's own data, epochs and protocol.
        trials: of an open search, in all; 0 for the space's own default.
        objectives: of an open search, in the space's words; empty for the space's own default.
        early_stop: of an open search: epochs since the last switch after which a point is judged; 0 for never.
        options: of single spaces, by name; a space says which it knows.
        short: a shorter protocol than the paper's, on some of its data.
        vary: what a replicate differs from the others in, in the space's words; empty for the space's own default.
            `CROSSED` is every pair of two of them.
    """

    data: tuple[str, ...] = ()
    imbalance: tuple[float, ...] = ()
    paper: bool = False
    trials: int = 0
    objectives: tuple[str, ...] = ()
    early_stop: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    short: bool = False
    vary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A search dimension with listed values."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Integer:
    """A search dimension of whole numbers, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise Refusal("dimension", self, "low ≤ high would do")


@dataclass(frozen=True)
class Real:
    """A search dimension of real numbers, both ends included; in steps, if `step` is given."""

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.step is not None and not self.step > 0):
            raise Refusal("dimension", self, "low ≤ high and a step above 0 would do")


Domain = Choice | Integer | Real


@dataclass(frozen=True)
class Trial:
    """One point of a space: a configuration. One Optuna trial.

    Attributes:
        row, column: where it stands in the table; together its label, unique in the space.
        config: the complete configuration, as JSON.
        axes: what tells the trials of the space apart; those in the space's domain are Optuna's parameters.
        paper: the paper's figure in percent, or None.
        paper_of: the column that `paper` belongs to; where it is not the trial's own, the report says so.
        provenance: of the paper's figure: † copied by the paper from its source, * run again by the paper.
        measure: what its row shows, of the last epoch; "" for the space's first objective.
        least: replicates that it needs at least, such as ten where runs are what is measured.
    """

    row: str
    column: str
    config: Json
    axes: Mapping[str, str | int | float]
    paper: float | None = None
    paper_of: str = ""
    provenance: str = ""
    measure: str = ""
    least: int = 1

    @property
    def label(self) -> str:
        """Its name inside the space."""
        return f"{self.row} ({self.column})"


@dataclass(frozen=True)
class Contrast:
    """A hypothesis that stood in the space's file before it was run: row `better` beats row `worse`, in each column.

    Attributes:
        margin: with one, in points, the hypothesis is that the two do not differ: the 95 % interval of their difference
            lies within ± `margin`.
        claim: what the paper says of it, in words; "" where the rows' names say it.
        measure: what is compared, after the last epoch; "" for each row's own.
        except_in: columns that it is not about, such as those that the paper itself names as its exceptions.
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
        joints: the states, by number, at which other points of an open search are likely to part from this one; the
            last is that of the last switch.
        seeds: what tells the replicate from others of its trial, by name, in words.
    """

    origin: Json
    epochs: tuple[Json, ...]
    keys: tuple[str, ...]
    joints: tuple[int, ...] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What the platform needs of the science: plain functions that import late.

    Attributes:
        resolve: (configuration, replicate, machine) → its work. Pure and fast.
        sources: the digest of each source file that the states' names depend on.
        prepare: (configurations, data folder, download) → None; raises Refusal if data are missing.
        trainable: → the Ray Trainable class that executes a stage.
        parameters: (configuration, replicate, machine) → what MLflow shows as parameters.
        exporter: configuration → (a state's payload, folder, MLflow's ``Model``) → None, which writes a model directory
            as an MLflow flavor does. The first step may take seconds, once for each kind of network.
        wants_gpu: configuration → whether it is trained on a GPU, if there is one and the user says nothing else.
    """

    resolve: Callable[[Json, int, Machine], Resolved]
    sources: Callable[[], Mapping[str, str]]
    prepare: Callable[[Sequence[Json], Path, bool], None]
    trainable: Callable[[], type]
    parameters: Callable[[Json, int, Machine], Mapping[str, Any]]
    exporter: Callable[[Json], Callable[[bytes, Path, Any], None]]
    wants_gpu: Callable[[Json], bool]


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
    seed: int = 0
    fresh: int = 3
    reported: tuple[str, ...] = ("test/top1",)


@dataclass(frozen=True)
class Space:
    """What could be run: a table of the paper, a figure, a search.

    Attributes:
        name: what the command line calls it.
        title: what it reproduces.
        trials: its points; none if `search` finds them.
        domain: the dimensions of the trials' axes, for Optuna.
        contrasts: hypotheses; see `Contrast`.
        evidence: what its result on other data than the paper's can say about it; the short protocol says it itself.
        work: what trains it.
        objectives: the measures, of the last epoch, that Optuna is told, each to be maximised; tables show the first.
        search: how trials are found, if they are not listed.
        options: the names of the request's options that it knows, with what each means.
        paper_columns: the names of the columns that are on the paper's own data, whether these trials have them or not;
            of all others the report says that they are not. Empty for a space that reproduces nothing of the paper.
        view: what its report shows, from recorded results alone; None for a table of rows by columns. See
            `study.report.results`, which has an example.
    """

    name: str
    title: str
    trials: tuple[Trial, ...]
    domain: Mapping[str, Domain]
    work: Work
    contrasts: tuple[Contrast, ...] = ()
    evidence: str = ""
    objectives: tuple[str, ...] = ("test/top1",)
    search: OpenSearch | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    paper_columns: tuple[str, ...] = ()
    view: Callable[[Results], Sequence[Table | Figure | None]] | None = None

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
