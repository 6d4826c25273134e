"""The bilateral-branch network (Zhou et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from study.errors import Refusal
from trainables.config import Config
from trainables.losses.cross_entropy import CrossEntropy
from trainables.method import Settings, sourced
from trainables.networks.two_branches import TwoBranches
from trainables.parameters import as_number, is_whole, parameter
from trainables.parts import Mixture
from trainables.sources import BBN_CIFAR, BBN_CODE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from trainables.parts import Batch, Targets


def _alpha(value: Any) -> float | None:
    alpha = None if value is None else as_number(value)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError("none or a number from 0 to 1")
    return alpha


def _divisor(value: Any) -> int | None:
    if value is not None and not is_whole(value, 1):
        raise ValueError("none or a whole number ≥ 1")
    return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Bilateral(Mixture):
    """BBN's two branches: one sees the sampler's draws, the other as many draws of the reversed sampler.

    The first branch has weight α in the features and in the loss, the second 1 - α. The second sampler draws with
    replacement.
    """

    alpha: float | None = parameter(None, "α of every epoch; none for 1 - (e / T)² in epoch e", _alpha)
    alpha_epochs: int | None = parameter(None, "the divisor of e; none for T, the number of epochs", _divisor)
    second: ClassVar[tuple[float, bool]] = (-1.0, True)
    head: ClassVar[TwoBranches] = TwoBranches()

    def at(self, index: int, epochs: int) -> Bilateral:
        """See `Mixture.at`."""
        if self.alpha is not None:
            return self
        if self.alpha_epochs is not None and self.alpha_epochs < epochs:
            raise Refusal(
                "mixture.alpha_epochs", self.alpha_epochs, f"must be none or at least {epochs}, the number of epochs"
            )
        return replace(self, alpha=1 - (index / (self.alpha_epochs or epochs)) ** 2, alpha_epochs=None)

    @property
    def step(self) -> Bilateral:
        """See `Mixture.step`."""
        return replace(self, alpha=None, alpha_epochs=None)

    def shares(self, steps: int, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002
        """See `Mixture.shares`."""
        import numpy as np

        assert self.alpha is not None
        return np.full(steps, self.alpha)

    def mix(self, batches: Sequence[Batch], share: Tensor, rest: Tensor) -> tuple[tuple[Any, ...], Targets]:
        """See `Mixture.mix`."""
        (images, labels), (reversed_images, reversed_labels) = batches
        return (images, reversed_images, (share, rest)), [(share, labels), (rest, reversed_labels)]


# BBN, configs/iNaturalist2018.yaml, which has no warm-up; α's divisor in lib/core/combiner.py.
_LARGE: Settings = {**BBN_CODE, "warmup": 0, "gamma": 0.1, "batch_size": 128, "lr": 0.05, "weight_decay": 1e-4}


@sourced(
    cifar={**BBN_CIFAR, "milestones": (120, 160)},  # BBN, configs/cifar10.yaml
    large={**_LARGE, "epochs": 90, "milestones": (60, 80), "mixture": Bilateral(alpha_epochs=100)},
    long={**_LARGE, "epochs": 180, "milestones": (120, 160), "mixture": Bilateral(alpha_epochs=200)},
)
def bbn(base: Config) -> Config:
    """Configure BBN (Zhou et al., 2020): uniform and reversed sampler in one step, α = 1 - (e/T)².

    Deviations: warm-up starts from a fifth instead of a third of the lr; weights are drawn as for every other network
    here; on iNaturalist, its code divides e by 100 and 200 in training of 90 and 180 epochs, here the divisor is T. The
    `source` recipe has the warm-up and the divisors of its code.
    """
    return replace(base, method="BBN", first="IB", switch="IB", loss=CrossEntropy(), mixture=Bilateral())
