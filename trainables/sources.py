"""The constants of each method's own code (``recipe = source``), with the files that have them. Pure.

Deviations: CB-Focal's warm-up on iNaturalist rises by epoch, not by step. Under the versions of torch that
BagofTricks-LT asks for, its scheduler runs an epoch ahead (warm-up from 0.47 of the lr, ×0.01 at index 159); here it
does as in BBN, where it is from. BBN's configuration of 90 epochs on iNaturalist is not public: its code divides α for
it, and the milestones are the paper's. The first stages of cRT and LWS on large data are the common one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.config import Config
from trainables.datasets import facts

Settings = Mapping[str, Any]

# kaidic/LDAM-DRW, cifar_train.py: re-weighted from epoch 160.
_LDAM: Settings = {
    "epochs": 200, "milestones": (160, 180), "gamma": 0.01, "warmup": 5, "batch_size": 128, "weight_decay": 2e-4,
    "switch_epoch": 160,
}  # fmt: skip

# megvii-research/BBN, and zhangyongshun/BagofTricks-LT, which is built on it: lib/utils/utils.py, lr_scheduler.py,
# main/train.py, and the samplers of lib/dataset.
_BBN_CODE: Settings = {"nesterov": True, "drop_last": True, "replacement": True}
_BBN_CIFAR_CODE: Settings = {
    **_BBN_CODE, "epochs": 200, "gamma": 0.01, "warmup": 5, "warmup_from": 1 / 3, "batch_size": 128,
    "weight_decay": 2e-4,
}  # fmt: skip

# BagofTricks-LT, configs/cao_cifar/baseline, two_stage/drs/balance and two_stage/classifier_balance.
_BOT: Settings = {**_BBN_CIFAR_CODE, "milestones": (160, 180)}
_BOT_TWO_STAGES: Settings = {
    **_BOT, "retrain_epochs": 30, "retrain_lr": 0.1, "retrain_weight_decay": 5e-4, "retrain_schedule": "step",
}  # fmt: skip

_CIFAR: Mapping[str, Settings] = {
    **dict.fromkeys(("Cross Entropy", "Focal", "CE-DRW", "LDAM-DRW"), _LDAM),
    "CB-Focal": {**_LDAM, "loss": "sigmoid_focal"},
    "CE-DRS": {**_BOT, "switch_epoch": 160},
    **dict.fromkeys(("Decouple-cRT", "Decouple-LWS"), _BOT_TWO_STAGES),
    "BBN": {**_BBN_CIFAR_CODE, "milestones": (120, 160)},  # BBN, configs/cifar10.yaml
}

# BBN, configs/iNaturalist2018.yaml, which has no warm-up; α's divisor in lib/core/combiner.py.
_BBN_LARGE: Settings = {**_BBN_CODE, "warmup": 0, "gamma": 0.1, "batch_size": 128, "lr": 0.05, "weight_decay": 1e-4}

_INATURALIST: Mapping[str, Settings] = {
    "BBN": {**_BBN_LARGE, "epochs": 90, "milestones": (60, 80), "alpha_epochs": 100},
    # richardaecn/class-balanced-loss, tpu/run_inat2018.sh and resnet_main.py: lr 0.4 for 256 images, so 1.6 for 1024.
    "CB-Focal": {
        "loss": "sigmoid_focal", "beta": 0.999, "focal_gamma": 0.5, "epochs": 90, "milestones": (30, 60, 80),
        "gamma": 0.1, "warmup": 5, "batch_size": 1024, "lr": 1.6, "weight_decay": 1e-4, "nesterov": True,
        "drop_last": True,
    },
}  # fmt: skip
_INATURALIST_LONG: Mapping[str, Settings] = {
    **_INATURALIST, "BBN": {**_BBN_LARGE, "epochs": 180, "milestones": (120, 160), "alpha_epochs": 200},
}  # fmt: skip

# facebookresearch/classifier-balancing, config/ImageNet_LT and iNaturalist18: cls_crt.yaml and cls_lws.yaml.
_SECOND_STAGE: Settings = {"retrain_lr": 0.2, "retrain_batch": 512, "retrain_schedule": "cosine"}
_SECOND_STAGES: Mapping[str, Settings] = {
    "Decouple-cRT": {**_SECOND_STAGE, "retrain_epochs": 10, "retrain_weight_decay": 5e-4},
    "Decouple-LWS": {**_SECOND_STAGE, "retrain_epochs": 5, "retrain_weight_decay": 5e-4},
}
_SECOND_STAGES_INATURALIST: Mapping[str, Settings] = {
    "Decouple-cRT": {**_SECOND_STAGE, "retrain_epochs": 30, "retrain_weight_decay": 1e-4},
    "Decouple-LWS": {**_SECOND_STAGE, "retrain_epochs": 5, "retrain_weight_decay": 1e-4},
}


def source(made: Config) -> tuple[Config, str] | None:
    """A method's configuration with the constants of its own code, and in words what these are of it.

    BBN's long training on iNaturalist, of 180 epochs, stands in for whatever is longer than 90. Other large data have
    iNaturalist's constants of BBN and CB-Focal, and the words say so.

    Returns:
        None if the method's code has none for these data.
    """
    method = made.method
    inaturalist = made.dataset == "inaturalist2018"
    if facts(made.dataset).natural is None:
        settings, words = _CIFAR.get(method), "source"
    elif method in _SECOND_STAGES:
        settings = (_SECOND_STAGES_INATURALIST if inaturalist else _SECOND_STAGES)[method]
        words = "second stage: source"
    else:
        settings = (_INATURALIST_LONG if made.epochs > 90 else _INATURALIST).get(method)
        words = "source" if inaturalist else "source: iNaturalist's"
    return None if settings is None else (replace(made, protocol="source", **settings), words)
