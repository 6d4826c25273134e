"""CIFAR-100."""

from __future__ import annotations

from typing import Any

from trainables.data.cifar import Official


class CIFAR100(Official):
    """CIFAR-100 (Krizhevsky, 2009), made long-tailed."""

    classes = 100
    largest = 500
    fingerprint = "md5:eb9058c3a382ffc7106e4002c42a8d85"
    folder = "cifar-100-python"

    @staticmethod
    def torchvision() -> Any:
        """Return torchvision's class."""
        from torchvision import datasets

        return datasets.CIFAR100
