"""An open search in a report: its points, its champions, the importances of its dimensions, and its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from study.planning.stored import PlannedSpace, PlannedTrial
from study.report.exhibits import Figure, Table
from study.report.results import Result
from study.report.statistics import mean, std
from study.search.objectives import front

SHOWN = 10  # the most points in a table
# The least number of distinct points for importances. With fewer, chance decides: of random points of a function in
# which three dimensions have the shares 0.8, 0.2 and 0, fANOVA names the right first one in 14 of 25 cases with 4
# points, in 19 with 8, in 24 with 10 and in 25 with 15.
IMPORTANCE_NEEDS = 10


class Searched:
    """An open search's result.

    Args:
        space: the search's space.
        results: the results of its points and champions, in the order of the plan.
        values: the objectives of each of these trials, means over replicates; None if it is not complete.
        reported: by champion and measure, the reported values, one for each replicate.
    """

    def __init__(
        self,
        space: PlannedSpace,
        results: Sequence[Result],
        values: Sequence[Sequence[float] | None],
        reported: Mapping[str, Mapping[str, Sequence[float]]],
    ) -> None:
        self.space, self._reported = space, reported
        self.stopped = sum(result.planned.stopped for result in results)
        pairs = zip(results, values, strict=True)
        complete = [
            (result, objectives)
            for result, objectives in pairs
            if objectives is not None and not result.planned.stopped
        ]
        self.planned = sum(not result.planned.champion_of for result in results)
        self.champions = [(result, objectives) for result, objectives in complete if result.planned.champion_of]
        self.points = [(result, objectives) for result, objectives in complete if not result.planned.champion_of]
        self.distinct = len({result.planned.ends for result, _ in self.points})
        self.failed = [result for result in results if result.failures and not result.planned.champion_of]

    def exhibits(self) -> list[Table | Figure]:
        """Return a table of the best points with notes on the search and, from two points on, a picture of it."""
        head, body = self._grid()
        table = Table(self.space.title, head, body, [self._points_note(), *self._search_notes()])
        figures = [self._figure()] if len(self.points) > 1 else []
        return [table, *self._failed_table(), *figures]

    def _failed_table(self) -> list[Table]:
        """Return a table of the first failed points with their values and the reasons, if there are any."""
        if not self.failed:
            return []
        body = [
            [
                result.trial.label,
                *(_short(result.trial.axes[name]) for name in self.space.domain),
                next(iter(result.failures.values())),
            ]
            for result in self.failed[:SHOWN]
        ]
        more = len(self.failed) - len(body)
        notes = [f"{more} more failed points are in the report's JSON."] if more else []
        return [Table(f"{self.space.title}: failed points", ["", *self.space.domain, "reason"], body, notes)]

    def _grid(self) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows of the best points: their labels, dimensions and objectives."""
        ranked = sorted(self.points, key=lambda point: [-value for value in point[1]])[:SHOWN]
        head = ["", *self.space.domain, *self.space.objectives]
        body = [
            [
                result.trial.label,
                *(_short(result.trial.axes[name]) for name in self.space.domain),
                *(f"{value:.1f}" for value in objectives),
            ]
            for result, objectives in ranked
        ]
        return head, body

    def _search_notes(self) -> list[str]:
        """Return notes on each champion, the importances and the history."""
        leading = [planned.trial.config for planned in self.front()]
        current = [result for result, _ in self.champions if result.trial.config in leading]
        current.sort(key=lambda result: leading.index(result.trial.config))
        earlier = [result for result, _ in self.champions if result.trial.config not in leading]
        lines = [f"Best: {self._champion(result)}." for result in current]
        lines += [f"Earlier best: {self._champion(result)}." for result in earlier]
        importances = self.importances
        if importances:
            shares = ", ".join(f"{name} {share:.2f}" for name, share in importances.items())
            lines.append(f"Importance for {self.space.objectives[0]} (fANOVA, shares of 1): {shares}.")
        elif 0 < self.distinct < IMPORTANCE_NEEDS:
            distinct = f"{self.distinct} of {len(self.points)} {'is' if self.distinct == 1 else 'are'} distinct"
            lines.append(f"Importance needs at least {IMPORTANCE_NEEDS} distinct points ({distinct}).")
        history = [f"{best:.1f} at {label}" for label, best, new in self.history() if new]
        if history:
            lines.append(f"History of the best {self.space.objectives[0]}: {', '.join(history)}.")
        return lines

    def _points_note(self) -> str:
        """Return a note on the points in the table and on those that are not."""
        assert self.space.search is not None
        counts = {len(result.headers) for result, _ in self.points} or {0}
        n = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        rows = min(SHOWN, len(self.points))
        points = "1 complete point" if len(self.points) == 1 else f"{len(self.points)} complete points"
        points += f", {self.distinct} of which are distinct" if self.distinct < len(self.points) else ""
        stopped = f", {self.stopped} stopped early" if self.stopped else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return (
            f"The best {rows} of {points} (of {self.space.search.trials} in all{stopped}{failed}), in % after the "
            f"last epoch, n = {n} {'replicate' if n == '1' else 'replicates'}. The best point is chosen by "
            f"{' and '.join(self.space.objectives)}."
        )

    def front(self) -> list[PlannedTrial]:
        """Return the best point or, with several objectives, the Pareto front."""
        return front([(result.planned, objectives) for result, objectives in self.points])

    def history(self) -> list[tuple[str, float, bool]]:
        """Return, for each complete point, its label, the best first objective so far, and whether it is new."""
        rows, best = [], float("-inf")
        for result, objectives in self.points:
            new, best = objectives[0] > best, max(best, objectives[0])
            rows.append((result.trial.label, best, new))
        return rows

    @cached_property
    def importances(self) -> dict[str, float]:
        """The share of each dimension in the variance of the first objective (fANOVA, Hutter et al., 2014).

        Empty with fewer than `IMPORTANCE_NEEDS` distinct points, or if all points have the same objective.
        """
        if self.distinct < IMPORTANCE_NEEDS or len({objectives[0] for _, objectives in self.points}) < 2:
            return {}
        import optuna

        from study.search.studies import distribution

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="maximize")
        distributions = {name: distribution(domain) for name, domain in self.space.domain.items()}
        for result, objectives in self.points:
            params = {name: result.trial.axes[name] for name in distributions}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=objectives[0]))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

    def to_json(self) -> dict[str, Any]:
        """Return the search for a report's JSON."""
        assert self.space.search is not None
        return {
            "space": self.space.name,
            "objectives": list(self.space.objectives),
            "trials": self.space.search.trials,
            "planned": self.planned,
            "ended": len(self.points),
            "stopped": self.stopped,
            "distinct": self.distinct,
            "failed": [
                {
                    "trial": result.trial.label,
                    **{name: result.trial.axes[name] for name in self.space.domain},
                    "reasons": dict(result.failures),
                }
                for result in self.failed
            ],
            "best": [trial.label for trial in self.front()],
            "points": [
                {
                    "trial": result.trial.label,
                    **{name: result.trial.axes[name] for name in self.space.domain},
                    "values": list(objectives),
                }
                for result, objectives in self.points
            ],
            "champions": [
                {
                    "trial": result.trial.label,
                    "champion_of": result.planned.champion_of,
                    "n": len(result.planned.ends),
                    **{
                        name: {"mean": mean(values), "std": std(values), "values": list(values)}
                        for name, values in self._reported[result.trial.label].items()
                    },
                }
                for result, _ in self.champions
            ],
            "importances": self.importances,
            "history": [{"trial": label, "best": best} for label, best, _ in self.history()],
        }

    def _figure(self) -> Figure:
        """Return a figure of the optimisation history and, if there are importances, of them."""
        objective, importances = self.space.objectives[0], self.importances
        best = [best for _, best, _ in self.history()]

        def draw(figure: Any) -> None:
            left, *others = figure.subplots(1, 2, width_ratios=(2, 1)) if importances else [figure.subplots()]
            firsts = [objectives[0] for _, objectives in self.points]
            left.scatter(range(len(self.points)), firsts, s=9, label="point")
            left.step(range(len(best)), best, where="post", color="black", label="best so far")
            left.set_xlabel("complete points")
            left.set_ylabel(f"{objective} in %")
            left.legend()
            for right in others:
                right.barh(list(importances)[::-1], list(importances.values())[::-1])
                right.set_xlabel("importance")

        caption = f"{objective} of each point, in %, and the best so far."
        if importances:
            caption = f"Left: {caption} Right: the share of each dimension in its variance (fANOVA)."
        rows: list[list[str | float]] = [
            [result.trial.label, objectives[0], best_so_far]
            for (result, objectives), best_so_far in zip(self.points, best, strict=True)
        ]
        head = ["point", objective, "best so far"]
        return Figure(self.space.name, f"{self.space.title}: history", caption, draw, head, rows, (7.0, 2.8))

    def _champion(self, result: Result) -> str:
        measures = []
        for name, values in self._reported[result.trial.label].items():
            spread = std(values)
            measures.append(f"{name} {mean(values):.1f}" + ("" if spread is None else f" ± {spread:.1f}"))
        dimensions = ", ".join(f"{name} {_short(result.trial.axes[name])}" for name in self.space.domain)
        n = len(result.planned.ends)
        replicates = "n = 1 fresh replicate" if n == 1 else f"mean ± std over n = {n} fresh replicates"
        return f"{result.trial.label} ({dimensions}): {', '.join(measures)}, {replicates}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
