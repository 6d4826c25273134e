"""The cost of a run before it is trained. Planning trains and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from study.errors import Damaged
from study.home import Home
from study.intent import Given, intend
from study.planning import replication, tree
from study.planning.draft import Draft, Replicate
from study.space import Resolved
from study.store.states import Store
from study.wish import Wish

if TYPE_CHECKING:
    import pandas as pd


_COLUMNS = ("space", "trial", "replicates", "epochs", "complete")  # of a frame, beside the axes


@dataclass(frozen=True, repr=False)
class Plan:
    """A run before it is trained: its trials, and the epochs that they cost.

    `print(plan)` shows it as `study run --dry-run` does.

    Attributes:
        run: the name of the run.
        spaces: the names of its spaces.
        trials: the names of its trials, without those that an open search will find.
        epochs_naive: epochs of all replicates if each is trained separately.
        epochs_needed: epochs if shared prefixes are trained once.
        epochs_to_train: epochs of `epochs_needed` whose states are not stored yet.
        left_out: the spaces that `all` leaves out, with the reasons.
        obstacles: why the run would be refused now: what this machine, its servers or its data lack.
    """

    run: str
    spaces: tuple[str, ...]
    trials: tuple[str, ...]
    epochs_naive: int
    epochs_needed: int
    epochs_to_train: int
    left_out: Mapping[str, str]
    obstacles: tuple[str, ...]
    _draft: Draft
    _store: Store | None
    _stored: frozenset[str]

    @classmethod
    def of(cls, wish: Wish, home: Home, services: Given, download: bool, verify: bool, retrain: bool) -> Plan:
        """Plan a run; a store is read if there is one. The arguments are those of `study.launch.run`.

        Raises:
            Refusal: as the run, except for what this machine, its servers or its data lack: these are obstacles.
        """
        intent = intend(wish, home, services, download, verify, retrain, say=lambda _line: None, briefly=True, dry=True)
        draft, store, stored = intent.drafted, intent.store, frozenset[str]()
        if store is not None:
            stored = frozenset(store.keys())
        recipes = list(draft.recipes.values())
        return cls(
            run=draft.plan.run,
            spaces=tuple(space.name for space in draft.plan.spaces),
            trials=tuple(trial.name for trial in draft.plan.trials),
            epochs_naive=sum(len(recipe.epochs) for recipe in recipes),
            epochs_needed=draft.plan.epochs_needed,
            epochs_to_train=len(tree.missing(recipes, stored)),
            left_out=draft.left_out,
            obstacles=tuple(intent.obstacles()),
            _draft=draft,
            _store=store,
            _stored=stored,
        )

    @cached_property
    def seconds_to_train(self) -> float | None:
        """Estimated worker-seconds of `epochs_to_train`. Divided by the number of workers, they are the wall time.

        The estimate uses the median time of the stored epochs of the same trial or, if it has none, of this plan. None
        if no epoch of this plan is stored.
        """
        if not self.epochs_to_train:
            return 0.0
        by_trial: dict[str, list[float]] = {}
        for (trial, _), recipe in self._draft.recipes.items():
            by_trial.setdefault(trial, []).extend(self._wall_seconds(recipe))
        measured = [seconds for epochs in by_trial.values() for seconds in epochs]
        if not measured:
            return None
        total, counted = 0.0, set[str]()
        for (trial, _), recipe in self._draft.recipes.items():
            new = tree.missing([recipe], self._stored) - counted
            total += len(new) * median(by_trial[trial] or measured)
            counted |= new
        return total

    def _wall_seconds(self, recipe: Resolved) -> list[float]:
        """Return the seconds of each epoch of a recipe that is stored."""
        for key in reversed(recipe.keys[1:]):
            if self._store is not None and key in self._stored:
                try:
                    return list(self._store.measures(key)["wall_seconds"])
                except (FileNotFoundError, Damaged):
                    continue
        return []

    def frame(self) -> pd.DataFrame:
        """Return one row per trial: `space`, `trial`, axes, `replicates`, `epochs` of each, `complete` replicates."""
        import pandas as pd

        return pd.DataFrame(
            {
                "space": trial.space,
                "trial": trial.label,
                **{f"axes.{name}" if name in _COLUMNS else name: value for name, value in trial.trial.axes.items()},
                "replicates": len(trial.ends),
                "epochs": trial.epochs,
                "complete": self._complete(trial.ends),
            }
            for trial in self._draft.plan.trials
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON holds it, with the configuration of each trial."""
        plan, recipes = self._draft.plan, self._draft.recipes.values()
        return {
            "study": plan.study,
            "run": plan.run,
            "trials": [
                {
                    "trial": trial.name,
                    "config": trial.trial.config,
                    "axes": trial.trial.axes,
                    "replicates": list(trial.by_replicate),
                    "seeds": list(trial.seeds),
                    "epochs": trial.epochs,
                }
                for trial in plan.trials
            ],
            "spaces": {name: self._cost(name) for name in self.spaces},
            "searches": {space.name: space.search.trials for space in plan.spaces if space.search is not None},
            "trials_total": len(recipes),
            "trials_distinct": len({recipe.keys[-1] for recipe in recipes}),
            "epochs_naive": self.epochs_naive,
            "epochs_needed": self.epochs_needed,
            "epochs_to_train": self.epochs_to_train,
            "seconds_to_train": self.seconds_to_train,
            "device": plan.machine.device,
            "gpus": plan.resources.gpus,
            "threads": plan.machine.threads,
            "ranks": plan.machine.ranks,
            "precision": self._precisions(),
            "left_out": dict(self.left_out),
            "obstacles": list(self.obstacles),
        }

    def __str__(self) -> str:
        plan, lines = self._draft.plan, []
        width = max((len(trial.name) for trial in plan.trials), default=0)
        for trial in plan.trials:
            complete = self._complete(trial.ends)
            lines.append(f"{trial.name:{width}}  {len(trial.ends)} × {trial.epochs} epochs, {complete} complete")
        for space in plan.spaces:
            trials = [trial for trial in plan.trials if trial.space == space.name]
            trials += [] if space.search is None else self._draft.expected(space)
            lines += [f"{space.name}: {words}" for words in replication.lines(trials, space.search is not None)]
            if space.search is not None:
                planned = len(plan.points(space))
                dimensions = "; ".join(f"{name}: {dimension}" for name, dimension in space.domain.items())
                lines.append(f"{space.name}: {space.search.trials} points ({planned} planned) over {dimensions}")
        if len(plan.spaces) > 1:
            costs = {name: self._cost(name) for name in self.spaces}
            for name, cost in costs.items():
                lines.append(f"{name}: {cost['epochs_naive']} epochs, {cost['epochs_needed']} after sharing prefixes")
        recipes = self._draft.recipes.values()
        distinct = len({recipe.keys[-1] for recipe in recipes})
        lines.append(
            f"run {self.run}: {len(recipes)} trainings ({distinct} distinct), {self.epochs_naive} epochs, "
            f"{self.epochs_needed} after sharing prefixes, {self.epochs_to_train} to train"
        )
        if self.epochs_to_train and self.seconds_to_train is not None:
            lines.append(f"about {self.seconds_to_train:.0f} s for one worker, estimated from stored epochs")
        gpus = f", {plan.resources.gpus:g} GPUs per trial" if plan.resources.gpus else ""
        lines.append(f"device {plan.machine.device}{gpus}, precision {', '.join(self._precisions())}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _complete(self, ends: Iterable[str]) -> int:
        return sum(end in self._stored for end in ends)

    def _precisions(self) -> list[str]:
        machine, work = self._draft.plan.machine, self._draft.work
        points = [work.resolve(config, 0, machine) for config in self._draft.bases]
        recipes = (*self._draft.recipes.values(), *points)
        return sorted({recipe.origin.get("precision", machine.precision) for recipe in recipes})

    def _cost(self, space: str) -> dict[str, int]:
        """Return the cost of one space of the plan, without sharing with the others."""

        def belongs(replicate: Replicate) -> bool:
            return self._draft.trial(replicate).space == space

        recipes = [recipe for replicate, recipe in self._draft.recipes.items() if belongs(replicate)]
        naive = sum(len(recipe.epochs) for recipe in recipes)
        return {"trainings": len(recipes), "epochs_naive": naive, "epochs_needed": len(tree.nodes(recipes))}
