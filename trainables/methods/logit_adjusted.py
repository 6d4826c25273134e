"""The logit-adjusted loss."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.methods.cross_entropy import cross_entropy


def logit_adjusted(base: Config, tau: float = 1.0) -> Config:
    """Configure the logit-adjusted loss (Menon et al., 2021, eq. 10): cross-entropy of z + τ log π."""
    method = f"Logit adjustment (τ = {tau:g})"
    return replace(cross_entropy(base), method=method, loss=LogitAdjusted(tau=tau))
