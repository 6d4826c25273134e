"""The τ-normalised classifier."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.methods.cross_entropy import cross_entropy


def tau_normalised(base: Config) -> Config:
    """Configure the τ-normalised classifier (Kang et al., 2020): cross-entropy and a read-out (`readouts`)."""
    return replace(cross_entropy(base), method="τ-normalised")
