"""Table 2: two lengths of training, a method each where the paper has one."""

import pytest
from helpers import by_place, printed_of, space

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.methods.bbn import Bilateral
from trainables.networks.resnet50 import ResNet50
from trainables.work import WORK

SHORT, LONG = "inaturalist2018, resnet50, 90 epochs", "inaturalist2018, resnet50, 200 epochs"


@pytest.mark.parametrize(
    ("row", "short", "long"),
    [
        ("Cross Entropy", 57.2, None),
        ("CE-DRW", 63.7, None),
        ("CE-DRS", 63.6, None),
        ("CB-Focal", 61.1, None),
        ("LDAM-DRW", 68.0, None),
        ("Decouple-cRT", 65.2, 67.6),
        ("Decouple-LWS", 65.9, 69.5),
        ("BBN", 66.3, 69.6),
        ("Ours (S = 1)", 66.7, 70.4),
        ("Ours (S = 10 / S = 40)", 66.8, 70.0),
    ],
)
def test_the_paper_s_figures(row, short, long):
    trials = by_place("table2", paper=True)
    assert printed_of(trials[row, SHORT]) == (short, SHORT)
    assert printed_of(trials[row, LONG])[0] == long if long else (row, LONG) not in trials
    assert trials[row, SHORT].printed.provenance == ("" if row.startswith("Ours") else "†")


@pytest.mark.parametrize(
    ("row", "column", "instance_balanced", "class_reversed"),
    [
        ("Ours (S = 1)", SHORT, 81, 9),
        ("Ours (S = 1)", LONG, 161, 39),
        ("Ours (S = 10 / S = 40)", SHORT, 90, 10),
        ("Ours (S = 10 / S = 40)", LONG, 200, 10),
    ],
)
def test_the_epochs_under_each_sampler(row, column, instance_balanced, class_reversed):
    config = Config.from_json(by_place("table2", paper=True)[row, column].config)
    assert (config.last_first, config.epochs - config.last_first) == (instance_balanced, class_reversed)
    assert (config.S, config.backbone, config.lr, config.batch_size) == (config.S, ResNet50(), 0.05, 512)


def test_digits_stand_in_with_their_own_lengths_beside_the_paper_s_columns():
    trials = by_place("table2")
    assert {(trial.column, printed_of(trial)[1]) for trial in trials.values()} == {
        ("digits-LT IF 50, resnet8, 100 epochs", SHORT),
        ("digits-LT IF 50, resnet8, 200 epochs", LONG),
    }
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

    assert table2.COLUMN[1] == facts("inaturalist2018").natural
    assert table3.COLUMN[1] == facts("imagenet-lt").natural
    assert space("table2").domain == space("table2", paper=True, options={"recipe": "source"}).domain


def _machine():
    from study.machine import Machine

    return Machine("cpu", 1)


# Constants from the sources: megvii-research/BBN, configs/iNaturalist2018.yaml and lib/core/combiner.py;
# richardaecn/class-balanced-loss, tpu/run_inat2018.sh.
BBN = {
    "batch_size": 128,
    "lr": 0.05,
    "weight_decay": 1e-4,
    "gamma": 0.1,
    "nesterov": True,
    "drop_last": True,
    "warmup": 0,
}


@pytest.mark.parametrize(
    ("row", "column", "constants"),
    [
        ("BBN (source)", SHORT, {**BBN, "epochs": 90, "milestones": (60, 80), "mixture": Bilateral(alpha_epochs=100)}),
        (
            "BBN (source, 180 epochs)",
            LONG,
            {**BBN, "epochs": 180, "milestones": (120, 160), "mixture": Bilateral(alpha_epochs=200)},
        ),
        ("CB-Focal (source)", SHORT, {"beta": 0.999, "loss": SigmoidFocal(gamma=0.5), "batch_size": 1024}),
    ],
)
def test_the_source_recipe_has_its_source_s_constants(row, column, constants):
    config = Config.from_json(by_place("table2", paper=True, options={"recipe": "source"})[row, column].config)
    assert {name: getattr(config, name) for name in constants} == constants


def test_under_the_source_recipe_rows_without_a_source_say_so():
    rows = [row for row, column in by_place("table2", paper=True, options={"recipe": "source"}) if column == SHORT]
    assert rows == [
        "Cross Entropy (common: no source recipe)",
        "CE-DRW (common: no source recipe)",
        "CE-DRS (common: no source recipe)",
        "CB-Focal (source)",
        "LDAM-DRW (common: no source recipe)",
        "Decouple-cRT (second stage: source)",
        "Decouple-LWS (second stage: source)",
        "BBN (source)",
        "Ours (S = 1)",
        "Ours (S = 10 / S = 40)",
    ]
