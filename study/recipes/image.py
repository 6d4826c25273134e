"""The image of the project: its Dockerfile, its source and its versions, and MLflow's command in it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from study.errors import Refusal
from study.recipes.texts import filled, for_compose
from study.recipes.writing import PRIVATE

PROJECT = "longtail-study"

_NAME = re.compile(r"[a-z0-9][\w./:@-]{0,254}", re.ASCII)


@dataclass(frozen=True)
class Image:
    """The image of the project.

    Attributes:
        name: its name.
        context: the folder of the project's source, or of its wheel.
        wheel: the name of the wheel's file; None to build it from the source.
        python: the version of Python, such as ``3.11``.
        pins: the packages with their versions, such as ``ray[default]==2.60.0``.
    """

    name: str
    context: str
    wheel: str | None
    python: str
    pins: Sequence[str]

    def __post_init__(self) -> None:
        check_image(self.name)

    @classmethod
    def like_here(cls, name: str, source: str | None) -> Image:
        """Return an image with the versions that are installed here.

        Args:
            name: its name.
            source: the folder of the project's source, or a wheel; None for this installation's, or this folder.

        Raises:
            Refusal: if `source` is neither.
        """
        context, wheel = _source(source)
        return cls(name, context, wheel, ".".join(map(str, sys.version_info[:2])), _pins())

    def written(self) -> dict[str, str]:
        """Return the texts of the Dockerfile and of the list of files that are no part of its build."""
        ignored = [
            *(f"**/{name}" for name in PRIVATE),
            ".git",
            ".venv",
            "**/__pycache__",
            "**/*.egg-info",
            "**/.*_cache",
            "studies",
            "dist",
            "build",
        ]
        return {
            "Dockerfile": filled(
                "Dockerfile",
                python=self.python,
                copied=f"{for_compose([self.wheel, '/wheels/'])}" if self.wheel else ". /source",
                build="" if self.wheel else "RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source",
                pins=" \\\n  ".join(map(shlex.quote, self.pins)),
            ),
            "Dockerfile.dockerignore": "\n".join(["*", f"!{self.wheel}"] if self.wheel else ignored) + "\n",
        }


def check_image(name: str) -> None:
    """Check that an image's name has no characters that none has.

    Raises:
        Refusal: if it has.
    """
    if not _NAME.fullmatch(name):
        raise Refusal("--image", name, "must be the name of an image, such as registry.example.org/study:1")


def mlflow(postgres: str) -> list[str]:
    """Return the command of an MLflow server in a container, with its database on the host `postgres`."""
    return [
        "mlflow",
        "server",
        "--host=0.0.0.0",  # in a network of its own
        "--port=5000",
        "--workers=1",  # with several, a slow machine ends those that take more than 5 s to start
        f"--backend-store-uri=postgresql+psycopg://study@{postgres}/mlflow",
        "--artifacts-destination=/artifacts",
        "--allowed-hosts=study-mlflow:5000,mlflow:5000,localhost:*,127.0.0.1:*",
    ]


def _source(given: str | None) -> tuple[str, str | None]:
    """Return the folder of the project's source and None, or the folder of a wheel and the wheel's name."""
    installed = Path(__file__).parents[2]
    is_source = (installed / "pyproject.toml").is_file()  # else it is a copy among other installed packages
    path = Path(given).expanduser().absolute() if given else installed if is_source else Path.cwd()
    if path.suffix == ".whl" and path.is_file():
        return str(path.parent), path.name
    if not (path / "pyproject.toml").is_file():
        words = "must be the folder of the project's source, with pyproject.toml, or a wheel of it"
        raise Refusal("--source", str(path), words)
    return str(path), None


def _pins() -> list[str]:
    """Return the packages that the project and PostgreSQL need, in the versions that are installed here."""
    pins = []
    for requirement in metadata.requires(PROJECT) or ():
        name, _, condition = requirement.partition(";")
        if condition and "postgres" not in condition:
            continue
        package = re.split(r"[<>=!~ ]", name)[0]
        try:
            version = metadata.version(package.partition("[")[0]).partition("+")[0]
        except metadata.PackageNotFoundError:  # PostgreSQL's need not be here
            pins.append(name.strip())
        else:
            pins.append(f"{'ray[default,tune]' if package.startswith('ray') else package}=={version}")
    return pins
