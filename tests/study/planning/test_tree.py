import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.planning.tree import branching, cut, descendants, joints, missing, nodes, stages
from study.space import Resolved

few = settings(max_examples=60, deadline=None)


def resolved(start, instructions):
    """A replicate whose states are called by all that led to them, such as o/a/b."""
    keys = [start]
    for instruction in instructions:
        keys.append(f"{keys[-1]}/{instruction}")
    return Resolved({"start": start}, tuple({"do": each} for each in instructions), tuple(keys))


recipes_of = st.lists(st.builds(resolved, st.sampled_from("op"), st.text("ab", max_size=7)), min_size=1, max_size=7)


@st.composite
def works(draw):
    """Recipes, and the states of them that are stored, beside those of other runs."""
    recipes = draw(recipes_of)
    everything = sorted(nodes(recipes))
    stored = draw(st.sets(st.sampled_from(everything))) if everything else set()
    return recipes, stored | draw(st.sets(st.sampled_from(["o/x", "q/a", "z"])))


@st.composite
def kept_works(draw):
    """The same, and states that are kept for recipes to come; some are of other runs."""
    recipes, stored = draw(works())
    everywhere = sorted({key for recipe in recipes for key in recipe.keys} | {"o/x", "z"})
    return recipes, stored, draw(st.sets(st.sampled_from(everywhere)))


def parts_or_ends(recipes):
    """By looking at every state: it ends a recipe, or is followed by more than one."""
    names = {key for recipe in recipes for key in recipe.keys}
    ends = {recipe.keys[-1] for recipe in recipes}
    return {key for key in names if key in ends or sum(name.rpartition("/")[0] == key for name in names) > 1}


def slow_missing(recipes, stored):
    """From the definition: not stored, and an end or before something that is missing."""
    names = nodes(recipes)
    ends = {recipe.keys[-1] for recipe in recipes}

    def wanted(key):
        below = (name for name in names if name.rpartition("/")[0] == key)
        return key not in stored and (key in ends or any(wanted(name) for name in below))

    return {key for key in names if wanted(key)}


@few
@given(recipes=recipes_of)
def test_the_least_number_of_epochs_is_the_number_of_distinct_beginnings(recipes):
    beginnings = [(r.origin["start"], r.epochs[: n + 1]) for r in recipes for n in range(len(r.epochs))]
    distinct = [each for number, each in enumerate(beginnings) if each not in beginnings[:number]]
    assert len(nodes(recipes)) == len(distinct)


@few
@given(recipes=recipes_of)
def test_kept_are_the_states_where_recipes_part_or_end(recipes):
    assert branching(recipes) == parts_or_ends(recipes)


@few
@given(work=works())
def test_missing_is_what_some_end_waits_for(work):
    assert missing(*work) == slow_missing(*work)


@few
@given(work=works())
def test_stages_hold_each_missing_state_once(work):
    trained = [key for stage in stages(*work) for key in stage.keys]
    assert len(trained) == len(set(trained))
    assert set(trained) == slow_missing(*work)


@few
@given(work=works())
def test_a_stage_starts_at_state_0_or_at_what_is_kept(work):
    found = stages(*work)
    ends = {stage.key for stage in found}
    for stage in found:
        assert (stage.start == 0) == (stage.parent == stage.origin["start"])
        assert stage.start == 0 or stage.parent in work[1] | ends


@few
@given(work=works())
def test_every_missing_branching_point_and_end_is_kept_and_nothing_else(work):
    recipes, stored = work
    assert {stage.key for stage in stages(recipes, stored)} == parts_or_ends(recipes) & slow_missing(recipes, stored)


@few
@given(work=kept_works())
def test_stages_that_keep_more_still_hold_each_missing_state_once(work):
    recipes, stored, keep = work
    found = stages(*work)
    trained = [key for stage in found for key in stage.keys]
    assert len(trained) == len(set(trained))
    assert set(trained) == slow_missing(recipes, stored)
    ends = {stage.key for stage in found}
    assert ends == (parts_or_ends(recipes) | keep) & slow_missing(recipes, stored)
    assert all(stage.start == 0 or stage.parent in stored | ends for stage in found)


def test_joints_are_the_states_that_recipes_name_by_number():
    one, other = (Resolved(r.origin, r.epochs, r.keys, (1, 3)) for r in (resolved("o", "abab"), resolved("o", "abba")))
    assert joints([one, other, resolved("o", "b")]) == {"o/a", "o/a/b/a", "o/a/b/b"}


def test_a_stage_ends_at_a_joint_so_that_a_later_recipe_can_part_there():
    first, later = resolved("o", "aaaabb"), resolved("o", "aaaaab")
    trunk, rest = stages([first], set(), {"o/a/a/a/a"})
    assert (trunk.key, rest.parent, rest.start) == ("o/a/a/a/a", "o/a/a/a/a", 4)
    (more,) = stages([later], {trunk.key, rest.key}, {"o/a/a/a/a"})
    assert (more.parent, len(more.keys)) == (trunk.key, 2)
    (whole,) = stages([first], set())
    assert [len(stage.keys) for stage in stages([later], {whole.key})] == [6]


@few
@given(work=works())
def test_the_longest_remaining_path_comes_first(work):
    recipes, stored = work
    found = stages(recipes, stored)
    assert [stage.remaining for stage in found] == sorted((stage.remaining for stage in found), reverse=True)
    for stage in found:
        waiting = [
            len(recipe.epochs) - stage.start
            for recipe in recipes
            if stage.keys[0] in recipe.keys and not stored & set(recipe.keys[stage.start + 1 :])
        ]
        assert stage.remaining == max(waiting)


@few
@given(work=works(), random=st.randoms(use_true_random=False))
def test_stages_in_any_allowed_order_train_every_recipe(work, random):
    recipes, stored = work
    kept, waiting = set(stored), stages(recipes, stored)
    while waiting:
        ready = [stage for stage in waiting if stage.start == 0 or stage.parent in kept]
        stage = random.choice(ready)  # raises where no stage is ready
        waiting.remove(stage)
        state = stage.origin["start"] if stage.start == 0 else stage.parent
        for epoch, key in zip(stage.epochs, stage.keys, strict=True):
            state = f"{state}/{epoch['do']}"
            assert state == key
        kept.add(state)
    assert {recipe.keys[-1] for recipe in recipes if recipe.epochs} <= kept
    assert stages(recipes, kept) == []


@few
@given(work=works())
def test_descendants_are_what_is_never_ready_without_a_state(work):
    found, stored = stages(*work), work[1]
    for lost in stored | {stage.key for stage in found}:
        kept, before = stored - {lost}, None
        while kept != before:
            before = set(kept)
            kept |= {stage.key for stage in found if stage.key != lost and (stage.start == 0 or stage.parent in kept)}
        below = [stage.key for stage in descendants(lost, found)]
        assert len(below) == len(set(below))
        assert set(below) == {stage.key for stage in found} - kept - {lost}


def test_nine_cells_share_their_first_sampler():
    cells = [resolved("seed 0", first * 161 + switch * 39) for first in "ibr" for switch in "ibr"]
    assert len(nodes(cells)) == 3 * 161 + 9 * 39
    first = stages(cells, ())[:3]
    assert [(stage.start, len(stage.keys), stage.remaining) for stage in first] == [(0, 161, 200)] * 3


def test_a_longer_recipe_goes_on_from_the_end_of_a_shorter_one():
    short, long = resolved("o", "aaaa"), resolved("o", "aaaaaa")
    (more,) = stages([short, long], {short.keys[-1]})
    assert (more.parent, more.start, more.keys) == (short.keys[4], 4, long.keys[5:])


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_duplicates_cost_nothing(copies):
    (stage,) = stages([resolved("o", "abc")] * copies, ())
    assert len(stage.keys) == 3


@few
@given(work=works(), keys=st.sets(st.text("oab/", max_size=8)))
def test_a_stage_is_cut_where_another_run_needs_its_states(work, keys):
    recipes, stored = work
    for stage in stages(recipes, stored):
        parts = cut(stage, keys)
        assert {part.key for part in parts} == (keys & set(stage.keys)) | {stage.key}
        assert sum((part.keys for part in parts), ()) == stage.keys
        assert sum((part.epochs for part in parts), ()) == stage.epochs
        assert [part.parent for part in parts] == [stage.parent, *(part.key for part in parts[:-1])]
        assert all(part.start + part.remaining == stage.start + stage.remaining for part in parts)
        assert all(part.start == len(part.keys[0].split("/")) - 2 for part in parts)
