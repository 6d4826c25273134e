import json
from dataclasses import replace

import pytest
from helpers import planned, planned_run, planned_space, work_of
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import Refusal
from study.machine import Machine
from study.planning.stored import Plan, PlannedSearch, PlannedSpace, PlannedTrial, Resources
from study.space import Choice, Contrast, Integer, OpenSearch, Printed, Real, Request, Source, Space, Trial

few = settings(max_examples=50, deadline=None)

words = st.text(max_size=5)
numbers = st.integers(-9, 9)
reals = st.floats(allow_nan=False, allow_infinity=False)
configs = st.dictionaries(words, st.none() | st.booleans() | reals | words | st.lists(reals, max_size=2), max_size=3)

domains = st.dictionaries(
    words,
    st.builds(Choice, st.lists(words, max_size=3).map(tuple))
    | st.tuples(numbers, numbers).map(lambda ends: Integer(*sorted(ends)))
    | st.tuples(reals, reals, st.none() | st.floats(1e-9, 9)).map(lambda v: Real(*sorted(v[:2]), v[2])),
    max_size=4,
)
searches = st.builds(
    PlannedSearch,
    reported=st.lists(words, max_size=2).map(tuple),
    base=st.lists(words, max_size=2).map(tuple),
)
tuples = st.lists(words, max_size=2).map(tuple)
spaces = st.builds(
    PlannedSpace,
    objectives=tuples,
    search=st.none() | searches,
    contrasts=st.lists(st.builds(Contrast, words, words, st.none() | st.floats(0.1, 9), words, words), max_size=2).map(
        tuple
    ),
    domain=domains,
    source=st.builds(Source, words, tuples, st.dictionaries(words, words, max_size=2), words),
    splits=tuples,
)
trials = st.builds(
    PlannedTrial,
    trial=st.builds(
        Trial,
        config=configs,
        axes=st.dictionaries(words, words | numbers | reals, max_size=3),
        printed=st.none() | st.builds(Printed, reals, words, words, st.booleans()),
        called=words,
    ),
    ends=st.lists(words, max_size=3).map(tuple),
    seeds=st.lists(st.dictionaries(words, words, max_size=2), max_size=3).map(tuple),
)
unrelated = st.builds(
    Plan,
    request=st.builds(
        Request,
        st.dictionaries(words, st.just(True) | words | reals | st.lists(words).map(tuple) | st.lists(reals).map(tuple)),
        numbers,
        st.lists(words).map(tuple),
        numbers,
    ),
    machine=st.builds(Machine),
    resources=st.builds(Resources, numbers, reals, reals, words, words, words),
    replicates=numbers,
    spaces=st.lists(spaces, min_size=1, max_size=2, unique_by=lambda space: space.name).map(tuple),
    trials=st.lists(trials, min_size=1, max_size=3).map(tuple),
    sources=st.dictionaries(words, words, max_size=2),
    tracking_uri=words,
    storage=words,
    created=words,
    commit=words,
    versions=st.dictionaries(words, words, max_size=2),
)


@st.composite
def plans(draw, **changes):
    """Plans whose trials belong to their spaces."""
    plan = draw(unrelated)
    spaces = tuple(replace(space, **changes) for space in plan.spaces)
    names = [space.name for space in spaces]
    return replace(
        plan, spaces=spaces, trials=tuple(replace(each, space=draw(st.sampled_from(names))) for each in plan.trials)
    )


listed = plans(search=None)


@few
@given(plan=plans())
def test_a_plan_survives_json_text(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False))) == plan


@few
@given(domain=domains, space=spaces, plan=plans())
def test_each_kind_of_dimension_comes_back_as_itself(domain, space, plan):
    plan = replace(plan, spaces=(replace(space, domain=domain),))
    again = Plan.from_json(json.loads(json.dumps(plan.to_json()))).spaces[0].domain
    assert {name: (type(each), each) for name, each in again.items()} == {
        name: (type(each), each) for name, each in domain.items()
    }


@few
@given(one=listed, other=listed, trial=trials)
def test_the_digest_depends_on_nothing_but_trials_and_ends(one, other, trial):
    same = tuple(
        replace(trial, space=own.space, trial=replace(trial.trial, called=own.label), ends=own.ends)
        for own in one.trials
    )
    spaces = tuple(replace(other.spaces[0], name=space.name) for space in one.spaces)
    assert replace(other, trials=same, spaces=spaces).digest == one.digest
    assert one.named("another").digest == one.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda trial: {"trial": replace(trial.trial, called=trial.label + "x")},
        lambda trial: {"ends": (*trial.ends, "x")},
        lambda trial: {"ends": ("".join((*trial.ends[:1], "x")), *trial.ends[1:])},
    ],
)
@few
@given(plan=listed)
def test_another_name_or_end_of_one_trial_is_another_digest(change, plan):
    first, *others = plan.trials
    assert replace(plan, trials=(replace(first, **change(first)), *others)).digest != plan.digest


@few
@given(plan=listed)
def test_another_number_or_order_of_trials_is_another_digest(plan):
    once, twice = (replace(plan, trials=plan.trials[:1] * count) for count in (1, 2))
    assert once.digest != twice.digest


@few
@given(plan=listed)
def test_another_space_of_one_trial_is_another_digest(plan):
    first, *others = plan.trials
    moved = replace(first, space=plan.spaces[0].name + "x")
    spaces = (*plan.spaces, replace(plan.spaces[0], name=moved.space))
    assert replace(plan, trials=(moved, *others), spaces=spaces).digest != replace(plan, spaces=spaces).digest


@few
@given(plan=plans(search=PlannedSearch(5, 0, 3, (), ("base",))), found=trials)
def test_what_a_search_finds_and_how_far_it_goes_is_of_its_content_and_not_of_its_digest(plan, found):
    more = replace(plan, trials=(*plan.trials, replace(found, space=plan.spaces[0].name)))
    further = replace(plan, spaces=(replace(plan.spaces[0], search=PlannedSearch(6, 0, 3, (), ("base",))),))
    assert more.digest == plan.digest
    assert more.content != plan.content
    assert replace(plan, spaces=further.spaces + plan.spaces[1:]).digest == plan.digest
    assert replace(plan, spaces=further.spaces + plan.spaces[1:]).content != plan.content


@pytest.mark.parametrize(
    "change",
    [
        lambda space: {"objectives": ("test/few",)},
        lambda space: {"search": PlannedSearch(5, 0, 3, (), ("other base",))},
        lambda space: {"domain": {"S": Integer(0, 9)}},
        lambda space: {"name": "another"},
    ],
)
def test_a_search_with_other_objectives_work_or_dimensions_is_another_digest(change):
    search = PlannedSearch(5, 0, 3, (), ("base",))
    space = planned_space("s", domain={"S": Integer(0, 5)}, search=search)
    plan = planned_run([space])
    assert replace(plan, spaces=(replace(space, **change(space)),)).digest != plan.digest


def test_a_champion_s_replicates_have_their_own_numbers():
    trial = planned("s", "", called="champion #1", ends=("a", "b"), champion_of="#1", first_replicate=1000)
    point = replace(trial, trial=replace(trial.trial, called="#1"), champion_of="", first_replicate=0)
    space = planned_space("s")
    plan = planned_run([space], [point, trial])
    assert (trial.by_replicate, point.by_replicate) == ({1000: "a", 1001: "b"}, {0: "a", 1: "b"})
    assert plan.points(space) == [point]


@pytest.mark.parametrize(
    ("dimension", "words"),
    [
        (Choice(("IB",)), "IB"),
        (Choice(("IB", "CR")), "IB or CR"),
        (Choice(("IB", "CB", "CR")), "IB, CB or CR"),
        (Integer(0, 40), "0 to 40"),
        (Real(-2, 2), "-2 to 2"),
        (Real(-2, 2, 0.5), "-2 to 2 in steps of 0.5"),
        (Real(0.05, 1e6, 1.0), "0.05 to 1000000 in steps of 1"),
    ],
)
def test_a_dimension_is_printed_in_words(dimension, words):
    assert str(dimension) == words


@pytest.mark.parametrize("both", [True, False])
def test_a_space_has_either_trials_or_a_search(both):
    trial = Trial("row", "column", {}, {})
    search = OpenSearch(point=lambda values: trial, base={}, trials=5, reported=())
    with pytest.raises(Refusal, match="space 's' must have either trials or an open search"):
        Space("s", "", (trial,) if both else (), {}, work_of(None), ("test/top1",), search=search if both else None)


@few
@given(plan=plans())
def test_a_plan_of_before_there_was_a_way_of_stepping_leaves_it_to_the_trainables(plan):
    plain = plan.to_json()
    del plain["resources"]["gpu_steps"]
    assert Plan.from_json(plain) == replace(plan, resources=replace(plan.resources, gpu_steps="auto"))


@few
@given(plan=plans())
def test_a_plan_of_before_replicates_said_their_seeds_says_none(plan):
    plain = json.loads(json.dumps(plan.to_json()))
    for trial in plain["trials"]:
        del trial["seeds"]
    trials = tuple(replace(trial, seeds=()) for trial in plan.trials)
    assert Plan.from_json(plain) == replace(plan, trials=trials)


@few
@given(plan=plans())
def test_a_plan_of_before_points_could_be_refused_has_none(plan):
    plain = json.loads(json.dumps(plan.to_json()))
    for trial in plain["trials"]:
        del trial["refused"]
    assert Plan.from_json(plain) == plan


@pytest.mark.parametrize("other", [0, 1, 2, 5, "4", None])
def test_another_format_is_refused(other):
    with pytest.raises(Refusal, match=f"unknown plan format {other!r}: this version reads formats 3 and 4. Use"):
        Plan.from_json({"format": other, "run": "table9-0"})


def test_a_plan_without_a_format_is_refused():
    with pytest.raises(Refusal, match="unknown plan format None: "):
        Plan.from_json({})
