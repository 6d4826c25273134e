"""The records follow the store: a real store, a real Optuna storage and a real MLflow database."""

import hashlib
import sqlite3
import time
from dataclasses import replace
from itertools import count

import optuna
import pytest
import sqlalchemy.exc
from helpers import exporter, planned, planned_run, planned_space, work_of
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from study.execution.ledger import Ledger
from study.execution.projection import Projection, Services
from study.planning.draft import Draft
from study.planning.tree import Failure
from study.search.studies import Search
from study.space import Choice, Resolved, Space, Trial
from study.store.states import Store
from study.tracking.runs import Tracker

SAMPLERS = ("CB", "CR")
DOMAIN = {"switch": Choice(SAMPLERS)}
names = count()


def name(words):
    """Return a possible name of a state."""
    return hashlib.sha256(words.encode()).hexdigest()


def recipe(switch, seed):
    """Return a recipe of three epochs, the first two of which are the same for every `switch`."""
    epochs = ("IB", "IB", switch)
    keys = [name(f"seed {seed}")]
    for epoch in epochs:
        keys.append(name(f"{keys[-1]} {epoch}"))
    return Resolved({}, tuple({"sampler": epoch} for epoch in epochs), tuple(keys))


def recipe_ends(switch):
    return tuple(recipe(switch, seed).keys[-1] for seed in range(2))


def top1(key):
    """Return the measure of a state, which depends on its name only."""
    return sum(map(ord, key)) / 100


def header(resolved, epochs):
    measures = [{"lr": 0.1, "test/top1": top1(key), "test/class_accuracy": []} for key in resolved.keys[1 : epochs + 1]]
    return {
        "key": resolved.keys[epochs],
        "epochs": epochs,
        "measures": measures,
        "wall_seconds": [1.0] * epochs,
        "provenance": [{"from_epoch": 0, "run": "mine", "host": "one"}],
    }


class Run:
    """Two trials of two replicates, with a store and records that outlive their drivers."""

    def __init__(self, folder, store):
        self.folder, self.store, self.said = folder, store, []
        self.uri, self.storage = (f"sqlite:///{folder / name}.db" for name in ("mlflow", "optuna"))
        self.recipes = {
            (f"table9/IB⇒{switch} (digits)", seed): recipe(switch, seed) for switch in SAMPLERS for seed in range(2)
        }
        self.work = work_of(lambda config, seed, _machine: recipe(config["switch"], seed), exporter=exporter)
        table_trials = [Trial(f"IB⇒{switch}", "digits", {"switch": switch}, {"switch": switch}) for switch in SAMPLERS]
        self.space = Space("table9", "a title", tuple(table_trials), DOMAIN, self.work, ("test/top1",))
        trials = [
            planned("table9", f"IB⇒{switch}", config=axes, axes=axes, ends=recipe_ends(switch), epochs=3)
            for switch, axes in ((switch, {"switch": switch}) for switch in SAMPLERS)
        ]
        self.plan = planned_run(
            [planned_space(domain=DOMAIN)],
            trials,
            f"run-{next(names)}",
            replicates=2,
            epochs_needed=8,
            created="2020-02-02T02:02:02.020+00:00",
        )

    def draft(self):
        return Draft(replace(self.plan, epochs_needed=0), [self.space], self.plan.trials)

    def driver(self):
        """Return the projection of a new driver."""
        services = Services(self.uri, self.folder / "artifacts", self.storage)
        return Projection(self.draft(), self.store, services, self.said.append)

    def ledger(self):
        """Return the ledger of a new start."""
        return Ledger(self.draft(), self.store, self.store.keys(), {})

    def train(self, *replicates, epochs=3):
        """Store the states of some replicates at the ends of stages. Return their names in order."""
        saved = []
        for replicate in replicates or self.recipes:
            for after in range(2, epochs + 1):
                key = self.recipes[replicate].keys[after]
                self.store.save(key, header(self.recipes[replicate], after), b"payload")
                saved.append(key)
        return saved

    def optuna(self):
        """Return the label, state and value of Optuna's trials."""
        summaries = optuna.get_all_study_summaries(self.storage)
        (study,) = (summary for summary in summaries if summary.user_attrs["run"] == self.plan.run)
        trials = optuna.load_study(study_name=study.study_name, storage=self.storage).trials
        return [(trial.user_attrs["trial"], trial.state.name, trial.value) for trial in trials]

    def mlflow(self):
        """Return the status and the curve of the objective of MLflow's child runs, by replicate."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.plan.run)
        children = client.search_runs([experiment.experiment_id], "tags.`study.kind` = 'replicate'")
        children_by_replicate = {
            (child.data.tags["study.trial"], int(child.data.tags["study.replicate"])): (
                child.info.status,
                [metric.value for metric in client.get_metric_history(child.info.run_id, "test/top1")],
            )
            for child in children
        }
        assert len(children_by_replicate) == len(children)
        return children_by_replicate

    def mean(self, trial):
        return sum(map(top1, trial.ends)) / 2

    def all_complete(self):
        return [(trial.label, "COMPLETE", pytest.approx(self.mean(trial))) for trial in self.plan.trials]

    def all_shown(self):
        return {name: ("FINISHED", [top1(key) for key in each.keys[1:]]) for name, each in self.recipes.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of databases for all tests, each of which has its own experiment and study."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture
def run(folder, tmp_path):
    return Run(folder, Store(str(tmp_path / "store")))


def nothing():
    return {}


def close(projection, status, files):
    """Finish and close a projection, as at the end of a start."""
    projection.finish(status, files, {})
    return projection.close()


def away(*_arguments, **_options):
    raise MlflowException("the server is away\nand more")


def locked(*_arguments, **_options):
    reason = sqlite3.OperationalError("database is locked")
    cause = sqlalchemy.exc.OperationalError("SELECT 1", {}, reason)
    cause.__cause__ = reason
    raise optuna.exceptions.StorageInternalError("no data of ours") from cause


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr("study.execution.follower.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("study.execution.projection.PATIENCE_SECONDS", 0.1)


def test_what_becomes_durable_is_shown_in_both(run):
    projection = run.driver()
    for key in run.train():
        projection.state(key)
    assert close(projection, "FINISHED", nothing) == ""
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()
    assert run.said == []


def test_a_shared_state_is_shown_in_every_replicate_that_passes_through_it(run):
    projection = run.driver()
    (shared,) = run.train(("table9/IB⇒CB (digits)", 0), epochs=2)
    projection.state(shared)
    close(projection, "KILLED", nothing)
    curve = [top1(key) for key in recipe("CB", 0).keys[1:3]]
    assert run.mlflow() == {(trial.name, 0): ("KILLED", curve) for trial in run.plan.trials}
    assert {state for _, state, _ in run.optuna()} == {"RUNNING"}


def test_a_start_shows_what_is_in_the_store_and_a_trial_waits_for_its_last_replicate(run):
    first, second = run.plan.trials
    run.train((first.name, 0), (first.name, 1), (second.name, 0))
    projection = run.driver()
    projection.reconcile(run.ledger())
    close(projection, "KILLED", nothing)
    assert run.optuna() == [run.all_complete()[0], (second.label, "RUNNING", None)]
    assert run.mlflow() == {
        **run.all_shown(),
        (second.name, 1): ("KILLED", [top1(key) for key in recipe("CR", 1).keys[1:3]]),  # the trunk that it shares
    }

    run.train((second.name, 1))
    for _ in range(2):
        projection = run.driver()
        projection.reconcile(run.ledger())
        close(projection, "FINISHED", nothing)
        assert run.optuna() == run.all_complete()
        assert run.mlflow() == run.all_shown()


@pytest.mark.parametrize("method", ["__init__", "begin", "project", "finish"])
def test_an_outage_of_mlflow_is_one_warning_and_the_next_start_catches_up(run, monkeypatch, method):
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, method, away)
        projection = run.driver()
        projection.check()
        for key in run.train():
            projection.state(key)
        assert close(projection, "FINISHED", nothing) == "MLflow is not up to date (the server is away)"
    assert run.said == ["MLflow is unavailable (the server is away): training continues"]
    assert run.optuna() == run.all_complete()

    projection = run.driver()
    projection.reconcile(run.ledger())
    assert close(projection, "FINISHED", nothing) == ""
    assert len(run.said) == 1
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["__init__", "begin", "project", "finish"])
def test_after_an_outage_of_mlflow_the_same_start_catches_up(run, monkeypatch, method, after):
    """Every second call meets the outage, before or after its effect."""
    original, calls = getattr(Tracker, method), count()

    def now_and_then(*arguments):
        absent = next(calls) % 2 == 0
        if absent and not after:
            away()
        result = original(*arguments)
        if absent:
            away()
        return result

    monkeypatch.setattr(Tracker, method, now_and_then)
    monkeypatch.setattr("study.execution.projection.PATIENCE_SECONDS", 60.0)
    projection = run.driver()
    for key in run.train():
        projection.state(key)
    assert close(projection, "FINISHED", nothing) == ""
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()
    assert set(run.said) == {
        "MLflow is unavailable (the server is away): training continues",
        "MLflow is available again and catches up",
    }


@pytest.mark.parametrize("method", ["__init__", "tell"])
def test_an_outage_of_optuna_is_one_warning_and_the_next_start_catches_up(run, monkeypatch, method):
    with monkeypatch.context() as patch:
        patch.setattr(Search, method, locked)
        projection = run.driver()
        projection.check()
        for key in run.train():
            projection.state(key)
        behind = close(projection, "FINISHED", nothing)
        assert behind == "Optuna is not up to date (database is locked)"
    assert run.said == [
        "Optuna is unavailable (database is locked): planned trials are trained, and searches wait for suggestions"
    ]
    assert run.mlflow() == run.all_shown()

    projection = run.driver()
    projection.reconcile(run.ledger())
    assert close(projection, "FINISHED", nothing) == ""
    assert len(run.said) == 1
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()


@pytest.mark.slow
def test_a_locked_database_of_optuna_is_waited_for(run, tmp_path, monkeypatch):
    """Another program locks it for longer than SQLite waits, here a second. Training continues."""
    monkeypatch.setattr("study.execution.projection.PATIENCE_SECONDS", 60.0)
    path = tmp_path / "optuna.db"
    run.storage = f"sqlite:///{path}?timeout=1"
    projection = run.driver()
    projection.check()  # it is there, with its trials
    lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    for key in run.train():
        projection.state(key)
    deadline = time.monotonic() + 30
    while not run.said:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (warning,) = run.said
    assert warning.startswith("Optuna is unavailable (")
    assert warning.endswith("database is locked): planned trials are trained, and searches wait for suggestions")
    projection.check()  # which does not hold the driver up
    lock.execute("ROLLBACK")
    lock.close()
    assert close(projection, "FINISHED", nothing) == ""
    assert run.said == [warning, "Optuna is available again and catches up"]
    assert run.optuna() == run.all_complete()
    assert run.mlflow() == run.all_shown()


def test_what_raised_is_a_failure_and_what_was_lost_stays_open(run):
    raised, lost = run.plan.trials
    projection = run.driver()
    projection.failed((raised.name, 1), Failure("Diverged: the loss is NaN", for_good=True))
    projection.failed((lost.name, 0), Failure("the training process ended unexpectedly 3 times"))
    close(projection, "FAILED", nothing)
    assert run.optuna() == [(raised.label, "FAIL", None), (lost.label, "RUNNING", None)]
    assert run.mlflow() == {(raised.name, 1): ("FAILED", []), (lost.name, 0): ("FAILED", [])}


def test_a_retry_that_succeeds_is_a_new_trial(run):
    first, _ = run.plan.trials
    projection = run.driver()
    projection.failed((first.name, 1), Failure("Diverged", for_good=True))
    close(projection, "FAILED", nothing)
    projection = run.driver()
    projection.retry((first.name, 1))
    for key in run.train():
        projection.state(key)
    close(projection, "FINISHED", nothing)
    assert sorted(run.optuna(), key=str) == sorted([(first.label, "FAIL", None), *run.all_complete()], key=str)
    assert run.mlflow() == run.all_shown()


def test_the_report_is_made_at_the_end_and_kept(run):
    projection = run.driver()
    close(projection, "FINISHED", lambda: {"report.md": f"{len(run.mlflow())} replicates"})
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
    run.train()
    projection.reconcile(run.ledger())
    with pytest.raises(ZeroDivisionError, match="ours"):
        close(projection, "FINISHED", nothing)


def test_what_optuna_can_never_take_is_a_mistake_of_ours_and_no_outage(run, monkeypatch):
    def too_long(*_arguments):
        cause = sqlalchemy.exc.DataError("INSERT", {}, ValueError("value too long"))
        raise optuna.exceptions.StorageInternalError("an exception is raised during the commit") from cause

    monkeypatch.setattr(Search, "tell", too_long)
    projection = run.driver()
    run.train()
    projection.reconcile(run.ledger())
    with pytest.raises(optuna.exceptions.StorageInternalError):
        close(projection, "FINISHED", nothing)
    assert run.said == []


def test_a_plan_of_another_objective_is_told_that(run):
    (space,) = run.plan.spaces
    trials = tuple(replace(each, trial=replace(each.trial, measure="lr")) for each in run.plan.trials)
    run.plan = replace(run.plan, spaces=(replace(space, objectives=("lr",)),), trials=trials)
    projection = run.driver()
    run.train()
    projection.reconcile(run.ledger())
    close(projection, "FINISHED", nothing)
    assert [value for *_, value in run.optuna()] == pytest.approx([0.1, 0.1])
