"""A driver that has lost its run writes to MLflow late, or beside the one that has it: nothing is lost or doubled."""

import pytest
from helpers import TRACKED, TRACKED_EPOCHS, tracked_header
from mlflow import MlflowClient

from study.store.starts import Superseded


def twin_of(run, original, **tags):
    """Add a run with the tags of another, as a driver does whose call was completed too late."""
    kept = {name: value for name, value in original.data.tags.items() if name.startswith(("study.", "mlflow.p"))}
    return run.client.create_run(original.info.experiment_id, tags={**kept, **tags}, run_name=original.info.run_name)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_that_was_added_twice_is_deleted_and_the_one_that_is_further_stays(run, reference, first):
    run.project(2)
    if first:
        twin_of(run, run.only())
    tracker = run.project(TRACKED_EPOCHS)
    complete = run.only().info.run_id
    twin = twin_of(run, run.only(), **{"study.epochs": "2"})
    run.client.create_logged_model(twin.info.experiment_id, name="model", source_run_id=twin.info.run_id)
    twin_of(run, run.only("run"))
    tracker.refresh() if first else run.driver()
    assert run.only().info.run_id == complete
    models = run.client.search_logged_models([twin.info.experiment_id])
    assert [model.source_run_id for model in models] == [complete]
    assert run.only().data.tags["mlflow.parentRunId"] == run.only("run").info.run_id
    assert run.histories() == reference.histories()


def test_a_late_end_of_another_driver_is_mended(run, reference):
    tracker = run.project(TRACKED_EPOCHS)
    tracker.finish("FINISHED", {})
    for each in (run.only(), run.only("run")):
        run.client.set_terminated(each.info.run_id, "KILLED")
    tracker.refresh()
    tracker.project(TRACKED[0], 0, tracked_header(TRACKED_EPOCHS, TRACKED[0].by_replicate[0]), lambda: b"payload 5")
    tracker.finish("FINISHED", {})
    assert [each.info.status for each in (run.only(), run.only("run"))] == ["FINISHED"] * 2
    assert run.only().info.end_time == reference.only().info.end_time
    assert run.histories() == reference.histories()
    assert run.models() == [b"payload 5"]


def test_a_model_that_was_added_twice_is_deleted(run):
    tracker = run.project(TRACKED_EPOCHS)
    child = run.only()
    run.client.create_logged_model(child.info.experiment_id, name="model", source_run_id=child.info.run_id)
    tracker.refresh_models()
    assert run.models() == [b"payload 5"]


def test_no_call_is_made_once_the_run_is_lost(run):
    lost = []

    def claim():
        if lost:
            raise Superseded("another driver")

    tracker = run.driver(claim)
    tracker.project(TRACKED[0], 0, tracked_header(2, TRACKED[0].by_replicate[0]), lambda: b"")
    lost.append(True)
    for write in (
        lambda: tracker.project(TRACKED[0], 0, tracked_header(3, TRACKED[0].by_replicate[0]), lambda: b""),
        lambda: tracker.fail(TRACKED[0], 0, "lost"),
        lambda: tracker.finish("KILLED", {}),
    ):
        with pytest.raises(Superseded):
            write()
    assert [step for step, *_ in run.histories()["lr"]] == [0, 1]
    assert run.only().info.status == run.only("run").info.status == "RUNNING"


def test_two_drivers_that_create_the_experiment_at_the_same_time_share_one(run, monkeypatch):
    create = MlflowClient.create_experiment

    def create_twice(client, *arguments, **named):
        create(client, *arguments, **named)  # the other driver's call, under way when it was stopped
        return create(client, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_experiment", create_twice)
    run.driver()
    assert [each.name for each in run.client.search_experiments()].count(run.plan.run) == 1
