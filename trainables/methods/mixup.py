"""Mixup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainables.parameters import number
from trainables.parts import Mixture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from trainables.parts import Batch, Targets


@dataclass(frozen=True)
class Mixup(Mixture):
    """Mixup (Zhang et al., 2018): a step mixes λ of a batch with 1 - λ of the reversed batch, λ from Beta(a, a).

    Deviation: a batch is mixed with its reverse, not with a permutation, since it is in random order already.
    """

    a: float = number(1.0, "a of Beta(a, a), the distribution of a step's share", above=0.0)

    def shares(self, steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """See `Mixture.shares`."""
        return rng.beta(self.a, self.a, size=steps)

    @property
    def step(self) -> Mixup:
        """See `Mixture.step`."""
        return replace(self, a=1.0)

    def mix(self, batches: Sequence[Batch], share: Tensor, rest: Tensor) -> tuple[tuple[Any, ...], Targets]:
        """See `Mixture.mix`."""
        ((images, labels),) = batches
        return (share * images + rest * images.flip(0),), [(share, labels), (rest, labels.flip(0))]
