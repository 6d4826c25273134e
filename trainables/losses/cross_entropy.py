"""Cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parts import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.parts import LossFunction


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy; with class weights the weighted mean ``Σ_i w_{y_i} l_i / Σ_i w_{y_i}``."""

    def build(self, counts: Tensor) -> LossFunction:  # noqa: ARG002
        """See `Loss.build`."""
        import torch.nn.functional as F  # noqa: N812

        return F.cross_entropy
