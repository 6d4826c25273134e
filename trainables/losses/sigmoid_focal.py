"""Focal loss, sigmoid form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.parameters import number
from trainables.parts import Head, Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.parts import LossFunction


@dataclass(frozen=True)
class SigmoidFocal(Loss):
    """Focal loss of C binary problems, summed over the classes (Lin et al., 2017, as in Cui et al., 2019).

    With class weights it is ``Σ_i w_{y_i} l_i / B``. The initial bias of its classifier gives each class a low
    probability.
    """

    gamma: float = number(1.0, "γ, the power of the probability of the wrong answer", least=0.0)
    head: ClassVar[Head | str] = "rare"
    weighted_mean: ClassVar[bool] = False

    def build(self, counts: Tensor) -> LossFunction:  # noqa: ARG002
        """See `Loss.build`."""
        import torch.nn.functional as F  # noqa: N812

        def loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
            right = logits * (
                2 * F.one_hot(labels, logits.shape[1]) - 1
            )  # for each class, the logit of the right answer
            losses = ((self.gamma * F.logsigmoid(-right)).exp() * -F.logsigmoid(right)).sum(1)
            return (losses if weights is None else weights[labels] * losses).mean()

        return loss
