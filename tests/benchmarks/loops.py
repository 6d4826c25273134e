"""An epoch of training, ours and eager as the public long-tailed trainers write it, for `epoch.py` and `step.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from loader import EPOCH
from torch import Tensor, nn

from study.space import Machine
from trainables.config import Config
from trainables.datasets import facts
from trainables.loop import Learner, train_epoch
from trainables.networks import build
from trainables.recipe import origin

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def network(config: Config) -> nn.Module:
    """Ours with fresh weights, before it is laid out for anything."""
    known = facts(config.dataset)
    return build(config.backbone, "linear", known.channels, known.classes, torch.Generator().manual_seed(0))


def eager_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]], bf16: bool,
    memory_format: torch.memory_format = torch.contiguous_format, device: str = "cpu",
) -> tuple[float, float]:  # fmt: skip
    """An epoch as the public trainers write it; returns the mean loss and the accuracy in percent."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    total_loss, correct, seen = 0.0, 0.0, 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if memory_format is torch.channels_last:
            images = images.to(memory_format=memory_format)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            output = model(images)
            loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(labels)
        correct += (output.argmax(1) == labels).sum().item()
        seen += len(labels)
    return total_loss / seen, 100 * correct / seen


def eager(
    config: Config, batches: Iterable[tuple[Tensor, Tensor]], bf16: bool, layout: str = "contiguous",
    device: str = "cpu",
) -> Callable[[], object]:  # fmt: skip
    """Each call is an epoch of the same network."""
    model = network(config).to(device, memory_format=FORMATS[layout])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    return lambda: eager_epoch(model, optimizer, batches, bf16, FORMATS[layout], device)


def ours(config: Config, data: Any, machine: Machine) -> Callable[[], object]:
    """Each call is an epoch of the same network; lr 0.1, so that weights stay numbers on random images."""
    learner = Learner(origin(config, machine))
    known = facts(config.dataset)
    instruction = replace(EPOCH, crop=known.crop, flip=known.flip)
    return lambda: train_epoch(learner, data, instruction, 0)
