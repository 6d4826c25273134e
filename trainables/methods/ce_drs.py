"""Deferred re-sampling."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.losses.cross_entropy import CrossEntropy
from trainables.method import sourced
from trainables.sources import BAG_OF_TRICKS


@sourced(cifar={**BAG_OF_TRICKS, "switch_epoch": 160})
def ce_drs(base: Config) -> Config:
    """Configure deferred re-sampling (Cao et al., 2019): instance-balanced, from m + S on class-balanced sampling."""
    return replace(base, method="CE-DRS", first="IB", switch="CB", loss=CrossEntropy())
