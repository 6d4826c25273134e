"""Table 3: two backbones, and OLTR as printed."""

import pytest
from helpers import as_trained, by_place, nothing, printed_of, tables

from trainables.config import Config
from trainables.methods.bbn import Bilateral
from trainables.networks.resnext50 import ResNeXt50

RESNET, RESNEXT = "imagenet-lt, resnet50", "imagenet-lt, resnext50"


@pytest.mark.parametrize(
    ("row", "figures", "provenance"),
    [
        ("Cross Entropy", (41.6, 44.4), "†"),
        ("Decouple-cRT", (47.3, 49.5), "†"),
        ("Decouple-LWS", (47.7, 49.9), "†"),
        ("BBN", (45.9, 47.1), "*"),
        ("Ours (S = 1)", (47.9, 49.2), ""),
        ("Ours (S = 10)", (48.2, 49.3), ""),
    ],
)
def test_the_paper_s_figures(row, figures, provenance):
    trials = by_place("table3", paper=True)
    assert tuple(printed_of(trials[row, column])[0] for column in (RESNET, RESNEXT)) == figures
    assert trials[row, RESNET].printed.provenance == provenance
    assert Config.from_json(trials[row, RESNEXT].config).backbone == ResNeXt50()


def test_oltr_is_printed_beside_the_resnext_alone():
    (table,) = tables(as_trained("table3", nothing, paper=True))
    assert [row[0] for row in table.rows[:3]] == ["Cross Entropy", "OLTR (Liu et al., 2019)", "Decouple-cRT"]
    _, resnet, resnext = table.rows[1]
    assert resnet.printed is None
    assert (resnext.printed.value, resnext.printed.provenance, str(resnext)) == (37.7, "†", "–")


def test_small_networks_stand_in_on_digits_and_are_called_what_they_are():
    (table,) = tables(as_trained("table3"))
    assert list(table.head) == ["Method", "digits-LT IF 50, resnet8", "digits-LT IF 50, resnext11"]
    assert table.rows[1][2].printed.of == RESNEXT
    assert table.rows[-1][0] == "Ours (S = 50)"


def test_ten_more_epochs_in_all_are_a_hundred():
    config = Config.from_json(by_place("table3", paper=True)["Ours (S = 10)", RESNET].config)
    assert (config.epochs, config.last_first, config.lr, config.batch_size) == (100, 90, 0.2, 256)


def test_cifar_has_its_own_backbone_only():
    assert {column for _, column in by_place("table3", data=("cifar10",))} == {"cifar10-LT IF 50, resnet32"}


@pytest.mark.parametrize("name", ["table3", "table5"])
def test_bbn_s_source_is_its_configuration_for_inaturalist(name):
    trials = by_place(name, paper=True, options={"recipe": "source"})
    configs = [
        Config.from_json(trial.config) for (row, _), trial in trials.items() if row == "BBN (source: iNaturalist's)"
    ]
    assert [(config.batch_size, config.nesterov, config.mixture) for config in configs] == [
        (128, True, Bilateral(alpha_epochs=100))
    ] * 2
