"""A run goes on: its plan drawn again, grown to what is asked for now, or begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from study import catalog, modules
from study.errors import Refusal
from study.machine import Machine
from study.planning.draft import Draft
from study.planning.drafting import call, draft
from study.planning.stored import LIBRARIES, Plan, PlannedSpace, PlannedTrial
from study.space import Choice, Domain, Request


def redraft(plan: Plan) -> Draft:
    """A stored plan with what is derived from it.

    Raises:
        Refusal: if it would now be another, naming the sources that changed or the trials that differ.
    """
    return grown(plan, drawn_again(plan))


def drawn_again(plan: Plan) -> Draft:
    """What the spaces of a stored plan make of its request now."""
    for space in plan.spaces:
        if space.code:
            modules.hold(space.code)
    spaces = [space.file for space in plan.spaces]
    return draft(call(spaces, plan.request), plan.replicates, plan.machine, plan.resources)


def grown(before: Plan, drawn: Draft) -> Draft:
    """A run's plan, grown to what has been drawn now: what it holds stays as it is.

    Raises:
        Refusal: if that is not a superset of it, showing the difference.
    """
    drawn.plan = replace(drawn.plan, spaces=tuple(_with_domain_of(before, drawn, space) for space in drawn.plan.spaces))
    lost, other = _lost(before, drawn)
    now = drawn.plan
    changed = _changed(before, now)
    if changed and (other or not lost):
        raise Refusal(
            "sources",
            ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else ""),
            f"they changed since run {before.run} was planned, so its states would be others: "
            "check out what it was planned with, or start it anew with --retrain",
        )
    remedy = (
        "at least what it has, or another --name, would do; if its data or its space's file have changed, --retrain "
        "begins it anew"
    )
    if other:
        differs = _other_machine(before.machine, now.machine)
        others = (_other_seeds(trial, drawn.find(trial.name)) for trial in before.trials)
        if any(others) or any(space.search for space in now.spaces):
            differs += _other_options(before.request, drawn)
        remedy = "must be the same, or have another --name" if differs else remedy
        lost += differs or other
    if lost:
        shown = "; ".join(lost[:3]) + (f"; and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise Refusal("run", before.run, f"it can only grow, and this is not a superset of it: {shown}: {remedy}")
    drawn.plan = replace(
        drawn.plan,
        run=before.run,
        created=before.created,
        generation=before.generation,
        tracking_uri=before.tracking_uri,
        storage=before.storage,
        home=before.home,
    )
    return drawn


def _lost(before: Plan, drawn: Draft) -> tuple[list[str], list[str]]:
    """What of a plan is not in what has been drawn, and what is there but other work; its points are taken over."""
    now = drawn.plan
    lost: list[str] = []
    other: list[str] = []
    if before.replicates > now.replicates:
        lost.append(f"{now.replicates} replicates instead of {before.replicates}")
    here = {space.name: space for space in now.spaces}
    for space in before.spaces:
        again = here.get(space.name)
        if again is None:
            lost.append(f"no {space.name}")
        elif space.objectives != again.objectives:
            lost.append(
                f"{', '.join(again.objectives)} as objectives of {space.name}, not {', '.join(space.objectives)}"
            )
        elif space.domain != again.domain:
            lost.append(_other_domain(space, again))
        elif space.search and again.search and space.search.early_stop != again.search.early_stop:
            lost.append(f"--early-stop {again.search.early_stop} instead of {space.search.early_stop}")
        elif space.search and again.search and len(before.points(space)) > again.search.trials:
            lost.append(f"{again.search.trials} trials of {space.name}, which has {len(before.points(space))}")
        elif space.search and again.search and again.search.base[: len(space.search.base)] != space.search.base:
            other.append(f"other work in {space.name}")
    if lost or other:
        return lost, other
    for trial in before.trials:
        if before.space(trial.space).search is not None:
            drawn.append(trial, None if trial.champion_of else now.replicates)
        again_trial = drawn.find(trial.name)
        if again_trial is None:
            lost.append(f"no {trial.name}")
        elif again_trial.ends[: len(trial.ends)] != trial.ends:
            versions = [
                n for n, v in before.versions.items() if now.versions.get(n) != v and n not in ("python", *LIBRARIES)
            ]
            other.append(f"other work in {trial.name}" + (f" (another {' and '.join(versions)})" if versions else ""))
    return lost, other


def _with_domain_of(before: Plan, drawn: Draft, space: PlannedSpace) -> PlannedSpace:
    """A space with the dimensions that it had, if it has more choices now and none of its trials needs them."""
    for known in before.spaces:
        axes = [trial.trial.axes for trial in drawn.plan.trials if trial.space == space.name]
        if known.name == space.name and known.domain.keys() == space.domain.keys():
            dimensions = [(name, known.domain[name], now) for name, now in space.domain.items()]
            if all(was == now or _is_part(was, now, [each[name] for each in axes]) for name, was, now in dimensions):
                return replace(space, domain=known.domain)
    return space


def _is_part(was: Domain, now: Domain, values: Sequence[object]) -> bool:
    choices = isinstance(was, Choice) and isinstance(now, Choice)
    return choices and set(was.values) <= set(now.values) and set(values) <= set(was.values)  # type: ignore[union-attr]


def _other_machine(before: Machine, now: Machine) -> list[str]:
    """What differs in how work was settled, in the words of the options that say it."""
    found = []
    if now.device != before.device:
        found.append(f"{now.device} instead of {before.device} (--gpus-per-trial)")
    if now.threads != before.threads:
        found.append(f"{now.threads} threads a rank instead of {before.threads} (--cpus-per-trial)")
    if now.ranks != before.ranks:
        found.append(f"--ranks-per-trial {now.ranks} instead of {before.ranks}")
    if now.precision != before.precision:
        found.append(f"--precision {now.precision} instead of {before.precision}")
    elif now.bf16 != before.bf16 and now.precision == "auto":
        found.append(f"--precision auto, which was {'bf16' if before.bf16 else 'fp32'} where the run was planned")
    return found


def _other_seeds(trial: PlannedTrial, again: PlannedTrial | None) -> bool:
    return again is not None and again.seeds[: len(trial.seeds)] != trial.seeds


def _other_options(before: Request, drawn: Draft) -> list[str]:
    """What differs in the options that speak of seeds, in the user's words."""

    def said(request: Request, name: str) -> str:
        value = request.options.get(name)
        option, words = catalog.typed(name, "" if value is None else value)
        return f"without {option}" if value is None else option if value is True else f"{option} {words}"

    now = drawn.plan.request
    names = dict.fromkeys(o.name for space in drawn.spaces.values() for o in space.options if o.ignored is not None)
    return [
        f"{said(now, name)} instead of {said(before, name)}"
        for name in names
        if before.options.get(name) != now.options.get(name)
    ]


def _other_domain(space: PlannedSpace, again: PlannedSpace) -> str:
    """Which dimension differs: Optuna mixes no trials of different ones."""
    names = [*space.domain, *(name for name in again.domain if name not in space.domain)]
    name = next(each for each in names if space.domain.get(each) != again.domain.get(each))
    return f"dimension {name} of {space.name} is {again.domain.get(name)} and was {space.domain.get(name)}"


def _changed(before: Plan, now: Plan) -> list[str]:
    """The sources of a plan that are others now; what was only moved to another place is the same.

    What is not used now is no change, but of a plan whose sources have other names: an earlier version made it.
    """
    here = set(now.sources.values())
    gone = sorted(name for name, digest in before.sources.items() if digest not in here)
    known = [name for name in gone if name in now.sources]
    return known if before.sources.keys() & now.sources.keys() else gone


def taken_up(before: Plan, drawn: Draft, retrain: bool) -> Draft:
    """A stored run with what has been drawn now: grown, or begun anew; see `grown` and `begun_anew`.

    Raises:
        Refusal: also if it is a run of other spaces.
    """
    if not {space.name for space in before.spaces} & {space.name for space in drawn.plan.spaces}:
        raise Refusal("--name", before.run, f"must be another: this is a run of {before.study}")
    return begun_anew(before, drawn) if retrain else grown(before, drawn)


def begun_anew(before: Plan, drawn: Draft) -> Draft:
    """A run begun once more under its name, for its sources have changed: what was recorded stays as history.

    Raises:
        Refusal: if nothing has changed.
    """
    same_work = before.digest == drawn.plan.digest
    changed = _changed(before, drawn.plan)
    if same_work and changed:
        remedy = "they changed, and the names of states did not: Work.resolve must put its sources into its keys"
        raise Refusal("sources", ", ".join(changed), remedy)
    if same_work:
        raise Refusal("--retrain", before.run, "must be left out: nothing has changed that its states depend on")
    drawn.plan = replace(
        drawn.plan,
        run=before.run,
        generation=before.generation + 1,
        tracking_uri=before.tracking_uri,
        storage=before.storage,
        home=before.home,
    )
    return drawn
