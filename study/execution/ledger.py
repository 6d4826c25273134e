"""What of a run is stored, planned, given up and lost: the driver's one account of it, of which others ask."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from study.errors import StudyError
from study.planning import tree
from study.planning.draft import Draft, Replicate
from study.planning.stored import PlannedTrial
from study.planning.tree import Failure, Stage
from study.store import records
from study.store.records import GivenUp
from study.store.states import Store


class Ledger:
    """The account of one start, in the driver's main thread.

    Args:
        draft: the plan, which may grow.
        store: where the failures are recorded.
        stored: the names of the states in it.
        given_up: the replicates whose training raised.

    Attributes:
        lost: what failed for a reason that may be gone next time.
    """

    def __init__(
        self, draft: Draft, store: Store, stored: Collection[str], given_up: Mapping[Replicate, GivenUp]
    ) -> None:
        self._draft, self._store = draft, store
        self._stored = set(stored)
        self._given_up = dict(given_up)
        self._planned: dict[str, Stage] = {}
        self.lost: dict[Replicate, Failure] = {}

    def __contains__(self, key: str) -> bool:
        """Whether a state is stored."""
        return key in self._stored

    @property
    def given_up(self) -> Mapping[Replicate, GivenUp]:
        """The replicates whose training raised, with the records of it."""
        return self._given_up

    def has_ended(self, trial: PlannedTrial) -> bool:
        """Whether every replicate of a trial has its last state."""
        return all(end in self._stored for end in trial.ends)

    def in_progress(self, trial: PlannedTrial) -> bool:
        """Whether a trial may still end: it has not, and no replicate was given up."""
        failed = any((trial.name, number) in self._given_up for number in trial.by_replicate)
        return not failed and not self.has_ended(trial)

    def complete(self) -> int:
        """How many replicates have ended."""
        return sum(recipe.keys[-1] in self._stored for recipe in self._draft.recipes.values())

    def done(self, replicates: Iterable[Replicate] | None = None) -> int:
        """How many states of these replicates, or of all, need no training."""
        recipes = self._draft.recipes
        kept = [recipes[name] for name in (list(recipes) if replicates is None else replicates)]  # also while it grows
        return len(tree.nodes(kept)) - len(tree.missing(kept, self._stored))

    def missing(self) -> int:
        """How many states must be trained."""
        return len(tree.missing(self._draft.recipes.values(), self._stored))

    def needing(self, stage: Stage) -> list[Replicate]:
        """The replicates that wait for a stage; one that has ended may pass through it, and needs it no more."""
        recipes = self._draft.recipes
        return [name for name in self._draft.through(stage.key) if recipes[name].keys[-1] not in self._stored]

    def plan(self, replicates: Iterable[Replicate]) -> list[Stage]:
        """The stages that train these replicates, beginning where the store or a planned stage ends.

        A replicate that was given up is left out.
        """
        wanted = [self._draft.to_train(name) for name in replicates if name not in self._given_up]
        stages = tree.stages(wanted, self._stored | self._planned.keys(), self._draft.joints)
        self._planned |= {stage.key: stage for stage in stages}
        return stages

    def doomed(self, replicates: Iterable[Replicate]) -> dict[Replicate, GivenUp]:
        """Give up those of the replicates that need a stage whose training has raised; it would again."""
        failed = {failure.stage: failure for failure in self._given_up.values()}
        found: dict[Replicate, GivenUp] = {}
        for trial, number in replicates:
            keys = self._draft.to_train((trial, number)).keys
            failure = next((failed[key] for key in keys if key in failed), None)
            if failure is not None:
                found[trial, number] = GivenUp(trial, number, failure.reason, failure.traceback, failure.stage)
        if found:
            self._given_up |= found
            records.save_failures(self._store, self._draft.plan.run, self._given_up)
        return found

    def save(self, key: str) -> None:
        """A state is in the store."""
        self._stored.add(key)
        self._planned.pop(key, None)

    def fail(self, stage: Stage, failure: Failure) -> list[Replicate]:
        """A stage, and what needs it, is not going to be trained; returns the replicates that wait for it.

        What may go better next time is not recorded.
        """
        hit = self.needing(stage)
        for below in [stage, *tree.descendants(stage.key, self._planned.values())]:
            self._planned.pop(below.key, None)
        if failure.damaged:
            self._stored.discard(failure.damaged)
        for trial, number in hit:
            if failure.for_good:
                self._given_up[trial, number] = GivenUp(trial, number, failure.reason, failure.traceback, stage.key)
            else:
                self.lost[trial, number] = failure
        if failure.for_good:
            with suppress(StudyError):  # a full disk: what failed is tried again
                records.save_failures(self._store, self._draft.plan.run, self._given_up)
        return hit

    def try_again(self) -> list[Replicate]:
        """Forget what was given up; returns it."""
        given_up = list(self._given_up)
        if given_up:
            self._given_up = {}
            records.save_failures(self._store, self._draft.plan.run, {})
        return given_up

    def look_again(self) -> None:
        """Take in what workers saved while they were stopped."""
        self._stored = self._store.keys()

    def deepest(self, replicate: Replicate) -> str | None:
        """The last state of a replicate that is stored."""
        return next((key for key in reversed(self._draft.recipes[replicate].keys[1:]) if key in self._stored), None)
