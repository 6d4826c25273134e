"""A linear classifier whose initial bias gives each class a low probability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.parts import Head

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Rare(Head):
    """A linear classifier with an initial bias of -log(C - 1), without weight decay on the bias (Cui et al., 2019)."""

    linear: ClassVar[bool] = True
    decay_bias: ClassVar[bool] = False

    def build(self, features: int, classes: int) -> nn.Module:
        """See `Head.build`."""
        from trainables import layers

        return layers.Linear(features, classes)

    def start(self, classifier: nn.Module, classes: int) -> None:
        """See `Head.start`."""
        classifier.bias.data.fill_(-math.log(classes - 1))  # type: ignore[operator]
