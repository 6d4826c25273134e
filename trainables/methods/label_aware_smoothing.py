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
    """Label-aware smoothing (Zhong et al., 2021), with a class-balanced switch.

    ε is that of its authors' configurations: for the data set, and on CIFAR for the nearest of their imbalance factors
    (by ratio). Data that are made long-tailed have CIFAR-10's, others ImageNet-LT's. `share` says which classes get it:
    by default all but the label, as in eq. 4; in the authors' code all.

    Deviation: its authors smooth in a second stage with fixed features; here the loss is the same from the first epoch
    on, and the whole network is trained on.
    """
    other = "cifar10" if facts(base.dataset).natural is None else "imagenet-lt"
    by_imbalance = _SMOOTHING.get(base.dataset, _SMOOTHING[other])
    nearest = min(by_imbalance, key=lambda imbalance: abs(math.log(imbalance / base.imbalance)))
    loss = LabelAwareSmoothing(*by_imbalance[nearest], share)
    return replace(ce_drs(base), method="Label-aware smoothing", loss=loss)
