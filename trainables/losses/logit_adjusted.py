"""Logit-adjusted loss, which includes balanced softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parameters import number
from trainables.parts import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.parts import LossFunction


@dataclass(frozen=True)
class LogitAdjusted(Loss):
    """Cross-entropy of ``z + τ log π`` (Menon et al., 2021, eq. 10); τ = 1 is balanced softmax (Ren et al., 2020)."""

    tau: float = number(1.0, "τ, the factor on the classes' log frequencies")

    def build(self, counts: Tensor) -> LossFunction:
        """See `Loss.build`."""
        import torch.nn.functional as F  # noqa: N812

        n = counts.double()
        shift = (self.tau * (n / n.sum()).log()).to(counts.dtype)
        return lambda logits, labels, weights: F.cross_entropy(logits + shift, labels, weights)
