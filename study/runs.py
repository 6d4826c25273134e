"""The records of runs beside the states: plans, starts and failures; and how a run is called."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from study.plan import Plan
from study.planning import Replicate
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
        raise Damaged(f"{store.url}/runs/{run}/plan.json is not a plan") from error


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


def find(store: Store, called: str) -> tuple[Plan, str | None]:
    """The run that is called so: by its name, by a space's name (its latest run), or by a unique prefix.

    Returns:
        Its plan; and the space, if it was called by one of several.

    Raises:
        Refusal: if there is none, or more than one.
    """
    if _NAME.fullmatch(called):
        exact = load_plan(store, called)
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
    raise Refusal("run", called, f"{problem}; runs in {store.url}: {known}")


@dataclass
class Start:
    """One start of a run: who trains it and how many epochs it has trained so far."""

    store: Store
    run: str
    number: int
    record: dict[str, Any]

    @classmethod
    def begin(cls, store: Store, run: str, epochs_to_train: int, epochs_missing: int) -> Start:
        """Record that a run is being started.

        A start that was killed may have trained epochs that are in the store but not in its record; they are what is
        no longer missing and that nobody has counted, and are added to it here.

        Args:
            store: where the run lies.
            run: its name.
            epochs_to_train: by this start.
            epochs_missing: in all, those of replicates that were given up included.
        """
        before = starts(store, run)
        number = len(before)
        if before and before[-1]["outcome"] == "running":
            counted = sum(each["epochs_trained"] for each in before)
            unrecorded = max(0, before[0]["epochs_missing"] - epochs_missing - counted)
            last = {**before[-1], "epochs_trained": before[-1]["epochs_trained"] + unrecorded, "outcome": "killed"}
            store.write_record(f"runs/{run}/starts/{number - 1:05d}.json", last)
        record = {
            "started": now(), "ended": None, "outcome": "running", "host": platform.node(), "pid": os.getpid(),
            "epochs_to_train": epochs_to_train, "epochs_missing": epochs_missing, "epochs_trained": 0,
        }  # fmt: skip
        start = cls(store, run, number, record)
        start.write()
        return start

    def write(self) -> None:
        """Make the record durable as it is."""
        self.record["seen"] = now()
        self.store.write_record(f"runs/{self.run}/starts/{self.number:05d}.json", self.record)

    def end(self, outcome: str, epochs_missing: int) -> None:
        """Record how it ended: complete, failed, or interrupted.

        What a worker trained and saved while it was stopped was not reported, but is no longer missing.
        """
        trained = max(self.record["epochs_trained"], self.record["epochs_missing"] - epochs_missing)
        self.record |= {"ended": now(), "outcome": outcome, "epochs_trained": trained}
        self.write()


def starts(store: Store, run: str) -> list[dict[str, Any]]:
    """The records of every start of a run, oldest first."""
    folder = f"runs/{run}/starts"
    found = (store.read_record(f"{folder}/{name}") for name in store.records(folder))
    return [record for record in found if record is not None]


def failures(store: Store, run: str) -> dict[Replicate, dict[str, Any]]:
    """The replicates that were given up because training raised, with reason and traceback."""
    record = store.read_record(f"runs/{run}/failures.json") or {"failures": []}
    return {(each["trial"], each["replicate"]): each for each in record["failures"]}


def save_failures(store: Store, run: str, found: Mapping[Replicate, Mapping[str, Any]]) -> None:
    """Write the replicates that were given up."""
    store.write_record(f"runs/{run}/failures.json", {"failures": [dict(each) for each in found.values()]})


@dataclass(frozen=True)
class Status:
    """Where a run stands, in replicates and epochs; from the store alone."""

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

    @classmethod
    def of(cls, store: Store, plan: Plan, stored: set[str]) -> Status:
        """The status of a run.

        Args:
            store: where it lies.
            plan: the run's.
            stored: the names of all states in the store.
        """
        replicates = {(trial.name, number): end for trial in plan.trials for number, end in enumerate(trial.ends)}
        complete = {replicate for replicate, end in replicates.items() if end in stored}
        failed = failures(store, plan.run).keys() - complete
        history = starts(store, plan.run)
        alive = bool(history) and history[-1]["outcome"] == "running" and _alive(history[-1])
        rest = len(replicates) - len(complete) - len(failed)
        running = min(rest, history[-1].get("training", 0)) if alive else 0
        if not history:
            outcome = "planned"
        elif history[-1]["outcome"] == "running" and not alive:
            outcome = "interrupted"
        else:
            outcome = history[-1]["outcome"]
        return cls(
            run=plan.run, study=plan.study, complete=len(complete), running=running, failed=len(failed),
            waiting=rest - running, epochs_needed=plan.epochs_needed,
            epochs_trained=sum(each["epochs_trained"] for each in history),
            epochs_trained_now=history[-1]["epochs_trained"] if history else 0,
            outcome="complete" if len(complete) == len(replicates) else outcome,
        )  # fmt: skip


def _alive(start: Mapping[str, Any]) -> bool:
    """Whether the driver of a start may still be at work: its process here, or on another host a recent record."""
    if start["host"] == platform.node():
        try:
            os.kill(start["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return (datetime.now(UTC) - datetime.fromisoformat(start["seen"])).total_seconds() < 120


def now() -> str:
    """The time, as records hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
