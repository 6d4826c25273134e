"""Where everything of a user lies, unless other places are named; and what this machine has. Imports late."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from study.refusal import Refusal

if TYPE_CHECKING:
    from study.store import Store


class Home:
    """The folder that holds everything unless the user names other places: states, MLflow, Optuna, artefacts."""

    def __init__(self, path: str, store: str | None) -> None:
        self.path = Path(path).expanduser().absolute()
        self.store_url = store or str(self.path / "store")

    def make(self) -> Store:
        """Make the folder and the store; refused, leaving nothing behind, if either cannot be written."""
        existed = self.path.exists()
        self._make_folder()
        try:
            return self.store()
        except Refusal:
            if not existed:
                self.path.rmdir()
            raise

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise Refusal(
                "--home", str(self.path), f"a folder that can be written would do ({error.strerror})"
            ) from error

    def store(self) -> Store:
        """The store, made if need be."""
        from study.store import Store

        return Store(self.store_url)

    def existing_store(self, called: str | None = None) -> Store:
        """The store for a verb that reads: it makes none. `called` is the run that the user asked for."""
        if "://" not in self.store_url and not Path(self.store_url).is_dir():
            remedy = f"there is no run in {self.path} yet; `study run table9` makes one"
            raise Refusal("--home", str(self.path), remedy) if called is None else Refusal("run", called, remedy)
        return self.store()

    @staticmethod
    def chosen(tracking_uri: str | None, storage: str | None) -> tuple[str, str]:
        """MLflow's and Optuna's URL as the user or the environment says; "" for the home's own."""
        return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "", storage or ""

    def tracking_uri(self, chosen: str) -> str:
        """MLflow's URL: as chosen, or a database in the home."""
        return chosen or f"sqlite:///{self.path / 'mlflow.db'}"

    def storage(self, chosen: str) -> str:
        """Optuna's URL: as chosen, or a database in the home."""
        return chosen or f"sqlite:///{self.path / 'optuna.db'}"

    def options(self) -> str:
        """What must be said again to find this home and store, for the commands that are named next."""
        home = "" if self.path == Path("studies").absolute() else f" --home {self.path}"
        return home if self.store_url == str(self.path / "store") else f"{home} --store {self.store_url}"

    @property
    def artifacts(self) -> Path:
        """Where MLflow's artefacts go when no server keeps them."""
        return self.path / "artifacts"

    def check_services(self, tracking_uri: str, storage: str) -> None:
        """Refuse what is away or malformed, before anything is written."""
        from study import services
        from study.search import check_url

        services.require("--tracking-uri", self.tracking_uri(tracking_uri))
        check_url(self.storage(storage))
        services.require("--storage", self.storage(storage))


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA GPU, without the seconds that importing torch takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible not in ("", "-1") and any(Path("/dev").glob("nvidia[0-9]*"))
