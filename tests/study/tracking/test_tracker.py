"""MLflow follows a replicate's states, on a real database, with a plan and a work of the test."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import mlflow
import pytest
from helpers import TRACKED, TRACKED_EPOCHS, Killed, tracked_header
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from study.errors import Refusal
from study.tracking import runs
from study.tracking.answers import is_outage


def test_an_epochs_curves_are_a_step_and_the_rest_is_written_at_the_end(reference):
    histories = reference.histories()
    start, second = 1580608922020, 1000
    at = [int(start + 1.25 * second * (n + 1)) for n in range(TRACKED_EPOCHS)]
    assert histories["test/top1"] == [(n, at[n], 50.0 + n) for n in range(TRACKED_EPOCHS)]
    assert [step for step, *_ in histories["lr"]] == list(range(TRACKED_EPOCHS))
    assert histories["calibration"] == [(TRACKED_EPOCHS - 1, at[-1], (TRACKED_EPOCHS - 1) / 7)]
    assert [histories[f"test/class/{rank:04d}"] for rank in (0, 1)] == [[(4, at[-1], 4.0)], [(4, at[-1], 8.0)]]
    assert histories.keys() == {
        "lr",
        "train/loss",
        "test/top1",
        "calibration",
        "test/class/0000",
        "test/class/0001",
    }


def test_a_replicate_says_what_it_is(reference):
    child, parent = reference.only(), reference.only("run")
    assert child.info.run_name == "IB⇒CR (digits) r0"
    assert child.data.params == {
        "space": "table9",
        "trial": "IB⇒CR (digits)",
        "replicate": "0",
        "first": "IB",
        "switch": "CR",
        "seed": "0",
        "lr": "0.1",
        "milestones": "[1, 2]",
    }
    assert {
        "mlflow.parentRunId": parent.info.run_id,
        "study.run": reference.plan.run,
        "study.space": "table9",
        "study.trial": "table9/IB⇒CR (digits)",
        "study.replicate": "0",
        "study.key": "IB⇒CR 0",
        "study.epochs": "5",
        "study.provenance": "epochs 0-1 by other on one; epochs 2-4 by mine on two",
    }.items() <= child.data.tags.items()
    assert (child.info.status, child.info.end_time) == ("FINISHED", child.info.start_time + TRACKED_EPOCHS * 1250)
    assert reference.models() == [b"payload 5"]


def test_the_plan_stands_in_the_parent_before_anything_is_shown(run):
    run.driver()
    parent = run.only("run")
    assert parent.info.status == "RUNNING"
    assert {"study": "table9", "replicates": "2", "commit": "c0", "trials": "2", "version.torch": "2"}.items() <= (
        parent.data.tags.items()  # for all that may change when the run grows, or is taken up later
    )
    assert parent.data.tags["epochs_needed"] == "20"
    machine = {"device": "cpu", "threads": "1", "precision": "auto", "bf16": "false", "ranks": "1"}
    assert parent.data.params == {**machine, "created": run.plan.created}
    text = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/plan.json")
    assert json.loads(text) == json.loads(json.dumps(run.plan.to_json()))
    assert run.all("replicate") == []


@pytest.mark.parametrize("drivers", [[(5,), (5,)], [(5, 5)], [(2, 5)], [(2, 2, 4), (5,)], [(3,), (1, 5), (5,)]])
def test_however_often_it_is_shown_each_metric_stands_once_a_step(run, reference, drivers):
    for epochs in drivers:
        run.project(*epochs)
    assert run.histories() == reference.histories()
    assert run.only().data.params == reference.only().data.params
    assert run.only().info.status == "FINISHED"
    assert run.models() == [b"payload 5"]


def test_a_state_on_the_way_leaves_the_replicate_running_without_a_model(run):
    run.project(3)
    assert run.only().info.status == "RUNNING"
    assert (run.only().data.tags["study.epochs"], run.only().data.tags["study.key"]) == ("3", "IB⇒CR 0/3")
    assert [step for step, *_ in run.histories()["lr"]] == [0, 1, 2]
    assert "calibration" not in run.histories()
    assert run.models() == []


MODEL_WRITES = ("create_logged_model", "log_model_artifacts", "log_outputs", "finalize_logged_model")
KILLS = (
    "creating the parent",
    "its parameters",
    "its tags",
    "the plan",
    "creating the child",
    "the child's parameters",
    "the model",
    "its files",
    "whose output it is",
    "that it is whole",
    "first batch",
    "second batch",
    "last batch",
    "the end time",
)


def killed_at(monkeypatch, call):
    """Let the `call`-th of the client's writing calls end the process."""
    calls = count()

    def fragile(method):
        def maybe(*args, **kwargs):
            if next(calls) == call:
                raise Killed
            return method(*args, **kwargs)

        return maybe

    for name in ("create_run", "log_batch", "log_dict", "set_terminated", *MODEL_WRITES):
        monkeypatch.setattr(MlflowClient, name, fragile(getattr(MlflowClient, name)))


@pytest.mark.parametrize("call", range(len(KILLS)), ids=KILLS)
def test_a_driver_killed_while_it_writes_is_taken_up(run, reference, monkeypatch, call):
    monkeypatch.setattr("study.tracking.runs.BATCH", 7)  # two epochs of three curves
    with monkeypatch.context() as patch:
        killed_at(patch, call)
        with pytest.raises(Killed):
            run.project(TRACKED_EPOCHS)
    run.project(TRACKED_EPOCHS)
    assert run.histories() == reference.histories()
    for kind in ("replicate", "run"):
        assert run.only(kind).data.params == reference.only(kind).data.params
    assert run.only().info.status == "FINISHED"
    assert run.only().data.tags["study.epochs"] == str(TRACKED_EPOCHS)
    assert [file.path for file in run.client.list_artifacts(run.only("run").info.run_id)] == ["plan.json"]
    assert run.models() == [b"payload 5"]


def test_a_replicate_that_is_stopped_is_killed_until_it_goes_on(run, reference):
    tracker = run.project(3)
    tracker.fail(TRACKED[1], 1, "Diverged")
    tracker.finish("KILLED", {"report.md": "half"})
    assert {each.info.status for each in run.all("replicate")} == {"KILLED", "FAILED"}
    again = run.project(3)  # what a resume shows first: no epoch is new
    assert {each.info.status for each in run.all("replicate")} == {"RUNNING", "FAILED"}
    again.project(TRACKED[0], 0, tracked_header(TRACKED_EPOCHS), lambda: b"payload 5")
    again.finish("FINISHED", {"report.md": "whole"})
    (shown,) = [each for each in run.all("replicate") if each.data.tags["study.trial"] == TRACKED[0].name]
    assert (shown.info.status, shown.info.end_time) == ("FINISHED", reference.only().info.end_time)


def test_a_failure_is_shown_and_may_be_made_good(run):
    tracker = run.project(3)
    tracker.fail(TRACKED[0], 0, "Diverged: the loss is NaN")
    tracker.fail(TRACKED[1], 1, "never begun")
    shown = {each.data.params["trial"]: each for each in run.all("replicate")}
    assert {each.info.status for each in shown.values()} == {"FAILED"}
    assert shown["IB⇒CR (digits)"].data.tags["study.failed_because"] == "Diverged: the loss is NaN"
    assert shown["CB⇒IB (digits)"].data.tags["study.failed_because"] == "never begun"
    assert not run.driver().is_complete(TRACKED[0], 0)
    assert run.project(TRACKED_EPOCHS).is_complete(TRACKED[0], 0)


def test_the_report_is_kept_and_a_finished_run_is_closed(run):
    for cell in TRACKED:
        for number in range(2):
            tracker = run.project(TRACKED_EPOCHS, cell=cell, number=number)
    assert not tracker.is_closed()
    tracker.finish("FINISHED", {"report.md": "| IB⇒CR |", "combinations.png": b"\x89PNG"})
    parent = run.only("run")
    assert mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report.md") == "| IB⇒CR |"
    assert {file.path for file in run.client.list_artifacts(parent.info.run_id)} == {
        "plan.json",
        "report.md",
        "combinations.png",
    }
    assert run.driver().is_closed()
    assert run.only("run").info.status == "FINISHED"


def test_an_interrupted_run_is_opened_again(run):
    run.project(3).finish("KILLED", {})
    assert run.only("run").info.status == "KILLED"
    assert not run.driver().is_closed()
    assert run.only("run").info.status == "RUNNING"


WRITES = (
    "create_experiment",
    "create_run",
    "log_batch",
    "log_dict",
    "log_text",
    "log_artifact",
    "set_tag",
    "set_terminated",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    *MODEL_WRITES,
)


def unreliable(monkeypatch, when):
    """Let the first try of each writing call meet an outage, before its effect or before its answer."""
    met = set()

    def fragile(name, method):
        def maybe(self, *args, **kwargs):
            file = Path(args[1]).name if name == "log_artifact" else ""
            call = (name,) if name in MODEL_WRITES else (name, file or str(args), "" if file else str(kwargs))
            first = call not in met
            met.add(call)
            if first and when == "before":
                raise MlflowException("the server is away")
            result = method(self, *args, **kwargs)
            if first:
                raise MlflowException("the server is away")
            return result

        return maybe

    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, fragile(name, getattr(MlflowClient, name)))


def patiently(task):
    """Retry a task as a follower does."""
    for _ in range(100):
        try:
            return task()
        except MlflowException as error:
            if not is_outage(error):
                raise
    raise AssertionError("it was never done")


@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_call_meets_an_outage_nothing_is_lost_or_doubled(run, reference, monkeypatch, when):
    monkeypatch.setattr("study.tracking.runs.BATCH", 7)  # two epochs of three curves
    champion = TRACKED[0]
    with monkeypatch.context() as patch:
        unreliable(patch, when)
        tracker = patiently(run.driver)
        for epochs in (2, TRACKED_EPOCHS):
            patiently(lambda: tracker.project(champion, 0, tracked_header(epochs), lambda: b"payload"))  # noqa: B023
        patiently(lambda: tracker.register(run.plan.run, [champion]))
        patiently(lambda: tracker.finish("FINISHED", {"report.md": "| IB⇒CR |", "combinations.png": b"\x89PNG"}))
    assert run.histories() == reference.histories()
    assert run.only().data.params == reference.only().data.params
    assert run.only().info.end_time == reference.only().info.end_time
    assert len(run.only().outputs.model_outputs) == 1
    parent = run.only("run")
    assert (parent.info.status, run.only().info.status) == ("FINISHED", "FINISHED")
    assert {file.path for file in run.client.list_artifacts(parent.info.run_id)} == {
        "plan.json",
        "report.md",
        "combinations.png",
    }
    (version,) = run.versions()
    assert version.aliases == ["champion"]


def test_a_run_that_grew_is_opened_again_and_says_so(run):
    whole = run.plan
    run.plan = replace(whole, replicates=1, trials=tuple(replace(each, ends=each.ends[:1]) for each in TRACKED[:1]))
    run.project(TRACKED_EPOCHS).finish("FINISHED", {"report.md": "small"})
    assert run.driver().is_closed()
    before, history = run.only("run"), run.histories()
    assert [before.data.tags[name] for name in ("replicates", "trials", "epochs_needed")] == ["1", "1", "5"]

    run.plan = whole
    tracker = run.driver()
    assert not tracker.is_closed()
    parent = run.only("run")
    assert parent.info.status == "RUNNING"
    assert parent.data.params == before.data.params
    assert [parent.data.tags[name] for name in ("replicates", "trials", "epochs_needed")] == ["2", "2", "20"]
    text = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/plan.json")
    assert json.loads(text) == json.loads(json.dumps(run.plan.to_json()))
    for each in TRACKED:
        for number in range(2):
            tracker.project(each, number, tracked_header(TRACKED_EPOCHS, each.ends[number]), lambda: b"payload")
    tracker.finish("FINISHED", {"report.md": "large"})
    assert run.driver().is_closed()
    assert run.only("run").info.run_id == parent.info.run_id
    assert mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report.md") == "large"
    assert len(run.all("replicate")) == 4
    assert len(run.models()) == 4
    (first,) = [each for each in run.all("replicate") if each.data.tags["study.key"] == "IB⇒CR 0"]
    assert {
        name: [(m.step, m.timestamp, m.value) for m in run.client.get_metric_history(first.info.run_id, name)]
        for name in first.data.metrics
    } == history


def test_an_older_generation_is_left_alone(run):
    run.project(TRACKED_EPOCHS).finish("FINISHED", {"report.md": "old"})
    old_parent, old_child = run.only("run"), run.only()
    run.plan = replace(run.plan, generation=1)
    tracker = run.driver()
    assert not tracker.is_complete(TRACKED[0], 0)
    tracker.project(TRACKED[0], 0, tracked_header(3), lambda: b"payload")
    tracker.finish("KILLED", {"report.md": "new"})
    assert run.client.get_run(old_parent.info.run_id).to_dictionary() == old_parent.to_dictionary()
    assert run.client.get_run(old_child.info.run_id).to_dictionary() == old_child.to_dictionary()
    assert mlflow.artifacts.load_text(f"{old_parent.info.artifact_uri}/report.md") == "old"
    for kind, old in (("run", old_parent), ("replicate", old_child)):
        (new,) = [each for each in run.all(kind) if each.info.run_id != old.info.run_id]
        assert new.data.tags["study.generation"] == "1"


def test_a_point_that_is_stopped_early_ends_there_with_all_that_is_written_at_the_end(run):
    tracker = run.project(3)
    assert run.only().info.status == "RUNNING"
    stopped = replace(TRACKED[0], epochs=3, stopped=True, ends=("IB⇒CR 0/3", "IB⇒CR 1/3"))
    tracker.project(stopped, 0, tracked_header(3), lambda: b"payload")
    shown = run.only()
    assert (shown.info.status, shown.data.tags["study.stopped_early"]) == ("FINISHED", "True")
    assert [step for step, *_ in run.histories()["lr"]] == [0, 1, 2]
    assert [step for step, *_ in run.histories()["calibration"]] == [2]
    assert len(run.models()) == 1


@pytest.mark.parametrize("kind", ["replicate", "run"])
def test_a_run_that_the_user_has_deleted_is_made_again(run, reference, kind):
    tracker = run.project(2)
    run.client.delete_run(run.only(kind).info.run_id)
    tracker.refresh()
    tracker.project(TRACKED[0], 0, tracked_header(TRACKED_EPOCHS, TRACKED[0].by_replicate[0]), lambda: b"payload 5")
    assert run.only().data.tags["mlflow.parentRunId"] == run.only("run").info.run_id
    assert run.histories() == reference.histories()


def test_a_proxy_that_takes_only_small_requests_gets_small_ones(run, reference, monkeypatch):
    log, sizes = MlflowClient.log_batch, []

    def small(client, run_id, metrics=(), **more):
        if len(metrics) > 6:  # an epoch with everything that is written at the end
            raise MlflowException("API request failed with error code 413 != 200. Response body: '<html>'")
        sizes.append(len(metrics))
        return log(client, run_id, metrics=metrics, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", small)
    run.project(TRACKED_EPOCHS)
    assert len([size for size in sizes if size]) > 2
    assert run.histories() == reference.histories()


def test_a_deleted_experiment_is_refused(run):
    run.driver()
    run.client.delete_experiment(run.client.get_experiment_by_name(run.plan.run).experiment_id)
    with pytest.raises(Refusal, match=f"{run.plan.run}.*mlflow experiments restore.*--name"):
        run.driver()


@pytest.mark.parametrize("module", [path.stem for path in Path(runs.__file__).parent.glob("[a-z]*.py")])
def test_no_module_imports_mlflow_before_its_telemetry_is_off(module):
    code = f"""
import os, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "mlflow":
            print(os.environ.get("MLFLOW_DISABLE_TELEMETRY"))
            raise SystemExit

sys.meta_path.insert(0, Finder())
import study.tracking.{module}
"""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout in ("", "true\n")  # empty: it does not import MLflow
