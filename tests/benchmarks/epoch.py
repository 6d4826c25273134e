"""One epoch of ResNet-32 at CIFAR's size: ours against an eager loop as the public trainers write it.

    python tests/benchmarks/epoch.py [--repeats 3] [--images 3200] [--out JSON]

Random images in the proportions of CIFAR-10-LT, IF 50 (`--images 13996` is its whole size), instance-balanced, batch
64. The peer: DataLoader (in process) with PIL, torch.optim.SGD, loss and accuracy by ``.item()`` every batch, tensors
as they come; in fp32, as users write it, and in bf16 autocast. Ours: `loop.train_epoch` with the data on the device.
Same network, images, augmentation, loss and optimiser; one thread each; neither evaluates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from loader import EPOCH, long_tailed
from loops import eager, ours
from measuring import alternate, arguments, ratio, seconds, spread, write
from torch.utils.data import DataLoader

from study.machine import Machine, has_bf16
from trainables.config import Config
from trainables.origins import precision
from trainables.samplers import Purpose, generator

MACHINE = Machine("cpu", 1, bf16=has_bf16())
CIFAR = Config()


def epochs(images: int, repeats: int) -> dict[str, Any]:
    """Seconds an epoch, ours and the peer's, by precision."""
    data, pictures = long_tailed(images)
    loader = DataLoader(pictures, EPOCH.batch_size, shuffle=True)
    sides = {
        **{f"eager {kind}": eager(CIFAR, loader, kind == "bf16") for kind in ("fp32", "bf16")},
        **{f"ours {kind}": ours(replace(CIFAR, precision=kind), data, MACHINE) for kind in ("fp32", "bf16")},
    }
    first, _ = long_tailed(2 * EPOCH.batch_size)
    few = [(each, label) for each, label in first.batches(np.arange(64), EPOCH, generator(0, 0, Purpose.AUGMENTATION))]
    for kind in ("fp32", "bf16"):  # the first step of a kind makes what the others use again
        eager(CIFAR, few, kind == "bf16")()
        ours(replace(CIFAR, precision=kind), first, MACHINE)()
    found = alternate({side: lambda act=act: seconds(act) for side, act in sides.items()}, repeats)
    default = precision(CIFAR, MACHINE)
    return {
        "images": len(pictures),
        "default_precision": default,
        "seconds": {side: spread(values) for side, values in found.items()},
        "ratios": {
            **{f"{kind} / {kind}": ratio(found[f"eager {kind}"], found[f"ours {kind}"]) for kind in ("fp32", "bf16")},
            "eager fp32 / ours default": ratio(found["eager fp32"], found[f"ours {default}"]),
        },
    }


def main() -> None:
    """The epoch."""
    parser = arguments(__doc__, "epoch", repeats=3)
    parser.add_argument("--images", type=int, default=3200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    unit = "s; ratio: eager / ours"
    result = {"unit": unit, "n": asked.repeats, "bf16": MACHINE.bf16, "epoch": epochs(asked.images, asked.repeats)}
    write(asked.out, result)


if __name__ == "__main__":
    main()
