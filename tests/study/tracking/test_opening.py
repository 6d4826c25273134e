"""MLflow's database is created by several runs at once, is of another version, or cannot be read."""

import sqlite3
from contextlib import closing

import mlflow
import pytest
from helpers import Tracked
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from study.errors import Refusal
from study.tracking import runs


def test_two_runs_that_create_the_database_of_a_home_at_the_same_time_share_one(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def client(opened):
        if opened != uri:
            MlflowClient(uri).create_experiment("the other run's")  # it is faster
        return MlflowClient(opened)

    monkeypatch.setattr(runs, "MlflowClient", client)
    assert runs._open(uri).get_experiment_by_name("the other run's") is not None
    mine = MlflowClient(f"sqlite:///{tmp_path}/./mlflow.db")  # another engine than the one that has the file open
    assert mine.get_experiment_by_name("the other run's") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_database_of_another_version_of_mlflow_is_refused_by_name(tmp_path):
    run = Tracked(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    run.uri = f"sqlite:///{tmp_path}/./mlflow.db"  # another engine than the one that has the file open
    with pytest.raises(Refusal) as refused:
        run.driver()
    assert str(refused.value) == (
        f"{run.uri} was written by another version of MLflow than {mlflow.__version__}, the one installed here. If "
        f"that was an older one, back it up and give 'mlflow db upgrade {run.uri}'; else install that version"
    )


def test_an_error_of_the_database_is_raised_and_not_printed(tmp_path, capfd):
    run = Tracked(tmp_path)
    run.project(1)
    with sqlite3.connect(next(tmp_path.glob("*.db"))) as database:
        database.execute("DROP TABLE latest_metrics")
    capfd.readouterr()  # of the client that made the database
    with pytest.raises(MlflowException, match="no such table"):
        run.project(2)
    assert capfd.readouterr().err == ""
