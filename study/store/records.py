"""The records of runs beside the states: plans, failures, and finding a run by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from study.decoding import decoded
from study.errors import Damaged, Refusal
from study.planning.draft import Replicate
from study.planning.stored import Plan
from study.store.starts import now
from study.store.states import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def check_name(name: str) -> str:
    """Check that a run's name can be the name of a folder, and return it."""
    if not _NAME.fullmatch(name):
        raise Refusal("--name", name, "must be 1 to 100 letters, digits and . _ + -, the first a letter or a digit")
    return name


def load_plan(store: Store, run: str) -> Plan | None:
    """Return a run's plan, or None if there is no such run.

    Raises:
        Damaged: if the record is not the one that was written.
        Refusal: if another version of this program wrote it.
    """
    record = store.read_record(f"runs/{run}/plan.json")
    try:
        return None if record is None else Plan.from_json(record)
    except ValueError as error:
        raise Damaged(f"{store.shown}/runs/{run}/plan.json is not a plan") from error


def save_plan(store: Store, plan: Plan) -> None:
    """Write a plan. This happens before anything is trained."""
    store.write_record(f"runs/{plan.run}/plan.json", plan.to_json())


def delete_plan(store: Store, run: str) -> None:
    """Delete a plan of which nothing was trained."""
    store.delete_record(f"runs/{run}/plan.json")


def all_plans(store: Store) -> list[Plan]:
    """Return the plans of all runs, the newest last, except those that are damaged or that another version wrote."""
    plans = []
    for run in store.records("runs"):
        with suppress(Damaged, Refusal):
            plan = load_plan(store, run)
            if plan is not None:
                plans.append(plan)
    return sorted(plans, key=lambda plan: plan.created)


def damaged_plans(store: Store) -> list[str]:
    """Return the reasons why runs are not in `all_plans`: a plan is damaged, or another version wrote it."""
    reasons = []
    for run in store.records("runs"):
        try:
            load_plan(store, run)
        except (Damaged, Refusal) as error:
            reasons.append(str(error))
    return reasons


def find(store: Store, name: str) -> tuple[Plan, str | None]:
    """Return the run for a name: the run's own name, the name of a space (its latest run), or a unique prefix.

    Returns:
        The run's plan; and the space, if the name is the name of one of several spaces.

    Raises:
        Refusal: if there is no such run, or more than one.
    """
    if _NAME.fullmatch(name):
        try:
            exact = load_plan(store, name)
        except Damaged as error:
            hint = f"Give the 'study run' command of this run again, with --name {name}: it stores the plan again"
            raise Refusal("run", name, f"the plan of run {name!r} is damaged", hint) from error
        if exact is not None:
            return exact, None
    plans = all_plans(store)
    for plan in reversed(plans):
        if name in (plan.study, *(space.name for space in plan.spaces)):
            return plan, name if len(plan.spaces) > 1 and name != plan.study else None
    matches = [plan for plan in plans if plan.run.startswith(name)] if name else []
    if len(matches) == 1:
        return matches[0], None
    problem = f"several runs begin with {name!r}" if matches else f"unknown run {name!r}"
    hint = f"The runs in {store.shown} are {', '.join(plan.run for plan in plans)}"
    if not plans:
        hint = f"There are no runs in {store.shown} yet; 'study run SPACE' starts one"
    raise Refusal("run", name, problem, hint)


def forget(store: Store, run: str) -> None:
    """Let cleaning drop a run's states. Its plan and measures stay. Training the run again undoes this."""
    store.write_record(f"runs/{run}/forgotten.json", {"forgotten": now()})


def remember(store: Store, run: str) -> None:
    """Undo `forget`."""
    store.delete_record(f"runs/{run}/forgotten.json")


def is_forgotten(store: Store, run: str) -> bool:
    """Return whether `forget` was called for a run."""
    return "forgotten.json" in store.records(f"runs/{run}")


@dataclass(frozen=True)
class GivenUp:
    """A replicate that was given up because training raised.

    Attributes:
        trial, replicate: the name of the trial, and the number of the replicate.
        reason: the reason in one line.
        traceback: the worker's traceback, or "".
        stage: the name of the stage that raised and that the replicate needs.
    """

    trial: str
    replicate: int
    reason: str
    traceback: str
    stage: str


def given_up(store: Store, plan: Plan) -> dict[Replicate, GivenUp]:
    """Return the replicates that failed: those of refused points, and those that were given up in training."""
    return {**refused(plan), **failures(store, plan.run)}


def refused(plan: Plan) -> dict[Replicate, GivenUp]:
    """Return the replicates of a plan's refused points."""
    points = [trial for trial in plan.trials if trial.refused]
    return {(p.name, number): GivenUp(p.name, number, p.refused, "", "") for p in points for number in p.by_replicate}


def failures(store: Store, run: str) -> dict[Replicate, GivenUp]:
    """Return the replicates that were given up because training raised."""
    with suppress(Damaged, ValueError):  # then they are tried again
        record = store.read_record(f"runs/{run}/failures.json")
        given_up = () if record is None else decoded(_Failures, record).failures
        return {(failure.trial, failure.replicate): failure for failure in given_up}
    return {}


def save_failures(store: Store, run: str, given_up: Mapping[Replicate, GivenUp]) -> None:
    """Write the replicates that were given up because training raised."""
    store.write_record(f"runs/{run}/failures.json", asdict(_Failures(tuple(given_up.values()))))


@dataclass(frozen=True)
class _Failures:
    failures: tuple[GivenUp, ...]
