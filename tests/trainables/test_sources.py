"""The source recipes: constants of the public code, each with its repository and file."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_methods import CIFAR, IMAGENET, INATURALIST, METHODS, changes, made

from search_spaces.shared.protocol import after_the_standard_procedure, base
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.method import find, source
from trainables.methods.bbn import Bilateral
from trainables.networks.rare import Rare
from trainables.references import plain
from trainables.schedule import epochs

# kaidic/LDAM-DRW: cifar_train.py
LDAM = {"milestones": [160, 180], "gamma": 0.01, "batch_size": 128, "switch_epoch": 160}
# megvii-research/BBN: lib/utils/utils.py (Nesterov), lr_scheduler.py (1/3), main/train.py (drop_last), lib/dataset
BBN_CODE = {"nesterov": True, "drop_last": True, "replacement": True}
# zhangyongshun/BagofTricks-LT: configs/cao_cifar/baseline, two_stage/drs/balance, two_stage/classifier_balance
BOT = {**BBN_CODE, "warmup_from": 1 / 3, "milestones": [160, 180], "gamma": 0.01, "batch_size": 128}
# megvii-research/BBN: configs/cifar10.yaml; iNaturalist2018.yaml and lib/core/combiner.py
BBN = {**BBN_CODE, "warmup_from": 1 / 3, "milestones": [120, 160], "gamma": 0.01, "batch_size": 128}
BBN_90 = {**BBN_CODE, "batch_size": 128, "mixture": plain(Bilateral(alpha_epochs=100))}
BBN_180 = {**BBN_CODE, "batch_size": 128, "mixture": plain(Bilateral(alpha_epochs=200)), "epochs": 180}
# richardaecn/class-balanced-loss: tpu/run_inat2018.sh; tpu/models/official/resnet/resnet_main.py
CBL = {
    "loss": plain(SigmoidFocal(gamma=0.5)),
    "beta": 0.999,
    "batch_size": 1024,
    "lr": 0.4 * 1024 / 256,
    "milestones": [30, 60, 80],
    "warmup": 5,
    "nesterov": True,
    "drop_last": True,
}
# facebookresearch/classifier-balancing: config/ImageNet_LT and iNaturalist18, cls_crt.yaml and cls_lws.yaml
KB = {"retrain_lr": 0.2, "retrain_batch": 512, "retrain_schedule": "cosine"}
# the same, config/Places_LT
KB_PLACES = {"retrain_batch": 256, "retrain_schedule": "cosine"}
PLACES, DIGITS = base("places-lt"), base("digits")
LONG = replace(INATURALIST, epochs=200, milestones=(120, 160))


def sourced(method, protocol=CIFAR):
    """Return a method's source recipe and its description, by the method's name."""
    return source(find(method), made(method, protocol))


@pytest.mark.parametrize(
    ("method", "protocol", "own", "words"),
    [
        ("cross_entropy", CIFAR, LDAM, "source"),
        ("focal", CIFAR, LDAM, "source"),
        ("ce_drw", CIFAR, LDAM, "source"),
        ("ldam_drw", CIFAR, LDAM, "source"),
        ("cb_focal", CIFAR, {**LDAM, "loss": plain(SigmoidFocal(gamma=1.0))}, "source"),
        ("ce_drs", CIFAR, {**BOT, "switch_epoch": 160}, "source"),
        ("crt", CIFAR, BOT, "source"),
        ("lws", CIFAR, BOT, "source"),
        ("bbn", CIFAR, BBN, "source"),
        ("bbn", INATURALIST, BBN_90, "source"),
        ("bbn", LONG, BBN_180, "source, 180 epochs"),
        ("bbn", IMAGENET, {**BBN_90, "lr": 0.05, "weight_decay": 1e-4}, "source: iNaturalist's"),
        ("cb_focal", INATURALIST, CBL, "source"),
        ("cb_focal", IMAGENET, {**CBL, "weight_decay": 1e-4}, "source: iNaturalist's"),
        ("crt", PLACES, {**KB_PLACES, "retrain_epochs": 10}, "second stage: source"),
        ("lws", PLACES, {**KB_PLACES, "retrain_epochs": 5}, "second stage: source"),
        (
            "bbn",
            DIGITS,
            {**BBN, "epochs": 200},
            "source: CIFAR's, 200 epochs",
        ),
        ("crt", IMAGENET, {**KB, "retrain_epochs": 10}, "second stage: source"),
        ("lws", IMAGENET, {**KB, "retrain_epochs": 5}, "second stage: source"),
        ("crt", INATURALIST, {**KB, "retrain_weight_decay": 1e-4}, "second stage: source"),
        ("lws", INATURALIST, {**KB, "retrain_epochs": 5, "retrain_weight_decay": 1e-4}, "second stage: source"),
    ],
)
def test_a_source_recipe_has_its_source_s_constants_and_is_common_otherwise(method, protocol, own, words):
    found, of = sourced(method, protocol)
    assert changes(found, made(method, protocol)) == {"protocol": "source", **own}
    assert of == words


@pytest.mark.parametrize(
    ("method", "protocol"),
    [
        *[(method, IMAGENET) for method in METHODS if method not in ("crt", "lws", "bbn", "cb_focal", "switching")],
        *[(method, CIFAR) for method in ("balanced_softmax", "mixup_switching")],
        *[(method, CIFAR) for method in ("tau_normalised", "post_hoc", "label_aware_smoothing", "logit_adjusted")],
    ],
)
def test_without_a_source_for_the_data_there_is_no_source_recipe(method, protocol):
    assert sourced(method, protocol) is None


def test_the_paper_is_the_source_of_its_own_method():
    for protocol in (CIFAR, IMAGENET):
        assert sourced("switching", protocol) == (made("switching", protocol), "")
        longer = after_the_standard_procedure(protocol)
        assert source(after_the_standard_procedure, longer) == (longer, "")


@pytest.mark.parametrize("protocol", [CIFAR, INATURALIST])
@pytest.mark.parametrize("method", ["cross_entropy", "bbn", "ce_drs", "cb_focal"])
def test_a_source_s_lr_is_its_own_whatever_the_base_s_is(method, protocol):
    found, other = (sourced(method, replace(protocol, lr=lr)) for lr in (protocol.lr, 0.7))
    assert found == other or (found, other) == (None, None)


def test_folders_whose_size_may_be_any_have_no_source(tmp_path):
    for part in ("train", "test"):
        for label, count in (("a", 6), ("b", 2)):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(
                    tmp_path / part / label / f"{number}.png"
                )
    folder = base(f"folder:{tmp_path}")
    assert {sourced(method, folder) for method in METHODS if method != "switching"} == {None}


def under_source(method, protocol=CIFAR):
    """Return the epochs of a method's source recipe."""
    config, _ = sourced(method, protocol)
    return epochs(config)


def test_ldam_s_recipe_defers_to_epoch_160_where_its_lr_falls():
    theirs = under_source("ldam_drw")
    assert [epoch.effective_number for epoch in theirs] == [0.0] * 160 + [0.9999] * 40
    assert [theirs[index].lr for index in (0, 4, 159, 160, 180)] == pytest.approx([0.02, 0.1, 0.1, 1e-3, 1e-5])


def test_cb_focal_s_recipe_starts_from_a_bias_that_says_rare_and_does_not_decay_it():
    config, _ = sourced("cb_focal")
    assert config.head == Rare()
    assert {(epoch.loss, epoch.decay_bias) for epoch in epochs(config)} == {(SigmoidFocal(gamma=1.0), False)}


def test_cb_focal_on_inaturalist_falls_tenfold_at_30_60_and_80():
    theirs = under_source("cb_focal", INATURALIST)
    lrs = [theirs[index].lr for index in (0, 4, 29, 30, 60, 80)]
    assert lrs == pytest.approx([0.32, 1.6, 1.6, 0.16, 0.016, 0.0016])
    assert {(epoch.loss, epoch.effective_number, epoch.decay_bias) for epoch in theirs} == {
        (SigmoidFocal(gamma=0.5), 0.999, False)
    }


def warming(made):
    """Return the lr of BBN's warm-up, as in its scheduler: linear from a third of the lr."""
    return [epoch.lr for epoch in made[:6]] == pytest.approx([0.1 / 3 + 0.1 * 2 / 3 * e / 5 for e in range(6)])


def test_bbn_s_recipe_draws_no_smaller_last_batch_and_warms_up_from_a_third():
    theirs = under_source("bbn")
    assert {(epoch.drop_last, epoch.nesterov, epoch.batch_size) for epoch in theirs} == {(True, True, 128)}
    assert [theirs[index].lr for index in (119, 120, 160)] == pytest.approx([0.1, 1e-3, 1e-5])
    assert warming(theirs)


@pytest.mark.parametrize(("protocol", "last", "tenths"), [(INATURALIST, 0.2079, (60, 80)), (LONG, 0.19897, (120, 160))])
def test_bbn_s_alpha_on_inaturalist_does_not_come_to_0(protocol, last, tenths):
    """``div_epoch = 100 * (T // 100 + 1)`` for T = 90 and 180 (lib/core/combiner.py)."""
    theirs = under_source("bbn", protocol)
    total = len(theirs)
    divisor = 100 * (total // 100 + 1)
    assert [epoch.mixture.alpha for epoch in theirs] == pytest.approx([1 - (e / divisor) ** 2 for e in range(total)])
    assert theirs[-1].mixture.alpha == pytest.approx(last, abs=5e-5)
    assert [theirs[index].lr for index in (0, *tenths)] == pytest.approx([0.05, 0.005, 0.0005])
    common = epochs(made("bbn", INATURALIST))[-1]
    assert common.mixture.alpha == pytest.approx(0.0221, abs=5e-5), "1 - (89/90)²"


def test_bag_of_tricks_re_samples_from_epoch_160_with_replacement():
    theirs = under_source("ce_drs")
    assert [epoch.sampler for epoch in theirs] == [1.0] * 160 + [0.0] * 40
    assert {epoch.replacement for epoch in theirs[160:]} == {True}
    assert {(epoch.drop_last, epoch.nesterov, epoch.batch_size, epoch.weight_decay) for epoch in theirs} == {
        (True, True, 128, 2e-4)
    }
    assert [theirs[index].lr for index in (159, 160, 180)] == pytest.approx([0.1, 1e-3, 1e-5])
    assert warming(theirs)


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_bag_of_tricks_trains_its_own_baseline_before_the_second_stage(method):
    theirs = under_source(method)
    first, second = theirs[:200], theirs[200:]
    assert [first[index].lr for index in (159, 160, 180)] == pytest.approx([0.1, 1e-3, 1e-5])
    assert {epoch.sampler for epoch in first} == {1.0}
    assert len(second) == 30
    assert {(epoch.sampler, epoch.replacement, epoch.weight_decay) for epoch in second} == {(0.0, True, 5e-4)}
    assert [second[index].lr for index in (9, 10, 20)] == pytest.approx([0.1, 0.01, 0.001])
    assert {(epoch.drop_last, epoch.nesterov, epoch.batch_size) for epoch in theirs} == {(True, True, 128)}
    assert warming(first)
    assert warming(second)


def test_kang_et_al_s_second_stages_fall_from_0_2_along_a_cosine():
    second = under_source("crt", IMAGENET)[90:]
    assert [(epoch.batch_size, epoch.weight_decay, epoch.sampler) for epoch in second] == [(512, 5e-4, 0.0)] * 10
    assert (second[0].lr, second[5].lr) == pytest.approx((0.2, 0.1))
    assert len(under_source("crt", INATURALIST)) == 90 + 30
