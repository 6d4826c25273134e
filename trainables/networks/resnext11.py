"""A small network of grouped bottlenecks for digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parts import Backbone

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ResNeXt11(Backbone):
    """Eleven layers for small images: three grouped bottlenecks of torchvision with four groups."""

    def layers(self, channels: int) -> tuple[list[nn.Module], int]:
        """See `Backbone.layers`."""
        from torch import nn
        from torchvision.models.resnet import Bottleneck

        from trainables.layers import BatchNorm, stem

        layers, last = stem(channels, 16), 16
        for width, stride in ((8, 1), (16, 2), (32, 2)):
            out = width * Bottleneck.expansion
            shortcut = nn.Sequential(nn.Conv2d(last, out, 1, stride, bias=False), BatchNorm(out))
            layers.append(Bottleneck(last, width, stride, shortcut, groups=4, base_width=32, norm_layer=BatchNorm))
            last = out
        return layers, last
