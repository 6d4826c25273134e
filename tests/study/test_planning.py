"""From space files to a plan and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from study import planning
from study.plan import Machine, Plan, Request, Resources
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
    small_space(cells=(*CELLS, ("CB", "CR")))
    with pytest.raises(Refusal, match="it cannot be taken up with another content of ") as refused:
        planning.redraft(plan)
    assert path in str(refused.value)


def test_a_space_file_that_gives_the_same_trials_may_change(small_space):
    path = Path(small_space(cells=CELLS))
    plan = stored(draft(str(path)))
    path.write_text(path.read_text() + "\n# a remark, written later\n")
    assert planning.redraft(plan).plan == plan


def test_other_versions_are_refused_as_such(small_space):
    drawn = draft(small_space(cells=CELLS))
    trial = replace(drawn.plan.trials[0], ends=("state of another torch", "and another"))
    plan = replace(drawn.plan, trials=(trial,), versions={**drawn.plan.versions, "torch": "1.0"})
    with pytest.raises(Refusal, match=r"other versions \(\{'torch': '1\.0'\}\)"):
        planning.redraft(plan)


def test_a_space_is_planned_once(small_space):
    path = small_space("one", CELLS)
    for references in (["table9", "table9"], [path, path], [path, path + ":space"]):
        with pytest.raises(Refusal, match="each space once would do"):
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
    monkeypatch.setattr("study.cli._start", lambda *_, **__: None)
    study("run", small_space(cells=CELLS), "--name", "mine", option, url)
    (record,) = (tmp_path / "home").rglob("plan.json")
    kept = json.loads(record.read_text())[option.removeprefix("--").replace("-", "_")]
    assert kept == url.replace("hunter2", "***")
    assert all(b"hunter2" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
