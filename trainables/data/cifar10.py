"""CIFAR-10."""

from __future__ import annotations

from typing import Any

from trainables.data.cifar import Official


class CIFAR10(Official):
    """CIFAR-10 (Krizhevsky, 2009), made long-tailed."""

    classes = 10
    largest = 5000
    fingerprint = "md5:c58f30108f718f92721af3b95e74349a"
    folder = "cifar-10-batches-py"

    @staticmethod
    def torchvision() -> Any:
        """Return torchvision's class."""
        from torchvision import datasets

        return datasets.CIFAR10
