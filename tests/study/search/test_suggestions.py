"""The points of an open search: Optuna suggests the same ones to every driver, even after kills."""

import math
from dataclasses import replace
from itertools import chain, count, repeat
from random import Random

import optuna
import pytest
from helpers import Killed, killed, opened, optuna_trials, planned, planned_run, planned_space
from optuna.trial import TrialState

from study.planning.stored import PlannedSearch
from study.search.studies import _distributions, study_name
from study.space import Choice, Integer, Real, Request

SPACE = planned_space(
    "search",
    objectives=("val/top1",),
    domain={"first": Real(-2.0, 2.0, 0.5), "q": Real(-2.0, 2.0), "S": Integer(0, 9)},
    search=PlannedSearch(20, 0, 3, ("test/top1",), ("base",)),
)


def open_plan(seed=0, objectives=("val/top1",), **changes):
    space = replace(SPACE, objectives=objectives, search=replace(SPACE.search, seed=seed))
    return planned_run([space], **{"run": "table9-0", **changes})


def point(label, values, ends=("end",), stopped=False):
    options = {"epochs": 20, "ends": ends, "stopped": stopped}
    return planned("search", label, axes=values, measure="val/top1", called=label, **options)


def measured(values):
    """Return the objective of a point, by a fixed function."""
    return 80 - (values["q"] - 0.3) ** 2 - (values["first"] + 1) ** 2 / 3 - values["S"] / 7


def asked_and_told(storage, planned, points, before=0):
    """Ask for points and tell their values, one by one, as a driver with one worker. Return the suggestions."""
    search = opened(planned, storage)
    suggested = []
    for number in range(before, points):
        values = search.ask(planned.spaces[0], f"#{number}")
        suggested.append(values)
        search.tell(point(f"#{number}", values), [measured(values)] * len(planned.spaces[0].objectives))
    return suggested


@pytest.fixture(scope="module")
def undisturbed():
    """The points of an undisturbed search."""
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
    (trial,) = optuna_trials(storage, search)
    assert (trial.params, trial.state, trial.user_attrs) == (first, TrialState.RUNNING, {"trial": "#0", **first})


def test_a_point_that_a_late_driver_has_added_is_taken(storage):
    search, late = opened(open_plan(), storage), opened(open_plan(), storage)
    first = search.ask(SPACE, "#0")  # after the other driver had read which trials there are
    assert late.ask(SPACE, "#0") == first
    assert len(late._studies["search"].get_trials()) == 1


def test_points_depend_on_the_seed_and_on_how_many_there_are(undisturbed):
    again, other = (asked_and_told(optuna.storages.InMemoryStorage(), open_plan(seed), 3) for seed in (0, 1))
    assert again == undisturbed[:3]
    assert all(mine != theirs for mine, theirs in zip(again, other, strict=True))
    assert len({values["q"] for values in [*again, *other]}) == 6


def test_points_that_are_asked_at_a_time_differ(storage):
    search = opened(open_plan(), storage)
    points = [search.ask(SPACE, f"#{number}") for number in range(4)]
    assert len({values["q"] for values in points}) == 4
    assert [trial.params for trial in optuna_trials(storage, search)] == points


def test_each_point_of_a_small_domain_is_suggested_once_before_any_is_repeated(storage):
    space = replace(SPACE, domain={"S": Integer(0, 3), "switch": Choice(("IB", "CB", "CR"))})
    search = opened(replace(open_plan(), spaces=(space,)), storage)
    points = [tuple(search.ask(space, f"#{number}").values()) for number in range(16)]
    assert len(set(points[:12])) == 12
    assert len(set(points)) == 12


def test_points_for_128_workers_differ_where_tpe_would_repeat_some(storage):
    grid = {"S": Integer(0, 9), "first": Real(-2.0, 2.0, 0.5), "switch": Choice(("IB", "CB", "CR"))}  # 270 points
    space = replace(SPACE, domain=grid)
    search = opened(replace(open_plan(), spaces=(space,)), storage)
    told = [search.ask(space, f"#{number}") for number in range(20)]
    for number, values in enumerate(told):
        search.tell(point(f"#{number}", values), [-float(values["S"])])
    waiting = [search.ask(space, f"#{number}") for number in range(20, 148)]
    assert len({tuple(values.values()) for values in [*told, *waiting]}) == 148
    plain = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=False), direction="maximize")
    plain.add_trials([trial for trial in optuna_trials(storage, search) if trial.state.is_finished()])
    asked = [tuple(plain.ask(_distributions(space)).params.values()) for _ in range(128)]
    assert len(set(asked)) < 128


def test_a_search_that_grows_from_10_to_20_is_one_of_20(storage, undisturbed):
    planned = open_plan()
    first = asked_and_told(storage, planned, 10)
    (space,) = planned.spaces
    grown = replace(planned, spaces=(replace(space, search=replace(space.search, trials=100)),))
    assert first + asked_and_told(storage, grown, 20, before=10) == undisturbed
    assert [trial.state.name for trial in optuna_trials(storage, opened(grown, storage))] == ["COMPLETE"] * 20


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
    """Start a driver again whenever it is killed. Return how often it was killed."""
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
    equal_to(optuna_trials(storage, opened(open_plan(), storage)), undisturbed)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_search_that_is_killed_at_any_one_write_suggests_the_same_points(storage, monkeypatch, undisturbed, when):
    for call in count():
        planned = open_plan(run=f"run-{call}")  # with a study of its own
        with monkeypatch.context() as patch:
            Mortal(patch, chain([""] * call, [when], repeat("")))
            kills = driven_to_the_end(storage, planned, 2)
        equal_to(optuna_trials(storage, opened(planned, storage)), undisturbed[:2])
        if not kills:
            break
    assert call == 4 + 2 * 3  # the study; each point is added, its replicates, its value


def test_with_several_objectives_each_has_its_value(storage):
    planned = open_plan(objectives=("val/top1", "val/few"))
    search = opened(planned, storage)
    for number in range(4):
        values = search.ask(planned.spaces[0], f"#{number}")
        search.tell(point(f"#{number}", values), [80.0 + number, 40.0 - number])
    study = optuna.load_study(study_name=study_name(planned, planned.spaces[0]), storage=storage)
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
    (trial,) = optuna_trials(storage, search)
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, 71.5, {3: 71.5})
    assert search.is_told(stopped)
    assert search.ask(planned.spaces[0], "#1").keys() == SPACE.domain.keys()


def test_what_optuna_was_told_stays_when_replicates_are_added(storage):
    search = opened(open_plan(), storage)
    values = search.ask(SPACE, "#0")
    search.tell(point("#0", values), [71.5])
    grown = opened(open_plan(), storage)
    grown.tell(point("#0", values, ends=("end", "another")), [70.0])
    (trial,) = optuna_trials(storage, grown)
    assert (trial.value, trial.user_attrs["replicates"]) == (71.5, 1)


def test_points_that_failed_count_but_are_not_suggested_from(storage):
    search = opened(open_plan(), storage)
    failed = point("#0", search.ask(SPACE, "#0"))
    search.fail(failed, "Diverged: the loss is NaN")
    assert search.ask(SPACE, "#1") != failed.trial.axes
    search.retry(failed)
    search.tell(failed, [71.5])
    assert [(trial.user_attrs["trial"], trial.state.name) for trial in optuna_trials(storage, search)] == [
        ("#0", "FAIL"),
        ("#1", "RUNNING"),
        ("#0", "COMPLETE"),
    ]


def test_points_of_a_plan_are_told_to_a_database_that_does_not_know_them(storage):
    points = [point(f"#{number}", {"first": 0.5, "q": 0.1 * number, "S": number}) for number in range(3)]
    search = opened(
        open_plan(
            trials=(*points, replace(points[2], trial=replace(points[2].trial, called="champion #2"), champion_of="#2"))
        ),
        storage,
    )
    for each in points:
        search.tell(each, [71.5])
    assert [(trial.user_attrs["trial"], trial.state.name) for trial in optuna_trials(storage, search)] == [
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
