"""A small residual network for digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parts import Backbone

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ResNet8(Backbone):
    """Eight layers for small images: the CIFAR ResNet with one block in each stage, at widths 8, 16 and 32."""

    def layers(self, channels: int) -> tuple[list[nn.Module], int]:
        """See `Backbone.layers`."""
        from trainables.layers import cifar

        return cifar(1, 8, channels)
