"""Post-hoc logit adjustment."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.methods.cross_entropy import cross_entropy


def post_hoc(base: Config) -> Config:
    """Configure post-hoc logit adjustment (Menon et al., 2021, eq. 9): cross-entropy and a read-out (`readouts`)."""
    return replace(cross_entropy(base), method="Post-hoc logit adjustment")
