"""One epoch of ResNet-32 at CIFAR's size, and one step: ours against an eager loop as the public trainers write it.

    python tests/benchmarks/epoch.py [--repeats 3] [--images 3200] [--steps 12] [--out JSON]

``epoch``: random images in the proportions of CIFAR-10-LT, IF 50 (`--images 13996` is its whole size), instance-
balanced, batch 64. The peer: DataLoader (in process) with PIL, torch.optim.SGD, loss and accuracy by ``.item()`` every
batch, contiguous tensors; in fp32, as users write it, and in bf16 autocast. Ours: `loop.train_epoch` with the data on
the device. Same network, images, augmentation, loss and optimiser; one thread each; neither evaluates.

``steps``: the training step alone, on batches that are ready: ours, at the precision that `--precision auto` chooses
here, against the peer's in {fp32, bf16} × {contiguous, channels_last}; ResNet-32 on CIFAR's size and the eight-layer
network on digits', batch 64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from loader import EPOCH, long_tailed
from measuring import alternate, arguments, ratio, seconds, spread, write
from torch import Tensor, nn
from torch.utils.data import DataLoader

from study.home import has_bf16
from study.space import Machine
from trainables.config import Config, base
from trainables.datasets import facts
from trainables.loop import Learner, train_epoch
from trainables.networks import build
from trainables.recipe import origin, precision
from trainables.samplers import Purpose, generator

MACHINE = Machine("cpu", 1, bf16=has_bf16())
CIFAR = Config()
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def network(config: Config) -> nn.Module:
    """The peer's network: ours with fresh weights, before it is laid out for anything."""
    known = facts(config.dataset)
    return build(config.backbone, "linear", known.channels, known.classes, torch.Generator().manual_seed(0))


def eager_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]], bf16: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> tuple[float, float]:  # fmt: skip
    """An epoch as the public trainers write it; returns the mean loss and the accuracy in percent."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    total_loss, correct, seen = 0.0, 0.0, 0
    for images, labels in batches:
        if memory_format is torch.channels_last:
            images = images.to(memory_format=memory_format)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
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
    config: Config, batches: Iterable[tuple[Tensor, Tensor]], bf16: bool, layout: str = "contiguous"
) -> Callable[[], object]:
    """The peer: each call is an epoch of the same network."""
    model = network(config).to(memory_format=FORMATS[layout])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    return lambda: eager_epoch(model, optimizer, batches, bf16, FORMATS[layout])


def ours(config: Config, data: Any) -> Callable[[], object]:
    """Ours: each call is an epoch of the same network; lr 0.1, so that weights stay numbers on random images."""
    learner = Learner(origin(config, MACHINE))
    known = facts(config.dataset)
    instruction = replace(EPOCH, crop=known.crop, flip=known.flip)
    return lambda: train_epoch(learner, data, instruction, 0)


class Ready:
    """Batches that are there already, in place of `data.Data`."""

    def __init__(self, config: Config, steps: int) -> None:
        known = facts(config.dataset)
        rng = torch.Generator().manual_seed(0)
        self.counts = np.full(known.classes, steps * EPOCH.batch_size // known.classes + 1)
        shape = (EPOCH.batch_size, known.channels, known.side, known.side)
        self.made = [
            (torch.randn(shape, generator=rng), torch.randint(known.classes, shape[:1], generator=rng))
            for _ in range(steps)
        ]

    def batches(self, *_: object) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.made)


def epochs(images: int, repeats: int) -> dict[str, Any]:
    """Seconds an epoch, ours and the peer's, by precision."""
    data, pictures = long_tailed(images)
    loader = DataLoader(pictures, EPOCH.batch_size, shuffle=True)
    sides = {
        **{f"eager {kind}": eager(CIFAR, loader, kind == "bf16") for kind in ("fp32", "bf16")},
        **{f"ours {kind}": ours(replace(CIFAR, precision=kind), data) for kind in ("fp32", "bf16")},
    }
    first, _ = long_tailed(2 * EPOCH.batch_size)
    few = [(each, label) for each, label in first.batches(np.arange(64), EPOCH, generator(0, 0, Purpose.AUGMENTATION))]
    for kind in ("fp32", "bf16"):  # the first step of a kind makes what the others use again
        eager(CIFAR, few, kind == "bf16")()
        ours(replace(CIFAR, precision=kind), first)()
    found = measured(sides, repeats)
    default = precision(CIFAR, MACHINE)
    return {
        "images": len(pictures), "default_precision": default,
        "seconds": {side: spread(values) for side, values in found.items()},
        "ratios": {
            **{f"{kind} / {kind}": ratio(found[f"eager {kind}"], found[f"ours {kind}"]) for kind in ("fp32", "bf16")},
            "eager fp32 / ours default": ratio(found["eager fp32"], found[f"ours {default}"]),
        },
    }  # fmt: skip


def steps(config: Config, count: int, repeats: int) -> dict[str, Any]:
    """Milliseconds a step, ours by default and the peer's four ways."""
    ready = Ready(config, count)
    sides = {
        f"eager {kind} {layout}": eager(config, ready.made, kind == "bf16", layout)
        for kind in ("fp32", "bf16")
        for layout in FORMATS
    }
    sides["ours"] = ours(config, ready)
    warm = copy.copy(ready)
    warm.made = ready.made[:2]
    for kind in ("fp32", "bf16"):
        for layout in FORMATS:
            eager(config, warm.made, kind == "bf16", layout)()
    ours(config, warm)()
    found = measured(sides, repeats)
    best = min((side for side in found if side != "ours"), key=lambda side: median(found[side]))
    return {
        "default_precision": precision(config, MACHINE), "steps": count,
        "ms": {side: spread([1000 * each / count for each in values]) for side, values in found.items()},
        "best_eager": best, "ratio": ratio(found[best], found["ours"]),
    }  # fmt: skip


def measured(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of a call of each side, in turn."""
    return alternate({side: lambda act=act: seconds(act) for side, act in sides.items()}, repeats)


def main() -> None:
    """The epoch, and the steps of two networks."""
    parser = arguments(__doc__, "epoch", repeats=3)
    parser.add_argument("--images", type=int, default=3200)
    parser.add_argument(
        "--steps", type=int, default=12, help="of ResNet-32 in one measurement; of digits 20 times more"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "unit": "epoch: s; steps: ms; ratio: eager / ours", "n": asked.repeats, "bf16": MACHINE.bf16,
        "epoch": epochs(asked.images, asked.repeats),
        "steps": {
            "ResNet-32, CIFAR": steps(CIFAR, asked.steps, asked.repeats),
            "eight layers, digits": steps(base("digits"), 20 * asked.steps, asked.repeats),
        },
    }  # fmt: skip
    write(asked.out, result)


if __name__ == "__main__":
    main()
