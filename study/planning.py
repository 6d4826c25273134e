"""From spaces to a plan: every trial resolved, every replicate's states named, before anything is trained."""

from __future__ import annotations

import hashlib
import math
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from study import catalog, tree
from study.plan import Plan, PlannedSearch, PlannedSpace, PlannedTrial, Resources
from study.refusal import Refusal
from study.replication import Crossing
from study.space import CROSSED, Machine, Request, Resolved, Space, Trial, Work

Replicate = tuple[str, int]  # a trial's name in its plan, and the replicate's number

ALL = "all"  # every shipped space that lists its trials
FRESH = 1000  # the number of a champion's first replicate: no point of a search has seen its seeds


class Draft:
    """A plan with what is derived from it: the work behind its spaces, and each replicate's recipe.

    It grows by the points that an open search finds; in the driver's main thread only, others read.

    Attributes:
        left_out: of the spaces that `ALL` stands for, those that refuse what was asked for, with their reasons.
    """

    def __init__(
        self,
        plan: Plan,
        spaces: Sequence[Space],
        listed: Sequence[PlannedTrial],
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = replace(plan, trials=())
        self.left_out = dict(left_out or {})
        self.spaces = {space.name: space for space in spaces}
        self.work: Work = spaces[0].work
        self.recipes: dict[Replicate, Resolved] = {}
        self._trials: dict[str, PlannedTrial] = {}
        self._through: dict[str, list[Replicate]] = {}
        for trial in listed:
            self.append(trial)

    def append(self, trial: PlannedTrial, replicates: int | None = None) -> PlannedTrial:
        """Plan a trial, under so many replicates, or as many as it has.

        Raises:
            Refusal: if the plan has a trial of this name.
        """
        if trial.name in self._trials:
            raise Refusal("trial", trial.name, "a label that no other trial of the space has would do")
        count = len(trial.ends) if replicates is None else replicates
        numbers = range(trial.first_replicate, trial.first_replicate + count)
        own = {number: self.work.resolve(trial.config, number, self.plan.machine) for number in numbers}
        if trial.stopped:
            own = {number: cut(recipe, trial.epochs) for number, recipe in own.items()}
        trial = replace(
            trial,
            ends=tuple(recipe.keys[-1] for recipe in own.values()),
            epochs=len(own[numbers[0]].epochs),
            seeds=tuple(recipe.seeds for recipe in own.values()),
        )
        self._trials[trial.name] = trial
        for number, recipe in own.items():
            self.recipes[trial.name, number] = recipe
            for key in recipe.keys[1:]:
                self._through.setdefault(key, []).append((trial.name, number))
        self.plan = replace(
            self.plan, trials=(*self.plan.trials, trial), epochs_needed=self.plan.epochs_needed + self._new(own)
        )
        return trial

    def _new(self, own: Mapping[int, Resolved]) -> int:
        """How many states of these recipes, appended last, no recipe before passes through."""
        keys = [key for recipe in own.values() for key in recipe.keys[1:]]
        counts = Counter(keys)
        return sum(len(self._through[key]) == count for key, count in counts.items())

    def add_point(self, space: PlannedSpace, values: Mapping[str, Any]) -> PlannedTrial:
        """Plan the next point of an open search."""
        search = self.spaces[space.name].search
        assert search is not None
        label = point_label(len(self.plan.points(space)))
        point = replace(_planned_trial(space.name, search.point(values), space.objectives[0]), row=label, label=label)
        if self.plan.request.early_stop:
            recipe = self.work.resolve(point.config, 0, self.plan.machine)
            rung = recipe.joints[-1] + self.plan.request.early_stop
            point = replace(point, rung=rung if rung < len(recipe.epochs) else 0)
        return self.append(point, self.plan.replicates)

    def judge(self, point: PlannedTrial, stop: bool) -> PlannedTrial:
        """Let a point that has come to its rung go on, or end there."""
        judged = replace(point, rung=0, stopped=stop)
        if stop:
            own = {}
            for number in point.by_replicate:
                whole = self.recipes[point.name, number]
                own[number] = cut(whole, point.rung)
                for key in whole.keys[point.rung + 1 :]:
                    self._through[key].remove((point.name, number))
            judged = replace(judged, epochs=point.rung, ends=tuple(recipe.keys[-1] for recipe in own.values()))
            self.recipes.update({(point.name, number): recipe for number, recipe in own.items()})
        self._trials[point.name] = judged
        trials = tuple(judged if trial.name == point.name else trial for trial in self.plan.trials)
        self.plan = replace(self.plan, trials=trials, epochs_needed=len(tree.nodes(self.recipes.values())))
        return judged

    def to_train(self, replicate: Replicate) -> Resolved:
        """A replicate's recipe, as far as it is to be trained before the point is judged."""
        recipe, rung = self.recipes[replicate], self._trials[replicate[0]].rung
        return cut(recipe, rung) if rung else recipe

    def add_champion(self, space: PlannedSpace, point: PlannedTrial) -> PlannedTrial:
        """Plan a point once more, under fresh replicates."""
        assert space.search is not None
        label = f"champion {point.label}"
        champion = replace(
            point,
            row=label,
            label=label,
            champion_of=point.label,
            first_replicate=FRESH,
            measure=space.search.reported[0],
        )
        return self.append(champion, space.search.fresh)

    def through(self, key: str) -> list[Replicate]:
        """The replicates that pass through a state."""
        return self._through.get(key, [])

    def trial(self, replicate: Replicate) -> PlannedTrial:
        """A replicate's trial."""
        return self._trials[replicate[0]]

    def find(self, name: str) -> PlannedTrial | None:
        """The trial of this name, if it is planned."""
        return self._trials.get(name)

    def expected(self, space: PlannedSpace) -> list[PlannedTrial]:
        """Stand-ins for the points and the champions that an open search is going to plan."""
        search = self.spaces[space.name].search
        assert search is not None

        def standing_in(first: int, count: int, champion_of: str) -> PlannedTrial:
            own = [self.work.resolve(search.base, first + n, self.plan.machine) for n in range(count)]
            ends, seeds = tuple(each.keys[-1] for each in own), tuple(each.seeds for each in own)
            stub = Trial(row="", column="", config=search.base, axes={})
            planned = _planned_trial(space.name, stub, space.objectives[0])
            return replace(planned, ends=ends, seeds=seeds, champion_of=champion_of, first_replicate=first)

        return [standing_in(0, self.plan.replicates, ""), standing_in(FRESH, search.fresh, "#0")]

    @property
    def joints(self) -> set[str]:
        """The states that the plan's open searches keep for points to come."""
        searched = {space.name for space in self.plan.spaces if space.search is not None}
        return tree.joints(r for (name, _), r in self.recipes.items() if self._trials[name].space in searched)


def cut(recipe: Resolved, epochs: int) -> Resolved:
    """The first epochs of a recipe."""
    joints = tuple(number for number in recipe.joints if number < epochs)
    return replace(recipe, epochs=recipe.epochs[:epochs], keys=recipe.keys[: epochs + 1], joints=joints)


def point_label(number: int) -> str:
    """What an open search's point is called."""
    return f"#{number}"


def draft(
    references: Sequence[str], request: Request, replicates: int | None, machine: Machine, resources: Resources
) -> Draft:
    """Plan spaces together: their recipes are merged into one tree.

    Args:
        references: the spaces, by name or path; `ALL` for every shipped one that lists its trials, but for those that
            refuse the data or imbalance factors.
        request: what the user chose of them.
        replicates: of each trial; None for 3, 9 if they are crossed, or 1 if every space is an open search.
        machine: the arithmetic.
        resources: where and how wide.

    Raises:
        Refusal: if a space is unknown or named twice, or a configuration is refused.
    """
    called, options, left_out = _called(references, request)
    spaces: list[Space] = []
    places: list[tuple[str, Path]] = []
    for reference, path, space in called:
        where, colon, name = reference.partition(":")
        if where not in catalog.names():
            where = str(path.absolute())
        if any(space.name == other.name for other in spaces):
            raise Refusal("space", f"{reference} ({space.name})", "spaces of different names, each once, would do")
        if spaces and space.work != spaces[0].work:
            raise Refusal("space", reference, "a run of its own would do: it is trained by other code than the others")
        for option, given in (
            ("--trials", request.trials),
            ("--objectives", ", ".join(request.objectives)),
            ("--early-stop", request.early_stop),
        ):
            if given and space.search is None:
                raise Refusal(option, given, f"it is for an open search, and {space.name} lists its trials")
        if CROSSED in request.vary and space.search is not None:
            raise Refusal("--vary", CROSSED, f"must be seed, subset, split or all for {space.name}, an open search")
        if request.early_stop and len(space.objectives) > 1:
            raise Refusal("--early-stop", request.early_stop, "one objective would do: several have no median")
        if request.early_stop and space.search is not None:
            base = space.work.resolve(space.search.base, 0, machine)
            room = len(base.epochs) - base.joints[0] - 1
            if request.early_stop > room:
                raise Refusal(
                    "--early-stop", request.early_stop, f"at most {room} would do: then every point has ended"
                )
        spaces.append(space)
        places.append((where + colon + name, path))
    for option, value in request.options.items():
        if option not in options:
            known = sorted(f"{name} ({meaning})" for name, meaning in options.items())
            raise Refusal("-o", f"{option}={value}", f"{'; '.join(known)} would do" if known else "none would do")
    taken = {name for space in spaces for name in space.options}  # a resumed run has no others
    request = replace(request, options={name: value for name, value in request.options.items() if name in taken})
    if replicates is None:
        crossed, searched = CROSSED in request.vary, all(space.search is not None for space in spaces)
        replicates = 9 if crossed else 1 if searched else 3
    elif CROSSED in request.vary and (replicates < 4 or math.isqrt(replicates) ** 2 != replicates):
        k = max(2, math.isqrt(replicates))
        remedy = f"must be a square with --vary {CROSSED}, such as {k**2} ({k} by {k}) or {(k + 1) ** 2}"
        raise Refusal("--seeds", replicates, remedy)

    plan = Plan(
        run="",
        request=request,
        machine=machine,
        resources=resources,
        replicates=replicates,
        spaces=tuple(
            _planned_space(space, *at, replicates, machine, request.early_stop)
            for space, at in zip(spaces, places, strict=True)
        ),
        trials=(),
        sources=dict(spaces[0].work.sources()),
        epochs_needed=0,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        commit=commit(),
        versions={
            "python": platform.python_version(),
            **{
                name: metadata.version(name) for name in ("longtail-study", "torch", "ray", "optuna", "mlflow", "numpy")
            },
        },
    )
    made = Draft(plan, spaces, (), left_out)
    for space in spaces:
        for trial in space.trials:
            made.append(_planned_trial(space.name, trial, space.objectives[0]), max(replicates, trial.least))
    for planned in made.plan.trials:
        _check_vary(planned, request.vary)
    made.plan = made.plan.named(f"{ALL if ALL in references else made.plan.study}-{made.plan.digest}")
    return made


def wants_gpu(references: Sequence[str], request: Request) -> bool:
    """Whether any configuration of these spaces is to be trained on a GPU, if the user says nothing else.

    Raises:
        Refusal: as `draft` does of the spaces.
    """
    called, _, _ = _called(references, request)
    for _, _, space in called:
        configs = [trial.config for trial in space.trials] + ([] if space.search is None else [space.search.base])
        if any(map(space.work.wants_gpu, configs)):
            return True
    return False


def _called(
    references: Sequence[str], request: Request
) -> tuple[list[tuple[str, Path, Space]], dict[str, str], dict[str, str]]:
    """The spaces with their references and files, the options that any knows, and who is left out of `ALL`, and why.

    Raises:
        Refusal: that of a space that is named, or is about an option's value or a mistake in a file; or if none is left
            of `ALL`.
    """
    shipped = [name for name in catalog.names() if name not in references] if ALL in references else []
    found: list[tuple[str, Path, Space]] = []
    options: dict[str, str] = {}
    refusals: dict[str, Refusal] = {}
    for reference in (*shipped, *(each for each in references if each != ALL)):
        function, path = catalog.find(reference)
        space, refused = None, None
        try:
            space = catalog.call(function, reference, request)
        except Refusal as refusal:
            about_an_option = refusal.field.removeprefix("-o ") in request.options
            if reference not in shipped or about_an_option or refusal.field.startswith("space"):
                raise
            refused = refusal
        known = space or catalog.call(function, reference, Request())
        if reference in shipped and known.search is not None:
            continue
        options |= known.options
        if space is not None:
            found.append((reference, path, space))
        elif refused is not None:
            refusals[reference] = refused
    if not found:
        raise next(iter(refusals.values()))
    return found, options, {name: str(refusal) for name, refusal in refusals.items()}


def _check_vary(trial: PlannedTrial, vary: Sequence[str]) -> None:
    """Refuse what was asked of a space whose function does not look at it.

    What varies is called by words of which one is the user's: ``training seed`` by ``seed``.
    """
    varying = {name for name in trial.seeds[0] if len({each[name] for each in trial.seeds}) > 1}
    words = {word for name in varying for word in name.split()}
    for word in vary:
        done = Crossing.of(trial) if word == CROSSED else word == "all" or word in words or len(trial.seeds) == 1
        if not done:
            remedy = "must be left out: its function does not use request.vary, as trainables.protocol.bases does"
            raise Refusal(f"{trial.space}: --vary", word, remedy)


def _planned_trial(space: str, trial: Trial, measure: str) -> PlannedTrial:
    """A trial as planned, not resolved yet; `measure` stands in for its own."""
    return PlannedTrial(
        space=space,
        label=trial.label,
        row=trial.row,
        column=trial.column,
        config=trial.config,
        axes=trial.axes,
        paper=trial.paper,
        paper_of=trial.paper_of,
        epochs=0,
        ends=(),
        measure=trial.measure or measure,
        provenance=trial.provenance,
    )


def _planned_space(
    space: Space, where: str, path: Path, replicates: int, machine: Machine, early_stop: int
) -> PlannedSpace:
    search = None
    if space.search is not None:
        own = space.search
        numbers = (FRESH, *range(replicates))
        base = tuple(space.work.resolve(own.base, number, machine).keys[-1] for number in numbers)
        search = PlannedSearch(own.trials, own.seed, own.fresh, own.reported, base, early_stop)
    return PlannedSpace(
        name=space.name,
        title=space.title,
        evidence=space.evidence,
        objectives=space.objectives,
        contrasts=space.contrasts,
        domain=space.domain,
        file=where,
        file_digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        search=search,
        paper_columns=space.paper_columns,
    )


def commit() -> str:
    """The git commit of this program's checkout, with a plus if it has uncommitted changes; "" if it has none."""
    here = Path(__file__).parent
    try:
        commit, dirty = (
            subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, timeout=5, check=True).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ".."))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.strip() + ("+" if dirty.strip() else "")
