"""The network of a state with its normalisation inside, for export and for use from Python."""

from __future__ import annotations

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.network import build


class Classifier(nn.Module):
    """Normalisation and network in one: pixels from 0 to 1, (B, channels, side, side), to logits (B, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of images."""
        return self.network((pixels - self.mean) / self.std)  # type: ignore[no-any-return]


def classifier(config: Config, payload: bytes) -> Classifier:
    """Return the network of a state's payload, on the CPU, in evaluation mode."""
    dataset = facts(config.dataset)
    network = build(config.backbone, config.head, dataset.channels, dataset.classes, torch.Generator())
    weights = {k.removeprefix("network."): v for k, v in load_tensors(payload).items() if k.startswith("network.")}
    scale = weights.pop("classifier.scale", None) if config.head.linear else None
    if scale is not None:  # a factor per class on the logits, folded into the linear map
        weights["classifier.weight"] = weights["classifier.weight"] * scale[:, None]
        weights["classifier.bias"] = weights["classifier.bias"] * scale
    network.load_state_dict(weights)
    return Classifier(network, dataset.mean, dataset.std).eval()
