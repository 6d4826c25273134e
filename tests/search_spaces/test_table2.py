"""Table 2: two lengths of training, a method each where the paper has one."""

import pytest
from untrained import by_place, space

from trainables.config import Config
from trainables.datasets import DATASETS
from trainables.work import WORK

SHORT, LONG = "inaturalist2018, resnet50, 90 epochs", "inaturalist2018, resnet50, 200 epochs"


@pytest.mark.parametrize(
    ("row", "short", "long"),
    [
        ("Cross Entropy", 57.2, None), ("CE-DRW", 63.7, None), ("CE-DRS", 63.6, None), ("CB-Focal", 61.1, None),
        ("LDAM-DRW", 68.0, None), ("Decouple-cRT", 65.2, 67.6), ("Decouple-LWS", 65.9, 69.5), ("BBN", 66.3, 69.6),
        ("Ours (S = 1)", 66.7, 70.4), ("Ours (S = 10 / S = 40)", 66.8, 70.0),
    ],
)  # fmt: skip
def test_the_paper_s_figures(row, short, long):
    trials = by_place("table2", paper=True)
    assert (trials[row, SHORT].paper, trials[row, SHORT].paper_of) == (short, SHORT)
    assert trials[row, LONG].paper == long if long else (row, LONG) not in trials
    assert trials[row, SHORT].provenance == ("" if row.startswith("Ours") else "†")


@pytest.mark.parametrize(
    ("row", "column", "instance_balanced", "class_reversed"),
    [
        ("Ours (S = 1)", SHORT, 81, 9), ("Ours (S = 1)", LONG, 161, 39),
        ("Ours (S = 10 / S = 40)", SHORT, 90, 10), ("Ours (S = 10 / S = 40)", LONG, 200, 10),
    ],
)  # fmt: skip
def test_the_epochs_under_each_sampler(row, column, instance_balanced, class_reversed):
    config = Config.from_json(by_place("table2", paper=True)[row, column].config)
    assert (config.last_first, config.epochs - config.last_first) == (instance_balanced, class_reversed)
    assert (config.S, config.backbone, config.lr, config.batch_size) == (config.S, "resnet50", 0.05, 512)


def test_digits_stand_in_with_their_own_lengths_beside_the_paper_s_columns():
    trials = by_place("table2")
    assert {(trial.column, trial.paper_of) for trial in trials.values()} == {
        ("digits-LT IF 50, resnet8, 100 epochs", SHORT), ("digits-LT IF 50, resnet8, 200 epochs", LONG),
    }  # fmt: skip
    configs = [Config.from_json(trial.config) for trial in trials.values() if trial.row == "BBN"]
    assert [(config.epochs, config.milestones) for config in configs] == [(100, (50,)), (200, (100,))]
    assert ("Ours (S = 50 / S = 100)", "digits-LT IF 50, resnet8, 200 epochs") in trials


def test_ten_more_epochs_go_on_from_the_standard_procedure():
    """After all its epochs, cross-entropy and the method with the larger S have the same state."""
    trials = by_place("table2")
    column = "digits-LT IF 50, resnet8, 100 epochs"
    machine = _machine()
    plain = WORK.resolve(trials["Cross Entropy", column].config, 0, machine)
    late = WORK.resolve(trials["Ours (S = 50 / S = 100)", column].config, 0, machine)
    assert late.keys[:101] == plain.keys
    assert len(late.keys) == 111


def test_the_column_is_named_by_the_imbalance_factor_of_the_data_and_the_domain_by_all_methods():
    from search_spaces import table2, table3

    assert table2.COLUMN[1] == DATASETS["inaturalist2018"].natural
    assert table3.COLUMN[1] == DATASETS["imagenet-lt"].natural
    assert space("table2").domain == space("table2", paper=True, options={"recipe": "source"}).domain


def _machine():
    from study.space import Machine

    return Machine("cpu", 1)
