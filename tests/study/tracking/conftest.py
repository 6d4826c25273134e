"""Runs in an MLflow database."""

import pytest
from helpers import TRACKED_EPOCHS, Tracked


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a database and of artefacts for all tests, each of which has its own experiment."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def run(folder):
    return Tracked(folder)


@pytest.fixture(scope="module")
def reference(folder):
    """A run with a replicate that was shown once, at its end."""
    run = Tracked(folder)
    run.project(TRACKED_EPOCHS)
    return run
