"""Focal loss."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.losses.focal import Focal
from trainables.method import sourced
from trainables.methods.cross_entropy import cross_entropy
from trainables.sources import LDAM_DRW


@sourced(cifar=LDAM_DRW)
def focal(base: Config) -> Config:
    """Configure focal loss (Lin et al., 2017): softmax form with γ = 1, as in LDAM's code on CIFAR."""
    return replace(cross_entropy(base), method="Focal", loss=Focal())
