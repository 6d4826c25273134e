"""The final networks as MLflow models: one a replicate, and a search's champions registered; all of it idempotent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model

CHAMPION = "champion"  # the alias of a registered model


class Models:
    """The models of an experiment's runs.

    MLflow's ``log_model`` functions would, each time, trace and try the network and read every metric's history to link
    the model to one step of it; here that step's metrics are written with the model's id.

    Args:
        client: of MLflow.
        experiment: its id.
    """

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._experiment = client, experiment
        self._known: dict[str, _Known] | None = None  # by run; None: to be looked up

    def log(self, run: str, parameters: Mapping[str, str], step: int, save: Callable[[Path, Model], None]) -> str:
        """See that a run has its model; returns the model's id.

        Args:
            run: the id of the run whose model it is.
            parameters: of the run.
            step: the epoch after which the network was so.
            save: (folder, model) → None; writes a model directory, as an MLflow flavor's ``save_model`` does.
        """
        known = self._all()
        model = known.get(run)
        is_new = model is None
        if model is None:
            self._known = None  # what there is is unknown until the server has answered
            model = known[run] = _Known.of(
                self._client.create_logged_model(
                    self._experiment, name="model", source_run_id=run, params=dict(parameters)
                )
            )
            self._known = known
        if not model.ready:
            identity = {"model_uuid": model.id, "model_id": model.id, "run_id": run}
            with TemporaryDirectory(prefix="study-") as folder:
                save(Path(folder), Model(artifact_path=model.location, **identity))
                self._client.log_model_artifacts(model.id, folder)
            outputs = None if is_new else self._client.get_run(run).outputs
            if not outputs or not outputs.model_outputs:
                self._client.log_outputs(run, [LoggedModelOutput(model.id, step)])
            known[run] = _Known.of(self._client.finalize_logged_model(model.id, LoggedModelStatus.READY))
        return model.id

    def register(self, name: str, champions: Iterable[tuple[str, str, Mapping[str, str]]]) -> None:
        """Register models of champions, one version for each that has none yet; the alias stands for the first.

        Args:
            name: of the registered model.
            champions: of each, the best first: the id of a run, the key of its state, and tags.
        """
        with suppress(MlflowException):  # it is there already
            self._client.create_registered_model(name)
        versions = {v.tags.get("study.key"): v for v in self._client.search_model_versions(f"name = '{name}'")}
        for rank, (run, key, tags) in enumerate(champions):
            version = versions.get(key)
            if version is None:
                model = self._all().get(run)
                if model is None or not model.ready:
                    continue  # its state was damaged meanwhile: the next start sees to it
                version = self._client.create_model_version(
                    name,
                    f"models:/{model.id}",
                    run_id=run,
                    model_id=model.id,
                    tags={"study.key": key, **tags},
                )
            if rank == 0:
                self._client.set_registered_model_alias(name, CHAMPION, version.version)

    def _all(self) -> dict[str, _Known]:
        if self._known is None:
            found: dict[str, _Known] = {}
            token = None
            while True:
                page = self._client.search_logged_models([self._experiment], page_token=token)
                for each in page:  # of two, if the server answered too late for the first, the one that is whole
                    model = _Known.of(each)
                    if each.source_run_id not in found or model.ready:
                        found[each.source_run_id] = model
                token = page.token
                if not token:
                    break
            self._known = found
        return self._known


@dataclass(frozen=True)
class _Known:
    """What is known of a model; MLflow's own object holds every parameter and metric, too."""

    id: str
    location: str
    ready: bool

    @classmethod
    def of(cls, model: LoggedModel) -> _Known:
        return cls(model.model_id, model.artifact_location, model.status == LoggedModelStatus.READY)
