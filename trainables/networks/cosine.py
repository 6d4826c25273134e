"""A cosine classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parameters import number
from trainables.parts import Head

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Cosine(Head):
    """A cosine classifier without bias: ``s · cos(w_j, x)`` (Cao et al., 2019)."""

    scale: float = number(30.0, "s, the factor on the cosines", least=0.0)

    def build(self, features: int, classes: int) -> nn.Module:
        """See `Head.build`."""
        from trainables import layers

        return layers.Cosine(features, classes, self.scale)
