"""What the tests of recipes share: a recipe written by the command line, and tools that check its files."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers import call_study

Recipe = Callable[..., Path]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Writes the files of `study cluster KIND` into the folder `sweep`, as a user in `tmp_path` does."""
    monkeypatch.chdir(tmp_path)

    def write(kind: str, *arguments: str) -> Path:
        call_study("cluster", kind, "--out", "sweep", *arguments, home=tmp_path / "home")
        return tmp_path / "sweep"

    return write


@pytest.fixture
def checked_by_shellcheck() -> Callable[[Path], None]:
    """Fails if bash cannot read a script, or shellcheck has anything to say about it."""

    def check(script: Path) -> None:
        for command in (["bash", "-n", str(script)], ["shellcheck", "--shell=bash", str(script)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    return check


@pytest.fixture
def study_run() -> Callable[[str], list[str]]:
    """The words of `study run` in a script."""

    def words(script: str) -> list[str]:
        split = shlex.split(script.replace("\\\n", " "), comments=True)
        begin = max(number for number, word in enumerate(split) if word == "study")
        assert split[begin + 1] == "run"
        end = split.index(")", begin) if ")" in split[begin:] else None  # of a subshell
        return split[begin + 1 : end]

    return words


@pytest.fixture
def dry_run(tmp_path: Path) -> Callable[..., Result]:
    """Plans what the words of `study run` train, without the cluster and its services, which are not here."""

    def run(words: list[str], *here: str) -> Result:
        databases = [f"--{name}=sqlite:///{tmp_path}/{name}.db" for name in ("tracking-uri", "storage")]
        instead = ["--address", "local", "--home", str(tmp_path / "home"), *databases, *here]
        return call_study(*words, *instead, "--dry-run", "--json", home=tmp_path / "home")

    return run


@pytest.fixture(scope="session")
def schema() -> Iterator[Callable[[str, Any], None]]:
    """Validates a value against a schema that is stored beside the tests, with its source and licence."""
    import jsonschema

    def validate(name: str, value: Any) -> None:
        stored = json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
        assert {"source", "version", "licence", "changes"} < set(stored)
        jsonschema.Draft7Validator(stored["schema"]).validate(value)

    return validate
