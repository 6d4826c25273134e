"""What may go from a store: tensors that no run reaches, and what killed writers left. Measures stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from study.errors import Damaged, Refusal
from study.planning import tree
from study.planning.growth import redraft
from study.store import records
from study.store.states import Store, Stored


@dataclass(frozen=True)
class Cleaned:
    """What went, or would go.

    Attributes:
        states: how many lost their tensors.
        bytes: that these states had.
        leftovers: temporary files of killed writers, and damaged objects that were set aside earlier.
        leftover_bytes: that these had.
        kept_by_grace: states that only their age keeps.
        set_aside: states that were found to be damaged.
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
    """Drop the tensors of states that nobody needs, and sweep what killed writers left.

    Args:
        store: where.
        reached: the names of the states that registered plans reach.
        claimed: whether somebody else needs the state with this header.
        run: drop only what this run trained last; None for any run's.
        grace_seconds: what is younger stays.
        dry_run: change nothing, and tell what would go.
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
    leftovers = [
        each
        for each in store.objects()
        if each.age_seconds >= grace_seconds and (each.path.endswith(".tmp") or each.path.startswith("damaged/"))
    ]
    for each in leftovers if not dry_run else ():
        store.delete_record(each.path)
    return Cleaned(
        states=len(dropped),
        bytes=sum(each.bytes for each in dropped),
        leftovers=len(leftovers),
        leftover_bytes=sum(each.bytes for each in leftovers),
        kept_by_grace=kept_by_grace,
        set_aside=set_aside,
    )


def clean_runs(
    store: Store, run: str | None, forgotten: Collection[str], grace_seconds: float, dry_run: bool
) -> Cleaned:
    """Clean a store of what no run's plan reaches.

    A plan reaches every state on its replicates' paths. One that cannot be drawn up here, for its sources have changed
    or its file is gone, keeps its ends and all that it trained.

    Args:
        store: where.
        run: drop only what this run trained last; None for any run's.
        forgotten: runs whose plans are let go of from now on; those of earlier calls are remembered.
        grace_seconds, dry_run: see `clean`.
    """
    reached: set[str] = set()
    unknown: set[str] = set()
    for name in store.records("runs"):
        if name in forgotten or records.is_forgotten(store, name):
            continue
        try:
            plan = records.load_plan(store, name)
        except Damaged as error:
            raise Refusal(
                "run",
                name,
                f"its plan cannot be read, so nothing is dropped; the `study run` that made it makes it anew ({error})",
            ) from error
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
    """The run that trained the last epochs of a state."""
    provenance = header.get("provenance") or [{}]
    return str(provenance[-1]["run"]) if "run" in provenance[-1] else None


def _may_go(header: Mapping[str, Any], claimed: Callable[[Mapping[str, Any]], bool], run: str | None) -> bool:
    return run in (None, _trained_by(header)) and not claimed(header)
