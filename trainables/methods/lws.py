"""Learnable weight scaling."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.method import sourced
from trainables.methods.crt import crt
from trainables.sources import SECOND_STAGES, TWO_STAGES

_FIVE_EPOCHS = {dataset: {**settings, "retrain_epochs": 5} for dataset, settings in SECOND_STAGES.items()}


@sourced(cifar=TWO_STAGES, second_stages=_FIVE_EPOCHS)
def lws(base: Config) -> Config:
    """Configure learnable weight scaling (Kang et al., 2020): a factor per class on a fixed classifier's logits.

    The factors are initially 1. Deviations: those of cRT; the authors' code trains 5 epochs.
    """
    return replace(crt(base), method="Decouple-LWS", retrains="scale")
