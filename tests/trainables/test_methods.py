from dataclasses import replace

import pytest

from study.space import Machine
from trainables import methods
from trainables.config import Config, base
from trainables.methods import source
from trainables.recipe import Recipe, origin
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
    assert made == {method.__name__ for method in METHODS} | {"weighted_switching", "source"}


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


# The recipes of the sources


LDAM = {
    "milestones": [160, 180], "gamma": 0.01, "batch_size": 128, "switch_epoch": 160,
}  # fmt: skip
BBN = {
    "milestones": [120, 160], "gamma": 0.01, "batch_size": 128, "nesterov": True, "drop_last": True,
    "replacement": True,
}  # fmt: skip
LARGE = {"retrain_lr": 0.2, "retrain_batch": 512, "retrain_schedule": "cosine"}


@pytest.mark.parametrize(
    ("method", "made", "own"),
    [
        *[(method, CIFAR, LDAM) for method in (methods.cross_entropy, methods.focal, methods.ce_drw, methods.ce_drs)],
        (methods.ldam_drw, CIFAR, LDAM),
        (methods.cb_focal, CIFAR, {**LDAM, "loss": "sigmoid_focal"}),
        (methods.bbn, CIFAR, BBN),
        (methods.crt, CIFAR, {"retrain_batch": 128}),
        (methods.lws, CIFAR, {"retrain_batch": 128}),
        (methods.crt, IMAGENET, {**LARGE, "retrain_epochs": 10}),
        (methods.lws, IMAGENET, {**LARGE, "retrain_epochs": 5}),
        (methods.crt, INATURALIST, {**LARGE, "retrain_weight_decay": 1e-4}),
        (methods.lws, INATURALIST, {**LARGE, "retrain_epochs": 5, "retrain_weight_decay": 1e-4}),
    ],
)
def test_a_source_recipe_has_its_source_s_constants_and_is_common_otherwise(method, made, own):
    assert changes(source(method(made)), method(made)) == own


@pytest.mark.parametrize(
    ("method", "made"),
    [
        *[(method, IMAGENET) for method in METHODS if method not in (methods.crt, methods.lws)],
        *[(method, CIFAR) for method in (methods.switching, methods.balanced_softmax, methods.mixup_switching)],
        *[(method, CIFAR) for method in (methods.tau_normalised, methods.post_hoc, methods.label_aware_smoothing)],
    ],
)
def test_without_a_source_for_the_data_there_is_no_source_recipe(method, made):
    assert source(method(made)) is None


def test_ldam_s_recipe_defers_to_epoch_160_where_its_lr_falls():
    made = epochs(source(methods.ldam_drw(CIFAR)))
    assert [epoch.effective_number for epoch in made] == [0.0] * 160 + [0.9999] * 40
    assert [made[index].lr for index in (0, 4, 159, 160, 180)] == pytest.approx([0.02, 0.1, 0.1, 1e-3, 1e-5])


def test_cb_focal_s_recipe_starts_from_a_bias_that_says_rare_and_does_not_decay_it():
    config = source(methods.cb_focal(CIFAR))
    assert config.head == "rare"
    assert {(epoch.loss, epoch.loss_args, epoch.decay_bias) for epoch in epochs(config)} == {
        ("sigmoid_focal", (1.0,), False)
    }


def test_bbn_s_recipe_draws_no_smaller_last_batch():
    made = epochs(source(methods.bbn(CIFAR)))
    assert {(epoch.drop_last, epoch.nesterov, epoch.batch_size) for epoch in made} == {(True, True, 128)}
    assert [made[index].lr for index in (119, 120, 160)] == pytest.approx([0.1, 1e-3, 1e-5])


def test_kang_et_al_s_second_stages_fall_from_0_2_along_a_cosine():
    second = epochs(source(methods.crt(IMAGENET)))[90:]
    assert [(epoch.batch_size, epoch.weight_decay, epoch.sampler) for epoch in second] == [(512, 5e-4, 0.0)] * 10
    assert (second[0].lr, second[5].lr) == pytest.approx((0.2, 0.1))
    assert len(epochs(source(methods.crt(INATURALIST)))) == 90 + 30
