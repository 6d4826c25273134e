"""The CIFAR ResNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parameters import whole
from trainables.parts import Backbone

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ResNet32(Backbone):
    """The CIFAR ResNet of He et al. (2016), which the paper uses on CIFAR.

    With a linear head it has 464,154 parameters for 10 classes, 470,004 for 100.
    """

    blocks: int = whole(5, "residual blocks in each of the three stages", least=1)
    width: int = whole(16, "channels of the first stage; the others have twice and four times as many", least=2)

    def layers(self, channels: int) -> tuple[list[nn.Module], int]:
        """See `Backbone.layers`."""
        from trainables.layers import cifar

        return cifar(self.blocks, self.width, channels)
