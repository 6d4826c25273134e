"""Augmented, normalised batches of CIFAR-size images: ours against a DataLoader with PIL.

    python tests/benchmarks/loader.py [--repeats 5] [--images 13996] [--out JSON]

Random images, so that nothing need be downloaded; both crop from four pixels of padding, flip, normalise and give
batches of 64 in float32, one epoch in an order that is given. The DataLoader is as in the public trainers
(torchvision's transforms on PIL images), in this process and with two workers, which have two cores where the others
have one; their start is not timed. One thread of torch each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from measuring import alternate, arguments, ratio, seconds, spread, write
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from trainables.data.datasets import facts
from trainables.data.resident import Arrays, LongTailed
from trainables.recipe import Epoch

CIFAR = facts("cifar10")
EPOCH = Epoch(lr=0.1)


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's CIFAR10 gives them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels  # (N, 32, 32, 3)
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR.mean, CIFAR.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def long_tailed(total: int) -> tuple[LongTailed, Pictures]:
    """About so many random images in the proportions of CIFAR-10-LT, IF 50: as ours, and for a DataLoader."""
    rng = np.random.default_rng(0)
    whole = np.asarray(CIFAR.counts(50))
    counts = np.maximum(1, whole * total // whole.sum())
    images = rng.integers(0, 256, (int(counts.sum()), 3, 32, 32), dtype=np.uint8)
    labels = np.repeat(np.arange(10), counts)
    test, half = np.arange(20) // 2, np.arange(20) % 2 == 0
    ours = LongTailed(CIFAR, Arrays(counts, images, images[:20], test, half), EPOCH.crop, torch.device("cpu"))
    return ours, Pictures(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels)


def consume(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """An epoch's batches, each looked at."""
    for images, _labels in batches:
        assert images.dtype == torch.float32


def main() -> None:
    parser = arguments(__doc__, "loader", 5)
    parser.add_argument("--images", type=int, default=13_996)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ours, pictures = long_tailed(asked.images)
    order = np.random.default_rng(1).permutation(len(pictures))

    loaders = {
        f"DataLoader with PIL, {where}": DataLoader(
            pictures, 64, sampler=order.tolist(), num_workers=workers, persistent_workers=workers > 0
        )
        for where, workers in (("in process", 0), ("two workers", 2))
    }
    for each in loaders.values():  # the workers start in the first pass
        consume(each)
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: seconds(lambda: consume(ours.batches(order, EPOCH, np.random.default_rng(2)))),
        **{name: lambda each=each: seconds(lambda: consume(each)) for name, each in loaders.items()},
    }
    measured = alternate(sides, asked.repeats)
    result = {
        "unit": "images/s; ratio: ours / peer",
        "n": asked.repeats,
        "images": len(pictures),
        "images_per_second": {name: spread([len(pictures) / each for each in own]) for name, own in measured.items()},
        "ratios": {name: ratio(own, measured["ours"]) for name, own in measured.items() if name != "ours"},
    }
    write(asked.out, result)


if __name__ == "__main__":
    main()
