"""The paper's claims: over which rows, with which verdicts, at which cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import as_trained, by_place, entry, epochs_of, nothing, printed_of, space, tables

from search_spaces import claims
from study.machine import Machine
from study.planning.stored import Resources
from trainables.config import Config
from trainables.work import WORK

COLUMN = "digits-LT IF 50"


def flat(value):
    """Every epoch of a trial at one accuracy, the same in all replicates; with None, it has not ended."""

    def last(trial, replicate):
        own = value(trial)
        return None if own is None else [{"test/top1": own} for _ in range(epochs_of(trial))]

    return last


def cell(trial):
    """The same for equal recipes, whichever table they are of."""
    return Config.from_json(trial.config)


def test_the_trials_are_those_of_the_tables():
    own = by_place("claims", paper=True)
    for part, name in (
        ("Table 6", "table6"),
        ("Table 7", "table7"),
        ("Table 9", "table9"),
        ("Table 11", "table11"),
        ("Figure 1", "figure1"),
    ):
        for (row, column), trial in by_place(name, paper=True).items():
            again = own.pop((f"{part}: {row}", column))
            assert (again.config, again.printed) == (trial.config, trial.printed)
    assert own == {}


def test_every_claim_speaks_of_rows_that_there_are():
    rows = {trial.row for paper in (False, True) for trial in space("claims", paper=paper).trials}
    assert all({each.better, each.worse} <= rows for each in claims.CONTRASTS)
    assert len(set(claims.CONTRASTS)) == len(claims.CONTRASTS) == 28


def test_the_dimensions_are_the_same_whatever_is_asked_for():
    domains = [space("claims", **request).domain for request in ({}, {"paper": True}, {"data": ("cifar100",)})]
    assert domains[0] == domains[1] == domains[2]


def test_the_recipe_of_table_1_is_none_of_its_options():
    common, source = (space("claims", options=options).trials for options in ({}, {"recipe": "source"}))
    assert [trial.config for trial in common] == [trial.config for trial in source]


def test_the_paper_s_own_figures_support_its_claims_but_for_what_it_says_itself():
    """As if five replicates had come out as printed. IB⇒IB is .3 below CB⇒IB on CIFAR-10 at IF 10, says Table 9."""
    found = as_trained("claims", flat(lambda trial: printed_of(trial)[0]), replicates=5, paper=True)
    verdicts = {str(row[0]): row[1:] for row in tables(found)[0].rows}
    assert verdicts["instance-balanced is the best first sampler"] == [
        "36",
        "-0.3 to +21.8",
        "-0.3 to +21.8",
        "35",
        "1",
        "0",
    ]
    assert verdicts["switching to class-reversed improves every first sampler"][0] == "16", "two are its exceptions"
    assert verdicts["switching on from CR to CB drops"][3:] == ["1", "0", "0"]
    assert verdicts["with a switch, re-training the classifier changes nothing"][2] == "-0.5 to +0.2"


def test_what_has_not_ended_is_neither_and_no_number():
    found = as_trained("claims", nothing)
    verdicts, efficiency = tables(found)
    assert {tuple(row[1:4]) for row in verdicts.rows} == {("0", "–", "–")}
    assert {str(row[1]) for row in efficiency.rows} == {"–"}
    assert len(verdicts.rows) == len({each.claim for each in claims.CONTRASTS})


def test_a_difference_in_the_other_direction_contradicts():
    worse = as_trained("claims", flat(lambda trial: 90.0 - 20.0 * (cell(trial).first == "IB")), replicates=5)
    (row,) = [row for row in tables(worse)[0].rows if row[0] == "instance-balanced is the best first sampler"]
    assert (row[1:3], row[4:]) == (["6", "-20.0"], ["0", "6", "0"])


def test_efficiency_is_counted_from_the_switch():
    """Accuracy rises by a tenth of a point an epoch for so many epochs since the switch, which is after 51."""
    rises = {"Cross Entropy": 0, "BBN": 40, "Ours (S = 1)": 10}

    def curve(trial, replicate):
        rise = rises.get(cell(trial).method, 0)
        return [{"test/top1": 50 + min(max(epoch - 51, 0), rise) / 10} for epoch in range(100)]

    _, table = tables(as_trained("claims", curve))
    n = 342
    assert [row[0] for row in table.rows] == list(rises)
    for number, rise in enumerate(rises.values()):
        epochs = max(rise - 5, 0) + 1  # within half a point of the highest
        branches = 2 if table.rows[number][0] == "BBN" else 1
        assert entry(table, number, 1).mean == epochs
        assert entry(table, number, 2).mean == pytest.approx(0.5 * epochs)  # half a second an epoch
        assert entry(table, number, 3).mean == branches * n * epochs
        assert table.rows[number][4:] == [str(branches * n), str(branches * n * 100)]
    assert table.head[2] == "CPU seconds"
    assert any("BBN − Ours (S = 1): +30.0" in note for note in table.notes)


@pytest.mark.parametrize(
    ("device", "gpus", "seconds", "unit"),
    [
        ("cpu", 0.0, 0.5, "CPU seconds"),
        ("cuda", 1.0, 0.5, "GPU seconds"),
        ("cuda", 0.25, 0.125, "GPU seconds"),
        ("cuda", 2.0, 0.5, "GPU seconds"),
    ],
)
def test_stages_that_share_a_gpu_share_its_seconds(device, gpus, seconds, unit):
    found = as_trained("claims", flat(lambda trial: 50.0), replicates=1)
    found.plan = replace(found.plan, machine=Machine(device, 1), resources=Resources(gpus=gpus))
    _, table = tables(found)
    assert (table.head[2], entry(table, 0, 2).mean) == (unit, seconds)
    assert ("share of the GPU" in table.notes[0]) == (gpus == 0.25)
    assert "interval" not in " ".join(table.notes), "of one pair there is none"


def test_an_epoch_that_drops_its_last_batch_processes_fewer_images():
    (bbn,) = [trial for trial in space("figure1", options={"recipe": "source"}).trials if "BBN" in trial.row]
    config = Config.from_json(bbn.config)
    assert config.drop_last
    assert claims.images_an_epoch(config) == 2 * (342 - 342 % 128)


def test_planned_together_they_train_what_table_9_trains_and_little_more():
    trials = space("claims").trials
    recipes = [WORK.resolve(trial.config, 0, Machine("cpu", 1)) for trial in trials]
    needed = {key for recipe in recipes for key in recipe.keys[1:]}
    assert len(needed) == 4149 // 3


def test_crossed_replicates_have_no_verdicts_and_no_intervals():
    found = as_trained("claims", flat(lambda trial: 50.0), replicates=4, vary=("crossed",))
    shown = tables(found)
    assert [table.title.partition(",")[0] for table in shown] == ["Efficiency"]
    assert "interval" not in " ".join(shown[0].notes)
