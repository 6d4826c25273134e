"""Balanced softmax."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.methods.logit_adjusted import logit_adjusted


def balanced_softmax(base: Config) -> Config:
    """Configure balanced softmax (Ren et al., 2020): cross-entropy of z + log n, logit adjustment with τ = 1."""
    return replace(logit_adjusted(base), method="Balanced softmax")
