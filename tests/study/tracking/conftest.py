"""Runs in an MLflow database."""

import pytest
from helpers import TRACKED_EPOCHS, Tracked


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A database and a folder of artefacts for all tests; each has an experiment of its own."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def run(place):
    return Tracked(place)


@pytest.fixture(scope="module")
def reference(place):
    """What MLflow holds of a replicate that was shown once, at its end."""
    run = Tracked(place)
    run.project(TRACKED_EPOCHS)
    return run
