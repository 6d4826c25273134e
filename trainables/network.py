"""A network: a trunk, a last layer, average pooling and a head; with one branch, or with two."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.layers import Linear
from trainables.parts import Backbone, Head


class Network(nn.Module):
    """A backbone under one head; `shape` is the features of a branch and the classes."""

    shape: tuple[int, int]

    def __init__(self, trunk: nn.Module, last: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.trunk, self.last, self.classifier = trunk, last, classifier

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) → logits (B, C)."""
        return self.classifier(pooled(self.last(self.trunk(x))))  # type: ignore[no-any-return]


class Bilateral(nn.Module):
    """BBN (Zhou et al., 2020): the last residual block is there twice, and one classifier sees both branches' features.

    z = W · 2 [α f_c; (1 - α) f_r] + b. On ResNet-32: 538,778 parameters for 10 classes, 550,388 for 100.
    """

    shape: tuple[int, int]

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
        exact = next(self.classifier.parameters()).dtype  # a GPU would round a weight that is a tensor to bf16
        features = 2 * alpha * pooled(self.last(conventional)).to(exact)
        reversed_ = 2 * rest * pooled(self.reversed(rebalancing)).to(exact)
        return self.classifier(torch.cat((features, reversed_), 1))  # type: ignore[no-any-return]


def pooled(features: Tensor) -> Tensor:
    """Features (B, d, h, w) → their means (B, d); features (B, d) stay."""
    return features.mean((2, 3)) if features.dim() == 4 else features


def build(backbone: Backbone, head: Head, channels: int, classes: int, rng: torch.Generator) -> Network | Bilateral:
    """A network with fresh weights, on the CPU.

    Args:
        backbone, head: what it is made of.
        channels: of the images.
        classes: C.
        rng: where the weights are drawn from.
    """
    with _drawing(rng):
        (*trunk, last), features = backbone.layers(channels)
        own, classifier = nn.Sequential(*trunk), head.build(features, classes)
        network: Network | Bilateral = Network(own, last, classifier)
        if head.branches == 2:
            (*_, reversed_), _ = backbone.layers(channels)
            network = Bilateral(own, last, reversed_, classifier)
    network.shape = features, classes
    initialise(network, rng, backbone)
    head.start(network.classifier, classes)
    return network


def redraw(network: Network | Bilateral, backbone: Backbone, head: Head, rng: torch.Generator) -> None:
    """Draw the weights of a network's classifier anew, in place."""
    with _drawing(rng):
        fresh = head.build(*network.shape)
    initialise(fresh, rng, backbone)
    network.classifier.load_state_dict(fresh.state_dict(), strict=False)  # it may have a scale, which stays


@contextmanager
def _drawing(rng: torch.Generator) -> Iterator[None]:
    """Within it, what layers draw by themselves is drawn from the origin, too."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed((rng.initial_seed() + 1) % 2**63)  # no sequence that `initialise` draws
        yield


def initialise(module: nn.Module, rng: torch.Generator, backbone: Backbone) -> None:
    """Draw the weights below `module`, part of a network of this backbone or all of it.

    Under ``initial = fan_in`` convolutions and linear maps are Kaiming-normal by their fan-in, as in LDAM's code.
    Under ``torchvision`` they are as there, and as with Kang et al. (2020): convolutions Kaiming-normal by their
    fan-out, linear maps uniform in ± 1/√fan_in. A linear bias is uniform in ± 1/√fan_in. A part with a method
    ``draw(rng)`` draws its own; others keep what their constructor gave them. They are drawn on the CPU, so that a GPU
    starts from the same weights.
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
    """Give the network's linear classifier a factor a class, 1 at first."""
    head = network.classifier
    assert isinstance(head, Linear)
    head.scale = nn.Parameter(torch.ones_like(head.bias))


def remove_scale(network: nn.Module) -> None:
    """Take it away again."""
    head = network.classifier
    assert isinstance(head, Linear)
    head.scale = None
