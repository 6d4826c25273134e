"""A trial's configuration, validated where it enters. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from study.refusal import Refusal
from trainables.datasets import DATASETS

SAMPLERS = {"IB": 1.0, "CB": 0.0, "CR": -1.0}
BACKBONES = ("resnet8", "resnet32")
METHODS = ("switching",)
PRECISIONS = ("fp32", "bf16")

Sampler = str | float | tuple[float, ...]


def resolve_sampler(sampler: Sampler, field: str = "sampler", classes: int | None = None) -> float | tuple[float, ...]:
    """The exponent q of a sampler (``p_j ∝ n_j^q``, eq. 1) or its class weights.

    Args:
        sampler: IB, CB or CR; any finite number as q; or one weight ≥ 0 a class, largest class first: (C,).
        field: what to call the value when it is refused.
        classes: C, which a vector of weights must have.

    Raises:
        Refusal: for anything else.
    """
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            raise Refusal(field, sampler, f"one of {', '.join(SAMPLERS)}, an exponent q or class weights would do")
        return SAMPLERS[sampler]
    exponent = _number(sampler)
    if math.isfinite(exponent):
        return exponent
    if isinstance(sampler, (list, tuple)):
        weights = tuple(map(_number, sampler))
        if not all(w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
            raise Refusal(field, sampler, "finite class weights ≥ 0 that do not all vanish would do")
        if classes is not None and len(weights) != classes:
            raise Refusal(field, f"{len(weights)} class weights", f"{classes}, one a class, would do")
        return weights
    raise Refusal(field, sampler, f"one of {', '.join(SAMPLERS)}, a finite exponent q or class weights would do")


def sampler_name(sampler: Sampler) -> str:
    """What tables and MLflow call a sampler: IB, CB, CR, ``q=0.5`` or ``weights``."""
    resolved = resolve_sampler(sampler)
    if isinstance(resolved, tuple):
        return "weights"
    return next((name for name, q in SAMPLERS.items() if q == resolved), f"q={resolved!r}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One trial: everything that its recipe follows from. The defaults are the paper's for CIFAR (A.3.2).

    Attributes:
        dataset: digits, cifar10 or cifar100.
        imbalance: imbalance factor IF = n_max / n_min, at least 1.
        backbone: resnet32 (the paper's) or resnet8 (eight layers of width 8, for digits).
        method: what turns the configuration into a recipe; see `trainables.methods`.
        first, switch: the samplers before and after the switch: IB, CB, CR, an exponent q, or class weights.
        S: the first sampler is used for exactly m + S epochs, m the last milestone (Algorithm 1).
        then: further stages (Table 7): pairs of (epochs that the sampler before is used for, next sampler).
        epochs: T; m + S and the lengths in `then` must leave at least one epoch to the last sampler.
        batch_size, lr, momentum, nesterov, weight_decay: of SGD.
        milestones, gamma: from each milestone's epoch on (counted from 0) the lr is multiplied by gamma.
        warmup: epochs of linear warm-up, ``lr · (e + 1) / warmup``.
        drop_last: leave out the last, smaller batch of an epoch.
        replacement: draw images inside a class with replacement (BBN's habit; Algorithm 1 draws without).
        precision: fp32 (without TF32) or bf16 (autocast).
        split_seed: on digits, which images are for test and which digit gets which rank.
        subset_seed: which images the long-tailed subset keeps; 0 is LDAM's and BBN's on CIFAR.
        seed: initial weights, sampling and augmentation.

    Raises:
        Refusal: if a value is wrong, naming the field, the value and what would do.
    """

    dataset: str = "cifar10"
    imbalance: float = 50.0
    backbone: str = "resnet32"
    method: str = "switching"
    first: Sampler = "IB"
    switch: Sampler = "CR"
    S: int = 1
    then: tuple[tuple[int, Sampler], ...] = ()
    epochs: int = 200
    batch_size: int = 64
    lr: float = 0.1
    milestones: tuple[int, ...] = (100,)
    gamma: float = 0.1
    warmup: int = 5
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    drop_last: bool = False
    replacement: bool = False
    precision: str = "fp32"
    split_seed: int = 0
    subset_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for field, choices in (
            ("dataset", tuple(DATASETS)), ("backbone", BACKBONES), ("method", METHODS), ("precision", PRECISIONS),
        ):  # fmt: skip
            self._require(field, getattr(self, field) in choices, f"one of {', '.join(choices)} would do")
        for field, low in (("epochs", 1), ("batch_size", 1), ("warmup", 0), ("S", 0)):
            self._require(field, _is_int(getattr(self, field), low), f"a whole number ≥ {low} would do")
        for field in ("split_seed", "subset_seed", "seed"):
            value = getattr(self, field)
            self._require(field, _is_int(value, 0) and value < 1 << 32, "a whole number from 0 to 2³² - 1 would do")
        for field, least, limit in (
            ("imbalance", 1.0, math.inf), ("lr", 0.0, math.inf), ("gamma", 0.0, math.inf), ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
        ):  # fmt: skip
            number = _number(getattr(self, field))
            above = f" and < {limit:g}" if limit < math.inf else ""
            self._require(field, least <= number < limit, f"a finite number ≥ {least:g}{above} would do")
            object.__setattr__(self, field, number)
        for field in ("nesterov", "drop_last", "replacement"):
            self._require(field, isinstance(getattr(self, field), bool), "true or false would do")
        self._require("nesterov", not self.nesterov or self.momentum > 0, "Nesterov needs a momentum above 0")
        self._check_counts()
        self._check_schedule()

    def _require(self, field: str, good: bool, remedy: str) -> None:
        if not good:
            raise Refusal(field, getattr(self, field), remedy)

    def _check_counts(self) -> None:
        counts = DATASETS[self.dataset].counts(self.imbalance)
        self._require(
            "imbalance", counts[-1] >= 1,
            f"{self.dataset} has at most {counts[0]} training images a class: "
            f"at most {counts[0]} would leave one to the smallest",
        )  # fmt: skip
        self._require(
            "batch_size", not self.drop_last or self.batch_size <= sum(counts),
            f"with drop_last, at most {sum(counts)}, the images of an epoch, would do",
        )  # fmt: skip

    def _check_schedule(self) -> None:
        stones = self.milestones
        good = isinstance(stones, (list, tuple)) and all(_is_int(m, 0) for m in stones)
        self._require(
            "milestones", good and list(stones) == sorted(set(stones)) and all(m < self.epochs for m in stones),
            f"increasing whole numbers below epochs = {self.epochs} would do",
        )  # fmt: skip
        object.__setattr__(self, "milestones", tuple(stones))
        highest = math.log(max(self.gamma, 1.0)) * len(stones) + math.log(self.lr or 1.0)
        self._require("gamma", highest < 700, "an lr that stays finite through the milestones would do")
        stages = []
        self._require("then", isinstance(self.then, (list, tuple)), "a list of (epochs, sampler) would do")
        for stage in self.then:
            good = isinstance(stage, (list, tuple)) and len(stage) == 2 and _is_int(stage[0], 1)
            self._require("then", good, "pairs of (a whole number of epochs ≥ 1, a sampler) would do")
            stages.append((stage[0], _freeze(stage[1])))
        object.__setattr__(self, "then", tuple(stages))
        object.__setattr__(self, "first", _freeze(self.first))
        object.__setattr__(self, "switch", _freeze(self.switch))
        classes = DATASETS[self.dataset].classes
        for field, sampler in (("first", self.first), ("switch", self.switch), *(("then", s) for _, s in stages)):
            resolve_sampler(sampler, field, classes)
        fixed = self.last_milestone + sum(length for length, _ in stages)
        if fixed + self.S >= self.epochs:
            room = self.epochs - 1 - fixed
            remedy = f"at most {room} would do" if room >= 0 else "more epochs or an earlier milestone would do"
            raise Refusal(
                "S", self.S,
                f"the last sampler would start at epoch {fixed + self.S}, beyond the {self.epochs} epochs: {remedy}",
            )  # fmt: skip

    @property
    def last_milestone(self) -> int:
        """m, from which the switch is counted; 0 if the lr has no milestone."""
        return self.milestones[-1] if self.milestones else 0

    @property
    def combination(self) -> str:
        """The schedule in one word: ``IB⇒CR``; for further stages ``IB⇒CB×5⇒CR``."""
        words = [sampler_name(self.first)]
        sampler = self.switch
        for length, following in self.then:
            words.append(f"{sampler_name(sampler)}×{length}")
            sampler = following
        return "⇒".join([*words, sampler_name(sampler)])

    def replicate(self, number: int) -> Config:
        """The same trial under replicate `number`'s seeds: each, 0 by default, is counted on from its own value."""
        return replace(
            self, split_seed=self.split_seed + number, subset_seed=self.subset_seed + number, seed=self.seed + number
        )

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds and `from_json` takes back."""
        plain = asdict(self)
        for field in ("milestones", "then", "first", "switch"):
            plain[field] = _thaw(plain[field])
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Config:
        """The configuration of a dictionary, every value checked; unknown fields are refused."""
        known = {field.name for field in fields(cls)}
        for field in plain:
            if field not in known:
                raise Refusal("config", field, f"no such field; one of {', '.join(sorted(known))} would do")
        return cls(**plain)


def base(dataset: str, imbalance: float = 50.0) -> Config:
    """The protocol of a data set: the paper's for CIFAR (A.3.2); for digits-LT 100 epochs, milestone 50."""
    if dataset == "digits":
        return Config(dataset="digits", imbalance=imbalance, backbone="resnet8", epochs=100, milestones=(50,))
    return Config(dataset=dataset, imbalance=imbalance)


def _number(value: object) -> float:
    """A number as a float, -0.0 as 0.0, for one value needs one name; NaN for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf


def _is_int(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value


def _thaw(value: Any) -> Any:
    return list(map(_thaw, value)) if isinstance(value, (list, tuple)) else value
