"""What is declared of each data set, so that a plan needs none of them on disk. Pure: no torch.

The counts follow LDAM and BBN: ``n_j = int(n_max * r ** (j / (C - 1)))`` with r = 1/IF, truncated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """The facts of a balanced data set that is made long-tailed.

    Attributes:
        classes: C.
        largest: images of the largest class, n_max.
        channels, side: images are (channels, side, side), uint8.
        scale: the value of a white pixel; images are divided by it before mean and std apply.
        mean, std: per channel, after scaling.
        crop: zero padding in pixels before a random crop back to ``side``.
        flip: whether images are flipped horizontally at random.
        many, few: a class is many-shot above ``many`` training images, few-shot below ``few``, else medium-shot.
        fingerprint: names the files' content; checked when the data are prepared.
    """

    classes: int
    largest: int
    channels: int
    side: int
    scale: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    flip: bool
    many: int
    few: int
    fingerprint: str

    def counts(self, imbalance: float) -> tuple[int, ...]:
        """Training images of each class, largest first: (C,)."""
        return tuple(
            int(self.largest * (1.0 / imbalance) ** (rank / (self.classes - 1.0))) for rank in range(self.classes)
        )

    def shots(self, imbalance: float) -> dict[str, list[int]]:
        """The classes of each split: many-, medium- and few-shot."""
        splits: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
        for rank, count in enumerate(self.counts(imbalance)):
            splits["many" if count > self.many else "few" if count < self.few else "medium"].append(rank)
        return splits


_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

DATASETS = {
    "digits": Dataset(
        classes=10, largest=124, channels=1, side=8, scale=16, mean=(0.3053,), std=(0.3761,), crop=1, flip=False,
        many=40, few=10, fingerprint="sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
    ),
    # The fingerprints of CIFAR are the MD5 sums of the official archives; torchvision checks each file's own.
    "cifar10": Dataset(
        classes=10, largest=5000, channels=3, side=32, scale=255, mean=_CIFAR_MEAN, std=_CIFAR_STD, crop=4, flip=True,
        many=100, few=20, fingerprint="md5:c58f30108f718f92721af3b95e74349a",
    ),
    "cifar100": Dataset(
        classes=100, largest=500, channels=3, side=32, scale=255, mean=_CIFAR_MEAN, std=_CIFAR_STD, crop=4, flip=True,
        many=100, few=20, fingerprint="md5:eb9058c3a382ffc7106e4002c42a8d85",
    ),
}  # fmt: skip
