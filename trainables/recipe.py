"""A replicate as a list of epochs, and the names of the states that it passes through. Pure: no torch.

Training is a fold, ``state[e+1] = train(state[e], epoch[e+1])``, and every random number in it is drawn from (seed,
epoch, purpose). So a state is named by the hash of everything that determined it::

    key[0]   = H(origin)                   # data and split, network, seed, arithmetic, and the code of all of these
    key[e+1] = H(key[e], epoch[e])         # every field of the instruction, and the code of the parts that it names

Two recipes share a state exactly if they agree in everything up to it: equal prefixes are trained once, and what is
stored under a name need never be trained again. Code is in a name as the digest of what is reached (`digests`): of what
every epoch runs, of the data set, of the network, each in the origin; of a loss or a mixture in the epochs that use it.
So a loss that is changed renames what is trained with it, from the first epoch on that is, and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib import metadata
from typing import Any

from trainables import digests, references
from trainables.parts import Backbone, Head, Loss, Mixture

# What every epoch runs, from which the rest of its code is reached.
CORE = (
    ("trainables.loop", "advance"),
    ("trainables.learner", "Learner"),
    ("trainables.recipe", "Epoch"),
    ("trainables.recipe", "Origin"),
)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One instruction: everything that an epoch of training uses, and what is measured after it.

    Attributes:
        lr: the learning rate of every step of the epoch.
        sampler: exponent q of ``p_j ∝ n_j^q`` (1 is instance-balanced), or class weights (C,).
        replacement: draw inside a class with replacement; has no meaning at q = 1, where it is False.
        batch_size, drop_last: how the epoch's order is cut into batches.
        crop, flip: augmentation: padding in pixels before the random crop; horizontal flips.
        mixture: what a step is made of, where that is more than a batch of `sampler`'s draws; None where it is not.
        loss: over the logits of a batch.
        effective_number: β of the loss's class weights, ``(1 - β) / (1 - β^n_j)``, normalised to sum C; 0 for none.
        momentum, nesterov, weight_decay: of SGD.
        decay_bias: whether the weight decay applies to the classifier's bias.
        trains: which parameters are trained: all, classifier, or scale, a factor a class on the logits.
        reinitialise: what starts anew before the epoch: nothing, the classifier's weights, or scale, which becomes 1.
        batch_norm: train (statistics move) or frozen.
        fresh_optimizer: forget the momentum before the epoch.
        measures: beyond the fixed set: ``fit`` evaluates the training images, un-augmented; ``events`` also counts each
            image's learned and forgetting events.
    """

    lr: float
    sampler: float | tuple[float, ...] = 1.0
    replacement: bool = False
    batch_size: int = 64
    drop_last: bool = False
    crop: int = 4
    flip: bool = True
    mixture: Mixture | None = None
    loss: Loss = field(default_factory=lambda: references.made(references.LOSS, "cross_entropy"))
    effective_number: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    decay_bias: bool = True
    trains: str = "all"
    reinitialise: str = "nothing"
    batch_norm: str = "train"
    fresh_optimizer: bool = False
    measures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", references.made(references.LOSS, self.loss))
        if self.mixture is not None:
            object.__setattr__(self, "mixture", references.made(references.MIXTURE, self.mixture))
        for name, choices in _CHOICES.items():
            assert getattr(self, name) in choices, f"{name} = {getattr(self, name)!r}: must be one of {choices}"
        assert set(self.measures) <= {"fit", "events"}, f"measures = {self.measures!r}: must be fit and events"
        if self.sampler == 1.0 and self.replacement:
            # Instance-balanced epochs visit each image once either way: one work, one name.
            object.__setattr__(self, "replacement", False)
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None:
                numbers = tuple(float(v) + 0.0 for v in (value if isinstance(value, tuple) else (value,)))
                assert all(map(math.isfinite, numbers)), f"{name} = {value!r}: must be finite numbers"
                # Equal values need equal names: 1 and 1.0, -0.0 and 0.0.
                object.__setattr__(self, name, numbers if isinstance(value, tuple) else numbers[0])

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds and `from_json` takes back, with the digests of the code of its parts."""
        return _to_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Epoch:
        """The instruction of such a dictionary.

        Raises:
            Refusal: if a part is not here, or its code is another.
        """
        frozen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**frozen)


_NUMBERS = (
    "lr",
    "momentum",
    "weight_decay",
    "sampler",
    "effective_number",
)
_CHOICES = {
    "trains": ("all", "classifier", "scale"),
    "reinitialise": ("nothing", "classifier", "scale"),
    "batch_norm": ("train", "frozen"),
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What determines state 0 and the machine's arithmetic; settled when the plan is made, never by a worker.

    With torch's version stands NumPy's, for its generators draw the orders and the crops, and torchvision's, whose
    blocks some backbones are made of.

    Attributes:
        dataset: how the data set is found; `data`, the digest of its code, and `fingerprint` name what it is.
        core: the digest of the code that every epoch runs.
    """

    dataset: str
    data: str
    fingerprint: str
    imbalance: float
    split_seed: int
    subset_seed: int
    backbone: Backbone
    head: Head
    seed: int
    precision: str
    device: str
    threads: int
    ranks: int
    torch: str
    torchvision: str
    numpy: str
    core: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", references.made(references.BACKBONE, self.backbone))
        object.__setattr__(self, "head", references.made(references.HEAD, self.head))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds."""
        return _to_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Origin:
        """The origin of such a dictionary.

        Raises:
            Refusal: if the backbone or the head is not here, or its code is another.
        """
        return cls(**{each.name: plain[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Recipe:
    """An origin and one instruction per epoch."""

    origin: Origin
    epochs: tuple[Epoch, ...]

    def keys(self) -> tuple[str, ...]:
        """The names of states 0 … T: (T + 1,)."""
        names = [first_key(self.origin)]
        for epoch in self.epochs:
            names.append(next_key(names[-1], epoch))
        return tuple(names)


def first_key(origin: Origin) -> str:
    """The name of state 0."""
    return digests.digest(_canonical(origin))


def next_key(key: str, epoch: Epoch) -> str:
    """The name of the state that an epoch makes of a state."""
    return digests.digest(key + _canonical(epoch))


@lru_cache(maxsize=1)
def settled() -> dict[str, str]:
    """The parts of an origin that this installation decides: a worker must have them as the plan does."""
    return {
        "torch": metadata.version("torch"),
        "torchvision": metadata.version("torchvision"),
        "numpy": metadata.version("numpy"),
        "core": digests.digest("".join(digests.code_digest(*root) for root in CORE)),
    }


def _to_json(part: Epoch | Origin) -> dict[str, Any]:
    found = {each.name: getattr(part, each.name) for each in fields(part)}
    parts = (Backbone, Head, Loss, Mixture)
    return {name: references.with_code(own) if isinstance(own, parts) else own for name, own in found.items()}


@lru_cache(maxsize=4096)
def _canonical(part: Epoch | Origin) -> str:
    """All that a name holds of an instruction or an origin: not where code and data lie, but which they are."""
    held: dict[str, Any] = {}
    for name, own in part.to_json().items():
        if isinstance(own, Mapping):
            own = {each: value for each, value in own.items() if each != "part"}
        if not (name == "dataset" and isinstance(part, Origin)):
            held[name] = own
    return json.dumps(held, sort_keys=True, separators=(",", ":"), allow_nan=False)
