"""Table 12: features of two trainings, the classifier trained anew under each sampler."""

from helpers import as_trained, by_place, nothing, tables

from study.machine import Machine
from trainables.work import WORK

PAPER = {
    ("Standard", "IB"): 77.7,
    ("Standard", "CB"): 80.7,
    ("Standard", "CR"): 82.2,
    ("Our", "IB"): 77.0,
    ("Our", "CB"): 81.4,
    ("Our", "CR"): 82.6,
}
CPU = Machine("cpu", 1)


def test_the_paper_s_figures_in_its_shape():
    (table,) = tables(as_trained("table12", nothing, paper=True))
    assert list(table.head[:2]) == ["Feature", "Re-training"]
    assert {tuple(row[:2]): row[2].printed.value for row in table.rows} == PAPER
    assert {str(row[2]) for row in table.rows} == {"–"}


def test_the_backbone_is_fixed_and_the_classifier_drawn_anew_after_all_epochs():
    trial = by_place("table12", paper=True)["Our, CR", "cifar10-LT IF 50"]
    epochs = WORK.resolve(trial.config, 0, CPU).epochs
    assert [epoch["sampler"] for epoch in (epochs[100], epochs[101], epochs[199])] == [1.0, -1.0, -1.0]
    assert [(epoch["trains"], epoch["sampler"]) for epoch in epochs[200:]] == [("classifier", -1.0)] * 30
    assert [epoch["reinitialise"] for epoch in epochs[200:202]] == ["classifier", "nothing"]


def test_standard_features_under_cb_are_crt_of_tables_1_and_13():
    twelve = by_place("table12")["Standard, CB", "digits-LT IF 50"]
    for name, row in (("table1", "Decouple-cRT"), ("table13", "Decouple-cRT")):
        same = by_place(name)[row, "digits-LT IF 50"]
        assert WORK.resolve(same.config, 0, CPU).keys == WORK.resolve(twelve.config, 0, CPU).keys


def test_either_training_is_done_once_for_its_three_classifiers():
    trials = by_place("table12")
    for feature in ("Standard", "Our"):
        trunks = {
            WORK.resolve(trials[f"{feature}, {sampler}", "digits-LT IF 50"].config, 0, CPU).keys[100]
            for sampler in ("IB", "CB", "CR")
        }
        assert len(trunks) == 1
