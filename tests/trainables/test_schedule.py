import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.shared.protocol import after_the_standard_procedure, base
from study.machine import Machine
from trainables.config import Config
from trainables.exponents import SAMPLERS
from trainables.losses.cross_entropy import CrossEntropy
from trainables.losses.focal import Focal
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.losses.ldam import LDAM
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.origins import origin
from trainables.recipe import Recipe
from trainables.samplers import class_probabilities
from trainables.schedule import epochs, learning_rate


def used(config):
    """Return the samplers of a configuration's epochs, as (sampler, number of epochs in a row)."""
    runs = []
    for epoch in epochs(config):
        if runs and runs[-1][0] == epoch.sampler:
            runs[-1][1] += 1
        else:
            runs.append([epoch.sampler, 1])
    return [tuple(run) for run in runs]


def values(field, made):
    """Return the values of a field, epoch by epoch."""
    return [getattr(epoch, field) for epoch in made]


def keys(config):
    return Recipe(origin(config, Machine("cpu", 1)), epochs(config)).keys()


# The switch


@settings(deadline=None)
@given(S=st.integers(0, 99))
def test_the_first_sampler_is_used_at_exactly_the_indices_below_m_plus_s(S):
    made = epochs(Config(first="CB", switch="CR", S=S))
    assert len(made) == 200
    assert [index for index, epoch in enumerate(made) if epoch.sampler == 0.0] == list(range(100 + S))


IMAGENET, INATURALIST = base("imagenet-lt"), base("inaturalist2018")
LONG = replace(INATURALIST, epochs=200, milestones=(120, 160))


@pytest.mark.parametrize(
    ("config", "instance_balanced", "reversed_"),
    [
        (Config(), 101, 99),
        (Config(S=10), 110, 90),
        (INATURALIST, 81, 9),
        (IMAGENET, 81, 9),
        (LONG, 161, 39),
        (after_the_standard_procedure(INATURALIST, 10), 90, 10),
        (after_the_standard_procedure(IMAGENET, 10), 90, 10),
        (after_the_standard_procedure(LONG, 10), 200, 10),
    ],
)
def test_what_each_row_of_the_paper_trains(config, instance_balanced, reversed_):
    assert used(config) == [(1.0, instance_balanced), (-1.0, reversed_)]


def test_ten_epochs_after_the_standard_procedure_leave_its_90_as_they_are():
    standard, longer = replace(IMAGENET, switch="IB"), after_the_standard_procedure(IMAGENET, 10)
    assert (longer.S, longer.epochs, used(standard)) == (10, 100, [(1.0, 90)])
    assert keys(longer)[:91] == keys(standard)
    assert values("lr", epochs(longer)[90:]) == [epochs(standard)[89].lr] * 10


def test_the_progressive_schedules_of_table_7():
    assert used(Config(S=1, switch="CB", then=((5, "CR"),))) == [(1.0, 101), (0.0, 5), (-1.0, 94)]
    assert used(Config(S=1, switch="CR", then=((5, "CB"),))) == [(1.0, 101), (-1.0, 5), (0.0, 94)]


def test_without_milestones_the_switch_is_counted_from_the_start():
    assert used(Config(milestones=(), S=3)) == [(1.0, 3), (-1.0, 197)]


def test_a_source_may_say_when_it_switches():
    assert used(Config(switch_epoch=160, S=50)) == [(1.0, 160), (-1.0, 40)]
    assert used(Config(switch_epoch=0)) == [(-1.0, 200)]


def test_table_10_samples_by_class_weights():
    irregularity = (0.0171, 0.0137, 0.1414, 0.2930, 0.3047, 0.7875, 0.6889, 1.4938, 1.8150, 3.6341)
    assert used(Config(switch=irregularity)) == [(1.0, 101), (irregularity, 99)]


def test_weights_of_one_over_n_are_class_reversed_sampling_under_another_name():
    counts = np.asarray([5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100])
    weights, reversed_ = epochs(Config(switch=tuple(1 / counts)))[-1], epochs(Config(switch="CR"))[-1]
    np.testing.assert_allclose(
        class_probabilities(counts, weights.sampler), class_probabilities(counts, reversed_.sampler)
    )
    assert weights != reversed_


# The lr


def test_the_lr_warms_up_over_five_epochs_and_falls_once_at_100():
    config = Config()
    lrs = [learning_rate(config, index) for index in range(200)]
    assert lrs[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert lrs[5:100] == [0.1] * 95
    assert lrs[100:] == pytest.approx([0.01] * 100)
    assert values("lr", epochs(config)) == lrs


@pytest.mark.parametrize("lr", [0.1, 0.02, 0.01, 0.001])
def test_a_gamma_of_1_without_warm_up_keeps_the_lr_and_the_switch_of_table_14(lr):
    config = Config(lr=lr, gamma=1.0, warmup=0)
    assert set(values("lr", epochs(config))) == {lr}
    assert used(config) == [(1.0, 101), (-1.0, 99)]


def test_the_lr_falls_at_every_milestone():
    lrs = [learning_rate(INATURALIST, index) for index in (0, 59, 60, 79, 80, 89)]
    assert lrs == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005])


# What else an instruction says


def test_each_setting_of_a_configuration_reaches_every_epoch():
    settings = {
        "batch_size": 32,
        "momentum": 0.5,
        "nesterov": True,
        "drop_last": True,
        "replacement": True,
        "measures": ("fit", "events"),
    }
    made = epochs(Config(first="CB", weight_decay=1e-3, retrain="CB", retrain_weight_decay=1e-3, **settings))
    assert len(made) == 230
    for epoch in made:
        assert {name: getattr(epoch, name) for name in settings} == settings
        assert epoch.weight_decay == 1e-3


@pytest.mark.parametrize(
    ("dataset", "crop", "flip"), [("digits", 1, False), ("cifar10", 4, True), ("imagenet-lt", 0, True)]
)
def test_augmentation_is_the_data_set_s(dataset, crop, flip):
    assert {(epoch.crop, epoch.flip) for epoch in epochs(base(dataset))} == {(crop, flip)}


@pytest.mark.parametrize(
    ("named", "loss"),
    [
        ("cross_entropy", CrossEntropy()),
        ("focal(gamma=2)", Focal(gamma=2.0)),
        ("sigmoid_focal(gamma=0.5)", SigmoidFocal(gamma=0.5)),
        ("ldam(max_margin=0.3)", LDAM(max_margin=0.3)),
        ("logit_adjusted(tau=1.5)", LogitAdjusted(tau=1.5)),
        ("label_aware_smoothing(largest=0.3, smallest=0)", LabelAwareSmoothing(0.3, 0.0, "others")),
        ("label_aware_smoothing(largest=0.3, smallest=0, share='all')", LabelAwareSmoothing(0.3, 0.0, "all")),
    ],
)
def test_a_loss_comes_with_its_own_constants_in_every_epoch(named, loss):
    assert set(values("loss", epochs(Config(loss=named)))) == {loss}


def test_re_weighting_begins_with_the_switch():
    assert values("effective_number", epochs(Config(S=10, switch_beta=0.9999))) == [0.0] * 110 + [0.9999] * 90
    assert values("effective_number", epochs(Config(beta=0.9))) == [0.9] * 200
    assert values("effective_number", epochs(Config(beta=0.9, switch_beta=0.99))) == [0.9] * 101 + [0.99] * 99


def test_mixup_ends_with_the_switch():
    made = epochs(Config(mixture=Mixup(a=0.2), retrain="CB"))
    assert values("mixture", made) == [Mixup(a=0.2)] * 101 + [None] * (99 + 30)


def test_only_the_rare_classifier_s_bias_is_spared_the_weight_decay():
    assert set(values("decay_bias", epochs(Config(loss="sigmoid_focal")))) == {False}
    assert set(values("decay_bias", epochs(Config(loss="focal")))) == {True}


# Tables 11 and 12: what is trained, what starts anew


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("reinitialise", [True, False])
def test_table_11_freezes_the_backbone_and_draws_the_classifier_anew_at_index_101(sampler, joint, reinitialise):
    config = Config(switch=sampler, joint=joint, reinitialise=reinitialise)
    trunk, branch = epochs(config)[:101], epochs(config)[101:]
    assert trunk == epochs(Config())[:101]
    assert set(values("sampler", branch)) == {SAMPLERS[sampler]}
    assert values("lr", branch) == pytest.approx([0.01] * 99)
    assert values("trains", branch) == ["all" if joint else "classifier"] * 99
    assert values("reinitialise", branch) == ["classifier" if reinitialise else "nothing"] + ["nothing"] * 98
    assert values("fresh_optimizer", branch) == [reinitialise or not joint] + [False] * 98


def test_table_11_trained_on_and_kept_is_table_9():
    for sampler in SAMPLERS:
        assert keys(Config(switch=sampler, joint=True, reinitialise=False)) == keys(Config(switch=sampler))


@pytest.mark.parametrize("S", [0, 1, 5, 10, 50])
def test_ib_then_ib_is_one_recipe_at_any_s(S):
    assert keys(Config(switch="IB", S=S)) == keys(Config(switch="IB"))


@pytest.mark.parametrize("trained", ["IB", "CR"])
@pytest.mark.parametrize("retrained", SAMPLERS)
def test_table_12_retrains_a_new_classifier_after_all_200_epochs(trained, retrained):
    config = Config(switch=trained, retrain=retrained)
    first, second = epochs(config)[:200], epochs(config)[200:]
    assert first == epochs(Config(switch=trained))
    assert len(second) == 30
    assert set(values("sampler", second)) == {SAMPLERS[retrained]}
    assert set(values("trains", second)) == {"classifier"}
    assert values("reinitialise", second) == ["classifier"] + ["nothing"] * 29
    assert values("fresh_optimizer", second) == [True] + [False] * 29
    assert set(values("batch_norm", second)) == {"train"}  # the statistics keep moving


def test_a_second_stage_has_an_lr_a_weight_decay_and_a_batch_of_its_own_and_plain_cross_entropy():
    second = epochs(Config(loss="ldam", switch_beta=0.9999, mixture=Mixup(0.2), retrain="CB"))[200:]
    assert values("lr", second) == pytest.approx([0.02, 0.04, 0.06, 0.08] + [0.1] * 6 + [0.01] * 10 + [0.001] * 10)
    assert {(e.weight_decay, e.batch_size, e.loss) for e in second} == {(5e-4, 64, CrossEntropy())}
    assert {(e.effective_number, e.mixture) for e in second} == {(0.0, None)}
    (batch,) = set(values("batch_size", epochs(Config(retrain="CB", retrain_batch=512))[200:]))
    assert batch == 512


def test_a_cosine_schedule_falls_from_the_lr_towards_0():
    config = replace(IMAGENET, retrain="CB", retrain_epochs=10, retrain_lr=0.2, retrain_schedule="cosine")
    lrs = values("lr", epochs(config)[90:])
    assert lrs == pytest.approx([0.1 + 0.1 * math.cos(math.pi * e / 10) for e in range(10)])
    assert (lrs[0], lrs[5]) == pytest.approx((0.2, 0.1))


def test_a_scale_is_trained_from_1_on_while_all_else_is_fixed():
    second = epochs(Config(retrain="CB", retrains="scale"))[200:]
    assert set(values("trains", second)) == {"scale"}
    assert values("reinitialise", second) == ["scale"] + ["nothing"] * 29


# BBN


def alphas(config):
    return [mixture.alpha for mixture in values("mixture", epochs(config))]


def test_bbn_s_alpha_falls_as_a_parabola_and_nothing_switches():
    config = Config(mixture=Bilateral(), switch="IB")
    assert alphas(config) == pytest.approx([1 - (e / 200) ** 2 for e in range(200)])
    assert len({replace(epoch, lr=0.0, mixture=None) for epoch in epochs(config)}) == 1
    assert set(values("mixture", epochs(Config()))) == {None}


def test_bbn_s_alpha_may_be_divided_by_more_than_all_epochs_and_a_state_s_name_has_only_what_it_comes_to():
    longer = Config(mixture=Bilateral(alpha_epochs=250), switch="IB")
    assert alphas(longer) == pytest.approx([1 - (e / 250) ** 2 for e in range(200)])
    assert keys(Config(mixture=Bilateral(alpha_epochs=200), switch="IB")) == keys(
        Config(mixture=Bilateral(), switch="IB")
    )
    assert keys(longer)[:2] == keys(Config(mixture=Bilateral(), switch="IB"))[:2]  # in the first epoch α is 1


# What is shared


def table_6(paper):
    return [replace(paper, S=S) for S in (0, 1, 5, 10, 50)]


def table_7(paper):
    return [
        replace(paper, switch=switch, then=then)
        for switch, then in (("CR", ()), ("CB", ((5, "CR"),)), ("CR", ((5, "CB"),)))
    ]


def table_9(paper):
    return [replace(paper, first=first, switch=switch) for first in SAMPLERS for switch in SAMPLERS]


def table_10(paper):
    return [paper, replace(paper, switch=(0.1,) * 9 + (0.5,))]


def table_11(paper):
    return [
        replace(paper, switch=switch, joint=joint, reinitialise=anew)
        for switch in SAMPLERS
        for joint in (True, False)
        for anew in (True, False)
    ]


def states(tables, paper):
    """Return the number of states that tables need, and the number of epochs if trained separately."""
    trained = [key for table in tables for config in table(paper) for key in keys(config)[1:]]
    return len(set(trained)), len(trained)


@pytest.mark.parametrize(
    ("tables", "dataset", "needed", "planned"),
    [
        ([table_6], "cifar10", 584, 1000),
        ([table_7], "cifar10", 393, 600),
        ([table_9], "cifar10", 1194, 1800),
        ([table_9], "digits", 1782 // 3, 2700 // 3),
        ([table_11], "cifar10", 101 + 12 * 99, 2400),
        ([table_6, table_7, table_9, table_10, table_11], "cifar10", 2707, 6200),
    ],
)
def test_tables_train_their_shared_epochs_once(tables, dataset, needed, planned):
    assert states(tables, base(dataset)) == (needed, planned)


def test_the_tables_of_one_data_set_share_their_trunk():
    trunks = 200 + 101 + 101  # IB⇒IB; CB and CR until they switch
    after_ib = (100 + 99 + 95 + 90 + 50) + 99 + 94 + 94  # CR at five S; CB; CR after CB×5; CB after CR×5
    after_cb_and_cr = 6 * 99
    weights = 99  # Table 10's other row
    frozen_or_drawn_anew = 9 * 99  # Table 11's twelve cells, of which Table 9 has three
    by_hand = trunks + after_ib + after_cb_and_cr + weights + frozen_or_drawn_anew
    assert states([table_6, table_7, table_9, table_10, table_11], base("cifar10", 100.0)) == (by_hand, 6200)


@settings(deadline=None)
@given(S=st.integers(0, 98), first=st.sampled_from(sorted(SAMPLERS)), switch=st.sampled_from(sorted(SAMPLERS)))
def test_a_later_switch_leaves_the_epochs_before_the_earlier_one(S, first, switch):
    early, late = epochs(Config(first=first, switch=switch, S=S)), epochs(Config(first=first, switch=switch, S=S + 1))
    assert [index for index in range(200) if early[index] != late[index]] == [100 + S] * (first != switch)
