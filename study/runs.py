"""The records of runs beside the states: plans and failures; where a run stands, and how it is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from study.plan import Plan, PlannedSpace
from study.planning import Replicate
from study.presence import alive, now, starts
from study.refusal import Damaged, Refusal
from study.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def check_name(name: str) -> str:
    """A run's name as the user gave it, refused if it could not be a folder."""
    if not _NAME.fullmatch(name):
        raise Refusal("--name", name, "up to 100 letters, digits and . _ + - would do")
    return name


def load_plan(store: Store, run: str) -> Plan | None:
    """A run's plan, or None if there is no such run."""
    record = store.read_record(f"runs/{run}/plan.json")
    try:
        return None if record is None else Plan.from_json(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{store.shown}/runs/{run}/plan.json is not a plan") from error


def take_plan(store: Store, run: str, say: Callable[[str], None]) -> Plan | None:
    """A run's plan for a driver that can make it again: a damaged one is removed, and said so."""
    try:
        return load_plan(store, run)
    except Damaged as error:
        say(f"damaged: {error}; the plan is made anew")
        store.delete_record(f"runs/{run}/plan.json")
        return None


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
    known = ", ".join(plan.run for plan in plans) or "none yet: `study run table9` makes one"
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


def failures(store: Store, run: str) -> dict[Replicate, dict[str, Any]]:
    """The replicates that were given up because training raised, with reason and traceback."""
    record = None
    with suppress(Damaged):  # then they are tried again
        record = store.read_record(f"runs/{run}/failures.json")
    record = record or {"failures": []}
    return {(each["trial"], each["replicate"]): each for each in record["failures"]}


def save_failures(store: Store, run: str, found: Mapping[Replicate, Mapping[str, Any]]) -> None:
    """Write the replicates that were given up."""
    store.write_record(f"runs/{run}/failures.json", {"failures": [dict(each) for each in found.values()]})


@dataclass(frozen=True)
class Status:
    """Where a run stands, in replicates and epochs; from the store alone.

    Attributes:
        behind: why MLflow or Optuna may not show all of it; "" if they do.
    """

    run: str
    study: str
    complete: int
    running: int
    failed: int
    waiting: int
    epochs_needed: int
    epochs_trained: int
    epochs_trained_now: int
    outcome: str
    bytes: int
    behind: str

    @classmethod
    def of(cls, store: Store, plan: Plan, stored: Mapping[str, int]) -> Status:
        """The status of a run.

        Args:
            store: where it lies.
            plan: the run's.
            stored: the sizes of all states in the store, in bytes, by name.
        """
        replicates = {(trial.name, n): end for trial in plan.trials for n, end in trial.by_replicate.items()}
        complete = {replicate for replicate, end in replicates.items() if end in stored}
        failed = failures(store, plan.run).keys() - complete
        history = [start for start in starts(store, plan.run) if start["generation"] == plan.generation]
        live = bool(history) and alive(history[-1])
        # What an open search has yet to suggest waits, too.
        unasked = sum(_unasked(plan, space) for space in plan.spaces)
        rest = len(replicates) + unasked - len(complete) - len(failed)
        running = min(rest, history[-1]["training"]) if live else 0
        behind = history[-1].get("behind", "") if history and not live else ""
        if is_forgotten(store, plan.run):
            outcome = "forgotten"
        elif not history:
            outcome = "planned"
        elif history[-1]["outcome"] == "running" and not live:
            outcome = "interrupted"
        else:
            outcome = history[-1]["outcome"]
        return cls(
            run=plan.run,
            study=plan.study,
            complete=len(complete),
            running=running,
            failed=len(failed),
            waiting=rest - running,
            epochs_needed=plan.epochs_needed,
            epochs_trained=sum(each["epochs_trained"] for each in history),
            epochs_trained_now=history[-1]["epochs_trained"] if history else 0,
            outcome="complete" if not rest and not failed else outcome,
            bytes=sum(stored[end] for end in {replicates[replicate] for replicate in complete}),
            behind=behind,
        )


def _unasked(plan: Plan, space: PlannedSpace) -> int:
    """The replicates that an open search has yet to plan, its first champion's included."""
    if space.search is None:
        return 0
    points = max(0, space.search.trials - len(plan.points(space))) * plan.replicates
    crowned = any(trial.champion_of for trial in plan.trials if trial.space == space.name)
    return points + (0 if crowned else space.search.fresh)
