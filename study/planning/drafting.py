"""From references to a draft: call the spaces, resolve their trials, and name the states of every replicate."""

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
from study.errors import Refusal, StudyError
from study.machine import Machine
from study.planning.draft import FRESH, Draft, planned_trial, point_trial
from study.planning.stored import LIBRARIES, Plan, PlannedSearch, PlannedSpace, Resources
from study.space import Choice, Domain, Option, Request, Space, Value

ALL = "all"  # every installed space that lists its trials


@dataclass(frozen=True)
class Called:
    """Spaces as their functions return them for a request.

    Attributes:
        name: the default name of their run, without its digest; "" for the names of the spaces.
        request: the request without the options that none of the spaces knows.
        spaces: for each space, the reference that finds it again, the file of its function, and the space itself.
        left_out: the spaces of `ALL` that refuse the request, with their reasons.
    """

    name: str
    request: Request
    spaces: tuple[tuple[str, Path, Space], ...]
    left_out: Mapping[str, str]

    @property
    def wants_gpu(self) -> bool:
        """Whether any configuration is trained on a GPU by default."""
        return any(space.work.wants_gpu(config) for _, _, space in self.spaces for config in space.configs)


def call(references: Sequence[str], request: Request) -> Called:
    """Call the functions of spaces.

    Args:
        references: the spaces, by name, path or module. `ALL` stands for every installed space that lists its trials,
            except those that refuse the request.
        request: the user's choices.

    Raises:
        Refusal: if a space is unknown or given twice, refuses the request or does not know one of its options; if the
            spaces cannot be trained together; or if every space of `ALL` is left out.
    """
    installed = [name for name in catalog.names() if name not in references] if ALL in references else []
    spaces: list[tuple[str, Path, Space]] = []
    options: list[Option] = []
    refusals: dict[str, Refusal] = {}
    for reference in (*installed, *(reference for reference in references if reference != ALL)):
        function, path = catalog.find(reference)
        space, refused = None, None
        try:
            space = catalog.call(function, reference, request)
            if space.search is None or reference not in installed:
                _check(space, reference, [earlier for _, _, earlier in spaces], request)
        except Refusal as refusal:
            concerns_option = refusal.field.startswith("-o ") and refusal.field.removeprefix("-o ") in request.options
            if reference not in installed or concerns_option or refusal.field == "space":
                raise
            refused = refusal
        known = space or catalog.call(function, reference, Request())
        if reference in installed and known.search is not None:
            continue
        options += known.options
        if refused is not None:
            refusals[reference] = refused
        elif space is not None:
            spaces.append((modules.absolute(reference), path, space))
    if not spaces and not refusals:
        words = f"no installed package declares spaces, so {ALL!r} stands for no space"
        raise Refusal("space", ALL, words, hint="Reinstall your package with 'pip install'")
    if not spaces:
        raise next(iter(refusals.values()))
    return Called(
        ALL if ALL in references else "",
        replace(request, options=_known_options(options, request, [space for _, _, space in spaces])),
        tuple(spaces),
        {name: str(refusal) for name, refusal in refusals.items()},
    )


def _known_options(options: Sequence[Option], request: Request, spaces: Sequence[Space]) -> dict[str, Value]:
    """Return the options of a request that these spaces know.

    Args:
        options: those of all spaces, also of spaces that are left out.
        request: the user's choices.
        spaces: the spaces that are not left out.

    Raises:
        Refusal: if no space knows an option.
    """
    known = {option.name: option.help for option in options}
    for name, value in request.options.items():
        if name not in known:
            unlisted = sorted(f"{key} ({meaning})" for key, meaning in known.items() if key not in catalog.options())
            raise Refusal(
                "-o",
                f"{name}={value}",
                f"unknown option -o {name}={value}",
                hint=f"-o takes {'; '.join(unlisted)}" if unlisted else "The spaces of this run take no -o option",
            )
    used = {option.name for space in spaces for option in space.options}  # a resumed run has no others
    return {name: value for name, value in request.options.items() if name in used}


def _check(space: Space, reference: str, earlier: Sequence[Space], request: Request) -> None:
    """Check that a space understands the request, and can be trained together with the earlier spaces."""
    if any(space.name == other.name for other in earlier):
        words = f"space {reference!r} has the same name as another space of this run, {space.name!r}"
        raise Refusal("space", reference, words, hint="Give every space once, and different spaces different names")
    if earlier and space.work != earlier[0].work:
        words = f"space {space.name!r} uses other training code than the other spaces of this run"
        raise Refusal(f"space {reference}", space.name, words, hint="Train it in a run of its own")
    space_options = {option.name for option in space.options}
    for name in catalog.options():
        if name in request.options and name not in space_options:
            field, value = catalog.typed(name, request.options[name])
            raise Refusal(field, value, "must be left out", hint=f"Space {space.name} does not take this option")
    for option, chosen in (
        ("--trials", request.trials),
        ("--objectives", ", ".join(request.objectives)),
        ("--early-stop", request.early_stop),
    ):
        if chosen and space.search is None:
            hint = f"It is for open searches, and {space.name} lists its trials"
            raise Refusal(option, chosen, "must be left out", hint)
    if space.crossed and space.search is not None:
        option, _, word = space.crossed.partition(" ")
        hint = f"Space {space.name} is an open search, whose points cannot be crossed"
        raise Refusal(option, word, "must be left out", hint)
    if request.early_stop and len(space.objectives) > 1:
        hint = "It ends points below the median of one objective, and several objectives have no median"
        raise Refusal("--early-stop", request.early_stop, "must be left out with several objectives", hint)


def draft(called: Called, replicates: int | None, machine: Machine, resources: Resources) -> Draft:
    """Plan spaces together. Their recipes are merged into one tree.

    Args:
        called: the spaces.
        replicates: the number for each trial; None for 3, for 9 if they are crossed, or for 1 if every space is an
            open search.
        machine: the arithmetic.
        resources: where the run is executed, and how many stages at a time.

    Raises:
        Refusal: if a configuration or the number of replicates is refused.
    """
    request, spaces = called.request, [space for _, _, space in called.spaces]
    for space in spaces:
        _check_early_stop(space, request, machine)
        _try_point(space)
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
        sources=_search_sources(spaces, machine),
        epochs_needed=0,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        commit=commit(),
        versions={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in (LIBRARIES[0], *work.libraries, *LIBRARIES[1:])},
        },
        held={**modules.files(), **_texts(called)},
    )
    result = Draft(plan, spaces, (), called.left_out)
    for space in spaces:
        for trial in space.trials:
            result.append(planned_trial(space.name, trial, space.objectives[0]), max(replicates, trial.least))
    for space in spaces:
        _check_options(space, result)
    result.plan = result.plan.named(f"{called.name or result.plan.study}-{result.plan.digest}")
    return result


def _texts(called: Called) -> dict[str, str]:
    """Return the sources of spaces that are functions of a notebook."""
    names = [where.partition(":")[0] for where, _, _ in called.spaces]
    return {name: modules.held(name) for name in names if modules.is_text(name)}


def _search_sources(spaces: Sequence[Space], machine: Machine) -> dict[str, str]:
    """Return the sources of open searches, as far as they are known before there are points."""
    bases = [space.work.resolve(space.search.base, 0, machine) for space in spaces if space.search is not None]
    return {name: digest for base in bases for name, digest in base.sources.items()}


def _check_options(space: Space, draft: Draft) -> None:
    """Check that a space's function applies the options that it takes."""
    for option in space.options:
        value = draft.plan.request.options.get(option.name)
        if option.ignored is None or value is None:
            continue
        for planned in draft.plan.trials:
            ignored = option.ignored(value, planned.seeds) if planned.space == space.name else ""
            if ignored:
                field, _ = catalog.typed(option.name, value)
                hint = f"The function of space {space.name} does not apply it"
                raise Refusal(field, ignored, "must be left out", hint)


def _check_early_stop(space: Space, request: Request, machine: Machine) -> None:
    if request.early_stop and space.search is not None:
        base = space.work.resolve(space.search.base, 0, machine)
        if not base.joints:
            hint = f"The work of space {space.name} declares no epoch at which points branch (joints)"
            raise Refusal("--early-stop", request.early_stop, "must be left out", hint)
        room = len(base.epochs) - base.joints[0] - 1
        if request.early_stop > room:
            hint = "Later, every point has ended"
            raise Refusal("--early-stop", request.early_stop, f"must be at most {room}", hint)


def _try_point(space: Space) -> None:
    """Check that an open search's `point` does not raise at either end of the domain. It may refuse values."""
    for end in (0, -1) if space.search is not None else ():
        values = {name: _ends(domain)[end] for name, domain in space.domain.items()}
        try:
            assert space.search is not None
            point_trial(space.search, "", values)
        except StudyError:
            continue  # a search goes on after a point that is refused
        except (Exception, SystemExit) as error:
            words = f"the function point of space {space.name!r} raised {modules.said(error)}"
            tried = ", ".join(f"{name} {value}" for name, value in values.items())
            raise Refusal("space", space.name, words, hint=f"It was tried with {tried}") from error


def _ends(domain: Domain) -> Sequence[str | float]:
    return domain.values if isinstance(domain, Choice) else (domain.low, domain.high)


def _replicates(number: int | None, spaces: Sequence[Space]) -> int:
    """Return how many replicates each trial has, by default or as the user chose."""
    crossed = next((space.crossed for space in spaces if space.crossed), "")
    if number is None:
        return 9 if crossed else 1 if all(space.search is not None for space in spaces) else 3
    if crossed and (number < 4 or math.isqrt(number) ** 2 != number):
        k = max(2, math.isqrt(number))
        words = f"must be a square number with {crossed}, such as {k**2} ({k} by {k}) or {(k + 1) ** 2}"
        raise Refusal("--seeds", number, words)
    return number


def _planned_space(
    space: Space, where: str, path: Path, replicates: int, machine: Machine, early_stop: int
) -> PlannedSpace:
    search = None
    if space.search is not None:
        open_search = space.search
        numbers = (FRESH, *range(replicates))
        base = tuple(space.work.resolve(open_search.base, number, machine).keys[-1] for number in numbers)
        search = PlannedSearch(
            open_search.trials, open_search.seed, open_search.fresh, open_search.reported, base, early_stop
        )
    name = where.partition(":")[0]
    code = modules.held(name) if modules.is_text(name) else ""
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
    )


def commit() -> str:
    """Return the git commit of this program's checkout, with a plus if it has uncommitted changes; "" without git."""
    here = Path(__file__).parents[1]
    try:
        commit, dirty = (
            subprocess.run(
                ["git", *command], cwd=here, capture_output=True, encoding="utf-8", timeout=5, check=True
            ).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ".."))
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return commit.strip() + ("+" if dirty.strip() else "")
