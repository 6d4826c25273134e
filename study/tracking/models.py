"""The final networks as MLflow models: one for each replicate, and registered models of a search's champions.

Everything is idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import study.tracking.environment  # noqa: F401  # isort: skip  # before MLflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from study import scratch

CHAMPION = "champion"  # the alias of a registered model


class Models:
    """The models of an experiment's runs.

    They are not logged by MLflow's ``log_model`` functions. For each model these would trace and run the network, and
    read the history of every metric to link the model to one step. Instead, the metrics of this step are written with
    the model's id.

    Args:
        client: the MLflow client.
        experiment: the experiment's id.
    """

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._experiment = client, experiment
        self._models: dict[str, _StoredModel] | None = None  # by run id; None: not read from the server yet

    def log(self, run: str, parameters: Mapping[str, str], step: int, save: Callable[[Path, Model], None]) -> str:
        """Ensure that a run has its model. Return the model's id.

        Args:
            run: the id of the run.
            parameters: the run's parameters.
            step: the epoch of the model.
            save: (folder, model) → None; writes a model directory, as an MLflow flavor's ``save_model`` does.
        """
        models = self._all()
        model = models.get(run)
        is_new = model is None
        if model is None:
            self._models = None  # if the server does not answer, the models must be read again
            model = models[run] = _StoredModel.of(
                self._client.create_logged_model(
                    self._experiment, name="model", source_run_id=run, params=dict(parameters)
                )
            )
            self._models = models
        if not model.ready:
            identity = {"model_uuid": model.id, "model_id": model.id, "run_id": run}
            with scratch.folder() as folder:
                save(folder, Model(artifact_path=model.location, **identity))
                self._client.log_model_artifacts(model.id, str(folder))
            outputs = None if is_new else self._client.get_run(run).outputs
            if not outputs or not outputs.model_outputs:
                self._client.log_outputs(run, [LoggedModelOutput(model.id, step)])
            models[run] = _StoredModel.of(self._client.finalize_logged_model(model.id, LoggedModelStatus.READY))
        return model.id

    def register(self, name: str, champions: Iterable[tuple[str, str, Mapping[str, str]]]) -> None:
        """Register models of champions, one version for each that has none yet, and give the first one the alias.

        Args:
            name: the registered model's name.
            champions: the champions, the best first; for each the id of a run, the key of its state, and tags.
        """
        with suppress(MlflowException):  # it exists already
            self._client.create_registered_model(name)
        versions = {v.tags.get("study.key"): v for v in self._client.search_model_versions(f"name = '{name}'")}
        for rank, (run, key, tags) in enumerate(champions):
            version = versions.get(key)
            if version is None:
                model = self._all().get(run)
                if model is None or not model.ready:
                    continue  # its state was damaged meanwhile; the next start registers it
                version = self._client.create_model_version(
                    name,
                    f"models:/{model.id}",
                    run_id=run,
                    model_id=model.id,
                    tags={"study.key": key, **tags},
                )
            if rank == 0:
                self._client.set_registered_model_alias(name, CHAMPION, version.version)

    def delete(self, run: str) -> None:
        """Delete the model of a run, if it has one."""
        self._models = None  # another driver may have added it
        model = self._all().pop(run, None)
        if model is not None:
            self._client.delete_logged_model(model.id)

    def refresh(self) -> None:
        """Read which models there are, and delete twins; see `Tracker.refresh`."""
        self._models = None
        self._all()

    def _all(self) -> dict[str, _StoredModel]:
        if self._models is None:
            models: dict[str, _StoredModel] = {}
            token = None
            while True:
                page = self._client.search_logged_models([self._experiment], page_token=token)
                for logged in page:
                    model = _StoredModel.of(logged)
                    other = models.get(logged.source_run_id)
                    if other is not None and not (model.ready and not other.ready):
                        model, other = other, model
                    models[logged.source_run_id] = model
                    if other is not None:  # a twin: the server answered too late, or another driver added it
                        self._client.delete_logged_model(other.id)
                token = page.token
                if not token:
                    break
            self._models = models
        return self._models


@dataclass(frozen=True)
class _StoredModel:
    """The parts of an MLflow model that are needed. MLflow's object also holds every parameter and metric."""

    id: str
    location: str
    ready: bool

    @classmethod
    def of(cls, model: LoggedModel) -> _StoredModel:
        return cls(model.model_id, model.artifact_location, model.status == LoggedModelStatus.READY)
