"""Plans of an earlier format, as this version reads them."""

import json

import pytest
from helpers import VALUES, asked, downgraded, draft, searched

from study.planning.stored import Plan
from study.space import Request


@pytest.mark.parametrize(
    ("space", "request_"),
    [
        ("table7", Request()),
        ("table7", asked(data=("cifar10",), imbalance=(20.0,), vary=("seed",))),
        ("table1", asked(paper=True, recipe="source")),
        ("table9", asked(vary=("crossed",))),
        ("sampler_search", asked(5, ("top1", "few"))),
    ],
)
def test_a_plan_of_the_format_before_is_read_as_one_of_this(space, request_):
    drawn = draft(space, replicates=4, request=request_)
    if drawn.plan.spaces[0].search is not None:
        drawn.add_champion(drawn.plan.spaces[0], drawn.add_point(drawn.plan.spaces[0], VALUES[0]))
    plain = json.loads(json.dumps(drawn.plan.to_json()))
    before = downgraded(plain)
    assert "paper" in before["trials"][0]
    assert "source" not in before["spaces"][0]
    assert Plan.from_json(before) == Plan.from_json(plain) == drawn.plan


def test_what_is_no_plan_of_the_format_before_is_damage_and_no_accident():
    before = downgraded(json.loads(json.dumps(draft("table7").plan.to_json())))
    for name in ("request", "spaces", "trials", "machine"):
        with pytest.raises(ValueError):  # noqa: PT011
            Plan.from_json({other: value for other, value in before.items() if other != name})


def test_so_is_that_of_a_search_that_stopped_a_point():
    drawn = searched(early_stop=3, objectives=("few",))
    (space,) = drawn.plan.spaces
    points = [drawn.add_point(space, values) for values in VALUES]
    drawn.judge(points[1], stop=True)
    drawn.add_champion(space, points[0])
    assert Plan.from_json(downgraded(drawn.plan.to_json())) == drawn.plan


def test_the_first_of_them_did_not_say_seeds_nor_know_of_short():
    plan = draft("table7").plan
    plain = downgraded(plan.to_json())
    for trial in plain["trials"]:
        del trial["seeds"]
    del plain["request"]["short"], plain["request"]["vary"], plain["resources"]["gpu_steps"]
    again = Plan.from_json(json.loads(json.dumps(plain)))
    assert [trial.seeds for trial in again.trials] == [()] * 3
    assert (again.request, again.resources) == (plan.request, plan.resources)
