"""A training step at batch 64: ours against a public trainer's, the best eager one, and what the device needs at least.

    python tests/benchmarks/step.py [--repeats 3] [--steps 12] [--device cpu|cuda] [--out JSON]

Batches are ready in memory: ours, in fp32 and bf16 and at the precision that `--precision auto` chooses here, against
an eager step in {fp32, bf16} × {contiguous, channels_last}; ResNet-32 on CIFAR's size, the eight-layer network on
digits'. The public trainer's is that of an epoch with a DataLoader of two workers, PIL, and ``.item()`` every batch.
One thread on a CPU.

``floors_ms``: what ResNet-32's step takes at least, by arithmetic, its operations at the speed of a large product of
matrices, and by memory, its activations at the speed of a large copy; both speeds are measured here. Activations are
the outputs of its convolutions. With batch norm and ReLU behind it, each is read or written five times on the way
forward (convolution: in, out; statistics; normalisation: in, out) and nine times back, by kernels that fuse no more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from loader import EPOCH, long_tailed
from loops import FORMATS, eager, network, ours
from measuring import alternate, arguments, ratio, seconds, shortened, spread, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode

from study.home import has_bf16
from study.space import Machine
from trainables.config import Config, base
from trainables.datasets import facts
from trainables.recipe import precision

CIFAR = Config()
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PASSES = 14  # over the activations


class Ready:
    """Batches that are on the device already, in place of `data.Data`."""

    def __init__(self, config: Config, steps: int, device: str) -> None:
        known = facts(config.dataset)
        rng = torch.Generator().manual_seed(0)
        self.counts = np.full(known.classes, steps * EPOCH.batch_size // known.classes + 1)
        shape = (EPOCH.batch_size, known.channels, known.side, known.side)
        self.made = [
            (
                torch.randn(shape, generator=rng).to(device),
                torch.randint(known.classes, shape[:1], generator=rng).to(device),
            )
            for _ in range(steps)
        ]

    def batches(self, *_: object) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.made)

    def first(self, count: int) -> Ready:
        few = copy.copy(self)
        few.made = self.made[:count]
        return few


def steps(
    config: Config, count: int, repeats: int, machine: Machine, public: Callable[[], object] | None = None
) -> dict[str, Any]:
    """Milliseconds a step: ours, the eager one's four ways, and the public trainer's."""
    device, default = machine.device, precision(config, machine)

    def sides(batches: Ready) -> dict[str, Callable[[], object]]:
        made: dict[str, Callable[[], object]] = {
            f"eager {kind} {layout}": eager(config, batches.made, kind == "bf16", layout, device)
            for kind in TYPES
            for layout in FORMATS
        }
        return made | {f"ours {kind}": ours(replace(config, precision=kind), batches, machine) for kind in TYPES}

    ready = Ready(config, count, device)
    for warm in sides(ready.first(2)).values():  # the first step of a kind makes what the others use again
        warm()
    every = sides(ready) | ({"public trainer": public} if public else {})
    found = alternate({side: lambda act=act: seconds(act) for side, act in every.items()}, repeats)
    best = min((side for side in found if side.startswith("eager")), key=lambda side: median(found[side]))
    return {
        "default_precision": default, "steps": count, "best_eager": best,
        "ms": {side: spread([1000 * each / count for each in values]) for side, values in found.items()},
        "ratios": {
            peer: ratio(found[peer], found[f"ours {default}"]) for peer in (best, "public trainer") if peer in found
        },
    }  # fmt: skip


def trainer(count: int, device: str) -> Callable[[], object]:
    """A public trainer's so many steps, data and all: fp32, contiguous, as users write it."""
    _, pictures = long_tailed((count + 1) * EPOCH.batch_size)
    kept = Subset(pictures, range(count * EPOCH.batch_size))
    loader = DataLoader(kept, EPOCH.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    epoch = eager(CIFAR, loader, bf16=False, device=device)
    epoch()  # its workers start
    return epoch


def floors(device: str) -> dict[str, dict[str, float]]:
    """What ResNet-32's step takes at least in each precision, in ms, by arithmetic and by memory."""
    model, known = network(CIFAR).to(device), facts(CIFAR.dataset)
    elements = 0

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with FlopCounterMode(display=False) as counted:
        model(torch.randn(EPOCH.batch_size, known.channels, known.side, known.side, device=device)).sum().backward()
    found = {}
    for kind, dtype in TYPES.items():
        size = 8192 if device == "cuda" else 1024
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rate = 2 * size**3 / _fastest(lambda one=one, other=other: one @ other, device)
        big = torch.empty(1 << 28 if device == "cuda" else 1 << 26, dtype=torch.uint8, device=device)
        to = torch.empty_like(big)
        bandwidth = 2 * big.numel() / _fastest(lambda big=big, to=to: to.copy_(big), device)
        found[kind] = {
            "arithmetic": shortened(1000 * counted.get_total_flops() / rate),
            "memory": shortened(1000 * PASSES * elements * dtype.itemsize / bandwidth),
            "tflops": shortened(rate / 1e12), "gb_per_s": shortened(bandwidth / 1e9),
        }  # fmt: skip
    return found


def _fastest(act: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of ten calls."""

    def whole() -> None:
        act()
        if device == "cuda":
            torch.cuda.synchronize()

    whole()
    return min(seconds(whole) for _ in range(10))


def main() -> None:
    """Steps of two networks, the public trainer's, and the floors."""
    parser = arguments(__doc__, "step", repeats=3)
    parser.add_argument(
        "--steps", type=int, default=12, help="of ResNet-32 in one measurement; of digits 20 times more"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    machine = Machine(asked.device, 1, bf16=asked.device == "cpu" and has_bf16())
    public = trainer(asked.steps, asked.device)
    networks = {
        "ResNet-32, CIFAR": steps(CIFAR, asked.steps, asked.repeats, machine, public),
        "eight layers, digits": steps(base("digits"), 20 * asked.steps, asked.repeats, machine),
    }
    result = {
        "unit": "ms a step; ratio: peer / ours", "n": asked.repeats, "device": asked.device, "networks": networks,
        "floors_ms": floors(asked.device),
    }  # fmt: skip
    write(asked.out, result)


if __name__ == "__main__":
    main()
