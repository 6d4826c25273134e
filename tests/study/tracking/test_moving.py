"""A home that is moved or copied takes its artefacts along in MLflow."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from helpers import TRACKED_EPOCHS, Tracked
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from study.home import Home
from study.tracking.moving import follow_home


@pytest.fixture
def moved(tmp_path):
    """A run whose home was moved after a replicate was complete."""
    (tmp_path / "old home").mkdir()
    run = Tracked(tmp_path / "old home")
    tracker = run.project(TRACKED_EPOCHS)
    tracker.register("champions", [run.plan.trials[0]])
    shutil.move(tmp_path / "old home", tmp_path / "new")
    _artifact_repos_cache.clear()  # as in another process
    there = Tracked(tmp_path / "new")
    there.plan = run.plan
    return there


def mentions(folder, text):
    """Return the tables and columns of MLflow's database that contain a text."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")]
        query = "SELECT count(*) FROM {} WHERE instr({}, ?)"
        return {column for column in columns if connection.execute(query.format(*column), (text,)).fetchone()[0]}


def test_the_next_start_writes_into_the_moved_home_and_reads_what_was_written_before(moved):
    old = "old%20home/artifacts"
    assert {table for table, _ in mentions(moved.place, old)} == {
        "experiments",
        "runs",
        "logged_models",
        "model_versions",
    }
    moved.project(TRACKED_EPOCHS, number=1).finish("FINISHED", {"report.md": "whole"})
    assert not (moved.place.parent / "old home").exists()
    assert not mentions(moved.place, old)
    parent = moved.only("run").info.run_id
    assert {file.path for file in moved.client.list_artifacts(parent)} == {"plan.json", "report.md"}
    model = moved.client.get_model_version_by_alias("champions", "champion").source.removeprefix("models:/")
    assert "MLmodel" in {file.path for file in moved.client.list_logged_model_artifacts(model)}


def test_what_lies_elsewhere_keeps_its_place(moved):
    elsewhere = (moved.place.parent / "elsewhere").as_uri()
    moved.client.create_experiment("the user's own", artifact_location=elsewhere)
    follow_home(moved.uri, moved.place / "artifacts")
    assert moved.client.get_experiment_by_name("the user's own").artifact_location == elsewhere


def test_a_home_that_is_reached_by_a_symbolic_link_is_not_moved(tmp_path):
    (tmp_path / "home").mkdir()
    run = Tracked(tmp_path / "home")
    run.project(TRACKED_EPOCHS)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    home = Home(str(tmp_path / "link"), None)
    before = (tmp_path / "home/mlflow.db").read_bytes()
    follow_home(home.tracking_uri(""), home.artifacts)
    assert (tmp_path / "home/mlflow.db").read_bytes() == before


def test_a_database_that_the_user_names_keeps_its_places(moved):
    follow_home(f"sqlite:///{moved.place.parent / 'other.db'}", moved.place / "artifacts")
    follow_home("http://localhost:1", moved.place / "artifacts")
    assert mentions(moved.place, "old%20home/artifacts")
