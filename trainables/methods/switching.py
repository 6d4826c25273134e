"""The paper's method."""

from __future__ import annotations

from dataclasses import replace

from trainables.config import Config
from trainables.exponents import Sampler
from trainables.method import sourced


@sourced(paper=True)
def switching(base: Config) -> Config:
    """Configure the paper's method (Algorithm 1): instance-balanced, then class-reversed sampling from m + S on."""
    return replace(base, method=f"Ours (S = {base.S})", first="IB", switch="CR")


def weighted_switching(base: Config, weights: Sampler, name: str) -> Config:
    """Configure switching to given class probabilities, such as irregularities (Table 10): p_j = I_j / Σ I."""
    return replace(base, method=f"switching by {name}", first="IB", switch=weights)
