"""MLflow as a projection of the store: written by the driver only, from durable epochs only, and idempotent.

A run has one experiment, with one parent run for the plan and the report, and one child run for each replicate. A child
is identified by (trial, replicate), and data that it already holds are not written again. So projecting works the same
way at a first start, after a crash and after an outage.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import study.tracking.environment  # noqa: F401  # isort: skip  # before MLflow
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from study import scratch
from study.databases import create_whole
from study.errors import Refusal
from study.masking import without_password
from study.planning.draft import Draft
from study.planning.stored import Plan, PlannedTrial
from study.space import Json, Work
from study.tracking import views
from study.tracking.answers import is_too_large
from study.tracking.models import Models
from study.tracking.moving import follow_home
from study.tracking.shown import metrics, provenance, texts

BATCH = 990  # metrics for each call; MLflow accepts 1,000 entities, some of which are tags
DESCRIBED, FAILED_BECAUSE, FINISHED = "study.described", "study.failed_because", "study.finished"


class Tracker:
    """The MLflow runs of one run of the platform.

    Args:
        draft: the plan, which may grow, and its work.
        uri: the URI of the tracking store or server.
        artifacts: the folder for artefacts of a tracking store without a server; a server chooses its own.
        claim: raises `Superseded` if another driver has claimed the run; called before each call to MLflow.

    Raises:
        Refusal: if the experiment of this name was deleted, or another version of MLflow wrote the database.
        MlflowException: if the store cannot be used.
    """

    def __init__(self, draft: Draft, uri: str, artifacts: Path, claim: Callable[[], None] = lambda: None) -> None:
        for name in ("mlflow", "alembic", "sqlalchemy.pool"):  # they log errors, with tracebacks, that they also raise
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._draft, plan = draft, draft.plan
        client = _open(uri)
        use_tracking_uri(uri)  # MLflow's registry reads the model of a version from this one
        follow_home(uri, artifacts)
        self._client: MlflowClient = _Claimed(client, claim)
        self._created = int(datetime.fromisoformat(plan.created).timestamp() * 1000)
        self._experiment = self._find_experiment(None if uri.startswith(("http", "databricks")) else artifacts)
        self._models = Models(self._client, self._experiment)
        self._batch = BATCH
        self._parent: Run | None = None
        self._children: dict[tuple[str, int], _Child] = {}
        self._unanswered: set[tuple[str, int]] = set()  # children whose creation is not confirmed
        self.refresh()

    @property
    def _work(self) -> Work:
        return self._draft.work

    @property
    def _plan(self) -> Plan:
        return self._draft.plan

    def refresh(self) -> None:
        """Read which runs there are. The user may have deleted some, or a driver that lost the run added them late.

        Of two runs for one replicate, the one that this driver knows stays, or else the one that is further.
        """
        known = {child.run_id for child in self._children.values()}
        known |= {self._parent.info.run_id} if self._parent else set()

        def precedence(run: Run) -> tuple[bool, bool, int, str]:
            is_known, tags = run.info.run_id in known, run.data.tags
            return not is_known, run.info.status != "FINISHED", -int(tags.get("study.epochs", 0)), run.info.run_id

        parents: list[Run] = []
        children: dict[tuple[str, int], list[Run]] = {}
        for run in sorted(self._all_runs(), key=precedence):
            kind = run.data.tags.get("study.kind")
            if kind == "replicate":
                children.setdefault(_replicate(run), []).append(run)
            elif kind == "run":
                parents.append(run)
        for twin in (*parents[1:], *(twin for runs in children.values() for twin in runs[1:])):
            self._models.delete(twin.info.run_id)
            self._client.delete_run(twin.info.run_id)
        self._parent = parents[0] if parents else None
        self._children = {name: _Child.of(runs[0]) for name, runs in children.items()}
        if self._parent is None and children:
            self.begin()
        for run, *_ in children.values():
            if self._parent and run.data.tags.get("mlflow.parentRunId") != self._parent.info.run_id:
                self._client.set_tag(run.info.run_id, "mlflow.parentRunId", self._parent.info.run_id)

    def refresh_models(self) -> None:
        """Delete models that were added twice."""
        self._models.refresh()

    def begin(self) -> None:
        """Create or reopen the parent run. It holds the resolved plan before anything is trained."""
        plan = self._plan
        if self._parent is None:
            tags = {
                "study.kind": "run",
                "study.run": plan.run,
                "study.generation": str(plan.generation),
                "mlflow.note.content": self._note(),
            }
            self._parent = self._client.create_run(
                self._experiment, start_time=self._created, tags=tags, run_name=plan.run
            )
        else:
            self._client.update_run(self._parent.info.run_id, status="RUNNING")
        if DESCRIBED not in self._parent.data.tags:
            parameters = {**asdict(plan.machine), "created": plan.created}
            self._describe(self._parent.info.run_id, parameters)
        self._log_plan()
        self._parent = self._client.get_run(self._parent.info.run_id)

    def _log_plan(self) -> None:
        """Write the plan. Values that may grow are tags, because MLflow's parameters cannot change."""
        assert self._parent is not None
        plan, run_id = self._plan, self._parent.info.run_id
        tags = {
            "study": plan.study,
            "replicates": plan.replicates,
            "trials": len(plan.trials),
            "commit": plan.commit,
            "epochs_needed": plan.epochs_needed,
            **{f"version.{name}": version for name, version in plan.versions.items()},
        }
        self._client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])
        self._client.log_dict(run_id, plan.to_json(), "plan.json")

    def _describe(self, run_id: str, parameters: Mapping[str, Any], whole: bool = True) -> None:
        """Write a run's parameters. If a killed driver left a run without them, the next driver writes them.

        Without `whole`, more of them will be written later.
        """
        params = [Param(name, text) for name, text in texts(parameters).items()]
        self._client.log_batch(run_id, params=params, tags=[RunTag(DESCRIBED, "true")] if whole else [])

    def is_closed(self) -> bool:
        """Return whether the parent run was finished with the current plan, so that nothing is left to show."""
        parent = self._parent
        return (
            parent is not None
            and parent.info.status == "FINISHED"
            and parent.data.tags.get(FINISHED) == self._plan.content
        )

    def is_complete(self, trial: PlannedTrial, number: int) -> bool:
        """Return whether a replicate's run holds everything."""
        child = self._children.get((trial.name, number))
        return child is not None and child.status == "FINISHED"

    def project(self, trial: PlannedTrial, number: int, header: Json, payload: Callable[[], bytes]) -> None:
        """Write a replicate's epochs to its run, up to a state that the replicate passes through.

        Args:
            trial, number: the replicate.
            header: the state's header, with the measures of every epoch so far.
            payload: reads the state's payload; called once, for the model after the last epoch.
        """
        if self.is_complete(trial, number):
            return
        child = self._take_up(trial, number)
        assert child.epochs is not None
        measures: Sequence[Json] = header["measures"]
        last = len(measures) == trial.epochs
        if child.status != "RUNNING":  # it had failed or been stopped, and continues
            self._client.update_run(child.run_id, status="RUNNING")
            if child.reason:
                self._client.delete_tag(child.run_id, FAILED_BECAUSE)
            child.status, child.reason = "RUNNING", ""
        if child.epochs >= len(measures) and not last:
            return
        model = self._log_model(child, trial, number, payload) if last else None
        clock = self._created
        to_write: list[list[Metric]] = []
        for step, (epoch, seconds) in enumerate(zip(measures, header["wall_seconds"], strict=True)):
            clock += int(1000 * seconds)
            whole = last and step == trial.epochs - 1
            if step >= child.epochs or whole:  # MLflow keeps one of two equal metrics
                epoch_metrics = metrics(self._work, epoch, (step, clock), model if whole else None)
                to_write.append(epoch_metrics)
        tags: dict[str, object] = {"study.stopped_early": True} if trial.stopped else {}
        tags |= {"study.epochs": len(measures), "study.key": header["key"], "study.provenance": provenance(header)}
        self._log_epochs(child.run_id, to_write, tags)
        child.epochs = max(child.epochs, len(measures))
        if last:
            self._client.set_terminated(child.run_id, "FINISHED", end_time=clock)
            child.status = "FINISHED"

    def _log_epochs(self, run_id: str, epochs: Sequence[Sequence[Metric]], tags: Mapping[str, object]) -> None:
        """Write the metrics of epochs, each as a whole or not at all, and then tags.

        A proxy may demand smaller batches than MLflow.
        """
        written = 0
        while True:
            batch: list[Metric] = []
            end = written
            while end < len(epochs) and (not batch or len(batch) + len(epochs[end]) <= self._batch):
                batch += epochs[end]
                end += 1
            last_tags = [RunTag(name, str(value)) for name, value in tags.items()] if end == len(epochs) else []
            try:
                self._client.log_batch(run_id, metrics=batch, tags=last_tags)
            except MlflowException as error:
                if not is_too_large(error) or end <= written + 1:
                    raise
                self._batch = len(batch) // 2
                continue
            if end == len(epochs):
                return
            written = end

    def _take_up(self, trial: PlannedTrial, number: int) -> _Child:
        """Return a replicate's run with its parameters written. Create the run if there is none."""
        known = self._children.get((trial.name, number))
        child = known or self._create(trial, number)
        if not child.described:
            written = {} if known is None else self._client.get_run(child.run_id).data.params  # these cannot change
            parameters = {name: each for name, each in self._parameters(trial, number).items() if name not in written}
            self._describe(child.run_id, parameters, whole=not trial.refused)
            child.described, child.epochs = not trial.refused, 0  # no epoch is written before the parameters
        if child.epochs is None:
            history = self._client.get_metric_history(child.run_id, self._work.curves[0])
            child.epochs = max((metric.step for metric in history), default=-1) + 1
        return child

    def _parameters(self, trial: PlannedTrial, number: int) -> dict[str, str]:
        """Return the parameters of a replicate's run and of its model."""
        parameters: dict[str, Any] = {"space": trial.space, "trial": trial.label, "replicate": number}
        if trial.champion_of:
            parameters["champion_of"] = trial.champion_of
        if trial.refused:  # it has no configuration
            return texts(parameters | {**trial.trial.axes})
        return texts(parameters | {**self._work.parameters(trial.trial.config, number, self._plan.machine)})

    def fail(self, trial: PlannedTrial, number: int, reason: str) -> None:
        """Mark a replicate's run as failed, with the reason."""
        child = self._children.get((trial.name, number))
        if child is None or (child.status, child.reason) != ("FAILED", reason):
            child = self._take_up(trial, number)
            self._client.set_tag(child.run_id, FAILED_BECAUSE, reason)
            self._client.set_terminated(child.run_id, "FAILED")
            child.status, child.reason = "FAILED", reason

    def finish(self, status: str, files: Mapping[str, bytes | str]) -> None:
        """Log the report's files to the parent run and close it as FINISHED, FAILED or KILLED (resumable).

        Children that are not complete become KILLED until a resume continues them.
        """
        assert self._parent is not None
        for child in self._children.values():
            if child.status == "RUNNING":
                self._client.set_terminated(child.run_id, "KILLED")
                child.status = "KILLED"
        run_id = self._parent.info.run_id
        for name, content in files.items():
            if isinstance(content, str):
                self._client.log_text(run_id, content, name)
            else:
                with scratch.folder() as folder:
                    path = folder / name
                    path.write_bytes(content)
                    self._client.log_artifact(run_id, str(path))
        self._log_plan()
        self._client.set_tag(run_id, FINISHED, self._plan.content)
        self._client.set_terminated(run_id, status)
        self._parent = self._client.get_run(run_id)

    def register(self, name: str, champions: Sequence[PlannedTrial]) -> None:
        """Register the models of a search's champions. The first one gets the alias `champion`.

        A champion's model is that of its first fresh replicate, not that of its best one.
        """
        versions = []
        for trial in champions:
            number, key = next(iter(trial.by_replicate.items()))
            child = self._children.get((trial.name, number))
            if child is not None:
                versions.append((child.run_id, key, {"study.trial": trial.name, "study.run": self._plan.run}))
        self._models.register(name, versions)

    def _find_experiment(self, artifacts: Path | None) -> str:
        plan = self._plan
        tags = {"study.run": plan.run, "study": plan.study, **views.tags(plan, self._work)}
        experiment = self._client.get_experiment_by_name(plan.run)
        if experiment is None:
            location = (artifacts / plan.run).absolute().as_uri() if artifacts else None
            noted = {**tags, "mlflow.note.content": self._note()}
            try:
                return str(self._client.create_experiment(plan.run, artifact_location=location, tags=noted))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = self._client.get_experiment_by_name(plan.run)  # a driver that lost the run created it late
        if experiment.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore -x {experiment.experiment_id}"
            raise Refusal(
                "MLflow experiment",
                plan.run,
                f"the MLflow experiment {plan.run!r} was deleted",
                hint=f"Restore it with '{restore}', or give the run another name with --name",
            )
        for name, value in tags.items() - experiment.tags.items():  # the plan has grown
            self._client.set_experiment_tag(experiment.experiment_id, name, value)
        return str(experiment.experiment_id)

    def _all_runs(self) -> list[Run]:
        runs, token = [], None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                generation = str(self._plan.generation)
                return [run for run in runs if run.data.tags.get("study.generation") == generation]

    def _create(self, trial: PlannedTrial, number: int) -> _Child:
        assert self._parent is not None
        tags = {
            "mlflow.parentRunId": self._parent.info.run_id,
            "study.kind": "replicate",
            "study.run": self._plan.run,
            "study.space": trial.space,
            "study.trial": trial.name,
            "study.replicate": str(number),
            "study.generation": str(self._plan.generation),
        }
        name = (trial.name, number)
        run = self._find_child(name) if name in self._unanswered else None
        if run is None:
            self._unanswered.add(name)
            run = self._client.create_run(
                self._experiment, start_time=self._created, tags=tags, run_name=f"{trial.label} r{number}"
            )
        child = _Child.of(run)
        self._children[name] = child
        return child

    def _find_child(self, name: tuple[str, int]) -> Run | None:
        """Return a replicate's run that was created although an outage kept MLflow's answer from arriving."""
        replicates = (run for run in self._all_runs() if run.data.tags.get("study.kind") == "replicate")
        return next((run for run in replicates if _replicate(run) == name), None)

    def _log_model(self, child: _Child, trial: PlannedTrial, number: int, payload: Callable[[], bytes]) -> str:
        def save(folder: Path, model: Model) -> None:
            self._work.exporter(trial.trial.config)(payload(), folder, model)

        return self._models.log(child.run_id, self._parameters(trial, number), trial.epochs - 1, save)

    def _note(self) -> str:
        titles = "\n".join(f"- {space.title}" for space in self._plan.spaces)
        group = self._work.group_by
        return f"{titles}\n\nTo compare, group the runs below by `{group}`. Each run is one replicate."


@dataclass
class _Child:
    """The parts of a replicate's MLflow run that are needed. The whole runs would fill the driver's memory.

    Attributes:
        run_id, status: as in MLflow.
        reason: the reason why it failed.
        described: whether it has its parameters.
        epochs: the number of epochs that it holds; None until they are read.
    """

    run_id: str
    status: str
    reason: str
    described: bool
    epochs: int | None = None

    @classmethod
    def of(cls, run: Run) -> _Child:
        tags = run.data.tags
        return cls(run.info.run_id, run.info.status, tags.get(FAILED_BECAUSE, ""), DESCRIBED in tags)


def _replicate(run: Run) -> tuple[str, int]:
    """Return the trial's name and the replicate's number of a run."""
    return run.data.tags["study.trial"], int(run.data.tags["study.replicate"])


def _open(uri: str) -> MlflowClient:
    """Return a client of a tracking store; a new SQLite database is created.

    Raises:
        Refusal: if another version of MLflow wrote the database.
    """
    try:
        create_whole(uri, lambda temporary: MlflowClient(temporary).search_experiments(max_results=1))
        return MlflowClient(uri)
    except MlflowException as error:
        if "mlflow db upgrade" not in str(error):
            raise
        shown = without_password(uri)
        words = f"{shown} was written by another version of MLflow than {mlflow.__version__}, the one installed here"
        hint = f"If that was an older one, back it up and give 'mlflow db upgrade {shown}'; else install that version"
        raise Refusal("--tracking-uri", shown, words, hint=hint) from error


class _Claimed:
    """An MLflow client that checks before each call that this driver still holds the run."""

    def __init__(self, client: MlflowClient, claim: Callable[[], None]) -> None:
        self._client, self._claim = client, claim

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._claim()
            return getattr(self._client, name)(*arguments, **named)

        return call


def use_tracking_uri(uri: str) -> None:
    """Set the URI that MLflow's functions use in this process.

    MLflow also puts it into the environment, where the next run would take it for the user's choice.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before
