"""Cross-entropy."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.losses.cross_entropy import CrossEntropy
from trainables.method import sourced
from trainables.sources import LDAM_DRW


@sourced(cifar=LDAM_DRW)
def cross_entropy(base: Config) -> Config:
    """Configure cross-entropy under instance-balanced sampling throughout: the paper's baseline."""
    return replace(base, method="Cross Entropy", first="IB", switch="IB", loss=CrossEntropy())
