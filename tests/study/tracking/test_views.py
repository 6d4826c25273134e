"""The saved views of MLflow's UI: the parameter that each groups by, its tag, and its link."""

import base64
import json
import zlib
from dataclasses import replace
from urllib.parse import parse_qs

import numpy as np
import pytest
from helpers import planned, planned_run, planned_space, work_of

from study.tracking import views

TABLE9 = planned_space()
MEASURES = ("test/top1", "test/many", "test/medium", "test/few")
WORK = work_of(None, lambda config, _replicate, _machine: config, headline=MEASURES)


def trial(row, **axes):
    return planned("table9", row, config=axes, axes=axes, epochs=5, ends=("end",))


def cells(*pairs):
    return [trial(f"{a}⇒{b}", dataset="digits", combination=f"{a}⇒{b}", first=a, switch=b) for a, b in pairs]


def plan(*trials, **changes):
    run_plan = planned_run([TABLE9], trials, created="2020-02-02T02:02:02.020+00:00")
    return replace(run_plan, **changes)


def opened(tags):
    """Return the key, the name and the UI state of the only view in some tags."""
    ((key, value),) = tags.items()
    view = json.loads(value)
    head, packed = view["state"].split(";")
    assert head == "deflate"
    return key, view["name"], json.loads(zlib.decompress(base64.b64decode(packed)))


def test_it_averages_over_the_axis_that_tells_the_trials_apart():
    nine = [{"first": a, "switch": b, "combination": f"{a}⇒{b}", "S": 1} for a in "IBR" for b in "IBR"]
    assert views.grouping(("S", "first", "switch", "combination"), nine) == "combination"
    assert views.grouping(("combination", "S"), [{"combination": "IB⇒CR", "S": s} for s in (0, 1, 5)]) == "S"


def test_or_else_over_the_trials_themselves():
    two = [{"method": "focal"}, {"method": "BBN"}]
    assert views.grouping(("method",), two) == "method"
    assert views.grouping(("name",), two) == "trial"  # MLflow has no such parameter
    assert views.grouping(("method",), [*two, {"method": "BBN"}]) == "trial"  # it is not what tells the axis apart
    assert views.grouping(("method",), [*two, {}]) == "trial"  # not all have it
    assert views.grouping(("method",), two[:1]) == "trial"  # nothing to tell it from
    assert views.grouping((), []) == "trial"  # a search that has not begun


def test_a_tag_holds_a_closed_row_and_a_curve_for_each_group():
    key, name, state = opened(views.tags(plan(*cells(("IB", "IB"), ("IB", "CR"))), WORK))
    assert (key, name) == ("mlflow.sharedViewState.table9", "table9 by combination")
    assert state["searchFilter"] == "tags.`study.space` = 'table9'"
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "combination"}]
    assert state["groupsExpanded"] == {"param.combination.IB⇒IB": False, "param.combination.IB⇒CR": False}
    assert state["selectedColumns"][0] == "metrics.`test/top1`"
    assert [card["metricKey"] for card in state["compareRunCharts"]] == list(MEASURES)


def test_a_space_s_own_objective_comes_first_and_older_generations_are_left_out():
    spaces = (replace(TABLE9, objectives=("val/top1",)),)
    _, _, state = opened(views.tags(plan(spaces=spaces, generation=2), WORK))
    assert state["selectedColumns"][:2] == ["metrics.`val/top1`", "metrics.`test/top1`"]
    assert state["searchFilter"] == "tags.`study.space` = 'table9' and tags.`study.generation` = '2'"


@pytest.mark.parametrize(("points", "closed"), [(200, 200), (201, 0), (3000, 0)])
def test_the_tag_of_many_points_stays_far_below_mlflow_s_limit(points, closed):
    rng = np.random.default_rng(points)  # what does not repeat is hardly compressed
    many = [trial(f"#{n} {rng.bytes(8).hex()}") for n in range(points)]
    tags = views.tags(plan(*many), WORK)
    assert max(map(len, tags.values())) < views.LIMIT / 2
    assert len(opened(tags)[2]["groupsExpanded"]) == closed


def test_a_view_that_mlflow_would_refuse_is_left_out():
    rng = np.random.default_rng(0)
    spaces = (replace(TABLE9, name="wide", objectives=tuple(rng.bytes(99).hex() for _ in range(200))), TABLE9)
    assert list(views.tags(plan(spaces=spaces), WORK)) == [f"{views.TAG}table9"]


def test_links_lead_to_the_views_of_an_experiment():
    tags = {
        "study.run": "mine",
        f"{views.TAG}old": "deflate;",
        f"{views.TAG}older": '{"searchFilter": ""}',
    }
    tags |= views.tags(plan(*cells(("IB", "IB"), ("IB", "CR"))), WORK)
    experiment = {
        "experiment_id": "7",
        "name": "mine",
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    ((name, link),) = views.links("http://127.0.0.1:5000", experiment).items()
    page, _, query = link.partition("?")
    assert (name, page) == ("table9 by combination", "http://127.0.0.1:5000/#/experiments/7/runs")
    assert parse_qs(query) == {"workflowType": ["machine_learning"], "viewStateShareKey": ["table9"]}


def test_an_experiment_without_views_is_linked_itself():
    links = views.links("http://127.0.0.1:5000/", {"experiment_id": "7", "name": "old"})
    assert links == {"old": "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"}
