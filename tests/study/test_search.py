import math
import shutil
from dataclasses import replace
from itertools import chain, count, repeat
from random import Random

import optuna
import pytest
from optuna.trial import TrialState

from study.errors import Refusal
from study.machine import Machine
from study.plan.stored import Plan, PlannedSearch, PlannedSpace, PlannedTrial, Resources
from study.search.studies import Search, open_storage
from study.space import Choice, Integer, Real, Request

RUN = "table9-0"
DOMAIN = {"first": Choice(("IB", "CB", "CR")), "S": Integer(0, 100), "q": Real(-1.0, 1.0), "tau": Real(0.0, 1.0, 0.25)}


def opened(plan, storage):
    """A search as a projection opens it."""
    search = Search(plan, storage)
    search.take_up()
    return search


def cell(first, S, q=0.5, tau=0.75, space="table9"):
    axes = {"first": first, "S": S, "q": q, "tau": tau, "combination": f"{first}⇒CR"}
    row = f"{first}⇒CR at {S}"
    return PlannedTrial(space, f"{row} (digits)", row, "digits", {}, axes, None, "", 200, ("end",), "test/top1")


CELLS = (cell("IB", 1), cell("CB", 1, q=-1.0), cell("CR", 100, tau=0.0))


def plan(*cells, run=RUN, domain=DOMAIN, objectives=("test/top1",), generation=0):
    spaces = tuple(
        PlannedSpace(name, name, "", objectives, (), domain, name, "") for name in dict.fromkeys(c.space for c in cells)
    )
    return Plan(run, Request(), Machine("cpu", 1), Resources(), 1, spaces, cells, {}, 0, generation=generation)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty database; to make one takes longer than to copy it."""
    path = tmp_path_factory.mktemp("optuna") / "empty.db"
    close(open_storage(f"sqlite:///{path}"))
    return path


@pytest.fixture
def storage(tmp_path, empty):
    path = shutil.copy(empty, tmp_path / "optuna.db")
    storage = open_storage(f"sqlite:///{path}")
    yield storage
    close(storage)


def close(storage):
    storage.remove_session()
    storage._backend.engine.dispose()


def recorded(storage, search, space=0):
    """A study's trials, read anew."""
    name = search.study_name(search._plan.spaces[space])
    return optuna.load_study(study_name=name, storage=storage).trials


def test_every_cell_is_a_running_trial_with_its_parameters(storage):
    search = opened(plan(*CELLS), storage)
    found = recorded(storage, search)
    assert [trial.state for trial in found] == [TrialState.RUNNING] * 3
    for trial, planned in zip(found, CELLS, strict=True):
        assert trial.params == {name: planned.axes[name] for name in DOMAIN}
        assert trial.user_attrs == {"trial": planned.label, **planned.axes}
        assert search.state(planned) == TrialState.RUNNING


def test_a_study_says_what_it_is_of_and_maximises(storage):
    search = opened(plan(*CELLS), storage)
    (study,) = optuna.get_all_study_summaries(storage)
    assert study.study_name == search.study_name(search._plan.spaces[0])
    assert study.study_name.startswith("table9-0/table9-")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert (study.user_attrs["run"], study.user_attrs["space"]) == (RUN, "table9")
    assert study.user_attrs["objectives"] == ["mean over replicates of test/top1, last epoch"]


def test_a_trial_is_told_once(storage):
    search = opened(plan(*CELLS), storage)
    for value in (81.5, 3.0, math.nan):
        search.tell(CELLS[1], [value])
    search.fail(CELLS[1], "too late")
    found = recorded(storage, search)
    assert [trial.state for trial in found] == [TrialState.RUNNING, TrialState.COMPLETE, TrialState.RUNNING]
    assert found[1].value == 81.5
    assert "failed_because" not in found[1].user_attrs
    assert search.state(CELLS[1]) == TrialState.COMPLETE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_failure_with_its_reason(storage, value):
    search = opened(plan(*CELLS), storage)
    search.tell(CELLS[0], [value])
    search.tell(CELLS[0], [81.5])
    trial = recorded(storage, search)[0]
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert trial.user_attrs["failed_because"] == f"its value is {[value]}"


def test_a_failure_is_told_once(storage):
    search = opened(plan(*CELLS), storage)
    search.fail(CELLS[0], "the loss is NaN")
    search.fail(CELLS[0], "another")
    assert recorded(storage, search)[0].user_attrs["failed_because"] == "the loss is NaN"
    assert search.state(CELLS[0]) == TrialState.FAIL


def test_a_retry_is_a_new_trial_that_names_the_old_one(storage):
    search = opened(plan(*CELLS), storage)
    search.fail(CELLS[1], "the loss is NaN")
    search.retry(CELLS[1])
    search.tell(CELLS[1], [81.5])
    *_, failed, _, again = found = recorded(storage, search)
    assert len(found) == 4
    assert (failed.number, failed.state) == (1, TrialState.FAIL)
    assert (again.state, again.value, again.params) == (TrialState.COMPLETE, 81.5, failed.params)
    assert again.user_attrs == {"trial": CELLS[1].label, **CELLS[1].axes, "retry_of": 1, "replicates": 1}


def test_only_what_failed_is_retried(storage):
    search = opened(plan(*CELLS), storage)
    search.tell(CELLS[0], [81.5])
    for trial in CELLS:
        search.retry(trial)
    assert [trial.state.name for trial in recorded(storage, search)] == ["COMPLETE", "RUNNING", "RUNNING"]


def test_opening_again_adds_nothing_and_takes_up_what_runs(storage):
    search = opened(plan(*CELLS), storage)
    search.tell(CELLS[0], [81.5])
    search.fail(CELLS[1], "the loss is NaN")
    search.retry(CELLS[1])
    before = recorded(storage, search)
    again = opened(plan(*CELLS), storage)
    assert recorded(storage, again) == before
    assert [again.state(trial).name for trial in CELLS] == ["COMPLETE", "RUNNING", "RUNNING"]
    for trial in CELLS:
        again.tell(trial, [70.0])
    assert [(t.state.name, t.value) for t in recorded(storage, again)] == [
        ("COMPLETE", 81.5),
        ("FAIL", None),
        ("COMPLETE", 70.0),
        ("COMPLETE", 70.0),
    ]


def test_a_grown_plan_keeps_its_history(storage):
    search = opened(plan(*CELLS[:1]), storage)
    search.tell(CELLS[0], [81.5])
    grown = opened(plan(*CELLS), storage)
    assert [trial.user_attrs["trial"] for trial in recorded(storage, grown)] == [trial.label for trial in CELLS]
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
    assert [trial.state.name for trial in recorded(storage, one)] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert [trial.state.name for trial in recorded(storage, another)] == ["RUNNING"] * 3


def test_each_space_of_a_run_is_a_study_of_its_own(storage):
    cells = cell("IB", 1), cell("IB", 1, space="table7")
    search = opened(plan(*cells), storage)
    search.tell(cells[1], [81.5])
    assert [recorded(storage, search, space)[0].state.name for space in (0, 1)] == ["RUNNING", "COMPLETE"]


class Killed(BaseException):
    pass


def killed(*args, **kwargs):
    raise Killed


def killed_at(monkeypatch, owner, name, call):
    """From its `call`-th call on, a method ends the process instead."""
    method, calls = getattr(owner, name), iter(range(call))
    monkeypatch.setattr(owner, name, lambda *a, **k: (killed if next(calls, None) is None else method)(*a, **k))


@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.parametrize("name", ["create_new_trial", "get_trial"])
def test_a_driver_killed_while_it_opens_is_taken_up(storage, monkeypatch, name, call):
    with monkeypatch.context() as patch:
        killed_at(patch, type(storage), name, call)
        with pytest.raises(Killed):
            opened(plan(*CELLS), storage)
    found = recorded(storage, opened(plan(*CELLS), storage))
    assert [(trial.user_attrs["trial"], trial.state) for trial in found] == [
        (planned.label, TrialState.RUNNING) for planned in CELLS
    ]
    assert [trial.params for trial in found] == [{name: planned.axes[name] for name in DOMAIN} for planned in CELLS]


def test_a_driver_killed_while_it_retries_is_taken_up(storage, monkeypatch):
    search = opened(plan(*CELLS), storage)
    search.fail(CELLS[0], "the loss is NaN")
    with monkeypatch.context() as patch:
        killed_at(patch, type(storage), "get_trial", 0)
        with pytest.raises(Killed):
            search.retry(CELLS[0])
    assert recorded(storage, search)[-1].state == TrialState.RUNNING
    again = opened(plan(*CELLS), storage)
    again.tell(CELLS[0], [81.5])
    assert [trial.state.name for trial in recorded(storage, again)] == ["FAIL", "RUNNING", "RUNNING", "COMPLETE"]


# Points of an open search

SPACE = PlannedSpace(
    "search",
    "a title",
    "",
    ("val/top1",),
    (),
    {"first": Real(-2.0, 2.0, 0.5), "q": Real(-2.0, 2.0), "S": Integer(0, 9)},
    "search",
    "",
    PlannedSearch(20, 0, 3, ("test/top1",), ("base",)),
)


def open_plan(seed=0, objectives=("val/top1",), **changes):
    space = replace(SPACE, objectives=objectives, search=replace(SPACE.search, seed=seed))
    return replace(plan(), spaces=(space,), **changes)


def point(label, values, ends=("end",), stopped=False):
    return PlannedTrial("search", label, label, "digits", {}, values, None, "", 20, ends, "val/top1", stopped=stopped)


def measured(values):
    """What a point is worth: a fixed function."""
    return 80 - (values["q"] - 0.3) ** 2 - (values["first"] + 1) ** 2 / 3 - values["S"] / 7


def asked_and_told(storage, planned, points, before=0):
    """A driver with one worker: each point is asked for, and told before the next; returns what it was suggested."""
    search = opened(planned, storage)
    suggested = []
    for number in range(before, points):
        values = search.ask(planned.spaces[0], f"#{number}")
        suggested.append(values)
        search.tell(point(f"#{number}", values), [measured(values)] * len(planned.spaces[0].objectives))
    return suggested


@pytest.fixture(scope="module")
def undisturbed():
    """The points of a search that nobody disturbs."""
    storage = optuna.storages.InMemoryStorage()
    return asked_and_told(storage, open_plan(), 20)


def test_points_are_inside_the_domain_and_become_better(undisturbed):
    for values in undisturbed:
        assert values.keys() == SPACE.domain.keys()
        assert values["first"] in [number / 2 for number in range(-4, 5)]
        assert -2 <= values["q"] <= 2
        assert values["S"] in range(10)
    values = list(map(measured, undisturbed))
    assert sum(values[10:]) > sum(values[:10])  # TPE begins by random points


def test_the_same_label_is_the_same_point_whoever_asks(storage):
    search = opened(open_plan(), storage)
    first = search.ask(SPACE, "#0")
    assert search.ask(SPACE, "#0") == first
    assert opened(open_plan(), storage).ask(SPACE, "#0") == first
    (trial,) = recorded(storage, search)
    assert (trial.params, trial.state, trial.user_attrs) == (first, TrialState.RUNNING, {"trial": "#0", **first})


def test_points_depend_on_the_seed_and_on_how_many_there_are(undisturbed):
    again, other = (asked_and_told(optuna.storages.InMemoryStorage(), open_plan(seed), 3) for seed in (0, 1))
    assert again == undisturbed[:3]
    assert all(mine != theirs for mine, theirs in zip(again, other, strict=True))
    assert len({values["q"] for values in [*again, *other]}) == 6


def test_points_that_are_asked_at_a_time_differ(storage):
    search = opened(open_plan(), storage)
    points = [search.ask(SPACE, f"#{number}") for number in range(4)]
    assert len({values["q"] for values in points}) == 4
    assert [trial.params for trial in recorded(storage, search)] == points


def test_a_search_that_grows_from_10_to_20_is_one_of_20(storage, undisturbed):
    planned = open_plan()
    first = asked_and_told(storage, planned, 10)
    (space,) = planned.spaces
    grown = replace(planned, spaces=(replace(space, search=replace(space.search, trials=100)),))
    assert first + asked_and_told(storage, grown, 20, before=10) == undisturbed
    assert [trial.state.name for trial in recorded(storage, opened(grown, storage))] == ["COMPLETE"] * 20


WRITES = (
    "create_new_study",
    "_create_new_trial",
    "set_study_user_attr",
    "_set_trial_param",
    "set_trial_state_values",
    "set_trial_user_attr",
    "set_trial_system_attr",
)


class Mortal:
    """Ends the process before or after some of the calls that write to a storage."""

    def __init__(self, monkeypatch, deaths):
        self.deaths = deaths
        for name in WRITES:
            method = getattr(optuna.storages.RDBStorage, name)
            monkeypatch.setattr(optuna.storages.RDBStorage, name, self.fragile(method))

    def fragile(self, method):
        def maybe(*arguments, **options):
            death = next(self.deaths)
            if death == "before":
                raise Killed
            result = method(*arguments, **options)
            if death == "after":
                raise Killed
            return result

        return maybe


def driven_to_the_end(storage, planned, points):
    """Starts a driver again whenever it is killed; how often that was."""
    for kills in count():
        try:
            asked_and_told(storage, planned, points)
        except Killed:
            continue
        return kills
    raise AssertionError


def equal_to(trials, points):
    assert [(trial.user_attrs["trial"], trial.state.name, trial.params, trial.value) for trial in trials] == [
        (f"#{number}", "COMPLETE", values, measured(values)) for number, values in enumerate(points)
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_search_that_is_killed_at_random_writes_suggests_the_points_of_an_undisturbed_one(
    storage, monkeypatch, undisturbed, seed
):
    random = Random(seed)
    deaths = iter(lambda: random.choices(["", "before", "after"], [8, 1, 1])[0], None)
    with monkeypatch.context() as patch:
        Mortal(patch, deaths)
        kills = driven_to_the_end(storage, open_plan(), 20)
    assert kills > 10
    equal_to(recorded(storage, opened(open_plan(), storage)), undisturbed)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_search_that_is_killed_at_any_one_write_suggests_the_same_points(storage, monkeypatch, undisturbed, when):
    for call in count():
        planned = open_plan(run=f"run-{call}")  # with a study of its own
        with monkeypatch.context() as patch:
            Mortal(patch, chain([""] * call, [when], repeat("")))
            kills = driven_to_the_end(storage, planned, 2)
        equal_to(recorded(storage, opened(planned, storage)), undisturbed[:2])
        if not kills:
            break
    assert call == 4 + 2 * 3  # the study; each point is added, its replicates, its value


def test_with_several_objectives_each_has_its_value(storage):
    planned = open_plan(objectives=("val/top1", "val/few"))
    search = opened(planned, storage)
    for number in range(4):
        values = search.ask(planned.spaces[0], f"#{number}")
        search.tell(point(f"#{number}", values), [80.0 + number, 40.0 - number])
    study = optuna.load_study(study_name=search.study_name(planned.spaces[0]), storage=storage)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"] * 2
    assert [trial.values for trial in study.trials] == [[80.0 + number, 40.0 - number] for number in range(4)]
    assert [trial.number for trial in study.best_trials] == [0, 1, 2, 3]
    assert len(study.user_attrs["objectives"]) == 2


def test_of_several_objectives_one_that_is_no_number_is_a_failure(storage):
    planned = open_plan(objectives=("val/top1", "val/few"))
    search = opened(planned, storage)
    failed = point("#0", search.ask(planned.spaces[0], "#0"))
    search.tell(failed, [80.0, math.nan])
    assert search.state(failed) == TrialState.FAIL


@pytest.mark.parametrize("died", [False, True])
def test_a_stopped_point_is_pruned_with_the_value_at_its_rung(storage, monkeypatch, died):
    planned = open_plan(request=Request(early_stop=3))
    search = opened(planned, storage)
    stopped = point("#0", search.ask(planned.spaces[0], "#0"), stopped=True)
    if died:  # after the intermediate value
        with monkeypatch.context() as patch:
            patch.setattr(optuna.Study, "tell", killed)
            with pytest.raises(Killed):
                search.tell(stopped, [71.5])
        search = opened(planned, storage)
    search.tell(stopped, [71.5])
    search.tell(stopped, [3.0])
    (trial,) = recorded(storage, search)
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, 71.5, {3: 71.5})
    assert search.is_told(stopped)
    assert search.ask(planned.spaces[0], "#1").keys() == SPACE.domain.keys()


def test_what_optuna_was_told_stays_when_replicates_are_added(storage):
    search = opened(open_plan(), storage)
    values = search.ask(SPACE, "#0")
    search.tell(point("#0", values), [71.5])
    grown = opened(open_plan(), storage)
    grown.tell(point("#0", values, ends=("end", "another")), [70.0])
    (trial,) = recorded(storage, grown)
    assert (trial.value, trial.user_attrs["replicates"]) == (71.5, 1)


def test_points_that_failed_count_but_are_not_suggested_from(storage):
    search = opened(open_plan(), storage)
    failed = point("#0", search.ask(SPACE, "#0"))
    search.fail(failed, "Diverged: the loss is NaN")
    assert search.ask(SPACE, "#1") != failed.axes
    search.retry(failed)
    search.tell(failed, [71.5])
    assert [(trial.user_attrs["trial"], trial.state.name) for trial in recorded(storage, search)] == [
        ("#0", "FAIL"),
        ("#1", "RUNNING"),
        ("#0", "COMPLETE"),
    ]


def test_points_of_a_plan_are_told_to_a_database_that_does_not_know_them(storage):
    points = [point(f"#{number}", {"first": 0.5, "q": 0.1 * number, "S": number}) for number in range(3)]
    search = opened(open_plan(trials=(*points, replace(points[2], label="champion #2", champion_of="#2"))), storage)
    for each in points:
        search.tell(each, [71.5])
    assert [(trial.user_attrs["trial"], trial.state.name) for trial in recorded(storage, search)] == [
        ("#0", "COMPLETE"),
        ("#1", "COMPLETE"),
        ("#2", "COMPLETE"),
    ]


@pytest.mark.parametrize("other", [{"run": "another"}, {"generation": 1}])
def test_searches_of_two_runs_or_generations_never_share_points(storage, other):
    one = asked_and_told(storage, open_plan(), 3)
    another = asked_and_told(storage, open_plan(**other), 3)
    assert one == another  # for the second knows nothing of the first
    assert len(optuna.get_all_study_names(storage)) == 2


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
    assert message.startswith("--storage = ")
    assert "sqlite:///optuna.db would do" in message
    assert "\n" not in message
    assert "secret" not in message
