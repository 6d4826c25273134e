"""From space files to a plan and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study import planning, tree
from study.plan import Integer, Machine, Plan, Request, Resources
from study.refusal import Refusal

CELLS = (("IB", "IB"), ("IB", "CR"))
MORE = (("IB", "CR"), ("IB", "CB"), ("CR", "CB"))
CPU = Machine("cpu", 1)


def draft(*references, replicates=2, request=None, machine=CPU):
    return planning.draft(references, request or Request(), replicates, machine, Resources())


def stored(drawn):
    """A plan as it comes back from the store."""
    return Plan.from_json(json.loads(json.dumps(drawn.plan.to_json())))


def beginnings(drawn):
    """By brute force: what is distinct among the first 1, 2, … epochs of all replicates."""
    return {
        json.dumps([recipe.origin, recipe.epochs[: n + 1]], sort_keys=True)
        for recipe in drawn.recipes.values()
        for n in range(len(recipe.epochs))
    }


def test_every_replicate_of_every_trial_has_a_recipe_and_its_end_in_the_plan(small_space):
    drawn = draft(small_space(cells=CELLS), replicates=3)
    assert [trial.label for trial in drawn.plan.trials] == ["IB⇒IB (digits-LT IF 50)", "IB⇒CR (digits-LT IF 50)"]
    assert {(trial.name, number): end for trial in drawn.plan.trials for number, end in enumerate(trial.ends)} == {
        name: recipe.keys[-1] for name, recipe in drawn.recipes.items()
    }
    assert len(drawn.recipes) == 6
    assert {trial.epochs for trial in drawn.plan.trials} == {3}


def test_spaces_planned_together_are_one_tree(small_space):
    one, other = small_space("one", CELLS), small_space("other", MORE)
    needed = [draft(*references).plan.epochs_needed for references in ([one], [other], [one, other])]
    assert needed == [len(beginnings(draft(*references))) for references in ([one], [other], [one, other])]
    assert needed == [2 * 4, 2 * (4 + 3), 2 * (5 + 3)]
    together = draft(one, other).plan
    assert together.study == "one+other"
    ends = {trial.name: trial.ends for trial in together.trials}
    assert ends["one/IB⇒CR (digits-LT IF 50)"] == ends["other/IB⇒CR (digits-LT IF 50)"]


OWN = """
    trials = tuple(replace(t, measure="tau_normalised/top1", least=4, provenance="*") if t.row == "IB⇒CR" else t
                   for t in trials)
    return replace(table, """


def test_a_trial_has_its_own_measure_provenance_and_least_number_of_replicates(small_space):
    path = Path(small_space(cells=CELLS))
    path.write_text(path.read_text().replace("\n    return replace(table, ", OWN))
    for replicates, expected in ((2, [2, 4]), (5, [5, 5])):
        plan = stored(draft(str(path), replicates=replicates))
        assert [len(trial.ends) for trial in plan.trials] == expected
        assert [trial.measure for trial in plan.trials] == ["test/top1", "tau_normalised/top1"]
        assert [trial.provenance for trial in plan.trials] == ["", "*"]
        assert plan.replicates == replicates
        assert planning.redraft(plan).plan == plan


def test_a_run_grows_past_what_a_trial_needs_at_least(small_space):
    path = Path(small_space(cells=CELLS))
    path.write_text(path.read_text().replace("\n    return replace(table, ", OWN))
    before = draft(str(path), replicates=2)
    after = [planning.grown(stored(before), draft(str(path), replicates=n)).plan for n in (3, 6)]
    assert [[len(trial.ends) for trial in plan.trials] for plan in after] == [[3, 4], [6, 6]]
    with pytest.raises(Refusal, match="1 replicates instead of 2"):
        planning.grown(stored(before), draft(str(path), replicates=1))


def test_a_name_by_default_says_what_is_run(small_space):
    space = small_space(cells=CELLS)
    run = draft(space).plan.run
    assert run.startswith("small-")
    assert draft(space).plan.run == run
    others = [
        draft(space, replicates=3), draft(space, machine=Machine("cpu", 2)), draft(space, machine=Machine("cuda", 1)),
        draft(space, request=Request(imbalance=(10.0,))), draft(small_space(cells=MORE)),
    ]  # fmt: skip
    assert len({run, *(other.plan.run for other in others)}) == 6


@pytest.mark.parametrize("references", [["table9"], ["FILE"], ["FILE:space"], ["table9", "FILE"]])
def test_a_stored_plan_is_drawn_again_from_anywhere(small_space, tmp_path, monkeypatch, references):
    monkeypatch.chdir(tmp_path)
    file = Path(small_space(cells=CELLS)).name  # as a user would type it
    drawn = draft(*(reference.replace("FILE", file) for reference in references))
    monkeypatch.chdir("/")
    again = planning.redraft(stored(drawn))
    assert again.plan == drawn.plan
    assert again.recipes == drawn.recipes


def test_a_shipped_file_called_by_its_path_is_drawn_again_from_anywhere(monkeypatch):
    import search_spaces

    monkeypatch.chdir(Path(search_spaces.__file__).parents[1])
    plan = stored(draft("search_spaces/table9.py", replicates=1))
    monkeypatch.chdir("/")
    assert planning.redraft(plan).plan.digest == plan.digest


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        (lambda now: {**now, "loop.py": "0", "data.py": "0"}, "data.py, loop.py"),
        (lambda now: {**now, "removed.py": "0"}, "removed.py"),
        (lambda now: {name: digest for name, digest in now.items() if name != "samplers.py"}, "samplers.py"),
    ],
)
def test_changed_sources_are_refused_by_name(small_space, sources, named):
    plan = stored(draft(small_space(cells=CELLS)))
    with pytest.raises(Refusal) as refused:
        planning.redraft(replace(plan, sources=sources(plan.sources)))
    assert (refused.value.field, refused.value.value) == ("sources", named)
    assert plan.run in str(refused.value)


def test_a_space_file_that_now_gives_other_trials_is_refused_and_named(small_space):
    path = small_space(cells=CELLS)
    plan = stored(draft(path))
    small_space(cells=(CELLS[0], ("CB", "CR")))
    with pytest.raises(Refusal, match="it can only grow, and this is not a superset of it: ") as refused:
        planning.redraft(plan)
    assert "no small/IB⇒CR (digits-LT IF 50)" in str(refused.value)
    assert plan.run in str(refused.value)


def test_a_space_file_that_gives_the_same_trials_may_change(small_space):
    path = Path(small_space(cells=CELLS))
    plan = stored(draft(str(path)))
    path.write_text(path.read_text() + "\n# a remark, written later\n")
    again = planning.redraft(plan).plan
    assert again.spaces[0].file_digest != plan.spaces[0].file_digest
    assert replace(again, spaces=(replace(again.spaces[0], file_digest=plan.spaces[0].file_digest),)) == plan


def test_other_versions_are_refused_as_such(small_space):
    drawn = draft(small_space(cells=CELLS))
    trial = replace(drawn.plan.trials[0], ends=("state of another torch", "and another"))
    plan = replace(drawn.plan, trials=(trial,), versions={**drawn.plan.versions, "torch": "1.0"})
    with pytest.raises(Refusal, match=r"other work in small/IB⇒IB \(digits-LT IF 50\) \(another torch\)"):
        planning.redraft(plan)


def test_a_space_is_planned_once(small_space):
    path = small_space("one", CELLS)
    for references in (["table9", "table9"], [path, path], [path, path + ":space"]):
        with pytest.raises(Refusal, match="spaces of different names, each once, would do"):
            draft(*references)


def test_a_label_belongs_to_one_trial(small_space):
    with pytest.raises(Refusal, match=r"trial = 'small/IB⇒CR \(digits-LT IF 50\)': a label that no other trial"):
        draft(small_space(cells=(*CELLS, CELLS[1])))


def test_what_is_trained_by_other_code_is_a_run_of_its_own(small_space):
    path = Path(small_space(cells=CELLS))
    text = path.read_text().replace("name='small'", "name='small', work=replace(table.work, sources=dict)")
    path.write_text(text)
    with pytest.raises(Refusal, match="a run of its own would do"):
        draft("table9", str(path))


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("--tracking-uri", "http://me:hunter2@mlflow.example:5000"),
        ("--storage", "postgresql://me:hunter2@db.example/optuna"),
        ("--storage", "mysql+pymysql://db.example/optuna?user=me&password=hunter2"),
    ],
)
def test_a_password_is_not_in_the_stored_plan(study, small_space, tmp_path, monkeypatch, option, url):
    monkeypatch.setattr("study.home.Home.check_services", lambda *_: None)
    monkeypatch.setattr("study.driver.start", lambda *_, **__: 0)
    study("run", small_space(cells=CELLS), "--name", "mine", option, url)
    (record,) = (tmp_path / "home").rglob("plan.json")
    kept = json.loads(record.read_text())[option.removeprefix("--").replace("-", "_")]
    assert kept == url.replace("hunter2", "***")
    assert all(b"hunter2" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# A run that grows


def grown(before, *references, **changes):
    return planning.grown(stored(before), draft(*references, **changes))


def test_a_run_grows_by_replicates_cells_and_spaces_and_what_it_holds_stays(small_space):
    one, more = small_space("one", CELLS), small_space("more", MORE)
    before = draft(one, replicates=2)
    before.plan = replace(
        before.plan, run="mine", created="2020", generation=3, tracking_uri="http://mlflow", storage="sqlite:///x"
    )
    replicates = grown(before, one, replicates=3)
    small_space("one", (*CELLS, ("CB", "CR")))
    cells = grown(before, one)
    spaces = grown(before, one, more, replicates=4)
    sizes = [len(each.recipes) for each in (replicates, cells, spaces)]
    assert sizes == [2 * 3, 3 * 2, (3 + 3) * 4]
    for now in (replicates, cells, spaces):
        assert now.recipes.items() >= before.recipes.items()
        assert now.plan.epochs_needed == len(beginnings(now))
        assert now.plan.run == "mine"
        assert (now.plan.created, now.plan.generation) == ("2020", 3)
        assert (now.plan.tracking_uri, now.plan.storage) == ("http://mlflow", "sqlite:///x")
        again = planning.grown(stored(now), now)
        assert again.plan == now.plan


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda small: draft(small(cells=CELLS), replicates=1), "1 replicates instead of 2"),
        (lambda small: draft(small(cells=CELLS[:1])), "no small/IB⇒CR (digits-LT IF 50)"),
        (lambda small: draft(small("other", CELLS)), "no small"),
        (
            lambda small: draft(small(cells=CELLS), machine=Machine("cpu", 2)),
            "2 threads a rank instead of 1 (--cpus-per-trial): the same, or another --name, would do",
        ),
        (
            lambda small: draft(small(cells=CELLS), machine=Machine("cpu", 1, "bf16", ranks=2)),
            "--ranks-per-trial 2 instead of 1; --precision bf16 instead of auto",
        ),
        (lambda small: draft(small(cells=CELLS), request=Request(imbalance=(10.0,))), "no small/IB⇒IB"),
    ],
    ids=["fewer replicates", "a missing cell", "a missing space", "another machine", "other arithmetic", "other data"],
)
def test_what_is_not_a_superset_is_refused_with_the_difference(small_space, change, difference):
    before = stored(draft(small_space(cells=CELLS)))
    with pytest.raises(Refusal) as refused:
        planning.grown(before.named("mine"), change(small_space))
    assert str(refused.value).startswith("run = 'mine': it can only grow, and this is not a superset of it: ")
    assert difference in str(refused.value)


@pytest.mark.parametrize("machine", [Machine("cpu", 1, "fp32"), Machine("cpu", 1, bf16=True)])
def test_a_machine_that_settles_the_same_work_is_no_difference(small_space, machine):
    """On digits auto is fp32 whatever the CPU has."""
    before = stored(draft(small_space(cells=CELLS)))
    assert planning.grown(before, draft(small_space(cells=CELLS), machine=machine)).plan.trials == before.trials


def test_a_long_difference_is_shown_by_three_and_a_number(small_space):
    cells = [(first, switch) for first in ("IB", "CB", "CR") for switch in ("IB", "CB", "CR")]
    before = stored(draft(small_space(cells=tuple(cells)), replicates=1))
    with pytest.raises(Refusal, match=r"; and 5 more: .*, --retrain begins it anew$") as refused:
        planning.grown(before, draft(small_space(cells=(("CR", "CR"),)), replicates=1))
    assert str(refused.value).count("no small/") == 3


def test_changed_sources_name_the_files_and_the_way_to_train_anew(small_space):
    drawn = draft(small_space(cells=CELLS))
    before = replace(stored(drawn), run="mine", sources={**drawn.plan.sources, "loop.py": "0", "data.py": "0"})
    with pytest.raises(Refusal, match=r"sources = 'data.py, loop.py': .* run mine .*--retrain"):
        planning.grown(before, drawn)


def test_a_run_begun_anew_counts_its_generation_and_keeps_its_name_and_places(small_space):
    drawn = draft(small_space(cells=CELLS))
    before = replace(
        stored(drawn), run="mine", created="2020", generation=1, sources={}, tracking_uri="http://m", storage="s"
    )
    now = planning.anew(before, drawn).plan
    assert (now.run, now.generation, now.tracking_uri, now.storage) == ("mine", 2, "http://m", "s")
    assert now.created != "2020"
    assert now.sources == drawn.plan.sources


# Open searches


def searched(trials=4, replicates=1, early_stop=0, objectives=(), imbalance=()):
    request = Request(trials=trials, early_stop=early_stop, objectives=objectives, imbalance=imbalance)
    return draft("sampler_search", replicates=replicates, request=request)


VALUES = [
    {"first_q": 0.0, "switch_q": 0.3, "S": 1}, {"first_q": 0.0, "switch_q": -1.0, "S": 1},
    {"first_q": 1.0, "switch_q": -0.7, "S": 9}, {"first_q": 0.0, "switch_q": 0.3, "S": 20},
]  # fmt: skip


def test_points_of_a_search_are_numbered_and_share_their_beginnings():
    drawn = searched(replicates=2)
    (space,) = drawn.plan.spaces
    points = [drawn.add_point(space, values) for values in VALUES]
    assert [point.label for point in points] == ["#0", "#1", "#2", "#3"]
    assert [point.measure for point in points] == ["val/top1"] * 4
    assert drawn.plan.points(space) == points
    assert drawn.plan.epochs_needed == len(tree.nodes(drawn.recipes.values())) < 2 * 4 * points[0].epochs
    assert drawn.find("sampler_search/#2") == points[2]
    assert drawn.find("sampler_search/#9") is None
    shared = drawn.recipes["sampler_search/#0", 0].keys[1]
    assert drawn.through(shared) == [(f"sampler_search/#{n}", 0) for n in (0, 1, 3)]


def test_a_champion_is_the_point_again_under_seeds_that_no_point_saw():
    drawn = searched()
    (space,) = drawn.plan.spaces
    point = drawn.add_point(space, VALUES[0])
    champion = drawn.add_champion(space, point)
    assert (champion.label, champion.champion_of, champion.config) == ("champion #0", "#0", point.config)
    assert list(champion.by_replicate) == [planning.FRESH, planning.FRESH + 1, planning.FRESH + 2]
    assert champion.measure == "test/top1"
    assert len({*champion.ends, *point.ends}) == 4
    assert drawn.plan.points(space) == [point]
    assert drawn.plan.epochs_needed == 4 * point.epochs


def test_the_joints_of_a_search_are_kept_and_those_of_a_table_are_not(small_space):
    drawn = draft(small_space(cells=CELLS), "sampler_search", replicates=1)
    assert drawn.joints == set()
    point = drawn.add_point(drawn.plan.spaces[1], VALUES[3])
    recipe = drawn.recipes[point.name, 0]
    assert drawn.joints == {recipe.keys[number] for number in recipe.joints} != set()


def test_points_and_champions_are_taken_over_when_a_search_grows(tmp_path):
    before = searched(trials=4)
    (space,) = before.plan.spaces
    for values in VALUES:
        before.add_point(space, values)
    before.add_champion(space, before.plan.trials[2])
    more = planning.grown(stored(before), searched(trials=9))
    assert more.plan.trials == before.plan.trials
    assert more.recipes == before.recipes
    assert more.plan.spaces[0].search.trials == 9
    assert (more.plan.digest, more.plan.content) == (before.plan.digest, more.plan.content)
    assert more.plan.content != before.plan.content
    wider = planning.grown(stored(before), searched(trials=4, replicates=3))
    assert [len(trial.ends) for trial in wider.plan.trials] == [3, 3, 3, 3, 3]
    assert list(wider.plan.trials[4].by_replicate) == [1000, 1001, 1002]
    assert wider.recipes.items() >= before.recipes.items()
    assert planning.redraft(stored(before)).plan == before.plan


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"trials": 3}, "3 trials of sampler_search, which has 4"),
        ({"objectives": ("few",)}, "val/few as objectives of sampler_search, not val/top1"),
        ({"early_stop": 5}, "--early-stop 5 instead of 0"),
    ],
)
def test_a_search_that_is_narrowed_or_turned_is_refused(changes, difference):
    before = searched(trials=4)
    for values in VALUES:
        before.add_point(before.plan.spaces[0], values)
    with pytest.raises(Refusal) as refused:
        planning.grown(stored(before), searched(**{"trials": 4, **changes}))
    assert difference in str(refused.value)


def test_a_search_over_other_dimensions_is_refused_and_told_which():
    before = searched(trials=4)
    (space,) = before.plan.spaces
    narrow = replace(space, domain={**space.domain, "S": Integer(0, 3)})
    before.plan = replace(before.plan, spaces=(narrow,))
    with pytest.raises(Refusal, match=r"dimension S of sampler_search is .*49.* and was .*high=3"):
        planning.grown(stored(before), searched(trials=4))


def test_fewer_trials_than_were_asked_for_will_do_while_they_hold_what_was_found():
    before = searched(trials=50)
    before.add_point(before.plan.spaces[0], VALUES[0])
    assert planning.grown(stored(before), searched(trials=1)).plan.spaces[0].search.trials == 1


def test_a_point_with_a_rung_is_trained_to_it_and_judged():
    drawn = searched(early_stop=3)
    (space,) = drawn.plan.spaces
    point, last = drawn.add_point(space, VALUES[0]), drawn.add_point(space, {**VALUES[0], "S": 49})
    whole = drawn.recipes[point.name, 0]
    assert point.rung == whole.joints[-1] + 3
    assert len(drawn.to_train((point.name, 0)).epochs) == point.rung
    assert last.rung == 0, "its last switch comes too late to be judged"
    assert len(drawn.to_train((last.name, 0)).epochs) == last.epochs

    stopped = drawn.judge(point, stop=True)
    assert (stopped.stopped, stopped.rung, stopped.epochs) == (True, 0, point.rung)
    assert stopped.ends == (whole.keys[point.rung],)
    assert drawn.recipes[point.name, 0] == planning.cut(whole, point.rung)
    assert drawn.find(point.name) == drawn.trial((point.name, 0)) == drawn.plan.trials[0] == stopped
    assert planning.grown(stored(drawn), searched(early_stop=3)).plan.trials == drawn.plan.trials

    another = drawn.add_point(space, VALUES[1])
    kept = drawn.judge(another, stop=False)
    assert (kept.stopped, kept.rung, kept.epochs, kept.ends) == (False, 0, another.epochs, another.ends)
    assert len(drawn.to_train((kept.name, 0)).epochs) == kept.epochs


schedules = st.fixed_dictionaries(
    {"first_q": st.sampled_from([0.0, 1.0]), "switch_q": st.sampled_from([-1.0, 0.5]), "S": st.sampled_from([0, 7, 40])}
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(schedules | st.sampled_from(["champion", "stop", "go on"]), max_size=7), replicates=st.integers(1, 2)
)
def test_after_any_growth_the_epochs_needed_are_the_distinct_states(steps, replicates):
    drawn = searched(trials=7, early_stop=3, replicates=replicates)
    (space,) = drawn.plan.spaces
    for step in steps:
        points = drawn.plan.points(space)
        open_points = [point for point in points if point.rung]
        if isinstance(step, dict):
            drawn.add_point(space, step)
        elif step == "champion" and points and drawn.find(f"{space.name}/champion {points[-1].label}") is None:
            drawn.add_champion(space, replace(points[-1], rung=0, stopped=False))
        elif step in ("stop", "go on") and open_points:
            drawn.judge(open_points[0], step == "stop")
        assert drawn.plan.epochs_needed == len(tree.nodes(drawn.recipes.values()))
    assert planning.grown(stored(drawn), searched(trials=7, early_stop=3, replicates=replicates)).plan == drawn.plan


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(trials=5), "--trials = 5: it is for an open search, and table9 lists its trials"),
        (Request(objectives=("few",)), "--objectives = 'few': it is for an open search"),
        (Request(early_stop=5), "--early-stop = 5: it is for an open search"),
    ],
)
def test_what_is_for_searches_is_refused_for_a_table(request_, message):
    with pytest.raises(Refusal, match=message):
        draft("table9", request=request_)


def test_several_objectives_are_not_stopped_early():
    with pytest.raises(Refusal, match="--early-stop = 5: one objective would do"):
        searched(early_stop=5, objectives=("top1", "few"))


def test_by_default_a_search_has_one_replicate_and_anything_else_three(small_space):
    counts = [draft(*each, replicates=None).plan.replicates for each in (["sampler_search"], [small_space()])]
    assert counts == [1, 3]
    assert draft("sampler_search", small_space(), replicates=None).plan.replicates == 3


def test_an_option_of_a_space_that_is_left_out_counts_and_is_not_stored():
    """A resumed run has no such space, and would refuse it."""
    request = Request(data=("imagenet-lt",), options={"irregularity": "1", "recipe": "source"})
    drawn = draft("all", request=request, replicates=1)
    assert "table10" in drawn.left_out
    assert drawn.plan.request.options == {"recipe": "source"}
    assert planning.redraft(stored(drawn)).plan.digest == drawn.plan.digest
