"""A replicate as a list of epochs, and the names of the states that it passes through. Pure: no torch.

Training is a fold, ``state[e+1] = train(state[e], epoch[e+1])``, and every random number in it is drawn from (seed,
epoch, purpose). So a state is named by the hash of everything that determined it::

    key[0]   = H(origin)                   # data and split, network, seed, arithmetic, the source of trainables
    key[e+1] = H(key[e], epoch[e])         # every field of the instruction

Two recipes share a state exactly if they agree in everything up to it: equal prefixes are trained once, and what is
stored under a name need never be trained again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

LOSSES = ("cross_entropy", "focal", "sigmoid_focal", "ldam", "logit_adjusted", "label_aware_smoothing")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One instruction: everything that an epoch of training uses, and what is measured after it.

    Attributes:
        lr: the learning rate of every step of the epoch.
        sampler: exponent q of ``p_j ∝ n_j^q`` (1 is instance-balanced), or class weights (C,).
        replacement: draw inside a class with replacement; has no meaning at q = 1, where it is False.
        batch_size, drop_last: how the epoch's order is cut into batches.
        crop, flip: augmentation: padding in pixels before the random crop; horizontal flips.
        mixup: a of the Beta(a, a) that each batch is mixed by; 0 for none.
        bilateral: BBN's α, the weight of its first branch, which sees `sampler`'s draws; the second sees as many of the
            reversed sampler (q = -1, with replacement). None for networks of one branch.
        loss: one of `LOSSES`.
        loss_args: what that loss takes beyond logits, labels and counts.
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
    mixup: float = 0.0
    bilateral: float | None = None
    loss: str = "cross_entropy"
    loss_args: tuple[float, ...] = ()
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
        for field, choices in _CHOICES.items():
            assert getattr(self, field) in choices, f"{field} = {getattr(self, field)!r}: one of {choices} would do"
        assert set(self.measures) <= {"fit", "events"}, f"measures = {self.measures!r}: fit and events would do"
        if self.sampler == 1.0 and self.replacement:
            # Instance-balanced epochs visit each image once either way: one work, one name.
            object.__setattr__(self, "replacement", False)
        for field in _NUMBERS:
            value = getattr(self, field)
            if value is not None:
                numbers = tuple(float(v) + 0.0 for v in (value if isinstance(value, tuple) else (value,)))
                assert all(map(math.isfinite, numbers)), f"{field} = {value!r}: finite numbers would do"
                # Equal values need equal names: 1 and 1.0, -0.0 and 0.0.
                object.__setattr__(self, field, numbers if isinstance(value, tuple) else numbers[0])

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds and `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Epoch:
        """The instruction of such a dictionary."""
        frozen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**frozen)


_NUMBERS = (
    "lr",
    "momentum",
    "weight_decay",
    "sampler",
    "mixup",
    "bilateral",
    "loss_args",
    "effective_number",
)
_CHOICES = {
    "loss": LOSSES,
    "trains": ("all", "classifier", "scale"),
    "reinitialise": ("nothing", "classifier", "scale"),
    "batch_norm": ("train", "frozen"),
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What determines state 0 and the machine's arithmetic; settled when the plan is made, never by a worker.

    `head` is the end of the network: see `networks.build`. With torch's version stands NumPy's, for its
    generators draw the orders and the crops, and torchvision's, whose blocks some backbones are made of.
    """

    dataset: str
    fingerprint: str
    imbalance: float
    split_seed: int
    subset_seed: int
    backbone: str
    head: str
    seed: int
    precision: str
    device: str
    threads: int
    ranks: int
    torch: str
    torchvision: str
    numpy: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Origin:
        """The origin of such a dictionary."""
        return cls(**{field.name: plain[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Recipe:
    """An origin and one instruction per epoch."""

    origin: Origin
    epochs: tuple[Epoch, ...]

    def keys(self) -> tuple[str, ...]:
        """The names of states 0 … T: (T + 1,)."""
        names = [_digest(_canonical(self.origin))]
        for epoch in self.epochs:
            names.append(_digest(names[-1] + _canonical(epoch)))
        return tuple(names)


@lru_cache(maxsize=1)
def settled() -> dict[str, str]:
    """The parts of an origin that this installation decides: a worker must have them as the plan does."""
    return {
        "torch": metadata.version("torch"),
        "torchvision": metadata.version("torchvision"),
        "numpy": metadata.version("numpy"),
        "source": _digest(json.dumps(source_files())),
    }


@lru_cache(maxsize=1)
def source_files() -> dict[str, str]:
    """The digest of each file that a state depends on, as a syntax tree without docstrings and comments.

    Left out is what only chooses recipes or reads states, so that a better export retrains nothing: a recipe is in
    the keys itself.
    """
    folder = Path(__file__).parent
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    return {name: _digest(_code(folder / name)) for name in names if name not in _NO_PART_OF_A_STATE}


_NO_PART_OF_A_STATE = (
    "config.py",
    "exponents.py",
    "export.py",
    "methods.py",
    "origins.py",
    "schedule.py",
    "sources.py",
    "work.py",
)


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node) is not None:  # type: ignore[arg-type]
            node.body = node.body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


@lru_cache(maxsize=4096)
def _canonical(part: Epoch | Origin) -> str:
    return json.dumps(part.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
