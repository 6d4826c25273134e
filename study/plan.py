"""What will run: spaces, trials, replicates, and the plan that fixes them before anything is trained. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.refusal import Refusal

if TYPE_CHECKING:
    from study.exhibits import Figure, Table
    from study.results import Results

Json = Mapping[str, Any]

FORMAT = 3


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
    """

    data: tuple[str, ...] = ()
    imbalance: tuple[float, ...] = ()
    paper: bool = False
    trials: int = 0
    objectives: tuple[str, ...] = ()
    early_stop: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """The arithmetic, settled when the plan is made; it is part of every state's name.

    Attributes:
        device: cpu or cuda.
        threads: CPU threads of each process that trains.
        precision: fp32, bf16, or auto, whichever of them is faster for a network.
        bf16: whether its processors have arithmetic for bf16; without it bf16 is slower.
        ranks: processes that train one replicate together, each on its share of every batch.
    """

    device: str
    threads: int
    precision: str = "auto"
    bf16: bool = False
    ranks: int = 1


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
    """

    origin: Json
    epochs: tuple[Json, ...]
    keys: tuple[str, ...]
    joints: tuple[int, ...] = ()


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
    """

    resolve: Callable[[Json, int, Machine], Resolved]
    sources: Callable[[], Mapping[str, str]]
    prepare: Callable[[Sequence[Json], Path, bool], None]
    trainable: Callable[[], type]
    parameters: Callable[[Json, int, Machine], Mapping[str, Any]]
    exporter: Callable[[Json], Callable[[bytes, Path, Any], None]]


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
        evidence: what its result on the embedded data can say about the paper's.
        work: what trains it.
        objectives: the measures, of the last epoch, that Optuna is told, each to be maximised; tables show the first.
        search: how trials are found, if they are not listed.
        options: the names of the request's options that it knows, with what each means.
        paper_columns: the names of the columns that are on the paper's own data, whether these trials have them or not;
            of all others the report says that they are not. Empty for a space that reproduces nothing of the paper.
        view: what its report shows, from recorded results alone; None for a table of rows by columns. See
            `study.results`, which has an example.
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


@dataclass(frozen=True)
class PlannedTrial:
    """A trial in a plan: with the space it belongs to, and for each replicate the name of its last state.

    Attributes:
        measure: what its row shows, of the last epoch.
        champion_of: the label of the point that it trains again under fresh replicates, or "".
        first_replicate: the number of its first replicate.
        rung: the epochs after which it is going to be judged, and perhaps stopped; 0 if it is not, or has been.
        stopped: whether it was, so that its work ends there.
        provenance: of the paper's figure; see `Trial`.
    """

    space: str
    label: str
    row: str
    column: str
    config: Json
    axes: Mapping[str, str | int | float]
    paper: float | None
    paper_of: str
    epochs: int
    ends: tuple[str, ...]
    measure: str
    champion_of: str = ""
    first_replicate: int = 0
    rung: int = 0
    stopped: bool = False
    provenance: str = ""

    @property
    def name(self) -> str:
        """Unique in the plan."""
        return f"{self.space}/{self.label}"

    @property
    def by_replicate(self) -> dict[int, str]:
        """The name of each replicate's last state, by the replicate's number."""
        return dict(enumerate(self.ends, self.first_replicate))


@dataclass(frozen=True)
class PlannedSearch:
    """An open search in a plan; see `OpenSearch`. `base` names the last states of its base configuration."""

    trials: int
    seed: int
    fresh: int
    reported: tuple[str, ...]
    base: tuple[str, ...]
    early_stop: int = 0


@dataclass(frozen=True)
class PlannedSpace:
    """A space in a plan: what its report needs, and what made it."""

    name: str
    title: str
    evidence: str
    objectives: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    domain: Mapping[str, Domain]
    file: str
    file_digest: str
    search: PlannedSearch | None = None
    paper_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resources:
    """Where and how wide a run is executed; no part of any state's name.

    Attributes:
        workers: stages at a time; 0 for as many as the cluster has room for.
        cpus, gpus: of each; a fraction of a GPU is bookkeeping, not isolation.
        address: of a Ray cluster; empty for this machine alone.
        data_dir: where data sets lie, on every machine.
    """

    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    address: str = ""
    data_dir: str = ""


@dataclass(frozen=True)
class Plan:
    """A run: spaces with data, replicates and machines chosen. Stored before training.

    A plan only ever grows: by what the user adds to the run, and by the points that an open search finds.

    Attributes:
        tracking_uri, storage: where MLflow and Optuna are, without passwords; "" for the databases of `home`.
        home: the folder of those databases.
        generation: how often the run was started anew because the sources had changed.
        created: when the run was first planned.
    """

    run: str
    request: Request
    machine: Machine
    resources: Resources
    replicates: int
    spaces: tuple[PlannedSpace, ...]
    trials: tuple[PlannedTrial, ...]
    sources: Mapping[str, str]
    epochs_needed: int
    tracking_uri: str = ""
    storage: str = ""
    home: str = ""
    created: str = ""
    generation: int = 0
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def study(self) -> str:
        """The names of its spaces, joined."""
        return "+".join(space.name for space in self.spaces)

    @property
    def digest(self) -> str:
        """What identifies the plan's work: its last states by trial; what a search has found is left out."""
        listed = [[trial.name, *trial.ends] for trial in self.trials if self.space(trial.space).search is None]
        searched = [
            [s.name, s.objectives, s.search.base, _plain(s.domain)] for s in self.spaces if s.search is not None
        ]
        return digest([*listed, *searched])

    @property
    def content(self) -> str:
        """What identifies all that it holds now, and all that its searches are going to find."""
        totals = [s.search.trials for s in self.spaces if s.search is not None]
        return digest([[[trial.name, *trial.ends] for trial in self.trials], totals])

    def points(self, space: PlannedSpace) -> list[PlannedTrial]:
        """The trials of a space but for champions: its cells, or what its search has found so far, in order."""
        return [trial for trial in self.trials if trial.space == space.name and not trial.champion_of]

    def space(self, name: str) -> PlannedSpace:
        """The space of this name."""
        return next(space for space in self.spaces if space.name == name)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds and `from_json` takes back."""
        plain = asdict(self)
        for space, original in zip(plain["spaces"], self.spaces, strict=True):
            space["domain"] = _plain(original.domain)
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, plain: Json) -> Plan:
        """The plan of such a dictionary.

        Raises:
            Refusal: if another version of this program wrote it.
        """
        if plain.get("format") != FORMAT:
            raise Refusal("plan format", plain.get("format"), f"this version reads format {FORMAT}")
        kinds: dict[str, type[Domain]] = {"Choice": Choice, "Integer": Integer, "Real": Real}

        def domain(value: Json) -> Domain:
            return kinds[value["kind"]](**{k: _tuple(v) for k, v in value.items() if k != "kind"})

        values = {name: value for name, value in plain.items() if name != "format"}
        values["request"] = Request(**{name: _tuple(value) for name, value in values["request"].items()})
        values["machine"] = Machine(**values["machine"])
        values["resources"] = Resources(**values["resources"])
        values["spaces"] = tuple(
            PlannedSpace(
                **{
                    **space,
                    "contrasts": tuple(
                        Contrast(**{k: _tuple(v) for k, v in contrast.items()}) for contrast in space["contrasts"]
                    ),
                    "domain": {name: domain(value) for name, value in space["domain"].items()},
                    "objectives": tuple(space["objectives"]),
                    "paper_columns": tuple(space.get("paper_columns", ())),
                    "search": space["search"] and PlannedSearch(**{k: _tuple(v) for k, v in space["search"].items()}),
                }
            )
            for space in values["spaces"]
        )
        values["trials"] = tuple(PlannedTrial(**{**trial, "ends": tuple(trial["ends"])}) for trial in values["trials"])
        return cls(**values)

    def named(self, run: str) -> Plan:
        """The same plan under a name."""
        return replace(self, run=run)


def digest(value: object) -> str:
    """A short name for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _plain(domain: Mapping[str, Domain]) -> Json:
    return {name: {"kind": type(dimension).__name__, **asdict(dimension)} for name, dimension in domain.items()}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
