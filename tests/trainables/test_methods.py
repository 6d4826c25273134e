from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import SAMPLERS, Config, base
from trainables.methods import learning_rate, switching
from trainables.recipe import Recipe, origin


def used(config):
    """The samplers of a configuration's epochs, as (sampler, how many epochs in a row)."""
    runs = []
    for epoch in switching(config):
        if runs and runs[-1][0] == epoch.sampler:
            runs[-1][1] += 1
        else:
            runs.append([epoch.sampler, 1])
    return [tuple(run) for run in runs]


@given(S=st.integers(0, 99))
def test_the_first_sampler_is_used_at_exactly_the_indices_below_m_plus_s(S):
    epochs = switching(Config(first="CB", switch="CR", S=S))
    assert len(epochs) == 200
    assert [index for index, epoch in enumerate(epochs) if epoch.sampler == 0.0] == list(range(100 + S))


def test_the_progressive_schedules_of_table_7():
    assert used(Config(S=1, switch="CB", then=((5, "CR"),))) == [(1.0, 101), (0.0, 5), (-1.0, 94)]
    assert used(Config(S=1, switch="CR", then=((5, "CB"),))) == [(1.0, 101), (-1.0, 5), (0.0, 94)]


def test_without_milestones_the_switch_is_counted_from_the_start():
    assert used(Config(milestones=(), S=3)) == [(1.0, 3), (-1.0, 197)]


def test_the_lr_warms_up_over_five_epochs_and_falls_once_at_100():
    config = Config()
    lrs = [learning_rate(config, index) for index in range(200)]
    assert lrs[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert lrs[5:100] == [0.1] * 95
    assert lrs[100:] == pytest.approx([0.01] * 100)
    assert [epoch.lr for epoch in switching(config)] == lrs


def test_a_gamma_of_1_without_warm_up_keeps_the_lr_and_the_switch():
    config = Config(gamma=1.0, warmup=0)
    assert {epoch.lr for epoch in switching(config)} == {0.1}
    assert used(config) == [(1.0, 101), (-1.0, 99)]


def test_the_lr_falls_at_every_milestone():
    config = Config(epochs=90, milestones=(60, 80), lr=0.05, warmup=0)
    lrs = [learning_rate(config, index) for index in (0, 59, 60, 79, 80, 89)]
    assert lrs == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005])
    assert used(config) == [(1.0, 81), (-1.0, 9)]


def test_each_setting_of_a_configuration_reaches_every_epoch():
    settings = {
        "batch_size": 32, "momentum": 0.5, "nesterov": True, "weight_decay": 5e-4, "drop_last": True,
        "replacement": True,
    }  # fmt: skip
    for epoch in switching(Config(first="CB", **settings)):
        assert {name: getattr(epoch, name) for name in settings} == settings


@pytest.mark.parametrize(("dataset", "crop", "flip"), [("digits", 1, False), ("cifar10", 4, True)])
def test_augmentation_is_the_data_set_s(dataset, crop, flip):
    assert {(epoch.crop, epoch.flip) for epoch in switching(base(dataset))} == {(crop, flip)}


def table_6(paper):
    return [replace(paper, S=S) for S in (0, 1, 5, 10, 50)]


def table_7(paper):
    return [
        replace(paper, switch=switch, then=then)
        for switch, then in (("CR", ()), ("CB", ((5, "CR"),)), ("CR", ((5, "CB"),)))
    ]


def table_9(paper):
    return [replace(paper, first=first, switch=switch) for first in SAMPLERS for switch in SAMPLERS]


@pytest.mark.parametrize(
    ("table", "dataset", "distinct", "planned"),
    [
        (table_6, "cifar10", 584, 1000),
        (table_7, "cifar10", 393, 600),
        (table_9, "cifar10", 1194, 1800),
        (table_9, "digits", 1782 // 3, 2700 // 3),
    ],
)
def test_a_table_trains_its_shared_epochs_once(table, dataset, distinct, planned):
    recipes = [Recipe(origin(config, "cpu", 1), switching(config)) for config in table(base(dataset))]
    states = [key for recipe in recipes for key in recipe.keys()[1:]]
    assert (len(set(states)), len(states)) == (distinct, planned)


def test_the_tables_of_one_data_set_share_their_trunk():
    configs = [config for table in (table_6, table_7, table_9) for config in table(base("cifar10"))]
    recipes = [Recipe(origin(config, "cpu", 1), switching(config)) for config in configs]
    states = set().union(*(recipe.keys() for recipe in recipes))
    trunks = 200 + 101 + 101  # IB⇒IB; CB and CR until they switch
    after_ib = (100 + 99 + 95 + 90 + 50) + 99 + 94 + 94  # CR at five S; CB; CR after CB×5; CB after CR×5
    after_cb_and_cr = 6 * 99
    assert len(states) == 1 + trunks + after_ib + after_cb_and_cr
