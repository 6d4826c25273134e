"""The records follow the store: a real store, a real Optuna storage and a real MLflow database."""

from dataclasses import replace
from itertools import count

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from study.plan import Choice, Machine, Plan, PlannedSpace, PlannedTrial, Request, Resolved, Resources, Work
from study.planning import Draft
from study.projection import Projection
from study.search import Search
from study.store import Store
from study.tracking import Tracker

SAMPLERS = ("CB", "CR")
DOMAIN = {"switch": Choice(SAMPLERS)}
names = count()


def recipe(switch, seed):
    """Three epochs; the first two are the same whatever comes then."""
    epochs = ("IB", "IB", switch)
    keys = [f"seed {seed}"]
    for epoch in epochs:
        keys.append(f"{keys[-1]} {epoch}")
    return Resolved({}, tuple({"sampler": epoch} for epoch in epochs), tuple(keys))


def top1(key):
    """What a state measures: some number of its own."""
    return sum(map(ord, key)) / 100


def header(resolved, epochs):
    measures = [{"lr": 0.1, "test/top1": top1(key), "test/class_accuracy": []} for key in resolved.keys[1 : epochs + 1]]
    return {
        "key": resolved.keys[epochs], "epochs": epochs, "measures": measures, "wall_seconds": [1.0] * epochs,
        "provenance": [{"from_epoch": 0, "run": "mine", "host": "one"}],
    }  # fmt: skip


class Run:
    """Two trials of two replicates; drivers come and go, the store and the records stay."""

    def __init__(self, place, store):
        self.place, self.store, self.warnings = place, store, []
        self.uri, self.storage = (f"sqlite:///{place / name}.db" for name in ("mlflow", "optuna"))
        self.recipes = {
            (f"table9/IB⇒{switch} (digits)", seed): recipe(switch, seed) for switch in SAMPLERS for seed in range(2)
        }
        trials = tuple(
            PlannedTrial(
                "table9", f"IB⇒{switch} (digits)", f"IB⇒{switch}", "digits", {}, {"switch": switch}, None, "", 3,
                tuple(recipe(switch, seed).keys[-1] for seed in range(2)),
            )
            for switch in SAMPLERS
        )  # fmt: skip
        space = PlannedSpace("table9", "a title", "", "test/top1", (), DOMAIN, "table9", "")
        self.plan = Plan(
            f"run-{next(names)}", Request(), Machine("cpu", 1), Resources(), 2, (space,), trials, {}, 8,
            created="2020-02-02T02:02:02.020+00:00",
        )  # fmt: skip

    def driver(self):
        """A new driver's projection."""
        work = Work(None, None, None, None, lambda _config, _number: {}, lambda _config, _payload: None)
        draft = Draft(self.plan, work, self.recipes)
        return Projection(draft, self.store, self.uri, self.place / "artifacts", self.storage, self.warnings.append)

    def train(self, *replicates, epochs=3):
        """Store the states of some replicates where stages end; returns their names in order."""
        saved = []
        for replicate in replicates or self.recipes:
            for after in range(2, epochs + 1):
                key = self.recipes[replicate].keys[after]
                self.store.save(key, header(self.recipes[replicate], after), b"payload")
                saved.append(key)
        return saved

    def optuna(self):
        """Optuna's trials by label: state and value."""
        (study,) = (
            found for found in optuna.get_all_study_summaries(self.storage) if found.user_attrs["run"] == self.plan.run
        )
        trials = optuna.load_study(study_name=study.study_name, storage=self.storage).trials
        return [(trial.user_attrs["trial"], trial.state.name, trial.value) for trial in trials]

    def mlflow(self):
        """MLflow's child runs by replicate: status and the curve of the objective."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.plan.run)
        children = client.search_runs([experiment.experiment_id], "tags.`study.kind` = 'replicate'")
        found = {
            (child.data.tags["study.trial"], int(child.data.tags["study.replicate"])): (
                child.info.status,
                [metric.value for metric in client.get_metric_history(child.info.run_id, "test/top1")],
            )
            for child in children
        }
        assert len(found) == len(children)
        return found

    def mean(self, trial):
        return sum(map(top1, trial.ends)) / 2

    def all_complete(self):
        return [(trial.label, "COMPLETE", pytest.approx(self.mean(trial))) for trial in self.plan.trials]

    def all_shown(self):
        return {name: ("FINISHED", [top1(key) for key in each.keys[1:]]) for name, each in self.recipes.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Databases for all tests; each has an experiment and a study of its own."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture
def run(place, tmp_path):
    return Run(place, Store(str(tmp_path / "store")))


def nothing():
    return {}


def away(*_arguments, **_options):
    raise MlflowException("the server is away\nand more")


def test_what_becomes_durable_is_shown_in_both(run):
    projection = run.driver()
    for key in run.train():
        projection.state(key)
    assert projection.close("FINISHED", nothing) == ""
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()
    assert run.warnings == []


def test_a_shared_state_is_shown_in_every_replicate_that_passes_through_it(run):
    projection = run.driver()
    (shared,) = run.train(("table9/IB⇒CB (digits)", 0), epochs=2)
    projection.state(shared)
    projection.close("KILLED", nothing)
    curve = [top1(key) for key in recipe("CB", 0).keys[1:3]]
    assert run.mlflow() == {(trial.name, 0): ("RUNNING", curve) for trial in run.plan.trials}
    assert {state for _, state, _ in run.optuna()} == {"RUNNING"}


def test_a_start_shows_what_is_in_the_store_and_a_trial_waits_for_its_last_replicate(run):
    first, second = run.plan.trials
    run.train((first.name, 0), (first.name, 1), (second.name, 0))
    projection = run.driver()
    projection.reconcile(run.store.keys(), {})
    projection.close("KILLED", nothing)
    assert run.optuna() == [run.all_complete()[0], (second.label, "RUNNING", None)]
    assert run.mlflow() == {
        **run.all_shown(),
        (second.name, 1): ("RUNNING", [top1(key) for key in recipe("CR", 1).keys[1:3]]),  # the trunk that it shares
    }

    run.train((second.name, 1))
    for _ in range(2):
        projection = run.driver()
        projection.reconcile(run.store.keys(), {})
        projection.close("FINISHED", nothing)
        assert run.optuna() == run.all_complete()
        assert run.mlflow() == run.all_shown()


@pytest.mark.parametrize("method", ["__init__", "begin", "project", "finish"])
def test_an_outage_of_mlflow_is_one_warning_and_the_next_start_catches_up(run, monkeypatch, method):
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, method, away)
        projection = run.driver()
        for key in run.train():
            projection.state(key)
        assert projection.close("FINISHED", nothing) == "the server is away"
    (warning,) = run.warnings
    assert "the server is away" in warning
    assert "\n" not in warning
    assert run.optuna() == run.all_complete()

    projection = run.driver()
    projection.reconcile(run.store.keys(), {})
    assert projection.close("FINISHED", nothing) == ""
    assert len(run.warnings) == 1
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()


def test_what_raised_is_a_failure_and_what_was_lost_stays_open(run):
    raised, lost = run.plan.trials
    projection = run.driver()
    projection.failed((raised.name, 1), "Diverged: the loss is NaN", lost=False)
    projection.failed((lost.name, 0), "its process was lost 3 times", lost=True)
    projection.close("FAILED", nothing)
    assert run.optuna() == [(raised.label, "FAIL", None), (lost.label, "RUNNING", None)]
    assert run.mlflow() == {(raised.name, 1): ("FAILED", []), (lost.name, 0): ("FAILED", [])}


def test_a_retry_that_succeeds_is_a_new_trial(run):
    first, _ = run.plan.trials
    projection = run.driver()
    projection.failed((first.name, 1), "Diverged", lost=False)
    projection.close("FAILED", nothing)
    projection = run.driver()
    projection.retry((first.name, 1))
    for key in run.train():
        projection.state(key)
    projection.close("FINISHED", nothing)
    assert sorted(run.optuna(), key=str) == sorted([(first.label, "FAIL", None), *run.all_complete()], key=str)
    assert run.mlflow() == run.all_shown()


def test_the_report_is_made_at_the_end_and_kept(run):
    projection = run.driver()
    projection.close("FINISHED", lambda: {"report.md": f"{len(run.mlflow())} replicates"})
    client = MlflowClient(run.uri)
    (parent,) = client.search_runs([client.get_experiment_by_name(run.plan.run).experiment_id])
    assert parent.info.status == "FINISHED"
    assert "report.md" in {file.path for file in client.list_artifacts(parent.info.run_id)}


@pytest.mark.parametrize("owner", [Search, Tracker])
def test_a_mistake_of_ours_is_raised_where_the_driver_waits(run, monkeypatch, owner):
    def broken(*_arguments):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(owner, "tell" if owner is Search else "project", broken)
    projection = run.driver()
    projection.reconcile(set(run.train()), {})
    with pytest.raises(ZeroDivisionError, match="ours"):
        projection.close("FINISHED", nothing)


def test_a_plan_of_another_objective_is_told_that(run):
    (space,) = run.plan.spaces
    run.plan = replace(run.plan, spaces=(replace(space, objective="lr"),))
    projection = run.driver()
    projection.reconcile(set(run.train()), {})
    projection.close("FINISHED", nothing)
    assert [value for *_, value in run.optuna()] == pytest.approx([0.1, 0.1])
