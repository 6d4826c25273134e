"""Label-aware smoothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.methods.ce_drs import ce_drs

# ε of the largest and of the smallest class in MiSLAS's configurations, by data set and, on CIFAR, by IF.
_SMOOTHING: Mapping[str, Mapping[float, tuple[float, float]]] = {
    "cifar10": {100.0: (0.3, 0.0), 50.0: (0.2, 0.0), 10.0: (0.1, 0.0)},
    "cifar100": {100.0: (0.4, 0.1), 50.0: (0.3, 0.0), 10.0: (0.2, 0.0)},
    "imagenet-lt": {1.0: (0.3, 0.0)},
    "inaturalist2018": {1.0: (0.3, 0.0)},
    "places-lt": {1.0: (0.4, 0.1)},
}


def label_aware_smoothing(base: Config, share: str = "others") -> Config:
    """Configure label-aware smoothing (Zhong et al., 2021) with a class-balanced switch.

    ε is taken from the authors' configurations: by data set, and on CIFAR for the nearest of their imbalance factors
    (by ratio). Other data that are made long-tailed use the values of CIFAR-10, other data those of ImageNet-LT.
    `share` selects the classes that share ε: by default all except the label, as in eq. 4; in the authors' code all.

    Deviation: the authors smooth in a second stage with fixed features; here the loss is the same from the first epoch
    on, and the whole network is trained.
    """
    fallback = "cifar10" if facts(base.dataset).natural is None else "imagenet-lt"
    by_imbalance = _SMOOTHING.get(base.dataset, _SMOOTHING[fallback])
    nearest = min(by_imbalance, key=lambda imbalance: abs(math.log(imbalance / base.imbalance)))
    loss = LabelAwareSmoothing(*by_imbalance[nearest], share)
    return replace(ce_drs(base), method="Label-aware smoothing", loss=loss)
