"""torchvision's ResNet-50."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.parts import Backbone

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ResNet50(Backbone):
    """ResNet-50 of torchvision, for images of about 224 pixels; its weights are drawn as in torchvision."""

    initial: ClassVar[str] = "torchvision"

    def layers(self, channels: int) -> tuple[list[nn.Module], int]:  # noqa: ARG002
        """See `Backbone.layers`."""
        from trainables.layers import torchvision

        return torchvision("resnet50")
