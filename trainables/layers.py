"""Layers of networks: batch norm, the CIFAR ResNet's block and stages, classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """Batch norm whose counter of batches is updated once per epoch (`Learner.count_batches`), not in every step.

    The counter has the same value at the end of an epoch, and no result depends on it. On a GPU, an update per step
    would cost a kernel per layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features, (B, width, H, W) → the same shape."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


class Block(nn.Module):
    """Two 3×3 convolutions and shortcut A, which subsamples by 2 and zero-pads channels where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(width)
        self.stride, missing_channels = stride, width - channels
        self.pad = (missing_channels // 2, missing_channels - missing_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, (B, channels, H, W) → (B, width, H / stride, W / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.pad))
        return F.relu(out + x)


class Linear(nn.Linear):
    """A linear classifier; with `scale`, (C,), each class's logit has a factor (LWS, Kang et al., 2020).

    The scale becomes a parameter when an instruction asks for it.
    """

    scale: nn.Parameter | None

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_parameter("scale", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (B, d) → (B, C)."""
        logits = super().forward(x)
        return logits if self.scale is None else logits * self.scale


class Cosine(nn.Module):
    """A cosine classifier without bias: s · cos(w_j, x) (Cao et al., 2019)."""

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(classes, features))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (B, d) → (B, C)."""
        return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))

    def draw(self, rng: torch.Generator) -> None:
        """Draw weights of length 1 in random directions."""
        weight = nn.init.kaiming_normal_(torch.empty(self.weight.shape), generator=rng)
        self.weight.data.copy_(F.normalize(weight))


def stem(channels: int, width: int) -> list[nn.Module]:
    """Return a 3×3 convolution, batch norm and ReLU."""
    return [nn.Conv2d(channels, width, 3, 1, 1, bias=False), BatchNorm(width), nn.ReLU()]


def cifar(blocks: int, width: int, channels: int) -> tuple[list[nn.Module], int]:
    """Return the CIFAR ResNet of He et al. (2016): three stages of blocks at widths w, 2w and 4w, shortcut A."""
    layers, last = stem(channels, width), width
    for stage in range(3):
        for block in range(blocks):
            layers.append(Block(last, width << stage, 2 if stage and not block else 1))
            last = width << stage
    return layers, last


def torchvision(name: str) -> tuple[list[nn.Module], int]:
    """Return a residual network of torchvision, for images of about 224 pixels."""
    from torchvision.models import resnet

    network = getattr(resnet, name)(weights=None, norm_layer=BatchNorm)
    layers = [network.conv1, network.bn1, network.relu, network.maxpool, network.layer1, network.layer2, network.layer3]
    return [*layers, *network.layer4], network.fc.in_features
