from dataclasses import replace

import pytest

from search_spaces.shared.protocol import base
from study.errors import Refusal
from study.machine import Machine
from trainables.config import Config
from trainables.losses.focal import Focal
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.losses.ldam import LDAM
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.method import find, names, source
from trainables.methods.label_aware_smoothing import label_aware_smoothing
from trainables.methods.logit_adjusted import logit_adjusted
from trainables.methods.mixup import Mixup
from trainables.methods.switching import weighted_switching
from trainables.networks.cosine import Cosine
from trainables.networks.linear import Linear
from trainables.networks.two_branches import TwoBranches
from trainables.origins import origin
from trainables.recipe import Recipe
from trainables.schedule import epochs

CIFAR, IMAGENET, INATURALIST = base("cifar100", 100.0), base("imagenet-lt"), base("inaturalist2018")

# On CIFAR: reference, method, head, epochs, how many of them are plain cross-entropy's under the common protocol.
COMMON = [
    ("cross_entropy", "Cross Entropy", Linear(), 200, 200),
    ("focal", "Focal", Linear(), 200, 0),
    ("cb_focal", "CB-Focal", Linear(), 200, 0),
    ("ce_drw", "CE-DRW", Linear(), 200, 101),
    ("ce_drs", "CE-DRS", Linear(), 200, 101),
    ("ldam_drw", "LDAM-DRW", Cosine(), 200, 0),
    ("crt", "Decouple-cRT", Linear(), 230, 200),
    ("lws", "Decouple-LWS", Linear(), 230, 200),
    ("tau_normalised", "τ-normalised", Linear(), 200, 200),
    ("bbn", "BBN", TwoBranches(), 200, 0),
    ("switching", "Ours (S = 1)", Linear(), 200, 101),
    ("balanced_softmax", "Balanced softmax", Linear(), 200, 0),
    ("logit_adjusted", "Logit adjustment (τ = 1)", Linear(), 200, 0),
    ("post_hoc", "Post-hoc logit adjustment", Linear(), 200, 200),
    ("label_aware_smoothing", "Label-aware smoothing", Linear(), 200, 0),
    ("mixup_switching", "Mixup, then ours", Linear(), 200, 0),
]
METHODS = [row[0] for row in COMMON]


def keys(config):
    return Recipe(origin(config, Machine("cpu", 1)), epochs(config)).keys()


def changes(config, other):
    """Return the fields in which a configuration differs from another."""
    return {name: value for name, value in config.to_json().items() if value != other.to_json()[name]}


def made(method, protocol=CIFAR):
    """Return the configuration of a method by its name."""
    return find(method)(protocol)


def test_every_method_of_the_folder_is_here():
    assert names() == tuple(sorted(METHODS))


@pytest.mark.parametrize(("method", "name", "head", "length", "shared"), COMMON)
def test_a_method_is_a_point_of_the_space_of_configurations(method, name, head, length, shared):
    config = made(method)
    assert (config.method, config.head, len(epochs(config))) == (name, head, length)
    assert Config.from_json(config.to_json()) == config
    protocol = {"dataset", "imbalance", "backbone", "epochs", "milestones", "gamma", "lr", "batch_size", "weight_decay"}
    assert not protocol & changes(config, CIFAR).keys()
    trunk = keys(made("cross_entropy"))
    same = sum(key == own for key, own in zip(trunk[1:], keys(config)[1:], strict=False))
    assert same == shared
    assert keys(config)[: shared + 1] == trunk[: shared + 1] or shared == 0


# Identities


def test_read_outs_train_what_cross_entropy_trains():
    trained = keys(made("cross_entropy"))
    assert keys(made("tau_normalised")) == keys(made("post_hoc")) == trained


def test_balanced_softmax_is_logit_adjustment_with_tau_1():
    assert keys(made("balanced_softmax")) == keys(logit_adjusted(CIFAR, tau=1.0))
    assert keys(made("balanced_softmax")) != keys(logit_adjusted(CIFAR, tau=2.0))


def test_deferred_re_sampling_is_a_cell_of_table_9():
    assert keys(made("ce_drs")) == keys(replace(CIFAR, first="IB", switch="CB"))


def test_the_paper_s_method_is_a_cell_of_table_9_and_a_row_of_table_6():
    assert keys(made("switching")) == keys(replace(CIFAR, first="IB", switch="CR", S=1))
    assert made("switching", replace(CIFAR, S=10)).method == "Ours (S = 10)"


def test_crt_is_table_12_s_standard_training_with_a_class_balanced_classifier():
    assert keys(made("crt")) == keys(replace(CIFAR, first="IB", switch="IB", retrain="CB"))


def test_weighted_switching_switches_to_the_weights_it_is_given():
    weights = tuple(float(rank) for rank in range(1, 101))
    config = weighted_switching(CIFAR, weights, "irregularity")
    assert (config.method, config.combination) == ("switching by irregularity", "IB⇒weights")
    assert {epoch.sampler for epoch in epochs(config)[101:]} == {weights}
    assert keys(config)[:102] == keys(CIFAR)[:102]


# What a method's instructions say


def test_re_weighting_is_deferred_in_drw_and_not_in_cb_focal():
    for method, first in (("ce_drw", 0.0), ("ldam_drw", 0.0), ("cb_focal", 0.9999)):
        betas = [epoch.effective_number for epoch in epochs(made(method, replace(CIFAR, S=10)))]
        assert betas == [first] * 110 + [0.9999] * 90


@pytest.mark.parametrize(("protocol", "margin"), [(CIFAR, 0.5), (IMAGENET, 0.5), (INATURALIST, 0.3)])
def test_ldam_s_largest_margin(protocol, margin):
    assert {epoch.loss for epoch in epochs(made("ldam_drw", protocol))} == {LDAM(max_margin=margin)}


def test_the_losses_of_methods_have_the_constants_of_their_papers():
    for method, loss in (
        ("focal", Focal(gamma=1.0)),
        ("cb_focal", Focal(gamma=1.0)),
        ("balanced_softmax", LogitAdjusted(tau=1.0)),
        ("logit_adjusted", LogitAdjusted(tau=1.0)),
    ):
        assert {epoch.loss for epoch in epochs(made(method))} == {loss}
    assert logit_adjusted(CIFAR, tau=2).loss == LogitAdjusted(tau=2.0)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_asks_for_a_sampler_of_the_base(method):
    # The base's own samplers are the rows' of other tables: a method says its own.
    other = replace(CIFAR, first="CB", switch="CB")
    assert keys(made(method, other)) == keys(made(method))


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
    protocol = base(dataset, imbalance)
    assert made("label_aware_smoothing", protocol).loss == LabelAwareSmoothing(*smoothing)
    assert made("mixup_switching", protocol).mixture == Mixup(a=mixup)


def test_smoothing_goes_to_the_other_classes_unless_told_to_go_to_all():
    assert {epoch.loss for epoch in epochs(made("label_aware_smoothing"))} == {LabelAwareSmoothing(0.4, 0.1, "others")}
    theirs = label_aware_smoothing(CIFAR, share="all")
    assert {epoch.loss for epoch in epochs(theirs)} == {LabelAwareSmoothing(0.4, 0.1, "all")}


# Methods of the user's own

OWN = """
from dataclasses import replace

from trainables.method import sourced


@sourced(cifar={"lr": 0.3})
def gentle(base):
    return replace(base, loss="focal(gamma=0.5)", switch="IB")


def named(base):
    return replace(base, method="Mine", switch="CB")


def broken(base):
    return base.no_such_field


def wrong(base):
    return replace(base, momentum=1.0)


def nothing(base):
    pass
"""


@pytest.fixture
def own(tmp_path):
    """Return the reference of a function in a user's file."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return lambda name: f"{path}:{name}"


def test_a_function_of_a_file_is_a_method_called_by_its_own_name_if_by_no_other(own):
    gentle = made(own("gentle"))
    assert gentle == replace(CIFAR, method="gentle", loss=Focal(gamma=0.5), switch="IB")
    assert made(own("named")) == replace(CIFAR, method="Mine", switch="CB")


def test_a_method_of_the_user_s_may_have_a_source_recipe(own):
    method = find(own("gentle"))
    assert source(method, method(CIFAR)) == (replace(method(CIFAR), protocol="source", lr=0.3), "source")
    assert source(method, method(IMAGENET)) is None
    named = find(own("named"))
    assert source(named, named(CIFAR)) is None


def test_a_function_of_a_module_is_a_method():
    found = find("trainables.methods.crt:crt")
    assert keys(found(CIFAR)) == keys(made("crt"))
    assert source(found, found(CIFAR)) == source(find("crt"), made("crt"))


@pytest.mark.parametrize(
    ("reference", "remedy"),
    [
        (
            "crt2",
            r"^method must be balanced_softmax, bbn, .*, package\.module:function or \./file\.py:function "
            r"\(got 'crt2'\)\. Did you mean 'crt'\?$",
        ),
        ("Cross Entropy", "must be balanced_softmax"),
        ("", "must be balanced_softmax"),
        (
            "trainables.methods.crt",
            r"^method must have the form trainables.methods.crt:FUNCTION \(got 'trainables.methods.crt'\)\. "
            "The function takes a Config and returns a Config$",
        ),
        ("trainables.methods.crt:replaced", "must have the form trainables.methods.crt:FUNCTION"),
        ("trainables.sources:LDAM_DRW", "must have the form trainables.sources:FUNCTION"),
        ("trainables.methods.none:none", "no module trainables.methods.none"),
        ("./none.py:none", "There is no file"),
    ],
)
def test_a_reference_to_no_method_is_refused(reference, remedy):
    with pytest.raises(Refusal, match=remedy) as refused:
        find(reference)
    assert refused.value.field == "method"
    assert refused.value.value == reference


@pytest.mark.parametrize(
    ("name", "field", "remedy"),
    [
        (
            "broken",
            "method",
            r"^method '.*own.py:broken' raised AttributeError: .*no_such_field.* \(own.py, line 17\)$",
        ),
        ("nothing", "method", r"^method must return a Config \(got '.*own.py:nothing'\)\. It returned NoneType$"),
        ("wrong", "momentum", "< 1"),
    ],
)
def test_a_method_that_makes_no_configuration_is_refused(own, name, field, remedy):
    method = find(own(name))
    with pytest.raises(Refusal, match=remedy) as refused:
        method(CIFAR)
    assert refused.value.field == field
