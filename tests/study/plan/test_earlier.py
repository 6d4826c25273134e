"""Plans of an earlier format, as this version reads them."""

import json
from dataclasses import replace

import pytest
from helpers import VALUES, asked, draft, format_3, searched

from study.plan.stored import Plan


@pytest.mark.parametrize(
    ("references", "request_"),
    [
        (("table9", "table3"), {}),
        (("table1",), {"paper": True, "options": {"recipe": "source"}}),
        (("table7",), {"short": True}),
        (("table9",), {"vary": ("crossed",), "imbalance": (10.0, 50.0)}),
    ],
)
def test_a_plan_of_format_3_is_the_plan_that_it_was(references, request_):
    plan = draft(*references, replicates=4, request=asked(**request_)).plan
    trials = tuple(replace(each, trial=replace(each.trial, least=1)) for each in plan.trials)  # it was not stored
    assert Plan.from_json(format_3(plan.to_json())) == replace(plan, trials=trials)


def test_so_is_that_of_a_search_with_its_points_and_its_champion():
    drawn = searched(early_stop=3, objectives=("few",))
    (space,) = drawn.plan.spaces
    points = [drawn.add_point(space, values) for values in VALUES]
    drawn.judge(points[1], stop=True)
    drawn.add_champion(space, points[0])
    assert Plan.from_json(format_3(drawn.plan.to_json())) == drawn.plan


def test_the_first_of_them_did_not_say_seeds_nor_know_of_short():
    plan = draft("table7").plan
    plain = format_3(plan.to_json())
    for trial in plain["trials"]:
        del trial["seeds"]
    del plain["request"]["short"], plain["request"]["vary"], plain["resources"]["gpu_steps"]
    again = Plan.from_json(json.loads(json.dumps(plain)))
    assert [trial.seeds for trial in again.trials] == [()] * 3
    assert (again.request, again.resources) == (plan.request, plan.resources)
