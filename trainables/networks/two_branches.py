"""The head of a network of two branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.parts import Head

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TwoBranches(Head):
    """One linear classifier on the features of both branches of BBN; see `network.Bilateral`."""

    branches: ClassVar[int] = 2

    def build(self, features: int, classes: int) -> nn.Module:
        """See `Head.build`."""
        from trainables import layers

        return layers.Linear(2 * features, classes)
