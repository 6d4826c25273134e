"""What a loss, the end of a network, a backbone and a mixture of batches are: the parts that an instruction names.

A part is a frozen dataclass. Its fields are its parameters (`trainables.parameters`), which the configuration, MLflow
and the names of states show by themselves; its code is in the name of each state that was trained with it. Planning
makes parts, and imports no torch: files of parts import it inside their methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
    Batch = tuple[Tensor, Tensor]  # images (B, channels, side, side), labels (B,)
    Targets = list[tuple[Tensor | float, Tensor]]  # how much labels count, and the labels (B,)


class Backbone(ABC):
    """A network without its head.

    Attributes:
        initial: how its weights, and those of the head, are drawn; see `network.initialise`.
    """

    initial: ClassVar[str] = "fan_in"

    @abstractmethod
    def layers(self, channels: int) -> tuple[list[nn.Module], int]:
        """Its layers, from images (B, channels, H, W) to features (B, d, h, w) or (B, d), and d.

        The last of them is what a network of two branches has twice. What a constructor draws is drawn from the origin.
        """


class Head(ABC):
    """The end of a network, which turns features (B, d) into logits (B, C).

    Attributes:
        branches: how many times the network has its last layer.
        decay_bias: whether the weight decay applies to the classifier's bias.
        linear: whether it is ``layers.Linear``, so that each class may be given a factor (LWS).
    """

    branches: ClassVar[int] = 1
    decay_bias: ClassVar[bool] = True
    linear: ClassVar[bool] = False

    @abstractmethod
    def build(self, features: int, classes: int) -> nn.Module:
        """The classifier; its linear maps and what has a method ``draw(rng)`` are drawn afterwards.

        Args:
            features: d, of each branch.
            classes: C.
        """

    def start(self, classifier: nn.Module, classes: int) -> None:  # noqa: B027
        """What is done with the classifier once its weights are drawn; by default nothing."""


class Loss(ABC):
    """A loss over logits.

    Attributes:
        head: the end of the network that it asks for: a head, or a reference to one.
        weighted_mean: whether class weights also divide: ``Σ w l / Σ w``, as in ``torch.nn.CrossEntropyLoss``; else it
            is ``Σ w l / B``.
    """

    head: ClassVar[Head | str] = "linear"
    weighted_mean: ClassVar[bool] = True

    @abstractmethod
    def build(self, counts: Tensor) -> LossFunction:
        """The loss over classes of these sizes.

        Args:
            counts: n_j, training images of each class, largest first, in the type of the logits and on their device:
                (C,).

        Returns:
            (logits (B, C), labels (B,), class weights (C,) or None for ones) → the mean: (). It runs inside a step
            that a GPU records: no ``.item()``, no ``if tensor:``. It keeps nothing from one step to the next, for it
            serves several replicates, and a resumed one begins without it.
        """


class Mixture(ABC):
    """What a step is made of, where that is more than one batch with its labels.

    Each step has a share, a number from 0 to 1, that is drawn or set before the epoch.

    Attributes:
        second: exponent and replacement of the sampler of a second batch in each step; None if there is none.
        head: what it asks of the end of the network; None for whatever the loss asks for.
    """

    second: ClassVar[tuple[float, bool] | None] = None
    head: ClassVar[Head | str | None] = None

    def at(self, index: int, epochs: int) -> Self:  # noqa: ARG002
        """The mixture of the epoch with this index, of so many."""
        return self

    @property
    def step(self) -> Self:
        """What one step depends on: the mixture without what only `shares` uses."""
        return self

    @abstractmethod
    def shares(self, steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """The share of each step, from the stream of (seed, epoch, ``Purpose.MIXTURE``): (steps,)."""

    @abstractmethod
    def mix(self, batches: Sequence[Batch], share: Tensor, rest: Tensor) -> tuple[tuple[Any, ...], Targets]:
        """The network's inputs, and labels with how much they count.

        Args:
            batches: one, or with `second` two, of the same size.
            share, rest: the step's share, and 1 - share: ().
        """
