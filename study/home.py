"""The folder that holds all files of a user, unless the user names other places. Imports late."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import Refusal, as_argument, named_by
from study.masking import without_password

if TYPE_CHECKING:
    from study.store.states import Store


_WRITABLE = "must be a writable folder"


class Home:
    """The folder of states, MLflow, Optuna and artefacts, unless the user names other places.

    Args:
        path: the path of the folder; it need not exist yet.
        store: folder or URL of the states; None for ``store`` in the folder.

    Raises:
        Refusal: if the path cannot be the path of a folder.
    """

    def __init__(self, path: str, store: str | None) -> None:
        try:
            self.path = Path(path).expanduser().resolve()
            os.fsencode(path)
            if not path or "\0" in path:
                raise ValueError("it is empty" if not path else "it holds a NUL")
            if self.path.exists() and not self.path.is_dir():
                raise ValueError("it is a file")
        except (OSError, ValueError, RuntimeError) as error:  # an unknown user in ~USER is a RuntimeError
            raise _refused("--home", path, "must be a folder", error) from error
        if "://" in path:
            shown = without_password(path)
            raise Refusal("--home", shown, "must be a folder", hint="States may be on a server: --store takes a URL")
        if set("?%{}") & set(str(self.path)):  # they mean something else in the URLs of databases
            raise Refusal("--home", path, "must be a folder whose path has no ?, %, { or }")
        self.store_url = store or str(self.path / "store")

    def make(self, store: Store | None = None) -> Store:
        """Make the folder and the store, and return the store.

        Args:
            store: the store, if it is open already.

        Raises:
            Refusal: if either cannot be written; nothing is left behind.
        """
        missing: list[Path] = []
        try:
            missing += (folder for folder in (self.path, *self.path.parents) if not folder.exists())
            self._make_folder()
            if store is None:
                return self.store()
            store.require_writable()
            return store
        except (OSError, ValueError, Refusal) as error:
            for folder in missing:
                with suppress(OSError, ValueError):  # not made, or in use by another program
                    folder.rmdir()
            if isinstance(error, Refusal):
                raise
            raise _refused("--home", str(self.path), _WRITABLE, error) from error

    def check_writable(self) -> None:
        """Check that the folders of home and store can be made and written, as far as their permissions say.

        Nothing is written, so a store on a server is not checked.

        Raises:
            Refusal: if they cannot.
        """
        folders = {"--home": str(self.path)}
        if "://" not in self.store_url:
            folders["--store"] = self.store_url
        for option, name in folders.items():
            try:
                path = Path(name).expanduser().absolute()
                existing = next(folder for folder in (path, *path.parents) if folder.exists())
                if not existing.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                if not os.access(existing, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, f"{existing} cannot be written")
            except (OSError, RuntimeError) as error:  # a user who does not exist is a RuntimeError
                raise _refused(option, name, _WRITABLE, error) from error

    def _make_folder(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        probe = self.path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()

    def store(self) -> Store:
        """Return the store; it is made if it does not exist."""
        from study.store.states import Store

        return Store(self.store_url)

    def existing_store(self, run: str | None = None) -> Store:
        """Return the store for a command that only reads.

        Args:
            run: the run that the user asked for.

        Raises:
            Refusal: if there is none.
        """
        from study.store.states import Store

        if "://" not in self.store_url and not _is_folder(self.store_url):
            folder = str(self.path) if self.store_url == str(self.path / "store") else self.store_url
            option = "--home" if folder == str(self.path) else "--store"
            if run is None:
                raise Refusal(option, folder, f"{option} {folder!r} has no runs yet. 'study run SPACE' makes one")
            words = f"run {run!r} does not exist: {folder} has no runs yet. 'study run SPACE' makes one"
            raise Refusal("run", run, words)
        return Store(self.store_url, create=False)

    def store_if_any(self) -> Store | None:
        """Return the store; None if it has not been made yet.

        Raises:
            Refusal: if it cannot be reached.
        """
        from study.store.states import Store

        if "://" not in self.store_url and not _is_folder(self.store_url):
            return None
        try:
            return Store(self.store_url, create=False)
        except Refusal as refusal:
            if isinstance(refusal.__cause__, FileNotFoundError):
                return None
            raise

    @staticmethod
    def chosen(tracking_uri: str | None, storage: str | None) -> tuple[str, str]:
        """Return the URLs of MLflow and Optuna that the user or the environment gives; "" for the home's databases."""
        environment = os.environ.get("MLFLOW_TRACKING_URI"), os.environ.get("STUDY_STORAGE")
        return tracking_uri or environment[0] or "", storage or environment[1] or ""

    def tracking_uri(self, chosen: str) -> str:
        """Return MLflow's URL: as chosen, or a database in the home."""
        return chosen or f"sqlite:///{self.path / 'mlflow.db'}"

    def storage(self, chosen: str) -> str:
        """Return Optuna's URL: as chosen, or a database in the home."""
        return chosen or f"sqlite:///{self.path / 'optuna.db'}"

    def options(self) -> str:
        """Return the options that name this home and store, for the commands that a message suggests."""
        home = "" if self.path == Path("studies").resolve() else f" --home {as_argument(str(self.path))}"
        if self.store_url in (str(self.path / "store"), os.environ.get("STUDY_STORE")):
            return home
        return f"{home} --store {as_argument(without_password(self.store_url))}"

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artefacts when no server keeps them."""
        return self.path / "artifacts"

    def check_services(self, tracking_uri: str, storage: str, may_be_away: bool = False) -> None:
        """Check that MLflow and Optuna can be used, before anything is written.

        Raises:
            Refusal: if a URL is malformed or unusable, if a database refuses its user or password, or if a server does
                not answer and `may_be_away` is false.
        """
        from study import services

        option, tracking = self._check_tracking(tracking_uri)
        storage_option, optuna = self._check_storage(storage)
        services.check_apart(storage_option, optuna, tracking)
        self._require(((option, tracking), (storage_option, optuna)), may_be_away)

    def check_tracking(self, tracking_uri: str) -> None:
        """Check that MLflow can be used; see `check_services`. This one also asks its server with the credentials."""
        option, url = self._check_tracking(tracking_uri)
        self._require(((option, url),))
        if url.startswith(("http://", "https://")):
            from study.tracking.login import require_login

            require_login(option, url)

    def check_storage(self, storage: str) -> None:
        """Check that Optuna can be used; see `check_services`."""
        self._require((self._check_storage(storage),))

    def _check_tracking(self, tracking_uri: str) -> tuple[str, str]:
        from study import services

        option, url = named_by("--tracking-uri", "MLFLOW_TRACKING_URI", tracking_uri), self.tracking_uri(tracking_uri)
        services.check_tracking(option, url, self.path)
        return option, url

    def _check_storage(self, storage: str) -> tuple[str, str]:
        from study import services

        option, url = named_by("--storage", "STUDY_STORAGE", storage), self.storage(storage)
        services.check_storage(option, url, self.path)
        return option, url

    @staticmethod
    def _require(named: Sequence[tuple[str, str]], may_be_away: bool = False) -> None:
        from study import services

        if not may_be_away:
            services.require(*named)
        services.require_login(*named)

    def shared_databases(self, tracking_uri: str, storage: str) -> list[tuple[str, str, str]]:
        """Return what to read of each SQLite database on a network file system, where its locks are not reliable.

        Returns:
            For each: MLflow or Optuna, its path with the problem, and what to use instead.
        """
        from study.mounts import network_file_system

        problems = []
        for service, url, advice in (
            ("MLflow", self.tracking_uri(tracking_uri), "Use an MLflow server (--tracking-uri http://HOST:5000)"),
            ("Optuna", self.storage(storage), "Use PostgreSQL (--storage postgresql://USER@HOST/NAME)"),
        ):
            path = url.removeprefix("sqlite:///")
            kind = network_file_system(path) if path != url else ""
            if kind:
                problems.append(
                    (service, f"{path} is on a network file system ({kind}), where SQLite may fail", advice)
                )
        return problems


def _is_folder(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, RuntimeError):  # its name is too long, or has an unknown user
        return False


def _refused(option: str, path: str, words: str, error: Exception) -> Refusal:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Refusal(option, path, words, hint=reason[:1].upper() + reason[1:])
