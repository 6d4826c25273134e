"""The base classes of the parts that an instruction names: backbones, heads, losses and mixtures of batches.

A part is a frozen dataclass. Its fields are its parameters (`trainables.parameters`). The configuration, MLflow and the
names of states include the parameters. The name of each state that was trained with a part also includes the part's
code. Planning constructs parts without torch, so their files import torch inside methods.
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
    Targets = list[tuple[Tensor | float, Tensor]]  # the weight of labels, and the labels (B,)


class Backbone(ABC):
    """A network without its head.

    Attributes:
        initial: the distribution of the initial weights of the backbone and of the head; see `network.initialise`.
    """

    initial: ClassVar[str] = "fan_in"

    @abstractmethod
    def layers(self, channels: int) -> tuple[list[nn.Module], int]:
        """Return the layers, from images (B, channels, H, W) to features (B, d, h, w) or (B, d), and d.

        A network of two branches has the last layer twice. Random numbers in constructors depend on the origin.
        """


class Head(ABC):
    """The end of a network, which turns features (B, d) into logits (B, C).

    Attributes:
        branches: the number of copies of the network's last layer.
        decay_bias: whether the weight decay applies to the classifier's bias.
        linear: whether the classifier is ``layers.Linear``, which allows a factor per class (LWS).
    """

    branches: ClassVar[int] = 1
    decay_bias: ClassVar[bool] = True
    linear: ClassVar[bool] = False

    @abstractmethod
    def build(self, features: int, classes: int) -> nn.Module:
        """Return the classifier. Weights of linear maps and of modules with a method ``draw(rng)`` are drawn later.

        Args:
            features: the number of features d of each branch.
            classes: the number of classes C.
        """

    def start(self, classifier: nn.Module, classes: int) -> None:  # noqa: B027
        """Change the classifier after its weights are drawn; by default do nothing."""


class Loss(ABC):
    """A loss over logits.

    Attributes:
        head: the head of the network that the loss needs, or a reference to it.
        weighted_mean: True for the mean ``Σ w l / Σ w``, as in ``torch.nn.CrossEntropyLoss``; False for ``Σ w l / B``.
    """

    head: ClassVar[Head | str] = "linear"
    weighted_mean: ClassVar[bool] = True

    @abstractmethod
    def build(self, counts: Tensor) -> LossFunction:
        """Return the loss for classes of these sizes.

        Args:
            counts: n_j, the number of training images of each class, largest first, with the type and the device of
                the logits: (C,).

        Returns:
            A function (logits (B, C), labels (B,), class weights (C,) or None for ones) → the mean: (). A GPU
            records it, so it may not use ``.item()`` or ``if tensor:``. It must not keep values between steps, because
            several replicates share it and a resumed replicate starts with a new one.
        """


class Mixture(ABC):
    """The inputs and targets of a step that uses more than one batch with its labels.

    Each step has a share, a number from 0 to 1, that is drawn or set before the epoch.

    Attributes:
        second: exponent and replacement of the sampler of a second batch in each step; None for one batch.
        head: the head that the mixture needs; None for the head of the loss.
    """

    second: ClassVar[tuple[float, bool] | None] = None
    head: ClassVar[Head | str | None] = None

    def at(self, index: int, epochs: int) -> Self:  # noqa: ARG002
        """Return the mixture for epoch `index` of `epochs`."""
        return self

    @property
    def step(self) -> Self:
        """The mixture without the parameters that only `shares` uses. A step depends on the other parameters."""
        return self

    @abstractmethod
    def shares(self, steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the share of each step, drawn from the stream of (seed, epoch, ``Purpose.MIXTURE``): (steps,)."""

    @abstractmethod
    def mix(self, batches: Sequence[Batch], share: Tensor, rest: Tensor) -> tuple[tuple[Any, ...], Targets]:
        """Return the network's inputs, and the labels with their weights.

        Args:
            batches: one batch, or with `second` two batches of the same size.
            share, rest: the step's share, and 1 - share: ().
        """
