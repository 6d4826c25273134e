"""Focal loss, softmax form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.parameters import number
from trainables.parts import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.parts import LossFunction


@dataclass(frozen=True)
class Focal(Loss):
    """Softmax focal loss ``(1 - p_y)^γ · -log p_y`` (Lin et al., 2017, as in LDAM's code).

    With class weights it is ``Σ_i w_{y_i} l_i / B``, as in CB-Focal's code. CB-Focal in LDAM's code has the weight in
    the focal factor, too; here it is a factor of the loss only, as Cui et al. define it.
    """

    gamma: float = number(1.0, "γ, the power of 1 - p_y", least=0.0)
    weighted_mean: ClassVar[bool] = False

    def build(self, counts: Tensor) -> LossFunction:  # noqa: ARG002
        """See `Loss.build`."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        def loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
            losses = F.cross_entropy(logits, labels, reduction="none")
            wrong = (-torch.expm1(-losses)).clamp(
                min=torch.finfo(losses.dtype).tiny
            )  # 0^γ has an infinite slope where γ < 1
            losses = wrong**self.gamma * losses
            return (losses if weights is None else weights[labels] * losses).mean()

        return loss
