"""An Optuna database for each test."""

import shutil

import pytest

from study.search.studies import open_storage


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty database, which each test copies because a copy is faster than a new one."""
    path = tmp_path_factory.mktemp("optuna") / "empty.db"
    close(open_storage(f"sqlite:///{path}"))
    return path


@pytest.fixture
def storage(tmp_path, empty):
    path = shutil.copy(empty, tmp_path / "optuna.db")
    storage = open_storage(f"sqlite:///{path}")
    yield storage
    close(storage)


def close(storage):
    storage.remove_session()
    storage._backend.engine.dispose()
