"""Cleaning a store: tensors that no run needs are dropped, and files of killed writers removed. Measures stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from study.errors import Damaged, Refusal
from study.planning import tree
from study.planning.growth import redraft
from study.store import records
from study.store.starts import is_trained
from study.store.states import Store, Stored


@dataclass(frozen=True)
class Cleaned:
    """Numbers and sizes of the objects that were removed, or that a dry run would remove.

    Attributes:
        states: the states that lose their tensors.
        bytes: the size of these states.
        leftovers: temporary files of killed writers, records for killed drivers and of them, and damaged objects that
            were set aside earlier.
        leftover_bytes: the size of these leftovers.
        kept_by_grace: the states that are kept only because they are young.
        set_aside: the damaged states that are set aside.
    """

    states: int = 0
    bytes: int = 0
    leftovers: int = 0
    leftover_bytes: int = 0
    kept_by_grace: int = 0
    set_aside: int = 0


def clean(
    store: Store,
    reached: Collection[str],
    claimed: Callable[[Mapping[str, Any]], bool],
    run: str | None,
    grace_seconds: float,
    dry_run: bool,
) -> Cleaned:
    """Drop the tensors of states that no run needs, and remove the files that killed writers left.

    Args:
        store: the store.
        reached: the names of the states that registered plans reach.
        claimed: whether another run needs the state with this header.
        run: drop only states whose last epochs this run trained; None for any run.
        grace_seconds: younger states and files stay.
        dry_run: change nothing, and only count.
    """
    reached = frozenset(reached)
    dropped: list[Stored] = []
    kept_by_grace = set_aside = 0
    for key, stored in sorted(store.states().items()):
        young = stored.age_seconds < grace_seconds
        try:
            if key in reached or not _may_go(store.header(key), claimed, run):
                continue
            if young:
                kept_by_grace += 1
                continue
            if not dry_run:
                store.drop(key)
            dropped.append(stored)
        except FileNotFoundError:  # another driver was first
            continue
        except Damaged:
            if not young:
                set_aside += dry_run or bool(store.set_aside(key))
    # What is in the others is of drivers: some of it is read as long as they live, however old it is.
    folders = ("damaged/",) if is_trained(store) else ("damaged/", "nodes/", "drivers/", "claims/")
    leftovers = [
        stored
        for stored in store.objects()
        if stored.age_seconds >= grace_seconds and (stored.path.endswith(".tmp") or stored.path.startswith(folders))
    ]
    for leftover in leftovers if not dry_run else ():
        store.delete_record(leftover.path)
    return Cleaned(
        states=len(dropped),
        bytes=sum(stored.bytes for stored in dropped),
        leftovers=len(leftovers),
        leftover_bytes=sum(leftover.bytes for leftover in leftovers),
        kept_by_grace=kept_by_grace,
        set_aside=set_aside,
    )


def clean_runs(
    store: Store, run: str | None, forgotten: Collection[str], grace_seconds: float, dry_run: bool
) -> Cleaned:
    """Clean a store of the states that no run's plan reaches.

    A plan reaches every state on its replicates' paths. If a plan cannot be drafted here, because its sources have
    changed or its file is gone, its last states and all states that the run trained stay.

    Args:
        store: the store.
        run: drop only states whose last epochs this run trained; None for any run.
        forgotten: runs whose plans no longer keep states, from now on. Those of earlier calls are stored.
        grace_seconds, dry_run: see `clean`.

    Raises:
        Refusal: if a plan is damaged.
    """
    reached: set[str] = set()
    unknown: set[str] = set()
    for name in store.records("runs"):
        if name in forgotten or records.is_forgotten(store, name):
            continue
        try:
            plan = records.load_plan(store, name)
        except Damaged as error:
            words = f"the plan of run {name!r} cannot be read, so nothing is dropped: {error}"
            hint = "Give the 'study run' command of this run again: it stores the plan again"
            raise Refusal("run", name, words, hint) from error
        except Refusal:  # of another version
            unknown.add(name)
            continue
        if plan is None:
            continue
        reached.update(end for trial in plan.trials for end in trial.ends)
        try:
            reached.update(tree.nodes(redraft(plan).recipes.values()))
        except Refusal:
            unknown.add(plan.run)
    if not dry_run:
        for name in forgotten:
            records.forget(store, name)
    return clean(store, reached, lambda header: _trained_by(header) in unknown, run, grace_seconds, dry_run)


def _trained_by(header: Mapping[str, Any]) -> str | None:
    """Return the run that trained the last epochs of a state."""
    provenance = header.get("provenance") or [{}]
    return str(provenance[-1]["run"]) if "run" in provenance[-1] else None


def _may_go(header: Mapping[str, Any], claimed: Callable[[Mapping[str, Any]], bool], run: str | None) -> bool:
    return run in (None, _trained_by(header)) and not claimed(header)
