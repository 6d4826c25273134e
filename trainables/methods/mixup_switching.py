"""Mixup, then the paper's method."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.methods.mixup import Mixup
from trainables.methods.switching import switching


def mixup_switching(base: Config) -> Config:
    """Configure mixup (Zhang et al., 2018, as in Zhong et al., 2021) before the paper's switch, no mixup after it.

    a is 1 on small images and 0.2 on large images, as in the configurations of Zhong et al. Deviation: that of `Mixup`.
    """
    small = facts(base.dataset).natural is None
    return replace(switching(base), method="Mixup, then ours", mixture=Mixup(1.0 if small else 0.2))
