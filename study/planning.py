"""From spaces to a plan: every trial resolved, every replicate's states named, before anything is trained."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from study import catalog, tree
from study.plan import Machine, Plan, PlannedSpace, PlannedTrial, Request, Resolved, Resources, Space, Work
from study.refusal import Refusal

Replicate = tuple[str, int]  # a trial's name in its plan, and the replicate's number


@dataclass(frozen=True)
class Draft:
    """A plan with what is derived from it: the work behind its spaces, and each replicate's recipe."""

    plan: Plan
    work: Work
    recipes: Mapping[Replicate, Resolved]


def draft(
    references: Sequence[str], request: Request, replicates: int, machine: Machine, resources: Resources
) -> Draft:
    """Plan spaces together: their recipes are merged into one tree.

    Raises:
        Refusal: if a space is unknown or named twice, or a configuration is refused.
    """
    spaces: list[tuple[Space, str, Path]] = []
    for reference in references:
        function, path = catalog.find(reference)
        shipped = reference.partition(":")[0] in catalog.names()
        where = (
            reference if shipped else str(path.absolute()) + reference.partition(":")[1] + reference.partition(":")[2]
        )
        try:
            space = function(request)
        except Refusal:
            raise
        except Exception as error:
            raise Refusal("space", reference, f"its function raised {type(error).__name__}: {error}") from error
        if not isinstance(space, Space):
            raise Refusal("space", reference, f"a function that returns a Space would do, not {type(space).__name__}")
        if any(space.name == other.name for other, *_ in spaces):
            raise Refusal("space", reference, "each space once would do")
        if spaces and space.work != spaces[0][0].work:
            raise Refusal("space", reference, "a run of its own would do: it is trained by other code than the others")
        spaces.append((space, where, path))

    recipes: dict[Replicate, Resolved] = {}
    trials: list[PlannedTrial] = []
    for space, _, _ in spaces:
        for trial in space.trials:
            own = [space.work.resolve(trial.config, number, machine) for number in range(replicates)]
            planned = PlannedTrial(
                space=space.name, label=trial.label, row=trial.row, column=trial.column, config=trial.config,
                axes=trial.axes, paper=trial.paper, paper_of=trial.paper_of, epochs=len(own[0].epochs),
                ends=tuple(recipe.keys[-1] for recipe in own),
            )  # fmt: skip
            if any(planned.name == other.name for other in trials):
                raise Refusal("trial", planned.name, "a label that no other trial of the space has would do")
            trials.append(planned)
            recipes.update({(planned.name, number): recipe for number, recipe in enumerate(own)})

    plan = Plan(
        run="",
        request=request,
        machine=machine,
        resources=resources,
        replicates=replicates,
        spaces=tuple(_planned(space, where, path) for space, where, path in spaces),
        trials=tuple(trials),
        sources=dict(spaces[0][0].work.sources()),
        epochs_needed=len(tree.nodes(recipes.values())),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        commit=commit(),
        versions={
            "python": platform.python_version(),
            **{
                name: metadata.version(name) for name in ("longtail-study", "torch", "ray", "optuna", "mlflow", "numpy")
            },
        },
    )
    plan = plan.named(f"{plan.study}-{plan.digest}")
    return Draft(plan, spaces[0][0].work, recipes)


def redraft(plan: Plan) -> Draft:
    """The works and recipes of a stored plan, checked against it.

    Raises:
        Refusal: if the sources that name its states have changed, naming the files; or if a space's file now gives
            other trials.
    """
    again = draft([space.file for space in plan.spaces], plan.request, plan.replicates, plan.machine, plan.resources)
    now = again.plan.sources
    changed = sorted(name for name in plan.sources.keys() | now.keys() if plan.sources.get(name) != now.get(name))
    if changed:
        raise Refusal(
            "sources", ", ".join(changed),
            f"they changed since run {plan.run} was planned, so its states would be others: "
            "check out what it was planned with, or start a new run",
        )  # fmt: skip
    if again.plan.digest != plan.digest:
        files = ", ".join(space.file for space in plan.spaces)
        settled = {name: v for name, v in plan.versions.items() if again.plan.versions.get(name) != v}
        reason = f"other versions ({settled})" if settled else f"another content of {files}"
        raise Refusal("plan", plan.run, f"it cannot be taken up with {reason}; a new run would do")
    return Draft(plan, again.work, again.recipes)


def _planned(space: Space, where: str, path: Path) -> PlannedSpace:
    return PlannedSpace(
        name=space.name, title=space.title, evidence=space.evidence, objective=space.objective,
        contrasts=space.contrasts, domain=space.domain, file=where,
        file_digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip


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
