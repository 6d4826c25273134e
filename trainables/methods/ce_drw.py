"""Deferred re-weighting."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.method import sourced
from trainables.methods.cross_entropy import cross_entropy
from trainables.sources import LDAM_DRW


@sourced(cifar=LDAM_DRW)
def ce_drw(base: Config) -> Config:
    """Configure deferred re-weighting (Cao et al., 2019): unit weights, then effective-number weights, β = 0.9999.

    Deviation: deferred until m + S, the switch of the paper's method, instead of epoch 160.
    """
    return replace(cross_entropy(base), method="CE-DRW", switch_beta=0.9999)
