"""The continuation of a stored run: its plan is drafted again, and then grown or started anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from study import catalog, modules
from study.errors import Refusal
from study.machine import Machine
from study.planning import drafting
from study.planning.draft import Draft
from study.planning.stored import LIBRARIES, Plan, PlannedSpace, PlannedTrial
from study.space import Choice, Domain, Request


def redraft(plan: Plan) -> Draft:
    """Return a stored plan with what is derived from it.

    Raises:
        Refusal: if drafting it now gives another plan. The message names the sources that changed or the trials that
            differ.
    """
    return grown(plan, drawn_again(plan))


def drawn_again(plan: Plan) -> Draft:
    """Draft the spaces of a stored plan again, for the request that the plan holds."""
    modules.hold_all(plan.held)
    spaces = [space.file for space in plan.spaces]
    called = drafting.call(spaces, plan.request)
    return drafting.draft(called, plan.replicates, plan.machine, plan.resources)


def grown(before: Plan, draft: Draft) -> Draft:
    """Return a new draft as a continuation of a stored run. Everything in the stored plan stays as it is.

    Raises:
        Refusal: if the draft does not contain the stored plan. The message shows the difference.
    """
    draft.plan = replace(draft.plan, spaces=tuple(_with_domain_of(before, draft, space) for space in draft.plan.spaces))
    missing, differing = _differences(before, draft)
    after = draft.plan
    changed = _changed_sources(before, after)
    files = {name: draft.work.changes(name, before.sources[name]) for name in changed} if draft.work.changes else {}
    data = [f"{name} ({words})" for name, words in files.items() if words]
    if changed and (differing or not missing or data):  # other data may give the trials other names
        named = data + [name for name in changed if not files.get(name)]
        names = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        raise Refusal(
            "sources",
            names,
            f"these sources have changed since run {before.run!r} was planned: {names}",
            hint=f"{'Restore the files' if data else 'Check out the version'} that the run was planned with, or train "
            "the run anew with --retrain",
        )
    remedy = (
        "Ask for at least what the run has, or choose another --name. If its data or its space's file have changed, "
        "--retrain trains it anew"
    )
    if differing:
        settings = _machine_differences(before.machine, after.machine)
        other_seeds = (_has_other_seeds(trial, draft.find(trial.name)) for trial in before.trials)
        if any(other_seeds) or any(space.search for space in after.spaces):
            settings += _option_differences(before.request, draft)
        remedy = "Use the same settings as before, or choose another --name" if settings else remedy
        missing += settings or differing
    if missing:
        differences = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise Refusal(
            "run",
            before.run,
            f"run {before.run!r} can be extended but not changed, and this would change it: {differences}",
            hint=remedy,
        )
    draft.plan = replace(
        draft.plan,
        run=before.run,
        created=before.created,
        generation=before.generation,
        tracking_uri=before.tracking_uri,
        storage=before.storage,
        home=before.home,
        commit=draft.plan.commit or before.commit,  # where there is no checkout, as in a job of a cluster
    )
    return draft


def _differences(before: Plan, draft: Draft) -> tuple[list[str], list[str]]:
    """Return what of a stored plan a draft lacks, and what it has with other work. Take over the points of searches."""
    after = draft.plan
    missing: list[str] = []
    differing: list[str] = []
    if before.replicates > after.replicates:
        replicates = "1 replicate" if after.replicates == 1 else f"{after.replicates} replicates"
        missing.append(f"{replicates} instead of {before.replicates}")
    spaces_after = {space.name: space for space in after.spaces}
    for space in before.spaces:
        again = spaces_after.get(space.name)
        if again is None:
            missing.append(f"space {space.name} is missing")
        elif space.objectives != again.objectives:
            missing.append(
                f"objectives of {space.name}: {', '.join(again.objectives)} instead of {', '.join(space.objectives)}"
            )
        elif space.domain != again.domain:
            missing.append(_domain_difference(space, again))
        elif space.search and again.search and space.search.early_stop != again.search.early_stop:
            missing.append(f"--early-stop {again.search.early_stop} instead of {space.search.early_stop}")
        elif space.search and again.search and len(before.points(space)) > again.search.trials:
            missing.append(
                f"{again.search.trials} trials of {space.name}, which already has {len(before.points(space))}"
            )
        elif space.search and again.search and again.search.base[: len(space.search.base)] != space.search.base:
            differing.append(f"space {space.name} would train differently")
    if missing or differing:
        return missing, differing
    for trial in before.trials:
        if before.space(trial.space).search is not None:
            draft.append(trial, None if trial.champion_of else after.replicates)
        again_trial = draft.find(trial.name)
        if again_trial is None:
            missing.append(f"trial {trial.name} is missing")
        elif again_trial.ends[: len(trial.ends)] != trial.ends:
            libraries = [
                n for n, v in before.versions.items() if after.versions.get(n) != v and n not in ("python", *LIBRARIES)
            ]
            versions = f" (another version of {' and '.join(libraries)})" if libraries else ""
            differing.append(f"trial {trial.name} would train differently{versions}")
    return missing, differing


def _with_domain_of(before: Plan, draft: Draft, space: PlannedSpace) -> PlannedSpace:
    """Return a space with its stored dimensions, if it only has more choices now and none of its trials needs them."""
    for known in before.spaces:
        axes = [trial.trial.axes for trial in draft.plan.trials if trial.space == space.name]
        if known.name == space.name and known.domain.keys() == space.domain.keys():
            dimensions = [(name, known.domain[name], domain) for name, domain in space.domain.items()]
            if all(
                old == new or _is_part(old, new, [trial_axes[name] for trial_axes in axes])
                for name, old, new in dimensions
            ):
                return replace(space, domain=known.domain)
    return space


def _is_part(old: Domain, new: Domain, values: Sequence[object]) -> bool:
    choices = isinstance(old, Choice) and isinstance(new, Choice)
    return choices and set(old.values) <= set(new.values) and set(values) <= set(old.values)  # type: ignore[union-attr]


def _machine_differences(before: Machine, after: Machine) -> list[str]:
    """Return the differences between two machines, in the words of the options that choose them."""
    differences = []
    if after.device != before.device:
        differences.append(f"{after.device} instead of {before.device} (--gpus-per-trial)")
    if after.threads != before.threads:
        threads = "1 thread" if after.threads == 1 else f"{after.threads} threads"
        differences.append(f"{threads} per rank instead of {before.threads} (--cpus-per-trial)")
    if after.ranks != before.ranks:
        differences.append(f"--ranks-per-trial {after.ranks} instead of {before.ranks}")
    if after.precision != before.precision:
        differences.append(f"--precision {after.precision} instead of {before.precision}")
    elif after.bf16 != before.bf16 and after.precision == "auto":
        differences.append(f"--precision auto, which was {'bf16' if before.bf16 else 'fp32'} where the run was planned")
    return differences


def _has_other_seeds(trial: PlannedTrial, again: PlannedTrial | None) -> bool:
    return again is not None and again.seeds[: len(trial.seeds)] != trial.seeds


def _option_differences(before: Request, draft: Draft) -> list[str]:
    """Return the differences in the options that concern seeds, as the user types them."""

    def typed(request: Request, name: str) -> str:
        value = request.options.get(name)
        option, words = catalog.typed(name, "" if value is None else value)
        return f"no {option}" if value is None else option if value is True else f"{option} {words}"

    after = draft.plan.request
    names = dict.fromkeys(o.name for space in draft.spaces.values() for o in space.options if o.ignored is not None)
    return [
        f"{typed(after, name)} instead of {typed(before, name)}"
        for name in names
        if before.options.get(name) != after.options.get(name)
    ]


def _domain_difference(space: PlannedSpace, again: PlannedSpace) -> str:
    """Return the first dimension that differs: an Optuna study cannot mix trials of different dimensions."""
    names = [*space.domain, *(name for name in again.domain if name not in space.domain)]
    name = next(name for name in names if space.domain.get(name) != again.domain.get(name))
    old, new = space.domain.get(name), again.domain.get(name)
    if old is None:
        return f"dimension {name} of {space.name} is new: {new}"
    if new is None:
        return f"dimension {name} of {space.name} is missing: {old}"
    return f"dimension {name} of {space.name}: {new} instead of {old}"


def _changed_sources(before: Plan, after: Plan) -> list[str]:
    """Return the names of a plan's sources that have changed. A source that only moved is the same.

    A source that is no longer used is not a change, with one exception: if no source of the plan has a name that is
    used now, an earlier version made the plan.
    """
    digests = set(after.sources.values())
    gone = sorted(name for name, digest in before.sources.items() if digest not in digests)
    known = [name for name in gone if name in after.sources]
    return known if before.sources.keys() & after.sources.keys() else gone


def taken_up(before: Plan, draft: Draft, retrain: bool) -> Draft:
    """Return a new draft as a continuation of a stored run: grown, or started anew. See `grown` and `begun_anew`.

    Raises:
        Refusal: also if the stored run has other spaces.
    """
    if not {space.name for space in before.spaces} & {space.name for space in draft.plan.spaces}:
        words = f"run {before.run!r} already exists and is a run of {before.study}"
        raise Refusal("--name", before.run, words, hint="Choose another --name")
    return begun_anew(before, draft) if retrain else grown(before, draft)


def begun_anew(before: Plan, draft: Draft) -> Draft:
    """Return a new draft as the next generation of a stored run whose sources have changed. Its records stay.

    Raises:
        Refusal: if nothing has changed.
    """
    same_work = before.digest == draft.plan.digest
    changed = _changed_sources(before, draft.plan)
    if same_work and changed:
        names = ", ".join(changed)
        words = f"these sources have changed, but the names of the states have not: {names}"
        raise Refusal("sources", names, words, hint="Work.resolve must include the sources in the keys of states")
    if same_work:
        words = f"nothing has changed that the states of run {before.run!r} depend on"
        raise Refusal("--retrain", before.run, words, hint="Leave --retrain out")
    draft.plan = replace(
        draft.plan,
        run=before.run,
        generation=before.generation + 1,
        tracking_uri=before.tracking_uri,
        storage=before.storage,
        home=before.home,
    )
    return draft
