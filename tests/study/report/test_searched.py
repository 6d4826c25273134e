"""An open search in a report."""

import json
from dataclasses import replace
from itertools import product

import pytest
from helpers import drawn, plan, planned, planned_space, size_of, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from study.planning.stored import PlannedSearch
from study.report.report import FORMATS, Report
from study.space import Integer, Real

REPORTED = ("test/top1", "holdout/top1")


def search_space(objectives=("val/top1",), trials=8):
    domain = {"q": Real(-2.0, 2.0), "S": Integer(0, 49)}
    search = PlannedSearch(trials, 0, 3, REPORTED, ("base",))
    options = {"title": "Find: a title", "evidence": "exploratory", "objectives": objectives, "domain": domain}
    return planned_space("find", search=search, **options)


def point(number, q=0.0, S=1, stopped=False):
    label, axes = f"#{number}", {"dataset": "digits", "q": q, "S": S}
    options = {"epochs": 200, "ends": (f"{label} 0",), "stopped": stopped, "seeds": (drawn(0, 0, 0),)}
    return planned("find", label, config={"q": q, "S": S}, axes=axes, measure="val/top1", called=label, **options)


def champion_of(point):
    label = f"champion {point.label}"
    return replace(
        point,
        trial=replace(point.trial, row=label, called=label, measure="test/top1"),
        ends=tuple(f"{label} {n}" for n in range(3)),
        champion_of=point.label,
        first_replicate=1000,
        seeds=tuple(drawn(0, 0, 1000 + n) for n in range(3)),
    )


def measured(**measures):
    whole = {f"{split}/{name}": value for split, by_name in measures.items() for name, value in by_name.items()}
    return {"provenance": [{"device_model": "a CPU"}], "measures": [whole]}


def searched(values, objectives=("val/top1",), champions=(), stopped=(), trials=8):
    """Return a report of points with these objectives after the last epoch; None for a point that has not ended."""
    names = [name.partition("/")[2] for name in objectives]
    points = [point(n, q=min(-1.5 + 0.3 * n, 2.0), S=min(7 * n, 49), stopped=n in stopped) for n in range(len(values))]
    states = {
        p.ends[0]: measured(val=dict(zip(names, one, strict=True)) | {"top1": one[0]})
        for p, one in zip(points, values, strict=True)
        if one is not None
    }
    crowned = [champion_of(points[n]) for n in champions]
    for each in crowned:
        for n, end in enumerate(each.ends):
            states[end] = measured(
                test={"top1": 80.0 + n}, holdout={"top1": 60.0 + 2 * n}, val=dict.fromkeys(("top1", *names), 99.0)
            )
    whole = replace(plan([*points, *crowned]), spaces=(search_space(objectives, trials),))
    return Report(whole, states.get)


def test_the_best_points_come_first_with_their_dimensions_and_objectives():
    report = searched([(70.0,), (90.0,), None, (80.0,)])
    head, body = table_of(report.markdown())
    assert head == ["", "q", "S", "val/top1"]
    assert body == [["#1", "-1.2", "7", "90.0"], ["#3", "-0.6", "21", "80.0"], ["#0", "-1.5", "0", "70.0"]]
    assert "The best 3 of 3 complete points (of 8 in all), in % after the last epoch, " in report.markdown()
    assert "n = 1 replicate. The best point is chosen by val/top1." in report.markdown()


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_what_the_points_and_the_champions_of_a_search_vary_is_said_first(form):
    points = "One replicate: split 0, subset 0, training seed 0."
    champions = "3 replicates vary training seed (1000 to 1002); all have split 0, subset 0."
    text = searched([(70.0,), (90.0,)]).render(form)
    assert 0 <= text.index("Find: a title") < text.index(points) < text.index("The best 2 of 2 complete points")
    (section,) = searched([(70.0,), (90.0,)], champions=(1,)).sections
    assert section.notices == [f"Points: {points}", f"Champions: {champions}"]
    assert searched([]).sections[0].notices == []


def test_of_many_points_ten_are_shown():
    _, body = table_of(searched([(float(n),) for n in range(15)], trials=15).markdown())
    assert [line[0] for line in body] == [f"#{n}" for n in range(14, 4, -1)]


def test_points_that_were_stopped_early_are_counted_and_not_ranked():
    report = searched([(70.0,), (90.0,), (80.0,)], stopped=(1,))
    _, body = table_of(report.markdown())
    assert [line[0] for line in body] == ["#2", "#0"]
    assert "The best 2 of 2 complete points (of 8 in all, 1 stopped early)" in report.markdown()
    (record,) = json.loads(report.json())["searches"]
    assert (record["planned"], record["ended"], record["stopped"], record["best"]) == (3, 2, 1, ["#2"])


def test_the_history_is_the_best_so_far():
    report = searched([(70.0,), (60.0,), (90.0,), (90.0,), (80.0,)])
    assert "History of the best val/top1: 70.0 at #0, 90.0 at #2." in report.markdown()
    (record,) = json.loads(report.json())["searches"]
    assert [each["best"] for each in record["history"]] == [70.0, 70.0, 90.0, 90.0, 90.0]


def test_importances_are_shares_and_a_dimension_that_matters_has_most():
    report = searched([(50.0 + 10 * (n % 2),) for n in range(2)] + [(40.0 + 5 * n,) for n in range(2, 10)], trials=10)
    (record,) = json.loads(report.json())["searches"]
    assert set(record["importances"]) == {"q", "S"}
    assert sum(record["importances"].values()) == pytest.approx(1.0)
    assert "Importance for val/top1 (fANOVA, shares of 1): " in report.markdown()

    points = [point(n, q=q, S=S) for n, (q, S) in enumerate(product((-2.0, -1.0, 0.0, 1.0), (0, 10, 20, 40)))]
    states = {p.ends[0]: measured(val={"top1": 50 + 10 * p.trial.axes["q"] + 0.01 * p.trial.axes["S"]}) for p in points}
    shares = Report(replace(plan(points), spaces=(search_space(),)), states.get).searches["find"].importances
    assert shares["q"] > 0.9


def test_importance_needs_ten_distinct_points_and_repeated_points_are_counted_once():
    values = [(50.0 + n,) for n in range(9)]
    assert "Importance needs at least 10 distinct points (9 of 9 are distinct)." in searched(values).markdown()
    points = [replace(point(n, q=0.1 * (n % 4)), ends=(f"end {n % 4}",)) for n in range(10)]
    states = {p.ends[0]: measured(val={"top1": 50 + 10 * p.trial.axes["q"]}) for p in points}
    report = Report(replace(plan(points), spaces=(search_space(),)), states.get)
    assert "Importance needs at least 10 distinct points (4 of 10 are distinct)." in report.markdown()
    assert "The best 10 of 10 complete points, 4 of which are distinct (of 8 in all)" in report.markdown()
    assert json.loads(report.json())["searches"][0]["importances"] == {}


@pytest.mark.parametrize("form", FORMATS)
def test_a_failed_point_is_reported_with_its_values_and_its_reason(form):
    refused = replace(point(1, S=8), ends=("",), refused="S must be at most 5 (got 8)")
    points = [point(0), refused, point(2)]
    states = {p.ends[0]: measured(val={"top1": 50.0}) for p in (points[0], points[2])}
    failures = {("find/#1", 0): refused.refused}
    report = Report(replace(plan(points), spaces=(search_space(),)), states.get, failures=failures)
    assert "S must be at most 5 (got 8)" in report.render(form)
    (record,) = json.loads(report.json())["searches"]
    assert record["failed"] == [{"trial": "#1", "q": 0.0, "S": 8, "reasons": {"0": "S must be at most 5 (got 8)"}}]
    assert "The best 2 of 2 complete points (of 8 in all, 1 failed)" in report.markdown()


@pytest.mark.parametrize("values", [[], [(50.0,)], [(50.0,), (50.0,)], [None, None]])
def test_of_equal_or_single_points_nothing_is_important(values):
    report = searched(values)
    assert report.searches["find"].importances == {}
    assert all(report.render(form).strip() for form in FORMATS)


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_champion_is_reported_on_what_it_was_not_chosen_by(form):
    text = searched([(70.0,), (90.0,)], champions=(1,)).render(form)
    measures = "test/top1 81.0 ± 1.0, holdout/top1 62.0 ± 2.0, mean ± std over n = 3 fresh replicates"
    assert f"Best: champion #1 (q -1.2, S 7): {measures}." in text
    assert "99.0" not in text


def test_a_champion_s_measures_are_in_json_and_its_value_is_that_of_all_test_images():
    record = json.loads(searched([(70.0,), (90.0,)], champions=(1,)).json())
    (search,) = record["searches"]
    (champion,) = search["champions"]
    assert (champion["trial"], champion["champion_of"], champion["n"]) == ("champion #1", "#1", 3)
    assert champion["test/top1"] == {"mean": 81.0, "std": 1.0, "values": [80.0, 81.0, 82.0]}
    assert champion["holdout/top1"]["mean"] == 62.0
    assert [each["trial"] for each in search["points"]] == ["#0", "#1"]
    assert [(row["trial"], row["values"]) for row in record["rows"]] == [
        ("#0", [70.0]),
        ("#1", [90.0]),
        ("champion #1", [80.0, 81.0, 82.0]),
    ]


pairs = st.lists(st.none() | st.tuples(*[st.integers(0, 5).map(float)] * 2), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(values=pairs)
def test_with_two_objectives_the_best_are_the_pareto_front(values):
    report = searched(values, objectives=("val/top1", "val/few"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.report.searched.Searched.importances", {})  # they take a second
        (record,) = json.loads(report.json())["searches"]
    ended = {f"#{n}": one for n, one in enumerate(values) if one is not None}
    best = {
        one
        for one in ended.values()
        if not any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in ended.values())
    }
    assert {ended[label] for label in record["best"]} == best
    assert len(record["best"]) == len(best)
    assert {each["trial"]: tuple(each["values"]) for each in record["points"]} == ended


def test_a_search_has_a_picture_from_two_points_on():
    assert "find.png" not in searched([(70.0,)]).files()
    files = searched([(70.0,), (80.0,), (60.0,)]).files()
    assert "combinations.png" not in files
    assert min(size_of(files["find.png"])) > 100
