"""A trial's configuration, validated where it enters. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from study.refusal import Refusal
from trainables.datasets import facts
from trainables.recipe import LOSSES

SAMPLERS = {"IB": 1.0, "CB": 0.0, "CR": -1.0}
BACKBONES = ("resnet8", "resnext11", "resnet32", "resnet50", "resnext50")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
SEEDS = ("split_seed", "subset_seed", "seed")

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

    Each method of the paper is a point of this space; `trainables.methods` says which, `trainables.schedule` what its
    epochs are.

    Attributes:
        method: what tables call it; the fields below say what it is.
        dataset: digits, cifar10, cifar100, imagenet-lt, inaturalist2018, places-lt, or folder:PATH.
        imbalance: imbalance factor IF = n_max / n_min, at least 1; of data that are long-tailed by nature, their own.
        backbone: resnet32 (the paper's for CIFAR), resnet50 or resnext50; resnet8 or resnext11 for digits.
        first, switch: the samplers before and after the switch: IB, CB, CR, an exponent q, or class weights.
        S: the first sampler is used for exactly m + S epochs, m the last milestone (Algorithm 1).
        switch_epoch: where a method's source says it: the epochs before the switch, instead of m + S.
        then: further stages (Table 7): pairs of (epochs that the sampler before is used for, next sampler).
        joint: whether the backbone is trained on after the switch (Table 11).
        reinitialise: whether the classifier is drawn anew at the switch (Table 11).
        bilateral: BBN's two branches: `first` in one, the reversed sampler in the other, instead of a switch.
        loss: of `losses`; its constants are the next four.
        focal_gamma: γ of focal and sigmoid_focal.
        max_margin: the largest margin of ldam.
        tau: τ of logit_adjusted, ``z + τ log π``; 1 is balanced softmax.
        smoothing: of label_aware_smoothing, for the largest class and the smallest.
        beta: β of the loss's effective-number weights; 0 for none.
        switch_beta: β after the switch; 0 for that of before.
        mixup: a of the Beta(a, a) that batches before the switch are mixed by; 0 for none.
        epochs: T; m + S and the lengths in `then` must leave at least one epoch to the last sampler.
        batch_size, lr, momentum, nesterov, weight_decay: of SGD.
        milestones, gamma: from each milestone's epoch on (counted from 0) the lr is multiplied by gamma.
        warmup: epochs of linear warm-up, ``lr · (e + 1) / warmup``.
        drop_last: leave out the last, smaller batch of an epoch.
        replacement: draw images inside a class with replacement (BBN's habit; Algorithm 1 draws without).
        retrain: the sampler of a second stage after all epochs (Table 12, cRT, LWS), in which the backbone is fixed;
            None for no such stage.
        retrains: classifier, which is drawn anew (cRT), or scale, a factor a class (LWS).
        retrain_epochs, retrain_lr, retrain_weight_decay, retrain_batch: of that stage; a batch of 0 is `batch_size`.
        fixed_batch_norm: whether the batch-norm statistics of a fixed backbone move (train) or not (frozen).
        retrain_schedule: step, after a warm-up as before ×0.1 at a third and at two thirds; or cosine to 0.
        measures: beyond the fixed set: fit, events; see `recipe.Epoch`.
        precision: fp32 (without TF32), tf32 (fp32, but for matrix products and convolutions on a GPU), bf16
            (autocast), or auto, as the machine has it; see `recipe.precision`.
        split_seed: on digits, which images are for test and which digit is the n-th largest class.
        subset_seed: which images the long-tailed subset keeps; 0 is LDAM's and BBN's on CIFAR.
        seed: initial weights, sampling and augmentation.
        varies: the seeds that a replicate's number is added to; the others are the same in all of them.

    Raises:
        Refusal: if a value is wrong, naming the field, the value and what would do.
    """

    method: str = "switching"
    dataset: str = "cifar10"
    imbalance: float = 50.0
    backbone: str = "resnet32"
    first: Sampler = "IB"
    switch: Sampler = "CR"
    S: int = 1
    switch_epoch: int | None = None
    then: tuple[tuple[int, Sampler], ...] = ()
    joint: bool = True
    reinitialise: bool = False
    bilateral: bool = False
    loss: str = "cross_entropy"
    focal_gamma: float = 1.0
    max_margin: float = 0.5
    tau: float = 1.0
    smoothing: tuple[float, float] = (0.4, 0.1)
    beta: float = 0.0
    switch_beta: float = 0.0
    mixup: float = 0.0
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
    retrain: Sampler | None = None
    retrains: str = "classifier"
    retrain_epochs: int = 30
    retrain_lr: float = 0.1
    retrain_weight_decay: float = 5e-4
    retrain_batch: int = 0
    retrain_schedule: str = "step"
    fixed_batch_norm: str = "train"
    measures: tuple[str, ...] = ()
    precision: str = "auto"
    split_seed: int = 0
    subset_seed: int = 0
    seed: int = 0
    varies: tuple[str, ...] = SEEDS

    def __post_init__(self) -> None:
        self._require("method", isinstance(self.method, str) and self.method != "", "a name would do")
        self._require("dataset", isinstance(self.dataset, str), "a name would do")
        facts(self.dataset)
        for field, choices in (
            ("backbone", BACKBONES), ("loss", LOSSES), ("precision", PRECISIONS),
            ("retrains", ("classifier", "scale")), ("retrain_schedule", ("step", "cosine")),
            ("fixed_batch_norm", ("train", "frozen")),
        ):  # fmt: skip
            self._require(field, getattr(self, field) in choices, f"one of {', '.join(choices)} would do")
        for field, some in (("measures", ("fit", "events")), ("varies", SEEDS)):
            value = getattr(self, field)
            good = isinstance(value, (list, tuple)) and all(each in some for each in value)
            self._require(field, good, f"some of {', '.join(some)} would do")
            object.__setattr__(self, field, tuple(each for each in some if each in value))
        for field, low in (
            ("epochs", 1), ("batch_size", 1), ("warmup", 0), ("S", 0), ("retrain_epochs", 1), ("retrain_batch", 0),
        ):  # fmt: skip
            self._require(field, _is_int(getattr(self, field), low), f"a whole number ≥ {low} would do")
        for field in SEEDS:
            value = getattr(self, field)
            self._require(field, _is_int(value, 0) and value < 1 << 32, "a whole number from 0 to 2³² - 1 would do")
        for field, least, limit in (
            ("imbalance", 1.0, math.inf), ("lr", 0.0, math.inf), ("gamma", 0.0, math.inf), ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf), ("focal_gamma", 0.0, math.inf), ("max_margin", 0.0, math.inf),
            ("tau", -math.inf, math.inf), ("beta", 0.0, 1.0), ("switch_beta", 0.0, 1.0), ("mixup", 0.0, math.inf),
            ("retrain_lr", 0.0, math.inf), ("retrain_weight_decay", 0.0, math.inf),
        ):  # fmt: skip
            number = _number(getattr(self, field))
            above = (f" ≥ {least:g}" if least > -math.inf else "") + (f" and < {limit:g}" if limit < math.inf else "")
            self._require(field, math.isfinite(number) and least <= number < limit, f"a finite number{above} would do")
            object.__setattr__(self, field, number)
        for field in ("joint", "reinitialise", "bilateral", "nesterov", "drop_last", "replacement"):
            self._require(field, isinstance(getattr(self, field), bool), "true or false would do")
        self._require("nesterov", not self.nesterov or self.momentum > 0, "Nesterov needs a momentum above 0")
        pair = self.smoothing if isinstance(self.smoothing, (list, tuple)) else ()
        good = len(pair) == 2 and all(0 <= _number(share) < 1 for share in pair)
        self._require("smoothing", good, "two shares ≥ 0 and < 1, of the largest class and the smallest, would do")
        object.__setattr__(self, "smoothing", tuple(map(_number, self.smoothing)))
        self._check_counts()
        self._check_schedule()
        self._check_parts()

    def _require(self, field: str, good: bool, remedy: str) -> None:
        if not good:
            raise Refusal(field, getattr(self, field), remedy)

    def _check_counts(self) -> None:
        known = facts(self.dataset)
        if known.natural is None:
            counts = known.counts(self.imbalance)
            self._require(
                "imbalance", counts[-1] >= 1,
                f"{self.dataset} has at most {counts[0]} training images a class: "
                f"at most {counts[0]} would leave one to the smallest",
            )  # fmt: skip
        else:
            own = f"{known.natural:g}, its own, would do: {self.dataset} is long-tailed by nature"
            self._require("imbalance", self.imbalance == known.natural, own)
        images = known.images(self.imbalance)
        remedy = f"with drop_last, at most {images}, the images of an epoch, would do"
        for field in ("batch_size", "retrain_batch"):
            self._require(field, not self.drop_last or getattr(self, field) <= images, remedy)

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
        for field in ("first", "switch", "retrain"):
            object.__setattr__(self, field, _freeze(getattr(self, field)))
        classes = facts(self.dataset).classes
        own = [("first", self.first), ("switch", self.switch), *(("then", s) for _, s in stages)]
        for field, sampler in own if self.retrain is None else [*own, ("retrain", self.retrain)]:
            resolve_sampler(sampler, field, classes)
        length = sum(length for length, _ in stages)
        if self.switch_epoch is not None:
            good = _is_int(self.switch_epoch, 0) and self.switch_epoch + length < self.epochs
            self._require("switch_epoch", good, f"a whole number from 0 to {self.epochs - length - 1} would do")
        fixed = self.last_milestone + length
        if self.switch_epoch is None and fixed + self.S >= self.epochs:
            room = self.epochs - 1 - fixed
            remedy = f"at most {room} would do" if room >= 0 else "more epochs or an earlier milestone would do"
            raise Refusal(
                "S", self.S,
                f"the last sampler would start at epoch {fixed + self.S}, beyond the {self.epochs} epochs: {remedy}",
            )  # fmt: skip

    def _check_parts(self) -> None:
        """What goes together."""
        linear = "a linear classifier would do: no ldam, no bilateral"
        scaled = self.retrain is not None and self.retrains == "scale"
        self._require("retrains", not scaled or self.head in ("linear", "rare"), linear)
        for field, plain in (
            ("then", ()), ("retrain", None), ("mixup", 0.0), ("joint", True), ("reinitialise", False),
            ("switch_beta", 0.0), ("switch", self.first),
        ):  # fmt: skip
            good = not self.bilateral or getattr(self, field) == plain
            self._require(field, good, f"{plain!r} would do: a bilateral network has no switch and one stage")
        self._require(
            "loss", not self.bilateral or self.loss != "ldam", "another would do: bilateral has a head of its own"
        )

    @property
    def head(self) -> str:
        """The end of the network that the loss asks for; see `networks.build`."""
        if self.bilateral:
            return "bilateral"
        return {"ldam": "cosine", "sigmoid_focal": "rare"}.get(self.loss, "linear")

    @property
    def last_first(self) -> int:
        """The epochs before the switch: m + S, unless `switch_epoch` says otherwise."""
        return self.last_milestone + self.S if self.switch_epoch is None else self.switch_epoch

    @property
    def last_milestone(self) -> int:
        """m, from which the switch is counted; 0 if the lr has no milestone."""
        return self.milestones[-1] if self.milestones else 0

    @property
    def combination(self) -> str:
        """The schedule in one word: ``IB⇒CR``; for further stages ``IB⇒CB×5⇒CR``; BBN's is ``IB+CR``.

        With a second stage ``IB⇒IB, classifier CB``.
        """
        words = [sampler_name(self.first)]
        if self.bilateral:
            return f"{words[0]}+CR"
        sampler = self.switch
        for length, following in self.then:
            words.append(f"{sampler_name(sampler)}×{length}")
            sampler = following
        words.append(sampler_name(sampler))
        again = "" if self.retrain is None else f", {self.retrains} {sampler_name(self.retrain)}"
        return "⇒".join(words) + again

    def replicate(self, number: int) -> Config:
        """The same trial under replicate `number`'s seeds: each that `varies` is counted on from its own value."""
        return replace(self, **{name: getattr(self, name) + number for name in self.varies})

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds and `from_json` takes back."""
        plain = asdict(self)
        return {field: _thaw(value) for field, value in plain.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Config:
        """The configuration of a dictionary, every value checked; unknown fields are refused."""
        known = {field.name for field in fields(cls)}
        for field in plain:
            if field not in known:
                raise Refusal("config", field, f"no such field; one of {', '.join(sorted(known))} would do")
        return cls(**plain)


def base(dataset: str, imbalance: float | None = None) -> Config:
    """The protocol of a data set (A.3.2); for digits-LT 100 epochs, milestone 50.

    For ImageNet-LT and iNaturalist the paper gives neither weight decay nor warm-up: 5e-4 and 1e-4 are those of Kang et
    al. (2020), without warm-up. Places-LT and folders, which are not in the paper, are trained as ImageNet-LT is.

    Args:
        dataset: as in `Config`.
        imbalance: IF, 50 by default; data that are long-tailed by nature have their own.
    """
    natural = facts(dataset).natural
    if natural is not None:
        lr, batch_size, weight_decay = (0.05, 512, 1e-4) if dataset == "inaturalist2018" else (0.2, 256, 5e-4)
        return Config(
            dataset=dataset, imbalance=natural if imbalance is None else imbalance, backbone="resnet50", epochs=90,
            milestones=(60, 80), warmup=0, lr=lr, batch_size=batch_size, weight_decay=weight_decay,
        )  # fmt: skip
    config = Config(dataset=dataset, imbalance=50.0 if imbalance is None else imbalance)
    return replace(config, backbone="resnet8", epochs=100, milestones=(50,)) if dataset == "digits" else config


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
