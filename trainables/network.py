"""Networks of one or two branches: a trunk, a last layer, average pooling and a head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.layers import Linear
from trainables.parts import Backbone, Head


class Network(nn.Module):
    """A backbone with one head; `shape` is the number of features of a branch and the number of classes."""

    shape: tuple[int, int]

    def __init__(self, trunk: nn.Module, last: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.trunk, self.last, self.classifier = trunk, last, classifier

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) of normalised images (B, channels, H, W)."""
        return self.classifier(pooled(self.last(self.trunk(x))))  # type: ignore[no-any-return]


class Bilateral(nn.Module):
    """BBN (Zhou et al., 2020): two copies of the last residual block, one classifier on the features of both branches.

    z = W · 2 [α f_c; (1 - α) f_r] + b. On ResNet-32: 538,778 parameters for 10 classes, 550,388 for 100.
    """

    shape: tuple[int, int]

    def __init__(self, trunk: nn.Module, last: nn.Module, reversed_: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.trunk, self.last, self.reversed, self.classifier = trunk, last, reversed_, classifier

    def forward(
        self, x: Tensor, other: Tensor | None = None, weights: tuple[float | Tensor, float | Tensor] = (0.5, 0.5)
    ) -> Tensor:
        """Return logits (B, C) of normalised images; inference sends the same images through both branches, α = 0.5.

        Args:
            x: images for the conventional branch: (B, channels, H, W).
            other: images for the re-balancing branch, of the same shape; None for the same images.
            weights: α and 1 - α, the weights of the conventional and the re-balancing branch: numbers, or tensors ().
        """
        alpha, rest = weights
        if other is None:
            shared = self.trunk(x)
            conventional, rebalancing = shared, shared
        else:
            conventional, rebalancing = self.trunk(x), self.trunk(other)
        exact = next(self.classifier.parameters()).dtype  # a GPU would round a weight that is a tensor to bf16
        features = 2 * alpha * pooled(self.last(conventional)).to(exact)
        reversed_ = 2 * rest * pooled(self.reversed(rebalancing)).to(exact)
        return self.classifier(torch.cat((features, reversed_), 1))  # type: ignore[no-any-return]


def pooled(features: Tensor) -> Tensor:
    """Return the means (B, d) of features (B, d, h, w); features (B, d) stay the same."""
    return features.mean((2, 3)) if features.dim() == 4 else features


def build(backbone: Backbone, head: Head, channels: int, classes: int, rng: torch.Generator) -> Network | Bilateral:
    """Return a network with fresh weights, on the CPU.

    Args:
        backbone, head: the parts of the network.
        channels: the channels of the images.
        classes: C.
        rng: the random stream of the weights.
    """
    with _drawing(rng):
        (*trunk, last), features = backbone.layers(channels)
        trunk_module, classifier = nn.Sequential(*trunk), head.build(features, classes)
        network: Network | Bilateral = Network(trunk_module, last, classifier)
        if head.branches == 2:
            (*_, reversed_), _ = backbone.layers(channels)
            network = Bilateral(trunk_module, last, reversed_, classifier)
    network.shape = features, classes
    initialise(network, rng, backbone)
    head.start(network.classifier, classes)
    return network


def redraw(network: Network | Bilateral, backbone: Backbone, head: Head, rng: torch.Generator) -> None:
    """Draw new weights of a network's classifier, in place."""
    with _drawing(rng):
        fresh = head.build(*network.shape)
    initialise(fresh, rng, backbone)
    network.classifier.load_state_dict(fresh.state_dict(), strict=False)  # a scale of the network stays


@contextmanager
def _drawing(rng: torch.Generator) -> Iterator[None]:
    """Run the body so that layers' own random numbers depend on the origin, too."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            (rng.initial_seed() + 1) % 2**63
        )  # another sequence than that of `initialise`
        yield


def initialise(module: nn.Module, rng: torch.Generator, backbone: Backbone) -> None:
    """Draw the weights of `module`, a network with this backbone or a part of it.

    With ``initial = fan_in``, convolutions and linear maps are Kaiming-normal by their fan-in, as in LDAM's code. With
    ``torchvision``, they are as in torchvision and Kang et al. (2020): convolutions Kaiming-normal by their fan-out,
    linear maps uniform in ± 1/√fan_in. A linear bias is uniform in ± 1/√fan_in. A part with a method ``draw(rng)``
    draws its weights itself; other parts keep the values of their constructor. Weights are drawn on the CPU, so that a
    GPU starts from the same weights.
    """
    large = backbone.initial == "torchvision"
    for part in module.modules():
        if hasattr(part, "draw"):
            part.draw(rng)  # type: ignore[operator]
        elif isinstance(part, (nn.Conv2d, nn.Linear)):
            weight = torch.empty(part.weight.shape)
            bound = 1 / math.sqrt(weight[0].numel())
            if large and isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=rng)
            elif large:
                nn.init.uniform_(weight, -bound, bound, generator=rng)
            else:
                nn.init.kaiming_normal_(weight, generator=rng)
            part.weight.data.copy_(weight)
            if part.bias is not None:
                part.bias.data.copy_(nn.init.uniform_(torch.empty(part.bias.shape), -bound, bound, generator=rng))


def add_scale(network: nn.Module) -> None:
    """Add a factor per class, initially 1, to the network's linear classifier."""
    head = network.classifier
    assert isinstance(head, Linear)
    head.scale = nn.Parameter(torch.ones_like(head.bias))


def remove_scale(network: nn.Module) -> None:
    """Remove the factor per class from the network's linear classifier."""
    head = network.classifier
    assert isinstance(head, Linear)
    head.scale = None
