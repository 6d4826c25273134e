"""The plan: it fixes spaces, trials and replicates before anything is trained. Pure."""

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
    """A trial in a plan, with its space and the name of each replicate's last state.

    Attributes:
        space: the name of the space.
        trial: the trial, with the measure that its row shows.
        epochs: the epochs of each replicate.
        ends: the names of the replicates' last states.
        champion_of: the label of the point that this trial trains again under fresh replicates, or "".
        first_replicate: the number of the first replicate.
        rung: the epochs after which the trial is judged, and perhaps stopped; 0 if it is never judged, or was judged.
        stopped: whether the trial was stopped at its rung, so that its work ends there.
        seeds: the seeds of each replicate, by name, in words; empty in plans of versions that did not store them.
        refused: why a point of an open search has no work, or "" if it has: its configuration was refused, or the
            space's `point` raised. Its configuration is then empty, and so is the name of each replicate's last state.
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
    refused: str = ""

    @property
    def label(self) -> str:
        """The trial's name, unique in its space."""
        return self.trial.label

    @property
    def name(self) -> str:
        """The trial's name, unique in the plan."""
        return f"{self.space}/{self.label}"

    @property
    def by_replicate(self) -> dict[int, str]:
        """The name of each replicate's last state, by the replicate's number."""
        return dict(enumerate(self.ends, self.first_replicate))


@dataclass(frozen=True)
class PlannedSearch:
    """An open search in a plan; see `OpenSearch`.

    `base` names the last states of the base configuration: first that of a champion's first replicate, then those of
    each of a point's replicates.
    """

    trials: int
    seed: int
    fresh: int
    reported: tuple[str, ...]
    base: tuple[str, ...]
    early_stop: int = 0


@dataclass(frozen=True)
class PlannedSpace:
    """A space in a plan: the fields that its report needs, and the origin of the space; see `Space`.

    Attributes:
        file: the reference that finds the space's function again.
        file_digest: the digest of the file that the function is in.
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


LEAST_PART = 0.0001  # of a CPU or GPU; Ray has no smaller one


@dataclass(frozen=True)
class Resources:
    """The machines and resources with which a run is executed. The names of states do not depend on them.

    Attributes:
        workers: the number of stages at the same time; 0 for as many as fit on the cluster.
        cpus, gpus: the CPUs and GPUs of each stage. A fraction of a GPU is bookkeeping, not isolation.
        address: the address of a Ray cluster; empty for this machine alone.
        data_dir: the folder of data sets, on every machine.
        gpu_steps: how steps are launched on a GPU: eager, recorded, or auto, with which the trainables choose.
    """

    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    address: str = ""
    data_dir: str = ""
    gpu_steps: str = "auto"


@dataclass(frozen=True)
class Plan:
    """A run: spaces with data, replicates and machines chosen. It is stored before training.

    A plan only grows: by additions of the user, and by the points that an open search finds.

    Attributes:
        tracking_uri, storage: the URLs of MLflow and Optuna, without passwords; "" for the databases of `home`.
        home: the folder of those databases.
        generation: the number of times that the run was started anew because the sources had changed.
        created: the time at which the run was first planned.
        held: the sources of the user's own files, by path, and of functions of notebooks, by the names of their
            modules; see `study.modules`. They are executed only where the run is resumed, or its space is needed.
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
    held: Mapping[str, str] = field(default_factory=dict)

    @property
    def study(self) -> str:
        """The names of the spaces, joined."""
        return "+".join(space.name for space in self.spaces)

    @property
    def digest(self) -> str:
        """The digest of the plan's work: the last states by trial, without the points that searches have found."""
        listed = [[trial.name, *trial.ends] for trial in self.trials if self.space(trial.space).search is None]
        searched = [
            [s.name, s.objectives, s.search.base, {name: asdict(dimension) for name, dimension in s.domain.items()}]
            for s in self.spaces
            if s.search is not None
        ]
        return digest([*listed, *searched])

    @property
    def content(self) -> str:
        """The digest of all trials that the plan holds now, and of how many its searches are going to find."""
        totals = [s.search.trials for s in self.spaces if s.search is not None]
        return digest([[[trial.name, *trial.ends] for trial in self.trials], totals])

    def points(self, space: PlannedSpace) -> list[PlannedTrial]:
        """Return a space's trials in order, without champions: its cells, or the points that its search has found."""
        return [trial for trial in self.trials if trial.space == space.name and not trial.champion_of]

    def is_point(self, trial: PlannedTrial) -> bool:
        """Return whether a trial is a point of an open search: that it fails is then a result of the search."""
        return not trial.champion_of and self.space(trial.space).search is not None

    def space(self, name: str) -> PlannedSpace:
        """Return the space of this name."""
        return next(space for space in self.spaces if space.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a dictionary for JSON; `from_json` reads it."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, plain: Json) -> Plan:
        """Return the plan that `to_json` wrote, also in the earlier format that this version reads.

        Raises:
            Refusal: if another version of this program wrote it.
            ValueError: if the dictionary is not a plan.
        """
        if plain.get("format") == earlier.FORMAT:
            plain = earlier.upgraded(plain)
        elif plain.get("format") != FORMAT:
            number = plain.get("format")
            words = f"unknown plan format {number!r}: this version reads formats {earlier.FORMAT} and {FORMAT}"
            raise Refusal("plan format", number, words, hint="Use the version that wrote the plan")
        plain = earlier.with_held_sources(plain)
        return decoded(cls, {name: value for name, value in plain.items() if name != "format"})

    def check(self) -> None:
        """Check that the plan can be read again: spaces may hold values that a plan cannot, such as None or objects."""
        check_storable("space", self.study, f"the plan of {self.study}", self)

    def named(self, run: str) -> Plan:
        """Return the same plan under a name."""
        return replace(self, run=run)


def check_storable(field: str, value: object, subject: str, record: Plan | PlannedTrial) -> None:
    """Check that a plan, or a trial of one, can be read again after it was stored.

    Args:
        field, value: what a refusal names.
        subject: the record in words.
        record: the plan or the trial.
    """
    try:
        decoded(type(record), json.loads(json.dumps(asdict(record))))
    except (TypeError, ValueError) as error:
        reason = one_line(error, whole=True)
        raise Refusal(field, value, f"{subject} cannot be stored: {reason}") from error


def digest(value: object) -> str:
    """Return a short digest of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
