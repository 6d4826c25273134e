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
    """Cross-entropy to ``1 - ε_y`` on the label, ``ε_y / (C - 1)`` on each other class (Zhong et al., 2021, eq. 4).

    Their code gives each class, the label too, ``ε_y / C``, and the label ``1 - ε_y`` more; that is ``share = all``.
    With class weights it is their weighted mean.
    """

    largest: float = number(0.4, "ε of the largest class", least=0.0, below=1.0)
    smallest: float = number(0.1, "ε of the smallest class", least=0.0, below=1.0)
    share: str = choice("others", "which classes get ε: all but the label, or all", ("others", "all"))

    def epsilon(self, counts: Tensor) -> Tensor:
        """ε_j between that of the largest and that of the smallest class: (C,). Zhong et al. (2021), eq. 5, concave.

        ``ε_j = ε_C + (ε_1 - ε_C) · sin(π (n_j - n_C) / (2 (n_1 - n_C)))``; of equal classes each has the largest one's.
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
            own = log_p.gather(1, labels[:, None]).squeeze(1)
            epsilon = smoothing[labels]
            others = (log_p.sum(1) - own) / (logits.shape[1] - 1)
            spread = log_p.mean(1) if self.share == "all" else others
            losses = -(1 - epsilon) * own - epsilon * spread
            if weights is None:
                return losses.mean()
            return (weights[labels] * losses).sum() / weights[labels].sum()

        return loss
