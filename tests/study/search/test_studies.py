import math
import sqlite3
from contextlib import closing

import optuna
import pytest
from helpers import Killed, killed, opened, optuna_trials, planned, planned_run, planned_space
from optuna.trial import TrialState

from study.errors import Refusal
from study.search import studies
from study.search.studies import TWIN_OF, Search, _without_twins, open_storage, study_name
from study.space import Choice, Integer, Real
from study.store.starts import Superseded

RUN = "table9-0"
DOMAIN = {"first": Choice(("IB", "CB", "CR")), "S": Integer(0, 100), "q": Real(-1.0, 1.0), "tau": Real(0.0, 1.0, 0.25)}


def cell(first, S, q=0.5, tau=0.75, space="table9"):
    axes = {"first": first, "S": S, "q": q, "tau": tau, "combination": f"{first}⇒CR"}
    row = f"{first}⇒CR at {S}"
    return planned(space, row, axes=axes, epochs=200, ends=("end",))


CELLS = (cell("IB", 1), cell("CB", 1, q=-1.0), cell("CR", 100, tau=0.0))


def plan(*cells, run=RUN, domain=DOMAIN, objectives=("test/top1",), generation=0):
    spaces = tuple(
        planned_space(name, objectives=objectives, domain=domain) for name in dict.fromkeys(c.space for c in cells)
    )
    return planned_run(spaces, cells, run, generation=generation)


def test_every_cell_is_a_running_trial_with_its_parameters(storage):
    search = opened(plan(*CELLS), storage)
    trials = optuna_trials(storage, search)
    assert [trial.state for trial in trials] == [TrialState.RUNNING] * 3
    for trial, planned_trial in zip(trials, CELLS, strict=True):
        assert trial.params == {name: planned_trial.trial.axes[name] for name in DOMAIN}
        assert trial.user_attrs == {"trial": planned_trial.label, **planned_trial.trial.axes}
        assert search.state(planned_trial) == TrialState.RUNNING


def test_a_study_says_what_it_is_of_and_maximises(storage):
    search = opened(plan(*CELLS), storage)
    (study,) = optuna.get_all_study_summaries(storage)
    assert study.study_name == study_name(search._plan, search._plan.spaces[0])
    assert study.study_name.startswith("table9-0/table9-")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert (study.user_attrs["run"], study.user_attrs["space"]) == (RUN, "table9")
    assert study.user_attrs["objectives"] == ["mean over replicates of test/top1, last epoch"]


def test_a_trial_is_told_once(storage):
    search = opened(plan(*CELLS), storage)
    for value in (81.5, 3.0, math.nan):
        search.tell(CELLS[1], [value])
    search.fail(CELLS[1], "too late")
    trials = optuna_trials(storage, search)
    assert [trial.state for trial in trials] == [TrialState.RUNNING, TrialState.COMPLETE, TrialState.RUNNING]
    assert trials[1].value == 81.5
    assert "failed_because" not in trials[1].user_attrs
    assert search.state(CELLS[1]) == TrialState.COMPLETE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_failure_with_its_reason(storage, value):
    search = opened(plan(*CELLS), storage)
    search.tell(CELLS[0], [value])
    search.tell(CELLS[0], [81.5])
    trial = optuna_trials(storage, search)[0]
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert trial.user_attrs["failed_because"] == f"an objective is not a finite number: {[value]}"


def test_a_failure_is_told_once(storage):
    search = opened(plan(*CELLS), storage)
    search.fail(CELLS[0], "the loss is NaN")
    search.fail(CELLS[0], "another")
    assert optuna_trials(storage, search)[0].user_attrs["failed_because"] == "the loss is NaN"
    assert search.state(CELLS[0]) == TrialState.FAIL


def test_a_retry_is_a_new_trial_that_names_the_old_one(storage):
    search = opened(plan(*CELLS), storage)
    search.fail(CELLS[1], "the loss is NaN")
    search.retry(CELLS[1])
    search.tell(CELLS[1], [81.5])
    *_, failed, _, again = trials = optuna_trials(storage, search)
    assert len(trials) == 4
    assert (failed.number, failed.state) == (1, TrialState.FAIL)
    assert (again.state, again.value, again.params) == (TrialState.COMPLETE, 81.5, failed.params)
    assert again.user_attrs == {"trial": CELLS[1].label, **CELLS[1].trial.axes, "retry_of": 1, "replicates": 1}


def test_only_what_failed_is_retried(storage):
    search = opened(plan(*CELLS), storage)
    search.tell(CELLS[0], [81.5])
    for trial in CELLS:
        search.retry(trial)
    assert [trial.state.name for trial in optuna_trials(storage, search)] == ["COMPLETE", "RUNNING", "RUNNING"]


def test_opening_again_adds_nothing_and_takes_up_what_runs(storage):
    search = opened(plan(*CELLS), storage)
    search.tell(CELLS[0], [81.5])
    search.fail(CELLS[1], "the loss is NaN")
    search.retry(CELLS[1])
    before = optuna_trials(storage, search)
    again = opened(plan(*CELLS), storage)
    assert optuna_trials(storage, again) == before
    assert [again.state(trial).name for trial in CELLS] == ["COMPLETE", "RUNNING", "RUNNING"]
    for trial in CELLS:
        again.tell(trial, [70.0])
    assert [(t.state.name, t.value) for t in optuna_trials(storage, again)] == [
        ("COMPLETE", 81.5),
        ("FAIL", None),
        ("COMPLETE", 70.0),
        ("COMPLETE", 70.0),
    ]


def test_a_grown_plan_keeps_its_history(storage):
    search = opened(plan(*CELLS[:1]), storage)
    search.tell(CELLS[0], [81.5])
    grown = opened(plan(*CELLS), storage)
    assert [trial.user_attrs["trial"] for trial in optuna_trials(storage, grown)] == [trial.label for trial in CELLS]
    assert [grown.state(trial).name for trial in CELLS] == ["COMPLETE", "RUNNING", "RUNNING"]


@pytest.mark.parametrize(
    "other",
    [
        {"run": "table9-1"},
        {"objectives": ("val/top1",)},
        {"objectives": ("test/top1", "val/top1")},
        {"domain": {**DOMAIN, "S": Integer(0, 101)}},
        {"generation": 1},
    ],
)
def test_two_plans_never_merge(storage, other):
    one, another = opened(plan(*CELLS), storage), opened(plan(*CELLS, **other), storage)
    one.tell(CELLS[0], [81.5])
    assert [trial.state.name for trial in optuna_trials(storage, one)] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert [trial.state.name for trial in optuna_trials(storage, another)] == ["RUNNING"] * 3


def test_each_space_of_a_run_is_a_study_of_its_own(storage):
    cells = cell("IB", 1), cell("IB", 1, space="table7")
    search = opened(plan(*cells), storage)
    search.tell(cells[1], [81.5])
    assert [optuna_trials(storage, search, space)[0].state.name for space in (0, 1)] == ["RUNNING", "COMPLETE"]


def killed_at(monkeypatch, owner, name, call):
    """Let a method end the process from its `call`-th call on."""
    method, calls = getattr(owner, name), iter(range(call))
    monkeypatch.setattr(owner, name, lambda *a, **k: (killed if next(calls, None) is None else method)(*a, **k))


@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.parametrize("name", ["create_new_trial", "get_trial"])
def test_a_driver_killed_while_it_opens_is_taken_up(storage, monkeypatch, name, call):
    with monkeypatch.context() as patch:
        killed_at(patch, type(storage), name, call)
        with pytest.raises(Killed):
            opened(plan(*CELLS), storage)
    trials = optuna_trials(storage, opened(plan(*CELLS), storage))
    assert [(trial.user_attrs["trial"], trial.state) for trial in trials] == [
        (trial.label, TrialState.RUNNING) for trial in CELLS
    ]
    assert [trial.params for trial in trials] == [
        {name: planned.trial.axes[name] for name in DOMAIN} for planned in CELLS
    ]


def test_a_driver_killed_while_it_retries_is_taken_up(storage, monkeypatch):
    search = opened(plan(*CELLS), storage)
    search.fail(CELLS[0], "the loss is NaN")
    with monkeypatch.context() as patch:
        killed_at(patch, type(storage), "get_trial", 0)
        with pytest.raises(Killed):
            search.retry(CELLS[0])
    assert optuna_trials(storage, search)[-1].state == TrialState.RUNNING
    again = opened(plan(*CELLS), storage)
    again.tell(CELLS[0], [81.5])
    assert [trial.state.name for trial in optuna_trials(storage, again)] == ["FAIL", "RUNNING", "RUNNING", "COMPLETE"]


# Storage URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite//x",
        "foo://bar",
        "postgresql+nodriver://h/db",
        "postgresql+nodriver://me:secret@h/db",
        "postgresql://me:secret@h:port/db",
    ],
)
def test_a_malformed_url_is_refused_in_one_line_without_its_password(url):
    with pytest.raises(Refusal) as refused:
        open_storage(url)
    message = str(refused.value)
    assert message.startswith("--storage must be an Optuna storage URL such as sqlite:///optuna.db (got '")
    assert "). Reason: " in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_database_of_another_version_of_optuna_is_refused_by_name(tmp_path, storage):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    with pytest.raises(Refusal) as refused:
        open_storage(url)
    assert str(refused.value) == (
        f"{url} was written by another version of Optuna than {optuna.__version__}, the one installed here. If that "
        f"was an older one, give 'optuna storage upgrade --storage {url}'; else install that version"
    )


def test_two_runs_that_create_the_database_of_a_home_at_the_same_time_share_one(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"

    create = studies._create

    def late(temporary):
        optuna.create_study(study_name="the other run's", storage=url)
        create(temporary)

    monkeypatch.setattr(studies, "_create", late)
    storage = open_storage(url)
    assert [study.study_name for study in storage.get_all_studies()] == ["the other run's"]
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.db"]


def test_a_trial_that_a_late_driver_added_twice_fails_and_changes_no_suggestion(storage):
    search = opened(plan(*CELLS), storage)
    (first, *_) = optuna_trials(storage, search)
    twin = optuna.trial.create_trial(
        state=TrialState.RUNNING, params=first.params, distributions=first.distributions, user_attrs=first.user_attrs
    )
    search._studies["table9"].add_trial(twin)
    search.take_up()
    *trials, twin = optuna_trials(storage, search)
    assert [trial.state for trial in trials] == [TrialState.RUNNING] * 3
    assert (twin.state, twin.user_attrs[TWIN_OF]) == (TrialState.FAIL, first.number)
    search.tell(CELLS[0], [1.0])
    assert optuna_trials(storage, search)[0].value == 1.0
    assert _without_twins([*trials, twin])[0] == trials


def test_a_driver_that_lost_the_run_adds_and_tells_nothing(storage):
    opened(plan(CELLS[0]), storage)

    def claim():
        raise Superseded("another driver")

    late = Search(plan(*CELLS[:2]), storage, claim)
    with pytest.raises(Superseded):
        late.take_up()
    with pytest.raises(Superseded):
        late.tell(CELLS[0], [1.0])
    assert [trial.state for trial in optuna_trials(storage, late)] == [TrialState.RUNNING]
