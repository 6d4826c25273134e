"""Label-aware smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.parameters import choice, number
from trainables.parts import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.parts import LossFunction


@dataclass(frozen=True)
class LabelAwareSmoothing(Loss):
    """Cross-entropy to ``1 - ε_y`` on the label and ``ε_y / (C - 1)`` on each other class (Zhong et al., 2021, eq. 4).

    The authors' code gives each class, including the label, ``ε_y / C``, and adds ``1 - ε_y`` to the label: ``share =
    all``. With class weights the loss is the weighted mean.
    """

    largest: float = number(0.4, "ε of the largest class", least=0.0, below=1.0)
    smallest: float = number(0.1, "ε of the smallest class", least=0.0, below=1.0)
    share: str = choice("others", "the classes that share ε: all except the label, or all", ("others", "all"))

    def epsilon(self, counts: Tensor) -> Tensor:
        """Return ε_j, between the values of the largest and the smallest class: (C,). Zhong et al. (2021), eq. 5.

        The concave form is ``ε_j = ε_C + (ε_1 - ε_C) · sin(π (n_j - n_C) / (2 (n_1 - n_C)))``. If all classes are
        equally large, each has the value of the largest.
        """
        import torch

        spread = counts.max() - counts.min()
        share = torch.where(spread > 0, (counts - counts.min()) / spread, torch.ones_like(counts))
        return self.smallest + (self.largest - self.smallest) * torch.sin(share * (math.pi / 2))

    def build(self, counts: Tensor) -> LossFunction:
        """See `Loss.build`."""
        smoothing = self.epsilon(counts.double()).to(counts.dtype)

        def loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
            log_p = logits.log_softmax(1)
            log_p_label = log_p.gather(1, labels[:, None]).squeeze(1)
            epsilon = smoothing[labels]
            other_classes = (log_p.sum(1) - log_p_label) / (logits.shape[1] - 1)
            spread = log_p.mean(1) if self.share == "all" else other_classes
            losses = -(1 - epsilon) * log_p_label - epsilon * spread
            if weights is None:
                return losses.mean()
            return (weights[labels] * losses).sum() / weights[labels].sum()

        return loss
