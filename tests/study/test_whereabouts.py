"""Where a run's records lie when only its store is named, and from which home it is taken up."""

from dataclasses import replace

import pytest
from helpers import planned_run

from study.api.calls import home_at
from study.errors import Refusal
from study.home import Home
from study.planning.stored import Resources
from study.whereabouts import data_dir_of, home_of, recorded
from study.wish import Machines

PLAN = planned_run()


@pytest.fixture
def homes(tmp_path):
    """A home with databases that a run was begun in, another one, and the run's plan."""
    begun, other = tmp_path / "begun", tmp_path / "other"
    for folder in (begun, other):
        folder.mkdir()
    for name in ("mlflow.db", "optuna.db"):
        (begun / name).touch()
    return begun, other, replace(PLAN, home=str(begun))


def test_a_run_whose_store_is_named_keeps_its_records_in_its_home(homes):
    begun, other, plan = homes
    found = home_of(plan, Home(str(other), str(begun / "store")), ("", ""))
    assert found.path == begun
    assert found.store_url == str(begun / "store")


def test_a_home_that_was_moved_with_its_store_is_the_home(homes):
    _, other, plan = homes
    assert home_of(plan, Home(str(other), None), ("", "")).path == other


def test_a_home_that_was_moved_apart_from_its_store_is_known_by_its_databases(homes):
    begun, other, plan = homes
    for name in ("mlflow.db", "optuna.db"):
        (begun / name).rename(other / name)
    assert home_of(plan, Home(str(other), "s3://bucket/store"), ("", "")).path == other


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [(("", "postgresql://host/optuna"), "mlflow.db"), (("http://host:5000", ""), "optuna.db")],
)
def test_only_the_databases_that_are_needed_are_looked_for(homes, chosen, kept):
    begun, other, plan = homes
    for path in begun.iterdir():
        path.unlink()
    (other / kept).touch()
    assert home_of(plan, Home(str(other), "s3://bucket/store"), chosen).path == other


def test_a_run_whose_records_are_nowhere_is_refused_with_the_home_that_had_them(homes):
    begun, other, plan = homes
    (begun / "optuna.db").unlink()
    place = Home(str(other), "s3://bucket/store")
    with pytest.raises(Refusal) as refusal:
        home_of(plan, place, ("", ""))
    assert str(refusal.value) == (
        f"--home must be {begun}, which holds the records of {plan.run} (got {str(other)!r}). "
        "Or give both --tracking-uri and --storage"
    )
    assert home_of(plan, place, ("http://host:5000", "postgresql://host/optuna")) is place
    assert home_of(plan, Home(str(begun), "s3://bucket/store"), ("", "")).path == begun  # a first start that was killed


KEPT = replace(PLAN, storage="postgresql://me:***@host/optuna", tracking_uri="http://me:***@host:5000")


def test_passwords_that_are_not_stored_are_read_from_the_variables(monkeypatch):
    urls = ("http://me:secret@host:5000", "postgresql://me:secret@host/optuna")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", urls[0])
    monkeypatch.setenv("STUDY_STORAGE", urls[1])
    assert recorded(KEPT) == urls
    assert recorded(PLAN) == ("", "")  # the environment moves no records
    monkeypatch.setenv("STUDY_STORAGE", "postgresql://me:secret@elsewhere/optuna")
    with pytest.raises(Refusal) as refusal:
        recorded(KEPT)
    assert str(refusal.value) == (
        "--storage: the password of 'postgresql://me:***@host/optuna' is not stored. "
        "Give the whole URL again, in STUDY_STORAGE or with --storage"
    )


def test_a_new_run_takes_its_places_from_the_variables(monkeypatch, tmp_path):
    assert home_at(None, None).store_url == str(home_at(None, None).path / "store")
    monkeypatch.setenv("STUDY_STORE", "s3://key:secret@bucket/studies")
    monkeypatch.setenv("STUDY_STORAGE", "postgresql://me:secret@host/optuna")
    home = home_at(tmp_path, None)
    assert home.store_url == "s3://key:secret@bucket/studies"
    assert home.options() == f" --home {tmp_path}"  # the next command reads the variable, too
    assert home.chosen(None, None)[1] == "postgresql://me:secret@host/optuna"
    assert home.chosen(None, "sqlite:///x.db")[1] == "sqlite:///x.db"
    assert home_at(tmp_path, "elsewhere").store_url == "elsewhere"
    monkeypatch.setenv("STUDY_STORAGE", "journal.log")
    with pytest.raises(Refusal, match=r"^STUDY_STORAGE must be "):
        home.check_services(*home.chosen(None, None))


def test_data_are_where_they_were_or_else_where_the_environment_or_the_new_home_has_them(tmp_path, monkeypatch):
    monkeypatch.delenv("STUDY_DATA", raising=False)
    began, other = tmp_path / "began", tmp_path / "other"
    plan = planned_run(home=str(began), resources=Resources(data_dir=str(began / "data")))
    home = Home(str(other), "s3://bucket/store")
    assert data_dir_of(plan, home) is None  # on a cluster, perhaps only the workers have it
    (other / "data").mkdir(parents=True)
    assert data_dir_of(plan, home) == str(other / "data")
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    assert data_dir_of(plan, home) == str(tmp_path)
    (began / "data").mkdir(parents=True)
    assert data_dir_of(plan, home) is None


def test_the_options_of_a_start_that_goes_on_in_the_background_are_those_that_were_given():
    assert Machines().options() == []
    given = Machines(workers=2, address="auto", data_dir="/data")
    assert given.options() == ["--workers", "2", "--address", "auto", "--data-dir", "/data"]
