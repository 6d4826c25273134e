from dataclasses import replace

import pytest

from search_spaces.shared.protocol import base
from study.machine import Machine
from trainables import methods
from trainables.config import Config
from trainables.origins import origin
from trainables.recipe import Recipe
from trainables.schedule import epochs

CIFAR, IMAGENET, INATURALIST = base("cifar100", 100.0), base("imagenet-lt"), base("inaturalist2018")

# On CIFAR: method, head, epochs, and how many of them are plain cross-entropy's under the common protocol.
COMMON = [
    (methods.cross_entropy, "Cross Entropy", "linear", 200, 200),
    (methods.focal, "Focal", "linear", 200, 0),
    (methods.cb_focal, "CB-Focal", "linear", 200, 0),
    (methods.ce_drw, "CE-DRW", "linear", 200, 101),
    (methods.ce_drs, "CE-DRS", "linear", 200, 101),
    (methods.ldam_drw, "LDAM-DRW", "cosine", 200, 0),
    (methods.crt, "Decouple-cRT", "linear", 230, 200),
    (methods.lws, "Decouple-LWS", "linear", 230, 200),
    (methods.tau_normalised, "τ-normalised", "linear", 200, 200),
    (methods.bbn, "BBN", "bilateral", 200, 0),
    (methods.switching, "Ours (S = 1)", "linear", 200, 101),
    (methods.balanced_softmax, "Balanced softmax", "linear", 200, 0),
    (methods.logit_adjusted, "Logit adjustment (τ = 1)", "linear", 200, 0),
    (methods.post_hoc, "Post-hoc logit adjustment", "linear", 200, 200),
    (methods.label_aware_smoothing, "Label-aware smoothing", "linear", 200, 0),
    (methods.mixup_switching, "Mixup, then ours", "linear", 200, 0),
]
METHODS = [row[0] for row in COMMON]


def keys(config):
    return Recipe(origin(config, Machine("cpu", 1)), epochs(config)).keys()


def changes(config, other):
    """The fields in which a configuration differs from another."""
    return {name: value for name, value in config.to_json().items() if value != other.to_json()[name]}


def test_every_method_of_the_module_is_here():
    made = {name for name, value in vars(methods).items() if getattr(value, "__module__", "") == methods.__name__}
    assert made == {method.__name__ for method in METHODS} | {"weighted_switching"}


@pytest.mark.parametrize(("method", "name", "head", "length", "shared"), COMMON)
def test_a_method_is_a_point_of_the_space_of_configurations(method, name, head, length, shared):
    config = method(CIFAR)
    assert (config.method, config.head, len(epochs(config))) == (name, head, length)
    assert Config.from_json(config.to_json()) == config
    protocol = {"dataset", "imbalance", "backbone", "epochs", "milestones", "gamma", "lr", "batch_size", "weight_decay"}
    assert not protocol & changes(config, CIFAR).keys()
    trunk = keys(methods.cross_entropy(CIFAR))
    same = sum(key == own for key, own in zip(trunk[1:], keys(config)[1:], strict=False))
    assert same == shared
    assert keys(config)[: shared + 1] == trunk[: shared + 1] or shared == 0


# Identities


def test_read_outs_train_what_cross_entropy_trains():
    trained = keys(methods.cross_entropy(CIFAR))
    assert keys(methods.tau_normalised(CIFAR)) == keys(methods.post_hoc(CIFAR)) == trained


def test_balanced_softmax_is_logit_adjustment_with_tau_1():
    assert keys(methods.balanced_softmax(CIFAR)) == keys(methods.logit_adjusted(CIFAR, tau=1.0))
    assert keys(methods.balanced_softmax(CIFAR)) != keys(methods.logit_adjusted(CIFAR, tau=2.0))


def test_deferred_re_sampling_is_a_cell_of_table_9():
    assert keys(methods.ce_drs(CIFAR)) == keys(replace(CIFAR, first="IB", switch="CB"))


def test_the_paper_s_method_is_a_cell_of_table_9_and_a_row_of_table_6():
    assert keys(methods.switching(CIFAR)) == keys(replace(CIFAR, first="IB", switch="CR", S=1))
    assert methods.switching(replace(CIFAR, S=10)).method == "Ours (S = 10)"


def test_crt_is_table_12_s_standard_training_with_a_class_balanced_classifier():
    assert keys(methods.crt(CIFAR)) == keys(replace(CIFAR, first="IB", switch="IB", retrain="CB"))


def test_weighted_switching_switches_to_the_weights_it_is_given():
    weights = tuple(float(rank) for rank in range(1, 101))
    config = methods.weighted_switching(CIFAR, weights, "irregularity")
    assert (config.method, config.combination) == ("switching by irregularity", "IB⇒weights")
    assert {epoch.sampler for epoch in epochs(config)[101:]} == {weights}
    assert keys(config)[:102] == keys(CIFAR)[:102]


# What a method's instructions say


def test_re_weighting_is_deferred_in_drw_and_not_in_cb_focal():
    for method, first in ((methods.ce_drw, 0.0), (methods.ldam_drw, 0.0), (methods.cb_focal, 0.9999)):
        betas = [epoch.effective_number for epoch in epochs(method(replace(CIFAR, S=10)))]
        assert betas == [first] * 110 + [0.9999] * 90


@pytest.mark.parametrize(("made", "margin"), [(CIFAR, 0.5), (IMAGENET, 0.5), (INATURALIST, 0.3)])
def test_ldam_s_largest_margin(made, margin):
    assert {epoch.loss_args for epoch in epochs(methods.ldam_drw(made))} == {(margin,)}


@pytest.mark.parametrize("method", METHODS)
def test_no_method_asks_for_a_sampler_of_the_base(method):
    # The base's own samplers are the rows' of other tables: a method says its own.
    other = replace(CIFAR, first="CB", switch="CB")
    assert keys(method(other)) == keys(method(CIFAR))


# MiSLAS's configurations (Jia-Research-Lab/MiSLAS, config/*/*_stage1_mixup.yaml and *_stage2_mislas.yaml)


@pytest.mark.parametrize(
    ("dataset", "imbalance", "smoothing", "mixup"),
    [
        ("cifar10", 100.0, (0.3, 0.0), 1.0),
        ("cifar10", 50.0, (0.2, 0.0), 1.0),
        ("cifar10", 10.0, (0.1, 0.0), 1.0),
        ("cifar100", 100.0, (0.4, 0.1), 1.0),
        ("cifar100", 50.0, (0.3, 0.0), 1.0),
        ("cifar100", 10.0, (0.2, 0.0), 1.0),
        ("imagenet-lt", None, (0.3, 0.0), 0.2),
        ("inaturalist2018", None, (0.3, 0.0), 0.2),
        ("places-lt", None, (0.4, 0.1), 0.2),
        # Not theirs: the nearest imbalance factor, and digits as CIFAR-10.
        ("cifar100", 200.0, (0.4, 0.1), 1.0),
        ("cifar10", 20.0, (0.1, 0.0), 1.0),
        ("cifar10", 30.0, (0.2, 0.0), 1.0),
        ("digits", 50.0, (0.2, 0.0), 1.0),
    ],
)
def test_smoothing_and_mixup_are_those_of_the_data_set(dataset, imbalance, smoothing, mixup):
    made = base(dataset, imbalance)
    assert methods.label_aware_smoothing(made).smoothing == smoothing
    assert methods.mixup_switching(made).mixup == mixup


def test_smoothing_goes_to_the_other_classes_unless_told_to_go_to_all():
    made = methods.label_aware_smoothing(CIFAR)
    assert {epoch.loss_args for epoch in epochs(made)} == {(0.4, 0.1, 0.0)}
    theirs = methods.label_aware_smoothing(replace(CIFAR, smoothing_share="all"))
    assert {epoch.loss_args for epoch in epochs(theirs)} == {(0.4, 0.1, 1.0)}
