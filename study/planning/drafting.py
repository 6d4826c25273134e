"""From references to a draft: the spaces are called, every trial is resolved and every replicate's states are named."""

from __future__ import annotations

import hashlib
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from study import catalog, modules
from study.errors import Refusal
from study.machine import Machine
from study.planning.draft import FRESH, Draft, planned_trial
from study.planning.stored import LIBRARIES, Plan, PlannedSearch, PlannedSpace, Resources
from study.space import Option, Request, Space, Value

ALL = "all"  # every installed space that lists its trials


@dataclass(frozen=True)
class Called:
    """Spaces as their functions return them, for a request.

    Attributes:
        name: what their run is called if nothing else is said, but for its digest; "" for the names of the spaces.
        request: without the options that none of them knows.
        spaces: of each the reference that finds it again, the file of its function, and the space itself.
        left_out: of the spaces that `ALL` stands for, those that refuse what was asked for, with their reasons.
    """

    name: str
    request: Request
    spaces: tuple[tuple[str, Path, Space], ...]
    left_out: Mapping[str, str]

    @property
    def wants_gpu(self) -> bool:
        """Whether any configuration is to be trained on a GPU, if the user says nothing else."""
        return any(space.work.wants_gpu(config) for _, _, space in self.spaces for config in space.configs)


def call(references: Sequence[str], request: Request) -> Called:
    """Call the functions of spaces.

    Args:
        references: the spaces, by name, path or module; `ALL` for every installed one that lists its trials, but for
            those that refuse what is asked of them.
        request: what the user chose of them.

    Raises:
        Refusal: if a space is unknown or named twice, refuses the request or does not know an option of it; if they
            cannot be trained together; or if none is left of `ALL`.
    """
    installed = [name for name in catalog.names() if name not in references] if ALL in references else []
    found: list[tuple[str, Path, Space]] = []
    options: list[Option] = []
    refusals: dict[str, Refusal] = {}
    for reference in (*installed, *(each for each in references if each != ALL)):
        function, path = catalog.find(reference)
        space, refused = None, None
        try:
            space = catalog.call(function, reference, request)
            if space.search is None or reference not in installed:
                _check(space, reference, [other for _, _, other in found], request)
        except Refusal as refusal:
            of_an_option = refusal.field.startswith("-o ") and refusal.field.removeprefix("-o ") in request.options
            if reference not in installed or of_an_option or refusal.field == "space":
                raise
            refused = refusal
        known = space or catalog.call(function, reference, Request())
        if reference in installed and known.search is not None:
            continue
        options += known.options
        if refused is not None:
            refusals[reference] = refused
        elif space is not None:
            found.append((modules.absolute(reference), path, space))
    if not found and not refusals:
        raise Refusal("space", ALL, "no package is installed that has spaces: `pip install` yours again")
    if not found:
        raise next(iter(refusals.values()))
    return Called(
        ALL if ALL in references else "",
        replace(request, options=_known(options, request, [space for _, _, space in found])),
        tuple(found),
        {name: str(refusal) for name, refusal in refusals.items()},
    )


def _known(options: Sequence[Option], request: Request, spaces: Sequence[Space]) -> dict[str, Value]:
    """The options that these spaces know; refused if there is one that no space knows, also of those left out."""
    known = {option.name: option.help for option in options}
    for name, value in request.options.items():
        if name not in known:
            others = sorted(f"{each} ({meaning})" for each, meaning in known.items() if each not in catalog.options())
            raise Refusal(
                "-o",
                f"{name}={value}",
                f"must be {'; '.join(others)}" if others else "must be left out: no space here knows it",
            )
    taken = {option.name for space in spaces for option in space.options}  # a resumed run has no others
    return {name: value for name, value in request.options.items() if name in taken}


def _check(space: Space, reference: str, others: Sequence[Space], request: Request) -> None:
    """Refuse a space that does not understand the request, or that cannot be trained with the others."""
    if any(space.name == other.name for other in others):
        raise Refusal("space", f"{reference} ({space.name})", "spaces of different names, each once, would do")
    if others and space.work != others[0].work:
        remedy = "a run of its own would do: it is trained by other code than the others"
        raise Refusal(f"space {reference}", space.name, remedy)
    own = {option.name for option in space.options}
    for name in catalog.options():
        if name in request.options and name not in own:
            field, words = catalog.typed(name, request.options[name])
            raise Refusal(field, words, f"must be left out: {space.name} does not know it")
    for option, given in (
        ("--trials", request.trials),
        ("--objectives", ", ".join(request.objectives)),
        ("--early-stop", request.early_stop),
    ):
        if given and space.search is None:
            raise Refusal(option, given, f"it is for an open search, and {space.name} lists its trials")
    if space.crossed and space.search is not None:
        option, _, word = space.crossed.partition(" ")
        raise Refusal(option, word, f"must be left out: {space.name} is an open search, whose points are not crossed")
    if request.early_stop and len(space.objectives) > 1:
        raise Refusal("--early-stop", request.early_stop, "one objective would do: several have no median")


def draft(called: Called, replicates: int | None, machine: Machine, resources: Resources) -> Draft:
    """Plan spaces together: their recipes are merged into one tree.

    Args:
        called: the spaces.
        replicates: of each trial; None for 3, 9 if they are crossed, or 1 if every space is an open search.
        machine: the arithmetic.
        resources: where and how wide.

    Raises:
        Refusal: if a configuration, or the number of replicates, is refused.
    """
    request, spaces = called.request, [space for _, _, space in called.spaces]
    for space in spaces:
        _check_early_stop(space, request, machine)
    replicates = _replicates(replicates, spaces)
    work = spaces[0].work
    plan = Plan(
        run="",
        request=request,
        machine=machine,
        resources=resources,
        replicates=replicates,
        spaces=tuple(
            _planned_space(space, where, path, replicates, machine, request.early_stop)
            for where, path, space in called.spaces
        ),
        trials=(),
        sources=_of_searches(spaces, machine),
        epochs_needed=0,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        commit=commit(),
        versions={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in (LIBRARIES[0], *work.libraries, *LIBRARIES[1:])},
        },
    )
    made = Draft(plan, spaces, (), called.left_out)
    for space in spaces:
        for trial in space.trials:
            made.append(planned_trial(space.name, trial, space.objectives[0]), max(replicates, trial.least))
    for space in spaces:
        _check_options(space, made)
    made.plan = made.plan.named(f"{called.name or made.plan.study}-{made.plan.digest}")
    return made


def _of_searches(spaces: Sequence[Space], machine: Machine) -> dict[str, str]:
    """What the states of open searches depend on, as far as it is known before there are points."""
    bases = [space.work.resolve(space.search.base, 0, machine) for space in spaces if space.search is not None]
    return {name: digest for base in bases for name, digest in base.sources.items()}


def _check_options(space: Space, made: Draft) -> None:
    """Refuse a space whose function takes an option and does not do what it asks."""
    for option in space.options:
        value = made.plan.request.options.get(option.name)
        if option.ignored is None or value is None:
            continue
        for planned in made.plan.trials:
            rest = option.ignored(value, planned.seeds) if planned.space == space.name else ""
            if rest:
                field, _ = catalog.typed(option.name, value)
                raise Refusal(f"{space.name}: {field}", rest, "must be left out: its function does not look at it")


def _check_early_stop(space: Space, request: Request, machine: Machine) -> None:
    if request.early_stop and space.search is not None:
        base = space.work.resolve(space.search.base, 0, machine)
        if not base.joints:
            raise Refusal(
                "--early-stop", request.early_stop, f"must be left out: {space.name} does not say where to judge"
            )
        room = len(base.epochs) - base.joints[0] - 1
        if request.early_stop > room:
            remedy = f"must be at most {room}: then every point has ended"
            raise Refusal("--early-stop", request.early_stop, remedy)


def _replicates(asked: int | None, spaces: Sequence[Space]) -> int:
    crossed = next((space.crossed for space in spaces if space.crossed), "")
    if asked is None:
        return 9 if crossed else 1 if all(space.search is not None for space in spaces) else 3
    if crossed and (asked < 4 or math.isqrt(asked) ** 2 != asked):
        k = max(2, math.isqrt(asked))
        remedy = f"must be a square with {crossed}, such as {k**2} ({k} by {k}) or {(k + 1) ** 2}"
        raise Refusal("--seeds", asked, remedy)
    return asked


def _planned_space(
    space: Space, where: str, path: Path, replicates: int, machine: Machine, early_stop: int
) -> PlannedSpace:
    search = None
    if space.search is not None:
        own = space.search
        numbers = (FRESH, *range(replicates))
        base = tuple(space.work.resolve(own.base, number, machine).keys[-1] for number in numbers)
        search = PlannedSearch(own.trials, own.seed, own.fresh, own.reported, base, early_stop)
    code = modules.held(where.partition(":")[0])
    return PlannedSpace(
        name=space.name,
        title=space.title,
        objectives=space.objectives,
        domain=space.domain,
        file=where,
        file_digest=hashlib.sha256(code.encode() if code else path.read_bytes()).hexdigest(),
        contrasts=space.contrasts,
        search=search,
        source=space.source,
        evidence=space.evidence,
        splits=space.splits,
        crossed=space.crossed,
        code=code,
    )


def commit() -> str:
    """The git commit of this program's checkout, with a plus if it has uncommitted changes; "" if it has none."""
    here = Path(__file__).parents[1]
    try:
        commit, dirty = (
            subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, timeout=5, check=True).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ".."))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.strip() + ("+" if dirty.strip() else "")
