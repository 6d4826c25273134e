"""MLflow follows a replicate's states: on a real database, with a plan and a work made by hand."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import mlflow
import pytest
from conftest import exporter
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from study.errors import Refusal
from study.machine import Machine
from study.plan.draft import Draft
from study.plan.stored import Plan, PlannedSpace, PlannedTrial, Resources
from study.space import Request, Resolved, Space, Trial, Work
from study.tracking import runs
from study.tracking.runs import Tracker

EPOCHS = 5
names = count()


class Killed(BaseException):
    pass


def parameters(config, number, _machine):
    return {**config, "seed": number, "lr": 0.1, "milestones": [1, 2]}


def cell(first, switch, numbers=(0, 1), **changes):
    row = f"{first}⇒{switch}"
    ends = tuple(f"{row} {number}" for number in numbers)
    config = {"first": first, "switch": switch}
    trial = PlannedTrial("table9", f"{row} (digits)", row, "digits", config, {}, None, "", EPOCHS, ends, "test/top1")
    return replace(trial, **changes)


def resolve(config, number, _machine):
    row = f"{config['first']}⇒{config['switch']} {number}"
    return Resolved({}, ({},) * EPOCHS, (*(f"{row}/{epoch}" for epoch in range(EPOCHS)), row))


CELLS = (cell("IB", "CR"), cell("CB", "IB"))


def header(epochs, key="IB⇒CR 0"):
    """A state's, after so many epochs; the first two were inherited from another run."""
    measures = [
        {
            "lr": 0.1 / (n + 1),
            "train/loss": 2.0 - n / 9,
            "test/top1": 50.0 + n,
            "calibration": n / 7,
            "test/class_accuracy": [n, 2 * n],
        }
        for n in range(epochs)
    ]
    provenance = [{"from_epoch": 0, "run": "other", "host": "one"}, {"from_epoch": 2, "run": "mine", "host": "two"}]
    return {
        "key": key if epochs == EPOCHS else f"{key}/{epochs}",
        "epochs": epochs,
        "measures": measures,
        "wall_seconds": [1.25] * epochs,
        "provenance": provenance if epochs > 2 else provenance[:1],
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A database and a folder of artefacts for all tests; each has an experiment of its own."""
    return tmp_path_factory.mktemp("mlflow")


class Run:
    """A run of the platform with its MLflow: drivers come and go, the records stay."""

    def __init__(self, place):
        self.place, self.uri = place, f"sqlite:///{place / 'mlflow.db'}"
        space = PlannedSpace("table9", "Table 9: a title", "", ("test/top1",), (), {}, "table9", "")
        self.plan = Plan(
            f"run-{next(names)}",
            Request(),
            Machine("cpu", 1),
            Resources(),
            2,
            (space,),
            CELLS,
            {},
            20,
            created="2020-02-02T02:02:02.020+00:00",
            commit="c0",
            versions={"torch": "2"},
        )
        self.client = MlflowClient(self.uri)

    def driver(self):
        """A new driver's tracker, at work."""
        work = Work(resolve, None, None, None, parameters, exporter, None)
        space = Space("table9", "Table 9: a title", (Trial("row", "column", {}, {}),), {}, work)
        draft = Draft(replace(self.plan, epochs_needed=0), [space], self.plan.trials)
        self.plan = draft.plan
        tracker = Tracker(draft, self.uri, self.place / "artifacts")
        if not tracker.is_closed():
            tracker.begin()
        return tracker

    def project(self, *epochs, cell=CELLS[0], number=0):
        """A driver that comes, shows states of one replicate, and goes."""
        tracker = self.driver()
        for each in epochs:
            tracker.project(cell, number, header(each, cell.by_replicate[number]), lambda: b"payload %d" % each)  # noqa: B023
        return tracker

    def all(self, kind):
        experiment = self.client.get_experiment_by_name(self.plan.run)
        return self.client.search_runs([experiment.experiment_id], f"tags.`study.kind` = '{kind}'")

    def only(self, kind="replicate"):
        (run,) = self.all(kind)
        return run

    def versions(self):
        """The versions of the model that is registered under the run's name, the first one first."""
        found = self.client.search_model_versions(f"name = '{self.plan.run}'")
        numbers = sorted(int(version.version) for version in found)
        return [self.client.get_model_version(self.plan.run, str(number)) for number in numbers]

    def models(self):
        """The payload of each model that the experiment has; all of them are whole, and the output of their run."""
        experiment = self.client.get_experiment_by_name(self.plan.run).experiment_id
        models = self.client.search_logged_models([experiment])
        outputs = {each.info.run_id: each.outputs.model_outputs for each in self.all("replicate") if each.outputs}
        for model in models:
            assert model.status == LoggedModelStatus.READY
            assert [output.model_id for output in outputs[model.source_run_id]] == [model.model_id]
            assert Model.load(f"models:/{model.model_id}").run_id == model.source_run_id
            shown = self.client.get_run(model.source_run_id).data
            assert model.params == shown.params
            assert {metric.key: metric.value for metric in model.metrics} == shown.metrics
        folders = [mlflow.artifacts.download_artifacts(f"models:/{model.model_id}") for model in models]
        return sorted(Path(folder, "payload").read_bytes() for folder in folders)

    def histories(self):
        """Every value of every metric of the only replicate: (step, timestamp, value)."""
        run = self.only()
        return {
            name: [(m.step, m.timestamp, m.value) for m in self.client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }


@pytest.fixture
def run(place):
    return Run(place)


@pytest.fixture(scope="module")
def reference(place):
    """What MLflow holds of a replicate that was shown once, at its end."""
    run = Run(place)
    run.project(EPOCHS)
    return run


def test_an_epochs_curves_are_a_step_and_the_rest_is_written_at_the_end(reference):
    found = reference.histories()
    start, second = 1580608922020, 1000
    at = [int(start + 1.25 * second * (n + 1)) for n in range(EPOCHS)]
    assert found["test/top1"] == [(n, at[n], 50.0 + n) for n in range(EPOCHS)]
    assert [step for step, *_ in found["lr"]] == list(range(EPOCHS))
    assert found["calibration"] == [(EPOCHS - 1, at[-1], (EPOCHS - 1) / 7)]
    assert [found[f"test/class/{rank:04d}"] for rank in (0, 1)] == [[(4, at[-1], 4.0)], [(4, at[-1], 8.0)]]
    assert found.keys() == {
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
    assert (child.info.status, child.info.end_time) == ("FINISHED", child.info.start_time + EPOCHS * 1250)
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
    """The `call`-th of the client's writing calls ends the process instead."""
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
            run.project(EPOCHS)
    run.project(EPOCHS)
    assert run.histories() == reference.histories()
    for kind in ("replicate", "run"):
        assert run.only(kind).data.params == reference.only(kind).data.params
    assert run.only().info.status == "FINISHED"
    assert run.only().data.tags["study.epochs"] == str(EPOCHS)
    assert [file.path for file in run.client.list_artifacts(run.only("run").info.run_id)] == ["plan.json"]
    assert run.models() == [b"payload 5"]


def test_a_replicate_that_is_stopped_is_killed_until_it_goes_on(run, reference):
    tracker = run.project(3)
    tracker.fail(CELLS[1], 1, "Diverged")
    tracker.finish("KILLED", {"report.md": "half"})
    assert {each.info.status for each in run.all("replicate")} == {"KILLED", "FAILED"}
    again = run.project(3)  # what a resume shows first: no epoch is new
    assert {each.info.status for each in run.all("replicate")} == {"RUNNING", "FAILED"}
    again.project(CELLS[0], 0, header(EPOCHS), lambda: b"payload 5")
    again.finish("FINISHED", {"report.md": "whole"})
    (shown,) = [each for each in run.all("replicate") if each.data.tags["study.trial"] == CELLS[0].name]
    assert (shown.info.status, shown.info.end_time) == ("FINISHED", reference.only().info.end_time)


def test_a_failure_is_shown_and_may_be_made_good(run):
    tracker = run.project(3)
    tracker.fail(CELLS[0], 0, "Diverged: the loss is NaN")
    tracker.fail(CELLS[1], 1, "never begun")
    shown = {each.data.params["trial"]: each for each in run.all("replicate")}
    assert {each.info.status for each in shown.values()} == {"FAILED"}
    assert shown["IB⇒CR (digits)"].data.tags["study.failed_because"] == "Diverged: the loss is NaN"
    assert shown["CB⇒IB (digits)"].data.tags["study.failed_because"] == "never begun"
    assert not run.driver().is_complete(CELLS[0], 0)
    assert run.project(EPOCHS).is_complete(CELLS[0], 0)


def test_the_report_is_kept_and_a_finished_run_is_closed(run):
    for cell in CELLS:
        for number in range(2):
            tracker = run.project(EPOCHS, cell=cell, number=number)
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
    """Each writing call meets an outage when it is first made: before it has an effect, or before it is answered."""
    met = set()

    def fragile(name, method):
        def maybe(self, *args, **kwargs):
            file = Path(args[1]).name if name == "log_artifact" else ""
            call = (name,) if name in MODEL_WRITES else (name, file or str(args), "" if file else str(kwargs))
            first = call not in met
            met.add(call)
            if first and when == "before":
                raise MlflowException("the server is away")
            found = method(self, *args, **kwargs)
            if first:
                raise MlflowException("the server is away")
            return found

        return maybe

    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, fragile(name, getattr(MlflowClient, name)))


def patiently(task):
    """What a follower does."""
    for _ in range(100):
        try:
            return task()
        except MlflowException as error:
            if not runs.is_outage(error):
                raise
    raise AssertionError("it was never done")


@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_call_meets_an_outage_nothing_is_lost_or_doubled(run, reference, monkeypatch, when):
    monkeypatch.setattr("study.tracking.runs.BATCH", 7)  # two epochs of three curves
    champion = CELLS[0]
    with monkeypatch.context() as patch:
        unreliable(patch, when)
        tracker = patiently(run.driver)
        for epochs in (2, EPOCHS):
            patiently(lambda: tracker.project(champion, 0, header(epochs), lambda: b"payload"))  # noqa: B023
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


def test_each_champion_is_registered_once_and_the_best_has_the_alias(run):
    first, second = CELLS
    for each in CELLS:
        tracker = run.project(EPOCHS, cell=each)
    for champions, aliased in (([first, second], first), ([first], first), ([second, first], second), ([first], first)):
        tracker.register(run.plan.run, champions)
        versions = {version.tags["study.key"]: version for version in run.versions()}
        assert versions.keys() <= {"IB⇒CR 0", "CB⇒IB 0"}
        assert {key for key, version in versions.items() if version.aliases} == {aliased.ends[0]}
        tracker = run.driver()  # another start knows them as well
    assert len(run.versions()) == 2
    version = versions["IB⇒CR 0"]
    assert {"study.trial": first.name, "study.run": run.plan.run}.items() <= version.tags.items()
    (child,) = [each for each in run.all("replicate") if each.info.run_id == version.run_id]
    assert child.data.params["trial"] == first.label
    assert version.source == f"models:/{child.outputs.model_outputs[0].model_id}"


def test_a_champion_that_is_registered_later_is_the_next_version(run):
    first, second = CELLS
    for each in CELLS:
        tracker = run.project(EPOCHS, cell=each)
    tracker.register(run.plan.run, [first])
    assert [(version.version, version.aliases) for version in run.versions()] == [(1, ["champion"])]
    tracker.register(run.plan.run, [second])
    assert [(version.version, version.aliases) for version in run.versions()] == [(1, []), (2, ["champion"])]
    tracker.register(run.plan.run, [first])
    assert [(version.version, version.aliases) for version in run.versions()] == [(1, ["champion"]), (2, [])]


def test_the_model_of_a_champion_is_that_of_its_first_fresh_replicate(run):
    champion = cell("IB", "CR", (1000, 1001), label="champion #7", champion_of="#7", first_replicate=1000)
    run.plan = replace(run.plan, trials=(*run.plan.trials, champion))
    for number in (1001, 1000):
        tracker = run.project(EPOCHS, cell=champion, number=number)
    tracker.register(run.plan.run, [champion])
    (version,) = run.versions()
    child = run.client.get_run(version.run_id)
    assert child.data.tags["study.replicate"] == "1000"
    assert child.data.params["champion_of"] == "#7"
    assert version.tags["study.key"] == "IB⇒CR 1000"


def test_a_run_that_grew_is_opened_again_and_says_so(run):
    whole = run.plan
    run.plan = replace(whole, replicates=1, trials=tuple(replace(each, ends=each.ends[:1]) for each in CELLS[:1]))
    run.project(EPOCHS).finish("FINISHED", {"report.md": "small"})
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
    for each in CELLS:
        for number in range(2):
            tracker.project(each, number, header(EPOCHS, each.ends[number]), lambda: b"payload")
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
    run.project(EPOCHS).finish("FINISHED", {"report.md": "old"})
    old_parent, old_child = run.only("run"), run.only()
    run.plan = replace(run.plan, generation=1)
    tracker = run.driver()
    assert not tracker.is_complete(CELLS[0], 0)
    tracker.project(CELLS[0], 0, header(3), lambda: b"payload")
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
    stopped = replace(CELLS[0], epochs=3, stopped=True, ends=("IB⇒CR 0/3", "IB⇒CR 1/3"))
    tracker.project(stopped, 0, header(3), lambda: b"payload")
    shown = run.only()
    assert (shown.info.status, shown.data.tags["study.stopped_early"]) == ("FINISHED", "True")
    assert [step for step, *_ in run.histories()["lr"]] == [0, 1, 2]
    assert [step for step, *_ in run.histories()["calibration"]] == [2]
    assert len(run.models()) == 1


def test_a_deleted_experiment_is_refused(run):
    run.driver()
    run.client.delete_experiment(run.client.get_experiment_by_name(run.plan.run).experiment_id)
    with pytest.raises(Refusal, match=f"{run.plan.run}.*mlflow experiments restore.*--name"):
        run.driver()
