"""Backbones and their heads: the CIFAR ResNet, torchvision's ResNet-50 and ResNeXt-50, and BBN's two branches on each.

A backbone is a trunk, a last residual block, and global average pooling; a head turns features (B, d) into logits
(B, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SCALE = 30.0  # s of a cosine classifier's logits (Cao et al., 2019)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm whose counter of batches is added to once an epoch (`Learner.count_batches`), not in every step.

    It has the same value then; nothing is computed from it. On a GPU it would be a kernel a layer and step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) → the same."""
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
    """Two 3×3 convolutions and shortcut A: where the shape changes, subsample by 2 and pad channels with zeros."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(width)
        self.stride, self.pad = stride, (width - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + x)


class Linear(nn.Linear):
    """A linear classifier; with `scale`, (C,), each class's logit has a factor of its own (LWS, Kang et al., 2020).

    The scale is no parameter before an instruction asks for it.
    """

    scale: nn.Parameter | None

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.register_parameter("scale", None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) → (B, C)."""
        logits = super().forward(x)
        return logits if self.scale is None else logits * self.scale


class Cosine(nn.Module):
    """A cosine classifier without bias: s · cos(w_j, x), s = 30 (Cao et al., 2019)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) → (B, C)."""
        return SCALE * F.linear(F.normalize(x), F.normalize(self.weight))


class Network(nn.Module):
    """A backbone under one head."""

    def __init__(self, trunk: nn.Module, last: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.trunk, self.last, self.classifier = trunk, last, classifier

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) → logits (B, C)."""
        return self.classifier(self.last(self.trunk(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Bilateral(nn.Module):
    """BBN (Zhou et al., 2020): the last residual block is there twice, and one classifier sees both branches' features.

    z = W · 2 [α f_c; (1 - α) f_r] + b. On ResNet-32: 538,778 parameters for 10 classes, 550,388 for 100.
    """

    def __init__(self, trunk: nn.Module, last: nn.Module, reversed_: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.trunk, self.last, self.reversed, self.classifier = trunk, last, reversed_, classifier

    def forward(
        self, x: Tensor, other: Tensor | None = None, weights: tuple[float | Tensor, float | Tensor] = (0.5, 0.5)
    ) -> Tensor:
        """Normalised images to logits (B, C); inference sends the same images through both branches, α = 0.5.

        Args:
            x: for the conventional branch: (B, channels, H, W).
            other: for the re-balancing branch, of the same shape; None for the same images.
            weights: of the conventional and of the re-balancing branch, α and 1 - α: numbers, or tensors ().
        """
        alpha, rest = weights
        if other is None:
            both = self.trunk(x)
            conventional, rebalancing = both, both
        else:
            conventional, rebalancing = self.trunk(x), self.trunk(other)
        exact = self.classifier.weight.dtype  # a GPU would round a weight that is a tensor to bf16
        features = 2 * alpha * self.last(conventional).mean((2, 3)).to(exact)
        reversed_ = 2 * rest * self.reversed(rebalancing).mean((2, 3)).to(exact)
        return self.classifier(torch.cat((features, reversed_), 1))  # type: ignore[no-any-return]


def _stem(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, 1, 1, bias=False), BatchNorm(width), nn.ReLU()]


def _cifar(blocks: int, width: int, channels: int) -> tuple[list[nn.Module], int]:
    """The CIFAR ResNet of He et al. (2016): three stages of so many blocks at widths w, 2w and 4w, shortcut A."""
    layers, last = _stem(channels, width), width
    for stage in range(3):
        for block in range(blocks):
            layers.append(Block(last, width << stage, 2 if stage and not block else 1))
            last = width << stage
    return layers, last


def _small_resnext(channels: int) -> tuple[list[nn.Module], int]:
    """Eleven layers for small images: three grouped bottlenecks of torchvision's, four groups."""
    from torchvision.models.resnet import Bottleneck

    layers, last = _stem(channels, 16), 16
    for width, stride in ((8, 1), (16, 2), (32, 2)):
        out = width * Bottleneck.expansion
        shortcut = nn.Sequential(nn.Conv2d(last, out, 1, stride, bias=False), BatchNorm(out))
        layers.append(Bottleneck(last, width, stride, shortcut, groups=4, base_width=32, norm_layer=BatchNorm))
        last = out
    return layers, last


def _torchvision(name: str) -> tuple[list[nn.Module], int]:
    """A residual network of torchvision's, for images of about 224 pixels."""
    from torchvision.models import resnet

    whole = getattr(resnet, name)(weights=None, norm_layer=BatchNorm)
    layers = [whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2, whole.layer3]
    return [*layers, *whole.layer4], whole.fc.in_features


# Each returns the layers before pooling, of which the last is a residual block, and the number of features.
_BACKBONES: dict[str, Callable[[int], tuple[list[nn.Module], int]]] = {
    "resnet8": lambda channels: _cifar(1, 8, channels),
    "resnext11": _small_resnext,
    "resnet32": lambda channels: _cifar(5, 16, channels),
    "resnet50": lambda _channels: _torchvision("resnet50"),
    "resnext50": lambda _channels: _torchvision("resnext50_32x4d"),
}


LARGE = ("resnet50", "resnext50")  # whose weights are drawn as in torchvision


def initialise(module: nn.Module, rng: torch.Generator, backbone: str) -> None:
    """Draw the weights below `module`, part of a network of this backbone or all of it.

    Convolutions and linear maps of small networks are Kaiming-normal by their fan-in, as in LDAM's code. Those of
    ResNet-50 and ResNeXt-50 are torchvision's, and those of Kang et al. (2020): convolutions Kaiming-normal by their
    fan-out, linear maps uniform in ± 1/√fan_in. A linear bias is uniform in ± 1/√fan_in; the weights of a cosine
    classifier have length 1. They are drawn on the CPU, so that a GPU starts from the same weights.
    """
    large = backbone in LARGE
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear, Cosine)):
            weight = torch.empty(part.weight.shape)
            bound = 1 / math.sqrt(weight[0].numel())
            if large and isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=rng)
            elif large and isinstance(part, nn.Linear):
                nn.init.uniform_(weight, -bound, bound, generator=rng)
            else:
                nn.init.kaiming_normal_(weight, generator=rng)
            part.weight.data.copy_(F.normalize(weight) if isinstance(part, Cosine) else weight)
            bias = getattr(part, "bias", None)
            if bias is not None:
                bias.data.copy_(nn.init.uniform_(torch.empty(bias.shape), -bound, bound, generator=rng))


def build(backbone: str, head: str, channels: int, classes: int, rng: torch.Generator) -> Network | Bilateral:
    """A network with fresh weights, on the CPU.

    Args:
        backbone: resnet8, resnext11, resnet32 (464,154 parameters for 10 classes, 470,004 for 100, under a linear
            head), resnet50 or resnext50.
        head: linear; cosine; rare, a linear one whose bias says that each class is rare, -log(C - 1) (Cui et al.,
            2019); or bilateral, BBN's.
        channels: of the images.
        classes: C.
        rng: where the weights are drawn from.
    """
    (*trunk, last), width = _BACKBONES[backbone](channels)
    network: Network | Bilateral
    if head == "bilateral":
        (*_, reversed_), _ = _BACKBONES[backbone](channels)
        network = Bilateral(nn.Sequential(*trunk), last, reversed_, Linear(2 * width, classes))
    else:
        network = Network(nn.Sequential(*trunk), last, (Cosine if head == "cosine" else Linear)(width, classes))
    initialise(network, rng, backbone)
    if head == "rare":
        network.classifier.bias.data.fill_(-math.log(classes - 1))  # type: ignore[operator]
    return network


def add_scale(network: nn.Module) -> None:
    """Give the network's linear classifier a factor a class, 1 at first."""
    head = network.classifier
    assert isinstance(head, Linear)
    head.scale = nn.Parameter(torch.ones_like(head.bias))


def remove_scale(network: nn.Module) -> None:
    """Take it away again."""
    head = network.classifier
    assert isinstance(head, Linear)
    head.scale = None
