"""From space files to a plan and back."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from helpers import CELLS, MORE, OWN, VALUES, asked, beginnings, draft, searched, stored

from study.errors import Refusal
from study.execution import driver
from study.machine import Machine
from study.planning import drafting, growth, tree
from study.planning.draft import FRESH, cut


def test_every_replicate_of_every_trial_has_a_recipe_and_its_end_in_the_plan(small_space):
    drawn = draft(small_space(cells=CELLS), replicates=3)
    assert [trial.label for trial in drawn.plan.trials] == ["IB⇒IB (digits-LT IF 50)", "IB⇒CR (digits-LT IF 50)"]
    assert {(trial.name, number): end for trial in drawn.plan.trials for number, end in enumerate(trial.ends)} == {
        name: recipe.keys[-1] for name, recipe in drawn.recipes.items()
    }
    assert len(drawn.recipes) == 6
    assert {trial.epochs for trial in drawn.plan.trials} == {3}


def test_a_plan_has_the_sources_of_all_that_it_trains(small_space):
    """Those of a search before it has points: of what all its points share."""
    small, table = draft(small_space(cells=CELLS)).plan.sources, draft("table1", replicates=1).plan.sources
    assert {"steps.py: Steps", "losses/cross_entropy.py: CrossEntropy", "networks/resnet8.py: ResNet8"} <= small.keys()
    assert {"losses/ldam.py: LDAM", "methods/bbn.py: Bilateral"} <= table.keys() - small.keys()
    assert table.items() >= small.items()
    assert draft("table1", "table9", replicates=1).plan.sources == table
    drawn = searched()
    assert drawn.plan.sources == small
    drawn.add_point(drawn.plan.spaces[0], VALUES[0])
    assert drawn.plan.sources == small


def test_spaces_planned_together_are_one_tree(small_space):
    one, other = small_space("one", CELLS), small_space("other", MORE)
    needed = [draft(*references).plan.epochs_needed for references in ([one], [other], [one, other])]
    assert needed == [len(beginnings(draft(*references))) for references in ([one], [other], [one, other])]
    assert needed == [2 * 4, 2 * (4 + 3), 2 * (5 + 3)]
    together = draft(one, other).plan
    assert together.study == "one+other"
    ends = {trial.name: trial.ends for trial in together.trials}
    assert ends["one/IB⇒CR (digits-LT IF 50)"] == ends["other/IB⇒CR (digits-LT IF 50)"]


def test_a_trial_has_its_own_measure_provenance_and_least_number_of_replicates(small_space):
    path = Path(small_space(cells=CELLS))
    path.write_text(path.read_text().replace("\n    return replace(table, ", OWN))
    for replicates, expected in ((2, [2, 4]), (5, [5, 5])):
        plan = stored(draft(str(path), replicates=replicates))
        assert [len(trial.ends) for trial in plan.trials] == expected
        assert [trial.trial.measure for trial in plan.trials] == ["test/top1", "tau_normalised/top1"]
        assert [trial.trial.printed and trial.trial.printed.provenance for trial in plan.trials] == [None, "*"]
        assert plan.replicates == replicates
        assert growth.redraft(plan).plan == plan


def test_each_replicate_s_seeds_stand_in_the_plan_in_words(small_space):
    whole = draft(small_space(cells=CELLS), replicates=3)
    subsets = draft(small_space(cells=CELLS), replicates=3, request=asked(vary=("subset",)))
    for drawn, moving in ((whole, {"split", "subset", "training seed"}), (subsets, {"subset"})):
        for trial in stored(drawn).trials:
            assert list(trial.seeds) == [
                {name: str(number) if name in moving else "0" for name in ("split", "subset", "training seed")}
                for number in range(3)
            ]
    assert [trial.ends[0] for trial in whole.plan.trials] == [trial.ends[0] for trial in subsets.plan.trials]
    assert not {*whole.plan.trials[0].ends[1:]} & {*subsets.plan.trials[0].ends[1:]}


def test_crossed_replicates_are_nine_by_default_and_every_pair(small_space):
    drawn = draft(small_space(cells=CELLS), replicates=None, request=asked(vary=("crossed",)))
    assert drawn.plan.replicates == 9
    for trial in drawn.plan.trials:
        assert len({*trial.ends}) == len(trial.ends) == 9
        pairs = {(each["split"], each["subset"], each["training seed"]) for each in trial.seeds}
        assert pairs == set(product("0", "012", "012"))
    assert growth.redraft(stored(drawn)).plan == drawn.plan


@pytest.mark.parametrize(("replicates", "instead"), [(1, 4), (2, 4), (3, 4), (5, 4), (8, 4), (10, 9), (15, 9)])
def test_crossed_replicates_must_be_a_square(small_space, replicates, instead):
    words = f"--seeds must be a square number with --vary crossed, such as {instead} .* .got {replicates}.$"
    with pytest.raises(Refusal, match=words):
        draft(small_space(cells=CELLS), replicates=replicates, request=asked(vary=("crossed",)))
    drawn = draft(small_space(cells=CELLS), replicates=instead, request=asked(vary=("crossed",)))
    assert {len(trial.ends) for trial in drawn.plan.trials} == {instead}


def test_what_all_leaves_out_of_a_crossing_says_why():
    drawn = draft("all", replicates=None, request=asked(vary=("crossed",)))
    assert drawn.left_out["table8"].startswith("--vary must be seed or all (got 'crossed'). ")
    assert "table9" in {space.name for space in drawn.plan.spaces}


def test_a_name_by_default_says_what_is_run(small_space):
    space = small_space(cells=CELLS)
    run = draft(space).plan.run
    assert run.startswith("small-")
    assert draft(space).plan.run == run
    others = [
        draft(space, replicates=3),
        draft(space, machine=Machine("cpu", 2)),
        draft(space, machine=Machine("cuda", 1)),
        draft(space, request=asked(imbalance=(10.0,))),
        draft(small_space(cells=MORE)),
    ]
    assert len({run, *(other.plan.run for other in others)}) == 6


@pytest.mark.parametrize(
    ("references", "data", "wanted"),
    [
        (["table9"], (), False),
        (["table9"], ("cifar10",), True),
        (["table9"], ("digits", "cifar10"), True),
        (["table9", "sampler_search"], (), False),
        (["sampler_search"], ("cifar10",), True),
    ],
)
def test_a_run_wants_a_gpu_if_any_of_its_configurations_does(references, data, wanted):
    assert drafting.call(references, asked(data=data)).wants_gpu == wanted


def test_a_space_is_planned_once(small_space):
    path = small_space("one", CELLS)
    for references in (["table9", "table9"], [path, path], [path, path + ":space"]):
        with pytest.raises(Refusal, match="has the same name as another space of this run, '"):
            draft(*references)


def test_a_label_belongs_to_one_trial(small_space):
    with pytest.raises(Refusal, match=r"^trial 'small/IB⇒CR \(digits-LT IF 50\)' is planned twice\. "):
        draft(small_space(cells=(*CELLS, CELLS[1])))


def test_what_is_trained_by_other_code_is_a_run_of_its_own(small_space):
    path = Path(small_space(cells=CELLS))
    text = path.read_text().replace("name='small'", "name='small', work=replace(table.work, trainable=dict)")
    path.write_text(text)
    with pytest.raises(Refusal, match=r"^space 'small' uses other training code .*\. Train it in a run of its own$"):
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

    def store_the_plan(draft, before, store, *_):
        driver.store_plan(draft, before, store)
        return "complete"

    monkeypatch.setattr(driver, "start", store_the_plan)
    study("run", small_space(cells=CELLS), "--name", "mine", option, url)
    (record,) = (tmp_path / "home").rglob("plan.json")
    kept = json.loads(record.read_text())[option.removeprefix("--").replace("-", "_")]
    assert kept == url.replace("hunter2", "***")
    assert all(b"hunter2" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


# Open searches


def test_points_of_a_search_are_numbered_and_share_their_beginnings():
    drawn = searched(replicates=2)
    (space,) = drawn.plan.spaces
    points = [drawn.add_point(space, values) for values in VALUES]
    assert [point.label for point in points] == ["#0", "#1", "#2", "#3"]
    assert [point.trial.measure for point in points] == ["val/top1"] * 4
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
    assert (champion.label, champion.champion_of, champion.trial.config) == ("champion #0", "#0", point.trial.config)
    assert list(champion.by_replicate) == [FRESH, FRESH + 1, FRESH + 2]
    assert champion.trial.measure == "test/top1"
    assert len({*champion.ends, *point.ends}) == 4
    assert drawn.plan.points(space) == [point]
    assert drawn.plan.epochs_needed == 4 * point.epochs


def test_the_joints_of_a_search_are_kept_and_those_of_a_table_are_not(small_space):
    drawn = draft(small_space(cells=CELLS), "sampler_search", replicates=1)
    assert drawn.joints == set()
    point = drawn.add_point(drawn.plan.spaces[1], VALUES[3])
    recipe = drawn.recipes[point.name, 0]
    assert drawn.joints == {recipe.keys[number] for number in recipe.joints} != set()


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
    assert drawn.recipes[point.name, 0] == cut(whole, point.rung)
    assert drawn.find(point.name) == drawn.trial((point.name, 0)) == drawn.plan.trials[0] == stopped
    assert growth.grown(stored(drawn), searched(early_stop=3)).plan.trials == drawn.plan.trials

    another = drawn.add_point(space, VALUES[1])
    kept = drawn.judge(another, stop=False)
    assert (kept.stopped, kept.rung, kept.epochs, kept.ends) == (False, 0, another.epochs, another.ends)
    assert len(drawn.to_train((kept.name, 0)).epochs) == kept.epochs


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asked(trials=5), "--trials must be left out .got 5.. It is for open searches, and table9 lists its trials"),
        (asked(objectives=("few",)), "--objectives must be left out .got 'few'.. It is for open searches"),
        (asked(early_stop=5), "--early-stop must be left out .got 5.. It is for open searches"),
    ],
)
def test_what_is_for_searches_is_refused_for_a_table(request_, message):
    with pytest.raises(Refusal, match=message):
        draft("table9", request=request_)


@pytest.mark.parametrize("references", [("sampler_search",), ("table9", "sampler_search")])
def test_the_points_of_a_search_are_not_crossed(references):
    request = asked(vary=("crossed",))
    with pytest.raises(Refusal, match=r"--vary must be left out \(got 'crossed'\)\. Space sampler_search is an open"):
        draft(*references, replicates=4, request=request)


def test_points_and_champions_have_the_seeds_that_vary():
    drawn = draft("sampler_search", replicates=2, request=asked(trials=2, vary=("seed",)))
    (space,) = drawn.plan.spaces
    point = drawn.add_point(space, VALUES[0])
    champion = drawn.add_champion(space, point)
    assert {each["subset"] for each in (*point.seeds, *champion.seeds)} == {"0"}
    assert [each["training seed"] for each in point.seeds] == ["0", "1"]
    assert [each["training seed"] for each in champion.seeds] == ["1000", "1001", "1002"]


def test_several_objectives_are_not_stopped_early():
    with pytest.raises(Refusal, match=r"--early-stop must be left out with several objectives \(got 5\)\. "):
        searched(early_stop=5, objectives=("top1", "few"))


def test_by_default_a_search_has_one_replicate_and_anything_else_three(small_space):
    counts = [draft(*each, replicates=None).plan.replicates for each in (["sampler_search"], [small_space()])]
    assert counts == [1, 3]
    assert draft("sampler_search", small_space(), replicates=None).plan.replicates == 3


def test_an_option_of_a_space_that_is_left_out_counts_and_is_not_stored():
    """A resumed run has no such space, and would refuse it."""
    request = asked(data=("imagenet-lt",), options={"irregularity": "1", "recipe": "source"})
    drawn = draft("all", request=request, replicates=1)
    assert "table10" in drawn.left_out
    assert drawn.plan.request.options == {"data": ("imagenet-lt",), "recipe": "source"}
    assert growth.redraft(stored(drawn)).plan.digest == drawn.plan.digest


def test_what_a_table_s_configuration_refuses_is_left_out_of_all():
    drawn = draft("all", replicates=1, request=asked(paper=True, imbalance=(10.0,)))
    assert drawn.left_out["table2"].startswith("imbalance ")
    assert "table9" in {space.name for space in drawn.plan.spaces}


def test_a_search_whose_work_says_no_joints_is_not_stopped_early(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from search_spaces import sampler_search\n"
        "def space(request):\n"
        "    made = sampler_search.space(request)\n"
        "    resolve = made.work.resolve\n"
        "    return replace(made, work=replace(made.work, resolve=lambda *a: replace(resolve(*a), joints=())))\n"
    )
    with pytest.raises(Refusal, match=r"--early-stop must be left out \(got 3\)\. The work .* declares no epoch"):
        draft(str(path), replicates=1, request=asked(early_stop=3))


def test_a_plan_that_could_not_be_read_again_is_refused(small_space):
    drawn = draft(small_space(), replicates=1)
    drawn.plan.check()
    (first, *others) = drawn.plan.trials
    for value in (None, object()):
        strange = replace(first, trial=replace(first.trial, axes={**first.trial.axes, "first": value}))
        with pytest.raises(Refusal, match=r"^the plan of small cannot be stored: "):
            replace(drawn.plan, trials=(strange, *others)).check()
