"""The driver's account of a run: which states and replicates are stored, planned, given up or lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

from study.errors import Damaged, Refusal, StudyError
from study.planning import tree
from study.planning.draft import Draft, Replicate
from study.planning.stored import PlannedTrial
from study.planning.tree import Failure, Stage
from study.store import records
from study.store.records import GivenUp
from study.store.states import Store


class Ledger:
    """The account of one start, used in the driver's main thread.

    Args:
        draft: the plan, which may grow.
        store: the store in which failures are recorded.
        stored: the names of the states in the store.
        given_up: the replicates whose training raised.
        claim: raises `Superseded` if another driver has claimed the run; called before each record is written.

    Attributes:
        lost: replicates that failed for a reason that may be gone at the next start.
    """

    def __init__(
        self,
        draft: Draft,
        store: Store,
        stored: Collection[str],
        given_up: Mapping[Replicate, GivenUp],
        claim: Callable[[], None] = lambda: None,
    ) -> None:
        self._draft, self._store, self._claim = draft, store, claim
        self._stored, self._saved = set(stored), set[str]()
        self._given_up = dict(given_up)
        self._planned: dict[str, Stage] = {}
        self.lost: dict[Replicate, Failure] = {}

    def __contains__(self, key: str) -> bool:
        """Return whether a state is stored."""
        return key in self._stored

    def is_planned(self, key: str) -> bool:
        """Return whether a stage that ends in this state is planned and neither trained nor given up."""
        return key in self._planned

    @property
    def given_up(self) -> Mapping[Replicate, GivenUp]:
        """The replicates whose training raised, and those of refused points, with their records."""
        return {**records.refused(self._draft.plan), **self._given_up}

    def has_ended(self, trial: PlannedTrial) -> bool:
        """Return whether every replicate of a trial has its last state."""
        return all(end in self._stored for end in trial.ends)

    def in_progress(self, trial: PlannedTrial) -> bool:
        """Return whether a trial has not ended, but still can: no replicate was given up."""
        failed = bool(trial.refused) or any((trial.name, n) in self._given_up for n in trial.by_replicate)
        return not failed and not self.has_ended(trial)

    def complete(self) -> int:
        """Return the number of replicates that have ended."""
        return sum(recipe.keys[-1] in self._stored for recipe in self._draft.recipes.values())

    def lacking(self) -> list[Replicate]:
        """Return the replicates that have not ended, except points of searches that failed: these are results."""
        recipes, is_point = self._draft.recipes, self._draft.plan.is_point
        names = [name for name in recipes if recipes[name].keys[-1] not in self._stored]
        return [name for name in names if name not in self._given_up or not is_point(self._draft.trial(name))]

    def done(self, replicates: Iterable[Replicate] | None = None) -> int:
        """Return the number of states of these replicates, or of all replicates, that need no training."""
        recipes = self._draft.recipes
        names = list(recipes) if replicates is None else replicates  # a copy, because `recipes` may grow meanwhile
        chosen = [recipes[name] for name in names]
        return len(tree.nodes(chosen)) - len(tree.missing(chosen, self._stored))

    def missing(self) -> int:
        """Return the number of states that must be trained."""
        return len(tree.missing(self._draft.recipes.values(), self._stored))

    def needing(self, stage: Stage) -> list[Replicate]:
        """Return the replicates that wait for a stage: they pass through it and have not ended."""
        recipes = self._draft.recipes
        return [name for name in self._draft.through(stage.key) if recipes[name].keys[-1] not in self._stored]

    def plan(self, replicates: Iterable[Replicate]) -> list[Stage]:
        """Return the stages that train these replicates, beginning where the store or a planned stage ends.

        Replicates that were given up are left out.
        """
        wanted = [self._draft.to_train(name) for name in replicates if name not in self._given_up]
        stages = tree.stages(wanted, self._stored | self._planned.keys(), self._draft.joints)
        self._planned |= {stage.key: stage for stage in stages}
        return stages

    def cut(self, parts: Collection[Stage]) -> None:
        """Note that a planned stage is trained in parts."""
        self._planned |= {part.key: part for part in parts}  # the last part ends where the stage does

    def planned(self) -> Collection[Stage]:
        """Return the stages that are planned and neither trained nor given up."""
        return self._planned.values()

    def doomed(self, replicates: Iterable[Replicate]) -> dict[Replicate, GivenUp]:
        """Give up the replicates that need a stage whose training has raised, since it would raise again.

        Return them with their records.
        """
        failed = {failure.stage: failure for failure in self._given_up.values()}
        newly_given_up: dict[Replicate, GivenUp] = {}
        for trial, number in replicates:
            keys = self._draft.to_train((trial, number)).keys
            failure = next((failed[key] for key in keys if key in failed), None)
            if failure is not None:
                record = GivenUp(trial, number, failure.reason, failure.traceback, failure.stage)
                newly_given_up[trial, number] = record
        if newly_given_up:
            self._given_up |= newly_given_up
            self._save_failures()
        return newly_given_up

    def save(self, key: str) -> None:
        """Note that a state was saved, and is in the store."""
        self._stored.add(key)
        self._saved.add(key)
        self._planned.pop(key, None)

    def fail(self, stage: Stage, failure: Failure) -> list[Replicate]:
        """Note that a stage and the stages below it are not trained. Return the replicates that wait for it.

        A failure that may not happen again at the next start is not recorded in the store.
        """
        affected = self.needing(stage)
        for below in [stage, *tree.descendants(stage.key, self._planned.values())]:
            self._planned.pop(below.key, None)
        if failure.damaged:
            self._stored.discard(failure.damaged)
            self._saved.discard(failure.damaged)
        for trial, number in affected:
            if failure.for_good:
                self._given_up[trial, number] = GivenUp(trial, number, failure.reason, failure.traceback, stage.key)
            else:
                self.lost[trial, number] = failure
        if failure.for_good:
            with suppress(StudyError):  # the disk is full: without the record, the next start tries again
                self._save_failures()
        return affected

    def try_again(self) -> list[Replicate]:
        """Forget the replicates that were given up, also of points that are no longer refused. Return them."""
        given_up = list(self._given_up)
        if given_up:
            self._given_up = {}
            self._save_failures()
        valid = self._draft.retry_refused()
        if valid:
            self.save_plan()
        return [*given_up, *valid]

    def save_plan(self) -> None:
        """Write the plan, which has grown."""
        self._claim()
        records.save_plan(self._store, self._draft.plan)

    def _save_failures(self) -> None:
        self._claim()
        records.save_failures(self._store, self._draft.plan.run, self._given_up)

    def settle(self) -> None:
        """Write the plan and the failures again if another driver, which had lost the run, wrote its own late."""
        run = self._draft.plan.run
        with suppress(StudyError):  # a store that is away keeps what it has
            try:
                plan = records.load_plan(self._store, run)
            except (Damaged, Refusal):
                plan = None
            if plan != self._draft.plan:
                self.save_plan()
            if records.failures(self._store, run) != self._given_up:
                self._save_failures()

    def look_again(self) -> int:
        """Read the names of the stored states again, because workers save states while they are stopped.

        Return the number of states that this start has noted as saved, and that are not in the store.
        """
        self._stored = self._store.keys()
        return len(self._saved - self._stored)

    def trained(self) -> int:
        """Return the number of states that need no training because this run has trained them, by their headers.

        Headers that say nothing about it, or cannot be read, count as those of other runs.
        """
        run, keys = self._draft.plan.run, set[str]()
        for name, recipe in self._draft.recipes.items():
            last = self.deepest(name)
            if last is None or last in keys:
                continue
            with suppress(StudyError, FileNotFoundError, KeyError):
                parts = self._store.header(last)["provenance"]
                ends = [part["from_epoch"] for part in parts[1:]] + [recipe.keys.index(last)]
                for part, end in zip(parts, ends, strict=False):
                    if part["run"] == run:
                        keys.update(recipe.keys[part["from_epoch"] + 1 : end + 1])
        return len(keys)

    def deepest(self, replicate: Replicate) -> str | None:
        """Return the last state of a replicate that is stored; None if there is none."""
        return next((key for key in reversed(self._draft.recipes[replicate].keys[1:]) if key in self._stored), None)
