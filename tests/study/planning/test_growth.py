"""A run goes on as it was, grows, or begins anew; a draft that would change the stored plan is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import CELLS, MORE, OWN, VALUES, asked, beginnings, draft, schedules, searched, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.errors import Refusal
from study.execution import driver
from study.machine import Machine
from study.planning import growth, tree
from study.space import Choice, Integer


def test_a_run_grows_past_what_a_trial_needs_at_least(small_space):
    path = Path(small_space(cells=CELLS))
    path.write_text(path.read_text().replace("\n    return replace(table, ", OWN))
    before = draft(str(path), replicates=2)
    after = [growth.grown(stored(before), draft(str(path), replicates=n)).plan for n in (3, 6)]
    assert [[len(trial.ends) for trial in plan.trials] for plan in after] == [[3, 4], [6, 6]]
    with pytest.raises(Refusal, match="1 replicate instead of 2"):
        growth.grown(stored(before), draft(str(path), replicates=1))


def test_a_machine_without_a_checkout_keeps_the_commit(small_space):
    path = small_space(cells=CELLS)
    before = replace(stored(draft(path)), commit="1234")
    for now, kept in (("", "1234"), ("5678", "5678")):
        again = draft(path)
        again.plan = replace(again.plan, commit=now)
        assert growth.grown(before, again).plan.commit == kept


@pytest.mark.parametrize("references", [["table9"], ["FILE"], ["FILE:space"], ["table9", "FILE"]])
def test_a_stored_plan_is_drawn_again_from_anywhere(small_space, tmp_path, monkeypatch, references):
    monkeypatch.chdir(tmp_path)
    file = Path(small_space(cells=CELLS)).name  # as a user would type it
    drawn = draft(*(reference.replace("FILE", file) for reference in references))
    monkeypatch.chdir("/")
    again = growth.redraft(stored(drawn))
    assert again.plan == drawn.plan
    assert again.recipes == drawn.recipes


def test_a_shipped_file_called_by_its_path_is_drawn_again_from_anywhere(monkeypatch):
    import search_spaces

    monkeypatch.chdir(Path(search_spaces.__file__).parents[1])
    plan = stored(draft("search_spaces/table9.py", replicates=1))
    monkeypatch.chdir("/")
    assert growth.redraft(plan).plan.digest == plan.digest


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        (lambda now: {**now, "steps.py: Steps": "0", "draws.py: draws": "0"}, "draws.py: draws, steps.py: Steps"),
        (lambda _: {f"{n}.py": "0" for n in "abcde"}, "a.py, b.py, c.py and 2 more"),  # an earlier version's
    ],
)
def test_changed_sources_are_refused_by_name(small_space, sources, named):
    plan = stored(draft(small_space(cells=CELLS)))
    assert plan.sources.keys() >= {"steps.py: Steps", "draws.py: draws"}
    with pytest.raises(Refusal) as refused:
        growth.redraft(replace(plan, sources=sources(plan.sources)))
    assert (refused.value.field, refused.value.value) == ("sources", named)
    assert plan.run in str(refused.value)


@pytest.mark.parametrize(
    "sources",
    [
        lambda now: {name.replace("steps.py", "descent.py"): digest for name, digest in now.items()},
        lambda now: {name: digest for name, digest in now.items() if not name.startswith("steps.py")},
        lambda now: {**now, "removed.py: gone": "0"},
    ],
    ids=["moved to another file", "not in the plan", "no longer used"],
)
def test_sources_that_a_plan_has_elsewhere_or_not_at_all_are_no_difference(small_space, sources):
    plan = stored(draft(small_space(cells=CELLS)))
    before = replace(plan, sources=sources(plan.sources))
    assert before.sources != plan.sources
    assert growth.redraft(before).plan.trials == plan.trials


OWN_LOSS = """
from dataclasses import dataclass
from trainables.parts import Loss

@dataclass(frozen=True)
class Own(Loss):
    def build(self, counts):
        return own

def own(logits, labels, weights):
    return logits.logsumexp(1).mean()
"""
OWN_OTHERS = """
from dataclasses import replace
from trainables.parameters import whole
from trainables.parts import Backbone

@dataclass(frozen=True)
class Small(Backbone):
    width: int = whole(8, "channels", least=1)

    def layers(self, channels):
        return [], channels

def own_method(base):
    return replace(base, first="CB")

def other_method(base):
    return replace(base, first="CR")
"""


@pytest.mark.parametrize(
    ("space", "options"),
    [
        ("table9", ["--loss", "./parts.py:Own"]),
        ("table9", ["--backbone", "parts.py:Small(width=4)"]),
        ("table1", ["--method", "parts.py:own_method", "--method", "./parts.py:other_method"]),
    ],
)
def test_what_an_option_refers_to_is_found_again_from_anywhere(study, tmp_path, monkeypatch, space, options):
    (tmp_path / "parts.py").write_text(OWN_LOSS + OWN_OTHERS)
    plans = []

    def only_plan(drawn, before, store, *_):
        plans.append(drawn.plan)
        driver.store_plan(drawn, before, store)
        return "complete"

    monkeypatch.setattr("study.home.Home.check_services", lambda *_, **__: None)
    monkeypatch.setattr(driver, "start", only_plan)
    study("run", space, *options, "--seeds", "1", "--name", "mine")
    monkeypatch.chdir("/")
    study("resume", "mine")
    first, again = plans
    assert [trial.ends for trial in again.trials] == [trial.ends for trial in first.trials]
    assert again.request == first.request


def test_what_changed_in_a_file_of_the_user_s_is_named(small_space, tmp_path):
    """A remark changes nothing; a function that a loss reaches does, and is named."""
    file, space = tmp_path / "losses.py", small_space(cells=CELLS)
    file.write_text(OWN_LOSS)
    plan = stored(draft(space, request=asked(loss=f"{file}:Own")))
    file.write_text("# a remark\n" + OWN_LOSS)
    assert growth.redraft(plan).plan.sources == plan.sources
    file.write_text(OWN_LOSS.replace(".mean()", ".sum()"))
    with pytest.raises(Refusal) as refused:
        growth.redraft(plan)
    assert (refused.value.field, refused.value.value) == ("sources", "losses.py: own")


def test_a_space_file_that_now_gives_other_trials_is_refused_and_named(small_space):
    path = small_space(cells=CELLS)
    plan = stored(draft(path))
    small_space(cells=(CELLS[0], ("CB", "CR")))
    with pytest.raises(Refusal) as refused:
        growth.redraft(plan)
    assert str(refused.value) == (
        f"run {plan.run!r} can be extended but not changed, and this would change it: trial small/IB⇒CR (digits-LT IF "
        "50) is missing. Ask for at least what the run has, or choose another --name. If its data or its space's file "
        "have changed, --retrain trains it anew"
    )


def test_a_space_file_that_gives_the_same_trials_may_change(small_space):
    path = Path(small_space(cells=CELLS))
    plan = stored(draft(str(path)))
    path.write_text(path.read_text() + "\n# a remark, written later\n")
    again = growth.redraft(plan).plan
    assert again.spaces[0].file_digest != plan.spaces[0].file_digest
    assert (
        replace(again, spaces=(replace(again.spaces[0], file_digest=plan.spaces[0].file_digest),), held=plan.held)
        == plan
    )


def test_other_versions_are_refused_as_such(small_space):
    drawn = draft(small_space(cells=CELLS))
    trial = replace(drawn.plan.trials[0], ends=("state of another torch", "and another"))
    plan = replace(drawn.plan, trials=(trial,), versions={**drawn.plan.versions, "torch": "1.0"})
    with pytest.raises(
        Refusal, match=r"trial small/IB⇒IB \(digits-LT IF 50\) would train differently \(another version of torch\)"
    ):
        growth.redraft(plan)


def grown(before, *references, **changes):
    return growth.grown(stored(before), draft(*references, **changes))


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
        again = growth.grown(stored(now), now)
        assert again.plan == now.plan


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda small: draft(small(cells=CELLS), replicates=1), "1 replicate instead of 2"),
        (lambda small: draft(small(cells=CELLS[:1])), "trial small/IB⇒CR (digits-LT IF 50) is missing"),
        (lambda small: draft(small("other", CELLS)), "space small is missing"),
        (
            lambda small: draft(small(cells=CELLS), machine=Machine("cpu", 2)),
            "2 threads per rank instead of 1 (--cpus-per-trial). Use the same settings as before, or choose another",
        ),
        (
            lambda small: draft(small(cells=CELLS), machine=Machine("cpu", 1, "bf16", ranks=2)),
            "--ranks-per-trial 2 instead of 1; --precision bf16 instead of auto",
        ),
        (lambda small: draft(small(cells=CELLS), request=asked(imbalance=(10.0,))), "trial small/IB⇒IB"),
    ],
    ids=["fewer replicates", "a missing cell", "a missing space", "another machine", "other arithmetic", "other data"],
)
def test_what_is_not_a_superset_is_refused_with_the_difference(small_space, change, difference):
    before = stored(draft(small_space(cells=CELLS)))
    with pytest.raises(Refusal) as refused:
        growth.grown(before.named("mine"), change(small_space))
    assert str(refused.value).startswith("run 'mine' can be extended but not changed, and this would change it: ")
    assert difference in str(refused.value)


def varied(path, replicates, *vary):
    return draft(path, replicates=replicates, request=asked(vary=vary))


def test_crossed_replicates_grow_to_the_next_square_and_keep_what_they_have(small_space):
    path = small_space(cells=CELLS)
    before = varied(path, 4, "crossed")
    after = growth.grown(stored(before), varied(path, 9, "crossed"))
    assert {len(trial.ends) for trial in after.plan.trials} == {9}
    for trial, again in zip(before.plan.trials, after.plan.trials, strict=True):
        assert (again.ends[:4], again.seeds[:4]) == (trial.ends, trial.seeds)
    assert after.recipes.items() >= before.recipes.items()
    with pytest.raises(Refusal, match="4 replicates instead of 9"):
        growth.grown(stored(after), varied(path, 4, "crossed"))


@pytest.mark.parametrize(
    ("was", "now", "difference"),
    [
        (("crossed",), ("all",), "--vary all instead of --vary crossed"),
        (("subset", "split"), ("seed",), "--vary seed instead of --vary subset, split"),
        ((), ("seed",), "--vary seed instead of no --vary"),
        (("crossed",), (), "no --vary instead of --vary crossed"),
    ],
)
def test_a_run_does_not_begin_to_vary_something_else(small_space, was, now, difference):
    path = small_space(cells=CELLS)
    with pytest.raises(Refusal) as refused:
        growth.grown(stored(varied(path, 4, *was)), varied(path, 9, *now))
    remedy = "Use the same settings as before, or choose another --name"
    assert str(refused.value).endswith(f"this would change it: {difference}. {remedy}")


def test_the_same_said_in_other_words_is_no_difference(small_space):
    """Of digits, everything varies by default."""
    path = small_space(cells=CELLS)
    before = stored(varied(path, 2))
    assert growth.grown(before, varied(path, 2, "all")).plan.trials == before.trials


@pytest.mark.parametrize("machine", [Machine("cpu", 1, "fp32"), Machine("cpu", 1, bf16=True)])
def test_a_machine_that_settles_the_same_work_is_no_difference(small_space, machine):
    """On digits auto is fp32 whatever the CPU has."""
    before = stored(draft(small_space(cells=CELLS)))
    assert growth.grown(before, draft(small_space(cells=CELLS), machine=machine)).plan.trials == before.trials


def test_a_long_difference_is_shown_by_three_and_a_number(small_space):
    cells = [(first, switch) for first in ("IB", "CB", "CR") for switch in ("IB", "CB", "CR")]
    before = stored(draft(small_space(cells=tuple(cells)), replicates=1))
    with pytest.raises(Refusal, match=r"; and 5 more\. .*, --retrain trains it anew$") as refused:
        growth.grown(before, draft(small_space(cells=(("CR", "CR"),)), replicates=1))
    assert str(refused.value).count("trial small/") == 3


def test_changed_sources_name_the_files_and_the_way_to_train_anew(small_space):
    drawn = draft(small_space(cells=CELLS))
    sources = {**drawn.plan.sources, "steps.py: Steps": "0", "draws.py: draws": "0"}
    before = replace(stored(drawn), run="mine", sources=sources)
    with pytest.raises(Refusal) as refused:
        growth.grown(before, drawn)
    assert str(refused.value) == (
        "these sources have changed since run 'mine' was planned: draws.py: draws, steps.py: Steps. Check out the "
        "version that the run was planned with, or train the run anew with --retrain"
    )


def test_a_run_begun_anew_counts_its_generation_and_keeps_its_name_and_places(small_space):
    drawn = draft(small_space(cells=CELLS))
    before = replace(stored(drawn), run="mine", created="2020", generation=1, tracking_uri="http://m", storage="s")
    with pytest.raises(Refusal, match=r"^nothing has changed that the states of run 'mine' depend on\. Leave"):
        growth.begun_anew(before, drawn)
    before = replace(before, sources={**drawn.plan.sources, "steps.py: Steps": "0", "removed.py: gone": "0"})
    with pytest.raises(Refusal, match=r"^these sources have changed, but the names .* have not: steps.py: Steps\. "):
        growth.begun_anew(before, drawn)
    other = tuple(replace(trial, ends=tuple(f"{end}0" for end in trial.ends)) for trial in before.trials)
    before = replace(before, trials=other)
    now = growth.begun_anew(before, drawn).plan
    assert (now.run, now.generation, now.tracking_uri, now.storage) == ("mine", 2, "http://m", "s")
    assert now.created != "2020"
    assert now.sources == drawn.plan.sources


def test_points_and_champions_are_taken_over_when_a_search_grows(tmp_path):
    before = searched(trials=4)
    (space,) = before.plan.spaces
    for values in VALUES:
        before.add_point(space, values)
    before.add_champion(space, before.plan.trials[2])
    more = growth.grown(stored(before), searched(trials=9))
    assert more.plan.trials == before.plan.trials
    assert more.recipes == before.recipes
    assert more.plan.spaces[0].search.trials == 9
    assert (more.plan.digest, more.plan.content) == (before.plan.digest, more.plan.content)
    assert more.plan.content != before.plan.content
    wider = growth.grown(stored(before), searched(trials=4, replicates=3))
    assert [len(trial.ends) for trial in wider.plan.trials] == [3, 3, 3, 3, 3]
    assert list(wider.plan.trials[4].by_replicate) == [1000, 1001, 1002]
    assert wider.recipes.items() >= before.recipes.items()
    assert growth.redraft(stored(before)).plan == before.plan


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"trials": 3}, "3 trials of sampler_search, which already has 4"),
        ({"objectives": ("few",)}, "objectives of sampler_search: val/few instead of val/top1"),
        ({"early_stop": 5}, "--early-stop 5 instead of 0"),
    ],
)
def test_a_search_that_is_narrowed_or_turned_is_refused(changes, difference):
    before = searched(trials=4)
    for values in VALUES:
        before.add_point(before.plan.spaces[0], values)
    with pytest.raises(Refusal) as refused:
        growth.grown(stored(before), searched(**{"trials": 4, **changes}))
    assert difference in str(refused.value)


def test_a_search_over_other_dimensions_is_refused_and_told_which():
    before = searched(trials=4)
    (space,) = before.plan.spaces
    narrow = replace(space, domain={**space.domain, "S": Integer(0, 3)})
    before.plan = replace(before.plan, spaces=(narrow,))
    with pytest.raises(Refusal, match=r": dimension S of sampler_search: 0 to 49 instead of 0 to 3\. "):
        growth.grown(stored(before), searched(trials=4))


def test_further_choices_of_a_dimension_are_no_difference_while_no_trial_has_them():
    """The plan keeps its dimensions, for Optuna mixes no trials of different ones."""
    drawn = draft("table3", replicates=1)
    (space,) = drawn.plan.spaces
    names = space.domain["backbone"].values

    def without(name):
        domain = {**space.domain, "backbone": Choice(tuple(each for each in names if each != name))}
        return replace(stored(drawn), spaces=(replace(space, domain=domain),))

    assert growth.grown(without("resnet32"), draft("table3", replicates=1)).plan == without("resnet32")
    with pytest.raises(Refusal, match=r"dimension backbone of table3: .*, resnet8, .* instead of resnet32, "):
        growth.grown(without("resnet8"), draft("table3", replicates=1))


def test_fewer_trials_than_were_asked_for_will_do_while_they_hold_what_was_found():
    before = searched(trials=50)
    before.add_point(before.plan.spaces[0], VALUES[0])
    assert growth.grown(stored(before), searched(trials=1)).plan.spaces[0].search.trials == 1


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
    assert growth.grown(stored(drawn), searched(trials=7, early_stop=3, replicates=replicates)).plan == drawn.plan


@pytest.mark.parametrize("retrain", [False, True])
def test_a_run_of_other_spaces_keeps_its_name(small_space, retrain):
    before = replace(stored(draft(small_space(cells=CELLS))), run="mine")
    with pytest.raises(Refusal, match=r"^run 'mine' already exists and is a run of small\. Choose another --name$"):
        growth.taken_up(before, draft("table7"), retrain)
