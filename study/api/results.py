"""A run in Python: data frames, comparisons, trained models, its report, and its records in Optuna and MLflow."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import catalog, modules
from study.api import logs
from study.errors import Damaged, Refusal
from study.home import Home
from study.planning.replication import Crossing
from study.planning.stored import Plan, PlannedSpace, PlannedTrial
from study.space import Json, Space
from study.store import records, starts
from study.store.states import Store
from study.store.status import Status
from study.whereabouts import home_of, recorded

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from mlflow.entities import Experiment

    from study.report.report import Report
    from study.report.results import Result, Results


@dataclass(frozen=True)
class Comparison:
    """The paired difference between two trials over the replicates that both have.

    Attributes:
        better, worse: the trials; the difference is the first minus the second.
        measure: what is compared, after the last epoch.
        n: the number of pairs.
        mean: the mean difference, in the unit of the measure.
        low, high: the ends of its 95 % t-interval; None for fewer than two pairs.
        p: the p-value of a two-sided t-test against 0, not adjusted for other comparisons; None for fewer than five
            pairs.
    """

    better: str
    worse: str
    measure: str
    n: int
    mean: float
    low: float | None
    high: float | None
    p: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None else f", 95 % interval {self.low:+.3g} to {self.high:+.3g}"
        p = "" if self.p is None else f", p = {self.p:.2g}"
        return f"{self.better} − {self.worse}, {self.measure}: {self.mean:+.3g}{interval}, n = {self.n}{p}"


class Run:
    """A stored run, complete or not. Every method reads the store again, so a run that is being trained can be watched.

    In a notebook, a run shows its report.

    Args:
        home: the home that holds its files.
        store: the store that holds its states.
        name: its name.
        space: only this one of its spaces; None for all.
        outcome: of the start that returns the run, if one does.
    """

    def __init__(self, home: Home, store: Store, name: str, space: str | None = None, outcome: str = "") -> None:
        self._home, self._store, self._space, self._outcome = home, store, space, outcome
        self.name = name

    def __repr__(self) -> str:
        only = f", space {self._space}" if self._space else ""
        return f"<study.Run {self.name}{only}: {self.status().outcome}>"

    def _repr_html_(self) -> str:
        return self.compiled().html_fragment()

    @property
    def home(self) -> Path:
        """The folder that holds the run's files: the argument `home` of `study.load`."""
        return self._home.path

    @property
    def command_options(self) -> str:
        """The options with which the command line finds the run again: "" for the run's default home."""
        return self._home.options()

    @property
    def outcome(self) -> str:
        """How the start that returned this run ended: complete, failed or interrupted; of a loaded run see `status`."""
        return self._outcome or self.status().outcome

    @property
    def spaces(self) -> list[str]:
        """The names of its spaces."""
        return [space.name for space in self._spaces(self._plan())]

    @property
    def trials(self) -> list[str]:
        """The names of its trials, each with its space: ``table9/IB⇒CR (digits-LT IF 50)``."""
        return [trial.name for trial in self._planned(self._plan())]

    def space(self, name: str) -> Run:
        """Return the same run, limited to one of its spaces."""
        names = [space.name for space in self._plan().spaces]
        if name not in names:
            raise Refusal("space", name, f"run {self.name!r} has no space {name!r}. It has {', '.join(names)}")
        return Run(self._home, self._store, self.name, name)

    def status(self) -> Status:
        """Return how far the run is, with all of its spaces: counts of replicates and epochs, and the outcome.

        The outcome is planned, running, complete, failed, interrupted or forgotten.
        """
        return Status.of(self._store, self._plan(), self._store.sizes())

    def failures(self) -> dict[tuple[str, int], str]:
        """Return why replicates failed, by the trial's name and the replicate's number."""
        names = set(self.trials)
        failures = records.given_up(self._store, self._plan()).items()
        return {replicate: failure.reason for replicate, failure in failures if replicate[0] in names}

    def stop(self, now: bool = False) -> str:
        """Ask the process that trains the run to stop, on any machine, and return the process and its host as text.

        Args:
            now: stop at once: workers do not finish their epoch.

        Raises:
            Refusal: if no process trains it.
        """
        driver = starts.request_stop(self._store, self.name, now)
        return f"process {driver.pid} on {driver.host}"

    def logs(self, trial: str | None = None) -> str:
        """Return the lines that the drivers of the run printed, those of the last start at the end; times are in UTC.

        Args:
            trial: return instead why replicates of this trial failed, with the tracebacks: a part of its name that no
                other trial has, and perhaps the number of a replicate: ``IB⇒CR r1``.

        Raises:
            Refusal: if there is no such trial, or there are several.
        """
        plan = self._plan()
        if trial is None:
            return "\n".join(logs.lines(self._store, plan.run))
        return logs.failures(self._store, plan, self._planned(plan), trial)

    def follow(self) -> Iterator[str]:
        """Yield the lines of `logs`, and further ones as they come, until the process that trains the run ends."""
        return logs.follow(self._store, self.name)

    def report(self, format: str = "table") -> str:  # noqa: A002
        """Return the report: ``table``, ``markdown``, ``csv`` (one line per value), ``json`` or ``html`` (a page)."""
        return self.compiled().render(format)

    def figures(self) -> dict[str, bytes | str]:
        """Return the report's figures by file name: a PNG of each, and its data as CSV."""
        return self.compiled().figures()

    def compiled(self) -> Report:
        """Return the report as an object: one reading of the store, for several formats and its `problems`."""
        from study.report.report import Report

        return Report.of(self._store, self._plan(), self._space)

    def frame(self) -> pd.DataFrame:
        """Return a frame with one row per replicate, complete or not.

        Columns: `run`, `space`, `trial`, `replicate`, `state` (the name of its last state), `status` (complete, stopped
        early, failed or waiting); then every axis, and every parameter that differs between the rows, as MLflow
        shows it; then all measures of the last epoch under MLflow's names, NaN where the replicate is not complete. An
        axis or parameter that has the name of another column is called ``axes.NAME`` or ``params.NAME``.

        The parameters come from the space's function: its file, or the source of a notebook's function that the plan
        holds, is executed. Load only the runs of people whom you trust.

        Raises:
            Refusal: if the space's function is gone, or raises.
        """
        import pandas as pd

        from study.tracking import shown

        plan, failed = self._plan(), self.failures()
        works = {space.name: self._space_of(plan, space).work for space in self._spaces(plan)}
        rows, parameters, measures = [], [], []
        for space, result in self._results(plan):
            work, trial = works[space.name], result.planned
            for number, end in trial.by_replicate.items():
                complete = number in result.headers
                status = "stopped early" if complete and trial.stopped else "complete" if complete else "waiting"
                if not complete and (trial.name, number) in failed:
                    status = "failed"
                row = {"run": plan.run, "space": space.name, "trial": trial.label, "replicate": number}
                row |= {"state": end, "status": status}
                axes = trial.trial.axes.items()
                rows.append({**row, **{f"axes.{name}" if name in row else name: value for name, value in axes}})
                shown_parameters = {} if trial.refused else work.parameters(trial.trial.config, number, plan.machine)
                parameters.append(_plain(shown_parameters))
                last = result.headers[number]["measures"][-1] if complete else {}
                measures.append(shown.values(work, last, last=True))
        taken = {name for row in rows for name in row}
        measured = list(dict.fromkeys(name for row in measures for name in row))
        differing = [
            name
            for name in dict.fromkeys(name for row in parameters for name in row)
            if name not in taken and len({row.get(name) for row in parameters}) > 1
        ]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        frame = pd.DataFrame(rows, columns=columns)
        curves = {name for work in works.values() for name in work.curves}
        renamed = {name: f"params.{name}" if name in {*measured, *curves} else name for name in differing}
        more = pd.DataFrame(
            [{renamed[name]: row.get(name) for name in differing} for row in parameters], columns=list(renamed.values())
        )
        return pd.concat([frame, more, pd.DataFrame(measures, columns=measured, dtype=float)], axis=1)

    def curves(self, *measures: str | Sequence[str]) -> pd.DataFrame:
        """Return measures after each epoch of the replicates that are complete, in long form.

            run.curves("test/top1").groupby(["trial", "epoch"])["value"].mean().unstack(0).plot()

        The columns are `space`, `trial`, `replicate`, `epoch` (from 0, as MLflow's step), `measure` and `value`. An
        epoch without a measure has no row for it.

        Args:
            measures: names, or lists of names; none for the measure that each trial's row in its table shows.

        Raises:
            Refusal: if no epoch has a measure of this name.
        """
        import pandas as pd

        rows, known = [], set[str]()
        names = [name for each in measures for name in ([each] if isinstance(each, str) else each)]
        for space, result in self._results(self._plan()):
            for name in names or (result.trial.measure,):
                for number, values in result.curve(name).items():
                    known |= {key for epoch in result.headers[number]["measures"] for key in _numbers(epoch)}
                    rows += [
                        (space.name, result.planned.label, number, epoch, name, value)
                        for epoch, value in enumerate(values)
                        if isinstance(value, int | float)
                    ]
        for name in names:
            if known and name not in known:
                raise Refusal("measure", name, _unknown("measure", name, sorted(known)))
        return pd.DataFrame(rows, columns=["space", "trial", "replicate", "epoch", "measure", "value"])

    def compare(self, better: str, worse: str, measure: str = "", column: str = "") -> Comparison:
        """Return the paired difference between two trials, with its 95 % interval.

            print(run.compare("IB⇒CR", "IB⇒IB", "test/few"))

        Args:
            better, worse: trials, by name, label, or row of their table.
            measure: the measure to compare, after the last epoch; "" for the one that the table shows for `better`.
            column: the column of the table, if the row has several.

        Raises:
            Refusal: if there is no such trial, no replicate is complete in both, or the replicates are crossed.
        """
        from study.report.statistics import paired

        (_, first), (_, second) = self._find(better, column), self._find(worse, column)
        if Crossing.of(first.planned) or Crossing.of(second.planned):
            raise Refusal(
                "run", self.name, f"the replicates of {self.name!r} are crossed, so pairs are not independent"
            )
        name = measure or first.trial.measure
        values, others = first.last(name), second.last(name)
        for result in (first, second):
            known = sorted({key for header in result.headers.values() for key in _numbers(header["measures"][-1])})
            if known and name not in known:
                raise Refusal("measure", name, _unknown("measure", name, known))
        difference = paired(values, others)
        if difference is None:
            words = f"no replicate of both {better!r} and {worse!r} is complete, so there is nothing to compare"
            raise Refusal("trial", better, words)
        return Comparison(
            first.planned.label,
            second.planned.label,
            name,
            difference.n,
            difference.mean,
            difference.low,
            difference.high,
            difference.p,
        )

    def model(self, trial: str, replicate: int = 0, column: str = "") -> Any:
        """Return the trained model of a replicate: a ``torch.nn.Module`` in evaluation mode, on the CPU.

        It takes pixels from 0 to 1, (B, channels, side, side), and returns logits, (B, C).

        Args:
            trial: the trial's name, label, or row in its table.
            replicate: the number of the replicate.
            column: the column of the table, if the row has several.

        As for `frame`, the space's file, or a source that the plan holds, is executed.

        Raises:
            Refusal: if there is no such trial, the replicate is not complete, or `study clean` dropped its tensors.
        """
        space, result = self._find(trial, column)
        plan = self._plan()
        work = self._space_of(plan, space).work
        if work.model is None:
            raise Refusal("trial", trial, f"space {space.name!r} offers no model in Python (got trial {trial!r})")
        return work.model(result.trial.config, self._payload(result, replicate))

    def predictions(self, trial: str, replicate: int = 0, column: str = "") -> pd.DataFrame:
        """Return the prediction for each test image after the last epoch: `image`, `label`, `prediction`, `correct`.

        Labels are ranks of classes: 0 is the class with the most training images.

        Args:
            trial, replicate, column: see `model`.

        Raises:
            Refusal: as `model`; also if the trial stored no predictions.
        """
        import pandas as pd
        from safetensors.numpy import load

        _, result = self._find(trial, column)
        tensors = load(self._payload(result, replicate))
        if "observed.predictions" not in tensors:
            raise Refusal("trial", trial, f"trial {trial!r} stored no predictions")
        frame = pd.DataFrame(
            {"label": tensors["observed.test_labels"], "prediction": tensors["observed.predictions"]}
        ).rename_axis("image")
        frame["correct"] = frame["label"] == frame["prediction"]
        return frame.reset_index()

    def best(self) -> pd.DataFrame:
        """Return the best point of an open search, or with several objectives its Pareto front; the best first.

        The columns are `trial`, each dimension, each objective (its mean over the point's replicates) and `replicates`.
        The best point was selected by these values, so they are optimistic. The report has the values of the champion,
        the best point trained again under fresh seeds.

        Raises:
            Refusal: if the run has no open search, or several.
        """
        import pandas as pd

        searches = self.compiled().searches
        if not searches:
            words = f"run {self.name!r} has no open search. 'run.report()' shows its tables"
            raise Refusal("run", self.name, words)
        if len(searches) > 1:
            words = f"run {self.name!r} has several open searches: {', '.join(searches)}. Choose with run.space(name)"
            raise Refusal("run", self.name, words)
        (search,) = searches.values()
        values = {result.planned.name: objectives for result, objectives in search.points}
        rows = [
            {
                "trial": trial.label,
                **{name: trial.trial.axes[name] for name in search.space.domain},
                **dict(zip(search.space.objectives, values[trial.name], strict=True)),
                "replicates": len(trial.ends),
            }
            for trial in search.front()
        ]
        return pd.DataFrame(rows, columns=["trial", *search.space.domain, *search.space.objectives, "replicates"])

    @property
    def optuna_study(self) -> optuna.Study:
        """The Optuna study of the run, for `optuna.visualization` and the like.

        Raises:
            Refusal: if the run has several spaces (`run.space(name).optuna_study` is one's), or Optuna has no study.
        """
        from study.search import studies

        plan = self._plan()
        spaces = self._spaces(plan)
        if len(spaces) > 1:
            names = ", ".join(space.name for space in spaces)
            raise Refusal(
                "space", names, f"run {self.name!r} has a study for each of {names}. Choose with run.space(name)"
            )
        return studies.load(plan, spaces[0], self._services(plan)[1], self.command_options)

    @property
    def mlflow_experiment(self) -> Experiment:
        """The MLflow experiment of the run; its id goes into `mlflow.search_runs`.

        The tracking URI of MLflow is set to the run's, so that `mlflow`'s functions find it.

        Raises:
            Refusal: if MLflow has no experiment of this run.
        """
        import study.tracking.runs  # sets MLflow's environment before it is imported
        import mlflow  # isort: skip

        uri = self._services(self._plan())[0]
        hint = f"'study resume {self.name}{self.command_options}' records the run again"
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            words = f"{uri} does not exist. {hint}"
            raise Refusal("--tracking-uri", uri, words)
        study.tracking.runs.use_tracking_uri(uri)
        experiment = mlflow.MlflowClient(uri).get_experiment_by_name(self.name)
        if experiment is None:
            words = f"MLflow has no experiment {self.name!r} yet. {hint}"
            raise Refusal("run", self.name, words)
        return experiment

    def _services(self, plan: Plan) -> tuple[str, str]:
        """Return the URLs of MLflow and Optuna."""
        chosen = recorded(plan)
        home = home_of(plan, self._home, chosen)
        return home.tracking_uri(chosen[0]), home.storage(chosen[1])

    def _plan(self) -> Plan:
        plan = records.load_plan(self._store, self.name)
        if plan is None:
            raise Refusal("run", self.name, f"run {self.name!r} is no longer in {self._store.shown}")
        return plan

    def _spaces(self, plan: Plan) -> list[PlannedSpace]:
        return [space for space in plan.spaces if self._space in (None, space.name)]

    def _planned(self, plan: Plan) -> list[PlannedTrial]:
        names = {space.name for space in self._spaces(plan)}
        return [trial for trial in plan.trials if trial.space in names]

    def _space_of(self, plan: Plan, space: PlannedSpace) -> Space:
        """Call a space's function with the run's request, and return the space.

        Raises:
            Refusal: if its file is gone, or raises.
        """
        modules.hold_all(plan.held)
        function, _ = catalog.find(space.file)
        return catalog.call(function, space.file, plan.request)

    def _results(self, plan: Plan) -> Iterator[tuple[PlannedSpace, Result]]:
        from study.report.results import Results

        def header(key: str) -> Json | None:
            try:
                return self._store.measures(key)
            except (FileNotFoundError, Damaged):
                return None

        for space in self._spaces(plan):
            results: Results = Results(plan, space, header)
            for result in results:
                yield space, result

    def _find(self, name: str, column: str) -> tuple[PlannedSpace, Result]:
        """Return a trial by its name, label, or row; of trials with equal work, the first.

        Raises:
            Refusal: if there is none, or more than one.
        """
        pairs = [(space, result) for space, result in self._results(self._plan())]
        columns = list(dict.fromkeys(result.trial.column for _, result in pairs))
        if column and column not in columns:
            raise Refusal("column", column, _unknown("column", column, columns))
        pairs = [(space, result) for space, result in pairs if column in ("", result.trial.column)]
        names = {id(result): (result.planned.name, result.planned.label, result.trial.row) for _, result in pairs}
        for kind in range(3):
            matches = [(space, result) for space, result in pairs if names[id(result)][kind] == name]
            if len({result.planned.ends for _, result in matches}) == 1:
                return matches[0]
            if matches:
                known = ", ".join(result.planned.name for _, result in matches)
                raise Refusal(
                    "trial",
                    name,
                    f"{name!r} is the name of several trials: {known}. Give one of these names, or the column",
                )
        rows = list(dict.fromkeys(result.trial.row for _, result in pairs))
        raise Refusal("trial", name, _unknown("trial", name, rows))

    def _payload(self, result: Result, replicate: int) -> bytes:
        trial = result.planned
        if replicate not in result.headers:
            complete = " or ".join(map(str, result.headers)) or "none"
            words = f"must be one of the complete replicates of {trial.label!r}: {complete}"
            raise Refusal("replicate", replicate, words)
        try:
            return self._store.load(trial.by_replicate[replicate])[1]
        except FileNotFoundError as error:
            words = f"the tensors of {trial.label!r}, replicate {replicate}, are gone: 'study clean' dropped them"
            raise Refusal("replicate", replicate, words) from error


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with lists and the like as JSON, so that they can be compared and grouped."""
    kinds = (str, int, float, bool, type(None))
    return {
        name: value if isinstance(value, kinds) else json.dumps(value, ensure_ascii=False)
        for name, value in parameters.items()
    }


def _numbers(measures: Json) -> list[str]:
    """Return the names of the measures that are numbers."""
    return [name for name, value in measures.items() if isinstance(value, int | float)]


def _unknown(kind: str, name: str, known: list[str]) -> str:
    """Return a message that a name is unknown, with the closest known one, or else all."""
    close = difflib.get_close_matches(str(name), known, 1)
    return f"unknown {kind} {name!r}. " + (
        f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known) or 'none'}"
    )
