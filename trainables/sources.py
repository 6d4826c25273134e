"""Constants that the published code of several methods shares (``recipe = source``), with the files in it. Pure.

They are lr schedules, batches, optimisers, samplers and constants of losses. Other differences from the codes remain:

- CB-Focal on CIFAR is its authors' sigmoid form on LDAM's schedule. On iNaturalist the warm-up rises by epoch, not by
  step. The code on iNaturalist applies no weight decay to batch norms, draws the last layer from N(0, 0.01²), and
  starts the last batch norm of each block from 0; here these are the same for every method.
- With the versions of torch that BagofTricks-LT requires, its scheduler runs an epoch ahead (warm-up from 0.47 of the
  lr, ×0.01 at index 159). Here the scheduler is as in BBN, its origin. Its classifiers, new and re-drawn, start from
  torch's default; here they start as in `network.initialise`.
- BBN's configuration of 90 epochs on iNaturalist is not public: the divisor of α is in its code, and the milestones are
  the paper's.
- The first stages of cRT and LWS on large data are those of the common protocol.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainables.method import Settings

# kaidic/LDAM-DRW, cifar_train.py: re-weighted from epoch 160.
LDAM_DRW: Settings = {
    "epochs": 200,
    "milestones": (160, 180),
    "gamma": 0.01,
    "warmup": 5,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 2e-4,
    "switch_epoch": 160,
}

# megvii-research/BBN, and zhangyongshun/BagofTricks-LT, which is based on it: lib/utils/utils.py, lr_scheduler.py,
# main/train.py, and the samplers of lib/dataset.
BBN_CODE: Settings = {"nesterov": True, "drop_last": True, "replacement": True}
BBN_CIFAR: Settings = {
    **BBN_CODE,
    "epochs": 200,
    "gamma": 0.01,
    "warmup": 5,
    "warmup_from": 1 / 3,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 2e-4,
}

# BagofTricks-LT, configs/cao_cifar/baseline, two_stage/drs/balance and two_stage/classifier_balance.
BAG_OF_TRICKS: Settings = {**BBN_CIFAR, "milestones": (160, 180)}
TWO_STAGES: Settings = {
    **BAG_OF_TRICKS,
    "retrain_epochs": 30,
    "retrain_lr": 0.1,
    "retrain_weight_decay": 5e-4,
    "retrain_schedule": "step",
}

# facebookresearch/classifier-balancing, config/ImageNet_LT, iNaturalist18 and Places_LT: cls_crt.yaml and cls_lws.yaml.
_DECOUPLED: Settings = {
    "retrain_lr": 0.2,
    "retrain_batch": 512,
    "retrain_weight_decay": 5e-4,
    "retrain_schedule": "cosine",
}
SECOND_STAGES: Mapping[str, Settings] = {
    "imagenet-lt": {**_DECOUPLED, "retrain_epochs": 10},
    "inaturalist2018": {**_DECOUPLED, "retrain_weight_decay": 1e-4, "retrain_epochs": 30},
    "places-lt": {**_DECOUPLED, "retrain_lr": 0.1, "retrain_batch": 256, "retrain_epochs": 10},
}
