"""The constants of each method's own code (``recipe = source``), with the files that have them. Pure.

They are lr schedules, batches, optimisers, samplers and constants of losses. What else differs from these codes:

- CB-Focal on CIFAR is its authors' sigmoid form on LDAM's schedule. On iNaturalist its warm-up rises by epoch, not by
  step; its code spares batch norms the weight decay, draws the last layer from N(0, 0.01²), and starts the last batch
  norm of each block from 0: here these are as for every method.
- Under the versions of torch that BagofTricks-LT asks for, its scheduler runs an epoch ahead (warm-up from 0.47 of the
  lr, ×0.01 at index 159); here it does as in BBN, where it is from. Its classifiers, new and re-drawn, start from
  torch's default; here as in `networks.initialise`.
- BBN's configuration of 90 epochs on iNaturalist is not public: its code divides α for it, and the milestones are the
  paper's.
- The first stages of cRT and LWS on large data are the common one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.config import Config
from trainables.data.datasets import facts

Settings = Mapping[str, Any]

# kaidic/LDAM-DRW, cifar_train.py: re-weighted from epoch 160.
_LDAM: Settings = {
    "epochs": 200,
    "milestones": (160, 180),
    "gamma": 0.01,
    "warmup": 5,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 2e-4,
    "switch_epoch": 160,
}

# megvii-research/BBN, and zhangyongshun/BagofTricks-LT, which is built on it: lib/utils/utils.py, lr_scheduler.py,
# main/train.py, and the samplers of lib/dataset.
_BBN_CODE: Settings = {"nesterov": True, "drop_last": True, "replacement": True}
_BBN_CIFAR_CODE: Settings = {
    **_BBN_CODE,
    "epochs": 200,
    "gamma": 0.01,
    "warmup": 5,
    "warmup_from": 1 / 3,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 2e-4,
}

# BagofTricks-LT, configs/cao_cifar/baseline, two_stage/drs/balance and two_stage/classifier_balance.
_BOT: Settings = {**_BBN_CIFAR_CODE, "milestones": (160, 180)}
_BOT_TWO_STAGES: Settings = {
    **_BOT,
    "retrain_epochs": 30,
    "retrain_lr": 0.1,
    "retrain_weight_decay": 5e-4,
    "retrain_schedule": "step",
}

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
        "loss": "sigmoid_focal",
        "beta": 0.999,
        "focal_gamma": 0.5,
        "epochs": 90,
        "milestones": (30, 60, 80),
        "gamma": 0.1,
        "warmup": 5,
        "batch_size": 1024,
        "lr": 1.6,
        "weight_decay": 1e-4,
        "nesterov": True,
        "drop_last": True,
    },
}
_INATURALIST_LONG: Mapping[str, Settings] = {
    **_INATURALIST,
    "BBN": {**_BBN_LARGE, "epochs": 180, "milestones": (120, 160), "alpha_epochs": 200},
}

# facebookresearch/classifier-balancing, config/ImageNet_LT, iNaturalist18 and Places_LT: cls_crt.yaml and cls_lws.yaml.
_SECOND_STAGES: Mapping[str, Settings] = {
    "imagenet-lt": {"retrain_lr": 0.2, "retrain_batch": 512, "retrain_weight_decay": 5e-4, "retrain_epochs": 10},
    "inaturalist2018": {"retrain_lr": 0.2, "retrain_batch": 512, "retrain_weight_decay": 1e-4, "retrain_epochs": 30},
    "places-lt": {"retrain_lr": 0.1, "retrain_batch": 256, "retrain_weight_decay": 5e-4, "retrain_epochs": 10},
}
_LWS_EPOCHS = 5


def source(made: Config) -> tuple[Config, str] | None:
    """A method's configuration with the constants of its own code, and in words what these are of it.

    Where a code has none for these data, those for the most similar data are taken, and the words say whose they are:
    CIFAR's for digits, iNaturalist's (BBN, CB-Focal) for ImageNet-LT and Places-LT. BBN's long training on iNaturalist,
    of 180 epochs, stands in for whatever is longer than 90. The words name a number of epochs that is not the table's.

    Returns:
        None if the method's code has none for such data. The paper's own method has the common protocol and no words.
    """
    method, dataset = made.method, made.dataset
    if method.startswith("Ours"):
        return made, ""
    settings: Settings | None = None
    words = "source"
    if facts(dataset).natural is None:
        settings = _CIFAR.get(method)
        words += "" if dataset in ("cifar10", "cifar100") else ": CIFAR's"
    elif method in ("Decouple-cRT", "Decouple-LWS") and dataset in _SECOND_STAGES:
        settings = {**_SECOND_STAGES[dataset], "retrain_schedule": "cosine"}
        settings |= {"retrain_epochs": _LWS_EPOCHS} if made.retrains == "scale" else {}
        words = "second stage: source"
    elif dataset in _SECOND_STAGES:  # no folders, whose size may be any
        settings = (_INATURALIST_LONG if made.epochs > 90 else _INATURALIST).get(method)
        words += "" if dataset == "inaturalist2018" else ": iNaturalist's"
    if settings is None:
        return None
    own = replace(made, protocol="source", **settings)
    return own, words if own.epochs == made.epochs else f"{words}, {own.epochs} epochs"
