"""Configurations as version 0.3 stored them: a loss was a name, its parameters were fields of the configuration."""

import json

import pytest

from search_spaces.shared.protocol import base
from study.errors import Refusal
from trainables.config import Config
from trainables.earlier import upgraded
from trainables.losses.cross_entropy import CrossEntropy
from trainables.losses.focal import Focal
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.losses.ldam import LDAM
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.method import find, names, source
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.networks.resnet8 import ResNet8
from trainables.networks.resnet32 import ResNet32

# What Config().to_json() gave.
OLD = json.loads("""
{"method": "switching", "protocol": "common", "dataset": "cifar10", "imbalance": 50.0, "backbone": "resnet32",
 "first": "IB", "switch": "CR", "S": 1, "switch_epoch": null, "then": [], "joint": true, "reinitialise": false,
 "bilateral": false, "alpha_epochs": null, "loss": "cross_entropy", "focal_gamma": 1.0, "max_margin": 0.5, "tau": 1.0,
 "smoothing": [0.4, 0.1], "smoothing_share": "others", "beta": 0.0, "switch_beta": 0.0, "mixup": 0.0, "epochs": 200,
 "batch_size": 64, "lr": 0.1, "milestones": [100], "gamma": 0.1, "warmup": 5, "warmup_from": null, "momentum": 0.9,
 "nesterov": false, "weight_decay": 0.0002, "drop_last": false, "replacement": false, "retrain": null,
 "retrains": "classifier", "retrain_epochs": 30, "retrain_lr": 0.1, "retrain_weight_decay": 0.0005, "retrain_batch": 0,
 "retrain_schedule": "step", "fixed_batch_norm": "train", "measures": [], "precision": "auto", "split_seed": 0,
 "subset_seed": 0, "seed": 0, "varies": ["seed"], "crossed": false}
""")
# Fields that version 0.2 did not have.
NEWER = ("protocol", "smoothing_share", "alpha_epochs", "warmup_from", "crossed")


def read(**old):
    return Config.from_json({**OLD, **old})


def test_the_paper_s_configuration_is_what_it_was():
    assert read() == Config()


@pytest.mark.parametrize(
    ("old", "loss"),
    [
        ({"loss": "cross_entropy", "tau": 9.0}, CrossEntropy()),
        ({"loss": "focal", "focal_gamma": 2.0}, Focal(gamma=2.0)),
        ({"loss": "sigmoid_focal", "focal_gamma": 0.5}, SigmoidFocal(gamma=0.5)),
        ({"loss": "ldam", "max_margin": 0.3, "focal_gamma": 2.0}, LDAM(max_margin=0.3)),
        ({"loss": "logit_adjusted", "tau": -1.0}, LogitAdjusted(tau=-1.0)),
        ({"loss": "label_aware_smoothing", "smoothing": [0.3, 0.0]}, LabelAwareSmoothing(0.3, 0.0, "others")),
        ({"loss": "label_aware_smoothing", "smoothing_share": "all"}, LabelAwareSmoothing(0.4, 0.1, "all")),
    ],
)
def test_a_loss_has_its_own_parameters_and_no_other_s(old, loss):
    assert read(**old) == Config(loss=loss)


@pytest.mark.parametrize(
    ("old", "mixture"),
    [
        ({"mixup": 0.0}, None),
        ({"mixup": 0.2}, Mixup(a=0.2)),
        ({"bilateral": True, "switch": "IB"}, Bilateral()),
        ({"bilateral": True, "switch": "IB", "alpha_epochs": 300}, Bilateral(alpha_epochs=300)),
    ],
)
def test_mixup_and_bbn_s_branches_are_mixtures(old, mixture):
    assert read(**old) == Config(mixture=mixture, switch=old.get("switch", "CR"))


def test_what_has_kept_its_field_is_kept():
    kept = {"backbone": "resnet8", "dataset": "digits", "milestones": [50], "epochs": 100, "then": [[5, "IB"]]}
    kept |= {"switch": [1.0] * 10, "varies": ["subset_seed", "seed"], "crossed": True, "protocol": "source"}
    assert read(**kept) == Config(**kept)
    assert read(backbone="resnet32").backbone == ResNet32()
    assert read(backbone="resnet8").backbone == ResNet8()


def test_a_configuration_of_version_0_2_is_read():
    old = {name: value for name, value in OLD.items() if name not in NEWER}
    assert Config.from_json(old) == Config()
    smoothed = {**old, "loss": "label_aware_smoothing", "smoothing": [0.3, 0.0]}
    assert Config.from_json(smoothed) == Config(loss=LabelAwareSmoothing(0.3, 0.0, "others"))
    two = {**old, "bilateral": True, "switch": "IB"}
    assert Config.from_json(two) == Config(mixture=Bilateral(), switch="IB")


def test_an_old_configuration_s_mistakes_are_still_refused():
    for wrong, field in (({"learning_rate": 0.1}, "config"), ({"loss": "hinge"}, "loss"), ({"S": 100}, "S")):
        with pytest.raises(Refusal) as refused:
            read(**wrong)
        assert refused.value.field == field


@pytest.mark.parametrize("method", names())
def test_a_configuration_of_today_stays_as_it_is(method):
    protocol = base("inaturalist2018")
    made = find(method)(protocol)
    own, _ = source(find(method), made) or (made, "")
    for config in (made, own):
        plain = config.to_json()
        assert upgraded(plain) == plain


def test_what_is_read_is_left_alone():
    old = {**OLD, "loss": "ldam"}
    before = json.dumps(old)
    upgraded(old)
    assert json.dumps(old) == before
