"""Read-outs: other decisions from the same network with unchanged weights. Their τ is chosen on `val`.

``adjusted``: post-hoc logit adjustment, ``z_j - τ log π_j`` (Menon et al., 2021, eq. 9), τ from 0 to 2 in steps of
0.25. ``tau_normalised``: ``w_j · x / ‖w_j‖^τ`` without the bias (Kang et al., 2020, and as in their tau_norm.py), τ
from 0 to 2 in steps of 0.1; only for linear classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.layers import Linear

ADJUSTED = tuple(step / 4 for step in range(9))
NORMALISED = tuple(step / 10 for step in range(21))


class ReadOuts:
    """Correct decisions by read-out, τ, part and class, summed on the device until `read`.

    Args:
        classifier: the network's head, in the state that is evaluated.
        counts: n_j: (C,).
        parts: the number of parts of the images.
        device: the device of the logits.
    """

    def __init__(self, classifier: nn.Module, counts: NDArray[np.int64], parts: int, device: torch.device) -> None:
        self.parts, self.classes, self.device = parts, len(counts), device
        n = torch.tensor(np.maximum(counts, 1), dtype=torch.float32, device=device)
        taus = torch.tensor(ADJUSTED, device=device).view(-1, 1, 1)
        # Both read-outs are affine in the logits: z · factor + shift, (τ, 1, C) each.
        ones = torch.ones(1, 1, self.classes, device=device)
        self._affine: dict[str, tuple[tuple[float, ...], Tensor, Tensor]] = {
            "adjusted": (ADJUSTED, ones, -taus * (n / n.sum()).log()),
        }
        if isinstance(classifier, Linear) and classifier.scale is None:
            factor = classifier.weight.norm(dim=1) ** -torch.tensor(NORMALISED, device=device).view(-1, 1, 1)
            self._affine["tau_normalised"] = (NORMALISED, factor, -classifier.bias * factor)
        self._images = torch.zeros(parts * self.classes, dtype=torch.float64, device=device)
        self._correct = {
            name: torch.zeros(len(taus), parts * self.classes, dtype=torch.float64, device=device)
            for name, (taus, _, _) in self._affine.items()
        }

    def add(self, logits: Tensor, labels: Tensor, part: Tensor) -> None:
        """Add a batch: logits (B, C), labels (B,), and the part of each image (B,)."""
        index = part * self.classes + labels
        self._images.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        for name, (_, factor, shift) in self._affine.items():
            predicted = torch.addcmul(shift, logits.float(), factor).argmax(2)  # (τ, B)
            self._correct[name].index_add_(1, index, (predicted == labels).double())

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """The tensors of sums, which ranks add up."""
        return self._images, *self._correct.values()

    def read(self, val: int, reported: int, shots: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """Return each read-out's best τ on part `val`, ties to the smallest, and its accuracies on part `reported`.

        ``{name}/tau``, ``{name}/top1`` in percent of images, ``{name}/many``, ``medium``, ``few`` and ``worst`` as in
        `metrics.summary`.
        """
        images = self._images.view(self.parts, self.classes).cpu().numpy()
        measures: dict[str, float] = {}
        for name, (taus, _, _) in self._affine.items():
            correct = self._correct[name].view(len(taus), self.parts, self.classes).cpu().numpy()
            best = int(correct[:, val].sum(1).argmax())
            right, n = correct[best, reported], images[reported]
            accuracy = 100 * right / np.maximum(n, 1)
            measures[f"{name}/tau"] = taus[best]
            measures[f"{name}/top1"] = float(100 * right.sum() / n.sum())
            measures[f"{name}/worst"] = float(accuracy[n > 0].min())
            for split, ranks in shots.items():
                present = [rank for rank in ranks if n[rank]]
                if present:
                    measures[f"{name}/{split}"] = float(accuracy[present].mean())
        return measures
