"""A linear classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.parts import Head

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Linear(Head):
    """A linear classifier with a bias."""

    linear: ClassVar[bool] = True

    def build(self, features: int, classes: int) -> nn.Module:
        """See `Head.build`."""
        from trainables import layers

        return layers.Linear(features, classes)
