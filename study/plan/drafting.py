"""From spaces to a plan: every trial resolved, every replicate's states named, before anything is trained."""

from __future__ import annotations

import hashlib
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from study import catalog
from study.errors import Refusal
from study.machine import Machine
from study.plan.draft import FRESH, Draft, planned_trial
from study.plan.replication import Crossing
from study.plan.stored import Plan, PlannedSearch, PlannedSpace, PlannedTrial, Resources
from study.space import CROSSED, Request, Space

ALL = "all"  # every shipped space that lists its trials


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
            made.append(planned_trial(space.name, trial, space.objectives[0]), max(replicates, trial.least))
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
    here = Path(__file__).parents[1]
    try:
        commit, dirty = (
            subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, timeout=5, check=True).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ".."))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.strip() + ("+" if dirty.strip() else "")
