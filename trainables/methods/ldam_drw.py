"""LDAM with deferred re-weighting."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.losses.ldam import LDAM
from trainables.method import sourced
from trainables.methods.ce_drw import ce_drw
from trainables.sources import LDAM_DRW


@sourced(cifar=LDAM_DRW)
def ldam_drw(base: Config) -> Config:
    """Configure LDAM with deferred re-weighting (Cao et al., 2019): cosine classifier, s = 30, margins ∝ n_j^(-1/4).

    Deviation: deferred until m + S instead of epoch 160.
    """
    largest = 0.3 if base.dataset == "inaturalist2018" else 0.5
    return replace(ce_drw(base), method="LDAM-DRW", loss=LDAM(max_margin=largest))
