"""MLflow follows a replicate's states: on a real database, with a plan and a work made by hand."""

import json
from itertools import count

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from study import tracking
from study.plan import Machine, Plan, PlannedSpace, PlannedTrial, Request, Resources, Work
from study.refusal import Refusal
from study.tracking import Tracker

EPOCHS = 5
names = count()


class Killed(BaseException):
    pass


class Logged:
    """The models that were logged: to MLflow an output of its run, here the payloads."""

    def __init__(self):
        self.payloads = []

    def __call__(self, _config, payload):
        self.payloads.append(payload)
        model = mlflow.initialize_logged_model(name="model", source_run_id=mlflow.active_run().info.run_id)
        mlflow.log_outputs(models=[LoggedModelOutput(model.model_id, step=0)])


def parameters(config, number):
    return {**config, "seed": number, "lr": 0.1, "milestones": [1, 2]}


def cell(first, switch):
    config = {"first": first, "switch": switch}
    row = f"{first}⇒{switch}"
    return PlannedTrial(
        "table9", f"{row} (digits)", row, "digits", config, {}, None, "", EPOCHS, (f"{row} 0", f"{row} 1")
    )


CELLS = (cell("IB", "CR"), cell("CB", "IB"))


def header(epochs, key="IB⇒CR 0"):
    """A state's, after so many epochs; the first two were inherited from another run."""
    measures = [
        {
            "lr": 0.1 / (n + 1), "train/loss": 2.0 - n / 9, "test/top1": 50.0 + n, "calibration": n / 7,
            "test/class_accuracy": [n, 2 * n],
        }
        for n in range(epochs)
    ]  # fmt: skip
    provenance = [{"from_epoch": 0, "run": "other", "host": "one"}, {"from_epoch": 2, "run": "mine", "host": "two"}]
    return {
        "key": key if epochs == EPOCHS else f"{key}/{epochs}", "epochs": epochs, "measures": measures,
        "wall_seconds": [1.25] * epochs, "provenance": provenance if epochs > 2 else provenance[:1],
    }  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A database and a folder of artefacts for all tests; each has an experiment of its own."""
    return tmp_path_factory.mktemp("mlflow")


class Run:
    """A run of the platform with its MLflow: drivers come and go, the records stay."""

    def __init__(self, place):
        self.place, self.uri, self.log_model = place, f"sqlite:///{place / 'mlflow.db'}", Logged()
        space = PlannedSpace("table9", "Table 9: a title", "", "test/top1", (), {}, "table9", "")
        self.plan = Plan(
            f"run-{next(names)}", Request(), Machine("cpu", 1), Resources(), 2, (space,), CELLS, {}, 20,
            created="2020-02-02T02:02:02.020+00:00", commit="c0", versions={"torch": "2"},
        )  # fmt: skip
        self.client = MlflowClient(self.uri)

    def driver(self):
        """A new driver's tracker, at work."""
        work = Work(None, None, None, None, parameters, self.log_model)
        tracker = Tracker(self.plan, work, self.uri, self.place / "artifacts")
        if not tracker.is_closed():
            tracker.begin()
        return tracker

    def project(self, *epochs, cell=CELLS[0], number=0):
        """A driver that comes, shows states of one replicate, and goes."""
        tracker = self.driver()
        for each in epochs:
            tracker.project(cell, number, header(each, cell.ends[number]), lambda: b"payload %d" % each)  # noqa: B023
        return tracker

    def all(self, kind):
        experiment = self.client.get_experiment_by_name(self.plan.run)
        return self.client.search_runs([experiment.experiment_id], f"tags.`study.kind` = '{kind}'")

    def only(self, kind="replicate"):
        (run,) = self.all(kind)
        return run

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
        "lr", "train/loss", "test/top1", "calibration", "test/class/0000", "test/class/0001",
    }  # fmt: skip


def test_a_replicate_says_what_it_is(reference):
    child, parent = reference.only(), reference.only("run")
    assert child.info.run_name == "IB⇒CR (digits) r0"
    assert child.data.params == {
        "space": "table9", "trial": "IB⇒CR (digits)", "replicate": "0", "first": "IB", "switch": "CR", "seed": "0",
        "lr": "0.1", "milestones": "[1, 2]",
    }  # fmt: skip
    assert {
        "mlflow.parentRunId": parent.info.run_id, "study.run": reference.plan.run, "study.space": "table9",
        "study.trial": "table9/IB⇒CR (digits)", "study.replicate": "0", "study.key": "IB⇒CR 0", "study.epochs": "5",
        "study.provenance": "epochs 0-1 by other on one; epochs 2-4 by mine on two",
    }.items() <= child.data.tags.items()  # fmt: skip
    assert (child.info.status, child.info.end_time) == ("FINISHED", child.info.start_time + EPOCHS * 1250)
    assert reference.log_model.payloads == [b"payload 5"]


def test_the_plan_stands_in_the_parent_before_anything_is_shown(run):
    run.driver()
    parent = run.only("run")
    assert parent.info.status == "RUNNING"
    assert {"study": "table9", "replicates": "2", "commit": "c0", "trials": "2", "version.torch": "2"}.items() <= (
        parent.data.params.items()
    )
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
    assert run.log_model.payloads == [b"payload 5"]


def test_a_state_on_the_way_leaves_the_replicate_running_without_a_model(run):
    run.project(3)
    assert run.only().info.status == "RUNNING"
    assert (run.only().data.tags["study.epochs"], run.only().data.tags["study.key"]) == ("3", "IB⇒CR 0/3")
    assert [step for step, *_ in run.histories()["lr"]] == [0, 1, 2]
    assert "calibration" not in run.histories()
    assert run.log_model.payloads == []


KILLS = (
    "creating the parent", "the plan", "its parameters", "creating the child", "its parameters too", "first batch",
    "second batch", "last batch", "the end of the model's logging", "the end time",
)  # fmt: skip


def killed_at(monkeypatch, call):
    """The `call`-th of the client's writing calls ends the process instead."""
    calls = count()

    def fragile(method):
        def maybe(*args, **kwargs):
            if next(calls) == call:
                raise Killed
            return method(*args, **kwargs)

        return maybe

    for name in ("create_run", "log_batch", "log_dict", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, fragile(getattr(MlflowClient, name)))


@pytest.mark.parametrize("call", range(len(KILLS)), ids=KILLS)
def test_a_driver_killed_while_it_writes_is_taken_up(run, reference, monkeypatch, call):
    monkeypatch.setattr(tracking, "BATCH", 7)  # two epochs of three curves
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
    assert run.log_model.payloads == [b"payload 5"]


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
        "plan.json", "report.md", "combinations.png",
    }  # fmt: skip
    assert run.driver().is_closed()
    assert run.only("run").info.status == "FINISHED"


def test_an_interrupted_run_is_opened_again(run):
    run.project(3).finish("KILLED", {})
    assert run.only("run").info.status == "KILLED"
    assert not run.driver().is_closed()
    assert run.only("run").info.status == "RUNNING"


def test_a_deleted_experiment_is_refused(run):
    run.driver()
    run.client.delete_experiment(run.client.get_experiment_by_name(run.plan.run).experiment_id)
    with pytest.raises(Refusal, match=f"{run.plan.run}.*mlflow experiments restore.*--name"):
        run.driver()
