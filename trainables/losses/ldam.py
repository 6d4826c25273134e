"""Label-distribution-aware margin loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.networks.cosine import Cosine
from trainables.parameters import number
from trainables.parts import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.parts import LossFunction


@dataclass(frozen=True)
class LDAM(Loss):
    """Label-distribution-aware margin loss: ``CE(s · (cos - m_y · 1_y))`` (Cao et al., 2019), with the head's s."""

    max_margin: float = number(0.5, "the margin of the smallest class, which is the largest", least=0.0)
    head: ClassVar[Cosine] = Cosine()

    def margins(self, counts: Tensor) -> Tensor:
        """Return margins ``m_j ∝ n_j^(-1/4)``, whose largest is `max_margin` (Cao et al., 2019, eq. 13): (C,)."""
        return self.max_margin * (counts.min() / counts) ** 0.25

    def build(self, counts: Tensor) -> LossFunction:
        """See `Loss.build`."""
        import torch.nn.functional as F  # noqa: N812

        margins = self.margins(counts.double()).to(counts.dtype)

        def loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
            shift = F.one_hot(labels, logits.shape[1]) * (self.head.scale * margins)
            return F.cross_entropy(logits - shift, labels, weights)

        return loss
