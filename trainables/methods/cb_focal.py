"""Class-balanced focal loss."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.method import Settings, sourced
from trainables.methods.focal import focal
from trainables.sources import LDAM_DRW

# richardaecn/class-balanced-loss, tpu/run_inat2018.sh and resnet_main.py: lr 0.4 for 256 images, so 1.6 for 1024.
_INATURALIST: Settings = {
    "loss": SigmoidFocal(gamma=0.5),
    "beta": 0.999,
    "epochs": 90,
    "milestones": (30, 60, 80),
    "gamma": 0.1,
    "warmup": 5,
    "batch_size": 1024,
    "lr": 1.6,
    "weight_decay": 1e-4,
    "nesterov": True,
    "drop_last": True,
}


@sourced(cifar={**LDAM_DRW, "loss": SigmoidFocal()}, large=_INATURALIST)
def cb_focal(base: Config) -> Config:
    """Configure class-balanced focal loss (Cui et al., 2019): effective-number weights in all epochs, β = 0.9999.

    Deviation: softmax form, as in LDAM's code, but the weight is only a factor of the loss; that code has it in the
    focal factor, too. The `source` recipe is the authors' sigmoid form.
    """
    return replace(focal(base), method="CB-Focal", beta=0.9999)
