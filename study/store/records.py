"""The records of runs beside the states: plans and failures; where a run stands, and how it is called."""

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
    """A run's name as the user gave it, refused if it could not be a folder."""
    if not _NAME.fullmatch(name):
        raise Refusal("--name", name, "up to 100 letters, digits and . _ + - would do")
    return name


def load_plan(store: Store, run: str) -> Plan | None:
    """A run's plan, or None if there is no such run.

    Raises:
        Damaged: if it is not what was written.
        Refusal: if another version of this program wrote it.
    """
    record = store.read_record(f"runs/{run}/plan.json")
    try:
        return None if record is None else Plan.from_json(record)
    except ValueError as error:
        raise Damaged(f"{store.shown}/runs/{run}/plan.json is not a plan") from error


def save_plan(store: Store, plan: Plan) -> None:
    """Write a plan; it is there before anything is trained."""
    store.write_record(f"runs/{plan.run}/plan.json", plan.to_json())


def all_plans(store: Store) -> list[Plan]:
    """Every run's plan, the newest last; one that is damaged or of another version is no reason to hide the others."""
    plans = []
    for run in store.records("runs"):
        with suppress(Damaged, Refusal):
            plan = load_plan(store, run)
            if plan is not None:
                plans.append(plan)
    return sorted(plans, key=lambda plan: plan.created)


def damaged_plans(store: Store) -> list[str]:
    """Why a run is not among `all_plans`: its plan is damaged, or another version wrote it."""
    reasons = []
    for run in store.records("runs"):
        try:
            load_plan(store, run)
        except (Damaged, Refusal) as error:
            reasons.append(str(error))
    return reasons


def find(store: Store, called: str) -> tuple[Plan, str | None]:
    """The run that is called so: by its name, by a space's name (its latest run), or by a unique prefix.

    Returns:
        Its plan; and the space, if it was called by one of several.

    Raises:
        Refusal: if there is none, or more than one.
    """
    if _NAME.fullmatch(called):
        try:
            exact = load_plan(store, called)
        except Damaged as error:
            remedy = f"its plan is damaged; the `study run` that made it, with --name {called}, makes it anew"
            raise Refusal("run", called, remedy) from error
        if exact is not None:
            return exact, None
    plans = all_plans(store)
    for plan in reversed(plans):
        if called in (plan.study, *(space.name for space in plan.spaces)):
            return plan, called if len(plan.spaces) > 1 and called != plan.study else None
    matches = [plan for plan in plans if plan.run.startswith(called)] if called else []
    if len(matches) == 1:
        return matches[0], None
    known = ", ".join(plan.run for plan in plans) or "none yet: `study run SPACE` makes one"
    problem = "more than one run begins so" if matches else "no run is called so"
    raise Refusal("run", called, f"{problem}; runs in {store.shown}: {known}")


def forget(store: Store, run: str) -> None:
    """Let go of a run's states; its plan and what was measured stay, and training it again remembers it."""
    store.write_record(f"runs/{run}/forgotten.json", {"forgotten": now()})


def remember(store: Store, run: str) -> None:
    """Take back `forget`."""
    store.delete_record(f"runs/{run}/forgotten.json")


def is_forgotten(store: Store, run: str) -> bool:
    """Whether a run's states have been let go of."""
    return "forgotten.json" in store.records(f"runs/{run}")


@dataclass(frozen=True)
class GivenUp:
    """A replicate that was given up because training raised.

    Attributes:
        trial, replicate: which.
        reason: one line.
        traceback: of the worker, or "".
        stage: the name of the stage that raised, which the replicate needs.
    """

    trial: str
    replicate: int
    reason: str
    traceback: str
    stage: str


def failures(store: Store, run: str) -> dict[Replicate, GivenUp]:
    """The replicates that were given up because training raised."""
    with suppress(Damaged, ValueError):  # then they are tried again
        record = store.read_record(f"runs/{run}/failures.json")
        found = () if record is None else decoded(_Failures, record).failures
        return {(each.trial, each.replicate): each for each in found}
    return {}


def save_failures(store: Store, run: str, found: Mapping[Replicate, GivenUp]) -> None:
    """Write the replicates that were given up."""
    store.write_record(f"runs/{run}/failures.json", asdict(_Failures(tuple(found.values()))))


@dataclass(frozen=True)
class _Failures:
    failures: tuple[GivenUp, ...]
