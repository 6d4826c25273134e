import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.plan import (
    Choice,
    Contrast,
    Integer,
    Machine,
    Plan,
    PlannedSpace,
    PlannedTrial,
    Real,
    Request,
    Resources,
)
from study.refusal import Refusal

few = settings(max_examples=50, deadline=None)

words = st.text(max_size=5)
numbers = st.integers(-9, 9)
reals = st.floats(allow_nan=False, allow_infinity=False)
configs = st.dictionaries(words, st.none() | st.booleans() | reals | words | st.lists(reals, max_size=2), max_size=3)

domains = st.dictionaries(
    words,
    st.builds(Choice, st.lists(words, max_size=3).map(tuple))
    | st.builds(Integer, numbers, numbers)
    | st.builds(Real, reals, reals, st.none() | reals),
    max_size=4,
)
spaces = st.builds(
    PlannedSpace,
    contrasts=st.lists(st.builds(Contrast, words, words), max_size=2).map(tuple),
    domain=domains,
)
trials = st.builds(
    PlannedTrial,
    config=configs,
    axes=st.dictionaries(words, words | numbers | reals, max_size=3),
    paper=st.none() | reals,
    ends=st.lists(words, max_size=3).map(tuple),
)
plans = st.builds(
    Plan,
    request=st.builds(Request, st.lists(words).map(tuple), st.lists(reals).map(tuple), st.booleans()),
    machine=st.builds(Machine),
    resources=st.builds(Resources, numbers, reals, reals, words, words),
    replicates=numbers,
    spaces=st.lists(spaces, max_size=2).map(tuple),
    trials=st.lists(trials, min_size=1, max_size=3).map(tuple),
    sources=st.dictionaries(words, words, max_size=2),
    tracking_uri=words,
    storage=words,
    created=words,
    commit=words,
    versions=st.dictionaries(words, words, max_size=2),
)


@few
@given(plan=plans)
def test_a_plan_survives_json_text(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False))) == plan


@few
@given(domain=domains, space=spaces, plan=plans)
def test_each_kind_of_dimension_comes_back_as_itself(domain, space, plan):
    plan = replace(plan, spaces=(replace(space, domain=domain),))
    again = Plan.from_json(json.loads(json.dumps(plan.to_json()))).spaces[0].domain
    assert {name: (type(each), each) for name, each in again.items()} == {
        name: (type(each), each) for name, each in domain.items()
    }


@few
@given(one=plans, other=plans, trial=trials)
def test_the_digest_depends_on_nothing_but_trials_and_ends(one, other, trial):
    same = tuple(
        replace(trial, space=own.space, label=own.label, row=own.row, column=own.column, ends=own.ends)
        for own in one.trials
    )
    assert replace(other, trials=same).digest == one.digest
    assert one.named("another").digest == one.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda trial: {"space": trial.space + "x"},
        lambda trial: {"label": trial.label + "x"},
        lambda trial: {"ends": (*trial.ends, "x")},
        lambda trial: {"ends": ("x", *trial.ends[1:])},
    ],
)
@few
@given(plan=plans)
def test_another_name_or_end_of_one_trial_is_another_digest(change, plan):
    first, *others = plan.trials
    assert replace(plan, trials=(replace(first, **change(first)), *others)).digest != plan.digest


@few
@given(plan=plans)
def test_another_number_or_order_of_trials_is_another_digest(plan):
    once, twice = (replace(plan, trials=plan.trials[:1] * count) for count in (1, 2))
    assert once.digest != twice.digest


@pytest.mark.parametrize("other", [0, 2, "1", None])
def test_another_format_is_refused(other):
    with pytest.raises(Refusal, match=f"plan format = {other!r}: this version reads format 1"):
        Plan.from_json({"format": other, "run": "table9-0"})


def test_a_plan_without_a_format_is_refused():
    with pytest.raises(Refusal, match="plan format = None"):
        Plan.from_json({})
