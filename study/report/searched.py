"""What a report says of an open search: its points, its champions, which dimensions mattered, and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from study.planning.stored import PlannedSpace, PlannedTrial
from study.report.exhibits import Figure, Table
from study.report.results import Result
from study.report.statistics import mean, std
from study.search.objectives import front

SHOWN = 10  # points, the best first


class Searched:
    """An open search's result.

    Args:
        space: the search.
        results: of its points and champions, in the order in which they were planned.
        values: the objectives of each of these trials, means over replicates; None if it has not ended.
        reported: by champion and measure, what is reported of it: one value a replicate.
    """

    def __init__(
        self,
        space: PlannedSpace,
        results: Sequence[Result],
        values: Sequence[Sequence[float] | None],
        reported: Mapping[str, Mapping[str, Sequence[float]]],
    ) -> None:
        self.space, self._reported = space, reported
        self.stopped = sum(each.planned.stopped for each in results)
        pairs = zip(results, values, strict=True)
        known = [(each, own) for each, own in pairs if own is not None and not each.planned.stopped]
        self.planned = sum(not each.planned.champion_of for each in results)
        self.champions = [(row, own) for row, own in known if row.planned.champion_of]
        self.points = [(row, own) for row, own in known if not row.planned.champion_of]

    def exhibits(self) -> list[Table | Figure]:
        """The best points, with what else is to be said in the notes; from two points on, a picture of the search."""
        head, body = self._grid()
        table = Table(self.space.title, head, body, [self._counted(), *self._words()])
        return [table, self._figure()] if len(self.points) > 1 else [table]

    def _grid(self) -> tuple[list[str], list[list[str]]]:
        """The best points: their number, dimensions and objectives."""
        ranked = sorted(self.points, key=lambda each: [-value for value in each[1]])[:SHOWN]
        head = ["", *self.space.domain, *self.space.objectives]
        body = [
            [row.trial.label, *(_short(row.trial.axes[name]) for name in self.space.domain), *(f"{v:.1f}" for v in own)]
            for row, own in ranked
        ]
        return head, body

    def _words(self) -> list[str]:
        """Champions, importances and history, a line each."""
        leading = [planned.trial.config for planned in self.front()]
        current = [row for row, _ in self.champions if row.trial.config in leading]
        current.sort(key=lambda row: leading.index(row.trial.config))
        earlier = [row for row, _ in self.champions if row.trial.config not in leading]
        lines = [self._champion(row) for row in current] + [f"earlier {self._champion(row)}" for row in earlier]
        importances = self.importances
        if importances:
            shown = ", ".join(f"{name} {share:.2f}" for name, share in importances.items())
            lines.append(f"importance for {self.space.objectives[0]} (fANOVA; shares of 1): {shown}")
        history = [f"{best:.1f} at {label}" for label, best, new in self.history() if new]
        if history:
            lines.append(f"best {self.space.objectives[0]} so far: {', '.join(history)}")
        return lines

    def _counted(self) -> str:
        """What the grid shows."""
        assert self.space.search is not None
        counts = {len(row.headers) for row, _ in self.points} or {0}
        n = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        shown = min(SHOWN, len(self.points))
        stopped = f", {self.stopped} more stopped early" if self.stopped else ""
        return (
            f"The best {shown} of {len(self.points)} points that have ended (of {self.space.search.trials}{stopped}), "
            f"in %, after the last epoch, n = {n}; chosen by {' and '.join(self.space.objectives)}."
        )

    def front(self) -> list[PlannedTrial]:
        """The best point, or the Pareto front."""
        return front([(row.planned, own) for row, own in self.points])

    def history(self) -> list[tuple[str, float, bool]]:
        """Each point that has ended, the best first objective up to it, and whether it is new."""
        found, best = [], float("-inf")
        for row, own in self.points:
            new, best = own[0] > best, max(best, own[0])
            found.append((row.trial.label, best, new))
        return found

    @cached_property
    def importances(self) -> dict[str, float]:
        """The share of each dimension in the variance of the first objective (fANOVA, Hutter et al., 2014)."""
        if len({own[0] for _, own in self.points}) < 2:
            return {}
        import optuna

        from study.search.studies import distribution

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="maximize")
        distributions = {name: distribution(domain) for name, domain in self.space.domain.items()}
        for row, own in self.points:
            params = {name: row.trial.axes[name] for name in distributions}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=own[0]))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def to_json(self) -> dict[str, Any]:
        """The search in a report's JSON."""
        assert self.space.search is not None
        return {
            "space": self.space.name,
            "objectives": list(self.space.objectives),
            "trials": self.space.search.trials,
            "planned": self.planned,
            "ended": len(self.points),
            "stopped": self.stopped,
            "best": [trial.label for trial in self.front()],
            "points": [
                {
                    "trial": row.trial.label,
                    **{name: row.trial.axes[name] for name in self.space.domain},
                    "values": list(own),
                }
                for row, own in self.points
            ],
            "champions": [
                {
                    "trial": row.trial.label,
                    "champion_of": row.planned.champion_of,
                    "n": len(row.planned.ends),
                    **{
                        name: {"mean": mean(values), "std": std(values), "values": list(values)}
                        for name, values in self._reported[row.trial.label].items()
                    },
                }
                for row, _ in self.champions
            ],
            "importances": self.importances,
            "history": [{"trial": label, "best": best} for label, best, _ in self.history()],
        }

    def _figure(self) -> Figure:
        """The optimisation history and the importances."""
        objective, importances = self.space.objectives[0], self.importances
        best = [best for _, best, _ in self.history()]

        def draw(figure: Any) -> None:
            left, right = figure.subplots(1, 2, width_ratios=(2, 1))
            left.scatter(range(len(self.points)), [own[0] for _, own in self.points], s=9, label="point")
            left.step(range(len(best)), best, where="post", color="black", label="best so far")
            left.set_xlabel("points that have ended")
            left.set_ylabel(f"{objective} in %")
            left.legend()
            right.barh(list(importances)[::-1], list(importances.values())[::-1])
            right.set_xlabel("importance")

        caption = f"Left: {objective} of each point, in %, and the best so far. Right: shares in its variance (fANOVA)."
        rows: list[list[str | float]] = [
            [row.trial.label, own[0], top] for (row, own), top in zip(self.points, best, strict=True)
        ]
        head = ["point", objective, "best so far"]
        return Figure(self.space.name, f"{self.space.title}: history", caption, draw, head, rows, (7.0, 2.8))

    def _champion(self, row: Result) -> str:
        shown = []
        for name, values in self._reported[row.trial.label].items():
            spread = std(values)
            shown.append(f"{name} {mean(values):.1f}" + ("" if spread is None else f" ± {spread:.1f}"))
        schedule = ", ".join(f"{name} {_short(row.trial.axes[name])}" for name in self.space.domain)
        n = len(row.planned.ends)
        return f"{row.trial.label} ({schedule}): {', '.join(shown)}, mean ± std over n = {n} fresh replicates"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
