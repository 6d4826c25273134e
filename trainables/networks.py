"""The CIFAR ResNet of He et al. (2016), as the paper and its predecessors use it: post-activation, shortcut A."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

# depth = 6 blocks + 2; width of the first of three stages
SHAPES = {"resnet8": (1, 8), "resnet32": (5, 16)}


class Block(nn.Module):
    """Two 3×3 convolutions and shortcut A: where the shape changes, subsample by 2 and pad channels with zeros."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.pad = stride, (width - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + x)


class ResNet(nn.Module):
    """Three stages of `blocks` blocks at widths w, 2w and 4w, global average pooling, a linear classifier with bias.

    With 5 blocks of width 16 and 3 input channels: ResNet-32, 464,154 parameters for 10 classes, 470,004 for 100.
    """

    def __init__(self, blocks: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        last = width
        for stage in range(3):
            for block in range(blocks):
                stages.append(Block(last, width << stage, 2 if stage and not block else 1))
                last = width << stage
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) → logits (B, C)."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return]


def initialise(module: nn.Module, rng: torch.Generator) -> None:
    """Draw the weights below `module` as LDAM does: Kaiming-normal; a linear bias uniform in ± 1/√fan_in.

    They are drawn on the CPU, so that a GPU starts from the same weights.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            weight = torch.empty(part.weight.shape)
            part.weight.data.copy_(nn.init.kaiming_normal_(weight, generator=rng))
            if part.bias is not None:
                bound = 1 / math.sqrt(weight[0].numel())
                part.bias.data.copy_(nn.init.uniform_(torch.empty(part.bias.shape), -bound, bound, generator=rng))


def build(backbone: str, channels: int, classes: int, rng: torch.Generator) -> ResNet:
    """A backbone of `SHAPES` with fresh weights, on the CPU."""
    blocks, width = SHAPES[backbone]
    network = ResNet(blocks, width, channels, classes)
    initialise(network, rng)
    return network
