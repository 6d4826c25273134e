"""Classifier re-training."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.method import sourced
from trainables.methods.cross_entropy import cross_entropy
from trainables.sources import SECOND_STAGES, TWO_STAGES


@sourced(cifar=TWO_STAGES, second_stages=SECOND_STAGES)
def crt(base: Config) -> Config:
    """Configure classifier re-training (Kang et al., 2020): a new classifier on fixed features, sampler CB.

    Deviations: class-balanced sampling draws classes independently, the authors cycle through them; 30 epochs in steps
    from lr 0.1 with weight decay 5e-4 (Zhang et al., 2021, on CIFAR), not 10 on a cosine from 0.2 with batch size 512.
    """
    return replace(cross_entropy(base), method="Decouple-cRT", retrain="CB")
