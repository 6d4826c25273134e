"""Recipes: a replicate as a list of epochs, and the names of its states. Pure: no torch.

Training is a fold, ``state[e+1] = train(state[e], epoch[e+1])``, and every random number in it is drawn from (seed,
epoch, purpose). So the name of a state is the hash of everything that determines it::

    key[0]   = H(origin)                   # data and split, network, seed, arithmetic, and the code of all of these
    key[e+1] = H(key[e], epoch[e])         # every field of the instruction, and the code of the parts that it names

Two recipes share a state exactly if they agree in everything up to it: equal prefixes are trained once, and a stored
state is never trained again. A name includes code as the digest of all code that is reached (`digests`). The code that
every epoch runs, the data set's and the network's are in the origin; the code of a loss or a mixture is in the epochs
that use it. So a change of a loss renames the states from the first epoch on that uses the loss, and no other states.
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

# The definitions from which all code that every epoch runs is reached.
CORE = (
    ("trainables.loop", "advance"),
    ("trainables.learner", "Learner"),
    ("trainables.recipe", "Epoch"),
    ("trainables.recipe", "Origin"),
)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One instruction: all values that an epoch of training uses, and the measures after it.

    Attributes:
        lr: the learning rate of every step of the epoch.
        sampler: exponent q of ``p_j ∝ n_j^q`` (1 is instance-balanced), or class weights (C,).
        replacement: draw inside a class with replacement; without effect at q = 1, where it is False.
        batch_size, drop_last: the size of the batches, and whether a smaller last batch is left out.
        crop, flip: augmentation: padding in pixels before the random crop; horizontal flips.
        mixture: the mixture of batches in a step; None for a single batch of `sampler`'s draws.
        loss: the loss over the logits of a batch.
        effective_number: β of the loss's class weights, ``(1 - β) / (1 - β^n_j)``, normalised to sum C; 0 for none.
        momentum, nesterov, weight_decay: parameters of SGD.
        decay_bias: whether the weight decay applies to the classifier's bias.
        trains: the parameters to train: all, classifier, or scale, a factor per class on the logits.
        reinitialise: the weights that start anew before the epoch: nothing, classifier, or scale, which becomes 1.
        batch_norm: train (statistics move) or frozen.
        fresh_optimizer: forget the momentum before the epoch.
        measures: measures beyond the fixed set: ``fit`` evaluates the un-augmented training images; ``events`` also
            counts each image's learned and forgetting events.
    """

    lr: float
    sampler: float | tuple[float, ...] = 1.0
    replacement: bool = False
    batch_size: int = 64
    drop_last: bool = False
    crop: int = 4
    flip: bool = True
    mixture: Mixture | None = None
    loss: Loss = field(default_factory=lambda: references.construct(references.LOSS, "cross_entropy"))
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
        object.__setattr__(self, "loss", references.construct(references.LOSS, self.loss))
        if self.mixture is not None:
            object.__setattr__(self, "mixture", references.construct(references.MIXTURE, self.mixture))
        for name, choices in _CHOICES.items():
            assert getattr(self, name) in choices, f"{name} = {getattr(self, name)!r}: must be one of {choices}"
        assert set(self.measures) <= {"fit", "events"}, f"measures = {self.measures!r}: must be fit and events"
        if self.sampler == 1.0 and self.replacement:
            # Instance-balanced epochs visit each image once with or without replacement: equal work has one name.
            object.__setattr__(self, "replacement", False)
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None:
                numbers = tuple(float(v) + 0.0 for v in (value if isinstance(value, tuple) else (value,)))
                assert all(map(math.isfinite, numbers)), f"{name} = {value!r}: must be finite numbers"
                # Equal values need equal names: 1 and 1.0, -0.0 and 0.0.
                object.__setattr__(self, name, numbers if isinstance(value, tuple) else numbers[0])

    def to_json(self) -> dict[str, Any]:
        """Return the instruction as a dictionary for JSON, with its parts' code digests; `from_json` reverses this."""
        return _to_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Epoch:
        """Return the instruction of a dictionary.

        Raises:
            Refusal: if a part does not exist here, or has other code.
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
    """The values that determine state 0 and the machine's arithmetic. The plan fixes them, never a worker.

    Besides torch's version it has NumPy's, whose generators draw the orders and the crops, and torchvision's, whose
    blocks some backbones use.

    Attributes:
        dataset: the reference to the data set; its content is identified by `data`, the digest of its code, and
            `fingerprint`.
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
        object.__setattr__(self, "backbone", references.construct(references.BACKBONE, self.backbone))
        object.__setattr__(self, "head", references.construct(references.HEAD, self.head))

    def to_json(self) -> dict[str, Any]:
        """Return the origin as a dictionary for JSON."""
        return _to_json(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Origin:
        """Return the origin of a dictionary.

        Raises:
            Refusal: if the backbone or the head does not exist here, or has other code.
        """
        return cls(**{field.name: plain[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Recipe:
    """An origin and one instruction per epoch."""

    origin: Origin
    epochs: tuple[Epoch, ...]

    def keys(self) -> tuple[str, ...]:
        """Return the names of states 0 … T: (T + 1,)."""
        names = [first_key(self.origin)]
        for epoch in self.epochs:
            names.append(next_key(names[-1], epoch))
        return tuple(names)


def first_key(origin: Origin) -> str:
    """Return the name of state 0."""
    return digests.digest(_canonical(origin))


def next_key(key: str, epoch: Epoch) -> str:
    """Return the name of the state after an epoch that starts from state `key`."""
    return digests.digest(key + _canonical(epoch))


@lru_cache(maxsize=1)
def settled() -> dict[str, str]:
    """Return the fields of an origin that this installation determines; a worker must have the same as the plan."""
    return {
        "torch": metadata.version("torch"),
        "torchvision": metadata.version("torchvision"),
        "numpy": metadata.version("numpy"),
        "core": digests.digest("".join(digests.code_digest(*root) for root in CORE)),
    }


def _to_json(part: Epoch | Origin) -> dict[str, Any]:
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    parts = (Backbone, Head, Loss, Mixture)
    return {name: references.with_code(value) if isinstance(value, parts) else value for name, value in values.items()}


@lru_cache(maxsize=4096)
def _canonical(part: Epoch | Origin) -> str:
    """Return the text of an instruction or an origin for names: without the location of code and data."""
    values: dict[str, Any] = {}
    for name, value in part.to_json().items():
        if isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if key != "part"}
        if not (name == "dataset" and isinstance(part, Origin)):
            values[name] = value
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
