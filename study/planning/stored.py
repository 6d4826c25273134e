"""The plan, which fixes what will run before anything is trained: spaces, trials, replicates. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from study.decoding import decoded
from study.errors import Refusal, one_line
from study.machine import Machine
from study.planning import earlier
from study.space import Contrast, Domain, Json, Request, Source, Trial

FORMAT = 4
LIBRARIES = ("longtail-study", "ray", "optuna", "mlflow")  # the platform's own, whose versions a plan records


@dataclass(frozen=True)
class PlannedTrial:
    """A trial in a plan: with the space it belongs to, and for each replicate the name of its last state.

    Attributes:
        space: its name.
        trial: with the measure that its row shows.
        epochs: of each replicate.
        ends: the names of the replicates' last states.
        champion_of: the label of the point that it trains again under fresh replicates, or "".
        first_replicate: the number of its first replicate.
        rung: the epochs after which it is going to be judged, and perhaps stopped; 0 if it is not, or has been.
        stopped: whether it was, so that its work ends there.
        seeds: of each replicate, by name, in words; empty in plans of versions that did not write them.
    """

    space: str
    trial: Trial
    epochs: int = 0
    ends: tuple[str, ...] = ()
    champion_of: str = ""
    first_replicate: int = 0
    rung: int = 0
    stopped: bool = False
    seeds: tuple[Mapping[str, str], ...] = ()

    @property
    def label(self) -> str:
        """Unique in its space."""
        return self.trial.label

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
    """An open search in a plan; see `OpenSearch`.

    `base` names the last states of its base configuration: of a champion's first replicate,
    and of each of a point's.
    """

    trials: int
    seed: int
    fresh: int
    reported: tuple[str, ...]
    base: tuple[str, ...]
    early_stop: int = 0


@dataclass(frozen=True)
class PlannedSpace:
    """A space in a plan: what its report needs, and what made it; see `Space`.

    Attributes:
        file: the reference that finds its function again.
        file_digest: of the file that the function is in.
        code: the source of its function, if that was defined in a notebook; else "".
    """

    name: str
    title: str
    objectives: tuple[str, ...]
    domain: Mapping[str, Domain]
    file: str
    file_digest: str
    contrasts: tuple[Contrast, ...] = ()
    search: PlannedSearch | None = None
    source: Source = field(default_factory=Source)
    evidence: str = ""
    splits: tuple[str, ...] = ()
    crossed: str = ""
    code: str = ""


@dataclass(frozen=True)
class Resources:
    """Where and how wide a run is executed; no part of any state's name.

    Attributes:
        workers: stages at a time; 0 for as many as the cluster has room for.
        cpus, gpus: of each; a fraction of a GPU is bookkeeping, not isolation.
        address: of a Ray cluster; empty for this machine alone.
        data_dir: where data sets lie, on every machine.
        gpu_steps: how a GPU is given its steps: eager, recorded, or auto, as the trainables choose.
    """

    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    address: str = ""
    data_dir: str = ""
    gpu_steps: str = "auto"


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
            [s.name, s.objectives, s.search.base, {name: asdict(dimension) for name, dimension in s.domain.items()}]
            for s in self.spaces
            if s.search is not None
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
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, plain: Json) -> Plan:
        """The plan of such a dictionary, also of an earlier format that this version knows.

        Raises:
            Refusal: if another version of this program wrote it.
            ValueError: if it is no plan.
        """
        if plain.get("format") == earlier.FORMAT:
            plain = earlier.upgraded(plain)
        elif plain.get("format") != FORMAT:
            formats = f"{earlier.FORMAT} and {FORMAT}"
            raise Refusal("plan format", plain.get("format"), f"this version reads formats {formats}")
        return decoded(cls, {name: value for name, value in plain.items() if name != "format"})

    def check(self) -> None:
        """Refuse a plan that could not be read again, for its spaces hold what a plan must not: objects, None."""
        try:
            Plan.from_json(json.loads(json.dumps(self.to_json())))
        except (TypeError, ValueError) as error:
            raise Refusal("space", self.study, f"its plan cannot be stored: {one_line(error, whole=True)}") from error

    def named(self, run: str) -> Plan:
        """The same plan under a name."""
        return replace(self, run=run)


def digest(value: object) -> str:
    """A short name for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
