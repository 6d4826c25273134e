"""The measures of a network on a set of images: a fixed set, from sums on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

LISTED = 1000  # with more classes, the accuracies by class would make a state's header longer than its weights
BINS = 15  # of the expected calibration error, equally wide (Guo et al., 2017)


class Tally:
    """Sums over images, by class and by part, which stay on the device until `read`.

    A part is a set of images that is reported separately, such as a half of the test set.
    """

    def __init__(self, classes: int, parts: int, device: torch.device) -> None:
        self.classes, self.parts = classes, parts
        self._by_class = torch.zeros(3, parts * classes, dtype=torch.float64, device=device)  # n, correct, loss
        self._by_bin = torch.zeros(3, parts * BINS, dtype=torch.float64, device=device)  # n, correct, confidence

    def add(self, logits: Tensor, labels: Tensor, part: Tensor) -> Tensor:
        """Add a batch and return the predicted classes, (B,).

        Args:
            logits: (B, C).
            labels: (B,).
            part: the part of each image: (B,).
        """
        logits = logits.float()
        confidence, predicted = logits.softmax(1).max(1)
        correct = (predicted == labels).double()
        loss = F.cross_entropy(logits, labels, reduction="none").double()
        ones = torch.ones_like(loss)
        self._by_class.index_add_(1, part * self.classes + labels, torch.stack((ones, correct, loss)))
        bins = (confidence * BINS).long().clamp_(0, BINS - 1)
        self._by_bin.index_add_(1, part * BINS + bins, torch.stack((ones, correct, confidence.double())))
        return predicted

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """The tensors of sums, which ranks add up."""
        return self._by_class, self._by_bin

    def read(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums by class, (3, parts, C): images, correct, loss; and by confidence bin, (3, parts, BINS)."""
        by_class = self._by_class.view(3, self.parts, self.classes).cpu().numpy()
        return by_class, self._by_bin.view(3, self.parts, BINS).cpu().numpy()


def summary(
    prefix: str,
    by_class: NDArray[np.float64],
    by_bin: NDArray[np.float64],
    shots: Mapping[str, Sequence[int]],
    listed: bool = True,
) -> dict[str, Any]:
    """Return the fixed set of measures of one part.

    `loss`: mean cross-entropy. `top1`: percent of images. `many`, `medium`, `few`: mean over the classes of the split
    of their accuracies, in percent; left out if the split is empty. `worst`: accuracy of the worst class. `ece`:
    expected calibration error in percent. `class_accuracy`: (C,), in percent.

    Args:
        prefix: the prefix of each name, followed by a slash.
        by_class: images, correct and loss by class: (3, C). A class without images has no accuracy.
        by_bin: images, correct and confidence by bin: (3, BINS).
        shots: the classes of each split.
        listed: whether to add `class_accuracy`, which is left out in any case with more than `LISTED` classes.
    """
    images, correct, loss = by_class
    present = images > 0
    accuracy = 100 * correct / np.where(present, images, 1)
    gap = np.abs(by_bin[1] - by_bin[2]).sum() / images.sum()
    measures: dict[str, Any] = {
        "loss": float(loss.sum() / images.sum()),
        "top1": float(100 * correct.sum() / images.sum()),
        "worst": float(accuracy[present].min()),
        "ece": float(100 * gap),
    }
    if listed and len(images) <= LISTED:
        measures["class_accuracy"] = [round(float(a), 6) if n else None for a, n in zip(accuracy, images, strict=True)]
    for split, classes in shots.items():
        ranks = [rank for rank in classes if present[rank]]
        if ranks:
            measures[split] = float(accuracy[ranks].mean())
    return {f"{prefix}/{name}": value for name, value in measures.items()}
